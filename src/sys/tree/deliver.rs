//! Signals the tree.

use std::collections::BTreeSet;
use std::io;

use nix::errno::Errno;
use nix::unistd::Pid;

use super::{Tally, Tree};
use crate::signal::{Signal, Target};
use crate::sys::kernel::{Kernel, To};
use crate::sys::proc::Process;

/// How many passes SIGKILL makes at the most: each finds the processes that were forked during the
/// one before.
const PASSES: usize = 16;

impl Tally {
    fn add(&mut self, other: Self) {
        self.reached.extend(other.reached);
        self.refused.extend(other.refused);
    }
}

/// A signal, and the value that it is queued with.
#[derive(Clone, Copy, Debug)]
struct Order {
    signal: Signal,
    value: Option<u64>,
}

impl<K: Kernel> Tree<K> {
    /// Sends `signal` to the living processes of the target. SIGKILL goes on until a pass finds no
    /// new process.
    pub(crate) fn signal(&mut self, signal: Signal, value: Option<u64>, to: Target) -> Tally {
        let order = Order { signal, value };
        match to {
            Target::Child => self.signal_child(order),
            Target::Group => self.signal_group(order),
            _ => self.signal_all(
                Order {
                    value: None,
                    ..order
                },
                to,
            ),
        }
    }

    /// SIGCONT to each process that a signal has reached and that is stopped, or whose state cannot
    /// be read; to the whole namespace where the signal was sent to all of it.
    pub(crate) fn wake_reached(&self, tally: &Tally) {
        if tally.everything {
            let _ = self.kernel.send(To::Everything, Signal::CONT, None);
        } else {
            tally.reached.iter().for_each(|process| self.wake(process));
        }
    }

    fn signal_child(&mut self, order: Order) -> Tally {
        if self.child.is_some() {
            return self.deliver(vec![self.unread_child()], false, order);
        }
        Tally {
            refused: vec![(self.unread_child(), Errno::ESRCH.into())],
            ..Tally::default()
        }
    }

    fn unread_child(&self) -> Process {
        Process::unread(self.child.unwrap_or_default(), self.us, None)
    }

    /// Signals the child's process group: by its number where the child leads it. A group that
    /// bowout shares is signalled member by member: its number would mean bowout, and the processes
    /// that share it, too.
    fn signal_group(&mut self, order: Order) -> Tally {
        let group = self.child_group().map(Pid::as_raw);
        // A kernel before 6.9 sends no value to a group: it goes to the child alone.
        if let Some(group) = group.filter(|&group| self.is_child(group))
            && self
                .kernel
                .send(To::Group(group), order.signal, order.value)
                .is_ok()
        {
            let members = self
                .known
                .values_mut()
                .filter(|known| known.process.group == group);
            members.for_each(|known| known.sent = known.sent.with(order.signal));
            return Tally {
                reached: vec![self.unread_child()],
                ..Tally::default()
            };
        }
        let tally = self.signal_child(order);
        let mut others = self.find().unwrap_or_default();
        others.retain(|process| Some(process.group) == group && !self.is_child(process.pid));
        // A member that bowout may not signal is passed over, as by kill(2) to a group.
        self.deliver(
            others,
            false,
            Order {
                value: None,
                ..order
            },
        );
        tally
    }

    fn signal_all(&mut self, order: Order, to: Target) -> Tally {
        let kills = order.signal == Signal::KILL;
        let again = self.killed;
        self.killed |= kills;
        let (mut tally, mut met, mut left) = (Tally::default(), BTreeSet::new(), false);
        for _ in 0..if kills { PASSES } else { 1 } {
            let found = match kills {
                true if self.all_exited() => {
                    left = false;
                    break;
                }
                true => self.pass(),
                false => self.find(),
            };
            let Some(mut found) = found else {
                return self.signal_without_proc(order, to);
            };
            self.note_received(&found, order.signal, to);
            let is_wanted = |process: &Process| self.is_wanted(process, order.signal, to);
            // One call signals the whole group: not where it has a member that is to be left out.
            let whole = found.iter().all(|process| {
                Some(process.group) != self.group
                    || is_wanted(process)
                    || (self.known.get(&process.pid))
                        .is_some_and(|known| known.was_sent(Signal::KILL))
            });
            found
                .retain(|process| is_wanted(process) && met.insert((process.pid, process.started)));
            left = !found.is_empty();
            tally.add(self.deliver(found, whole, order));
            if kills {
                self.kill_children();
            }
            if !left {
                break;
            }
        }
        // A process that outlives a pass may fork faster than bowout finds its children. The only
        // other processes of the namespace are the sessions of `docker exec`, which end with PID 1.
        let stubborn = kills && (left || again && !tally.reached.is_empty());
        if stubborn && self.us == 1 && self.hook.is_none() && !self.has_bystanders() {
            // Without effect where PID 1 is the whole system's.
            let _ = self.kernel.send(To::Everything, order.signal, None);
        }
        tally
    }

    /// Notes that the members of bowout's own group received the signal without bowout, which
    /// signals the others: a later look must not send it to them again.
    fn note_received(&mut self, found: &[Process], signal: Signal, to: Target) {
        if to != Target::Others {
            return;
        }
        let group = self.kernel.ids(self.us).map(|ids| ids.0);
        let members = found.iter().filter(|it| Some(it.group) == group);
        for member in members {
            if let Some(known) = self.known.get_mut(&member.pid) {
                known.sent = known.sent.with(signal);
            }
        }
    }

    /// True if a process of the tree belongs to the target.
    fn is_wanted(&self, process: &Process, signal: Signal, to: Target) -> bool {
        let known = self.known.get(&process.pid);
        let asked = known.is_some_and(|known| known.was_sent(signal));
        Some(process.group) != self.hook
            && match to {
                Target::All | Target::Child | Target::Group => true,
                Target::Others => (self.kernel.ids(self.us)).is_none_or(|us| us.0 != process.group),
                Target::Unasked => !asked,
                Target::NewChildren => !asked && process.parent == self.us,
            }
    }

    /// Signals these processes; with `whole`, those of the child's own group by one kill(2), which
    /// a fork inside the group cannot escape: fork(2) fails with a signal pending.
    fn deliver(&mut self, processes: Vec<Process>, whole: bool, order: Order) -> Tally {
        let is_member = |process: &Process| Some(process.group) == self.group;
        // SIGKILL without a known member, too: its members may fork and exit repeatedly.
        let by_call = whole
            && (order.signal == Signal::KILL || processes.iter().any(is_member))
            && match (self.group, self.child, &self.pin) {
                (Some(group), Some(_), _) => Some(To::Group(group)),
                (_, None, Some(pin)) => Some(To::PinnedGroup(pin)),
                (_, _, _) => None,
            }
            .is_some_and(|group| self.kernel.send(group, order.signal, None).is_ok());
        let mut tally = Tally::default();
        for process in processes {
            let by_call = by_call && Some(process.group) == self.group;
            if let Some(known) = self.known.get_mut(&process.pid) {
                known.sent = known.sent.with(order.signal);
            }
            // kill(2) succeeds with one member that may be signalled. This one may have left the
            // group since the look, or refuse.
            let has_it = by_call
                && (self.kernel.ids(process.pid)).is_some_and(|ids| ids.0 == process.group)
                && self.kernel.may_signal(process.pid);
            let sent = if has_it {
                Ok(())
            } else {
                self.send(&process, order.signal, order.value)
            };
            match sent {
                Ok(()) => tally.reached.push(process),
                // It died of the signal to its group and was reaped, or exited by itself. The child
                // cannot have been reaped.
                Err(error)
                    if error.raw_os_error() == Some(libc::ESRCH)
                        && self.child != Some(process.pid) =>
                {
                    tally.reached.extend(by_call.then_some(process));
                }
                Err(error) => tally.refused.push((process, error)),
            }
        }
        tally
    }

    /// Signals one process that a pass found.
    fn send(&self, process: &Process, signal: Signal, value: Option<u64>) -> io::Result<()> {
        if process.parent == self.us {
            return self.kernel.send(To::Process(process.pid), signal, value);
        }
        // Where it cannot be pinned (a kernel before 5.3, a filter, no descriptor left), its number
        // is used at once after the second look.
        let pin = match self.kernel.pin(process.pid) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Err(error),
            pin => pin.ok(),
        };
        let now = self.kernel.stat(process.pid);
        if now.is_none_or(|now| now.started != process.started) {
            return Err(Errno::ESRCH.into());
        }
        let to = pin.as_ref().map_or(To::Process(process.pid), To::Pinned);
        self.kernel.send(to, signal, value)
    }

    /// SIGCONT to a process that is stopped, or whose state cannot be read: it acts on the signal
    /// that was sent before. Any other process sees no SIGCONT.
    fn wake(&self, process: &Process) {
        let now = self.kernel.stat(process.pid);
        // The first thread can exit before the others: its state is not theirs.
        if now.is_none_or(|now| now.state == 'T' || now.state == 'Z' && !now.is_dead()) {
            // It can have exited of the signal.
            let _ = self.send(process, Signal::CONT, None);
        }
    }

    /// SIGCONT to each stopped process in the child's process group; to all of it without /proc.
    /// Returns whether the child was there.
    pub(crate) fn wake_group(&mut self) -> bool {
        let Some((group, child)) = self.child_group().map(Pid::as_raw).zip(self.child) else {
            return false;
        };
        let to = match self.find() {
            Some(found) => {
                let members = found.iter().filter(|process| process.group == group);
                members.for_each(|process| self.wake(process));
                return true;
            }
            None if group == child => To::Group(group),
            None => To::Process(child),
        };
        self.kernel.send(to, Signal::CONT, None).is_ok()
    }

    /// SIGKILL to bowout's own children, as fast as possible. A process that forks its successor
    /// and exits, over and over, has exited by the time that a pass signals it; the successor is
    /// bowout's child from then on. Not counted: zombies are among them, and each leads to its
    /// group.
    fn kill_children(&self) {
        let sure = !self.has_bystanders();
        let (_, session) = self.kernel.ids(self.us).unwrap_or_default();
        let (mut killed, mut groups) = (BTreeSet::new(), BTreeSet::new());
        for _ in 0..PASSES {
            let before = killed.len();
            for pid in self.own_children().unwrap_or_default() {
                let member = self.known.get(&pid).map_or(sure, |known| !known.bystander);
                let ids = self.kernel.ids(pid).unwrap_or_default();
                if !member || Some(ids.0) == self.hook || !killed.insert(pid) {
                    continue;
                }
                // A process that forks and exits can be a step ahead of a signal to one process,
                // and never of one to its group. Until bowout reaps the exited child, no other
                // group has the number. All members of a group are in one session (setpgid(2)),
                // which a descendant began if it is not bowout's.
                let to = if self.is_alive(pid) {
                    To::Process(pid)
                } else if ids.0 > 1 && ids.1 != session && groups.insert(ids.0) {
                    To::Group(ids.0)
                } else {
                    continue;
                };
                // The pass logs a refusal.
                let _ = self.kernel.send(to, Signal::KILL, None);
            }
            if killed.len() == before {
                break;
            }
        }
    }

    /// Signals every process of the namespace as PID 1, else bowout's present children.
    fn signal_without_proc(&mut self, order: Order, to: Target) -> Tally {
        let mut tally = Tally::default();
        if self.us == 1 && !self.has_bystanders() {
            if to == Target::All || !self.sent_to_all.contains(order.signal) {
                // Not a proof that it reached all of them: kill(2) hides EPERM here.
                let sent = self.kernel.send(To::Everything, order.signal, None);
                tally
                    .reached
                    .extend(sent.ok().map(|()| self.unread_child()));
                tally.everything = true;
            }
            self.sent_to_all = self.sent_to_all.with(order.signal);
            return tally;
        }
        let mut signal_one = |tree: &mut Self, pid| {
            let mut found = tree.remember(vec![tree.hidden(pid)]);
            tree.note_received(&found, order.signal, to);
            found.retain(|process| tree.is_wanted(process, order.signal, to));
            tally.add(tree.deliver(found, false, order));
        };
        if let Some(own) = self.own_children() {
            for pid in own {
                if self.is_alive(pid) {
                    signal_one(self, pid);
                }
            }
            return tally;
        }
        self.ask_every_pid(signal_one);
        tally
    }
}
