//! For every end of a command, systemd reports the same result of the service as without bowout.

use crate::common::skip;
use crate::machine::tell;
use crate::unit::{END, Shown, Unit, no_cores};

struct Case {
    name: &'static str,
    /// Lines to add to the unit.
    lines: &'static str,
    /// The script of the shell.
    script: &'static str,
    /// For a unit that restarts and stays: the test stops it after this many lines with this
    /// beginning.
    stays: Option<(&'static str, usize)>,
}

const fn case(name: &'static str, lines: &'static str, script: &'static str) -> Case {
    Case {
        name,
        lines,
        script,
        stays: None,
    }
}

const CASES: &[Case] = &[
    case("exit-0", "", "exit 0"),
    case("exit-1", "", "exit 1"),
    case("exit-143", "", "exit 143"),
    case("exit-143-is-success", "SuccessExitStatus=143", "exit 143"),
    case("died-of-term", "", "kill -TERM $$$$"),
    case("died-of-kill", "", "kill -KILL $$$$"),
    case(
        "died-of-kill-is-success",
        "SuccessExitStatus=SIGKILL",
        "kill -KILL $$$$",
    ),
    case("died-of-usr1", "", "kill -USR1 $$$$"),
    case(
        "on-abnormal-exit-1",
        "Restart=on-abnormal\nRestartSec=0",
        "exit 1",
    ),
    case(
        "on-abnormal-term",
        "Restart=on-abnormal\nRestartSec=0",
        "kill -TERM $$$$",
    ),
    Case {
        name: "on-abnormal-kill",
        lines: "Restart=on-abnormal\nRestartSec=0",
        script: "echo run; if [ -e once ]; then exec @P signals --die TERM; fi; : >once; kill -KILL $$$$",
        stays: Some(("ready ", 1)),
    },
    Case {
        name: "on-abort-abrt",
        lines: "Restart=on-abort\nRestartSec=0\nLimitCORE=0",
        script: "echo run; if [ -e once ]; then exec @P signals --die TERM; fi; : >once; kill -ABRT $$$$",
        stays: Some(("ready ", 1)),
    },
    case(
        "prevented",
        "Restart=always\nRestartSec=0\nRestartPreventExitStatus=SIGKILL 7",
        "exit 7",
    ),
    case(
        "prevented-by-signal",
        "Restart=always\nRestartSec=0\nRestartPreventExitStatus=SIGKILL 7",
        "kill -KILL $$$$",
    ),
];

/// The final state of the unit, the lines that ExecStopPost= wrote, and the number of cores.
fn run(case: &Case, before: &str) -> Option<(Shown, Vec<String>, usize)> {
    let post = "ExecStopPost=/bin/sh -c 'echo post $SERVICE_RESULT $EXIT_CODE $EXIT_STATUS >>post'";
    let command = format!("ExecStart={before}/bin/sh -c '{}'", case.script);
    let unit = Unit::new(
        case.name,
        &format!("Type=simple\n{}\n{post}\n{command}", case.lines),
    )?;
    unit.start();
    if let Some((line, count)) = case.stays {
        unit.says_often(line, count);
        let there = unit.show(END);
        assert_eq!(
            there.get("ActiveState"),
            "active",
            "{}: {there:?}",
            case.name
        );
        assert_eq!(there.get("NRestarts"), "1", "{}: {there:?}", case.name);
        unit.stop();
    }
    let end = unit.ended();
    let post = std::fs::read_to_string(unit.file("post")).expect("ExecStopPost=");
    Some((end, post.lines().map(str::to_owned).collect(), unit.cores()))
}

#[test]
fn every_end_is_the_same_as_without_bowout() {
    for case in CASES {
        let Some(direct) = run(case, "") else { return };
        let Some(wrapped) = run(case, "@B -- ") else {
            return;
        };
        tell(&format!("{}: {:?} {:?}", case.name, wrapped.0, wrapped.1));
        assert_eq!(direct, wrapped, "{}: without bowout, with it", case.name);
    }
}

/// The one difference (systemd.exec(5)): there is one core, the command's. bowout dies of the
/// signal without a core, so systemd reports a signal and not a core dump.
#[test]
fn a_crash_leaves_one_core_and_differs_in_nothing_else() {
    if skip(no_cores()) {
        return;
    }
    let case = case("segv", "LimitCORE=infinity", "kill -SEGV $$$$");
    let Some((direct, post, cores)) = run(&case, "") else {
        return;
    };
    assert_eq!(
        (direct.get("Result"), direct.get("ExecMainCode"), cores),
        ("core-dump", "3", 1),
        "{direct:?}"
    );
    assert_eq!(post, ["post core-dump dumped SEGV"]);
    let Some((wrapped, post, cores)) = run(&case, "@B -- ") else {
        return;
    };
    tell(&format!(
        "SIGSEGV directly: {direct:?}; wrapped: {wrapped:?} {post:?}, {cores} core"
    ));
    assert_eq!(
        (wrapped.get("Result"), wrapped.get("ExecMainCode"), cores),
        ("signal", "2", 1),
        "{wrapped:?}"
    );
    assert_eq!(post, ["post signal killed SEGV"]);
    for name in ["ActiveState", "SubState", "ExecMainStatus", "NRestarts"] {
        assert_eq!(direct.get(name), wrapped.get(name), "{name}");
    }
}

/// The stop request is not systemd's. bowout announces it to systemd, and it is still not a stop of
/// the unit.
#[test]
fn a_service_that_another_process_stops_is_restarted_as_without_bowout() {
    let words = "send READY=1 say ready wait TERM end exit 0";
    for before in ["", "@B -- "] {
        let lines =
            format!("Type=notify\nRestart=always\nRestartSec=0\nExecStart={before}@N {words}");
        let Some(unit) = Unit::new("restarted", &lines) else {
            return;
        };
        unit.start();
        let first = unit.main_pid();
        unit.kill("TERM");
        unit.says_often("ready", 2);
        unit.wait("ActiveState", "active");
        let shown = unit.show(END);
        tell(&format!(
            "stopped by another, {}: {shown:?}",
            if before.is_empty() {
                "direct"
            } else {
                "wrapped"
            }
        ));
        assert_eq!(
            (shown.get("NRestarts"), shown.get("Result")),
            ("1", "success"),
            "{shown:?}"
        );
        assert_ne!(unit.main_pid(), first);
        unit.stop();
        assert_eq!(unit.ended().get("Result"), "success");
    }
}
