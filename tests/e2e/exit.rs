//! bowout ends as the command ended.

use crate::common::{Home, Start, Status, homes, no_namespaces, skip};

/// Every signal that ends a process by default.
fn terminating() -> impl Iterator<Item = i32> {
    let harmless = [
        libc::SIGCHLD,
        libc::SIGCONT,
        libc::SIGSTOP,
        libc::SIGTSTP,
        libc::SIGTTIN,
        libc::SIGTTOU,
        libc::SIGURG,
        libc::SIGWINCH,
    ];
    (1..=libc::SIGRTMAX()).filter(move |signal| !harmless.contains(signal))
}

fn death(start: Start, signal: i32) -> Status {
    start.probe(["die", &signal.to_string()]).end()
}

#[test]
fn every_exit_code_is_passed_on() {
    for home in homes() {
        for code in 0..=255 {
            let mut bowout = Start::new(["-q"])
                .at(home)
                .probe(["exit", &code.to_string()]);
            assert_eq!(bowout.end(), Status::Code(code), "{home:?}");
        }
    }
}

#[test]
fn a_death_by_any_signal_is_died_again() {
    for signal in terminating() {
        assert_eq!(death(Start::new(["-q"]), signal), Status::Signal(signal));
    }
}

#[test]
fn a_death_is_died_again_whatever_was_ignored_or_blocked_on_entry() {
    for signal in [
        libc::SIGTERM,
        libc::SIGHUP,
        libc::SIGPIPE,
        32,
        33,
        34,
        libc::SIGRTMAX(),
    ] {
        for how in ["--ignore", "--block"] {
            let start = Start::new(["-q"]).with([how, &signal.to_string()]);
            assert_eq!(death(start, signal), Status::Signal(signal), "{how}");
        }
    }
}

#[test]
fn as_pid_1_a_death_by_any_signal_is_a_code() {
    if skip(no_namespaces()) {
        return;
    }
    for signal in terminating() {
        assert_eq!(
            death(Start::new(["-q"]).at(Home::Pid1), signal),
            Status::Code(128 + signal)
        );
    }
}

#[test]
fn exit_status_code_makes_every_death_a_code() {
    for signal in terminating() {
        assert_eq!(
            death(Start::new(["-q", "--exit-status", "code"]), signal),
            Status::Code(128 + signal)
        );
    }
}

#[test]
fn exit_status_signal_dies_where_that_is_possible() {
    assert_eq!(
        death(Start::new(["--exit-status", "signal"]), libc::SIGTERM),
        Status::Signal(libc::SIGTERM)
    );
    for home in homes() {
        let expected = if home == Home::Pid1 {
            Status::Code(143)
        } else {
            Status::Signal(libc::SIGTERM)
        };
        assert_eq!(
            death(
                Start::new(["--exit-status", "auto"]).at(home),
                libc::SIGTERM
            ),
            expected
        );
    }
}

#[test]
fn dying_again_leaves_no_core_of_bowout() {
    // SAFETY: the structure is valid.
    let hard = unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        libc::getrlimit(libc::RLIMIT_CORE, &raw mut limit);
        limit.rlim_max
    };
    if skip((hard == 0).then(|| "the hard limit for cores is 0".into())) {
        return;
    }
    for signal in [libc::SIGQUIT, libc::SIGABRT, libc::SIGSEGV, libc::SIGXCPU] {
        let mut bowout = Start::new(["-q"])
            .with(["--core"])
            .probe(["die", &signal.to_string()]);
        assert_eq!(bowout.end(), Status::Signal(signal));
        assert!(!bowout.dumped_core(), "signal {signal}");
    }
}

#[test]
fn remap_exit_translates_a_code_and_a_death() {
    let term = libc::SIGTERM;
    for home in homes() {
        let start = |options: &[&str]| Start::new(options).at(home);
        assert_eq!(
            death(start(&["--remap-exit", "143:0"]), term),
            Status::Code(0)
        );
        assert_eq!(death(start(&["-e", "143"]), term), Status::Code(0));
        assert_eq!(death(start(&["-e", "143:7"]), term), Status::Code(7));
        assert_eq!(
            start(&["-e", "143"]).probe(["exit", "143"]).end(),
            Status::Code(0)
        );
        assert_eq!(
            start(&["-e", "1:2", "-e", "3"]).probe(["exit", "3"]).end(),
            Status::Code(0)
        );
        assert_eq!(
            start(&["-e", "1:2", "-e", "3"]).probe(["exit", "1"]).end(),
            Status::Code(2)
        );
        assert_eq!(
            start(&["-e", "1:2", "-e", "2:3"])
                .probe(["exit", "1"])
                .end(),
            Status::Code(2),
            "once"
        );
        let expected = if home == Home::Pid1 {
            Status::Code(129)
        } else {
            Status::Signal(libc::SIGHUP)
        };
        assert_eq!(death(start(&["-e", "143"]), libc::SIGHUP), expected);
    }
}
