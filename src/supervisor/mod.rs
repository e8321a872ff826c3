//! The loop: wait, read, step, perform, log. The only module that knows both the policy and the
//! kernel's side. It decides nothing, and acts on processes through [`Kernel`].
//!
//! One turn: wait in ppoll; read the signals; read the clock once (and again at the child's exit,
//! and where a turn has taken long: after a suspension, after SIGKILL); children first, then
//! signals, then the deadline. A child that has exited is stepped before it is reaped, so that its
//! PID cannot be another process's meanwhile. All actions of an event come before its log lines and
//! before the next event; after a stop signal, bowout gives way for a moment before it logs. A
//! failed action is logged and survived. Nothing here may panic.

mod children;
mod dropped;
mod end;
mod guard;
mod hook;
mod part;
mod perform;
mod place;
mod receive;
mod replace;
mod service;
#[cfg(test)]
mod simulation;
mod start;

use std::fs::File;
use std::mem;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ::log::{Level, log_enabled};

use crate::config::{Config, Notify};
use crate::error::Error;
use crate::exit::Exit;
use crate::log::{self, escape, event};
use crate::policy::{Event, Fact, Hook, KillMode, Machine, Phase};
use crate::report::{History, Line, Note, Sent};
use crate::sender::{Kin, Sender};
use crate::sys::child::Child;
use crate::sys::files::Destination;
use crate::sys::kernel::{Kernel, Linux};
use crate::sys::notify::Relay;
use crate::sys::readiness::ReadyFile;
use crate::sys::signals::{Batch, Inherited, Intake};
use crate::sys::stdin::Stdin;
use crate::sys::this_process::Parent;
use crate::sys::tree::Tree;
use crate::sys::tty::Terminal;
use crate::sys::wait;
use dropped::Dropped;
use part::{Part, Replacing, ToGuard, Turn};
pub(crate) use place::look_around;

/// One supervision.
struct Supervisor<'a, K: Kernel> {
    config: &'a Config,
    inherited: &'a Inherited,
    intake: K::Intake,
    child: Child,
    tree: Tree<K>,
    hook: Option<RunningHook>,
    kin: Kin,
    machine: Machine,
    history: History,
    terminal: Option<Terminal>,
    relay: Option<Relay>,
    parent: Option<Parent>,
    /// The command's standard input, with `--stop-on-eof`.
    stdin: Option<Stdin>,
    part: Part,
    replacing: Replacing,
    dropped: Dropped,
    outputs: &'a Outputs,
    /// The time of this turn.
    now: Instant,
    /// Why the command could not be run.
    failure: Option<Error>,
    ready_file_is_made: bool,
    /// PIDs whose refusal of a signal was logged, and whether the signal was SIGKILL.
    refused: Vec<(i32, bool)>,
    /// Refusals that were not logged.
    refused_more: u64,
    /// The refusal of a system call was logged.
    filter_logged: bool,
    /// More children have exited than one turn reaps.
    more: bool,
}

/// The hook that runs.
struct RunningHook {
    hook: Hook,
    child: Child,
    /// bowout killed it.
    killed: bool,
}

/// The files that are written at the end, and the directory that bowout was started in, opened and
/// looked up before the command starts.
struct Outputs {
    report: Option<Destination>,
    termination_log: Option<File>,
    /// How many processes the OOM killer had killed at the start, where a report is to be written
    /// or systemd started bowout.
    oom_kills: Option<u64>,
    directory: Option<PathBuf>,
    ready_file: Option<ReadyFile>,
}

/// How many children one turn reaps, so that a storm of orphans delays neither signals nor
/// deadlines.
const AT_ONCE: usize = 256;

/// How long the last pass of SIGKILL has to work before bowout gives up.
const MOMENT: Duration = Duration::from_millis(100);

/// Starts the command and supervises it to its end.
///
/// # Errors
/// A fault that prevents the start (125) or the run (126, 127) of the command.
pub(crate) fn supervise(config: &Config, inherited: &Inherited) -> Result<Exit, Error> {
    // First: the number of a descriptor that the user opened is then not one of bowout's own.
    let outputs = Outputs::open(config, None)?;
    run(config, inherited, outputs, None)
}

/// Supervises; as another instance (`--replace-on`), if `part` says so.
fn run(
    config: &Config,
    inherited: &Inherited,
    mut outputs: Outputs,
    part: Option<Part>,
) -> Result<Exit, Error> {
    let intake =
        Intake::open().map_err(|error| Error::own(format!("cannot receive signals: {error}")))?;
    let kernel = Linux::open();
    outputs.note_oom_kills();
    let mut started = place::watch_parent(config.parent_death_signal).and_then(|parent| {
        let part = match part {
            Some(part) => (part, Batch::default()),
            None => Part::divide(config, &kernel, &intake)?,
        };
        Supervisor::start(config, inherited, &outputs, (kernel, intake), parent, part)
    });
    // Not moved: a copy of it would stay on the stack.
    let (supervisor, before) = started.as_mut().map_err(|error| {
        outputs.write_failure(config, error);
        error.clone()
    })?;
    supervisor.begin(before);
    let exit = loop {
        if let Part::Guard(..) = supervisor.part {
            match supervisor.guard_turn() {
                Turn::GoOn => continue,
                Turn::Exit(exit) => break exit,
                Turn::Instance(part) => {
                    // It holds the guard's resources: named sockets and open files.
                    mem::forget(started);
                    let another = Outputs::open(config, Some(&outputs))?;
                    mem::forget(outputs);
                    return run(config, inherited, another, Some(part));
                }
            }
        }
        supervisor.turn();
        if let Phase::Done(exit) = supervisor.machine.phase() {
            break supervisor.end(exit);
        }
    };
    supervisor.part.send(ToGuard::Exit(exit));
    let failure = supervisor.failure.take();
    // Its socket has a name in the file system.
    drop(supervisor.relay.take());
    // The kernel frees everything else at once.
    mem::forget(started);
    failure.map_or(Ok(exit), Err)
}

impl<K: Kernel> Supervisor<'_, K> {
    /// One turn of the loop.
    fn turn(&mut self) {
        let mut readable = vec![self.intake.as_fd()];
        readable.extend(self.child.readable());
        readable.extend(self.relay.iter().flat_map(Relay::readable));
        readable.extend(self.parent.as_ref().and_then(Parent::handle));
        readable.extend(self.stdin.as_ref().and_then(Stdin::readable));
        readable.extend(self.part.readable());
        let writable = self.relay.as_ref().and_then(Relay::writable);
        let deadline = if self.more {
            Some(self.now)
        } else {
            let look = self.stdin.as_ref().and_then(Stdin::look_at);
            self.machine.deadline().into_iter().chain(look).min()
        };
        self.tree.kernel.wait(deadline, &readable, writable);
        let batch = self.tree.kernel.signals(&self.intake);
        self.now = self.tree.kernel.clock();
        if !self.filter_logged
            && let Some(refused) = wait::refused()
        {
            self.filter_logged = true;
            event!(Level::Warn, "call_refused"; "{refused}; trying again every 10 ms");
        }
        self.exec_result();
        if batch.children || self.more {
            self.children();
        }
        self.signals(&batch.signals, true);
        self.parent_exit();
        self.obey_guard();
        self.read_readiness();
        self.end_of_input();
        self.relay();
        if self.is_due() {
            self.reap_before_killing_again();
            self.step(Event::Timeout, None);
        }
    }

    fn is_due(&self) -> bool {
        self.machine
            .deadline()
            .is_some_and(|deadline| deadline <= self.now)
    }

    /// Reaps all zombies before the next SIGKILL pass: with 100,000 of them a look takes longer
    /// than reaping.
    fn reap_before_killing_again(&mut self) {
        if !matches!(self.machine.phase(), Phase::Killing { .. }) {
            return;
        }
        if self.machine.over_at().is_some_and(|over| over <= self.now) {
            // Without /proc a pass takes seconds, and the processes that it signalled last are
            // dying now.
            let until = self.tree.kernel.clock() + MOMENT;
            self.tree
                .kernel
                .wait(Some(until), &[self.intake.as_fd()], None);
            self.children();
        }
        for _ in 0..AT_ONCE {
            match self.machine.phase() {
                Phase::Killing { .. } if self.more => self.children(),
                _ => return,
            }
        }
    }

    /// Passes on the child's messages to the manager.
    fn relay(&mut self) {
        let Some(relay) = &mut self.relay else { return };
        let said = relay.turn();
        self.dropped.log(relay, self.now, false);
        self.note_said(said);
        if let Some(wait) = said.extend {
            self.step(Event::ExtendGrace(wait), None);
        }
    }

    fn exec_result(&mut self) {
        let notifies = self.config.notify == Notify::Exec;
        let message = match self.child.exec_result() {
            None => return,
            Some(Ok(())) if !notifies && !log_enabled!(Level::Debug) => return,
            // The end of the pipe is also that of a child which died before the exec.
            Some(Ok(())) if self.tree.child_exited() || self.machine.phase() != Phase::Running => {
                return;
            }
            Some(Ok(())) => {
                let child = self.history.child();
                event!(Level::Debug, "child_started", child_pid = self.child.pid(); "started {child}");
                "READY=1".into()
            }
            Some(Err(error)) => {
                let command = self.config.command.to_string_lossy();
                let message = format!(
                    "cannot run '{}': {}",
                    escape(&command),
                    escape(&error.to_string())
                );
                let status = format!("STATUS={message}\nERRNO={}", error.errno());
                self.failure = Some(Error::exec(message, error.exit()));
                status
            }
        };
        if notifies && let Some(relay) = &mut self.relay {
            relay.notify(&message);
        }
    }

    /// Has the machine take an event, performs its actions, then logs both. The results of the
    /// actions can be events again.
    fn step(&mut self, event: Event, sender: Option<Sender>) {
        let now = self.now;
        let step = self.machine.step(now, event);
        let mut done = self.perform(&step.actions);
        // A sender such as kill(1) exits in a moment.
        let from = step.fact.and_then(|_| self.named_sender(event, sender));
        self.give_way(&mut done);
        event!(Level::Trace, "step"; "{event:?}: {:?}, {:?}", self.machine.phase(), step.actions);
        for (process, signal, error) in &done.refused {
            self.log_refusal(process, *signal, error);
        }
        let mut line = None;
        if let Some(fact) = step.fact {
            let note = Note {
                now,
                fact,
                from,
                next: self.machine.next_signal(),
                sent: &done.sent,
                woken: done.woken,
                left: self.left(fact, &done.sent),
            };
            line = self.history.note(&note);
            if let Some(line) = line.as_ref().filter(|_| self.failure.is_none()) {
                log_line(line);
            }
            if fact == Fact::GaveUp {
                self.log_survivors();
            }
            if fact == Fact::Ready {
                self.announce_ready();
            }
        }
        self.remove_ready_file();
        if done.notify {
            // Of a request during the drain the line says only that it was not forwarded.
            let line = line.filter(|line| line.event != "signal_not_forwarded");
            self.notify_stopping(line.map(|line| line.text));
        }
        if let Some(hook) = done.hook {
            self.run_hook(hook);
        }
        for event in done.events {
            // The action that led to it takes time: a suspension, a pass of SIGKILL.
            self.now = self.tree.kernel.clock();
            self.step(event, None);
        }
    }

    /// How many descendants were left at the child's exit.
    fn left(&mut self, fact: Fact, sent: &[Sent]) -> usize {
        if !matches!(fact, Fact::ChildExited(_)) {
            return 0;
        }
        let sent = sent.iter().map(|sent| sent.reached + sent.refused).sum();
        match self.machine.phase() {
            Phase::Stopping { .. }
                if sent > 0 && self.config.policy.kill_mode == KillMode::Mixed =>
            {
                sent
            }
            // They were sent SIGKILL, and a look at thousands would delay the next pass.
            Phase::Killing { .. } | Phase::Done(_) => sent,
            _ => self
                .tree
                .members()
                .map_or(sent, |left| left.len().max(sent)),
        }
    }

    /// Logs the processes that outlived SIGKILL. Those that refused it were logged then.
    fn log_survivors(&mut self) {
        let mut left = self.tree.members().unwrap_or_default();
        let hook = self.hook.as_ref().map(|hook| hook.child.pid());
        left.extend(hook.and_then(|pid| self.tree.kernel.stat(pid)));
        if left.is_empty() {
            event!(Level::Error, "kill_failed"; "a process has not exited after SIGKILL, and /proc does not name it");
        }
        let named = self.tree.kernel.name(&left);
        let more = left.len() - named.len();
        self.history.outlived_by(named.clone());
        for process in named {
            if self.refused.contains(&(process.pid, true)) {
                continue;
            }
            let (name, pid, state) = (escape(&process.name), process.pid, process.state);
            let waits_in = process
                .waits_in
                .as_deref()
                .map(|it| format!(" in {}", escape(it)));
            let waits_in = waits_in.unwrap_or_default();
            event!(Level::Error, "kill_failed", target_pid = pid, name = process.name.as_str(), state = state.to_string();
                "cannot kill '{name}' (pid {pid}): it is in state {state}{waits_in} and has not exited after SIGKILL");
        }
        if more > 0 {
            event!(Level::Error, "kill_failed", count = more; "cannot kill {more} more processes");
        }
    }
}

/// Logs a line of the report.
fn log_line(
    Line {
        level,
        event,
        fields,
        text,
    }: &Line,
) {
    log::log(*level, event, fields, format_args!("{text}"));
}
