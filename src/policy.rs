//! What happens next: the pure machine that decides, for every state and every event, which actions follow.
//!
//! Owns the stop: who has asked, which rung is reached, until when. Must not do anything: it calls nothing, logs nothing and
//! reads no clock; time is an argument, and all that happens in one turn of the loop carries the same instant, but for what
//! comes behind a suspension or SIGKILL. That is how signals that were pending together are told from a repeat.
//!
//! Reading order: `words` with [`Event`], [`State`], [`Action`], then [`Machine::step`], where every state meets every event.
//! `policy/tests/table.txt` is that meeting written out; a change of behaviour shows there as a diff.

mod ladder;
mod stop;
#[cfg(test)]
mod tests;
mod words;

use std::time::{Duration, Instant};

use crate::exit::Exit;
use crate::origin::Side;
use crate::signal::{Signal, SignalSet};
pub(crate) use ladder::{Ladder, Rung, parse_wait};
use stop::{KILL_AGAIN, RENEW, later};
pub(crate) use words::{Action, Event, KillMode, OnRepeat, Received, Settings, State, Target};

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
    /// When each side first asked for the stop.
    asked: [Option<Instant>; Side::COUNT],
    /// What has been sent to stop the child: a given signal is forwarded once per stop.
    sent: SignalSet,
    /// What is to be sent when the preparations are over, with the value that it was queued with; and whether our process group has it.
    waiting: Vec<(Signal, Option<u64>, bool)>,
    /// Every descendant has had SIGTERM.
    told: bool,
    /// The fewest that a pass of SIGKILL has found left.
    fewest: Option<usize>,
    timed_out: bool,
    /// Since when the user has the job stopped, and by which signal.
    paused: Option<(Instant, Signal)>,
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
            waiting: vec![],
            told: false,
            fewest: None,
            timed_out: false,
            paused: None,
        }
    }

    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// When [`Event::Timeout`] is due; nothing is, where there is none.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let renew = self.renew.filter(|_| !matches!(self.state, State::Done(_)));
        [self.next_step(), renew].into_iter().flatten().min()
    }

    /// When the state's own time is over.
    fn next_step(&self) -> Option<Instant> {
        match self.state {
            State::Running { .. } => self.runs_until,
            State::Preparing { until, .. } | State::Stopping { until, .. } | State::Draining { until, .. } => until,
            State::Killing { again, until, .. } => Some(again.min(until)),
            State::Done(_) => None,
        }
    }

    /// Whether the side of this signal's sender changes anything. Where it does not, nobody need look for it, and the signal
    /// is forwarded sooner.
    pub(crate) fn weighs_side(&self, signal: Signal) -> bool {
        self.settings.stop_on.contains(signal) || (self.settings.job_control && !self.settings.pid1)
    }

    /// Whether this asks for the stop.
    pub(crate) fn is_stop_request(&self, received: Received) -> bool {
        self.settings.is_stop_request(received)
    }

    /// What was first asked for at `asked` is acted upon and told at `now`, which takes as long as a thousand descendants or a slow terminal
    /// like: what follows within [`BURST`] of this is the same request still.
    pub(crate) fn acted(&mut self, asked: Instant, now: Instant) {
        for first in self.asked.iter_mut().flatten().filter(|first| **first == asked) {
            *first = now.min(asked + ACTING);
        }
    }

    /// Takes one event at `now` and says what is to be done about it.
    #[must_use]
    pub(crate) fn step(&mut self, now: Instant, event: Event) -> Vec<Action> {
        match event {
            Event::Signal(received) => match self.settings.remap.apply(received.signal) {
                None => vec![],
                Some(signal) => self.signalled(now, received, signal),
            },
            Event::ChildExited(exit) => self.child_exited(now, exit),
            Event::HookExited => match self.state {
                State::Preparing { hook: Some(hook), grace, ended, .. } => self.prepare(now, hook + 1, grace, ended),
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
                State::Preparing { hook: Some(_), grace, ended: Some(exit), .. } => {
                    let actions = self.end_hook();
                    self.waiting.clear();
                    self.state = State::Stopping { rung: 0, until: grace, ended: Some(exit) };
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
            Event::ChildStopped { signal, wants_terminal } => self.child_stopped(now, signal, wants_terminal),
            Event::Resumed { suspended, stopped } => self.resumed(now, suspended, stopped),
            Event::NoChildren => match self.state {
                State::Running { ended: Some(exit) }
                | State::Preparing { ended: Some(exit), .. }
                | State::Stopping { ended: Some(exit), .. }
                | State::Killing { ended: Some(exit), .. }
                | State::Draining { exit, .. } => self.finish(exit),
                // The child cannot vanish while it is ours to reap; a PID 1 must not hang if it does all the same.
                State::Running { ended: None }
                | State::Preparing { ended: None, .. }
                | State::Stopping { ended: None, .. }
                | State::Killing { ended: None, .. } => self.finish(Exit::OWN_FAILURE),
                State::Done(_) => vec![],
            },
            Event::Refused => match self.state {
                // PID 1 kills by ending, whatever it may not signal (contract C2); anyone else waits for what may end by itself.
                State::Killing { .. } if self.settings.pid1 => self.give_up(),
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

    /// A signal that is not dropped, and `signal`, what the child is to have of it.
    fn signalled(&mut self, now: Instant, received: Received, signal: Signal) -> Vec<Action> {
        let stop = self.settings.is_stop_request(received);
        match self.state {
            // No process can receive it: the parent exited, and `--parent-death-signal KILL` asks for the end of all.
            State::Running { ended } | State::Preparing { ended, .. } | State::Stopping { ended, .. }
                if received.signal == Signal::KILL =>
            {
                self.kill(now, ended)
            }
            State::Draining { exit, .. } if received.signal == Signal::KILL => self.kill(now, Some(exit)),
            State::Running { ended } if stop => {
                self.asked[received.side as usize] = Some(now);
                self.begin(now, Some((received, signal)), ended)
            }
            State::Preparing { ended, .. } if stop => match (self.repeats(now, received), self.settings.on_repeat) {
                (true, OnRepeat::Kill) => self.kill(now, ended),
                (true, OnRepeat::Ignore) => vec![],
                // There is only one way to forward it: with the first.
                (false, _) | (true, OnRepeat::Forward) => {
                    self.await_stop(received, signal);
                    vec![]
                }
            },
            State::Stopping { ended, .. } if stop => match (self.repeats(now, received), self.settings.on_repeat) {
                (false, _) => self.send_once(received, signal),
                (true, OnRepeat::Kill) => self.kill(now, ended),
                (true, OnRepeat::Forward) => self.send_stop(self.stop_signal(signal), None, self.child_has(received)),
                (true, OnRepeat::Ignore) => vec![],
            },
            State::Draining { exit, .. } if stop => match (self.repeats(now, received), self.settings.on_repeat) {
                (true, OnRepeat::Kill) => self.kill(now, Some(exit)),
                // The drain is what was asked for, and nobody is left to forward to. The manager has yet to hear of it.
                (false, _) | (true, OnRepeat::Forward | OnRepeat::Ignore) if self.begun.is_some() => vec![],
                (false, _) | (true, OnRepeat::Forward | OnRepeat::Ignore) => self.announce(now),
            },
            State::Running { ended } | State::Preparing { ended, .. } | State::Stopping { ended, .. } => {
                let to = match (self.child_has(received), ended.is_some()) {
                    (true, false) => return vec![],
                    (true, true) => Target::Others,
                    (false, true) => Target::All,
                    (false, false) => Target::Child,
                };
                vec![Action::Send { signal, value: received.value, to, wake: false }]
            }
            // The child is gone or is being killed.
            State::Draining { .. } | State::Killing { .. } | State::Done(_) => vec![],
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
            State::Stopping { rung, until, ended: None } if self.settings.wait_tree => {
                self.state = State::Stopping { rung, until, ended: Some(exit) };
                vec![]
            }
            State::Preparing { hook, until, grace, ended: None } if self.settings.wait_tree => {
                self.state = State::Preparing { hook, until, grace, ended: Some(exit) };
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
            State::Preparing { grace, ended: None, .. } => {
                let until = later(grace, ladder.total(1));
                let mut actions = self.end_hook();
                actions.extend(self.drain(now, exit, until));
                actions
            }
            State::Stopping { rung, until, ended: None } => {
                let until = later(until, ladder.total(rung + 1));
                self.drain(now, exit, until)
            }
            State::Killing { again, until, ended: None } => {
                self.state = State::Killing { again, until, ended: Some(exit) };
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

    /// Job control (contracts T5, T6): the shell waits for us and has to see the stop.
    fn child_stopped(&mut self, now: Instant, signal: Signal, wants_terminal: bool) -> Vec<Action> {
        match self.state {
            State::Running { .. } | State::Preparing { .. } | State::Stopping { .. } => {
                if !self.settings.job_control {
                    // Nobody is there to say `fg`, and without us the kernel would not have stopped it: its process group were an
                    // orphaned one. Whoever has sent SIGSTOP means it.
                    if signal == Signal::STOP { vec![] } else { vec![wake_child()] }
                } else if wants_terminal {
                    vec![Action::LendTerminal, wake_child()]
                } else {
                    self.paused = Some((now, signal));
                    vec![Action::SuspendSelf(signal)]
                }
            }
            // SIGKILL wakes what is stopped.
            State::Draining { .. } | State::Killing { .. } | State::Done(_) => vec![],
        }
    }

    /// The time between the stop and the end of it does not count.
    fn resumed(&mut self, now: Instant, suspended: bool, stopped: bool) -> Vec<Action> {
        let Some((since, signal)) = self.paused.take() else { return vec![] };
        let shift = |until: &mut Option<Instant>| *until = until.and_then(|until| until.checked_add(now - since));
        shift(&mut self.runs_until);
        match &mut self.state {
            State::Preparing { until, grace, .. } => [until, grace].into_iter().for_each(shift),
            State::Stopping { until, .. } => shift(until),
            // Nothing of ours runs out there, or nobody is paused.
            State::Running { .. } | State::Draining { .. } | State::Killing { .. } | State::Done(_) => {}
        }
        // Where nobody can wake the job, Ctrl-Z must not freeze it; but whoever has sent SIGSTOP means it.
        let wake = stopped && (suspended || signal != Signal::STOP);
        let mut actions = if wake { vec![wake_child()] } else { vec![] };
        if self.begun.is_some() && suspended {
            actions.push(Action::NotifyStopping);
        }
        actions
    }

    fn timeout(&mut self, now: Instant) -> Vec<Action> {
        // A deadline that has moved since the loop armed it is no deadline.
        if self.next_step().is_none_or(|deadline| now < deadline) {
            return match self.renew {
                Some(renew) if renew <= now && !matches!(self.state, State::Done(_)) => {
                    self.renew = Some(now + RENEW);
                    vec![Action::NotifyStopping]
                }
                Some(_) | None => vec![],
            };
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
            State::Killing { until, .. } if now >= until => self.give_up(),
            State::Killing { ended, until, .. } => {
                self.state = State::Killing { ended, again: now + KILL_AGAIN, until };
                self.send_kill(ended)
            }
            State::Done(_) => vec![],
        }
    }

    /// Notes that its side asks, and says whether it had asked before. What follows within [`BURST`] is the same request still; a
    /// hang-up repeats nothing: one closed window is told by the shell and by the kernel, and is no impatience.
    fn repeats(&mut self, now: Instant, Received { signal, side, .. }: Received) -> bool {
        if signal == Signal::HUP && side == Side::Terminal {
            return false;
        }
        let first = *self.asked[side as usize].get_or_insert(now);
        now.saturating_duration_since(first) >= BURST
    }

    /// Whether the signal has reached the child without us: from the terminal, which signals the whole foreground group, or
    /// from a `kill 0` in the child (contracts T2, T3).
    fn child_has(&self, received: Received) -> bool {
        received.shared_group
            && match received.side {
                Side::Terminal => match received.signal {
                    Signal::HUP => !self.settings.leader,
                    signal => signal.is_terminals(),
                },
                Side::Tree => !self.settings.pid1,
                Side::Outside | Side::Manager | Side::Process => false,
            }
    }
}

/// The whole group was stopped with it.
fn wake_child() -> Action {
    Action::Send { signal: Signal::CONT, value: None, to: Target::Group, wake: false }
}

/// How long one request may take to come: timeout(1) sends it to its child and then to the group that the child is in, and other
/// wrappers do likewise. Nobody presses a key twice so fast.
const BURST: Duration = Duration::from_millis(50);
/// For how long at the most acting on a request is part of it. If it takes longer, bowout itself was stopped, and who asks again is impatient.
const ACTING: Duration = Duration::from_millis(200);
