//! waitid(2): the exits, stops and continuations of the children of this process.
//!
//! Statuses and signals are plain integers here: nix's `waitpid` fails with EINVAL on a death by a
//! real-time signal, and has reaped the process by then (nix#495).

use std::mem;
use std::ptr::null_mut;
use std::time::Duration;

use nix::errno::Errno;

use super::proc;
use super::wait;
use crate::exit::{Exit, Usage};
use crate::signal::Signal;

/// A child that has exited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) pid: libc::pid_t,
    pub(crate) exit: Exit,
    /// It dumped core, or tried to.
    pub(crate) core: bool,
}

/// The aim of a look. Only [`Ask::Change`] takes the report from the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// A child that has exited and is not reaped.
    Exit,
    /// A stop or a continuation that was not reported before.
    Change,
    /// The same, only for a continuation.
    Continued,
    /// A child that has not exited. A zombie can only be reaped: a wait for stops alone does not
    /// see it (kernel/exit.c, `wait_consider_task`), unless its other threads go on.
    Living,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// There is such a child, and nothing to report.
    Nothing,
    /// There is no such child (`ECHILD`).
    NoChild,
    Exited(Ended),
    Stopped(Signal),
    Continued,
    /// The child asked to be traced, was stopped, and goes on untraced.
    Released,
}

/// Looks at the child `pid`, or at all children, without waiting.
pub(super) fn look(pid: Option<libc::pid_t>, ask: Ask) -> Report {
    let flags = libc::WNOHANG
        | match ask {
            Ask::Exit => libc::WEXITED | libc::WNOWAIT,
            Ask::Change => libc::WSTOPPED | libc::WCONTINUED,
            Ask::Continued => libc::WCONTINUED | libc::WNOWAIT,
            Ask::Living => libc::WSTOPPED | libc::WNOWAIT,
        };
    let which = pid.map_or((libc::P_ALL, 0), |pid| (libc::P_PID, pid));
    // SAFETY: waitid writes a siginfo_t to its address, of zeros where there is nothing to report;
    // the fields that are read are those of SIGCHLD.
    let (result, code, pid, status) = unsafe {
        let mut info: libc::siginfo_t = mem::zeroed();
        let mut wait = || libc::waitid(which.0, which.1 as libc::id_t, &raw mut info, flags);
        let mut result = wait();
        if result != 0 && Errno::last() != Errno::ECHILD {
            // No other error has a known cause (waitid(2)). SIGCHLD comes once: an exit that is
            // missed now would be missed for good.
            result = wait();
        }
        (result, info.si_code, info.si_pid(), info.si_status())
    };
    if result != 0 {
        let error = Errno::last();
        // EINVAL: 0, a sender's number in another PID namespace.
        if error == Errno::ECHILD || which.0 == libc::P_PID {
            return Report::NoChild;
        }
        wait::failed("waitid", error);
        return Report::Nothing;
    }
    match (code, Signal::new(status)) {
        _ if pid == 0 => Report::Nothing,
        (libc::CLD_CONTINUED, _) => Report::Continued,
        (libc::CLD_STOPPED, Some(signal)) => Report::Stopped(signal),
        // A process that called PTRACE_TRACEME has its parent for a tracer. waitid(2) reports its
        // stops, too, whatever the flags ask for (kernel/exit.c, `wait_task_stopped`).
        (libc::CLD_TRAPPED, _) => {
            release(pid, status);
            Report::Released
        }
        (code, signal) => Report::Exited(Ended {
            pid,
            exit: match signal {
                Some(signal) if code != libc::CLD_EXITED => Exit::Signal(signal),
                _ => Exit::Code(status as u8),
            },
            core: code == libc::CLD_DUMPED,
        }),
    }
}

/// Detaches from a child that is stopped because it asked its parent, bowout, to trace it
/// (ptrace(2), PTRACE_DETACH). It then acts on the signal that stopped it, as if it had never
/// asked.
fn release(pid: libc::pid_t, signal: libc::c_int) {
    let none = null_mut::<libc::c_void>();
    // SAFETY: PTRACE_GETSIGINFO writes a siginfo_t, PTRACE_DETACH takes a number, and the last call
    // writes nothing. Where the kernel writes none, the zeros are SI_USER from 0.
    unsafe {
        let mut info: libc::siginfo_t = mem::zeroed();
        libc::ptrace(libc::PTRACE_GETSIGINFO, pid, none, &raw mut info);
        // The kernel sends SIGTRAP to a traced process at its execve(2), in the name of the
        // process. An untraced process gets none, and would die of it. A process that sends SIGTRAP
        // to itself by kill(2) looks the same, and loses this one signal.
        let of_exec = signal == libc::SIGTRAP
            && info.si_code == libc::SI_USER
            && proc::is_itself(pid, info.si_pid());
        let signal = if of_exec { 0 } else { signal as usize };
        if libc::ptrace(libc::PTRACE_DETACH, pid, none, signal) != 0 {
            // SIGKILL was faster, or a filter refuses. Take the report from the kernel, which would
            // repeat it for ever; WSTOPPED leaves an exit.
            let flags = libc::WSTOPPED | libc::WNOHANG;
            libc::waitid(libc::P_PID, pid as libc::id_t, null_mut(), flags);
        }
    }
}

/// Reaps an exited child, and returns the resources that it and the children it waited for have
/// used. The system call has one argument more than the C library's waitid(2). Not wait4(2): a
/// filter may allow waitid alone.
pub(super) fn reap(pid: libc::pid_t) -> Usage {
    // The kernel's struct rusage (getrusage(2)): two times of two numbers each, then the others.
    let mut usage: [libc::c_long; 18] = [0; 18];
    let (none, options) = (null_mut::<libc::siginfo_t>(), libc::WEXITED | libc::WNOHANG);
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
    // Once more, as in `look`.
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
