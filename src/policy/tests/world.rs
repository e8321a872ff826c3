//! A machine among processes, and what must hold after each event.
//!
//! The walk and the random sequences both drive it. Three judges look at each step. The `model`
//! computes the actions, the phase and the deadline from the events and the settings alone; the
//! machine's own functions are never called, and its outputs alone are read: the step, the phase,
//! the deadline, the child's exit. `facts` holds each fact to the actions and the phases. The
//! properties here hold whatever the model says: no process is signalled after it was reaped, none
//! is killed before its time or without being asked to stop, nothing goes on for ever.

mod facts;
pub(super) mod key;
pub(super) mod model;
mod terminal;

use std::rc::Rc;

use super::*;
use model::{Model, Stage};
use terminal::Terminal;

/// How long the machine goes on with SIGKILL before it gives up, and how long it puts off a late
/// deadline.
const UNKILLABLE: Duration = Duration::from_secs(2);
const LATE: Duration = Duration::from_secs(1);

/// A machine, its model, and what is true of the processes.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) machine: Machine,
    pub(super) model: Model,
    pub(super) now: Instant,
    child: Option<Exit>,
    none_left: bool,
    suspended: Option<Instant>,
    hook: bool,
    hook_ended: bool,
    next_hook: usize,
    /// Since when the grace period runs, moved on by every pause of the job.
    since: Option<Instant>,
    /// When the stop was requested, likewise: the child can have exited before.
    requested: Option<Instant>,
    /// How late the deadlines were taken that a later one depends on.
    late: Duration,
    extended: bool,
    /// The stop signals that the child was sent.
    stopped_by: SignalSet,
    /// Every descendant was sent SIGTERM.
    asked_all: bool,
    killed: bool,
    /// SIGKILL was sent to every descendant.
    killed_all: bool,
    /// When the child exited.
    exited: Option<Instant>,
    /// When the descendants were sent SIGTERM because the child was sent SIGKILL.
    last_second: Option<Instant>,
}

/// The machine before an event.
#[derive(Clone, Copy)]
struct Before {
    stage: Stage,
    deadline: Option<Instant>,
    /// When the stage is over, and whether it is.
    over: Option<Instant>,
    due: bool,
    /// A child that has exited is reaped once the actions are done: it may still be signalled
    /// now, and never later.
    reaped: bool,
    unprepared: bool,
    kill_due: Option<Instant>,
}

impl World {
    pub(super) fn new(given: &Given) -> Self {
        Self {
            machine: given.machine(),
            model: Model::new(&Rc::new(given.clone())),
            now: at(0),
            child: None,
            none_left: false,
            suspended: None,
            hook: false,
            hook_ended: false,
            next_hook: 0,
            since: None,
            requested: None,
            late: Duration::ZERO,
            extended: false,
            stopped_by: SignalSet::default(),
            asked_all: false,
            killed: false,
            killed_all: false,
            exited: None,
            last_second: None,
        }
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.model.given.0
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self.machine.phase(), Phase::Done(_))
    }

    /// The phase of the machine, in the model's words.
    fn stage(&self) -> Stage {
        match self.machine.phase() {
            Phase::Running => Stage::Running,
            Phase::Preparing { hook } => Stage::Preparing(hook),
            Phase::Stopping { rung } if rung == self.model.rungs() => Stage::Draining,
            Phase::Stopping { rung } => Stage::Rung(rung),
            Phase::Killing { .. } => Stage::Killing,
            Phase::Done(exit) => Stage::Done(exit),
        }
    }

    /// Whether this can happen in this world: processes exit once, and while bowout is stopped it
    /// receives nothing else before the end of that.
    pub(super) fn is_possible(&self, event: Event) -> bool {
        match event {
            Event::Resumed { .. } => self.suspended.is_some(),
            _ if self.suspended.is_some() => false,
            // The answer comes before all else.
            Event::TerminalSeen { .. } => self.model.terminal.looking,
            _ if self.model.terminal.looking => false,
            Event::Signal(_)
            | Event::Stop(_)
            | Event::Ready
            | Event::Alive
            | Event::ExtendGrace(_) => true,
            Event::ChildExited(_) | Event::ChildStopped { .. } => {
                self.child.is_none() && !self.none_left
            }
            Event::Reaped | Event::NoneLeft { hook: false } => !self.none_left,
            Event::Killed { .. } => matches!(self.machine.phase(), Phase::Killing { .. }),
            Event::HookExited | Event::NoneLeft { hook: true } => self.hook,
            Event::Timeout => self.machine.deadline().is_some(),
        }
    }

    /// Whether the deadline is another tick than the first after the stop began or the child
    /// exited: each does as the first did, and arms the next.
    pub(super) fn ticks_again(&self) -> bool {
        let first = |since: Option<Instant>| since.map(|since| since + Duration::from_millis(500));
        let tick = self.model.tick;
        let firsts = [first(self.model.begun), first(self.exited)];
        tick.is_some() && tick == self.machine.deadline() && !firsts.contains(&tick)
    }

    /// Whether this side has asked for the stop.
    pub(super) fn has_asked(&self, side: Side) -> bool {
        self.model.asked[side as usize].is_some()
    }

    /// Whether its side has sent this signal before.
    pub(super) fn has_sent(&self, Received { signal, side, .. }: Received) -> bool {
        self.model.asked[side as usize].is_some_and(|asked| asked.signals.contains(signal))
    }

    /// Takes one event at `now`, checks what must hold after each, and returns the actions.
    pub(super) fn take(&mut self, now: Instant, event: Event) -> Vec<Action> {
        let before = Before {
            stage: self.stage(),
            deadline: self.machine.deadline(),
            over: self.model.stage_over(),
            due: self.model.stage_over().is_some_and(|over| over <= now),
            reaped: self.child.is_some(),
            unprepared: self.model.terminal.is_unprepared(),
            kill_due: self.model.kill_due(),
        };
        self.now = now;
        self.note(event, before);
        let expected = self.model.take(now, event);
        let Step { actions, fact } = self.machine.step(now, event);
        if actions != expected {
            let [is, expected] = [&actions, &expected].map(|actions| show_all(actions, None));
            panic!("does '{is}' and not '{expected}'");
        }
        assert_eq!(
            self.stage(),
            self.model.stage,
            "the phase, against the model"
        );
        let deadline = self.machine.deadline();
        assert_eq!(
            deadline,
            self.model.deadline(),
            "the deadline, against the model"
        );
        assert_eq!(self.machine.ended(), self.model.exited, "the child's exit");
        if self.hook {
            let by = self.model.begun_by.unwrap_or(Signal::TERM);
            assert_eq!(self.machine.begun_by(), by, "the signal that hooks receive");
        }
        self.judge_fact(before, event, &actions, fact);
        for &action in &actions {
            self.judge(before, event, action);
        }
        self.judge_phase(before, event, &actions);
        actions
    }

    /// What the event makes true, whatever the machine makes of it.
    fn note(&mut self, event: Event, before: Before) {
        let (now, wait_tree) = (self.now, self.settings().wait_tree);
        match event {
            Event::Signal(received) if self.model.asks(received) => {
                self.since = self.since.or(Some(now));
                if self.child.is_some() && !wait_tree {
                    self.requested = self.requested.or(Some(now));
                }
            }
            Event::Stop(_) if before.stage == Stage::Running => {
                self.since = self.since.or(Some(now));
            }
            Event::ChildExited(exit) => {
                self.child = Some(exit);
                if !wait_tree {
                    self.exited = Some(now);
                    self.since = self.since.or(Some(now));
                }
            }
            Event::NoneLeft { hook: false } => self.none_left = true,
            Event::HookExited => (self.hook, self.hook_ended) = (false, false),
            Event::Resumed { .. } => {
                let since = self.suspended.take();
                let pause = since.map_or(Duration::ZERO, |since| now - since);
                self.since = self.since.map(|since| since + pause);
                self.requested = self.requested.map(|requested| requested + pause);
            }
            Event::ExtendGrace(_) => self.extended = true,
            Event::Timeout if before.due && before.stage == Stage::Running => {
                self.since = Some(now);
            }
            Event::Timeout if before.due => {
                let over = self.model.stage_over();
                let late = over.map_or(Duration::ZERO, |over| now.saturating_duration_since(over));
                self.late += if late > LATE { late + LATE } else { late };
            }
            Event::TerminalSeen { prompt: true } => {
                (self.since, self.late, self.extended) = Default::default();
                (self.stopped_by, self.asked_all) = Default::default();
                assert!(self.next_hook == 0, "cancels what a hook has begun");
            }
            Event::Signal(_)
            | Event::Stop(_)
            | Event::Ready
            | Event::Alive
            | Event::ChildStopped { .. }
            | Event::TerminalSeen { .. }
            | Event::Reaped
            | Event::NoneLeft { .. }
            | Event::Killed { .. }
            | Event::Timeout => {}
        }
    }

    fn judge(&mut self, before: Before, event: Event, action: Action) {
        assert!(
            !matches!(before.stage, Stage::Done(_)),
            "acts after the end"
        );
        let prepares = |action: &Action| {
            matches!(
                action,
                Action::Send { wake: true, .. } | Action::RunHook(_) | Action::NotifyStopping
            )
        };
        let unprepared = self.model.terminal.is_unprepared();
        assert!(
            !unprepared || !prepares(&action),
            "prepares what a prompt can cancel"
        );
        match action {
            Action::Send {
                signal, to, wake, ..
            } => {
                assert!(!self.none_left, "signals without a process");
                let tree = !matches!(to, Target::Child | Target::Group);
                assert!(tree || !before.reaped, "signals a reaped child");
                let alone = self.settings().kill_mode == KillMode::Process;
                assert!(!tree || !alone, "signals what is to be left alone");
                if signal == Signal::KILL {
                    self.judge_kill(before, to);
                } else if to == Target::Unasked && event == Event::Timeout {
                    let once = self.last_second.replace(self.now).is_none();
                    assert!(once, "a last second twice");
                } else {
                    let descendants = matches!(to, Target::Unasked | Target::NewChildren);
                    let last = self.last_second.is_some() && descendants;
                    assert!(!self.killed || last, "a signal after SIGKILL");
                }
                if wake {
                    self.judge_stop_signal(before, event, signal, to);
                }
            }
            Action::SuspendSelf(_) => {
                let job_control = self.model.given.1.job_control;
                assert!(
                    self.suspended.is_none() && job_control,
                    "stops without a watcher"
                );
                self.suspended = Some(self.now);
            }
            Action::RunHook(hook) => {
                assert!(!self.hook, "two hooks at a time");
                self.hook = true;
                if let Hook::PreStop(hook) = hook {
                    assert_eq!(hook, self.next_hook, "a hook out of its turn");
                    assert!(hook < self.settings().hooks, "there is no such hook");
                    self.next_hook = hook + 1;
                } else {
                    assert!(self.child.is_none() && !self.killed, "evidence too late");
                }
            }
            Action::EndHook => {
                assert!(
                    self.hook && !self.hook_ended,
                    "ends a hook that does not run"
                );
                self.hook_ended = true;
            }
            Action::Pause
            | Action::Wake
            | Action::LendTerminal
            | Action::LookAtTerminal
            | Action::NotifyStopping => {}
        }
    }

    /// SIGKILL is sent once, never before its time, and earlier only at a second request. A
    /// descendant is sent SIGTERM first, and has a second.
    fn judge_kill(&mut self, before: Before, to: Target) {
        let (settings, hurried) = (self.settings(), self.model.hurried);
        let graceless = settings.ladder.rung(0).is_none();
        if to == Target::All && !self.killed_all && !hurried && !graceless {
            let everyone = settings.kill_mode == KillMode::Group || settings.wait_tree;
            assert!(
                everyone || self.asked_all,
                "kills a descendant that was not asked to stop"
            );
            let over = |since: Instant| since + LATE <= self.now;
            assert!(
                self.last_second.is_none_or(over),
                "kills before the last second is over"
            );
        }
        self.killed_all |= to == Target::All;
        if before.stage == Stage::Killing {
            return;
        }
        assert!(!self.killed || self.last_second.is_some(), "kills twice");
        self.killed = true;
        let since = self.since.zip(self.model.rest(0));
        let over = since.and_then(|(since, wait)| since.checked_add(wait));
        let waited = over.is_some_and(|over| over <= self.now);
        assert!(hurried || waited, "kills before the time is over");
    }

    /// A stop signal is sent once; again only as a further step, to new children, or as a repeat
    /// that is to be forwarded. The drain sends SIGTERM to what was not sent it.
    fn judge_stop_signal(&mut self, before: Before, event: Event, signal: Signal, to: Target) {
        let further = event == Event::Timeout && matches!(before.stage, Stage::Rung(_));
        let forward = self.settings().on_repeat == OnRepeat::Forward;
        let forwards = forward && matches!(event, Event::Signal(_));
        if to == Target::NewChildren {
            assert!(
                self.stopped_by.contains(signal),
                "new children are sent another signal"
            );
        } else if to == Target::Unasked {
            assert_eq!(signal, Signal::TERM, "the drain's signal");
            let drained = std::mem::replace(&mut self.asked_all, true);
            let everyone = self.settings().kill_mode == KillMode::Group;
            assert!(!drained || everyone, "drains twice");
        } else if !further && !forwards {
            assert!(!self.stopped_by.contains(signal), "a stop signal twice");
        }
        self.stopped_by = self.stopped_by.with(signal);
        self.asked_all |= signal == Signal::TERM && to == Target::All;
    }

    /// bowout exits as the child did, except where it stopped it for its run time, or has to leave
    /// a process running.
    fn judge_exit(&self, before: Before, event: Event, exit: Exit) {
        let gives_up = matches!(event, Event::Timeout | Event::Killed { .. });
        if gives_up {
            assert_eq!(
                before.stage,
                Stage::Killing,
                "gives up before it has killed"
            );
            return assert_eq!(exit, Exit::UNKILLABLE, "hides that a process is left");
        }
        let own = self.child.unwrap_or(Exit::OWN_FAILURE);
        let expected = if self.model.timed_out {
            Exit::TIMED_OUT
        } else {
            own
        };
        assert_eq!(exit, expected, "not the child's own status");
        let alone = self.settings().kill_mode == KillMode::Process && self.child.is_some();
        assert!(self.none_left || alone, "leaves a process");
    }

    fn judge_phase(&self, before: Before, event: Event, actions: &[Action]) {
        let stage = self.stage();
        if let (Stage::Done(exit), false) = (stage, matches!(before.stage, Stage::Done(_))) {
            self.judge_exit(before, event, exit);
        }
        let killed = matches!(event, Event::Killed { .. } | Event::Timeout);
        let ended = self.none_left || self.hook_ended || killed;
        assert!(!self.is_done() || !self.hook || ended, "leaves a hook");
        assert!(
            !self.none_left || self.is_done(),
            "goes on without a process"
        );
        if let Some(deadline) = self.machine.deadline() {
            assert!(!self.is_done(), "a deadline after the end");
            // A wait of 0 may lead on at once, but on: time is put off, or the stage changes.
            let same = (stage, self.model.stage_over(), Some(deadline))
                == (before.stage, before.over, before.deadline);
            assert!(
                event != Event::Timeout || !same || deadline > self.now,
                "spins"
            );
        }
        if event == Event::Timeout && before.deadline.is_none_or(|deadline| self.now < deadline) {
            assert_eq!(
                (actions, stage),
                (&[][..], before.stage),
                "a deadline before its time"
            );
        }
        if matches!(before.stage, Stage::Done(_)) {
            assert_eq!(stage, before.stage, "begins again after the end");
        }
        self.judge_latest(stage);
    }

    /// The time that is armed ends in SIGKILL no later than was asked for: the whole ladder, or the
    /// most that the child may have.
    fn judge_latest(&self, stage: Stage) {
        let Some(total) = self.model.rest(0) else {
            return;
        };
        let most = match self.settings().grace_max {
            Some(most) => total.max(most),
            None if self.extended => return,
            None => total,
        };
        match stage {
            Stage::Preparing(_) | Stage::Rung(_) | Stage::Draining => {
                let drained = self.exited.or(self.last_second);
                let drained = drained.map(|at| at + LATE + self.late);
                let since = self.since.max(self.requested);
                let latest = since.map(|since| since + most + self.late).max(drained);
                let kill = self.model.kill_due();
                assert!(
                    kill.is_some() && kill <= latest,
                    "would kill too late: {kill:?} > {latest:?}"
                );
                assert!(
                    self.machine.deadline() <= kill,
                    "the deadline is after SIGKILL"
                );
            }
            Stage::Killing => {
                let latest = Some(self.now + LATE + UNKILLABLE);
                assert!(self.machine.deadline() <= latest, "would give up too late");
            }
            Stage::Running | Stage::Done(_) => {}
        }
    }

    /// Whatever has happened: once the child exits and no process is left, so does bowout; and a
    /// child that obeys nothing, once it was asked to stop and there is a deadline, is killed in
    /// bounded time.
    pub(super) fn ends(&self) {
        let mut gentle = self.clone();
        let soon = Duration::from_millis(1);
        if self.suspended.is_some() {
            let event = Event::Resumed {
                suspended: true,
                stopped: true,
            };
            gentle.take(gentle.now + soon, event);
        }
        if gentle.model.terminal.looking {
            gentle.take(gentle.now, NO_PROMPT);
        }
        let mut stubborn = gentle.clone();
        for event in [
            Event::ChildExited(Exit::Code(3)),
            Event::NoneLeft { hook: false },
        ] {
            if !gentle.is_done() && gentle.is_possible(event) {
                gentle.take(gentle.now + soon, event);
            }
        }
        assert!(
            gentle.is_done(),
            "cannot end: {}",
            show_state(&gentle.machine)
        );
        for _ in 0..1000 {
            let due = match (stubborn.stage(), stubborn.model.stage_over()) {
                // The passes of SIGKILL between are left out, and so are ticks and looks.
                (Stage::Killing, _) => stubborn.model.gives_up.unwrap_or(stubborn.now),
                (_, Some(over)) => over,
                (_, None) => break,
            };
            stubborn.take(due.max(stubborn.now), Event::Timeout);
        }
        let unbounded = self.model.rest(0).is_none();
        let ends = stubborn.is_done() || stubborn.stage() == Stage::Running;
        assert!(
            ends || unbounded,
            "hangs: {}",
            show_state(&stubborn.machine)
        );
    }
}
