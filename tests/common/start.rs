//! Builds and starts the command line of a test.

use std::ffi::{OsStr, OsString};
use std::io::pipe;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Instant;

use super::{
    BOWOUT, Lines, NOTHING, Running, children, hold, leftovers, no_namespaces, probe, skip, until,
};

/// The place where bowout runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    Subreaper,
    Pid1,
}

/// Both homes, where there are namespaces.
pub fn homes() -> Vec<Home> {
    if skip(no_namespaces()) {
        vec![Home::Subreaper]
    } else {
        vec![Home::Subreaper, Home::Pid1]
    }
}

pub struct Start {
    home: Home,
    program: OsString,
    under: Vec<OsString>,
    options: Vec<OsString>,
    words: Vec<OsString>,
    proc: bool,
    env: Vec<(OsString, OsString)>,
    dir: Option<std::path::PathBuf>,
    inherit: Vec<RawFd>,
    stdin: Option<Stdio>,
    stdout: Option<Stdio>,
    stderr: Option<Stdio>,
}

fn words<W: AsRef<OsStr>>(words: impl IntoIterator<Item = W>) -> impl Iterator<Item = OsString> {
    words.into_iter().map(|word| word.as_ref().to_owned())
}

impl Start {
    /// bowout with these options.
    pub fn new<W: AsRef<OsStr>>(options: impl IntoIterator<Item = W>) -> Self {
        Self {
            home: Home::Subreaper,
            program: BOWOUT.into(),
            under: Vec::new(),
            options: words(options).collect(),
            words: Vec::new(),
            proc: true,
            env: Vec::new(),
            dir: None,
            inherit: Vec::new(),
            stdin: None,
            stdout: None,
            stderr: None,
        }
    }

    /// bowout without options.
    pub fn plain() -> Self {
        Self::new(NOTHING)
    }

    /// No bowout: the command is executed directly.
    pub fn direct() -> Self {
        Self {
            program: OsString::new(),
            ..Self::plain()
        }
    }

    pub fn at(mut self, home: Home) -> Self {
        self.home = home;
        self
    }

    /// bowout under another name, or another program in its place.
    pub fn program(mut self, program: impl AsRef<OsStr>) -> Self {
        program.as_ref().clone_into(&mut self.program);
        self
    }

    /// Runs bowout without /proc.
    pub fn no_proc(mut self) -> Self {
        self.proc = false;
        self
    }

    /// Adds set-up words for `probe with`.
    pub fn with<W: AsRef<OsStr>>(mut self, setup: impl IntoIterator<Item = W>) -> Self {
        self.under.extend(words(setup));
        self
    }

    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env
            .push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    pub fn dir(mut self, dir: impl Into<std::path::PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// Passes a descriptor to the command at the same number.
    pub fn inherit(mut self, fd: &impl AsRawFd) -> Self {
        self.inherit.push(fd.as_raw_fd());
        self
    }

    pub fn stdin(mut self, stdin: impl Into<Stdio>) -> Self {
        self.stdin = Some(stdin.into());
        self
    }

    pub fn stdout(mut self, stdout: impl Into<Stdio>) -> Self {
        self.stdout = Some(stdout.into());
        self
    }

    pub fn stderr(mut self, stderr: impl Into<Stdio>) -> Self {
        self.stderr = Some(stderr.into());
        self
    }

    /// The command, after `--`.
    pub fn command<W: AsRef<OsStr>>(self, command: impl IntoIterator<Item = W>) -> Running {
        let all: Vec<OsString> = ["--".into()].into_iter().chain(words(command)).collect();
        self.bare(all)
    }

    pub fn probe<W: AsRef<OsStr>>(self, command: impl IntoIterator<Item = W>) -> Running {
        let all: Vec<OsString> = [probe().into()].into_iter().chain(words(command)).collect();
        self.command(all)
    }

    /// A shell script as the command; `$PROBE` in it is the probe.
    pub fn sh(self, script: &str) -> Running {
        self.command(["sh", "-c", script])
    }

    /// Uses the command line unchanged, without adding `--`.
    pub fn bare<W: AsRef<OsStr>>(mut self, command: impl IntoIterator<Item = W>) -> Running {
        self.words.extend(words(command));
        self.spawn()
    }

    fn line(&self) -> Vec<OsString> {
        let mut line: Vec<OsString> = Vec::new();
        if self.home == Home::Pid1 || !self.proc {
            line.extend(words([probe().as_os_str(), "ns".as_ref()]));
            line.extend(words((self.home != Home::Pid1).then_some("--here")));
            line.extend(words((!self.proc).then_some("--no-proc")));
            line.push("--".into());
        }
        if !self.under.is_empty() {
            line.extend(words([probe().as_os_str(), "with".as_ref()]));
            line.extend(self.under.clone());
            line.push("--".into());
        }
        if self.program.is_empty() {
            line.extend(self.words[1..].iter().cloned());
        } else {
            line.push(self.program.clone());
            line.extend(self.options.iter().chain(&self.words).cloned());
        }
        line
    }

    fn spawn(mut self) -> Running {
        let line = self.line();
        let started = Instant::now();
        let mark = leftovers::unique();
        let mut command = Command::new(&line[0]);
        command
            .args(&line[1..])
            .env_clear()
            .env(leftovers::MARK, &mark)
            .env("PROBE", probe());
        command.env("PATH", path()).envs(self.env.drain(..));
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        let (out, stdout) = end(self.stdout.take());
        let (err, stderr) = end(self.stderr.take());
        command
            .stdin(self.stdin.take().unwrap_or_else(Stdio::null))
            .stdout(stdout)
            .stderr(stderr);
        let inherit = std::mem::take(&mut self.inherit);
        let set_up = move || {
            // SAFETY: system calls alone. Signals are reset, whatever the test runner inherited.
            // The process gets a session without a terminal. The kernel kills it when the test's
            // thread ends, should the drop not run.
            unsafe {
                super::clean_slate();
                libc::setsid();
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                // Close on exec every descriptor that the test runner inherited.
                libc::syscall(
                    libc::SYS_close_range,
                    3,
                    u32::MAX,
                    libc::CLOSE_RANGE_CLOEXEC,
                );
                for fd in &inherit {
                    libc::fcntl(*fd, libc::F_SETFD, 0);
                }
            }
            Ok(())
        };
        // SAFETY: system calls alone, on values that exist already.
        unsafe { command.pre_exec(set_up) };
        let child =
            leftovers::spawn(&mut command).unwrap_or_else(|error| panic!("{line:?}: {error}"));
        // It holds the write ends.
        drop(command);
        let launcher = child.id() as i32;
        let bowout = || match self.home {
            Home::Subreaper => Some(launcher),
            // bowout may have ended already, and the launcher with it.
            Home::Pid1 => children(launcher).first().copied().or_else(|| {
                leftovers::stat(launcher)
                    .filter(|stat| stat.state == 'Z')
                    .map(|_| launcher)
            }),
        };
        let (pid, handle) = until("bowout is there", || {
            let pid = bowout()?;
            let handle = hold(pid)?;
            // The handle refers to bowout if bowout still has this PID.
            (bowout() == Some(pid)).then_some((pid, handle))
        });
        Running {
            pid,
            handle,
            home: self.home,
            child,
            mark,
            started,
            ended: None,
            is_over: false,
            out,
            err,
        }
    }
}

/// The directories of PATH that this process can read: with an unreadable one, no command is
/// reported as "not found".
fn path() -> OsString {
    let all = std::env::var_os("PATH").unwrap_or_default();
    let readable = std::env::split_paths(&all).filter(|dir| std::fs::read_dir(dir).is_ok());
    std::env::join_paths(readable).expect("it was a PATH")
}

fn end(given: Option<Stdio>) -> (Lines, Stdio) {
    if let Some(given) = given {
        return (Lines::of(std::io::empty()), given);
    }
    let (read, write) = pipe().expect("a pipe");
    (Lines::of(read), write.into())
}
