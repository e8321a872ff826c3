//! `--guard`: what the guard does, and what the supervisor below it does for it. See `part`.

use std::os::fd::AsFd;

use log::Level;

use super::{Part, Supervisor};
use crate::exit::Exit;
use crate::log::event;
use crate::policy::{Cause, Event};
use crate::signal::Signal;
use crate::sys::child::Child;
use crate::sys::kernel::Kernel;
use crate::sys::notify::Relay;
use crate::sys::signals::{self, Intaken};
use crate::sys::tty;
use crate::sys::waitid::{Ask, Ended, Report};

impl<K: Kernel> Supervisor<'_, K> {
    /// Stops the command if the guard was killed.
    pub(super) fn guard_exit(&mut self) {
        if self.part.has_lost_its_guard() {
            self.part = Part::Whole;
            self.step(Event::Stop(Cause::GuardKilled), None);
        }
    }

    /// One turn of the guard. Returns how bowout exits, once the supervisor has said so.
    pub(super) fn guard_turn(&mut self) -> Option<Exit> {
        let mut readable = vec![self.intake.as_fd()];
        readable.extend(self.relay.iter().flat_map(Relay::readable));
        let writable = self.relay.as_ref().and_then(Relay::writable);
        self.tree.kernel.wait(None, &readable, writable);
        let batch = self.tree.kernel.signals(&self.intake);
        self.now = self.tree.kernel.clock();
        for received in &batch.signals {
            self.forward(received);
        }
        if let Some(relay) = &mut self.relay {
            // The supervisor has granted what the child asks for.
            let _ = relay.turn();
            self.dropped.log(relay, self.now, false);
        }
        if batch.children {
            self.look_at_supervisor()
        } else {
            None
        }
    }

    /// Forwards a signal to the supervisor, unless the terminal has sent it to the whole group.
    fn forward(&self, received: &Intaken) {
        let signal = received.signal;
        let to_leader = signal == Signal::HUP && tty::leads_session();
        let to_group = signal.is_terminals() && !to_leader;
        if self.terminal.is_some() && received.sender.kernel && to_group {
            return;
        }
        let supervisor = self.child.pid();
        // A filter may refuse rt_sigqueueinfo(2); the sender is then the guard.
        let forwarded = signals::forward(supervisor, received)
            .or_else(|_| signals::send(supervisor, signal, received.value));
        if let Err(error) = forwarded {
            event!(Level::Warn, "signal_refused", signal = signal.to_string(), error = error.to_string();
                "the guard cannot forward {signal} to bowout (pid {supervisor}): {error}");
        }
        if self.terminal.is_none() && self.tree.child_is_stopped() {
            // No shell continues it, and it acts on the signal only once it runs.
            let _ = signals::send(supervisor, Signal::CONT, None);
        }
    }

    fn look_at_supervisor(&mut self) -> Option<Exit> {
        loop {
            match self.tree.peek() {
                Report::Exited(ended) if self.tree.is_child(ended.pid) => {
                    return self.supervisor_exited(ended);
                }
                // The orphan of a bystander.
                Report::Exited(ended) => _ = self.tree.reap(ended.pid),
                Report::Released => {}
                Report::Nothing | Report::Stopped(_) | Report::Continued => break,
                Report::NoChild => return Some(Exit::OWN_FAILURE),
            }
        }
        if let Report::Stopped(signal) = self.tree.look(Ask::Change) {
            self.stop_with_supervisor(signal);
        }
        None
    }

    /// Stops as the supervisor was stopped, for a shell that waits for the guard.
    fn stop_with_supervisor(&self, signal: Signal) {
        let Some(terminal) = self.terminal.as_ref().filter(|_| tty::is_watched()) else {
            return;
        };
        let was_continued = || matches!(self.tree.look(Ask::Continued), Report::Continued);
        if terminal.suspend(signal, None, was_continued) && self.tree.child_is_stopped() {
            // SIGCONT was for the guard alone. A supervisor that has exited needs none.
            let _ = signals::send(self.child.pid(), Signal::CONT, None);
        }
    }

    /// The supervisor has exited: as it said, or because it was killed.
    fn supervisor_exited(&mut self, ended: Ended) -> Option<Exit> {
        let (child, said) = self.part.received();
        let exit = match (said, ended.exit) {
            (Some(exit), _) | (None, exit @ Exit::Code(_)) => exit,
            (None, Exit::Signal(_)) => {
                self.take_over(ended.pid, child);
                return None;
            }
        };
        self.tree.reap(ended.pid);
        if let Some(relay) = &mut self.relay {
            relay.finish();
            self.dropped.log(relay, self.now, true);
        }
        Some(exit)
    }

    /// Supervises in the place of the supervisor that was killed. The child, if that had started one
    /// and not reaped it, is the guard's own by now; otherwise its descendants are.
    fn take_over(&mut self, supervisor: i32, child: Option<i32>) {
        self.part = Part::Whole;
        let is_ours = |pid: &i32| self.tree.kernel.look(Some(*pid), Ask::Exit) != Report::NoChild;
        if let Some(pid) = child.filter(is_ours) {
            self.tree.reap(supervisor);
            self.tree.adopt(pid, self.terminal.is_none());
            self.child = Child::adopted(pid);
            self.kin.child = pid;
            self.history.child_is(pid);
        }
        // Others may have exited before they were the guard's.
        self.more = true;
        self.step(Event::Stop(Cause::SupervisorKilled), None);
    }
}
