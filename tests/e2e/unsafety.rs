//! The `unsafe` in src/ is counted: `unsafety.txt` beside this file has the count for each file,
//! and each block has its reason.
//!
//! clippy's `undocumented_unsafe_blocks` requires the reason at the block; this test ensures that
//! no block is added unnoticed. A number may grow only in the commit that gives the reason
//! (`BLESS=1 cargo test --test e2e unsafe` writes the file). A number that shrank is recorded, and
//! cannot grow back unnoticed.

use std::collections::BTreeMap;

use crate::source::{Source, hold, program};

/// Each file below src/: its whole text, and its code alone.
fn sources() -> BTreeMap<String, (String, String)> {
    program()
        .into_iter()
        .map(|(name, whole)| {
            let code = Source::with_tests(&whole).code();
            (name, (whole, code))
        })
        .collect()
}

/// The number of times that a text has `unsafe` as a whole word; `unsafe_code` does not count.
fn count(code: &str) -> usize {
    code.split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| *word == "unsafe")
        .count()
}

#[test]
fn unsafe_is_counted() {
    let counts = sources()
        .into_iter()
        .map(|(name, (_, code))| (name, count(&code)))
        .filter(|(_, count)| *count > 0);
    let counts: Vec<_> = counts.collect();
    let total: usize = counts.iter().map(|(_, count)| count).sum();
    let lines = counts
        .iter()
        .map(|(name, count)| format!("{count:3} {name}"));
    let counted = lines
        .chain([format!("{total:3} in all\n")])
        .collect::<Vec<_>>()
        .join("\n");
    hold(&counted, "unsafety.txt");
}

#[test]
fn each_unsafe_block_has_its_reason() {
    for (name, (whole, code)) in sources() {
        // A block has a space between the word and its brace: `unsafe {`. The other uses are
        // declarations, for which clippy requires no reason.
        let declared = code.matches("unsafe extern").count() + code.matches("unsafe(").count();
        let reasons = whole
            .lines()
            .filter(|line| line.contains("//") && line.contains(" SAFETY: "))
            .count();
        assert_eq!(
            reasons,
            count(&code) - declared,
            "src/{name}: one `// SAFETY: ` for each block"
        );
    }
}

#[test]
fn only_sys_may_be_unsafe() {
    let allowed: Vec<_> = sources()
        .into_iter()
        .filter(|(_, (_, code))| code.contains("unsafe_code"))
        .collect();
    let names: Vec<_> = allowed.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        ["sys/mod.rs"],
        "lint `unsafe_code` is denied in Cargo.toml and allowed in one place"
    );
}
