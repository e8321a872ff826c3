//! Every state meets every event, and the result is a file that is checked in: a change of
//! behaviour is a diff to be read. `BLESS=1 cargo test table` writes it anew.

use std::fmt::Write;

use super::*;

/// The machines whose tables are written: what differs between them is what the settings are for.
#[allow(clippy::too_many_lines, reason = "a table of cases")]
pub(super) fn variants() -> Vec<(&'static str, Settings)> {
    let ladder = "TERM/2s/QUIT/1s/KILL".parse().unwrap();
    vec![
        ("defaults: own group, mixed, 8s", settings()),
        (
            "terminal: shared group, job control",
            Settings {
                job_control: true,
                ..settings()
            },
        ),
        (
            "terminal, stdout is it",
            Settings {
                job_control: true,
                stdout_is_terminal: true,
                ..settings()
            },
        ),
        (
            "terminal, PID 1, session leader, called docker-init",
            Settings {
                job_control: true,
                pid1: true,
                leader: true,
                keys_stop: false,
                ..settings()
            },
        ),
        (
            "--kill-mode process",
            Settings {
                kill_mode: KillMode::Process,
                ..settings()
            },
        ),
        (
            "--kill-mode group",
            Settings {
                kill_mode: KillMode::Group,
                ..settings()
            },
        ),
        (
            "--wait-tree",
            Settings {
                wait_tree: true,
                ..settings()
            },
        ),
        (
            "--escalate TERM/2s/QUIT/1s/KILL --max-runtime 5s",
            Settings {
                ladder,
                max_runtime: Some(Duration::from_secs(5)),
                ..settings()
            },
        ),
        (
            "--grace 0",
            Settings {
                ladder: Ladder::new(None, Some(Duration::ZERO)),
                ..settings()
            },
        ),
        (
            "--grace never",
            Settings {
                ladder: Ladder::new(None, None),
                ..settings()
            },
        ),
        (
            "--on-repeat forward",
            Settings {
                on_repeat: OnRepeat::Forward,
                ..settings()
            },
        ),
        (
            "--on-repeat ignore",
            Settings {
                on_repeat: OnRepeat::Ignore,
                ..settings()
            },
        ),
        (
            "two --pre-stop, --stop-delay 1s",
            Settings {
                hooks: 2,
                stop_delay: Duration::from_secs(1),
                ..settings()
            },
        ),
        (
            "--pre-stop --kill-mode process",
            Settings {
                hooks: 1,
                kill_mode: KillMode::Process,
                ..settings()
            },
        ),
        (
            "--remap TERM:QUIT,USR1:0",
            Settings {
                remap: Remap::new(vec![
                    "TERM:QUIT".parse().unwrap(),
                    "USR1:0".parse().unwrap(),
                ]),
                ..settings()
            },
        ),
    ]
}

/// The ways into each state, as events with their times; those that a variant cannot take lead to
/// another state, which the table shows.
fn states(settings: &Settings) -> Vec<(&'static str, Vec<(u64, Event)>)> {
    let term = from(Side::Process, Signal::TERM);
    let exited = Event::ChildExited(Exit::Code(3));
    let stopped = stopped(Signal::TSTP);
    let ctrl_c = to_group(Side::Terminal, Signal::INT);
    let mut states = vec![
        ("start", vec![]),
        ("stopped", vec![(100, stopped)]),
        ("TERM", vec![(100, term)]),
        ("TERM stopped", vec![(100, term), (200, stopped)]),
        ("exit", vec![(100, exited)]),
        ("TERM exit", vec![(100, term), (200, exited)]),
        (
            "TERM hooks",
            vec![
                (100, term),
                (200, Event::HookExited),
                (300, Event::HookExited),
            ],
        ),
        ("TERM TERM", vec![(100, term), (200, term)]),
        (
            "TERM TERM exit",
            vec![(100, term), (200, term), (300, exited)],
        ),
        ("exit alone", vec![(100, exited), (100, Event::NoChildren)]),
    ];
    if settings.job_control {
        states.push((
            "stopped alone",
            vec![(100, stopped_alone(Signal::TSTP, true))],
        ));
    }
    if settings.stdout_is_terminal {
        states.push(("Ctrl-C", vec![(100, ctrl_c)]));
        states.push((
            "Ctrl-C no prompt",
            vec![(100, ctrl_c), (200, Event::Timeout), (200, NO_PROMPT)],
        ));
    }
    states
}

/// With job control, the child is in our group.
pub(super) fn events(settings: &Settings) -> Vec<(&'static str, Event)> {
    let from = if settings.job_control { to_group } else { from };
    let mut events = vec![
        ("TERM process", from(Side::Process, Signal::TERM)),
        ("TERM manager", from(Side::Manager, Signal::TERM)),
        ("TERM outside", from(Side::Outside, Signal::TERM)),
        ("TERM tree", from(Side::Tree, Signal::TERM)),
        ("INT terminal", from(Side::Terminal, Signal::INT)),
        ("INT process", from(Side::Process, Signal::INT)),
        ("QUIT terminal", from(Side::Terminal, Signal::QUIT)),
        ("ABRT manager", from(Side::Manager, Signal::ABRT)),
        ("HUP terminal", from(Side::Terminal, Signal::HUP)),
        ("HUP process", from(Side::Process, Signal::HUP)),
        ("HUP tree", from(Side::Tree, Signal::HUP)),
        ("CONT manager", from(Side::Manager, Signal::CONT)),
        ("WINCH terminal", from(Side::Terminal, Signal::WINCH)),
        ("WINCH outside", from(Side::Outside, Signal::WINCH)),
        ("TSTP terminal", from(Side::Terminal, Signal::TSTP)),
        ("USR1 process", from(Side::Process, usr1())),
        ("USR1 tree", from(Side::Tree, usr1())),
        (
            "RTMIN+3=42 outside",
            Event::Signal(Received {
                signal: "RTMIN+3".parse().unwrap(),
                side: Side::Outside,
                value: Some(42),
                shared_group: false,
            }),
        ),
        ("stopped by TSTP", stopped(Signal::TSTP)),
        ("stopped by STOP", stopped(Signal::STOP)),
        ("wants the terminal", WANTS_TERMINAL),
        (
            "woken",
            Event::Resumed {
                suspended: true,
                stopped: true,
            },
        ),
        (
            "woken with the child",
            Event::Resumed {
                suspended: true,
                stopped: false,
            },
        ),
        (
            "never suspended",
            Event::Resumed {
                suspended: false,
                stopped: true,
            },
        ),
        (
            "child exits",
            Event::ChildExited(Exit::Signal(Signal::TERM)),
        ),
        (
            "wants 20s more",
            Event::ExtendGrace(Duration::from_secs(20)),
        ),
        ("hook alone", Event::HookAlone),
        ("hook exits", Event::HookExited),
        ("no children", Event::NoChildren),
        ("refused", Event::Refused),
        ("killed, 2 left", Event::Killed { left: 2 }),
        ("killed, 1 left", Event::Killed { left: 1 }),
        ("deadline", Event::Timeout),
    ];
    if settings.job_control {
        events.push(("stopped alone, TSTP", stopped_alone(Signal::TSTP, true)));
        events.push(("own group, TSTP", stopped_alone(Signal::TSTP, false)));
    }
    if settings.stdout_is_terminal {
        events.extend([("at its prompt", PROMPT), ("not at its prompt", NO_PROMPT)]);
    }
    events
}

fn table() -> String {
    let mut text = String::from(
        "Every state × every event, for each variant of the settings. Times are milliseconds after the start; an event comes at\n\
         1000, but for `deadline`, which comes when it is armed. Written by BLESS=1 cargo test table; read the diff.\n",
    );
    for (variant, settings) in variants() {
        writeln!(text, "\n== {variant}").unwrap();
        for (path, way) in states(&settings) {
            let mut machine = Machine::new(settings.clone(), at(0));
            for (time, event) in way {
                let _ = machine.step(at(time), event);
            }
            writeln!(text, "\n{path}: {}", show_state(machine.state())).unwrap();
            for (name, event) in events(&settings) {
                let mut machine = machine.clone();
                let before = machine.state();
                let now = if event == Event::Timeout {
                    machine.deadline().unwrap_or(at(1000))
                } else {
                    at(1000)
                };
                let actions = machine.step(now, event);
                let state = if machine.state() == before {
                    "=".into()
                } else {
                    show_state(machine.state())
                };
                writeln!(text, "  {:<20}{:<28}{}", name, state, show_all(&actions)).unwrap();
            }
        }
    }
    text.lines()
        .map(str::trim_end)
        .collect::<Vec<_>>()
        .join("\n")
        + "\n"
}

#[test]
fn the_table_is_the_one_that_is_checked_in() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/policy/tests/table.txt");
    let now = table();
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, &now).unwrap();
    }
    let then = std::fs::read_to_string(path).unwrap();
    for (number, (was, is)) in then.lines().zip(now.lines()).enumerate() {
        assert_eq!(was, is, "line {} of {path}", number + 1);
    }
    assert_eq!(then.len(), now.len());
}
