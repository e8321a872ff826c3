//! Performs each action of the policy by `sys`, and collects the results.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use log::Level;

use super::Supervisor;
use crate::log::{escape, event};
use crate::policy::{Action, Event, Hook, Phase};
use crate::process::NamedProcess;
use crate::report::Sent;
use crate::signal::{Signal, Target};
use crate::sys::kernel::Kernel;
use crate::sys::proc::Process;
use crate::sys::tree::Tally;
use crate::sys::wait;
use crate::sys::waitid::{Ask, Report};

/// How much longer than the last moment at which bowout exits the manager is asked to wait.
const MARGIN: Duration = Duration::from_secs(1);
/// The wait that bowout asks the manager for where the stop has no last moment.
const A_YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// How long bowout gives way to the receivers of a stop signal, if it receives no signal meanwhile;
/// the timer slack adds up to as much (PR_SET_TIMERSLACK(2const)). Where they share one processor
/// with bowout, they would otherwise run after its look at their state and its log line.
/// sched_yield(2) would let others run for a whole time slice on a busy machine.
const GIVE_WAY: Duration = Duration::from_micros(50);

/// How many refusals are logged one by one.
const REFUSALS: usize = 256;

/// The results of the actions of one step.
#[derive(Debug, Default)]
pub(super) struct Performed {
    /// The signals that were sent, in order.
    pub(super) sent: Vec<Sent>,
    /// The receivers of stop signals, to be continued if they are stopped.
    to_wake: Vec<Tally>,
    /// The processes that may not be signalled.
    pub(super) refused: Vec<(Process, Signal, io::Error)>,
    /// The child's group was sent SIGCONT.
    pub(super) woken: bool,
    /// The manager is notified once the step is logged.
    pub(super) notify: bool,
    /// The hook to run after the step is logged.
    pub(super) hook: Option<Hook>,
    /// The events that the actions have led to.
    pub(super) events: Vec<Event>,
}

impl<K: Kernel> Supervisor<'_, K> {
    /// Carries out all actions of one step. SIGCONT after a stop signal is left to
    /// [`give_way`](Self::give_way).
    pub(super) fn perform(&mut self, actions: &[Action]) -> Performed {
        let mut done = Performed::default();
        for action in actions {
            match *action {
                Action::Send {
                    signal,
                    value,
                    to,
                    wake,
                } => self.send(signal, value, to, wake, &mut done),
                Action::Pause => wait::pause(),
                Action::Wake => done.woken = self.tree.wake_group(),
                Action::RunHook(hook) => done.hook = Some(hook),
                Action::EndHook => self.end_hook(),
                Action::NotifyStopping => done.notify = true,
                Action::LookAtTerminal => {
                    let tree = self.tree.members().unwrap_or_default();
                    let terminal = self.terminal.as_ref();
                    let prompt = terminal.is_some_and(|terminal| terminal.is_at_prompt(&tree));
                    done.events.push(Event::TerminalSeen { prompt });
                }
                Action::SuspendSelf(signal) => {
                    self.give_way(&mut done);
                    let group = self.tree.child_group();
                    let was_continued =
                        || matches!(self.tree.look(Ask::Continued), Report::Continued);
                    let terminal = self.terminal.as_ref();
                    let suspended = terminal
                        .is_some_and(|terminal| terminal.suspend(signal, group, was_continued));
                    let stopped = self.tree.child_is_stopped();
                    done.events.push(Event::Resumed { suspended, stopped });
                }
                Action::LendTerminal => {
                    if let Some((terminal, group)) =
                        self.terminal.as_ref().zip(self.tree.child_group())
                    {
                        terminal.lend(group);
                    }
                }
            }
        }
        done
    }

    fn send(
        &mut self,
        signal: Signal,
        value: Option<u64>,
        to: Target,
        wake: bool,
        done: &mut Performed,
    ) {
        if to == Target::NewChildren && !self.tree.has_unasked_child(signal) {
            return;
        }
        let mut tally = self.tree.signal(signal, value, to);
        let (reached, refused) = (tally.reached.len(), tally.refused.len());
        done.sent.push(Sent {
            signal,
            to,
            stops: wake || signal == Signal::KILL,
            reached,
            refused,
            processes: self.named(signal, to, &tally.reached),
        });
        done.refused.extend(
            tally
                .refused
                .drain(..)
                .map(|(process, error)| (process, signal, error)),
        );
        done.to_wake.extend((wake && reached > 0).then_some(tally));
        if signal == Signal::KILL {
            done.events.push(Event::Killed { reached, refused });
        }
    }

    /// Lets the receivers of a stop signal run. Then SIGCONT to each that is stopped, or whose
    /// state cannot be read.
    pub(super) fn give_way(&self, done: &mut Performed) {
        if !done.to_wake.is_empty() {
            let (until, intake) = (self.tree.kernel.clock() + GIVE_WAY, self.intake.as_fd());
            self.tree.kernel.wait(Some(until), &[intake], None);
        }
        for tally in done.to_wake.drain(..) {
            self.tree.wake_reached(&tally);
        }
    }

    /// The processes that were signalled, for the log and the report: those that the stop kills,
    /// and the descendants that it ends.
    fn named(&self, signal: Signal, to: Target, reached: &[Process]) -> Vec<NamedProcess> {
        match (signal, to) {
            (Signal::KILL, Target::Child) => {
                let child = self.tree.kernel.stat(self.child.pid());
                let mut child = self.tree.kernel.name(child.as_slice());
                // Read after the signal: another state than D is SIGKILL's effect.
                for child in child.iter_mut().filter(|child| child.state != 'D') {
                    child.state = '?';
                }
                child
            }
            // In the usual end no process is left to be signalled.
            (Signal::KILL, _) | (_, Target::Unasked | Target::NewChildren)
                if !reached.is_empty() =>
            {
                self.tree.kernel.name(reached)
            }
            _ => vec![],
        }
    }

    /// Reports the stop to the manager, and asks it to wait as long as the user allowed: its own
    /// timeout may be shorter (systemd.service(5), TimeoutStopSec=). Where the user gave no grace
    /// period, the manager's timeout stays in force. The status is the log line of the same step;
    /// without one, the present wait.
    pub(super) fn notify_stopping(&mut self, line: Option<String>) {
        let now = self.now;
        let left = self
            .machine
            .over_at()
            .map_or(A_YEAR, |over| over.saturating_duration_since(now) + MARGIN);
        let extend = if self.config.policy.grace_is_default {
            String::new()
        } else {
            format!("EXTEND_TIMEOUT_USEC={}\n", left.as_micros())
        };
        let (waiting, next) = (self.machine.waiting(), self.machine.next_signal());
        let status = line.unwrap_or_else(|| self.history.status(now, waiting, next));
        if let Some(relay) = &mut self.relay {
            relay.notify(&format!("STOPPING=1\n{extend}STATUS={status}"));
        }
    }

    /// Logs a refusal once for each process, and once more for SIGKILL, for at most [`REFUSALS`] in
    /// all: a fork bomb of another user must not fill the log or the memory.
    pub(super) fn log_refusal(&mut self, process: &Process, signal: Signal, error: &io::Error) {
        let (pid, kills) = (process.pid, signal == Signal::KILL);
        if self.refused.contains(&(pid, kills)) {
            return;
        }
        if self.refused.len() == REFUSALS {
            self.refused_more += 1;
            return;
        }
        self.refused.push((pid, kills));
        let name = if pid == self.child.pid() {
            self.history.child()
        } else {
            format!(
                "'{}' (pid {pid}, state {})",
                escape(&process.name),
                process.state
            )
        };
        let (level, message) = match self.machine.phase() {
            _ if kills => (Level::Error, format!("cannot kill {name}: {error}")),
            Phase::Running => (
                Level::Warn,
                format!("cannot send {signal} to {name}: {error}"),
            ),
            _ => (
                Level::Warn,
                format!("cannot send {signal} to {name}: {error}; the grace period runs on"),
            ),
        };
        event!(level, "signal_refused", signal = signal.to_string(), target_pid = pid, error = error.to_string();
            "{message}");
    }
}
