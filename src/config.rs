//! The configuration: the command line, checked as a whole. The only thing that the rest of the
//! program sees of it.

use std::ffi::{CStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use crate::cli::{Cli, Given, Wait};
pub(crate) use crate::cli::{Notify, ReportTo};
use crate::error::Error;
use crate::exit::ExitRules;
use crate::policy::{KillMode, Ladder, OnRepeat};
use crate::signal::{Remap, Signal, SignalSet};

/// The stop requests without `--stop-on`: TERM, INT, ABRT and the first signal of the ladder, so
/// that an image whose STOPSIGNAL is QUIT needs `--stop-signal QUIT` and no more. QUIT alone is not
/// one: a JVM prints its threads at it.
pub(crate) fn default_stop_on(ladder: &Ladder) -> SignalSet {
    let set = SignalSet::of(&[Signal::TERM, Signal::INT, Signal::ABRT]);
    let first = ladder
        .rung(0)
        .and_then(|rung| rung.signal)
        .filter(|signal| signal.catchable());
    first.map_or(set, |signal| set.with(signal))
}

/// Which engine or manager has started bowout, as far as the default grace period depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Home {
    Systemd,
    Kubernetes,
    /// ECS, Heroku and Azure Container Apps, which allow 30 s.
    Platform,
    Other,
}

/// What a home is recognised by, besides its variables; each is asked for only where a variable
/// makes it matter.
pub(crate) struct Place {
    pub(crate) pid: fn() -> i32,
    pub(crate) parent: fn() -> i32,
    pub(crate) has_terminal: fn() -> bool,
}

impl Home {
    /// Whether a variable whose name begins with this byte can matter to [`Home::find`].
    pub(crate) fn may_name(byte: u8) -> bool {
        matches!(byte, b'C' | b'D' | b'E' | b'I' | b'K' | b'S')
    }

    /// The home that `variables`, each `NAME=VALUE`, and `place` speak for. Another wrapper below
    /// systemd inherits its variables, so these have to name this process; where there is no
    /// SYSTEMD_EXEC_PID, before systemd 248, its parent has to be PID 1. A command that runs on a
    /// terminal of a Kubernetes pod is not stopped by the kubelet.
    pub(crate) fn find<'a>(variables: impl Iterator<Item = &'a CStr>, place: &Place) -> Self {
        let (mut exec_pid, mut invocation, mut kubernetes, mut platform) =
            (None, false, false, false);
        for variable in variables {
            let variable = variable.to_bytes();
            match variable
                .iter()
                .position(|&byte| byte == b'=')
                .map(|at| variable.split_at(at))
            {
                None | Some((_, b"=")) => {}
                Some((b"SYSTEMD_EXEC_PID", pid)) => exec_pid = Some(pid),
                Some((b"INVOCATION_ID", _)) => invocation = true,
                Some((b"KUBERNETES_SERVICE_HOST", _)) => kubernetes = true,
                Some((b"ECS_CONTAINER_METADATA_URI_V4" | b"DYNO" | b"CONTAINER_APP_NAME", _)) => {
                    platform = true;
                }
                Some(_) => {}
            }
        }
        let by_systemd = match exec_pid {
            Some(pid) => pid == format!("={}", (place.pid)()).as_bytes(),
            None => invocation && (place.parent)() == 1,
        };
        if by_systemd {
            Self::Systemd
        } else if kubernetes && !(place.has_terminal)() {
            Self::Kubernetes
        } else if platform {
            Self::Platform
        } else {
            Self::Other
        }
    }

    /// The grace period without `--grace`: the engine's own default (systemd 90 s, docker and
    /// podman 10 s, the others 30 s) less the time to kill and to report.
    fn grace(self) -> Duration {
        Duration::from_secs(match self {
            Self::Systemd => 85,
            Self::Kubernetes | Self::Platform => 25,
            Self::Other => 8,
        })
    }
}

/// All that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) command: OsString,
    pub(crate) args: Vec<OsString>,
    pub(crate) ladder: Ladder,
    /// The user gave neither `--grace` nor `--escalate`.
    pub(crate) grace_is_default: bool,
    /// `None`: [`default_stop_on`], without the signals that bowout was started with as ignored.
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
    /// Checks what was said against itself. `home` is asked for only where no grace period was
    /// given.
    ///
    /// # Errors
    /// Two options that contradict each other, both typed or both from the environment; what is
    /// typed wins over the rest.
    pub(crate) fn new(cli: Cli, home: impl FnOnce() -> Home) -> Result<Self, Error> {
        let (kill_mode, wait_tree) = reach(&cli)?;
        let (ladder, grace_is_default) = ladder(&cli, home)?;
        let grace = ladder.total(0);
        let period_typed = is_typed(cli.grace.as_ref()) || is_typed(cli.escalate.as_ref());
        let too_little = |most: &Given<Wait>| {
            most.value
                .0
                .is_some_and(|most| grace.is_none_or(|grace| most < grace))
        };
        let most = cli
            .grace_max
            .filter(|most| most.typed || !period_typed || !too_little(most));
        if most.as_ref().is_some_and(too_little) {
            return Err(Error::own(
                "--grace-max is less than the grace period: give more, or less --grace",
            ));
        }
        let grace_max = most.map_or_else(
            || grace.and_then(|grace| grace.checked_mul(2)),
            |most| most.value.0,
        );
        let wait = ladder.rung(0).and_then(|rung| rung.wait);
        let too_long = |delay: &Given<Duration>| wait.is_some_and(|wait| wait <= delay.value);
        let delay = cli
            .stop_delay
            .filter(|delay| delay.typed || !period_typed || !too_long(delay));
        if delay.as_ref().is_some_and(too_long) {
            return Err(Error::own(
                "--stop-delay leaves nothing of the grace period: give more --grace or less --stop-delay",
            ));
        }
        Ok(Self {
            ladder,
            grace_is_default,
            kill_mode,
            command: cli.command,
            args: cli.args,
            // Who says what stops, means it, by whatever name.
            keys_stop: !cli.as_init || cli.stop_on.is_some(),
            stop_on: cli.stop_on,
            on_repeat: cli.on_repeat,
            grace_max,
            stop_delay: delay.map(|delay| delay.value).unwrap_or_default(),
            pre_stop: cli.pre_stop,
            max_runtime: cli.max_runtime,
            wait_tree,
            remap: Remap::new(cli.remap),
            exit_rules: ExitRules {
                recode: cli.remap_exit,
                mirror: cli.exit_status,
            },
            parent_death_signal: cli.parent_death_signal,
            warn_on_reap: cli.warn_on_reap,
            notify: cli.notify,
            report: cli.report,
            termination_log: cli.termination_log,
        })
    }
}

fn contradiction(one: &str, other: &str) -> Error {
    Error::own(format!(
        "{one} and {other} contradict each other: give one of them"
    ))
}

/// The ladder, and whether its wait is the default.
fn ladder(cli: &Cli, home: impl FnOnce() -> Home) -> Result<(Ladder, bool), Error> {
    // What is typed silences what only the environment says.
    let ladder_typed = is_typed(cli.escalate.as_ref());
    let plain_typed = is_typed(cli.grace.as_ref()) || is_typed(cli.stop_signal.as_ref());
    let ladder = cli
        .escalate
        .as_ref()
        .filter(|ladder| ladder.typed || !plain_typed);
    let grace = cli
        .grace
        .as_ref()
        .filter(|grace| grace.typed || !ladder_typed);
    let signal = cli
        .stop_signal
        .as_ref()
        .filter(|signal| signal.typed || !ladder_typed);
    match (ladder, grace, signal) {
        (Some(_), Some(_), _) => Err(contradiction("--escalate", "--grace")),
        (Some(_), None, Some(_)) => Err(contradiction("--escalate", "--stop-signal")),
        (Some(ladder), None, None) => Ok((ladder.value.clone(), false)),
        (None, grace, signal) => {
            // A limit that the user has set holds for the default, too.
            let most = cli
                .grace_max
                .as_ref()
                .and_then(|most| most.value.0)
                .unwrap_or(Duration::MAX);
            let wait = grace.map_or_else(|| Some(home().grace().min(most)), |grace| grace.value);
            Ok((
                Ladder::new(signal.map(|signal| signal.value), wait),
                grace.is_none(),
            ))
        }
    }
}

fn is_typed<T>(given: Option<&Given<T>>) -> bool {
    given.is_some_and(|given| given.typed)
}

/// Who is signalled, and whether the tree is waited for, which cannot be without signalling it.
fn reach(cli: &Cli) -> Result<(KillMode, bool), Error> {
    let mode = kill_mode(cli)?;
    let mode_typed = cli.group || cli.single_child || is_typed(cli.kill_mode.as_ref());
    match (mode, &cli.wait_tree) {
        (KillMode::Process, Some(tree)) if tree.typed && !mode_typed => {
            Ok((KillMode::default(), true))
        }
        (KillMode::Process, Some(tree)) if mode_typed && !tree.typed => Ok((mode, false)),
        (KillMode::Process, Some(_)) => Err(contradiction("--wait-tree", "--kill-mode process")),
        (KillMode::Process, None) => Ok((mode, false)),
        (KillMode::Mixed | KillMode::Group, tree) => Ok((mode, tree.is_some())),
    }
}

fn kill_mode(cli: &Cli) -> Result<KillMode, Error> {
    let typed = cli
        .kill_mode
        .as_ref()
        .filter(|mode| mode.typed)
        .map(|mode| mode.value);
    match (cli.group, cli.single_child, typed) {
        (true, true, _) => Err(contradiction("-g", "-c")),
        (true, false, Some(KillMode::Process | KillMode::Mixed)) => {
            Err(contradiction("-g", "--kill-mode"))
        }
        (false, true, Some(KillMode::Mixed | KillMode::Group)) => {
            Err(contradiction("-c", "--kill-mode"))
        }
        (true, false, None | Some(KillMode::Group)) => Ok(KillMode::Group),
        (false, true, None | Some(KillMode::Process)) => Ok(KillMode::Process),
        (false, false, _) => Ok(cli
            .kill_mode
            .as_ref()
            .map(|mode| mode.value)
            .unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIVE: Option<Duration> = Some(Duration::from_secs(5));

    fn given<T>(value: T, typed: bool) -> Option<Given<T>> {
        Some(Given { value, typed })
    }

    fn configure(cli: Cli) -> Result<Config, Error> {
        Config::new(cli, || Home::Other)
    }

    fn ladder(text: &str) -> Ladder {
        text.parse().unwrap()
    }

    #[test]
    fn nothing_said_is_eight_seconds_and_the_signal_received() {
        let config = configure(Cli::default()).unwrap();
        assert_eq!(
            config.ladder,
            Ladder::new(None, Some(Duration::from_secs(8)))
        );
        assert_eq!(
            (config.kill_mode, config.on_repeat),
            (KillMode::Mixed, OnRepeat::Kill)
        );
    }

    #[test]
    fn a_default_grace_period_follows_from_the_home() {
        let of = |home, cli| {
            Config::new(cli, || home)
                .map(|c| (c.ladder.total(0).unwrap().as_secs(), c.grace_is_default))
        };
        for (home, secs) in [
            (Home::Systemd, 85),
            (Home::Kubernetes, 25),
            (Home::Platform, 25),
            (Home::Other, 8),
        ] {
            assert_eq!(of(home, Cli::default()), Ok((secs, true)));
            let signal = Cli {
                stop_signal: given(Signal::QUIT, true),
                ..Cli::default()
            };
            assert_eq!(of(home, signal), Ok((secs, true)));
            for typed in [true, false] {
                assert_eq!(
                    of(
                        home,
                        Cli {
                            grace: given(FIVE, typed),
                            ..Cli::default()
                        }
                    ),
                    Ok((5, false))
                );
                let escalate = given(ladder("TERM/4s/QUIT/3s/KILL"), typed);
                assert_eq!(
                    of(
                        home,
                        Cli {
                            escalate,
                            ..Cli::default()
                        }
                    ),
                    Ok((7, false))
                );
            }
        }
    }

    #[test]
    fn a_home_is_recognised() {
        let find = |variables: &[&'static CStr], parent: fn() -> i32, has_terminal| {
            Home::find(
                variables.iter().copied(),
                &Place {
                    pid: || 7,
                    parent,
                    has_terminal,
                },
            )
        };
        let unasked: fn() -> i32 = || panic!("the parent does not matter");
        let no_terminal: fn() -> bool = || panic!("the terminal does not matter");
        for (variables, home) in [
            (&[][..], Home::Other),
            (&[c"SYSTEMD_EXEC_PID=7"], Home::Systemd),
            (
                &[
                    c"SYSTEMD_EXEC_PID=7",
                    c"INVOCATION_ID=x",
                    c"KUBERNETES_SERVICE_HOST=k",
                ],
                Home::Systemd,
            ),
            (&[c"DYNO=web.1", c"SYSTEMD_EXEC_PID=7"], Home::Systemd),
            // A shell of the unit is between systemd and bowout.
            (&[c"SYSTEMD_EXEC_PID=77", c"INVOCATION_ID=x"], Home::Other),
            (&[c"SYSTEMD_EXEC_PID="], Home::Other),
            (
                &[c"ECS_CONTAINER_METADATA_URI_V4=http://169.254.170.2/v4/x"],
                Home::Platform,
            ),
            (&[c"DYNO=web.1"], Home::Platform),
            (&[c"CONTAINER_APP_NAME=a=b"], Home::Platform),
            (
                &[
                    c"DYNO=",
                    c"CONTAINER_APP_NAME",
                    c"ECS_CONTAINER_METADATA_URI=x",
                    c"DYNOS=x",
                    c"=x",
                    c"",
                ],
                Home::Other,
            ),
            (
                &[
                    c"KUBERNETES_SERVICE_HOST=",
                    c"KUBERNETES_SERVICE_HOSTS=x",
                    c"XKUBERNETES_SERVICE_HOST=x",
                ],
                Home::Other,
            ),
        ] {
            assert_eq!(find(variables, unasked, no_terminal), home, "{variables:?}");
        }
        let old = [c"INVOCATION_ID=x"];
        assert_eq!(
            [find(&old, || 1, no_terminal), find(&old, || 2, no_terminal)],
            [Home::Systemd, Home::Other]
        );
        let pod = [c"KUBERNETES_SERVICE_HOST=10.0.0.1"];
        assert_eq!(
            [find(&pod, unasked, || false), find(&pod, unasked, || true)],
            [Home::Kubernetes, Home::Other]
        );
    }

    #[test]
    fn what_is_typed_wins_over_the_environment() {
        let long = ladder("TERM/1s/QUIT/1s/KILL");
        let typed_ladder = Cli {
            grace: given(FIVE, false),
            escalate: given(long.clone(), true),
            ..Cli::default()
        };
        assert_eq!(configure(typed_ladder).unwrap().ladder, long);
        let typed_grace = Cli {
            grace: given(FIVE, true),
            escalate: given(long, false),
            ..Cli::default()
        };
        assert_eq!(
            configure(typed_grace).unwrap().ladder,
            Ladder::new(None, FIVE)
        );
        let typed_mode = Cli {
            kill_mode: given(KillMode::Group, false),
            single_child: true,
            ..Cli::default()
        };
        assert_eq!(configure(typed_mode).unwrap().kill_mode, KillMode::Process);
    }

    #[test]
    fn an_init_leaves_the_keys_to_its_command() {
        let init = |stop_on| {
            configure(Cli {
                as_init: true,
                stop_on,
                ..Cli::default()
            })
            .unwrap()
            .keys_stop
        };
        assert_eq!(
            [init(None), init(Some(SignalSet::of(&[Signal::INT])))],
            [false, true]
        );
    }

    #[test]
    fn a_limit_of_the_grace_period_holds_for_its_default() {
        let limited = Cli {
            grace_max: given(Wait(FIVE), true),
            ..Cli::default()
        };
        let config = Config::new(limited, || Home::Systemd).unwrap();
        assert_eq!((config.ladder.total(0), config.grace_max), (FIVE, FIVE));
    }

    #[test]
    fn the_first_signal_of_the_ladder_is_a_stop_request() {
        let usual = SignalSet::of(&[Signal::TERM, Signal::INT, Signal::ABRT]);
        for (text, set) in [
            ("TERM/1s/QUIT/1s/KILL", usual),
            ("QUIT/1s/KILL", usual.with(Signal::QUIT)),
            ("WINCH/1s/TERM/1s/KILL", usual.with(Signal::WINCH)),
            ("KILL", usual),
        ] {
            assert_eq!(default_stop_on(&ladder(text)), set, "{text}");
        }
        assert_eq!(
            default_stop_on(&Ladder::new(Some(Signal::STOP), FIVE)),
            usual
        );
    }

    #[test]
    fn nothing_typed_gives_way_to_a_variable() {
        let mode = Cli {
            kill_mode: given(KillMode::Process, false),
            wait_tree: given(true, true),
            ..Cli::default()
        };
        assert_eq!(
            configure(mode).map(|c| (c.kill_mode, c.wait_tree)),
            Ok((KillMode::Mixed, true))
        );
        let tree = Cli {
            single_child: true,
            wait_tree: given(true, false),
            ..Cli::default()
        };
        assert_eq!(
            configure(tree).map(|c| (c.kill_mode, c.wait_tree)),
            Ok((KillMode::Process, false))
        );
        let short = Cli {
            grace: given(FIVE, true),
            grace_max: given(Wait(Some(Duration::from_secs(1))), false),
            stop_delay: given(Duration::from_secs(6), false),
            ..Cli::default()
        };
        let config = configure(short).unwrap();
        assert_eq!(
            (config.grace_max, config.stop_delay),
            (Some(Duration::from_secs(10)), Duration::ZERO)
        );
    }

    #[test]
    fn contradictions_are_refused() {
        let long = || given(ladder("TERM/1s/KILL"), true);
        for cli in [
            Cli {
                grace: given(FIVE, true),
                escalate: long(),
                ..Cli::default()
            },
            Cli {
                stop_signal: given(Signal::INT, true),
                escalate: long(),
                ..Cli::default()
            },
            Cli {
                grace: given(FIVE, false),
                escalate: given(ladder("KILL"), false),
                ..Cli::default()
            },
            Cli {
                group: true,
                single_child: true,
                ..Cli::default()
            },
            Cli {
                group: true,
                kill_mode: given(KillMode::Mixed, true),
                ..Cli::default()
            },
            Cli {
                single_child: true,
                wait_tree: given(true, true),
                ..Cli::default()
            },
        ] {
            let error = configure(cli.clone()).expect_err(&format!("{cli:?}"));
            assert_eq!(error.exit(), crate::exit::Exit::OWN_FAILURE);
            assert!(error.to_string().contains("contradict"), "{error}");
        }
    }

    #[test]
    fn the_most_is_twice_the_grace_period_and_never_less_than_it() {
        let most = |grace, most: Option<Option<Duration>>| {
            let cli = Cli {
                grace: given(grace, true),
                grace_max: most.and_then(|most| given(Wait(most), true)),
                ..Cli::default()
            };
            configure(cli).map(|config| config.grace_max)
        };
        assert_eq!(most(FIVE, None), Ok(Some(Duration::from_secs(10))));
        assert_eq!(most(FIVE, Some(None)), Ok(None));
        assert_eq!(most(FIVE, Some(FIVE)), Ok(FIVE));
        assert_eq!(most(None, None), Ok(None));
        assert!(
            most(FIVE, Some(Some(Duration::from_secs(4)))).is_err()
                && most(None, Some(FIVE)).is_err()
        );
    }

    #[test]
    fn a_delay_must_leave_something() {
        let delayed = |secs| {
            configure(Cli {
                stop_delay: given(Duration::from_secs(secs), true),
                ..Cli::default()
            })
        };
        assert!(delayed(7).is_ok());
        assert!(delayed(8).unwrap_err().to_string().contains("--stop-delay"));
        let at_once = Cli {
            grace: given(Some(Duration::ZERO), true),
            stop_delay: given(Duration::from_secs(1), true),
            ..Cli::default()
        };
        assert!(
            configure(at_once).is_ok(),
            "SIGKILL at once waits for nothing"
        );
    }
}
