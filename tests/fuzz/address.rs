//! Fuzz target of NOTIFY_SOCKET.

use super::*;
use crate::fuzz::fuzz;

fn an_address(input: &[u8]) {
    // A variable cannot contain a NUL byte.
    if input.contains(&0) {
        return;
    }
    let address = unix_address(OsStr::from_bytes(input));
    // struct sockaddr_un has 108 bytes, one of them the NUL byte after a path or before a name.
    match input {
        [b'/', ..] if input.len() < 108 => {
            let path = address.unwrap().path().unwrap().to_owned();
            assert_eq!(path.as_os_str().as_bytes(), input);
        }
        [b'@', name @ ..] if name.len() < 108 => {
            assert_eq!(address.unwrap().as_abstract(), Some(name));
        }
        _ => assert!(address.is_none(), "not an address"),
    }
}

#[test]
fn address() {
    fuzz("address", 5000, an_address);
}
