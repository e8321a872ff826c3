//! The harness keeps the tests from harming the machine that they run on (tests/common/machine.rs).

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use crate::common::{Start, Status, leftovers, not_root, probe, skip};

/// In the environment of the suite that runs below this one: the kind of damage, and the mount
/// namespace in which it must not be done.
const DAMAGE: &str = "E2E_DAMAGE";

fn mounts() -> u64 {
    fs::metadata("/proc/self/ns/mnt")
        .expect("a mount namespace")
        .ino()
}

/// Does the damage and returns true if this suite is the one that has to do it.
fn damage() -> bool {
    let Ok(what) = std::env::var(DAMAGE) else {
        return false;
    };
    let (what, elsewhere) = what.split_once(' ').expect("two words");
    assert_ne!(
        mounts().to_string(),
        elsewhere,
        "never in the machine's own /dev"
    );
    let bowout = Start::plain().probe(["exit", "0"]);
    match what {
        "replace" => {
            fs::write("/dev/new", "{}").expect("written");
            fs::rename("/dev/new", "/dev/stdout").expect("replaced");
        }
        "make" => fs::write("/dev/report", "{}").expect("written"),
        "mode" => {
            assert_eq!(
                leftovers::output(Command::new("chmod").args(["600", "/dev/null"]))
                    .status
                    .code(),
                Some(0)
            );
        }
        "late" => {
            drop(bowout);
            fs::remove_file("/dev/stderr").expect("removed");
        }
        _ => {}
    }
    true
}

/// Runs this test again, in a mount namespace with its own /dev.
fn below(what: &str, before: &str) -> (Option<i32>, String) {
    let script = format!(
        "{before}\nexec \"$0\" --exact machine::a_test_that_damages_dev_fails --nocapture 2>&1"
    );
    let suite = std::env::current_exe().expect("a path");
    let mut command = Command::new(probe());
    command
        .args(["ns", "--here", "--own-dev", "--", "sh", "-c", &script])
        .arg(suite);
    command.env(DAMAGE, format!("{what} {}", mounts()));
    let output = leftovers::output(&mut command);
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
    )
}

#[test]
fn a_test_that_damages_dev_fails() {
    if damage() || skip(not_root()) {
        return;
    }
    assert_eq!(below("nothing", "").0, Some(0));
    for (what, name) in [
        ("replace", "/dev/stdout"),
        ("make", "/dev/report"),
        ("mode", "/dev/null"),
        ("late", "/dev/stderr"),
    ] {
        let (code, said) = below(what, "");
        assert_eq!(code, Some(101), "{what}: {said}");
        assert!(
            said.contains("DAMAGED THIS MACHINE") && said.contains(name),
            "{what}: {said}"
        );
        // The test that did the damage fails at its end, except for damage after that.
        assert_eq!(
            said.contains("test result: FAILED"),
            what != "late",
            "{what}: {said}"
        );
    }
    // No test runs if /dev is damaged before the start.
    let (code, said) = below("nothing", "rm /dev/null; : >/dev/null");
    assert!(
        code == Some(101) && said.contains("damaged already") && !said.contains("running"),
        "{said}"
    );
    assert_eq!(Start::plain().probe(["exit", "3"]).end(), Status::Code(3));
}
