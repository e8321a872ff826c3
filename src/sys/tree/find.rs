//! Looks at the tree: which processes it has, and which of them are bystanders.

use std::collections::{BTreeMap, BTreeSet};

use super::{Known, Tree};
use crate::sys::kernel::Kernel;
use crate::sys::proc::Process;
use crate::sys::waitid::{Ask, Report};

/// How many passes a look makes at the most until two in a row find the same.
const LOOKS: usize = 4;
/// The most memory that a look at one process takes, in bytes: its line in tables that double as
/// they grow, and its name.
const ROOM: usize = 768;

/// One more than the highest PID (`PID_MAX_LIMIT`, proc_sys_kernel(5)).
/// A simulated kernel has fewer.
const PID_LIMIT: libc::pid_t = if cfg!(test) { 1 << 11 } else { 1 << 22 };
/// How many PIDs are tried until the next look whether any child is left: some 4 ms.
const PIDS_AT_ONCE: usize = 1 << 14;

impl<K: Kernel> Tree<K> {
    /// Two passes in a row that find the same are complete: a process that is re-parented or forked
    /// while a pass reads /proc shows in the next.
    pub(super) fn find(&mut self) -> Option<Vec<Process>> {
        let mut before: Option<Vec<Process>> = None;
        for _ in 0..LOOKS {
            if self.all_exited() {
                return Some(vec![]);
            }
            let found = self.pass()?;
            let ids = |found: &[Process]| -> Vec<_> {
                found
                    .iter()
                    .map(|process| (process.pid, process.started))
                    .collect()
            };
            let same = before.is_some_and(|before| ids(&before) == ids(&found));
            before = Some(found);
            if same {
                let (us, pass) = (self.us, self.passes);
                let is_kept = |known: &Known| known.process.parent == us || known.pass == pass;
                self.known.retain(|_, known| is_kept(known));
                break;
            }
        }
        before
    }

    /// One look at the tree.
    pub(super) fn pass(&mut self) -> Option<Vec<Process>> {
        self.passes += 1;
        let own = self.own_children();
        // A storm of forks leaves zombies by the hundred thousand, and more while the file of each
        // is read.
        let listed = own.iter().flatten().copied();
        let (alive, exited): (Vec<_>, Vec<_>) = listed.partition(|&pid| self.is_alive(pid));
        let walked = if own.is_some() && self.us != 1 {
            self.walk(&alive)
        } else {
            None
        };
        let table = walked.or_else(|| self.scan(&alive, exited))?;
        let found = self.remember(self.descendants(table));
        // A process lives, and /proc does not name it.
        let blind = found.is_empty() && own.is_none() && !self.has_bystanders();
        if blind && !self.all_exited() {
            None
        } else {
            Some(found)
        }
    }

    /// Downwards from bowout's own children, at the cost of the tree. `None` where one is hidden by
    /// /proc, or where all of /proc holds less to read than the tree.
    fn walk(&self, own: &[libc::pid_t]) -> Option<Vec<Process>> {
        let (mut table, mut seen) = (vec![], BTreeSet::new());
        let mut queue = own.to_vec();
        let (mut next, mut threads, mut room) = (0, 0, 0);
        let all = self.kernel.count();
        while let Some(&pid) = queue.get(next) {
            next += 1;
            let Some(process) = self.kernel.stat(pid).filter(|_| seen.insert(pid)) else {
                // One that exited meanwhile shows in the next pass, with the children that it left.
                if next <= own.len() && self.is_alive(pid) {
                    return None;
                }
                continue;
            };
            threads += process.threads.saturating_sub(1);
            // Two files of each process and one of each further thread, or all of /proc: one of
            // each process of the system.
            if 2 * queue.len() as u64 + threads > all {
                return None;
            }
            if !process.is_dead() {
                queue.extend(
                    self.kernel
                        .children(pid, process.threads)
                        .into_iter()
                        .flatten(),
                );
            }
            if queue.len() > room {
                room = 2 * queue.len();
                if !has_room(room) {
                    return None;
                }
            }
            table.push(process);
        }
        Some(table)
    }

    /// All of /proc, but the `exited` children, and with the living children that it hides.
    fn scan(&self, alive: &[libc::pid_t], exited: Vec<libc::pid_t>) -> Option<Vec<Process>> {
        let exited: BTreeSet<_> = exited.into_iter().collect();
        let mut pids = self.kernel.processes()?;
        pids.retain(|pid| !exited.contains(pid));
        if !has_room(pids.len()) {
            return None;
        }
        let mut table: Vec<_> = pids
            .into_iter()
            .filter_map(|pid| self.kernel.stat(pid))
            .collect();
        let seen: BTreeSet<_> = table.iter().map(|process| process.pid).collect();
        let hidden = alive.iter().filter(|pid| !seen.contains(pid));
        table.extend(hidden.map(|&pid| self.hidden(pid)));
        Some(table)
    }

    /// Those of `table` that descend from bowout, parents before their children, zombies included
    /// but for bowout's own.
    fn descendants(&self, table: Vec<Process>) -> Vec<Process> {
        let mut families: BTreeMap<libc::pid_t, Vec<Process>> = BTreeMap::new();
        for process in table {
            families.entry(process.parent).or_default().push(process);
        }
        let mut tree = families.remove(&self.us).unwrap_or_default();
        tree.retain(|process| self.is_alive(process.pid));
        let mut next = 0;
        while let Some(parent) = tree.get(next) {
            next += 1;
            let (pid, started, own) = (parent.pid, parent.started, parent.parent == self.us);
            // Removed, so that the walk ends even if numbers that were read at different moments
            // form a circle.
            let Some(family) = families.remove(&pid) else {
                continue;
            };
            // The number of a parent that is not bowout's child may have become another process's
            // before its children were read. A parent is not younger than its children.
            if own
                || self
                    .kernel
                    .stat(pid)
                    .is_some_and(|now| now.started == started)
            {
                tree.extend(
                    family
                        .into_iter()
                        .filter(|process| process.started >= started),
                );
            }
        }
        tree
    }

    /// Notes the processes that a pass found, and takes out the bystanders.
    pub(super) fn remember(&mut self, mut found: Vec<Process>) -> Vec<Process> {
        let is_new =
            |process: &Process| process.parent == self.us && !self.known.contains_key(&process.pid);
        let bystander_exited =
            self.has_bystanders() && found.iter().any(is_new) && self.bystander_exited(&found);
        found.retain(|process| !process.is_dead());
        found.retain(|process| {
            let own = process.parent == self.us;
            // The number of bowout's own child is not another process's until bowout reaps it.
            let known = self.known.get(&process.pid).filter(|known| {
                known.process.parent == self.us || known.process.started == process.started
            });
            let bystander = match known {
                Some(known) => known.bystander,
                None if own => self.is_bystanders_orphan(process, bystander_exited),
                None => self.is_bystander(process.parent),
            };
            let known = Known {
                process: process.clone(),
                bystander,
                sent: known.map(|known| known.sent).unwrap_or_default(),
                pass: self.passes,
            };
            self.known.insert(process.pid, Box::new(known));
            !bystander
        });
        found
    }

    /// True if this child of bowout is a bystander, or the orphan of one.
    pub(crate) fn is_bystander(&self, pid: libc::pid_t) -> bool {
        self.known.get(&pid).is_some_and(|known| known.bystander)
    }

    /// True if a bystander or a descendant of one may have exited since the last pass: one is
    /// missing, or has waited for a child, or was never seen before and is a zombie. Each is read
    /// once more: it may have exited since this pass read it, and before the pass read its orphan.
    fn bystander_exited(&self, found: &[Process]) -> bool {
        let id = |process: &Process| (process.pid, process.started, process.child_faults);
        let same = |known: &Process| match known.state {
            // /proc hides it.
            '?' => found.iter().any(|process| id(process) == id(known)),
            _ => (self.kernel.stat(known.pid))
                .is_some_and(|now| !now.is_dead() && id(&now) == id(known)),
        };
        let bystanders = self.known.values().filter(|known| known.bystander);
        let mut family: BTreeSet<_> = bystanders.clone().map(|known| known.process.pid).collect();
        let is_new =
            |process: &&Process| family.contains(&process.parent) && family.insert(process.pid);
        let childless = |process: &Process| {
            (self.kernel.stat(process.pid))
                .is_some_and(|now| !now.is_dead() && now.child_faults == 0)
        };
        !bystanders.map(|known| &known.process).all(same)
            || !found.iter().filter(is_new).all(childless)
    }

    /// True if a child of bowout that was never seen before is a bystander's orphan, and not one of
    /// the command's. The group shows it, then the session, where only one side has it. Else no
    /// bystander can have left it if none exited since the last pass; where one did, it is unsure,
    /// and the process is not signalled. The look at the exit of the last bystander settles the
    /// rest: a process that shows after it is the command's.
    fn is_bystanders_orphan(&self, process: &Process, bystander_exited: bool) -> bool {
        if !self.has_bystanders() {
            return false;
        }
        // The bystanders began in these, and the command in a group of its own or there: the
        // members that are known may all have exited, or moved on.
        let (group, session) = self.kernel.ids(self.us).unwrap_or_default();
        let side = |commands: libc::pid_t, ours: libc::pid_t, id: fn(&Process) -> libc::pid_t| {
            let has = |bystander| {
                let mut side = self
                    .known
                    .values()
                    .filter(|known| known.bystander == bystander);
                side.any(|known| id(&known.process) == id(process))
            };
            let id = id(process);
            match (has(false) || commands == id, has(true) || ours == id) {
                (true, false) => Some(false),
                (false, true) => Some(true),
                (_, _) => None,
            }
        };
        side(self.group.unwrap_or(group), group, |process| process.group)
            .or_else(|| side(session, session, |process| process.session))
            .unwrap_or(bystander_exited)
    }

    /// A child of bowout that /proc does not show, as under `hidepid` (proc(5)). Its number is its
    /// own until bowout reaps it: it needs no other identity.
    pub(super) fn hidden(&self, pid: libc::pid_t) -> Process {
        Process::unread(pid, self.us, self.kernel.ids(pid))
    }

    /// Finds bowout's living children where /proc lists none: asks waitid(2) for every PID, which
    /// takes up to a second.
    pub(super) fn ask_every_pid(&mut self, mut found: impl FnMut(&mut Self, libc::pid_t)) {
        // Most have a number soon after bowout's.
        for (tried, pid) in (self.us + 1..PID_LIMIT).chain(1..self.us).enumerate() {
            if self.is_alive(pid) {
                found(self, pid);
            }
            if tried % PIDS_AT_ONCE == PIDS_AT_ONCE - 1 && self.all_exited() {
                break;
            }
        }
    }

    pub(super) fn own_children(&self) -> Option<Vec<libc::pid_t>> {
        self.kernel.children(self.us, 1)
    }

    /// True if this is a child of bowout that lives. Bowout's own helper, which closes descriptors,
    /// is not: waitid(2) does not know it (clone(2), no exit signal).
    pub(super) fn is_alive(&self, pid: libc::pid_t) -> bool {
        let report = self.kernel.look(Some(pid), Ask::Exit);
        !matches!(report, Report::Exited(_) | Report::NoChild)
    }

    /// True if bowout has no living child: the usual end. To look into /proc would make files there
    /// for bowout, and take them down at its exit.
    pub(super) fn all_exited(&self) -> bool {
        self.kernel.look(None, Ask::Living) == Report::NoChild
    }
}

/// True if there is memory for a look at so many processes. A failed allocation later would abort
/// bowout (`handle_alloc_error`), and leave the descendants unsupervised.
fn has_room(processes: usize) -> bool {
    Vec::<u8>::new()
        .try_reserve_exact(processes.saturating_mul(ROOM))
        .is_ok()
}
