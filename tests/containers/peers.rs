//! Four checks in containers, the same for bowout and for the installed inits, as a Markdown table:
//! `cargo test --test container-peers`, as root. It asserts no result; man/GUIDE.md quotes it.
//!
//! Each cell is an observed fact. For a fact that was not observed, `PEERS_PATIENCE` is the wait in
//! seconds.
#![allow(unsafe_code)]
#![allow(clippy::disallowed_methods)]

#[path = "../common/mod.rs"]
#[allow(unused_imports)]
mod common;
mod engine;
mod runc;

use std::process::Command;
use std::time::Duration;

use serde_json::json;

use common::pty::{CTRL_Z, kill, runs, state_of};
use common::{Status, leftovers, probe, skip, timed};
use engine::{BUSYBOX, both, bowout, find, no_containers, put, put_linked};
use runc::Bundle;

struct Wrapper {
    name: &'static str,
    /// The words between the wrapper and the command. The grace period is short, because a check
    /// waits for its end.
    options: &'static [&'static str],
}

const WRAPPERS: [Wrapper; 4] = [
    Wrapper {
        name: "bowout",
        options: &["--grace", "2s", "--"],
    },
    Wrapper {
        name: "tini",
        options: &["--"],
    },
    Wrapper {
        name: "dumb-init",
        options: &["--"],
    },
    Wrapper {
        name: "catatonit",
        options: &["--"],
    },
];

type Check = fn(&Wrapper) -> String;

const CHECKS: [(&str, Check); 4] = [
    (
        "stop: a grandchild that needs 0.5 s after the command's end",
        drain,
    ),
    (
        "stop: root without CAP_KILL, the command has changed its user (gosu)",
        eperm,
    ),
    ("Ctrl-Z in a container with a terminal (`-it`)", ctrl_z),
    ("stop after that Ctrl-Z", stop_after_ctrl_z),
];

fn patience() -> Duration {
    let seconds = std::env::var("PEERS_PATIENCE")
        .ok()
        .and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(5))
}

impl Wrapper {
    fn bundle(&self, command: &[&str]) -> Bundle {
        let program = if self.name == "bowout" {
            "/bowout".into()
        } else {
            find(self.name).expect("installed")
        };
        let line = [&[program.to_str().expect("text")], self.options, command].concat();
        let bundle = Bundle::new(&line);
        if self.name != "bowout" {
            put_linked(&bundle.root(), &program);
        }
        put(&bundle.root(), probe(), "/probe");
        bundle
    }

    /// The first word of its `--version` that begins like a number.
    fn version(&self) -> String {
        let program = if self.name == "bowout" {
            bowout().into()
        } else {
            find(self.name).expect("installed")
        };
        let text = both(&leftovers::output(Command::new(program).arg("--version")));
        let mut words = text
            .split_whitespace()
            .map(|word| word.trim_start_matches('v'));
        let version = words
            .find(|word| word.starts_with(|first: char| first.is_ascii_digit()))
            .unwrap_or_default();
        version.split('_').next().unwrap_or_default().to_owned()
    }
}

fn seconds(time: Duration) -> String {
    format!("{}.{} s", time.as_secs(), time.subsec_millis() / 100)
}

fn drain(wrapper: &Wrapper) -> String {
    let script = "(trap 'sleep 0.5; echo done >/finished; exit' TERM; sh -c 'echo ready; exec sleep 1000' & wait) & exec sleep 1000";
    let mut container = wrapper.bundle(&[BUSYBOX, "sh", "-c", script]).start();
    container.ready();
    container.place.kill("TERM");
    let code = container.end();
    let finished = container.place.file("finished").is_some();
    let what = if finished {
        "finishes its work"
    } else {
        "is killed unfinished"
    };
    format!("{what}, exit code {code}")
}

fn eperm(wrapper: &Wrapper) -> String {
    let script = "echo ready; exec sleep 1000";
    let bundle = wrapper
        .bundle(&[
            "/probe", "with", "--uid", "1000", "--", BUSYBOX, "sh", "-c", script,
        ])
        .with(|config| {
            let all = ["CAP_SETUID", "CAP_SETGID"];
            config["process"]["capabilities"] =
                json!({ "bounding": all, "effective": all, "permitted": all });
        });
    let mut container = bundle.start();
    container.ready();
    container.place.kill("TERM");
    match timed(|| container.ends_within(patience())) {
        (Some(code), time) => format!("ends after {}, exit code {code}", seconds(time)),
        (None, time) => format!("goes on, watched for {}", seconds(time)),
    }
}

/// Types Ctrl-Z. Returns the state of the command after it, and the result of a stop.
fn suspended(wrapper: &Wrapper) -> (String, String) {
    let mut container = wrapper
        .bundle(&["/probe", "terminal", "--catch", "USR1"])
        .start_on_terminal();
    container.pty.ready();
    let (wrapper, child) = (container.place.pid(), container.place.child());
    container.pty.patience = patience();
    container.pty.type_keys(CTRL_Z);
    container.pty.see("^Z");
    // A stopped process does not handle a signal until it is continued.
    kill(child, libc::SIGUSR1);
    let answers = container
        .pty
        .comes(|pty| pty.unread().contains("got 10 ").then_some(()))
        .is_some();
    let state = match state_of(child) {
        _ if answers && runs(child) => "goes on",
        Some('T') => "stopped for good",
        _ => "does not answer",
    };
    container.place.kill("TERM");
    let (ended, time) = timed(|| {
        container.pty.comes(|_| {
            state_of(wrapper)
                .is_none_or(|state| state == 'Z')
                .then_some(())
        })
    });
    let stop = match ended.map(|()| container.pty.wait()) {
        Some(Status::Code(code)) => format!("ends after {}, exit code {code}", seconds(time)),
        Some(Status::Signal(signal)) => panic!("runc was killed by {signal}"),
        None => format!("goes on, watched for {}", seconds(time)),
    };
    (state.into(), stop)
}

fn ctrl_z(wrapper: &Wrapper) -> String {
    suspended(wrapper).0
}

fn stop_after_ctrl_z(wrapper: &Wrapper) -> String {
    suspended(wrapper).1
}

fn row(cells: &[String]) {
    println!("| {} |", cells.join(" | "));
}

fn main() {
    if skip(no_containers(&["runc"])) {
        return;
    }
    let there: Vec<&Wrapper> = WRAPPERS
        .iter()
        .filter(|wrapper| {
            wrapper.name == "bowout"
                || !skip(
                    find(wrapper.name)
                        .is_none()
                        .then(|| format!("{} is not installed", wrapper.name)),
                )
        })
        .collect();
    let names = there
        .iter()
        .map(|wrapper| format!("{} {}", wrapper.name, wrapper.version()));
    row(&[String::new()].into_iter().chain(names).collect::<Vec<_>>());
    row(&vec!["---".into(); there.len() + 1]);
    for (what, check) in CHECKS {
        let cells = there.iter().map(|wrapper| check(wrapper));
        row(&[what.into()].into_iter().chain(cells).collect::<Vec<_>>());
    }
}
