//! Hostile neighbours: a command, or another process of the same user, that works against bowout.
//! `tests/probe/hostile.rs` has these acts.
//!
//! Limits of the defence, because the kernel gives a process to every other process of its user:
//!
//! - A process that has bowout's uid (or the capability) may send it SIGKILL, or SIGSTOP without a
//!   SIGCONT. It may trace bowout, change its memory and take its descriptors (pidfd_getfd(2)). It
//!   may take its memory away (`RLIMIT_AS`, `RLIMIT_CPU`, oom_score_adj) or its processor
//!   (sched_setscheduler(2), a frozen cgroup). After SIGKILL the child dies as well
//!   (`PR_SET_PDEATHSIG`, unless it took that back); its descendants do not. PID 1 of a namespace
//!   is safe from SIGKILL and SIGSTOP of its own descendants, and from nothing else of this list.
//! - A sender can forge its identity if it queues the signal (rt_sigqueueinfo(2)) or has the kernel
//!   send it (`F_SETSIG`). It gains no more by this than by kill(2): a stop a little earlier.
//! - A descendant that traces the child keeps the child's end from bowout until the tracer has
//!   ended.
//! - bowout believes a sender of sd_notify messages that has ended before bowout looks it up, if it
//!   was of our user; root may send as any process.
//! - A process that may mount where bowout sees it can hide others: it mounts over their files in
//!   /proc. Without a /proc when bowout starts, it can mount a file system there that hangs.
//! - The owner of the report's folder may move or delete the folder, and so the report.

mod files;
mod hidden;
mod judged;
mod log;
mod relay;
mod stop;
mod traced;

use crate::common::{Running, Start};

const TERM: i32 = libc::SIGTERM;
const KILL: i32 = libc::SIGKILL;
const USR1: i32 = libc::SIGUSR1;
const USR2: i32 = libc::SIGUSR2;

/// The command performs these acts; after `--` it reports signals.
fn hostile(start: Start, acts: &[&str]) -> Running {
    start.probe(["hostile"].iter().chain(acts))
}

/// Waits for the probes of these names.
fn all_ready(bowout: &mut Running, names: &[&str]) {
    for name in names {
        bowout.ready_as(name);
    }
}
