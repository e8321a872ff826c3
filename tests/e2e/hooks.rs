//! `--pre-kill` and `--post-stop`: the time at which they run, and their variables; they delay no
//! stop and leave no process. The hooks of `--pre-stop`: tests/e2e/prepare.rs.

use std::fs;

use crate::common::{
    BOWOUT, Dir, Running, SOON, Start, Status, homes, no_namespaces, not_root, probe, skip, timed,
    until,
};

const TERM: i32 = libc::SIGTERM;
const KILL: i32 = libc::SIGKILL;
const USR1: i32 = libc::SIGUSR1;

/// A command that is ready and ignores SIGTERM, and its PID in its own namespace.
fn stubborn(start: Start) -> (Running, i32) {
    let mut bowout = start.probe(["signals"]);
    let child = bowout.ready();
    (bowout, child)
}

/// A hook that appends its variables to a file of the directory.
fn note(dir: &Dir, file: &str) -> String {
    format!(
        "echo \"$BOWOUT_REASON $BOWOUT_CHILD_PID $BOWOUT_SIGNAL $BOWOUT_EXIT_CODE $BOWOUT_EXIT_SIGNAL\" >>{}",
        dir.file(file).display()
    )
}

fn read(dir: &Dir, file: &str) -> String {
    fs::read_to_string(dir.file(file)).unwrap_or_default()
}

#[test]
fn a_pre_kill_hook_runs_while_the_child_lives_and_delays_nothing() {
    for home in homes() {
        let dir = Dir::new();
        let hook = note(&dir, "evidence");
        // The second hook hangs, with a descendant, and is killed at the deadline. Both hooks
        // together have a quarter of the grace period.
        let hangs = "sleep 1000 & sleep 1000; :";
        let options = ["--grace", "6s", "--pre-kill", &hook, "--pre-kill", hangs];
        let (mut bowout, child) = stubborn(Start::new(options).at(home));
        bowout.kill(TERM);
        let (status, took) = timed(|| bowout.end());
        assert_eq!(status, bowout.died(KILL));
        assert_eq!(
            read(&dir, "evidence"),
            format!("signal {child} SIGTERM  \n"),
            "{home:?}"
        );
        assert!(took < SOON, "{took:?}");
        let log = bowout.log();
        let at = |part: &str| log.iter().position(|line| line.contains(part)).expect(part);
        assert!(
            at("running pre-kill hook") < at("grace period of 6s is over"),
            "{log:#?}"
        );
    }
}

/// In the last quarter of the last wait, and not before; later with a shorter timeout.
#[test]
fn a_pre_kill_hook_starts_in_the_last_quarter() {
    // A hook has seconds to start and write, which a busy machine needs. So the two run beside each
    // other.
    let runs = [(&[][..], 3000), (&["--pre-kill-timeout", "1500ms"], 1500)].map(|(more, most)| {
        let dir = Dir::new();
        let hook = format!(
            "echo $BOWOUT_GRACE_LEFT_MS >>{}",
            dir.file("left").display()
        );
        let options = ["--escalate", "TERM/100ms/INT/12s/KILL", "--pre-kill", &hook];
        let mut bowout = Start::new(options.iter().chain(more)).probe(["signals"]);
        bowout.ready();
        bowout.kill(TERM);
        (bowout, dir, most)
    });
    for (mut bowout, dir, most) in runs {
        assert_eq!(bowout.end(), Status::Signal(KILL));
        let left: u64 = read(&dir, "left").trim().parse().expect("one hook");
        assert!(left <= most && left > most / 3, "{left} of {most} ms");
    }
}

#[test]
fn a_second_request_and_an_exit_in_time_skip_the_pre_kill_hook() {
    let dir = Dir::new();
    let hook = note(&dir, "evidence");
    for grace in ["1h", "0"] {
        let (mut bowout, _) = stubborn(Start::new(["--grace", grace, "--pre-kill", &hook]));
        bowout.kill(TERM);
        if grace != "0" {
            bowout.expect(TERM);
            bowout.kill(TERM);
        }
        assert_eq!(bowout.end(), Status::Signal(KILL), "{grace}");
    }
    let mut bowout =
        Start::new(["--grace", "1h", "--pre-kill", &hook]).probe(["signals", "--exit", "TERM:3"]);
    bowout.ready();
    bowout.kill(TERM);
    assert_eq!(bowout.end(), Status::Code(3));
    assert!(!dir.file("evidence").exists());
}

#[test]
fn post_stop_hooks_run_in_order_after_the_drain_and_the_status_stays_the_commands() {
    for home in homes() {
        let dir = Dir::new();
        let (first, second) = (
            note(&dir, "after"),
            format!("{}; exit 9", note(&dir, "after")),
        );
        let options = [
            "--grace",
            "1h",
            "--post-stop",
            &first,
            "--post-stop",
            &second,
        ];
        // The command exits by itself.
        let mut bowout = Start::new(options)
            .at(home)
            .probe(["signals", "--exit", "USR1:3"]);
        bowout.ready();
        bowout.kill(USR1);
        assert_eq!(bowout.end(), Status::Code(3), "{home:?}");
        assert_eq!(
            read(&dir, "after"),
            "exited  SIGTERM 3 \n".repeat(2),
            "{home:?}"
        );
        // The command is killed.
        fs::remove_file(dir.file("after")).expect("the hook's file");
        let (mut bowout, _) = stubborn(Start::new(options).at(home));
        bowout.kill(TERM);
        bowout.expect(TERM);
        bowout.kill(TERM);
        assert_eq!(bowout.end(), bowout.died(KILL));
        assert_eq!(
            read(&dir, "after"),
            "signal  SIGTERM  SIGKILL\n".repeat(2),
            "{home:?}"
        );
        // The command exceeds its run time.
        fs::remove_file(dir.file("after")).expect("the hook's file");
        let options = ["--max-runtime", "100ms"].iter().chain(&options);
        let mut bowout = Start::new(options).at(home).probe(["idle"]);
        assert_eq!(bowout.end(), Status::Code(124), "{home:?}");
        assert_eq!(
            read(&dir, "after"),
            "max_runtime  SIGTERM  SIGTERM\n".repeat(2),
            "{home:?}"
        );
    }
}

#[test]
fn a_post_stop_hook_that_hangs_is_ended_with_its_descendants() {
    for home in homes() {
        let dir = Dir::new();
        let never = note(&dir, "never");
        let hangs = "sleep 1000 & sleep 1000; :";
        let options = ["--grace", "1s", "--post-stop", hangs, "--post-stop", &never];
        let mut bowout = Start::new(options).at(home).command(["true"]);
        let (status, took) = timed(|| bowout.wait());
        assert_eq!(status, Status::Code(0));
        assert!(took < SOON, "{took:?}");
        // bowout does not wait for processes to which it has sent SIGKILL.
        until("the hook's descendants exit", || {
            bowout.left().is_empty().then_some(())
        });
        assert!(!dir.file("never").exists());
        let log = bowout.log().join("\n");
        assert!(log.contains("skipped post-stop hook"), "{log}");
        // A stop request ends the hook sooner.
        let options = ["--grace", "1h", "--post-stop", "echo up; exec sleep 1000"];
        let mut bowout = Start::new(options).at(home).command(["true"]);
        bowout.err.find("the hook", |line| line == "up");
        bowout.kill(TERM);
        assert_eq!(bowout.end(), Status::Code(0));
    }
}

#[test]
fn only_a_stop_request_ends_a_post_stop_hook() {
    for (option, value, request) in [
        ("--stop-on", "USR1", libc::SIGUSR1),
        ("--remap", "TERM:0", libc::SIGINT),
    ] {
        let hook = ["--post-stop", "echo up; exec sleep 1000"];
        let options = ["-v", "--grace", "1h", option, value];
        let mut bowout = Start::new([&options[..], &hook].concat()).command(["true"]);
        bowout.err.find("the hook", |line| line == "up");
        bowout.kill(TERM);
        bowout.err.find("SIGTERM", |line| line.contains("SIGTERM"));
        bowout.kill(request);
        assert_eq!(bowout.end(), Status::Code(0));
        let log = bowout.log();
        let at = |text: &str| log.iter().position(|line| line.contains(text));
        let name = if request == libc::SIGINT {
            "SIGINT"
        } else {
            "SIGUSR1"
        };
        let (asked, ended) = (at(name), at("was killed by SIGKILL"));
        assert!(asked.is_some() && asked < ended, "{log:#?}");
    }
}

/// The same as in an image that holds one program.
#[test]
fn hooks_of_plain_words_need_no_shell() {
    if skip(not_root()) || skip(no_namespaces()) {
        return;
    }
    let dir = Dir::new();
    let empty = dir.write("empty", "", 0o644);
    let probe = probe().display();
    let script = format!(
        "mount --bind {empty} $(readlink -f /bin/sh) && exec {BOWOUT} --grace 1s \
         --pre-stop '/bin/echo stop' --pre-kill '/bin/echo kill' --post-stop '/bin/echo after' \
         --post-stop 'echo $x' -- {probe} signals",
        empty = empty.display()
    );
    let mut bowout = Start::direct().command(["unshare", "-m", "bash", "-c", &script]);
    bowout.ready();
    bowout.kill(TERM);
    assert_eq!(bowout.end(), Status::Signal(KILL));
    let log = bowout.log();
    for word in ["stop", "kill", "after"] {
        assert!(log.iter().any(|line| line == word), "{word}: {log:#?}");
    }
    let refused = "cannot run post-stop hook 'echo $x': ";
    assert!(log.iter().any(|line| line.contains(refused)), "{log:#?}");
}
