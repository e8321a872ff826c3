//! The errors that are injected into each system call: those of its manual page that a correct
//! caller can receive, and `EPERM` and `ENOSYS`, with which a seccomp filter or an old kernel
//! refuses a call. A call of bowout that is missing in this table fails the suite.

/// The calls, and the errors of each. `retval=N`: the call returns N without doing its work.
const ERRORS: &[(&str, &[&str])] = &[
    // Files.
    ("open", FILE),
    ("openat", FILE),
    ("openat2", FILE),
    ("read", &["EAGAIN", "EINTR", "EIO"]),
    ("write", WRITE),
    ("writev", WRITE),
    (
        "pwritev2",
        &[
            "EAGAIN",
            "EINTR",
            "EIO",
            "ENOSPC",
            "EPIPE",
            "EPERM",
            "ENOSYS",
            "EOPNOTSUPP",
            "retval=0",
            "retval=1",
        ],
    ),
    ("close", &["EINTR", "EIO", "ENOSPC"]),
    ("close_range", &["ENOMEM", "ENOSYS", "EPERM"]),
    ("fcntl", &["EMFILE", "EINVAL", "EPERM"]),
    ("dup2", &["EBUSY", "EINTR", "EMFILE"]),
    ("dup3", &["EBUSY", "EINTR", "EMFILE"]),
    ("lseek", &["ESPIPE", "EINVAL"]),
    ("fstat", STAT),
    ("newfstatat", STAT),
    ("stat", STAT),
    ("lstat", STAT),
    ("statx", STAT),
    ("fstatfs", STAT),
    ("pwrite64", WRITE),
    ("ftruncate", &["EINTR", "EIO", "EPERM"]),
    ("access", STAT),
    ("faccessat", STAT),
    ("readlink", STAT),
    ("readlinkat", STAT),
    ("getdents64", &["EIO", "ENOENT", "ENOMEM", "EPERM"]),
    ("getcwd", &["EACCES", "ENOENT", "ENOMEM"]),
    ("chdir", &["EACCES", "EIO", "ENOENT", "ENOMEM", "EPERM"]),
    ("chmod", CHANGE),
    ("fchmodat", CHANGE),
    ("unlink", CHANGE),
    ("unlinkat", CHANGE),
    (
        "mkdir",
        &[
            "EACCES", "EEXIST", "EIO", "EMLINK", "ENOENT", "ENOSPC", "EPERM", "EROFS",
        ],
    ),
    ("rmdir", CHANGE),
    ("rename", CHANGE),
    ("renameat", CHANGE),
    ("ioctl", &["EIO", "ENOTTY", "EPERM"]),
    // Waiting and signals.
    (
        "signalfd4",
        &["EMFILE", "ENFILE", "ENODEV", "ENOMEM", "ENOSYS", "EPERM"],
    ),
    ("poll", &["EINTR", "ENOMEM", "EINVAL"]),
    ("ppoll", &["EINTR", "ENOMEM", "EINVAL"]),
    ("kill", &["EPERM", "ESRCH", "ENOSYS"]),
    // bowout forwards a signal with its value.
    ("rt_sigqueueinfo", &["EAGAIN", "EPERM", "ESRCH"]),
    (
        "pidfd_open",
        &[
            "EMFILE", "ENFILE", "ENODEV", "ENOMEM", "ENOSYS", "EPERM", "ESRCH",
        ],
    ),
    ("pidfd_send_signal", &["ENOSYS", "EPERM", "ESRCH"]),
    ("rt_sigtimedwait", &["EAGAIN", "EINTR"]),
    // Processes.
    ("clone", FORK),
    ("clone3", FORK),
    ("fork", FORK),
    ("vfork", FORK),
    ("execve", EXEC),
    ("pipe2", &["EMFILE", "ENFILE", "ENOMEM", "ENOSYS"]),
    ("setpgid", &["EACCES", "EPERM", "ESRCH"]),
    ("getpgid", &["EPERM", "ESRCH"]),
    ("getsid", &["EPERM", "ESRCH"]),
    ("prctl", &["EINVAL", "ENOSYS", "EPERM"]),
    // Not ECHILD: the child exists, so the kernel does not return it.
    ("waitid", &["EINTR", "ENOSYS", "EPERM"]),
    ("wait4", &["ECHILD", "EINTR", "ENOSYS", "EPERM"]),
    ("setitimer", &["ENOSYS", "EPERM"]),
    ("sched_getattr", &["ENOSYS", "EPERM"]),
    ("prlimit64", &["EPERM", "ENOSYS"]),
    ("setrlimit", &["EPERM"]),
    // Sockets.
    (
        "socket",
        &[
            "EACCES",
            "EAFNOSUPPORT",
            "EMFILE",
            "ENFILE",
            "ENOBUFS",
            "ENOMEM",
            "EPERM",
        ],
    ),
    ("setsockopt", &["ENOMEM", "ENOPROTOOPT", "EPERM"]),
    (
        "bind",
        &["EACCES", "EADDRINUSE", "ENOENT", "ENOMEM", "EPERM", "EROFS"],
    ),
    ("getsockname", &["ENOBUFS", "EPERM"]),
    (
        "connect",
        &["EACCES", "EAGAIN", "ECONNREFUSED", "ENOENT", "EPERM"],
    ),
    (
        "sendmsg",
        &[
            "EAGAIN",
            "ECONNREFUSED",
            "EINTR",
            "ENOBUFS",
            "ENOMEM",
            "ENOTCONN",
            "EPERM",
            "EPIPE",
        ],
    ),
    (
        "sendto",
        &["EAGAIN", "EINTR", "ENOBUFS", "ENOMEM", "EPIPE", "EPERM"],
    ),
    ("recvmsg", &["EAGAIN", "EINTR", "ENOMEM", "EPERM"]),
    ("getsockopt", &["EPERM"]),
    // Memory and the C library. The kernel's brk(2) has no errors: it returns the current break.
    ("brk", &["retval=0"]),
    ("mmap", &["ENOMEM", "EPERM"]),
    ("mremap", &["ENOMEM", "EPERM"]),
    ("mprotect", &["EACCES", "ENOMEM"]),
    ("madvise", &["EAGAIN", "ENOMEM", "EINVAL"]),
    ("arch_prctl", &["EPERM"]),
    ("rseq", &["EINVAL", "ENOSYS", "EPERM"]),
    ("set_robust_list", &["EINVAL", "ENOSYS"]),
    ("getrandom", &["EINTR", "EINVAL", "ENOSYS", "EPERM"]),
    ("clock_gettime", &["EPERM"]),
    ("umask", &[]),
    // These cannot fail with the arguments that bowout gives them.
    ("rt_sigprocmask", &[]),
    ("rt_sigaction", &[]),
    ("set_tid_address", &[]),
    ("munmap", &[]),
    ("getpid", &[]),
    ("gettid", &[]),
    ("getppid", &[]),
    ("getpgrp", &[]),
    ("geteuid", &[]),
    ("getuid", &[]),
    ("sched_yield", &[]),
    ("exit_group", &[]),
];

const FILE: &[&str] = &[
    "EACCES", "EINTR", "EIO", "EMFILE", "ENFILE", "ENOENT", "ENOMEM", "ENOSPC", "EPERM",
];
const WRITE: &[&str] = &[
    "EAGAIN", "EINTR", "EIO", "ENOSPC", "EPIPE", "EPERM", "retval=0", "retval=1",
];
const STAT: &[&str] = &["EACCES", "EIO", "ENOENT", "ENOMEM", "ENOSYS", "EPERM"];
const CHANGE: &[&str] = &[
    "EACCES", "EBUSY", "EIO", "ENOENT", "ENOSPC", "EPERM", "EROFS",
];
const FORK: &[&str] = &["EAGAIN", "ENOMEM", "ENOSYS", "EPERM"];
/// The errors of execve(2) for a program that exists. `ENOEXEC` is left out: bowout then runs a
/// text file with the shell, and the program is not one.
const EXEC: &[&str] = &[
    "E2BIG", "EACCES", "EAGAIN", "EIO", "ELIBBAD", "ELOOP", "EMFILE", "ENFILE", "ENOENT", "ENOMEM",
    "ENOTDIR", "EPERM", "ETXTBSY",
];

pub fn of(call: &str) -> Option<&'static [&'static str]> {
    ERRORS
        .iter()
        .find(|(name, _)| *name == call)
        .map(|(_, errors)| *errors)
}

/// The C library's text for this error, as a log line contains it.
pub fn description(error: &str) -> String {
    let number = match error {
        "E2BIG" => libc::E2BIG,
        "EACCES" => libc::EACCES,
        "EADDRINUSE" => libc::EADDRINUSE,
        "EAFNOSUPPORT" => libc::EAFNOSUPPORT,
        "EAGAIN" => libc::EAGAIN,
        "EBUSY" => libc::EBUSY,
        "ECHILD" => libc::ECHILD,
        "ECONNREFUSED" => libc::ECONNREFUSED,
        "EINTR" => libc::EINTR,
        "EINVAL" => libc::EINVAL,
        "EIO" => libc::EIO,
        "ELIBBAD" => libc::ELIBBAD,
        "ELOOP" => libc::ELOOP,
        "EMFILE" => libc::EMFILE,
        "ENFILE" => libc::ENFILE,
        "ENOBUFS" => libc::ENOBUFS,
        "ENODEV" => libc::ENODEV,
        "ENOENT" => libc::ENOENT,
        "ENOMEM" => libc::ENOMEM,
        "ENOPROTOOPT" => libc::ENOPROTOOPT,
        "ENOSPC" => libc::ENOSPC,
        "ENOSYS" => libc::ENOSYS,
        "ENOTCONN" => libc::ENOTCONN,
        "ENOTDIR" => libc::ENOTDIR,
        "ENOTTY" => libc::ENOTTY,
        "EOPNOTSUPP" => libc::EOPNOTSUPP,
        "EPERM" => libc::EPERM,
        "EPIPE" => libc::EPIPE,
        "EROFS" => libc::EROFS,
        "ESPIPE" => libc::ESPIPE,
        "ESRCH" => libc::ESRCH,
        "ETXTBSY" => libc::ETXTBSY,
        _ => return error.to_owned(),
    };
    let text = std::io::Error::from_raw_os_error(number).to_string();
    text.split(" (os error")
        .next()
        .unwrap_or_default()
        .to_owned()
}
