//! The manager's end of the relay: its addresses, and sending to it without waiting.

use std::ffi::OsStr;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::message::{Control, Datagram};

/// The most descriptors that one message can carry (unix(7), `SCM_MAX_FD`).
const DESCRIPTORS: usize = 253;
/// How long a manager on another machine is waited for, at each step of one message.
const REMOTE: Duration = Duration::from_millis(100);

/// Where the manager listens.
#[derive(Debug)]
pub(super) struct Manager {
    address: Address,
    /// On another machine: which kinds of socket to try. None for a manager on this one.
    kinds: &'static [libc::c_int],
    /// `AF_UNIX`: connected, so that room for more can be waited for.
    socket: Option<OwnedFd>,
}

impl Manager {
    /// Reads a NOTIFY_SOCKET: `/path`, `@abstract`, `vsock[-TYPE]:CID:PORT`. Nothing for anything
    /// else, of which sd_notify(3) makes nothing either.
    pub(super) fn new(address: &OsStr) -> Option<Self> {
        let mut manager = Self::read(address)?;
        manager.connect();
        Some(manager)
    }

    fn read(address: &OsStr) -> Option<Self> {
        let text = address.as_bytes();
        let (address, kinds): (_, &[_]) = match text.first()? {
            b'/' | b'@' => (Address::unix(text)?, &[]),
            _ => {
                let (kind, place) = std::str::from_utf8(text).ok()?.split_once(':')?;
                let (cid, port) = place.split_once(':')?;
                let kinds: &[_] = match kind {
                    "vsock" => &[libc::SOCK_DGRAM, libc::SOCK_SEQPACKET, libc::SOCK_STREAM],
                    "vsock-dgram" => &[libc::SOCK_DGRAM],
                    "vsock-seqpacket" => &[libc::SOCK_SEQPACKET],
                    "vsock-stream" => &[libc::SOCK_STREAM],
                    _ => return None,
                };
                (Address::vsock(cid.parse().ok()?, port.parse().ok()?), kinds)
            }
        };
        Some(Self {
            address,
            kinds,
            socket: None,
        })
    }

    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(AsFd::as_fd)
    }

    /// On this machine, and never waited for.
    pub(super) fn is_local(&self) -> bool {
        self.kinds.is_empty()
    }

    /// Connects to a manager on this machine; that there is none yet is seen when there is
    /// something to say.
    fn connect(&mut self) {
        self.socket = None;
        if self.is_local()
            && let Ok(socket) = datagram_socket(libc::AF_UNIX)
            && self.address.connect(&socket).is_ok()
        {
            self.socket = Some(socket);
        }
    }

    /// Sends a message without waiting; one that comes back is sent again over a new connection,
    /// for a manager that was executed anew has another socket at the same place.
    pub(super) fn send(&mut self, datagram: &Datagram) -> io::Result<()> {
        if !self.is_local() {
            // Not WouldBlock: no descriptor is left that could be waited for.
            return self.send_far(datagram).map_err(|error| match error.kind() {
                io::ErrorKind::WouldBlock => Errno::EHOSTUNREACH.into(),
                _ => error,
            });
        }
        for _ in 0..2 {
            let Some(socket) = &self.socket else {
                self.connect();
                continue;
            };
            match send(socket, datagram) {
                Err(error)
                    if error.kind() == io::ErrorKind::ConnectionRefused
                        || error.raw_os_error() == Some(libc::ENOTCONN) =>
                {
                    self.connect();
                }
                result => return result,
            }
        }
        Err(Errno::ECONNREFUSED.into())
    }

    /// To the host of a virtual machine: a connection for each message, and its end as the receipt
    /// (sd_notify(3)).
    fn send_far(&self, datagram: &Datagram) -> io::Result<()> {
        let mut last = Errno::EAFNOSUPPORT.into();
        for &kind in self.kinds {
            let socket = match socket(self.address.family(), kind) {
                Ok(socket) => socket,
                Err(error) => {
                    last = error;
                    continue;
                }
            };
            match self.address.connect(&socket) {
                Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {
                    settle(&socket, PollFlags::POLLOUT)
                }
                result => result?,
            }
            send(
                &socket,
                &Datagram {
                    text: datagram.text.clone(),
                    descriptors: vec![],
                },
            )?;
            if kind != libc::SOCK_DGRAM {
                // SAFETY: numbers only.
                unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_WR) };
                settle(&socket, PollFlags::POLLIN);
            }
            return Ok(());
        }
        Err(last)
    }
}

/// Waits for a socket, but never long.
fn settle(socket: &OwnedFd, flags: PollFlags) {
    let _ = poll(
        &mut [PollFd::new(socket.as_fd(), flags)],
        PollTimeout::try_from(REMOTE).unwrap_or(PollTimeout::ZERO),
    );
}

/// `sendmsg(2)`.
fn send(socket: &OwnedFd, datagram: &Datagram) -> io::Result<()> {
    let raw: Vec<libc::c_int> = datagram
        .descriptors
        .iter()
        .take(DESCRIPTORS)
        .map(AsRawFd::as_raw_fd)
        .collect();
    let mut control = Control([0; 1200]);
    let mut vector = libc::iovec {
        iov_base: datagram.text.as_ptr().cast_mut().cast(),
        iov_len: datagram.text.len(),
    };
    // SAFETY: the header points to buffers of the sizes that it names, which outlive the call; the
    // control buffer has room for the most descriptors that there can be.
    let sent = unsafe {
        let mut header: libc::msghdr = mem::zeroed();
        header.msg_iov = &raw mut vector;
        header.msg_iovlen = 1;
        if !raw.is_empty() {
            let size = mem::size_of_val(raw.as_slice());
            header.msg_control = control.0.as_mut_ptr().cast();
            header.msg_controllen = libc::CMSG_SPACE(size as u32) as _;
            let part = libc::CMSG_FIRSTHDR(&raw const header);
            (*part).cmsg_level = libc::SOL_SOCKET;
            (*part).cmsg_type = libc::SCM_RIGHTS;
            (*part).cmsg_len = libc::CMSG_LEN(size as u32) as _;
            std::ptr::copy_nonoverlapping(raw.as_ptr().cast::<u8>(), libc::CMSG_DATA(part), size);
        }
        libc::sendmsg(
            socket.as_raw_fd(),
            &raw const header,
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
        )
    };
    check(sent as libc::c_int)
}

pub(super) fn datagram_socket(family: libc::c_int) -> io::Result<OwnedFd> {
    socket(family, libc::SOCK_DGRAM)
}

fn socket(family: libc::c_int, kind: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: numbers only; no other code owns the descriptor that is returned.
    unsafe {
        let fd = libc::socket(family, kind | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0);
        if fd < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(OwnedFd::from_raw_fd(fd))
        }
    }
}

pub(super) fn bind(socket: &OwnedFd, address: &Address) -> io::Result<()> {
    // SAFETY: as many bytes as are named can be read.
    check(unsafe {
        libc::bind(
            socket.as_raw_fd(),
            address.bytes.as_ptr().cast(),
            address.length,
        )
    })
}

pub(super) fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// A socket address of either family, as the kernel reads it.
#[derive(Debug)]
#[repr(C, align(8))]
pub(super) struct Address {
    pub(super) bytes: [u8; 128],
    pub(super) length: libc::socklen_t,
}

/// How many bytes the family takes at the beginning of every address.
pub(super) const FAMILY: usize = mem::size_of::<libc::sa_family_t>();

impl Address {
    /// A path, or an abstract name behind `@`; nothing for one that is too long.
    pub(super) fn unix(name: &[u8]) -> Option<Self> {
        let mut address = Self::autobind();
        let room = mem::size_of::<libc::sockaddr_un>() - FAMILY;
        let is_abstract = name.first() == Some(&b'@');
        // A path ends with a NUL byte; in an abstract name the first byte is one, and the length
        // says where it ends.
        if name.len() + usize::from(!is_abstract) > room {
            return None;
        }
        address.bytes[FAMILY..FAMILY + name.len()].copy_from_slice(name);
        if is_abstract {
            address.bytes[FAMILY] = 0;
        }
        address.length = (FAMILY + name.len() + usize::from(!is_abstract)) as libc::socklen_t;
        Some(address)
    }

    /// The address of no name, which asks the kernel for one.
    pub(super) fn autobind() -> Self {
        let mut bytes = [0; 128];
        bytes[..FAMILY].copy_from_slice(&(libc::AF_UNIX as libc::sa_family_t).to_ne_bytes());
        Self {
            bytes,
            length: FAMILY as libc::socklen_t,
        }
    }

    fn vsock(cid: u32, port: u32) -> Self {
        let mut bytes = [0; 128];
        // struct sockaddr_vm (vsock(7)): family, two reserved bytes, port, CID.
        bytes[..FAMILY].copy_from_slice(&(libc::AF_VSOCK as libc::sa_family_t).to_ne_bytes());
        bytes[4..8].copy_from_slice(&port.to_ne_bytes());
        bytes[8..12].copy_from_slice(&cid.to_ne_bytes());
        Self {
            bytes,
            length: mem::size_of::<libc::sockaddr_vm>() as libc::socklen_t,
        }
    }

    fn family(&self) -> libc::c_int {
        libc::c_int::from(libc::sa_family_t::from_ne_bytes([
            self.bytes[0],
            self.bytes[1],
        ]))
    }

    fn connect(&self, socket: &OwnedFd) -> io::Result<()> {
        // SAFETY: as many bytes as are named can be read.
        check(unsafe { libc::connect(socket.as_raw_fd(), self.bytes.as_ptr().cast(), self.length) })
    }
}

#[cfg(test)]
impl Manager {
    /// One that is treated as if it were on another machine: not every kernel of a test has
    /// `AF_VSOCK`.
    pub(super) fn far(name: &[u8], kinds: &'static [libc::c_int]) -> Self {
        Self {
            address: Address::unix(name).unwrap(),
            kinds,
            socket: None,
        }
    }
}

#[cfg(test)]
#[path = "../../../tests/fuzz/address.rs"]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_the_kernels_layout() {
        assert_eq!(Address::unix(b"/a").unwrap().length as usize, FAMILY + 3);
        let name = Address::unix(b"@a").unwrap();
        assert_eq!(
            (name.length as usize, &name.bytes[FAMILY..FAMILY + 2]),
            (FAMILY + 2, &b"\0a"[..])
        );
        assert!(Address::unix(&[b'/'; 107]).is_some() && Address::unix(&[b'/'; 108]).is_none());
        for bad in [
            "",
            "x",
            "vsock",
            "vsock:2",
            "vsock:a:1",
            "tcp:1:2",
            "vsock-raw:1:2",
        ] {
            assert!(Manager::new(OsStr::new(bad)).is_none(), "{bad}");
        }
        let far = Manager::new(OsStr::new("vsock-stream:2:1234")).unwrap();
        assert_eq!(
            (far.address.family(), far.kinds),
            (libc::AF_VSOCK, &[libc::SOCK_STREAM][..])
        );
    }
}
