//! One message: received with its sender and its descriptors, and read as far as it concerns us.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use super::user;
use crate::sys::tree;

/// The longest message that systemd takes, in bytes (`NOTIFY_BUFFER_MAX` in its source). Longer
/// ones are dropped whole.
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
    /// The bytes that were received, unless a line had to be left out.
    pub(super) text: Vec<u8>,
    pub(super) extend: Option<Duration>,
    pub(super) keeps_descriptors: bool,
}

/// Lines that would make the child the manager's main process. The manager would then ignore
/// bowout.
const WITHHELD: [&[u8]; 4] = [
    b"MAINPID=",
    b"MAINPIDFDID=",
    b"MAINPIDFD=",
    b"NOTIFYACCESS=",
];

impl Message {
    /// Reads a message as systemd does (`strv_split_newlines()` and `service_notify_message()` in
    /// its source).
    ///
    /// The lines that are kept are sent as they were received, escapes included, so that the
    /// manager reads the same lines from them.
    pub(super) fn parse(text: &[u8]) -> Self {
        let read = text.strip_suffix(b"\0").unwrap_or(text);
        // systemd from 247 on ignores a message that ends within an escape. None of its lines may
        // become valid by leaving out others.
        let is_cut = read.iter().rev().take_while(|&&byte| byte == b'\\').count() % 2 == 1;
        let is_withheld = |line: &&[u8]| {
            let names = |text: &[u8]| WITHHELD.iter().any(|name| text.starts_with(name));
            // systemd before 247 has no escapes: a newline after a backslash ends a line, too.
            (!is_cut && names(&unescape(line))) || line.split(|&byte| is_newline(byte)).any(names)
        };
        let (withheld, kept): (Vec<_>, Vec<_>) = lines(read).partition(is_withheld);
        let text = match (&withheld[..], is_cut) {
            ([], _) => text.to_vec(),
            (_, true) => vec![],
            (_, false) => kept.join(&b'\n'),
        };
        let extend = kept
            .iter()
            .filter(|_| !is_cut)
            .find_map(|line| {
                Some(number(
                    unescape(line).strip_prefix(b"EXTEND_TIMEOUT_USEC=")?,
                ))
            })
            .flatten()
            // To systemd, these two are no time at all (`timestamp_is_set()`).
            .filter(|usec| ![0, u64::MAX].contains(usec))
            .map(Duration::from_micros);
        // The pidfd of MAINPIDFD=1 is dropped with its line.
        let pidfd = withheld
            .iter()
            .any(|line| unescape(line).starts_with(b"MAINPIDFD="));
        let keeps_descriptors = !pidfd || kept.iter().any(|line| unescape(line) == b"FDSTORE=1");
        Self {
            text,
            extend,
            keeps_descriptors,
        }
    }
}

fn is_newline(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

/// The lines of a message with their escapes. A backslash takes away the meaning of the byte after
/// it; empty lines are skipped.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut escaped = false;
    let ends = move |byte: &u8| {
        let ends = !escaped && is_newline(*byte);
        escaped = !escaped && *byte == b'\\';
        ends
    };
    text.split(ends).filter(|line| !line.is_empty())
}

/// A line without its escapes: systemd drops each backslash and keeps the byte after it.
fn unescape(line: &[u8]) -> Vec<u8> {
    let mut escaped = false;
    let kept = line.iter().filter(|&&byte| {
        escaped = !escaped && byte == b'\\';
        !escaped
    });
    kept.copied().collect()
}

/// A number as systemd reads it (`safe_atou64()`): white space, a sign, then hexadecimal, octal,
/// binary or decimal digits.
fn number(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text)
        .ok()?
        .trim_start_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c']);
    let (sign, digits) = text.split_at(usize::from(text.starts_with(['+', '-'])));
    let (base, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', ..] => (8, digits),
        _ => (10, digits),
    };
    // `from_str_radix` would take a second sign.
    let number = u64::from_str_radix(digits, base)
        .ok()
        .filter(|_| !digits.starts_with('+'))?;
    (number == 0 || sign != "-").then_some(number)
}

pub(super) enum Received {
    Nothing,
    Message(Datagram),
    /// Not to be passed on, and why.
    Refused(Vec<OwnedFd>, String),
}

/// Room for the control data of one message: credentials and as many descriptors as there can be.
/// Aligned as a `cmsghdr`.
#[repr(C, align(8))]
pub(super) struct Control(pub(super) [u8; 1200]);

/// `recvmsg(2)` of one message. The caller closes the descriptors.
#[allow(clippy::cast_ptr_alignment, reason = "read unaligned")]
pub(super) fn receive(socket: &OwnedFd) -> io::Result<Received> {
    let mut text = vec![0; LONGEST + 1];
    let mut control = Control([0; 1200]);
    let mut vector = libc::iovec {
        iov_base: text.as_mut_ptr().cast(),
        iov_len: text.len(),
    };
    let mut descriptors = vec![];
    let mut sender = None;
    // SAFETY: the header points to buffers of the sizes that it names, which outlive the call; the
    // control data is walked by the macros of cmsg(3), and each descriptor in it is new, and no
    // other code owns it.
    let (length, flags) = unsafe {
        let mut header: libc::msghdr = mem::zeroed();
        header.msg_iov = &raw mut vector;
        header.msg_iovlen = 1;
        header.msg_control = control.0.as_mut_ptr().cast();
        header.msg_controllen = control.0.len() as _;
        let length = libc::recvmsg(
            socket.as_raw_fd(),
            &raw mut header,
            libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC,
        );
        if length < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::WouldBlock {
                Ok(Received::Nothing)
            } else {
                Err(error)
            };
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
    text.truncate(length);
    let why = match sender {
        _ if flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 || length > LONGEST => {
            "it is longer than 4096 bytes, or there is no room for its descriptors".into()
        }
        Some(_) if text.strip_suffix(b"\0").unwrap_or(&text).contains(&0) => {
            "it holds a NUL byte".into()
        }
        Some(sender) if is_heard(sender) => {
            return Ok(Received::Message(Datagram { text, descriptors }));
        }
        Some(sender) => format!(
            "pid {} (uid {}) is not a descendant",
            sender.pid, sender.uid
        ),
        None => "it comes without credentials".into(),
    };
    Ok(Received::Refused(descriptors, why))
}

/// The child and its descendants; of senders that are gone already, those of our user.
fn is_heard(sender: libc::ucred) -> bool {
    // 0 is a process of another PID namespace, which is not a descendant of ours whatever became of
    // it.
    tree::descends(sender.pid)
        || (sender.pid != 0 && sender.uid == user() && tree::Process::read(sender.pid).is_none())
}

#[cfg(test)]
#[path = "../../../tests/fuzz/message.rs"]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_harmless_message_passes_byte_for_byte() {
        for text in [
            "READY=1",
            "READY=1\n",
            "STATUS=a\n\nX_Y=MAINPID=1\r",
            "\n",
            "MAINPIDX=1",
            "STATUS=C:\\dir\\",
            "READY=1\0",
        ] {
            let message = Message::parse(text.as_bytes());
            assert_eq!(
                (message.text, message.keeps_descriptors),
                (text.as_bytes().to_vec(), true)
            );
        }
    }

    #[test]
    fn a_line_that_names_the_main_process_is_withheld() {
        for (text, kept) in [
            ("READY=1\nMAINPID=7", "READY=1"),
            ("MAINPID=7\nREADY=1\n\0", "READY=1"),
            ("NOTIFYACCESS=all\nMAINPIDFDID=9\nSTATUS=x", "STATUS=x"),
            ("MAINPID=7", ""),
            // systemd splits at a carriage return, too, and drops backslashes.
            ("READY=1\rMAINPID=7", "READY=1"),
            ("M\\AINPID=7\nSTATUS=C:\\\\dir", "STATUS=C:\\\\dir"),
            ("READY=1\n\\NOTIFYACCESS\\=all", "READY=1"),
            // To a systemd before 247 the second line is one.
            ("STATUS=a\\\nMAINPID=7\nREADY=1", "READY=1"),
            // systemd ignores a message that ends within an escape.
            ("READY=1\nMAINPID=7\\", ""),
        ] {
            assert_eq!(
                Message::parse(text.as_bytes()).text,
                kept.as_bytes(),
                "{text}"
            );
        }
        assert!(!Message::parse(b"READY=1\nMAINPIDFD\\=1").keeps_descriptors);
        assert!(Message::parse(b"F\\DSTORE=1\rMAINPIDFD=1").keeps_descriptors);
    }

    #[test]
    fn a_request_for_more_time_is_read_as_systemd_reads_it() {
        let extend = |text: &str| {
            Message::parse(text.as_bytes())
                .extend
                .map(|wait| wait.as_micros())
        };
        for (text, usec) in [
            ("STOPPING=1\nEXTEND_TIMEOUT_USEC=2500000", 2_500_000),
            ("STOPPING=1\rEXTEND_TIMEOUT_\\USEC= +500\0", 500),
            ("EXTEND_TIMEOUT_USEC=7\nEXTEND_TIMEOUT_USEC=8", 7),
            ("EXTEND_TIMEOUT_USEC=0x1f", 31),
            ("EXTEND_TIMEOUT_USEC=010", 8),
            ("EXTEND_TIMEOUT_USEC=0o10", 8),
            ("EXTEND_TIMEOUT_USEC=0b10", 2),
        ] {
            assert_eq!(extend(text), Some(usec), "{text}");
        }
        for number in [
            "",
            "-1",
            "1s",
            "1 ",
            "0x",
            "08",
            "0x+1",
            "++1",
            "0",
            "-0",
            "18446744073709551615",
            "1\\",
        ] {
            assert_eq!(
                extend(&format!("EXTEND_TIMEOUT_USEC={number}")),
                None,
                "{number}"
            );
        }
        assert_eq!(extend("XEXTEND_TIMEOUT_USEC=1"), None);
        // The first line counts, valid or not.
        assert_eq!(extend("EXTEND_TIMEOUT_USEC=x\nEXTEND_TIMEOUT_USEC=8"), None);
    }
}
