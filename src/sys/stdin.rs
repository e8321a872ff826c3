//! The end of the command's input, for `--stop-on-eof`. Not one byte of it is read.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use super::wait;

/// How often bowout checks whether the command has read the rest of its input: the kernel reports
/// no event for this.
const LOOK: Duration = Duration::from_millis(100);

/// The command's standard input.
#[derive(Debug)]
pub(crate) struct Stdin {
    /// A copy: bowout's own standard input becomes /dev/null. With it, the writer receives EPIPE
    /// only when bowout exits, too.
    fd: OwnedFd,
    /// Readable once the writer has closed its end.
    closed: Epoll,
    /// When to look again for bytes that the command has not read.
    look: Option<Instant>,
}

impl Stdin {
    /// Watches standard input. `None` where it has no other end that can be closed: a regular file,
    /// /dev/null (epoll_ctl(2), EPERM), a descriptor that is not open.
    pub(crate) fn watch() -> Option<Self> {
        let fd = io::stdin().as_fd().try_clone_to_owned().ok()?;
        let closed = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).ok()?;
        // A socket whose other end is shut down for writing alone is at its end, too.
        let event = EpollEvent::new(EpollFlags::EPOLLRDHUP, 0);
        closed.add(&fd, event).ok()?;
        let look = None;
        Some(Self { fd, closed, look })
    }

    /// The descriptors that must stay open.
    pub(crate) fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.fd.as_fd(), self.closed.0.as_fd()]
    }

    /// The descriptor to wait for, until the writer has closed its end.
    pub(crate) fn readable(&self) -> Option<BorrowedFd<'_>> {
        let open = self.look.is_none();
        open.then(|| self.closed.0.as_fd())
    }

    /// When to look again.
    pub(crate) fn look_at(&self) -> Option<Instant> {
        self.look
    }

    /// True if the writer has closed its end and the command has read everything that was written.
    pub(crate) fn has_ended(&mut self, now: Instant) -> bool {
        if self.look.is_some_and(|look| now < look) {
            return false;
        }
        if !wait::is_readable(self.closed.0.as_fd()) {
            return false;
        }
        self.look = Some(now + LOOK);
        let mut unread: libc::c_int = 0;
        // A terminal that has hung up fails (EIO), and has nothing left to read.
        // SAFETY: FIONREAD writes one number to this address (ioctl_tty(2), pipe(7)).
        unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::FIONREAD, &raw mut unread) };
        unread == 0
    }
}
