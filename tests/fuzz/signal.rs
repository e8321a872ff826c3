//! Fuzz targets of signal names and of `--remap`.

use super::*;
use crate::fuzz::fuzz;

/// The names in signal(7), in the order of the numbers, and the second names.
const NAMES: &str = "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU URG XCPU \
                     XFSZ VTALRM PROF WINCH IO PWR SYS";
const SECOND: [(&str, i32); 3] = [("IOT", 6), ("CLD", 17), ("POLL", 29)];

/// A number in its written form, without a sign.
fn number(text: &str) -> Option<i32> {
    let digits = text.trim_start_matches('0');
    (0..=64)
        .find(|n| !text.is_empty() && (digits == n.to_string() || (digits.is_empty() && *n == 0)))
}

/// Reads a signal as bowout(1) describes it, by a comparison with every form.
fn judge(text: &str) -> Option<i32> {
    if let Some(plain) = number(text) {
        return (plain > 0).then_some(plain);
    }
    let text = text.to_ascii_uppercase();
    let bare = text.strip_prefix("SIG").unwrap_or(&text);
    if let Some(at) = NAMES.split(' ').position(|name| name == bare) {
        return Some(at as i32 + 1);
    }
    if let Some((_, second)) = SECOND.iter().find(|(name, _)| *name == bare) {
        return Some(*second);
    }
    let offset = |rest: &str, sign: char| {
        if rest.is_empty() {
            Some(0)
        } else {
            number(rest.strip_prefix(sign)?)
        }
    };
    let up = bare
        .strip_prefix("RTMIN")
        .and_then(|rest| offset(rest, '+'));
    let down = bare
        .strip_prefix("RTMAX")
        .and_then(|rest| offset(rest, '-'));
    up.map(|offset| 34 + offset)
        .or(down.map(|offset| 64 - offset))
        .filter(|n| (34..=64).contains(n))
}

fn a_signal(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let signal = text.parse::<Signal>();
    assert_eq!(
        signal.as_ref().ok().map(|signal| signal.number()),
        judge(text),
        "{text:?}"
    );
    match signal {
        Ok(signal) => {
            let name = signal.to_string();
            // Two real-time signals are the C library's own and have no name.
            assert!(
                name.parse() == Ok(signal) || matches!(signal.number(), 32 | 33),
                "{text:?} is {name}"
            );
            assert_eq!(
                catchable(text).is_ok(),
                !matches!(signal.number(), 9 | 19),
                "{text:?}"
            );
        }
        Err(error) => {
            assert!(error.contains(text), "{error}");
            match error
                .split_once("did you mean ")
                .and_then(|(_, meant)| meant.strip_suffix('?'))
            {
                Some(meant) => assert!(judge(meant).is_some(), "{error}"),
                None => assert!(error.contains("RTMIN+3"), "{error}"),
            }
        }
    }
}

fn a_remap(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let words: Vec<_> = text.split(':').collect();
    let rule = match words[..] {
        [from, to] => judge(from)
            .filter(|from| !matches!(from, 9 | 19))
            .zip(if to == "0" { Some(0) } else { judge(to) }),
        _ => None,
    };
    let rewrite = text.parse::<Rewrite>();
    assert_eq!(rewrite.is_ok(), rule.is_some(), "{text:?}");
    let (Ok(rewrite), Some((from, to))) = (rewrite, rule) else {
        return;
    };
    let remap = Remap::new(vec![rewrite]);
    for signal in (1..=64).filter_map(Signal::new) {
        let becomes = if signal.number() == from {
            Signal::new(to)
        } else {
            Some(signal)
        };
        assert_eq!(remap.apply(signal), becomes, "{signal} by {text:?}");
    }
}

#[test]
fn signal() {
    fuzz("signal", 5000, a_signal);
}

#[test]
fn remap() {
    fuzz("remap", 3000, a_remap);
}
