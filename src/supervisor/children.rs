//! Children: their exits, stops, and reaping.

use log::{Level, log_enabled};

use super::{AT_ONCE, Supervisor, ToGuard};
use crate::exit::OomKills;
use crate::log::{self as lines, event};
use crate::policy::{Event, Phase};
use crate::signal::Signal;
use crate::sys::kernel::Kernel;
use crate::sys::waitid::{Ask, Ended, Report};
use crate::sys::{cgroup, this_process, tty};

impl<K: Kernel> Supervisor<'_, K> {
    /// Reaps each process that has exited, then checks whether the child was stopped, and whether
    /// any process is left.
    pub(super) fn children(&mut self) {
        self.more = false;
        let mut orphans = false;
        for _ in 0..AT_ONCE {
            match self.tree.peek() {
                Report::Exited(ended) if self.tree.is_child(ended.pid) => {
                    self.child_exited(ended);
                    // Its children are bowout's now; /proc may have hidden them before.
                    orphans = true;
                }
                Report::Exited(ended) if self.is_hook(ended.pid) => self.hook_exited(ended),
                Report::Exited(ended) => {
                    orphans = true;
                    self.orphan_exited(ended);
                }
                // A traced process runs again, and its next report comes with a SIGCHLD of its own.
                Report::Released => {}
                Report::Nothing | Report::Stopped(_) | Report::Continued => {
                    self.child_changed();
                    if orphans {
                        self.step(Event::Reaped, None);
                    }
                    return self.none_left();
                }
                Report::NoChild => return self.step(Event::NoneLeft { hook: false }, None),
            }
        }
        self.more = true;
    }

    fn child_exited(&mut self, ended: Ended) {
        // It may have exited since this turn read the clock: the drain must not begin in the past.
        self.now = self.tree.kernel.clock();
        // The result of its exec is in the pipe by now.
        self.exec_result();
        if ended.core {
            self.history.dumped_core();
        }
        self.part.send(ToGuard::Ended(ended.exit));
        self.step(Event::ChildExited(ended.exit), None);
        // Until it is reaped, its name can be read. A routine run names nothing.
        if log_enabled!(target: lines::TARGET, self.history.end_level())
            && let Some(child) = self.tree.kernel.stat(ended.pid)
        {
            self.history.child_is_called(&child.name);
        }
        self.look_for_oom();
        let usage = self.tree.reap(ended.pid);
        self.history.used(usage);
    }

    /// Where the child died of a SIGKILL that bowout did not send, the kernel's OOM killer may have
    /// sent it. Without a number from the start, only a container's counter is conclusive: it began
    /// with the container.
    #[cold]
    fn look_for_oom(&mut self) {
        let before = match self.outputs.oom_kills {
            None if !this_process::is_pid1() => return,
            before => before,
        };
        if !self.history.killed_by_another() {
            return;
        }
        let Some(memory) = cgroup::memory() else {
            return;
        };
        let count = memory.kills.saturating_sub(before.unwrap_or(0));
        if count > 0 {
            self.history.oom_killed(OomKills {
                count,
                during_run: before.is_some(),
                limit: memory.limit,
            });
        }
    }

    fn orphan_exited(&mut self, Ended { pid, exit, .. }: Ended) {
        self.tree.reap(pid);
        self.history.reaped_orphan();
        let level = if self.config.warn_on_reap {
            Level::Warn
        } else {
            Level::Debug
        };
        event!(level, "orphan_reaped", orphan_pid = pid, exit_code = exit.code(), exit_signal = exit.signal();
            "reaped orphan pid {pid}, which {exit}");
    }

    fn child_changed(&mut self) {
        // A continuation needs no event: nothing waits for it.
        let Report::Stopped(signal) = self.tree.look(Ask::Change) else {
            return;
        };
        let terminal = self.terminal.as_ref();
        let group = self.tree.child_group();
        let reads = signal == Signal::TTIN || signal == Signal::TTOU;
        let lends = terminal
            .zip(group)
            .is_some_and(|(terminal, group)| terminal.can_lend(group));
        let event = Event::ChildStopped {
            signal,
            wants_terminal: reads && lends,
            watched: terminal.is_some() && tty::is_watched(),
            shared_group: group == Some(tty::own_group()),
        };
        self.step(event, None);
    }

    /// Steps `NoneLeft` if only bystanders remain, which are not waited for; or if, with
    /// `--wait-tree`, only the hook remains.
    fn none_left(&mut self) {
        let hook = self.hook.is_some();
        let prepares = matches!(self.machine.phase(), Phase::Preparing { .. });
        let waits = if hook {
            prepares
        } else {
            self.tree.has_bystanders()
        };
        if waits && !self.tree.has_child() && self.tree.is_empty() {
            self.step(Event::NoneLeft { hook }, None);
        }
    }
}
