//! Descriptors that the manager stores, and barriers.

use crate::machine::tell;
use crate::unit::Unit;

#[test]
fn stored_descriptors_survive_restarts_through_the_relay() {
    let first = "store one 'kept by systemd' store two 'and this'";
    let script = format!(
        "if [ -e stored ]; then exec @N listen send READY=1 say ready wait TERM end exit 0; fi; \
         : >stored; exec @N {} send READY=1 say ready wait TERM end exit 0",
        first.replace('\'', "\"")
    );
    let lines = format!("Type=notify\nFileDescriptorStoreMax=8\nExecStart=@B -- sh -c '{script}'");
    let Some(unit) = Unit::new("fdstore", &lines) else {
        return;
    };
    unit.start();
    assert_eq!(unit.get("NFileDescriptorStore"), "2");
    for restart in 1..=3 {
        unit.systemctl(&["restart"]);
        unit.says_often("ready", restart + 1);
        let found = unit.says_often("listen ", restart);
        assert!(
            found.starts_with("listen 2 names ") && found.contains(" pid mine "),
            "{found}"
        );
        assert!(!found.ends_with("another's"), "{found}");
        for content in ["kept by systemd", "and this"] {
            let held = unit
                .out()
                .iter()
                .filter(|line| line.ends_with(&format!(" holds {content}")))
                .count();
            assert_eq!(held, restart, "{:?}", unit.out());
        }
        tell(&format!(
            "restart {restart}: {found}, NFileDescriptorStore={}",
            unit.get("NFileDescriptorStore")
        ));
    }
    unit.stop();
    assert_eq!(unit.ended().get("Result"), "success");
}

#[test]
fn systemd_notify_whose_barrier_is_ours_to_pass_on_returns() {
    let script =
        "systemd-notify --ready --status=told && echo passed && exec @P signals --die TERM";
    let Some(unit) = Unit::new(
        "barrier",
        &format!("Type=notify\nExecStart=@B -- sh -c '{script}'"),
    ) else {
        return;
    };
    unit.start();
    unit.says("passed");
    unit.says("ready ");
    assert_eq!(unit.get("StatusText"), "told");
    tell(&format!(
        "systemd-notify returned behind its barrier, StatusText={}",
        unit.get("StatusText")
    ));
    unit.stop();
    assert_eq!(unit.ended().get("Result"), "success");
}
