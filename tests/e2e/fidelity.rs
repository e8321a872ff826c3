//! The command sees the world as if it had been executed directly.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use crate::common::{Dir, Home, Start, Status, homes};

/// What differs between two processes however they are started.
fn comparable(lines: Vec<String>) -> Vec<String> {
    let own = |line: &String| line.starts_with("id ") || line.starts_with("env E2E_RUN=");
    lines.into_iter().filter(|line| !own(line)).collect()
}

/// The view of a command, direct and under bowout, from this state.
fn assert_same(home: Home, setup: &[&str], words: &[&OsStr]) {
    let null = File::open("/dev/null").expect("/dev/null");
    let view = |start: Start| {
        let start = start.at(home).with(setup).inherit(&null).dir("/usr").env("TERM", "dumb");
        let start = start
            .env("RUST_LOG", "trace")
            .env(OsString::from_vec(b"\xffNAME".to_vec()), OsString::from_vec(b"\xfe\n".to_vec()));
        let all: Vec<&OsStr> = [OsStr::new("view")].into_iter().chain(words.iter().copied()).collect();
        let mut running = start.stderr(File::create("/dev/null").expect("/dev/null")).probe(all);
        let lines = running.out.rest();
        assert_eq!(running.end(), Status::Code(0), "{setup:?}");
        comparable(lines)
    };
    let direct = view(Start::direct());
    assert!(direct.iter().any(|line| line.starts_with("SigIgn")), "{direct:?}");
    assert_eq!(view(Start::new(["-q"])), direct, "{home:?} {setup:?}");
}

const STATES: [&[&str]; 9] = [
    &["--default", "PIPE"],
    &["--ignore", "PIPE"],
    &["--ignore", "HUP"],
    &["--ignore", "INT,QUIT"],
    &["--ignore", "CHLD"],
    &["--ignore", "TERM,USR1,32,33,34,64", "--default", "PIPE"],
    &["--block", "HUP,TERM,USR2,32,33,37,64"],
    &["--block", "CHLD,PIPE,INT", "--ignore", "20,21,22,USR2"],
    &["--umask", "63", "--nofile", "64"],
];

#[test]
fn a_command_inherits_what_bowout_was_given() {
    for home in homes() {
        for state in STATES {
            assert_same(home, state, &[]);
        }
    }
}

#[test]
fn closed_descriptors_stay_closed() {
    for closed in ["0", "1", "2", "0,2", "0,1,2"] {
        let dir = Dir::new();
        let view = |start: Start, to: &str| {
            let file = dir.file(to);
            let mut running =
                start.with(["--close", closed]).probe(["view".as_ref(), "--to".as_ref(), file.as_os_str()]);
            assert_eq!(running.end(), Status::Code(0), "{closed}");
            std::fs::read_to_string(file).expect("a view").lines().map(str::to_owned).collect()
        };
        let direct: Vec<String> = comparable(view(Start::direct(), "direct"));
        let below: Vec<String> = comparable(view(Start::new(["-v"]), "below"));
        assert_eq!(below, direct, "{closed}");
        assert!(!direct.iter().any(|line| line.starts_with(&format!("fd {} ", &closed[..1]))), "{direct:?}");
    }
}

#[test]
fn words_that_are_not_text_arrive_as_they_are() {
    let words: Vec<OsString> = [&b"\xff\xfe"[..], b"", b"--grace", b"a b", b"\n", b"--", b"-x\x80"]
        .iter()
        .map(|word| OsString::from_vec(word.to_vec()))
        .collect();
    let words: Vec<&OsStr> = words.iter().map(OsString::as_os_str).collect();
    for home in homes() {
        assert_same(home, &["--umask", "18"], &words);
    }
}

#[test]
fn a_command_whose_name_is_not_text_is_run() {
    let dir = Dir::new();
    let script = dir.file("x").with_file_name(OsStr::from_bytes(b"\xff\xfe"));
    std::fs::rename(dir.write("x", "#!/bin/sh\nexit 8\n", 0o755), &script).expect("renamed");
    assert_eq!(Start::plain().command([&script]).end(), Status::Code(8));
    let mut missing = Start::plain().command([OsStr::from_bytes(b"/nowhere/\xff")]);
    assert_eq!(missing.end(), Status::Code(127));
    assert_eq!(missing.log().len(), 1);
}

#[test]
fn bowouts_own_variables_reach_the_command() {
    let mut bowout =
        Start::plain().env("BOWOUT_GRACE", "5s").env("BOWOUT_LOG", "off").sh("echo $BOWOUT_GRACE $BOWOUT_LOG");
    assert_eq!(bowout.out.rest(), ["5s off"]);
    assert_eq!(bowout.end(), Status::Code(0));
}

#[test]
fn sigchld_ignored_on_entry_hangs_nothing() {
    for home in homes() {
        let mut bowout = Start::plain().at(home).with(["--ignore", "CHLD"]).probe(["exit", "7"]);
        assert_eq!(bowout.end(), Status::Code(7));
    }
}

#[test]
fn everything_blocked_or_ignored_on_entry_hangs_nothing() {
    let most: Vec<String> = (1..=64)
        .filter(|signal| ![libc::SIGKILL, libc::SIGSTOP].contains(signal))
        .map(|signal| signal.to_string())
        .collect();
    for home in homes() {
        for how in ["--block", "--ignore"] {
            let mut bowout = Start::new(["--grace", "1h"])
                .at(home)
                .with([how, &most.join(",")])
                .probe(["signals", "--exit", "TERM:7"]);
            bowout.ready();
            bowout.kill(libc::SIGUSR1);
            bowout.expect(libc::SIGUSR1);
            bowout.kill(libc::SIGTERM);
            assert_eq!(bowout.end(), Status::Code(7), "{home:?} {how}");
        }
    }
}

/// As timeout and nohup keep it.
#[test]
fn a_child_that_inherits_ignored_hup_survives_it() {
    let mut bowout = Start::new(["--grace", "0"])
        .with(["--ignore", "HUP"])
        .sh("echo ready 1; exec \"$PROBE\" with -- \"$PROBE\" idle");
    bowout.ready();
    bowout.ready();
    bowout.kill(libc::SIGHUP);
    bowout.kill(libc::SIGUSR1);
    assert_eq!(bowout.end(), Status::Signal(libc::SIGUSR1));
}

#[test]
fn without_a_terminal_the_child_has_its_own_group_and_bowouts_session() {
    let mut bowout = Start::plain().probe(["view"]);
    let lines = bowout.out.rest();
    let id = |name: &str| {
        let prefix = format!("id {name} ");
        lines.iter().find_map(|line| line.strip_prefix(&prefix)).expect("an id").to_owned()
    };
    assert_eq!(id("group"), id("pid"));
    assert_eq!(id("parent"), bowout.pid.to_string());
    assert_eq!(id("session"), bowout.pid.to_string());
}
