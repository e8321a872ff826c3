//! One stop request in each gap between two system calls. ptrace(2) stops bowout, or its child, in
//! each gap, so that no gap is missed. The signal mask at that moment determines the expected
//! result.
//!
//! Caveat: the tracer is the thread that started the tracee, and only it can make requests.

use crate::bare::{Bare, Explained, Line};
use crate::common::{Home, homes, leftovers, not_root, size, skip, until};

const TERM: i32 = libc::SIGTERM;
/// A stop before or after a system call (`PTRACE_O_TRACESYSGOOD`).
const CALL: i32 = libc::SIGTRAP | 0x80;

/// More gaps than a run has.
pub const MOST: usize = 2000;

pub fn ptrace(request: libc::c_uint, pid: i32, data: usize) {
    // SAFETY: none of the requests made here takes a pointer but PTRACE_GETEVENTMSG, whose one is
    // valid.
    let done = unsafe { libc::ptrace(request, pid, 0_usize, data) };
    assert!(
        done >= 0,
        "ptrace {request} of {pid}: {}",
        std::io::Error::last_os_error()
    );
}

/// The next event of a traced process.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// A stop before or after a system call.
    Call,
    /// Another stop, with this wait status.
    Other(i32),
    Asleep,
    /// The process ended with this wait status.
    Ended(i32),
}

/// Lets the process run to its next stop. If `may_sleep` returns true, sleep (state S) is an event,
/// too.
pub fn next(pid: i32, request: libc::c_uint, mut may_sleep: impl FnMut() -> bool) -> Next {
    let mut pass = 0;
    loop {
        ptrace(request, pid, pass as usize);
        let seen = until("the next stop", || {
            let mut status = 0;
            // SAFETY: one valid integer; a tracee of this thread.
            if unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG | libc::__WALL) } == pid {
                return Some(Some(status));
            }
            (may_sleep() && leftovers::stat(pid).is_some_and(|stat| stat.state == 'S'))
                .then_some(None)
        });
        match seen {
            None => return Next::Asleep,
            Some(status) if !libc::WIFSTOPPED(status) => return Next::Ended(status),
            Some(status) => match (libc::WSTOPSIG(status), status >> 16) {
                (CALL, _) => return Next::Call,
                (libc::SIGTRAP, _) => return Next::Other(status),
                // A signal-delivery-stop: the next request passes the signal on.
                (signal, _) => pass = signal,
            },
        }
    }
}

/// Waits for the next stop of this process.
pub fn stopped(pid: i32) {
    let mut status = 0;
    // SAFETY: one valid integer; a tracee of this thread, which stops or ends.
    let got = unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) };
    assert!(got == pid && libc::WIFSTOPPED(status), "{pid}: {status:#x}");
}

/// Starts bowout, which stops at its first instruction, and sets the ptrace options.
pub fn start(line: &Line, options: i32) -> Bare {
    let bare = line.start();
    stopped(bare.pid);
    ptrace(
        libc::PTRACE_SETOPTIONS,
        bare.pid,
        (options | libc::PTRACE_O_TRACESYSGOOD) as usize,
    );
    bare
}

/// Stops bowout `gap` stops after its first instruction, sends the stop request there, and
/// detaches. Returns false if bowout slept or exited before that gap, and the explanation of a
/// request that was sent.
fn ask_in_gap(
    home: Home,
    line: &Line,
    gap: usize,
    has_handlers: bool,
) -> (bool, Option<Explained>) {
    let mut bare = start(line, 0);
    let mut asleep = false;
    for _ in 0..gap {
        match next(bare.pid, libc::PTRACE_SYSCALL, || {
            has_handlers && bare.has_written()
        }) {
            Next::Call | Next::Other(_) => {}
            Next::Asleep => {
                asleep = true;
                break;
            }
            Next::Ended(status) => {
                bare.ended(status);
                bare.assert_explained(&format!("{home:?}, not asked"));
                return (false, None);
            }
        }
    }
    let blocked = bare.blocks(TERM);
    bare.kill(TERM);
    if asleep {
        // The signal wakes it.
        stopped(bare.pid);
    }
    ptrace(libc::PTRACE_DETACH, bare.pid, 0);
    let what = format!("{home:?}, gap {gap}, blocked: {blocked}");
    if !blocked && home == Home::Pid1 && bare.see("ready") && bare.try_wait().is_none() {
        // As in the sweep: the kernel does not deliver this early signal to PID 1, so it is sent
        // again.
        bare.kill(TERM);
    }
    let explained = bare.assert_explained(&what);
    // The last gap without a blocked SIGTERM is the one before the call that blocks it. In later
    // gaps, bowout's own code must receive the request.
    assert!(
        explained != Explained::BeforeMain || !blocked,
        "{what}: lost"
    );
    (!asleep, Some(explained))
}

#[test]
fn a_stop_request_between_any_two_system_calls_of_the_start_is_not_lost() {
    if skip(not_root()) {
        return;
    }
    for home in homes() {
        let line = Line::probe(home, &["signals", "--exit", "TERM:7"]).traced();
        for turn in 0..size(1, 10) {
            let mut early = 0;
            let gaps = (0..MOST)
                .take_while(|gap| {
                    let (more, explained) = ask_in_gap(home, &line, *gap, true);
                    assert_ne!(
                        explained,
                        Some(Explained::Exited { asked: false }),
                        "{home:?}, gap {gap}"
                    );
                    early += usize::from(explained == Some(Explained::BeforeMain));
                    more
                })
                .count();
            assert!(
                (20..MOST).contains(&gaps),
                "{home:?}: {gaps} gaps are no start"
            );
            println!("{home:?}, turn {turn}: {gaps} gaps, {early} before main");
        }
    }
}

#[test]
fn a_stop_request_between_any_two_system_calls_changes_no_status() {
    if skip(not_root()) {
        return;
    }
    for home in homes() {
        let line = Line::probe(home, &["exit", "7"]).traced();
        for turn in 0..size(1, 10) {
            let gaps = (0..MOST)
                .take_while(|gap| ask_in_gap(home, &line, *gap, false).0)
                .count();
            assert!(
                (20..MOST).contains(&gaps),
                "{home:?}: {gaps} gaps are no run"
            );
            println!("{home:?}, turn {turn}: {gaps} gaps from the exec to the end");
        }
    }
}

/// Starts bowout and detaches from it after its fork. Returns it and its child, which is stopped
/// directly after the fork.
pub fn forked(line: &Line) -> (Bare, i32) {
    let bare = start(line, libc::PTRACE_O_TRACEFORK | libc::PTRACE_O_TRACEEXEC);
    let mut child = 0_u64;
    until("the fork", || {
        match next(bare.pid, libc::PTRACE_CONT, || false) {
            Next::Other(status) => (status >> 16 == libc::PTRACE_EVENT_FORK).then_some(()),
            other => panic!("{other:?} before the fork"),
        }
    });
    ptrace(
        libc::PTRACE_GETEVENTMSG,
        bare.pid,
        (&raw mut child) as usize,
    );
    stopped(child as i32);
    ptrace(libc::PTRACE_DETACH, bare.pid, 0);
    (bare, child as i32)
}

#[test]
fn a_stop_request_between_any_two_system_calls_of_the_child_reaches_it() {
    if skip(not_root()) {
        return;
    }
    for home in homes() {
        let line = Line::probe(home, &["signals", "--exit", "TERM:7"]).traced();
        for turn in 0..size(1, 10) {
            let (mut killed, mut more, mut gap) = (0, true, 0);
            while more {
                let (mut bare, child) = forked(&line);
                for _ in 0..gap {
                    more = next(child, libc::PTRACE_SYSCALL, || bare.has_written()) != Next::Asleep;
                    if !more {
                        break;
                    }
                }
                bare.kill(TERM);
                let what = format!("{home:?}, gap {gap} of the child");
                assert!(bare.see("received SIGTERM"), "{what}: {}", bare.text());
                if !more {
                    stopped(child);
                }
                ptrace(libc::PTRACE_DETACH, child, 0);
                let explained = bare.assert_explained(&what);
                assert!(
                    matches!(
                        explained,
                        Explained::Killed | Explained::Exited { asked: true }
                    ),
                    "{what}"
                );
                killed += usize::from(explained == Explained::Killed);
                gap += 1;
            }
            assert!(gap > 10, "{home:?}: {gap} gaps are no start");
            println!(
                "{home:?}, turn {turn}: {gap} gaps of the child, in {killed} it died of the signal"
            );
        }
    }
}

impl Bare {
    /// Returns true if the command has printed that it is ready.
    fn has_written(&mut self) -> bool {
        self.take();
        self.text().contains("ready ")
    }
}
