//! The report and the termination message, when the child has put another object in their places:
//! bowout does not hang, and writes to no other user's file.

use std::fs;

use crate::common::{Dir, Home, Start, Status, homes, not_root, skip};

const VICTIM: &str = "the words of somebody else\n";

/// Runs bowout with this option in a folder with two files of another user; the child runs the
/// script. Returns the folder, the names of its further files, and the log without its routine
/// lines.
fn run(home: Home, option: &str, script: &str) -> (Dir, Vec<String>, Vec<String>) {
    let dir = Dir::new();
    dir.write("victim", VICTIM, 0o600);
    dir.write("empty", "", 0o600);
    dir.write("t", "", 0o600);
    fs::create_dir(dir.file("f")).expect("a directory");
    let script = format!("set -e; {script}; exit 3");
    let mut bowout = Start::new(["-v", option])
        .at(home)
        .dir(&dir.0)
        .command(["sh", "-c", &script]);
    assert_eq!(bowout.end(), Status::Code(3), "{script}");
    let mut log = bowout.log();
    assert!(
        log.iter().any(|line| line.contains("exited with 3")),
        "{script}: {log:#?}"
    );
    log.retain(|line| !line.contains("debug") && !line.contains("exited with 3"));
    assert_eq!(
        fs::read_to_string(dir.file("victim")).expect("there"),
        VICTIM,
        "{script}"
    );
    assert_eq!(
        fs::read_to_string(dir.file("empty")).expect("there"),
        "",
        "{script}"
    );
    let entries = fs::read_dir(&dir.0).expect("a directory").flatten();
    let mut left: Vec<_> = entries
        .map(|entry| entry.file_name().into_string().expect("text"))
        .collect();
    left.retain(|name| {
        !["victim", "empty", "t"].contains(&name.as_str()) && (name != "f" || option.contains("f/"))
    });
    left.sort();
    (dir, left, log)
}

/// Scripts that put another file, or a link to one, at this name.
fn others(name: &str) -> Vec<String> {
    let links = [
        "ln -s victim",
        "ln -s nowhere",
        "ln -s .",
        "ln -s /dev/full",
    ];
    links.map(|what| format!("{what} {name}")).into()
}

/// The same with objects that are neither a file nor a link.
fn no_files(name: &str) -> Vec<String> {
    let mut all: Vec<String> = ["mkfifo", "mkdir"]
        .map(|what| format!("{what} {name}"))
        .into();
    if not_root().is_none() {
        all.extend(["c 1 7", "c 5 0"].map(|device| format!("mknod {name} {device}")));
    }
    all
}

/// A file that the child has named `r` is replaced, and never written to.
#[test]
fn a_report_takes_the_place_of_another_file_and_harms_none() {
    for home in homes() {
        for script in [
            "ln victim r",
            "echo another >r",
            "echo another >r; chmod 0 r",
        ] {
            let (dir, left, log) = run(home, "--report=r", script);
            assert_eq!(
                (&left[..], log.len()),
                (&["r".to_owned()][..], 0),
                "{script}: {log:#?}"
            );
            assert!(
                fs::read_to_string(dir.file("r"))
                    .expect("there")
                    .starts_with('{'),
                "{script}"
            );
        }
    }
}

#[test]
fn another_object_in_the_reports_place_is_left_alone_and_the_report_is_beside_it() {
    for home in homes() {
        for script in [others("r"), no_files("r")].concat() {
            let (dir, left, log) = run(home, "--report=r", &script);
            assert!(
                matches!(&left[..], [_, r] if r == "r"),
                "{script}: {left:?}"
            );
            assert!(
                log.iter()
                    .any(|line| line.contains("cannot write report") && line.contains(&left[0])),
                "{log:#?}"
            );
            assert!(
                fs::read_to_string(dir.file(&left[0]))
                    .expect("there")
                    .starts_with('{'),
                "{script}"
            );
            assert!(
                !fs::symlink_metadata(dir.file("r"))
                    .expect("there")
                    .is_file(),
                "{script}"
            );
        }
    }
}

/// The child removes the folder, or moves it.
#[test]
fn a_report_whose_folder_the_child_has_taken_away_is_one_line() {
    for home in homes() {
        let (_dir, left, log) = run(home, "--report=f/r", "rmdir f");
        assert_eq!((left.len(), log.len()), (0, 1), "{log:#?}");
        // The report goes into the folder that bowout found at its start, even after the child
        // moved the folder and put a link in its place.
        let (dir, left, log) = run(home, "--report=f/r", "mv f g; mkdir h; ln -s h f");
        assert_eq!(
            (left, log.len()),
            (["f", "g", "h"].map(String::from).to_vec(), 0),
            "{log:#?}"
        );
        assert!(dir.file("g/r").is_file() && !dir.file("h/r").exists());
    }
}

#[test]
fn a_termination_message_goes_into_nothing_that_the_child_has_put_there() {
    if skip(not_root()) {
        return;
    }
    for home in homes() {
        let mut all = [others("t"), no_files("t")].concat();
        all.extend(["ln -s empty t", "ln victim t", "true"].map(Into::into));
        for script in all {
            let (dir, left, log) = run(home, "--termination-log=t", &format!("rm t; {script}"));
            assert_eq!(left.len(), 0, "{script}");
            assert!(log.is_empty(), "{script}: {log:#?}");
            let there = fs::symlink_metadata(dir.file("t"));
            assert!(
                there.is_err() || script != "true",
                "{script}: it is not made"
            );
        }
    }
}
