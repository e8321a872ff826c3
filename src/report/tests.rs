//! The lines, to the letter.

use super::*;
use crate::policy::{KillMode, Ladder, Machine};
use crate::policy::{OnRepeat, Received};
use crate::signal::{Remap, SignalSet};

/// A machine and its history, played against a clock that stands where it is told to.
struct Play {
    machine: Machine,
    history: History,
    start: Instant,
}

impl Play {
    #[allow(clippy::disallowed_methods)]
    fn new(ladder: &str) -> Self {
        let settings = Settings {
            ladder: ladder.parse().unwrap(),
            stop_on: SignalSet::of(&[Signal::TERM, Signal::INT]),
            hangup_stops: true,
            on_repeat: OnRepeat::Kill,
            kill_mode: KillMode::Mixed,
            wait_tree: false,
            max_runtime: Some(Duration::from_secs(3600)),
            hooks: 0,
            stop_delay: Duration::ZERO,
            grace_max: None,
            remap: Remap::new(vec!["USR1:USR2".parse().unwrap(), "USR2:0".parse().unwrap()]),
            keys_stop: true,
            job_control: true,
            announces: false,
            leader: false,
            pid1: false,
        };
        let start = Instant::now();
        let history = History::new(
            vec!["ng\u{1b}inx".into(), "-g".into()],
            vec![],
            7,
            start,
            SystemTime::UNIX_EPOCH,
            settings.clone(),
        );
        Self { machine: Machine::new(settings, start), history, start }
    }

    /// The line that `event` makes after so many seconds, if its actions reach so many processes.
    fn line(&mut self, after: f32, event: Event, reached: usize) -> String {
        let now = self.start + Duration::from_secs_f32(after);
        let before = self.machine.state();
        let actions = self.machine.step(now, event);
        let who = match event {
            Event::Signal(received) => {
                let sender = Sender {
                    kernel: received.side == Side::Terminal,
                    pid: 40,
                    uid: 1000,
                    exited: received.signal == Signal::KILL,
                };
                Some(Who { side: received.side, sender, name: Some("ba\nsh".into()) })
            }
            _ => None,
        };
        let step =
            Step { now, event, who, before, after: self.machine.state(), actions: &actions, reached, refused: 0 };
        self.history.note(&step).map_or(String::new(), |(_, line)| line)
    }

    fn signal(&mut self, after: f32, side: Side, signal: &str, reached: usize) -> String {
        self.line(
            after,
            Event::Signal(Received { signal: signal.parse().unwrap(), side, value: None, shared_group: true }),
            reached,
        )
    }

    fn end(&self, after: f32, exit: Exit) -> String {
        self.history.end(self.start + Duration::from_secs_f32(after), exit).1
    }
}

const KILLED: Exit = Exit::Signal(Signal::KILL);

#[test]
fn a_stop_that_is_obeyed() {
    let mut play = Play::new("TERM/10s/KILL");
    assert_eq!(
        play.signal(1.0, Side::Manager, "TERM", 1),
        "stop request SIGTERM from pid 40 'ba\\nsh' (uid 1000, manager): sent SIGTERM to 'ng\\u{1b}inx' (pid 7), SIGKILL in 10s"
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
        "stop request SIGTERM from outside: sent SIGTERM to 'ng\\u{1b}inx' (pid 7), SIGQUIT in 2s"
    );
    assert_eq!(
        play.line(3.0, Event::Timeout, 1),
        "'ng\\u{1b}inx' (pid 7) goes on: sent SIGQUIT to 'ng\\u{1b}inx' (pid 7), SIGKILL in 1s"
    );
    assert_eq!(
        play.line(4.0, Event::Timeout, 3),
        "grace period of 3s is over: sent SIGKILL to 'ng\\u{1b}inx' (pid 7) and 2 descendants"
    );
    play.line(4.0, Event::ChildExited(KILLED), 0);
    assert_eq!(
        play.end(4.0, KILLED),
        "'ng\\u{1b}inx' (pid 7) was killed by SIGKILL after 4s: 3s grace period expired after SIGTERM from outside; 2 descendants killed"
    );
}

#[test]
fn a_parent_whose_exit_kills_is_named() {
    let mut play = Play::new("TERM/2s/KILL");
    assert_eq!(
        play.signal(1.0, Side::Manager, "KILL", 3),
        "SIGKILL from the exited parent (pid 40): sent SIGKILL to 'ng\\u{1b}inx' (pid 7) and 2 descendants"
    );
    play.line(1.0, Event::ChildExited(KILLED), 0);
    assert_eq!(
        play.end(1.0, KILLED),
        "'ng\\u{1b}inx' (pid 7) was killed by SIGKILL after 1s: SIGKILL from the exited parent (pid 40); 2 descendants killed"
    );
}

#[test]
fn the_terminal_is_answered() {
    let mut play = Play::new("INT/8s/KILL");
    assert_eq!(
        play.signal(1.0, Side::Terminal, "INT", 0),
        "Ctrl-C: waiting for 'ng\\u{1b}inx' (pid 7) to end, SIGKILL in 8s; Ctrl-C again kills it at once"
    );
    assert_eq!(
        play.signal(2.0, Side::Manager, "INT", 0),
        "SIGINT from pid 40 'ba\\nsh' (uid 1000, manager) not forwarded: 'ng\\u{1b}inx' (pid 7) is being stopped already, SIGKILL in 7s"
    );
    assert_eq!(
        play.signal(3.0, Side::Terminal, "INT", 1),
        "second stop request SIGINT from the terminal: sent SIGKILL to 'ng\\u{1b}inx' (pid 7)"
    );
    assert_eq!(
        play.signal(3.0, Side::Terminal, "INT", 0),
        "SIGINT from the terminal not forwarded: 'ng\\u{1b}inx' (pid 7) is being killed"
    );
}

#[test]
fn what_is_left_behind_is_counted() {
    let mut play = Play::new("TERM/8s/KILL");
    assert_eq!(
        play.line(1.0, Event::ChildExited(Exit::Code(3)), 1),
        "'ng\\u{1b}inx' (pid 7) exited with 3, 1 descendant left: sent SIGTERM, SIGKILL in 8s"
    );
    assert_eq!(play.line(9.0, Event::Timeout, 1), "grace period of 8s is over: sent SIGKILL to 1 descendant");
    assert_eq!(
        play.end(9.0, Exit::Code(3)),
        "'ng\\u{1b}inx' (pid 7) exited with 3 after 9s: 8s grace period expired after its end; 1 descendant killed"
    );
}

#[test]
fn every_signal_is_answered_for() {
    let mut play = Play::new("TERM/8s/KILL");
    for (signal, reached, line) in [
        ("HUP", 1, "forwarded SIGHUP from outside to 'ng\\u{1b}inx' (pid 7)"),
        ("USR1", 1, "forwarded SIGUSR1 from outside to 'ng\\u{1b}inx' (pid 7) as SIGUSR2"),
        ("USR2", 0, "SIGUSR2 from outside dropped, as --remap says"),
    ] {
        assert_eq!(play.signal(1.0, Side::Outside, signal, reached), line);
    }
    assert_eq!(
        play.signal(2.0, Side::Outside, "TERM", 0),
        "stop request SIGTERM from outside: SIGTERM could not be sent to 'ng\\u{1b}inx' (pid 7), SIGKILL in 8s"
    );
}

#[test]
fn the_run_time_and_another_exit_are_told() {
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
        assert_eq!(wait(Duration::from_millis(millis)), text);
    }
}

#[test]
fn the_ladders_first_rung_may_be_what_was_received() {
    let ladder = Ladder::new(None, Some(Duration::from_secs(8)));
    assert_eq!(ladder.to_string(), "received/8s/KILL");
}
