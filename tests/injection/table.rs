//! The table of the results of each failed call: made from the runs, kept in tests/INJECTION.md,
//! and compared with it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

/// The observation of one run.
#[derive(Clone, Debug)]
pub struct Seen {
    pub key: String,
    pub error: String,
    pub outcome: String,
    pub scenario: String,
}

/// The errors and the scenarios of each call and outcome.
#[derive(Debug, Default)]
pub struct Table(BTreeMap<(String, String), (BTreeSet<String>, BTreeSet<String>)>);

const HEAD: &str = "\
# What each failed system call leads to

Written by `BOWOUT_LONG=1 BLESS=1 cargo test --test injection`, compared by `cargo test --test injection`. Each row is one system call of
bowout and what it is for. strace(1) lets the call fail once, with each of the errors, at each of its places in each of the scenarios
(tests/injection/scenarios.rs); the third column says how bowout ended and how its log differs from that of a run in which nothing fails.
Whatever fails: no process is left but one that the log names (exit code 137), bowout ends within its bounded waits, and it does not panic.

- `#` is a number or a duration, `ERROR` the text of the error, `PID` a process, `DIR` a directory of the user's.
- `retval=N`: the call does nothing and says that it did N: a short write, a break that did not move.
- \"C library\": calls before bowout's first instruction. Where these fail, nothing is started, or nothing comes of it.
- As PID 1 the C library's start is not failed: its abort does not end PID 1, and it would wait for ever.
- Not failed, because they cannot fail with the arguments that they are given: getpid, getppid, getpgrp, geteuid, rt_sigprocmask,
  rt_sigaction, munmap, exit_group.
- A failed close leaves the descriptor open here, which Linux does not do: the real error costs less.

| Call | Error | What comes of it | Scenarios |
| --- | --- | --- | --- |
";

/// Calls that are not made on every machine, or not at every time. Where some 170 processes run,
/// the memory for a scan of them comes from mmap(2) (`M_MMAP_THRESHOLD`, mallopt(3)). bowout asks
/// if the child was stopped where a SIGCHLD is from a process that is already reaped.
const SOMETIMES: [&str; 2] = ["mmap", "waitid P_PID WSTOPPED"];

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/INJECTION.md")
}

impl Table {
    pub fn add(&mut self, seen: &Seen) {
        let (errors, scenarios) = self
            .0
            .entry((seen.key.clone(), seen.outcome.clone()))
            .or_default();
        errors.insert(seen.error.clone());
        scenarios.insert(seen.scenario.clone());
    }

    /// Keeps the rows of `old` for calls that are not made on every machine.
    pub fn keep(&mut self, old: &Self) {
        for (row, seen) in old
            .0
            .iter()
            .filter(|((key, _), _)| SOMETIMES.contains(&key.as_str()))
        {
            self.0.entry(row.clone()).or_insert_with(|| seen.clone());
        }
    }

    /// The table in the repository.
    pub fn read() -> Self {
        let text = fs::read_to_string(file()).unwrap_or_default();
        let mut table = Self::default();
        for line in text
            .lines()
            .skip_while(|line| !line.starts_with("| ---"))
            .skip(1)
        {
            let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
            let [key, errors, outcome, scenarios] = cells[..] else {
                panic!("no row: {line}")
            };
            let set = |text: &str| text.split(", ").map(String::from).collect();
            let key = key.trim_matches('`').to_owned();
            table
                .0
                .insert((key, outcome.to_owned()), (set(errors), set(scenarios)));
        }
        table
    }

    pub fn write(&self) {
        let mut text = HEAD.to_owned();
        for ((key, outcome), (errors, scenarios)) in &self.0 {
            let list = |set: &BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>().join(", ");
            text.push_str(&format!(
                "| `{key}` | {} | {outcome} | {} |\n",
                list(errors),
                list(scenarios)
            ));
        }
        fs::write(file(), text).expect("tests/INJECTION.md");
    }

    /// The difference of this observation from the table, if any.
    pub fn objection(&self, seen: &Seen) -> Option<String> {
        let row = self.0.get(&(seen.key.clone(), seen.outcome.clone()));
        // A call that is not made in every run may have been missed with this error when the table
        // was made.
        let is_new = !self
            .0
            .iter()
            .any(|((key, _), (errors, _))| *key == seen.key && errors.contains(&seen.error));
        match row {
            Some((errors, _)) if is_new || errors.contains(&seen.error) => None,
            _ => Some(format!(
                "{} {}, {}: not in the table: {}",
                seen.key, seen.error, seen.scenario, seen.outcome
            )),
        }
    }

    pub fn keys(&self) -> BTreeSet<&String> {
        self.0.keys().map(|(key, _)| key).collect()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}
