//! `view`: the attributes that a process inherits, one on a line. Lines that begin with `id` differ
//! from process to process.

use std::ffi::{CString, c_int};
use std::fmt::Write;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use crate::{Words, sys};

const STATUS: [&str; 21] = [
    "Umask",
    "Uid",
    "Gid",
    "Groups",
    "SigPnd",
    "ShdPnd",
    "SigBlk",
    "SigIgn",
    "SigCgt",
    "CapInh",
    "CapPrm",
    "CapEff",
    "CapBnd",
    "CapAmb",
    "NoNewPrivs",
    "Seccomp",
    "Cpus_allowed",
    "Mems_allowed",
    "CoreDumping",
    "THP_enabled",
    "Threads",
];

pub(crate) fn view(words: &mut Words) -> c_int {
    // Descriptors first: reading anything opens one.
    let open: Vec<c_int> = (0..256)
        .filter(|fd| flags(*fd, libc::F_GETFD) >= 0)
        .collect();
    let mut out = String::new();
    for fd in open {
        let target = fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_default();
        let target = target
            .to_string_lossy()
            .split(':')
            .next()
            .map(str::to_owned)
            .unwrap_or_default();
        let _ = writeln!(
            out,
            "fd {fd} {target} {:o} {:o}",
            flags(fd, libc::F_GETFL),
            flags(fd, libc::F_GETFD)
        );
    }
    for line in fs::read_to_string("/proc/self/status")
        .unwrap_or_default()
        .lines()
    {
        if STATUS
            .iter()
            .any(|name| line.split(':').next() == Some(name))
        {
            let _ = writeln!(out, "{line}");
        }
    }
    for file in [
        "limits",
        "oom_score_adj",
        "timerslack_ns",
        "personality",
        "coredump_filter",
        "cgroup",
        "loginuid",
        "sessionid",
    ] {
        let text = fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
        for line in text.lines() {
            let _ = writeln!(out, "{file} {line}");
        }
    }
    out.push_str(&of_session());
    let cwd = std::env::current_dir().unwrap_or_default();
    let _ = writeln!(out, "cwd {}", hex(cwd.as_os_str().as_bytes()));
    for (name, value) in std::env::vars_os() {
        let _ = writeln!(
            out,
            "env {}={}",
            hex(name.as_bytes()),
            hex(value.as_bytes())
        );
    }
    let mut to = None;
    while let Some(word) = words.word() {
        if word == "--to" {
            to = words.word();
        } else {
            let _ = writeln!(out, "arg {}", hex(word.as_bytes()));
        }
    }
    // SAFETY: no pointers.
    let (nice, pid, parent, group, session) = unsafe {
        (
            libc::getpriority(libc::PRIO_PROCESS, 0),
            libc::getpid(),
            libc::getppid(),
            libc::getpgrp(),
            libc::getsid(0),
        )
    };
    let _ = writeln!(
        out,
        "nice {nice}\nid pid {pid}\nid parent {parent}\nid group {group}\nid session {session}"
    );
    out.push_str(&calls());
    // Without the namespaces of processes and mounts, which the test's PID 1 has for itself.
    for name in ["cgroup", "ipc", "net", "time", "user", "uts"] {
        let target = fs::read_link(format!("/proc/self/ns/{name}")).unwrap_or_default();
        let _ = writeln!(out, "ns {}", target.display());
    }
    match to {
        None => print(1, &out),
        Some(file) => {
            let file = CString::new(file.as_bytes()).unwrap_or_default();
            // SAFETY: a string that outlives the call.
            print(
                sys::check(
                    unsafe { libc::open(file.as_ptr(), libc::O_WRONLY | libc::O_CREAT, 0o600) },
                    "open",
                ),
                &out,
            );
        }
    }
    0
}

fn of_session() -> String {
    let mut out = String::new();
    // The first word contains the session's number, which differs from test to test.
    let group = fs::read_to_string("/proc/self/autogroup").unwrap_or_default();
    let nice = group.split(' ').skip(1).collect::<Vec<_>>().join(" ");
    let _ = writeln!(out, "autogroup {}", nice.trim());
    let landlock = fs::read_dir("/usr").map_or_else(|error| error.to_string(), |_| "none".into());
    let _ = writeln!(out, "landlock {landlock}");
    // The file cannot be read without a security module that has labels.
    let label = fs::read_to_string("/proc/self/attr/current").unwrap_or_default();
    let root = fs::read_link("/proc/self/root").unwrap_or_default();
    let _ = writeln!(out, "label {}\nroot {}", label.trim(), root.display());
    out
}

/// The attributes that only a system call returns.
fn calls() -> String {
    let mut out = String::new();
    for timer in 0..3 {
        // The interval and the time left. The latter is never the same, so only its presence is
        // printed.
        let mut time = [0_i64; 4];
        // SAFETY: the kernel's own layout of the structure.
        unsafe { libc::syscall(libc::SYS_getitimer, timer, time.as_mut_ptr()) };
        let runs = time[2..] != [0, 0];
        let _ = writeln!(out, "timer {timer} {} {} {runs}", time[0], time[1]);
    }
    // SAFETY: numbers, and pointers to variables that are large enough for the results.
    unsafe {
        let mut subreaper: c_int = 0;
        libc::prctl(libc::PR_GET_CHILD_SUBREAPER, &raw mut subreaper);
        let policy = libc::syscall(libc::SYS_sched_getscheduler, 0);
        let priority = libc::syscall(libc::SYS_ioprio_get, 1, 0);
        let get = |what: c_int| libc::prctl(what, 0, 0, 0, 0);
        let (securebits, thp, mce) = (
            get(libc::PR_GET_SECUREBITS),
            get(libc::PR_GET_THP_DISABLE),
            get(libc::PR_MCE_KILL_GET),
        );
        let _ = writeln!(
            out,
            "subreaper {subreaper}\nscheduler {policy:#x}\nioprio {priority}"
        );
        let _ = writeln!(out, "securebits {securebits}\nthp {thp}\nmce {mce}");
        // Where the kernel lacks one, the error is the same in each process.
        let (flusher, mdwe, merge) = (
            get(58 /* PR_GET_IO_FLUSHER */),
            get(66 /* PR_GET_MDWE */),
            get(68 /* PR_GET_MEMORY_MERGE */),
        );
        let speculation: Vec<c_int> = (0..3)
            .map(|which| libc::prctl(52 /* PR_GET_SPECULATION_CTRL */, which, 0, 0, 0))
            .collect();
        let mut tsc: c_int = 0;
        libc::prctl(25 /* PR_GET_TSC */, &raw mut tsc);
        let mut cookie = 0_u64;
        libc::prctl(62 /* PR_SCHED_CORE */, 0, 0, 0, &raw mut cookie);
        // Without MPOL_F_NODE and MPOL_F_ADDR, the call returns the process's own policy.
        let (mut policy, mut nodes) = (0 as c_int, [0_u64; 16]);
        libc::syscall(
            libc::SYS_get_mempolicy,
            &raw mut policy,
            nodes.as_mut_ptr(),
            1024,
            0,
            0,
        );
        // The description of the session keyring, without its number: each test's keyring has
        // another one.
        let mut text = [0_u8; 256];
        let room = text.len();
        let length = libc::syscall(libc::SYS_keyctl, 6, -3, text.as_mut_ptr(), room);
        let length = usize::try_from(length).map_or(0, |length| length.min(room));
        let keyring = String::from_utf8_lossy(&text[..length]);
        let keyring = keyring.trim_end_matches('\0');
        let _ = writeln!(
            out,
            "io_flusher {flusher}\nmdwe {mdwe}\nmerge {merge}\nspeculation {speculation:?}\n\
             tsc {tsc}\ncookie {cookie:#x}\nmempolicy {policy} {:#x}\nkeyring {keyring}",
            nodes[0]
        );
    }
    out
}

fn flags(fd: c_int, which: c_int) -> c_int {
    // SAFETY: no pointers.
    unsafe { libc::fcntl(fd, which) }
}

/// Bytes as text: all but visible ASCII characters are escaped.
fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .map(|byte| {
            if byte.is_ascii_graphic() {
                char::from(*byte).to_string()
            } else {
                format!("\\x{byte:02x}")
            }
        })
        .collect()
}

fn print(fd: c_int, text: &str) {
    // SAFETY: the buffer is valid for its length.
    unsafe { libc::write(fd, text.as_ptr().cast(), text.len()) };
}
