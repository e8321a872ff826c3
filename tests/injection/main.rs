//! Fails each system call of the bowout binary once, at each of its places: `cargo test --test
//! injection`. The quick part fails one place of each purpose, with each error; `BOWOUT_LONG=1`
//! fails each place. `BLESS=1` with the long part writes tests/INJECTION.md anew. A search of /proc
//! makes calls for every process of the machine. Start the long part with `unshare --pid --fork
//! --mount-proc`, so that only its own processes count.
//!
//! strace runs beside bowout (`-D`), not as its parent. It follows bowout alone, so that the
//! child's calls are neither counted nor failed. Runs of their own fail the calls between the fork
//! and the exec. Where strace may not trace, the suite cannot run.
//!
//! Caveat: the places come from an earlier run, and the number of calls differs from run to run
//! (/proc has other processes). The trace of the failing run itself therefore shows which call
//! failed.
#![allow(unsafe_code)]
#![allow(clippy::disallowed_methods)]

#[path = "../common/mod.rs"]
mod common;
mod errors;
mod judge;
mod run;
mod scenarios;
mod table;
mod trace;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{Home, homes, no_strace, size, skip};
use judge::{Base, judge, judge_signal};
use run::{Injection, Whose, run};
use scenarios::{ALL, FORKED, Scenario};
use table::{Seen, Table};
use trace::Call;

/// Several runs at once: each run mostly waits.
const THREADS: usize = 4;

struct Job<'a> {
    scenario: &'a Scenario,
    whose: Whose,
    base: &'a Base,
    injection: Injection,
}

/// Each scenario with its calls in runs without a failure.
fn bases(scenarios: &'static [Scenario], whose: Whose) -> Vec<(&'static Scenario, Base)> {
    let homes = homes();
    let scenarios = scenarios
        .iter()
        .filter(|scenario| homes.contains(&scenario.home));
    scenarios
        .map(|scenario| (scenario, Base::of(scenario, whose)))
        .collect()
}

/// The first `most` places of each purpose in a scenario.
fn places<'a>(calls: &[&'a Call], most: usize) -> Vec<&'a Call> {
    let mut met: BTreeMap<&str, usize> = BTreeMap::new();
    let mut places = vec![];
    for &call in calls.iter().filter(|call| !call.is_check()) {
        let times = met.entry(&call.key).or_default();
        if *times < most {
            places.push(call);
        }
        *times += 1;
    }
    places
}

fn errors_of(call: &Call) -> impl Iterator<Item = &'static str> {
    let all = errors::of(&call.name)
        .unwrap_or_else(|| panic!("{} is not in tests/injection/errors.rs", call.name));
    // No ENOENT in /proc: the files of /proc and of an existing process do not disappear.
    let in_proc = call.key.contains(" /proc");
    // close(2) reports the errors of delayed writes, which only a file on a disk has. For any other
    // descriptor, EINTR is the only error.
    let closes = call.name == "close" && !call.key.contains(" DIR");
    all.iter()
        .copied()
        .filter(move |error| !(in_proc && *error == "ENOENT" || closes && *error != "EINTR"))
}

/// Runs all jobs on a few threads.
fn work<T: Send>(jobs: &[Job<'_>], each: impl Fn(&Job<'_>) -> T + Sync) -> Vec<T> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(vec![]));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = each(job);
                    done.lock().expect("no panic holds it").push(result);
                }
            });
        }
    });
    done.into_inner().expect("no panic holds it")
}

/// Makes one run. Returns its result, if the run made the call, and the objections to it.
fn fail_one(job: &Job<'_>) -> (Option<Seen>, Vec<String>) {
    let describe = |what: &str| format!("{}: {:?}: {what}", job.scenario.name, job.injection);
    let outcome = match run(job.scenario, job.whose, Some(&job.injection)) {
        Ok(outcome) => outcome,
        Err(panic) => {
            eprintln!("{}", describe(&panic));
            return (None, vec![describe(&panic)]);
        }
    };
    let Some(key) = outcome.key() else {
        return (None, vec![]);
    };
    let (text, wrong) = judge(job.scenario, job.base, &job.injection, &outcome);
    let seen = Seen {
        key,
        error: job.injection.what.clone(),
        outcome: text,
        scenario: job.scenario.name.into(),
    };
    (
        Some(seen),
        wrong
            .iter()
            .map(|what| describe(&format!("{what}\n{:#?} {:#?}", outcome.status, outcome.raw)))
            .collect(),
    )
}

/// The jobs for every place, or in the quick part for one place of each purpose.
fn jobs<'a>(bases: &'a [(&'static Scenario, Base)], whose: Whose) -> Vec<Job<'a>> {
    let mut met = BTreeSet::new();
    let mut jobs = vec![];
    for (scenario, base) in bases {
        for call in places(&base.calls_of(whose), size(1, usize::MAX)) {
            // The C library's start is the same in each scenario. As PID 1 its abort does not end
            // the process, which would wait for ever.
            if call.library && whose == Whose::Bowouts && scenario.home == Home::Pid1 {
                continue;
            }
            if !size(met.insert(call.key.clone()), true) {
                continue;
            }
            // Not the first execve of a process: strace counts in each process by itself, so the
            // failure would also hit the execve by which strace starts bowout.
            for error in errors_of(call).filter(|_| call.name != "execve" || call.nth > 1) {
                let injection = Injection {
                    call: call.name.clone(),
                    what: error.to_owned(),
                    nth: call.nth,
                };
                jobs.push(Job {
                    scenario,
                    whose,
                    base,
                    injection,
                });
            }
        }
    }
    jobs
}

#[test]
fn each_failed_call_leads_to_what_the_table_says() {
    if skip(no_strace()) {
        return;
    }
    let (own, forked) = (bases(ALL, Whose::Bowouts), bases(FORKED, Whose::Both));
    let mut all = jobs(&own, Whose::Bowouts);
    all.extend(jobs(&forked, Whose::Both));
    println!("{} runs", all.len());
    let results = work(&all, fail_one);
    let old = Table::read();
    let mut new = Table::default();
    let mut wrong = vec![];
    let mut met = 0;
    for (seen, objections) in &results {
        wrong.extend(objections.iter().cloned());
        if let Some(seen) = seen {
            met += 1;
            new.add(seen);
        }
    }
    new.keep(&old);
    if std::env::var_os("BLESS").is_some() {
        assert!(
            size(false, true),
            "the table is of the long part: BOWOUT_LONG=1"
        );
        new.write();
    } else {
        wrong.extend(
            results
                .iter()
                .filter_map(|(seen, _)| old.objection(seen.as_ref()?)),
        );
        if size(false, true) {
            wrong.extend(
                old.keys()
                    .difference(&new.keys())
                    .map(|key| format!("{key}: no longer made, but in the table")),
            );
        }
    }
    println!(
        "{met} of {} runs have met their call: {} calls, {} outcomes",
        all.len(),
        new.keys().len(),
        new.len()
    );
    assert!(
        met * 10 >= all.len() * 9,
        "only {met} of {} runs have met their call",
        all.len()
    );
    assert!(
        wrong.is_empty(),
        "{} are wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// Sends bowout SIGTERM, and in one scenario SIGKILL, at each call.
#[test]
fn a_signal_at_each_call_is_obeyed() {
    if skip(no_strace()) {
        return;
    }
    let bases = bases(ALL, Whose::Bowouts);
    let mut jobs = vec![];
    for (scenario, base) in &bases {
        // SIGKILL only where the command has no descendants, which would outlive bowout (README,
        // "Limits"). No process can outlive PID 1.
        let signals: &[&str] = if scenario.name == "forward" {
            &["SIGTERM", "SIGKILL"]
        } else {
            &["SIGTERM"]
        };
        for call in places(&base.calls_of(Whose::Bowouts), size(1, usize::MAX)) {
            for signal in signals {
                let injection = Injection {
                    call: call.name.clone(),
                    what: (*signal).to_owned(),
                    nth: call.nth,
                };
                jobs.push(Job {
                    scenario,
                    whose: Whose::Bowouts,
                    base,
                    injection,
                });
            }
        }
    }
    // The quick part runs one job in four.
    let jobs: Vec<Job<'_>> = jobs.into_iter().step_by(size(4, 1)).collect();
    let results = work(&jobs, |job| {
        match run(job.scenario, job.whose, Some(&job.injection)) {
            Ok(outcome) => {
                let wrong = judge_signal(job.scenario, &job.injection, &outcome);
                wrong.map(|what| {
                    format!(
                        "{}: {:?}: {what}\n{:#?} {:#?}",
                        job.scenario.name, job.injection, outcome.status, outcome.raw
                    )
                })
            }
            Err(panic) => Some(format!(
                "{}: {:?}: {panic}",
                job.scenario.name, job.injection
            )),
        }
    });
    let wrong: Vec<String> = results.into_iter().flatten().collect();
    println!("{} runs", jobs.len());
    assert!(
        wrong.is_empty(),
        "{} are wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
