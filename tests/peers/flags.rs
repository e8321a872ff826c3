//! The options that bowout took from tini, dumb-init and GNU timeout. Each case runs under the
//! program and under bowout: `cargo test --test peer-flags`. The test compares the exit status, the
//! signals that the command and its descendant received, and which of the two are left running. The
//! table lists where the two differ, and why bowout does (the design decides). The test fails when
//! one of these differences disappears, and when another one appears.
#![allow(unsafe_code)]
#![allow(clippy::disallowed_methods)]

#[path = "../common/mod.rs"]
#[allow(unused_imports)]
mod common;

use std::collections::BTreeMap;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::pty::missing;
use common::{BOWOUT, Dir, Running, Start, Status, hold, probe, signals_of, skip, until};

const TERM: i32 = libc::SIGTERM;
const HUP: i32 = libc::SIGHUP;
const USR1: i32 = libc::SIGUSR1;
/// The signal by which the test checks if a process is left. No case sends it.
const ASKED: i32 = 64;

#[derive(Clone, Copy)]
enum Step {
    /// Sends it to the wrapper. The command receives it before the next step, or the wrapper has
    /// exited.
    Send(i32),
    /// Sends it to the wrapper, without a wait.
    Drop(i32),
    /// The process that started the wrapper exits.
    ParentExits,
}
use Step::{Drop, ParentExits, Send};

/// A field of the outcome, and the reason why bowout differs there.
type Difference = (&'static str, &'static str);

/// The two lines, which begin with the program, the steps and the differences. PROBE is the probe,
/// FILE a file that is not executable.
struct Case(
    &'static str,
    &'static str,
    &'static [Step],
    &'static [Difference],
);

const LEFT: Difference = ("left", "bowout leaves no process");
const DRAIN: Difference = ("descendant", "bowout asks what the command leaves to exit");
const SAME_DEATH: Difference = (
    "end",
    "bowout dies as the command did, unless it is PID 1",
);
const OWN_CODES: Difference = ("end", "bowout's own failures are 125, 126 and 127");
const NO_CONT: Difference = (
    "descendant",
    "timeout sends SIGCONT after its signal; under bowout a process that runs sees none",
);
const TIMED_OUT: Difference = (
    "end",
    "124 is the code of an expired --max-runtime, killed or not",
);

const CASES: &[Case] = &[
    // tini
    Case("tini -- PROBE exit 7", "bowout -- PROBE exit 7", &[], &[]),
    Case(
        "tini -- PROBE die TERM",
        "bowout -- PROBE die TERM",
        &[],
        &[SAME_DEATH],
    ),
    Case(
        "tini -- PROBE die TERM",
        "bowout --exit-status code -- PROBE die TERM",
        &[],
        &[],
    ),
    Case("tini -- /no/such", "bowout -- /no/such", &[], &[]),
    Case("tini -- FILE", "bowout -- FILE", &[], &[]),
    Case(
        "tini -e 7 -- PROBE exit 7",
        "bowout -e 7 -- PROBE exit 7",
        &[],
        &[],
    ),
    Case(
        "tini -e 143 -- PROBE die TERM",
        "bowout -e 143 -- PROBE die TERM",
        &[],
        &[],
    ),
    Case(
        "tini -e 8 -e 7 -- PROBE exit 7",
        "bowout -e 8 -e 7 -- PROBE exit 7",
        &[],
        &[],
    ),
    Case(
        "tini -e 8 -- PROBE exit 7",
        "bowout -e 8 -- PROBE exit 7",
        &[],
        &[],
    ),
    Case(
        "tini -e 256 -- PROBE exit 7",
        "bowout -e 256 -- PROBE exit 7",
        &[],
        &[OWN_CODES],
    ),
    Case(
        "tini --no-such -- PROBE exit 7",
        "bowout --no-such -- PROBE exit 7",
        &[],
        &[OWN_CODES],
    ),
    Case("tini --version", "bowout --version", &[], &[]),
    Case("tini -h", "bowout -h", &[], &[]),
    Case(
        "tini -l",
        "bowout -l",
        &[],
        &[("end", "bowout has no option that prints its licence")],
    ),
    Case(
        "tini -s -- PROBE signals --name c --exit TERM:7",
        "bowout -s -- PROBE signals --name c --exit TERM:7",
        &[Send(USR1), Send(HUP), Send(40), Send(TERM)],
        &[],
    ),
    Case(
        "tini -s -- PROBE signals --name c --exit USR1:7",
        "bowout -s --grace 1h -- PROBE signals --name c --exit USR1:7",
        &[Send(TERM), Send(TERM), Send(USR1)],
        &[
            ("command", "a second stop request means now"),
            ("end", "a second stop request means now"),
        ],
    ),
    Case(
        "tini -s -- PROBE signals --name c --exit USR1:7",
        "bowout -s --grace 1h --on-repeat forward -- PROBE signals --name c --exit USR1:7",
        &[Send(TERM), Send(TERM), Send(USR1)],
        &[],
    ),
    Case(
        "tini -s -- PROBE pair --name d -- --name c --exit USR1:7",
        "bowout -s --grace 300ms -- PROBE pair --name d -- --name c --exit USR1:7",
        &[Send(USR1)],
        &[DRAIN, LEFT],
    ),
    Case(
        "tini -s -- PROBE pair --here --name d -- --name c --exit USR1:7",
        "bowout -s -c -- PROBE pair --here --name d -- --name c --exit USR1:7",
        &[Send(HUP), Send(USR1)],
        &[],
    ),
    Case(
        "tini -s -g -- PROBE pair --here --name d -- --name c --exit TERM:7",
        "bowout -s -g --grace 300ms -- PROBE pair --here --name d -- --name c --exit TERM:7",
        &[Send(USR1), Send(TERM)],
        &[LEFT],
    ),
    Case(
        "tini -s -p SIGTERM -- PROBE signals --name c --exit TERM:7",
        "bowout -s -p SIGTERM -- PROBE signals --name c --exit TERM:7",
        &[ParentExits],
        &[],
    ),
    Case(
        "tini -s -p SIGUSR1 -- PROBE signals --name c --exit USR1:7",
        "bowout -s -p SIGUSR1 -- PROBE signals --name c --exit USR1:7",
        &[ParentExits],
        &[],
    ),
    Case(
        "tini -s -- PROBE exit 7",
        "bowout -s -- PROBE exit 7",
        &[],
        &[],
    ),
    Case(
        "tini -s -- PROBE orphans 4",
        "bowout -s -- PROBE orphans 4",
        &[],
        &[],
    ),
    Case(
        "tini -s -w -- PROBE orphans 4",
        "bowout -s -w -- PROBE orphans 4",
        &[],
        &[],
    ),
    Case(
        "tini -s -v -- PROBE exit 7",
        "bowout -s -v -- PROBE exit 7",
        &[],
        &[
            ("stdout", "bowout logs on stderr alone"),
            ("stderr", "bowout logs on stderr alone"),
        ],
    ),
    // dumb-init
    Case("dumb-init PROBE exit 7", "bowout -g PROBE exit 7", &[], &[]),
    Case(
        "dumb-init PROBE die TERM",
        "bowout -g PROBE die TERM",
        &[],
        &[SAME_DEATH],
    ),
    Case(
        "dumb-init /no/such",
        "bowout -g /no/such",
        &[],
        &[OWN_CODES],
    ),
    Case(
        "dumb-init -v PROBE exit 7",
        "bowout -v -g PROBE exit 7",
        &[],
        &[],
    ),
    Case(
        "dumb-init PROBE pair --here --name d -- --name c --exit TERM:7",
        "bowout -g --grace 300ms PROBE pair --here --name d -- --name c --exit TERM:7",
        &[Send(USR1), Send(TERM)],
        &[LEFT],
    ),
    Case(
        "dumb-init PROBE pair --here --name d -- --name c --exit USR1:7",
        "bowout -g --grace 300ms PROBE pair --here --name d -- --name c --exit USR1:7",
        &[Send(USR1)],
        &[LEFT],
    ),
    Case(
        "dumb-init -c PROBE pair --here --name d -- --name c --exit TERM:7",
        "bowout -c PROBE pair --here --name d -- --name c --exit TERM:7",
        &[Send(USR1), Send(TERM)],
        &[],
    ),
    Case(
        "dumb-init -r 10:12 PROBE signals --name c --exit 12:7",
        "bowout -r 10:12 PROBE signals --name c --exit 12:7",
        &[Drop(USR1)],
        &[],
    ),
    Case(
        "dumb-init -r 10:12 -r 12:10 PROBE signals --name c --exit 10:7",
        "bowout -r 10:12 -r 12:10 PROBE signals --name c --exit 10:7",
        &[Drop(12)],
        &[],
    ),
    Case(
        "dumb-init --rewrite 15:3 PROBE signals --name c --exit 3:7",
        "bowout --rewrite 15:3 PROBE signals --name c --exit 3:7",
        &[Drop(TERM)],
        &[],
    ),
    Case(
        "dumb-init -r 15:0 PROBE signals --name c --exit USR1:7",
        "bowout -r 15:0 --grace 1h PROBE signals --name c --exit USR1:7",
        &[Drop(TERM), Send(USR1)],
        &[],
    ),
    Case(
        "dumb-init -r 15 PROBE exit 7",
        "bowout -r 15 PROBE exit 7",
        &[],
        &[OWN_CODES],
    ),
    // timeout
    Case(
        "timeout 1h PROBE exit 7",
        "bowout --max-runtime 1h PROBE exit 7",
        &[],
        &[],
    ),
    Case(
        "timeout 0 PROBE exit 7",
        "bowout --max-runtime never PROBE exit 7",
        &[],
        &[],
    ),
    Case(
        "timeout 0 PROBE exit 7",
        "bowout --max-runtime 0 PROBE exit 7",
        &[],
        &[(
            "end",
            "0 as a limit is refused, and 'never' named",
        )],
    ),
    Case(
        "timeout 1h PROBE die TERM",
        "bowout --max-runtime 1h PROBE die TERM",
        &[],
        &[],
    ),
    Case(
        "timeout 1h /no/such",
        "bowout --max-runtime 1h /no/such",
        &[],
        &[],
    ),
    Case("timeout 1h FILE", "bowout --max-runtime 1h FILE", &[], &[]),
    Case(
        "timeout 1x PROBE exit 7",
        "bowout --max-runtime 1x PROBE exit 7",
        &[],
        &[],
    ),
    Case(
        "timeout -1 PROBE exit 7",
        "bowout --max-runtime -1 PROBE exit 7",
        &[],
        &[],
    ),
    Case(
        "timeout -s NONE 1h PROBE exit 7",
        "bowout --stop-signal NONE PROBE exit 7",
        &[],
        &[],
    ),
    Case(
        "timeout -k 1x 1h PROBE exit 7",
        "bowout --grace 1x PROBE exit 7",
        &[],
        &[],
    ),
    Case(
        "timeout 0.3 PROBE signals --name c --exit TERM:7",
        "bowout --max-runtime 0.3 --grace never PROBE signals --name c --exit TERM:7",
        &[],
        &[],
    ),
    Case(
        "timeout .3s PROBE signals --name c --exit TERM:7",
        "bowout --max-runtime .3s --grace never PROBE signals --name c --exit TERM:7",
        &[],
        &[],
    ),
    Case(
        "timeout 0.005m PROBE signals --name c --exit TERM:7",
        "bowout --max-runtime 0.005m --grace never PROBE signals --name c --exit TERM:7",
        &[],
        &[],
    ),
    Case(
        "timeout 0.0001h PROBE signals --name c --exit TERM:7",
        "bowout --max-runtime 0.0001h --grace never PROBE signals --name c --exit TERM:7",
        &[],
        &[],
    ),
    Case(
        "timeout 0.000004d PROBE signals --name c --exit TERM:7",
        "bowout --max-runtime 0.000004d --grace never PROBE signals --name c --exit TERM:7",
        &[],
        &[],
    ),
    Case(
        "timeout -s INT 0.3 PROBE signals --name c --exit INT:7",
        "bowout --max-runtime 0.3 --stop-signal INT --grace never PROBE signals --name c --exit INT:7",
        &[],
        &[],
    ),
    Case(
        "timeout -s KILL 0.3 PROBE signals --name c",
        "bowout --max-runtime 0.3 --grace 0 PROBE signals --name c",
        &[],
        &[TIMED_OUT],
    ),
    Case(
        "timeout -k 1 0.3 PROBE pair --here --name d -- --name c",
        "bowout --max-runtime 0.3 --grace 1 PROBE pair --here --name d -- --name c",
        &[],
        &[
            TIMED_OUT,
            (
                "command",
                "under bowout a process that runs sees no SIGCONT",
            ),
            NO_CONT,
        ],
    ),
    Case(
        "timeout -k 1 0.3 PROBE pair --name d -- --name c",
        "bowout --max-runtime 0.3 --grace 1 PROBE pair --name d -- --name c",
        &[],
        &[
            TIMED_OUT,
            (
                "command",
                "under bowout a process that runs sees no SIGCONT",
            ),
            DRAIN,
            LEFT,
        ],
    ),
    Case(
        "timeout 0.3 PROBE pair --here --name d -- --name c --exit TERM:7",
        "bowout --max-runtime 0.3 --grace 1 PROBE pair --here --name d -- --name c --exit TERM:7",
        &[],
        &[NO_CONT, LEFT],
    ),
    Case(
        "timeout --preserve-status 0.3 PROBE signals --name c --exit TERM:7",
        "bowout --max-runtime 0.3 --grace never PROBE signals --name c --exit TERM:7",
        &[],
        &[TIMED_OUT],
    ),
    Case(
        "timeout --foreground 0.3 PROBE pair --here --name d -- --name c --exit TERM:7",
        "bowout --max-runtime 0.3 --grace 1 PROBE pair --here --name d -- --name c --exit TERM:7",
        &[],
        &[DRAIN, LEFT],
    ),
    Case(
        "timeout 1h PROBE signals --name c --exit TERM:7",
        "bowout --max-runtime 1h --grace never PROBE signals --name c --exit TERM:7",
        &[Send(TERM)],
        &[],
    ),
];

/// The compared fields, by name.
type Outcome = BTreeMap<&'static str, String>;

fn run(line: &str, file: &str, steps: &[Step], logs: bool) -> Outcome {
    let probe = probe().to_str().expect("text");
    let mut words: Vec<&str> = line
        .split(' ')
        .map(|word| match word {
            "PROBE" => probe,
            "FILE" => file,
            "bowout" => BOWOUT,
            word => word,
        })
        .collect();
    let parent_exits = steps.iter().any(|step| matches!(step, ParentExits));
    if parent_exits {
        let script = "\"$@\" & read line; exit 0";
        words.splice(0..0, ["sh", "-c", script, "sh"]);
    }
    let (stdin, kept) = std::io::pipe().expect("a pipe");
    // A signal that arrives before the probe can report it stays pending.
    let set_up = ["--block", "TERM,INT,CONT"];
    let start = Start::direct().stdin(stdin);
    let start = if steps.is_empty() {
        start.with(set_up)
    } else {
        start
    };
    let mut running = start.command(&words);
    let mut kept = Some(kept);
    let names = ["d", "c"]
        .into_iter()
        .filter(|name| line.contains(&format!("--name {name}")));
    let held: Vec<(&str, OwnedFd)> = names
        .map(|name| {
            let pid = running.ready_as(name);
            (name, hold(pid).expect("it lives until it is signalled"))
        })
        .collect();
    for step in steps {
        match *step {
            Send(signal) => send(&mut running, signal),
            Drop(signal) => running.kill(signal),
            ParentExits => kept = None,
        }
    }
    let status = running.wait();
    drop(kept);
    let mut outcome = Outcome::new();
    let end = match status {
        Status::Code(code) => format!("exits with {code}"),
        Status::Signal(signal) => format!("dies of {signal}"),
    };
    outcome.insert("end", end);
    if !parent_exits {
        let left: Vec<&str> = held
            .iter()
            .filter(|(name, pin)| is_left(&running, name, pin))
            .map(|(name, _)| *name)
            .collect();
        outcome.insert("left", format!("{left:?}"));
    }
    running.out.rest();
    running.err.rest();
    let (out, err) = (running.out.seen(), running.err.seen());
    for (field, name) in [("command", "c"), ("descendant", "d")] {
        let mut signals = signals_of(name, &out);
        signals.retain(|signal| *signal != ASKED);
        if line.starts_with("timeout") || line.starts_with("dumb-init") {
            // timeout sends its signal to the process and to the group, and dumb-init sends SIGTERM
            // once more at the end. The command receives one or two, if they merge or not.
            signals.dedup();
        }
        outcome.insert(field, format!("{signals:?}"));
    }
    if logs {
        // In a run with orphans, only a line about them counts.
        let says = |line: &&String| !line_is_of_probe(line);
        let reaps = |line: &&String| line.to_lowercase().contains("reaped");
        let about = |lines: &[String]| {
            let mut all = lines.iter().filter(says);
            if words.contains(&"orphans") {
                all.any(|line| reaps(&line))
            } else {
                all.next().is_some()
            }
        };
        outcome.insert("stdout", format!("logs: {}", about(&out)));
        outcome.insert("stderr", format!("logs: {}", about(&err)));
    }
    outcome
}

/// Returns true for a line of the probe, which is not a wrapper's log.
fn line_is_of_probe(line: &str) -> bool {
    line.starts_with("most ") || line == "none left"
}

/// Waits until the command has received the signal, or the wrapper has exited.
fn send(running: &mut Running, signal: i32) {
    let count = |running: &Running| {
        let seen = signals_of("c", &running.out.seen());
        seen.iter().filter(|one| **one == signal).count()
    };
    let before = count(running);
    if running.has_ended() {
        return;
    }
    if signal == TERM {
        common::apart(running.pid);
    }
    running.try_kill(signal);
    until("the command has the signal", || {
        (count(running) > before || running.has_ended()).then_some(())
    });
}

fn has_exited(pin: &OwnedFd) -> bool {
    let mut poll = libc::pollfd {
        fd: pin.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one valid structure.
    unsafe { libc::poll(&raw mut poll, 1, 0) == 1 }
}

/// Returns true if the process answers, and kills it. A process that was sent SIGKILL does not
/// answer, but may exist for a moment longer.
fn is_left(running: &Running, name: &str, pin: &OwnedFd) -> bool {
    let pinned = |signal: i32| {
        let pin = pin.as_raw_fd();
        // SAFETY: the pointer to the information is null; the kernel fills it in as for kill(2).
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pin, signal, 0, 0) }
    };
    pinned(ASKED);
    let answers = until("it answers, or has exited", || {
        let has_answered = signals_of(name, &running.out.seen()).contains(&ASKED);
        (has_answered || has_exited(pin)).then_some(has_answered)
    });
    pinned(libc::SIGKILL);
    answers
}

/// Runs a case. The error lists the faults, the text the expected differences.
fn check(case: &Case, file: &str) -> Result<String, String> {
    let Case(peer, bowout, steps, differences) = case;
    // Compares the logs of undisturbed runs. Without -s, tini warns that it is not PID 1.
    let logs = ["tini -s ", "dumb-init "]
        .iter()
        .any(|start| peer.starts_with(start))
        && ["exit 7", "orphans 4"]
            .iter()
            .any(|end| peer.ends_with(end))
        && !peer.contains("-r ");
    let (theirs, ours) = (run(peer, file, steps, logs), run(bowout, file, steps, logs));
    let mut found = vec![];
    let mut wrong = vec![];
    for (field, their) in &theirs {
        let our = ours.get(field).map_or("-", String::as_str);
        let listed = differences.iter().find(|(name, _)| name == field);
        match (their == our, listed) {
            (true, None) => {}
            (true, Some(_)) => wrong.push(format!("{field}: {our} is no longer different")),
            (false, None) => wrong.push(format!("{field}: {their}, under bowout {our}")),
            (false, Some((_, why))) => {
                found.push(format!("{field}: {their}, under bowout {our}: {why}"));
            }
        }
    }
    for (name, _) in *differences {
        if !theirs.contains_key(name) {
            wrong.push(format!("{name}: not compared"));
        }
    }
    if !wrong.is_empty() {
        return Err(wrong.join("; "));
    }
    if found.is_empty() {
        return Ok("the same".into());
    }
    Ok(found.join("; "))
}

/// Prints a line past the test runner's capture.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

#[test]
fn each_option_is_as_in_the_program_it_comes_from_or_the_table_has_the_reason() {
    let dir = Dir::new();
    let file = dir.write("file", "text\n", 0o644);
    let file = file.to_str().expect("text");
    let is_there = |case: &&Case| {
        let program = case.0.split(' ').next().expect("a program");
        missing(program).is_none()
    };
    for program in ["tini", "dumb-init", "timeout"] {
        skip(missing(program));
    }
    let cases: Vec<&Case> = CASES.iter().filter(is_there).collect();
    let (next, wrong, differ) = (AtomicUsize::new(0), Mutex::new(vec![]), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = catch_unwind(AssertUnwindSafe(|| check(case, file)));
                    let result = result.unwrap_or_else(|_| Err("panicked, see above".into()));
                    let lines = format!("{} | {}", case.0, case.1);
                    match result {
                        Ok(found) => {
                            differ.fetch_add(usize::from(!case.3.is_empty()), Ordering::Relaxed);
                            say(&format!("{lines}: {found}"));
                        }
                        Err(why) => {
                            let line = format!("{lines}: WRONG: {why}");
                            say(&line);
                            wrong.lock().expect("no panic holds it").push(line);
                        }
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().expect("no panic holds it");
    let differ = differ.into_inner();
    say(&format!(
        "{} cases: {} the same, {differ} differ as the table says, {} wrong",
        cases.len(),
        cases.len() - differ - wrong.len(),
        wrong.len()
    ));
    assert!(wrong.is_empty(), "{wrong:#?}");
}
