//! The log: the effects of a hostile name on it, and of a child that changes its destination.

use std::io::{Read, pipe};
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;

use serde_json::Value;

use super::{KILL, TERM, USR1, hostile};
use crate::common::{Dir, Lines, SOON, Start, Status, homes, probe, timed};

/// A forged line of bowout, a cleared screen, a title, a line separator, and a text that runs
/// backwards; 15 bytes each, as long as process names are.
const NAMES: [&str; 4] = [
    "x\nbowout: ended",
    "x\r\u{1b}[2J\u{1b}]0;y\u{7}",
    "x\u{2028}<0>y\u{85}z",
    "x\u{202e}dellik\u{2066}y",
];

/// Returns true if the line has no character on which a terminal or a line reader acts.
fn is_plain(line: &str) -> bool {
    let acts = |c: char| {
        c.is_control()
            || ('\u{2028}'..='\u{202e}').contains(&c)
            || ('\u{2066}'..='\u{2069}').contains(&c)
    };
    !line.chars().any(acts)
}

#[test]
fn a_name_adds_no_line_and_no_escape_sequence_to_the_log() {
    for name in NAMES {
        for format in ["text", "journal", "json"] {
            let dir = Dir::new();
            let (program, report) = (dir.file(&format!("p{name}")), dir.file("r"));
            symlink(probe(), &program).expect("a link");
            let options = [
                "-vvv",
                "--grace",
                "50ms",
                "--log-format",
                format,
                "--report",
            ];
            let start = Start::new(
                options
                    .iter()
                    .map(AsRef::as_ref)
                    .chain([report.as_os_str()]),
            );
            let words = ["hostile", "name", name, "tell", "USR1", "tell", "TERM"];
            let mut bowout = start.command([program.to_str().expect("text")].iter().chain(&words));
            assert_eq!(bowout.end(), Status::Signal(KILL));
            let log = bowout.log();
            for line in &log {
                is_one_of_ours(line, format);
            }
            assert_eq!(
                log.iter()
                    .filter(|line| line.contains("received SIGTERM from pid"))
                    .count(),
                1,
                "{log:#?}"
            );
            // The report, which is for programs, has the name unchanged.
            let report = std::fs::read_to_string(&report).expect("a report");
            let object: Value = serde_json::from_str(&report).expect("an object");
            assert_eq!(
                (report.lines().count(), object["command"][0].as_str()),
                (1, program.to_str()),
                "{report}"
            );
        }
    }
}

fn is_one_of_ours(line: &str, format: &str) {
    assert!(is_plain(line), "{format}: {line:?}");
    match format {
        "text" => assert!(line.starts_with("bowout: "), "{line}"),
        "journal" => assert!(
            line.starts_with('<') && line[2..].starts_with(">bowout: "),
            "{line}"
        ),
        _ => {
            let object: Value = serde_json::from_str(line).expect("an object");
            assert!(
                is_plain(object["message"].as_str().expect("a message")),
                "{line}"
            );
        }
    }
}

#[test]
fn a_command_that_is_not_there_adds_no_line_by_its_name() {
    for name in NAMES {
        let mut bowout = Start::plain().command([format!("/no/{name}")]);
        assert_eq!(bowout.end(), Status::Code(127));
        let log = bowout.log();
        assert!(log.len() == 1 && is_plain(&log[0]), "{log:#?}");
    }
}

#[test]
fn a_stderr_that_the_child_has_filled_delays_nothing() {
    for home in homes() {
        let (read, write) = pipe().expect("a pipe");
        let start = Start::new(["-vvv", "--grace", "300ms"])
            .at(home)
            .stderr(OwnedFd::from(write));
        let mut bowout = hostile(start, &["fill", "2", "--"]);
        bowout.ready();
        let (status, took) = timed(|| {
            bowout.kill(TERM);
            bowout.end()
        });
        assert_eq!(status, bowout.died(KILL), "{home:?}");
        assert!(took < SOON, "{took:?}");
        drop(read);
    }
}

/// Each line that a process reads makes the kernel signal bowout, which forwards the signal and
/// logs that.
#[test]
fn a_log_that_answers_itself_for_ever_does_not_prevent_the_stop() {
    for home in homes() {
        for signal in ["USR1", "HUP", "29"] {
            let mut bowout = hostile(
                Start::new(["-v", "--grace", "300ms"]).at(home),
                &["async", signal, "tell", "USR2", "--"],
            );
            // A SIGHUP from the kernel is itself a stop request, and may kill the child before it
            // is ready.
            if signal != "HUP" {
                bowout.ready();
                bowout.kill(TERM);
            }
            assert_eq!(bowout.end(), bowout.died(KILL), "{home:?} {signal}");
        }
    }
}

/// A socket is shared whole: a process that shuts it down does so for every other process.
#[test]
fn a_stderr_that_the_child_has_shut_down_changes_nothing() {
    for home in homes() {
        let (mut read, write) = UnixStream::pair().expect("sockets");
        let start = Start::new(["-vvv", "--grace", "300ms"])
            .at(home)
            .stderr(OwnedFd::from(write));
        let mut bowout = hostile(start, &["shutdown", "2", "--"]);
        bowout.ready();
        bowout.kill(USR1);
        bowout.expect(USR1);
        bowout.kill(TERM);
        assert_eq!(bowout.end(), bowout.died(KILL), "{home:?}");
        let mut text = String::new();
        let _ = read.read_to_string(&mut text);
        assert!(!text.contains("SIGTERM"), "{text}");
    }
}

/// The child can open only bowout's /dev/null and the pipe of its log.
#[test]
fn descriptors_of_bowouts_that_the_child_opens_anew_are_of_no_use() {
    for home in homes() {
        let (read, write) = pipe().expect("a pipe");
        let start = Start::new(["--grace", "300ms", "--notify", "relay"])
            .at(home)
            .stderr(OwnedFd::from(write));
        let mut bowout = hostile(start, &["reopen", "--"]);
        bowout.ready();
        bowout.kill(USR1);
        // Until bowout has closed its stdout, the child can open that as well.
        assert_eq!(bowout.settle(), [USR1]);
        bowout.kill(TERM);
        assert_eq!(bowout.end(), bowout.died(KILL), "{home:?}");
        let log = Lines::of(read).rest();
        assert!(
            log.last()
                .is_some_and(|line| line.contains("was killed by SIGKILL")),
            "{log:#?}"
        );
    }
}
