//! The surroundings that a command, or bowout, is started in.

use std::ffi::{CStr, c_int, c_long, c_ulong};
use std::fs;
use std::ptr::null;

use crate::{Words, receive, signal, sys, tree};

const CAP_KILL: c_int = 5;
const CAP_SYS_PTRACE: c_int = 19;

pub(crate) fn kill(words: &mut Words) -> c_int {
    let pid = words.number();
    while let Some(word) = words.word() {
        // SAFETY: no pointers.
        sys::check(
            unsafe { libc::kill(pid, signal(&word.to_string_lossy())) },
            "kill",
        );
    }
    0
}

/// A tracer that never waits: its tracee's parent cannot reap the tracee after its end.
pub(crate) fn trace(pid: c_int) -> ! {
    // SAFETY: no pointers are read.
    let done = unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, 0, 0) };
    sys::check(done as c_int, "ptrace");
    sys::say("traced");
    sys::pause()
}

/// Starts COMMAND from a thread that exits once COMMAND has a child. The process goes on and waits
/// for SIGTERM.
pub(crate) fn thread(words: &mut Words) -> c_int {
    words.word();
    let command = words.command();
    let starts = move || {
        let pid = sys::fork();
        if pid == 0 {
            sys::exec(command)
        }
        while tree::children(pid) == 0 {
            std::thread::yield_now();
        }
    };
    if std::thread::spawn(starts).join().is_err() {
        sys::fail("thread");
    }
    while fs::read_dir("/proc/self/task").map_or(0, Iterator::count) != 1 {
        std::thread::yield_now();
    }
    sys::mask(libc::SIG_SETMASK, sys::bit(libc::SIGTERM));
    sys::say("the thread has ended");
    while receive::wait().si_signo != libc::SIGTERM {}
    0
}

fn list(words: &mut Words) -> Vec<c_int> {
    words.text().split(',').map(signal).collect()
}

pub(crate) fn with(words: &mut Words) -> ! {
    while let Some(option) = words.word() {
        match option.to_str().unwrap_or_default() {
            "--" => sys::exec(words.command()),
            "--block" => sys::mask(libc::SIG_BLOCK, list(words).into_iter().map(sys::bit).sum()),
            "--ignore" => list(words)
                .into_iter()
                .for_each(|signal| sys::disposition(signal, libc::SIG_IGN)),
            "--default" => list(words)
                .into_iter()
                .for_each(|signal| sys::disposition(signal, libc::SIG_DFL)),
            // SAFETY: no pointers; no error matters, because the descriptor is closed in any case.
            "--close" => list(words).into_iter().for_each(|fd| unsafe {
                libc::close(fd);
            }),
            "--nofile" => limit(libc::RLIMIT_NOFILE, Some(words.number())),
            "--nproc" => limit(libc::RLIMIT_NPROC, Some(words.number())),
            "--sigpending" => limit(libc::RLIMIT_SIGPENDING, Some(words.number())),
            // `--fsize` is in bytes, `--as` in KiB.
            "--fsize" => limit(libc::RLIMIT_FSIZE, Some(words.number())),
            "--as" => limit(libc::RLIMIT_AS, Some(words.number() * 1024)),
            "--oom" => write("/proc/self/oom_score_adj", &words.text()),
            "--cgroup" => write(&format!("{}/cgroup.procs", words.text()), "0"),
            "--core" => limit(libc::RLIMIT_CORE, None),
            // SAFETY: no pointers.
            "--umask" => unsafe {
                libc::umask(words.number() as libc::mode_t);
            },
            // SAFETY: no pointers.
            "--setsid" => unsafe {
                libc::setsid();
            },
            "--raise" => {
                // SAFETY: no pointers.
                sys::check(
                    unsafe { libc::kill(libc::getpid(), signal(&words.text())) },
                    "kill",
                );
            }
            // The number of ITIMER_REAL, VIRTUAL or PROF, the time to its first expiry, and the
            // interval after it, both in ms.
            "--timer" => timer(words.number(), words.number(), words.number()),
            // SAFETY: no pointers but to a valid structure.
            "--reset-on-fork" => unsafe {
                sys::check(libc::setpriority(libc::PRIO_PROCESS, 0, -5), "setpriority");
                let parameters: libc::sched_param = std::mem::zeroed();
                let policy = libc::SCHED_BATCH | libc::SCHED_RESET_ON_FORK;
                let done = libc::syscall(
                    libc::SYS_sched_setscheduler,
                    0,
                    policy,
                    &raw const parameters,
                );
                sys::check(done as c_int, "sched_setscheduler");
            },
            "--subreaper" => prctl(libc::PR_SET_CHILD_SUBREAPER, 1),
            "--slack" => prctl(libc::PR_SET_TIMERSLACK, words.number() as c_ulong),
            "--no-thp" => prctl(libc::PR_SET_THP_DISABLE, 1),
            "--securebits" => prctl(libc::PR_SET_SECUREBITS, words.number() as c_ulong),
            "--mce" => prctl2(
                libc::PR_MCE_KILL,
                libc::PR_MCE_KILL_SET as c_ulong,
                words.number() as c_ulong,
            ),
            // SAFETY: no pointers.
            "--ioprio" => unsafe {
                sys::check(
                    libc::syscall(libc::SYS_ioprio_set, 1, 0, words.number()) as c_int,
                    "ioprio_set",
                );
            },
            "--nice" => {
                // SAFETY: no pointers.
                sys::check(
                    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, words.number()) },
                    "setpriority",
                );
            }
            "--refuse" => refuse(&words.text()),
            "--filter" => filter(&words.text()),
            "--no-cap-kill" => drop_capability(CAP_KILL),
            "--no-cap-ptrace" => drop_capability(CAP_SYS_PTRACE),
            "--uid" => {
                let uid = words.number() as libc::uid_t;
                // SAFETY: no pointers but to an empty list.
                unsafe {
                    sys::check(libc::setgroups(0, null()), "setgroups");
                    sys::check(libc::setresgid(uid, uid, uid), "setresgid");
                    sys::check(libc::setresuid(uid, uid, uid), "setresuid");
                }
            }
            other => attribute(other, words),
        }
    }
    sys::fail("with: no command")
}

/// Sets an attribute. Where the kernel refuses one, it stays as it is; only `--async` must succeed.
fn attribute(option: &str, words: &mut Words) {
    match option {
        // SAFETY: no pointers, but to a number that outlives the call.
        "--memory-policy" => unsafe {
            let first = 1_u64;
            libc::syscall(
                libc::SYS_set_mempolicy,
                1, /* MPOL_PREFERRED */
                &raw const first,
                64,
            );
        },
        // SAFETY: a keyring without a name.
        "--keyring" => unsafe {
            libc::syscall(
                libc::SYS_keyctl,
                1, /* KEYCTL_JOIN_SESSION_KEYRING */
                0,
            );
        },
        // The process cannot read any directory after this.
        // SAFETY: a structure of one number that outlives the call.
        "--landlock" => unsafe {
            let handled = 1_u64 << 3; // LANDLOCK_ACCESS_FS_READ_DIR
            let rules = libc::syscall(444, &raw const handled, 8, 0);
            libc::syscall(446, rules, 0);
            libc::close(rules as c_int);
        },
        "--speculation" => optional(53, 0, 1 << 2),
        "--mdwe" => optional(65, 1, 0),
        "--merge" => optional(67, 1, 0),
        "--cookie" => optional(62, 1, 0),
        // The kernel sends SIGIO to this process for the descriptor.
        "--async" => {
            let fd = words.number();
            // SAFETY: no pointers.
            unsafe {
                sys::check(libc::fcntl(fd, libc::F_SETOWN, libc::getpid()), "F_SETOWN");
                let flags = libc::fcntl(fd, libc::F_GETFL) | libc::O_ASYNC;
                sys::check(libc::fcntl(fd, libc::F_SETFL, flags), "F_SETFL");
            }
        }
        other => sys::fail(other),
    }
}

fn timer(which: c_int, left: c_int, interval: c_int) {
    let time = |ms: c_int| [c_long::from(ms / 1000), c_long::from(ms % 1000 * 1000)];
    let timer = [time(interval), time(left)];
    // SAFETY: the kernel's own layout of the structure.
    let done = unsafe { libc::syscall(libc::SYS_setitimer, which, &raw const timer, 0) };
    sys::check(done as c_int, "setitimer");
}

fn prctl(what: c_int, value: c_ulong) {
    prctl2(what, value, 0);
}

/// For PR_SET_SPECULATION_CTRL, PR_SET_MDWE, PR_SET_MEMORY_MERGE and PR_SCHED_CORE. A refusal is
/// ignored, because some kernels lack them.
fn optional(what: c_int, value: c_ulong, more: c_ulong) {
    // SAFETY: none of these takes a pointer here.
    unsafe { libc::prctl(what, value, more, 0, 0) };
}

fn prctl2(what: c_int, value: c_ulong, more: c_ulong) {
    // SAFETY: none of these takes a pointer.
    sys::check(unsafe { libc::prctl(what, value, more, 0, 0) }, "prctl");
}

/// Drops a capability from the bounding set. Root loses it at the next exec.
fn drop_capability(which: c_int) {
    // SAFETY: no pointers.
    sys::check(
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, which) },
        "PR_CAPBSET_DROP",
    );
}

/// Installs a seccomp filter, which stays for good. `CALL:ERRNO`, both as numbers, refuses the
/// call. `CALL:ERRNO:ARG:VALUE` allows it where that argument, counted from 0, has that value.
fn refuse(text: &str) {
    let numbers: Vec<u32> = text
        .split(':')
        .map(|word| crate::number(word) as u32)
        .collect();
    let (call, errno, but) = match numbers[..] {
        [call, errno] => (call, errno, None),
        [call, errno, argument, value] => (call, errno, Some((argument, value))),
        _ => sys::fail(text),
    };
    let step = |code: u32, yes, no, k| libc::sock_filter {
        code: code as u16,
        jt: yes,
        jf: no,
        k,
    };
    let load = |at| step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, at);
    let equals = |value, yes, no| step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, yes, no, value);
    let end = |with| step(libc::BPF_RET | libc::BPF_K, 0, 0, with);
    // In struct seccomp_data the number comes first. The arguments, of eight bytes each, begin
    // after 16 bytes (seccomp(2)).
    let mut filter = vec![load(0), equals(call, 0, if but.is_some() { 3 } else { 1 })];
    if let Some((argument, value)) = but {
        let half = if cfg!(target_endian = "big") { 4 } else { 0 };
        filter.extend([load(16 + 8 * argument + half), equals(value, 1, 0)]);
    }
    filter.extend([
        end(libc::SECCOMP_RET_ERRNO | errno),
        end(libc::SECCOMP_RET_ALLOW),
    ]);
    install(&mut filter);
}

/// Installs a filter from a file with one instruction on a line: `CODE JT JF K`, as tcpdump(1)
/// prints them.
fn filter(file: &str) {
    let text =
        fs::read_to_string(file).unwrap_or_else(|error| sys::fail(&format!("{file}: {error}")));
    let step = |line: &str| {
        let numbers: Vec<u32> = line
            .split(' ')
            .map_while(|word| word.parse().ok())
            .collect();
        let [code, jt, jf, k] = numbers[..] else {
            sys::fail(line)
        };
        libc::sock_filter {
            code: code as u16,
            jt: jt as u8,
            jf: jf as u8,
            k,
        }
    };
    install(&mut text.lines().map(step).collect::<Vec<_>>());
}

fn install(filter: &mut [libc::sock_filter]) {
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the program outlives the call and has the length that it states.
    unsafe {
        sys::check(
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
            "PR_SET_NO_NEW_PRIVS",
        );
        sys::check(
            libc::prctl(
                libc::PR_SET_SECCOMP,
                libc::SECCOMP_MODE_FILTER,
                &raw const program,
            ),
            "PR_SET_SECCOMP",
        );
    }
}

fn write(file: &str, text: &str) {
    fs::write(file, text).unwrap_or_else(|error| sys::fail(&format!("{file}: {error}")));
}

/// Sets the soft limit; without a number, to the hard limit. C libraries have different types for
/// `which`.
fn limit(which: impl TryInto<c_int>, soft: Option<c_int>) {
    let Ok(which) = which.try_into() else {
        sys::fail("limit")
    };
    // SAFETY: the structure is valid for both calls.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        sys::check(libc::getrlimit(which as _, &raw mut limit), "getrlimit");
        limit.rlim_cur = soft.map_or(limit.rlim_max, |soft| soft as libc::rlim_t);
        sys::check(libc::setrlimit(which as _, &raw const limit), "setrlimit");
    }
}

pub(crate) fn ns(words: &mut Words) -> ! {
    let (mut here, mut fork, mut over) = (false, true, Mount::Proc);
    while let Some(option) = words.word() {
        match option.to_str().unwrap_or_default() {
            "--" => break,
            "--here" => here = true,
            "--no-fork" => fork = false,
            "--no-proc" => over = Mount::NoProc,
            "--hide" => over = Mount::HidingProc,
            "--outer-proc" => over = Mount::OuterProc,
            "--ended-proc" => over = Mount::EndedProc,
            "--no-tty" => over = Mount::NoTty,
            "--own-dev" => over = Mount::OwnDev,
            other => sys::fail(other),
        }
    }
    // SAFETY: no pointers.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    let user = if uid == 0 { 0 } else { libc::CLONE_NEWUSER };
    let process = if here { 0 } else { libc::CLONE_NEWPID };
    // SAFETY: no pointers.
    sys::check(
        unsafe { libc::unshare(user | process | libc::CLONE_NEWNS) },
        "unshare",
    );
    if user != 0 {
        for (file, text) in [
            ("setgroups", "deny".into()),
            ("uid_map", format!("0 {uid} 1")),
            ("gid_map", format!("0 {gid} 1")),
        ] {
            fs::write(format!("/proc/self/{file}"), text)
                .unwrap_or_else(|error| sys::fail(&format!("{file}: {error}")));
        }
    }
    let command = words.command();
    if !fork {
        sys::exec(command)
    }
    if here {
        mount(over);
        sys::exec(command)
    }
    let pid = sys::fork();
    if pid == 0 {
        sys::die_with_parent();
        mount(over);
        sys::exec(command)
    }
    // SAFETY: no pointers but to a valid integer. This process closes its copies of stdout and
    // stderr, which would keep the pipes open after COMMAND.
    let status = unsafe {
        for fd in 0..3 {
            libc::close(fd);
        }
        let mut status = 0;
        while libc::waitpid(pid, &raw mut status, 0) < 0 {}
        status
    };
    if libc::WIFSIGNALED(status) {
        sys::die(libc::WTERMSIG(status))
    }
    // SAFETY: no pointers.
    unsafe { libc::_exit(libc::WEXITSTATUS(status)) }
}

/// The mount to make in the new mount namespace.
#[derive(Clone, Copy)]
enum Mount {
    /// /proc of the new PID namespace.
    Proc,
    /// A /proc that hides other users' processes (proc(5), `hidepid`), except from members of a
    /// group. The default group is root's, so another one is named.
    HidingProc,
    /// /proc stays that of the PID namespace in which this process was started.
    OuterProc,
    /// /proc of a PID namespace whose processes have all exited.
    EndedProc,
    /// An empty /proc.
    NoProc,
    /// A /dev of the test's own, with the null device and the links to descriptors. Only root can
    /// make it.
    OwnDev,
    /// A /dev/tty that no process can open, not even root's (mount(2), `MS_NODEV`).
    NoTty,
}

fn mount(what: Mount) {
    let over = |kind: &CStr, at: &CStr, flags: c_ulong, options: &CStr| {
        // SAFETY: strings that outlive the call.
        let done = unsafe {
            libc::mount(
                kind.as_ptr(),
                at.as_ptr(),
                kind.as_ptr(),
                flags,
                options.as_ptr().cast(),
            )
        };
        sys::check(done, &at.to_string_lossy());
    };
    over(c"none", c"/", libc::MS_REC | libc::MS_PRIVATE, c"");
    match what {
        Mount::Proc => over(c"proc", c"/proc", 0, c""),
        Mount::HidingProc => over(c"proc", c"/proc", 0, c"hidepid=2,gid=65533"),
        Mount::OuterProc => {}
        Mount::EndedProc => {
            let middle = sys::fork();
            if middle == 0 {
                // SAFETY: no pointers.
                sys::check(unsafe { libc::unshare(libc::CLONE_NEWPID) }, "unshare");
                let first = sys::fork();
                if first == 0 {
                    over(c"proc", c"/proc", 0, c"");
                } else {
                    tree::reap(first);
                }
                // SAFETY: no pointers.
                unsafe { libc::_exit(0) }
            }
            tree::reap(middle);
        }
        Mount::NoProc => over(c"tmpfs", c"/proc", 0, c""),
        Mount::OwnDev => {
            over(c"tmpfs", c"/dev", 0, c"mode=755");
            for (target, name) in [
                (c"/proc/self/fd", c"/dev/fd"),
                (c"/proc/self/fd/0", c"/dev/stdin"),
                (c"/proc/self/fd/1", c"/dev/stdout"),
                (c"/proc/self/fd/2", c"/dev/stderr"),
            ] {
                // SAFETY: strings that outlive the call.
                sys::check(
                    unsafe { libc::symlink(target.as_ptr(), name.as_ptr()) },
                    "symlink",
                );
            }
            // SAFETY: a string that outlives the call.
            sys::check(
                unsafe {
                    libc::mknod(
                        c"/dev/null".as_ptr(),
                        libc::S_IFCHR | 0o666,
                        libc::makedev(1, 3),
                    )
                },
                "mknod",
            );
        }
        Mount::NoTty => {
            over(c"/dev/tty", c"/dev/tty", libc::MS_BIND, c"");
            let flags = libc::MS_NODEV | libc::MS_NOSUID | libc::MS_NOEXEC;
            over(
                c"none",
                c"/dev/tty",
                libc::MS_REMOUNT | libc::MS_BIND | flags,
                c"",
            );
        }
    }
}
