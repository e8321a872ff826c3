//! A stop request while the execution of the command hangs.

use std::time::{Duration, Instant};

use crate::bare::{Bare, Line};
use crate::common::{Home, Status, homes, not_root, size, skip, timed};
use crate::fuse::{Hanging, Silent};
use crate::sweep::{Lot, spin_until};

const TERM: i32 = libc::SIGTERM;
const KILL: i32 = libc::SIGKILL;

/// In a thread of its own, which has its own mounts.
fn with_hanging(silent: Silent, test: impl FnOnce(&mut Hanging) + Send) {
    if skip(not_root()) || skip(Hanging::missing()) {
        return;
    }
    std::thread::scope(|scope| {
        let done = scope.spawn(|| test(&mut Hanging::mount(silent))).join();
        if let Err(panic) = done {
            std::panic::resume_unwind(panic);
        }
    });
}

fn start(home: Home, hanging: &Hanging, options: &[&str]) -> Bare {
    let bare = Line::new(home, options, &[&hanging.file()]).start();
    hanging.hangs(bare.pid);
    bare
}

fn asked_while_it_hangs(silent: Silent, runs: usize) {
    with_hanging(silent, |hanging| {
        let mut lot = Lot(0x9E37_79B9_7F4A_7C15);
        for home in homes() {
            for run in 0..runs {
                let mut bare = start(home, hanging, &["--grace", "never"]);
                spin_until(Instant::now() + Duration::from_nanos(lot.below(300_000)));
                bare.kill(TERM);
                let (status, text) = (bare.end(), bare.text());
                assert_eq!(status, bare.died(TERM), "{home:?}, {run}: {text}");
                assert!(
                    text.contains("was killed by SIGTERM after"),
                    "{home:?}, {run}: {text}"
                );
            }
            println!("{home:?}: {runs} requests while the exec hung, {silent:?}");
        }
    });
}

#[test]
fn a_stop_request_while_the_exec_hangs_at_the_opening_is_not_lost() {
    asked_while_it_hangs(Silent::Open, size(50, 10_000));
}

#[test]
fn a_stop_request_while_the_exec_hangs_at_the_reading_is_not_lost() {
    asked_while_it_hangs(Silent::Read, size(10, 1000));
}

#[test]
fn a_hanging_exec_that_no_stop_signal_ends_is_killed_in_time() {
    with_hanging(Silent::Open, |hanging| {
        for home in homes() {
            // A signal that no process has ever died of.
            let mut bare = start(
                home,
                hanging,
                &["--grace", "200ms", "--stop-signal", "WINCH"],
            );
            let (status, took) = timed(|| {
                bare.kill(TERM);
                bare.end()
            });
            let text = bare.text();
            assert_eq!(status, bare.died(KILL), "{home:?}: {text}");
            assert!(
                text.contains("grace period of 200ms is over: sent SIGKILL"),
                "{home:?}: {text}"
            );
            assert!(
                (Duration::from_millis(200)..Duration::from_secs(10)).contains(&took),
                "{home:?}: {took:?}"
            );
        }
    });
}

/// Nothing but the file system can end this wait. Where bowout is PID 1, its own end waits for it,
/// too: the kernel ends all of the namespace.
#[test]
fn a_hanging_exec_that_cannot_be_killed_is_logged_and_left() {
    with_hanging(Silent::Deaf, |hanging| {
        for home in homes() {
            let mut bare = start(home, hanging, &["--grace", "200ms"]);
            bare.kill(TERM);
            assert!(
                bare.see("it is in state D and has not answered SIGKILL"),
                "{home:?}: {}",
                bare.text()
            );
            if home == Home::Subreaper {
                assert_eq!(bare.wait(), Status::Code(137), "{}", bare.text());
            }
            hanging.release();
            assert_eq!(bare.end(), Status::Code(137), "{home:?}: {}", bare.text());
        }
    });
}
