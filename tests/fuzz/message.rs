//! Fuzz target of the messages that the command sends to the service manager.
//!
//! The judge reads a message as systemd does, byte by byte as `extract_first_word()` does there. It
//! shares no code with the parser.

use super::*;
use crate::fuzz::fuzz;

/// A line that systemd reads from a message, and the bytes that it was read from.
#[derive(Clone, Debug, Default, PartialEq)]
struct Line {
    read: Vec<u8>,
    raw: Vec<u8>,
}

/// The lines that systemd reads from a message; None where the message ends within an escape.
fn read_by_systemd(message: &[u8], unescapes: bool) -> Option<Vec<Line>> {
    let message = if message.last() == Some(&0) {
        &message[..message.len() - 1]
    } else {
        message
    };
    let mut lines = vec![];
    let mut line: Option<Line> = None;
    let mut bytes = message.iter().copied();
    while let Some(byte) = bytes.next() {
        if let b'\n' | b'\r' = byte {
            lines.extend(line.take());
            continue;
        }
        let line = line.get_or_insert_default();
        line.raw.push(byte);
        if unescapes && byte == b'\\' {
            line.raw.push(bytes.next()?);
            line.read.push(*line.raw.last().unwrap());
        } else {
            line.read.push(byte);
        }
    }
    lines.extend(line);
    Some(lines)
}

/// Returns true for a line that would make the command the manager's main process, or make the
/// manager obey other processes.
fn is_withheld(line: &[u8]) -> bool {
    let name = line.split(|&byte| byte == b'=').next().unwrap_or_default();
    let names: [&[u8]; 4] = [b"MAINPID", b"MAINPIDFD", b"MAINPIDFDID", b"NOTIFYACCESS"];
    names.contains(&name) && line.contains(&b'=')
}

/// Reads a number by the C library, as systemd does except for the prefixes 0b and 0o.
fn number_by_the_c_library(text: &[u8]) -> Option<u64> {
    let text = std::ffi::CString::new(text).ok()?;
    let start = text
        .as_bytes()
        .iter()
        .position(|byte| !b" \t\n\r".contains(byte))
        .unwrap_or(0);
    let (minus, rest) = (
        text.as_bytes().get(start) == Some(&b'-'),
        &text.as_c_str()[start..],
    );
    let mut end = std::ptr::null_mut();
    // SAFETY: a C string, and a pointer that is written to; errno is this thread's own.
    let (value, error, left) = unsafe {
        *libc::__errno_location() = 0;
        let value = libc::strtoull(rest.as_ptr(), &raw mut end, 0);
        (value, *libc::__errno_location(), *end)
    };
    (error == 0 && left == 0 && !std::ptr::eq(end, rest.as_ptr()) && !(minus && value != 0))
        .then_some(value)
}

fn a_message(input: &[u8]) {
    // `receive` refuses a NUL byte before the last place, as systemd does.
    if input.iter().rev().skip(1).any(|&byte| byte == 0) {
        return;
    }
    let message = Message::parse(input);
    let (new, old) = (
        read_by_systemd(input, true),
        read_by_systemd(input, false).unwrap(),
    );
    let has_withheld = |lines: &[Line]| lines.iter().any(|line| is_withheld(&line.read));
    let harmless = !has_withheld(&old) && !new.as_ref().is_some_and(|lines| has_withheld(lines));
    assert!(!harmless || message.text == input, "harmless, and changed");

    // Neither kind of systemd reads a withheld line from the text, and each line that it reads was
    // in the message.
    let sent_old = read_by_systemd(&message.text, false).unwrap();
    assert!(
        !has_withheld(&sent_old) && sent_old.iter().all(|line| old.contains(line)),
        "{sent_old:?}"
    );
    let sent = read_by_systemd(&message.text, true);
    let lines = new.unwrap_or_default();
    let is_kept = |line: &&Line| {
        !is_withheld(&line.read) && !has_withheld(&read_by_systemd(&line.raw, false).unwrap())
    };
    let kept: Vec<_> = lines.iter().filter(is_kept).cloned().collect();
    assert_eq!(sent.unwrap_or_default(), kept, "not what was left");

    let wish = kept
        .iter()
        .find_map(|line| line.read.strip_prefix(b"EXTEND_TIMEOUT_USEC="));
    let plain = |text: &&[u8]| !text.iter().any(|byte| b"bBoO".contains(byte));
    if let Some(wish) = wish.filter(plain) {
        let wanted = number_by_the_c_library(wish).filter(|usec| *usec != 0 && *usec != u64::MAX);
        assert_eq!(
            message.extend,
            wanted.map(Duration::from_micros),
            "{}",
            wish.escape_ascii()
        );
    }
    assert!(wish.is_some() || message.extend.is_none());
    let stores = kept.iter().any(|line| line.read == b"FDSTORE=1");
    let hands_over = lines
        .iter()
        .any(|line| line.read.starts_with(b"MAINPIDFD="));
    assert!(stores == message.keeps_descriptors || !hands_over);
    // The remaining message is harmless.
    let again = Message::parse(&message.text);
    assert_eq!((again.text, again.extend), (message.text, message.extend));
}

#[test]
fn message() {
    fuzz("message", 20_000, a_message);
}
