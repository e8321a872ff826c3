//! The loop: wait, gather, step, perform. The only file that knows both the policy and the kernel's side; it decides nothing
//! and makes no system call itself.
//!
//! One turn: wait in ppoll; empty the intake; read the clock once (and again where a turn has taken long: behind a suspension, behind SIGKILL); children first, then signals, then the deadline. A child
//! that has ended is stepped and acted upon before it is reaped, so that its PID cannot name a stranger meanwhile. A failed
//! action is logged and survived: only the child's end ends us. Nothing here may panic.

mod dropped;
mod end;
mod perform;
mod start;

use std::mem;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use log::{Level, debug, error, log, log_enabled, trace};

use dropped::Dropped;

use crate::config::{Config, Notify};
use crate::error::Error;
use crate::exit::Exit;
use crate::logging::escape;
use crate::origin::{Kin, Sender, Side};
use crate::policy::{Action, Event, Machine, Received, State};
use crate::report::{History, Step, Who};
use crate::signal::Signal;
use crate::sys::child::{self, Change, Child, Ended, Peek};
use crate::sys::files::Destination;
use crate::sys::notify::Relay;
use crate::sys::signals::{Inherited, Intake, Intaken};
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
    dropped: Dropped,
    report: Option<Destination>,
    /// Where bowout was started, for the hooks; nowhere without any.
    directory: Option<PathBuf>,
    /// The time of this turn.
    now: Instant,
    /// The command could not be run, and why.
    failure: Option<Error>,
    /// Whom we could not signal and have said so of; whom we could not kill.
    refused: Vec<(i32, bool)>,
    /// More children have ended than one turn reaps.
    more: bool,
}

/// How many children one turn reaps, so that a storm of orphans keeps neither signals nor deadlines waiting.
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
    /// One turn of the loop. Signals that came together with the child's end are answered for, too, before it is told.
    fn turn(&mut self) {
        let mut fds = vec![self.intake.as_fd()];
        fds.extend(self.child.exec_pending());
        fds.extend(self.relay.iter().flat_map(Relay::readable));
        let deadline = if self.more { Some(self.now) } else { self.machine.deadline() };
        sys::wait::until(deadline, &fds, self.relay.as_ref().and_then(Relay::writable));
        let batch = self.intake.read();
        self.now = clock();
        self.exec_result();
        if batch.children || self.more {
            self.children();
        }
        self.signals(batch.signals, true);
        self.relay();
        if self.machine.deadline().is_some_and(|deadline| deadline <= self.now) {
            self.reap_before_killing_again();
            self.step(Event::Timeout, None);
        }
    }

    /// Nobody is to be looked for, or given up on, who is dead and only waits for us: a storm of forks leaves a hundred thousand, and to look for the
    /// living among them takes longer than to reap them.
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

    /// Passes on what the child has told the manager.
    fn relay(&mut self) {
        let Some(relay) = &mut self.relay else { return };
        let heard = relay.turn();
        self.dropped.add(heard.dropped, self.now);
        if let Some(wait) = heard.extend {
            self.step(Event::ExtendGrace(wait), None);
        }
    }

    fn exec_result(&mut self) {
        let told = match self.child.exec_result() {
            None => return,
            Some(Ok(())) if self.config.notify != Notify::Exec && !log_enabled!(Level::Debug) => return,
            // The end of the pipe is also that of a child which has died on the way.
            Some(Ok(())) if self.child.has_ended() || !matches!(self.machine.state(), State::Running { .. }) => return,
            Some(Ok(())) => {
                debug!("started {}", self.history.child());
                "READY=1".into()
            }
            Some(Err(error)) => {
                let message = format!("cannot run '{}': {error}", escape(&self.config.command.to_string_lossy()));
                let told = format!("STATUS={message}\nERRNO={}", error.errno());
                self.failure = Some(Error::exec(message, error.exit()));
                told
            }
        };
        if self.config.notify == Notify::Exec
            && let Some(relay) = &mut self.relay
        {
            relay.tell(&told);
        }
    }

    /// Reaps what has ended, then sees whether the child was stopped.
    fn children(&mut self) {
        self.more = false;
        for _ in 0..AT_ONCE {
            match child::peek() {
                Peek::Ended(ended) if self.child.is_ours() && ended.pid == self.child.pid() => self.child_ended(ended),
                Peek::Ended(ended) if self.hook.as_ref().is_some_and(|hook| hook.child.pid() == ended.pid) => {
                    self.hook_ended(ended);
                }
                Peek::Ended(ended) => {
                    child::reap(ended.pid);
                    self.history.reaped_orphan();
                    let level = if self.config.warn_on_reap { Level::Warn } else { Level::Debug };
                    log!(level, "reaped orphan pid {}, which {}", ended.pid, ended.exit);
                }
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

    /// Whether nobody is left but processes that were our children before we were bowout: these do not end with the command, and
    /// are not waited for.
    fn look_behind_inherited(&mut self) {
        if tree::has_inherited() && !self.child.is_ours() && tree::descendants().is_some_and(|left| left.is_empty()) {
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
        let (State::Preparing { ended: Some(_), .. }, Some(hook)) = (self.machine.state(), &self.hook) else { return };
        let Some(group) = hook.child.own_group() else { return };
        if tree::descendants().is_some_and(|left| left.iter().all(|process| group.has(process.group))) {
            self.step(Event::HookAlone, None);
        }
    }

    fn child_changed(&mut self) {
        match self.child.change() {
            Some(Change::Stopped(signal)) => {
                let terminal = self.terminal.as_ref().filter(|_| signal == Signal::TTIN || signal == Signal::TTOU);
                let wants_terminal =
                    terminal.zip(self.child.group()).is_some_and(|(terminal, group)| terminal.can_lend(group));
                self.step(Event::ChildStopped { signal, wants_terminal }, None);
            }
            // Whoever has sent SIGCONT, we ourselves perhaps, knows.
            Some(Change::Continued) | None => {}
        }
    }

    /// Steps what was read at one moment. `group`: the child was there by then, and has what was sent to a group that it shares with us.
    fn signals(&mut self, signals: Vec<Intaken>, group: bool) {
        if signals.is_empty() {
            return;
        }
        let read = self.now;
        for intaken in signals {
            self.signal(intaken, group);
        }
        self.machine.acted(read, clock());
    }

    fn signal(&mut self, intaken: Intaken, group: bool) {
        let Intaken { signal, mut sender, value } = intaken;
        // A shell whose terminal hangs up tells its jobs itself, each as a group; the kernel tells the shell alone (contract T3).
        sender.kernel |= signal == Signal::HUP
            && sender.pid == tty::session_leader()
            && self.terminal.as_ref().is_some_and(Terminal::is_hung_up);
        let weighs = self.machine.weighs_side(signal);
        let side = self.kin.side(sender, |pid| weighs && tree::descends(pid));
        // What is left of a child that is gone can be in our group still, and then the terminal has told it.
        let shared_group = group
            && self.terminal.is_some()
            && match (side, self.child.group()) {
                (Side::Terminal | Side::Tree, Some(group)) => group == tty::own_group(),
                (Side::Terminal, None) => true,
                (_, _) => false,
            };
        self.step(Event::Signal(Received { signal, side, value, shared_group }), Some(sender));
    }

    /// Who sent the signal. The name is asked for behind the forwarding, and only where somebody will read it: in the log, or, of a stop
    /// request, in the report.
    fn who(&self, event: Event, sender: Option<Sender>) -> Option<Who> {
        let (Event::Signal(received), Some(sender)) = (event, sender) else { return None };
        let read = log_enabled!(Level::Info) || self.machine.is_stop_request(received);
        let named = read && !matches!(received.side, Side::Terminal | Side::Outside);
        let name = if named { tree::Process::read(sender.pid).map(|process| process.name) } else { None };
        // Where the side changes nothing, it was not looked for before the signal was forwarded.
        let descends = named && received.side == Side::Process && tree::descends(sender.pid);
        Some(Who { side: if descends { Side::Tree } else { received.side }, sender, name })
    }

    /// Has the machine take an event, performs what it says, then logs both. What came of the actions may be an event again.
    fn step(&mut self, event: Event, sender: Option<Sender>) {
        let now = self.now;
        let before = self.machine.state();
        let actions = self.machine.step(now, event);
        let after = self.machine.state();
        let done = self.perform(&actions);
        trace!("{event:?}: {before:?} -> {after:?}, {actions:?}");
        for refusal in &done.refusals {
            self.tell_refusal(refusal, !matches!(after, State::Running { .. }));
        }
        let who = self.who(event, sender);
        let reached = match (event, after) {
            // They have had the stop signal before, and are left all the same.
            (Event::ChildExited(_), State::Draining { .. }) if actions.is_empty() => {
                tree::descendants().map_or(0, |left| left.len())
            }
            _ => done.reached,
        };
        let step = Step { now, event, who, before, after, actions: &actions, reached, refused: done.refusals.len() };
        if let Some((level, line)) = self.history.note(&step)
            && self.failure.is_none()
        {
            log!(level, "{line}");
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
        if let Some(hook) = done.hook {
            self.run_hook(hook);
        }
        let killing = actions.iter().any(|action| matches!(action, Action::Send { signal: Signal::KILL, .. }));
        if killing {
            self.now = clock();
            let refused = done.reached == 0 && !done.refusals.is_empty();
            let left = done.reached + done.refusals.len();
            self.step(if refused { Event::Refused } else { Event::Killed { left } }, None);
        }
    }

    /// Says who has outlived SIGKILL; who may not be sent it was told when it was refused.
    fn tell_survivors(&self) {
        let left = tree::descendants().unwrap_or_default();
        for process in left.iter().filter(|process| !self.refused.contains(&(process.pid, true))) {
            let (name, pid, state) = (escape(&process.name), process.pid, process.state);
            error!("cannot kill '{name}' (pid {pid}): it is in state {state} and has not answered SIGKILL");
        }
    }
}

/// The clock of the whole supervision: CLOCK_MONOTONIC, which nobody sets (contract K15).
#[allow(clippy::disallowed_methods, reason = "the one place that reads the clock, for each turn")]
fn clock() -> Instant {
    Instant::now()
}
