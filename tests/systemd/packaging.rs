//! The examples in packaging/systemd: systemd finds no fault with them, and they behave as their
//! comments describe.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::OnceLock;

use crate::common::until;
use crate::machine::{Machine, TEST, both, machine, tell};
use crate::unit::reload;

const SERVICES: [&str; 3] = [
    "bowout@.service",
    "redis-server.service.d/bowout.conf",
    "web.service",
];
const ETC: &str = "/etc/systemd/system";

fn example(name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("packaging/systemd")
        .join(name);
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn put(machine: &Machine, path: &str, text: impl AsRef<[u8]>, mode: u32) {
    let path = machine.path(path);
    fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
    fs::write(&path, text).expect("a file");
    fs::set_permissions(&path, Permissions::from_mode(mode)).expect("permissions");
}

/// Installs the examples at the paths that a reader would use, and programs at the paths that they
/// name.
fn installed() -> Option<&'static Machine> {
    static DONE: OnceLock<()> = OnceLock::new();
    let machine = machine()?;
    DONE.get_or_init(|| {
        // A copy, not a link: ExecPaths= names the file that is executed.
        let bowout = fs::read(machine.path(format!("{TEST}/bowout"))).expect("bowout");
        put(machine, "/usr/bin/bowout", bowout, 0o755);
        let script = |words: &str| format!("#!/bin/sh\nexec {TEST}/notifier {words}\n");
        for name in ["test_instance", "example"] {
            let words = "say ready wait HUP end say reloaded wait TERM end exit 0";
            put(
                machine,
                &format!("/usr/local/bin/{name}"),
                script(words),
                0o755,
            );
        }
        let web = format!("#!/bin/sh\nexec {TEST}/server.py\n");
        put(machine, "/usr/local/bin/web", web, 0o755);
        for name in SERVICES.into_iter().chain(["web.socket"]) {
            put(machine, &format!("{ETC}/{name}"), example(name), 0o644);
        }
        assert_eq!(reload(machine), "");
    });
    Some(machine)
}

#[test]
fn systemd_finds_no_fault_with_the_examples() {
    let Some(machine) = installed() else { return };
    for unit in [
        &format!("{ETC}/bowout@.service"),
        "/usr/lib/systemd/system/redis-server.service",
        &format!("{ETC}/web.socket"),
        &format!("{ETC}/web.service"),
    ] {
        let output = machine.run(["systemd-analyze", "verify", "--man=no", unit]);
        tell(&format!(
            "systemd-analyze verify {unit}: {}, '{}'",
            output.status,
            both(&output)
        ));
        assert!(
            output.status.success() && both(&output).is_empty(),
            "{unit}: {}",
            both(&output)
        );
    }
    // A bad unit shows that the program does report faults.
    put(
        machine,
        "/run/verify/bad.service",
        "[Service]\nExecStart=/no/such/program\nKillMode=mixd\n",
        0o644,
    );
    let output = machine.run([
        "systemd-analyze",
        "verify",
        "--man=no",
        "/run/verify/bad.service",
    ]);
    assert!(
        !output.status.success() && both(&output).contains("kill mode"),
        "{}",
        both(&output)
    );
}

#[test]
fn every_service_is_stopped_in_mixed_mode_and_says_why() {
    for name in SERVICES {
        let text = example(name);
        let lines: Vec<&str> = text.lines().collect();
        let at = lines
            .iter()
            .position(|line| *line == "KillMode=mixed")
            .unwrap_or_else(|| panic!("{name}: KillMode=mixed"));
        let why = lines[..at]
            .iter()
            .rev()
            .take_while(|line| line.starts_with('#'))
            .any(|line| line.starts_with("# mixed: "));
        assert!(why, "{name}: no comment says why");
    }
}

fn get(machine: &Machine, unit: &str, name: &str) -> String {
    machine.systemctl(["show", "--value", "--property", name, unit])
}

fn ends_well(machine: &Machine, unit: &str) {
    assert_eq!(machine.systemctl(["stop", unit]), "");
    let end = (
        get(machine, unit, "ActiveState"),
        get(machine, unit, "Result"),
    );
    tell(&format!("{unit}: {end:?}"));
    assert_eq!(end, ("inactive".into(), "success".into()));
}

fn main_is_bowout(machine: &Machine, unit: &str) {
    let pid = get(machine, unit, "MainPID");
    let name =
        fs::read_to_string(machine.path(format!("/proc/{pid}/comm"))).expect("a main process");
    assert_eq!(
        (name.trim(), get(machine, unit, "ActiveState").as_str()),
        ("bowout", "active")
    );
}

#[test]
fn the_template_starts_reloads_and_fails_where_there_is_no_program() {
    let Some(machine) = installed() else { return };
    let unit = "bowout@example.service";
    assert_eq!(machine.systemctl(["start", unit]), "");
    main_is_bowout(machine, unit);
    let logged = |what: &str| {
        until(&format!("{unit} logs {what}"), || {
            machine.run(["journalctl", "--sync"]);
            both(&machine.run(["journalctl", "--no-pager", "-u", unit]))
                .contains(what)
                .then_some(())
        });
    };
    logged("ready");
    assert_eq!(machine.systemctl(["reload", unit]), "");
    logged("reloaded");
    ends_well(machine, unit);
    let unit = "bowout@missing.service";
    assert!(machine.systemctl(["start", unit]).contains("failed"));
    until("the last of its tries has failed", || {
        (get(machine, unit, "ActiveState") == "failed").then_some(())
    });
    assert_eq!(get(machine, unit, "ExecMainStatus"), "127");
    machine.systemctl(["reset-failed", unit]);
}

/// The output of redis-cli.
fn redis(machine: &Machine, words: &[&str]) -> String {
    both(&machine.run([&["redis-cli"], words].concat()))
}

#[test]
fn the_drop_in_runs_debians_redis_server_in_its_own_sandbox() {
    let Some(machine) = installed() else { return };
    let unit = "redis-server.service";
    // Debian's own unit has a sandbox, in which the drop-in has to work.
    assert_eq!(
        get(machine, unit, "FragmentPath"),
        "/usr/lib/systemd/system/redis-server.service"
    );
    assert_eq!(get(machine, unit, "NoExecPaths"), "/");
    let start = get(machine, unit, "ExecStart");
    assert!(
        start.matches("argv[]=").count() == 1 && start.contains("argv[]=/usr/bin/bowout"),
        "{start}"
    );
    let log = || {
        machine.run(["journalctl", "--sync"]);
        both(&machine.run(["journalctl", "--no-pager", "-u", unit]))
    };
    let started = machine.systemctl(["start", unit]);
    assert_eq!(started, "", "{}", log());
    main_is_bowout(machine, unit);
    assert_eq!(
        get(machine, unit, "StatusText"),
        "Ready to accept connections"
    );
    assert_eq!(redis(machine, &["set", "kept", "by the stop"]), "OK");
    ends_well(machine, unit);
    let stopped = log();
    tell(&stopped);
    assert!(
        stopped.contains("received SIGTERM from")
            && stopped.contains("sent SIGTERM to '/usr/bin/redis-server'")
            && stopped.contains("'/usr/bin/redis-server' (pid ")
            && stopped.contains("exited with 0"),
        "{stopped}"
    );
    // redis-server writes its data when it exits after SIGTERM; SIGKILL would lose them.
    assert_eq!(machine.systemctl(["start", unit]), "", "{}", log());
    assert_eq!(redis(machine, &["get", "kept"]), "by the stop");
    ends_well(machine, unit);
}

/// The answer of the web server, which is its PID.
fn fetch(machine: &Machine, path: &str) -> String {
    let client = "import sys, urllib.request as web; \
                  print(web.urlopen('http://127.0.0.1:8080' + sys.argv[1]).read().decode())";
    let answer = both(&machine.run(["python3", "-c", client, path]));
    answer
        .strip_prefix("answered by ")
        .unwrap_or_else(|| panic!("{path}: {answer}"))
        .to_owned()
}

/// A real HTTP server, which the first connection starts. systemd holds the socket: while the
/// service restarts, no connection is refused and no request is cut off.
#[test]
fn the_pair_starts_at_a_connection_and_loses_none_in_a_restart() {
    let Some(machine) = installed() else { return };
    let unit = "web.service";
    assert_eq!(machine.systemctl(["start", "web.socket"]), "");
    assert_eq!(get(machine, unit, "ActiveState"), "inactive");
    let before = fetch(machine, "/");
    main_is_bowout(machine, unit);
    let main = get(machine, unit, "MainPID");
    assert_ne!(before, main, "the server is bowout's child");
    let clients: Vec<_> = (0..8)
        .map(|_| std::thread::spawn(move || fetch(machine, "/slow")))
        .collect();
    // An established connection to port 8080.
    until("a request is under way", || {
        let table = fs::read_to_string(machine.path("/proc/1/net/tcp")).expect("a table");
        table
            .lines()
            .any(|line| {
                let words: Vec<&str> = line.split_whitespace().collect();
                words[1].ends_with(":1F90") && words[3] == "01"
            })
            .then_some(())
    });
    assert_eq!(machine.systemctl(["restart", unit]), "");
    let after = fetch(machine, "/");
    assert_ne!(get(machine, unit, "MainPID"), main);
    assert_ne!(after, before);
    let answers: Vec<String> = clients
        .into_iter()
        .map(|client| client.join().expect("an answer"))
        .collect();
    let old = answers.iter().filter(|pid| **pid == before).count();
    let new = answers.iter().filter(|pid| **pid == after).count();
    tell(&format!(
        "answered by the old one: {old}, by the new one: {new}"
    ));
    assert_eq!(old + new, answers.len(), "{answers:?}");
    assert_eq!(machine.systemctl(["stop", "web.socket"]), "");
    ends_well(machine, unit);
}
