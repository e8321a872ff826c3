//! Long random sequences of events at random times, under random settings, checked against the same
//! rules as the walk. proptest shrinks a failing sequence to the fewest events.
//!
//! `cargo test` tries the same few every time: the seed is fixed. `PROPTEST_CASES=20000 cargo test
//! --release random` tries that many, and `PROPTEST_RNG_SEED=7` tries others. A failure found in
//! this way becomes a scenario, and so proptest keeps no files.

use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed};

use super::world::World;
use super::*;

/// How many sequences `cargo test` tries.
const CASES: u32 = 200;
/// How many events the longest has.
const LONGEST: usize = 400;

/// The numbers of cases and of shrink steps, unless the environment variables set them.
pub(crate) fn config(cases: u32, shrinks: u32) -> Config {
    let defaults = Config::default();
    let said = |name| std::env::var_os(name).is_some();
    Config {
        cases: if said("PROPTEST_CASES") {
            defaults.cases
        } else {
            cases
        },
        rng_seed: if said("PROPTEST_RNG_SEED") {
            defaults.rng_seed
        } else {
            RngSeed::Fixed(0)
        },
        failure_persistence: None,
        max_shrink_iters: if said("PROPTEST_MAX_SHRINK_ITERS") {
            defaults.max_shrink_iters
        } else {
            shrinks
        },
        // Milliseconds.
        max_shrink_time: 60_000,
        ..defaults
    }
}

fn any_signal() -> impl Strategy<Value = Signal> {
    let usual = vec![
        Signal::TERM,
        Signal::INT,
        Signal::QUIT,
        Signal::ABRT,
        Signal::HUP,
        Signal::CONT,
        Signal::WINCH,
    ];
    prop_oneof![
        prop::sample::select(usual),
        (1..=64).prop_filter_map("a number of a signal that can be caught", |number| {
            Signal::new(number).filter(|signal| signal.catchable())
        }),
    ]
}

fn any_side() -> impl Strategy<Value = Side> {
    prop::sample::select(vec![
        Side::Terminal,
        Side::Outside,
        Side::Manager,
        Side::Process,
        Side::Tree,
        Side::Parent,
    ])
}

/// Waits of up to 20 s; half of them are below 200 ms.
fn any_wait() -> impl Strategy<Value = Duration> {
    prop_oneof![0..200u64, 0..20_000u64].prop_map(Duration::from_millis)
}

fn any_event() -> impl Strategy<Value = Event> {
    let received = (
        any_signal(),
        any_side(),
        prop::option::of(any::<u64>()),
        any::<bool>(),
    );
    let signal = received.prop_map(|(signal, side, value, shared_group)| {
        Event::Signal(Received {
            signal,
            side,
            value,
            shared_group,
        })
    });
    let stops = prop::sample::select(vec![Signal::TSTP, Signal::STOP, Signal::TTIN, Signal::TTOU]);
    prop_oneof![
        12 => signal,
        1 => any::<u8>().prop_map(|code| Event::ChildExited(Exit::Code(code))),
        1 => any_signal().prop_map(|signal| Event::ChildExited(Exit::Signal(signal))),
        6 => Just(Event::HookExited),
        3 => any_wait().prop_map(Event::ExtendGrace),
        3 => (stops, any::<[bool; 3]>()).prop_map(|(signal, [wants_terminal, watched, shared_group])| {
            Event::ChildStopped { signal, wants_terminal, watched, shared_group }
        }),
        6 => any::<bool>().prop_map(|prompt| Event::TerminalSeen { prompt }),
        6 => any::<(bool, bool)>().prop_map(|(suspended, stopped)| Event::Resumed { suspended, stopped }),
        1 => any::<bool>().prop_map(|hook| Event::NoneLeft { hook }),
        3 => Just(Event::Reaped),
        2 => prop::sample::select(vec![Event::Ready, Event::Alive]),
        1 => prop::sample::select(vec![Cause::Eof, Cause::SupervisorKilled, Cause::GuardKilled]).prop_map(Event::Stop),
        4 => (0..5usize, 0..3usize).prop_map(|(reached, refused)| Event::Killed { reached, refused }),
        12 => Just(Event::Timeout),
    ]
}

/// The time of the next event.
#[derive(Clone, Copy, Debug)]
enum When {
    After(Duration),
    /// So long after the deadline; so long before it, where the flag is true.
    Deadline(Duration, bool),
}

fn any_time() -> impl Strategy<Value = When> {
    prop_oneof![
        Just(When::After(Duration::ZERO)),
        any_wait().prop_map(When::After),
        (0..60u64, any::<bool>())
            .prop_map(|(millis, early)| When::Deadline(Duration::from_millis(millis), early)),
    ]
}

fn any_ladder() -> impl Strategy<Value = Ladder> {
    let rung = (any_signal(), any_wait())
        .prop_map(|(signal, wait)| format!("{}/{}ms/", signal.number(), wait.as_millis()));
    let rungs = (prop::collection::vec(rung, 0..4), prop::bool::weighted(0.1)).prop_map(
        |(rungs, never)| {
            format!(
                "{}{}",
                rungs.concat(),
                if never { "TERM/never" } else { "KILL" }
            )
        },
    );
    prop_oneof![
        rungs.prop_map(|text| text.parse().expect("a ladder as it is written")),
        (prop::option::of(any_signal()), prop::option::of(any_wait()))
            .prop_map(|(signal, grace)| Ladder::new(signal, grace)),
    ]
}

/// A remap to any signal but SIGKILL. With a remap to SIGKILL, bowout would kill the child at any
/// time and any number of times, against the world's rules.
fn any_rewrite() -> impl Strategy<Value = crate::signal::Rewrite> {
    let to = (0..=64i32).prop_filter("not SIGKILL", |to| *to != Signal::KILL.number());
    (any_signal(), to).prop_map(|(from, to)| {
        format!("{}:{to}", from.number())
            .parse()
            .expect("a rule as it is written")
    })
}

prop_compose! {
    /// The settings that `config` can read from a command line.
    fn any_settings()(
        ladder in any_ladder(),
        stop_on in prop::option::of(prop::collection::vec(any_signal(), 0..4)),
        [keys_stop, tree] in any::<[bool; 2]>(),
        on_repeat in prop::sample::select(vec![OnRepeat::Kill, OnRepeat::Forward, OnRepeat::Ignore]),
        kill_mode in prop::sample::select(vec![KillMode::Process, KillMode::Mixed, KillMode::Group]),
        max_runtime in prop::option::weighted(0.3, any_wait()),
        [hooks, pre_kill] in [0..3usize, 0..3usize],
        [ready_timeout, watchdog] in [prop::option::weighted(0.2, any_wait()), prop::option::weighted(0.2, any_wait())],
        pre_kill_timeout in any_wait(),
        delay in any_wait(),
        more in prop::option::of(any_wait()),
        rules in prop::collection::vec(any_rewrite(), 0..2),
    ) -> Settings {
        let total = ladder.total(0);
        let first = ladder.rung(0).and_then(|rung| rung.wait);
        let usual = SignalSet::of(&[Signal::TERM, Signal::INT]);
        Settings {
            grace_is_default: false,
            stop_on: stop_on.map(|signals| signals.into_iter().fold(usual, SignalSet::with)),
            // The delay is shorter than the first wait, and the maximum grace period is at least
            // the sum of all waits.
            stop_delay: if first.is_some_and(|first| first <= delay) { Duration::ZERO } else { delay },
            grace_max: more.zip(total).map(|(more, total)| total + more),
            wait_tree: tree && kill_mode != KillMode::Process,
            max_runtime: max_runtime.filter(|wait| *wait > Duration::ZERO),
            remap: Remap::new(rules),
            ready_timeout, watchdog: watchdog.filter(|wait| *wait > Duration::ZERO), ladder, keys_stop, on_repeat, kill_mode, hooks, pre_kill, pre_kill_timeout,
        }
    }
}

prop_compose! {
    /// A place that bowout can find itself in.
    fn any_place()(
        [job_control, stdout, announces, leader, pid1] in any::<[bool; 5]>(),
        ignored in prop::collection::vec(any_signal(), 0..2),
    ) -> Place {
        Place {
            stdout_is_terminal: stdout && job_control,
            ignored: ignored.into_iter().filter(|_| !pid1).fold(SignalSet::default(), SignalSet::with),
            job_control, announces, leader, pid1,
        }
    }
}

proptest! {
    // A sequence of hundreds of events takes many steps to shrink.
    #![proptest_config(config(CASES, 20_000))]

    #[test]
    fn long_random_sequences_keep_the_invariants(
        settings in any_settings(),
        place in any_place(),
        sequence in prop::collection::vec((any_time(), any_event()), 1..LONGEST),
    ) {
        let mut world = World::new(&Given(settings, place));
        for (when, event) in sequence {
            if !world.is_possible(event) {
                continue;
            }
            let deadline = world.machine.deadline().unwrap_or(world.now);
            let now = match when {
                When::After(wait) => world.now + wait,
                When::Deadline(by, true) => deadline.checked_sub(by).unwrap_or(deadline),
                When::Deadline(by, false) => deadline + by,
            };
            world.take(now.max(world.now), event);
        }
        world.ends();
    }
}
