//! Closes descriptors that were received, in a helper process.
//!
//! close(2) can take as long as the sender likes: a socket waits for its peer (`SO_LINGER`,
//! socket(7)), a file system for its server. The helper shares bowout's table of descriptors
//! (`CLONE_FILES`), so that bowout goes on meanwhile. It has no exit signal (clone(2)): waitid(2)
//! without `__WCLONE` does not show it, and SIGCHLD does not come. There is one helper at a time,
//! for some microseconds in the usual case.
//!
//! A descriptor keeps its number until the helper closes it. bowout must not close it as well: by
//! then the number may be another file's.

use std::os::fd::{AsFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::ptr::null_mut;

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::signal::SignalSet;
use crate::sys::{signals, tree};

/// While so many descriptors are open, no more messages are read. Two more full messages can be
/// held by then, which `RLIMIT_NOFILE` has to allow: what the kernel has no number for it closes
/// itself, in recvmsg(2), and waits there.
const MOST: usize = 256;
/// After how many microseconds close(2) is interrupted. A socket then lingers without the process.
const PATIENCE: i32 = 1000;

/// How long the helper may take to end at the end of bowout, in milliseconds.
const LAST: u8 = 100;

/// The descriptors that are still to be closed.
#[derive(Debug, Default)]
pub(super) struct Closer {
    helper: Option<Helper>,
    waiting: Vec<RawFd>,
}

#[derive(Debug)]
struct Helper {
    pid: libc::pid_t,
    /// A pidfd: readable once the helper has exited.
    exited: OwnedFd,
    descriptors: usize,
}

impl Closer {
    pub(super) fn close(&mut self, descriptors: Vec<OwnedFd>) {
        self.waiting
            .extend(descriptors.into_iter().map(IntoRawFd::into_raw_fd));
        self.turn();
    }

    /// Starts the next helper once the last one has exited.
    pub(super) fn turn(&mut self) {
        if let Some(helper) = &self.helper {
            if !helper.has_exited() {
                return;
            }
            tree::forget_inherited(helper.pid);
            self.helper = None;
        }
        if !self.waiting.is_empty() {
            self.helper = Helper::start(&std::mem::take(&mut self.waiting));
        }
    }

    /// Whether more descriptors may be received.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() + self.helper.as_ref().map_or(0, |helper| helper.descriptors) < MOST
    }

    /// Becomes readable when there is something to do for [`Closer::turn`].
    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.helper.as_ref().map(|helper| helper.exited.as_fd())
    }
}

/// At the end of bowout. Whatever is still open then is closed by the kernel, and does not linger.
impl Drop for Closer {
    fn drop(&mut self) {
        if let Some(helper) = &self.helper {
            let _ = kill(Pid::from_raw(helper.pid), Signal::SIGKILL);
            // A file system that hangs holds it longer; the parent of bowout then inherits it.
            let _ = poll(
                &mut [PollFd::new(helper.exited.as_fd(), PollFlags::POLLIN)],
                LAST,
            );
            helper.has_exited();
        }
    }
}

impl Helper {
    /// Nothing where the descriptors are closed already: without a helper or a pidfd (Linux before
    /// 5.2), bowout waits for close(2).
    fn start(descriptors: &[RawFd]) -> Option<Self> {
        let (flags, none) = (libc::c_long::from(libc::CLONE_FILES | libc::CLONE_PIDFD), 0);
        let (first, second) = if cfg!(target_arch = "s390x") {
            (none, flags)
        } else {
            (flags, none)
        };
        let mut exited: libc::c_int = -1;
        // SAFETY: no memory is shared, and no stack is given: the child has copies of all that this
        // process has, which has one thread. The pidfd is written to `exited`.
        let pid =
            unsafe { libc::syscall(libc::SYS_clone, first, second, &raw mut exited, none, none) }
                as libc::pid_t;
        match pid {
            0 => carry_out(descriptors),
            1.. if exited >= 0 => {
                tree::note_own(pid);
                // SAFETY: new, and nothing else's.
                let exited = unsafe { OwnedFd::from_raw_fd(exited) };
                return Some(Self {
                    pid,
                    exited,
                    descriptors: descriptors.len(),
                });
            }
            // SAFETY: no status is asked for.
            1.. => drop(unsafe { libc::waitpid(pid, null_mut(), libc::__WCLONE) }),
            _ => close_all(descriptors),
        }
        None
    }

    fn has_exited(&self) -> bool {
        // SAFETY: no status is asked for.
        unsafe { libc::waitpid(self.pid, null_mut(), libc::__WCLONE | libc::WNOHANG) != 0 }
    }
}

/// The helper's work. Every other signal stays blocked: SIGINT from the terminal must not end it
/// before its time. SIGKILL to bowout ends it, too.
fn carry_out(descriptors: &[RawFd]) -> ! {
    extern "C" fn interrupt(_: libc::c_int) {}
    let every = libc::timeval {
        tv_sec: 0,
        tv_usec: PATIENCE.into(),
    };
    let timer = libc::itimerval {
        it_interval: every,
        it_value: every,
    };
    // SAFETY: the handler does nothing; the timer's value is valid; the last call ends the process
    // and runs nothing.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::signal(libc::SIGALRM, interrupt as *const () as libc::sighandler_t);
        signals::set_mask(SignalSet::from_bits(!(1 << (libc::SIGALRM - 1))));
        libc::setitimer(libc::ITIMER_REAL, &raw const timer, null_mut());
        close_all(descriptors);
        libc::_exit(0)
    }
}

fn close_all(descriptors: &[RawFd]) {
    for &descriptor in descriptors {
        // SAFETY: received, and owned by nothing else. It is closed even where close(2) was
        // interrupted.
        unsafe { libc::close(descriptor) };
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;
    use std::process::{Command, Stdio};

    use nix::poll::PollTimeout;

    use super::*;

    /// A socket whose close(2) waits for an hour, because nothing reads what it has sent.
    fn lingering(listener: &TcpListener) -> OwnedFd {
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        stream.set_nonblocking(true).unwrap();
        while stream.write(&[0; 16384]).is_ok() {}
        let wait = libc::linger {
            l_onoff: 1,
            l_linger: 3600,
        };
        let (size, wait) = (
            size_of_val(&wait) as libc::socklen_t,
            (&raw const wait).cast(),
        );
        // SAFETY: a structure of the size that is named.
        let set = unsafe {
            libc::setsockopt(
                stream.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_LINGER,
                wait,
                size,
            )
        };
        assert_eq!(set, 0);
        stream.into()
    }

    #[test]
    fn one_helper_at_a_time_closes_everything_and_is_not_in_the_tree() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let mut closer = Closer::default();
        closer.close((0..50).map(|_| lingering(&listener)).collect());
        let helper = Pid::from_raw(closer.helper.as_ref().unwrap().pid);
        kill(helper, Signal::SIGSTOP).unwrap();

        let (mut read, write) = std::io::pipe().unwrap();
        let pipes = (0..MOST)
            .map(|_| write.try_clone().unwrap().into())
            .collect();
        drop(write);
        closer.close(pipes);
        assert_eq!((closer.waiting.len(), closer.has_room()), (MOST, false));
        assert!(tree::descends(helper.as_raw()) && tree::Process::read(helper.as_raw()).is_some());
        let tree: Vec<_> = tree::descendants()
            .unwrap()
            .iter()
            .map(|process| process.pid)
            .collect();
        assert!(
            tree.contains(&(child.id() as i32)) && !tree.contains(&helper.as_raw()),
            "{tree:?}"
        );

        kill(helper, Signal::SIGCONT).unwrap();
        while let Some(exited) = closer.descriptor() {
            poll(
                &mut [PollFd::new(exited, PollFlags::POLLIN)],
                PollTimeout::NONE,
            )
            .unwrap();
            closer.turn();
        }
        assert!(closer.waiting.is_empty() && closer.has_room());
        assert_eq!(read.read(&mut [0]).unwrap(), 0);
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}
