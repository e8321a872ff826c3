//! A root file system that contains the static binary alone, and one without /proc.

use serde_json::json;

use crate::common::{probe, skip};
use crate::engine::{bowout, no_containers, put};
use crate::runc::Bundle;
use crate::stop::SLOW_GRANDCHILD;

/// Only /proc, without which runc does not start a container, and the devices that runc makes.
fn empty(line: &[&str]) -> Bundle {
    Bundle::empty(line).with(|config| {
        config["mounts"] = json!([{ "destination": "/proc", "type": "proc", "source": "proc" }]);
        config["linux"]["maskedPaths"] = json!([]);
        config["linux"]["readonlyPaths"] = json!([]);
        config["process"]["env"] = json!([]);
    })
}

#[test]
fn the_static_binary_needs_no_other_file() {
    if skip(no_containers(&["runc"])) {
        return;
    }
    // bowout is the only program there, so one bowout runs another.
    let mut container = empty(&["/bowout", "--", "/bowout", "--version"]).start();
    assert_eq!(container.end(), 0);
    assert_eq!(
        container.out.rest(),
        [format!("bowout {}", env!("CARGO_PKG_VERSION"))]
    );
    let mut container = empty(&["/bowout", "--", "/bowout", "--", "/nothing"]).start();
    assert_eq!(container.end(), 127);
    let log = container.whole_log();
    assert!(
        log.contains("bowout: cannot run '/nothing': No such file or directory"),
        "{log}"
    );
    let mut container = empty(&["/bowout", "--", "sh"]).start();
    assert_eq!(container.end(), 127);
}

/// At the path where dockerd mounts it, and with the option by which dockerd gets the version.
#[test]
fn dockers_init_needs_no_option() {
    if skip(no_containers(&["runc"])) {
        return;
    }
    let init = |words: &[&str]| {
        let bundle = empty(&[&["/sbin/docker-init"], words].concat());
        put(&bundle.root(), bowout(), "/sbin/docker-init");
        bundle
    };
    let bundle = init(&["--", "/probe", "signals", "--exit", "TERM:6"]);
    put(&bundle.root(), probe(), "/probe");
    let mut container = bundle.start();
    container.ready();
    container.place.kill("TERM");
    assert_eq!(container.end(), 6);
    let mut container = init(&["--version"]).start();
    assert_eq!(container.end(), 0);
    let line = container.out.rest().join("\n");
    let version = line
        .strip_prefix("tini version ")
        .unwrap_or_else(|| panic!("{line}"));
    assert!(
        version
            .split_once(" - git.")
            .is_some_and(|(a, b)| !a.is_empty() && !b.is_empty()),
        "{line}"
    );
}

#[test]
fn a_stop_needs_no_other_file() {
    if skip(no_containers(&["runc"])) {
        return;
    }
    let bundle = empty(&[
        "/bowout", "--grace", "1h", "--", "/probe", "signals", "--exit", "TERM:6",
    ]);
    put(&bundle.root(), probe(), "/probe");
    let mut container = bundle.start();
    container.ready();
    container.place.kill("TERM");
    assert_eq!(container.end(), 6);
    assert!(container.place.file("etc").is_none());
    let bundle = empty(&[
        "/bowout",
        "--grace",
        "500ms",
        "--",
        "/probe",
        "tree",
        "5",
        "--stubborn",
    ]);
    put(&bundle.root(), probe(), "/probe");
    let mut container = bundle.start();
    container.ready();
    container.place.kill("TERM");
    assert_eq!(container.end(), 137);
    assert!(
        container
            .whole_log()
            .contains("killed 5 descendants, too ("),
        "{}",
        container.whole_log()
    );
}

/// runc itself needs /proc, so the script unmounts it before bowout is executed.
#[test]
fn nothing_depends_on_proc() {
    if skip(no_containers(&["runc"])) {
        return;
    }
    let script = |options: &str, script: &str| {
        let line = format!(
            "umount -l /proc && [ ! -e /proc/self ] && exec /bowout {options} -- busybox sh -c \"{script}\""
        );
        Bundle::new(&["/bin/busybox", "sh", "-c", &line])
            .with(|config| {
                for set in ["bounding", "effective", "permitted"] {
                    config["process"]["capabilities"][set] = json!(["CAP_KILL", "CAP_SYS_ADMIN"]);
                }
            })
            .start()
    };
    let mut container = script("", SLOW_GRANDCHILD);
    container.ready();
    container.place.kill("TERM");
    assert_eq!(container.end(), 143);
    assert_eq!(container.place.file("finished").as_deref(), Some("done\n"));
    let mut container = script(
        "--grace 500ms",
        "trap '' TERM; sleep 1000 & (setsid sleep 1000 &); echo ready; wait",
    );
    container.ready();
    container.place.kill("TERM");
    assert_eq!(container.end(), 137);
    assert!(
        container
            .whole_log()
            .contains("grace period of 500ms is over")
    );
}
