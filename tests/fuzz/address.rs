//! Fuzz target of NOTIFY_SOCKET.

use super::*;
use crate::fuzz::fuzz;

fn an_address(input: &[u8]) {
    // A variable cannot hold one.
    if input.contains(&0) {
        return;
    }
    let address = unix_address(OsStr::from_bytes(input)).map_err(|error| error.kind());
    // struct sockaddr_un has 108 bytes, one of them the NUL byte after a path or before a name.
    match input {
        [b'/', ..] if input.len() < 108 => {
            assert_eq!(
                address
                    .unwrap()
                    .as_pathname()
                    .unwrap()
                    .as_os_str()
                    .as_bytes(),
                input
            );
        }
        [b'@', name @ ..] if name.len() < 108 => {
            assert_eq!(address.unwrap().as_abstract_name(), Some(name));
        }
        _ => assert_eq!(address.unwrap_err(), ErrorKind::InvalidInput),
    }
}

#[test]
fn address() {
    fuzz("address", 5000, an_address);
}
