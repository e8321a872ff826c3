//! What /proc says of one process, and whether it is ours to ask. Reads and understands; looks for
//! nobody and signals nobody.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, open, openat, openat2, readlinkat};
use nix::sys::stat::{Mode, fstatat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use nix::unistd::{Pid, getpgid};

use crate::sys::this_process;

/// What `/proc/PID/stat` says of a process (proc_pid_stat(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: libc::pid_t,
    pub(super) parent: libc::pid_t,
    pub(crate) group: libc::pid_t,
    /// `D` cannot be killed now, `X` is dead, and so is `Z` if its first thread was the last; `?`
    /// where nobody says.
    pub(crate) state: char,
    pub(super) threads: u64,
    /// When it was started, in clock ticks since boot: with the PID, its identity.
    pub(super) started: u64,
    /// Chosen by the process itself, up to 15 bytes of anything.
    pub(crate) name: String,
}

impl Process {
    /// Reads `/proc/PID/stat`: nothing where there is no such process or no /proc.
    pub(crate) fn read(pid: libc::pid_t) -> Option<Self> {
        if !proc_is_ours() {
            return None;
        }
        let mut text = [0; 1024];
        let path = format!("{pid}/stat");
        let length = again(|| {
            Ok(nix::unistd::read(
                &open_in_proc(&path, OFlag::O_RDONLY)?,
                &mut text,
            )?)
        })?;
        Self::parse(&text[..length])
    }

    /// A child of ours of which /proc says nothing, as under `hidepid` (proc(5)) to one who may not
    /// trace it. Its number is its own until we reap it: it needs no other identity.
    pub(super) fn hidden(pid: libc::pid_t) -> Self {
        // 0 is no group's number, where a security module keeps the group to itself.
        let group = getpgid(Some(Pid::from_raw(pid))).map_or(0, Pid::as_raw);
        Self {
            pid,
            parent: this_process::id(),
            group,
            state: '?',
            threads: 0,
            started: 0,
            name: "?".into(),
        }
    }

    fn parse(text: &[u8]) -> Option<Self> {
        // The name may hold spaces, parentheses and newlines; nothing behind it can hold a
        // parenthesis.
        let open = text.iter().position(|&b| b == b'(')?;
        let close = text.iter().rposition(|&b| b == b')')?;
        let pid = std::str::from_utf8(&text[..open])
            .ok()?
            .trim()
            .parse()
            .ok()?;
        let mut fields = std::str::from_utf8(text.get(close + 1..)?)
            .ok()?
            .split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let parent = fields.next()?.parse().ok()?;
        let group = fields.next()?.parse().ok()?;
        // Fields 20 and 22 of the line; the group is the fifth.
        let threads = fields.nth(14)?.parse().ok()?;
        let started = fields.nth(1)?.parse().ok()?;
        let name = String::from_utf8_lossy(text.get(open + 1..close)?).into_owned();
        Some(Self {
            pid,
            parent,
            group,
            state,
            threads,
            started,
            name,
        })
    }

    /// The state is the first thread's, which can end before the others (pthread_exit(3) in
    /// `main`).
    pub(super) fn is_dead(&self) -> bool {
        matches!(self.state, 'X' | 'x') || (self.state == 'Z' && self.threads <= 1)
    }
}

/// Whether a thread of this process, by its folder in /proc, waits in read(2) of a device with such
/// a number, or in readv(2), which musl's stdio uses (proc_pid_syscall(5)). `false` where bowout
/// may not trace the process.
pub(in crate::sys) fn reads(
    pid: libc::pid_t,
    thread: &str,
    is_device: impl Fn(u64) -> bool,
) -> bool {
    let call = read_in_proc(&format!("{thread}/syscall")).unwrap_or_default();
    let Some(fd) = read_call(&call).map(|fd| fd.to_string()) else {
        return false;
    };
    let Ok(folder) = open_in_proc(&format!("{pid}/fd"), OFlag::O_PATH | OFlag::O_DIRECTORY) else {
        return false;
    };
    // Elsewhere than in /dev, the file system may hang, and stat(2) with it.
    let in_dev = readlinkat(&folder, fd.as_str())
        .is_ok_and(|path| path.to_string_lossy().starts_with("/dev/"));
    // 32 bits on some machines.
    #[allow(clippy::useless_conversion)]
    let device = |file: libc::stat| is_device(file.st_rdev.into());
    in_dev && fstatat(&folder, fd.as_str(), AtFlags::empty()).is_ok_and(device)
}

/// The descriptor that a thread reads: the number of the system call and its arguments, in
/// hexadecimal, or `running`.
fn read_call(text: &str) -> Option<u32> {
    let mut words = text.split_ascii_whitespace();
    let call: libc::c_long = words.next()?.parse().ok()?;
    let fd = u32::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok()?;
    (call == libc::SYS_read || call == libc::SYS_readv).then_some(fd)
}

/// The PID of `pid`, a child of ours, as the child itself and its children see it. It is another
/// one than ours where our children are in another PID namespace (unshare(2), setns(2)). Without
/// /proc it is taken to be the same.
pub(crate) fn own_number(pid: libc::pid_t) -> libc::pid_t {
    let read = || {
        let text = again(|| read_in_proc(&format!("{pid}/status")))?;
        // The last of these numbers is the one of the innermost namespace (proc_pid_status(5)).
        let line = text.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
        line.split_ascii_whitespace().next_back()?.parse().ok()
    };
    if proc_is_ours() {
        read().unwrap_or(pid)
    } else {
        pid
    }
}

/// Whether `number`, which the kernel gave out in the PID namespace of `pid`, is `pid` itself.
pub(in crate::sys) fn is_itself(pid: libc::pid_t, number: libc::pid_t) -> bool {
    number == pid || number == own_number(pid)
}

/// /proc, opened before the command starts, so that nothing that is mounted over it later can stall
/// or mislead us; -1 where it could not be opened.
static PROC: AtomicI32 = AtomicI32::new(-1);

/// Opens /proc by its name, and closes what was open of it.
pub(super) fn open_proc() {
    // O_PATH asks nothing of the file system that is mounted there.
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let fd = open(c"/proc", flags, Mode::empty()).map_or(-1, IntoRawFd::into_raw_fd);
    let before = PROC.swap(fd, Ordering::Relaxed);
    if before >= 0 {
        // One that is not procfs: nothing else was opened through it.
        let _ = nix::unistd::close(before);
    }
}

/// The descriptor of /proc, which must stay open.
pub(in crate::sys) fn proc_descriptor() -> Option<BorrowedFd<'static>> {
    let fd = PROC.load(Ordering::Relaxed);
    // SAFETY: it is closed in open_proc alone, which returns before another borrow begins.
    (fd >= 0).then(|| unsafe { BorrowedFd::borrow_raw(fd) })
}

/// Opens a file of /proc, never one that is mounted over it (`RESOLVE_NO_XDEV`, openat2(2)).
pub(super) fn open_in_proc(path: &str, flags: OFlag) -> nix::Result<OwnedFd> {
    let proc = proc_descriptor().ok_or(Errno::ENOENT)?;
    let flags = flags | OFlag::O_CLOEXEC;
    match openat2(
        proc,
        path,
        OpenHow::new()
            .flags(flags)
            .resolve(ResolveFlag::RESOLVE_NO_XDEV),
    ) {
        // A kernel before 5.6, or a filter that does not know the call. A FIFO that is mounted
        // there does not hold us up.
        Err(Errno::ENOSYS | Errno::EPERM) => {
            openat(proc, path, flags | OFlag::O_NONBLOCK, Mode::empty())
        }
        result => result,
    }
}

/// The text of a file of /proc.
pub(super) fn read_in_proc(path: &str) -> io::Result<String> {
    let mut text = vec![];
    File::from(open_in_proc(path, OFlag::O_RDONLY)?).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Whether there is a /proc and it speaks of our PID namespace: in another one the same numbers are
/// other processes (`unshare -p` without `--mount-proc`). /proc/self is a link to our number as
/// that /proc counts (proc_pid(5)).
pub(super) fn proc_is_ours() -> bool {
    // A procfs stays that of its PID namespace. Where there is none, one can be mounted later: each
    // call looks again.
    static OURS: AtomicBool = AtomicBool::new(false);
    let look = || {
        let is_ours = |proc| {
            fstatfs(proc).is_ok_and(|found| found.filesystem_type() == PROC_SUPER_MAGIC)
                && readlinkat(proc, c"self")
                    .is_ok_and(|link| link.to_str() == Some(&this_process::id().to_string()))
        };
        proc_descriptor().is_some_and(is_ours)
    };
    let ours = OURS.load(Ordering::Relaxed) || look() || {
        open_proc();
        look()
    };
    OURS.store(ours, Ordering::Relaxed);
    ours
}

/// Tries once more where the failure may pass: the system has no descriptor or no memory left at
/// this moment. A process that is passed over for it would not be told to end. What is not there,
/// is not there.
pub(super) fn again<T>(mut read: impl FnMut() -> io::Result<T>) -> Option<T> {
    match read() {
        Err(error) if !matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => {
            read().ok()
        }
        result => result.ok(),
    }
}

/// Opens the file of one of our own descriptors once more.
pub(in crate::sys) fn reopen(fd: BorrowedFd<'_>, flags: OFlag) -> nix::Result<OwnedFd> {
    if proc_descriptor().is_none() {
        open_proc();
    }
    // The last step leaves procfs, and nothing can be mounted over that link.
    let folder = open_in_proc("self/fd", OFlag::O_PATH | OFlag::O_DIRECTORY)?;
    openat(
        &folder,
        fd.as_raw_fd().to_string().as_str(),
        flags,
        Mode::empty(),
    )
}

#[cfg(test)]
#[path = "../../../tests/fuzz/stat.rs"]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_pretend_to_be_fields() {
        let line = b"7 (a) R 1 (b\n) S 5 9 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 1 1 18446744073709551615\n";
        let process = Process::parse(line).unwrap();
        assert_eq!((process.pid, process.parent, process.group), (7, 5, 9));
        assert_eq!((process.state, process.started), ('S', 4242));
        assert_eq!(process.name, "a) R 1 (b\n");
    }

    #[test]
    fn half_a_line_is_no_process() {
        for line in [
            "",
            "7",
            "7 (a",
            "7 (a)",
            "7 (a) S",
            "7 (a) S 5 7 7",
            ") 7 (",
            "x (a) S 5 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242",
        ] {
            assert_eq!(Process::parse(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn a_thread_that_reads_names_its_descriptor() {
        let (read, readv, write) = (libc::SYS_read, libc::SYS_readv, libc::SYS_write);
        for (text, fd) in [
            (
                format!("{read} 0x0 0x7ffd 0x400 0x0 0x0 0x0 0x7ffd 0x7f00\n"),
                Some(0),
            ),
            (
                format!("{readv} 0x1f 0x7ffd 0x2 0x0 0x0 0x0 0x7ffd 0x7f00\n"),
                Some(31),
            ),
            (
                format!("{write} 0x0 0x7ffd 0x400 0x0 0x0 0x0 0x7ffd 0x7f00\n"),
                None,
            ),
            ("running\n".into(), None),
            ("-1 0x7ffd 0x7f00\n".into(), None),
            (format!("{read}"), None),
            (String::new(), None),
        ] {
            assert_eq!(read_call(&text), fd, "{text}");
        }
    }

    #[test]
    fn this_very_process_can_be_read() {
        let us = Process::read(std::process::id() as i32).unwrap();
        assert_eq!(us.parent, std::os::unix::process::parent_id() as i32);
        assert!(!us.is_dead() && us.started > 0);
    }
}
