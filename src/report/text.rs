//! The log lines: one for a fact. A line says what happened, to which process, why, and what
//! follows.

use std::time::Duration;

use log::Level::{self, Debug, Info, Warn};

use super::phrases::{descendants, duration, names, next_signal, signal_from};
use super::{Earlier, History, Line, Note};
use crate::exit::Exit;
use crate::policy::{Fact, Outcome, Reason, Received, Waiting};
use crate::sender::Side;
use crate::signal::{Signal, Target};

/// A command that exits with 0 so soon and leaves descendants has probably daemonised.
const DAEMONISED: Duration = Duration::from_secs(1);

/// Level, event and sentence.
type Text = (Level, &'static str, String);

impl History {
    /// The line about a fact that was folded into what was known `earlier`.
    pub(super) fn line(&self, note: &Note<'_>, earlier: Earlier) -> Option<Line> {
        let (level, event, text) = match note.fact {
            Fact::Signal {
                received, outcome, ..
            } => self.signal(note, received, outcome)?,
            Fact::ChildExited(exit) => self.child_exited(note, exit)?,
            Fact::CtrlC(_) | Fact::Cancelled | Fact::ChildStopped { .. } | Fact::Resumed { .. } => {
                self.on_terminal(note)?
            }
            Fact::RuntimeOver(_)
            | Fact::HookOver { .. }
            | Fact::DelayOver
            | Fact::Escalated
            | Fact::GraceOver
            | Fact::KilledAgain
            | Fact::GaveUp
            | Fact::DeadlineLate
            | Fact::Extended { .. }
            | Fact::NewChildren => self.stopping(note, earlier)?,
        };
        Some(Line {
            level,
            event,
            fields: self.fields(note),
            text,
        })
    }

    /// A step of the stop.
    fn stopping(&self, note: &Note<'_>, earlier: Earlier) -> Option<Text> {
        let (child, next) = (self.child(), self.next(note));
        let sent = || self.sent_or_has(note);
        Some(match note.fact {
            Fact::RuntimeOver(waiting) => {
                let ran = duration(note.now - self.started);
                let then = match waiting {
                    Waiting::Preparation { .. } => self.preparing(waiting, &next),
                    Waiting::Kill => format!("{}, because the grace period is 0", sent()),
                    Waiting::Child | Waiting::Descendants => format!("{}, {next}", sent()),
                };
                let text = format!("{child} has run for {ran}: {then}");
                (Warn, "runtime_over", text)
            }
            Fact::HookOver { hook, deadline } => {
                let (level, late) = if deadline {
                    (Warn, self.late_hook(hook))
                } else {
                    (Info, String::new())
                };
                (
                    level,
                    "stop_signal_sent",
                    format!("{late}{}, {next}", sent()),
                )
            }
            Fact::DelayOver => {
                let text = format!("stop delay is over: {}, {next}", sent());
                (Info, "stop_signal_sent", text)
            }
            Fact::Escalated => {
                let text = format!("{child} goes on: {}, {next}", sent());
                (Warn, "escalated", text)
            }
            Fact::GraceOver => (Warn, "killed", self.grace_over(note, earlier)),
            // Descendants that are killed for the first time were not asked to stop before.
            Fact::KilledAgain if !earlier.killed && self.killed_count() > 0 => {
                (Warn, "killed", sent())
            }
            Fact::KilledAgain => (Debug, "killed_again", "sent SIGKILL again".into()),
            Fact::DeadlineLate => {
                let next = note.next.map_or("SIGKILL in 1s".into(), |_| next);
                let late = "the deadline passed while bowout was stopped or frozen";
                (Info, "deadline_late", format!("{late}: {next}"))
            }
            Fact::Extended { asked, .. } => {
                let text = format!("{child} asks for {} to exit: {next}", duration(asked));
                (Info, "grace_extended", text)
            }
            Fact::NewChildren => {
                let text = format!("{} that appeared during the stop", self.sent(note)?);
                (Info, "descendants_stopped", text)
            }
            // The supervisor logs each process that SIGKILL has not ended.
            _ => return None,
        })
    }

    fn late_hook(&self, hook: usize) -> String {
        let skipped = match self.hooks.len() - hook - 1 {
            0 => String::new(),
            1 => ", the hook after it is skipped".into(),
            n => format!(", the {n} hooks after it are skipped"),
        };
        let hook = self.hook(hook);
        format!("pre-stop hook {hook} has not exited in time and was killed{skipped}: ")
    }

    /// The terminal: keys that a prompt may cancel, and job control.
    fn on_terminal(&self, note: &Note<'_>) -> Option<Text> {
        let child = self.child();
        Some(match note.fact {
            Fact::CtrlC(waiting @ Waiting::Preparation { .. }) => {
                let then = self.preparing(waiting, &self.next(note));
                let text = format!("received {}: {then}", self.why()?);
                (Info, "stop_requested", text)
            }
            Fact::CtrlC(_) => {
                // The grace period as it was at the key.
                let next = next_signal(self.stop.as_ref()?.at, note.next) + self.default();
                (Info, "stop_requested", self.key_answer("Ctrl-C", &next))
            }
            Fact::Cancelled => {
                let text = format!("Ctrl-C: {child} is at its prompt, the stop is cancelled");
                (Debug, "stop_cancelled", text)
            }
            Fact::ChildStopped { lent: false, .. } | Fact::Resumed { suspended: false }
                if self.place.job_control && note.woken =>
            {
                let text = "was stopped and no shell could continue it: sent SIGCONT to it";
                (Info, "child_continued", format!("{child} {text}"))
            }
            Fact::ChildStopped { signal, lent } => {
                let lent = if lent {
                    ": lending it the terminal"
                } else {
                    ""
                };
                let text = format!("{child} was stopped by {signal}{lent}");
                (Debug, "child_stopped", text)
            }
            Fact::Resumed { suspended: true } => {
                (Debug, "job_continued", format!("{child} goes on"))
            }
            Fact::Resumed { suspended: false } => {
                (Debug, "job_continued", format!("{child} stays stopped"))
            }
            _ => return None,
        })
    }

    fn signal(&self, note: &Note<'_>, received: Received, outcome: Outcome) -> Option<Text> {
        let asked = signal_from(received.signal, note.from.as_ref());
        let next = self.next(note);
        let kill = note.kill().and_then(|_| self.sent(note));
        Some(match (outcome, kill) {
            // The first look at the terminal logs it.
            (Outcome::Looks, _) => return None,
            (Outcome::Began(waiting @ Waiting::Preparation { .. }), _) => {
                let then = self.preparing(waiting, &next);
                (Info, "stop_requested", format!("received {asked}: {then}"))
            }
            (Outcome::Began(Waiting::Kill), kill) => {
                let sent = kill.unwrap_or_default();
                (
                    Warn,
                    "killed",
                    format!("received {asked}: {sent}, because the grace period is 0"),
                )
            }
            (Outcome::Began(_), _) => {
                let text = key(received).map(|key| self.key_answer(key, &next));
                let sent = || {
                    self.sent(note).unwrap_or_else(|| match received.side {
                        // It is in bowout's process group: `kill 0` would have reached it, and
                        // `kill $PPID` has not.
                        Side::Tree => format!("not sent back to {}", self.child()),
                        _ => format!("{} received it already", self.child()),
                    })
                };
                let text = text.unwrap_or_else(|| format!("received {asked}: {}, {next}", sent()));
                (Info, "stop_requested", text)
            }
            (Outcome::Killed, Some(sent)) if received.signal == Signal::KILL => {
                (Warn, "killed", format!("{asked}: {sent}"))
            }
            (Outcome::Killed, Some(sent)) => (
                Warn,
                "killed",
                format!("received {asked}, the second stop request: {sent}"),
            ),
            (Outcome::Killed, None) => {
                let text = format!("not forwarded: {} has exited already", self.child());
                (Info, "signal_not_forwarded", format!("{asked} {text}"))
            }
            (Outcome::Forwarded, _) => self.forwarded(note, received, &asked)?,
            (Outcome::NotForwarded(reason), _) => {
                let (level, why) = self.not_forwarded(note, received, reason);
                (level, "signal_not_forwarded", format!("{asked} {why}"))
            }
        })
    }

    fn forwarded(&self, note: &Note<'_>, received: Received, asked: &str) -> Option<Text> {
        let Some(sent) = note.sent().next() else {
            let text = format!(
                "{asked} not forwarded: {} received it already",
                self.child()
            );
            return Some((Debug, "signal_not_forwarded", text));
        };
        let to = self.target(sent);
        let remapped = if sent.signal == received.signal {
            String::new()
        } else {
            format!(" as {}", sent.signal)
        };
        if sent.reached == 0 {
            let text = format!("{asked} could not be forwarded to {to}{remapped}");
            return Some((Warn, "signal_not_forwarded", text));
        }
        // The STOPSIGNAL of many images; a container engine stops waiting without a word.
        let quit = received.signal == Signal::QUIT && received.side == Side::Outside;
        let hint = if quit && self.stop.is_none() {
            "; with --stop-signal QUIT it is a stop request"
        } else {
            ""
        };
        // The companion of every stop signal and of every `fg`.
        let level = if received.signal == Signal::CONT {
            Debug
        } else {
            Info
        };
        Some((
            level,
            "signal_forwarded",
            format!("forwarded {asked} to {to}{remapped}{hint}"),
        ))
    }

    fn not_forwarded(
        &self,
        note: &Note<'_>,
        received: Received,
        reason: Reason,
    ) -> (Level, String) {
        let terminal = received.side == Side::Terminal;
        let child = self.child();
        let already = (Debug, format!("not forwarded: {child} received it already"));
        match reason {
            Reason::Dropped => (Info, "dropped, as --remap says".into()),
            Reason::Received => already,
            Reason::Preparing if terminal && received.signal == Signal::INT => already,
            Reason::Preparing => (
                Info,
                format!("not forwarded yet: the stop of {child} is being prepared"),
            ),
            Reason::Stopping if terminal => already,
            Reason::Stopping => {
                let next = self.next(note);
                (
                    Info,
                    format!("not forwarded: {child} is being stopped already, {next}"),
                )
            }
            Reason::ChildExited | Reason::ChildKilled => {
                let what = match reason {
                    Reason::ChildExited => "has exited",
                    _ => "is being killed",
                };
                // The last line reports a key that ended the child.
                (
                    if terminal { Debug } else { Info },
                    format!("not forwarded: {child} {what}"),
                )
            }
        }
    }

    fn child_exited(&self, note: &Note<'_>, exit: Exit) -> Option<Text> {
        let ran = self.run_time(note.now);
        if note.left == 0 {
            return None;
        }
        let asked = note.sent.iter().find(|sent| sent.to == Target::Unasked);
        let named = asked.iter().flat_map(|sent| &sent.processes);
        let left = format!("{} left{}", descendants(note.left), names(note.left, named));
        let head = format!("{} after {}, {left}", self.ending(exit), duration(ran));
        let (level, text) = match asked {
            Some(sent) => {
                let sent = match (sent.reached, sent.refused) {
                    (0, 0) => "already sent SIGTERM".into(),
                    (0, _) => format!("{} could not be sent", sent.signal),
                    _ => format!("sent {}", sent.signal),
                };
                let line = format!("{head}: {sent}, {}", self.next(note));
                if exit == Exit::Code(0) && ran < DAEMONISED && self.stop.is_none() {
                    let hint = "if it daemonised, --wait-tree waits for them and --kill-mode process leaves them alone";
                    (Warn, format!("{line}; {hint}"))
                } else {
                    (Info, line)
                }
            }
            None if note.kill().is_some() => (Warn, format!("{head}: {}", self.sent(note)?)),
            None if self.settings.wait_tree => {
                let them = if note.left == 1 { "it" } else { "them" };
                (Info, format!("{head}: waiting for {them} to exit"))
            }
            // The usual end, which the last line reports.
            None => return None,
        };
        Some((level, "child_exited", text))
    }

    fn grace_over(&self, note: &Note<'_>, earlier: Earlier) -> String {
        let sent = self.sent_or_has(note);
        if earlier.last_second {
            return format!("1s after SIGTERM: {sent}");
        }
        let last = match note.sent().nth(1).map(|sent| self.others(sent)) {
            Some(1) => ", SIGKILL to it in 1s",
            Some(_) => ", SIGKILL to them in 1s",
            None => "",
        };
        // The engine may allow more than the default, or less. Where no engine asked for the stop,
        // its timeout does not matter.
        let asked = self.stop.as_ref().is_some_and(|stop| stop.by.is_some());
        let hint = if asked && self.settings.grace_is_default && !self.extended {
            "; set --grace or BOWOUT_GRACE to your engine's stop timeout less 2s (5s from 30s up)"
        } else {
            ""
        };
        format!(
            "grace period of {} is over: {sent}{last}{hint}",
            self.grace(note.now)
        )
    }

    /// The next signal of the stop. Where the stop begins, a default grace period is called so.
    fn next(&self, note: &Note<'_>) -> String {
        let begins = match note.fact {
            Fact::Signal { outcome, .. } => matches!(outcome, Outcome::Began(_)),
            Fact::RuntimeOver(_) | Fact::CtrlC(_) => true,
            Fact::ChildExited(_) => self.stop.is_none(),
            _ => false,
        };
        let next = next_signal(note.now, note.next);
        if begins && note.next.is_some() {
            next + self.default()
        } else {
            next
        }
    }

    fn default(&self) -> &'static str {
        if self.settings.grace_is_default {
            " (default)"
        } else {
            ""
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
