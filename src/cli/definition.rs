//! The options: their names, variables, help and words, as clap takes them.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{BoolishValueParser, OsStringValueParser, PossibleValuesParser, TypedValueParser};
use clap::{Arg, ArgAction, Command, value_parser};

use super::{Notify, ReportTo, TERMINATION_LOG, Wait};
use crate::exit::{Mirror, Recode};
use crate::logging::Format;
use crate::policy::{KillMode, Ladder, OnRepeat, parse_wait};
use crate::signal::{Rewrite, Signal, SignalSet, catchable};

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
