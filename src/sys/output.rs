//! Writes that fail nothing and do not block, to a descriptor that others share. Only another
//! writer to a terminal is waited for, for 0.1 s in all.
//!
//! It may be a full pipe that nobody reads, a terminal under Ctrl-S, a socket, a disk that is full,
//! or closed. The child shares its open file description, so that O_NONBLOCK must never be set on
//! it; each kind has a way of its own instead (contract K16).
//!
//! Caveats: two can block, and no single thread can help it. A file on a file system that hangs
//! (NFS, FUSE, a frozen one) holds us in state D ([`Way::Plain`]). A pipe that is only asked for
//! room ([`Way::Polled`]) may have been filled by another writer between poll(2) and write(2), and
//! then waits for its reader.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{Mode, SFlag, fstat};

use super::tree;

/// The longest write: up to here one to a pipe is whole or not at all (pipe(7), `PIPE_BUF`).
pub(super) const LONGEST: usize = 4096;

/// The major number of /dev/null, /dev/full and /dev/kmsg (Linux allocated devices).
const MEMORY_DEVICES: libc::c_uint = 1;

/// How long a terminal is tried that has another writer: on a busy machine, that one may have to
/// wait for the processor.
const PATIENCE: Duration = Duration::from_millis(100);

/// How a descriptor is written to without blocking.
#[derive(Debug)]
enum Way {
    /// A file or a block device: a write waits for nobody but the file system.
    Plain,
    /// `send(2)` with `MSG_DONTWAIT`.
    Socket,
    /// `pwritev2(2)` with `RWF_NOWAIT`: pipes, since Linux 6.4.
    NoWait,
    /// A non-blocking file description of our own, from opening it again: FIFOs, and pipes before
    /// 6.4.
    Reopened(OwnedFd),
    /// The same of a terminal.
    Terminal(OwnedFd),
    /// Asked before each write whether there is room, which is room for [`LONGEST`] in a pipe:
    /// where /proc is missing or the pipe is somebody else's. Another writer may take it first.
    Polled,
    /// Not written to: a terminal that has some room may still make a longer write wait.
    Never,
}

/// A descriptor to write to.
#[derive(Debug)]
pub(super) struct Output<'a> {
    fd: BorrowedFd<'a>,
    /// Found by the first write: most runs have one line to write, and that at their end.
    way: Option<Way>,
    /// What is left of [`PATIENCE`], which a write that need not wait gives back: of a slow
    /// terminal, no stop is to wait line by line.
    patience: Duration,
}

impl Way {
    /// Looks at what it is. One that is closed is taken for a file, and every write fails.
    fn to(fd: BorrowedFd<'_>) -> Self {
        let (kind, major) = fstat(fd).map_or((SFlag::S_IFREG, 0), |stat| {
            (
                SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT,
                libc::major(stat.st_rdev),
            )
        });
        match kind {
            // /dev/null and its like take what they are given.
            SFlag::S_IFCHR if major == MEMORY_DEVICES => Self::Plain,
            SFlag::S_IFSOCK => Self::Socket,
            SFlag::S_IFIFO => Self::NoWait,
            SFlag::S_IFCHR => reopen(fd)
                .or_else(|| reopen_terminal(fd))
                .map_or(Self::Never, Self::Terminal),
            _ => Self::Plain,
        }
    }
}

impl<'a> Output<'a> {
    /// Nothing is done or looked at before the first write.
    pub(super) fn new(fd: BorrowedFd<'a>) -> Self {
        Self {
            fd,
            way: None,
            patience: PATIENCE,
        }
    }

    /// The descriptor besides the one given that is used to write.
    pub(super) fn own_descriptor(&self) -> Option<&OwnedFd> {
        match &self.way {
            Some(Way::Reopened(fd) | Way::Terminal(fd)) => Some(fd),
            Some(Way::Plain | Way::Socket | Way::NoWait | Way::Polled | Way::Never) | None => None,
        }
    }

    /// Writes as much of `bytes`, at most [`LONGEST`], as there is room for now.
    ///
    /// # Errors
    /// `EAGAIN` where there is none; else as write(2).
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        let way = self.way.get_or_insert_with(|| Way::to(self.fd));
        match way.attempt(self.fd, bytes) {
            // A terminal also says so while somebody else is writing to it, and then has room again
            // at once.
            Err(Errno::EAGAIN) if matches!(way, Way::Terminal(_)) => {
                way.insist(self.fd, bytes, &mut self.patience)
            }
            // A FIFO, a pipe before Linux 6.4 or one that has seen a splice(2); a kernel or a
            // filter without pwritev2.
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EPERM) if matches!(way, Way::NoWait) => {
                *way = reopen(self.fd).map_or(Way::Polled, Way::Reopened);
                way.attempt(self.fd, bytes)
            }
            result => {
                self.patience = PATIENCE;
                result
            }
        }
    }
}

impl Way {
    /// Tries again for the time that another writer may take. That one is also why poll(2) says
    /// that there is no room (drivers/tty/n_tty.c, `n_tty_poll`), so that nobody can tell it from a
    /// terminal that is full or stopped.
    #[allow(
        clippy::disallowed_methods,
        reason = "the bound is one of time, and the loop's own clock stands still meanwhile"
    )]
    fn insist(
        &self,
        fd: BorrowedFd<'_>,
        bytes: &[u8],
        patience: &mut Duration,
    ) -> Result<usize, Errno> {
        let end = Instant::now() + *patience;
        let mut result = Err(Errno::EAGAIN);
        while result == Err(Errno::EAGAIN) && *patience > Duration::ZERO {
            poll(
                &mut [PollFd::new(fd, PollFlags::POLLOUT)],
                PollTimeout::from(1_u8),
            )?;
            // SAFETY: takes and returns nothing. The other writer holds a lock and needs the
            // processor to let go of it.
            unsafe { libc::sched_yield() };
            result = self.attempt(fd, bytes);
            *patience = end.saturating_duration_since(Instant::now());
        }
        result
    }

    fn attempt(&self, fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
        let raw = fd.as_raw_fd();
        match self {
            Self::Plain => nix::unistd::write(fd, bytes),
            Self::Reopened(own) | Self::Terminal(own) => nix::unistd::write(own, bytes),
            Self::Socket => {
                let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
                // SAFETY: the buffer is as long as is said.
                let sent = unsafe { libc::send(raw, bytes.as_ptr().cast(), bytes.len(), flags) };
                Errno::result(sent).map(|sent| sent as usize)
            }
            Self::NoWait => {
                let vector = libc::iovec {
                    iov_base: bytes.as_ptr().cast_mut().cast(),
                    iov_len: bytes.len(),
                };
                // SAFETY: one vector, which points to as many bytes as it says; they are only read.
                // -1 is the position of a stream.
                let written =
                    unsafe { libc::pwritev2(raw, &raw const vector, 1, -1, libc::RWF_NOWAIT) };
                Errno::result(written).map(|written| written as usize)
            }
            Self::Never => Err(Errno::EAGAIN),
            Self::Polled => {
                let mut fds = [PollFd::new(fd, PollFlags::POLLOUT)];
                match poll(&mut fds, PollTimeout::ZERO)? {
                    0 => Err(Errno::EAGAIN),
                    _ => nix::unistd::write(fd, bytes),
                }
            }
        }
    }
}

/// `O_NOCTTY`: a session leader without a terminal must not get one this way (open(2)).
const FLAGS: OFlag = OFlag::O_WRONLY
    .union(OFlag::O_APPEND)
    .union(OFlag::O_NONBLOCK)
    .union(OFlag::O_NOCTTY)
    .union(OFlag::O_CLOEXEC);

/// A non-blocking file description of our own for the same file. Nothing where there is no /proc,
/// or the file may not be opened.
fn reopen(fd: BorrowedFd<'_>) -> Option<OwnedFd> {
    tree::reopen(fd, FLAGS).ok()
}

/// The same for our controlling terminal, which may be opened by whoever has it (tty(4)): that of
/// another user's login, above all (contract C14).
fn reopen_terminal(fd: BorrowedFd<'_>) -> Option<OwnedFd> {
    // SAFETY: numbers only.
    let ours = unsafe { libc::tcgetsid(fd.as_raw_fd()) == libc::getsid(0) };
    if ours {
        open("/dev/tty", FLAGS, Mode::empty()).ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_terminal_that_takes_nothing_is_waited_for_once() {
        let nix::pty::OpenptyResult { master, slave } = nix::pty::openpty(None, None).unwrap();
        let mut output = Output::new(slave.as_fd());
        output.way = reopen(slave.as_fd()).map(Way::Terminal);
        let line = [b'x'; 100];
        while output.write(&line).is_ok() {}
        assert_eq!(output.patience, Duration::ZERO);
        assert_eq!(output.write(&line), Err(Errno::EAGAIN));
        let mut screen = [0; 4096];
        while output.patience == Duration::ZERO {
            nix::unistd::read(&master, &mut screen).unwrap();
            let _ = output.write(b"y");
        }
        assert_eq!(output.patience, PATIENCE);
    }
}
