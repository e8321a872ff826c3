//! The one place where bowout waits, and what becomes of a system call that is refused for good.

use std::os::fd::BorrowedFd;
use std::sync::OnceLock;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll, ppoll};
use nix::sys::time::TimeSpec;

/// How long to wait where the kernel cannot say when to go on, in milliseconds.
const BLIND: u8 = 10;

/// The first call that was refused, and why.
static REFUSED: OnceLock<(&str, Errno)> = OnceLock::new();

/// Notes that a call has failed which bowout cannot do without, unless the error passes by itself,
/// and says whether it has noted it. A seccomp filter refuses a call for good, mostly with `EPERM`
/// or `ENOSYS`. From then on each turn of the loop takes [`BLIND`] at least, so that none spins
/// over a call that does nothing.
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

/// The first call that was refused, and why, for the log.
pub(crate) fn refused() -> Option<String> {
    let (call, error) = REFUSED.get()?;
    Some(format!(
        "the system refuses {call}(2): {}; have the seccomp filter allow it",
        error.desc()
    ))
}

/// Waits for [`BLIND`] ms, whatever happens meanwhile.
pub(crate) fn pause() {
    // Of no descriptor, which no limit is too low for.
    if poll(&mut [], BLIND).is_err_and(|error| error != Errno::EINTR) {
        let wait = libc::timespec {
            tv_sec: 0,
            tv_nsec: libc::c_long::from(BLIND) * 1_000_000,
        };
        // SAFETY: a valid time; the rest of the wait is not asked for. A filter that refuses this,
        // too, leaves no way to wait.
        unsafe { libc::nanosleep(&raw const wait, std::ptr::null_mut()) };
    }
}

/// `ppoll(2)` until one of `readable` can be read, `writable` written, any is closed or broken, or
/// `deadline` has come; for ever without one.
///
/// Errors are a reason to look, as is an early return: the caller empties its descriptors without
/// blocking whatever this says. `EINTR` is SIGSTOP and SIGCONT at work. `ENOMEM` passes, and
/// `EINVAL` means that another process has set our `RLIMIT_NOFILE` below the number of descriptors
/// (prlimit(2)): until that is over, we look every [`BLIND`].
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
        // A descriptor may be readable that cannot be read. A deadline that comes meanwhile is met
        // that much later.
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
