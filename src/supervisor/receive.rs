//! Signals that bowout has received: their sender and its side, for the machine and for the log.

use log::{Level, log_enabled};

use super::Supervisor;
use crate::policy::{Cause, Event, Received};
use crate::sender::{NamedSender, Sender, Side};
use crate::signal::Signal;
use crate::sys::kernel::Kernel;
use crate::sys::signals::Intaken;
use crate::sys::tty::{self, Terminal};

impl<K: Kernel> Supervisor<'_, K> {
    /// Steps the signals that were read at one moment. `group`: the child was started by then, and
    /// has received a signal to a group that it shares with bowout.
    pub(super) fn signals(&mut self, signals: &[Intaken], group: bool) {
        if signals.is_empty() {
            return;
        }
        let read = self.now;
        for intaken in signals {
            self.signal(*intaken, group);
        }
        self.machine.acted(read, self.tree.kernel.clock());
    }

    /// The signal for the machine. The sender was not looked for in the tree.
    pub(super) fn received(
        &self,
        Intaken {
            signal,
            sender,
            value,
        }: Intaken,
    ) -> Received {
        let (side, shared_group) = (self.kin.side(sender), false);
        Received {
            signal,
            side,
            value,
            shared_group,
        }
    }

    fn signal(&mut self, mut intaken: Intaken, group: bool) {
        let pid = intaken.sender.pid;
        // When a terminal hangs up, the kernel sends SIGHUP to the session leader alone
        // (drivers/tty/tty_jobctrl.c), and a shell sends it on to its jobs, each as a group: the
        // terminal is the origin of that one, too.
        intaken.sender.kernel |= intaken.signal == Signal::HUP
            && pid == tty::session_leader()
            && self.terminal.as_ref().is_some_and(Terminal::is_hung_up);
        let mut received = self.received(intaken);
        if received.side == Side::Process
            && self.machine.weighs_side(received)
            && self.tree.contains(pid)
        {
            received.side = Side::Tree;
        }
        // After the child exits, its descendants may still share bowout's group and receive the
        // signals of the terminal directly.
        received.shared_group = group
            && self.terminal.is_some()
            && match (received.side, self.tree.child_group()) {
                (Side::Terminal | Side::Tree, Some(group)) => group == tty::own_group(),
                (Side::Terminal, None) => true,
                (_, _) => false,
            };
        self.step(Event::Signal(received), Some(intaken.sender));
    }

    /// With `--parent-death-signal`: acts on the signal once the parent has exited, as if the
    /// parent had sent it. Closes the parent's descriptor, which stays readable.
    pub(super) fn parent_exit(&mut self) {
        let Some(parent) = self.parent.take_if(|parent| parent.has_exited()) else {
            return;
        };
        // Another process may get the number.
        self.kin.parent = 0;
        let (signal, side) = (parent.signal, Side::Parent);
        let received = Received {
            signal,
            side,
            value: None,
            shared_group: false,
        };
        let sender = Sender {
            kernel: false,
            pid: parent.pid,
            uid: 0,
            exited: true,
        };
        let read = self.now;
        self.step(Event::Signal(received), Some(sender));
        self.machine.acted(read, self.tree.kernel.clock());
    }

    /// With `--stop-on-eof`: stops the command once its input has ended.
    pub(super) fn end_of_input(&mut self) {
        let now = self.now;
        if self.stdin.take_if(|stdin| stdin.has_ended(now)).is_some() {
            self.step(Event::Stop(Cause::Eof), None);
        }
    }

    /// The sender of a signal, with its name from /proc: read after the signal was forwarded, and
    /// only for the log, or, of a stop request, for the report. A side that did not change the
    /// actions is settled here.
    pub(super) fn named_sender(
        &mut self,
        event: Event,
        sender: Option<Sender>,
    ) -> Option<NamedSender> {
        let (Event::Signal(received), Some(sender)) = (event, sender) else {
            return None;
        };
        let mut side = received.side;
        let request = self.machine.is_stop_request(received);
        let read = (request || log_enabled!(Level::Info))
            && !sender.exited
            && !matches!(side, Side::Terminal | Side::Outside);
        let process = if read {
            self.tree.kernel.stat(sender.pid)
        } else {
            None
        };
        if read && side == Side::Process && self.tree.contains(sender.pid) {
            side = Side::Tree;
            if request {
                self.machine.settle_side(side);
            }
        }
        Some(NamedSender {
            side,
            sender,
            name: process.map(|process| process.name),
        })
    }
}
