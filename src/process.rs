//! A process, as the log and the report name it.

use std::time::Duration;

/// How many processes are named of those that one signal reached, and of those that were killed: a
/// storm must not fill the memory.
pub(crate) const NAMED: usize = 256;

/// The values in /proc of a process before it was sent a signal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamedProcess {
    pub(crate) pid: i32,
    /// Up to 15 bytes that the process chose itself; `?` where /proc hides the process.
    pub(crate) name: String,
    /// Its letter in /proc/PID/stat (proc_pid_stat(5)); `?` where /proc hides the process.
    pub(crate) state: char,
    /// The kernel function in which a process in state D waits (proc_pid_wchan(5)).
    pub(crate) waits_in: Option<String>,
    /// How long ago it was started.
    pub(crate) age: Option<Duration>,
}
