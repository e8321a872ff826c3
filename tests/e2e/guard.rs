//! The process that started bowout, bowout, or its guard is killed at any moment, and no process of
//! the command is left. Also the ways in which the command's input ends.

use std::fs::File;
use std::io::{Write, pipe};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::common::pty::{
    CTRL_C, CTRL_Z, Pty, Role, Shell, group_of, kill, missing, open, parent_of,
};
use crate::common::{
    BOWOUT, Dir, Home, Running, Start, Status, children, field, leftovers, no_namespaces, not_root,
    probe, size, skip, until,
};

const KILL: i32 = libc::SIGKILL;
const TERM: i32 = libc::SIGTERM;

/// A tree of ten, half of them in their own sessions, some orphans, and half of them ignoring
/// SIGTERM.
const TREE: &str = "$PROBE tree 5 --stubborn --name deaf & exec $PROBE tree 5 --name c";

/// A source of random moments: different in each run; a failing test shows the seed.
struct Moments(u64);

impl Moments {
    fn new() -> Self {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let seed = since.expect("after 1970").as_nanos() as u64 | 1;
        println!("seed {seed}");
        Self(seed)
    }

    /// The next wait, at most this long (Marsaglia's xorshift).
    fn next(&mut self, most: Duration) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        most * (self.0 % 1000) as u32 / 1000
    }

    fn wait(&mut self, most: Duration) {
        let (start, wait) = (Instant::now(), self.next(most));
        until("the moment", || (start.elapsed() >= wait).then_some(()));
    }
}

/// The command's output ends when its last process exits. That wait costs nothing, but each read of
/// /proc costs more the more processes the machine runs.
fn nothing_is_left(bowout: &mut Running, what: &str) {
    bowout.out.rest();
    until(what, || bowout.left().is_empty().then_some(()));
}

/// Kills the supervisor or its guard, at a random moment of its first hundredths of a second or
/// later.
fn kill_either(start: impl Fn() -> Start) {
    let mut moments = Moments::new();
    for nth in 0..size(50, 1000) {
        let mut bowout = start().sh(TREE);
        moments.wait(Duration::from_millis(30));
        let inner = children(bowout.pid).first().copied();
        match inner.filter(|_| nth % 2 == 0) {
            Some(inner) => kill(inner, KILL),
            None => bowout.kill(KILL),
        }
        nothing_is_left(&mut bowout, &format!("nothing is left of {nth}: {inner:?}"));
        bowout.wait();
    }
}

#[test]
fn a_guarded_tree_is_stopped_whichever_of_the_two_is_killed() {
    kill_either(|| Start::new(["--guard", "--grace", "100ms"]));
}

#[test]
fn a_users_guarded_tree_is_stopped_whichever_of_the_two_is_killed() {
    if skip(not_root()) {
        return;
    }
    let uid = leftovers::own_user().to_string();
    kill_either(|| Start::new(["--guard", "--grace", "100ms"]).with(["--uid", &uid]));
}

/// A guarded bowout that runs the probe, and the PID of its supervisor.
fn guarded(options: &[&str], words: &[&str]) -> (Running, i32) {
    let options = [&["--guard", "--grace", "1h"], options].concat();
    let mut bowout = Start::new(options).probe(words);
    bowout.ready();
    let supervisor = bowout.child_pid();
    (bowout, supervisor)
}

#[test]
fn the_command_has_its_grace_period_and_its_own_status_when_the_supervisor_is_killed() {
    let (mut bowout, supervisor) = guarded(&[], &["signals", "--exit", "TERM:7"]);
    kill(supervisor, KILL);
    bowout.expect(TERM);
    assert_eq!(bowout.end(), Status::Code(7));
    let log = bowout.log();
    assert!(
        log[0].contains("bowout was killed; its guard stops"),
        "{log:#?}"
    );
    assert!(log[1].contains("exited with 7"), "{log:#?}");
    assert_eq!(log.len(), 2, "{log:#?}");
}

#[test]
fn the_command_has_its_grace_period_when_the_guard_is_killed() {
    let (mut bowout, _) = guarded(&[], &["signals", "--exit", "TERM:7"]);
    bowout.kill(KILL);
    bowout.expect(TERM);
    assert_eq!(bowout.wait(), Status::Signal(KILL));
    let log = bowout.err.rest();
    assert!(
        log[0].contains("bowout's guard was killed: sent SIGTERM"),
        "{log:#?}"
    );
    assert!(log[1].contains("exited with 7"), "{log:#?}");
    nothing_is_left(&mut bowout, "nothing is left");
}

/// A test harness and supervisord's `killasgroup` kill whole groups.
#[test]
fn a_kill_of_the_whole_group_does_not_reach_both() {
    let (mut bowout, _) = guarded(&[], &["signals", "--exit", "TERM:7"]);
    kill(-bowout.pid, KILL);
    nothing_is_left(&mut bowout, "nothing is left");
}

#[test]
fn a_guard_forwards_each_signal_once_with_its_sender() {
    let (mut bowout, _) = guarded(&["--stop-on", "TERM"], &["signals", "--exit", "TERM:7"]);
    let all: Vec<i32> = (1..=64)
        .filter(|signal| ![9, 15, 17, 19, 20, 21, 22, 18].contains(signal))
        .collect();
    for &signal in &all {
        bowout.kill(signal);
        bowout.expect(signal);
    }
    bowout.queue(libc::SIGUSR1, 42);
    let got = bowout.expect(libc::SIGUSR1);
    assert_eq!(got.value, 42);
    bowout.kill_from_elsewhere(TERM);
    assert_eq!(bowout.end(), Status::Code(7));
    let log = bowout.log();
    let us = format!("from pid {} ", std::process::id());
    let forwarded = log
        .iter()
        .filter(|line| line.contains("forwarded ") && line.contains(&us));
    assert_eq!(forwarded.count(), all.len() + 1, "{log:#?}");
    let stop = log.iter().find(|line| line.contains("received SIGTERM"));
    assert!(
        stop.is_some_and(|line| line.contains("process)")),
        "{log:#?}"
    );
}

#[test]
fn a_second_request_kills_below_a_guard_too() {
    let (mut bowout, _) = guarded(&[], &["signals"]);
    bowout.kill(TERM);
    bowout.expect(TERM);
    bowout.kill(TERM);
    assert_eq!(bowout.end(), Status::Signal(KILL));
    let log = bowout.log();
    assert!(log[1].contains("the second stop request"), "{log:#?}");
}

/// There is one log and one report, and each hook runs once.
#[test]
fn the_guard_writes_the_report_of_a_supervisor_that_was_killed() {
    let dir = Dir::new();
    let report = dir.file("report");
    let report = report.to_str().expect("text");
    let read = || -> serde_json::Value {
        serde_json::from_str(&std::fs::read_to_string(report).expect("a report")).expect("JSON")
    };
    for who in ["supervisor", "guard", "neither"] {
        let options = [
            "--report",
            report,
            "--pre-stop",
            "echo before >&2",
            "--post-stop",
            "echo after >&2",
        ];
        let (mut bowout, supervisor) = guarded(&options, &["signals", "--exit", "TERM:7"]);
        let child = children(supervisor)[0];
        match who {
            "supervisor" => kill(supervisor, KILL),
            "guard" => bowout.kill(KILL),
            _ => bowout.kill(TERM),
        }
        nothing_is_left(&mut bowout, "nothing is left");
        let log = bowout.err.rest();
        let report = read();
        let reason = match who {
            "supervisor" => "supervisor_killed",
            "guard" => "guard_killed",
            _ => "signal",
        };
        assert_eq!(report["stop"]["reason"], reason, "{report}");
        assert_eq!(report["pid"], child, "{report}");
        assert_eq!(report["exit"]["number"], 7, "{report}");
        assert_eq!(report["outlives_bowout"], false, "{report}");
        let times = |what: &str| log.iter().filter(|line| *line == what).count();
        // The guard does not run the hooks before the stop signal, because the supervisor may have
        // run them already.
        let before = usize::from(who != "supervisor");
        assert_eq!(
            (times("before"), times("after")),
            (before, 1),
            "{who}: {log:#?}"
        );
    }
}

/// The kernel kills every process of a PID namespace when its first process dies.
#[test]
fn pid_1_needs_no_guard() {
    if skip(no_namespaces()) {
        return;
    }
    let mut bowout = Start::new(["--guard", "-v"])
        .at(Home::Pid1)
        .probe(["exit", "7"]);
    assert_eq!(bowout.end(), Status::Code(7));
    let log = bowout.log();
    let unneeded = |line: &&String| line.contains("bowout is PID 1 and needs no --guard");
    assert_eq!(log.iter().filter(unneeded).count(), 1, "{log:#?}");
}

/// The guard exits as bowout does without it.
#[test]
fn a_guard_exits_as_the_command_did() {
    for (script, status) in [
        ("exit 0", Status::Code(0)),
        ("exit 9", Status::Code(9)),
        ("kill -USR1 $$", Status::Signal(libc::SIGUSR1)),
        ("kill -KILL $$", Status::Signal(KILL)),
    ] {
        assert_eq!(Start::new(["--guard"]).sh(script).end(), status, "{script}");
    }
    let mut missing = Start::new(["--guard"]).command(["/nowhere/program"]);
    assert_eq!(missing.end(), Status::Code(127));
    assert_eq!(missing.log().len(), 1);
}

#[test]
fn no_tree_outlives_a_guard_that_pkill_looks_for_by_name() {
    let (bowout, supervisor) = guarded(&[], &["signals", "--exit", "TERM:7"]);
    assert_eq!(field(supervisor, "Name"), "bowout");
    assert!(!bowout.field("Name").contains("bowout"));
}

/// The same as without a guard, in a real bash.
#[test]
fn job_control_works_through_a_guard() {
    let mut shell = Shell::start();
    let (child, bowout) = shell.probe("bowout --guard --grace 1h probe terminal --catch 64");
    let guard = parent_of(bowout);
    for how in ["fg", "bg", "fg"] {
        shell.0.type_keys(CTRL_Z);
        shell.stopped(child, bowout);
        shell.0.state(guard, 'T');
        shell.resume(how, child, bowout);
        if how == "bg" {
            shell.fg(group_of(bowout));
        }
        // Through the guard: all three processes have handled SIGCONT by then.
        shell.answers(guard);
    }
    shell.0.type_keys(CTRL_C);
    assert_eq!(shell.prompt().0, 128 + libc::SIGINT);
}

/// The kernel sends SIGHUP to the session leader alone, which is the guard.
#[test]
fn a_hang_up_reaches_the_command_through_a_guard_once() {
    let line = "exec bowout --guard --grace 1h probe terminal --catch 64,HUP,USR2 --exit USR2:7 --to out 2>log";
    let mut pty = Pty::start(Role::Controlling, &["sh", "-c", line]);
    let bowout = parent_of(pty.ready_in("out"));
    pty.hang_up();
    pty.see_in("out", &format!("got 1 0 {bowout}"));
    pty.see_in("log", "received SIGHUP from the terminal");
    kill(bowout, libc::SIGUSR2);
    pty.see_in("log", "exited with 7");
    assert_eq!(pty.file("out").matches("got 1 ").count(), 1);
}

/// A python3 process that starts bowout with a pipe as its input and kills itself, at any moment
/// from before bowout's first instruction on.
const PARENT: &str = "import os, random, sys, time
r, w = os.pipe()
random.seed(int(sys.argv[1]))
one, other = random.random() * .01, random.random() * .03
if os.fork() == 0:
    os.dup2(r, 0); os.close(r); os.close(w)
    time.sleep(one)
    os.execv(sys.argv[2], sys.argv[2:])
os.close(r)
time.sleep(other)
os.kill(os.getpid(), 9)";

#[test]
fn nothing_outlives_a_parent_that_is_killed_at_any_moment() {
    if skip(missing("python3")) {
        return;
    }
    for nth in 0..size(50, 1000) {
        let words = [
            "-c",
            PARENT,
            &nth.to_string(),
            BOWOUT,
            "-p",
            "TERM",
            "--stop-on-eof",
            "--grace",
            "200ms",
        ];
        let mut parent = Start::direct().command(
            ["python3"]
                .iter()
                .chain(&words)
                .chain(&["--", "sh", "-c", TREE]),
        );
        assert_eq!(parent.wait(), Status::Signal(KILL));
        nothing_is_left(&mut parent, &format!("nothing is left of {nth}"));
    }
}

/// Threads that start bowout and exit while their process continues.
const POOL: &str = "import subprocess, sys, threading
left = int(sys.argv[1])
while left > 0:
    started = []
    def start():
        started.append(subprocess.Popen(sys.argv[2:] + ['cat'], stdin=subprocess.PIPE, stdout=subprocess.PIPE))
    threads = [threading.Thread(target=start) for _ in range(min(left, 20))]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    left -= len(started)
    for child in started:
        out, _ = child.communicate(b'alive')
        assert (out, child.returncode) == (b'alive', 0), (out, child.returncode)
print('no false stop')";

#[test]
fn the_exit_of_the_thread_that_started_bowout_is_not_the_parents() {
    if skip(missing("python3")) {
        return;
    }
    let count = size(200, 1000).to_string();
    let mut pool =
        Start::direct().command(["python3", "-c", POOL, &count, BOWOUT, "-p", "TERM", "--"]);
    assert_eq!(pool.out.next().as_deref(), Some("no false stop"));
    assert_eq!(pool.end(), Status::Code(0));
}

/// bowout with `--stop-on-eof` and this input for the command.
fn reads(stdin: impl Into<OwnedFd>, grace: &str, words: &[&str]) -> Running {
    let stdin: OwnedFd = stdin.into();
    Start::new(["--stop-on-eof", "--grace", grace])
        .stdin(stdin)
        .probe(words)
}

/// Ends the input of a command that does not read it; bowout stops the command.
fn ends<W>(what: &str, stdin: impl Into<OwnedFd>, writer: W, close: impl FnOnce(W)) {
    let mut bowout = reads(stdin, "4s", &["signals", "--exit", "TERM:7"]);
    bowout.ready();
    close(writer);
    assert_eq!(bowout.end(), Status::Code(7), "{what}");
    let log = bowout.log();
    let began = "has ended: waiting for 1s before the stop signal is sent, SIGKILL in 4s";
    assert!(log[0].contains(began), "{what}: {log:#?}");
    assert!(log[1].contains("goes on: sent SIGTERM"), "{what}: {log:#?}");
    assert!(
        log[2].contains("after the end of its input"),
        "{what}: {log:#?}"
    );
}

#[test]
fn the_end_of_the_input_stops_the_command_whatever_it_comes_from() {
    let (read, write) = pipe().expect("a pipe");
    ends("pipe", read, write, drop);
    let (one, other) = UnixStream::pair().expect("a pair");
    ends("socketpair", one, other, drop);
    // node does this at the end of a child's stdin.
    let (one, other) = UnixStream::pair().expect("a pair");
    ends("shutdown", one, other, |other| {
        other.shutdown(std::net::Shutdown::Write).expect("a socket");
        std::mem::forget(other);
    });
    let (master, slave) = open();
    ends("pty", slave, master, drop);
}

#[test]
fn an_input_that_had_ended_before_the_start_stops_the_command() {
    let (read, write) = pipe().expect("a pipe");
    drop(write);
    let mut bowout = reads(read, "4s", &["signals", "--exit", "TERM:7"]);
    assert_eq!(bowout.end(), Status::Code(7));
}

#[test]
fn a_command_that_exits_at_the_end_of_its_input_is_sent_nothing() {
    let (read, mut write) = pipe().expect("a pipe");
    let mut bowout = Start::new(["--stop-on-eof", "--grace", "1h"])
        .stdin(read)
        .sh("cat; exit 5");
    write.write_all(b"all\n").expect("a reader");
    drop(write);
    assert_eq!(bowout.out.rest(), ["all"]);
    assert_eq!(bowout.end(), Status::Code(5));
    assert!(!bowout.log().iter().any(|line| line.contains("sent SIG")));
}

/// bowout reads no byte, and does not stop a command that still has unread input.
#[test]
fn unread_input_is_left_to_the_command() {
    let (read, mut write) = pipe().expect("a pipe");
    write.write_all(b"unread\n").expect("room");
    drop(write);
    let (hold, release) = pipe().expect("a pipe");
    let mut bowout = Start::new(["--stop-on-eof", "--grace", "1h"])
        .stdin(read)
        .inherit(&hold)
        .sh(&format!(
            "trap 'echo stopped; exit 5' TERM; echo ready; read -r x </proc/self/fd/{}; read -r line; echo $line; while :; do sleep 0.05; done",
            hold.as_raw_fd()
        ));
    assert_eq!(bowout.out.next().as_deref(), Some("ready"));
    // Longer than the time after which bowout would have stopped the command.
    let start = Instant::now();
    until("three looks", || {
        (start.elapsed() > Duration::from_millis(400)).then_some(())
    });
    assert_eq!(bowout.err.seen(), Vec::<String>::new());
    drop(release);
    assert_eq!(bowout.out.next().as_deref(), Some("unread"));
    bowout
        .err
        .find("the end", |line| line.contains("input of 'sh'"));
    // A stop request ends the wait before the stop signal.
    bowout.kill(TERM);
    assert_eq!(bowout.out.next().as_deref(), Some("stopped"));
    assert_eq!(bowout.end(), Status::Code(5));
}

#[test]
fn an_input_that_cannot_be_closed_never_asks() {
    let dir = Dir::new();
    let file = dir.write("input", "", 0o644);
    for path in [file.as_path(), "/dev/null".as_ref()] {
        let mut bowout = reads(
            File::open(path).expect("a file"),
            "0",
            &["signals", "--exit", "USR1:7"],
        );
        bowout.ready();
        bowout.kill(libc::SIGUSR1);
        assert_eq!(bowout.end(), Status::Code(7), "{}", path.display());
    }
}

/// The documents' statement about each wrapper: after `kill -9` of the wrapper, the command runs on
/// or does not.
#[test]
fn a_guard_is_what_the_other_wrappers_lack() {
    let probe = probe().to_str().expect("text");
    let command = [probe, "signals", "--exit", "TERM:7"];
    let mut tried = 0;
    for (wrapper, left) in [
        (&[BOWOUT, "--guard", "--grace", "1", "--"][..], false),
        (&["tini", "-s", "--"], true),
        (&["dumb-init", "--"], true),
        (&["timeout", "-k", "5", "1h"], true),
        (&["setsid", "-w"], true),
    ] {
        if wrapper[0] != BOWOUT && missing(wrapper[0]).is_some() {
            continue;
        }
        tried += 1;
        let mut running = Start::direct().command(wrapper.iter().chain(&command));
        running.ready();
        running.kill(KILL);
        running.wait();
        if left {
            assert_eq!(running.left().len(), 1, "{wrapper:?}");
        } else {
            nothing_is_left(&mut running, wrapper[0]);
        }
    }
    assert!(tried >= 3, "timeout and setsid are everywhere");
}
