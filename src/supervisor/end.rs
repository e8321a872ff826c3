//! The end: the terminal as it was, the last line, the report and the termination message. Whatever
//! fails here is told, and changes nothing of how bowout ends.

use ::log::{Level, log_enabled};

use super::{Supervisor, log_line};
use crate::config::ReportTo;
use crate::exit::Exit;
use crate::log::{TARGET, escape, event};
use crate::sys::{files, stderr, this_process};

impl Supervisor<'_> {
    /// Settles everything; gives what bowout ends with.
    #[cold]
    pub(super) fn end(&mut self, exit: Exit) -> Exit {
        if let Some(relay) = &mut self.relay {
            relay.finish();
            self.dropped.log(relay, self.now, true);
            // It may have waited for the manager.
            let late = self.intake.read();
            self.signals(late.signals, true);
        }
        if let Some(terminal) = &self.terminal {
            terminal.restore(!matches!(self.history.ended(), Some(Exit::Code(_))));
        }
        let exit = match &self.failure {
            Some(failure) => failure.exit(),
            None => self.config.exit_rules.apply(exit, this_process::is_pid1()),
        };
        if self.refused_more > 0 {
            let count = self.refused_more;
            event!(Level::Warn, "signals_refused", count = count; "{count} more signals were refused and not logged");
        }
        if self.failure.is_none() {
            // A routine run does not make the line that it does not log.
            if log_enabled!(target: TARGET, self.history.end_level()) {
                log_line(&self.history.end(self.now, exit));
            }
        }
        if let Some((file, path)) = self
            .termination_log
            .as_ref()
            .zip(self.config.termination_log.as_ref())
        {
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
        if let Some(report) = &self.report {
            let failure = self.failure.as_ref().map(ToString::to_string);
            let text = self
                .history
                .report(self.now, exit, failure.as_deref(), stderr::lost());
            if let Err(error) = report.write(&text) {
                let to = match &self.config.report {
                    Some(ReportTo::File(path)) => {
                        format!(" to '{}'", escape(&path.to_string_lossy()))
                    }
                    Some(ReportTo::Descriptor(_)) | None => String::new(),
                };
                event!(Level::Warn, "report_failed", error = error.to_string(); "cannot write report{to}: {error}");
            }
        }
        exit
    }
}
