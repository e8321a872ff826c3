//! What the terminal changes: which stops of the child bowout follows, and the Ctrl-C that an
//! interactive program survives.
//!
//! An interpreter, a debugger or a pager catches SIGINT and shows its prompt again. So where
//! standard output is the terminal, a Ctrl-C prepares nothing for [`LOOK`]. If a look at the
//! terminal, then or later, finds the program at its prompt, the stop is cancelled.

use std::time::{Duration, Instant};

use super::{Action, Machine, Received, State};
use crate::exit::Exit;
use crate::signal::{Signal, SignalSet};

/// For how long a Ctrl-C prepares nothing, and how often bowout looks at the terminal after that.
const LOOK: Duration = Duration::from_millis(100);
/// How often it looks before: a line that is pasted or typed by a program leaves the prompt again
/// at once.
const FIRST_LOOKS: Duration = Duration::from_millis(20);

/// The looks at the terminal: when the `next` is due, and when the stop begins to be prepared, if
/// it has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Watch {
    pub(super) next: Instant,
    pub(super) prepares: Option<Instant>,
}

impl Machine {
    /// Job control: a shell that watches bowout has to see the stop. Where none does, bowout has to
    /// stay awake: SIGCONT to the child alone would leave it stopped for ever.
    pub(super) fn child_stopped(
        &mut self,
        now: Instant,
        signal: Signal,
        wants_terminal: bool,
        watched: bool,
        shared_group: bool,
    ) -> Vec<Action> {
        match self.state {
            State::Running { .. } | State::Preparing { .. } | State::Stopping { .. } => {
                if signal == Signal::STOP
                    && !watched
                    && matches!(self.state, State::Stopping { .. })
                {
                    // It could not act on the stop signal, and SIGSTOP is not job control.
                    vec![Action::Wake]
                } else if !self.settings.job_control {
                    // No shell could continue it, and in bowout's group the kernel would not have
                    // stopped it: that group would be orphaned. SIGSTOP is obeyed.
                    if signal == Signal::STOP {
                        vec![]
                    } else {
                        vec![Action::Wake]
                    }
                } else if wants_terminal {
                    vec![Action::LendTerminal, Action::Wake]
                } else if watched || self.group_stop == Some(signal) {
                    self.suspend(now, signal)
                } else if signal == Signal::TSTP && !shared_group {
                    // Ctrl-Z has stopped the group that the child leads, and bowout alone could
                    // continue it.
                    vec![Action::Wake]
                } else {
                    self.halted = Some(signal);
                    vec![]
                }
            }
            // SIGKILL wakes what is stopped.
            State::Draining { .. } | State::Killing { .. } | State::Done(_) => vec![],
        }
    }

    /// The child is stopped, and bowout stops, too.
    fn suspend(&mut self, now: Instant, signal: Signal) -> Vec<Action> {
        (self.halted, self.group_stop) = (None, None);
        self.paused = Some((now, signal));
        vec![Action::SuspendSelf(signal)]
    }

    /// Whether the terminal has stopped the whole group. The kernel signals one process after the
    /// other, and the child may report its stop before bowout receives the signal, or long after,
    /// if it catches the signal first. So each of the two is kept until the other comes. A stop
    /// that is kept for too long does no harm: only a signal to the whole group uses it, and that
    /// signal stops the job anyway.
    pub(super) fn follow_group_stop(&mut self, now: Instant, received: Received) -> Vec<Action> {
        const STOPS: SignalSet = SignalSet::of(&[Signal::TSTP, Signal::TTIN, Signal::TTOU]);
        let over = matches!(
            self.state,
            State::Draining { .. } | State::Killing { .. } | State::Done(_)
        );
        if over || !self.settings.job_control {
            return vec![];
        }
        if received.signal == Signal::CONT {
            (self.halted, self.group_stop) = (None, None);
        } else if STOPS.contains(received.signal) && self.child_has(received, received.signal) {
            self.group_stop = Some(received.signal);
            if self.halted == self.group_stop {
                return self.suspend(now, received.signal);
            }
        }
        vec![]
    }

    /// A Ctrl-C that is a stop request: the grace period runs, and the looks come before all else.
    /// A hook has effects that no cancelled stop takes back, and a stop signal of the user's choice
    /// would end the program at its prompt.
    pub(super) fn await_prompt(
        &mut self,
        now: Instant,
        grace: Option<Instant>,
        ended: Option<Exit>,
    ) -> Vec<Action> {
        self.renew = None;
        self.watch = Some(Watch {
            next: now + FIRST_LOOKS,
            prepares: Some(now + LOOK),
        });
        self.state = State::Preparing {
            hook: None,
            until: grace,
            grace,
            ended,
        };
        vec![]
    }

    /// A look, where one is due.
    pub(super) fn look(&mut self, now: Instant) -> Option<Action> {
        let watch = self.watch.as_mut().filter(|watch| watch.next <= now)?;
        watch.next = match watch.prepares {
            Some(prepares) if now < prepares => prepares.min(now + FIRST_LOOKS),
            Some(_) | None => now + LOOK,
        };
        Some(Action::LookAtTerminal)
    }

    /// A look at the terminal is over.
    pub(super) fn terminal_seen(&mut self, now: Instant, prompt: bool) -> Vec<Action> {
        match (self.state, self.watch) {
            (State::Preparing { ended, .. } | State::Stopping { ended, .. }, Some(_)) if prompt => {
                self.cancel(ended);
                vec![]
            }
            (
                State::Preparing { .. },
                Some(Watch {
                    next,
                    prepares: Some(prepares),
                }),
            ) if prepares <= now => {
                self.watch = (self.settings.hooks == 0).then_some(Watch {
                    next,
                    prepares: None,
                });
                self.proceed(now)
            }
            (_, _) => vec![],
        }
    }

    /// Another stop request than a Ctrl-C: it means the stop, and a prompt does not cancel it.
    pub(super) fn join(&mut self, now: Instant, received: Received) -> Vec<Action> {
        let settings = &self.settings;
        let asks = settings.is_stop_request(received) && !settings.drops(received.signal);
        if !asks || settings.awaits_prompt(received) {
            return vec![];
        }
        match (self.state, self.watch.take()) {
            (
                State::Preparing { .. },
                Some(Watch {
                    prepares: Some(_), ..
                }),
            ) => self.proceed(now),
            (_, _) => vec![],
        }
    }

    /// The stop that waited for the looks goes on.
    fn proceed(&mut self, now: Instant) -> Vec<Action> {
        let State::Preparing { grace, ended, .. } = self.state else {
            return vec![];
        };
        let mut actions = self.prepare(now, 0, grace, ended);
        actions.extend(self.announce(self.begun.unwrap_or(now)));
        actions
    }

    /// The manager receives no STOPPING=1 for a stop that a prompt can still cancel: it would wait
    /// for the end. It receives one where the child's exit, or the end of a grace period that is
    /// shorter than [`LOOK`], comes first. No look follows these or SIGKILL.
    pub(super) fn settle_watch(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let Some(Watch { next, prepares }) = self.watch else {
            return;
        };
        let stops = match self.state {
            State::Preparing { .. } => {
                actions.retain(|action| prepares.is_none() || *action != Action::NotifyStopping);
                return;
            }
            State::Stopping { .. } => {
                self.watch = Some(Watch {
                    next,
                    prepares: None,
                });
                true
            }
            State::Running { .. }
            | State::Draining { .. }
            | State::Killing { .. }
            | State::Done(_) => {
                self.watch = None;
                matches!(self.state, State::Draining { .. })
            }
        };
        if stops && prepares.is_some() {
            actions.extend(self.announce(self.begun.unwrap_or(now)));
        }
    }

    /// The program is at its prompt: there was no stop request. `--max-runtime` runs on.
    fn cancel(&mut self, ended: Option<Exit>) {
        self.state = State::Running { ended };
        (self.begun, self.renew, self.watch) = (None, None, None);
        (self.asked, self.sent, self.forwarded, self.told) = Default::default();
        self.waiting.clear();
    }
}
