//! No signal is lost, and none is delivered twice.

use crate::common::{
    BOWOUT, Dir, Home, NONE, NOTHING, Running, Start, Status, children, field, homes, leftovers,
    not_root, probe, size, until,
};

/// Every signal that can be caught, including those that the C library keeps for itself.
fn catchable() -> impl Iterator<Item = i32> {
    (1..=libc::SIGRTMAX()).filter(|signal| ![libc::SIGKILL, libc::SIGSTOP].contains(signal))
}

/// The signals that bowout forwards without further action. SIGCHLD is left out, because the kernel
/// sends it as well.
fn plain() -> impl Iterator<Item = i32> {
    let requests = [libc::SIGTERM, libc::SIGINT, libc::SIGABRT];
    catchable().filter(move |signal| !requests.contains(signal) && *signal != libc::SIGCHLD)
}

#[test]
fn every_signal_is_forwarded_once_and_in_order() {
    for home in homes() {
        let mut bowout = Start::new(["--grace", "never"]).at(home).probe(["signals"]);
        bowout.ready();
        for signal in plain() {
            bowout.kill(signal);
            // A second copy, or a stray signal, would be the next line.
            assert_eq!(bowout.expect(signal).code, libc::SI_USER);
        }
        assert_eq!(bowout.settle(), NONE, "{home:?}");
    }
}

#[test]
fn every_stop_request_is_forwarded_once() {
    for home in homes() {
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGABRT] {
            let mut bowout = Start::new(["--grace", "never"]).at(home).probe(["signals"]);
            bowout.ready();
            bowout.kill(signal);
            bowout.expect(signal);
            assert_eq!(bowout.settle(), NONE, "{home:?}");
        }
    }
}

#[test]
fn a_child_signal_that_a_user_sends_is_forwarded() {
    let mut bowout = Start::new(["--grace", "never"]).probe(["signals"]);
    bowout.ready();
    bowout.kill(libc::SIGCHLD);
    bowout.expect(libc::SIGCHLD);
}

#[test]
fn signals_that_are_pending_together_arrive_once_each() {
    // Stop signals remove a pending SIGCONT, and SIGCONT, which `kill_together` sends last, removes
    // pending stop signals.
    let stops = [libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];
    let sent: Vec<i32> = plain()
        .filter(|signal| !stops.contains(signal) && *signal < libc::SIGRTMAX() - 1)
        .collect();
    for home in homes() {
        let mut bowout = Start::new(["--grace", "never"]).at(home).probe(["signals"]);
        bowout.ready();
        bowout.kill_together(
            &sent
                .iter()
                .copied()
                .filter(|signal| *signal != libc::SIGCONT)
                .collect::<Vec<_>>(),
        );
        let mut seen = bowout.settle();
        seen.sort_unstable();
        assert_eq!(seen, sent, "{home:?}");
    }
}

/// bowout and its child as a user of their own, if the test may change the user. All processes of a
/// user share one queue (RLIMIT_SIGPENDING), and a signal that finds it full loses its value.
fn alone(dir: &Dir, home: Home, options: &[&str], child: &[&str]) -> Running {
    let uid = leftovers::own_user().to_string();
    let user: &[&str] = if not_root().is_none() {
        &["--uid", &uid]
    } else {
        &[]
    };
    let probe = dir.program(probe());
    let start = Start::new(options)
        .program(dir.program(BOWOUT))
        .at(home)
        .with(user);
    start.command([&[probe.to_str().expect("text")], child].concat())
}

#[test]
fn a_queued_signal_arrives_with_its_value() {
    for home in homes() {
        let dir = Dir::new();
        let mut bowout = alone(&dir, home, &[], &["signals"]);
        bowout.ready();
        for signal in [libc::SIGUSR1, libc::SIGRTMIN() + 5] {
            bowout.queue(signal, 42);
            let got = bowout.expect(signal);
            assert_eq!((got.code, got.value), (libc::SI_QUEUE, 42), "{home:?}");
        }
    }
}

#[test]
fn queued_signals_arrive_in_the_order_they_were_sent() {
    let signal = libc::SIGRTMIN();
    let dir = Dir::new();
    let mut bowout = alone(&dir, Home::Subreaper, &[], &["signals"]);
    bowout.ready();
    for value in 0..1000 {
        bowout.queue(signal, value);
    }
    for value in 0..1000 {
        assert_eq!(bowout.expect(signal).value, value);
    }
    assert_eq!(bowout.settle(), NONE);
}

#[test]
fn real_time_signals_keep_their_order_and_their_number() {
    let sent: Vec<i32> = (34..libc::SIGRTMAX() - 1)
        .flat_map(|signal| [signal; 3])
        .collect();
    let dir = Dir::new();
    let mut bowout = alone(&dir, Home::Subreaper, &[], &["signals"]);
    bowout.ready();
    for signal in &sent {
        bowout.kill(*signal);
    }
    assert_eq!(bowout.settle(), sent);
}

/// The signal arrives right after bowout's fork, at any point of its work: the child may not have
/// been executed yet.
#[test]
fn term_sent_the_moment_the_child_appears_is_never_lost() {
    for home in homes() {
        for _ in 0..300 {
            let mut bowout = Start::new(["--grace", "never"]).at(home).probe(["idle"]);
            until("a child", || children(bowout.pid).first().copied());
            bowout.kill(libc::SIGTERM);
            assert_eq!(bowout.end(), bowout.died(libc::SIGTERM), "{home:?}");
        }
    }
}

/// The same during the first instructions of bowout itself: it may die of the signal, but must not
/// lose it.
#[test]
fn term_sent_the_moment_bowout_starts_is_never_lost() {
    for _ in 0..150 {
        let mut bowout = Start::new(["--grace", "never"]).probe(["idle"]);
        bowout.kill(libc::SIGTERM);
        assert_eq!(bowout.end(), Status::Signal(libc::SIGTERM));
    }
}

#[test]
fn after_a_storm_of_signals_the_stop_is_clean() {
    let storm = [
        libc::SIGUSR1,
        libc::SIGUSR2,
        libc::SIGHUP,
        libc::SIGWINCH,
        libc::SIGURG,
        libc::SIGALRM,
        libc::SIGCONT,
        35,
        40,
        41,
    ];
    let each = size(2_000, 10_000);
    for home in homes() {
        let dir = Dir::new();
        let mut bowout = alone(
            &dir,
            home,
            &["--grace", "never"],
            &["signals", "--exit", "TERM:7"],
        );
        bowout.ready();
        for signal in storm.iter().cycle().take(each * storm.len()) {
            bowout.kill(*signal);
        }
        let seen = bowout.settle();
        for signal in storm {
            let count = seen.iter().filter(|seen| **seen == signal).count();
            assert!(
                (1..=each).contains(&count),
                "{home:?}: {signal} {count} times"
            );
        }
        bowout.kill(libc::SIGTERM);
        bowout.expect(libc::SIGTERM);
        assert_eq!(bowout.out.rest(), NOTHING);
        assert_eq!(bowout.end(), Status::Code(7), "{home:?}");
    }
}

#[test]
fn hup_is_forwarded_and_stops_nothing() {
    for home in homes() {
        // A stop request would send SIGKILL here.
        let mut bowout = Start::new(["--grace", "0"]).at(home).probe(["signals"]);
        bowout.ready();
        bowout.kill(libc::SIGHUP);
        bowout.expect(libc::SIGHUP);
        bowout.kill(libc::SIGHUP);
        bowout.expect(libc::SIGHUP);
        assert_eq!(bowout.settle(), NONE);
        bowout.kill(libc::SIGTERM);
        assert_eq!(bowout.end(), bowout.died(libc::SIGKILL));
    }
}

#[test]
fn a_remapped_signal_arrives_as_another() {
    let mut bowout = Start::new([
        "--remap",
        "USR1:USR2",
        "-r",
        "34:10",
        "-r",
        "SIGWINCH:rtmin+1",
    ])
    .probe(["signals"]);
    bowout.ready();
    for (sent, expected) in [
        (libc::SIGUSR1, libc::SIGUSR2),
        (34, libc::SIGUSR1),
        (libc::SIGWINCH, 35),
        (libc::SIGUSR2, libc::SIGUSR2),
    ] {
        bowout.kill(sent);
        bowout.expect(expected);
    }
}

#[test]
fn a_signal_remapped_to_0_is_dropped() {
    let mut bowout = Start::new(["--remap", "HUP:0", "-r", "USR1:0"]).probe(["signals"]);
    bowout.ready();
    bowout.kill(libc::SIGHUP);
    bowout.kill(libc::SIGUSR1);
    assert_eq!(bowout.settle(), NONE);
}

#[test]
fn a_remapped_stop_request_still_stops() {
    let mut bowout = Start::new(["--remap", "TERM:QUIT", "--grace", "never"])
        .probe(["signals", "--exit", "QUIT:9"]);
    bowout.ready();
    bowout.kill(libc::SIGTERM);
    bowout.expect(libc::SIGQUIT);
    assert_eq!(bowout.end(), Status::Code(9));
}

/// bowout blocks signals in order to read them and forward them to its child; the child's own mask
/// is empty.
#[test]
fn every_signal_is_blocked_in_bowout_and_none_in_the_child() {
    let mut bowout = Start::plain().probe(["idle"]);
    let child = bowout.ready();
    let blocked = u64::from_str_radix(&bowout.field("SigBlk"), 16).expect("a set");
    for signal in catchable() {
        assert!(blocked & (1 << (signal - 1)) != 0, "{signal}: {blocked:x}");
    }
    assert_eq!(field(child, "SigBlk"), "0000000000000000");
}
