//! A stop request while the execution of the command hangs.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::bare::{Bare, Line};
use serde_json::Value;

use crate::common::{Dir, Home, Status, homes, not_root, size, skip, timed};
use crate::fuse::{Hanging, Silent};
use crate::sweep::{Lot, spin_until};

const TERM: i32 = libc::SIGTERM;
const KILL: i32 = libc::SIGKILL;

/// Runs the test in a thread of its own, which has its own mounts.
fn with_hanging(silent: Silent, test: impl FnOnce(&mut Hanging) + Send) {
    if skip(not_root()) || skip(Hanging::missing()) {
        return;
    }
    std::thread::scope(|scope| {
        let done = scope.spawn(|| test(&mut Hanging::mount(silent))).join();
        if let Err(panic) = done {
            std::panic::resume_unwind(panic);
        }
    });
}

fn start(home: Home, hanging: &Hanging, options: &[&str]) -> Bare {
    let bare = Line::new(home, options, &[&hanging.file()]).start();
    hanging.hangs(bare.pid);
    bare
}

fn asked_while_it_hangs(silent: Silent, runs: usize) {
    with_hanging(silent, |hanging| {
        let mut lot = Lot(0x9E37_79B9_7F4A_7C15);
        for home in homes() {
            for run in 0..runs {
                let mut bare = start(home, hanging, &["--grace", "never"]);
                spin_until(Instant::now() + Duration::from_nanos(lot.below(300_000)));
                bare.kill(TERM);
                let (status, text) = (bare.end(), bare.text());
                assert_eq!(status, bare.died(TERM), "{home:?}, {run}: {text}");
                assert!(
                    text.contains("was killed by SIGTERM after"),
                    "{home:?}, {run}: {text}"
                );
            }
            println!("{home:?}: {runs} requests while the exec hung, {silent:?}");
        }
    });
}

#[test]
fn a_stop_request_while_the_exec_hangs_at_the_opening_is_not_lost() {
    asked_while_it_hangs(Silent::Open, size(50, 10_000));
}

#[test]
fn a_stop_request_while_the_exec_hangs_at_the_reading_is_not_lost() {
    asked_while_it_hangs(Silent::Read, size(10, 1000));
}

#[test]
fn a_hanging_exec_that_no_stop_signal_ends_is_killed_in_time() {
    with_hanging(Silent::Open, |hanging| {
        for home in homes() {
            // No process dies of SIGWINCH by default.
            let mut bare = start(
                home,
                hanging,
                &["--grace", "200ms", "--stop-signal", "WINCH"],
            );
            let (status, took) = timed(|| {
                bare.kill(TERM);
                bare.end()
            });
            let text = bare.text();
            assert_eq!(status, bare.died(KILL), "{home:?}: {text}");
            assert!(
                text.contains("grace period of 200ms is over: sent SIGKILL"),
                "{home:?}: {text}"
            );
            assert!(
                (Duration::from_millis(200)..Duration::from_secs(10)).contains(&took),
                "{home:?}: {took:?}"
            );
        }
    });
}

/// Only the file system can end this wait. Where bowout is PID 1, its own end waits for it, too:
/// the kernel ends all processes of the namespace.
#[test]
fn a_hanging_exec_that_cannot_be_killed_is_logged_and_left() {
    with_hanging(Silent::Deaf, |hanging| {
        for home in homes() {
            let mut bare = start(home, hanging, &["--grace", "200ms"]);
            bare.kill(TERM);
            assert!(
                bare.see("and has not exited after SIGKILL"),
                "{home:?}: {}",
                bare.text()
            );
            if home == Home::Subreaper {
                assert_eq!(bare.wait(), Status::Code(137), "{}", bare.text());
            }
            hanging.release();
            assert_eq!(bare.end(), Status::Code(137), "{home:?}: {}", bare.text());
        }
    });
}

/// The log, the report and the termination log name each process that was sent SIGKILL, with its
/// state. In the tree of five, one process is stopped, and one is in state D after its first
/// signal.
#[test]
fn processes_that_do_not_stop_are_named_with_their_state() {
    with_hanging(Silent::Deaf, |hanging| {
        let command = "trap '' TERM; (trap - TERM; exec \"$0\") & exec sleep 1000";
        let (text, report, message) = killed_by(hanging, "300ms", 2, command);
        let stuck = report["killed"].as_array().expect("an array").iter();
        let stuck = stuck.filter(|it| it["state"] == "D").collect::<Vec<_>>();
        assert_eq!(stuck.len(), 1, "{report:#}");
        let function = stuck[0]["waits_in"]
            .as_str()
            .expect("a function of the kernel");
        for said in [&text, &message] {
            let pid = &stuck[0]["pid"];
            let part = format!("pid {pid}, state D in {function}, ");
            assert!(said.contains(&part), "{part}: {said}");
        }
    });
    with_hanging(Silent::Deaf, |hanging| {
        // bowout sends SIGKILL at once: with a stop signal it would send SIGCONT.
        let command = "sleep 1000 & kill -STOP $!; sleep 1000 & (exec \"$0\") & sleep 1000";
        let (text, report, message) = killed_by(hanging, "0", 5, command);
        for said in [&text, &message] {
            assert!(said.contains(", state T, "), "{said}");
            assert!(said.contains("; and 1 more)"), "{said}");
        }
        let ages = report["killed"].as_array().expect("an array").iter();
        assert!(ages.clone().all(|it| it["age_ms"].is_u64()), "{report:#}");
    });
}

/// Stops `sh -c` with this script, whose `$0` hangs. Checks that `count` of its processes are
/// killed. Returns the log, the report and the termination message.
fn killed_by(
    hanging: &mut Hanging,
    grace: &str,
    count: usize,
    script: &str,
) -> (String, Value, String) {
    let dir = Dir::new();
    let (report, message) = (dir.file("report"), dir.write("message", "", 0o644));
    let termination_log = format!("--termination-log={}", message.display());
    let report = report.to_str().expect("text");
    let options = ["--grace", grace, "--report", report, &termination_log];
    let command = ["sh", "-c", script, &hanging.file()];
    let mut bare = Line::new(Home::Subreaper, &options, &command).start();
    hanging.is_asked();
    bare.kill(TERM);
    assert!(
        bare.see("and has not exited after SIGKILL"),
        "{}",
        bare.text()
    );
    assert_eq!(bare.wait(), Status::Code(137), "{}", bare.text());
    let read = |path: &Path| std::fs::read_to_string(path).expect("a file");
    let (report, message) = (read(report.as_ref()), read(&message));
    let report: Value = serde_json::from_str(&report).expect("JSON");
    let killed = report["killed"].as_array().expect("an array");
    assert_eq!(killed.len(), count, "{report:#}");
    let text = bare.text();
    hanging.release();
    bare.end();
    (text, report, message)
}
