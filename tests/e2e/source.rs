//! Reads src/ as text, for the checks that keep it small and readable: `ledger`, `arrows`, `words`
//! and `unsafety`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The role of a character in a source file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Code,
    Comment,
    /// Inside the quotes of a string or a character.
    Quoted,
    /// An item with `#[cfg(test)]`, with everything in it.
    Test,
}

pub struct Source {
    characters: Vec<(char, Kind)>,
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The text of each file that the program is compiled from, by its path below src/: main.rs and the
/// files of the modules that it declares, without tests.
pub fn program() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut open = vec![PathBuf::from("main.rs")];
    while let Some(path) = open.pop() {
        let text = read(&root().join("src").join(&path));
        let folder = match path.file_name().and_then(|name| name.to_str()) {
            Some("main.rs" | "mod.rs") => path.with_file_name(""),
            _ => path.with_extension(""),
        };
        for module in Source::new(&text).modules() {
            let file = folder.join(format!("{module}.rs"));
            let exists = root().join("src").join(&file).exists();
            open.push(if exists {
                file
            } else {
                folder.join(module).join("mod.rs")
            });
        }
        found.insert(path.display().to_string(), text);
    }
    found
}

impl Source {
    /// A file without its tests.
    pub fn new(text: &str) -> Self {
        let mut source = Self::with_tests(text);
        source.leave_out_tests();
        source
    }

    pub fn with_tests(text: &str) -> Self {
        Self {
            characters: classify(text),
        }
    }

    /// The text with every other kind of character replaced by spaces; each line keeps its number.
    pub fn view(&self, wanted: &[Kind]) -> String {
        self.characters
            .iter()
            .map(|(c, kind)| {
                if *c == '\n' || wanted.contains(kind) {
                    *c
                } else {
                    ' '
                }
            })
            .collect()
    }

    pub fn code(&self) -> String {
        self.view(&[Kind::Code])
    }

    /// The names in `mod name;`.
    pub fn modules(&self) -> Vec<String> {
        let code = self.code();
        let words = tokens(&code);
        let declared = words
            .windows(3)
            .filter(|three| three[0].text == "mod" && three[2].text == ";");
        declared.map(|three| three[1].text.to_owned()).collect()
    }

    fn leave_out_tests(&mut self) {
        let code: Vec<char> = self.code().chars().collect();
        let attribute: Vec<char> = "#[cfg(test)]".chars().collect();
        let mut at = 0;
        while at < code.len() {
            if code[at..].starts_with(&attribute) {
                let end = end_of_item(&code, at + attribute.len());
                for (_, kind) in &mut self.characters[at..end] {
                    *kind = Kind::Test;
                }
                at = end;
            } else {
                at += 1;
            }
        }
    }
}

/// The end of the item that starts at a place in the code, perhaps with further attributes. An item
/// ends with its block or with `;`; a field, an arm or a variant ends with `,`.
fn end_of_item(code: &[char], mut at: usize) -> usize {
    while let Some(next) = (at..code.len()).find(|n| !code[*n].is_whitespace())
        && code[next] == '#'
    {
        at = end_of_brackets(code, next);
    }
    let word: String = code[at..]
        .iter()
        .skip_while(|c| c.is_whitespace())
        .take_while(|c| c.is_alphanumeric() || **c == '_')
        .collect();
    let is_item = [
        "pub",
        "fn",
        "mod",
        "use",
        "const",
        "static",
        "struct",
        "enum",
        "impl",
        "type",
        "trait",
        "let",
        "unsafe",
        "extern",
        "macro_rules",
    ]
    .contains(&word.as_str());
    while at < code.len() {
        match code[at] {
            ';' => return at + 1,
            ',' if !is_item => return at + 1,
            '{' => {
                let end = end_of_brackets(code, at);
                let next = (end..code.len()).find(|n| !code[*n].is_whitespace());
                return match next {
                    Some(next) if [';', ','].contains(&code[next]) => next + 1,
                    _ => end,
                };
            }
            '(' | '[' => at = end_of_brackets(code, at),
            _ => at += 1,
        }
    }
    at
}

/// One past the bracket that closes the first one at or after a place.
pub fn end_of_brackets(code: &[char], from: usize) -> usize {
    let mut depth = 0;
    for (at, c) in code.iter().enumerate().skip(from) {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' if depth == 1 => return at + 1,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

/// The kind of each character of a Rust file. Block comments are not recognised; the sources have
/// none.
fn classify(text: &str) -> Vec<(char, Kind)> {
    let all: Vec<char> = text.chars().collect();
    let mut kinds = vec![Kind::Code; all.len()];
    let mut at = 0;
    while at < all.len() {
        let rest = &all[at..];
        let (kind, length) = if rest.starts_with(&['/', '/']) {
            (
                Kind::Comment,
                rest.iter().take_while(|c| **c != '\n').count(),
            )
        } else if rest[0] == '"' {
            (Kind::Quoted, quoted(rest))
        } else if let Some(length) = raw_string(&all, at) {
            (Kind::Quoted, length)
        } else if let Some(length) = character(rest) {
            (Kind::Quoted, length)
        } else {
            (Kind::Code, 1)
        };
        // The delimiters are code, so that a string does not read as a gap.
        let inside = if kind == Kind::Quoted {
            at + 1..at + length - 1
        } else {
            at..at + length
        };
        kinds[inside].fill(kind);
        at += length;
    }
    all.into_iter().zip(kinds).collect()
}

/// The length of the string that starts here, quotes included.
fn quoted(rest: &[char]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != '"' {
        at += if rest[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// The length of `r"…"`, `r#"…"#`, `br"…"` and so on from its `r`.
fn raw_string(all: &[char], at: usize) -> Option<usize> {
    let part_of_a_name = |c: char| c.is_alphanumeric() || c == '_';
    let before = at.checked_sub(1).map(|n| all[n]);
    if all[at] != 'r' || before.is_some_and(|c| part_of_a_name(c) && c != 'b') {
        return None;
    }
    let hashes = all[at + 1..].iter().take_while(|c| **c == '#').count();
    if all.get(at + 1 + hashes) != Some(&'"') {
        return None;
    }
    let end: Vec<char> = std::iter::once('"').chain(vec!['#'; hashes]).collect();
    let body = &all[at + 2 + hashes..];
    let length = body.windows(end.len()).position(|w| w == end)?;
    Some(2 + hashes + length + end.len())
}

/// The length of a character literal such as `'a'` or `'\n'`; `None` for a lifetime.
fn character(rest: &[char]) -> Option<usize> {
    match rest {
        ['\'', '\\', _, tail @ ..] => Some(4 + tail.iter().position(|c| *c == '\'')?),
        ['\'', _, '\'', ..] => Some(3),
        _ => None,
    }
}

/// A word or a mark of the code, and its line.
#[derive(Clone, Copy, Debug)]
pub struct Token<'a> {
    pub text: &'a str,
    /// From 1.
    pub line: usize,
}

/// The words and marks of the code: names and numbers whole, `::` as one mark, every other mark by
/// itself.
pub fn tokens(code: &str) -> Vec<Token<'_>> {
    let mut found = vec![];
    for (n, text) in code.lines().enumerate() {
        let mut rest = text.trim_start();
        while let Some(first) = rest.chars().next() {
            let named = rest
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            let length = match named {
                0 if rest.starts_with("::") => 2,
                0 => first.len_utf8(),
                named => named,
            };
            let (text, after) = rest.split_at(length);
            found.push(Token { text, line: n + 1 });
            rest = after.trim_start();
        }
    }
    found
}

/// Compares the counts with a file beside this one; with BLESS=1, writes the file first.
pub fn hold(counted: &str, name: &str) {
    let path = root().join("tests/e2e").join(name);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, counted).unwrap();
    }
    let recorded = read(&path);
    let path = path.display();
    assert_eq!(
        counted, recorded,
        "not what {path} holds; counted:\n{counted}"
    );
}
