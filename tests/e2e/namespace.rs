//! bowout's children are in another PID namespace than bowout, as with `unshare -p` and `nsenter
//! -p` without a fork. The first child is PID 1 there. Each child has one PID for bowout and
//! another for itself.

use std::os::unix::net::UnixDatagram;

use crate::common::{
    BOWOUT, Dir, NONE, Running, Start, Status, no_namespaces, notifier, probe, signals_of, skip,
    watchdog,
};

const TERM: i32 = libc::SIGTERM;

/// Starts bowout with these words in such a namespace.
fn start(words: &[&str]) -> Running {
    let probe = probe().to_str().expect("text");
    Start::direct().command([probe, "ns", "--no-fork", "--", BOWOUT].iter().chain(words))
}

#[test]
fn a_command_runs_and_is_stopped() {
    if skip(no_namespaces()) {
        return;
    }
    let probe = probe().to_str().expect("text");
    for mode in ["mixed", "group", "process"] {
        assert_eq!(
            start(&["-k", mode, "--", probe, "exit", "7"]).end(),
            Status::Code(7)
        );
        let mut bowout = start(&[
            "-k", mode, "--grace", "1h", "--", probe, "signals", "--exit", "TERM:9",
        ]);
        assert_eq!(bowout.ready(), 1);
        bowout.kill(libc::SIGUSR1);
        bowout.expect(libc::SIGUSR1);
        bowout.kill(TERM);
        assert_eq!(bowout.end(), Status::Code(9));
    }
}

#[test]
fn a_command_dies_with_bowout() {
    if skip(no_namespaces()) {
        return;
    }
    let probe = probe().to_str().expect("text");
    let mut bowout = start(&["--", probe, "signals"]);
    bowout.ready();
    bowout.kill(libc::SIGKILL);
    assert_eq!(bowout.wait(), Status::Signal(libc::SIGKILL));
    assert_eq!(signals_of("", &bowout.out.rest()), NONE);
}

#[test]
fn a_variable_that_names_bowout_names_the_child_by_its_own_number() {
    if skip(no_namespaces()) {
        return;
    }
    let probe = probe().to_str().expect("text");
    let set_up = ["named", "LISTEN_PID", "WATCHDOG_PID", "SYSTEMD_EXEC_PID"];
    let words = [
        "--",
        probe,
        "ns",
        "--no-fork",
        "--",
        BOWOUT,
        "--",
        probe,
        "names",
    ];
    let mut bowout = Start::direct().command([probe].iter().chain(&set_up).chain(&words));
    for name in &set_up[1..] {
        let wanted = format!("{name}=1");
        bowout.out.find(&wanted, |line| line == wanted);
    }
}

#[test]
fn a_hook_gets_the_childs_number_in_its_own_namespace() {
    if skip(no_namespaces()) {
        return;
    }
    let probe = probe().to_str().expect("text");
    let hook = "kill -USR1 $BOWOUT_CHILD_PID && echo hook $BOWOUT_CHILD_PID >&2";
    let words = [
        "--grace",
        "1h",
        "--pre-stop",
        hook,
        "--",
        probe,
        "signals",
        "--exit",
        "TERM:9",
    ];
    let mut bowout = start(&words);
    bowout.ready();
    bowout.kill(TERM);
    assert_eq!(bowout.end(), Status::Code(9));
    assert_eq!(signals_of("", &bowout.out.rest()), [libc::SIGUSR1, TERM]);
    assert!(
        bowout.log().contains(&"hook 1".to_owned()),
        "{:#?}",
        bowout.log()
    );
}

#[test]
fn an_sd_notify_message_of_the_child_is_passed_on() {
    if skip(no_namespaces()) {
        return;
    }
    let dir = Dir::new();
    let manager = UnixDatagram::bind(dir.file("manager")).expect("a socket");
    manager
        .set_read_timeout(Some(watchdog()))
        .expect("a time-out");
    let notifier = notifier().to_str().expect("text");
    let probe = probe().to_str().expect("text");
    let words = [
        probe,
        "ns",
        "--no-fork",
        "--",
        BOWOUT,
        "--",
        notifier,
        "send",
        "STATUS=here",
        "exit",
        "7",
    ];
    let mut bowout = Start::direct()
        .env("NOTIFY_SOCKET", dir.file("manager"))
        .command(words);
    let mut text = [0; 100];
    let length = manager.recv(&mut text).expect("a message");
    assert_eq!(&text[..length], b"STATUS=here");
    assert_eq!(bowout.end(), Status::Code(7));
}

/// The kernel sends SIGTRAP with the child's PID in its own namespace as the sender.
#[test]
fn a_traced_child_executes_another_program() {
    if skip(no_namespaces()) {
        return;
    }
    let probe = probe().to_str().expect("text");
    assert_eq!(
        start(&["--", probe, "traced", "exec", probe, "exit", "9"]).end(),
        Status::Code(9)
    );
}

/// No process can start there any more, and the kernel reports that as a lack of memory (ENOMEM).
#[test]
fn a_namespace_whose_first_process_has_exited_is_named() {
    if skip(no_namespaces()) {
        return;
    }
    let probe = probe().to_str().expect("text");
    let script = format!("\"$PROBE\" exit 0; exec {BOWOUT} -- \"$PROBE\" exit 7");
    let mut bowout = Start::direct().command([probe, "ns", "--no-fork", "--", "sh", "-c", &script]);
    assert_eq!(bowout.end(), Status::Code(125));
    let log = bowout.log();
    assert!(
        log.len() == 1 && log[0].contains("PID namespace") && log[0].contains("unshare --fork"),
        "{log:#?}"
    );
}
