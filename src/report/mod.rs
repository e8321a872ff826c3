//! What happened, told to people and machines: the history of one supervision, and the log lines,
//! the report and the termination message that it makes. Pure: it is told every step and says what
//! to write; it does not write.

mod end;
mod json;
mod terminal;
#[cfg(test)]
mod tests;
mod text;

use std::borrow::Cow;
use std::time::{Duration, Instant, SystemTime};

use log::Level;
use serde_json::Value;

use crate::exit::{Exit, Usage};
use crate::log::escape;
use crate::policy::{Action, Event, Settings, State};
use crate::sender::{Sender, Side};
use crate::signal::{Signal, Target};

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
    /// The signals that the actions sent, in order.
    pub(crate) sent: &'a [Sent],
    /// The child's group was sent SIGCONT.
    pub(crate) woken: bool,
    /// How many descendants were left at the child's exit.
    pub(crate) left: usize,
}

/// One signal that a step sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) signal: Signal,
    pub(crate) to: Target,
    /// It is a stop signal or SIGKILL, rather than one that was forwarded.
    pub(crate) stops: bool,
    /// How many processes were signalled.
    pub(crate) reached: usize,
    /// How many processes bowout may not signal.
    pub(crate) refused: usize,
}

impl Sent {
    /// Whether there was no process to send it to, besides those that have the signal without
    /// bowout.
    fn is_empty(&self) -> bool {
        matches!(self.to, Target::Others | Target::Descendants) && self.reached + self.refused == 0
    }
}

impl Step<'_> {
    /// The signals that the step sent to any process.
    fn sent(&self) -> impl Iterator<Item = &Sent> {
        self.sent.iter().filter(|sent| !sent.is_empty())
    }

    /// Whether the step sent SIGKILL.
    fn kills(&self) -> bool {
        self.sent
            .iter()
            .any(|sent| sent.signal == Signal::KILL && sent.reached + sent.refused > 0)
    }

    /// Whether the state changed from one kind to another.
    fn enters(&self, is: fn(&State) -> bool) -> bool {
        is(&self.after) && !is(&self.before)
    }
}

/// A log line.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) level: Level,
    /// The name of the event, for programs.
    pub(crate) event: &'static str,
    /// The event's own fields, likewise.
    pub(crate) fields: Vec<(&'static str, Value)>,
    /// The sentence, for people.
    pub(crate) text: String,
}

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
    /// The first [`RUNGS`] signals that were sent to stop the child and its descendants, in order.
    rungs: Vec<Rung>,
    /// How many more there were: with `--on-repeat forward`, one for each request.
    more_rungs: u64,
    /// Why SIGKILL was sent, and whether the child had exited by then.
    kill: Option<(String, bool)>,
    /// The child has asked for more time and had it.
    extended: bool,
    /// How the child exited, and when.
    ended: Option<(Exit, Instant)>,
    core: bool,
    usage: Usage,
    /// How many descendants were there when the child had ended.
    left: usize,
    /// The descendants were sent SIGTERM, their first stop signal, when the child was sent SIGKILL.
    last_second: bool,
    /// How many descendants were sent SIGKILL, and when first.
    descendants_killed: Option<(usize, Instant)>,
    orphans: usize,
}

/// A signal of the stop.
#[derive(Debug)]
struct Rung {
    signal: Signal,
    at: Instant,
    /// It was for the child, rather than for its descendants alone.
    to_child: bool,
}

/// How many signals of a stop the report lists one by one.
const RUNGS: usize = 32;

impl History {
    /// The history of `command`, a child that was started at `started`, which was `started_at` on
    /// the wall clock.
    pub(crate) fn new(
        command: Vec<String>,
        hooks: Vec<String>,
        pid: i32,
        started: Instant,
        started_at: SystemTime,
        settings: Settings,
    ) -> Self {
        let child = format!(
            "'{}' (pid {pid})",
            escape(command.first().map_or("", String::as_str))
        );
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
            more_rungs: 0,
            kill: None,
            extended: false,
            ended: None,
            core: false,
            usage: Usage::default(),
            left: 0,
            last_second: false,
            descendants_killed: None,
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
        self.ended.map(|(exit, _)| exit)
    }

    /// Whether descendants were sent SIGKILL.
    pub(crate) fn has_killed_descendants(&self) -> bool {
        self.descendants_killed.is_some()
    }

    /// How long the command has run: to its exit, whatever its descendants do after that.
    fn run_time(&self, now: Instant) -> Duration {
        self.ended.map_or(now, |(_, at)| at) - self.started
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
        self.stop
            .as_ref()
            .and_then(|stop| stop.by.as_ref())
            .map_or(Signal::TERM, |(signal, _)| *signal)
    }

    /// Notes one step and says what there is to say about it.
    #[cold]
    pub(crate) fn note(&mut self, step: &Step<'_>) -> Option<Line> {
        self.record(step);
        self.line(step)
    }

    fn record(&mut self, step: &Step<'_>) {
        if let Event::ChildExited(exit) = step.event {
            self.ended = Some((exit, step.now));
            self.left = step.left;
        }
        // A request that came together with the child's end is the likely cause of it, though it
        // stops nothing any more.
        let asked = match step.event {
            Event::Signal(received) => {
                self.settings.is_stop_request(received) && !self.settings.drops(received.signal)
            }
            Event::Timeout => matches!(step.before, State::Running { .. }),
            _ => false,
        };
        if asked && self.stop.is_none() {
            let by = match (step.event, step.who.clone()) {
                (Event::Signal(received), Some(who)) => Some((received.signal, who)),
                _ => None,
            };
            let late = self.ended.is_some() && !self.settings.wait_tree;
            self.stop = Some(Stop {
                by,
                at: step.now,
                late,
            });
        }
        if let Event::TerminalSeen { prompt: true } = step.event
            && matches!(step.after, State::Running { .. })
        {
            // The stop is cancelled: no report names it.
            (self.stop, self.extended, self.more_rungs) = (None, false, 0);
            self.rungs.clear();
        }
        self.extended |= matches!(step.event, Event::ExtendGrace(_)) && step.before != step.after;
        let mut again = matches!(step.before, State::Killing { .. });
        if step.kills() {
            self.last_second |= step.sent.iter().any(|sent| sent.to == Target::Descendants);
            if self.kill.is_none() {
                self.kill = Some((self.reason_to_kill(step), self.ended.is_some()));
            }
            let tree = |sent: &&Sent| sent.signal == Signal::KILL && sent.to != Target::Child;
            let killed = step
                .sent
                .iter()
                .find(tree)
                .map_or(0, |sent| self.others(sent).saturating_sub(sent.refused));
            if self.descendants_killed.is_none() && killed > 0 {
                self.descendants_killed = Some((killed, step.now));
                again = false;
            }
        }
        for sent in step
            .sent
            .iter()
            .filter(|sent| sent.stops && sent.reached > 0 && !again)
        {
            if self.rungs.len() < RUNGS {
                let to_child = matches!(sent.to, Target::Child | Target::All);
                self.rungs.push(Rung {
                    signal: sent.signal,
                    at: step.now,
                    to_child,
                });
            } else {
                self.more_rungs += 1;
            }
        }
    }

    /// Why SIGKILL was sent.
    fn reason_to_kill(&self, step: &Step<'_>) -> String {
        let late = self.stop.as_ref().is_none_or(|stop| stop.late);
        let why = self
            .why()
            .filter(|_| !late)
            .unwrap_or_else(|| "its exit".into());
        match (step.event, step.before) {
            (Event::Signal(received), _) if received.signal == Signal::KILL => {
                told(received.signal, step.who.as_ref())
            }
            (Event::Signal(_), State::Running { .. }) => {
                format!("the grace period is 0 and {why} was received")
            }
            (Event::Signal(received), _) => {
                format!(
                    "{} was a second stop request",
                    told(received.signal, step.who.as_ref())
                )
            }
            _ if self.settings.ladder.rung(0).is_none() => match self.why().filter(|_| !late) {
                Some(why) => format!("the grace period is 0 and {why}"),
                None => "the grace period is 0".into(),
            },
            _ => format!("{} grace period expired after {why}", self.grace(step.now)),
        }
    }

    /// How long the grace period was, which the child may have had extended.
    fn grace(&self, now: Instant) -> String {
        let given = self.settings.ladder.total(0).unwrap_or_default();
        wait(
            self.stop
                .as_ref()
                .filter(|_| self.extended)
                .map_or(given, |stop| now - stop.at),
        )
    }

    /// Why the stop began: `SIGTERM from outside`.
    fn why(&self) -> Option<String> {
        Some(self.stop.as_ref()?.by.as_ref().map_or_else(
            || {
                format!(
                    "the run time of {} was over",
                    wait(self.settings.max_runtime.unwrap_or_default())
                )
            },
            |(signal, who)| told(*signal, Some(who)),
        ))
    }

    /// How many processes besides the child a signal was for.
    fn others(&self, sent: &Sent) -> usize {
        let child =
            self.ended.is_none() && matches!(sent.to, Target::All | Target::Child | Target::Group);
        (sent.reached + sent.refused).saturating_sub(usize::from(child))
    }
}

/// `SIGTERM from pid 40 'bash' (uid 0, manager)`.
fn told(signal: Signal, who: Option<&Who>) -> String {
    let who = match who {
        None => "an unknown sender".into(),
        Some(Who {
            side: Side::Terminal,
            ..
        }) if signal.is_terminals() => "the terminal".into(),
        Some(Who {
            side: Side::Terminal,
            ..
        }) => "the kernel".into(),
        Some(Who {
            side: Side::Outside,
            ..
        }) => "outside".into(),
        Some(Who { sender, .. }) if sender.exited => {
            format!("the exited parent (pid {})", sender.pid)
        }
        Some(Who {
            side,
            sender,
            name: Some(name),
        }) => {
            format!(
                "pid {} '{}' (uid {}, {side})",
                sender.pid,
                escape(name),
                sender.uid
            )
        }
        Some(Who {
            side,
            sender,
            name: None,
        }) => format!("pid {} (uid {}, {side})", sender.pid, sender.uid),
    };
    format!("{signal} from {who}")
}

fn descendants(n: usize) -> String {
    if n == 1 {
        "1 descendant".into()
    } else {
        format!("{n} descendants")
    }
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
