//! The smallest amount of each resource that is enough for bowout, and its message below that.

use std::fs::{self, File};
use std::io::Write;

use crate::cgroup::Group;
use crate::common::{
    Dir, Home, NOTHING, Running, Start, Status, field, homes, not_root, probe, skip,
};
use crate::fuse::{mount, private_mounts, unmount};
use crate::user::User;

const TERM: i32 = libc::SIGTERM;
const KILL: i32 = libc::SIGKILL;

/// The smallest number for which `does` returns true, between `fails`, for which it does not, and
/// `works`, for which it does.
fn smallest(mut fails: i32, mut works: i32, mut does: impl FnMut(i32) -> bool) -> i32 {
    assert!(!does(fails) && does(works), "{fails} to {works}");
    while works - fails > 1 {
        let middle = fails + (works - fails) / 2;
        *(if does(middle) { &mut works } else { &mut fails }) = middle;
    }
    works
}

/// Returns true if bowout exited with 125 and one line before it started the command.
fn refused(bowout: &mut Running, what: &str) -> bool {
    if bowout.end() != Status::Code(125) {
        return false;
    }
    assert_eq!(bowout.out.rest(), NOTHING, "{what}");
    let log = bowout.log();
    assert!(
        log.len() == 1 && log[0].starts_with("bowout: "),
        "{what}: {log:#?}"
    );
    true
}

/// Stops a tree of stubborn processes.
fn stops_a_tree(start: Start, child: &str, what: &str) {
    let mut bowout = start.command([child, "tree", "20", "--stubborn"]);
    bowout.ready();
    bowout.kill(TERM);
    bowout.out.rest();
    assert_eq!(
        bowout.end(),
        bowout.died(KILL),
        "{what}: {:?}",
        bowout.err.seen()
    );
}

#[test]
fn seven_descriptors_are_enough() {
    for home in homes() {
        let start = |limit: i32| {
            Start::new(["--grace", "100ms"])
                .at(home)
                .with(["--nofile", &limit.to_string()])
        };
        let least = smallest(-1, 64, |limit| {
            let mut bowout = start(limit.max(0)).probe(["exit", "7"]);
            let works =
                limit >= 0 && !refused(&mut bowout, &format!("{home:?}, {limit} descriptors"));
            assert!(
                !works || bowout.end() == Status::Code(7),
                "{home:?}, {limit}: {:?}",
                bowout.err.seen()
            );
            works
        });
        println!("{home:?}: RLIMIT_NOFILE {least} is enough");
        assert!(least <= 8, "{home:?}: {least} descriptors");
        stops_a_tree(
            start(least),
            probe().to_str().expect("text"),
            &format!("{home:?}, {least} descriptors"),
        );
    }
}

#[test]
fn one_process_more_than_its_own_is_enough() {
    for home in homes() {
        let Some(user) = User::new() else { return };
        let start = |limit: i32| {
            user.start(&["--grace", "100ms"], &["--nproc", &limit.to_string()])
                .at(home)
        };
        let least = smallest(0, 8, |limit| {
            let mut bowout = user.probe(start(limit), &["exit", "7"]);
            let works = !refused(&mut bowout, &format!("{home:?}, {limit} processes"));
            assert!(
                !works || bowout.end() == Status::Code(7),
                "{home:?}, {limit}: {:?}",
                bowout.err.seen()
            );
            works
        });
        println!("{home:?}: RLIMIT_NPROC {least} is enough");
        assert_eq!(least, 2, "{home:?}");
    }
}

/// Memory that is enough for the exec itself, and for the C library before main, is enough for
/// bowout.
#[test]
fn a_bowout_that_can_be_executed_has_memory_enough() {
    for home in homes() {
        let start = |limit: i32| {
            Start::new(["--grace", "100ms"])
                .at(home)
                .with(["--as", &limit.to_string()])
        };
        let least = smallest(0, 65_536, |limit| {
            let mut bowout = start(limit).probe(["exit", "7"]);
            let status = bowout.end();
            // With too little memory, the kernel ends a process during its exec, and the C library
            // does so later.
            let before_main = [
                Status::Signal(libc::SIGSEGV),
                bowout.died(libc::SIGSEGV),
                Status::Code(127),
                Status::Code(98),
            ];
            let log = bowout.log();
            let said = log.iter().any(|line| line.starts_with("bowout: "));
            if said && status == Status::Code(125) {
                return !refused(&mut bowout, &format!("{home:?}, {limit} KiB"));
            }
            assert!(
                status == Status::Code(7) || before_main.contains(&status) && !said,
                "{status:?}, {log:?}"
            );
            status == Status::Code(7)
        });
        println!("{home:?}: RLIMIT_AS {least} KiB is enough");
        // With too little memory for a table of all processes of the machine, and with enough.
        for more in [0, 32, 64, 128, 256, 512, 1024] {
            stops_a_tree(
                start(least + more),
                probe().to_str().expect("text"),
                &format!("{home:?}, {least} + {more} KiB"),
            );
        }
    }
}

#[test]
fn a_file_may_not_grow_and_only_the_report_is_lost() {
    for home in homes() {
        let dir = Dir::new();
        let log = File::create(dir.file("log")).expect("a file");
        let report = dir.file("report");
        let options = ["--report", report.to_str().expect("text")];
        let start = Start::new(options).at(home).with(["--fsize", "0"]);
        let mut bowout = start.probe(["signals", "--exit", "TERM:7"]);
        bowout.ready();
        bowout.kill(TERM);
        assert_eq!(
            bowout.end(),
            Status::Code(7),
            "{home:?}: {:?}",
            bowout.err.seen()
        );
        let told = bowout.log();
        assert!(
            told.iter().any(|line| line.contains("cannot write report") && line.contains("File too large")),
            "{home:?}: {told:?}"
        );
        let start = Start::new(options)
            .at(home)
            .with(["--fsize", "0"])
            .stderr(log);
        let mut bowout = start.probe(["signals", "--exit", "TERM:8"]);
        bowout.ready();
        bowout.kill(TERM);
        assert_eq!(bowout.end(), Status::Code(8), "{home:?}");
        let left: Vec<_> = fs::read_dir(&dir.0)
            .expect("a directory")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        assert_eq!(left, ["log"], "{home:?}");
        assert_eq!(fs::read(dir.file("log")).expect("a file"), b"");
    }
}

#[test]
fn no_queued_signal_at_all_is_enough() {
    for home in homes() {
        let start = Start::plain().at(home).with(["--sigpending", "0"]);
        let mut bowout = start.probe(["signals", "--exit", "TERM:7"]);
        bowout.ready();
        for signal in [libc::SIGUSR1, libc::SIGHUP] {
            bowout.kill(signal);
            bowout.expect(signal);
        }
        bowout.kill(TERM);
        bowout.expect(TERM);
        assert_eq!(
            bowout.end(),
            Status::Code(7),
            "{home:?}: {:?}",
            bowout.err.seen()
        );
        println!("{home:?}: RLIMIT_SIGPENDING 0 is enough");
    }
}

fn memory(bytes: &str) -> Result<Group, String> {
    Group::new("memory", ["memory.limit_in_bytes", "memory.max"], bytes)
}

/// The kernel kills the process that has the most memory (oom_badness in mm/oom_kill.c). A command
/// that grows soon has more than bowout.
#[test]
fn two_mebibytes_are_enough_and_the_child_is_the_one_that_runs_out() {
    let (small, large) = match (memory("2097152"), memory("16777216")) {
        (Ok(small), Ok(large)) => (small, large),
        (Err(why), _) | (_, Err(why)) => return assert!(skip(Some(why))),
    };
    for home in homes() {
        let start = |group: &Group| {
            Start::new(["--grace", "100ms"])
                .at(home)
                .with(["--cgroup", group.path()])
        };
        let mut bowout = start(&small).probe(["signals", "--exit", "TERM:7"]);
        bowout.ready();
        bowout.kill(TERM);
        assert_eq!(
            bowout.end(),
            Status::Code(7),
            "{home:?}: {:?}",
            bowout.err.seen()
        );
        let mut bowout = start(&large).probe(["eat"]);
        assert_eq!(
            bowout.end(),
            bowout.died(KILL),
            "{home:?}: {:?}",
            bowout.err.seen()
        );
        let log = bowout.log();
        assert!(
            log.iter()
                .any(|line| line.contains("was killed by SIGKILL after")),
            "{home:?}: {log:?}"
        );
    }
}

#[test]
fn a_full_disk_costs_the_report_and_nothing_else() {
    if skip(not_root()) {
        return;
    }
    let test = || {
        private_mounts();
        let dir = Dir::new();
        mount(&dir, "tmpfs", "size=4k");
        while File::options()
            .append(true)
            .create(true)
            .open(dir.file("full"))
            .and_then(|mut full| full.write(&[0; 512]))
            .is_ok()
        {}
        for home in homes() {
            let report = dir.file("report");
            let mut bowout = Start::new(["--report", report.to_str().expect("text")])
                .at(home)
                .probe(["exit", "7"]);
            assert_eq!(bowout.end(), Status::Code(7), "{home:?}");
            let log = bowout.log();
            assert!(
                log.iter().any(|line| line.contains("cannot write report")
                    && line.contains("No space left on device")),
                "{home:?}: {log:?}"
            );
            let left: Vec<_> = fs::read_dir(&dir.0)
                .expect("a directory")
                .map(|entry| entry.expect("an entry").file_name())
                .collect();
            assert_eq!(left, ["full"], "{home:?}");
        }
        unmount(&dir);
    };
    if let Err(panic) = std::thread::spawn(test).join() {
        std::panic::resume_unwind(panic);
    }
}

/// bowout neither raises nor lowers the score: the command has the same one.
#[test]
fn the_oom_score_is_inherited_and_passed_on() {
    for home in homes() {
        let mut bowout = Start::plain()
            .at(home)
            .with(["--oom", "321"])
            .probe(["idle"]);
        bowout.ready();
        for pid in [bowout.pid, bowout.child_pid()] {
            let score =
                fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).expect("a process");
            assert_eq!(
                (score.trim(), field(pid, "Threads").as_str()),
                ("321", "1"),
                "{home:?}"
            );
        }
        bowout.kill(TERM);
        assert_eq!(bowout.end(), bowout.died(TERM), "{home:?}");
    }
}

/// No further fork is possible when the child exits and its descendants have to be stopped.
fn drains_without_a_free_pid(start: Start, child: &str, home: Home) {
    let mut bowout = start.command([child, "fill", "--exit", "TERM:7"]);
    let full = bowout.out.find("full", |line| line.starts_with("full "));
    bowout.ready();
    bowout.kill(TERM);
    bowout.out.rest();
    assert_eq!(
        bowout.end(),
        Status::Code(7),
        "{home:?}: {:?}",
        bowout.err.seen()
    );
    let log = bowout.log();
    assert!(
        !log.iter().any(|line| line.contains("cannot")),
        "{home:?}: {log:?}"
    );
    println!("{home:?}: drained, {full}");
}

#[test]
fn the_drain_needs_no_process() {
    for home in homes() {
        let Some(user) = User::new() else { return };
        let start = user
            .start(&["--grace", "200ms"], &["--nproc", "60"])
            .at(home);
        drains_without_a_free_pid(start, user.child(), home);
    }
}

#[test]
fn the_drain_needs_no_pid_of_its_control_group() {
    let group = match Group::new("pids", ["pids.max", "pids.max"], "60") {
        Ok(group) => group,
        Err(why) => return assert!(skip(Some(why))),
    };
    for home in homes() {
        let start = Start::new(["--grace", "200ms"])
            .at(home)
            .with(["--cgroup", group.path()]);
        drains_without_a_free_pid(start, probe().to_str().expect("text"), home);
    }
}
