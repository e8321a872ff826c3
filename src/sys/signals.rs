//! The intake of signals: blocked from the first instruction, read from a signalfd with sender,
//! code and value. Also what was inherited of masks and dispositions, to be handed to the child.
//!
//! There is no handler, hence no async-signal-safety to keep, no self-pipe to overflow, and no
//! handler of ours that could run in the forked child (contract K4). The raw system calls are used
//! because C libraries keep one to three real-time signals out of every set that passes through
//! their wrappers; bowout is one thread and must have them all.
//!
//! Faults (SEGV, BUS, FPE, ILL, TRAP, SYS) are blocked, too: one that somebody sends is forwarded
//! like any other signal, and one that is ours still ends us at once, for the kernel lifts the
//! block from a fault that it raises itself (kernel/signal.c, `force_sig_info_to_task`).

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

use super::{this_process, wait};
use crate::sender::Sender;
use crate::signal::{Signal, SignalSet};

/// The size that the kernel takes a `sigset_t` to have, in bytes.
const SET_SIZE: usize = mem::size_of::<u64>();

/// The mask and the dispositions that bowout was started with, as far as it changes or judges them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inherited {
    /// The signals that were blocked.
    pub(crate) mask: SignalSet,
    /// Which of HUP, INT, QUIT and CHLD were ignored. Nothing else is asked about, for nothing else
    /// is changed: an ignored signal stays ignored over fork and exec by itself.
    pub(crate) ignored: SignalSet,
}

impl Inherited {
    /// Blocks every signal and notes what was before.
    pub(crate) fn capture() -> Self {
        let mask = set_mask(SignalSet::ALL);
        let ignored = [Signal::HUP, Signal::INT, Signal::QUIT, Signal::CHLD]
            .into_iter()
            .filter(|&signal| is_ignored(signal))
            .fold(SignalSet::default(), SignalSet::with);
        // With SIGCHLD ignored the kernel would reap our children and throw their statuses away
        // (waitpid(2), contract K6).
        if ignored.contains(Signal::CHLD) {
            set_disposition(Signal::CHLD, libc::SIG_DFL);
        }
        Self { mask, ignored }
    }

    /// Puts the inherited state back, in the child before its exec. Async-signal-safe.
    pub(super) fn restore(&self) {
        if self.ignored.contains(Signal::CHLD) {
            set_disposition(Signal::CHLD, libc::SIG_IGN);
        }
        set_mask(self.mask);
    }
}

/// `rt_sigprocmask(SIG_SETMASK)` (sigprocmask(2)); gives the mask that was. With these arguments
/// only a filter makes it fail.
pub(super) fn set_mask(mask: SignalSet) -> SignalSet {
    let new = mask.bits();
    let mut old = 0_u64;
    // SAFETY: both pointers are to 64-bit sets of the size that is named.
    let done = unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
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

/// Takes a blocked signal out of the kernel's queue and says whether there was one.
pub(super) fn take(signal: Signal) -> bool {
    // SAFETY: an all-zero signalfd_siginfo is a valid one.
    take_info(SignalSet::of(&[signal]), &mut unsafe { mem::zeroed() })
}

/// The same with what a signalfd says of it: `rt_sigtimedwait` (sigwait(3)) without waiting.
fn take_info(set: SignalSet, into: &mut libc::signalfd_siginfo) -> bool {
    let set = set.bits();
    let none = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the set has the size that is named, the time is valid, and so is an all-zero siginfo,
    // whose fields are only read.
    unsafe {
        let mut info: libc::siginfo_t = mem::zeroed();
        let got = libc::syscall(
            libc::SYS_rt_sigtimedwait,
            &raw const set,
            &raw mut info,
            &raw const none,
            SET_SIZE,
        );
        into.ssi_signo = info.si_signo as u32;
        into.ssi_code = info.si_code;
        into.ssi_pid = info.si_pid() as u32;
        into.ssi_uid = info.si_uid();
        into.ssi_ptr = info.si_value().sival_ptr as u64;
        got > 0
    }
}

/// Whether a blocked signal waits in the kernel's queue: `rt_sigpending` (sigpending(2)).
pub(super) fn is_pending(signal: Signal) -> bool {
    let mut set = 0_u64;
    // SAFETY: the set has the size that is named.
    unsafe { libc::syscall(libc::SYS_rt_sigpending, &raw mut set, SET_SIZE) };
    SignalSet::from_bits(set).contains(signal)
}

/// The kernel's `struct sigaction` for `SIG_DFL` and `SIG_IGN`: the handler comes first, and flags,
/// restorer and mask, in whatever order the architecture has them, are zero.
#[repr(C)]
#[derive(Default)]
struct Disposition {
    handler: libc::sighandler_t,
    rest: [usize; 4],
}

fn is_ignored(signal: Signal) -> bool {
    let mut old = Disposition::default();
    // SAFETY: `old` is at least as long as what is written, and nothing is installed.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            signal.number(),
            0_usize,
            &raw mut old,
            SET_SIZE,
        )
    };
    old.handler == libc::SIG_IGN
}

/// `rt_sigaction` with `SIG_DFL` or `SIG_IGN` (sigaction(2)). Fails only for SIGKILL and SIGSTOP,
/// and then changes nothing.
pub(super) fn set_disposition(signal: Signal, handler: libc::sighandler_t) {
    let new = Disposition {
        handler,
        ..Disposition::default()
    };
    // SAFETY: `new` is at least as long as what is read, and installs no function.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            signal.number(),
            &raw const new,
            0_usize,
            SET_SIZE,
        )
    };
}

/// A signal as it was read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Intaken {
    pub(crate) signal: Signal,
    pub(crate) sender: Sender,
    /// The value, where it was queued with one (`SI_QUEUE`).
    pub(crate) value: Option<u64>,
}

/// All that was pending at one moment.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// In the kernel's order: the lowest number first, whatever came first (contract K1).
    pub(crate) signals: Vec<Intaken>,
    /// Some child has changed its state.
    pub(crate) children: bool,
}

/// The signalfd (signalfd(2)).
#[derive(Debug)]
pub(crate) struct Intake(OwnedFd);

/// How many signals one read takes; more are pending only in a storm of queued ones.
const AT_ONCE: usize = 8;
/// How many reads one turn makes at the most, so that an endless storm keeps neither children nor
/// deadlines waiting.
const READS: usize = 32;

impl Intake {
    /// Opens the intake; every signal must be blocked already.
    ///
    /// # Errors
    /// As signalfd(2): no descriptor or memory left.
    pub(crate) fn open() -> io::Result<Self> {
        let every = SignalSet::ALL.bits();
        let flags = libc::SFD_NONBLOCK | libc::SFD_CLOEXEC;
        // SAFETY: the pointer is to a set of the size that is named; no other code owns the
        // descriptor that is returned.
        unsafe {
            let fd = libc::syscall(libc::SYS_signalfd4, -1, &raw const every, SET_SIZE, flags);
            if fd < 0 {
                Err(io::Error::last_os_error())
            } else {
                Ok(Self(OwnedFd::from_raw_fd(fd as i32)))
            }
        }
    }

    /// Takes all that is pending.
    #[inline(never)]
    pub(crate) fn read(&self) -> Batch {
        let mut batch = Batch::default();
        for _ in 0..READS {
            // SAFETY: an all-zero signalfd_siginfo is a valid one; the kernel writes whole ones,
            // and says how many bytes.
            let (mut infos, got) = unsafe {
                let mut infos: [libc::signalfd_siginfo; AT_ONCE] = mem::zeroed();
                let got = libc::read(
                    self.0.as_raw_fd(),
                    infos.as_mut_ptr().cast(),
                    mem::size_of_val(&infos),
                );
                (infos, got)
            };
            // EAGAIN: nothing is pending. A signalfd that is open has no other error, but a filter
            // has.
            let got = match usize::try_from(got) {
                Ok(got) => got / mem::size_of::<libc::signalfd_siginfo>(),
                Err(_) if wait::failed("read", Errno::last()) => {
                    take_info(SignalSet::ALL, &mut infos[0]).into()
                }
                Err(_) => 0,
            };
            for info in &infos[..got] {
                batch.add(info);
            }
            if got < AT_ONCE {
                break;
            }
        }
        batch
    }
}

impl Batch {
    fn add(&mut self, info: &libc::signalfd_siginfo) {
        let Some(signal) = Signal::new(info.ssi_signo as i32) else {
            return;
        };
        let sender = Sender {
            kernel: info.ssi_code > 0,
            pid: info.ssi_pid as i32,
            uid: info.ssi_uid,
            exited: false,
        };
        if signal == Signal::CHLD {
            // Whatever it says of itself: the kernel keeps one of them, and under memory pressure
            // one that has lost its sender.
            self.children = true;
            if sender.kernel {
                return;
            }
        }
        // The kernel's answer to a log line of ours that met a broken pipe or a full quota, not a
        // signal from anyone.
        let own = sender.pid == this_process::id() && !sender.kernel;
        if own && (signal == Signal::PIPE || signal == Signal::XFSZ) {
            return;
        }
        let value = (info.ssi_code == libc::SI_QUEUE).then_some(info.ssi_ptr);
        self.signals.push(Intaken {
            signal,
            sender,
            value,
        });
    }
}

impl AsFd for Intake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The kernel's `siginfo_t` of a queued signal (sigaction(2)), and no shorter than its 128 bytes.
#[repr(C)]
struct Queued {
    signal: libc::c_int,
    errno: libc::c_int,
    code: libc::c_int,
    fields: QueuedFields,
    rest: [u64; 14],
}

#[repr(C)]
struct QueuedFields {
    pid: libc::pid_t,
    uid: libc::uid_t,
    value: *mut libc::c_void,
}

/// Queues a signal with a value to every process of the group that `leader` leads, a child of ours
/// that is not reaped: pidfd_send_signal(2) with `PIDFD_SIGNAL_PROCESS_GROUP`.
///
/// # Errors
/// `EINVAL`: a kernel before 6.9. Else as pidfd_open(2) and [`send`].
pub(super) fn queue_to_group(leader: libc::pid_t, signal: Signal, value: u64) -> io::Result<()> {
    /// linux/pidfd.h; not in libc yet.
    const PIDFD_SIGNAL_PROCESS_GROUP: libc::c_uint = 1 << 2;
    let value = value as usize as *mut libc::c_void;
    // SAFETY: takes no argument and cannot fail (getuid(2)).
    let uid = unsafe { libc::getuid() };
    let fields = QueuedFields {
        pid: this_process::id(),
        uid,
        value,
    };
    let (signal, code) = (signal.number(), libc::SI_QUEUE);
    let info = Queued {
        signal,
        errno: 0,
        code,
        fields,
        rest: [0; 14],
    };
    let (fd, flags) = (
        this_process::pidfd_open(leader)?,
        PIDFD_SIGNAL_PROCESS_GROUP,
    );
    // SAFETY: numbers, and a pointer to at least as many bytes as the kernel reads.
    match unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            fd.as_raw_fd(),
            signal,
            &raw const info,
            flags,
        )
    } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `kill(2)`, or `sigqueue(3)` where there is a value to pass on.
///
/// # Errors
/// `EPERM`: the process is not ours to signal. `ESRCH`: it is gone. `EAGAIN`: its queue is full,
/// for a signal with a value.
pub(super) fn send(pid: libc::pid_t, signal: Signal, value: Option<u64>) -> io::Result<()> {
    // SAFETY: neither call touches memory of ours; a sigval is as wide as a pointer and is not
    // dereferenced.
    let result = unsafe {
        match value {
            None => libc::kill(pid, signal.number()),
            Some(value) => {
                let value = libc::sigval {
                    sival_ptr: value as usize as *mut libc::c_void,
                };
                libc::sigqueue(pid, signal.number(), value)
            }
        }
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
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
                libc::setrlimit(
                    libc::RLIMIT_CORE,
                    &libc::rlimit {
                        rlim_cur: 0,
                        rlim_max: 0,
                    },
                );
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
