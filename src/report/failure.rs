//! The report of a bowout that could not start the command, and the fields that every report has.

use std::ffi::OsString;

use serde_json::{Value, json};

use crate::error::Error;
use crate::exit::Exit;

/// The version of the report: it grows where a field changes its meaning or is removed.
pub(super) const SCHEMA: u64 = 1;

/// The report of a bowout that could not start the command.
pub(crate) fn failure<'a>(command: impl Iterator<Item = &'a OsString>, error: &Error) -> String {
    let words = command.map(|word| word.to_string_lossy());
    let report = json!({
        "schema": SCHEMA,
        "bowout": env!("CARGO_PKG_VERSION"),
        "command": words.collect::<Vec<_>>(),
        "error": error.to_string(),
        "error_code": error_code(error.exit()),
        "exit": how(error.exit(), None),
    });
    format!("{report}\n")
}

/// The kind of failure that has this exit code.
pub(super) fn error_code(exit: Exit) -> &'static str {
    match exit {
        Exit::CANNOT_RUN => "cannot_run",
        Exit::NOT_FOUND => "not_found",
        _ => "own_failure",
    }
}

/// A code, or a death with its signal; both with the number that a shell would show.
pub(super) fn how(exit: Exit, core: Option<bool>) -> Value {
    let mut how = match exit {
        Exit::Code(code) => json!({ "code": code }),
        Exit::Signal(signal) => json!({ "signal": signal.to_string() }),
    };
    how["number"] = exit.number().into();
    if let (Exit::Signal(_), Some(core)) = (exit, core) {
        how["core"] = core.into();
    }
    how
}
