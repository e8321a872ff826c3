//! podman: bowout as its `--init`, its stop and its kill, and the images of packaging/docker.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use crate::common::{Dir, Lines, Status, leftovers, skip, until};
use crate::engine::{both, bowout, no_containers, put, put_busybox, run};

/// The engine's settings on every machine. It need not raise the limits, because a host may not let
/// it.
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

/// An engine with a storage of its own, and in it an image with busybox alone.
pub struct Podman {
    pub dir: Dir,
}

impl Podman {
    pub fn new() -> Self {
        let podman = Self { dir: Dir::new() };
        podman.dir.write("containers.conf", SETTINGS, 0o600);
        let image = podman.dir.file("image");
        put_busybox(&image);
        podman.import(&image, IMAGE);
        podman
    }

    /// Makes an image of a directory.
    pub fn import(&self, root: &Path, name: &str) {
        let tar = self.dir.file("image.tar");
        run(Command::new("tar")
            .arg("-C")
            .arg(root)
            .arg("-cf")
            .arg(&tar)
            .arg("."));
        self.run(&["import", "--quiet", tar.to_str().expect("text"), name]);
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("podman");
        command.env("CONTAINERS_CONF", self.dir.file("containers.conf"));
        command
            .arg("--root")
            .arg(self.dir.file("storage"))
            .arg("--runroot")
            .arg(self.dir.file("run"));
        command
            .arg("--tmpdir")
            .arg(self.dir.file("tmp"))
            .args(["--storage-driver", "vfs"])
            .args(words);
        command
    }

    pub fn run(&self, words: &[&str]) -> String {
        run(&mut self.command(words))
    }

    /// Starts a container of this image in the foreground.
    pub fn start(&self, options: &[&str], image: &str, command: &[&str]) -> Attached<'_> {
        let name = format!("bowout-{}", leftovers::unique());
        let words = [
            &["run", "--name", &name, "--network", "none"],
            options,
            &[image],
            command,
        ]
        .concat();
        let mut command = self.command(&words);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = leftovers::spawn(&mut command).expect("podman");
        let out = Lines::of(child.stdout.take().expect("a pipe"));
        let err = Lines::of(child.stderr.take().expect("a pipe"));
        Attached {
            podman: self,
            name,
            child,
            out,
            err,
        }
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        for words in [
            &["pod", "rm", "--all", "--force", "--time", "0"][..],
            &["rm", "--all", "--force", "--time", "0"],
        ] {
            leftovers::output(&mut self.command(words));
        }
        // A removal of the files alone would fail at mounted file systems.
        leftovers::output(&mut self.command(&["unmount", "--all", "--force"]));
        for name in fs::read_dir(self.dir.file("storage"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let _ = fs::remove_dir_all(name.path());
        }
    }
}

/// A container in the foreground, which is removed with this value.
pub struct Attached<'a> {
    podman: &'a Podman,
    pub name: String,
    child: Child,
    pub out: Lines,
    pub err: Lines,
}

impl Attached<'_> {
    pub fn ready(&mut self) {
        self.out.find("ready", |line| line.starts_with("ready"));
    }

    pub fn end(&mut self) -> i32 {
        let child = &mut self.child;
        let status = until("the container ends", || {
            child.try_wait().expect("our child")
        })
        .into();
        let Status::Code(code) = status else {
            panic!("podman died: {status:?}")
        };
        code
    }

    /// The whole log, after the end.
    pub fn log(&mut self) -> String {
        self.err.rest();
        self.err.seen().join("\n")
    }
}

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "stdout: {:#?}\nstderr: {:#?}",
                self.out.seen(),
                self.err.seen()
            );
        }
        leftovers::output(
            &mut self
                .podman
                .command(&["rm", "--force", "--time", "0", &self.name]),
        );
        let _ = self.child.kill();
        let _ = self.child.wait();
        leftovers::forget(self.child.id());
    }
}

const IMAGE: &str = "localhost/busybox:test";

/// The options that make podman put bowout before the command.
fn init() -> [&'static str; 3] {
    ["--init", "--init-path", bowout().to_str().expect("text")]
}

#[test]
fn podmans_init_needs_no_option() {
    if skip(no_containers(&["podman", "runc"])) {
        return;
    }
    let podman = Podman::new();
    let script = "echo ready; tr '\\0' ' ' </proc/1/cmdline; exit 3";
    let mut container = podman.start(&init(), IMAGE, &["busybox", "sh", "-c", script]);
    assert_eq!(container.end(), 3);
    let out = container.out.rest().join("\n");
    assert!(out.contains("/run/podman-init -- busybox sh -c"), "{out}");
    assert!(
        container.log().contains("bowout: 'busybox' (pid "),
        "{}",
        container.log()
    );
    let mut container = podman.start(&init(), IMAGE, &["/no/such/command"]);
    assert_eq!(container.end(), 127);
}

#[test]
fn podman_stop_ends_it_before_the_engine_loses_patience() {
    if skip(no_containers(&["podman", "runc"])) {
        return;
    }
    let podman = Podman::new();
    // The command dies of SIGTERM, which it would not do as PID 1.
    let mut container = podman.start(
        &init(),
        IMAGE,
        &["busybox", "sh", "-c", "echo ready; exec busybox sleep 1000"],
    );
    container.ready();
    podman.run(&["stop", "--time", "60", &container.name]);
    assert_eq!(container.end(), 143);
    // The command ignores SIGTERM: bowout kills it and logs that. The engine's SIGKILL would leave
    // no last line.
    let options = [&init()[..], &["--env", "BOWOUT_GRACE=1s"]].concat();
    let stubborn = "trap '' TERM; sleep 1000 & echo ready; wait";
    let mut container = podman.start(&options, IMAGE, &["busybox", "sh", "-c", stubborn]);
    container.ready();
    podman.run(&["stop", "--time", "60", &container.name]);
    assert_eq!(container.end(), 137);
    let log = container.log();
    assert!(
        log.contains(
            "1s grace period expired after SIGTERM from outside; killed 1 descendant, too ("
        ),
        "{log}"
    );
}

#[test]
fn podman_kill_is_forwarded() {
    if skip(no_containers(&["podman", "runc"])) {
        return;
    }
    let podman = Podman::new();
    let script = "trap 'echo reloaded' HUP; trap 'echo told; exit 4' USR1; echo ready; while :; do sleep 1000 & wait $!; done";
    let mut container = podman.start(&init(), IMAGE, &["busybox", "sh", "-c", script]);
    container.ready();
    podman.run(&["kill", "--signal", "HUP", &container.name]);
    container.out.find("reloaded", |line| line == "reloaded");
    podman.run(&["kill", "--signal", "USR1", &container.name]);
    container.out.find("told", |line| line == "told");
    assert_eq!(container.end(), 4);
    assert!(
        container.log().contains("forwarded SIGHUP from outside"),
        "{}",
        container.log()
    );
}

/// Builds the last stage of packaging/docker/Dockerfile as it is, with files that stand for those
/// of its first stage.
pub fn build_the_example(podman: &Podman) -> &'static str {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/docker/Dockerfile");
    let text = fs::read_to_string(path).expect("the Dockerfile");
    let last = text.rfind("\nFROM scratch").expect("a stage from scratch");
    let file = podman.dir.write("Dockerfile", &text[last + 1..], 0o600);
    let built = podman.dir.file("built/out");
    example_root(&built);
    let words = [
        "--tag",
        EXAMPLE,
        "--build-context",
        &format!("build={}", podman.dir.file("built").display()),
        "--file",
    ];
    let mut command = podman.command(&["build", "--quiet", "--network", "none"]);
    run(command.args(words).arg(file).arg(podman.dir.file("built")));
    EXAMPLE
}

const EXAMPLE: &str = "localhost/bowout-example:test";

/// The files that the first stage leaves in /out.
fn example_root(out: &Path) {
    let at = |name: &str| -> PathBuf { out.join(name) };
    put_busybox(out);
    fs::copy(bowout(), at("bin/bowout")).expect("copied");
    fs::create_dir_all(at("www")).expect("a directory");
    fs::write(at("www/index.html"), "ready\n").expect("written");
    let _ = symlink("busybox", at("bin/httpd"));
}

#[test]
fn the_image_of_packaging_serves_and_stops_at_once() {
    if skip(no_containers(&["podman", "runc"])) {
        return;
    }
    let podman = Podman::new();
    let image = build_the_example(&podman);
    serves_and_stops_at_once(&podman, image, "'/bin/busybox'");
}

/// The image's own command, a web server, answers with "ready" and dies of SIGTERM at `podman
/// stop`.
fn serves_and_stops_at_once(podman: &Podman, image: &str, name: &str) {
    let mut container = podman.start(&[], image, &[]);
    // The request is from inside, because the container has no other network.
    until("the server answers", || {
        let fetch = [
            "exec",
            &container.name,
            "/bin/busybox",
            "wget",
            "-q",
            "-O",
            "-",
            "http://127.0.0.1:8080/",
        ];
        let output = leftovers::output(&mut podman.command(&fetch));
        both(&output).contains("ready").then_some(())
    });
    podman.run(&["stop", "--time", "60", &container.name]);
    assert_eq!(container.end(), 143);
    let log = container.log();
    assert!(
        log.contains(&format!(
            "received SIGTERM from outside: sent SIGTERM to {name}"
        )),
        "{log}"
    );
}

fn docker(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("packaging/docker")
        .join(name)
}

/// The image that a Dockerfile of packaging/docker names in `FROM` or `--from=`.
fn named(dockerfile: &str, prefix: &str) -> String {
    let text = fs::read_to_string(docker(dockerfile)).expect("the Dockerfile");
    let mut lines = text.lines();
    let line = lines.find_map(|line| line.strip_prefix(prefix));
    let line = line.unwrap_or_else(|| panic!("{dockerfile}: no {prefix}"));
    line.split(' ').next().expect("a word").to_owned()
}

/// Imports an image under the name of the one that an application builds on, because no registry is
/// contacted.
fn import_the_base(podman: &Podman, name: &str) {
    let root = podman.dir.file("base");
    put_busybox(&root);
    for applet in ["chmod", "httpd", "sha256sum"] {
        symlink("busybox", root.join("bin").join(applet)).expect("a link");
    }
    podman.import(&root, name);
}

/// Builds an application's own folder; `words` are further options of `build`.
fn build_the_application(podman: &Podman, dockerfile: &str, words: &[&str]) -> Output {
    let folder = podman.dir.file("application");
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join("index.html"), "ready\n").expect("written");
    fs::copy(docker(dockerfile), folder.join("Dockerfile")).expect("copied");
    let mut build = podman.command(&["build", "--quiet", "--network", "none", "--pull=never"]);
    build.args(["--tag", APPLICATION]).args(words).arg(folder);
    leftovers::output(&mut build)
}

const APPLICATION: &str = "localhost/application:test";

#[test]
fn the_released_image_gives_an_application_its_bowout() {
    if skip(no_containers(&["podman", "runc"])) {
        return;
    }
    let podman = Podman::new();
    import_the_base(&podman, &named("app-image.Dockerfile", "FROM "));
    let image = named("app-image.Dockerfile", "COPY --from=");
    let programs = podman.dir.file("programs");
    put(&programs, bowout(), "bowout-amd64");
    let mut build = podman.command(&["build", "--quiet", "--build-arg", "TARGETARCH=amd64"]);
    build
        .args(["--tag", &image, "--file"])
        .arg(docker("image.Dockerfile"))
        .arg(&programs);
    run(&mut build);
    // The image contains bowout and nothing else.
    let files = podman.dir.file("files.tar");
    let id = podman.run(&["create", &image]);
    let to = files.to_str().expect("text");
    podman.run(&["export", "--output", to, id.trim()]);
    let listed = run(Command::new("tar").arg("-tf").arg(&files));
    let made = ["dev/", "etc/", "proc/", "run/", "sys/", "tmp/", "var/"];
    let own = listed
        .lines()
        .filter(|line| !made.iter().any(|one| line.starts_with(one)));
    assert_eq!(own.collect::<Vec<_>>(), ["bowout"], "{listed}");
    let mut container = podman.start(&[], &image, &["--version"]);
    assert_eq!(container.end(), 0);
    let version = format!("bowout {}", env!("CARGO_PKG_VERSION"));
    assert_eq!(container.out.rest(), [version]);
    let built = build_the_application(&podman, "app-image.Dockerfile", &[]);
    assert!(built.status.success(), "{}", both(&built));
    serves_and_stops_at_once(&podman, APPLICATION, "'httpd'");
}

#[test]
fn an_application_gets_bowout_by_url_and_checksum() {
    if skip(no_containers(&["podman", "runc"])) {
        return;
    }
    let podman = Podman::new();
    import_the_base(&podman, &named("app-url.Dockerfile", "FROM "));
    let url = format!("BOWOUT_URL={}", serve(fs::read(bowout()).expect("bowout")));
    let sum = run(Command::new("sha256sum").arg(bowout()));
    let sum = sum.split(' ').next().expect("a checksum");
    let other = format!("BOWOUT_SHA256={}", sum.replace(|_| true, "0"));
    let refused = build_the_application(
        &podman,
        "app-url.Dockerfile",
        &["--build-arg", &url, "--build-arg", &other],
    );
    assert!(
        !refused.status.success() && both(&refused).contains("did NOT match"),
        "{}",
        both(&refused)
    );
    let sum = format!("BOWOUT_SHA256={sum}");
    let words = ["--build-arg", &url, "--build-arg", &sum];
    let built = build_the_application(&podman, "app-url.Dockerfile", &words);
    assert!(built.status.success(), "{}", both(&built));
    serves_and_stops_at_once(&podman, APPLICATION, "'httpd'");
}

/// Starts a web server on this machine's loopback, which has one file. Returns its URL.
fn serve(file: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut request = BufReader::new(stream.try_clone().expect("the connection"));
            let mut line = String::new();
            while request.read_line(&mut line).is_ok_and(|read| read > 2) {
                line.clear();
            }
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                file.len()
            );
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.write_all(&file);
        }
    });
    format!("http://{address}/bowout")
}
