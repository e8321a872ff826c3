//! Socket activation: the command has the socket, systemd keeps it, bowout has no copy.

use std::fs;
use std::path::PathBuf;

use crate::common;
use crate::machine::tell;
use crate::unit::Unit;

/// The sockets that a process holds.
pub fn sockets(unit: &Unit, pid: i32) -> Vec<String> {
    let directory: PathBuf = unit.machine().path(format!("/proc/{pid}/fd"));
    let links = fs::read_dir(directory).into_iter().flatten().flatten();
    let targets =
        links.filter_map(|entry| Some(fs::read_link(entry.path()).ok()?.to_str()?.to_owned()));
    targets
        .filter(|target| target.starts_with("socket:"))
        .collect()
}

#[test]
fn the_listening_socket_is_the_commands_and_bowout_keeps_no_copy() {
    let service = "[Service]\nKillMode=mixed\nType=exec\nExecStart=@B -- @N listen say ready wait TERM end exit 0";
    let socket = "[Socket]\nListenStream=/run/test/@U/one\nListenStream=/run/test/@U/two\nFileDescriptorName=web";
    let Some(unit) = Unit::with("activated", service, &[("socket", socket)]) else {
        return;
    };
    let socket = format!("{}.socket", unit.name);
    assert_eq!(unit.machine().systemctl(["start", &socket]), "");
    unit.start();
    unit.says("ready");
    let found = unit.says("listen ");
    // Since systemd 259, there is a pidfd's inode as well.
    assert!(
        found.starts_with("listen 2 names web:web pid mine ") && !found.ends_with("another's"),
        "{found}"
    );
    let (bowout, child) = (unit.main_pid(), unit.child_pid());
    let theirs = sockets(&unit, child);
    // Descriptors 3 and 4 are the listening sockets.
    let listening: Vec<String> = (3..5)
        .map(|fd| {
            fs::read_link(unit.machine().path(format!("/proc/{child}/fd/{fd}")))
                .expect("a descriptor")
        })
        .map(|target| target.to_str().expect("text").to_owned())
        .collect();
    assert!(
        listening
            .iter()
            .all(|one| theirs.contains(one) && one.starts_with("socket:")),
        "{listening:?} {theirs:?}"
    );
    common::until("bowout has let go of them", || {
        sockets(&unit, bowout)
            .iter()
            .all(|own| !listening.contains(own))
            .then_some(())
    });
    tell(&format!(
        "{found}; child {listening:?}; bowout {:?}",
        sockets(&unit, bowout)
    ));
    assert_eq!(unit.machine().systemctl(["stop", &socket, &unit.name]), "");
    assert_eq!(unit.ended().get("Result"), "success");
}
