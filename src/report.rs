//! What happened, told to people and machines: the history of one supervision, and the log lines, the report and the termination
//! message that it makes. Pure: it is told every step and says what to write; it does not write.

mod json;
mod lines;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::time::{Duration, Instant, SystemTime};

use log::Level;

use crate::exit::{Exit, Usage};
use crate::logging::escape;
use crate::origin::{Sender, Side};
use crate::policy::{Action, Event, Settings, State, Target};
use crate::signal::Signal;

/// Who sent a signal, as it is told.
#[derive(Clone, Debug)]
pub(crate) struct Who {
    pub(crate) side: Side,
    pub(crate) sender: Sender,
    /// The sender's name, where it was still there to be asked.
    pub(crate) name: Option<String>,
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
    /// How many they were refused by.
    pub(crate) refused: usize,
}

impl Step<'_> {
    /// The first signal that the step sent; where it was for others than those who have it, and there are none, it sent nothing.
    fn sent(&self) -> Option<(Signal, Target)> {
        self.actions.iter().find_map(|action| match *action {
            Action::Send { to: Target::Others, .. } if self.reached + self.refused == 0 => None,
            Action::Send { signal, to, .. } => Some((signal, to)),
            Action::NotifyStopping
            | Action::RunHook(_)
            | Action::EndHook
            | Action::SuspendSelf(_)
            | Action::LendTerminal
            | Action::Exit(_) => None,
        })
    }

    /// Whether the state changed from one kind to another.
    fn enters(&self, is: fn(&State) -> bool) -> bool {
        is(&self.after) && !is(&self.before)
    }
}

/// A line and how much it matters.
pub(crate) type Line = (Level, String);

/// Why and when the stop began.
#[derive(Debug)]
struct Stop {
    /// None where it was `--max-runtime`.
    by: Option<(Signal, Who)>,
    at: Instant,
    /// The child had ended by then.
    late: bool,
}

/// What has happened so far.
#[derive(Debug)]
pub(crate) struct History {
    settings: Settings,
    /// The command and its arguments.
    command: Vec<String>,
    /// The child, as every line names it: `'nginx' (pid 7)`.
    child: String,
    hooks: Vec<String>,
    pid: i32,
    started: Instant,
    started_at: SystemTime,
    stop: Option<Stop>,
    /// What was sent to stop the child and its descendants, in order.
    rungs: Vec<(Signal, Instant)>,
    /// Why SIGKILL was sent.
    kill: Option<String>,
    /// The child has asked for more time and had it.
    extended: bool,
    ended: Option<Exit>,
    core: bool,
    usage: Usage,
    /// How many descendants were there when the child had ended.
    left: usize,
    descendants_killed: usize,
    orphans: usize,
}

impl History {
    /// The history of `command`, a child that was started at `started`, which was `started_at` on the wall clock.
    pub(crate) fn new(
        command: Vec<String>,
        hooks: Vec<String>,
        pid: i32,
        started: Instant,
        started_at: SystemTime,
        settings: Settings,
    ) -> Self {
        let child = format!("'{}' (pid {pid})", escape(command.first().map_or("", String::as_str)));
        Self {
            settings,
            command,
            child,
            hooks,
            pid,
            started,
            started_at,
            stop: None,
            rungs: vec![],
            kill: None,
            extended: false,
            ended: None,
            core: false,
            usage: Usage::default(),
            left: 0,
            descendants_killed: 0,
            orphans: 0,
        }
    }

    /// The child, as every line names it: `'nginx' (pid 7)`.
    pub(crate) fn child(&self) -> &str {
        &self.child
    }

    fn name(&self) -> Cow<'_, str> {
        escape(self.command.first().map_or("", String::as_str))
    }

    /// How the child has ended, if it has.
    pub(crate) fn ended(&self) -> Option<Exit> {
        self.ended
    }

    /// Notes that the child has left a core.
    pub(crate) fn dumped_core(&mut self) {
        self.core = true;
    }

    /// Notes what the child has used, once it is reaped.
    pub(crate) fn used(&mut self, usage: Usage) {
        self.usage = usage;
    }

    /// Notes that an orphan was reaped.
    pub(crate) fn reaped_orphan(&mut self) {
        self.orphans += 1;
    }

    /// The signal that the stop began with, as hooks are told it.
    pub(crate) fn stop_signal(&self) -> Signal {
        self.stop.as_ref().and_then(|stop| stop.by.as_ref()).map_or(Signal::TERM, |(signal, _)| *signal)
    }

    /// Notes one step and says what there is to say about it.
    pub(crate) fn note(&mut self, step: &Step<'_>) -> Option<Line> {
        self.record(step);
        self.line(step)
    }

    fn record(&mut self, step: &Step<'_>) {
        if let Event::ChildExited(exit) = step.event {
            self.ended = Some(exit);
            self.left = step.reached + step.refused;
        }
        // A request that came together with the child's end is the likely cause of it, though it stops nothing any more.
        let asked = match step.event {
            Event::Signal(received) => self.settings.is_stop_request(received) && !self.settings.drops(received.signal),
            Event::Timeout => matches!(step.before, State::Running { .. }),
            _ => false,
        };
        if asked && self.stop.is_none() {
            let by = match (step.event, step.who.clone()) {
                (Event::Signal(received), Some(who)) => Some((received.signal, who)),
                _ => None,
            };
            let late = self.ended.is_some() && !self.settings.wait_tree;
            self.stop = Some(Stop { by, at: step.now, late });
        }
        self.extended |= matches!(step.event, Event::ExtendGrace(_)) && !step.actions.is_empty();
        let stopping = !matches!(step.after, State::Running { .. });
        let again = matches!((step.before, step.after), (State::Killing { .. }, State::Killing { .. }));
        for action in step.actions {
            if let Action::Send { signal, wake, .. } = *action
                && stopping
                && !again
                && step.reached > 0
                && (wake || signal == Signal::KILL)
            {
                self.rungs.push((signal, step.now));
            }
        }
        if step.enters(|state| matches!(state, State::Killing { .. })) {
            self.kill = Some(self.reason_to_kill(step));
            self.descendants_killed = self.others(step).saturating_sub(step.refused);
        }
    }

    fn reason_to_kill(&self, step: &Step<'_>) -> String {
        let why = self.why().unwrap_or_else(|| "its end".into());
        match (step.event, step.before) {
            (Event::Signal(received), _) if received.signal == Signal::KILL => told(received.signal, step.who.as_ref()),
            (Event::Signal(_), State::Running { .. }) => format!("the grace period is 0 and {why} came"),
            (Event::Signal(received), _) => {
                format!("{} was a second stop request", told(received.signal, step.who.as_ref()))
            }
            _ => {
                format!("{} grace period expired after {why}", self.grace(step.now))
            }
        }
    }

    /// How long the grace period was, which the child may have had extended.
    fn grace(&self, now: Instant) -> String {
        let given = self.settings.ladder.total(0).unwrap_or_default();
        wait(self.stop.as_ref().filter(|_| self.extended).map_or(given, |stop| now - stop.at))
    }

    /// Why the stop began: `SIGTERM from outside`.
    fn why(&self) -> Option<String> {
        Some(self.stop.as_ref()?.by.as_ref().map_or_else(
            || format!("the run time of {} was over", wait(self.settings.max_runtime.unwrap_or_default())),
            |(signal, who)| told(*signal, Some(who)),
        ))
    }

    /// How many processes besides the child the step was for.
    fn others(&self, step: &Step<'_>) -> usize {
        let child = self.ended.is_none() && !matches!(step.sent(), Some((_, Target::Others)));
        (step.reached + step.refused).saturating_sub(usize::from(child))
    }
}

/// `SIGTERM from pid 40 'bash' (uid 0, manager)`.
fn told(signal: Signal, who: Option<&Who>) -> String {
    let who = match who {
        None => "an unknown sender".into(),
        Some(Who { side: Side::Terminal, .. }) if signal.is_terminals() => "the terminal".into(),
        Some(Who { side: Side::Terminal, .. }) => "the kernel".into(),
        Some(Who { side: Side::Outside, .. }) => "outside".into(),
        Some(Who { sender, .. }) if sender.exited => format!("the exited parent (pid {})", sender.pid),
        Some(Who { side, sender, name: Some(name) }) => {
            format!("pid {} '{}' (uid {}, {side})", sender.pid, escape(name), sender.uid)
        }
        Some(Who { side, sender, name: None }) => format!("pid {} (uid {}, {side})", sender.pid, sender.uid),
    };
    format!("{signal} from {who}")
}

fn descendants(n: usize) -> String {
    if n == 1 { "1 descendant".into() } else { format!("{n} descendants") }
}

/// A duration for people: tenths of a second below a minute, whole seconds from there; rounded.
fn wait(wait: Duration) -> String {
    match (wait.as_millis(), (wait.as_millis() + 50) / 100) {
        (millis @ 0..1000, _) => format!("{millis}ms"),
        (_, tenths @ ..600) if tenths % 10 == 0 => format!("{}s", tenths / 10),
        (_, tenths @ ..600) => format!("{}.{}s", tenths / 10, tenths % 10),
        _ => {
            let rounded = wait.saturating_add(Duration::from_millis(500));
            humantime::format_duration(Duration::from_secs(rounded.as_secs())).to_string()
        }
    }
}
