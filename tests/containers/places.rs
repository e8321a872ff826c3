//! Places with restrictions: a read-only root, another user, fewer capabilities, fewer system
//! calls.

use serde_json::{Value, json};

use crate::common::{field, skip};
use crate::engine::{BUSYBOX, no_containers};
use crate::runc::{Bundle, Container};
use crate::stop::{SLOW_GRANDCHILD, STUBBORN};

/// The stop, the drain and the end of the grace period, which must not depend on the place.
fn ends_well(place: &str, edit: impl Fn(&mut Value)) {
    let mut container = Bundle::script(&[], SLOW_GRANDCHILD).with(&edit).start();
    container.ready();
    container.place.kill("TERM");
    assert_eq!(container.end(), 143, "{place}");
    assert_eq!(
        container.place.file("finished").as_deref(),
        Some("done\n"),
        "{place}"
    );
    let script = "trap '' TERM; sleep 1000 & (sleep 1000 &); echo ready; wait";
    let mut container = Bundle::script(&["--grace", "500ms", "--report", "/report"], script)
        .with(&edit)
        .start();
    container.ready();
    container.place.kill("TERM");
    assert_eq!(container.end(), 137, "{place}");
    let report = container.place.report();
    let killed = report["stop"]["rungs"][1]["after_ms"]
        .as_u64()
        .expect("a number");
    assert!((500..8500).contains(&killed), "{place}: {report}");
    assert_eq!(report["descendants"]["killed"], 2, "{place}");
    println!("{place}: SIGKILL after {killed} of 500 ms");
}

#[test]
fn a_read_only_root_changes_nothing() {
    if skip(no_containers(&["runc"])) {
        return;
    }
    let read_only = |config: &mut Value| config["root"]["readonly"] = json!(true);
    let script = "echo x >/x; trap 'exit 4' TERM; sh -c 'echo ready; exec sleep 1000' & wait";
    let mut container = Bundle::script(&[], script).with(read_only).start();
    container.ready();
    container.place.kill("TERM");
    assert_eq!(container.end(), 4);
    let log = container.whole_log();
    // This shows that the root is really read-only.
    assert!(
        log.contains("can't create /x: Read-only file system"),
        "{log}"
    );
    // bowout finds out that a report can never be written before it starts the command.
    let mut container = Bundle::script(&["--report", "/report"], "echo started")
        .with(read_only)
        .start();
    assert_eq!(container.end(), 125);
    let log = container.whole_log();
    assert!(
        log.contains("cannot report to '/report': Read-only file system")
            && !log.contains("started"),
        "{log}"
    );
    let mut container = Bundle::script(&["--grace", "500ms"], STUBBORN)
        .with(read_only)
        .start();
    container.ready();
    container.place.kill("TERM");
    assert_eq!(container.end(), 137);
}

#[test]
fn any_user_will_do() {
    if skip(no_containers(&["runc"])) {
        return;
    }
    ends_well("uid 1000, no capabilities", |config| {
        config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
        config["process"]["capabilities"] = json!({});
    });
}

/// As gosu does it, root without CAP_KILL starts a command as another user, and then may not signal
/// it.
fn not_ours_to_kill(options: &[&str], command: &[&str]) -> Container {
    let words = [&["with", "--uid", "1000", "--"], command].concat();
    let capabilities = ["CAP_SETUID", "CAP_SETGID"];
    let bundle = Bundle::probe(options, &words).with(|config| {
        config["process"]["capabilities"] =
            json!({ "bounding": capabilities, "effective": capabilities, "permitted": capabilities });
    });
    let mut container = bundle.start();
    container.ready();
    assert_eq!(
        field(container.place.child(), "Uid").split('\t').next(),
        Some("1000")
    );
    container
}

#[test]
fn eperm_is_logged_and_the_timer_runs_on() {
    if skip(no_containers(&["runc"])) {
        return;
    }
    let options = ["--grace", "1s", "--report", "/report"];
    let mut container = not_ours_to_kill(
        &options,
        &[BUSYBOX, "sh", "-c", "echo ready; exec busybox sleep 1000"],
    );
    container.place.kill("TERM");
    assert_eq!(container.end(), 137);
    let log = container.whole_log();
    assert_eq!(
        log.matches("cannot send SIGTERM to '/probe'").count(),
        1,
        "{log}"
    );
    assert!(
        log.contains("Operation not permitted") && log.contains("; the grace period runs on"),
        "{log}"
    );
    assert_eq!(log.matches("cannot kill ").count(), 1, "{log}");
    // The child has executed another program: its present name is in the lines.
    assert!(log.contains(", now 'busybox')"), "{log}");
    let report = container.place.report();
    // bowout could not send it SIGKILL.
    assert_eq!(report["killed"], json!([]));
    let took = report["stop"]["took_ms"].as_u64().expect("a number");
    assert!((1000..9000).contains(&took), "{took}");
    println!("EPERM: 137 after {took} ms of a grace period of 1000 ms");
}

#[test]
fn a_command_that_may_not_be_signalled_ends_by_itself_in_its_grace_period() {
    if skip(no_containers(&["runc"])) {
        return;
    }
    let mut container = not_ours_to_kill(
        &["--grace", "1h"],
        &["/probe", "signals", "--exit", "USR1:7"],
    );
    container.place.kill("TERM");
    container.log("the grace period runs on");
    let child = container.place.child();
    // SAFETY: no pointers; an unreaped process of the test's container.
    assert_eq!(unsafe { libc::kill(child, libc::SIGUSR1) }, 0);
    assert_eq!(container.end(), 7);
}

const NEWER_CALLS: [&str; 6] = [
    "pidfd_open",
    "pidfd_send_signal",
    "clone3",
    "close_range",
    "pwritev2",
    "openat2",
];

fn refuse(config: &mut Value, calls: &[&str], action: &str, errno: i32) {
    let rule = if action == "SCMP_ACT_ERRNO" {
        json!({ "names": calls, "action": action, "errnoRet": errno })
    } else {
        json!({ "names": calls, "action": action })
    };
    config["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] });
}

#[test]
fn a_filter_that_refuses_the_newer_calls_changes_nothing() {
    if skip(no_containers(&["runc"])) {
        return;
    }
    for (name, errno) in [("EPERM", libc::EPERM), ("ENOSYS", libc::ENOSYS)] {
        ends_well(name, |config| {
            refuse(config, &NEWER_CALLS, "SCMP_ACT_ERRNO", errno);
        });
    }
}

/// Shows that the filter of the test above refuses something: with a filter that kills, a process
/// that makes the call dies.
#[test]
fn the_newer_calls_are_made_where_they_may_be() {
    if skip(no_containers(&["runc"])) {
        return;
    }
    for call in [
        "pidfd_open",
        "pidfd_send_signal",
        "close_range",
        "pwritev2",
        "openat2",
    ] {
        // It has a session of its own, so that a signal to the child's group does not reach it.
        let script = "trap '' TERM; (setsid sleep 1000 & wait) & echo ready; wait";
        let mut container = Bundle::script(&["--grace", "100ms"], script)
            .with(|config| refuse(config, &[call], "SCMP_ACT_KILL_PROCESS", 0))
            .start();
        container.out.next();
        // bowout may be dead by now.
        container.place.try_kill("TERM");
        assert_eq!(container.end(), 128 + libc::SIGSYS, "{call}");
    }
}
