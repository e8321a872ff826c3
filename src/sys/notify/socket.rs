//! Messages in sockets: received from the child with their sender and their descriptors, and sent
//! to the manager. Neither waits.

use std::ffi::OsStr;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, recvmsg, sendmsg};
use nix::unistd::geteuid;

use crate::sys::tree;

/// The longest message that systemd takes, in bytes (`NOTIFY_BUFFER_MAX` in its source). Longer
/// ones are dropped whole.
const LONGEST: usize = 4096;
/// The most descriptors that one message can carry (unix(7), `SCM_MAX_FD`).
const DESCRIPTORS: usize = 253;

/// A message as it is in a socket.
#[derive(Debug)]
pub(super) struct Datagram {
    pub(super) text: Vec<u8>,
    pub(super) descriptors: Vec<OwnedFd>,
}

/// Where the manager listens, on this machine.
#[derive(Debug)]
pub(super) struct Manager {
    address: SocketAddr,
    /// Connected, so that ppoll(2) says when the manager has room for another message.
    socket: Option<UnixDatagram>,
}

impl Manager {
    /// Connects to a NOTIFY_SOCKET: `/path` or `@abstract` (sd_notify(3)). A manager that does not
    /// listen yet is connected to by the first message.
    ///
    /// # Errors
    /// `InvalidInput`: the address is too long or of another kind. A manager at a `vsock:CID:PORT`
    /// does not see the sender's PID, so that the child can use it without a relay.
    pub(super) fn new(address: &OsStr) -> io::Result<Self> {
        let mut manager = Self {
            address: unix_address(address)?,
            socket: None,
        };
        manager.connect();
        Ok(manager)
    }

    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(AsFd::as_fd)
    }

    fn connect(&mut self) {
        let socket = UnixDatagram::unbound().ok();
        self.socket = socket.filter(|socket| socket.connect_addr(&self.address).is_ok());
    }

    /// Sends a message without waiting. A refused one is sent once more over a new connection: a
    /// manager that was executed again has another socket at the same address.
    ///
    /// # Errors
    /// As sendmsg(2); `EAGAIN`: the manager has no room now.
    pub(super) fn send(&mut self, datagram: &Datagram) -> nix::Result<()> {
        let descriptors: Vec<RawFd> = datagram
            .descriptors
            .iter()
            .map(AsRawFd::as_raw_fd)
            .collect();
        let parts = [IoSlice::new(&datagram.text)];
        let control = [ControlMessage::ScmRights(&descriptors)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let mut result = Err(Errno::ECONNREFUSED);
        for _ in 0..2 {
            if let Some(socket) = &self.socket {
                result = sendmsg::<()>(socket.as_raw_fd(), &parts, &control, flags, None).map(drop);
            }
            if !matches!(result, Err(Errno::ECONNREFUSED | Errno::ENOTCONN)) {
                break;
            }
            self.connect();
        }
        result
    }
}

fn unix_address(text: &OsStr) -> io::Result<SocketAddr> {
    match text.as_bytes() {
        [b'/', ..] => SocketAddr::from_pathname(text),
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => Err(io::Error::new(
            ErrorKind::InvalidInput,
            "NOTIFY_SOCKET is not the address of a Unix socket",
        )),
    }
}

/// Receives one message without waiting, and says why it must not be passed on, if it must not. The
/// caller closes the descriptors.
///
/// # Errors
/// As recvmsg(2); `EAGAIN`: there is none now.
pub(super) fn receive(socket: &UnixDatagram) -> nix::Result<(Datagram, Option<String>)> {
    let mut text = vec![0; LONGEST + 1];
    let mut control = cmsg_space!(libc::ucred, [RawFd; DESCRIPTORS]);
    let mut parts = [IoSliceMut::new(&mut text)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let received = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
    let (length, flags) = (received.bytes, received.flags);
    text.truncate(length);
    let (mut sender, mut descriptors) = (None, vec![]);
    for (kind, data) in control_messages(&control) {
        let mut numbers = data
            .as_chunks()
            .0
            .iter()
            .map(|&number| i32::from_ne_bytes(number));
        match kind {
            // SAFETY: the descriptors are new, and nothing else owns them.
            libc::SCM_RIGHTS => {
                descriptors.extend(numbers.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }))
            }
            libc::SCM_CREDENTIALS => sender = numbers.next().zip(numbers.next()),
            _ => {}
        }
    }
    let refusal = match sender {
        _ if flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC) || length > LONGEST => {
            Some("it is longer than 4096 bytes, or there is no room for its descriptors".into())
        }
        None => Some("it comes without credentials".into()),
        Some(_) if text.strip_suffix(b"\0").unwrap_or(&text).contains(&0) => {
            Some("it holds a NUL byte".into())
        }
        Some((pid, uid)) if may_notify(pid, uid as u32) => None,
        Some((pid, uid)) => Some(format!(
            "pid {pid} (uid {}) is not a descendant",
            uid as u32
        )),
    };
    Ok((Datagram { text, descriptors }, refusal))
}

/// The control messages (cmsg(3)) in a buffer that was zero before recvmsg(2) wrote to it: type and
/// data. Only `SOL_SOCKET` has any for these sockets. nix gives none of a truncated list, and the
/// descriptors in it would stay open.
fn control_messages(mut rest: &[u8]) -> impl Iterator<Item = (libc::c_int, &[u8])> {
    const HEADER: usize = size_of::<libc::cmsghdr>();
    std::iter::from_fn(move || {
        let length = usize::from_ne_bytes(*rest.first_chunk()?);
        let data = rest.get(HEADER..length)?;
        let kind = libc::c_int::from_ne_bytes(*rest[..HEADER].last_chunk()?);
        rest = rest
            .get(length.next_multiple_of(size_of::<usize>())..)
            .unwrap_or_default();
        Some((kind, data))
    })
}

/// Whether a sender is the child or a descendant. Of a sender that has exited, only the user can be
/// compared. A PID of 0 is a process of another PID namespace, which cannot be a descendant.
fn may_notify(pid: libc::pid_t, uid: libc::uid_t) -> bool {
    tree::descends(pid)
        || pid != 0 && uid == geteuid().as_raw() && tree::Process::read(pid).is_none()
}

#[cfg(test)]
#[path = "../../../tests/fuzz/address.rs"]
mod fuzz;

#[cfg(test)]
mod tests {
    use nix::sys::socket::{setsockopt, sockopt::PassCred};

    use super::*;

    #[test]
    fn addresses_of_unix_sockets_are_read_and_others_refused() {
        let read = |text: &str| unix_address(OsStr::new(text));
        assert_eq!(read("/a").unwrap().as_pathname(), Some("/a".as_ref()));
        assert_eq!(read("@a").unwrap().as_abstract_name(), Some(&b"a"[..]));
        for first in ["/", "@"] {
            assert!(read(&(first.to_owned() + &"x".repeat(106))).is_ok());
            assert!(read(&(first.to_owned() + &"x".repeat(108))).is_err());
        }
        for other in ["", "x", "tcp:1:2", "vsock:2:1234", "vsock-stream:2:1234"] {
            assert_eq!(
                read(other).unwrap_err().kind(),
                ErrorKind::InvalidInput,
                "{other}"
            );
        }
    }

    /// Sends `descriptors` copies of one in a message, and returns what the other end receives.
    fn passed(text: &[u8], descriptors: usize) -> (Datagram, Option<String>) {
        let (near, far) = UnixDatagram::pair().unwrap();
        setsockopt(&far, PassCred, &true).unwrap();
        let mut manager = Manager {
            address: unix_address(OsStr::new("@none")).unwrap(),
            socket: Some(near),
        };
        let descriptors = (0..descriptors)
            .map(|_| far.as_fd().try_clone_to_owned().unwrap())
            .collect();
        manager
            .send(&Datagram {
                text: text.to_vec(),
                descriptors,
            })
            .unwrap();
        receive(&far).unwrap()
    }

    /// The test is the sender, and not a descendant of itself.
    #[test]
    fn a_message_arrives_with_its_sender_and_all_its_descriptors() {
        for count in [0, 1, 3, DESCRIPTORS] {
            let (datagram, refusal) = passed(b"READY=1", count);
            assert_eq!(
                (&datagram.text[..], datagram.descriptors.len()),
                (&b"READY=1"[..], count)
            );
            let sender = format!(
                "pid {} (uid {}) is not a descendant",
                std::process::id(),
                geteuid()
            );
            assert_eq!(refusal, Some(sender));
        }
        for (text, why) in [
            (&[b'x'; LONGEST + 1][..], "longer than 4096 bytes"),
            (b"a\0b", "NUL byte"),
        ] {
            let (datagram, refusal) = passed(text, 2);
            assert!(
                refusal.unwrap().contains(why) && datagram.descriptors.len() == 2,
                "{why}"
            );
        }
    }
}
