//! The needs of a service, which bowout serves as the process in front of it: readiness, liveness,
//! and the replacement by another instance.

use std::io::{PipeWriter, Read, Write, pipe};
use std::os::fd::AsRawFd;
use std::path::Path;

use serde_json::Value;

use crate::common::pty::{kill, open};
use crate::common::{Dir, Running, Start, Status, children, switches_asleep, until};
use crate::notify::{Manager, say};

const TERM: i32 = libc::SIGTERM;
const HUP: i32 = libc::SIGHUP;
const KILL: i32 = libc::SIGKILL;

fn read(report: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(report).expect("a report")).expect("JSON")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

/// Starts a script that continues with each line of its input; returns the pipe for these lines.
fn stepped(start: Start, script: &str) -> (Running, PipeWriter) {
    let (stdin, steps) = pipe().expect("a pipe");
    (start.stdin(stdin).sh(script), steps)
}

fn step(steps: &mut PipeWriter, bowout: &mut Running, says: &str) {
    steps.write_all(b"\n").expect("a reader");
    assert_eq!(bowout.out.next().as_deref(), Some(says));
}

/// A part of a line is not readiness. The file exists from the line to the stop request.
#[test]
fn a_line_on_the_descriptor_is_readiness() {
    let (dir, manager) = (Dir::new(), Manager::new());
    let (file, report) = (dir.write("ready", "old", 0o644), dir.file("report"));
    let options = [
        "--ready",
        "fd:3",
        "--ready-file",
        text(&file),
        "--report",
        text(&report),
    ];
    let start = Start::new(options).env("NOTIFY_SOCKET", &manager.address);
    let script = "trap 'echo stops; read -r x; exit 7' TERM; echo up; read -r x; printf part >&3; \
                  echo half; read -r x; echo ' and the rest' >&3; echo whole; while :; do sleep 0.02; done";
    let (mut bowout, mut steps) = stepped(start, script);
    assert_eq!(bowout.out.next().as_deref(), Some("up"));
    assert!(!file.exists(), "that of an earlier run");
    step(&mut steps, &mut bowout, "half");
    // The script has written a part of a line, and is not ready.
    assert!(!file.exists() && bowout.err.seen().is_empty());
    step(&mut steps, &mut bowout, "whole");
    bowout
        .err
        .find("ready", |line| line.contains("is ready after"));
    until("the file", || file.exists().then_some(()));
    manager.hears("READY=1");
    bowout.kill(TERM);
    assert_eq!(bowout.out.next().as_deref(), Some("stops"));
    until("no file", || (!file.exists()).then_some(()));
    steps.write_all(b"\n").expect("a reader");
    assert_eq!(bowout.end(), Status::Code(7));
    assert!(read(&report)["ready_ms"].is_u64());
}

/// bowout's own descriptors can have the number: those that it opened for a log line before the
/// start, and the pipe with the result of the exec.
#[test]
fn any_number_can_be_the_descriptor_of_readiness() {
    for (number, more) in (3..=20).flat_map(|number| [(number, None), (number, Some("--guard"))]) {
        let dir = Dir::new();
        let (file, report) = (dir.file("ready"), dir.file("report"));
        let ready = format!("fd:{number}");
        let (_screen, terminal) = open();
        let start = || {
            let options = ["--ready", &ready, "--ready-file", text(&file)];
            let terminal = terminal.try_clone().expect("a terminal");
            let report = ["--report", text(&report)];
            let start = Start::new(options.into_iter().chain(report).chain(more));
            start.env("BOWOUT_GRAC", "1s").stderr(terminal)
        };
        let script =
            format!("echo >/proc/self/fd/{number}; while [ ! -e $0 ]; do sleep 0.02; done");
        let mut bowout = start().command(["sh", "-c", &script, text(&file)]);
        assert_eq!(bowout.end(), Status::Code(0), "{ready} {more:?}");
        assert!(read(&report)["ready_ms"].is_u64(), "{ready} {more:?}");
        let mut bowout = start().command(["/no/such/command"]);
        assert_eq!(bowout.end(), Status::Code(127), "{ready} {more:?}");
        let report = read(&report);
        assert!(report["error"].is_string(), "{ready} {more:?}: {report:#}");
    }
}

/// The report goes to the descriptor of bowout, readiness to that of the command.
#[test]
fn the_report_and_readiness_can_have_one_number() {
    let (mut reader, writer) = pipe().expect("a pipe");
    let number = writer.as_raw_fd();
    let fd = format!("fd:{number}");
    let options = ["--ready", &fd, "--report", &fd];
    let start = Start::new(options).inherit(&writer);
    let mut bowout = start.sh(&format!("printf x >/proc/self/fd/{number}"));
    drop(writer);
    assert_eq!(bowout.end(), Status::Code(0));
    let mut text = String::new();
    reader.read_to_string(&mut text).expect("a report");
    let report: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(report["exit"]["code"], 0, "{report:#}");
}

#[test]
fn readiness_can_have_every_number_that_the_limit_of_open_files_allows() {
    let start = |ready: &str| {
        let setup = ["--nofile", "64"];
        Start::new(["--ready", ready]).with(setup)
    };
    let mut bowout = start("fd:63").sh("echo >/proc/self/fd/63; exec sleep 1000");
    bowout
        .err
        .find("ready", |line| line.contains("is ready after"));
    bowout.kill(TERM);
    assert_eq!(bowout.end(), bowout.died(TERM));
    for number in ["64", "2147483647"] {
        let mut bowout = start(&format!("fd:{number}")).command(["true"]);
        assert_eq!(bowout.end(), Status::Code(125));
        let line = format!(
            "bowout: cannot start 'true': --ready fd:{number} is not below the limit of open files, 64: write a lower number"
        );
        assert_eq!(bowout.line(), line);
    }
}

#[test]
fn a_message_is_readiness_without_a_manager() {
    let dir = Dir::new();
    let (file, report) = (dir.file("ready"), dir.file("report"));
    let options = [
        "--ready",
        "notify",
        "--ready-file",
        text(&file),
        "--report",
        text(&report),
    ];
    let mut bowout = say(
        Start::new(options),
        "say up | wait USR1 end | send READY=1 | wait TERM end | exit 0",
    );
    assert_eq!(bowout.out.next().as_deref(), Some("up"));
    assert!(!file.exists());
    bowout.kill(libc::SIGUSR1);
    until("the file", || file.exists().then_some(()));
    bowout.kill(TERM);
    assert_eq!(bowout.end(), Status::Code(0));
    assert!(!file.exists() && read(&report)["ready_ms"].is_u64());
}

#[test]
fn a_command_that_is_not_ready_in_time_is_stopped() {
    for (ready, script) in [
        ("notify", "exec sleep 1000"),
        ("fd:9", "printf x >&9; exec sleep 1000"),
        // The command has closed the descriptor, and will never be ready.
        ("fd:9", "exec 9>&-; exec sleep 1000"),
    ] {
        let dir = Dir::new();
        let report = dir.file("report");
        let options = [
            "--ready",
            ready,
            "--ready-timeout",
            "200ms",
            "--report",
            text(&report),
        ];
        let mut bowout = Start::new(options).sh(script);
        assert_eq!(bowout.end(), Status::Code(124), "{ready} {script}");
        let log = bowout.log();
        assert!(
            log[0].contains("is not ready after 200ms: sent SIGTERM"),
            "{log:#?}"
        );
        let report = read(&report);
        assert_eq!(report["stop"]["reason"], "not_ready");
        assert_eq!(report["ready_ms"], Value::Null);
    }
}

/// The hooks that collect evidence run before the signal that ends the command.
#[test]
fn a_silent_command_is_ended_by_sigabrt_after_the_evidence() {
    let dir = Dir::new();
    let (report, evidence) = (dir.file("report"), dir.file("evidence"));
    let hook = format!(
        "kill -0 $BOWOUT_CHILD_PID && echo $BOWOUT_REASON >{}",
        text(&evidence)
    );
    let options = [
        "--watchdog",
        "5s",
        "--pre-kill",
        &hook,
        "--report",
        text(&report),
    ];
    // It sends a ping every 50 ms until it receives a signal.
    let mut bowout = say(Start::new(options), "ping 50 | wait ABRT end | die ABRT");
    let line = bowout.out.next().expect("a line");
    assert_eq!(line, "watchdog 5000000 pid mine");
    bowout
        .out
        .find("pings for a second", |line| line == "ping 20");
    bowout.kill(libc::SIGUSR1);
    assert_eq!(bowout.end(), Status::Code(124));
    assert_eq!(
        std::fs::read_to_string(&evidence).expect("evidence"),
        "watchdog\n"
    );
    let report = read(&report);
    assert_eq!(report["stop"]["reason"], "watchdog");
    assert_eq!(report["child"]["signal"], "SIGABRT", "{report:#}");
    let log = bowout.log();
    assert!(
        log[1].contains("has not sent WATCHDOG=1 for 5s: running pre-kill hooks"),
        "{log:#?}"
    );
}

/// A long deadline is set, and nothing wakes bowout.
#[test]
fn a_ready_command_and_its_watchdog_cost_nothing() {
    let options = ["--ready", "notify", "--watchdog", "1h"];
    let words = "send READY=1 | say up | wait USR1 end | say again | wait TERM end | exit 0";
    let mut bowout = say(Start::new(options), words);
    bowout
        .err
        .find("ready", |line| line.contains("is ready after"));
    let before = switches_asleep(&[bowout.pid]);
    let start = std::time::Instant::now();
    until("a second", || {
        (start.elapsed().as_millis() > 1000).then_some(())
    });
    assert_eq!(switches_asleep(&[bowout.pid]), before);
    bowout.kill(libc::SIGUSR1);
    bowout.kill(TERM);
    assert_eq!(bowout.end(), Status::Code(0));
}

/// An instance that prints its PID, is ready, and exits with 5 on SIGTERM.
const SERVES: &str = "trap 'echo stops $$; exit 5' TERM; echo up $$ $LISTEN_PID; echo >&3; while :; do sleep 0.02; done";

fn replaces(options: &[&str], script: &str) -> Running {
    let all = [&["--replace-on", "HUP", "--ready", "fd:3"], options].concat();
    // LISTEN_PID names bowout.
    let line = [
        "-c",
        "LISTEN_PID=$$ exec \"$0\" \"$@\"",
        crate::common::BOWOUT,
    ];
    let words = line
        .iter()
        .copied()
        .chain(all)
        .chain(["--", "sh", "-c", script]);
    Start::direct().command(["sh"].into_iter().chain(words))
}

/// The PID in the next line of this kind.
fn pid(bowout: &mut Running, kind: &str) -> i32 {
    let line = bowout.out.find(kind, |line| line.starts_with(kind));
    let mut words = line.split(' ').skip(1);
    let pid = words.next().expect("a PID");
    assert!(words.next().is_none_or(|listens| listens == pid), "{line}");
    pid.parse().expect("a PID")
}

#[test]
fn a_new_instance_takes_the_place_of_the_old_one() {
    let dir = Dir::new();
    let file = dir.file("ready");
    let mut bowout = replaces(&["--ready-file", text(&file)], SERVES);
    let mut serves = pid(&mut bowout, "up");
    for _ in 0..3 {
        until("the file", || file.exists().then_some(()));
        bowout.kill(HUP);
        let next = pid(&mut bowout, "up");
        assert_eq!(pid(&mut bowout, "stops"), serves);
        bowout.err.find("the end", |line| {
            line.contains("after a new instance was ready")
        });
        until("one supervisor", || {
            (children(bowout.pid).len() == 1).then_some(())
        });
        assert!(file.exists());
        serves = next;
    }
    bowout.kill(TERM);
    assert_eq!(pid(&mut bowout, "stops"), serves);
    assert_eq!(bowout.end(), Status::Code(5));
    assert!(!file.exists());
}

#[test]
fn an_instance_that_is_not_ready_changes_nothing() {
    let dir = Dir::new();
    let flag = dir.file("flag");
    for (bad, why) in [
        (
            "exit 3",
            "the new instance exited with 3 before it was ready",
        ),
        (
            "exec sleep 1000",
            "the new instance exited with 124 before it was ready",
        ),
    ] {
        let script = format!("test -e {} && {bad}; {SERVES}", text(&flag));
        let _ = std::fs::remove_file(&flag);
        let mut bowout = replaces(&["--ready-timeout", "5s"], &script);
        let serves = pid(&mut bowout, "up");
        std::fs::write(&flag, "").expect("a flag");
        bowout.kill(HUP);
        let line = bowout
            .err
            .find("the failure", |line| line.contains("serves on"));
        assert!(line.contains(why), "{line}");
        bowout.kill(TERM);
        assert_eq!(pid(&mut bowout, "stops"), serves);
        assert_eq!(bowout.end(), Status::Code(5));
    }
}

/// A request during a replacement is dropped, and a stop request stops both instances.
#[test]
fn a_stop_request_stops_both_instances() {
    let dir = Dir::new();
    let flag = dir.file("flag");
    // The second instance is never ready.
    let second = "trap 'echo stops $$; exit 6' TERM; echo up $$; while :; do sleep 0.02; done";
    let script = format!("if test -e {}; then {second}; fi; {SERVES}", text(&flag));
    let mut bowout = replaces(&[], &script);
    let first = pid(&mut bowout, "up");
    std::fs::write(&flag, "").expect("a flag");
    bowout.kill(HUP);
    let second = pid(&mut bowout, "up");
    bowout.kill(HUP);
    bowout.err.find("the second", |line| {
        line.contains("is being replaced already")
    });
    bowout.kill(TERM);
    let mut stopped = [pid(&mut bowout, "stops"), pid(&mut bowout, "stops")];
    stopped.sort_unstable();
    let mut both = [first, second];
    both.sort_unstable();
    assert_eq!(stopped, both);
    // The status is that of the instance that served.
    assert_eq!(bowout.end(), Status::Code(5));
}

/// A new instance would keep running after the stop.
#[test]
fn no_instance_is_started_after_a_stop_request() {
    let script = "trap 'echo stops $$; read -r x; exit 5' TERM; echo up $$; echo >&3; while :; do sleep 0.02; done";
    let (stdin, mut steps) = pipe().expect("a pipe");
    let options = ["--replace-on", "HUP", "--ready", "fd:3"];
    let mut bowout = Start::new(options).stdin(stdin).sh(script);
    let first = pid(&mut bowout, "up");
    bowout.kill(TERM);
    assert_eq!(pid(&mut bowout, "stops"), first);
    bowout.kill(HUP);
    bowout.err.find("the request", |line| {
        line.contains("is being stopped already")
    });
    steps.write_all(b"\n").expect("a reader");
    assert_eq!(bowout.end(), Status::Code(5));
}

#[test]
fn a_dropped_signal_prevents_no_replacement() {
    let options = ["--remap", "TERM:0", "--stop-signal", "TERM", "-v"];
    let mut bowout = replaces(&options, SERVES);
    let first = pid(&mut bowout, "up");
    bowout.kill(TERM);
    bowout
        .err
        .find("the drop", |line| line.contains("dropped, as --remap says"));
    bowout.kill(HUP);
    let next = pid(&mut bowout, "up");
    assert_eq!(pid(&mut bowout, "stops"), first);
    bowout.kill(libc::SIGINT);
    assert_eq!(pid(&mut bowout, "stops"), next);
    assert_eq!(bowout.end(), Status::Code(5));
}

/// Without `--ready`, an instance that has run for a second is ready.
#[test]
fn an_instance_that_lives_for_a_second_is_ready() {
    let script = "trap 'echo stops $$; exit 5' TERM; echo up $$; while :; do sleep 0.02; done";
    let mut bowout = Start::new(["--replace-on", "USR2"]).sh(script);
    let first = pid(&mut bowout, "up");
    bowout.kill(libc::SIGUSR2);
    let next = pid(&mut bowout, "up");
    assert_eq!(pid(&mut bowout, "stops"), first);
    bowout.kill(TERM);
    assert_eq!(pid(&mut bowout, "stops"), next);
    assert_eq!(bowout.end(), Status::Code(5));
}

/// Kills each of bowout's three processes during a replacement.
#[test]
fn nothing_survives_a_kill_during_a_replacement() {
    let dir = Dir::new();
    let flag = dir.file("flag");
    let script = format!(
        "if test -e {}; then echo up $$; exec sleep 1000; fi; {SERVES}",
        text(&flag)
    );
    for victim in 0..3 {
        let _ = std::fs::remove_file(&flag);
        let mut bowout = replaces(&["--grace", "200ms"], &script);
        pid(&mut bowout, "up");
        let first = bowout.child_pid();
        std::fs::write(&flag, "").expect("a flag");
        bowout.kill(HUP);
        pid(&mut bowout, "up");
        let second = children(bowout.pid).into_iter().find(|pid| *pid != first);
        match victim {
            0 => bowout.kill(KILL),
            1 => kill(first, KILL),
            _ => {
                kill(second.expect("a second supervisor"), KILL);
                bowout
                    .err
                    .find("the failure", |line| line.contains("serves on"));
                bowout.kill(TERM);
            }
        }
        until(&format!("nothing is left: {victim}"), || {
            bowout.left().is_empty().then_some(())
        });
    }
}
