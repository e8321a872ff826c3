//! Every state meets every event, and the result is a file that is checked in: a change of
//! behaviour is a diff to be read. The file holds all rows of the defaults and of the first variant
//! on a terminal, and of each other variant those that differ. `BLESS=1 cargo test table` writes it.

use std::fmt::Write;

use super::*;

/// The machines whose tables are written. Each differs in settings or in its place.
#[allow(clippy::too_many_lines, reason = "a table of cases")]
pub(super) fn variants() -> Vec<(&'static str, Given)> {
    let ladder = "TERM/2s/QUIT/1s/KILL".parse().unwrap();
    let grace = |grace| Settings {
        ladder: Ladder::new(None, grace),
        ..settings()
    };
    let remap = |rules: &[&str]| Settings {
        remap: Remap::new(rules.iter().map(|rule| rule.parse().unwrap()).collect()),
        ..settings()
    };
    vec![
        ("defaults: own group, mixed, 8s", settings().into()),
        ("terminal: shared group, job control", TERMINAL.into()),
        ("terminal, stdout is it", INTERACTIVE.into()),
        (
            "terminal, --remap TERM:QUIT,INT:TERM,USR1:0",
            Given(remap(&["TERM:QUIT", "INT:TERM", "USR1:0"]), TERMINAL),
        ),
        (
            "terminal, --on-repeat forward",
            Given(
                Settings {
                    on_repeat: OnRepeat::Forward,
                    ..settings()
                },
                TERMINAL,
            ),
        ),
        (
            "terminal, PID 1, session leader, called docker-init",
            Given(
                Settings {
                    keys_stop: false,
                    ..settings()
                },
                Place {
                    pid1: true,
                    leader: true,
                    ..TERMINAL
                },
            ),
        ),
        (
            "--kill-mode process",
            Settings {
                kill_mode: KillMode::Process,
                ..settings()
            }
            .into(),
        ),
        (
            "--kill-mode group",
            Settings {
                kill_mode: KillMode::Group,
                ..settings()
            }
            .into(),
        ),
        (
            "--wait-tree",
            Settings {
                wait_tree: true,
                ..settings()
            }
            .into(),
        ),
        (
            "--escalate TERM/2s/QUIT/1s/KILL --max-runtime 5s",
            Settings {
                ladder,
                max_runtime: Some(Duration::from_secs(5)),
                ..settings()
            }
            .into(),
        ),
        ("--grace 0", grace(Some(Duration::ZERO)).into()),
        ("--grace never", grace(None).into()),
        (
            "--on-repeat forward",
            Settings {
                on_repeat: OnRepeat::Forward,
                ..settings()
            }
            .into(),
        ),
        (
            "--on-repeat ignore",
            Settings {
                on_repeat: OnRepeat::Ignore,
                ..settings()
            }
            .into(),
        ),
        (
            "two --pre-stop, --stop-delay 1s",
            Settings {
                hooks: 2,
                stop_delay: Duration::from_secs(1),
                ..settings()
            }
            .into(),
        ),
        (
            "--pre-stop --kill-mode process",
            Settings {
                hooks: 1,
                kill_mode: KillMode::Process,
                ..settings()
            }
            .into(),
        ),
        (
            "two --pre-kill, --pre-stop",
            Settings {
                hooks: 1,
                pre_kill: 2,
                ..settings()
            }
            .into(),
        ),
        (
            "--ready-timeout 2s --watchdog 3s --pre-kill",
            Settings {
                ready_timeout: Some(Duration::from_secs(2)),
                watchdog: Some(Duration::from_secs(3)),
                pre_kill: 1,
                ..settings()
            }
            .into(),
        ),
        (
            "--remap TERM:QUIT,USR1:0",
            remap(&["TERM:QUIT", "USR1:0"]).into(),
        ),
    ]
}

/// The ways into each state, as events with their times. A way that a variant cannot take leads to
/// another state, which the table shows.
fn states(Given(_, place): &Given) -> Vec<(&'static str, Vec<(u64, Event)>)> {
    let term = from(Side::Process, Signal::TERM);
    let exited = Event::ChildExited(Exit::Code(3));
    let stopped = stopped(Signal::TSTP);
    let ctrl_c = to_group(Side::Terminal, Signal::INT);
    let mut states = vec![
        ("start", vec![]),
        ("stopped", vec![(100, stopped)]),
        ("TERM", vec![(100, term)]),
        ("TERM stopped", vec![(100, term), (200, stopped)]),
        ("input ends", vec![(100, Event::Stop(Cause::Eof))]),
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
        (
            "exit alone",
            vec![(100, exited), (100, Event::NoneLeft { hook: false })],
        ),
        ("TERM deadline", vec![(100, term), (8100, Event::Timeout)]),
        (
            "TERM deadline exit",
            vec![(100, term), (8100, Event::Timeout), (8200, exited)],
        ),
    ];
    if place.job_control {
        states.push((
            "stopped alone",
            vec![(100, stopped_alone(Signal::TSTP, true))],
        ));
    }
    if place.stdout_is_terminal {
        states.push(("Ctrl-C", vec![(100, ctrl_c)]));
        states.push((
            "Ctrl-C no prompt",
            vec![(100, ctrl_c), (200, Event::Timeout), (200, NO_PROMPT)],
        ));
    }
    states
}

/// The events of the table. With job control, the child is in bowout's group.
pub(super) fn events(Given(settings, place): &Given) -> Vec<(&'static str, Event)> {
    let from = if place.job_control { to_group } else { from };
    let killed = |reached, refused| Event::Killed { reached, refused };
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
        ("hook exits", Event::HookExited),
        ("an orphan is reaped", Event::Reaped),
        ("input ends", Event::Stop(Cause::Eof)),
        ("none left", Event::NoneLeft { hook: false }),
        ("none left but a hook", Event::NoneLeft { hook: true }),
        ("killed 0, 2 refuse", killed(0, 2)),
        ("killed 0", killed(0, 0)),
        ("killed 1, 1 refuses", killed(1, 1)),
        ("killed 1", killed(1, 0)),
        ("deadline", Event::Timeout),
    ];
    if settings.watchdog.is_some() {
        events.extend([("ready", Event::Ready), ("alive", Event::Alive)]);
    }
    if place.job_control {
        events.push(("stopped alone, TSTP", stopped_alone(Signal::TSTP, true)));
        events.push(("own group, TSTP", stopped_alone(Signal::TSTP, false)));
        events.extend([("at its prompt", PROMPT), ("not at its prompt", NO_PROMPT)]);
    }
    events
}

/// The effect of one event in one state: the new state, the actions and the fact.
fn row(machine: &Machine, now: Instant, event: Event) -> String {
    let mut after = machine.clone();
    let was_done = matches!(machine.phase(), Phase::Done(_));
    let step = after.step(now, event);
    let (before, state) = (show_state(machine), show_state(&after));
    let state = if state == before { "=".into() } else { state };
    let actions = show_all(&step.actions, Some(&after).filter(|_| !was_done));
    let fact = step.fact.map_or(String::new(), |fact| match fact {
        Fact::Signal {
            request, outcome, ..
        } => format!("{}{outcome:?}", if request { "request, " } else { "" }),
        Fact::ChildStopped { signal, lent } => {
            format!("ChildStopped({signal}){}", if lent { ", lent" } else { "" })
        }
        Fact::ChildExited(exit) => format!("ChildExited({})", show_exit(exit)),
        Fact::Extended { granted: true, .. } => "Extended".into(),
        Fact::Extended { granted: false, .. } => "Extended, not granted".into(),
        fact => format!("{fact:?}"),
    });
    format!("{state:<29} {actions:<34} {fact:<33}")
}

/// A state, and its rows.
struct Block {
    path: &'static str,
    state: String,
    rows: Vec<(&'static str, String)>,
}

impl Block {
    fn new(given: &Given, path: &'static str, way: Vec<(u64, Event)>) -> Self {
        let mut machine = given.machine();
        let mut now = 900;
        for (time, event) in way {
            let _ = machine.step(at(time), event);
            now = now.max(time);
        }
        let mut rows: Vec<_> = events(given)
            .into_iter()
            .filter(|(_, event)| *event != Event::Timeout)
            .map(|(name, event)| (name, row(&machine, at(now + 100), event)))
            .collect();
        let armed = machine.deadline();
        // A tick or a look can be due before the end of the phase.
        let over = machine.until.filter(|until| Some(*until) != armed);
        for (name, due) in [("deadline", armed), ("the end of its time", over)] {
            let due = due.map(|due| row(&machine, due, Event::Timeout));
            rows.push((name, due.unwrap_or("none".into())));
        }
        let state = show_state(&machine);
        Self { path, state, rows }
    }

    /// The rows that `base` does not have, those of the same result in one line.
    fn differences(&self, base: Option<&Self>) -> Vec<String> {
        let mut lines: Vec<(&str, Vec<&str>)> = vec![];
        for row in &self.rows {
            if base.is_some_and(|base| base.rows.contains(row)) {
                continue;
            }
            let (name, result) = row;
            match lines.iter_mut().find(|(line, _)| line == result) {
                Some((_, names)) => names.push(name),
                None => lines.push((result, vec![name])),
            }
        }
        let line =
            |(result, names): (&str, Vec<&str>)| format!("  {result:<98} | {}\n", names.join(", "));
        lines.into_iter().map(line).collect()
    }

    /// The state and its rows, or the differences from the state that it is most like: the same one
    /// of the first variant of its kind, or one before it in its own variant.
    fn show(&self, first: &[Self], before: &[Self]) -> String {
        let same = first.iter().find(|block| block.path == self.path);
        let likes = [(String::new(), None)]
            .into_iter()
            .chain(same.map(|block| (", as in the first, but".into(), Some(block))))
            .chain(
                before
                    .iter()
                    .map(|block| (format!(", as {}, but", block.path), Some(block))),
            );
        let (like, differences) = likes
            .map(|(like, block)| (like, self.differences(block)))
            .min_by_key(|(_, differences)| differences.len())
            .expect("the rows alone");
        if differences.is_empty() && same.is_some_and(|same| same.state == self.state) {
            return String::new();
        }
        let like = if differences.is_empty() {
            like.trim_end_matches(", but")
        } else {
            &like
        };
        format!(
            "\n{}: {}{like}\n{}",
            self.path,
            self.state,
            differences.concat()
        )
    }
}

fn table() -> String {
    let mut text = String::from(
        "Every state and every event: the state after it (= is the same), the actions, the fact | the events.\n\
         Times are milliseconds after the start. An event comes at 1000, or 100 after the state is reached;\n\
         a deadline when it is armed. The first variant is whole, and so is the first on a terminal. Of the\n\
         others, and of a state that is like another, only what differs is here.\n\
         Written by BLESS=1 cargo test table; read the diff.\n",
    );
    let mut firsts: Vec<(bool, Vec<Block>)> = vec![];
    for (variant, given) in variants() {
        writeln!(text, "\n== {variant}").unwrap();
        let blocks: Vec<_> = states(&given)
            .into_iter()
            .map(|(path, way)| Block::new(&given, path, way))
            .collect();
        let terminal = given.1.job_control;
        let first = firsts
            .iter()
            .find(|(on_terminal, _)| *on_terminal == terminal);
        let rows = first.map_or(&[][..], |(_, rows)| rows);
        for (number, block) in blocks.iter().enumerate() {
            text += &block.show(rows, &blocks[..number]);
        }
        if first.is_none() {
            firsts.push((terminal, blocks));
        }
    }
    text
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
