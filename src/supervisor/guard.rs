//! `--guard` and `--replace-on`: the guard, and the supervisor's answers to it. See `part`.

use std::os::fd::AsFd;

use log::Level;

use super::Supervisor;
use super::part::{FromGuard, Instance, Part, Sent, Turn};
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
    /// As the supervisor: stops the command if the guard was killed, or if another instance takes
    /// its place.
    pub(super) fn obey_guard(&mut self) {
        match self.part.message_of_guard() {
            FromGuard::Nothing => {}
            FromGuard::Retire => {
                if let Some(relay) = &mut self.relay {
                    relay.leave_manager();
                }
                // The file belongs to the other instance now.
                self.ready_file_is_made = false;
                self.step(Event::Stop(Cause::Replaced), None);
            }
            FromGuard::Killed => {
                self.part = Part::Whole;
                self.step(Event::Stop(Cause::GuardKilled), None);
            }
        }
    }

    /// One turn of the guard.
    #[cold]
    pub(super) fn guard_turn(&mut self) -> Turn {
        let mut readable = vec![self.intake.as_fd()];
        readable.extend(self.relay.iter().flat_map(Relay::readable));
        let awaited = self.replacing.next.as_ref().filter(|next| !next.serves);
        readable.extend(awaited.map(|next| next.link.as_fd()));
        let deadline = awaited.and_then(|next| next.until);
        let writable = self.relay.as_ref().and_then(Relay::writable);
        self.tree.kernel.wait(deadline, &readable, writable);
        let batch = self.tree.kernel.signals(&self.intake);
        self.now = self.tree.kernel.clock();
        for received in &batch.signals {
            if self.config.replace_on == Some(received.signal) && !received.sender.kernel {
                if let Some(part) = self.replace(received.signal) {
                    return Turn::Instance(part);
                }
            } else {
                self.forward(received);
            }
        }
        if let Some(relay) = &mut self.relay {
            // The supervisor has granted the child's requests.
            let _ = relay.turn();
            self.dropped.log(relay, self.now, false);
        }
        self.hand_over();
        if batch.children {
            self.look_at_supervisors()
        } else {
            Turn::GoOn
        }
    }

    pub(super) fn supervisors(&self) -> impl Iterator<Item = i32> {
        let next = self.replacing.next.as_ref().map(|next| next.supervisor);
        [Some(self.child.pid()), next].into_iter().flatten()
    }

    /// Forwards a signal to the supervisor, or to both, unless the terminal has sent it to the
    /// whole group.
    #[cold]
    fn forward(&mut self, received: &Intaken) {
        let signal = received.signal;
        let to_leader = signal == Signal::HUP && tty::leads_session();
        let to_group = signal.is_terminals() && !to_leader;
        if self.terminal.is_some() && received.sender.kernel && to_group {
            return;
        }
        self.replacing.is_stopping |= self.machine.is_stop_request(self.received(*received));
        for supervisor in self.supervisors() {
            // A filter may refuse rt_sigqueueinfo(2); the sender is then the guard.
            let forwarded = signals::forward(supervisor, received)
                .or_else(|_| signals::send(supervisor, signal, received.value));
            if let Err(error) = forwarded {
                event!(Level::Warn, "signal_refused", signal = signal.to_string(), error = error.to_string();
                    "the guard cannot forward {signal} to bowout (pid {supervisor}): {error}");
            }
        }
        if self.terminal.is_none() && self.tree.child_is_stopped() {
            // No shell continues it, and it acts on the signal only once it runs.
            let _ = signals::send(self.child.pid(), Signal::CONT, None);
        }
    }

    #[cold]
    fn look_at_supervisors(&mut self) -> Turn {
        loop {
            match self.tree.peek() {
                Report::Exited(ended) if self.tree.is_child(ended.pid) => {
                    if let Some(exit) = self.supervisor_exited(ended) {
                        return Turn::Exit(exit);
                    }
                    if let Part::Whole = self.part {
                        return Turn::GoOn;
                    }
                }
                Report::Exited(ended) if self.supervisors().any(|pid| pid == ended.pid) => {
                    self.next_exited(ended);
                }
                // The orphan of a bystander.
                Report::Exited(ended) => _ = self.tree.reap(ended.pid),
                Report::Released => {}
                Report::Nothing | Report::Stopped(_) | Report::Continued => break,
                Report::NoChild => {
                    return Turn::Exit(self.replacing.outcome.unwrap_or(Exit::OWN_FAILURE));
                }
            }
        }
        if self.replacing.strays {
            self.kill_strays();
        }
        if let Report::Stopped(signal) = self.tree.look(Ask::Change) {
            self.stop_with_supervisor(signal);
        }
        Turn::GoOn
    }

    /// Stops as the supervisor was stopped, for a shell that waits for the guard.
    #[cold]
    fn stop_with_supervisor(&self, mut signal: Signal) {
        let Some(terminal) = self.terminal.as_ref().filter(|_| tty::is_watched()) else {
            return;
        };
        let was_continued = || matches!(self.tree.look(Ask::Continued), Report::Continued);
        while terminal.suspend(signal, None, was_continued) {
            match self.tree.look(Ask::Change) {
                // The user's next Ctrl-Z was faster than this process.
                Report::Stopped(again) => signal = again,
                // SIGCONT was for the guard alone. A supervisor that has exited needs none.
                Report::Nothing if self.tree.child_is_stopped() => {
                    let _ = signals::send(self.child.pid(), Signal::CONT, None);
                    return;
                }
                _ => return,
            }
        }
    }

    /// The supervisor has exited by itself, or was killed. Returns how bowout exits, if it does.
    #[cold]
    fn supervisor_exited(&mut self, ended: Ended) -> Option<Exit> {
        let Part::Guard(instance) = &mut self.part else {
            return None;
        };
        let exit = instance.exit(ended.exit);
        let sent = instance.sent;
        match (exit, self.replacing.next.take()) {
            (_, Some(next)) if next.serves => {
                self.replacing.strays |= exit.is_none();
                self.tree.reap(ended.pid);
                self.supervise_only(next);
                return None;
            }
            (None, _) => {
                // A second instance is a member of the tree that is stopped.
                self.take_over(ended.pid, sent);
                return None;
            }
            (Some(exit), Some(next)) => {
                // bowout exits as the first one did, once the second one was stopped.
                self.tree.reap(ended.pid);
                self.replacing.outcome.get_or_insert(exit);
                let _ = signals::send(next.supervisor, Signal::TERM, None);
                self.supervise_only(next);
                return None;
            }
            (Some(_), None) => _ = self.tree.reap(ended.pid),
        }
        if let Some(relay) = &mut self.relay {
            relay.finish();
            self.dropped.log(relay, self.now, true);
        }
        self.replacing.outcome.or(exit)
    }

    /// From now on, this is the supervisor.
    #[cold]
    fn supervise_only(&mut self, instance: Instance) {
        let pid = instance.supervisor;
        self.tree.adopt(pid, true);
        self.child = Child::adopted(pid);
        self.kin.child = pid;
        self.part = Part::Guard(instance);
    }

    /// Supervises in the place of the supervisor that was killed. A child that the supervisor had
    /// started and not reaped is the guard's own by now; otherwise its descendants are.
    #[cold]
    fn take_over(&mut self, supervisor: i32, sent: Sent) {
        self.part = Part::Whole;
        self.ready_file_is_made = sent.is_ready;
        // Other processes may have exited before they became the guard's children.
        self.more = true;
        // The number of a child that has exited may be another process's by now.
        let exited = sent.ended.is_some();
        let is_ours = |pid: &i32| self.tree.kernel.look(Some(*pid), Ask::Exit) != Report::NoChild;
        if let Some(pid) = sent.child.filter(|pid| exited || is_ours(pid)) {
            self.tree.reap(supervisor);
            self.child = Child::adopted(pid);
            self.kin.child = pid;
            self.history.child_is(pid);
            if !exited {
                self.tree.adopt(pid, self.terminal.is_none());
            }
        }
        if let Some(exit) = sent.ended {
            event!(Level::Warn, "supervisor_killed"; "bowout (pid {supervisor}) was killed; its guard stops the remaining processes");
            self.step(Event::ChildExited(exit), None);
        } else {
            self.step(Event::Stop(Cause::SupervisorKilled), None);
        }
    }
}
