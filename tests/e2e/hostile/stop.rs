//! Signals, limits and tracing, against bowout and against its tree.

use super::{KILL, TERM, USR1, all_ready, hostile};
use crate::common::{Home, SOON, Start, Status, field, homes, no_namespaces, skip, timed, until};

/// Every signal that does not request a stop, and then one that does.
#[test]
fn a_signal_from_the_child_comes_back_to_it_or_stops_it() {
    let asks = [libc::SIGINT, libc::SIGABRT];
    let others = (1..=64)
        .filter(|signal| ![KILL, libc::SIGSTOP, TERM].contains(signal) && !asks.contains(signal));
    let others: Vec<String> = others.map(|signal| signal.to_string()).collect();
    for home in homes() {
        for last in asks {
            let last = last.to_string();
            let acts = others
                .iter()
                .chain([&last])
                .flat_map(|signal| ["echo", signal]);
            let acts: Vec<&str> = acts.chain(["--", "--exit", "USR1:7"]).collect();
            let mut bowout = hostile(Start::new(["--grace", "1h"]).at(home), &acts);
            bowout.ready();
            bowout.kill(USR1);
            assert_eq!(bowout.end(), Status::Code(7), "{home:?} {last}");
            let back = bowout
                .out
                .seen()
                .iter()
                .filter(|line| line.starts_with("back "))
                .count();
            assert_eq!(back, others.len() + 1, "{home:?}");
            let log = bowout.log();
            assert!(
                log.last().is_some_and(|line| line.contains("tree")),
                "who has asked: {log:#?}"
            );
        }
    }
}

/// The child sends the signals to bowout alone and to all processes.
#[test]
fn pid_1_is_neither_stopped_nor_killed_by_its_child() {
    if skip(no_namespaces()) {
        return;
    }
    let acts = [
        "tell", "19", "tell", "KILL", "all", "KILL", "all", "19", "--", "--exit", "TERM:7",
    ];
    let mut bowout = hostile(Start::new(["--grace", "1h"]).at(Home::Pid1), &acts);
    bowout.ready();
    assert_ne!(bowout.state(), 'T');
    bowout.kill(USR1);
    bowout.expect(USR1);
    bowout.kill(TERM);
    assert_eq!(bowout.end(), Status::Code(7));
}

/// The log has the claimed sender (see the head of `hostile.rs`); the signal has no other effect
/// than a stop.
#[test]
fn a_forged_sender_is_logged_as_it_claims_to_be_and_stops_what_it_could_stop_anyway() {
    for home in homes() {
        let acts = ["forge", "1", "TERM", "--", "--exit", "TERM:7"];
        let mut bowout = hostile(Start::new(["--grace", "1h"]).at(home), &acts);
        assert_eq!(bowout.end(), Status::Code(7));
        let log = bowout.log();
        assert!(
            log.iter()
                .any(|line| line.contains("SIGTERM from pid 1 ") && line.contains("4242")),
            "{log:#?}"
        );
    }
}

/// bowout opens no file for the stop. If the kernel refuses a wait, bowout neither waits forever
/// nor spins.
#[test]
fn limits_that_the_child_sets_on_bowout_neither_prevent_the_stop_nor_keep_it_busy() {
    for home in homes() {
        let limits = [
            libc::RLIMIT_NOFILE,
            libc::RLIMIT_FSIZE,
            libc::RLIMIT_SIGPENDING,
            libc::RLIMIT_NPROC,
        ];
        let limits: Vec<String> = limits.iter().map(ToString::to_string).collect();
        let mut acts: Vec<&str> = limits
            .iter()
            .flat_map(|limit| ["limit", limit, "0"])
            .collect();
        acts.extend(["--", "--name", "c"]);
        let script = format!(
            "\"$PROBE\" signals --name d & exec \"$PROBE\" hostile {}",
            acts.join(" ")
        );
        let mut bowout = Start::new(["--grace", "300ms", "--notify", "relay"])
            .at(home)
            .sh(&script);
        bowout.ready_as("c");
        bowout.ready_as("d");
        let switches = || -> u64 {
            field(bowout.pid, "voluntary_ctxt_switches")
                .parse()
                .expect("a number")
        };
        let before = switches();
        bowout.kill(USR1);
        bowout
            .out
            .find("the signal", |line| line.starts_with(&format!("c {USR1} ")));
        until("bowout waits", || {
            (switches() > before + 1 && bowout.state() == 'S').then_some(())
        });
        bowout.kill(TERM);
        assert_eq!(bowout.end(), bowout.died(KILL), "{home:?}");
    }
}

/// bowout kills a process that its sibling traces: the trace does not protect it.
#[test]
fn a_descendant_that_is_traced_by_its_sibling_does_not_survive_the_stop() {
    for home in homes() {
        let script = "\"$PROBE\" signals --name b & b=$!; \"$PROBE\" hostile trace $b say traced -- --name a & \
                      exec \"$PROBE\" signals --name c";
        let mut bowout = Start::new(["--grace", "300ms"]).at(home).sh(script);
        all_ready(&mut bowout, &["a", "b", "c"]);
        bowout.out.find("the trace", |line| line == "traced");
        bowout.kill(TERM);
        assert_eq!(bowout.end(), bowout.died(KILL), "{home:?}");
        let log = bowout.log();
        assert!(
            !log.iter().any(|line| line.contains("cannot kill")),
            "{log:#?}"
        );
    }
}

/// The kernel reports the child's end to its tracer first, and this tracer never waits for it.
#[test]
fn a_child_that_is_traced_by_its_descendant_has_its_own_status_when_both_have_exited() {
    for home in homes() {
        let script = "\"$PROBE\" hostile trace $$ say traced await 64 & exec \"$PROBE\" signals --name c --exit USR1:7";
        let mut bowout = Start::new(["--grace", "300ms"]).at(home).sh(script);
        bowout.ready_as("c");
        bowout.out.find("the trace", |line| line == "traced");
        let child = bowout.child_pid();
        bowout.kill(USR1);
        until("the child has ended", || {
            (crate::common::pty::state_of(child) == Some('Z')).then_some(())
        });
        bowout.kill(TERM);
        assert_eq!(bowout.end(), Status::Code(7), "{home:?}");
    }
}

/// The reason why a process may not trace its parent, if so.
fn no_trace_of_parents() -> Option<String> {
    let scope = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    (!["", "0"].contains(&scope.trim()))
        .then(|| format!("kernel.yama.ptrace_scope is {}", scope.trim()))
}

#[test]
fn a_traced_bowout_does_all_that_it_does_otherwise() {
    if skip(no_trace_of_parents()) {
        return;
    }
    for home in homes() {
        let mut bowout = hostile(
            Start::new(["--grace", "300ms"]).at(home),
            &["trace", "parent", "--"],
        );
        bowout.ready();
        bowout.kill(USR1);
        bowout.expect(USR1);
        bowout.kill(TERM);
        assert_eq!(bowout.end(), bowout.died(KILL), "{home:?}");
    }
}

/// While it is stopped by the tracer, bowout can do nothing; after the tracer's exit, it handles
/// every signal that it received.
#[test]
fn a_bowout_that_the_child_holds_in_a_trace_goes_on_when_the_child_has_exited() {
    if skip(no_trace_of_parents()) {
        return;
    }
    for home in homes() {
        let script = "\"$PROBE\" signals --name d & exec \"$PROBE\" hostile attach -- --name c";
        let mut bowout = Start::new(["--grace", "300ms"]).at(home).sh(script);
        all_ready(&mut bowout, &["c", "d"]);
        until("bowout is held", || (bowout.state() == 't').then_some(()));
        bowout.kill(TERM);
        let (status, took) = timed(|| {
            crate::common::pty::kill(bowout.child_pid(), KILL);
            bowout.end()
        });
        assert_eq!(status, bowout.died(KILL), "{home:?}");
        assert!(took < SOON, "{took:?}");
    }
}
