//! The log: env_logger, set up to write to stderr in one of three formats. This module owns the
//! formats; `sys::stderr` owns the writing.

use std::borrow::Cow;
use std::fmt;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use env_logger::{Builder, Target};
use humantime::format_rfc3339_millis;
use log::kv::{self, Key};
use log::{Level, LevelFilter, Record};
use serde_json::Value;

use crate::error::Error;
use crate::suggest::similar;
use crate::sys;

/// The name under which bowout logs all lines, for a filter such as `BOWOUT_LOG=bowout=debug`.
pub(crate) const TARGET: &str = "bowout";
/// The variable with a level, or a filter in env_logger's syntax. `RUST_LOG` is left to the
/// command.
const FILTER: &str = "BOWOUT_LOG";
/// The key of the JSON members in a record.
const MEMBERS: &str = "members";

/// True if the format is JSON: no other format prints members, and they cost 20,000 instructions a
/// line. Static: any module logs.
static JSON: AtomicBool = AtomicBool::new(false);

/// The format of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Format {
    /// That of the journal if stderr is the journal, else text.
    #[default]
    Auto,
    /// `bowout: MESSAGE`.
    Text,
    /// The same after its priority, `<N>` (sd-daemon(3)).
    Journal,
    /// One object a line.
    Json,
}

/// How often `-v` and `-q` were given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verbosity {
    /// Up for each `-v`, down for each `-q`.
    pub(crate) steps: i16,
    /// Typed: wins over [`FILTER`]. The variables of these options lose to it, because the filter
    /// is more specific.
    pub(crate) typed: bool,
}

impl Verbosity {
    /// The level; `Info` without any of these options.
    fn level(self) -> LevelFilter {
        let number = (LevelFilter::Info as i16).saturating_add(self.steps).max(0);
        let level = LevelFilter::iter().nth(number as usize);
        level.unwrap_or(LevelFilter::Trace)
    }
}

/// Sets up the log, once. A typed level wins over [`FILTER`].
///
/// # Errors
/// A filter that cannot be read; the log then works without it and can report the error.
pub(crate) fn init(verbosity: Verbosity, format: Format) -> Result<(), Error> {
    let format = match format {
        Format::Auto if sys::stderr::is_journal() => Format::Journal,
        format => format,
    };
    JSON.store(format == Format::Json, Ordering::Relaxed);
    let mut builder = Builder::new();
    builder.filter_level(verbosity.level());
    let filter =
        sys::environment::value(FILTER).filter(|filter| !verbosity.typed && !filter.is_empty());
    let result = filter.map_or(Ok(()), |filter| {
        let filter = filter.to_string_lossy();
        check(&filter).inspect(|()| _ = builder.parse_filters(&filter))
    });
    let notice = move |lost: u64| {
        let lines = if lost == 1 { "line was" } else { "lines were" };
        let message = format!("{lost} log {lines} lost: stderr could not take them");
        let members = members("log_lines_lost", &[("count", lost.into())]);
        line(format, Level::Warn, &members, &message)
    };
    builder
        .target(Target::Pipe(Box::new(sys::stderr::Stderr::new(notice))))
        .format(move |out, record: &Record<'_>| {
            let members = record.key_values().get(Key::from(MEMBERS));
            let members = members
                .as_ref()
                .and_then(kv::Value::to_borrowed_str)
                .unwrap_or_default();
            out.write_all(line(format, record.level(), members, record.args()).as_bytes())
        })
        .init();
    result
}

/// Returns an error if env_logger cannot read a filter.
fn check(filter: &str) -> Result<(), Error> {
    if let Some(part) = bad_part(filter) {
        const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
        let hint = match similar(part.trim_start_matches("bowout="), LEVELS) {
            Some(level) => format!("did you mean {level}?"),
            None => format!("write {}", LEVELS.join(", ")),
        };
        return Err(Error::own(format!(
            "{FILTER}: '{part}' is not a level: {hint}"
        )));
    }
    // env_logger would print this error itself, and panic if it could not.
    env_filter::Builder::new()
        .try_parse(filter)
        .map(drop)
        .map_err(|error| {
            Error::own(format!(
                "bad {FILTER} '{filter}': {error}; write a level, such as debug"
            ))
        })
}

/// The first part of a filter that has no effect: env_logger takes each unknown word for the name
/// of a module.
fn bad_part(filter: &str) -> Option<&str> {
    let is_level = |word: &str| word.parse::<LevelFilter>().is_ok();
    let is_known = |part: &&str| match part.split_once('=') {
        None => part.is_empty() || *part == TARGET || is_level(part),
        Some((name, level)) => name.trim() == TARGET && is_level(level.trim()),
    };
    let mut parts = filter.split('/').next()?.split(',').map(str::trim);
    parts.find(|part| !is_known(part))
}

/// Logs a line: `message` for people, `event` and its `fields` for programs that read
/// `--log-format json`.
pub(crate) fn log(
    level: Level,
    event: &'static str,
    fields: &[(&'static str, Value)],
    message: fmt::Arguments<'_>,
) {
    if !log::log_enabled!(target: TARGET, level) {
        return;
    }
    let members = if JSON.load(Ordering::Relaxed) {
        members(event, fields)
    } else {
        String::new()
    };
    let members = [(MEMBERS, members.as_str())];
    let record = Record::builder()
        .target(TARGET)
        .level(level)
        .key_values(&members)
        .args(message)
        .build();
    log::logger().log(&record);
}

/// Logs a line; evaluates neither its fields nor its message if its level is not logged:
/// `event!(Level::Warn, "report_failed", errno = 5; "cannot write report: {error}")`.
macro_rules! event {
    ($level:expr, $event:expr $(, $field:ident = $value:expr)* ; $($message:tt)+) => {
        if ::log::log_enabled!(target: $crate::log::TARGET, $level) {
            let fields = [$((stringify!($field), serde_json::Value::from($value))),*];
            $crate::log::log($level, $event, &fields, format_args!($($message)+));
        }
    };
}
pub(crate) use event;

/// The event and its fields as members of a JSON object, each after a comma. The record carries
/// them as one text: the values of the log crate would bring the code that prints floating-point
/// numbers.
fn members(event: &str, fields: &[(&'static str, Value)]) -> String {
    let fields = fields
        .iter()
        .map(|(name, value)| format!(",\"{name}\":{}", plain_json(value)));
    format!(",\"event\":\"{event}\"{}", fields.collect::<String>())
}

/// A line of the log. `members` belong to JSON alone.
fn line(format: Format, level: Level, members: &str, message: &impl fmt::Display) -> String {
    let name = level.as_str().to_lowercase();
    match format {
        Format::Auto | Format::Text if level <= Level::Info => format!("bowout: {message}\n"),
        Format::Auto | Format::Text => format!("bowout: {name}: {message}\n"),
        Format::Journal => {
            let priority = [3, 4, 6, 7, 7][level as usize - Level::Error as usize];
            format!("<{priority}>bowout: {message}\n")
        }
        Format::Json => {
            #[allow(clippy::disallowed_methods, reason = "a line of JSON has a time stamp")]
            let now = std::time::SystemTime::now();
            let members = if members.is_empty() {
                ",\"event\":\"message\""
            } else {
                members
            };
            format!(
                "{{\"time\":\"{}\",\"level\":\"{name}\",\"logger\":\"bowout\",\"pid\":{}{members},\"message\":{}}}\n",
                format_rfc3339_millis(now),
                sys::this_process::known_as(),
                plain_json(&message.to_string().into())
            )
        }
    }
}

/// Escapes text from outside for a line of the log: neither a newline nor a terminal's escape
/// sequence in it looks like bowout's, and no text after it is shown from right to left.
pub(crate) fn escape(text: &str) -> Cow<'_, str> {
    escape_with(text, |c| c.escape_default().to_string())
}

/// JSON without characters that steer a terminal. Each becomes an escape that a program reads as
/// the character (RFC 8259, section 7).
fn plain_json(value: &Value) -> String {
    escape_with(&value.to_string(), |c| format!("\\u{:04x}", u32::from(c))).into_owned()
}

/// Escapes each character that steers a terminal.
fn escape_with(text: &str, escape: impl Fn(char) -> String) -> Cow<'_, str> {
    if !text.contains(steers) {
        return text.into();
    }
    text.chars()
        .map(|c| if steers(c) { escape(c) } else { c.into() })
        .collect()
}

/// Control characters, and those that end a line or turn its direction (Unicode: `Zl`, `Zp`,
/// `Bidi_Control`).
fn steers(c: char) -> bool {
    let formats = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    formats || c.is_control()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_journal_are_one_line_with_the_name() {
        let line = |format, level| line(format, level, &members("e", &[("n", 1.into())]), &"x");
        assert_eq!(line(Format::Text, Level::Info), "bowout: x\n");
        assert_eq!(line(Format::Text, Level::Debug), "bowout: debug: x\n");
        assert_eq!(line(Format::Journal, Level::Warn), "<4>bowout: x\n");
    }

    #[test]
    fn json_is_one_object_whatever_the_message() {
        let text = line(
            Format::Json,
            Level::Error,
            &members("e", &[]),
            &"a \"b\"\n\u{1b}[1m \\",
        );
        assert_eq!(text.matches('\n').count(), 1);
        let object: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (object["level"].as_str(), object["message"].as_str()),
            (Some("error"), Some("a \"b\"\n\u{1b}[1m \\"))
        );
        assert!(humantime::parse_rfc3339(object["time"].as_str().unwrap()).is_ok());
    }

    #[test]
    fn json_holds_the_event_and_its_fields() {
        let fields = [
            ("signal", "SIG\"TERM\n\u{85}\u{202e}".into()),
            (
                "sender",
                serde_json::json!({ "side": "outside", "pid": null }),
            ),
            ("grace_ms", 8000.into()),
            ("default", true.into()),
        ];
        let text = line(
            Format::Json,
            Level::Info,
            &members("stop_requested", &fields),
            &"x",
        );
        assert!(!text.trim_end().contains(steers), "{text:?}");
        let object: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&object["logger"], &object["event"]),
            (&"bowout".into(), &"stop_requested".into())
        );
        for (name, value) in fields {
            assert_eq!(object[name], value);
        }
    }

    #[test]
    fn json_has_an_event_without_one() {
        let object: Value =
            serde_json::from_str(&line(Format::Json, Level::Info, "", &"x")).unwrap();
        assert_eq!(object["event"], "message");
    }

    #[test]
    fn verbosity_has_five_steps_and_a_silence() {
        let level = |steps| {
            let typed = true;
            Verbosity { steps, typed }.level()
        };
        assert_eq!(level(0), LevelFilter::Info);
        assert_eq!(
            [1, 2, 9, i16::MAX].map(level),
            [
                LevelFilter::Debug,
                LevelFilter::Trace,
                LevelFilter::Trace,
                LevelFilter::Trace
            ]
        );
        assert_eq!(
            [-1, -2, -3, i16::MIN].map(level),
            [
                LevelFilter::Warn,
                LevelFilter::Error,
                LevelFilter::Off,
                LevelFilter::Off
            ]
        );
    }

    #[test]
    fn a_filter_of_unknown_words_is_found() {
        for filter in [
            "info",
            "DEBUG",
            "off",
            "",
            "debug/text",
            "bowout",
            "bowout=debug",
            " warn , bowout = trace",
            "info/a,b",
        ] {
            assert_eq!(bad_part(filter), None, "{filter}");
        }
        for (filter, part) in [
            ("inof", "inof"),
            ("2", "2"),
            ("info,mio=warn", "mio=warn"),
            ("bowout=inof", "bowout=inof"),
            ("bowout=", "bowout="),
            ("a=b=c", "a=b=c"),
            ("x/info", "x"),
        ] {
            assert_eq!(bad_part(filter), Some(part), "{filter}");
        }
    }

    #[test]
    fn nothing_from_outside_can_fake_a_line() {
        assert_eq!(
            escape("a\nbowout: b\x1b[2J\u{9b}é'"),
            "a\\nbowout: b\\u{1b}[2J\\u{9b}é'"
        );
        assert_eq!(
            escape("a\u{2028}b\u{202e}c\u{2069}d\u{200f}e\u{61c}"),
            "a\\u{2028}b\\u{202e}c\\u{2069}d\\u{200f}e\\u{61c}"
        );
        // The letters and joiners of all scripts stay as they are.
        assert_eq!(escape("ā à שלום 日本 \u{200d}"), "ā à שלום 日本 \u{200d}");
    }
}
