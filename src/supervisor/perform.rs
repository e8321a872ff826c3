//! Performing: each action of the policy carried out by `sys`, and what came of it.

use std::io;
use std::time::Duration;

use log::{debug, error, info, warn};

use super::start::notify_socket;
use super::{Hook, Supervisor, clock};
use crate::exit::Exit;
use crate::logging::escape;
use crate::policy::{Action, Event, KillMode, State, Target};
use crate::signal::Signal;
use crate::sys::child::Ended;
use crate::sys::exec::Spawn;
use crate::sys::{tree, tty};

/// What the manager is asked to wait beyond the last moment at which we end.
const MARGIN: Duration = Duration::from_secs(1);
/// What it is asked to wait where there is no such moment.
const A_YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// What came of the actions of one step.
#[derive(Debug, Default)]
pub(super) struct Performed {
    /// How many processes were signalled.
    pub(super) reached: usize,
    pub(super) refusals: Vec<Refusal>,
    /// We were to stop ourselves, and did or could not.
    pub(super) suspended: Option<bool>,
    /// The hook that is to be run, once the step is told.
    pub(super) hook: Option<usize>,
}

/// A process that may not be signalled.
#[derive(Debug)]
pub(super) struct Refusal {
    pid: i32,
    name: String,
    signal: Signal,
    error: io::Error,
}

impl Supervisor<'_> {
    /// Carries out all actions of one step.
    pub(super) fn perform(&mut self, actions: &[Action]) -> Performed {
        let mut done = Performed::default();
        for action in actions {
            match *action {
                Action::Send { signal, value, to: Target::Child, wake } => {
                    self.send_to_child(signal, value, wake, &mut done);
                }
                Action::Send { signal, to: Target::Group, .. } => {
                    // The child alone where it does not lead a group of its own, and where it has ended meanwhile, nobody.
                    done.reached += usize::from(self.child.send_to_group(signal).is_ok());
                }
                Action::Send { signal, to: Target::All, wake, .. } => self.send_to_all(signal, wake, false, &mut done),
                Action::Send { signal, to: Target::Others, wake, .. } => {
                    self.send_to_all(signal, wake, true, &mut done);
                }
                Action::RunHook(hook) => done.hook = Some(hook),
                Action::EndHook => {
                    if let Some(hook) = &mut self.hook {
                        hook.killed = true;
                        hook.child.own_group().inspect(|group| group.kill());
                    }
                }
                Action::NotifyStopping => self.notify_stopping(),
                Action::SuspendSelf(signal) => {
                    let group = self.child.group();
                    done.suspended =
                        Some(self.terminal.as_ref().is_some_and(|terminal| terminal.suspend(signal, group)));
                }
                Action::LendTerminal => {
                    if let Some((terminal, group)) = self.terminal.as_ref().zip(self.child.group()) {
                        terminal.lend(group);
                    }
                }
                Action::Exit(_) => {}
            }
        }
        done
    }

    /// Tells the manager that the stop is under way, and has it wait for as long as we do: its own timeout may be shorter (contract S8).
    fn notify_stopping(&mut self) {
        let left = self.machine.over_at().map_or(A_YEAR, |over| over.saturating_duration_since(self.now) + MARGIN);
        let status = self.history.status(self.now, self.machine.state());
        if let Some(relay) = &mut self.relay {
            relay.tell(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={}\nSTATUS={status}", left.as_micros()));
        }
    }

    fn send_to_child(&self, signal: Signal, value: Option<u64>, wake: bool, done: &mut Performed) {
        match self.child.send(signal, value) {
            Ok(()) => done.reached += 1,
            Err(error) => {
                let name = self.history.child().to_owned();
                done.refusals.push(Refusal { pid: self.child.pid(), name, signal, error });
                return;
            }
        }
        if wake {
            // It can only have ended meanwhile.
            let _ = self.child.send(Signal::CONT, None);
        }
    }

    /// To every descendant; `but_us`: but the members of our own process group.
    fn send_to_all(&self, signal: Signal, wake: bool, but_us: bool, done: &mut Performed) {
        // The hook is no part of the command: what is forwarded is not for it, and it has a SIGKILL of its own.
        let hook = self.hook.as_ref().and_then(|hook| hook.child.own_group());
        let spared = |group| hook.is_some_and(|hook| hook.has(group)) || but_us && group == tty::own_group().as_raw();
        let tally = tree::send(signal, wake, self.child.own_group(), &spared);
        done.reached += tally.reached;
        done.refusals.extend(tally.refused.into_iter().map(|(process, error)| {
            let name = if process.pid == self.child.pid() {
                self.history.child().to_owned()
            } else {
                format!("'{}' (pid {}, state {})", escape(&process.name), process.pid, process.state)
            };
            Refusal { pid: process.pid, name, signal, error }
        }));
    }

    /// Once a process, and once more for SIGKILL: what is refused now will be refused again.
    pub(super) fn tell_refusal(&mut self, Refusal { pid, name, signal, error }: &Refusal, stopping: bool) {
        let told = (*pid, *signal == Signal::KILL);
        if self.refused.contains(&told) {
            return;
        }
        self.refused.push(told);
        match *signal {
            Signal::KILL => error!("cannot kill {name}: {error}"),
            signal if stopping => warn!("cannot send {signal} to {name}: {error}; the grace period runs on"),
            signal => warn!("cannot send {signal} to {name}: {error}"),
        }
    }

    /// Starts a `--pre-stop` hook; what it could not be started by is told, and is its end.
    pub(super) fn run_hook(&mut self, hook: usize) {
        let name = self.history.hook(hook);
        let args = ["-c".into(), self.config.pre_stop[hook].clone()];
        let left = match self.machine.state() {
            State::Preparing { grace, .. } => grace.map(|grace| grace.saturating_duration_since(clock())),
            State::Running { .. }
            | State::Stopping { .. }
            | State::Draining { .. }
            | State::Killing { .. }
            | State::Done(_) => None,
        };
        let mut variables = vec![
            // After its end, with --wait-tree, the number may be another process's. The hook is in the child's PID namespace.
            ("BOWOUT_CHILD_PID", self.child.is_ours().then(|| tree::own_number(self.child.pid()).to_string().into())),
            ("BOWOUT_SIGNAL", Some(self.history.stop_signal().to_string().into())),
            ("BOWOUT_GRACE_LEFT_MS", left.map(|left| left.as_millis().to_string().into())),
        ];
        variables.extend(self.relay.as_ref().map(notify_socket));
        let spawn = Spawn {
            command: "/bin/sh".as_ref(),
            args: &args,
            inherited: self.inherited,
            variables: &variables,
            stands_in: false,
            subreaper: false,
            directory: self.directory.as_deref(),
            to_stderr: true,
            own_group: true,
            die_with_us: true,
        };
        match spawn.spawn(|| ()) {
            Ok(child) => {
                info!("running pre-stop hook {name} (pid {})", child.pid());
                self.hook = Some(Hook { number: hook, child, killed: false });
            }
            Err(error) => {
                warn!("cannot start pre-stop hook {name}: {error}; going on without it");
                self.step(Event::HookExited, None);
            }
        }
    }

    /// The hook that ran has ended.
    pub(super) fn hook_ended(&mut self, ended: Ended) {
        let Some(Hook { number, mut child, killed }) = self.hook.take() else { return };
        let name = self.history.hook(number);
        match (child.exec_result(), ended.exit) {
            (Some(Err(error)), _) => {
                warn!("cannot run pre-stop hook {name}: {}; going on without it", escape(&error.to_string()));
            }
            (_, Exit::Code(0)) => debug!("pre-stop hook {name} has ended"),
            (_, exit) if killed => debug!("pre-stop hook {name} {exit}"),
            (_, exit) => warn!("pre-stop hook {name} {exit}; going on"),
        }
        if self.config.kill_mode == KillMode::Process {
            // There is no drain that would end what it leaves behind. Its number is its group's for as long as it is not reaped.
            child.own_group().inspect(|group| group.kill());
        }
        child.reap();
        self.step(Event::HookExited, None);
    }
}
