//! The lines about the keys of the terminal.

use log::Level;

use super::{History, Step};
use crate::policy::{OnRepeat, Received, State};
use crate::sender::Side;
use crate::signal::Signal;

impl History {
    /// A look at the terminal. The first that finds no prompt logs the Ctrl-C, with its deadline as
    /// it was then.
    pub(super) fn terminal_seen(&self, step: &Step<'_>) -> Option<(Level, &'static str, String)> {
        let stop = self.stop.as_ref();
        match (step.before, step.after) {
            (State::Preparing { .. } | State::Stopping { .. }, State::Running { .. }) => {
                let text = format!(
                    "Ctrl-C: {} is at its prompt, the stop is cancelled",
                    self.child()
                );
                Some((Level::Debug, "stop_cancelled", text))
            }
            (State::Preparing { .. }, State::Stopping { .. }) => {
                let next = self.next_at(stop.map_or(step.now, |stop| stop.at), step);
                Some((Level::Info, "stop_requested", self.waiting("Ctrl-C", &next)))
            }
            (before @ State::Preparing { .. }, after @ State::Preparing { .. })
                if before != after =>
            {
                let text = format!("stop request {}: {}", self.why()?, self.preparing(step));
                Some((Level::Info, "stop_requested", text))
            }
            (_, _) => None,
        }
    }

    /// The answer to a key.
    pub(super) fn waiting(&self, key: &str, next: &str) -> String {
        let again = match self.settings.on_repeat {
            OnRepeat::Kill => format!("; {key} again kills it at once"),
            OnRepeat::Forward | OnRepeat::Ignore => String::new(),
        };
        let descendants = if self.ended.is_some() {
            "the descendants of "
        } else {
            ""
        };
        format!(
            "{key}: waiting for {descendants}{} to exit, {next}{again}",
            self.child()
        )
    }
}

/// The key that the user has pressed.
pub(super) fn key(received: Received) -> Option<&'static str> {
    match (received.side, received.signal) {
        (Side::Terminal, Signal::INT) => Some("Ctrl-C"),
        (Side::Terminal, Signal::QUIT) => Some("Ctrl-\\"),
        _ => None,
    }
}
