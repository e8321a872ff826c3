//! The steps from the fork to the exec, and the release of the child's descriptors afterwards.
//!
//! bowout has one thread, so that the child may allocate between fork and exec (fork(2)).
//!
//! Limit: the parent-death signal is best effort. The exec of a set-user-ID program clears it
//! (PR_SET_PDEATHSIG(2const)).

use std::ffi::{CStr, CString, OsStr, OsString, c_char};
use std::io;
use std::iter;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::stat::Mode;
use nix::unistd::{
    Pid, chdir, close, dup2_stdin, dup2_stdout, getppid, pipe2, read, setpgid, write,
};

use super::attributes::Attributes;
use super::child::Child;
use super::environment::{self, Change};
use super::refusal::{self, ExecError};
use super::signals::Inherited;
use super::{proc, readiness, stderr, this_process};
use crate::exit::Exit;

/// The search path without PATH: that of glibc's execvp(3).
const DEFAULT_PATH: &[u8] = b"/bin:/usr/bin";
/// The errors after which the search goes on (execvp(3)).
const PASSED: [Errno; 6] = [
    Errno::EACCES,
    Errno::ENOENT,
    Errno::ENOTDIR,
    Errno::ESTALE,
    Errno::ENODEV,
    Errno::ETIMEDOUT,
];
/// Runs a script that names no interpreter (execvp(3)).
const SHELL: &CStr = c"/bin/sh";
/// The highest descriptor that is closed by close(2): with a limit of a billion, a billion calls
/// would take minutes.
const MOST_DESCRIPTORS: libc::c_long = 65_536;

/// The command or hook to start, and the manner of the start.
#[derive(Debug)]
pub(crate) struct Spawn<'a> {
    pub(crate) command: &'a OsStr,
    pub(crate) args: &'a [OsString],
    pub(crate) inherited: &'a Inherited,
    /// How the child's environment differs from bowout's.
    pub(crate) variables: &'a [Change],
    /// WATCHDOG_PID names the child, whether it named bowout or not.
    pub(crate) watched: bool,
    /// The child is the command: variables and timers of bowout's become the child's.
    pub(crate) stands_in: bool,
    /// Where it starts; `None` is bowout's own directory.
    pub(crate) directory: Option<&'a Path>,
    /// Its stdout is bowout's stderr, because bowout has let go of its stdout.
    pub(crate) to_stderr: bool,
    /// Give the child a process group of its own.
    pub(crate) own_group: bool,
    /// Have the kernel kill the child when bowout dies.
    pub(crate) die_with_us: bool,
    /// The child executes nothing before [`Child::let_go`]. It exits if bowout exits before that.
    pub(crate) held: bool,
    /// The descriptor on which the child reports that it is ready.
    pub(crate) ready: Option<RawFd>,
}

impl Spawn<'_> {
    /// `fork(2)`, and in the child everything up to `execve(2)`. Returns before the exec, which can
    /// block for ever on a file system that hangs; [`Child::exec_result`] has its result. `last` is
    /// called right before the fork.
    ///
    /// # Errors
    /// As pipe2(2) and fork(2), or a NUL byte in an argument.
    pub(crate) fn spawn(&self, last: impl FnOnce()) -> io::Result<Child> {
        let candidates = candidates(self.command.as_bytes())?;
        let words = iter::once(self.command).chain(self.args.iter().map(OsString::as_os_str));
        let words: Vec<CString> = words
            .map(|word| CString::new(word.as_bytes()))
            .collect::<Result<_, _>>()?;
        let argv: Vec<_> = words
            .iter()
            .map(|word| word.as_ptr())
            .chain([ptr::null()])
            .collect();
        let ready = self.ready.map(readiness::open_pipe).transpose()?;
        let (read, mut report) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        if self.ready == Some(report.as_raw_fd()) {
            // The child needs both.
            report = report.try_clone()?;
        }
        let gate = self.held.then(|| pipe2(OFlag::O_CLOEXEC)).transpose()?;
        let us = this_process::id();
        let renamed = self.renamed();
        // Last, because a timer stands still until the child has it.
        let attributes = self.stands_in.then(Attributes::take);
        last();
        let child = clone(libc::SIGCHLD).map_err(explain_fork)?;
        if child == 0 {
            let exit = if passes(gate) && self.prepare(us, &read, &report, attributes) {
                let environment = environment::of_child(self.variables, &renamed);
                self.inherited.restore();
                let error = (ready.as_ref().zip(self.ready))
                    .and_then(|((_, write), number)| readiness::give(write, number).err())
                    .unwrap_or_else(|| self.exec(&candidates, &argv, environment));
                let error = ExecError::new(error, self.command, &candidates);
                let _ = write(&report, &error.encode());
                error.exit()
            } else {
                Exit::OWN_FAILURE
            };
            // SAFETY: ends the process and runs nothing.
            unsafe { libc::_exit(i32::from(exit.number())) }
        }
        if self.own_group {
            // The child does the same: whichever is first, the group exists before either
            // continues. EACCES: the child was first, and has executed.
            let _ = setpgid(Pid::from_raw(child), Pid::from_raw(child));
        }
        if self.stands_in {
            // `release`, which follows, closes this end with the rest: one system call less at each
            // start.
            mem::forget(report);
        }
        Ok(Child {
            pid: child,
            exec: Some(read),
            gate,
            ready: ready.map(|(read, _)| read),
        })
    }

    /// The variables that have to name the child's PID.
    fn renamed(&self) -> Vec<&'static str> {
        let mut renamed = if self.stands_in {
            environment::naming_us()
        } else {
            vec![]
        };
        if self.watched && !renamed.contains(&environment::WATCHDOG_PID) {
            renamed.push(environment::WATCHDOG_PID);
        }
        renamed
    }

    /// The child's steps before its exec, with every signal blocked: a signal that it is sent
    /// meanwhile acts when the mask is restored. `false`: bowout has exited.
    fn prepare(
        &self,
        us: libc::pid_t,
        read: &OwnedFd,
        report: &OwnedFd,
        attributes: Option<Attributes>,
    ) -> bool {
        if self.own_group {
            let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
        }
        if self.die_with_us {
            let _ = prctl::set_pdeathsig(nix::sys::signal::SIGKILL);
            // The kernel sends it only for an exit from now on. In another PID namespace
            // (unshare(2), CLONE_NEWPID) bowout's PID is 0, but bowout has the only other reading
            // end of the pipe.
            let has_parent = match getppid().as_raw() {
                0 => {
                    let _ = close(read.as_raw_fd());
                    poll(
                        &mut [PollFd::new(report.as_fd(), PollFlags::empty())],
                        PollTimeout::ZERO,
                    ) == Ok(0)
                }
                parent => parent == us,
            };
            if !has_parent {
                return false;
            }
        }
        // A hook that starts elsewhere, or without its output, is better than no hook.
        if let Some(directory) = self.directory {
            let _ = chdir(directory);
        }
        if self.to_stderr {
            let _ = dup2_stdout(io::stderr());
        }
        attributes.inspect(Attributes::give);
        true
    }

    /// Executes the first of `candidates` that can be, as execvp(3) does: it goes on after those
    /// that do not exist or may not be executed. Also after a path that is too long, where glibc
    /// goes on after some and stops at others.
    fn exec(
        &self,
        candidates: &[CString],
        argv: &[*const c_char],
        environment: *const *const c_char,
    ) -> Errno {
        let mut result = Errno::ENOENT;
        for path in candidates {
            // SAFETY: argv and environment are arrays of C strings that end with a null pointer.
            unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), environment) };
            match Errno::last() {
                Errno::ENOEXEC => {
                    if refusal::is_text(Path::new(OsStr::from_bytes(path.to_bytes()))) {
                        let script = [&[SHELL.as_ptr(), path.as_ptr()], &argv[1..]].concat();
                        // SAFETY: as above; argv[1..] brings the null pointer.
                        unsafe { libc::execve(SHELL.as_ptr(), script.as_ptr(), environment) };
                    }
                    return Errno::ENOEXEC;
                }
                Errno::ENAMETOOLONG if path.to_bytes() != self.command.as_bytes() => {}
                // The error of a file that may not be executed comes before that of a missing one.
                error if PASSED.contains(&error) && result == Errno::EACCES => {}
                error if PASSED.contains(&error) => result = error,
                error => return error,
            }
        }
        result
    }
}

/// The child waits at the gate; `false`: bowout has exited, and with it the only writer.
fn passes(gate: Option<(OwnedFd, OwnedFd)>) -> bool {
    gate.is_none_or(|(gate, hold)| {
        drop(hold);
        read(&gate, &mut [0]) == Ok(1)
    })
}

/// The paths to try for a command, in order (execvp(3)). A name that is too long for any directory
/// is not searched for, so that its own error is the result.
fn candidates(command: &[u8]) -> io::Result<Vec<CString>> {
    if command.contains(&b'/') || command.is_empty() || command.len() > libc::NAME_MAX as usize {
        return Ok(vec![CString::new(command)?]);
    }
    let path = environment::value("PATH").map_or(DEFAULT_PATH, OsStr::as_bytes);
    let join = |directory: &[u8]| match directory {
        [] => CString::new(command),
        _ => CString::new([directory, b"/", command].concat()),
    };
    Ok(path
        .split(|&byte| byte == b':')
        .map(join)
        .collect::<Result<_, _>>()?)
}

/// clone(2): the child's PID, 0 in the child. The bare system call: the C library's fork(3) writes
/// to its locks and lists, and the kernel copies each page that is written to. vfork(2) copies
/// none, but waits for the exec. `flags` must not make the two share memory.
///
/// # Errors
/// As fork(2).
pub(super) fn clone(flags: libc::c_int) -> nix::Result<libc::pid_t> {
    let (flags, none) = (libc::c_long::from(flags), 0);
    let [first, second] = if cfg!(target_arch = "s390x") {
        [none, flags]
    } else {
        [flags, none]
    };
    // SAFETY: no memory is shared, and no stack or other address is passed. This process has one
    // thread, so that the child may use whatever the parent may.
    let child = unsafe { libc::syscall(libc::SYS_clone, first, second, none, none, none) };
    Ok(Errno::result(child)? as libc::pid_t)
}

/// How ps(1) names the guard. pkill(1) looks for parts of names, so that `pkill -9 bowout` spares
/// it.
const GUARD: &CStr = c"stop-guard";

/// Forks for `--guard`: this process becomes the guard, and the new one supervises, in a process
/// group of its own if `own_group`. Returns the new process, or 0 in it.
///
/// # Errors
/// As fork(2).
pub(crate) fn fork_supervisor(own_group: bool) -> io::Result<libc::pid_t> {
    let (us, parent) = (this_process::id(), this_process::parent());
    // The supervisor gives bowout's own attributes to the command.
    let attributes = Attributes::take();
    let forked = clone(libc::SIGCHLD).map_err(explain_fork)?;
    if forked == 0 {
        attributes.give();
        this_process::stand_in_for(us, parent);
        if own_group {
            // It fails for no process that was just forked.
            let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
        }
    } else {
        // The name is for people alone.
        let _ = prctl::set_name(GUARD);
    }
    Ok(forked)
}

/// fork(2) reports ENOMEM also in a PID namespace whose first process has exited
/// (pid_namespaces(7)). The children of bowout are in another namespace than bowout after
/// `unshare -p` or `nsenter -p` without a fork.
fn explain_fork(error: Errno) -> io::Error {
    let namespace = |name: &str| std::fs::read_link(format!("/proc/self/ns/{name}")).ok();
    if error == Errno::ENOMEM && namespace("pid") != namespace("pid_for_children") {
        return io::Error::other(
            "the first process of its PID namespace has exited; use 'unshare --fork'",
        );
    }
    error.into()
}

/// Closes the child's descriptors in bowout. stdin and stdout become /dev/null, so that a pipe
/// reaches its end when the child closes its copy. Descriptors from 3 up are closed, except `ours`.
/// The working directory pins no mount. Best effort: an error leaves the user an open file, and the
/// supervision goes on.
pub(crate) fn release(ours: &[BorrowedFd<'_>]) {
    // First: the command may look at bowout's directory.
    let _ = chdir("/");
    let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())
        .or_else(|_| open("/", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()));
    if let Ok(null) = null {
        let _ = dup2_stdin(&null);
        let _ = dup2_stdout(&null);
        // Closed below with the rest.
        mem::forget(null);
    }
    let own = stderr::own_descriptor()
        .into_iter()
        .chain(proc::descriptor());
    let mut kept: Vec<_> = ours
        .iter()
        .copied()
        .chain(own)
        .map(|fd| fd.as_raw_fd() as u32)
        .collect();
    kept.sort_unstable();
    let mut from = 3;
    for fd in kept.into_iter().chain([u32::MAX]) {
        if fd > from {
            close_range(from, fd - 1);
        }
        from = fd.saturating_add(1);
    }
}

/// `close_range(2)`, or close(2) one by one if a kernel before 5.9 or a filter refuses it.
fn close_range(first: u32, last: u32) {
    // SAFETY: nothing in this process holds these descriptors: `release` leaves out those in use.
    unsafe {
        if libc::syscall(libc::SYS_close_range, first, last, 0) != 0 {
            let limit = libc::sysconf(libc::_SC_OPEN_MAX).clamp(0, MOST_DESCRIPTORS) as u32;
            for fd in first..=last.min(limit) {
                libc::close(fd as i32);
            }
        }
    }
}
