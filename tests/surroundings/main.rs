//! bowout in each place where it may be started, with each of six actions: `cargo test --test
//! surroundings`. Each cell prints `ok`, or the reason why this machine cannot run it. The table
//! at the end is the one of tests/RESULTS.md. Each action except `start` also checks in /proc that
//! bowout is in the place of that name.
//!
//! Run it as root. With `CI=true` a cell that cannot run fails. `SURROUNDINGS=TEXT` runs only the
//! places whose names contain TEXT.
#![allow(unsafe_code)]
// The harness reads the clock for its watchdog, and reads pipes in threads.
#![allow(clippy::disallowed_methods)]

#[path = "../common/mod.rs"]
#[allow(unused_imports)]
mod common;

mod action;
#[path = "../storms/cgroup.rs"]
mod cgroup;
mod filter;
mod place;

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use action::{ACTIONS, Action};
use common::pty::missing;
use common::{Start, Status, probe};
use place::{Ground, PLACES, Place};

/// Several cells at once: each cell mostly waits.
const THREADS: usize = 6;

/// Prints a line past the test runner's capture.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

#[derive(Clone)]
enum Result {
    Ok,
    Not(String),
    Failed,
}

fn run(ground: &Ground, place: &Place, (name, action): Action) -> Result {
    let result = match catch_unwind(AssertUnwindSafe(|| action(ground, place))) {
        Ok(Ok(())) => Result::Ok,
        Ok(Err(why)) => Result::Not(why),
        Err(_) => Result::Failed,
    };
    let word = match &result {
        Result::Ok => "ok",
        Result::Not(why) => why,
        Result::Failed => "FAILED, see above",
    };
    let note = match &result {
        Result::Ok => action::note(place, name),
        _ => None,
    };
    let note = note.map(|note| format!(" ({note})")).unwrap_or_default();
    say(&format!("{} × {name}: {word}{note}", place.name));
    result
}

fn row(cells: impl IntoIterator<Item = String>) {
    let cells: Vec<_> = cells.into_iter().collect();
    say(&format!("| {} |", cells.join(" | ")));
}

#[test]
fn each_action_is_the_same_in_each_place() {
    let only = std::env::var("SURROUNDINGS").unwrap_or_default();
    let ground = Ground::new();
    let cells: Vec<(usize, usize)> = (0..PLACES.len())
        .filter(|place| PLACES[*place].name.contains(&only))
        .flat_map(|place| (0..ACTIONS.len()).map(move |action| (place, action)))
        .collect();
    let (next, done) = (AtomicUsize::new(0), Mutex::new(vec![]));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some((place, action)) = cells.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = run(&ground, &PLACES[*place], ACTIONS[*action]);
                    done.lock()
                        .expect("no panic holds it")
                        .push((*place, *action, result));
                }
            });
        }
    });
    let done = done.into_inner().expect("no panic holds it");
    say("");
    row([String::new()]
        .into_iter()
        .chain(ACTIONS.map(|(name, _)| name.to_owned())));
    row(vec!["---".to_owned(); ACTIONS.len() + 1]);
    for (at, place) in PLACES.iter().enumerate() {
        let mut of_place: Vec<_> = done.iter().filter(|(place, ..)| *place == at).collect();
        of_place.sort_by_key(|(_, action, _)| *action);
        let cells = of_place.iter().map(|(_, at, result)| match result {
            Result::Ok => {
                let note = action::note(place, ACTIONS[*at].0);
                note.map_or("ok".to_owned(), |note| format!("ok: {note}"))
            }
            Result::Not(why) => format!("not run: {why}"),
            Result::Failed => "FAILED".to_owned(),
        });
        if !of_place.is_empty() {
            row([place.name.to_owned()].into_iter().chain(cells));
        }
    }
    let count =
        |which: fn(&Result) -> bool| done.iter().filter(|(.., result)| which(result)).count();
    let (ok, failed) = (
        count(|result| matches!(result, Result::Ok)),
        count(|result| matches!(result, Result::Failed)),
    );
    let not = done.len() - ok - failed;
    say(&format!(
        "\n{} cells: {ok} ok, {not} not run, {failed} failed",
        done.len()
    ));
    assert_eq!(failed, 0, "cells failed");
    assert!(
        not == 0 || std::env::var("CI").as_deref() != Ok("true"),
        "{not} cells were not run in CI"
    );
}

/// The status of a probe with these words under the filter of a list.
fn under(list: &str, words: &[&str]) -> Status {
    let dir = common::Dir::new();
    let file = dir.write("filter", filter::program(list), 0o600);
    let set_up = ["--filter", file.to_str().expect("text")];
    let probe = probe().to_str().expect("text");
    Start::direct()
        .with(set_up)
        .command([&[probe], words].concat())
        .wait()
}

/// Without this check, an ineffective filter would leave the rows of seccomp `ok`.
#[test]
fn a_filter_refuses_each_call_outside_its_list() {
    if !cfg!(target_arch = "x86_64") {
        return;
    }
    let own = std::process::id().to_string();
    let mount = ["hostile", "mounts"];
    let other = missing("unshare").or_else(|| missing("hostname"));
    let killed = Status::Signal(libc::SIGSYS);
    for (list, refused) in [
        (include_str!("docker.calls"), Status::Code(98)),
        (include_str!("systemd.calls"), killed),
        (include_str!("strict.calls"), killed),
    ] {
        assert_eq!(under(list, &["exit", "7"]), Status::Code(7), "{list}");
        assert_eq!(under(list, &mount), refused, "{list}");
    }
    // podman's list allows mount(2), but not sethostname(2).
    let list = include_str!("podman.calls");
    assert_eq!(under(list, &["exit", "7"]), Status::Code(7));
    let name = ["with", "--", "unshare", "--uts", "hostname", "bowout"];
    if !common::skip(other) {
        assert_eq!(under("else allow", &name), Status::Code(0));
        assert_eq!(under(list, &name), Status::Code(1));
    }
    // A condition on an argument: kill(2) with SIGUSR1 alone.
    let one = "allow kill 1 == 10\nerrno=1 kill\nelse allow";
    assert_eq!(under(one, &["kill", &own, "0"]), Status::Code(98));
    for (condition, signal, code) in [
        ("1 != 0", "0", 98),
        ("1 < 1", "0", 0),
        ("1 > 0", "0", 98),
        ("1 & 64 0", "0", 0),
        ("1 & 64 0 1 == 0", "0", 0),
        ("1 & 64 0 1 == 1", "0", 98),
    ] {
        let list = format!("allow kill {condition}\nerrno=1 kill\nelse allow");
        assert_eq!(
            under(&list, &["kill", &own, signal]),
            Status::Code(code),
            "{condition}"
        );
    }
}

#[test]
fn the_strict_list_has_no_call_that_this_machine_does_not_know() {
    if cfg!(target_arch = "x86_64") {
        assert_eq!(filter::unknown(include_str!("strict.calls")), [""; 0]);
    }
}
