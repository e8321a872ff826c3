//! Suggests the known word that is most similar to an unknown one. Pure: the callers pass the known
//! words, such as options or signals.

/// The known word that is most similar to `text`; upper and lower case are the same. `None` if no
/// word is similar: at most one slip away (two where both words have five letters or more), or
/// containing the other.
pub(crate) fn similar<'a>(text: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    nearest(text, known).map(|(_, word)| word)
}

/// The same, but a word that only contains the other does not count: for a text that may be a word
/// of another program.
pub(crate) fn misspelt<'a>(
    text: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    nearest(text, known)
        .filter(|((contained, ..), _)| !contained)
        .map(|(_, word)| word)
}

/// Lower is more similar: true if one word only contains the other, the number of slips between
/// them, and true if their first letters differ.
type Rank = (bool, usize, bool);

fn nearest<'a>(text: &str, known: impl IntoIterator<Item = &'a str>) -> Option<(Rank, &'a str)> {
    let text = text.to_ascii_lowercase();
    let rank = |word: &str| {
        let word = word.to_ascii_lowercase();
        let slips = slips(text.as_bytes(), word.as_bytes());
        let first_differs = text.as_bytes().first() != word.as_bytes().first();
        let shorter = text.len().min(word.len());
        let allowed = match shorter {
            0 | 1 => 0,
            2..5 => 1,
            _ => 2,
        };
        if slips <= allowed {
            Some((false, slips, first_differs))
        } else if shorter >= 3 && (word.contains(&text) || text.contains(&word)) {
            Some((true, text.len().abs_diff(word.len()), first_differs))
        } else {
            None
        }
    };
    let ranked = known
        .into_iter()
        .filter_map(|word| Some((rank(word)?, word)));
    // Of equally similar words, the first.
    ranked.min_by_key(|(rank, _)| *rank)
}

/// The number of slips: a wrong, missing or extra letter, or two letters that changed places (the
/// restricted Damerau-Levenshtein distance).
fn slips(a: &[u8], b: &[u8]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut least = (last[j] + usize::from(x != y))
                .min(last[j + 1] + 1)
                .min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: [&str; 8] = [
        "HUP",
        "INT",
        "TERM",
        "STOP",
        "TSTP",
        "kill-mode",
        "max-runtime",
        "stop-signal",
    ];

    #[test]
    fn the_nearest_word_is_found() {
        for (text, word) in [
            ("TERM", "TERM"),
            ("term", "TERM"),
            ("TREM", "TERM"),
            ("TRM", "TERM"),
            ("TERMM", "TERM"),
            ("TERN", "TERM"),
            ("TERMINATE", "TERM"),
            ("INTR", "INT"),
            ("STP", "STOP"),
            ("TSP", "TSTP"),
            ("kill-mood", "kill-mode"),
            ("max-run", "max-runtime"),
            ("signal", "stop-signal"),
        ] {
            assert_eq!(similar(text, WORDS), Some(word), "{text}");
        }
    }

    #[test]
    fn a_misspelt_word_is_not_part_of_another() {
        assert_eq!(misspelt("TREM", WORDS), Some("TERM"));
        for text in ["TERMINATE", "signal", "max-run"] {
            assert_eq!(misspelt(text, WORDS), None, "{text}");
        }
    }

    #[test]
    fn a_distant_name_suggests_nothing() {
        for text in [
            "",
            "x",
            "NOPE",
            "TE",
            "15",
            "grace",
            "SIGNALLING",
            "nonsense/x",
            "é",
        ] {
            assert_eq!(similar(text, WORDS), None, "{text}");
        }
    }

    #[test]
    fn slips_are_counted() {
        for (a, b, n) in [
            ("", "", 0),
            ("", "ab", 2),
            ("ab", "ba", 1),
            ("abc", "ac", 1),
            ("abc", "xbc", 1),
            ("ca", "abc", 3),
        ] {
            assert_eq!(
                (
                    slips(a.as_bytes(), b.as_bytes()),
                    slips(b.as_bytes(), a.as_bytes())
                ),
                (n, n),
                "{a} {b}"
            );
        }
    }
}
