//! The log's lines on stderr: written without blocking, or counted as lost. The log reports how
//! many were lost once there is room again, not line by line.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use nix::sys::stat::fstat;

use super::environment;
use super::output::{LONGEST, Output};

/// The descriptor besides stderr that the log writes to; -1 without one. A static, because the
/// logger owns its `Stderr` and gives no way to it, and code that closes or inspects descriptors
/// has to know this one.
static OWN: AtomicI32 = AtomicI32::new(-1);
/// How many lines were lost in all. A static for the same reason: the report has the number.
static LOST: AtomicU64 = AtomicU64::new(0);

/// How many lines were lost in all.
pub(crate) fn lost() -> u64 {
    LOST.load(Ordering::Relaxed)
}

/// The descriptor besides stderr itself that must stay open for the log.
pub(super) fn own_descriptor() -> Option<BorrowedFd<'static>> {
    let fd = OWN.load(Ordering::Relaxed);
    // SAFETY: the log keeps it open until bowout exits.
    (fd >= 0).then(|| unsafe { BorrowedFd::borrow_raw(fd) })
}

/// stderr.
pub(crate) struct Stderr {
    output: Output<'static>,
    /// Makes the line that reports how many were lost.
    notice: Box<dyn Fn(u64) -> String + Send>,
    /// How many of the lost lines were logged.
    logged: u64,
    /// The last record was cut: the next one begins on a new line.
    torn: bool,
}

impl Stderr {
    /// stderr as it is now.
    pub(crate) fn new(notice: impl Fn(u64) -> String + Send + 'static) -> Self {
        Self {
            output: Output::new(stderr()),
            notice: Box::new(notice),
            logged: lost(),
            torn: false,
        }
    }

    /// Writes one record, which ends with a newline, and returns whether all of it was written. A
    /// record that is too long for one write is cut.
    fn record(&mut self, record: &[u8]) -> bool {
        let newline: &[u8] = if self.torn { b"\n" } else { b"" };
        let mut line = [newline, record].concat();
        if line.len() > LONGEST {
            line.truncate(LONGEST - 4);
            line.extend_from_slice(b"...\n");
        }
        let written = self.output.write(&line).unwrap_or(0);
        if let Some(own) = self.output.own_descriptor() {
            OWN.store(own.as_raw_fd(), Ordering::Relaxed);
        }
        if written > 0 {
            self.torn = written < line.len();
        }
        written == line.len()
    }
}

/// For env_logger. Reports every record as written: a lost one is counted and is not an error.
impl Write for Stderr {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        let lost = lost();
        if lost > self.logged && self.record((self.notice)(lost - self.logged).as_bytes()) {
            self.logged = lost;
        }
        if !self.record(record) {
            LOST.fetch_add(1, Ordering::Relaxed);
        }
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// True if stderr is the journal: JOURNAL_STREAM names the device and inode of the stream that
/// systemd connected. A process inherits it even where its stderr is another file
/// (systemd.exec(5)).
pub(crate) fn is_journal() -> bool {
    let Some(stream) = environment::value("JOURNAL_STREAM") else {
        return false;
    };
    fstat(stderr())
        .is_ok_and(|stat| stream == OsStr::new(&format!("{}:{}", stat.st_dev, stat.st_ino)))
}

fn stderr() -> BorrowedFd<'static> {
    // SAFETY: descriptor 2 is open until bowout exits: sys::entry opens it, and nothing closes it.
    unsafe { BorrowedFd::borrow_raw(libc::STDERR_FILENO) }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};

    use nix::fcntl::{OFlag, open};
    use nix::sys::stat::Mode;

    use super::*;

    /// Runs `body` in a forked child whose stderr is `fd`, and demands that it ends with 0: a test
    /// must not point the stderr of the whole test program elsewhere.
    fn with_stderr(fd: OwnedFd, body: impl FnOnce() -> bool) {
        // SAFETY: the child calls nothing of the test harness and ends by _exit; the allocator's
        // lock is taken by fork(3) itself.
        let status = unsafe {
            let pid = libc::fork();
            if pid == 0 {
                libc::dup2(fd.into_raw_fd(), 2);
                libc::_exit(i32::from(!body()));
            }
            let mut status = 0;
            assert_eq!(libc::waitpid(pid, &raw mut status, 0), pid);
            status
        };
        assert!(
            libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0,
            "status {status:#x}"
        );
    }

    /// The notice is as long as the lines that are lost: a short one might find room where they do
    /// not.
    fn notice(lost: u64) -> String {
        format!("{lost:>994} lost\n")
    }

    fn read(fd: &OwnedFd) -> String {
        let mut text = vec![0; 1 << 17];
        let mut end = 0;
        while let Ok(got @ 1..) = nix::unistd::read(fd, &mut text[end..]) {
            end += got;
        }
        String::from_utf8_lossy(&text[..end]).into_owned()
    }

    /// Fills the descriptor, loses two lines, makes room, and finds the count logged once.
    fn loses_and_counts(reader: OwnedFd, writer: OwnedFd) {
        nix::fcntl::fcntl(&reader, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        with_stderr(writer, move || {
            let before = nix::fcntl::fcntl(stderr(), nix::fcntl::FcntlArg::F_GETFL);
            let mut stderr = Stderr::new(notice);
            // 100,000 of these lines are more than a pipe, a FIFO, a socket buffer or a terminal
            // holds.
            let line = [b"x".repeat(999), b"\n".to_vec()].concat();
            let filled = (0..100_000).find(|_| !stderr.record(&line)).is_some();
            let _ = stderr.write(&line);
            let _ = stderr.write(&line);
            let counted = lost() == 2;
            let _ = read(&reader);
            let _ = stderr.write(b"c\n");
            let after = nix::fcntl::fcntl(super::stderr(), nix::fcntl::FcntlArg::F_GETFL);
            filled
                && counted
                && stderr.logged == 2
                && read(&reader).ends_with(" 2 lost\nc\n")
                && before == after
        });
    }

    #[test]
    fn a_full_pipe_loses_lines_and_counts_them() {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        loses_and_counts(reader, writer);
    }

    #[test]
    fn so_does_a_full_fifo() {
        let path = std::env::temp_dir().join(format!("bowout-fifo-{}", std::process::id()));
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
        let reader = open(&path, OFlag::O_RDONLY | OFlag::O_NONBLOCK, Mode::empty()).unwrap();
        let writer = open(&path, OFlag::O_WRONLY, Mode::empty()).unwrap();
        std::fs::remove_file(&path).unwrap();
        loses_and_counts(reader, writer);
    }

    #[test]
    fn so_does_a_full_socket() {
        let mut fds = [0; 2];
        // SAFETY: two descriptors are written, and no other code owns them.
        let (reader, writer) = unsafe {
            assert_eq!(
                libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, fds.as_mut_ptr()),
                0
            );
            (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1]))
        };
        loses_and_counts(reader, writer);
    }

    #[test]
    fn a_full_disk_and_a_broken_pipe_are_survived() {
        let (_, broken) = nix::unistd::pipe().unwrap();
        let full = open("/dev/full", OFlag::O_WRONLY, Mode::empty()).unwrap();
        for fd in [broken, full] {
            with_stderr(fd, || {
                // SAFETY: numbers only; a broken pipe's SIGPIPE would end this child.
                unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
                let mut stderr = Stderr::new(notice);
                stderr.write(b"a\n").is_ok_and(|n| n == 2) && lost() == 1
            });
        }
    }

    #[test]
    fn a_line_too_long_is_cut_and_marked() {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        with_stderr(writer, || Stderr::new(notice).record(&[b'x'; 5000]));
        let text = read(&reader);
        assert_eq!((text.len(), text.ends_with("x...\n")), (LONGEST, true));
    }
}
