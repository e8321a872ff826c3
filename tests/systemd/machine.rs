//! The container with a systemd as its PID 1: built once, booted once, ended with the tests.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Mutex, OnceLock};

use crate::common::{BOWOUT, leftovers, not_root, probe, pty, skip, watchdog};

/// trixie has systemd 257. It is the first Debian release whose systemd knows Type=notify-reload.
const SUITE: &str = "trixie";
const PACKAGES: &[&str] = &[
    "dbus",
    "procps",
    "python3",
    "redis-server",
    "systemd",
    "systemd-sysv",
];
/// The directory of the programs under test in the container.
pub const TEST: &str = "/opt/test";

/// A container with a running systemd.
pub struct Machine {
    /// The PID of its systemd, outside the container.
    leader: i32,
}

/// The machine; None, after the reason was printed, where it cannot run.
pub fn machine() -> Option<&'static Machine> {
    static MACHINE: OnceLock<Result<Machine, String>> = OnceLock::new();
    let reason = not_root()
        .map(|_| "only root can boot a container".into())
        .or_else(|| {
            ["debootstrap", "systemd-nspawn", "nsenter"]
                .into_iter()
                .find(|program| {
                    pty::installed(program).is_none()
                        && !Path::new("/usr/sbin").join(program).exists()
                })
                .map(|program| format!("{program} is not installed"))
        });
    if skip(reason) {
        return None;
    }
    match MACHINE.get_or_init(boot) {
        Ok(machine) => Some(machine),
        Err(reason) => panic!("{reason}"),
    }
}

/// Prints a line past the test runner's capture.
pub fn tell(line: &str) {
    let test = std::thread::current().name().unwrap_or("?").to_owned();
    let _ = writeln!(std::io::stderr(), "    {test}: {line}");
}

fn run(command: &mut Command) -> Result<String, String> {
    let output = leftovers::output(command);
    let text = both(&output);
    if output.status.success() {
        Ok(text)
    } else {
        Err(format!("{command:?}: {}\n{text}", output.status))
    }
}

pub fn both(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat())
        .trim()
        .to_owned()
}

/// The root file system, which this function builds if it does not exist yet.
fn root() -> Result<PathBuf, String> {
    let cache = std::env::var_os("BOWOUT_SYSTEMD_ROOT")
        .map_or("/var/cache/bowout-systemd-root".into(), PathBuf::from);
    let root = cache.join(format!("{SUITE}-{}", PACKAGES.join("-")));
    if root.exists() {
        return Ok(root);
    }
    tell(&format!("building {}", root.display()));
    fs::create_dir_all(&cache).map_err(|error| format!("{}: {error}", cache.display()))?;
    let new = cache.join(format!(".{}", leftovers::unique()));
    let mut debootstrap = Command::new("debootstrap");
    debootstrap
        .args([
            "--variant=minbase",
            &format!("--include={}", PACKAGES.join(",")),
            SUITE,
        ])
        .arg(&new);
    debootstrap.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    let built = run(&mut debootstrap).map(drop).and_then(|()| {
        // The file is empty, as in an image: the first boot generates the ID.
        fs::write(new.join("etc/machine-id"), "")
            .map_err(|error| format!("machine-id: {error}"))?;
        // The server's own test starts it, with the drop-in.
        fs::remove_file(
            new.join("etc/systemd/system/multi-user.target.wants/redis-server.service"),
        )
        .map_err(|error| format!("redis-server: {error}"))?;
        let _ = fs::remove_dir_all(new.join("var/cache/apt/archives"));
        let _ = fs::remove_dir_all(new.join("var/lib/apt/lists"));
        // After the rename the directory is complete; before it, it does not exist.
        fs::rename(&new, &root).map_err(|error| format!("{}: {error}", root.display()))
    });
    if built.is_err() {
        let _ = fs::remove_dir_all(&new);
    }
    if root.exists() {
        Ok(root)
    } else {
        built.map(|()| root)
    }
}

/// Builds bowout as it is released.
fn release() -> Result<PathBuf, String> {
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
    run(&mut cargo).map(|_| target.join("release/bowout"))
}

/// Builds the command that speaks to a manager; `cargo test --test NAME` does not build it.
fn notifier() -> Result<PathBuf, String> {
    let notifier = probe().with_file_name("notifier");
    let target = Path::new(BOWOUT)
        .ancestors()
        .nth(2)
        .expect("the target directory");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR")).args([
        "build",
        "--quiet",
        "--locked",
        "--example",
        "notifier",
    ]);
    run(cargo.arg("--target-dir").arg(target))?;
    Ok(notifier)
}

/// Copies the programs under test into one directory.
fn programs(into: &Path) -> Result<(), String> {
    let all = [
        (release()?, "bowout"),
        (notifier()?, "notifier"),
        (probe().clone(), "probe"),
    ];
    let server = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/systemd/server.py");
    for (from, name) in all
        .iter()
        .map(|(from, name)| (from.as_path(), *name))
        .chain([(&*server, "server.py")])
    {
        let to = into.join(name);
        fs::copy(from, &to).map_err(|error| format!("{}: {error}", from.display()))?;
        fs::set_permissions(&to, Permissions::from_mode(0o755))
            .map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// The PID of systemd-nspawn and the directories of the test. At the end, the test ends the process
/// and removes the directories.
static NSPAWN: AtomicI32 = AtomicI32::new(0);
static DIRECTORIES: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Runs at the end of the test process.
extern "C" fn end() {
    let pid = NSPAWN.load(Ordering::SeqCst);
    // Where no container was started, kill(2) would take the 0 for this process's group.
    let signals: &[i32] = match pid {
        0 => &[],
        // The first SIGTERM makes systemd shut down, the second ends the container. Each has 20
        // seconds.
        _ => &[libc::SIGTERM, libc::SIGTERM, libc::SIGKILL],
    };
    'signals: for &signal in signals {
        // SAFETY: no pointers. The child has not been reaped yet, so the PID is still its own.
        unsafe { libc::kill(pid, signal) };
        for _ in 0..200 {
            // SAFETY: no status is asked for, no descriptors. Adopted processes are reaped as well:
            // only then does the last namespace of such a process end, and the container waits for
            // that.
            unsafe {
                loop {
                    match libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) {
                        ended if ended == pid || ended < 0 => break 'signals,
                        0 => break,
                        _ => {}
                    }
                }
                libc::poll(std::ptr::null_mut(), 0, 100);
            }
        }
    }
    for directory in DIRECTORIES
        .lock()
        .map(|mut all| std::mem::take(&mut *all))
        .unwrap_or_default()
    {
        remove(&directory);
    }
}

/// Removes a directory of the test's. In a control group it removes the directories alone, because
/// its files cannot be removed.
fn remove(directory: &Path) {
    if directory.starts_with("/sys/fs/cgroup") {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                remove(&entry.path());
            }
        }
        let _ = fs::remove_dir(directory);
    } else {
        let _ = fs::remove_dir_all(directory);
    }
}

/// Makes control groups for the container in every hierarchy that systemd-nspawn makes groups in.
/// Without them it would use those at the top.
fn groups(name: &str) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let ours = mounts.lines().filter_map(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        let [_, place, kind, options, ..] = words[..] else {
            return None;
        };
        let wanted = kind == "cgroup2"
            || (kind == "cgroup" && options.split(',').any(|o| o == "name=systemd"));
        (wanted && place.starts_with("/sys/fs/cgroup")).then(|| PathBuf::from(place))
    });
    ours.filter_map(|place| {
        // The new group is below the group of this process, which is the part that the test may
        // divide.
        let unified = fs::read_to_string("/proc/self/cgroup").ok()?;
        let line = unified.lines().find(|line| {
            if place.join("cgroup.controllers").exists() {
                line.starts_with("0::")
            } else {
                line.contains(":name=systemd:")
            }
        })?;
        let group = place
            .join(line.rsplit(':').next()?.trim_start_matches('/'))
            .join(name);
        fs::create_dir(&group).ok().map(|()| group)
    })
    .collect()
}

fn boot() -> Result<Machine, String> {
    let root = root()?;
    let name = format!("bowout-systemd-{}", std::process::id());
    let folder = std::env::temp_dir().join(&name);
    fs::create_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    // Services that do not run as root read it.
    fs::set_permissions(&folder, Permissions::from_mode(0o755))
        .map_err(|error| error.to_string())?;
    let groups = groups(&name);
    DIRECTORIES
        .lock()
        .expect("no panic holds it")
        .extend(groups.iter().cloned().chain([folder.clone()]));
    // SAFETY: a function without arguments.
    unsafe { libc::atexit(end) };
    programs(&folder)?;
    let socket = folder.join("ready");
    let ready =
        UnixDatagram::bind(&socket).map_err(|error| format!("{}: {error}", socket.display()))?;
    ready
        .set_read_timeout(Some(watchdog()))
        .map_err(|error| error.to_string())?;
    let console = folder.join("console");
    let mut nspawn = Command::new("systemd-nspawn");
    // A machine without systemd has no service to register with. One with cgroup v1 has v2 mounted
    // beside it.
    nspawn.args([
        "--quiet",
        "--boot",
        "--volatile=overlay",
        "--register=no",
        "--keep-unit",
        "--private-network",
    ]);
    nspawn.args([
        "--link-journal=no",
        "--resolv-conf=off",
        "--timezone=off",
        "--console=pipe",
        "--notify-ready=yes",
    ]);
    nspawn
        .arg(format!("--machine={name}"))
        .arg(format!("--bind-ro={}:{TEST}", folder.display()));
    nspawn.arg("--directory").arg(&root);
    nspawn
        .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")
        .env("NOTIFY_SOCKET", &socket);
    let output = File::create(&console).map_err(|error| error.to_string())?;
    nspawn
        .stdin(Stdio::null())
        .stdout(output.try_clone().map_err(|error| error.to_string())?)
        .stderr(output);
    let join = move || {
        // SAFETY: no pointers. The container dies with the test process, even if `end` does not
        // finish.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        for group in &groups {
            fs::write(group.join("cgroup.procs"), "0")?;
        }
        Ok(())
    };
    // SAFETY: it makes system calls. Another thread could hold the allocator's lock alone, which
    // the C library keeps usable after a fork.
    unsafe { nspawn.pre_exec(join) };
    let (started, pid) = channel();
    // This thread lives as long as the process: its exit would end the container.
    std::thread::spawn(move || {
        let child = leftovers::spawn(&mut nspawn).map(|child| child.id() as i32);
        let _ = started.send(child);
        loop {
            std::thread::park();
        }
    });
    let pid = pid
        .recv()
        .expect("the thread lives")
        .map_err(|error| format!("systemd-nspawn: {error}"))?;
    NSPAWN.store(pid, Ordering::SeqCst);
    let mut leader = None;
    let mut message = [0; 4096];
    loop {
        let length = ready.recv(&mut message).map_err(|error| {
            let console = fs::read_to_string(&console).unwrap_or_default();
            format!("systemd does not boot: {error}\n{console}")
        })?;
        let text = String::from_utf8_lossy(&message[..length]).into_owned();
        let number = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.parse().ok())
        };
        leader = leader.or_else(|| number("X_NSPAWN_LEADER_PID="));
        if let Some(leader) = leader
            && text.lines().any(|line| line == "READY=1")
        {
            let machine = Machine { leader };
            let version = both(&machine.run(["systemctl", "--version"]));
            tell(&format!(
                "{}, {}",
                version.lines().next().unwrap_or("?"),
                machine.systemctl(["is-system-running"])
            ));
            return Ok(machine);
        }
    }
}

impl Machine {
    /// A command that runs in the container, outside every unit.
    pub fn command<W: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = W>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args([
                "-t",
                &self.leader.to_string(),
                "-m",
                "-u",
                "-i",
                "-n",
                "-p",
                "-C",
                "--",
            ])
            .args(words);
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }

    pub fn run<W: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = W>) -> Output {
        leftovers::output(&mut self.command(words))
    }

    /// The output of systemctl, after a success and after a failure.
    pub fn systemctl<W: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = W>) -> String {
        let all = std::iter::once("systemctl".into())
            .chain(words.into_iter().map(|word| word.as_ref().to_owned()));
        both(&self.run(all))
    }

    /// The path, from outside the container, of a file in it.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        PathBuf::from(format!("/proc/{}/root", self.leader))
            .join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The network namespace of the container, with its loopback.
    pub fn network(&self) -> File {
        File::open(format!("/proc/{}/ns/net", self.leader)).expect("a network namespace")
    }
}
