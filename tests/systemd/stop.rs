//! The stop: the number of SIGTERMs that the command receives, and the timeout that applies.

use std::time::Duration;

use crate::common::timed;
use crate::machine::tell;
use crate::unit::{Unit, no_reload};

/// Reports its signals and exits on SIGUSR1.
const PROBE: &str = "@P signals --exit USR1:0";

/// Stops the unit without waiting for its end.
fn begin(unit: &Unit) {
    unit.systemctl(&["stop", "--no-block"]);
}

/// Ends the command by SIGUSR1, which it receives after all other signals.
fn finish(unit: &Unit) -> crate::unit::Shown {
    unit.kill("USR1");
    unit.ended()
}

#[test]
fn in_mixed_mode_the_command_is_asked_once_and_in_control_group_mode_at_most_by_both() {
    for (mode, most) in [("mixed", 1), ("control-group", 2)] {
        let lines = format!("Type=exec\nKillMode={mode}\nExecStart=@B --grace 60s -- {PROBE}");
        let Some(unit) = Unit::new(mode, &lines) else {
            return;
        };
        unit.start();
        unit.says("ready ");
        let bowout = unit.main_pid();
        begin(&unit);
        // bowout has forwarded SIGTERM, and by then systemd has sent its own SIGTERM to the
        // command, if any.
        unit.logs("received SIGTERM");
        let end = finish(&unit);
        let terms: Vec<String> = unit
            .out()
            .into_iter()
            .filter(|line| line.starts_with("15 "))
            .collect();
        tell(&format!(
            "KillMode={mode}: {} SIGTERM in the command: {terms:?} (bowout is {bowout})",
            terms.len()
        ));
        assert!((1..=most).contains(&terms.len()), "{terms:?}");
        if mode == "mixed" {
            // Signal, code, sender and value. The sender is bowout.
            assert_eq!(terms, [format!("15 0 {bowout} 0")]);
        }
        assert_eq!(
            (end.get("Result"), end.get("ExecMainStatus")),
            ("success", "0"),
            "{end:?}"
        );
    }
}

#[test]
fn a_hang_up_beside_the_stop_request_is_not_a_second_one() {
    let lines = format!("Type=exec\nSendSIGHUP=yes\nExecStart=@B --grace 60s -- {PROBE}");
    let Some(unit) = Unit::new("sighup", &lines) else {
        return;
    };
    unit.start();
    unit.says("ready ");
    begin(&unit);
    unit.says("15 ");
    unit.says("1 ");
    let end = finish(&unit);
    tell(&format!(
        "SendSIGHUP=yes: {} TERM, {} HUP; {end:?}",
        unit.had(15),
        unit.had(1)
    ));
    assert_eq!(
        (
            unit.had(15),
            unit.had(1),
            end.get("Result"),
            end.get("ExecMainStatus")
        ),
        (1, 1, "success", "0")
    );
}

#[test]
fn an_exec_stop_that_kills_leaves_the_command_its_grace_period() {
    // The loop waits until the command has received the signal. A SIGTERM that is still pending
    // when systemd's own arrives would merge with it.
    let stop = "ExecStop=/bin/sh -c 'kill -TERM $MAINPID; until grep -q \"^15 \" out; do sleep 0.02; done'";
    let lines = format!("Type=exec\n{stop}\nExecStart=@B --grace 60s -- {PROBE}");
    let Some(unit) = Unit::new("exec-stop", &lines) else {
        return;
    };
    unit.start();
    unit.says("ready ");
    begin(&unit);
    // The SIGTERM from ExecStop=, then systemd's own.
    unit.logs("received SIGTERM");
    let second = unit.logs("not forwarded");
    let end = finish(&unit);
    tell(&format!(
        "ExecStop=kill: {} TERM; '{}'; {end:?}",
        unit.had(15),
        second.message
    ));
    assert_eq!(
        (unit.had(15), end.get("Result"), end.get("ExecMainStatus")),
        (1, "success", "0"),
        "{end:?}"
    );
}

/// The command needs three seconds. systemd would give it one, bowout gives it four.
#[test]
fn the_grace_period_counts_where_systemds_own_timeout_is_shorter() {
    let command = "--grace 4s -- @P signals --pause TERM:3000 --exit TERM:0";
    let unit = format!("Type=notify\nTimeoutStopSec=1\nExecStart=@B --notify exec {command}");
    let Some(unit) = Unit::new("grace", &unit) else {
        return;
    };
    unit.start();
    unit.says("ready ");
    let quiet = no_reload();
    begin(&unit);
    unit.says("15 ");
    let shown = unit.show(&["ActiveState", "SubState", "StatusText"]);
    assert_eq!(shown.get("ActiveState"), "deactivating", "{shown:?}");
    let status = shown.get("StatusText").to_owned();
    assert!(
        status.contains("probe' (pid ") && status.contains("SIGKILL in"),
        "{status}"
    );
    let end = unit.ended();
    drop(quiet);
    tell(&format!(
        "TimeoutStopSec=1, --grace 4s, 3 s needed, StatusText='{status}': {end:?}"
    ));
    assert_eq!(
        (
            end.get("Result"),
            end.get("ExecMainCode"),
            end.get("ExecMainStatus")
        ),
        ("success", "1", "0"),
        "{end:?}"
    );

    // Without a socket, bowout cannot ask systemd for more time.
    let unit = format!("Type=exec\nTimeoutStopSec=1\nExecStart=@B {command}");
    let Some(unit) = Unit::new("no-socket", &unit) else {
        return;
    };
    unit.start();
    unit.says("ready ");
    unit.stop();
    let end = unit.ended();
    tell(&format!("the same without NOTIFY_SOCKET: {end:?}"));
    assert_eq!(
        (end.get("Result"), end.get("ExecMainStatus")),
        ("timeout", "9"),
        "{end:?}"
    );
}

/// bowout recognises the unit, whose timeout is 90 s by default. A shorter timeout stays in force,
/// because the user did not ask bowout for more.
#[test]
fn without_a_grace_period_systemds_own_timeout_decides() {
    let unit = format!("Type=notify\nTimeoutStopSec=2\nExecStart=@B --notify exec -- {PROBE}");
    let Some(unit) = Unit::new("default-grace", &unit) else {
        return;
    };
    unit.start();
    unit.says("ready ");
    let quiet = no_reload();
    let ((), took) = timed(|| unit.stop());
    let end = unit.ended();
    drop(quiet);
    let request = unit.logs("SIGKILL in ");
    tell(&format!(
        "TimeoutStopSec=2, no --grace: '{}': {end:?} after {took:?}",
        request.message
    ));
    assert!(
        request.message.ends_with("SIGKILL in 1m 25s (default)"),
        "{}",
        request.message
    );
    assert_eq!(
        (end.get("Result"), end.get("ExecMainStatus")),
        ("timeout", "9"),
        "{end:?}"
    );
}

#[test]
fn the_command_can_ask_for_more_time_and_has_it_up_to_the_most() {
    // The grace period is 1 s, its maximum 20 s. The command takes 3 s, of which systemd alone
    // would give it 1.
    let words = "send READY=1 wait TERM end send EXTEND_TIMEOUT_USEC=15000000 linger 3000 exit 0";
    let lines = format!(
        "Type=notify\nTimeoutStopSec=1\nExecStart=@B --grace 1s --grace-max 20s -- @N {words}"
    );
    let Some(unit) = Unit::new("extend", &lines) else {
        return;
    };
    unit.start();
    let quiet = no_reload();
    unit.stop();
    let end = unit.ended();
    drop(quiet);
    let asked = unit.logs("asks for 15s");
    tell(&format!(
        "EXTEND_TIMEOUT_USEC by the command: '{}': {end:?}",
        asked.message
    ));
    assert_eq!(
        (
            end.get("Result"),
            end.get("ExecMainCode"),
            end.get("ExecMainStatus")
        ),
        ("success", "1", "0"),
        "{end:?}"
    );

    // The command asks for an hour and has 3 s: bowout kills it, not systemd.
    let words = "send READY=1 wait TERM end send EXTEND_TIMEOUT_USEC=3600000000 wait end";
    let lines = format!(
        "Type=notify\nTimeoutStopSec=1\nExecStart=@B --grace 1s --grace-max 3s -- @N {words}"
    );
    let Some(unit) = Unit::new("extend-most", &lines) else {
        return;
    };
    unit.start();
    let _quiet = no_reload();
    let ((), took) = timed(|| unit.stop());
    let end = unit.ended();
    tell(&format!(
        "an hour asked for, --grace-max 3s: {end:?} after {took:?}"
    ));
    assert!(
        (Duration::from_secs(3)..Duration::from_secs(60)).contains(&took),
        "{took:?}"
    );
    // bowout sent SIGKILL to its child and died of the same signal. systemd's timeout did not
    // expire.
    assert_eq!(
        (
            end.get("Result"),
            end.get("ExecMainCode"),
            end.get("ExecMainStatus")
        ),
        ("signal", "2", "9"),
        "{end:?}"
    );
    unit.logs("sent SIGKILL");
}
