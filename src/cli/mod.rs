//! The command line and the environment, read into a [`Draft`]. Checks each value alone; what the
//! options mean together is checked in `config`.
//!
//! Nearly all command lines are read word by word ([`Line::spelt_out`]), as the code of clap costs
//! five times the instructions of a whole start, and 90 kB. Clap reads the others, and finds the
//! faults. Both call the setters of one table.

#[cfg(test)]
mod completions;
mod options;
#[cfg(test)]
mod tests;
mod usage_error;
mod values;

use std::ffi::{CStr, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use options::{Kind, Opt, definition, options};
pub(crate) use usage_error::Stop;
use usage_error::{NO_COMMAND, explain, misread, misset, misspelt};
use values::{FORMATS, word};

use crate::config::{Draft, Origin, Source};
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

/// What dockerd parses of its init for `docker info` (moby, daemon/info_unix.go,
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
    let line = match Line::spelt_out(args) {
        Some(line) => line,
        None => Line::by_clap(args, name)?,
    };
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
    /// Reads a command line whose options are spelt as the table has them. `None` leaves the line to
    /// clap: where anything is wrong, unusual or missing.
    fn spelt_out(args: &[OsString]) -> Option<Self> {
        let mut line = Self::default();
        let mut rest = args.get(1..)?;
        loop {
            let (word, after) = rest.split_first()?;
            if !word.as_bytes().starts_with(b"-") {
                break;
            }
            rest = after;
            match word.to_str()?.split_at(1).1 {
                "" => return None,
                "-" => break,
                long if long.starts_with('-') => {
                    let (name, value) = match long[1..].split_once('=') {
                        Some((name, value)) => (name, Some(value)),
                        None => (&long[1..], None),
                    };
                    let option = options()
                        .find(|option| option.long == name || option.alias == Some(name))?;
                    rest = line.take(option, value, rest)?;
                }
                mut letters => {
                    while let Some(letter) = letters.chars().next() {
                        let option = options().find(|option| option.short == Some(letter))?;
                        letters = &letters[1..];
                        let mut value = None;
                        if option.takes_value() && !letters.is_empty() {
                            value = Some(std::mem::take(&mut letters));
                        }
                        rest = line.take(option, value, rest)?;
                    }
                }
            }
        }
        rest.first()?;
        line.command = args.len() - rest.len();
        Some(line)
    }

    /// Sets an option to the value that is `attached`, or to the next word. Returns the words after
    /// it.
    fn take<'a>(
        &mut self,
        option: &'static Opt,
        attached: Option<&str>,
        rest: &'a [OsString],
    ) -> Option<&'a [OsString]> {
        let repeats = matches!(option.kind, Kind::Count | Kind::Many(_));
        if self.is_given(option) && !repeats {
            return None;
        }
        let attached = attached.map(OsStr::new);
        let (value, rest) = match option.kind {
            _ if !option.takes_value() && attached.is_some() => return None,
            Kind::Letter | Kind::Switch | Kind::Count => (OsStr::new("yes"), rest),
            Kind::Attached(_, default) => (attached.unwrap_or(OsStr::new(default)), rest),
            Kind::Once(_) | Kind::Many(_) => match (attached, rest) {
                (Some(value), _) => (value, rest),
                (None, [value, rest @ ..]) => (value.as_os_str(), rest),
                (None, []) => return None,
            },
        };
        if matches!(value.as_bytes(), [] | [b'-' | b'=', ..]) {
            return None;
        }
        self.set(option, value).ok()?;
        Some(rest)
    }

    /// Reads a command line by clap, which knows abbreviations, the help and all faults. In a frame of
    /// its own, so that its stack is not touched where it is not needed.
    #[inline(never)]
    #[cold]
    fn by_clap(args: &[OsString], name: &OsStr) -> Result<Self, Stop> {
        let found = definition().try_get_matches_from(args);
        let found = found.map_err(|error| match error.kind() {
            ErrorKind::DisplayVersion if name == INITS[0] => Stop::Info(DOCKER_VERSION.into()),
            _ => explain(&error),
        })?;
        let mut line = Self::default();
        let typed =
            |option: &&Opt| found.value_source(option.long) == Some(ValueSource::CommandLine);
        let yes = OsStr::new("yes");
        for option in options().filter(typed) {
            let values: Vec<&OsStr> = match option.kind {
                Kind::Letter | Kind::Switch => vec![yes],
                Kind::Count => vec![yes; found.get_count(option.long).into()],
                Kind::Once(_) | Kind::Many(_) | Kind::Attached(..) => {
                    let values = found
                        .get_many::<OsString>(option.long)
                        .into_iter()
                        .flatten();
                    values.map(OsString::as_os_str).collect()
                }
            };
            for value in values {
                // clap has called the same setter.
                line.set(option, value).map_err(Stop::Usage)?;
            }
        }
        let command = found.get_many::<OsString>("command");
        line.command = args.len() - command.map_or(0, |words| words.len());
        Ok(line)
    }

    /// Adds what the environment says, and the command.
    fn finish<'a>(
        mut self,
        args: &[OsString],
        name: &OsStr,
        variables: impl Iterator<Item = &'a CStr>,
    ) -> Result<Draft, Stop> {
        self.read_variables(variables).map_err(Stop::Usage)?;
        let Some((command, arguments)) = args.get(self.command..).and_then(<[_]>::split_first)
        else {
            return Err(match args {
                [] | [_] => Stop::Alone,
                _ => Stop::Usage(NO_COMMAND.into()),
            });
        };
        if let Some(why) = misread(&args[self.command - 1], command) {
            return Err(Stop::Usage(why));
        }
        let config = &mut self.draft.config;
        config.command.clone_from(command);
        config.args = arguments.to_vec();
        // `--stop-on` means it, whatever the name.
        config.policy.keys_stop =
            config.policy.stop_on.is_some() || !INITS.iter().any(|init| *init == name);
        Ok(self.draft)
    }

    /// Sets what the environment says and the command line does not. Templates of compose files and
    /// pods make empty variables where they mean none.
    fn read_variables<'a>(
        &mut self,
        variables: impl Iterator<Item = &'a CStr>,
    ) -> Result<(), String> {
        self.draft.source = Source::Environment;
        for variable in variables {
            let parts = variable.to_bytes().strip_prefix(b"BOWOUT_");
            let mut parts = parts.unwrap_or_default().splitn(2, |&byte| byte == b'=');
            let (Some(name), Some(value @ [_, ..])) = (parts.next(), parts.next()) else {
                continue;
            };
            match options().find(|option| option.has_variable(name)) {
                Some(option) if self.is_given(option) => {}
                Some(option) => self
                    .set(option, OsStr::from_bytes(value))
                    .map_err(|why| misset(option, &why))?,
                None => self.draft.misspelt.extend(misspelt(name)),
            }
        }
        Ok(())
    }

    fn is_given(&self, option: &Opt) -> bool {
        let mut origins = self.draft.config.origins.iter();
        origins.any(|origin| origin.option == option.long)
    }

    fn set(&mut self, option: &'static Opt, value: &OsStr) -> Result<(), String> {
        self.draft.config.origins.push(Origin {
            option: option.long,
            source: self.draft.source,
        });
        (option.set)(&mut self.draft, value)
    }
}

/// The format for an error that prevents the command line from being read: that of the option or of
/// the variable, if it is valid.
#[cold]
pub(crate) fn log_format(args: &[OsString]) -> Format {
    const OPTION: &str = "--log-format";
    let mut typed = None;
    let options: Vec<_> = args
        .iter()
        .skip(1)
        .take_while(|word| *word != "--")
        .collect();
    for (at, word) in options.iter().enumerate() {
        let word = word.to_string_lossy();
        match word.strip_prefix(OPTION) {
            Some("") => {
                typed = options
                    .get(at + 1)
                    .map(|word| word.to_string_lossy().into_owned());
            }
            Some(value) if value.starts_with('=') => typed = Some(value[1..].to_owned()),
            _ => {}
        }
    }
    let variable = || std::env::var("BOWOUT_LOG_FORMAT").unwrap_or_default();
    word(typed.unwrap_or_else(variable).as_ref(), FORMATS).unwrap_or_default()
}
