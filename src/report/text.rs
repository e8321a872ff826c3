//! The log lines. Every line names what happened, to whom, why, and what comes next if anything
//! does.

use std::time::{Duration, Instant};

use log::Level;

use super::terminal::key;
use super::{History, Line, Sent, Step, descendants, told, wait};
use crate::exit::Exit;
use crate::policy::{Action, Event, Received, State};
use crate::sender::Side;
use crate::signal::Signal;
use crate::signal::Target;

impl History {
    /// The line about a step that was noted.
    pub(super) fn line(&self, step: &Step<'_>) -> Option<Line> {
        let (level, event, text) = match step.event {
            // Logged at the first look at the terminal.
            Event::Signal(received)
                if self.settings.awaits_prompt(received)
                    && matches!(
                        (step.before, step.after),
                        (State::Running { .. }, State::Preparing { .. })
                    ) =>
            {
                return None;
            }
            Event::Signal(received) => self.signal(step, received),
            Event::ChildExited(exit) => self.child_exited(step, exit)?,
            Event::Timeout => self.timeout(step)?,
            Event::TerminalSeen { .. } => self.terminal_seen(step)?,
            Event::ChildStopped {
                wants_terminal: false,
                ..
            }
            | Event::Resumed {
                suspended: false, ..
            } if self.settings.job_control && step.woken => {
                let text = format!(
                    "{} was stopped and no shell could continue it: sent SIGCONT to it",
                    self.child()
                );
                (Level::Info, "child_continued", text)
            }
            Event::ChildStopped {
                signal,
                wants_terminal,
                ..
            } => {
                let lent = if wants_terminal {
                    ": lending it the terminal"
                } else {
                    ""
                };
                (
                    Level::Debug,
                    "child_stopped",
                    format!("{} was stopped by {signal}{lent}", self.child()),
                )
            }
            Event::Resumed { suspended, .. } => {
                let what = if suspended {
                    "goes on"
                } else {
                    "stays stopped"
                };
                (
                    Level::Debug,
                    "job_continued",
                    format!("{} {what}", self.child()),
                )
            }
            Event::ExtendGrace(asked) => match step.after {
                State::Preparing { .. } | State::Stopping { .. } | State::Draining { .. } => {
                    let text = format!(
                        "{} asks for {} to exit: {}",
                        self.child(),
                        wait(asked),
                        self.next(step)
                    );
                    (Level::Info, "grace_extended", text)
                }
                State::Running { .. } | State::Killing { .. } | State::Done(_) => return None,
            },
            Event::HookExited if step.enters(|state| matches!(state, State::Stopping { .. })) => (
                Level::Info,
                "stop_signal_sent",
                format!("{}, {}", self.sent_or_has(step), self.next(step)),
            ),
            Event::HookExited
            | Event::HookAlone
            | Event::NoChildren
            | Event::Refused
            | Event::Killed { .. } => {
                return None;
            }
        };
        Some(Line {
            level,
            event,
            fields: self.fields(step),
            text,
        })
    }

    fn signal(&self, step: &Step<'_>, received: Received) -> (Level, &'static str, String) {
        let asked = told(received.signal, step.who.as_ref());
        match (step.before, step.after) {
            (_, State::Killing { .. })
                if received.signal == Signal::KILL && !step.actions.is_empty() =>
            {
                (
                    Level::Warn,
                    "killed",
                    format!("{asked}: {}", self.sent(step).unwrap_or_default()),
                )
            }
            (State::Running { .. }, State::Preparing { .. }) => (
                Level::Info,
                "stop_requested",
                format!("stop request {asked}: {}", self.preparing(step)),
            ),
            (State::Running { .. } | State::Preparing { .. }, State::Stopping { .. }) => {
                let next = self.next(step);
                let line = if let Some(key) = key(received) {
                    self.waiting(key, &next)
                } else {
                    let sent = self.sent(step).unwrap_or_else(|| match received.side {
                        // It is in our process group: a `kill 0` would have reached it, a `kill
                        // $PPID` has not.
                        Side::Tree => format!("not sent back to {}", self.child()),
                        _ => format!("{} has it already", self.child()),
                    });
                    format!("stop request {asked}: {sent}, {next}")
                };
                (Level::Info, "stop_requested", line)
            }
            (State::Running { .. }, State::Killing { .. }) => {
                let sent = self.sent(step).unwrap_or_default();
                (
                    Level::Warn,
                    "killed",
                    format!("stop request {asked}: {sent}, because the grace period is 0"),
                )
            }
            (_, State::Killing { .. }) if step.kills() => {
                let sent = self.sent(step).unwrap_or_default();
                (
                    Level::Warn,
                    "killed",
                    format!("second stop request {asked}: {sent}"),
                )
            }
            (before, State::Killing { .. }) if !matches!(before, State::Killing { .. }) => {
                let text = format!(
                    "second stop request {asked}: {} has exited already",
                    self.child()
                );
                (Level::Info, "signal_not_forwarded", text)
            }
            (_, after) => self.passed(step, received.signal, &asked, after),
        }
    }

    /// A signal that changed no state.
    fn passed(
        &self,
        step: &Step<'_>,
        signal: Signal,
        asked: &str,
        after: State,
    ) -> (Level, &'static str, String) {
        if let Some(sent) = step.sent().next() {
            let remapped = if sent.signal == signal {
                String::new()
            } else {
                format!(" as {}", sent.signal)
            };
            // The companion of every stop signal and of every `fg`.
            let level = if signal == Signal::CONT {
                Level::Debug
            } else {
                Level::Info
            };
            let to = self.target(sent);
            return if sent.reached == 0 {
                (
                    Level::Warn,
                    "signal_not_forwarded",
                    format!("{asked} could not be forwarded to {to}{remapped}"),
                )
            } else {
                let outside = step
                    .who
                    .as_ref()
                    .is_some_and(|who| who.side == Side::Outside);
                // The STOPSIGNAL of many images; a container engine stops waiting without a word.
                let hint = if signal == Signal::QUIT
                    && outside
                    && matches!(step.after, State::Running { .. })
                {
                    "; with --stop-signal QUIT it is a stop request"
                } else {
                    ""
                };
                (
                    level,
                    "signal_forwarded",
                    format!("forwarded {asked} to {to}{remapped}{hint}"),
                )
            };
        }
        let terminal = step
            .who
            .as_ref()
            .is_some_and(|who| who.side == Side::Terminal);
        let child = self.child();
        let (level, why) = match after {
            State::Draining { .. } | State::Killing { .. } | State::Done(_) => {
                let why = if self.ended.is_some() {
                    "has exited"
                } else {
                    "is being killed"
                };
                // The last line tells of a key that ended the child.
                (
                    if terminal { Level::Debug } else { Level::Info },
                    format!("not forwarded: {child} {why}"),
                )
            }
            State::Running { .. } | State::Preparing { .. } | State::Stopping { .. }
                if self.settings.drops(signal) =>
            {
                (Level::Info, "dropped, as --remap says".into())
            }
            State::Preparing { .. } if !(terminal && signal == Signal::INT) => (
                Level::Info,
                format!("not forwarded yet: the stop of {child} is being prepared"),
            ),
            State::Stopping { .. } if !terminal => (
                Level::Info,
                format!(
                    "not forwarded: {child} is being stopped already, {}",
                    self.next(step)
                ),
            ),
            // A resize or job control: the terminal has told the child itself.
            State::Running { .. } | State::Preparing { .. } | State::Stopping { .. } => (
                Level::Debug,
                format!("not forwarded: {child} has it already"),
            ),
        };
        (level, "signal_not_forwarded", format!("{asked} {why}"))
    }

    fn child_exited(&self, step: &Step<'_>, exit: Exit) -> Option<(Level, &'static str, String)> {
        let ran = self.run_time(step.now);
        let head = format!(
            "{} after {}, {} left",
            self.ending(exit),
            wait(ran),
            descendants(step.left)
        );
        let line = match step.after {
            _ if step.left == 0 => return None,
            State::Draining { .. } => {
                let sent = match step.sent().next() {
                    Some(sent) if sent.reached > 0 => format!("sent {}", sent.signal),
                    Some(sent) => format!("{} could not be sent", sent.signal),
                    None => "already sent SIGTERM".into(),
                };
                let line = format!("{head}: {sent}, {}", self.next(step));
                if exit == Exit::Code(0) && ran < DAEMONISED && self.stop.is_none() {
                    let hint = "if it daemonised, --wait-tree waits for them and --kill-mode process leaves them alone";
                    (Level::Warn, format!("{line}; {hint}"))
                } else {
                    (Level::Info, line)
                }
            }
            State::Killing { .. } if step.kills() => {
                (Level::Warn, format!("{head}: {}", self.sent(step)?))
            }
            State::Running { .. } | State::Preparing { .. } | State::Stopping { .. } => {
                let them = if step.left == 1 { "it" } else { "them" };
                (Level::Info, format!("{head}: waiting for {them} to exit"))
            }
            // The usual end, which the last line tells.
            State::Killing { .. } | State::Done(_) => return None,
        };
        Some((line.0, "child_exited", line.1))
    }

    fn timeout(&self, step: &Step<'_>) -> Option<(Level, &'static str, String)> {
        if let [Action::NotifyStopping | Action::LookAtTerminal] = step.actions {
            return None;
        }
        let sent = self.sent_or_has(step);
        let next = self.next(step);
        Some(match (step.before, step.after) {
            (State::Running { .. }, State::Preparing { .. } | State::Stopping { .. }) => {
                let ran = wait(step.now - self.started);
                let then = match step.after {
                    State::Preparing { .. } => self.preparing(step),
                    _ => format!("{sent}, {next}"),
                };
                (
                    Level::Warn,
                    "runtime_over",
                    format!("{} has run for {ran}: {then}", self.child()),
                )
            }
            (
                State::Preparing {
                    hook: Some(hook), ..
                },
                State::Stopping { .. },
            ) => {
                let skipped = match self.hooks.len() - hook - 1 {
                    0 => String::new(),
                    1 => ", the hook after it is skipped".into(),
                    n => format!(", the {n} hooks after it are skipped"),
                };
                let hook = self.hook(hook) + " has not exited in time and was killed" + &skipped;
                (
                    Level::Warn,
                    "stop_signal_sent",
                    format!("pre-stop hook {hook}: {sent}, {next}"),
                )
            }
            (State::Preparing { hook: None, .. }, State::Stopping { .. }) => (
                Level::Info,
                "stop_signal_sent",
                format!("stop delay is over: {sent}, {next}"),
            ),
            (State::Stopping { .. }, State::Stopping { .. }) if step.sent.is_empty() => (
                Level::Info,
                "deadline_late",
                format!("the deadline passed while bowout was stopped or frozen: {next}"),
            ),
            (State::Draining { .. }, State::Draining { .. }) => (
                Level::Info,
                "deadline_late",
                format!("the deadline passed while bowout was stopped or frozen: {next}"),
            ),
            (State::Stopping { .. }, State::Stopping { .. }) => (
                Level::Warn,
                "escalated",
                format!("{} goes on: {sent}, {next}", self.child()),
            ),
            (State::Killing { .. }, State::Killing { .. }) if step.sent.is_empty() => {
                let text = "the deadline passed while bowout was stopped or frozen: SIGKILL in 1s";
                (Level::Info, "deadline_late", text.into())
            }
            (State::Killing { .. }, State::Killing { .. }) => match self.descendants_killed {
                Some((_, at)) if at == step.now && self.last_second => {
                    (Level::Warn, "killed", format!("1s after SIGTERM: {sent}"))
                }
                Some((_, at)) if at == step.now => (Level::Warn, "killed", sent),
                _ => (Level::Debug, "killed_again", "sent SIGKILL again".into()),
            },
            (State::Running { .. }, State::Killing { .. }) => {
                let ran = wait(step.now - self.started);
                let text = format!(
                    "{} has run for {ran}: {sent}, because the grace period is 0",
                    self.child()
                );
                (Level::Warn, "runtime_over", text)
            }
            (_, State::Killing { .. }) => {
                let last = match step.sent().nth(1).map(|sent| self.others(sent)) {
                    Some(1) => ", SIGKILL to it in 1s",
                    Some(_) => ", SIGKILL to them in 1s",
                    None => "",
                };
                // The engine may allow more than the default, or less. Where no engine asked, its
                // timeout does not matter.
                let asked = self.stop.as_ref().is_some_and(|stop| stop.by.is_some());
                let hint = if asked && self.settings.grace_is_default && !self.extended {
                    "; set --grace or BOWOUT_GRACE to your engine's stop timeout less 2s (5s from 30s up)"
                } else {
                    ""
                };
                let grace = self.grace(step.now);
                (
                    Level::Warn,
                    "killed",
                    format!("grace period of {grace} is over: {sent}{last}{hint}"),
                )
            }
            (_, _) => return None,
        })
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
            sent: &[],
            woken: false,
            left: 0,
        };
        match state {
            State::Preparing { .. } => format!(
                "{} is to be stopped: {}",
                self.child(),
                self.preparing(&step)
            ),
            State::Draining { .. } => {
                format!(
                    "waiting for the descendants of {} to end, {}",
                    self.child(),
                    self.next(&step)
                )
            }
            State::Running { .. } | State::Stopping { .. } => {
                format!("waiting for {} to end, {}", self.child(), self.next(&step))
            }
            State::Killing { .. } | State::Done(_) => format!("{} is being killed", self.child()),
        }
    }

    /// A hook, as every line names it.
    pub(crate) fn hook(&self, hook: usize) -> String {
        format!(
            "'{}'",
            crate::log::escape(self.hooks.get(hook).map_or("", String::as_str))
        )
    }

    /// The processes that a signal was for.
    fn target(&self, sent: &Sent) -> String {
        let others = self.others(sent);
        match sent.to {
            Target::All if self.ended.is_some() => descendants(others),
            Target::Others | Target::Descendants => descendants(others),
            Target::All if others > 0 => format!("{} and {}", self.child(), descendants(others)),
            Target::Group => format!("the process group of {}", self.child()),
            Target::All | Target::Child => self.child().into(),
        }
    }

    /// The same; where the step sent none, because the child has the signal from the terminal, or
    /// was sent it before.
    fn sent_or_has(&self, step: &Step<'_>) -> String {
        self.sent(step)
            .unwrap_or_else(|| format!("{} has the stop signal already", self.child()))
    }

    /// The signals that the step sent, and to which processes.
    pub(super) fn sent(&self, step: &Step<'_>) -> Option<String> {
        let mut text = String::new();
        for sent in step.sent() {
            let how = if sent.reached == 0 {
                " could not be sent"
            } else {
                ""
            };
            let and = if text.is_empty() { "" } else { " and " };
            text += &format!("{and}{}{how} to {}", sent.signal, self.target(sent));
        }
        let failed = step.sent().next()?.reached == 0;
        Some(if failed { text } else { format!("sent {text}") })
    }

    /// What comes before the stop signal.
    pub(super) fn preparing(&self, step: &Step<'_>) -> String {
        let State::Preparing { hook, .. } = step.after else {
            return String::new();
        };
        let delay = self.settings.stop_delay;
        match hook {
            Some(_) if delay.is_zero() => format!("running pre-stop hooks, {}", self.next(step)),
            Some(_) => format!(
                "running pre-stop hooks, then waiting for {}, {}",
                wait(delay),
                self.next(step)
            ),
            None => format!(
                "waiting for {} before it is sent, {}",
                wait(delay),
                self.next(step)
            ),
        }
    }

    /// What happens at the end of the wait.
    fn next(&self, step: &Step<'_>) -> String {
        self.next_at(step.now, step)
    }

    /// The same, counted from `now`.
    pub(super) fn next_at(&self, now: Instant, step: &Step<'_>) -> String {
        match self.next_step(step) {
            Some((signal, until)) => {
                let from_running = matches!(step.before, State::Running { .. });
                let announces = from_running || matches!(step.event, Event::TerminalSeen { .. });
                let default = if announces && self.settings.grace_is_default {
                    " (default)"
                } else {
                    ""
                };
                format!(
                    "{signal} in {}{default}",
                    wait(until.saturating_duration_since(now))
                )
            }
            None => "no deadline".into(),
        }
    }

    /// The next signal of the stop, and when it is sent.
    pub(super) fn next_step(&self, step: &Step<'_>) -> Option<(Signal, Instant)> {
        let (rung, until) = match step.after {
            State::Preparing { grace, .. } => (1, grace),
            State::Stopping { rung, until, .. } => (rung + 1, until),
            State::Draining { until, .. } => (usize::MAX, until),
            State::Running { .. } | State::Killing { .. } | State::Done(_) => (usize::MAX, None),
        };
        let signal = self
            .settings
            .ladder
            .rung(rung)
            .and_then(|rung| rung.signal)
            .unwrap_or(Signal::KILL);
        until.map(|until| (signal, until))
    }
}

/// A command that exits with 0 so soon and leaves descendants has probably daemonised.
const DAEMONISED: Duration = Duration::from_secs(1);
