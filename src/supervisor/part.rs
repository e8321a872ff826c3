//! `--guard`: a second process in front of the supervisor. Where either of the two is killed, the
//! other stops the command, with its grace period.
//!
//! The guard keeps bowout's PID. It forwards each signal with its sender, passes sd_notify messages
//! on, stops when the supervisor stops, and exits as it does. It decides nothing: it supervises as
//! the supervisor does from the moment that this one is killed.
//!
//! Without a terminal, the two are in different process groups, so that one kill(2) cannot end both.
//!
//! Limit: with a terminal they share the job's group, so that Ctrl-C and Ctrl-Z reach both.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;

use log::Level;

use crate::config::Config;
use crate::error::Error;
use crate::exit::Exit;
use crate::log::event;
use crate::signal::Signal;
use crate::sys::end::end;
use crate::sys::kernel::Kernel;
use crate::sys::notify::Relay;
use crate::sys::signals::Batch;
use crate::sys::spawn;
use crate::sys::this_process;
use crate::sys::tty::Terminal;

/// Which part of bowout this process is.
#[derive(Debug)]
pub(super) enum Part {
    /// The only one.
    Whole,
    /// The guard of this supervisor, a child process.
    Guard(i32, Link),
    /// The supervisor below a guard. The guard's relay has this address.
    Guarded(Link, Option<OsString>),
}

/// The connection of the two: it ends when the other one exits.
#[derive(Debug)]
pub(super) struct Link(UnixStream);

impl Part {
    /// Divides bowout into guard and supervisor, with `--guard`. PID 1 needs no guard: at its exit,
    /// the kernel kills every process of its namespace (pid_namespaces(7)).
    ///
    /// # Errors
    /// The second process cannot be started (125).
    pub(super) fn divide<K: Kernel>(
        config: &Config,
        kernel: &K,
        intake: &K::Intake,
    ) -> Result<(Self, Batch), Error> {
        if config.guard && !this_process::is_pid1() {
            let cannot = |error| Error::own(format!("cannot start the guard: {error}"));
            return Self::fork(kernel, intake).map_err(cannot);
        }
        if config.guard {
            event!(Level::Debug, "guard_unneeded"; "bowout is PID 1 and needs no --guard");
        }
        Ok((Self::Whole, Batch::default()))
    }

    /// Forks. The supervisor waits until the guard adopts orphans and has opened its relay. Returns
    /// also the signals that were received before the fork: the terminal sent them to this process
    /// alone, and they are the supervisor's.
    ///
    /// # Errors
    /// As socketpair(2) and fork(2).
    fn fork<K: Kernel>(kernel: &K, intake: &K::Intake) -> io::Result<(Self, Batch)> {
        let (one, mut other) = UnixStream::pair()?;
        let no_terminal = Terminal::open().is_none();
        let early = kernel.signals(intake);
        let pid = spawn::fork_supervisor(no_terminal)?;
        if pid != 0 {
            one.set_nonblocking(true)?;
            return Ok((Self::Guard(pid, Link(one)), Batch::default()));
        }
        drop(one);
        let mut ready = [0; 128];
        let length = other.read(&mut ready)?;
        if length == 0 {
            // The guard cannot supervise, and logs why.
            end(Exit::OWN_FAILURE);
        }
        let address = OsString::from_vec(ready[1..length].to_vec());
        let address = Some(address).filter(|address| !address.is_empty());
        Ok((Self::Guarded(Link(other), address), early))
    }

    /// As the guard: lets the supervisor start the command.
    pub(super) fn let_start(&self, relay: Option<&Relay>) {
        if let Self::Guard(_, link) = self {
            let address = relay.map_or(OsStr::new(""), Relay::address);
            // A supervisor that was killed meanwhile reads nothing.
            let _ = (&link.0).write_all(&[b"\0", address.as_bytes()].concat());
        }
    }

    /// As the supervisor: sends the guard the child's PID.
    pub(super) fn send_child(&self, pid: i32) {
        self.send(pid);
    }

    /// As the supervisor: sends the guard how bowout exits.
    pub(super) fn send_exit(&self, exit: Exit) {
        self.send(match exit {
            Exit::Code(code) => i32::from(code),
            Exit::Signal(signal) => -signal.number(),
        });
    }

    fn send(&self, number: i32) {
        if let Self::Guarded(link, _) = self {
            // A guard that was killed reads nothing.
            let _ = (&link.0).write_all(&number.to_ne_bytes());
        }
    }

    /// As the guard of a supervisor that has exited: what it sent, the child and the exit.
    pub(super) fn received(&self) -> (Option<i32>, Option<Exit>) {
        let Self::Guard(_, link) = self else {
            return (None, None);
        };
        let mut bytes = [0; 8];
        let length = (&link.0).read(&mut bytes).unwrap_or(0);
        let mut numbers = bytes[..length].as_chunks().0.iter();
        let mut number = || numbers.next().map(|&bytes| i32::from_ne_bytes(bytes));
        let (child, exit) = (number(), number());
        let exit = exit.map(|number| match Signal::new(-number) {
            Some(signal) => Exit::Signal(signal),
            None => Exit::Code(number as u8),
        });
        (child, exit)
    }

    /// As the supervisor: whether the guard was killed.
    pub(super) fn has_lost_its_guard(&self) -> bool {
        match self {
            Self::Guarded(Link(link), _) => {
                // The guard sends nothing more: what can be read is the end.
                link.set_nonblocking(true).is_ok() && matches!((&*link).read(&mut [0]), Ok(0))
            }
            Self::Whole | Self::Guard(..) => false,
        }
    }

    /// The descriptor that must stay open. It is readable for the supervisor once the guard was
    /// killed.
    pub(super) fn link(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Whole => None,
            Self::Guard(_, Link(link)) | Self::Guarded(Link(link), _) => Some(link.as_fd()),
        }
    }

    /// What the supervisor waits for.
    pub(super) fn readable(&self) -> Option<BorrowedFd<'_>> {
        self.link().filter(|_| matches!(self, Self::Guarded(..)))
    }
}
