//! What words mean, and what they are told when they mean nothing.

#[path = "../../tests/fuzz/command_line.rs"]
mod fuzz;

use super::*;

fn words(line: &[&str]) -> Vec<OsString> {
    ["bowout"].iter().chain(line).map(OsString::from).collect()
}

fn by_clap(line: &[&str]) -> Result<Cli, Stop> {
    let words = words(line);
    definition().try_get_matches_from(words).map(collect).map_err(|error| explain(&error))
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
    for line in [&[][..], &["--"], &["-v", "ls"], &["-"], &["--grace=1s", "ls"]] {
        assert_eq!(without_options(&words(line), std::iter::empty()), None, "{line:?}");
    }
    for set in [c"BOWOUT_GRACE=1s", c"BOWOUT_PRE_STOP=a="] {
        assert_eq!(without_options(&words(&["ls"]), [c"HOME=/", set].into_iter()), None);
    }
    for unset in [c"BOWOUT_GRACE=", c"BOWOUT_GRACE", c"xBOWOUT_GRACE=1s", c""] {
        assert!(without_options(&words(&["ls"]), [unset].into_iter()).is_some());
    }
    assert_eq!(without_options(&[], std::iter::empty()), None);
}

#[test]
fn every_option_that_takes_a_value_has_its_variable() {
    for arg in definition().get_arguments().filter(|arg| arg.get_long().is_some() && arg.get_action().takes_values()) {
        let expected = format!("BOWOUT_{}", arg.get_id().as_str().to_uppercase().replace('-', "_"));
        assert_eq!(arg.get_env(), Some(OsStr::new(&expected)));
    }
}

#[test]
fn options_end_at_the_first_word_that_is_none() {
    let cli = by_clap(&["-v", "-k", "group", "ls", "-v", "--", "--bogus"]).unwrap();
    assert_eq!((cli.command, cli.args), ("ls".into(), ["-v", "--", "--bogus"].map(OsString::from).to_vec()));
    assert!(cli.verbosity.typed);
    assert_eq!((cli.verbosity.more, cli.kill_mode.map(|k| k.value)), (1, Some(KillMode::Group)));
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
    assert_eq!(cli.remap_exit, [("143"), ("1:2")].map(|t| t.parse().unwrap()));
    assert_eq!(cli.stop_on, Some(SignalSet::of(&[Signal::WINCH, Signal::new(37).unwrap()])));
}

#[test]
fn a_usage_error_is_one_line_that_names_the_word_and_the_way_out() {
    for (line, says) in [
        (&["--bogus", "x"][..], "'--bogus'"),
        (&["--grace", "10", "x"], "write 10s"),
        (&["--grace"], "--grace <DURATION>"),
        (&["--max-runtime", "0", "x"], "write never"),
        (&["--stop-delay", "never", "x"], "for ever"),
        (&["--report", "fd:x", "x"], "fd:3"),
        (&["-k", "all", "x"], "process, mixed, group"),
        (&["--stop-on", "TERM,KILL", "x"], "SIGKILL cannot be caught"),
        (&["--remap", "15", "x"], "no FROM:TO"),
        (&["--escalate", "TERM/5s", "x"], "does not end with KILL"),
        (&["-e", "256", "x"], "143:0"),
        (&[], "no command given"),
        (&["--"], "no command given"),
    ] {
        let text = usage(line);
        assert!(text.contains(says) && text.contains("bowout --help") && !text.contains('\n'), "{line:?}: {text}");
    }
}

#[test]
fn a_report_goes_to_a_file_or_a_descriptor() {
    let report = |word| by_clap(&["--report", word, "x"]).unwrap().report;
    assert_eq!(report("fd:7"), Some(ReportTo::Descriptor(7)));
    assert_eq!(report("./fd:7"), Some(ReportTo::File("./fd:7".into())));
    let log = |word| by_clap(&[word, "x"]).unwrap().termination_log;
    assert_eq!(log("--termination-log"), Some(TERMINATION_LOG.into()));
    assert_eq!(log("--termination-log=f"), Some("f".into()));
}

#[test]
fn help_and_version_are_no_errors() {
    assert!(matches!(by_clap(&["--help"]), Err(Stop::Info(text)) if text.contains("BOWOUT_GRACE")));
    assert_eq!(by_clap(&["-V"]), Err(Stop::Info(format!("bowout {}\n", env!("CARGO_PKG_VERSION")))));
}
