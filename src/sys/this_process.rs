//! This process: its PID, its parent, and its settings in the kernel.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::errno::Errno;
use nix::sys::prctl;
use nix::unistd::getpid;

use super::wait;
use crate::exit::Exit;
use crate::signal::Signal;

/// bowout's PID; 0 until it is asked for. Static: it is needed with each signal and each process of
/// the tree.
static ID: AtomicI32 = AtomicI32::new(0);

/// The process that other processes know as bowout, where this is not it. Static: set once,
/// right after the fork of the guard.
static FRONT: OnceLock<Front> = OnceLock::new();

#[derive(Debug)]
struct Front {
    pid: libc::pid_t,
    parent: libc::pid_t,
}

/// bowout's PID (getpid(2)), also in the forked child, which has another one.
pub(crate) fn id() -> libc::pid_t {
    if ID.load(Ordering::Relaxed) == 0 {
        ID.store(getpid().as_raw(), Ordering::Relaxed);
    }
    ID.load(Ordering::Relaxed)
}

/// The PID that other processes know as bowout's: with `--guard`, the guard's.
pub(crate) fn known_as() -> libc::pid_t {
    FRONT.get().map_or_else(id, |front| front.pid)
}

/// Makes this process, forked a moment ago, known to others by the `pid` of the one that forked it,
/// whose parent is `parent`.
pub(super) fn stand_in_for(pid: libc::pid_t, parent: libc::pid_t) {
    let _ = FRONT.set(Front { pid, parent });
    ID.store(0, Ordering::Relaxed);
}

/// True if bowout is the first process of its PID namespace.
pub(crate) fn is_pid1() -> bool {
    id() == 1
}

/// The PID of the process that started bowout; 0 if it is outside the PID namespace (getppid(2)).
pub(crate) fn parent() -> libc::pid_t {
    let own = || nix::unistd::getppid().as_raw();
    FRONT.get().map_or_else(own, |front| front.parent)
}

/// Makes every descendant that loses its parent a child of bowout. Call it before the fork: it does
/// not act on orphans of before (PR_SET_CHILD_SUBREAPER(2const)).
///
/// # Errors
/// As prctl(2): a kernel before 3.4, or a filter.
pub(crate) fn become_subreaper() -> io::Result<()> {
    Ok(prctl::set_child_subreaper(true)?)
}

/// The process that started bowout, watched for `--parent-death-signal`.
#[derive(Debug)]
pub(crate) struct Parent {
    pub(crate) pid: libc::pid_t,
    /// The signal that bowout acts on when the process exits.
    pub(crate) signal: Signal,
    /// Readable once the process has exited (pidfd_open(2)); `None` if it exited before it was
    /// opened.
    handle: Option<OwnedFd>,
}

impl Parent {
    /// Watches `pid`, the parent that bowout was started by. If the parent is outside the PID
    /// namespace, or without pidfds (Linux before 5.3, a filter), the kernel sends the signal, and
    /// there is nothing to watch. The kernel does so when the *thread* that started bowout exits
    /// (PR_SET_PDEATHSIG(2const)), and the process may go on.
    ///
    /// # Errors
    /// As PR_SET_PDEATHSIG(2const).
    pub(crate) fn watch(pid: libc::pid_t, signal: Signal) -> io::Result<Option<Self>> {
        let handle = Some(pid)
            .filter(|&pid| pid != 0)
            .and_then(|pid| pidfd_open(pid).ok());
        if handle.is_none() {
            // nix takes its own enum, which ends at 31. SAFETY: numbers only.
            Errno::result(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal.number()) })?;
        }
        // The number of an exited parent may be another process's by now, and the kernel sends the
        // signal only for a later exit.
        let exited = parent() != pid;
        let watched = exited || handle.is_some();
        let handle = handle.filter(|_| !exited);
        Ok(watched.then_some(Self {
            pid,
            signal,
            handle,
        }))
    }

    /// The descriptor to wait for.
    pub(crate) fn handle(&self) -> Option<BorrowedFd<'_>> {
        self.handle.as_ref().map(AsFd::as_fd)
    }

    /// True if all threads of the process have exited.
    pub(crate) fn has_exited(&self) -> bool {
        self.handle().is_none_or(wait::is_readable)
    }
}

/// A descriptor of a process (pidfd_open(2)), closed at an exec.
///
/// # Errors
/// `ESRCH`: the process does not exist. `ENOSYS`, `EPERM`: Linux before 5.3, or a filter.
pub(super) fn pidfd_open(pid: libc::pid_t) -> nix::Result<OwnedFd> {
    // SAFETY: numbers only; no other code owns the returned descriptor.
    unsafe {
        let fd = Errno::result(libc::syscall(libc::SYS_pidfd_open, pid, 0))?;
        Ok(OwnedFd::from_raw_fd(fd as i32))
    }
}

/// Writes the text of `--help` or `--version` to stdout. A reader that closes its end early is not
/// a failure.
pub(crate) fn print(text: &str) -> Exit {
    let mut rest = text.as_bytes();
    while let Ok(written @ 1..) = nix::unistd::write(std::io::stdout(), rest) {
        rest = &rest[written..];
    }
    Exit::Code(0)
}
