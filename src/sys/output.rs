//! Writes to a descriptor that other processes share, without blocking. bowout waits only for
//! another writer to a terminal, for 0.1 s in all.
//!
//! The descriptor may be a full pipe without a reader, a terminal under Ctrl-S, a socket, a file on
//! a full disk, or closed. The child shares its open file description, so that O_NONBLOCK must
//! never be set on it (fcntl(2), `F_SETFL`); each kind has a way of its own instead.
//!
//! Caveats: two can block, and a single thread cannot prevent it. A file on a file system that
//! hangs (NFS, FUSE, a frozen one) holds bowout in state D ([`Way::Plain`]). A pipe that is only
//! polled for room ([`Way::Polled`]) may have been filled by another writer between poll(2) and
//! write(2), which then waits for its reader.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::sys::termios::tcgetsid;
use nix::unistd::{getsid, write};

use super::proc::reopen;

/// The longest write: up to here one to a pipe is whole or not at all (pipe(7), `PIPE_BUF`).
pub(super) const LONGEST: usize = 4096;

/// The major number of /dev/null, /dev/full and /dev/kmsg (Linux allocated devices).
const MEMORY_DEVICES: libc::c_uint = 1;

/// How long bowout tries to write to a terminal that has another writer, which may have to wait for
/// the processor.
const PATIENCE: Duration = Duration::from_millis(100);

/// How a descriptor is written to without blocking.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    /// A file or a block device, where a write waits for the file system only; or a non-blocking
    /// file description of bowout's own.
    Plain,
    /// A non-blocking file description of bowout's own, of a terminal.
    Terminal,
    /// `send(2)` with `MSG_DONTWAIT`.
    Socket,
    /// `pwritev2(2)` with `RWF_NOWAIT`: pipes, since Linux 6.4.
    NoWait,
    /// Polled before each write for room, which is room for [`LONGEST`] in a pipe: where /proc is
    /// missing or the pipe is another user's. Another writer may take the room first.
    Polled,
    /// Not written to: a terminal that has some room may still make a longer write wait.
    Never,
}

/// A descriptor to write to.
#[derive(Debug)]
pub(super) struct Output<'a> {
    fd: BorrowedFd<'a>,
    /// The same file opened again, without blocking, where the way needs it.
    own: Option<OwnedFd>,
    /// Found by the first write: most runs log one line, at their end.
    way: Option<Way>,
    /// The rest of [`PATIENCE`]. A write that need not wait resets it, so that a slow terminal does
    /// not delay a stop line by line.
    patience: Duration,
}

impl<'a> Output<'a> {
    /// Does nothing with `fd` before the first write.
    pub(super) fn new(fd: BorrowedFd<'a>) -> Self {
        Self {
            fd,
            own: None,
            way: None,
            patience: PATIENCE,
        }
    }

    /// The descriptor besides the one given that is used to write.
    pub(super) fn own_descriptor(&self) -> Option<&OwnedFd> {
        self.own.as_ref()
    }

    /// Writes as much of `bytes`, at most [`LONGEST`], as there is room for now.
    ///
    /// # Errors
    /// `EAGAIN` where there is none; else as write(2).
    pub(super) fn write(&mut self, bytes: &[u8]) -> nix::Result<usize> {
        let way = self.way.unwrap_or_else(|| self.find_way());
        match self.attempt(way, bytes) {
            // A terminal also has no room while another process writes to it, and then has some
            // again at once.
            Err(Errno::EAGAIN) if way == Way::Terminal => self.insist(bytes),
            // A FIFO, a pipe before Linux 6.4 or one that has seen a splice(2); a kernel or a
            // filter without pwritev2.
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EPERM) if way == Way::NoWait => {
                let way = self.use_own(reopen(self.fd, FLAGS), Way::Plain, Way::Polled);
                self.attempt(way, bytes)
            }
            result => {
                self.patience = PATIENCE;
                result
            }
        }
    }

    /// Looks at the kind of file. A descriptor that is closed is taken for a file, and every write
    /// fails.
    fn find_way(&mut self) -> Way {
        let stat = fstat(self.fd).ok();
        let kind = stat.map_or(SFlag::S_IFREG, |stat| {
            SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
        });
        let way = match kind {
            SFlag::S_IFCHR
                if stat.is_some_and(|stat| libc::major(stat.st_rdev) != MEMORY_DEVICES) =>
            {
                let own = reopen(self.fd, FLAGS).or_else(|_| reopen_terminal(self.fd));
                return self.use_own(own, Way::Terminal, Way::Never);
            }
            SFlag::S_IFSOCK => Way::Socket,
            SFlag::S_IFIFO => Way::NoWait,
            _ => Way::Plain,
        };
        *self.way.insert(way)
    }

    /// Uses `own`, which is an error where there is no /proc, or the file may not be opened.
    fn use_own(&mut self, own: nix::Result<OwnedFd>, with: Way, without: Way) -> Way {
        self.own = own.ok();
        *self
            .way
            .insert(if self.own.is_some() { with } else { without })
    }

    /// Tries again for the time that another writer may take. poll(2) reports no room while another
    /// process writes (drivers/tty/n_tty.c, `n_tty_poll`), so that such a terminal looks like one
    /// that is full or stopped.
    #[allow(
        clippy::disallowed_methods,
        reason = "the bound is one of time, and the loop's own clock stands still meanwhile"
    )]
    fn insist(&mut self, bytes: &[u8]) -> nix::Result<usize> {
        let end = Instant::now() + self.patience;
        let mut result = Err(Errno::EAGAIN);
        while result == Err(Errno::EAGAIN) && self.patience > Duration::ZERO {
            poll(
                &mut [PollFd::new(self.fd, PollFlags::POLLOUT)],
                PollTimeout::from(1_u8),
            )?;
            // The other writer holds a lock and needs the processor to release it.
            std::thread::yield_now();
            result = self.attempt(Way::Terminal, bytes);
            self.patience = end.saturating_duration_since(Instant::now());
        }
        result
    }

    fn attempt(&self, way: Way, bytes: &[u8]) -> nix::Result<usize> {
        let fd = self.own.as_ref().map_or(self.fd, AsFd::as_fd);
        match way {
            Way::Plain | Way::Terminal => write(fd, bytes),
            Way::Socket => send(
                fd.as_raw_fd(),
                bytes,
                MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
            ),
            Way::NoWait => {
                let vector = libc::iovec {
                    iov_base: bytes.as_ptr().cast_mut().cast(),
                    iov_len: bytes.len(),
                };
                // SAFETY: one vector, which points to as many bytes as it says; they are only read.
                // -1 is the position of a stream.
                let written = unsafe {
                    libc::pwritev2(fd.as_raw_fd(), &raw const vector, 1, -1, libc::RWF_NOWAIT)
                };
                Errno::result(written).map(|written| written as usize)
            }
            Way::Never => Err(Errno::EAGAIN),
            Way::Polled => match poll(
                &mut [PollFd::new(fd, PollFlags::POLLOUT)],
                PollTimeout::ZERO,
            )? {
                0 => Err(Errno::EAGAIN),
                _ => write(fd, bytes),
            },
        }
    }
}

/// `O_NOCTTY`: a session leader without a terminal must not get one this way (open(2)).
const FLAGS: OFlag = OFlag::O_WRONLY
    .union(OFlag::O_APPEND)
    .union(OFlag::O_NONBLOCK)
    .union(OFlag::O_NOCTTY)
    .union(OFlag::O_CLOEXEC);

/// Opens bowout's controlling terminal again. Every process of the session may open it by this name
/// (tty(4)), also where it is the terminal of another user's login.
fn reopen_terminal(fd: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    if tcgetsid(fd)? != getsid(None)? {
        return Err(Errno::ENOTTY);
    }
    open("/dev/tty", FLAGS, Mode::empty())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_terminal_that_takes_nothing_is_waited_for_once() {
        let nix::pty::OpenptyResult { master, slave } = nix::pty::openpty(None, None).unwrap();
        let mut output = Output::new(slave.as_fd());
        output.use_own(reopen(slave.as_fd(), FLAGS), Way::Terminal, Way::Never);
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
