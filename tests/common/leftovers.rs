//! What the tests have started, and how all of it goes away again.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use super::{machine, until};

/// In the environment of all that belongs to one test.
pub const MARK: &str = "E2E_RUN";

/// The PIDs that `std` will wait for: any other zombie of ours is an orphan that we adopted. Held
/// over each start, so that no child is seen before it is in here. How often each is: one that was
/// waited for and is not forgotten yet may be another's as well.
static STARTED: Mutex<Option<HashMap<u32, u32>>> = Mutex::new(None);

fn started() -> MutexGuard<'static, Option<HashMap<u32, u32>>> {
    STARTED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The number of our PID namespace: suites in namespaces of their own have the same PIDs.
fn namespace() -> u64 {
    fs::metadata("/proc/self/ns/pid")
        .expect("a PID namespace")
        .ino()
}

/// For names that others see: in /tmp, among abstract sockets.
pub fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let nth = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{}-{}-{nth}", std::process::id(), namespace())
}

/// A user of one test alone: a limit of processes counts all processes of a user.
pub fn own_user() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Namespaces have neighbouring numbers, and few tests need a user.
    let (namespace, suite) = (namespace() % 100, std::process::id() % 100_000);
    let nth = NEXT.fetch_add(1, Ordering::Relaxed) % 100;
    1_000_000_000 + namespace as u32 * 10_000_000 + suite * 100 + nth
}

/// What a killed bowout leaves behind must come to us.
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

/// Likewise for a process that a test forks by itself; `fork` gives its PID.
pub fn note(fork: impl FnOnce() -> i32) -> i32 {
    let mut started = started();
    let pid = fork();
    *started
        .get_or_insert_default()
        .entry(pid as u32)
        .or_default() += 1;
    pid
}

/// Once for each start, after it was waited for.
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

/// Every process below this one, in whatever namespace.
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

/// In the midst of its execve(2) a process has no environment to be read: one that lives and shows
/// none is looked at again.
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

/// The processes of this test that live; a zombie has no environment any more, and is none.
pub fn of(mark: &str) -> Vec<i32> {
    marked(&descendants(), mark)
}

/// Likewise, for a test whose `first` process has started within this second: the others have
/// numbers between its own and the last that the kernel gave out, and no other process has to be
/// looked at. Nothing forks so often that the numbers return to `first` within a second.
pub fn of_young(mark: &str, first: u32) -> Vec<i32> {
    let load = fs::read_to_string("/proc/loadavg").expect("/proc");
    let last = load.trim_end().rsplit(' ').next();
    let last: i32 = last.and_then(|last| last.parse().ok()).expect("a PID");
    let numbers = first as i32 + 1..=last;
    // They began again at 2, or are more than there are processes.
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

/// Kills and reaps all that the test has started, and forgets `child`.
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

/// Kills all that the test has started; whether there was any.
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

/// Reaps the zombies among these that were re-parented to us. One that was reaped meanwhile is not
/// reaped again: its number is free, a grandchild's, or that of a child in `STARTED`.
fn reap(all: &HashMap<i32, Stat>) {
    let started = started();
    for (&pid, stat) in all {
        let ours = started
            .as_ref()
            .and_then(|started| started.get(&(pid as u32)))
            .is_some_and(|times| *times > 0);
        if stat.state == 'Z' && stat.parent == std::process::id() as i32 && !ours {
            // SAFETY: no status is asked for; a zombie that no other thread waits for.
            unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::WNOHANG) };
        }
    }
}
