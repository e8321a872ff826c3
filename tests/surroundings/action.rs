//! The actions of bowout in each place. Each is a run that is checked from outside.

use std::cell::OnceCell;
use std::ffi::OsString;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cgroup::Group;
use crate::common::{
    Running, Start, Status, assert_at_most, children, hold, keep_report, signals_of, until,
};
use crate::place::{Ground, Place, is_bowout};

const TERM: i32 = libc::SIGTERM;
const CONT: i32 = libc::SIGCONT;
const HUP: i32 = libc::SIGHUP;
const USR1: i32 = libc::SIGUSR1;
const USR2: i32 = libc::SIGUSR2;
const VALUE: i32 = 42;

pub type Action = (&'static str, fn(&Ground, &Place) -> Result<(), String>);

/// An action returns an `Err` with the reason if its place cannot be entered here. It panics at an
/// unexpected result.
pub const ACTIONS: [Action; 6] = [
    ("start", start),
    ("forward", forward),
    ("stop", stop),
    ("escalate", escalate),
    ("drain", drain),
    ("report", report),
];

/// bowout in a place, with the probe as its command.
struct Run<'a> {
    place: &'a Place,
    bowout: OnceCell<(i32, OwnedFd)>,
    pid_file: Option<std::path::PathBuf>,
    /// Dropped before the group.
    running: Running,
    group: Option<Group>,
}

impl<'a> Run<'a> {
    fn start(
        ground: &Ground,
        place: &'a Place,
        options: &[&str],
        words: &[&str],
    ) -> Result<Self, String> {
        let entry = (place.enter)(ground)?;
        let mut line: Vec<OsString> = entry.words;
        line.push(entry.bowout.into());
        line.extend(options.iter().map(OsString::from));
        line.extend(["--".into(), entry.probe.clone().into()]);
        if !place.inside.is_empty() {
            let inside = place.inside.iter().map(OsString::from);
            line.extend(["with".into()].into_iter().chain(inside));
            line.extend(["--".into(), entry.probe.into()]);
        }
        line.extend(words.iter().map(OsString::from));
        let group = entry.group.inspect(|group| group.freeze(true));
        let run = Self {
            place,
            bowout: OnceCell::new(),
            pid_file: entry.pid_file,
            running: Start::direct().dir("/").command(&line),
            group,
        };
        if let Some(group) = &run.group {
            // The process enters a group that is already frozen.
            let members = format!("{}/cgroup.procs", group.path());
            until("a process is in the group", || {
                fs::read_to_string(&members)
                    .is_ok_and(|text| !text.is_empty())
                    .then_some(())
            });
            run.thaw();
        }
        Ok(run)
    }

    /// Thaws the group once all of its processes are frozen.
    fn thaw(&self) {
        if let Some(group) = &self.group {
            group.wait_frozen(true);
            group.freeze(false);
            group.wait_frozen(false);
        }
    }

    /// Does this while bowout is frozen, if the place freezes it.
    fn frozen(&self, act: impl FnOnce()) {
        if let Some(group) = &self.group {
            group.freeze(true);
            group.wait_frozen(true);
        }
        act();
        self.thaw();
    }

    /// Waits for the probes of these names, and checks that bowout is in its place.
    fn ready(&mut self, names: &[&str]) {
        for name in names {
            self.running.ready_as(name);
        }
        let pid = self.bowout().0;
        assert!((self.place.is_there)(pid), "bowout is somewhere else");
    }

    /// The outermost bowout: the programs that enter the place are its ancestors.
    fn bowout(&self) -> &(i32, OwnedFd) {
        self.bowout.get_or_init(|| {
            until("bowout is there", || {
                let pid = match &self.pid_file {
                    Some(file) => fs::read_to_string(file).ok()?.trim().parse().ok()?,
                    None => below(self.running.pid)?,
                };
                Some((pid, hold(pid)?))
            })
        })
    }

    fn kill(&self, signal: i32) {
        let handle = self.bowout().1.as_raw_fd();
        // SAFETY: the pointer to the information is null; the kernel fills it in as for kill(2).
        let done = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, handle, signal, 0, 0) };
        assert_eq!(done, 0, "{signal}: {}", std::io::Error::last_os_error());
    }

    fn queue(&self, signal: i32, value: i32) {
        let value = libc::sigval {
            sival_ptr: value as usize as *mut libc::c_void,
        };
        // SAFETY: the PID is bowout's, which this test has not reaped; the value is a number.
        let done = unsafe { libc::sigqueue(self.bowout().0, signal, value) };
        assert_eq!(done, 0, "{signal}: {}", std::io::Error::last_os_error());
    }

    /// Waits until the probe of this name has received this signal.
    fn expect(&mut self, name: &str, signal: i32) -> String {
        let prefix = format!("{name} {signal} ");
        let out = &mut self.running.out;
        out.find(&prefix, |line| line.starts_with(&prefix))
    }

    /// Waits for the end: checks the status, and that no process of the command is left. Returns
    /// the standard output.
    fn end(&mut self, wanted: Status) -> Vec<String> {
        let status = self.running.wait();
        assert_eq!(status, wanted, "{:#?}", self.running.err.seen());
        let (names, left) = (["bowout", "probe"], self.running.left());
        let left: Vec<_> = left
            .iter()
            .map(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default())
            .filter(|name| names.contains(&name.trim()))
            .collect();
        assert!(left.is_empty(), "left running: {left:?}");
        self.running.out.rest();
        self.running.out.seen()
    }

    /// The status of bowout if its command was killed.
    fn killed(&self) -> Status {
        if self.place.pid1 {
            Status::Code(128 + libc::SIGKILL)
        } else {
            Status::Signal(libc::SIGKILL)
        }
    }

    /// The signals that a probe received.
    fn sent(&self, name: &str, out: &[String]) -> Vec<i32> {
        let mut sent = signals_of(name, out);
        // The command receives a second SIGCONT if the first is no longer pending.
        sent.dedup_by(|one, other| self.place.cont && *one == CONT && one == other);
        sent
    }

    /// The signals that a stop sends to a process.
    fn asked(&self) -> Vec<i32> {
        [TERM]
            .into_iter()
            .chain(self.place.cont.then_some(CONT))
            .collect()
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        // A frozen process does not die.
        if let Some(group) = &self.group {
            group.freeze(false);
        }
    }
}

/// The first bowout among this process and its descendants.
fn below(pid: i32) -> Option<i32> {
    if is_bowout(pid) {
        return Some(pid);
    }
    children(pid).into_iter().find_map(below)
}

/// The command runs with its words, and bowout exits with its code.
fn start(ground: &Ground, place: &Place) -> Result<(), String> {
    let mut run = Run::start(ground, place, &[], &["exit", "7"])?;
    assert_eq!(run.end(Status::Code(7)), [""; 0]);
    let log = run.running.log();
    let said: Vec<_> = log
        .iter()
        .filter(|line| line.starts_with("bowout: "))
        .collect();
    // As PID 1 bowout logs each exit code but 0.
    let is_routine = |line: &String| place.pid1 && line.contains("exited with 7 after ");
    assert!(said.iter().all(|line| is_routine(line)), "{said:#?}");
    Ok(())
}

/// The command receives each signal once, and a queued one with its value.
fn forward(ground: &Ground, place: &Place) -> Result<(), String> {
    let words = ["signals", "--name", "c", "--exit", "USR2:7"];
    let mut run = Run::start(ground, place, &["--grace", "1h"], &words)?;
    run.ready(&["c"]);
    let queued = libc::SIGRTMIN() + 1;
    run.frozen(|| {
        run.kill(HUP);
        run.kill(USR1);
        run.queue(queued, VALUE);
    });
    // The order of signals that are pending together is the kernel's.
    let mut seen: Vec<String> = vec![];
    for signal in [HUP, USR1, queued] {
        seen.push(run.expect("c", signal));
    }
    assert!(seen[2].ends_with(&format!(" {VALUE}")), "{seen:?}");
    run.frozen(|| run.kill(USR2));
    let out = run.end(Status::Code(7));
    let mut signals = signals_of("c", &out);
    signals.sort_unstable();
    assert_eq!(signals, [HUP, USR1, USR2, queued]);
    Ok(())
}

/// The command receives the stop signal once and has its grace period, and bowout exits with its
/// code.
fn stop(ground: &Ground, place: &Place) -> Result<(), String> {
    let words = ["signals", "--name", "c", "--exit", "35:7"];
    let mut run = Run::start(ground, place, &["--grace", "1h"], &words)?;
    run.ready(&["c"]);
    run.frozen(|| run.kill(TERM));
    run.expect("c", TERM);
    // The number is higher than SIGCONT's: of two pending signals, the lower one is delivered
    // first.
    run.frozen(|| run.kill(35));
    let out = run.end(Status::Code(7));
    assert_eq!(run.sent("c", &out), [run.asked(), vec![35]].concat());
    Ok(())
}

/// SIGKILL to the command, never before the grace period is over. Its descendant then receives the
/// stop signal for the first time, and has a second.
fn escalate(ground: &Ground, place: &Place) -> Result<(), String> {
    let grace = Duration::from_millis(300);
    let words = ["pair", "--name", "d", "--", "--name", "c"];
    let mut run = Run::start(ground, place, &["--grace", "300ms"], &words)?;
    run.ready(&["d", "c"]);
    let from = Instant::now();
    run.frozen(|| run.kill(TERM));
    let out = run.end(run.killed());
    assert!(from.elapsed() >= grace, "{:?}", from.elapsed());
    assert_eq!(run.sent("c", &out), run.asked());
    assert_asked(&run.sent("d", &out), &run.asked(), place, "escalate");
    let log = run.running.log().join("\n");
    assert!(log.contains("grace period of 300ms is over"), "{log}");
    Ok(())
}

/// The cells in which a descendant may end without the stop signal: the place, the action, and the
/// reason.
const NOT_ASKED: [(&str, &str, &str); 4] = [
    (
        "new PID namespace without a fork",
        "escalate",
        KILLED_BY_KERNEL,
    ),
    (
        "new PID namespace without a fork",
        "drain",
        KILLED_BY_KERNEL,
    ),
    ("no /proc", "escalate", KILLED_FIRST),
    (
        "/proc of a PID namespace that has ended",
        "escalate",
        KILLED_FIRST,
    ),
];
/// After `unshare -p` (README, Limits).
const KILLED_BY_KERNEL: &str = "the command is PID 1: the kernel kills its descendants with it";
/// Without /proc, bowout calls waitid(2) for every PID, which takes about the last second.
const KILLED_FIRST: &str = "limit: the look for a descendant can take longer than its last second";

/// The difference in this cell, if any.
pub fn note(place: &Place, action: &str) -> Option<&'static str> {
    let found = NOT_ASKED
        .iter()
        .find(|(name, at, _)| *name == place.name && *at == action);
    found.map(|(.., why)| *why)
}

/// Checks that the descendant received the stop signal, or less where the cell allows it.
fn assert_asked(sent: &[i32], asked: &[i32], place: &Place, action: &str) {
    if note(place, action).is_some() {
        assert_at_most(sent, asked);
    } else {
        assert_eq!(sent, asked);
    }
}

/// The descendant receives the stop signal once, after the command has exited, and bowout waits for
/// it.
fn drain(ground: &Ground, place: &Place) -> Result<(), String> {
    let (below, own) = (
        ["--name", "d", "--exit", "TERM:0"],
        ["--name", "c", "--exit", "USR1:7"],
    );
    let words = [&["pair"], &below[..], &["--"], &own].concat();
    let mut run = Run::start(ground, place, &["--grace", "1h"], &words)?;
    run.ready(&["d", "c"]);
    run.frozen(|| run.kill(USR1));
    let out = run.end(Status::Code(7));
    assert_eq!(signals_of("c", &out), [USR1]);
    assert_asked(&run.sent("d", &out), &[TERM], place, "drain");
    Ok(())
}

/// The report agrees with the test's own observations.
fn report(ground: &Ground, place: &Place) -> Result<(), String> {
    let words = ["signals", "--name", "c", "--exit", "TERM:7"];
    let options = ["--grace", "1h", "--report", "-"];
    let mut run = Run::start(ground, place, &options, &words)?;
    run.ready(&["c"]);
    run.frozen(|| run.kill(TERM));
    let out = run.end(Status::Code(7));
    let text = out.last().expect("a report");
    keep_report(text);
    let report: Value =
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let contained = if place.pid1 { "pid1" } else { "subreaper" };
    for (path, wanted) in [
        ("/child/code", json!(7)),
        ("/exit/code", json!(7)),
        ("/containment", json!(contained)),
        ("/stop/reason", json!("signal")),
        ("/stop/by/signal", json!("SIGTERM")),
        ("/stop/by/side", json!(place.side)),
        ("/stop/rungs/0/signal", json!("SIGTERM")),
        ("/descendants/left", json!(0)),
        ("/killed", json!([])),
        ("/survivors", json!([])),
        ("/log_lines_lost", json!(0)),
    ] {
        assert_eq!(report.pointer(path), Some(&wanted), "{path}: {report}");
    }
    assert_eq!(
        report["stop"]["rungs"].as_array().map(Vec::len),
        Some(1),
        "{report}"
    );
    Ok(())
}
