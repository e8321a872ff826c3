//! README.md, man/GUIDE.md, man/TOUR.md and man/stop.svg show bowout's output. The tests run every
//! example that can run anywhere, and compare. With `BLESS=1` they rewrite the outputs of the `sh`
//! blocks.
//!
//! A block with the language `sh` is run, and the next block, which has no language, is its output.
//! A `console` block that starts bowout and presses Ctrl-C is replayed on a terminal. The other
//! blocks are not run: `sh not-run`, records in `console` and `text`, and files.

use std::path::{Path, PathBuf};

use crate::common::pty::{CTRL_C, Shell};
use crate::common::{BOWOUT, Dir, Start};

const FENCE: &str = "```";

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(file(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A line without the parts that differ from run to run: PIDs, user IDs, and measured times.
/// Deadlines stay, rounded up to whole seconds: the rest of a running deadline is a little less.
fn mask(line: &str) -> String {
    // Remove the name after an exec(2), which can happen after the signal.
    let mut line = line.to_owned();
    while let Some((before, after)) = line.split_once(", now '") {
        let after = after.split_once('\'').expect("a quoted name").1;
        line = format!("{before}{after}");
    }
    let words: Vec<&str> = line.split(' ').collect();
    let is = |at: Option<usize>, wanted: &[&str]| {
        at.and_then(|at| words.get(at))
            .is_some_and(|word| wanted.contains(&word.trim_start_matches('(')))
    };
    let masked = words.iter().enumerate().map(|(at, word)| {
        let number = word.starts_with(|c: char| c.is_ascii_digit());
        let before = at.checked_sub(1);
        let time = word.trim_end_matches([',', ':', ';']).ends_with('s');
        let next = words.get(at + 1).copied().unwrap_or_default();
        let took = is(before, &["after", "for"])
            || next == "after"
            || next == "later"
            || next.starts_with("old")
            // The rest of a grace period that has begun.
            || (is(before, &["in"]) && word.contains("ms"));
        if (next == "pid" && word.ends_with('\'')) || is(before, &["state"]) {
            // A descendant's name differs before and after its exec(2), and its state can differ.
            return "X".to_owned();
        }
        if is(before, &["in"])
            && let Some((whole, rest)) = word.split_once('.')
            && let Ok(whole) = whole.parse::<u32>()
        {
            let mark = rest.trim_start_matches(|c: char| c.is_ascii_digit());
            return format!("{}{mark}", whole + 1);
        }
        if number && (time && took || is(before, &["pid", "uid"])) {
            format!(
                "N{}",
                word.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '.')
            )
        } else {
            (*word).to_owned()
        }
    });
    masked.collect::<Vec<_>>().join(" ")
}

/// A shell without a terminal writes such lines about a job; they are not bowout's.
fn is_ours(line: &str) -> bool {
    !["Killed", "Terminated"].contains(&line.trim())
}

pub fn run(script: &str) -> Vec<String> {
    // The documented first command builds bowout; here it is built already.
    let script = script.replace("cargo run --quiet -- ", "bowout ");
    let dir = Dir::new();
    let bowout = Path::new(BOWOUT).parent().expect("a directory");
    let path = format!(
        "{}:{}",
        bowout.display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let mut shell = Start::direct()
        .env("PATH", path)
        .dir(&dir.0)
        .sh(&format!("exec 2>&1\n{script}"));
    let lines = shell.out.rest();
    shell.wait();
    lines.into_iter().filter(|line| is_ours(line)).collect()
}

/// One fenced block: the language after its fence, its lines, and the index of its first line in
/// the text.
struct Block {
    language: String,
    lines: Vec<String>,
    first: usize,
}

fn blocks(text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut open = false;
    for (at, line) in text.lines().enumerate() {
        if let Some(language) = line.strip_prefix(FENCE) {
            if !open {
                blocks.push(Block {
                    language: language.into(),
                    lines: Vec::new(),
                    first: at + 1,
                });
            }
            open = !open;
        } else if open {
            blocks
                .last_mut()
                .expect("an open block")
                .lines
                .push(line.into());
        }
    }
    blocks
}

/// The numbers of blocks of a document that are run, replayed and not run.
#[derive(Debug, PartialEq)]
struct Count {
    run: usize,
    replayed: usize,
    not_run: usize,
}

const DOCUMENTS: [(&str, Count); 3] = [
    (
        "README.md",
        Count {
            run: 2,
            replayed: 0,
            not_run: 10,
        },
    ),
    (
        "man/GUIDE.md",
        Count {
            run: 7,
            replayed: 0,
            not_run: 23,
        },
    ),
    (
        "man/TOUR.md",
        Count {
            run: 16,
            replayed: 1,
            not_run: 10,
        },
    ),
];

/// The languages of blocks that are not run: files, and output from elsewhere.
const NOT_RUN: [&str; 8] = [
    "sh not-run",
    "console",
    "text",
    "dockerfile",
    "hcl",
    "ini",
    "json",
    "yaml",
];

fn is_replayed(block: &Block) -> bool {
    let has = |key: &str| block.lines.iter().any(|line| line.starts_with(key));
    block.language == "console" && block.lines[0].starts_with("$ bowout") && has("^C") && !has("^Z")
}

/// The `sh` blocks of a document, each with the block of its output.
fn scripts(name: &str, blocks: &[Block]) -> Vec<(usize, usize)> {
    let mut scripts = Vec::new();
    for (at, block) in blocks.iter().enumerate() {
        let language = block.language.as_str();
        let is_script = |at: usize| blocks[at].language == "sh";
        match language {
            "sh" => {
                let shown = blocks.get(at + 1).is_some_and(|b| b.language.is_empty());
                assert!(shown, "{name}:{}: the block has no output", block.first);
                scripts.push((at, at + 1));
            }
            "" => assert!(
                at > 0 && is_script(at - 1),
                "{name}:{}: an output without a command",
                block.first
            ),
            _ => assert!(
                NOT_RUN.contains(&language),
                "{name}:{}: unknown language {language}",
                block.first
            ),
        }
    }
    scripts
}

fn shows_the_printed_output(name: &str) {
    let text = read(name);
    let blocks = blocks(&text);
    let scripts = scripts(name, &blocks);
    let mut new: Vec<String> = text.lines().map(Into::into).collect();
    // From the end, so that the earlier line numbers stay valid.
    for (script, shown) in scripts.iter().rev() {
        let (script, shown) = (blocks[*script].lines.join("\n"), &blocks[*shown]);
        let printed = run(&script);
        if std::env::var_os("BLESS").is_some() {
            new.splice(shown.first..shown.first + shown.lines.len(), printed);
            continue;
        }
        let masked = |lines: &[String]| lines.iter().map(|line| mask(line)).collect::<Vec<_>>();
        assert_eq!(masked(&printed), masked(&shown.lines), "{name}: {script}");
    }
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(file(name), new.join("\n") + "\n").expect("the document is written");
    }
}

#[test]
fn the_tour_shows_the_printed_output() {
    shows_the_printed_output("man/TOUR.md");
}

#[test]
fn readme_shows_the_printed_output() {
    shows_the_printed_output("README.md");
}

#[test]
fn the_guide_shows_the_printed_output() {
    shows_the_printed_output("man/GUIDE.md");
}

/// Ensures that no block stops being run because its language was changed.
#[test]
fn each_block_of_the_documents_is_run_or_says_that_it_is_not() {
    for (name, expected) in DOCUMENTS {
        let text = read(name);
        let blocks = blocks(&text);
        let run = scripts(name, &blocks).len();
        let replayed = blocks.iter().filter(|block| is_replayed(block)).count();
        let not_run = blocks.len() - 2 * run - replayed;
        let count = Count {
            run,
            replayed,
            not_run,
        };
        println!("{name}: {count:?}");
        assert_eq!(count, expected, "{name}");
    }
}

/// Each line in README's table also appears in a block of the documents.
#[test]
fn the_table_of_lines_has_lines_that_were_printed() {
    let readme = read("README.md");
    let texts = DOCUMENTS.map(|(name, _)| read(name));
    let shown: Vec<_> = texts
        .iter()
        .flat_map(|text| blocks(text))
        .flat_map(|block| block.lines)
        .map(|line| mask(line.trim_start_matches("^C").trim_start_matches("bowout: ")))
        .collect();
    let mut rows = 0;
    let table = readme
        .split("\n| Event | Level | Line |\n")
        .nth(1)
        .expect("the table");
    for row in table
        .lines()
        .skip(1)
        .take_while(|line| line.starts_with('|'))
    {
        let cells: Vec<_> = row.split(" | ").collect();
        let line = cells[2].trim_end_matches(" |").trim_matches('`');
        assert!(shown.contains(&mask(line)), "{line}: in no block");
        assert!(["info", "warn", "error"].contains(&cells[1]), "{row}");
        rows += 1;
    }
    assert_eq!(rows, 11, "rows");
}

/// Each link to a file of the repository, and to a part of a document, has a target.
#[test]
fn each_link_of_the_documents_leads_to_a_file_and_a_part() {
    let documents = DOCUMENTS.map(|(name, _)| name);
    let mut seen = 0;
    for name in documents
        .into_iter()
        .chain(["benches/README.md", "man/STABILITY.md"])
    {
        let text = read(name);
        for link in text
            .split("](")
            .skip(1)
            .map(|rest| rest.split(')').next().unwrap_or_default())
        {
            if link.starts_with("http") {
                continue;
            }
            let (path, part) = link.split_once('#').unwrap_or((link, ""));
            let here = file(name);
            let target = match path {
                "" => here,
                _ => here.parent().expect("a folder").join(path),
            };
            assert!(target.exists(), "{name}: {link}");
            if !part.is_empty() {
                let text = std::fs::read_to_string(&target).expect("text");
                assert!(parts(&text).iter().any(|p| p == part), "{name}: {link}");
            }
            seen += 1;
        }
    }
    assert!(seen > 40, "{seen} links");
}

/// The headings of a document, in the form that a link uses.
fn parts(text: &str) -> Vec<String> {
    let mut inside = false;
    let headings = text.lines().filter_map(|line| {
        inside ^= line.starts_with(FENCE);
        let heading = line.trim_start_matches('#');
        (!inside && heading.len() < line.len()).then(|| heading.trim().to_lowercase())
    });
    headings
        .map(|heading| {
            heading
                .chars()
                .filter(|c| c.is_alphanumeric() || *c == ' ' || *c == '-')
                .map(|c| if c == ' ' { '-' } else { c })
                .collect()
        })
        .collect()
}

/// Types each line after `$ `, and compares the output. Presses `^C` when all output before it has
/// been seen.
fn replay(transcript: &[String]) {
    let mut shell = Shell::start();
    for line in transcript {
        if let Some(typed) = line.strip_prefix("$ ") {
            shell.line(typed);
            continue;
        }
        if line.starts_with("^C") {
            shell.0.type_keys(CTRL_C);
        }
        let seen = shell.0.see("\n");
        // The kernel sends the signal first, and then echoes the key.
        let plain = |text: &str| mask(text.replace("^C", "").trim_end());
        assert_eq!(plain(&seen), plain(line), "in {transcript:#?}");
    }
    shell.prompt();
}

#[test]
fn the_tour_shows_the_output_on_a_terminal() {
    let text = read("man/TOUR.md");
    let keys: Vec<Block> = blocks(&text).into_iter().filter(is_replayed).collect();
    assert_eq!(keys.len(), 1, "blocks with Ctrl-C");
    for block in keys {
        replay(&block.lines);
    }
}

/// The rows of the drawing; a row that is indented by four spaces continues the row before it.
fn drawn(svg: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for row in svg.lines().filter(|line| line.contains("mono\" x=")) {
        let row = row
            .split_once("\"preserve\">")
            .and_then(|(_, rest)| rest.strip_suffix("</text>"))
            .expect("a row");
        let row = row
            .replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&amp;", "&");
        match (row.strip_prefix("    "), lines.last_mut()) {
            (Some(rest), Some(line)) => *line += &format!(" {rest}"),
            _ => lines.push(row),
        }
    }
    lines
}

#[test]
fn the_drawing_of_a_stop_shows_the_output_on_a_terminal() {
    let mut lines = drawn(&read("man/stop.svg"));
    assert_eq!(lines.pop().as_deref(), Some("$"), "{lines:#?}");
    assert!(
        lines.len() >= 5 && lines[0].starts_with("$ bowout"),
        "{lines:#?}"
    );
    replay(&lines);
}

#[test]
fn a_mask_hides_numbers_and_no_words() {
    let line = "bowout: 'sh' (pid 97) exited with 143 after 1.2s, 4ms after SIGTERM from pid 1 'x' (uid 0, manager), SIGKILL in 8s";
    let masked = "bowout: 'sh' (pid N) exited with 143 after N, N after SIGTERM from pid N 'x' (uid N, manager), SIGKILL in 8s";
    assert_eq!(mask(line), masked);
    assert_eq!(mask("SIGKILL in 5.9s; 1.5s old"), "SIGKILL in 6s; N old");
    assert_eq!(mask("SIGKILL in 5s (default)"), "SIGKILL in 5s (default)");
}
