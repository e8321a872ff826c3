//! From the fork to the exec: everything that happens in the child before it is the command.
//!
//! Owns nothing that lives on: [`Spawn::spawn`] gives a [`Child`]. All that the child needs is
//! allocated before the fork. The order is what matters: group, death signal, variables,
//! dispositions, mask, exec.
//!
//! Caveat: PDEATHSIG is best effort. Running a set-user-ID program clears it
//! (PR_SET_PDEATHSIG(2const)).

use std::ffi::{CString, OsStr, OsString, c_char};
use std::io;
use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::unistd::Pid;

use super::attributes::Attributes;
use super::child::Child;
use super::environment::{self, Environment};
use super::refusal::{self, ExecError};
use super::signals::Inherited;
use super::this_process;
use crate::exit::Exit;

/// What to start and how.
#[derive(Debug)]
pub(crate) struct Spawn<'a> {
    pub(crate) command: &'a OsStr,
    pub(crate) args: &'a [OsString],
    pub(crate) inherited: &'a Inherited,
    /// Variables that the child has other than we do; `None` is one that it has not.
    pub(crate) variables: &'a [(&'static str, Option<OsString>)],
    /// It is the command: variables that name us are to name it.
    pub(crate) stands_in: bool,
    /// Where it starts; `None` is where we are.
    pub(crate) directory: Option<&'a Path>,
    /// Its stdout is our stderr, for our own stdout is let go of by then.
    pub(crate) to_stderr: bool,
    /// Give the child a process group of its own.
    pub(crate) own_group: bool,
    /// Have the kernel kill the child when bowout dies.
    pub(crate) die_with_us: bool,
}

impl Spawn<'_> {
    /// `fork(2)`, and in the child everything up to `execve(2)`. Returns before the exec, which may
    /// take for ever (contract K5); [`Child::exec_result`] has its result. `last` is the last thing
    /// before the fork.
    ///
    /// # Errors
    /// As pipe2(2) and fork(2), or a NUL byte in an argument.
    pub(crate) fn spawn(&self, last: impl FnOnce()) -> io::Result<Child> {
        let plan = Plan::new(self)?;
        let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        let us = Pid::from_raw(this_process::id());
        last();
        let child = fork().map_err(explain_fork)?;
        if child == 0 {
            plan.carry_out(self, us, read, &write);
        }
        if self.own_group {
            // The child does the same; whoever is first, the group exists before either goes on
            // (peers C1.1). EACCES: the child was, and has executed.
            let _ = nix::unistd::setpgid(Pid::from_raw(child), Pid::from_raw(child));
        }
        if self.stands_in {
            // `this_process::release`, which follows, closes our copy with the rest: one system
            // call less in each start.
            mem::forget(write);
        }
        Ok(Child::new(child, self.own_group, read))
    }
}

/// `fork(2)`: the child's PID, 0 in the child. The system call alone: the C library's function
/// brings its locks, lists and streams in order, which the child does not use, and each page that
/// is written to for that is copied. vfork(2) would copy none, but waits for the exec.
///
/// # Errors
/// As fork(2).
fn fork() -> io::Result<libc::pid_t> {
    let (flags, none) = (libc::c_long::from(libc::SIGCHLD), 0);
    let (first, second) = if cfg!(target_arch = "s390x") {
        (none, flags)
    } else {
        (flags, none)
    };
    // SAFETY: no memory is shared, and no stack or other address is given (clone(2)). This process
    // has one thread, so that the child may use whatever the parent may.
    let child = unsafe { libc::syscall(libc::SYS_clone, first, second, none, none, none) };
    if child < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(child as libc::pid_t)
    }
}

/// ENOMEM from fork(2) need not be a want of memory: no process can start in a PID namespace whose
/// first process has ended (pid_namespaces(7)). bowout's children are in another namespace than
/// bowout after `unshare -p` or `nsenter -p` without a fork.
fn explain_fork(error: io::Error) -> io::Error {
    let namespace = |name: &str| std::fs::read_link(format!("/proc/self/ns/{name}")).ok();
    if error.raw_os_error() == Some(libc::ENOMEM)
        && namespace("pid") != namespace("pid_for_children")
    {
        return io::Error::other(
            "the first process of its PID namespace has exited; use 'unshare --fork'",
        );
    }
    error
}

/// All that the child needs, allocated before the fork.
struct Plan {
    /// The paths to try, in order.
    candidates: Vec<CString>,
    /// What `argv` points to; a string stays where it is when its CString is moved.
    words: Vec<CString>,
    /// For execve(2), with the null pointer at its end.
    argv: Vec<*const c_char>,
    environment: Environment,
    attributes: Option<Attributes>,
}

/// Where to look without PATH: what execvp(3) of glibc uses.
const DEFAULT_PATH: &[u8] = b"/bin:/usr/bin";
/// What runs a script that does not say what runs it (execvp(3)).
const SHELL: &std::ffi::CStr = c"/bin/sh";

impl Plan {
    fn new(spawn: &Spawn<'_>) -> io::Result<Self> {
        let command = spawn.command.as_bytes();
        // A name that no directory can hold is not looked for, so that its own error is the result.
        let candidates = if command.contains(&b'/')
            || command.is_empty()
            || command.len() > libc::NAME_MAX as usize
        {
            vec![CString::new(command)?]
        } else {
            let path = environment::value("PATH").map_or(DEFAULT_PATH, OsStr::as_bytes);
            path.split(|&b| b == b':')
                .map(|dir| {
                    CString::new(if dir.is_empty() {
                        command.to_vec()
                    } else {
                        [dir, b"/", command].concat()
                    })
                })
                .collect::<Result<_, _>>()?
        };
        let words = [spawn.command]
            .into_iter()
            .chain(spawn.args.iter().map(OsString::as_os_str));
        let words = words
            .map(|word| CString::new(word.as_bytes()))
            .collect::<Result<Vec<_>, _>>()?;
        let argv = words
            .iter()
            .map(|word| word.as_ptr())
            .chain([std::ptr::null()])
            .collect();
        let environment = Environment::new(spawn.variables, spawn.stands_in);
        // Last, because a timer stands still until the child has it.
        let attributes = spawn.stands_in.then(Attributes::take);
        Ok(Self {
            candidates,
            words,
            argv,
            environment,
            attributes,
        })
    }

    /// The child's side of the fork, with every signal still blocked: what was sent to it by then
    /// acts at the moment that the mask is put back.
    fn carry_out(mut self, spawn: &Spawn<'_>, parent: Pid, read: OwnedFd, report: &OwnedFd) -> ! {
        if spawn.own_group {
            let _ = nix::unistd::setpgid(Pid::from_raw(0), Pid::from_raw(0));
        }
        if spawn.die_with_us {
            let _ = prctl::set_pdeathsig(nix::sys::signal::SIGKILL);
            // It fires only for a death from now on. After an earlier one, no process is left that
            // could log a reason. In another PID namespace (unshare(2), CLONE_NEWPID) bowout has no
            // number, but it has the only other reading end of the pipe.
            let has_parent = match nix::unistd::getppid().as_raw() {
                0 => {
                    drop(read);
                    has_reader(report)
                }
                pid => pid == parent.as_raw(),
            };
            if !has_parent {
                // SAFETY: ends the process and runs nothing.
                unsafe { libc::_exit(i32::from(Exit::OWN_FAILURE.number())) }
            }
        }
        self.environment.rewrite();
        // A hook that starts elsewhere, or whose output goes nowhere, is better than no hook.
        if let Some(directory) = spawn.directory {
            let _ = nix::unistd::chdir(directory);
        }
        if spawn.to_stderr {
            let _ = nix::unistd::dup2_stdout(std::io::stderr());
        }
        self.attributes
            .as_ref()
            .inspect(|attributes| attributes.give());
        spawn.inherited.restore();
        let error = ExecError::new(self.exec(), spawn.command, &self.candidates);
        let _ = nix::unistd::write(report, &error.encode());
        // SAFETY: as above.
        unsafe { libc::_exit(i32::from(error.exit().number())) }
    }

    /// Tries the candidates as execvp(3) does: on past those that are not there, remembering one
    /// that may not be executed. Past a path that is too long as well, where glibc goes on past
    /// some and stops at others.
    fn exec(&self) -> Errno {
        debug_assert_eq!(self.words.len() + 1, self.argv.len());
        let argv = &self.argv;
        let mut denied = None;
        let mut absent = Errno::ENOENT;
        for path in &self.candidates {
            // SAFETY: argv is an array of C strings that ends with a null pointer, and so is the
            // environment.
            unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), self.environment.as_ptr()) };
            match Errno::last() {
                Errno::ENOEXEC => {
                    if refusal::is_text(Path::new(OsStr::from_bytes(path.to_bytes()))) {
                        let script = [SHELL.as_ptr(), path.as_ptr()]
                            .into_iter()
                            .chain(argv[1..].iter().copied())
                            .collect::<Vec<_>>();
                        // SAFETY: as above; argv[1..] brings the null pointer.
                        unsafe {
                            libc::execve(SHELL.as_ptr(), script.as_ptr(), self.environment.as_ptr())
                        };
                    }
                    return Errno::ENOEXEC;
                }
                error @ Errno::EACCES => denied = Some(error),
                error @ (Errno::ENOENT
                | Errno::ENOTDIR
                | Errno::ESTALE
                | Errno::ENODEV
                | Errno::ETIMEDOUT) => {
                    absent = error;
                }
                Errno::ENAMETOOLONG if *path != self.words[0] => {}
                error => return error,
            }
        }
        denied.unwrap_or(absent)
    }
}

/// Whether the pipe that bowout reads from is still read, asked in the child.
fn has_reader(report: &OwnedFd) -> bool {
    poll(
        &mut [PollFd::new(report.as_fd(), PollFlags::empty())],
        PollTimeout::ZERO,
    ) == Ok(0)
}
