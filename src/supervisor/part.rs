//! `--guard` and `--replace-on`: a second process in front of the supervisor. Where either of the
//! two is killed, the other stops the command, with its grace period.
//!
//! The guard keeps bowout's PID. It forwards each signal with its sender, passes sd_notify messages
//! on, stops when the supervisor stops, and exits as the supervisor exits. It decides nothing. From
//! the moment at which the supervisor is killed, the guard supervises in its place.
//!
//! Without a terminal, the two are in different process groups, so that one kill(2) cannot end
//! both.
//!
//! Limit: with a terminal they share the job's group, so that Ctrl-C and Ctrl-Z reach both.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::time::Instant;

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
    /// The guard of a supervisor.
    Guard(Instance),
    /// The supervisor below a guard. The guard's relay has this address.
    Guarded(Link, Option<OsString>),
}

/// The connection of the two: it ends when the other one exits.
#[derive(Debug)]
pub(super) struct Link(UnixStream);

/// As the guard: the state of a replacement (`--replace-on`).
#[derive(Debug, Default)]
pub(super) struct Replacing {
    /// The instance that takes the place of the present one.
    pub(super) next: Option<Instance>,
    /// How bowout exits once the last supervisor has.
    pub(super) outcome: Option<Exit>,
    /// A stop request was forwarded: no instance is started any more.
    pub(super) is_stopping: bool,
    /// A supervisor was killed while another one lives.
    pub(super) strays: bool,
}

/// The result of a turn of the guard.
pub(super) enum Turn {
    GoOn,
    /// bowout exits.
    Exit(Exit),
    /// This process is the supervisor of another instance.
    Instance(Part),
}

/// A message from a supervisor to its guard.
#[derive(Clone, Copy, Debug)]
pub(super) enum ToGuard {
    /// The child's PID.
    Child(i32),
    /// The command is ready.
    Ready,
    /// How the child has exited. It is reaped after that.
    Ended(Exit),
    /// How bowout exits.
    Exit(Exit),
}

/// A message from the guard to a supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FromGuard {
    Nothing,
    /// Another instance is ready: this one is to stop.
    Retire,
    /// The guard was killed.
    Killed,
}

/// The messages of a supervisor so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sent {
    pub(super) child: Option<i32>,
    pub(super) is_ready: bool,
    pub(super) ended: Option<Exit>,
    pub(super) exit: Option<Exit>,
}

/// A supervisor, as its guard knows it. With `--replace-on`, there can be a second one.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) supervisor: i32,
    pub(super) link: Link,
    pub(super) sent: Sent,
    /// Without `--ready`: from when on a second one counts as ready.
    pub(super) until: Option<Instant>,
    /// The first one was asked to stop.
    pub(super) serves: bool,
}

impl Instance {
    #[cold]
    fn new(supervisor: i32, link: UnixStream) -> Self {
        Self {
            supervisor,
            link: Link(link),
            sent: Sent::default(),
            until: None,
            serves: false,
        }
    }

    /// How it exited, by its message or by its code; `None`: it was killed.
    #[cold]
    pub(super) fn exit(&mut self, ended: Exit) -> Option<Exit> {
        self.link.take(&mut self.sent);
        match (self.sent.exit, ended) {
            (Some(exit), _) | (None, exit @ Exit::Code(_)) => Some(exit),
            (None, Exit::Signal(_)) => None,
        }
    }
}

impl Link {
    /// As the guard: reads the messages of the supervisor.
    #[cold]
    pub(super) fn take(&self, sent: &mut Sent) {
        let mut bytes = [0; 64];
        let length = (&self.0).read(&mut bytes).unwrap_or(0);
        let numbers: Vec<i32> = bytes[..length]
            .as_chunks()
            .0
            .iter()
            .map(|&bytes| i32::from_ne_bytes(bytes))
            .collect();
        for message in numbers.as_chunks::<2>().0 {
            match *message {
                [1, pid] => sent.child = Some(pid),
                [2, _] => sent.is_ready = true,
                [3, number] => sent.ended = exit(number),
                [_, number] => sent.exit = exit(number),
            }
        }
    }

    /// As the guard: asks the supervisor to stop its instance.
    #[cold]
    pub(super) fn retire(&self) {
        // One that has exited reads nothing.
        let _ = (&self.0).write_all(&[1]);
    }
}

/// A code as it is, a signal as a negative number.
fn number(exit: Exit) -> i32 {
    match exit {
        Exit::Code(code) => code.into(),
        Exit::Signal(signal) => -signal.number(),
    }
}

/// The reverse of [`number`].
#[cold]
fn exit(number: i32) -> Option<Exit> {
    u8::try_from(number).map_or_else(
        |_| Signal::new(-number).map(Exit::Signal),
        |code| Some(Exit::Code(code)),
    )
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

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
        if config.replace_on.is_some() && Terminal::open().is_some() {
            return Err(Error::own("--replace-on cannot be used on a terminal"));
        }
        if config.guard && !this_process::is_pid1() || config.replace_on.is_some() {
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
    #[cold]
    fn fork<K: Kernel>(kernel: &K, intake: &K::Intake) -> io::Result<(Self, Batch)> {
        let (one, mut other) = UnixStream::pair()?;
        let no_terminal = Terminal::open().is_none();
        let early = kernel.signals(intake);
        let pid = spawn::fork_supervisor(no_terminal)?;
        if pid != 0 {
            one.set_nonblocking(true)?;
            return Ok((Self::Guard(Instance::new(pid, one)), Batch::default()));
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

    /// The guard of this supervisor, and the supervisor, in one process.
    #[cfg(test)]
    pub(super) fn divided(supervisor: i32) -> (Self, Self) {
        let (one, other) = UnixStream::pair().expect("a pair of sockets");
        one.set_nonblocking(true).expect("a socket");
        let guarded = Self::Guarded(Link(other), None);
        (Self::Guard(Instance::new(supervisor, one)), guarded)
    }

    /// As the guard: lets the supervisor start the command.
    pub(super) fn let_start(&self, relay: Option<&Relay>) {
        if let Self::Guard(Instance { link, .. }) = self {
            let address = relay.map_or(OsStr::new(""), Relay::address);
            // A supervisor that was killed meanwhile reads nothing.
            let _ = (&link.0).write_all(&[b"\0", address.as_bytes()].concat());
        }
    }

    /// As the guard: starts a supervisor of another instance. Returns it, or itself in it.
    ///
    /// # Errors
    /// As socketpair(2) and fork(2).
    #[cold]
    pub(super) fn fork_another(relay: Option<&Relay>) -> io::Result<Result<Instance, Self>> {
        let (one, other) = UnixStream::pair()?;
        let address = relay.map(|relay| relay.address().to_owned());
        let pid = spawn::fork_supervisor(true)?;
        if pid == 0 {
            drop(one);
            return Ok(Err(Self::Guarded(Link(other), address)));
        }
        one.set_nonblocking(true)?;
        Ok(Ok(Instance::new(pid, one)))
    }

    /// As the supervisor: sends the guard a message.
    pub(super) fn send(&self, message: ToGuard) {
        if let Self::Guarded(link, _) = self {
            let (kind, value) = match message {
                ToGuard::Child(pid) => (1, pid),
                ToGuard::Ready => (2, 0),
                ToGuard::Ended(exit) => (3, number(exit)),
                ToGuard::Exit(exit) => (4, number(exit)),
            };
            let bytes = [kind, value].map(i32::to_ne_bytes).concat();
            // A guard that was killed reads nothing.
            let _ = (&link.0).write_all(&bytes);
        }
    }

    /// As the supervisor: reads the guard's message, or notices its death.
    pub(super) fn message_of_guard(&self) -> FromGuard {
        let Self::Guarded(Link(link), _) = self else {
            return FromGuard::Nothing;
        };
        let _ = link.set_nonblocking(true);
        match (&*link).read(&mut [0]) {
            Ok(1..) => FromGuard::Retire,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => FromGuard::Nothing,
            // ECONNRESET: the guard has not read everything that it was sent.
            Ok(0) | Err(_) => FromGuard::Killed,
        }
    }

    /// The descriptor that must stay open. It is readable for the supervisor once the guard was
    /// killed, or another instance is ready.
    pub(super) fn link(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Whole => None,
            Self::Guard(Instance { link, .. }) | Self::Guarded(link, _) => Some(link.as_fd()),
        }
    }

    /// The descriptor that the supervisor waits for.
    pub(super) fn readable(&self) -> Option<BorrowedFd<'_>> {
        self.link().filter(|_| matches!(self, Self::Guarded(..)))
    }
}
