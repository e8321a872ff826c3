//! The environment: as received, and as the child gets it.
//!
//! Some variables name the process that they are meant for by its PID; see [`NAMING`]. Where they
//! name bowout, the child finds them naming the child, as it would without bowout. bowout's own
//! environment never changes.

use std::ffi::{CStr, CString, OsStr, OsString, c_char};
use std::os::unix::ffi::OsStrExt;
use std::ptr;

use nix::sys::stat::fstat;
use nix::unistd::getpid;

use super::this_process::{self, pidfd_open};

unsafe extern "C" {
    /// The environment as received (environ(7)): null, or an array of C strings that ends with a
    /// null pointer. bowout never changes it.
    static environ: *const *const c_char;
}

/// Variables that hold the PID of the process they are meant for (sd_listen_fds(3),
/// sd_watchdog_enabled(3), systemd.exec(5)); the last one, since systemd 259, the inode of a pidfd.
const NAMING: [&str; 4] = ["LISTEN_PID", WATCHDOG_PID, "SYSTEMD_EXEC_PID", BY_PIDFD];
pub(super) const WATCHDOG_PID: &str = "WATCHDOG_PID";
const BY_PIDFD: &str = "LISTEN_PIDFDID";

/// A variable to set in a process that bowout starts; `None` removes it.
pub(crate) type Change = (&'static str, Option<OsString>);

/// The received variables, each `NAME=VALUE`, whose first byte is wanted. Most environments are
/// long: the others cost one comparison each.
pub(crate) fn variables(
    wanted: impl Fn(u8) -> bool + Clone,
) -> impl Iterator<Item = &'static CStr> + Clone {
    // SAFETY: see `environ`. `map_while` stops at the null pointer.
    let all = (0..).map_while(|at| unsafe {
        (!environ.is_null())
            .then(|| *environ.add(at))
            .filter(|variable| !variable.is_null())
    });
    // SAFETY: as above.
    all.filter(move |&variable| wanted(unsafe { *variable } as u8))
        // SAFETY: as above.
        .map(|variable| unsafe { CStr::from_ptr(variable) })
}

/// The value of a variable; of the first one if several have this name (getenv(3)).
pub(crate) fn value(name: &str) -> Option<&'static OsStr> {
    let first = name.as_bytes()[0];
    variables(move |byte| byte == first).find_map(|variable| value_if(variable, name))
}

/// The value of `variable` if this is its name.
fn value_if<'a>(variable: &'a CStr, name: &str) -> Option<&'a OsStr> {
    let rest = variable.to_bytes().strip_prefix(name.as_bytes())?;
    rest.strip_prefix(b"=").map(OsStr::from_bytes)
}

/// True if SYSTEMD_EXEC_PID (since systemd 248) names bowout as the main process of a unit; `unset`
/// without this variable. Processes below the main process inherit it.
pub(crate) fn is_main_process(unset: bool) -> bool {
    value("SYSTEMD_EXEC_PID").map_or(unset, |pid| {
        pid == this_process::known_as().to_string().as_str()
    })
}

/// The variables that name bowout.
pub(super) fn naming_us() -> Vec<&'static str> {
    let us = this_process::known_as();
    let names_us =
        |name: &&str| value(name).is_some_and(|value| naming(name, us).as_deref() == Some(value));
    NAMING.into_iter().filter(names_us).collect()
}

/// The value with which a variable of [`NAMING`] names a process.
fn naming(name: &str, pid: libc::pid_t) -> Option<OsString> {
    if name != BY_PIDFD {
        return Some(pid.to_string().into());
    }
    // Unlike a PID, the inode is never used again (pidfd_open(2), since Linux 6.9).
    let stat = fstat(pidfd_open(pid).ok()?).ok()?;
    Some(stat.st_ino.to_string().into())
}

/// The environment for execve(2): as received, with `changes`, and with the variables `renamed`
/// naming the calling process, the child. A variable that cannot name it is removed, because a
/// wrong name is worse than none.
pub(super) fn of_child(changes: &[Change], renamed: &[&'static str]) -> *const *const c_char {
    let us = || getpid().as_raw();
    let renamed = renamed.iter().map(|&name| (name, naming(name, us())));
    let changes: Vec<Change> = changes.iter().cloned().chain(renamed).collect();
    if changes.is_empty() {
        // SAFETY: reads a pointer.
        return unsafe { environ };
    }
    let set = changes.iter().filter_map(|(name, value)| {
        let text = [name.as_bytes(), b"=", value.as_ref()?.as_bytes()].concat();
        Some(CString::new(text).ok()?.into_raw().cast_const())
    });
    let is_changed = |variable: &&CStr| {
        changes
            .iter()
            .any(|(name, _)| value_if(variable, name).is_some())
    };
    let kept = variables(|_| true)
        .filter(|variable| !is_changed(variable))
        .map(CStr::as_ptr);
    // The child executes or exits: nothing frees this.
    let pointers: Vec<_> = set.chain(kept).chain([ptr::null()]).collect();
    pointers.leak().as_ptr()
}
