//! Storms: more of everything than a supervisor meets, each moment at which a stop request can
//! come, and the least that it can live on.
//!
//! `cargo test --test storms` is the quick part, `BOWOUT_LONG=1 cargo test --test storms` the
//! whole. As root; what needs a facility that is not there (FUSE, a cgroup, PID namespaces) is
//! skipped with the reason. `--nocapture` shows how often each thing was met. The results of the
//! last long run are in tests/RESULTS.md.
#![allow(unsafe_code)]
// The watchdogs and the offsets of the sweeps read the clock; a FUSE server is a thread.
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
