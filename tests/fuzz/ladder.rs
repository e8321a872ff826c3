//! Fuzz targets of durations and of `--escalate`.

use super::*;
use crate::fuzz::fuzz;

/// Nanoseconds in a unit; a month is 30.44 days, a year 365.25.
fn unit(word: &str) -> Option<u128> {
    const SECOND: u128 = 1_000_000_000;
    Some(match word {
        "nanos" | "nsec" | "ns" => 1,
        "usec" | "us" | "µs" => 1000,
        "millis" | "msec" | "ms" => 1_000_000,
        "seconds" | "second" | "secs" | "sec" | "s" => SECOND,
        "minutes" | "minute" | "min" | "mins" | "m" => 60 * SECOND,
        "hours" | "hour" | "hrs" | "hr" | "h" => 3600 * SECOND,
        "days" | "day" | "d" => 86400 * SECOND,
        "weeks" | "week" | "wks" | "wk" | "w" => 7 * 86400 * SECOND,
        "months" | "month" => 2_630_016 * SECOND,
        "years" | "year" | "yrs" | "yr" | "y" => 31_557_600 * SECOND,
        _ => return None,
    })
}

/// Reads a duration of whole numbers without the parser: pairs of a number and a unit, with or
/// without spaces, or one number of seconds. `Err` is for a text that is not a duration, and for
/// one that this cannot judge: fractions, and numbers that are too large for it.
fn judge(text: &str) -> Result<Option<u128>, ()> {
    if matches!(text, "never" | "infinity") {
        return Ok(None);
    }
    let mut rest = text.trim();
    let mut total = 0u128;
    if let Ok(seconds) = rest.parse::<u64>()
        && !rest.starts_with('+')
    {
        (total, rest) = (u128::from(seconds) * 1_000_000_000, "");
    } else if rest.is_empty() {
        return Err(());
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .filter(|digits| *digits > 0)
            .ok_or(())?;
        let (number, after) = rest.split_at(digits);
        let after = after.trim_start();
        let letters = after
            .find(|c: char| !c.is_alphabetic())
            .unwrap_or(after.len());
        total +=
            u128::from(number.parse::<u64>().map_err(drop)?) * unit(&after[..letters]).ok_or(())?;
        rest = after[letters..].trim_start();
    }
    // The kernel's clock counts nanoseconds in 63 bits.
    Ok(Some(total).filter(|total| *total < 1 << 63))
}

/// The value of a fraction by humantime, or for a number alone, by the standard library.
fn judge_fraction(text: &str) -> Option<f64> {
    // humantime panics on some sums beyond 2^64 seconds.
    let small = text
        .split(|c: char| !c.is_ascii_digit())
        .all(|number| number.len() < 8);
    let by_humantime = || {
        humantime::parse_duration(text)
            .ok()
            .map(|wait| wait.as_secs_f64())
    };
    text.trim()
        .parse()
        .ok()
        .or_else(|| if small { by_humantime() } else { None })
}

fn a_duration(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let wait = parse_wait(text);
    match (&wait, judge(text)) {
        (Ok(wait), Ok(judged)) => assert_eq!(wait.map(|wait| wait.as_nanos()), judged, "{text:?}"),
        (Ok(Some(wait)), Err(())) => {
            assert!(text.contains('.'), "{text:?} is not a duration");
            if let Some(judged) = judge_fraction(text) {
                let close = (wait.as_secs_f64() - judged).abs() <= judged * 1e-9 + 1e-8;
                assert!(close, "{text:?} is {judged} s, not {wait:?}");
            }
        }
        (Ok(None), Err(())) => {
            assert!(
                text.split(|c: char| !c.is_ascii_digit())
                    .any(|number| number.len() >= 3),
                "{text:?} is not for ever"
            );
        }
        (Err(error), judged) => {
            assert!(error.contains(text), "{error}");
            match error
                .split_once("did you mean ")
                .and_then(|(_, meant)| meant.strip_suffix('?'))
            {
                Some(meant) => assert!(parse_wait(meant).is_ok(), "{error}"),
                None => assert!(error.contains("write "), "{error}"),
            }
            assert!(judged.is_err(), "{text:?} is a duration: {error}");
        }
    }
    if let Ok(Some(wait)) = wait {
        let written = humantime::format_duration(wait).to_string();
        assert_eq!(
            parse_wait(&written),
            Ok(Some(wait)),
            "{text:?} is {written}"
        );
    }
}

/// Returns true if signals and waits alternate, and the last of them ends the ladder.
fn is_ladder(text: &str) -> bool {
    let words: Vec<_> = text.split('/').collect();
    let is_kill = |word: &str| matches!(word.parse(), Ok(Signal::KILL));
    let is_never = |word: &str| parse_wait(word) == Ok(None);
    let (last, steps) = words.split_last().expect("one word at least");
    let (ends, steps) = match (is_kill(last), words.len() % 2) {
        (true, 1) => (true, steps),
        // The wait that ends the ladder has its signal before it.
        (false, 0) => (is_never(last), &words[..words.len() - 2]),
        (true | false, _) => (false, steps),
    };
    let signal = |word: &str| {
        word.parse::<Signal>()
            .is_ok_and(|signal| signal != Signal::KILL)
    };
    let before_end = !is_never(last) || words.iter().rev().nth(1).is_some_and(|word| signal(word));
    let is_step = |step: &[&str]| {
        signal(step[0])
            && step
                .get(1)
                .is_some_and(|wait| matches!(parse_wait(wait), Ok(Some(_))))
    };
    ends && before_end && steps.chunks(2).all(is_step)
}

fn a_ladder(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let ladder = text.parse::<Ladder>();
    assert_eq!(ladder.is_ok(), is_ladder(text), "{text:?}: {ladder:?}");
    match ladder {
        Ok(ladder) => {
            let written = ladder.to_string();
            assert_eq!(written.parse(), Ok(ladder.clone()), "{text:?} is {written}");
            assert_eq!(
                ladder.0.len(),
                text.split('/').count() / 2,
                "{text:?} is {written}"
            );
            let sum = ladder
                .0
                .iter()
                .try_fold(Duration::ZERO, |sum, rung| sum.checked_add(rung.wait?));
            assert_eq!(ladder.total(0), sum, "{text:?}");
            assert_eq!(
                ladder.total(ladder.0.len()),
                Some(Duration::ZERO),
                "{text:?}"
            );
        }
        Err(error) => {
            let told = ["write ", "did you mean ", "leave the rest out"]
                .iter()
                .any(|told| error.contains(told));
            assert!(
                told && error.starts_with(&format!("bad ladder '{text}': ")),
                "{error}"
            );
        }
    }
}

#[test]
fn duration() {
    fuzz("duration", 5000, a_duration);
}

#[test]
fn ladder() {
    fuzz("ladder", 5000, a_ladder);
}
