//! The configuration: the options of the command line and the environment, checked as a whole.

use std::ffi::{CStr, OsString};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::Error;
use crate::exit::ExitRules;
use crate::log::{Format, Verbosity};
use crate::policy::{KillMode, Ladder, Settings};
use crate::signal::Signal;

/// The part of the command line that the rest of the program reads.
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
    pub(crate) stop_on_eof: bool,
    /// Run a second process, so that a SIGKILL to either stops the command.
    pub(crate) guard: bool,
    /// At this signal, a new instance of the command takes the place of the old one.
    pub(crate) replace_on: Option<Signal>,
    pub(crate) warn_on_reap: bool,
    pub(crate) notify: Notify,
    pub(crate) report: Option<ReportTo>,
    pub(crate) termination_log: Option<PathBuf>,
    pub(crate) ready: Option<ReadyBy>,
    pub(crate) ready_file: Option<PathBuf>,
    /// Print the plan of a stop, and do not start the command.
    pub(crate) explain: bool,
    /// The options that were given.
    pub(crate) origins: Vec<Origin>,
}

/// `--notify`: the handling of sd_notify(3) messages between the command and a service manager.
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

/// `--ready`: how the command reports that it is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadyBy {
    /// `fd:N`: a line on this descriptor.
    Descriptor(i32),
    /// READY=1 (sd_notify(3)).
    Notify,
}

impl Config {
    /// True if bowout itself has to receive the command's sd_notify messages.
    pub(crate) fn needs_relay(&self) -> bool {
        self.ready == Some(ReadyBy::Notify) || self.policy.watchdog.is_some()
    }
}

/// Where `--report` is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReportTo {
    File(PathBuf),
    /// `fd:N`.
    Descriptor(i32),
}

/// Where a value comes from. Of two options that contradict each other, the typed one wins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    Environment,
    #[default]
    Typed,
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
            Source::Environment => write!(f, "BOWOUT_{}", variable(self.option)),
        }
    }
}

/// The name of an option's variable, without `BOWOUT_`.
pub(crate) fn variable(option: &str) -> String {
    option.to_uppercase().replace('-', "_")
}

/// How long before SIGKILL the hooks of `--pre-kill` start, without `--pre-kill-timeout`.
const PRE_KILL: Duration = Duration::from_secs(5);

/// A configuration that is being read, and the values that have no place in [`Config`] yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Draft {
    pub(crate) config: Config,
    /// Where the values come from that are read now.
    pub(crate) source: Source,
    /// `None` is never, if it was given.
    pub(crate) grace: Option<Duration>,
    pub(crate) stop_signal: Option<Signal>,
    pub(crate) verbosity: Verbosity,
    pub(crate) log_format: Format,
    /// Variables that are probably misspelt, each with the name that was meant.
    pub(crate) misspelt: Vec<String>,
}

impl Draft {
    /// Where the option's value comes from, by the long name; `None` if it was not given.
    pub(crate) fn source_of(&self, option: &str) -> Option<Source> {
        let mut origins = self.config.origins.iter();
        origins
            .find(|origin| origin.option == option)
            .map(|origin| origin.source)
    }

    /// Records that the option is given.
    pub(crate) fn give(&mut self, option: &'static str) {
        if self.source_of(option).is_none() {
            let source = self.source;
            self.config.origins.push(Origin { option, source });
        }
    }

    /// Counts `-v`, and `-q` as negative. A typed one silences the variables of both.
    pub(crate) fn count(&mut self, steps: i16) {
        let counted = &mut self.verbosity;
        let typed = self.source == Source::Typed;
        if typed || !counted.typed {
            let steps = counted.steps.saturating_add(steps);
            *counted = Verbosity { steps, typed };
        }
    }

    /// Checks the options against each other, and completes the configuration. `default_grace` is
    /// called only where no grace period was given.
    ///
    /// # Errors
    /// Two options that contradict each other, both typed or both from the environment.
    pub(crate) fn check(
        &mut self,
        default_grace: impl FnOnce() -> Duration,
    ) -> Result<&Config, Error> {
        self.check_kill_mode()?;
        self.check_service()?;
        self.check_ladder(default_grace)?;
        let [period, escalate, most, delay] =
            ["grace", "escalate", "grace-max", "stop-delay"].map(|option| self.source_of(option));
        let period = period.max(escalate);
        let lead = self.source_of("pre-kill-timeout");
        let policy = &mut self.config.policy;
        if lead.is_none() {
            policy.pre_kill_timeout = PRE_KILL;
        }
        let grace = policy.ladder.total(0);
        // A typed grace period replaces a value from the environment that does not fit it.
        let most_fits = policy
            .grace_max
            .is_none_or(|most| grace.is_some_and(|grace| grace <= most));
        if !most_fits && most >= period {
            let why = "--grace-max is less than the grace period: give more, or less --grace";
            return Err(Error::own(why));
        }
        if most.is_none() || !most_fits {
            policy.grace_max = grace.and_then(|grace| grace.checked_mul(2));
        }
        let first = policy.ladder.rung(0).and_then(|rung| rung.wait);
        let delay_fits = first.is_none_or(|wait| policy.stop_delay < wait);
        if delay.is_some() && !delay_fits {
            if delay >= period {
                let why = "--stop-delay leaves nothing of the grace period: \
                           give more --grace or less --stop-delay";
                return Err(Error::own(why));
            }
            policy.stop_delay = Duration::ZERO;
        }
        policy.hooks = self.config.pre_stop.len();
        policy.pre_kill = self.config.pre_kill.len();
        Ok(&self.config)
    }

    /// Which processes are signalled, and whether bowout waits for the tree: only if it signals it.
    fn check_kill_mode(&mut self) -> Result<(), Error> {
        let mut by = (self.source_of("kill-mode"), "--kill-mode");
        let mut mode = self.config.policy.kill_mode;
        let letters = [
            ("-c", "single-child", KillMode::Process),
            ("-g", "group", KillMode::Group),
        ];
        for (letter, option, means) in letters {
            let typed = (self.source_of(option), letter);
            if typed.0.is_some() {
                if mode != means {
                    wins(typed, by)?;
                }
                (by, mode) = (typed, means);
            }
        }
        let tree = (self.source_of("wait-tree"), "--wait-tree");
        let policy = &mut self.config.policy;
        if policy.wait_tree && mode == KillMode::Process {
            policy.wait_tree = wins(tree, (by.0, "--kill-mode process"))?;
            mode = if policy.wait_tree {
                KillMode::default()
            } else {
                mode
            };
        }
        policy.kill_mode = mode;
        Ok(())
    }

    /// Checks the options that need `--ready`, or the relay.
    fn check_service(&mut self) -> Result<(), Error> {
        let policy = &self.config.policy;
        let leaves = match policy.kill_mode {
            KillMode::Process => Some("--kill-mode process"),
            KillMode::Mixed | KillMode::Group => policy.wait_tree.then_some("--wait-tree"),
        };
        if let (Some(_), Some(option)) = (self.config.replace_on, leaves) {
            let why = format!("--replace-on needs the whole tree: not with {option}");
            return Err(Error::own(why));
        }
        let [ready, file, timeout, watchdog, notify] =
            ["ready", "ready-file", "ready-timeout", "watchdog", "notify"]
                .map(|option| self.source_of(option));
        if ready.is_none() && (file.is_some() || timeout.is_some()) {
            let why = "--ready-file and --ready-timeout need --ready fd:N or --ready notify";
            return Err(Error::own(why));
        }
        if self.config.needs_relay() && self.config.notify == Notify::Off {
            let needs = if watchdog.is_some() {
                (watchdog, "--watchdog")
            } else {
                (ready, "--ready notify")
            };
            if wins(needs, (notify, "--notify off"))? {
                self.config.notify = Notify::Auto;
            }
        }
        Ok(())
    }

    /// The ladder: `--escalate`, or `--stop-signal` and `--grace`.
    fn check_ladder(&mut self, default_grace: impl FnOnce() -> Duration) -> Result<(), Error> {
        let [escalate, grace, signal] =
            ["escalate", "grace", "stop-signal"].map(|option| self.source_of(option));
        let plain = grace.max(signal);
        let policy = &mut self.config.policy;
        let name = if grace == plain {
            "--grace"
        } else {
            "--stop-signal"
        };
        if escalate.is_some() && wins((escalate, "--escalate"), (plain, name))? {
            return Ok(());
        }
        // A limit that the user set holds for the default, too.
        let most = policy.grace_max.unwrap_or(Duration::MAX);
        let wait = match grace {
            Some(_) => self.grace,
            None => Some(default_grace().min(most)),
        };
        policy.ladder = Ladder::new(self.stop_signal, wait);
        policy.grace_is_default = grace.is_none();
        Ok(())
    }
}

/// True if `one` option takes precedence over the `other`: it was typed, and the other is from the
/// environment.
///
/// # Errors
/// They contradict each other.
fn wins(one: (Option<Source>, &str), other: (Option<Source>, &str)) -> Result<bool, Error> {
    let why = || {
        format!(
            "{} and {} contradict each other: give one of them",
            one.1, other.1
        )
    };
    if one.0 == other.0 {
        Err(Error::own(why()))
    } else {
        Ok(one.0 > other.0)
    }
}

/// The name and the value of a variable, `NAME=VALUE`, unless it is empty: templates of compose
/// files and pods make empty variables where they mean none.
pub(crate) fn name_and_value(variable: &CStr) -> Option<(&[u8], &[u8])> {
    let mut parts = variable.to_bytes().splitn(2, |&byte| byte == b'=');
    Some((
        parts.next()?,
        parts.next().filter(|value| !value.is_empty())?,
    ))
}

/// The facts that [`default_grace`] reads from the kernel, only where a variable makes them matter.
pub(crate) struct Kernel {
    pub(crate) pid: fn() -> i32,
    pub(crate) parent: fn() -> i32,
    pub(crate) has_terminal: fn() -> bool,
}

/// True if a variable whose name begins with this byte can matter to [`default_grace`].
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
    for (name, value) in variables.filter_map(name_and_value) {
        match name {
            b"SYSTEMD_EXEC_PID" => exec_pid = Some(value),
            b"INVOCATION_ID" => invocation = true,
            b"KUBERNETES_SERVICE_HOST" => kubernetes = true,
            // ECS, Heroku and Azure Container Apps.
            b"ECS_CONTAINER_METADATA_URI_V4" | b"DYNO" | b"CONTAINER_APP_NAME" => platform = true,
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
    use Source::{Environment, Typed};

    const FIVE: Option<Duration> = Some(Duration::from_secs(5));

    /// An option with a value.
    type Set = (&'static str, fn(&mut Draft));

    const GRACE: Set = ("grace", |d| d.grace = FIVE);
    const AT_ONCE: Set = ("grace", |d| d.grace = Some(Duration::ZERO));
    const FOR_EVER: Set = ("grace", |d| d.grace = None);
    const SIGNAL: Set = ("stop-signal", |d| d.stop_signal = Some(Signal::QUIT));
    const LONG: Set = ("escalate", |d| {
        d.config.policy.ladder = ladder("TERM/4s/QUIT/3s/KILL");
    });
    const ONE_SECOND: Set = ("grace-max", |d| {
        d.config.policy.grace_max = Some(Duration::from_secs(1));
    });
    const FIVE_SECONDS: Set = ("grace-max", |d| d.config.policy.grace_max = FIVE);
    const NO_LIMIT: Set = ("grace-max", |d| d.config.policy.grace_max = None);
    const SEVEN: Set = ("stop-delay", |d| {
        d.config.policy.stop_delay = Duration::from_secs(7);
    });
    const EIGHT: Set = ("stop-delay", |d| {
        d.config.policy.stop_delay = Duration::from_secs(8);
    });
    const MIXED: Set = ("kill-mode", |d| d.config.policy.kill_mode = KillMode::Mixed);
    const GROUP: Set = ("kill-mode", |d| d.config.policy.kill_mode = KillMode::Group);
    const PROCESS: Set = ("kill-mode", |d| {
        d.config.policy.kill_mode = KillMode::Process;
    });
    const TREE: Set = ("wait-tree", |d| d.config.policy.wait_tree = true);
    const NO_TREE: Set = ("wait-tree", |d| d.config.policy.wait_tree = false);
    const G: Set = ("group", |_| ());
    const C: Set = ("single-child", |_| ());

    fn configure(given: &[(Source, Set)]) -> Result<Settings, Error> {
        configure_in(8, given)
    }

    /// In a home with this default grace period, in seconds.
    fn configure_in(secs: u64, given: &[(Source, Set)]) -> Result<Settings, Error> {
        let mut draft = Draft::default();
        for (source, (option, set)) in given {
            draft.source = *source;
            draft.give(option);
            set(&mut draft);
        }
        let config = draft.check(|| Duration::from_secs(secs));
        config.map(|config| config.policy.clone())
    }

    fn ladder(text: &str) -> Ladder {
        text.parse().unwrap()
    }

    #[test]
    fn nothing_said_is_eight_seconds_and_the_signal_received() {
        let config = configure(&[]).unwrap();
        let eight = Some(Duration::from_secs(8));
        assert_eq!(config.ladder, Ladder::new(None, eight));
        assert_eq!(config.kill_mode, KillMode::Mixed);
    }

    #[test]
    fn a_default_grace_period_gives_way_to_a_given_one() {
        let of = |given: &[(Source, Set)]| {
            configure_in(85, given)
                .map(|c| (c.ladder.total(0).unwrap().as_secs(), c.grace_is_default))
        };
        assert_eq!(of(&[]), Ok((85, true)));
        assert_eq!(of(&[(Typed, SIGNAL)]), Ok((85, true)));
        for source in [Typed, Environment] {
            assert_eq!(of(&[(source, GRACE)]), Ok((5, false)));
            assert_eq!(of(&[(source, LONG)]), Ok((7, false)));
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
    fn a_typed_option_wins_over_the_environment() {
        let config = configure(&[(Environment, GRACE), (Typed, LONG)]).unwrap();
        assert_eq!(config.ladder, ladder("TERM/4s/QUIT/3s/KILL"));
        let config = configure(&[(Typed, GRACE), (Environment, LONG)]).unwrap();
        assert_eq!(config.ladder, Ladder::new(None, FIVE));
        // The variable of the other half of the ladder still counts.
        let signal = [(Typed, SIGNAL), (Environment, GRACE), (Environment, LONG)];
        let config = configure(&signal).unwrap();
        assert_eq!(config.ladder, Ladder::new(Some(Signal::QUIT), FIVE));
        let config = configure(&[(Environment, GROUP), (Typed, C)]).unwrap();
        assert_eq!(config.kill_mode, KillMode::Process);
    }

    #[test]
    fn a_limit_of_the_grace_period_holds_for_its_default() {
        let config = configure_in(85, &[(Typed, FIVE_SECONDS)]).unwrap();
        assert_eq!((config.ladder.total(0), config.grace_max), (FIVE, FIVE));
    }

    #[test]
    fn nothing_typed_gives_way_to_a_variable() {
        let tree = |given: &[(Source, Set)]| {
            configure(given).map(|config| (config.kill_mode, config.wait_tree))
        };
        let typed_tree = tree(&[(Environment, PROCESS), (Typed, TREE)]);
        assert_eq!(typed_tree, Ok((KillMode::Mixed, true)));
        let typed_mode = tree(&[(Typed, C), (Environment, TREE)]);
        assert_eq!(typed_mode, Ok((KillMode::Process, false)));
        let no_tree = tree(&[(Environment, PROCESS), (Environment, NO_TREE)]);
        assert_eq!(no_tree, Ok((KillMode::Process, false)));
        let config = configure(&[
            (Typed, GRACE),
            (Environment, ONE_SECOND),
            (Environment, SEVEN),
        ]);
        let config = config.unwrap();
        let twice = Some(Duration::from_secs(10));
        assert_eq!(
            (config.grace_max, config.stop_delay),
            (twice, Duration::ZERO)
        );
    }

    #[test]
    fn contradictions_are_refused() {
        for (source, one, other, says) in [
            (Typed, GRACE, LONG, "--escalate and --grace"),
            (Typed, SIGNAL, LONG, "--escalate and --stop-signal"),
            (Environment, GRACE, LONG, "--escalate and --grace"),
            (Typed, G, C, "-g and -c"),
            (Typed, G, MIXED, "-g and --kill-mode"),
            (Typed, C, GROUP, "-c and --kill-mode"),
            (Typed, C, TREE, "--wait-tree and --kill-mode process"),
            (
                Environment,
                PROCESS,
                TREE,
                "--wait-tree and --kill-mode process",
            ),
        ] {
            for given in [
                [(source, one), (source, other)],
                [(source, other), (source, one)],
            ] {
                let error = configure(&given).expect_err(says);
                assert_eq!(error.exit(), crate::exit::Exit::OWN_FAILURE);
                let says = format!("{says} contradict each other: give one of them");
                assert_eq!(error.to_string(), says);
            }
        }
        let same = configure(&[(Typed, G), (Typed, GROUP)]);
        assert_eq!(same.map(|config| config.kill_mode), Ok(KillMode::Group));
    }

    #[test]
    fn the_most_is_twice_the_grace_period_and_never_less_than_it() {
        let most = |given: &[(Source, Set)]| configure(given).map(|config| config.grace_max);
        assert_eq!(most(&[(Typed, GRACE)]), Ok(Some(Duration::from_secs(10))));
        assert_eq!(most(&[(Typed, GRACE), (Typed, NO_LIMIT)]), Ok(None));
        assert_eq!(most(&[(Typed, GRACE), (Typed, FIVE_SECONDS)]), Ok(FIVE));
        assert_eq!(most(&[(Typed, FOR_EVER)]), Ok(None));
        assert!(most(&[(Typed, GRACE), (Typed, ONE_SECOND)]).is_err());
        assert!(most(&[(Typed, FOR_EVER), (Typed, FIVE_SECONDS)]).is_err());
        assert!(most(&[(Environment, GRACE), (Environment, ONE_SECOND)]).is_err());
    }

    #[test]
    fn a_delay_must_leave_something() {
        assert!(configure(&[(Typed, SEVEN)]).is_ok());
        let error = configure(&[(Typed, EIGHT)]).unwrap_err();
        assert!(error.to_string().contains("--stop-delay"));
        // SIGKILL at once waits for nothing.
        assert!(configure(&[(Typed, AT_ONCE), (Typed, SEVEN)]).is_ok());
    }
}
