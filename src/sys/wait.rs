//! The one place where bowout waits, and the record of a system call that a filter refuses.

use std::os::fd::BorrowedFd;
use std::sync::OnceLock;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll, ppoll};
use nix::sys::time::TimeSpec;

/// The shortest time of a turn of the loop once the kernel has refused a call, in milliseconds.
const BLIND: u8 = 10;

/// The first call that was refused, and why. Static: the calls are all over `sys`, some of them
/// before the supervisor exists, and one line reports them.
static REFUSED: OnceLock<(&str, Errno)> = OnceLock::new();

/// Records that a call failed which bowout needs, unless the error passes by itself; returns
/// whether it did. A seccomp filter refuses a call for good, mostly with `EPERM` or `ENOSYS`. From
/// then on each turn of the loop takes at least [`BLIND`], so that none spins on a failing call.
pub(super) fn failed(call: &'static str, error: Errno) -> bool {
    let passes = matches!(
        error,
        Errno::EINTR | Errno::EAGAIN | Errno::ENOMEM | Errno::ENOBUFS | Errno::EINVAL
    );
    if !passes {
        let _ = REFUSED.set((call, error));
    }
    !passes
}

/// The first refused call and its error, for the log.
pub(crate) fn refused() -> Option<String> {
    let (call, error) = REFUSED.get()?;
    Some(format!(
        "the system refuses {call}(2): {}; have the seccomp filter allow it",
        error.desc()
    ))
}

/// Waits for [`BLIND`] ms, whatever happens meanwhile.
pub(crate) fn pause() {
    // Without descriptors, so that no RLIMIT_NOFILE is too low.
    if poll(&mut [], BLIND).is_err_and(|error| error != Errno::EINTR) {
        let wait = libc::timespec {
            tv_sec: 0,
            tv_nsec: libc::c_long::from(BLIND) * 1_000_000,
        };
        // If a filter refuses this as well, there is no way to wait.
        // SAFETY: a valid time; the remaining time is not asked for.
        unsafe { libc::nanosleep(&raw const wait, std::ptr::null_mut()) };
    }
}

/// True if a read of `fd` would not block; `false` where poll(2) fails.
pub(super) fn is_readable(fd: BorrowedFd<'_>) -> bool {
    poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], PollTimeout::ZERO) == Ok(1)
}

/// `ppoll(2)` until one of `readable` is readable, `writable` is writable, any is closed or broken,
/// or at `deadline`; without a deadline, for ever.
///
/// It may return early or after an error: the caller then reads its descriptors, without blocking.
/// `EINTR`: bowout was stopped and continued. `ENOMEM` passes. `EINVAL`: another process set
/// bowout's `RLIMIT_NOFILE` below the number of descriptors (prlimit(2)); until it is raised, the
/// loop runs every [`BLIND`] ms.
#[allow(
    clippy::disallowed_methods,
    reason = "an absolute deadline becomes the wait that ppoll takes"
)]
pub(crate) fn until(
    deadline: Option<Instant>,
    readable: &[BorrowedFd<'_>],
    writable: Option<BorrowedFd<'_>>,
) {
    if REFUSED.get().is_some() {
        // A descriptor that cannot be read may stay readable. A deadline is met up to that much
        // later.
        pause();
    }
    let timeout = deadline.map(|deadline| {
        TimeSpec::from_duration(deadline.saturating_duration_since(Instant::now()))
    });
    let readable = readable
        .iter()
        .map(|&fd| PollFd::new(fd, PollFlags::POLLIN));
    let writable = writable.map(|fd| PollFd::new(fd, PollFlags::POLLOUT));
    let mut polled: Vec<PollFd<'_>> = readable.chain(writable).collect();
    match ppoll(&mut polled, timeout, None) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(error) => {
            failed("ppoll", error);
            pause();
        }
    }
}
