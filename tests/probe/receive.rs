//! `signals` and `idle`.

use std::ffi::c_int;
use std::mem::zeroed;
use std::ptr::null_mut;

use crate::{Words, number, pair, signal, sys};

/// The reaction to a signal, besides its report.
enum Then {
    Pause(c_int),
    Tell(c_int),
    Exit(c_int),
    Die,
}

pub(crate) fn idle() -> ! {
    // SAFETY: no arguments.
    sys::say(&format!("ready {}", unsafe { libc::getpid() }));
    sys::pause()
}

pub(crate) fn signals(words: &mut Words) -> ! {
    let mut name = String::new();
    let mut then: Vec<(c_int, Then)> = Vec::new();
    while let Some(option) = words.word() {
        let value = words.text();
        match option.to_str().unwrap_or_default() {
            "--name" => name = format!("{value} "),
            "--die" => then.push((signal(&value), Then::Die)),
            option => {
                let (on, what) = pair(&value);
                let what = match option {
                    "--exit" => Then::Exit(number(what)),
                    "--pause" => Then::Pause(number(what)),
                    "--tell" => Then::Tell(signal(what)),
                    _ => sys::fail(option),
                };
                then.push((on, what));
            }
        }
    }
    sys::mask(libc::SIG_SETMASK, u64::MAX);
    // SAFETY: no arguments.
    sys::say(&format!("{name}ready {}", unsafe { libc::getpid() }));
    loop {
        let info = wait();
        let number = info.si_signo;
        if number == libc::SIGCHLD && info.si_code > 0 {
            // SAFETY: no status is asked for.
            while unsafe { libc::waitpid(-1, null_mut(), libc::WNOHANG) } > 0 {}
            continue;
        }
        // SAFETY: plain fields of a structure that the kernel filled; the value counts only after
        // sigqueue.
        let (sender, value) =
            unsafe { (info.si_pid(), info.si_value().sival_ptr as isize as c_int) };
        let value = if info.si_code == libc::SI_QUEUE {
            value
        } else {
            0
        };
        sys::say(&format!("{name}{number} {} {sender} {value}", info.si_code));
        for (_, what) in then.iter().filter(|(on, _)| *on == number) {
            match what {
                Then::Pause(ms) => {
                    // SAFETY: no descriptors.
                    unsafe { libc::poll(null_mut(), 0, *ms) };
                    sys::say(&format!("{name}paused"));
                }
                // SAFETY: no pointers; getppid(2) names the current parent.
                Then::Tell(what) => unsafe {
                    libc::kill(libc::getppid(), *what);
                },
                // SAFETY: no pointers.
                Then::Exit(code) => unsafe { libc::_exit(*code) },
                Then::Die => sys::die(number),
            }
        }
    }
}

pub(crate) fn wait() -> libc::siginfo_t {
    let all = u64::MAX;
    loop {
        // SAFETY: the kernel fills the structure; its own set is 8 bytes.
        let (info, got) = unsafe {
            let mut info: libc::siginfo_t = zeroed();
            let got = libc::syscall(
                libc::SYS_rt_sigtimedwait,
                &raw const all,
                &raw mut info,
                0,
                8,
            );
            (info, got)
        };
        if got > 0 {
            return info;
        }
    }
}
