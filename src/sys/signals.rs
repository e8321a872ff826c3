//! Receives signals: blocked from the first instruction, read from a signalfd with sender, code and
//! value. Keeps the inherited mask and dispositions for the child, and sends signals.
//!
//! There is no handler. With one, a signal sent to the forked child before its exec would run it
//! there and be lost (fork(2)). The system calls are raw because C libraries remove one to three
//! real-time signals from the sets that pass through their functions; bowout has one thread and
//! needs all 64.
//!
//! Faults (SEGV, BUS, FPE, ILL, TRAP, SYS) are blocked as well: one that another process sends is
//! forwarded like any signal. A fault of bowout's own still ends it at once, because the kernel
//! unblocks a fault that it raises itself (kernel/signal.c, `force_sig_info_to_task`).

use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use nix::errno::Errno;
use nix::unistd::getuid;

use super::{this_process, wait};
use crate::sender::Sender;
use crate::signal::{Signal, SignalSet};

/// The size of the kernel's `sigset_t` in bytes.
const SET_SIZE: usize = size_of::<u64>();
/// How many signals one read takes. More are pending only in a storm of queued ones.
const AT_ONCE: usize = 8;
/// The most reads in one turn, so that an endless storm delays neither children nor deadlines.
const READS: usize = 32;

/// The mask and the dispositions that bowout was started with, as far as it changes or uses them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inherited {
    pub(crate) mask: SignalSet,
    /// Those of HUP, INT, QUIT and CHLD that were ignored. An ignored signal stays ignored over
    /// fork and exec; bowout changes none but CHLD.
    pub(crate) ignored: SignalSet,
}

impl Inherited {
    /// Blocks every signal and returns the state before.
    pub(crate) fn capture() -> Self {
        let mask = set_mask(SignalSet::ALL);
        let ignored = [Signal::HUP, Signal::INT, Signal::QUIT, Signal::CHLD]
            .into_iter()
            .filter(|&signal| disposition(signal, None) == libc::SIG_IGN)
            .fold(SignalSet::default(), SignalSet::with);
        // With SIGCHLD ignored, the kernel reaps the children and drops their statuses
        // (waitpid(2)).
        if ignored.contains(Signal::CHLD) {
            disposition(Signal::CHLD, Some(libc::SIG_DFL));
        }
        Self { mask, ignored }
    }

    /// Restores the inherited state in the child before its exec.
    pub(super) fn restore(&self) {
        if self.ignored.contains(Signal::CHLD) {
            disposition(Signal::CHLD, Some(libc::SIG_IGN));
        }
        set_mask(self.mask);
    }
}

/// `rt_sigprocmask(SIG_SETMASK)` (sigprocmask(2)); returns the previous mask. Only a filter can
/// make it fail.
pub(super) fn set_mask(mask: SignalSet) -> SignalSet {
    let (new, mut old) = (mask.bits(), 0_u64);
    let how = libc::SIG_SETMASK;
    // SAFETY: two 64-bit sets of the size that is passed.
    let done = unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            how,
            &raw const new,
            &raw mut old,
            SET_SIZE,
        )
    };
    if done != 0 {
        wait::failed("rt_sigprocmask", Errno::last());
    }
    SignalSet::from_bits(old)
}

/// Takes a blocked signal out of the kernel's queue; `false`: it was not pending.
pub(super) fn take(signal: Signal) -> bool {
    take_any(SignalSet::of(&[signal])).is_some()
}

/// `rt_sigtimedwait` (sigwaitinfo(2)) without waiting.
fn take_any(set: SignalSet) -> Option<libc::siginfo_t> {
    // No time, in the layout of 32-bit kernels as well.
    let (set, no_time) = (set.bits(), [0_u64; 2]);
    // SAFETY: a siginfo_t may be all zero; the set has the size that is passed.
    unsafe {
        let mut info = mem::zeroed();
        let (set, into, time) = (&raw const set, &raw mut info, &raw const no_time);
        let taken = libc::syscall(libc::SYS_rt_sigtimedwait, set, into, time, SET_SIZE);
        (taken > 0).then_some(info)
    }
}

/// True if a blocked signal is pending: `rt_sigpending` (sigpending(2)).
pub(super) fn is_pending(signal: Signal) -> bool {
    let mut set = 0_u64;
    // SAFETY: a set of the size that is passed.
    unsafe { libc::syscall(libc::SYS_rt_sigpending, &raw mut set, SET_SIZE) };
    SignalSet::from_bits(set).contains(signal)
}

/// `rt_sigaction` (sigaction(2)) with `new`, `SIG_DFL` or `SIG_IGN`, or without a change; returns
/// the previous handler. A change fails only for SIGKILL and SIGSTOP.
pub(super) fn disposition(signal: Signal, new: Option<libc::sighandler_t>) -> libc::sighandler_t {
    // The kernel's `struct sigaction`: on each architecture the handler is first; flags, restorer
    // and mask are zero here.
    let (action, mut old) = ([new.unwrap_or_default(), 0, 0, 0, 0], [0; 5]);
    let action = if new.is_some() {
        action.as_ptr()
    } else {
        ptr::null()
    };
    // SAFETY: both structures are at least as long as the kernel's; no function is installed.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            signal.number(),
            action,
            old.as_mut_ptr(),
            SET_SIZE,
        )
    };
    old[0]
}

/// A received signal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Intaken {
    pub(crate) signal: Signal,
    pub(crate) sender: Sender,
    /// The value that it was queued with (`SI_QUEUE`).
    pub(crate) value: Option<u64>,
}

/// The signals that were pending at one moment.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// In the kernel's order, the lowest number first; the order of arrival is not known
    /// (kernel/signal.c, `next_signal`).
    pub(crate) signals: Vec<Intaken>,
    /// A child changed its state.
    pub(crate) children: bool,
}

/// The codes with which the guard of `--guard` queues a signal that the kernel, or another process,
/// sent to it: in the place of `SI_KERNEL` and `SI_USER`, which no process may use for another one
/// (rt_sigqueueinfo(2)).
const FORWARDED: [i32; 2] = [-100, -101];

/// The signalfd (signalfd(2)).
#[derive(Debug)]
pub(crate) struct Intake(OwnedFd);

impl Intake {
    /// Opens the intake; every signal must already be blocked.
    ///
    /// # Errors
    /// As signalfd(2): no descriptor or memory left.
    pub(crate) fn open() -> io::Result<Self> {
        let set = SignalSet::ALL.bits();
        let flags = libc::SFD_NONBLOCK | libc::SFD_CLOEXEC;
        // SAFETY: a set of the size that is passed; no other code owns the returned descriptor.
        unsafe {
            let fd = libc::syscall(libc::SYS_signalfd4, -1, &raw const set, SET_SIZE, flags);
            Ok(Self(OwnedFd::from_raw_fd(Errno::result(fd)? as i32)))
        }
    }

    /// Takes all pending signals. A read that returns fewer than asked for was the last: usually
    /// one system call takes all.
    #[inline(never)]
    pub(crate) fn read(&self) -> Batch {
        let mut batch = Batch::default();
        for _ in 0..READS {
            let mut infos = [const { MaybeUninit::<libc::signalfd_siginfo>::uninit() }; AT_ONCE];
            let (into, size) = (infos.as_mut_ptr().cast(), size_of_val(&infos));
            // SAFETY: a buffer of the size that is passed.
            let read = unsafe { libc::read(self.0.as_raw_fd(), into, size) };
            let read = match Errno::result(read) {
                Ok(bytes) => bytes as usize / size_of::<libc::signalfd_siginfo>(),
                // EAGAIN: no signal is pending. Only a filter causes another error.
                Err(error) => {
                    if wait::failed("read", error)
                        && let Some(info) = take_any(SignalSet::ALL)
                    {
                        // SAFETY: numbers, whatever kind of signal it is.
                        let (pid, uid, value) =
                            unsafe { (info.si_pid(), info.si_uid(), info.si_value().sival_ptr) };
                        batch.add(info.si_signo, info.si_code, pid, uid, value as u64);
                    }
                    0
                }
            };
            for info in &infos[..read] {
                // SAFETY: the kernel has written whole ones.
                let info = unsafe { info.assume_init_ref() };
                let (signal, pid) = (info.ssi_signo as i32, info.ssi_pid as i32);
                batch.add(signal, info.ssi_code, pid, info.ssi_uid, info.ssi_ptr);
            }
            if read < AT_ONCE {
                break;
            }
        }
        batch
    }
}

impl AsFd for Intake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Batch {
    /// Adds a signal by the fields of its siginfo_t (sigaction(2)).
    fn add(&mut self, signal: i32, code: i32, pid: i32, uid: u32, value: u64) {
        let Some(signal) = Signal::new(signal) else {
            return;
        };
        let kernel = code > 0 || code == FORWARDED[0];
        // SIGCHLD means that a child changed, whatever its sender: the kernel keeps one instance,
        // and under memory pressure one without its sender.
        self.children |= signal == Signal::CHLD;
        // The kernel sends SIGPIPE and SIGXFSZ in bowout's own name when a log line meets a broken
        // pipe or a full quota.
        let own =
            pid == this_process::id() && !kernel && [Signal::PIPE, Signal::XFSZ].contains(&signal);
        if own || kernel && signal == Signal::CHLD {
            return;
        }
        let sender = Sender {
            kernel,
            pid,
            uid,
            exited: false,
        };
        let value = (code == libc::SI_QUEUE).then_some(value);
        self.signals.push(Intaken {
            signal,
            sender,
            value,
        });
    }
}

/// Sends on a received signal to `pid`, with its sender and its value (rt_sigqueueinfo(2)).
///
/// # Errors
/// As [`send`].
pub(crate) fn forward(pid: libc::pid_t, received: &Intaken) -> io::Result<()> {
    let Intaken {
        signal,
        sender,
        value,
    } = *received;
    let code = match value {
        Some(_) => libc::SI_QUEUE,
        None if sender.kernel => FORWARDED[0],
        None => FORWARDED[1],
    };
    let value = value.unwrap_or_default();
    let info = Queued::new(signal, code, (sender.pid, sender.uid), value);
    let call = libc::SYS_rt_sigqueueinfo;
    // SAFETY: numbers, and a pointer to at least as many bytes as the kernel reads.
    Errno::result(unsafe { libc::syscall(call, pid, signal.number(), &raw const info) })?;
    Ok(())
}

/// The kernel's `siginfo_t` of a queued signal (sigaction(2)), at least 128 bytes long.
#[repr(C)]
pub(super) struct Queued {
    signal: [libc::c_int; 3],
    /// The kernel's union begins at a pointer's alignment.
    sender: [usize; 0],
    pid: libc::pid_t,
    uid: libc::uid_t,
    value: usize,
    rest: [u64; 14],
}

impl Queued {
    /// Of a signal that bowout itself queues (sigqueue(3)).
    pub(super) fn by_us(signal: Signal, value: u64) -> Self {
        let us = (this_process::id(), getuid().as_raw());
        Self::new(signal, libc::SI_QUEUE, us, value)
    }

    fn new(signal: Signal, code: i32, (pid, uid): (libc::pid_t, libc::uid_t), value: u64) -> Self {
        Self {
            signal: [signal.number(), 0, code],
            sender: [],
            pid,
            uid,
            value: value as usize,
            rest: [0; 14],
        }
    }
}

/// `kill(2)`, or `sigqueue(3)` with a value.
///
/// # Errors
/// `EPERM`: bowout may not signal the process. `ESRCH`: it does not exist. `EAGAIN`: with a value,
/// its queue is full.
pub(crate) fn send(pid: libc::pid_t, signal: Signal, value: Option<u64>) -> io::Result<()> {
    let sival_ptr = value.unwrap_or_default() as usize as *mut libc::c_void;
    // SAFETY: numbers only; the value is as wide as a pointer and is not dereferenced.
    Errno::result(unsafe {
        match value {
            None => libc::kill(pid, signal.number()),
            Some(_) => libc::sigqueue(pid, signal.number(), libc::sigval { sival_ptr }),
        }
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel fact that lets faults be blocked (see the head of this file).
    #[test]
    fn a_fault_of_our_own_ends_us_though_it_is_blocked() {
        // SAFETY: the child calls nothing but async-signal-safe functions, then faults.
        let status = unsafe {
            let pid = libc::fork();
            if pid == 0 {
                let _ =
                    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, 0);
                set_mask(SignalSet::ALL);
                std::ptr::null_mut::<u8>().write_volatile(1);
                libc::_exit(0);
            }
            let mut status = 0;
            assert_eq!(libc::waitpid(pid, &raw mut status, 0), pid);
            status
        };
        assert!(
            libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGSEGV,
            "status {status:#x}"
        );
    }
}
