//! The child: signalled, looked at and reaped here, and nowhere else; `exec` has started it.
//!
//! Owns its PID. A PID names our process until we reap it and may name a stranger's afterwards;
//! hence the PID is forgotten in the same breath, and signals are sent from here alone. Statuses
//! and signals are plain integers at this seam: nix's `waitpid` fails with EINVAL on a death by a
//! real-time signal, and has reaped the process by then (nix#495).

use std::io;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use super::refusal::ExecError;
use super::signals;
use super::tree;
use super::wait;
use crate::exit::{Exit, Usage};
use crate::signal::Signal;

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

    /// SIGKILL to all of it, by one kill(2), which a fork inside the group cannot outrun (fork(2)
    /// fails with a signal pending), where a walk over the tree can be. Whoever left the group is
    /// the walk's; so are errors, for it meets them again.
    pub(crate) fn kill(self) {
        self.send(Signal::KILL);
    }

    /// The same with any signal.
    pub(super) fn send(self, signal: Signal) {
        let _ = signals::send(-self.0, signal, None);
    }

    /// Whether `pid`, a member a moment ago, still was one when the group was signalled, and could
    /// be: kill(2) is content with one member that may be signalled. Of a number that is somebody
    /// else's by now, both answers do no harm.
    pub(super) fn has_reached(self, pid: libc::pid_t) -> bool {
        let pid = Pid::from_raw(pid);
        nix::unistd::getpgid(Some(pid)).is_ok_and(|group| group.as_raw() == self.0)
            && kill(pid, None).is_ok()
    }
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
    /// This one asked to be traced, had stopped, and goes on untraced.
    Released,
    /// All that are ours are alive.
    None,
    /// Nothing is ours to wait for (`ECHILD`).
    NoChildren,
}

impl Child {
    /// A child that was forked a moment ago, and the end of the pipe that tells of its exec.
    pub(super) fn new(pid: libc::pid_t, own_group: bool, exec: OwnedFd) -> Self {
        Self {
            pid,
            reaped: false,
            own_group,
            exec: Some(exec),
        }
    }

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
        if self.reaped {
            Err(Errno::ESRCH.into())
        } else {
            signals::send(self.pid, signal, value)
        }
    }

    /// Whether the child has ended and waits to be reaped.
    pub(crate) fn has_ended(&self) -> bool {
        self.reaped || has_ended(self.pid)
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
        let pipe = self.exec.as_ref()?;
        // Nothing is the end of the pipe, which the exec has closed, or the child's end before it.
        let report = match ExecError::receive(|message| nix::unistd::read(pipe, message)) {
            Ok(report) => report,
            Err(error) => {
                wait::failed("read", error);
                return None;
            }
        };
        let result = report.map_or(Ok(()), Err);
        self.exec = None;
        Some(result)
    }

    /// The child's process group at this moment; `None` once it is reaped.
    pub(crate) fn group(&self) -> Option<Pid> {
        if self.reaped {
            None
        } else {
            nix::unistd::getpgid(Some(Pid::from_raw(self.pid))).ok()
        }
    }

    /// Whether the child is stopped at this moment (proc_pid_stat(5)); not so where nobody can say.
    pub(crate) fn is_stopped(&self) -> bool {
        !self.reaped && tree::Process::read(self.pid).is_some_and(|process| process.state == 'T')
    }

    /// Whether the child is stopped, or its state cannot be read.
    pub(crate) fn may_be_stopped(&self) -> bool {
        !self.reaped && tree::may_be_stopped(self.pid)
    }

    /// Whether the child was stopped or continued since this was last asked: `waitid(2)` with
    /// `WSTOPPED` and `WCONTINUED`.
    pub(crate) fn change(&self) -> Option<Change> {
        if self.reaped {
            return None;
        }
        let (result, info) = waitid(
            libc::P_PID,
            self.pid,
            libc::WSTOPPED | libc::WCONTINUED | libc::WNOHANG,
        );
        // SAFETY: waitid fills in these two fields, or leaves zeros (waitid(2)).
        let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
        match info.si_code {
            _ if result != 0 || pid == 0 => None,
            libc::CLD_CONTINUED => Some(Change::Continued),
            libc::CLD_STOPPED => Signal::new(status).map(Change::Stopped),
            // This call has taken the report, so that peek() does not see it.
            libc::CLD_TRAPPED => {
                release(pid, status);
                None
            }
            _ => None,
        }
    }

    /// Whether the child was continued since [`Child::change`] said that it was stopped; `change`
    /// reports it once more.
    pub(crate) fn was_continued(&self) -> bool {
        let (result, info) = waitid(
            libc::P_PID,
            self.pid,
            libc::WCONTINUED | libc::WNOHANG | libc::WNOWAIT,
        );
        // SAFETY: waitid fills in this field, or leaves zero (waitid(2)).
        !self.reaped && result == 0 && unsafe { info.si_pid() } != 0
    }

    /// Takes the child's status off the kernel, which may then give its PID to anyone; gives what
    /// it and its own waited-for children have used.
    pub(crate) fn reap(&mut self) -> Usage {
        self.reaped = true;
        reap(self.pid)
    }
}

/// Looks for a process of ours that has ended and leaves it unreaped: `waitid(2)` with `WNOWAIT`.
pub(crate) fn peek() -> Peek {
    let look = || {
        waitid(
            libc::P_ALL,
            0,
            libc::WEXITED | libc::WNOHANG | libc::WNOWAIT,
        )
    };
    let (mut result, mut info) = look();
    if result != 0 && Errno::last() != Errno::ECHILD {
        // No other error has a cause that we know (waitid(2)); but SIGCHLD comes once, and an end
        // that is missed now is missed for good.
        (result, info) = look();
    }
    if result != 0 {
        let error = Errno::last();
        if error == Errno::ECHILD {
            return Peek::NoChildren;
        }
        wait::failed("waitid", error);
        return Peek::None;
    }
    // SAFETY: waitid fills in these two fields (waitid(2)).
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 {
        return Peek::None;
    }
    if !is_exit(&info) {
        release(pid, status);
        return Peek::Released;
    }
    let exit = match Signal::new(status) {
        Some(signal) if info.si_code != libc::CLD_EXITED => Exit::Signal(signal),
        _ => Exit::Code(status as u8),
    };
    Peek::Ended(Ended {
        pid,
        exit,
        core: info.si_code == libc::CLD_DUMPED,
    })
}

/// Whether waitid(2) reports an exit. A process that called PTRACE_TRACEME has its parent for a
/// tracer, and waitid(2) reports its stops, too, whatever the flags ask for: `CLD_TRAPPED`
/// (kernel/exit.c, `wait_task_stopped`).
fn is_exit(info: &libc::siginfo_t) -> bool {
    matches!(
        info.si_code,
        libc::CLD_EXITED | libc::CLD_KILLED | libc::CLD_DUMPED
    )
}

/// Lets a process go on that is stopped because it asked its parent, bowout, to trace it
/// (ptrace(2), PTRACE_DETACH). It then acts on the signal that stopped it, as if it had never
/// asked.
fn release(pid: libc::pid_t, signal: libc::c_int) {
    let none = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: PTRACE_GETSIGINFO writes a siginfo_t, PTRACE_DETACH takes a number. Where the kernel
    // writes none, the zeros are SI_USER from 0.
    let detached = unsafe {
        let mut info: libc::siginfo_t = mem::zeroed();
        libc::ptrace(libc::PTRACE_GETSIGINFO, pid, none, &raw mut info);
        // The kernel sends SIGTRAP to a traced process at its execve(2), in the name of the
        // process. Untraced it gets none, and would die of it. A process that sends SIGTRAP to
        // itself by kill(2) looks the same, and loses this one signal.
        let of_exec = signal == libc::SIGTRAP
            && info.si_code == libc::SI_USER
            && tree::is_itself(pid, info.si_pid());
        libc::ptrace(
            libc::PTRACE_DETACH,
            pid,
            none,
            if of_exec { 0 } else { signal as usize },
        ) == 0
    };
    if !detached {
        // SIGKILL was faster, or a filter refuses. Take the report off the kernel, which would show
        // it again for ever; WSTOPPED leaves an exit.
        waitid(libc::P_PID, pid, libc::WSTOPPED | libc::WNOHANG);
    }
}

/// Whether `pid`, a child of ours, has ended and waits to be reaped; nothing of anyone else, of
/// whom waitid(2) says `ECHILD`.
fn ended(pid: libc::pid_t) -> Option<bool> {
    let (result, info) = waitid(
        libc::P_PID,
        pid,
        libc::WEXITED | libc::WNOHANG | libc::WNOWAIT,
    );
    (result == 0).then(|| is_exit(&info))
}

/// Whether `pid` is a child of ours that is not reaped.
pub(super) fn is_ours(pid: libc::pid_t) -> bool {
    ended(pid).is_some()
}

/// Whether `pid` is a child of ours that has ended and waits to be reaped.
pub(super) fn has_ended(pid: libc::pid_t) -> bool {
    ended(pid) == Some(true)
}

/// Whether `pid` is a child of ours that has not ended.
pub(super) fn is_alive(pid: libc::pid_t) -> bool {
    ended(pid) == Some(false)
}

/// Whether nobody is our child who has not ended. A zombie waits to be reaped and for nothing else:
/// to whoever waits for stops alone, it is no child (kernel/exit.c, `wait_consider_task`; a process
/// whose first thread has ended before the others is none).
pub(super) fn all_have_ended() -> bool {
    let (result, _) = waitid(
        libc::P_ALL,
        0,
        libc::WSTOPPED | libc::WNOHANG | libc::WNOWAIT,
    );
    result != 0 && Errno::last() == Errno::ECHILD
}

fn waitid(
    which: libc::idtype_t,
    pid: libc::pid_t,
    flags: libc::c_int,
) -> (libc::c_int, libc::siginfo_t) {
    // SAFETY: waitid writes a siginfo_t where it is told to; with WNOHANG and nothing to tell, it
    // writes zeros.
    unsafe {
        let mut info: libc::siginfo_t = mem::zeroed();
        (
            libc::waitid(which, pid as libc::id_t, &raw mut info, flags),
            info,
        )
    }
}

/// Reaps a process that [`peek`] has shown, and says what it has used: waitid(2) as the kernel has
/// it, with one argument more than the C library's. Not wait4(2): where a filter allows waitid
/// alone, that is all we need.
pub(crate) fn reap(pid: libc::pid_t) -> Usage {
    tree::forget_inherited(pid);
    // What getrusage(2) describes: two times of two numbers each, then the others.
    let mut usage: [libc::c_long; 18] = [0; 18];
    let (none, options) = (
        std::ptr::null_mut::<libc::siginfo_t>(),
        libc::WEXITED | libc::WNOHANG,
    );
    // SAFETY: no siginfo is asked for. The usage is as long as the kernel's and is written, or
    // stays zero.
    let mut take = || unsafe {
        libc::syscall(
            libc::SYS_waitid,
            libc::P_PID,
            pid,
            none,
            options,
            usage.as_mut_ptr(),
        )
    };
    // Once more for the reason that peek() has.
    if take() != 0 && take() != 0 {
        wait::failed("waitid", Errno::last());
    }
    let time = |at: usize| Duration::new(usage[at] as u64, usage[at + 1] as u32 * 1000);
    Usage {
        user: time(0),
        system: time(2),
        max_rss: usage[4] as u64,
    }
}
