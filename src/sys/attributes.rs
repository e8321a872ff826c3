//! Attributes that execve(2) keeps and fork(2) does not copy: bowout gives its own to the command,
//! so that the command has them as without bowout.
//!
//! Limits in man/GUIDE.md lists the attributes that bowout cannot give: record locks, a
//! parent-death signal, a priority that the command may not take.

use libc::c_long;

use super::signals;
use crate::signal::Signal;

/// The kernel's `struct itimerval`: seconds and microseconds of the interval, then of the time
/// left. All zero: the timer does not run.
type Timer = [c_long; 4];
/// The numbers and the signals of ITIMER_REAL, ITIMER_VIRTUAL and ITIMER_PROF (getitimer(2)).
const TIMERS: [(c_long, i32); 3] = [(0, libc::SIGALRM), (1, libc::SIGVTALRM), (2, libc::SIGPROF)];
/// The kernel's `struct sched_attr` in its first version of 56 bytes (sched_setattr(2)): the second
/// word holds the flags.
type Scheduling = [u64; 7];

/// The attributes that the command gets.
#[derive(Debug)]
pub(super) struct Attributes {
    timers: [Timer; 3],
    /// `None` unless fork(2) resets it (sched(7), SCHED_RESET_ON_FORK).
    scheduling: Option<Scheduling>,
}

impl Attributes {
    /// Takes them from this process and stops its timers.
    pub(super) fn take() -> Self {
        let mut scheduling: Scheduling = [0; 7];
        let (buffer, size) = (scheduling.as_mut_ptr(), size_of::<Scheduling>());
        // SAFETY: a buffer of the size that is passed. Some C libraries lack this function.
        let done = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, buffer, size, 0) };
        let resets = done == 0 && scheduling[1] & libc::SCHED_FLAG_RESET_ON_FORK as u64 != 0;
        Self {
            timers: TIMERS.map(|(number, signal)| take_timer(number, signal)),
            scheduling: resets.then_some(scheduling),
        }
    }

    /// Gives them to this process, the child. Errors are ignored: the kernel refuses an attribute
    /// that the child may not set.
    pub(super) fn give(&self) {
        for ((number, _), timer) in TIMERS.iter().zip(&self.timers) {
            if *timer != [0; 4] {
                set_timer(*number, timer);
            }
        }
        if let Some(scheduling) = &self.scheduling {
            // SAFETY: the first field holds the size of the structure.
            unsafe { libc::syscall(libc::SYS_sched_setattr, 0, scheduling.as_ptr(), 0) };
        }
    }
}

/// Stops a timer of this process and returns its setting.
fn take_timer(number: c_long, signal: i32) -> Timer {
    match set_timer(number, &[0; 4]) {
        [0, 0, 0, 0] => [0; 4],
        // The timer has expired, and bowout forwards its signal. With an interval, it would start
        // again when the signal is read.
        [seconds, micros, 0, 0] if Signal::new(signal).is_some_and(signals::is_pending) => {
            [seconds, micros, seconds, micros]
        }
        // Less than 1 us is left.
        [seconds, micros, 0, 0] => [seconds, micros, 0, 1],
        timer => timer,
    }
}

/// setitimer(2); returns the previous setting. If a filter refuses the call, the timer stays with
/// this process.
fn set_timer(number: c_long, timer: &Timer) -> Timer {
    let mut old: Timer = [0; 4];
    let (new, into) = (timer.as_ptr(), old.as_mut_ptr());
    // SAFETY: two structures in the kernel's layout. A failed call writes nothing.
    unsafe { libc::syscall(libc::SYS_setitimer, number, new, into) };
    old
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::SignalSet;

    /// Runs the checks in a child, because timers belong to the whole process. Its exit code is the
    /// number of the first check that fails.
    fn in_child(checks: fn() -> Option<i32>) -> i32 {
        // SAFETY: the child makes system calls and exits.
        unsafe {
            let pid = libc::fork();
            if pid == 0 {
                signals::set_mask(SignalSet::ALL);
                libc::_exit(checks().unwrap_or(0));
            }
            let mut status = 0;
            assert_eq!(libc::waitpid(pid, &raw mut status, 0), pid);
            assert!(libc::WIFEXITED(status), "status {status:#x}");
            libc::WEXITSTATUS(status)
        }
    }

    #[test]
    fn a_timer_is_taken_with_its_rest() {
        let checks = || {
            for (number, signal) in TIMERS {
                let first = i32::try_from(number).ok()? * 10;
                if take_timer(number, signal) != [0; 4] {
                    return Some(first + 1);
                }
                set_timer(number, &[5, 6, 1000, 0]);
                let [5, 6, 990..=1000, _] = take_timer(number, signal) else {
                    return Some(first + 2);
                };
                if take_timer(number, signal) != [0; 4] {
                    return Some(first + 3);
                }
            }
            None
        };
        assert_eq!(in_child(checks), 0);
    }

    /// The timer's signal is pending, and bowout forwards it: the child must neither get it twice
    /// nor lose the next one.
    #[test]
    fn a_timer_that_has_expired_does_not_expire_again() {
        let checks = || {
            let (number, signal) = TIMERS[0];
            let expire = |interval| {
                set_timer(number, &[interval, 0, 0, 1]);
                while !signals::is_pending(Signal::new(signal)?) {}
                Some(())
            };
            expire(0)?;
            if take_timer(number, signal) != [0; 4] {
                return Some(1);
            }
            signals::take(Signal::new(signal)?);
            expire(1000)?;
            if take_timer(number, signal) != [1000, 0, 1000, 0] {
                return Some(2);
            }
            signals::take(Signal::new(signal)?);
            (set_timer(number, &[0; 4]) != [0; 4]).then_some(3)
        };
        assert_eq!(in_child(checks), 0);
    }
}
