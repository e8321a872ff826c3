//! System calls that a seccomp filter always refuses: bowout exits with an error before the command
//! starts, or continues its work and does not spin.

use std::os::unix::net::UnixDatagram;

use crate::common::{Dir, Home, NOTHING, Running, Start, Status, homes, notifier};

const TERM: i32 = libc::SIGTERM;
const USR1: i32 = libc::SIGUSR1;

/// The set-up that makes `call` fail with `errno`, except where argument `but.0` is `but.1`.
fn refuse(call: libc::c_long, errno: i32, but: Option<(u32, u32)>) -> [String; 2] {
    let but = but
        .map(|(argument, value)| format!(":{argument}:{value}"))
        .unwrap_or_default();
    ["--refuse".into(), format!("{call}:{errno}{but}")]
}

#[test]
fn a_call_that_bowout_cannot_do_without_is_an_error_at_the_start() {
    for home in homes() {
        for (call, name) in [
            (libc::SYS_ppoll, "ppoll"),
            (libc::SYS_waitid, "waitid"),
            (libc::SYS_rt_sigprocmask, "rt_sigprocmask"),
            (libc::SYS_signalfd4, "signals"),
            (libc::SYS_pipe2, "start"),
        ] {
            for errno in [libc::EPERM, libc::ENOSYS, libc::EACCES] {
                // musl creates a pipe by pipe(2) where the kernel lacks the newer call.
                let has_another =
                    cfg!(target_env = "musl") && call == libc::SYS_pipe2 && errno == libc::ENOSYS;
                let mut bowout = Start::plain()
                    .at(home)
                    .with(refuse(call, errno, None))
                    .sh("echo started");
                if has_another {
                    assert_eq!(bowout.end(), Status::Code(0), "{:#?}", bowout.log());
                    assert_eq!(bowout.out.rest(), ["started"]);
                    continue;
                }
                assert_eq!(
                    bowout.end(),
                    Status::Code(125),
                    "{home:?} {name} {errno}: {:#?}",
                    bowout.log()
                );
                assert_eq!(bowout.out.rest(), NOTHING, "{name} {errno}");
                assert!(
                    matches!(&bowout.log()[..], [line] if line.contains(name)),
                    "{:#?}",
                    bowout.log()
                );
            }
        }
    }
}

/// The processor time that bowout has used, in ticks of 10 ms.
fn ticks(bowout: &Running) -> u32 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", bowout.pid)).expect("bowout");
    let words: Vec<&str> = stat[stat.rfind(')').expect("a name") + 2..]
        .split(' ')
        .collect();
    words[11..13]
        .iter()
        .map(|word| word.parse::<u32>().expect("ticks"))
        .sum()
}

/// A second in which bowout has no work, then a stop that the child obeys. A second of spinning
/// takes a hundred ticks, on a busy machine fewer; a hundred turns of the loop take one.
fn goes_on(mut bowout: Running, refused: &str) {
    bowout.ready();
    bowout.kill(USR1);
    bowout.expect(USR1);
    bowout.out.find("the pause", |line| line == "paused");
    let used = ticks(&bowout);
    assert!(used < 20, "{refused}: {used} ticks");
    bowout.kill(TERM);
    assert_eq!(bowout.end(), Status::Code(7), "{refused}");
    let log = bowout.log();
    let told = log
        .iter()
        .filter(|line| line.contains(&format!("refuses {refused}(2)")))
        .count();
    assert_eq!(told, 1, "{log:#?}");
}

const COMMAND: [&str; 5] = ["signals", "--pause", "USR1:1000", "--exit", "TERM:7"];

/// bowout's check of the standard descriptors polls three; its loop polls fewer, and is refused.
#[test]
fn a_wait_that_is_refused_later_does_not_spin() {
    for home in homes() {
        let refuse = refuse(libc::SYS_ppoll, libc::EPERM, Some((1, 3)));
        goes_on(Start::plain().at(home).with(refuse).probe(COMMAND), "ppoll");
    }
}

#[test]
fn signals_that_cannot_be_read_are_taken_in_another_way() {
    for home in homes() {
        let refuse = refuse(libc::SYS_read, libc::EPERM, None);
        goes_on(Start::plain().at(home).with(refuse).probe(COMMAND), "read");
    }
}

#[test]
fn a_message_that_cannot_be_received_does_not_spin() {
    let notifier = notifier().to_str().expect("text");
    let command = format!(
        "{notifier} send STATUS=x exit 0; exec \"$PROBE\" {}",
        COMMAND.join(" ")
    );
    let refuse = refuse(libc::SYS_recvmsg, libc::ENOSYS, None);
    goes_on(
        Start::new(["--notify", "relay"]).with(refuse).sh(&command),
        "recvmsg",
    );
}

/// The manager has no room. bowout cannot wait until it has, because poll(2) reports that for
/// connected sockets only.
#[test]
fn a_full_manager_that_cannot_be_connected_to_does_not_spin() {
    let dir = Dir::new();
    let address = dir.0.join("manager");
    let _manager = UnixDatagram::bind(&address).expect("a socket");
    let notifier = notifier().to_str().expect("text");
    let command = format!(
        "{notifier} flood exit 0 >/dev/null; exec \"$PROBE\" {}",
        COMMAND.join(" ")
    );
    let refuse = refuse(libc::SYS_connect, libc::EPERM, None);
    let start = Start::plain().env("NOTIFY_SOCKET", &address);
    goes_on(start.with(refuse).sh(&command), "connect");
}

/// bowout reaps with waitid(2).
#[test]
fn a_filter_without_wait4_changes_nothing() {
    for home in homes() {
        for errno in [libc::EPERM, libc::ENOSYS] {
            let refuse = refuse(libc::SYS_wait4, errno, None);
            let mut bowout = Start::plain().at(home).with(refuse).probe(["exit", "7"]);
            assert_eq!(bowout.end(), Status::Code(7), "{home:?}");
            assert!(
                bowout.log().iter().all(|line| !line.contains("orphan")),
                "{:#?}",
                bowout.log()
            );
        }
    }
    let mut bowout = Start::plain()
        .at(Home::Subreaper)
        .with(refuse(libc::SYS_wait4, libc::EPERM, None))
        .probe(COMMAND);
    bowout.ready();
    bowout.kill(TERM);
    assert_eq!(bowout.end(), Status::Code(7));
}
