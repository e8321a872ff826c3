//! A control group that is frozen, as by `docker pause` or with a suspended cloud machine, and
//! thawed after the deadline.

use std::time::{Duration, Instant};

use crate::cgroup::Group;
use crate::common::pty::missing;
use crate::common::{NEEDS_TIME_TO_STOP, Start, Status, skip, until};

#[test]
fn a_deadline_that_passes_in_a_frozen_group_leaves_the_command_a_second() {
    let group = match Group::freezer() {
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
    group.freeze(true);
    group.wait_frozen(true);
    let frozen = Instant::now();
    until("the deadline is long over", || {
        (frozen.elapsed() > Duration::from_millis(3700)).then_some(())
    });
    group.freeze(false);
    group.wait_frozen(false);
    // The test asserts nothing about the log. Where the freezer interrupts ppoll(2), the kernel
    // restarts it with the rest of its timeout. bowout then does not notice the deadline before the
    // command exits.
    assert_eq!(bowout.end(), Status::Code(5), "{:#?}", bowout.err.seen());
}
