//! Helpers for both engines: the release binary, the files of a root file system, and programs that
//! run to their end.
// The suite and the table of the peers each use a part of this file.
#![allow(dead_code)]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use crate::common::{BOWOUT, leftovers, not_root, pty};

/// Builds the static binary as it is released.
pub fn bowout() -> &'static PathBuf {
    static RELEASE: OnceLock<PathBuf> = OnceLock::new();
    RELEASE.get_or_init(|| {
        let target = Path::new(BOWOUT)
            .ancestors()
            .nth(2)
            .expect("the target directory");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(env!("CARGO_MANIFEST_DIR")).args([
            "build",
            "--quiet",
            "--release",
            "--locked",
        ]);
        cargo.args(["--bin", "bowout", "--target-dir"]).arg(target);
        run(&mut cargo);
        target.join("release/bowout")
    })
}

/// The reason why containers cannot be tested here, if any. They need root for namespaces, cgroups
/// and mounts.
pub fn no_containers(programs: &[&str]) -> Option<String> {
    not_root()
        .map(|_| "only root can start containers".into())
        .or_else(|| {
            let busybox = (!Path::new(BUSYBOX).exists())
                .then(|| "busybox-static is not installed".to_owned());
            busybox.or_else(|| programs.iter().find_map(|program| missing(program)))
        })
}

fn missing(program: &str) -> Option<String> {
    find(program)
        .is_none()
        .then(|| format!("{program} is not installed"))
}

/// The path of a program. Servers are installed where only root looks for programs.
pub fn find(program: &str) -> Option<PathBuf> {
    pty::installed(program)
        .or_else(|| Some(Path::new("/usr/sbin").join(program)).filter(|path| path.exists()))
}

pub const BUSYBOX: &str = "/bin/busybox";

/// Copies busybox, and makes links by the names that scripts use: without /proc, busybox does not
/// find its own applets.
pub fn put_busybox(root: &Path) {
    put(root, Path::new(BUSYBOX), BUSYBOX);
    for applet in ["sh", "sleep", "setsid", "umount"] {
        symlink("busybox", root.join("bin").join(applet)).expect("a link");
    }
}

/// Runs a program that must succeed. Returns its stdout.
pub fn run(command: &mut Command) -> String {
    let output = leftovers::output(command);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}",
        output.status,
        both(&output)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn both(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// Copies a program into a root file system.
pub fn put(root: &Path, from: &Path, to: &str) {
    let to = root.join(to.trim_start_matches('/'));
    fs::create_dir_all(to.parent().expect("a directory")).expect("a directory");
    fs::copy(from, &to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
    fs::set_permissions(&to, fs::Permissions::from_mode(0o755)).expect("permissions");
}

/// Copies a program with the libraries that it is linked with, all to the same paths as here.
pub fn put_linked(root: &Path, program: &Path) {
    put(root, program, program.to_str().expect("text"));
    let output = leftovers::output(Command::new("ldd").arg(program));
    // For a static program, ldd reports that there are none, and fails.
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for library in text.split_whitespace().filter(|word| word.starts_with('/')) {
        put(root, Path::new(library), library);
    }
}
