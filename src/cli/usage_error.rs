//! Errors of the command line: one line with the fault and the correction. clap finds the fault.
//! Its own text is a page, and its advice to write the option after `--` would make the option the
//! command.

use std::ffi::OsStr;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::options::{OPTIONS, Opt};
use crate::log::escape;
use crate::policy::parse_wait;
use crate::signal::Signal;
use crate::suggest::{self, similar};

/// Options were given, and no command.
pub(super) const NO_COMMAND: &str = "no command given: write bowout [OPTIONS] -- COMMAND [ARG]..., such as \
                                     bowout --grace 10s -- sleep 60; see 'bowout --help'";

/// The environment variables that set no option: the log's filter, and those that bowout sets for
/// hooks, which a bowout in a hook inherits. Without their `BOWOUT_`.
pub(super) const OTHER_VARIABLES: [&str; 7] = [
    "LOG",
    "CHILD_PID",
    "SIGNAL",
    "GRACE_LEFT_MS",
    "REASON",
    "EXIT_CODE",
    "EXIT_SIGNAL",
];

/// Why there is nothing to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The help or the version, which was asked for.
    Info(String),
    /// One line with the fault.
    Usage(String),
    /// No word but the program's name was typed.
    Alone,
}

/// The message of [`Stop::Alone`]: for a user at a terminal, the purpose and the usage of bowout.
pub(crate) fn alone(at_terminal: bool) -> &'static str {
    if at_terminal { WELCOME } else { NO_COMMAND }
}

const WELCOME: &str = "\
no command given. bowout runs a command and makes sure it stops cleanly.

    bowout -- sleep 1000                 Ctrl-C stops it; once more kills it
    bowout --grace 10s -- COMMAND        10 s to exit when asked, then SIGKILL
    bowout --max-runtime 1m -- COMMAND   asked to stop after a minute

See 'bowout --help'.";

/// Options of other programs (timeout, docker run, tini, catatonit, start-stop-daemon, GNU
/// parallel, gosu, loggers), and the option of bowout that does the same; or why there is none.
/// Options with one meaning share a row.
const ELSEWHERE: [(&str, &str); 16] = [
    (
        "timeout",
        "--max-runtime for the whole run, --grace for the stop",
    ),
    ("time-limit", "--max-runtime"),
    ("kill-after kill-timeout stop-timeout", "--grace"),
    ("retry termseq", "--escalate"),
    ("signal", "--stop-signal"),
    (
        "preserve-status",
        "--remap-exit, which maps one code; --max-runtime always exits with 124",
    ),
    ("license l L", "--version"),
    ("debug", "--verbose"),
    ("silent", "--quiet"),
    ("log-level loglevel", "--verbose, --quiet or BOWOUT_LOG"),
    ("json", "--log-format json"),
    ("init", "leave it out, bowout always does an init's work"),
    (
        "foreground f",
        "leave it out, the command always keeps the terminal",
    ),
    (
        "background daemon",
        "leave it out, bowout stays with its command; a shell's & puts both in the background",
    ),
    (
        "restart",
        "leave it out, the engine or the service manager restarts what ends",
    ),
    (
        "user uid u",
        "leave it out, and let the command change the user: bowout -- setpriv --reuid USER COMMAND",
    ),
];

/// clap's error in bowout's words; its help and version as they are.
pub(super) fn explain(error: &clap::Error) -> Stop {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            Stop::Info(error.render().to_string())
        }
        kind => Stop::Usage(escape(&complaint(kind, error)).into_owned()),
    }
}

fn complaint(kind: ErrorKind, error: &clap::Error) -> String {
    let Some(arg) = text(error, ContextKind::InvalidArg) else {
        let what = error.kind().as_str().unwrap_or("cannot be read");
        return format!("{what}: see 'bowout --help'");
    };
    let name = arg.split([' ', '.', '[', '=']).next().unwrap_or(arg);
    match (kind, text(error, ContextKind::InvalidValue)) {
        (ErrorKind::UnknownArgument, _) => unknown(arg),
        (ErrorKind::ArgumentConflict, _) => format!("{name} is given twice: give it once"),
        (ErrorKind::TooManyValues, value) => {
            format!(
                "{name} takes no value: leave ={} out",
                value.unwrap_or_default()
            )
        }
        (_, None | Some("")) => {
            let option = OPTIONS
                .iter()
                .find(|option| name.strip_prefix("--") == Some(option.long));
            let words = option.map_or(vec![], |option| (option.words)()).join(", ");
            let of = if words.is_empty() { "" } else { ": one of " };
            let arg = arg.replace(['<', '>'], "");
            format!("{name} has no value: write {arg}{of}{words}")
        }
        (_, Some(value)) => match std::error::Error::source(error) {
            Some(reason) => format!("{name}: {reason}"),
            None => format!("{name}: '{value}' cannot be read: see 'bowout --help'"),
        },
    }
}

/// The error of a variable's value.
pub(super) fn misset(option: &Opt, why: &str) -> String {
    let name = option.variable().unwrap_or_default();
    escape(&format!("BOWOUT_{name}: {why}")).into_owned()
}

fn text(error: &clap::Error, kind: ContextKind) -> Option<&str> {
    match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    }
}

/// The nearest option, under its own name or another.
fn unknown(given: &str) -> String {
    let name = given.trim_start_matches('-');
    let longs = OPTIONS
        .iter()
        .flat_map(|option| [Some(option.long), option.alias]);
    let longs = longs.flatten().chain(["help", "help-all", "version"]);
    let is_elsewhere = |(words, _): &&(&str, &str)| words.split(' ').any(|word| word == name);
    let hint = match ELSEWHERE.iter().find(is_elsewhere) {
        Some((_, option)) if option.starts_with("--") => format!("did you mean {option}?"),
        Some((_, reason)) => (*reason).to_owned(),
        None if given.starts_with("--") => match similar(name, longs) {
            Some(name) => format!("did you mean --{name}?"),
            None => "see 'bowout --help-all'".to_owned(),
        },
        None if name.starts_with(|c: char| c.is_ascii_digit()) => {
            "a signal is given as --stop-signal KILL, and no duration is negative".to_owned()
        }
        None => "see 'bowout --help'".to_owned(),
    };
    format!("unknown option '{given}': {hint}")
}

/// Words that are read as the command, and that another program reads as the value of an option:
/// timeout's `-s TERM`, where `-s` is a switch of tini's, and timeout's `30s COMMAND`.
pub(super) fn misread(before: &OsStr, command: &OsStr) -> Result<(), String> {
    let command = command.to_str().unwrap_or_default();
    // A program may be called 'kill' or 'stop'.
    let is_signal =
        || command.parse::<Signal>().is_ok() && !command.contains(|c: char| c.is_ascii_lowercase());
    if before == "-s" && is_signal() {
        return Err(format!(
            "-s takes no signal: did you mean --stop-signal {command}?"
        ));
    }
    let is_wait = command.starts_with(|c: char| c.is_ascii_digit()) && parse_wait(command).is_ok();
    if is_wait && !is_program(command) {
        return Err(format!(
            "'{command}' is a duration and not a command: did you mean --max-runtime {command}?"
        ));
    }
    Ok(())
}

fn is_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

/// A variable that sets nothing, with the name that was probably meant. Without `BOWOUT_`.
#[cold]
pub(super) fn misspelt(name: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(name).ok()?;
    let variables: Vec<_> = OPTIONS.iter().filter_map(Opt::variable).collect();
    let known = || variables.iter().map(String::as_str).chain(OTHER_VARIABLES);
    let meant = suggest::misspelt(name, known()).filter(|_| known().all(|known| known != name))?;
    Some(format!(
        "BOWOUT_{} (did you mean BOWOUT_{meant}?)",
        escape(name)
    ))
}
