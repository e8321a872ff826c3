//! `terminal`: a command that uses its terminal.

use std::ffi::{CString, c_int};
use std::io::Error;
use std::mem::zeroed;
use std::os::unix::ffi::OsStrExt;

use crate::{Words, number, pair, signal, sys};

/// A step after the `ready` line. The steps run in the order of the options.
enum Then {
    Stop(c_int),
    Read,
}

/// Prints `ready PID`, then `got SIGNAL CODE SENDER` for every signal of `--catch`. All others keep
/// their dispositions.
pub(crate) fn terminal(words: &mut Words) -> ! {
    let mut caught = 0_u64;
    let mut exits: Vec<(c_int, c_int)> = Vec::new();
    let mut then = Vec::new();
    while let Some(option) = words.word() {
        match option.to_str().unwrap_or_default() {
            "--catch" => {
                caught = words
                    .text()
                    .split(',')
                    .map(|word| sys::bit(signal(word)))
                    .sum();
                sys::mask(libc::SIG_BLOCK, caught);
            }
            "--exit" => {
                let text = words.text();
                let (on, code) = pair(&text);
                exits.push((on, number(code)));
            }
            "--to" => {
                let file =
                    CString::new(words.word().unwrap_or_default().as_bytes()).unwrap_or_default();
                let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND | libc::O_NOCTTY;
                // SAFETY: a string that outlives the call; descriptors are numbers.
                unsafe {
                    libc::dup2(
                        sys::check(libc::open(file.as_ptr(), flags, 0o600), "open"),
                        1,
                    )
                };
            }
            "--group" => own_group(),
            "--foreground" => {
                own_group();
                // SAFETY: no pointers.
                sys::check(
                    unsafe { libc::tcsetpgrp(tty(), libc::getpid()) },
                    "tcsetpgrp",
                );
            }
            "--raw" => raw(),
            "--stop" => then.push(Then::Stop(signal(&words.text()))),
            "--read" => then.push(Then::Read),
            other => sys::fail(other),
        }
    }
    // SAFETY: no arguments.
    sys::say(&format!("ready {}", unsafe { libc::getpid() }));
    for then in then {
        match then {
            Then::Stop(signal) => {
                // SAFETY: a signal to ourselves.
                unsafe { libc::kill(libc::getpid(), signal) };
                sys::say("back");
            }
            Then::Read => sys::say(&read()),
        }
    }
    watch(caught, &exits)
}

fn watch(caught: u64, exits: &[(c_int, c_int)]) -> ! {
    loop {
        // SAFETY: the kernel fills the structure; its own set is 8 bytes.
        let (info, got) = unsafe {
            let mut info: libc::siginfo_t = zeroed();
            let got = libc::syscall(
                libc::SYS_rt_sigtimedwait,
                &raw const caught,
                &raw mut info,
                0,
                8,
            );
            (info, got)
        };
        if got > 0 {
            // SAFETY: a plain field of a structure that the kernel filled.
            sys::say(&format!("got {got} {} {}", info.si_code, unsafe {
                info.si_pid()
            }));
            if let Some((_, code)) = exits.iter().find(|(on, _)| libc::c_long::from(*on) == got) {
                // SAFETY: no pointers.
                unsafe { libc::_exit(*code) }
            }
        }
    }
}

fn own_group() {
    // A background process that calls tcsetpgrp(3) receives SIGTTOU, which would stop it. Programs
    // with job control therefore block the signal.
    sys::mask(libc::SIG_BLOCK, sys::bit(libc::SIGTTOU));
    // SAFETY: no pointers.
    sys::check(unsafe { libc::setpgid(0, 0) }, "setpgid");
}

fn tty() -> c_int {
    // SAFETY: a string that outlives the call.
    unsafe { libc::open(c"/dev/tty".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) }
}

fn raw() {
    // SAFETY: the structure is filled in before it is used.
    unsafe {
        let mut modes: libc::termios = zeroed();
        sys::check(libc::tcgetattr(0, &raw mut modes), "tcgetattr");
        libc::cfmakeraw(&raw mut modes);
        sys::check(
            libc::tcsetattr(0, libc::TCSANOW, &raw const modes),
            "tcsetattr",
        );
    }
}

/// Reads a line that the user types.
fn read() -> String {
    let fd = tty();
    if fd < 0 {
        return "no terminal".into();
    }
    let mut line = [0_u8; 256];
    // SAFETY: the buffer is valid for its length.
    let got = unsafe { libc::read(fd, line.as_mut_ptr().cast(), line.len()) };
    match usize::try_from(got) {
        Ok(got) => format!("read {}.", String::from_utf8_lossy(&line[..got]).trim_end()),
        Err(_) => format!("not read: {}", Error::last_os_error()),
    }
}
