//! Thousands of orphans, processes that fork while bowout kills them, and two hundred bowouts at
//! once.

use std::fs;
use std::time::Duration;

use crate::common::{Home, Running, Start, Status, children, homes, size, timed, until};
use crate::signals::number;
use crate::user::User;

const TERM: i32 = libc::SIGTERM;
const KILL: i32 = libc::SIGKILL;
/// Orphans per second.
const RATE: u64 = 20_000;

/// The limit counts zombies, too. Where bowout reaps too slowly, it stops the storm before the
/// machine runs out of processes.
const FEW: [&str; 2] = ["--nproc", "15000"];

struct Bomb {
    bowout: Running,
    user: User,
}

impl Bomb {
    /// Returns `None` where the test cannot become another user.
    fn start(home: Home, grace: &str, words: &[&str]) -> Option<Self> {
        let user = User::new()?;
        let start = user.start(&["--grace", grace, "--report", &user.file("r")], &FEW);
        let mut bowout = user.probe(start.at(home), &[&["bomb"], words].concat());
        bowout.ready();
        Some(Self { bowout, user })
    }

    fn orphans(&self) -> u64 {
        number(
            &fs::read_to_string(self.user.file("r")).expect("a report"),
            "orphans_reaped",
        )
    }

    /// The number of orphans that the child reports, and the time in ms that they took.
    fn made(&mut self) -> (u64, u64) {
        let line = self
            .bowout
            .out
            .find("made", |line| line.starts_with("made "));
        let numbers: Vec<u64> = line
            .split(' ')
            .filter_map(|word| word.parse().ok())
            .collect();
        (numbers[0], numbers[1])
    }
}

#[test]
fn twenty_thousand_orphans_a_second_are_counted_to_the_last() {
    let ms: u64 = size(1000, 10_000);
    for home in homes() {
        let Some(mut bomb) = Bomb::start(home, "8s", &[&RATE.to_string(), &ms.to_string()]) else {
            return;
        };
        let mut most = 0;
        let pid = bomb.bowout.pid;
        until("the bomb is through", || {
            most = most.max(children(pid).len());
            bomb.bowout
                .out
                .seen()
                .iter()
                .any(|line| line.starts_with("made"))
                .then_some(())
        });
        let (made, took) = bomb.made();
        assert_eq!(
            bomb.bowout.end(),
            Status::Code(0),
            "{home:?}: {:?}",
            bomb.bowout.err.seen()
        );
        println!("{home:?}: {made} orphans in {took} ms, at most {most} children seen at once");
        assert_eq!(bomb.orphans(), made, "{home:?}");
        // On a busy machine the bomb itself is slow, so a quarter of the rate is enough.
        assert!(
            made >= RATE * ms / 1000 / 4,
            "{home:?}: {made} in {took} ms is no storm"
        );
    }
}

#[test]
fn a_stop_request_among_orphans_is_acted_on_in_time() {
    for home in homes() {
        let Some(mut bomb) = Bomb::start(home, "8s", &[&RATE.to_string(), "60000"]) else {
            return;
        };
        bomb.bowout
            .out
            .find("orphans", |line| line.starts_with("so far"));
        let (status, took) = timed(|| {
            bomb.bowout.kill(TERM);
            bomb.bowout.end()
        });
        assert_eq!(
            status,
            Status::Code(0),
            "{home:?}: {:?}",
            bomb.bowout.err.seen()
        );
        let (made, ms) = bomb.made();
        assert_eq!(bomb.orphans(), made, "{home:?}");
        println!("{home:?}: ended {took:?} after the request, {made} orphans in {ms} ms");
        assert!(took < Duration::from_secs(8), "{home:?}: {took:?}");
    }
}

#[test]
fn a_stubborn_bomb_is_killed_in_time() {
    for home in homes() {
        let Some(mut bomb) =
            Bomb::start(home, "500ms", &[&RATE.to_string(), "60000", "--stubborn"])
        else {
            return;
        };
        bomb.bowout
            .out
            .find("orphans", |line| line.starts_with("so far"));
        let (status, took) = timed(|| {
            bomb.bowout.kill(TERM);
            bomb.bowout.end()
        });
        assert_eq!(
            status,
            bomb.bowout.died(KILL),
            "{home:?}: {:?}",
            bomb.bowout.err.seen()
        );
        println!(
            "{home:?}: ended {took:?} after the request, {} orphans",
            bomb.orphans()
        );
        assert!(
            (Duration::from_millis(500)..Duration::from_secs(10)).contains(&took),
            "{home:?}: {took:?}"
        );
        // The pipe ends: no process holds it open.
        bomb.bowout.out.rest();
    }
}

/// Eight lines of processes, each line in a session of its own. Each process forks the next one of
/// its line and then exits at once.
#[test]
fn processes_that_fork_while_they_are_killed_leave_none() {
    let Some(user) = User::new() else { return };
    for home in homes() {
        for turn in 0..size(10, 200) {
            let (mode, life) = [
                ("mixed", "0"),
                ("mixed", "1"),
                ("group", "0"),
                ("group", "1"),
            ][turn % 4];
            let options = ["--grace", "20ms", "--kill-mode", mode];
            let mut bowout = user.probe(user.start(&options, &FEW).at(home), &["breed", "8", life]);
            bowout.ready();
            bowout.kill(TERM);
            // Each descendant holds the pipe open, so its end shows that all have exited.
            bowout.out.rest();
            assert_eq!(
                bowout.end(),
                bowout.died(KILL),
                "{home:?}, {turn}: {:?}",
                bowout.err.seen()
            );
            let log = bowout.log();
            assert!(
                !log.iter().any(|line| line.contains("cannot kill")),
                "{home:?}, {turn}: {log:?}"
            );
        }
    }
}

/// Half of the descendants are in sessions of their own. bowout's memory grows linearly with their
/// number: 1,000 bytes for each are enough for a list of PIDs, a table of their names, and room
/// for the growth of that table.
#[test]
fn ten_thousands_of_stubborn_descendants_are_found_and_killed() {
    let count: u64 = size(10_000, 20_000);
    for home in homes() {
        let mut bowout = Start::new(["--grace", "500ms"]).at(home).probe([
            "tree",
            &count.to_string(),
            "--stubborn",
        ]);
        bowout.ready();
        let most = address_space(bowout.pid) + count * 1000;
        let limit = libc::rlimit {
            rlim_cur: most,
            rlim_max: most,
        };
        // SAFETY: the kernel reads one valid structure and writes none.
        let set = unsafe {
            libc::prlimit(
                bowout.pid,
                libc::RLIMIT_AS,
                &raw const limit,
                std::ptr::null_mut(),
            )
        };
        assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
        let (status, took) = timed(|| {
            bowout.kill(TERM);
            // Each descendant holds the pipe open, so its end shows that all have exited.
            bowout.out.rest();
            bowout.end()
        });
        assert_eq!(
            status,
            bowout.died(KILL),
            "{home:?}: {:?}",
            bowout.err.seen()
        );
        let log = bowout.log();
        assert!(
            !log.iter().any(|line| line.contains("cannot kill")),
            "{home:?}: {log:?}"
        );
        println!("{home:?}: {count} descendants, ended {took:?} after the request");
    }
}

/// The size of the address space in bytes (proc_pid_statm(5)).
fn address_space(pid: i32) -> u64 {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).expect("a live process");
    let pages: u64 = statm
        .split(' ')
        .next()
        .and_then(|pages| pages.parse().ok())
        .expect("a number");
    pages * 4096
}

#[test]
fn two_hundred_at_once_end_each_with_its_own_status() {
    for home in homes() {
        let start = |code: i32| {
            Start::plain()
                .at(home)
                .probe(["signals", "--exit", &format!("TERM:{code}")])
        };
        let mut all: Vec<_> = (0..200).map(|code| (code, start(code))).collect();
        for (_, bowout) in &mut all {
            bowout.ready();
        }
        for (_, bowout) in &all {
            bowout.kill(TERM);
        }
        for (code, bowout) in &mut all {
            bowout.out.rest();
            assert_eq!(
                bowout.wait(),
                Status::Code(*code),
                "{home:?}: {:?}",
                bowout.err.seen()
            );
        }
        // The end of each pipe shows that its writers have exited. `end` also searches /proc, but
        // for the processes of one bowout only; one such search is enough here.
        for (_, bowout) in all.iter_mut().take(1) {
            bowout.end();
        }
    }
}
