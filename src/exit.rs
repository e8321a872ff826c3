//! How a process exited, and how bowout exits because of it. Arithmetic only: `sys::end` carries it
//! out.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::signal::Signal;

/// How a process exited: the two cases of wait(2), kept apart until bowout's own exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It exited with this code.
    Code(u8),
    /// It died of this signal.
    Signal(Signal),
}

impl Exit {
    /// `--max-runtime` expired: the code of timeout(1).
    pub(crate) const TIMED_OUT: Self = Self::Code(124);
    /// A failure of bowout's own: usage, or a system call without which it cannot start anything.
    pub(crate) const OWN_FAILURE: Self = Self::Code(125);
    /// The command was found and cannot be run.
    pub(crate) const CANNOT_RUN: Self = Self::Code(126);
    /// The command was not found.
    pub(crate) const NOT_FOUND: Self = Self::Code(127);
    /// The child could not be killed: the number of a death by SIGKILL, 128+9.
    pub(crate) const UNKILLABLE: Self = Self::Code(137);

    /// The code, if it exited with one.
    pub(crate) const fn code(self) -> Option<u8> {
        if let Self::Code(code) = self {
            Some(code)
        } else {
            None
        }
    }

    /// The name of the signal that killed it, if one did.
    pub(crate) fn signal(self) -> Option<String> {
        if let Self::Signal(signal) = self {
            Some(signal.to_string())
        } else {
            None
        }
    }

    /// One number, as in shells: the code, or 128 plus the signal's number.
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

/// The resources that a process used, and the children it waited for (getrusage(2)).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) user: Duration,
    pub(crate) system: Duration,
    /// In KiB.
    pub(crate) max_rss: u64,
}

/// `--exit-status`: how the death of the child by a signal is passed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mirror {
    /// By the same death; as PID 1, which cannot die of a signal it sends itself, by 128+S.
    #[default]
    Auto,
    /// By 128+S.
    Code,
    /// By the same death, wherever that is possible.
    Signal,
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
            part.parse()
                .ok()
                .filter(|_| part.bytes().all(|b| b.is_ascii_digit()))
                .ok_or_else(|| format!("'{text}' is not CODE or CODE:NEW: write numbers from 0 to 255, such as 143:0"))
        };
        Ok(Self {
            from: code(from)?,
            to: code(to)?,
        })
    }
}

/// What the user wants made of the child's status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ExitRules {
    /// `--remap-exit`, in the order given; the last rule for a code counts.
    pub(crate) recode: Vec<Recode>,
    /// `--exit-status`.
    pub(crate) mirror: Mirror,
}

impl ExitRules {
    /// How bowout ends when the child ended so. A remap is applied to the number first; only what
    /// it leaves alone can still be a death.
    pub(crate) fn apply(&self, exit: Exit, pid1: bool) -> Exit {
        if let Some(rule) = self
            .recode
            .iter()
            .rev()
            .find(|rule| rule.from == exit.number())
        {
            return Exit::Code(rule.to);
        }
        match (exit, self.mirror) {
            (Exit::Code(_), Mirror::Auto | Mirror::Code | Mirror::Signal) => exit,
            (Exit::Signal(_), Mirror::Auto | Mirror::Signal) if !pid1 => exit,
            (Exit::Signal(_), Mirror::Auto | Mirror::Code | Mirror::Signal) => {
                Exit::Code(exit.number())
            }
        }
    }
}

#[cfg(test)]
#[path = "../tests/fuzz/recode.rs"]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(recode: &[&str], mirror: Mirror) -> ExitRules {
        ExitRules {
            recode: recode.iter().map(|r| r.parse().unwrap()).collect(),
            mirror,
        }
    }

    const KILLED: Exit = Exit::Signal(Signal::KILL);
    const TERMED: Exit = Exit::Signal(Signal::TERM);

    #[test]
    fn a_code_stays_what_it_is() {
        for code in 0..=255 {
            for mirror in [Mirror::Auto, Mirror::Code, Mirror::Signal] {
                for pid1 in [false, true] {
                    assert_eq!(
                        rules(&[], mirror).apply(Exit::Code(code), pid1),
                        Exit::Code(code)
                    );
                }
            }
        }
    }

    #[test]
    fn a_death_is_mirrored_but_not_by_pid_1() {
        assert_eq!(rules(&[], Mirror::Auto).apply(KILLED, false), KILLED);
        assert_eq!(
            rules(&[], Mirror::Auto).apply(KILLED, true),
            Exit::Code(137)
        );
        assert_eq!(rules(&[], Mirror::Signal).apply(KILLED, false), KILLED);
        assert_eq!(
            rules(&[], Mirror::Signal).apply(KILLED, true),
            Exit::Code(137)
        );
        assert_eq!(
            rules(&[], Mirror::Code).apply(KILLED, false),
            Exit::Code(137)
        );
    }

    #[test]
    fn an_end_completes_a_sentence() {
        assert_eq!(Exit::Code(3).to_string(), "exited with 3");
        assert_eq!(TERMED.to_string(), "was killed by SIGTERM");
    }

    #[test]
    fn the_highest_signal_still_fits() {
        assert_eq!(Exit::Signal(Signal::new(64).unwrap()).number(), 192);
    }

    #[test]
    fn a_remap_sees_the_number_and_comes_before_the_death() {
        for r in [
            rules(&["143:0"], Mirror::Auto),
            rules(&["143"], Mirror::Signal),
        ] {
            assert_eq!(r.apply(TERMED, false), Exit::Code(0));
            assert_eq!(r.apply(Exit::Code(143), true), Exit::Code(0));
            assert_eq!(r.apply(KILLED, false), KILLED);
        }
        assert_eq!(
            rules(&["3:4", "3:5", "5:6"], Mirror::Auto).apply(Exit::Code(3), false),
            Exit::Code(5)
        );
    }

    #[test]
    fn what_is_no_code_is_refused() {
        for text in ["", "256", "-1", "a", "1:", ":1", "1:2:3", "+1", "1 "] {
            assert!(text.parse::<Recode>().is_err(), "{text}");
        }
    }
}
