//! The log lines. Every line names what happened, to whom, why, and what comes next if anything does.

use std::time::Instant;

use log::Level;

use super::{History, Line, Step, descendants, told, wait};
use crate::exit::Exit;
use crate::origin::Side;
use crate::policy::{Action, Event, OnRepeat, Received, State, Target};
use crate::signal::Signal;

impl History {
    /// What there is to say about a step that was noted.
    pub(super) fn line(&self, step: &Step<'_>) -> Option<Line> {
        match step.event {
            Event::Signal(received) => Some(self.signal(step, received)),
            Event::ChildExited(exit) => self.child_exited(step, exit),
            Event::Timeout => self.timeout(step),
            Event::ChildStopped { signal, wants_terminal } => {
                let lent = if wants_terminal { ": lending it the terminal" } else { "" };
                Some((Level::Debug, format!("{} was stopped by {signal}{lent}", self.child())))
            }
            Event::Resumed { suspended: false, .. } if step.reached > 0 => {
                let child = self.child();
                Some((Level::Info, format!("{child} was stopped and nobody could wake it: sent SIGCONT to it")))
            }
            Event::Resumed { suspended, .. } => {
                let what = if suspended { "goes on" } else { "stays stopped" };
                Some((Level::Debug, format!("{} {what}", self.child())))
            }
            Event::ExtendGrace(asked) => match step.after {
                State::Preparing { .. } | State::Stopping { .. } | State::Draining { .. } => Some((
                    Level::Info,
                    format!("{} asks for {} to end: {}", self.child(), wait(asked), self.next(step)),
                )),
                State::Running { .. } | State::Killing { .. } | State::Done(_) => None,
            },
            Event::HookExited if step.enters(|state| matches!(state, State::Stopping { .. })) => {
                Some((Level::Info, format!("{}, {}", self.sent(step)?, self.next(step))))
            }
            Event::HookExited | Event::HookAlone | Event::NoChildren | Event::Refused | Event::Killed { .. } => None,
        }
    }

    fn signal(&self, step: &Step<'_>, received: Received) -> Line {
        let asked = told(received.signal, step.who.as_ref());
        let to = self.target(step);
        match (step.before, step.after) {
            (_, State::Killing { .. }) if received.signal == Signal::KILL && !step.actions.is_empty() => {
                (Level::Warn, format!("{asked}: {}", self.sent(step).unwrap_or_default()))
            }
            (State::Running { .. }, State::Preparing { .. }) => {
                (Level::Info, format!("stop request {asked}: {}", self.preparing(step)))
            }
            (State::Running { .. }, State::Stopping { .. }) => {
                let next = self.next(step);
                let line = if let Some(key) = key(received) {
                    let again = match self.settings.on_repeat {
                        OnRepeat::Kill => format!("; {key} again kills it at once"),
                        OnRepeat::Forward | OnRepeat::Ignore => String::new(),
                    };
                    format!("{key}: waiting for {} to end, {next}{again}", self.child())
                } else {
                    let sent = self.sent(step).unwrap_or_else(|| match received.side {
                        // It is in our process group: a `kill 0` would have reached it, a `kill $PPID` has not.
                        Side::Tree => format!("not sent back to {to}"),
                        _ => format!("{to} has it already"),
                    });
                    format!("stop request {asked}: {sent}, {next}")
                };
                (Level::Info, line)
            }
            (State::Running { .. }, State::Killing { .. }) => {
                let sent = self.sent(step).unwrap_or_default();
                (Level::Warn, format!("stop request {asked}: {sent}, for the grace period is 0"))
            }
            (State::Preparing { .. } | State::Stopping { .. } | State::Draining { .. }, State::Killing { .. }) => {
                (Level::Warn, format!("second stop request {asked}: {}", self.sent(step).unwrap_or_default()))
            }
            (_, after) => self.passed(step, received.signal, &asked, after),
        }
    }

    /// A signal that changed no state.
    fn passed(&self, step: &Step<'_>, signal: Signal, asked: &str, after: State) -> Line {
        if let Some((sent, _)) = step.sent() {
            let remapped = if sent == signal { String::new() } else { format!(" as {sent}") };
            // The companion of every stop signal and of every `fg`.
            let level = if signal == Signal::CONT { Level::Debug } else { Level::Info };
            let to = self.target(step);
            return if step.reached == 0 {
                (Level::Warn, format!("{asked} could not be forwarded to {to}{remapped}"))
            } else {
                (level, format!("forwarded {asked} to {to}{remapped}"))
            };
        }
        let terminal = step.who.as_ref().is_some_and(|who| who.side == Side::Terminal);
        let child = self.child();
        match after {
            State::Draining { .. } | State::Killing { .. } | State::Done(_) => {
                let why = if self.ended.is_some() { "has ended" } else { "is being killed" };
                // A key that ended the child is told by the last line.
                let level = if terminal { Level::Debug } else { Level::Info };
                (level, format!("{asked} not forwarded: {child} {why}"))
            }
            State::Running { .. } | State::Preparing { .. } | State::Stopping { .. } if self.settings.drops(signal) => {
                (Level::Info, format!("{asked} dropped, as --remap says"))
            }
            State::Preparing { .. } => {
                (Level::Info, format!("{asked} not forwarded yet: the stop of {child} is being prepared"))
            }
            State::Stopping { .. } if !terminal => {
                let next = self.next(step);
                (Level::Info, format!("{asked} not forwarded: {child} is being stopped already, {next}"))
            }
            // A resize or job control: the terminal has told the child itself.
            State::Running { .. } | State::Stopping { .. } => {
                (Level::Debug, format!("{asked} not forwarded: {child} has it already"))
            }
        }
    }

    fn child_exited(&self, step: &Step<'_>, exit: Exit) -> Option<Line> {
        let left = step.reached + step.refused;
        match step.after {
            State::Draining { .. } if left > 0 => {
                Some((Level::Warn, format!("{}, {}", self.left_behind(step, exit), self.next(step))))
            }
            State::Killing { .. } if !matches!(step.before, State::Killing { .. }) && left > 0 => {
                Some((Level::Warn, self.left_behind(step, exit)))
            }
            State::Running { .. } | State::Preparing { .. } | State::Stopping { .. } => {
                Some((Level::Info, format!("{}, waiting for its descendants", self.ending(exit))))
            }
            // The usual end, of which the last line tells.
            State::Draining { .. } | State::Killing { .. } | State::Done(_) => None,
        }
    }

    /// The child's end, and what it means for those who are left.
    fn left_behind(&self, step: &Step<'_>, exit: Exit) -> String {
        let sent = match step.sent() {
            Some((signal, _)) if step.reached > 0 => format!("sent {signal}"),
            Some((signal, _)) => format!("{signal} could not be sent"),
            None => "they have had the stop signal".into(),
        };
        format!("{}, {} left: {sent}", self.ending(exit), descendants(step.reached + step.refused))
    }

    fn timeout(&self, step: &Step<'_>) -> Option<Line> {
        if step.actions == [Action::NotifyStopping] {
            return None;
        }
        let to = self.target(step);
        let sent = self.sent(step).unwrap_or_default();
        match (step.before, step.after) {
            (State::Running { .. }, State::Preparing { .. } | State::Stopping { .. }) => {
                let ran = wait(step.now - self.started);
                let next = match step.after {
                    State::Preparing { .. } => self.preparing(step),
                    _ => format!("{sent}, {}", self.next(step)),
                };
                Some((Level::Warn, format!("{} has run for {ran}: {next}", self.child())))
            }
            (State::Preparing { hook: Some(hook), .. }, State::Stopping { .. }) => {
                let skipped = match self.hooks.len() - hook - 1 {
                    0 => String::new(),
                    1 => ", the one behind it is skipped".into(),
                    n => format!(", the {n} behind it are skipped"),
                };
                let hook = self.hook(hook) + " has not ended in time and was killed" + &skipped;
                let next = self.next(step);
                Some((Level::Warn, format!("pre-stop hook {hook}: {sent}, {next}")))
            }
            (State::Preparing { hook: None, .. }, State::Stopping { .. }) => {
                Some((Level::Info, format!("stop delay is over: {sent}, {}", self.next(step))))
            }
            (State::Stopping { .. }, State::Stopping { .. }) => {
                Some((Level::Warn, format!("{to} goes on: {sent}, {}", self.next(step))))
            }
            (before, State::Killing { .. }) if !matches!(before, State::Killing { .. }) => {
                Some((Level::Warn, format!("grace period of {} is over: {sent}", self.grace(step.now))))
            }
            (State::Killing { .. }, State::Killing { .. }) => {
                Some((Level::Debug, format!("sent SIGKILL again to {to}")))
            }
            (_, _) => None,
        }
    }

    /// What the service manager shows while the stop is under way.
    pub(crate) fn status(&self, now: Instant, state: State) -> String {
        let step = Step {
            now,
            event: Event::NoChildren,
            who: None,
            before: state,
            after: state,
            actions: &[],
            reached: 0,
            refused: 0,
        };
        match state {
            State::Preparing { .. } => format!("{} is to be stopped: {}", self.child(), self.preparing(&step)),
            State::Draining { .. } => {
                format!("waiting for the descendants of {} to end, {}", self.child(), self.next(&step))
            }
            State::Running { .. } | State::Stopping { .. } => {
                format!("waiting for {} to end, {}", self.child(), self.next(&step))
            }
            State::Killing { .. } | State::Done(_) => format!("{} is being killed", self.child()),
        }
    }

    /// The last line: who ended, how, after how long, and because of whom.
    pub(crate) fn end(&self, now: Instant, exit: Exit) -> Line {
        let mut line = match self.ended {
            Some(ended) => self.ending(ended),
            None => format!("{} could not be killed", self.child()),
        };
        line += &format!(" after {}", wait(now - self.started));
        line += &self.because(now);
        if self.descendants_killed > 0 {
            line += &format!("; {} killed", descendants(self.descendants_killed));
        }
        if self.ended.is_none_or(|ended| ended.number() != exit.number()) {
            line += &format!("; bowout exits with {}", exit.number());
        }
        // Whoever asked for warnings alone wants to read this one, too.
        let level = if self.kill.is_some() || self.ended.is_none() { Level::Warn } else { Level::Info };
        (level, line)
    }

    /// What Kubernetes shows of the container's end: one line that stands alone, for nobody sees the log beside it.
    pub(crate) fn termination_message(&self, now: Instant) -> String {
        let mut line = match self.ended {
            Some(Exit::Signal(signal)) => format!("killed by {signal}"),
            Some(exit @ Exit::Code(_)) => exit.to_string(),
            None => "could not be killed".into(),
        };
        if self.core {
            line += " (core dumped)";
        }
        line += &self.because(now);
        line += &format!("; main process {} (pid {}), ran for {}", self.name(), self.pid, wait(now - self.started));
        if self.descendants_killed > 0 {
            line += &format!(", {} killed", descendants(self.descendants_killed));
        }
        line
    }

    fn because(&self, now: Instant) -> String {
        match (&self.kill, &self.stop, self.why()) {
            (Some(kill), ..) => format!(": {kill}"),
            (None, Some(stop), Some(why)) => format!(", {} after {why}", wait(now - stop.at)),
            (None, ..) => String::new(),
        }
    }

    fn ending(&self, exit: Exit) -> String {
        format!("{} {exit}{}", self.child(), if self.core { " (core dumped)" } else { "" })
    }

    /// A hook, as every line names it.
    pub(crate) fn hook(&self, hook: usize) -> String {
        format!("'{}'", crate::logging::escape(self.hooks.get(hook).map_or("", String::as_str)))
    }

    /// Whom the step's signal was for.
    fn target(&self, step: &Step<'_>) -> String {
        let others = self.others(step);
        match step.sent() {
            Some((_, Target::All)) if self.ended.is_some() => descendants(others),
            Some((_, Target::Others)) => descendants(others),
            Some((_, Target::All)) if others > 0 => format!("{} and {}", self.child(), descendants(others)),
            Some((_, Target::All | Target::Group | Target::Child)) | None => self.child().into(),
        }
    }

    /// What the step's signal did.
    fn sent(&self, step: &Step<'_>) -> Option<String> {
        let (signal, _) = step.sent()?;
        let to = self.target(step);
        Some(if step.reached == 0 {
            format!("{signal} could not be sent to {to}")
        } else {
            format!("sent {signal} to {to}")
        })
    }

    /// What comes before the stop signal.
    fn preparing(&self, step: &Step<'_>) -> String {
        let State::Preparing { hook, .. } = step.after else { return String::new() };
        let delay = self.settings.stop_delay;
        match hook {
            Some(_) if delay.is_zero() => format!("running pre-stop hooks, {}", self.next(step)),
            Some(_) => format!("running pre-stop hooks, then waiting for {}, {}", wait(delay), self.next(step)),
            None => format!("waiting for {} before it is sent, {}", wait(delay), self.next(step)),
        }
    }

    /// What happens at the end of the wait.
    fn next(&self, step: &Step<'_>) -> String {
        let (rung, until) = match step.after {
            State::Preparing { grace, .. } => (1, grace),
            State::Stopping { rung, until, .. } => (rung + 1, until),
            State::Draining { until, .. } => (usize::MAX, until),
            State::Running { .. } | State::Killing { .. } | State::Done(_) => (usize::MAX, None),
        };
        let signal = self.settings.ladder.rung(rung).and_then(|rung| rung.signal).unwrap_or(Signal::KILL);
        match until {
            Some(until) => format!("{signal} in {}", wait(until.saturating_duration_since(step.now))),
            None => "no deadline".into(),
        }
    }
}

/// The key that the user has pressed.
fn key(received: Received) -> Option<&'static str> {
    match (received.side, received.signal) {
        (Side::Terminal, Signal::INT) => Some("Ctrl-C"),
        (Side::Terminal, Signal::QUIT) => Some("Ctrl-\\"),
        _ => None,
    }
}
