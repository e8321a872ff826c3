//! Each flag of the command line is in --help-all and in the manual, and no other flag is; --help
//! has a part of them.

use std::collections::BTreeSet;

use crate::common::{NOTHING, Start, Status};

/// The flags in a text, as `--flag`.
fn flags(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices("--") {
        let name: String = text[at + 2..]
            .chars()
            .take_while(|c| c.is_ascii_lowercase() || *c == '-')
            .collect();
        let alone = !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '-');
        if alone && name.len() > 1 {
            found.insert(format!("--{name}"));
        }
    }
    found
}

fn help(option: &str) -> BTreeSet<String> {
    let mut bowout = Start::new([option]).bare(NOTHING);
    let text = bowout.out.rest().join("\n");
    assert_eq!(bowout.end(), Status::Code(0));
    flags(&text)
}

#[test]
fn help_all_has_every_flag() {
    let help = help("--help-all");
    let all = [
        "--grace",
        "--escalate",
        "--stop-signal",
        "--stop-on",
        "--on-repeat",
        "--max-runtime",
        "--kill-mode",
        "--wait-tree",
        "--remap",
        "--remap-exit",
        "--exit-status",
        "--parent-death-signal",
        "--subreaper",
        "--warn-on-reap",
        "--log-format",
        "--help",
        "--help-all",
        "--version",
    ];
    let missing: Vec<_> = all.iter().filter(|flag| !help.contains(**flag)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn help_has_the_flags_that_most_people_need() {
    let (few, all) = (help("--help"), help("--help-all"));
    assert!(few.is_subset(&all), "{:?}", few.difference(&all));
    assert!(
        few.contains("--grace") && few.contains("--help-all") && few.len() * 2 < all.len(),
        "{few:?}"
    );
}

/// mdoc writes `--grace` as `.Fl \-grace` or `Fl -grace`.
#[test]
fn the_manual_has_the_flags_that_help_has() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/man/bowout.1");
    let manual = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let manual = manual.replace("\\-", "-").replace("Fl -", "--");
    let manual = flags(&manual);
    let help = help("--help-all");
    let (missing, unknown): (Vec<_>, Vec<_>) = (
        help.difference(&manual).collect(),
        manual.difference(&help).collect(),
    );
    assert!(missing.is_empty(), "not in the manual: {missing:?}");
    assert!(unknown.is_empty(), "only in the manual: {unknown:?}");
}
