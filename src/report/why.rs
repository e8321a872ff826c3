//! Why the stop began, and why SIGKILL was sent.

use std::time::Instant;

use super::phrases::{duration, signal_from};
use super::{History, Note};
use crate::policy::{Cause, Fact, Outcome, Waiting};
use crate::signal::Signal;

impl History {
    /// Why SIGKILL was sent, for programs and for people.
    pub(super) fn reason_to_kill(&self, note: &Note<'_>) -> (&'static str, String) {
        let late = self.stop.as_ref().is_none_or(|stop| stop.late);
        let why = self.why().filter(|_| !late);
        let after = why.as_deref().unwrap_or("its exit");
        let asked = |signal| signal_from(signal, note.from.as_ref());
        match note.fact {
            Fact::Signal { received, .. } if received.signal == Signal::KILL => {
                ("parent_exit", asked(received.signal))
            }
            Fact::Signal {
                outcome: Outcome::Began(Waiting::Kill),
                ..
            } => {
                let text = format!("the grace period is 0 and {after} was received");
                ("grace_0", text)
            }
            Fact::Signal { received, .. } => {
                let text = format!("{} was a second stop request", asked(received.signal));
                ("second_request", text)
            }
            _ if self.settings.ladder.rungs() > 0 => {
                let grace = self.grace(note.now);
                (
                    "grace_over",
                    format!("{grace} grace period expired after {after}"),
                )
            }
            _ => {
                let and = why.map_or(String::new(), |why| format!(" and {why}"));
                ("grace_0", format!("the grace period is 0{and}"))
            }
        }
    }

    /// How long the grace period was; the child may have had it extended.
    pub(super) fn grace(&self, now: Instant) -> String {
        let given = self.settings.ladder.total(0).unwrap_or_default();
        duration(
            self.stop
                .as_ref()
                .filter(|_| self.extended)
                .map_or(given, |stop| now - stop.at),
        )
    }

    /// Why the stop began: `SIGTERM from outside`.
    pub(super) fn why(&self) -> Option<String> {
        let stop = self.stop.as_ref()?;
        Some(match stop.cause {
            Cause::Signal(signal) => signal_from(signal, stop.by.as_ref()),
            Cause::RunTime => {
                let most = self.settings.max_runtime.unwrap_or_default();
                format!("the run time of {} was over", duration(most))
            }
            Cause::Eof => "the end of its input".into(),
            Cause::SupervisorKilled => "bowout was killed".into(),
            Cause::GuardKilled => "bowout's guard was killed".into(),
            Cause::Replaced => "a new instance was ready".into(),
            Cause::NotReady => {
                let most = self.settings.ready_timeout.unwrap_or_default();
                format!("it was not ready within {}", duration(most))
            }
            Cause::Watchdog => {
                let most = self.settings.watchdog.unwrap_or_default();
                format!("the watchdog of {} expired", duration(most))
            }
        })
    }
}
