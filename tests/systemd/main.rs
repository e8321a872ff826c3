//! bowout under a real systemd, booted in a container.
//!
//! As root, on a machine with debootstrap, systemd-nspawn and nsenter (Debian: debootstrap,
//! systemd-container, util-linux): `cargo test --test systemd`. The root file system is built once,
//! with Debian's own packages. It is kept in `/var/cache/bowout-systemd-root`, or in the directory
//! that `BOWOUT_SYSTEMD_ROOT` names. The tests run the static release binary, which they build.
//! Each test prints its observations, because the figures are worth reading.
#![allow(unsafe_code)]
// The harness reads the clock for its watchdog, and reads pipes in threads.
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
