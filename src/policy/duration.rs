//! Durations as a user writes them: `10s`, `1m30s`, `0.5`, `never`. One parser for options,
//! variables and ladders.

use std::time::Duration;

/// How many nanoseconds a unit has; a year is 365.25 days, a month 30.44, as in humantime. `M` is
/// left out: to some it is a month, to others a minute.
fn unit(name: &str) -> Option<u128> {
    const SECOND: u128 = 1_000_000_000;
    Some(match name {
        "nanos" | "nsec" | "ns" => 1,
        "usec" | "us" | "µs" => 1000,
        "millis" | "msec" | "ms" => SECOND / 1000,
        "seconds" | "second" | "secs" | "sec" | "s" => SECOND,
        "minutes" | "minute" | "mins" | "min" | "m" => 60 * SECOND,
        "hours" | "hour" | "hrs" | "hr" | "h" => 3600 * SECOND,
        "days" | "day" | "d" => 86_400 * SECOND,
        "weeks" | "week" | "wks" | "wk" | "w" => 7 * 86_400 * SECOND,
        "months" | "month" => 2_630_016 * SECOND,
        "years" | "year" | "yrs" | "yr" | "y" => 31_557_600 * SECOND,
        _ => return None,
    })
}

/// Reads a wait. A number without a unit is seconds; `None` is never, and so is a wait beyond the
/// kernel's clock, which counts nanoseconds in 63 bits (`KTIME_MAX`, 292 years).
///
/// # Errors
/// A text with the right form.
pub(crate) fn parse_wait(text: &str) -> Result<Option<Duration>, String> {
    if matches!(text, "never" | "infinity") {
        return Ok(None);
    }
    let Some(nanos) = nanos(text) else {
        return Err(match meant(text) {
            Some(meant) => format!("'{text}' is not a duration: did you mean {meant}?"),
            None => format!("'{text}' is not a duration: write 10s, 1m30s, 500ms, 0 or never"),
        });
    };
    Ok(i64::try_from(nanos)
        .ok()
        .map(|nanos| Duration::from_nanos(nanos as u64)))
}

/// Numbers, each with its unit, or one number of seconds; `None` where the text is something else.
fn nanos(text: &str) -> Option<u128> {
    let mut total = 0;
    let text = text.trim();
    let mut rest = text;
    loop {
        let (number, after) = rest.split_at(
            rest.find(|c: char| !c.is_ascii_digit() && c != '.')
                .unwrap_or(rest.len()),
        );
        let name = after.trim_start();
        let (name, next) = name.split_at(
            name.find(|c: char| !c.is_alphabetic())
                .unwrap_or(name.len()),
        );
        let unit = if number == text {
            unit("s")
        } else {
            unit(name)
        };
        total = scaled(number, unit?)?.saturating_add(total);
        rest = next.trim_start();
        if rest.is_empty() {
            return Some(total);
        }
    }
}

/// `number`, such as `2`, `0.5` or `.5`, times `unit`; rounded down. A number too large for the
/// type is too large for every clock.
fn scaled(number: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if fraction.is_empty() || fraction.contains('.') || number.is_empty() {
        return None;
    }
    // 18 digits are below a nanosecond in every unit but years, and the product still fits.
    let fraction = &fraction[..fraction.len().min(18)];
    let part = fraction.parse::<u128>().ok()? * unit / 10_u128.pow(fraction.len() as u32);
    let whole = if whole.is_empty() {
        0
    } else {
        whole.parse().unwrap_or(u128::MAX)
    };
    Some(whole.saturating_mul(unit).saturating_add(part))
}

/// The duration that was probably meant: in lower case, with a point for a comma, without a sign.
fn meant(text: &str) -> Option<String> {
    const NEVER: [&str; 7] = [
        "never",
        "forever",
        "infinity",
        "infinite",
        "inf",
        "none",
        "unlimited",
    ];
    let plain = text
        .to_ascii_lowercase()
        .trim_start_matches(['-', '+'])
        .replace(',', ".");
    if NEVER.contains(&plain.as_str()) {
        return Some("never".into());
    }
    (plain != text && nanos(&plain).is_some()).then_some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(n: u64) -> Option<Duration> {
        Some(Duration::from_secs(n))
    }

    const fn millis(n: u64) -> Option<Duration> {
        Some(Duration::from_millis(n))
    }

    #[test]
    fn a_duration_has_units_or_is_seconds() {
        for (text, wait) in [
            ("10s", secs(10)),
            ("1m30s", secs(90)),
            ("1m 30s", secs(90)),
            ("10 seconds", secs(10)),
            ("0", secs(0)),
            ("0s", secs(0)),
            ("2h", secs(7200)),
            ("500ms", millis(500)),
            ("1.5s", millis(1500)),
            ("1.5h 0.5m", secs(5430)),
            ("1month", secs(2_630_016)),
            ("2", secs(2)),
            ("600", secs(600)),
            ("010", secs(10)),
            (" 5 ", secs(5)),
            ("0.5", millis(500)),
            (".5", millis(500)),
            ("0.0", secs(0)),
            ("0.00000000049999999999999", secs(0)),
            (
                "1.000000000999999999999999999999",
                Some(Duration::from_secs(1)),
            ),
        ] {
            assert_eq!(parse_wait(text), Ok(wait), "{text}");
        }
    }

    #[test]
    fn a_time_beyond_the_clock_is_never() {
        for text in [
            "never",
            "infinity",
            "9000000000000000ms",
            "99999999999999999999s",
            "99999999999999999999",
            "1000000y",
            "293y",
            "584542046090years 1y",
            "18446744073709551615s 1s",
            "340282366920938463463374607431768211456y",
            "9999999999999999999999999999999999999999.9y 9999999999999999999999999999999999999999ns",
        ] {
            assert_eq!(parse_wait(text), Ok(None), "{text}");
        }
        assert_eq!(
            parse_wait("9223372036854775807ns"),
            Ok(Some(Duration::from_nanos(i64::MAX as u64)))
        );
        assert_eq!(parse_wait("9223372036854775808ns"), Ok(None));
        assert!(matches!(parse_wait("292y"), Ok(Some(_))));
    }

    #[test]
    fn an_invalid_duration_gets_a_correction() {
        for text in [
            "",
            " ",
            "s",
            ".",
            "-",
            "10 seconds ago",
            "soon",
            "1 30s",
            "1..5s",
            "1.000000000000000000.5s",
            "1 .5s",
            "1s 2",
            "1m30",
            "1 30S",
            "5.",
            "1.2.3",
            "1..5s",
            "1e3",
            "0x10",
            "1_000",
            "１０s",
            "nan",
        ] {
            assert!(
                parse_wait(text).unwrap_err().contains("write 10s"),
                "{text}"
            );
        }
        for (text, meant) in [
            ("5S", "5s"),
            ("1M", "1m"),
            ("1h 30M", "1h 30m"),
            ("-5s", "5s"),
            ("+5s", "5s"),
            ("-10", "10"),
            ("1,5s", "1.5s"),
            ("0,5", "0.5"),
            ("10Sec", "10sec"),
            ("inf", "never"),
            ("Infinity", "never"),
            ("NEVER", "never"),
            ("forever", "never"),
        ] {
            assert_eq!(
                parse_wait(text),
                Err(format!("'{text}' is not a duration: did you mean {meant}?"))
            );
        }
    }
}
