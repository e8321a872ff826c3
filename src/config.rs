//! The configuration: the command line, checked as a whole. The only thing that the rest of the program sees of it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::cli::{Cli, GRACE, Given, Notify, ReportTo};
use crate::error::Error;
use crate::exit::ExitRules;
use crate::policy::{KillMode, Ladder, OnRepeat, parse_wait};
use crate::signal::{Remap, Signal, SignalSet};

/// What is a stop request where the user does not say (design 2.2).
pub(crate) const STOP_ON: SignalSet = SignalSet::of(&[Signal::TERM, Signal::INT, Signal::QUIT, Signal::ABRT]);

/// All that was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) command: OsString,
    pub(crate) args: Vec<OsString>,
    pub(crate) ladder: Ladder,
    /// `None`: [`STOP_ON`], as far as bowout was not started with these ignored.
    pub(crate) stop_on: Option<SignalSet>,
    /// Ctrl-C and Ctrl-\ are stop requests.
    pub(crate) keys_stop: bool,
    pub(crate) on_repeat: OnRepeat,
    /// None is for ever.
    pub(crate) grace_max: Option<Duration>,
    pub(crate) stop_delay: Duration,
    pub(crate) pre_stop: Vec<OsString>,
    pub(crate) max_runtime: Option<Duration>,
    pub(crate) kill_mode: KillMode,
    pub(crate) wait_tree: bool,
    pub(crate) remap: Remap,
    pub(crate) exit_rules: ExitRules,
    pub(crate) parent_death_signal: Option<Signal>,
    pub(crate) warn_on_reap: bool,
    pub(crate) notify: Notify,
    pub(crate) report: Option<ReportTo>,
    pub(crate) termination_log: Option<PathBuf>,
}

impl Config {
    /// Checks what was said against itself.
    ///
    /// # Errors
    /// Two options that contradict each other, both typed or both from the environment; what is typed wins over the rest.
    pub(crate) fn new(cli: Cli) -> Result<Self, Error> {
        let kill_mode = kill_mode(&cli)?;
        if cli.wait_tree && kill_mode == KillMode::Process {
            return Err(contradiction("--wait-tree", "--kill-mode process"));
        }
        let ladder = ladder(&cli)?;
        let grace = ladder.total(0);
        let grace_max = cli.grace_max.map_or_else(|| grace.and_then(|grace| grace.checked_mul(2)), |wait| wait.0);
        if cli.grace_max.is_some() && grace_max.is_some_and(|most| grace.is_none_or(|grace| most < grace)) {
            return Err(Error::own("--grace-max is less than the grace period: give more, or less --grace"));
        }
        let wait = ladder.rung(0).and_then(|rung| rung.wait);
        if wait.is_some_and(|wait| wait <= cli.stop_delay) {
            return Err(Error::own(
                "--stop-delay leaves nothing of the grace period: give more --grace or less --stop-delay",
            ));
        }
        Ok(Self {
            ladder,
            kill_mode,
            command: cli.command,
            args: cli.args,
            // Who says what stops, means it, by whatever name.
            keys_stop: !cli.as_init || cli.stop_on.is_some(),
            stop_on: cli.stop_on,
            on_repeat: cli.on_repeat,
            grace_max,
            stop_delay: cli.stop_delay,
            pre_stop: cli.pre_stop,
            max_runtime: cli.max_runtime,
            wait_tree: cli.wait_tree,
            remap: Remap::new(cli.remap),
            exit_rules: ExitRules { recode: cli.remap_exit, mirror: cli.exit_status },
            parent_death_signal: cli.parent_death_signal,
            warn_on_reap: cli.warn_on_reap,
            notify: cli.notify,
            report: cli.report,
            termination_log: cli.termination_log,
        })
    }
}

fn contradiction(one: &str, other: &str) -> Error {
    Error::own(format!("{one} and {other} contradict each other: give one of them"))
}

fn ladder(cli: &Cli) -> Result<Ladder, Error> {
    // What is typed silences what only the environment says.
    let ladder_typed = is_typed(cli.escalate.as_ref());
    let plain_typed = is_typed(cli.grace.as_ref()) || is_typed(cli.stop_signal.as_ref());
    let ladder = cli.escalate.as_ref().filter(|ladder| ladder.typed || !plain_typed);
    let grace = cli.grace.as_ref().filter(|grace| grace.typed || !ladder_typed);
    let signal = cli.stop_signal.as_ref().filter(|signal| signal.typed || !ladder_typed);
    match (ladder, grace, signal) {
        (Some(_), Some(_), _) => Err(contradiction("--escalate", "--grace")),
        (Some(_), None, Some(_)) => Err(contradiction("--escalate", "--stop-signal")),
        (Some(ladder), None, None) => Ok(ladder.value.clone()),
        (None, grace, signal) => {
            let grace = grace.map_or_else(|| parse_wait(GRACE).unwrap_or_default(), |grace| grace.value);
            Ok(Ladder::new(signal.map(|signal| signal.value), grace))
        }
    }
}

fn is_typed<T>(given: Option<&Given<T>>) -> bool {
    given.is_some_and(|given| given.typed)
}

fn kill_mode(cli: &Cli) -> Result<KillMode, Error> {
    let typed = cli.kill_mode.as_ref().filter(|mode| mode.typed).map(|mode| mode.value);
    match (cli.group, cli.single_child, typed) {
        (true, true, _) => Err(contradiction("-g", "-c")),
        (true, false, Some(KillMode::Process | KillMode::Mixed)) => Err(contradiction("-g", "--kill-mode")),
        (false, true, Some(KillMode::Mixed | KillMode::Group)) => Err(contradiction("-c", "--kill-mode")),
        (true, false, None | Some(KillMode::Group)) => Ok(KillMode::Group),
        (false, true, None | Some(KillMode::Process)) => Ok(KillMode::Process),
        (false, false, _) => Ok(cli.kill_mode.as_ref().map(|mode| mode.value).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Wait;

    const FIVE: Option<Duration> = Some(Duration::from_secs(5));

    fn given<T>(value: T, typed: bool) -> Option<Given<T>> {
        Some(Given { value, typed })
    }

    fn ladder(text: &str) -> Ladder {
        text.parse().unwrap()
    }

    #[test]
    fn nothing_said_is_eight_seconds_and_the_signal_received() {
        let config = Config::new(Cli::default()).unwrap();
        assert_eq!(config.ladder, Ladder::new(None, Some(Duration::from_secs(8))));
        assert_eq!((config.kill_mode, config.on_repeat), (KillMode::Mixed, OnRepeat::Kill));
    }

    #[test]
    fn what_is_typed_wins_over_the_environment() {
        let long = ladder("TERM/1s/QUIT/1s/KILL");
        let typed_ladder = Cli { grace: given(FIVE, false), escalate: given(long.clone(), true), ..Cli::default() };
        assert_eq!(Config::new(typed_ladder).unwrap().ladder, long);
        let typed_grace = Cli { grace: given(FIVE, true), escalate: given(long, false), ..Cli::default() };
        assert_eq!(Config::new(typed_grace).unwrap().ladder, Ladder::new(None, FIVE));
        let typed_mode = Cli { kill_mode: given(KillMode::Group, false), single_child: true, ..Cli::default() };
        assert_eq!(Config::new(typed_mode).unwrap().kill_mode, KillMode::Process);
    }

    #[test]
    fn an_init_leaves_the_keys_to_its_command() {
        let init = |stop_on| Config::new(Cli { as_init: true, stop_on, ..Cli::default() }).unwrap().keys_stop;
        assert_eq!([init(None), init(Some(STOP_ON))], [false, true]);
    }

    #[test]
    fn contradictions_are_refused() {
        let long = || given(ladder("TERM/1s/KILL"), true);
        for cli in [
            Cli { grace: given(FIVE, true), escalate: long(), ..Cli::default() },
            Cli { stop_signal: given(Signal::INT, true), escalate: long(), ..Cli::default() },
            Cli { grace: given(FIVE, false), escalate: given(ladder("KILL"), false), ..Cli::default() },
            Cli { group: true, single_child: true, ..Cli::default() },
            Cli { group: true, kill_mode: given(KillMode::Mixed, true), ..Cli::default() },
            Cli { single_child: true, wait_tree: true, ..Cli::default() },
        ] {
            let error = Config::new(cli.clone()).expect_err(&format!("{cli:?}"));
            assert_eq!(error.exit(), crate::exit::Exit::OWN_FAILURE);
            assert!(error.to_string().contains("contradict"), "{error}");
        }
    }

    #[test]
    fn the_most_is_twice_the_grace_period_and_never_less_than_it() {
        let most = |grace, most: Option<Option<Duration>>| {
            let cli = Cli { grace: given(grace, true), grace_max: most.map(Wait), ..Cli::default() };
            Config::new(cli).map(|config| config.grace_max)
        };
        assert_eq!(most(FIVE, None), Ok(Some(Duration::from_secs(10))));
        assert_eq!(most(FIVE, Some(None)), Ok(None));
        assert_eq!(most(FIVE, Some(FIVE)), Ok(FIVE));
        assert_eq!(most(None, None), Ok(None));
        assert!(most(FIVE, Some(Some(Duration::from_secs(4)))).is_err() && most(None, Some(FIVE)).is_err());
    }

    #[test]
    fn a_delay_must_leave_something() {
        let delayed = |secs| Config::new(Cli { stop_delay: Duration::from_secs(secs), ..Cli::default() });
        assert!(delayed(7).is_ok());
        assert!(delayed(8).unwrap_err().to_string().contains("--stop-delay"));
        let at_once =
            Cli { grace: given(Some(Duration::ZERO), true), stop_delay: Duration::from_secs(1), ..Cli::default() };
        assert!(Config::new(at_once).is_ok(), "SIGKILL at once waits for nothing");
    }
}
