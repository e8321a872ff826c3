//! Surprises for users of tini, dumb-init, timeout or the engine itself: each test is one of their
//! reports.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::pty::{CTRL_C, Pty, Shell, kill, missing, parent_of, state_of};
use crate::common::{
    Dir, Home, NONE, Start, Status, homes, leftovers, no_namespaces, not_root, pending, probe,
    signals_of, skip, until,
};

const TERM: i32 = libc::SIGTERM;
const INT: i32 = libc::SIGINT;
const QUIT: i32 = libc::SIGQUIT;
const USR1: i32 = libc::SIGUSR1;
const KILL: i32 = libc::SIGKILL;

/// Waits until this much time has passed since `from`.
fn after(from: Instant, wait: Duration) {
    until("the time has passed", || {
        (from.elapsed() >= wait).then_some(())
    });
}

/// A server in sh that needs time to save.
const SAVES: &str =
    "trap '' INT; trap 'echo saving; exit 0' TERM; echo ready 0; while :; do sleep .02; done";

/// INT, then TERM 0.8 s later, is the sender's own escalation, not a repeat.
#[test]
fn a_sender_that_escalates_is_followed() {
    for home in homes() {
        let mut bowout = Start::new(["--grace", "1h"])
            .at(home)
            .probe(["signals", "--exit", "TERM:5"]);
        bowout.ready();
        bowout.kill(INT);
        bowout.expect(INT);
        let asked = Instant::now();
        after(asked, Duration::from_millis(800));
        bowout.kill(TERM);
        bowout.expect(TERM);
        assert_eq!(bowout.end(), Status::Code(5), "{home:?}");
    }
    // The same signal again is a second request, after any time.
    let mut bowout = Start::new(["--grace", "1h"]).probe(["signals"]);
    bowout.ready();
    bowout.kill(INT);
    bowout.expect(INT);
    after(Instant::now(), Duration::from_millis(950));
    bowout.kill(INT);
    assert_eq!(bowout.end(), Status::Signal(KILL));
}

#[test]
fn start_stop_daemon_escalates_through_bowout() {
    if skip(missing("start-stop-daemon")) {
        return;
    }
    let mut bowout = Start::new(["--grace", "1h"]).sh(SAVES);
    bowout.ready();
    let pid = bowout.pid.to_string();
    let mut command = Command::new("start-stop-daemon");
    command.args([
        "--stop",
        "--quiet",
        "--pid",
        &pid,
        "--retry",
        "INT/2/TERM/60/KILL/1",
    ]);
    let mut stopper = leftovers::spawn(&mut command).expect("start-stop-daemon runs");
    assert_eq!(bowout.end(), Status::Code(0), "{:#?}", bowout.err.seen());
    assert!(stopper.wait().expect("our child").success());
    assert_eq!(bowout.out.rest(), ["saving"]);
}

#[test]
fn parallels_term_sequence_goes_through_bowout() {
    if skip(missing("parallel")) {
        return;
    }
    let dir = Dir::new();
    let script = dir.write(
        "server",
        SAVES.replace("echo saving", "echo saving >$DIR/saved"),
        0o755,
    );
    let mut command = Command::new("parallel");
    command.args([
        "--will-cite",
        "--termseq",
        "INT,1500,TERM,60000,KILL,25",
        "--timeout",
        "1",
        "-j1",
    ]);
    command
        .args([crate::common::BOWOUT, "--grace", "1h", "--", "sh"])
        .arg(&script)
        .arg("# {}")
        .args([":::", "1"]);
    command
        .env("DIR", &dir.0)
        .env("HOME", &dir.0)
        .stdin(Stdio::null());
    let output = leftovers::output(&mut command);
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        dir.file("saved").exists() && !log.contains("SIGKILL to"),
        "{log}"
    );
}

/// `kill -3` and jattach make a JVM print its threads. With `--stop-signal QUIT`, SIGQUIT is an
/// image's STOPSIGNAL.
#[test]
fn quit_is_a_question_and_the_first_rungs_signal_a_request() {
    for home in homes() {
        let mut bowout = Start::new(["--grace", "1h"])
            .at(home)
            .probe(["signals", "--exit", "TERM:5"]);
        bowout.ready();
        bowout.kill(QUIT);
        bowout.expect(QUIT);
        assert_eq!(bowout.settle(), NONE);
        assert!(
            bowout
                .err
                .seen()
                .iter()
                .all(|line| !line.contains("received SIGQUIT")),
            "{:#?}",
            bowout.err.seen()
        );
        bowout.kill(TERM);
        assert_eq!(bowout.end(), Status::Code(5), "{home:?}");
        for signal in ["QUIT", "USR1", "WINCH"] {
            for options in [
                &["--stop-signal", signal, "--grace", "50ms"][..],
                &["--escalate", &format!("{signal}/50ms/KILL")],
            ] {
                let mut bowout = Start::new(options).at(home).probe(["signals"]);
                bowout.ready();
                let number = ["QUIT", "USR1", "WINCH"]
                    .iter()
                    .position(|name| *name == signal)
                    .expect("one of them");
                bowout.kill([QUIT, USR1, libc::SIGWINCH][number]);
                assert_eq!(bowout.end(), bowout.died(KILL), "{home:?} {options:?}");
            }
        }
    }
}

/// The pattern of mariadbd below a mysqld_safe that ignores SIGTERM.
#[test]
fn a_server_below_a_shell_that_ignores_the_request_is_asked_before_it_is_killed() {
    for home in homes() {
        let script = "trap '' TERM; \"$PROBE\" signals --name d --exit TERM:0 & echo c ready 0; while :; do sleep 9; done";
        let mut bowout = Start::new(["--grace", "200ms"]).at(home).sh(script);
        bowout.ready_as("c");
        bowout.ready_as("d");
        bowout.kill(TERM);
        assert_eq!(signals_of("d", &bowout.out.rest()), [TERM], "{home:?}");
        assert_eq!(bowout.end(), bowout.died(KILL));
        let log = bowout.log();
        assert!(
            log.iter()
                .any(|line| line.contains("and SIGTERM to")
                    && line.contains("SIGKILL to them in 1s")),
            "{log:#?}"
        );
    }
    // A second request removes that last second: bowout kills at once.
    let mut bowout = Start::new(["--grace", "200ms"])
        .sh("\"$PROBE\" signals --name d & exec \"$PROBE\" signals --name c");
    bowout.ready_as("c");
    bowout.ready_as("d");
    bowout.kill(TERM);
    bowout.out.find("SIGTERM of the last second", |line| {
        line.starts_with("d 15 ")
    });
    bowout.kill(TERM);
    assert_eq!(bowout.end(), Status::Signal(KILL));
    assert!(
        bowout
            .log()
            .iter()
            .any(|line| line.contains("second stop request")),
        "{:#?}",
        bowout.log()
    );
}

/// A handler for SIGCONT expects to run only after a real stop. Still, a process that stops itself
/// has to act on the stop signal.
#[test]
fn sigcont_is_for_processes_that_are_stopped() {
    for home in homes() {
        let mut bowout = Start::new(["--grace", "1h"]).at(home).probe(["signals"]);
        bowout.ready();
        bowout.kill(TERM);
        bowout.expect(TERM);
        assert_eq!(bowout.settle(), NONE, "{home:?}");
        bowout.kill(TERM);
        bowout.end();
        // Stopped before the stop signal, and by its handler.
        let mut bowout = Start::new(["--grace", "1h"])
            .at(home)
            .probe(["signals", "--exit", "TERM:5"]);
        bowout.ready();
        let child = bowout.child_pid();
        // SAFETY: a descendant of this process, not reaped.
        unsafe { libc::kill(child, libc::SIGSTOP) };
        until("the child is stopped", || {
            (leftovers::stat(child)?.state == 'T').then_some(())
        });
        bowout.kill(TERM);
        assert_eq!(bowout.end(), Status::Code(5), "{home:?}");
        let script =
            "trap 'kill -STOP $$; exit 5' TERM; echo ready $$; while :; do sleep .02; done";
        let mut bowout = Start::new(["--grace", "1h"]).at(home).sh(script);
        bowout.ready();
        bowout.kill(TERM);
        assert_eq!(bowout.end(), Status::Code(5), "{home:?}");
    }
}

/// `tini -g` and `dumb-init` send every signal to the group.
#[test]
fn in_group_mode_every_signal_goes_to_the_group() {
    let family = "\"$PROBE\" signals --name d & \"$PROBE\" with --setsid -- \"$PROBE\" signals --name s & \
                  exec \"$PROBE\" signals --name c";
    for home in homes() {
        let mut bowout = Start::new(["-g", "--grace", "1h"]).at(home).sh(family);
        for name in ["c", "d", "s"] {
            bowout.ready_as(name);
        }
        bowout.kill(USR1);
        for name in ["c", "d"] {
            bowout.out.find("SIGUSR1", |line| {
                line.starts_with(&format!("{name} {USR1} "))
            });
        }
        // The value arrives where the kernel can send it to a group: Linux 6.9.
        let real_time = libc::SIGRTMIN() + 3;
        if home == Home::Subreaper {
            bowout.queue(real_time, 42);
            let lines = ["c", "d"].map(|name| {
                bowout.out.find("the queued signal", |line| {
                    line.starts_with(&format!("{name} {real_time} "))
                })
            });
            assert!(lines[0].ends_with(" 42"), "{lines:?}");
            assert!(
                lines[1].ends_with(" 42") || !has_group_pidfds(),
                "{lines:?}"
            );
        }
        bowout.kill(TERM);
        bowout
            .out
            .find("the stop", |line| line.starts_with(&format!("s {TERM} ")));
        bowout.kill(TERM);
        assert_eq!(signals_of("s", &bowout.out.rest()), NONE, "{home:?}");
        bowout.end();
    }
}

fn has_group_pidfds() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("a release");
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|word| word.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(9))
}

/// On a terminal the group is bowout's own, shared with a pipeline: its other members do not belong
/// to the command.
#[test]
fn in_group_mode_a_shared_group_is_signalled_member_by_member() {
    let mut shell = Shell::start();
    let catch = "terminal --catch USR1,64";
    shell.line(&format!("probe {catch} --to other | bowout -g sh -c 'probe {catch} --to member & exec probe {catch}'"));
    let child = shell.0.ready();
    shell.0.ready_in("member");
    let other = shell.0.ready_in("other");
    let bowout = parent_of(child);
    kill(bowout, USR1);
    shell.0.got(USR1);
    shell.0.see_in("member", &format!("got {USR1} "));
    kill(other, 64);
    let seen = shell.0.see_in("other", "got 64 ");
    assert_eq!(seen.matches("got ").count(), 1, "{seen}");
}

/// bowout omits a signal only if the terminal has sent the same one. Here the signal that bowout
/// sends is another.
#[test]
fn a_translated_ctrl_c_reaches_the_command() {
    let mut shell = Shell::start();
    shell.probe("bowout --stop-on TERM --remap INT:USR1 -- probe terminal --catch INT,USR1,64");
    shell.0.type_keys(CTRL_C);
    shell.0.got(INT);
    shell.0.got(USR1);
    let mut shell = Shell::start();
    shell.probe("bowout --stop-signal QUIT --on-repeat forward --grace 1h -- probe terminal --catch INT,QUIT,64");
    for _ in 0..2 {
        shell.0.type_keys(CTRL_C);
        shell.0.got(INT);
        shell.0.got(QUIT);
    }
    // bash usually loses one trap if two signals become pending together, so bowout pauses between
    // them. On a busy machine bash can take longer than the pause.
    let mut shell = Shell::start();
    let script = r#"trap "echo got-usr$((3-2))" USR1; trap : INT; echo rea""dy; while :; do sleep 0.1; done"#;
    shell.line(&format!(
        "bowout --stop-on TERM --remap INT:USR1 -- bash -c '{script}'"
    ));
    shell.0.see("ready");
    let traps = |pty: &Pty| pty.screen().matches("got-usr1").count();
    for _ in 0..16 {
        let (before, start) = (traps(&shell.0), Instant::now());
        shell.0.type_keys(CTRL_C);
        shell.0.see("forwarded SIGINT");
        shell.0.until("the trap, or none", |pty| {
            let is_lost = start.elapsed() > Duration::from_secs(2);
            (traps(pty) > before || is_lost).then_some(())
        });
    }
    assert!(traps(&shell.0) >= 12, "{}", shell.0.screen());
}

/// A freezer, a SIGSTOP or a suspended machine stopped all processes past the deadline. The command
/// still has a second to act on the stop signal.
#[test]
fn a_deadline_that_passes_while_everything_is_stopped_leaves_a_second() {
    let pauses = ["signals", "--pause", "TERM:5000", "--exit", "TERM:5"];
    let mut bowout = Start::new(["--grace", "4s"]).probe(pauses);
    bowout.ready();
    let child = bowout.child_pid();
    bowout.kill(TERM);
    bowout.expect(TERM);
    // Before its line, bowout looks for stopped receivers of the signal, which it continues.
    let requested = |line: &str| line.contains("received SIGTERM");
    bowout.err.find("the request", requested);
    // A child that is stopped before its poll(2) would pause for 5 s after SIGCONT.
    until("the child pauses", || {
        (state_of(child) == Some('S')).then_some(())
    });
    // bowout comes first: it continues a child that SIGSTOP stops during a stop.
    bowout.kill(libc::SIGSTOP);
    until("bowout is stopped", || {
        (bowout.state() == 'T').then_some(())
    });
    kill(child, libc::SIGSTOP);
    after(Instant::now(), Duration::from_millis(5700));
    bowout.kill(libc::SIGCONT);
    bowout.err.find("the late deadline", |line| {
        line.contains("the deadline passed while bowout was stopped")
    });
    assert_eq!(bowout.end(), Status::Code(5), "{:#?}", bowout.err.seen());
}

/// cron mails each line, even of a job that succeeded.
#[test]
fn a_routine_run_logs_nothing() {
    let silent = |options: &[&str], command: &[&str]| {
        let mut bowout = Start::new(options).command(command);
        bowout.end();
        assert_eq!(
            bowout.log(),
            Vec::<String>::new(),
            "{options:?} {command:?}"
        );
    };
    silent(&[], &["true"]);
    silent(&[], &["sh", "-c", "exit 3"]);
    silent(&["--grace", "0"], &["true"]);
    silent(&["--wait-tree"], &["true"]);
    silent(&[], &["sh", "-c", "kill -PIPE $$"]);
    let log = |home, command: &str| {
        let mut bowout = Start::plain().at(home).sh(command);
        bowout.end();
        bowout.log()
    };
    let killed = log(Home::Subreaper, "kill -SEGV $$");
    assert!(
        matches!(&killed[..], [line] if line.contains("SEGV")),
        "{killed:#?}"
    );
    if !skip(no_namespaces()) {
        assert_eq!(
            [
                log(Home::Pid1, "exit 0").len(),
                log(Home::Pid1, "exit 3").len()
            ],
            [0, 1]
        );
    }
}

/// The command probably daemonises on purpose: the log names the two options for that.
#[test]
fn a_command_that_daemonises_is_answered_with_the_options_for_it() {
    let mut bowout =
        Start::plain().sh("\"$PROBE\" signals --name d --exit TERM:0 & read line <&3; exit 0");
    // The shell has no descriptor 3, so that `read` fails and the shell exits at once.
    bowout.end();
    let log = bowout.log();
    let line = log
        .iter()
        .find(|line| line.contains("1 descendant left"))
        .unwrap_or_else(|| panic!("{log:#?}"));
    assert!(
        line.contains("--wait-tree") && line.contains("--kill-mode process"),
        "{line}"
    );
}

/// Twenty thousand requests made a report of seven megabytes.
#[test]
fn a_storm_of_requests_fills_no_report() {
    let dir = Dir::new();
    let report = dir.file("r");
    let options = [
        "-qqq",
        "--grace",
        "never",
        "--on-repeat",
        "forward",
        "--report",
        report.to_str().expect("text"),
    ];
    let mut bowout = Start::new(options).probe(["count", "--exit", "USR1:0"]);
    bowout.ready();
    bowout.kill(TERM);
    // Each of these counts as a separate request.
    after(Instant::now(), Duration::from_millis(260));
    for _ in 0..200 {
        bowout.try_kill(TERM);
        until("bowout has received it", || {
            (pending(bowout.pid) & 1 << (TERM - 1) == 0).then_some(())
        });
    }
    bowout.kill(USR1);
    assert_eq!(bowout.end(), Status::Code(0));
    let text = fs::read_to_string(&report).expect("a report");
    let value: Value = serde_json::from_str(&text).expect("an object");
    let rungs = value["stop"]["rungs"].as_array().expect("a list").len();
    assert!(
        rungs == 32 && value["stop"]["more_rungs"].as_u64() > Some(100) && text.len() < 20_000,
        "{text}"
    );
}

/// A tree of another user's processes fills neither the log nor memory: bowout counts the refusals
/// that it does not log.
#[test]
fn refusals_are_logged_up_to_a_bound_and_counted() {
    const MANY: usize = 300;
    if skip(not_root()) || skip(no_namespaces()) {
        return;
    }
    let dir = Dir::new();
    let program = dir.program(probe());
    let program = program.display();
    let script = format!(
        "for i in $(seq {MANY}); do {program} hostile uid 65534 -- --name d & done; exec {program} signals --name c --exit USR1:7"
    );
    let mut bowout = Start::new(["--grace", "100ms"])
        .at(Home::Pid1)
        .with(["--no-cap-kill"])
        .sh(&script);
    for _ in 0..MANY {
        bowout.ready_as("d");
    }
    bowout.ready_as("c");
    bowout.kill(USR1);
    assert_eq!(bowout.end(), Status::Code(137));
    let log = bowout.log();
    let refused = log
        .iter()
        .filter(|line| line.contains("Operation not permitted"))
        .count();
    assert!(refused <= 256, "{refused}");
    assert!(
        log.iter()
            .any(|line| line.contains("more signals were refused and not logged")),
        "{:#?}",
        log.last()
    );
}

/// The command itself takes no time; its drain takes a second.
#[test]
fn the_run_time_is_the_commands() {
    let dir = Dir::new();
    let report = dir.file("r");
    let options = ["--grace", "1s", "--report", report.to_str().expect("text")];
    let started = Instant::now();
    let mut bowout = Start::new(options)
        .sh("\"$PROBE\" signals --name d & exec \"$PROBE\" signals --name c --exit USR1:0");
    bowout.ready_as("c");
    bowout.ready_as("d");
    bowout.kill(USR1);
    assert_eq!(bowout.end(), Status::Code(0));
    let report: Value =
        serde_json::from_str(&fs::read_to_string(&report).expect("a report")).expect("an object");
    let [run, drain] =
        ["run_time_ms", "drain_time_ms"].map(|name| report[name].as_u64().expect("a number"));
    // The two are parts of the time that passed.
    let took = started.elapsed().as_millis() as u64;
    assert!(drain >= 1000 && run + drain <= took, "{took}: {report:#}");
    let last = bowout.log().pop().expect("a line");
    for part in [
        "killed 1 descendant that it left running ('probe' pid ",
        "): 1s grace period expired after its exit",
    ] {
        assert!(last.contains(part), "{last}");
    }
}

/// Fields for programs, beside the sentence for people.
#[test]
fn a_stop_in_json_has_its_fields() {
    let mut bowout = Start::new(["--grace", "1h", "--log-format", "json"])
        .probe(["signals", "--exit", "TERM:3"]);
    bowout.ready();
    bowout.kill(TERM);
    assert_eq!(bowout.end(), Status::Code(3));
    let lines: Vec<Value> = bowout
        .log()
        .iter()
        .map(|line| serde_json::from_str(line).expect("an object"))
        .collect();
    let [stop, exit] = &lines[..] else {
        panic!("{lines:#?}")
    };
    assert_eq!(
        (&stop["event"], &stop["signal"], &stop["logger"]),
        (
            &"stop_requested".into(),
            &"SIGTERM".into(),
            &"bowout".into()
        )
    );
    assert_eq!(
        (&stop["sender"]["side"], &stop["sent"][0]["signal"]),
        (&"manager".into(), &"SIGTERM".into())
    );
    assert_eq!(
        (&stop["next_signal"], &stop["child_pid"]),
        (&"SIGKILL".into(), &exit["child_pid"])
    );
    assert_eq!(
        (&exit["event"], &exit["exit_code"], &exit["exit_signal"]),
        (&"exited".into(), &3.into(), &Value::Null)
    );
}
