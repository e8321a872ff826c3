//! The command line and the environment, read into a [`Draft`]. Checks each value alone; `config`
//! checks the options together.
//!
//! Nearly all command lines are read word by word ([`Line::spelt_out`]), because clap costs five
//! times the instructions of a whole start, and 90 kB. clap reads the others and reports faults.
//! Both call the setters of one table.

#[cfg(test)]
mod completions;
mod options;
#[cfg(test)]
mod tests;
mod usage_error;
mod values;

use std::ffi::{CStr, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::slice::Iter;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use options::{Kind, OPTIONS, Opt, definition};
use usage_error::{NO_COMMAND, explain, misread, misset, misspelt};
pub(crate) use usage_error::{Stop, alone};
use values::{FORMATS, word};

use crate::config::{Draft, Source, name_and_value};
use crate::log::Format;

/// The names under which bowout can be installed in place of another init. A Ctrl-C that a
/// user types in a shell under one of them is for the shell's command.
const INITS: [&str; 5] = [
    "docker-init",
    "podman-init",
    "tini",
    "dumb-init",
    "catatonit",
];

/// The part of its init's version that dockerd parses for `docker info` (moby, daemon/info_unix.go,
/// `parseInitVersion`).
const DOCKER_VERSION: &str = concat!(
    "tini version ",
    env!("CARGO_PKG_VERSION"),
    " - git.bowout\n"
);

/// Reads the words, the first of which is the program's name, and the environment: `variables`,
/// each `NAME=VALUE`.
///
/// # Errors
/// [`Stop`]: there is nothing to run.
pub(crate) fn parse<'a>(
    args: &[OsString],
    variables: impl Iterator<Item = &'a CStr>,
) -> Result<Draft, Stop> {
    let name = args
        .first()
        .and_then(|path| path.as_bytes().rsplit(|&byte| byte == b'/').next());
    let name = name.map(OsStr::from_bytes).unwrap_or_default();
    let line = Line::spelt_out(args).map_or_else(|| Line::by_clap(args, name), Ok)?;
    line.finish(args, name, variables)
}

/// A command line that is being read.
#[derive(Default)]
struct Line {
    draft: Draft,
    /// The index of the command in the words; their number where there is none.
    command: usize,
}

impl Line {
    /// Reads a command line whose options are spelt as the table has them. `None` leaves the line
    /// to clap: where anything is wrong, unusual or missing.
    fn spelt_out(args: &[OsString]) -> Option<Self> {
        let mut line = Self::default();
        let mut rest = args.get(1..)?.iter();
        while rest.as_slice().first()?.as_bytes().starts_with(b"-") {
            let word = rest.next()?.to_str()?;
            match word.strip_prefix("--") {
                Some("") => break,
                Some(long) => {
                    let equals = long.find('=');
                    let name = &long[..equals.unwrap_or(long.len())];
                    let is_named = |it: &&Opt| it.long == name || it.alias == Some(name);
                    let value = equals.map(|at| &long[at + 1..]);
                    line.take(OPTIONS.iter().find(is_named)?, value, &mut rest)?;
                }
                None => line.take_letters(word.get(1..)?, &mut rest)?,
            }
        }
        rest.as_slice().first()?;
        line.command = args.len() - rest.len();
        Some(line)
    }

    /// Sets options by their letters, the last of which can have a value after it.
    fn take_letters(&mut self, letters: &str, rest: &mut Iter<OsString>) -> Option<()> {
        let letter = letters.chars().next()?;
        let option = OPTIONS.iter().find(|option| option.short == Some(letter))?;
        match &letters[1..] {
            "" => self.take(option, None, rest),
            value if option.takes_value() => self.take(option, Some(value), rest),
            letters => {
                self.take(option, None, rest)?;
                self.take_letters(letters, rest)
            }
        }
    }

    /// Sets an option to the value that is `attached`, or to the next word.
    fn take(
        &mut self,
        option: &'static Opt,
        attached: Option<&str>,
        rest: &mut Iter<OsString>,
    ) -> Option<()> {
        let value = match (option.kind, attached) {
            (Kind::Letter | Kind::Switch | Kind::Count, None) => OsStr::new("yes"),
            (Kind::Letter | Kind::Switch | Kind::Count, Some(_)) => return None,
            (Kind::Attached(_, default), None) => OsStr::new(default),
            (Kind::Once(_) | Kind::Many(_), None) => rest.next()?,
            (_, Some(value)) => OsStr::new(value),
        };
        let repeated = self.draft.source_of(option.long).is_some()
            && !matches!(option.kind, Kind::Count | Kind::Many(_));
        if repeated || matches!(value.as_bytes(), [b'-' | b'=', ..]) {
            return None;
        }
        self.set(option, value).ok()
    }

    /// Reads a command line by clap, which knows abbreviations, the help and all faults. In a frame
    /// of its own, so that its stack is not touched where it is not needed.
    #[inline(never)]
    #[cold]
    fn by_clap(args: &[OsString], name: &OsStr) -> Result<Self, Stop> {
        let found = definition().try_get_matches_from(args);
        let found = found.map_err(|error| match error.kind() {
            ErrorKind::DisplayVersion if name == INITS[0] => Stop::Info(DOCKER_VERSION.into()),
            _ => explain(&error),
        })?;
        let mut line = Self::default();
        let is_typed =
            |option: &&Opt| found.value_source(option.long) == Some(ValueSource::CommandLine);
        for option in OPTIONS.iter().filter(is_typed) {
            for value in found.get_raw(option.long).into_iter().flatten() {
                // clap has called the same setter.
                line.set(option, value).map_err(Stop::Usage)?;
            }
        }
        let command = found.get_raw("command");
        line.command = args.len() - command.map_or(0, |words| words.len());
        Ok(line)
    }

    /// Adds the variables of the environment, and the command.
    fn finish<'a>(
        mut self,
        args: &[OsString],
        name: &OsStr,
        variables: impl Iterator<Item = &'a CStr>,
    ) -> Result<Draft, Stop> {
        self.read_variables(variables).map_err(Stop::Usage)?;
        let Some((command, arguments)) = args.get(self.command..).and_then(<[_]>::split_first)
        else {
            let alone = args.len() <= 1;
            return Err(if alone {
                Stop::Alone
            } else {
                Stop::Usage(NO_COMMAND.into())
            });
        };
        misread(&args[self.command - 1], command).map_err(Stop::Usage)?;
        let config = &mut self.draft.config;
        config.command.clone_from(command);
        config.args = arguments.to_vec();
        // With `--stop-on`, the keys count under any name of bowout.
        config.policy.keys_stop =
            config.policy.stop_on.is_some() || !INITS.iter().any(|init| *init == name);
        Ok(self.draft)
    }

    /// Sets the options that the environment gives and the command line does not.
    fn read_variables<'a>(
        &mut self,
        variables: impl Iterator<Item = &'a CStr>,
    ) -> Result<(), String> {
        self.draft.source = Source::Environment;
        for (name, value) in variables.filter_map(name_and_value) {
            let Some(name) = name.strip_prefix(b"BOWOUT_") else {
                continue;
            };
            match OPTIONS.iter().find(|option| option.has_variable(name)) {
                Some(option) if self.draft.source_of(option.long).is_some() => {}
                Some(option) => self
                    .set(option, OsStr::from_bytes(value))
                    .map_err(|why| misset(option, &why))?,
                None => self.draft.misspelt.extend(misspelt(name)),
            }
        }
        Ok(())
    }

    fn set(&mut self, option: &'static Opt, value: &OsStr) -> Result<(), String> {
        self.draft.give(option.long);
        (option.set)(&mut self.draft, value)
    }
}

/// The format for an error that prevents the command line from being read: that of the option or of
/// the variable, if it is valid.
#[cold]
pub(crate) fn log_format(args: &[OsString]) -> Format {
    let words = args.iter().take_while(|word| *word != "--");
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    let value = |at: usize| match words[at].strip_prefix("--log-format")? {
        "" => words.get(at + 1).map(AsRef::as_ref),
        value => value.strip_prefix('='),
    };
    let typed = (1..words.len()).rev().find_map(value);
    let variable = std::env::var("BOWOUT_LOG_FORMAT").unwrap_or_default();
    word(typed.unwrap_or(&variable).as_ref(), FORMATS).unwrap_or_default()
}
