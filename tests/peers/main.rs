//! Five checks at the terminal, the same for bowout and for the installed wrappers, as a Markdown
//! table: `cargo test --test peers`. It asserts no result; man/GUIDE.md quotes it.
//!
//! Each cell is an observed fact. For a fact that was not observed, `PEERS_PATIENCE` is the wait in
//! seconds.
#![allow(unsafe_code)]
#![allow(clippy::disallowed_methods)]

#[path = "../common/mod.rs"]
#[allow(unused_imports)]
mod common;

use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::Duration;

use common::pty::{
    CTRL_C, CTRL_Z, PROMPT, Pty, Role, Shell, group_of, installed, kill, parent_of, runs, state_of,
};
use common::{field, hold, leftovers, probe};

struct Wrapper {
    name: &'static str,
    /// The words up to the command.
    call: &'static str,
}

const WRAPPERS: [Wrapper; 5] = [
    Wrapper {
        name: "bowout",
        call: "bowout --",
    },
    Wrapper {
        name: "tini",
        call: "tini --",
    },
    Wrapper {
        name: "dumb-init",
        call: "dumb-init --",
    },
    Wrapper {
        name: "catatonit",
        call: "catatonit --",
    },
    Wrapper {
        name: "timeout",
        call: "timeout 1h",
    },
];

type Check = fn(&str) -> String;

const CHECKS: [(&str, Check); 5] = [
    ("Ctrl-C: SIGINT that the child gets", ctrl_c),
    ("Ctrl-Z, then `fg`, in an interactive bash", ctrl_z),
    (
        "in a script: the child reads the terminal and gets Ctrl-C",
        script,
    ),
    (
        "`wrapper a \\| b`: b sees the end when a closes its stdout",
        pipeline,
    ),
    ("`nohup wrapper a`: a survives SIGHUP", nohup),
];

fn patience() -> Duration {
    let seconds = std::env::var("PEERS_PATIENCE")
        .ok()
        .and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(5))
}

/// A shell that waits for a fact no longer than `PEERS_PATIENCE`.
fn shell() -> Shell {
    let mut shell = Shell::start();
    shell.0.patience = patience();
    shell
}

fn sees(pty: &mut Pty, text: &str) -> bool {
    pty.comes(|pty| pty.unread().contains(text).then_some(()))
        .is_some()
}

/// The wrapper leads the session and is stopped, so that its signal arrives after the terminal's,
/// and does not merge with it. SIGTERM through the wrapper arrives after both.
fn ctrl_c(call: &str) -> String {
    let line = format!("{call} probe terminal --catch INT,TERM");
    let mut pty = Pty::start(Role::Controlling, &line.split(' ').collect::<Vec<_>>());
    let child = pty.ready();
    pty.patience = patience();
    let wrapper = pty.pid;
    kill(wrapper, libc::SIGSTOP);
    pty.state(wrapper, 'T');
    pty.type_keys(CTRL_C);
    pty.see("^C");
    let pending = u64::from_str_radix(&field(wrapper, "ShdPnd"), 16).expect("a mask")
        & 1 << (libc::SIGINT - 1);
    let has_it = sees(&mut pty, "got 2 ");
    kill(wrapper, libc::SIGCONT);
    if pending == 0 && !has_it {
        return "0".into();
    }
    kill(wrapper, libc::SIGTERM);
    if !sees(&mut pty, "got 15 ") {
        return if state_of(child).is_some() {
            "the child has no SIGTERM either".into()
        } else {
            "killed".into()
        };
    }
    pty.screen().matches("got 2 ").count().to_string()
}

fn ctrl_z(call: &str) -> String {
    let mut shell = shell();
    shell.line(&format!("{call} probe terminal --catch USR1"));
    let child = shell.0.ready();
    shell.0.type_keys(CTRL_Z);
    if shell.0.comes(|pty| pty.find_prompt(PROMPT)).is_none() {
        let state = if state_of(child) == Some('T') {
            "child stopped, shell stuck"
        } else {
            "nothing happens"
        };
        return state.into();
    }
    shell.line("fg");
    if shell.0.comes(|_| runs(child).then_some(())).is_none() {
        return "child stays stopped".into();
    }
    kill(child, libc::SIGUSR1);
    if sees(&mut shell.0, "got 10 ") {
        "ok".into()
    } else {
        "child does not answer".into()
    }
}

fn script(call: &str) -> String {
    let mut shell = shell();
    shell.line(&format!(
        "sh -c '{call} probe terminal --catch INT,USR1 --read; :'"
    ));
    let child = shell.0.ready();
    shell.0.type_keys("hello\r");
    let read = shell.0.comes(|pty| {
        let seen = pty.unread();
        let found = ["read hello.", "no terminal", "not read"]
            .into_iter()
            .find(|text| seen.contains(text));
        found.or_else(|| (state_of(child) == Some('T')).then_some("child stopped"))
    });
    match read {
        Some("read hello.") => {}
        Some("no terminal") => return "the child has no terminal".into(),
        other => return other.unwrap_or("nothing is read").into(),
    }
    shell.0.type_keys(CTRL_C);
    if sees(&mut shell.0, "got 2 ") {
        "ok".into()
    } else {
        "no Ctrl-C".into()
    }
}

fn pipeline(call: &str) -> String {
    let mut shell = shell();
    let command = "sh -c \"echo text; exec >&-; exec probe terminal --catch USR1 --to out\"";
    shell.line(&format!("{call} {command} | (cat; echo the end) & :"));
    let child = shell.0.ready_in("out");
    // The child is alive, and has closed its own copy.
    let end = shell
        .0
        .comes(|pty| pty.unread().contains("the end").then_some(()));
    assert!(runs(child), "{call}");
    if end.is_some() {
        return "ok".into();
    }
    let held = std::fs::read_link(format!("/proc/{}/fd/1", parent_of(child)));
    let held = held.is_ok_and(|target| target.to_string_lossy().starts_with("pipe:"));
    kill(child, libc::SIGTERM);
    let late = sees(&mut shell.0, "the end");
    if held && late {
        "only when a ends".into()
    } else {
        "never".into()
    }
}

/// SIGTERM through the wrapper arrives after SIGHUP.
fn nohup(call: &str) -> String {
    let mut shell = shell();
    shell.line(&format!(
        "nohup {call} probe terminal --catch TERM --to out 2>log &"
    ));
    let child = shell.0.ready_in("out");
    let wrapper = parent_of(child);
    // The group gets SIGHUP, as from a shell at its end or from an administrator.
    let held = hold(wrapper).expect("the wrapper");
    kill(-group_of(wrapper), libc::SIGHUP);
    // SAFETY: no information is passed. Through a pidfd, because some wrappers have exited by now,
    // and other processes may have their PIDs.
    unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            held.as_raw_fd(),
            libc::SIGTERM,
            0,
            0,
        )
    };
    let answer = shell.0.comes(|pty| {
        let answered = pty.file("out").contains("got 15 ").then_some("ok");
        answered.or_else(|| (!runs(child)).then_some("killed"))
    });
    answer.unwrap_or("no answer").into()
}

/// The first word of its `--version` that begins like a number.
fn version(wrapper: &Wrapper) -> String {
    let program = if wrapper.name == "bowout" {
        common::BOWOUT
    } else {
        wrapper.name
    };
    let output = leftovers::output(Command::new(program).arg("--version"));
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    let mut words = text
        .split_whitespace()
        .map(|word| word.trim_start_matches('v'));
    let version = words
        .find(|word| word.starts_with(|first: char| first.is_ascii_digit()))
        .unwrap_or_default();
    version.split('_').next().unwrap_or_default().to_owned()
}

fn row(cells: &[String]) {
    println!("| {} |", cells.join(" | "));
}

fn main() {
    probe();
    let there: Vec<&Wrapper> = WRAPPERS
        .iter()
        .filter(|wrapper| {
            let there = wrapper.name == "bowout" || installed(wrapper.name).is_some();
            assert!(
                there || std::env::var("CI").as_deref() != Ok("true"),
                "{} is not installed",
                wrapper.name
            );
            if !there {
                eprintln!("SKIPPED {}: it is not installed", wrapper.name);
            }
            there
        })
        .collect();
    let names = there
        .iter()
        .map(|wrapper| format!("{} {}", wrapper.name, version(wrapper)));
    row(&[String::new()].into_iter().chain(names).collect::<Vec<_>>());
    row(&vec!["---".into(); there.len() + 1]);
    for (what, check) in CHECKS {
        let cells = there.iter().map(|wrapper| check(wrapper.call));
        row(&[what.into()].into_iter().chain(cells).collect::<Vec<_>>());
    }
}
