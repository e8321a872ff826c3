//! When two worlds count as one: the key that they are compared by, and the fields that are dropped
//! because no later step reads them.

use std::hash::{Hash, Hasher};

use super::model::{BURST, CLIMB};
use super::*;

impl World {
    /// Drops the fields that no later step reads: no arm of the phase that is reached does.
    pub(in super::super) fn forget(&mut self) {
        let stage = self.stage();
        let (machine, model) = (&mut self.machine, &mut self.model);
        if !matches!(stage, Stage::Preparing(_)) {
            (machine.grace, machine.begun_by) = (None, None);
            (model.prepared, model.begun_by, model.by_eof) = Default::default();
            model.by_silence = false;
        }
        match stage {
            Stage::Running => {}
            Stage::Preparing(_) | Stage::Rung(_) => {
                // While a prompt can cancel the stop, these limits can count again.
                if machine.watch.is_none() {
                    (machine.runs_until, model.runs_until) = (None, None);
                    (machine.ready_until, model.ready_by) = (None, None);
                    (machine.alive_until, model.silent_until) = (None, None);
                }
                machine.waiting.sort_unstable_by_key(|pending| {
                    (pending.signal.number(), pending.value, pending.group_has)
                });
                model
                    .waiting
                    .sort_unstable_by_key(|(signal, value, had)| (signal.number(), *value, *had));
            }
            Stage::Draining | Stage::Killing | Stage::Done(_) => {
                (machine.runs_until, model.runs_until) = (None, None);
                (machine.ready_until, model.ready_by) = (None, None);
                (machine.alive_until, model.silent_until) = (None, None);
                let killed = machine.sent.contains(Signal::KILL);
                machine.sent = if killed && stage == Stage::Draining {
                    SignalSet::of(&[Signal::KILL])
                } else {
                    SignalSet::default()
                };
                machine.forwarded = SignalSet::default();
                (model.sent, model.brought) = Default::default();
                machine.waiting.clear();
                model.waiting.clear();
                (machine.halted, machine.group_stop) = (None, None);
                (model.terminal.halted, model.terminal.group) = (None, None);
                self.next_hook = 0;
                (machine.pre_kill, model.evidence) = (0, 0);
                // The drain has asked every descendant by SIGTERM.
                self.stopped_by = SignalSet::of(&[Signal::TERM]);
                self.asked_all = true;
                if stage != Stage::Draining {
                    (machine.tree_asked, model.tree, model.child_killed) = Default::default();
                }
            }
        }
        if stage != Stage::Draining {
            (self.exited, self.last_second) = (None, None);
        }
        if matches!(stage, Stage::Killing | Stage::Done(_)) {
            // Of the beginning of the stop, only its existence counts, and only where a tick
            // notifies the manager again.
            let begun = machine.tick.and(machine.begun).map(|_| self.now);
            (machine.begun, model.begun) = (begun, begun);
            (machine.asked, model.asked, model.rung_over) = Default::default();
            (self.since, self.requested, self.late, self.extended) = Default::default();
        } else {
            (model.again, model.gives_up) = (None, None);
        }
        if let Stage::Done(_) = stage {
            (machine.until, machine.fewest, machine.timed_out) = Default::default();
            (machine.ended, model.exited) = Default::default();
            (model.again, model.gives_up, model.fewest, model.timed_out) = Default::default();
            (self.child, self.none_left, self.killed, self.killed_all) = Default::default();
            (self.hook, self.hook_ended) = Default::default();
            (machine.hook_lives, machine.hook_runs) = (false, false);
            (model.hook, model.hook_killed) = (false, false);
        }
    }

    /// Everything that later steps can depend on, with times relative to now. Only the exact age of
    /// a request is left out, once it is too old to be in one burst with the next: the machine and
    /// the model do not read it.
    pub(in super::super) fn key(&self) -> Key {
        let Self {
            machine,
            model,
            now,
            child,
            none_left,
            suspended,
            hook,
            hook_ended,
            next_hook,
            since,
            requested,
            late,
            extended,
            stopped_by,
            asked_all,
            killed,
            killed_all,
            exited,
            last_second,
        } = self;
        let mut key = Key {
            now: *now,
            numbers: Vec::with_capacity(96),
        };
        key.machine(machine);
        key.model(model);
        key.switches([
            *none_left,
            *hook,
            *hook_ended,
            *extended,
            *asked_all,
            *killed,
            *killed_all,
        ]);
        key.push(*next_hook as i64);
        key.push(micros(*late));
        key.push(stopped_by.bits() as i64);
        key.exit(*child);
        key.times([*suspended, *since, *requested, *exited, *last_second]);
        key
    }
}

/// The key of a world: two worlds with the same key cannot be distinguished by any later event.
#[derive(Clone, Debug)]
pub(in super::super) struct Key {
    now: Instant,
    numbers: Vec<i64>,
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.numbers == other.numbers
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Hashes one number in place of each of them, to save time in a debug build.
        let mix = |sum: u64, number: &i64| {
            (sum.rotate_left(5) ^ *number as u64).wrapping_mul(0x517c_c1b7_2722_0a95)
        };
        self.numbers.iter().fold(0, mix).hash(state);
    }
}

impl Key {
    fn push(&mut self, number: i64) {
        self.numbers.push(number);
    }

    /// The times relative to now, in microseconds.
    fn times(&mut self, times: impl IntoIterator<Item = Option<Instant>>) {
        for time in times {
            self.push(match time {
                None => i64::MAX,
                Some(time) if time >= self.now => micros(time - self.now),
                Some(time) => -micros(self.now - time),
            });
        }
    }

    fn switches<const N: usize>(&mut self, switches: [bool; N]) {
        let bits = |bits, on| bits << 1 | i64::from(on);
        self.push(switches.into_iter().fold(0, bits));
    }

    fn signals<const N: usize>(&mut self, signals: [Option<Signal>; N]) {
        for signal in signals {
            self.push(signal.map_or(0, |signal| i64::from(signal.number())));
        }
    }

    /// Of the last request of a side, the key holds only whether it is at least [`CLIMB`] old. The
    /// walk's other steps are far shorter or longer.
    fn asked(&mut self, asked: Option<(Instant, Instant, SignalSet)>) {
        let Some((first, last, signals)) = asked else {
            return self.push(-1);
        };
        let burst = self.now.checked_sub(BURST);
        self.times([Some(burst.map_or(first, |burst| first.max(burst)))]);
        self.push(signals.bits() as i64);
        self.push(i64::from(self.now - last >= CLIMB));
    }

    fn push_signal(&mut self, signal: Signal, value: Option<u64>, had: bool) {
        self.push(i64::from(signal.number()));
        self.push(value.map_or(-1, |value| value as i64));
        self.push(i64::from(had));
    }

    fn exit(&mut self, exit: Option<Exit>) {
        self.push(match exit {
            None => -1,
            Some(Exit::Code(code)) => i64::from(code),
            Some(Exit::Signal(signal)) => 1000 + i64::from(signal.number()),
        });
    }

    /// Every field of the machine, by name: a new field is a compile error until it is added here.
    fn machine(&mut self, machine: &Machine) {
        let Machine {
            settings: _,
            place: _,
            phase,
            ended,
            until,
            grace,
            runs_until,
            ready_until,
            alive_until,
            is_ready,
            begun,
            begun_by,
            tick,
            asked,
            sent,
            forwarded,
            hook_lives,
            hook_runs,
            pre_kill,
            waiting,
            tree_asked,
            put_off,
            fewest,
            timed_out,
            paused,
            halted,
            group_stop,
            watch,
            // It is empty between two events.
            step: _,
        } = machine;
        let (kind, index, again, exit) = match *phase {
            Phase::Running => (0, None, None, None),
            Phase::Preparing { hook } => (1, hook, None, None),
            Phase::Stopping { rung } => (2, Some(rung), None, None),
            Phase::Killing { again } => (3, None, Some(again), None),
            Phase::Done(exit) => (4, None, None, Some(exit)),
        };
        self.push(kind);
        self.push(index.map_or(-1, |index| index as i64));
        self.exit(exit);
        self.exit(*ended);
        // The machine compares it with `until`, and with nothing else.
        self.push(i64::from(put_off.is_some() && put_off == until));
        self.times([again, *until, *grace, *runs_until, *begun, *tick]);
        self.times([*ready_until, *alive_until]);
        for asked in asked {
            self.asked(asked.map(|asked| (asked.first, asked.last, asked.signals)));
        }
        for set in [sent, forwarded] {
            self.push(set.bits() as i64);
        }
        self.push(fewest.map_or(-1, |fewest| fewest as i64));
        self.push(*pre_kill as i64);
        self.switches([*timed_out, *hook_lives, *hook_runs, *is_ready]);
        let stopped = paused.map(|(_, signal)| signal);
        let signal = begun_by.and_then(|by| match by {
            Cause::Signal(signal) => Some(signal),
            _ => None,
        });
        self.push(i64::from(*begun_by == Some(Cause::Eof)));
        self.push(i64::from(*begun_by == Some(Cause::Watchdog)));
        self.signals([signal, *tree_asked, stopped, *halted, *group_stop]);
        self.times([
            paused.map(|(since, _)| since),
            watch.map(|watch| watch.next),
            watch.and_then(|watch| watch.prepares),
        ]);
        self.push(waiting.len() as i64);
        for pending in waiting {
            self.push_signal(pending.signal, pending.value, pending.group_has);
        }
    }

    /// Every field of the model, by name, for the same reason.
    fn model(&mut self, model: &Model) {
        let Model {
            given: _,
            // Compared with the machine's after each event.
            stage: _,
            exited: _,
            timed_out,
            runs_until,
            ready_by,
            silent_until,
            is_ready,
            by_silence,
            begun,
            begun_by,
            by_eof,
            asked,
            prepared,
            rung_over,
            put_off,
            sent,
            brought,
            waiting,
            // A difference from the machine's shows in the actions.
            hook: _,
            hook_killed: _,
            evidence: _,
            tree,
            child_killed,
            again,
            gives_up,
            fewest,
            tick,
            terminal,
            actions: _,
            // Of the present event alone.
            hurried: _,
        } = model;
        let Terminal {
            halted,
            group,
            paused,
            ctrl_c,
            looking,
        } = terminal;
        let waits = if again.is_some() { gives_up } else { rung_over };
        let put_off = put_off.is_some() && put_off == waits;
        self.switches([
            *timed_out,
            put_off,
            *child_killed,
            *looking,
            *by_eof,
            *is_ready,
            *by_silence,
        ]);
        self.times([*ready_by, *silent_until]);
        self.times([
            *runs_until,
            *begun,
            *prepared,
            *rung_over,
            *again,
            *gives_up,
        ]);
        for asked in asked {
            self.asked(asked.map(|asked| (asked.first, asked.last, asked.signals)));
        }
        for set in [sent, brought] {
            self.push(set.bits() as i64);
        }
        self.push(fewest.map_or(-1, |fewest| fewest as i64));
        let stopped = paused.map(|(_, signal)| signal);
        self.signals([*begun_by, *tree, stopped, *halted, *group]);
        self.times([
            *tick,
            paused.map(|(since, _)| since),
            ctrl_c.map(|ctrl_c| ctrl_c.next),
            ctrl_c.and_then(|ctrl_c| ctrl_c.prepares),
        ]);
        self.push(waiting.len() as i64);
        for (signal, value, had) in waiting {
            self.push_signal(*signal, *value, *had);
        }
    }
}

/// Without the 128 bits of `as_micros()`, which cost a debug build a quarter of the walk's time.
fn micros(time: Duration) -> i64 {
    time.as_secs() as i64 * 1_000_000 + i64::from(time.subsec_micros())
}
