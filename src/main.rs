//! bowout runs one command and makes sure it stops cleanly: it forwards every signal, gives the
//! command a bounded time to exit after a stop request, kills each process that still runs then,
//! leaves no process running, and exits exactly as the command did.
//!
//! The map, in reading order:
//!
//! - `main`: parse → configure → supervise → exit; `sys::entry` comes before it.
//! - [`policy`]: the pure machine that decides the next actions. [`sender`]: the side of a signal's
//!   sender.
//! - [`supervisor`]: the loop that joins policy and kernel: wait → gather → step → perform.
//! - [`sys`]: the kernel's side: `sys::spawn` starts, `sys::signals` receives, `sys::tree` finds,
//!   signals and reaps the child and its descendants.
//! - [`cli`] and [`config`]: the options one by one, and together. [`signal`], [`exit`]: numbers
//!   and names; [`suggest`]: the name most similar to a misspelt one.
//! - [`explain`]: `--explain`, which runs the policy against simulated time.
//! - [`report`] and [`log`]: the text of the log, and its form. [`process`]: a process that they
//!   name.
//!
//! Arrows: `policy` knows only `signal`, `exit` and `sender`; `sys` never imports `policy`; only
//! `sys` has `unsafe` code.

// bowout has to read its inherited state before Rust's runtime changes it: see sys::entry.
#![cfg_attr(not(test), no_main)]

mod cli;
mod config;
mod error;
mod exit;
mod explain;
#[cfg(test)]
#[path = "../tests/fuzz/mod.rs"]
mod fuzz;
mod log;
mod policy;
mod process;
mod report;
mod sender;
mod signal;
mod suggest;
mod supervisor;
mod sys;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::time::Duration;

use crate::log::event;
use ::log::Level;
use cli::Stop;
use config::{Config, Draft};
use error::Error;
use exit::Exit;
use sys::signals::Inherited;

/// The program: takes the words of the command line and the inherited state, returns how to exit.
fn run(args: Vec<OsString>, inherited: &Inherited) -> Exit {
    match &mut cli::parse(&args, sys::environment::variables(|byte| byte == b'B')) {
        Ok(draft) => {
            // The memory of the words serves the strings of the supervision.
            drop(args);
            carry_out(draft, inherited).unwrap_or_else(|error| fail(&error))
        }
        Err(stop) => end(stop, &args),
    }
}

/// Runs the command, or prints the plan of a stop.
fn carry_out(draft: &mut Draft, inherited: &Inherited) -> Result<Exit, Error> {
    log::init(draft.verbosity, draft.log_format)?;
    if !draft.misspelt.is_empty() {
        let names = draft.misspelt.join(", ");
        event!(Level::Warn, "unknown_variables"; "ignored unknown variables: {names}");
    }
    let as_json = draft.log_format == log::Format::Json;
    let config = draft.check(default_grace)?;
    if config.explain {
        return Ok(explain_stop(config, inherited, as_json));
    }
    supervisor::supervise(config, inherited)
}

#[cold]
fn explain_stop(config: &Config, inherited: &Inherited, as_json: bool) -> Exit {
    let around = explain::Surroundings {
        place: supervisor::look_around(config.notify, inherited),
        proc: sys::proc::is_ours(),
        cap_kill: sys::proc::may_kill_others(),
        manager: sys::environment::value("NOTIFY_SOCKET").is_some(),
    };
    let now = sys::kernel::Kernel::clock(&sys::kernel::Linux::open());
    sys::this_process::print(&explain::explain(config, around, now, as_json))
}

fn default_grace() -> Duration {
    let kernel = config::Kernel {
        pid: sys::this_process::id,
        parent: sys::this_process::parent,
        has_terminal: || sys::tty::Terminal::open().is_some(),
    };
    config::default_grace(sys::environment::variables(config::names_home), &kernel)
}

fn end(stop: &Stop, args: &[OsString]) -> Exit {
    if !matches!(stop, Stop::Info(_)) {
        // A second error, in BOWOUT_LOG, waits until the first is corrected.
        let _ = log::init(log::Verbosity::default(), cli::log_format(args));
    }
    match stop {
        Stop::Info(text) => sys::this_process::print(text),
        Stop::Usage(text) => fail(&Error::own(text.as_str())),
        Stop::Alone => {
            let text = cli::alone(std::io::stderr().is_terminal());
            event!(Level::Error, "error", exit_code = Exit::OWN_FAILURE.number(); "{text}");
            Exit::OWN_FAILURE
        }
    }
}

fn fail(error: &Error) -> Exit {
    // The text quotes the user's words, which must not look like a line of bowout's.
    let text = error.to_string();
    event!(Level::Error, "error", exit_code = error.exit().number(); "{}", log::escape(&text));
    error.exit()
}
