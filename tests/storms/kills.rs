//! SIGKILL to bowout, to its guard, or to the supervisor below the guard, in each gap between two
//! system calls. The remaining processes are those that README.md ("Limits") and the manual page
//! (`--guard`) name. Without a guard these are descendants of the command; as PID 1 and with
//! `--guard` none is left.
//!
//! `cargo test --test storms kills::` is the quick part, with some gaps of each run. `BOWOUT_LONG=1
//! cargo test --test storms kills:: -- --nocapture` tests each gap, and prints their number.
//!
//! Caveat: the tracer is the thread that has started the tracee.

use std::collections::BTreeMap;

use crate::bare::{Bare, Line};
use crate::common::{Dir, Home, Status, homes, leftovers, not_root, probe, size, skip, until};
use crate::steps::{MOST, Next, forked, next, ptrace, start};

const KILL: i32 = libc::SIGKILL;
const TERM: i32 = libc::SIGTERM;

/// The quick part tests one gap in this many, and begins elsewhere in each scenario.
const APART: usize = 37;

/// A run of bowout in which it is killed. The name of the command is `c`, that of a descendant `d`.
struct Scenario {
    name: &'static str,
    options: &'static [&'static str],
    script: &'static str,
    /// The signal that bowout is sent once the log has all of these lines.
    asks: Option<(i32, &'static [&'static str])>,
    /// bowout's exit code where it is not killed; with `None` it ends as its child, which dies of
    /// SIGKILL.
    code: Option<i32>,
}

const FILE: &str = "FILE";

const SCENARIOS: [Scenario; 6] = [
    Scenario {
        name: "routine",
        options: &[],
        script: "exec \"$PROBE\" exit 7",
        asks: None,
        code: Some(7),
    },
    Scenario {
        name: "stop",
        options: &["--grace", "1h"],
        script: "exec \"$PROBE\" signals --name c --exit TERM:7",
        asks: Some((TERM, &["c ready"])),
        code: Some(7),
    },
    Scenario {
        name: "escalation",
        options: &["--grace", "500ms"],
        script: "exec \"$PROBE\" signals --name c",
        asks: Some((TERM, &["c ready"])),
        code: None,
    },
    // `d` has a session of its own and does not exit on SIGTERM; `c` exits without a stop request.
    Scenario {
        name: "drain",
        options: &["--grace", "500ms"],
        script: "setsid \"$PROBE\" signals --name d & exec \"$PROBE\" signals --name c --exit USR1:7 --exit TERM:7",
        asks: Some((libc::SIGUSR1, &["c ready", "d ready"])),
        code: Some(7),
    },
    // A hook that runs for a while, and exits before its deadline.
    Scenario {
        name: "hooks",
        options: &[
            "--grace",
            "1h",
            "--pre-stop",
            "exec sleep 0.05",
            "--post-stop",
            "exec \"$PROBE\" exit 0",
        ],
        script: "exec \"$PROBE\" signals --name c --exit TERM:7",
        asks: Some((TERM, &["c ready"])),
        code: Some(7),
    },
    Scenario {
        name: "ready",
        options: &["--grace", "1h", "--ready", "fd:3", "--ready-file", FILE],
        script: "echo >&3; exec \"$PROBE\" signals --name c --exit TERM:7",
        asks: Some((TERM, &["c ready", "is ready after"])),
        code: Some(7),
    },
];

/// The process that is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    /// The only process of bowout.
    Bowout(Home),
    Guard,
    Supervisor,
}

impl Scenario {
    fn line(&self, victim: Victim, mark: &str, file: &str) -> Line {
        let home = match victim {
            Victim::Bowout(home) => home,
            Victim::Guard | Victim::Supervisor => Home::Subreaper,
        };
        let mut options: Vec<&str> = self
            .options
            .iter()
            .map(|option| if *option == FILE { file } else { option })
            .collect();
        if !matches!(victim, Victim::Bowout(_)) {
            options.push("--guard");
        }
        Line::new(home, &options, &["sh", "-c", self.script])
            .env("PROBE", probe())
            .env(leftovers::MARK, mark)
            .traced()
    }

    /// Sends bowout its signal once the log has the lines.
    fn ask(&self, bare: &mut Bare, asked: &mut bool) {
        bare.take();
        let Some((signal, lines)) = self.asks.filter(|_| !*asked) else {
            return;
        };
        let text = bare.text();
        if lines.iter().all(|line| text.contains(line)) {
            bare.kill(signal);
            *asked = true;
        }
    }
}

/// Returns true if this process executes the probe with this name.
fn is_called(pid: i32, name: &str) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).contains(&format!("\0--name\0{name}\0"))
}

/// Returns true if a process of this mark and name runs on. A process that exits, or that was sent
/// SIGKILL, never sleeps again.
fn goes_on(mark: &str, name: &str) -> bool {
    let pids: Vec<i32> = leftovers::of(mark)
        .into_iter()
        .filter(|pid| is_called(*pid, name))
        .collect();
    until("the descendant sleeps, or has exited", || {
        let state = |pid: &i32| leftovers::stat(*pid).map_or('Z', |stat| stat.state);
        let killed = |pid: &i32| {
            let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let mut sets = text.lines().filter_map(|line| {
                line.strip_prefix("SigPnd:")
                    .or_else(|| line.strip_prefix("ShdPnd:"))
            });
            sets.any(|set| {
                u64::from_str_radix(set.trim(), 16).is_ok_and(|set| set & (1 << (KILL - 1)) != 0)
            })
        };
        if pids.iter().all(|pid| ['Z', 'X'].contains(&state(pid))) {
            return Some(false);
        }
        pids.iter()
            .any(|pid| state(pid) == 'S' && !killed(pid))
            .then_some(true)
    })
}

/// The PID of `c`, once it is ready.
fn pid_of_c(text: &str) -> Option<i32> {
    let line = text.lines().find_map(|line| line.strip_prefix("c ready "));
    line.and_then(|pid| pid.parse().ok())
}

/// The remaining processes of a run, which are killed at its end.
struct Left(String);

impl Drop for Left {
    fn drop(&mut self) {
        until("all that was left is killed", || {
            (!leftovers::kill_all(&self.0)).then_some(())
        });
        leftovers::reap_orphans();
    }
}

/// Kills the victim `gap` stops after its first instruction. Returns None if it has ended before.
/// Otherwise the text is the status of the guard after a kill of the supervisor, or says if `d` is
/// left.
fn kill_in_gap(victim: Victim, scenario: &Scenario, dir: &Dir, gap: usize) -> Option<String> {
    let left = Left(leftovers::unique());
    let mark = &left.0;
    let file = dir.file("ready");
    let line = scenario.line(victim, mark, file.to_str().expect("text"));
    let (mut bare, pid) = if victim == Victim::Supervisor {
        let (bare, supervisor) = forked(&line);
        // The processes that it forks are not traced.
        let options = libc::PTRACE_O_TRACESYSGOOD as usize;
        ptrace(libc::PTRACE_SETOPTIONS, supervisor, options);
        (bare, supervisor)
    } else {
        let bare = start(&line, 0);
        let pid = bare.pid;
        (bare, pid)
    };
    let what = format!("{victim:?}, {}, gap {gap}", scenario.name);
    let mut asked = false;
    for _ in 0..gap {
        let drive = || {
            scenario.ask(&mut bare, &mut asked);
            false
        };
        if let Next::Ended(status) = next(pid, libc::PTRACE_SYSCALL, drive) {
            if pid == bare.pid {
                bare.ended(status);
            }
            until(&format!("{what}: nothing is left of a whole run"), || {
                leftovers::of(mark).is_empty().then_some(())
            });
            let status = scenario.code.map_or(bare.died(KILL), Status::Code);
            assert_eq!(bare.end(), status, "{what}: {}", bare.text());
            assert!(!file.exists(), "{what}: the file is left");
            return None;
        }
    }
    bare.take();
    let before = bare.text();
    let survives = before.contains("d ready") && goes_on(mark, "d");
    // The tracer detaches, because it would have to reap the victim before the parent can.
    ptrace(libc::PTRACE_DETACH, pid, KILL as usize);
    if pid == bare.pid {
        assert_eq!(bare.wait(), Status::Signal(KILL), "{what}");
    }
    match victim {
        Victim::Bowout(Home::Subreaper) => {
            let rest = until(
                &format!("{what}: the command and its hooks end with bowout"),
                || {
                    let rest = leftovers::of(mark);
                    rest.iter().all(|pid| is_called(*pid, "d")).then_some(rest)
                },
            );
            // If `d` was not ready, its parent may have ended before it forked `d`.
            if before.contains("d ready") {
                assert_eq!(rest.len(), usize::from(survives), "{what}: {rest:?}");
            }
        }
        Victim::Bowout(Home::Pid1) => until(&format!("{what}: the namespace ends"), || {
            leftovers::of(mark).is_empty().then_some(())
        }),
        Victim::Guard | Victim::Supervisor => {
            until(&format!("{what}: nothing is left of the tree"), || {
                leftovers::of(mark).is_empty().then_some(())
            });
            let status = bare.end();
            let text = bare.text();
            for name in ["c", "d"] {
                let has = |signal: i32| text.contains(&format!("{name} {signal} "));
                let was_ready = before.contains(&format!("{name} ready"));
                assert!(
                    !was_ready || has(TERM) || has(libc::SIGUSR1),
                    "{what}: no grace period for {name}: {text}"
                );
            }
            assert!(!file.exists(), "{what}: the file is left: {text}");
            if victim == Victim::Supervisor {
                // The guard knows a command that has started.
                let started = pid_of_c(&text).is_some() && scenario.asks.is_some();
                if started {
                    let expected = scenario.code.map_or(bare.died(KILL), Status::Code);
                    assert_eq!(status, expected, "{what}: {text}");
                }
                let when = if started { ", the child's" } else { "" };
                return Some(format!("{status:?}{when}"));
            }
        }
    }
    let left = survives && victim == Victim::Bowout(Home::Subreaper);
    Some(if left { "d is left" } else { "" }.to_owned())
}

/// Kills the victim in each gap of each scenario, or in some of them.
fn kill_in_gaps(victim: Victim) {
    if skip(not_root()) {
        return;
    }
    leftovers::adopt_orphans();
    let dir = Dir::new();
    for (nth, scenario) in SCENARIOS.iter().enumerate() {
        let (mut gap, mut met) = (size(nth * 6, 0), 0);
        let mut outcomes: BTreeMap<String, usize> = BTreeMap::new();
        while let Some(outcome) = kill_in_gap(victim, scenario, &dir, gap) {
            *outcomes.entry(outcome).or_default() += 1;
            met += 1;
            gap += size(APART, 1);
            let _ = std::fs::remove_file(dir.file("ready"));
            assert!(gap < MOST, "{victim:?}, {}: no end", scenario.name);
        }
        assert!(
            met >= size(2, 60),
            "{victim:?}, {}: {met} gaps are no run",
            scenario.name
        );
        println!("{victim:?}, {}: {met} gaps: {outcomes:?}", scenario.name);
    }
}

#[test]
fn a_kill_of_bowout_leaves_descendants_of_the_command_alone() {
    kill_in_gaps(Victim::Bowout(Home::Subreaper));
}

#[test]
fn a_kill_of_pid_1_leaves_nothing() {
    if homes().contains(&Home::Pid1) {
        kill_in_gaps(Victim::Bowout(Home::Pid1));
    }
}

#[test]
fn a_kill_of_the_guard_leaves_nothing() {
    kill_in_gaps(Victim::Guard);
}

#[test]
fn a_kill_of_the_supervisor_leaves_nothing() {
    kill_in_gaps(Victim::Supervisor);
}
