//! From the fork to the exec: everything that happens in the child before it is the command.
//!
//! Owns nothing that lives on: [`Spawn::spawn`] gives a [`Child`]. All that the child needs is allocated before the fork. The order is
//! what matters: group, death signal, variables, dispositions, mask, exec.
//!
//! Caveat: PDEATHSIG is best effort. Running a set-user-ID program clears it (PR_SET_PDEATHSIG(2const)).

use std::ffi::{CString, OsStr, OsString};
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::prctl;
use nix::unistd::{ForkResult, Pid};

use super::child::Child;
use super::environment::Environment;
use super::signals::Inherited;
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

/// Why the command does not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExecError {
    NotFound,
    /// The file is there; what its `#!` line names is not.
    NoInterpreter,
    CannotRun(Errno),
}

impl Spawn<'_> {
    /// `fork(2)`, and in the child everything up to `execve(2)`. Returns before the exec, which may take for ever (contract
    /// K5); [`Child::exec_result`] has its result.
    ///
    /// # Errors
    /// As pipe2(2) and fork(2), or a NUL byte in an argument.
    pub(crate) fn spawn(&self) -> io::Result<Child> {
        let plan = Plan::new(self)?;
        let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        let us = nix::unistd::getpid();
        // SAFETY: this process has one thread, so that the child may use whatever the parent may.
        match unsafe { nix::unistd::fork() }? {
            ForkResult::Child => plan.carry_out(self, us, &write),
            ForkResult::Parent { child } => {
                if self.own_group {
                    // The child does the same; whoever is first, the group exists before either goes on (peers C1.1). EACCES:
                    // the child was, and has executed.
                    let _ = nix::unistd::setpgid(child, child);
                }
                Ok(Child::new(child.as_raw(), self.own_group, read))
            }
        }
    }
}

/// All that the child needs, allocated before the fork.
struct Plan {
    /// The paths to try, in order.
    candidates: Vec<CString>,
    argv: Vec<CString>,
    environment: Environment,
}

/// Where to look without PATH: what execvp(3) of glibc uses.
const DEFAULT_PATH: &[u8] = b"/bin:/usr/bin";
/// What runs a script that does not say what runs it (execvp(3)).
const SHELL: &std::ffi::CStr = c"/bin/sh";

impl Plan {
    fn new(spawn: &Spawn<'_>) -> io::Result<Self> {
        let command = spawn.command.as_bytes();
        let candidates = if command.contains(&b'/') || command.is_empty() {
            vec![CString::new(command)?]
        } else {
            let path = std::env::var_os("PATH").map_or(DEFAULT_PATH.to_vec(), OsString::into_vec);
            path.split(|&b| b == b':')
                .map(|dir| CString::new(if dir.is_empty() { command.to_vec() } else { [dir, b"/", command].concat() }))
                .collect::<Result<_, _>>()?
        };
        let argv = [spawn.command].into_iter().chain(spawn.args.iter().map(OsString::as_os_str));
        let argv = argv.map(|arg| CString::new(arg.as_bytes())).collect::<Result<_, _>>()?;
        Ok(Self { candidates, argv, environment: Environment::new(spawn.variables, spawn.stands_in) })
    }

    /// The child's side of the fork, with every signal still blocked: what was sent to it by then acts at the moment that the
    /// mask is put back.
    fn carry_out(mut self, spawn: &Spawn<'_>, parent: Pid, report: &OwnedFd) -> ! {
        if spawn.own_group {
            let _ = nix::unistd::setpgid(Pid::from_raw(0), Pid::from_raw(0));
        }
        if spawn.die_with_us {
            let _ = prctl::set_pdeathsig(nix::sys::signal::SIGKILL);
            // It fires only for a death from now on.
            if nix::unistd::getppid() != parent {
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
        spawn.inherited.restore();
        let error = self.explain(self.exec());
        let _ = nix::unistd::write(report, &error.encode());
        // SAFETY: as above.
        unsafe { libc::_exit(i32::from(error.exit().number())) }
    }

    /// Tries the candidates as execvp(3) does: on past what is not there, remembering what may not be run.
    fn exec(&self) -> Errno {
        let argv: Vec<_> = self.argv.iter().map(|arg| arg.as_ptr()).chain([std::ptr::null()]).collect();
        let mut denied = None;
        for path in &self.candidates {
            // SAFETY: argv is an array of C strings that ends with a null pointer, and so is the environment.
            unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), self.environment.as_ptr()) };
            match Errno::last() {
                Errno::ENOEXEC => {
                    let script = [SHELL.as_ptr(), path.as_ptr()]
                        .into_iter()
                        .chain(argv[1..].iter().copied())
                        .collect::<Vec<_>>();
                    // SAFETY: as above; argv[1..] brings the null pointer.
                    unsafe { libc::execve(SHELL.as_ptr(), script.as_ptr(), self.environment.as_ptr()) };
                    return Errno::ENOEXEC;
                }
                error @ Errno::EACCES => denied = Some(error),
                Errno::ENOENT | Errno::ENOTDIR => {}
                error => return error,
            }
        }
        denied.unwrap_or(Errno::ENOENT)
    }

    fn explain(&self, error: Errno) -> ExecError {
        let any = |is: fn(&Path) -> bool| {
            self.candidates.iter().any(|path| is(Path::new(OsStr::from_bytes(path.to_bytes()))))
        };
        match error {
            Errno::ENOENT if any(Path::exists) => ExecError::NoInterpreter,
            Errno::ENOENT | Errno::ENOTDIR => ExecError::NotFound,
            // The kernel says EACCES, which sends people to chmod.
            Errno::EACCES if any(Path::is_dir) => ExecError::CannotRun(Errno::EISDIR),
            error => ExecError::CannotRun(error),
        }
    }
}

impl ExecError {
    /// What bowout ends with because of it.
    pub(crate) fn exit(self) -> Exit {
        match self {
            Self::NotFound => Exit::NOT_FOUND,
            Self::NoInterpreter | Self::CannotRun(_) => Exit::CANNOT_RUN,
        }
    }

    /// The error as errno(3) counts.
    pub(crate) fn errno(self) -> i32 {
        match self {
            Self::NotFound | Self::NoInterpreter => Errno::ENOENT as i32,
            Self::CannotRun(errno) => errno as i32,
        }
    }

    /// For the pipe from the child: one write, so that it comes whole (pipe(7), `PIPE_BUF`).
    fn encode(self) -> [u8; 5] {
        let [a, b, c, d] = self.errno().to_ne_bytes();
        [self.exit().number(), a, b, c, d]
    }

    pub(super) fn decode([exit, errno @ ..]: [u8; 5]) -> Self {
        match (Exit::Code(exit), Errno::from_raw(i32::from_ne_bytes(errno))) {
            (Exit::NOT_FOUND, _) => Self::NotFound,
            (_, Errno::ENOENT) => Self::NoInterpreter,
            (_, errno) => Self::CannotRun(errno),
        }
    }
}

impl fmt::Display for ExecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str(Errno::ENOENT.desc()),
            Self::NoInterpreter => f.write_str("the interpreter that it names does not exist"),
            Self::CannotRun(errno) => f.write_str(errno.desc()),
        }
    }
}
