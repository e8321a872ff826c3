//! A bowout that was stopped: after it continues, it handles pending events before expired
//! deadlines.

use std::time::{Duration, Instant};

use super::{KILL, TERM, USR1, USR2};
use crate::common::pty::{kill, state_of};
use crate::common::{Running, Start, Status, until};
use crate::notify::{Manager, ready, say};

/// Long enough for a test to stop bowout before its end.
const GRACE: Duration = Duration::from_secs(5);

fn options() -> [String; 2] {
    ["--grace".into(), format!("{}ms", GRACE.as_millis())]
}

fn stopped(bowout: &Running) {
    until("bowout is stopped", || {
        (bowout.state() == 'T').then_some(())
    });
}

/// Waits until the grace period of an earlier request is over.
fn expired() {
    let since = Instant::now();
    until("the grace period is over", || {
        (since.elapsed() > GRACE).then_some(())
    });
}

/// The child stops bowout when it receives the stop signal, and exits after the grace period is
/// over.
#[test]
fn an_end_is_judged_before_the_grace_period_that_is_over() {
    let mut bowout =
        Start::new(options()).probe(["signals", "--tell", "TERM:19", "--exit", "USR1:7"]);
    let child = bowout.ready();
    bowout.kill(TERM);
    bowout.expect(TERM);
    stopped(&bowout);
    expired();
    kill(child, USR1);
    until("the child has ended", || {
        (state_of(child) == Some('Z')).then_some(())
    });
    bowout.kill(libc::SIGCONT);
    assert_eq!(bowout.end(), Status::Code(7));
    let log = bowout.log();
    assert!(
        !log.iter()
            .any(|line| line.contains("killed") || line.contains("is over")),
        "{log:#?}"
    );
}

/// The child is killed either way, but for another reason.
#[test]
fn a_second_request_is_judged_before_the_grace_period_that_is_over() {
    let mut bowout = Start::new(options()).probe(["signals", "--tell", "TERM:19"]);
    bowout.ready();
    bowout.kill(TERM);
    bowout.expect(TERM);
    stopped(&bowout);
    expired();
    bowout.kill(TERM);
    bowout.kill(libc::SIGCONT);
    assert_eq!(bowout.end(), Status::Signal(KILL));
    let log = bowout.log();
    assert!(
        log.last()
            .is_some_and(|line| line.contains("was a second stop request")),
        "{log:#?}"
    );
}

#[test]
fn a_wish_for_more_time_is_judged_before_the_grace_period_that_is_over() {
    let manager = Manager::new();
    let words = "say ready | wait TERM end | wait USR1 end | send EXTEND_TIMEOUT_USEC=60000000 | say sent | wait USR2 end \
                 | exit 9";
    let grace = options();
    let mut bowout = say(
        manager.start(&[&grace[0], &grace[1], "--grace-max", "1h"]),
        words,
    );
    ready(&mut bowout);
    let child = bowout.child_pid();
    bowout.kill(TERM);
    bowout
        .out
        .find("the request", |line| line == format!("got {TERM}"));
    bowout.kill(libc::SIGSTOP);
    stopped(&bowout);
    kill(child, USR1);
    bowout.out.find("the wish", |line| line == "sent");
    expired();
    bowout.kill(libc::SIGCONT);
    bowout
        .err
        .find("more time", |line| line.contains("asks for 1m"));
    bowout.kill(USR2);
    assert_eq!(bowout.end(), Status::Code(9));
}

/// Each message that the relay's own socket could hold is passed on.
#[test]
fn a_relay_whose_socket_is_full_has_lost_nothing_when_bowout_goes_on() {
    let manager = Manager::new();
    let words = "say ready | wait USR1 end | flood | wait TERM end | wait USR2 end | exit 5";
    let mut bowout = say(manager.start(&["--grace", "1h"]), words);
    ready(&mut bowout);
    let child = bowout.child_pid();
    bowout.kill(libc::SIGSTOP);
    stopped(&bowout);
    kill(child, USR1);
    let sent = bowout.out.find("sent ", |line| line.starts_with("sent "));
    let sent: usize = sent["sent ".len()..].parse().expect("a number");
    bowout.kill(TERM);
    bowout.kill(libc::SIGCONT);
    let mut heard = vec![];
    until("all is heard", || {
        heard.extend(
            manager
                .heard()
                .map(|message| message.text())
                .filter(|text| !text.starts_with("STOPPING=1")),
        );
        (heard.len() == sent).then_some(())
    });
    assert_eq!(
        heard,
        (0..sent).map(|n| format!("STATUS={n}")).collect::<Vec<_>>()
    );
    // bowout does not wait for long for a manager that has no room.
    bowout.kill(USR2);
    assert_eq!(bowout.end(), Status::Code(5));
}
