//! `--replace-on`: the guard starts a second supervisor with the same command. Once its instance is
//! ready, the first one is asked to stop. Where it exits before, the first one serves on.

use std::time::Duration;

use log::Level;

use super::{Part, Supervisor};
use crate::log::event;
use crate::signal::Signal;
use crate::sys::kernel::Kernel;
use crate::sys::signals;
use crate::sys::this_process;
use crate::sys::waitid::Ended;

/// Without `--ready`: how long an instance has to live to count as ready.
const ALIVE: Duration = Duration::from_secs(1);

impl<K: Kernel> Supervisor<'_, K> {
    /// Starts another instance. In its supervisor, returns its part.
    #[cold]
    pub(super) fn replace(&mut self, signal: Signal) -> Option<Part> {
        let replacing = &self.replacing;
        let busy = if replacing.is_stopping || replacing.outcome.is_some() {
            Some("stopped")
        } else {
            replacing.next.as_ref().map(|_| "replaced")
        };
        if let Some(how) = busy {
            event!(Level::Warn, "replace_dropped"; "dropped {signal}: the command is being {how} already");
            return None;
        }
        if let Some(relay) = &mut self.relay {
            relay.notify_reloading();
        }
        match Part::fork_another(self.relay.as_ref()) {
            Ok(Err(part)) => return Some(part),
            Ok(Ok(mut next)) => {
                let counts = self.config.ready.is_none();
                next.until = counts.then(|| self.now + ALIVE);
                event!(Level::Info, "replacing", supervisor_pid = next.supervisor;
                    "received {signal}: starting a new instance below pid {}", next.supervisor);
                self.replacing.next = Some(next);
            }
            Err(error) => self.serve_on(&format!("cannot start a new instance: {error}")),
        }
        None
    }

    /// Asks the first instance to stop once the second one is ready.
    #[cold]
    pub(super) fn hand_over(&mut self) {
        let Some(next) = self.replacing.next.as_mut().filter(|next| !next.serves) else {
            return;
        };
        next.link.take(&mut next.sent);
        let is_over = next.until.is_some_and(|until| until <= self.now);
        if is_over && next.sent.child.is_none() {
            // Its command is not even started.
            next.until = Some(self.now + ALIVE);
            return;
        }
        if !next.sent.is_ready && !is_over {
            return;
        }
        next.serves = true;
        event!(Level::Info, "replaced", supervisor_pid = next.supervisor;
            "the new instance below pid {} is ready: stopping the old one below pid {}", next.supervisor, self.child.pid());
        if let Part::Guard(first) = &self.part {
            first.link.retire();
        }
        if let Some(relay) = &mut self.relay {
            relay.notify("READY=1");
        }
    }

    /// The second supervisor has exited.
    #[cold]
    pub(super) fn next_exited(&mut self, ended: Ended) {
        let Some(mut next) = self.replacing.next.take() else {
            return;
        };
        let exit = next.exit(ended.exit);
        self.replacing.strays |= exit.is_none();
        let exit = exit.unwrap_or(ended.exit);
        self.tree.reap(ended.pid);
        if next.serves {
            // The first one is being stopped.
            self.replacing.outcome = Some(exit);
        } else {
            self.serve_on(&format!("the new instance {exit} before it was ready"));
        }
    }

    /// SIGKILL to the tree of a supervisor that was killed: its processes have become the guard's
    /// own children, one generation after the other. Each that exits makes its children the
    /// guard's.
    #[cold]
    pub(super) fn kill_strays(&self) {
        let supervisors: Vec<_> = self.supervisors().collect();
        let own = self.tree.kernel.children(this_process::id(), 1);
        let is_stray = |pid: &i32| !supervisors.contains(pid) && !self.tree.is_bystander(*pid);
        for pid in own.unwrap_or_default().into_iter().filter(is_stray) {
            // It can have exited meanwhile, and its number is its own until it is reaped.
            let _ = signals::send(pid, Signal::KILL, None);
        }
    }

    /// The replacement failed.
    #[cold]
    fn serve_on(&mut self, why: &str) {
        let pid = self.child.pid();
        event!(Level::Warn, "replace_failed"; "{why}; the old one below pid {pid} serves on");
        if let Some(relay) = &mut self.relay {
            relay.notify("READY=1");
        }
    }
}
