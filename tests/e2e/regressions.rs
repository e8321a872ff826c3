//! Regressions: each test is a fault that a user, a wrapper or a reviewer found.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write, pipe};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use crate::common::pty::{Shell, kill, missing, open};
use crate::common::{
    BOWOUT, Dir, Home, NONE, NOTHING, Running, SOON, Start, Status, children, homes, no_namespaces,
    no_strace, not_root, notifier, pending, probe, signals_of, skip, timed, until,
};

const TERM: i32 = libc::SIGTERM;
const KILL: i32 = libc::SIGKILL;
const USR1: i32 = libc::SIGUSR1;
/// timeout(1) sends its signal to bowout, then to the group that bowout is in. The test ends the
/// time limit itself, by SIGALRM.
#[test]
fn timeout_in_front_of_bowout_is_one_request() {
    if skip(missing("timeout")) {
        return;
    }
    let mut whole = 0;
    for _ in 0..10 {
        let dir = Dir::new();
        let report = dir.file("report");
        let options = [
            "1h",
            BOWOUT,
            "--grace",
            "never",
            "--report",
            report.to_str().expect("text"),
        ];
        let start = Start::new(options).program("timeout");
        let mut timeout = start.probe(["signals", "--pause", "TERM:200", "--exit", "TERM:0"]);
        timeout.ready();
        // The command can be ready before timeout(1) has recorded its own fork. timeout(1) would
        // then exit without a signal to bowout.
        until("timeout waits", || (timeout.state() == 'S').then_some(()));
        timeout.kill(libc::SIGALRM);
        let lines = timeout.out.rest();
        if lines.contains(&"paused".into()) {
            assert_eq!(timeout.end(), Status::Code(124));
            whole += 1;
            continue;
        }
        timeout.wait();
        let text = std::fs::read_to_string(&report).expect("a report");
        let report: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        // Accepted only if timeout(1) had to wait for the processor between its two signals.
        let apart = report["stop"]["rungs"][1]["after_ms"].as_u64();
        assert!(
            apart.is_some_and(|ms| ms >= 50),
            "the child was killed before it had cleaned up: {report:#} {lines:?}"
        );
    }
    assert!(whole > 0, "never one request");
}

/// A request that is pending while bowout handles the first one belongs to the first. Here bowout
/// waits for a terminal that accepts no line for 0.1 s (Ctrl-S).
#[test]
fn a_request_that_is_sent_twice_is_one_however_long_its_line_takes() {
    let mut whole = 0;
    // On a busy machine the second request can arrive too late.
    for _ in 0..10 {
        let (_master, slave) = open();
        // SAFETY: a descriptor that is open.
        assert_eq!(unsafe { libc::tcflow(slave.as_raw_fd(), libc::TCOOFF) }, 0);
        let mut bowout = Start::new(["--grace", "1h"])
            .stderr(slave)
            .probe(["signals", "--exit", "USR2:7"]);
        bowout.ready();
        bowout.kill(TERM);
        bowout.expect(TERM);
        bowout.try_kill(TERM);
        // Only SIGTERM counts: a SIGCHLD stays pending if bowout has killed the child and exited.
        until("it is read", || {
            (pending(bowout.pid) & 1 << (TERM - 1) == 0).then_some(())
        });
        bowout.try_kill(libc::SIGUSR2);
        let status = bowout.end();
        assert!(
            [Status::Code(7), bowout.died(KILL)].contains(&status),
            "{status:?}"
        );
        whole += usize::from(status == Status::Code(7));
    }
    assert!(whole > 0, "never one request");
}

/// A script that executes bowout as `"$SHIM"` at its end.
fn exec(home: Home, script: &str) -> Running {
    Start::direct()
        .at(home)
        .env("SHIM", BOWOUT)
        .command(["sh", "-c", script])
}

/// The same as the `tee` of `exec > >(tee log)`.
#[test]
fn a_child_from_before_the_exec_outlives_bowout_and_finishes() {
    let dir = Dir::new();
    let fifo = dir.file("fifo");
    let name = std::ffi::CString::new(fifo.to_str().expect("text")).expect("no NUL");
    // SAFETY: a string that outlives the call.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    let script = "(read line; echo last $line) <\"$0\" & exec \"$SHIM\" -- \"$PROBE\" exit 3";
    let start = Start::direct().env("SHIM", BOWOUT);
    let mut bowout = start.command(["sh", "-c", script, fifo.to_str().expect("text")]);
    assert_eq!(bowout.wait(), Status::Code(3));
    // Opened for reading as well, so that the open does not wait for a reader.
    let mut input = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&fifo)
        .expect("a FIFO");
    input.write_all(b"words\n").expect("written");
    assert_eq!(bowout.out.rest(), ["last words"]);
    assert_eq!(bowout.end(), Status::Code(3));
}

#[test]
fn a_child_from_before_the_exec_is_not_signalled_while_descendants_are_drained() {
    for home in homes() {
        let script = "\"$PROBE\" signals --name i --exit USR2:0 & exec \"$SHIM\" --grace 1h -- sh -c '\"$PROBE\" signals \
                      --name d --exit TERM:0 & exec \"$PROBE\" signals --name c --exit USR1:3'";
        let mut bowout = exec(home, script);
        let [inherited, ..] = ["i", "c", "d"].map(|name| bowout.ready_as(name));
        bowout.kill(USR1);
        bowout
            .out
            .find("the drain", |line| line.starts_with(&format!("d {TERM} ")));
        assert_eq!(bowout.wait(), Status::Code(3), "{home:?}");
        if home == Home::Subreaper {
            kill(inherited, libc::SIGUSR2);
            assert_eq!(signals_of("i", &bowout.out.rest()), [libc::SIGUSR2]);
        } else {
            // The kernel kills it with PID 1.
            assert_eq!(signals_of("i", &bowout.out.rest()), NONE);
        }
        assert_eq!(bowout.end(), Status::Code(3));
    }
}

#[test]
fn a_child_from_before_the_exec_is_not_killed_with_descendants() {
    let script = "\"$PROBE\" signals --name i --exit USR2:0 & exec \"$SHIM\" --grace 200ms -- sh -c '\"$PROBE\" signals \
                  --name d & exec \"$PROBE\" signals --name c'";
    let mut bowout = exec(Home::Subreaper, script);
    let [inherited, ..] = ["i", "c", "d"].map(|name| bowout.ready_as(name));
    bowout.kill(TERM);
    assert_eq!(bowout.wait(), Status::Signal(KILL));
    kill(inherited, libc::SIGUSR2);
    assert_eq!(signals_of("i", &bowout.out.rest()), [libc::SIGUSR2]);
    assert_eq!(bowout.end(), Status::Signal(KILL));
}

/// bowout as PID 1 has the number 1, which the name of a rotated report can have as well.
#[test]
fn a_rotated_report_is_left_alone() {
    for home in homes() {
        let dir = Dir::new();
        let rotated = dir.write("r.1", "yesterday's", 0o644);
        let mut bowout = Start::new(["--report", "r"])
            .at(home)
            .dir(&dir.0)
            .probe(["exit", "3"]);
        assert_eq!(bowout.end(), Status::Code(3), "{home:?}");
        assert_eq!(
            fs::read_to_string(rotated).expect("what was there"),
            "yesterday's",
            "{home:?}"
        );
        assert!(
            fs::read_to_string(dir.file("r"))
                .expect("a report")
                .starts_with('{')
        );
    }
}

/// A pseudo-terminal that is not the controlling terminal of any session: master and slave, and the
/// slave's name.
fn terminal() -> (OwnedFd, OwnedFd, PathBuf) {
    // SAFETY: the name is copied at once; the descriptor is ours.
    let (master, name) = unsafe {
        let master = libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC);
        assert!(
            master >= 0 && libc::grantpt(master) == 0 && libc::unlockpt(master) == 0,
            "a terminal"
        );
        let mut name = [0; 64];
        assert_eq!(libc::ptsname_r(master, name.as_mut_ptr(), name.len()), 0);
        (
            OwnedFd::from_raw_fd(master),
            std::ffi::CStr::from_ptr(name.as_ptr())
                .to_str()
                .expect("text")
                .to_owned(),
        )
    };
    let slave = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOCTTY)
        .open(&name);
    (
        master,
        slave.expect("the terminal's other end").into(),
        name.into(),
    )
}

/// The log opens the terminal anew, and gets the number of the report's closed descriptor.
#[test]
fn a_report_to_a_closed_descriptor_is_refused_though_the_log_has_its_number() {
    let (master, slave, _) = terminal();
    let mut bowout = Start::new(["--report", "fd:3"])
        .stderr(slave)
        .command(["echo", "started"]);
    assert_eq!(bowout.end(), Status::Code(125));
    assert_eq!(bowout.out.rest(), NOTHING);
    let mut text = [0; 4096];
    let length = fs::File::from(master).read(&mut text).expect("a reason");
    let text = String::from_utf8_lossy(&text[..length]);
    assert!(
        text.starts_with("bowout: ") && text.contains("fd:3"),
        "{text}"
    );
}

/// Uses SIGIO, whose sender is the kernel as with SIGALRM from setitimer(2), because the test can
/// choose its moment.
#[test]
fn a_signal_of_the_kernel_is_for_the_child_if_no_terminal_sent_it() {
    const IO: i32 = libc::SIGIO;
    let mut shell = Shell::start();
    let (_, bowout) = shell.probe(&format!("bowout -v probe terminal --catch 64,{IO}"));
    let (read, mut write) = pipe().expect("a pipe");
    // SAFETY: no pointers; a process that is there.
    unsafe {
        assert_eq!(
            libc::fcntl(read.as_raw_fd(), libc::F_SETOWN, bowout),
            0,
            "F_SETOWN"
        );
        assert_eq!(
            libc::fcntl(read.as_raw_fd(), libc::F_SETFL, libc::O_ASYNC),
            0,
            "O_ASYNC"
        );
    }
    write.write_all(b".").expect("written");
    shell.0.until("both lines", |pty| {
        let seen = pty.unread();
        (seen.contains("from the kernel") && seen.contains(&format!("got {IO} 0 {bowout}")))
            .then_some(())
    });
    shell.answers(bowout);
    assert!(
        !shell.0.screen().contains("terminal:") && !shell.0.screen().contains("from the terminal")
    );
}

/// The terminal belongs to another user, as after `su`. If a write would block, and bowout cannot
/// prevent that, it drops the line.
#[test]
fn a_terminal_that_no_process_reads_and_bowout_may_not_open_delays_nothing() {
    if skip(not_root()) {
        return;
    }
    let dir = Dir::new();
    let (child, program) = (dir.program(probe()), dir.program(BOWOUT));
    for full in [true, false] {
        let (_master, slave, name) = terminal();
        fs::set_permissions(&name, fs::Permissions::from_mode(0o600)).expect("permissions");
        if full {
            let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
            let mut other = OpenOptions::new()
                .write(true)
                .custom_flags(flags)
                .open(&name)
                .expect("opened anew");
            for size in [4096, 1] {
                while other.write(&vec![b'\n'; size]).is_ok() {}
            }
        }
        let start = Start::new(["-vvv", "--grace", "300ms"])
            .program(&program)
            .with(["--uid", "65534"])
            .stderr(slave);
        let mut bowout = start.command([child.to_str().expect("text"), "signals"]);
        bowout.ready();
        // More than fits.
        for _ in 0..500 {
            bowout.kill(USR1);
            bowout.expect(USR1);
        }
        let (status, took) = timed(|| {
            bowout.kill(TERM);
            bowout.end()
        });
        assert_eq!(status, Status::Signal(KILL));
        assert!(took < SOON, "{took:?}");
    }
}

/// The gosu pattern, without PID 1.
#[test]
fn a_child_that_may_not_be_killed_and_ends_by_itself_keeps_its_code() {
    if skip(not_root()) {
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
        "--exit",
        "USR1:7",
    ];
    let keeps = || {
        let mut bowout = Start::new(["--grace", "200ms"])
            .with(["--no-cap-kill"])
            .probe(child);
        let child = bowout.ready();
        bowout.kill(TERM);
        bowout.err.find("the kill's refusal", |line| {
            line.contains("SIGKILL could not be sent")
        });
        kill(child, USR1);
        let status = bowout.wait();
        until("the child has ended", || {
            bowout.left().is_empty().then_some(())
        });
        status == Status::Code(7)
    };
    // The child has only two seconds at that point, and a busy machine may use them up.
    assert!((0..5).any(|_| keeps()));
}

/// Each search for an exited child passes every living one, and at its end the next child has
/// exited. Runs in a PID namespace, whose processes all end with PID 1.
#[test]
fn a_request_is_received_among_thousands_of_orphans() {
    if skip(no_namespaces()) {
        return;
    }
    let script = "\"$PROBE\" tree 3000 --stubborn --name t --exit USR2:0 & \"$PROBE\" signals --name c --exit USR1:0; \
                  \"$PROBE\" breed 3 0 & exec \"$PROBE\" signals --name s";
    let mut bowout = Start::new(["-q", "--grace", "never"])
        .at(Home::Pid1)
        .sh(script);
    bowout.ready_as("c");
    bowout.ready_as("t");
    let of_shell = children(bowout.child_pid());
    let is_tree = |pid: &&i32| children(**pid).len() > 1000;
    let tree = *of_shell.iter().find(is_tree).expect("the tree");
    let waits = *of_shell
        .iter()
        .find(|pid| **pid != tree)
        .expect("what the storm waits for");
    kill(tree, libc::SIGUSR2);
    until("they are bowout's", || {
        (children(bowout.pid).len() >= 3000).then_some(())
    });
    kill(waits, USR1);
    bowout.ready();
    bowout.ready_as("s");
    bowout.kill(TERM);
    bowout.out.find("the request", |line| {
        line.starts_with(&format!("s {TERM} "))
    });
    bowout.kill(KILL);
    bowout.wait();
}

/// A variable may be set for all users; it does not have to fit the options of one user.
#[test]
fn a_variable_that_does_not_go_with_an_option_does_not_prevent_the_start() {
    for (name, value, options) in [
        ("BOWOUT_STOP_DELAY", "5s", &["--grace", "3s"][..]),
        ("BOWOUT_GRACE_MAX", "10s", &["--grace", "30s"]),
        ("BOWOUT_KILL_MODE", "process", &["--wait-tree"]),
    ] {
        let mut bowout = Start::new(options).env(name, value).probe(["exit", "3"]);
        assert_eq!(bowout.end(), Status::Code(3), "{name}");
    }
}

#[test]
fn only_the_managers_main_process_says_that_the_service_stops() {
    for (main, speaks) in [("1", false), ("$$", true)] {
        let dir = Dir::new();
        let address = dir.file("manager");
        let manager = UnixDatagram::bind(&address).expect("a socket");
        manager.set_nonblocking(true).expect("a flag");
        let script = format!(
            "SYSTEMD_EXEC_PID={main} exec \"$SHIM\" -- \"$0\" send READY=1 wait TERM end send STATUS=end exit 0"
        );
        let start = Start::direct()
            .env("SHIM", BOWOUT)
            .env("NOTIFY_SOCKET", &address)
            .env("RUNTIME_DIRECTORY", &dir.0);
        let mut bowout = start.command(["sh", "-c", &script, notifier().to_str().expect("text")]);
        let hear = || {
            let mut text = [0; 4096];
            manager
                .recv(&mut text)
                .ok()
                .map(|length| String::from_utf8_lossy(&text[..length]).into_owned())
        };
        assert_eq!(until("the child is heard", hear), "READY=1");
        bowout.kill(TERM);
        assert_eq!(bowout.end(), Status::Code(0));
        let heard: Vec<String> = std::iter::from_fn(hear).collect();
        assert!(heard.contains(&"STATUS=end".into()), "{heard:?}");
        assert_eq!(
            heard.iter().any(|text| text.starts_with("STOPPING=1")),
            speaks,
            "{main}: {heard:?}"
        );
    }
}

/// Each process of the chain has forked and exited when the signal arrives, and its successor is in
/// the same group. bowout is slowed down so that it never finds a living one.
#[test]
fn a_chain_of_processes_in_its_own_session_is_killed_by_a_slow_bowout() {
    if skip(no_strace()) {
        return;
    }
    let slow = [
        "-D",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "trace=kill",
        "-e",
        "inject=kill:delay_enter=2000",
        BOWOUT,
    ];
    let mut bowout = Start::new([&slow[..], &["--grace", "20ms"]].concat())
        .program("strace")
        .probe(["breed", "4", "0"]);
    bowout.ready();
    bowout.kill(TERM);
    bowout.out.rest();
    assert_eq!(end_of_traced(&mut bowout), bowout.died(KILL));
    let log = bowout.log();
    assert!(
        !log.iter().any(|line| line.contains("cannot kill")),
        "{log:?}"
    );
}

/// The end of a bowout that strace traces, and then of strace, which exits a moment later. No other
/// process may be left by then.
fn end_of_traced(bowout: &mut Running) -> Status {
    let status = bowout.wait();
    until("nobody is left", || bowout.left().is_empty().then_some(()));
    status
}

/// A single failure to read /proc looked like an empty /proc: the stop signal reached no process,
/// or bowout tried four million PIDs instead.
#[test]
fn proc_that_cannot_be_read_once_hides_no_process() {
    if skip(no_strace()) {
        return;
    }
    for (path, fail) in [
        // musl uses the older call.
        ("/proc", "?open,openat:error=ENFILE"),
        ("/proc", "readlinkat:error=ENOMEM"),
        ("/proc", "fstatfs:error=ENOMEM"),
        ("/proc", "openat2:error=ENFILE"),
    ] {
        let (dir, fail) = (Dir::new(), format!("inject={fail}:when=1"));
        let trace = dir.file("trace");
        let words = [
            "-D",
            "-P",
            path,
            "-e",
            &fail,
            "-o",
            trace.to_str().expect("text"),
            BOWOUT,
            "-g",
            "--grace",
            "never",
        ];
        let mut bowout = Start::new(words)
            .program("strace")
            .probe(["signals", "--exit", "TERM:7"]);
        bowout.ready();
        bowout.kill(TERM);
        assert_eq!(end_of_traced(&mut bowout), Status::Code(7), "{path} {fail}");
        let trace = fs::read_to_string(trace).expect("a trace");
        assert_eq!(
            trace.matches("(INJECTED)").count(),
            1,
            "{path} {fail}: {trace}"
        );
    }
}

/// The signalfd got the number of the closed descriptor, and /dev/null then replaced it. bowout
/// spun forever, and received neither a signal nor the child's exit.
#[test]
fn a_closed_descriptor_that_cannot_be_occupied_prevents_the_start() {
    if skip(no_strace()) {
        return;
    }
    for (closed, told) in [("0", true), ("1", true), ("0,1", true), ("2", false)] {
        let dir = Dir::new();
        let (trace, started) = (dir.file("trace"), dir.file("started"));
        let fail = "inject=?open,openat:error=ENFILE:when=1";
        let words = [
            "-D",
            "-P",
            "/",
            "-e",
            fail,
            "-o",
            trace.to_str().expect("text"),
            BOWOUT,
        ];
        let start = Start::new(words)
            .program("strace")
            .with(["--close", closed]);
        let mut bowout = start.command(["touch", started.to_str().expect("text")]);
        let status = end_of_traced(&mut bowout);
        let trace = fs::read_to_string(trace).expect("a trace");
        assert_eq!(trace.matches("(INJECTED)").count(), 1, "{closed}: {trace}");
        assert_eq!(status, Status::Code(125), "{closed}");
        assert!(!started.exists(), "{closed}");
        let log = bowout.log();
        assert_eq!(log.len(), usize::from(told), "{closed}: {log:?}");
        assert!(
            log.iter()
                .all(|line| line.contains("closed stdin, stdout or stderr: ")),
            "{closed}: {log:?}"
        );
    }
}

/// bowout had read SIGCHLD by then, and waited forever for another one.
#[test]
fn a_look_at_the_children_that_fails_is_taken_again() {
    if skip(no_strace()) {
        return;
    }
    // Every other call, from the first or from the second on.
    for when in ["1+2", "2+2"] {
        let fail = format!("inject=waitid:error=EINTR:when={when}");
        let words = ["-D", "-e", &fail, "-o", "/dev/null", BOWOUT];
        let mut bowout = Start::new(words).program("strace").probe(["exit", "7"]);
        assert_eq!(end_of_traced(&mut bowout), Status::Code(7), "{fail}");
    }
}

/// A descendant that had died of the signal, and was reaped by its parent, before bowout sent the
/// next signal was missing from the reported descendants.
#[test]
fn a_descendant_that_dies_of_the_signal_at_once_was_left() {
    if skip(no_strace()) {
        return;
    }
    let slow = [
        "-D",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "trace=kill,pidfd_send_signal",
    ];
    let delay = [
        "-e",
        "inject=kill,pidfd_send_signal:delay_exit=200000",
        BOWOUT,
        "--grace",
        "1s",
    ];
    // One descendant is in the child's process group, one in its own session.
    let script = "(trap '' TERM; \"$PROBE\" signals --name d --exit TERM:0 & \
                  \"$PROBE\" hostile session -- --name e --exit TERM:0; exec \"$PROBE\" idle) & \
                  exec \"$PROBE\" signals --name c --exit USR1:5";
    let mut bowout = Start::new([&slow[..], &delay].concat())
        .program("strace")
        .sh(script);
    for name in ["c", "d", "e"] {
        bowout.ready_as(name);
    }
    bowout.kill(USR1);
    assert_eq!(end_of_traced(&mut bowout), Status::Code(5));
    let log = bowout.log();
    assert!(
        log.iter()
            .any(|line| line.contains("3 descendants left (") && line.contains("): sent SIGTERM")),
        "{log:#?}"
    );
}

/// For each SIGKILL, bowout called waitid(2) for every possible PID, four million, although no
/// process was left after the first SIGKILL.
#[test]
fn without_proc_the_search_for_children_ends_with_them() {
    if skip(no_strace()) || skip(no_namespaces()) {
        return;
    }
    let dir = Dir::new();
    let counts = dir.file("counts");
    let counts = counts.to_str().expect("text");
    let words = [
        "-D",
        "-c",
        "-e",
        "trace=waitid",
        "-o",
        counts,
        BOWOUT,
        "--grace",
        "0",
    ];
    let mut bowout = Start::new(words)
        .program("strace")
        .no_proc()
        .probe(["signals"]);
    bowout.ready();
    bowout.kill(TERM);
    assert_eq!(end_of_traced(&mut bowout), bowout.died(KILL));
    let counts = fs::read_to_string(counts).expect("counts");
    let line = counts
        .lines()
        .find(|line| line.ends_with(" waitid"))
        .expect("waitid(2) was called");
    let calls: u64 = line
        .split_whitespace()
        .nth(3)
        .and_then(|calls| calls.parse().ok())
        .expect("a number");
    assert!((1 << 14..1 << 20).contains(&calls), "{counts}");
}

/// A terminal's escape sequence in a word of the command line, in a variable or in the log's filter
/// was printed unescaped.
#[test]
fn an_unreadable_value_is_one_plain_line() {
    let bad = "x\u{1b}[2J\u{7}y\nbowout: all is well";
    for start in [
        Start::new(["--grace", bad]),
        Start::new(["--report", &format!("fd:{bad}")]),
        Start::new([&format!("--{bad}")]),
        Start::plain().env("BOWOUT_GRACE", bad),
        Start::plain().env("BOWOUT_LOG", format!("{bad}=b=c")),
    ] {
        let mut bowout = start.command(["true"]);
        assert_eq!(bowout.end(), Status::Code(125));
        let log = bowout.log();
        assert_eq!(log.len(), 1, "not one line: {log:#?}");
        assert!(
            log[0].contains("x\\u{1b}[2J\\u{7}y") && !log[0].contains(char::is_control),
            "{log:#?}"
        );
    }
}

/// humantime panics at the first of these, because it overflows when it adds them up. The kernel's
/// clock, which counts nanoseconds in 63 bits, reaches none of them.
#[test]
fn a_wait_that_no_clock_can_hold_is_never() {
    for text in [
        "18446744073709551615s 1000ms",
        "584542046090years 19767615s 1000ms",
        "99999999999999999999s",
        "99999999999999999999",
        "9000000000000000ms",
        "1000000y",
        "infinity",
    ] {
        let ladder = format!("TERM/{text}");
        for options in [
            &["--grace", text][..],
            &["--escalate", &ladder],
            &["--grace", "0.5", "--max-runtime", text],
        ] {
            assert_eq!(
                Start::new(options).probe(["exit", "7"]).end(),
                Status::Code(7),
                "{options:?}"
            );
        }
        let mut bowout = Start::plain()
            .env("BOWOUT_GRACE", text)
            .probe(["signals", "--exit", "USR1:7"]);
        bowout.ready();
        bowout.kill(TERM);
        bowout
            .err
            .find("the request", |line| line.contains("no deadline"));
        bowout.kill(USR1);
        assert_eq!(bowout.end(), Status::Code(7), "{text}");
    }
    for text in [
        "18446744073709551615s 1000ms x",
        "18446744073709551615S 1000ms",
        "-18446744073709551615s 1000ms",
    ] {
        for option in ["--grace", "--grace-max", "--stop-delay", "--max-runtime"] {
            let mut bowout = Start::new([format!("{option}={text}")]).command(["echo", "started"]);
            assert_eq!(bowout.end(), Status::Code(125), "{text}");
            assert_eq!(bowout.out.rest(), NOTHING, "{text}");
            let log = bowout.log();
            assert!(
                log.len() == 1 && log[0].contains(&format!("'{text}' is not a duration: ")),
                "{text}: {log:#?}"
            );
        }
    }
}

/// The delay was rounded up for the log, beyond the largest duration. bowout aborted, and the
/// command's descendants went on without it.
#[test]
fn the_longest_stop_delay_is_one() {
    let mut bowout = Start::new(["--grace", "never", "--stop-delay", "9223372036.8547758s"])
        .probe(["signals", "--exit", "USR1:7"]);
    bowout.ready();
    bowout.kill(TERM);
    bowout.err.find("the delay", |line| {
        line.contains("before it is sent, no deadline")
    });
    bowout.kill(USR1);
    assert_eq!(signals_of("", &bowout.out.rest()), [USR1]);
    assert_eq!(bowout.end(), Status::Code(7));
}
