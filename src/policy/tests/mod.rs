//! The machine without a process: the table of all states and events, scenarios with exact times, a
//! walk over every sequence of events up to a length, and random sequences that are far longer.
//! `world` judges the last two.

pub(crate) mod random;
mod scenarios;
mod table;
mod walk;
mod world;

use std::sync::LazyLock;
use std::time::Duration;

use super::*;
use crate::signal::{Remap, Target};

/// One origin of time for all tests; instants can only be made from a clock.
#[allow(clippy::disallowed_methods)]
static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// `millis` after the origin.
fn at(millis: u64) -> Instant {
    *ORIGIN + Duration::from_millis(millis)
}

/// The time of an instant, in milliseconds after the origin.
fn millis(instant: Instant) -> u128 {
    (instant - *ORIGIN).as_millis()
}

/// The settings and the place that a machine is created from.
#[derive(Clone, Debug)]
pub(super) struct Given(Settings, Place);

impl Given {
    fn machine(&self) -> Machine {
        Machine::new(self.0.clone(), self.1, at(0))
    }
}

impl From<Settings> for Given {
    fn from(settings: Settings) -> Self {
        Self(settings, NOWHERE)
    }
}

impl From<Place> for Given {
    fn from(place: Place) -> Self {
        Self(settings(), place)
    }
}

impl From<(Settings, Place)> for Given {
    fn from((settings, place): (Settings, Place)) -> Self {
        Self(settings, place)
    }
}

/// The default settings; the grace period is 8 s.
fn settings() -> Settings {
    Settings {
        ladder: Ladder::new(None, Some(Duration::from_secs(8))),
        grace_is_default: true,
        stop_on: None,
        keys_stop: true,
        on_repeat: OnRepeat::Kill,
        kill_mode: KillMode::Mixed,
        wait_tree: false,
        max_runtime: None,
        ready_timeout: None,
        watchdog: None,
        hooks: 0,
        pre_kill: 0,
        pre_kill_timeout: Duration::from_secs(5),
        stop_delay: Duration::ZERO,
        grace_max: Some(Duration::from_secs(16)),
        remap: Remap::default(),
    }
}

/// Without a terminal and a manager: the child has its own group.
const NOWHERE: Place = Place {
    ignored: SignalSet::of(&[]),
    job_control: false,
    stdout_is_terminal: false,
    announces: false,
    leader: false,
    pid1: false,
};
/// On a terminal: the child shares the group of bowout.
const TERMINAL: Place = Place {
    job_control: true,
    ..NOWHERE
};
/// Standard output is the terminal.
const INTERACTIVE: Place = Place {
    stdout_is_terminal: true,
    ..TERMINAL
};
/// As PID 1.
const PID1: Place = Place {
    pid1: true,
    ..NOWHERE
};

/// `signal` from `side`, with no value, to a child in its own group.
fn from(side: Side, signal: Signal) -> Event {
    Event::Signal(Received {
        signal,
        side,
        value: None,
        shared_group: false,
    })
}

/// `signal` from `side`, which has reached the whole group and the child in it.
fn to_group(side: Side, signal: Signal) -> Event {
    Event::Signal(Received {
        signal,
        side,
        value: None,
        shared_group: true,
    })
}

/// `signal` stops the child, in the group of bowout, and a shell watches.
fn stopped(signal: Signal) -> Event {
    Event::ChildStopped {
        signal,
        wants_terminal: false,
        watched: true,
        shared_group: true,
    }
}

/// `signal` stops the child, and no shell watches.
fn stopped_alone(signal: Signal, shared_group: bool) -> Event {
    Event::ChildStopped {
        signal,
        wants_terminal: false,
        watched: false,
        shared_group,
    }
}

/// The kernel stops the child in a group of its own, because it wants the terminal.
const WANTS_TERMINAL: Event = Event::ChildStopped {
    signal: Signal::TTIN,
    wants_terminal: true,
    watched: true,
    shared_group: false,
};

const PROMPT: Event = Event::TerminalSeen { prompt: true };
const NO_PROMPT: Event = Event::TerminalSeen { prompt: false };

fn usr1() -> Signal {
    "USR1".parse().unwrap()
}

/// An action as a person would write it: `TERM+CONT>child`.
fn show(action: Action) -> String {
    match action {
        Action::Send {
            signal,
            value,
            to,
            wake,
        } => {
            let name = signal.to_string().trim_start_matches("SIG").to_owned();
            let value = value.map(|value| format!("={value}")).unwrap_or_default();
            let to = match to {
                Target::Child => "child",
                Target::Group => "group",
                Target::All => "all",
                Target::Unasked => "unasked",
                Target::NewChildren => "new",
                Target::Others => "others",
            };
            format!("{name}{value}{}>{to}", if wake { "+CONT" } else { "" })
        }
        Action::Pause => "pause".into(),
        Action::Wake => "wake".into(),
        Action::RunHook(Hook::PreStop(hook)) => format!("hook#{hook}"),
        Action::RunHook(Hook::PreKill(hook)) => format!("pre-kill#{hook}"),
        Action::RunHook(Hook::PostStop(hook)) => panic!("post-stop#{hook}"),
        Action::EndHook => "end-hook".into(),
        Action::NotifyStopping => "notify".into(),
        Action::LookAtTerminal => "look".into(),
        Action::SuspendSelf(signal) => format!("suspend {signal}"),
        Action::LendTerminal => "lend".into(),
    }
}

fn show_exit(exit: Exit) -> String {
    match exit {
        Exit::Code(code) => code.to_string(),
        Exit::Signal(signal) => signal.to_string(),
    }
}

/// The actions, and the exit status if the machine (`ended`) is at its end.
fn show_all(actions: &[Action], ended: Option<&Machine>) -> String {
    let exit = ended.and_then(|machine| match machine.phase() {
        Phase::Done(exit) => Some(format!("exit {}", show_exit(exit))),
        _ => None,
    });
    let shown = actions.iter().map(|action| show(*action)).chain(exit);
    shown.collect::<Vec<_>>().join(" ")
}

/// A state as a person would write it, with times in milliseconds after the origin.
fn show_state(machine: &Machine) -> String {
    let time = |time: Option<Instant>| time.map_or("never".into(), |time| millis(time).to_string());
    let exited = machine
        .ended
        .map(|exit| format!(" exited:{}", show_exit(exit)))
        .unwrap_or_default();
    let until = time(machine.until);
    let phase = match machine.phase {
        Phase::Running => "Running".into(),
        Phase::Preparing { hook } => {
            let step = hook.map_or("delay".into(), |hook| format!("hook#{hook}"));
            format!("Preparing {step}@{until}/{}", time(machine.grace))
        }
        Phase::Stopping { rung } if rung == machine.settings.ladder.rungs() => {
            format!("Draining@{until}")
        }
        Phase::Stopping { rung } => format!("Stopping#{rung}@{until}"),
        Phase::Killing { again } => format!("Killing@{}/{until}", millis(again)),
        Phase::Done(exit) => return format!("Done:{}", show_exit(exit)),
    };
    phase + &exited
}
