//! The effects of the terminal: the stops of the child that bowout follows, and the Ctrl-C that an
//! interactive program survives.
//!
//! An interpreter, a debugger or a pager catches SIGINT and shows its prompt again. So where
//! standard output is the terminal, a Ctrl-C prepares nothing for [`LOOK`]. If a look at the
//! terminal, then or later, finds the program at its prompt, the stop is cancelled.

use std::time::{Duration, Instant};

use super::{Action, Fact, Machine, Outcome, Phase, Received, Watch};
use crate::sender::Side;
use crate::signal::{Signal, SignalSet};

/// For how long a Ctrl-C prepares nothing, and how often bowout looks at the terminal after that.
const LOOK: Duration = Duration::from_millis(100);
/// How often it looks before: a program that types or pastes a line leaves the prompt at once.
const FIRST_LOOKS: Duration = Duration::from_millis(20);

impl Machine {
    /// True if this is a Ctrl-C that an interactive program has received and may survive.
    pub(super) fn awaits_prompt(&self, received: Received) -> bool {
        self.place.stdout_is_terminal
            && received.shared_group
            && (received.signal, received.side) == (Signal::INT, Side::Terminal)
            && self.settings.remap.apply(Signal::INT) == Some(Signal::INT)
    }

    /// Job control: a shell that watches bowout has to see the stop. Where none does, bowout has to
    /// stay awake: SIGCONT to the child alone would leave bowout stopped for ever.
    pub(super) fn child_stopped(
        &mut self,
        now: Instant,
        signal: Signal,
        wants_terminal: bool,
        watched: bool,
        shared_group: bool,
    ) {
        // SIGKILL works on a stopped process, too.
        if self.is_over() {
            return;
        }
        let stopping = matches!(self.phase, Phase::Stopping { .. });
        if signal == Signal::STOP && !watched && stopping {
            // The child could not act on the stop signal, and SIGSTOP is not job control.
            self.act(Action::Wake);
        } else if !self.place.job_control {
            // No shell could continue the child. In bowout's group, which would be orphaned, the
            // kernel would not have stopped it. SIGSTOP is obeyed.
            if signal != Signal::STOP {
                self.act(Action::Wake);
            }
        } else if wants_terminal {
            self.act(Action::LendTerminal);
            self.act(Action::Wake);
        } else if watched || self.group_stop == Some(signal) {
            self.suspend(now, signal);
        } else if signal == Signal::TSTP && !shared_group {
            // Ctrl-Z has stopped the group that the child leads, and bowout alone can continue it.
            self.act(Action::Wake);
        } else {
            self.halted = Some(signal);
        }
        self.report(Fact::ChildStopped {
            signal,
            lent: self.step.actions.contains(&Action::LendTerminal),
        });
    }

    /// True if no stop of the child matters any more.
    fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Killing { .. } | Phase::Done(_)) || self.is_draining()
    }

    /// The child is stopped, and bowout stops, too.
    fn suspend(&mut self, now: Instant, signal: Signal) {
        (self.halted, self.group_stop) = (None, None);
        self.paused = Some((now, signal));
        self.act(Action::SuspendSelf(signal));
    }

    /// Follows a stop of the whole group. The kernel signals one process after the other, and the
    /// child may report its stop before bowout receives the signal, or long after, if it catches
    /// the signal first. So each of the two is kept until the other comes. A stop that is kept for
    /// too long does no harm: only a signal to the whole group uses it, and that signal stops the
    /// job anyway.
    pub(super) fn follow_group_stop(&mut self, now: Instant, received: Received) {
        const STOPS: SignalSet = SignalSet::of(&[Signal::TSTP, Signal::TTIN, Signal::TTOU]);
        if self.is_over() || !self.place.job_control {
            return;
        }
        if received.signal == Signal::CONT {
            (self.halted, self.group_stop) = (None, None);
        } else if STOPS.contains(received.signal) && self.child_has(received, received.signal) {
            self.group_stop = Some(received.signal);
            if self.halted == self.group_stop {
                self.suspend(now, received.signal);
            }
        }
    }

    /// A Ctrl-C that is a stop request: the grace period runs, and the looks come before all else.
    /// No cancelled stop takes back the effects of a hook, and a stop signal of the user's choice
    /// would end the program at its prompt.
    pub(super) fn await_prompt(&mut self, now: Instant) {
        self.watch = Some(Watch {
            next: now + FIRST_LOOKS,
            prepares: Some(now + LOOK),
        });
        (self.phase, self.until) = (Phase::Preparing { hook: None }, self.grace);
    }

    /// True if a prompt can still cancel the stop without a trace.
    pub(super) fn is_unprepared(&self) -> bool {
        self.watch.is_some_and(|watch| watch.prepares.is_some())
    }

    /// Notifies the manager; not of a stop that a prompt can still cancel: it would wait for the
    /// end.
    pub(super) fn notify_stopping(&mut self) {
        if !self.is_unprepared() {
            self.act(Action::NotifyStopping);
        }
    }

    /// A look, where one is due; returns whether one was.
    pub(super) fn look(&mut self, now: Instant) -> bool {
        let Some(watch) = self.watch.as_mut().filter(|watch| watch.next <= now) else {
            return false;
        };
        watch.next = match watch.prepares {
            Some(prepares) if now < prepares => prepares.min(now + FIRST_LOOKS),
            Some(_) | None => now + LOOK,
        };
        self.act(Action::LookAtTerminal);
        true
    }

    /// A look at the terminal is over.
    pub(super) fn terminal_seen(&mut self, now: Instant, prompt: bool) {
        let Some(Watch { next, prepares }) = self.watch else {
            return;
        };
        if prompt {
            self.cancel();
            self.report(Fact::Cancelled);
        } else if prepares.is_some_and(|prepares| prepares <= now) {
            self.watch = (self.settings.hooks == 0).then_some(Watch {
                next,
                prepares: None,
            });
            self.proceed(now);
            self.report(Fact::CtrlC(self.waiting()));
        }
    }

    /// Another stop request than a Ctrl-C: it means the stop, and a prompt does not cancel it.
    pub(super) fn join(&mut self, now: Instant, received: Received) {
        if self.awaits_prompt(received) {
            return;
        }
        let unprepared = self.is_unprepared() && matches!(self.phase, Phase::Preparing { .. });
        self.watch = None;
        if unprepared {
            self.proceed(now);
            let outcome = Outcome::Began(self.waiting());
            self.report(Fact::Signal {
                received,
                request: true,
                outcome,
            });
        }
    }

    /// The stop that waited for the looks goes on.
    fn proceed(&mut self, now: Instant) {
        self.prepare(now, 0);
        self.announce(self.begun.unwrap_or(now));
    }

    /// Ends the looks where the phase ends them. The manager is notified of a stop that it was not
    /// notified of while a prompt could cancel it: the child's exit, or the end of a grace period
    /// that is shorter than [`LOOK`], came first.
    pub(super) fn settle_watch(&mut self, now: Instant) {
        let Some(Watch { next, prepares }) = self.watch else {
            return;
        };
        match self.phase {
            Phase::Preparing { .. } => return,
            Phase::Stopping { .. } if !self.is_draining() => {
                self.watch = Some(Watch {
                    next,
                    prepares: None,
                });
            }
            Phase::Running | Phase::Stopping { .. } | Phase::Killing { .. } | Phase::Done(_) => {
                self.watch = None;
            }
        }
        if prepares.is_some() && matches!(self.phase, Phase::Stopping { .. }) {
            self.announce(self.begun.unwrap_or(now));
        }
    }

    /// The program is at its prompt: there was no stop request. `--max-runtime` runs on.
    fn cancel(&mut self) {
        self.phase = Phase::Running;
        (self.until, self.grace, self.tick, self.watch) = Default::default();
        (self.begun, self.begun_by) = Default::default();
        (self.asked, self.sent, self.forwarded, self.tree_asked) = Default::default();
        self.waiting.clear();
    }
}
