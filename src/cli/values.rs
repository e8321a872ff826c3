//! The values of the options: each setter's parser, and its error, which has the correction.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::config::{Notify, ReadyBy, ReportTo};
use crate::log::Format;
use crate::policy::{KillMode, OnRepeat, parse_wait};
use crate::signal::{Signal, SignalSet, catchable};
use crate::suggest::similar;

/// The words that a value can be, with their meanings.
pub(super) type Words<T> = &'static [(&'static str, T)];

pub(super) const KILL_MODES: Words<KillMode> = &[
    ("process", KillMode::Process),
    ("mixed", KillMode::Mixed),
    ("group", KillMode::Group),
];
pub(super) const REPEATS: Words<OnRepeat> = &[
    ("kill", OnRepeat::Kill),
    ("forward", OnRepeat::Forward),
    ("ignore", OnRepeat::Ignore),
];
/// `true` passes a death by a signal on as a code, also where bowout is not PID 1.
pub(super) const STATUS: Words<bool> = &[("auto", false), ("code", true), ("signal", false)];
pub(super) const NOTIFY: Words<Notify> = &[
    ("auto", Notify::Auto),
    ("exec", Notify::Exec),
    ("relay", Notify::Relay),
    ("off", Notify::Off),
];
pub(super) const FORMATS: Words<Format> = &[
    ("auto", Format::Auto),
    ("text", Format::Text),
    ("journal", Format::Journal),
    ("json", Format::Json),
];

pub(super) fn words<T>(table: Words<T>) -> Vec<&'static str> {
    table.iter().map(|(word, _)| *word).collect()
}

pub(super) fn word<T: Copy>(value: &OsStr, table: Words<T>) -> Result<T, String> {
    let value = text(value)?;
    let found = table.iter().find(|(word, _)| *word == value);
    found.map(|(_, meaning)| *meaning).ok_or_else(|| {
        let words = words(table);
        let meant = similar(value, words.iter().copied());
        let meant = meant.map(|word| format!(": did you mean {word}?"));
        format!(
            "'{value}' is not one of {}{}",
            words.join(", "),
            meant.unwrap_or_default()
        )
    })
}

pub(super) fn text(value: &OsStr) -> Result<&str, String> {
    value.to_str().ok_or_else(|| {
        format!(
            "'{}' is not UTF-8 text: see 'bowout --help'",
            value.display()
        )
    })
}

pub(super) fn parse<T: FromStr<Err = String>>(value: &OsStr) -> Result<T, String> {
    text(value)?.parse()
}

/// An empty name is a value that was left out.
pub(super) fn path(value: &OsStr) -> Result<PathBuf, String> {
    if value.is_empty() {
        Err("no name".into())
    } else {
        Ok(value.into())
    }
}

/// Sets `to` to the value that was read.
pub(super) fn put<T>(to: &mut T, value: Result<impl Into<T>, String>) -> Result<(), String> {
    *to = value?.into();
    Ok(())
}

/// Adds each element of a list with commas.
pub(super) fn list<T: FromStr<Err = String>>(value: &OsStr, to: &mut Vec<T>) -> Result<(), String> {
    let values: Result<Vec<T>, _> = text(value)?.split(',').map(str::parse).collect();
    values.map(|values| to.extend(values))
}

pub(super) fn signals(value: &OsStr) -> Result<SignalSet, String> {
    let mut words = text(value)?.split(',');
    words.try_fold(SignalSet::default(), |set, word| {
        Ok(set.with(catchable(word)?))
    })
}

pub(super) fn wait(value: &OsStr) -> Result<Option<Duration>, String> {
    parse_wait(text(value)?)
}

pub(super) fn max_runtime(value: &OsStr) -> Result<Option<Duration>, String> {
    match wait(value)? {
        Some(Duration::ZERO) => {
            Err("no command can run in no time: write never for no limit".into())
        }
        wait => Ok(wait),
    }
}

pub(super) fn watchdog_wait(value: &OsStr) -> Result<Option<Duration>, String> {
    match wait(value)? {
        Some(Duration::ZERO) => Err("no command is that fast: write never for no watchdog".into()),
        wait => Ok(wait),
    }
}

pub(super) fn ready_by(value: &OsStr) -> Result<ReadyBy, String> {
    let value = text(value)?;
    let number = value
        .strip_prefix("fd:")
        .and_then(|number| number.parse().ok());
    match number {
        Some(number @ 3..) => Ok(ReadyBy::Descriptor(number)),
        Some(_) => Err("descriptors 0 to 2 are stdin, stdout and stderr: write fd:3".into()),
        None if value == "notify" => Ok(ReadyBy::Notify),
        None => Err(format!("'{value}' is neither fd:N nor notify")),
    }
}

pub(super) fn stop_delay(value: &OsStr) -> Result<Duration, String> {
    wait(value)?
        .ok_or_else(|| "the stop signal would never be sent: write less than --grace".into())
}

pub(super) fn pre_kill_timeout(value: &OsStr) -> Result<Duration, String> {
    wait(value)?.ok_or_else(|| "SIGKILL waits for no hook: write a duration such as 5s".into())
}

/// A signal that the command can act on.
pub(super) fn stop_signal(value: &OsStr) -> Result<Signal, String> {
    match parse(value)? {
        Signal::KILL => {
            Err("no process can act on SIGKILL: write --grace 0 to kill at once".into())
        }
        Signal::STOP => Err("no process can act on SIGSTOP: write one such as TERM".into()),
        signal => Ok(signal),
    }
}

/// The letter of timeout(1) for a wait is that of --kill-mode here.
pub(super) fn kill_mode(value: &OsStr) -> Result<KillMode, String> {
    word(value, KILL_MODES).map_err(|why| match wait(value) {
        Ok(_) => format!("{why}: did you mean --grace {}?", value.display()),
        Err(_) => why,
    })
}

pub(super) fn switch(value: &OsStr) -> Result<bool, String> {
    let value = text(value)?;
    match value.to_ascii_lowercase().as_str() {
        "y" | "yes" | "t" | "true" | "on" | "1" => Ok(true),
        "n" | "no" | "f" | "false" | "off" | "0" => Ok(false),
        _ => Err(format!(
            "'{value}' is neither yes nor no: write true or false"
        )),
    }
}

pub(super) fn count(value: &OsStr) -> Result<u8, String> {
    let text = text(value)?;
    let number = text.parse().or_else(|_| switch(value).map(u8::from));
    number.map_err(|_| {
        format!("'{text}' is not a number: write how often the option would be given, such as 1")
    })
}

/// The names of an open descriptor mean that descriptor, whatever file such a link leads to.
pub(super) fn report_to(value: &OsStr) -> Result<ReportTo, String> {
    let prefixes = ["fd:", "/dev/fd/", "/proc/self/fd/"];
    let number = match value.to_str().unwrap_or_default() {
        "-" | "/dev/stdout" => "1",
        "/dev/stderr" => "2",
        word => match prefixes.iter().find_map(|prefix| word.strip_prefix(prefix)) {
            Some(number) => number,
            None => return path(value).map(ReportTo::File),
        },
    };
    let fd = number.parse().ok().filter(|fd| *fd >= 0);
    fd.map(ReportTo::Descriptor).ok_or_else(|| {
        format!("'{number}' is not a descriptor: write fd:3, or ./fd:{number} for a file")
    })
}
