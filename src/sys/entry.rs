//! The first instructions: C's `main`, in the place of the one that Rust's runtime brings.
//!
//! Rust's runtime sets SIGPIPE to ignored, re-opens closed descriptors and takes a dozen system
//! calls for its own comfort, all before a Rust `main` runs; what bowout was given could then not
//! be passed on (contract S23). Here every signal is blocked first, what was inherited is noted,
//! and only then does anything else happen.
//!
//! The one place where `sys` calls upwards: [`crate::run`] is the program.

use std::ffi::{CStr, OsStr, OsString, c_char, c_int};
use std::os::unix::ffi::OsStrExt;

use super::signals::Inherited;
use super::{end, this_process};

/// What the C runtime calls; a test program has a `main` of its own.
#[cfg_attr(not(test), unsafe(no_mangle))]
#[cfg_attr(test, allow(dead_code))]
extern "C" fn main(argc: c_int, argv: *const *const c_char) -> c_int {
    let inherited = Inherited::capture();
    this_process::occupy_standard_descriptors();
    let args = (0..usize::try_from(argc).unwrap_or(0))
        // SAFETY: the C runtime hands over argc pointers to strings that outlive main (C17,
        // 5.1.2.2.1).
        .map(|i| unsafe { OsStr::from_bytes(CStr::from_ptr(*argv.add(i)).to_bytes()) }.to_owned())
        .collect::<Vec<OsString>>();
    end::end(crate::run(&args, &inherited))
}
