//! One service of a test's, and systemd's properties of it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Output;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use crate::common;
use crate::machine::{Machine, TEST, both, machine, tell};

/// A unit that exists as long as this value.
pub struct Unit {
    machine: &'static Machine,
    /// The name without a suffix.
    pub name: String,
    files: Vec<PathBuf>,
}

/// One record of the journal.
#[derive(Clone, Debug)]
pub struct Record {
    pub priority: u8,
    pub message: String,
    pub pid: i32,
    /// The monotonic time in microseconds.
    pub at: u64,
}

/// Properties, by their names.
#[derive(Clone, PartialEq, Eq)]
pub struct Shown(BTreeMap<String, String>);

impl Shown {
    pub fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self
            .0
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        f.write_str(&all.join(" "))
    }
}

/// A reload of the units restarts every timer with the unit's own value, so that systemd forgets
/// that a service has asked for more time.
static RELOAD: RwLock<()> = RwLock::new(());

/// While this value exists, no test makes systemd reload its units. Drop it before the next unit is
/// made, which needs a reload.
pub fn no_reload() -> RwLockReadGuard<'static, ()> {
    RELOAD.read().unwrap_or_else(PoisonError::into_inner)
}

/// Makes systemd reload its units. Returns the output of systemctl.
pub fn reload(machine: &Machine) -> String {
    let _alone = RELOAD.write().unwrap_or_else(PoisonError::into_inner);
    machine.systemctl(["daemon-reload"])
}

/// Waits for a fact that only a query shows. Each query starts a program, so the pause between two
/// leaves the machine to the processes under test.
pub fn until<T>(what: &str, mut fact: impl FnMut() -> Option<T>) -> T {
    common::until(what, || {
        fact().or_else(|| {
            // SAFETY: no descriptors.
            unsafe { libc::poll(std::ptr::null_mut(), 0, 10) };
            None
        })
    })
}

/// The properties that show how a service ended.
pub const END: &[&str] = &[
    "ActiveState",
    "SubState",
    "Result",
    "ExecMainCode",
    "ExecMainStatus",
    "NRestarts",
];

impl Unit {
    /// A service with these lines, after those that all services have: stdout to a file, a
    /// directory of its own, KillMode=mixed. `@B` is bowout, `@N` the notifier, `@P` the probe,
    /// `@D` the directory, `@U` the unit's name.
    pub fn new(what: &str, lines: &str) -> Option<Self> {
        Self::with(what, &format!("[Service]\nKillMode=mixed\n{lines}"), &[])
    }

    /// A service with this text, and other units of the same name: a suffix and a text for each.
    pub fn with(what: &str, service: &str, others: &[(&str, &str)]) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let machine = machine()?;
        let name = format!("{what}-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let mut unit = Self {
            machine,
            name,
            files: vec![],
        };
        let directory = machine.path(unit.directory());
        fs::create_dir_all(&directory).expect("a directory");
        fs::set_permissions(&directory, Permissions::from_mode(0o777)).expect("permissions");
        let output = format!(
            "[Service]\nStandardOutput=append:{}/out\nStandardError=journal\n",
            unit.directory()
        );
        let service = format!("{output}WorkingDirectory={}\n{service}\n", unit.directory());
        for (suffix, text) in
            std::iter::once(("service", service.as_str())).chain(others.iter().copied())
        {
            let file = machine.path(format!("/run/systemd/system/{}.{suffix}", unit.name));
            let text = text
                .replace("@B", &format!("{TEST}/bowout"))
                .replace("@N", &format!("{TEST}/notifier"));
            let text = text
                .replace("@P", &format!("{TEST}/probe"))
                .replace("@U", &unit.name);
            fs::create_dir_all(file.parent().expect("a directory")).expect("a directory");
            fs::write(&file, text.replace("@D", &unit.directory())).expect("a unit");
            unit.files.push(file);
        }
        let after = format!("After={}.service", unit.name);
        let said = reload(unit.machine);
        assert_eq!(said, "", "daemon-reload");
        // systemd unloads a finished unit that no other unit refers to, and then forgets how it
        // ended.
        let keep = unit.keeper();
        let output = unit.machine.run([
            "systemd-run",
            "--quiet",
            "--unit",
            &keep,
            "--property",
            &after,
            "sleep",
            "infinity",
        ]);
        assert!(output.status.success(), "{keep}: {}", both(&output));
        Some(unit)
    }

    /// The name of another unit, which refers to this one.
    fn keeper(&self) -> String {
        format!("{}-keeper.service", self.name)
    }

    pub fn directory(&self) -> String {
        format!("/run/test/{}", self.name)
    }

    /// The path, from outside the container, of a file in its directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.machine.path(format!("{}/{name}", self.directory()))
    }

    pub fn machine(&self) -> &'static Machine {
        self.machine
    }

    fn call(&self, words: &[&str]) -> Output {
        let all = std::iter::once("systemctl")
            .chain(words.iter().copied())
            .chain([self.name.as_str()]);
        self.machine.run(all)
    }

    /// Runs systemctl, which must succeed.
    pub fn systemctl(&self, words: &[&str]) {
        let output = self.call(words);
        assert!(output.status.success(), "{words:?}: {}", both(&output));
    }

    pub fn start(&self) {
        self.systemctl(&["start"]);
    }

    pub fn fail_to_start(&self) -> String {
        let output = self.call(&["start"]);
        assert!(!output.status.success(), "it was to fail");
        both(&output)
    }

    pub fn stop(&self) {
        self.systemctl(&["stop"]);
    }

    /// Sends a signal to a process, from outside the unit and not from systemd.
    pub fn signal(&self, signal: &str, pid: i32) {
        let output = self
            .machine
            .run(["sh", "-c", &format!("kill -{signal} {pid}")]);
        assert!(output.status.success(), "kill: {}", both(&output));
    }

    /// Sends a signal to the main process alone, from outside the unit and not from systemd.
    pub fn kill(&self, signal: &str) {
        self.signal(signal, self.main_pid());
    }

    pub fn show(&self, names: &[&str]) -> Shown {
        let list = format!("--property={}", names.join(","));
        let output = self.call(&["show", &list]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let all = text.lines().filter_map(|line| line.split_once('='));
        Shown(
            all.map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        )
    }

    pub fn get(&self, name: &str) -> String {
        self.show(&[name]).get(name).to_owned()
    }

    pub fn wait(&self, name: &str, value: &str) {
        until(
            &format!("{}: {name}={value}, not {}", self.name, self.get(name)),
            || (self.get(name) == value).then_some(()),
        );
    }

    /// Waits until the unit is inactive or failed. Returns how it ended.
    pub fn ended(&self) -> Shown {
        until(&format!("{} ends", self.name), || {
            let shown = self.show(END);
            matches!(shown.get("ActiveState"), "inactive" | "failed").then_some(shown)
        })
    }

    pub fn main_pid(&self) -> i32 {
        self.get("MainPID").parse().expect("a PID")
    }

    /// A file of `/proc` of one of its processes, as text.
    pub fn proc(&self, pid: i32, file: &str) -> String {
        let bytes = fs::read(self.machine.path(format!("/proc/{pid}/{file}"))).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The PID of bowout's child.
    pub fn child_pid(&self) -> i32 {
        let main = self.main_pid();
        let file = format!("task/{main}/children");
        until("bowout has a child", || {
            self.proc(main, &file)
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })
    }

    /// The complete lines of its standard output.
    pub fn out(&self) -> Vec<String> {
        let bytes = fs::read(self.file("out")).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        // A line without its newline is not complete yet.
        text.split_inclusive('\n')
            .filter_map(|line| line.strip_suffix('\n'))
            .map(str::to_owned)
            .collect()
    }

    /// Waits for a line of its stdout that begins with this text.
    pub fn says(&self, what: &str) -> String {
        self.says_often(what, 1)
    }

    /// Waits until this many lines begin with this text. Returns the last of them.
    pub fn says_often(&self, what: &str, count: usize) -> String {
        until(&format!("{} says {what}", self.name), || {
            let lines = self.out();
            lines
                .into_iter()
                .filter(|line| line.starts_with(what))
                .nth(count - 1)
        })
    }

    /// The number of times that the probe or the notifier has received this signal.
    pub fn had(&self, signal: i32) -> usize {
        let probe = format!("{signal} ");
        let notifier = format!("got {signal}");
        self.out()
            .iter()
            .filter(|line| line.starts_with(&probe) || **line == notifier)
            .count()
    }

    /// All records of the unit in the journal: the lines of its processes, and those of systemd.
    pub fn journal(&self) -> Vec<Record> {
        self.machine.run(["journalctl", "--sync"]);
        let output = self.machine.run([
            "journalctl",
            "--no-pager",
            "--all",
            "-o",
            "json",
            "-u",
            &self.name,
        ]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines()
            .filter_map(|line| {
                let record: serde_json::Value = serde_json::from_str(line).ok()?;
                let field = |name: &str| record.get(name)?.as_str();
                Some(Record {
                    priority: field("PRIORITY")?.parse().ok()?,
                    message: field("MESSAGE")?.to_owned(),
                    pid: field("_PID")?.parse().ok()?,
                    at: field("__MONOTONIC_TIMESTAMP")?.parse().ok()?,
                })
            })
            .collect()
    }

    /// Waits for a record of the unit that contains this text.
    pub fn logs(&self, what: &str) -> Record {
        until(&format!("{} logs {what}", self.name), || {
            self.journal()
                .into_iter()
                .find(|record| record.message.contains(what))
        })
    }

    pub fn tell(&self, what: &str) {
        tell(&format!("{what}: {:?}", self.show(END)));
    }

    /// The number of cores in its directory.
    pub fn cores(&self) -> usize {
        let entries = fs::read_dir(self.file(".")).expect("its directory");
        entries
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("core"))
            .count()
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let properties = self.show(&[END, &["StatusText", "MainPID"]].concat());
            let line =
                |record: Record| format!("{} <{}> {}", record.at, record.priority, record.message);
            let log: Vec<String> = self.journal().into_iter().map(line).collect();
            eprintln!(
                "{properties:?}\nstdout: {:#?}\njournal: {log:#?}",
                self.out()
            );
        }
        let name = |file: &PathBuf| {
            file.file_name()
                .expect("a name")
                .to_string_lossy()
                .into_owned()
        };
        let all: Vec<String> = self.files.iter().map(name).chain([self.keeper()]).collect();
        let call = |words: &[&str]| {
            self.machine
                .systemctl(words.iter().copied().chain(all.iter().map(String::as_str)))
        };
        call(&["kill", "--signal=KILL", "--kill-whom=all"]);
        call(&["stop"]);
        call(&["reset-failed"]);
        for file in &self.files {
            let _ = fs::remove_file(file);
        }
    }
}

/// The reason why a core cannot be counted, if any. The pattern is the whole machine's, so the
/// tests do not change it.
pub fn no_cores() -> Option<String> {
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    (!pattern.trim().starts_with("core")).then(|| {
        format!(
            "cores go elsewhere: kernel.core_pattern is {}",
            pattern.trim()
        )
    })
}
