//! A real terminal, and a real shell on it.
//!
//! The test is the only reader of the terminal: each wait reads it. No thread holds the master, so
//! that closing it is a hang-up.

use std::io::Error;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use super::{BOWOUT, Dir, Status, children, leftovers, probe, watchdog};

pub const CTRL_C: &str = "\x03";
pub const CTRL_BACKSLASH: &str = "\x1c";
pub const CTRL_Z: &str = "\x1a";

/// The signal that queries a probe: of the signals that are pending together, the highest arrives
/// last.
pub const ASKED: i32 = 64;

/// Before and after the exit status in the prompt of the shell, and of a shell inside it.
pub const PROMPT: [&str; 2] = ["[[", "]] "];
pub const INNER_PROMPT: [&str; 2] = ["((", ")) "];

/// The role of the pty for the program that is started on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Its controlling terminal: it leads the session.
    Controlling,
    /// Its stdin, stdout and stderr; it leads a session without a terminal.
    Standard,
}

/// A program on a terminal; when the test drops it, it is killed together with every process that
/// it started.
pub struct Pty {
    master: Option<OwnedFd>,
    child: Child,
    pub pid: i32,
    mark: String,
    ended: Option<ExitStatus>,
    /// Everything that was written to the terminal so far, and the length of the part that was
    /// read.
    screen: Vec<u8>,
    looked: usize,
    /// The longest time that a fact may take to become true.
    pub patience: Duration,
    /// The working directory of the program, and its home.
    pub dir: Dir,
}

fn check(done: i32, what: &str) -> i32 {
    assert!(done >= 0, "{what}: {}", Error::last_os_error());
    done
}

/// The master and the slave of a new terminal, which no process has as its controlling terminal.
pub fn open() -> (OwnedFd, OwnedFd) {
    // SAFETY: the buffer for the name has the length that is passed; the descriptors are ours.
    unsafe {
        let master = check(
            libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC),
            "posix_openpt",
        );
        let master = OwnedFd::from_raw_fd(master);
        check(libc::grantpt(master.as_raw_fd()), "grantpt");
        check(libc::unlockpt(master.as_raw_fd()), "unlockpt");
        let mut name = [0; 64];
        assert_eq!(
            libc::ptsname_r(master.as_raw_fd(), name.as_mut_ptr(), name.len()),
            0,
            "ptsname_r"
        );
        let slave = check(
            libc::open(
                name.as_ptr(),
                libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC,
            ),
            "the slave",
        );
        (master, OwnedFd::from_raw_fd(slave))
    }
}

fn resize(master: &OwnedFd, rows: u16, columns: u16) {
    let size = libc::winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: a valid structure.
    check(
        unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) },
        "TIOCSWINSZ",
    );
}

/// The search path for programs: the directories of bowout and the probe come first.
fn search() -> std::ffi::OsString {
    let ours = [Path::new(BOWOUT), probe().as_path()]
        .map(|program| program.parent().expect("a directory").to_owned());
    let theirs = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(ours.into_iter().chain(std::env::split_paths(&theirs)))
        .expect("a search path")
}

impl Pty {
    pub fn start(role: Role, line: &[&str]) -> Self {
        let (master, slave) = open();
        // Set before any process can receive a SIGWINCH for it. The terminal is wide, so that typed
        // text stays on one line.
        resize(&master, 24, 200);
        let dir = Dir::new();
        let mark = leftovers::unique();
        let mut command = Command::new(line[0]);
        command
            .args(&line[1..])
            .current_dir(&dir.0)
            .env_clear()
            .env(leftovers::MARK, &mark)
            .env("PATH", search());
        command
            .env("HOME", &dir.0)
            .env("TERM", "dumb")
            .env("LC_ALL", "C")
            .env("HISTFILE", "/dev/null");
        command
            .env("INPUTRC", "/dev/null")
            .env("PS1", PROMPT.join("$?"))
            .env("INNER", INNER_PROMPT.join("$?"));
        let standard = || slave.try_clone().expect("a copy of the slave");
        command
            .stdin(standard())
            .stdout(standard())
            .stderr(standard());
        let set_up = move || {
            // SAFETY: system calls alone. As in `Start`; descriptor 0 is the terminal.
            unsafe {
                super::clean_slate();
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                let failed = libc::setsid() < 0
                    || (role == Role::Controlling && libc::ioctl(0, libc::TIOCSCTTY, 0) != 0);
                if failed {
                    Err(Error::last_os_error())
                } else {
                    Ok(())
                }
            }
        };
        // SAFETY: system calls alone, on values that exist already.
        unsafe { command.pre_exec(set_up) };
        let child =
            leftovers::spawn(&mut command).unwrap_or_else(|error| panic!("{line:?}: {error}"));
        // They hold the slave: its last close is the end of the screen.
        drop((command, slave));
        let pid = child.id() as i32;
        Self {
            master: Some(master),
            child,
            pid,
            mark,
            ended: None,
            screen: Vec::new(),
            looked: 0,
            patience: watchdog(),
            dir,
        }
    }

    fn master(&self) -> i32 {
        self.master
            .as_ref()
            .expect("the terminal is open")
            .as_raw_fd()
    }

    pub fn resize(&self, rows: u16, columns: u16) {
        resize(
            self.master.as_ref().expect("the terminal is open"),
            rows,
            columns,
        );
    }

    /// Closes the master, as a window or a connection does.
    pub fn hang_up(&mut self) {
        self.read(0);
        self.master = None;
    }

    pub fn type_keys(&self, keys: &str) {
        if keys.contains(['\x03', '\x1c']) {
            super::apart(self.pid);
        }
        self.type_at_once(keys);
    }

    /// Types the keys even if they repeat a stop request at once.
    pub fn type_at_once(&self, keys: &str) {
        // SAFETY: the buffer is valid for its length.
        let done = unsafe { libc::write(self.master(), keys.as_ptr().cast(), keys.len()) };
        assert_eq!(done, keys.len() as isize, "typed {keys:?}");
    }

    /// The foreground process group.
    pub fn foreground(&self) -> i32 {
        // SAFETY: no pointers.
        unsafe { libc::tcgetpgrp(self.master()) }
    }

    /// Returns true if a program has turned off line editing (ICANON) on the terminal.
    pub fn is_raw(&self) -> bool {
        // SAFETY: tcgetattr fills in the structure.
        let flags = unsafe {
            let mut modes: libc::termios = std::mem::zeroed();
            check(libc::tcgetattr(self.master(), &raw mut modes), "tcgetattr");
            modes.c_lflag
        };
        flags & libc::ICANON == 0
    }

    /// Appends new output to `screen`; waits up to `wait` ms for it.
    fn read(&mut self, wait: i32) {
        let Some(master) = &self.master else {
            // SAFETY: no descriptors.
            unsafe { libc::poll(std::ptr::null_mut(), 0, wait) };
            return;
        };
        let mut poll = libc::pollfd {
            fd: master.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        let mut buffer = [0_u8; 4096];
        // SAFETY: one valid structure; the buffer is valid for its length.
        let got = unsafe {
            let wait = if libc::poll(&raw mut poll, 1, wait) > 0 && poll.revents & libc::POLLIN == 0
            {
                wait
            } else {
                0
            };
            if wait > 0 {
                // No process holds the terminal any more.
                libc::poll(std::ptr::null_mut(), 0, wait);
            }
            if poll.revents & libc::POLLIN == 0 {
                0
            } else {
                libc::read(poll.fd, buffer.as_mut_ptr().cast(), 4096)
            }
        };
        self.screen
            .extend_from_slice(&buffer[..usize::try_from(got).unwrap_or(0)]);
    }

    /// Reads the screen until a fact is true; returns `None` if it does not become true in time.
    pub fn comes<T>(&mut self, mut fact: impl FnMut(&mut Self) -> Option<T>) -> Option<T> {
        let end = Instant::now() + self.patience;
        loop {
            if let Some(value) = fact(self) {
                return Some(value);
            }
            if Instant::now() >= end {
                return None;
            }
            self.read(1);
        }
    }

    /// The same, for a fact that must become true.
    pub fn until<T>(&mut self, what: &str, fact: impl FnMut(&mut Self) -> Option<T>) -> T {
        self.comes(fact).unwrap_or_else(|| {
            panic!(
                "watchdog: {what}, after:\n{}\n{}",
                self.screen(),
                below(self.pid)
            )
        })
    }

    pub fn screen(&self) -> String {
        String::from_utf8_lossy(&self.screen).into_owned()
    }

    /// The part of the screen that was not read yet.
    pub fn unread(&self) -> String {
        String::from_utf8_lossy(&self.screen[self.looked..]).into_owned()
    }

    /// Advances the read position; returns the text in between.
    fn look_past(&mut self, length: usize) -> String {
        let from = self.looked;
        self.looked += length;
        String::from_utf8_lossy(&self.screen[from..self.looked]).into_owned()
    }

    /// Waits for this text and returns the screen up to its end; the next read begins after it.
    pub fn see(&mut self, text: &str) -> String {
        self.until(&format!("{text:?} on the screen"), |pty| {
            let at = find(&pty.screen[pty.looked..], text.as_bytes())?;
            Some(pty.look_past(at + text.len()))
        })
    }

    /// Waits for the terminal's echo of a typed line; the next read begins after it. A line that
    /// bowout logs meanwhile may interrupt the echo.
    fn see_echo(&mut self, line: &str) {
        self.until(&format!("{line:?} on the screen"), |pty| {
            let unread = &pty.screen[pty.looked..];
            let ends = (1..=unread.len()).filter(|end| unread[..*end].ends_with(b"\n"));
            let length = ends.into_iter().find(|end| {
                let text = String::from_utf8_lossy(&unread[..*end]);
                without_log(&text).contains(line)
            })?;
            pty.look_past(length);
            Some(())
        });
    }

    /// Waits for the prompt; returns the exit status in it, and the text before it.
    pub fn prompt_of(&mut self, prompt: [&str; 2]) -> (i32, String) {
        self.until("the prompt", |pty| pty.find_prompt(prompt))
    }

    pub fn find_prompt(&mut self, [open, close]: [&str; 2]) -> Option<(i32, String)> {
        let unread = &self.screen[self.looked..];
        let mut from = 0;
        loop {
            let at = from + find(&unread[from..], open.as_bytes())?;
            let status = &unread[at + open.len()..];
            let length = find(status, close.as_bytes())?;
            if let Some(status) = std::str::from_utf8(&status[..length])
                .ok()
                .and_then(|text| text.parse().ok())
            {
                let before = self.look_past(at);
                self.looked += open.len() + length + close.len();
                return Some((status, before));
            }
            from = at + open.len();
        }
    }

    /// Waits until a probe reports that it is ready; returns its PID.
    pub fn ready(&mut self) -> i32 {
        self.see("ready ");
        let line = self.see("\n");
        line.trim_end()
            .parse()
            .unwrap_or_else(|_| panic!("ready {line:?}"))
    }

    /// Waits until a probe reports this signal; returns the text before it.
    pub fn got(&mut self, signal: i32) -> String {
        self.see(&format!("got {signal} "))
    }

    /// Waits until the process of this PID is in this state.
    pub fn state(&mut self, pid: i32, state: char) {
        self.until(&format!("{pid} in state {state}"), |_| {
            (state_of(pid) == Some(state)).then_some(())
        });
    }

    /// Waits for the end of the program that was started on the terminal.
    pub fn wait(&mut self) -> Status {
        let status = match self.ended {
            Some(status) => status,
            None => self.until("the end", |pty| pty.child.try_wait().expect("our child")),
        };
        self.ended = Some(status);
        status.into()
    }

    /// The current text of a file of the test.
    pub fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.file(name)).unwrap_or_default()
    }

    /// Waits until a file of the test contains this text; returns the whole text.
    pub fn see_in(&mut self, name: &str, text: &str) -> String {
        self.until(&format!("{text:?} in {name}"), |pty| {
            Some(pty.file(name)).filter(|all| all.contains(text))
        })
    }

    /// Waits for the PID of a probe that writes to a file of the test.
    pub fn ready_in(&mut self, name: &str) -> i32 {
        self.until(&format!("a PID in {name}"), |pty| {
            let text = pty.file(name);
            let (line, _) = text.strip_prefix("ready ")?.split_once('\n')?;
            line.parse().ok()
        })
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("screen:\n{}", self.screen());
        }
        leftovers::kill(&self.mark, &mut self.child);
    }
}

/// The text without the lines that bowout logged into it.
fn without_log(text: &str) -> String {
    let mut parts = text.split("bowout: ");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        text + part.split_once('\n').map_or("", |(_, rest)| rest)
    })
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len())
        .position(|window| window == wanted)
}

/// The state of a process; `None` if there is no such process.
pub fn state_of(pid: i32) -> Option<char> {
    leftovers::stat(pid).map(|stat| stat.state)
}

/// Returns true if the process exists and is neither stopped nor a zombie.
pub fn runs(pid: i32) -> bool {
    state_of(pid).is_some_and(|state| "RSD".contains(state))
}

/// A process and its descendants, one in a line, for the message of a failed test: the PID, the
/// pending signals, and the system call that the process is in (proc_pid_syscall(5)).
fn below(pid: i32) -> String {
    let file = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}"));
    let (name, call) = (file("comm"), file("syscall"));
    let status = file("status").unwrap_or_default();
    let pending = status.lines().filter(|line| line.contains("Pnd:"));
    let one = format!(
        "{pid} {name:?} {call:?} {:?}\n",
        pending.collect::<Vec<_>>()
    );
    children(pid)
        .into_iter()
        .map(below)
        .fold(one, |all, one| all + &one)
}

/// Returns true if the process is in a system call that waits for keys. Where the kernel does not
/// show the call, returns true if the process sleeps.
pub fn waits_for_keys(pid: i32) -> bool {
    const CALLS: [libc::c_long; 4] = [
        libc::SYS_poll,
        libc::SYS_ppoll,
        libc::SYS_pselect6,
        libc::SYS_read,
    ];
    match std::fs::read_to_string(format!("/proc/{pid}/syscall")) {
        Ok(text) => CALLS
            .iter()
            .any(|call| text.split(' ').next() == Some(&call.to_string())),
        Err(_) => state_of(pid) == Some('S'),
    }
}

pub fn parent_of(pid: i32) -> i32 {
    leftovers::stat(pid).expect("a process").parent
}

pub fn group_of(pid: i32) -> i32 {
    // SAFETY: no pointers.
    check(unsafe { libc::getpgid(pid) }, "getpgid")
}

/// Sends a signal to a process that the test started.
pub fn kill(pid: i32, signal: i32) {
    // SAFETY: no pointers.
    check(unsafe { libc::kill(pid, signal) }, "kill");
}

/// The path of a program, if it is installed; the distribution's own comes first.
pub fn installed(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let first = ["/usr/bin", "/bin"].map(PathBuf::from).into_iter();
    first
        .chain(std::env::split_paths(&path))
        .map(|dir| dir.join(program))
        .find(|file| file.exists())
}

/// The reason why a test that needs this program cannot run, if it cannot.
pub fn missing(program: &str) -> Option<String> {
    installed(program)
        .is_none()
        .then(|| format!("{program} is not installed"))
}

/// An interactive bash on a terminal.
pub struct Shell(pub Pty);

impl Shell {
    /// Waits for the first prompt. `bash` reads none of the user's files.
    pub fn start() -> Self {
        Self::at(Role::Controlling, &["bash", "--norc", "--noprofile", "-i"])
    }

    pub fn at(role: Role, line: &[&str]) -> Self {
        let mut shell = Self(Pty::start(role, line));
        assert_eq!(shell.prompt().0, 0);
        shell
    }

    /// Waits for the next prompt; returns the exit status in it, and the text before it.
    pub fn prompt(&mut self) -> (i32, String) {
        let seen = self.0.prompt_of(PROMPT);
        let shell = self.0.pid;
        // bash reacts to an earlier signal key only at the next key: it checks for signals, then
        // waits for keys.
        self.0.until("the shell waits for keys", |_| {
            waits_for_keys(shell).then_some(())
        });
        seen
    }

    /// At the prompt: makes the shell run this line.
    pub fn line(&mut self, line: &str) {
        self.0.type_keys(&format!("{line}\r"));
        self.0.see_echo(&format!("{line}\r\n"));
    }

    /// The same; waits for the next prompt.
    pub fn run(&mut self, line: &str) -> (i32, String) {
        self.line(line);
        self.prompt()
    }

    /// Runs a line that starts a probe under bowout; returns the PIDs of the probe and of bowout.
    pub fn probe(&mut self, line: &str) -> (i32, i32) {
        self.line(line);
        let child = self.0.ready();
        (child, parent_of(child))
    }

    /// Presses Ctrl-Z; waits until the shell reports it and both processes are stopped.
    pub fn suspend(&mut self, child: i32, bowout: i32) {
        self.0.type_keys(CTRL_Z);
        self.stopped(child, bowout);
    }

    /// Waits until the shell has the terminal again and the job is stopped.
    pub fn stopped(&mut self, child: i32, bowout: i32) {
        self.0.see("Stopped");
        assert!(self.prompt().0 > 128);
        self.0.state(child, 'T');
        self.0.state(bowout, 'T');
        assert_eq!(self.0.foreground(), self.0.pid);
    }

    /// Runs `fg`; waits until `group` has the terminal. bash prints the job's line before it gives
    /// the terminal to the job, and ignores a Ctrl-Z or Ctrl-C in between.
    pub fn fg(&mut self, group: i32) {
        self.line("fg");
        self.0.until("the job has the terminal", |pty| {
            (pty.foreground() == group).then_some(())
        });
    }

    /// Runs `fg` or `bg`; waits until both processes run again.
    pub fn resume(&mut self, how: &str, child: i32, bowout: i32) {
        if how == "fg" {
            self.fg(group_of(bowout));
        } else {
            self.line(how);
        }
        for pid in [child, bowout] {
            self.0.until("the job runs", |_| runs(pid).then_some(()));
        }
        if how == "bg" {
            assert_eq!(self.0.foreground(), self.0.pid);
        }
    }

    /// Sends `ASKED` to the child through bowout, which has handled every earlier signal by then.
    /// Returns the text on the screen before the child's report.
    pub fn answers(&mut self, bowout: i32) -> String {
        kill(bowout, ASKED);
        self.0.got(ASKED)
    }
}

/// The only child of a process; fails if it has another number of children.
pub fn only_child(bowout: i32) -> i32 {
    let all = children(bowout);
    assert_eq!(all.len(), 1, "{all:?}");
    all[0]
}
