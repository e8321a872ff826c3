//! A machine among processes, and the rules that must hold after each event.
//!
//! The walk and the random sequences both drive it. Three judges check each step. The `model`
//! computes the actions, the phase and the deadline from the events and the settings alone; it
//! calls none of the machine's functions. Of the machine, only outputs are read: the step, the
//! phase, the deadline, the child's exit, and the signal that hooks receive. `facts` checks each
//! fact against the actions and the phases. The rules here do not depend on the model. No process
//! is signalled after it was reaped. No process is killed before its time, or without being asked
//! to stop. Nothing goes on for ever.

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

/// A machine, its model, and the state of the processes.
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
    /// When the grace period began; every pause of the job moves it.
    since: Option<Instant>,
    /// When the stop was requested, if the child had exited before; every pause moves it, too.
    requested: Option<Instant>,
    /// The sum of the times by which deadlines were noticed late, with [`LATE`] more for each that
    /// can be put off. Later deadlines move by it.
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
    /// When the stage is over, and whether that time has passed.
    over: Option<Instant>,
    due: bool,
    /// The child exited in an earlier event. It was reaped once the actions of that event were
    /// done: only those could still signal it.
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

    /// The phase of the machine, as a stage of the model.
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

    /// True if this event can happen in this world. A process exits once. While bowout is stopped,
    /// the next event is the end of that.
    pub(super) fn is_possible(&self, event: Event) -> bool {
        match event {
            Event::Resumed { .. } => self.suspended.is_some(),
            _ if self.suspended.is_some() => false,
            // The answer to a look comes before any other event.
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

    /// True if the deadline is a tick, but not the first after the stop began or the child exited.
    /// Such a tick does the same as the first, and arms the next.
    pub(super) fn ticks_again(&self) -> bool {
        let first = |since: Option<Instant>| since.map(|since| since + Duration::from_millis(500));
        let tick = self.model.tick;
        let firsts = [first(self.model.begun), first(self.exited)];
        tick.is_some() && tick == self.machine.deadline() && !firsts.contains(&tick)
    }

    /// True if this side has asked for the stop.
    pub(super) fn has_asked(&self, side: Side) -> bool {
        self.model.asked[side as usize].is_some()
    }

    /// True if its side has sent this signal as a stop request before.
    pub(super) fn has_sent(&self, Received { signal, side, .. }: Received) -> bool {
        self.model.asked[side as usize].is_some_and(|asked| asked.signals.contains(signal))
    }

    /// Takes one event at `now`, checks the rules that must hold after each event, and returns the
    /// actions.
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

    /// Records the facts that follow from the event alone, independently of the machine.
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

    /// The passes of SIGKILL begin once. They begin before their time only at a second request or
    /// at the parent's exit. A descendant is sent SIGTERM first, and has a second.
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

    /// A stop signal is sent once; again only as a later rung, to new children, or as a repeat that
    /// is to be forwarded. The drain sends SIGTERM to the processes that were not sent it.
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

    /// bowout exits with the child's status, except where a time limit ended the command, or where
    /// bowout has to leave a process running.
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
            // With a wait of 0, the next deadline may be due at once. Even then, each timeout moves
            // the deadline or changes the stage.
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

    /// The armed deadline leads to SIGKILL no later than the settings allow: after the whole
    /// ladder, or after the maximum grace period.
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

    /// Checks that this world can end. Once the child exits and no process remains, bowout exits.
    /// Where a stop is under way, a child that ignores every signal is killed in bounded time,
    /// unless a wait of the ladder is `never`.
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
                // Leaves out the passes of SIGKILL before the last, the ticks and the looks.
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
