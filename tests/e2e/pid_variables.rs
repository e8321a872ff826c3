//! A variable that names a PID names the child when, and only when, it named bowout
//! (sd_watchdog_enabled(3), sd_listen_fds(3), systemd.exec(5)).

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use crate::common::{Home, NOTHING, Running, Start, hold, homes, probe, skip};

const PIDS: [&str; 3] = ["LISTEN_PID", "WATCHDOG_PID", "SYSTEMD_EXEC_PID"];
const PIDFD: &str = "LISTEN_PIDFDID";

/// The reason why a pidfd's inode does not identify a process here, if so: before Linux 6.9 all
/// pidfds share one inode.
fn no_pidfs() -> Option<String> {
    let inode = |pid: i32| {
        let fd: OwnedFd = hold(pid)?;
        // SAFETY: the structure is filled in before it is read.
        unsafe {
            let mut stat: libc::stat = std::mem::zeroed();
            (libc::fstat(fd.as_raw_fd(), &raw mut stat) == 0).then_some(stat.st_ino)
        }
    };
    // SAFETY: no arguments.
    let parent = unsafe { libc::getppid() };
    (inode(std::process::id() as i32) == inode(parent))
        .then(|| "pidfds have no inodes of their own".into())
}

/// The output of `probe names`, up to its end.
fn names(running: &mut Running) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    while let Some(line) = running
        .out
        .next()
        .filter(|line| !line.starts_with("ready "))
    {
        lines.push(line);
    }
    assert!(lines.len() >= 2, "{lines:?}: {:#?}", running.err.seen());
    lines
}

fn value<'a>(lines: &'a [String], name: &str) -> Option<&'a str> {
    lines
        .iter()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(['=', ' ']))
}

/// bowout as the process that these variables name.
fn named(home: Home, variables: &[&str]) -> Running {
    let shim = [probe().to_str().expect("text"), "named"]
        .into_iter()
        .chain(variables.iter().copied());
    let shim: Vec<&str> = shim.chain(["--", crate::common::BOWOUT, "--"]).collect();
    let all = shim[1..].iter().copied().chain([shim[0], "names"]);
    Start::new(NOTHING)
        .program(shim[0])
        .at(home)
        .bare(all.collect::<Vec<_>>())
}

#[test]
fn a_variable_that_names_bowout_names_the_child_and_no_other_appears() {
    for home in homes() {
        for variables in [&PIDS[..], &PIDS[..1], &PIDS[1..2], &PIDS[2..], &[]] {
            let lines = names(&mut named(home, variables));
            let child = value(&lines, "pid").expect("a PID").to_owned();
            for name in PIDS {
                let wanted = variables.contains(&name).then_some(child.as_str());
                assert_eq!(value(&lines, name), wanted, "{home:?} {name} {lines:?}");
            }
            assert_eq!(value(&lines, PIDFD), None, "{lines:?}");
        }
    }
}

#[test]
fn a_shell_that_becomes_bowout_names_the_child() {
    let script =
        "LISTEN_PID=$$ WATCHDOG_PID=$$ SYSTEMD_EXEC_PID=$$ exec \"$SHIM\" -- \"$PROBE\" names";
    let mut running = Start::direct()
        .env("SHIM", crate::common::BOWOUT)
        .command(["sh", "-c", script]);
    let lines = names(&mut running);
    let child = value(&lines, "pid").expect("a PID");
    assert_ne!(child, running.pid.to_string());
    for name in PIDS {
        assert_eq!(value(&lines, name), Some(child), "{lines:?}");
    }
}

#[test]
fn the_inode_of_a_pidfd_that_names_bowout_names_the_child() {
    if skip(no_pidfs()) {
        return;
    }
    for home in homes() {
        let lines = names(&mut named(home, &["LISTEN_PID", PIDFD]));
        assert_eq!(
            value(&lines, PIDFD),
            value(&lines, "inode"),
            "{home:?} {lines:?}"
        );
        assert_eq!(
            value(&lines, "LISTEN_PID"),
            value(&lines, "pid"),
            "{home:?} {lines:?}"
        );
    }
}

/// Values that resemble bowout's PID, but name another process or are not in systemd's form.
#[test]
fn a_value_that_names_another_stays_byte_for_byte() {
    let script = "export \"$NAME\"; eval \"$NAME=$TEXT\"; exec \"$SHIM\" -- \"$PROBE\" names";
    let values = [
        "1",
        "$PPID",
        "''",
        "' '$$",
        "$$' '",
        "0$$",
        "$$0",
        "+$$",
        "-$$",
        "\"$(printf '\\377')$$\"",
        "$$,1",
    ];
    for name in PIDS.into_iter().chain([PIDFD]) {
        for text in values {
            let start = Start::direct()
                .env("SHIM", crate::common::BOWOUT)
                .env("NAME", name)
                .env("TEXT", text);
            let mut running = start.command(["sh", "-c", script]);
            let lines = names(&mut running);
            // The shell has become bowout.
            let wanted = text
                .replace("$PPID", &std::process::id().to_string())
                .replace("$$", &running.pid.to_string());
            let wanted = wanted
                .replace("\"$(printf '\\377')", "\\xff")
                .replace(['\'', '"'], "");
            assert_eq!(value(&lines, name), Some(wanted.as_str()), "{name}={text}");
        }
    }
}

#[test]
fn handed_sockets_reach_the_child_with_their_names_and_bowout_keeps_none() {
    for home in homes() {
        let (one, other) = UnixStream::pair().expect("a pair");
        let mut bowout = Start::plain()
            .at(home)
            .inherit(&one)
            .inherit(&other)
            .env("LISTEN_FDS", "2")
            .env("LISTEN_FDNAMES", "http:a%20b")
            .env("LISTEN_PID", "1")
            .probe(["names"]);
        let lines = names(&mut bowout);
        assert_eq!(
            (value(&lines, "LISTEN_FDS"), value(&lines, "LISTEN_FDNAMES")),
            (Some("2"), Some("http:a%20b"))
        );
        let wanted = if home == Home::Pid1 {
            value(&lines, "pid")
        } else {
            Some("1")
        };
        assert_eq!(value(&lines, "LISTEN_PID"), wanted, "{home:?}");
        let sockets = |pid: i32| -> BTreeSet<String> {
            fs::read_dir(format!("/proc/{pid}/fd"))
                .expect("descriptors")
                .filter_map(|entry| {
                    Some(fs::read_link(entry.ok()?.path()).ok()?.to_str()?.to_owned())
                })
                .filter(|target| target.starts_with("socket:"))
                .collect()
        };
        assert!(sockets(bowout.child_pid()).len() >= 2, "{home:?}");
        // bowout closes its copies after the exec, possibly later than the child's output.
        crate::common::until("bowout has let go of them", || {
            sockets(bowout.pid).is_empty().then_some(())
        });
    }
}
