//! The log lines: one for a fact. A line has the event, the process, the reason, and the next
//! signal.

use std::time::Duration;

use log::Level::{self, Debug, Error, Info, Warn};

use super::phrases::{descendants, duration, names, next_signal, signal_from};
use super::{History, Line, Note};
use crate::exit::Exit;
use crate::policy::{Cause, Fact, OnRepeat, Outcome, Reason, Received, Waiting};
use crate::sender::Side;
use crate::signal::{Signal, Target};

/// A command that exits with 0 so soon and leaves descendants has probably daemonised.
const DAEMONISED: Duration = Duration::from_secs(1);

/// Level, event and sentence.
type Text = (Level, &'static str, String);

/// A level, an event and a sentence, written as for [`event!`](crate::log::event).
macro_rules! text {
    ($level:expr, $event:expr; $($sentence:tt)+) => { ($level, $event, format!($($sentence)+)) };
}

impl History {
    /// The line about a fact that the history has folded; `killed_before`: a descendant was sent
    /// SIGKILL before it.
    pub(super) fn line(&self, note: &Note<'_>, killed_before: bool) -> Option<Line> {
        let (level, event, text) = self.text(note, killed_before)?;
        let fields = self.fields(note);
        Some(Line {
            level,
            event,
            fields,
            text,
        })
    }

    fn text(&self, note: &Note<'_>, killed_before: bool) -> Option<Text> {
        let (child, then) = (|| self.child(), || self.sent_and_next(note));
        Some(match note.fact {
            Fact::Signal {
                received, outcome, ..
            } => self.signal(note, received, outcome)?,
            Fact::Began(cause, waiting) => self.began(note, cause, waiting),
            Fact::Ready => {
                text!(Info, "ready"; "{} is ready after {}", child(), duration(note.now - self.started))
            }
            Fact::CtrlC(waiting) => self.requested(note, waiting, Some("Ctrl-C"), &self.why()?),
            Fact::Cancelled => {
                let cancelled = "is at its prompt, the stop is cancelled";
                text!(Debug, "stop_cancelled"; "Ctrl-C: {} {cancelled}", child())
            }
            Fact::ChildExited(exit) => self.child_exited(note, exit)?,
            Fact::HookOver { hook, deadline } if deadline => {
                text!(Warn, "stop_signal_sent"; "{}: {}", self.late_hook(hook), then())
            }
            Fact::HookOver { .. } => (Info, "stop_signal_sent", then()),
            Fact::DelayOver if self.is_by(Cause::Eof) => {
                text!(Info, "stop_signal_sent"; "{} goes on: {}", child(), then())
            }
            Fact::DelayOver => text!(Info, "stop_signal_sent"; "stop delay is over: {}", then()),
            Fact::Escalated => text!(Warn, "escalated"; "{} goes on: {}", child(), then()),
            Fact::GraceOver => self.grace_over(note),
            // Descendants that are killed for the first time were not asked to stop before.
            Fact::KilledAgain if !killed_before && self.killed_count() > 0 => {
                (Warn, "killed", self.sent(note)?)
            }
            Fact::KilledAgain => (Debug, "killed_again", "sent SIGKILL again".into()),
            // The supervisor logs each process that SIGKILL has not ended.
            Fact::GaveUp => return None,
            Fact::DeadlineLate => {
                let late = "the deadline passed while bowout was stopped or frozen";
                text!(Info, "deadline_late"; "{late}: {}", self.next(note))
            }
            Fact::Extended { asked, .. } => {
                let (child, asked, next) = (child(), duration(asked), self.next(note));
                text!(Info, "grace_extended"; "{child} asks for {asked} to exit: {next}")
            }
            Fact::NewChildren => {
                let sent = self.sent(note)?;
                text!(Info, "descendants_stopped"; "{sent} that appeared during the stop")
            }
            Fact::ChildStopped { .. } | Fact::Resumed { .. } => self.job_control(note)?,
        })
    }

    /// The child was stopped, or goes on.
    fn job_control(&self, note: &Note<'_>) -> Option<Text> {
        let child = self.child();
        Some(match note.fact {
            Fact::ChildStopped { lent: false, .. } | Fact::Resumed { suspended: false }
                if self.place.job_control && note.woken =>
            {
                let stopped = "was stopped and no shell could continue it";
                text!(Info, "child_continued"; "{child} {stopped}: sent SIGCONT to it")
            }
            Fact::ChildStopped { signal, lent } => {
                let lent = if lent {
                    ": lending it the terminal"
                } else {
                    ""
                };
                text!(Debug, "child_stopped"; "{child} was stopped by {signal}{lent}")
            }
            Fact::Resumed { suspended: true } => text!(Debug, "job_continued"; "{child} goes on"),
            Fact::Resumed { .. } => text!(Debug, "job_continued"; "{child} stays stopped"),
            _ => return None,
        })
    }

    /// A received signal.
    fn signal(&self, note: &Note<'_>, received: Received, outcome: Outcome) -> Option<Text> {
        let asked = signal_from(received.signal, note.from.as_ref());
        Some(match outcome {
            // The first look at the terminal logs it.
            Outcome::Looks => return None,
            Outcome::Began(waiting) => self.requested(note, waiting, key(received), &asked),
            Outcome::Killed => match note.kill().and_then(|_| self.sent(note)) {
                Some(sent) if received.signal == Signal::KILL => {
                    text!(Warn, "killed"; "{asked}: {sent}")
                }
                Some(sent) => {
                    text!(Warn, "killed"; "received {asked}, the second stop request: {sent}")
                }
                None => {
                    let why = format!("not forwarded: {} has exited already", self.child());
                    text!(Info, "signal_not_forwarded"; "{asked} {why}")
                }
            },
            Outcome::Forwarded => self.forwarded(note, received, &asked),
            Outcome::NotForwarded(reason) => self.not_forwarded(note, received, reason, &asked),
        })
    }

    /// A stop request, or the `key` that was one, began the stop.
    fn requested(&self, note: &Note<'_>, waiting: Waiting, key: Option<&str>, asked: &str) -> Text {
        if let (Waiting::Child | Waiting::Descendants, Some(key)) = (waiting, key) {
            return (Info, "stop_requested", self.key_answer(key, note));
        }
        let (level, event) = if waiting == Waiting::Kill {
            (Warn, "killed")
        } else {
            (Info, "stop_requested")
        };
        text!(level, event; "received {asked}: {}", self.begun(note, waiting))
    }

    /// The stop began without a signal.
    fn began(&self, note: &Note<'_>, cause: Cause, waiting: Waiting) -> Text {
        let (child, then) = (self.child(), self.begun(note, waiting));
        let limit = self.limit(cause);
        match cause {
            Cause::Eof => text!(Info, "stop_requested"; "input of {child} has ended: {then}"),
            Cause::SupervisorKilled => {
                text!(Error, "supervisor_killed"; "bowout was killed; its guard stops {child}: {then}")
            }
            Cause::GuardKilled => text!(Error, "guard_killed"; "bowout's guard was killed: {then}"),
            Cause::RunTime | Cause::Signal(_) => {
                let ran = duration(note.now - self.started);
                text!(Warn, "runtime_over"; "{child} has run for {ran}: {then}")
            }
            Cause::Replaced => text!(Info, "stop_requested"; "a new instance is ready: {then}"),
            Cause::NotReady => {
                text!(Warn, "not_ready"; "{child} is not ready after {limit}: {then}")
            }
            Cause::Watchdog => {
                text!(Warn, "watchdog"; "{child} has not sent WATCHDOG=1 for {limit}: {then}")
            }
        }
    }

    /// The first actions of the stop, and the next signal.
    fn begun(&self, note: &Note<'_>, waiting: Waiting) -> String {
        match waiting {
            Waiting::Preparation { .. } => self.preparing(waiting, &self.next(note)),
            Waiting::Child | Waiting::Descendants => self.sent_and_next(note),
            Waiting::Kill => format!("{}, because the grace period is 0", self.sent_or_has(note)),
        }
    }

    fn sent_and_next(&self, note: &Note<'_>) -> String {
        format!("{}, {}", self.sent_or_has(note), self.next(note))
    }

    /// The signals that were sent. Where none was, the child received the stop signal without
    /// bowout, or was sent it before.
    fn sent_or_has(&self, note: &Note<'_>) -> String {
        let child = self.child();
        self.sent(note).unwrap_or_else(|| match note.fact {
            // It is in bowout's process group: `kill 0` would have reached it, and `kill $PPID` has
            // not.
            Fact::Signal { received, .. } if received.side == Side::Tree => {
                format!("not sent back to {child}")
            }
            Fact::Signal { .. } => format!("{child} received it already"),
            _ => format!("{child} received the stop signal already"),
        })
    }

    fn forwarded(&self, note: &Note<'_>, received: Received, asked: &str) -> Text {
        let Some(sent) = note.sent().next() else {
            return self.not_forwarded(note, received, Reason::Received, asked);
        };
        let mut to = self.target(sent);
        if sent.signal != received.signal {
            to += &format!(" as {}", sent.signal);
        }
        if sent.reached == 0 {
            return text!(Warn, "signal_not_forwarded"; "{asked} could not be forwarded to {to}");
        }
        let (level, hint) = match (received.signal, received.side) {
            // QUIT is the STOPSIGNAL of many images. A container engine ends its wait without a
            // message: this line names the option.
            (Signal::QUIT, Side::Outside) if self.stop.is_none() => {
                (Info, "; with --stop-signal QUIT it is a stop request")
            }
            // The companion of every stop signal and of every `fg`.
            (Signal::CONT, _) => (Debug, ""),
            _ => (Info, ""),
        };
        text!(level, "signal_forwarded"; "forwarded {asked} to {to}{hint}")
    }

    fn not_forwarded(
        &self,
        note: &Note<'_>,
        received: Received,
        reason: Reason,
        asked: &str,
    ) -> Text {
        let (child, terminal) = (self.child(), received.side == Side::Terminal);
        let (level, why) = match reason {
            Reason::Dropped => (Info, "dropped, as --remap says".into()),
            Reason::Preparing if !terminal || received.signal != Signal::INT => {
                let why = format!("not forwarded yet: the stop of {child} is being prepared");
                (Info, why)
            }
            Reason::Stopping if !terminal => {
                let why = format!("not forwarded: {child} is being stopped already");
                (Info, format!("{why}, {}", self.next(note)))
            }
            Reason::Received | Reason::Preparing | Reason::Stopping => {
                (Debug, format!("not forwarded: {child} received it already"))
            }
            // The last line reports a key that ended the child.
            Reason::ChildExited | Reason::ChildKilled => {
                let level = if terminal { Debug } else { Info };
                let state = if self.ended.is_some() {
                    "has exited"
                } else {
                    "is being killed"
                };
                (level, format!("not forwarded: {child} {state}"))
            }
        };
        text!(level, "signal_not_forwarded"; "{asked} {why}")
    }

    /// The child's exit, where descendants are left.
    fn child_exited(&self, note: &Note<'_>, exit: Exit) -> Option<Text> {
        if note.left == 0 {
            return None;
        }
        let ran = self.run_time(note.now);
        let asked = note.sent.iter().find(|sent| sent.to == Target::Unasked);
        let (level, then) = match asked {
            Some(sent) => {
                let how = match (sent.reached, sent.refused) {
                    (0, 0) => "already sent SIGTERM".into(),
                    (0, _) => format!("{} could not be sent", sent.signal),
                    _ => format!("sent {}", sent.signal),
                };
                let then = format!("{how}, {}", self.next(note));
                if exit == Exit::Code(0) && ran < DAEMONISED && self.stop.is_none() {
                    let hint =
                        "--wait-tree waits for them and --kill-mode process leaves them alone";
                    (Warn, format!("{then}; if it daemonised, {hint}"))
                } else {
                    (Info, then)
                }
            }
            None if note.kill().is_some() => (Warn, self.sent(note)?),
            None if self.settings.wait_tree => {
                let them = if note.left == 1 { "it" } else { "them" };
                (Info, format!("waiting for {them} to exit"))
            }
            // The usual end, which the last line reports.
            None => return None,
        };
        let (ended, ran) = (self.ending(exit), duration(ran));
        let named = names(note.left, asked.iter().flat_map(|sent| &sent.processes));
        let left = descendants(note.left);
        Some(text!(level, "child_exited"; "{ended} after {ran}, {left} left{named}: {then}"))
    }

    fn grace_over(&self, note: &Note<'_>) -> Text {
        let sent = self.sent_or_has(note);
        // The note that has set it is the one before SIGKILL to the descendants.
        if let Some(asked) = self.asked_last.filter(|&at| at < note.now) {
            let wait = duration(note.now - asked);
            return text!(Warn, "killed"; "{wait} after SIGTERM: {sent}");
        }
        let last = note.sent().nth(1).zip(note.next).map(|(asked, next)| {
            let them = if self.others(asked) == 1 {
                "it"
            } else {
                "them"
            };
            format!(", {} to {them} in {}", next.0, duration(next.1 - note.now))
        });
        let last = last.unwrap_or_default();
        // The engine may allow more than the default, or less. Where no engine asked for the stop,
        // its timeout does not matter.
        let asked = self.stop.as_ref().is_some_and(|stop| stop.by.is_some());
        let hint = if asked && self.settings.grace_is_default && !self.extended {
            "; set --grace or BOWOUT_GRACE to your engine's stop timeout less 2s (5s from 30s up)"
        } else {
            ""
        };
        let grace = self.grace(note.now);
        text!(Warn, "killed"; "grace period of {grace} is over: {sent}{last}{hint}")
    }

    fn late_hook(&self, hook: usize) -> String {
        if self.is_by(Cause::Watchdog) {
            return "a pre-kill hook has not exited in time and was killed".into();
        }
        let skipped = match self.hooks.len() - hook - 1 {
            0 => String::new(),
            1 => ", the hook after it is skipped".into(),
            n => format!(", the {n} hooks after it are skipped"),
        };
        let hook = self.hook(hook);
        format!("pre-stop hook {hook} has not exited in time and was killed{skipped}")
    }

    /// The answer to a key.
    fn key_answer(&self, key: &str, note: &Note<'_>) -> String {
        let again = match self.settings.on_repeat {
            OnRepeat::Kill => format!("; {key} again kills it at once"),
            OnRepeat::Forward | OnRepeat::Ignore => String::new(),
        };
        let descendants = if self.ended.is_some() {
            "the descendants of "
        } else {
            ""
        };
        let (child, next) = (self.child(), self.next(note));
        format!("{key}: waiting for {descendants}{child} to exit, {next}{again}")
    }

    /// The next signal of the stop. The line of a stop that begins says which grace period is the
    /// default.
    fn next(&self, note: &Note<'_>) -> String {
        let (begins, from) = match (note.fact, &self.stop) {
            (Fact::Signal { outcome, .. }, _) => (matches!(outcome, Outcome::Began(_)), note.now),
            // As it was at the key.
            (Fact::CtrlC(_), Some(stop)) => (true, stop.at),
            (Fact::Began(..), _) | (Fact::ChildExited(_), None) => (true, note.now),
            _ => (false, note.now),
        };
        let default = if begins && self.settings.grace_is_default && note.next.is_some() {
            " (default)"
        } else {
            ""
        };
        next_signal(from, note.next) + default
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
