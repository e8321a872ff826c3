//! The surroundings: the way into each, and the facts that show from outside that bowout is there.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::cgroup::Group;
use crate::common::pty::missing;
use crate::common::{BOWOUT, Dir, children, field, leftovers, no_namespaces, not_root, probe};
use crate::filter;

/// The common ground of the cells: programs that any user may run, filters, and an engine.
pub struct Ground {
    dir: Dir,
    pub bowout: String,
    pub probe: String,
    podman: OnceLock<Result<Podman, String>>,
}

impl Ground {
    pub fn new() -> Self {
        let dir = Dir::new();
        fs::set_permissions(&dir.0, fs::Permissions::from_mode(0o755)).expect("permissions");
        let text = |path: PathBuf| path.to_str().expect("text").to_owned();
        Self {
            bowout: text(dir.program(BOWOUT)),
            probe: text(dir.program(probe())),
            dir,
            podman: OnceLock::new(),
        }
    }

    /// A command line of the probe, up to its `--`.
    fn probe(&self, words: &[&str]) -> Entry {
        let words = [&[self.probe.as_str()], words, &["--"]].concat();
        self.entry(&words)
    }

    fn entry(&self, words: &[&str]) -> Entry {
        Entry {
            words: words.iter().map(OsString::from).collect(),
            bowout: self.bowout.clone(),
            probe: self.probe.clone(),
            group: None,
            pid_file: None,
        }
    }

    fn filtered(&self, name: &str, list: &str) -> Result<Entry, String> {
        if !cfg!(target_arch = "x86_64") {
            return Err("the lists of system calls are of x86_64".into());
        }
        let file = self.dir.file(name);
        if !file.exists() {
            // Two cells may write the file at once, so a rename makes it appear complete.
            let new = self.dir.file(&format!("{name}-{}", leftovers::unique()));
            fs::write(&new, filter::program(list)).expect("written");
            fs::set_permissions(&new, fs::Permissions::from_mode(0o644)).expect("permissions");
            fs::rename(&new, &file).expect("renamed");
        }
        Ok(self.probe(&["with", "--filter", file.to_str().expect("text")]))
    }
}

/// A way into the surroundings.
pub struct Entry {
    /// The words before bowout on the command line.
    pub words: Vec<OsString>,
    /// The paths of the programs in the place.
    pub bowout: String,
    pub probe: String,
    /// The control group that bowout is in.
    pub group: Option<Group>,
    /// The file with bowout's PID, if bowout is not a descendant of the started process.
    pub pid_file: Option<PathBuf>,
}

pub struct Place {
    pub name: &'static str,
    pub enter: fn(&Ground) -> Result<Entry, String>,
    /// Returns true if the process with this PID, from the test's view, is in the place.
    pub is_there: fn(i32) -> bool,
    /// True if bowout is PID 1.
    pub pid1: bool,
    /// The side to which bowout assigns the test.
    pub side: &'static str,
    /// Options of the probe's `with`, which then starts the command below bowout.
    pub inside: &'static [&'static str],
    /// True if a SIGCONT follows the stop signal, because bowout cannot see if a process is
    /// stopped.
    pub cont: bool,
}

const PLAIN: Place = Place {
    name: "",
    enter: |ground| Ok(ground.entry(&[])),
    is_there: |_| true,
    pid1: false,
    side: "manager",
    inside: &[],
    cont: false,
};

pub const PLACES: [Place; 18] = [
    Place {
        name: "subreaper",
        is_there: |pid| !is_first(pid),
        ..PLAIN
    },
    Place {
        name: "PID 1",
        enter: |ground| needs(no_namespaces()).map(|()| ground.probe(&["ns"])),
        is_there: is_first,
        pid1: true,
        side: "outside",
        ..PLAIN
    },
    Place {
        name: "new PID namespace without a fork",
        enter: |ground| needs(no_namespaces()).map(|()| ground.probe(&["ns", "--no-fork"])),
        is_there: |pid| namespace(pid, "pid") != namespace(pid, "pid_for_children"),
        ..PLAIN
    },
    Place {
        name: "nested bowout",
        enter: |ground| Ok(ground.entry(&[&ground.bowout, "-q", "--grace", "1h", "--"])),
        is_there: |pid| children(pid).first().is_some_and(|inner| is_bowout(*inner)),
        ..PLAIN
    },
    Place {
        name: "under strace",
        enter: |ground| {
            let line = ["strace", "-f", "-qq", "-o", "/dev/null", "--"];
            needs(missing("strace")).map(|()| ground.entry(&line))
        },
        is_there: |pid| field(pid, "TracerPid") != "0",
        side: "process",
        ..PLAIN
    },
    Place {
        name: "frozen control group",
        enter: |ground| {
            let group = Group::freezer()?;
            let mut entry = ground.probe(&["with", "--cgroup", group.path()]);
            entry.group = Some(group);
            Ok(entry)
        },
        is_there: |pid| {
            let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            groups.contains("/bowout-")
        },
        ..PLAIN
    },
    Place {
        name: "seccomp: docker",
        enter: |ground| ground.filtered("docker", include_str!("docker.calls")),
        is_there: is_filtered,
        ..PLAIN
    },
    Place {
        name: "seccomp: podman",
        enter: |ground| ground.filtered("podman", include_str!("podman.calls")),
        is_there: is_filtered,
        ..PLAIN
    },
    Place {
        name: "seccomp: systemd @system-service",
        enter: |ground| ground.filtered("systemd", include_str!("systemd.calls")),
        is_there: is_filtered,
        ..PLAIN
    },
    Place {
        name: "seccomp: strict",
        enter: |ground| ground.filtered("strict", include_str!("strict.calls")),
        is_there: is_filtered,
        ..PLAIN
    },
    Place {
        name: "no /proc",
        enter: |ground| needs(not_root()).map(|()| ground.probe(&["ns", "--here", "--no-proc"])),
        is_there: |pid| in_proc(pid).is_empty(),
        cont: true,
        ..PLAIN
    },
    Place {
        name: "no /proc, PID 1",
        enter: |ground| needs(no_namespaces()).map(|()| ground.probe(&["ns", "--no-proc"])),
        is_there: |pid| is_first(pid) && in_proc(pid).is_empty(),
        pid1: true,
        side: "outside",
        cont: true,
        ..PLAIN
    },
    Place {
        name: "hidepid",
        enter: |ground| {
            needs(not_root())?;
            let mut entry = ground.probe(&["ns", "--here", "--hide"]);
            let with = ground.probe(&["with", "--no-cap-ptrace"]);
            entry.words.extend(with.words);
            Ok(entry)
        },
        is_there: |pid| {
            const PTRACE: u64 = 1 << 19;
            let mounts = fs::read_to_string(format!("/proc/{pid}/mounts")).unwrap_or_default();
            let has = u64::from_str_radix(&field(pid, "CapEff"), 16).expect("a mask");
            mounts.contains("hidepid=") && has & PTRACE == 0
        },
        inside: &["--uid", "65534"],
        cont: true,
        ..PLAIN
    },
    Place {
        name: "/proc of the PID namespace above, PID 1",
        enter: |ground| needs(not_root()).map(|()| ground.probe(&["ns", "--outer-proc"])),
        is_there: |pid| is_first(pid) && in_proc(pid).contains(&pid),
        pid1: true,
        side: "outside",
        cont: true,
        ..PLAIN
    },
    Place {
        name: "/proc of a PID namespace that has ended",
        enter: |ground| needs(not_root()).map(|()| ground.probe(&["ns", "--here", "--ended-proc"])),
        is_there: |pid| {
            let root = PathBuf::from(format!("/proc/{pid}/root/proc"));
            in_proc(pid).is_empty() && root.join("mounts").symlink_metadata().is_ok()
        },
        cont: true,
        ..PLAIN
    },
    Place {
        name: "user namespace",
        enter: |ground| {
            let line = ["unshare", "--user", "--map-root-user", "--"];
            needs(missing("unshare")).map(|()| ground.entry(&line))
        },
        is_there: |pid| namespace(pid, "user") != namespace(std::process::id() as i32, "user"),
        ..PLAIN
    },
    Place {
        name: "user namespace, PID 1",
        enter: |ground| {
            needs(not_root())?;
            // The probe makes a user namespace where it is not root.
            let mut entry = ground.probe(&["with", "--uid", "65534"]);
            entry.words.extend(ground.probe(&["ns"]).words);
            Ok(entry)
        },
        is_there: |pid| {
            is_first(pid) && namespace(pid, "user") != namespace(std::process::id() as i32, "user")
        },
        pid1: true,
        side: "outside",
        ..PLAIN
    },
    Place {
        name: "rootless podman",
        enter: |ground| {
            let podman = ground.podman.get_or_init(|| Podman::new(ground)).as_ref();
            Ok(podman.map_err(Clone::clone)?.entry())
        },
        is_there: |pid| {
            let user = field(pid, "Uid");
            is_first(pid) && is_filtered(pid) && !user.starts_with("0\t")
        },
        pid1: true,
        side: "outside",
        ..PLAIN
    },
];

/// Returns the reason as an error, if there is one.
fn needs(reason: Option<String>) -> Result<(), String> {
    reason.map_or(Ok(()), Err)
}

/// Returns true if the process is PID 1 in its own PID namespace.
fn is_first(pid: i32) -> bool {
    field(pid, "NSpid").ends_with("\t1")
}

fn is_filtered(pid: i32) -> bool {
    field(pid, "Seccomp") == "2"
}

pub fn is_bowout(pid: i32) -> bool {
    let program = fs::read_link(format!("/proc/{pid}/exe"));
    program.is_ok_and(|path| path.file_name().is_some_and(|name| name == "bowout"))
}

fn namespace(pid: i32, kind: &str) -> PathBuf {
    // The link cannot be read while the namespace has no process yet.
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap_or_default()
}

/// The PIDs that its /proc shows.
fn in_proc(pid: i32) -> Vec<i32> {
    let entries = fs::read_dir(format!("/proc/{pid}/root/proc")).expect("a directory");
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

/// podman as a user without subordinate IDs, and an image with bowout and the probe.
struct Podman {
    dir: Dir,
    uid: u32,
}

const SETTINGS: &str = r#"
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
log_driver = "k8s-file"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
"#;
const IMAGE: &str = "localhost/bowout:test";

impl Podman {
    fn new(ground: &Ground) -> Result<Self, String> {
        needs(not_root())?;
        for program in ["podman", "runc", "setpriv"] {
            let installed =
                missing(program).filter(|_| !Path::new("/usr/sbin").join(program).exists());
            needs(installed)?;
        }
        let podman = Self {
            dir: Dir::new(),
            uid: leftovers::own_user(),
        };
        let (file, image) = (|name| podman.dir.file(name), podman.dir.file("image"));
        podman.dir.write("containers.conf", SETTINGS, 0o644);
        fs::create_dir(&image).expect("a directory");
        for program in [&ground.bowout, &ground.probe] {
            let name = Path::new(program).file_name().expect("a name");
            fs::copy(program, image.join(name)).expect("copied");
        }
        let mut tar = Command::new("tar");
        tar.arg("-C")
            .arg(&image)
            .arg("-cf")
            .arg(file("image.tar"))
            .arg(".");
        let made = leftovers::output(&mut tar);
        assert!(made.status.success(), "{made:?}");
        for name in ["home", "run", "storage", "tmp"] {
            fs::create_dir(file(name)).expect("a directory");
        }
        for entry in fs::read_dir(&podman.dir.0).expect("a directory") {
            let path = entry.expect("an entry").path();
            chown(path, Some(podman.uid), Some(podman.uid)).expect("the user's");
        }
        chown(&podman.dir.0, Some(podman.uid), Some(podman.uid)).expect("the user's");
        let tar = file("image.tar");
        let line = podman.line(&["import", "--quiet", tar.to_str().expect("text"), IMAGE]);
        let made = leftovers::output(Command::new(&line[0]).args(&line[1..]).current_dir("/"));
        if made.status.success() {
            Ok(podman)
        } else {
            let why = String::from_utf8_lossy(&made.stderr).trim().to_owned();
            Err(format!("podman import as another user: {why}"))
        }
    }

    /// A command line of the engine, as the user.
    fn line(&self, words: &[&str]) -> Vec<OsString> {
        let at = |name: &str| self.dir.file(name).to_str().expect("text").to_owned();
        let set = |name: &str, file: &str| format!("{name}={}", at(file));
        let path = std::env::var("PATH").expect("a PATH");
        let mut line: Vec<OsString> = vec!["setpriv".into()];
        line.extend([
            format!("--reuid={}", self.uid).into(),
            format!("--regid={}", self.uid).into(),
            "--clear-groups".into(),
            "env".into(),
            format!("PATH={path}:/usr/sbin:/sbin").into(),
        ]);
        let variables = [
            set("HOME", "home"),
            set("XDG_RUNTIME_DIR", "run"),
            set("CONTAINERS_CONF", "containers.conf"),
        ];
        line.extend(variables.map(OsString::from));
        let (storage, run, tmp) = (at("storage"), at("run"), at("tmp"));
        let engine = [
            "podman",
            "--root",
            &storage,
            "--runroot",
            &run,
            "--tmpdir",
            &tmp,
            "--storage-driver",
            "vfs",
        ];
        line.extend(engine.iter().chain(words).map(OsString::from));
        line
    }

    fn entry(&self) -> Entry {
        let pid_file = self.dir.file(&format!("tmp/{}", leftovers::unique()));
        let words = [
            "run",
            "--rm",
            "--network",
            "none",
            "--pidfile",
            pid_file.to_str().expect("text"),
            IMAGE,
        ];
        Entry {
            words: self.line(&words),
            bowout: "/bowout".into(),
            probe: "/probe".into(),
            group: None,
            pid_file: Some(pid_file),
        }
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        // podman leaves a process that keeps the user namespace between two commands.
        let Ok(text) = fs::read_to_string(self.dir.file("tmp/pause.pid")) else {
            return;
        };
        let Ok(pid) = text.trim().parse::<i32>() else {
            return;
        };
        let owner = fs::metadata(format!("/proc/{pid}")).map(|found| found.uid());
        if owner.is_ok_and(|uid| uid == self.uid) {
            // SAFETY: no pointers; the process is of a user that this test made up.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
    }
}
