//! The controlling terminal: whether there is one, which process group has it, and the job control
//! of the shell that started bowout.
//!
//! Limit: terminal modes are restored only after a child that died of a signal. One that exited
//! could restore them itself, and may exist to change them (stty(1)); shells do the same.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcgetsid, tcsetattr};
use nix::unistd::{Pid, getpgrp, getsid, tcgetpgrp, tcsetpgrp};

use super::proc::{self, Process};
use super::signals::{self, disposition, set_mask};
use super::this_process;
use crate::signal::{Signal, SignalSet};

/// The device number of /dev/tty, which is the controlling terminal of each process that opens it
/// (tty(4)).
const DEV_TTY: u64 = libc::makedev(5, 0);

/// The controlling terminal as found at the start.
#[derive(Debug)]
pub(crate) struct Terminal {
    fd: OwnedFd,
    /// Its modes, if bowout was in the foreground.
    modes: Option<Termios>,
}

impl Terminal {
    /// Opens the controlling terminal (tty(4)); `None` if there is none. If bowout cannot open
    /// /dev/tty, one of the standard descriptors may still be the terminal (tcgetsid(3)).
    pub(crate) fn open() -> Option<Self> {
        let fd = match open_tty() {
            Ok(fd) => fd,
            Err(Errno::ENXIO) => return None,
            Err(_) => standard_tty()?,
        };
        let ours = tcgetpgrp(&fd) == Ok(getpgrp());
        let modes = if ours { tcgetattr(&fd).ok() } else { None };
        Some(Self { fd, modes })
    }

    /// True if bowout can give the terminal to a child in `group` that stopped because it needs it:
    /// bowout is in the foreground and the child is not.
    pub(crate) fn can_lend(&self, group: Pid) -> bool {
        group != getpgrp() && tcgetpgrp(&self.fd) == Ok(getpgrp())
    }

    /// Makes `group` the foreground group (tcsetpgrp(3)). SIGTTOU is blocked, so that this works
    /// from the background as well. After an error, the child stops again.
    pub(crate) fn lend(&self, group: Pid) {
        let _ = tcsetpgrp(&self.fd, group);
    }

    /// Stops bowout by `signal`, as the child was stopped, until another process continues it.
    /// Returns whether bowout stopped at all: the kernel stops neither a member of an orphaned
    /// process group, which no shell could continue, nor PID 1 (setpgid(2)). If the child's `group`
    /// had the terminal, it gets it back afterwards.
    ///
    /// SIGCONT to the whole group can arrive first. A stop signal removes it from the queue
    /// (signal(7)), and bowout would stay stopped while the job continues. So `was_continued`,
    /// about the child, is asked after the signal was sent, while it is blocked. From then on a
    /// SIGCONT removes the signal from the queue.
    pub(crate) fn suspend(
        &self,
        signal: Signal,
        group: Option<Pid>,
        was_continued: impl FnOnce() -> bool,
    ) -> bool {
        // SIGSTOP would also stop a bowout that no process can continue.
        let signal = if signal == Signal::STOP {
            Signal::TSTP
        } else {
            signal
        };
        let held = tcgetpgrp(&self.fd)
            .ok()
            .filter(|holder| Some(*holder) == group && *holder != getpgrp());
        disposition(signal, Some(libc::SIG_DFL));
        // Sent while it is blocked: it and the same signal from the terminal make one stop.
        let _ = signals::send(this_process::id(), signal, None);
        if was_continued() {
            signals::take(signal);
            return true;
        }
        set_mask(SignalSet::ALL.without(signal));
        set_mask(SignalSet::ALL);
        if let Some(holder) = held.filter(|_| tcgetpgrp(&self.fd) == Ok(getpgrp())) {
            self.lend(holder);
        }
        // Only SIGCONT ends a stop, and it is still pending because it is blocked. It was meant for
        // this stop alone.
        signals::take(Signal::CONT)
    }

    /// True if the program on the terminal is at its prompt: a process of the tree is in the
    /// foreground and has set the terminal to non-canonical mode (termios(3)), as line editors do,
    /// or is in read(2) of it. The prompt of a shell that took the terminal back is not the tree's.
    /// A program between two reads is seen at the next look.
    pub(crate) fn is_at_prompt(&self, tree: &[Process]) -> bool {
        let Ok(holder) = tcgetpgrp(&self.fd) else {
            return false;
        };
        let raw =
            tcgetattr(&self.fd).is_ok_and(|modes| !modes.local_flags.contains(LocalFlags::ICANON));
        if raw && holder == getpgrp() {
            return true;
        }
        let mut device: libc::c_uint = 0;
        // SAFETY: TIOCGDEV writes one number to this address (drivers/tty/tty_io.c).
        let known =
            unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::TIOCGDEV, &raw mut device) } == 0;
        let is_it = |rdev: u64| rdev == DEV_TTY || known && rdev == u64::from(device);
        proc::any_thread(tree.iter().map(|process| process.pid), |pid, thread| {
            nix::unistd::getpgid(Some(Pid::from_raw(pid))) == Ok(holder)
                && (raw || proc::reads(pid, thread, is_it))
        })
    }

    /// True if the terminal hung up. An open descriptor of it fails with EIO before the session's
    /// leader gets SIGHUP (drivers/tty/tty_io.c, `__tty_hangup`). Some time later /dev/tty fails
    /// with ENXIO (tty(4)), as it also does after the leader gave the terminal up.
    pub(crate) fn is_hung_up(&self) -> bool {
        tcgetpgrp(&self.fd) == Err(Errno::EIO)
            || matches!(open_tty(), Err(Errno::ENXIO | Errno::EIO))
    }

    /// Restores the terminal: its `modes`, and the foreground group if the present one has no
    /// process left. Another group that has the terminal by now keeps it, and its modes.
    pub(crate) fn restore(&self, modes: bool) {
        let Ok(holder) = tcgetpgrp(&self.fd) else {
            return;
        };
        if holder != getpgrp() {
            if nix::sys::signal::killpg(holder, None) != Err(Errno::ESRCH) {
                return;
            }
            self.lend(getpgrp());
        }
        if let Some(found) = self.modes.as_ref().filter(|_| modes) {
            // Not TCSADRAIN, which waits for output that Ctrl-S can block for ever.
            let _ = tcsetattr(&self.fd, SetArg::TCSANOW, found);
        }
    }
}

impl AsFd for Terminal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn open_tty() -> Result<OwnedFd, Errno> {
    open(
        "/dev/tty",
        OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK,
        Mode::empty(),
    )
}

/// A copy of the standard descriptor that is the controlling terminal.
fn standard_tty() -> Option<OwnedFd> {
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let mut standard = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()].into_iter();
    standard.find(is_controlling)?.try_clone_to_owned().ok()
}

/// True if this is the controlling terminal of bowout's session (tcgetsid(3)). Both numbers are 0
/// if the session's leader is outside the PID namespace, as after `unshare -pf`.
pub(crate) fn is_controlling(fd: &impl AsFd) -> bool {
    tcgetsid(fd).is_ok_and(|session| session.as_raw() == session_leader())
}

/// True if a shell with job control may wait for bowout: the parent is in another process group of
/// the session (setpgid(2)). For a parent outside the PID namespace, number 0, the kernel answers
/// for bowout itself.
pub(crate) fn is_watched() -> bool {
    let parent = Some(Pid::from_raw(this_process::parent()));
    getsid(parent) == getsid(None)
        && nix::unistd::getpgid(parent).is_ok_and(|group| group != getpgrp())
}

/// The process that leads bowout's session; 0 if it is outside the PID namespace.
pub(crate) fn session_leader() -> i32 {
    getsid(None).map_or(0, Pid::as_raw)
}

/// bowout's process group.
pub(crate) fn own_group() -> Pid {
    getpgrp()
}

/// True if bowout leads its session, so that the kernel sends it SIGHUP when the terminal hangs up.
pub(crate) fn leads_session() -> bool {
    session_leader() == this_process::known_as()
}
