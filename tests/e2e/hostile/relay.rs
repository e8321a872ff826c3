//! The relay of sd_notify messages: floods, forged senders, and messages that are too large.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use super::{KILL, TERM, USR1};
use crate::common::pty::kill;
use crate::common::{
    Dir, Home, Running, SOON, Start, Status, homes, no_strace, not_root, notifier, size, skip,
    timed, until,
};
use crate::notify::{Manager, dropped, ready, relay, say};

/// The messages stay in order, and a stop in the middle is handled.
#[test]
fn a_flood_of_messages_is_passed_on_whole_and_does_not_delay_a_stop() {
    let count = size(5_000, 100_000);
    for home in homes() {
        let manager = Manager::new();
        let script = format!(
            "\"$PROBE\" signals --name c --exit USR1:3 & exec {} say ready wait USR1 end flood {count} wait TERM end exit 4",
            notifier().display()
        );
        let mut bowout = manager.start(&["--grace", "1h"]).at(home).sh(&script);
        bowout.ready_as("c");
        ready(&mut bowout);
        bowout.kill(USR1);
        for n in 0..count {
            if n == count / 2 {
                bowout.kill(TERM);
                bowout
                    .err
                    .find("the request", |line| line.contains("received SIGTERM"));
            }
            let text = until("a message of the child's", || {
                Some(manager.hear().text()).filter(|text| !text.starts_with("STOPPING=1\n"))
            });
            assert_eq!(text, format!("STATUS={n}"));
        }
        bowout
            .out
            .find("all", |line| line == format!("sent {count}"));
        bowout
            .out
            .find("the request", |line| line == format!("got {TERM}"));
        let log = bowout.err.seen();
        assert_eq!(dropped(&log), 0, "{home:?}: {log:#?}");
    }
}

#[test]
fn a_flood_of_messages_that_are_refused_is_counted_to_the_last_and_does_not_delay_a_stop() {
    let count = size(5_000, 100_000);
    let manager = Manager::new();
    let words =
        format!("say ready | wait USR1 end | refused {count} | send STATUS=after | wait KILL end");
    let mut bowout = say(manager.start(&["--grace", "200ms"]), &words);
    ready(&mut bowout);
    bowout.kill(USR1);
    manager.hears("STATUS=after");
    bowout.kill(TERM);
    assert_eq!(bowout.end(), Status::Signal(KILL));
    assert_eq!(dropped(&bowout.log()), count);

    // A flood without an end.
    let words = "say ready | wait USR1 end | refused 1000000000";
    let mut bowout = say(manager.start(&["--grace", "200ms"]), words);
    ready(&mut bowout);
    bowout.kill(USR1);
    bowout
        .err
        .find("the flood", |line| line.contains("dropped"));
    bowout.kill(TERM);
    assert_eq!(bowout.end(), Status::Signal(KILL));
}

/// Root may send another process's credentials; bowout drops messages of a process that is not a
/// descendant.
#[test]
fn a_descendant_that_claims_another_pid_is_judged_by_that() {
    if skip(not_root()) {
        return;
    }
    let manager = Manager::new();
    let stranger = Start::direct().probe(["idle"]);
    let us = std::process::id();
    let words = format!(
        "forge {} STATUS=stranger | forge 1 STATUS=first | forge {us} STATUS=manager | send STATUS=mine | wait TERM end | \
         exit 0",
        stranger.pid
    );
    let mut bowout = say(manager.start(&[]), &words);
    manager.hears("STATUS=mine");
    bowout.kill(TERM);
    assert_eq!(bowout.end(), Status::Code(0));
    let log = bowout.log();
    assert_eq!(dropped(&log), 3, "{log:#?}");
    drop(stranger);
}

/// For another user, the kernel refuses even to send the message.
#[test]
fn a_stranger_cannot_say_that_it_is_the_child() {
    if skip(not_root()) {
        return;
    }
    let manager = Manager::new();
    fs::set_permissions(&manager.dir.0, Permissions::from_mode(0o755)).expect("permissions");
    let mut bowout = say(
        manager.start(&[]),
        "say ready | wait USR1 end | send STATUS=mine | wait TERM end | exit 0",
    );
    ready(&mut bowout);
    let (address, child) = (relay(&bowout), bowout.child_pid());
    let program = manager.dir.program(notifier());
    let line = [
        program.to_str().expect("text"),
        "uid",
        "65534",
        "forge",
        &child.to_string(),
        "STATUS=forged",
    ];
    let mut stranger = Start::direct().env("NOTIFY_SOCKET", &address).command(line);
    assert_eq!(stranger.end(), Status::Code(98));
    assert!(
        stranger
            .log()
            .iter()
            .any(|line| line.contains("not permitted"))
    );
    bowout.kill(USR1);
    manager.hears("STATUS=mine");
    bowout.kill(TERM);
    assert_eq!(bowout.end(), Status::Code(0));
}

/// A message as long as a datagram can be; an empty one; more descriptors than bowout may have
/// open.
#[test]
fn a_message_that_is_too_much_is_dropped_and_the_next_one_relayed() {
    for home in homes() {
        let manager = Manager::new();
        let words = "size 200000 | send  | carries 253 FDSTORE=1 | carries 253 \\0\\0 | carry 1 STATUS=few | send STATUS=next \
                     | wait TERM end | exit 0";
        let command = format!("ulimit -n 512; exec {} \"$@\"", notifier().display());
        // The limit is bowout's: the child raises its own.
        let start = manager.start(&[]).at(home).with(["--nofile", "64"]);
        let all: Vec<&str> = words.split(' ').filter(|word| *word != "|").collect();
        let mut bowout = start.command(["sh", "-c", &command, "sh"].iter().chain(&all));
        manager.hears("STATUS=few");
        manager.hears("STATUS=next");
        bowout.kill(TERM);
        assert_eq!(bowout.end(), Status::Code(0), "{home:?}");
        let log = bowout.log();
        assert_eq!(dropped(&log), 3, "{home:?}: {log:#?}");
    }
}

/// A process that keeps the relay's socket full only makes the child wait its turn.
#[test]
fn a_stranger_that_fills_the_relay_does_not_stop_the_childs_messages() {
    let manager = Manager::new();
    let mut bowout = say(
        manager.start(&[]),
        "say ready | wait USR1 end | flood 20 | wait TERM end | exit 0",
    );
    ready(&mut bowout);
    let address = relay(&bowout);
    let flood = "flood 1000000000";
    let stranger = say(Start::direct().env("NOTIFY_SOCKET", &address), flood);
    bowout
        .err
        .find("the flood", |line| line.contains("is not a descendant"));
    bowout.kill(USR1);
    for n in 0..20 {
        manager.hears(&format!("STATUS={n}"));
    }
    drop(stranger);
    bowout.kill(TERM);
    assert_eq!(bowout.end(), Status::Code(0));
}

/// Another user that owns the folder can put another object in the directory's place. bowout then
/// removes only its own socket.
#[test]
fn a_replacement_of_the_relays_directory_is_left_alone() {
    for home in homes() {
        let (manager, dir, victim) = (Manager::new(), Dir::new(), Dir::new());
        fs::set_permissions(&dir.0, Permissions::from_mode(0o777)).expect("permissions");
        let precious = victim.write("notify", "mine", 0o600);
        let start = manager.start(&[]).at(home).env("RUNTIME_DIRECTORY", &dir.0);
        let mut bowout = say(
            start,
            "say ready | wait USR1 end | send STATUS=here | exit 0",
        );
        ready(&mut bowout);
        let entry = || {
            fs::read_dir(&dir.0)
                .expect("a directory")
                .next()
                .expect("an entry")
                .expect("an entry")
                .path()
        };
        let (directory, elsewhere) = (entry(), dir.file("elsewhere"));
        fs::rename(&directory, &elsewhere).expect("renamed");
        std::os::unix::fs::symlink(&victim.0, &directory).expect("a link");
        bowout.kill(USR1);
        // The socket is not at its address.
        bowout
            .out
            .find("not sent", |line| line.starts_with("not sent"));
        assert_eq!(bowout.end(), Status::Code(0));
        assert_eq!(
            fs::read_to_string(&precious).expect("there"),
            "mine",
            "{home:?}"
        );
        assert_eq!(
            fs::read_dir(&elsewhere).expect("there").count(),
            0,
            "{home:?}: the socket is left"
        );
    }
}

/// Between bind(2) and a chmod(2), a process that may write to the folder could put a link there.
#[test]
fn the_relays_socket_has_its_permissions_from_the_start() {
    if skip(no_strace()) {
        return;
    }
    let (manager, dir) = (Manager::new(), Dir::new());
    let trace = dir.file("trace");
    let calls = "trace=?chmod,fchmod,fchmodat,?fchmodat2,bind,?mkdir,mkdirat";
    let line = [
        "-o",
        trace.to_str().expect("text"),
        "-e",
        calls,
        crate::common::BOWOUT,
        "--notify",
        "relay",
    ];
    let start = Start::new(line)
        .program("strace")
        .env("RUNTIME_DIRECTORY", &manager.dir.0);
    let mut bowout = start.command(["sh", "-c", "umask"]);
    assert_eq!(bowout.end(), Status::Code(0));
    let text = fs::read_to_string(&trace).expect("a trace");
    assert!(
        text.contains("/notify") && text.contains("0711") && !text.contains("chmod"),
        "{text}"
    );
    // The child's umask is unchanged.
    let mut direct = Start::direct().command(["sh", "-c", "umask"]);
    assert_eq!(bowout.out.rest(), direct.out.rest());
}

/// Sends messages while bowout is stopped. When bowout reads them, only the messages hold their
/// descriptors.
fn while_stopped(bowout: &mut Running, send: impl FnOnce(&mut Running)) {
    bowout.kill(libc::SIGSTOP);
    until("bowout is stopped", || {
        (bowout.state() == 'T').then_some(())
    });
    send(bowout);
    bowout.kill(libc::SIGCONT);
}

/// The descriptor is a socket that lingers, so that the test does not need a file system that
/// hangs.
#[test]
fn a_descriptor_whose_close_waits_for_an_hour_delays_no_stop() {
    for home in homes() {
        // From the child: in a message that is refused, and in one whose descriptors are not passed
        // on.
        for text in ["lingering 2 \\0\\0", "lingering 1 MAINPIDFD=1"] {
            let manager = Manager::new();
            let words = format!("say ready | wait USR1 end | {text} | say sent | wait KILL end");
            let mut bowout = say(manager.start(&["-v", "--grace", "300ms"]).at(home), &words);
            ready(&mut bowout);
            let child = bowout.child_pid();
            while_stopped(&mut bowout, |bowout| {
                kill(child, USR1);
                bowout.out.find("sent", |line| line == "sent");
                bowout.kill(TERM);
            });
            let (ended, took) = timed(|| bowout.end());
            let killed = if home == Home::Pid1 {
                Status::Code(137)
            } else {
                Status::Signal(KILL)
            };
            assert_eq!(ended, killed, "{home:?} {text}");
            assert!(took < SOON, "{home:?} {text}: {took:?}");
        }
        // From a stranger, in as many messages as the socket takes: the child's messages still
        // pass.
        let manager = Manager::new();
        let words =
            "say ready | wait USR1 end | barrier | send STATUS=after | wait TERM end | exit 3";
        let mut bowout = say(manager.start(&["-v"]).at(home), words);
        ready(&mut bowout);
        let address = relay(&bowout);
        let mut strangers = vec![];
        while_stopped(&mut bowout, |_| {
            let words = "lingering 253 READY=1 | ".repeat(5) + "say sent | wait TERM end | exit 0";
            let mut stranger = say(Start::direct().env("NOTIFY_SOCKET", &address), &words);
            stranger.out.find("sent", |line| line == "sent");
            strangers.push(stranger);
        });
        bowout.kill(USR1);
        drop(manager.hears("BARRIER=1"));
        manager.hears("STATUS=after");
        // More descriptors than bowout can close before its exit, and more messages than it reads.
        // The rest are closed with the socket.
        while_stopped(&mut bowout, |bowout| {
            let words = "lingering 253 READY=1 | ".repeat(5) + "say sent | wait TERM end | exit 0";
            let mut stranger = say(Start::direct().env("NOTIFY_SOCKET", &address), &words);
            stranger.out.find("sent", |line| line == "sent");
            strangers.push(stranger);
            bowout.kill(TERM);
        });
        let (ended, took) = timed(|| bowout.end());
        assert_eq!(ended, Status::Code(3), "{home:?}");
        assert!(took < SOON, "{home:?}: {took:?}");
        // The process that closes them counts neither as a descendant nor as an orphan.
        let log = bowout.log();
        assert!((6..=10).contains(&dropped(&log)), "{home:?}: {log:#?}");
        let counted = |line: &&String| {
            ["orphan", "killed", "left"]
                .iter()
                .any(|word| line.contains(word))
        };
        assert_eq!(log.iter().find(counted), None, "{home:?}");
    }
}
