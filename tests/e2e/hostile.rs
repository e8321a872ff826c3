//! Hostile neighbours: a command, or another process of the same user, that works against bowout.
//! `tests/probe/hostile.rs` does it.
//!
//! What cannot be defended, for the kernel gives a process to all of its user:
//!
//! - A process that has bowout's uid (or the capability) may send it SIGKILL, may send it SIGSTOP
//!   and not SIGCONT, may trace it, change its memory and take its descriptors (pidfd_getfd(2)),
//!   may take its memory away (`RLIMIT_AS`, `RLIMIT_CPU`, oom_score_adj) or its processor
//!   (sched_setscheduler(2), a frozen cgroup). After SIGKILL the child dies as well
//!   (`PR_SET_PDEATHSIG`, unless it took that back), its descendants do not. PID 1 of a namespace
//!   is safe from SIGKILL and SIGSTOP of its own descendants, and from nothing else of this list.
//! - The sender of a signal is what the sender says, if it queues it (rt_sigqueueinfo(2)) or has
//!   the kernel send it (`F_SETSIG`). No process reaches more by it than by kill(2): a stop a
//!   little earlier.
//! - A descendant that traces the child holds its end back from bowout until the tracer has ended.
//! - A sender of sd_notify messages that has ended before bowout looks is believed, if it was of
//!   our user; root may send in anybody's name.
//! - A process that may mount where bowout sees it can hide others: it mounts over the files that
//!   /proc has for them. Where there is no /proc when bowout starts, it can mount there what hangs.
//! - The owner of the report's folder may put the folder, and so the report, elsewhere, or delete
//!   it.

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

/// The command does these acts, and after `--` reports signals.
fn hostile(start: Start, acts: &[&str]) -> Running {
    start.probe(["hostile"].iter().chain(acts))
}

/// Waits for the probes of these names.
fn all_ready(bowout: &mut Running, names: &[&str]) {
    for name in names {
        bowout.ready_as(name);
    }
}
