//! A process that bowout started, from its fork to the result of its exec. Signals, looks and
//! reaping are [`Tree`](super::tree::Tree)'s.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::refusal::ExecError;
use super::{readiness, wait};

/// A process that was spawned.
#[derive(Debug, Default)]
pub(crate) struct Child {
    pub(super) pid: libc::pid_t,
    /// The child writes to it why it could not run the command; a successful exec closes it.
    pub(super) exec: Option<OwnedFd>,
    /// The pipe at which the child waits before its exec: both ends, so that writing to it raises
    /// no SIGPIPE.
    pub(super) gate: Option<(OwnedFd, OwnedFd)>,
    /// The child reports on it that it is ready (`--ready fd:N`).
    pub(super) ready: Option<OwnedFd>,
}

impl Child {
    /// A process that another one started.
    pub(crate) fn adopted(pid: libc::pid_t) -> Self {
        Self {
            pid,
            ..Self::default()
        }
    }

    /// Lets a held child go on to its exec.
    pub(crate) fn let_go(&mut self) {
        if let Some((_gate, hold)) = self.gate.take() {
            // A pipe that is new has room.
            let _ = nix::unistd::write(hold, &[0]);
        }
    }

    /// Its PID. Only a name for the log once it is reaped.
    pub(crate) fn pid(&self) -> libc::pid_t {
        self.pid
    }

    /// Readable when the exec has succeeded or failed, and when the child reports that it is ready.
    pub(crate) fn readable(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.exec.iter().chain(&self.ready).map(AsFd::as_fd)
    }

    /// True if it has reported that it is ready, the first time.
    pub(crate) fn reports_ready(&mut self) -> bool {
        readiness::is_reported(&mut self.ready)
    }

    /// The result of the exec, if it is there and was not returned before.
    pub(crate) fn exec_result(&mut self) -> Option<Result<(), ExecError>> {
        let pipe = self.exec.as_ref()?;
        // The pipe ends without a report when the exec closes it, or when the child dies before.
        let report = match ExecError::receive(|message| nix::unistd::read(pipe, message)) {
            Ok(report) => report,
            Err(error) => {
                wait::failed("read", error);
                return None;
            }
        };
        self.exec = None;
        Some(report.map_or(Ok(()), Err))
    }
}
