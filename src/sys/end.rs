//! The last instructions: bowout ends as the child ended.

use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};

use super::signals::{self, disposition};
use super::this_process;
use crate::exit::Exit;
use crate::signal::SignalSet;

/// Exits, or dies of the signal. A PID 1 discards a signal that it sends itself
/// (pid_namespaces(7)), and exits with the number instead.
pub(crate) fn end(exit: Exit) -> ! {
    if let Exit::Signal(signal) = exit {
        // One core is enough: the child's. The limit prevents a core file, the other one a core
        // pipe (core(5)). If either fails, there is a second core and no other harm.
        let _ = prctl::set_dumpable(false);
        let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
        disposition(signal, Some(libc::SIG_DFL));
        if signals::send(this_process::id(), signal, None).is_err() {
            // SAFETY: a number only. If the kernel refuses tgkill(2) as well, only the number is
            // left.
            unsafe { libc::raise(signal.number()) };
        }
        signals::set_mask(SignalSet::ALL.without(signal));
    }
    // SAFETY: ends the process without running anything; stderr is not buffered.
    unsafe { libc::_exit(i32::from(exit.number())) }
}
