//! The few system calls that more than one sub-command needs.

use std::ffi::{CString, OsString, c_int};
use std::io::Error;
use std::os::unix::ffi::OsStringExt;

/// Prints one line in one write, because several processes share the pipe.
pub(crate) fn say(line: &str) {
    let line = format!("{line}\n");
    // SAFETY: the buffer is valid for its length.
    unsafe { libc::write(1, line.as_ptr().cast(), line.len()) };
}

/// Ends the probe after a failure of its own, which no test expects.
pub(crate) fn fail(why: &str) -> ! {
    let line = format!("probe: {why}\n");
    // SAFETY: the buffer is valid for its length; _exit takes no pointers.
    unsafe {
        libc::write(2, line.as_ptr().cast(), line.len());
        libc::_exit(98)
    }
}

pub(crate) fn fail_os(what: &str) -> ! {
    fail(&format!("{what}: {}", Error::last_os_error()))
}

pub(crate) fn check(result: c_int, what: &str) -> c_int {
    if result < 0 { fail_os(what) } else { result }
}

/// Changes the mask by the kernel's own call: the C library's functions leave signals 32 and 33
/// out.
pub(crate) fn mask(how: c_int, signals: u64) {
    // SAFETY: the kernel's set is 8 bytes on every 64-bit Linux.
    let done = unsafe { libc::syscall(libc::SYS_rt_sigprocmask, how, &raw const signals, 0, 8) };
    check(done as c_int, "rt_sigprocmask");
}

pub(crate) fn bit(signal: c_int) -> u64 {
    1 << (signal - 1)
}

/// Sets the disposition, default or ignored, by the kernel's own call as well.
pub(crate) fn disposition(signal: c_int, handler: libc::sighandler_t) {
    let action = [handler as u64, 0, 0, 0];
    // SAFETY: the handler comes first in the kernel's structure, which is at most 32 bytes.
    let done = unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, &raw const action, 0, 8) };
    check(done as c_int, "rt_sigaction");
}

pub(crate) fn no_core() {
    let none = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the structure is valid.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) };
}

pub(crate) fn die(signal: c_int) -> ! {
    no_core();
    if signal != libc::SIGKILL && signal != libc::SIGSTOP {
        disposition(signal, libc::SIG_DFL);
    }
    // SAFETY: a signal to ourselves.
    unsafe { libc::kill(libc::getpid(), signal) };
    mask(libc::SIG_UNBLOCK, bit(signal));
    fail("survived")
}

pub(crate) fn die_with_parent() {
    // SAFETY: no pointers.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
}

pub(crate) fn fork() -> libc::pid_t {
    // SAFETY: another thread of the probe can hold no lock but the allocator's, which the C library
    // keeps usable after a fork.
    check(unsafe { libc::fork() }, "fork")
}

pub(crate) fn pause() -> ! {
    loop {
        // SAFETY: no arguments.
        unsafe { libc::pause() };
    }
}

pub(crate) fn exec(command: Vec<OsString>) -> ! {
    let words: Vec<CString> = command
        .into_iter()
        .map(|word| CString::new(word.into_vec()).unwrap_or_default())
        .collect();
    let mut pointers: Vec<_> = words.iter().map(|word| word.as_ptr()).collect();
    pointers.push(std::ptr::null());
    // SAFETY: a null-terminated array of strings that outlive the call.
    unsafe { libc::execvp(pointers[0], pointers.as_ptr()) };
    fail_os("exec")
}
