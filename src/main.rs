//! bowout runs one command and makes it end well: it hands it every signal, gives it a bounded time
//! to end when asked to, kills what does not, leaves nothing behind, and ends exactly as the
//! command did.
//!
//! The map, in reading order:
//!
//! - `main`: parse → configure → supervise → end; `sys::entry` comes before it.
//! - [`policy`]: what happens next; the pure machine that decides. [`sender`] tells it who sent a
//!   signal.
//! - [`supervisor`]: the loop that joins policy and kernel: wait → gather → step → perform.
//! - [`sys`]: the kernel's side: `sys::exec` starts, `sys::child` signals and reaps, `sys::signals`
//!   receives, `sys::tree` finds descendants.
//! - [`cli`] and [`config`]: what was typed, and what it means together. [`signal`], [`exit`]:
//!   numbers and names; [`suggest`]: the name that was probably meant.
//! - [`report`] and [`log`]: what the log says, and how.
//!
//! Arrows: `policy` knows only `signal`, `exit` and `origin`; `sys` never imports `policy`; nothing
//! but `sys` says `unsafe`.

// What was inherited has to be seen before Rust's runtime changes it: see sys::entry.
#![cfg_attr(not(test), no_main)]

mod cli;
mod config;
mod error;
mod exit;
#[cfg(test)]
#[path = "../tests/fuzz/mod.rs"]
mod fuzz;
mod log;
mod policy;
mod report;
mod sender;
mod signal;
mod suggest;
mod supervisor;
mod sys;

use std::ffi::OsString;
use std::io::IsTerminal;

use crate::log::event;
use ::log::Level;
use cli::Stop;
use config::{Config, Home, Place};
use error::Error;
use exit::Exit;
use sys::signals::Inherited;

/// The program: the words it was called with, and what it inherited, to the way in which it ends.
fn run(args: &[OsString], inherited: &Inherited) -> Exit {
    let mut cli = match cli::parse(args, sys::environment::variables(|byte| byte == b'B')) {
        Ok(cli) => cli,
        Err(stop) => return end(stop, args),
    };
    let misspelt = cli.misspelt.take();
    match log::init(cli.verbosity, cli.log_format)
        .inspect(|()| {
            if let Some(text) = misspelt {
                event!(Level::Warn, "unknown_variables"; "{text}");
            }
        })
        .and_then(|()| Config::new(cli, home))
        .and_then(|config| supervisor::supervise(config, inherited))
    {
        Ok(exit) => exit,
        Err(error) => fail(&error),
    }
}

fn home() -> Home {
    let place = Place {
        pid: sys::this_process::id,
        parent: sys::this_process::parent,
        has_terminal: || sys::tty::Terminal::open().is_some(),
    };
    Home::find(sys::environment::variables(Home::may_name), &place)
}

fn end(stop: Stop, args: &[OsString]) -> Exit {
    if !matches!(stop, Stop::Info(_)) {
        // A second error, in BOWOUT_LOG, waits until the first is corrected.
        let _ = log::init(log::Verbosity::default(), cli::log_format(args));
    }
    match stop {
        Stop::Info(text) => sys::this_process::print(&text),
        Stop::Usage(text) => fail(&Error::own(text)),
        Stop::Alone => {
            // Words of our own, and lines of their own.
            let text = Stop::alone(std::io::stderr().is_terminal());
            event!(Level::Error, "error", exit_code = Exit::OWN_FAILURE.number(); "{text}");
            Exit::OWN_FAILURE
        }
    }
}

fn fail(error: &Error) -> Exit {
    // Words of the user's are in it, and what they hold must not look like a line of ours.
    let text = error.to_string();
    event!(Level::Error, "error", exit_code = error.exit().number(); "{}", log::escape(&text));
    error.exit()
}
