//! The terminal: whether there is one, and whether it is ours to lead.

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

/// Whether we have a controlling terminal, by opening it (tty(4)): ENXIO without one. Where there is no /dev/tty, one of the
/// standard descriptors may still be it (tcgetsid(3)).
pub(crate) fn is_controlled() -> bool {
    match open("/dev/tty", OFlag::O_RDONLY | OFlag::O_NOCTTY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK, Mode::empty()) {
        Ok(_) => true,
        Err(nix::errno::Errno::ENOENT) => {
            // SAFETY: tcgetsid and getsid take and return numbers.
            let ours = |fd| unsafe { libc::tcgetsid(fd) == libc::getsid(0) };
            (0..=2).any(ours)
        }
        Err(_) => false,
    }
}

/// Whether we lead our session, so that a hang-up of its terminal is sent to us.
pub(crate) fn leads_session() -> bool {
    nix::unistd::getsid(None) == Ok(nix::unistd::getpid())
}
