//! A command that speaks to a service manager, for the tests of sd_notify. It runs the actions that
//! its words name, one after the other.
//!
//! `main` blocks every signal first, and `wait` accepts them, so that none is missed and none
//! interrupts.
#![allow(unsafe_code)]
// The rules on clocks and on the way to exit apply to bowout, not to its command.
#![allow(clippy::disallowed_methods)]

use std::fs::{File, read};
use std::io::{Error, Read, Seek, Write, pipe};
use std::mem::{size_of, size_of_val, zeroed};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::process::exit;
use std::ptr::{null, null_mut};

const USAGE: &str = "\
say TEXT            a line on stdout                  sayenv NAME...  the variables, up to `end`
send TEXT           one message; \\n, \\r, \\0, ^PID       size N          STATUS= of N bytes in all
carry N TEXT        a message with N copies of a pipe's end; says `closed` when nobody has one any more
barrier             BARRIER=1; says `passed` when it is, `got N` for a signal before
flood [N]           STATUS=0, STATUS=1, ...: N of them, or until there is no room, which is said
forge PID TEXT      one message that says it is this process's; needs root
refused N           so many that hold a NUL byte        carries N TEXT  as carry, and does not wait
lingering N TEXT    one message with N TCP sockets whose close(2) waits for an hour
store NAME TEXT     FDSTORE=1 of a file that holds TEXT
listen              what sd_listen_fds(3) finds, and what is in it
reloading           RELOADING=1 with the time           ping MS         WATCHDOG=1 so often, until a signal comes
wait SIGNAL...      the first of these, up to `end`; others are told and passed by
fork                go on in a child of this            orphan          go on in a process whose parent has ended
                    (in both cases this process waits for SIGTERM, then exits with 0)
uid N               become this user                    linger MS       end no sooner
exit N              end so                              die SIGNAL      end so";

fn fail(why: &str) -> ! {
    eprintln!("notifier: {why}: {}", Error::last_os_error());
    exit(98)
}

fn say(line: &str) {
    let line = format!("{line}\n");
    let _ = std::io::stdout().write_all(line.as_bytes());
    let _ = std::io::stdout().flush();
}

fn check(result: libc::c_int, what: &str) -> libc::c_int {
    if result < 0 { fail(what) } else { result }
}

fn signal(text: &str) -> libc::c_int {
    match text {
        "HUP" => libc::SIGHUP,
        "ABRT" => libc::SIGABRT,
        "USR1" => libc::SIGUSR1,
        "USR2" => libc::SIGUSR2,
        "SEGV" => libc::SIGSEGV,
        "KILL" => libc::SIGKILL,
        "TERM" => libc::SIGTERM,
        _ => text.parse().unwrap_or_else(|_| fail(text)),
    }
}

fn block(how: libc::c_int, signals: u64) {
    // SAFETY: the kernel's set is 8 bytes.
    let done = unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            how,
            &raw const signals,
            null_mut::<u64>(),
            8,
        )
    };
    check(done as libc::c_int, "rt_sigprocmask");
}

/// The signals that `take` accepts: all but SIGCHLD and SIGCONT, which may stay pending for ever.
static TAKEN: u64 = !((1 << (libc::SIGCHLD - 1)) | (1 << (libc::SIGCONT - 1)));

/// The next signal; None if none arrives within this many milliseconds. Without a number it waits
/// for ever.
fn take(within: Option<u64>) -> Option<libc::c_int> {
    let wait = within.map(|ms| libc::timespec {
        tv_sec: (ms / 1000) as _,
        tv_nsec: (ms % 1000 * 1_000_000) as _,
    });
    let wait = wait.as_ref().map_or(null(), std::ptr::from_ref);
    loop {
        // SAFETY: the set is 8 bytes, the time valid or null; nothing is written.
        let got = unsafe {
            libc::syscall(
                libc::SYS_rt_sigtimedwait,
                &raw const TAKEN,
                null::<u8>(),
                wait,
                8,
            )
        };
        match (got, Error::last_os_error().raw_os_error()) {
            (1.., _) => return Some(got as libc::c_int),
            (_, Some(libc::EAGAIN)) => return None,
            _ => {}
        }
    }
}

/// The address in `NOTIFY_SOCKET`.
fn manager() -> (libc::sockaddr_un, libc::socklen_t) {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else {
        fail("no NOTIFY_SOCKET")
    };
    let name = name.as_bytes();
    // SAFETY: an address of zeroes is valid.
    let mut address: libc::sockaddr_un = unsafe { zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    for (to, from) in address.sun_path.iter_mut().zip(name) {
        *to = *from as libc::c_char;
    }
    let family = size_of::<libc::sa_family_t>();
    if name.first() == Some(&b'@') {
        address.sun_path[0] = 0;
        return (address, (family + name.len()) as _);
    }
    (address, (family + name.len() + 1) as _)
}

/// Sends one message to the manager. Returns false on an error, and if MSG_DONTWAIT is set and
/// there is no room.
fn send(text: &[u8], descriptors: &[RawFd], flags: libc::c_int) -> bool {
    let (mut address, length) = manager();
    // Room for the largest control message, aligned as a cmsghdr.
    let mut control = [0_u64; 160];
    let mut vector = libc::iovec {
        iov_base: text.as_ptr().cast_mut().cast(),
        iov_len: text.len(),
    };
    // SAFETY: the header points to buffers of the sizes that it names, which outlive the call.
    let sent = unsafe {
        let socket = check(
            libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0),
            "socket",
        );
        let mut header: libc::msghdr = zeroed();
        header.msg_name = (&raw mut address).cast();
        header.msg_namelen = length;
        header.msg_iov = &raw mut vector;
        header.msg_iovlen = 1;
        if !descriptors.is_empty() {
            let size = size_of_val(descriptors);
            header.msg_control = control.as_mut_ptr().cast();
            header.msg_controllen = libc::CMSG_SPACE(size as u32) as _;
            let part = libc::CMSG_FIRSTHDR(&raw const header);
            (*part).cmsg_level = libc::SOL_SOCKET;
            (*part).cmsg_type = libc::SCM_RIGHTS;
            (*part).cmsg_len = libc::CMSG_LEN(size as u32) as _;
            std::ptr::copy_nonoverlapping(
                descriptors.as_ptr().cast::<u8>(),
                libc::CMSG_DATA(part),
                size,
            );
        }
        let sent = libc::sendmsg(socket, &raw const header, flags | libc::MSG_NOSIGNAL);
        let error = Error::last_os_error();
        libc::close(socket);
        if sent < 0 && error.kind() != std::io::ErrorKind::WouldBlock {
            eprintln!("notifier: sendmsg: {error}");
            say(&format!("not sent: {error}"));
        }
        sent
    };
    sent >= 0
}

/// Replaces `\n`, `\r` and `\0` as C does, and `^PID` by this process's PID.
fn text(word: &str) -> Vec<u8> {
    word.replace("\\n", "\n")
        .replace("\\r", "\r")
        .replace("\\0", "\0")
        .replace("^PID", &std::process::id().to_string())
        .into_bytes()
}

/// Waits until no process holds the other end, and prints the signals that arrive meanwhile. The
/// signals stay blocked: a signalfd reports that they are pending.
fn hung_up(end: &impl AsRawFd) {
    // SAFETY: the set is 8 bytes; the structures are valid.
    unsafe {
        let signals = libc::syscall(
            libc::SYS_signalfd4,
            -1,
            &raw const TAKEN,
            8,
            libc::SOCK_CLOEXEC,
        ) as RawFd;
        check(signals, "signalfd");
        loop {
            let mut wait = [
                libc::pollfd {
                    fd: end.as_raw_fd(),
                    events: 0,
                    revents: 0,
                },
                libc::pollfd {
                    fd: signals,
                    events: libc::POLLIN,
                    revents: 0,
                },
            ];
            if libc::poll(wait.as_mut_ptr(), 2, -1) < 0 {
                continue;
            }
            if wait[0].revents & (libc::POLLHUP | libc::POLLERR) != 0 {
                libc::close(signals);
                return;
            }
            if let Some(signal) = take(Some(0)) {
                say(&format!("got {signal}"));
            }
        }
    }
}

/// Sends a message with this many copies of a pipe's end. Returns when all copies are closed.
fn carry(count: usize, message: &[u8]) {
    let (read, write) = pipe().unwrap_or_else(|_| fail("pipe"));
    send(message, &vec![write.as_raw_fd(); count], 0);
    drop(write);
    hung_up(&read);
}

/// Sends a message with false credentials (unix(7), `SCM_CREDENTIALS`).
#[allow(
    clippy::cast_ptr_alignment,
    reason = "the buffer is aligned as a cmsghdr"
)]
fn forge(pid: libc::pid_t, text: &[u8]) {
    let (mut address, length) = manager();
    let mut control = [0_u64; 8];
    let mut vector = libc::iovec {
        iov_base: text.as_ptr().cast_mut().cast(),
        iov_len: text.len(),
    };
    let lie = libc::ucred {
        pid,
        uid: 0,
        gid: 0,
    };
    // SAFETY: the header points to buffers of the sizes that it names, which outlive the call.
    unsafe {
        let socket = check(
            libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0),
            "socket",
        );
        let mut header: libc::msghdr = zeroed();
        header.msg_name = (&raw mut address).cast();
        header.msg_namelen = length;
        header.msg_iov = &raw mut vector;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = libc::CMSG_SPACE(size_of_val(&lie) as u32) as _;
        let part = libc::CMSG_FIRSTHDR(&raw const header);
        (*part).cmsg_level = libc::SOL_SOCKET;
        (*part).cmsg_type = libc::SCM_CREDENTIALS;
        (*part).cmsg_len = libc::CMSG_LEN(size_of_val(&lie) as u32) as _;
        libc::CMSG_DATA(part)
            .cast::<libc::ucred>()
            .write_unaligned(lie);
        check(
            libc::sendmsg(socket, &raw const header, libc::MSG_NOSIGNAL) as libc::c_int,
            "sendmsg",
        );
        libc::close(socket);
    }
}

fn set_option<T>(socket: &impl AsRawFd, option: libc::c_int, value: &T) {
    let (size, value) = (
        size_of::<T>() as libc::socklen_t,
        std::ptr::from_ref(value).cast(),
    );
    // SAFETY: a value of the size that is named.
    check(
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, value, size) },
        "setsockopt",
    );
}

/// A socket that lingers for an hour when its last descriptor is closed, because its peer does not
/// read the sent bytes.
fn lingering(listener: &TcpListener) -> OwnedFd {
    let mut stream = listener
        .local_addr()
        .and_then(TcpStream::connect)
        .unwrap_or_else(|_| fail("connect"));
    set_option(&stream, libc::SO_SNDBUF, &4096_i32);
    stream
        .set_nonblocking(true)
        .unwrap_or_else(|_| fail("nonblocking"));
    while stream.write(&[b'x'; 16384]).is_ok() {}
    set_option(
        &stream,
        libc::SO_LINGER,
        &libc::linger {
            l_onoff: 1,
            l_linger: 3600,
        },
    );
    stream.into()
}

/// Sends a message with lingering sockets from a child. The child exits, so that the message alone
/// holds the sockets: a socket does not linger at a process's exit. The child stays a zombie, so
/// that the receiver can still find its ancestors. This process has the listener, which keeps the
/// other ends of the connections.
fn send_lingering(count: usize, text: &[u8]) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap_or_else(|_| fail("bind"));
    set_option(&listener, libc::SO_RCVBUF, &4096_i32);
    // SAFETY: no pointers.
    check(
        unsafe { libc::listen(listener.as_raw_fd(), 4096) },
        "listen",
    );
    let sender = fork();
    if sender == 0 {
        let sockets: Vec<OwnedFd> = (0..count).map(|_| lingering(&listener)).collect();
        let raw: Vec<RawFd> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
        send(text, &raw, 0);
        exit(0)
    }
    // SAFETY: the structure is filled in, and not read.
    unsafe {
        let mut info: libc::siginfo_t = zeroed();
        let flags = libc::WEXITED | libc::WNOWAIT;
        check(
            libc::waitid(libc::P_PID, sender as libc::id_t, &raw mut info, flags),
            "waitid",
        );
    }
    std::mem::forget(listener);
}

fn store(name: &str, content: &str) {
    // SAFETY: a C string; the descriptor is ours.
    let mut file = unsafe {
        let fd = check(
            libc::memfd_create(c"store".as_ptr(), libc::MFD_CLOEXEC),
            "memfd_create",
        );
        File::from_raw_fd(fd)
    };
    file.write_all(content.as_bytes())
        .unwrap_or_else(|_| fail("write"));
    send(
        format!("FDSTORE=1\nFDNAME={name}").as_bytes(),
        &[file.as_raw_fd()],
        0,
    );
}

/// The inode of a pidfd on this process.
fn own_pidfd() -> Option<u64> {
    // SAFETY: the structure is filled in before it is read.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, libc::getpid(), 0) as RawFd;
        let mut stat: libc::stat = zeroed();
        let done = fd >= 0 && libc::fstat(fd, &raw mut stat) == 0;
        libc::close(fd);
        done.then_some(stat.st_ino)
    }
}

fn listen() {
    let value = |name: &str| std::env::var(name).ok();
    let mine = value("LISTEN_PID").is_some_and(|pid| pid == std::process::id().to_string());
    let inode = match value("LISTEN_PIDFDID") {
        None => "none",
        Some(inode) if own_pidfd().is_some_and(|own| inode == own.to_string()) => "mine",
        Some(_) => "another's",
    };
    let count: i32 = value("LISTEN_FDS")
        .and_then(|count| count.parse().ok())
        .unwrap_or(0);
    let names = value("LISTEN_FDNAMES").unwrap_or_default();
    say(&format!(
        "listen {count} names {names} pid {} pidfd {inode}",
        if mine { "mine" } else { "not mine" }
    ));
    for fd in 3..3 + count {
        // SAFETY: the manager passed the descriptor to this process, and no other code owns it.
        let mut file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
        let mut content = String::new();
        let _ = file.rewind();
        match file.read_to_string(&mut content) {
            Ok(_) => say(&format!("fd {fd} holds {content}")),
            Err(error) => say(&format!("fd {fd}: {error}")),
        }
        std::mem::forget(file);
    }
}

fn fork() -> libc::pid_t {
    // SAFETY: this process has one thread.
    check(unsafe { libc::fork() }, "fork")
}

/// Waits for SIGTERM and exits. Another process does the work of this one.
fn stay() -> ! {
    while take(None) != Some(libc::SIGTERM) {}
    exit(0)
}

/// Continues in a grandchild, after the process between has exited.
fn orphan() {
    let (read, write) = pipe().unwrap_or_else(|_| fail("pipe"));
    let pid = fork();
    if pid > 0 {
        drop(read);
        drop(write);
        // SAFETY: no status is asked for.
        unsafe { libc::waitpid(pid, null_mut(), 0) };
        stay();
    }
    if fork() > 0 {
        exit(0);
    }
    drop(write);
    // Only the process between holds the other end.
    hung_up(&read);
}

/// Sends WATCHDOG=1 at this interval until a signal arrives. Dies if that is SIGABRT.
fn ping(pause: u64) {
    let us = std::env::var("WATCHDOG_PID").is_ok_and(|pid| pid == std::process::id().to_string());
    let every = std::env::var("WATCHDOG_USEC").unwrap_or_default();
    say(&format!(
        "watchdog {every} pid {}",
        if us { "mine" } else { "not mine" }
    ));
    let mut pings = 0_u64;
    let signal = loop {
        send(b"WATCHDOG=1", &[], 0);
        pings += 1;
        say(&format!("ping {pings}"));
        if let Some(signal) = take(Some(pause)) {
            break signal;
        }
    };
    say(&format!("got {signal}"));
    if signal == libc::SIGABRT {
        die(signal);
    }
}

/// Becomes this user. The groups stay as they are: root's own do not matter to a socket.
fn become_user(uid: libc::uid_t) {
    // SAFETY: no pointers.
    check(unsafe { libc::setresuid(uid, uid, uid) }, "setresuid");
}

fn die(signal: libc::c_int) -> ! {
    // SAFETY: no pointers.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        block(libc::SIG_UNBLOCK, 1 << (signal - 1));
        libc::kill(libc::getpid(), signal);
    }
    fail("outlived its own signal")
}

fn monotonic() -> u64 {
    // SAFETY: the structure is filled in before it is read.
    unsafe {
        let mut now: libc::timespec = zeroed();
        libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now);
        now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1000
    }
}

/// Prints each of these variables that is set.
fn say_variables(names: impl Iterator<Item = String>) {
    let environ = read("/proc/self/environ").unwrap_or_else(|_| fail("environ"));
    for name in names {
        for variable in environ.split(|byte| *byte == 0) {
            let variable = String::from_utf8_lossy(variable);
            if variable
                .strip_prefix(&name)
                .is_some_and(|rest| rest.starts_with('='))
            {
                say(&variable);
            }
        }
    }
    say("that is all");
}

/// Sends this many messages; without a number, as many as the socket takes.
fn flood(count: Option<usize>) {
    let flags = if count.is_some() {
        0
    } else {
        libc::MSG_DONTWAIT
    };
    let mut sent = 0;
    while count.is_none_or(|count| sent < count)
        && send(format!("STATUS={sent}").as_bytes(), &[], flags)
    {
        sent += 1;
    }
    say(&format!("sent {sent}"));
}

fn main() {
    block(libc::SIG_SETMASK, u64::MAX);
    let mut words = std::env::args().skip(1).peekable();
    let mut early: Vec<libc::c_int> = vec![];
    while let Some(action) = words.next() {
        let mut word = || words.next().unwrap_or_else(|| fail(USAGE));
        let number = |text: String| text.parse::<usize>().unwrap_or_else(|_| fail(&text));
        match action.as_str() {
            "say" => say(&word()),
            "sayenv" => say_variables(words.by_ref().take_while(|name| name != "end")),
            "send" => drop(send(&text(&word()), &[], 0)),
            "size" => {
                let mut status = b"STATUS=".to_vec();
                let size = number(word());
                // Each byte depends on its position, so that a shift would show. None ends a line.
                status.extend((status.len()..size).map(|at| b'!' + (at % 90) as u8));
                send(&status, &[], 0);
            }
            "forge" => {
                let pid = number(word()) as libc::pid_t;
                forge(pid, &text(&word()));
            }
            "refused" => {
                let count = number(word());
                for _ in 0..count {
                    send(b"\0STATUS=", &[], 0);
                }
            }
            "carries" => {
                let count = number(word());
                let (_read, write) = pipe().unwrap_or_else(|_| fail("pipe"));
                send(&text(&word()), &vec![write.as_raw_fd(); count], 0);
            }
            "carry" => {
                carry(number(word()), &text(&word()));
                say("closed");
            }
            "barrier" => {
                carry(1, b"BARRIER=1");
                say("passed");
            }
            "flood" => {
                let count = words
                    .next_if(|word| word.parse::<usize>().is_ok())
                    .map(number);
                flood(count);
            }
            "lingering" => send_lingering(number(word()), &text(&word())),
            "store" => store(&word(), &word()),
            "listen" => listen(),
            "reloading" => drop(send(
                format!("RELOADING=1\nMONOTONIC_USEC={}", monotonic()).as_bytes(),
                &[],
                0,
            )),
            "ping" => ping(number(word()) as u64),
            "wait" => {
                let wanted: Vec<_> = words
                    .by_ref()
                    .take_while(|word| word != "end")
                    .map(|word| signal(&word))
                    .collect();
                // The kernel returns the lowest of several pending signals first, whichever was
                // sent first. A signal that an earlier wait received but did not want therefore
                // ends a later one.
                if let Some(at) = early.iter().position(|signal| wanted.contains(signal)) {
                    early.remove(at);
                    continue;
                }
                while let Some(signal) = take(None) {
                    say(&format!("got {signal}"));
                    if wanted.contains(&signal) {
                        break;
                    }
                    early.push(signal);
                }
            }
            "fork" => {
                if fork() > 0 {
                    stay();
                }
            }
            "orphan" => orphan(),
            "uid" => become_user(number(word()) as libc::uid_t),
            "linger" => {
                let wait = number(word());
                // SAFETY: no descriptors.
                unsafe { libc::poll(null_mut(), 0, wait as libc::c_int) };
            }
            "exit" => exit(number(word()) as i32),
            "die" => die(signal(&word())),
            _ => fail(USAGE),
        }
    }
}
