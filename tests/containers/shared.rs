//! A PID namespace with neighbours, as in a pod with shareProcessNamespace: bowout is not PID 1,
//! and not alone.

use serde_json::json;

use crate::common::{Got, field, skip};
use crate::engine::no_containers;
use crate::runc::Bundle;
use crate::runc::Container;

fn joined(bundle: Bundle, pause: &Container) -> Container {
    let path = format!("/proc/{}/ns/pid", pause.place.pid());
    bundle
        .with(|config| {
            let spaces = config["linux"]["namespaces"]
                .as_array_mut()
                .expect("a list");
            let pid = spaces
                .iter_mut()
                .find(|space| space["type"] == "pid")
                .expect("a PID namespace");
            pid["path"] = json!(path);
        })
        .start()
}

/// Makes the container exit by SIGUSR1. Returns the signals that it received.
fn signals(container: &mut Container) -> Vec<i32> {
    container.place.kill("USR1");
    assert_eq!(container.end(), 7);
    container
        .out
        .rest()
        .iter()
        .filter_map(|line| Got::parse(line))
        .map(|got| got.signal)
        .collect()
}

fn neighbours_survive(no_proc: bool) {
    let script = "trap '' TERM; sleep 1000 & (setsid sleep 1000 &); echo ready; wait";
    let bowout =
        format!("exec /bowout --grace 500ms --report /report -- busybox sh -c \"{script}\"");
    let start = if no_proc {
        format!("umount -l /proc && {bowout}")
    } else {
        bowout
    };
    let bystander = || {
        let mut bundle = Bundle::probe(&[], &[]);
        bundle.config["process"]["args"] = json!(["/probe", "signals", "--exit", "USR1:7"]);
        bundle
    };
    let mut pause = bystander().start();
    pause.ready();
    let mut neighbour = joined(bystander(), &pause);
    neighbour.ready();
    let bundle = Bundle::new(&["/bin/busybox", "sh", "-c", &start]).with(|config| {
        for set in ["bounding", "effective", "permitted"] {
            config["process"]["capabilities"][set] = json!(["CAP_KILL", "CAP_SYS_ADMIN"]);
        }
    });
    let mut container = joined(bundle, &pause);
    container.ready();
    // Its PID in each namespace, from the test's inwards.
    let pids = field(container.place.pid(), "NSpid");
    assert_ne!(pids.split('\t').next_back(), Some("1"));
    container.place.kill("TERM");
    assert_eq!(container.end(), 137);
    let report = container.place.report();
    if !no_proc {
        assert_eq!(report["descendants"]["killed"], 2, "{report}");
    }
    assert_eq!(signals(&mut neighbour), [libc::SIGUSR1]);
    // PID 1 also receives SIGCHLD, because it adopts orphans.
    assert_eq!(
        signals(&mut pause)
            .iter()
            .filter(|signal| **signal != libc::SIGCHLD)
            .count(),
        1
    );
}

#[test]
fn neighbours_in_a_shared_namespace_survive_the_escalation() {
    if skip(no_containers(&["runc"])) {
        return;
    }
    neighbours_survive(false);
}

#[test]
fn neighbours_survive_without_proc_too() {
    if skip(no_containers(&["runc"])) {
        return;
    }
    neighbours_survive(true);
}
