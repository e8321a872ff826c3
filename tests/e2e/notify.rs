//! The relay of sd_notify messages: the messages that a manager (the test here) receives from
//! bowout, and those that it does not (sd_notify(3)). Under a real systemd: tests/systemd.

use std::fs;
use std::io::{Error, ErrorKind, Write};
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::time::Duration;

use crate::common::{
    BOWOUT, Dir, Running, SOON, Start, Status, homes, leftovers, not_root, notifier, probe, skip,
    timed, until, watchdog,
};

const TERM: i32 = libc::SIGTERM;
const USR1: i32 = libc::SIGUSR1;
const LONGEST: usize = 4096;

/// Runs the notifier with these words; a `|` between two actions is for the reader only.
pub fn say(start: Start, words: &str) -> Running {
    let all: Vec<&str> = words.split(' ').filter(|word| *word != "|").collect();
    start.command([notifier().to_str().expect("text")].into_iter().chain(all))
}

/// A message that the manager has received.
#[derive(Debug)]
pub struct Message {
    pub pid: i32,
    pub text: Vec<u8>,
    pub descriptors: Vec<OwnedFd>,
}

impl Message {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.text).into_owned()
    }
}

/// A service manager's end of the socket.
pub struct Manager {
    socket: UnixDatagram,
    /// As in NOTIFY_SOCKET.
    pub address: String,
    pub dir: Dir,
}

impl Manager {
    pub fn new() -> Self {
        let dir = Dir::new();
        let path = dir.file("manager");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        Self::on(socket, path.to_str().expect("text").to_owned(), dir)
    }

    fn hidden() -> Self {
        let name = format!("bowout-manager-{}", leftovers::unique());
        let address = SocketAddr::from_abstract_name(&name).expect("an address");
        Self::on(
            UnixDatagram::bind_addr(&address).expect("a socket"),
            format!("@{name}"),
            Dir::new(),
        )
    }

    fn on(socket: UnixDatagram, address: String, dir: Dir) -> Self {
        let on: libc::c_int = 1;
        let size = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: an int of the size that is passed.
        let set = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PASSCRED,
                (&raw const on).cast(),
                size,
            )
        };
        assert_eq!(set, 0, "SO_PASSCRED");
        // Lets another user's child write to it without the relay.
        if address.starts_with('/') {
            fs::set_permissions(&address, fs::Permissions::from_mode(0o666)).expect("permissions");
        }
        Self {
            socket,
            address,
            dir,
        }
    }

    pub fn start(&self, options: &[&str]) -> Start {
        Start::new(options)
            .env("NOTIFY_SOCKET", &self.address)
            .env("RUNTIME_DIRECTORY", &self.dir.0)
    }

    /// Waits for the next message.
    pub fn hear(&self) -> Message {
        self.socket
            .set_read_timeout(Some(watchdog()))
            .expect("a timeout");
        self.receive(0)
            .unwrap_or_else(|error| panic!("watchdog: no message: {error}"))
    }

    /// The next message, if one has arrived already.
    pub fn heard(&self) -> Option<Message> {
        match self.receive(libc::MSG_DONTWAIT) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            message => Some(message.expect("a message")),
        }
    }

    pub fn hears(&self, text: &str) -> Message {
        let message = self.hear();
        assert_eq!(message.text(), text);
        message
    }

    /// The same, past the stop messages that bowout repeats every 500 ms.
    fn hears_past_the_stop(&self, text: &str) {
        loop {
            let heard = self.hear().text();
            if heard == text {
                return;
            }
            assert!(heard.starts_with("STOPPING=1\n"), "{heard}");
        }
    }

    #[allow(clippy::cast_ptr_alignment, reason = "read unaligned")]
    fn receive(&self, flags: libc::c_int) -> std::io::Result<Message> {
        let mut text = vec![0; 2 * LONGEST];
        let mut control = [0_u64; 200];
        let mut vector = libc::iovec {
            iov_base: text.as_mut_ptr().cast(),
            iov_len: text.len(),
        };
        let (mut descriptors, mut pid) = (vec![], 0);
        // SAFETY: the header points to buffers of the sizes that it names; the macros of cmsg(3)
        // walk their content; each descriptor is new, and nothing else owns it.
        let length = unsafe {
            let mut header: libc::msghdr = zeroed();
            header.msg_iov = &raw mut vector;
            header.msg_iovlen = 1;
            header.msg_control = control.as_mut_ptr().cast();
            header.msg_controllen = size_of_val(&control) as _;
            let length = libc::recvmsg(
                self.socket.as_raw_fd(),
                &raw mut header,
                flags | libc::MSG_CMSG_CLOEXEC,
            );
            if length < 0 {
                return Err(Error::last_os_error());
            }
            assert_eq!(
                header.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC),
                0,
                "truncated"
            );
            let mut part = libc::CMSG_FIRSTHDR(&raw const header);
            while !part.is_null() {
                let data = libc::CMSG_DATA(part);
                let size = (*part).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                match (*part).cmsg_type {
                    libc::SCM_RIGHTS => {
                        for at in 0..size / size_of::<libc::c_int>() {
                            let fd = data.cast::<libc::c_int>().add(at).read_unaligned();
                            descriptors.push(OwnedFd::from_raw_fd(fd));
                        }
                    }
                    libc::SCM_CREDENTIALS => pid = data.cast::<libc::ucred>().read_unaligned().pid,
                    other => panic!("control message {other}"),
                }
                part = libc::CMSG_NXTHDR(&raw const header, part);
            }
            length as usize
        };
        text.truncate(length);
        Ok(Message {
            pid,
            text,
            descriptors,
        })
    }
}

/// The inode of the pipe or file of a descriptor.
// 32 bits on 32-bit machines.
#[allow(clippy::useless_conversion)]
fn inode(descriptor: &OwnedFd) -> u64 {
    // SAFETY: the structure is filled in before it is read.
    unsafe {
        let mut stat: libc::stat = zeroed();
        assert_eq!(
            libc::fstat(descriptor.as_raw_fd(), &raw mut stat),
            0,
            "fstat"
        );
        stat.st_ino.into()
    }
}

/// The targets of the descriptors of a process.
fn descriptors(pid: i32) -> Vec<String> {
    let links = fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("a process")
        .flatten();
    links
        .filter_map(|entry| Some(fs::read_link(entry.path()).ok()?.to_str()?.to_owned()))
        .collect()
}

fn environ(pid: i32, name: &str) -> Vec<String> {
    let environ = fs::read(format!("/proc/{pid}/environ")).expect("a process");
    let all = environ
        .split(|byte| *byte == 0)
        .map(|variable| String::from_utf8_lossy(variable).into_owned());
    all.filter_map(|variable| Some(variable.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
        .collect()
}

/// The child's NOTIFY_SOCKET.
pub fn relay(bowout: &Running) -> String {
    let child = bowout.child_pid();
    // The child has bowout's environment, or none, until it is executed.
    until("the command is there", || {
        let name = fs::read_to_string(format!("/proc/{child}/comm")).ok()?;
        let addresses = environ(child, "NOTIFY_SOCKET");
        (name.starts_with("notifier") && !addresses.is_empty()).then(|| {
            let [address] = &addresses[..] else {
                panic!("not one: {addresses:?}")
            };
            address.clone()
        })
    })
}

/// Waits until the command reports that it is ready.
pub fn ready(bowout: &mut Running) {
    bowout.out.find("ready", |line| line == "ready");
}

/// The number of messages that the log reports as dropped.
pub fn dropped(log: &[String]) -> usize {
    let counts = log.iter().filter_map(|line| {
        line.strip_prefix("bowout: dropped ")?
            .split(' ')
            .next()?
            .parse::<usize>()
            .ok()
    });
    counts.sum()
}

#[test]
fn messages_come_from_bowout_byte_for_byte_and_in_order() {
    for home in homes() {
        for manager in [Manager::new(), Manager::hidden()] {
            let words = "send READY=1\\nSTATUS=é\\n\\nX_A=b | send \\n | size 4096 | flood 100 | wait TERM end | exit 0";
            let mut bowout = say(manager.start(&[]).at(home), words);
            manager.hears("READY=1\nSTATUS=é\n\nX_A=b");
            manager.hears("\n");
            let long = manager.hear();
            let same = b"STATUS="
                .iter()
                .copied()
                .chain((7..LONGEST).map(|at| b'!' + (at % 90) as u8));
            assert_eq!((long.text.len(), long.pid), (LONGEST, bowout.pid));
            assert!(long.text.iter().copied().eq(same), "{}", long.text());
            for n in 0..100 {
                assert_eq!(manager.hears(&format!("STATUS={n}")).pid, bowout.pid);
            }
            bowout.kill(TERM);
            assert!(
                manager.hear().text().starts_with("STOPPING=1\n"),
                "{home:?}"
            );
            assert_eq!(bowout.end(), Status::Code(0));
            assert_eq!(dropped(&bowout.log()), 0);
        }
    }
}

#[test]
fn a_message_that_no_manager_receives_is_dropped_whole_counted_and_its_descriptors_closed() {
    let manager = Manager::new();
    let words = "size 4097 | send STATUS=a\\0b | carry 3 \\0STATUS= | send STATUS=after | wait TERM end | exit 0";
    let mut bowout = say(manager.start(&[]), words);
    manager.hears("STATUS=after");
    assert_eq!(bowout.out.next().as_deref(), Some("closed"));
    bowout.kill(TERM);
    assert_eq!(bowout.end(), Status::Code(0));
    let log = bowout.log();
    assert_eq!(dropped(&log), 3, "{log:#?}");
    // The log names a reason.
    assert!(
        log.iter().any(|line| line.contains("4096 bytes"))
            || log.iter().any(|line| line.contains("NUL")),
        "{log:#?}"
    );
}

#[test]
fn as_many_descriptors_as_there_can_be_arrive_in_one_message_and_bowout_keeps_none() {
    for home in homes() {
        let manager = Manager::new();
        let words = "carry 253 FDSTORE=1\\nFDNAME=all | wait TERM end | exit 0";
        let mut bowout = say(manager.start(&[]).at(home), words);
        let message = manager.hears("FDSTORE=1\nFDNAME=all");
        assert_eq!((message.descriptors.len(), message.pid), (253, bowout.pid));
        let first = inode(&message.descriptors[0]);
        assert!(
            message
                .descriptors
                .iter()
                .all(|descriptor| inode(descriptor) == first)
        );
        let pipe = format!("pipe:[{first}]");
        until("bowout has closed its own", || {
            (!descriptors(bowout.pid).contains(&pipe)).then_some(())
        });
        drop(message);
        // No process has a write end left: the child sees the end of its pipe.
        assert_eq!(bowout.out.next().as_deref(), Some("closed"));
        bowout.kill(TERM);
        assert_eq!(bowout.end(), Status::Code(0));
    }
}

#[test]
fn a_barrier_is_passed_when_the_manager_has_read_all_before_it_and_not_earlier() {
    for home in homes() {
        let manager = Manager::new();
        let mut bowout = say(
            manager.start(&[]).at(home),
            "send READY=1 | send STATUS=a | barrier | send STATUS=b | wait TERM end | exit 0",
        );
        manager.hears("READY=1");
        manager.hears("STATUS=a");
        let barrier = manager.hears("BARRIER=1");
        assert_eq!(barrier.descriptors.len(), 1);
        // The child is still waiting when it receives this signal.
        bowout.kill(USR1);
        assert_eq!(bowout.out.next(), Some(format!("got {USR1}")), "{home:?}");
        assert!(manager.heard().is_none());
        drop(barrier);
        assert_eq!(bowout.out.next().as_deref(), Some("passed"));
        manager.hears("STATUS=b");
        bowout.kill(TERM);
        assert_eq!(bowout.end(), Status::Code(0));
    }
}

#[test]
fn a_full_manager_stalls_no_stop_and_loses_nothing() {
    let manager = Manager::new();
    // The test reads nothing until the child has no room left, which means that the relay has none
    // either.
    let mut bowout = say(
        manager.start(&["--grace", "30s"]),
        "flood | wait USR1 end | send STATUS=later | say on | wait TERM end | exit 5",
    );
    let sent = bowout.out.find("sent ", |line| line.starts_with("sent "));
    let sent: usize = sent["sent ".len()..].parse().expect("a number");
    assert!(sent > 1, "{sent}");
    for n in 0..sent {
        manager.hears(&format!("STATUS={n}"));
    }
    bowout.kill(USR1);
    assert_eq!(bowout.out.find("on", |line| line == "on"), "on");
    manager.hears("STATUS=later");
    bowout.kill(TERM);
    assert_eq!(bowout.end(), Status::Code(5));

    // This manager never reads.
    for (options, command, status) in [
        (
            ["--grace", "60s"],
            "flood | wait TERM end | exit 5",
            Status::Code(5),
        ),
        (
            ["--grace", "300ms"],
            "flood | wait KILL end",
            Status::Signal(libc::SIGKILL),
        ),
    ] {
        let manager = Manager::new();
        let mut bowout = say(manager.start(&options), command);
        bowout.out.find("sent ", |line| line.starts_with("sent "));
        let (ended, took) = timed(|| {
            bowout.kill(TERM);
            bowout.end()
        });
        assert_eq!(ended, status);
        assert!(took < Duration::from_secs(30), "{took:?}");
    }
}

#[test]
fn a_dead_manager_stalls_nothing_and_a_new_one_at_its_place_receives() {
    let manager = Manager::new();
    let words = "send READY=1 | wait USR1 end | flood 50 | wait USR1 end | send STATUS=anew | wait TERM end | exit 6";
    let mut bowout = say(manager.start(&[]), words);
    manager.hears("READY=1");
    let Manager {
        socket,
        address,
        dir,
    } = manager;
    drop(socket);
    bowout.kill(USR1);
    // The child is not kept waiting.
    bowout.out.find("sent 50", |line| line == "sent 50");
    fs::remove_file(&address).expect("its socket");
    let manager = Manager::on(
        UnixDatagram::bind(&address).expect("a socket"),
        address,
        dir,
    );
    bowout.kill(USR1);
    // Messages that were sent while there was no manager may arrive first.
    until("the new one hears", || {
        manager
            .heard()
            .filter(|message| message.text() == "STATUS=anew")
    });
    drop(manager);
    bowout.kill(TERM);
    assert_eq!(bowout.end(), Status::Code(6));

    // There never was a manager.
    let mut bowout = say(
        Start::plain().env("NOTIFY_SOCKET", "/no/such/manager"),
        "send READY=1 | say on | wait TERM end | exit 7",
    );
    bowout.out.find("on", |line| line == "on");
    bowout.kill(TERM);
    assert_eq!(bowout.end(), Status::Code(7));
}

#[test]
fn the_main_process_cannot_be_changed_through_the_relay() {
    let manager = Manager::new();
    let words = "send MAINPID=1 | send READY=1\\nMAINPID=1\\nSTATUS=a | send NOTIFYACCESS=all\\nMAINPIDFDID=7\\nSTATUS=b \
                 | carry 1 MAINPIDFD=1\\nSTATUS=c | send MAINPIDX=1 | carry 1 FDSTORE=1\\nMAINPIDFD=1 \
                 | send READY=1\\rMAINPID=1 | send M\\AINPID=1 | send \\rNOTIFYACCESS=all | carry 1 MAINPIDFD\\=1\\rSTATUS=d \
                 | send STATUS=C:\\dir\\r\\n | send READY=1\\0 | wait TERM end | exit 0";
    let mut bowout = say(manager.start(&[]), words);
    for text in ["READY=1\nSTATUS=a", "STATUS=b"] {
        manager.hears(text);
    }
    // The descriptor is removed with its line.
    assert_eq!(manager.hears("STATUS=c").descriptors.len(), 0);
    assert_eq!(bowout.out.next().as_deref(), Some("closed"));
    manager.hears("MAINPIDX=1");
    assert_eq!(manager.hears("FDSTORE=1").descriptors.len(), 1);
    assert_eq!(bowout.out.next().as_deref(), Some("closed"));
    // systemd splits at a carriage return as well, and drops a backslash.
    manager.hears("READY=1");
    assert_eq!(manager.hears("STATUS=d").descriptors.len(), 0);
    assert_eq!(bowout.out.next().as_deref(), Some("closed"));
    // A harmless message stays as it is, and one NUL byte may end it.
    manager.hears("STATUS=C:\\dir\r\n");
    manager.hears("READY=1\0");
    bowout.kill(TERM);
    assert_eq!(bowout.end(), Status::Code(0));
}

/// A process that is not a descendant of bowout, and runs until the test ends it.
struct Stranger(Running);

impl Stranger {
    fn new(address: &str, words: &str) -> Self {
        let start = Start::direct().env("NOTIFY_SOCKET", address);
        let mut stranger = say(
            start,
            &format!("{words} | say told | wait TERM end | exit 0"),
        );
        stranger.out.find("told", |line| line == "told");
        Self(stranger)
    }

    fn end(mut self) {
        self.0.kill(TERM);
        assert_eq!(self.0.end(), Status::Code(0));
    }
}

#[test]
fn a_stranger_is_refused_and_a_descendant_is_passed_on() {
    for home in homes() {
        let manager = Manager::new();
        let words = "say ready | wait USR1 end | fork | send STATUS=child | orphan | send STATUS=orphan | wait TERM end | exit 0";
        let mut bowout = say(manager.start(&[]).at(home), words);
        ready(&mut bowout);
        let stranger = Stranger::new(&relay(&bowout), "send READY=1\\nSTATUS=stranger");
        // Either bowout refuses the message, or the manager receives it.
        until("the stranger was looked at", || {
            assert!(manager.heard().is_none(), "{home:?}: a stranger was heard");
            let log = bowout.err.seen();
            log.iter()
                .find(|line| line.contains("dropped 1 sd_notify message"))
                .map(|line| {
                    assert!(line.contains("is not a descendant"), "{line}");
                })
        });
        bowout.kill(USR1);
        assert_eq!(manager.hears("STATUS=child").pid, bowout.pid, "{home:?}");
        assert_eq!(manager.hears("STATUS=orphan").pid, bowout.pid, "{home:?}");
        stranger.end();
        bowout.kill(TERM);
        assert_eq!(bowout.end(), Status::Code(0));
        assert_eq!(dropped(&bowout.log()), 1);
    }
}

#[test]
fn a_descendant_that_became_another_user_is_passed_on_and_a_stranger_of_any_user_is_not() {
    if skip(not_root()) {
        return;
    }
    let manager = Manager::new();
    // The directory of the socket is open to every user.
    fs::set_permissions(&manager.dir.0, fs::Permissions::from_mode(0o755)).expect("permissions");
    let program = manager.dir.program(notifier());
    let words = "uid 65534 send STATUS=nobody wait TERM end exit 0";
    let mut bowout = manager.start(&[]).command(
        [program.to_str().expect("text")]
            .into_iter()
            .chain(words.split(' ')),
    );
    assert_eq!(manager.hears("STATUS=nobody").pid, bowout.pid);
    let stranger = Stranger::new(&relay(&bowout), "uid 65534 | send STATUS=stranger");
    let log = bowout.err.find("a refusal", |line| {
        line.contains("dropped 1 sd_notify message")
    });
    assert!(
        log.contains("uid 65534") && log.contains("is not a descendant"),
        "{log}"
    );
    stranger.end();
    bowout.kill(TERM);
    assert!(manager.hear().text().starts_with("STOPPING=1\n"));
    assert_eq!(bowout.end(), Status::Code(0));
}

/// With a /proc that hides the child, and without /proc.
#[test]
fn a_child_of_another_user_is_passed_on_where_proc_does_not_show_it() {
    if skip(not_root()) {
        return;
    }
    let manager = Manager::new();
    fs::set_permissions(&manager.dir.0, fs::Permissions::from_mode(0o755)).expect("permissions");
    let program = manager.dir.program(notifier());
    let words = "uid 65534 send READY=1 wait TERM end exit 0";
    for place in ["--hide", "--no-proc"] {
        let probe = probe().to_str().expect("text");
        let under = [
            "ns",
            "--here",
            place,
            "--",
            probe,
            "with",
            "--no-cap-ptrace",
            "--",
            BOWOUT,
        ];
        let start = manager.start(&under).program(probe);
        let mut bowout = start.command(
            [program.to_str().expect("text")]
                .into_iter()
                .chain(words.split(' ')),
        );
        assert_eq!(manager.hears("READY=1").pid, bowout.pid, "{place}");
        bowout.kill(TERM);
        assert!(manager.hear().text().starts_with("STOPPING=1\n"), "{place}");
        assert_eq!(bowout.end(), Status::Code(0), "{place}");
        assert_eq!(dropped(&bowout.log()), 0, "{place}");
    }
}

/// Variables, and the folder in which bowout then creates the socket's directory.
type Case<'a> = (&'a [(&'a str, &'a str)], &'a str);

#[test]
fn the_socket_has_a_directory_of_its_own_that_is_removed_at_the_end() {
    let manager = Manager::new();
    let (open, closed) = (Dir::new(), Dir::new());
    fs::set_permissions(&open.0, fs::Permissions::from_mode(0o755)).expect("permissions");
    fs::set_permissions(&closed.0, fs::Permissions::from_mode(0o700)).expect("permissions");
    let [one, other] = [&open, &closed].map(|dir| dir.0.to_str().expect("text").to_owned());
    let both = format!("{one}:{other}");
    let long = format!("{one}/{}", "x".repeat(80));
    fs::create_dir(&long).expect("a directory");
    let root = not_root().is_none();
    // As root, bowout needs a folder that the child can still reach as another user.
    let (run, nearest) = if root {
        ("/run", "/run")
    } else {
        (other.as_str(), "/tmp")
    };
    let cases: [Case; 6] = [
        (
            &[("RUNTIME_DIRECTORY", &both), ("XDG_RUNTIME_DIR", &other)],
            &one,
        ),
        (
            &[("RUNTIME_DIRECTORY", &other), ("XDG_RUNTIME_DIR", &other)],
            run,
        ),
        (
            &[("RUNTIME_DIRECTORY", ""), ("XDG_RUNTIME_DIR", &other)],
            run,
        ),
        (&[("RUNTIME_DIRECTORY", &long), ("TMPDIR", "/tmp")], nearest),
        (
            &[
                ("RUNTIME_DIRECTORY", "no/such/directory"),
                ("TMPDIR", "/tmp"),
            ],
            nearest,
        ),
        (&[("TMPDIR", "/tmp")], nearest),
    ];
    for (variables, folder) in cases {
        for (command, status) in [("", 0), ("/no/such/program", 127)] {
            let mut start = Start::plain().env("NOTIFY_SOCKET", &manager.address);
            for (name, value) in variables {
                start = start.env(name, value);
            }
            if !command.is_empty() {
                let mut bowout = start.command([command]);
                assert_eq!(bowout.end(), Status::Code(status));
                continue;
            }
            let mut bowout = say(start, "send READY=1 | wait TERM end | exit 0");
            manager.hears("READY=1");
            let address = relay(&bowout);
            let directory = Path::new(&address).parent().expect("a directory");
            assert_eq!(
                directory.parent(),
                Some(Path::new(folder)),
                "{variables:?}: {address}"
            );
            let mode = |path: &Path| {
                fs::symlink_metadata(path)
                    .expect("there")
                    .permissions()
                    .mode()
            };
            let wanted = if root { 0o140_666 } else { 0o140_600 };
            assert_eq!(
                (mode(directory), mode(Path::new(&address))),
                (0o40_711, wanted),
                "{address}"
            );
            bowout.kill(TERM);
            assert!(manager.hear().text().starts_with("STOPPING=1\n"));
            assert_eq!(bowout.end(), Status::Code(status));
            assert!(!directory.exists(), "{address} is left");
        }
        // `open` holds the folder with the long name.
        for (dir, count) in [(&open, 1), (&closed, 0)] {
            assert_eq!(
                fs::read_dir(&dir.0).expect("a directory").count(),
                count,
                "{variables:?} left something"
            );
        }
    }
}

#[test]
fn a_command_in_another_network_or_of_another_user_reaches_the_manager() {
    if skip(not_root()) {
        return;
    }
    let manager = Manager::new();
    fs::set_permissions(&manager.dir.0, fs::Permissions::from_mode(0o755)).expect("permissions");
    let closed = Dir::new();
    fs::set_permissions(&closed.0, fs::Permissions::from_mode(0o700)).expect("permissions");
    let program = manager.dir.program(notifier());
    let program = program.to_str().expect("text");
    for (wrap, words) in [
        (&["unshare", "-n"][..], "send STATUS=here"),
        (&[], "uid 65534 send STATUS=here"),
    ] {
        for folder in [None, Some(&closed.0)] {
            let mut start = Start::plain().env("NOTIFY_SOCKET", &manager.address);
            if let Some(folder) = folder {
                start = start
                    .env("RUNTIME_DIRECTORY", folder)
                    .env("XDG_RUNTIME_DIR", folder);
            }
            let all = wrap
                .iter()
                .copied()
                .chain([program])
                .chain(words.split(' '));
            let mut bowout = start.command(all.chain(["wait", "TERM", "end", "exit", "0"]));
            assert_eq!(
                manager.hears("STATUS=here").pid,
                bowout.pid,
                "{wrap:?} {folder:?}"
            );
            bowout.kill(TERM);
            assert!(manager.hear().text().starts_with("STOPPING=1\n"));
            assert_eq!(bowout.end(), Status::Code(0));
        }
    }
}

/// If no folder is writable, the address is abstract.
#[test]
fn without_a_folder_the_relay_has_an_abstract_address() {
    if skip(not_root()) {
        return;
    }
    let manager = Manager::hidden();
    let script = "mount -o bind,ro /run /run && mount -o bind,ro /tmp /tmp && exec \"$@\"";
    let under = [
        "-m",
        "--propagation",
        "private",
        "sh",
        "-c",
        script,
        "sh",
        BOWOUT,
    ];
    let start = Start::new(under)
        .program("unshare")
        .env("NOTIFY_SOCKET", &manager.address)
        .env("TMPDIR", "/tmp");
    let mut bowout = start.command([
        notifier().to_str().expect("text"),
        "sayenv",
        "NOTIFY_SOCKET",
        "end",
        "exit",
        "0",
    ]);
    let line = bowout.out.next().expect("a line");
    assert!(line.starts_with("NOTIFY_SOCKET=@"), "{line}");
    assert_eq!(bowout.end(), Status::Code(0));
}

#[test]
fn the_child_has_one_notify_socket_which_is_the_relay() {
    for home in homes() {
        let manager = Manager::new();
        let mut bowout = say(
            manager.start(&[]).at(home),
            "sayenv NOTIFY_SOCKET end | wait TERM end | exit 0",
        );
        let line = bowout.out.next().expect("a line");
        assert_eq!(bowout.out.next().as_deref(), Some("that is all"));
        assert!(
            line.starts_with("NOTIFY_SOCKET=") && !line.ends_with(&manager.address),
            "{line}"
        );
        assert_eq!(
            environ(bowout.pid, "NOTIFY_SOCKET"),
            [manager.address.as_str()]
        );
        bowout.kill(TERM);
        assert_eq!(bowout.end(), Status::Code(0));
    }
}

#[test]
fn off_leaves_the_child_to_the_manager() {
    let manager = Manager::new();
    let mut bowout = say(
        manager.start(&["--notify", "off"]),
        "send READY=1 | wait TERM end | send STATUS=last | exit 0",
    );
    let message = manager.hears("READY=1");
    assert_eq!(message.pid, bowout.child_pid());
    assert_eq!(
        environ(bowout.child_pid(), "NOTIFY_SOCKET"),
        [manager.address.as_str()]
    );
    assert!(
        descriptors(bowout.pid)
            .iter()
            .all(|target| !target.starts_with("socket:"))
    );
    bowout.kill(TERM);
    assert_eq!(bowout.end(), Status::Code(0));
    // If bowout had sent STOPPING=1, it would have arrived before this message.
    manager.hears("STATUS=last");
    assert!(manager.heard().is_none());
}

/// A manager at such an address does not see the sender's PID, and bowout does not judge an address
/// of an unknown kind.
#[test]
fn a_manager_that_is_not_at_a_unix_socket_is_left_to_the_child() {
    for address in ["vsock:2:1234", "vsock-stream:2:1234", "tcp:1:2"] {
        for how in ["auto", "exec", "relay"] {
            let dir = Dir::new();
            let start = Start::new(["-v", "--notify", how])
                .env("RUNTIME_DIRECTORY", &dir.0)
                .env("NOTIFY_SOCKET", address);
            let mut bowout = say(start, "sayenv NOTIFY_SOCKET end | wait TERM end | exit 4");
            let line = bowout.out.next().expect("a line");
            assert_eq!(line, format!("NOTIFY_SOCKET={address}"), "{how}");
            let left = fs::read_dir(&dir.0).expect("a directory").count();
            assert_eq!(left, 0, "{address} {how}");
            bowout.kill(TERM);
            assert_eq!(bowout.end(), Status::Code(4));
            let log = bowout.log();
            let why = "cannot relay sd_notify messages: NOTIFY_SOCKET is not the address of a Unix";
            assert!(log.iter().any(|line| line.contains(why)), "{log:#?}");
        }
    }
    let start = Start::plain().env("NOTIFY_SOCKET", "vsock:2:1234");
    let mut bowout = start.command(["true"]);
    assert_eq!(bowout.end(), Status::Code(0));
    assert_eq!(bowout.log(), [""; 0], "a routine run logs nothing");
}

#[test]
fn without_a_manager_there_is_no_socket() {
    for options in [
        &[][..],
        &["--notify", "auto"],
        &["--notify", "exec"],
        &["--notify", "off"],
    ] {
        for home in homes() {
            let dir = Dir::new();
            let start = Start::new(options)
                .at(home)
                .env("RUNTIME_DIRECTORY", &dir.0);
            let mut bowout = say(
                start,
                "sayenv NOTIFY_SOCKET end | say ready | wait TERM end | exit 0",
            );
            ready(&mut bowout);
            assert_eq!(bowout.out.seen(), ["that is all", "ready"], "{options:?}");
            let sockets = || {
                descriptors(bowout.pid)
                    .into_iter()
                    .filter(|target| target.starts_with("socket:"))
                    .count()
            };
            assert_eq!(
                (
                    sockets(),
                    fs::read_dir(&dir.0).expect("a directory").count()
                ),
                (0, 0),
                "{options:?}"
            );
            bowout.kill(TERM);
            assert_eq!(bowout.end(), Status::Code(0));
        }
    }
}

/// Only bowout reads the messages.
#[test]
fn relay_gives_the_child_a_socket_where_there_is_no_manager() {
    for home in homes() {
        let words = "send READY=1 | say ready | wait TERM end | send EXTEND_TIMEOUT_USEC=60000000 | wait USR1 end | exit 8";
        let mut bowout = say(
            Start::new(["--notify", "relay", "--grace", "30s", "--grace-max", "5m"]).at(home),
            words,
        );
        ready(&mut bowout);
        bowout.kill(TERM);
        let line = bowout
            .err
            .find("more time", |line| line.contains("asks for 1m"));
        assert!(
            line.contains("SIGKILL in 1m") || line.contains("SIGKILL in 59"),
            "{line}"
        );
        bowout.kill(USR1);
        assert_eq!(bowout.end(), Status::Code(8), "{home:?}");
    }
}

#[test]
fn more_time_is_had_up_to_the_most_and_no_earlier_end_comes_of_asking() {
    let hour = "EXTEND_TIMEOUT_USEC=3600000000";
    for (options, words, least) in [
        // The default limit is twice the grace period.
        (
            &["--grace", "3s"][..],
            format!("wait TERM end | send {hour} | wait KILL end"),
            6000,
        ),
        (
            &["--grace", "3s", "--grace-max", "4s"],
            format!("wait TERM end | send {hour} | wait KILL end"),
            4000,
        ),
        // The limit equals the grace period; the child never has less.
        (
            &["--grace", "700ms", "--grace-max", "700ms"],
            format!("wait TERM end | send {hour} | wait KILL end"),
            700,
        ),
        (
            &["--grace", "700ms"],
            "wait TERM end | send EXTEND_TIMEOUT_USEC=1 | wait KILL end".to_owned(),
            700,
        ),
        // A message before the stop does not change the stop.
        (
            &["--grace", "500ms"],
            format!("send {hour} | wait TERM end | wait KILL end"),
            500,
        ),
    ] {
        let manager = Manager::new();
        let all = format!("send READY=1 | barrier | say ready | {words}");
        let mut bowout = say(manager.start(options), &all);
        manager.hears("READY=1");
        drop(manager.hears("BARRIER=1"));
        ready(&mut bowout);
        if words.starts_with("send") {
            manager.hears(hour);
        }
        let (ended, took) = timed(|| {
            bowout.kill(TERM);
            bowout.end()
        });
        assert_eq!(ended, Status::Signal(libc::SIGKILL), "{options:?}");
        let wanted = Duration::from_millis(least)..Duration::from_millis(least) + SOON;
        assert!(wanted.contains(&took), "{options:?}: {took:?}");
    }
}

/// The values that are sent with STOPPING=1: microseconds, and the status.
fn stopping(message: &Message) -> (u64, String) {
    let text = message.text();
    let lines: Vec<&str> = text.lines().collect();
    let ["STOPPING=1", extend, status] = lines[..] else {
        panic!("{text}")
    };
    let extend = extend
        .strip_prefix("EXTEND_TIMEOUT_USEC=")
        .unwrap_or_else(|| panic!("{text}"));
    (
        extend.parse().expect("microseconds"),
        status.strip_prefix("STATUS=").expect("a status").to_owned(),
    )
}

#[test]
fn the_stop_is_announced_with_the_time_that_it_may_take_and_no_other_signal_is() {
    for home in homes() {
        let manager = Manager::new();
        let words = "send READY=1 | wait HUP USR1 end | wait HUP USR1 end | wait TERM end | send STATUS=mine \
                     | send EXTEND_TIMEOUT_USEC=90000000 | wait USR1 end | exit 9";
        let mut bowout = say(
            manager
                .start(&["--grace", "1m", "--grace-max", "2m"])
                .at(home),
            words,
        );
        manager.hears("READY=1");
        for signal in [libc::SIGHUP, USR1] {
            bowout.kill(signal);
            bowout
                .out
                .find("the signal", |line| line == format!("got {signal}"));
        }
        bowout.kill(TERM);
        // The first message is about the stop, so the two signals before it were not announced.
        let message = manager.hear();
        let (extend, status) = stopping(&message);
        assert_eq!(message.pid, bowout.pid);
        assert!((60_000_000..70_000_000).contains(&extend), "{extend}");
        assert!(
            status.contains("notifier") && status.contains("SIGKILL in"),
            "{status}"
        );
        // bowout still passes the child's messages on. After the child asked for more time, bowout
        // asks for more as well.
        manager.hears_past_the_stop("STATUS=mine");
        manager.hears_past_the_stop("EXTEND_TIMEOUT_USEC=90000000");
        let (extend, _) = stopping(&manager.hear());
        assert!((90_000_000..100_000_000).contains(&extend), "{extend}");
        bowout.kill(USR1);
        assert_eq!(bowout.end(), Status::Code(9), "{home:?}");
        // `systemctl status` and the journal show the same text.
        assert!(
            bowout.log().contains(&format!("bowout: {status}")),
            "{status}"
        );
        // Every further message repeats the stop.
        while let Some(message) = manager.heard() {
            stopping(&message);
        }
    }
}

/// If the user gave no grace period, TimeoutStopSec= of the unit decides.
#[test]
fn a_default_grace_period_does_not_change_the_managers_timeout() {
    for home in homes() {
        let manager = Manager::new();
        let mut bowout = say(
            manager.start(&[]).at(home),
            "send READY=1 | wait USR1 end | exit 0",
        );
        manager.hears("READY=1");
        bowout.kill(TERM);
        let text = manager.hear().text();
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            matches!(lines[..], ["STOPPING=1", status] if status.contains("SIGKILL in 8s")),
            "{home:?}: {text}"
        );
        bowout.kill(USR1);
        assert_eq!(bowout.end(), Status::Code(0), "{home:?}");
        assert!(
            manager
                .heard()
                .is_none_or(|message| !message.text().contains("EXTEND")),
            "{home:?}"
        );
    }
}

/// The child's exit alone does not start a stop, and TimeoutStopSec= counts from the request.
#[test]
fn a_stop_that_is_asked_for_while_descendants_end_is_announced() {
    for home in homes() {
        let manager = Manager::new();
        let script = "\"$PROBE\" signals --exit USR1:0 & read line; exit 3";
        let (read, mut write) = std::io::pipe().expect("a pipe");
        let mut bowout = manager
            .start(&["--grace", "1h"])
            .at(home)
            .stdin(read)
            .sh(script);
        bowout.ready();
        write.write_all(b"end\n").expect("written");
        // From the drain.
        bowout.expect(TERM);
        assert!(manager.heard().is_none(), "{home:?}");
        bowout.kill(TERM);
        let (extend, status) = stopping(&manager.hear());
        assert!(
            extend > 3_500_000_000 && status.contains("descendants"),
            "{home:?}: {extend} {status}"
        );
        stopping(&manager.hear());
        // A second request.
        bowout.kill(TERM);
        assert_eq!(bowout.end(), Status::Code(3), "{home:?}");
    }
}

#[test]
fn a_stop_without_a_deadline_asks_for_longer_than_any_timeout() {
    let manager = Manager::new();
    let mut bowout = say(
        manager.start(&["--grace", "never"]),
        "send READY=1 | wait USR1 end | exit 0",
    );
    manager.hears("READY=1");
    bowout.kill(TERM);
    let (extend, status) = stopping(&manager.hear());
    assert!(
        extend >= Duration::from_secs(30 * 24 * 3600).as_micros() as u64
            && status.contains("no deadline"),
        "{status}"
    );
    bowout.kill(USR1);
    assert_eq!(bowout.end(), Status::Code(0));
}

#[test]
fn with_exec_bowout_says_that_the_command_runs_or_why_it_does_not() {
    for home in homes() {
        let manager = Manager::new();
        let mut bowout = say(
            manager.start(&["--notify", "exec"]).at(home),
            "say ready | wait USR1 end | send STATUS=up | wait TERM end | exit 0",
        );
        ready(&mut bowout);
        assert_eq!(manager.hears("READY=1").pid, bowout.pid);
        bowout.kill(USR1);
        assert_eq!(manager.hears("STATUS=up").pid, bowout.pid);
        bowout.kill(TERM);
        assert_eq!(bowout.end(), Status::Code(0));
        let plain = manager.dir.write("plain", "", 0o644);
        for (command, why, error, status) in [
            (
                "/no/such/program",
                "No such file or directory",
                libc::ENOENT,
                127,
            ),
            (
                plain.to_str().expect("text"),
                "Permission denied",
                libc::EACCES,
                126,
            ),
        ] {
            let manager = Manager::new();
            let mut bowout = manager
                .start(&["--notify", "exec"])
                .at(home)
                .command([command]);
            let text = manager.hear().text();
            let wanted = format!("STATUS=cannot run '{command}': {why}");
            assert!(
                text.starts_with(&wanted) && text.ends_with(&format!("\nERRNO={error}")),
                "{text}"
            );
            assert_eq!(bowout.end(), Status::Code(status), "{home:?}");
            // READY=1 was never sent.
            assert!(manager.heard().is_none());
        }
        // Without `exec`, bowout does not report it.
        let manager = Manager::new();
        let mut bowout = manager.start(&[]).at(home).command(["/no/such/program"]);
        assert_eq!(bowout.end(), Status::Code(127));
        assert!(manager.heard().is_none());
    }
}

/// Messages that are on their way when the command ends are passed on, as many as the manager has
/// room for (unix(7): ten messages, unless the machine is set to more).
#[test]
fn the_last_message_of_a_command_is_passed_on() {
    for home in homes() {
        let manager = Manager::new();
        let mut bowout = say(
            manager.start(&[]).at(home),
            "say ready | wait USR1 end | flood 8 | exit 4",
        );
        ready(&mut bowout);
        bowout.kill(USR1);
        assert_eq!(bowout.end(), Status::Code(4));
        // bowout has exited, and no more messages can arrive.
        let heard: Vec<String> = std::iter::from_fn(|| manager.heard())
            .map(|message| message.text())
            .collect();
        assert_eq!(
            heard,
            (0..8).map(|n| format!("STATUS={n}")).collect::<Vec<_>>(),
            "{home:?}"
        );
    }
}

/// The descriptor of a message that cannot be sent to a manager is closed as well.
#[test]
fn a_barrier_without_a_manager_is_passed_at_once() {
    for start in [
        Start::new(["--notify", "relay"]),
        Start::plain().env("NOTIFY_SOCKET", "@bowout-nobody-is-here"),
    ] {
        let mut bowout = say(start, "barrier | wait TERM end | exit 0");
        assert_eq!(bowout.out.next().as_deref(), Some("passed"));
        bowout.kill(TERM);
        assert_eq!(bowout.end(), Status::Code(0));
    }
}

#[test]
fn a_hook_is_passed_on_as_a_descendant_is() {
    let manager = Manager::new();
    let hook = format!("{} send STATUS=hook", notifier().display());
    let mut bowout = say(
        manager.start(&["--pre-stop", &hook]),
        "send READY=1 | wait TERM end | exit 0",
    );
    manager.hears("READY=1");
    bowout.kill(TERM);
    manager.hears_past_the_stop("STATUS=hook");
    assert_eq!(bowout.end(), Status::Code(0));
}
