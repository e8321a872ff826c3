//! What the monitor knows of the terminal from the events alone: the stops of the child and of the
//! whole group, and the looks that a Ctrl-C brings.

use super::*;

/// The times of the looks, and for how long a Ctrl-C prepares nothing.
const LOOKS: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(100)];

/// A Ctrl-C that a prompt can cancel.
#[derive(Clone, Copy, Debug)]
struct Cancellable {
    /// The next look.
    next: Instant,
    /// When the stop is prepared, if it has not been.
    prepares: Option<Instant>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Terminal {
    /// The stop of the child that bowout did not follow, and the last of the whole group.
    halted: Option<Signal>,
    group: Option<Signal>,
    ctrl_c: Option<Cancellable>,
    /// The machine waits for the answer to its look.
    pub(super) looking: bool,
}

fn is_stop(signal: Signal) -> bool {
    [Signal::TSTP, Signal::TTIN, Signal::TTOU].contains(&signal)
}

impl Terminal {
    /// Whether nothing is prepared yet: no hook, no signal, no word to the manager.
    pub(super) fn is_unprepared(&self) -> bool {
        self.ctrl_c.is_some_and(|ctrl_c| ctrl_c.prepares.is_some())
    }

    /// What two worlds are compared by.
    pub(super) fn numbers(&self) -> ([i64; 3], [Option<Instant>; 2]) {
        let number = |signal: Option<Signal>| signal.map_or(0, |signal| i64::from(signal.number()));
        let times = self.ctrl_c.map(|ctrl_c| (ctrl_c.next, ctrl_c.prepares));
        (
            [
                number(self.halted),
                number(self.group),
                i64::from(self.looking),
            ],
            [
                times.map(|(next, _)| next),
                times.and_then(|(_, prepares)| prepares),
            ],
        )
    }

    /// Drops what no later event can read.
    pub(super) fn forget_stops(&mut self) {
        (self.halted, self.group) = (None, None);
    }
}

/// Whether a stop request is the Ctrl-C of an interactive program.
fn is_ctrl_c(settings: &Settings, received: Received) -> bool {
    let key = received.signal == Signal::INT && received.side == Side::Terminal;
    settings.stdout_is_terminal && key && received.shared_group
}

impl World {
    /// What the machine had to do about job control and about the looks, and did.
    pub(super) fn judge_terminal(
        &mut self,
        before: State,
        event: Event,
        due: bool,
        actions: &[Action],
    ) {
        let expected = self.expected_suspension(before, event);
        let suspended = actions.iter().find_map(|action| match *action {
            Action::SuspendSelf(signal) => Some(signal),
            _ => None,
        });
        assert_eq!(
            suspended, expected,
            "stops itself for no watcher, or stays awake before one"
        );
        let looks = event == Event::Timeout
            && !due
            && self.terminal.ctrl_c.is_some_and(|it| it.next <= self.now);
        assert_eq!(
            actions.contains(&Action::LookAtTerminal),
            looks,
            "looks without need, or not when it has to"
        );
        self.follow_ctrl_c(before, event, looks, actions);
        if self.terminal.is_unprepared() {
            let prepares = |action: &Action| {
                matches!(
                    action,
                    Action::Send { wake: true, .. } | Action::RunHook(_) | Action::NotifyStopping
                )
            };
            assert!(
                !actions.iter().any(prepares),
                "prepares what a prompt can cancel"
            );
        }
        if let Some(Cancellable { next, .. }) = self.terminal.ctrl_c {
            assert!(
                self.machine
                    .deadline()
                    .is_some_and(|deadline| deadline <= next),
                "does not look again"
            );
        }
    }

    fn expected_suspension(&mut self, before: State, event: Event) -> Option<Signal> {
        let over = |state| {
            matches!(
                state,
                State::Draining { .. } | State::Killing { .. } | State::Done(_)
            )
        };
        let Self {
            machine, terminal, ..
        } = self;
        if !machine.settings.job_control || over(before) || over(machine.state()) {
            return None;
        }
        let both = match event {
            Event::ChildStopped {
                wants_terminal: true,
                ..
            } => None,
            Event::ChildStopped {
                signal,
                watched: true,
                ..
            } => Some(signal),
            Event::ChildStopped { signal, .. } if terminal.group == Some(signal) => Some(signal),
            Event::ChildStopped {
                signal: Signal::TSTP,
                shared_group: false,
                ..
            } => None,
            Event::ChildStopped { signal, .. } => {
                terminal.halted = Some(signal);
                None
            }
            Event::ChildExited(_) => {
                terminal.halted = None;
                None
            }
            Event::Signal(received) if received.signal == Signal::CONT => {
                terminal.forget_stops();
                None
            }
            Event::Signal(received)
                if is_stop(received.signal) && machine.child_has(received, received.signal) =>
            {
                terminal.group = Some(received.signal);
                terminal.group.filter(|_| terminal.halted == terminal.group)
            }
            _ => None,
        };
        if both.is_some() {
            terminal.forget_stops();
        }
        both
    }

    fn follow_ctrl_c(&mut self, before: State, event: Event, looks: bool, actions: &[Action]) {
        let (now, after) = (self.now, self.machine.state());
        let settings = &self.machine.settings;
        let was = self.terminal.ctrl_c;
        let unprepared = was.is_some_and(|ctrl_c| ctrl_c.prepares.is_some());
        match event {
            Event::Signal(received)
                if settings.is_stop_request(received) && !settings.drops(received.signal) =>
            {
                if !is_ctrl_c(settings, received) {
                    self.terminal.ctrl_c = None;
                    let killed = matches!(after, State::Killing { .. });
                    let proceeds = actions.contains(&Action::NotifyStopping);
                    assert!(
                        !unprepared || killed || proceeds,
                        "another request does not start the stop"
                    );
                } else if matches!(before, State::Running { .. })
                    && settings.ladder.rung(0).is_some()
                {
                    let prepares = Some(now + LOOKS[1]);
                    self.terminal.ctrl_c = Some(Cancellable {
                        next: now + LOOKS[0],
                        prepares,
                    });
                }
            }
            Event::Timeout if looks => {
                let ctrl_c = self.terminal.ctrl_c.as_mut().expect("a look");
                let first = ctrl_c.prepares.filter(|prepares| now < *prepares);
                ctrl_c.next = first.map_or(now + LOOKS[1], |prepares| prepares.min(now + LOOKS[0]));
                self.terminal.looking = true;
            }
            Event::TerminalSeen { prompt } => {
                self.terminal.looking = false;
                self.judge_look(before, prompt, actions);
            }
            _ => {}
        }
        match (after, &mut self.terminal.ctrl_c) {
            (State::Preparing { .. }, _) => {}
            (State::Stopping { .. }, Some(ctrl_c)) => ctrl_c.prepares = None,
            (_, ctrl_c) => *ctrl_c = None,
        }
    }

    /// A prompt leaves nothing of the stop; no prompt, after a while, lets it begin.
    fn judge_look(&mut self, before: State, prompt: bool, actions: &[Action]) {
        let Some(ctrl_c) = self.terminal.ctrl_c else {
            panic!("looks though the stop cannot be cancelled")
        };
        let after = self.machine.state();
        if prompt {
            assert!(
                matches!(after, State::Running { .. }) && actions.is_empty(),
                "is not cancelled"
            );
            assert!(self.next_hook == 0, "cancels what a hook has begun");
            (self.asked, self.since, self.late, self.extended) = Default::default();
            (self.stopped_by, self.told_all) = Default::default();
        } else if ctrl_c.prepares.is_some_and(|prepares| prepares <= self.now) {
            assert!(
                actions.contains(&Action::NotifyStopping),
                "does not begin to stop"
            );
            self.terminal.ctrl_c = (self.machine.settings.hooks == 0).then_some(Cancellable {
                prepares: None,
                ..ctrl_c
            });
        } else {
            assert_eq!(
                (actions, after),
                (&[][..], before),
                "a look that finds no prompt changes something"
            );
        }
    }
}
