//! Before the stop signal: `--pre-stop` hooks, in order, then `--stop-delay`. Both are inside the
//! grace period, and both end with the child.

use std::fs::{File, OpenOptions};
use std::io::{Write, pipe};
use std::path::PathBuf;
use std::time::Duration;

use crate::common::{
    BOWOUT, Dir, Home, Lines, NONE, NOTHING, Running, SOON, Start, Status, assert_at_most,
    children, homes, leftovers, no_namespaces, not_root, probe, signals_of, skip, timed, until,
};

const TERM: i32 = libc::SIGTERM;
const INT: i32 = libc::SIGINT;
const KILL: i32 = libc::SIGKILL;
const USR1: i32 = libc::SIGUSR1;

/// A FIFO on which a hook waits until the test opens the gate.
struct Gate {
    dir: Dir,
    /// Open for reading and writing, so that no open of it blocks.
    fifo: File,
}

impl Gate {
    fn new() -> Self {
        let dir = Dir::new();
        let path =
            std::ffi::CString::new(dir.file("gate").to_str().expect("text")).expect("no NUL");
        // SAFETY: a string that outlives the call.
        assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
        let fifo = OpenOptions::new()
            .read(true)
            .write(true)
            .open(dir.file("gate"))
            .expect("a FIFO");
        Self { dir, fifo }
    }

    /// A hook that prints `at the gate`, waits, and prints `through`.
    fn hook(&self) -> String {
        format!("echo at the gate; {}; echo through", self.read())
    }

    fn read(&self) -> String {
        format!("read go < {}", self.dir.file("gate").display())
    }

    fn open(&self) {
        (&self.fifo).write_all(b"\n").expect("an open FIFO");
    }
}

/// The options for these hooks.
fn hooks<'a>(hooks: &[&'a str]) -> Vec<&'a str> {
    hooks.iter().flat_map(|hook| ["--pre-stop", hook]).collect()
}

fn start(options: &[&str], hook: &[&str]) -> Start {
    Start::new(options.iter().copied().chain(hooks(hook)))
}

/// Starts bowout with stdout and stderr on one pipe: the output of the child, the hooks and bowout,
/// in its order.
fn on_one_pipe(start: Start, child: &[&str]) -> Running {
    let (read, write) = pipe().expect("a pipe");
    let copy = write.try_clone().expect("a copy");
    let mut bowout = start.stdout(copy).stderr(write).probe(child);
    bowout.out = Lines::of(read);
    bowout.ready();
    bowout
}

/// Waits for this whole line of a hook; bowout's own lines only quote the hook.
fn told(lines: &mut Lines, line: &str) {
    lines.find(line, |other| other == line);
}

fn stop_request(bowout: &mut Running) {
    bowout.err.find("a stop request", |line| {
        line.starts_with("bowout: received SIG")
    });
}

/// The number of the signal for a line of the child; the line itself for one of a hook; `None` for
/// one of bowout.
fn event(line: &str) -> Option<String> {
    match crate::common::Got::parse(line) {
        Some(got) => Some(got.signal.to_string()),
        None => (!line.starts_with("bowout: ")).then(|| line.to_owned()),
    }
}

#[test]
fn hooks_run_one_after_the_other_and_the_stop_signal_comes_after_the_last() {
    for home in homes() {
        let gate = Gate::new();
        let start = start(
            &["--grace", "1h"],
            &[&gate.hook(), "echo $x two", "echo three"],
        );
        let mut bowout = on_one_pipe(start.at(home), &["signals", "--exit", "TERM:3"]);
        bowout.kill(TERM);
        told(&mut bowout.out, "at the gate");
        // The child receives this signal between the hook's start and its end: neither the next
        // hook nor the stop signal was sent early.
        bowout.kill(USR1);
        bowout
            .out
            .find("USR1", |line| line.starts_with(&format!("{USR1} ")));
        gate.open();
        let events: Vec<String> = bowout
            .out
            .rest()
            .iter()
            .filter_map(|line| event(line))
            .collect();
        assert_eq!(events, ["through", "two", "three", "15"], "{home:?}");
        assert_eq!(bowout.end(), Status::Code(3));
    }
}

#[test]
fn the_stop_delay_passes_after_the_last_hook() {
    for home in homes() {
        let delay = Duration::from_millis(400);
        let gate = Gate::new();
        let start = start(&["--grace", "1h", "--stop-delay", "400ms"], &[&gate.hook()]);
        let mut bowout = on_one_pipe(start.at(home), &["signals", "--exit", "TERM:3"]);
        bowout.kill(TERM);
        told(&mut bowout.out, "at the gate");
        let (events, took) = timed(|| {
            gate.open();
            let lines = bowout.out.rest();
            lines
                .iter()
                .filter_map(|line| event(line))
                .collect::<Vec<_>>()
        });
        assert_eq!(events, ["through", "15"], "{home:?}");
        assert!(took >= delay && took < SOON, "{took:?}");
        assert_eq!(bowout.end(), Status::Code(3));
    }
}

#[test]
fn the_stop_delay_needs_no_hook() {
    for home in homes() {
        let mut bowout = Start::new(["--grace", "1h", "--stop-delay", "300ms"])
            .at(home)
            .probe(["signals", "--exit", "TERM:3"]);
        bowout.ready();
        let ((), took) = timed(|| {
            bowout.kill(TERM);
            bowout.expect(TERM);
        });
        assert!(
            took >= Duration::from_millis(300) && took < SOON,
            "{home:?}: {took:?}"
        );
        assert_eq!(bowout.end(), Status::Code(3));
    }
}

#[test]
fn the_childs_end_cuts_the_stop_delay_short() {
    for home in homes() {
        let options = ["--grace", "2h", "--stop-delay", "1h"];
        let mut bowout = Start::new(options)
            .at(home)
            .probe(["signals", "--exit", "USR1:3"]);
        bowout.ready();
        bowout.kill(TERM);
        bowout.kill(USR1);
        assert_eq!(
            signals_of("", &bowout.out.rest()),
            [USR1],
            "{home:?}: not TERM"
        );
        assert_eq!(bowout.end(), Status::Code(3));
    }
}

/// The view of `sh -c 'probe view'` from this state, as a hook and started directly.
fn views(home: Home, setup: &[&str]) -> (Vec<String>, Vec<String>) {
    let dir = Dir::new();
    let view = |name: &str| -> Vec<String> {
        let text = std::fs::read_to_string(dir.file(name)).expect("a view");
        text.lines().map(str::to_owned).collect()
    };
    let script = |name: &str| format!("exec \"$PROBE\" view --to {}", dir.file(name).display());
    let common = |start: Start| {
        start
            .at(home)
            .with(setup)
            .dir("/usr")
            .env("TERM", "dumb")
            .env("EMPTY", "")
    };
    let mut direct = common(Start::direct()).sh(&script("direct"));
    assert_eq!(direct.end(), Status::Code(0));
    let null = File::open("/dev/null").expect("/dev/null");
    let mut bowout = common(start(&["--grace", "1h"], &[&script("hook")]))
        .inherit(&null)
        .probe(["signals", "--exit", "TERM:3"]);
    bowout.ready();
    bowout.kill(TERM);
    assert_eq!(bowout.end(), Status::Code(3), "{setup:?}");
    (view("hook"), view("direct"))
}

#[test]
fn a_hook_inherits_the_state_of_bowout() {
    let own = |line: &&String| {
        let skipped = ["id ", "fd ", "env E2E_RUN=", "env BOWOUT_"];
        !skipped.iter().any(|prefix| line.starts_with(prefix))
    };
    let states: [&[&str]; 4] = [
        &["--default", "PIPE", "--umask", "63"],
        &["--ignore", "PIPE,HUP,USR1,34"],
        &["--block", "HUP,TERM,USR2,37,64", "--nofile", "64"],
        &["--ignore", "CHLD,USR2", "--block", "INT"],
    ];
    for home in homes() {
        for setup in states {
            let (hook, direct) = views(home, setup);
            let (seen, wanted): (Vec<_>, Vec<_>) = (
                hook.iter().filter(own).collect(),
                direct.iter().filter(own).collect(),
            );
            assert_eq!(seen, wanted, "{home:?} {setup:?}");
            // The hook has no descriptor of bowout or of the child.
            let fds: Vec<_> = hook.iter().filter(|line| line.starts_with("fd ")).collect();
            assert!(fds[0].starts_with("fd 0 /dev/null "), "{fds:?}");
            assert!(
                fds.len() == 3
                    && fds[1].starts_with("fd 1 pipe ")
                    && fds[2].starts_with("fd 2 pipe "),
                "{fds:?}"
            );
            let added: Vec<_> = hook
                .iter()
                .filter_map(|line| {
                    line.strip_prefix("env BOWOUT_")?
                        .split('=')
                        .next()
                        .map(str::to_owned)
                })
                .collect();
            assert_eq!(
                added,
                ["CHILD_PID", "SIGNAL", "REASON", "GRACE_LEFT_MS"],
                "{home:?}"
            );
        }
    }
}

#[test]
fn the_output_of_a_hook_goes_to_stderr_and_its_stdin_is_empty() {
    for home in homes() {
        let (read, mut write) = pipe().expect("a pipe");
        write.write_all(b"the child's\n").expect("room");
        let hook = "cat; echo \"cat $?\"; echo error >&2";
        let mut bowout = start(&["--grace", "1h"], &[hook])
            .at(home)
            .stdin(read)
            .probe(["signals", "--exit", "TERM:3"]);
        bowout.ready();
        bowout.kill(TERM);
        assert_eq!(signals_of("", &bowout.out.rest()), [TERM]);
        assert_eq!(bowout.end(), Status::Code(3), "{home:?}");
        let lines: Vec<_> = bowout
            .log()
            .into_iter()
            .filter(|line| !line.starts_with("bowout: "))
            .collect();
        assert_eq!(lines, ["cat 0", "error"], "{home:?}");
    }
}

#[test]
fn a_hook_starts_where_bowout_was_started() {
    let dir = Dir::new();
    let at = dir.0.canonicalize().expect("a directory");
    for home in homes() {
        let mut bowout = start(&["--grace", "1h"], &["pwd -P"])
            .at(home)
            .dir(&at)
            .probe(["signals", "--exit", "TERM:3"]);
        bowout.ready();
        bowout.kill(TERM);
        assert_eq!(bowout.end(), Status::Code(3));
        assert!(
            bowout
                .log()
                .iter()
                .any(|line| line == at.to_str().expect("text")),
            "{:#?}",
            bowout.log()
        );
    }
}

/// Prints `vars PID SIGNAL LEFT`.
const VARIABLES: &str =
    "echo \"vars $BOWOUT_CHILD_PID $BOWOUT_SIGNAL ${BOWOUT_GRACE_LEFT_MS-none}\"";

/// The hooks' variables: PID, signal, time left.
fn variables(bowout: &mut Running) -> Vec<(String, String, String)> {
    let log = bowout.log();
    log.iter()
        .filter_map(|line| {
            let words: Vec<&str> = line.strip_prefix("vars ")?.split(' ').collect();
            let [pid, signal, left] = words[..] else {
                panic!("{line}")
            };
            Some((pid.to_owned(), signal.to_owned(), left.to_owned()))
        })
        .collect()
}

#[test]
fn a_hook_gets_the_childs_pid_the_request_and_the_time_left() {
    for home in homes() {
        for (request, name) in [
            (TERM, "SIGTERM"),
            (INT, "SIGINT"),
            (libc::SIGABRT, "SIGABRT"),
        ] {
            let mut bowout = start(
                &["--grace", "90s", "--stop-signal", "TERM"],
                &[VARIABLES, VARIABLES],
            )
            .at(home)
            .probe(["signals", "--exit", "TERM:3"]);
            let child = bowout.ready();
            bowout.kill(request);
            assert_eq!(bowout.end(), Status::Code(3));
            let seen = variables(&mut bowout);
            assert_eq!(seen.len(), 2, "{home:?}");
            let left: Vec<u64> = seen
                .iter()
                .map(|(pid, signal, left)| {
                    assert_eq!(
                        (pid.as_str(), signal.as_str()),
                        (child.to_string().as_str(), name),
                        "{home:?}"
                    );
                    left.parse().expect("a number")
                })
                .collect();
            assert!(
                left[0] <= 90_000 && left[1] <= left[0] && left[1] > 60_000,
                "{left:?}"
            );
        }
    }
}

#[test]
fn without_a_deadline_a_hook_gets_none() {
    for home in homes() {
        let mut bowout = start(&["--grace", "never"], &[VARIABLES])
            .at(home)
            .probe(["signals", "--exit", "TERM:3"]);
        bowout.ready();
        bowout.kill(TERM);
        assert_eq!(bowout.end(), Status::Code(3));
        assert_eq!(variables(&mut bowout)[0].2, "none");
    }
}

/// The same if a hook of another bowout started this bowout.
#[test]
fn a_hook_does_not_inherit_the_variables_of_another_bowouts_hook() {
    let run = |grace: &str| {
        let mut bowout = start(&["--grace", grace], &[VARIABLES])
            .env("BOWOUT_CHILD_PID", "4194305")
            .env("BOWOUT_SIGNAL", "SIGHUP")
            .env("BOWOUT_GRACE_LEFT_MS", "999999999")
            .probe(["signals", "--exit", "TERM:3"]);
        let child = bowout.ready();
        bowout.kill(TERM);
        assert_eq!(bowout.end(), Status::Code(3));
        let (pid, signal, left) = variables(&mut bowout).remove(0);
        assert_eq!((pid, signal.as_str()), (child.to_string(), "SIGTERM"));
        left
    };
    assert_ne!(run("90s"), "999999999");
    assert_eq!(run("never"), "none");
}

/// The hook has none of the descriptors that systemd passed, and is not the process that the
/// watchdog monitors.
#[test]
fn a_variable_that_names_bowout_does_not_come_to_name_a_hook() {
    let shim = probe().to_str().expect("text");
    let hook = "echo \"named ${LISTEN_PID-none} ${WATCHDOG_PID-none} $$\"";
    let words = [
        "named",
        "LISTEN_PID",
        "WATCHDOG_PID",
        "--",
        BOWOUT,
        "--grace",
        "1h",
        "--pre-stop",
        hook,
    ];
    let words = words
        .iter()
        .copied()
        .chain(["--", shim, "signals", "--exit", "TERM:3"]);
    let mut bowout = Start::new(NOTHING)
        .program(shim)
        .bare(words.collect::<Vec<_>>());
    bowout.ready();
    bowout.kill(TERM);
    let line = bowout
        .err
        .find("the hook", |line| line.starts_with("named "));
    let words: Vec<&str> = line.split(' ').collect();
    assert!(words[1] != words[3] && words[2] != words[3], "{line}");
    assert_eq!(bowout.end(), Status::Code(3));
}

#[test]
fn another_sides_request_while_a_hook_runs_is_forwarded_with_the_first() {
    for (second, wanted) in [(TERM, &[TERM][..]), (INT, &[TERM, INT])] {
        let gate = Gate::new();
        let mut bowout = start(&["--grace", "never"], &[&gate.hook()]).probe(["signals"]);
        bowout.ready();
        bowout.kill(TERM);
        told(&mut bowout.err, "at the gate");
        bowout.kill_from_elsewhere(second);
        assert_eq!(
            bowout.settle(),
            NONE,
            "none of them before the hook has ended"
        );
        gate.open();
        bowout.out.find("the stop", |line| {
            line.starts_with(&format!("{} ", wanted[wanted.len() - 1]))
        });
        bowout.settle();
        // The second side has already sent its request.
        bowout.kill_from_elsewhere(second);
        bowout.out.rest();
        let mut seen = signals_of("", &bowout.out.seen());
        seen.retain(|signal| [TERM, INT].contains(signal));
        seen.sort_unstable_by_key(|signal| wanted.iter().position(|wanted| wanted == signal));
        assert_eq!(seen, wanted);
        assert_eq!(bowout.end(), Status::Signal(KILL));
    }
}

#[test]
fn other_signals_reach_the_child_while_a_hook_runs() {
    for home in homes() {
        let gate = Gate::new();
        let mut bowout = start(&["--grace", "1h"], &[&gate.hook()])
            .at(home)
            .probe(["signals", "--exit", "TERM:3"]);
        bowout.ready();
        bowout.kill(TERM);
        told(&mut bowout.err, "at the gate");
        for signal in [USR1, libc::SIGHUP, libc::SIGWINCH, 40, USR1] {
            bowout.kill(signal);
            bowout.expect(signal);
        }
        gate.open();
        assert_eq!(signals_of("", &bowout.out.rest()), [TERM], "{home:?}");
        assert_eq!(bowout.end(), Status::Code(3));
    }
}

#[test]
fn a_request_that_was_queued_with_a_value_keeps_it_after_the_hooks() {
    let mut bowout = start(&["--grace", "1h"], &["true"]).probe(["signals", "--exit", "TERM:3"]);
    bowout.ready();
    bowout.queue(TERM, 42);
    assert_eq!(bowout.expect(TERM).value, 42);
    assert_eq!(bowout.end(), Status::Code(3));
}

/// A hook that hangs and ignores every signal, with such a process in its group, and one outside.
const DEAF: &str = "\"$PROBE\" signals --name g & \"$PROBE\" with --setsid -- \"$PROBE\" signals --name s & \
                    exec \"$PROBE\" signals --name h";

fn wait_for_deaf(bowout: &mut Running) {
    for name in ["g", "s", "h"] {
        let prefix = format!("{name} ready ");
        bowout.err.find(&prefix, |line| line.starts_with(&prefix));
    }
}

#[test]
fn a_second_request_while_a_hook_runs_kills_the_hook_and_everything_at_once() {
    for home in homes() {
        let mut bowout = start(&["--grace", "never"], &[DEAF, "echo next"])
            .at(home)
            .probe(["signals"]);
        bowout.ready();
        bowout.kill(TERM);
        wait_for_deaf(&mut bowout);
        bowout.kill(TERM);
        assert_eq!(
            bowout.out.rest(),
            NOTHING,
            "the child was sent nothing but SIGKILL"
        );
        assert_eq!(bowout.end(), bowout.died(KILL), "{home:?}");
        assert!(
            !bowout.log().contains(&"next".into()),
            "{:#?}",
            bowout.log()
        );
    }
}

#[test]
fn a_second_request_during_the_stop_delay_kills_at_once() {
    for home in homes() {
        let mut bowout = Start::new(["--grace", "2h", "--stop-delay", "1h"])
            .at(home)
            .probe(["signals"]);
        bowout.ready();
        bowout.kill(TERM);
        stop_request(&mut bowout);
        bowout.kill(INT);
        assert_eq!(bowout.out.rest(), NOTHING);
        assert_eq!(bowout.end(), bowout.died(KILL), "{home:?}");
    }
}

#[test]
fn on_repeat_ignore_and_forward_let_a_hook_go_on() {
    for repeat in ["ignore", "forward"] {
        let gate = Gate::new();
        let options = ["--grace", "1h", "--on-repeat", repeat];
        let mut bowout = start(&options, &[&gate.hook()]).probe(["signals", "--exit", "TERM:3"]);
        bowout.ready();
        bowout.kill(TERM);
        told(&mut bowout.err, "at the gate");
        bowout.kill(TERM);
        assert_eq!(bowout.settle(), NONE, "{repeat}");
        gate.open();
        assert_eq!(signals_of("", &bowout.out.rest()), [TERM], "{repeat}");
        assert_eq!(bowout.end(), Status::Code(3));
        assert!(bowout.log().contains(&"through".into()));
    }
}

#[test]
fn a_hook_that_fails_is_logged_and_stops_nothing() {
    for home in homes() {
        for (hook, word) in [
            ("exit 9", "exited with 9"),
            ("no-such-command", "cannot run"),
            ("no-such-command; :; exit 127", "exited with 127"),
            ("kill -9 $$", "SIGKILL"),
        ] {
            let mut bowout = start(&["--grace", "1h"], &[hook, "echo next"])
                .at(home)
                .probe(["signals", "--exit", "TERM:3"]);
            bowout.ready();
            bowout.kill(TERM);
            bowout.expect(TERM);
            assert_eq!(bowout.end(), Status::Code(3), "{home:?} {hook}");
            let log = bowout.log();
            assert!(
                log.iter()
                    .any(|line| line.contains(hook) && line.contains(word)),
                "{word}: {log:#?}"
            );
            assert!(log.contains(&"next".into()), "{log:#?}");
        }
    }
}

#[test]
fn a_hook_that_cannot_be_forked_is_logged_and_stops_nothing() {
    if skip(not_root()) {
        return;
    }
    let dir = Dir::new();
    let child = dir.program(probe());
    let mut bowout = start(&["--grace", "1h"], &["echo $x one", "echo $x two"])
        .program(dir.program(BOWOUT))
        .with(["--uid", "65534"])
        .command([child.to_str().expect("text"), "signals", "--exit", "TERM:3"]);
    bowout.ready();
    // bowout and its child already exceed a limit of one process. The same user sets the limit:
    // root in a container may not be allowed to.
    let pid = bowout.pid.to_string();
    let mut limit =
        Start::direct()
            .with(["--uid", "65534"])
            .command(["prlimit", "--nproc=1", "--pid", &pid]);
    assert_eq!(limit.end(), Status::Code(0));
    bowout.kill(TERM);
    bowout.expect(TERM);
    assert_eq!(bowout.end(), Status::Code(3));
    let log = bowout.log();
    for hook in ["'echo $x one'", "'echo $x two'"] {
        assert!(
            log.iter()
                .any(|line| line.contains(hook) && line.contains("cannot start")),
            "{hook}: {log:#?}"
        );
    }
}

/// bowout as PID 1, after these mounts.
fn mounted(mounts: &str, options: &[&str], child: &[&str]) -> Running {
    let script = format!("set -e; {mounts}; shim=$1; shift; exec \"$shim\" \"$@\"");
    let words = ["-c", &script, "sh", BOWOUT]
        .into_iter()
        .chain(options.iter().copied());
    let words = words
        .chain(["--", probe().to_str().expect("text")])
        .chain(child.iter().copied());
    Start::plain()
        .program("sh")
        .at(Home::Pid1)
        .bare(words.collect::<Vec<_>>())
}

/// The same as in an image that holds only the command.
#[test]
fn a_hook_without_a_shell_is_logged_and_stops_nothing() {
    if skip(no_namespaces()) {
        return;
    }
    let options = [
        "--grace",
        "1h",
        "--pre-stop",
        "echo $x one",
        "--pre-stop",
        "echo $x two",
    ];
    let mut bowout = mounted(
        "mount --bind /dev/null /bin/sh",
        &options,
        &["signals", "--exit", "TERM:3"],
    );
    bowout.ready();
    bowout.kill(TERM);
    bowout.expect(TERM);
    assert_eq!(bowout.end(), Status::Code(3));
    let log = bowout.log();
    for hook in ["'echo $x one'", "'echo $x two'"] {
        assert!(
            log.iter()
                .any(|line| line.contains(hook) && line.contains("cannot run")),
            "{hook}: {log:#?}"
        );
    }
}

#[test]
fn a_hook_that_hangs_leaves_the_child_a_quarter_of_the_grace_period() {
    for home in homes() {
        // The child needs a part of its two seconds.
        let child = ["signals", "--pause", "TERM:250", "--exit", "TERM:3"];
        let mut bowout = start(&["--grace", "8s"], &[DEAF, "echo next"])
            .at(home)
            .probe(child);
        bowout.ready();
        let ((), took) = timed(|| {
            bowout.kill(TERM);
            wait_for_deaf(&mut bowout);
            bowout.expect(TERM);
        });
        assert!(
            took >= Duration::from_secs(6) && took < SOON,
            "{home:?}: {took:?}"
        );
        // The child was not killed: it exited by itself.
        assert_eq!(bowout.end(), Status::Code(3), "{home:?}");
        let log = bowout.log();
        assert!(
            log.iter()
                .any(|line| line.contains("has not exited in time")),
            "{log:#?}"
        );
        assert!(!log.contains(&"next".into()), "{log:#?}");
    }
}

/// In kill mode process, no drain would end the hook.
#[test]
fn a_hook_that_hangs_is_killed_with_its_group() {
    for home in homes() {
        let hook = "\"$PROBE\" signals --name g & exec \"$PROBE\" signals --name h";
        // The hook has three quarters of the first wait, and the child has enough time after it.
        let options = ["--escalate", "TERM/6s/CONT/1h/KILL", "-k", "process"];
        let mut bowout = start(&options, &[hook])
            .at(home)
            .probe(["signals", "--exit", "TERM:3"]);
        bowout.ready();
        bowout.kill(TERM);
        for name in ["g", "h"] {
            bowout
                .err
                .find(name, |line| line.starts_with(&format!("{name} ready ")));
        }
        assert_eq!(signals_of("", &bowout.out.rest()), [TERM]);
        // The end of the pipe, which both held.
        bowout.err.rest();
        assert_eq!(bowout.end(), Status::Code(3), "{home:?}");
    }
}

#[test]
fn hooks_and_delay_are_part_of_the_grace_period() {
    for home in homes() {
        let options = ["--grace", "1s", "--stop-delay", "500ms"];
        let mut bowout = start(&options, &[DEAF]).at(home).probe(["signals"]);
        bowout.ready();
        let (lines, took) = timed(|| {
            bowout.kill(TERM);
            bowout.out.rest()
        });
        assert_at_most(&signals_of("", &lines), &[TERM]);
        assert!(
            took >= Duration::from_secs(1) && took < SOON,
            "{home:?}: {took:?}"
        );
        assert_eq!(bowout.end(), bowout.died(KILL), "{home:?}");
    }
}

/// The processes of a hook are treated like other descendants: they run until the drain.
#[test]
fn processes_that_a_hook_leaves_are_stopped() {
    let script = |last: &str, gate: &Gate| {
        let inner = "\"$PROBE\" with --setsid -- \"$PROBE\"";
        format!(
            "\"$PROBE\" {last} --name g & {inner} {last} --name s & {}",
            gate.read()
        )
    };
    for home in homes() {
        for last in ["signals --exit TERM:0", "signals"] {
            let gate = Gate::new();
            let mut bowout = start(&["--grace", "1h", "-v"], &[&script(last, &gate)])
                .at(home)
                .probe(["signals", "--exit", "TERM:3"]);
            bowout.ready();
            bowout.kill(TERM);
            for name in ["g", "s"] {
                bowout
                    .err
                    .find(name, |line| line.starts_with(&format!("{name} ready ")));
            }
            gate.open();
            bowout.expect(TERM);
            if last == "signals" {
                bowout
                    .err
                    .find("the drain", |line| line.contains("descendants left"));
                bowout.kill(TERM);
            }
            // The end of the pipe, which all of them hold.
            bowout.err.rest();
            assert_eq!(bowout.end(), Status::Code(3), "{home:?} {last}");
        }
    }
}

/// A process that left the hook's process group is not touched, like the child's descendants.
#[test]
fn in_mode_process_a_hooks_group_is_ended() {
    let gate = Gate::new();
    let hook = format!("\"$PROBE\" signals --name g & {}", gate.read());
    let mut bowout =
        start(&["--grace", "1h", "-k", "process"], &[&hook]).probe(["signals", "--exit", "TERM:3"]);
    bowout.ready();
    bowout.kill(TERM);
    let line = bowout.err.find("g", |line| line.starts_with("g ready "));
    let left: i32 = line["g ready ".len()..].parse().expect("a PID");
    gate.open();
    bowout.expect(TERM);
    assert_eq!(bowout.wait(), Status::Code(3));
    until("the hook's group is gone", || match leftovers::stat(left) {
        None => Some(()),
        // This process has to reap a zombie.
        Some(stat) => (stat.state == 'Z').then_some(()),
    });
}

#[test]
fn the_childs_end_ends_the_hook_at_once() {
    for home in homes() {
        for mode in ["mixed", "group", "process"] {
            let hook = "\"$PROBE\" signals --name g & exec \"$PROBE\" signals --name h";
            let options = ["--grace", "2h", "--stop-delay", "1h", "-k", mode];
            let mut bowout = start(&options, &[hook, "echo next"])
                .at(home)
                .probe(["signals", "--exit", "USR1:6"]);
            bowout.ready();
            bowout.kill(TERM);
            for name in ["g", "h"] {
                bowout
                    .err
                    .find(name, |line| line.starts_with(&format!("{name} ready ")));
            }
            bowout.kill(USR1);
            assert_eq!(signals_of("", &bowout.out.rest()), [USR1]);
            assert_eq!(bowout.wait(), Status::Code(6), "{home:?} {mode}");
            // The end of the pipe, which the hook held.
            assert!(
                !bowout.log().contains(&"next".into()),
                "{:#?}",
                bowout.log()
            );
        }
    }
}

#[test]
fn a_hook_dies_with_bowout() {
    let mut bowout =
        start(&["--grace", "never"], &["exec \"$PROBE\" signals --name h"]).probe(["signals"]);
    bowout.ready();
    bowout.kill(TERM);
    bowout
        .err
        .find("the hook", |line| line.starts_with("h ready "));
    bowout.kill(KILL);
    bowout.out.rest();
    bowout.err.rest();
    assert_eq!(bowout.end(), Status::Signal(KILL));
}

#[test]
fn hooks_do_not_run_without_a_stop_request() {
    for home in homes() {
        let mut bowout = start(&["--grace", "1h"], &["echo hook"])
            .at(home)
            .probe(["signals", "--exit", "USR1:4"]);
        bowout.ready();
        for signal in [libc::SIGHUP, USR1] {
            bowout.kill(signal);
            bowout.expect(signal);
        }
        assert_eq!(bowout.end(), Status::Code(4), "{home:?}");
        assert!(
            !bowout.log().contains(&"hook".into()),
            "{:#?}",
            bowout.log()
        );
    }
}

#[test]
fn grace_0_runs_no_hook() {
    for home in homes() {
        let mut bowout = start(&["--grace", "0", "--stop-delay", "1s"], &["echo hook"])
            .at(home)
            .probe(["signals"]);
        bowout.ready();
        bowout.kill(TERM);
        assert_eq!(bowout.end(), bowout.died(KILL), "{home:?}");
        assert!(
            !bowout.log().contains(&"hook".into()),
            "{:#?}",
            bowout.log()
        );
    }
}

#[test]
fn max_runtime_runs_the_hooks_and_ends_with_124() {
    for home in homes() {
        let options = ["--grace", "90s", "--max-runtime", "300ms"];
        let start = start(&options, &[VARIABLES]).at(home);
        // TERM, at its default, ends the probe at any moment.
        let mut bowout = start.probe(["idle"]);
        assert_eq!(bowout.end(), Status::Code(124), "{home:?}");
        let seen = variables(&mut bowout);
        assert_eq!(seen.len(), 1, "{home:?}");
        assert_eq!(seen[0].1, "SIGTERM");
    }
}

/// A program that daemonises, and stays after the shell that started it has exited.
const DAEMON: &str = "\"$PROBE\" with --setsid -- \"$PROBE\" signals --name d --exit TERM:0";

#[test]
fn with_wait_tree_the_daemon_is_stopped_after_the_hooks() {
    for home in homes() {
        let gate = Gate::new();
        let mut bowout = start(&["--grace", "1h", "--wait-tree"], &[&gate.hook()])
            .at(home)
            .sh(&format!("{DAEMON} & exit 3"));
        bowout.ready_as("d");
        // Before its exit, the shell was the only child as well.
        let name =
            |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        until("the daemon alone is left", || {
            matches!(children(bowout.pid)[..], [daemon] if name(daemon) == "probe\n").then_some(())
        });
        bowout.kill(TERM);
        told(&mut bowout.err, "at the gate");
        bowout.kill(40);
        let got = bowout.out.next().expect("a signal");
        assert!(got.starts_with("d 40 "), "{home:?}: {got}");
        gate.open();
        assert_eq!(signals_of("d", &bowout.out.rest()), [TERM], "{home:?}");
        assert_eq!(bowout.end(), Status::Code(3), "{home:?}");
    }
}

#[test]
fn with_wait_tree_the_childs_own_end_does_not_end_the_hook() {
    for home in homes() {
        let gate = Gate::new();
        let script = format!("{DAEMON} & exec \"$PROBE\" signals --name c --exit USR1:3");
        let mut bowout = start(&["--grace", "1h", "--wait-tree"], &[&gate.hook()])
            .at(home)
            .sh(&script);
        bowout.ready_as("c");
        bowout.ready_as("d");
        bowout.kill(TERM);
        told(&mut bowout.err, "at the gate");
        let child = bowout.child_pid();
        bowout.kill(USR1);
        until("the child is reaped", || {
            (!children(bowout.pid).contains(&child)).then_some(())
        });
        gate.open();
        told(&mut bowout.err, "through");
        assert_eq!(signals_of("d", &bowout.out.rest()), [TERM], "{home:?}");
        assert_eq!(bowout.end(), Status::Code(3), "{home:?}");
    }
}

#[test]
fn a_hook_without_stdout_and_stderr_stops_nothing() {
    for home in homes() {
        for closed in ["2", "0,2"] {
            let mut bowout = start(&["--grace", "1h"], &["echo one; echo two >&2", "cat"])
                .at(home)
                .with(["--close", closed])
                .probe(["signals", "--exit", "TERM:3"]);
            bowout.ready();
            bowout.kill(TERM);
            assert_eq!(signals_of("", &bowout.out.rest()), [TERM], "{home:?}");
            // The hook's output did not go to the child's stdout.
            assert!(
                bowout
                    .out
                    .seen()
                    .iter()
                    .all(|line| line != "one" && line != "two"),
                "{:?}",
                bowout.out.seen()
            );
            assert_eq!(bowout.end(), Status::Code(3));
        }
    }
}

#[test]
fn a_stop_delay_that_leaves_nothing_of_the_grace_period_is_refused() {
    let bad: [(&[&str], &[&str]); 7] = [
        (&["--stop-delay", "8s"], &["--stop-delay", "--grace"]),
        (&["--stop-delay", "9s"], &["--stop-delay"]),
        (&["--stop-delay", "2s", "--grace", "2s"], &["--stop-delay"]),
        (
            &["--stop-delay", "1m", "--escalate", "TERM/30s/QUIT/2m/KILL"],
            &["--stop-delay"],
        ),
        (&["--stop-delay", "8"], &["--stop-delay", "--grace"]),
        (&["--stop-delay", "never"], &["--stop-delay"]),
        (&["--stop-delay", "soon"], &["soon"]),
    ];
    let refused = |mut bowout: Running, words: &[&str]| {
        assert_eq!(bowout.end(), Status::Code(125), "{words:?}");
        assert_eq!(bowout.out.rest(), NOTHING, "{words:?}");
        let line = bowout.line();
        assert!(
            words.iter().all(|word| line.contains(word)),
            "{words:?}: {line}"
        );
    };
    for (options, words) in bad {
        refused(Start::new(options).sh("echo started"), words);
    }
    refused(
        Start::plain()
            .env("BOWOUT_STOP_DELAY", "8s")
            .sh("echo started"),
        &["--stop-delay"],
    );
    refused(
        Start::plain()
            .env("BOWOUT_STOP_DELAY", "nonsense")
            .sh("echo started"),
        &["BOWOUT_STOP_DELAY", "nonsense"],
    );
    assert_eq!(
        Start::new(["--stop-delay", "7s"])
            .probe(["exit", "4"])
            .end(),
        Status::Code(4)
    );
    assert_eq!(
        Start::new(["--stop-delay", "1h", "--grace", "never"])
            .probe(["exit", "4"])
            .end(),
        Status::Code(4)
    );
}

#[test]
fn hooks_and_delay_can_be_given_by_variable_and_a_typed_option_wins() {
    let events = |start: Start| {
        let mut bowout = on_one_pipe(
            start.env("BOWOUT_PRE_STOP", "echo variable"),
            &["signals", "--exit", "TERM:3"],
        );
        bowout.kill(TERM);
        let events: Vec<String> = bowout
            .out
            .rest()
            .iter()
            .filter_map(|line| event(line))
            .collect();
        assert_eq!(bowout.end(), Status::Code(3));
        events
    };
    assert_eq!(events(Start::new(["--grace", "1h"])), ["variable", "15"]);
    assert_eq!(
        events(start(&["--grace", "1h"], &["echo typed"])),
        ["typed", "15"]
    );

    let delayed = |options: &[&str]| {
        let options = ["--grace", "1h"].iter().chain(options);
        let mut bowout = Start::new(options)
            .env("BOWOUT_STOP_DELAY", "50m")
            .probe(["signals", "--exit", "USR1:3"]);
        bowout.ready();
        bowout.kill(TERM);
        bowout
    };
    let mut bowout = delayed(&[]);
    stop_request(&mut bowout);
    bowout.kill(USR1);
    assert_eq!(signals_of("", &bowout.out.rest()), [USR1]);
    delayed(&["--stop-delay", "0"]).expect(TERM);
}

/// The log lines name each hook and delay, and their durations.
#[test]
fn the_log_names_hooks_and_delay() {
    let mut bowout = start(&["--grace", "20s", "--stop-delay", "100ms"], &["true"])
        .probe(["signals", "--exit", "TERM:3"]);
    bowout.ready();
    bowout.kill(TERM);
    assert_eq!(bowout.end(), Status::Code(3));
    let log = bowout.log();
    let words: [&[&str]; 4] = [
        &["received SIGTERM", "pre-stop", "100ms"],
        &["'true'"],
        &["stop delay", "SIGTERM"],
        &["exited with 3"],
    ];
    for (line, words) in log.iter().zip(words) {
        assert!(
            words.iter().all(|word| line.contains(word)),
            "{words:?}: {log:#?}"
        );
    }
    assert_eq!(log.len(), 4, "{log:#?}");
}

/// The directory in which bowout was started may be removed before the stop.
#[test]
fn a_hook_whose_directory_was_removed_runs_all_the_same() {
    let dir = Dir::new();
    let at: PathBuf = dir.file("gone");
    std::fs::create_dir(&at).expect("a directory");
    let mut bowout = start(&["--grace", "1h"], &["echo hook"])
        .dir(&at)
        .probe(["signals", "--exit", "TERM:3"]);
    bowout.ready();
    std::fs::remove_dir(&at).expect("removed");
    bowout.kill(TERM);
    assert_eq!(bowout.end(), Status::Code(3));
    assert!(bowout.log().contains(&"hook".into()), "{:#?}", bowout.log());
}
