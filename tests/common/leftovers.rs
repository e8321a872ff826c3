//! The processes that the tests have started, and their removal.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use super::{machine, until};

/// In the environment of every process that belongs to one test.
pub const MARK: &str = "E2E_RUN";

/// The PIDs that `std` waits for, with the number of starts of each. Any other zombie child of this
/// process is an adopted orphan. The lock is held during each start, so that no thread sees a child
/// that is not recorded yet. A PID can count twice: after the wait for its first owner and before
/// `forget`, the kernel may give it to another child.
static STARTED: Mutex<Option<HashMap<u32, u32>>> = Mutex::new(None);

fn started() -> MutexGuard<'static, Option<HashMap<u32, u32>>> {
    STARTED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The number of our PID namespace: test suites in separate namespaces can have the same PIDs.
fn namespace() -> u64 {
    fs::metadata("/proc/self/ns/pid")
        .expect("a PID namespace")
        .ino()
}

/// For names that other processes see: in /tmp, among abstract sockets.
pub fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let nth = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{}-{}-{nth}", std::process::id(), namespace())
}

/// A user ID for one test alone: a limit on processes (RLIMIT_NPROC) counts every process of the
/// user.
pub fn own_user() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Namespaces have neighbouring numbers, and few tests need a user.
    let (namespace, suite) = (namespace() % 100, std::process::id() % 100_000);
    let nth = NEXT.fetch_add(1, Ordering::Relaxed) % 100;
    1_000_000_000 + namespace as u32 * 10_000_000 + suite * 100 + nth
}

/// Makes this process a subreaper: it adopts the descendants of a bowout that was killed.
pub fn adopt_orphans() {
    static SUBREAPER: Once = Once::new();
    // SAFETY: no pointers.
    SUBREAPER.call_once(|| assert_eq!(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) }, 0));
}

pub fn spawn(command: &mut Command) -> std::io::Result<Child> {
    machine::check();
    adopt_orphans();
    let mut started = started();
    let child = command.spawn()?;
    *started
        .get_or_insert_default()
        .entry(child.id())
        .or_default() += 1;
    Ok(child)
}

/// Records a process that a test forks by itself; `fork` returns its PID.
pub fn note(fork: impl FnOnce() -> i32) -> i32 {
    let mut started = started();
    let pid = fork();
    *started
        .get_or_insert_default()
        .entry(pid as u32)
        .or_default() += 1;
    pid
}

/// Call it once for each start, after the wait for the process.
pub fn forget(pid: u32) {
    if let Some(times) = started().get_or_insert_default().get_mut(&pid) {
        *times = times.saturating_sub(1);
    }
}

/// Runs a program to its end.
pub fn output(command: &mut Command) -> Output {
    let child = spawn(
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped()),
    )
    .expect("a program");
    let pid = child.id();
    let output = child.wait_with_output().expect("our child");
    forget(pid);
    output
}

#[derive(Clone, Copy, Debug)]
pub struct Stat {
    pub state: char,
    pub parent: i32,
}

pub fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may contain anything, the last bracket included.
    let mut words = text[text.rfind(')')? + 2..].split(' ');
    Some(Stat {
        state: words.next()?.chars().next()?,
        parent: words.next()?.parse().ok()?,
    })
}

/// Every descendant of this process, in any PID namespace.
fn descendants() -> HashMap<i32, Stat> {
    let me = std::process::id() as i32;
    let pids = fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let all: HashMap<i32, Stat> = pids.filter_map(|pid| Some((pid, stat(pid)?))).collect();
    let below = |mut pid: i32| {
        while let Some(stat) = all.get(&pid) {
            if stat.parent == me {
                return true;
            }
            pid = stat.parent;
        }
        false
    };
    all.iter()
        .filter(|(pid, _)| below(**pid))
        .map(|(pid, stat)| (*pid, *stat))
        .collect()
}

/// Returns true if the environment of the process has this mark. During execve(2) a process has no
/// readable environment, so an empty one of a living process is read again.
fn is_marked(pid: i32, mark: &str) -> bool {
    let wanted = format!("{MARK}={mark}");
    for _ in 0..200 {
        let text = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let has_exited = || stat(pid).is_none_or(|stat| stat.state == 'Z');
        if !text.is_empty() || has_exited() {
            let mut words = text.split(|byte| *byte == 0);
            return words.any(|word| word == wanted.as_bytes());
        }
        std::thread::yield_now();
    }
    false
}

/// The living processes of this test; a zombie has no environment and does not count.
pub fn of(mark: &str) -> Vec<i32> {
    marked(&descendants(), mark)
}

/// The same, for a test whose `first` process started less than a second ago. The PIDs of the
/// others lie between `first` and the last PID that the kernel assigned, so only these are read.
/// The kernel does not assign so many PIDs in a second that they wrap around to `first`.
pub fn of_young(mark: &str, first: u32) -> Vec<i32> {
    let load = fs::read_to_string("/proc/loadavg").expect("/proc");
    let last = load.trim_end().rsplit(' ').next();
    let last: i32 = last.and_then(|last| last.parse().ok()).expect("a PID");
    let numbers = first as i32 + 1..=last;
    // The PIDs wrapped around, or the range is larger than the usual number of processes.
    if numbers.is_empty() || numbers.clone().count() > 1000 {
        return of(mark);
    }
    let lives = |pid: i32| stat(pid).is_some_and(|stat| stat.state != 'Z');
    numbers
        .filter(|&pid| is_marked(pid, mark) && lives(pid))
        .collect()
}

fn marked(all: &HashMap<i32, Stat>, mark: &str) -> Vec<i32> {
    all.iter()
        .filter(|(pid, stat)| stat.state != 'Z' && is_marked(**pid, mark))
        .map(|(pid, _)| *pid)
        .collect()
}

/// Kills and reaps every process that the test started, and forgets `child`.
pub fn kill(mark: &str, child: &mut Child) {
    until("all that the test started has ended", || {
        let all = descendants();
        let none_left = !kill_these(&marked(&all, mark));
        let reaped = child.try_wait().is_ok_and(|status| status.is_some());
        (none_left && reaped).then(|| reap(&all))
    });
    forget(child.id());
    machine::check();
}

/// Kills every process that the test started; returns true if there was any.
pub fn kill_all(mark: &str) -> bool {
    kill_these(&of(mark))
}

fn kill_these(left: &[i32]) -> bool {
    for pid in left {
        // SAFETY: no pointers. A descendant of ours that carries the test's mark.
        unsafe { libc::kill(*pid, libc::SIGKILL) };
    }
    !left.is_empty()
}

/// Reaps the zombies that were re-parented to us.
pub fn reap_orphans() {
    reap(&descendants());
}

/// Reaps the zombies in `all` that were re-parented to this process. A PID in `all` can be out of
/// date: its zombie was reaped meanwhile. waitid(2) then fails, or the PID belongs to a grandchild,
/// which is not ours to wait for, or to a child in `STARTED`, which is skipped.
fn reap(all: &HashMap<i32, Stat>) {
    let started = started();
    for (&pid, stat) in all {
        let ours = started
            .as_ref()
            .and_then(|started| started.get(&(pid as u32)))
            .is_some_and(|times| *times > 0);
        if stat.state == 'Z' && stat.parent == std::process::id() as i32 && !ours {
            // SAFETY: no status is requested; a zombie that no other thread waits for.
            unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::WNOHANG) };
        }
    }
}
