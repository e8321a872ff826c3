//! systemd's watchdog checks the command, not bowout.

use crate::common::skip;
use crate::machine::tell;
use crate::unit::{Unit, no_cores};

#[test]
fn a_command_that_hangs_ends_the_unit_with_its_own_core() {
    if skip(no_cores()) {
        return;
    }
    let lines =
        "Type=notify\nWatchdogSec=3\nLimitCORE=infinity\nExecStart=@B -- @N send READY=1 ping 200";
    let Some(unit) = Unit::new("watchdog", lines) else {
        return;
    };
    unit.start();
    // WATCHDOG_PID names the command. Its pings arrive, because the unit lives longer than the
    // watchdog's time.
    assert_eq!(unit.says("watchdog "), "watchdog 3000000 pid mine");
    unit.says("ping 25");
    assert_eq!(
        (unit.get("ActiveState").as_str(), unit.cores()),
        ("active", 0)
    );
    unit.signal("STOP", unit.child_pid());
    let end = unit.ended();
    tell(&format!(
        "WatchdogSec=3, the command stopped: {end:?}, {} core",
        unit.cores()
    ));
    assert_eq!(
        (
            end.get("Result"),
            end.get("ExecMainStatus"),
            end.get("NRestarts")
        ),
        ("watchdog", "6", "0"),
        "{end:?}"
    );
    assert_eq!(unit.cores(), 1);
    let log = unit.logs("was killed by SIGABRT (core dumped)");
    assert!(log.message.contains("notifier"), "{log:?}");
}
