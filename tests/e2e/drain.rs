//! No process that bowout started is left running, and no zombie is left unreaped.

use std::time::Duration;

use crate::common::pty::state_of;
use crate::common::{
    BOWOUT, Dir, SOON, Start, Status, assert_at_most, homes, no_strace, signals_of, size, skip,
    timed, until,
};

const TERM: i32 = libc::SIGTERM;
const KILL: i32 = libc::SIGKILL;

#[test]
fn thousands_of_orphans_are_reaped_as_they_end() {
    let orphans = size("2500", "10000");
    for home in homes() {
        let mut bowout = Start::plain().at(home).probe(["orphans", orphans]);
        let most = bowout.out.find("most", |line| line.starts_with("most "));
        let most: u32 = most["most ".len()..].parse().expect("a number");
        // The child itself, and one batch of 25; the next 25 are made when these are reaped.
        assert!(most <= 26, "{home:?}: {most} children at once");
        bowout.out.find("none left", |line| line == "none left");
        assert_eq!(bowout.end(), Status::Code(0));
    }
}

/// Half of them are in their own sessions, a third are orphans, and none obeys.
#[test]
fn none_of_two_thousand_stubborn_descendants_survives() {
    for home in homes() {
        let mut bowout =
            Start::new(["--grace", "500ms"])
                .at(home)
                .probe(["tree", "2000", "--stubborn"]);
        bowout.ready();
        bowout.kill(TERM);
        // The end of the pipe: each of them held it.
        assert_at_most(&signals_of("", &bowout.out.rest()), &[TERM]);
        assert_eq!(bowout.end(), bowout.died(KILL), "{home:?}");
    }
}

/// A descendant may have exited, and left another one, before it is signalled.
#[test]
fn descendants_that_fork_while_they_are_killed_do_not_survive() {
    for home in homes() {
        let mut bowout = Start::new(["--grace", "100ms"])
            .at(home)
            .probe(["breed", "20", "1"]);
        bowout.ready();
        bowout.kill(TERM);
        bowout.out.rest();
        assert_eq!(bowout.end(), bowout.died(KILL), "{home:?}");
    }
}

#[test]
fn descendants_that_obey_are_asked_when_the_child_has_ended() {
    for home in homes() {
        let mut bowout = Start::new(["--grace", "1h"])
            .at(home)
            .probe(["tree", "200", "--exit", "TERM:4"]);
        bowout.ready();
        bowout.kill(TERM);
        assert_eq!(signals_of("", &bowout.out.rest()), [TERM]);
        assert_eq!(bowout.end(), Status::Code(4), "{home:?}");
    }
}

#[test]
fn a_descendant_gets_the_time_to_clean_up_after_the_childs_end() {
    for home in homes() {
        let slow = "\"$PROBE\" signals --name d --pause TERM:500 --exit TERM:0";
        let script = format!("{slow} & exec \"$PROBE\" signals --name c --exit TERM:6");
        let mut bowout = Start::new(["--grace", "1h"]).at(home).sh(&script);
        bowout.ready_as("c");
        bowout.ready_as("d");
        bowout.kill(TERM);
        let lines = bowout.out.rest();
        assert!(lines.contains(&"d paused".into()), "{home:?}: {lines:?}");
        assert_eq!(bowout.end(), Status::Code(6));
    }
}

#[test]
fn the_childs_own_exit_starts_the_drain() {
    for home in homes() {
        let script = "\"$PROBE\" signals --name d --pause TERM:1 --exit TERM:0 & exec \"$PROBE\" signals --name c --exit USR1:5";
        let mut bowout = Start::new(["--grace", "1h"]).at(home).sh(script);
        bowout.ready_as("c");
        bowout.ready_as("d");
        bowout.kill(libc::SIGUSR1);
        assert_eq!(signals_of("d", &bowout.out.rest()), [TERM], "{home:?}");
        assert_eq!(bowout.end(), Status::Code(5));
    }
}

#[test]
fn the_drain_kills_after_the_grace_period_and_not_before() {
    for home in homes() {
        let script = "\"$PROBE\" signals --name d & exec \"$PROBE\" signals --name c --exit USR1:5";
        let mut bowout = Start::new(["--grace", "300ms"]).at(home).sh(script);
        bowout.ready_as("c");
        bowout.ready_as("d");
        let (status, took) = timed(|| {
            bowout.kill(libc::SIGUSR1);
            bowout.end()
        });
        assert_eq!(status, Status::Code(5), "{home:?}");
        assert!(
            took >= Duration::from_millis(300) && took < SOON,
            "{took:?}"
        );
        assert_at_most(&signals_of("d", &bowout.out.rest()), &[TERM]);
    }
}

/// The stop and the drain share one grace period.
#[test]
fn the_drain_of_a_stop_has_the_rest_of_the_grace_period() {
    let script = "\"$PROBE\" signals --name d & exec \"$PROBE\" signals --name c --pause TERM:500 --exit TERM:5";
    let mut bowout = Start::new(["--grace", "4s"]).sh(script);
    bowout.ready_as("c");
    bowout.ready_as("d");
    let (status, took) = timed(|| {
        bowout.kill(TERM);
        bowout.end()
    });
    assert_eq!(status, Status::Code(5));
    assert!(took >= Duration::from_secs(4) && took < SOON, "{took:?}");
}

#[test]
fn a_stop_request_during_the_drain_is_not_a_repeat_and_a_second_one_is() {
    for home in homes() {
        let script = "\"$PROBE\" signals --name d & exec \"$PROBE\" signals --name c --exit USR1:5";
        let mut bowout = Start::new(["--grace", "never"]).at(home).sh(script);
        bowout.ready_as("c");
        bowout.ready_as("d");
        bowout.kill(libc::SIGUSR1);
        bowout
            .out
            .find("the drain", |line| line.starts_with(&format!("d {TERM} ")));
        bowout.kill(TERM);
        // Two signals that are pending together would be one.
        bowout.err.find("the request", |line| {
            line.contains("TERM") && line.contains("from")
        });
        bowout.kill(TERM);
        assert_eq!(bowout.end(), Status::Code(5), "{home:?}");
    }
}

#[test]
fn a_stopped_descendant_can_act_on_the_drain() {
    let script = "\"$PROBE\" signals --name d --exit TERM:0 & exec \"$PROBE\" signals --name c --exit USR1:5";
    let mut bowout = Start::new(["--grace", "1h"]).sh(script);
    bowout.ready_as("c");
    let descendant = bowout.ready_as("d");
    // SAFETY: a descendant of ours that cannot end while it is stopped.
    unsafe { libc::kill(descendant, libc::SIGSTOP) };
    until("it is stopped", || {
        (state_of(descendant) == Some('T')).then_some(())
    });
    bowout.kill(libc::SIGUSR1);
    assert_eq!(bowout.end(), Status::Code(5));
}

/// C12: bowout does not touch processes that are not its descendants.
#[test]
fn a_process_that_is_not_a_descendant_survives() {
    let mut other = Start::direct().probe(["signals"]);
    other.ready();
    let mut bowout = Start::new(["--grace", "0"]).probe(["tree", "10", "--stubborn"]);
    bowout.ready();
    bowout.kill(TERM);
    assert_eq!(bowout.end(), Status::Signal(KILL));
    other.kill(libc::SIGUSR1);
    other.expect(libc::SIGUSR1);
}

/// The number of calls that open or list files, in a run of bowout with a drain, beside this many
/// unrelated processes.
fn files_of_a_drain(strangers: usize) -> usize {
    let mut sleeps: Vec<_> = (0..strangers)
        .map(|_| Start::direct().command(["sleep", "60"]))
        .collect();
    let dir = Dir::new();
    let trace = dir.file("trace");
    let words = [
        "-D",
        "-e",
        "trace=openat,openat2,getdents64",
        "-o",
        trace.to_str().expect("text"),
        BOWOUT,
        "--grace",
        "1h",
    ];
    let script = "\"$PROBE\" with --setsid -- \"$PROBE\" signals --name d --exit TERM:0 & \
                  exec \"$PROBE\" signals --name c --exit TERM:6";
    let mut bowout = Start::new(words).program("strace").sh(script);
    bowout.ready_as("c");
    bowout.ready_as("d");
    bowout.kill(TERM);
    assert_eq!(bowout.wait(), Status::Code(6));
    let trace = until("the trace is whole", || {
        let trace = std::fs::read_to_string(&trace).ok()?;
        trace.contains("+++ exited").then_some(trace)
    });
    for sleep in &mut sleeps {
        sleep.kill(KILL);
        sleep.wait();
    }
    trace.lines().filter(|line| !line.contains("+++")).count()
}

/// bowout finds the tree from its own children downwards.
#[test]
fn a_drain_costs_what_the_tree_costs() {
    if skip(no_strace()) {
        return;
    }
    let (alone, beside) = (files_of_a_drain(0), files_of_a_drain(200));
    assert!(
        beside <= alone + 20,
        "{alone} files alone, {beside} beside 200 strangers"
    );
}

/// `exec > >(tee >(gzip)); exec bowout ...`: when `tee` exits, bowout becomes the parent of `gzip`.
#[test]
fn a_descendant_of_a_child_from_before_the_exec_is_not_signalled() {
    let family = "sh -c '\"$PROBE\" signals --name g --exit USR2:0 & read line' <\"$FIFO\" &";
    for start in ["", "sleep 0.2;"] {
        let dir = Dir::new();
        let fifo = dir.file("fifo");
        let name = std::ffi::CString::new(fifo.to_str().expect("text")).expect("no NUL");
        // SAFETY: a string that outlives the call.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        let script = format!(
            "{family} {start} exec \"$SHIM\" --grace 1h -- sh -c '\"$PROBE\" signals --name d --exit TERM:0 & \
             exec \"$PROBE\" signals --name c --exit USR1:3'"
        );
        let mut bowout = Start::direct()
            .env("SHIM", BOWOUT)
            .env("FIFO", &fifo)
            .command(["sh", "-c", &script]);
        // The last writer: when it closes, the shell above `g` exits.
        let writer = std::fs::File::options().write(true).open(&fifo);
        let below = bowout.ready_as("g");
        bowout.ready_as("c");
        bowout.ready_as("d");
        drop(writer.expect("a FIFO"));
        let pid = bowout.pid;
        until("it is bowout's child", || {
            (crate::common::pty::parent_of(below) == pid).then_some(())
        });
        bowout.kill(libc::SIGUSR1);
        assert_eq!(bowout.wait(), Status::Code(3));
        // SAFETY: a descendant of this process, alive until it has this signal.
        unsafe { libc::kill(below, libc::SIGUSR2) };
        let lines = bowout.out.rest();
        assert_eq!(signals_of("g", &lines), [libc::SIGUSR2]);
        assert_eq!(signals_of("d", &lines), [TERM]);
        assert_eq!(bowout.end(), Status::Code(3));
    }
}
