//! When two worlds are one: what they are compared by, and what is dropped because nothing can read
//! it any more.

use std::hash::{Hash, Hasher};

use super::*;

impl World {
    /// Drops what nothing that follows can read: no arm of the state that is reached does.
    pub(in super::super) fn forget(&mut self) {
        let state = self.machine.state();
        let machine = &mut self.machine;
        match state {
            State::Running { .. } => {}
            State::Preparing { .. } | State::Stopping { .. } => {
                // A stop that is cancelled leaves the run time.
                if machine.watch.is_none() {
                    (machine.runs_until, self.runs_until) = (None, None);
                }
                machine.waiting.sort_unstable_by_key(|pending| {
                    (pending.signal.number(), pending.value, pending.group_has)
                });
            }
            State::Draining { .. } | State::Killing { .. } | State::Done(_) => {
                (machine.runs_until, self.runs_until) = (None, None);
                (
                    machine.sent,
                    machine.forwarded,
                    machine.told,
                    self.stopped_by,
                    self.told_all,
                ) = Default::default();
                machine.waiting.clear();
                (machine.halted, machine.group_stop) = (None, None);
                self.terminal.forget_stops();
                self.next_hook = 0;
            }
        }
        if !matches!(state, State::Draining { .. }) {
            self.exited = None;
        }
        if !machine.last_second {
            self.last_second = None;
        }

        if matches!(state, State::Killing { .. }) && !machine.last_second
            || matches!(state, State::Done(_))
        {
            (machine.begun, machine.asked) = Default::default();
            (
                self.asked,
                self.since,
                self.requested,
                self.late,
                self.extended,
            ) = Default::default();
        }
        if matches!(state, State::Done(_)) {
            (machine.last_second, self.last_second) = Default::default();
            (machine.renew, machine.timed_out, self.timed_out) = Default::default();
            (self.child, self.nobody_left, self.killed) = Default::default();
            (self.hook, self.hook_ended) = Default::default();
        }
    }

    /// All that what follows can depend on, with times as they lie from now. Nothing is left out
    /// but the age of a request once it is too old to be of one burst with the next: the machine
    /// and the monitor ask no more of it.
    pub(in super::super) fn key(&self) -> Key {
        let Self {
            machine,
            now,
            child,
            nobody_left,
            suspended,
            hook,
            hook_ended,
            next_hook,
            ..
        } = self;
        let Self {
            asked,
            since,
            late,
            extended,
            runs_until,
            timed_out,
            stopped_by,
            told_all,
            killed,
            over,
            ..
        } = self;
        let Self {
            exited,
            requested,
            last_second,
            killed_all,
            ..
        } = self;
        let mut key = Key {
            now: *now,
            numbers: Vec::with_capacity(48),
        };
        key.machine(machine);
        let switches = [
            *nobody_left,
            *hook,
            *hook_ended,
            *extended,
            *timed_out,
            *told_all,
            *killed,
            *killed_all,
            *over,
        ];
        key.push(
            switches
                .iter()
                .fold(0, |bits, &on| bits << 1 | i64::from(on)),
        );
        key.push(*next_hook as i64);
        key.push(late.as_micros() as i64);
        key.push(stopped_by.bits() as i64);
        key.exit(*child);
        key.times([
            *suspended,
            *since,
            *requested,
            *runs_until,
            *exited,
            *last_second,
        ]);
        key.asked(asked);
        let (numbers, times) = self.terminal.numbers();
        key.numbers.extend(numbers);
        key.times(times);
        key
    }
}

/// What two worlds have in common that cannot be told apart by anything that follows.
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
        // One number to hash in the place of forty, for the sake of a debug build.
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

    /// As they lie from now, in microseconds.
    fn times(&mut self, times: impl IntoIterator<Item = Option<Instant>>) {
        for time in times {
            self.push(match time {
                None => i64::MAX,
                Some(time) if time >= self.now => micros(time - self.now),
                Some(time) => -micros(self.now - time),
            });
        }
    }

    /// Of the last request of a side it counts alone whether it is [`CLIMB`] old; the walk's other
    /// steps are far shorter or longer.
    fn asked(&mut self, asked: &[Option<Asked>; Side::COUNT]) {
        let burst = self.now.checked_sub(BURST);
        let first = |asked: Asked| burst.map_or(asked.first, |burst| asked.first.max(burst));
        self.times(asked.map(|asked| asked.map(first)));
        for side in asked {
            let old = side.is_some_and(|asked| self.now - asked.last >= CLIMB);
            self.push(side.map_or(0, |asked| asked.signals.bits() as i64) << 1 | i64::from(old));
        }
    }

    fn exit(&mut self, exit: Option<Exit>) {
        self.push(match exit {
            None => -1,
            Some(Exit::Code(code)) => i64::from(code),
            Some(Exit::Signal(signal)) => 1000 + i64::from(signal.number()),
        });
    }

    /// Every field of the machine, by name, so that a new one does not compile until it is here.
    fn machine(&mut self, machine: &Machine) {
        let Machine {
            settings: _,
            state,
            runs_until,
            begun,
            renew,
            asked,
            sent,
            waiting,
            told,
            last_second,
            put_off,
            forwarded,
            fewest,
            timed_out,
            paused,
            halted,
            group_stop,
            watch,
        } = machine;
        self.state(*state);
        // It is compared with the deadline that is armed, and with nothing else.
        self.push(i64::from(
            put_off.is_some() && *put_off == machine.next_step(),
        ));
        self.times([*runs_until, *begun, *renew, paused.map(|(since, _)| since)]);
        self.asked(asked);
        self.push(sent.bits() as i64);
        self.push(forwarded.bits() as i64);
        self.push(fewest.map_or(-1, |fewest| fewest as i64));
        self.push(i64::from(*last_second) << 2 | i64::from(*told) << 1 | i64::from(*timed_out));
        for signal in [paused.map(|(_, signal)| signal), *halted, *group_stop] {
            self.push(signal.map_or(0, |signal| i64::from(signal.number())));
        }
        self.times([
            watch.map(|watch| watch.next),
            watch.and_then(|watch| watch.prepares),
        ]);
        self.push(waiting.len() as i64);
        for Pending {
            signal,
            value,
            group_has,
        } in waiting
        {
            self.push(i64::from(signal.number()));
            self.push(value.map_or(-1, |value| value as i64));
            self.push(i64::from(*group_has));
        }
    }

    fn state(&mut self, state: State) {
        let (kind, index, times, ended) = match state {
            State::Running { ended } => (0, None, [None; 2], ended),
            State::Preparing {
                hook,
                until,
                grace,
                ended,
            } => (1, hook, [until, grace], ended),
            State::Stopping { rung, until, ended } => (2, Some(rung), [until, None], ended),
            State::Draining { exit, until } => (3, None, [until, None], Some(exit)),
            State::Killing {
                ended,
                again,
                until,
            } => (4, None, [Some(again), Some(until)], ended),
            State::Done(exit) => (5, None, [None; 2], Some(exit)),
        };
        self.push(kind);
        self.push(index.map_or(-1, |index| index as i64));
        self.times(times);
        self.exit(ended);
    }
}

/// Without the 128 bits of as_micros(), which take a debug build a quarter of the walk.
fn micros(time: Duration) -> i64 {
    time.as_secs() as i64 * 1_000_000 + i64::from(time.subsec_micros())
}
