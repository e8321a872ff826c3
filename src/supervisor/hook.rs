//! The `--pre-stop` hooks: started one after the other, ended at their deadline.

use std::ffi::OsString;
use std::path::PathBuf;

use log::Level;

use super::start::notify_socket;
use super::{Hook, Supervisor};
use crate::exit::Exit;
use crate::log::{escape, event};
use crate::policy::{Event, KillMode};
use crate::sys::kernel::Kernel;
use crate::sys::proc;
use crate::sys::spawn::Spawn;
use crate::sys::waitid::Ended;

impl<K: Kernel> Supervisor<'_, K> {
    /// Whether this is the hook that runs.
    pub(super) fn is_hook(&self, pid: i32) -> bool {
        self.hook
            .as_ref()
            .is_some_and(|hook| hook.child.pid() == pid)
    }

    /// Starts a hook. One that cannot be started is logged, and has exited.
    pub(super) fn run_hook(&mut self, number: usize) {
        let name = self.history.hook(number);
        let command = self.config.pre_stop[number].to_string_lossy().into_owned();
        let args = ["-c".into(), self.config.pre_stop[number].clone()];
        let left = self.machine.grace_left(self.tree.kernel.clock());
        // After the child's exit, with --wait-tree, its number may be another process's. The hook is
        // in the child's PID namespace.
        let child = self
            .tree
            .has_child()
            .then(|| proc::own_number(self.child.pid()).to_string());
        let mut variables = vec![
            ("BOWOUT_CHILD_PID", child.map(OsString::from)),
            (
                "BOWOUT_SIGNAL",
                Some(self.machine.begun_by().to_string().into()),
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
            directory: self.outputs.directory.as_deref(),
            to_stderr: true,
            own_group: true,
            die_with_us: true,
        };
        match self.tree.kernel.spawn(&spawn, || ()) {
            Ok(child) => {
                let pid = child.pid();
                self.tree.spare(pid);
                event!(Level::Info, "hook_started", hook = command, hook_pid = pid;
                    "running pre-stop hook {name} (pid {pid})");
                self.hook = Some(Hook {
                    number,
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

    /// SIGKILL to the hook that runs, and to its process group.
    pub(super) fn end_hook(&mut self) {
        if let Some(hook) = &mut self.hook {
            hook.killed = true;
            self.tree.kill_hook();
        }
    }

    /// The hook that ran has exited.
    pub(super) fn hook_exited(&mut self, ended: Ended) {
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
            (Some(Err(error)), _) => {
                let error = escape(&error.to_string()).into_owned();
                (
                    Level::Warn,
                    format!("cannot run pre-stop hook {name}: {error}; going on without it"),
                )
            }
            (_, Exit::Code(0)) => (Level::Debug, format!("pre-stop hook {name} has exited")),
            (_, exit) if killed => (Level::Debug, format!("pre-stop hook {name} {exit}")),
            (_, exit) => (
                Level::Warn,
                format!("pre-stop hook {name} {exit}; going on"),
            ),
        };
        let (code, signal) = (ended.exit.code(), ended.exit.signal());
        event!(level, "hook_exited", hook = name.as_str(), hook_pid = ended.pid, exit_code = code, exit_signal = signal; "{message}");
        if self.config.policy.kill_mode == KillMode::Process {
            // No drain follows that would end what the hook leaves. The number stays its group's
            // until it is reaped.
            self.tree.kill_hook();
        }
        self.tree.reap(ended.pid);
        self.step(Event::HookExited, None);
    }
}

/// Where bowout was started, for the hooks; `None` without any.
pub(super) fn directory(hooks: &[OsString]) -> Option<PathBuf> {
    if hooks.is_empty() {
        None
    } else {
        std::env::current_dir().ok()
    }
}
