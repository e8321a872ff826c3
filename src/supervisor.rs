//! The loop: wait, gather, step, perform. The only file that knows both the policy and the kernel's side; it decides nothing
//! and makes no system call itself.
//!
//! One turn: wait in ppoll; empty the intake; read the clock once; children first, then signals, then the deadline. A child
//! that has ended is stepped and acted upon before it is reaped, so that its PID cannot name a stranger meanwhile. A failed
//! action is logged and survived: only the child's end ends us. Nothing here may panic.

use std::io;
use std::os::fd::AsFd;
use std::time::Instant;

use log::{debug, error, log, trace, warn};

use crate::config::{Config, STOP_ON};
use crate::error::Error;
use crate::exit::Exit;
use crate::logging::escape;
use crate::origin::{Kin, Side};
use crate::policy::{Action, Event, KillMode, Machine, Received, Settings, State, Target};
use crate::report::{History, Step, Who};
use crate::signal::{Signal, SignalSet};
use crate::sys::child::{self, Change, Child, Peek, Spawn};
use crate::sys::signals::{Inherited, Intake, Intaken};
use crate::sys::tty::{self, Terminal};
use crate::sys::{self, process, tree};

/// One supervision.
struct Supervisor {
    config: Config,
    intake: Intake,
    child: Child,
    kin: Kin,
    machine: Machine,
    history: History,
    terminal: Option<Terminal>,
    /// The time of this turn.
    now: Instant,
    /// The command could not be run, and why.
    failure: Option<Error>,
    /// Whom we could not signal and have said so of.
    refused: Vec<i32>,
}

/// Starts the command and stays with it to its end.
///
/// # Errors
/// What keeps it from being started (125), or being run (126, 127).
pub(crate) fn supervise(config: Config, inherited: &Inherited) -> Result<Exit, Error> {
    let mut supervisor = Supervisor::start(config, inherited)?;
    loop {
        if let Some(exit) = supervisor.turn() {
            return supervisor.failure.map_or(Ok(exit), Err);
        }
    }
}

impl Supervisor {
    fn start(config: Config, inherited: &Inherited) -> Result<Self, Error> {
        let parent = process::parent();
        let pid1 = process::is_pid1();
        let intake = Intake::open().map_err(|error| own("cannot receive signals", &error))?;
        if let Some(signal) = config.parent_death_signal {
            process::set_parent_death_signal(signal, parent)
                .map_err(|error| own(&format!("cannot ask for {signal} at the parent's death"), &error))?;
        }
        if !pid1 {
            // Without it, orphans go to PID 1 and are not waited for.
            if let Err(error) = process::become_subreaper() {
                warn!("cannot become subreaper: {error}; descendants that lose their parent are not supervised");
            }
        }
        let terminal = Terminal::open();
        let spawn = Spawn {
            command: &config.command,
            args: &config.args,
            inherited,
            own_group: terminal.is_none(),
            die_with_us: config.kill_mode != KillMode::Process,
        };
        let command = config.command.to_string_lossy();
        let child = spawn.spawn().map_err(|error| own(&format!("cannot start '{}'", escape(&command)), &error))?;
        let settings = settings(&config, inherited, pid1, terminal.is_some());
        let now = clock();
        let machine = Machine::new(settings.clone(), now);
        let history = History::new(&command, child.pid(), now, settings);
        let mut ours = vec![intake.as_fd()];
        ours.extend(child.exec_pending());
        ours.extend(terminal.as_ref().map(AsFd::as_fd));
        process::release(&ours);
        let kin = Kin { parent, child: child.pid() };
        Ok(Self { kin, machine, history, terminal, now, intake, child, config, failure: None, refused: vec![] })
    }

    /// One turn of the loop; gives what to end with once that is settled.
    fn turn(&mut self) -> Option<Exit> {
        let mut fds = vec![self.intake.as_fd()];
        fds.extend(self.child.exec_pending());
        sys::wait::until(self.machine.deadline(), &fds);
        let batch = self.intake.read();
        self.now = clock();
        self.exec_result();
        if batch.children
            && let Some(exit) = self.children()
        {
            return Some(exit);
        }
        for intaken in batch.signals {
            let exit = self.signal(intaken);
            if exit.is_some() {
                return exit;
            }
        }
        if self.machine.deadline().is_some_and(|deadline| deadline <= self.now) {
            return self.step(Event::Timeout, None);
        }
        None
    }

    fn exec_result(&mut self) {
        match self.child.exec_result() {
            None => {}
            Some(Ok(())) => debug!("started {}", self.history.child()),
            Some(Err(error)) => {
                let command = self.config.command.to_string_lossy();
                let message = format!("cannot run '{}': {error}", escape(&command));
                self.failure = Some(Error::exec(message, error.exit()));
            }
        }
    }

    /// Reaps all that has ended, then sees whether the child was stopped.
    fn children(&mut self) -> Option<Exit> {
        loop {
            match child::peek() {
                Peek::Ended(ended) if self.child.is_ours() && ended.pid == self.child.pid() => {
                    // What it had to say about its exec is in the pipe by now.
                    self.exec_result();
                    if ended.core {
                        self.history.dumped_core();
                    }
                    let exit = self.step(Event::ChildExited(ended.exit), None);
                    self.child.reap();
                    if exit.is_some() {
                        return exit;
                    }
                }
                Peek::Ended(ended) => {
                    child::reap(ended.pid);
                    let level = if self.config.warn_on_reap { log::Level::Warn } else { log::Level::Debug };
                    log!(level, "reaped orphan pid {}, which {}", ended.pid, ended.exit);
                }
                Peek::None => return self.stopped(),
                Peek::NoChildren => return self.step(Event::NoChildren, None),
            }
        }
    }

    fn stopped(&mut self) -> Option<Exit> {
        match self.child.change()? {
            Change::Stopped(signal) => {
                let terminal = self.terminal.as_ref().filter(|_| signal == Signal::TTIN || signal == Signal::TTOU);
                let wants_terminal =
                    terminal.zip(self.child.group()).is_some_and(|(terminal, group)| terminal.can_lend(group));
                self.step(Event::ChildStopped { signal, wants_terminal }, None)
            }
            Change::Continued => None,
        }
    }

    fn signal(&mut self, intaken: Intaken) -> Option<Exit> {
        let Intaken { signal, mut sender, value } = intaken;
        // A shell whose terminal hangs up tells its jobs itself, each as a group; the kernel tells the shell alone (contract T3).
        sender.kernel |= signal == Signal::HUP
            && self.terminal.is_some()
            && sender.pid == tty::session_leader()
            && tty::is_hung_up();
        let weighs = self.machine.weighs_side(signal);
        let side = self.kin.side(sender, |pid| weighs && tree::descends(pid));
        let named = weighs && !matches!(side, Side::Terminal | Side::Outside);
        let name = if named { tree::Process::read(sender.pid).map(|process| process.name) } else { None };
        let shared_group = matches!(side, Side::Terminal | Side::Tree)
            && self.terminal.is_some()
            && self.child.group() == Some(tty::own_group());
        self.step(Event::Signal(Received { signal, side, value, shared_group }), Some(Who { side, sender, name }))
    }

    /// Has the machine take an event, performs what it says, then logs both.
    fn step(&mut self, event: Event, who: Option<Who>) -> Option<Exit> {
        let now = self.now;
        let before = self.machine.state();
        let actions = self.machine.step(now, event);
        let after = self.machine.state();
        let mut reached = 0;
        let mut refusals = vec![];
        let mut suspended = None;
        for action in &actions {
            match *action {
                Action::Send { signal, value, to, wake } => {
                    reached += self.send(signal, value, to, wake, &mut refusals);
                }
                Action::SuspendSelf(signal) => suspended = Some(self.suspend(signal)),
                Action::LendTerminal => self.lend_terminal(),
                Action::Exit(_) => {}
            }
        }
        trace!("{event:?}: {before:?} -> {after:?}, {actions:?}");
        for refusal in &refusals {
            self.tell_refusal(refusal);
        }
        let step = Step { now, event, who, before, after, actions: &actions, reached };
        if self.failure.is_none()
            && let Some((level, line)) = self.history.note(&step)
        {
            log!(level, "{line}");
        }
        if let State::Done(exit) = after
            && !matches!(before, State::Done(_))
        {
            if matches!((event, before), (Event::Timeout, State::Killing { .. })) {
                tell_survivors();
            }
            if let Some(terminal) = &self.terminal {
                terminal.restore(!matches!(self.history.ended(), Some(Exit::Code(_))));
            }
            let exit = self.config.exit_rules.apply(exit, process::is_pid1());
            if self.failure.is_none() {
                let (level, line) = self.history.end(now, exit);
                log!(level, "{line}");
            }
            return Some(exit);
        }
        if let Some(suspended) = suspended {
            // The turn goes on at another time of day.
            self.now = clock();
            return self.step(Event::Resumed { suspended }, None);
        }
        let killing = actions.iter().any(|action| matches!(action, Action::Send { signal: Signal::KILL, .. }));
        if killing && reached == 0 && !refusals.is_empty() {
            return self.step(Event::Refused, None);
        }
        None
    }

    /// Stops us until somebody continues us; whether it did.
    fn suspend(&self, signal: Signal) -> bool {
        self.terminal.as_ref().is_some_and(|terminal| terminal.suspend(signal, self.child.group()))
    }

    fn lend_terminal(&self) {
        if let Some((terminal, group)) = self.terminal.as_ref().zip(self.child.group()) {
            terminal.lend(group);
        }
    }

    /// Signals the child or everyone; gives how many were reached, and adds to `refusals` who was not and why.
    fn send(&self, signal: Signal, value: Option<u64>, to: Target, wake: bool, refusals: &mut Vec<Refusal>) -> usize {
        match to {
            Target::Child => {
                let sent = self.child.send(signal, value);
                if wake && sent.is_ok() {
                    // It can only have ended meanwhile.
                    let _ = self.child.send(Signal::CONT, None);
                }
                match sent {
                    Ok(()) => 1,
                    Err(error) => {
                        refusals.push(Refusal {
                            pid: self.child.pid(),
                            name: self.history.child().into(),
                            signal,
                            error,
                        });
                        0
                    }
                }
            }
            Target::All => {
                if signal == Signal::KILL {
                    self.child.kill_group();
                }
                let tally = tree::send(signal, wake);
                refusals.extend(tally.refused.into_iter().map(|(process, error)| {
                    let name = format!("'{}' (pid {}, state {})", escape(&process.name), process.pid, process.state);
                    Refusal { pid: process.pid, name, signal, error }
                }));
                tally.reached
            }
        }
    }
}

/// A process that may not be signalled.
#[derive(Debug)]
struct Refusal {
    pid: i32,
    name: String,
    signal: Signal,
    error: io::Error,
}

impl Supervisor {
    /// Once a process: what is refused now will be refused again.
    fn tell_refusal(&mut self, Refusal { pid, name, signal, error }: &Refusal) {
        if *signal != Signal::KILL && self.refused.contains(pid) {
            return;
        }
        self.refused.push(*pid);
        match *signal {
            Signal::KILL => error!("cannot kill {name}: {error}"),
            signal => warn!("cannot send {signal} to {name}: {error}; the grace period runs on"),
        }
    }
}

/// Says who has outlived SIGKILL.
fn tell_survivors() {
    for process in tree::descendants().unwrap_or_default() {
        let name = escape(&process.name);
        error!(
            "cannot kill '{name}' (pid {}): it is in state {} and has not answered SIGKILL",
            process.pid, process.state
        );
    }
}

fn settings(config: &Config, inherited: &Inherited, pid1: bool, job_control: bool) -> Settings {
    // What is ignored on entry stays ignored, as under nohup and in a script's background jobs (contract T4): it is passed on
    // and asks for nothing. PID 1 has nobody who could have meant it so.
    let ignored = if pid1 { SignalSet::default() } else { inherited.ignored };
    Settings {
        ladder: config.ladder.clone(),
        stop_on: config.stop_on.unwrap_or(STOP_ON.minus(ignored)),
        hangup_stops: !ignored.contains(Signal::HUP),
        on_repeat: config.on_repeat,
        kill_mode: config.kill_mode,
        wait_tree: config.wait_tree,
        max_runtime: config.max_runtime,
        remap: config.remap.clone(),
        keys_stop: config.keys_stop,
        job_control,
        leader: tty::leads_session(),
        pid1,
    }
}

/// The clock of the whole supervision: CLOCK_MONOTONIC, which nobody sets (contract K15).
#[allow(clippy::disallowed_methods, reason = "the one place that reads the clock, once a turn")]
fn clock() -> Instant {
    Instant::now()
}

fn own(what: &str, error: &io::Error) -> Error {
    Error::own(format!("{what}: {error}"))
}
