//! Fuzz target of `/proc/PID/stat`: any bytes as the line, and any bytes as the name in a line that
//! the kernel could write.

use super::*;
use crate::fuzz::fuzz;

fn a_stat(input: &[u8]) {
    if let Some(process) = Process::parse(input) {
        // The values are in the line, after the last parenthesis.
        let close = input
            .iter()
            .rposition(|&byte| byte == b')')
            .expect("a name ends");
        let rest = String::from_utf8_lossy(&input[close + 1..]).into_owned();
        let fields: Vec<_> = rest.split_ascii_whitespace().collect();
        assert!(fields.len() >= 20, "read from half a line");
        assert!(fields[0].starts_with(process.state), "another state");
        assert_eq!(fields[1].parse(), Ok(process.parent));
        assert_eq!(fields[2].parse(), Ok(process.group));
        assert_eq!(fields[19].parse(), Ok(process.started));
    }
    // The process chooses its name: up to 15 bytes of anything but NUL.
    let name: Vec<_> = input
        .iter()
        .copied()
        .filter(|byte| *byte != 0)
        .take(15)
        .collect();
    let rest = b") D 7 9 11 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 1 1 18446744073709551615\n";
    let line = [b"5 (", &name[..], rest].concat();
    let process = Process::parse(&line).expect("a line of the kernel");
    assert_eq!(
        (process.pid, process.parent, process.group),
        (5, 7, 9),
        "fooled by {:?}",
        name.escape_ascii()
    );
    assert_eq!((process.state, process.started), ('D', 4242));
    assert_eq!(process.name, String::from_utf8_lossy(&name));
    // A line that is cut off before the end of its 22nd field is not a process.
    for end in 0..line.len() - b" 1 1 18446744073709551615\n".len() - b"4242".len() {
        assert_eq!(
            Process::parse(&line[..end]),
            None,
            "half a line, {end} bytes of it"
        );
    }
}

#[test]
fn stat() {
    fuzz("stat", 1500, a_stat);
}
