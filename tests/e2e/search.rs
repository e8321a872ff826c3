//! The file that is executed, and the error if there is none: as with execvp(3), which the probe
//! calls, and with a reason that helps.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use crate::common::{BOWOUT, Dir, Running, Start, Status, homes, no_strace, probe, size, skip};

/// Pseudo-random numbers that are the same in each run (xorshift64).
struct Seed(u64);

impl Seed {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// The number of kinds of file under the name `tool`.
const FILES: u64 = 10;
/// Modes for owner, group and others. The user that executes a script must be able to read it.
const MODES: [u32; 8] = [0o755, 0o711, 0o111, 0o100, 0o010, 0o001, 0o744, 0o000];

fn put(seed: &mut Seed, root: &Dir, dir: &str, kind: u64) {
    let name = format!("{dir}tool");
    let tool = root.file(&name);
    let script = |text: &str, mode: u32| drop(root.write(&name, text, mode));
    match kind {
        0 | 1 => {}
        2 => script("#!/bin/sh\necho run $0\n", 0o755),
        3 => script("#!/bin/sh\necho run $0\n", 0o644),
        4 => script("echo run $0\n", 0o755),
        5 => script("#!/no/such/interpreter\n", 0o755),
        6 => fs::create_dir(&tool).expect("a directory"),
        7 => symlink("/no/such/file", &tool).expect("a link"),
        8 => script("#!/bin/sh\necho run $0\n", MODES[seed.below(8) as usize]),
        _ => symlink("tool", &tool).expect("a link to itself"),
    }
}

/// An element of PATH, for a directory of the test.
fn element(seed: &mut Seed, root: &Dir, number: usize) -> OsString {
    let dir = root.file(&number.to_string());
    // The same directory, by an absolute or a relative name.
    let named = |seed: &mut Seed| {
        if seed.below(4) == 0 {
            number.to_string().into()
        } else {
            root.file(&number.to_string()).into()
        }
    };
    match seed.below(14) {
        // A path longer than PATH_MAX, which execvp(3) skips. It is never the first element,
        // because glibc sets no error if PATH has no other.
        0 if number > 0 => format!("/{}", "x".repeat(5000)).into(),
        0 | 1 => root.file("nowhere").into(),
        2 => {
            fs::write(&dir, "").expect("a file where a directory should be");
            dir.into()
        }
        3 => {
            fs::create_dir(&dir).expect("a directory");
            put(seed, root, &format!("{number}/"), 2);
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o600)).expect("a mode");
            named(seed)
        }
        // The working directory.
        4 => OsString::new(),
        5 => ".".into(),
        _ => {
            fs::create_dir(&dir).expect("a directory");
            let kind = seed.below(FILES);
            put(seed, root, &format!("{number}/"), kind);
            named(seed)
        }
    }
}

/// The result: the output lines of the executed file, or the exit code that the error of execvp(3)
/// means. `Unread` is the exit of a shell that may execute its script and not read it.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Run(Vec<String>),
    Not(i32),
    Unread,
}

fn outcome(mut running: Running, direct: bool) -> Outcome {
    let lines = running.out.rest();
    match running.wait() {
        Status::Code(0) => Outcome::Run(lines),
        // The probe reports that execvp failed.
        Status::Code(98) if direct => {
            let log = running.log();
            let absent = ["os error 2)", "os error 20)"]
                .iter()
                .any(|error| log[0].ends_with(error));
            Outcome::Not(if absent { 127 } else { 126 })
        }
        Status::Code(code @ 126..=127) if !direct => Outcome::Not(code),
        Status::Code(2) => Outcome::Unread,
        other => panic!("{other:?}: {lines:?} {:#?}", running.log()),
    }
}

#[test]
fn path_is_searched_as_by_execvp() {
    let mut seed = Seed(0x2545_f491_4f6c_dd1d);
    // The numbers of cases: executed, not found, found but not executed.
    let mut met = [0; 3];
    for case in 0..size(400, 6000) {
        let root = Dir::new();
        fs::set_permissions(&root.0, fs::Permissions::from_mode(0o755)).expect("a mode");
        let elements: Vec<OsString> = (0..=seed.below(4) as usize)
            .map(|n| element(&mut seed, &root, n))
            .collect();
        let kind = seed.below(3 * FILES);
        // After an element that is too long, glibc searches the working directory, which PATH does
        // not name.
        if kind < FILES && elements.iter().all(|element| element.len() < 4096) {
            put(&mut seed, &root, "", kind);
        }
        let path = elements.join(OsStr::new(":"));
        // Sometimes a user that may not search a directory of mode 0600; root may.
        let user: &[&str] = if seed.below(3) == 0 && crate::common::not_root().is_none() {
            &["--uid", "65534"]
        } else {
            &[]
        };
        let name: OsString = match seed.below(16) {
            0 => root.file("0/tool").into(),
            1 => "0/tool".into(),
            2 => "./tool".into(),
            _ => "tool".into(),
        };
        let run = |start: Start, direct: bool| {
            let set_up = user.iter().copied().chain(["--umask", "18"]);
            outcome(
                start
                    .dir(&root.0)
                    .env("PATH", &path)
                    .with(set_up)
                    .command([&name]),
                direct,
            )
        };
        let mut expected = run(Start::direct(), true);
        // execvp(3) reports ENOENT also for a file whose interpreter is missing, although the file
        // was found.
        let candidates = elements.iter().map(|dir| root.0.join(dir).join("tool"));
        let mut candidates = if name == "tool" {
            candidates.collect()
        } else {
            vec![root.0.join(&name)]
        }
        .into_iter();
        let is_found =
            candidates.any(|path| fs::read(path).is_ok_and(|text| text.starts_with(b"#!/no/")));
        if is_found && expected == Outcome::Not(127) {
            expected = Outcome::Not(126);
        }
        assert_eq!(
            run(Start::new(["-q"]), false),
            expected,
            "case {case}: {path:?} {}",
            name.display()
        );
        met[match expected {
            Outcome::Run(_) | Outcome::Unread => 0,
            Outcome::Not(127) => 1,
            Outcome::Not(_) => 2,
        }] += 1;
    }
    println!("{met:?} executed, not found, not executed");
    assert!(met.iter().all(|times| *times >= 20), "{met:?}");
}

/// glibc ends the search at a name that is too long for a directory; other C libraries and shells
/// do not.
#[test]
fn a_name_that_no_directory_holds_does_not_end_the_search() {
    let dir = Dir::new();
    dir.write("tool", "#!/bin/sh\nexit 3\n", 0o755);
    for long in [256, 4000, 4096, 5000] {
        let path = format!("/{}:{}", "x".repeat(long), dir.0.display());
        assert_eq!(
            Start::plain().env("PATH", &path).command(["tool"]).end(),
            Status::Code(3),
            "{long}"
        );
        refused(
            Start::plain().env("PATH", &path).command(["missing"]),
            127,
            "No such file or directory",
        );
    }
    refused(
        Start::plain()
            .env("PATH", "x".repeat(5000))
            .command(["tool"]),
        127,
        "No such file or directory",
    );
    let long = "x".repeat(300);
    refused(Start::plain().command([&long]), 126, "too long");
    refused(
        Start::plain().command([format!("/{long}")]),
        126,
        "too long",
    );
}

/// strace(1) makes the kernel return these errors for an existing file. Another such file is in the
/// next directory.
#[test]
fn the_search_goes_on_after_the_errors_after_which_execvp_goes_on() {
    if skip(no_strace()) {
        return;
    }
    let (first, second) = (Dir::new(), Dir::new());
    let injected = first.write("tool", "#!/bin/sh\nexit 4\n", 0o755);
    second.write("tool", "#!/bin/sh\nexit 3\n", 0o755);
    let path = format!(
        "{}:{}:{}",
        first.0.display(),
        second.0.display(),
        std::env::var("PATH").expect("a PATH")
    );
    let (injected, probe) = (
        injected.to_str().expect("text"),
        probe().to_str().expect("text"),
    );
    let run = |error: &str, words: &[&str]| {
        let inject = format!("inject=execve:error={error}");
        let strace = [
            "strace",
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-P",
            injected,
            "-e",
            "trace=execve",
            "-e",
            &inject,
        ];
        Start::direct()
            .env("PATH", &path)
            .command(strace.iter().chain(words))
            .end()
    };
    for error in [
        "ENOENT",
        "ENOTDIR",
        "EACCES",
        "ESTALE",
        "ENODEV",
        "ETIMEDOUT",
    ] {
        assert_eq!(
            run(error, &[probe, "with", "--", "tool"]),
            Status::Code(3),
            "execvp {error}"
        );
        assert_eq!(
            run(error, &[BOWOUT, "-q", "--", "tool"]),
            Status::Code(3),
            "{error}"
        );
    }
    for error in [
        "EIO", "ELOOP", "ENOMEM", "EMFILE", "ETXTBSY", "E2BIG", "EPERM",
    ] {
        assert_eq!(
            run(error, &[probe, "with", "--", "tool"]),
            Status::Code(98),
            "execvp {error}"
        );
        assert_eq!(
            run(error, &[BOWOUT, "-q", "--", "tool"]),
            Status::Code(126),
            "{error}"
        );
    }
}

/// bowout exits with this status; its only line ends with this text.
fn refused(mut bowout: Running, status: i32, end: &str) {
    assert_eq!(bowout.end(), Status::Code(status), "{end}");
    let line = bowout.line();
    assert!(
        line.starts_with("bowout: cannot run '") && line.ends_with(end),
        "{line}"
    );
}

#[test]
fn an_interpreter_that_is_missing_is_named() {
    let dir = Dir::new();
    let write = |name: &str, text: &str| dir.write(name, text, 0o755);
    let missing = write("missing", "#!  /no/such/interpreter -e\n");
    let nested = write("nested", &format!("#!{}\n", missing.display()));
    let windows = write("windows", "#!/bin/sh\r\necho\r\n");
    let mut program = fs::read("/bin/sh").expect("a program");
    // The directory of the loader; a static /bin/sh has none.
    let at = program
        .windows(4)
        .position(|four| four == b"/lib")
        .filter(|_| program.starts_with(b"\x7fELF"));
    for home in homes() {
        let run = |path: &Path| Start::plain().at(home).command([path]);
        refused(
            run(&missing),
            126,
            "its interpreter '/no/such/interpreter' does not exist",
        );
        refused(
            run(&nested),
            126,
            "its interpreter '/no/such/interpreter' does not exist",
        );
        refused(
            run(&windows),
            126,
            "its interpreter '/bin/sh\\r' does not exist; its lines end in CR LF, not LF",
        );
    }
    if let Some(at) = at {
        program[at..at + 4].copy_from_slice(b"/liB");
        let name: Vec<u8> = program[at..]
            .iter()
            .copied()
            .take_while(|byte| *byte != 0)
            .collect();
        let loaderless = dir.write("loaderless", &program, 0o755);
        let name = String::from_utf8(name).expect("text");
        refused(
            Start::plain().command([&loaderless]),
            126,
            &format!("its interpreter '{name}' does not exist"),
        );
    }
}

#[test]
fn a_file_that_is_not_text_is_not_run_by_the_shell() {
    let dir = Dir::new();
    let write = |name: &str, bytes: &[u8]| dir.write(name, bytes, 0o755);
    let program = fs::read(probe()).expect("a program");
    // e_machine: 62 is x86_64, 183 is aarch64, and 2 is SPARC. None that the test uses is this
    // machine.
    let machine = |number: u8| [&program[..18], &[number, 0], &program[20..]].concat();
    let other = if cfg!(target_arch = "aarch64") {
        (62, "x86_64")
    } else {
        (183, "aarch64")
    };
    let here = std::env::consts::ARCH;
    let neither = "it is neither a program of this machine nor text";
    for (bytes, why) in [
        (
            machine(other.0),
            format!("it is a program of {}, not of {here}", other.1),
        ),
        (
            machine(2),
            "it is a program of another machine (ELF machine 2)".into(),
        ),
        (program[..40].to_vec(), "the program is damaged".into()),
        (b"\0\x01\x02junk\n".to_vec(), neither.into()),
        (b"PK\x03\x04\x14\0\n".to_vec(), neither.into()),
        ([&b"echo"[..], &[b' '; 75], b"\0"].concat(), neither.into()),
    ] {
        let file = write("file", &bytes);
        refused(
            Start::plain().command([&file]),
            126,
            &format!("Exec format error: {why}"),
        );
        let found = Start::plain()
            .env("PATH", format!("/nowhere:{}", dir.0.display()))
            .command(["file"]);
        refused(found, 126, &format!("Exec format error: {why}"));
    }
    // A script with binary data after its text: shells check the first line, and only its
    // beginning.
    for text in [
        b"exit 5\n\0\0\0".to_vec(),
        [&b"exit 5 #"[..], &[b' '; 80], b"\0\n"].concat(),
    ] {
        assert_eq!(
            Start::plain().command([write("script", &text)]).end(),
            Status::Code(5)
        );
    }
}

#[test]
fn common_first_lines_get_the_line_that_works() {
    let dir = Dir::new();
    let hint = "No such file or directory; to run a shell command line, write sh -c '...'";
    for home in homes() {
        refused(Start::plain().at(home).command(["echo hi"]), 127, hint);
        refused(
            Start::plain()
                .at(home)
                .command(["/no/such/file with words"]),
            127,
            hint,
        );
    }
    for (name, quoted) in [
        ("plain", "plain"),
        ("two words", "'two words'"),
        ("it's", r"'it'\''s'"),
    ] {
        let file = dir.write(name, "#!/bin/sh\nexit 3\n", 0o644);
        let path = file.to_str().expect("text").replace(name, quoted);
        let path = if name == quoted {
            path
        } else {
            format!("'{}", path.replacen('\'', "", 1))
        };
        let hint = format!("Permission denied; make it executable: chmod +x {path}");
        refused(Start::plain().command([&file]), 126, &hint);
        let mut found = Start::plain().env("PATH", &dir.0).command([name]);
        assert_eq!(found.end(), Status::Code(126));
        assert!(found.log()[0].ends_with(&hint), "{:?}", found.log());
    }
    refused(Start::plain().command([&dir.0]), 126, "Is a directory");
}
