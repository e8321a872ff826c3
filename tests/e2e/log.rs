//! The log reports the cause of the command's exit, its status, and its run time.

use std::os::fd::AsRawFd;

use crate::common::{Running, Start, Status, homes};

const TERM: i32 = libc::SIGTERM;

/// The log of a stop after a moment; the child exits with 3.
fn stopped(start: Start) -> Vec<String> {
    let mut bowout = start.probe(["signals", "--exit", "TERM:3"]);
    bowout.ready();
    bowout.kill(TERM);
    assert_eq!(bowout.end(), Status::Code(3));
    bowout.log()
}

#[test]
fn a_stop_is_logged_in_lines_that_begin_with_the_name() {
    for home in homes() {
        let log = stopped(Start::plain().at(home));
        assert!(
            log.iter().all(|line| line.starts_with("bowout: ")),
            "{log:#?}"
        );
        let [request, end] = &log[..] else {
            panic!("not request and end: {log:#?}")
        };
        assert!(request.contains("TERM"), "{request}");
        assert!(end.contains('3'), "{end}");
    }
}

#[test]
fn the_request_names_signal_sender_and_side() {
    let log = stopped(Start::plain());
    let me = std::process::id().to_string();
    for word in ["TERM", "manager", &me] {
        assert!(log[0].contains(word), "{word}: {}", log[0]);
    }
}

#[test]
fn the_last_line_names_what_ended_the_program_how_and_how_long_it_took() {
    let log = stopped(Start::plain());
    let me = std::process::id().to_string();
    let last = &log[1];
    for word in ["TERM", "manager", &me, "exited with 3"] {
        assert!(last.contains(word), "{word}: {last}");
    }
    let time = |word: &str| {
        word.trim_end_matches(|c: char| !c.is_alphanumeric())
            .ends_with('s')
            && word.starts_with(|c: char| c.is_ascii_digit())
    };
    assert!(last.split(' ').any(time), "no time: {last}");
}

#[test]
fn quiet_and_verbose_change_what_is_logged() {
    let lines = |options: &[&str]| stopped(Start::new(options)).len();
    assert_eq!(lines(&["-q"]), 0);
    assert_eq!(lines(&["-qq"]), 0);
    let (usual, verbose, more) = (lines(&[]), lines(&["-v"]), lines(&["-vv"]));
    assert!(
        0 < usual && usual < verbose && verbose < more,
        "{usual} {verbose} {more}"
    );
    // bowout logs its own failure at any level.
    let mut bowout = Start::new(["-qq"]).command(["no-such-command"]);
    assert_eq!(bowout.end(), Status::Code(127));
    assert_eq!(bowout.log().len(), 1);
}

#[test]
fn bowout_log_sets_the_level_and_rust_log_does_not() {
    let usual = stopped(Start::plain()).len();
    assert!(stopped(Start::plain().env("BOWOUT_LOG", "debug")).len() > usual);
    assert_eq!(stopped(Start::plain().env("BOWOUT_LOG", "off")).len(), 0);
    assert_eq!(
        stopped(Start::plain().env("RUST_LOG", "trace")).len(),
        usual
    );
    assert_eq!(stopped(Start::plain().env("RUST_LOG", "off")).len(), usual);
}

#[test]
fn json_is_one_object_a_line() {
    for level in ["-q", "-v", "-vv"] {
        let mut bowout = Start::new(["--log-format", "json", "--grace", "100ms", level])
            .sh("exec \"$PROBE\" signals '\"\n\u{1}\u{fffd}'x --x 2>/dev/null; exit 1");
        bowout.wait();
        let mut log = bowout.log();
        log.extend(stopped(Start::new(["--log-format", "json", level])));
        for line in &log {
            let value: serde_json::Value =
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            assert_eq!(value["logger"], "bowout", "{line}");
            assert!(
                value["event"]
                    .as_str()
                    .is_some_and(|event| !event.is_empty()),
                "{line}"
            );
            assert!(
                value["time"].is_string()
                    && value["level"].is_string()
                    && value["message"].is_string(),
                "{line}"
            );
        }
        assert_eq!(log.is_empty(), level == "-q", "{log:#?}");
    }
}

/// bowout's own events have fields as well: a reader does not have to parse sentences.
#[test]
fn json_has_the_fields_of_each_event() {
    let mut bowout = Start::new(["--log-format", "json", "-v", "--pre-stop", "exit 4"])
        .probe(["signals", "--exit", "TERM:0"]);
    bowout.ready();
    bowout.kill(TERM);
    assert_eq!(bowout.end(), Status::Code(0));
    let log: Vec<serde_json::Value> = bowout
        .log()
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let field = |event: &str, name: &str| {
        log.iter()
            .find(|line| line["event"] == event)
            .unwrap_or_else(|| panic!("no {event}: {log:#?}"))[name]
            .clone()
    };
    assert!(field("child_started", "child_pid").is_i64());
    assert_eq!(field("hook_started", "hook"), "exit 4");
    assert_eq!(
        field("hook_exited", "hook_pid"),
        field("hook_started", "hook_pid")
    );
    assert_eq!(field("hook_exited", "exit_code"), 4);
    assert!(field("hook_exited", "exit_signal").is_null());
}

/// The log on a stderr that does or does not match JOURNAL_STREAM: device and inode of the
/// descriptor.
fn journal(matching: bool, format: &[&str]) -> Vec<String> {
    let (read, write) = std::io::pipe().expect("a pipe");
    // SAFETY: the structure is valid for the call to fill.
    let (device, inode) = unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        assert_eq!(libc::fstat(write.as_raw_fd(), &raw mut stat), 0);
        (stat.st_dev, stat.st_ino)
    };
    let stream = format!("{device}:{}", if matching { inode } else { inode + 1 });
    let mut bowout: Running = Start::new(format)
        .env("JOURNAL_STREAM", stream)
        .stderr(write)
        .sh("kill -USR1 $$");
    assert_eq!(bowout.end(), Status::Signal(libc::SIGUSR1));
    crate::common::Lines::of(read).rest()
}

#[test]
fn lines_for_the_journal_carry_their_level() {
    let log = journal(true, &[]);
    assert!(
        !log.is_empty() && log.iter().all(|line| line.starts_with("<6>")),
        "{log:#?}"
    );
    let log = journal(false, &[]);
    assert!(
        !log.is_empty() && log.iter().all(|line| line.starts_with("bowout: ")),
        "{log:#?}"
    );
    let log = journal(true, &["--log-format", "text"]);
    assert!(
        !log.is_empty() && log.iter().all(|line| line.starts_with("bowout: ")),
        "{log:#?}"
    );
    let log = journal(false, &["--log-format", "journal"]);
    assert!(
        !log.is_empty() && log.iter().all(|line| line.starts_with("<6>")),
        "{log:#?}"
    );
}
