//! The default grace period: less than the engine's own, so that bowout kills and reports before
//! the engine does.

use crate::common::pty::{CTRL_C, Shell};
use crate::common::{BOWOUT, Home, NOTHING, Running, Start, Status, homes, probe};

const CATCH: &str = "-- probe terminal --catch 64";

const TERM: i32 = libc::SIGTERM;

/// The text after "SIGKILL in " in the log line of the stop request.
fn announced(mut bowout: Running) -> String {
    bowout.ready();
    bowout.kill(TERM);
    assert_eq!(bowout.end(), Status::Code(3));
    let log = bowout.log();
    let line = log
        .iter()
        .find(|line| line.contains("SIGKILL in "))
        .unwrap_or_else(|| panic!("{log:#?}"));
    line.split_once("SIGKILL in ").expect("found").1.to_owned()
}

const OBEYS: [&str; 3] = ["signals", "--exit", "TERM:3"];

#[test]
fn the_default_grace_period_follows_from_the_engine() {
    for home in homes() {
        for (name, value, grace) in [
            ("KUBERNETES_SERVICE_HOST", "10.0.0.1", "25s (default)"),
            (
                "ECS_CONTAINER_METADATA_URI_V4",
                "http://169.254.170.2/v4/x",
                "25s (default)",
            ),
            ("DYNO", "web.1", "25s (default)"),
            ("CONTAINER_APP_NAME", "app", "25s (default)"),
            ("DYNO", "", "8s (default)"),
            // INVOCATION_ID counts only if bowout's parent is PID 1, SYSTEMD_EXEC_PID only if it
            // names bowout.
            ("INVOCATION_ID", "x", "8s (default)"),
            ("SYSTEMD_EXEC_PID", "2", "8s (default)"),
            ("BOWOUT_GRACE", "7", "7s"),
        ] {
            assert_eq!(
                announced(Start::plain().env(name, value).at(home).probe(OBEYS)),
                grace,
                "{home:?} {name}"
            );
        }
        let start = Start::new(["--grace", "5"]).env("DYNO", "web.1").at(home);
        assert_eq!(announced(start.probe(OBEYS)), "5s", "{home:?}");
    }
}

/// The variable names bowout itself, as systemd sets it for the program of ExecStart=.
fn as_a_unit(home: Home, options: &[&str]) -> Running {
    let script = "export SYSTEMD_EXEC_PID=$$; exec \"$0\" \"$@\"";
    let mut words = vec!["-c", script, BOWOUT];
    words.extend(options);
    words.extend(["--", probe().to_str().expect("text")].iter().chain(&OBEYS));
    Start::new(NOTHING).program("/bin/sh").at(home).bare(words)
}

#[test]
fn a_unit_of_systemd_has_85_seconds() {
    for home in homes() {
        assert_eq!(
            announced(as_a_unit(home, &[])),
            "1m 25s (default)",
            "{home:?}"
        );
        assert_eq!(
            announced(as_a_unit(home, &["--grace", "1m"])),
            "1m",
            "{home:?}"
        );
    }
}

/// A user at a terminal of a pod is not the kubelet.
#[test]
fn on_a_terminal_a_pod_is_like_any_other_place() {
    let mut shell = Shell::start();
    shell.probe(&format!(
        "env KUBERNETES_SERVICE_HOST=10.0.0.1 bowout {CATCH},INT"
    ));
    shell.0.type_keys(CTRL_C);
    shell.0.see("SIGKILL in 8s (default)");
    shell.0.type_keys(CTRL_C);
    assert_eq!(shell.prompt().0, 128 + libc::SIGKILL);
}
