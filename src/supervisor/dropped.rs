//! The count of the sd_notify messages that were not passed on, and when it is told.

use std::mem;
use std::time::{Duration, Instant};

use ::log::Level;

use crate::log::event;

/// What the manager has not heard: told at once, then once a second, and the rest at the end, for
/// whoever floods the relay would flood the log.
#[derive(Debug, Default)]
pub(super) struct Dropped {
    count: usize,
    why: String,
    told: Option<Instant>,
}

impl Dropped {
    /// Counts what one turn has dropped, and why the last of it was, at `now`.
    pub(super) fn add(&mut self, dropped: Option<(usize, String)>, now: Instant) {
        let Some((count, why)) = dropped else { return };
        self.count += count;
        self.why = why;
        if self
            .told
            .is_none_or(|told| now - told >= Duration::from_secs(1))
        {
            self.told = Some(now);
            self.tell();
        }
    }

    /// Tells what was not told so far.
    pub(super) fn tell(&mut self) {
        let why = &self.why;
        let count = mem::take(&mut self.count);
        let message = match count {
            0 => return,
            1 => format!("dropped 1 sd_notify message: {why}"),
            _ => format!("dropped {count} sd_notify messages, the last because {why}"),
        };
        event!(Level::Warn, "notify_dropped", count = count, reason = why.as_str(); "{message}");
    }
}
