//! The one place where bowout waits.

use std::os::fd::BorrowedFd;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll, ppoll};
use nix::sys::time::TimeSpec;

/// How often to look where nobody can tell us when, in milliseconds.
const BLIND: u8 = 10;

/// `ppoll(2)` until one of `readable` can be read, `writable` written, any is closed or broken, or `deadline` has come; for ever
/// without one.
///
/// Errors are a reason to look, as is an early return: the caller empties its descriptors without blocking whatever this
/// says. `EINTR` is SIGSTOP and SIGCONT at work. `ENOMEM` passes, and `EINVAL` says that somebody has set our `RLIMIT_NOFILE` below
/// the number of descriptors (prlimit(2)): until that is over, we look every [`BLIND`].
#[allow(clippy::disallowed_methods, reason = "an absolute deadline becomes the wait that ppoll takes")]
pub(crate) fn until(deadline: Option<Instant>, readable: &[BorrowedFd<'_>], writable: Option<BorrowedFd<'_>>) {
    let timeout = deadline.map(|deadline| TimeSpec::from_duration(deadline.saturating_duration_since(Instant::now())));
    let readable = readable.iter().map(|&fd| PollFd::new(fd, PollFlags::POLLIN));
    let writable = writable.map(|fd| PollFd::new(fd, PollFlags::POLLOUT));
    let mut polled: Vec<PollFd<'_>> = readable.chain(writable).collect();
    if let Err(Errno::ENOMEM | Errno::EINVAL) = ppoll(&mut polled, timeout, None) {
        // Of no descriptor, which no limit is too low for. A deadline that comes meanwhile is met that much later.
        let _ = poll(&mut [], BLIND);
    }
}
