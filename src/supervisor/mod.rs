//! The loop: wait, gather, step, perform. The only file that knows both the policy and the kernel's
//! side; it decides nothing and makes no system call itself.
//!
//! One turn: wait in ppoll; empty the intake; read the clock once (and again where a turn has taken
//! long: behind a suspension, behind SIGKILL); children first, then signals, then the deadline. A
//! child that has ended is stepped and acted upon before it is reaped, so that its PID cannot name
//! a stranger meanwhile. A failed action is logged and survived: only the child's end ends us.
//! Nothing here may panic.

mod dropped;
mod end;
mod perform;
mod receive;
mod start;

use std::fs::File;
use std::mem;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ::log::{Level, log_enabled};

use dropped::Dropped;

use crate::config::{Config, Notify};
use crate::error::Error;
use crate::exit::Exit;
use crate::log::{self, escape, event};
use crate::policy::{Event, Machine, State};
use crate::report::{History, Line, Sent, Step};
use crate::sender::{Kin, Sender};
use crate::signal::Signal;
use crate::sys::child::{self, Change, Child, Ended, Peek};
use crate::sys::files::Destination;
use crate::sys::notify::Relay;
use crate::sys::signals::{Inherited, Intake};
use crate::sys::this_process::Parent;
use crate::sys::tty::{self, Terminal};
use crate::sys::{self, tree};

/// One supervision.
struct Supervisor<'a> {
    config: Config,
    inherited: &'a Inherited,
    intake: Intake,
    child: Child,
    hook: Option<Hook>,
    kin: Kin,
    machine: Machine,
    history: History,
    terminal: Option<Terminal>,
    relay: Option<Relay>,
    parent: Option<Parent>,
    dropped: Dropped,
    report: Option<Destination>,
    termination_log: Option<File>,
    /// Where bowout was started, for the hooks; nowhere without any.
    directory: Option<PathBuf>,
    /// The time of this turn.
    now: Instant,
    /// The command could not be run, and why.
    failure: Option<Error>,
    /// PIDs whose refusal of a signal was logged, and whether the signal was SIGKILL.
    refused: Vec<(i32, bool)>,
    /// Refusals that were not logged.
    refused_more: u64,
    /// The log has said that a system call is refused.
    told_of_filter: bool,
    /// More children have ended than one turn reaps.
    more: bool,
}

/// How many children one turn reaps, so that a storm of orphans keeps neither signals nor deadlines
/// waiting.
const AT_ONCE: usize = 256;

/// How long the last pass of SIGKILL has to show before bowout gives up.
const MOMENT: Duration = Duration::from_millis(100);

/// The `--pre-stop` hook that runs.
struct Hook {
    number: usize,
    child: Child,
    /// We have ended it.
    killed: bool,
}

/// Starts the command and stays with it to its end.
///
/// # Errors
/// What keeps it from being started (125), or being run (126, 127).
pub(crate) fn supervise(config: Config, inherited: &Inherited) -> Result<Exit, Error> {
    let mut supervisor = Supervisor::start(config, inherited)?;
    let exit = loop {
        supervisor.turn();
        if let State::Done(exit) = supervisor.machine.state() {
            break supervisor.end(exit);
        }
    };
    let failure = supervisor.failure.take();
    // Its socket has a name in the file system.
    drop(supervisor.relay.take());
    // The kernel takes back everything else in one go.
    mem::forget(supervisor);
    failure.map_or(Ok(exit), Err)
}

impl Supervisor<'_> {
    /// One turn of the loop. Signals that came together with the child's end are answered for, too,
    /// before it is told.
    fn turn(&mut self) {
        let mut fds = vec![self.intake.as_fd()];
        fds.extend(self.child.exec_pending());
        fds.extend(self.relay.iter().flat_map(Relay::readable));
        fds.extend(self.parent.as_ref().and_then(Parent::handle));
        let deadline = if self.more {
            Some(self.now)
        } else {
            self.machine.deadline()
        };
        sys::wait::until(
            deadline,
            &fds,
            self.relay.as_ref().and_then(Relay::writable),
        );
        let batch = self.intake.read();
        self.now = clock();
        if !self.told_of_filter
            && let Some(refused) = sys::wait::refused()
        {
            self.told_of_filter = true;
            event!(Level::Warn, "call_refused"; "{refused}; trying again every 10 ms");
        }
        self.exec_result();
        if batch.children || self.more {
            self.children();
        }
        self.signals(batch.signals, true);
        self.parent_exit();
        self.relay();
        if self
            .machine
            .deadline()
            .is_some_and(|deadline| deadline <= self.now)
        {
            self.reap_before_killing_again();
            self.step(Event::Timeout, None);
        }
    }

    /// Nobody is to be looked for, or given up on, who is dead and only waits for us: a storm of
    /// forks leaves a hundred thousand, and to look for the living among them takes longer than to
    /// reap them.
    fn reap_before_killing_again(&mut self) {
        if let State::Killing { until, .. } = self.machine.state()
            && until <= self.now
        {
            // Without /proc a pass takes seconds, and whoever it has met is dying at this moment.
            sys::wait::until(Some(clock() + MOMENT), &[self.intake.as_fd()], None);
            self.children();
        }
        for _ in 0..AT_ONCE {
            match self.machine.state() {
                State::Killing { .. } if self.more => self.children(),
                _ => return,
            }
        }
    }

    /// Passes on the child's messages to the manager.
    fn relay(&mut self) {
        let Some(relay) = &mut self.relay else { return };
        let extend = relay.turn();
        self.dropped.log(relay, self.now, false);
        if let Some(wait) = extend {
            self.step(Event::ExtendGrace(wait), None);
        }
    }

    fn exec_result(&mut self) {
        let told = match self.child.exec_result() {
            None => return,
            Some(Ok(())) if self.config.notify != Notify::Exec && !log_enabled!(Level::Debug) => {
                return;
            }
            // The end of the pipe is also that of a child which has died on the way.
            Some(Ok(()))
                if self.child.has_ended()
                    || !matches!(self.machine.state(), State::Running { .. }) =>
            {
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
                let told = format!("STATUS={message}\nERRNO={}", error.errno());
                self.failure = Some(Error::exec(message, error.exit()));
                told
            }
        };
        if self.config.notify == Notify::Exec
            && let Some(relay) = &mut self.relay
        {
            relay.notify(&told);
        }
    }

    /// Reaps what has ended, then sees whether the child was stopped.
    fn children(&mut self) {
        self.more = false;
        for _ in 0..AT_ONCE {
            match child::peek() {
                Peek::Ended(ended) if self.child.is_ours() && ended.pid == self.child.pid() => {
                    self.child_ended(ended);
                }
                Peek::Ended(ended)
                    if self
                        .hook
                        .as_ref()
                        .is_some_and(|hook| hook.child.pid() == ended.pid) =>
                {
                    self.hook_ended(ended);
                }
                Peek::Ended(ended) => {
                    child::reap(ended.pid);
                    self.history.reaped_orphan();
                    let level = if self.config.warn_on_reap {
                        Level::Warn
                    } else {
                        Level::Debug
                    };
                    let Ended { pid, exit, .. } = ended;
                    event!(level, "orphan_reaped", orphan_pid = pid, exit_code = exit.code(), exit_signal = exit.signal();
                        "reaped orphan pid {pid}, which {exit}");
                }
                // It runs again, and its next report comes with a SIGCHLD of its own.
                Peek::Released => {}
                Peek::None => {
                    self.child_changed();
                    self.look_behind_hook();
                    return self.look_behind_inherited();
                }
                Peek::NoChildren => return self.step(Event::NoChildren, None),
            }
        }
        self.more = true;
    }

    /// Whether nobody is left but processes that were our children before we were bowout: these do
    /// not end with the command, and are not waited for.
    fn look_behind_inherited(&mut self) {
        if tree::has_inherited()
            && !self.child.is_ours()
            && tree::descendants().is_some_and(|left| left.is_empty())
        {
            self.step(Event::NoChildren, None);
        }
    }

    fn child_ended(&mut self, ended: Ended) {
        // What it had to say about its exec is in the pipe by now.
        self.exec_result();
        if ended.core {
            self.history.dumped_core();
        }
        self.step(Event::ChildExited(ended.exit), None);
        let usage = self.child.reap();
        self.history.used(usage);
    }

    /// With `--wait-tree`: whether the hook is all that keeps us from the end.
    fn look_behind_hook(&mut self) {
        let (State::Preparing { ended: Some(_), .. }, Some(hook)) =
            (self.machine.state(), &self.hook)
        else {
            return;
        };
        let Some(group) = hook.child.own_group() else {
            return;
        };
        if tree::descendants()
            .is_some_and(|left| left.iter().all(|process| group.has(process.group)))
        {
            self.step(Event::HookAlone, None);
        }
    }

    fn child_changed(&mut self) {
        match self.child.change() {
            Some(Change::Stopped(signal)) => {
                let terminal = self
                    .terminal
                    .as_ref()
                    .filter(|_| signal == Signal::TTIN || signal == Signal::TTOU);
                let group = self.child.group();
                let wants_terminal = terminal
                    .zip(group)
                    .is_some_and(|(terminal, group)| terminal.can_lend(group));
                let watched = self.terminal.is_some() && tty::is_watched();
                let shared_group = group == Some(tty::own_group());
                self.step(
                    Event::ChildStopped {
                        signal,
                        wants_terminal,
                        watched,
                        shared_group,
                    },
                    None,
                );
            }
            // Whoever has sent SIGCONT, we ourselves perhaps, knows.
            Some(Change::Continued) | None => {}
        }
    }

    /// Has the machine take an event, performs what it says, then logs both. What came of the
    /// actions may be an event again.
    fn step(&mut self, event: Event, sender: Option<Sender>) {
        let now = self.now;
        let before = self.machine.state();
        let actions = self.machine.step(now, event);
        let after = self.machine.state();
        let done = self.perform(&actions);
        event!(Level::Trace, "step"; "{event:?}: {before:?} -> {after:?}, {actions:?}");
        for refusal in &done.refusals {
            self.tell_refusal(refusal, !matches!(after, State::Running { .. }));
        }
        let who = self.who(event, sender);
        let left = self.left(event, &done.sent);
        let (woken, sent) = (done.woken, &done.sent);
        let step = Step {
            now,
            event,
            who,
            before,
            after,
            actions: &actions,
            sent,
            woken,
            left,
        };
        if let Some(line) = self.history.note(&step)
            && self.failure.is_none()
        {
            log_line(&line);
        }
        if let (Event::Timeout, State::Killing { .. }, State::Done(_)) = (event, before, after) {
            self.tell_survivors();
        }
        if let Some(suspended) = done.suspended {
            // The turn goes on at another time of day.
            self.now = clock();
            let stopped = self.child.is_stopped();
            self.step(Event::Resumed { suspended, stopped }, None);
        }
        if let Some(prompt) = done.prompt {
            self.step(Event::TerminalSeen { prompt }, None);
        }
        if let Some(hook) = done.hook {
            self.run_hook(hook);
        }
        if let Some(Sent {
            reached, refused, ..
        }) = done.sent.iter().find(|sent| sent.signal == Signal::KILL)
        {
            self.now = clock();
            let none = *reached == 0 && *refused > 0;
            self.step(
                if none {
                    Event::Refused
                } else {
                    Event::Killed {
                        left: reached + refused,
                    }
                },
                None,
            );
        }
    }

    /// How many descendants were left at the child's exit.
    fn left(&self, event: Event, sent: &[Sent]) -> usize {
        match (event, self.machine.state()) {
            (Event::ChildExited(_), _) if !sent.is_empty() => {
                sent.iter().map(|sent| sent.reached + sent.refused).sum()
            }
            // They are on their way already, and a look at thousands would hold up the next pass.
            (Event::ChildExited(_), State::Killing { .. })
                if self.history.has_killed_descendants() =>
            {
                0
            }
            (Event::ChildExited(_), State::Done(_)) => 0,
            (Event::ChildExited(_), _) => tree::descendants().map_or(0, |left| left.len()),
            (_, _) => 0,
        }
    }

    /// Says who has outlived SIGKILL; who may not be sent it was told when it was refused.
    fn tell_survivors(&self) {
        let left = tree::descendants().unwrap_or_default();
        for process in left
            .iter()
            .filter(|process| !self.refused.contains(&(process.pid, true)))
        {
            let (name, pid, state) = (escape(&process.name), process.pid, process.state);
            event!(Level::Error, "kill_failed", target_pid = pid, name = process.name.as_str(), state = state.to_string();
                "cannot kill '{name}' (pid {pid}): it is in state {state} and has not answered SIGKILL");
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

/// The clock of the whole supervision: CLOCK_MONOTONIC, which nobody sets (contract K15).
#[allow(
    clippy::disallowed_methods,
    reason = "the one place that reads the clock, for each turn"
)]
fn clock() -> Instant {
    Instant::now()
}
