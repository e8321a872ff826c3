//! The harness of the end-to-end tests: it starts bowout, waits for facts under a watchdog, and
//! leaves no process running.
#![allow(unsafe_code)]
// The harness reads the clock for its watchdog, and reads pipes in threads.
#![allow(clippy::disallowed_methods)]
// Each suite uses a part of the harness.
#![allow(dead_code)]

pub mod leftovers;
pub mod machine;
pub mod pty;
pub mod start;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

pub use start::{Home, Start, homes};

/// Empty lists of words or lines, and of signals.
pub const NOTHING: [&str; 0] = [];
pub const NONE: [i32; 0] = [];

pub const BOWOUT: &str = env!("CARGO_BIN_EXE_bowout");

/// A program for python3: it receives SIGTERM and waits until it has been stopped for a second.
/// Then it uses 50 ms of processor time and exits with 5.
pub const NEEDS_TIME_TO_STOP: &str = "import os,signal,sys,time\n\
    def stop(*_):\n\
    \x20 last = now = time.monotonic()\n\
    \x20 os.write(1, b'15 0 0 0\\n')\n\
    \x20 while now - last < 1: last, now = now, time.monotonic()\n\
    \x20 start = time.process_time()\n\
    \x20 while time.process_time() - start < 0.05: pass\n\
    \x20 sys.exit(5)\n\
    signal.signal(15, stop)\n\
    os.write(1, b'ready 1\\n')\n\
    while True: signal.pause()";

/// The longest time that any fact may take to become true. Machines are noisy, and a passing test
/// does not wait for it.
pub fn watchdog() -> Duration {
    let seconds = std::env::var("E2E_WATCHDOG")
        .ok()
        .and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(60))
}

/// More than any machine needs, less than any deadline that a test does not wait for.
pub const SOON: Duration = Duration::from_secs(60);

/// Selects the quick or the long part of a suite. `BOWOUT_LONG=1` selects the long part, whose last
/// results are in tests/RESULTS.md; CI and `cargo test` run the quick one.
pub fn size<T>(quick: T, long: T) -> T {
    if std::env::var_os("BOWOUT_LONG").is_some_and(|value| value == "1") {
        long
    } else {
        quick
    }
}

/// Waits for a fact that no pipe shows: the only place in the tests that polls.
pub fn until<T>(what: &str, mut fact: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + watchdog();
    let mut turns = 0_u32;
    loop {
        if let Some(value) = fact() {
            return value;
        }
        assert!(Instant::now() < end, "watchdog: {what}");
        turns = turns.saturating_add(1);
        // SAFETY: no pointers, no descriptors.
        unsafe {
            if turns < 20 {
                libc::sched_yield();
            } else {
                libc::poll(std::ptr::null_mut(), 0, if turns < 500 { 1 } else { 10 });
            }
        }
    }
}

/// Separates two stop requests of a test to one `target`. bowout counts them as two only if it
/// reads the second more than 50 ms after it acted on the first; acting counts for at most 0.2 s.
/// The wait counts from this call, not from the first request: the test has seen its result by now,
/// but on a busy machine bowout may have read it late.
pub fn apart(target: impl std::fmt::Display) {
    thread_local! {
        static LAST: RefCell<String> = const { RefCell::new(String::new()) };
    }
    let target = target.to_string();
    LAST.with_borrow_mut(|last| {
        if *last == target {
            let from = Instant::now();
            until("the next request is one of its own", || {
                (from.elapsed() > Duration::from_millis(260)).then_some(())
            });
        }
        *last = target;
    });
}

/// Sets every signal to its default and blocks none. It uses system calls, because the C library
/// leaves signals 32 and 33 alone. May be called between fork and exec.
pub fn clean_slate() {
    let none = [0_u64; 4];
    // SAFETY: the only pointers are to zeroes of the size that the kernel reads.
    unsafe {
        for signal in 1..=64 {
            libc::syscall(libc::SYS_rt_sigaction, signal, none.as_ptr(), 0, 8);
        }
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            none.as_ptr(),
            0,
            8,
        );
    }
}

/// Returns true if this signal is a stop request by default.
fn asks(signal: i32) -> bool {
    [libc::SIGTERM, libc::SIGINT, libc::SIGABRT].contains(&signal)
}

pub fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let value = work();
    (value, start.elapsed())
}

/// Reports on the real stderr, past the test runner's capture, why a test is skipped. Fails in CI,
/// which requires all tests.
pub fn skip(reason: Option<String>) -> bool {
    let Some(reason) = reason else { return false };
    let test = std::thread::current().name().unwrap_or("?").to_owned();
    assert!(
        std::env::var("CI").as_deref() != Ok("true"),
        "skipped in CI: {test}: {reason}"
    );
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {reason}");
    true
}

/// The reason why a PID namespace cannot be created here, if it cannot.
pub fn no_namespaces() -> Option<String> {
    static REASON: OnceLock<Option<String>> = OnceLock::new();
    REASON
        .get_or_init(|| {
            let mut command = Command::new(probe());
            command.args(["ns", "--"]).arg(probe()).args(["exit", "42"]);
            let output = leftovers::output(&mut command);
            (output.status.code() != Some(42)).then(|| {
                format!(
                    "no PID namespace: {}",
                    String::from_utf8_lossy(&output.stderr).trim()
                )
            })
        })
        .clone()
}

pub fn not_root() -> Option<String> {
    // SAFETY: no arguments.
    (unsafe { libc::geteuid() } != 0)
        .then(|| "only root can start a process that it may not signal".into())
}

pub fn no_strace() -> Option<String> {
    pty::missing("strace")
}

/// A program from the examples; `cargo test` builds it, `cargo test --test NAME` does not.
fn example(name: &str) -> PathBuf {
    let profile = PathBuf::from(BOWOUT)
        .parent()
        .expect("a directory")
        .to_owned();
    let program = profile.join("examples").join(name);
    if !program.exists() {
        let mut cargo = Command::new(env!("CARGO"));
        cargo
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["build", "--quiet", "--example", name]);
        cargo
            .arg("--target-dir")
            .arg(profile.parent().expect("a directory"));
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        let output = leftovers::output(&mut cargo);
        assert!(output.status.success(), "cannot build {name}: {output:?}");
    }
    assert!(
        program.exists(),
        "{} is missing: cargo build --example {name}",
        program.display()
    );
    program
}

/// The helper child program.
pub fn probe() -> &'static PathBuf {
    static PROBE: OnceLock<PathBuf> = OnceLock::new();
    PROBE.get_or_init(|| example("probe"))
}

/// The command that sends messages to a service manager.
pub fn notifier() -> &'static PathBuf {
    static NOTIFIER: OnceLock<PathBuf> = OnceLock::new();
    NOTIFIER.get_or_init(|| example("notifier"))
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Code(i32),
    Signal(i32),
}

impl From<ExitStatus> for Status {
    fn from(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, Some(signal)) => Self::Signal(signal),
            (None, None) => panic!("neither exited nor killed: {status:?}"),
        }
    }
}

/// The lines of a pipe, as they arrive.
pub struct Lines {
    incoming: Receiver<String>,
    unread: VecDeque<String>,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Lines {
    pub fn of(pipe: impl Read + Send + 'static) -> Self {
        let (send, incoming) = channel();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&seen);
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                keep.lock().expect("no panic holds it").push(line.clone());
                let _ = send.send(line);
            }
        });
        Self {
            incoming,
            unread: VecDeque::new(),
            seen,
        }
    }

    /// All lines so far, read or not.
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().expect("no panic holds it").clone()
    }

    fn receive(&self) -> Option<String> {
        match self.incoming.recv_timeout(watchdog()) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => {
                panic!("watchdog: neither line nor end after {:#?}", self.seen())
            }
        }
    }

    /// The next line; `None` at the end of the pipe, when no process holds it any more.
    pub fn next(&mut self) -> Option<String> {
        self.unread.pop_front().or_else(|| self.receive())
    }

    /// The first line that satisfies the test; the lines before it stay unread.
    pub fn find(&mut self, what: &str, test: impl Fn(&str) -> bool) -> String {
        if let Some(at) = self.unread.iter().position(|line| test(line)) {
            return self.unread.remove(at).expect("just found");
        }
        loop {
            match self.receive() {
                Some(line) if test(&line) => return line,
                Some(line) => self.unread.push_back(line),
                None => panic!("the pipe ended before {what}: {:#?}", self.seen()),
            }
        }
    }

    /// All remaining lines, to the end of the pipe.
    pub fn rest(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.next()).collect()
    }
}

/// The probe's report of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Got {
    pub signal: i32,
    pub code: i32,
    pub value: i32,
}

impl Got {
    pub fn parse(line: &str) -> Option<Self> {
        let mut words: Vec<&str> = line.split(' ').collect();
        if words.len() == 5 {
            words.remove(0);
        }
        let numbers: Vec<i32> = words.iter().map_while(|word| word.parse().ok()).collect();
        let [signal, code, _sender, value] = numbers[..] else {
            return None;
        };
        Some(Self {
            signal,
            code,
            value,
        })
    }
}

/// The signals in the lines of the probe with this name.
pub fn signals_of(name: &str, lines: &[String]) -> Vec<i32> {
    let prefix = if name.is_empty() {
        String::new()
    } else {
        format!("{name} ")
    };
    lines
        .iter()
        .filter(|line| line.starts_with(&prefix))
        .filter_map(|line| Got::parse(line))
        .map(|got| got.signal)
        .collect()
}

/// The process received the signals that were sent, in order and no other. It may have received
/// only the first of them, if the kill came before it could report the rest.
pub fn assert_at_most(seen: &[i32], sent: &[i32]) {
    assert!(
        sent.starts_with(seen),
        "{seen:?} is not the beginning of {sent:?}"
    );
}

/// A running bowout; when the test drops it, it is killed together with every process that it
/// started.
pub struct Running {
    /// bowout's PID, as this process sees it.
    pub pid: i32,
    /// Identifies bowout even after another process reaps it and its PID is reused.
    handle: OwnedFd,
    home: Home,
    child: Child,
    mark: String,
    started: Instant,
    ended: Option<ExitStatus>,
    /// True once bowout has exited and left no process of the test.
    is_over: bool,
    pub out: Lines,
    pub err: Lines,
}

impl Running {
    /// Waits until the command has installed its handlers; returns its PID as the command sees it.
    pub fn ready(&mut self) -> i32 {
        let line = self.out.find("ready", |line| line.starts_with("ready "));
        line["ready ".len()..].parse().expect("a PID")
    }

    /// The same for a probe with a name.
    pub fn ready_as(&mut self, name: &str) -> i32 {
        let prefix = format!("{name} ready ");
        let line = self.out.find(&prefix, |line| line.starts_with(&prefix));
        line[prefix.len()..].parse().expect("a PID")
    }

    /// Sends a signal from this process: the process that started bowout, or one outside its
    /// namespace.
    pub fn kill(&self, signal: i32) {
        if asks(signal) {
            apart(self.pid);
        }
        let handle = self.handle.as_raw_fd();
        // SAFETY: no information is passed; the kernel fills it in as for kill.
        let done = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, handle, signal, 0, 0) };
        assert_eq!(
            done,
            0,
            "kill {signal}: {}",
            std::io::Error::last_os_error()
        );
    }

    /// The same where bowout may have ended already; returns true if the signal was sent.
    pub fn try_kill(&self, signal: i32) -> bool {
        // SAFETY: as above.
        let done = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.handle.as_raw_fd(),
                signal,
                0,
                0,
            )
        };
        done == 0
    }

    /// Returns true if bowout has ended; does not wait for it.
    pub fn has_ended(&self) -> bool {
        let mut poll = libc::pollfd {
            fd: self.handle.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one valid structure.
        unsafe { libc::poll(&raw mut poll, 1, 0) != 0 }
    }

    /// Sends a signal with a value, as soon as the queue has room: all processes of a user share
    /// one queue (RLIMIT_SIGPENDING, setrlimit(2)).
    pub fn queue(&self, signal: i32, value: i32) {
        self.assert_alive();
        let value = libc::sigval {
            sival_ptr: value as usize as *mut libc::c_void,
        };
        until("room in the queue", || {
            // SAFETY: bowout, which was alive just now; the value is a number.
            let result = unsafe { libc::sigqueue(self.pid, signal, value) };
            let error = std::io::Error::last_os_error();
            assert!(
                result == 0 || error.raw_os_error() == Some(libc::EAGAIN),
                "sigqueue {signal}: {error}"
            );
            (result == 0).then_some(())
        });
    }

    /// Sends a signal from a process that is neither manager nor descendant.
    pub fn kill_from_elsewhere(&self, signal: i32) {
        self.assert_alive();
        if asks(signal) {
            apart(self.pid);
        }
        let mut command = Command::new(probe());
        command.args(["kill", &self.pid.to_string(), &signal.to_string()]);
        assert!(
            leftovers::output(&mut command).status.success(),
            "kill {signal} from elsewhere"
        );
    }

    fn assert_alive(&self) {
        assert!(!self.has_ended(), "bowout has ended");
    }

    /// Stops bowout, sends these signals, and continues it, so that the signals are pending
    /// together.
    pub fn kill_together(&self, signals: &[i32]) {
        self.kill(libc::SIGSTOP);
        until("bowout is stopped", || (self.state() == 'T').then_some(()));
        for signal in signals {
            self.kill(*signal);
        }
        self.kill(libc::SIGCONT);
    }

    /// The next line must report this signal, from any sender.
    pub fn expect(&mut self, signal: i32) -> Got {
        let line = self.out.next().unwrap_or_else(|| {
            panic!(
                "the child ended before signal {signal}: {:#?}",
                self.err.seen()
            )
        });
        let got = Got::parse(&line).unwrap_or_else(|| panic!("no signal: {line}"));
        assert_eq!(got.signal, signal, "{line}");
        got
    }

    /// The signals that the unnamed child has received until now. Two real-time signals follow
    /// them, the second after the child received the first, so that bowout has handled every
    /// earlier signal.
    pub fn settle(&mut self) -> Vec<i32> {
        let mut seen = Vec::new();
        for fence in [libc::SIGRTMAX() - 1, libc::SIGRTMAX()] {
            self.kill(fence);
            loop {
                let line = self
                    .out
                    .next()
                    .unwrap_or_else(|| panic!("the child has ended: {:#?}", self.err.seen()));
                match Got::parse(&line) {
                    Some(got) if got.signal == fence => break,
                    Some(got) => seen.push(got.signal),
                    None => {}
                }
            }
        }
        seen
    }

    /// The PID of bowout's child, as this process sees it.
    pub fn child_pid(&self) -> i32 {
        until("bowout has a child", || children(self.pid).first().copied())
    }

    pub fn state(&self) -> char {
        leftovers::stat(self.pid).expect("bowout is there").state
    }

    pub fn field(&self, name: &str) -> String {
        field(self.pid, name)
    }

    /// Waits for bowout's end.
    pub fn wait(&mut self) -> Status {
        let child = &mut self.child;
        let seen = Arc::clone(&self.err.seen);
        let status = *self.ended.get_or_insert_with(|| {
            until(
                &format!(
                    "bowout ends after {:#?}",
                    seen.lock().expect("no panic holds it")
                ),
                || child.try_wait().expect("our child"),
            )
        });
        status.into()
    }

    pub fn dumped_core(&mut self) -> bool {
        self.wait();
        self.ended.expect("waited for").core_dumped()
    }

    /// The living processes of this test.
    pub fn left(&self) -> Vec<i32> {
        if self.started.elapsed() < Duration::from_secs(1) {
            leftovers::of_young(&self.mark, self.child.id())
        } else {
            leftovers::of(&self.mark)
        }
    }

    /// Waits for bowout's end; fails if a process that bowout started is still running.
    pub fn end(&mut self) -> Status {
        let status = self.wait();
        let left = self.left();
        assert!(left.is_empty(), "left running: {left:?}");
        self.is_over = true;
        status
    }

    /// bowout's status after its child died of this signal.
    pub fn died(&self, signal: i32) -> Status {
        match self.home {
            Home::Pid1 => Status::Code(128 + signal),
            Home::Subreaper => Status::Signal(signal),
        }
    }

    /// All lines on bowout's stderr, after its end.
    pub fn log(&mut self) -> Vec<String> {
        self.wait();
        self.err.rest();
        self.err.seen()
    }

    /// The only line of the log.
    pub fn line(&mut self) -> String {
        let log = self.log();
        let [line] = &log[..] else {
            panic!("not one line: {log:#?}")
        };
        line.clone()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "stdout: {:#?}\nstderr: {:#?}",
                self.out.seen(),
                self.err.seen()
            );
        }
        // `leftovers::kill` reads all of /proc, which costs more the more processes the machine
        // runs.
        if self.is_over || self.ended.is_some() && self.left().is_empty() {
            leftovers::forget(self.child.id());
        } else {
            leftovers::kill(&self.mark, &mut self.child);
        }
    }
}

/// A pidfd of the process; `None` if there is no such process.
pub fn hold(pid: i32) -> Option<OwnedFd> {
    // SAFETY: no pointers; the descriptor is ours.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, pid, 0) as i32;
        (fd >= 0).then(|| OwnedFd::from_raw_fd(fd))
    }
}

/// The children of a process, zombies included.
pub fn children(pid: i32) -> Vec<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect()
}

/// A field of /proc/PID/status.
pub fn field(pid: i32, name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = text
        .lines()
        .find(|line| line.split(':').next() == Some(name))
        .unwrap_or_else(|| panic!("no {name}"));
    line[name.len() + 1..].trim().to_owned()
}

/// Waits until each process sleeps in poll(2) or ppoll(2), and returns its numbers of context
/// switches. If a number grows later, the process has woken up. The state S alone is not enough: a
/// process in it can be preempted on its way to sleep, which is one more switch. The kernel reports
/// the system call only of a process that has left its processor.
pub fn switches_asleep(pids: &[i32]) -> Vec<[String; 2]> {
    let sleeps = |&pid: &i32| {
        let call = fs::read_to_string(format!("/proc/{pid}/syscall")).expect("a process");
        let number = call.split(' ').next().and_then(|word| word.parse().ok());
        number.is_some_and(|number: i64| [libc::SYS_poll, libc::SYS_ppoll].contains(&number))
    };
    until("bowout sleeps", || pids.iter().all(sleeps).then_some(()));
    let names = ["voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"];
    pids.iter()
        .map(|&pid| names.map(|name| field(pid, name)))
        .collect()
}

/// The signals that are pending for the whole process; bit 0 is signal 1.
pub fn pending(pid: i32) -> u64 {
    u64::from_str_radix(&field(pid, "ShdPnd"), 16).expect("a mask")
}

/// Keeps a report for tests/schema, which validates all reports after the suites.
pub fn keep_report(text: &str) {
    let target = Path::new(BOWOUT).ancestors().nth(2).expect("target");
    let folder = target.join("reports");
    std::fs::create_dir_all(&folder).expect("target/ can be written");
    let name = format!("{}.json", leftovers::unique());
    std::fs::write(folder.join(name), text).expect("target/reports/ can be written");
}

/// A directory of the test's own; dropping it removes it.
pub struct Dir(pub PathBuf);

impl Dir {
    pub fn new() -> Self {
        // A run that was killed may have had our PID and left its directory.
        loop {
            let path = std::env::temp_dir().join(format!("bowout-{}", leftovers::unique()));
            match fs::create_dir(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                made => return made.map(|()| Self(path)).expect("a directory"),
            }
        }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A copy of a program that any user may run, wherever the original was built.
    pub fn program(&self, program: impl AsRef<Path>) -> PathBuf {
        let path = self.file(
            program
                .as_ref()
                .file_name()
                .expect("a name")
                .to_str()
                .expect("text"),
        );
        fs::copy(&program, &path).expect("copied");
        written(&path);
        path
    }

    /// A file with these permissions.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>, mode: u32) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = self.file(name);
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("permissions");
        written(&path);
        path
    }
}

/// Waits until no process has the file open for writing. A process that another test forked
/// meanwhile may have it open, and then the file cannot be executed (`ETXTBSY`, execve(2)). The
/// kernel grants a read lease only if there is no writer (`F_SETLEASE`, fcntl(2)).
fn written(path: &Path) {
    let file = fs::File::open(path).expect("written");
    // SAFETY: a descriptor of ours and numbers.
    let lease = |kind: i32| unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, kind) } == 0;
    until("no process writes", || {
        let leased = lease(libc::F_RDLCK);
        let busy = !leased && std::io::Error::last_os_error().raw_os_error() == Some(libc::EAGAIN);
        (!busy).then_some(())
    });
    // A process that another test forks meanwhile has a copy of the descriptor, which keeps the
    // lease after the close. The next open for writing would end the tests by SIGIO.
    lease(libc::F_UNLCK);
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
