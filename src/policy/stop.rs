//! The way from the first stop request to the end: preparation, the rungs of the ladder, the drain,
//! SIGKILL.

use std::time::{Duration, Instant};

use super::{
    Action, Cause, Fact, KillMode, Machine, Pending, Phase, Received, Rung, Waiting, later,
};
use crate::exit::Exit;
use crate::signal::{Signal, Target};

/// The wait between two passes of SIGKILL: a process can be forked after the first pass.
const KILL_AGAIN: Duration = Duration::from_millis(20);
/// How long a process may outlive its SIGKILL before bowout exits without it: it is in state D, or
/// the kernel frees its memory slowly. The time starts after the first pass, and again whenever
/// fewer are left: thousands take long on a busy machine. docker and podman wait for 10 s: of these
/// 2 s, the default grace period of 8 s and [`LAST_SECOND`] leave one.
const UNKILLABLE: Duration = Duration::from_secs(2);

/// How often the manager is notified during a stop, and new children are looked for: half the
/// shortest timeout that a manager would have.
const TICK: Duration = Duration::from_millis(500);

/// A deadline that bowout notices later than this passed while a freezer, SIGSTOP or a suspended
/// machine held bowout and the command. It is put off by the same time.
pub(super) const LATE: Duration = Duration::from_secs(1);

/// How long a descendant that was not asked to stop before the deadline has between SIGTERM and
/// SIGKILL.
const LAST_SECOND: Duration = Duration::from_secs(1);

impl Machine {
    /// When the last rung is over and the child is sent SIGKILL; `None` is never.
    pub(super) fn kill_at(&self) -> Option<Instant> {
        match self.phase {
            Phase::Preparing { .. } => later(self.grace, self.settings.ladder.total(1)),
            Phase::Stopping { rung } => later(self.until, self.settings.ladder.total(rung + 1)),
            Phase::Running | Phase::Killing { .. } | Phase::Done(_) => None,
        }
    }

    /// When the stop that is under way is over at the latest, with [`LAST_SECOND`] and
    /// [`UNKILLABLE`]; `None` is never.
    pub(crate) fn over_at(&self) -> Option<Instant> {
        if matches!(self.phase, Phase::Killing { .. }) {
            return self.until;
        }
        let last = if self.asks_last() {
            LAST_SECOND
        } else {
            Duration::ZERO
        };
        later(self.kill_at(), Some(last + UNKILLABLE))
    }

    /// The next signal of the stop, and when it is sent; `None` is never.
    pub(crate) fn next_signal(&self) -> Option<(Signal, Instant)> {
        let (rung, at) = match self.phase {
            Phase::Preparing { .. } => (1, self.grace),
            Phase::Stopping { rung } => (rung + 1, self.until),
            Phase::Running | Phase::Killing { .. } | Phase::Done(_) => return None,
        };
        let signal = self.settings.ladder.rung(rung).and_then(|rung| rung.signal);
        Some((signal.unwrap_or(Signal::KILL), at?))
    }

    /// The wait that the stop is in.
    pub(crate) fn waiting(&self) -> Waiting {
        match self.phase {
            Phase::Preparing { hook } => Waiting::Preparation {
                hooks: hook.is_some(),
            },
            Phase::Stopping { .. } if self.is_draining() => Waiting::Descendants,
            Phase::Running | Phase::Stopping { .. } => Waiting::Child,
            Phase::Killing { .. } | Phase::Done(_) => Waiting::Kill,
        }
    }

    /// True if the rung after the last is reached.
    pub(super) fn is_draining(&self) -> bool {
        self.phase
            == Phase::Stopping {
                rung: self.settings.ladder.rungs(),
            }
    }

    /// True if the descendants are asked last: so far, the stop signals were for the child alone.
    /// At the deadline, the descendants are sent SIGTERM, and SIGKILL after [`LAST_SECOND`].
    pub(super) fn asks_last(&self) -> bool {
        self.settings.kill_mode == KillMode::Mixed
            && !self.settings.wait_tree
            && self.tree_asked.is_none()
    }

    /// Begins the stop by another cause than a signal.
    pub(super) fn stop_without_signal(&mut self, now: Instant, cause: Cause) {
        if self.phase == Phase::Running {
            let waiting = self.begin(now, cause, None);
            self.report(Fact::Began(cause, waiting));
        }
    }

    /// Begins the stop; `by` is the request and its translation.
    pub(super) fn begin(
        &mut self,
        now: Instant,
        cause: Cause,
        by: Option<(Received, Signal)>,
    ) -> Waiting {
        (self.begun, self.begun_by) = (Some(now), Some(cause));
        if let Some(Rung { wait, .. }) = self.settings.ladder.rung(0) {
            let pending = match by {
                Some((received, forwarded)) => {
                    self.pending(received, forwarded, self.stop_signal(forwarded))
                }
                // Programs that hang dump their threads at SIGABRT.
                None if cause == Cause::Watchdog => Pending::new(Signal::ABRT),
                None => Pending::new(self.stop_signal(Signal::TERM)),
            };
            self.await_stop(pending);
            self.grace = later(Some(now), wait);
            if by.is_some_and(|(received, _)| self.awaits_prompt(received)) {
                self.await_prompt(now);
                return self.waiting();
            }
            self.prepare(now, 0);
        } else {
            self.kill(now);
        }
        self.announce(now);
        self.waiting()
    }

    /// Notes that the stop began at `begun`, and notifies the manager, then again and again.
    pub(super) fn announce(&mut self, begun: Instant) {
        self.begun = Some(begun);
        if self.place.announces {
            self.tick.get_or_insert(begun + TICK);
        }
        self.notify_stopping();
    }

    /// Grants the child the time that it asks for: never less than it had, and not beyond
    /// `--grace-max`. The rungs that follow keep their time, and a child that was sent SIGKILL gets
    /// no more for its descendants.
    pub(super) fn extend(&mut self, now: Instant, wait: Duration) {
        let (until, rest) = match self.phase {
            _ if self.sent.contains(Signal::KILL) => return,
            Phase::Preparing { .. } => (&mut self.grace, self.settings.ladder.total(1)),
            Phase::Stopping { rung } => (&mut self.until, self.settings.ladder.total(rung + 1)),
            Phase::Running | Phase::Killing { .. } | Phase::Done(_) => return,
        };
        let mut granted = false;
        if let (Some(before), Some(wanted), Some(begun)) =
            (*until, now.checked_add(wait), self.begun)
        {
            let latest = self
                .settings
                .grace_max
                .and_then(|max| begun.checked_add(max));
            let latest = latest.map(|latest| {
                rest.and_then(|rest| latest.checked_sub(rest))
                    .unwrap_or(before)
            });
            let after = latest
                .map_or(wanted, |latest| wanted.min(latest))
                .max(before);
            granted = after > before;
            *until = Some(after);
        }
        if granted {
            self.notify_stopping();
        }
        self.report(Fact::Extended {
            asked: wait,
            granted,
        });
    }

    /// The first rung: sends each stop signal that was noted during the preparations.
    pub(super) fn stop(&mut self) {
        (self.phase, self.until) = (Phase::Stopping { rung: 0 }, self.grace);
        self.send_waiting();
    }

    /// Steps on to `rung`; after the last one there is SIGKILL.
    pub(super) fn climb(&mut self, now: Instant, rung: usize) {
        if let Some(Rung { signal, wait }) = self.settings.ladder.rung(rung) {
            (self.phase, self.until) = (Phase::Stopping { rung }, later(Some(now), wait));
            let signal = signal.unwrap_or(Signal::TERM);
            // A sender's own escalation can be faster than the ladder.
            if !self.forwarded.contains(signal) {
                self.send_stop(Pending::new(signal));
            }
            self.report(Fact::Escalated);
        } else {
            self.end_hook();
            if self.asks_last() {
                self.sent = self.sent.with(Signal::KILL);
                self.send(Signal::KILL, Target::Child);
                self.ask_descendants(now + LAST_SECOND);
            } else {
                self.kill(now);
            }
            self.report(Fact::GraceOver);
        }
    }

    /// Puts off a deadline that leads to SIGKILL, or to giving up after it, where it is noticed so
    /// late ([`LATE`]) that the command had no time to act, or SIGKILL had none to work. Once: a
    /// machine that is always late must not put off the end for ever. Returns true if that is all
    /// that the event leads to.
    pub(super) fn puts_off(&mut self, now: Instant) -> bool {
        let stopping = match self.phase {
            Phase::Stopping { rung } if self.settings.ladder.rung(rung + 1).is_none() => true,
            // One more pass of SIGKILL comes first.
            Phase::Killing { .. } => false,
            Phase::Running | Phase::Preparing { .. } | Phase::Stopping { .. } | Phase::Done(_) => {
                return false;
            }
        };
        let late = |until: Instant| now.saturating_duration_since(until) > LATE;
        if self.until == self.put_off || !self.until.is_some_and(late) {
            return false;
        }
        self.until = Some(now + LATE);
        self.put_off = self.until;
        stopping
    }

    /// Stops the descendants after the child's exit; they have until this deadline.
    pub(super) fn drain(&mut self, now: Instant, until: Option<Instant>) {
        if self.is_draining() {
            return;
        }
        let over = until.is_some_and(|until| until <= now);
        if over && self.asks_last() && self.settings.ladder.rung(0).is_some() {
            self.ask_descendants(now + LAST_SECOND);
        } else if over {
            self.kill(now);
        } else {
            self.ask_descendants(until);
        }
        if self.is_draining() {
            self.tick.get_or_insert(now + TICK);
        }
    }

    /// The rung after the last: SIGTERM to each descendant that was not sent it before.
    fn ask_descendants(&mut self, until: impl Into<Option<Instant>>) {
        self.phase = Phase::Stopping {
            rung: self.settings.ladder.rungs(),
        };
        self.until = until.into();
        self.tree_asked = Some(Signal::TERM);
        self.ask(Signal::TERM, Target::Unasked);
    }

    /// Notifies the manager and looks for new children, every [`TICK`].
    pub(super) fn tick(&mut self, now: Instant) {
        if self.tick.is_some_and(|tick| tick <= now) {
            self.tick = Some(now + TICK);
            if self.place.announces && self.begun.is_some() {
                self.notify_stopping();
            }
            self.ask_new_children();
        }
    }

    /// The stop signal to each process that became bowout's own child after the tree was sent it.
    /// While its parent lives, stopping it is left to the parent.
    pub(super) fn ask_new_children(&mut self) {
        if let (Phase::Stopping { .. }, Some(signal)) = (self.phase, self.tree_asked) {
            self.ask(signal, Target::NewChildren);
            self.report(Fact::NewChildren);
        }
    }

    pub(super) fn kill(&mut self, now: Instant) {
        self.end_hook();
        self.phase = Phase::Killing {
            again: now + KILL_AGAIN,
        };
        self.until = Some(now + UNKILLABLE);
        // From here on, the tick only notifies the manager.
        let announced = self.place.announces && self.begun.is_some();
        self.tick = self.tick.filter(|_| announced);
        self.send_kill();
    }

    pub(super) fn kill_again(&mut self, now: Instant) {
        self.phase = Phase::Killing {
            again: now + KILL_AGAIN,
        };
        self.send_kill();
        self.report(Fact::KilledAgain);
    }

    /// A pass of SIGKILL is over. To find tens of thousands of processes takes seconds: the time to
    /// die starts after that. It starts again only when fewer are left, so that forks cannot put
    /// off its end for ever.
    pub(super) fn killed(&mut self, now: Instant, reached: usize, refused: usize) {
        if !matches!(self.phase, Phase::Killing { .. }) {
            return;
        }
        let all_refused = reached == 0 && refused > 0;
        // The exit of PID 1 kills each process that it may not signal (pid_namespaces(7)).
        // Elsewhere bowout waits: the process may exit by itself.
        if all_refused && self.place.pid1 {
            return self.give_up();
        }
        let left = if all_refused { 0 } else { reached + refused };
        if self.fewest.is_none_or(|fewest| left < fewest) {
            self.fewest = Some(left);
            self.phase = Phase::Killing {
                again: now + KILL_AGAIN,
            };
            self.until = Some(now + UNKILLABLE);
        }
    }

    pub(super) fn send_kill(&mut self) {
        match (self.settings.kill_mode, self.ended) {
            (KillMode::Process, None) => self.send(Signal::KILL, Target::Child),
            (KillMode::Process, Some(_)) => {}
            (KillMode::Mixed | KillMode::Group, _) => self.send(Signal::KILL, Target::All),
        }
    }

    /// A process is left running: whatever the child's own status was, this must not look like a
    /// success.
    pub(super) fn give_up(&mut self) {
        self.report(Fact::GaveUp);
        self.timed_out = false;
        self.finish(Exit::UNKILLABLE);
    }

    pub(super) fn finish(&mut self, exit: Exit) {
        self.phase = Phase::Done(if self.timed_out {
            Exit::TIMED_OUT
        } else {
            exit
        });
        self.tick = None;
    }

    /// The signal to send for a stop request: `signal`. `forwarded` is the translation of the
    /// received one by `--remap`. A value belongs to the signal that it was queued with.
    pub(super) fn pending(&self, received: Received, forwarded: Signal, signal: Signal) -> Pending {
        let value = received.value.filter(|_| signal == forwarded);
        Pending {
            signal,
            value,
            group_has: self.child_has(received, signal),
        }
    }

    /// Notes a stop signal to be sent, unless it was sent or noted before.
    pub(super) fn await_stop(&mut self, pending: Pending) {
        if !self.sent.contains(pending.signal) {
            self.waiting.push(pending);
        }
        self.sent = self.sent.with(pending.signal);
    }

    pub(super) fn send_waiting(&mut self) {
        for pending in std::mem::take(&mut self.waiting) {
            self.send_stop(pending);
        }
    }

    /// Sends a stop signal to each process that it is meant for and that has not received it.
    pub(super) fn send_stop(
        &mut self,
        Pending {
            signal,
            value,
            group_has,
        }: Pending,
    ) {
        let everyone = self.settings.kill_mode == KillMode::Group || self.settings.wait_tree;
        self.sent = self.sent.with(signal);
        let to = match (everyone, group_has) {
            (true, true) => Target::Others,
            (true, false) => Target::All,
            (false, true) => return,
            (false, false) => Target::Child,
        };
        if everyone {
            self.tree_asked = Some(signal);
            self.tick = self
                .tick
                .or(self.begun.and_then(|begun| begun.checked_add(TICK)));
        }
        self.act(Action::Send {
            signal,
            value,
            to,
            wake: true,
        });
    }

    /// The first signal to the child: the one that the user chose, or the received one.
    pub(super) fn stop_signal(&self, forwarded: Signal) -> Signal {
        self.settings
            .ladder
            .rung(0)
            .and_then(|rung| rung.signal)
            .unwrap_or(forwarded)
    }

    fn ask(&mut self, signal: Signal, to: Target) {
        self.act(Action::Send {
            signal,
            value: None,
            to,
            wake: true,
        });
    }

    fn send(&mut self, signal: Signal, to: Target) {
        self.act(Action::Send {
            signal,
            value: None,
            to,
            wake: false,
        });
    }
}
