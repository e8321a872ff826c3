//! What happened, told to people: the history of one supervision, and the log lines that it makes. Pure: it is told every step, and
//! says what to write; it does not write.
//!
//! Every line names what happened, to whom, why, and what comes next if anything does.

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use log::Level;

use crate::exit::Exit;
use crate::logging::escape;
use crate::origin::{Sender, Side};
use crate::policy::{Action, Event, OnRepeat, Received, Settings, State, Target};
use crate::signal::Signal;

/// Who sent a signal, as the log names it.
#[derive(Clone, Debug)]
pub(crate) struct Who {
    pub(crate) side: Side,
    pub(crate) sender: Sender,
    /// The sender's name, where it was still there to be asked.
    pub(crate) name: Option<String>,
}

impl Who {
    fn text(&self) -> String {
        match (self.side, &self.name) {
            (Side::Terminal, _) => "the terminal".into(),
            (Side::Outside, _) => "outside".into(),
            (side, Some(name)) => {
                format!("pid {} '{}' (uid {}, {side})", self.sender.pid, escape(name), self.sender.uid)
            }
            (side, None) => format!("pid {} (uid {}, {side})", self.sender.pid, self.sender.uid),
        }
    }
}

impl Received {
    /// The key that the user has pressed.
    fn key(self) -> Option<&'static str> {
        match (self.side, self.signal) {
            (Side::Terminal, Signal::INT) => Some("Ctrl-C"),
            (Side::Terminal, Signal::QUIT) => Some("Ctrl-\\"),
            _ => None,
        }
    }
}

/// One step of the machine and what came of its actions.
#[derive(Debug)]
pub(crate) struct Step<'a> {
    pub(crate) now: Instant,
    pub(crate) event: Event,
    /// For a signal: who sent it.
    pub(crate) who: Option<Who>,
    pub(crate) before: State,
    pub(crate) after: State,
    pub(crate) actions: &'a [Action],
    /// How many processes the actions reached.
    pub(crate) reached: usize,
}

/// A line and how much it matters.
pub(crate) type Line = (Level, String);

/// What has happened so far.
#[derive(Debug)]
pub(crate) struct History {
    settings: Settings,
    /// `'nginx' (pid 7)`.
    child: String,
    started: Instant,
    /// Why the stop began, and when.
    stop: Option<(String, Instant)>,
    /// Why SIGKILL was sent.
    kill: Option<String>,
    ended: Option<Exit>,
    core: bool,
    descendants_killed: usize,
}

impl History {
    /// The history of a child that was started at `started`.
    pub(crate) fn new(command: &str, pid: i32, started: Instant, settings: Settings) -> Self {
        let child = format!("'{}' (pid {pid})", escape(command));
        Self { settings, child, started, stop: None, kill: None, ended: None, core: false, descendants_killed: 0 }
    }

    /// How the child has ended, if it has.
    pub(crate) fn ended(&self) -> Option<Exit> {
        self.ended
    }

    /// The child, as every line names it.
    pub(crate) fn child(&self) -> &str {
        &self.child
    }

    /// Notes that the child has left a core.
    pub(crate) fn dumped_core(&mut self) {
        self.core = true;
    }

    /// Notes one step and says what there is to say about it.
    pub(crate) fn note(&mut self, step: &Step<'_>) -> Option<Line> {
        match step.event {
            Event::Signal(received) => Some(self.signal(step, received)),
            Event::ChildExited(exit) => self.child_exited(step, exit),
            Event::Timeout => self.timeout(step),
            Event::ChildStopped { signal, wants_terminal } => {
                let what = if wants_terminal { "lending it the terminal" } else { "stopping with it" };
                let what = if self.settings.job_control { what } else { "it is left so" };
                Some((Level::Debug, format!("{} was stopped by {signal}: {what}", self.child)))
            }
            Event::Resumed { suspended: false } if step.reached > 0 => {
                Some((Level::Info, format!("{} was stopped and nobody could wake it: sent SIGCONT to it", self.child)))
            }
            Event::Resumed { .. } => Some((Level::Debug, format!("{} is continued", self.child))),
            Event::NoChildren | Event::Refused => None,
        }
    }

    fn signal(&mut self, step: &Step<'_>, received: Received) -> Line {
        let who = step.who.as_ref().map_or_else(|| received.side.to_string(), Who::text);
        let signal = received.signal;
        let asked = format!("{signal} from {who}");
        let to = self.target(step);
        match (step.before, step.after) {
            (State::Running { .. }, State::Stopping { until, .. }) => {
                self.stop = Some((asked.clone(), step.now));
                let next = self.next(step.now, step.after, until);
                let sent = self.sent(step).unwrap_or_else(|| format!("{to} has it already"));
                (
                    Level::Info,
                    match received.key() {
                        Some(key) => {
                            let again = match self.settings.on_repeat {
                                OnRepeat::Kill => format!("; {key} again kills it at once"),
                                OnRepeat::Forward | OnRepeat::Ignore => String::new(),
                            };
                            format!("{key}: waiting for {} to end, {next}{again}", self.child)
                        }
                        None => format!("stop request {asked}: {sent}, {next}"),
                    },
                )
            }
            (State::Running { .. }, State::Killing { .. }) => {
                self.stop = Some((asked.clone(), step.now));
                self.killed(step, format!("the grace period is 0 and {asked} came"));
                (Level::Warn, format!("stop request {asked}: sent SIGKILL to {to}, for the grace period is 0"))
            }
            (State::Stopping { .. } | State::Draining { .. }, State::Killing { .. }) => {
                self.killed(step, format!("{asked} was a second stop request"));
                (Level::Warn, format!("second stop request {asked}: sent SIGKILL to {to}"))
            }
            (_, after) => self.passed(step, signal, &asked, after),
        }
    }

    /// A signal that changed no state.
    fn passed(&self, step: &Step<'_>, signal: Signal, asked: &str, after: State) -> Line {
        if let Some(Action::Send { signal: sent, .. }) = step.actions.first() {
            let remapped = if *sent == signal { String::new() } else { format!(" as {sent}") };
            // The companion of every stop signal and of every `fg`.
            let level = if signal == Signal::CONT { Level::Debug } else { Level::Info };
            return (level, format!("forwarded {asked} to {}{remapped}", self.target(step)));
        }
        let terminal = step.who.as_ref().is_some_and(|who| who.side == Side::Terminal);
        match after {
            State::Draining { .. } | State::Killing { .. } | State::Done(_) => (
                Level::Info,
                format!(
                    "{asked} not forwarded: {} {}",
                    self.child,
                    if self.ended.is_some() { "has ended" } else { "is being killed" }
                ),
            ),
            State::Running { .. } | State::Stopping { .. } if self.settings.remap.apply(signal).is_none() => {
                (Level::Info, format!("{asked} dropped, as --remap says"))
            }
            State::Stopping { until, .. } if !terminal => (
                Level::Info,
                format!(
                    "{asked} not forwarded: {} is being stopped already, {}",
                    self.child,
                    self.next(step.now, after, until)
                ),
            ),
            // A resize or job control: the terminal has told the child itself.
            State::Running { .. } | State::Stopping { .. } => {
                (Level::Debug, format!("{asked} not forwarded: {} has it already", self.child))
            }
        }
    }

    fn child_exited(&mut self, step: &Step<'_>, exit: Exit) -> Option<Line> {
        self.ended = Some(exit);
        let ended = self.ending(exit);
        match step.after {
            State::Draining { until, .. } if step.reached > 0 => {
                let next = self.next(step.now, step.after, until);
                Some((Level::Warn, format!("{ended}, {} left: sent SIGTERM, {next}", descendants(step.reached))))
            }
            State::Killing { .. } if !matches!(step.before, State::Killing { .. }) && step.reached > 0 => {
                self.killed(step, "the grace period was over".into());
                Some((Level::Warn, format!("{ended}, {} left: sent SIGKILL", descendants(step.reached))))
            }
            State::Running { .. } | State::Stopping { .. } => {
                Some((Level::Info, format!("{ended}, waiting for its descendants")))
            }
            State::Draining { .. } | State::Killing { .. } | State::Done(_) => None,
        }
    }

    fn timeout(&mut self, step: &Step<'_>) -> Option<Line> {
        let to = self.target(step);
        match (step.before, step.after) {
            (State::Running { .. }, State::Stopping { until, .. }) => {
                let why = format!("the run time of {} was over", wait(self.settings.max_runtime.unwrap_or_default()));
                self.stop = Some((why, step.now));
                let sent = self.sent(step).unwrap_or_default();
                Some((
                    Level::Warn,
                    format!(
                        "{} has run for {}: {sent}, {}",
                        self.child,
                        wait(step.now - self.started),
                        self.next(step.now, step.after, until)
                    ),
                ))
            }
            (State::Stopping { .. }, State::Stopping { until, .. }) => {
                let sent = self.sent(step).unwrap_or_default();
                Some((Level::Warn, format!("{to} goes on: {sent}, {}", self.next(step.now, step.after, until))))
            }
            (State::Running { .. } | State::Stopping { .. } | State::Draining { .. }, State::Killing { .. }) => {
                let grace = wait(self.settings.ladder.total(0).unwrap_or_default());
                let after = self.stop.as_ref().map_or("its end".into(), |(why, _)| why.clone());
                self.killed(step, format!("{grace} grace period expired after {after}"));
                Some((Level::Warn, format!("grace period of {grace} is over: sent SIGKILL to {to}")))
            }
            (State::Killing { .. }, State::Killing { .. }) => {
                Some((Level::Debug, format!("sent SIGKILL again to {to}")))
            }
            (_, _) => None,
        }
    }

    /// The last line: who ended, how, after how long, and because of whom.
    pub(crate) fn end(&self, now: Instant, exit: Exit) -> Line {
        let mut line = match self.ended {
            Some(ended) => self.ending(ended),
            None => format!("{} could not be killed", self.child),
        };
        line += &format!(" after {}", wait(now - self.started));
        match (&self.kill, &self.stop) {
            (Some(kill), _) => line += &format!(": {kill}"),
            (None, Some((why, at))) => line += &format!(", {} after {why}", wait(now - *at)),
            (None, None) => {}
        }
        if self.descendants_killed > 0 {
            line += &format!("; {} killed", descendants(self.descendants_killed));
        }
        if self.ended.is_none_or(|ended| ended.number() != exit.number()) {
            line += &format!("; bowout exits with {}", exit.number());
        }
        (Level::Info, line)
    }

    fn ending(&self, exit: Exit) -> String {
        format!("{} {exit}{}", self.child, if self.core { " (core dumped)" } else { "" })
    }

    fn killed(&mut self, step: &Step<'_>, why: String) {
        self.kill.get_or_insert(why);
        self.descendants_killed += self.others(step);
    }

    /// How many processes besides the child the step reached.
    fn others(&self, step: &Step<'_>) -> usize {
        step.reached.saturating_sub(usize::from(self.ended.is_none()))
    }

    /// Whom the step's action was for.
    fn target(&self, step: &Step<'_>) -> String {
        let others = self.others(step);
        match step.actions.first() {
            Some(Action::Send { to: Target::All, .. }) if self.ended.is_some() => descendants(others),
            Some(Action::Send { to: Target::All, .. }) if others > 0 => {
                format!("{} and {}", self.child, descendants(others))
            }
            Some(Action::Send { .. } | Action::SuspendSelf(_) | Action::LendTerminal | Action::Exit(_)) | None => {
                self.child.clone()
            }
        }
    }

    /// What the step's action did.
    fn sent(&self, step: &Step<'_>) -> Option<String> {
        match step.actions.first() {
            Some(Action::Send { signal, .. }) if step.reached == 0 => {
                Some(format!("{signal} could not be sent to {}", self.target(step)))
            }
            Some(Action::Send { signal, .. }) => Some(format!("sent {signal} to {}", self.target(step))),
            Some(Action::SuspendSelf(_) | Action::LendTerminal | Action::Exit(_)) | None => None,
        }
    }

    /// What happens at the end of the wait.
    fn next(&self, now: Instant, state: State, until: Option<Instant>) -> String {
        let rung = match state {
            State::Stopping { rung, .. } => self.settings.ladder.rung(rung + 1).and_then(|rung| rung.signal),
            _ => None,
        };
        match until {
            Some(until) => {
                format!("{} in {}", rung.unwrap_or(Signal::KILL), wait(until.saturating_duration_since(now)))
            }
            None => "no deadline".into(),
        }
    }
}

fn descendants(n: usize) -> String {
    if n == 1 { "1 descendant".into() } else { format!("{n} descendants") }
}

/// A duration for people: tenths of a second below a minute, whole seconds from there.
pub(crate) fn wait(wait: Duration) -> String {
    let millis = wait.as_millis();
    match millis {
        0..1000 => format!("{millis}ms"),
        1000..60_000 if millis.is_multiple_of(1000) => format!("{}s", millis / 1000),
        1000..60_000 => format!("{}.{}s", millis / 1000, millis % 1000 / 100),
        _ => humantime::format_duration(Duration::from_secs(wait.as_secs())).to_string(),
    }
}
