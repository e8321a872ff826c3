//! The meanings of the words of a command line, and the errors for words without a meaning.

#[path = "../../tests/fuzz/command_line.rs"]
mod fuzz;

use std::ffi::CString;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use super::*;
use crate::config::{Config, ReportTo};
use crate::fuzz::Chance;
use crate::policy::KillMode;
use crate::signal::{Signal, SignalSet};

fn words(line: &[&str]) -> Vec<OsString> {
    ["bowout"].iter().chain(line).map(OsString::from).collect()
}

fn by_clap(line: &[&str]) -> Result<Draft, Stop> {
    let (words, name) = (words(line), OsStr::new("bowout"));
    Line::by_clap(&words, name)?.finish(&words, name, std::iter::empty())
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

/// The quick path reads these words, or leaves them to clap.
#[test]
fn words_that_are_spelt_out_need_no_clap() {
    let quick = |line: &[&str]| Line::spelt_out(&words(line)).is_some();
    for line in [
        &["ls"][..],
        &["--", "ls"],
        &["ls", "-l", "--", "x"],
        &["--", "-x"],
        &["--", "--"],
        &["", "a"],
        &["--", ""],
        &["7z", "a"],
        &["-v", "ls"],
        &["-vvgt1s", "-e", "143", "-e143:0", "ls"],
        &[
            "--grace=1s",
            "--wait-tree",
            "--rewrite",
            "USR1:0",
            "--",
            "ls",
        ],
        &["--termination-log", "ls"],
    ] {
        assert!(quick(line), "{line:?}");
    }
    for line in [
        &[][..],
        &["--"],
        &["-"],
        &["-", "ls"],
        &["--grace", "ls"],
        &["--grace", "-1", "ls"],
        &["--grace=", "ls"],
        &["--grac=1s", "ls"],
        &["-g", "-g", "ls"],
        &["-t1s", "--grace", "1s", "ls"],
        &["--wait-tree=yes", "ls"],
        &["--help", "ls"],
        &["-h"],
        &["-k", "groups", "ls"],
    ] {
        assert!(!quick(line), "{line:?}");
    }
}

/// Words for command lines; each has a meaning in some place.
const PIECES: [&str; 22] = [
    "--",
    "-",
    "",
    "ls",
    "1s",
    "5",
    "0.5",
    "never",
    "TERM",
    "QUIT,INT",
    "group",
    "json",
    "no",
    "yes",
    "TERM:0",
    "143:0",
    "TERM/1s/KILL",
    "fd:3",
    "auto",
    "kill",
    "=1s",
    "-1",
];

/// A random word: an option in one of its spellings, with a value or without, or another piece.
fn random_word(chance: &mut Chance) -> OsString {
    let option = random_option(chance);
    let value = match chance.below(3) {
        0 => *chance.one(&PIECES),
        _ => random_value(option, chance),
    };
    let mut word = match (chance.below(8), option.short) {
        (0, _) => value.to_owned(),
        (1, _) => format!("--{}={value}", option.long),
        (2, Some(short)) => format!("-{short}{value}"),
        (3, Some(short)) => format!("-v{short}"),
        (4 | 5, Some(short)) => format!("-{short}"),
        (6, _) => {
            let length = option.long.len() - chance.below(3);
            format!("--{}", &option.long[..length])
        }
        _ => format!("--{}", option.alias.unwrap_or(option.long)),
    }
    .into_bytes();
    match chance.below(40) {
        0 => word.push(0xff),
        1 => word.extend("é".bytes()),
        _ => {}
    }
    OsString::from_vec(word)
}

fn random_option(chance: &mut Chance) -> &'static Opt {
    let options: Vec<_> = OPTIONS.iter().collect();
    options[chance.below(options.len())]
}

/// A value that the option can have; at times, any other value.
fn random_value(option: &Opt, chance: &mut Chance) -> &'static str {
    let words = (option.words)();
    let fits = |value: &&&str| {
        !value.is_empty() && (option.set)(&mut Draft::default(), OsStr::new(value)).is_ok()
    };
    let fitting: Vec<_> = PIECES.iter().filter(fits).copied().chain(words).collect();
    match chance.below(20) {
        0 => PIECES[3 + chance.below(PIECES.len() - 3)],
        _ => fitting[chance.below(fitting.len())],
    }
}

/// Up to three variables, and at times one that is misspelt.
fn random_variables(chance: &mut Chance) -> Vec<CString> {
    let variable = |chance: &mut Chance| {
        let option = random_option(chance);
        let name = option.variable().unwrap_or("GRCE".into());
        let value = random_value(option, chance);
        CString::new(format!("BOWOUT_{name}={value}")).unwrap()
    };
    (0..chance.below(4)).map(|_| variable(chance)).collect()
}

/// The random sequence of this seed.
fn chance(seed: u64) -> Chance {
    Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// Sorts the origins: clap finds the options in the order of the table.
fn in_order(mut draft: Draft) -> Draft {
    draft.config.origins.sort_by_key(|origin| origin.option);
    draft
}

#[test]
fn where_the_quick_path_reads_a_line_clap_reads_the_same() {
    let name = OsStr::new("bowout");
    let mut read = 0;
    for seed in 1..=10_000 {
        let mut chance = chance(seed);
        let mut words = words(&[]);
        for _ in 0..=chance.below(5) {
            words.push(random_word(&mut chance));
        }
        words.push("ls".into());
        let variables = random_variables(&mut chance);
        let finish = |line: Line| {
            let variables = variables.iter().map(CString::as_c_str);
            line.finish(&words, name, variables).map(in_order)
        };
        if let Some(quick) = Line::spelt_out(&words) {
            read += 1;
            let clap = Line::by_clap(&words, name).and_then(finish);
            assert_eq!(finish(quick), clap, "seed {seed}: {words:?} {variables:?}");
        }
    }
    // About a fifth of the lines.
    assert!(read > 1500, "{read}");
}

/// The configuration of a whole line, or its error without the name of the option.
fn meaning(draft: Result<Draft, Stop>) -> Result<Config, String> {
    match draft {
        Ok(mut draft) => {
            let config = draft.check(|| Duration::from_secs(8)).cloned();
            let config = config.map_err(|error| error.to_string())?;
            Ok(Config {
                origins: vec![],
                ..config
            })
        }
        Err(Stop::Usage(text)) => Err(text.split_once(": ").unwrap().1.to_owned()),
        Err(stop) => panic!("{stop:?}"),
    }
}

#[test]
fn variables_together_mean_the_same_as_their_options() {
    let mut fit = 0;
    for seed in 1..=5_000 {
        let mut chance = chance(seed);
        let (mut typed, mut variables) = (words(&[]), vec![]);
        for _ in 0..=chance.below(4) {
            let option = random_option(&mut chance);
            let Some(name) = option.variable() else {
                continue;
            };
            let set = |variable: &CString| variable.to_bytes()[7..].starts_with(name.as_bytes());
            if variables.iter().any(set) {
                continue;
            }
            let value = if option.takes_value() {
                random_value(option, &mut chance)
            } else {
                "yes"
            };
            let attached = if option.takes_value() {
                format!("={value}")
            } else {
                String::new()
            };
            typed.push(format!("--{}{attached}", option.long).into());
            variables.push(CString::new(format!("BOWOUT_{name}={value}")).unwrap());
        }
        typed.push("ls".into());
        let set = variables.iter().map(CString::as_c_str);
        let set = meaning(parse(&words(&["ls"]), set));
        fit += u32::from(set.is_ok());
        assert_eq!(
            meaning(parse(&typed, std::iter::empty())),
            set,
            "seed {seed}: {typed:?}"
        );
    }
    // About four lines of five are valid.
    assert!((2000..4900).contains(&fit), "{fit}");
}

/// A variable means the same as its option with that value.
#[test]
fn a_variable_means_the_same_as_its_option() {
    for option in OPTIONS.iter().filter(|option| option.takes_value()) {
        let variable = format!("BOWOUT_{}", option.variable().unwrap());
        for value in PIECES.into_iter().filter(|value| !value.is_empty()) {
            let typed = [&format!("--{}={value}", option.long), "ls"].map(OsString::from);
            let typed = [&["bowout".into()], &typed[..]].concat();
            let typed = parse(&typed, std::iter::empty());
            let set = CString::new(format!("{variable}={value}")).unwrap();
            let set = parse(&words(&["ls"]), std::iter::once(&*set));
            match (typed, set) {
                (Ok(typed), Ok(set)) => {
                    let origins = set.config.origins.clone();
                    assert_eq!(origins[0].to_string(), variable);
                    let typed = Config {
                        origins,
                        ..typed.config
                    };
                    assert_eq!(typed, set.config, "{variable}={value}");
                }
                (Err(Stop::Usage(typed)), Err(Stop::Usage(set))) => assert_eq!(
                    typed.strip_prefix(&format!("--{}", option.long)),
                    set.strip_prefix(&variable)
                ),
                (typed, set) => panic!("{variable}={value}: {typed:?}, {set:?}"),
            }
        }
    }
    let parsed = |line: &[&str], variable: &CStr| parse(&words(line), std::iter::once(variable));
    let plain = by_clap(&["ls"]).unwrap();
    for unset in [c"BOWOUT_GRACE=", c"BOWOUT_GRACE", c"xBOWOUT_GRACE=1s", c""] {
        let draft = parsed(&["ls"], unset).unwrap();
        assert_eq!(draft.config, plain.config, "{unset:?}");
    }
    // A typed option wins, and -g has no variable.
    let typed = parsed(&["-t", "1s", "ls"], c"BOWOUT_GRACE=x").unwrap();
    assert_eq!(typed.grace, by_clap(&["-t", "1s", "ls"]).unwrap().grace);
    let group = parsed(&["ls"], c"BOWOUT_GROUP=1").unwrap();
    assert_eq!(group.source_of("group"), None);
    let quiet = parsed(&["-q", "ls"], c"BOWOUT_VERBOSE=2").unwrap();
    assert_eq!(quiet.verbosity.steps, -1);
}

#[test]
fn an_init_leaves_the_keys_to_its_command() {
    let keys_stop = |line: &[&str]| {
        let words: Vec<_> = line.iter().map(OsString::from).collect();
        let draft = parse(&words, std::iter::empty()).unwrap();
        draft.config.policy.keys_stop
    };
    assert!(keys_stop(&["/bin/bowout", "sh"]));
    for init in INITS {
        assert!(!keys_stop(&[&format!("/sbin/{init}"), "sh"]));
        assert!(keys_stop(&[init, "--stop-on", "INT", "sh"]));
    }
}

#[test]
fn options_end_at_the_first_word_that_is_none() {
    let draft = by_clap(&["-v", "-k", "group", "ls", "-v", "--", "--bogus"]).unwrap();
    assert_eq!(
        (draft.config.command, draft.config.args),
        (
            "ls".into(),
            ["-v", "--", "--bogus"].map(OsString::from).to_vec()
        )
    );
    assert!(draft.verbosity.typed);
    assert_eq!(
        (draft.verbosity.steps, draft.config.policy.kill_mode),
        (1, KillMode::Group)
    );
}

#[test]
fn lists_and_repetitions_add_up() {
    let draft = by_clap(&[
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
    assert_eq!(draft.config.policy.remap.0.len(), 3);
    assert_eq!(
        draft.config.exit_rules.recode,
        [("143"), ("1:2")].map(|t| t.parse().unwrap())
    );
    assert_eq!(
        draft.config.policy.stop_on,
        Some(SignalSet::of(&[Signal::WINCH, Signal::new(37).unwrap()]))
    );
}

/// The error names the fault and the correction: a user reads it once and types the next line.
#[allow(clippy::too_many_lines, reason = "a table of cases")]
#[test]
fn a_usage_error_is_one_line_with_the_correction() {
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
            "--kill-mode: '5' is not one of process, mixed, group: did you mean --grace 5?",
        ),
        (
            &["-k", "1.5s", "x"],
            "--kill-mode: '1.5s' is not one of process, mixed, group: did you mean --grace 1.5s?",
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
            "--stop-delay: the stop signal would never be sent: write less than --grace",
        ),
        (
            &["--report", "fd:x", "x"],
            "--report: 'x' is not a descriptor: write fd:3, or ./fd:x for a file",
        ),
        (
            &["-k", "groups", "x"],
            "--kill-mode: 'groups' is not one of process, mixed, group: did you mean group?",
        ),
        (
            &["-k", "all", "x"],
            "--kill-mode: 'all' is not one of process, mixed, group",
        ),
        (
            &["--log-format", "JSON", "x"],
            "--log-format: 'JSON' is not one of auto, text, journal, json: did you mean json?",
        ),
        (
            &["-k"],
            "--kill-mode has no value: write --kill-mode MODE: one of process, mixed, group",
        ),
        (
            &["--wait-tree=yes", "x"],
            "--wait-tree takes no value: leave =yes out",
        ),
        (&["--group=", "x"], "--group takes no value: leave = out"),
        (
            &["--grace=", "x"],
            "--grace has no value: write --grace DURATION",
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
        (&["--"], usage_error::NO_COMMAND),
    ] {
        assert_eq!(usage(line), says, "{line:?}");
        assert!(!says.contains('\n'));
    }
}

/// clap reads these words without an error.
#[test]
fn words_of_other_programs_are_not_the_command() {
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
            parsed(line).map(|draft| draft.config.command),
            Ok(command.into()),
            "{line:?}"
        );
    }
}

#[test]
fn a_misspelt_variable_is_named_with_the_one_that_was_meant() {
    let hints = |variables: &[&CStr]| {
        let draft = parse(&words(&["ls"]), variables.iter().copied()).unwrap();
        draft.misspelt.join(", ")
    };
    assert_eq!(
        hints(&[
            c"BOWOUT_GRCE=1s",
            c"HOME=/",
            c"BOWOUT_KILLMODE=group",
            c"BOWOUT_LGO=x",
            c"BOWOUT_Grace=1=2"
        ]),
        "BOWOUT_GRCE (did you mean BOWOUT_GRACE?), BOWOUT_KILLMODE (did you mean \
         BOWOUT_KILL_MODE?), BOWOUT_LGO (did you mean BOWOUT_LOG?), BOWOUT_Grace (did you mean BOWOUT_GRACE?)"
    );
    // Known variables; variables of other programs, such as those that Kubernetes sets for a
    // Service 'bowout'; empty variables.
    for name in usage_error::OTHER_VARIABLES {
        let variable = CString::new(format!("BOWOUT_{name}=x")).unwrap();
        assert_eq!(hints(&[&variable]), "", "{name}");
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
        assert_eq!(hints(&[other]), "", "{other:?}");
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
fn bowout_alone_prints_its_purpose_and_usage() {
    assert_eq!(parse(&words(&[]), std::iter::empty()), Err(Stop::Alone));
    assert_eq!(
        parse(&words(&["-g"]), std::iter::empty()),
        Err(Stop::Usage(usage_error::NO_COMMAND.into()))
    );
    for line in alone(true).lines() {
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
    for option in OPTIONS {
        let long = format!("--{}", option.long);
        assert!(all.contains(&long), "{long}");
        let env = option
            .variable()
            .map(|name| format!("[env: BOWOUT_{name}]"));
        assert!(env.is_none_or(|env| all.contains(&env)), "{long}");
    }
}

#[test]
fn a_report_goes_to_a_file_or_a_descriptor() {
    let report = |word| by_clap(&["--report", word, "x"]).unwrap().config.report;
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
    let log = |word| by_clap(&[word, "x"]).unwrap().config.termination_log;
    assert_eq!(
        log("--termination-log"),
        Some("/dev/termination-log".into())
    );
    assert_eq!(log("--termination-log=f"), Some("f".into()));
}

#[test]
fn help_and_version_are_not_errors() {
    assert!(matches!(by_clap(&["--help"]), Err(Stop::Info(text)) if text.contains("--grace")));
    assert_eq!(
        by_clap(&["-V"]),
        Err(Stop::Info(format!(
            "bowout {}\n",
            env!("CARGO_PKG_VERSION")
        )))
    );
}
