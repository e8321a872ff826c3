//! The one place where bowout waits.

use std::os::fd::BorrowedFd;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

/// `ppoll(2)` until one of `readable` can be read, `writable` written, any is closed or broken, or `deadline` has come; for ever
/// without one.
///
/// Errors are a reason to look, as is an early return: the caller empties its descriptors without blocking whatever this
/// says. `EINTR` is SIGSTOP and SIGCONT at work; `ENOMEM` passes.
#[allow(clippy::disallowed_methods, reason = "an absolute deadline becomes the wait that ppoll takes")]
pub(crate) fn until(deadline: Option<Instant>, readable: &[BorrowedFd<'_>], writable: Option<BorrowedFd<'_>>) {
    let timeout = deadline.map(|deadline| TimeSpec::from_duration(deadline.saturating_duration_since(Instant::now())));
    let readable = readable.iter().map(|&fd| PollFd::new(fd, PollFlags::POLLIN));
    let writable = writable.map(|fd| PollFd::new(fd, PollFlags::POLLOUT));
    let mut polled: Vec<PollFd<'_>> = readable.chain(writable).collect();
    let _ = ppoll(&mut polled, timeout, None);
}
