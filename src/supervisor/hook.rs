//! The hooks: `--pre-stop`, `--pre-kill` and `--post-stop`. Each is started by itself, after the
//! one before it has exited, and ended at its deadline.

use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use log::Level;

use super::start::notify_socket;
use super::{RunningHook, Supervisor};
use crate::config::Config;
use crate::exit::Exit;
use crate::log::{escape, event};
use crate::policy::{Event, Hook, KillMode};
use crate::sys::kernel::Kernel;
use crate::sys::proc;
use crate::sys::spawn::Spawn;
use crate::sys::waitid::Ended;

/// How long a `--post-stop` hook may outlive its SIGKILL.
const UNKILLABLE: Duration = Duration::from_secs(2);

impl<K: Kernel> Supervisor<'_, K> {
    /// True if this is the hook that runs.
    pub(super) fn is_hook(&self, pid: i32) -> bool {
        self.hook
            .as_ref()
            .is_some_and(|hook| hook.child.pid() == pid)
    }

    /// Starts a hook. One that cannot be started is logged, and has exited.
    #[cold]
    pub(super) fn run_hook(&mut self, hook: Hook) {
        let (kind, command) = command(self.config, hook);
        let name = escape(&command.to_string_lossy()).into_owned();
        let (program, args) = program(command);
        let spawn = Spawn {
            command: &program,
            args: &args,
            inherited: self.inherited,
            variables: &self.hook_variables(),
            watched: false,
            stands_in: false,
            directory: self.outputs.directory.as_deref(),
            to_stderr: true,
            own_group: true,
            die_with_us: true,
            held: false,
            ready: None,
        };
        match self.tree.kernel.spawn(&spawn, || ()) {
            Ok(child) => {
                let pid = child.pid();
                self.tree.spare(pid);
                event!(Level::Info, "hook_started", kind = kind, hook = name.as_str(), hook_pid = pid;
                    "running {kind} hook '{name}' (pid {pid})");
                self.hook = Some(RunningHook {
                    hook,
                    child,
                    killed: false,
                });
            }
            Err(error) => {
                event!(Level::Warn, "hook_failed", kind = kind, hook = name.as_str(), error = error.to_string();
                    "cannot start {kind} hook '{name}': {error}; going on without it");
                self.step(Event::HookExited, None);
            }
        }
    }

    /// The variables that describe the stop to a hook.
    #[cold]
    fn hook_variables(&self) -> Vec<(&'static str, Option<OsString>)> {
        let left = self.machine.grace_left(self.tree.kernel.clock());
        // After the child's exit its number may be another process's. The hook is in the child's
        // PID namespace.
        let child = self
            .tree
            .has_child()
            .then(|| proc::own_number(self.child.pid()));
        let ended = self.machine.ended();
        let mut variables = [
            ("BOWOUT_CHILD_PID", child.map(|pid| pid.to_string())),
            ("BOWOUT_SIGNAL", Some(self.machine.begun_by().to_string())),
            ("BOWOUT_REASON", Some(self.machine.reason().into())),
            (
                "BOWOUT_GRACE_LEFT_MS",
                left.map(|left| left.as_millis().to_string()),
            ),
            (
                "BOWOUT_EXIT_CODE",
                ended.and_then(Exit::code).map(|code| code.to_string()),
            ),
            ("BOWOUT_EXIT_SIGNAL", ended.and_then(Exit::signal)),
        ]
        .map(|(name, value)| (name, value.map(OsString::from)))
        .to_vec();
        variables.extend(self.relay.as_ref().map(notify_socket));
        variables
    }

    /// SIGKILL to the hook that runs, and to its process group.
    #[cold]
    pub(super) fn end_hook(&mut self) {
        if let Some(hook) = &mut self.hook {
            hook.killed = true;
            self.tree.kill_hook();
        }
    }

    /// The hook that ran has exited.
    #[cold]
    pub(super) fn hook_exited(&mut self, ended: Ended) {
        let Some(mut running) = self.hook.take() else {
            return;
        };
        let (kind, command) = command(self.config, running.hook);
        let name = escape(&command.to_string_lossy()).into_owned();
        let after = matches!(running.hook, Hook::PostStop(_));
        let (level, message) = match (running.child.exec_result(), ended.exit) {
            (Some(Err(error)), _) => {
                let error = escape(&error.to_string()).into_owned();
                let text = format!("cannot run {kind} hook '{name}': {error}; going on without it");
                (Level::Warn, text)
            }
            (_, Exit::Code(0)) => (Level::Debug, format!("{kind} hook '{name}' has exited")),
            (_, exit) if running.killed && !after => {
                (Level::Debug, format!("{kind} hook '{name}' {exit}"))
            }
            (_, exit) => (
                Level::Warn,
                format!("{kind} hook '{name}' {exit}; going on"),
            ),
        };
        let (code, signal) = (ended.exit.code(), ended.exit.signal());
        event!(level, "hook_exited", kind = kind, hook = name.as_str(), hook_pid = ended.pid, exit_code = code, exit_signal = signal; "{message}");
        if self.config.policy.kill_mode == KillMode::Process || after {
            // No drain follows that would stop the hook's descendants. The number stays its group's
            // until it is reaped.
            self.tree.kill_hook();
        }
        self.tree.reap(ended.pid);
        self.step(Event::HookExited, None);
    }

    /// Runs the `--post-stop` hooks. The end of their time, or a stop request, ends the one that
    /// runs and skips the others.
    pub(super) fn run_post_stop(&mut self) {
        let mut until = self.machine.post_stop_until(self.tree.kernel.clock());
        let mut over = false;
        for number in 0..self.config.post_stop.len() {
            if over {
                let (_, line) = command(self.config, Hook::PostStop(number));
                let name = escape(&line.to_string_lossy()).into_owned();
                event!(Level::Warn, "hook_skipped", kind = "post-stop", hook = name.as_str();
                    "skipped post-stop hook '{name}': no time is left");
                continue;
            }
            self.run_hook(Hook::PostStop(number));
            while self.hook.is_some() {
                let readable = [self.intake.as_fd()];
                let deadline = if self.more { self.now } else { until };
                self.tree.kernel.wait(Some(deadline), &readable, None);
                let batch = self.tree.kernel.signals(&self.intake);
                self.now = self.tree.kernel.clock();
                let late = self.now >= until;
                let asked = batch
                    .signals
                    .iter()
                    .any(|it| self.machine.is_stop_request(self.received(*it)));
                if !over && (late || asked) {
                    (over, until) = (true, self.now + UNKILLABLE);
                    self.end_hook();
                } else if late {
                    // It is in state D. bowout exits without it.
                    self.hook = None;
                }
                self.signals(&batch.signals, true);
                self.children();
            }
        }
    }
}

/// A hook's place, for the log, and its command line.
fn command(config: &Config, hook: Hook) -> (&'static str, &OsStr) {
    match hook {
        Hook::PreStop(number) => ("pre-stop", &config.pre_stop[number]),
        Hook::PreKill(number) => ("pre-kill", &config.pre_kill[number]),
        Hook::PostStop(number) => ("post-stop", &config.post_stop[number]),
    }
}

/// The program and the arguments of a hook: /bin/sh where the line needs a shell, else its own
/// words, because an image may not have a shell.
fn program(line: &OsStr) -> (OsString, Vec<OsString>) {
    // Commands that only a shell has (POSIX.1-2024, XCU 2.15).
    const BUILT_IN: [&[u8]; 24] = [
        b":",
        b".",
        b"alias",
        b"break",
        b"cd",
        b"command",
        b"continue",
        b"eval",
        b"exec",
        b"exit",
        b"export",
        b"fc",
        b"read",
        b"readonly",
        b"return",
        b"set",
        b"shift",
        b"times",
        b"trap",
        b"type",
        b"ulimit",
        b"umask",
        b"unset",
        b"wait",
    ];
    let bytes = line.as_bytes();
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || b" \t-_./:,+@%=".contains(&byte) || byte >= 0x80;
    let mut words = bytes
        .split(|byte| b" \t".contains(byte))
        .filter(|word| !word.is_empty());
    let owned = |word: &[u8]| OsStr::from_bytes(word).to_owned();
    match words.next() {
        Some(first)
            if bytes.iter().copied().all(plain)
                && !first.contains(&b'=')
                && !BUILT_IN.contains(&first) =>
        {
            (owned(first), words.map(owned).collect())
        }
        _ => ("/bin/sh".into(), vec!["-c".into(), line.to_owned()]),
    }
}

/// Where bowout was started, for the hooks; `None` without any.
pub(super) fn directory(config: &Config) -> Option<PathBuf> {
    let hooks = [&config.pre_stop, &config.pre_kill, &config.post_stop];
    if hooks.iter().all(|hooks| hooks.is_empty()) {
        None
    } else {
        std::env::current_dir().ok()
    }
}
