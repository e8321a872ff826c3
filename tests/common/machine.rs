//! Checks the machine's /dev, which no test may change: a change breaks unrelated programs and the
//! next test suite.
//!
//! Each suite that uses this harness checks /dev before `main`, at each start and end of a program,
//! and at its own end. A test that damages /dev on purpose does so in its own mount namespace
//! (`probe ns --own-dev`).

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::OnceLock;

/// The usual entries of /dev, each checked only where it exists: devices with their numbers, links
/// without.
const KNOWN: [(&str, Option<(u32, u32)>); 10] = [
    ("null", Some((1, 3))),
    ("zero", Some((1, 5))),
    ("full", Some((1, 7))),
    ("random", Some((1, 8))),
    ("urandom", Some((1, 9))),
    ("tty", Some((5, 0))),
    ("fd", None),
    ("stdin", None),
    ("stdout", None),
    ("stderr", None),
];

/// One line for each known entry, and for each regular file in /dev.
fn look() -> Vec<String> {
    let mut names: Vec<String> = KNOWN.iter().map(|(name, _)| (*name).into()).collect();
    for entry in fs::read_dir("/dev").into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_file()) {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    names.dedup();
    names
        .iter()
        .map(|name| describe(&Path::new("/dev").join(name)))
        .collect()
}

fn describe(path: &Path) -> String {
    let name = path.display();
    match (fs::symlink_metadata(path), fs::read_link(path)) {
        (Err(error), _) => format!("{name}: {error}"),
        (Ok(_), Ok(target)) => format!("{name}: a link to {}", target.display()),
        (Ok(found), Err(_)) => {
            let (mode, device) = (found.mode(), found.rdev());
            format!(
                "{name}: mode {mode:o}, device {}:{}",
                libc::major(device),
                libc::minor(device)
            )
        }
    }
}

/// The known entries that have the wrong type or number, regardless of the state at the start.
fn broken() -> Vec<String> {
    let is_right = |name: &str, device: Option<(u32, u32)>| {
        let Ok(found) = fs::symlink_metadata(Path::new("/dev").join(name)) else {
            return true;
        };
        let kind = found.file_type();
        let numbers = || (libc::major(found.rdev()), libc::minor(found.rdev()));
        device.map_or(kind.is_symlink(), |device| {
            kind.is_char_device() && numbers() == device
        })
    };
    let wrong = KNOWN
        .iter()
        .filter(|(name, device)| !is_right(name, *device));
    wrong
        .map(|(name, _)| describe(&Path::new("/dev").join(name)))
        .collect()
}

static BEFORE: OnceLock<Vec<String>> = OnceLock::new();

/// The changes since the suite began.
fn changed() -> Vec<String> {
    let (before, now) = (BEFORE.get_or_init(look), look());
    let gone = before
        .iter()
        .filter(|line| !now.contains(line))
        .map(|line| format!("was: {line}"));
    let new = now
        .iter()
        .filter(|line| !before.contains(line))
        .map(|line| format!("is:  {line}"));
    gone.chain(new).collect()
}

const DAMAGED: &str =
    "the tests have DAMAGED THIS MACHINE's /dev: put it right before anything else";

/// Fails the test if /dev has changed.
pub fn check() {
    let changed = changed();
    if !changed.is_empty() {
        eprintln!("{DAMAGED}: {changed:#?}");
        assert!(std::thread::panicking(), "{DAMAGED}: {changed:#?}");
    }
}

extern "C" fn at_start() {
    let broken = broken();
    if !broken.is_empty() {
        eprintln!(
            "this machine's /dev is damaged already, and no test can be trusted: {broken:#?}"
        );
        std::process::exit(101);
    }
    BEFORE.get_or_init(look);
    // SAFETY: a function that lives as long as the program.
    unsafe { libc::atexit(at_end) };
}

extern "C" fn at_end() {
    let changed = changed();
    if !changed.is_empty() {
        eprintln!("{DAMAGED}: {changed:#?}");
        // SAFETY: ends the process.
        unsafe { libc::_exit(101) }
    }
}

/// Called before `main` (elf(5), `DT_INIT_ARRAY`), so that no suite has to call it.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_START: extern "C" fn() = at_start;
