//! A container with a terminal, as with `-it`: bowout leads the session.

use crate::common::pty::{CTRL_C, CTRL_Z, kill, runs};
use crate::common::{Status, field, skip};
use crate::engine::no_containers;
use crate::runc::Bundle;

#[test]
fn ctrl_c_reaches_the_command_once() {
    if skip(no_containers(&["runc"])) {
        return;
    }
    let mut container = Bundle::probe(
        &[],
        &["terminal", "--catch", "INT,USR1,TERM", "--exit", "TERM:3"],
    )
    .start_on_terminal();
    container.pty.ready();
    // bowout is stopped meanwhile, so that a SIGINT from it would arrive after the terminal's, and
    // not merge with it.
    let bowout = container.place.pid();
    kill(bowout, libc::SIGSTOP);
    container.pty.state(bowout, 'T');
    container.pty.type_keys(CTRL_C);
    container.pty.got(libc::SIGINT);
    kill(bowout, libc::SIGCONT);
    // SIGUSR1 arrives after any signal that bowout would have forwarded.
    container.place.kill("USR1");
    container.pty.got(libc::SIGUSR1);
    assert_eq!(
        container.pty.screen().matches("got 2 ").count(),
        1,
        "{}",
        container.pty.screen()
    );
    // SIGTERM is from another side, and the first request of that side.
    container.place.kill("TERM");
    container.pty.got(libc::SIGTERM);
    assert_eq!(container.pty.wait(), Status::Code(3));
}

#[test]
fn ctrl_c_twice_kills() {
    if skip(no_containers(&["runc"])) {
        return;
    }
    let bundle = Bundle::script(
        &["--grace", "1h"],
        "trap '' INT; echo ready 2; exec sleep 1000",
    );
    let mut container = bundle.start_on_terminal();
    container.pty.ready();
    container.pty.type_keys(CTRL_C);
    container.pty.see("Ctrl-C again kills it at once");
    container.pty.type_keys(CTRL_C);
    assert_eq!(container.pty.wait(), Status::Code(137));
}

/// No process outside could continue it: there is no shell with an `fg`.
#[test]
fn ctrl_z_never_freezes_a_container() {
    if skip(no_containers(&["runc"])) {
        return;
    }
    for group in [&[][..], &["--foreground"]] {
        let words = [&["terminal", "--catch", "USR1,USR2"], group].concat();
        let mut container = Bundle::probe(&["-v"], &words).start_on_terminal();
        container.pty.ready();
        let (bowout, child) = (container.place.pid(), container.place.child());
        assert_eq!(
            field(child, "SigCgt").trim_start_matches('0'),
            "",
            "SIGTSTP acts on it"
        );
        for _ in 0..3 {
            container.pty.type_keys(CTRL_Z);
            container.pty.see("^Z");
            if !group.is_empty() {
                // The kernel has stopped the command, because its group is not orphaned.
                container
                    .pty
                    .see("no shell could continue it: sent SIGCONT");
            }
        }
        kill(child, libc::SIGUSR2);
        container.pty.got(libc::SIGUSR2);
        container.place.kill("USR1");
        container.pty.got(libc::SIGUSR1);
        assert!(runs(bowout) && runs(child));
        container.place.kill("TERM");
        assert_eq!(container.pty.wait(), Status::Code(143));
    }
}
