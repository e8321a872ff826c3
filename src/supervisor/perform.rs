//! Performing: each action of the policy carried out by `sys`, and what came of it.

use std::io;
use std::time::Duration;

use ::log::Level;

use super::start::notify_socket;
use super::{Hook, Supervisor, clock};
use crate::exit::Exit;
use crate::log::{escape, event};
use crate::policy::{Action, Event, KillMode, State};
use crate::report::Sent;
use crate::signal::Signal;
use crate::signal::Target;
use crate::sys::child::Ended;
use crate::sys::spawn::Spawn;
use crate::sys::{tree, tty, wait};

/// What the manager is asked to wait beyond the last moment at which we end.
const MARGIN: Duration = Duration::from_secs(1);
/// What it is asked to wait where there is no such moment.
const A_YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// How many refusals are logged one by one.
const REFUSALS: usize = 256;

/// What came of the actions of one step.
#[derive(Debug, Default)]
pub(super) struct Performed {
    /// The signals that were sent, in order.
    pub(super) sent: Vec<Sent>,
    pub(super) refusals: Vec<Refusal>,
    /// We were to stop ourselves, and did or could not.
    pub(super) suspended: Option<bool>,
    /// The child's group was sent SIGCONT.
    pub(super) woken: bool,
    /// A look at the terminal: whether the program on it is at its prompt.
    pub(super) prompt: Option<bool>,
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
                Action::Send {
                    signal,
                    value,
                    to,
                    wake,
                } => {
                    let before = done.refusals.len();
                    let reached = match to {
                        Target::Child => self.send_to_child(signal, value, wake, &mut done),
                        Target::Group => match tree::send_to_group(&self.child, signal, value) {
                            Ok(()) => 1,
                            Err(error) => {
                                done.refusals.push(self.refusal(signal, error));
                                0
                            }
                        },
                        Target::All | Target::Descendants | Target::Others => {
                            self.send_to_all(signal, wake, to, &mut done)
                        }
                    };
                    let refused = done.refusals.len() - before;
                    done.sent.push(Sent {
                        signal,
                        to,
                        stops: wake || signal == Signal::KILL,
                        reached,
                        refused,
                    });
                }
                Action::Pause => wait::pause(),
                // The child may have exited meanwhile.
                Action::Wake => done.woken = tree::wake_group(&self.child).is_ok(),
                Action::RunHook(hook) => done.hook = Some(hook),
                Action::EndHook => {
                    if let Some(hook) = &mut self.hook {
                        hook.killed = true;
                        hook.child.own_group().inspect(|group| group.kill());
                    }
                }
                Action::NotifyStopping => self.notify_stopping(),
                Action::LookAtTerminal => {
                    let child = self.child.is_ours().then(|| self.child.pid());
                    done.prompt = Some(
                        self.terminal
                            .as_ref()
                            .is_some_and(|terminal| terminal.is_at_prompt(child)),
                    );
                }
                Action::SuspendSelf(signal) => {
                    let group = self.child.group();
                    let was_continued = || self.child.was_continued();
                    let terminal = self.terminal.as_ref();
                    done.suspended =
                        Some(terminal.is_some_and(|terminal| {
                            terminal.suspend(signal, group, was_continued)
                        }));
                }
                Action::LendTerminal => {
                    if let Some((terminal, group)) = self.terminal.as_ref().zip(self.child.group())
                    {
                        terminal.lend(group);
                    }
                }
                Action::Exit(_) => {}
            }
        }
        done
    }

    /// Tells the manager that the stop is under way, and asks it to wait as long as the user told
    /// bowout to wait: its own timeout may be shorter (systemd.service(5), TimeoutStopSec=). Where
    /// the user gave no grace period, the manager's timeout stays in force.
    fn notify_stopping(&mut self) {
        let left = self.machine.over_at().map_or(A_YEAR, |over| {
            over.saturating_duration_since(self.now) + MARGIN
        });
        let extend = format!("EXTEND_TIMEOUT_USEC={}\n", left.as_micros());
        let extend = if self.config.grace_is_default {
            ""
        } else {
            &extend
        };
        let status = self.history.status(self.now, self.machine.state());
        if let Some(relay) = &mut self.relay {
            relay.notify(&format!("STOPPING=1\n{extend}STATUS={status}"));
        }
    }

    /// The child may not be signalled.
    fn refusal(&self, signal: Signal, error: io::Error) -> Refusal {
        Refusal {
            pid: self.child.pid(),
            name: self.history.child().to_owned(),
            signal,
            error,
        }
    }

    /// Returns how many processes were signalled.
    fn send_to_child(
        &self,
        signal: Signal,
        value: Option<u64>,
        wake: bool,
        done: &mut Performed,
    ) -> usize {
        if let Err(error) = self.child.send(signal, value) {
            done.refusals.push(self.refusal(signal, error));
            return 0;
        }
        if wake && self.child.may_be_stopped() {
            // It can only have exited meanwhile.
            let _ = self.child.send(Signal::CONT, None);
        }
        1
    }

    /// Returns how many processes were signalled.
    fn send_to_all(&self, signal: Signal, wake: bool, to: Target, done: &mut Performed) -> usize {
        // The hook is not part of the command: a forwarded signal is not for it, and it has a
        // SIGKILL of its own.
        let hook = self.hook.as_ref().and_then(|hook| hook.child.own_group());
        let spared = |process: &tree::Process| {
            hook.is_some_and(|hook| hook.has(process.group))
                || to == Target::Descendants && process.pid == self.child.pid()
                || to == Target::Others && process.group == tty::own_group().as_raw()
        };
        let tally = tree::send(signal, wake, self.child.own_group(), &spared);
        done.refusals
            .extend(tally.refused.into_iter().map(|(process, error)| {
                let name = if process.pid == self.child.pid() {
                    self.history.child().to_owned()
                } else {
                    format!(
                        "'{}' (pid {}, state {})",
                        escape(&process.name),
                        process.pid,
                        process.state
                    )
                };
                Refusal {
                    pid: process.pid,
                    name,
                    signal,
                    error,
                }
            }));
        tally.reached
    }

    /// Logs a refusal once for each process, and once more for SIGKILL, for at most [`REFUSALS`] in
    /// all: a fork bomb of another user must not fill the log or the memory.
    pub(super) fn tell_refusal(
        &mut self,
        Refusal {
            pid,
            name,
            signal,
            error,
        }: &Refusal,
        stopping: bool,
    ) {
        let told = (*pid, *signal == Signal::KILL);
        if self.refused.contains(&told) {
            return;
        }
        if self.refused.len() == REFUSALS {
            self.refused_more += 1;
            return;
        }
        self.refused.push(told);
        let (level, message) = match *signal {
            Signal::KILL => (Level::Error, format!("cannot kill {name}: {error}")),
            signal if stopping => (
                Level::Warn,
                format!("cannot send {signal} to {name}: {error}; the grace period runs on"),
            ),
            signal => (
                Level::Warn,
                format!("cannot send {signal} to {name}: {error}"),
            ),
        };
        event!(level, "signal_refused", signal = signal.to_string(), target_pid = *pid, error = error.to_string();
            "{message}");
    }

    /// Starts a `--pre-stop` hook; what it could not be started by is told, and is its end.
    pub(super) fn run_hook(&mut self, hook: usize) {
        let name = self.history.hook(hook);
        let command = self.config.pre_stop[hook].to_string_lossy().into_owned();
        let args = ["-c".into(), self.config.pre_stop[hook].clone()];
        let left = match self.machine.state() {
            State::Preparing { grace, .. } => {
                grace.map(|grace| grace.saturating_duration_since(clock()))
            }
            State::Running { .. }
            | State::Stopping { .. }
            | State::Draining { .. }
            | State::Killing { .. }
            | State::Done(_) => None,
        };
        let mut variables = vec![
            // After its end, with --wait-tree, the number may be another process's. The hook is in
            // the child's PID namespace.
            (
                "BOWOUT_CHILD_PID",
                self.child
                    .is_ours()
                    .then(|| tree::own_number(self.child.pid()).to_string().into()),
            ),
            (
                "BOWOUT_SIGNAL",
                Some(self.history.stop_signal().to_string().into()),
            ),
            (
                "BOWOUT_GRACE_LEFT_MS",
                left.map(|left| left.as_millis().to_string().into()),
            ),
        ];
        variables.extend(self.relay.as_ref().map(notify_socket));
        let spawn = Spawn {
            command: "/bin/sh".as_ref(),
            args: &args,
            inherited: self.inherited,
            variables: &variables,
            stands_in: false,
            directory: self.directory.as_deref(),
            to_stderr: true,
            own_group: true,
            die_with_us: true,
        };
        match spawn.spawn(|| ()) {
            Ok(child) => {
                let pid = child.pid();
                event!(Level::Info, "hook_started", hook = command, hook_pid = pid;
                    "running pre-stop hook {name} (pid {pid})");
                self.hook = Some(Hook {
                    number: hook,
                    child,
                    killed: false,
                });
            }
            Err(error) => {
                event!(Level::Warn, "hook_failed", hook = command, error = error.to_string();
                    "cannot start pre-stop hook {name}: {error}; going on without it");
                self.step(Event::HookExited, None);
            }
        }
    }

    /// The hook that ran has ended.
    pub(super) fn hook_ended(&mut self, ended: Ended) {
        let Some(Hook {
            number,
            mut child,
            killed,
        }) = self.hook.take()
        else {
            return;
        };
        let name = self.history.hook(number);
        let (level, message) = match (child.exec_result(), ended.exit) {
            (Some(Err(error)), _) => (
                Level::Warn,
                format!(
                    "cannot run pre-stop hook {name}: {}; going on without it",
                    escape(&error.to_string())
                ),
            ),
            (_, Exit::Code(0)) => (Level::Debug, format!("pre-stop hook {name} has ended")),
            (_, exit) if killed => (Level::Debug, format!("pre-stop hook {name} {exit}")),
            (_, exit) => (
                Level::Warn,
                format!("pre-stop hook {name} {exit}; going on"),
            ),
        };
        let (code, signal) = (ended.exit.code(), ended.exit.signal());
        event!(level, "hook_exited", hook = name.as_str(), hook_pid = ended.pid, exit_code = code, exit_signal = signal; "{message}");
        if self.config.kill_mode == KillMode::Process {
            // There is no drain that would end what it leaves behind. Its number is its group's for
            // as long as it is not reaped.
            child.own_group().inspect(|group| group.kill());
        }
        child.reap();
        self.step(Event::HookExited, None);
    }
}
