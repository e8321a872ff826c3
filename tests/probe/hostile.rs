//! `hostile`: a command that works against the process that supervises it.

use std::ffi::{CStr, CString, OsString, c_int, c_ulong};
use std::os::unix::ffi::OsStringExt;
use std::ptr::{null, null_mut};

use crate::{Words, receive, signal, sys};

/// Runs the acts that the words name, one after the other, with every signal blocked. After `--`,
/// it behaves as `signals`.
pub(crate) fn hostile(words: &mut Words) -> ! {
    sys::mask(libc::SIG_SETMASK, u64::MAX);
    // SAFETY: no arguments.
    let parent = unsafe { libc::getppid() };
    while let Some(act) = words.word() {
        match act.to_str().unwrap_or_default() {
            "--" => break,
            "say" => sys::say(&words.text()),
            "await" => await_signal(signal(&words.text())),
            "name" => name(words.word().unwrap_or_default()),
            // SAFETY: no pointers; the parent exists as long as this process is its child.
            "tell" => drop(sys::check(
                unsafe { libc::kill(parent, signal(&words.text())) },
                "kill",
            )),
            "echo" => echo(parent, signal(&words.text())),
            "forge" => forge(parent, words.number(), signal(&words.text())),
            // SAFETY: no pointers. Where the system refuses kill(-1), the act fails, not the test.
            "all" => drop(unsafe { libc::kill(-1, signal(&words.text())) }),
            "limit" => limit(parent, words.number(), words.number()),
            "trace" => trace(
                if words
                    .0
                    .as_slice()
                    .first()
                    .is_some_and(|word| word == "parent")
                {
                    words.text();
                    parent
                } else {
                    words.number()
                },
            ),
            "attach" => attach(parent),
            "fill" => fill(words.number()),
            "async" => on_every_line(parent, signal(&words.text())),
            // SAFETY: no pointers.
            "shutdown" => drop(sys::check(
                unsafe { libc::shutdown(words.number(), libc::SHUT_RDWR) },
                "shutdown",
            )),
            "reopen" => reopen(parent),
            // SAFETY: no arguments.
            "session" => drop(unsafe { libc::setsid() }),
            "leave" => leave(),
            "chain" => chain(),
            "thread" => thread(std::mem::take(&mut words.0).collect()),
            "proc" => over(c"/proc"),
            "uncover" => uncover(c"/proc"),
            "task" => {
                over(&CString::new(format!("/proc/{parent}/task/{parent}")).unwrap_or_default());
            }
            "mounts" => own_mounts(),
            "uid" => user(words.number() as libc::uid_t),
            other => sys::fail(other),
        }
    }
    receive::signals(words)
}

fn await_signal(signal: c_int) {
    let set = sys::bit(signal);
    // SAFETY: the set is 8 bytes; nothing is written.
    while unsafe {
        libc::syscall(
            libc::SYS_rt_sigtimedwait,
            &raw const set,
            null::<u8>(),
            null::<u8>(),
            8,
        )
    } < 0
    {}
}

/// Sets the name that ps(1) and the log print: up to 15 bytes.
fn name(name: OsString) {
    let name = CString::new(name.into_vec()).unwrap_or_default();
    // SAFETY: a string that outlives the call.
    sys::check(
        unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) },
        "PR_SET_NAME",
    );
}

/// Sends the signal to the parent and waits until it comes back.
fn echo(parent: c_int, signal: c_int) {
    // SAFETY: no pointers.
    sys::check(unsafe { libc::kill(parent, signal) }, "kill");
    await_signal(signal);
    sys::say(&format!("back {signal}"));
}

/// Queues a signal with a false sender: rt_sigqueueinfo(2) takes the sender's PID and UID from the
/// caller.
fn forge(parent: c_int, pid: c_int, signal: c_int) {
    #[repr(C)]
    struct Info {
        numbers: [c_int; 4],
        sender: [c_int; 2],
        rest: [u64; 13],
    }
    let info = Info {
        numbers: [signal, 0, libc::SI_QUEUE, 0],
        sender: [pid, 4242],
        rest: [0; 13],
    };
    // SAFETY: as many bytes as a siginfo_t has.
    let done = unsafe { libc::syscall(libc::SYS_rt_sigqueueinfo, parent, signal, &raw const info) };
    sys::check(done as c_int, "rt_sigqueueinfo");
}

fn limit(pid: c_int, which: c_int, to: c_int) {
    let limit = libc::rlimit64 {
        rlim_cur: to as u64,
        rlim_max: to as u64,
    };
    // SAFETY: the new limit is only read, and there is no pointer for the old one.
    let done = unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            pid,
            which,
            &raw const limit,
            null_mut::<u8>(),
        )
    };
    sys::check(done as c_int, "prlimit");
}

/// Seizes a process and never waits for it. A signal stops the process, and after its end no other
/// process can reap it.
fn trace(pid: c_int) {
    // SAFETY: no pointers are read.
    sys::check(
        unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, 0, 0) } as c_int,
        "ptrace",
    );
}

/// Seizes a process and stops it, until this tracer exits.
fn attach(pid: c_int) {
    trace(pid);
    // SAFETY: no pointers are read; no status is asked for.
    unsafe {
        sys::check(
            libc::ptrace(libc::PTRACE_INTERRUPT, pid, 0, 0) as c_int,
            "ptrace",
        );
        sys::check(libc::waitpid(pid, null_mut(), libc::__WALL), "waitpid");
    }
}

fn open(path: &str, flags: c_int) -> c_int {
    let path = CString::new(path).unwrap_or_default();
    // SAFETY: a string that outlives the call.
    unsafe {
        libc::open(
            path.as_ptr(),
            flags | libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_NOCTTY,
        )
    }
}

/// Writes to a pipe until it is full. It opens a file description of its own, so that the flags of
/// the shared one stay as they are.
fn fill(fd: c_int) {
    let own = sys::check(open(&format!("/proc/self/fd/{fd}"), libc::O_WRONLY), "open");
    for size in [4096, 1] {
        let block = vec![b'\n'; size];
        // SAFETY: the buffer is valid for its length.
        while unsafe { libc::write(own, block.as_ptr().cast(), size) } > 0 {}
    }
}

/// Makes the kernel send the signal to the parent each time a process reads from stderr, which the
/// two share (fcntl(2), `O_ASYNC`).
fn on_every_line(parent: c_int, signal: c_int) {
    // SAFETY: no pointers.
    unsafe {
        sys::check(libc::fcntl(2, libc::F_SETOWN, parent), "F_SETOWN");
        sys::check(libc::fcntl(2, 10 /* F_SETSIG */, signal), "F_SETSIG");
        sys::check(
            libc::fcntl(
                2,
                libc::F_SETFL,
                libc::fcntl(2, libc::F_GETFL) | libc::O_ASYNC,
            ),
            "F_SETFL",
        );
    }
}

/// Opens each of the parent's descriptors 0 to 63 anew, for writing and then for reading. Each time
/// it tries to write one byte and to read one. Errors are ignored.
fn reopen(parent: c_int) {
    for fd in 0..64 {
        for flags in [libc::O_WRONLY, libc::O_RDONLY] {
            let own = open(&format!("/proc/{parent}/fd/{fd}"), flags);
            let mut byte = [b'\n'];
            // SAFETY: the buffer is one byte; the descriptor is this process's own, or -1.
            unsafe {
                libc::write(own, byte.as_ptr().cast(), 1);
                libc::read(own, byte.as_mut_ptr().cast(), 1);
                libc::close(own);
            }
        }
    }
}

fn exit() -> ! {
    // SAFETY: no pointers.
    unsafe { libc::_exit(0) }
}

/// Continues in a child, which becomes an orphan.
fn leave() {
    if sys::fork() > 0 {
        exit()
    }
}

/// Forks for ever, and each parent exits at once. Each process has a session of its own, and a name
/// that misleads a parser of /proc/PID/stat.
fn chain() -> ! {
    loop {
        leave();
        // SAFETY: no arguments.
        let pid = unsafe { libc::setsid() };
        name(format!("{pid}) Z 1 (").into());
    }
}

/// Continues in another thread. The main thread exits, and the process then looks like a zombie.
fn thread(words: Vec<OsString>) -> ! {
    std::thread::spawn(move || hostile(&mut Words(words.into_iter())));
    // SAFETY: this thread holds nothing that the other needs.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    exit()
}

/// Mounts an empty file system over this directory, for every process that shares the mount
/// namespace.
fn over(place: &CStr) {
    // SAFETY: strings that outlive the call.
    let done = unsafe {
        libc::mount(
            c"none".as_ptr(),
            place.as_ptr(),
            c"tmpfs".as_ptr(),
            0 as c_ulong,
            null(),
        )
    };
    sys::check(done, "mount");
}

fn uncover(place: &CStr) {
    // SAFETY: a string that outlives the call.
    sys::check(
        unsafe { libc::umount2(place.as_ptr(), libc::MNT_DETACH) },
        "umount",
    );
}

fn own_mounts() {
    // SAFETY: strings that outlive the calls.
    unsafe {
        sys::check(libc::unshare(libc::CLONE_NEWNS), "unshare");
        let flags = libc::MS_REC | libc::MS_PRIVATE;
        sys::check(
            libc::mount(null(), c"/".as_ptr(), null(), flags, null()),
            "private mounts",
        );
    }
}

fn user(uid: libc::uid_t) {
    // SAFETY: no pointers but to an empty list.
    unsafe {
        sys::check(libc::setgroups(0, null()), "setgroups");
        sys::check(libc::setresgid(uid, uid, uid), "setresgid");
        sys::check(libc::setresuid(uid, uid, uid), "setresuid");
    }
}
