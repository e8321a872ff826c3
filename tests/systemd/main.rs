//! bowout under a real systemd, booted in a container.
//!
//! As root, on a machine with debootstrap, systemd-nspawn and nsenter (Debian: debootstrap,
//! systemd-container, util-linux): `cargo test --test systemd`. The root file system is built once,
//! with Debian's own packages, and kept in `/var/cache/bowout-systemd-root`, or where
//! `BOWOUT_SYSTEMD_ROOT` says. It tests the static release binary, which it builds. What each test
//! has seen is printed, for the figures are worth reading.
#![allow(unsafe_code)]
// The harness has to read the clock for its watchdog, and pipes in threads.
#![allow(clippy::disallowed_methods)]

#[path = "../common/mod.rs"]
#[allow(unused_imports)]
mod common;

mod machine;
mod unit;

mod activation;
mod endings;
mod journal;
mod notify;
mod packaging;
mod restart;
mod stop;
mod store;
mod types;
mod watchdog;
