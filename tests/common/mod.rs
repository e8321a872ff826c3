//! The harness of the end-to-end tests: starts bowout, waits for facts under a watchdog, leaves
//! nothing behind.
#![allow(unsafe_code)]
// The harness has to read the clock for its watchdog, and a pipe in a thread.
#![allow(clippy::disallowed_methods)]
// Each suite uses a part of it.
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

/// No words, no lines; no signals.
pub const NOTHING: [&str; 0] = [];
pub const NONE: [i32; 0] = [];

pub const BOWOUT: &str = env!("CARGO_BIN_EXE_bowout");

/// A program for python3 that receives SIGTERM, waits until it was stopped for a second, takes 50
/// ms of the processor and exits with 5.
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

/// How long any fact may take to come true; machines are noisy, and a test that is right does not
/// wait for it.
pub fn watchdog() -> Duration {
    let seconds = std::env::var("E2E_WATCHDOG")
        .ok()
        .and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(60))
}

/// More than any machine takes, less than any deadline that a test does not wait for.
pub const SOON: Duration = Duration::from_secs(60);

/// How much of a suite that has a quick part and a long one runs: `BOWOUT_LONG=1` asks for the long
/// part, whose last results are in tests/RESULTS.md; CI and `cargo test` run the quick one.
pub fn size<T>(quick: T, long: T) -> T {
    if std::env::var_os("BOWOUT_LONG").is_some_and(|value| value == "1") {
        long
    } else {
        quick
    }
}

/// Waits for a fact that no pipe shows: the only place of the tests that polls.
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

/// Two requests to stop are two only if bowout reads the second 50 ms after it acted on the
/// first, which is 0.2 s after it read it at the most: sees to it that those of a test to
/// one `target` are. Counted from here and not from the first request, which a busy machine lets
/// bowout read late: the test has seen the result by now.
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

/// Every signal at its default and none blocked; by system calls, for the C library leaves signals
/// 32 and 33 alone. May be called between fork and exec.
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

/// Whether a stop is asked for by this signal, by default.
fn asks(signal: i32) -> bool {
    [libc::SIGTERM, libc::SIGINT, libc::SIGABRT].contains(&signal)
}

pub fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let value = work();
    (value, start.elapsed())
}

/// Says on the real stderr, past the test runner's capture, why a test is not run; where CI demands
/// all of them, fails.
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

/// Why a PID namespace cannot be made here, if so.
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

/// A program of the examples; `cargo test` builds it, `cargo test --test NAME` does not.
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

/// The command that speaks to a service manager.
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

/// The lines of a pipe, as they come.
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

    /// All that have come so far, read or not.
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

    /// The next one; none at the end of the pipe, which is there when no process holds it any more.
    pub fn next(&mut self) -> Option<String> {
        self.unread.pop_front().or_else(|| self.receive())
    }

    /// The first one that satisfies, past others, which stay unread.
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

    /// All that remain, to the end of the pipe.
    pub fn rest(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.next()).collect()
    }
}

/// What a probe reports of a signal.
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

/// The signals in these lines, of the probe of this name.
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

/// These signals, no other, in this order, no more often; less of them where the kill came before
/// the process had the time.
pub fn assert_at_most(seen: &[i32], sent: &[i32]) {
    assert!(
        sent.starts_with(seen),
        "{seen:?} is not the beginning of {sent:?}"
    );
}

/// bowout, running; killed with all that it started when the test is through with it.
pub struct Running {
    /// bowout's own, as this process sees it.
    pub pid: i32,
    /// Holds on to bowout where another process reaps it: its number may become another's.
    handle: OwnedFd,
    home: Home,
    child: Child,
    mark: String,
    started: Instant,
    ended: Option<ExitStatus>,
    /// Whether bowout has exited and left no process of the test.
    is_over: bool,
    pub out: Lines,
    pub err: Lines,
}

impl Running {
    /// Waits until the command's handlers are in; its PID, as it sees it.
    pub fn ready(&mut self) -> i32 {
        let line = self.out.find("ready", |line| line.starts_with("ready "));
        line["ready ".len()..].parse().expect("a PID")
    }

    /// Likewise for a probe with a name.
    pub fn ready_as(&mut self, name: &str) -> i32 {
        let prefix = format!("{name} ready ");
        let line = self.out.find(&prefix, |line| line.starts_with(&prefix));
        line[prefix.len()..].parse().expect("a PID")
    }

    /// From here: the process that started bowout, or one outside its namespace.
    pub fn kill(&self, signal: i32) {
        if asks(signal) {
            apart(self.pid);
        }
        let handle = self.handle.as_raw_fd();
        // SAFETY: no information is passed; the kernel makes it up as for kill.
        let done = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, handle, signal, 0, 0) };
        assert_eq!(
            done,
            0,
            "kill {signal}: {}",
            std::io::Error::last_os_error()
        );
    }

    /// The same where bowout may have ended already; says whether it had not.
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

    /// Whether bowout has ended; it is not waited for.
    pub fn has_ended(&self) -> bool {
        let mut poll = libc::pollfd {
            fd: self.handle.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one valid structure.
        unsafe { libc::poll(&raw mut poll, 1, 0) != 0 }
    }

    /// With a value, as soon as the queue has room: all processes of a user share one
    /// (RLIMIT_SIGPENDING, setrlimit(2)).
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

    /// From a process that is neither manager nor descendant.
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

    /// Stops bowout, has these signals sent, and lets it go on: they are pending together.
    pub fn kill_together(&self, signals: &[i32]) {
        self.kill(libc::SIGSTOP);
        until("bowout is stopped", || (self.state() == 'T').then_some(()));
        for signal in signals {
            self.kill(*signal);
        }
        self.kill(libc::SIGCONT);
    }

    /// The next line must be of this signal, from anyone.
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

    /// What the unnamed child was sent until now: two real-time signals follow, the second only
    /// after the child has the first, so that bowout has dealt with all that came before.
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

    /// Waits for the end.
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

    /// The processes of this test that live.
    pub fn left(&self) -> Vec<i32> {
        if self.started.elapsed() < Duration::from_secs(1) {
            leftovers::of_young(&self.mark, self.child.id())
        } else {
            leftovers::of(&self.mark)
        }
    }

    /// The end, and that none of the processes that bowout started has outlived it.
    pub fn end(&mut self) -> Status {
        let status = self.wait();
        let left = self.left();
        assert!(left.is_empty(), "left running: {left:?}");
        self.is_over = true;
        status
    }

    /// How bowout ends where its child died of this signal.
    pub fn died(&self, signal: i32) -> Status {
        match self.home {
            Home::Pid1 => Status::Code(128 + signal),
            Home::Subreaper => Status::Signal(signal),
        }
    }

    /// All of bowout's own lines, after its end.
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
        // To kill what is left, /proc is read whole, which costs what the machine runs.
        if self.is_over || self.ended.is_some() && self.left().is_empty() {
            leftovers::forget(self.child.id());
        } else {
            leftovers::kill(&self.mark, &mut self.child);
        }
    }
}

/// Holds on to a process.
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

/// Waits until each process sleeps in poll(2) or ppoll(2), and gives the number of its context
/// switches: a number that grows later is a wake-up. The state S alone is not enough: a process is
/// preempted in it on its way to sleep, which is a switch more. The kernel names the system call
/// only of a process that has left its processor.
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

/// The signals that are pending for all of a process, bit 0 is number 1.
pub fn pending(pid: i32) -> u64 {
    u64::from_str_radix(&field(pid, "ShdPnd"), 16).expect("a mask")
}

/// Keeps a report for tests/schema, which validates all of them after the suites.
pub fn keep_report(text: &str) {
    let target = Path::new(BOWOUT).ancestors().nth(2).expect("target");
    let folder = target.join("reports");
    std::fs::create_dir_all(&folder).expect("target/ can be written");
    let name = format!("{}.json", leftovers::unique());
    std::fs::write(folder.join(name), text).expect("target/reports/ can be written");
}

/// A directory of the test's own, gone with it.
pub struct Dir(pub PathBuf);

impl Dir {
    pub fn new() -> Self {
        // One that was left by a run that was killed may have had our PID.
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

    /// A program that any user may run, wherever this one was built.
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

/// Waits until no process has the file open for writing, as a process may that another test forked
/// meanwhile: it could not be executed (`ETXTBSY`, execve(2)). That there is no writer is what a
/// read lease asks for (`F_SETLEASE`, fcntl(2)).
fn written(path: &Path) {
    let file = fs::File::open(path).expect("written");
    until("nobody writes", || {
        // SAFETY: a descriptor of ours and numbers.
        let leased = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_RDLCK) } == 0;
        let busy = !leased && std::io::Error::last_os_error().raw_os_error() == Some(libc::EAGAIN);
        (!busy).then_some(())
    });
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
