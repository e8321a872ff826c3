//! The runs of bowout in which one of its calls fails. Each one waits for facts, and goes on
//! without them when bowout has ended.

use std::os::unix::net::UnixDatagram;

use crate::common::{BOWOUT, Dir, Got, Home, Running, Start, Status, notifier, probe, until};

const TERM: i32 = libc::SIGTERM;
const USR1: i32 = libc::SIGUSR1;

pub struct Scenario {
    pub name: &'static str,
    pub home: Home,
    options: &'static [&'static str],
    command: Command,
    drive: fn(&Running),
    /// bowout's status when no call fails.
    pub status: Status,
    /// The longest waits in all, in ms: the grace period and the bounded waits.
    pub bound_ms: u64,
}

enum Command {
    /// The probe with these words.
    Probe(&'static [&'static str]),
    Notifier(&'static [&'static str]),
    Sh(&'static str),
    Missing,
    /// A shell that is found in the second directory of PATH.
    Path(&'static [&'static str]),
}

/// Enough for a child that exits on SIGTERM and may wait for the processor first. It passes in full
/// where the request does not reach the child.
const GRACE: &str = "3s";

/// The directory that a scenario's options name.
const DIR: &str = "DIR";

const START: Scenario = Scenario {
    name: "start",
    home: Home::Subreaper,
    options: &[],
    command: Command::Probe(&["exit", "7"]),
    drive: nothing,
    status: Status::Code(7),
    bound_ms: 2000,
};

const FORWARD: Scenario = Scenario {
    name: "forward",
    options: &["--grace", GRACE],
    command: Command::Probe(&["signals", "--exit", "TERM:7"]),
    drive: forward,
    bound_ms: 5000,
    ..START
};

const DRAIN: Scenario = Scenario {
    name: "drain",
    options: &["--grace", GRACE],
    command: Command::Sh(
        "\"$PROBE\" signals --name d --exit TERM:0 & exec \"$PROBE\" signals --name c --exit TERM:7",
    ),
    drive: stop_both,
    bound_ms: 5300,
    ..START
};

const STUBBORN: Scenario = Scenario {
    name: "drain stubborn",
    options: &["--grace", "500ms"],
    command: Command::Probe(&["tree", "2", "--stubborn", "--exit", "TERM:7"]),
    drive: stop,
    bound_ms: 2600,
    ..START
};

pub const ALL: &[Scenario] = &[
    START,
    Scenario {
        name: "missing",
        command: Command::Missing,
        status: Status::Code(127),
        ..START
    },
    FORWARD,
    Scenario {
        name: "stop",
        options: &["--grace", GRACE, "--kill-mode", "group"],
        command: Command::Probe(&["signals", "--exit", "TERM:7"]),
        drive: stop,
        bound_ms: 5000,
        ..START
    },
    Scenario {
        name: "escalate",
        options: &["--grace", "100ms"],
        command: Command::Probe(&["signals"]),
        drive: stop,
        status: Status::Signal(libc::SIGKILL),
        bound_ms: 2100,
        ..START
    },
    DRAIN,
    STUBBORN,
    Scenario {
        name: "report",
        options: &["--report", "DIR/report", "--termination-log=DIR/message"],
        ..START
    },
    Scenario {
        name: "notify",
        options: &["--grace", GRACE, "--notify", "exec"],
        command: Command::Notifier(&[
            "send", "STATUS=x", "say", "ready 1", "wait", "TERM", "end", "exit", "7",
        ]),
        drive: stop,
        bound_ms: 5200,
        ..START
    },
    Scenario {
        name: "relay",
        options: &["--grace", GRACE, "--notify", "relay"],
        command: Command::Notifier(&[
            "say",
            "ready 1",
            "wait",
            "TERM",
            "end",
            "send",
            "EXTEND_TIMEOUT_USEC=4000000",
            "say",
            "sent",
            "wait",
            "USR1",
            "end",
            "exit",
            "7",
        ]),
        drive: stop_after_a_message,
        bound_ms: 6000,
        ..START
    },
    Scenario {
        name: "hook",
        options: &["--grace", GRACE, "--pre-stop", "exit 0"],
        command: Command::Probe(&["signals", "--exit", "TERM:7"]),
        drive: stop,
        bound_ms: 5000,
        ..START
    },
    Scenario {
        name: "PID 1",
        home: Home::Pid1,
        ..FORWARD
    },
    Scenario {
        name: "PID 1 drain",
        home: Home::Pid1,
        ..DRAIN
    },
    Scenario {
        name: "PID 1 stubborn",
        home: Home::Pid1,
        ..STUBBORN
    },
];

/// The scenarios in which the calls between the fork and the exec fail as well.
pub const FORKED: &[Scenario] = &[
    Scenario {
        name: "path",
        command: Command::Path(&["-c", "exit 7"]),
        ..START
    },
    Scenario {
        name: "missing",
        command: Command::Missing,
        status: Status::Code(127),
        ..START
    },
    Scenario {
        name: "PID 1",
        home: Home::Pid1,
        ..START
    },
];

impl Scenario {
    /// The needs of a run besides bowout: the files, and the manager's end of the socket.
    pub fn prepare(&self) -> (Dir, Option<UnixDatagram>) {
        let dir = Dir::new();
        if self.name == "report" {
            dir.write("message", "", 0o600);
        }
        let manager = self
            .notifies()
            .then(|| UnixDatagram::bind(dir.file("manager")).expect("a socket"));
        (dir, manager)
    }

    fn notifies(&self) -> bool {
        matches!(self.name, "notify")
    }

    /// Starts bowout below strace, which is given these words and is not bowout's parent (`-D`).
    pub fn start(&self, dir: &Dir, strace: &[String]) -> Running {
        let folder = dir.0.to_str().expect("text");
        let mut words: Vec<String> = ["-D", "-y"].map(String::from).to_vec();
        words.extend(strace.iter().cloned());
        words.push(BOWOUT.into());
        words.extend(
            self.options
                .iter()
                .map(|option| option.replace(DIR, folder)),
        );
        let mut start = Start::new(words)
            .program("strace")
            .at(self.home)
            .env("RUNTIME_DIRECTORY", folder);
        // Where close_range(2) fails, bowout closes each descriptor. The limit keeps 65,536 of
        // these calls out of the trace.
        start = start.with(["--nofile", "64"]);
        if matches!(self.command, Command::Path(_)) {
            start = start.env("PATH", "/no-such-directory:/bin");
        }
        if self.notifies() {
            start = start.env("NOTIFY_SOCKET", dir.file("manager"));
        }
        let program = |program: &std::path::Path| vec![program.to_str().expect("text").to_owned()];
        let with = |mut line: Vec<String>, words: &[&str]| {
            line.extend(words.iter().map(|word| (*word).to_owned()));
            line
        };
        start.command(match self.command {
            Command::Probe(words) => with(program(probe()), words),
            Command::Notifier(words) => with(program(notifier()), words),
            Command::Sh(script) => with(vec![], &["/bin/sh", "-c", script]),
            Command::Path(words) => with(vec!["sh".into()], words),
            Command::Missing => with(vec![], &["/no-such-command"]),
        })
    }

    /// Drives a run from the start to the last request. The caller waits for the end.
    pub fn drive(&self, bowout: &Running) {
        (self.drive)(bowout);
    }
}

fn nothing(_: &Running) {}

fn wait(bowout: &Running, what: &str, fact: impl Fn(&[String], &[String]) -> bool) {
    until(what, || {
        (bowout.has_ended() || fact(&bowout.out.seen(), &bowout.err.seen())).then_some(())
    });
}

fn is_ready(out: &[String]) -> bool {
    out.iter().any(|line| line.contains("ready "))
}

fn forward(bowout: &Running) {
    wait(bowout, "the child is ready", |out, _| is_ready(out));
    bowout.try_kill(USR1);
    wait(
        bowout,
        "the child has the signal or the log says why not",
        |out, err| {
            out.iter()
                .filter_map(|line| Got::parse(line))
                .any(|got| got.signal == USR1)
                || err.iter().any(|line| line.contains("cannot send SIGUSR1"))
        },
    );
    bowout.try_kill(TERM);
}

fn stop(bowout: &Running) {
    wait(bowout, "the child is ready", |out, _| is_ready(out));
    bowout.try_kill(TERM);
}

fn stop_both(bowout: &Running) {
    wait(bowout, "both are ready", |out, _| {
        ["c ready", "d ready"]
            .iter()
            .all(|who| out.iter().any(|l| l.starts_with(who)))
    });
    bowout.try_kill(TERM);
}

/// bowout may log a message that arrives with the child's end, or not. This message arrives before
/// the signal that ends the child.
fn stop_after_a_message(bowout: &Running) {
    stop(bowout);
    wait(bowout, "the message is sent", |out, _| {
        out.iter().any(|line| line.contains("sent"))
    });
    bowout.try_kill(USR1);
}
