//! `traced`: a process that asks its parent to trace it (ptrace(2), PTRACE_TRACEME), as a program
//! that was built for debugging does.

use std::ffi::c_int;

use crate::{Words, receive, signal, sys};

extern "C" fn caught(signal: c_int) {
    sys::say(&format!("caught {signal}"));
}

/// `raise SIG` sends SIG to the process itself, which catches it where it can. `exec COMMAND`
/// executes COMMAND and is the last act. After `--`, the process behaves as `signals`. `orphan`, if
/// given, comes first.
pub(crate) fn traced(words: &mut Words) -> ! {
    let mut word = words.text();
    if word == "orphan" {
        orphan();
        word = words.text();
    }
    // SAFETY: no pointers are read.
    sys::check(
        unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) } as c_int,
        "PTRACE_TRACEME",
    );
    loop {
        match word.as_str() {
            "raise" => raise(signal(&words.text())),
            "exec" => sys::exec(words.command()),
            "--" => receive::signals(words),
            other => sys::fail(other),
        }
        word = words.text();
    }
}

/// Continues in a process whose parent has exited and that has a new parent already.
fn orphan() {
    // SAFETY: no pointers.
    unsafe {
        let middle = libc::getpid();
        if sys::fork() > 0 {
            libc::_exit(0);
        }
        while libc::getppid() == middle {
            libc::sched_yield();
        }
    }
}

fn raise(signal: c_int) {
    // SAFETY: the handler calls write(2) and the allocator alone, and no other code is in the
    // allocator.
    unsafe {
        if signal != libc::SIGSTOP {
            libc::signal(signal, caught as *const () as libc::sighandler_t);
        }
        libc::kill(libc::getpid(), signal);
    }
}
