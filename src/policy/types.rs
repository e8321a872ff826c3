//! The types of the machine: its settings and its place, the events, the actions, and the facts
//! that it reports.

use std::time::{Duration, Instant};

use super::Ladder;
use crate::exit::Exit;
use crate::sender::Side;
use crate::signal::{Remap, Signal, SignalSet, Target};

/// Which processes are signalled at which stage; systemd's terms (systemd.kill(5)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum KillMode {
    /// The child alone, from the first signal to SIGKILL; its descendants go on.
    Process,
    /// The stop signal to the child. After its exit or the grace period, SIGTERM to every
    /// descendant, then SIGKILL.
    #[default]
    Mixed,
    /// Every forwarded signal to the child's process group; the stop signal to every descendant.
    Group,
}

/// `--on-repeat`: the effect of a second stop request from the same side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum OnRepeat {
    /// SIGKILL at once.
    #[default]
    Kill,
    /// Forwarded like the first.
    Forward,
    /// Nothing.
    Ignore,
}

/// The settings of the user. The configuration starts from `Default`; `config::Draft::check` sets
/// the defaults of options that differ from it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) ladder: Ladder,
    /// The user gave no grace period; the log marks the number as a default.
    pub(crate) grace_is_default: bool,
    /// `--stop-on`; `None` is the default set.
    pub(crate) stop_on: Option<SignalSet>,
    /// Ctrl-C and Ctrl-\ are stop requests. Not so under an init's name: its user means the shell
    /// that it runs.
    pub(crate) keys_stop: bool,
    pub(crate) on_repeat: OnRepeat,
    pub(crate) kill_mode: KillMode,
    /// Keep running until all descendants exit.
    pub(crate) wait_tree: bool,
    pub(crate) max_runtime: Option<Duration>,
    /// How long the command may take to be ready.
    pub(crate) ready_timeout: Option<Duration>,
    /// How long the command may be silent, once it was ready or has reported that it is alive.
    pub(crate) watchdog: Option<Duration>,
    /// How many `--pre-stop` hooks there are.
    pub(crate) hooks: usize,
    /// How many `--pre-kill` hooks there are, and for how long before SIGKILL they may run.
    pub(crate) pre_kill: usize,
    pub(crate) pre_kill_timeout: Duration,
    /// `--stop-delay`: the wait between the hooks and the stop signal.
    pub(crate) stop_delay: Duration,
    /// The longest grace period that the child can ask for; `None` has no limit.
    pub(crate) grace_max: Option<Duration>,
    pub(crate) remap: Remap,
}

/// The surroundings in which bowout runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// The signals that bowout was started with as ignored; empty as PID 1.
    pub(crate) ignored: SignalSet,
    /// There is a controlling terminal.
    pub(crate) job_control: bool,
    /// Standard output is the controlling terminal: the child may be an interactive program, which
    /// goes on after a Ctrl-C.
    pub(crate) stdout_is_terminal: bool,
    /// A service manager receives STOPPING=1, repeatedly: it loses it when it is executed anew.
    pub(crate) announces: bool,
    /// bowout leads the session: the kernel sends a hang-up to it, and not to the child
    /// (drivers/tty/tty_jobctrl.c).
    pub(crate) leader: bool,
    /// PID 1 receives neither `kill -1` nor `kill 0` of a descendant by accident: a descendant's
    /// signal to PID 1 is meant for it (kill(2)).
    pub(crate) pid1: bool,
}

/// A signal that bowout has received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) signal: Signal,
    pub(crate) side: Side,
    /// The value of a queued signal (sigqueue(3)), which is passed on with it.
    pub(crate) value: Option<u64>,
    /// The child shares bowout's process group, or has exited: a signal to that group has reached
    /// its processes without bowout.
    pub(crate) shared_group: bool,
}

/// Why the stop began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    Signal(Signal),
    /// `--max-runtime` is over.
    RunTime,
    /// The command's input has ended (`--stop-on-eof`).
    Eof,
    /// With `--guard`, bowout itself was killed, and the guard stops the command.
    SupervisorKilled,
    /// The guard was killed.
    GuardKilled,
    /// The command was not ready in time (`--ready-timeout`).
    NotReady,
    /// For too long, the command has not reported that it is alive (`--watchdog`).
    Watchdog,
    /// A new instance of the command serves in its place (`--replace-on`).
    Replaced,
}

impl Cause {
    /// For programs: the report and the hooks.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Signal(_) => "signal",
            Self::RunTime => "max_runtime",
            Self::Eof => "eof",
            Self::SupervisorKilled => "supervisor_killed",
            Self::GuardKilled => "guard_killed",
            Self::NotReady => "not_ready",
            Self::Watchdog => "watchdog",
            Self::Replaced => "replaced",
        }
    }
}

/// The events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Signal(Received),
    /// Another cause than a signal asks for the stop.
    Stop(Cause),
    /// The command reports that it is ready (`--ready`).
    Ready,
    /// The command reports that it is alive (`WATCHDOG=1`).
    Alive,
    /// The child has exited and is not reaped yet.
    ChildExited(Exit),
    /// The hook that was running has exited, or could not be started.
    HookExited,
    /// The child asks for so much time from now (sd_notify(3), `EXTEND_TIMEOUT_USEC=`).
    ExtendGrace(Duration),
    /// `signal` stopped the child. `wants_terminal`: because it is not in the foreground group and
    /// bowout is. `watched`: the parent of bowout is in another process group of the session, as a
    /// shell with job control is. `shared_group`: the child is in bowout's group.
    ChildStopped {
        signal: Signal,
        wants_terminal: bool,
        watched: bool,
        shared_group: bool,
    },
    /// The answer to [`Action::LookAtTerminal`]: whether the program on it is at its prompt.
    TerminalSeen {
        prompt: bool,
    },
    /// [`Action::SuspendSelf`] is over: bowout was continued, or the kernel did not stop it
    /// (`suspended` is false). The child may be `stopped` still.
    Resumed {
        suspended: bool,
        stopped: bool,
    },
    /// A process that was re-parented to bowout was reaped.
    Reaped,
    /// No process of the command is left. `hook`: a hook still runs.
    NoneLeft {
        hook: bool,
    },
    /// A pass of SIGKILL is over: how many processes it reached, and how many refused it (`EPERM`).
    Killed {
        reached: usize,
        refused: usize,
    },
    /// [`deadline`](super::Machine::deadline) is over.
    Timeout,
}

/// Where the supervision stands. Whether the child has exited is a fact beside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No stop is under way.
    #[default]
    Running,
    /// The stop began; the stop signal follows the hook that runs, or the delay.
    Preparing { hook: Option<usize> },
    /// This rung of the ladder was sent. The rung after the last is the drain: the child has exited
    /// or was sent SIGKILL, and its descendants were sent SIGTERM.
    Stopping { rung: usize },
    /// SIGKILL was sent, and is sent `again` to the processes that are left.
    Killing { again: Instant },
    /// bowout exits like this.
    Done(Exit),
}

/// A hook, by its place and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    PreStop(usize),
    PreKill(usize),
    /// Run by the supervisor after the end, for which there is no policy.
    PostStop(usize),
}

/// The actions for the supervisor, which performs them in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// With `wake`, SIGCONT follows the last action to each process of the target that is stopped,
    /// or may be: it acts on the signal only once it continues (signal(7)).
    Send {
        signal: Signal,
        value: Option<u64>,
        to: Target,
        wake: bool,
    },
    /// Wait a moment before the next action: the child has just received another signal than the
    /// one that follows.
    Pause,
    /// SIGCONT to each stopped member of the child's process group.
    Wake,
    /// Start this hook.
    RunHook(Hook),
    /// SIGKILL to the process group of the hook that runs.
    EndHook,
    /// Report the stop and its deadline to the service manager.
    NotifyStopping,
    /// Find out whether the program on the terminal is at its prompt: [`Event::TerminalSeen`]
    /// follows at once.
    LookAtTerminal,
    /// Stop as the child was stopped, until the user's `fg` or `bg`.
    SuspendSelf(Signal),
    /// Make the child's process group the foreground group.
    LendTerminal,
}

/// The effects of an event, for the log, the report and the manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fact {
    /// A signal was received. `request`: it asks for the stop.
    Signal {
        received: Received,
        request: bool,
        outcome: Outcome,
    },
    /// The stop began without a signal.
    Began(Cause, Waiting),
    /// The command is ready.
    Ready,
    /// A Ctrl-C was received a moment ago, and the program is not at its prompt: the stop goes on.
    CtrlC(Waiting),
    /// The program is at its prompt: the stop that a Ctrl-C began is cancelled.
    Cancelled,
    ChildExited(Exit),
    /// The stop signal was sent after this hook, which exited or was killed at its `deadline`.
    HookOver {
        hook: usize,
        deadline: bool,
    },
    /// The stop signal was sent after `--stop-delay`.
    DelayOver,
    /// The signal of a later rung was sent.
    Escalated,
    /// The grace period is over and SIGKILL was sent. Descendants without a stop signal so far have
    /// a second more.
    GraceOver,
    /// SIGKILL was sent again, to the processes that outlived it.
    KilledAgain,
    /// SIGKILL has not ended every process, and bowout exits.
    GaveUp,
    /// A deadline passed while bowout was stopped or frozen, and was put off.
    DeadlineLate,
    /// The child asked for more time; `granted` if that moved the deadline.
    Extended {
        asked: Duration,
        granted: bool,
    },
    /// Processes that became bowout's own children during the stop were sent the stop signal, if
    /// there were any.
    NewChildren,
    ChildStopped {
        signal: Signal,
        lent: bool,
    },
    Resumed {
        suspended: bool,
    },
}

/// The effect of a received signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The stop began.
    Began(Waiting),
    /// A Ctrl-C that an interactive program may survive: a look at the terminal decides.
    Looks,
    /// SIGKILL was sent, because of a second request or the exit of the parent.
    Killed,
    Forwarded,
    NotForwarded(Reason),
}

/// Why a signal was not forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// `--remap` drops it.
    Dropped,
    /// The child received it without bowout.
    Received,
    /// The stop signal follows the hooks or the delay.
    Preparing,
    /// The child is being stopped, and was sent this signal.
    Stopping,
    ChildExited,
    ChildKilled,
}

/// The wait of a stop that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// For the hooks, if there are `hooks`, then for the delay.
    Preparation { hooks: bool },
    /// For the child to exit.
    Child,
    /// For its descendants.
    Descendants,
    /// For SIGKILL to work.
    Kill,
}

/// The effects of one event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) actions: Vec<Action>,
    pub(crate) fact: Option<Fact>,
}
