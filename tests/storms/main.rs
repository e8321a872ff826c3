//! Storms: more of everything than a supervisor meets, a stop request at each possible moment, and
//! the smallest resources that are enough.
//!
//! `cargo test --test storms` is the quick part, `BOWOUT_LONG=1 cargo test --test storms` the
//! whole. It needs root. A test is skipped with the reason where a facility is missing (FUSE, a
//! cgroup, PID namespaces). `--nocapture` shows how often each case was met. The results of the
//! last long run are in tests/RESULTS.md.
#![allow(unsafe_code)]
// The watchdogs and the offsets of the sweeps read the clock; a FUSE server runs in a thread.
#![allow(clippy::disallowed_methods)]

#[path = "../common/mod.rs"]
#[allow(unused_imports)]
mod common;

mod bare;
mod cgroup;
mod forks;
mod freeze;
mod fuse;
mod hang;
mod kills;
mod limits;
mod signals;
mod steps;
mod sweep;
mod user;
