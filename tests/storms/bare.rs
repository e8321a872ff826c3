//! Starts bowout without a launcher in between and without a thread that reads its pipe. A sweep
//! starts bowout ten thousand times and knows the time of its exec to the microsecond. The test
//! itself reaps bowout; bowout's descendants hold the pipe open until they exit.

use std::ffi::{CStr, CString, OsStr};
use std::io::pipe;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::time::Instant;

use crate::common::{BOWOUT, Home, Status, leftovers, probe, watchdog};

/// A command line and its environment, prepared before the fork: nothing may be allocated between
/// fork and exec.
pub struct Line {
    words: Vec<CString>,
    home: Home,
    traced: bool,
    environment: Vec<CString>,
}

impl Line {
    /// bowout with these options and this command.
    pub fn new(home: Home, options: &[&str], command: &[&str]) -> Self {
        let words = [&[BOWOUT], options, &["--"], command].concat();
        Self {
            words: words
                .iter()
                .map(|word| CString::new(*word).expect("no NUL"))
                .collect(),
            home,
            traced: false,
            environment: Vec::new(),
        }
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
    }

    /// Adds this variable to the environment.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        let variable = [name.as_bytes(), b"=", value.as_ref().as_bytes()].concat();
        self.environment
            .push(CString::new(variable).expect("no NUL"));
        self
    }

    /// bowout with the probe as its command.
    pub fn probe(home: Home, words: &[&str]) -> Self {
        Self::new(
            home,
            &["--grace", "never", "-v"],
            &[&[probe().to_str().expect("text")], words].concat(),
        )
    }

    /// Makes bowout stop at its first instruction, for ptrace(2).
    pub fn traced(mut self) -> Self {
        self.traced = true;
        self
    }

    pub fn start(&self) -> Bare {
        let (read, write) = pipe().expect("a pipe");
        let (stdin, kept) = pipe().expect("a pipe");
        let (read, write, stdin, kept): (OwnedFd, OwnedFd, OwnedFd, OwnedFd) =
            (read.into(), write.into(), stdin.into(), kept.into());
        let mut argv: Vec<_> = self.words.iter().map(|word| word.as_ptr()).collect();
        argv.push(std::ptr::null());
        let mut environment: Vec<_> = self.environment.iter().map(|it| it.as_ptr()).collect();
        environment.push(std::ptr::null());
        let space = if self.home == Home::Pid1 {
            libc::CLONE_NEWPID | libc::CLONE_NEWNS
        } else {
            0
        };
        let flags = space | libc::CLONE_VFORK | libc::SIGCHLD;
        // SAFETY: CLONE_VFORK without CLONE_VM is a fork that returns here at the exec of the
        // forked process. Until then, that process makes system calls on existing memory only.
        let pid = leftovers::note(|| unsafe {
            let pid = libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) as i32;
            if pid == 0 {
                self.exec(&argv, &environment, stdin.as_raw_fd(), write.as_raw_fd())
            }
            pid
        });
        let at = Instant::now();
        assert!(pid > 0, "clone: {}", std::io::Error::last_os_error());
        // SAFETY: sets a flag of a descriptor that this function owns.
        unsafe { libc::fcntl(read.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
        Bare {
            pid,
            at,
            read,
            stdin: Some(kept),
            text: Vec::new(),
            home: self.home,
            ended: None,
        }
    }

    /// Runs in the forked process.
    unsafe fn exec(
        &self,
        argv: &[*const i8],
        environment: &[*const i8],
        stdin: i32,
        out: i32,
    ) -> ! {
        const PROC: &CStr = c"proc";
        // SAFETY: system calls on strings and descriptors that outlive them.
        unsafe {
            let null = std::ptr::null();
            if self.home == Home::Pid1 {
                libc::mount(
                    null,
                    c"/".as_ptr(),
                    null,
                    libc::MS_REC | libc::MS_PRIVATE,
                    null.cast(),
                );
                libc::mount(
                    PROC.as_ptr(),
                    c"/proc".as_ptr(),
                    PROC.as_ptr(),
                    0,
                    null.cast(),
                );
            }
            super::common::clean_slate();
            libc::dup2(stdin, 0);
            libc::dup2(out, 1);
            libc::dup2(out, 2);
            if self.traced {
                libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
            }
            libc::execve(argv[0], argv.as_ptr(), environment.as_ptr());
            libc::_exit(99)
        }
    }
}

/// bowout after its exec.
pub struct Bare {
    pub pid: i32,
    /// The time of its exec.
    pub at: Instant,
    read: OwnedFd,
    stdin: Option<OwnedFd>,
    text: Vec<u8>,
    home: Home,
    ended: Option<Status>,
}

impl Bare {
    /// Closes the write end of the command's stdin.
    pub fn end_stdin(&mut self) {
        self.stdin = None;
    }

    pub fn kill(&self, signal: i32) {
        // SAFETY: no pointers; bowout is not reaped, so the PID is its own.
        assert_eq!(unsafe { libc::kill(self.pid, signal) }, 0, "kill {signal}");
    }

    /// Returns true if bowout blocks this signal now.
    pub fn blocks(&self, signal: i32) -> bool {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid))
            .expect("it is not reaped");
        let blocked = text
            .lines()
            .find_map(|line| line.strip_prefix("SigBlk:"))
            .expect("a set")
            .trim();
        u64::from_str_radix(blocked, 16).expect("a set") & (1 << (signal - 1)) != 0
    }

    /// The PID of its first child, and the child's current name.
    pub fn child(&self) -> Option<(i32, String)> {
        let pid = *crate::common::children(self.pid).first()?;
        Some((
            pid,
            std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default(),
        ))
    }

    /// Records the status with which bowout was reaped.
    pub fn ended(&mut self, status: i32) {
        leftovers::forget(self.pid as u32);
        self.ended = Some(std::process::ExitStatus::from_raw(status).into());
    }

    /// Reads everything that the pipe holds now. Returns true if all write ends are closed.
    pub fn take(&mut self) -> bool {
        let mut block = [0; 4096];
        loop {
            // SAFETY: the buffer is valid for its length.
            match unsafe {
                libc::read(
                    self.read.as_raw_fd(),
                    block.as_mut_ptr().cast(),
                    block.len(),
                )
            } {
                0 => return true,
                n @ 1.. => self.text.extend(&block[..n as usize]),
                _ => return false,
            }
        }
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.text).into_owned()
    }

    /// Waits until the output contains this text, or until no process holds the pipe open. Returns
    /// true if the output contains the text.
    pub fn see(&mut self, what: &str) -> bool {
        let end = Instant::now() + watchdog();
        loop {
            let closed = self.take();
            if self.text().contains(what) || closed {
                return self.text().contains(what);
            }
            assert!(
                Instant::now() < end,
                "watchdog: {what:?} after {:?}",
                self.text()
            );
            let mut poll = libc::pollfd {
                fd: self.read.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            };
            // SAFETY: one valid structure.
            unsafe { libc::poll(&raw mut poll, 1, 1000) };
        }
    }

    /// The exit status, if bowout has exited.
    pub fn try_wait(&mut self) -> Option<Status> {
        let mut status = 0;
        // SAFETY: one valid integer.
        let done = self.ended.is_none()
            && unsafe { libc::waitpid(self.pid, &raw mut status, libc::WNOHANG) } == self.pid;
        if done && (libc::WIFEXITED(status) || libc::WIFSIGNALED(status)) {
            self.ended(status);
        }
        self.ended
    }

    /// Waits until bowout exits.
    pub fn wait(&mut self) -> Status {
        if self.ended.is_none() {
            let held = crate::common::hold(self.pid).expect("it is not reaped");
            let mut poll = libc::pollfd {
                fd: held.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            };
            // SAFETY: one valid structure.
            let done = unsafe { libc::poll(&raw mut poll, 1, watchdog().as_millis() as i32) };
            assert_eq!(done, 1, "watchdog: the end after {:?}", self.text());
        }
        self.try_wait().expect("it has ended")
    }

    /// Waits until bowout exits, and then until its descendants, which hold the pipe open, exit.
    pub fn end(&mut self) -> Status {
        let status = self.wait();
        self.see("\0");
        status
    }

    /// The status of a bowout whose child died of this signal.
    pub fn died(&self, signal: i32) -> Status {
        match self.home {
            Home::Pid1 => Status::Code(128 + signal),
            Home::Subreaper => Status::Signal(signal),
        }
    }

    /// Asserts that the log explains the exit status. The command can only exit with 7 or die of
    /// SIGTERM.
    pub fn assert_explained(&mut self, what: &str) -> Explained {
        let status = self.end();
        let text = self.text();
        let asked = text.contains("bowout: received SIGTERM");
        let explained = if !text.contains("bowout: ") {
            Explained::BeforeMain
        } else if text.contains(" exited with 7 after ") {
            Explained::Exited { asked }
        } else {
            Explained::Killed
        };
        match explained {
            Explained::BeforeMain => {
                assert_eq!(
                    (status, self.home),
                    (Status::Signal(libc::SIGTERM), Home::Subreaper),
                    "{what}: no log"
                );
                assert_eq!(text, "", "{what}: the command was started");
            }
            Explained::Exited { .. } => assert_eq!(status, Status::Code(7), "{what}: {text}"),
            Explained::Killed => {
                assert!(
                    asked && text.contains("was killed by SIGTERM after"),
                    "{what}: {status:?}, {text}"
                );
                assert_eq!(status, self.died(libc::SIGTERM), "{what}: {text}");
            }
        }
        explained
    }
}

/// The log's explanation of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Explained {
    /// The log is empty: the signal arrived before bowout blocked it.
    BeforeMain,
    /// The command exited with 7. `asked` is true if bowout received SIGTERM.
    Exited { asked: bool },
    /// The command died of the signal.
    Killed,
}

impl Drop for Bare {
    fn drop(&mut self) {
        // SAFETY: no pointers that are read. Without a recorded status bowout is not reaped, so the
        // PID is its own. Its command dies with it; as PID 1, so do all other descendants.
        unsafe {
            if self.ended.is_none() {
                libc::kill(self.pid, libc::SIGKILL);
                libc::waitpid(self.pid, std::ptr::null_mut(), libc::__WALL);
                leftovers::forget(self.pid as u32);
            }
        }
    }
}
