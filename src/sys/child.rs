//! The child: spawned, signalled, looked at and reaped here, and nowhere else.
//!
//! Owns its PID. A PID names our process until we reap it and may name a stranger's afterwards; hence the PID is forgotten
//! in the same breath, and signals are sent from here alone. Statuses and signals are plain integers at this seam: nix's
//! `waitpid` fails with EINVAL on a death by a real-time signal, and has reaped the process by then (nix#495).
//!
//! Caveat: PDEATHSIG is best effort. Running a set-user-ID program clears it (PR_SET_PDEATHSIG(2const)).

use std::ffi::{CString, OsStr, OsString};
use std::fmt;
use std::io;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::prctl;
use nix::unistd::{ForkResult, Pid};

use super::environment::Environment;
use super::signals::{self, Inherited};
use super::tree;
use crate::exit::{Exit, Usage};
use crate::signal::Signal;

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

/// The child that was spawned.
#[derive(Debug)]
pub(crate) struct Child {
    pid: libc::pid_t,
    reaped: bool,
    own_group: bool,
    /// Where the child says why it could not run the command; closed by a successful exec.
    exec: Option<OwnedFd>,
}

/// A process group that is led by an unreaped child of ours.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProcessGroup(libc::pid_t);

impl ProcessGroup {
    /// Whether this is its number.
    pub(crate) fn has(self, group: libc::pid_t) -> bool {
        self.0 == group
    }

    /// SIGKILL to all of it, by one kill(2), which a fork inside the group cannot outrun (fork(2) fails with a signal pending), where a walk
    /// over the tree can be. Whoever left the group is the walk's; so are errors, for it meets them again.
    pub(crate) fn kill(self) {
        let _ = signals::send(-self.0, Signal::KILL, None);
    }
}

/// Why the command does not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExecError {
    NotFound,
    /// The file is there; what its `#!` line names is not.
    NoInterpreter,
    CannotRun(Errno),
}

/// A process of ours that has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    pub(crate) pid: libc::pid_t,
    pub(crate) exit: Exit,
    /// It left a core, or was to.
    pub(crate) core: bool,
}

/// What became of the child without its ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Stopped(Signal),
    Continued,
}

/// What [`peek`] sees.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Peek {
    /// This one waits to be reaped.
    Ended(Ended),
    /// All that are ours are alive.
    None,
    /// Nothing is ours to wait for (`ECHILD`).
    NoChildren,
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
                Ok(Child { pid: child.as_raw(), reaped: false, own_group: self.own_group, exec: Some(read) })
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

    fn decode([exit, errno @ ..]: [u8; 5]) -> Self {
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

impl Child {
    /// Its PID; a name for the log once it is reaped.
    pub(crate) fn pid(&self) -> libc::pid_t {
        self.pid
    }

    /// Whether the PID and the group still are the child's.
    pub(crate) fn is_ours(&self) -> bool {
        !self.reaped
    }

    /// Signals the child. A child that is reaped is signalled no more.
    ///
    /// # Errors
    /// As [`signals::send`]; `ESRCH` for a child that is reaped.
    pub(crate) fn send(&self, signal: Signal, value: Option<u64>) -> io::Result<()> {
        if self.reaped { Err(Errno::ESRCH.into()) } else { signals::send(self.pid, signal, value) }
    }

    /// Signals the process group that the child leads, where it is not ours; else the child. While the child is not reaped, the number
    /// of a group that it leads is nobody else's.
    ///
    /// # Errors
    /// As [`Child::send`].
    pub(crate) fn send_to_group(&self, signal: Signal) -> io::Result<()> {
        let leads = self.group().is_some_and(|group| group.as_raw() == self.pid);
        if leads { signals::send(-self.pid, signal, None) } else { self.send(signal, None) }
    }

    /// Whether the child has ended and waits to be reaped.
    pub(crate) fn has_ended(&self) -> bool {
        let (result, info) = waitid(libc::P_PID, self.pid, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT);
        // SAFETY: waitid fills in this field, or leaves zero (waitid(2)).
        self.reaped || result != 0 || unsafe { info.si_pid() } != 0
    }

    /// The process group that we gave the child, for as long as its number cannot be anyone else's.
    pub(crate) fn own_group(&self) -> Option<ProcessGroup> {
        (self.own_group && !self.reaped).then_some(ProcessGroup(self.pid))
    }

    /// Readable when the exec has succeeded or failed.
    pub(crate) fn exec_pending(&self) -> Option<BorrowedFd<'_>> {
        self.exec.as_ref().map(AsFd::as_fd)
    }

    /// The result of the exec, if it is there and was not asked for before.
    pub(crate) fn exec_result(&mut self) -> Option<Result<(), ExecError>> {
        let mut report = [0; 5];
        let result = match nix::unistd::read(self.exec.as_ref()?, &mut report) {
            Ok(5) => Err(ExecError::decode(report)),
            // The end of the pipe, which the exec has closed, or the child's end before it.
            Ok(_) => Ok(()),
            Err(_) => return None,
        };
        self.exec = None;
        Some(result)
    }

    /// The child's process group at this moment; `None` once it is reaped.
    pub(crate) fn group(&self) -> Option<Pid> {
        if self.reaped { None } else { nix::unistd::getpgid(Some(Pid::from_raw(self.pid))).ok() }
    }

    /// Whether the child is stopped at this moment (proc_pid_stat(5)); not so where nobody can say.
    pub(crate) fn is_stopped(&self) -> bool {
        !self.reaped && tree::Process::read(self.pid).is_some_and(|process| process.state == 'T')
    }

    /// Whether the child was stopped or continued since this was last asked: `waitid(2)` with `WSTOPPED` and `WCONTINUED`.
    pub(crate) fn change(&self) -> Option<Change> {
        if self.reaped {
            return None;
        }
        let (result, info) = waitid(libc::P_PID, self.pid, libc::WSTOPPED | libc::WCONTINUED | libc::WNOHANG);
        // SAFETY: waitid fills in these two fields, or leaves zeros (waitid(2)).
        let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
        match info.si_code {
            _ if result != 0 || pid == 0 => None,
            libc::CLD_CONTINUED => Some(Change::Continued),
            _ => Signal::new(status).map(Change::Stopped),
        }
    }

    /// Takes the child's status off the kernel, which may then give its PID to anyone; gives what it and its own waited-for children
    /// have used.
    pub(crate) fn reap(&mut self) -> Usage {
        self.reaped = true;
        reap(self.pid)
    }
}

/// Looks for a process of ours that has ended and leaves it unreaped: `waitid(2)` with `WNOWAIT`.
pub(crate) fn peek() -> Peek {
    let (result, info) = waitid(libc::P_ALL, 0, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT);
    if result != 0 {
        return if Errno::last() == Errno::ECHILD { Peek::NoChildren } else { Peek::None };
    }
    // SAFETY: waitid fills in these two fields (waitid(2)).
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 {
        return Peek::None;
    }
    let exit = match Signal::new(status) {
        Some(signal) if info.si_code != libc::CLD_EXITED => Exit::Signal(signal),
        _ => Exit::Code(status as u8),
    };
    Peek::Ended(Ended { pid, exit, core: info.si_code == libc::CLD_DUMPED })
}

fn waitid(which: libc::idtype_t, pid: libc::pid_t, flags: libc::c_int) -> (libc::c_int, libc::siginfo_t) {
    // SAFETY: waitid writes a siginfo_t where it is told to; with WNOHANG and nothing to tell, it writes zeros.
    unsafe {
        let mut info: libc::siginfo_t = mem::zeroed();
        (libc::waitid(which, pid as libc::id_t, &raw mut info, flags), info)
    }
}

/// Reaps a process that [`peek`] has shown: `wait4(2)`, which then returns at once.
pub(crate) fn reap(pid: libc::pid_t) -> Usage {
    tree::forget_inherited(pid);
    // SAFETY: a null status is not written to; the usage is, or stays zero.
    let usage = unsafe {
        let mut usage: libc::rusage = mem::zeroed();
        libc::wait4(pid, std::ptr::null_mut(), libc::WNOHANG, &raw mut usage);
        usage
    };
    let time = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
    Usage { user: time(usage.ru_utime), system: time(usage.ru_stime), max_rss: usage.ru_maxrss as u64 }
}
