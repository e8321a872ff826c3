//! The output of `--explain`, compared step by step with a real stop of the same command line.

use serde_json::Value;

use crate::common::{Dir, NOTHING, Start, Status, probe, until};

const TERM: i32 = libc::SIGTERM;
const KILL: i32 = libc::SIGKILL;

/// The output of `--explain` for these options, as JSON.
fn explained(options: &[&str]) -> Value {
    let options = options.iter().chain(&["--explain", "--log-format", "json"]);
    let mut bowout = Start::plain().bare(options.chain(&["--", "/no/such/command"]));
    let text = bowout.out.rest().join("\n");
    assert_eq!(bowout.end(), Status::Code(0));
    assert_eq!(bowout.log(), NOTHING);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The signals in the output, each with its time.
fn signals(explained: &Value) -> Vec<(String, u64)> {
    let moments = explained["moments"].as_array().expect("moments");
    let mut signals = vec![];
    for moment in moments {
        let what = moment["what"].as_str().expect("text");
        let sent = what.split(", ").filter(|part| !part.contains("the hook"));
        for part in sent.filter_map(|part| part.split_once(" to ")) {
            signals.push((part.0.to_owned(), moment["at_ms"].as_u64().expect("a time")));
        }
    }
    signals
}

/// The text output, where the stop has no end or the second request does not kill.
#[test]
fn a_stop_without_an_end_is_explained_too() {
    for (options, lines) in [
        (
            &["--grace", "never"][..],
            &[
                "There is no SIGKILL: the engine's own deadline decides.",
                "A second request from the same side sends SIGKILL at once.",
            ][..],
        ),
        (
            &["--on-repeat", "forward"],
            &["A second request is forwarded."],
        ),
        (
            &["--on-repeat", "ignore"],
            &["A second request is ignored."],
        ),
    ] {
        let mut bowout = Start::new(options).bare(["--explain", "--", "/no/such/command"]);
        let text = bowout.out.rest();
        assert_eq!(bowout.end(), Status::Code(0), "{options:?}");
        for line in lines {
            assert!(text.iter().any(|it| it == line), "{options:?}: {text:#?}");
        }
    }
}

/// A tree that ignores every signal but SIGKILL is stopped by the same signals, at the same times.
#[test]
fn a_real_stop_follows_the_plan_of_explain() {
    let probe = probe().to_str().expect("text");
    let tree = format!("\"{probe}\" signals --name d & exec \"{probe}\" signals --name c");
    for options in [
        &["--grace", "700ms"][..],
        &["--escalate", "TERM/300ms/INT/400ms/KILL", "-k", "group"],
        &[
            "--grace",
            "900ms",
            "--stop-signal",
            "QUIT",
            "--stop-delay",
            "300ms",
        ],
        &[
            "--grace",
            "1s",
            "--pre-stop",
            "sleep 1000",
            "--pre-kill",
            "sleep 1000",
        ],
        &["--grace", "500ms", "-k", "process"],
        &["--grace", "0"],
    ] {
        let expected = signals(&explained(options));
        let dir = Dir::new();
        let report = dir.file("report");
        let path = ["--report", report.to_str().expect("text")];
        let mut bowout = Start::new(options.iter().chain(&path)).sh(&tree);
        let child = bowout.ready_as("c");
        let other = bowout.ready_as("d");
        bowout.kill(TERM);
        assert_eq!(
            bowout.wait(),
            Status::Signal(KILL),
            "{options:?} {child} {other}"
        );
        // In kill mode process, the other process lives on.
        if options.contains(&"process") {
            // SAFETY: a process of this test.
            unsafe { libc::kill(other, KILL) };
            until("it exits", || bowout.left().is_empty().then_some(()));
        }
        bowout.end();
        let report: Value =
            serde_json::from_str(&std::fs::read_to_string(&report).expect("a report"))
                .expect("JSON");
        let rungs = report["stop"]["rungs"].as_array().expect("rungs");
        let is = |of: &[(String, u64)]| {
            of.iter()
                .map(|(signal, _)| signal.clone())
                .collect::<Vec<_>>()
        };
        let sent: Vec<_> = rungs
            .iter()
            .map(|rung| {
                let signal = rung["signal"].as_str().expect("a name").to_owned();
                (signal, rung["after_ms"].as_u64().expect("a time"))
            })
            .collect();
        assert_eq!(is(&sent), is(&expected), "{options:?}");
        for ((signal, at), (_, said)) in sent.iter().zip(&expected) {
            assert!(
                at >= said && *at < said + 900,
                "{options:?} {signal}: {at} ms, not {said}"
            );
        }
    }
}

#[test]
fn explain_names_the_home_by_its_default_and_the_origin_of_values() {
    let grace = |variables: &[(&str, &str)], options: &[&str]| {
        let mut start = Start::plain();
        for (name, value) in variables {
            start = start.env(name, value);
        }
        let mut bowout = start.bare(options.iter().chain(&["--explain", "x"]));
        let text = bowout.out.rest().join("\n");
        assert_eq!(bowout.end(), Status::Code(0));
        let line = text
            .lines()
            .find(|line| line.contains("grace period"))
            .expect("the line");
        line.split_whitespace()
            .skip(2)
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(grace(&[], &[]), "8s (default)");
    assert_eq!(grace(&[("DYNO", "web.1")], &[]), "25s (default)");
    assert_eq!(
        grace(&[("KUBERNETES_SERVICE_HOST", "k")], &[]),
        "25s (default)"
    );
    assert_eq!(grace(&[("BOWOUT_GRACE", "3s")], &[]), "3s (BOWOUT_GRACE)");
    assert_eq!(
        grace(&[("BOWOUT_GRACE", "3s")], &["-t", "4s"]),
        "4s (--grace)"
    );
}
