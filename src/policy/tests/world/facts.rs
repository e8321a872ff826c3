//! A fact reports no more than the actions and the phases show, and no less.

use super::*;

/// The kinds of signals that a step sends.
struct Did {
    sends: bool,
    kills: bool,
    stops: bool,
    new: bool,
}

impl World {
    #[allow(clippy::too_many_lines, reason = "one arm for each fact")]
    pub(super) fn judge_fact(
        &self,
        before: Before,
        event: Event,
        actions: &[Action],
        fact: Option<Fact>,
    ) {
        let sends = |wanted: fn(Signal, Target, bool) -> bool| {
            actions.iter().any(|action| match *action {
                Action::Send {
                    signal, to, wake, ..
                } => wanted(signal, to, wake),
                _ => false,
            })
        };
        let did = Did {
            sends: sends(|signal, _, _| signal != Signal::KILL),
            kills: sends(|signal, _, _| signal == Signal::KILL),
            stops: sends(|_, to, wake| wake && to != Target::NewChildren),
            new: sends(|_, to, _| to == Target::NewChildren),
        };
        let stage = self.stage();
        let waiting = match stage {
            Stage::Preparing(hook) => Some(Waiting::Preparation {
                hooks: hook.is_some(),
            }),
            Stage::Rung(_) => Some(Waiting::Child),
            Stage::Killing => Some(Waiting::Kill),
            _ => None,
        };
        let timeout = event == Event::Timeout;
        let holds = match fact {
            None => {
                let over =
                    matches!(before.stage, Stage::Done(_)) && !matches!(event, Event::Signal(_));
                let always = matches!(
                    event,
                    Event::Signal(_) | Event::ChildExited(_) | Event::Resumed { .. }
                );
                let moved = timeout && stage != before.stage;
                over || !always && !moved && !did.sends && !did.kills
            }
            Some(Fact::Signal {
                received,
                request,
                outcome,
            }) => {
                assert_eq!(request, self.model.asks(received), "asks for the stop");
                event == Event::Signal(received)
                    && self.holds_outcome(before, received, outcome, &did, waiting)
            }
            Some(Fact::Began(cause, w)) => {
                let over = [Cause::RunTime, Cause::NotReady, Cause::Watchdog].contains(&cause);
                let silent = self.model.by_silence == (cause == Cause::Watchdog);
                let by = event == Event::Stop(cause) || timeout && over && silent;
                by && before.stage == Stage::Running && Some(w) == waiting
            }
            Some(Fact::Ready) => event == Event::Ready,
            Some(Fact::CtrlC(w)) => {
                event == NO_PROMPT && before.unprepared && Some(w) == waiting && w != Waiting::Kill
            }
            Some(Fact::Cancelled) => event == PROMPT && stage == Stage::Running,
            Some(Fact::ChildExited(exit)) => event == Event::ChildExited(exit),
            Some(Fact::HookOver { hook, deadline }) => {
                let exited = event == Event::HookExited;
                before.stage == Stage::Preparing(Some(hook))
                    && stage == Stage::Rung(0)
                    && (deadline, !deadline) == (timeout, exited)
                    && deadline == actions.contains(&Action::EndHook)
            }
            Some(Fact::DelayOver) => {
                timeout && before.stage == Stage::Preparing(None) && stage == Stage::Rung(0)
            }
            Some(Fact::Escalated) => match (before.stage, stage) {
                (Stage::Rung(was), Stage::Rung(is)) => timeout && is == was + 1,
                (_, _) => false,
            },
            Some(Fact::GraceOver) => {
                timeout && did.kills && matches!(before.stage, Stage::Rung(_) | Stage::Draining)
            }
            Some(Fact::KilledAgain) => {
                timeout && did.kills && before.stage == Stage::Killing && stage == Stage::Killing
            }
            Some(Fact::GaveUp) => {
                before.stage == Stage::Killing && stage == Stage::Done(Exit::UNKILLABLE)
            }
            Some(Fact::DeadlineLate) => {
                let off = self.model.stage_over() == Some(self.now + LATE);
                timeout && actions.is_empty() && stage == before.stage && off
            }
            Some(Fact::Extended { asked, granted }) => {
                let moved = self.model.kill_due() > before.kill_due;
                event == Event::ExtendGrace(asked)
                    && (granted == moved || self.model.rest(0).is_none())
            }
            Some(Fact::NewChildren) => {
                (timeout || event == Event::Reaped) && did.new && !did.kills && !did.stops
            }
            Some(Fact::ChildStopped { signal, lent }) => match event {
                Event::ChildStopped { signal: by, .. } => {
                    signal == by && lent == actions.contains(&Action::LendTerminal)
                }
                _ => false,
            },
            Some(Fact::Resumed { suspended: was }) => {
                matches!(event, Event::Resumed { suspended, .. } if suspended == was)
            }
        };
        assert!(
            holds,
            "{fact:?} at {event:?} in {:?} -> {stage:?}, {}",
            before.stage,
            show_all(actions, None)
        );
    }

    fn holds_outcome(
        &self,
        before: Before,
        received: Received,
        outcome: Outcome,
        did: &Did,
        waiting: Option<Waiting>,
    ) -> bool {
        let stage = self.stage();
        let was_running = before.stage == Stage::Running;
        let prepares = before.unprepared && !self.model.terminal.is_unprepared();
        let begins = was_running && stage != Stage::Running || prepares && !did.kills;
        match outcome {
            Outcome::Began(w) => {
                let rung = self.settings().ladder.rung(0).and_then(|rung| rung.signal);
                let had = self
                    .model
                    .has_had(received, rung.unwrap_or(received.signal));
                let sent = match w {
                    Waiting::Preparation { .. } => !did.sends && !did.kills,
                    // The Ctrl-C that a request joins has reached the child.
                    Waiting::Child => !did.kills && (did.stops || had || before.unprepared),
                    Waiting::Kill => did.kills && !did.sends,
                    Waiting::Descendants => false,
                };
                begins && Some(w) == waiting && sent
            }
            Outcome::Looks => {
                was_running && stage == Stage::Preparing(None) && !did.sends && !did.kills
            }
            Outcome::Killed => {
                did.kills && !did.sends && stage == Stage::Killing && !was_running
                    || received.signal == Signal::KILL && did.kills
            }
            Outcome::Forwarded => did.sends && !did.kills && !begins,
            Outcome::NotForwarded(reason) => {
                let over = matches!(stage, Stage::Draining | Stage::Killing | Stage::Done(_));
                // The machine ignores an exit after the end, and so does the model: `self.child`
                // may differ.
                let exited = self.model.exited.is_some() && !self.settings().wait_tree;
                let asks = self.model.asks(received);
                let because = match reason {
                    Reason::Dropped => self.settings().remap.apply(received.signal).is_none(),
                    Reason::Received => {
                        let had = self.model.has_had(received, received.signal);
                        !asks && had && self.child.is_none() && !over
                    }
                    Reason::Preparing => asks && matches!(stage, Stage::Preparing(_)),
                    Reason::Stopping => asks && matches!(stage, Stage::Rung(_)),
                    Reason::ChildExited => over && exited,
                    Reason::ChildKilled => over && !exited,
                };
                because && !did.sends && !did.kills && (!was_running || !asks)
            }
        }
    }
}
