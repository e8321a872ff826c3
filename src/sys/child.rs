//! A process that bowout started, from its fork to the result of its exec. Signals, looks and
//! reaping are [`Tree`](super::tree::Tree)'s.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::refusal::ExecError;
use super::wait;

/// A process that was spawned.
#[derive(Debug)]
pub(crate) struct Child {
    pid: libc::pid_t,
    /// The child writes to it why it could not run the command; a successful exec closes it.
    exec: Option<OwnedFd>,
    /// The pipe at which the child waits before its exec: both ends, so that writing to it raises
    /// no SIGPIPE.
    gate: Option<(OwnedFd, OwnedFd)>,
}

impl Child {
    /// A child that was forked a moment ago, the read end of its pipe, and its gate if it is held.
    pub(super) fn new(pid: libc::pid_t, exec: OwnedFd, gate: Option<(OwnedFd, OwnedFd)>) -> Self {
        let exec = Some(exec);
        Self { pid, exec, gate }
    }

    /// A process that another one started.
    pub(crate) fn adopted(pid: libc::pid_t) -> Self {
        let (exec, gate) = (None, None);
        Self { pid, exec, gate }
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

    /// Readable when the exec has succeeded or failed.
    pub(crate) fn exec_pending(&self) -> Option<BorrowedFd<'_>> {
        self.exec.as_ref().map(AsFd::as_fd)
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
