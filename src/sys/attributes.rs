//! What a process keeps over execve(2) and does not hand on by fork(2): taken from bowout, and
//! given to the command. Without bowout, the command would have it.
//!
//! What cannot be given is in README's Limits: record locks, a parent-death signal, a priority that
//! the command may not take.

use libc::c_long;

use super::signals;
use crate::signal::Signal;

/// The kernel's `struct itimerval`: seconds and microseconds of the interval, then of the time that
/// is left.
type Timer = [c_long; 4];
/// The numbers and the signals of ITIMER_REAL, ITIMER_VIRTUAL and ITIMER_PROF (getitimer(2)).
const TIMERS: [(c_long, i32); 3] = [(0, libc::SIGALRM), (1, libc::SIGVTALRM), (2, libc::SIGPROF)];
/// The kernel's `struct sched_attr`, in the version of 56 bytes (sched_setattr(2)). It is only
/// passed on.
type Scheduling = [u32; 14];

/// What the command gets.
#[derive(Debug)]
pub(super) struct Attributes {
    timers: [Option<Timer>; 3],
    /// Where fork(2) resets it (sched(7), SCHED_RESET_ON_FORK).
    scheduling: Option<Scheduling>,
}

impl Attributes {
    /// Takes them from this process, whose timers stop.
    pub(super) fn take() -> Self {
        Self {
            timers: TIMERS.map(|(timer, signal)| take_timer(timer, signal)),
            scheduling: scheduling(),
        }
    }

    /// Gives them to this process, the child. What fails was refused to it, and there is nothing
    /// else to do.
    pub(super) fn give(&self) {
        for ((number, _), timer) in TIMERS.iter().zip(&self.timers) {
            if let Some(timer) = timer {
                set_timer(*number, timer);
            }
        }
        if let Some(scheduling) = &self.scheduling {
            // SAFETY: the first field says how long the structure is.
            unsafe { libc::syscall(libc::SYS_sched_setattr, 0, scheduling.as_ptr(), 0) };
        }
    }
}

/// Stops a timer of this process; what it was, if it ran.
fn take_timer(number: c_long, signal: i32) -> Option<Timer> {
    let mut timer: Timer = [0; 4];
    // SAFETY: a structure of the kernel's own layout.
    unsafe { libc::syscall(libc::SYS_getitimer, number, timer.as_mut_ptr()) };
    if timer == [0; 4] {
        return None;
    }
    let [seconds, micros, left @ ..] = set_timer(number, &[0; 4]);
    let left = match left {
        // It has expired, and bowout forwards its signal. A timer with an interval would start
        // again when the signal is read.
        [0, 0] if Signal::new(signal).is_some_and(signals::is_pending) => [seconds, micros],
        // Less than 1 us.
        [0, 0] => [0, 1],
        left => left,
    };
    (left != [0, 0]).then_some([seconds, micros, left[0], left[1]])
}

/// setitimer(2); what the timer was. A filter can refuse it, and the timer then stays this
/// process's.
fn set_timer(number: c_long, timer: &Timer) -> Timer {
    let mut old: Timer = [0; 4];
    // SAFETY: two structures of the kernel's own layout.
    let done = unsafe {
        libc::syscall(
            libc::SYS_setitimer,
            number,
            timer.as_ptr(),
            old.as_mut_ptr(),
        )
    };
    if done == 0 { old } else { [0; 4] }
}

/// How this process is scheduled, where its children are not.
fn scheduling() -> Option<Scheduling> {
    let mut scheduling: Scheduling = [0; 14];
    let (buffer, size) = (scheduling.as_mut_ptr(), size_of::<Scheduling>());
    // SAFETY: numbers only; then a buffer of the size that is named. C libraries do not have all of
    // these calls.
    unsafe {
        let policy = libc::syscall(libc::SYS_sched_getscheduler, 0);
        let resets = policy >= 0 && policy & c_long::from(libc::SCHED_RESET_ON_FORK) != 0;
        (resets && libc::syscall(libc::SYS_sched_getattr, 0, buffer, size, 0) == 0)
            .then_some(scheduling)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::SignalSet;

    /// In a child: timers are the whole process's. Its exit code is the number of the first check
    /// that fails.
    fn in_child(checks: fn() -> Option<i32>) -> i32 {
        // SAFETY: the child makes system calls and ends.
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
    fn a_timer_is_taken_with_what_is_left() {
        let checks = || {
            for (number, signal) in TIMERS {
                let first = i32::try_from(number).ok()? * 10;
                if take_timer(number, signal).is_some() {
                    return Some(first + 1);
                }
                set_timer(number, &[5, 6, 1000, 0]);
                let Some([5, 6, 990..=1000, _]) = take_timer(number, signal) else {
                    return Some(first + 2);
                };
                if take_timer(number, signal).is_some() {
                    return Some(first + 3);
                }
            }
            None
        };
        assert_eq!(in_child(checks), 0);
    }

    /// Its signal is pending, and bowout forwards it: the child must not get it twice, nor lose the
    /// next.
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
            if take_timer(number, signal).is_some() {
                return Some(1);
            }
            signals::take(Signal::new(signal)?);
            expire(1000)?;
            if take_timer(number, signal) != Some([1000, 0, 1000, 0]) {
                return Some(2);
            }
            signals::take(Signal::new(signal)?);
            let mut left: Timer = [0; 4];
            // SAFETY: a structure of the kernel's own layout.
            unsafe { libc::syscall(libc::SYS_getitimer, number, left.as_mut_ptr()) };
            (left != [0; 4]).then_some(3)
        };
        assert_eq!(in_child(checks), 0);
    }
}
