//! Kill modes, and the processes that bowout waits for.

use crate::common::{
    NONE, Running, Start, Status, assert_at_most, children, homes, signals_of, until,
};

const TERM: i32 = libc::SIGTERM;
const KILL: i32 = libc::SIGKILL;

/// A script with a descendant `d` and the child `c`, each with its options.
fn family(child: &str, descendant: &str) -> String {
    format!("\"$PROBE\" signals --name d {descendant} & exec \"$PROBE\" signals --name c {child}")
}

fn count(signals: &[i32], signal: i32) -> usize {
    signals.iter().filter(|other| **other == signal).count()
}

#[test]
fn mixed_asks_the_child_alone_and_the_others_before_it_kills_them() {
    for home in homes() {
        let mut bowout = Start::new(["-k", "mixed", "--grace", "300ms"])
            .at(home)
            .sh(&family("", ""));
        bowout.ready_as("c");
        bowout.ready_as("d");
        bowout.kill(TERM);
        let lines = bowout.out.rest();
        assert_at_most(&signals_of("c", &lines), &[TERM]);
        assert_eq!(signals_of("d", &lines), [TERM], "{home:?}");
        assert_eq!(bowout.end(), bowout.died(KILL));
    }
}

#[test]
fn mixed_is_the_default() {
    let mut bowout = Start::new(["--grace", "never"]).sh(&family("", ""));
    bowout.ready_as("c");
    bowout.ready_as("d");
    bowout.kill(TERM);
    bowout
        .out
        .find("the stop", |line| line.starts_with(&format!("c {TERM} ")));
    bowout.kill(TERM);
    assert_eq!(signals_of("d", &bowout.out.rest()), NONE);
    assert_eq!(bowout.end(), Status::Signal(KILL));
}

#[test]
fn group_asks_every_descendant_once() {
    for home in homes() {
        for option in [&["-g"][..], &["--kill-mode", "group"]] {
            let setsid = "\"$PROBE\" with --setsid -- \"$PROBE\" signals --name s & ";
            let script = format!("{setsid}{}", family("--exit USR1:5", ""));
            let mut bowout = Start::new(option.iter().chain(&["--grace", "never"]))
                .at(home)
                .sh(&script);
            for name in ["c", "d", "s"] {
                bowout.ready_as(name);
            }
            let child = bowout.child_pid();
            bowout.kill(TERM);
            for name in ["c", "d", "s"] {
                bowout
                    .out
                    .find("TERM", |line| line.starts_with(&format!("{name} {TERM} ")));
            }
            // The child's exit starts the drain, which does not send SIGTERM again.
            bowout.kill(libc::SIGUSR1);
            until("the child is reaped", || {
                (!children(bowout.pid).contains(&child)).then_some(())
            });
            bowout.kill(TERM);
            let lines = bowout.out.rest();
            for name in ["c", "d", "s"] {
                assert_eq!(
                    count(&signals_of(name, &lines), TERM),
                    0,
                    "{home:?} {name}: {lines:?}"
                );
            }
            // Every signal is forwarded to the child's process group.
            let usr1 = ["d", "s"].map(|name| count(&signals_of(name, &lines), libc::SIGUSR1));
            assert_eq!(usr1, [1, 0], "{home:?}: {lines:?}");
            assert_eq!(bowout.end(), Status::Code(5));
        }
    }
}

#[test]
fn process_signals_the_child_and_nothing_else() {
    for option in [&["-c"][..], &["-k", "process"]] {
        let mut bowout =
            Start::new(option.iter().chain(&["--grace", "200ms"])).sh(&family("", "--exit USR2:0"));
        bowout.ready_as("c");
        let descendant = bowout.ready_as("d");
        bowout.kill(TERM);
        assert_eq!(bowout.wait(), Status::Signal(KILL));
        // The descendant still runs, and has received no signal.
        // SAFETY: a descendant of this process, which adopted it.
        unsafe { libc::kill(descendant, libc::SIGUSR2) };
        let lines = bowout.out.rest();
        assert_at_most(&signals_of("c", &lines), &[TERM]);
        assert_eq!(signals_of("d", &lines), [libc::SIGUSR2]);
    }
}

#[test]
fn process_has_no_drain() {
    let mut bowout = Start::new(["-k", "process"]).sh(&family("--exit USR1:5", "--exit USR2:0"));
    bowout.ready_as("c");
    let descendant = bowout.ready_as("d");
    bowout.kill(libc::SIGUSR1);
    assert_eq!(bowout.wait(), Status::Code(5));
    // SAFETY: a descendant of this process, which adopted it.
    unsafe { libc::kill(descendant, libc::SIGUSR2) };
    assert_eq!(signals_of("d", &bowout.out.rest()), [libc::SIGUSR2]);
}

/// A program that daemonises: with `--wait-tree`, bowout runs as long as the daemon.
const DAEMON: &str =
    "\"$PROBE\" with --setsid -- \"$PROBE\" signals --name d --exit USR1:0 --exit TERM:0 & exit 3";

/// Waits until the daemon is bowout's only child; returns the daemon's PID, as this process sees
/// it.
fn only_daemon(bowout: &mut Running) -> i32 {
    bowout.ready_as("d");
    until(
        "the daemon is bowout's",
        || match children(bowout.pid)[..] {
            [only] => std::fs::read(format!("/proc/{only}/cmdline"))
                .is_ok_and(|line| line.starts_with(b"/"))
                .then_some(only),
            _ => None,
        },
    )
}

#[test]
fn wait_tree_ends_with_the_last_descendant_and_the_childs_status() {
    for home in homes() {
        let mut bowout = Start::new(["--wait-tree"]).at(home).sh(DAEMON);
        let daemon = only_daemon(&mut bowout);
        // The child's exit did not send SIGTERM to the daemon.
        // SAFETY: a descendant of this process, alive until it has this signal.
        unsafe { libc::kill(daemon, libc::SIGUSR1) };
        assert_eq!(
            signals_of("d", &bowout.out.rest()),
            [libc::SIGUSR1],
            "{home:?}"
        );
        assert_eq!(bowout.end(), Status::Code(3));
    }
}

#[test]
fn wait_tree_sends_a_stop_request_to_the_processes_left() {
    for home in homes() {
        let mut bowout = Start::new(["--wait-tree", "--grace", "1h"])
            .at(home)
            .sh(DAEMON);
        only_daemon(&mut bowout);
        bowout.kill(TERM);
        assert_eq!(count(&signals_of("d", &bowout.out.rest()), TERM), 1);
        assert_eq!(bowout.end(), Status::Code(3));
    }
}

#[test]
fn wait_tree_kills_processes_that_do_not_exit() {
    let script = "\"$PROBE\" with --setsid -- \"$PROBE\" signals --name d & exit 3";
    for home in homes() {
        let mut bowout = Start::new(["--wait-tree", "--grace", "200ms"])
            .at(home)
            .sh(script);
        only_daemon(&mut bowout);
        bowout.kill(TERM);
        assert!(count(&signals_of("d", &bowout.out.rest()), TERM) <= 1);
        assert_eq!(bowout.end(), Status::Code(3), "{home:?}");
    }
}
