//! One message: received with its sender and its descriptors, and read as far as it concerns us.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use crate::sys::tree;

/// The longest message that a manager takes, in bytes; longer ones are dropped whole, by it and by us (contract S15).
const LONGEST: usize = 4096;
/// A message on its way.
#[derive(Debug)]
pub(super) struct Datagram {
    pub(super) text: Vec<u8>,
    pub(super) descriptors: Vec<OwnedFd>,
}

/// A message of the child's as it may be passed on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// Byte for byte what came, unless a line had to be left out.
    pub(super) text: Vec<u8>,
    pub(super) extend: Option<Duration>,
    pub(super) keeps_descriptors: bool,
}

/// What would make the child the manager's main process, after which nobody would listen to us (contract S17).
const OURS: [&[u8]; 4] = [b"MAINPID=", b"MAINPIDFDID=", b"MAINPIDFD=", b"NOTIFYACCESS="];

impl Message {
    pub(super) fn parse(text: &[u8]) -> Self {
        let ours = |line: &[u8]| OURS.iter().any(|name| line.starts_with(name));
        let lines = || text.split(|&b| b == b'\n');
        let extend = lines()
            .filter_map(|line| line.strip_prefix(b"EXTEND_TIMEOUT_USEC="))
            .filter_map(|number| std::str::from_utf8(number).ok()?.parse().ok())
            .map(Duration::from_micros)
            .next_back();
        let kept = if lines().any(ours) {
            lines().filter(|line| !ours(line)).collect::<Vec<_>>().join(&b'\n')
        } else {
            text.to_vec()
        };
        // The pidfd of MAINPIDFD=1 goes where its line goes.
        let pidfd = lines().any(|line| line.starts_with(b"MAINPIDFD=")) && !lines().any(|line| line == b"FDSTORE=1");
        Self { text: kept, extend, keeps_descriptors: !pidfd }
    }
}

pub(super) enum Received {
    Nothing,
    Message(Datagram),
    /// Not to be passed on, and why.
    Refused(String),
}

/// Room for the control data of one message: credentials and as many descriptors as there can be. Aligned as a `cmsghdr`.
#[repr(C, align(8))]
pub(super) struct Control(pub(super) [u8; 1200]);

/// `recvmsg(2)` of one message. Descriptors that come with a message that is refused are closed.
#[allow(clippy::cast_ptr_alignment, reason = "read unaligned")]
pub(super) fn receive(socket: &OwnedFd) -> io::Result<Received> {
    let mut text = vec![0; LONGEST + 1];
    let mut control = Control([0; 1200]);
    let mut vector = libc::iovec { iov_base: text.as_mut_ptr().cast(), iov_len: text.len() };
    let mut descriptors = vec![];
    let mut sender = None;
    // SAFETY: the header points to buffers of the sizes that it names, which outlive the call; the control data is walked by
    // the macros of cmsg(3), and each descriptor in it is new and nobody else's.
    let (length, flags) = unsafe {
        let mut header: libc::msghdr = mem::zeroed();
        header.msg_iov = &raw mut vector;
        header.msg_iovlen = 1;
        header.msg_control = control.0.as_mut_ptr().cast();
        header.msg_controllen = control.0.len() as _;
        let length = libc::recvmsg(socket.as_raw_fd(), &raw mut header, libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC);
        if length < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::WouldBlock { Ok(Received::Nothing) } else { Err(error) };
        }
        let mut part = libc::CMSG_FIRSTHDR(&raw const header);
        while !part.is_null() {
            let data = libc::CMSG_DATA(part);
            let size = (*part).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
            match ((*part).cmsg_level, (*part).cmsg_type) {
                (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
                    for i in 0..size / mem::size_of::<libc::c_int>() {
                        let fd = (data as *const libc::c_int).add(i).read_unaligned();
                        descriptors.push(OwnedFd::from_raw_fd(fd));
                    }
                }
                (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) => {
                    sender = Some((data as *const libc::ucred).read_unaligned());
                }
                _ => {}
            }
            part = libc::CMSG_NXTHDR(&raw const header, part);
        }
        (length as usize, header.msg_flags)
    };
    if flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 || length > LONGEST {
        return Ok(Received::Refused("it is longer than 4096 bytes, or there is no room for its descriptors".into()));
    }
    text.truncate(length);
    match sender {
        Some(_) if text.contains(&0) => Ok(Received::Refused("it holds a NUL byte".into())),
        Some(sender) if is_heard(sender) => Ok(Received::Message(Datagram { text, descriptors })),
        Some(sender) => Ok(Received::Refused(format!("pid {} (uid {}) is no descendant", sender.pid, sender.uid))),
        None => Ok(Received::Refused("it comes without credentials".into())),
    }
}

/// The child and its descendants; of senders that are gone already, those of our user.
fn is_heard(sender: libc::ucred) -> bool {
    // SAFETY: takes and returns numbers.
    let us = unsafe { libc::geteuid() };
    // 0 is a process of another PID namespace, which is no descendant of ours whatever became of it.
    tree::descends(sender.pid) || (sender.pid != 0 && sender.uid == us && tree::Process::read(sender.pid).is_none())
}

#[cfg(test)]
#[path = "../../../tests/fuzz/message.rs"]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_harmless_passes_byte_for_byte() {
        for text in ["READY=1", "READY=1\n", "STATUS=a\n\nX_Y=MAINPID=1\n", "\n", "MAINPIDX=1"] {
            let message = Message::parse(text.as_bytes());
            assert_eq!((message.text, message.keeps_descriptors), (text.as_bytes().to_vec(), true));
        }
    }

    #[test]
    fn the_main_process_stays_who_it_is() {
        for (text, kept) in [
            ("READY=1\nMAINPID=7", "READY=1"),
            ("MAINPID=7\nREADY=1\n", "READY=1\n"),
            ("NOTIFYACCESS=all\nMAINPIDFDID=9\nSTATUS=x", "STATUS=x"),
            ("MAINPID=7", ""),
        ] {
            assert_eq!(Message::parse(text.as_bytes()).text, kept.as_bytes(), "{text}");
        }
        assert!(!Message::parse(b"READY=1\nMAINPIDFD=1").keeps_descriptors);
        assert!(Message::parse(b"FDSTORE=1\nMAINPIDFD=1").keeps_descriptors);
    }

    #[test]
    fn more_time_is_heard() {
        let extend = |text: &str| Message::parse(text.as_bytes()).extend;
        assert_eq!(extend("STOPPING=1\nEXTEND_TIMEOUT_USEC=2500000"), Some(Duration::from_millis(2500)));
        for text in
            ["EXTEND_TIMEOUT_USEC=", "EXTEND_TIMEOUT_USEC=-1", "EXTEND_TIMEOUT_USEC=1s", "XEXTEND_TIMEOUT_USEC=1"]
        {
            assert_eq!(extend(text), None, "{text}");
        }
    }
}
