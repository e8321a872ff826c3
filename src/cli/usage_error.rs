//! What is said of a command line that cannot be read: one line, which tells what to type instead.
//! clap finds the fault; the words are ours, for clap's are a page, and its advice to write the
//! option behind `--` would make it the command.

use std::ffi::{CStr, OsStr, OsString};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command};

use super::options::definition;
use super::{Cli, OTHER_VARIABLES, Stop};
use crate::log::escape;
use crate::policy::parse_wait;
use crate::signal::Signal;
use crate::suggest::{self, similar};

/// What is said where options were given, and no command.
pub(super) const NO_COMMAND: &str = "no command given: write bowout [OPTIONS] -- COMMAND [ARG]..., such as \
                                     bowout --grace 10s -- sleep 60; see 'bowout --help'";

/// Options of other programs (timeout, docker run, tini, catatonit, start-stop-daemon, GNU
/// parallel, gosu, loggers), and the option of bowout that does the same; or why there is none.
const ELSEWHERE: [(&str, &str); 26] = [
    (
        "timeout",
        "--max-runtime for the whole run, --grace for the stop",
    ),
    ("time-limit", "--max-runtime"),
    ("kill-after", "--grace"),
    ("kill-timeout", "--grace"),
    ("stop-timeout", "--grace"),
    ("retry", "--escalate"),
    ("termseq", "--escalate"),
    ("signal", "--stop-signal"),
    (
        "preserve-status",
        "--remap-exit, which maps one code; --max-runtime always exits with 124",
    ),
    ("license", "--version"),
    ("l", "--version"),
    ("L", "--version"),
    ("debug", "--verbose"),
    ("silent", "--quiet"),
    ("log-level", "--verbose, --quiet or BOWOUT_LOG"),
    ("loglevel", "--verbose, --quiet or BOWOUT_LOG"),
    ("json", "--log-format json"),
    ("init", "leave it out, bowout always does an init's work"),
    ("foreground", FOREGROUND),
    ("f", FOREGROUND),
    ("background", BACKGROUND),
    ("daemon", BACKGROUND),
    (
        "restart",
        "leave it out, the engine or the service manager restarts what ends",
    ),
    ("user", USER),
    ("uid", USER),
    ("u", USER),
];
const FOREGROUND: &str = "leave it out, the command always keeps the terminal";
const BACKGROUND: &str =
    "leave it out, bowout stays with its command; a shell's & puts both in the background";
const USER: &str =
    "leave it out, and let the command change the user: bowout -- setpriv --reuid USER COMMAND";

/// clap's error as what there is to say; its help and version as they are.
pub(super) fn explain(error: &clap::Error) -> Stop {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            Stop::Info(error.render().to_string())
        }
        ErrorKind::MissingRequiredArgument => Stop::Usage(NO_COMMAND.into()),
        kind => Stop::Usage(escape(&complaint(kind, error)).into_owned()),
    }
}

fn complaint(kind: ErrorKind, error: &clap::Error) -> String {
    let Some(arg) = text(error, ContextKind::InvalidArg) else {
        return error.kind().as_str().unwrap_or("cannot be read").to_owned()
            + ": see 'bowout --help'";
    };
    let (option, value) = (
        arg.split([' ', '.', '[', '=']).next().unwrap_or(arg),
        text(error, ContextKind::InvalidValue),
    );
    let from = origin(error).unwrap_or_else(|| option.to_owned());
    match (kind, value) {
        (ErrorKind::UnknownArgument, _) => unknown(arg),
        (ErrorKind::InvalidValue, None | Some("")) => {
            let of = words(error)
                .map(|words| format!(": one of {}", words.join(", ")))
                .unwrap_or_default();
            format!(
                "{from} has no value: write {}{of}",
                arg.replace(['<', '>'], "")
            )
        }
        (ErrorKind::InvalidValue, Some(value)) => {
            let words = words(error).unwrap_or_default();
            let meant = similar(value, words.iter().map(String::as_str));
            let meant = meant
                .map(|word| format!(": did you mean {word}?"))
                .unwrap_or_default();
            // timeout's -k is a wait.
            let wait = option == "--kill-mode" && parse_wait(value).is_ok();
            let meant = if wait {
                format!(": did you mean --grace {value}?")
            } else {
                meant
            };
            format!("{from}: '{value}' is none of {}{meant}", words.join(", "))
        }
        (ErrorKind::ValueValidation, Some(value)) => {
            let reason = std::error::Error::source(error).map(ToString::to_string);
            format!(
                "{from}: {}",
                reason.unwrap_or_else(|| format!("'{value}' cannot be read: see 'bowout --help'"))
            )
        }
        (ErrorKind::TooManyValues, Some(value)) => {
            format!("{option} takes no value: leave ={value} out")
        }
        (ErrorKind::ArgumentConflict, _) => format!("{option} is given twice: give it once"),
        (_, value) => format!(
            "{from}: '{}' cannot be read: see 'bowout --help'",
            value.unwrap_or_default()
        ),
    }
}

fn text(error: &clap::Error, kind: ContextKind) -> Option<&str> {
    match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    }
}

/// The words that the option takes, if it takes no others.
fn words(error: &clap::Error) -> Option<&[String]> {
    match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(words)) if !words.is_empty() => Some(words),
        _ => None,
    }
}

/// The nearest option, under its own name or another.
fn unknown(given: &str) -> String {
    let name = given.trim_start_matches('-');
    let hint = match ELSEWHERE.iter().find(|(word, _)| *word == name) {
        Some((_, option)) if option.starts_with("--") => format!("did you mean {option}?"),
        Some((_, reason)) => (*reason).to_owned(),
        None if given.starts_with("--") => match similar(name, longs(&definition())) {
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
pub(super) fn misread(args: &[OsString], cli: &Cli) -> Option<String> {
    let command = cli.command.to_str()?;
    let before = args.iter().rev().nth(cli.args.len() + 1)?;
    // A program may be called 'kill' or 'stop'.
    let is_signal =
        || command.parse::<Signal>().is_ok() && !command.contains(|c: char| c.is_ascii_lowercase());
    if before == "-s" && is_signal() {
        return Some(format!(
            "-s takes no signal: did you mean --stop-signal {command}?"
        ));
    }
    let is_wait =
        || command.starts_with(|c: char| c.is_ascii_digit()) && parse_wait(command).is_ok();
    if is_wait() && !is_program(command) {
        return Some(format!(
            "'{command}' is a duration and not a command: did you mean --max-runtime {command}?"
        ));
    }
    None
}

fn is_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

/// A warning of all variables that set nothing, and whose names are a slip away from one that does.
pub(super) fn misspelt<'a>(
    definition: &Command,
    variables: impl Iterator<Item = &'a CStr>,
) -> Option<String> {
    let envs = definition
        .get_arguments()
        .filter_map(Arg::get_env)
        .filter_map(OsStr::to_str);
    let known: Vec<&str> = envs
        .chain(OTHER_VARIABLES)
        .filter_map(|name| name.strip_prefix("BOWOUT_"))
        .collect();
    let hint = |variable: &CStr| {
        let (name, value) = variable
            .to_str()
            .ok()?
            .strip_prefix("BOWOUT_")?
            .split_once('=')?;
        let unknown = !value.is_empty() && !known.contains(&name);
        let meant = suggest::misspelt(name, known.iter().copied()).filter(|_| unknown)?;
        Some(format!(
            "BOWOUT_{} (did you mean BOWOUT_{meant}?)",
            escape(name)
        ))
    };
    let hints: Vec<String> = variables.filter_map(hint).collect();
    (!hints.is_empty()).then(|| format!("ignored unknown variables: {}", hints.join(", ")))
}

fn longs(definition: &Command) -> impl Iterator<Item = &str> {
    let aliases = definition
        .get_arguments()
        .filter_map(Arg::get_visible_aliases)
        .flatten();
    definition
        .get_arguments()
        .filter_map(Arg::get_long)
        .chain(aliases)
}

/// The variable that holds the value which clap complains of: clap names the option only, and
/// nobody has typed it.
fn origin(error: &clap::Error) -> Option<String> {
    let (option, value) = (
        text(error, ContextKind::InvalidArg)?,
        text(error, ContextKind::InvalidValue)?,
    );
    let long = option
        .strip_prefix("--")?
        .split([' ', '.', '=', '['])
        .next()?;
    let definition = definition();
    let arg = definition
        .get_arguments()
        .find(|arg| arg.get_long() == Some(long))?;
    let set = std::env::var_os(arg.get_env()?)?;
    let holds = set == value || set.to_string_lossy().split(',').any(|part| part == value);
    holds.then(|| {
        arg.get_env()
            .map(|name| name.to_string_lossy().into_owned())
    })?
}
