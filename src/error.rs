//! A failure that ends bowout: one line for the user, and the exit code.

use std::fmt;

use crate::exit::Exit;

/// Why the command cannot be started or run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Error {
    message: String,
    exit: Exit,
}

impl Error {
    /// Bad input, or a system call that failed before the command was started: 125.
    pub(crate) fn own(message: impl Into<String>) -> Self {
        Self::exec(message, Exit::OWN_FAILURE)
    }

    /// The command cannot be run: 126 or 127.
    pub(crate) fn exec(message: impl Into<String>, exit: Exit) -> Self {
        Self {
            message: message.into(),
            exit,
        }
    }

    /// How bowout exits.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
