//! The variables that name a process.

use std::ffi::c_int;
use std::mem::zeroed;
use std::os::unix::ffi::OsStrExt;

use crate::{Words, sys};

const PIDFD: &str = "LISTEN_PIDFDID";
const NAMES: [&str; 6] = [
    "LISTEN_PID",
    PIDFD,
    "WATCHDOG_PID",
    "SYSTEMD_EXEC_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
];

/// The inode of a pidfd of this process.
// `st_ino` has 32 bits on 32-bit machines.
#[allow(clippy::useless_conversion)]
fn inode() -> u64 {
    // SAFETY: the structure is filled in before it is read.
    unsafe {
        let fd = sys::check(
            libc::syscall(libc::SYS_pidfd_open, libc::getpid(), 0) as c_int,
            "pidfd_open",
        );
        let mut stat: libc::stat = zeroed();
        sys::check(libc::fstat(fd, &raw mut stat), "fstat");
        libc::close(fd);
        stat.st_ino.into()
    }
}

/// Sets each of these variables so that it names this process, then executes the command in the
/// same process.
pub(crate) fn named(words: &mut Words) -> ! {
    while let Some(name) = words.word() {
        if name == "--" {
            sys::exec(words.command())
        }
        let value = if name == PIDFD {
            inode()
        } else {
            u64::from(std::process::id())
        };
        // SAFETY: the probe has one thread.
        unsafe { std::env::set_var(name, value.to_string()) };
    }
    sys::fail("named: no command")
}

/// Prints this process's PID and inode, and the values of the variables.
pub(crate) fn names() -> ! {
    sys::say(&format!("pid {}", std::process::id()));
    sys::say(&format!("inode {}", inode()));
    for name in NAMES {
        if let Some(value) = std::env::var_os(name) {
            let value: String = value
                .as_bytes()
                .iter()
                .map(|byte| std::ascii::escape_default(*byte).to_string())
                .collect();
            sys::say(&format!("{name}={value}"));
        }
    }
    sys::say(&format!("ready {}", std::process::id()));
    sys::pause()
}
