//! The dependencies between the files of src/: the arrows of the structure point down, and no files
//! import each other in a circle.
//!
//! An arrow is a path in the program's code, in a `use` or elsewhere: it leads from the file to
//! the file that defines the item, not to a module that only exports it again. `mod name;` and
//! calls of methods are not arrows.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{Source, Token, program, tokens};

/// The parts that each part of src/ may use, from top to bottom: only parts that follow it. A part
/// is a folder or a file of src/.
const ARROWS: [(&str, &[&str]); 15] = [
    (
        "main",
        &[
            "explain",
            "supervisor",
            "cli",
            "config",
            "log",
            "error",
            "sys",
            "exit",
            "signal",
        ],
    ),
    (
        "explain",
        &["config", "report", "policy", "sender", "signal"],
    ),
    (
        "supervisor",
        &[
            "config", "report", "policy", "log", "error", "sys", "sender", "process", "exit",
            "signal",
        ],
    ),
    (
        "cli",
        &[
            "config", "policy", "log", "error", "exit", "signal", "suggest",
        ],
    ),
    ("config", &["policy", "log", "error", "exit", "signal"]),
    (
        "report",
        &[
            "policy", "log", "error", "sender", "process", "exit", "signal",
        ],
    ),
    ("policy", &["sender", "exit", "signal"]),
    ("log", &["error", "sys", "suggest"]),
    ("error", &["exit"]),
    ("sys", &["sender", "process", "exit", "signal"]),
    ("sender", &["exit", "signal"]),
    ("process", &[]),
    ("exit", &["signal"]),
    ("signal", &["suggest"]),
    ("suggest", &[]),
];
/// The one arrow upwards: the C library's `main` calls the program.
const UPWARDS: (&str, &str) = ("sys/entry.rs", "main.rs");

/// The facts about a file that are needed to follow a path through it.
#[derive(Default)]
struct Module {
    file: String,
    children: Vec<String>,
    /// Each name that a `use` imports, and the path that it stands for.
    names: Vec<(String, Vec<String>)>,
    /// The modules of which a `use` imports everything.
    globs: Vec<Vec<String>>,
    /// The names that the file defines.
    items: BTreeSet<String>,
    /// The paths in its code outside of `use`.
    paths: Vec<Vec<String>>,
}

type Modules = BTreeMap<Vec<String>, Module>;

/// `sys/tree/mod.rs` is the module `sys::tree`.
fn module_path(file: &str) -> Vec<String> {
    let file = file.trim_end_matches(".rs");
    let names = file
        .split('/')
        .filter(|name| !["main", "mod"].contains(name));
    names.map(str::to_owned).collect()
}

fn is_name(token: &Token<'_>) -> bool {
    token
        .text
        .starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Takes the tree of a `use` apart, from a place in the code to its end. Every leaf is a name and a
/// path; a glob has the name `*`. Returns the end of the tree.
fn leaves(
    words: &[Token<'_>],
    mut at: usize,
    stem: &[String],
    found: &mut Vec<(String, Vec<String>)>,
) -> usize {
    let mut path = stem.to_vec();
    let mut name = None;
    while at < words.len() {
        match words[at].text {
            "::" => {}
            "{" => {
                at += 1;
                while words[at].text != "}" {
                    at = leaves(words, at, &path, found);
                    at += usize::from(words[at].text == ",");
                }
                return at + 1;
            }
            "as" => {
                name = Some(words[at + 1].text.to_owned());
                at += 1;
            }
            // In braces, `self` is the module before them.
            "self" if !path.is_empty() => {}
            "*" => name = Some("*".to_owned()),
            _ if is_name(&words[at]) => path.push(words[at].text.to_owned()),
            _ => break,
        }
        at += 1;
    }
    let last = path.last().cloned().unwrap_or_default();
    found.push((name.unwrap_or(last), path));
    at
}

fn read_module(file: &str, text: &str) -> Module {
    let source = Source::new(text);
    let code = source.code();
    let words = tokens(&code);
    let mut module = Module {
        file: file.to_owned(),
        children: source.modules(),
        ..Module::default()
    };
    let mut at = 0;
    while at < words.len() {
        let word = &words[at];
        let before = at.checked_sub(1).map_or("", |n| words[n].text);
        if word.text == "use" {
            let mut found = vec![];
            at = leaves(&words, at + 1, &[], &mut found);
            for (name, path) in found {
                if name == "*" {
                    module.globs.push(path);
                } else {
                    module.names.push((name, path));
                }
            }
            continue;
        }
        let defines = [
            "fn", "struct", "enum", "const", "static", "type", "trait", "!",
        ];
        if defines.contains(&before) && is_name(word) {
            module.items.insert(word.text.to_owned());
        }
        // `pub(in crate::sys)` does not use the module.
        if is_name(word) && !["::", ".", "in"].contains(&before) {
            let mut path = vec![word.text.to_owned()];
            while words.get(at + 1).is_some_and(|next| next.text == "::")
                && words.get(at + 2).is_some_and(is_name)
            {
                path.push(words[at + 2].text.to_owned());
                at += 2;
            }
            if path.len() > 1 {
                module.paths.push(path);
            }
        }
        at += 1;
    }
    module
}

/// A path as written in a module, from the root of the crate; `None` for other crates.
fn absolute(modules: &Modules, place: &[String], path: &[String]) -> Option<Vec<String>> {
    let module = &modules[place];
    let (mut from, mut rest) = (place.to_vec(), path);
    let named = module.names.iter().find(|(name, _)| *name == path[0]);
    match path[0].as_str() {
        "crate" => {
            from.clear();
            rest = &path[1..];
        }
        "self" => rest = &path[1..],
        "super" => {
            while rest.first().is_some_and(|first| first == "super") {
                from.pop();
                rest = &rest[1..];
            }
        }
        name if module.children.iter().any(|child| child == name) => {}
        _ => {
            // `use nix;` imports a crate by its own name.
            let (_, used) = named.filter(|(_, used)| used[0] != path[0])?;
            from = absolute(modules, place, used)?;
            rest = &path[1..];
        }
    }
    Some([&from, rest].concat())
}

/// The module that defines the item of an absolute path; `None` for a module itself, whose items
/// have their own paths.
fn definer(modules: &Modules, path: &[String]) -> Option<Vec<String>> {
    let depth = (0..=path.len())
        .rev()
        .find(|depth| modules.contains_key(&path[..*depth]))?;
    let (place, rest) = path.split_at(depth);
    let (module, item) = (&modules[place], rest.first()?);
    let exported = module.names.iter().find(|(name, _)| name == item);
    if let Some((_, used)) = exported
        && let Some(path) = absolute(modules, place, used)
        && path != [place, &rest[..1]].concat()
    {
        return definer(modules, &path);
    }
    for glob in &module.globs {
        if let Some(from) = absolute(modules, place, glob)
            && modules.get(&from).is_some_and(|m| m.items.contains(item))
        {
            return Some(from);
        }
    }
    Some(place.to_vec())
}

/// The arrows (from, to) between files, each with one path that makes it.
fn arrows(modules: &Modules) -> BTreeMap<(String, String), String> {
    let mut found = BTreeMap::new();
    for (place, module) in modules {
        let named = module.names.iter().map(|(_, path)| path);
        let named = named.chain(&module.paths).filter_map(|path| {
            let to = definer(modules, &absolute(modules, place, path)?)?;
            Some((path, to))
        });
        let globs = module.globs.iter().filter_map(|path| {
            let to = absolute(modules, place, path)?;
            modules.contains_key(&to).then_some((path, to))
        });
        for (path, to) in named.chain(globs).filter(|(_, to)| to != place) {
            let arrow = (module.file.clone(), modules[&to].file.clone());
            found.entry(arrow).or_insert_with(|| path.join("::"));
        }
    }
    found.remove(&(UPWARDS.0.to_owned(), UPWARDS.1.to_owned()));
    found
}

fn modules() -> Modules {
    program()
        .iter()
        .map(|(file, text)| (module_path(file), read_module(file, text)))
        .collect()
}

/// The part of src/ that a file belongs to.
fn part(file: &str) -> &str {
    file.split('/').next().unwrap().trim_end_matches(".rs")
}

#[test]
fn the_arrows_of_the_structure_point_down() {
    for (at, (part, may)) in ARROWS.iter().enumerate() {
        let below: Vec<_> = ARROWS[at + 1..].iter().map(|(name, _)| name).collect();
        let upwards: Vec<_> = may.iter().filter(|name| !below.contains(name)).collect();
        assert!(upwards.is_empty(), "{part} may use {upwards:?} above it");
    }
    let mut wrong = vec![];
    for ((from, to), path) in arrows(&modules()) {
        let (part, other) = (part(&from), part(&to));
        let may = ARROWS.iter().find(|(name, _)| *name == part);
        let may = may.unwrap_or_else(|| panic!("{part} has no line in ARROWS"));
        if part != other && !may.1.contains(&other) {
            wrong.push(format!("{from} -> {to} ({path})"));
        }
    }
    assert!(wrong.is_empty(), "not in ARROWS: {wrong:#?}");
}

/// Every file that arrows reach from this one.
fn reached<'a>(
    from: &'a str,
    arrows: &'a BTreeMap<(String, String), String>,
    found: &mut BTreeSet<&'a str>,
) {
    for (_, to) in arrows.keys().filter(|(start, _)| start == from) {
        if found.insert(to) {
            reached(to, arrows, found);
        }
    }
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let arrows = arrows(&modules());
    let mut circles = vec![];
    for ((from, to), path) in &arrows {
        let mut back = BTreeSet::new();
        reached(to, &arrows, &mut back);
        if back.contains(from.as_str()) {
            circles.push(format!("{from} -> {to} ({path})"));
        }
    }
    assert!(circles.is_empty(), "in circles: {circles:#?}");
}

/// Every kind of path is followed to the file that defines its item.
#[test]
fn a_path_leads_to_the_file_that_defines_the_item() {
    let files = [
        ("main.rs", "mod a;\nmod b;\nfn main() { b::run() }"),
        (
            "a/mod.rs",
            "mod inner;\nmod other;\npub use inner::Deep;\npub use other::*;\nuse crate::b as renamed;\n\
             fn f() { renamed::run(); inner::g() }\n#[cfg(test)]\nmod tests { use crate::b::Unseen; }",
        ),
        (
            "a/inner.rs",
            "pub struct Deep;\npub fn g(_: super::other::Wide) {}",
        ),
        (
            "a/other.rs",
            "pub struct Wide;\n// crate::b::run\nconst TEXT: &str = \"crate::b::run\";",
        ),
        (
            "b.rs",
            "use crate::a::{self, Deep};\npub fn run(_: Deep, _: a::Wide) {}",
        ),
    ];
    let modules = files
        .iter()
        .map(|(file, text)| (module_path(file), read_module(file, text)))
        .collect();
    let found = arrows(&modules);
    let found: Vec<_> = found
        .keys()
        .map(|(from, to)| (from.as_str(), to.as_str()))
        .collect();
    assert_eq!(
        found,
        [
            ("a/inner.rs", "a/other.rs"),
            ("a/mod.rs", "a/inner.rs"),
            ("a/mod.rs", "a/other.rs"),
            ("a/mod.rs", "b.rs"),
            ("b.rs", "a/inner.rs"),
            ("b.rs", "a/other.rs"),
            ("main.rs", "b.rs"),
        ]
    );
}
