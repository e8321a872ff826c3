//! The sd_notify relay: a socket of bowout's own for the child. Each message is sent on to the
//! manager from bowout's PID, because the manager accepts messages of its main process only
//! (sd_notify(3), `NotifyAccess=main`).
//!
//! Owns both sockets, and the messages that the manager has no room for. Never waits: when the
//! manager's socket is full, bowout sends once it has room, and reads nothing from the child until
//! then. The child then waits as it would without bowout. A manager on another machine is the
//! exception: each message waits for it for at most 0.2 s, and a turn sends one message.
//!
//! Caveat: a sender that has ended before bowout looks is not known to be a descendant. It is
//! believed if it was of bowout's user. As root, bowout opens the socket to all users, because the
//! child may have become another one. Credentials decide which sender is accepted, not the mode.

mod closer;
mod manager;
mod message;
mod place;

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::{self, ManuallyDrop};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use closer::Closer;
use manager::{Manager, check, datagram_socket};
use message::{Datagram, Message, Received, receive};
use place::{Place, bind_anywhere};

use super::{this_process, wait};

/// How long the manager is waited for at the end, in all.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// How many messages one turn takes, so that a flood keeps neither children nor deadlines waiting.
/// A manager on another machine, which each message may wait for, is sent one.
const AT_ONCE: usize = 64;

/// What the child said that concerns the stop.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// It asks for this much time from now (`EXTEND_TIMEOUT_USEC=`).
    pub(crate) extend: Option<Duration>,
    /// How many messages were dropped, and why the last of them was.
    pub(crate) dropped: Option<(usize, String)>,
}

/// Both ends.
#[derive(Debug)]
pub(crate) struct Relay {
    /// Closed by the exit of bowout: messages in it may hold descriptors whose close(2) waits, but
    /// not at an exit.
    socket: ManuallyDrop<OwnedFd>,
    /// The child's NOTIFY_SOCKET.
    address: OsString,
    place: Option<Place>,
    manager: Option<Manager>,
    /// We are the manager's main process, and what we say of the service counts.
    speaks: bool,
    /// How many messages the manager did not take.
    lost: usize,
    waiting: VecDeque<Datagram>,
    closer: Closer,
}

impl Relay {
    /// Opens a socket for the child; `manager` is the NOTIFY_SOCKET that we were given, if any.
    ///
    /// # Errors
    /// As socket(2) and bind(2): above all a unit that must not use `AF_UNIX`.
    pub(crate) fn open(manager: Option<&OsStr>) -> io::Result<Self> {
        let socket = datagram_socket(libc::AF_UNIX)?;
        let enable: libc::c_int = 1;
        let (size, on) = (
            mem::size_of_val(&enable) as libc::socklen_t,
            (&raw const enable).cast(),
        );
        // SAFETY: an int of the size that is named.
        check(unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PASSCRED,
                on,
                size,
            )
        })?;
        let place = Place::find(&socket);
        let address = match &place {
            Some(place) => place.address(),
            None => bind_anywhere(&socket)?,
        };
        let manager = manager.and_then(Manager::new);
        // Where another process is the service's main process, STOPPING=1 from bowout would stop
        // that service. Managers before 248 do not set it.
        let main = std::env::var("SYSTEMD_EXEC_PID").ok();
        let speaks = main.is_none_or(|pid| pid == this_process::id().to_string());
        let (socket, waiting, closer) = (
            ManuallyDrop::new(socket),
            VecDeque::new(),
            Closer::default(),
        );
        Ok(Self {
            socket,
            address,
            place,
            manager,
            speaks,
            lost: 0,
            waiting,
            closer,
        })
    }

    /// Whether a manager listens to what we say of the service.
    pub(crate) fn speaks(&self) -> bool {
        self.speaks && self.manager.is_some()
    }

    /// The child's NOTIFY_SOCKET.
    pub(crate) fn address(&self) -> &OsStr {
        &self.address
    }

    /// The descriptors that must stay open.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let manager = self.manager.as_ref().and_then(Manager::descriptor);
        [
            Some(self.socket.as_fd()),
            manager,
            self.place.as_ref().map(Place::descriptor),
        ]
        .into_iter()
        .flatten()
    }

    /// What to wait for: a message of the child's, unless another one still waits for the manager;
    /// and the closing of descriptors.
    pub(crate) fn readable(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let socket = self.reads().then(|| self.socket.as_fd());
        socket.into_iter().chain(self.closer.descriptor())
    }

    /// Whether messages may be read now. Until then the senders wait.
    fn reads(&self) -> bool {
        self.waiting.is_empty() && self.closer.has_room()
    }

    /// See [`Relay::readable`].
    pub(crate) fn writable(&self) -> Option<BorrowedFd<'_>> {
        if self.waiting.is_empty() {
            None
        } else {
            self.manager.as_ref().and_then(Manager::descriptor)
        }
    }

    /// A message of our own.
    pub(crate) fn tell(&mut self, text: &str) {
        if !self.speaks() {
            return;
        }
        // The manager has read nothing for a while.
        if self.waiting.len() >= AT_ONCE {
            self.lost += 1;
        } else {
            self.waiting.push_back(Datagram {
                text: text.as_bytes().to_vec(),
                descriptors: vec![],
            });
            self.flush();
        }
    }

    /// Passes on the last words: all that the child has said, as far as the manager takes it within
    /// [`LAST_WORDS`].
    #[allow(
        clippy::disallowed_methods,
        reason = "a bound on a wait that happens once, at the end"
    )]
    pub(crate) fn finish(&mut self) -> Heard {
        let end = Instant::now() + LAST_WORDS;
        let mut heard = Heard::default();
        loop {
            let more = self.turn();
            let silent = more.extend.is_none() && self.waiting.is_empty() && !self.has_more();
            if let Some((count, why)) = more.dropped {
                let before = heard.dropped.take().map_or(0, |(count, _)| count);
                heard.dropped = Some((before + count, why));
            }
            if silent {
                return heard;
            }
            if Instant::now() >= end {
                break;
            }
            if !self.reads() {
                let manager = self
                    .writable()
                    .map(|manager| PollFd::new(manager, PollFlags::POLLOUT));
                let closer = self
                    .closer
                    .descriptor()
                    .map(|closer| PollFd::new(closer, PollFlags::POLLIN));
                let mut fds: Vec<_> = manager.into_iter().chain(closer).collect();
                let _ = poll(&mut fds, PollTimeout::from(10_u8));
            }
        }
        for datagram in mem::take(&mut self.waiting) {
            self.closer.close(datagram.descriptors);
            drop_message(&mut heard, "the manager has no room for it".into());
        }
        // There was no time for these messages. The exit of bowout ends those that are left.
        let messages = if self.manager.is_some() { AT_ONCE } else { 0 };
        for _ in 0..messages {
            if !self.closer.has_room() {
                break;
            }
            match receive(&self.socket) {
                Ok(
                    Received::Message(Datagram { descriptors, .. })
                    | Received::Refused(descriptors, _),
                ) => {
                    self.closer.close(descriptors);
                    drop_message(&mut heard, "the manager is too slow for it".into());
                }
                Ok(Received::Nothing) | Err(_) => break,
            }
        }
        heard
    }

    /// Whether the child has said more than was taken.
    fn has_more(&self) -> bool {
        let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }

    /// Passes on what can be.
    pub(crate) fn turn(&mut self) -> Heard {
        let mut heard = Heard::default();
        self.closer.turn();
        self.flush();
        let far = self
            .manager
            .as_ref()
            .is_some_and(|manager| !manager.is_local());
        for _ in 0..if far { 1 } else { AT_ONCE } {
            if !self.reads() {
                break;
            }
            match receive(&self.socket) {
                Ok(Received::Nothing) => break,
                Ok(Received::Message(datagram)) => self.pass(datagram, &mut heard),
                Ok(Received::Refused(descriptors, why)) => {
                    self.closer.close(descriptors);
                    drop_message(&mut heard, why);
                }
                Err(error) => {
                    wait::failed(
                        "recvmsg",
                        Errno::from_raw(error.raw_os_error().unwrap_or(0)),
                    );
                    drop_message(&mut heard, error.to_string());
                    break;
                }
            }
        }
        for _ in 0..mem::take(&mut self.lost) {
            drop_message(&mut heard, "the manager does not take it".into());
        }
        heard
    }

    fn pass(&mut self, Datagram { text, descriptors }: Datagram, heard: &mut Heard) {
        let message = Message::parse(&text);
        heard.extend = message.extend.or(heard.extend);
        if self.manager.is_none() || message.text.is_empty() {
            return self.closer.close(descriptors);
        }
        let (sent, closed) = if message.keeps_descriptors {
            (descriptors, vec![])
        } else {
            (vec![], descriptors)
        };
        self.closer.close(closed);
        self.waiting.push_back(Datagram {
            text: message.text,
            descriptors: sent,
        });
        self.flush();
    }

    fn flush(&mut self) {
        let Some(manager) = &mut self.manager else {
            return;
        };
        while let Some(datagram) = self.waiting.front() {
            match manager.send(datagram) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                result => {
                    self.lost += usize::from(result.is_err());
                    let sent = self.waiting.pop_front();
                    self.closer
                        .close(sent.map_or(vec![], |datagram| datagram.descriptors));
                }
            }
        }
    }
}

fn drop_message(heard: &mut Heard, why: String) {
    let before = heard.dropped.take().map_or(0, |(count, _)| count);
    heard.dropped = Some((before + 1, why));
}

/// Our effective user.
fn user() -> libc::uid_t {
    // SAFETY: takes nothing and returns a number.
    unsafe { libc::geteuid() }
}

#[cfg(test)]
mod tests {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::net::{SocketAddr, UnixListener};

    use super::*;

    #[test]
    fn messages_of_our_own_wait_for_a_full_manager_and_are_bounded_and_counted() {
        let manager = datagram_socket(libc::AF_UNIX).unwrap();
        let address = bind_anywhere(&manager).unwrap();
        let mut relay = Relay::open(Some(&address)).unwrap();
        for n in 0..1000 {
            relay.tell(&format!("STATUS={n}"));
        }
        assert!(relay.waiting.len() == AT_ONCE && !relay.reads() && relay.writable().is_some());
        let lost = relay.turn().dropped.map_or(0, |(count, _)| count);
        let mut read = vec![];
        while read.len() < 1000 - lost {
            let mut text = [0; 64];
            match nix::unistd::read(&manager, &mut text) {
                Ok(length) => read.push(String::from_utf8_lossy(&text[..length]).into_owned()),
                Err(_) => relay.flush(),
            }
        }
        assert_eq!(
            read,
            (0..1000 - lost)
                .map(|n| format!("STATUS={n}"))
                .collect::<Vec<_>>()
        );
        assert!(lost > 0 && relay.waiting.is_empty());
        drop(manager);
        relay.tell("STATUS=unread");
        assert!(relay.waiting.is_empty() && relay.reads());
    }

    /// It may be waited for at each message: what else there is to do comes between two of them,
    /// and the end does not wait for all.
    #[test]
    fn a_manager_on_another_machine_that_accepts_nothing_is_sent_one_message_a_turn() {
        let name = format!("bowout-test-far-{}", std::process::id());
        let listener =
            UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        listener.set_nonblocking(true).unwrap();
        let mut relay = Relay::open(None).unwrap();
        relay.manager = Some(Manager::far(
            format!("@{name}").as_bytes(),
            &[libc::SOCK_STREAM],
        ));
        let mut sender = Manager::new(relay.address()).unwrap();
        let messages: Vec<_> = (0..8)
            .map(|n| Datagram {
                text: format!("STATUS={n}").into_bytes(),
                descriptors: vec![],
            })
            .collect();
        // Of ourselves nothing would be heard: we are no descendant.
        // SAFETY: the child calls nothing of the test harness and ends by _exit; the allocator's
        // lock is taken by fork(3) itself.
        let status = unsafe {
            let pid = libc::fork();
            if pid == 0 {
                libc::_exit(i32::from(
                    !messages.iter().all(|message| sender.send(message).is_ok()),
                ));
            }
            let mut status = 0;
            assert_eq!(libc::waitpid(pid, &raw mut status, 0), pid);
            status
        };
        assert_eq!(status, 0, "the messages are sent");
        assert!(relay.turn().dropped.is_none());
        assert_eq!(std::iter::from_fn(|| listener.accept().ok()).count(), 1);
        let dropped = relay.finish().dropped.map_or(0, |(count, _)| count);
        let taken = std::iter::from_fn(|| listener.accept().ok()).count();
        assert!(
            dropped > 0 && taken + dropped == 7,
            "{taken} taken, {dropped} dropped"
        );
    }

    /// The relay slept on a message with no descriptor to wait for.
    #[test]
    fn a_manager_on_another_machine_without_room_drops_the_message() {
        let manager = datagram_socket(libc::AF_UNIX).unwrap();
        let name = bind_anywhere(&manager).unwrap();
        let mut near = Manager::new(&name).unwrap();
        while near
            .send(&Datagram {
                text: b"full".into(),
                descriptors: vec![],
            })
            .is_ok()
        {}
        let mut relay = Relay::open(None).unwrap();
        relay.manager = Some(Manager::far(name.as_bytes(), &[libc::SOCK_DGRAM]));
        relay.tell("STATUS=none");
        assert!(relay.waiting.is_empty() && relay.reads());
        assert_eq!(relay.turn().dropped.map(|(count, _)| count), Some(1));
    }
}
