//! Fuzz target of the messages that the command sends to the service manager.

use super::*;
use crate::fuzz::fuzz;

/// Lines that would make the command the manager's main process, or have it listen to others.
fn is_withheld(line: &[u8]) -> bool {
    let name = line.split(|&byte| byte == b'=').next().unwrap_or_default();
    let names: [&[u8]; 4] = [b"MAINPID", b"MAINPIDFD", b"MAINPIDFDID", b"NOTIFYACCESS"];
    names.contains(&name) && line.contains(&b'=')
}

/// The microseconds of the last line that has some; a plus sign is as good as none, to systemd too.
fn more_time(lines: &[&[u8]]) -> Option<u64> {
    let number = |line: &&[u8]| {
        let text = std::str::from_utf8(line).ok()?.strip_prefix("EXTEND_TIMEOUT_USEC=")?;
        let digits = text.strip_prefix('+').unwrap_or(text);
        let all = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        digits
            .bytes()
            .filter(|_| all)
            .try_fold(0u64, |sum, digit| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
            .filter(|_| all)
    };
    lines.iter().rev().find_map(number)
}

fn a_message(input: &[u8]) {
    let lines: Vec<&[u8]> = input.split(|&byte| byte == b'\n').collect();
    let message = Message::parse(input);
    let kept: Vec<_> = lines.iter().copied().filter(|line| !is_withheld(line)).collect();
    assert_eq!(message.text, kept.join(&b'\n'), "not what was left");
    assert!(kept.len() < lines.len() || message.text == input, "harmless, and changed");
    assert_eq!(message.extend, more_time(&lines).map(Duration::from_micros));
    let stores = lines.contains(&&b"FDSTORE=1"[..]);
    let hands_over = lines.iter().any(|line| line.starts_with(b"MAINPIDFD="));
    assert_eq!(message.keeps_descriptors, stores || !hands_over);
    // What was left is harmless.
    let again = Message::parse(&message.text);
    assert_eq!((again.text, again.extend), (message.text, message.extend));
}

#[test]
fn message() {
    fuzz("message", 5000, a_message);
}
