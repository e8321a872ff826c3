//! Closes received descriptors in a helper process.
//!
//! close(2) can take as long as the sender likes: a socket waits for its peer (`SO_LINGER`,
//! socket(7)), a file system for its server. The helper shares bowout's table of descriptors
//! (`CLONE_FILES`), so that bowout goes on meanwhile. It has no exit signal (clone(2)): waitid(2)
//! without `__WCLONE` does not show it, and SIGCHLD does not come. There is one helper at a time,
//! usually for some microseconds.
//!
//! A descriptor keeps its number until the helper closes it. bowout must not close it as well: by
//! then the number may be another file's.

use std::mem;
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::ptr::null_mut;

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::signal::SignalSet;
use crate::sys::signals;
use crate::sys::spawn::clone;
use crate::sys::this_process::pidfd_open;

/// While so many descriptors are open, or a quarter of `RLIMIT_NOFILE`, no more messages are read.
/// Two more full messages can be held by then: recvmsg(2) itself closes the descriptors that the
/// table has no room for, and waits, and the message is lost.
const MOST: usize = 256;
/// After how many microseconds close(2) is interrupted. The socket then lingers without the
/// process.
const PATIENCE: i32 = 1000;
/// How long bowout waits at its end for the helper, in milliseconds.
const LAST: u8 = 100;

/// The descriptors that are still to be closed.
#[derive(Debug, Default)]
pub(super) struct Closer {
    /// The helper's PID and its pidfd, which is readable once it has exited.
    helper: Option<(Pid, OwnedFd)>,
    /// How many descriptors the helper closes.
    closing: usize,
    waiting: Vec<RawFd>,
}

impl Closer {
    pub(super) fn close(&mut self, descriptors: Vec<OwnedFd>) {
        self.waiting
            .extend(descriptors.into_iter().map(IntoRawFd::into_raw_fd));
        self.turn();
    }

    /// Starts the next helper once the last one has exited.
    pub(super) fn turn(&mut self) {
        if let Some((pid, _)) = self.helper {
            if !has_exited(pid, WaitPidFlag::WNOHANG) {
                return;
            }
            self.helper = None;
        }
        let descriptors = mem::take(&mut self.waiting);
        self.helper = if descriptors.is_empty() {
            None
        } else {
            start(&descriptors)
        };
        self.closing = self.helper.as_ref().map_or(0, |_| descriptors.len());
    }

    /// True if more descriptors may be received.
    pub(super) fn has_room(&self) -> bool {
        let open = self.waiting.len() + self.closing;
        let quarter =
            || getrlimit(Resource::RLIMIT_NOFILE).map_or(MOST, |(soft, _)| soft as usize / 4);
        open == 0 || open < MOST.min(quarter())
    }

    /// Becomes readable when there is something to do for [`Closer::turn`].
    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.helper.as_ref().map(|(_, exited)| exited.as_fd())
    }
}

/// At the end of bowout. The kernel then closes the descriptors that are still open, and such a
/// close does not linger.
impl Drop for Closer {
    fn drop(&mut self) {
        if let Some((pid, exited)) = &self.helper {
            let _ = kill(*pid, Signal::SIGKILL);
            // A file system that hangs holds it longer; the parent of bowout then inherits it.
            let _ = poll(&mut [PollFd::new(exited.as_fd(), PollFlags::POLLIN)], LAST);
            has_exited(*pid, WaitPidFlag::WNOHANG);
        }
    }
}

/// Starts a helper. Returns `None` where the descriptors are closed already: without a helper, or
/// without a pidfd (Linux before 5.3, a filter), bowout waits for close(2).
fn start(descriptors: &[RawFd]) -> Option<(Pid, OwnedFd)> {
    let pid = match clone(libc::CLONE_FILES) {
        Ok(0) => close_and_exit(descriptors),
        Ok(pid) => Pid::from_raw(pid),
        Err(_) => {
            close_all(descriptors);
            return None;
        }
    };
    let Ok(exited) = pidfd_open(pid.as_raw()) else {
        has_exited(pid, WaitPidFlag::empty());
        return None;
    };
    Some((pid, exited))
}

/// True if the helper has exited; it is reaped then.
fn has_exited(pid: Pid, flags: WaitPidFlag) -> bool {
    waitpid(pid, Some(WaitPidFlag::__WCLONE | flags)) != Ok(WaitStatus::StillAlive)
}

/// The helper's work. Every signal but SIGALRM stays blocked: SIGINT from the terminal must not end
/// the helper before its time. The death of bowout ends it.
fn close_and_exit(descriptors: &[RawFd]) -> ! {
    extern "C" fn interrupt(_: libc::c_int) {}
    let _ = set_pdeathsig(Signal::SIGKILL);
    signals::set_mask(SignalSet::from_bits(!(1 << (libc::SIGALRM - 1))));
    let every = libc::timeval {
        tv_sec: 0,
        tv_usec: PATIENCE.into(),
    };
    let timer = libc::itimerval {
        it_interval: every,
        it_value: every,
    };
    // SAFETY: the handler does nothing; the timer's value is valid.
    unsafe {
        libc::signal(libc::SIGALRM, interrupt as *const () as libc::sighandler_t);
        libc::setitimer(libc::ITIMER_REAL, &raw const timer, null_mut());
    }
    close_all(descriptors);
    // SAFETY: ends the process and runs nothing.
    unsafe { libc::_exit(0) }
}

/// Each was received and is owned by nothing else. close(2) closes it even where it fails.
fn close_all(descriptors: &[RawFd]) {
    for &descriptor in descriptors {
        let _ = nix::unistd::close(descriptor);
    }
}

#[cfg(test)]
mod tests {
    use crate::sys::kernel::Linux;
    use crate::sys::tree::Tree;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;
    use std::process::{Command, Stdio};

    use nix::poll::PollTimeout;

    use super::*;

    /// A socket whose close(2) waits for an hour, because no process reads its data.
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
        let mut tree = Tree::new(Linux, std::process::id() as i32);
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let mut closer = Closer::default();
        closer.close((0..50).map(|_| lingering(&listener)).collect());
        let helper = closer.helper.as_ref().unwrap().0;
        kill(helper, Signal::SIGSTOP).unwrap();

        let (mut read, write) = std::io::pipe().unwrap();
        let pipes = (0..MOST)
            .map(|_| write.try_clone().unwrap().into())
            .collect();
        drop(write);
        closer.close(pipes);
        assert_eq!((closer.waiting.len(), closer.has_room()), (MOST, false));
        assert!(tree.contains(helper.as_raw()));
        tree.adopt(child.id() as i32, false);
        let tree: Vec<_> = tree
            .members()
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
