//! Messages in sockets: received from the child with their sender and their descriptors, and sent
//! to the manager. Neither waits.

use std::ffi::OsStr;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, connect, recvmsg, sendmsg};
use nix::unistd::geteuid;

use crate::sys::kernel::{Kernel, Linux};
use crate::sys::{this_process, tree, wait};

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

/// The manager's socket, on this machine.
#[derive(Debug)]
pub(super) struct Manager {
    address: UnixAddr,
    socket: UnixDatagram,
}

impl Manager {
    /// Reads a NOTIFY_SOCKET: `/path` or `@abstract` (sd_notify(3)).
    ///
    /// # Errors
    /// `InvalidInput`: the address is too long or of another kind. A manager at a `vsock:CID:PORT`
    /// does not see the sender's PID, so that the child can use it without a relay.
    pub(super) fn new(address: &OsStr) -> io::Result<Self> {
        let why = "NOTIFY_SOCKET is not the address of a Unix socket";
        let address = unix_address(address).ok_or(io::Error::new(ErrorKind::InvalidInput, why))?;
        Ok(Self {
            address,
            socket: UnixDatagram::unbound()?,
        })
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Sends a message without waiting. Each goes to the address anew: a manager that was executed
    /// again has another socket there.
    ///
    /// # Errors
    /// As sendmsg(2). `EAGAIN`: the manager has no room now; the descriptor is writable once it
    /// has.
    pub(super) fn send(&self, datagram: &Datagram) -> nix::Result<()> {
        let descriptors: Vec<RawFd> = datagram
            .descriptors
            .iter()
            .map(AsRawFd::as_raw_fd)
            .collect();
        let parts = [IoSlice::new(&datagram.text)];
        let control = [ControlMessage::ScmRights(&descriptors)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let fd = self.socket.as_raw_fd();
        let sent = sendmsg(fd, &parts, &control, flags, Some(&self.address));
        if sent == Err(Errno::EAGAIN) {
            // poll(2) sees the receiver's room through a connected socket alone: an unconnected one
            // is always writable, and the loop would spin. So a refusal by a filter is recorded. A
            // manager that has exited meanwhile needs no connection: the next send fails.
            if let Err(error @ (Errno::EPERM | Errno::EACCES | Errno::ENOSYS)) =
                connect(fd, &self.address)
            {
                wait::failed("connect", error);
            }
        }
        sent.map(drop)
    }
}

fn unix_address(text: &OsStr) -> Option<UnixAddr> {
    match text.as_bytes() {
        [b'/', ..] => UnixAddr::new(text).ok(),
        [b'@', name @ ..] => UnixAddr::new_abstract(name).ok(),
        _ => None,
    }
}

/// Receives one message without waiting, with the reason not to pass it on, if there is one. The
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
        let words = data.as_chunks().0.iter();
        let mut numbers = words.map(|&word| i32::from_ne_bytes(word));
        if kind == libc::SCM_RIGHTS {
            // SAFETY: each descriptor is new, and nothing else owns it.
            descriptors.extend(numbers.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        } else if kind == libc::SCM_CREDENTIALS {
            let (pid, uid) = (numbers.next(), numbers.next());
            sender = pid.zip(uid.map(|uid| uid as libc::uid_t));
        }
    }
    let is_cut = flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC);
    let refusal = match sender {
        _ if is_cut || length > LONGEST => {
            Some("it is longer than 4096 bytes, or there is no room for its descriptors".into())
        }
        None => Some("it comes without credentials".into()),
        Some(_) if text.strip_suffix(b"\0").unwrap_or(&text).contains(&0) => {
            Some("it holds a NUL byte".into())
        }
        Some((pid, uid)) if may_notify(pid, uid) => None,
        Some((pid, uid)) => Some(format!("pid {pid} (uid {uid}) is not a descendant")),
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

/// True if a sender is the child or a descendant. Of a sender that has exited, only the user can be
/// compared. A PID of 0 is a process of another PID namespace, which cannot be a descendant.
fn may_notify(pid: libc::pid_t, uid: libc::uid_t) -> bool {
    tree::descends(&Linux, this_process::id(), pid)
        || pid != 0 && uid == geteuid().as_raw() && Linux.stat(pid).is_none()
}

#[cfg(test)]
#[path = "../../../tests/fuzz/address.rs"]
mod fuzz;

#[cfg(test)]
mod tests {
    use nix::sys::socket::{bind, getsockname, setsockopt, sockopt::PassCred};

    use super::*;

    #[test]
    fn addresses_of_unix_sockets_are_read_and_others_refused() {
        let read = |text: &str| unix_address(OsStr::new(text));
        assert_eq!(read("/a").unwrap().path(), Some("/a".as_ref()));
        assert_eq!(read("@a").unwrap().as_abstract(), Some(&b"a"[..]));
        for first in ["/", "@"] {
            assert!(read(&(first.to_owned() + &"x".repeat(106))).is_some());
            assert!(read(&(first.to_owned() + &"x".repeat(108))).is_none());
        }
        for other in ["", "x", "tcp:1:2", "vsock:2:1234", "vsock-stream:2:1234"] {
            assert!(read(other).is_none(), "{other}");
        }
    }

    /// Sends `descriptors` copies of one in a message, and returns the message at the other end.
    fn passed(text: &[u8], descriptors: usize) -> (Datagram, Option<String>) {
        let far = UnixDatagram::unbound().unwrap();
        bind(far.as_raw_fd(), &UnixAddr::new_unnamed()).unwrap();
        setsockopt(&far, PassCred, &true).unwrap();
        let manager = Manager {
            address: getsockname(far.as_raw_fd()).unwrap(),
            socket: UnixDatagram::unbound().unwrap(),
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

    /// The test is the sender, and is not its own descendant.
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
