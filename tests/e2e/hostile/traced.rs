//! A process that asks its parent to trace it has bowout as its tracer. bowout does not take its
//! stops for its exit, and it continues as if it were not traced.

use super::{TERM, USR1};
use crate::common::{Running, Start, Status, children, homes, leftovers, signals_of, until};

/// Every kill mode that treats descendants differently.
const MODES: [&[&str]; 3] = [&[], &["-c"], &["-g"]];

/// The command caught the signal once. Called after bowout's end.
fn assert_caught(bowout: &mut Running, signal: i32) {
    bowout.out.rest();
    let caught = format!("caught {signal}");
    let times = bowout
        .out
        .seen()
        .iter()
        .filter(|line| **line == caught)
        .count();
    assert_eq!(times, 1, "{:#?}", bowout.out.seen());
}

#[test]
fn a_traced_child_gets_the_signal_and_goes_on() {
    for home in homes() {
        for mode in MODES {
            let start = Start::new(["--grace", "1h"].iter().chain(mode)).at(home);
            let mut bowout = start.probe(["traced", "raise", "USR1", "--", "--exit", "TERM:7"]);
            bowout.ready();
            bowout.kill(TERM);
            assert_eq!(bowout.end(), Status::Code(7), "{home:?} {mode:?}");
            assert_caught(&mut bowout, USR1);
            assert_eq!(
                signals_of("", &bowout.out.seen()),
                [TERM],
                "{home:?} {mode:?}"
            );
        }
    }
}

/// The kernel sends SIGTRAP to a traced process on exec; an untraced process does not receive it.
/// The process would die of it.
#[test]
fn a_traced_child_executes_another_program() {
    for home in homes() {
        for mode in MODES {
            let script = "echo ready 1; exec \"$PROBE\" exit 9";
            let mut bowout = Start::new(mode)
                .at(home)
                .probe(["traced", "exec", "sh", "-c", script]);
            bowout.ready();
            assert_eq!(bowout.end(), Status::Code(9), "{home:?} {mode:?}");
        }
    }
}

#[test]
fn a_traced_child_dies_of_the_signal_that_kills_it() {
    for home in homes() {
        let mut bowout =
            Start::plain()
                .at(home)
                .probe(["traced", "exec", "sh", "-c", "kill -USR1 $$; exit 3"]);
        assert_eq!(bowout.wait(), bowout.died(USR1), "{home:?}");
    }
}

/// After SIGSTOP it is stopped like any other process: until SIGCONT, or until bowout's stop.
#[test]
fn a_traced_child_that_was_stopped_is_stopped_by_bowout_all_the_same() {
    let mut bowout = Start::new(["--grace", "1h"]).probe(["traced", "raise", "19", "--"]);
    let child = bowout.child_pid();
    until("the child is stopped, and not traced", || {
        (leftovers::stat(child)?.state == 'T').then_some(())
    });
    bowout.kill(TERM);
    assert_eq!(bowout.end(), Status::Signal(TERM));
}

#[test]
fn a_traced_orphan_is_reaped_once_when_it_has_ended() {
    for home in homes() {
        let script = "\"$PROBE\" traced orphan raise USR1 -- --name o --exit USR2:0 & \
                      exec \"$PROBE\" signals --name c --exit TERM:7";
        let mut bowout = Start::new(["-v", "--warn-on-reap", "--grace", "1h"])
            .at(home)
            .sh(script);
        bowout.ready_as("c");
        bowout.ready_as("o");
        let child = bowout.child_pid();
        let orphan = until("the orphan is bowout's", || {
            children(bowout.pid).into_iter().find(|pid| *pid != child)
        });
        // SAFETY: no pointers; a process of the test.
        assert_eq!(unsafe { libc::kill(orphan, libc::SIGUSR2) }, 0);
        let reaped = bowout
            .err
            .find("the orphan", |line| line.contains("reaped orphan"));
        assert!(reaped.contains("exited with 0"), "{reaped}");
        bowout.kill(TERM);
        assert_eq!(bowout.end(), Status::Code(7), "{home:?}");
        assert_caught(&mut bowout, USR1);
        // The shell reaps the process between itself and the orphan only if the shell still runs.
        let log = bowout.log();
        let orphans = log
            .iter()
            .filter(|line| line.contains("reaped orphan") && !line.contains("killed"))
            .count();
        assert!(orphans <= 2, "{log:#?}");
        assert!(!log.iter().any(|line| line.contains("SIGUSR1")), "{log:#?}");
    }
}

#[test]
fn a_traced_hook_runs_to_its_end() {
    let hook = "exec \"$PROBE\" traced raise USR1 exec sh -c 'echo \"hook done\" >&2'";
    let mut bowout = Start::new(["-v", "--grace", "1h", "--pre-stop", hook])
        .probe(["signals", "--exit", "TERM:7"]);
    bowout.ready();
    bowout.kill(TERM);
    assert_eq!(bowout.end(), Status::Code(7));
    let log = bowout.log();
    assert!(log.iter().any(|line| line == "hook done"), "{log:#?}");
    assert!(
        !log.iter().any(|line| line.contains("going on")),
        "{log:#?}"
    );
}
