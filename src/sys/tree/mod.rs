//! The descendants: signalled without ever meeting a stranger. `find` looks for them, `process`
//! reads what /proc says of one.
//!
//! Who is in the child's process group gets a signal by one kill(2) to all of it, everybody else
//! one by one. A direct child keeps its PID until we reap it, so that a plain kill(2) is safe.
//! Anything deeper can be reaped by its own parent and its number given away between our look and
//! our signal; it is therefore held by a pidfd, looked at once more, and signalled through the
//! pidfd: if that succeeds, the process was unreaped throughout, and the second look was at it.
//!
//! Caveats: one pass sees what existed when it began; SIGKILL makes passes until one finds nothing
//! new. Whom /proc hides (`hidepid`) is found when it is our child, and no sooner; what it has
//! below it and /proc shows, likewise. Without /proc, PID 1 signals everything in its namespace
//! (`kill(-1)`), exec sessions included; another process finds its direct children by asking
//! waitid(2) for every PID there can be, which takes a second, or until SIGKILL has ended them, and
//! deeper ones when they become direct.

mod find;
mod process;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::unistd::{Pid, getpgid, getsid};

pub(super) use find::{any_thread, forget_inherited, note_own};
use find::{children, is_inherited};
pub(crate) use find::{descendants, descends, has_inherited, note_inherited};
pub(super) use process::is_itself;
use process::proc_is_ours;
pub(super) use process::reads;
pub(crate) use process::{Process, own_number};
pub(super) use process::{proc_descriptor, reopen};

use super::child::{Child, ProcessGroup, all_have_ended, is_alive};
use super::signals;
use super::this_process::{id, pidfd_open};
use crate::signal::Signal;

/// How many passes one call makes at the most.
const PASSES: usize = 16;
/// The highest PID that Linux can be set to give, and one more (`PID_MAX_LIMIT`,
/// proc_sys_kernel(5)).
const PID_LIMIT: libc::pid_t = 1 << 22;

/// How many PIDs are tried before it is asked whether anybody is left: some 4 ms.
const PIDS_AT_ONCE: usize = 1 << 14;

/// What became of a signal to the whole tree.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// How many live descendants were signalled, the child among them if it is not reaped.
    pub(crate) reached: usize,
    /// Who may not be signalled, and why.
    pub(crate) refused: Vec<(Process, io::Error)>,
}

/// Sends `signal` to every live descendant, and with `wake` SIGCONT after it to each that is
/// stopped: to `group` by one kill(2), to the others one by one. SIGKILL goes on until a pass finds
/// no new process. Processes that are `spared` are passed over, where /proc tells which they are.
pub(crate) fn send(
    signal: Signal,
    wake: bool,
    group: Option<ProcessGroup>,
    spared: &dyn Fn(&Process) -> bool,
) -> Tally {
    let mut tally = Tally::default();
    let mut met = BTreeMap::from([(id(), 0)]);
    for _ in 0..if signal == Signal::KILL { PASSES } else { 1 } {
        let tree = descendants();
        // Only now, so that a process that dies of it has been seen alive and is counted. SIGKILL
        // goes to a group without a known member, too: its members may fork and exit over and over.
        let is_met = |group: ProcessGroup| {
            tree.iter()
                .flatten()
                .any(|process| group.has(process.group))
        };
        if let Some(group) = group.filter(|group| signal == Signal::KILL || is_met(*group)) {
            group.send(signal);
        }
        let Some(tree) = tree else {
            return without_proc(signal, wake);
        };
        let mut new = false;
        for process in tree {
            let known = met.insert(process.pid, process.started) == Some(process.started);
            if known || spared(&process) {
                continue;
            }
            new = true;
            let group = group.filter(|group| group.has(process.group));
            if group.is_some_and(|group| group.has_reached(process.pid)) {
                tally.reached += 1;
                if wake {
                    wake_if_stopped(&process, &met);
                }
                continue;
            }
            match send_one(&process, &met, signal) {
                Ok(()) => {
                    tally.reached += 1;
                    if wake {
                        wake_if_stopped(&process, &met);
                    }
                }
                // It has died of the signal to its group, and its parent has reaped it.
                Err(error) if group.is_some() && error.raw_os_error() == Some(libc::ESRCH) => {
                    tally.reached += 1;
                }
                // It has exited by itself, or was never a descendant.
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

/// Forwards `signal` to every descendant in the child's process group: by one kill(2) where the
/// child leads it. A group that bowout is in itself is signalled member by member, for its number
/// would mean bowout, and the processes that share it, too.
pub(crate) fn send_to_group(child: &Child, signal: Signal, value: Option<u64>) -> io::Result<()> {
    let Some(group) = child.group().map(Pid::as_raw) else {
        return Err(Errno::ESRCH.into());
    };
    if group == child.pid() {
        match value {
            None => return signals::send(-group, signal, None),
            Some(value) if signals::queue_to_group(group, signal, value).is_ok() => return Ok(()),
            // A kernel before 6.9: the value goes to the child alone.
            Some(_) => {}
        }
    }
    let sent = child.send(signal, value);
    let tree = descendants().unwrap_or_default();
    let met = identities(&tree);
    for process in tree
        .iter()
        .filter(|process| process.group == group && process.pid != child.pid())
    {
        // A member that may not be signalled is left out, as by kill(2) to a group.
        let _ = send_one(process, &met, signal);
    }
    sent
}

/// SIGCONT to each stopped descendant in the child's process group; to all of the group where /proc
/// does not tell.
pub(crate) fn wake_group(child: &Child) -> io::Result<()> {
    let Some(group) = child.group().map(Pid::as_raw) else {
        return Err(Errno::ESRCH.into());
    };
    match descendants() {
        Some(tree) => {
            let met = identities(&tree);
            tree.iter()
                .filter(|process| process.group == group)
                .for_each(|process| wake_if_stopped(process, &met));
            Ok(())
        }
        None if group == child.pid() => signals::send(-group, Signal::CONT, None),
        None => child.send(Signal::CONT, None),
    }
}

/// SIGKILL to our direct children, as quickly as can be: what forks its successor and ends, over
/// and over, is gone by the time that all of /proc is read, but its successor is our child from
/// then on. Counted by nobody, for zombies are among them: each leads to its group.
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
            if is_alive(pid) {
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

/// The process group of a child that has ended, where it is the tree's alone. Who forks and ends
/// over and over can always be a step ahead of a signal to one process, and never of one to its
/// group (see [`ProcessGroup::kill`]). Until we reap the child, the number is no other group's; and
/// all members of a group are in one session (setpgid(2)), which a descendant has begun if it is
/// not ours.
fn group_left_by(pid: libc::pid_t) -> Option<libc::pid_t> {
    let pid = Some(Pid::from_raw(pid));
    let foreign = getsid(pid).ok()? != getsid(None).ok()?;
    getpgid(pid)
        .ok()
        .filter(|group| foreign && group.as_raw() > 1)
        .map(Pid::as_raw)
}

/// The start of each process, and of bowout, by PID.
fn identities(tree: &[Process]) -> BTreeMap<libc::pid_t, u64> {
    tree.iter()
        .map(|process| (process.pid, process.started))
        .chain([(id(), 0)])
        .collect()
}

/// Signals one of the processes that were `met`, each with its start.
fn send_one(process: &Process, met: &BTreeMap<libc::pid_t, u64>, signal: Signal) -> io::Result<()> {
    if process.parent == id() {
        return signals::send(process.pid, signal, None);
    }
    match hold(process, met)? {
        Some(fd) => pidfd_send_signal(&fd, signal),
        None => signals::send(process.pid, signal, None),
    }
}

/// SIGCONT to a process that is stopped, or whose state cannot be read, so that it acts on the
/// signal that was sent before. It is looked at after that signal: a process that is stopped later
/// is seen at the next signal. Any other process sees no SIGCONT.
fn wake_if_stopped(process: &Process, met: &BTreeMap<libc::pid_t, u64>) {
    if may_be_stopped(process.pid) {
        // It can have exited of the signal that it was sent.
        let _ = send_one(process, met, Signal::CONT);
    }
}

/// Whether a process is stopped (proc_pid_stat(5), state `T`), or nothing tells: /proc hides it, or
/// its first thread has exited before the others.
pub(super) fn may_be_stopped(pid: libc::pid_t) -> bool {
    Process::read(pid)
        .is_none_or(|process| process.state == 'T' || (process.state == 'Z' && !process.is_dead()))
}

/// pidfd_send_signal(2): `ESRCH` where the process is reaped.
fn pidfd_send_signal(fd: &OwnedFd, signal: Signal) -> io::Result<()> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a descriptor of ours and a number; no siginfo is passed.
    match unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            fd.as_raw_fd(),
            signal.number(),
            none,
            0,
        )
    } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Holds a descendant that is not our own child, and makes sure that it is one: /proc is read one
/// process after the other, and a number read early may be a stranger's, with children of its own,
/// when those are read. `None` where pidfds cannot be had (a kernel before 5.3, a filter, no
/// descriptor left): its number is then used at once after the second look.
fn hold(process: &Process, met: &BTreeMap<libc::pid_t, u64>) -> io::Result<Option<OwnedFd>> {
    let held = match pidfd_open(process.pid) {
        Err(Errno::ESRCH) => return Err(Errno::ESRCH.into()),
        held => held.ok(),
    };
    // Whoever is older than its child was its parent before, too: a number that was given away
    // meanwhile would be younger.
    let is_known = |pid| match met.get(&pid) {
        Some(started) if *started < process.started => true,
        Some(started) => Process::read(pid).is_some_and(|now| now.started == *started),
        None => false,
    };
    // It is the one that was found, and its parent of this moment is of the family, found before it
    // and still the same.
    let ours = Process::read(process.pid)
        .is_some_and(|now| now.started == process.started && is_known(now.parent));
    if ours {
        Ok(held)
    } else {
        Err(Errno::ESRCH.into())
    }
}

/// To every process of the namespace where bowout is PID 1, else to its present children. The state
/// of a process is unknown then, so that with `wake` each is sent SIGCONT.
fn without_proc(signal: Signal, wake: bool) -> Tally {
    let mut tally = Tally::default();
    let send = |pid| {
        signals::send(pid, signal, None)?;
        if wake {
            // As above.
            let _ = signals::send(pid, Signal::CONT, None);
        }
        Ok::<_, io::Error>(())
    };
    if super::this_process::is_pid1() {
        // Everything but ourselves; ESRCH is nobody (kill(2)). No proof that everybody was reached
        // (contract K10).
        tally.reached = usize::from(send(-1).is_ok());
        return tally;
    }
    let mut send = |pid| match send(pid) {
        Ok(()) => tally.reached += 1,
        Err(error) => {
            tally.refused.push((Process::hidden(pid), error));
        }
    };
    let known = if proc_is_ours() { children() } else { None };
    if let Some(known) = known {
        known
            .into_iter()
            .filter(|&pid| is_alive(pid) && !is_inherited(pid))
            .for_each(&mut send);
        return tally;
    }
    // Most have a number soon after ours.
    let us = id();
    for (tried, pid) in (us + 1..PID_LIMIT).chain(1..us).enumerate() {
        if is_alive(pid) {
            send(pid);
        }
        if tried % PIDS_AT_ONCE == PIDS_AT_ONCE - 1 && all_have_ended() {
            break;
        }
    }
    tally
}
