//! The log: env_logger, set up to write to stderr in one of three forms. Owns the forms; `sys::stderr` owns the writing.

use std::borrow::Cow;
use std::io::Write;

use env_logger::{Builder, Target};
use humantime::format_rfc3339_millis;
use log::{Level, LevelFilter, Record};

use crate::error::Error;
use crate::sys;

/// The form of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Format {
    /// The journal's where stderr is the journal, else text.
    #[default]
    Auto,
    /// `bowout: MESSAGE`.
    Text,
    /// The same behind its priority, `<N>` (sd-daemon(3)).
    Journal,
    /// One object a line.
    Json,
}

/// How often `-v` and `-q` were given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verbosity {
    pub(crate) more: u8,
    pub(crate) less: u8,
    /// Typed, and so worth more than [`FILTER`]; their own variables are worth less, for the filter says it closer.
    pub(crate) typed: bool,
}

impl Verbosity {
    /// The level; `None` where nothing was said, so that the environment may say it.
    fn level(self) -> Option<LevelFilter> {
        match i16::from(self.more) - i16::from(self.less) {
            _ if (self.more, self.less) == (0, 0) => None,
            ..=-3 => Some(LevelFilter::Off),
            -2 => Some(LevelFilter::Error),
            -1 => Some(LevelFilter::Warn),
            0 => Some(LevelFilter::Info),
            1 => Some(LevelFilter::Debug),
            2.. => Some(LevelFilter::Trace),
        }
    }
}

/// The variable with env_logger's filter. `RUST_LOG` is the command's own business (peers C3.36).
const FILTER: &str = "BOWOUT_LOG";

/// Sets the log up, once. What is typed wins over [`FILTER`].
///
/// # Errors
/// A filter that cannot be read; the log is set up without it then, so that the error can be told.
pub(crate) fn init(verbosity: Verbosity, format: Format) -> Result<(), Error> {
    let format = match format {
        Format::Auto if sys::stderr::is_journal() => Format::Journal,
        Format::Auto => Format::Text,
        Format::Text | Format::Journal | Format::Json => format,
    };
    let mut builder = Builder::new();
    builder.filter_level(LevelFilter::Info);
    let mut result = Ok(());
    if let Some(level) = verbosity.level() {
        builder.filter_level(level);
    }
    if let Some(filter) = sys::environment::value(FILTER).filter(|filter| !verbosity.typed && !filter.is_empty()) {
        // Tried first on the parser below env_logger's, which would print to stderr and panic if it could not.
        let filter = filter.to_string_lossy();
        if let Err(error) = env_filter::Builder::new().try_parse(&filter) {
            let filter = escape(&filter);
            result = Err(Error::own(format!("bad {FILTER} '{filter}': {error}; write a level, such as debug")));
        } else {
            builder.parse_filters(&filter);
        }
    }
    let notice = move |lost: u64| {
        let lines = if lost == 1 { "line was" } else { "lines were" };
        line(format, Level::Warn, &format!("{lost} log {lines} lost: stderr could not take them"))
    };
    builder
        .target(Target::Pipe(Box::new(sys::stderr::Stderr::new(notice))))
        .format(move |out, record: &Record<'_>| {
            out.write_all(line(format, record.level(), &record.args().to_string()).as_bytes())
        })
        .init();
    result
}

fn line(format: Format, level: Level, message: &str) -> String {
    match format {
        Format::Auto | Format::Text => match level {
            Level::Error | Level::Warn | Level::Info => format!("bowout: {message}\n"),
            Level::Debug | Level::Trace => format!("bowout: {}: {message}\n", level.as_str().to_lowercase()),
        },
        Format::Journal => {
            let priority = match level {
                Level::Error => 3,
                Level::Warn => 4,
                Level::Info => 6,
                Level::Debug | Level::Trace => 7,
            };
            format!("<{priority}>bowout: {message}\n")
        }
        Format::Json => {
            let string = |text: &str| serde_json::Value::from(text).to_string();
            format!(
                "{{\"time\":\"{}\",\"level\":\"{}\",\"pid\":{},\"message\":{}}}\n",
                format_rfc3339_millis(now()),
                level.as_str().to_lowercase(),
                sys::process::id(),
                string(message)
            )
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "a line of JSON says when")]
fn now() -> std::time::SystemTime {
    std::time::SystemTime::now()
}

/// Text from outside, for a line of ours: a newline or a terminal's escape sequence in it must not look like ours, nor may the text
/// behind it be shown from right to left.
pub(crate) fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if steers(c) { escaped.extend(c.escape_default()) } else { escaped.push(c) }
    }
    Cow::Owned(escaped)
}

/// Control characters, and of those that format a text the ones that end a line or turn its direction (Unicode: `Zl`, `Zp`,
/// `Bidi_Control`).
fn steers(c: char) -> bool {
    let formats = ['\u{61c}'..='\u{61c}', '\u{200e}'..='\u{200f}', '\u{2028}'..='\u{202e}', '\u{2066}'..='\u{2069}'];
    c.is_control() || formats.iter().any(|range| range.contains(&c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_journal_are_one_line_with_the_name() {
        assert_eq!(line(Format::Text, Level::Info, "x"), "bowout: x\n");
        assert_eq!(line(Format::Text, Level::Debug, "x"), "bowout: debug: x\n");
        assert_eq!(line(Format::Journal, Level::Warn, "x"), "<4>bowout: x\n");
    }

    #[test]
    fn json_is_one_object_whatever_the_message() {
        let text = line(Format::Json, Level::Error, "a \"b\"\n\u{1b}[1m \\");
        assert_eq!(text.matches('\n').count(), 1);
        let object: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (object["level"].as_str(), object["message"].as_str()),
            (Some("error"), Some("a \"b\"\n\u{1b}[1m \\"))
        );
        assert!(humantime::parse_rfc3339(object["time"].as_str().unwrap()).is_ok());
    }

    #[test]
    fn verbosity_has_five_steps_and_a_silence() {
        let level = |more, less| Verbosity { more, less, typed: true }.level();
        assert_eq!([level(0, 0), level(1, 1)], [None, Some(LevelFilter::Info)]);
        assert_eq!([level(1, 0), level(9, 0)], [Some(LevelFilter::Debug), Some(LevelFilter::Trace)]);
        assert_eq!(
            [level(0, 1), level(0, 2), level(0, 200)],
            [Some(LevelFilter::Warn), Some(LevelFilter::Error), Some(LevelFilter::Off)]
        );
    }

    #[test]
    fn nothing_from_outside_can_fake_a_line() {
        assert_eq!(escape("a\nbowout: b\x1b[2J\u{9b}é'"), "a\\nbowout: b\\u{1b}[2J\\u{9b}é'");
        assert_eq!(
            escape("a\u{2028}b\u{202e}c\u{2069}d\u{200f}e\u{61c}"),
            "a\\u{2028}b\\u{202e}c\\u{2069}d\\u{200f}e\\u{61c}"
        );
        // What people write in is theirs.
        assert_eq!(escape("ā à שלום 日本 \u{200d}"), "ā à שלום 日本 \u{200d}");
    }
}
