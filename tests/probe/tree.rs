//! Descendants and orphans.

use std::ffi::c_int;
use std::fs;

use crate::{Words, receive, sys};

/// Waits until this process is the parent's only child, so that every orphan has been reaped.
fn await_alone(parent: c_int) {
    while children(parent) > 1 {
        // SAFETY: no arguments.
        unsafe { libc::sched_yield() };
    }
}

/// Makes orphans that exit at once. Prints the highest number of children that the parent had.
pub(crate) fn orphans(count: c_int) -> c_int {
    // SAFETY: no arguments.
    let parent = unsafe { libc::getppid() };
    let mut most = 0;
    for i in 0..count {
        let middle = sys::fork();
        if middle == 0 {
            if sys::fork() > 0 && i % 2 == 0 {
                // SAFETY: no pointers. Half of the children run on as orphans; the yield lets the
                // others end first.
                unsafe { libc::sched_yield() };
            }
            // SAFETY: no pointers.
            unsafe { libc::_exit(0) };
        }
        reap(middle);
        if i % 25 == 24 {
            // On a busy machine the scheduler decides how far the parent lags. The test only asks
            // that it reaps before the end, so the next orphans start after these are reaped.
            most = most.max(children(parent));
            await_alone(parent);
        }
    }
    sys::say(&format!("most {most}"));
    await_alone(parent);
    sys::say("none left");
    0
}

pub(crate) fn children(pid: c_int) -> usize {
    let file = format!("/proc/{pid}/task/{pid}/children");
    fs::read_to_string(&file).map_or_else(
        |error| sys::fail(&format!("{file}: {error}")),
        |text| text.split_whitespace().count(),
    )
}

pub(crate) fn reap(pid: c_int) {
    // SAFETY: no status is asked for.
    unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
}

pub(crate) fn pair(words: &mut Words) -> ! {
    let mut rest = words.command();
    let same_group = rest.first().is_some_and(|word| word == "--here");
    if same_group {
        rest.remove(0);
    }
    let mut halves = rest.split(|word| word == "--").map(<[_]>::to_vec);
    let (below, own) = (
        halves.next().unwrap_or_default(),
        halves.next().unwrap_or_default(),
    );
    // Blocks the signals before the fork, so that none can kill the descendant.
    sys::mask(libc::SIG_SETMASK, u64::MAX);
    if sys::fork() == 0 {
        if !same_group {
            // SAFETY: no arguments.
            unsafe { libc::setsid() };
        }
        receive::signals(&mut Words(below.into_iter()))
    }
    receive::signals(&mut Words(own.into_iter()))
}

/// Starts lines of short-lived processes: a supervisor that kills one of them must not miss the
/// next. Only SIGKILL ends a line.
pub(crate) fn breed(lines: c_int, life: c_int) -> ! {
    sys::mask(libc::SIG_SETMASK, u64::MAX);
    for _ in 0..lines {
        if sys::fork() == 0 {
            // SAFETY: no arguments, no descriptors.
            unsafe {
                libc::setsid();
                let mut generation = 0;
                while libc::fork() == 0 {
                    generation += 1;
                    // The pause grows by 1 ms every 200 generations, because other tests share the
                    // machine's PIDs.
                    libc::poll(std::ptr::null_mut(), 0, life + generation / 200);
                }
                libc::_exit(0);
            }
        }
    }
    receive::signals(&mut Words(Vec::new().into_iter()))
}

/// Makes the descendants: every second one has a session of its own, every third one is an orphan.
/// All are ready before this process is.
pub(crate) fn tree(words: &mut Words) -> ! {
    let count = words.number();
    let mut rest = words.command();
    let stubborn = rest.first().is_some_and(|word| word == "--stubborn");
    if stubborn {
        rest.remove(0);
    }
    let mut ends = [0; 2];
    // SAFETY: the array takes two descriptors.
    sys::check(unsafe { libc::pipe(ends.as_mut_ptr()) }, "pipe");
    for i in 0..count {
        let pid = sys::fork();
        if pid == 0 {
            if i % 3 == 0 && sys::fork() > 0 {
                // SAFETY: no pointers.
                unsafe { libc::_exit(0) };
            }
            if i % 2 == 0 {
                // SAFETY: no arguments.
                unsafe { libc::setsid() };
            }
            if stubborn {
                sys::mask(libc::SIG_SETMASK, u64::MAX);
            }
            // SAFETY: the buffer is one byte.
            unsafe {
                libc::write(ends[1], b".".as_ptr().cast(), 1);
                libc::close(ends[0]);
                libc::close(ends[1]);
            }
            sys::pause();
        }
        if i % 3 == 0 {
            reap(pid);
        }
    }
    for _ in 0..count {
        // SAFETY: the buffer is one byte.
        unsafe { libc::read(ends[0], [0_u8].as_mut_ptr().cast(), 1) };
    }
    receive::signals(&mut Words(rest.into_iter()))
}
