//! What happened, told to people: the history of one supervision, and the log lines that it makes. Pure: it is told every step, and
//! says what to write; it does not write.
//!
//! Every line names what happened, to whom, why, and what comes next if anything does.

use std::time::{Duration, Instant};

use log::Level;

use crate::exit::Exit;
use crate::logging::escape;
use crate::origin::{Sender, Side};
use crate::policy::{Action, Event, OnRepeat, Received, Settings, State, Target};
use crate::signal::Signal;

/// Who sent a signal, as the log names it.
#[derive(Clone, Debug)]
pub(crate) struct Who {
    pub(crate) side: Side,
    pub(crate) sender: Sender,
    /// The sender's name, where it was still there to be asked.
    pub(crate) name: Option<String>,
}

impl Who {
    fn text(&self) -> String {
        match (self.side, &self.name) {
            (Side::Terminal, _) => "the terminal".into(),
            (Side::Outside, _) => "outside".into(),
            (side, Some(name)) => {
                format!("pid {} '{}' (uid {}, {side})", self.sender.pid, escape(name), self.sender.uid)
            }
            (side, None) => format!("pid {} (uid {}, {side})", self.sender.pid, self.sender.uid),
        }
    }
}

impl Received {
    /// The key that the user has pressed.
    fn key(self) -> Option<&'static str> {
        match (self.side, self.signal) {
            (Side::Terminal, Signal::INT) => Some("Ctrl-C"),
            (Side::Terminal, Signal::QUIT) => Some("Ctrl-\\"),
            _ => None,
        }
    }
}

/// One step of the machine and what came of its actions.
#[derive(Debug)]
pub(crate) struct Step<'a> {
    pub(crate) now: Instant,
    pub(crate) event: Event,
    /// For a signal: who sent it.
    pub(crate) who: Option<Who>,
    pub(crate) before: State,
    pub(crate) after: State,
    pub(crate) actions: &'a [Action],
    /// How many processes the actions reached.
    pub(crate) reached: usize,
}

/// A line and how much it matters.
pub(crate) type Line = (Level, String);

/// What has happened so far.
#[derive(Debug)]
pub(crate) struct History {
    settings: Settings,
    /// `'nginx' (pid 7)`.
    child: String,
    started: Instant,
    /// Why the stop began, and when.
    stop: Option<(String, Instant)>,
    /// Why SIGKILL was sent.
    kill: Option<String>,
    ended: Option<Exit>,
    core: bool,
    descendants_killed: usize,
}

impl History {
    /// The history of a child that was started at `started`.
    pub(crate) fn new(command: &str, pid: i32, started: Instant, settings: Settings) -> Self {
        let child = format!("'{}' (pid {pid})", escape(command));
        Self { settings, child, started, stop: None, kill: None, ended: None, core: false, descendants_killed: 0 }
    }

    /// How the child has ended, if it has.
    pub(crate) fn ended(&self) -> Option<Exit> {
        self.ended
    }

    /// The child, as every line names it.
    pub(crate) fn child(&self) -> &str {
        &self.child
    }

    /// Notes that the child has left a core.
    pub(crate) fn dumped_core(&mut self) {
        self.core = true;
    }

    /// Notes one step and says what there is to say about it.
    pub(crate) fn note(&mut self, step: &Step<'_>) -> Option<Line> {
        match step.event {
            Event::Signal(received) => Some(self.signal(step, received)),
            Event::ChildExited(exit) => self.child_exited(step, exit),
            Event::Timeout => self.timeout(step),
            Event::ChildStopped { signal, wants_terminal } => {
                let what = if wants_terminal { "lending it the terminal" } else { "stopping with it" };
                let what = if self.settings.job_control { what } else { "it is left so" };
                Some((Level::Debug, format!("{} was stopped by {signal}: {what}", self.child)))
            }
            Event::Resumed { suspended: false } if step.reached > 0 => {
                Some((Level::Info, format!("{} was stopped and nobody could wake it: sent SIGCONT to it", self.child)))
            }
            Event::Resumed { .. } => Some((Level::Debug, format!("{} is continued", self.child))),
            Event::NoChildren | Event::Refused => None,
        }
    }

    fn signal(&mut self, step: &Step<'_>, received: Received) -> Line {
        let who = step.who.as_ref().map_or_else(|| received.side.to_string(), Who::text);
        let signal = received.signal;
        let asked = format!("{signal} from {who}");
        let to = self.target(step);
        match (step.before, step.after) {
            (State::Running { .. }, State::Stopping { until, .. }) => {
                self.stop = Some((asked.clone(), step.now));
                let next = self.next(step.now, step.after, until);
                let sent = self.sent(step).unwrap_or_else(|| format!("{to} has it already"));
                (
                    Level::Info,
                    match received.key() {
                        Some(key) => {
                            let again = match self.settings.on_repeat {
                                OnRepeat::Kill => format!("; {key} again kills it at once"),
                                OnRepeat::Forward | OnRepeat::Ignore => String::new(),
                            };
                            format!("{key}: waiting for {} to end, {next}{again}", self.child)
                        }
                        None => format!("stop request {asked}: {sent}, {next}"),
                    },
                )
            }
            (State::Running { .. }, State::Killing { .. }) => {
                self.stop = Some((asked.clone(), step.now));
                self.killed(step, format!("the grace period is 0 and {asked} came"));
                (Level::Warn, format!("stop request {asked}: sent SIGKILL to {to}, for the grace period is 0"))
            }
            (State::Stopping { .. } | State::Draining { .. }, State::Killing { .. }) => {
                self.killed(step, format!("{asked} was a second stop request"));
                (Level::Warn, format!("second stop request {asked}: sent SIGKILL to {to}"))
            }
            (_, after) => self.passed(step, signal, &asked, after),
        }
    }

    /// A signal that changed no state.
    fn passed(&self, step: &Step<'_>, signal: Signal, asked: &str, after: State) -> Line {
        if let Some(Action::Send { signal: sent, .. }) = step.actions.first() {
            let remapped = if *sent == signal { String::new() } else { format!(" as {sent}") };
            // The companion of every stop signal and of every `fg`.
            let level = if signal == Signal::CONT { Level::Debug } else { Level::Info };
            return (level, format!("forwarded {asked} to {}{remapped}", self.target(step)));
        }
        let terminal = step.who.as_ref().is_some_and(|who| who.side == Side::Terminal);
        match after {
            State::Draining { .. } | State::Killing { .. } | State::Done(_) => (
                Level::Info,
                format!(
                    "{asked} not forwarded: {} {}",
                    self.child,
                    if self.ended.is_some() { "has ended" } else { "is being killed" }
                ),
            ),
            State::Running { .. } | State::Stopping { .. } if self.settings.remap.apply(signal).is_none() => {
                (Level::Info, format!("{asked} dropped, as --remap says"))
            }
            State::Stopping { until, .. } if !terminal => (
                Level::Info,
                format!(
                    "{asked} not forwarded: {} is being stopped already, {}",
                    self.child,
                    self.next(step.now, after, until)
                ),
            ),
            // A resize or job control: the terminal has told the child itself.
            State::Running { .. } | State::Stopping { .. } => {
                (Level::Debug, format!("{asked} not forwarded: {} has it already", self.child))
            }
        }
    }

    fn child_exited(&mut self, step: &Step<'_>, exit: Exit) -> Option<Line> {
        self.ended = Some(exit);
        let ended = self.ending(exit);
        match step.after {
            State::Draining { until, .. } if step.reached > 0 => {
                let next = self.next(step.now, step.after, until);
                Some((Level::Warn, format!("{ended}, {} left: sent SIGTERM, {next}", descendants(step.reached))))
            }
            State::Killing { .. } if !matches!(step.before, State::Killing { .. }) && step.reached > 0 => {
                self.killed(step, "the grace period was over".into());
                Some((Level::Warn, format!("{ended}, {} left: sent SIGKILL", descendants(step.reached))))
            }
            State::Running { .. } | State::Stopping { .. } => {
                Some((Level::Info, format!("{ended}, waiting for its descendants")))
            }
            State::Draining { .. } | State::Killing { .. } | State::Done(_) => None,
        }
    }

    fn timeout(&mut self, step: &Step<'_>) -> Option<Line> {
        let to = self.target(step);
        match (step.before, step.after) {
            (State::Running { .. }, State::Stopping { until, .. }) => {
                let why = format!("the run time of {} was over", wait(self.settings.max_runtime.unwrap_or_default()));
                self.stop = Some((why, step.now));
                let sent = self.sent(step).unwrap_or_default();
                Some((
                    Level::Warn,
                    format!(
                        "{} has run for {}: {sent}, {}",
                        self.child,
                        wait(step.now - self.started),
                        self.next(step.now, step.after, until)
                    ),
                ))
            }
            (State::Stopping { .. }, State::Stopping { until, .. }) => {
                let sent = self.sent(step).unwrap_or_default();
                Some((Level::Warn, format!("{to} goes on: {sent}, {}", self.next(step.now, step.after, until))))
            }
            (State::Running { .. } | State::Stopping { .. } | State::Draining { .. }, State::Killing { .. }) => {
                let grace = wait(self.settings.ladder.total(0).unwrap_or_default());
                let after = self.stop.as_ref().map_or("its end".into(), |(why, _)| why.clone());
                self.killed(step, format!("{grace} grace period expired after {after}"));
                Some((Level::Warn, format!("grace period of {grace} is over: sent SIGKILL to {to}")))
            }
            (State::Killing { .. }, State::Killing { .. }) => {
                Some((Level::Debug, format!("sent SIGKILL again to {to}")))
            }
            (_, _) => None,
        }
    }

    /// The last line: who ended, how, after how long, and because of whom.
    pub(crate) fn end(&self, now: Instant, exit: Exit) -> Line {
        let mut line = match self.ended {
            Some(ended) => self.ending(ended),
            None => format!("{} could not be killed", self.child),
        };
        line += &format!(" after {}", wait(now - self.started));
        match (&self.kill, &self.stop) {
            (Some(kill), _) => line += &format!(": {kill}"),
            (None, Some((why, at))) => line += &format!(", {} after {why}", wait(now - *at)),
            (None, None) => {}
        }
        if self.descendants_killed > 0 {
            line += &format!("; {} killed", descendants(self.descendants_killed));
        }
        if self.ended.is_none_or(|ended| ended.number() != exit.number()) {
            line += &format!("; bowout exits with {}", exit.number());
        }
        (Level::Info, line)
    }

    fn ending(&self, exit: Exit) -> String {
        format!("{} {exit}{}", self.child, if self.core { " (core dumped)" } else { "" })
    }

    fn killed(&mut self, step: &Step<'_>, why: String) {
        self.kill.get_or_insert(why);
        self.descendants_killed += self.others(step);
    }

    /// How many processes besides the child the step reached.
    fn others(&self, step: &Step<'_>) -> usize {
        step.reached.saturating_sub(usize::from(self.ended.is_none()))
    }

    /// Whom the step's action was for.
    fn target(&self, step: &Step<'_>) -> String {
        let others = self.others(step);
        match step.actions.first() {
            Some(Action::Send { to: Target::All, .. }) if self.ended.is_some() => descendants(others),
            Some(Action::Send { to: Target::All, .. }) if others > 0 => {
                format!("{} and {}", self.child, descendants(others))
            }
            Some(Action::Send { .. } | Action::SuspendSelf(_) | Action::LendTerminal | Action::Exit(_)) | None => {
                self.child.clone()
            }
        }
    }

    /// What the step's action did.
    fn sent(&self, step: &Step<'_>) -> Option<String> {
        match step.actions.first() {
            Some(Action::Send { signal, .. }) if step.reached == 0 => {
                Some(format!("{signal} could not be sent to {}", self.target(step)))
            }
            Some(Action::Send { signal, .. }) => Some(format!("sent {signal} to {}", self.target(step))),
            Some(Action::SuspendSelf(_) | Action::LendTerminal | Action::Exit(_)) | None => None,
        }
    }

    /// What happens at the end of the wait.
    fn next(&self, now: Instant, state: State, until: Option<Instant>) -> String {
        let rung = match state {
            State::Stopping { rung, .. } => self.settings.ladder.rung(rung + 1).and_then(|rung| rung.signal),
            _ => None,
        };
        match until {
            Some(until) => {
                format!("{} in {}", rung.unwrap_or(Signal::KILL), wait(until.saturating_duration_since(now)))
            }
            None => "no deadline".into(),
        }
    }
}

fn descendants(n: usize) -> String {
    if n == 1 { "1 descendant".into() } else { format!("{n} descendants") }
}

/// A duration for people: tenths of a second below a minute, whole seconds from there.
pub(crate) fn wait(wait: Duration) -> String {
    let millis = wait.as_millis();
    match millis {
        0..1000 => format!("{millis}ms"),
        1000..60_000 if millis.is_multiple_of(1000) => format!("{}s", millis / 1000),
        1000..60_000 => format!("{}.{}s", millis / 1000, millis % 1000 / 100),
        _ => humantime::format_duration(Duration::from_secs(wait.as_secs())).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{KillMode, Ladder, Machine};
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
                remap: Remap::new(vec!["USR1:USR2".parse().unwrap(), "USR2:0".parse().unwrap()]),
                keys_stop: true,
                job_control: true,
                leader: false,
                pid1: false,
            };
            let start = Instant::now();
            let history = History::new("ng\u{1b}inx", 7, start, settings.clone());
            Self { machine: Machine::new(settings, start), history, start }
        }

        /// The line that `event` makes after so many seconds, if its actions reach so many processes.
        fn line(&mut self, after: f32, event: Event, reached: usize) -> String {
            let now = self.start + Duration::from_secs_f32(after);
            let before = self.machine.state();
            let actions = self.machine.step(now, event);
            let who = match event {
                Event::Signal(received) => {
                    let sender = Sender { kernel: received.side == Side::Terminal, pid: 40, uid: 1000 };
                    Some(Who { side: received.side, sender, name: Some("ba\nsh".into()) })
                }
                _ => None,
            };
            let step = Step { now, event, who, before, after: self.machine.state(), actions: &actions, reached };
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
            "'ng\\u{1b}inx' (pid 7) was killed by SIGTERM after 1h, 500ms after the run time of 1h was over; bowout exits with 124"
        );
    }

    #[test]
    fn durations_are_for_people() {
        for (millis, text) in [
            (0, "0ms"),
            (999, "999ms"),
            (1000, "1s"),
            (1050, "1.0s"),
            (59_999, "59.9s"),
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
}
