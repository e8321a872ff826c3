//! The history of one supervision, and the log lines, the report and the termination message that
//! it makes. Pure: it folds the facts of the policy and the results of the actions, and returns the
//! texts.

mod end;
mod failure;
mod json;
mod parts;
mod phrases;
#[cfg(test)]
mod tests;
mod text;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::{Duration, Instant, SystemTime};

pub(crate) use failure::failure;
use log::Level;
pub(crate) use phrases::duration;
use serde_json::Value;

use crate::exit::{Exit, OomKills, Usage};
use crate::policy::{Cause, Fact, Place, Settings};
use crate::process::{NAMED, NamedProcess};
use crate::sender::NamedSender;
use crate::signal::{Signal, Target};

/// A fact, and the results of the actions that came with it.
#[derive(Debug)]
pub(crate) struct Note<'a> {
    pub(crate) now: Instant,
    pub(crate) fact: Fact,
    /// Of a signal.
    pub(crate) from: Option<NamedSender>,
    /// The next signal of the stop, and when it is sent.
    pub(crate) next: Option<(Signal, Instant)>,
    /// The signals that were sent, in order.
    pub(crate) sent: &'a [Sent],
    /// The child's group was sent SIGCONT.
    pub(crate) woken: bool,
    /// How many descendants were left at the child's exit.
    pub(crate) left: usize,
}

/// A signal that was sent.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) signal: Signal,
    pub(crate) to: Target,
    /// It is a stop signal or SIGKILL, rather than a forwarded one.
    pub(crate) stops: bool,
    /// How many processes were signalled.
    pub(crate) reached: usize,
    /// How many processes bowout may not signal.
    pub(crate) refused: usize,
    /// The processes that were signalled by SIGKILL or in the drain.
    pub(crate) processes: Vec<NamedProcess>,
}

impl Sent {
    /// True if there was no process to send it to, besides those that received it without bowout.
    fn is_empty(&self) -> bool {
        !matches!(self.to, Target::Child | Target::Group | Target::All)
            && self.reached + self.refused == 0
    }
}

impl Note<'_> {
    /// The signals that any process was sent.
    fn sent(&self) -> impl Iterator<Item = &Sent> {
        self.sent.iter().filter(|sent| !sent.is_empty())
    }

    /// The SIGKILL that any process was sent.
    fn kill(&self) -> Option<&Sent> {
        self.sent
            .iter()
            .find(|sent| sent.signal == Signal::KILL && sent.reached + sent.refused > 0)
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
    cause: Cause,
    /// Of a signal.
    by: Option<NamedSender>,
    at: Instant,
    /// The child had exited by then.
    late: bool,
}

/// The history so far.
#[derive(Debug)]
pub(crate) struct History {
    settings: Settings,
    place: Place,
    /// The command and its arguments.
    command: Vec<String>,
    hooks: Vec<String>,
    pid: i32,
    started: Instant,
    started_at: SystemTime,
    stop: Option<Stop>,
    /// The first [`RUNGS`] signals that were sent to stop the child and its descendants, in order.
    rungs: Vec<Rung>,
    /// How many more there were: with `--on-repeat forward`, one for each request.
    more_rungs: u64,
    kill: Option<Kill>,
    /// The processes that outlived SIGKILL.
    survivors: Vec<NamedProcess>,
    containment: Containment,
    /// The child asked for more time and got it.
    extended: bool,
    /// When the command was ready.
    ready: Option<Instant>,
    /// How the child exited, and when.
    ended: Option<(Exit, Instant)>,
    core: bool,
    /// Known where the child died of a SIGKILL that bowout did not send.
    oom: Option<OomKills>,
    usage: Usage,
    /// How many descendants were left when the child had exited.
    left: usize,
    /// When the descendants were sent their first stop signal, if that was with the child's
    /// SIGKILL.
    asked_last: Option<Instant>,
    /// How many descendants were sent SIGKILL at once, at the most.
    descendants_killed: usize,
    /// The first [`NAMED`] processes that were sent SIGKILL, the child among them, by their PIDs.
    killed: BTreeMap<i32, NamedProcess>,
    /// The child's name at the end, where it is not the one that the command gave it.
    child_name: Option<String>,
    orphans: usize,
}

/// The ties between bowout and the tree: whether bowout adopts orphans, and whether a guard stands
/// in for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Containment {
    /// Orphans are re-parented to bowout: it is PID 1, or a subreaper.
    pub(crate) adopts_orphans: bool,
    /// A SIGKILL to bowout stops the tree, too (`--guard`).
    pub(crate) guarded: bool,
}

/// Why SIGKILL was sent.
#[derive(Debug)]
struct Kill {
    /// For programs.
    code: &'static str,
    /// For people.
    why: String,
    /// The child had exited by then.
    exited: bool,
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
        (command, args, hooks): (&OsString, &[OsString], &[OsString]),
        pid: i32,
        (started, started_at): (Instant, SystemTime),
        (settings, place, containment): (Settings, Place, Containment),
    ) -> Self {
        Self {
            settings,
            place,
            command: [command].into_iter().chain(args).map(lossy).collect(),
            hooks: hooks.iter().map(lossy).collect(),
            pid,
            started,
            started_at,
            stop: None,
            rungs: vec![],
            more_rungs: 0,
            kill: None,
            survivors: vec![],
            containment,
            extended: false,
            ready: None,
            ended: None,
            core: false,
            oom: None,
            usage: Usage::default(),
            left: 0,
            asked_last: None,
            descendants_killed: 0,
            killed: BTreeMap::new(),
            child_name: None,
            orphans: 0,
        }
    }

    /// True if this began the stop.
    fn is_by(&self, cause: Cause) -> bool {
        self.stop.as_ref().is_some_and(|stop| stop.cause == cause)
    }

    fn exit(&self) -> Option<Exit> {
        self.ended.map(|(exit, _)| exit)
    }

    /// How long the command has run: to its exit, whatever its descendants do after that.
    fn run_time(&self, now: Instant) -> Duration {
        self.ended.map_or(now, |(_, at)| at) - self.started
    }

    /// The child has another PID than it was known by.
    pub(crate) fn child_is(&mut self, pid: i32) {
        self.pid = pid;
    }

    /// The child has left a core.
    pub(crate) fn dumped_core(&mut self) {
        self.core = true;
    }

    /// True if the child died of SIGKILL, or exited as a shell does whose command did, and bowout
    /// sent none.
    pub(crate) fn killed_by_another(&self) -> bool {
        self.kill.is_none() && self.exit().is_some_and(|exit| exit.number() == 137)
    }

    /// The OOM killer killed processes in bowout's control group.
    pub(crate) fn oom_killed(&mut self, kills: OomKills) {
        self.oom = Some(kills);
    }

    /// The resources that the child used, once it is reaped.
    pub(crate) fn used(&mut self, usage: Usage) {
        self.usage = usage;
    }

    /// These processes outlived SIGKILL, and bowout exits.
    pub(crate) fn outlived_by(&mut self, survivors: Vec<NamedProcess>) {
        self.survivors = survivors;
    }

    /// An orphan was reaped.
    pub(crate) fn reaped_orphan(&mut self) {
        self.orphans += 1;
    }

    /// Folds one fact, and returns the log line about it.
    #[cold]
    pub(crate) fn note(&mut self, note: &Note<'_>) -> Option<Line> {
        match note.fact {
            Fact::ChildExited(exit) => {
                (self.ended, self.left) = (Some((exit, note.now)), note.left);
            }
            // A request that came together with the child's exit is its likely cause, though it
            // stops nothing any more.
            Fact::Signal {
                received,
                request: true,
                ..
            } => {
                self.stops(note.now, Cause::Signal(received.signal), note.from.clone());
            }
            Fact::Began(cause, _) => self.stops(note.now, cause, None),
            Fact::Cancelled => {
                (self.stop, self.extended, self.more_rungs) = (None, false, 0);
                self.rungs.clear();
            }
            Fact::Extended { granted, .. } => self.extended |= granted,
            Fact::Ready => self.ready = Some(note.now),
            _ => {}
        }
        let killed_before = self.killed_count() > 0;
        self.note_sent(note, killed_before);
        self.line(note, killed_before)
    }

    /// The child's present name (proc_pid_comm(5)): a command such as setpriv(1) executes another.
    pub(crate) fn child_is_called(&mut self, name: &str) {
        let command = self.command.first().map_or("", String::as_str);
        let given = command.rsplit('/').next().unwrap_or_default();
        let same = given.as_bytes().starts_with(name.as_bytes());
        self.child_name = (!same && name != "?").then(|| name.to_owned());
    }

    /// How many descendants were sent SIGKILL. They are counted by the pass that found most, or by
    /// their names: some are found by more than one.
    fn killed_count(&self) -> usize {
        self.descendants_killed
            .max(self.killed_descendants().count())
    }

    /// The descendants that were sent SIGKILL, as far as they are named.
    fn killed_descendants(&self) -> impl Iterator<Item = &NamedProcess> {
        self.killed.values().filter(|it| it.pid != self.pid)
    }

    fn stops(&mut self, at: Instant, cause: Cause, by: Option<NamedSender>) {
        let late = self.ended.is_some() && !self.settings.wait_tree;
        self.stop.get_or_insert(Stop {
            cause,
            by,
            at,
            late,
        });
    }

    fn note_sent(&mut self, note: &Note<'_>, killed_before: bool) {
        let mut again = note.fact == Fact::KilledAgain;
        if let Some(kill) = note.kill() {
            if note.sent.iter().any(|sent| sent.to == Target::Unasked) {
                self.asked_last.get_or_insert(note.now);
            }
            if self.kill.is_none() {
                let (code, why) = self.reason_to_kill(note);
                let exited = self.ended.is_some();
                self.kill = Some(Kill { code, why, exited });
            }
            if kill.to != Target::Child {
                let killed = self.others(kill).saturating_sub(kill.refused);
                self.descendants_killed = self.descendants_killed.max(killed);
            }
            for process in &kill.processes {
                if process.pid == self.pid {
                    self.child_is_called(&process.name);
                }
                // A child that refused SIGKILL has its present name above, and was not killed.
                if kill.reached > 0 && self.killed.len() < NAMED {
                    let known = self.killed.entry(process.pid);
                    known.or_insert_with(|| process.clone());
                }
            }
            again &= killed_before || self.killed_count() == 0;
        }
        for sent in note
            .sent
            .iter()
            .filter(|sent| sent.stops && sent.reached > 0 && !again)
        {
            if self.rungs.len() < RUNGS {
                let to_child = matches!(sent.to, Target::Child | Target::All);
                self.rungs.push(Rung {
                    signal: sent.signal,
                    at: note.now,
                    to_child,
                });
            } else {
                self.more_rungs += 1;
            }
        }
    }
}

fn lossy(word: &OsString) -> String {
    word.to_string_lossy().into_owned()
}
