//! A container with a memory limit, in which the kernel's OOM killer ends the command. The log and
//! the report agree with the counter of the control group. After a plain SIGKILL they do not
//! mention the OOM killer.

use serde_json::json;

use crate::common::skip;
use crate::engine::no_containers;
use crate::runc::Bundle;

/// 24 MiB, without swap, which is less than the command needs.
const LIMIT: u64 = 24 << 20;

fn limited(options: &[&str], script: &str) -> Bundle {
    Bundle::script(options, script).with(|config| {
        config["linux"]["resources"]["memory"] = json!({ "limit": LIMIT, "swap": LIMIT });
    })
}

/// busybox tail holds the whole line in memory.
const HUNGRY: &str = "echo ready; exec /bin/busybox tail -c 1000000000 /dev/zero";

#[test]
fn the_oom_killers_work_is_said_with_the_limit() {
    if skip(no_containers(&["runc"])) {
        return;
    }
    for (options, during) in [(&["--report", "/report"][..], true), (&[], false)] {
        let mut container = limited(options, HUNGRY).start();
        container.ready();
        assert_eq!(container.end(), 137);
        let log = container.whole_log();
        let said = if during { " during the run" } else { "" };
        let part = format!(
            "was killed by SIGKILL after {{}}; the kernel's OOM killer killed 1 process in this control group{said} (limit 24 MiB)"
        );
        let (before, after) = part.split_once("{}").expect("two parts");
        assert!(log.contains(before) && log.contains(after), "{log}");
        if during {
            let report = container.place.report();
            let expected = json!({ "kills": 1, "during_run": true, "limit_bytes": LIMIT });
            assert_eq!(report["oom"], expected);
        }
    }
}

/// bowout is a shell's child, not PID 1: once as systemd would start it, and once as another
/// program would.
#[test]
fn the_main_process_of_a_unit_says_it_without_a_report() {
    if skip(no_containers(&["runc"])) {
        return;
    }
    for (main, says) in [("$$", true), ("1", false)] {
        let inner = format!(
            "SYSTEMD_EXEC_PID={main} exec /bowout -- /bin/busybox tail -c 1000000000 /dev/zero"
        );
        let script = format!("echo ready; /bin/busybox sh -c '{inner}'; exit 7");
        let mut container = limited(&[], &script).start();
        container.ready();
        assert_eq!(container.end(), 7);
        let log = container.whole_log();
        let part = "; the kernel's OOM killer killed 1 process in this control group during the run (limit 24 MiB)";
        assert!(log.contains("was killed by SIGKILL"), "{log}");
        assert_eq!(log.contains(part), says, "{log}");
        assert_eq!(log.contains("OOM"), says, "{log}");
    }
}

#[test]
fn a_plain_sigkill_claims_nothing() {
    if skip(no_containers(&["runc"])) {
        return;
    }
    let script = "echo ready; kill -9 $$";
    let mut container = limited(&["--report", "/report"], script).start();
    container.ready();
    assert_eq!(container.end(), 137);
    let log = container.whole_log();
    assert!(
        log.contains("was killed by SIGKILL") && !log.contains("OOM"),
        "{log}"
    );
    assert!(container.place.report()["oom"].is_null());
}
