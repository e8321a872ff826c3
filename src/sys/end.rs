//! The last instructions: bowout ends as the child ended.

use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};

use super::signals::{self, set_disposition};
use super::this_process;
use crate::exit::Exit;
use crate::signal::SignalSet;

/// Exits, or dies of the signal. As PID 1, which cannot die of a signal that it sends itself
/// (contract C1), a death ends in the number instead.
pub(crate) fn end(exit: Exit) -> ! {
    if let Exit::Signal(signal) = exit {
        // One core is enough: the child's. The limit stops a core file, the other one a core pipe
        // (core(5)). Where either fails, there is a second core and no other harm.
        let _ = prctl::set_dumpable(false);
        let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
        if !this_process::is_pid1() {
            // Does nothing for the signals that signal-hook has no default action for (real-time
            // ones, SIGPWR, SIGSTKFLT), or takes to be ignored by default (SIGIO); what follows
            // does those.
            let _ = signal_hook::low_level::emulate_default_handler(signal.number());
        }
        set_disposition(signal, libc::SIG_DFL);
        let _ = signals::send(this_process::id(), signal, None);
        signals::set_mask(SignalSet::ALL.without(signal));
    }
    // SAFETY: ends the process without running anything; there is nothing to flush, for stderr is
    // not buffered.
    unsafe { libc::_exit(i32::from(exit.number())) }
}
