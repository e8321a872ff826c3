//! bowout's written results: `--report` for programs, `--termination-log` for a user that reads the
//! reason in Kubernetes.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{PipeReader, Read, Write, pipe};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::common::{
    BOWOUT, Dir, Home, Lines, NOTHING, Running, SOON, Start, Status, children, homes, keep_report,
    leftovers, no_namespaces, not_root, probe, skip, timed, until,
};

const TERM: i32 = libc::SIGTERM;
const KILL: i32 = libc::SIGKILL;
const USR1: i32 = libc::SIGUSR1;

/// The fields of a report; all of them are always present.
const FIELDS: [&str; 25] = [
    "bowout",
    "child",
    "command",
    "containment",
    "descendants",
    "drain_time_ms",
    "end",
    "error",
    "error_code",
    "exit",
    "killed",
    "log_lines_lost",
    "max_rss_kib",
    "oom",
    "orphans_reaped",
    "outlives_bowout",
    "pid",
    "ready_ms",
    "run_time_ms",
    "schema",
    "start",
    "stop",
    "survivors",
    "system_time_ms",
    "user_time_ms",
];
const STOP_FIELDS: [&str; 10] = [
    "at",
    "by",
    "escalated",
    "escalated_by",
    "forwarded_after_ms",
    "grace_ms",
    "more_rungs",
    "reason",
    "rungs",
    "took_ms",
];

fn keys(value: &Value) -> BTreeSet<&str> {
    value
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect()
}

/// A stamp in milliseconds since 1970.
fn millis(stamp: &Value) -> i128 {
    let time = humantime::parse_rfc3339(stamp.as_str().expect("a stamp"))
        .unwrap_or_else(|error| panic!("{error}: {stamp}"));
    since_1970(time)
}

fn since_1970(time: SystemTime) -> i128 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .expect("after 1970")
        .as_millis() as i128
}

/// A number of the report.
fn number(value: &Value) -> i128 {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("no number: {value}"))
        .into()
}

/// Parses a report: one object on one line, with every field, and times that agree.
fn parse(text: &str) -> Value {
    assert!(
        text.ends_with('\n') && text.matches('\n').count() == 1,
        "{text:?}"
    );
    let report: Value =
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text:?}"));
    assert_eq!(keys(&report), FIELDS.into(), "{report:#}");
    keep_report(text);
    assert_eq!(report["bowout"], env!("CARGO_PKG_VERSION"));
    let (start, end) = (millis(&report["start"]), millis(&report["end"]));
    // The drain is null if the command could not be run, or did not exit.
    let drain = report["drain_time_ms"].as_u64().unwrap_or(0);
    assert!(
        (end - start - number(&report["run_time_ms"]) - i128::from(drain)).abs() <= 2,
        "{report:#}"
    );
    if let stop @ Value::Object(_) = &report["stop"] {
        assert_eq!(keys(stop), STOP_FIELDS.into(), "{report:#}");
        let at = millis(&stop["at"]);
        assert!(start <= at && at <= end, "{report:#}");
        assert!(
            (end - at - number(&stop["took_ms"])).abs() <= 1,
            "{report:#}"
        );
        let rungs: Vec<i128> = stop["rungs"]
            .as_array()
            .expect("rungs")
            .iter()
            .map(|rung| number(&rung["after_ms"]))
            .collect();
        assert!(
            rungs.is_sorted() && rungs.iter().all(|after| *after <= number(&stop["took_ms"])),
            "{report:#}"
        );
    }
    report
}

fn read(path: impl AsRef<Path>) -> Value {
    parse(&fs::read_to_string(path).expect("a report"))
}

/// Runs bowout to its end after `act`; returns the status and the report.
fn run(
    home: Home,
    options: &[&str],
    child: &[&str],
    act: impl FnOnce(&mut Running),
) -> (Status, Value) {
    let dir = Dir::new();
    let file = dir.file("report.json");
    let path = file.to_str().expect("text");
    let mut bowout = Start::new(["--report", path].iter().chain(options))
        .at(home)
        .command(child);
    act(&mut bowout);
    let status = bowout.end();
    (status, read(&file))
}

fn probe_with<'a>(words: &[&'a str]) -> Vec<&'a str> {
    [probe().to_str().expect("text")]
        .into_iter()
        .chain(words.iter().copied())
        .collect()
}

fn rungs(stop: &Value) -> Vec<&str> {
    stop["rungs"]
        .as_array()
        .expect("rungs")
        .iter()
        .map(|rung| rung["signal"].as_str().expect("a name"))
        .collect()
}

/// No command was started.
#[test]
fn a_start_that_fails_is_reported() {
    let dir = Dir::new();
    let uid = leftovers::own_user().to_string();
    let root: &[&str] = if not_root().is_none() {
        &["--uid", &uid]
    } else {
        &[]
    };
    let setup: Vec<&str> = ["--nproc", "1"].iter().chain(root).copied().collect();
    let mut bowout = Start::new(["-q", "--report", "-"])
        .program(dir.program(BOWOUT))
        .with(setup)
        .command(["echo", "started"]);
    assert_eq!(bowout.end(), Status::Code(125));
    let text = bowout.out.rest().join("\n");
    keep_report(&text);
    let report: Value =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(report["command"], json!(["echo", "started"]));
    assert_eq!(report["exit"], json!({"code": 125, "number": 125}));
    assert_eq!(report["error_code"], "own_failure");
    let error = report["error"].as_str().expect("a sentence");
    assert!(bowout.line().ends_with(error), "{report:#}");
}

#[test]
fn an_exit_by_itself_is_reported() {
    for home in homes() {
        let before = since_1970(SystemTime::now());
        let mut child = 0;
        let words = probe_with(&["signals", "--exit", "USR1:3"]);
        let (status, report) = run(home, &[], &words, |bowout| {
            child = bowout.ready();
            bowout.kill(USR1);
        });
        assert_eq!(status, Status::Code(3));
        assert!(before <= millis(&report["start"]), "{report:#}");
        assert!(
            millis(&report["end"]) <= since_1970(SystemTime::now()) + 1,
            "{report:#}"
        );
        assert_eq!(report["command"], json!(words));
        assert_eq!(report["pid"], json!(child), "{home:?}");
        assert_eq!(
            (&report["child"], &report["exit"]),
            (
                &json!({"code": 3, "number": 3}),
                &json!({"code": 3, "number": 3})
            )
        );
        assert_eq!(report["stop"], Value::Null);
        assert_eq!(
            report["descendants"],
            json!({"left": 0, "ended": 0, "killed": 0})
        );
        assert_eq!(
            (&report["orphans_reaped"], &report["log_lines_lost"]),
            (&json!(0), &json!(0))
        );
    }
}

#[test]
fn the_resources_of_the_child_are_reported() {
    for home in homes() {
        let script = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done";
        let (status, report) = run(home, &[], &["sh", "-c", script], |_| {});
        assert_eq!(status, Status::Code(0));
        let used = number(&report["user_time_ms"]) + number(&report["system_time_ms"]);
        assert!(
            used > 5 && number(&report["max_rss_kib"]) > 500,
            "{report:#}"
        );
    }
}

#[test]
fn words_that_need_escaping_are_reported() {
    let words = ["sh", "-c", "exit 0", "a \"b\"\n\t\\\u{1}é"];
    assert_eq!(
        run(Home::Subreaper, &[], &words, |_| {}).1["command"],
        json!(words)
    );
}

#[test]
fn a_death_by_a_signal_is_reported_with_what_bowout_makes_of_it() {
    for home in homes() {
        let words = probe_with(&["die", "11"]);
        let (status, report) = run(home, &[], &words, |_| {});
        assert_eq!(
            report["child"],
            json!({"signal": "SIGSEGV", "number": 139, "core": false}),
            "{home:?}"
        );
        let wanted = if home == Home::Pid1 {
            json!({"code": 139, "number": 139})
        } else {
            json!({"signal": "SIGSEGV", "number": 139})
        };
        assert_eq!(report["exit"], wanted);
        assert!(
            matches!(status, Status::Code(139) | Status::Signal(11)),
            "{status:?}"
        );
        let (status, report) = run(home, &["--remap-exit", "139:4"], &words, |_| {});
        assert_eq!(
            (status, &report["exit"]),
            (Status::Code(4), &json!({"code": 4, "number": 4}))
        );
        assert_eq!(report["child"]["signal"], "SIGSEGV");
    }
}

/// The report of a child that `ask` stops, and that exits with 3 by itself.
fn stopped(home: Home, options: &[&str], ask: impl FnOnce(&mut Running)) -> Value {
    let words = probe_with(&["signals", "--exit", "TERM:3", "--tell", "USR1:TERM"]);
    let options: Vec<&str> = ["--grace", "1h"]
        .into_iter()
        .chain(options.iter().copied())
        .collect();
    let (status, report) = run(home, &options, &words, |bowout| {
        bowout.ready();
        ask(bowout);
    });
    assert_eq!(status, Status::Code(3));
    let stop = &report["stop"];
    assert_eq!(
        (&stop["reason"], &stop["escalated"]),
        (&json!("signal"), &Value::Null),
        "{report:#}"
    );
    assert_eq!(
        (rungs(stop), &stop["grace_ms"]),
        (vec!["SIGTERM"], &json!(3_600_000)),
        "{report:#}"
    );
    assert_eq!(
        stop["forwarded_after_ms"], stop["rungs"][0]["after_ms"],
        "{report:#}"
    );
    assert!(
        number(&stop["took_ms"]) < SOON.as_millis() as i128,
        "{report:#}"
    );
    assert_eq!(stop["by"]["signal"], "SIGTERM", "{report:#}");
    report
}

fn name_of(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm"))
        .expect("a name")
        .trim_end()
        .to_owned()
}

fn uid() -> u32 {
    // SAFETY: no arguments.
    unsafe { libc::getuid() }
}

#[test]
fn a_request_of_the_managers_is_reported_with_its_sender() {
    let report = stopped(Home::Subreaper, &[], |bowout| bowout.kill(TERM));
    let by = &report["stop"]["by"];
    let me = std::process::id();
    assert_eq!(
        by,
        &json!({"signal": "SIGTERM", "side": "manager", "pid": me, "uid": uid(), "name": name_of(me)})
    );
}

#[test]
fn a_request_is_reported_with_the_senders_user_and_not_bowouts() {
    if skip(not_root()) {
        return;
    }
    let dir = Dir::new();
    let child = dir.program(probe());
    let (from, to) = pipe().expect("a pipe");
    let mut bowout = Start::new(["--report", &format!("fd:{}", to.as_raw_fd())])
        .program(dir.program(BOWOUT))
        .with(["--uid", "65534"])
        .inherit(&to)
        .command([child.to_str().expect("text"), "signals", "--exit", "TERM:3"]);
    drop(to);
    bowout.ready();
    bowout.kill(TERM);
    assert_eq!(bowout.end(), Status::Code(3));
    let report = parse(&(Lines::of(from).rest().join("\n") + "\n"));
    assert_eq!(
        (&report["stop"]["by"]["uid"], &report["stop"]["by"]["side"]),
        (&json!(0), &json!("manager"))
    );
}

/// Even if nothing is logged.
#[test]
fn the_senders_name_is_reported_without_a_log() {
    let report = stopped(Home::Subreaper, &["-qq"], |bowout| bowout.kill(TERM));
    assert_eq!(report["stop"]["by"]["name"], name_of(std::process::id()));
}

#[test]
fn a_request_from_outside_is_reported_without_a_sender() {
    if skip(no_namespaces()) {
        return;
    }
    let report = stopped(Home::Pid1, &[], |bowout| bowout.kill(TERM));
    let by = &report["stop"]["by"];
    assert_eq!(
        by,
        &json!({"signal": "SIGTERM", "side": "outside", "pid": null, "uid": null, "name": null})
    );
}

#[test]
fn a_request_of_another_process_is_reported_with_its_sender() {
    let (stdin, hold) = pipe().expect("a pipe");
    let mut sender = None;
    let report = stopped(Home::Subreaper, &[], |bowout| {
        // The sender keeps running, so that bowout can read its name.
        let script = format!("kill -TERM {}; read go", bowout.pid);
        sender = Some(Start::direct().stdin(stdin).command(["sh", "-c", &script]));
        bowout.out.rest();
    });
    let pid = sender.as_ref().expect("started").pid;
    let by = &report["stop"]["by"];
    assert_eq!(
        by,
        &json!({"signal": "SIGTERM", "side": "process", "pid": pid, "uid": uid(), "name": "sh"})
    );
    drop(hold);
}

#[test]
fn a_request_of_the_childs_is_reported_with_its_sender() {
    for home in homes() {
        let report = stopped(home, &[], |bowout| bowout.kill(USR1));
        let by = &report["stop"]["by"];
        let child = &report["pid"];
        assert_eq!(
            (&by["side"], &by["pid"], &by["name"]),
            (&json!("tree"), child, &json!("probe")),
            "{home:?}"
        );
    }
}

#[test]
fn the_stop_delay_is_part_of_what_is_reported() {
    for home in homes() {
        let report = stopped(
            home,
            &["--stop-delay", "300ms", "--pre-stop", "true"],
            |bowout| bowout.kill(TERM),
        );
        let stop = &report["stop"];
        assert!(number(&stop["forwarded_after_ms"]) >= 300, "{report:#}");
        assert!(
            number(&stop["took_ms"]) >= number(&stop["forwarded_after_ms"]),
            "{report:#}"
        );
        // The hook counts neither as a descendant that was left nor as an orphan.
        assert_eq!(
            report["descendants"],
            json!({"left": 0, "ended": 0, "killed": 0}),
            "{report:#}"
        );
        assert_eq!(report["orphans_reaped"], 0, "{report:#}");
    }
}

#[test]
fn an_escalation_is_reported_rung_by_rung() {
    for home in homes() {
        let words = probe_with(&["tree", "2", "--stubborn"]);
        let (status, report) = run(
            home,
            &["--escalate", "USR1/200ms/USR2/200ms/KILL"],
            &words,
            |bowout| {
                bowout.ready();
                bowout.kill(TERM);
            },
        );
        assert!(
            matches!(status, Status::Signal(KILL) | Status::Code(137)),
            "{status:?}"
        );
        let stop = &report["stop"];
        // The descendants had received no stop signal before, and have a second.
        assert_eq!(
            rungs(stop),
            ["SIGUSR1", "SIGUSR2", "SIGKILL", "SIGTERM", "SIGKILL"],
            "{report:#}"
        );
        let after: Vec<i128> = (0..3)
            .map(|rung| number(&stop["rungs"][rung]["after_ms"]))
            .collect();
        assert!(after[1] >= 200 && after[2] >= 400, "{report:#}");
        assert!(
            (400..SOON.as_millis() as i128).contains(&number(&stop["took_ms"])),
            "{report:#}"
        );
        assert_eq!(stop["grace_ms"], 400);
        let why = stop["escalated"].as_str().expect("a reason");
        assert!(
            why.contains("400ms grace period expired") && why.contains("SIGTERM"),
            "{why}"
        );
        assert_eq!(stop["by"]["signal"], "SIGTERM");
        assert_eq!(report["descendants"]["killed"], 2, "{report:#}");
        assert_eq!(report["child"]["signal"], "SIGKILL");
    }
}

#[test]
fn a_second_request_is_reported_as_the_reason() {
    for home in homes() {
        let words = probe_with(&["signals"]);
        let (_, report) = run(home, &["--grace", "never"], &words, |bowout| {
            bowout.ready();
            bowout.kill(TERM);
            bowout.expect(TERM);
            bowout.kill(libc::SIGINT);
        });
        let stop = &report["stop"];
        let why = stop["escalated"].as_str().expect("a reason");
        assert!(
            why.contains("SIGINT") && why.contains("second stop request"),
            "{why}"
        );
        assert_eq!(
            (&stop["grace_ms"], rungs(stop)),
            (&Value::Null, vec!["SIGTERM", "SIGKILL"]),
            "{report:#}"
        );
    }
}

/// The child never received the signal that started the stop.
#[test]
fn a_signal_that_was_never_forwarded_is_not_reported_as_forwarded() {
    let words = probe_with(&["signals"]);
    let (_, report) = run(Home::Subreaper, &["--grace", "0"], &words, |bowout| {
        bowout.ready();
        bowout.kill(TERM);
    });
    assert_eq!(
        (
            rungs(&report["stop"]),
            &report["stop"]["forwarded_after_ms"]
        ),
        (vec!["SIGKILL"], &Value::Null)
    );
}

#[test]
fn max_runtime_is_reported_as_the_reason() {
    for home in homes() {
        let words = probe_with(&["idle"]);
        let (status, report) = run(
            home,
            &["--max-runtime", "300ms", "--grace", "1h"],
            &words,
            |_| {},
        );
        assert_eq!(status, Status::Code(124));
        let stop = &report["stop"];
        assert_eq!(
            (&stop["reason"], &stop["by"]),
            (&json!("max_runtime"), &Value::Null),
            "{report:#}"
        );
        assert_eq!(
            (&report["exit"], &report["child"]["signal"]),
            (&json!({"code": 124, "number": 124}), &json!("SIGTERM"))
        );
        assert!(number(&report["run_time_ms"]) >= 300, "{report:#}");
        assert!(
            millis(&stop["at"]) - millis(&report["start"]) >= 300,
            "{report:#}"
        );
    }
}

/// The child exits by itself and leaves one descendant that obeys and one that does not.
#[test]
fn descendants_left_are_reported_as_ended_or_killed() {
    for home in homes() {
        let signals = "\"$PROBE\" signals --name";
        let script =
            format!("{signals} o --exit TERM:0 & {signals} s & exec {signals} c --exit USR1:5");
        let (status, report) = run(home, &["--grace", "3s"], &["sh", "-c", &script], |bowout| {
            for name in ["o", "s", "c"] {
                bowout.ready_as(name);
            }
            bowout.kill(USR1);
        });
        assert_eq!(status, Status::Code(5), "{home:?}");
        assert_eq!(
            report["descendants"],
            json!({"left": 2, "ended": 1, "killed": 1}),
            "{home:?}: {report:#}"
        );
        assert_eq!(
            (&report["stop"], &report["exit"]),
            (&Value::Null, &json!({"code": 5, "number": 5}))
        );
        assert!(number(&report["drain_time_ms"]) >= 3000, "{report:#}");
    }
}

/// A hook is not a descendant of the command. After its SIGKILL it may still run for a moment while
/// bowout looks for descendants: hence more than one round.
#[test]
fn a_hook_that_is_ended_with_the_child_is_not_a_descendant_that_was_left() {
    let words = probe_with(&["signals", "--exit", "USR1:3"]);
    let options = [
        "--grace",
        "1h",
        "--pre-stop",
        "exec \"$PROBE\" signals --name h",
    ];
    for round in 0..60 {
        let (status, report) = run(Home::Subreaper, &options, &words, |bowout| {
            bowout.ready();
            bowout.kill(TERM);
            bowout
                .err
                .find("the hook", |line| line.starts_with("h ready "));
            bowout.kill(USR1);
            let log = bowout.log();
            assert!(
                log.iter().all(|line| !line.contains("descendant")),
                "round {round}: {log:#?}"
            );
        });
        assert_eq!(status, Status::Code(3));
        assert_eq!(
            report["descendants"],
            json!({"left": 0, "ended": 0, "killed": 0}),
            "round {round}: {report:#}"
        );
        assert_eq!(
            report["stop"]["forwarded_after_ms"],
            Value::Null,
            "round {round}: {report:#}"
        );
    }
}

/// The stop signal is for the child, which had exited already.
#[test]
fn a_request_that_came_in_the_drain_is_not_reported_as_forwarded() {
    let script = "\"$PROBE\" signals --name d --exit USR2:0 & exec \"$PROBE\" signals --name c --exit USR1:5";
    let (status, report) = run(
        Home::Subreaper,
        &["--grace", "1h"],
        &["sh", "-c", script],
        |bowout| {
            bowout.ready_as("c");
            let descendant = bowout.ready_as("d");
            bowout.kill(USR1);
            bowout
                .out
                .find("the drain", |line| line.starts_with(&format!("d {TERM} ")));
            bowout.kill(TERM);
            bowout
                .err
                .find("the request", |line| line.contains("SIGTERM from"));
            // SAFETY: a descendant of this process that lives until it has this signal.
            unsafe { libc::kill(descendant, libc::SIGUSR2) };
        },
    );
    assert_eq!(status, Status::Code(5));
    assert_eq!(report["stop"]["by"]["side"], "manager", "{report:#}");
    assert_eq!(
        report["stop"]["forwarded_after_ms"],
        Value::Null,
        "{report:#}"
    );
}

/// In this mode, descendants receive the stop signal with the child, and not again after its exit.
#[test]
fn descendants_left_are_reported_in_mode_group_as_well() {
    for home in homes() {
        let signals = "\"$PROBE\" signals --name";
        let script = format!(
            "{signals} o --exit USR2:0 & {signals} s & exec {signals} c --exit USR1:5 --exit TERM:5"
        );
        let mut obedient = 0;
        let (status, report) = run(
            home,
            &["--grace", "never", "-g"],
            &["sh", "-c", &script],
            |bowout| {
                for name in ["o", "s", "c"] {
                    bowout.ready_as(name);
                }
                let child = bowout.child_pid();
                obedient = children(child)[0];
                bowout.kill(TERM);
                until("the child is reaped", || {
                    (!children(bowout.pid).contains(&child)).then_some(())
                });
                // SAFETY: a descendant of this process that lives until it has this signal.
                unsafe { libc::kill(obedient, libc::SIGUSR2) };
                until("it is reaped", || {
                    (!children(bowout.pid).contains(&obedient)).then_some(())
                });
                bowout.kill(TERM);
            },
        );
        assert_eq!(status, Status::Code(5), "{home:?}");
        assert_eq!(
            report["descendants"],
            json!({"left": 2, "ended": 1, "killed": 1}),
            "{home:?}: {report:#}"
        );
    }
}

#[test]
fn orphans_are_counted() {
    for home in homes() {
        let words = probe_with(&["orphans", "7"]);
        let (status, report) = run(home, &[], &words, |_| {});
        assert_eq!(
            (status, &report["orphans_reaped"]),
            (Status::Code(0), &json!(7)),
            "{home:?}"
        );
    }
}

/// A full pipe: the end that keeps it open, and the end for writing.
fn full() -> (PipeReader, OwnedFd) {
    let (read, write) = pipe().expect("a pipe");
    let path = format!("/proc/self/fd/{}", write.as_raw_fd());
    // A separate open file description, because the flags of the other are shared with bowout.
    let mut file = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .expect("opened anew");
    for size in [4096, 1] {
        while file.write(&vec![b'\n'; size]).is_ok() {}
    }
    (read, write.into())
}

#[test]
fn log_lines_that_were_lost_are_reported() {
    for home in homes() {
        let dir = Dir::new();
        let file = dir.file("r");
        let (read_end, write) = full();
        let mut bowout = Start::new(["-v", "--report", file.to_str().expect("text")])
            .at(home)
            .stderr(write)
            .probe(["signals", "--exit", "USR1:3"]);
        bowout.ready();
        bowout.kill(USR1);
        assert_eq!(bowout.end(), Status::Code(3));
        assert!(number(&read(&file)["log_lines_lost"]) > 0);
        drop(read_end);
    }
}

/// A reader must not take it for a command that ran and exited with this code.
#[test]
fn a_command_that_cannot_run_is_reported_as_that() {
    for home in homes() {
        for (command, code) in [("no-such-command", 127), ("/etc", 126)] {
            let (status, report) = run(home, &[], &[command], |_| {});
            assert_eq!(
                (status, &report["exit"]),
                (Status::Code(code), &json!({"code": code, "number": code}))
            );
            assert_eq!(report["command"], json!([command]));
            assert!(
                report["child"].is_null() && report.to_string().contains("cannot run"),
                "{home:?}: {report:#}"
            );
        }
    }
}

/// The log of bowout with this report and a child that exits with 3.
fn written(home: Home, path: &Path) -> Vec<String> {
    let mut bowout = Start::new(["--report".as_ref(), path.as_os_str()])
        .at(home)
        .probe(["exit", "3"]);
    assert_eq!(bowout.end(), Status::Code(3), "{}", path.display());
    bowout.log()
}

fn names(dir: &Dir) -> Vec<String> {
    let entries = fs::read_dir(&dir.0)
        .expect("a directory")
        .map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<String> = entries
        .map(|name| name.into_string().expect("text"))
        .collect();
    names.sort();
    names
}

fn fifo(path: &Path) {
    let name = std::ffi::CString::new(path.to_str().expect("text")).expect("no NUL");
    // SAFETY: a string that outlives the call.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
}

/// With this report, bowout exits before anything is started, and logs the reason in one line.
fn refused(home: Home, path: &Path, why: &str) {
    let mut bowout = Start::new(["--report".as_ref(), path.as_os_str()])
        .at(home)
        .sh("echo started");
    assert_eq!(bowout.end(), Status::Code(125), "{}", path.display());
    assert_eq!(bowout.out.rest(), NOTHING);
    let log = bowout.log();
    let told = format!("bowout: cannot report to '{}': ", path.display());
    assert!(
        matches!(&log[..], [line] if line.starts_with(&told) && line.contains(why)),
        "{why}: {log:#?}"
    );
}

#[test]
fn a_report_keeps_the_file_that_is_there_and_a_new_one_is_private() {
    for home in homes() {
        let dir = Dir::new();
        let (old, new) = (
            dir.write("old", "old ".repeat(1000), 0o640),
            dir.file("new"),
        );
        if not_root().is_none() {
            std::os::unix::fs::chown(&old, Some(65534), Some(65534)).expect("root may");
        }
        let what = |path: &Path| {
            let found = fs::symlink_metadata(path).expect("there");
            (found.ino(), found.mode(), found.uid(), found.gid())
        };
        let before = what(&old);
        written(home, &old);
        assert_eq!(what(&old), before, "{home:?}");
        read(&old);
        written(home, &new);
        assert_eq!(what(&new).1 & 0o777, 0o600);
        read(&new);
        assert_eq!(names(&dir), ["new", "old"], "nothing else is left");
    }
}

#[test]
fn a_report_goes_through_no_link_and_into_nothing_but_a_file() {
    for home in homes() {
        let dir = Dir::new();
        let (target, link, pipe, folder) = (
            dir.write("target", "mine", 0o600),
            dir.file("link"),
            dir.file("fifo"),
            dir.file("dir"),
        );
        symlink(&target, &link).expect("a link");
        fifo(&pipe);
        fs::create_dir(&folder).expect("a directory");
        // If bowout opened and closed the FIFO, its reader would see the end of file.
        let mut reader = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&pipe)
            .expect("a FIFO");
        let writer = OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&pipe)
            .expect("a FIFO");
        refused(
            home,
            &link,
            "it is a symbolic link, which bowout does not follow; for a descriptor write fd:N",
        );
        for path in [&pipe, &folder] {
            refused(
                home,
                path,
                "it is not a regular file; for a descriptor write fd:N",
            );
        }
        assert_eq!(
            reader.read(&mut [0; 9]).expect_err("no writer").kind(),
            std::io::ErrorKind::WouldBlock
        );
        drop(writer);
        // An object that the command puts there later is left alone, too. The report is beside it,
        // in the file that the log names.
        let path = dir.file("r");
        let script = format!("mkfifo {}; exit 3", path.display());
        let mut bowout = Start::new(["--report".as_ref(), path.as_os_str()])
            .at(home)
            .sh(&script);
        assert_eq!(bowout.end(), Status::Code(3));
        let log = bowout.log();
        unwritable(&log);
        let names = names(&dir);
        assert_eq!(names[1..], ["dir", "fifo", "link", "r", "target"]);
        assert!(
            log.iter()
                .any(|line| line.contains(&format!("it is in '{}'", names[0]))),
            "{log:#?}"
        );
        read(dir.file(&names[0]));
        assert!(!fs::metadata(&path).expect("there").is_file());
        assert_eq!(
            fs::read_to_string(&target).expect("text"),
            "mine",
            "{home:?}"
        );
    }
}

/// The output of a script in a mount namespace with its own /dev: the script cannot change the
/// machine's /dev.
fn in_own_dev(script: &str) -> Vec<String> {
    let words = ["ns", "--here", "--own-dev", "--", "sh", "-c", script];
    let mut shell = Start::new(words)
        .program(probe())
        .env("SHIM", BOWOUT)
        .bare(NOTHING);
    let lines = shell.out.rest();
    assert_eq!(
        shell.wait(),
        Status::Code(0),
        "{lines:#?} {:#?}",
        shell.log()
    );
    lines
}

/// A rename would replace /dev/null, or the link /dev/stderr, for the whole machine. An earlier
/// version did that.
#[test]
fn a_report_never_takes_the_place_of_a_device_or_a_link_to_a_descriptor() {
    if skip(not_root()) {
        return;
    }
    let dir = Dir::new();
    let out = dir.file("out");
    let show = "stat -c '%N %F %t,%T %a' /dev/* | sort";
    // `own` is text that the command writes to the same file, before the report.
    let script = format!(
        "{show}; for to in - fd:1 /dev/stdout /dev/fd/1 /proc/self/fd/1; do \"$SHIM\" -qq --report $to echo own >{out} || exit 1; \
         [ $(wc -l <{out}) = 2 ] && grep -q '^own$' {out} && grep -q '\"child\"' {out} || echo wrong $to; done; \
         for to in fd:2 /dev/stderr /dev/fd/2 /proc/self/fd/2; do \"$SHIM\" -qq --report $to true 2>{out} || exit 2; \
         grep -q '\"child\"' {out} || echo wrong $to; done; \
         for to in /dev/fd/5 /proc/self/fd/5; do \"$SHIM\" -qq --report $to true 5>{out} || exit 3; \
         grep -q '\"child\"' {out} || echo wrong $to; done; \
         for to in /dev/null /dev/stdin /dev/fd /dev/stdout/ /dev/./stdout //dev/stdout /proc/$$/fd/1 /proc/self/fd/x; do \
         \"$SHIM\" --report $to echo started 2>/dev/null; [ $? = 125 ] || echo wrong $to; done; {show}",
        out = out.display()
    );
    let lines = in_own_dev(&script);
    let (before, after) = lines.split_at(lines.len() / 2);
    assert_eq!(before, after);
    assert!(
        before
            .iter()
            .any(|line| line.starts_with("'/dev/null' character special file 1,3 ")),
        "{before:#?}"
    );
    assert_eq!(
        before
            .iter()
            .filter(|line| line.contains(" symbolic link "))
            .count(),
        4,
        "{before:#?}"
    );
}

#[test]
fn a_relative_path_is_taken_from_where_bowout_was_started() {
    for home in homes() {
        let dir = Dir::new();
        fs::create_dir(dir.file("sub")).expect("a directory");
        for name in ["r", "./r", "sub/../r", "sub/r"] {
            let mut bowout = Start::new(["--report", name])
                .at(home)
                .dir(&dir.0)
                .probe(["signals", "--exit", "TERM:3"]);
            bowout.ready();
            until("bowout is in /", || {
                fs::read_link(format!("/proc/{}/cwd", bowout.pid))
                    .ok()
                    .filter(|at| at.as_os_str() == "/")
            });
            bowout.kill(TERM);
            assert_eq!(bowout.end(), Status::Code(3));
            read(dir.file(name));
            fs::remove_file(dir.file(name)).expect("removed");
        }
        assert_eq!(names(&dir), ["sub"]);
    }
}

/// The log has one line about the report, which is that it cannot be written.
fn unwritable(log: &[String]) {
    let about: Vec<_> = log.iter().filter(|line| line.contains("report")).collect();
    assert!(
        matches!(about[..], [line] if line.starts_with("bowout: cannot write report")),
        "{log:#?}"
    );
}

#[test]
fn a_report_that_can_never_be_written_is_an_error_at_the_start() {
    for home in homes() {
        let dir = Dir::new();
        let file = dir.write("file", "mine", 0o600);
        refused(home, &dir.file("no/such/r"), "No such file or directory");
        refused(home, &file.join("r"), "Not a directory");
        // Each C library has its own words for it.
        let why = std::io::Error::from_raw_os_error(libc::ENAMETOOLONG).to_string();
        refused(home, &dir.file(&"x".repeat(256)), &why);
        refused(
            home,
            Path::new("/no/such/directory/r"),
            "No such file or directory",
        );
        assert_eq!(
            (names(&dir), fs::read_to_string(file).expect("text")),
            (vec!["file".into()], "mine".into())
        );
    }
    if skip(not_root()) {
        return;
    }
    let dir = Dir::new();
    let mount = format!(
        "mount -t tmpfs none {0}; touch {0}/r; mount -o remount,ro {0}",
        dir.0.display()
    );
    for name in ["r", "new"] {
        let run = format!(
            "\"$SHIM\" --report {} echo started 2>&1; echo $?",
            dir.file(name).display()
        );
        let lines = in_own_dev(&format!("{mount}; {run}"));
        assert!(
            matches!(&lines[..], [line, code] if line.contains("Read-only") && code == "125"),
            "{lines:#?}"
        );
    }
}

#[test]
fn a_report_that_can_no_longer_be_written_is_one_line_and_no_other_exit() {
    for home in homes() {
        let dir = Dir::new();
        let path = dir.file("dir/r");
        for end in ["exit 3", "kill -KILL $$"] {
            fs::create_dir(dir.file("dir")).expect("a directory");
            let script = format!("rmdir {}; {end}", dir.file("dir").display());
            let mut bowout = Start::new(["--report".as_ref(), path.as_os_str()])
                .at(home)
                .sh(&script);
            let status = bowout.end();
            assert!(
                status == Status::Code(3) || status == bowout.died(KILL),
                "{status:?}"
            );
            let told: Vec<_> = bowout
                .log()
                .into_iter()
                .filter(|line| line.contains("report"))
                .collect();
            assert!(
                matches!(&told[..], [line] if line.starts_with("bowout: cannot write report")),
                "{told:#?}"
            );
        }
    }
}

#[test]
fn a_directory_or_a_file_that_may_not_be_written_to_is_an_error_at_the_start() {
    use std::os::unix::fs::PermissionsExt;
    if skip(not_root()) {
        return;
    }
    for home in homes() {
        let (dir, shut) = (Dir::new(), Dir::new());
        let file = shut.write("file", "mine", 0o644);
        fs::set_permissions(&shut.0, fs::Permissions::from_mode(0o555)).expect("permissions");
        for path in [shut.file("r"), file] {
            let start = Start::new(["--report".as_ref(), path.as_os_str()])
                .at(home)
                .program(dir.program(BOWOUT));
            let mut bowout = start.with(["--uid", "65534"]).sh("echo started");
            assert_eq!(
                (bowout.end(), bowout.out.rest()),
                (Status::Code(125), vec![]),
                "{home:?}"
            );
            assert!(
                matches!(&bowout.log()[..], [line] if line.contains("Permission denied")),
                "{:#?}",
                bowout.log()
            );
        }
        assert_eq!(names(&shut), ["file"]);
    }
}

/// Every bowout in a container is PID 1, so that the name of its temporary file was predictable: in
/// /tmp, another user could occupy it.
#[test]
fn files_of_others_in_a_shared_directory_do_not_keep_the_report_from_it() {
    use std::os::unix::fs::PermissionsExt;
    if skip(no_namespaces().or_else(not_root)) {
        return;
    }
    let (programs, dir) = (Dir::new(), Dir::new());
    fs::set_permissions(&dir.0, fs::Permissions::from_mode(0o1777)).expect("permissions");
    for name in [
        "r.1",
        ".r.1",
        "r.tmp",
        ".r.bowout-1",
        ".bowout-0",
        ".bowout-1",
    ] {
        dir.write(name, "half", 0o644);
    }
    let mut all = [names(&dir), vec!["r".into()]].concat();
    all.sort();
    let mut bowout = Start::new(["--report".as_ref(), dir.file("r").as_os_str()])
        .at(Home::Pid1)
        .program(programs.program(BOWOUT))
        .with(["--uid", "65534"])
        .sh("exit 3");
    assert_eq!(bowout.end(), Status::Code(3));
    assert_eq!(bowout.log().len(), 1, "{:#?}", bowout.log());
    read(dir.file("r"));
    assert_eq!(names(&dir), all);
    // The report also does not go into a file that another user has created in order to read it.
    refused(
        Home::Subreaper,
        &dir.file("r"),
        "it belongs to another user",
    );
    fs::set_permissions(&dir.0, fs::Permissions::from_mode(0o755)).expect("permissions");
    written(Home::Subreaper, &dir.file("r"));
}

/// The report that was written to a pipe, and the command's output about its descriptors.
fn reported(home: Home, child: &[&str]) -> (Value, Vec<String>) {
    let (from, to) = pipe().expect("a pipe");
    let fd = format!("fd:{}", to.as_raw_fd());
    let mut bowout = Start::new(["--report", &fd])
        .at(home)
        .inherit(&to)
        .env("FD", &fd[3..])
        .command(child);
    drop(to);
    let lines = bowout.out.rest();
    assert_eq!(bowout.end(), Status::Code(3), "{home:?}");
    // To the end of the pipe: no process holds it any more.
    let report = Lines::of(from).rest();
    (parse(&(report.join("\n") + "\n")), lines)
}

#[test]
fn a_report_goes_to_a_descriptor_that_the_command_does_not_inherit() {
    for home in homes() {
        let script =
            "if [ -e /proc/self/fd/$FD ]; then echo has it; else echo has it not; fi; exit 3";
        let (report, lines) = reported(home, &["sh", "-c", script]);
        assert_eq!(report["child"], json!({"code": 3, "number": 3}), "{home:?}");
        assert_eq!(lines, ["has it not"], "{home:?}");
    }
}

#[test]
fn a_long_report_reaches_a_descriptor_whole() {
    let long = "x".repeat(20_000);
    let (report, _) = reported(Home::Subreaper, &["sh", "-c", "exit 3", &long]);
    assert_eq!(report["command"][3], long);
}

#[test]
fn a_report_to_stdout_comes_after_what_the_command_has_printed() {
    for home in homes() {
        let mut bowout = Start::new(["--report", "fd:1"])
            .at(home)
            .sh("echo one; echo two; exit 3");
        let lines = bowout.out.rest();
        assert_eq!(lines[..2], ["one", "two"], "{home:?}");
        assert_eq!(
            parse(&(lines[2..].join("\n") + "\n"))["exit"],
            json!({"code": 3, "number": 3})
        );
        assert_eq!(bowout.end(), Status::Code(3));
    }
}

#[test]
fn a_report_to_stderr_is_a_line_of_its_own() {
    let mut bowout = Start::new(["--report", "fd:2"]).probe(["exit", "3"]);
    assert_eq!(bowout.end(), Status::Code(3));
    let log = bowout.log();
    let line = log
        .iter()
        .find(|line| line.starts_with('{'))
        .unwrap_or_else(|| panic!("{log:#?}"));
    parse(&format!("{line}\n"));
}

#[test]
fn a_report_is_appended_to_a_file_that_is_open() {
    let dir = Dir::new();
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(dir.file("r"))
        .expect("a file");
    (&file).write_all(b"before\n").expect("written");
    let fd = format!("fd:{}", file.as_raw_fd());
    assert_eq!(
        Start::new(["--report", &fd])
            .inherit(&file)
            .probe(["exit", "3"])
            .end(),
        Status::Code(3)
    );
    let text = fs::read_to_string(dir.file("r")).expect("text");
    parse(text.strip_prefix("before\n").expect("what was there"));
}

/// Any number is refused: bowout opens descriptors of its own, which may have it.
#[test]
fn a_descriptor_that_is_not_open_is_refused_and_nothing_is_started() {
    for home in homes() {
        for fd in (3..12).chain([200, 100_000, i32::MAX]) {
            let to = format!("fd:{fd}");
            let mut bowout = Start::new(["--report", &to]).at(home).sh("echo started");
            assert_eq!(
                bowout.end(),
                Status::Code(125),
                "{home:?} {to}: {:#?}",
                bowout.log()
            );
            assert_eq!(bowout.out.rest(), NOTHING, "{to}");
            let log = bowout.log();
            assert!(matches!(&log[..], [line] if line.contains(&to)), "{log:#?}");
        }
        for closed in ["0", "1", "2"] {
            let to = format!("fd:{closed}");
            let mut bowout = Start::new(["--report", &to])
                .at(home)
                .with(["--close", closed])
                .sh("echo started; echo started >&2");
            assert_eq!(bowout.end(), Status::Code(125), "{home:?} {to}");
            assert_eq!(bowout.out.rest(), NOTHING, "{to}");
            assert!(!bowout.log().contains(&"started".into()), "{to}");
        }
    }
    for word in ["fd:", "fd:x", "fd:-1", "fd:3x", ""] {
        assert_eq!(
            Start::new(["--report", word]).sh("echo started").end(),
            Status::Code(125),
            "{word}"
        );
    }
}

#[test]
fn a_full_pipe_for_the_report_delays_nothing() {
    for home in homes() {
        let (from, to) = full();
        let fd = format!("fd:{}", to.as_raw_fd());
        let mut bowout = Start::new(["--report", &fd])
            .at(home)
            .inherit(&to)
            .probe(["signals", "--exit", "TERM:3"]);
        bowout.ready();
        let (status, took) = timed(|| {
            bowout.kill(TERM);
            bowout.end()
        });
        assert!(
            status == Status::Code(3) && took < SOON,
            "{home:?}: {status:?} {took:?}"
        );
        unwritable(&bowout.log());
        drop(from);
    }
}

/// The same for a pipe without a reader: SIGPIPE would kill bowout.
#[test]
fn a_broken_pipe_for_the_report_changes_nothing() {
    for home in homes() {
        let (from, to) = pipe().expect("a pipe");
        drop(from);
        let fd = format!("fd:{}", to.as_raw_fd());
        let start = Start::new(["--report", &fd])
            .at(home)
            .with(["--default", "PIPE"])
            .inherit(&to);
        let mut bowout = start.probe(["exit", "3"]);
        assert_eq!(bowout.end(), Status::Code(3), "{home:?}");
        unwritable(&bowout.log());
    }
}

#[test]
fn the_report_can_be_asked_for_by_variable_and_what_is_typed_wins() {
    let dir = Dir::new();
    let (variable, typed) = (dir.file("variable"), dir.file("typed"));
    assert_eq!(
        Start::plain()
            .env("BOWOUT_REPORT", &variable)
            .probe(["exit", "3"])
            .end(),
        Status::Code(3)
    );
    read(&variable);
    fs::remove_file(&variable).expect("removed");
    let start =
        Start::new(["--report".as_ref(), typed.as_os_str()]).env("BOWOUT_REPORT", &variable);
    assert_eq!(start.probe(["exit", "3"]).end(), Status::Code(3));
    read(&typed);
    assert_eq!(names(&dir), ["typed"]);
}

/// The status and the termination message of bowout.
fn message(
    home: Home,
    options: &[&str],
    child: &[&str],
    act: impl FnOnce(&mut Running),
) -> (Status, String) {
    let dir = Dir::new();
    let file = dir.write("log", "", 0o600);
    let option = format!("--termination-log={}", file.display());
    let mut bowout = Start::new([option.as_str()].iter().chain(options))
        .at(home)
        .command(child);
    act(&mut bowout);
    let status = bowout.end();
    let text = fs::read_to_string(&file).expect("text");
    // There is no newline at the end either: programs that show the message add one.
    assert!(
        !text.is_empty() && !text.contains('\n') && text.len() <= 1024,
        "{text:?}"
    );
    (status, text)
}

fn says(text: &str, words: &[&str]) {
    assert!(
        words.iter().all(|word| text.contains(word)),
        "{words:?}: {text}"
    );
}

#[test]
fn a_message_names_an_end_by_itself() {
    for home in homes() {
        let mut child = 0;
        let words = probe_with(&["signals", "--exit", "USR1:3"]);
        let (status, text) = message(home, &[], &words, |bowout| {
            child = bowout.ready();
            bowout.kill(USR1);
        });
        assert_eq!(status, Status::Code(3));
        says(
            &text,
            &[
                "exited with 3",
                "main process",
                &format!("probe' (pid {child})"),
            ],
        );
        let (_, text) = message(home, &[], &probe_with(&["die", "11"]), |_| {});
        says(&text, &["killed by SIGSEGV", "main process"]);
    }
}

#[test]
fn a_message_says_which_process_was_killed_by_what_and_why() {
    for home in homes() {
        let words = probe_with(&["tree", "2", "--stubborn"]);
        let (status, text) = message(home, &["--grace", "300ms"], &words, |bowout| {
            bowout.ready();
            bowout.kill(TERM);
        });
        assert!(
            matches!(status, Status::Signal(KILL) | Status::Code(137)),
            "{status:?}"
        );
        let who = if home == Home::Pid1 {
            "SIGTERM from outside"
        } else {
            "manager"
        };
        says(
            &text,
            &[
                "killed by SIGKILL: 300ms grace period expired after SIGTERM from",
                who,
                "main process",
            ],
        );
        says(&text, &["killed 2 descendants, too"]);
    }
}

#[test]
fn a_message_names_a_second_request() {
    for home in homes() {
        let (_, text) = message(
            home,
            &["--grace", "never"],
            &probe_with(&["signals"]),
            |bowout| {
                bowout.ready();
                bowout.kill(TERM);
                bowout.expect(TERM);
                bowout.kill(libc::SIGINT);
            },
        );
        says(
            &text,
            &["killed by SIGKILL", "SIGINT from", "second stop request"],
        );
    }
}

#[test]
fn a_message_names_a_stop_that_was_obeyed_and_the_run_time() {
    for home in homes() {
        let (_, text) = message(
            home,
            &["--grace", "1h"],
            &probe_with(&["signals", "--exit", "TERM:3"]),
            |bowout| {
                bowout.ready();
                bowout.kill(TERM);
            },
        );
        says(&text, &["exited with 3", "after SIGTERM from"]);
        let (status, text) = message(
            home,
            &["--max-runtime", "200ms"],
            &probe_with(&["idle"]),
            |_| {},
        );
        assert_eq!(status, Status::Code(124));
        says(&text, &["killed by SIGTERM", "run time of 200ms was over"]);
    }
}

#[test]
fn a_message_says_that_the_command_cannot_run() {
    for home in homes() {
        let (status, text) = message(home, &[], &["no-such-command"], |_| {});
        assert_eq!(status, Status::Code(127));
        assert_eq!(
            text,
            "cannot run 'no-such-command': No such file or directory"
        );
        assert_eq!(message(home, &[], &["/etc"], |_| {}).0, Status::Code(126));
    }
}

#[test]
fn a_message_is_one_line_of_at_most_1_kib() {
    // An escape sequence and a newline, and so many characters of two bytes that the limit may fall
    // inside one.
    for length in [900, 901] {
        let name = format!(
            "/nowhere/\u{1b}[2J\n{}{}",
            "x".repeat(length % 2),
            "é".repeat(length)
        );
        let (status, text) = message(Home::Subreaper, &[], &[&name], |_| {});
        assert!(matches!(status, Status::Code(126 | 127)), "{status:?}");
        assert!(text.len() > 1000 && !text.contains('\u{1b}'), "{text:?}");
    }
}

#[test]
fn a_message_goes_into_an_existing_regular_empty_file_and_nowhere_else() {
    for home in homes() {
        let dir = Dir::new();
        let run = |path: &Path, code: &str| {
            let option = format!("--termination-log={}", path.display());
            let mut bowout = Start::new(["-v", &option]).at(home).probe(["exit", code]);
            assert_eq!(
                bowout.end(),
                Status::Code(code.parse().expect("a number")),
                "{}",
                path.display()
            );
            bowout.log()
        };
        let (empty, own, link, dangling, pipe) = (
            dir.write("a", "", 0o600),
            dir.write("b", "mine", 0o600),
            dir.file("c"),
            dir.file("d"),
            dir.file("e"),
        );
        symlink(&empty, &link).expect("a link");
        symlink(dir.file("nowhere"), &dangling).expect("a link");
        fifo(&pipe);
        fs::create_dir(dir.file("f")).expect("a directory");
        let before = names(&dir);
        // With a reader, the FIFO can be opened for writing.
        let mut reader = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&pipe)
            .expect("a FIFO");
        for path in [
            &link,
            &dangling,
            &pipe,
            &dir.file("f"),
            &own.join("g"),
            &PathBuf::from("/proc/self/comm"),
        ] {
            let option = format!("--termination-log={}", path.display());
            let mut bowout = Start::new([option]).at(home).sh("echo started");
            assert_eq!(
                (bowout.end(), bowout.out.rest()),
                (Status::Code(125), vec![]),
                "{}",
                path.display()
            );
            let log = bowout.log();
            assert!(
                matches!(&log[..], [line] if line.contains("cannot write termination message")),
                "{log:#?}"
            );
        }
        for path in [&dir.file("absent"), &dir.file("no/such"), &own] {
            let log = run(path, "3");
            assert!(
                log.iter().any(|line| line.contains("exited with 3")),
                "{log:#?}"
            );
        }
        assert_eq!(reader.read(&mut [0; 9]).expect("nobody writes"), 0);
        assert_eq!(
            (
                fs::read(&own).expect("there"),
                fs::read(&empty).expect("there")
            ),
            (b"mine".to_vec(), vec![])
        );
        assert_eq!(names(&dir), before, "{home:?}");
        // If nothing is wrong, nothing is logged.
        for path in [&dir.file("absent"), &own] {
            let log = run(path, "3");
            let says = |line: &String| line.contains("termination");
            assert!(!log.iter().any(says), "{log:#?}");
        }
        let inode = fs::metadata(&empty).expect("there").ino();
        run(&empty, "3");
        let text = fs::read_to_string(&empty).expect("text");
        assert!(text.contains("exited with 3"), "{text}");
        assert_eq!(
            fs::metadata(&empty).expect("there").ino(),
            inode,
            "a bind mount: not replaced"
        );
        run(&empty, "4");
        assert_eq!(
            fs::read_to_string(&empty).expect("text"),
            text,
            "written once"
        );
    }
}

#[test]
fn a_message_that_may_not_be_written_is_an_error_at_the_start() {
    if skip(not_root()) {
        return;
    }
    for home in homes() {
        let dir = Dir::new();
        let option = format!(
            "--termination-log={}",
            dir.write("log", "", 0o444).display()
        );
        let start = Start::new([option])
            .at(home)
            .program(dir.program(BOWOUT))
            .with(["--uid", "65534"]);
        let mut bowout = start.sh("echo started");
        assert_eq!(
            (bowout.end(), bowout.out.rest()),
            (Status::Code(125), vec![]),
            "{home:?}"
        );
        let log = bowout.log();
        assert!(
            matches!(&log[..], [line] if line.contains("termination message")),
            "{log:#?}"
        );
    }
}

/// The same as in a pod: the file is mounted into /dev, in which bowout accepts no other file.
#[test]
fn a_termination_log_that_is_mounted_into_dev_is_written() {
    if skip(not_root()) {
        return;
    }
    let dir = Dir::new();
    let file = dir.write("log", "", 0o666);
    // Nothing is created in the machine's /dev: the mount covers a device, in its own mount
    // namespace.
    let script = format!(
        "mount --bind {} /dev/full && exec \"$SHIM\" --termination-log=/dev/full sh -c 'exit 3'",
        file.display()
    );
    let words = ["ns", "--here", "--", "sh", "-c", &script];
    let mut bowout = Start::new(words)
        .program(probe())
        .env("SHIM", BOWOUT)
        .bare(NOTHING);
    assert_eq!(bowout.wait(), Status::Code(3), "{:#?}", bowout.log());
    says(
        &fs::read_to_string(&file).expect("text"),
        &["exited with 3"],
    );
}

#[test]
fn a_relative_termination_log_is_taken_from_where_bowout_was_started() {
    for home in homes() {
        let dir = Dir::new();
        let file = dir.write("log", "", 0o600);
        let mut bowout = Start::new(["--termination-log=log"])
            .at(home)
            .dir(&dir.0)
            .probe(["exit", "3"]);
        assert_eq!(bowout.end(), Status::Code(3));
        says(&fs::read_to_string(file).expect("text"), &["exited with 3"]);
    }
}

/// bowout as PID 1 with `dev` as /dev; the command exits with 3.
fn with_dev(dev: &Dir, options: &[&str]) -> Running {
    let script = format!(
        "mount --bind {} /dev || exit 99; shim=$1; shift; exec \"$shim\" \"$@\"",
        dev.0.display()
    );
    let words = ["-c", &script, "sh", BOWOUT]
        .into_iter()
        .chain(options.iter().copied());
    let words = words.chain(["--", probe().to_str().expect("text"), "exit", "3"]);
    Start::plain()
        .program("sh")
        .at(Home::Pid1)
        .bare(words.collect::<Vec<_>>())
}

#[test]
fn the_default_termination_log_is_written_where_kubernetes_has_made_it() {
    if skip(no_namespaces()) {
        return;
    }
    let dev = Dir::new();
    let file = dev.write("termination-log", "", 0o666);
    assert_eq!(with_dev(&dev, &[]).end(), Status::Code(3));
    assert_eq!(
        fs::read_to_string(&file).expect("text"),
        "",
        "nobody has asked for it"
    );
    // The option does not take the next word, which is another option.
    assert_eq!(
        with_dev(&dev, &["--termination-log", "-v"]).end(),
        Status::Code(3)
    );
    says(
        &fs::read_to_string(&file).expect("text"),
        &["exited with 3"],
    );

    let bare = Dir::new();
    let mut bowout = with_dev(&bare, &["--termination-log"]);
    assert_eq!(bowout.end(), Status::Code(3));
    assert_eq!(
        (names(&bare), bowout.log().len()),
        (vec![], 1),
        "not made where there is none"
    );
}

#[test]
fn the_termination_log_can_be_asked_for_by_variable_and_what_is_typed_wins() {
    let dir = Dir::new();
    let (variable, typed) = (
        dir.write("variable", "", 0o600),
        dir.write("typed", "", 0o600),
    );
    let text = |path: &Path| fs::read_to_string(path).expect("text");
    let option = format!("--termination-log={}", typed.display());
    let start = Start::new([option]).env("BOWOUT_TERMINATION_LOG", &variable);
    assert_eq!(start.probe(["exit", "3"]).end(), Status::Code(3));
    assert!(text(&variable).is_empty() && text(&typed).contains("exited with 3"));
    assert_eq!(
        Start::plain()
            .env("BOWOUT_TERMINATION_LOG", &variable)
            .probe(["exit", "4"])
            .end(),
        Status::Code(4)
    );
    says(&text(&variable), &["exited with 4"]);
}

#[test]
fn report_and_message_do_not_depend_on_a_log() {
    let dir = Dir::new();
    let (file, report) = (dir.write("log", "", 0o600), dir.file("r"));
    let option = format!("--termination-log={}", file.display());
    let start = Start::new(["-qqq", &option, "--report", report.to_str().expect("text")])
        .with(["--close", "0,1,2"]);
    assert_eq!(start.probe(["exit", "3"]).end(), Status::Code(3));
    read(&report);
    says(&fs::read_to_string(file).expect("text"), &["exited with 3"]);
}
