//! Starting the command: commands that cannot be started, and the resources that bowout releases
//! afterwards.

use std::fs::File;
use std::io::pipe;
use std::os::fd::AsRawFd;
use std::time::Duration;

use crate::common::{
    Dir, Home, Lines, NONE, NOTHING, Running, Start, Status, homes, leftovers, no_namespaces,
    signals_of, skip, timed, until,
};

const TERM: i32 = libc::SIGTERM;
/// The libc crate lacks this constant.
const F_SETSIG: i32 = 10;

/// bowout exits with this status; its only line begins with its name and contains these words.
fn refused(mut bowout: Running, status: i32, words: &[&str]) {
    assert_eq!(bowout.end(), Status::Code(status));
    let line = bowout.line();
    assert!(line.starts_with("bowout: "), "{line}");
    for word in words {
        assert!(line.contains(word), "{word} is not in: {line}");
    }
}

#[test]
fn a_command_that_is_not_found_is_127() {
    for home in homes() {
        let bowout = Start::plain().at(home).command(["no-such-command"]);
        refused(
            bowout,
            127,
            &["cannot run 'no-such-command': No such file or directory"],
        );
        refused(
            Start::plain().at(home).command(["/no/such/command"]),
            127,
            &["/no/such/command"],
        );
    }
}

#[test]
fn a_command_that_cannot_run_is_126() {
    let dir = Dir::new();
    let file = dir.write("plain", "echo started\n", 0o644);
    for home in homes() {
        refused(
            Start::plain().at(home).command([&file]),
            126,
            &["cannot run", "plain", "Permission denied"],
        );
        refused(
            Start::plain().at(home).command([&dir.0]),
            126,
            &["cannot run"],
        );
    }
}

#[test]
fn a_script_without_an_interpreter_line_runs_through_the_shell() {
    let dir = Dir::new();
    let script = dir.write("script", "echo \"$0\" \"$#\" \"$2\"\nexit 9\n", 0o755);
    for home in homes() {
        let mut bowout =
            Start::plain()
                .at(home)
                .command([script.to_str().expect("text"), "one", "two words"]);
        assert_eq!(
            bowout.out.rest(),
            [format!("{} 2 two words", script.display())]
        );
        assert_eq!(bowout.end(), Status::Code(9));
    }
    // As with execvp, an empty file is a script that does nothing.
    assert_eq!(
        Start::plain()
            .command([dir.write("empty", "", 0o755)])
            .end(),
        Status::Code(0)
    );
}

#[test]
fn stdout_is_the_commands_alone() {
    for home in homes() {
        let mut bowout = Start::plain()
            .at(home)
            .sh("echo ready 1; exec >&-; exec \"$PROBE\" idle");
        bowout.ready();
        // bowout must still run, or it could not die of TERM.
        assert_eq!(bowout.out.rest(), NOTHING, "{home:?}");
        bowout.kill(TERM);
        assert_eq!(bowout.end(), bowout.died(TERM));
    }
}

#[test]
fn stdin_is_the_commands_alone() {
    let (read, write) = pipe().expect("a pipe");
    let mut bowout = Start::plain()
        .stdin(read)
        .sh("exec <&-; exec \"$PROBE\" idle");
    bowout.ready();
    let mut poll = libc::pollfd {
        fd: write.as_raw_fd(),
        events: 0,
        revents: 0,
    };
    until("nobody can read", || {
        // SAFETY: one valid structure.
        unsafe { libc::poll(&raw mut poll, 1, 0) };
        (poll.revents & libc::POLLERR != 0).then_some(())
    });
    bowout.kill(TERM);
    assert_eq!(bowout.end(), Status::Signal(TERM));
}

#[test]
fn inherited_descriptors_are_the_commands_alone() {
    let (read, write) = pipe().expect("a pipe");
    let fd = write.as_raw_fd().to_string();
    let probe = crate::common::probe().to_str().expect("text");
    let words = ["with", "--close", &fd, "--", probe, "idle"];
    let mut bowout = Start::plain().inherit(&write).probe(words);
    drop(write);
    bowout.ready();
    // bowout must still run, or it could not die of TERM.
    assert_eq!(Lines::of(read).rest(), NOTHING);
    bowout.kill(TERM);
    assert_eq!(bowout.end(), Status::Signal(TERM));
}

#[test]
fn the_working_directory_is_the_commands_alone() {
    let dir = Dir::new();
    let mut bowout = Start::plain().dir(&dir.0).probe(["idle"]);
    let child = bowout.ready();
    until("bowout is in /", || {
        std::fs::read_link(format!("/proc/{}/cwd", bowout.pid))
            .ok()
            .filter(|at| at.as_os_str() == "/")
    });
    assert_eq!(
        std::fs::read_link(format!("/proc/{child}/cwd")).expect("the child"),
        dir.0.canonicalize().expect("a directory")
    );
}

#[test]
fn the_child_dies_with_bowout() {
    for options in [&[][..], &["-k", "mixed"], &["-g"]] {
        let mut bowout = Start::new(options).probe(["signals"]);
        bowout.ready();
        bowout.kill(libc::SIGKILL);
        assert_eq!(bowout.wait(), Status::Signal(libc::SIGKILL));
        assert_eq!(bowout.out.rest(), NOTHING);
    }
}

#[test]
fn in_mode_process_the_child_outlives_bowout() {
    let mut bowout = Start::new(["-k", "process"]).probe(["signals", "--exit", "USR1:0"]);
    let child = bowout.ready();
    bowout.kill(libc::SIGKILL);
    assert_eq!(bowout.wait(), Status::Signal(libc::SIGKILL));
    // SAFETY: a descendant of this process, which adopted it.
    unsafe { libc::kill(child, libc::SIGUSR1) };
    assert_eq!(signals_of("", &bowout.out.rest()), [libc::SIGUSR1]);
}

/// A parent process that has started bowout with these options; bowout's child is `signals` with
/// the name c. The parent ends on SIGTERM.
fn parent(options: &str) -> (Running, i32) {
    let probe = crate::common::probe().to_str().expect("text");
    let words = ["thread", "--", "sh", "-c"];
    let script = format!(
        "exec {} {options} -- {probe} signals --name c --exit TERM:7",
        crate::common::BOWOUT
    );
    let mut parent = Start::direct().probe(words.iter().copied().chain([script.as_str()]));
    parent.ready_as("c");
    parent
        .out
        .find("the thread", |line| line == "the thread has ended");
    let bowout = parent.child_pid();
    (parent, bowout)
}

/// Sends bowout a signal; the next signal that the child receives must be this one.
fn assert_next(parent: &mut Running, bowout: i32, signal: i32) {
    // SAFETY: no pointers; a process of the test.
    assert_eq!(unsafe { libc::kill(bowout, signal) }, 0);
    let line = parent.out.next().expect("a signal");
    assert!(line.starts_with(&format!("c {signal} ")), "{line}");
}

#[test]
fn parent_death_signal_is_sent_when_the_parent_process_ends_and_not_its_thread() {
    for option in ["-p", "--parent-death-signal"] {
        let (mut parent, bowout) = parent(&format!("{option} TERM"));
        assert_next(&mut parent, bowout, libc::SIGUSR1);
        parent.kill(TERM);
        assert_eq!(parent.wait(), Status::Code(0));
        assert_eq!(signals_of("c", &parent.out.rest()), [TERM]);
        let log = parent.log();
        let line = format!(
            "SIGTERM from the exited parent (pid {}): sent SIGTERM",
            parent.pid
        );
        assert!(log.iter().any(|entry| entry.contains(&line)), "{log:#?}");
    }
}

/// No process is left; the probes, which report each signal that they receive, reported none.
#[test]
fn parent_death_signal_kill_kills_the_whole_tree_at_once() {
    let probe = crate::common::probe().to_str().expect("text");
    let script = format!(
        "exec {} --grace 1h -p KILL -- sh -c '{probe} signals --name d & exec {probe} signals --name c'",
        crate::common::BOWOUT
    );
    let mut parent = Start::direct().probe(["thread", "--", "sh", "-c", &script]);
    parent.ready_as("c");
    parent.ready_as("d");
    // After this line, the parent waits for SIGTERM.
    parent.out.find("the end of the thread", |line| {
        line == "the thread has ended"
    });
    parent.kill(TERM);
    assert_eq!(parent.wait(), Status::Code(0));
    let log = parent.log();
    assert_eq!(signals_of("", &parent.out.rest()), NONE);
    assert!(
        log.iter()
            .any(|line| line.contains("SIGKILL from the exited parent")),
        "{log:#?}"
    );
    until("nothing is left", || parent.left().is_empty().then_some(()));
}

/// The descriptor stays readable after the parent's exit.
#[test]
fn a_parent_that_has_exited_costs_no_time() {
    let (mut parent, bowout) = parent("-p USR2");
    parent.kill(TERM);
    assert_eq!(parent.wait(), Status::Code(0));
    parent.out.find("SIGUSR2", |line| line.starts_with("c 12 "));
    assert_next(&mut parent, bowout, libc::SIGUSR1);
    // A loop that spins is never found asleep.
    let sleeps = || leftovers::stat(bowout).is_some_and(|stat| stat.state == 'S');
    until("bowout waits", || (0..100).all(|_| sleeps()).then_some(()));
    assert_next(&mut parent, bowout, TERM);
    assert_eq!(signals_of("c", &parent.out.rest()), NONE);
}

/// The parent has no PID and no pidfd in that namespace: the kernel sends the signal.
#[test]
fn parent_death_signal_reaches_bowout_from_a_parent_outside_its_pid_namespace() {
    if skip(no_namespaces()) {
        return;
    }
    let mut bowout = Start::new(["-p", "TERM"])
        .at(Home::Pid1)
        .probe(["signals", "--exit", "TERM:7"]);
    bowout.ready();
    let parent = leftovers::stat(bowout.pid).expect("bowout is there").parent;
    // SAFETY: no pointers; the process that the test started.
    assert_eq!(unsafe { libc::kill(parent, libc::SIGKILL) }, 0);
    assert_eq!(signals_of("", &bowout.out.rest()), [TERM]);
}

/// A write lease that its holder keeps blocks every other open of the file, including an exec, as a
/// dead network does. The kernel breaks the lease after 45 seconds.
#[test]
fn an_exec_that_hangs_can_be_stopped() {
    for (setup, death) in [
        (&["--default", "TERM"], TERM),
        (&["--ignore", "TERM"], libc::SIGKILL),
    ] {
        let dir = Dir::new();
        let program = dir.write("program", "#!/bin/sh\necho started\n", 0o755);
        let held = File::open(&program).expect("the program");
        let lease = |command: i32, argument: i32| {
            // SAFETY: no pointers.
            unsafe { libc::fcntl(held.as_raw_fd(), command, argument) }
        };
        // The kernel signals the holder of the lease: use a signal that is ignored by default.
        lease(F_SETSIG, libc::SIGURG);
        // A fork of another thread may still hold the descriptor through which the file was
        // written.
        let refused = until("a lease", || match lease(libc::F_SETLEASE, libc::F_WRLCK) {
            0 => Some(None),
            _ => Some(std::io::Error::last_os_error())
                .filter(|error| error.raw_os_error() != Some(libc::EAGAIN))
                .map(Some),
        });
        if skip(refused.map(|error| format!("no lease on {}: {error}", program.display()))) {
            return;
        }
        let mut bowout = Start::new(["--grace", "300ms"])
            .with(setup)
            .command([&program]);
        until("the exec waits", || {
            (lease(libc::F_GETLEASE, 0) != libc::F_WRLCK).then_some(())
        });
        let (status, took) = timed(|| {
            bowout.kill(TERM);
            bowout.end()
        });
        assert_eq!(status, Status::Signal(death));
        assert!(took < Duration::from_secs(30), "{took:?}");
        assert_eq!(bowout.out.rest(), NOTHING);
    }
}
