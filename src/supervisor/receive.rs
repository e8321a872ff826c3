//! Signals that bowout has received: their sender and its side, for the machine and for the log.

use ::log::{Level, log_enabled};

use super::{Supervisor, clock};
use crate::policy::{Event, Received};
use crate::report::Who;
use crate::sender::{Sender, Side};
use crate::signal::Signal;
use crate::sys::signals::Intaken;
use crate::sys::tree;
use crate::sys::tty::{self, Terminal};

impl Supervisor<'_> {
    /// Steps the signals that were read at one moment. `group`: the child was there by then, and
    /// has what was sent to a group that it shares with us.
    pub(super) fn signals(&mut self, signals: Vec<Intaken>, group: bool) {
        if signals.is_empty() {
            return;
        }
        let read = self.now;
        for intaken in signals {
            self.signal(intaken, group);
        }
        self.machine.acted(read, clock());
    }

    fn signal(&mut self, intaken: Intaken, group: bool) {
        let Intaken {
            signal,
            mut sender,
            value,
        } = intaken;
        // When a terminal hangs up, the kernel sends SIGHUP to the session leader alone
        // (drivers/tty/tty_jobctrl.c), and a shell sends it on to its jobs, each as a group: the
        // terminal is the origin of that one, too.
        sender.kernel |= signal == Signal::HUP
            && sender.pid == tty::session_leader()
            && self.terminal.as_ref().is_some_and(Terminal::is_hung_up);
        let weighs = self.machine.weighs_side(signal);
        let side = self.kin.side(sender, |pid| weighs && tree::descends(pid));
        // After the child exits, its descendants may still share our group and get the signals of
        // the terminal directly.
        let shared_group = group
            && self.terminal.is_some()
            && match (side, self.child.group()) {
                (Side::Terminal | Side::Tree, Some(group)) => group == tty::own_group(),
                (Side::Terminal, None) => true,
                (_, _) => false,
            };
        self.step(
            Event::Signal(Received {
                signal,
                side,
                value,
                shared_group,
            }),
            Some(sender),
        );
    }

    /// With `--parent-death-signal`: acts on the signal once the parent has exited, as if the
    /// parent had sent it. Its descriptor stays readable, and is closed.
    pub(super) fn parent_exit(&mut self) {
        let Some(parent) = self.parent.take_if(|parent| parent.has_exited()) else {
            return;
        };
        // Another process may get the number.
        self.kin.parent = 0;
        let received = Received {
            signal: parent.signal,
            side: Side::Parent,
            value: None,
            shared_group: false,
        };
        let read = self.now;
        self.step(
            Event::Signal(received),
            Some(Sender {
                kernel: false,
                pid: parent.pid,
                uid: 0,
                exited: true,
            }),
        );
        self.machine.acted(read, clock());
    }

    /// The sender of a signal. Its name is read from /proc after the signal was forwarded, and only
    /// for the log, or, of a stop request, for the report.
    pub(super) fn who(&self, event: Event, sender: Option<Sender>) -> Option<Who> {
        let (Event::Signal(received), Some(sender)) = (event, sender) else {
            return None;
        };
        let read = log_enabled!(Level::Info) || self.machine.is_stop_request(received);
        let named =
            read && !sender.exited && !matches!(received.side, Side::Terminal | Side::Outside);
        let name = if named {
            tree::Process::read(sender.pid).map(|process| process.name)
        } else {
            None
        };
        // Where the side changes nothing, it was not looked up before the signal was forwarded.
        let descends = named && received.side == Side::Process && tree::descends(sender.pid);
        Some(Who {
            side: if descends { Side::Tree } else { received.side },
            sender,
            name,
        })
    }
}
