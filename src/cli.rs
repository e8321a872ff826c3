//! The command line: exactly what was typed, or came from a `BOWOUT_…` variable. Checks words one by one; what they mean
//! together is `config`'s. Does nothing but read.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::{BoolishValueParser, OsStringValueParser, PossibleValuesParser, TypedValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::exit::{Mirror, Recode};
use crate::logging::{Format, Verbosity};
use crate::policy::{KillMode, Ladder, OnRepeat, parse_wait};
use crate::signal::{Rewrite, Signal, SignalSet, catchable};

/// The names of those that bowout can be installed in the place of. Whoever uses them at a terminal means the command by Ctrl-C.
const INITS: [&str; 5] = ["docker-init", "podman-init", "tini", "dumb-init", "catatonit"];

/// What dockerd parses of its init for `docker info` (contract C13).
const DOCKER_VERSION: &str = concat!("tini version ", env!("CARGO_PKG_VERSION"), " - git.bowout\n");

/// The grace period without `--grace`: below docker's and podman's 10 s, so that the last line is written (contract C4).
pub(crate) const GRACE: &str = "8s";

/// A value and whether it was typed or came from the environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Given<T> {
    pub(crate) value: T,
    /// Typed; the environment gives way to it.
    pub(crate) typed: bool,
}

/// What is done for a command that speaks to a service manager, or for a manager whose service does not (sd_notify(3)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Notify {
    /// A relay where there is a NOTIFY_SOCKET.
    #[default]
    Auto,
    /// As auto; and bowout itself says that the service is ready when the command is being run.
    Exec,
    /// A relay, even if there is nobody to pass anything on to: the command can ask for more time.
    Relay,
    /// Nothing: the command finds NOTIFY_SOCKET as bowout did.
    Off,
}

/// Where `--report` is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReportTo {
    File(PathBuf),
    /// `fd:N`.
    Descriptor(i32),
}

/// Where Kubernetes looks for a message by default.
const TERMINATION_LOG: &str = "/dev/termination-log";

/// A duration or `never`; a type of its own, for clap takes an `Option` to be an option that was not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wait(pub(crate) Option<Duration>);

/// What the user said. `None` and empty are "nothing said".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cli {
    pub(crate) command: OsString,
    pub(crate) args: Vec<OsString>,
    /// Called by the name of an init that stands in front of shells and REPLs ([`INITS`]).
    pub(crate) as_init: bool,
    pub(crate) grace: Option<Given<Option<Duration>>>,
    pub(crate) escalate: Option<Given<Ladder>>,
    pub(crate) stop_signal: Option<Given<Signal>>,
    pub(crate) stop_on: Option<SignalSet>,
    pub(crate) on_repeat: OnRepeat,
    pub(crate) grace_max: Option<Wait>,
    pub(crate) stop_delay: Duration,
    pub(crate) pre_stop: Vec<OsString>,
    pub(crate) max_runtime: Option<Duration>,
    pub(crate) kill_mode: Option<Given<KillMode>>,
    /// `-g`.
    pub(crate) group: bool,
    /// `-c`.
    pub(crate) single_child: bool,
    pub(crate) wait_tree: bool,
    pub(crate) remap: Vec<Rewrite>,
    pub(crate) remap_exit: Vec<Recode>,
    pub(crate) exit_status: Mirror,
    pub(crate) parent_death_signal: Option<Signal>,
    pub(crate) warn_on_reap: bool,
    pub(crate) notify: Notify,
    pub(crate) report: Option<ReportTo>,
    pub(crate) termination_log: Option<PathBuf>,
    pub(crate) verbosity: Verbosity,
    pub(crate) log_format: Format,
}

/// Why there is nothing to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Help or the version was asked for; this is it.
    Info(String),
    /// One line that says what is wrong.
    Usage(String),
}

/// Reads the words behind the program's name, and the environment.
///
/// # Errors
/// [`Stop`]: there is nothing to run.
pub(crate) fn parse(args: &[OsString]) -> Result<Cli, Stop> {
    let name = args.first().map(Path::new).and_then(Path::file_name);
    let as_init = name.is_some_and(|name| INITS.iter().any(|init| *init == name));
    if let Some(cli) = without_options(args, std::env::vars_os()) {
        return Ok(Cli { as_init, ..cli });
    }
    // Templates of compose files and pods make empty variables where they mean none.
    let definition = definition().mut_args(|arg| match arg.get_env().and_then(std::env::var_os) {
        Some(value) if value.is_empty() => arg.env(None::<&str>),
        _ => arg,
    });
    let matches = definition.try_get_matches_from(args).map_err(|error| match error.kind() {
        ErrorKind::DisplayVersion if name == Some(OsStr::new(INITS[0])) => Stop::Info(DOCKER_VERSION.into()),
        _ => explain(&error),
    })?;
    Ok(Cli { as_init, ..collect(matches) })
}

/// The usual call, `bowout [--] COMMAND [ARG]...`, without clap: it would cost a tenth of the start-up to find that nothing was
/// said. `None` is for clap to judge.
fn without_options(args: &[OsString], mut env: impl Iterator<Item = (OsString, OsString)>) -> Option<Cli> {
    let (command, rest) = match args.get(1..)? {
        [dashes, command, rest @ ..] if dashes == "--" => (command, rest),
        [command, rest @ ..] if !command.as_encoded_bytes().starts_with(b"-") => (command, rest),
        _ => return None,
    };
    if env.any(|(name, value)| name.as_encoded_bytes().starts_with(b"BOWOUT_") && !value.is_empty()) {
        return None;
    }
    Some(Cli { command: command.clone(), args: rest.to_vec(), ..Cli::default() })
}

/// The command line as clap takes it. A test holds man/bowout.1 to it.
pub(crate) fn definition() -> Command {
    Command::new("bowout")
        .version(env!("CARGO_PKG_VERSION"))
        .about(
            "Runs a command, passes every signal on to it, gives it a bounded time to end when asked to, \
             kills what does not, and ends as it ended.",
        )
        .override_usage("bowout [OPTIONS] [--] COMMAND [ARG]...")
        .help_template("{about}\n\n{usage-heading} {usage}\n\n{all-args}{after-help}")
        .after_help(AFTER_HELP)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .args(stopping().map(|arg| arg.help_heading("Stopping")))
        .args(signals().map(|arg| arg.help_heading("Who gets which signal")))
        .args(ending().map(|arg| arg.help_heading("How it ends")))
        .args(log().map(|arg| arg.help_heading("Log")))
        .arg(
            Arg::new("command")
                .value_name("COMMAND")
                .required(true)
                .hide(true)
                .num_args(1..)
                .trailing_var_arg(true)
                .value_parser(value_parser!(OsString)),
        )
}

const AFTER_HELP: &str = "\
Durations: 10s, 1m30s, 500ms, 0, never. Signals: TERM, SIGTERM, 15, RTMIN+3. Every option that takes a value, and every switch \
that shows one, can be set by its variable; what is typed wins.
Exit status: that of COMMAND; 124 --max-runtime ran out, 125 bowout failed, 126 COMMAND cannot be run, 127 COMMAND not found.
Full description: man bowout";

/// An option that takes a value, with its variable.
fn option(name: &'static str, value: &'static str, env: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).env(env).hide_env_values(true).help(help)
}

/// A switch without a variable.
fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

/// A switch with its variable, which takes true and false, yes and no, 1 and 0.
fn env_switch(name: &'static str, env: &'static str, help: &'static str) -> Arg {
    switch(name, help).env(env).hide_env_values(true).value_parser(BoolishValueParser::new())
}

/// An option that is given once for each time it is to count.
fn count(name: &'static str, short: char, env: &'static str, help: &'static str) -> Arg {
    let count = Arg::new(name).short(short).long(name).action(ArgAction::Count).value_parser(parse_count);
    count.env(env).hide_env_values(true).help(help)
}

fn stopping() -> [Arg; 9] {
    let grace = "Time from the first stop request to SIGKILL; 0 kills at once [default: 8s]";
    let ladder = "Signals and waits in place of --grace and --stop-signal, e.g. TERM/30s/QUIT/5s/KILL";
    let signal = "What COMMAND is sent first [default: the signal received]";
    let stop_on = "Which signals ask for the stop; a hang-up of the terminal always does [default: TERM,INT,QUIT,ABRT]";
    let repeat = "What a second request from the same side does [default: kill]";
    let hook = "Run this by /bin/sh -c before the stop signal is sent; repeatable, in order";
    let delay = "Wait so long before the stop signal is sent; part of the grace period, as are the hooks";
    let most =
        "The most that COMMAND can have the grace period extended to, by sd_notify [default: twice the grace period]";
    let runtime = "Stop COMMAND when it has run so long; exit with 124";
    [
        option("grace", "DURATION", "BOWOUT_GRACE", grace).short('t').value_parser(parse_wait_word),
        option("grace-max", "DURATION", "BOWOUT_GRACE_MAX", most).value_parser(parse_wait_word),
        option("escalate", "LADDER", "BOWOUT_ESCALATE", ladder).value_parser(|text: &str| text.parse::<Ladder>()),
        option("stop-signal", "SIGNAL", "BOWOUT_STOP_SIGNAL", signal).value_parser(|text: &str| text.parse::<Signal>()),
        option("stop-on", "SIGNAL,...", "BOWOUT_STOP_ON", stop_on).value_parser(parse_set),
        option("on-repeat", "WHAT", "BOWOUT_ON_REPEAT", repeat).value_parser(choice(REPEATS)),
        option("pre-stop", "COMMAND", "BOWOUT_PRE_STOP", hook)
            .action(ArgAction::Append)
            .value_parser(value_parser!(OsString)),
        option("stop-delay", "DURATION", "BOWOUT_STOP_DELAY", delay).value_parser(parse_delay),
        option("max-runtime", "DURATION", "BOWOUT_MAX_RUNTIME", runtime).value_parser(parse_runtime),
    ]
}

fn signals() -> [Arg; 7] {
    let mode = "Who is signalled: 'process', COMMAND alone; 'mixed', SIGKILL to all; 'group', the stop signal to all, too \
                [default: mixed]";
    let tree = "COMMAND's own end is no end: wait for the last descendant (for programs that daemonise)";
    let remap = "Forward TO when FROM is received; a TO of 0 drops it; repeatable, or with commas";
    let death = "Be sent SIGNAL when the process that started bowout dies";
    [
        option("kill-mode", "MODE", "BOWOUT_KILL_MODE", mode).short('k').value_parser(choice(KILL_MODES)),
        switch("group", "--kill-mode group").short('g'),
        switch("single-child", "--kill-mode process").short('c'),
        env_switch("wait-tree", "BOWOUT_WAIT_TREE", tree),
        option("remap", "FROM:TO", "BOWOUT_REMAP", remap)
            .short('r')
            .visible_alias("rewrite")
            .action(ArgAction::Append)
            .value_delimiter(',')
            .value_parser(|text: &str| text.parse::<Rewrite>()),
        option("parent-death-signal", "SIGNAL", "BOWOUT_PARENT_DEATH_SIGNAL", death)
            .short('p')
            .value_parser(|text: &str| text.parse::<Signal>()),
        switch("subreaper", "Accepted for tini's sake: always on").short('s'),
    ]
}

fn ending() -> [Arg; 5] {
    let remap =
        "Exit with NEW [0] when COMMAND exits with CODE (128+S for a death by signal S); repeatable, or with commas";
    let status = "Pass a death by signal S on as 128+S ('code') or as the same death ('signal') \
                  [default: auto, the same death unless PID 1]";
    let notify = "Pass sd_notify messages on if there is a NOTIFY_SOCKET ('auto'), always have a socket ('relay'), say READY=1 \
                  when COMMAND is being run ('exec'), keep out ('off') [default: auto]";
    let report = "Write what happened to FILE at the end, as a JSON object; fd:N for an open descriptor";
    let message = "Write why it ended to FILE, if that is an empty file [without FILE: /dev/termination-log]";
    [
        option("remap-exit", "CODE[:NEW]", "BOWOUT_REMAP_EXIT", remap)
            .short('e')
            .action(ArgAction::Append)
            .value_delimiter(',')
            .value_parser(|text: &str| text.parse::<Recode>()),
        option("exit-status", "HOW", "BOWOUT_EXIT_STATUS", status).value_parser(choice(MIRRORS)),
        option("notify", "HOW", "BOWOUT_NOTIFY", notify).value_parser(choice(NOTIFY)),
        option("report", "FILE", "BOWOUT_REPORT", report)
            .value_parser(OsStringValueParser::new().try_map(parse_report)),
        option("termination-log", "FILE", "BOWOUT_TERMINATION_LOG", message)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value(TERMINATION_LOG)
            .value_parser(value_parser!(PathBuf)),
    ]
}

fn log() -> [Arg; 6] {
    let quiet = "Say less: -q warnings, -qq errors, -qqq nothing [BOWOUT_LOG takes env_logger's filters]";
    let format = "How log lines look [default: auto, 'journal' on the journal, else 'text']";
    [
        count("verbose", 'v', "BOWOUT_VERBOSE", "Say more: -v debug, -vv trace"),
        count("quiet", 'q', "BOWOUT_QUIET", quiet),
        option("log-format", "FORMAT", "BOWOUT_LOG_FORMAT", format).value_parser(choice(FORMATS)),
        env_switch("warn-on-reap", "BOWOUT_WARN_ON_REAP", "Warn of each orphan that is reaped").short('w'),
        Arg::new("help").short('h').long("help").action(ArgAction::Help).help("Print this"),
        Arg::new("version").short('V').long("version").action(ArgAction::Version).help("Print the version"),
    ]
}

fn parse_wait_word(text: &str) -> Result<Wait, String> {
    parse_wait(text).map(Wait)
}

/// Of `-v` and `-q`, as their variables say it.
fn parse_count(text: &str) -> Result<u8, String> {
    text.parse().map_err(|_| "write how often the option would be given, such as 1".into())
}

fn parse_runtime(text: &str) -> Result<Wait, String> {
    match parse_wait(text)? {
        Some(Duration::ZERO) => Err("no command can run in no time: write never for no limit".into()),
        wait => Ok(Wait(wait)),
    }
}

fn parse_delay(text: &str) -> Result<Duration, String> {
    parse_wait(text)?.ok_or_else(|| "a stop that is delayed for ever is none".into())
}

fn parse_report(text: OsString) -> Result<ReportTo, String> {
    match text.to_str().and_then(|text| text.strip_prefix("fd:")) {
        None => Ok(ReportTo::File(text.into())),
        Some(number) => {
            let fd = number.parse().ok().filter(|fd| *fd >= 0);
            fd.map(ReportTo::Descriptor)
                .ok_or_else(|| format!("'{number}' is no descriptor: write fd:3, or ./fd:{number} for a file"))
        }
    }
}

fn parse_set(text: &str) -> Result<SignalSet, String> {
    text.split(',').try_fold(SignalSet::default(), |set, word| Ok(set.with(catchable(word)?)))
}

fn collect(mut matches: ArgMatches) -> Cli {
    let mut words = matches.remove_many::<OsString>("command").into_iter().flatten();
    Cli {
        command: words.next().unwrap_or_default(),
        args: words.collect(),
        as_init: false,
        grace: given::<Wait>(&mut matches, "grace").map(|wait| Given { value: wait.value.0, typed: wait.typed }),
        escalate: given(&mut matches, "escalate"),
        stop_signal: given(&mut matches, "stop-signal"),
        kill_mode: given(&mut matches, "kill-mode"),
        stop_on: matches.remove_one("stop-on"),
        on_repeat: matches.remove_one("on-repeat").unwrap_or_default(),
        max_runtime: matches.remove_one::<Wait>("max-runtime").and_then(|wait| wait.0),
        stop_delay: matches.remove_one("stop-delay").unwrap_or_default(),
        pre_stop: matches.remove_many("pre-stop").into_iter().flatten().collect(),
        grace_max: matches.remove_one("grace-max"),
        notify: matches.remove_one("notify").unwrap_or_default(),
        report: matches.remove_one("report"),
        termination_log: matches.remove_one("termination-log"),
        group: matches.get_flag("group"),
        single_child: matches.get_flag("single-child"),
        wait_tree: matches.get_flag("wait-tree"),
        remap: matches.remove_many("remap").into_iter().flatten().collect(),
        remap_exit: matches.remove_many("remap-exit").into_iter().flatten().collect(),
        exit_status: matches.remove_one("exit-status").unwrap_or_default(),
        parent_death_signal: matches.remove_one("parent-death-signal"),
        warn_on_reap: matches.get_flag("warn-on-reap"),
        verbosity: Verbosity {
            more: matches.get_count("verbose"),
            less: matches.get_count("quiet"),
            typed: ["verbose", "quiet"].iter().any(|id| matches.value_source(id) == Some(ValueSource::CommandLine)),
        },
        log_format: matches.remove_one("log-format").unwrap_or_default(),
    }
}

fn given<T: Clone + Send + Sync + 'static>(matches: &mut ArgMatches, name: &str) -> Option<Given<T>> {
    let typed = matches.value_source(name) == Some(ValueSource::CommandLine);
    matches.remove_one(name).map(|value| Given { value, typed })
}

/// clap's page of text as one line; its help and version as they are.
fn explain(error: &clap::Error) -> Stop {
    let text = error.render().to_string();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Stop::Info(text),
        ErrorKind::MissingRequiredArgument => {
            Stop::Usage("no command given: write bowout [OPTIONS] [--] COMMAND [ARG]..., see 'bowout --help'".into())
        }
        _ => {
            let text = text.strip_prefix("error: ").unwrap_or(&text);
            let text = text.split("\n\nUsage:").next().unwrap_or(text);
            let text = text.split("\n\nFor more information").next().unwrap_or(text);
            // clap's advice to write the option behind `--` would make it the command.
            let parts = text.split("\n\n").filter(|part| !part.contains("tip: to pass"));
            let parts = parts.map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "));
            let origin = variable(error).map(|name| format!("; it comes from {name}")).unwrap_or_default();
            Stop::Usage(format!("{}{origin}; see 'bowout --help'", parts.collect::<Vec<_>>().join("; ")))
        }
    }
}

/// The variable that holds the value which clap complains of: clap names the option only, and nobody has typed it.
fn variable(error: &clap::Error) -> Option<String> {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let (option, value) = (text(ContextKind::InvalidArg)?, text(ContextKind::InvalidValue)?);
    let long = option.strip_prefix("--")?.split([' ', '.', '=']).next()?;
    let definition = definition();
    let arg = definition.get_arguments().find(|arg| arg.get_long() == Some(long))?;
    let set = std::env::var_os(arg.get_env()?)?;
    let holds = set == value || set.to_string_lossy().split(',').any(|part| part == value);
    holds.then(|| arg.get_env().map(|name| name.to_string_lossy().into_owned()))?
}

/// One of a few words, each with its meaning.
fn choice<T: Copy + Send + Sync + 'static>(words: &'static [(&'static str, T)]) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(words.iter().map(|(word, _)| *word))
        // clap lets no other word through.
        .map(move |given| words.iter().find(|(word, _)| *word == given).unwrap_or(&words[0]).1)
}

const KILL_MODES: &[(&str, KillMode)] =
    &[("process", KillMode::Process), ("mixed", KillMode::Mixed), ("group", KillMode::Group)];
const REPEATS: &[(&str, OnRepeat)] =
    &[("kill", OnRepeat::Kill), ("forward", OnRepeat::Forward), ("ignore", OnRepeat::Ignore)];
const MIRRORS: &[(&str, Mirror)] = &[("auto", Mirror::Auto), ("code", Mirror::Code), ("signal", Mirror::Signal)];
const NOTIFY: &[(&str, Notify)] =
    &[("auto", Notify::Auto), ("exec", Notify::Exec), ("relay", Notify::Relay), ("off", Notify::Off)];
const FORMATS: &[(&str, Format)] =
    &[("auto", Format::Auto), ("text", Format::Text), ("journal", Format::Journal), ("json", Format::Json)];

#[cfg(test)]
mod tests {
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
        let set = |value: &str| [(OsString::from("BOWOUT_GRACE"), OsString::from(value))].into_iter();
        assert_eq!(without_options(&words(&["ls"]), set("1s")), None);
        assert!(without_options(&words(&["ls"]), set("")).is_some());
        assert_eq!(without_options(&[], std::iter::empty()), None);
    }

    #[test]
    fn every_option_that_takes_a_value_has_its_variable() {
        for arg in
            definition().get_arguments().filter(|arg| arg.get_long().is_some() && arg.get_action().takes_values())
        {
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
}
