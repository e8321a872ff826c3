//! One run of a scenario under strace, and its result.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::common::{Status, timed, until};
use crate::scenarios::Scenario;
use crate::trace::{self, Call};

/// The time beyond bowout's own waits: machines are busy, and strace is slow.
const SLACK: Duration = Duration::from_secs(20);

/// The change to a call.
#[derive(Clone, Debug)]
pub struct Injection {
    pub call: String,
    /// `EPERM`, `retval=1`, or the name of a signal.
    pub what: String,
    pub nth: usize,
}

/// The processes whose calls are counted and failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    Bowouts,
    /// The child before its exec as well; strace counts in each process by itself.
    Both,
}

impl Injection {
    fn words(&self) -> Vec<String> {
        let what = match self.what.as_str() {
            what if what.starts_with("retval=") => what.to_owned(),
            what if what.starts_with("SIG") => format!("signal={what}"),
            what => format!("error={what}"),
        };
        vec![
            "-e".into(),
            format!("inject={}:{what}:when={}", self.call, self.nth),
        ]
    }
}

/// The result of a run.
#[derive(Debug)]
pub struct Outcome {
    pub status: Status,
    pub calls: Vec<Call>,
    pub log: Vec<String>,
    /// The log as it was written.
    pub raw: Vec<String>,
    /// Effects that no failure may have.
    pub violations: Vec<String>,
}

impl Outcome {
    /// Returns true if the child was forked: bowout reports a failure before that, and survives one
    /// after it.
    pub fn has_forked(&self) -> bool {
        self.calls.iter().any(Call::has_forked)
    }

    /// The purpose of the injected call.
    pub fn key(&self) -> Option<String> {
        let hits: Vec<&Call> = self.calls.iter().filter(|call| call.injected).collect();
        let child = hits.iter().find(|call| call.pid != self.calls[0].pid);
        match (hits.first()?, child) {
            (first, None) => Some(first.key.clone()),
            (_, Some(call)) if hits.len() == 1 => Some(format!("{} (in the child)", call.key)),
            (_, Some(call)) => Some(format!(
                "{} (in the child, and the first of bowout)",
                call.key
            )),
        }
    }

    /// Returns true if the injected call was the C library's, before bowout's own first
    /// instruction.
    pub fn is_library(&self) -> bool {
        self.calls
            .iter()
            .any(|call| call.injected && call.library && call.pid == self.calls[0].pid)
    }
}

/// Runs the scenario. The error is the message of a panic, such as the watchdog's.
pub fn run(
    scenario: &Scenario,
    whose: Whose,
    injection: Option<&Injection>,
) -> Result<Outcome, String> {
    let result = catch_unwind(AssertUnwindSafe(|| supervise(scenario, whose, injection)));
    result.map_err(|cause| {
        let text = cause.downcast_ref::<String>().cloned();
        text.or_else(|| cause.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_default()
    })
}

fn supervise(scenario: &Scenario, whose: Whose, injection: Option<&Injection>) -> Outcome {
    let (dir, _manager) = scenario.prepare();
    let file = dir.file("trace");
    let mut words: Vec<String> = vec!["-o".into(), file.to_str().expect("text").into()];
    if whose == Whose::Both {
        // The trace ends at the exec, after which the process is the command.
        words.extend(["-f", "-b", "execve"].map(String::from));
    }
    words.extend(injection.iter().flat_map(|injection| injection.words()));
    let ((mut bowout, status), took) = timed(|| {
        let mut bowout = scenario.start(&dir, &words);
        scenario.drive(&bowout);
        let status = bowout.wait();
        (bowout, status)
    });
    let mut violations = vec![];
    if injection.is_some_and(|injection| injection.what == "SIGKILL") {
        // The kernel then kills the child, which takes its time.
        until("the child ends with bowout", || {
            bowout
                .left()
                .into_iter()
                .all(|pid| ["", "strace"].contains(&name(pid).as_str()))
                .then_some(())
        });
    }
    // A process that has exited meanwhile has no name.
    let left = bowout
        .left()
        .into_iter()
        .map(name)
        .filter(|name| !name.is_empty() && name != "strace");
    let left: Vec<String> = left.collect();
    until("strace has ended", || {
        bowout
            .left()
            .into_iter()
            .all(|pid| name(pid) != "strace")
            .then_some(())
    });
    let me = if bowout.died(1) == Status::Code(129) {
        1
    } else {
        bowout.pid
    };
    let calls = trace::parse(&fs::read_to_string(&file).unwrap_or_default(), &dir.0, me);
    // If a process is left, the pipe does not end.
    let raw = if left.is_empty() {
        bowout.log()
    } else {
        bowout.err.seen()
    };
    let log: Vec<String> = raw.iter().map(|line| trace::plain(line, &dir.0)).collect();
    let said =
        status == Status::Code(137) || raw.iter().any(|line| line.contains("are not supervised"));
    if !left.is_empty() && !said {
        violations.push(format!("left running: {left:?}"));
    }
    if raw.iter().any(|line| line.contains("panicked")) {
        violations.push("a panic".into());
    }
    if took > Duration::from_millis(scenario.bound_ms) + SLACK {
        violations.push(format!("took {took:?}"));
    }
    Outcome {
        status,
        calls,
        log,
        raw,
        violations,
    }
}

fn name(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm"))
        .unwrap_or_default()
        .trim()
        .to_owned()
}
