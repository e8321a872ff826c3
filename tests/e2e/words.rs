//! The sources and the documents avoid words that make a sentence hard to read. Each file is
//! checked whole, except a test file: only its comments and the names of its tests are. Name the
//! thing and its action.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::source::{Kind, Source, read, root, tokens};

/// The words, each with its replacement.
const RIDDLES: [(&str, &str); 30] = [
    ("nobody", "no process, no user; or name it"),
    ("somebody", "another process; or name it"),
    ("whoever", "the process that"),
    ("whom", "the process that"),
    ("what came", "the signal, the line, the message"),
    ("tell", "log, report, send, say, distinguish"),
    ("tells", "logs, reports, sends, says"),
    ("told", "logged, reported, sent, asked"),
    ("hear", "receive"),
    ("hears", "receives"),
    ("heard", "received"),
    ("is gone", "has exited, is closed, was removed"),
    ("are gone", "have exited"),
    ("was gone", "had exited"),
    ("were gone", "had exited"),
    ("be gone", "have exited"),
    ("has gone", "has exited"),
    ("have gone", "have exited"),
    ("had gone", "had exited"),
    ("been gone", "exited"),
    ("behind", "after; below"),
    ("is no", "is not a"),
    ("are no", "are not"),
    ("was no", "was not a"),
    ("were no", "were not"),
    ("be no", "not be a"),
    ("mend", "fix"),
    ("mends", "fixes"),
    ("mended", "fixed"),
    // In the sources alone: a document speaks of people.
    ("who", "the process that, which"),
];
/// `leaves it behind` is plain, and so are `there is no file` and `it is no longer there`.
const LEAVE: [&str; 4] = ["leave", "leaves", "left", "leaving"];

/// A file, a riddle that it may contain, and the reason.
const ALLOWED: [(&str, &str, &str); 0] = [];

const FOLDERS: [&str; 5] = ["src", "tests", "benches", "man", "packaging"];
const DOCUMENTS: [&str; 4] = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
];
/// Written by a program, or inputs of a test.
const LEFT_OUT: [&str; 4] = [
    "tests/fuzz/corpus",
    "tests/e2e/words.rs",
    "packaging/completions",
    "packaging/deb/copyright",
];
/// The endings of the files that are checked; none is a script.
const ENDINGS: [&str; 9] = ["rs", "c", "h", "py", "md", "1", "toml", "service", ""];

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// The words of a text in lower case, each with its line number. A name such as `is_alive` is two
/// words. A mark that ends a sentence or a part of one is a word of its own, so that no riddle is
/// found across it. The beginning of a comment line is not a word.
fn words(text: &str) -> Vec<(String, usize)> {
    let mut found = vec![];
    for (n, line) in text.lines().enumerate() {
        let line = line.trim().trim_start_matches(['/', '!', '#', '*']);
        let mut word = String::new();
        for c in line.chars().chain([' ']) {
            if c.is_alphanumeric() || c == '\'' {
                word.extend(c.to_lowercase());
                continue;
            }
            if !word.is_empty() {
                found.push((std::mem::take(&mut word), n + 1));
            }
            if !c.is_whitespace() && c != '_' {
                found.push((c.to_string(), n + 1));
            }
        }
        if line.is_empty() {
            found.push((String::new(), n + 1));
        }
    }
    found
}

/// The riddles of a text, each with its line.
fn riddles(text: &str, is_code: bool) -> Vec<(&'static str, usize)> {
    let words = words(text);
    let at = |n: usize| words.get(n).map_or("", |(word, _)| word);
    let mut found = vec![];
    for (riddle, _) in RIDDLES {
        if riddle == "who" && !is_code {
            continue;
        }
        let parts: Vec<_> = riddle.split(' ').collect();
        for (n, (_, line)) in words.iter().enumerate() {
            let is_here = parts.iter().enumerate().all(|(k, part)| at(n + k) == *part);
            let before: Vec<_> = (n.saturating_sub(3)..n).map(at).collect();
            let is_plain = match riddle {
                "behind" => before.iter().any(|word| LEAVE.contains(word)),
                _ if riddle.ends_with(" no") => {
                    before.last().is_some_and(|word| *word == "there")
                        || ["longer", "more"].contains(&at(n + 2))
                }
                _ => false,
            };
            if is_here && !is_plain {
                found.push((riddle, *line));
            }
        }
    }
    found
}

/// The comments of a test file and the names of its tests: its strings are data, and no other name
/// is used outside the file.
fn comments_and_names(text: &str) -> String {
    let source = Source::with_tests(text);
    let mut lines: Vec<_> = source
        .view(&[Kind::Comment])
        .lines()
        .map(str::to_owned)
        .collect();
    let code = source.code();
    let (mut words, mut is_test) = (tokens(&code).into_iter(), false);
    while let Some(word) = words.next() {
        match word.text {
            "test" => is_test = true,
            "fn" if is_test => {
                let name = words.next().expect("a name");
                lines[name.line - 1] += name.text;
                is_test = false;
            }
            _ => {}
        }
    }
    lines.join("\n")
}

#[test]
fn no_riddle_stands_in_the_sources_and_the_documents() {
    let mut paths = DOCUMENTS.map(|name| root().join(name)).to_vec();
    for folder in FOLDERS {
        files(&root().join(folder), &mut paths);
    }
    let (mut found, mut used) = (BTreeMap::new(), vec![]);
    for path in paths {
        let name = path.strip_prefix(root()).unwrap().display().to_string();
        let ending = path.extension().map_or("", |e| e.to_str().unwrap());
        if LEFT_OUT.iter().any(|out| name.starts_with(out)) || !ENDINGS.contains(&ending) {
            continue;
        }
        let is_code = !["md", "1"].contains(&ending);
        let mut text = read(&path);
        if name.starts_with("tests/") && ending == "rs" {
            text = comments_and_names(&text);
        }
        for (riddle, line) in riddles(&text, is_code) {
            let allowed = ALLOWED
                .iter()
                .find(|(file, word, _)| *file == name && *word == riddle);
            match allowed {
                Some(allowed) => used.push(allowed),
                None => {
                    found.insert(format!("{name}:{line:05}"), riddle);
                }
            }
        }
    }
    let instead = |riddle: &str| RIDDLES.iter().find(|(word, _)| *word == riddle).unwrap().1;
    let lines: Vec<_> = found
        .iter()
        .map(|(place, riddle)| format!("{place}: '{riddle}'; instead: {}", instead(riddle)))
        .collect();
    assert!(lines.is_empty(), "{} riddles: {lines:#?}", lines.len());
    let idle: Vec<_> = ALLOWED.iter().filter(|one| !used.contains(one)).collect();
    assert!(idle.is_empty(), "allowed, and not there: {idle:?}");
}

/// In a comment, `what` stands for a thing that has a name: the remaining processes, the output of
/// systemd. Names and messages may have it.
#[test]
fn no_comment_says_what_for_a_thing() {
    let mut paths = vec![];
    for folder in FOLDERS {
        files(&root().join(folder), &mut paths);
    }
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "rs"));
    let found: Vec<_> = paths
        .iter()
        .filter(|path| !LEFT_OUT.iter().any(|out| path.ends_with(out)))
        .flat_map(|path| {
            let comments = Source::with_tests(&read(path)).view(&[Kind::Comment]);
            let whats = words(&comments)
                .into_iter()
                .filter(|(word, _)| word == "what");
            whats
                .map(|(_, line)| format!("{}:{line}", path.display()))
                .collect::<Vec<_>>()
        })
        .collect();
    assert!(paths.len() > 100, "{paths:?}");
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_riddle_is_found_across_lines_and_in_names() {
    let found = |text| -> Vec<_> {
        riddles(text, true)
            .iter()
            .map(|(riddle, _)| *riddle)
            .collect()
    };
    assert_eq!(found("/// the child is\n/// gone"), ["is gone"]);
    assert_eq!(found("fn nobody_is_left() {}"), ["nobody"]);
    assert_eq!(found("say \"Nobody is left\""), ["nobody"]);
    assert_eq!(found("\"30x\" is no duration"), ["is no"]);
    assert_eq!(found("there is no file; it is no longer there"), [""; 0]);
    assert_eq!(found("it is.\nGone"), [""; 0]);
    assert_eq!(riddles("people who ask", false), []);
}
