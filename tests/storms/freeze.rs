//! A control group that is frozen, as by `docker pause` or a cloud machine that is suspended, and
//! thawed after the deadline.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::cgroup::Group;
use crate::common::pty::missing;
use crate::common::{NEEDS_TIME_TO_STOP, Start, Status, skip, until};

/// Freezes a group, or lets it go on; by the files of version 1 or 2.
fn freeze(group: &Group, frozen: bool) {
    let file = |name: &str| Path::new(group.path()).join(name);
    if file("freezer.state").exists() {
        let state = if frozen { "FROZEN" } else { "THAWED" };
        fs::write(file("freezer.state"), state).expect("the state is written");
        until(state, || {
            (fs::read_to_string(file("freezer.state")).ok()?.trim() == state).then_some(())
        });
    } else {
        fs::write(file("cgroup.freeze"), if frozen { "1" } else { "0" })
            .expect("the state is written");
        let line = if frozen { "frozen 1" } else { "frozen 0" };
        until(line, || {
            fs::read_to_string(file("cgroup.events"))
                .ok()?
                .lines()
                .any(|found| found == line)
                .then_some(())
        });
    }
}

#[test]
fn a_deadline_that_passes_in_a_frozen_group_leaves_the_command_a_second() {
    let thawed = if Path::new("/sys/fs/cgroup/freezer").is_dir() {
        "THAWED"
    } else {
        "0"
    };
    let group = match Group::new("freezer", ["freezer.state", "cgroup.freeze"], thawed) {
        Ok(group) => group,
        Err(why) => return assert!(skip(Some(why))),
    };
    if skip(missing("python3")) {
        return;
    }
    let start = Start::new(["--grace", "2s"]).with(["--cgroup", group.path()]);
    let mut bowout = start.command(["python3", "-c", NEEDS_TIME_TO_STOP]);
    bowout.ready();
    bowout.kill(libc::SIGTERM);
    bowout.expect(libc::SIGTERM);
    freeze(&group, true);
    let frozen = Instant::now();
    until("the deadline is long over", || {
        (frozen.elapsed() > Duration::from_millis(3700)).then_some(())
    });
    freeze(&group, false);
    // Of the log this asserts nothing: where the freezer interrupts ppoll(2), the kernel restarts
    // it with the rest of its wait, and bowout does not notice the deadline before the command
    // exits.
    assert_eq!(bowout.end(), Status::Code(5), "{:#?}", bowout.err.seen());
}
