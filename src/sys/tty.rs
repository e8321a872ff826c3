//! The terminal: whether there is one, whose it is, and the job control of a shell that started us.
//!
//! Caveat: terminal modes are put back only behind a child that died of a signal. One that exited
//! has had its chance, and may have been there to change them (stty(1)); shells draw the same line.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcgetsid, tcsetattr};
use nix::unistd::{Pid, getpgrp, getsid, tcgetpgrp, tcsetpgrp};

use super::signals::{self, disposition, set_mask};
use super::this_process;
use super::tree;
use crate::signal::{Signal, SignalSet};

/// The device number of /dev/tty, which is the controlling terminal of each process that opens it
/// (tty(4)).
const DEV_TTY: u64 = libc::makedev(5, 0);

/// The controlling terminal as we found it.
#[derive(Debug)]
pub(crate) struct Terminal {
    fd: OwnedFd,
    /// Its modes, if we were in the foreground and it was ours to judge.
    modes: Option<Termios>,
}

impl Terminal {
    /// Opens the controlling terminal (tty(4)): nothing where there is none. Where there is no
    /// /dev/tty, or not for us, one of the standard descriptors may still be it (tcgetsid(3)).
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

    /// Whether a child in `group` was stopped for want of a terminal that is ours to lend: we are
    /// in the foreground and it is not.
    pub(crate) fn can_lend(&self, group: Pid) -> bool {
        group != getpgrp() && tcgetpgrp(&self.fd) == Ok(getpgrp())
    }

    /// Makes `group` the foreground group (tcsetpgrp(3)). SIGTTOU is blocked, so that this works
    /// from the background, too; what fails here shows in the child's next stop.
    pub(crate) fn lend(&self, group: Pid) {
        let _ = tcsetpgrp(&self.fd, group);
    }

    /// Stops us by `signal`, as the child was stopped, until somebody continues us; gives back
    /// whether we were stopped at all: the kernel does not stop a member of an orphaned process
    /// group, which no shell could wake, nor PID 1 (setpgid(2)). A child of ours that held the
    /// terminal in a group of its own gets it back with us.
    ///
    /// SIGCONT to the whole group may come first, and would be lost: a stop signal takes it out of
    /// the queue (signal(7)), and bowout would stay stopped when the job goes on. So whether the
    /// child `was_continued` is asked after the signal was sent, while it is blocked. From then on
    /// SIGCONT takes the signal out of the queue.
    pub(crate) fn suspend(
        &self,
        signal: Signal,
        group: Option<Pid>,
        was_continued: impl FnOnce() -> bool,
    ) -> bool {
        // SIGSTOP would stop us where nobody can wake us.
        let signal = if signal == Signal::STOP {
            Signal::TSTP
        } else {
            signal
        };
        let held = tcgetpgrp(&self.fd)
            .ok()
            .filter(|holder| Some(*holder) == group && *holder != getpgrp());
        disposition(signal, Some(libc::SIG_DFL));
        // Sent while it is blocked and joined by what the terminal may have sent meanwhile: one
        // stop, however many asked.
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
        // Only SIGCONT ends a stop, and it is blocked, so that it is still there. It was for this
        // stop and has no further meaning.
        signals::take(Signal::CONT)
    }

    /// Whether the program on the terminal is at its prompt: a process of the tree has the
    /// foreground, and has put the terminal in non-canonical mode (termios(3)), as line editors do,
    /// or waits in read(2) of it. At the prompt of a shell that has taken the terminal back, ours
    /// is not. A program that is between two reads at this moment is seen at the next look.
    pub(crate) fn is_at_prompt(&self, child: Option<libc::pid_t>) -> bool {
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
        tree::any_thread(child, |pid, thread| {
            nix::unistd::getpgid(Some(Pid::from_raw(pid))) == Ok(holder)
                && (raw || tree::reads(pid, thread, is_it))
        })
    }

    /// Whether it is gone: what is open of it answers EIO, before the session's leader is told
    /// (drivers/tty/tty_io.c, `__tty_hangup`), and /dev/tty, some time after that, no longer leads
    /// anywhere (ENXIO, tty(4)), which it does as well once the leader has given it up.
    pub(crate) fn is_hung_up(&self) -> bool {
        tcgetpgrp(&self.fd) == Err(Errno::EIO)
            || matches!(open_tty(), Err(Errno::ENXIO | Errno::EIO))
    }

    /// Leaves the terminal as it was found: its modes, behind a child that had no chance to do so,
    /// and the foreground group, if the one that has it is no more. Where another group has it by
    /// now, it is theirs.
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
            // Not TCSADRAIN, which waits for output that Ctrl-S may hold up for ever.
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

/// Whether this is the controlling terminal of bowout's session (tcgetsid(3)). Both numbers are 0
/// if the session's leader is outside the PID namespace, as after `unshare -pf`.
pub(crate) fn is_controlling(fd: &impl AsFd) -> bool {
    tcgetsid(fd).is_ok_and(|session| session.as_raw() == session_leader())
}

/// Whether a shell with job control may wait for bowout: the parent is in another process group of
/// our session (setpgid(2)). Of a parent outside our PID namespace, whose number is 0, the kernel
/// answers for ourselves.
pub(crate) fn is_watched() -> bool {
    let parent = Some(Pid::from_raw(this_process::parent()));
    getsid(parent) == getsid(None)
        && nix::unistd::getpgid(parent).is_ok_and(|group| group != getpgrp())
}

/// The process that leads our session.
pub(crate) fn session_leader() -> i32 {
    getsid(None).map_or(0, Pid::as_raw)
}

/// Our process group.
pub(crate) fn own_group() -> Pid {
    getpgrp()
}

/// Whether we lead our session, so that a hang-up of its terminal is sent to us.
pub(crate) fn leads_session() -> bool {
    session_leader() == this_process::id()
}
