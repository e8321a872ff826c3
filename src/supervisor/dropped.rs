//! Logs how many sd_notify messages were dropped.

use std::time::{Duration, Instant};

use ::log::Level;

use crate::log::event;
use crate::sys::notify::Relay;

/// When the relay's count was last logged.
#[derive(Debug, Default)]
pub(super) struct Dropped {
    logged: Option<Instant>,
}

impl Dropped {
    /// Logs at once, then once a second, and at the end (`last`) the rest: a flood of messages must
    /// not become a flood of log lines.
    pub(super) fn log(&mut self, relay: &mut Relay, now: Instant, last: bool) {
        let recent = self
            .logged
            .is_some_and(|logged| now - logged < Duration::from_secs(1));
        if recent && !last {
            return;
        }
        let Some((count, why)) = relay.dropped.take() else {
            return;
        };
        self.logged = Some(now);
        let message = match count {
            1 => format!("dropped 1 sd_notify message: {why}"),
            _ => format!("dropped {count} sd_notify messages, the last because {why}"),
        };
        event!(Level::Warn, "notify_dropped", count = count, reason = why.as_str(); "{message}");
    }
}
