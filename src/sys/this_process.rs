//! This process: its place among the others, its descriptors, its working directory.

use std::io::{self, Write};
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::stat::Mode;

use super::wait;
use crate::exit::Exit;
use crate::signal::Signal;

/// Our PID (getpid(2)), asked for once. Not for the forked child, which has another one.
pub(crate) fn id() -> libc::pid_t {
    static ID: AtomicI32 = AtomicI32::new(0);
    match ID.load(Ordering::Relaxed) {
        0 => {
            let id = nix::unistd::getpid().as_raw();
            ID.store(id, Ordering::Relaxed);
            id
        }
        id => id,
    }
}

/// Whether we are the first process of our PID namespace.
pub(crate) fn is_pid1() -> bool {
    id() == 1
}

/// Our parent; 0 where it is outside our PID namespace (getppid(2)).
pub(crate) fn parent() -> i32 {
    nix::unistd::getppid().as_raw()
}

/// Has every descendant that loses its parent become our child (PR_SET_CHILD_SUBREAPER(2const)). To
/// be called before the fork: it is not retroactive (contract K11).
///
/// # Errors
/// As prctl(2): a kernel before 3.4, or a filter.
pub(crate) fn become_subreaper() -> io::Result<()> {
    Ok(prctl::set_child_subreaper(true)?)
}

/// The process that started bowout, watched for `--parent-death-signal`.
#[derive(Debug)]
pub(crate) struct Parent {
    pub(crate) pid: libc::pid_t,
    /// What its exit sends.
    pub(crate) signal: Signal,
    /// Readable once the process has exited (pidfd_open(2)); `None` where it had exited before it
    /// could be opened.
    handle: Option<OwnedFd>,
}

impl Parent {
    /// Watches `pid`, the parent that bowout was started by. Without a parent in its PID namespace,
    /// or without pidfds (Linux before 5.3, a filter), the kernel sends the signal, and there is
    /// nothing to watch. It does so when the *thread* that started bowout ends
    /// (PR_SET_PDEATHSIG(2const)), and the process may go on.
    ///
    /// # Errors
    /// As PR_SET_PDEATHSIG(2const).
    pub(crate) fn watch(pid: libc::pid_t, signal: Signal) -> io::Result<Option<Self>> {
        // 0 is a parent outside the PID namespace.
        let handle = if pid == 0 { None } else { pidfd_open(pid).ok() };
        // nix takes its own enum here, which ends at 31. SAFETY: numbers only.
        if handle.is_none() && unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal.number()) } != 0
        {
            return Err(io::Error::last_os_error());
        }
        // An exited parent's number may be another process's by now, and the kernel sends the
        // signal only for a later exit.
        let exited = parent() != pid;
        Ok((exited || handle.is_some()).then(|| Self {
            pid,
            signal,
            handle: handle.filter(|_| !exited),
        }))
    }

    /// What to wait for.
    pub(crate) fn handle(&self) -> Option<BorrowedFd<'_>> {
        self.handle.as_ref().map(AsFd::as_fd)
    }

    /// Whether all threads of it have ended.
    pub(crate) fn has_exited(&self) -> bool {
        let look = |fd| poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], PollTimeout::ZERO);
        self.handle()
            .is_none_or(|fd| look(fd).is_ok_and(|ready| ready > 0))
    }
}

/// A descriptor of the process (pidfd_open(2)). It is closed at an exec.
///
/// # Errors
/// `ESRCH`: there is no such process. `ENOSYS`, `EPERM`: Linux before 5.3, or a filter.
pub(super) fn pidfd_open(pid: libc::pid_t) -> nix::Result<OwnedFd> {
    // SAFETY: numbers only; no other code owns the descriptor that is returned.
    unsafe {
        let fd = Errno::result(libc::syscall(libc::SYS_pidfd_open, pid, 0))?;
        Ok(OwnedFd::from_raw_fd(fd as i32))
    }
}

/// Sees that none of our own descriptors becomes 0, 1 or 2 where we were started with one of these
/// closed. The child must find it closed, too: what is opened here closes at its exec.
///
/// Ends us where that fails (`EMFILE`, `ENFILE`, `ENOMEM`, a filter): `release` would put /dev/null
/// in the place of the signalfd that has the number, and no signal and no child's end would be
/// seen.
pub(super) fn occupy_standard_descriptors() {
    let look = |fd| libc::pollfd {
        fd,
        events: 0,
        revents: 0,
    };
    let mut standard = [look(0), look(1), look(2)];
    let at_once = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // By the call that the loop waits in, so that a filter that refuses it is known before the
    // command starts.
    // SAFETY: three entries, and as many are said; a valid time, and no mask.
    let closed = unsafe {
        libc::ppoll(
            standard.as_mut_ptr(),
            3,
            &raw const at_once,
            std::ptr::null(),
        )
    };
    if closed < 0 {
        wait::failed("ppoll", Errno::last());
    }
    // Where they cannot be looked at, each is taken to be closed.
    if closed >= 0 && standard.iter().all(|fd| fd.revents & libc::POLLNVAL == 0) {
        return;
    }
    // open(2) takes the lowest free number, so that three are the most it can need. O_PATH works on
    // `/` without any device file, and reads and writes on it fail with EBADF, as they would on a
    // closed one.
    for _ in 0..3 {
        match open("/", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()) {
            Ok(fd) if fd.as_raw_fd() <= 2 => mem::forget(fd),
            Ok(_) => return,
            Err(error) => {
                // There is no log yet; and stderr itself may be what is closed, which only the exit
                // code tells then.
                let line = format!(
                    "bowout: cannot take the place of a closed stdin, stdout or stderr: {}\n",
                    error.desc()
                );
                let _ = super::stderr::Stderr::new(|_| String::new()).write_all(line.as_bytes());
                super::end::end(Exit::OWN_FAILURE)
            }
        }
    }
}

/// Writes what the user asked to see, to stdout, before anything is started. A reader that does not
/// wait for all of it is no failure.
pub(crate) fn print(text: &str) -> Exit {
    let mut rest = text.as_bytes();
    while let Ok(written @ 1..) = nix::unistd::write(std::io::stdout(), rest) {
        rest = &rest[written..];
    }
    Exit::Code(0)
}

/// Lets go of what belongs to the child: stdin and stdout become /dev/null, so that a pipe ends
/// when the child's copy does (contract T12); what is open from 3 up, but for `ours`, is closed;
/// the working directory pins no mount. Best effort: what fails here costs the user an open file,
/// not the supervision.
pub(crate) fn release(ours: &[BorrowedFd<'_>]) {
    // First: the command may look where bowout is.
    let _ = nix::unistd::chdir("/");
    let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())
        .or_else(|_| open("/", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()));
    if let Ok(null) = null {
        let _ = nix::unistd::dup2_stdin(&null);
        let _ = nix::unistd::dup2_stdout(&null);
        // None of ours, and closed with the rest.
        mem::forget(null);
    }
    let own = super::stderr::own_descriptor()
        .into_iter()
        .chain(super::tree::proc_descriptor());
    let mut kept: Vec<u32> = ours
        .iter()
        .copied()
        .chain(own)
        .map(|fd| fd.as_raw_fd() as u32)
        .collect();
    kept.sort_unstable();
    let mut from = 3;
    for fd in kept.into_iter().chain([u32::MAX]) {
        if fd > from {
            close_range(from, fd - 1);
        }
        from = fd.saturating_add(1);
    }
}

/// `close_range(2)`, or close(2) one by one where a kernel before 5.9 or a filter refuses it.
fn close_range(first: u32, last: u32) {
    // SAFETY: closes descriptors that nothing in this process holds; `release` has left out those
    // that something does.
    unsafe {
        if libc::syscall(libc::SYS_close_range, first, last, 0) != 0 {
            let limit = libc::sysconf(libc::_SC_OPEN_MAX).clamp(0, MOST_DESCRIPTORS) as u32;
            for fd in first..=last.min(limit) {
                libc::close(fd as i32);
            }
        }
    }
}

/// How far descriptors are closed one by one: a limit of a billion is no reason to make a billion
/// calls.
const MOST_DESCRIPTORS: libc::c_long = 65_536;
