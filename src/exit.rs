//! How a process ended, and how bowout exits after it. `sys::end` carries it out.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::signal::Signal;

/// How a process ended: the two cases of wait(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It exited with this code.
    Code(u8),
    /// It died of this signal.
    Signal(Signal),
}

impl Exit {
    /// A time limit ran out, as in timeout(1).
    pub(crate) const TIMED_OUT: Self = Self::Code(124);
    /// A failure of bowout: usage, or a system call without which the command cannot be started.
    pub(crate) const OWN_FAILURE: Self = Self::Code(125);
    /// The command was found and cannot be run.
    pub(crate) const CANNOT_RUN: Self = Self::Code(126);
    /// The command was not found.
    pub(crate) const NOT_FOUND: Self = Self::Code(127);
    /// A process could not be killed: the code of a death by SIGKILL, 128+9.
    pub(crate) const UNKILLABLE: Self = Self::Code(137);

    /// The code that it exited with.
    pub(crate) const fn code(self) -> Option<u8> {
        match self {
            Self::Code(code) => Some(code),
            Self::Signal(_) => None,
        }
    }

    /// The name of the signal that killed it.
    pub(crate) fn signal(self) -> Option<String> {
        match self {
            Self::Code(_) => None,
            Self::Signal(signal) => Some(signal.to_string()),
        }
    }

    /// As one number: the code, or 128 plus the signal's number, as in shells.
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal.number() as u8,
        }
    }
}

impl fmt::Display for Exit {
    /// Completes a sentence whose subject is the process.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with {code}"),
            Self::Signal(signal) => write!(f, "was killed by {signal}"),
        }
    }
}

/// The resources that a process and the children that it waited for have used (getrusage(2)).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) user: Duration,
    pub(crate) system: Duration,
    /// KiB.
    pub(crate) max_rss: u64,
}

/// The kills of the kernel's OOM killer in bowout's control group. The kernel does not report which
/// processes these were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OomKills {
    /// How many processes it killed.
    pub(crate) count: u64,
    /// They are those of the run; else, of all time since the group was made.
    pub(crate) during_run: bool,
    /// The group's limit, in bytes, where it has one and it was reached.
    pub(crate) limit: Option<u64>,
}

/// One rule of `--remap-exit`: `CODE[:NEW]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Recode {
    from: u8,
    to: u8,
}

impl FromStr for Recode {
    type Err = String;

    /// `143:0`, or `143` for the same.
    fn from_str(text: &str) -> Result<Self, String> {
        let (from, to) = text.split_once(':').unwrap_or((text, "0"));
        let code = |part: &str| {
            // Unlike `parse`, refuses `+1`.
            let digits = part.bytes().all(|byte| byte.is_ascii_digit());
            part.parse().ok().filter(|_| digits)
        };
        code(from)
            .zip(code(to))
            .map(|(from, to)| Self { from, to })
            .ok_or_else(|| {
                format!(
                    "'{text}' is not CODE or CODE:NEW: write numbers from 0 to 255, such as 143:0"
                )
            })
    }
}

/// How bowout exits after the child: `--remap-exit` and `--exit-status`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ExitRules {
    /// `--remap-exit`, in the order given; the last rule for a code counts.
    pub(crate) recode: Vec<Recode>,
    /// `--exit-status code`: exit with 128+S when the child died of signal S, instead of dying of
    /// it.
    pub(crate) death_as_code: bool,
}

impl ExitRules {
    /// How bowout exits after a child that ended by `exit`. The rules of `--remap-exit` see the
    /// number of a death, too. PID 1 always exits with a code: it cannot die of a signal that it
    /// sends to itself (kill(2)).
    pub(crate) fn apply(&self, exit: Exit, pid1: bool) -> Exit {
        let number = exit.number();
        match self.recode.iter().rev().find(|rule| rule.from == number) {
            Some(rule) => Exit::Code(rule.to),
            None if pid1 || self.death_as_code => Exit::Code(number),
            None => exit,
        }
    }
}

#[cfg(test)]
#[path = "../tests/fuzz/recode.rs"]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(recode: &[&str], death_as_code: bool) -> ExitRules {
        ExitRules {
            recode: recode.iter().map(|r| r.parse().unwrap()).collect(),
            death_as_code,
        }
    }

    const KILLED: Exit = Exit::Signal(Signal::KILL);
    const TERMED: Exit = Exit::Signal(Signal::TERM);

    #[test]
    fn an_exit_is_a_code_or_a_signal() {
        assert_eq!(
            (Exit::Code(7).code(), Exit::Code(7).signal()),
            (Some(7), None)
        );
        assert_eq!(
            (TERMED.code(), TERMED.signal()),
            (None, Some("SIGTERM".into()))
        );
    }

    #[test]
    fn a_code_stays_the_same() {
        for code in (0..=255).map(Exit::Code) {
            for (death_as_code, pid1) in [(false, false), (false, true), (true, false)] {
                assert_eq!(rules(&[], death_as_code).apply(code, pid1), code);
            }
        }
    }

    #[test]
    fn bowout_dies_as_the_child_did_but_not_as_pid_1() {
        for (death_as_code, pid1, exit) in [
            (false, false, KILLED),
            (false, true, Exit::Code(137)),
            (true, false, Exit::Code(137)),
            (true, true, Exit::Code(137)),
        ] {
            assert_eq!(rules(&[], death_as_code).apply(KILLED, pid1), exit);
        }
    }

    #[test]
    fn an_exit_completes_a_sentence() {
        assert_eq!(Exit::Code(3).to_string(), "exited with 3");
        assert_eq!(TERMED.to_string(), "was killed by SIGTERM");
    }

    #[test]
    fn the_highest_signal_still_fits() {
        assert_eq!(Exit::Signal(Signal::new(64).unwrap()).number(), 192);
    }

    #[test]
    fn a_remap_sees_the_number_and_comes_before_the_death() {
        for r in [rules(&["143:0"], false), rules(&["143"], true)] {
            assert_eq!(r.apply(TERMED, false), Exit::Code(0));
            assert_eq!(r.apply(Exit::Code(143), true), Exit::Code(0));
            assert_eq!(r.apply(KILLED, false).number(), 137);
        }
        assert_eq!(
            rules(&["3:4", "3:5", "5:6"], false).apply(Exit::Code(3), false),
            Exit::Code(5)
        );
    }

    #[test]
    fn other_words_than_codes_are_refused() {
        for text in ["", "256", "-1", "a", "1:", ":1", "1:2:3", "+1", "1 "] {
            assert!(text.parse::<Recode>().is_err(), "{text}");
        }
    }
}
