//! bowout as PID 1: the stop, the drain, and the processes that take part in neither.

use std::process::Stdio;

use crate::common::{Lines, Status, leftovers, skip, until};
use crate::engine::{BUSYBOX, no_containers, run};
use crate::runc::Bundle;

/// Ignores SIGTERM, as do all processes that it starts.
pub const STUBBORN: &str = "trap '' TERM; echo ready; exec busybox sleep 1000";
/// Ends on SIGTERM at once; its grandchild needs half a second and then writes a file. The process
/// that starts last prints `ready`: the trap of a shell can lose a signal that arrives while the
/// shell forks.
pub const SLOW_GRANDCHILD: &str = "(trap 'sleep 0.5; echo done >/finished; exit' TERM; sh -c 'echo ready; exec sleep 1000' & wait) & \
                                   exec busybox sleep 1000";

#[test]
fn a_command_without_handlers_dies_of_every_signal() {
    if skip(no_containers(&["runc"])) {
        return;
    }
    // None of them would kill a PID 1 without handlers: the kernel drops them.
    for (signal, code) in [
        ("TERM", 143),
        ("INT", 130),
        ("QUIT", 131),
        ("HUP", 129),
        ("USR1", 138),
        ("64", 192),
    ] {
        let mut container = Bundle::script(&[], "echo ready; exec busybox sleep 1000").start();
        container.ready();
        container.place.kill(signal);
        assert_eq!(container.end(), code, "{signal}");
    }
}

#[test]
fn a_stop_from_outside_ends_as_the_command_ends() {
    if skip(no_containers(&["runc"])) {
        return;
    }
    let mut container = Bundle::script(
        &[],
        "trap 'exit 7' TERM; sh -c 'echo ready; exec sleep 1000' & wait",
    )
    .start();
    container.ready();
    container.place.kill("TERM");
    assert_eq!(container.end(), 7);
    assert!(
        container
            .whole_log()
            .contains("received SIGTERM from outside: sent SIGTERM to '/bin/busybox'")
    );
}

#[test]
fn a_second_stop_from_outside_kills_at_once() {
    if skip(no_containers(&["runc"])) {
        return;
    }
    let mut container = Bundle::script(&["--grace", "1h", "--report", "/report"], STUBBORN).start();
    container.ready();
    container.place.kill("TERM");
    container.log("received SIGTERM from outside");
    container.place.kill("TERM");
    assert_eq!(container.end(), 137);
    container.log("received SIGTERM from outside, the second stop request: sent SIGKILL");
    assert!(
        container.place.report()["stop"]["escalated"]
            .as_str()
            .expect("text")
            .contains("second stop request")
    );
}

/// A preStop hook that runs in the container, as `kill -QUIT 1`, and the engine's SIGTERM after it
/// (Kubernetes, "Container Lifecycle Hooks").
#[test]
fn a_hook_in_the_container_and_the_engine_are_two_sides() {
    if skip(no_containers(&["runc"])) {
        return;
    }
    let mut container = Bundle::probe(&["--grace", "1h"], &["signals", "--exit", "USR1:9"]).start();
    container.ready();
    run(&mut container.place.exec(&[BUSYBOX, "kill", "-QUIT", "1"]));
    container.out.find("SIGQUIT", |line| line.starts_with("3 "));
    container.place.kill("TERM");
    container
        .out
        .find("SIGTERM", |line| line.starts_with("15 "));
    // The command is alive, and exits by itself.
    container.place.kill("USR1");
    assert_eq!(container.end(), 9);
    let log = container.whole_log();
    assert!(
        log.contains("(uid 0, process)") && !log.contains("SIGKILL to"),
        "{log}"
    );
}

#[test]
fn the_end_of_the_grace_period_is_137_and_says_why() {
    if skip(no_containers(&["runc"])) {
        return;
    }
    let options = [
        "--grace",
        "1s",
        "--report",
        "/report",
        "--termination-log=/message",
    ];
    let script = "trap '' TERM; sleep 1000 & (sleep 1000 &); echo ready; wait";
    let bundle = Bundle::script(&options, script);
    std::fs::write(bundle.root().join("message"), "").expect("written");
    let mut container = bundle.start();
    container.ready();
    container.place.kill("TERM");
    assert_eq!(container.end(), 137);
    let report = container.place.report();
    let stop = &report["stop"];
    assert_eq!(
        (&stop["by"]["side"], &stop["by"]["signal"]),
        (&"outside".into(), &"SIGTERM".into())
    );
    assert_eq!(report["descendants"]["killed"], 2);
    // SIGKILL is not sent before the deadline, and it is sent long before docker's own.
    let killed = stop["rungs"][1]["after_ms"].as_u64().expect("a number");
    assert!((1000..9000).contains(&killed), "{report}");
    println!("grace period of 1000 ms: SIGKILL after {killed} ms");
    let message = container.place.file("message").expect("a message");
    let because = "killed by SIGKILL: 1s grace period expired after SIGTERM from outside; killed 2 descendants, too (";
    assert!(message.starts_with(because), "{message}");
    assert!(
        message.contains("); main process '/bin/busybox' (pid "),
        "{message}"
    );
}

/// tini, dumb-init and catatonit end at once here, and the kernel kills the grandchild unfinished.
#[test]
fn a_grandchild_gets_the_half_second_that_it_needs() {
    if skip(no_containers(&["runc"])) {
        return;
    }
    let mut container = Bundle::script(&["--report", "/report"], SLOW_GRANDCHILD).start();
    container.ready();
    container.place.kill("TERM");
    assert_eq!(container.end(), 143);
    assert_eq!(container.place.file("finished").as_deref(), Some("done\n"));
    let report = container.place.report();
    assert_eq!(report["descendants"]["killed"], 0);
    println!(
        "the stop took {} ms, half a second of them the grandchild's",
        report["stop"]["took_ms"]
    );
}

#[test]
fn ten_thousand_orphans_are_reaped() {
    if skip(no_containers(&["runc"])) {
        return;
    }
    // Each subshell exits and leaves a child. The last loop ends when no zombie is left in the
    // container.
    let script = "i=0; while [ $i -lt 10000 ]; do (true &); i=$((i+1)); done; \
                  while grep -q '^State:.Z' /proc/[0-9]*/status 2>/dev/null; do :; done; exit 5";
    let mut container = Bundle::script(&["--report", "/report"], script).start();
    assert_eq!(container.end(), 5);
    let report = container.place.report();
    assert_eq!(report["orphans_reaped"], 10000);
    println!(
        "10000 orphans made and reaped in {} ms",
        report["run_time_ms"]
    );
}

#[test]
fn an_exec_session_does_not_hold_up_the_end() {
    if skip(no_containers(&["runc"])) {
        return;
    }
    let mut container =
        Bundle::script(&["--grace", "1h"], "echo ready; exec busybox sleep 1000").start();
    container.ready();
    let mut exec = container.place.exec(&[
        BUSYBOX,
        "sh",
        "-c",
        "trap '' TERM; echo in; exec busybox sleep 1000",
    ]);
    exec.stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut session = leftovers::spawn(&mut exec).expect("runc exec");
    let mut out = Lines::of(session.stdout.take().expect("a pipe"));
    out.find("in", |line| line == "in");
    container.place.kill("TERM");
    // The grace period is an hour: a wrapper that waited for the session would need all of it.
    assert_eq!(container.end(), 143);
    assert!(
        !container.whole_log().contains("descendant"),
        "{}",
        container.whole_log()
    );
    // The kernel kills the session with PID 1.
    let status: Status = until("the session ends", || {
        session.try_wait().expect("our child")
    })
    .into();
    leftovers::forget(session.id());
    assert_eq!(status, Status::Code(137));
}

#[test]
fn processes_of_an_exec_session_are_drained() {
    if skip(no_containers(&["runc"])) {
        return;
    }
    let mut container = Bundle::script(
        &["--report", "/report"],
        "echo ready; exec busybox sleep 1000",
    )
    .start();
    container.ready();
    let orphan = "(trap 'echo drained >/finished; exit' TERM; sh -c 'echo in >/in; exec sleep 1000' & wait) >/dev/null 2>&1 &";
    run(&mut container.place.exec(&[BUSYBOX, "sh", "-c", orphan]));
    until("the orphan has its handler", || {
        container.place.file("in").filter(|text| text == "in\n")
    });
    container.place.kill("TERM");
    assert_eq!(container.end(), 143);
    assert_eq!(
        container.place.file("finished").as_deref(),
        Some("drained\n")
    );
    assert_eq!(container.place.report()["descendants"]["killed"], 0);
}

#[test]
fn hooks_run_in_order_before_the_stop_signal_and_leave_nothing() {
    if skip(no_containers(&["runc"])) {
        return;
    }
    let first = "echo one $BOWOUT_SIGNAL $BOWOUT_CHILD_PID >>/hooks; (trap '' TERM HUP; exec busybox sleep 1000) &";
    let options = [
        "--pre-stop",
        first,
        "--pre-stop",
        "/no/such/hook",
        "--pre-stop",
        "echo three >>/hooks",
    ];
    let delay = [
        "--stop-delay",
        "100ms",
        "--grace",
        "3s",
        "--report",
        "/report",
    ];
    let script = "trap 'echo TERM >>/hooks; exit 3' TERM; ME=$$ sh -c 'echo ready $ME; exec sleep 1000' & wait";
    let mut container = Bundle::script(&[&options[..], &delay].concat(), script).start();
    let ready = container
        .out
        .find("ready", |line| line.starts_with("ready "));
    container.place.kill("TERM");
    assert_eq!(container.end(), 3);
    let pid = &ready["ready ".len()..];
    let told = container.place.file("hooks").expect("written");
    assert_eq!(told, format!("one SIGTERM {pid}\nthree\nTERM\n"));
    let stop = &container.place.report()["stop"];
    let forwarded = stop["forwarded_after_ms"].as_u64().expect("a number");
    assert!((100..3000).contains(&forwarded), "{stop}");
}

/// The guard, in a container whose PID 1 is another program. Whether the guard or the supervisor is
/// killed, all of their processes end, and PID 1 prints `ready` then.
#[test]
fn a_guard_below_another_pid_1_leaves_nothing() {
    if skip(no_containers(&["runc"])) {
        return;
    }
    for victim in ["$(cat /proc/$guard/task/$guard/children)", "$guard"] {
        let script = format!(
            "/bowout --guard --grace 300ms -- busybox sh -c \
             'trap \"\" TERM; busybox setsid busybox sleep 1000 & echo >/up; exec busybox sleep 1000' & guard=$!; \
             until busybox test -e /up; do :; done; kill -9 {victim}; \
             while busybox pidof sleep busybox-sleep bowout >/all; do :; done; echo ready; exec busybox true"
        );
        let mut container = Bundle::new(&[BUSYBOX, "sh", "-c", &script]).start();
        container.ready();
        assert_eq!(container.end(), 0, "{victim}");
        let log = container.whole_log();
        assert!(log.contains("was killed"), "{victim}: {log}");
        assert!(log.contains("sent SIGKILL"), "{victim}: {log}");
    }
}
