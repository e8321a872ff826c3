//! The seam between bowout and the kernel: the calls of the tree and of the supervisor's loop.
//!
//! [`Linux`] implements it by system calls, a simulation in tests. Generic code takes it, so that
//! the binary is the same as without it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::{Pid, getpgid, getsid};

use super::child::Child;
use super::proc::{self, Process};
use super::signals::{self, Batch, Intake, Queued};
use super::spawn::Spawn;
use super::this_process;
use super::wait;
use super::waitid::{self, Ask, Report};
use crate::exit::Usage;
use crate::process::NamedProcess;
use crate::signal::Signal;

/// Where a signal is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum To<'a, Pin> {
    Process(libc::pid_t),
    /// The process group of this number.
    Group(libc::pid_t),
    Pinned(&'a Pin),
    /// The process group that the pinned process leads, or led (Linux 6.9).
    PinnedGroup(&'a Pin),
    /// Every process of bowout's PID namespace, except PID 1 (kill(2), -1).
    Everything,
}

/// The kernel.
pub(crate) trait Kernel {
    /// Holds the identity of a process: its number is not mistaken for another process's.
    type Pin;
    /// The queue of received signals.
    type Intake: AsFd;

    /// Waits until one of `readable` can be read, `writable` written, or `deadline` has come.
    fn wait(
        &self,
        deadline: Option<Instant>,
        readable: &[BorrowedFd<'_>],
        writable: Option<BorrowedFd<'_>>,
    );

    /// The time.
    fn clock(&self) -> Instant;

    /// Takes the signals that were received.
    fn signals(&self, intake: &Self::Intake) -> Batch;

    /// Starts a process; `last` runs immediately before the fork.
    ///
    /// # Errors
    /// As [`Spawn::spawn`].
    fn spawn(&self, spawn: &Spawn<'_>, last: impl FnOnce()) -> io::Result<Child>;

    /// Looks at the child `pid`, or at all children (waitid(2) without waiting).
    fn look(&self, pid: Option<libc::pid_t>, ask: Ask) -> Report;

    /// Reaps a child that has exited.
    fn reap(&self, pid: libc::pid_t) -> Usage;

    /// Sends a signal; [`To::Everything`] without its value.
    ///
    /// # Errors
    /// `ESRCH`: no process is left there. `EPERM`: none may be signalled, or [`To::Everything`] is
    /// the whole system. `EINVAL`: a kernel before 6.9 cannot send that to a group. With a value,
    /// `EAGAIN`: the queue is full; and as [`Kernel::pin`].
    fn send(&self, to: To<'_, Self::Pin>, signal: Signal, value: Option<u64>) -> io::Result<()>;

    /// True if the process may be signalled (kill(2), signal 0).
    fn may_signal(&self, pid: libc::pid_t) -> bool;

    /// Pins a process (pidfd_open(2)).
    ///
    /// # Errors
    /// `ESRCH`: there is no such process. Any other: the kernel cannot pin it now.
    fn pin(&self, pid: libc::pid_t) -> io::Result<Self::Pin>;

    /// The process group and the session of a process that is not reaped (getpgid(2), getsid(2)).
    /// `None` where a security module hides them.
    fn ids(&self, pid: libc::pid_t) -> Option<(libc::pid_t, libc::pid_t)>;

    /// The values of a process in /proc. `None` where it has none.
    fn stat(&self, pid: libc::pid_t) -> Option<Process>;

    /// The children of a process that has so many threads, zombies included. Bowout's own are
    /// exact, and `None` without /proc or where the kernel does not list children.
    fn children(&self, pid: libc::pid_t, threads: u64) -> Option<Vec<libc::pid_t>>;

    /// All processes of the PID namespace. `None` without /proc.
    fn processes(&self) -> Option<Vec<libc::pid_t>>;

    /// How many processes the system has.
    fn count(&self) -> u64;

    /// These processes, as the log and the report name them. Call it after they were signalled.
    fn name(&self, processes: &[Process]) -> Vec<NamedProcess>;
}

/// The kernel itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Linux;

impl Linux {
    /// Opens /proc, before a command can mount another file system over it.
    pub(crate) fn open() -> Self {
        proc::open_folder();
        Self
    }
}

impl Kernel for Linux {
    type Pin = OwnedFd;
    type Intake = Intake;

    fn wait(
        &self,
        deadline: Option<Instant>,
        readable: &[BorrowedFd<'_>],
        writable: Option<BorrowedFd<'_>>,
    ) {
        wait::until(deadline, readable, writable);
    }

    /// CLOCK_MONOTONIC, which cannot be set (clock_gettime(2)).
    #[allow(
        clippy::disallowed_methods,
        reason = "the one place that reads the clock, for each turn"
    )]
    fn clock(&self) -> Instant {
        Instant::now()
    }

    fn signals(&self, intake: &Intake) -> Batch {
        intake.read()
    }

    fn spawn(&self, spawn: &Spawn<'_>, last: impl FnOnce()) -> io::Result<Child> {
        spawn.spawn(last)
    }

    fn look(&self, pid: Option<libc::pid_t>, ask: Ask) -> Report {
        waitid::look(pid, ask)
    }

    fn reap(&self, pid: libc::pid_t) -> Usage {
        waitid::reap(pid)
    }

    fn send(&self, to: To<'_, OwnedFd>, signal: Signal, value: Option<u64>) -> io::Result<()> {
        match (to, value) {
            (To::Process(pid), _) => signals::send(pid, signal, value),
            (To::Group(group), None) => signals::send(-group, signal, None),
            // The leader is a child that bowout has not reaped: no other process has its number.
            (To::Group(leader), value) => {
                pidfd_send_signal(&self.pin(leader)?, signal, value, PROCESS_GROUP)
            }
            (To::Pinned(pin), _) => pidfd_send_signal(pin, signal, value, 0),
            (To::PinnedGroup(pin), _) => pidfd_send_signal(pin, signal, value, PROCESS_GROUP),
            (To::Everything, _) if proc::is_initial_namespace() => Err(Errno::EPERM.into()),
            (To::Everything, _) => signals::send(-1, signal, None),
        }
    }

    fn may_signal(&self, pid: libc::pid_t) -> bool {
        kill(Pid::from_raw(pid), None).is_ok()
    }

    fn pin(&self, pid: libc::pid_t) -> io::Result<OwnedFd> {
        Ok(this_process::pidfd_open(pid)?)
    }

    fn ids(&self, pid: libc::pid_t) -> Option<(libc::pid_t, libc::pid_t)> {
        let pid = Some(Pid::from_raw(pid));
        Some((getpgid(pid).ok()?.as_raw(), getsid(pid).ok()?.as_raw()))
    }

    fn stat(&self, pid: libc::pid_t) -> Option<Process> {
        Process::read(pid)
    }

    fn children(&self, pid: libc::pid_t, threads: u64) -> Option<Vec<libc::pid_t>> {
        if pid == this_process::id() {
            proc::own_children()
        } else {
            Some(proc::children(pid, threads))
        }
    }

    fn processes(&self) -> Option<Vec<libc::pid_t>> {
        proc::processes()
    }

    fn count(&self) -> u64 {
        proc::count()
    }

    fn name(&self, processes: &[Process]) -> Vec<NamedProcess> {
        proc::named(processes)
    }
}

/// linux/pidfd.h; not in libc yet.
const PROCESS_GROUP: libc::c_uint = 1 << 2;

/// pidfd_send_signal(2): `ESRCH` where the process is reaped, or its group is empty.
fn pidfd_send_signal(
    pin: &OwnedFd,
    signal: Signal,
    value: Option<u64>,
    flags: libc::c_uint,
) -> io::Result<()> {
    let info = value.map(|value| Queued::by_us(signal, value));
    let info = info.as_ref().map_or(ptr::null(), ptr::from_ref);
    let (call, pin) = (libc::SYS_pidfd_send_signal, pin.as_raw_fd());
    // SAFETY: numbers, and null or a pointer to at least as many bytes as the kernel reads.
    let result = unsafe { libc::syscall(call, pin, signal.number(), info, flags) };
    Errno::result(result)?;
    Ok(())
}
