//! The result of a failed call, in words, and the results that are wrong.

use std::collections::BTreeSet;

use crate::common::Status;
use crate::errors;
use crate::run::{Injection, Outcome, Whose, run};
use crate::scenarios::Scenario;
use crate::trace::Call;

/// The number of runs of a scenario without any failure. Their logs may differ, because the order
/// of events does.
const TIMES: usize = 4;

/// A scenario in which no call fails.
pub struct Base {
    calls: Vec<Call>,
    /// The lines in every log.
    always: BTreeSet<String>,
    /// The lines in any log.
    ever: BTreeSet<String>,
}

impl Base {
    pub fn of(scenario: &Scenario, whose: Whose) -> Self {
        let runs: Vec<Outcome> = (0..TIMES)
            .map(|_| {
                let outcome = run(scenario, whose, None)
                    .unwrap_or_else(|panic| panic!("{}: {panic}", scenario.name));
                assert_eq!(
                    outcome.status, scenario.status,
                    "{}: {:#?}",
                    scenario.name, outcome.raw
                );
                assert!(
                    outcome.violations.is_empty(),
                    "{}: {:#?}",
                    scenario.name,
                    outcome.violations
                );
                outcome
            })
            .collect();
        let logs: Vec<BTreeSet<String>> = runs
            .iter()
            .map(|run| run.log.iter().cloned().collect())
            .collect();
        let ever = logs.iter().flatten().cloned().collect();
        let always = logs[0]
            .iter()
            .filter(|line| logs.iter().all(|log| log.contains(*line)))
            .cloned()
            .collect();
        let calls = runs
            .into_iter()
            .max_by_key(|run| run.calls.len())
            .expect("there are runs")
            .calls;
        Self {
            calls,
            always,
            ever,
        }
    }

    /// The calls that are to fail: all of bowout's, or those of the child before its exec.
    pub fn calls_of(&self, whose: Whose) -> Vec<&Call> {
        let own = self.calls[0].pid;
        self.calls
            .iter()
            .filter(|call| whose == Whose::Bowouts || call.pid != own)
            .collect()
    }
}

fn is_crash(status: Status) -> bool {
    [libc::SIGABRT, libc::SIGSEGV, libc::SIGBUS, libc::SIGILL]
        .into_iter()
        .any(|signal| status == Status::Signal(signal) || status == Status::Code(128 + signal))
}

fn named(status: Status) -> String {
    match status {
        Status::Code(code) => format!("exit code {code}"),
        Status::Signal(libc::SIGKILL) => "killed".into(),
        Status::Signal(signal) => format!("death by signal {signal}"),
    }
}

/// The outcome in words, and the objections to it.
pub fn judge(
    scenario: &Scenario,
    base: &Base,
    injection: &Injection,
    outcome: &Outcome,
) -> (String, Vec<String>) {
    let mut wrong = outcome.violations.clone();
    let status = outcome.status;
    let log: BTreeSet<String> = outcome.log.iter().cloned().collect();
    let text = errors::description(&injection.what);
    let more = log
        .difference(&base.ever)
        .map(|line| line.trim_start_matches("bowout: ").replace(&text, "ERROR"));
    let more: Vec<String> = more.collect();
    let less = base.always.difference(&log).count();
    if outcome.is_library() {
        return if status == scenario.status {
            ("C library: goes on".into(), wrong)
        } else {
            if outcome.has_forked() {
                wrong.push("started, and ended otherwise".into());
            }
            ("C library: ends, nothing started".into(), wrong)
        };
    }
    if is_crash(status) {
        wrong.push("a crash".into());
    }
    if !outcome.has_forked() {
        if status != Status::Code(125)
            || outcome.raw.len() != 1
            || !outcome.raw[0].starts_with("bowout: ")
        {
            wrong.push("nothing was started, and that is not 125 and one line".into());
        }
        return (
            format!("nothing started, exit code 125: {}", more.join("; ")),
            wrong,
        );
    }
    let kept = status == scenario.status;
    let explained = match status {
        Status::Code(125..=127) => more.iter().any(|line| line.contains("cannot run '")),
        Status::Code(137) | Status::Signal(libc::SIGKILL) => more
            .iter()
            .any(|line| line.contains("SIGKILL") || line.contains("cannot kill")),
        // The notifier exits with 98 where it has no manager.
        Status::Code(98) => more.iter().any(|line| line.contains("cannot relay")),
        _ => false,
    };
    if !kept && !explained {
        wrong.push("neither the child's own status nor one that the log explains".into());
    }
    let ended = if kept {
        "the child's own status".into()
    } else {
        named(status)
    };
    let told = match (more.is_empty(), less) {
        (true, 0) => "nothing lost".into(),
        (true, _) => "a log line is lost".into(),
        (false, _) => more.join("; "),
    };
    (format!("{ended}, {told}").replace('|', "/"), wrong)
}

/// The objection to a run in which bowout was sent a signal, if any.
pub fn judge_signal(
    scenario: &Scenario,
    injection: &Injection,
    outcome: &Outcome,
) -> Option<String> {
    if !outcome.violations.is_empty() {
        return Some(outcome.violations.join(", "));
    }
    let by = |signal: i32| {
        outcome.status == Status::Signal(signal) || outcome.status == Status::Code(128 + signal)
    };
    if injection.what == "SIGKILL" {
        return (!by(libc::SIGKILL) && outcome.status != scenario.status)
            .then(|| "neither killed nor ended before".into());
    }
    // Before its own first instruction, bowout cannot handle the signal.
    if outcome.status == scenario.status || (by(libc::SIGTERM) && !outcome.has_forked()) {
        return None;
    }
    let told = outcome.log.iter().any(|line| line.contains("SIGTERM"));
    let obeyed =
        told && (by(libc::SIGTERM) || by(libc::SIGKILL) || outcome.status == Status::Code(7));
    (!obeyed).then(|| "a status that the log does not explain".into())
}
