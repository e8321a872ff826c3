//! The place: the facts about the surroundings that the policy needs.

use std::ffi::OsStr;

use crate::config::Notify;
use crate::error::Error;
use crate::policy::Place;
use crate::signal::{Signal, SignalSet};
use crate::sys::notify::Relay;
use crate::sys::signals::Inherited;
use crate::sys::this_process::Parent;
use crate::sys::tty::{self, Terminal};
use crate::sys::{environment, this_process};

/// The place, for `--explain`, which opens no relay.
#[cold]
pub(crate) fn look_around(notify: Notify, inherited: &Inherited) -> Place {
    let announces = notify != Notify::Off && manager().is_some();
    place(Terminal::open().is_some(), announces, inherited)
}

/// The place of a supervision with this relay.
pub(super) fn with_relay(terminal: bool, relay: Option<&Relay>, inherited: &Inherited) -> Place {
    place(terminal, relay.is_some_and(Relay::can_notify), inherited)
}

/// The address of a service manager's socket (sd_notify(3)).
pub(super) fn manager() -> Option<&'static OsStr> {
    environment::value("NOTIFY_SOCKET").filter(|address| !address.is_empty())
}

fn place(terminal: bool, announces: bool, inherited: &Inherited) -> Place {
    let pid1 = this_process::is_pid1();
    Place {
        // A signal that is ignored at the start stays ignored (nohup(1)). No process could have
        // meant that for PID 1.
        ignored: if pid1 {
            SignalSet::default()
        } else {
            inherited.ignored
        },
        job_control: terminal,
        stdout_is_terminal: terminal && tty::is_controlling(&std::io::stdout()),
        announces,
        leader: terminal && tty::leads_session(),
        pid1,
    }
}

/// Watches the parent for `--parent-death-signal`.
///
/// # Errors
/// As [`Parent::watch`] (125).
pub(super) fn watch_parent(signal: Option<Signal>) -> Result<Option<Parent>, Error> {
    let Some(signal) = signal else {
        return Ok(None);
    };
    let what = || format!("cannot ask for {signal} at the parent's death");
    Parent::watch(this_process::parent(), signal)
        .map_err(|error| Error::own(format!("{}: {error}", what())))
}
