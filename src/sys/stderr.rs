//! The log's lines on stderr: written without blocking, or counted as lost. What a line was lost to
//! is not told line by line: the count is, once there is room again.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use nix::sys::stat::fstat;

use super::environment;
use super::output::{LONGEST, Output};

/// The descriptor besides stderr itself that is written to; -1 without one. There is one stderr in
/// a process, and one log.
static OWN: AtomicI32 = AtomicI32::new(-1);
/// How many lines were lost in all.
static LOST: AtomicU64 = AtomicU64::new(0);

/// How many lines were lost in all.
pub(crate) fn lost() -> u64 {
    LOST.load(Ordering::Relaxed)
}

/// The descriptor besides stderr itself that must stay open for the log.
pub(super) fn own_descriptor() -> Option<BorrowedFd<'static>> {
    let fd = OWN.load(Ordering::Relaxed);
    // SAFETY: the log holds it for as long as we are.
    (fd >= 0).then(|| unsafe { BorrowedFd::borrow_raw(fd) })
}

/// stderr.
pub(crate) struct Stderr {
    output: Output<'static>,
    /// Makes the line that tells how many were lost.
    notice: Box<dyn Fn(u64) -> String + Send>,
    /// How many lines were lost since this was last told.
    lost: u64,
    /// The last record was cut: the next one begins on a new line.
    torn: bool,
}

impl Stderr {
    /// stderr as it is now.
    pub(crate) fn new(notice: impl Fn(u64) -> String + Send + 'static) -> Self {
        let stderr = Self {
            output: Output::new(stderr()),
            notice: Box::new(notice),
            lost: 0,
            torn: false,
        };
        stderr.remember();
        stderr
    }

    fn remember(&self) {
        let own = self.output.own_descriptor().map_or(-1, AsRawFd::as_raw_fd);
        OWN.store(own, Ordering::Relaxed);
    }

    /// Writes one record, which ends with a newline, and says whether all of it was written. What
    /// is longer than can be written at once is cut.
    fn record(&mut self, record: &[u8]) -> bool {
        let mut line = Vec::with_capacity(record.len() + 1);
        if self.torn {
            line.push(b'\n');
        }
        line.extend_from_slice(record);
        if line.len() > LONGEST {
            line.truncate(LONGEST - 4);
            line.extend_from_slice(b"...\n");
        }
        let written = self.output.write(&line).unwrap_or(0);
        self.remember();
        self.torn = if written == 0 {
            self.torn
        } else {
            written < line.len()
        };
        written == line.len()
    }
}

/// For env_logger. Claims to have written everything: a line that is lost is counted and is
/// nobody's error.
impl Write for Stderr {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        if self.lost > 0 && self.record((self.notice)(self.lost).as_bytes()) {
            self.lost = 0;
        }
        if !self.record(record) {
            self.lost += 1;
            LOST.fetch_add(1, Ordering::Relaxed);
        }
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether stderr is the journal: JOURNAL_STREAM names the device and inode of the stream that
/// systemd connected, which is inherited by processes whose stderr is something else
/// (systemd.exec(5), contract S22).
pub(crate) fn is_journal() -> bool {
    let Some(stream) = environment::value("JOURNAL_STREAM") else {
        return false;
    };
    fstat(stderr())
        .is_ok_and(|stat| stream == OsStr::new(&format!("{}:{}", stat.st_dev, stat.st_ino)))
}

fn stderr() -> BorrowedFd<'static> {
    // SAFETY: descriptor 2 is open for as long as we are: sys::entry has seen to it, and nothing
    // closes it.
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

    /// As long as the lines that are lost: a short one might find room where they do not.
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

    /// Fills it, loses two lines, makes room, and finds the count told once.
    fn loses_and_counts(reader: OwnedFd, writer: OwnedFd) {
        nix::fcntl::fcntl(&reader, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        with_stderr(writer, move || {
            let before = nix::fcntl::fcntl(stderr(), nix::fcntl::FcntlArg::F_GETFL);
            let mut stderr = Stderr::new(notice);
            // Longer than a pipe, a FIFO, a socket buffer or a terminal holds.
            let line = [b"x".repeat(999), b"\n".to_vec()].concat();
            let filled = (0..100_000).find(|_| !stderr.record(&line)).is_some();
            let _ = stderr.write(&line);
            let _ = stderr.write(&line);
            let counted = stderr.lost == 2;
            let _ = read(&reader);
            let _ = stderr.write(b"c\n");
            let after = nix::fcntl::fcntl(super::stderr(), nix::fcntl::FcntlArg::F_GETFL);
            filled
                && counted
                && stderr.lost == 0
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
                stderr.write(b"a\n").is_ok_and(|n| n == 2) && stderr.lost == 1
            });
        }
    }

    #[test]
    fn what_is_too_long_is_cut_and_says_so() {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        with_stderr(writer, || Stderr::new(notice).record(&[b'x'; 5000]));
        let text = read(&reader);
        assert_eq!((text.len(), text.ends_with("x...\n")), (LONGEST, true));
    }
}
