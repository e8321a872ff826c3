//! The command line: exactly what was typed, or came from a `BOWOUT_…` variable. Checks words one
//! by one; what they mean together is `config`'s. Does nothing but read.

#[cfg(test)]
mod completions;
mod options;
#[cfg(test)]
mod tests;
mod usage_error;

use std::ffi::{CStr, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use clap::ArgMatches;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use options::{FORMATS, definition};
use usage_error::{NO_COMMAND, explain, misread, misspelt};

use crate::exit::{Mirror, Recode};
use crate::log::{Format, Verbosity};
use crate::policy::{KillMode, Ladder, OnRepeat};
use crate::signal::{Rewrite, Signal, SignalSet};

/// The names of those that bowout can be installed in the place of. Whoever uses them at a terminal
/// means the command by Ctrl-C.
const INITS: [&str; 5] = [
    "docker-init",
    "podman-init",
    "tini",
    "dumb-init",
    "catatonit",
];

/// What dockerd parses of its init for `docker info` (contract C13).
const DOCKER_VERSION: &str = concat!(
    "tini version ",
    env!("CARGO_PKG_VERSION"),
    " - git.bowout\n"
);

/// The environment variables that set no option: the log's filter, and those that bowout sets for
/// hooks, which a bowout in a hook inherits.
const OTHER_VARIABLES: [&str; 7] = [
    "BOWOUT_LOG",
    "BOWOUT_CHILD_PID",
    "BOWOUT_SIGNAL",
    "BOWOUT_GRACE_LEFT_MS",
    "BOWOUT_REASON",
    "BOWOUT_EXIT_CODE",
    "BOWOUT_EXIT_SIGNAL",
];

/// A value and whether it was typed or came from the environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Given<T> {
    pub(crate) value: T,
    /// Typed; the environment gives way to it.
    pub(crate) typed: bool,
}

/// What is done for a command that speaks to a service manager, or for a manager whose service does
/// not (sd_notify(3)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Notify {
    /// A relay where there is a NOTIFY_SOCKET.
    #[default]
    Auto,
    /// As auto; and bowout itself says that the service is ready when the command is being run.
    Exec,
    /// A relay, even if there is nobody to pass anything on to: the command can ask for more time.
    Relay,
    /// Nothing: the command finds NOTIFY_SOCKET as bowout did.
    Off,
}

/// Where `--report` is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReportTo {
    File(PathBuf),
    /// `fd:N`.
    Descriptor(i32),
}

/// Where Kubernetes looks for a message by default.
const TERMINATION_LOG: &str = "/dev/termination-log";

/// A duration or `never`; a type of its own, for clap takes an `Option` to be an option that was
/// not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wait(pub(crate) Option<Duration>);

/// What the user said. `None` and empty are "nothing said".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cli {
    pub(crate) command: OsString,
    pub(crate) args: Vec<OsString>,
    /// Called by the name of an init that stands in front of shells and REPLs ([`INITS`]).
    pub(crate) as_init: bool,
    pub(crate) grace: Option<Given<Option<Duration>>>,
    pub(crate) escalate: Option<Given<Ladder>>,
    pub(crate) stop_signal: Option<Given<Signal>>,
    pub(crate) stop_on: Option<SignalSet>,
    pub(crate) on_repeat: OnRepeat,
    pub(crate) grace_max: Option<Given<Wait>>,
    pub(crate) stop_delay: Option<Given<Duration>>,
    pub(crate) pre_stop: Vec<OsString>,
    pub(crate) max_runtime: Option<Duration>,
    pub(crate) kill_mode: Option<Given<KillMode>>,
    /// `-g`.
    pub(crate) group: bool,
    /// `-c`.
    pub(crate) single_child: bool,
    /// There is one only where it is true.
    pub(crate) wait_tree: Option<Given<bool>>,
    pub(crate) remap: Vec<Rewrite>,
    pub(crate) remap_exit: Vec<Recode>,
    pub(crate) exit_status: Mirror,
    pub(crate) parent_death_signal: Option<Signal>,
    pub(crate) warn_on_reap: bool,
    pub(crate) notify: Notify,
    pub(crate) report: Option<ReportTo>,
    pub(crate) termination_log: Option<PathBuf>,
    pub(crate) verbosity: Verbosity,
    pub(crate) log_format: Format,
    /// Variables that are probably misspelt, and what was meant: a warning, which can be logged
    /// once the log is set up.
    pub(crate) misspelt: Option<String>,
}

/// Why there is nothing to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Help or the version was asked for; this is it.
    Info(String),
    /// One line that says what is wrong.
    Usage(String),
    /// `bowout` and nothing else was typed.
    Alone,
}

impl Stop {
    /// What is said of [`Stop::Alone`]: to a person, who has room for more than a line, what bowout
    /// is and how it is used.
    pub(crate) fn alone(to_a_person: bool) -> &'static str {
        if to_a_person { WELCOME } else { NO_COMMAND }
    }
}

const WELCOME: &str = "\
no command given. bowout runs a command and makes it end well.

    bowout -- sleep 1000                 Ctrl-C ends it; once more kills it
    bowout --grace 10s -- COMMAND        10 s to end when asked to, then SIGKILL
    bowout --max-runtime 1m -- COMMAND   asked to end after a minute

See 'bowout --help'.";

/// Reads the words behind the program's name, and the environment: `variables`, each `NAME=VALUE`.
///
/// # Errors
/// [`Stop`]: there is nothing to run.
pub(crate) fn parse<'a>(
    args: &[OsString],
    variables: impl Iterator<Item = &'a CStr> + Clone,
) -> Result<Cli, Stop> {
    let name = args
        .first()
        .and_then(|path| path.as_bytes().rsplit(|&b| b == b'/').next())
        .map(OsStr::from_bytes);
    let as_init = name.is_some_and(|name| INITS.iter().any(|init| *init == name));
    if let Some(cli) = without_options(args, variables.clone()) {
        return Ok(Cli { as_init, ..cli });
    }
    match with_options(args, name, variables) {
        Err(Stop::Usage(text)) if args.len() <= 1 && text == NO_COMMAND => Err(Stop::Alone),
        result => Ok(Cli { as_init, ..result? }),
    }
}

/// All of clap; in a frame of its own, so that its stack is not touched where it is not needed.
#[inline(never)]
#[cold]
fn with_options<'a>(
    args: &[OsString],
    name: Option<&OsStr>,
    variables: impl Iterator<Item = &'a CStr>,
) -> Result<Cli, Stop> {
    let definition = definition();
    let misspelt = misspelt(&definition, variables);
    // Templates of compose files and pods make empty variables where they mean none.
    let definition = definition.mut_args(|arg| match arg.get_env().and_then(std::env::var_os) {
        Some(value) if value.is_empty() => arg.env(None::<&str>),
        _ => arg,
    });
    let matches = definition
        .try_get_matches_from(args)
        .map_err(|error| match error.kind() {
            ErrorKind::DisplayVersion if name == Some(OsStr::new(INITS[0])) => {
                Stop::Info(DOCKER_VERSION.into())
            }
            _ => explain(&error),
        })?;
    let cli = Cli {
        misspelt,
        ..collect(matches)
    };
    misread(args, &cli).map_or(Ok(cli), |text| Err(Stop::Usage(text)))
}

/// How an error is to be logged that prevents the words from being read as a whole: by the option
/// or the variable, if that is valid.
pub(crate) fn log_format(args: &[OsString]) -> Format {
    const OPTION: &str = "--log-format";
    let words = args
        .iter()
        .skip(1)
        .take_while(|word| *word != "--")
        .map(|word| word.to_string_lossy());
    let (mut typed, mut is_value) = (None, false);
    for word in words {
        match word
            .strip_prefix(OPTION)
            .and_then(|rest| rest.strip_prefix('='))
        {
            Some(value) => typed = Some(value.to_owned()),
            None if is_value => typed = Some(word.clone().into_owned()),
            None => {}
        }
        is_value = word == OPTION;
    }
    let variable = || std::env::var("BOWOUT_LOG_FORMAT").unwrap_or_default();
    let given = typed.unwrap_or_else(variable);
    FORMATS
        .iter()
        .find(|(name, _)| *name == given)
        .map(|(_, format)| *format)
        .unwrap_or_default()
}

/// The usual call, `bowout [--] COMMAND [ARG]...`, without clap: it would cost a tenth of the
/// start-up to find that nothing was said. `None` is for clap to judge.
fn without_options<'a>(
    args: &[OsString],
    mut variables: impl Iterator<Item = &'a CStr>,
) -> Option<Cli> {
    let (command, rest) = match args.get(1..)? {
        [dashes, command, rest @ ..] if dashes == "--" => (command, rest),
        [command, rest @ ..] if !command.as_encoded_bytes().starts_with(b"-") => (command, rest),
        _ => return None,
    };
    // It may be a duration, which belongs to an option.
    if command.as_bytes().first().is_some_and(u8::is_ascii_digit) {
        return None;
    }
    let is_set = |variable: &[u8]| {
        variable.starts_with(b"BOWOUT_")
            && variable
                .iter()
                .position(|&b| b == b'=')
                .is_some_and(|at| at + 1 < variable.len())
    };
    if variables.any(|variable| is_set(variable.to_bytes())) {
        return None;
    }
    Some(Cli {
        command: command.clone(),
        args: rest.to_vec(),
        ..Cli::default()
    })
}

#[cold]
fn collect(mut matches: ArgMatches) -> Cli {
    let mut words = matches
        .remove_many::<OsString>("command")
        .into_iter()
        .flatten();
    Cli {
        command: words.next().unwrap_or_default(),
        args: words.collect(),
        as_init: false,
        grace: given::<Wait>(&mut matches, "grace").map(|wait| Given {
            value: wait.value.0,
            typed: wait.typed,
        }),
        escalate: given(&mut matches, "escalate"),
        stop_signal: given(&mut matches, "stop-signal"),
        kill_mode: given(&mut matches, "kill-mode"),
        stop_on: matches.remove_one("stop-on"),
        on_repeat: matches.remove_one("on-repeat").unwrap_or_default(),
        max_runtime: matches
            .remove_one::<Wait>("max-runtime")
            .and_then(|wait| wait.0),
        stop_delay: given(&mut matches, "stop-delay"),
        pre_stop: matches
            .remove_many("pre-stop")
            .into_iter()
            .flatten()
            .collect(),
        grace_max: given(&mut matches, "grace-max"),
        notify: matches.remove_one("notify").unwrap_or_default(),
        report: matches.remove_one("report"),
        termination_log: matches.remove_one("termination-log"),
        group: matches.get_flag("group"),
        single_child: matches.get_flag("single-child"),
        wait_tree: given(&mut matches, "wait-tree").filter(|given| given.value),
        remap: matches.remove_many("remap").into_iter().flatten().collect(),
        remap_exit: matches
            .remove_many("remap-exit")
            .into_iter()
            .flatten()
            .collect(),
        exit_status: matches.remove_one("exit-status").unwrap_or_default(),
        parent_death_signal: matches.remove_one("parent-death-signal"),
        warn_on_reap: matches.get_flag("warn-on-reap"),
        verbosity: verbosity(&matches),
        log_format: matches.remove_one("log-format").unwrap_or_default(),
        misspelt: None,
    }
}

/// What is typed wins over both variables.
fn verbosity(matches: &ArgMatches) -> Verbosity {
    let is_typed = |id| matches.value_source(id) == Some(ValueSource::CommandLine);
    let typed = is_typed("verbose") || is_typed("quiet");
    let count = |id| {
        if typed && !is_typed(id) {
            0
        } else {
            matches.get_count(id)
        }
    };
    Verbosity {
        more: count("verbose"),
        less: count("quiet"),
        typed,
    }
}

fn given<T: Clone + Send + Sync + 'static>(
    matches: &mut ArgMatches,
    name: &str,
) -> Option<Given<T>> {
    let typed = matches.value_source(name) == Some(ValueSource::CommandLine);
    matches.remove_one(name).map(|value| Given { value, typed })
}
