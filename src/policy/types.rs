//! The vocabulary of the machine: what it goes by, what can happen to it, where it can stand, what
//! it can ask for.

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
    /// The stop signal to the child; after its exit or the grace period, SIGTERM to every
    /// descendant, then SIGKILL.
    #[default]
    Mixed,
    /// Every forwarded signal to the child's process group, the stop signal to every descendant,
    /// too.
    Group,
}

/// What a second stop request from a side that has already asked means.
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

/// What the machine is to go by: the user's wishes, and some facts of the place.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) ladder: Ladder,
    /// The user gave no wait; the log says so beside the number.
    pub(crate) grace_is_default: bool,
    pub(crate) stop_on: SignalSet,
    /// A hang-up of the terminal is a stop request; not so under nohup.
    pub(crate) hangup_stops: bool,
    pub(crate) on_repeat: OnRepeat,
    pub(crate) kill_mode: KillMode,
    /// The child's own end is no end: supervise until the last descendant is gone.
    pub(crate) wait_tree: bool,
    pub(crate) max_runtime: Option<Duration>,
    /// How many `--pre-stop` hooks there are.
    pub(crate) hooks: usize,
    /// `--stop-delay`: how long to wait behind the hooks until the stop signal is sent.
    pub(crate) stop_delay: Duration,
    /// The longest that the child can have the grace period extended to; none is for ever.
    pub(crate) grace_max: Option<Duration>,
    pub(crate) remap: Remap,
    /// Ctrl-C and Ctrl-\ are stop requests; not so for an init in front of a shell, whose user
    /// means the shell's command.
    pub(crate) keys_stop: bool,
    /// There is a controlling terminal.
    pub(crate) job_control: bool,
    /// Standard output is the controlling terminal: the child may be an interactive program, which
    /// goes on after a Ctrl-C.
    pub(crate) stdout_is_terminal: bool,
    /// A service manager is told of the stop, again and again: it forgets when it reads its units
    /// anew.
    pub(crate) announces: bool,
    /// We lead the session: a hang-up reaches us and not the child (contract T3).
    pub(crate) leader: bool,
    /// `kill -1` and `kill 0` do not mean us by accident: what a descendant sends to PID 1 is meant
    /// (contract T2).
    pub(crate) pid1: bool,
}

impl Settings {
    /// Whether `--remap` drops this signal.
    pub(crate) fn drops(&self, signal: Signal) -> bool {
        self.remap.apply(signal).is_none()
    }

    /// Whether this is a Ctrl-C that an interactive program has received and may survive: the stop
    /// waits for a look at the terminal.
    pub(crate) fn awaits_prompt(&self, received: Received) -> bool {
        self.stdout_is_terminal
            && received.shared_group
            && (received.signal, received.side) == (Signal::INT, Side::Terminal)
            && self.remap.apply(Signal::INT) == Some(Signal::INT)
    }

    /// Whether this asks for the stop.
    pub(crate) fn is_stop_request(&self, received: Received) -> bool {
        match (received.signal, received.side) {
            (Signal::HUP, Side::Terminal) => self.hangup_stops,
            (Signal::INT | Signal::QUIT, Side::Terminal) if !self.keys_stop => false,
            // A resize does not ask for the stop; `--stop-on WINCH` is for the signals of
            // processes.
            (Signal::WINCH, Side::Terminal) => false,
            // From the exit of the parent alone: no process can receive it.
            (Signal::KILL, _) => true,
            (signal, _) => self.stop_on.contains(signal),
        }
    }
}

/// A signal that has reached bowout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) signal: Signal,
    pub(crate) side: Side,
    /// The value of a queued signal (sigqueue(3)), to be passed on with it.
    pub(crate) value: Option<u64>,
    /// What was sent to our process group has reached whom it is for without us: the child is in it
    /// at this moment, or gone.
    pub(crate) shared_group: bool,
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Signal(Received),
    /// The child has ended and is not reaped yet.
    ChildExited(Exit),
    /// The hook that was running has ended, or could not be started.
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
    /// The answer to [`Action::LookAtTerminal`]: whether the program on the terminal is at its
    /// `prompt`.
    TerminalSeen {
        prompt: bool,
    },
    /// [`Action::SuspendSelf`] is over: somebody has woken us, or, where nobody could, we were
    /// never `suspended`. Whoever has woken our group has woken the child in it; else it is
    /// `stopped` still.
    Resumed {
        suspended: bool,
        stopped: bool,
    },
    /// Nothing of the command is left; only the hook runs.
    HookAlone,
    /// No process is left that is ours to wait for (`ECHILD`).
    NoChildren,
    /// SIGKILL was refused by everything that is left (`EPERM`).
    Refused,
    /// A pass of SIGKILL is over, and so many were `left` to be sent it.
    Killed {
        left: usize,
    },
    /// [`deadline`](super::Machine::deadline) has come.
    Timeout,
}

/// Where the supervision stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// No stop is under way. `ended` only with `--wait-tree`: the child is gone and its descendants
    /// go on.
    Running { ended: Option<Exit> },
    /// The stop is asked for and the stop signal not yet sent: hook number `hook` runs, or, behind
    /// the last, the delay, until then at the latest. The time of the ladder's first step runs
    /// already, to `grace`.
    Preparing {
        hook: Option<usize>,
        until: Option<Instant>,
        grace: Option<Instant>,
        ended: Option<Exit>,
    },
    /// Step `rung` of the ladder has been sent and has until then.
    Stopping {
        rung: usize,
        until: Option<Instant>,
        ended: Option<Exit>,
    },
    /// The child is gone, its descendants are being ended and have until then.
    Draining { exit: Exit, until: Option<Instant> },
    /// SIGKILL is sent; what refuses to die is sent it `again` and given up on at `until`.
    Killing {
        ended: Option<Exit>,
        again: Instant,
        until: Instant,
    },
    /// Nothing is left to do but to end like this.
    Done(Exit),
}

/// What is to be done, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// With `wake`, SIGCONT follows to each process of the target that is stopped, or that may be:
    /// it acts on the signal only once it continues (signal(7)).
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
    /// Start this `--pre-stop` hook.
    RunHook(usize),
    /// SIGKILL to the hook that runs, and to its process group.
    EndHook,
    /// Tell the service manager that the stop is under way, and until when.
    NotifyStopping,
    /// Find out whether the program on the terminal is at its prompt: [`Event::TerminalSeen`]
    /// follows at once.
    LookAtTerminal,
    /// Stop as the child was stopped, until the user's `fg` or `bg`.
    SuspendSelf(Signal),
    /// Make the child's process group the foreground group.
    LendTerminal,
    /// End, once the child is reaped.
    Exit(Exit),
}
