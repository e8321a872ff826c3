//! Services: readiness and the watchdog.

use log::Level;

use super::{Supervisor, ToGuard};
use crate::config::ReadyBy;
use crate::log::event;
use crate::policy::{Event, Phase};
use crate::sys::kernel::Kernel;
use crate::sys::notify::Said;

impl<K: Kernel> Supervisor<'_, K> {
    /// Reads the descriptor of `--ready`.
    pub(super) fn read_readiness(&mut self) {
        if self.child.reports_ready() {
            self.step(Event::Ready, None);
        }
    }

    /// The command's own state in its messages.
    pub(super) fn note_said(&mut self, said: Said) {
        if said.ready && self.config.ready == Some(ReadyBy::Notify) {
            self.step(Event::Ready, None);
        } else if (said.ready || said.alive) && self.config.policy.watchdog.is_some() {
            self.step(Event::Alive, None);
        }
    }

    /// The command is ready: makes the file, and notifies the manager where the command wrote to a
    /// descriptor.
    #[cold]
    pub(super) fn announce_ready(&mut self) {
        if self.machine.phase() != Phase::Running {
            return;
        }
        self.part.send(ToGuard::Ready);
        if let Some(file) = &self.outputs.ready_file {
            match file.make() {
                Ok(()) => self.ready_file_is_made = true,
                Err(error) => {
                    event!(Level::Warn, "ready_file_failed", error = error.to_string();
                        "cannot make the file of --ready-file: {error}");
                }
            }
        }
        if let (Some(ReadyBy::Descriptor(_)), Some(relay)) = (self.config.ready, &mut self.relay) {
            relay.notify("READY=1");
        }
    }

    /// Removes the file of `--ready-file` once the stop has begun or the command has exited.
    pub(super) fn remove_ready_file(&mut self) {
        let over = self.machine.phase() != Phase::Running || self.machine.ended().is_some();
        if self.ready_file_is_made && over {
            self.ready_file_is_made = false;
            if let Some(file) = &self.outputs.ready_file {
                file.remove();
            }
        }
    }
}
