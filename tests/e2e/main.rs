//! End-to-end tests: each one is named for the promise that it guards, waits for facts, and leaves
//! no process running. `E2E_WATCHDOG` is the limit, in seconds, for any one fact; with `CI=true` a
//! skipped test fails.
#![allow(unsafe_code)]
#![allow(clippy::disallowed_methods)]

#[path = "../common/mod.rs"]
mod common;

mod arrows;
mod cli;
mod documents;
mod drain;
mod exit;
mod explain;
mod faults;
mod fidelity;
mod first_screen;
mod guard;
mod home;
mod hooks;
mod hostile;
mod idle;
mod interactive;
mod ledger;
mod log;
mod machine;
mod modes;
mod namespace;
mod notify;
mod pid1;
mod pid_variables;
mod prepare;
mod refused;
mod regressions;
mod report;
mod search;
mod service;
mod signals;
mod source;
mod spawn;
mod stop;
mod switch;
mod terminal;
mod tour;
mod unsafety;
mod words;
