//! Signals: which is a request to stop, which repeats one, and which is forwarded.

use std::time::{Duration, Instant};

use super::{Action, KillMode, Machine, OnRepeat, Received, State};
use crate::sender::Side;
use crate::signal::Target;
use crate::signal::{Signal, SignalSet};

impl Machine {
    /// Acting on the first request of a side, which was read at `asked`, took until `now`: a
    /// thousand descendants and a slow terminal take time. A request that follows within [`BURST`]
    /// of this is the same one.
    pub(crate) fn acted(&mut self, asked: Instant, now: Instant) {
        for side in self
            .asked
            .iter_mut()
            .flatten()
            .filter(|side| side.first == asked)
        {
            side.first = now.min(asked + ACTING);
        }
    }

    /// A signal that is not dropped; `signal` is its translation by `--remap`.
    pub(super) fn signalled(
        &mut self,
        now: Instant,
        received: Received,
        signal: Signal,
    ) -> Vec<Action> {
        if received.signal == Signal::KILL {
            return self.parent_exited(now);
        }
        if !self.settings.is_stop_request(received) {
            return self.forward(received, signal);
        }
        let asked = &self.asked[received.side as usize];
        let differs = asked.is_some_and(|asked| !asked.signals.contains(received.signal));
        match self.state {
            State::Running { ended } => {
                self.asks(now, received);
                self.begin(now, Some((received, signal)), ended)
            }
            State::Preparing { ended, .. } => {
                match (self.asks(now, received), self.settings.on_repeat) {
                    (Request::Repeat, OnRepeat::Kill) => self.kill(now, ended),
                    (Request::Repeat, OnRepeat::Ignore) => vec![],
                    // It can be forwarded only together with the first.
                    (Request::First, _) | (Request::Repeat, OnRepeat::Forward) => {
                        self.await_stop(self.pending(received, signal, self.stop_signal(signal)));
                        vec![]
                    }
                    (Request::Climb, _) => {
                        self.await_stop(self.pending(received, signal, signal));
                        vec![]
                    }
                }
            }
            State::Stopping { ended, .. } => {
                match (self.asks(now, received), self.settings.on_repeat) {
                    (Request::First, OnRepeat::Forward) if differs => {
                        self.send_stop(self.pending(received, signal, self.stop_signal(signal)))
                    }
                    (Request::First, _) => {
                        self.send_once(self.pending(received, signal, self.stop_signal(signal)))
                    }
                    (Request::Climb, _) => self.send_once(self.pending(received, signal, signal)),
                    (Request::Repeat, OnRepeat::Kill) => self.kill(now, ended),
                    (Request::Repeat, OnRepeat::Forward) => {
                        self.send_stop(self.pending(received, signal, self.stop_signal(signal)))
                    }
                    (Request::Repeat, OnRepeat::Ignore) => vec![],
                }
            }
            State::Draining { exit, .. } => {
                match (self.asks(now, received), self.settings.on_repeat) {
                    (Request::Repeat, OnRepeat::Kill) => self.kill(now, Some(exit)),
                    // The drain already stops every descendant; only the manager does not know of
                    // the request.
                    (_, _) if self.begun.is_some() => vec![],
                    (_, _) => self.announce(now),
                }
            }
            State::Killing { ended, .. } if self.last_second => {
                match (self.asks(now, received), self.settings.on_repeat) {
                    (Request::Repeat, OnRepeat::Kill) => self.kill(now, ended),
                    (_, _) => vec![],
                }
            }
            State::Killing { .. } | State::Done(_) => vec![],
        }
    }

    /// `--parent-death-signal KILL`: the end of every process, at once. No process can receive
    /// SIGKILL, so that it means nothing else here.
    fn parent_exited(&mut self, now: Instant) -> Vec<Action> {
        match self.state {
            State::Running { ended }
            | State::Preparing { ended, .. }
            | State::Stopping { ended, .. } => self.kill(now, ended),
            State::Draining { exit, .. } => self.kill(now, Some(exit)),
            State::Killing { ended, .. } if self.last_second => self.kill(now, ended),
            State::Killing { .. } | State::Done(_) => vec![],
        }
    }

    /// A signal that does not ask for the stop.
    fn forward(&mut self, received: Received, signal: Signal) -> Vec<Action> {
        let ended = match self.state {
            State::Running { ended }
            | State::Preparing { ended, .. }
            | State::Stopping { ended, .. } => ended,
            // The child has exited or is being killed.
            State::Draining { .. } | State::Killing { .. } | State::Done(_) => return vec![],
        };
        let to = match (self.child_has(received, signal), ended.is_some()) {
            (true, false) => return vec![],
            (true, true) => Target::Others,
            (false, true) => Target::All,
            (false, false) if self.settings.kill_mode == KillMode::Group => Target::Group,
            (false, false) => Target::Child,
        };
        vec![Action::Send {
            signal,
            value: received.value,
            to,
            wake: false,
        }]
    }

    /// Has a pause in front of a signal that follows the one that the child received with bowout.
    /// bash 5.2 loses the trap of one of two signals that become pending together while it waits
    /// for a command; it has dealt with the first within a millisecond.
    pub(super) fn space_out(&self, received: Received, actions: &mut Vec<Action>) {
        let another = |action: &Action| matches!(action, Action::Send { signal, .. } if ![received.signal, Signal::KILL].contains(signal));
        if self.child_has(received, received.signal) && actions.iter().any(another) {
            actions.insert(0, Action::Pause);
        }
    }

    /// Notes a stop request, and says what it means beside the earlier ones of its side. A request
    /// within [`BURST`] of the first is the same one. A hang-up never repeats: the shell and the
    /// kernel both send one when a window closes.
    fn asks(&mut self, now: Instant, Received { signal, side, .. }: Received) -> Request {
        let running = matches!(self.state, State::Running { .. });
        if signal == Signal::HUP && side == Side::Terminal && !running {
            return Request::First;
        }
        let asked = self.asked[side as usize].get_or_insert(Asked {
            first: now,
            last: now,
            signals: SignalSet::default(),
        });
        let first = now.saturating_duration_since(asked.first) < BURST;
        let climbs =
            !asked.signals.contains(signal) && now.saturating_duration_since(asked.last) >= CLIMB;
        if climbs {
            // timeout(1) sends each signal twice: to its child, then to its group.
            asked.first = now;
        }
        asked.last = now;
        asked.signals = asked.signals.with(signal);
        match (first, climbs) {
            (true, _) => Request::First,
            (false, true) => Request::Climb,
            (false, false) => Request::Repeat,
        }
    }

    /// Whether the child has `signal` without us, because it is the signal that was received: from
    /// the terminal, which signals the whole foreground group, or from a `kill 0` in the tree
    /// (termios(3), kill(2)).
    pub(super) fn child_has(&self, received: Received, signal: Signal) -> bool {
        received.shared_group
            && received.signal == signal
            && match received.side {
                Side::Terminal => match signal {
                    Signal::HUP => !self.settings.leader,
                    signal => signal.is_terminals(),
                },
                Side::Tree => !self.settings.pid1,
                Side::Outside | Side::Manager | Side::Process | Side::Parent => false,
            }
    }
}

/// The stop requests of one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    /// When bowout had acted on the first.
    pub(super) first: Instant,
    pub(super) last: Instant,
    pub(super) signals: SignalSet,
}

/// A stop request beside the earlier ones of its side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    First,
    /// The sender escalates by itself (start-stop-daemon's `--retry`, parallel's `--termseq`):
    /// another signal, [`CLIMB`] or more after the last.
    Climb,
    Repeat,
}

/// A stop signal to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pending {
    pub(super) signal: Signal,
    /// The value that it was queued with.
    pub(super) value: Option<u64>,
    /// The members of our process group have the signal without us.
    pub(super) group_has: bool,
}

/// How long one request may take to arrive: timeout(1) sends it to its child and then to the group
/// that the child is in, and so do other wrappers. A key is not pressed twice so fast.
pub(super) const BURST: Duration = Duration::from_millis(50);
/// The longest time for which acting on a request is part of it. Where it takes longer, bowout
/// itself was stopped, and the next request is a second one.
pub(super) const ACTING: Duration = Duration::from_millis(200);
/// The shortest time between two different stop signals of one sender that escalates.
pub(super) const CLIMB: Duration = Duration::from_millis(900);
