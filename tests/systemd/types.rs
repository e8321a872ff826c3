//! The types of service: systemd sees the same start and the same end as without bowout.

use crate::unit::Unit;

/// Checks that MainPID is bowout, whichever MAINPID= the command has sent.
fn main_is_bowout(unit: &Unit) {
    let name = unit.proc(unit.main_pid(), "comm");
    assert_eq!(name.trim(), "bowout");
}

fn ended_well(unit: &Unit, what: &str) {
    let end = unit.ended();
    unit.tell(what);
    assert_eq!(
        (
            end.get("Result"),
            end.get("ActiveState"),
            end.get("NRestarts")
        ),
        ("success", "inactive", "0"),
        "{end:?}"
    );
}

#[test]
fn simple_and_exec_start_and_end_as_the_command_does() {
    for kind in ["simple", "exec"] {
        let Some(unit) = Unit::new(
            kind,
            &format!("Type={kind}\nExecStart=@B -- @P signals --die TERM"),
        ) else {
            return;
        };
        unit.start();
        unit.says("ready ");
        main_is_bowout(&unit);
        assert_eq!(unit.get("ActiveState"), "active");
        unit.stop();
        ended_well(&unit, kind);
        // bowout died of SIGTERM, as the command did.
        let end = unit.ended();
        assert_eq!(
            (
                end.get("ExecMainCode"),
                end.get("ExecMainStatus"),
                unit.had(15)
            ),
            ("2", "15", 1),
            "{end:?}"
        );
    }
}

#[test]
fn notify_waits_for_the_commands_own_word_and_the_main_process_stays() {
    let words = "wait USR1 end fork send 'READY=1\\nMAINPID=^PID\\nSTATUS=up' say told wait TERM end exit 0";
    let Some(unit) = Unit::new(
        "notify",
        &format!("Type=notify\nExecStart=@B -- @N say ready {words}"),
    ) else {
        return;
    };
    unit.systemctl(&["start", "--no-block"]);
    unit.says("ready");
    assert_eq!(unit.get("SubState"), "start");
    unit.kill("USR1");
    unit.wait("ActiveState", "active");
    assert_eq!(unit.get("StatusText"), "up");
    main_is_bowout(&unit);
    unit.stop();
    ended_well(&unit, "notify");
}

#[test]
fn notify_reload_is_confirmed_by_the_command() {
    let reload = |n: i32| format!("wait HUP end reloading send 'READY=1\\nSTATUS=reloaded {n}' ");
    let words = format!(
        "send READY=1 {}{}wait TERM end exit 0",
        reload(1),
        reload(2)
    );
    let Some(unit) = Unit::new(
        "reload",
        &format!("Type=notify-reload\nExecStart=@B --grace 3s -- @N {words}"),
    ) else {
        return;
    };
    unit.start();
    for n in 1..=2 {
        // This returns when systemd has the time of the reload and, after it, READY=1.
        unit.systemctl(&["reload"]);
        let shown = unit.show(&["ActiveState", "StatusText"]);
        assert_eq!(
            (shown.get("ActiveState"), shown.get("StatusText")),
            ("active", format!("reloaded {n}").as_str())
        );
        assert_eq!(unit.had(1), n);
    }
    // A reload is not a stop: bowout logged no SIGTERM.
    let stops = unit
        .journal()
        .into_iter()
        .filter(|record| record.message.contains("received SIGTERM"))
        .count();
    assert_eq!(stops, 0);
    unit.stop();
    ended_well(&unit, "notify-reload, two reloads");
}

#[test]
fn a_program_that_daemonises_is_supervised_to_its_last_descendant() {
    let script =
        "ExecStart=@B --wait-tree -- sh -c 'setsid @P signals --name d --exit TERM:0 & exit 0'";
    let Some(unit) = Unit::new("forking", &format!("Type=exec\n{script}")) else {
        return;
    };
    unit.start();
    unit.says("d ready ");
    unit.logs("waiting for");
    assert_eq!(unit.get("ActiveState"), "active");
    main_is_bowout(&unit);
    unit.stop();
    ended_well(&unit, "daemonising, --wait-tree");
    assert_eq!(
        unit.out()
            .iter()
            .filter(|line| line.starts_with("d 15 "))
            .count(),
        1,
        "{:?}",
        unit.out()
    );
}

#[test]
fn a_command_that_is_missing_fails_the_start_at_once_with_the_reason() {
    let unit = "Type=notify\nTimeoutStartSec=45\nExecStart=@B --notify exec -- /no/such/program";
    let Some(unit) = Unit::new("missing", unit) else {
        return;
    };
    let said = unit.fail_to_start();
    assert!(said.contains("failed"), "{said}");
    let shown = unit.show(&[
        "Result",
        "ExecMainStatus",
        "StatusText",
        "StatusErrno",
        "NRestarts",
        "ActiveState",
    ]);
    crate::machine::tell(&format!("missing program: {shown:?}"));
    let text = shown.get("StatusText");
    assert!(
        text.contains("cannot run '/no/such/program': No such file or directory"),
        "{shown:?}"
    );
    assert_eq!(
        (
            shown.get("Result"),
            shown.get("ExecMainStatus"),
            shown.get("StatusErrno")
        ),
        ("exit-code", "127", "2")
    );
}

#[test]
fn for_a_command_that_does_not_speak_to_systemd_bowout_says_that_it_runs() {
    let Some(unit) = Unit::new(
        "says-ready",
        "Type=notify\nExecStart=@B --notify exec -- @P signals --die TERM",
    ) else {
        return;
    };
    unit.start();
    assert_eq!(unit.get("ActiveState"), "active");
    unit.says("ready ");
    unit.stop();
    ended_well(&unit, "--notify exec");
}

/// The main process is the guard: the command's messages go through both, and so do systemd's
/// signals. If the supervisor is killed, the service ends with the command's own status.
#[test]
fn a_guard_is_the_main_process() {
    let words = "send 'READY=1\\nSTATUS=up' say told wait TERM end exit 0";
    for (what, killed) in [("guard", false), ("guard-killed", true)] {
        let Some(unit) = Unit::new(
            what,
            &format!("Type=notify\nKillMode=mixed\nExecStart=@B --guard -- @N {words}"),
        ) else {
            return;
        };
        unit.start();
        assert_eq!(unit.get("StatusText"), "up");
        let guard = unit.main_pid();
        assert_eq!(unit.proc(guard, "comm").trim(), "stop-guard");
        if killed {
            let supervisor = unit.proc(guard, &format!("task/{guard}/children"));
            unit.signal("KILL", supervisor.trim().parse().expect("one child"));
            unit.wait("ActiveState", "inactive");
            unit.logs("bowout was killed; its guard stops");
        } else {
            unit.stop();
            unit.logs("received SIGTERM");
        }
        ended_well(&unit, what);
    }
}
