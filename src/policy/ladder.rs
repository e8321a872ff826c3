//! The escalation: which signals, in which order, with how long a wait after each. Parses and adds
//! up; decides nothing.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::duration::parse_wait;
use crate::signal::Signal;

/// One step: the signal, and the time until the next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rung {
    /// `None` is the signal that was received.
    pub(crate) signal: Option<Signal>,
    /// `None` is for ever.
    pub(crate) wait: Option<Duration>,
}

/// All steps before SIGKILL, which follows the last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ladder(Vec<Rung>);

impl Ladder {
    /// The plain ladder: one signal, the grace period, SIGKILL. A grace period of 0 is SIGKILL at
    /// once.
    pub(crate) fn new(signal: Option<Signal>, grace: Option<Duration>) -> Self {
        if grace == Some(Duration::ZERO) {
            Self(vec![])
        } else {
            Self(vec![Rung {
                signal,
                wait: grace,
            }])
        }
    }

    /// Step `index`; none is SIGKILL.
    pub(crate) fn rung(&self, index: usize) -> Option<Rung> {
        self.0.get(index).copied()
    }

    /// How many steps there are before SIGKILL.
    pub(crate) fn rungs(&self) -> usize {
        self.0.len()
    }

    /// True if `signal` is a stop request without `--stop-on`: TERM, INT, ABRT and the first signal
    /// of the ladder, so that an image whose STOPSIGNAL is QUIT needs `--stop-signal QUIT` and no
    /// more. QUIT alone is not one: a JVM prints its threads at it.
    pub(crate) fn stops_on(&self, signal: Signal) -> bool {
        let first = self.rung(0).and_then(|rung| rung.signal);
        [Signal::TERM, Signal::INT, Signal::ABRT].contains(&signal) || first == Some(signal)
    }

    /// The time from the beginning of step `from` to SIGKILL; `None` is never.
    pub(crate) fn total(&self, from: usize) -> Option<Duration> {
        self.0
            .iter()
            .skip(from)
            .try_fold(Duration::ZERO, |sum, rung| sum.checked_add(rung.wait?))
    }
}

impl FromStr for Ladder {
    type Err = String;

    /// `TERM/30s/QUIT/5s/KILL`: signals and waits by turns; the end is KILL, or a wait that never
    /// ends.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("bad ladder '{text}': {why}");
        let unended = |rest: &str| wrong(&format!("it does not end with KILL: write {text}{rest}"));
        let mut rungs = vec![];
        let mut words = text.split('/');
        loop {
            let Some(word) = words.next() else {
                return Err(unended("/KILL"));
            };
            // A single word that is not a signal is not a ladder.
            let signal: Signal = word.parse().map_err(|why: String| {
                wrong(if word == text {
                    "write one such as TERM/30s/QUIT/5s/KILL"
                } else {
                    &why
                })
            })?;
            if signal == Signal::KILL {
                break;
            }
            if signal == Signal::STOP {
                return Err(wrong("no process can act on SIGSTOP: leave it out"));
            }
            let Some(word) = words.next() else {
                return Err(unended("/10s/KILL"));
            };
            let wait = parse_wait(word).map_err(|why| wrong(&why))?;
            rungs.push(Rung {
                signal: Some(signal),
                wait,
            });
            if wait.is_none() {
                break;
            }
        }
        if words.next().is_some() {
            Err(wrong(
                "nothing can follow KILL or never: leave the rest out",
            ))
        } else {
            Ok(Self(rungs))
        }
    }
}

impl fmt::Display for Ladder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for rung in &self.0 {
            match rung.signal {
                Some(signal) => write!(f, "{}/", signal.to_string().trim_start_matches("SIG"))?,
                None => f.write_str("received/")?,
            }
            match rung.wait {
                Some(wait) => write!(
                    f,
                    "{}/",
                    humantime::format_duration(wait)
                        .to_string()
                        .replace(' ', "")
                )?,
                None => return f.write_str("never"),
            }
        }
        f.write_str("KILL")
    }
}

#[cfg(test)]
#[path = "../../tests/fuzz/ladder.rs"]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(n: u64) -> Option<Duration> {
        Some(Duration::from_secs(n))
    }

    #[test]
    fn a_ladder_reads_as_it_is_written() {
        for text in [
            "TERM/30s/QUIT/5s/KILL",
            "KILL",
            "INT/1m 30s/KILL",
            "TERM/never",
            "RTMIN+3/10ms/TERM/1s/KILL",
        ] {
            let ladder: Ladder = text.parse().unwrap();
            assert_eq!(ladder.to_string(), text.replace(' ', ""));
            assert_eq!(ladder.to_string().parse(), Ok(ladder));
        }
    }

    #[test]
    fn a_bad_ladder_says_why() {
        for (text, why) in [
            ("", "write one such as TERM/30s/QUIT/5s/KILL"),
            ("10s", "write one such as TERM/30s/QUIT/5s/KILL"),
            ("TERM", "does not end with KILL: write TERM/10s/KILL"),
            ("TERM/30s", "does not end with KILL: write TERM/30s/KILL"),
            (
                "TERM/30s/QUIT",
                "does not end with KILL: write TERM/30s/QUIT/10s/KILL",
            ),
            ("TERM/30S/KILL", "did you mean 30s?"),
            ("TERM/30s/KIL", "did you mean SIGKILL?"),
            ("TERM/30s/KILL/5s", "nothing can follow"),
            ("TERM/never/KILL", "nothing can follow"),
            ("30s/TERM", "unknown signal '30s'"),
            ("STOP/5s/KILL", "no process can act on SIGSTOP"),
            ("TERM//KILL", "not a duration"),
            ("TERM/5s/", "unknown signal ''"),
        ] {
            let error = text.parse::<Ladder>().unwrap_err();
            assert!(
                error.contains(why) && error.starts_with(&format!("bad ladder '{text}': ")),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn the_first_signal_of_the_ladder_is_a_stop_request() {
        let usual = [Signal::TERM, Signal::INT, Signal::ABRT].map(Signal::number);
        for (text, more) in [
            ("TERM/1s/QUIT/1s/KILL", None),
            ("QUIT/1s/KILL", Some(Signal::QUIT)),
            ("WINCH/1s/TERM/1s/KILL", Some(Signal::WINCH)),
            ("KILL", None),
        ] {
            let ladder: Ladder = text.parse().unwrap();
            for signal in (1..=64).filter_map(Signal::new) {
                let stops = usual.contains(&signal.number()) || more == Some(signal);
                assert_eq!(ladder.stops_on(signal), stops, "{text}, {signal}");
            }
        }
    }

    #[test]
    fn the_waits_add_up() {
        let ladder: Ladder = "TERM/30s/QUIT/5s/KILL".parse().unwrap();
        assert_eq!(
            [ladder.total(0), ladder.total(1), ladder.total(2)],
            [secs(35), secs(5), secs(0)]
        );
        assert_eq!(
            "TERM/2/QUIT/0.5/KILL".parse::<Ladder>().unwrap().total(0),
            Some(Duration::from_millis(2500))
        );
        for never in ["never", "infinity", "99999999999999999999s"] {
            assert_eq!(
                format!("TERM/{never}")
                    .parse::<Ladder>()
                    .unwrap()
                    .to_string(),
                "TERM/never"
            );
        }
        assert_eq!(
            "TERM/5s/QUIT/never".parse::<Ladder>().unwrap().total(0),
            None
        );
        assert_eq!(Ladder::new(None, secs(0)).rung(0), None);
        assert_eq!(
            Ladder::new(None, Some(Duration::MAX)).total(0),
            Some(Duration::MAX)
        );
    }
}
