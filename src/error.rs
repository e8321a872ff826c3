//! What keeps bowout from doing its work: one line for the user, and the code it ends with.

use std::fmt;

use crate::exit::Exit;

/// A failure before the child is there, or the command's own refusal to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Error {
    message: String,
    exit: Exit,
}

impl Error {
    /// Bad input, or a system call that failed before the spawn: 125.
    pub(crate) fn own(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            exit: Exit::OWN_FAILURE,
        }
    }

    /// The command cannot be run: 126 or 127.
    pub(crate) fn exec(message: impl Into<String>, exit: Exit) -> Self {
        Self {
            message: message.into(),
            exit,
        }
    }

    /// What bowout ends with.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
