//! The text of one message, read as systemd reads it, as far as it concerns bowout.

use std::time::Duration;

/// The content of a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// The bytes to relay: those that were received, without the lines that bowout leaves out.
    pub(super) text: Vec<u8>,
    /// How much more time the child asks for (`EXTEND_TIMEOUT_USEC=`).
    pub(super) extend: Option<Duration>,
    /// `READY=1` and `WATCHDOG=1`.
    pub(super) ready: bool,
    pub(super) alive: bool,
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
        let whole = text.strip_suffix(b"\0").unwrap_or(text);
        // systemd from 247 on ignores a message that ends within an escape. Leaving out lines must
        // not make the others valid.
        let is_cut = whole
            .iter()
            .rev()
            .take_while(|&&byte| byte == b'\\')
            .count()
            % 2
            == 1;
        let is_withheld = |(raw, line): &(&[u8], Vec<u8>)| {
            let names = |text: &[u8]| WITHHELD.iter().any(|name| text.starts_with(name));
            // systemd before 247 has no escapes: a newline after a backslash ends a line, too.
            !is_cut && names(line) || raw.split(|&byte| is_newline(byte)).any(names)
        };
        let (withheld, kept): (Vec<_>, Vec<_>) = lines(whole)
            .map(|raw| (raw, unescape(raw)))
            .partition(is_withheld);
        let text = match (&withheld[..], is_cut) {
            ([], _) => text.to_vec(),
            (_, true) => vec![],
            (_, false) => kept
                .iter()
                .map(|(raw, _)| *raw)
                .collect::<Vec<_>>()
                .join(&b'\n'),
        };
        let wish = kept
            .iter()
            .find_map(|(_, line)| line.strip_prefix(b"EXTEND_TIMEOUT_USEC="));
        // The pidfd of MAINPIDFD=1 is dropped with its line.
        let pidfd = withheld
            .iter()
            .any(|(_, line)| line.starts_with(b"MAINPIDFD="));
        let says = |wanted: &[u8]| !is_cut && kept.iter().any(|(_, line)| line == wanted);
        Self {
            ready: says(b"READY=1"),
            alive: says(b"WATCHDOG=1"),
            text,
            // To systemd, 0 and the greatest number are not a time (`timestamp_is_set()`).
            extend: wish
                .filter(|_| !is_cut)
                .and_then(number)
                .filter(|usec| ![0, u64::MAX].contains(usec))
                .map(Duration::from_micros),
            keeps_descriptors: !pidfd || kept.iter().any(|(_, line)| line == b"FDSTORE=1"),
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
    let text = std::str::from_utf8(text).ok()?.to_ascii_lowercase();
    let text = text.trim_start_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c']);
    let (sign, digits) = text.split_at(usize::from(text.starts_with(['+', '-'])));
    let prefix = |&(prefix, base)| Some((base, digits.strip_prefix(prefix)?));
    let plain = if digits.starts_with('0') { 8 } else { 10 };
    let (base, digits) = [("0x", 16), ("0o", 8), ("0b", 2)]
        .iter()
        .find_map(prefix)
        .unwrap_or((plain, digits));
    // `from_str_radix` would take a second sign.
    let number = u64::from_str_radix(digits, base)
        .ok()
        .filter(|_| !digits.starts_with('+'))?;
    (number == 0 || sign != "-").then_some(number)
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
