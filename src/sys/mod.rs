//! The kernel's side: the only place that may use `unsafe`, nix or libc.
//!
//! Makes system calls and returns their results; decides nothing and never imports the policy. The
//! documentation of each wrapper names the system call and its manual page.

#![allow(unsafe_code)]

mod attributes;
pub(crate) mod cgroup;
pub(crate) mod child;
pub(crate) mod end;
mod entry;
pub(crate) mod environment;
pub(crate) mod files;
pub(crate) mod kernel;
pub(crate) mod notify;
mod output;
pub(crate) mod proc;
pub(crate) mod readiness;
mod refusal;
pub(crate) mod signals;
pub(crate) mod spawn;
pub(crate) mod stderr;
pub(crate) mod stdin;
pub(crate) mod this_process;
pub(crate) mod tree;
pub(crate) mod tty;
pub(crate) mod wait;
pub(crate) mod waitid;
