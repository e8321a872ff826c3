//! /proc: one process, its threads and children, all processes.
//!
//! /proc is opened before the command starts. Each file is opened below that descriptor, and never
//! one that is mounted over it: such a file can block or mislead bowout.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, open, openat, openat2, readlinkat};
use nix::sys::stat::{Mode, fstat, fstatat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{SysconfVar, getpid, sysconf};

use crate::process::{NAMED, NamedProcess};

/// How many threads one search of [`any_thread`] looks at.
const THREADS: usize = 4096;

/// The values of `/proc/PID/stat` (proc_pid_stat(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: libc::pid_t,
    pub(super) parent: libc::pid_t,
    pub(crate) group: libc::pid_t,
    pub(super) session: libc::pid_t,
    /// `D` cannot be killed now, `X` is dead, and so is `Z` if its first thread was the last; `?`
    /// where /proc hides the process.
    pub(crate) state: char,
    /// The minor page faults of the children that it has waited for: grows with each of them.
    pub(super) child_faults: u64,
    pub(super) threads: u64,
    /// When it was started, in clock ticks since boot: with the PID, its identity.
    pub(super) started: u64,
    /// Chosen by the process itself, up to 15 bytes of anything.
    pub(crate) name: String,
}

impl Process {
    /// Reads `/proc/PID/stat`; `None` where there is no such process or no /proc.
    pub(super) fn read(pid: libc::pid_t) -> Option<Self> {
        if !is_ours() {
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

    /// A process that was not read. 0 is not a group's number.
    pub(super) fn unread(
        pid: libc::pid_t,
        parent: libc::pid_t,
        ids: Option<(libc::pid_t, libc::pid_t)>,
    ) -> Self {
        let (group, session) = ids.unwrap_or_default();
        Self {
            pid,
            parent,
            group,
            session,
            state: '?',
            child_faults: 0,
            threads: 0,
            started: 0,
            name: "?".into(),
        }
    }

    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        // The name may hold spaces, parentheses and newlines; nothing after it can hold a
        // parenthesis.
        let open = text.iter().position(|&b| b == b'(')?;
        let close = text.iter().rposition(|&b| b == b')')?;
        let pid = std::str::from_utf8(&text[..open]).ok()?.trim();
        let mut fields = std::str::from_utf8(text.get(close + 1..)?)
            .ok()?
            .split_ascii_whitespace();
        Some(Self {
            pid: pid.parse().ok()?,
            // Field 3 of the line, then 4, 5, 6, 11, 20 and 22.
            state: next(&mut fields, 0)?,
            parent: next(&mut fields, 0)?,
            group: next(&mut fields, 0)?,
            session: next(&mut fields, 0)?,
            child_faults: next(&mut fields, 4)?,
            threads: next(&mut fields, 8)?,
            started: next(&mut fields, 1)?,
            name: String::from_utf8_lossy(text.get(open + 1..close)?).into_owned(),
        })
    }

    /// The state is the first thread's, which can exit before the others (pthread_exit(3) in
    /// `main`).
    pub(super) fn is_dead(&self) -> bool {
        matches!(self.state, 'X' | 'x') || (self.state == 'Z' && self.threads <= 1)
    }
}

/// The names of the first [`NAMED`] of these processes, for the log and the report. Call it after
/// they were signalled: it reads a file for each that is in state D.
#[cold]
pub(super) fn named(processes: &[Process]) -> Vec<NamedProcess> {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from);
    let ticks = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100) as u64;
    let name = |process: &Process| NamedProcess {
        pid: process.pid,
        name: process.name.clone(),
        state: process.state,
        waits_in: (process.state == 'D')
            .then(|| read_in_proc(&format!("{}/wchan", process.pid)).ok())
            .flatten()
            .filter(|function| !["", "0"].contains(&function.as_str())),
        age: (process.started > 0)
            .then(|| now.saturating_sub(Duration::from_millis(process.started * 1000 / ticks))),
    };
    // Without /proc, number 0 stands for all of PID 1's namespace.
    let numbered = processes.iter().filter(|process| process.pid > 0);
    numbered.take(NAMED).map(name).collect()
}

/// The next field after `skipped` others.
fn next<'a, T: FromStr>(fields: &mut impl Iterator<Item = &'a str>, skipped: usize) -> Option<T> {
    fields.nth(skipped)?.parse().ok()
}

/// The entries of a folder of /proc that are numbers.
fn numbers(path: &str) -> io::Result<Vec<libc::pid_t>> {
    let mut numbers = vec![];
    for entry in Dir::from_fd(open_in_proc(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?)? {
        if let Some(number) = entry?
            .file_name()
            .to_str()
            .ok()
            .and_then(|name| name.parse().ok())
        {
            numbers.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
            numbers.push(number);
        }
    }
    Ok(numbers)
}

/// All processes of the PID namespace; `None` without /proc, or without memory for the list.
pub(super) fn processes() -> Option<Vec<libc::pid_t>> {
    is_ours().then(|| again(|| numbers(".")))?
}

/// How many processes the system has (fs/proc/root.c, `proc_root_getattr`).
pub(super) fn count() -> u64 {
    // 32 bits on some machines.
    #[allow(clippy::useless_conversion)]
    let links = |proc| fstat(proc).map_or(u64::MAX, |proc| proc.st_nlink.into());
    descriptor().map_or(u64::MAX, links)
}

/// The children of this process, zombies included: exact, because no other process reaps them
/// (proc_tid_children(5)). `None` where the kernel has no such file, and where /proc is another PID
/// namespace's.
pub(super) fn own_children() -> Option<Vec<libc::pid_t>> {
    is_ours().then(|| again(|| children_of("thread-self")))?
}

/// The children of a process with so many threads. The kernel lists them by the thread that forked
/// them. Misses some where the process, or a child, exits meanwhile.
pub(super) fn children(pid: libc::pid_t, threads: u64) -> Vec<libc::pid_t> {
    let tids = match threads {
        0 | 1 => vec![pid],
        _ => again(|| numbers(&format!("{pid}/task"))).unwrap_or_default(),
    };
    let of = |tid| again(|| children_of(&format!("{pid}/task/{tid}"))).unwrap_or_default();
    tids.into_iter().flat_map(of).collect()
}

/// Reads the `children` file of a thread, by its folder in /proc.
fn children_of(thread: &str) -> io::Result<Vec<libc::pid_t>> {
    let text = read_in_proc(&format!("{thread}/children"))?;
    let pids = text.split_ascii_whitespace();
    Ok(pids.filter_map(|pid| pid.parse().ok()).collect())
}

/// True if `is` holds for a thread of these processes, given the process and the thread's folder in
/// /proc.
pub(super) fn any_thread(
    pids: impl Iterator<Item = libc::pid_t>,
    is: impl Fn(libc::pid_t, &str) -> bool,
) -> bool {
    let threads = pids.flat_map(|pid| {
        let threads = numbers(&format!("{pid}/task")).unwrap_or_default();
        threads
            .into_iter()
            .map(move |thread| (pid, format!("{pid}/task/{thread}")))
    });
    threads.take(THREADS).any(|(pid, thread)| is(pid, &thread))
}

/// True if a thread of this process, by its folder in /proc, waits in read(2) of a device with such
/// a number, or in readv(2), which musl's stdio uses (proc_pid_syscall(5)). `false` where bowout
/// may not trace the process.
pub(super) fn reads(pid: libc::pid_t, thread: &str, is_device: impl Fn(u64) -> bool) -> bool {
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

/// The PID of `pid`, a child of bowout, as the child itself and its children see it. The two differ
/// where bowout's children are in another PID namespace (unshare(2), setns(2)). Without /proc, the
/// result is `pid`.
pub(crate) fn own_number(pid: libc::pid_t) -> libc::pid_t {
    let read = || {
        let text = again(|| read_in_proc(&format!("{pid}/status")))?;
        // The last of these numbers is the one of the innermost namespace (proc_pid_status(5)).
        let line = text.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
        line.split_ascii_whitespace().next_back()?.parse().ok()
    };
    if is_ours() {
        read().unwrap_or(pid)
    } else {
        pid
    }
}

/// True if `number`, which the kernel gave out in the PID namespace of `pid`, is `pid` itself.
pub(super) fn is_itself(pid: libc::pid_t, number: libc::pid_t) -> bool {
    number == pid || number == own_number(pid)
}

/// /proc; -1 where it could not be opened. A static: the descriptors of bowout's own files are
/// opened through it as well, and [`release`](super::spawn::release) must keep it.
static PROC: AtomicI32 = AtomicI32::new(-1);

/// Opens /proc by its name, and closes the descriptor that was open before.
pub(super) fn open_folder() {
    // O_PATH does not call the file system that is mounted there: it could block.
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let fd = open(c"/proc", flags, Mode::empty()).map_or(-1, IntoRawFd::into_raw_fd);
    let before = PROC.swap(fd, Ordering::Relaxed);
    if before >= 0 {
        // It was not procfs, and no other file was opened through it.
        let _ = nix::unistd::close(before);
    }
}

/// The descriptor of /proc, which must stay open.
pub(super) fn descriptor() -> Option<BorrowedFd<'static>> {
    let fd = PROC.load(Ordering::Relaxed);
    // SAFETY: it is closed in open_folder alone, which returns before another borrow begins.
    (fd >= 0).then(|| unsafe { BorrowedFd::borrow_raw(fd) })
}

/// Opens a file of /proc, never one that is mounted over it (`RESOLVE_NO_XDEV`, openat2(2)).
fn open_in_proc(path: &str, flags: OFlag) -> nix::Result<OwnedFd> {
    let proc = descriptor().ok_or(Errno::ENOENT)?;
    let flags = flags | OFlag::O_CLOEXEC;
    match openat2(
        proc,
        path,
        OpenHow::new()
            .flags(flags)
            .resolve(ResolveFlag::RESOLVE_NO_XDEV),
    ) {
        // A kernel before 5.6, or a filter that does not know the call. O_NONBLOCK: a FIFO that is
        // mounted there does not block.
        Err(Errno::ENOSYS | Errno::EPERM) => {
            openat(proc, path, flags | OFlag::O_NONBLOCK, Mode::empty())
        }
        result => result,
    }
}

/// The text of a file of /proc.
pub(super) fn read_in_proc(path: &str) -> io::Result<String> {
    read(File::from(open_in_proc(path, OFlag::O_RDONLY)?))
}

/// Reads to the end. A text that memory does not hold is an error (`OutOfMemory`).
fn read(file: impl Read) -> io::Result<String> {
    let mut text = vec![];
    // Through `take`, std does not ask for the size, which is 0 in /proc.
    file.take(u64::MAX).read_to_end(&mut text)?;
    // A name in it can be any bytes.
    Ok(String::from_utf8(text)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

/// True if there is a /proc, and of bowout's PID namespace: in another one the same numbers are
/// other processes (`unshare -p` without `--mount-proc`). /proc/self is a link to bowout's number
/// in the namespace of that /proc (proc_pid(5)).
pub(crate) fn is_ours() -> bool {
    // A procfs never changes its PID namespace. Where there is not one, it can be mounted later:
    // each call looks again.
    static OURS: AtomicBool = AtomicBool::new(false);
    let look = || {
        let is_ours = |proc| {
            fstatfs(proc).is_ok_and(|found| found.filesystem_type() == PROC_SUPER_MAGIC)
                && readlinkat(proc, c"self")
                    .is_ok_and(|link| link.to_str() == Some(&getpid().to_string()))
        };
        descriptor().is_some_and(is_ours)
    };
    let ours = OURS.load(Ordering::Relaxed) || look() || {
        open_folder();
        look()
    };
    OURS.store(ours, Ordering::Relaxed);
    ours
}

/// True if bowout may signal processes of other users (CAP_KILL, number 5 in capabilities(7)).
#[cold]
pub(crate) fn may_kill_others() -> bool {
    let status = read_in_proc("self/status").unwrap_or_default();
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let set = set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    set.is_some_and(|set| set & 1 << 5 != 0)
}

/// True if bowout is in the system's initial PID namespace, which has a fixed number
/// (include/linux/proc_ns.h, `PROC_PID_INIT_INO`).
pub(super) fn is_initial_namespace() -> bool {
    let link = |proc| readlinkat(proc, c"self/ns/pid");
    descriptor().is_some_and(|proc| link(proc).is_ok_and(|link| link == "pid:[4026531836]"))
}

/// Tries once more where the failure may pass: the system has no descriptor or no memory left at
/// this moment. A process that is missed for that would not be signalled. A missing file is not a
/// failure that passes.
fn again<T>(mut read: impl FnMut() -> io::Result<T>) -> Option<T> {
    match read() {
        Err(error) if !matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => {
            read().ok()
        }
        result => result.ok(),
    }
}

/// Opens the file of one of bowout's own descriptors once more.
pub(super) fn reopen(fd: BorrowedFd<'_>, flags: OFlag) -> nix::Result<OwnedFd> {
    if descriptor().is_none() {
        open_folder();
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
#[path = "../../tests/fuzz/stat.rs"]
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
    fn half_a_line_is_not_a_process() {
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

    /// The test runs this in a separate process: a failed allocation would end it
    /// (`handle_alloc_error`).
    #[test]
    fn a_list_that_memory_does_not_hold_is_an_error() {
        const LIMITED: &str = "A_LIST_WITHOUT_END";
        if std::env::var_os(LIMITED).is_some() {
            let error = read(io::repeat(b' ')).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
            return;
        }
        let output = std::process::Command::new("sh")
            .args([
                "-c",
                r#"ulimit -v 300000 && exec "$0" a_list_that_memory_does_not_hold"#,
            ])
            .arg(std::env::current_exe().unwrap())
            .env(LIMITED, "1")
            .output()
            .unwrap();
        let output_text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && output_text.contains("1 passed"),
            "{output:?}"
        );
    }
}
