//! Sub-commands that make a storm of signals or processes, and one that counts signals.

use std::ffi::{c_int, c_void};
use std::fmt::Write;
use std::io::Error;
use std::mem::zeroed;
use std::ptr::{addr_of_mut, null_mut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::{Words, pair, receive, signal, sys};

fn errno() -> c_int {
    Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// Queues `COUNT` signals to a process, of the given kinds in turn, as fast as its queue takes
/// them. With `half` it uses half of the queue, with `full` all of it. The value of each signal is
/// its own number. It sends through a pidfd, because another process may get the PID. It does not
/// use kill(2), which does not report a full queue (signal(7)). It retries after a full queue and
/// counts these refusals. The last line reports how many signals were queued.
pub(crate) fn send(words: &mut Words) -> c_int {
    let (pid, count, half) = (words.number(), words.number(), words.text() == "half");
    let signals: Vec<c_int> = std::iter::from_fn(|| words.word())
        .map(|word| signal(&word.to_string_lossy()))
        .collect();
    // SAFETY: no pointers.
    let target = sys::check(
        unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) } as c_int,
        "pidfd_open",
    );
    let mut sent = [0_u64; 65];
    let mut full = 0_u64;
    'all: for (number, signal) in (0..count).zip(signals.iter().cycle()) {
        while half && number % 64 == 0 && is_half_full(pid) {
            // SAFETY: no descriptors.
            unsafe { libc::poll(null_mut(), 0, 1) };
        }
        while !queue(target, *signal, number) {
            match errno() {
                libc::EAGAIN => full += 1,
                // The process has exited.
                libc::ESRCH => break 'all,
                _ => sys::fail_os("pidfd_send_signal"),
            }
            // SAFETY: no arguments.
            unsafe { libc::sched_yield() };
        }
        sent[*signal as usize] += 1;
        if number % 10_000 == 9_999 {
            sys::say(&format!("so far {}", number + 1));
        }
    }
    sys::say(&format!("sent{} full={full}", tally(&sent)));
    0
}

/// Returns true if more than half of the queue is in use: `SigQ: 3/1000` in /proc/PID/status, of
/// all processes of its user (proc_pid_status(5)).
fn is_half_full(pid: c_int) -> bool {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("SigQ:"))
        .unwrap_or_default();
    let (used, limit) = line.trim().split_once('/').unwrap_or_default();
    used.parse::<u64>().unwrap_or(0) > limit.parse::<u64>().unwrap_or(0) / 2
}

/// Queues a signal as sigqueue(3) does (rt_sigqueueinfo(2)). The structure has signal, errno and
/// code, then PID, user and value after the padding.
fn queue(target: c_int, signal: c_int, value: c_int) -> bool {
    let mut info = [0_i32; 32];
    // SAFETY: the structure is of the kernel's size, 128 bytes; the other calls take no arguments.
    unsafe {
        (info[0], info[2], info[6]) = (signal, libc::SI_QUEUE, value);
        (info[4], info[5]) = (libc::getpid(), libc::getuid() as c_int);
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            target,
            signal,
            info.as_ptr(),
            0,
        ) == 0
    }
}

fn tally(counts: &[u64; 65]) -> String {
    let mut text = String::new();
    for (signal, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let _ = write!(text, " {signal}={count}");
    }
    text
}

/// Counts every signal, with a line for every 10,000. SIGRTMAX prints the counts. The signal of
/// `--exit SIG:CODE` prints them and ends the process.
pub(crate) fn count(words: &mut Words) -> ! {
    let mut end = (0, 0);
    if words.word().is_some() {
        let (on, code) = pair_of(&words.text());
        end = (on, code);
    }
    sys::mask(libc::SIG_SETMASK, u64::MAX);
    // SAFETY: no arguments.
    sys::say(&format!("ready {}", unsafe { libc::getpid() }));
    let (mut got, mut all) = ([0_u64; 65], 0_u64);
    loop {
        let signal = receive::wait().si_signo;
        if signal == libc::SIGRTMAX() {
            sys::say(&format!("got{}", tally(&got)));
            continue;
        }
        got[signal as usize] += 1;
        all += 1;
        if all % 10_000 == 0 {
            sys::say(&format!("so far {all}"));
        }
        if signal == end.0 {
            sys::say(&format!("got{}", tally(&got)));
            // SAFETY: no pointers.
            unsafe { libc::_exit(end.1) }
        }
    }
}

fn pair_of(text: &str) -> (c_int, c_int) {
    let (on, code) = pair(text);
    (on, code.parse().unwrap_or_else(|_| sys::fail(text)))
}

/// The number of orphans that one parent makes before it exits.
const BATCH: usize = 64;
const STACK: usize = 4096;
static mut STACKS: [[u8; STACK]; BATCH] = [[0; STACK]; BATCH];

extern "C" fn end_at_once(_: *mut c_void) -> c_int {
    0
}

/// Makes `RATE` orphans a second for `MS`, or until SIGTERM, which `--stubborn` ignores. Then it
/// reports their number. An orphan shares its parent's memory, so that it is cheap. It exits as
/// soon as it is scheduled: some orphans exit before their parent, some after it.
pub(crate) fn bomb(words: &mut Words) -> c_int {
    let (rate, ms) = (words.number() as u64, words.number());
    let stubborn = words.word().is_some();
    sys::mask(libc::SIG_SETMASK, u64::MAX);
    // SAFETY: the page is shared, zeroed and never unmapped; zeroes are a valid AtomicU64.
    let made = unsafe {
        let page = libc::mmap(
            null_mut(),
            4096,
            3,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        if page == libc::MAP_FAILED {
            sys::fail_os("mmap");
        }
        &*page.cast::<AtomicU64>()
    };
    // SAFETY: no arguments.
    sys::say(&format!("ready {}", unsafe { libc::getpid() }));
    let start = Instant::now();
    let end = Duration::from_millis(ms as u64);
    let mut told = 0;
    while start.elapsed() < end && (stubborn || !asked_to_stop()) {
        let middle = sys::fork();
        if middle == 0 {
            for stack in 0..BATCH {
                // SAFETY: each process has a stack of its own, which no other one uses, and only
                // returns.
                let pid = unsafe {
                    let top = addr_of_mut!(STACKS)
                        .cast::<u8>()
                        .add((stack + 1) * STACK)
                        .cast();
                    libc::clone(end_at_once, top, libc::CLONE_VM | libc::SIGCHLD, null_mut())
                };
                if pid > 0 {
                    made.fetch_add(1, Ordering::Relaxed);
                }
            }
            // SAFETY: no pointers.
            unsafe { libc::_exit(0) }
        }
        // SAFETY: no status is asked for.
        unsafe { libc::waitpid(middle, null_mut(), 0) };
        let made = made.load(Ordering::Relaxed);
        let due = Duration::from_micros(made * 1_000_000 / rate);
        let early = due.saturating_sub(start.elapsed()).as_millis();
        // SAFETY: no descriptors.
        unsafe { libc::poll(null_mut(), 0, early as c_int) };
        if made / 10_000 > told {
            told = made / 10_000;
            sys::say(&format!("so far {made}"));
        }
    }
    let ms = start.elapsed().as_millis();
    sys::say(&format!("made {} in {ms} ms", made.load(Ordering::Relaxed)));
    0
}

/// Returns true if SIGTERM is pending.
fn asked_to_stop() -> bool {
    // SAFETY: a set that sigpending fills in.
    unsafe {
        let mut set: libc::sigset_t = zeroed();
        libc::sigpending(&raw mut set);
        libc::sigismember(&raw const set, libc::SIGTERM) == 1
    }
}

/// Forks until the kernel refuses, reports the number of children, then behaves as `signals`. Only
/// SIGKILL ends the children.
pub(crate) fn fill(words: &mut Words) -> ! {
    sys::mask(libc::SIG_SETMASK, u64::MAX);
    let mut made = 0;
    loop {
        // SAFETY: the probe has one thread.
        match unsafe { libc::fork() } {
            0 => sys::pause(),
            -1 if errno() == libc::EAGAIN => break,
            -1 => sys::fail_os("fork"),
            _ => made += 1,
        }
    }
    sys::say(&format!("full {made}"));
    receive::signals(words)
}

/// Waits for the end of stdin.
pub(crate) fn until_eof(code: c_int) -> c_int {
    // SAFETY: no arguments.
    sys::say(&format!("ready {}", unsafe { libc::getpid() }));
    // SAFETY: the buffer is one byte.
    while unsafe { libc::read(0, [0_u8].as_mut_ptr().cast(), 1) } > 0 {}
    code
}

/// Allocates memory until it is killed.
pub(crate) fn eat() -> ! {
    // SAFETY: no arguments.
    sys::say(&format!("ready {}", unsafe { libc::getpid() }));
    let mut all = Vec::new();
    loop {
        all.push(std::hint::black_box(vec![1_u8; 65_536]));
    }
}
