//! The sd_notify relay: a socket of bowout's own for the child. Each message is sent on to the
//! manager from bowout's PID, because the manager accepts messages of its main process only
//! (sd_notify(3), `NotifyAccess=main`).
//!
//! Owns both sockets, and the messages that the manager has no room for. Never waits: when the
//! manager's socket is full, bowout sends once it has room, and reads nothing from the child until
//! then. The child then waits as it would without bowout.
//!
//! Caveat: a sender that has exited before bowout looks is not known to be a descendant. Its
//! message is accepted if it was of bowout's user. As root, bowout opens the socket to all users,
//! because the child may have become another one. Credentials decide which sender is accepted, not
//! the mode.

mod closer;
mod message;
mod place;
mod socket;

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io;
use std::mem::{self, ManuallyDrop};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt::PassCred};
use nix::time::{ClockId, clock_gettime};

use closer::Closer;
use message::Message;
use place::Place;
use socket::{Datagram, Manager, receive};

use super::{environment, wait};

/// How long bowout waits for the manager at its end, in all.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// How many messages one turn takes, so that a flood keeps neither children nor deadlines waiting.
const AT_ONCE: usize = 64;

/// The parts of the child's messages that bowout acts on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Said {
    /// It asks for so much time from now (`EXTEND_TIMEOUT_USEC=`): its last such request of a turn.
    pub(crate) extend: Option<Duration>,
    /// `READY=1`, and `WATCHDOG=1`.
    pub(crate) ready: bool,
    pub(crate) alive: bool,
}

/// Both ends.
#[derive(Debug)]
pub(crate) struct Relay {
    /// Closed by the exit of bowout: messages in it may hold descriptors whose close(2) waits, but
    /// not at an exit.
    socket: ManuallyDrop<UnixDatagram>,
    place: Place,
    manager: Option<Manager>,
    /// Messages that the manager has no room for.
    waiting: VecDeque<Datagram>,
    closer: Closer,
    /// The time for the manager is over: messages that it has no room for are dropped.
    is_over: bool,
    /// How many messages were dropped since the supervisor took this, and why the last of them was.
    pub(crate) dropped: Option<(usize, String)>,
}

impl Relay {
    /// Opens a socket for the child; `manager` is bowout's own NOTIFY_SOCKET, if any.
    ///
    /// # Errors
    /// `InvalidInput`: `manager` is not the address of a Unix socket. Else as socket(2) and
    /// bind(2): above all a unit that must not use `AF_UNIX`.
    #[cold]
    pub(crate) fn open(manager: Option<&OsStr>) -> io::Result<Self> {
        let manager = manager.map(Manager::new).transpose()?;
        let socket = UnixDatagram::unbound()?;
        setsockopt(&socket, PassCred, &true)?;
        let place = Place::bind(&socket)?;
        let (socket, waiting, closer) = (
            ManuallyDrop::new(socket),
            VecDeque::new(),
            Closer::default(),
        );
        Ok(Self {
            socket,
            place,
            manager,
            waiting,
            closer,
            is_over: false,
            dropped: None,
        })
    }

    /// True if the manager accepts messages of bowout's own. Where another process is the service's
    /// main process, STOPPING=1 from bowout would stop that service. Managers before 248 do not set
    /// the variable.
    pub(crate) fn can_notify(&self) -> bool {
        self.manager.is_some() && environment::is_main_process(true)
    }

    /// The child's NOTIFY_SOCKET.
    pub(crate) fn address(&self) -> &OsStr {
        &self.place.address
    }

    /// The descriptors that must stay open.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let manager = self.manager.as_ref().map(Manager::descriptor);
        let place = self.place.directory.as_ref().map(AsFd::as_fd);
        [Some(self.socket.as_fd()), manager, place]
            .into_iter()
            .flatten()
    }

    /// The descriptors to wait for: a message of the child, unless another one still waits for the
    /// manager; and the closing of descriptors.
    pub(crate) fn readable(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let socket = self.reads().then(|| self.socket.as_fd());
        socket.into_iter().chain(self.closer.descriptor())
    }

    /// True if messages may be read now. Until then the senders wait.
    fn reads(&self) -> bool {
        self.waiting.is_empty() && self.closer.has_room()
    }

    /// See [`Relay::readable`].
    pub(crate) fn writable(&self) -> Option<BorrowedFd<'_>> {
        let manager = self.manager.as_ref().map(Manager::descriptor);
        manager.filter(|_| !self.waiting.is_empty())
    }

    /// Sends a message of bowout's own, if the manager accepts any.
    pub(crate) fn notify(&mut self, text: &str) {
        if !self.can_notify() {
            return;
        }
        // The manager has not read for a while.
        if self.waiting.len() >= AT_ONCE {
            return self.drop_message(vec![], "the manager does not take it".into());
        }
        self.waiting.push_back(Datagram {
            text: text.as_bytes().to_vec(),
            descriptors: vec![],
        });
        self.flush();
    }

    /// Notifies the manager that the service is being replaced (sd_notify(3), `RELOADING=1`).
    pub(crate) fn notify_reloading(&mut self) {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from);
        let usec = now.unwrap_or_default().as_micros();
        self.notify(&format!("RELOADING=1\nMONOTONIC_USEC={usec}"));
    }

    /// From now on, no message goes to the manager: another instance is the service.
    pub(crate) fn leave_manager(&mut self) {
        self.manager = None;
        self.waiting.clear();
    }

    /// Passes on all messages that the child sent, as far as the manager takes them within
    /// [`LAST_WORDS`]. The exit of bowout ends those that are left in the socket.
    #[allow(
        clippy::disallowed_methods,
        reason = "a bound on a wait that happens once, at the end"
    )]
    pub(crate) fn finish(&mut self) {
        let end = Instant::now() + LAST_WORDS;
        loop {
            self.is_over = Instant::now() >= end;
            self.turn();
            let has_more = || wait::is_readable(self.socket.as_fd());
            if self.is_over || self.waiting.is_empty() && !has_more() {
                return;
            }
            wait::until(
                Some(end),
                &self.readable().collect::<Vec<_>>(),
                self.writable(),
            );
        }
    }

    /// Relays the messages that have arrived. Returns the parts that bowout acts on.
    pub(crate) fn turn(&mut self) -> Said {
        let mut said = Said::default();
        self.closer.turn();
        self.flush();
        for _ in 0..AT_ONCE {
            if !self.reads() {
                break;
            }
            match receive(&self.socket) {
                Ok((datagram, None)) => self.pass(datagram, &mut said),
                Ok((datagram, Some(why))) => self.drop_message(datagram.descriptors, why),
                Err(Errno::EAGAIN) => break,
                Err(error) => {
                    wait::failed("recvmsg", error);
                    self.drop_message(vec![], io::Error::from(error).to_string());
                    break;
                }
            }
        }
        said
    }

    /// Relays a message of the child, and notes the parts that bowout acts on.
    fn pass(
        &mut self,
        Datagram {
            text,
            mut descriptors,
        }: Datagram,
        said: &mut Said,
    ) {
        let message = Message::parse(&text);
        said.extend = message.extend.or(said.extend);
        said.ready |= message.ready;
        said.alive |= message.alive;
        if self.manager.is_some() && !message.text.is_empty() {
            let kept = if message.keeps_descriptors {
                mem::take(&mut descriptors)
            } else {
                vec![]
            };
            self.waiting.push_back(Datagram {
                text: message.text,
                descriptors: kept,
            });
            self.flush();
        }
        self.closer.close(descriptors);
    }

    fn flush(&mut self) {
        while let (Some(manager), Some(datagram)) = (&self.manager, self.waiting.pop_front()) {
            let why = match manager.send(&datagram) {
                Ok(()) => {
                    self.closer.close(datagram.descriptors);
                    continue;
                }
                Err(Errno::EAGAIN) if !self.is_over => return self.waiting.push_front(datagram),
                Err(Errno::EAGAIN) => "the manager has no room for it",
                Err(_) => "the manager does not take it",
            };
            self.drop_message(datagram.descriptors, why.into());
        }
    }

    fn drop_message(&mut self, descriptors: Vec<OwnedFd>, why: String) {
        self.closer.close(descriptors);
        let before = self.dropped.take().map_or(0, |(count, _)| count);
        self.dropped = Some((before + 1, why));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_bowouts_own_wait_for_a_full_manager_and_are_bounded_and_counted() {
        let manager = UnixDatagram::unbound().unwrap();
        let place = Place::bind(&manager).unwrap();
        manager.set_nonblocking(true).unwrap();
        let mut relay = Relay::open(Some(&place.address)).unwrap();
        for n in 0..1000 {
            relay.notify(&format!("STATUS={n}"));
        }
        assert!(relay.waiting.len() == AT_ONCE && !relay.reads() && relay.writable().is_some());
        relay.turn();
        let (lost, reason) = relay.dropped.take().unwrap();
        assert_eq!(reason, "the manager does not take it");
        let mut read = vec![];
        while read.len() < 1000 - lost {
            let mut text = [0; 64];
            match manager.recv(&mut text) {
                Ok(length) => read.push(String::from_utf8_lossy(&text[..length]).into_owned()),
                Err(_) => relay.flush(),
            }
        }
        let sent: Vec<_> = (0..1000 - lost).map(|n| format!("STATUS={n}")).collect();
        assert_eq!(read, sent);
        assert!(relay.waiting.is_empty());
        drop(manager);
        relay.notify("STATUS=unread");
        assert!(relay.waiting.is_empty() && relay.reads());
        assert_eq!(
            relay.dropped,
            Some((1, "the manager does not take it".into()))
        );
    }

    /// Such a manager does not see the sender's PID, so that the child can use it directly.
    #[test]
    fn there_is_no_relay_to_a_manager_on_another_machine() {
        let error = Relay::open(Some("vsock:2:1234".as_ref())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
