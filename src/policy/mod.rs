//! The machine that decides the next actions. Pure: it makes no system call, logs nothing and reads
//! no clock.
//!
//! Its state is a few facts beside each other: the [`Phase`] of the stop, whether the child has
//! exited, and until when the phase lasts. Time is an argument. All events of one turn of the loop
//! carry the same instant, except those after the child's exit, a suspension or a pass of SIGKILL;
//! so the machine can distinguish signals that were pending together from a repeat.
//!
//! Reading order: `types`, [`Machine::step`], then `stop` for the way from the first request to
//! SIGKILL, `hooks` for the hooks during it, `requests` for the meaning of a signal, `terminal` for
//! job control and Ctrl-C. `policy/tests/table.txt` shows every state with every event: a change of
//! behaviour is a diff.

mod duration;
mod hooks;
mod ladder;
mod requests;
mod stop;
mod terminal;
#[cfg(test)]
pub(crate) mod tests;
mod types;

use std::time::{Duration, Instant};

use crate::exit::Exit;
use crate::sender::Side;
use crate::signal::{Signal, SignalSet};
pub(crate) use duration::parse_wait;
pub(crate) use ladder::{Ladder, Rung};
pub(crate) use types::{
    Action, Cause, Event, Fact, Hook, KillMode, OnRepeat, Outcome, Phase, Place, Reason, Received,
    Settings, Step, Waiting,
};

/// The supervision of one child, from its start to its end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Machine {
    settings: Settings,
    place: Place,
    phase: Phase,
    /// How the child exited.
    ended: Option<Exit>,
    /// When the phase is over: the hook or the delay, the rung, or the wait for SIGKILL to work.
    until: Option<Instant>,
    /// While the stop is prepared: when the first rung is over.
    grace: Option<Instant>,
    /// When `--max-runtime` is over.
    runs_until: Option<Instant>,
    /// When `--ready-timeout` is over, until the command is ready.
    ready_until: Option<Instant>,
    /// Until when the command has to report that it is alive.
    alive_until: Option<Instant>,
    is_ready: bool,
    /// When the stop began.
    begun: Option<Instant>,
    begun_by: Option<Cause>,
    /// When the manager is notified, and new children are looked for, again.
    tick: Option<Instant>,
    /// The requests of each side.
    asked: [Option<Asked>; Side::COUNT],
    /// The signals sent to stop the child: bowout forwards each signal once per stop.
    sent: SignalSet,
    /// Stop signals of later requests that were forwarded.
    forwarded: SignalSet,
    /// A hook was started and has not exited; it runs unless it was sent SIGKILL.
    hook_lives: bool,
    hook_runs: bool,
    /// How many `--pre-kill` hooks were started.
    pre_kill: usize,
    /// Stop signals to send after the preparations.
    waiting: Vec<Pending>,
    /// The signal that the whole tree was last asked to stop by.
    tree_asked: Option<Signal>,
    /// The deadline that was put off because the one before it was noticed late. It is not put off
    /// again.
    put_off: Option<Instant>,
    /// The fewest processes that a pass of SIGKILL has found.
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
    /// The results of the present event so far.
    step: Step,
}

impl Machine {
    /// A child that was started at `now`.
    pub(crate) fn new(settings: Settings, place: Place, now: Instant) -> Self {
        Self {
            runs_until: later(Some(now), settings.max_runtime),
            ready_until: later(Some(now), settings.ready_timeout),
            settings,
            place,
            ..Self::default()
        }
    }

    /// Where the supervision stands.
    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    /// How the child exited, if it has.
    pub(crate) fn ended(&self) -> Option<Exit> {
        self.ended
    }

    /// The signal that the stop began by, as hooks receive it: SIGTERM for any other cause.
    pub(crate) fn begun_by(&self) -> Signal {
        match self.begun_by {
            Some(Cause::Signal(signal)) => signal,
            Some(_) | None => Signal::TERM,
        }
    }

    /// Why the command ended, as hooks receive it.
    pub(crate) fn reason(&self) -> &'static str {
        self.begun_by.map_or("exited", Cause::code)
    }

    /// The rest of the hooks' time at `now`: of the first rung while the stop is prepared, then of
    /// the present one; `None` has no limit.
    pub(crate) fn grace_left(&self, now: Instant) -> Option<Duration> {
        let over = match self.phase {
            Phase::Preparing { .. } => self.grace,
            Phase::Running | Phase::Stopping { .. } | Phase::Killing { .. } | Phase::Done(_) => {
                self.until
            }
        };
        over.map(|over| over.saturating_duration_since(now))
    }

    /// When [`Event::Timeout`] is due; `None` is never.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let look = self.watch.map(|watch| watch.next);
        [self.phase_over(), self.tick, look, self.pre_kill_at()]
            .into_iter()
            .flatten()
            .min()
    }

    fn phase_over(&self) -> Option<Instant> {
        match self.phase {
            Phase::Running => {
                let times = [self.runs_until, self.ready_until, self.alive_until];
                times.into_iter().flatten().min()
            }
            Phase::Preparing { .. } | Phase::Stopping { .. } => self.until,
            Phase::Killing { again } => self
                .until
                .map_or(Some(again), |until| Some(until.min(again))),
            Phase::Done(_) => None,
        }
    }

    /// Takes one event at `now`, and decides the actions.
    #[must_use]
    pub(crate) fn step(&mut self, now: Instant, event: Event) -> Step {
        match event {
            Event::Signal(received) => self.signal(now, received),
            Event::Stop(cause) => self.stop_without_signal(now, cause),
            Event::Ready => self.ready(now),
            Event::Alive => self.alive(now),
            Event::ChildExited(exit) => self.child_exited(now, exit),
            Event::HookExited => self.hook_exited(now),
            Event::ExtendGrace(wait) => self.extend(now, wait),
            Event::ChildStopped {
                signal,
                wants_terminal,
                watched,
                shared_group,
            } => {
                self.child_stopped(now, signal, wants_terminal, watched, shared_group);
            }
            Event::TerminalSeen { prompt } => self.terminal_seen(now, prompt),
            Event::Resumed { suspended, stopped } => self.resumed(now, suspended, stopped),
            Event::Reaped => self.ask_new_children(),
            Event::NoneLeft { hook } => self.none_left(hook),
            Event::Killed { reached, refused } => self.killed(now, reached, refused),
            Event::Timeout => self.timeout(now),
        }
        self.settle_watch(now);
        if let Event::Signal(received) = event {
            self.space_out(received);
        }
        std::mem::take(&mut self.step)
    }

    fn act(&mut self, action: Action) {
        self.step.actions.push(action);
    }

    fn report(&mut self, fact: Fact) {
        self.step.fact = Some(fact);
    }

    fn child_exited(&mut self, now: Instant, exit: Exit) {
        if self.ended.is_some() || matches!(self.phase, Phase::Done(_)) {
            return;
        }
        self.halted = None;
        self.ended = Some(exit);
        self.report(Fact::ChildExited(exit));
        if self.settings.kill_mode == KillMode::Process {
            self.end_hook();
            self.finish(exit);
        } else if !self.settings.wait_tree {
            match self.phase {
                Phase::Running => self.drain(now, later(Some(now), self.settings.ladder.total(0))),
                Phase::Preparing { .. } | Phase::Stopping { .. } => {
                    let until = self.kill_at();
                    self.end_hook();
                    self.drain(now, until);
                }
                Phase::Killing { .. } | Phase::Done(_) => {}
            }
        }
    }

    /// The command is ready, for the first time, and no stop is under way.
    fn ready(&mut self, now: Instant) {
        if !self.is_ready && self.ended.is_none() && self.phase == Phase::Running {
            self.is_ready = true;
            self.ready_until = None;
            self.report(Fact::Ready);
        }
        self.alive(now);
    }

    /// The command is alive: its silence may last as long again.
    fn alive(&mut self, now: Instant) {
        if self.phase == Phase::Running {
            self.alive_until = later(Some(now), self.settings.watchdog);
        }
    }

    fn hook_exited(&mut self, now: Instant) {
        (self.hook_lives, self.hook_runs) = (false, false);
        if self.pre_kill > 0 {
            self.run_pre_kill();
        }
        // A hook that outlived its time was killed, and nothing waits for it.
        if let Phase::Preparing { hook: Some(hook) } = self.phase {
            self.prepare(now, hook + 1);
            if matches!(self.phase, Phase::Stopping { .. }) {
                self.report(Fact::HookOver {
                    hook,
                    deadline: false,
                });
            }
        }
    }

    fn none_left(&mut self, hook: bool) {
        match (self.phase, self.ended) {
            (Phase::Done(_), _) => {}
            (Phase::Preparing { hook: Some(_) }, Some(_)) if hook => {
                // Nothing is left to stop. bowout waits for the hook, which it ends.
                self.end_hook();
                self.waiting.clear();
                (self.phase, self.until) = (Phase::Stopping { rung: 0 }, self.grace);
            }
            _ if hook => {}
            (_, Some(exit)) => self.finish(exit),
            // The child cannot vanish before bowout reaps it; if it does, a PID 1 must not hang.
            (_, None) => self.finish(Exit::OWN_FAILURE),
        }
    }

    /// The time between the stop of the job and its end does not count.
    fn resumed(&mut self, now: Instant, suspended: bool, stopped: bool) {
        let Some((since, signal)) = self.paused.take() else {
            return;
        };
        let pause = now - since;
        let mut times = [
            &mut self.runs_until,
            &mut self.ready_until,
            &mut self.alive_until,
            &mut self.begun,
            &mut self.grace,
            &mut self.until,
        ];
        for time in &mut times {
            **time = time.and_then(|time| time.checked_add(pause));
        }
        // Where no shell can continue the job, Ctrl-Z must not freeze it. SIGSTOP is obeyed.
        if stopped && (suspended || signal != Signal::STOP) {
            self.act(Action::Wake);
        }
        if self.begun.is_some() && suspended {
            self.notify_stopping();
        }
        self.report(Fact::Resumed { suspended });
    }

    fn timeout(&mut self, now: Instant) {
        // The deadline may have moved since the loop armed it.
        if self.phase_over().is_none_or(|over| now < over) {
            if !self.look(now) {
                self.start_pre_kill(now);
                self.tick(now);
            }
            return;
        }
        if self.puts_off(now) {
            return self.report(Fact::DeadlineLate);
        }
        match self.phase {
            Phase::Running => {
                self.timed_out = true;
                let is_over = |until: Option<Instant>| until.is_some_and(|until| until <= now);
                self.stop_without_signal(
                    now,
                    match (is_over(self.alive_until), is_over(self.ready_until)) {
                        (true, _) => Cause::Watchdog,
                        (false, true) => Cause::NotReady,
                        (false, false) => Cause::RunTime,
                    },
                );
            }
            Phase::Preparing { hook } => {
                self.end_hook();
                self.stop();
                self.report(hook.map_or(Fact::DelayOver, |hook| Fact::HookOver {
                    hook,
                    deadline: true,
                }));
            }
            Phase::Stopping { rung } => self.climb(now, rung + 1),
            Phase::Killing { .. } if self.until.is_some_and(|until| until <= now) => self.give_up(),
            Phase::Killing { .. } => self.kill_again(now),
            Phase::Done(_) => {}
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

/// A stop signal to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pending {
    signal: Signal,
    /// The value that it was queued with.
    value: Option<u64>,
    /// The members of bowout's process group have received it without bowout.
    group_has: bool,
}

impl Pending {
    fn new(signal: Signal) -> Self {
        Self {
            signal,
            value: None,
            group_has: false,
        }
    }
}

/// The looks at the terminal: when the `next` is due, and when the stop is prepared, if it has not
/// been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Watch {
    next: Instant,
    prepares: Option<Instant>,
}

/// `at + wait`; `None` (never) if either is `None`.
fn later(at: Option<Instant>, wait: Option<Duration>) -> Option<Instant> {
    at?.checked_add(wait?)
}
