//! The exact text of the lines.

use super::*;
use crate::policy::{Action, Event, KillMode, Ladder, Machine, OnRepeat, Received, Step};
use crate::sender::{Sender, Side};
use crate::signal::{Remap, SignalSet};

/// A machine and its history, played against a clock that the test sets.
struct Play {
    machine: Machine,
    history: History,
    start: Instant,
}

impl Play {
    fn settings(ladder: &str) -> Settings {
        Settings {
            ladder: ladder.parse().unwrap(),
            grace_is_default: false,
            stop_on: Some(SignalSet::of(&[Signal::TERM, Signal::INT])),
            keys_stop: true,
            on_repeat: OnRepeat::Kill,
            kill_mode: KillMode::Mixed,
            wait_tree: false,
            ready_timeout: None,
            watchdog: None,
            max_runtime: Some(Duration::from_secs(3600)),
            hooks: 0,
            pre_kill: 0,
            pre_kill_timeout: Duration::ZERO,
            stop_delay: Duration::ZERO,
            grace_max: None,
            remap: Remap::new(vec![
                "USR1:USR2".parse().unwrap(),
                "USR2:0".parse().unwrap(),
            ]),
        }
    }

    fn new(ladder: &str) -> Self {
        Self::of(Self::settings(ladder))
    }

    fn of(settings: Settings) -> Self {
        let place = Place {
            job_control: true,
            ..Place::default()
        };
        Self::at(settings, place)
    }

    #[allow(clippy::disallowed_methods)]
    fn at(settings: Settings, place: Place) -> Self {
        let start = Instant::now();
        let history = History::new(
            (&"ng\u{1b}inx".into(), &["-g".into()], &[]),
            7,
            (start, SystemTime::UNIX_EPOCH),
            (
                settings.clone(),
                place,
                Containment {
                    adopts_orphans: true,
                    guarded: false,
                },
            ),
        );
        Self {
            machine: Machine::new(settings, place, start),
            history,
            start,
        }
    }

    /// The line that `event` makes after so many seconds, if its actions reach so many processes.
    fn line(&mut self, after: f32, event: Event, reached: usize) -> String {
        let now = self.start + Duration::from_secs_f32(after);
        let Step { actions, fact } = self.machine.step(now, event);
        let Some(fact) = fact else {
            return String::new();
        };
        let from = match event {
            Event::Signal(received) => Some(NamedSender {
                side: received.side,
                sender: Sender {
                    kernel: received.side == Side::Terminal,
                    pid: 40,
                    uid: 1000,
                    exited: received.signal == Signal::KILL,
                },
                name: Some("ba\nsh".into()),
            }),
            _ => None,
        };
        let mut rest = reached;
        let child = self.history.exit().is_none() && !matches!(event, Event::ChildExited(_));
        let sent: Vec<_> = actions
            .iter()
            .filter_map(|action| sent(action, &mut rest, child))
            .collect();
        let left = if matches!(event, Event::ChildExited(_)) {
            reached
        } else {
            0
        };
        let note = Note {
            now,
            fact,
            from,
            next: self.machine.next_signal(),
            sent: &sent,
            woken: false,
            left,
        };
        let line = self.history.note(&note);
        line.map_or(String::new(), |line| line.text)
    }

    fn signal(&mut self, after: f32, side: Side, signal: &str, reached: usize) -> String {
        self.line(
            after,
            Event::Signal(Received {
                signal: signal.parse().unwrap(),
                side,
                value: None,
                shared_group: true,
            }),
            reached,
        )
    }

    fn end(&self, after: f32, exit: Exit) -> String {
        self.history
            .end(self.start + Duration::from_secs_f32(after), exit)
            .text
    }
}

/// The result of an action. It reaches one process of `rest` if it is for the child alone, else all
/// of them. The child has the PID 7, the others have 8, 9 and so on.
fn sent(action: &Action, rest: &mut usize, child: bool) -> Option<Sent> {
    let Action::Send {
        signal, to, wake, ..
    } = *action
    else {
        return None;
    };
    let reached = match to {
        Target::Child => (*rest).min(1),
        _ => *rest,
    };
    *rest -= reached;
    let first = if child && matches!(to, Target::All | Target::Child) {
        7
    } else {
        8
    };
    let names = signal == Signal::KILL || matches!(to, Target::Unasked | Target::NewChildren);
    let named = |pid| NamedProcess {
        pid,
        name: if pid == 7 { "ng\u{1b}inx" } else { "sle\nep" }.into(),
        state: if pid == 9 { 'D' } else { 'S' },
        waits_in: (pid == 9).then(|| "io_schedule".into()),
        age: Some(Duration::from_secs(61)),
    };
    Some(Sent {
        signal,
        to,
        stops: wake || signal == Signal::KILL,
        reached,
        refused: 0,
        processes: (first..first + reached as i32)
            .filter(|_| names)
            .map(named)
            .collect(),
    })
}

/// bowout on a terminal, which is standard output, too.
fn on_terminal(ladder: &str) -> Play {
    let place = Place {
        job_control: true,
        stdout_is_terminal: true,
        ..Place::default()
    };
    Play::at(Play::settings(ladder), place)
}

const KILLED: Exit = Exit::Signal(Signal::KILL);

#[test]
fn a_stop_that_is_obeyed() {
    let mut play = Play::new("TERM/10s/KILL");
    assert_eq!(
        play.signal(1.0, Side::Manager, "TERM", 1),
        "received SIGTERM from pid 40 'ba\\nsh' (uid 1000, manager): sent SIGTERM to 'ng\\u{1b}inx' (pid 7), SIGKILL in 10s"
    );
    assert_eq!(play.line(2.5, Event::ChildExited(Exit::Code(0)), 0), "");
    assert_eq!(
        play.end(2.5, Exit::Code(0)),
        "'ng\\u{1b}inx' (pid 7) exited with 0 after 2.5s, 1.5s after SIGTERM from pid 40 'ba\\nsh' (uid 1000, manager)"
    );
}

#[test]
fn a_stop_that_escalates() {
    let mut play = Play::new("TERM/2s/QUIT/1s/KILL");
    assert_eq!(
        play.signal(1.0, Side::Outside, "TERM", 1),
        "received SIGTERM from outside: sent SIGTERM to 'ng\\u{1b}inx' (pid 7), SIGQUIT in 2s"
    );
    assert_eq!(
        play.line(3.0, Event::Timeout, 1),
        "'ng\\u{1b}inx' (pid 7) goes on: sent SIGQUIT to 'ng\\u{1b}inx' (pid 7), SIGKILL in 1s"
    );
    assert_eq!(
        play.line(4.0, Event::Timeout, 3),
        "grace period of 3s is over: sent SIGKILL to 'ng\\u{1b}inx' (pid 7) and SIGTERM to 2 descendants ('sle\\nep' pid 8, state S, 1m 1s old; 'sle\\nep' pid 9, state D in io_schedule, 1m 1s old), SIGKILL to them in 1s"
    );
    play.line(4.0, Event::ChildExited(KILLED), 0);
    assert_eq!(
        play.line(5.2, Event::Timeout, 2),
        "1.2s after SIGTERM: sent SIGKILL to 2 descendants ('sle\\nep' pid 8, state S, 1m 1s old; 'sle\\nep' pid 9, state D in io_schedule, 1m 1s old)"
    );
    assert_eq!(
        play.end(5.5, KILLED),
        "'ng\\u{1b}inx' (pid 7) was killed by SIGKILL after 4s: 3s grace period expired after SIGTERM from outside; killed 2 descendants, too ('sle\\nep' pid 8, state S, 1m 1s old; 'sle\\nep' pid 9, state D in io_schedule, 1m 1s old)"
    );
}

/// The lines mark the grace period as a default, and name the setting for another one.
#[test]
fn a_default_grace_period_is_called_so() {
    let default = || {
        Play::of(Settings {
            grace_is_default: true,
            ..Play::settings("TERM/8s/KILL")
        })
    };
    let mut play = default();
    assert_eq!(
        play.signal(1.0, Side::Outside, "TERM", 1),
        "received SIGTERM from outside: sent SIGTERM to 'ng\\u{1b}inx' (pid 7), SIGKILL in 8s (default)"
    );
    assert!(
        play.signal(2.0, Side::Manager, "INT", 1)
            .ends_with("SIGKILL in 7s")
    );
    assert_eq!(
        play.line(9.0, Event::Timeout, 1),
        "grace period of 8s is over: sent SIGKILL to 'ng\\u{1b}inx' (pid 7); \
         set --grace or BOWOUT_GRACE to your engine's stop timeout less 2s (5s from 30s up)"
    );
    let mut play = default();
    assert_eq!(
        play.line(1.0, Event::ChildExited(Exit::Code(3)), 1),
        "'ng\\u{1b}inx' (pid 7) exited with 3 after 1s, 1 descendant left ('sle\\nep' pid 8, state S, 1m 1s old): sent SIGTERM, SIGKILL in 8s (default)"
    );
    let mut play = default();
    assert!(
        play.signal(1.0, Side::Terminal, "INT", 0)
            .contains("SIGKILL in 8s (default); Ctrl-C again")
    );
}

#[test]
fn a_parent_whose_exit_kills_is_named() {
    let mut play = Play::new("TERM/2s/KILL");
    assert_eq!(
        play.signal(1.0, Side::Manager, "KILL", 3),
        "SIGKILL from the exited parent (pid 40): sent SIGKILL to 'ng\\u{1b}inx' (pid 7) and 2 descendants ('sle\\nep' pid 8, state S, 1m 1s old; 'sle\\nep' pid 9, state D in io_schedule, 1m 1s old)"
    );
    play.line(1.0, Event::ChildExited(KILLED), 0);
    assert_eq!(
        play.end(1.0, KILLED),
        "'ng\\u{1b}inx' (pid 7) was killed by SIGKILL after 1s: SIGKILL from the exited parent (pid 40); killed 2 descendants, too ('sle\\nep' pid 8, state S, 1m 1s old; 'sle\\nep' pid 9, state D in io_schedule, 1m 1s old)"
    );
}

#[test]
fn the_terminal_is_answered() {
    let mut play = Play::new("INT/8s/KILL");
    assert_eq!(
        play.signal(1.0, Side::Terminal, "INT", 0),
        "Ctrl-C: waiting for 'ng\\u{1b}inx' (pid 7) to exit, SIGKILL in 8s; Ctrl-C again kills it at once"
    );
    assert_eq!(
        play.signal(2.0, Side::Manager, "INT", 0),
        "SIGINT from pid 40 'ba\\nsh' (uid 1000, manager) not forwarded: 'ng\\u{1b}inx' (pid 7) is being stopped already, SIGKILL in 7s"
    );
    assert_eq!(
        play.signal(3.0, Side::Terminal, "INT", 1),
        "received SIGINT from the terminal, the second stop request: sent SIGKILL to 'ng\\u{1b}inx' (pid 7)"
    );
    assert_eq!(
        play.signal(3.0, Side::Terminal, "INT", 0),
        "SIGINT from the terminal not forwarded: 'ng\\u{1b}inx' (pid 7) is being killed"
    );
}

#[test]
fn a_ctrl_c_is_logged_when_no_prompt_is_seen() {
    const LOOK: Event = Event::TerminalSeen { prompt: false };
    let mut play = on_terminal("INT/8s/KILL");
    assert_eq!(play.signal(1.0, Side::Terminal, "INT", 0), "");
    assert_eq!(
        play.signal(1.02, Side::Terminal, "INT", 0),
        "SIGINT from the terminal not forwarded: 'ng\\u{1b}inx' (pid 7) received it already"
    );
    for event in [Event::Timeout, LOOK] {
        assert_eq!(play.line(1.05, event, 0), "");
    }
    assert_eq!(
        play.line(1.1, LOOK, 0),
        "Ctrl-C: waiting for 'ng\\u{1b}inx' (pid 7) to exit, SIGKILL in 8s; Ctrl-C again kills it at once"
    );
    for event in [Event::Timeout, LOOK] {
        assert_eq!(play.line(1.2, event, 0), "");
    }
    assert_eq!(
        play.line(1.3, Event::TerminalSeen { prompt: true }, 0),
        "Ctrl-C: 'ng\\u{1b}inx' (pid 7) is at its prompt, the stop is cancelled"
    );
    // Neither the last line nor the report has the cancelled stop.
    assert_eq!(play.line(3.0, Event::ChildExited(Exit::Code(0)), 0), "");
    assert_eq!(
        play.end(3.0, Exit::Code(0)),
        "'ng\\u{1b}inx' (pid 7) exited with 0 after 3s"
    );
    let report = play
        .history
        .report(play.start + Duration::from_secs(3), Exit::Code(0), None, 0);
    assert!(report.contains(r#""stop":null"#), "{report}");
    // Another request starts the stop that a prompt could have cancelled.
    let mut play = on_terminal("TERM/8s/KILL");
    play.signal(1.0, Side::Terminal, "INT", 0);
    assert_eq!(
        play.signal(1.01, Side::Outside, "TERM", 1),
        "received SIGTERM from outside: sent SIGTERM to 'ng\\u{1b}inx' (pid 7), SIGKILL in 8s"
    );
}

/// The looks at the terminal delay the line, and not the grace period.
#[test]
fn a_ctrl_c_that_hooks_follow_has_the_grace_period_as_it_was_at_the_key() {
    let settings = Settings {
        hooks: 1,
        grace_is_default: true,
        ..Play::settings("INT/8s/KILL")
    };
    let place = on_terminal("INT/8s/KILL").history.place;
    let mut play = Play::at(settings, place);
    play.signal(1.0, Side::Terminal, "INT", 0);
    assert_eq!(
        play.line(1.1, Event::TerminalSeen { prompt: false }, 0),
        "received SIGINT from the terminal: running pre-stop hooks, SIGKILL in 8s (default)"
    );
}

#[test]
fn processes_left_running_are_counted() {
    let mut play = Play::new("TERM/8s/KILL");
    assert_eq!(
        play.line(1.0, Event::ChildExited(Exit::Code(3)), 1),
        "'ng\\u{1b}inx' (pid 7) exited with 3 after 1s, 1 descendant left ('sle\\nep' pid 8, state S, 1m 1s old): sent SIGTERM, SIGKILL in 8s"
    );
    assert_eq!(
        play.line(9.0, Event::Timeout, 1),
        "grace period of 8s is over: sent SIGKILL to 1 descendant ('sle\\nep' pid 8, state S, 1m 1s old)"
    );
    assert_eq!(
        play.end(9.0, Exit::Code(3)),
        "'ng\\u{1b}inx' (pid 7) exited with 3 after 1s; killed 1 descendant that it left running ('sle\\nep' pid 8, state S, 1m 1s old): 8s grace period expired after its exit"
    );
}

#[test]
fn every_signal_is_answered_for() {
    let mut play = Play::new("TERM/8s/KILL");
    for (signal, reached, line) in [
        (
            "HUP",
            1,
            "forwarded SIGHUP from outside to 'ng\\u{1b}inx' (pid 7)",
        ),
        (
            "USR1",
            1,
            "forwarded SIGUSR1 from outside to 'ng\\u{1b}inx' (pid 7) as SIGUSR2",
        ),
        ("USR2", 0, "SIGUSR2 from outside dropped, as --remap says"),
    ] {
        assert_eq!(play.signal(1.0, Side::Outside, signal, reached), line);
    }
    assert_eq!(
        play.signal(2.0, Side::Outside, "TERM", 0),
        "received SIGTERM from outside: SIGTERM could not be sent to 'ng\\u{1b}inx' (pid 7), SIGKILL in 8s"
    );
}

#[test]
fn the_run_time_and_another_exit_are_reported() {
    let mut play = Play::new("TERM/8s/KILL");
    assert_eq!(
        play.line(3600.0, Event::Timeout, 1),
        "'ng\\u{1b}inx' (pid 7) has run for 1h: sent SIGTERM to 'ng\\u{1b}inx' (pid 7), SIGKILL in 8s"
    );
    play.line(3600.5, Event::ChildExited(Exit::Signal(Signal::TERM)), 0);
    assert_eq!(
        play.end(3600.5, Exit::TIMED_OUT),
        "'ng\\u{1b}inx' (pid 7) was killed by SIGTERM after 1h 1s, 500ms after the run time of 1h was over; bowout exits with 124"
    );
}

#[test]
fn durations_are_for_people() {
    for (millis, text) in [
        (0, "0ms"),
        (999, "999ms"),
        (1000, "1s"),
        (1049, "1s"),
        (1050, "1.1s"),
        (59_949, "59.9s"),
        (59_950, "1m"),
        (60_000, "1m"),
        (3_723_004, "1h 2m 3s"),
    ] {
        assert_eq!(duration(Duration::from_millis(millis)), text);
    }
}

#[test]
fn the_ladders_first_rung_may_be_the_received_signal() {
    let ladder = Ladder::new(None, Some(Duration::from_secs(8)));
    assert_eq!(ladder.to_string(), "received/8s/KILL");
}

#[test]
fn a_child_that_daemonises_gets_a_hint_of_the_options() {
    let daemonised = |after, code| {
        let line = Play::new("TERM/8s/KILL").line(after, Event::ChildExited(Exit::Code(code)), 2);
        line.contains("--wait-tree") && line.contains("--kill-mode process")
    };
    assert_eq!(
        [daemonised(0.5, 0), daemonised(0.5, 1), daemonised(1.0, 0)],
        [true, false, false]
    );
}

/// The run time ends with the child. A request during the drain is not the reason for the child's
/// exit, and does not start the grace period.
#[test]
fn the_drain_has_a_time_of_its_own() {
    let mut play = Play::new("TERM/8s/KILL");
    play.line(0.2, Event::ChildExited(Exit::Code(0)), 1);
    assert_eq!(
        play.end(2.2, Exit::Code(0)),
        "'ng\\u{1b}inx' (pid 7) exited with 0 after 200ms; 1 descendant that it left running exited 2s later"
    );
    play.signal(7.0, Side::Manager, "TERM", 0);
    assert_eq!(
        play.line(8.3, Event::Timeout, 1),
        "grace period of 8s is over: sent SIGKILL to 1 descendant ('sle\\nep' pid 8, state S, 1m 1s old)"
    );
    assert_eq!(
        play.end(8.3, Exit::Code(0)),
        "'ng\\u{1b}inx' (pid 7) exited with 0 after 200ms; killed 1 descendant that it left running ('sle\\nep' pid 8, state S, 1m 1s old): 8s grace period expired after its exit"
    );
    let report: serde_json::Value = serde_json::from_str(&play.history.report(
        play.start + Duration::from_millis(8300),
        Exit::Code(0),
        None,
        0,
    ))
    .unwrap();
    // f32 seconds lose a millisecond.
    let drained = report["drain_time_ms"].as_u64().unwrap();
    assert_eq!(
        (&report["run_time_ms"], (8099..=8100).contains(&drained)),
        (&200.into(), true)
    );
}

#[test]
fn a_grace_period_of_0_is_not_a_reason_where_nothing_was_killed() {
    let mut play = Play::new("KILL");
    assert_eq!(play.line(1.0, Event::ChildExited(Exit::Code(0)), 0), "");
    let line = play
        .history
        .end(play.start + Duration::from_secs(1), Exit::Code(0));
    assert_eq!(
        (line.level, line.text.as_str()),
        (
            Level::Debug,
            "'ng\\u{1b}inx' (pid 7) exited with 0 after 1s"
        )
    );
}

/// Each signal is counted by itself: three processes are the child and two descendants, both times.
#[test]
fn two_signals_at_once_are_counted_one_by_one() {
    let sent = [Signal::TERM, Signal::INT].map(|signal| Sent {
        signal,
        to: Target::All,
        stops: true,
        reached: 3,
        refused: 0,
        processes: vec![],
    });
    let play = Play::new("TERM/8s/KILL");
    let now = play.start;
    let note = Note {
        now,
        fact: Fact::HookOver {
            hook: 0,
            deadline: false,
        },
        from: None,
        next: None,
        sent: &sent,
        woken: false,
        left: 0,
    };
    assert_eq!(
        play.history.sent(&note).unwrap(),
        "sent SIGTERM to 'ng\\u{1b}inx' (pid 7) and 2 descendants and SIGINT to 'ng\\u{1b}inx' (pid 7) and 2 descendants"
    );
}

/// A storm of forwarded requests fills neither the memory nor the report.
#[test]
fn the_list_of_sent_signals_has_a_bound() {
    let mut play = Play::new("TERM/8s/KILL");
    play.machine = Machine::new(
        Settings {
            on_repeat: OnRepeat::Forward,
            ..play.history.settings.clone()
        },
        play.history.place,
        play.start,
    );
    for n in 0..1000_u16 {
        play.signal(1.0 + f32::from(n) / 10.0, Side::Manager, "TERM", 1);
    }
    let report: serde_json::Value = serde_json::from_str(&play.history.report(
        play.start + Duration::from_secs(200),
        Exit::Code(0),
        None,
        0,
    ))
    .unwrap();
    assert_eq!(
        report["stop"]["rungs"].as_array().map(Vec::len),
        Some(RUNGS)
    );
    assert_eq!(report["stop"]["more_rungs"], 1000 - RUNGS);
}

#[test]
fn a_routine_run_logs_nothing() {
    let level = |pid1, code| {
        let mut play = Play::new("TERM/8s/KILL");
        play.history.place.pid1 = pid1;
        play.line(1.0, Event::ChildExited(code), 0);
        play.history
            .end(play.start + Duration::from_secs(1), code)
            .level
    };
    let signal = Exit::Signal;
    for (exit, levels) in [
        (Exit::Code(0), [Level::Debug, Level::Debug]),
        (Exit::Code(3), [Level::Debug, Level::Info]),
        (signal(Signal::ABRT), [Level::Info, Level::Info]),
        (signal(Signal::PIPE), [Level::Debug, Level::Debug]),
    ] {
        assert_eq!([level(false, exit), level(true, exit)], levels, "{exit}");
    }
    let mut play = Play::new("TERM/8s/KILL");
    play.signal(1.0, Side::Terminal, "INT", 0);
    play.line(1.1, Event::ChildExited(signal(Signal::INT)), 0);
    assert_eq!(
        play.history
            .end(play.start + Duration::from_secs(2), signal(Signal::INT))
            .level,
        Level::Debug
    );
}

#[test]
fn a_run_time_that_is_over_is_named_without_a_grace_period_too() {
    let mut play = Play::new("KILL");
    assert_eq!(
        play.line(3600.0, Event::Timeout, 2),
        "'ng\\u{1b}inx' (pid 7) has run for 1h: sent SIGKILL to 'ng\\u{1b}inx' (pid 7) and 1 descendant ('sle\\nep' pid 8, state S, 1m 1s old), because the grace period is 0"
    );
    play.line(3600.0, Event::ChildExited(KILLED), 0);
    assert!(
        play.end(3600.0, Exit::TIMED_OUT)
            .contains(": the grace period is 0 and the run time of 1h was over")
    );
}

#[test]
fn a_stop_signal_that_the_child_has_from_the_terminal_is_said_to_be_there() {
    let mut play = Play::of(Settings {
        stop_delay: Duration::from_secs(1),
        ..Play::settings("INT/8s/KILL")
    });
    play.signal(1.0, Side::Terminal, "INT", 0);
    assert_eq!(
        play.line(2.0, Event::Timeout, 0),
        "stop delay is over: 'ng\\u{1b}inx' (pid 7) received the stop signal already, SIGKILL in 7s"
    );
}

/// The child received its stop signal from the terminal. The drain's SIGTERM is for its descendants
/// alone.
#[test]
fn a_signal_for_the_descendants_alone_was_not_forwarded() {
    let mut play = Play::new("INT/8s/KILL");
    play.signal(1.0, Side::Terminal, "INT", 0);
    play.line(2.0, Event::ChildExited(Exit::Code(0)), 1);
    let text = play
        .history
        .report(play.start + Duration::from_secs(3), Exit::Code(0), None, 0);
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (
            &report["stop"]["forwarded_after_ms"],
            &report["stop"]["rungs"][0]["signal"]
        ),
        (&Value::Null, &"SIGTERM".into())
    );
}

/// The child exits by itself before bowout sends SIGKILL, or before the stop.
#[test]
fn a_child_that_exited_by_itself_was_not_killed() {
    let mut play = Play::new("TERM/8s/KILL");
    play.signal(1.0, Side::Manager, "TERM", 1);
    assert!(
        play.signal(2.0, Side::Manager, "TERM", 0)
            .ends_with(": 'ng\\u{1b}inx' (pid 7) has exited already")
    );
    play.line(2.0, Event::ChildExited(Exit::Code(0)), 0);
    assert!(play.end(2.0, Exit::Code(0)).ends_with(
        "exited with 0 after 2s, 1s after SIGTERM from pid 40 'ba\\nsh' (uid 1000, manager)"
    ));
    let mut play = Play::new("KILL");
    play.line(1.0, Event::ChildExited(Exit::Code(3)), 1);
    assert!(play.end(1.1, Exit::Code(3)).ends_with(
        "exited with 3 after 1s; killed 1 descendant that it left running ('sle\\nep' pid 8, state S, 1m 1s old): the grace period is 0"
    ));
    let mut play = Play::of(Settings {
        wait_tree: true,
        ..Play::settings("TERM/8s/KILL")
    });
    play.line(1.0, Event::ChildExited(Exit::Code(0)), 1);
    play.signal(5.0, Side::Manager, "TERM", 1);
    assert!(
        play.end(6.0, Exit::Code(0))
            .ends_with("exited with 0 after 1s; 1 descendant that it left running exited 5s later")
    );
}

/// With `--wait-tree`, the descendants are killed long after the child's exit.
#[test]
fn a_child_that_has_exited_is_not_being_killed() {
    let mut play = Play::of(Settings {
        wait_tree: true,
        ..Play::settings("KILL")
    });
    play.line(1.0, Event::ChildExited(Exit::Code(0)), 1);
    assert_eq!(
        play.signal(5.0, Side::Outside, "TERM", 1),
        "received SIGTERM from outside: sent SIGKILL to 1 descendant ('sle\\nep' pid 8, state S, 1m 1s old), because the grace period is 0"
    );
    assert_eq!(
        play.signal(5.0, Side::Outside, "HUP", 0),
        "SIGHUP from outside not forwarded: 'ng\\u{1b}inx' (pid 7) has exited"
    );
}

/// The child's descendants have exited since the last look, or only a hook is left.
#[test]
fn a_kill_after_its_exit_that_reaches_no_process_says_so() {
    let mut play = Play::of(Settings {
        wait_tree: true,
        ..Play::settings("KILL")
    });
    play.line(1.0, Event::ChildExited(Exit::Code(0)), 1);
    assert_eq!(
        play.signal(5.0, Side::Outside, "TERM", 0),
        "received SIGTERM from outside: SIGKILL reached no process, because the grace period is 0"
    );
}

/// The child's exit is not known yet, and SIGKILL finds no process.
#[test]
fn a_kill_that_reaches_no_process_is_said_to_fail() {
    assert_eq!(
        Play::new("KILL").signal(1.0, Side::Outside, "TERM", 0),
        "received SIGTERM from outside: SIGKILL could not be sent to 'ng\\u{1b}inx' (pid 7), because the grace period is 0"
    );
}
