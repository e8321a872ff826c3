//! bowout as the first process of a container, with less than most containers have: no root, no
//! /proc, and other processes in the same namespace.

use std::time::Duration;

use crate::common::{
    BOWOUT, Dir, Home, SOON, Start, Status, no_namespaces, not_root, probe, signals_of, skip, timed,
};

const TERM: i32 = libc::SIGTERM;
const KILL: i32 = libc::SIGKILL;

/// A child that obeys at once, and a descendant that needs half a second.
fn slow(probe: &str) -> String {
    let slow = format!("{probe} signals --name d --pause TERM:500 --exit TERM:0");
    format!("{slow} & exec {probe} signals --name c --exit TERM:6")
}

#[test]
fn without_root_everything_is_as_with_it() {
    if skip(not_root()) || skip(no_namespaces()) {
        return;
    }
    let dir = Dir::new();
    let (shim, child) = (dir.program(BOWOUT), dir.program(probe()));
    let child = child.to_str().expect("text");
    let start = |options: &[&str]| {
        Start::new(options)
            .at(Home::Pid1)
            .program(&shim)
            .with(["--uid", "65534"])
    };

    let mut bowout = start(&["--grace", "1h"]).command(["sh", "-c", &slow(child)]);
    bowout.ready_as("c");
    bowout.ready_as("d");
    assert_eq!(bowout.field("Uid").split_whitespace().next(), Some("65534"));
    bowout.kill(TERM);
    let lines = bowout.out.rest();
    assert!(lines.contains(&"d paused".into()), "{lines:?}");
    assert_eq!(bowout.end(), Status::Code(6));

    let mut bowout = start(&["--grace", "300ms"]).command([child, "tree", "20", "--stubborn"]);
    bowout.ready();
    for signal in [libc::SIGHUP, libc::SIGUSR1, 40] {
        bowout.kill(signal);
        bowout.expect(signal);
    }
    let (status, took) = timed(|| {
        bowout.kill(TERM);
        bowout.end()
    });
    assert!(
        took >= Duration::from_millis(300) && took < SOON,
        "{took:?}"
    );
    assert_eq!(status, bowout.died(KILL));
    assert!(
        bowout.log().iter().all(|line| !line.contains("cannot")),
        "{:#?}",
        bowout.log()
    );
}

#[test]
fn without_proc_a_descendant_gets_the_time_to_clean_up() {
    if skip(no_namespaces()) {
        return;
    }
    let mut bowout = Start::new(["--grace", "1h"])
        .at(Home::Pid1)
        .no_proc()
        .sh(&slow("\"$PROBE\""));
    bowout.ready_as("c");
    bowout.ready_as("d");
    bowout.kill(TERM);
    let lines = bowout.out.rest();
    assert!(lines.contains(&"d paused".into()), "{lines:?}");
    assert_eq!(
        signals_of("d", &lines)
            .iter()
            .filter(|signal| **signal == TERM)
            .count(),
        1,
        "{lines:?}"
    );
    assert_eq!(bowout.end(), Status::Code(6));
}

#[test]
fn without_proc_the_drain_kills_after_the_grace_period() {
    if skip(no_namespaces()) {
        return;
    }
    let script = "\"$PROBE\" signals --name d & exec \"$PROBE\" signals --name c --exit TERM:6";
    let mut bowout = Start::new(["--grace", "3s"])
        .at(Home::Pid1)
        .no_proc()
        .sh(script);
    bowout.ready_as("c");
    bowout.ready_as("d");
    let (status, took) = timed(|| {
        bowout.kill(TERM);
        bowout.end()
    });
    assert!(took >= Duration::from_secs(3) && took < SOON, "{took:?}");
    assert_eq!(status, Status::Code(6));
}

#[test]
fn without_proc_hooks_run_and_the_processes_that_they_leave_are_stopped() {
    if skip(no_namespaces()) {
        return;
    }
    let hook = "\"$PROBE\" signals --name b --exit TERM:0 & echo hook";
    let start = Start::new(["--grace", "1h", "--pre-stop", hook])
        .at(Home::Pid1)
        .no_proc();
    let mut bowout = start.probe(["signals", "--exit", "TERM:6"]);
    bowout.ready();
    bowout.kill(TERM);
    // The end of the pipe, which all of them hold.
    let lines = bowout.err.rest();
    assert!(lines.contains(&"hook".into()), "{lines:?}");
    assert_eq!(signals_of("", &bowout.out.rest()), [TERM]);
    assert_eq!(bowout.end(), Status::Code(6));
}

/// `docker exec`: a process in the namespace that is not a descendant of PID 1.
#[test]
fn an_exec_session_does_not_hold_up_the_end() {
    if skip(not_root()) || skip(no_namespaces()) {
        return;
    }
    for proc in [true, false] {
        let start = Start::new(["--grace", "1h"]).at(Home::Pid1);
        let start = if proc { start } else { start.no_proc() };
        // With a drain, in which bowout searches for descendants.
        let mut bowout = start.sh(&slow("\"$PROBE\""));
        bowout.ready_as("c");
        bowout.ready_as("d");
        let probe = probe().to_str().expect("text");
        let target = bowout.pid.to_string();
        let mut session =
            Start::direct().command(["nsenter", "--pid", "--target", &target, probe, "signals"]);
        let inner = session.ready();
        assert!(inner > 1 && inner < 100, "in the namespace: {inner}");
        bowout.kill(TERM);
        assert_eq!(bowout.end(), Status::Code(6), "proc: {proc}");
        // The kernel kills the session with the namespace. If bowout can read the parents of
        // processes, it has not signalled the session.
        let seen = signals_of("", &session.out.rest());
        assert!(seen.is_empty() || !proc, "{seen:?}");
    }
}
