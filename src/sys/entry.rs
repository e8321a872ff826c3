//! The first instructions: C's `main` in place of the one that Rust's runtime brings.
//!
//! Rust's runtime ignores SIGPIPE, re-opens closed descriptors and makes a dozen system calls
//! before a Rust `main` runs (library/std/src/sys/pal/unix/mod.rs, `init`); the inherited state
//! could then not be passed on. Here, bowout first blocks every signal and notes the inherited
//! state.
//!
//! The one place where `sys` calls upwards: [`crate::run`] is the program.

use std::ffi::{CStr, OsStr, OsString, c_char, c_int};
use std::io::Write;
use std::mem;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use super::end::end;
use super::signals::Inherited;
use super::stderr::Stderr;
use super::wait;
use crate::exit::Exit;

/// Called by the C runtime. A test program has its own `main`.
#[cfg_attr(not(test), unsafe(no_mangle))]
#[cfg_attr(test, allow(dead_code))]
extern "C" fn main(argc: c_int, argv: *const *const c_char) -> c_int {
    let inherited = Inherited::capture();
    occupy_standard_descriptors();
    let args: Vec<OsString> = (0..usize::try_from(argc).unwrap_or(0))
        // SAFETY: the C runtime passes argc pointers to strings that outlive main (C17, 5.1.2.2.1).
        .map(|i| unsafe { OsStr::from_bytes(CStr::from_ptr(*argv.add(i)).to_bytes()) }.to_owned())
        .collect();
    end(crate::run(args, &inherited))
}

/// Keeps bowout's own descriptors from becoming 0, 1 or 2 if bowout was started with one of these
/// closed. The child finds it closed as well: a descriptor that is opened here closes at its exec.
///
/// Exits if that fails (`EMFILE`, `ENFILE`, `ENOMEM`, a filter): `spawn::release` would put
/// /dev/null in the place of the signalfd, and bowout would see no signal and no exit of a child.
fn occupy_standard_descriptors() {
    let mut standard = [0, 1, 2].map(|fd| libc::pollfd {
        fd,
        events: 0,
        revents: 0,
    });
    let at_once = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // By the call that the loop waits in, so that bowout knows before the command starts if a
    // filter refuses it.
    // SAFETY: three entries, a valid time, and no mask.
    let looked = unsafe {
        libc::ppoll(
            standard.as_mut_ptr(),
            3,
            &raw const at_once,
            std::ptr::null(),
        )
    };
    match Errno::result(looked) {
        Ok(_) if standard.iter().all(|fd| fd.revents & libc::POLLNVAL == 0) => return,
        Ok(_) => {}
        // All three are taken to be closed.
        Err(error) => _ = wait::failed("ppoll", error),
    }
    // open(2) uses the lowest free number, so that three calls suffice. O_PATH needs no device
    // file; reads and writes fail with EBADF, as they do on a closed descriptor.
    for _ in 0..3 {
        match open("/", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()) {
            Ok(fd) if fd.as_raw_fd() <= 2 => mem::forget(fd),
            Ok(_) => return,
            Err(error) => {
                // There is no log yet. If stderr is closed, only the exit code reports this.
                let line = format!(
                    "bowout: cannot take the place of a closed stdin, stdout or stderr: {}\n",
                    error.desc()
                );
                let _ = Stderr::new(|_| String::new()).write_all(line.as_bytes());
                end(Exit::OWN_FAILURE)
            }
        }
    }
}
