//! The policy, the loop and the tree together on a simulated kernel, in which anything can happen
//! between two calls: a fork, an exit, a stop, a PID that another process gets, a signal, a SIGKILL
//! to bowout itself. Settings, processes and events are random. proptest shrinks a failing scene;
//! `tests/simulation` prints the seed.
//!
//! `cargo test` runs the same few scenes each time. `tests/simulation` runs as many as are wanted,
//! and puts known faults back to check that they are found. The terminal is not simulated: the walk
//! over the policy and the tests on real terminals cover it. The code below the seam, [`Kernel`],
//! is not simulated either: `tests/injection` covers it.
//!
//! [`Kernel`]: crate::sys::kernel::Kernel

mod judge;
mod kernel;
mod scene;
mod world;

use std::cell::RefCell;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::Instant;

use proptest::prelude::*;

use super::part::{Part, Replacing};
use super::{Dropped, Outputs, Supervisor};
use crate::config::Config;
use crate::policy::tests::random::config;
use crate::policy::{Machine, Phase, Place};
use crate::report::Containment;
use crate::sender::Kin;
use crate::signal::SignalSet;
use crate::sys::child::Child;
use crate::sys::kernel::Kernel;
use crate::sys::signals::Inherited;
use crate::sys::tree::Tree;
use judge::Judge;
use kernel::{Cut, Simulated};
use scene::{Scene, any_scene};
use world::World;

/// How many scenes `cargo test` runs.
const CASES: u32 = 3000;
/// How many turns a scene takes at the most.
const TURNS: usize = 200_000;

thread_local! {
    static LINES: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Keeps the log lines of the thread that runs the simulation.
struct Lines;

impl log::Log for Lines {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        LINES.with_borrow(Option::is_some)
    }

    fn log(&self, record: &log::Record<'_>) {
        LINES.with_borrow_mut(|lines| {
            if let Some(lines) = lines {
                lines.push(record.args().to_string());
            }
        });
    }

    fn flush(&self) {}
}

fn take_lines() -> Vec<String> {
    LINES
        .with_borrow_mut(|lines| lines.replace(vec![]))
        .unwrap_or_default()
}

/// A part of bowout in the simulated world.
fn part_of_bowout<'a>(
    config: &'a Config,
    inherited: &'a Inherited,
    outputs: &'a Outputs,
    kernel: Simulated,
    part: Part,
) -> Option<Supervisor<'a, Simulated>> {
    let us = kernel.bowout;
    let mut tree = Tree::new(kernel, us);
    let child = if let Part::Guard(instance) = &part {
        Child::adopted(instance.supervisor)
    } else {
        let spawn = super::start::command(config, inherited, &[], &part, false);
        tree.kernel.spawn(&spawn, || ()).ok()?
    };
    part.send(super::ToGuard::Child(child.pid()));
    tree.adopt(child.pid(), true);
    let (policy, _) = super::start::share(config, &part);
    let place = Place {
        pid1: us == 1,
        ..Place::default()
    };
    let containment = Containment {
        adopts_orphans: true,
        guarded: !matches!(part, Part::Whole),
    };
    let (now, history) =
        super::start::begin_history(config, (place, containment), child.pid(), &tree.kernel);
    let parent = tree.kernel.world.borrow().parent;
    Some(Supervisor {
        config,
        inherited,
        intake: File::open("/dev/null").expect("/dev/null"),
        kin: Kin {
            parent,
            child: child.pid(),
        },
        machine: Machine::new(policy, place, now),
        child,
        tree,
        hook: None,
        history,
        terminal: None,
        relay: None,
        parent: None,
        stdin: None,
        part,
        replacing: Replacing::default(),
        dropped: Dropped::default(),
        outputs,
        now,
        failure: None,
        ready_file_is_made: false,
        refused: vec![],
        refused_more: 0,
        filter_logged: false,
        more: false,
    })
}

/// Runs a scene to its end; returns its faults.
fn run(scene: &Scene) -> Vec<String> {
    let world = Rc::new(RefCell::new(World::new(scene)));
    #[allow(clippy::disallowed_methods, reason = "an origin")]
    let origin = Instant::now();
    let kernel = |bowout| Simulated {
        world: Rc::clone(&world),
        bowout,
        origin,
        command: scene.command,
        has_pins: scene.has_pins,
        has_group_pins: scene.has_group_pins,
    };
    let inherited = Inherited {
        mask: SignalSet::default(),
        ignored: SignalSet::default(),
    };
    let outputs = Outputs {
        report: None,
        termination_log: None,
        oom_kills: None,
        directory: None,
        ready_file: None,
    };
    let config = scene.config();
    let (bowout, front) = (world.borrow().bowout, world.borrow().guard);
    take_lines();
    let mut all_lines = vec![];
    let mut guard = None;
    let part = front.map_or(Part::Whole, |front| {
        let (first, second) = Part::divided(bowout);
        guard = part_of_bowout(&config, &inherited, &outputs, kernel(front), first);
        second
    });
    let started = part_of_bowout(&config, &inherited, &outputs, kernel(bowout), part);
    let Some(mut supervisor) = started else {
        return vec![];
    };
    world.borrow_mut().is_started = true;
    for _ in 0..TURNS {
        if world.borrow().guard_dies {
            guard = None;
            world.borrow_mut().guard_killed();
        }
        let cut = turn(&mut supervisor);
        let lines = take_lines();
        let mut world = world.borrow_mut();
        match (cut, guard.take_if(|_| cut == Some(Cut::Killed))) {
            (None, _) => {}
            (Some(Cut::Stuck), _) => world.judge.fault("waits for ever".into()),
            (Some(Cut::Killed), None) => return vec![],
            (Some(Cut::Killed), Some(guard)) => {
                world.supervisor_killed();
                drop(world);
                supervisor = guard;
                continue;
            }
        }
        world.supervises = !matches!(supervisor.part, Part::Guard(_));
        all_lines.extend(lines.iter().cloned());
        for line in &lines {
            world.note(&format!("log: {line}"));
        }
        world.end_turn(&lines);
        let exit = match supervisor.machine.phase() {
            Phase::Done(exit) => Some(exit),
            _ => None,
        };
        if let Some(exit) = exit {
            let _ = supervisor.history.end(supervisor.now, exit);
            let _ = supervisor.history.report(supervisor.now, exit, None, 0);
            Judge::ends(&mut world, exit, &all_lines);
        }
        let mut faults = std::mem::take(&mut world.judge.faults);
        if !faults.is_empty() {
            faults.append(&mut world.history);
        }
        if exit.is_some() || !faults.is_empty() {
            return faults;
        }
    }
    vec!["never ends".into()]
}

/// One turn of the loop, or the part of it before a cut.
fn turn(supervisor: &mut Supervisor<'_, Simulated>) -> Option<Cut> {
    let now = supervisor.tree.kernel.world.borrow().now;
    let world = &supervisor.tree.kernel.world;
    world.borrow_mut().judge.turn(now);
    let turn = catch_unwind(AssertUnwindSafe(|| {
        if let Part::Guard(_) = supervisor.part {
            // A supervisor that exits by itself ends the run before its guard has another turn.
            let _ = supervisor.guard_turn();
        } else {
            supervisor.turn();
        }
    }));
    let thrown = turn.err()?;
    match thrown.downcast::<Cut>() {
        Ok(cut) => Some(*cut),
        Err(panic) => resume_unwind(panic),
    }
}

proptest! {
    #![proptest_config(config(CASES, 50_000))]

    #[test]
    fn a_simulated_kernel_sees_the_promises_kept(scene in any_scene()) {
        // Another test may have set a logger. Then the lines are missing, and the judge reports a
        // fault.
        let _ = log::set_logger(&Lines);
        log::set_max_level(log::LevelFilter::Debug);
        let faults = run(&scene);
        prop_assert!(faults.is_empty(), "{}", faults.join("\n"));
    }
}
