//! What happens next: the pure machine that decides, for every state and every event, which actions
//! follow.
//!
//! Owns the stop: who has asked, which rung is reached, until when. Must not do anything: it calls
//! nothing, logs nothing and reads no clock; time is an argument, and all that happens in one turn
//! of the loop carries the same instant, but for what comes behind a suspension or SIGKILL. That is
//! how signals that were pending together are told from a repeat.
//!
//! Reading order: `words` with [`Event`], [`State`], [`Action`], then [`Machine::step`], where
//! every state meets every event. `policy/tests/table.txt` is that meeting written out; a change of
//! behaviour shows there as a diff.

mod duration;
mod ladder;
mod requests;
mod stop;
mod terminal;
#[cfg(test)]
mod tests;
mod types;

use std::time::Instant;

use crate::exit::Exit;
use crate::sender::Side;
#[cfg(test)]
use crate::signal::Target;
use crate::signal::{Signal, SignalSet};
pub(crate) use duration::parse_wait;
pub(crate) use ladder::{Ladder, Rung};
use requests::{Asked, Pending};
use stop::{KILL_AGAIN, RENEW, later};
use terminal::Watch;
pub(crate) use types::{Action, Event, KillMode, OnRepeat, Received, Settings, State};

/// The supervision of one child, from its start to its end.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    settings: Settings,
    state: State,
    /// When `--max-runtime` is over.
    runs_until: Option<Instant>,
    /// When the stop began.
    begun: Option<Instant>,
    /// When the manager is to be told again.
    renew: Option<Instant>,
    /// The requests of each side.
    asked: [Option<Asked>; Side::COUNT],
    /// What has been sent to stop the child: a given signal is forwarded once per stop.
    sent: SignalSet,
    /// Stop signals of later requests that were forwarded.
    forwarded: SignalSet,
    /// Stop signals to send when the preparations are over.
    waiting: Vec<Pending>,
    /// Every descendant was sent SIGTERM.
    told: bool,
    /// SIGKILL was sent to the child alone, and SIGTERM to its descendants, which were sent no stop
    /// signal before.
    last_second: bool,
    /// The deadline that was put off because the one before it was noticed late. It is not put off
    /// again.
    put_off: Option<Instant>,
    /// The fewest that a pass of SIGKILL has found left.
    fewest: Option<usize>,
    timed_out: bool,
    /// Since when the user has the job stopped, and by which signal.
    paused: Option<(Instant, Signal)>,
    /// The signal that stopped the child while bowout stays awake.
    halted: Option<Signal>,
    /// The last TSTP, TTIN or TTOU that reached the whole group, bowout and the child in it;
    /// SIGCONT ends it.
    group_stop: Option<Signal>,
    /// The looks at the terminal that follow a Ctrl-C.
    watch: Option<Watch>,
}

impl Machine {
    /// A child that was started at `now`.
    pub(crate) fn new(settings: Settings, now: Instant) -> Self {
        let runs_until = settings.max_runtime.and_then(|wait| now.checked_add(wait));
        Self {
            settings,
            state: State::Running { ended: None },
            runs_until,
            begun: None,
            renew: None,
            asked: [None; Side::COUNT],
            sent: SignalSet::default(),
            forwarded: SignalSet::default(),
            waiting: vec![],
            told: false,
            last_second: false,
            put_off: None,
            fewest: None,
            timed_out: false,
            paused: None,
            halted: None,
            group_stop: None,
            watch: None,
        }
    }

    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// When [`Event::Timeout`] is due; nothing is, where there is none.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let renew = self.renew.filter(|_| !matches!(self.state, State::Done(_)));
        [self.next_step(), renew, self.watch.map(|watch| watch.next)]
            .into_iter()
            .flatten()
            .min()
    }

    /// When the state's own time is over.
    fn next_step(&self) -> Option<Instant> {
        match self.state {
            State::Running { .. } => self.runs_until,
            State::Preparing { until, .. }
            | State::Stopping { until, .. }
            | State::Draining { until, .. } => until,
            State::Killing { again, until, .. } => Some(again.min(until)),
            State::Done(_) => None,
        }
    }

    /// Whether the side of this signal's sender changes anything. Where it does not, nobody need
    /// look for it, and the signal is forwarded sooner.
    pub(crate) fn weighs_side(&self, signal: Signal) -> bool {
        self.settings.stop_on.contains(signal) || (self.settings.job_control && !self.settings.pid1)
    }

    /// Whether this asks for the stop.
    pub(crate) fn is_stop_request(&self, received: Received) -> bool {
        self.settings.is_stop_request(received)
    }

    /// Takes one event at `now` and says what is to be done about it.
    #[must_use]
    pub(crate) fn step(&mut self, now: Instant, event: Event) -> Vec<Action> {
        let mut actions = self.take(now, event);
        if let Event::Signal(received) = event {
            actions.extend(self.follow_group_stop(now, received));
            actions.extend(self.join(now, received));
        } else if let Event::ChildExited(_) = event {
            self.halted = None;
        }
        self.settle_watch(now, &mut actions);
        if let Event::Signal(received) = event {
            self.space_out(received, &mut actions);
        }
        actions
    }

    fn take(&mut self, now: Instant, event: Event) -> Vec<Action> {
        match event {
            Event::Signal(received) => match self.settings.remap.apply(received.signal) {
                None => vec![],
                Some(signal) => self.signalled(now, received, signal),
            },
            Event::ChildExited(exit) => self.child_exited(now, exit),
            Event::HookExited => match self.state {
                State::Preparing {
                    hook: Some(hook),
                    grace,
                    ended,
                    ..
                } => self.prepare(now, hook + 1, grace, ended),
                // It has outlived what it was run for.
                State::Running { .. }
                | State::Preparing { hook: None, .. }
                | State::Stopping { .. }
                | State::Draining { .. }
                | State::Killing { .. }
                | State::Done(_) => vec![],
            },
            Event::HookAlone => match self.state {
                // There is nobody left to stop; the hook's own end is ours.
                State::Preparing {
                    hook: Some(_),
                    grace,
                    ended: Some(exit),
                    ..
                } => {
                    let actions = self.end_hook();
                    self.waiting.clear();
                    self.state = State::Stopping {
                        rung: 0,
                        until: grace,
                        ended: Some(exit),
                    };
                    actions
                }
                State::Running { .. }
                | State::Preparing { .. }
                | State::Stopping { .. }
                | State::Draining { .. }
                | State::Killing { .. }
                | State::Done(_) => vec![],
            },
            Event::ExtendGrace(wait) => self.extend(now, wait),
            Event::ChildStopped {
                signal,
                wants_terminal,
                watched,
                shared_group,
            } => self.child_stopped(now, signal, wants_terminal, watched, shared_group),
            Event::TerminalSeen { prompt } => self.terminal_seen(now, prompt),
            Event::Resumed { suspended, stopped } => self.resumed(now, suspended, stopped),
            Event::NoChildren => match self.state {
                State::Running { ended: Some(exit) }
                | State::Preparing {
                    ended: Some(exit), ..
                }
                | State::Stopping {
                    ended: Some(exit), ..
                }
                | State::Killing {
                    ended: Some(exit), ..
                }
                | State::Draining { exit, .. } => self.finish(exit),
                // The child cannot vanish while it is ours to reap; a PID 1 must not hang if it
                // does all the same.
                State::Running { ended: None }
                | State::Preparing { ended: None, .. }
                | State::Stopping { ended: None, .. }
                | State::Killing { ended: None, .. } => self.finish(Exit::OWN_FAILURE),
                State::Done(_) => vec![],
            },
            Event::Refused => match self.state {
                // PID 1 kills by ending, whatever it may not signal (contract C2); anyone else
                // waits for what may end by itself.
                State::Killing { .. } if self.settings.pid1 && !self.last_second => self.give_up(),
                State::Killing { .. } => self.killed(now, 0),
                // Only SIGKILL's refusal is an event.
                State::Running { .. }
                | State::Preparing { .. }
                | State::Stopping { .. }
                | State::Draining { .. }
                | State::Done(_) => vec![],
            },
            Event::Killed { left } => self.killed(now, left),
            Event::Timeout => self.timeout(now),
        }
    }

    fn child_exited(&mut self, now: Instant, exit: Exit) -> Vec<Action> {
        let ladder = &self.settings.ladder;
        let alone = self.settings.kill_mode == KillMode::Process;
        match self.state {
            State::Running { ended: None } if self.settings.wait_tree => {
                self.state = State::Running { ended: Some(exit) };
                vec![]
            }
            State::Stopping {
                rung,
                until,
                ended: None,
            } if self.settings.wait_tree => {
                self.state = State::Stopping {
                    rung,
                    until,
                    ended: Some(exit),
                };
                vec![]
            }
            State::Preparing {
                hook,
                until,
                grace,
                ended: None,
            } if self.settings.wait_tree => {
                self.state = State::Preparing {
                    hook,
                    until,
                    grace,
                    ended: Some(exit),
                };
                vec![]
            }
            State::Running { ended: None }
            | State::Preparing { ended: None, .. }
            | State::Stopping { ended: None, .. }
            | State::Killing { ended: None, .. }
                if alone =>
            {
                let mut actions = self.end_hook();
                actions.extend(self.finish(exit));
                actions
            }
            State::Running { ended: None } => {
                let until = later(Some(now), ladder.total(0));
                self.drain(now, exit, until)
            }
            State::Preparing {
                grace, ended: None, ..
            } => {
                let until = later(grace, ladder.total(1));
                let mut actions = self.end_hook();
                actions.extend(self.drain(now, exit, until));
                actions
            }
            State::Stopping {
                rung,
                until,
                ended: None,
            } => {
                let until = later(until, ladder.total(rung + 1));
                self.drain(now, exit, until)
            }
            State::Killing {
                again,
                until,
                ended: None,
            } => {
                self.state = State::Killing {
                    again,
                    until,
                    ended: Some(exit),
                };
                vec![]
            }
            // It ends once.
            State::Running { ended: Some(_) }
            | State::Preparing { ended: Some(_), .. }
            | State::Stopping { ended: Some(_), .. }
            | State::Killing { ended: Some(_), .. }
            | State::Draining { .. }
            | State::Done(_) => vec![],
        }
    }

    /// The time between the stop and the end of it does not count.
    fn resumed(&mut self, now: Instant, suspended: bool, stopped: bool) -> Vec<Action> {
        let Some((since, signal)) = self.paused.take() else {
            return vec![];
        };
        let shift = |until: &mut Option<Instant>| {
            *until = until.and_then(|until| until.checked_add(now - since));
        };
        shift(&mut self.runs_until);
        shift(&mut self.begun);
        match &mut self.state {
            State::Preparing { until, grace, .. } => [until, grace].into_iter().for_each(shift),
            State::Stopping { until, .. } => shift(until),
            // Nothing of ours runs out there, or nobody is paused.
            State::Running { .. }
            | State::Draining { .. }
            | State::Killing { .. }
            | State::Done(_) => {}
        }
        // Where nobody can wake the job, Ctrl-Z must not freeze it; but whoever has sent SIGSTOP
        // means it.
        let wake = stopped && (suspended || signal != Signal::STOP);
        let mut actions = if wake { vec![Action::Wake] } else { vec![] };
        if self.begun.is_some() && suspended {
            actions.push(Action::NotifyStopping);
        }
        actions
    }

    fn timeout(&mut self, now: Instant) -> Vec<Action> {
        // A deadline that has moved since the loop armed it is no deadline.
        if self.next_step().is_none_or(|deadline| now < deadline) {
            if let Some(look) = self.look(now) {
                return vec![look];
            }
            return match self.renew {
                Some(renew) if renew <= now && !matches!(self.state, State::Done(_)) => {
                    self.renew = Some(now + RENEW);
                    vec![Action::NotifyStopping]
                }
                Some(_) | None => vec![],
            };
        }
        if self.puts_off(now) {
            return vec![];
        }
        match self.state {
            State::Running { ended } => {
                self.timed_out = true;
                self.begin(now, None, ended)
            }
            State::Preparing { grace, ended, .. } => {
                let mut actions = self.end_hook();
                actions.extend(self.stop(grace, ended));
                actions
            }
            State::Stopping { rung, ended, .. } => self.climb(now, rung + 1, ended),
            State::Draining { exit, .. } => self.kill(now, Some(exit)),
            State::Killing { ended, .. } if self.last_second => self.kill(now, ended),
            State::Killing { until, .. } if now >= until => self.give_up(),
            State::Killing { ended, until, .. } => {
                self.state = State::Killing {
                    ended,
                    again: now + KILL_AGAIN,
                    until,
                };
                self.send_kill(ended)
            }
            State::Done(_) => vec![],
        }
    }
}
