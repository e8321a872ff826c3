//! A container of runc: a bundle made for the test, and the container that runs from it.
// The suite and the table of the peers each use a part of this file.
#![allow(dead_code)]

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::common::pty::{Pty, Role};
use crate::common::{
    Dir, Lines, Status, apart, children, hold, keep_report, leftovers, probe, until,
};
use crate::engine::{BUSYBOX, bowout, put, put_busybox, run};

/// A root file system with the static binary and busybox, and the configuration that `runc spec`
/// makes.
pub struct Bundle {
    dir: Dir,
    name: String,
    pub config: Value,
}

impl Bundle {
    /// PID 1 runs `line`: `/bowout` with its options and its command.
    pub fn new(line: &[&str]) -> Self {
        let bundle = Self::empty(line);
        put_busybox(&bundle.root());
        bundle
    }

    /// A bundle with the static binary alone.
    pub fn empty(line: &[&str]) -> Self {
        let dir = Dir::new();
        let root = dir.file("rootfs");
        fs::create_dir(&root).expect("a directory");
        // Any user may write a report here.
        fs::set_permissions(&root, fs::Permissions::from_mode(0o777)).expect("permissions");
        put(&root, bowout(), "/bowout");
        run(Command::new("runc").args(["spec", "--bundle"]).arg(&dir.0));
        let text = fs::read_to_string(dir.file("config.json")).expect("written");
        let mut config: Value = serde_json::from_str(&text).expect("JSON");
        config["process"]["args"] = json!(line);
        config["process"]["terminal"] = json!(false);
        config["root"]["readonly"] = json!(false);
        Self {
            dir,
            name: format!("bowout-{}", leftovers::unique()),
            config,
        }
    }

    /// bowout with these options, and a script that busybox runs.
    pub fn script(options: &[&str], script: &str) -> Self {
        Self::new(&[&["/bowout"], options, &["--", BUSYBOX, "sh", "-c", script]].concat())
    }

    /// bowout with these options, and the probe.
    pub fn probe(options: &[&str], words: &[&str]) -> Self {
        let bundle = Self::new(&[&["/bowout"], options, &["--", "/probe"], words].concat());
        put(&bundle.root(), probe(), "/probe");
        bundle
    }

    pub fn with(mut self, edit: impl FnOnce(&mut Value)) -> Self {
        edit(&mut self.config);
        self
    }

    pub fn root(&self) -> PathBuf {
        self.dir.file("rootfs")
    }

    fn runc(&self) -> Command {
        let mut command = Command::new("runc");
        // Go's runtime sends itself SIGURG, and `runc run` forwards every signal that it receives.
        command
            .env("GODEBUG", "asyncpreemptoff=1")
            .arg("--root")
            .arg(self.dir.file("state"));
        command
    }

    fn line(&self) -> Command {
        fs::write(self.dir.file("config.json"), self.config.to_string()).expect("written");
        let mut command = self.runc();
        command
            .arg("run")
            .arg("--pid-file")
            .arg(self.dir.file("pid"))
            .arg("--bundle")
            .arg(&self.dir.0);
        command.arg(&self.name);
        command
    }

    pub fn start(self) -> Container {
        let mut command = self.line();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = leftovers::spawn(&mut command).expect("runc");
        let out = Lines::of(child.stdout.take().expect("a pipe"));
        let err = Lines::of(child.stderr.take().expect("a pipe"));
        Container {
            place: Place(self),
            child,
            ended: None,
            out,
            err,
        }
    }

    /// Starts it on a terminal of its own, as with `-t`; `runc run` joins that terminal to the
    /// test's.
    pub fn start_on_terminal(mut self) -> OnTerminal {
        self.config["process"]["terminal"] = json!(true);
        let command = self.line();
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let words: Vec<&str> = words.map(|word| word.to_str().expect("text")).collect();
        let pty = Pty::start(Role::Controlling, &words);
        OnTerminal {
            place: Place(self),
            pty,
        }
    }
}

/// The container as runc's own commands see it. It is deleted with this value.
pub struct Place(Bundle);

impl Place {
    /// Sends a signal from outside.
    pub fn kill(&self, signal: &str) {
        apart(&self.0.name);
        run(self.0.runc().args(["kill", &self.0.name, signal]));
    }

    /// Likewise, where the container may have ended.
    pub fn try_kill(&self, signal: &str) {
        leftovers::output(self.0.runc().args(["kill", &self.0.name, signal]));
    }

    /// A session in the container, as `docker exec` starts it.
    pub fn exec(&self, words: &[&str]) -> Command {
        let mut command = self.0.runc();
        command.arg("exec").arg(&self.0.name).args(words);
        command
    }

    /// The container's PID 1, as this process sees it.
    pub fn pid(&self) -> i32 {
        until("the container has a PID", || {
            fs::read_to_string(self.0.dir.file("pid"))
                .ok()?
                .parse()
                .ok()
        })
    }

    /// The child of PID 1, likewise.
    pub fn child(&self) -> i32 {
        until("PID 1 has a child", || {
            children(self.pid()).first().copied()
        })
    }

    /// The text of a file in the container.
    pub fn file(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.0.root().join(name)).ok()
    }

    /// The report of `--report /report`.
    pub fn report(&self) -> Value {
        let text = self.file("report").expect("a report");
        keep_report(&text);
        serde_json::from_str(&text).expect("JSON")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // This fails where the container has ended, because nothing is left to delete.
        leftovers::output(self.0.runc().args(["delete", "--force", &self.0.name]));
    }
}

/// A container that runs or has ended. With this value, it and all of its processes end.
pub struct Container {
    pub place: Place,
    child: Child,
    ended: Option<Status>,
    pub out: Lines,
    pub err: Lines,
}

impl Container {
    /// Waits until the command prints that it is ready.
    pub fn ready(&mut self) {
        self.out.find("ready", |line| line.starts_with("ready"));
    }

    /// Waits for this text in the log.
    pub fn log(&mut self, text: &str) -> String {
        self.err.find(text, |line| line.contains(text))
    }

    /// Waits for the end. Returns the exit code of the container.
    pub fn end(&mut self) -> i32 {
        let seen = self.err.seen();
        let child = &mut self.child;
        let status = *self.ended.get_or_insert_with(|| {
            let status = until(&format!("the container ends after {seen:#?}"), || {
                child.try_wait().expect("our child")
            });
            leftovers::forget(child.id());
            status.into()
        });
        match status {
            Status::Code(code) => code,
            Status::Signal(signal) => panic!("runc was killed by {signal}"),
        }
    }

    /// Likewise; None if the container does not end within this time.
    pub fn ends_within(&mut self, patience: Duration) -> Option<i32> {
        let handle = hold(self.child.id() as i32).expect("it is not reaped");
        let mut poll = libc::pollfd {
            fd: handle.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one valid structure.
        let done = unsafe { libc::poll(&raw mut poll, 1, patience.as_millis() as libc::c_int) };
        (done == 1).then(|| self.end())
    }

    /// The whole log, after the end.
    pub fn whole_log(&mut self) -> String {
        self.end();
        self.err.rest();
        self.err.seen().join("\n")
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "stdout: {:#?}\nstderr: {:#?}",
                self.out.seen(),
                self.err.seen()
            );
        }
        if self.ended.is_none() {
            leftovers::output(
                self.place
                    .0
                    .runc()
                    .args(["delete", "--force", &self.place.0.name]),
            );
            let _ = self.child.kill();
            let _ = self.child.wait();
            leftovers::forget(self.child.id());
        }
    }
}

/// The fields are dropped in this order: the container first.
pub struct OnTerminal {
    pub place: Place,
    pub pty: Pty,
}
