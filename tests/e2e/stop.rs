//! A stop request starts the stop; the grace period, or a second request from the same side, ends
//! it.

use std::time::Duration;

use crate::common::{
    Home, NONE, NOTHING, Running, SOON, Start, Status, assert_at_most, homes, leftovers,
    signals_of, timed, until,
};

const TERM: i32 = libc::SIGTERM;
const INT: i32 = libc::SIGINT;
const QUIT: i32 = libc::SIGQUIT;
const CONT: i32 = libc::SIGCONT;
const KILL: i32 = libc::SIGKILL;

/// A child that exits on no signal, ready, under a bowout without a deadline.
fn patient(options: &[&str]) -> Running {
    let mut bowout = Start::new(["--grace", "never"].iter().chain(options)).probe(["signals"]);
    bowout.ready();
    bowout
}

#[test]
fn a_child_that_ignores_the_request_is_killed_after_the_grace_period_and_not_before() {
    for home in homes() {
        let grace = Duration::from_millis(400);
        let mut bowout = Start::new(["--grace", "400ms"]).at(home).probe(["signals"]);
        bowout.ready();
        let (status, took) = timed(|| {
            bowout.kill(TERM);
            assert_at_most(&signals_of("", &bowout.out.rest()), &[TERM]);
            bowout.end()
        });
        assert_eq!(status, bowout.died(KILL));
        assert!(took >= grace && took < SOON, "{took:?}");
    }
}

#[test]
fn the_end_is_the_childs_where_it_ends_in_time() {
    for home in homes() {
        let mut bowout = Start::new(["--grace", "1h"])
            .at(home)
            .probe(["signals", "--exit", "TERM:3"]);
        bowout.ready();
        bowout.kill(TERM);
        assert_eq!(bowout.end(), Status::Code(3));
    }
}

#[test]
fn the_grace_period_is_not_needed_by_a_child_that_dies_of_the_signal() {
    for home in homes() {
        let mut bowout = Start::new(["--grace", "1h"]).at(home).probe(["idle"]);
        bowout.ready();
        bowout.kill(TERM);
        assert_eq!(bowout.end(), bowout.died(TERM));
    }
}

#[test]
fn grace_0_kills_at_once() {
    for home in homes() {
        let mut bowout = Start::new(["-t", "0"]).at(home).probe(["signals"]);
        bowout.ready();
        bowout.kill(TERM);
        assert_eq!(bowout.end(), bowout.died(KILL));
    }
}

#[test]
fn a_second_request_from_the_same_side_kills_at_once() {
    for home in homes() {
        for (first, second) in [(TERM, TERM), (TERM, INT), (INT, libc::SIGABRT)] {
            let mut bowout = Start::new(["--grace", "never"]).at(home).probe(["signals"]);
            bowout.ready();
            bowout.kill(first);
            bowout.expect(first);
            bowout.kill(second);
            assert_eq!(
                bowout.end(),
                bowout.died(KILL),
                "{home:?}: {first}, {second}"
            );
        }
    }
}

#[test]
fn a_second_request_kills_descendants_as_well() {
    for home in homes() {
        let mut bowout = Start::new(["--grace", "1h"])
            .at(home)
            .probe(["tree", "20", "--stubborn"]);
        bowout.ready();
        bowout.kill(TERM);
        bowout.expect(TERM);
        bowout.kill(TERM);
        assert_eq!(bowout.end(), bowout.died(KILL));
    }
}

#[test]
fn on_repeat_ignore_drops_the_second_request() {
    let mut bowout = patient(&["--on-repeat", "ignore"]);
    bowout.kill(TERM);
    assert_eq!(bowout.settle(), [TERM]);
    bowout.kill(TERM);
    assert_eq!(bowout.settle(), NONE);
}

#[test]
fn on_repeat_forward_passes_the_second_request_on() {
    let mut bowout = patient(&["--on-repeat", "forward"]);
    bowout.kill(TERM);
    assert_eq!(bowout.settle(), [TERM]);
    bowout.kill(TERM);
    let seen = bowout.settle();
    assert_eq!(
        seen.iter().filter(|signal| **signal == TERM).count(),
        1,
        "{seen:?}"
    );
}

/// A manager's SIGTERM and a SIGTERM of another process are one intent, sent twice. A side's own
/// second request is a repeat.
#[test]
fn a_request_from_another_side_is_not_a_repeat() {
    let mut bowout = patient(&[]);
    bowout.kill(TERM);
    assert_eq!(bowout.settle(), [TERM]);
    bowout.kill_from_elsewhere(TERM);
    // bowout forwards a stop signal once in a stop, whichever sides request it.
    assert_eq!(bowout.settle(), NONE);
    bowout.kill_from_elsewhere(TERM);
    assert_eq!(bowout.end(), Status::Signal(KILL));
}

#[test]
fn another_sides_request_is_forwarded_where_its_signal_has_not_been() {
    let mut bowout = patient(&[]);
    bowout.kill(TERM);
    assert_eq!(bowout.settle(), [TERM]);
    bowout.kill_from_elsewhere(INT);
    let seen = bowout.settle();
    assert_eq!(
        seen.iter().filter(|signal| **signal == INT).count(),
        1,
        "{seen:?}"
    );
}

/// `kill $PPID` is a stop request.
#[test]
fn a_request_from_the_tree_is_a_side_of_its_own() {
    for home in homes() {
        let mut bowout =
            Start::new(["--grace", "never"])
                .at(home)
                .probe(["signals", "--tell", "USR1:TERM"]);
        bowout.ready();
        bowout.kill(libc::SIGUSR1);
        bowout.expect(libc::SIGUSR1);
        bowout.expect(TERM);
        bowout.kill(INT);
        assert!(bowout.settle().contains(&INT), "not killed");
        bowout.kill(TERM);
        assert_eq!(bowout.end(), bowout.died(KILL));
    }
}

#[test]
fn requests_that_are_pending_together_are_one() {
    for together in [
        &[TERM][..],
        &[TERM, libc::SIGHUP],
        &[TERM, INT],
        &[TERM, INT, libc::SIGABRT, libc::SIGHUP],
    ] {
        for home in homes() {
            let mut bowout = Start::new(["--grace", "never"]).at(home).probe(["signals"]);
            bowout.ready();
            // The SIGCONT that continues bowout is one of the batch.
            bowout.kill_together(together);
            let seen = bowout.settle();
            assert_eq!(
                seen.iter().filter(|signal| **signal == TERM).count(),
                1,
                "{home:?} {together:?}: {seen:?}"
            );
            if together.contains(&libc::SIGHUP) {
                assert_eq!(
                    seen.iter()
                        .filter(|signal| **signal == libc::SIGHUP)
                        .count(),
                    1,
                    "{home:?}: {seen:?}"
                );
            }
            // The batch counts as one request: the next one is a repeat.
            bowout.kill(TERM);
            assert_eq!(bowout.end(), bowout.died(KILL));
        }
    }
}

#[test]
fn cont_and_hup_after_a_request_are_not_a_repeat() {
    let mut bowout = patient(&[]);
    bowout.kill(TERM);
    assert_eq!(bowout.settle(), [TERM]);
    bowout.kill(CONT);
    bowout.expect(CONT);
    bowout.kill(libc::SIGHUP);
    bowout.expect(libc::SIGHUP);
    assert_eq!(bowout.settle(), NONE);
}

#[test]
fn a_stopped_child_can_act_on_the_request() {
    for home in homes() {
        let mut bowout = Start::new(["--grace", "1h"])
            .at(home)
            .probe(["signals", "--exit", "TERM:7"]);
        bowout.ready();
        let child = bowout.child_pid();
        // SAFETY: a descendant of ours that its parent cannot have reaped, because it cannot end.
        unsafe { libc::kill(child, libc::SIGSTOP) };
        until("the child is stopped", || {
            leftovers::stat(child).filter(|stat| stat.state == 'T')
        });
        bowout.kill(TERM);
        assert_eq!(bowout.end(), Status::Code(7), "{home:?}");
    }
}

#[test]
fn a_child_in_its_own_session_gets_the_request() {
    for home in homes() {
        let probe = crate::common::probe().to_str().expect("text");
        let mut bowout = Start::new(["--grace", "1h"]).at(home).probe([
            "with", "--setsid", "--", probe, "signals", "--exit", "TERM:7",
        ]);
        bowout.ready();
        bowout.kill(TERM);
        bowout.expect(TERM);
        assert_eq!(bowout.end(), Status::Code(7));
    }
}

#[test]
fn each_rung_of_the_ladder_has_its_turn() {
    for home in homes() {
        let wait = Duration::from_millis(300);
        let mut bowout = Start::new(["--escalate", "USR1/300ms/USR2/1h/KILL"])
            .at(home)
            .probe(["signals", "--exit", "USR2:4"]);
        bowout.ready();
        let (lines, took) = timed(|| {
            bowout.kill(TERM);
            bowout.out.rest()
        });
        let rungs: Vec<i32> = signals_of("", &lines)
            .into_iter()
            .filter(|signal| *signal != CONT)
            .collect();
        assert_eq!(rungs, [libc::SIGUSR1, libc::SIGUSR2]);
        assert!(took >= wait && took < SOON, "{took:?}");
        assert_eq!(bowout.end(), Status::Code(4));
    }
}

#[test]
fn the_last_rung_of_the_ladder_kills() {
    for home in homes() {
        let mut bowout = Start::new(["--escalate", "USR1/200ms/USR2/200ms/KILL"])
            .at(home)
            .probe(["signals"]);
        bowout.ready();
        let (status, took) = timed(|| {
            bowout.kill(TERM);
            bowout.end()
        });
        assert_eq!(status, bowout.died(KILL));
        assert!(
            took >= Duration::from_millis(400) && took < SOON,
            "{took:?}"
        );
    }
}

#[test]
fn stop_signal_is_what_the_child_is_sent_first() {
    for name in ["QUIT", "SIGQUIT", "quit", "3"] {
        let mut bowout = Start::new(["--stop-signal", name, "--grace", "1h"])
            .probe(["signals", "--exit", "QUIT:5"]);
        bowout.ready();
        bowout.kill(TERM);
        bowout.expect(QUIT);
        assert_eq!(bowout.end(), Status::Code(5));
    }
}

#[test]
fn stop_signal_may_be_a_real_time_signal() {
    let mut bowout = Start::new(["--stop-signal", "RTMIN+3", "--grace", "1h"])
        .probe(["signals", "--exit", "37:5"]);
    bowout.ready();
    bowout.kill(TERM);
    assert_eq!(bowout.end(), Status::Code(5));
}

#[test]
fn stop_on_replaces_the_set_of_requests() {
    for (name, request) in [
        ("WINCH", libc::SIGWINCH),
        ("USR1", libc::SIGUSR1),
        ("RTMIN+3", 37),
        ("USR2,HUP", libc::SIGHUP),
    ] {
        let mut bowout = Start::new(["--grace", "0", "--stop-on", name]).probe(["signals"]);
        bowout.ready();
        for other in [TERM, INT, libc::SIGABRT] {
            bowout.kill(other);
            bowout.expect(other);
        }
        bowout.kill(request);
        assert_eq!(bowout.end(), Status::Signal(KILL), "{name}");
    }
}

/// The child may not have installed its handlers yet: TERM, at its default, ends it at any moment.
#[test]
fn max_runtime_asks_the_child_to_end_and_ends_with_124() {
    for home in homes() {
        let start = Start::new(["--max-runtime", "300ms", "--grace", "1h"]).at(home);
        let (status, took) = timed(|| start.probe(["idle"]).end());
        assert_eq!(status, Status::Code(124));
        assert!(
            took >= Duration::from_millis(300) && took < SOON,
            "{took:?}"
        );
    }
}

#[test]
fn max_runtime_kills_processes_that_outlive_the_grace_period() {
    for home in homes() {
        let start = Start::new(["--max-runtime", "200ms", "--grace", "200ms"])
            .at(home)
            .with(["--ignore", "TERM"]);
        let (status, took) = timed(|| start.probe(["idle"]).end());
        assert_eq!(status, Status::Code(124));
        assert!(
            took >= Duration::from_millis(400) && took < SOON,
            "{took:?}"
        );
    }
}

#[test]
fn a_child_that_takes_the_request_of_max_runtime_ends_in_its_own_way() {
    // The child has SIGTERM blocked until it is ready, so that an early one stays pending.
    let child = [
        crate::common::probe().to_str().expect("text"),
        "signals",
        "--exit",
        "TERM:3",
    ];
    let blocks = [
        crate::common::probe().to_str().expect("text"),
        "with",
        "--block",
        "TERM",
        "--",
    ];
    let mut bowout = Start::new(["--max-runtime", "2s", "--grace", "1h"])
        .command([&blocks[..], &child].concat());
    bowout.ready();
    bowout.expect(TERM);
    assert_eq!(bowout.out.rest(), NOTHING);
    assert_eq!(bowout.end(), Status::Code(124));
}

#[test]
fn max_runtime_that_has_not_run_out_changes_nothing() {
    assert_eq!(
        Start::new(["--max-runtime", "1h"])
            .probe(["exit", "6"])
            .end(),
        Status::Code(6)
    );
}

#[test]
fn inside_a_namespace_and_outside_are_two_sides() {
    if crate::common::skip(crate::common::no_namespaces()) {
        return;
    }
    // A preStop hook's `kill -INT 1`, then the runtime's TERM.
    let mut bowout = Start::new(["--grace", "never"])
        .at(Home::Pid1)
        .probe(["signals", "--tell", "USR1:INT"]);
    bowout.ready();
    bowout.kill(libc::SIGUSR1);
    bowout.expect(libc::SIGUSR1);
    bowout.expect(INT);
    bowout.kill(TERM);
    assert!(bowout.settle().contains(&TERM), "not killed");
}

/// A service manager that signals a whole cgroup reaches both. For the inner one, the two signals
/// come from two sides, and are one intent.
#[test]
fn a_bowout_below_a_bowout_stops_once() {
    let inner = [
        crate::common::BOWOUT,
        "--grace",
        "never",
        "--",
        crate::common::probe().to_str().expect("text"),
        "signals",
    ];
    let mut outer = Start::new(["--grace", "never"]).command(inner);
    outer.ready();
    let inner = outer.child_pid();
    outer.kill(TERM);
    let seen = outer.settle();
    assert_eq!(
        seen.iter().filter(|signal| **signal == TERM).count(),
        1,
        "{seen:?}"
    );
    // SAFETY: a descendant of ours, not yet reaped, because it cannot end before its child.
    unsafe { libc::kill(inner, TERM) };
    let seen = outer.settle();
    assert!(!seen.contains(&TERM), "{seen:?}");
    outer.kill(TERM);
    assert_eq!(outer.end(), Status::Signal(KILL));
}

#[test]
fn a_death_is_passed_on_through_two_bowouts() {
    let inner = [
        crate::common::BOWOUT,
        "--",
        crate::common::probe().to_str().expect("text"),
        "idle",
    ];
    let mut outer = Start::plain().command(inner);
    outer.ready();
    outer.kill(libc::SIGINT);
    assert_eq!(outer.end(), Status::Signal(libc::SIGINT));
}
