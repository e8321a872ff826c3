//! bowout in real containers: runc and podman, a real nginx, a real redis-server.
//!
//! As root, on a machine with runc, podman, busybox-static, nginx-light and redis-server: `cargo
//! test --test containers`. The tests run the static release binary, which they build. They contact
//! no registry: images are made from local files.
#![allow(unsafe_code)]
// The harness reads the clock for its watchdog, and reads pipes in threads.
#![allow(clippy::disallowed_methods)]

#[path = "../common/mod.rs"]
#[allow(unused_imports)]
mod common;

mod bare;
mod engine;
mod kubernetes;
mod oom;
mod places;
mod podman;
mod runc;
mod servers;
mod shared;
mod stop;
mod terminal;
