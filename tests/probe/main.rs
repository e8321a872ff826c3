//! The command that the end-to-end tests run under bowout, and the set-ups that they run bowout in.
//!
//! It has a C `main`: Rust's own start-up opens closed descriptors and ignores SIGPIPE, and the
//! tests measure both.
//!
//! Lines on stdout are `[NAME ]ready PID`, then `[NAME ]SIGNAL CODE SENDER VALUE` for every signal
//! received.
#![no_main]
#![allow(unsafe_code)]
// The rules on clocks and threads apply to bowout, not to its command.
#![allow(clippy::disallowed_methods)]

mod hostile;
mod names;
mod place;
mod receive;
mod storm;
mod sys;
mod terminal;
mod traced;
mod tree;
mod view;

use std::ffi::{CStr, OsString, c_char, c_int};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

const USAGE: &str = "\
signals [--name NAME] [--exit SIG:CODE] [--die SIG] [--pause SIG:MS] [--tell SIG:SIG]
                             report every signal, end on none but those given; --tell sends SIG to the parent
idle                         print ready, then wait with every disposition as inherited
exit N | die SIG             end so
orphans N                    make N orphans; print the most children that the parent had at any time
tree N [--stubborn] [signals' options]
                             N descendants, some orphaned, some in their own session; then as signals
pair [--here] [signals' options] -- [signals' options]
                             a descendant, and then the process itself, as signals; the descendant
                             is in a session of its own unless it is --here
breed N MS                   N lines of processes, each of which forks the next and ends after MS
terminal [--catch SIG,...] [--exit SIG:CODE] [--to FILE] [--group | --foreground] [--raw] [--read] [--stop SIG]
                             report these signals alone; before it, take and use the terminal so
named VAR... -- COMMAND      have VAR name this process, then exec | names: who this is, and whom they name
send PID N half|full SIG...  queue N signals in turn, no more at once than that; say how many were taken
count [--exit SIG:CODE]      count signals; say the counts on RTMAX and at the end
bomb RATE MS [--stubborn]    RATE orphans a second until SIGTERM, MS at the most
fill [signals' options]      fork until it is refused; then as signals
eof CODE | eat               end with CODE at the end of stdin | take memory for ever
view [--to FILE]             what a process inherits, a fact a line
kill PID SIG... | trace PID  from a process that is neither manager nor descendant
hostile ACT... [-- signals' options]
                             acts against the parent, then as signals: see hostile.rs
thread -- COMMAND            start COMMAND from a thread that ends; end on SIGTERM
traced [orphan] [raise SIG]... (exec COMMAND | -- signals' options)
                             asks its parent to trace it: see traced.rs
with [SET-UP...] -- COMMAND  change what is inherited, then exec
ns [--here] [--no-proc | --hide | --outer-proc | --ended-proc | --no-tty | --own-dev] -- COMMAND
                             COMMAND as PID 1 of a namespace; end as it ends
ns --no-fork -- COMMAND      COMMAND's children in a PID namespace of their own, as by `unshare -p`";

/// The words of the command line, to be taken one by one.
struct Words(std::vec::IntoIter<OsString>);

impl Words {
    fn word(&mut self) -> Option<OsString> {
        self.0.next()
    }

    fn text(&mut self) -> String {
        let word = self
            .word()
            .unwrap_or_else(|| sys::fail("a word is missing"));
        word.into_string()
            .unwrap_or_else(|word| sys::fail(&format!("not text: {}", word.display())))
    }

    fn number(&mut self) -> c_int {
        number(&self.text())
    }

    /// The remaining words, which are the command after `--`.
    fn command(&mut self) -> Vec<OsString> {
        self.0.by_ref().collect()
    }
}

fn number(text: &str) -> c_int {
    text.parse()
        .unwrap_or_else(|_| sys::fail(&format!("not a number: {text}")))
}

/// A signal's number, from a name such as `TERM` or from any number.
fn signal(text: &str) -> c_int {
    match text {
        "HUP" => libc::SIGHUP,
        "INT" => libc::SIGINT,
        "QUIT" => libc::SIGQUIT,
        "ABRT" => libc::SIGABRT,
        "KILL" => libc::SIGKILL,
        "USR1" => libc::SIGUSR1,
        "USR2" => libc::SIGUSR2,
        "PIPE" => libc::SIGPIPE,
        "TERM" => libc::SIGTERM,
        "CHLD" => libc::SIGCHLD,
        "CONT" => libc::SIGCONT,
        "WINCH" => libc::SIGWINCH,
        _ => number(text),
    }
}

/// Splits a pair such as `TERM:7`.
fn pair(text: &str) -> (c_int, &str) {
    let Some((left, right)) = text.split_once(':') else {
        sys::fail(&format!("not a pair: {text}"))
    };
    (signal(left), right)
}

#[unsafe(no_mangle)]
extern "C" fn main(count: c_int, argv: *const *const c_char) -> c_int {
    // SAFETY: the C runtime hands over `count` pointers to strings that live as long as the
    // process.
    let all = (0..count as usize).map(|i| unsafe { CStr::from_ptr(*argv.add(i)) });
    let all: Vec<OsString> = all
        .map(|word| OsString::from_vec(word.to_bytes().to_vec()))
        .collect();
    let mut words = Words(all.into_iter());
    words.word();
    match words.word().unwrap_or_default().as_bytes() {
        b"signals" => receive::signals(&mut words),
        b"idle" => receive::idle(),
        b"exit" => words.number(),
        b"die" => sys::die(signal(&words.text())),
        b"orphans" => tree::orphans(words.number()),
        b"tree" => tree::tree(&mut words),
        b"pair" => tree::pair(&mut words),
        b"breed" => tree::breed(words.number(), words.number()),
        b"send" => storm::send(&mut words),
        b"count" => storm::count(&mut words),
        b"bomb" => storm::bomb(&mut words),
        b"fill" => storm::fill(&mut words),
        b"eof" => storm::until_eof(words.number()),
        b"eat" => storm::eat(),
        b"terminal" => terminal::terminal(&mut words),
        b"named" => names::named(&mut words),
        b"names" => names::names(),
        b"view" => view::view(&mut words),
        b"kill" => place::kill(&mut words),
        b"hostile" => hostile::hostile(&mut words),
        b"trace" => place::trace(words.number()),
        b"thread" => place::thread(&mut words),
        b"traced" => traced::traced(&mut words),
        b"with" => place::with(&mut words),
        b"ns" => place::ns(&mut words),
        _ => sys::fail(USAGE),
    }
}
