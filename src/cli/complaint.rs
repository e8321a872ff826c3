//! What is said of a command line that cannot be read: one line, which tells what to type instead. clap finds the fault; the
//! words are ours, for clap's are a page, and its advice to write the option behind `--` would make it the command.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command};

use super::Stop;
use super::definition::definition;
use crate::logging::escape;
use crate::similar::similar;

/// What is said where options were given, and no command.
pub(super) const NO_COMMAND: &str = "no command given: write bowout [OPTIONS] -- COMMAND [ARG]..., such as \
                                     bowout --grace 10s -- sleep 60; see 'bowout --help'";

/// What other programs call what bowout calls otherwise.
const ELSEWHERE: [(&str, &str); 7] = [
    ("timeout", "--grace for the stop, --max-runtime for the whole run"),
    ("kill-after", "--grace"),
    ("stop-timeout", "--grace"),
    ("retry", "--escalate"),
    ("preserve-status", "--remap-exit"),
    ("license", "--version"),
    ("debug", "--verbose"),
];

/// clap's error as what there is to say; its help and version as they are.
pub(super) fn explain(error: &clap::Error) -> Stop {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Stop::Info(error.render().to_string()),
        ErrorKind::MissingRequiredArgument => Stop::Usage(NO_COMMAND.into()),
        kind => Stop::Usage(escape(&complaint(kind, error)).into_owned()),
    }
}

fn complaint(kind: ErrorKind, error: &clap::Error) -> String {
    let Some(arg) = text(error, ContextKind::InvalidArg) else {
        return error.kind().as_str().unwrap_or("cannot be read").to_owned() + ": see 'bowout --help'";
    };
    let (option, value) =
        (arg.split([' ', '.', '[', '=']).next().unwrap_or(arg), text(error, ContextKind::InvalidValue));
    let from = origin(error).unwrap_or_else(|| option.to_owned());
    match (kind, value) {
        (ErrorKind::UnknownArgument, _) => unknown(arg),
        (ErrorKind::InvalidValue, None | Some("")) => {
            let of = words(error).map(|words| format!(": one of {}", words.join(", "))).unwrap_or_default();
            format!("{from} has no value: write {}{of}", arg.replace(['<', '>'], ""))
        }
        (ErrorKind::InvalidValue, Some(value)) => {
            let words = words(error).unwrap_or_default();
            let meant = similar(value, words.iter().map(String::as_str));
            let meant = meant.map(|word| format!(": did you mean {word}?")).unwrap_or_default();
            format!("{from}: '{value}' is none of {}{meant}", words.join(", "))
        }
        (ErrorKind::ValueValidation, Some(value)) => {
            let reason = std::error::Error::source(error).map(ToString::to_string);
            format!("{from}: {}", reason.unwrap_or_else(|| format!("'{value}' cannot be read: see 'bowout --help'")))
        }
        (ErrorKind::TooManyValues, Some(value)) => format!("{option} takes no value: leave ={value} out"),
        (ErrorKind::ArgumentConflict, _) => format!("{option} is given twice: give it once"),
        (_, value) => format!("{from}: '{}' cannot be read: see 'bowout --help'", value.unwrap_or_default()),
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
    let Some(long) = given.strip_prefix("--") else {
        return if given[1..].starts_with(|c: char| c.is_ascii_digit()) {
            format!("unknown option '{given}': a signal is given as --stop-signal KILL, and no duration is negative")
        } else {
            format!("unknown option '{given}': see 'bowout --help'")
        };
    };
    let definition = definition();
    let meant = ELSEWHERE.iter().find(|(word, _)| *word == long).map(|(_, meant)| (*meant).to_owned());
    let meant = meant.or_else(|| similar(long, longs(&definition)).map(|name| format!("--{name}")));
    match meant {
        Some(meant) => format!("unknown option '{given}': did you mean {meant}?"),
        None => format!("unknown option '{given}': see 'bowout --help-all'"),
    }
}

fn longs(definition: &Command) -> impl Iterator<Item = &str> {
    let aliases = definition.get_arguments().filter_map(Arg::get_visible_aliases).flatten();
    definition.get_arguments().filter_map(Arg::get_long).chain(aliases)
}

/// The variable that holds the value which clap complains of: clap names the option only, and nobody has typed it.
fn origin(error: &clap::Error) -> Option<String> {
    let (option, value) = (text(error, ContextKind::InvalidArg)?, text(error, ContextKind::InvalidValue)?);
    let long = option.strip_prefix("--")?.split([' ', '.', '=', '[']).next()?;
    let definition = definition();
    let arg = definition.get_arguments().find(|arg| arg.get_long() == Some(long))?;
    let set = std::env::var_os(arg.get_env()?)?;
    let holds = set == value || set.to_string_lossy().split(',').any(|part| part == value);
    holds.then(|| arg.get_env().map(|name| name.to_string_lossy().into_owned()))?
}
