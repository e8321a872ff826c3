//! No outside condition can stall bowout.

use std::fs::{File, OpenOptions};
use std::io::{PipeReader, Read, Write, pipe};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::common::{
    BOWOUT, Dir, Got, Home, Lines, NONE, NOTHING, SOON, Start, Status, assert_at_most, homes,
    leftovers, no_namespaces, not_root, probe, signals_of, skip, timed, until,
};

const TERM: i32 = libc::SIGTERM;
const KILL: i32 = libc::SIGKILL;
/// Fills the file of a descriptor through a new open, because the flags of the descriptor are
/// shared.
fn fill(fd: &OwnedFd) {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let mut full = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .expect("opened anew");
    for size in [4096, 1] {
        while full.write(&vec![b'\n'; size]).is_ok() {}
    }
}

fn fill_socket(socket: &OwnedFd) {
    for size in [4096, 1] {
        let block = vec![b'\n'; size];
        // SAFETY: the buffer is valid for its length.
        while unsafe {
            libc::send(
                socket.as_raw_fd(),
                block.as_ptr().cast(),
                size,
                libc::MSG_DONTWAIT,
            )
        } > 0
        {}
    }
}

fn flags(fd: &OwnedFd) -> i32 {
    // SAFETY: no pointers.
    unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) }
}

/// Full channels: the kind, the end for writing, and the end for reading, which keeps the channel
/// open.
fn full() -> Vec<(&'static str, OwnedFd, OwnedFd)> {
    let (read, write) = pipe().expect("a pipe");
    let one: (_, OwnedFd, OwnedFd) = ("pipe", write.into(), read.into());
    fill(&one.1);

    let dir = Dir::new();
    let name = std::ffi::CString::new(dir.file("fifo").to_str().expect("text")).expect("no NUL");
    // SAFETY: a string that outlives the call.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    let read = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(dir.file("fifo"))
        .expect("a FIFO");
    let write = OpenOptions::new()
        .write(true)
        .open(dir.file("fifo"))
        .expect("a FIFO");
    let two: (_, OwnedFd, OwnedFd) = ("FIFO", write.into(), read.into());
    fill(&two.1);

    let (read, write) = UnixStream::pair().expect("sockets");
    let three: (_, OwnedFd, OwnedFd) = ("socket", write.into(), read.into());
    fill_socket(&three.1);

    let (master, slave) = terminal();
    fill(&slave);
    vec![one, two, three, ("terminal", slave, master)]
}

/// A pseudo-terminal: master and slave.
fn terminal() -> (OwnedFd, OwnedFd) {
    // SAFETY: the name is copied at once; the descriptor is ours.
    unsafe {
        let master = libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC);
        assert!(
            master >= 0 && libc::grantpt(master) == 0 && libc::unlockpt(master) == 0,
            "a terminal"
        );
        let mut name = [0; 64];
        assert_eq!(libc::ptsname_r(master, name.as_mut_ptr(), name.len()), 0);
        let slave = libc::open(
            name.as_ptr(),
            libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC,
        );
        assert!(slave >= 0, "the terminal's other end");
        (OwnedFd::from_raw_fd(master), OwnedFd::from_raw_fd(slave))
    }
}

/// With this stderr, full and unread, bowout at `home` behaves as usual.
fn full_stderr(home: Home, start: impl Fn() -> Start) {
    for (kind, write, read) in full() {
        let before = flags(&write);
        let stderr = write.try_clone().expect("a copy");
        let mut bowout = start().at(home).stderr(stderr).probe(["signals"]);
        bowout.ready();
        bowout.kill(libc::SIGUSR1);
        bowout.expect(libc::SIGUSR1);
        assert_eq!(
            flags(&write),
            before,
            "{kind}: the child shares these flags"
        );
        let (status, took) = timed(|| {
            bowout.kill(TERM);
            bowout.end()
        });
        assert_eq!(status, bowout.died(KILL), "{home:?} {kind}");
        assert!(took < SOON, "{kind}: {took:?}");
        assert_eq!(flags(&write), before, "{kind}");
        drop(read);
    }
}

#[test]
fn a_full_stderr_delays_nothing() {
    for home in homes() {
        full_stderr(home, || Start::new(["-vvv", "--grace", "300ms"]));
    }
}

/// Without /proc, bowout cannot open stderr anew.
#[test]
fn a_full_stderr_delays_nothing_without_proc() {
    if skip(no_namespaces()) {
        return;
    }
    for home in homes() {
        full_stderr(home, || Start::new(["-vvv", "--grace", "300ms"]).no_proc());
    }
}

#[test]
fn lines_that_were_lost_are_counted_and_reported() {
    let text = lost_lines("text");
    assert!(
        text.contains("lost") && text.contains(|c: char| c.is_ascii_digit()),
        "{text}"
    );
    let json: serde_json::Value = serde_json::from_str(&lost_lines("json")).expect("JSON");
    assert_eq!(
        (&json["level"], &json["event"]),
        (&"warn".into(), &"log_lines_lost".into()),
        "{json}"
    );
    assert!(
        json["count"].as_u64().is_some_and(|count| count >= 10),
        "{json}"
    );
}

/// The log line that counts the lost lines.
fn lost_lines(format: &str) -> String {
    let (read, write) = pipe().expect("a pipe");
    let (write, mut read): (OwnedFd, PipeReader) = (write.into(), read);
    fill(&write);
    let mut bowout = Start::new(["-vvv", "--grace", "1h", "--log-format", format])
        .stderr(write.try_clone().expect("a copy"))
        .probe(["signals", "--exit", "TERM:0"]);
    bowout.ready();
    for _ in 0..10 {
        bowout.kill(libc::SIGUSR1);
        bowout.expect(libc::SIGUSR1);
    }
    bowout.settle();
    // The filling: blank lines, and no more than the pipe held.
    let mut left = vec![0; 1 << 20];
    assert!(read.read(&mut left).expect("what filled it") > 0);
    drop(write);
    bowout.kill(TERM);
    let lines = Lines::of(read).rest();
    assert_eq!(bowout.end(), Status::Code(0));
    let line = lines.iter().find(|line| line.contains("lost"));
    line.unwrap_or_else(|| panic!("no report in {lines:#?}"))
        .clone()
}

/// The child would report a SIGPIPE that bowout's own write raised and bowout forwarded.
#[test]
fn a_broken_stderr_changes_nothing() {
    for home in homes() {
        for sockets in [false, true] {
            let write: OwnedFd = if sockets {
                UnixStream::pair().expect("sockets").1.into()
            } else {
                pipe().expect("a pipe").1.into()
            };
            let mut bowout = Start::new(["-vvv", "--grace", "300ms"])
                .at(home)
                .with(["--default", "PIPE"])
                .stderr(write)
                .probe(["signals"]);
            bowout.ready();
            bowout.kill(libc::SIGUSR1);
            bowout.expect(libc::SIGUSR1);
            assert_eq!(bowout.settle(), NONE, "{home:?}");
            bowout.kill(TERM);
            assert_at_most(&signals_of("", &bowout.out.rest()), &[TERM]);
            assert_eq!(bowout.end(), bowout.died(KILL), "{home:?}");
        }
    }
}

#[test]
fn a_stderr_without_space_changes_nothing() {
    for home in homes() {
        let full = || {
            OpenOptions::new()
                .write(true)
                .open("/dev/full")
                .expect("/dev/full")
        };
        let mut bowout = Start::new(["-vvv", "--grace", "1h"])
            .at(home)
            .stderr(full())
            .probe(["signals", "--exit", "TERM:3"]);
        bowout.ready();
        bowout.kill(TERM);
        assert_eq!(bowout.end(), Status::Code(3));
        assert_eq!(
            Start::plain()
                .at(home)
                .stderr(full())
                .command(["no-such-command"])
                .end(),
            Status::Code(127)
        );
        assert_eq!(
            Start::new(["--no-such-option"])
                .at(home)
                .stderr(full())
                .probe(["exit", "0"])
                .end(),
            Status::Code(125)
        );
    }
}

#[test]
fn closed_descriptors_change_nothing() {
    for home in homes() {
        for closed in ["0", "2", "0,2"] {
            let mut bowout = Start::new(["-vvv", "--grace", "300ms"])
                .at(home)
                .with(["--close", closed])
                .probe(["signals"]);
            bowout.ready();
            bowout.kill(libc::SIGUSR1);
            bowout.expect(libc::SIGUSR1);
            bowout.kill(TERM);
            // A log line on a descriptor that was opened as number 2 would appear here.
            let lines = bowout.out.rest();
            assert_at_most(&signals_of("", &lines), &[TERM]);
            assert!(
                lines.iter().all(|line| Got::parse(line).is_some()),
                "{lines:?}"
            );
            assert_eq!(bowout.end(), bowout.died(KILL), "{home:?} {closed}");
        }
        for options in [&[][..], &["-vvv"]] {
            let mut bowout = Start::new(options)
                .at(home)
                .with(["--close", "0,1,2"])
                .probe(["exit", "7"]);
            assert_eq!(bowout.end(), Status::Code(7), "{home:?}");
        }
    }
}

#[test]
fn own_failures_keep_their_codes_with_everything_closed() {
    let closed = || ["--close", "0,1,2"];
    assert_eq!(
        Start::plain()
            .with(closed())
            .command(["no-such-command"])
            .end(),
        Status::Code(127)
    );
    assert_eq!(
        Start::new(["--grace", "soon"])
            .with(closed())
            .probe(["exit", "0"])
            .end(),
        Status::Code(125)
    );
}

#[test]
fn eight_descriptors_are_enough() {
    for home in homes() {
        let mut bowout = Start::new(["--grace", "1h"])
            .at(home)
            .with(["--nofile", "8"])
            .probe(["signals", "--exit", "TERM:7"]);
        bowout.ready();
        bowout.kill(libc::SIGUSR1);
        bowout.expect(libc::SIGUSR1);
        bowout.kill(TERM);
        assert_eq!(bowout.end(), Status::Code(7));
        let mut bowout = Start::new(["--grace", "200ms"])
            .at(home)
            .with(["--nofile", "8"])
            .probe(["tree", "50", "--stubborn"]);
        bowout.ready();
        bowout.kill(TERM);
        assert_eq!(bowout.end(), bowout.died(KILL), "{home:?}");
    }
}

#[test]
fn pid_1_without_proc_stops_everything() {
    if skip(no_namespaces()) {
        return;
    }
    let mut bowout = Start::new(["--grace", "300ms"])
        .at(Home::Pid1)
        .no_proc()
        .probe(["tree", "30", "--stubborn"]);
    bowout.ready();
    bowout.kill(libc::SIGUSR1);
    bowout.expect(libc::SIGUSR1);
    bowout.kill(TERM);
    assert_eq!(bowout.end(), bowout.died(KILL));
}

/// Without /proc, a subreaper knows only its child and that child's group.
#[test]
fn a_subreaper_without_proc_stops_the_childs_group() {
    if skip(no_namespaces()) {
        return;
    }
    let script = "\"$PROBE\" signals --name d & exec \"$PROBE\" signals --name c";
    let mut bowout = Start::new(["--grace", "300ms"]).no_proc().sh(script);
    bowout.ready_as("c");
    bowout.ready_as("d");
    bowout.kill(TERM);
    bowout.out.rest();
    assert_eq!(bowout.end(), Status::Signal(KILL));
    for code in ["0", "7"] {
        assert_eq!(
            Start::plain().no_proc().probe(["exit", code]).end(),
            Status::Code(code.parse().expect("a number"))
        );
    }
}

/// The gosu pattern: uid 0 without `CAP_KILL`, and a child of another user.
#[test]
fn a_child_that_may_not_be_signalled_does_not_hold_pid_1() {
    if skip(not_root()) || skip(no_namespaces()) {
        return;
    }
    let dir = Dir::new();
    let program = dir.program(probe());
    let child = [
        "with",
        "--uid",
        "65534",
        "--",
        program.to_str().expect("text"),
        "signals",
    ];
    for home in homes() {
        let start = Start::new(["--grace", "400ms"])
            .at(home)
            .with(["--no-cap-kill"]);
        let mut bowout = start.probe(child);
        bowout.ready();
        let (status, took) = timed(|| {
            bowout.kill(TERM);
            bowout.wait()
        });
        assert_eq!(status, Status::Code(137), "{home:?}");
        assert!(
            took >= Duration::from_millis(400) && took < SOON,
            "the timer ran on: {took:?}"
        );
        // The test does not read to the end of the pipe: without PID 1 the child runs on, and holds
        // it.
        bowout
            .err
            .find("the reason", |line| line.contains("not permitted"));
    }
}

/// ptrace(2): a traced process that has ended cannot be reaped until its tracer releases it.
#[test]
fn a_traced_child_delays_the_end_and_costs_no_time() {
    let mut bowout = Start::new(["--grace", "300ms"]).probe(["signals", "--exit", "TERM:7"]);
    let child = bowout.ready();
    let mut tracer = Start::direct().probe(["trace", &child.to_string()]);
    let answer = tracer.out.next();
    if skip(
        answer
            .is_none()
            .then(|| format!("may not trace: {:?}", tracer.err.rest())),
    ) {
        return;
    }
    let (status, took) = timed(|| {
        bowout.kill(TERM);
        bowout.wait()
    });
    assert!(took < SOON, "{took:?}");
    assert_eq!(status, Status::Code(137));
}

#[test]
fn a_fork_that_fails_is_an_own_failure() {
    let dir = Dir::new();
    // The limit counts processes by user: use one that no other run of this suite has.
    let uid = leftovers::own_user().to_string();
    let root: &[&str] = if not_root().is_none() {
        &["--uid", &uid]
    } else {
        &[]
    };
    let setup: Vec<&str> = ["--nproc", "1"].iter().chain(root).copied().collect();
    let mut bowout = Start::plain()
        .program(dir.program(BOWOUT))
        .with(setup)
        .command(["echo", "started"]);
    assert_eq!(bowout.end(), Status::Code(125));
    assert_eq!(bowout.out.rest(), NOTHING);
    let log = bowout.log();
    assert!(log.len() == 1 && log[0].starts_with("bowout: "), "{log:#?}");
}

#[test]
fn too_few_descriptors_are_an_own_failure() {
    for home in homes() {
        // Enough for the dynamic loader, but not for bowout.
        for limit in ["4", "5"] {
            let mut bowout = Start::plain()
                .at(home)
                .with(["--nofile", limit])
                .command(["echo", "started"]);
            assert_eq!(bowout.end(), Status::Code(125), "{home:?}");
            assert_eq!(bowout.out.rest(), NOTHING);
            let log = bowout.log();
            assert!(log.len() == 1 && log[0].starts_with("bowout: "), "{log:#?}");
        }
    }
}

#[test]
fn a_stopped_bowout_loses_nothing() {
    let mut bowout = Start::new(["--grace", "1h"]).probe(["signals", "--exit", "TERM:7"]);
    bowout.ready();
    bowout.kill(libc::SIGSTOP);
    until("bowout is stopped", || {
        (bowout.state() == 'T').then_some(())
    });
    bowout.kill(TERM);
    bowout.kill(libc::SIGCONT);
    assert_eq!(bowout.end(), Status::Code(7));
}

#[test]
fn a_log_in_a_file_is_whole() {
    let dir = Dir::new();
    let file = File::create(dir.file("log")).expect("a file");
    let mut bowout = Start::plain().stderr(file).probe(["die", "9"]);
    assert_eq!(bowout.end(), Status::Signal(KILL));
    let text = std::fs::read_to_string(dir.file("log")).expect("a log");
    assert!(
        text.starts_with("bowout: ") && text.ends_with('\n'),
        "{text}"
    );
}
