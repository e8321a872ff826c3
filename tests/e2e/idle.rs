//! While nothing happens, bowout does nothing: no wake-ups, one thread.

use std::io::pipe;

use crate::common::{Dir, Running, Start, Status, homes, no_strace, skip, switches_asleep, until};

/// bowout with a child that has reported, and no work left.
fn quiet(mut bowout: Running) -> Running {
    bowout.ready();
    bowout.kill(libc::SIGUSR1);
    bowout.expect(libc::SIGUSR1);
    until("bowout sleeps", || (bowout.state() == 'S').then_some(()));
    bowout
}

#[test]
fn there_is_one_thread() {
    for home in homes() {
        let bowout = quiet(Start::plain().at(home).probe(["signals"]));
        assert_eq!(bowout.field("Threads"), "1");
    }
}

#[test]
fn an_idle_bowout_is_not_woken() {
    for options in [
        &[][..],
        &["--max-runtime", "1h"],
        &["--wait-tree"],
        &["-g", "--grace", "never"],
        &["--stop-on-eof", "-p", "TERM"],
        &["--guard", "--stop-on-eof"],
    ] {
        let (stdin, writer) = pipe().expect("a pipe");
        let start = Start::new(options).stdin(stdin);
        let mut bowout = start.probe(["signals", "--pause", "USR2:1000"]);
        bowout = quiet(bowout);
        bowout.kill(libc::SIGUSR2);
        bowout.expect(libc::SIGUSR2);
        // With --guard, bowout's child is the supervisor.
        let supervisor = options.contains(&"--guard").then(|| bowout.child_pid());
        let both: Vec<i32> = [bowout.pid].into_iter().chain(supervisor).collect();
        let before = switches_asleep(&both);
        // The child pauses for a second, which does not involve bowout.
        bowout.out.find("the pause", |line| line == "paused");
        assert_eq!(switches_asleep(&both), before, "{options:?}");
        drop(writer);
    }
}

#[test]
fn ten_idle_seconds_see_no_system_call() {
    if skip(no_strace()) {
        return;
    }
    let bowout = quiet(Start::plain().probe(["signals"]));
    let dir = Dir::new();
    let file = dir.file("trace");
    let words = [
        "strace",
        "-f",
        "-o",
        file.to_str().expect("text"),
        "-p",
        &bowout.pid.to_string(),
    ];
    let mut strace = Start::direct().command(words);
    strace
        .err
        .find("attached", |line| line.contains("attached"));
    // SAFETY: no descriptors; the promise is about ten seconds.
    unsafe { libc::poll(std::ptr::null_mut(), 0, 10_000) };
    strace.kill(libc::SIGINT);
    assert_ne!(strace.wait(), Status::Code(1), "{:?}", strace.err.seen());
    // strace may show that bowout resumes its waiting call; no call may return.
    let trace = std::fs::read_to_string(&file).expect("a trace");
    let ended: Vec<&str> = trace
        .lines()
        .filter(|line| line.contains(" = ") && !line.contains("ERESTART"))
        .collect();
    assert!(ended.is_empty(), "{trace}");
    assert!(trace.lines().count() <= 4, "{trace}");
}

#[test]
fn bowout_keeps_no_descriptor_it_does_not_need() {
    let bowout = quiet(Start::plain().probe(["signals"]));
    let open = std::fs::read_dir(format!("/proc/{}/fd", bowout.pid))
        .expect("descriptors")
        .count();
    assert!(open <= 8, "{open} descriptors");
}

/// An expired deadline is handled once: a loop that spins at one would show up here.
#[test]
fn waiting_for_a_deadline_costs_no_time() {
    let mut bowout = Start::new(["--grace", "1h"]).probe(["signals", "--pause", "TERM:1000"]);
    bowout.ready();
    bowout.kill(libc::SIGTERM);
    bowout.expect(libc::SIGTERM);
    bowout.out.find("the pause", |line| line == "paused");
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", bowout.pid)).expect("bowout");
    let words: Vec<&str> = stat[stat.rfind(')').expect("a name") + 2..]
        .split(' ')
        .collect();
    let ticks: u32 = words[11..13]
        .iter()
        .map(|word| word.parse::<u32>().expect("ticks"))
        .sum();
    // A second of spinning is a hundred ticks.
    assert!(ticks < 50, "{ticks} ticks");
    bowout.kill(libc::SIGTERM);
    assert_eq!(bowout.end(), Status::Signal(libc::SIGKILL));
}
