//! Nothing that bowout started is left running, and no zombie unreaped.

use std::time::Duration;

use crate::common::{SOON, Start, Status, assert_at_most, homes, signals_of, timed};

const TERM: i32 = libc::SIGTERM;
const KILL: i32 = libc::SIGKILL;

#[test]
fn ten_thousand_orphans_are_reaped_as_they_end() {
    for home in homes() {
        let mut bowout = Start::plain().at(home).probe(["orphans", "10000"]);
        let most = bowout.out.find("most", |line| line.starts_with("most "));
        let most: u32 = most["most ".len()..].parse().expect("a number");
        // The child itself, and 25 that came together; the next 25 come when these are reaped.
        assert!(most <= 26, "{home:?}: {most} children at once");
        bowout.out.find("none left", |line| line == "none left");
        assert_eq!(bowout.end(), Status::Code(0));
    }
}

/// Half of them are in sessions of their own, a third are orphans, and none obeys.
#[test]
fn none_of_two_thousand_stubborn_descendants_survives() {
    for home in homes() {
        let mut bowout =
            Start::new(["--grace", "500ms"])
                .at(home)
                .probe(["tree", "2000", "--stubborn"]);
        bowout.ready();
        bowout.kill(TERM);
        // The end of the pipe: every one of them held it.
        assert_at_most(&signals_of("", &bowout.out.rest()), &[TERM]);
        assert_eq!(bowout.end(), bowout.died(KILL), "{home:?}");
    }
}

/// A descendant may be gone by the time it is signalled, and have left another one.
#[test]
fn descendants_that_fork_while_they_are_killed_do_not_survive() {
    for home in homes() {
        let mut bowout = Start::new(["--grace", "300ms"])
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
fn the_childs_own_end_drains_what_it_leaves_behind() {
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

/// One grace period for the stop and the drain together.
#[test]
fn the_drain_of_a_stop_has_what_is_left_of_the_grace_period() {
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
fn a_stop_request_during_the_drain_is_no_repeat_and_a_second_one_is() {
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
        // Two that are pending at once would be one.
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
    bowout.kill(libc::SIGUSR1);
    assert_eq!(bowout.end(), Status::Code(5));
}

/// C12: what is not below bowout is none of its business.
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
