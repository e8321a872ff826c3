//! The stop's own steps: preparing it, climbing the ladder, draining, killing, ending.

use std::time::{Duration, Instant};

use super::{Action, KillMode, Machine, Pending, Received, Rung, State};
use crate::exit::Exit;
use crate::signal::Signal;
use crate::signal::Target;

/// How long to wait between two passes of SIGKILL over what is left: a process can have been forked
/// behind the first.
pub(super) const KILL_AGAIN: Duration = Duration::from_millis(20);
/// How long a process may outlive its SIGKILL before we end without it: it is in state D, or its
/// memory takes long to tear down. Counts from the end of the first pass, and anew as long as they
/// become fewer: thousands take long to tear down on a busy machine. The default grace period of 8
/// s and the last second leave docker's and podman's 10 s a second of this.
const UNKILLABLE: Duration = Duration::from_secs(2);

/// How often the manager is told that the stop is under way. Half the shortest timeout that one
/// would set; a stop is no idling.
pub(super) const RENEW: Duration = Duration::from_millis(500);

/// How long all hooks may take where the grace period has no end: a hook that hangs must not
/// prevent the stop.
const HOOKS: Duration = Duration::from_secs(60);

/// A deadline that bowout notices later than this passed while a freezer, SIGSTOP or a suspended
/// machine held bowout and the command. It is put off by the same time.
pub(super) const LATE: Duration = Duration::from_secs(1);

/// How long a descendant that was sent no stop signal before the deadline has between SIGTERM and
/// SIGKILL.
const LAST_SECOND: Duration = Duration::from_secs(1);

/// `at + wait`; `None` (never) if either is `None`.
pub(super) fn later(at: Option<Instant>, wait: Option<Duration>) -> Option<Instant> {
    at?.checked_add(wait?)
}

impl Machine {
    /// When the stop that is under way is over at the latest, its last bounded waits included;
    /// `None` is never.
    pub(crate) fn over_at(&self) -> Option<Instant> {
        let ladder = &self.settings.ladder;
        let kill = match self.state {
            State::Preparing { grace, .. } => later(grace, ladder.total(1)),
            State::Stopping { rung, until, .. } => later(until, ladder.total(rung + 1)),
            State::Draining { until, .. } => until,
            State::Killing { until, .. } => return Some(until),
            State::Running { .. } | State::Done(_) => None,
        };
        let last = if self.asks_last() {
            LAST_SECOND
        } else {
            Duration::ZERO
        };
        later(kill, Some(last + UNKILLABLE))
    }

    /// Whether SIGKILL would be the first signal that a descendant is sent: the stop signals were
    /// for the child alone.
    pub(super) fn asks_last(&self) -> bool {
        self.settings.kill_mode == KillMode::Mixed && !self.settings.wait_tree && !self.told
    }

    /// Puts off a deadline that leads to SIGKILL, or to giving up after it, where it is noticed so
    /// [`LATE`] that the command had no time to act, or SIGKILL none to work. Once: a machine that
    /// is always late must not put off the end for ever. Says whether the deadline is over with
    /// that.
    pub(super) fn puts_off(&mut self, now: Instant) -> bool {
        let (put_off, later) = (self.put_off, now + LATE);
        let is_late =
            |until: Instant| now.saturating_duration_since(until) > LATE && Some(until) != put_off;
        let over = match &mut self.state {
            State::Stopping {
                rung,
                until: Some(until),
                ..
            } if self.settings.ladder.rung(*rung + 1).is_none() && is_late(*until) => {
                *until = later;
                true
            }
            State::Draining {
                until: Some(until), ..
            } if is_late(*until) => {
                *until = later;
                true
            }
            State::Killing { again, until, .. } if self.last_second && is_late(*again) => {
                (*again, *until) = (later, later + UNKILLABLE);
                true
            }
            // One more pass of SIGKILL comes first.
            State::Killing { until, .. } if is_late(*until) => {
                *until = later;
                false
            }
            State::Running { .. }
            | State::Preparing { .. }
            | State::Stopping { .. }
            | State::Draining { .. }
            | State::Killing { .. }
            | State::Done(_) => return false,
        };
        self.put_off = Some(later);
        over
    }

    /// The stop begins, by a stop request and what the child is to have of it, or by nobody's.
    pub(super) fn begin(
        &mut self,
        now: Instant,
        by: Option<(Received, Signal)>,
        ended: Option<Exit>,
    ) -> Vec<Action> {
        let announcement = self.announce(now);
        let mut actions = match self.settings.ladder.rung(0) {
            None => self.kill(now, ended),
            Some(Rung { wait, .. }) => {
                self.await_stop(match by {
                    Some((received, forwarded)) => {
                        self.pending(received, forwarded, self.stop_signal(forwarded))
                    }
                    None => Pending {
                        signal: self.stop_signal(Signal::TERM),
                        value: None,
                        group_has: false,
                    },
                });
                let grace = later(Some(now), wait);
                if by.is_some_and(|(received, _)| self.settings.awaits_prompt(received)) {
                    return self.await_prompt(now, grace, ended);
                }
                self.prepare(now, 0, grace, ended)
            }
        };
        actions.extend(announcement);
        actions
    }

    /// The manager is told that the stop has begun, now and again.
    pub(super) fn announce(&mut self, now: Instant) -> Vec<Action> {
        self.begun = Some(now);
        self.renew = self.settings.announces.then_some(now + RENEW);
        vec![Action::NotifyStopping]
    }

    /// The child wants more time: as much as it asks for, never less than it had, and not beyond
    /// `--grace-max`.
    pub(super) fn extend(&mut self, now: Instant, wait: Duration) -> Vec<Action> {
        let ladder = &self.settings.ladder;
        let latest = self
            .begun
            .zip(self.settings.grace_max)
            .and_then(|(begun, max)| begun.checked_add(max));
        let (until, rest) = match &mut self.state {
            State::Preparing { grace, .. } => (grace, ladder.total(1)),
            State::Stopping { rung, until, .. } => (until, ladder.total(*rung + 1)),
            State::Draining { until, .. } => (until, Some(Duration::ZERO)),
            State::Running { .. } | State::Killing { .. } | State::Done(_) => return vec![],
        };
        let (Some(before), Some(asked), Some(_)) = (*until, now.checked_add(wait), self.begun)
        else {
            return vec![];
        };
        // The steps that follow keep their time.
        let latest = latest.map(|latest| {
            rest.and_then(|rest| latest.checked_sub(rest))
                .unwrap_or(before)
        });
        let after = latest.map_or(asked, |latest| asked.min(latest)).max(before);
        *until = Some(after);
        if after > before {
            vec![Action::NotifyStopping]
        } else {
            vec![]
        }
    }

    /// Runs hook number `hook`; behind the last, waits for the delay; behind that, stops.
    pub(super) fn prepare(
        &mut self,
        now: Instant,
        hook: usize,
        grace: Option<Instant>,
        ended: Option<Exit>,
    ) -> Vec<Action> {
        let delay = self.settings.stop_delay;
        // However long the hooks take, the child is left a quarter of the time for its own end, or
        // what the delay leaves of it.
        let wait = self
            .settings
            .ladder
            .rung(0)
            .and_then(|rung| rung.wait)
            .unwrap_or_default();
        let latest =
            grace.and_then(|grace| grace.checked_sub((wait / 4).min(wait.saturating_sub(delay))));
        if hook < self.settings.hooks {
            let until = latest.or_else(|| later(self.begun, Some(HOOKS)));
            self.state = State::Preparing {
                hook: Some(hook),
                until,
                grace,
                ended,
            };
            vec![Action::RunHook(hook)]
        } else if delay > Duration::ZERO {
            let until = [now.checked_add(delay), latest].into_iter().flatten().min();
            self.state = State::Preparing {
                hook: None,
                until,
                grace,
                ended,
            };
            vec![]
        } else {
            self.stop(grace, ended)
        }
    }

    /// The first step of the ladder: the stop signal, or all that were received while it was being
    /// prepared.
    pub(super) fn stop(&mut self, grace: Option<Instant>, ended: Option<Exit>) -> Vec<Action> {
        self.state = State::Stopping {
            rung: 0,
            until: grace,
            ended,
        };
        self.send_waiting()
    }

    /// Steps on to `rung`; past the last there is SIGKILL.
    pub(super) fn climb(&mut self, now: Instant, rung: usize, ended: Option<Exit>) -> Vec<Action> {
        match self.settings.ladder.rung(rung) {
            Some(Rung { signal, wait }) => {
                self.state = State::Stopping {
                    rung,
                    until: later(Some(now), wait),
                    ended,
                };
                let signal = signal.unwrap_or(Signal::TERM);
                if self.forwarded.contains(signal) {
                    // A sender's own escalation was faster than the ladder.
                    return vec![];
                }
                self.send_stop(Pending {
                    signal,
                    value: None,
                    group_has: false,
                })
            }
            None if self.asks_last() => {
                (self.told, self.last_second) = (true, true);
                let again = now + LAST_SECOND;
                self.state = State::Killing {
                    ended,
                    again,
                    until: again + UNKILLABLE,
                };
                let kill = Action::Send {
                    signal: Signal::KILL,
                    value: None,
                    to: Target::Child,
                    wake: false,
                };
                vec![
                    kill,
                    Action::Send {
                        signal: Signal::TERM,
                        value: None,
                        to: Target::Descendants,
                        wake: true,
                    },
                ]
            }
            None => self.kill(now, ended),
        }
    }

    /// For the hook that runs, if one does.
    pub(super) fn end_hook(&self) -> Vec<Action> {
        if matches!(self.state, State::Preparing { hook: Some(_), .. }) {
            vec![Action::EndHook]
        } else {
            vec![]
        }
    }

    pub(super) fn drain(
        &mut self,
        now: Instant,
        exit: Exit,
        until: Option<Instant>,
    ) -> Vec<Action> {
        let until = match until {
            Some(until)
                if until <= now && self.asks_last() && self.settings.ladder.rung(0).is_some() =>
            {
                Some(now + LAST_SECOND)
            }
            Some(until) if until <= now => return self.kill(now, Some(exit)),
            until => until,
        };
        self.state = State::Draining { exit, until };
        if std::mem::replace(&mut self.told, true) {
            return vec![];
        }
        vec![Action::Send {
            signal: Signal::TERM,
            value: None,
            to: Target::Descendants,
            wake: true,
        }]
    }

    pub(super) fn kill(&mut self, now: Instant, ended: Option<Exit>) -> Vec<Action> {
        let mut actions = self.end_hook();
        self.last_second = false;
        self.state = State::Killing {
            ended,
            again: now + KILL_AGAIN,
            until: now + UNKILLABLE,
        };
        actions.extend(self.send_kill(ended));
        actions
    }

    /// To find everybody takes seconds where they are ten thousands: the time to die counts from
    /// behind that. It ends in bounded time whatever they fork meanwhile, for there cannot be fewer
    /// for ever.
    pub(super) fn killed(&mut self, now: Instant, left: usize) -> Vec<Action> {
        if let State::Killing { again, until, .. } = &mut self.state
            && !self.last_second
            && self.fewest.is_none_or(|fewest| left < fewest)
        {
            self.fewest = Some(left);
            (*again, *until) = (now + KILL_AGAIN, now + UNKILLABLE);
        }
        vec![]
    }

    pub(super) fn send_kill(&self, ended: Option<Exit>) -> Vec<Action> {
        let to = match (self.settings.kill_mode, ended) {
            (KillMode::Process, None) => Target::Child,
            (KillMode::Process, Some(_)) => return vec![],
            (KillMode::Mixed | KillMode::Group, _) => Target::All,
        };
        vec![Action::Send {
            signal: Signal::KILL,
            value: None,
            to,
            wake: false,
        }]
    }

    /// Something is left running, and whatever the child's own status was, this is not to look like
    /// a good end.
    pub(super) fn give_up(&mut self) -> Vec<Action> {
        self.state = State::Done(Exit::UNKILLABLE);
        vec![Action::Exit(Exit::UNKILLABLE)]
    }

    pub(super) fn finish(&mut self, exit: Exit) -> Vec<Action> {
        let exit = if self.timed_out {
            Exit::TIMED_OUT
        } else {
            exit
        };
        self.state = State::Done(exit);
        vec![Action::Exit(exit)]
    }

    /// What to send because of a stop request: `signal`, where `forwarded` is the translation of
    /// the one received by `--remap`. A value belongs to the signal that it was queued with.
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

    /// Sends a stop signal, unless it was sent before.
    pub(super) fn send_once(&mut self, pending: Pending) -> Vec<Action> {
        self.forwarded = self.forwarded.with(pending.signal);
        self.await_stop(pending);
        self.send_waiting()
    }

    pub(super) fn send_waiting(&mut self) -> Vec<Action> {
        let waiting = std::mem::take(&mut self.waiting);
        waiting
            .into_iter()
            .flat_map(|pending| self.send_stop(pending))
            .collect()
    }

    /// A stop signal to each process that is to have it and does not have it yet.
    pub(super) fn send_stop(
        &mut self,
        Pending {
            signal,
            value,
            group_has,
        }: Pending,
    ) -> Vec<Action> {
        let everyone = self.settings.kill_mode == KillMode::Group || self.settings.wait_tree;
        self.sent = self.sent.with(signal);
        let to = match (everyone, group_has) {
            (true, true) => Target::Others,
            (true, false) => Target::All,
            (false, true) => return vec![],
            (false, false) => Target::Child,
        };
        self.told |= everyone && signal == Signal::TERM;
        vec![Action::Send {
            signal,
            value,
            to,
            wake: true,
        }]
    }

    /// What the child is sent first: what the user chose, or what came.
    pub(super) fn stop_signal(&self, forwarded: Signal) -> Signal {
        self.settings
            .ladder
            .rung(0)
            .and_then(|rung| rung.signal)
            .unwrap_or(forwarded)
    }
}
