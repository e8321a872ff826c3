//! The tree: the child and its descendants, and the bystanders that are not to be touched.
//!
//! Owns their identity (PID and start time), which of them was sent which signal, and reaping.
//!
//! A look finds members downwards from bowout's own children by the kernel's lists of children: its
//! cost depends on the tree alone. As PID 1, a look reads one file of each process of the
//! namespace. It reads all of /proc where the kernel has no such lists, where /proc hides a child of
//! bowout, and where that is less to read than the tree.
//!
//! One call signals the child's own group; every other process is signalled by a call of its own.
//! Bowout's own children keep their PIDs until bowout reaps them. The parent of a deeper descendant
//! can reap it between the look and the signal, and another process can get its number. bowout
//! therefore pins it, looks at it once more, and signals it by the pin.
//!
//! Bystanders: the children that bowout has before the command starts, and their descendants. A
//! bystander's orphan becomes bowout's child like any other orphan, and may never have been seen
//! before. See `is_bystanders_orphan`.
//!
//! Caveats: a process that /proc hides (`hidepid`) is found once it is bowout's child, and no
//! sooner. Without /proc, PID 1 signals its whole namespace (`kill(-1)`), exec sessions included;
//! another process finds its own children by asking waitid(2) for every PID, which takes a second,
//! and deeper descendants once they are its children.

mod deliver;
mod find;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;

use nix::unistd::Pid;

use super::kernel::{Kernel, To};
use super::proc::Process;
use super::waitid::{Ask, Report};
use crate::exit::Usage;
use crate::signal::{Signal, SignalSet};

/// How far up a sender's parents are followed.
const DEPTH: usize = 1024;
/// How often that begins anew. A parent that /proc hides is missed each time.
const WALKS: usize = 3;

/// The record of a process, a bystander or a member of the tree.
#[derive(Clone, Debug)]
struct Known {
    process: Process,
    bystander: bool,
    sent: SignalSet,
    /// The last pass that found it.
    pass: usize,
}

impl Known {
    /// True if it was sent this signal or SIGKILL.
    fn was_sent(&self, signal: Signal) -> bool {
        self.sent.contains(signal) || self.sent.contains(Signal::KILL)
    }
}

/// The child, its descendants and the bystanders.
#[derive(Debug)]
pub(crate) struct Tree<K: Kernel> {
    pub(crate) kernel: K,
    us: libc::pid_t,
    /// Until it is reaped.
    child: Option<libc::pid_t>,
    /// The process group that bowout gave the child.
    group: Option<libc::pid_t>,
    /// The child, pinned before it was reaped: leads to the rest of its group.
    pin: Option<K::Pin>,
    hook: Option<libc::pid_t>,
    /// In boxes: a node of the map has room for eleven, and most trees have one process.
    known: BTreeMap<libc::pid_t, Box<Known>>,
    passes: usize,
    /// SIGKILL was sent to the tree before.
    killed: bool,
    /// The signals sent to the whole namespace, to receivers that bowout does not know.
    sent_to_all: SignalSet,
}

/// The result of a signal.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// The live processes that were signalled, as a look found them before.
    pub(crate) reached: Vec<Process>,
    /// The processes that bowout may not signal, and why.
    pub(crate) refused: Vec<(Process, io::Error)>,
    /// The whole namespace was signalled by one call.
    everything: bool,
}

impl<K: Kernel> Tree<K> {
    /// A tree without a child. The children that bowout has by now are bystanders
    /// (`exec > >(tee log); exec bowout ...`).
    pub(crate) fn new(kernel: K, us: libc::pid_t) -> Self {
        let mut tree = Self {
            kernel,
            us,
            child: None,
            group: None,
            pin: None,
            hook: None,
            known: BTreeMap::new(),
            passes: 0,
            killed: false,
            sent_to_all: SignalSet::default(),
        };
        // Without a child before the start, the usual case, this reads nothing in /proc.
        if !tree.all_exited() && tree.find().is_none() {
            // Without /proc, a bystander would be taken for a member of the tree later.
            tree.ask_every_pid(|tree, pid| _ = tree.remember(vec![tree.hidden(pid)]));
        }
        tree.known
            .values_mut()
            .for_each(|known| known.bystander = true);
        tree
    }

    /// The command was started as `child`, in a process group of its own or in bowout's.
    pub(crate) fn adopt(&mut self, child: libc::pid_t, own_group: bool) {
        (self.child, self.group, self.pin) = (Some(child), own_group.then_some(child), None);
        self.note_own(child);
    }

    /// A hook was started, as the leader of a process group. [`Tree::signal`] passes over the group
    /// until the hook is reaped.
    pub(crate) fn spare(&mut self, hook: libc::pid_t) {
        self.hook = Some(hook);
        self.note_own(hook);
    }

    fn note_own(&mut self, pid: libc::pid_t) {
        // The group matters only beside bystanders.
        let ids = if self.has_bystanders() {
            self.kernel.ids(pid)
        } else {
            None
        };
        let known = Known {
            process: Process::unread(pid, self.us, ids),
            bystander: false,
            sent: SignalSet::default(),
            pass: self.passes,
        };
        self.known.insert(pid, Box::new(known));
    }

    /// SIGKILL to the hook's process group.
    pub(crate) fn kill_hook(&self) {
        if let Some(hook) = self.hook {
            // It can only have exited before.
            let _ = self.kernel.send(To::Group(hook), Signal::KILL, None);
        }
    }

    /// True if this is the child. Until it is reaped, no other process or group has its number.
    pub(crate) fn is_child(&self, pid: libc::pid_t) -> bool {
        self.child == Some(pid)
    }

    /// True if the child is not reaped.
    pub(crate) fn has_child(&self) -> bool {
        self.child.is_some()
    }

    /// A child of bowout that has exited and is not reaped.
    pub(crate) fn peek(&self) -> Report {
        self.kernel.look(None, Ask::Exit)
    }

    /// True if the child has exited, reaped or not.
    pub(crate) fn child_exited(&self) -> bool {
        matches!(self.look(Ask::Exit), Report::Exited(_) | Report::NoChild)
    }

    /// Looks at the child.
    pub(crate) fn look(&self, ask: Ask) -> Report {
        self.child
            .map_or(Report::NoChild, |child| self.kernel.look(Some(child), ask))
    }

    /// The child's process group at this moment; `None` once it is reaped.
    pub(crate) fn child_group(&self) -> Option<Pid> {
        let ids = self.child.and_then(|child| self.kernel.ids(child));
        ids.map(|(group, _)| Pid::from_raw(group))
    }

    /// True if the child is stopped at this moment, as far as /proc shows it.
    pub(crate) fn child_is_stopped(&self) -> bool {
        let child = self.child.and_then(|child| self.kernel.stat(child));
        child.is_some_and(|child| child.state == 'T')
    }

    /// Reaps a child of bowout that has exited. Its number may be another process's from then on.
    pub(crate) fn reap(&mut self, pid: libc::pid_t) -> Usage {
        if self.is_bystander(pid) || self.is_child(pid) && self.has_bystanders() {
            // Its orphans are bowout's children since its exit. Only a look before it is reaped can
            // assign them to the command or to a bystander.
            self.find();
        }
        if self.child.take_if(|child| *child == pid).is_some() {
            // Only while members may be left: the kernel gives the number of an empty group to
            // another process.
            let others = self.group.is_some() && self.known.len() > 1;
            self.pin = if others {
                self.kernel.pin(pid).ok()
            } else {
                None
            };
        }
        self.hook.take_if(|hook| *hook == pid);
        self.known.remove(&pid);
        self.kernel.reap(pid)
    }

    /// True if a bystander, or a descendant of one, may live.
    pub(crate) fn has_bystanders(&self) -> bool {
        self.known.values().any(|known| known.bystander)
    }

    /// True if only bystanders and the hook's group live. `false` where /proc does not show it.
    pub(crate) fn is_empty(&mut self) -> bool {
        self.members().is_some_and(|members| members.is_empty())
    }

    /// The child and its descendants, as far as they live, parents before their children, without
    /// the hook's group. `None` without /proc, or without memory to read it.
    pub(crate) fn members(&mut self) -> Option<Vec<Process>> {
        let mut found = self.find()?;
        found.retain(|process| Some(process.group) != self.hook);
        Some(found)
    }

    /// True if a process is the child or a descendant. A process that has exited is not.
    pub(crate) fn contains(&self, pid: libc::pid_t) -> bool {
        descends(&self.kernel, self.us, pid)
    }

    /// True if bowout has a child that it sent neither `signal` nor SIGKILL. Costs one file, and
    /// one more for each child that became bowout's own since the last look.
    pub(crate) fn has_unasked_child(&mut self, signal: Signal) -> bool {
        let Some(own) = self.own_children() else {
            return true;
        };
        own.into_iter()
            .any(|pid| !self.was_asked(pid, signal) && self.is_alive(pid))
    }

    /// True if a child of bowout is a bystander, or was sent this signal or SIGKILL.
    fn was_asked(&mut self, pid: libc::pid_t, signal: Signal) -> bool {
        let Some(known) = self.known.get_mut(&pid) else {
            return false;
        };
        // The number of a process that was deeper in the tree can be another process's by now.
        if known.process.parent != self.us {
            let now = self.kernel.stat(pid);
            let Some(now) = now.filter(|now| now.started == known.process.started) else {
                return false;
            };
            known.process = now;
        }
        known.bystander || known.was_sent(signal)
    }
}

/// True if `pid` is a descendant of `us`: upwards from parent to parent. Of a process that /proc
/// hides, the kernel reports whether it is bowout's child.
pub(crate) fn descends<K: Kernel>(kernel: &K, us: libc::pid_t, pid: libc::pid_t) -> bool {
    // A parent that exits on the way leaves its children to another parent.
    let walk = || {
        let mut above = pid;
        // Parents form no circle. But each is read at another moment: their numbers can form one.
        for _ in 0..DEPTH {
            match kernel.stat(above).map(|process| process.parent) {
                Some(parent) if parent == us => return Some(true),
                Some(parent) if parent > 1 => above = parent,
                Some(_) => return Some(false),
                None if kernel.look(Some(above), Ask::Exit) != Report::NoChild => {
                    return Some(true);
                }
                None if above == pid => return Some(false),
                None => return None,
            }
        }
        Some(false)
    };
    (0..WALKS).find_map(|_| walk()).unwrap_or(false)
}
