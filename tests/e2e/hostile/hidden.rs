//! Descendants that are hard to see or to reach: other PID namespaces, other users, a changed
//! /proc, processes without their first thread, processes that are replaced all the time.

use super::{KILL, TERM, USR1, USR2, all_ready, hostile};
use crate::common::pty::kill;
use crate::common::{
    BOWOUT, Dir, NOTHING, Running, SOON, Start, Status, homes, no_namespaces, not_root, probe,
    signals_of, skip, timed,
};

#[test]
fn a_process_in_a_pid_namespace_of_the_childs_own_does_not_survive_the_stop() {
    if skip(no_namespaces()) {
        return;
    }
    for home in homes() {
        for nested in ["\"$PROBE\" ns --", "\"$PROBE\" ns -- \"$PROBE\" ns --"] {
            let script = format!(
                "{nested} \"$PROBE\" tree 20 --stubborn --name n & exec \"$PROBE\" signals --name c"
            );
            let mut bowout = Start::new(["--grace", "300ms"]).at(home).sh(&script);
            all_ready(&mut bowout, &["n", "c"]);
            bowout.kill(TERM);
            assert_eq!(bowout.end(), bowout.died(KILL), "{home:?}");
        }
    }
}

/// The namespace's own PID 1 adopts every orphan there, and none of them is bowout's child.
#[test]
fn processes_that_a_child_leaves_in_a_pid_namespace_are_drained() {
    if skip(no_namespaces()) {
        return;
    }
    for home in homes() {
        let script = "\"$PROBE\" ns -- \"$PROBE\" tree 20 --stubborn --name n & exec \"$PROBE\" signals --exit USR1:7";
        let mut bowout = Start::new(["--grace", "300ms"]).at(home).sh(script);
        bowout.ready_as("n");
        bowout.ready();
        bowout.kill(USR1);
        assert_eq!(bowout.end(), Status::Code(7), "{home:?}");
    }
}

/// Runs a command in its own mount namespace, with these options for its /proc and for its
/// inherited state.
fn in_mounts(proc: &[&str], with: &[&str], command: &[&str]) -> Running {
    let mut words = vec!["ns", "--here"];
    words.extend(proc);
    let probe = probe().to_str().expect("text");
    words.extend(["--", probe, "with"]);
    words.extend(with);
    words.push("--");
    words.extend(command);
    Start::new(words)
        .program(probe)
        .env("SHIM", BOWOUT)
        .bare(NOTHING)
}

/// bowout in such a mount namespace, with this grace period.
fn with_proc(proc: &[&str], with: &[&str], grace: &str, command: &[&str]) -> Running {
    in_mounts(
        proc,
        with,
        &[&[BOWOUT, "--grace", grace, "--"], command].concat(),
    )
}

/// `hidepid`, root without `CAP_SYS_PTRACE` as in a container, and descendants of another user.
#[test]
fn descendants_that_proc_does_not_show_do_not_survive_the_stop() {
    if skip(not_root()) {
        return;
    }
    let dir = Dir::new();
    let program = dir.program(probe());
    let hidden = format!("{} hostile uid 65534 -- --name", program.display());
    let script = format!("{hidden} a & {hidden} b & exec {hidden} c");
    let mut bowout = with_proc(
        &["--hide"],
        &["--no-cap-ptrace"],
        "300ms",
        &["sh", "-c", &script],
    );
    all_ready(&mut bowout, &["a", "b", "c"]);
    bowout.kill(TERM);
    assert_eq!(bowout.end(), Status::Signal(KILL));
}

/// The hidden descendant received SIGTERM first, no process is left, and the log has this line.
fn assert_asked(bowout: &mut Running, line: &str) {
    let seen = signals_of("a", &bowout.out.rest());
    assert_eq!(bowout.end(), Status::Code(7));
    assert_eq!(seen.first(), Some(&TERM), "{seen:?}");
    let log = bowout.log();
    assert!(
        log.iter().any(|said| said.contains(line)),
        "{line}: {log:#?}"
    );
}

/// The same in a drain, as with workers that root's server leaves in a unit with
/// `ProtectProc=invisible`. In the last case the kernel also seems to lack `CONFIG_PROC_CHILDREN`:
/// no file shows the descendant.
#[test]
fn descendants_that_proc_does_not_show_are_asked_and_counted() {
    if skip(not_root()) {
        return;
    }
    let dir = Dir::new();
    let program = dir.program(probe());
    let hidden = format!(
        "{} hostile session uid 65534 -- --name a",
        program.display()
    );
    let asked = format!("{hidden} --exit TERM:0");
    for (hidden, acts, grace, line) in [
        (&asked, "", "1h", "1 descendant left"),
        (&hidden, "", "300ms", "killed 1 descendant"),
        (&asked, "task", "1h", "1 descendant left"),
    ] {
        let script = format!("{hidden} & exec \"$PROBE\" hostile {acts} -- --name c --exit USR1:7");
        let mut bowout = with_proc(
            &["--hide"],
            &["--no-cap-ptrace"],
            grace,
            &["sh", "-c", &script],
        );
        all_ready(&mut bowout, &["a", "c"]);
        bowout.kill(USR1);
        assert_asked(&mut bowout, line);
    }
}

/// `exec > >(tee log); exec bowout ...` with such a /proc.
#[test]
fn a_descendant_that_proc_does_not_show_is_not_left_behind_for_an_inherited_child() {
    if skip(not_root()) {
        return;
    }
    let dir = Dir::new();
    let program = dir.program(probe());
    let script = format!(
        "\"$PROBE\" signals --name i --exit USR2:0 & exec \"$SHIM\" --grace 1h -- sh -c '{} hostile session uid 65534 -- \
         --name a --exit TERM:0 & exec \"$PROBE\" signals --name c --exit USR1:7'",
        program.display()
    );
    let mut bowout = in_mounts(&["--hide"], &["--no-cap-ptrace"], &["sh", "-c", &script]);
    let [inherited, ..] = ["i", "a", "c"].map(|name| bowout.ready_as(name));
    bowout.kill(USR1);
    assert_eq!(bowout.wait(), Status::Code(7));
    assert_eq!(bowout.left(), [inherited]);
    kill(inherited, USR2);
    assert_asked(&mut bowout, "1 descendant left");
}

/// The child mounts the directory in its own mount namespace or in bowout's. In the second case,
/// bowout has no usable /proc from then on.
#[test]
fn an_empty_directory_over_proc_saves_no_process() {
    if skip(not_root()) {
        return;
    }
    let cases = [
        ("mounts proc", TERM, Status::Signal(KILL)),
        ("proc", TERM, Status::Signal(KILL)),
        ("proc", USR1, Status::Code(7)),
    ];
    for (acts, end, status) in cases {
        let script = format!(
            "\"$PROBE\" hostile session -- --name a & \"$PROBE\" hostile session -- --name b & \
             exec \"$PROBE\" hostile {acts} -- --name c --exit USR1:7"
        );
        let mut bowout = with_proc(&[], &[], "300ms", &["sh", "-c", &script]);
        all_ready(&mut bowout, &["a", "b", "c"]);
        bowout.kill(end);
        assert_eq!(bowout.end(), status, "{acts}");
    }
}

/// bowout looks up the sender of the first SIGHUP while /proc is covered. When the second SIGHUP
/// comes back, that lookup is done. The descendant is a grandchild, because bowout finds its own
/// children without their files.
#[test]
fn an_empty_directory_that_was_over_proc_for_a_moment_hides_no_process_later() {
    if skip(not_root()) {
        return;
    }
    let script = "sh -c '\"$PROBE\" hostile session -- --name a --exit TERM:0; :' & \
                  exec \"$PROBE\" hostile proc echo HUP echo HUP uncover -- --name c --exit USR1:7";
    let mut bowout = with_proc(&[], &[], "1h", &["sh", "-c", script]);
    all_ready(&mut bowout, &["a", "c"]);
    bowout.kill(USR1);
    assert_asked(&mut bowout, "2 descendants left");
}

/// The child puts FIFOs without a writer, in bowout's mounts, in the place of files that bowout
/// reads. Opening such a FIFO blocks forever.
#[test]
fn a_mount_over_proc_neither_stalls_nor_misleads() {
    if skip(not_root()) {
        return;
    }
    // The shell and the process that it waits for: the second is not bowout's child, and is found
    // only by its files.
    let below = "sh -c '\"$PROBE\" hostile session -- --name a --exit TERM:0; :' &";
    let over_all = "mount -t tmpfs none /proc && mkdir /proc/thread-self && mkfifo /proc/thread-self/children && ln -s $PPID /proc/self && \
                    for pid in $all; do mkdir /proc/$pid && mkfifo /proc/$pid/stat || exit 1; done &&";
    let over_each = "mkfifo $DIR/fifo && for pid in $all; do mount --bind $DIR/fifo /proc/$pid/stat || exit 1; done &&";
    // bowout finds a hidden process when its parent has exited and bowout has adopted it.
    for (mount, line) in [
        (over_all, "2 descendants left ("),
        (over_each, ") that appeared during the stop"),
    ] {
        let dir = Dir::new();
        let script = format!(
            "{below} while [ -z \"$a\" ]; do a=$(cat /proc/$!/task/$!/children); done; all=\"$$ $! $a\"; DIR={}; \
             {mount} exec \"$PROBE\" signals --name c --exit USR1:7",
            dir.0.display()
        );
        let mut bowout = with_proc(&[], &[], "1h", &["sh", "-c", &script]);
        all_ready(&mut bowout, &["a", "c"]);
        // bowout looks up the sender of this signal.
        bowout.kill(libc::SIGHUP);
        bowout.out.find("SIGHUP", |line| line.starts_with("c 1 "));
        bowout.kill(USR1);
        assert_eq!(bowout.end(), Status::Code(7), "{mount}");
        assert!(
            bowout.log().iter().any(|said| said.contains(line)),
            "{mount}: {:#?}",
            bowout.log()
        );
    }
}

/// /proc was not mounted when bowout started.
#[test]
fn a_proc_that_is_mounted_later_is_found() {
    if skip(not_root()) {
        return;
    }
    let script = "sh -c '\"$PROBE\" hostile session -- --name a --exit TERM:0; :' & \
                  exec \"$PROBE\" hostile echo HUP uncover -- --name c --exit USR1:7";
    let mut bowout = with_proc(&["--no-proc"], &[], "1h", &["sh", "-c", script]);
    all_ready(&mut bowout, &["a", "c"]);
    bowout.kill(USR1);
    assert_asked(&mut bowout, "2 descendants left");
}

/// The same as after pthread_exit(3) in `main`: /proc shows the process as a zombie.
#[test]
fn a_descendant_whose_first_thread_has_ended_is_asked_and_counted_and_killed() {
    for home in homes() {
        for (grace, options, asked) in [
            ("1h", "--exit TERM:0", "1 descendant left"),
            ("3s", "", "killed 1 descendant"),
        ] {
            let script = format!(
                "\"$PROBE\" hostile thread -- --name t {options} & exec \"$PROBE\" signals --name c --exit USR1:7"
            );
            let mut bowout = Start::new(["--grace", grace]).at(home).sh(&script);
            all_ready(&mut bowout, &["t", "c"]);
            bowout.kill(USR1);
            assert_eq!(bowout.end(), Status::Code(7), "{home:?}");
            let seen = signals_of("t", &bowout.out.rest());
            assert_eq!(seen.first(), Some(&TERM), "{home:?}: {seen:?}");
            let log = bowout.log();
            assert!(
                log.iter().any(|line| line.contains(asked)),
                "{home:?}: {log:#?}"
            );
        }
    }
}

/// The gosu pattern, by a descendant: it does not delay the end, and the status shows the failure.
#[test]
fn a_descendant_that_may_not_be_signalled_is_named_and_delays_nothing() {
    if skip(not_root()) || skip(no_namespaces()) {
        return;
    }
    let dir = Dir::new();
    let program = dir.program(probe());
    for home in homes() {
        let script = format!(
            "{} hostile name hermit uid 65534 -- --name d & exec \"$PROBE\" signals --name c --exit TERM:7",
            program.display()
        );
        let start = Start::new(["--grace", "300ms"])
            .at(home)
            .with(["--no-cap-kill"]);
        let mut bowout = start.sh(&script);
        all_ready(&mut bowout, &["d", "c"]);
        let (status, took) = timed(|| {
            bowout.kill(TERM);
            bowout.wait()
        });
        assert_eq!(status, Status::Code(137), "{home:?}");
        assert!(took < SOON, "{took:?}");
        // The test does not read to the end of the pipe: without PID 1 the descendant runs on, and
        // holds it.
        bowout.err.find("the reason", |line| {
            line.contains("cannot kill 'hermit'") && line.contains("not permitted")
        });
    }
}

/// Each process forks its successor and exits, in its own session and under another name. The child
/// has exited long before.
#[test]
fn a_chain_of_processes_that_moves_all_the_time_does_not_survive_the_drain() {
    for home in homes() {
        let script = "\"$PROBE\" hostile chain & \"$PROBE\" hostile chain & exec \"$PROBE\" signals --exit USR1:7";
        let mut bowout = Start::new(["-q", "--grace", "100ms"]).at(home).sh(script);
        bowout.ready();
        bowout.kill(USR1);
        assert_eq!(bowout.end(), Status::Code(7), "{home:?}");
    }
}

/// Leaves its group, its session and its parent, as often as it can.
#[test]
fn an_orphan_in_its_own_session_does_not_survive_the_drain() {
    for home in homes() {
        let acts = [
            "session", "leave", "session", "leave", "session", "--", "--name", "o",
        ];
        let mut bowout = hostile(Start::new(["--grace", "300ms"]).at(home), &acts);
        assert_eq!(bowout.end(), Status::Code(0), "{home:?}");
    }
}
