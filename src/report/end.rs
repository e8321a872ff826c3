//! The last line and the termination message: how the child exited, after how long, and why.

use std::time::Instant;

use log::Level;

use super::phrases::{descendants, duration, names};
use super::{History, Line, Stop, json};
use crate::exit::{Exit, OomKills};
use crate::policy::Cause;
use crate::sender::Side;
use crate::signal::Signal;

impl History {
    /// The last line: how the child exited, after how long, and why.
    pub(crate) fn end(&self, now: Instant, exit: Exit) -> Line {
        let mut text = match self.exit() {
            Some(ended) => self.ending(ended),
            None => format!("{} could not be killed", self.child()),
        };
        text += &format!(
            " after {}{}",
            duration(self.run_time(now)),
            self.because(now)
        );
        if self
            .ended
            .is_none_or(|(ended, _)| ended.number() != exit.number())
        {
            text += &format!("; bowout exits with {}", exit.number());
        }
        let fields = vec![
            ("child_pid", self.pid.into()),
            ("exit_code", self.exit().and_then(Exit::code).into()),
            ("exit_signal", self.exit().and_then(Exit::signal).into()),
            ("run_time_ms", json::millis(self.run_time(now)).into()),
            ("status", exit.number().into()),
        ];
        Line {
            level: self.end_level(),
            event: "exited",
            fields,
            text,
        }
    }

    /// A routine run logs nothing. The last line is for a stop, descendants that were left, a death
    /// by a signal, and, as PID 1, every failure: the log is all that a container leaves.
    pub(crate) fn end_level(&self) -> Level {
        let ctrl_c = |stop: &Stop| {
            let side = stop.by.as_ref().map(|from| from.side);
            (stop.cause, side) == (Cause::Signal(Signal::INT), Some(Side::Terminal))
        };
        // Where Ctrl-C is not a stop request, nothing shows that it was received.
        let terminal = self.place.job_control;
        match self.exit() {
            None => Level::Warn,
            Some(_) if self.kill.is_some() || self.oom.is_some() => Level::Warn,
            Some(Exit::Signal(Signal::INT))
                if self.left == 0 && self.stop.as_ref().map_or(terminal, ctrl_c) =>
            {
                Level::Debug
            }
            Some(_) if self.stop.is_some() || self.left > 0 => Level::Info,
            Some(Exit::Signal(Signal::PIPE)) => Level::Debug,
            Some(Exit::Signal(_)) => Level::Info,
            Some(Exit::Code(1..)) if self.place.pid1 => Level::Info,
            Some(Exit::Code(_)) => Level::Debug,
        }
    }

    /// The message that Kubernetes shows for the container: one line, complete without the log.
    pub(crate) fn termination_message(&self, now: Instant) -> String {
        let mut line = match self.exit() {
            Some(Exit::Signal(signal)) => format!("killed by {signal}"),
            Some(exit @ Exit::Code(_)) => exit.to_string(),
            None => "could not be killed".into(),
        };
        if self.core {
            line += " (core dumped)";
        }
        line += &self.because(now);
        line + &format!(
            "; main process {} (pid {}), ran for {}",
            self.command_name(),
            self.pid,
            duration(self.run_time(now))
        )
    }

    /// The reason for the child's exit, and the fate of its descendants.
    fn because(&self, now: Instant) -> String {
        let ended = self.ended.map_or(now, |(_, at)| at);
        let stopped = match (&self.stop, self.why()) {
            // With `--wait-tree` the child can have exited long before the stop.
            (Some(stop), Some(why)) if !stop.late && stop.at <= ended => {
                format!(", {} after {why}", duration(ended - stop.at))
            }
            (_, _) => String::new(),
        };
        let count = self.killed_count();
        let killed = (count > 0).then(|| descendants(count));
        let names = names(count, self.killed_descendants());
        // It can exit by itself while SIGKILL is on its way.
        let by_itself = |exited: bool| {
            exited
                || self
                    .exit()
                    .is_some_and(|exit| exit != Exit::Signal(Signal::KILL))
        };
        let stopped = stopped + &self.oom.map(oom).unwrap_or_default();
        match (&self.kill, killed) {
            (Some(kill), Some(killed)) if by_itself(kill.exited) => {
                let why = &kill.why;
                format!("{stopped}; killed {killed} that it left running{names}: {why}")
            }
            (Some(kill), Some(killed)) => format!(": {}; killed {killed}, too{names}", kill.why),
            (Some(kill), None) if !by_itself(kill.exited) => format!(": {}", kill.why),
            (None, _) if self.left > 0 => {
                format!(
                    "{stopped}; {} that it left running exited {} later",
                    descendants(self.left),
                    duration(now - ended)
                )
            }
            _ => stopped,
        }
    }

    pub(super) fn ending(&self, exit: Exit) -> String {
        format!(
            "{} {exit}{}",
            self.child(),
            if self.core { " (core dumped)" } else { "" }
        )
    }
}

/// The kills of the OOM killer, for the end of a sentence. The counter does not distinguish the
/// child from other processes.
fn oom(kills: OomKills) -> String {
    let times = match kills.count {
        1 => "1 process".into(),
        count => format!("{count} processes"),
    };
    let during = if kills.during_run {
        " during the run"
    } else {
        ""
    };
    let limit = kills
        .limit
        .map(|limit| format!(" (limit {} MiB)", limit >> 20));
    let limit = limit.unwrap_or_default();
    format!("; the kernel's OOM killer killed {times} in this control group{during}{limit}")
}
