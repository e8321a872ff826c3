//! The kernel's side: the only place that may say `unsafe`, nix or libc (and signal_hook for what
//! is done, not named).
//!
//! Does what it is told and reports what happened; decides nothing and never imports the policy.
//! Every wrapper's documentation names the call and its page.

#![allow(unsafe_code)]

mod attributes;
pub(crate) mod child;
pub(crate) mod end;
mod entry;
pub(crate) mod environment;
pub(crate) mod files;
pub(crate) mod notify;
mod output;
mod refusal;
pub(crate) mod signals;
pub(crate) mod spawn;
pub(crate) mod stderr;
pub(crate) mod this_process;
pub(crate) mod tree;
pub(crate) mod tty;
pub(crate) mod wait;
