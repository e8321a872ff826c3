//! The configuration: what the command line and the environment ask for, checked as a whole.

use std::cmp::Ordering;
use std::ffi::{CStr, OsString};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::Error;
use crate::exit::ExitRules;
use crate::log::{Format, Verbosity};
use crate::policy::{KillMode, Ladder, Settings};
use crate::signal::{Remap, Rewrite, Signal};

/// What the rest of the program sees of the command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) command: OsString,
    pub(crate) args: Vec<OsString>,
    pub(crate) policy: Settings,
    pub(crate) pre_stop: Vec<OsString>,
    pub(crate) pre_kill: Vec<OsString>,
    pub(crate) post_stop: Vec<OsString>,
    pub(crate) exit_rules: ExitRules,
    pub(crate) parent_death_signal: Option<Signal>,
    pub(crate) warn_on_reap: bool,
    pub(crate) notify: Notify,
    pub(crate) report: Option<ReportTo>,
    pub(crate) termination_log: Option<PathBuf>,
    /// Print what a stop does, instead of starting the command.
    pub(crate) explain: bool,
    /// The options that were given.
    pub(crate) origins: Vec<Origin>,
}

/// An option that was given, by its long name, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) option: &'static str,
    pub(crate) source: Source,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.source {
            Source::Typed => write!(f, "--{}", self.option),
            Source::Environment => {
                write!(f, "BOWOUT_{}", self.option.to_uppercase().replace('-', "_"))
            }
        }
    }
}

/// How long before SIGKILL the hooks of `--pre-kill` start, without `--pre-kill-timeout`.
const PRE_KILL: Duration = Duration::from_secs(5);

/// `--notify`: what bowout does between the command and a service manager (sd_notify(3)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Notify {
    /// A relay where there is a NOTIFY_SOCKET.
    #[default]
    Auto,
    /// As auto; and bowout itself reports READY=1 when the command is executed.
    Exec,
    /// A relay, even without a manager: the command can ask for more time.
    Relay,
    /// No relay: the command finds the NOTIFY_SOCKET of bowout.
    Off,
}

/// Where `--report` is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReportTo {
    File(PathBuf),
    /// `fd:N`.
    Descriptor(i32),
}

/// Where a value comes from. Of two options that contradict each other, the lesser gives way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    Environment,
    #[default]
    Typed,
}

/// The value of an option that can contradict another, if it was given.
pub(crate) type Given<T> = Option<(Source, T)>;

fn source<T>(given: Option<&(Source, T)>) -> Option<Source> {
    given.map(|(source, _)| *source)
}

/// A configuration that is being read: the options that mean something only together are apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Draft {
    pub(crate) config: Config,
    /// Where the values come from that are read now.
    pub(crate) source: Source,
    /// `None` inside is never.
    pub(crate) grace: Given<Option<Duration>>,
    pub(crate) escalate: Given<Ladder>,
    pub(crate) stop_signal: Given<Signal>,
    pub(crate) grace_max: Given<Option<Duration>>,
    pub(crate) stop_delay: Given<Duration>,
    pub(crate) pre_kill_timeout: Option<Duration>,
    pub(crate) kill_mode: Given<KillMode>,
    /// `-g`.
    pub(crate) group: bool,
    /// `-c`.
    pub(crate) single_child: bool,
    pub(crate) wait_tree: Given<()>,
    pub(crate) remap: Vec<Rewrite>,
    pub(crate) verbosity: Verbosity,
    pub(crate) log_format: Format,
    /// Variables that are probably misspelt, each with the name that was meant.
    pub(crate) misspelt: Vec<String>,
}

impl Draft {
    /// `value` with its source.
    pub(crate) fn given<T>(&self, value: T) -> Given<T> {
        Some((self.source, value))
    }

    /// Adds to the counts of `-v` and `-q`. A typed one silences the variables of both.
    pub(crate) fn count(&mut self, more: u8, less: u8) {
        let typed = self.source == Source::Typed;
        if typed || !self.verbosity.typed {
            self.verbosity = Verbosity {
                more: self.verbosity.more.saturating_add(more),
                less: self.verbosity.less.saturating_add(less),
                typed,
            };
        }
    }

    /// Checks the options against each other. `default_grace` is called only where no grace period
    /// was given.
    ///
    /// # Errors
    /// Two options that contradict each other, both typed or both from the environment.
    pub(crate) fn check(
        mut self,
        default_grace: impl FnOnce() -> Duration,
    ) -> Result<Config, Error> {
        self.check_kill_mode()?;
        self.check_ladder(default_grace)?;
        let policy = &mut self.config.policy;
        let grace = policy.ladder.total(0);
        let period = source(self.grace.as_ref()).max(source(self.escalate.as_ref()));
        let most = fitting(
            self.grace_max,
            period,
            |most| most.is_some_and(|most| grace.is_none_or(|grace| most < grace)),
            "--grace-max is less than the grace period: give more, or less --grace",
        )?;
        policy.grace_max = most.unwrap_or(grace.and_then(|grace| grace.checked_mul(2)));
        let first = policy.ladder.rung(0).and_then(|rung| rung.wait);
        let delay = fitting(
            self.stop_delay,
            period,
            |delay| first.is_some_and(|wait| wait <= *delay),
            "--stop-delay leaves nothing of the grace period: give more --grace or less --stop-delay",
        )?;
        policy.stop_delay = delay.unwrap_or_default();
        policy.hooks = self.config.pre_stop.len();
        policy.pre_kill = self.config.pre_kill.len();
        policy.pre_kill_timeout = self.pre_kill_timeout.unwrap_or(PRE_KILL);
        policy.remap = Remap::new(self.remap);
        Ok(self.config)
    }

    /// Which processes are signalled, and whether bowout waits for the tree: only if it signals it.
    fn check_kill_mode(&mut self) -> Result<(), Error> {
        let typed = self.kill_mode.filter(|given| given.0 == Source::Typed);
        let mut modes = [
            ("-g", self.group.then_some(KillMode::Group)),
            ("-c", self.single_child.then_some(KillMode::Process)),
            ("--kill-mode", typed.map(|(_, mode)| mode)),
        ]
        .into_iter()
        .filter_map(|(name, mode)| Some((name, mode?)));
        if let Some((name, mode)) = modes.next() {
            if let Some((other, _)) = modes.find(|(_, other)| *other != mode) {
                return Err(contradiction(name, other));
            }
            self.kill_mode = Some((Source::Typed, mode));
        }
        let policy = &mut self.config.policy;
        policy.kill_mode = self.kill_mode.map(|(_, mode)| mode).unwrap_or_default();
        policy.wait_tree = self.wait_tree.is_some();
        if policy.wait_tree && policy.kill_mode == KillMode::Process {
            match source(self.wait_tree.as_ref()).cmp(&source(self.kill_mode.as_ref())) {
                Ordering::Less => policy.wait_tree = false,
                Ordering::Equal => {
                    return Err(contradiction("--wait-tree", "--kill-mode process"));
                }
                Ordering::Greater => policy.kill_mode = KillMode::default(),
            }
        }
        Ok(())
    }

    /// The ladder: `--escalate`, or `--stop-signal` and `--grace`.
    fn check_ladder(&mut self, default_grace: impl FnOnce() -> Duration) -> Result<(), Error> {
        let (escalate, grace) = (source(self.escalate.as_ref()), source(self.grace.as_ref()));
        let plain = grace.max(source(self.stop_signal.as_ref()));
        let policy = &mut self.config.policy;
        match self.escalate.take() {
            Some(_) if escalate == plain => {
                let other = if grace == plain {
                    "--grace"
                } else {
                    "--stop-signal"
                };
                return Err(contradiction("--escalate", other));
            }
            Some((_, ladder)) if escalate > plain => policy.ladder = ladder,
            _ => {
                // A limit that the user set holds for the default, too.
                let most = self.grace_max.and_then(|(_, most)| most);
                let most = most.unwrap_or(Duration::MAX);
                let wait = self.grace.map(|(_, wait)| wait);
                let wait = wait.unwrap_or_else(|| Some(default_grace().min(most)));
                policy.ladder = Ladder::new(self.stop_signal.map(|(_, signal)| signal), wait);
                policy.grace_is_default = grace.is_none();
            }
        }
        Ok(())
    }
}

/// The value, unless it does not fit the grace period: then a typed `period` silences what only the
/// environment says, and anything else is an error.
fn fitting<T>(
    given: Given<T>,
    period: Option<Source>,
    misfits: impl Fn(&T) -> bool,
    error: &str,
) -> Result<Option<T>, Error> {
    match given {
        Some((source, value)) if misfits(&value) => {
            if Some(source) < period {
                Ok(None)
            } else {
                Err(Error::own(error))
            }
        }
        given => Ok(given.map(|(_, value)| value)),
    }
}

fn contradiction(one: &str, other: &str) -> Error {
    Error::own(format!(
        "{one} and {other} contradict each other: give one of them"
    ))
}

/// What [`default_grace`] asks the kernel for, and only where a variable makes it matter.
pub(crate) struct Kernel {
    pub(crate) pid: fn() -> i32,
    pub(crate) parent: fn() -> i32,
    pub(crate) has_terminal: fn() -> bool,
}

/// Whether a variable whose name begins with this byte can matter to [`default_grace`].
pub(crate) fn names_home(byte: u8) -> bool {
    matches!(byte, b'C' | b'D' | b'E' | b'I' | b'K' | b'S')
}

/// The grace period without `--grace`: the default of the engine or manager that started bowout
/// (systemd 90 s, docker and podman 10 s, the others 30 s) less the time to kill and to report.
/// `variables`, each `NAME=VALUE`, reveal it.
///
/// Another wrapper below systemd inherits its variables, so that SYSTEMD_EXEC_PID counts only if it
/// names this process. Before systemd 248 there is none: then the parent has to be PID 1. The
/// kubelet does not stop a command on a terminal of a pod.
pub(crate) fn default_grace<'a>(
    variables: impl Iterator<Item = &'a CStr>,
    kernel: &Kernel,
) -> Duration {
    let (mut exec_pid, mut invocation, mut kubernetes, mut platform) = (None, false, false, false);
    for variable in variables {
        let mut parts = variable.to_bytes().splitn(2, |&byte| byte == b'=');
        match (parts.next(), parts.next().unwrap_or_default()) {
            (_, b"") => {}
            (Some(b"SYSTEMD_EXEC_PID"), pid) => exec_pid = Some(pid),
            (Some(b"INVOCATION_ID"), _) => invocation = true,
            (Some(b"KUBERNETES_SERVICE_HOST"), _) => kubernetes = true,
            // ECS, Heroku and Azure Container Apps.
            (Some(b"ECS_CONTAINER_METADATA_URI_V4" | b"DYNO" | b"CONTAINER_APP_NAME"), _) => {
                platform = true;
            }
            _ => {}
        }
    }
    let systemd = match exec_pid {
        Some(pid) => pid == (kernel.pid)().to_string().as_bytes(),
        None => invocation && (kernel.parent)() == 1,
    };
    Duration::from_secs(if systemd {
        85
    } else if kubernetes && !(kernel.has_terminal)() || platform {
        25
    } else {
        8
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIVE: Option<Duration> = Some(Duration::from_secs(5));

    fn given<T>(value: T, typed: bool) -> Given<T> {
        let source = if typed {
            Source::Typed
        } else {
            Source::Environment
        };
        Some((source, value))
    }

    fn configure(draft: Draft) -> Result<Settings, Error> {
        configure_in(8, draft)
    }

    /// In a home with this default grace period, in seconds.
    fn configure_in(secs: u64, draft: Draft) -> Result<Settings, Error> {
        draft
            .check(|| Duration::from_secs(secs))
            .map(|config| config.policy)
    }

    fn ladder(text: &str) -> Ladder {
        text.parse().unwrap()
    }

    #[test]
    fn nothing_said_is_eight_seconds_and_the_signal_received() {
        let config = configure(Draft::default()).unwrap();
        assert_eq!(
            config.ladder,
            Ladder::new(None, Some(Duration::from_secs(8)))
        );
        assert_eq!(config.kill_mode, KillMode::Mixed);
    }

    #[test]
    fn a_default_grace_period_gives_way_to_a_given_one() {
        let of = |draft| {
            configure_in(85, draft)
                .map(|c| (c.ladder.total(0).unwrap().as_secs(), c.grace_is_default))
        };
        assert_eq!(of(Draft::default()), Ok((85, true)));
        let signal = Draft {
            stop_signal: given(Signal::QUIT, true),
            ..Draft::default()
        };
        assert_eq!(of(signal), Ok((85, true)));
        for typed in [true, false] {
            let grace = Draft {
                grace: given(FIVE, typed),
                ..Draft::default()
            };
            assert_eq!(of(grace), Ok((5, false)));
            let escalate = Draft {
                escalate: given(ladder("TERM/4s/QUIT/3s/KILL"), typed),
                ..Draft::default()
            };
            assert_eq!(of(escalate), Ok((7, false)));
        }
    }

    #[test]
    fn a_default_grace_period_follows_from_the_home() {
        let find = |variables: &[&'static CStr], parent: fn() -> i32, has_terminal| {
            let kernel = Kernel {
                pid: || 7,
                parent,
                has_terminal,
            };
            default_grace(variables.iter().copied(), &kernel).as_secs()
        };
        let unasked: fn() -> i32 = || panic!("the parent does not matter");
        let no_terminal: fn() -> bool = || panic!("the terminal does not matter");
        let all = [
            c"SYSTEMD_EXEC_PID=7",
            c"INVOCATION_ID=x",
            c"KUBERNETES_SERVICE_HOST=k",
        ];
        for (variables, secs) in [
            (&[][..], 8),
            (&[c"SYSTEMD_EXEC_PID=7"], 85),
            (&all, 85),
            (&[c"DYNO=web.1", c"SYSTEMD_EXEC_PID=7"], 85),
            // A shell of the unit is between systemd and bowout.
            (&[c"SYSTEMD_EXEC_PID=77", c"INVOCATION_ID=x"], 8),
            (&[c"SYSTEMD_EXEC_PID="], 8),
            (
                &[c"ECS_CONTAINER_METADATA_URI_V4=http://169.254.170.2/v4/x"],
                25,
            ),
            (&[c"DYNO=web.1"], 25),
            (&[c"CONTAINER_APP_NAME=a=b"], 25),
            (
                &[c"DYNO=", c"CONTAINER_APP_NAME", c"DYNOS=x", c"=x", c""],
                8,
            ),
            (&[c"ECS_CONTAINER_METADATA_URI=x"], 8),
            (
                &[c"KUBERNETES_SERVICE_HOST=", c"KUBERNETES_SERVICE_HOSTS=x"],
                8,
            ),
            (&[c"XKUBERNETES_SERVICE_HOST=x"], 8),
        ] {
            assert_eq!(find(variables, unasked, no_terminal), secs, "{variables:?}");
        }
        let old = [c"INVOCATION_ID=x"];
        let old = [find(&old, || 1, no_terminal), find(&old, || 2, no_terminal)];
        assert_eq!(old, [85, 8]);
        let pod = [c"KUBERNETES_SERVICE_HOST=10.0.0.1"];
        let pod = [find(&pod, unasked, || false), find(&pod, unasked, || true)];
        assert_eq!(pod, [25, 8]);
    }

    #[test]
    fn what_is_typed_wins_over_the_environment() {
        let long = ladder("TERM/1s/QUIT/1s/KILL");
        let typed_ladder = Draft {
            grace: given(FIVE, false),
            escalate: given(long.clone(), true),
            ..Draft::default()
        };
        assert_eq!(configure(typed_ladder).unwrap().ladder, long);
        let typed_grace = Draft {
            grace: given(FIVE, true),
            escalate: given(long, false),
            ..Draft::default()
        };
        assert_eq!(
            configure(typed_grace).unwrap().ladder,
            Ladder::new(None, FIVE)
        );
        let typed_mode = Draft {
            kill_mode: given(KillMode::Group, false),
            single_child: true,
            ..Draft::default()
        };
        assert_eq!(configure(typed_mode).unwrap().kill_mode, KillMode::Process);
    }

    #[test]
    fn a_limit_of_the_grace_period_holds_for_its_default() {
        let limited = Draft {
            grace_max: given(FIVE, true),
            ..Draft::default()
        };
        let config = configure_in(85, limited).unwrap();
        assert_eq!((config.ladder.total(0), config.grace_max), (FIVE, FIVE));
    }

    #[test]
    fn nothing_typed_gives_way_to_a_variable() {
        let mode = Draft {
            kill_mode: given(KillMode::Process, false),
            wait_tree: given((), true),
            ..Draft::default()
        };
        assert_eq!(
            configure(mode).map(|c| (c.kill_mode, c.wait_tree)),
            Ok((KillMode::Mixed, true))
        );
        let tree = Draft {
            single_child: true,
            wait_tree: given((), false),
            ..Draft::default()
        };
        assert_eq!(
            configure(tree).map(|c| (c.kill_mode, c.wait_tree)),
            Ok((KillMode::Process, false))
        );
        let short = Draft {
            grace: given(FIVE, true),
            grace_max: given(Some(Duration::from_secs(1)), false),
            stop_delay: given(Duration::from_secs(6), false),
            ..Draft::default()
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
        for draft in [
            Draft {
                grace: given(FIVE, true),
                escalate: long(),
                ..Draft::default()
            },
            Draft {
                stop_signal: given(Signal::INT, true),
                escalate: long(),
                ..Draft::default()
            },
            Draft {
                grace: given(FIVE, false),
                escalate: given(ladder("KILL"), false),
                ..Draft::default()
            },
            Draft {
                group: true,
                single_child: true,
                ..Draft::default()
            },
            Draft {
                group: true,
                kill_mode: given(KillMode::Mixed, true),
                ..Draft::default()
            },
            Draft {
                single_child: true,
                wait_tree: given((), true),
                ..Draft::default()
            },
        ] {
            let error = configure(draft.clone()).expect_err(&format!("{draft:?}"));
            assert_eq!(error.exit(), crate::exit::Exit::OWN_FAILURE);
            assert!(error.to_string().contains("contradict"), "{error}");
        }
    }

    #[test]
    fn the_most_is_twice_the_grace_period_and_never_less_than_it() {
        let most = |grace, most: Option<Option<Duration>>| {
            let draft = Draft {
                grace: given(grace, true),
                grace_max: most.and_then(|most| given(most, true)),
                ..Draft::default()
            };
            configure(draft).map(|config| config.grace_max)
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
            configure(Draft {
                stop_delay: given(Duration::from_secs(secs), true),
                ..Draft::default()
            })
        };
        assert!(delayed(7).is_ok());
        assert!(delayed(8).unwrap_err().to_string().contains("--stop-delay"));
        let at_once = Draft {
            grace: given(Some(Duration::ZERO), true),
            stop_delay: given(Duration::from_secs(1), true),
            ..Draft::default()
        };
        assert!(
            configure(at_once).is_ok(),
            "SIGKILL at once waits for nothing"
        );
    }
}
