//! The parts of a scene, which are drawn by chance: the settings, the place, the processes, and the
//! happenings with their times.

use std::fmt;
use std::time::Duration;

use proptest::prelude::*;

use crate::config::Config;
use crate::exit::Exit;
use crate::policy::{KillMode, Ladder, OnRepeat, Settings};
use crate::sender::Side;
use crate::signal::Signal;

/// When the next step of the plan is due, after the one before it.
#[derive(Clone, Copy, Debug)]
pub(super) enum After {
    /// So many calls of bowout: a step can come between any two.
    Calls(u8),
    Milliseconds(u16),
}

/// The group and the session of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Session {
    /// Its parent's.
    #[default]
    Same,
    /// A group of its own.
    Group,
    /// A session of its own.
    New,
}

/// How a process behaves.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Nature {
    /// The milliseconds from a stop signal to its exit; `None` ignores stop signals.
    pub(super) obeys: Option<u16>,
    pub(super) code: u8,
    pub(super) session: Session,
    /// /proc does not show it.
    pub(super) hidden: bool,
    /// bowout may not signal it (EPERM).
    pub(super) denied: bool,
    /// In state D.
    pub(super) unkillable: bool,
    pub(super) threads: u8,
    /// It reaps its children at once.
    pub(super) reaps: bool,
    /// How many processes it forks at a stop signal.
    pub(super) heirs: u8,
    /// How often it forks its successor and exits.
    pub(super) runs: u8,
}

impl Nature {
    /// Its status when it exits by itself.
    pub(super) fn exit(&self) -> Exit {
        Exit::Code(self.code)
    }
}

/// An event in the world. A process is given by its place among the living ones.
#[derive(Clone, Copy, Debug)]
pub(super) enum Happening {
    /// To bowout.
    Signal(Signal, Side, Option<u64>),
    /// bowout does not run for so many milliseconds; everything else runs.
    Stall(u16),
    /// Neither bowout nor anything else runs for so many milliseconds.
    Freeze(u16),
    KillSupervisor,
    KillGuard,
    Fork(u8, Nature),
    Exit(u8, u8),
    /// Another process or the kernel sends it this signal.
    Die(u8, Signal),
    Stop(u8),
    Continue(u8),
    /// Its first thread exits, and its other threads do not.
    Headless(u8),
    /// It asks to be traced, and stops for its parent.
    Trap(u8),
    /// It reaps its children that have exited.
    Reap(u8),
    /// It moves to another group or session.
    Move(u8, Session),
    /// So many other processes are born, and take numbers.
    Strangers(u8),
}

/// One run.
#[derive(Clone)]
pub(super) struct Scene {
    pub(super) settings: Settings,
    pub(super) pid1: bool,
    pub(super) guard: bool,
    /// False as PID 1 alone: without /proc, any other process calls waitid(2) for four million
    /// numbers.
    pub(super) has_proc: bool,
    /// The kernel lists the children of a process.
    pub(super) has_lists: bool,
    pub(super) has_pins: bool,
    /// A pin leads to a group (Linux 6.9).
    pub(super) has_group_pins: bool,
    /// The highest number of a process.
    pub(super) highest: i32,
    pub(super) strangers: usize,
    pub(super) bystanders: Vec<Nature>,
    pub(super) command: Nature,
    /// The hooks that run, in order.
    pub(super) hooks: Vec<Nature>,
    pub(super) plan: Vec<(After, Happening)>,
}

impl fmt::Debug for Scene {
    /// On few lines: the derived form has one line for each field of each step.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            settings,
            pid1,
            guard,
            has_proc,
            has_lists,
            has_pins,
            has_group_pins,
            ..
        } = self;
        writeln!(
            f,
            "{settings:?}\npid1 {pid1}, guard {guard}, proc {has_proc}, lists {has_lists}, pins {has_pins} {has_group_pins}"
        )?;
        writeln!(f, "highest {}, strangers {}", self.highest, self.strangers)?;
        writeln!(f, "command {:?}", self.command)?;
        for (what, natures) in [("bystander", &self.bystanders), ("hook", &self.hooks)] {
            for nature in natures {
                writeln!(f, "{what} {nature:?}")?;
            }
        }
        for step in &self.plan {
            writeln!(f, "{step:?}")?;
        }
        Ok(())
    }
}

impl Scene {
    pub(super) fn config(&self) -> Config {
        let names = |count| vec!["hook".into(); count];
        Config {
            command: "command".into(),
            pre_stop: names(self.settings.hooks),
            pre_kill: names(self.settings.pre_kill),
            policy: self.settings.clone(),
            ..Config::default()
        }
    }
}

fn any_nature() -> impl Strategy<Value = Nature> {
    let rare = || prop::bool::weighted(0.08);
    let session = prop::sample::select(vec![
        Session::Same,
        Session::Same,
        Session::Group,
        Session::New,
    ]);
    (
        prop::option::weighted(0.7, prop_oneof![3 => 0..40u16, 1 => 0..3000u16]),
        any::<u8>(),
        session,
        [rare(), rare(), rare()],
        1..4u8,
        any::<bool>(),
        prop_oneof![4 => Just(0u8), 1 => 1..3u8],
        prop_oneof![12 => Just(0u8), 1 => 1..60u8],
    )
        .prop_map(
            |(obeys, code, session, [hidden, denied, unkillable], threads, reaps, heirs, runs)| {
                Nature {
                    obeys,
                    code,
                    session,
                    hidden,
                    denied,
                    unkillable,
                    threads,
                    reaps,
                    heirs,
                    runs,
                }
            },
        )
}

fn any_happening() -> impl Strategy<Value = Happening> {
    let stops = vec![
        Signal::TERM,
        Signal::TERM,
        Signal::INT,
        Signal::QUIT,
        Signal::ABRT,
    ];
    let others = vec![Signal::HUP, Signal::WINCH, Signal::CONT];
    let number = |number| Signal::new(number).expect("a signal");
    let side = || {
        prop::sample::select(vec![
            Side::Outside,
            Side::Manager,
            Side::Process,
            Side::Tree,
        ])
    };
    let index = any::<u8>;
    prop_oneof![
        4 => (prop::sample::select(stops), side())
            .prop_map(|(signal, side)| Happening::Signal(signal, side, None)),
        2 => (prop::sample::select(others), side())
            .prop_map(|(signal, side)| Happening::Signal(signal, side, None)),
        1 => (prop::sample::select(vec![10, 12, 34, 40, 64]), side(), prop::option::of(any::<u64>()))
            .prop_map(move |(signal, side, value)| Happening::Signal(number(signal), side, value)),
        1 => prop_oneof![0..30u16, 0..3000u16].prop_map(Happening::Stall),
        1 => prop_oneof![0..30u16, 0..9000u16].prop_map(Happening::Freeze),
        1 => prop::sample::select(vec![Happening::KillSupervisor, Happening::KillGuard]),
        9 => (index(), any_nature()).prop_map(|(parent, nature)| Happening::Fork(parent, nature)),
        5 => (index(), any::<u8>()).prop_map(|(process, code)| Happening::Exit(process, code)),
        2 => (index(), prop::sample::select(vec![Signal::KILL, Signal::TERM]))
            .prop_map(|(process, signal)| Happening::Die(process, signal)),
        2 => index().prop_map(Happening::Stop),
        1 => index().prop_map(Happening::Continue),
        1 => index().prop_map(Happening::Headless),
        1 => index().prop_map(Happening::Trap),
        3 => index().prop_map(Happening::Reap),
        1 => (index(), prop::sample::select(vec![Session::Group, Session::New]))
            .prop_map(|(process, session)| Happening::Move(process, session)),
        3 => (1..40u8).prop_map(Happening::Strangers),
    ]
}

fn any_plan() -> impl Strategy<Value = Vec<(After, Happening)>> {
    let after = prop_oneof![
        3 => (0..60u8).prop_map(After::Calls),
        1 => (0..100u16).prop_map(After::Milliseconds),
        1 => (0..3000u16).prop_map(After::Milliseconds),
    ];
    prop::collection::vec((after, any_happening()), 0..60)
}

fn any_ladder() -> impl Strategy<Value = Ladder> {
    let milliseconds = Duration::from_millis;
    prop_oneof![
        6 => (10..4000u64).prop_map(move |wait| Ladder::new(None, Some(milliseconds(wait)))),
        1 => Just(Ladder::new(None, Some(Duration::ZERO))),
        2 => (10..500u64, 10..500u64).prop_map(|(first, second)| {
            format!("TERM/{first}ms/QUIT/{second}ms/KILL").parse().expect("a ladder")
        }),
        1 => (10..500u64).prop_map(move |wait| Ladder::new(Some(Signal::QUIT), Some(milliseconds(wait)))),
    ]
}

prop_compose! {
    fn any_settings()(
        ladder in any_ladder(),
        kill_mode in prop::sample::select(vec![KillMode::Mixed, KillMode::Mixed, KillMode::Mixed, KillMode::Group, KillMode::Process]),
        on_repeat in prop::sample::select(vec![OnRepeat::Kill, OnRepeat::Kill, OnRepeat::Forward, OnRepeat::Ignore]),
        tree in prop::bool::weighted(0.15),
        max_runtime in prop::option::weighted(0.1, 1..5000u64),
        [hooks, pre_kill] in [prop_oneof![5 => Just(0usize), 1 => 1..3usize], prop_oneof![5 => Just(0usize), 1 => 1..3usize]],
    ) -> Settings {
        Settings {
            ladder, kill_mode, on_repeat, hooks, pre_kill,
            keys_stop: true,
            wait_tree: tree && kill_mode != KillMode::Process,
            max_runtime: max_runtime.map(Duration::from_millis),
            pre_kill_timeout: Duration::from_secs(1),
            ..Settings::default()
        }
    }
}

prop_compose! {
    pub(super) fn any_scene()(
        settings in any_settings(),
        [pid1, guard] in [prop::bool::weighted(0.35), prop::bool::weighted(0.3)],
        [has_proc, has_lists, has_pins, has_group_pins] in [
            prop::bool::weighted(0.9), prop::bool::weighted(0.85), prop::bool::weighted(0.9), prop::bool::weighted(0.7),
        ],
        (highest, strangers) in prop_oneof![Just((24, 2)), Just((40, 5)), Just((1200, 600))],
        bystanders in prop_oneof![3 => Just(vec![]), 1 => prop::collection::vec(any_nature(), 1..3)],
        command in any_nature(),
        hooks in prop::collection::vec(any_nature(), 4),
        plan in any_plan(),
    ) -> Scene {
        let wide = bystanders.is_empty() || has_proc;
        let hooks = hooks.into_iter().map(|hook| Nature { denied: false, ..hook }).collect();
        Scene {
            settings, pid1, has_lists, has_pins, has_group_pins, highest, strangers, bystanders, hooks, plan,
            guard: guard && !pid1,
            has_proc: has_proc || !wide,
            // No run starts a command that is in state D for ever or belongs to another user.
            command: Nature { hidden: false, denied: false, unkillable: false, runs: 0, session: Session::Group, ..command },
        }
    }
}
