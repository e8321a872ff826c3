//! Signals: which ask for the stop, which repeat a request, and which are forwarded.

use std::time::{Duration, Instant};

use super::{
    Action, Asked, Cause, Fact, KillMode, Machine, OnRepeat, Outcome, Pending, Phase, Reason,
    Received,
};
use crate::sender::Side;
use crate::signal::{Signal, SignalSet, Target};

/// How long one request may take to arrive: timeout(1) and other wrappers send a signal to the
/// process, then to its group. No user presses a key twice so fast.
pub(super) const BURST: Duration = Duration::from_millis(50);
/// The longest time for which acting on a request is part of it. Where it takes longer, bowout
/// itself was stopped, and the next request is a second one.
pub(super) const ACTING: Duration = Duration::from_millis(200);
/// The shortest time between two different stop signals of one sender that escalates. Such senders
/// wait for at least 1 s; a busy machine delays the first signal and not the second.
pub(super) const CLIMB: Duration = Duration::from_millis(750);

/// The meaning of a stop request after the earlier ones of its side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    First,
    /// The sender escalates by itself (start-stop-daemon's `--retry`, parallel's `--termseq`):
    /// another signal, [`CLIMB`] or more after the last.
    Climb,
    Repeat,
}

impl Machine {
    /// True if this asks for the stop.
    pub(crate) fn is_stop_request(&self, received: Received) -> bool {
        let given = self.settings.stop_on;
        match (received.signal, received.side) {
            // `--remap` drops it.
            (signal, _) if self.settings.remap.apply(signal).is_none() => false,
            (Signal::HUP, Side::Terminal) => given
                .map_or(!self.place.ignored.contains(Signal::HUP), |set| {
                    set.contains(Signal::HUP)
                }),
            (Signal::INT | Signal::QUIT, Side::Terminal) if !self.settings.keys_stop => false,
            // A resize is not a stop request; `--stop-on WINCH` means a signal from a process.
            (Signal::WINCH, Side::Terminal) => false,
            // From the exit of the parent alone: no process can receive it.
            (Signal::KILL, _) => true,
            // A signal that was ignored at the start stays so, as under nohup (nohup(1)) and in a
            // script's background jobs: it is forwarded, and asks for nothing.
            (signal, _) => given.map_or_else(
                || !self.place.ignored.contains(signal) && self.settings.ladder.stops_on(signal),
                |set| set.contains(signal),
            ),
        }
    }

    /// True if the side of this signal's sender changes the actions. Where it does not, bowout
    /// looks the sender up after it has sent the signal; [`Machine::settle_side`] then corrects the
    /// side.
    pub(crate) fn weighs_side(&self, received: Received) -> bool {
        (self.place.job_control && !self.place.pid1)
            || (self.phase != Phase::Running && self.is_stop_request(received))
    }

    /// The first request, which was taken for one of [`Side::Process`], is of another side.
    pub(crate) fn settle_side(&mut self, side: Side) {
        if let Some(asked) = self.asked[Side::Process as usize].take() {
            self.asked[side as usize].get_or_insert(asked);
        }
    }

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

    pub(super) fn signal(&mut self, now: Instant, received: Received) {
        let request = self.is_stop_request(received);
        let outcome = match self.settings.remap.apply(received.signal) {
            None => Outcome::NotForwarded(Reason::Dropped),
            Some(Signal::KILL) if received.signal == Signal::KILL => self.parent_exited(now),
            Some(signal) if request => self.request(now, received, signal),
            Some(signal) => self.forward(received, signal),
        };
        self.report(Fact::Signal {
            received,
            request,
            outcome,
        });
        self.follow_group_stop(now, received);
        if request {
            self.join(now, received);
        }
    }

    /// A stop request; `signal` is its translation by `--remap`.
    fn request(&mut self, now: Instant, received: Received, signal: Signal) -> Outcome {
        let asked = self.asked[received.side as usize];
        match self.phase {
            Phase::Running => {
                self.note_request(now, received);
                let cause = Cause::Signal(received.signal);
                let waiting = self.begin(now, cause, Some((received, signal)));
                return if self.is_unprepared() {
                    Outcome::Looks
                } else {
                    Outcome::Began(waiting)
                };
            }
            Phase::Preparing { .. } | Phase::Stopping { .. } => {}
            Phase::Killing { .. } | Phase::Done(_) => return self.not_forwarded(),
        }
        let differs = asked.is_some_and(|asked| !asked.signals.contains(received.signal));
        let before = self.step.actions.len();
        match (self.note_request(now, received), self.settings.on_repeat) {
            (Request::Repeat, OnRepeat::Kill) => {
                self.kill(now);
                return Outcome::Killed;
            }
            // The drain stops every descendant already; only the manager does not know of the
            // request.
            _ if self.is_draining() => {
                if self.begun.is_none() {
                    self.announce(now);
                }
                return self.not_forwarded();
            }
            (Request::Repeat, OnRepeat::Ignore) => {}
            (Request::Climb, _) => self.send_later(self.pending(received, signal, signal), false),
            (kind, repeat) => {
                let again = repeat == OnRepeat::Forward && (differs || kind == Request::Repeat);
                self.send_later(
                    self.pending(received, signal, self.stop_signal(signal)),
                    again,
                );
            }
        }
        if self.step.actions.len() > before {
            Outcome::Forwarded
        } else {
            self.not_forwarded()
        }
    }

    /// Sends a stop signal, after the preparations if these last; once, or `again`.
    fn send_later(&mut self, pending: Pending, again: bool) {
        if let Phase::Preparing { hook } = self.phase {
            self.await_stop(pending);
            // The time to exit by itself is for the end of the input alone.
            if hook.is_none() && self.waits_for_own_exit() {
                self.stop();
            }
        } else if again {
            self.send_stop(pending);
        } else {
            self.forwarded = self.forwarded.with(pending.signal);
            self.await_stop(pending);
            self.send_waiting();
        }
    }

    /// `--parent-death-signal KILL`: SIGKILL to every process at once. No process can receive
    /// SIGKILL, so that it has no other meaning here.
    fn parent_exited(&mut self, now: Instant) -> Outcome {
        if matches!(self.phase, Phase::Killing { .. } | Phase::Done(_)) {
            return self.not_forwarded();
        }
        self.kill(now);
        Outcome::Killed
    }

    /// A signal that does not ask for the stop.
    fn forward(&mut self, received: Received, signal: Signal) -> Outcome {
        let over = matches!(self.phase, Phase::Killing { .. } | Phase::Done(_));
        if over || self.is_draining() {
            return self.not_forwarded();
        }
        let to = match (self.child_has(received, signal), self.ended.is_some()) {
            (true, false) => return Outcome::NotForwarded(Reason::Received),
            (true, true) => Target::Others,
            (false, true) => Target::All,
            (false, false) if self.settings.kill_mode == KillMode::Group => Target::Group,
            (false, false) => Target::Child,
        };
        self.act(Action::Send {
            signal,
            value: received.value,
            to,
            wake: false,
        });
        Outcome::Forwarded
    }

    fn not_forwarded(&self) -> Outcome {
        let exited = self.ended.is_some() && !self.settings.wait_tree;
        Outcome::NotForwarded(match self.phase {
            Phase::Preparing { .. } => Reason::Preparing,
            Phase::Stopping { .. } if !self.is_draining() => Reason::Stopping,
            _ if exited => Reason::ChildExited,
            Phase::Running | Phase::Stopping { .. } | Phase::Killing { .. } | Phase::Done(_) => {
                Reason::ChildKilled
            }
        })
    }

    /// Puts a pause in front of a signal that follows the one which the child received with bowout.
    /// bash 5.2 loses the trap of one of two signals that become pending together while it waits
    /// for a command; it has dealt with the first within a millisecond.
    pub(super) fn space_out(&mut self, received: Received) {
        let another = |action: &Action| matches!(action, Action::Send { signal, .. } if ![received.signal, Signal::KILL].contains(signal));
        if self.child_has(received, received.signal) && self.step.actions.iter().any(another) {
            self.step.actions.insert(0, Action::Pause);
        }
    }

    /// Notes a stop request, and returns its meaning after the earlier ones of its side. A request
    /// within [`BURST`] of the first is the same one. A hang-up never repeats: the shell and the
    /// kernel both send one when a window closes.
    fn note_request(&mut self, now: Instant, Received { signal, side, .. }: Received) -> Request {
        if signal == Signal::HUP && side == Side::Terminal && self.phase != Phase::Running {
            return Request::First;
        }
        let new = Asked {
            first: now,
            last: now,
            signals: SignalSet::default(),
        };
        let asked = self.asked[side as usize].get_or_insert(new);
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

    /// True if the child received `signal` without bowout, because it is the received one: from the
    /// terminal, which signals the whole foreground group, or from a `kill 0` in the tree
    /// (termios(3), kill(2)).
    pub(super) fn child_has(&self, received: Received, signal: Signal) -> bool {
        received.shared_group
            && received.signal == signal
            && match received.side {
                Side::Terminal if signal == Signal::HUP => !self.place.leader,
                Side::Terminal => signal.is_terminals(),
                Side::Tree => !self.place.pid1,
                Side::Outside | Side::Manager | Side::Process | Side::Parent => false,
            }
    }
}
