//! Fuzz target of NOTIFY_SOCKET.

use super::*;
use crate::fuzz::fuzz;

/// `KIND:CID:PORT`, as sd_notify(3) has it.
fn far(text: &[u8]) -> Option<(usize, u32, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let [kind, cid, port] = text.split(':').collect::<Vec<_>>()[..] else {
        return None;
    };
    let kinds = match kind {
        "vsock" => 3,
        "vsock-dgram" | "vsock-seqpacket" | "vsock-stream" => 1,
        _ => return None,
    };
    Some((kinds, cid.parse().ok()?, port.parse().ok()?))
}

fn an_address(input: &[u8]) {
    // A variable cannot hold one.
    if input.contains(&0) {
        return;
    }
    let manager = Manager::read(OsStr::from_bytes(input));
    let is_local = matches!(input.first(), Some(b'/' | b'@'));
    // struct sockaddr_un has 108 bytes, one of them the NUL behind a path.
    let fits = input.len()
        <= if input.first() == Some(&b'@') {
            108
        } else {
            107
        };
    let Some(manager) = manager else {
        return assert!(
            !(is_local && fits) && far(input).is_none(),
            "{:?} is an address",
            input.escape_ascii()
        );
    };
    let address = &manager.address;
    assert!(address.length as usize <= address.bytes.len() && manager.socket.is_none());
    if is_local {
        assert!(fits, "too long for an address");
        assert_eq!(
            (address.family(), manager.is_local()),
            (libc::AF_UNIX, true)
        );
        let name = &address.bytes[FAMILY..address.length as usize];
        let wanted = match input {
            [b'@', name @ ..] => [b"\0", name].concat(),
            path => [path, b"\0"].concat(),
        };
        assert_eq!(name, wanted);
    } else {
        let (kinds, cid, port) = far(input).expect("an address that is none");
        assert_eq!(
            (address.family(), manager.kinds.len()),
            (libc::AF_VSOCK, kinds)
        );
        assert_eq!(
            address.bytes[4..12],
            [port.to_ne_bytes(), cid.to_ne_bytes()].concat()[..]
        );
    }
}

#[test]
fn address() {
    fuzz("address", 5000, an_address);
}
