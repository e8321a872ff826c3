//! `--explain`: the plan of a stop with this command line, moment by moment. The policy itself
//! runs, against simulated time, with a command that never exits. Starts nothing.

use std::ffi::OsString;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::config::{Config, Origin};
use crate::policy::{
    Action, Event, Fact, Hook, KillMode, Machine, OnRepeat, Phase, Place, Received,
};
use crate::report::duration;
use crate::sender::Side;
use crate::signal::{Signal, Target};

/// The surroundings that bowout found, beyond the facts that the policy needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Surroundings {
    pub(crate) place: Place,
    /// There is a /proc of this PID namespace.
    pub(crate) proc: bool,
    /// bowout may signal other users' processes (CAP_KILL, capabilities(7)).
    pub(crate) cap_kill: bool,
    /// There is a NOTIFY_SOCKET.
    pub(crate) manager: bool,
}

/// How long an engine must wait beyond the last SIGKILL: for the kernel to end the processes, and
/// for bowout's report and exit.
const AFTER_SIGKILL: Duration = Duration::from_secs(1);

/// The events of one moment, counted from the stop request.
struct Moment {
    at: Duration,
    what: String,
}

/// The explanation, as text or as one JSON object. `now` is any time.
#[cold]
pub(crate) fn explain(
    config: &Config,
    around: Surroundings,
    now: Instant,
    as_json: bool,
) -> String {
    let signal = first_request(config, around.place, now);
    let moments = signal.map_or(vec![], |signal| simulate(config, around.place, now, signal));
    // The last but one is the last SIGKILL; bowout then leaves the processes that outlive it.
    let wait = moments
        .iter()
        .rev()
        .nth(1)
        .map(|last| last.at + AFTER_SIGKILL);
    let (values, facts) = (values(config), facts(around));
    if as_json {
        let pairs = |pairs: &[(&str, String)]| -> Value {
            let pairs = pairs
                .iter()
                .map(|(name, value)| (name.replace(' ', "_"), value.as_str().into()));
            Value::Object(pairs.collect())
        };
        let moment = |it: &Moment| json!({ "at_ms": it.at.as_millis() as u64, "what": it.what });
        let json = json!({
            "request": signal.map(|signal| signal.to_string()),
            "moments": moments.iter().map(moment).collect::<Value>(),
            "values": pairs(&values),
            "place": pairs(&facts),
            "engine_wait_ms": wait.map(|wait| wait.as_millis() as u64),
        });
        return format!("{json}\n");
    }
    let mut text = match signal {
        Some(signal) => format!("{signal} arrives, and the command never exits:\n"),
        None => "No signal asks for the stop.\n".into(),
    };
    for moment in &moments {
        text += &format!("{:>10}  {}\n", duration(moment.at), moment.what);
    }
    text += match config.policy.on_repeat {
        OnRepeat::Kill => "A second request from the same side sends SIGKILL at once.\n",
        OnRepeat::Forward => "A second request is forwarded.\n",
        OnRepeat::Ignore => "A second request is ignored.\n",
    };
    text += &match wait {
        Some(wait) => format!("The engine must wait at least {}.\n", duration(wait)),
        None => "There is no SIGKILL: the engine's own deadline decides.\n".into(),
    };
    for (title, pairs) in [("Values", values), ("Place", facts)] {
        text += &format!("\n{title}:\n");
        for (name, value) in pairs {
            text += &format!("  {name:<16}{value}\n");
        }
    }
    text
}

/// The signal that a manager would stop the command by: TERM, or another that asks for the stop.
fn first_request(config: &Config, place: Place, now: Instant) -> Option<Signal> {
    let machine = Machine::new(config.policy.clone(), place, now);
    let asks = |signal| machine.is_stop_request(request(signal));
    let all = (1..=64).filter_map(Signal::new);
    [Signal::TERM]
        .into_iter()
        .chain(all)
        .find(|&signal| signal != Signal::KILL && asks(signal))
}

fn request(signal: Signal) -> Received {
    Received {
        signal,
        side: Side::Manager,
        value: None,
        shared_group: false,
    }
}

/// Runs the policy from the request to the end. Hooks take all the time that they may.
fn simulate(config: &Config, place: Place, start: Instant, signal: Signal) -> Vec<Moment> {
    let mut machine = Machine::new(config.policy.clone(), place, start);
    let (mut now, mut event) = (start, Event::Signal(request(signal)));
    let (mut moments, mut killed): (Vec<Moment>, _) = (vec![], false);
    loop {
        let step = machine.step(now, event);
        if step.actions.contains(&Action::EndHook) {
            let after = machine.step(now, Event::HookExited);
            debug_assert!(after.actions.is_empty(), "a hook after the deadline");
        }
        let actions = step.actions.iter();
        let what: Vec<_> = actions
            .filter_map(|action| describe(config, *action, killed))
            .collect();
        killed |= what
            .iter()
            .any(|what| what.starts_with("SIGKILL to the command"));
        if !what.is_empty() && step.fact != Some(Fact::NewChildren) {
            moments.push(Moment {
                at: now - start,
                what: what.join(", "),
            });
        }
        if let (Phase::Killing { .. }, Some(over)) = (machine.phase(), machine.over_at()) {
            moments.push(Moment {
                at: over - start,
                what: "bowout exits with 137 if a process outlives SIGKILL".into(),
            });
            return moments;
        }
        match machine.deadline() {
            Some(next) => (now, event) = (next, Event::Timeout),
            None => return moments,
        }
    }
}

fn describe(config: &Config, action: Action, killed: bool) -> Option<String> {
    let hook_starts = |place: &str, commands: &[OsString], number: usize| {
        format!("{place} hook '{}' starts", commands[number].display())
    };
    Some(match action {
        Action::Send { signal, to, .. } => {
            let to = match to {
                Target::Child => "the command",
                Target::Group => "the command's process group",
                Target::All if killed => "the remaining processes",
                Target::All => "the command and its descendants",
                Target::Others | Target::Unasked => "its descendants",
                Target::NewChildren => return None,
            };
            format!("{signal} to {to}")
        }
        Action::RunHook(Hook::PreStop(number)) => hook_starts("pre-stop", &config.pre_stop, number),
        Action::RunHook(Hook::PreKill(number)) => hook_starts("pre-kill", &config.pre_kill, number),
        Action::EndHook => "SIGKILL to the hook".into(),
        Action::NotifyStopping
        | Action::RunHook(Hook::PostStop(_))
        | Action::Pause
        | Action::Wake
        | Action::LookAtTerminal
        | Action::SuspendSelf(_)
        | Action::LendTerminal => return None,
    })
}

/// The values that shape the stop, and where each comes from.
fn values(config: &Config) -> Vec<(&'static str, String)> {
    let policy = &config.policy;
    let wait = |wait: Option<Duration>| wait.map_or("never".into(), duration);
    let from = |options: &[&str]| {
        let origin = config
            .origins
            .iter()
            .rev()
            .find(|origin| options.contains(&origin.option));
        origin.map_or("default".into(), Origin::to_string)
    };
    let mode = match policy.kill_mode {
        KillMode::Process => "process",
        KillMode::Mixed => "mixed",
        KillMode::Group => "group",
    };
    let shaping = [
        (
            "grace period",
            Some(wait(policy.ladder.total(0))),
            &["grace", "escalate"][..],
        ),
        (
            "ladder",
            Some(policy.ladder.to_string()),
            &["stop-signal", "escalate"],
        ),
        (
            "kill mode",
            Some(mode.into()),
            &["kill-mode", "group", "single-child"],
        ),
        (
            "run time",
            policy.max_runtime.map(duration),
            &["max-runtime"],
        ),
    ];
    let is_other = |origin: &&Origin| {
        let shown = |(_, _, options): &(_, _, &[&str])| options.contains(&origin.option);
        origin.option != "explain" && !shaping.iter().any(shown)
    };
    let others = config.origins.iter().filter(is_other);
    let others: Vec<_> = others.map(Origin::to_string).collect();
    let shaping = shaping.into_iter().filter_map(|(name, value, options)| {
        let value = format!("{} ({})", value?, from(options));
        Some((name, value))
    });
    let others = (!others.is_empty()).then(|| ("also given", others.join(", ")));
    shaping.chain(others).collect()
}

fn facts(around: Surroundings) -> Vec<(&'static str, String)> {
    let yes = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    vec![
        ("PID 1", yes(around.place.pid1)),
        ("proc", yes(around.proc)),
        ("CAP_KILL", yes(around.cap_kill)),
        ("manager socket", yes(around.manager)),
        ("terminal", yes(around.place.job_control)),
    ]
}
