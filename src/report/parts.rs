//! The parts of sentences that the log, the last line and the manager's status share: the child, the
//! processes that a signal was sent to, and what follows.

use std::time::Instant;

use super::phrases::{descendants, duration, names, next_signal, state};
use super::{History, Note, Sent};
use crate::log::escape;
use crate::policy::{OnRepeat, Waiting};
use crate::signal::{Signal, Target};

impl History {
    /// The child, as every line names it: `'nginx' (pid 7)`, or `'setpriv' (pid 7, now 'nginx')`.
    pub(crate) fn child(&self) -> String {
        format!("{} (pid {}{})", self.command_name(), self.pid, self.now())
    }

    pub(super) fn command_name(&self) -> String {
        let command = self.command.first().map_or("", String::as_str);
        format!("'{}'", escape(command))
    }

    /// The child's present name, where it is not the one that the command gave it.
    fn now(&self) -> String {
        let name = self.child_name.as_deref();
        name.map_or(String::new(), |name| format!(", now '{}'", escape(name)))
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
        let others = self.others(sent);
        let named = sent.processes.iter().filter(|it| it.pid != self.pid);
        let others = || descendants(others) + &names(others, named);
        match sent.to {
            Target::All if self.ended.is_some() => others(),
            Target::All if self.others(sent) > 0 => {
                format!("{} and {}", self.child_in_state(sent), others())
            }
            Target::Group => format!("the process group of {}", self.child()),
            Target::All | Target::Child => self.child_in_state(sent),
            Target::Others | Target::Unasked | Target::NewChildren => others(),
        }
    }

    /// The child, with its state where that is another than S, sleeping: R uses a CPU, T is stopped,
    /// D waits in the kernel.
    fn child_in_state(&self, sent: &Sent) -> String {
        let child = sent.processes.iter().find(|it| it.pid == self.pid);
        match child.and_then(state) {
            Some(state) if state != "state S" => {
                let (name, pid, now) = (self.command_name(), self.pid, self.now());
                format!("{name} (pid {pid}{now}, {state})")
            }
            _ => self.child(),
        }
    }

    /// The signals that were sent, and to which processes.
    pub(super) fn sent(&self, note: &Note<'_>) -> Option<String> {
        let failed = note.sent().next()?.reached == 0;
        let each = note.sent().map(|sent| {
            let how = if sent.reached == 0 {
                " could not be sent"
            } else {
                ""
            };
            format!("{}{how} to {}", sent.signal, self.target(sent))
        });
        let text = each.collect::<Vec<_>>().join(" and ");
        Some(if failed { text } else { format!("sent {text}") })
    }

    /// The same. Where no signal was sent, the child received the stop signal from the terminal, or
    /// was sent it before.
    pub(super) fn sent_or_has(&self, note: &Note<'_>) -> String {
        let has = || format!("{} received the stop signal already", self.child());
        self.sent(note).unwrap_or_else(has)
    }

    /// What happens before the stop signal, and `next`.
    pub(super) fn preparing(&self, waiting: Waiting, next: &str) -> String {
        let delay = self.settings.stop_delay;
        let wait = duration(delay);
        match waiting {
            Waiting::Preparation { hooks: true } if delay.is_zero() => {
                format!("running pre-stop hooks, {next}")
            }
            Waiting::Preparation { hooks: true } => {
                format!("running pre-stop hooks, then waiting for {wait}, {next}")
            }
            _ => format!("waiting for {wait} before it is sent, {next}"),
        }
    }

    /// The answer to a key.
    pub(super) fn key_answer(&self, key: &str, next: &str) -> String {
        let again = match self.settings.on_repeat {
            OnRepeat::Kill => format!("; {key} again kills it at once"),
            OnRepeat::Forward | OnRepeat::Ignore => String::new(),
        };
        let descendants = match self.ended {
            Some(_) => "the descendants of ",
            None => "",
        };
        let child = self.child();
        format!("{key}: waiting for {descendants}{child} to exit, {next}{again}")
    }

    /// What the service manager shows while the stop is under way, until `next`.
    pub(crate) fn status(
        &self,
        now: Instant,
        waiting: Waiting,
        next: Option<(Signal, Instant)>,
    ) -> String {
        let (child, next) = (self.child(), next_signal(now, next));
        match waiting {
            Waiting::Preparation { .. } => {
                format!(
                    "{child} is to be stopped: {}",
                    self.preparing(waiting, &next)
                )
            }
            Waiting::Descendants => {
                format!("waiting for the descendants of {child} to exit, {next}")
            }
            Waiting::Child => format!("waiting for {child} to exit, {next}"),
            Waiting::Kill => format!("{child} is being killed"),
        }
    }
}
