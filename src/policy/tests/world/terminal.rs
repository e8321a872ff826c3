//! The model's part of the terminal: the stops of the child and of the whole group, and the looks
//! at the terminal after a Ctrl-C.

use super::model::{Model, Stage};
use super::*;

/// The intervals of the first looks and of the later ones. A Ctrl-C prepares nothing for as long as
/// the second.
const LOOKS: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(100)];

/// A Ctrl-C that a prompt can cancel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cancellable {
    /// The next look.
    pub(super) next: Instant,
    /// When the preparations begin; `None` once they have begun.
    pub(super) prepares: Option<Instant>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Terminal {
    /// The signal that stopped the child while bowout stays awake, and the last TSTP, TTIN or TTOU
    /// to the whole group.
    pub(super) halted: Option<Signal>,
    pub(super) group: Option<Signal>,
    /// Since when bowout is stopped, and by which signal.
    pub(super) paused: Option<(Instant, Signal)>,
    pub(super) ctrl_c: Option<Cancellable>,
    /// The machine waits for the answer to its look.
    pub(super) looking: bool,
}

impl Terminal {
    /// True if nothing is prepared yet because a prompt can cancel the stop: no hook, no signal, no
    /// notification of the manager.
    pub(super) fn is_unprepared(&self) -> bool {
        self.ctrl_c.is_some_and(|ctrl_c| ctrl_c.prepares.is_some())
    }
}

impl Model {
    /// True if a stop request is a Ctrl-C that an interactive program may survive.
    pub(super) fn may_survive(&self, received: Received) -> bool {
        let Given(settings, place) = &*self.given;
        let key = received.signal == Signal::INT && received.side == Side::Terminal;
        let kept = settings.remap.apply(Signal::INT) == Some(Signal::INT);
        place.stdout_is_terminal && key && kept && received.shared_group
    }

    /// Begins the looks; nothing is prepared before them.
    pub(super) fn look_first(&mut self, now: Instant) {
        self.terminal.ctrl_c = Some(Cancellable {
            next: now + LOOKS[0],
            prepares: Some(now + LOOKS[1]),
        });
        (self.stage, self.prepared) = (Stage::Preparing(None), self.rung_over);
    }

    /// Looks at the terminal if a look is due. Returns true if one was.
    pub(super) fn look(&mut self, now: Instant) -> bool {
        let Some(ctrl_c) = self.terminal.ctrl_c.as_mut().filter(|it| it.next <= now) else {
            return false;
        };
        let first = ctrl_c.prepares.filter(|prepares| now < *prepares);
        ctrl_c.next = first.map_or(now + LOOKS[1], |prepares| prepares.min(now + LOOKS[0]));
        self.terminal.looking = true;
        self.actions.push(Action::LookAtTerminal);
        true
    }

    /// The answer to a look. A prompt cancels the stop. Without one, the preparations begin once
    /// their time has come.
    pub(super) fn terminal_seen(&mut self, now: Instant, prompt: bool) {
        self.terminal.looking = false;
        let Some(ctrl_c) = self.terminal.ctrl_c else {
            return;
        };
        if prompt {
            self.stage = Stage::Running;
            self.terminal.ctrl_c = None;
            (self.begun, self.tick, self.prepared, self.rung_over) = Default::default();
            (self.asked, self.sent, self.brought, self.tree) = Default::default();
            self.waiting.clear();
        } else if ctrl_c.prepares.is_some_and(|prepares| prepares <= now) {
            let prepares = None;
            let looks_on = self.given.0.hooks == 0;
            self.terminal.ctrl_c = looks_on.then_some(Cancellable { prepares, ..ctrl_c });
            self.proceed(now);
        }
    }

    /// A stop request that is not such a Ctrl-C ends the looks, and the preparations begin.
    pub(super) fn join(&mut self, now: Instant, received: Received) {
        if !self.may_survive(received) {
            let unprepared = self.terminal.is_unprepared();
            self.terminal.ctrl_c = None;
            if unprepared && matches!(self.stage, Stage::Preparing(_)) {
                self.proceed(now);
            }
        }
    }

    fn proceed(&mut self, now: Instant) {
        self.prepare(now, 0);
        self.announce(self.begun.expect("a stop that began"));
    }

    /// The looks go on during the preparations and the rungs, and end outside of them. The manager
    /// is notified of a stop that reaches a rung or the drain while a prompt could still cancel it.
    pub(super) fn settle_looks(&mut self, now: Instant) {
        let unprepared = self.terminal.is_unprepared();
        match (self.stage, &mut self.terminal.ctrl_c) {
            (Stage::Preparing(_), _) => return,
            (Stage::Rung(_), Some(ctrl_c)) => ctrl_c.prepares = None,
            (_, ctrl_c) => *ctrl_c = None,
        }
        if unprepared && matches!(self.stage, Stage::Rung(_) | Stage::Draining) {
            self.announce(self.begun.unwrap_or(now));
        }
    }

    fn suspend(&mut self, now: Instant, signal: Signal) {
        (self.terminal.halted, self.terminal.group) = (None, None);
        self.terminal.paused = Some((now, signal));
        self.actions.push(Action::SuspendSelf(signal));
    }

    pub(super) fn child_stopped(&mut self, now: Instant, event: Event) {
        let Event::ChildStopped {
            signal,
            wants_terminal,
            watched,
            shared_group,
        } = event
        else {
            return;
        };
        if self.is_over() {
            return;
        }
        let stop = signal == Signal::STOP;
        let stopping = matches!(self.stage, Stage::Rung(_));
        let terminal = self.given.1.job_control;
        if stop && stopping && !watched || !stop && !terminal {
            self.actions.push(Action::Wake);
        } else if terminal && wants_terminal {
            self.actions.extend([Action::LendTerminal, Action::Wake]);
        } else if terminal && (watched || self.terminal.group == Some(signal)) {
            self.suspend(now, signal);
        } else if terminal && signal == Signal::TSTP && !shared_group {
            self.actions.push(Action::Wake);
        } else if terminal {
            self.terminal.halted = Some(signal);
        }
    }

    /// The signal that stops the whole group, or continues it. The child's own stop is reported
    /// before it or after it.
    pub(super) fn follow_group(&mut self, now: Instant, received: Received) {
        let signal = received.signal;
        if self.is_over() || !self.given.1.job_control {
            return;
        }
        if signal == Signal::CONT {
            (self.terminal.halted, self.terminal.group) = (None, None);
        }
        let stops = [Signal::TSTP, Signal::TTIN, Signal::TTOU];
        if stops.contains(&signal) && self.has_had(received, signal) {
            self.terminal.group = Some(signal);
            if self.terminal.halted == Some(signal) {
                self.suspend(now, signal);
            }
        }
    }

    /// The time for which the user has the job stopped does not count.
    pub(super) fn resumed(&mut self, now: Instant, suspended: bool, stopped: bool) {
        let Some((since, signal)) = self.terminal.paused.take() else {
            return;
        };
        for time in [
            &mut self.runs_until,
            &mut self.ready_by,
            &mut self.silent_until,
            &mut self.begun,
            &mut self.prepared,
            &mut self.rung_over,
        ] {
            *time = time.map(|time| time + (now - since));
        }
        if stopped && (suspended || signal != Signal::STOP) {
            self.actions.push(Action::Wake);
        }
        if self.begun.is_some() && suspended {
            self.notify();
        }
    }
}
