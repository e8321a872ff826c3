//! What words mean, and what they are told when they mean nothing.

#[path = "../../tests/fuzz/command_line.rs"]
mod fuzz;

use std::ffi::CString;

use super::*;

fn words(line: &[&str]) -> Vec<OsString> {
    ["bowout"].iter().chain(line).map(OsString::from).collect()
}

fn by_clap(line: &[&str]) -> Result<Cli, Stop> {
    let words = words(line);
    definition()
        .try_get_matches_from(words)
        .map(collect)
        .map_err(|error| explain(&error))
}

fn usage(line: &[&str]) -> String {
    match by_clap(line) {
        Err(Stop::Usage(text)) => text,
        other => panic!("{line:?}: {other:?}"),
    }
}

#[test]
fn the_definition_is_consistent() {
    definition().debug_assert();
}

#[test]
fn without_options_means_what_clap_says() {
    for line in [
        &["ls"][..],
        &["--", "ls"],
        &["ls", "-l", "--", "x"],
        &["--", "ls", "--"],
        &["--", "-x"],
        &["--", "--"],
        &["", "a"],
        &["--", ""],
        &["ls", "--grace", "1"],
    ] {
        let quick = without_options(&words(line), std::iter::empty());
        assert_eq!(quick, by_clap(line).ok(), "{line:?}");
        assert!(quick.is_some());
    }
    for line in [
        &[][..],
        &["--"],
        &["-v", "ls"],
        &["-"],
        &["--grace=1s", "ls"],
    ] {
        assert_eq!(
            without_options(&words(line), std::iter::empty()),
            None,
            "{line:?}"
        );
    }
    for set in [c"BOWOUT_GRACE=1s", c"BOWOUT_PRE_STOP=a="] {
        assert_eq!(
            without_options(&words(&["ls"]), [c"HOME=/", set].into_iter()),
            None
        );
    }
    // What begins with a digit may be a duration.
    assert_eq!(
        without_options(&words(&["7z", "a"]), std::iter::empty()),
        None
    );
    assert_eq!(
        parse(&words(&["7z", "a"]), std::iter::empty()),
        Ok(by_clap(&["7z", "a"]).unwrap())
    );
    for unset in [c"BOWOUT_GRACE=", c"BOWOUT_GRACE", c"xBOWOUT_GRACE=1s", c""] {
        assert!(without_options(&words(&["ls"]), [unset].into_iter()).is_some());
    }
    assert_eq!(without_options(&[], std::iter::empty()), None);
}

#[test]
fn every_option_that_takes_a_value_has_its_variable() {
    for arg in definition()
        .get_arguments()
        .filter(|arg| arg.get_long().is_some() && arg.get_action().takes_values())
    {
        let expected = format!(
            "BOWOUT_{}",
            arg.get_id().as_str().to_uppercase().replace('-', "_")
        );
        assert_eq!(arg.get_env(), Some(OsStr::new(&expected)));
    }
}

#[test]
fn options_end_at_the_first_word_that_is_none() {
    let cli = by_clap(&["-v", "-k", "group", "ls", "-v", "--", "--bogus"]).unwrap();
    assert_eq!(
        (cli.command, cli.args),
        (
            "ls".into(),
            ["-v", "--", "--bogus"].map(OsString::from).to_vec()
        )
    );
    assert!(cli.verbosity.typed);
    assert_eq!(
        (cli.verbosity.more, cli.kill_mode.map(|k| k.value)),
        (1, Some(KillMode::Group))
    );
}

#[test]
fn lists_and_repetitions_add_up() {
    let cli = by_clap(&[
        "-r",
        "TERM:QUIT,USR1:0",
        "-r",
        "HUP:INT",
        "-e",
        "143",
        "-e",
        "1:2",
        "--stop-on",
        "WINCH,rtmin+3",
        "x",
    ])
    .unwrap();
    assert_eq!(cli.remap.len(), 3);
    assert_eq!(
        cli.remap_exit,
        [("143"), ("1:2")].map(|t| t.parse().unwrap())
    );
    assert_eq!(
        cli.stop_on,
        Some(SignalSet::of(&[Signal::WINCH, Signal::new(37).unwrap()]))
    );
}

/// A user reads it once and types the next line: what is wrong, and what to write instead.
#[allow(clippy::too_many_lines, reason = "a table of cases")]
#[test]
fn a_usage_error_is_one_line_that_says_what_to_type() {
    for (line, says) in [
        (
            &["--gace", "5s", "x"][..],
            "unknown option '--gace': did you mean --grace?",
        ),
        (
            &["--gace=5s", "x"],
            "unknown option '--gace': did you mean --grace?",
        ),
        (
            &["--max-run", "5s", "x"],
            "unknown option '--max-run': did you mean --max-runtime?",
        ),
        (
            &["--signal", "INT", "x"],
            "unknown option '--signal': did you mean --stop-signal?",
        ),
        (
            &["--rewite", "1:2", "x"],
            "unknown option '--rewite': did you mean --rewrite?",
        ),
        (
            &["--kill-after", "5s", "x"],
            "unknown option '--kill-after': did you mean --grace?",
        ),
        (
            &["--bogus", "x"],
            "unknown option '--bogus': see 'bowout --help-all'",
        ),
        (&["-Z", "x"], "unknown option '-Z': see 'bowout --help'"),
        (
            &["--timeout", "5", "x"],
            "unknown option '--timeout': did you mean --max-runtime for the whole run, --grace for the stop?",
        ),
        (
            &["--json", "x"],
            "unknown option '--json': did you mean --log-format json?",
        ),
        (
            &["--log-level", "debug", "x"],
            "unknown option '--log-level': did you mean --verbose, --quiet or BOWOUT_LOG?",
        ),
        (
            &["--init", "x"],
            "unknown option '--init': leave it out, bowout always does an init's work",
        ),
        (
            &["-f", "x"],
            "unknown option '-f': leave it out, the command always keeps the terminal",
        ),
        (&["-l"], "unknown option '-l': did you mean --version?"),
        (
            &["-u", "app", "x"],
            "unknown option '-u': leave it out, and let the command change the user: bowout -- setpriv --reuid USER COMMAND",
        ),
        (
            &["-k", "5", "x"],
            "--kill-mode: '5' is none of process, mixed, group: did you mean --grace 5?",
        ),
        (
            &["-k", "1.5s", "x"],
            "--kill-mode: '1.5s' is none of process, mixed, group: did you mean --grace 1.5s?",
        ),
        (
            &["-9", "x"],
            "unknown option '-9': a signal is given as --stop-signal KILL, and no duration is negative",
        ),
        (
            &["-t", "1M", "x"],
            "--grace: '1M' is not a duration: did you mean 1m?",
        ),
        (
            &["--grace", "soon", "x"],
            "--grace: 'soon' is not a duration: write 10s, 1m30s, 500ms, 0 or never",
        ),
        (&["--grace"], "--grace has no value: write --grace DURATION"),
        (
            &["--grace", "1s", "-t", "2s", "x"],
            "--grace is given twice: give it once",
        ),
        (
            &["--max-runtime", "0", "x"],
            "--max-runtime: no command can run in no time: write never for no limit",
        ),
        (
            &["--stop-delay", "never", "x"],
            "--stop-delay: a stop that is delayed for ever is none: write less than --grace",
        ),
        (
            &["--report", "fd:x", "x"],
            "--report: 'x' is not a descriptor: write fd:3, or ./fd:x for a file",
        ),
        (
            &["-k", "groups", "x"],
            "--kill-mode: 'groups' is none of process, mixed, group: did you mean group?",
        ),
        (
            &["-k", "all", "x"],
            "--kill-mode: 'all' is none of process, mixed, group",
        ),
        (
            &["--log-format", "JSON", "x"],
            "--log-format: 'JSON' is none of auto, text, journal, json: did you mean json?",
        ),
        (
            &["-k"],
            "--kill-mode has no value: write --kill-mode MODE: one of process, mixed, group",
        ),
        (
            &["--wait-tree=yes", "x"],
            "--wait-tree takes no value: leave =yes out",
        ),
        (
            &["--stop-signal", "SIGTRM", "x"],
            "--stop-signal: unknown signal 'SIGTRM': did you mean SIGTERM?",
        ),
        (
            &["--stop-on", "INT,TREM", "x"],
            "--stop-on: unknown signal 'TREM': did you mean SIGTERM?",
        ),
        (
            &["--stop-on", "TERM,KILL", "x"],
            "--stop-on: SIGKILL cannot be caught by any process: leave it out",
        ),
        (
            &["--remap", "15", "x"],
            "--remap: '15' is not FROM:TO: write TERM:QUIT, or TERM:0 to drop TERM",
        ),
        (
            &["--escalate", "TERM/5s", "x"],
            "--escalate: bad ladder 'TERM/5s': it does not end with KILL: write TERM/5s/KILL",
        ),
        (
            &["-e", "256", "x"],
            "--remap-exit: '256' is not CODE or CODE:NEW: write numbers from 0 to 255, such as 143:0",
        ),
        (&["-g"], usage_error::NO_COMMAND),
        (&[], usage_error::NO_COMMAND),
        (&["--"], usage_error::NO_COMMAND),
    ] {
        assert_eq!(usage(line), says, "{line:?}");
        assert!(!says.contains('\n'));
    }
}

/// Words that clap reads without complaint.
#[test]
fn words_of_other_programs_are_no_command() {
    let parsed = |line: &[&str]| parse(&words(line), std::iter::empty());
    for (line, says) in [
        (
            &["-s", "TERM", "--", "x"][..],
            "-s takes no signal: did you mean --stop-signal TERM?",
        ),
        (
            &["-s", "SIGINT", "30", "x"],
            "-s takes no signal: did you mean --stop-signal SIGINT?",
        ),
        (
            &["-s", "9", "x"],
            "-s takes no signal: did you mean --stop-signal 9?",
        ),
        (
            &["30s", "x"],
            "'30s' is a duration and not a command: did you mean --max-runtime 30s?",
        ),
        (
            &["30", "x", "y"],
            "'30' is a duration and not a command: did you mean --max-runtime 30?",
        ),
        (
            &["--grace", "5", "0.5", "x"],
            "'0.5' is a duration and not a command: did you mean --max-runtime 0.5?",
        ),
        (
            &["1m30s"],
            "'1m30s' is a duration and not a command: did you mean --max-runtime 1m30s?",
        ),
    ] {
        assert_eq!(parsed(line), Err(Stop::Usage(says.into())), "{line:?}");
    }
    for (line, command) in [
        (&["-s", "kill", "1"][..], "kill"),
        (&["-s", "--", "TERM"], "TERM"),
        (&["-g", "TERM"], "TERM"),
        (&["7z", "x"], "7z"),
        (&["./30s"], "./30s"),
        (&["infinity", "x"], "infinity"),
        (&["never"], "never"),
    ] {
        assert_eq!(
            parsed(line).map(|cli| cli.command),
            Ok(command.into()),
            "{line:?}"
        );
    }
}

#[test]
fn a_misspelt_variable_is_named_with_the_one_that_was_meant() {
    let hints = |variables: &[&'static CStr]| misspelt(&definition(), variables.iter().copied());
    assert_eq!(
        hints(&[c"BOWOUT_GRCE=1s", c"HOME=/", c"BOWOUT_KILLMODE=group", c"BOWOUT_LGO=x", c"BOWOUT_Grace=1=2"]),
        Some(
            "ignored unknown variables: BOWOUT_GRCE (did you mean BOWOUT_GRACE?), BOWOUT_KILLMODE (did you mean \
             BOWOUT_KILL_MODE?), BOWOUT_LGO (did you mean BOWOUT_LOG?), BOWOUT_Grace (did you mean BOWOUT_GRACE?)"
                .into()
        )
    );
    // Known ones; other programs' ones, such as Kubernetes' of a Service 'bowout'; empty ones.
    let all = definition();
    let options = all
        .get_arguments()
        .filter_map(|arg| arg.get_env())
        .map(|name| name.to_str().unwrap());
    for name in options.chain(OTHER_VARIABLES) {
        let variable = CString::new(format!("{name}=x")).unwrap();
        assert_eq!(
            misspelt(&definition(), std::iter::once(&*variable)),
            None,
            "{name}"
        );
    }
    for other in [
        c"BOWOUT_PORT=tcp://10.0.0.1:80",
        c"BOWOUT_PORT_80_TCP=tcp://10.0.0.1:80",
        c"BOWOUT_SERVICE_HOST=10.0.0.1",
        c"BOWOUT_IMAGE=x",
        c"BOWOUT_GRCE=",
        c"BOWOUT_GRCE",
        c"BOWOUT_=x",
        c"XBOWOUT_GRCE=1",
    ] {
        assert_eq!(hints(&[other]), None, "{other:?}");
    }
}

#[test]
fn an_error_is_logged_in_the_format_that_was_given() {
    let format = |line: &[&str]| log_format(&words(line));
    assert_eq!(
        format(&["--gace", "--log-format", "json", "x"]),
        Format::Json
    );
    assert_eq!(
        format(&["--gace", "--log-format=journal", "x"]),
        Format::Journal
    );
    assert_eq!(
        format(&["--log-format", "text", "--log-format", "json"]),
        Format::Json
    );
    for line in [
        &[][..],
        &["--log-format"],
        &["--log-format", "xml"],
        &["--", "--log-format", "json"],
        &["--log-formats=json"],
    ] {
        assert_eq!(format(line), Format::Auto, "{line:?}");
    }
}

#[test]
fn bowout_alone_is_told_what_bowout_is() {
    assert_eq!(parse(&words(&[]), std::iter::empty()), Err(Stop::Alone));
    assert_eq!(
        parse(&words(&["-g"]), std::iter::empty()),
        Err(Stop::Usage(usage_error::NO_COMMAND.into()))
    );
    for line in Stop::alone(true).lines() {
        assert!(line.len() <= 80, "{line}");
    }
}

#[test]
fn help_is_one_screen_and_help_all_is_everything() {
    let help = |word| match by_clap(&[word]) {
        Err(Stop::Info(text)) => text,
        other => panic!("{other:?}"),
    };
    let (few, all) = (help("--help"), help("--help-all"));
    assert_eq!(help("-h"), few);
    assert!(
        few.lines().count() <= 24 && few.lines().all(|line| line.len() <= 80),
        "{few}"
    );
    for arg in definition()
        .get_arguments()
        .filter(|arg| arg.get_long().is_some())
    {
        let long = format!("--{}", arg.get_long().unwrap());
        assert!(all.contains(&long), "{long}");
        assert!(
            arg.get_env()
                .is_none_or(|env| all.contains(&format!("[env: {}]", env.display()))),
            "{long}"
        );
    }
}

#[test]
fn a_report_goes_to_a_file_or_a_descriptor() {
    let report = |word| by_clap(&["--report", word, "x"]).unwrap().report;
    for (word, fd) in [
        ("fd:7", 7),
        ("-", 1),
        ("/dev/stdout", 1),
        ("/dev/stderr", 2),
        ("/dev/fd/7", 7),
        ("/proc/self/fd/7", 7),
    ] {
        assert_eq!(report(word), Some(ReportTo::Descriptor(fd)), "{word}");
    }
    assert!(by_clap(&["--report", "/dev/fd/x", "x"]).is_err());
    assert_eq!(report("./fd:7"), Some(ReportTo::File("./fd:7".into())));
    let log = |word| by_clap(&[word, "x"]).unwrap().termination_log;
    assert_eq!(log("--termination-log"), Some(TERMINATION_LOG.into()));
    assert_eq!(log("--termination-log=f"), Some("f".into()));
}

#[test]
fn help_and_version_are_no_errors() {
    assert!(matches!(by_clap(&["--help"]), Err(Stop::Info(text)) if text.contains("--grace")));
    assert_eq!(
        by_clap(&["-V"]),
        Err(Stop::Info(format!(
            "bowout {}\n",
            env!("CARGO_PKG_VERSION")
        )))
    );
}
