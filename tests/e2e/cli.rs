//! The command line: bad input gets one clear line and 125, and starts nothing.

use std::os::unix::fs::symlink;

use crate::common::pty::Shell;
use crate::common::{BOWOUT, Dir, NONE, NOTHING, Running, Start, Status, signals_of};

const TERM: i32 = libc::SIGTERM;

fn refused(mut bowout: Running, words: &[&str]) {
    assert_eq!(bowout.end(), Status::Code(125), "{words:?}");
    // The command would have written a line.
    assert_eq!(bowout.out.rest(), NOTHING, "{words:?}");
    let line = bowout.line();
    assert!(line.starts_with("bowout: "), "{line}");
    for word in words {
        assert!(line.contains(word), "{word} is not in: {line}");
    }
}

/// Options, and the parts that the error line must contain.
const BAD: [(&[&str], &[&str]); 36] = [
    (&["--no-such-option"], &["--no-such-option"]),
    (&["-Z"], &["-Z"]),
    (&["--grace", "10S"], &["10s"]),
    (&["-t", "5 min 3"], &["5 min 3"]),
    (&["--grace", "soon"], &["soon"]),
    (&["--grace", "-1s"], &["-1"]),
    (&["--grace", ""], &["grace"]),
    (&["--grace", "1s", "--grace"], &["grace"]),
    (&["--max-runtime", "0.0"], &["never"]),
    (&["--stop-signal", "NOPE"], &["NOPE"]),
    (&["--stop-signal", "65"], &["65"]),
    (&["--stop-signal", "0"], &["0"]),
    (&["--stop-signal", "RTMIN+31"], &["RTMIN+31"]),
    (&["--stop-signal", ""], &["stop-signal"]),
    (&["--stop-on", "TERM,NOPE"], &["NOPE"]),
    (&["--stop-on", "KILL"], &["KILL"]),
    (
        &["--stop-signal", "STOP"],
        &["no process can act on SIGSTOP"],
    ),
    (&["--ready", "fd:1"], &["write fd:3"]),
    (&["--escalate", "TERM/soon/KILL"], &["soon"]),
    (&["--escalate", "TERM/10S/KILL"], &["10s"]),
    (&["--escalate", "NOPE/1s/KILL"], &["NOPE"]),
    (&["--escalate", "TERM//KILL"], &["TERM//KILL"]),
    (&["--escalate", ""], &["escalate"]),
    (
        &["--escalate", "TERM/1s/KILL", "--grace", "1s"],
        &["--escalate", "--grace"],
    ),
    (
        &["--escalate", "TERM/1s/KILL", "--stop-signal", "INT"],
        &["--escalate", "--stop-signal"],
    ),
    (&["--on-repeat", "shrug"], &["shrug"]),
    (&["--kill-mode", "none"], &["none"]),
    (&["--remap", "TERM"], &["TERM"]),
    (&["--remap", "TERM:NOPE"], &["NOPE"]),
    (&["--remap", "KILL:TERM"], &["KILL"]),
    (&["--remap-exit", "256"], &["256"]),
    (&["--remap-exit", "1:x"], &["1:x"]),
    (&["--exit-status", "maybe"], &["maybe"]),
    (&["--parent-death-signal", "NOPE"], &["NOPE"]),
    (&["--log-format", "xml"], &["xml"]),
    (&["--wait-tree=yes"], &["wait-tree"]),
];

#[test]
fn bad_options_get_one_line_and_125() {
    for (options, words) in BAD {
        refused(Start::new(options).sh("echo started"), words);
    }
}

#[test]
fn a_missing_command_gets_one_line_and_125() {
    for options in [&[][..], &["--grace", "1s"], &["--"], &["-g", "--"]] {
        refused(
            Start::new(options).bare(NOTHING),
            &[
                "no command given: write bowout",
                "sleep 60",
                "bowout --help",
            ],
        );
    }
}

/// A user that types only the name wants to know its purpose; a log has one line for each event.
#[test]
fn bowout_alone_at_a_terminal_prints_its_purpose() {
    let mut shell = Shell::start();
    let (status, text) = shell.run("bowout");
    assert_eq!(status, 125);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[0],
        "bowout: no command given. bowout runs a command and makes sure it stops cleanly."
    );
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("    bowout -- sleep 1000 ")),
        "{text}"
    );
    assert_eq!(lines.last(), Some(&"See 'bowout --help'."));
    let (status, text) = shell.run("bowout 2>&1 | cat; (exit ${PIPESTATUS[0]})");
    assert_eq!((status, text.lines().count()), (125, 1), "{text}");
}

/// A value that is one typing error away is suggested; bowout does not guess and start the command.
#[test]
fn a_misspelt_option_gets_a_suggestion() {
    for (options, meant) in [
        (&["--gace", "5s"][..], "did you mean --grace?"),
        (&["--stop-signal", "SIGTRM"], "did you mean SIGTERM?"),
        (&["--stop-on", "trem"], "did you mean SIGTERM?"),
        (&["--remap", "HUPP:USR1"], "did you mean SIGHUP?"),
        (&["--escalate", "TERM/5s/KIL"], "did you mean SIGKILL?"),
        (
            &["--parent-death-signal", "sigkil"],
            "did you mean SIGKILL?",
        ),
        (&["--kill-mode", "groups"], "did you mean group?"),
        (&["--grace", "5S"], "did you mean 5s?"),
        (&["--max-runtime", "1M"], "did you mean 1m?"),
    ] {
        refused(Start::new(options).sh("echo started"), &[meant]);
    }
    let refused_by = |name: &str, value: &str| {
        refused(
            Start::plain().env(name, value).sh("echo started"),
            &[name, "did you mean"],
        );
    };
    refused_by("BOWOUT_STOP_SIGNAL", "SIGTRM");
    refused_by("BOWOUT_KILL_MODE", "groups");
    refused(
        Start::plain()
            .env("BOWOUT_WAIT_TREE", "maybe")
            .sh("echo started"),
        &["BOWOUT_WAIT_TREE", "write true or false"],
    );
}

/// The first attempts of users of timeout, tini, docker or a logger.
#[test]
fn words_of_other_programs_are_answered_with_the_option_that_does_it() {
    for (words, meant) in [
        (
            &["-s", "TERM", "--", "echo", "started"][..],
            "did you mean --stop-signal TERM?",
        ),
        (
            &["30s", "echo", "started"],
            "did you mean --max-runtime 30s?",
        ),
        (
            &["-k", "5", "30", "echo", "started"],
            "did you mean --grace 5?",
        ),
        (
            &["--timeout", "5", "echo", "started"],
            "did you mean --max-runtime for the whole run, --grace for the stop?",
        ),
        (
            &["--kill-after", "5", "echo", "started"],
            "did you mean --grace?",
        ),
        (
            &["--signal", "INT", "echo", "started"],
            "did you mean --stop-signal?",
        ),
        (
            &["--json", "echo", "started"],
            "did you mean --log-format json?",
        ),
        (&["--log-level=debug", "echo", "started"], "--verbose"),
        (&["--init", "echo", "started"], "leave it out"),
    ] {
        refused(Start::plain().bare(words), &[meant]);
    }
    // If there is a program of that name, it is the command.
    let dir = Dir::new();
    dir.write("30s", "#!/bin/sh\nexit 6\n", 0o755);
    let path = format!("{}:/usr/bin:/bin", dir.0.display());
    assert_eq!(
        Start::plain().env("PATH", path).bare(["30s", "x"]).end(),
        Status::Code(6)
    );
}

#[test]
fn misspelt_variables_are_one_warning() {
    let start = Start::plain()
        .env("BOWOUT_GRCE", "1s")
        .env("BOWOUT_STOPON", "HUP")
        .env("BOWOUT_CHILD_PID", "7");
    let mut bowout = start
        .env("BOWOUT_SERVICE_HOST", "10.0.0.1")
        .probe(["exit", "4"]);
    assert_eq!(bowout.end(), Status::Code(4));
    let log = bowout.log();
    let warnings: Vec<&String> = log.iter().filter(|line| line.contains("BOWOUT_")).collect();
    let [line] = warnings[..] else {
        panic!("not one line: {log:#?}")
    };
    for name in [
        "BOWOUT_GRCE (did you mean BOWOUT_GRACE?)",
        "BOWOUT_STOPON (did you mean BOWOUT_STOP_ON?)",
    ] {
        assert!(line.contains(name), "{line}");
    }
    assert!(
        !line.contains("CHILD_PID") && !line.contains("SERVICE"),
        "{line}"
    );
    let start = Start::new(["-qq"]).env("BOWOUT_GRCE", "1s");
    let mut bowout = start.probe(["exit", "4"]);
    assert_eq!((bowout.end(), bowout.log()), (Status::Code(4), vec![]));
}

#[test]
fn a_misspelt_level_is_refused() {
    for (value, meant) in [
        ("inof", "did you mean info?"),
        ("warning", "did you mean warn?"),
        ("2", "write error, warn"),
        ("a/b/c", "'a'"),
    ] {
        refused(
            Start::plain().env("BOWOUT_LOG", value).sh("echo started"),
            &["BOWOUT_LOG", meant],
        );
    }
    // An option on the command line wins over the variable.
    assert_eq!(
        Start::new(["-q"])
            .env("BOWOUT_LOG", "inof")
            .probe(["exit", "4"])
            .end(),
        Status::Code(4)
    );
}

#[test]
fn a_switch_can_be_set_by_any_word_for_yes() {
    let levels = |name: &str, value: &str| {
        let mut bowout = Start::plain().env(name, value).probe(["orphans", "1"]);
        assert_eq!(bowout.end(), Status::Code(0), "{name}={value}");
        bowout.log()
    };
    for (yes, no) in [("1", "0"), ("true", "false"), ("YES", "No"), ("on", "off")] {
        for name in ["BOWOUT_VERBOSE", "BOWOUT_WARN_ON_REAP"] {
            assert!(
                levels(name, yes)
                    .iter()
                    .any(|line| line.contains("reaped orphan")),
                "{name}={yes}"
            );
            assert!(
                !levels(name, no)
                    .iter()
                    .any(|line| line.contains("reaped orphan")),
                "{name}={no}"
            );
        }
        for (value, quiet) in [(yes, true), (no, false)] {
            let mut bowout = Start::plain()
                .env("BOWOUT_QUIET", value)
                .probe(["signals", "--exit", "TERM:3"]);
            bowout.ready();
            bowout.kill(TERM);
            assert_eq!(bowout.end(), Status::Code(3));
            assert_eq!(bowout.log().is_empty(), quiet, "BOWOUT_QUIET={value}");
        }
    }
}

#[test]
fn an_error_before_the_start_has_the_chosen_format() {
    let object = |mut bowout: Running, code: i32| {
        assert_eq!(bowout.end(), Status::Code(code));
        let line = bowout.line();
        let value: serde_json::Value =
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!(
            (&value["level"], &value["event"]),
            (&"error".into(), &"error".into()),
            "{line}"
        );
        assert_eq!(
            (&value["logger"], &value["exit_code"]),
            (&"bowout".into(), &code.into()),
            "{line}"
        );
    };
    let json = |start: Start| object(start.sh("echo started"), 125);
    json(Start::new(["--gace", "5s", "--log-format", "json"]));
    json(Start::new(["--log-format=json", "--grace", "soon"]));
    json(Start::new(["--grace", "soon"]).env("BOWOUT_LOG_FORMAT", "json"));
    json(Start::new(["--log-format", "json", "-g", "-c"]));
    json(Start::new(["--log-format", "json", "30s"]));
    let missing = Start::new(["--log-format", "json"]).command(["no such \"command\"\n"]);
    object(missing, 127);
    json(
        Start::plain()
            .env("BOWOUT_LOG_FORMAT", "json")
            .env("BOWOUT_LOG", "inof"),
    );
    json(Start::new(["--report", "fd:99"]).env("BOWOUT_LOG_FORMAT", "json"));
    let mut bowout = Start::new(["--grace", "soon"])
        .env("BOWOUT_LOG_FORMAT", "journal")
        .sh("echo started");
    assert_eq!(bowout.end(), Status::Code(125));
    assert!(
        bowout.log()[0].starts_with("<3>bowout: "),
        "{:?}",
        bowout.log()
    );
    // An option on the command line wins; an unknown format cannot be chosen.
    refused(
        Start::new(["--log-format", "text", "--gace"])
            .env("BOWOUT_LOG_FORMAT", "json")
            .sh("echo started"),
        &["--gace"],
    );
    refused(
        Start::new(["--log-format", "jsno"]).sh("echo started"),
        &["did you mean json?"],
    );
}

/// Each variable is read: with an invalid value, the error names it.
#[test]
fn bad_variables_get_one_line_and_125() {
    let names = [
        "GRACE",
        "ESCALATE",
        "STOP_SIGNAL",
        "STOP_ON",
        "ON_REPEAT",
        "MAX_RUNTIME",
        "KILL_MODE",
        "REMAP",
        "REMAP_EXIT",
        "EXIT_STATUS",
        "PARENT_DEATH_SIGNAL",
        "LOG_FORMAT",
    ];
    for name in names {
        let name = format!("BOWOUT_{name}");
        refused(
            Start::plain().env(&name, "nonsense/x").sh("echo started"),
            &[&name, "nonsense/x"],
        );
    }
    refused(
        Start::plain().env("BOWOUT_GRACE", "10S").sh("echo started"),
        &["BOWOUT_GRACE", "10s"],
    );
}

#[test]
fn variables_mean_what_options_mean() {
    let run = |name: &str, value: &str, sent: i32| {
        let mut bowout = Start::plain()
            .env(name, value)
            .probe(["signals", "--exit", "USR2:6"]);
        bowout.ready();
        bowout.kill(sent);
        let signals = signals_of("", &bowout.out.rest());
        (signals.first().copied(), bowout.end())
    };
    let killed = Status::Signal(libc::SIGKILL);
    assert_eq!(run("BOWOUT_GRACE", "0", TERM).1, killed);
    assert_eq!(run("BOWOUT_GRACE", "100ms", TERM).1, killed);
    assert_eq!(run("BOWOUT_GRACE", "0.1", TERM).1, killed);
    assert_eq!(
        run("BOWOUT_ESCALATE", "USR2/3600/KILL", TERM),
        (Some(libc::SIGUSR2), Status::Code(6))
    );
    assert_eq!(
        run("BOWOUT_ESCALATE", "USR2/1h/KILL", TERM),
        (Some(libc::SIGUSR2), Status::Code(6))
    );
    for wait in ["100ms", "0.1"] {
        assert_eq!(
            Start::plain()
                .env("BOWOUT_MAX_RUNTIME", wait)
                .probe(["idle"])
                .end(),
            Status::Code(124)
        );
    }
    assert_eq!(
        Start::plain()
            .env("BOWOUT_REMAP_EXIT", "3:4")
            .probe(["exit", "3"])
            .end(),
        Status::Code(4)
    );
    assert_eq!(
        Start::plain()
            .env("BOWOUT_EXIT_STATUS", "code")
            .probe(["die", "15"])
            .end(),
        Status::Code(143)
    );

    let start = |options: &[&str], name: &str, value: &str| {
        let mut bowout = Start::new(options).env(name, value).probe(["signals"]);
        bowout.ready();
        bowout
    };
    let mut bowout = start(&["-t", "never"], "BOWOUT_STOP_SIGNAL", "QUIT");
    bowout.kill(TERM);
    bowout.expect(libc::SIGQUIT);
    let mut bowout = start(&["-t", "0"], "BOWOUT_STOP_ON", "USR1");
    bowout.kill(TERM);
    bowout.expect(TERM);
    bowout.kill(libc::SIGUSR1);
    assert_eq!(bowout.end(), killed);
    let mut bowout = start(&["-t", "never"], "BOWOUT_ON_REPEAT", "ignore");
    bowout.kill(TERM);
    bowout.settle();
    bowout.kill(TERM);
    assert_eq!(bowout.settle(), NONE);
    let mut bowout = start(&[], "BOWOUT_REMAP", "USR1:USR2");
    bowout.kill(libc::SIGUSR1);
    bowout.expect(libc::SIGUSR2);
}

#[test]
fn a_kill_mode_and_a_tree_can_be_chosen_by_variable() {
    let script = "\"$PROBE\" signals --name d --exit USR1:0 & exec \"$PROBE\" signals --name c --exit TERM:5";
    let mut bowout = Start::plain().env("BOWOUT_KILL_MODE", "process").sh(script);
    bowout.ready_as("c");
    let descendant = bowout.ready_as("d");
    bowout.kill(TERM);
    assert_eq!(bowout.wait(), Status::Code(5));
    // SAFETY: a descendant of this process, which adopted it.
    unsafe { libc::kill(descendant, libc::SIGUSR1) };
    assert_eq!(signals_of("d", &bowout.out.rest()), [libc::SIGUSR1]);

    let mut bowout = Start::plain()
        .env("BOWOUT_WAIT_TREE", "true")
        .sh("\"$PROBE\" signals --name d --exit USR1:0 & exit 3");
    let descendant = bowout.ready_as("d");
    // SAFETY: a descendant of this process, alive until it has this signal.
    unsafe { libc::kill(descendant, libc::SIGUSR1) };
    assert_eq!(signals_of("d", &bowout.out.rest()), [libc::SIGUSR1]);
    assert_eq!(bowout.end(), Status::Code(3));
}

#[test]
fn the_command_line_wins_over_a_variable() {
    let mut bowout = Start::new(["-e", "3:5"])
        .env("BOWOUT_REMAP_EXIT", "3:4")
        .probe(["exit", "3"]);
    assert_eq!(bowout.end(), Status::Code(5));
    let mut bowout = Start::new(["--exit-status", "auto"])
        .env("BOWOUT_EXIT_STATUS", "code")
        .probe(["die", "15"]);
    assert_eq!(bowout.end(), Status::Signal(TERM));
    let mut bowout = Start::new(["--grace", "0"])
        .env("BOWOUT_GRACE", "never")
        .probe(["signals"]);
    bowout.ready();
    bowout.kill(TERM);
    assert_eq!(bowout.end(), Status::Signal(libc::SIGKILL));
}

#[test]
fn options_end_at_the_first_word_that_is_none() {
    let probe = crate::common::probe().to_str().expect("text");
    for words in [
        &["sh", "-c", "echo \"$1\"; exit 3", "sh", "--grace"][..],
        &["--", "sh", "-c", "echo \"$1\"; exit 3", "sh", "--grace"],
    ] {
        let mut bowout = Start::new(["-q"]).bare(words);
        assert_eq!(bowout.out.rest(), ["--grace"]);
        assert_eq!(bowout.end(), Status::Code(3));
    }
    assert_eq!(
        Start::plain().bare([probe, "exit", "4"]).end(),
        Status::Code(4),
        "no option at all"
    );
    assert_eq!(
        Start::new(["--grace=1s"]).bare([probe, "exit", "4"]).end(),
        Status::Code(4)
    );
    assert_eq!(
        Start::new(["-t1s"]).bare([probe, "exit", "4"]).end(),
        Status::Code(4)
    );
}

#[test]
fn the_letters_of_tini_and_dumb_init_are_accepted() {
    let all: [&[&str]; 12] = [
        &["-s"],
        &["--subreaper"],
        &["-w"],
        &["--warn-on-reap"],
        &["-g"],
        &["-c"],
        &["-v"],
        &["-vvv"],
        &["-p", "SIGTERM"],
        &["-e", "143"],
        &["-r", "15:3"],
        &["-sgw", "-q"],
    ];
    for options in all {
        assert_eq!(
            Start::new(options).probe(["exit", "9"]).end(),
            Status::Code(9),
            "{options:?}"
        );
    }
}

#[test]
fn warn_on_reap_logs_an_orphan() {
    for (options, told) in [(&["-w"][..], true), (&[], false)] {
        let mut bowout = Start::new(options).probe(["orphans", "1"]);
        assert_eq!(bowout.end(), Status::Code(0));
        assert_eq!(
            bowout.log().iter().any(|line| line.contains("reap")),
            told,
            "{options:?}: {:#?}",
            bowout.log()
        );
    }
}

#[test]
fn help_and_version_are_printed_on_stdout() {
    for option in ["-h", "--help", "--help-all"] {
        let mut bowout = Start::new([option]).bare(NOTHING);
        let help = bowout.out.rest().join("\n");
        assert!(
            help.contains("bowout [OPTIONS]") && help.contains("--grace"),
            "{help}"
        );
        assert_eq!(bowout.end(), Status::Code(0));
        assert_eq!(bowout.log(), NOTHING);
    }
    for option in ["-V", "--version"] {
        let mut bowout = Start::new([option]).bare(NOTHING);
        assert_eq!(
            bowout.out.rest(),
            [concat!("bowout ", env!("CARGO_PKG_VERSION"))]
        );
        assert_eq!(bowout.end(), Status::Code(0));
    }
}

/// dockerd takes the version of its init from this line.
#[test]
fn as_docker_init_the_version_is_printed_as_tini_does() {
    let dir = Dir::new();
    let init = dir.file("docker-init");
    symlink(BOWOUT, &init).expect("a link");
    let mut bowout = Start::new(["--version"]).program(&init).bare(NOTHING);
    let lines = bowout.out.rest();
    assert!(
        lines[0].starts_with("tini version ") && lines[0].contains(" - git."),
        "{lines:?}"
    );
    assert_eq!(bowout.end(), Status::Code(0));
    let mut bowout = Start::plain().program(&init).probe(["exit", "5"]);
    assert_eq!(bowout.end(), Status::Code(5));
}
