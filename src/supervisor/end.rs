//! The end: the terminal as it was, the last line, the report and the termination message. A
//! failure here is logged, and does not change how bowout exits.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use log::{Level, log_enabled};

use super::{Outputs, Supervisor, hook, log_line};
use crate::config::{Config, ReportTo};
use crate::error::Error;
use crate::exit::Exit;
use crate::log::{TARGET, escape, event};
use crate::report;
use crate::sys::files::{self, Destination};
use crate::sys::kernel::Kernel;
use crate::sys::readiness::ReadyFile;
use crate::sys::{cgroup, environment, stderr, this_process};

impl Outputs {
    /// Opens the files that the user named; with `--replace-on`, after those of an instance
    /// `before`.
    ///
    /// # Errors
    /// One that cannot be opened (125).
    pub(super) fn open(config: &Config, before: Option<&Self>) -> Result<Self, Error> {
        let ready_file = config.ready_file.as_ref().map(|path| {
            ReadyFile::open(path, before.is_some()).map_err(|error| {
                let name = escape(&path.to_string_lossy()).into_owned();
                Error::own(format!("cannot use '{name}' as --ready-file: {error}"))
            })
        });
        let report = config.report.as_ref().map(|to| {
            let opened = match to {
                ReportTo::File(path) => Destination::file(path),
                ReportTo::Descriptor(fd) => Destination::descriptor(*fd),
            };
            let is_file = matches!(to, ReportTo::File(_));
            opened.map_err(|error| {
                let hint = match error.kind() {
                    io::ErrorKind::InvalidInput if is_file => "; for a descriptor write fd:N",
                    _ => "",
                };
                Error::own(format!(
                    "cannot report to {}: {error}{hint}",
                    report_name(to)
                ))
            })
        });
        let termination_log = config.termination_log.as_ref().map(|path| {
            let name = path.to_string_lossy();
            files::termination_log(path).map_err(|error| {
                Error::own(format!(
                    "cannot write termination message to '{}': {error}",
                    escape(&name)
                ))
            })
        });
        Ok(Self {
            ready_file: ready_file.transpose()?,
            oom_kills: None,
            report: report.transpose()?,
            termination_log: termination_log.transpose()?.flatten(),
            directory: hook::directory(config),
        })
    }

    /// Notes the number of OOM kills before the run, if a report is to be written, or if bowout is
    /// the main process of a unit: other processes of the unit may have been killed before.
    pub(super) fn note_oom_kills(&mut self) {
        if self.report.is_some()
            || self.termination_log.is_some()
            || environment::is_main_process(false)
        {
            self.oom_kills = cgroup::memory().map(|memory| memory.kills);
        }
    }

    /// Writes the report of a start that failed. An error of that changes nothing.
    #[cold]
    pub(super) fn write_failure(&self, config: &Config, failure: &Error) {
        if let Some(report) = &self.report {
            let command = [&config.command].into_iter().chain(&config.args);
            let _ = report.write(&report::failure(command, failure));
        }
    }

    /// The descriptors that must stay open.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let report = self.report.iter().flat_map(Destination::descriptors);
        report
            .chain(self.termination_log.as_ref().map(AsFd::as_fd))
            .chain(self.ready_file.as_ref().map(ReadyFile::descriptor))
    }
}

fn report_name(to: &ReportTo) -> String {
    match to {
        ReportTo::File(path) => format!("'{}'", escape(&path.to_string_lossy())),
        ReportTo::Descriptor(fd) => format!("fd:{fd}"),
    }
}

impl<K: Kernel> Supervisor<'_, K> {
    /// Settles everything; returns how bowout exits.
    #[cold]
    pub(super) fn end(&mut self, exit: Exit) -> Exit {
        if let Some(relay) = &mut self.relay {
            relay.finish();
            self.dropped.log(relay, self.now, true);
            // bowout may have waited for the manager meanwhile.
            let late = self.tree.kernel.signals(&self.intake);
            self.signals(&late.signals, true);
        }
        if let Some(terminal) = &self.terminal {
            terminal.restore(!matches!(self.machine.ended(), Some(Exit::Code(_))));
        }
        let exit = match &self.failure {
            Some(failure) => failure.exit(),
            None => self.config.exit_rules.apply(exit, this_process::is_pid1()),
        };
        if self.refused_more > 0 {
            let count = self.refused_more;
            event!(Level::Warn, "signals_refused", count = count; "{count} more signals were refused and not logged");
        }
        self.write_termination_message();
        self.write_report(exit);
        let now = self.now;
        self.run_post_stop();
        // A routine run does not format the line that it does not log.
        if self.failure.is_none() && log_enabled!(target: TARGET, self.history.end_level()) {
            log_line(&self.history.end(now, exit));
        }
        exit
    }

    fn write_termination_message(&self) {
        let to = self
            .outputs
            .termination_log
            .as_ref()
            .zip(self.config.termination_log.as_ref());
        let Some((file, path)) = to else { return };
        let message = match &self.failure {
            Some(failure) => failure.to_string(),
            None => self.history.termination_message(self.now),
        };
        if let Err(error) = files::write_termination_message(file, &message) {
            let name = path.to_string_lossy();
            event!(Level::Warn, "termination_log_failed", path = &*name, error = error.to_string();
                "cannot write termination message to '{}': {error}", escape(&name));
        }
    }

    fn write_report(&self, exit: Exit) {
        let Some((report, to)) = self
            .outputs
            .report
            .as_ref()
            .zip(self.config.report.as_ref())
        else {
            return;
        };
        let failure = self.failure.as_ref().map(ToString::to_string);
        let text = self
            .history
            .report(self.now, exit, failure.as_deref(), stderr::lost());
        if let Err(error) = report.write(&text) {
            let name = report_name(to);
            event!(Level::Warn, "report_failed", error = error.to_string(); "cannot write report to {name}: {error}");
        }
    }
}
