//! The relay in a real unit: the messages that it relays, those that it drops, and the files that
//! it leaves.

use crate::common::{self, skip};
use crate::machine::{TEST, tell};
use crate::unit::Unit;

/// The command's NOTIFY_SOCKET.
fn address(unit: &Unit) -> String {
    let child = unit.child_pid();
    common::until("the command has its environment", || {
        let environ = unit.proc(child, "environ");
        let address = environ
            .split('\0')
            .find_map(|variable| variable.strip_prefix("NOTIFY_SOCKET="))?;
        (address != "/run/systemd/notify").then(|| address.to_owned())
    })
}

#[test]
fn a_stranger_is_refused() {
    let words = "send READY=1 wait USR1 end send STATUS=mine say told wait TERM end exit 0";
    let Some(unit) = Unit::new(
        "stranger",
        &format!("Type=notify\nExecStart=@B -- @N {words}"),
    ) else {
        return;
    };
    unit.start();
    let address = address(&unit);
    let socket = format!("NOTIFY_SOCKET={address}");
    // The stranger stays until bowout has checked it. After its exit, bowout could not find out
    // whose descendant it was.
    let mut stranger = unit
        .machine()
        .command(["env", &socket, &format!("{TEST}/notifier")]);
    stranger.args(["send", "READY=1\\nSTATUS=stranger", "wait", "TERM", "end"]);
    stranger
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null());
    let mut stranger = Stranger(common::leftovers::spawn(&mut stranger).expect("a stranger"));
    let log = unit.logs("dropped 1 sd_notify message");
    unit.kill("USR1");
    unit.says("told");
    unit.wait("StatusText", "mine");
    tell(&format!(
        "{address}: '{}', StatusText={}",
        log.message,
        unit.get("StatusText")
    ));
    assert!(
        log.message.contains("(uid 0) is not a descendant") && log.priority == 4,
        "{log:?}"
    );
    stranger.end();
    unit.stop();
    assert_eq!(unit.ended().get("Result"), "success");
}

struct Stranger(std::process::Child);

impl Stranger {
    /// Ends the stranger. nsenter exits with the process that it has started.
    fn end(&mut self) {
        let pid = self.0.id();
        common::until("the stranger ends", || {
            for child in common::children(pid as i32) {
                // SAFETY: no pointers. nsenter is alive or has not been reaped yet, and so is its
                // child.
                unsafe { libc::kill(child, libc::SIGTERM) };
            }
            self.0
                .try_wait()
                .is_ok_and(|status| status.is_some())
                .then_some(())
        });
        common::leftovers::forget(pid);
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.end();
    }
}

/// The service runs as another user. The socket is in the unit's own directory, and the stop
/// removes it.
#[test]
fn the_socket_of_a_service_of_its_own_user_is_in_its_runtime_directory_and_goes_with_it() {
    let words = "send READY=1\\nSTATUS=heard say told wait TERM end exit 0";
    let lines = "Type=notify\nUser=nobody\nRuntimeDirectory=@U\nRuntimeDirectoryPreserve=yes";
    let Some(unit) = Unit::new("user", &format!("{lines}\nExecStart=@B -- @N {words}")) else {
        return;
    };
    unit.start();
    let address = address(&unit);
    assert!(
        address.starts_with(&format!("/run/{}/bowout-", unit.name)),
        "{address}"
    );
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(unit.machine().path(&address))
            .expect("a socket")
            .permissions(),
    );
    assert_eq!(
        (unit.get("StatusText").as_str(), mode & 0o777),
        ("heard", 0o600)
    );
    unit.stop();
    assert_eq!(unit.ended().get("Result"), "success");
    let left: Vec<_> = std::fs::read_dir(unit.machine().path(format!("/run/{}", unit.name)))
        .expect("the directory, which systemd preserves")
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    tell(&format!("{address}, mode {mode:o}; left behind: {left:?}"));
    assert!(left.is_empty(), "{left:?}");
}

/// A Type=notify service starts, whichever directories the command may write to, and whichever user
/// or network it changes to.
#[test]
fn a_command_in_a_sandbox_becomes_ready() {
    let strict = "ProtectSystem=strict";
    let closed = "RuntimeDirectory=@U\nRuntimeDirectoryMode=0700";
    let (network, user) = (
        "unshare -n",
        "setpriv --reuid=65534 --regid=65534 --clear-groups",
    );
    for (name, lines, wrap, place) in [
        ("network", "", network, "/run/bowout-"),
        ("user-closed", closed, user, "/run/bowout-"),
        ("open", "RuntimeDirectory=@U", user, "/run/open-"),
        (
            "strict",
            &format!("{strict}\nPrivateTmp=yes"),
            user,
            "/tmp/bowout-",
        ),
        (
            "strict-network",
            &format!("{strict}\nPrivateTmp=yes"),
            network,
            "/tmp/bowout-",
        ),
        (
            "strict-open",
            &format!("{strict}\nReadOnlyPaths=/tmp\nRuntimeDirectory=@U"),
            network,
            "/run/strict-open-",
        ),
        // Root can enter a directory of mode 0700, but its child cannot, as another user.
        (
            "strict-closed",
            &format!("{strict}\nReadOnlyPaths=/tmp\n{closed}"),
            user,
            "@",
        ),
        (
            "strict-none",
            &format!("{strict}\nReadOnlyPaths=/tmp"),
            user,
            "@",
        ),
        ("dynamic", "DynamicUser=yes", "", "/tmp/bowout-"),
        (
            "dynamic-closed",
            &format!("DynamicUser=yes\n{closed}"),
            "",
            "/run/dynamic-closed-",
        ),
    ] {
        let command = format!(
            "ExecStart=@B -- {wrap} @N send READY=1\\\\nSTATUS=heard say told wait TERM end exit 0"
        );
        let Some(unit) = Unit::new(name, &format!("Type=notify\n{lines}\n{command}")) else {
            return;
        };
        unit.start();
        assert_eq!(
            (
                unit.get("ActiveState").as_str(),
                unit.get("StatusText").as_str()
            ),
            ("active", "heard"),
            "{name}"
        );
        let address = address(&unit);
        tell(&format!("{name}: {address}"));
        assert!(address.starts_with(place), "{name}: {address}");
        let seen_by_bowout = format!("/proc/{}/root{address}", unit.main_pid());
        assert!(
            place == "@" || unit.machine().path(&seen_by_bowout).exists(),
            "{name}"
        );
        unit.stop();
        assert_eq!(unit.ended().get("Result"), "success", "{name}");
        assert!(
            !unit.machine().path(&address).exists(),
            "{name}: {address} is left"
        );
    }
}

#[test]
fn a_unit_that_may_not_open_sockets_runs_without_a_relay() {
    let lines = "Type=exec\nNotifyAccess=main\nRestrictAddressFamilies=AF_INET\nSystemCallArchitectures=native";
    let command = "ExecStart=@B -- @N sayenv NOTIFY_SOCKET end say ready wait TERM end exit 0";
    let Some(unit) = Unit::new("families", &format!("{lines}\n{command}")) else {
        return;
    };
    unit.start();
    unit.says("ready");
    let restricted = unit
        .out()
        .contains(&"NOTIFY_SOCKET=/run/systemd/notify".to_owned());
    if skip(
        (!restricted && unit.proc(unit.main_pid(), "status").contains("Seccomp:\t0"))
            .then(|| "no seccomp".into()),
    ) {
        return;
    }
    assert!(restricted, "{:?}", unit.out());
    let log = unit.logs("cannot relay sd_notify messages");
    tell(&format!("<{}> {}", log.priority, log.message));
    unit.stop();
    assert_eq!(unit.ended().get("Result"), "success");
}

/// The messages that a command sends right before its exit are relayed as well, however many are
/// queued.
#[test]
fn the_last_message_of_a_command_is_passed_on() {
    let words = "send READY=1 wait USR1 end flood 400 send STATUS=last-words exit 0";
    let lines = format!("Type=notify\nRemainAfterExit=yes\nExecStart=@B -- @N {words}");
    let Some(unit) = Unit::new("last-words", &lines) else {
        return;
    };
    unit.start();
    // bowout is stopped meanwhile. When it continues, it finds the queued messages at once. It also
    // finds the command's exit, unless the queue is full and the command waits for room.
    let (bowout, child) = (unit.main_pid(), unit.child_pid());
    unit.signal("STOP", bowout);
    unit.signal("USR1", child);
    common::until("the command has ended, or waits for room", || {
        let stat = unit.proc(child, "stat");
        let state = stat.rsplit(')').next()?.trim_start().chars().next();
        (state == Some('Z'))
            .then_some(())
            .or_else(|| unit.proc(child, "wchan").contains("unix").then_some(()))
    });
    unit.signal("CONT", bowout);
    unit.wait("SubState", "exited");
    let status = unit.get("StatusText");
    let room = crate::machine::both(
        &unit
            .machine()
            .run(["cat", "/proc/sys/net/unix/max_dgram_qlen"]),
    );
    tell(&format!(
        "401 messages at the end (a socket has room for {room}): StatusText={status}"
    ));
    assert_eq!(status, "last-words");
}

/// Starts a unit that sends this message. systemd unescapes a backslash in ExecStart=, so each is
/// doubled. The notifier unescapes `\n`, `\r` and `\0`.
fn run_with_message(before: &str, text: &str) -> Option<Unit> {
    let words = format!(
        "send {} send READY=1\\\\0 wait TERM end exit 0",
        text.replace('\\', "\\\\")
    );
    let unit = Unit::new(
        "message",
        &format!("Type=notify\nExecStart={before}@N {words}"),
    )?;
    // The message is sent before READY=1, so systemd has read it when the service has started.
    unit.start();
    Some(unit)
}

#[test]
fn systemd_reads_the_same_from_bowout_as_from_the_command() {
    for text in [
        "STATUS=C:\\dir\\rERRNO=2",
        "STATUS=a\\\\nb\\rSTATUS=c\\nERRNO=2\\0",
        "\\rST\\ATUS=C:\\\\dir\\n\\n\\rERRNO=02",
    ] {
        let shown = ["", "@B -- "].map(|before| {
            let unit = run_with_message(before, text)?;
            let shown = unit.show(&["StatusText", "StatusErrno", "NotifyAccess"]);
            unit.stop();
            Some(shown)
        });
        let [Some(direct), Some(wrapped)] = shown else {
            return;
        };
        tell(&format!("{text}: {wrapped:?}"));
        assert!(
            !direct.get("StatusText").is_empty() && direct.get("StatusErrno") == "2",
            "{text}: {direct:?}"
        );
        assert_eq!(direct, wrapped, "{text}: without bowout, with it");
    }
}

#[test]
fn no_spelling_of_a_line_takes_bowouts_place() {
    for text in [
        "STATUS=a\\rNOTIFYACCESS=all",
        "STATUS=a\\nNOTIFY\\ACCESS\\=all\\0",
        "STATUS=a\\n\\\\rNOTIFYACCESS=all\\nMAINPID\\=^PID",
    ] {
        let Some(unit) = run_with_message("", text) else {
            return;
        };
        let access = unit.get("NotifyAccess");
        unit.stop();
        let Some(unit) = run_with_message("@B -- ", text) else {
            return;
        };
        let main = unit.proc(unit.main_pid(), "comm");
        tell(&format!(
            "{text}: NotifyAccess={access} without bowout, {} with it",
            unit.get("NotifyAccess")
        ));
        assert_eq!(
            (
                main.trim(),
                unit.get("NotifyAccess").as_str(),
                unit.get("StatusText").as_str()
            ),
            ("bowout", "main", "a")
        );
        // In the text with `\\r`, the carriage return is a part of the name.
        assert_eq!(
            access == "all",
            !text.contains("\\\\r"),
            "{text}: the message says nothing to systemd"
        );
        unit.stop();
    }
}
