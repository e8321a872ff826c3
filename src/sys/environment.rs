//! The variables that name a PID: rewritten for the child where, and only where, they named us.
//!
//! LISTEN_PID and WATCHDOG_PID tell a process that its sockets and its watchdog are meant for it
//! and for none of its children (sd_listen_fds(3), sd_watchdog_enabled(3)); LISTEN_PIDFDID says the
//! same by the inode of a pidfd, since systemd 259; SYSTEMD_EXEC_PID tells whether a process was
//! started by systemd directly (systemd.exec(5)). The child is to find what it would have found
//! without us. Nothing is set or removed in our own environment.

use std::ffi::{CStr, CString, OsStr, OsString, c_char};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;

use nix::sys::stat::fstat;

use super::this_process::pidfd_open;

unsafe extern "C" {
    /// The environment as it was received (environ(7)); never changed by us.
    static environ: *const *const c_char;
}

/// The variables that hold a PID.
const PID: [&str; 3] = ["LISTEN_PID", "WATCHDOG_PID", "SYSTEMD_EXEC_PID"];
/// The variable that holds the inode of a pidfd.
const PIDFD: &str = "LISTEN_PIDFDID";

/// The variables that were received, each `NAME=VALUE`, whose first byte is wanted; nothing is
/// copied. The others cost a comparison each, and most environments are long.
pub(crate) fn variables(
    wanted: impl Fn(u8) -> bool + Clone,
) -> impl Iterator<Item = &'static CStr> + Clone {
    // SAFETY: environ is null or an array of C strings that ends with a null pointer, and bowout
    // never changes it.
    let mut entry = unsafe { environ };
    std::iter::from_fn(move || unsafe {
        // SAFETY: as above; the null pointer is not passed.
        while !entry.is_null() && !(*entry).is_null() {
            let variable = *entry;
            entry = entry.add(1);
            if wanted(*variable as u8) {
                return Some(CStr::from_ptr(variable));
            }
        }
        None
    })
}

/// The value of a variable; of the first one, where there are several of this name (getenv(3)).
pub(crate) fn value(name: &str) -> Option<&'static OsStr> {
    let is = |variable: &'static [u8]| variable.strip_prefix(name.as_bytes())?.strip_prefix(b"=");
    let first = name.as_bytes()[0];
    variables(move |byte| byte == first)
        .find_map(|variable| is(variable.to_bytes()))
        .map(OsStr::from_bytes)
}

/// The child's environment.
pub(super) struct Environment {
    /// The pointers to pass to execve(2), with the null pointer at their end; empty where what was
    /// received can be passed.
    pointers: Vec<*const c_char>,
    /// What is to be rewritten, and by what kind of name.
    named: Vec<(usize, Named)>,
    /// What some of the pointers point to; a string stays where it is when its CString is moved.
    own: Vec<CString>,
}

#[derive(Clone, Copy)]
enum Named {
    Pid(&'static str),
    Pidfd,
}

impl Environment {
    /// What we have, with `changes` in the place of the variables of these names: other values, or
    /// none. Where the process `stands_in` for us, variables that name us will name it.
    pub(super) fn new(changes: &[(&str, Option<OsString>)], stands_in: bool) -> Self {
        if changes.is_empty()
            && !(stands_in
                && variables(|byte| matches!(byte, b'L' | b'W' | b'S'))
                    .any(|variable| names_us(variable.to_bytes()).is_some()))
        {
            return Self {
                pointers: vec![],
                named: vec![],
                own: vec![],
            };
        }
        let text = |name: &str, value: &OsString| {
            CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok()
        };
        let own: Vec<CString> = changes
            .iter()
            .filter_map(|(name, value)| text(name, value.as_ref()?))
            .collect();
        let mut pointers: Vec<_> = own.iter().map(|variable| variable.as_ptr()).collect();
        let mut named = vec![];
        for variable in variables(|_| true) {
            let bytes = variable.to_bytes();
            let is = |name: &str| {
                bytes
                    .strip_prefix(name.as_bytes())
                    .is_some_and(|rest| rest.first() == Some(&b'='))
            };
            if changes.iter().any(|(name, _)| is(name)) {
                continue;
            }
            if let Some(name) = names_us(bytes).filter(|_| stands_in) {
                named.push((pointers.len(), name));
            }
            pointers.push(variable.as_ptr());
        }
        pointers.push(std::ptr::null());
        Self {
            pointers,
            named,
            own,
        }
    }

    /// Has the variables name the calling process: the child, between fork and exec. What cannot be
    /// said is left out, for a wrong name is worse than none.
    pub(super) fn rewrite(&mut self) {
        let mut gone = vec![];
        for (index, name) in self.named.drain(..) {
            let text = match name {
                Named::Pid(name) => Some(format!("{name}={}", std::process::id())),
                Named::Pidfd => own_pidfd_inode().map(|inode| format!("{PIDFD}={inode}")),
            };
            match text.and_then(|text| CString::new(text).ok()) {
                Some(text) => {
                    self.pointers[index] = text.as_ptr();
                    self.own.push(text);
                }
                None => gone.push(index),
            }
        }
        for index in gone.into_iter().rev() {
            self.pointers.remove(index);
        }
    }

    /// For execve(2): C strings and a null pointer, valid for as long as `self`.
    pub(super) fn as_ptr(&self) -> *const *const c_char {
        // SAFETY: a pointer is read, which nobody changes.
        if self.pointers.is_empty() {
            unsafe { environ }
        } else {
            self.pointers.as_ptr()
        }
    }
}

/// Whether a variable, `NAME=VALUE`, names this process, and how.
fn names_us(variable: &[u8]) -> Option<Named> {
    // Cheap, for it is asked of every variable: nearly none begins so.
    if !matches!(variable.first(), Some(b'L' | b'W' | b'S')) {
        return None;
    }
    let variable = std::str::from_utf8(variable).ok()?;
    let (name, value) = variable.split_once('=')?;
    if let Some(name) = PID.into_iter().find(|known| *known == name) {
        return (value == std::process::id().to_string()).then_some(Named::Pid(name));
    }
    (name == PIDFD && own_pidfd_inode().is_some_and(|inode| value == inode.to_string()))
        .then_some(Named::Pidfd)
}

/// The inode of a pidfd on ourselves: unlike a PID, it is never used again (pidfd_open(2), since
/// Linux 6.9).
fn own_pidfd_inode() -> Option<u64> {
    // Not this_process::id(), which is bowout's: the child asks, too.
    let fd = pidfd_open(std::process::id() as libc::pid_t).ok()?;
    debug_assert!(fd.as_raw_fd() > 2);
    // 32 bits on 32-bit machines.
    #[allow(clippy::useless_conversion)]
    fstat(&fd).ok().map(|stat| stat.st_ino.into())
}
