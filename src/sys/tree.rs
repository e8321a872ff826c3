//! The descendants: found in /proc and signalled without ever meeting a stranger.
//!
//! A direct child keeps its PID until we reap it, so that a plain kill(2) is safe. Anything deeper can be reaped by its own
//! parent and its number given away between our look and our signal; it is therefore held by a pidfd, looked at once more,
//! and signalled through the pidfd: if that succeeds, the process was unreaped throughout, and the second look was at it.
//!
//! Caveats: one pass sees what existed when it began; SIGKILL makes passes until one finds nothing new. Without /proc, PID 1
//! signals everything in its namespace (`kill(-1)`), exec sessions included; another process finds its direct children by
//! asking waitid(2) for every PID there can be, which takes a second, and deeper ones when they become direct.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, getpgid, getsid};

use super::child::ProcessGroup;
use super::{process, signals};
use crate::signal::Signal;

/// How many passes one call makes at the most.
const PASSES: usize = 16;
/// How far up a sender's parents are followed.
const DEPTH: usize = 1024;
/// The highest PID that Linux can be set to give, and one more (`PID_MAX_LIMIT`, proc_sys_kernel(5)).
const PID_LIMIT: libc::pid_t = 1 << 22;

/// What `/proc/PID/stat` says of a process (proc_pid_stat(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: libc::pid_t,
    parent: libc::pid_t,
    pub(crate) group: libc::pid_t,
    /// `D` cannot be killed now, `X` is dead, and so is `Z` if its first thread was the last.
    pub(crate) state: char,
    threads: u64,
    /// When it was started, in clock ticks since boot: with the PID, its identity.
    started: u64,
    /// Chosen by the process itself, up to 15 bytes of anything.
    pub(crate) name: String,
}

impl Process {
    /// Reads `/proc/PID/stat`: nothing where there is no such process or no /proc.
    pub(crate) fn read(pid: libc::pid_t) -> Option<Self> {
        // Asked once, for this is called often; what a pass over all of them is to rely on, is asked for each pass.
        static OURS: OnceLock<bool> = OnceLock::new();
        if !OURS.get_or_init(proc_is_ours) {
            return None;
        }
        let mut text = [0; 1024];
        let length = again(|| File::open(format!("/proc/{pid}/stat"))?.read(&mut text))?;
        Self::parse(&text[..length])
    }

    fn parse(text: &[u8]) -> Option<Self> {
        // The name may hold spaces, parentheses and newlines; nothing behind it can hold a parenthesis.
        let open = text.iter().position(|&b| b == b'(')?;
        let close = text.iter().rposition(|&b| b == b')')?;
        let pid = std::str::from_utf8(&text[..open]).ok()?.trim().parse().ok()?;
        let mut fields = std::str::from_utf8(text.get(close + 1..)?).ok()?.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let parent = fields.next()?.parse().ok()?;
        let group = fields.next()?.parse().ok()?;
        // Fields 20 and 22 of the line; the group is the fifth.
        let threads = fields.nth(14)?.parse().ok()?;
        let started = fields.nth(1)?.parse().ok()?;
        let name = String::from_utf8_lossy(text.get(open + 1..close)?).into_owned();
        Some(Self { pid, parent, group, state, threads, started, name })
    }

    /// The state is the first thread's, which can end before the others (pthread_exit(3) in `main`).
    fn is_dead(&self) -> bool {
        matches!(self.state, 'X' | 'x') || (self.state == 'Z' && self.threads <= 1)
    }
}

/// Whether there is a /proc and it speaks of our PID namespace: in another one the same numbers are other processes
/// (`unshare -p` without `--mount-proc`). /proc/self is a link to our number as that /proc counts (proc_pid(5)).
fn proc_is_ours() -> bool {
    again(|| std::fs::read_link("/proc/self")).is_some_and(|link| link.to_str() == Some(&process::id().to_string()))
}

/// Tries once more where the failure may pass: the system has no descriptor or no memory left at this moment. A process that is passed
/// over for it would not be told to end. What is not there, is not there.
fn again<T>(mut read: impl FnMut() -> io::Result<T>) -> Option<T> {
    match read() {
        Err(error) if !matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => read().ok(),
        result => result.ok(),
    }
}

/// What became of a signal to the whole tree.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// How many live descendants were signalled, the child among them if it is not reaped.
    pub(crate) reached: usize,
    /// Who may not be signalled, and why.
    pub(crate) refused: Vec<(Process, io::Error)>,
}

/// Whether `pid` is a descendant of ours: up from parent to parent. A sender that has ended meanwhile is not.
pub(crate) fn descends(pid: libc::pid_t) -> bool {
    let us = process::id();
    let mut above = pid;
    // Parents do not go in circles, but /proc is read one file at a time while processes come and go.
    for _ in 0..DEPTH {
        match Process::read(above) {
            Some(process) if process.parent == us => return true,
            Some(process) if process.parent > 1 => above = process.parent,
            Some(_) | None => return false,
        }
    }
    false
}

/// Our children from before we were bowout: whoever executed us had started them (`exec > >(tee log); exec bowout ...`). Not ours to
/// end, nor are their own children. Nearly always none.
static INHERITED: Mutex<Vec<libc::pid_t>> = Mutex::new(vec![]);

fn inherited() -> MutexGuard<'static, Vec<libc::pid_t>> {
    INHERITED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether this is one of them. The number is nobody else's until we reap it.
fn is_inherited(pid: libc::pid_t) -> bool {
    inherited().contains(&pid)
}

/// Notes the children that we have before the first of our own is started.
pub(crate) fn note_inherited() {
    // Without a look into /proc for the many who have none.
    if matches!(super::child::peek(), super::child::Peek::NoChildren) || !proc_is_ours() {
        return;
    }
    *inherited() = children().unwrap_or_default();
}

/// Whether one of them is there still.
pub(crate) fn has_inherited() -> bool {
    !inherited().is_empty()
}

/// It is reaped, and its number may be given to anyone.
pub(super) fn forget_inherited(pid: libc::pid_t) {
    inherited().retain(|other| *other != pid);
}

/// What a look at one process takes, in bytes, at the most: its line in a table that doubles as it grows, twice, and its name.
const ROOM: usize = 768;

/// Whether there is memory for a look at so many processes. What cannot be had later would end us (`handle_alloc_error`), and the
/// descendants would be nobody's.
fn has_room(processes: usize) -> bool {
    Vec::<u8>::new().try_reserve_exact(processes.saturating_mul(ROOM)).is_ok()
}

/// All live descendants, the child included, parents before their children; nothing where there is no /proc, or no memory to read it.
pub(crate) fn descendants() -> Option<Vec<Process>> {
    let children = children();
    let has_ended = |pid| super::child::has_ended(pid);
    if children.as_ref().is_some_and(|children| children.iter().all(|&pid| is_inherited(pid) || has_ended(pid))) {
        // The usual end, when nothing is left, and no reason to read all of /proc.
        return Some(vec![]);
    }
    // Each time: a child that shares our mounts may have put another one there, or nothing.
    if !proc_is_ours() {
        return None;
    }
    let us = process::id();
    // A storm of forks leaves zombies by the hundred thousand, and more while the file of each is read.
    let dead: BTreeSet<_> = children.into_iter().flatten().filter(|&pid| has_ended(pid)).collect();
    let pids = again(|| {
        let mut pids: Vec<libc::pid_t> = vec![];
        for entry in std::fs::read_dir("/proc")? {
            let pid = entry?.file_name().to_str().and_then(|name| name.parse().ok());
            if let Some(pid) = pid.filter(|pid| !dead.contains(pid)) {
                pids.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
                pids.push(pid);
            }
        }
        Ok(pids)
    })?;
    if !has_room(pids.len()) {
        return None;
    }
    let mut table: Vec<Process> = pids.into_iter().filter_map(Process::read).collect();
    // What is below them falls out with them.
    table.retain(|process| !is_inherited(process.pid));
    // Whoever lost its parent between the reading of the two has a new one by now.
    let there: BTreeSet<_> = table.iter().map(|process| process.pid).collect();
    for process in &mut table {
        if !there.contains(&process.parent)
            && let Some(now) = Process::read(process.pid).filter(|now| now.started == process.started)
        {
            *process = now;
        }
    }
    let mut family = BTreeSet::from([us]);
    let mut tree = vec![];
    loop {
        let (found, rest): (Vec<_>, Vec<_>) = table.into_iter().partition(|p| family.contains(&p.parent));
        if found.is_empty() {
            break;
        }
        family.extend(found.iter().map(|process| process.pid));
        tree.extend(found);
        table = rest;
    }
    tree.retain(|process| !process.is_dead());
    Some(tree)
}

/// Our direct children, zombies included: the `children` file is exact for them, because nobody else reaps them
/// (proc_tid_children(5)). Nothing where the kernel has no such file, or /proc is of a PID namespace in which we are not; in another one
/// that we are in, the numbers are not ours, and kill(2) and waitid(2) say so.
fn children() -> Option<Vec<libc::pid_t>> {
    let text = again(read_children)?;
    Some(text.split(|&b| b == b' ').filter_map(|pid| std::str::from_utf8(pid).ok()?.parse().ok()).collect())
}

fn read_children() -> io::Result<Vec<u8>> {
    let file = open("/proc/thread-self/children", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    let mut text = vec![];
    let mut part = [0; 1024];
    loop {
        let got = nix::unistd::read(&file, &mut part)?;
        text.extend_from_slice(&part[..got]);
        // It is cut only where there is more than fits (fs/seq_file.c), at the end of a number.
        if got < part.len() / 2 {
            break;
        }
    }
    Ok(text)
}

/// Sends `signal` to every live descendant, and SIGCONT behind it with `wake`. SIGKILL goes to `group` first, and on until a pass
/// finds nobody new. Members of `except` are passed over.
pub(crate) fn send(signal: Signal, wake: bool, group: Option<ProcessGroup>, except: Option<ProcessGroup>) -> Tally {
    let mut tally = Tally::default();
    let mut met = BTreeMap::from([(process::id(), 0)]);
    for _ in 0..if signal == Signal::KILL { PASSES } else { 1 } {
        let tree = descendants();
        // Only now, so that whoever dies of it has been seen alive and is counted.
        if let Some(group) = group.filter(|_| signal == Signal::KILL) {
            group.kill();
        }
        let Some(tree) = tree else { return without_proc(signal, wake) };
        let mut new = false;
        for process in tree {
            let known = met.insert(process.pid, process.started) == Some(process.started);
            if known || except.is_some_and(|except| except.has(process.group)) {
                continue;
            }
            new = true;
            match send_one(&process, &met, signal, wake) {
                Ok(()) => tally.reached += 1,
                // It has ended by itself, or was never ours.
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                Err(error) => tally.refused.push((process, error)),
            }
        }
        if signal == Signal::KILL {
            kill_children();
        }
        if !new {
            break;
        }
    }
    tally
}

/// SIGKILL to our direct children, as quickly as can be: what forks its successor and ends, over and over, is gone by the time
/// that all of /proc is read, but its successor is our child from then on. Counted by nobody, for zombies are among them: each leads to
/// its group.
fn kill_children() {
    if !proc_is_ours() {
        return;
    }
    let mut killed = BTreeSet::new();
    let mut groups = BTreeSet::new();
    for _ in 0..PASSES {
        let before = killed.len();
        for pid in children().unwrap_or_default() {
            if is_inherited(pid) {
                continue;
            }
            killed.insert(pid);
            // EPERM is told by the pass over /proc.
            if is_child(pid) {
                let _ = signals::send(pid, Signal::KILL, None);
            } else if let Some(group) = group_left_by(pid)
                && groups.insert(group)
            {
                let _ = signals::send(-group, Signal::KILL, None);
            }
        }
        if killed.len() == before {
            break;
        }
    }
}

/// The process group of a child that has ended, where it is the tree's alone. Who forks and ends over and over can always be a step ahead
/// of a signal to one process, and never of one to its group (see [`ProcessGroup::kill`]). Until we reap the child, the number is no other
/// group's; and all members of a group are in one session (setpgid(2)), which a descendant has begun if it is not ours.
fn group_left_by(pid: libc::pid_t) -> Option<libc::pid_t> {
    let pid = Some(Pid::from_raw(pid));
    let foreign = getsid(pid).ok()? != getsid(None).ok()?;
    getpgid(pid).ok().filter(|group| foreign && group.as_raw() > 1).map(Pid::as_raw)
}

/// Signals one of those that were `met`, each with its start.
fn send_one(process: &Process, met: &BTreeMap<libc::pid_t, u64>, signal: Signal, wake: bool) -> io::Result<()> {
    let us = process::id();
    let held = if process.parent == us { None } else { hold(process, met)? };
    let send = |signal: Signal| match &held {
        Some(fd) => pidfd_send_signal(fd, signal),
        None => signals::send(process.pid, signal, None),
    };
    send(signal)?;
    if wake { send(Signal::CONT) } else { Ok(()) }
}

/// pidfd_send_signal(2): `ESRCH` where the process is reaped.
fn pidfd_send_signal(fd: &OwnedFd, signal: Signal) -> io::Result<()> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a descriptor of ours and a number; no siginfo is passed.
    match unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd.as_raw_fd(), signal.number(), none, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Holds a descendant that is not our own child, and makes sure that it is one: /proc is read one process after the other, and a
/// number read early may be a stranger's, with children of its own, when those are read. `None` where pidfds cannot be had (a
/// kernel before 5.3, a filter, no descriptor left): its number is then used at once after the second look.
fn hold(process: &Process, met: &BTreeMap<libc::pid_t, u64>) -> io::Result<Option<OwnedFd>> {
    // SAFETY: numbers only; a descriptor that is returned is nobody else's.
    let held = unsafe {
        match libc::syscall(libc::SYS_pidfd_open, process.pid, 0) {
            fd if fd >= 0 => Some(OwnedFd::from_raw_fd(fd as i32)),
            _ if Errno::last() == Errno::ESRCH => return Err(Errno::ESRCH.into()),
            _ => None,
        }
    };
    let us = process::id();
    let is_known = |pid| pid == us || Process::read(pid).is_some_and(|now| met.get(&pid) == Some(&now.started));
    // It is the one that was found, and its parent of this moment is of the family, found before it and still the same.
    let ours = Process::read(process.pid).is_some_and(|now| now.started == process.started && is_known(now.parent));
    if ours { Ok(held) } else { Err(Errno::ESRCH.into()) }
}

/// To everybody, where we are PID 1, or else to those that are our children now.
fn without_proc(signal: Signal, wake: bool) -> Tally {
    let mut tally = Tally::default();
    let signals = [Some(signal), wake.then_some(Signal::CONT)];
    if super::process::is_pid1() {
        for signal in signals.into_iter().flatten() {
            // Everything but ourselves; ESRCH is nobody (kill(2)). No proof that everybody was reached (contract K10).
            tally.reached = usize::from(signals::send(-1, signal, None).is_ok());
        }
        return tally;
    }
    let mut send = |pid| match signals.into_iter().flatten().try_for_each(|signal| signals::send(pid, signal, None)) {
        Ok(()) => tally.reached += 1,
        Err(error) => {
            let name = "?".into();
            let process = Process { pid, parent: 0, group: 0, state: '?', threads: 0, started: 0, name };
            tally.refused.push((process, error));
        }
    };
    let known = if proc_is_ours() { children() } else { None };
    match known {
        Some(known) => known.into_iter().filter(|&pid| is_child(pid) && !is_inherited(pid)).for_each(&mut send),
        None => (1..PID_LIMIT).filter(|&pid| is_child(pid)).for_each(&mut send),
    }
    tally
}

/// Whether `pid` is a live child of ours: waitid(2) says ECHILD of anyone else.
fn is_child(pid: libc::pid_t) -> bool {
    // SAFETY: with WNOHANG and WNOWAIT it returns at once and changes nothing; a zeroed siginfo_t is a place to write to.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        libc::waitid(libc::P_PID, pid as libc::id_t, &raw mut info, flags) == 0 && info.si_pid() == 0
    }
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
    fn this_very_process_can_be_read() {
        let us = Process::read(std::process::id() as i32).unwrap();
        assert_eq!(us.parent, std::os::unix::process::parent_id() as i32);
        assert!(!us.is_dead() && us.started > 0);
    }
}
