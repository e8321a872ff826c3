//! The report for machines: one JSON object (RFC 8259). Times are RFC 3339 in UTC, durations
//! milliseconds. man/report.schema.json describes each field.

use std::time::{Duration, Instant};

use humantime::format_rfc3339_millis;
use serde_json::{Value, json};

use super::failure::{SCHEMA, error_code, how};
use super::{History, Note, Sent, Stop};
use crate::exit::Exit;
use crate::policy::{Cause, Fact};
use crate::process::NamedProcess;
use crate::sender::{NamedSender, Side};
use crate::signal::Signal;

impl History {
    /// The report of a supervision that is over: bowout ends with `exit`, because of an `error` if
    /// the command could not be run, and `lost` log lines were not written.
    pub(crate) fn report(
        &self,
        now: Instant,
        exit: Exit,
        error: Option<&str>,
        lost: u64,
    ) -> String {
        let killed = self.killed_count();
        let contains = if self.containment.adopts_orphans {
            "subreaper"
        } else {
            "none"
        };
        let report = json!({
            "schema": SCHEMA,
            "bowout": env!("CARGO_PKG_VERSION"),
            "command": self.command,
            "pid": self.pid,
            "start": self.stamp(self.started),
            "end": self.stamp(now),
            "run_time_ms": millis(self.run_time(now)),
            "ready_ms": self.ready.map(|at| millis(at - self.started)),
            "drain_time_ms": self.ended.map(|(_, at)| millis(now - at)),
            // A child that exits with 126 or 127 then is not the command yet.
            "child": self.exit().filter(|_| error.is_none()).map(|ended| how(ended, Some(self.core))),
            "error": error,
            "error_code": error.map(|_| error_code(exit)),
            "exit": how(exit, None),
            "containment": if self.place.pid1 { "pid1" } else { contains },
            "outlives_bowout": !self.place.pid1 && !self.containment.guarded,
            "stop": self.stop.as_ref().map(|stop| self.stop_report(stop, now)),
            "descendants": {
                "left": self.left,
                "ended": self.left.saturating_sub(killed),
                "killed": killed,
            },
            "killed": self.killed.values().map(process).collect::<Value>(),
            "survivors": self.survivors.iter().map(process).collect::<Value>(),
            "oom": self.oom.map(|kills| json!({
                "kills": kills.count,
                "during_run": kills.during_run,
                "limit_bytes": kills.limit,
            })),
            "orphans_reaped": self.orphans,
            "user_time_ms": millis(self.usage.user),
            "system_time_ms": millis(self.usage.system),
            "max_rss_kib": self.usage.max_rss,
            "log_lines_lost": lost,
        });
        format!("{report}\n")
    }

    fn stamp(&self, at: Instant) -> String {
        format_rfc3339_millis(self.started_at + (at - self.started)).to_string()
    }

    /// The fields of a line, for `--log-format json`.
    pub(super) fn fields(&self, note: &Note<'_>) -> Vec<(&'static str, Value)> {
        let mut fields = vec![("child_pid", self.pid.into())];
        let by = match (note.fact, &self.stop) {
            (Fact::Signal { received, .. }, _) => Some((received.signal, note.from.as_ref())),
            // The line of a Ctrl-C that was received before.
            (Fact::CtrlC(_), Some(stop)) => Some((Signal::INT, stop.by.as_ref())),
            _ => None,
        };
        if let Some((signal, from)) = by {
            fields.push(("signal", signal.to_string().into()));
            fields.push(("sender", from.map_or(Value::Null, NamedSender::json)));
        }
        if let Fact::ChildExited(exit) = note.fact {
            fields.push(("exit_code", exit.code().into()));
            fields.push(("exit_signal", exit.signal().into()));
            fields.push(("descendants_left", note.left.into()));
        }
        if !note.sent.is_empty() {
            let sent = |sent: &Sent| {
                let mut json =
                    json!({ "signal": sent.signal.to_string(), "processes": sent.reached });
                if !sent.processes.is_empty() {
                    json["named"] = sent.processes.iter().map(process).collect();
                }
                json
            };
            fields.push(("sent", note.sent.iter().map(sent).collect()));
        }
        if let Some((signal, until)) = note.next {
            let wait = until.saturating_duration_since(note.now);
            fields.push(("next_signal", signal.to_string().into()));
            fields.push(("next_in_ms", millis(wait).into()));
        }
        fields
    }

    fn stop_report(&self, stop: &Stop, now: Instant) -> Value {
        let since = |at: Instant| millis(at.saturating_duration_since(stop.at));
        let sent = || self.rungs.iter().filter(|rung| rung.at >= stop.at);
        let forwarded =
            sent().find(|rung| rung.to_child && rung.signal != Signal::KILL && !stop.late);
        let rungs: Vec<_> = sent()
            .map(|rung| json!({ "signal": rung.signal.to_string(), "after_ms": since(rung.at) }))
            .collect();
        let by = match (stop.cause, &stop.by) {
            (Cause::Signal(signal), Some(from)) => {
                let mut by = from.json();
                by["signal"] = signal.to_string().into();
                by
            }
            _ => Value::Null,
        };
        json!({
            "reason": stop.cause.code(),
            "by": by,
            "at": self.stamp(stop.at),
            // Null where the child received it from the terminal, was killed at once, or had
            // exited.
            "forwarded_after_ms": forwarded.map(|rung| since(rung.at)),
            "rungs": rungs,
            "more_rungs": self.more_rungs,
            "escalated": self.kill.as_ref().map(|kill| &kill.why),
            "escalated_by": self.kill.as_ref().map(|kill| kill.code),
            "took_ms": since(now),
            "grace_ms": self.settings.ladder.total(0).map(millis),
        })
    }
}

impl NamedSender {
    /// The sender; its numbers are null where it has none in this PID namespace.
    pub(super) fn json(&self) -> Value {
        let known = !matches!(self.side, Side::Terminal | Side::Outside);
        json!({
            "side": self.side.to_string(),
            "pid": known.then_some(self.sender.pid),
            "uid": (known && !self.sender.exited).then_some(self.sender.uid),
            "name": self.name,
        })
    }
}

/// A process; null for each value that /proc did not give.
fn process(process: &NamedProcess) -> Value {
    let known = |text: String| (text != "?").then_some(text);
    json!({
        "pid": process.pid,
        "name": known(process.name.clone()),
        "state": known(process.state.to_string()),
        "waits_in": process.waits_in,
        "age_ms": process.age.map(millis),
    })
}

pub(super) fn millis(wait: Duration) -> u64 {
    wait.as_millis().try_into().unwrap_or(u64::MAX)
}
