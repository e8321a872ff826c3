//! Fuzz target of `--remap-exit`.

use super::*;
use crate::fuzz::{assert_one_line, fuzz};

fn judge(text: &str) -> Option<(u8, u8)> {
    let code = |text: &str| {
        let value = text.bytes().try_fold(0u16, |sum, byte| {
            let digit = u16::from(byte.checked_sub(b'0').filter(|digit| *digit < 10)?);
            Some((sum * 10 + digit).min(256))
        })?;
        u8::try_from(value).ok().filter(|_| !text.is_empty())
    };
    match text.split(':').collect::<Vec<_>>()[..] {
        [from] => Some((code(from)?, 0)),
        [from, to] => Some((code(from)?, code(to)?)),
        _ => None,
    }
}

fn a_recode(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let rule = text.parse::<Recode>();
    assert_eq!(
        rule.as_ref().ok().map(|rule| (rule.from, rule.to)),
        judge(text),
        "{text:?}"
    );
    match rule {
        Ok(rule) => {
            let rules = ExitRules {
                recode: vec![rule],
                death_as_code: false,
            };
            for code in 0..=255 {
                let becomes = if code == rule.from { rule.to } else { code };
                assert_eq!(
                    rules.apply(Exit::Code(code), false),
                    Exit::Code(becomes),
                    "{code} by {text:?}"
                );
            }
        }
        Err(error) => assert_one_line(&error.replace(text, "?")),
    }
}

#[test]
fn recode() {
    fuzz("recode", 3000, a_recode);
}
