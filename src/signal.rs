//! Signals as plain numbers from 1 to 64, with names, sets and remaps. nix's `Signal` ends at 31,
//! before the real-time signals. Owns no state and asks the kernel nothing.
//!
//! Real-time signals are numbered from 34, as glibc, systemd (systemd(1), SIGRTMIN+3) and the
//! container engines number them, whatever number the C library of this binary starts from (musl:
//! 35).

use std::fmt;
use std::str::FromStr;

use signal_hook::consts::signal as number;
use signal_hook::low_level::signal_name;

use crate::suggest::similar;

/// glibc's `SIGRTMIN`.
const RTMIN: u8 = 34;
/// The kernel's last signal: `_NSIG` on every architecture that Rust's Linux targets share (mips
/// has 127).
const MAX: u8 = 64;

/// A signal number, 1 to 64 (signal(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Signal(u8);

impl Signal {
    pub(crate) const HUP: Self = Self(number::SIGHUP as u8);
    pub(crate) const INT: Self = Self(number::SIGINT as u8);
    pub(crate) const QUIT: Self = Self(number::SIGQUIT as u8);
    pub(crate) const ABRT: Self = Self(number::SIGABRT as u8);
    pub(crate) const KILL: Self = Self(number::SIGKILL as u8);
    pub(crate) const PIPE: Self = Self(number::SIGPIPE as u8);
    pub(crate) const TERM: Self = Self(number::SIGTERM as u8);
    pub(crate) const CHLD: Self = Self(number::SIGCHLD as u8);
    pub(crate) const CONT: Self = Self(number::SIGCONT as u8);
    pub(crate) const STOP: Self = Self(number::SIGSTOP as u8);
    pub(crate) const TSTP: Self = Self(number::SIGTSTP as u8);
    pub(crate) const TTIN: Self = Self(number::SIGTTIN as u8);
    pub(crate) const TTOU: Self = Self(number::SIGTTOU as u8);
    pub(crate) const WINCH: Self = Self(number::SIGWINCH as u8);
    pub(crate) const XFSZ: Self = Self(number::SIGXFSZ as u8);

    /// The signal with this number.
    pub(crate) const fn new(number: i32) -> Option<Self> {
        if number >= 1 && number <= MAX as i32 {
            Some(Self(number as u8))
        } else {
            None
        }
    }

    /// Its number, as for kill(2).
    pub(crate) const fn number(self) -> i32 {
        self.0 as i32
    }

    /// True if a process can catch it: all but SIGKILL and SIGSTOP.
    pub(crate) const fn catchable(self) -> bool {
        !SignalSet::of(&[Self::KILL, Self::STOP]).contains(self)
    }

    /// True if a terminal sends it to its processes (termios(3), tty_ioctl(4)): keys, job control,
    /// a resize, a hang-up.
    pub(crate) const fn is_terminals(self) -> bool {
        SignalSet::of(&[
            Self::INT,
            Self::QUIT,
            Self::TSTP,
            Self::TTIN,
            Self::TTOU,
            Self::WINCH,
            Self::HUP,
            Self::CONT,
        ])
        .contains(self)
    }

    /// The name with its `SIG`. Signals 32 and up have none.
    fn name(self) -> Option<&'static str> {
        // signal-hook's table lacks the two that only Linux has.
        match self.number() {
            libc::SIGPWR => Some("SIGPWR"),
            #[cfg(not(any(target_arch = "mips", target_arch = "sparc64")))]
            libc::SIGSTKFLT => Some("SIGSTKFLT"),
            number => signal_name(number),
        }
    }

    /// Reads a signal as [`FromStr`] does.
    fn parse(text: &str) -> Option<Self> {
        let number = |digits: &str| {
            digits
                .parse()
                .ok()
                .filter(|_: &u8| !digits.starts_with('+'))
        };
        let offset = |rest: &str, sign| {
            if rest.is_empty() {
                Some(0)
            } else {
                number(rest.strip_prefix(sign)?)
            }
        };
        if let Some(number) = number(text) {
            return Self::new(number.into());
        }
        let upper = text.to_ascii_uppercase();
        let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
        let number = if let Some(rest) = bare.strip_prefix("RTMIN") {
            RTMIN.checked_add(offset(rest, '+')?)?
        } else if let Some(rest) = bare.strip_prefix("RTMAX") {
            MAX.checked_sub(offset(rest, '-')?)
                .filter(|number| *number >= RTMIN)?
        } else {
            // The second names that signal(7) gives.
            let bare = match bare {
                "IOT" => "ABRT",
                "POLL" => "IO",
                "CLD" => "CHLD",
                other => other,
            };
            (1..RTMIN).find(|&number| Self(number).name().is_some_and(|name| &name[3..] == bare))?
        };
        Self::new(number.into())
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.name(), self.0) {
            (Some(name), _) => f.write_str(name),
            (None, RTMIN) => f.write_str("SIGRTMIN"),
            (None, number) if number > RTMIN => write!(f, "SIGRTMIN+{}", number - RTMIN),
            (None, number) => write!(f, "signal {number}"),
        }
    }
}

impl FromStr for Signal {
    type Err = String;

    /// `TERM`, `SIGTERM`, `term`, `15`, `RTMIN+3`, `SIGRTMAX-2`.
    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text).ok_or_else(|| match meant(text) {
            Some(meant) => format!("unknown signal '{text}': did you mean {meant}?"),
            None => format!(
                "unknown signal '{text}': write a name such as TERM, HUP or RTMIN+3, or a number from 1 to {MAX}"
            ),
        })
    }
}

/// The signal that a word such as `SIGTRM`, `-9` or `SIG15` probably means.
fn meant(text: &str) -> Option<String> {
    let plain = text
        .trim()
        .trim_start_matches(['-', '+'])
        .to_ascii_uppercase();
    let bare = plain.strip_prefix("SIG").unwrap_or(&plain);
    if Signal::parse(bare).is_some() {
        return Some(bare.into());
    }
    let names = (1..RTMIN).filter_map(|number| Signal(number).name());
    similar(bare, names.map(|name| &name[3..])).map(|name| format!("SIG{name}"))
}

/// A set of signals in the layout of the kernel's 64-bit `sigset_t`: signal N is bit N-1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SignalSet(u64);

impl SignalSet {
    /// Signals 1 to 64.
    pub(crate) const ALL: Self = Self(u64::MAX);

    /// The set of these signals.
    pub(crate) const fn of(signals: &[Signal]) -> Self {
        match signals {
            [] => Self(0),
            [first, rest @ ..] => Self::of(rest).with(*first),
        }
    }

    /// From the kernel's layout.
    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// In the kernel's layout.
    pub(crate) const fn bits(self) -> u64 {
        self.0
    }

    pub(crate) const fn contains(self, signal: Signal) -> bool {
        self.0 & (1 << (signal.0 - 1)) != 0
    }

    pub(crate) const fn with(self, signal: Signal) -> Self {
        Self(self.0 | 1 << (signal.0 - 1))
    }

    /// The members that `other` lacks.
    pub(crate) const fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(crate) const fn without(self, signal: Signal) -> Self {
        self.minus(Self::of(&[signal]))
    }
}

/// Which processes a signal is sent to. Bystanders and a hook are never among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Child,
    /// Every member of the child's process group that is the child or a descendant.
    Group,
    /// The child and every descendant.
    All,
    /// All, except the members of bowout's process group: they received the signal already.
    Others,
    /// The child and every descendant that bowout sent neither this signal nor SIGKILL before.
    Unasked,
    /// The same, but only bowout's own direct children: processes that were forked or re-parented
    /// after the stop signal. While its parent lives, a process is its parent's to clean up.
    NewChildren,
}

/// Translates received signals before they are forwarded. The last rule for a signal counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Remap(pub(crate) Vec<Rewrite>);

/// One rule of a [`Remap`]; with `to` `None` it drops the signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rewrite {
    from: Signal,
    to: Option<Signal>,
}

impl Remap {
    #[cfg(test)]
    pub(crate) fn new(rules: Vec<Rewrite>) -> Self {
        Self(rules)
    }

    /// The signal to forward in place of `signal`; `None` drops it.
    pub(crate) fn apply(&self, signal: Signal) -> Option<Signal> {
        self.0
            .iter()
            .rev()
            .find(|rule| rule.from == signal)
            .map_or(Some(signal), |rule| rule.to)
    }
}

impl FromStr for Rewrite {
    type Err = String;

    /// `FROM:TO`, names or numbers; a TO of 0 drops the signal.
    fn from_str(text: &str) -> Result<Self, String> {
        let (from, to) = text.split_once(':').ok_or_else(|| {
            format!("'{text}' is not FROM:TO: write TERM:QUIT, or TERM:0 to drop TERM")
        })?;
        let from = catchable(from)?;
        let to = if to == "0" { None } else { Some(to.parse()?) };
        Ok(Self { from, to })
    }
}

/// Reads a signal that bowout can receive.
///
/// # Errors
/// An unknown name, or one of the two that cannot be caught.
pub(crate) fn catchable(text: &str) -> Result<Signal, String> {
    let signal: Signal = text.parse()?;
    if signal.catchable() {
        Ok(signal)
    } else {
        Err(format!(
            "{signal} cannot be caught by any process: leave it out"
        ))
    }
}

#[cfg(test)]
#[path = "../tests/fuzz/signal.rs"]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_mean_each_other() {
        for n in 1..=i32::from(MAX) {
            let signal = Signal::new(n).unwrap();
            assert_eq!(n.to_string().parse(), Ok(signal));
            let name = signal.to_string();
            if let Some(bare) = name.strip_prefix("SIG") {
                for spelling in [name.clone(), bare.to_owned(), name.to_lowercase()] {
                    assert_eq!(spelling.parse(), Ok(signal), "{spelling}");
                }
            } else {
                assert!(n == 32 || n == 33, "signal {n} has no name");
            }
        }
    }

    #[test]
    fn real_time_signals_count_from_34() {
        for (text, n) in [
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("rtmin+30", 64),
            ("RTMAX", 64),
            ("RTMAX-30", 34),
        ] {
            assert_eq!(text.parse::<Signal>().map(Signal::number), Ok(n), "{text}");
        }
    }

    #[test]
    fn a_word_that_is_not_a_signal_is_refused() {
        for text in [
            "",
            "0",
            "65",
            "-0",
            "SIG",
            "NOPE",
            "é",
            "RTMIN+31",
            "RTMIN-1",
            "RTMAX+1",
            "RTMIN+",
            "RTMIN++1",
            "99999999999",
        ] {
            let error = text.parse::<Signal>().unwrap_err();
            assert!(error.contains(text) && error.contains("RTMIN+3"), "{error}");
        }
    }

    #[test]
    fn a_nearly_right_signal_is_suggested() {
        for (text, meant) in [
            ("SIGTRM", "SIGTERM"),
            ("TREM", "SIGTERM"),
            ("sigkil", "SIGKILL"),
            ("TERMINATE", "SIGTERM"),
            ("INTR", "SIGINT"),
            ("USR", "SIGUSR1"),
            ("win", "SIGWINCH"),
            ("-9", "9"),
            ("+9", "9"),
            ("-TERM", "TERM"),
            ("SIG15", "15"),
            ("15 ", "15"),
            ("SIGSIGTERM", "SIGTERM"),
        ] {
            let error = text.parse::<Signal>().unwrap_err();
            assert_eq!(
                error,
                format!("unknown signal '{text}': did you mean {meant}?")
            );
        }
    }

    #[test]
    fn second_names_are_known() {
        assert_eq!("IOT".parse(), Ok(Signal::ABRT));
        assert_eq!("SIGCLD".parse(), Ok(Signal::CHLD));
        assert_eq!("poll".parse::<Signal>(), "IO".parse());
    }

    #[test]
    fn the_last_remap_of_a_signal_counts() {
        let remap = Remap::new(
            ["TERM:QUIT", "15:0", "HUP:RTMIN+1"]
                .map(|t| t.parse().unwrap())
                .to_vec(),
        );
        assert_eq!(remap.apply(Signal::TERM), None);
        assert_eq!(remap.apply(Signal::HUP), Signal::new(35));
        assert_eq!(remap.apply(Signal::INT), Some(Signal::INT));
    }

    #[test]
    fn a_remap_needs_a_signal_that_can_be_received() {
        for text in [
            "TERM",
            "KILL:TERM",
            "STOP:0",
            "0:TERM",
            "TERM:",
            ":TERM",
            "TERM:QUIT:INT",
        ] {
            assert!(text.parse::<Rewrite>().is_err(), "{text}");
        }
        assert!("TERM:KILL".parse::<Rewrite>().is_ok());
    }

    #[test]
    fn sets_have_the_kernels_layout() {
        let set = SignalSet::of(&[Signal::HUP, Signal::new(64).unwrap()]);
        assert_eq!(set.bits(), 1 | 1 << 63);
        assert!(set.contains(Signal::HUP) && !set.contains(Signal::INT));
        assert_eq!(
            set.without(Signal::HUP).with(Signal::INT).bits(),
            2 | 1 << 63
        );
        assert_eq!(set.without(Signal::INT), set);
        assert_eq!(set.with(Signal::INT).without(Signal::INT), set);
    }

    #[test]
    fn sets_are_taken_from_each_other() {
        let set = SignalSet::of(&[Signal::HUP, Signal::INT]);
        assert_eq!(
            set.minus(SignalSet::of(&[Signal::INT, Signal::TERM])),
            SignalSet::of(&[Signal::HUP])
        );
        assert_eq!(
            (set.minus(set), set.minus(SignalSet::default())),
            (SignalSet::default(), set)
        );
    }

    #[test]
    fn a_terminal_sends_eight_signals() {
        let sent: Vec<_> = (1..=64)
            .filter_map(Signal::new)
            .filter(|signal| signal.is_terminals())
            .collect();
        let names: Vec<_> = sent.iter().map(ToString::to_string).collect();
        assert_eq!(
            names,
            [
                "SIGHUP", "SIGINT", "SIGQUIT", "SIGCONT", "SIGTSTP", "SIGTTIN", "SIGTTOU",
                "SIGWINCH"
            ]
        );
    }
}
