//! The size of src/, recorded like its `unsafe`: `ledger.txt` beside this file has the lines of
//! code of each file, and each `static` with its reason.
//!
//! A line of code is a line that is not blank, not a comment, and not a test, after rustfmt with
//! lines of 120 characters: the formatting of a file does not count. A number may grow only in the
//! commit that gives the reason (`BLESS=1 cargo test --test e2e ledger` writes the file). A number
//! that shrank cannot grow back unnoticed.

use std::collections::BTreeMap;
use std::process::Command;

use crate::common::pty::missing;
use crate::common::{Dir, leftovers, skip};
use crate::source::{Kind, Source, Token, hold, program, read, root, tokens};

/// The limit for lines of code in src/.
const LIMIT: usize = 8890;
/// The limit for lines of code in a file.
const LIMIT_OF_A_FILE: usize = 300;
/// The limit for lines of a function from its `fn` to its last brace, comments included, formatted
/// at 100 columns: as many as fit a screen.
const SCREEN: usize = 60;
/// `file: function`, and the reason why it may be longer.
const LONGER: [(&str, &str); 0] = [];
/// Marks a static in the ledger whose reason is not written yet.
const NO_REASON: &str = "REASON?";

/// A copy of src/ as rustfmt writes it with lines of 120 characters.
fn normalised() -> Dir {
    let dir = Dir::new();
    let run = |program: &str, words: &[&str]| {
        let output = leftovers::output(Command::new(program).args(words).current_dir(&dir.0));
        assert!(output.status.success(), "{program}: {output:?}");
    };
    // The unit tests have modules in tests/.
    for folder in ["src", "tests"] {
        let source = root().join(folder);
        run("cp", &["-r", source.to_str().expect("text"), folder]);
    }
    let config = "max_width=120,use_small_heuristics=Max";
    run(
        "rustfmt",
        &["--edition", "2024", "--config", config, "src/main.rs"],
    );
    dir
}

fn lines_of_code(text: &str) -> usize {
    let code = Source::new(text).view(&[Kind::Code, Kind::Quoted]);
    code.lines().filter(|line| !line.trim().is_empty()).count()
}

/// The names of the statics in a file's code.
fn statics(code: &str) -> Vec<String> {
    let words = tokens(code);
    let mut found = vec![];
    for (at, word) in words.iter().enumerate() {
        // A lifetime has the mark before its name.
        if word.text != "static" || (at > 0 && words[at - 1].text == "'") {
            continue;
        }
        let name = words[at + 1..].iter().find(|next| next.text != "mut");
        found.extend(name.map(|name| name.text.to_owned()));
    }
    found
}

/// The reason of each static in the ledger, by `file NAME`.
fn reasons() -> BTreeMap<String, String> {
    let ledger = read(&root().join("tests/e2e/ledger.txt"));
    ledger
        .lines()
        .filter_map(|line| line.split_once(": "))
        .map(|(place, reason)| (place.to_owned(), reason.to_owned()))
        .collect()
}

#[test]
fn the_ledger_holds_the_lines_of_code_and_the_statics() {
    if skip(missing("rustfmt")) {
        return;
    }
    let (mut ledger, mut total, mut too_long) = (String::new(), 0, vec![]);
    let program = program();
    let normalised = normalised();
    for name in program.keys() {
        let lines = lines_of_code(&read(&normalised.file("src").join(name)));
        total += lines;
        ledger += &format!("{lines:4} {name}\n");
        if lines > LIMIT_OF_A_FILE {
            too_long.push(name);
        }
    }
    ledger += &format!("{total:4} in all, at most {LIMIT}\n\n");
    let reasons = reasons();
    for (name, text) in &program {
        for name in statics(&Source::new(text).code())
            .iter()
            .map(|item| format!("{name} {item}"))
        {
            let reason = reasons.get(&name).map_or(NO_REASON, String::as_str);
            ledger += &format!("{name}: {reason}\n");
        }
    }
    hold(&ledger, "ledger.txt");
    assert!(
        !ledger.contains(NO_REASON),
        "a static without its reason in ledger.txt:\n{ledger}"
    );
    assert!(total <= LIMIT, "{total} lines of code in src/");
    assert!(
        too_long.is_empty(),
        "more than {LIMIT_OF_A_FILE} lines of code: {too_long:?}"
    );
}

/// The name and the length in lines of each function with a body.
fn functions(words: &[Token<'_>]) -> Vec<(String, usize)> {
    let mut found = vec![];
    for at in 0..words.len().saturating_sub(1) {
        let (word, name) = (words[at], words[at + 1]);
        if word.text != "fn"
            || !name
                .text
                .starts_with(|c: char| c.is_alphabetic() || c == '_')
        {
            continue;
        }
        let mut depth = 0;
        for end in &words[at..] {
            match end.text {
                "(" | "[" | "{" => depth += 1,
                "}" if depth == 1 => {
                    found.push((name.text.to_owned(), end.line - word.line + 1));
                    break;
                }
                ")" | "]" | "}" => depth -= 1,
                ";" if depth == 0 => break,
                _ => {}
            }
        }
    }
    found
}

#[test]
fn every_function_fits_a_screen() {
    let mut longer = vec![];
    for (file, text) in program() {
        for (name, lines) in functions(&tokens(&Source::new(&text).code())) {
            let place = format!("{file}: {name}");
            if lines > SCREEN && !LONGER.iter().any(|(known, _)| *known == place) {
                longer.push(format!("{place}: {lines} lines"));
            }
        }
    }
    assert!(longer.is_empty(), "more than {SCREEN} lines: {longer:#?}");
}
