//! Each `unsafe` in src/ is counted: `unsafety.txt` beside this file holds how many each file has,
//! and each block has its reason.
//!
//! clippy's `undocumented_unsafe_blocks` wants the reason at the block; here nothing is added
//! unseen. A number that has to grow grows in the commit that says why (`BLESS=1 cargo test --test
//! e2e unsafe` writes the file); one that shrinks cannot grow back.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Every Rust file below a folder.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in
        std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
    {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The code of each file below src/, by its name there. What follows `//` is left out, in strings
/// too: none holds `unsafe`.
fn sources() -> BTreeMap<String, (String, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    files(&src, &mut found);
    let read = |path: &PathBuf| {
        let whole = std::fs::read_to_string(path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let code = whole
            .lines()
            .map(|line| line.split("//").next().unwrap())
            .collect::<Vec<_>>()
            .join("\n");
        (
            path.strip_prefix(&src).unwrap().display().to_string(),
            (whole, code),
        )
    };
    found.iter().map(read).collect()
}

/// How often a text has `unsafe` as a word, `unsafe_code` not being it.
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
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/unsafety.txt");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, &counted).unwrap();
    }
    let table = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    assert_eq!(counted, table, "not what {path} holds; counted:\n{counted}");
}

#[test]
fn each_unsafe_block_has_its_reason() {
    for (name, (whole, code)) in sources() {
        // Between the word and its brace: `unsafe {`. The rest are declarations, which clippy does
        // not ask about.
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
