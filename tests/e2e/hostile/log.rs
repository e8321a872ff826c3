//! The log: what a name can do to it, and what the child can do to where it goes.

use std::io::{Read, pipe};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::{KILL, TERM, USR1, hostile};
use crate::common::{Lines, Start, homes, timed};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn a_stderr_that_the_child_has_filled_delays_nothing() {
    for home in homes() {
        let (read, write) = pipe().expect("a pipe");
        let start = Start::new(["-vvv", "--grace", "300ms"]).at(home).stderr(OwnedFd::from(write));
        let mut bowout = hostile(start, &["fill", "2", "--"]);
        bowout.ready();
        let (status, took) = timed(|| {
            bowout.kill(TERM);
            bowout.end()
        });
        assert_eq!(status, bowout.died(KILL), "{home:?}");
        assert!(took < SOON, "{took:?}");
        drop(read);
    }
}

/// Each line that somebody reads has the kernel signal bowout, which forwards that, and says so.
#[test]
fn a_log_that_answers_itself_for_ever_does_not_prevent_the_stop() {
    for home in homes() {
        for signal in ["USR1", "HUP", "29"] {
            let mut bowout =
                hostile(Start::new(["-v", "--grace", "300ms"]).at(home), &["async", signal, "tell", "USR2", "--"]);
            bowout.ready();
            bowout.kill(TERM);
            assert_eq!(bowout.end(), bowout.died(KILL), "{home:?} {signal}");
        }
    }
}

/// A socket is shared whole: who shuts it down, does so for all.
#[test]
fn a_stderr_that_the_child_has_shut_down_changes_nothing() {
    for home in homes() {
        let (mut read, write) = UnixStream::pair().expect("sockets");
        let start = Start::new(["-vvv", "--grace", "300ms"]).at(home).stderr(OwnedFd::from(write));
        let mut bowout = hostile(start, &["shutdown", "2", "--"]);
        bowout.ready();
        bowout.kill(USR1);
        bowout.expect(USR1);
        bowout.kill(TERM);
        assert_eq!(bowout.end(), bowout.died(KILL), "{home:?}");
        let mut text = String::new();
        let _ = read.read_to_string(&mut text);
        assert!(!text.contains("SIGTERM"), "{text}");
    }
}

/// Whatever of it can be opened: its own null, the pipe of its log, nothing else.
#[test]
fn descriptors_of_bowouts_that_the_child_opens_anew_are_of_no_use() {
    for home in homes() {
        let (read, write) = pipe().expect("a pipe");
        let start = Start::new(["--grace", "300ms", "--notify", "relay"]).at(home).stderr(OwnedFd::from(write));
        let mut bowout = hostile(start, &["reopen", "--"]);
        bowout.ready();
        bowout.kill(USR1);
        // Until bowout has let go of it, stdout is among what can be opened.
        assert_eq!(bowout.settle(), [USR1]);
        bowout.kill(TERM);
        assert_eq!(bowout.end(), bowout.died(KILL), "{home:?}");
        let log = Lines::of(read).rest();
        assert!(log.last().is_some_and(|line| line.contains("was killed by SIGKILL")), "{log:#?}");
    }
}
