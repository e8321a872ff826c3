//! The parts of sentences that the log, the last line and the manager's status share: the child,
//! the receivers of a signal, the next signal, the reason for the stop and the reason for SIGKILL.

use std::time::Instant;

use super::phrases::{descendants, duration, names, next_signal, signal_from, state};
use super::{History, Note, Sent};
use crate::log::escape;
use crate::policy::{Cause, Fact, Outcome, Waiting};
use crate::process::NamedProcess;
use crate::signal::{Signal, Target};

impl History {
    /// The child, as every line names it: `'nginx' (pid 7)`, or `'setpriv' (pid 7, now 'nginx')`.
    pub(crate) fn child(&self) -> String {
        self.child_with("")
    }

    /// The child, with more about it: its present name, where that is not the one that the command
    /// gave it, and `state`.
    fn child_with(&self, state: &str) -> String {
        let (command, pid) = (self.command_name(), self.pid);
        let now = self.child_name.as_deref();
        let now = now.map_or(String::new(), |now| format!(", now '{}'", escape(now)));
        format!("{command} (pid {pid}{now}{state})")
    }

    pub(super) fn command_name(&self) -> String {
        let command = self.command.first().map_or("", String::as_str);
        format!("'{}'", escape(command))
    }

    /// A hook, as every line names it.
    pub(crate) fn hook(&self, hook: usize) -> String {
        let hook = self.hooks.get(hook).map_or("", String::as_str);
        format!("'{}'", escape(hook))
    }

    /// How many processes besides the child a signal was for.
    pub(super) fn others(&self, sent: &Sent) -> usize {
        let with_child = matches!(sent.to, Target::All | Target::Child | Target::Group);
        let child = self.ended.is_none() && with_child;
        (sent.reached + sent.refused).saturating_sub(usize::from(child))
    }

    /// The processes that a signal was for.
    pub(super) fn target(&self, sent: &Sent) -> String {
        let count = self.others(sent);
        let named = sent.processes.iter().filter(|it| it.pid != self.pid);
        let others = || descendants(count) + &names(count, named);
        match sent.to {
            Target::All if self.ended.is_some() => others(),
            Target::All if count > 0 => {
                format!("{} and {}", self.child_in_state(sent), others())
            }
            Target::Group => format!("the process group of {}", self.child()),
            Target::All | Target::Child => self.child_in_state(sent),
            Target::Others | Target::Unasked | Target::NewChildren => others(),
        }
    }

    /// The child, with its state where that is another than S, sleeping: R uses a CPU, T is
    /// stopped, D waits in the kernel.
    fn child_in_state(&self, sent: &Sent) -> String {
        let is_child = |it: &&NamedProcess| it.pid == self.pid && it.state != 'S';
        let child = sent.processes.iter().find(is_child);
        self.child_with(&child.map_or(String::new(), state))
    }

    /// The signals that were sent, and to which processes.
    pub(super) fn sent(&self, note: &Note<'_>) -> Option<String> {
        let failed = note.sent().next()?.reached == 0;
        let each = note.sent().map(|sent| {
            let how = match (sent.reached, sent.refused) {
                // All have exited since the last look, or a hook alone is left.
                (0, 0) if self.ended.is_some() => {
                    return format!("{} reached no process", sent.signal);
                }
                (0, _) => " could not be sent",
                _ => "",
            };
            format!("{}{how} to {}", sent.signal, self.target(sent))
        });
        let text = each.collect::<Vec<_>>().join(" and ");
        Some(if failed { text } else { format!("sent {text}") })
    }

    /// The steps before the stop signal, and `next`.
    pub(super) fn preparing(&self, waiting: Waiting, next: &str) -> String {
        let (mut delay, mut until) = (self.settings.stop_delay, "it is sent");
        if self.is_by(Cause::Eof) && delay < self.settings.own_exit() {
            (delay, until) = (self.settings.own_exit(), "the stop signal is sent");
        }
        let wait = duration(delay);
        if waiting != (Waiting::Preparation { hooks: true }) {
            format!("waiting for {wait} before {until}, {next}")
        } else if self.is_by(Cause::Watchdog) {
            format!("running pre-kill hooks, then sending SIGABRT, {next}")
        } else if delay.is_zero() {
            format!("running pre-stop hooks, {next}")
        } else {
            format!("running pre-stop hooks, then waiting for {wait}, {next}")
        }
    }

    /// The text that the service manager shows during the stop, until `next`.
    pub(crate) fn status(
        &self,
        now: Instant,
        waiting: Waiting,
        next: Option<(Signal, Instant)>,
    ) -> String {
        let (child, next) = (self.child(), next_signal(now, next));
        match waiting {
            Waiting::Preparation { .. } => {
                let preparing = self.preparing(waiting, &next);
                format!("{child} is to be stopped: {preparing}")
            }
            Waiting::Descendants => {
                format!("waiting for the descendants of {child} to exit, {next}")
            }
            Waiting::Child => format!("waiting for {child} to exit, {next}"),
            Waiting::Kill => format!("{child} is being killed"),
        }
    }

    /// Why SIGKILL was sent, for programs and for people.
    pub(super) fn reason_to_kill(&self, note: &Note<'_>) -> (&'static str, String) {
        let late = self.stop.as_ref().is_none_or(|stop| stop.late);
        let why = self.why().filter(|_| !late);
        let after = why.as_deref().unwrap_or("its exit");
        let asked = |signal| signal_from(signal, note.from.as_ref());
        match note.fact {
            Fact::Signal { received, .. } if received.signal == Signal::KILL => {
                ("parent_exit", asked(received.signal))
            }
            Fact::Signal {
                outcome: Outcome::Began(Waiting::Kill),
                ..
            } => {
                let text = format!("the grace period is 0 and {after} was received");
                ("grace_0", text)
            }
            Fact::Signal { received, .. } => {
                let text = format!("{} was a second stop request", asked(received.signal));
                ("second_request", text)
            }
            _ if self.settings.ladder.rungs() > 0 => {
                let grace = self.grace(note.now);
                (
                    "grace_over",
                    format!("{grace} grace period expired after {after}"),
                )
            }
            _ => {
                let and = why.map_or(String::new(), |why| format!(" and {why}"));
                ("grace_0", format!("the grace period is 0{and}"))
            }
        }
    }

    /// How long the grace period was; the child may have had it extended.
    pub(super) fn grace(&self, now: Instant) -> String {
        let given = self.settings.ladder.total(0).unwrap_or_default();
        duration(
            self.stop
                .as_ref()
                .filter(|_| self.extended)
                .map_or(given, |stop| now - stop.at),
        )
    }

    /// The time limit whose end is this cause; 0 for the other causes.
    pub(super) fn limit(&self, cause: Cause) -> String {
        let limit = match cause {
            Cause::RunTime => self.settings.max_runtime,
            Cause::NotReady => self.settings.ready_timeout,
            Cause::Watchdog => self.settings.watchdog,
            _ => None,
        };
        duration(limit.unwrap_or_default())
    }

    /// Why the stop began: `SIGTERM from outside`.
    pub(super) fn why(&self) -> Option<String> {
        let stop = self.stop.as_ref()?;
        let limit = self.limit(stop.cause);
        Some(match stop.cause {
            Cause::Signal(signal) => signal_from(signal, stop.by.as_ref()),
            Cause::RunTime => format!("the run time of {limit} was over"),
            Cause::Eof => "the end of its input".into(),
            Cause::SupervisorKilled => "bowout was killed".into(),
            Cause::GuardKilled => "bowout's guard was killed".into(),
            Cause::Replaced => "a new instance was ready".into(),
            Cause::NotReady => format!("it was not ready within {limit}"),
            Cause::Watchdog => format!("the watchdog of {limit} expired"),
        })
    }
}
