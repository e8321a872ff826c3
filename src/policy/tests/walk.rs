//! Every sequence of events up to a length, in every variant of the settings, checked against the
//! invariants.
//!
//! The table has at least 36 events, and some can happen at two times: 36^8 sequences are too many
//! to try one by one. So worlds that no later event can distinguish count as one, and the walk goes
//! on from each once. That loses nothing:
//!
//! - A key ([`World::key`]) holds every field of the machine, of the model and of the world, with
//!   times relative to now. The machine's only inputs are the event and the time, and it only
//!   compares and adds times. So two worlds with one key have the same future, and every check of
//!   it has the same result.
//! - The key leaves out the age of a request that is too old for a burst, and the order of the
//!   signals that wait to be sent together. It also leaves out the fields that [`World::forget`]
//!   drops because the state that is reached never reads them. A test checks this:
//!   `a_forgotten_fact_is_not_missed` takes each event with these fields and without them, and
//!   compares the actions and the worlds after it.
//! - The walk is breadth-first. It first reaches a world on one of the shortest ways, and so with
//!   the most length left. A sequence that reaches the world later has less length left.
//! - Where the walk stops, [`World::ends`] checks that the world can still end. The earlier worlds
//!   lead there by the events that the walk takes.
//!
//! Time moves where the machine depends on it. A side that has sent a request sends another in the
//! same burst and after it. A pause of the job and a pass of SIGKILL take time. The child exits
//! before the end of the stage and at it. A deadline is noticed at its time, or late.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::table::{events, variants};
use super::world::World;
use super::world::key::Key;
use super::world::model::{BURST, CLIMB};
use super::*;

/// How many events a sequence has.
const LENGTH: usize = 8;
/// How many events it has where no field is forgotten.
const SHORT: usize = 4;

/// All worlds of one variant that the walk has reached.
struct Walk {
    worlds: HashMap<Key, usize>,
    /// The way to each world: the number of the world before it, and the event there.
    ways: Vec<(usize, Option<(Instant, Event)>)>,
    events: Vec<Event>,
    /// How many events were taken.
    taken: usize,
    by: HashMap<String, usize>,
}

/// The times at which an event can happen.
fn times(world: &World, event: Event) -> [Option<Instant>; 2] {
    let (now, later) = (world.now, world.now + BURST);
    let deadline = world.machine.deadline().map(|deadline| deadline.max(later));
    // A tick or a look can be due before the end of the stage.
    let over = world.model.stage_over().map(|over| over.max(later));
    match event {
        Event::Signal(received) if world.model.asks(received) && world.has_asked(received.side) => {
            [
                Some(now),
                Some(if world.has_sent(received) {
                    later
                } else {
                    now + CLIMB
                }),
            ]
        }
        Event::ChildExited(_) => [Some(now), over],
        Event::Resumed {
            suspended: true, ..
        }
        | Event::Killed { .. } => [Some(later), None],
        Event::Timeout => {
            let due = deadline.filter(|_| !world.ticks_again());
            [due, over.filter(|_| over != due)]
        }
        Event::Signal(_)
        | Event::Stop(_)
        | Event::Ready
        | Event::Alive
        | Event::HookExited
        | Event::ExtendGrace(_)
        | Event::ChildStopped { .. }
        | Event::TerminalSeen { .. }
        | Event::Resumed {
            suspended: false, ..
        }
        | Event::Reaped
        | Event::NoneLeft { .. } => [Some(now), None],
    }
}

/// The events that can happen next, each with its time.
fn possible(world: &World, events: &[Event]) -> Vec<(Instant, Event)> {
    let possible = events.iter().filter(|event| world.is_possible(**event));
    possible
        .flat_map(|&event| {
            times(world, event)
                .into_iter()
                .flatten()
                .map(move |now| (now, event))
        })
        .collect()
}

/// True if the event is a signal that leaves the world as it is: it is not a stop request, and job
/// control does not remember it.
fn asks_for_nothing(world: &World, event: Event) -> bool {
    let job_control = SignalSet::of(&[Signal::TSTP, Signal::TTIN, Signal::TTOU, Signal::CONT]);
    let Event::Signal(received) = event else {
        return false;
    };
    let kept = world.machine.place.job_control && job_control.contains(received.signal);
    !kept && !world.model.asks(received)
}

impl Walk {
    fn through(given: &Given) -> Self {
        let events = events(given).into_iter().map(|(_, event)| event).collect();
        let start = World::new(given);
        let worlds = HashMap::from([(start.key(), 0)]);
        let mut walk = Self {
            worlds,
            ways: vec![(0, None)],
            events,
            taken: 0,
            by: HashMap::new(),
        };
        let mut edge = vec![(0, start)];
        for _ in 0..LENGTH {
            let mut beyond = vec![];
            for (number, world) in &edge {
                walk.on(*number, world, &mut beyond);
            }
            edge = beyond;
        }
        for (number, world) in edge {
            walk.holds(number, None, || world.ends());
        }
        walk
    }

    /// Walks on from one world, and adds to `beyond` each world that is one event further and was
    /// not reached before.
    fn on(&mut self, number: usize, world: &World, beyond: &mut Vec<(usize, World)>) {
        // One copy serves all events that leave the world as it is.
        let mut same = world.clone();
        for (now, event) in possible(world, &self.events) {
            self.taken += 1;
            if asks_for_nothing(world, event) {
                self.holds(number, Some((now, event)), || same.take(now, event));
                continue;
            }
            let mut after = world.clone();
            self.holds(number, Some((now, event)), || after.take(now, event));
            after.forget();
            let next = self.ways.len();
            if *self.worlds.entry(after.key()).or_insert(next) == next {
                self.ways.push((number, Some((now, event))));
                *self
                    .by
                    .entry(
                        format!("{:?}", after.model.stage)
                            .split('(')
                            .next()
                            .unwrap()
                            .to_owned(),
                    )
                    .or_insert(0usize) += 1;
                beyond.push((next, after));
            }
        }
        self.holds(number, None, || {
            assert_eq!(
                same.key(),
                world.key(),
                "what asks for nothing changes something"
            );
        });
    }

    /// Runs a check. If it fails, panics with the events that led there.
    fn holds<T>(
        &self,
        mut number: usize,
        last: Option<(Instant, Event)>,
        check: impl FnOnce() -> T,
    ) {
        if catch_unwind(AssertUnwindSafe(check)).is_ok() {
            return;
        }
        let mut way: Vec<_> = last.into_iter().collect();
        while let (before, Some(event)) = self.ways[number] {
            way.push(event);
            number = before;
        }
        let way: Vec<_> = way
            .iter()
            .rev()
            .map(|(time, event)| format!("at {}: {event:?}", millis(*time)))
            .collect();
        panic!("after\n{}", way.join("\n"));
    }
}

/// Walks through the variants whose number leaves this remainder after division by 2, so that two
/// tests share the work.
fn walk(remainder: usize) {
    for (_, (name, given)) in variants()
        .into_iter()
        .enumerate()
        .filter(|(number, _)| number % 2 == remainder)
    {
        let walk = Walk::through(&given);
        println!("{:?}", walk.by);
        println!(
            "{name}: {} worlds, {} events taken",
            walk.worlds.len(),
            walk.taken
        );
        assert!(walk.taken > 100, "walked nowhere");
    }
}

#[test]
fn every_sequence_keeps_the_invariants_in_one_half_of_the_variants() {
    walk(0);
}

#[test]
fn every_sequence_keeps_the_invariants_in_the_other_half() {
    walk(1);
}

#[test]
fn a_forgotten_fact_is_not_missed() {
    for (name, given) in variants() {
        let events: Vec<_> = events(&given).into_iter().map(|(_, event)| event).collect();
        let start = World::new(&given);
        let mut met = HashSet::from([start.key()]);
        let mut edge = vec![start];
        for _ in 0..SHORT {
            let mut beyond = vec![];
            for world in &edge {
                let mut forgetful = world.clone();
                forgetful.forget();
                for (now, event) in possible(world, &events) {
                    let (mut one, mut other) = (world.clone(), forgetful.clone());
                    let done = [one.take(now, event), other.take(now, event)].map(|mut actions| {
                        // The order of signals that are sent together is forgotten.
                        actions.sort_by_key(|action| show(*action));
                        actions
                    });
                    assert_eq!(done[0], done[1], "{name}: {event:?} in {world:#?}");
                    let mut left = [one.clone(), other];
                    left.iter_mut().for_each(World::forget);
                    assert_eq!(
                        left[0].key(),
                        left[1].key(),
                        "{name}: {event:?} in {world:#?}"
                    );
                    if met.insert(one.key()) {
                        beyond.push(one);
                    }
                }
            }
            edge = beyond;
        }
    }
}
