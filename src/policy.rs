//! What happens next: the pure machine that decides, for every state and every event, which actions follow.
//!
//! Owns the stop: who has asked, which rung is reached, until when. Must not do anything: it calls nothing, logs nothing and
//! reads no clock; time is an argument, and all that happens in one turn of the loop carries the same instant, but for what
//! comes behind a suspension or SIGKILL. That is how signals that were pending together are told from a repeat.
//!
//! Reading order: `words` with [`Event`], [`State`], [`Action`], then [`Machine::step`], where every state meets every event.
//! `policy/tests/table.txt` is that meeting written out; a change of behaviour shows there as a diff.

mod duration;
mod ladder;
mod stop;
mod terminal;
#[cfg(test)]
mod tests;
mod words;

use std::time::{Duration, Instant};

use crate::exit::Exit;
use crate::origin::Side;
use crate::signal::{Signal, SignalSet};
pub(crate) use duration::parse_wait;
pub(crate) use ladder::{Ladder, Rung};
use stop::{KILL_AGAIN, RENEW, later};
use terminal::Watch;
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
    /// The requests of each side.
    asked: [Option<Asked>; Side::COUNT],
    /// What has been sent to stop the child: a given signal is forwarded once per stop.
    sent: SignalSet,
    /// Stop signals to send when the preparations are over.
    waiting: Vec<Pending>,
    /// Every descendant was sent SIGTERM.
    told: bool,
    /// SIGKILL was sent to the child alone, and SIGTERM to its descendants, which were sent no stop signal before.
    last_second: bool,
    /// The fewest that a pass of SIGKILL has found left.
    fewest: Option<usize>,
    timed_out: bool,
    /// Since when the user has the job stopped, and by which signal.
    paused: Option<(Instant, Signal)>,
    /// The signal that stopped the child while bowout stays awake.
    halted: Option<Signal>,
    /// The last TSTP, TTIN or TTOU that reached the whole group, bowout and the child in it; SIGCONT ends it.
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
            waiting: vec![],
            told: false,
            last_second: false,
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
        [self.next_step(), renew, self.watch.map(|watch| watch.next)].into_iter().flatten().min()
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

    /// Acting on the first request of a side, which was read at `asked`, took until `now`: a thousand descendants and a slow terminal take
    /// time. A request that follows within [`BURST`] of this is the same one.
    pub(crate) fn acted(&mut self, asked: Instant, now: Instant) {
        for side in self.asked.iter_mut().flatten().filter(|side| side.first == asked) {
            side.first = now.min(asked + ACTING);
        }
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
            Event::ChildStopped { signal, wants_terminal, watched, shared_group } => {
                self.child_stopped(now, signal, wants_terminal, watched, shared_group)
            }
            Event::TerminalSeen { prompt } => self.terminal_seen(now, prompt),
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

    /// A signal that is not dropped; `signal` is its translation by `--remap`.
    fn signalled(&mut self, now: Instant, received: Received, signal: Signal) -> Vec<Action> {
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
            State::Preparing { ended, .. } => match (self.asks(now, received), self.settings.on_repeat) {
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
            },
            State::Stopping { ended, .. } => match (self.asks(now, received), self.settings.on_repeat) {
                (Request::First, OnRepeat::Forward) if differs => {
                    self.send_stop(self.pending(received, signal, self.stop_signal(signal)))
                }
                (Request::First, _) => self.send_once(self.pending(received, signal, self.stop_signal(signal))),
                (Request::Climb, _) => self.send_once(self.pending(received, signal, signal)),
                (Request::Repeat, OnRepeat::Kill) => self.kill(now, ended),
                (Request::Repeat, OnRepeat::Forward) => {
                    self.send_stop(self.pending(received, signal, self.stop_signal(signal)))
                }
                (Request::Repeat, OnRepeat::Ignore) => vec![],
            },
            State::Draining { exit, .. } => match (self.asks(now, received), self.settings.on_repeat) {
                (Request::Repeat, OnRepeat::Kill) => self.kill(now, Some(exit)),
                // The drain already stops every descendant; only the manager does not know of the request.
                (_, _) if self.begun.is_some() => vec![],
                (_, _) => self.announce(now),
            },
            State::Killing { ended, .. } if self.last_second => {
                match (self.asks(now, received), self.settings.on_repeat) {
                    (Request::Repeat, OnRepeat::Kill) => self.kill(now, ended),
                    (_, _) => vec![],
                }
            }
            State::Killing { .. } | State::Done(_) => vec![],
        }
    }

    /// `--parent-death-signal KILL`: the end of every process, at once. No process can receive SIGKILL, so that it means nothing else here.
    fn parent_exited(&mut self, now: Instant) -> Vec<Action> {
        match self.state {
            State::Running { ended } | State::Preparing { ended, .. } | State::Stopping { ended, .. } => {
                self.kill(now, ended)
            }
            State::Draining { exit, .. } => self.kill(now, Some(exit)),
            State::Killing { ended, .. } if self.last_second => self.kill(now, ended),
            State::Killing { .. } | State::Done(_) => vec![],
        }
    }

    /// A signal that is no stop request.
    fn forward(&mut self, received: Received, signal: Signal) -> Vec<Action> {
        let ended = match self.state {
            State::Running { ended } | State::Preparing { ended, .. } | State::Stopping { ended, .. } => ended,
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
        vec![Action::Send { signal, value: received.value, to, wake: false }]
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

    /// The time between the stop and the end of it does not count.
    fn resumed(&mut self, now: Instant, suspended: bool, stopped: bool) -> Vec<Action> {
        let Some((since, signal)) = self.paused.take() else { return vec![] };
        let shift = |until: &mut Option<Instant>| *until = until.and_then(|until| until.checked_add(now - since));
        shift(&mut self.runs_until);
        shift(&mut self.begun);
        match &mut self.state {
            State::Preparing { until, grace, .. } => [until, grace].into_iter().for_each(shift),
            State::Stopping { until, .. } => shift(until),
            // Nothing of ours runs out there, or nobody is paused.
            State::Running { .. } | State::Draining { .. } | State::Killing { .. } | State::Done(_) => {}
        }
        // Where nobody can wake the job, Ctrl-Z must not freeze it; but whoever has sent SIGSTOP means it.
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
                self.state = State::Killing { ended, again: now + KILL_AGAIN, until };
                self.send_kill(ended)
            }
            State::Done(_) => vec![],
        }
    }

    /// Notes a stop request, and says what it means beside the earlier ones of its side. A request within [`BURST`] of the first is the same
    /// one. A hang-up never repeats: the shell and the kernel both send one when a window closes.
    fn asks(&mut self, now: Instant, Received { signal, side, .. }: Received) -> Request {
        let running = matches!(self.state, State::Running { .. });
        if signal == Signal::HUP && side == Side::Terminal && !running {
            return Request::First;
        }
        let asked =
            self.asked[side as usize].get_or_insert(Asked { first: now, last: now, signals: SignalSet::default() });
        let first = now.saturating_duration_since(asked.first) < BURST;
        let climbs = !asked.signals.contains(signal) && now.saturating_duration_since(asked.last) >= CLIMB;
        asked.last = now;
        asked.signals = asked.signals.with(signal);
        match (first, climbs) {
            (true, _) => Request::First,
            (false, true) => Request::Climb,
            (false, false) => Request::Repeat,
        }
    }

    /// Whether the child has `signal` without us, because it is the signal that was received: from the terminal, which signals the whole
    /// foreground group, or from a `kill 0` in the tree (termios(3), kill(2)).
    fn child_has(&self, received: Received, signal: Signal) -> bool {
        received.shared_group
            && received.signal == signal
            && match received.side {
                Side::Terminal => match signal {
                    Signal::HUP => !self.settings.leader,
                    signal => signal.is_terminals(),
                },
                Side::Tree => !self.settings.pid1,
                Side::Outside | Side::Manager | Side::Process => false,
            }
    }
}

/// The stop requests of one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asked {
    /// When bowout had acted on the first.
    first: Instant,
    last: Instant,
    signals: SignalSet,
}

/// A stop request beside the earlier ones of its side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    First,
    /// The sender escalates by itself (start-stop-daemon's `--retry`, parallel's `--termseq`): another signal, [`CLIMB`] or more after the last.
    Climb,
    Repeat,
}

/// A stop signal to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pending {
    signal: Signal,
    /// The value that it was queued with.
    value: Option<u64>,
    /// The members of our process group have the signal without us.
    group_has: bool,
}

/// How long one request may take to come: timeout(1) sends it to its child and then to the group that the child is in, and other
/// wrappers do likewise. Nobody presses a key twice so fast.
const BURST: Duration = Duration::from_millis(50);
/// For how long at the most acting on a request is part of it. If it takes longer, bowout itself was stopped, and who asks again is impatient.
const ACTING: Duration = Duration::from_millis(200);
/// The shortest time between two different stop signals of one sender that escalates.
const CLIMB: Duration = Duration::from_millis(900);
/// A deadline that is noticed so late was held up by a freezer, SIGSTOP or a suspended machine, and the command with it: it gets as much time more.
const LATE: Duration = Duration::from_secs(1);
