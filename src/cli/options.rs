//! The options: their names, variables, help and words, as clap takes them.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, PossibleValuesParser, TypedValueParser};
use clap::{Arg, ArgAction, Command, value_parser};

use super::{Notify, ReportTo, TERMINATION_LOG, Wait};
use crate::exit::{Mirror, Recode};
use crate::log::Format;
use crate::policy::{KillMode, Ladder, OnRepeat, parse_wait};
use crate::signal::{Rewrite, Signal, SignalSet, catchable};

/// The command line as clap takes it. A test holds man/bowout.1 to it.
#[cold]
pub(crate) fn definition() -> Command {
    Command::new("bowout")
        .version(env!("CARGO_PKG_VERSION"))
        .about(ABOUT)
        .override_usage("bowout [OPTIONS] [--] COMMAND [ARG]...")
        .help_template("{about}\n\n{usage-heading} {usage}\n\n{all-args}{after-help}")
        .after_help(AFTER_HELP)
        .after_long_help(AFTER_HELP_ALL)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .args(usual().map(|arg| arg.help_heading("Options")))
        .args(rare(stopping(), "Stopping"))
        .args(rare(signals(), "Who gets which signal"))
        .args(rare(ending(), "How it ends"))
        .args(rare(log(), "Log"))
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

/// What --help leaves to --help-all.
fn rare<const N: usize>(args: [Arg; N], heading: &'static str) -> [Arg; N] {
    args.map(|arg| arg.hide_short_help(true).help_heading(heading))
}

const ABOUT: &str = "\
bowout runs a command and makes it end well: passes every signal on to it, gives
it time to end when asked to, kills what does not, and ends as it ended.";

/// Lines of at most 80 columns: --help is one screen, and clap wraps nothing.
const AFTER_HELP: &str = "\
Example: bowout --grace 10s --stop-signal QUIT -- nginx -g 'daemon off;'

Durations: 10s, 1m30s, 10, 0.5, never. Signals: TERM, SIGTERM, 15, RTMIN+3.
Exit status: that of COMMAND; 124 --max-runtime ran out, 125 bowout failed,
126 COMMAND cannot be run, 127 COMMAND not found.
More: bowout --help-all, man bowout";

const AFTER_HELP_ALL: &str = "\
Durations: 10s, 1m30s, 10, 0.5, never. Signals: TERM, SIGTERM, 15, RTMIN+3.
Every option that shows a variable can be set by it; what is typed wins.
Exit status: that of COMMAND; 124 --max-runtime ran out, 125 bowout failed,
126 COMMAND cannot be run, 127 COMMAND not found.
Full description: man bowout";

/// An option that takes a value, with its variable.
fn option(name: &'static str, value: &'static str, env: &'static str, help: &'static str) -> Arg {
    explained(Arg::new(name).long(name).value_name(value), env, help)
}

/// --help-all names the variable; --help has no room for it.
fn explained(arg: Arg, env: &'static str, help: &'static str) -> Arg {
    arg.env(env)
        .hide_env(true)
        .long_help(format!("{help} [env: {env}]"))
}

/// A switch without a variable.
fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .action(ArgAction::SetTrue)
        .long_help(help)
}

/// A switch with its variable, which takes true and false, yes and no, on and off, 1 and 0.
fn env_switch(name: &'static str, env: &'static str, help: &'static str) -> Arg {
    explained(switch(name, help), env, help).value_parser(parse_switch)
}

/// An option that is given once for each time it is to count.
fn count(name: &'static str, short: char, env: &'static str, help: &'static str) -> Arg {
    let count = Arg::new(name)
        .short(short)
        .long(name)
        .action(ArgAction::Count)
        .value_parser(parse_count);
    explained(count, env, help)
}

/// What most people need, each with a few words for --help.
fn usual() -> [Arg; 10] {
    let grace = "Time from the first stop request to SIGKILL; 0 kills at once [default: 8s; 25s in Kubernetes, ECS, Heroku and Azure \
                 Container Apps; 85s in a systemd unit]";
    let signal = "What COMMAND is sent first; asks for the stop when it is received [default: the signal received]";
    let runtime = "Stop COMMAND when it has run so long; exit with 124";
    let mode = "Where signals go: 'process', to COMMAND alone; 'mixed', at the end of the stop to its descendants, too; 'group', to \
                COMMAND's process group, the stop signal to every descendant [default: mixed]";
    let remap = "Exit with NEW [0] when COMMAND exits with CODE (128+S for a death by signal S); repeatable, or with commas";
    let quiet = "Say less: -q warnings, -qq errors, -qqq nothing [BOWOUT_LOG takes a level]";
    [
        option("grace", "DURATION", "BOWOUT_GRACE", grace)
            .help("From stop request to SIGKILL [8s or by engine]")
            .short('t')
            .value_parser(parse_grace),
        option("stop-signal", "SIGNAL", "BOWOUT_STOP_SIGNAL", signal)
            .help("Send this first [the signal received]")
            .value_parser(parse_stop_signal),
        option("max-runtime", "DURATION", "BOWOUT_MAX_RUNTIME", runtime)
            .help("Stop COMMAND after so long")
            .value_parser(parse_runtime),
        option("kill-mode", "MODE", "BOWOUT_KILL_MODE", mode)
            .help("Where signals go: process, mixed, group [mixed]")
            .hide_possible_values(true)
            .short('k')
            .value_parser(choice(KILL_MODES)),
        option("remap-exit", "CODE[:NEW]", "BOWOUT_REMAP_EXIT", remap)
            .help("Exit with NEW [0] instead of CODE")
            .short('e')
            .action(ArgAction::Append)
            .value_delimiter(',')
            .value_parser(|text: &str| text.parse::<Recode>()),
        count(
            "verbose",
            'v',
            "BOWOUT_VERBOSE",
            "Say more: -v debug, -vv trace",
        )
        .help("Say more; -vv everything"),
        count("quiet", 'q', "BOWOUT_QUIET", quiet).help("Say less; -qqq nothing"),
        asked(
            "help",
            ArgAction::HelpShort,
            "Print this",
            "Print what most people need",
        )
        .short('h'),
        asked(
            "help-all",
            ArgAction::HelpLong,
            "Print all options, and their variables",
            "Print this",
        ),
        asked(
            "version",
            ArgAction::Version,
            "Print the version",
            "Print the version",
        )
        .short('V'),
    ]
}

/// What is answered in place of running anything.
fn asked(
    name: &'static str,
    action: ArgAction,
    help: &'static str,
    long_help: &'static str,
) -> Arg {
    Arg::new(name)
        .long(name)
        .action(action)
        .help(help)
        .long_help(long_help)
}

fn stopping() -> [Arg; 6] {
    let ladder =
        "Signals and waits in place of --grace and --stop-signal, e.g. TERM/30s/QUIT/5s/KILL";
    let stop_on = "Which signals ask for the stop, and no others [default: TERM, INT, ABRT, a hang-up of the terminal, and the \
                   signal of --stop-signal or --escalate]";
    let repeat = "What a second request from the same side does [default: kill]";
    let hook = "Run this by /bin/sh -c before the stop signal is sent; repeatable, in order";
    let delay =
        "Wait so long before the stop signal is sent; part of the grace period, as are the hooks";
    let most = "The most that COMMAND can have the grace period extended to, by sd_notify [default: twice the grace period]";
    [
        option("grace-max", "DURATION", "BOWOUT_GRACE_MAX", most).value_parser(parse_grace),
        option("escalate", "LADDER", "BOWOUT_ESCALATE", ladder)
            .value_parser(|text: &str| text.parse::<Ladder>()),
        option("stop-on", "SIGNAL,...", "BOWOUT_STOP_ON", stop_on).value_parser(parse_set),
        option("on-repeat", "WHAT", "BOWOUT_ON_REPEAT", repeat).value_parser(choice(REPEATS)),
        option("pre-stop", "COMMAND", "BOWOUT_PRE_STOP", hook)
            .action(ArgAction::Append)
            .value_parser(value_parser!(OsString)),
        option("stop-delay", "DURATION", "BOWOUT_STOP_DELAY", delay).value_parser(parse_delay),
    ]
}

fn signals() -> [Arg; 6] {
    let tree =
        "Go on after COMMAND's exit until the last descendant exits (for programs that daemonise)";
    let remap = "Forward TO when FROM is received; a TO of 0 drops it; repeatable, or with commas";
    let death = "Act as if the process that started bowout sent SIGNAL when it exits";
    [
        switch("group", "--kill-mode group").short('g'),
        switch("single-child", "--kill-mode process").short('c'),
        env_switch("wait-tree", "BOWOUT_WAIT_TREE", tree),
        option("remap", "FROM:TO", "BOWOUT_REMAP", remap)
            .short('r')
            .visible_alias("rewrite")
            .action(ArgAction::Append)
            .value_delimiter(',')
            .value_parser(|text: &str| text.parse::<Rewrite>()),
        option(
            "parent-death-signal",
            "SIGNAL",
            "BOWOUT_PARENT_DEATH_SIGNAL",
            death,
        )
        .short('p')
        .value_parser(|text: &str| text.parse::<Signal>()),
        switch("subreaper", "Accepted for tini's sake: always on").short('s'),
    ]
}

fn ending() -> [Arg; 4] {
    let status = "Pass a death by signal S on as 128+S ('code') or as the same death ('signal') \
                  [default: auto, the same death unless PID 1]";
    let notify = "Pass sd_notify messages on if there is a NOTIFY_SOCKET ('auto'), always have a socket ('relay'), say READY=1 \
                  when COMMAND is being run ('exec'), keep out ('off') [default: auto]";
    let report = "Write what happened to FILE at the end, as a JSON object; fd:N for an open descriptor, - for stdout";
    let message =
        "Write why it ended to FILE, if that is an empty file [without FILE: /dev/termination-log]";
    [
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

fn log() -> [Arg; 2] {
    let format = "How log lines look [default: auto, 'journal' on the journal, else 'text']";
    [
        option("log-format", "FORMAT", "BOWOUT_LOG_FORMAT", format).value_parser(choice(FORMATS)),
        env_switch(
            "warn-on-reap",
            "BOWOUT_WARN_ON_REAP",
            "Warn of each orphan that is reaped",
        )
        .short('w'),
    ]
}

fn parse_grace(text: &str) -> Result<Wait, String> {
    parse_wait(text).map(Wait)
}

/// Of `-v` and `-q`, as their variables say it.
fn parse_count(text: &str) -> Result<u8, String> {
    let number = text.parse().or_else(|_| parse_switch(text).map(u8::from));
    number.map_err(|_| {
        format!("'{text}' is not a number: write how often the option would be given, such as 1")
    })
}

/// Of a switch, as its variable says it.
fn parse_switch(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "y" | "yes" | "t" | "true" | "on" | "1" => Ok(true),
        "n" | "no" | "f" | "false" | "off" | "0" => Ok(false),
        _ => Err(format!(
            "'{text}' is neither yes nor no: write true or false"
        )),
    }
}

fn parse_runtime(text: &str) -> Result<Wait, String> {
    match parse_wait(text)? {
        Some(Duration::ZERO) => {
            Err("no command can run in no time: write never for no limit".into())
        }
        wait => Ok(Wait(wait)),
    }
}

fn parse_delay(text: &str) -> Result<Duration, String> {
    parse_wait(text)?
        .ok_or_else(|| "a stop that is delayed for ever is none: write less than --grace".into())
}

/// The names of an open descriptor are taken as text: whatever such a link leads to is not looked
/// at by name. The first signal of a stop: one that the command can act on.
fn parse_stop_signal(text: &str) -> Result<Signal, String> {
    match text.parse()? {
        Signal::KILL => {
            Err("no process can act on SIGKILL: write --grace 0 to kill at once".into())
        }
        Signal::STOP => Err("no process can act on SIGSTOP: write one such as TERM".into()),
        signal => Ok(signal),
    }
}

fn parse_report(text: OsString) -> Result<ReportTo, String> {
    let word = text.to_str().unwrap_or_default();
    let number = match word {
        "-" | "/dev/stdout" => "1",
        "/dev/stderr" => "2",
        _ => match ["fd:", "/dev/fd/", "/proc/self/fd/"]
            .iter()
            .find_map(|prefix| word.strip_prefix(prefix))
        {
            Some(number) => number,
            None => return Ok(ReportTo::File(text.into())),
        },
    };
    let fd = number.parse().ok().filter(|fd| *fd >= 0);
    fd.map(ReportTo::Descriptor).ok_or_else(|| {
        format!("'{number}' is not a descriptor: write fd:3, or ./fd:{number} for a file")
    })
}

fn parse_set(text: &str) -> Result<SignalSet, String> {
    text.split(',').try_fold(SignalSet::default(), |set, word| {
        Ok(set.with(catchable(word)?))
    })
}

/// One of a few words, each with its meaning.
fn choice<T: Copy + Send + Sync + 'static>(
    words: &'static [(&'static str, T)],
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(words.iter().map(|(word, _)| *word))
        // clap lets no other word through.
        .map(move |given| {
            words
                .iter()
                .find(|(word, _)| *word == given)
                .unwrap_or(&words[0])
                .1
        })
}

const KILL_MODES: &[(&str, KillMode)] = &[
    ("process", KillMode::Process),
    ("mixed", KillMode::Mixed),
    ("group", KillMode::Group),
];
const REPEATS: &[(&str, OnRepeat)] = &[
    ("kill", OnRepeat::Kill),
    ("forward", OnRepeat::Forward),
    ("ignore", OnRepeat::Ignore),
];
const MIRRORS: &[(&str, Mirror)] = &[
    ("auto", Mirror::Auto),
    ("code", Mirror::Code),
    ("signal", Mirror::Signal),
];
const NOTIFY: &[(&str, Notify)] = &[
    ("auto", Notify::Auto),
    ("exec", Notify::Exec),
    ("relay", Notify::Relay),
    ("off", Notify::Off),
];
pub(super) const FORMATS: &[(&str, Format)] = &[
    ("auto", Format::Auto),
    ("text", Format::Text),
    ("journal", Format::Journal),
    ("json", Format::Json),
];
