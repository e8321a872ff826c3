//! Signals by the million.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::common::{Lines, Running, Status, homes, leftovers, probe, size, timed};
use crate::user::User;

const TERM: i32 = libc::SIGTERM;
const SENDERS: usize = 8;

/// Standard signals that are not stop requests. Each sender has two of them, a real-time signal of
/// its own, and one that all senders share.
const STANDARD: [i32; 6] = [
    libc::SIGHUP,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGWINCH,
    libc::SIGALRM,
    libc::SIGURG,
];
const SHARED: i32 = 50;

/// Enough for eight senders that use half of it. In a longer queue, the kernel takes longer to find
/// the next signal than a sender takes to send one (`collect_signal` in kernel/signal.c walks all
/// of it).
const ROOM: [&str; 2] = ["--sigpending", "4096"];

struct Sender {
    child: Child,
    out: Lines,
}

impl Sender {
    fn start(to: i32, count: usize, room: &str, signals: &[i32]) -> Self {
        let mut command = Command::new(probe());
        command.args(["send", &to.to_string(), &count.to_string(), room]);
        command
            .args(signals.iter().map(ToString::to_string))
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut child = leftovers::spawn(&mut command).expect("the probe");
        let out = Lines::of(child.stdout.take().expect("a pipe"));
        Self { child, out }
    }

    /// The number of sent signals, by signal, and how often the queue was full.
    fn end(mut self) -> (BTreeMap<i32, u64>, u64) {
        let line = self.out.find("sent", |line| line.starts_with("sent"));
        assert!(self.child.wait().expect("our child").success());
        leftovers::forget(self.child.id());
        let full = line
            .rsplit_once("full=")
            .expect("a number")
            .1
            .parse()
            .expect("a number");
        (counts(&line), full)
    }
}

/// Parses numbers such as `10=3 34=5`, among other words.
fn counts(line: &str) -> BTreeMap<i32, u64> {
    line.split(' ')
        .filter_map(|word| word.split_once('='))
        .filter_map(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)))
        .collect()
}

/// The signals that the child has received in the whole storm. Lower numbers are delivered first,
/// so the child has counted all of them when SIGRTMAX asks for the counts.
fn received(bowout: &mut Running) -> BTreeMap<i32, u64> {
    bowout.kill(libc::SIGRTMAX());
    counts(
        &bowout
            .out
            .find("the counts", |line| line.starts_with("got")),
    )
}

fn resident_kib(pid: i32) -> u64 {
    crate::common::field(pid, "VmRSS")
        .split(' ')
        .next()
        .and_then(|text| text.parse().ok())
        .expect("a number")
}

/// Starts senders of this many signals in all, which use up to `room` of the queue.
fn storm(
    bowout: &Running,
    count: usize,
    room: &str,
    signals: impl Fn(usize) -> Vec<i32>,
) -> Vec<Sender> {
    (0..SENDERS)
        .map(|i| Sender::start(bowout.pid, count / SENDERS, room, &signals(i)))
        .collect()
}

fn ended(senders: Vec<Sender>) -> (BTreeMap<i32, u64>, u64) {
    let (mut all, mut full) = (BTreeMap::new(), 0);
    for sender in senders {
        let (sent, more) = sender.end();
        full += more;
        for (signal, count) in sent {
            *all.entry(signal).or_insert(0) += count;
        }
    }
    (all, full)
}

fn mixed(sender: usize) -> Vec<i32> {
    [
        35 + sender as i32,
        STANDARD[sender % 6],
        SHARED,
        STANDARD[(sender + 1) % 6],
    ]
    .to_vec()
}

#[test]
fn a_million_signals_from_eight_senders_are_counted_exactly() {
    let Some(user) = User::new() else { return };
    for home in homes() {
        let start = user.start(&["-q", "--grace", "never"], &ROOM).at(home);
        let mut bowout = user.probe(start, &["count", "--exit", "TERM:7"]);
        bowout.ready();
        // bowout allocates its memory during its first signals.
        ended(storm(&bowout, 8000, "half", mixed));
        let before = received(&mut bowout);
        let memory = resident_kib(bowout.pid);
        let (sent, full) = ended(storm(&bowout, size(80_000, 1_000_000), "half", mixed));
        let got = received(&mut bowout);
        let grown = resident_kib(bowout.pid).saturating_sub(memory);
        for (signal, sent) in &sent {
            let got =
                got.get(signal).copied().unwrap_or(0) - before.get(signal).copied().unwrap_or(0);
            if *signal >= libc::SIGRTMIN() {
                assert_eq!(
                    got,
                    *sent,
                    "{home:?}: signal {signal}, queue full {full} times: {:?}",
                    bowout.err.seen()
                );
            } else {
                assert!(
                    (1..=*sent).contains(&got),
                    "{home:?}: signal {signal}: {got} of {sent}"
                );
            }
        }
        assert!(grown <= 256, "{home:?}: {grown} KiB more");
        println!(
            "{home:?}: sent {} signals, queue full {full} times, {grown} KiB more",
            sent.values().sum::<u64>()
        );
        bowout.kill(TERM);
        assert_eq!(bowout.end(), Status::Code(7), "{home:?}");
    }
}

/// bowout and its child share the queue with the senders (getrlimit(2)). When bowout takes a signal
/// out, a sender may fill its place before bowout forwards it. bowout logs each signal that finds
/// no room.
#[test]
fn a_full_queue_is_answered_for_signal_by_signal() {
    let Some(user) = User::new() else { return };
    let report = user.file("report");
    for home in homes() {
        let start = user
            .start(
                &["-q", "--grace", "never", "--report", &report],
                &["--sigpending", "128"],
            )
            .at(home);
        let mut bowout = user.probe(start, &["count", "--exit", "TERM:7"]);
        bowout.ready();
        let (sent, full) = ended(storm(&bowout, size(16_000, 200_000), "full", |sender| {
            vec![35 + sender as i32, SHARED]
        }));
        let got: u64 = received(&mut bowout).values().sum();
        let sent: u64 = sent.values().sum();
        bowout.kill(TERM);
        assert_eq!(bowout.end(), Status::Code(7), "{home:?}");
        let told = bowout
            .log()
            .iter()
            .filter(|line| line.contains("could not be forwarded"))
            .count() as u64;
        let lost = number(
            &fs::read_to_string(&report).expect("a report"),
            "log_lines_lost",
        );
        println!(
            "{home:?}: sent {sent}, got {got}, told {told}, lines lost {lost}, queue full {full} times"
        );
        assert!(full > 0 && got > 0, "{home:?}: the queue was never full");
        assert!(
            (sent..=sent + lost).contains(&(got + told + lost)),
            "{home:?}: {got} + {told} (+ {lost}) of {sent}"
        );
    }
}

/// A number in a report.
pub fn number(report: &str, name: &str) -> u64 {
    let (_, rest) = report
        .split_once(&format!("\"{name}\":"))
        .unwrap_or_else(|| panic!("{name} in {report}"));
    let end = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    rest[..end]
        .parse()
        .unwrap_or_else(|_| panic!("{name} in {report}"))
}

#[test]
fn a_stop_request_in_the_midst_is_acted_on_in_time() {
    let Some(user) = User::new() else { return };
    for home in homes() {
        for (child, status) in [("TERM:7", Some(Status::Code(7))), ("34:7", None)] {
            let start = user.start(&["-q", "--grace", "500ms"], &ROOM).at(home);
            let mut bowout = user.probe(start, &["count", "--exit", child]);
            bowout.ready();
            let senders = storm(&bowout, 1_000_000, "half", mixed);
            // Lower numbers are delivered first, so the child cannot be asked for its counts now.
            bowout
                .out
                .find("the storm", |line| line.starts_with("so far"));
            let (ended_so, took) = timed(|| {
                bowout.kill(TERM);
                bowout.end()
            });
            assert_eq!(
                ended_so,
                status.unwrap_or(bowout.died(libc::SIGKILL)),
                "{home:?}"
            );
            assert!(took < Duration::from_secs(10), "{home:?}: {took:?}");
            assert!(
                status.is_some() || took >= Duration::from_millis(500),
                "{home:?}: {took:?}"
            );
            let (sent, _) = ended(senders);
            println!(
                "{home:?}: ended {took:?} after the request, of {} signals",
                sent.values().sum::<u64>()
            );
        }
    }
}
