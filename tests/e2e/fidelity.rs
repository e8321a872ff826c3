//! The command sees the world as if it had been executed directly.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use crate::common::{Dir, Home, NONE, Start, Status, homes, not_root, skip};

/// Removes the lines that differ between any two processes.
fn comparable(lines: Vec<String>) -> Vec<String> {
    let own = |line: &String| line.starts_with("id ") || line.starts_with("env E2E_RUN=");
    lines.into_iter().filter(|line| !own(line)).collect()
}

/// Compares the command's view under bowout with its view when it is executed directly from this
/// state.
fn assert_same(home: Home, setup: &[&str], words: &[&OsStr]) {
    let null = File::open("/dev/null").expect("/dev/null");
    let view = |start: Start| {
        let start = start
            .at(home)
            .with(setup)
            .inherit(&null)
            .dir("/usr")
            .env("TERM", "dumb");
        let start = start.env("RUST_LOG", "trace").env(
            OsString::from_vec(b"\xffNAME".to_vec()),
            OsString::from_vec(b"\xfe\n".to_vec()),
        );
        let all: Vec<&OsStr> = [OsStr::new("view")]
            .into_iter()
            .chain(words.iter().copied())
            .collect();
        let mut running = start
            .stderr(File::create("/dev/null").expect("/dev/null"))
            .probe(all);
        let lines = running.out.rest();
        assert_eq!(running.end(), Status::Code(0), "{setup:?}");
        comparable(lines)
    };
    let direct = view(Start::direct());
    assert!(
        direct.iter().any(|line| line.starts_with("SigIgn")),
        "{direct:?}"
    );
    assert_eq!(view(Start::new(["-q"])), direct, "{home:?} {setup:?}");
}

const STATES: [&[&str]; 16] = [
    &["--default", "PIPE"],
    &["--ignore", "PIPE"],
    &["--ignore", "HUP"],
    &["--ignore", "INT,QUIT"],
    &["--ignore", "CHLD"],
    &["--ignore", "TERM,USR1,32,33,34,64", "--default", "PIPE"],
    &["--block", "HUP,TERM,USR2,32,33,37,64"],
    &["--block", "CHLD,PIPE,INT", "--ignore", "20,21,22,USR2"],
    &["--umask", "63", "--nofile", "64"],
    &[
        "--timer", "0", "3600000", "0", "--timer", "1", "3600000", "7001", "--timer", "2",
        "3600000", "2",
    ],
    &["--reset-on-fork"],
    &[
        "--slack", "70000", "--mce", "1", "--ioprio", "16389", "--nice", "3",
    ],
    &["--no-thp", "--securebits", "5"],
    &["--memory-policy", "--keyring", "--speculation"],
    &["--mdwe", "--merge", "--cookie"],
    &["--landlock"],
];

/// The way in which the command has an attribute that execve(2) keeps.
#[derive(Clone, Copy)]
enum Has {
    /// fork(2) hands it on. It is in the lines of the probe's view that begin with this text.
    ByFork(&'static str),
    /// bowout gives it to the command. It is in the lines that begin with this text.
    ByBowout(&'static str),
    /// The command does not have it: Limits in man/GUIDE.md has these words.
    Not(&'static str),
    /// It belongs to one process; the command is another process than bowout.
    OfItsOwn,
    /// The test of this name checks it, in this file or in pid_variables.rs.
    Tested(&'static str),
}

/// Every attribute that execve(2) keeps (exec(3p), execve(2), credentials(7), prctl(2)), that
/// fork(2) lists as different in the child, or that proc(5) shows of a process. The attributes that
/// execve(2) drops are left out, because the command never has them: memory locks, timer_create(2),
/// asynchronous I/O, the keyrings of thread and process, the labels of /proc/PID/attr for one exec,
/// memory maps and their flags (MADV_DONTFORK), names and auxiliary vector. On machines other than
/// x86, prctl(2) has more.
const ATTRIBUTES: [(&str, Has); 65] = [
    ("process ID, thread ID", Has::OfItsOwn),
    ("parent process ID", Has::OfItsOwn),
    (
        "process group",
        Has::Tested("without_a_terminal_the_child_has_its_own_group_and_bowouts_session"),
    ),
    (
        "session",
        Has::Tested("without_a_terminal_the_child_has_its_own_group_and_bowouts_session"),
    ),
    (
        "controlling terminal",
        Has::Tested("without_a_terminal_the_child_has_its_own_group_and_bowouts_session"),
    ),
    (
        "children",
        Has::Not("start children and then execute bowout in its own place"),
    ),
    ("real user and group IDs", Has::ByFork("Uid")),
    ("supplementary groups", Has::ByFork("Groups")),
    (
        "capabilities, bounding and ambient sets",
        Has::ByFork("CapBnd"),
    ),
    ("securebits", Has::ByFork("securebits")),
    ("no_new_privs", Has::ByFork("NoNewPrivs")),
    ("seccomp filters", Has::ByFork("Seccomp")),
    ("login user", Has::ByFork("loginuid")),
    ("audit session", Has::ByFork("sessionid")),
    ("security label", Has::ByFork("label")),
    ("session keyring", Has::ByFork("keyring")),
    ("Landlock domain", Has::ByFork("landlock")),
    ("environment", Has::ByFork("env ")),
    (
        "variables that name the process",
        Has::Tested("a_variable_that_names_bowout_names_the_child_and_no_other_appears"),
    ),
    ("working directory", Has::ByFork("cwd")),
    ("root directory", Has::ByFork("root")),
    ("umask", Has::ByFork("Umask")),
    ("open descriptors", Has::ByFork("fd ")),
    (
        "flock(2) and open file description locks",
        Has::ByFork("fd "),
    ),
    ("record locks (fcntl(2))", Has::Not("record locks")),
    (
        "signal-driven I/O and leases (F_SETOWN, F_SETLEASE)",
        Has::Tested("a_signal_of_a_descriptor_that_bowout_owned_reaches_the_command"),
    ),
    ("directory notifications (F_NOTIFY)", Has::Not("F_NOTIFY")),
    ("System V semaphore adjustments", Has::Not("semop(2)")),
    ("limits", Has::ByFork("limits")),
    ("resource usage so far", Has::Not("processor time")),
    ("start time, statistics, delays", Has::OfItsOwn),
    ("I/O ports (ioperm(2))", Has::Not("ioperm(2)")),
    ("signal mask", Has::ByFork("SigBlk")),
    ("ignored signals", Has::ByFork("SigIgn")),
    (
        "pending signals",
        Has::Tested("a_signal_that_is_pending_when_bowout_starts_reaches_the_command"),
    ),
    ("interval timers", Has::ByBowout("timer ")),
    ("subreaper", Has::Not("subreaper")),
    (
        "scheduling policy that is reset on fork",
        Has::ByBowout("scheduler"),
    ),
    ("nice value", Has::ByBowout("nice")),
    (
        "scheduling that the command may not take",
        Has::Not("SCHED_RESET_ON_FORK"),
    ),
    (
        "SCHED_DEADLINE, which forbids fork(2)",
        Has::Not("SCHED_DEADLINE"),
    ),
    (
        "automatic process group's nice value",
        Has::ByFork("autogroup"),
    ),
    ("core scheduling cookie", Has::ByFork("cookie")),
    ("I/O flusher", Has::ByFork("io_flusher")),
    ("I/O priority", Has::ByFork("ioprio")),
    ("processor affinity", Has::ByFork("Cpus_allowed")),
    ("memory nodes", Has::ByFork("Mems_allowed")),
    ("memory policy (set_mempolicy(2))", Has::ByFork("mempolicy")),
    ("timer slack", Has::ByFork("timerslack_ns")),
    ("default timer slack", Has::Not("PR_SET_TIMERSLACK")),
    ("OOM score adjustment", Has::ByFork("oom_score_adj")),
    ("core dump filter", Has::ByFork("coredump_filter")),
    ("personality", Has::ByFork("personality")),
    ("transparent huge pages", Has::ByFork("thp")),
    ("machine check policy", Has::ByFork("mce")),
    ("merging of equal pages", Has::ByFork("merge")),
    (
        "no memory both writable and executable",
        Has::ByFork("mdwe"),
    ),
    ("speculation control", Has::ByFork("speculation")),
    ("access to the time stamp counter", Has::ByFork("tsc")),
    ("control group", Has::ByFork("cgroup")),
    ("namespaces", Has::ByFork("ns ")),
    (
        "namespace of later children (unshare(2), CLONE_NEWPID)",
        Has::Not("nsenter --no-fork -p"),
    ),
    ("parent-death signal", Has::Not("parent-death signal")),
    ("tracer", Has::OfItsOwn),
    ("tracer to come (Yama)", Has::Not("PR_SET_PTRACER")),
];

/// Each attribute that the probe can see is in its view, so that it can be compared. Each attribute
/// that the command does not have is in man/GUIDE.md.
#[test]
fn every_attribute_of_execve_has_its_place() {
    let null = File::open("/dev/null").expect("/dev/null");
    let view = Start::direct().inherit(&null).probe(["view"]).out.rest();
    let guide = include_str!("../../man/GUIDE.md");
    let limits = &guide[guide.find("\n## Limits").expect("Limits")..];
    let limits = limits.split_whitespace().collect::<Vec<_>>().join(" ");
    let sources = [
        include_str!("fidelity.rs"),
        include_str!("pid_variables.rs"),
    ];
    for (attribute, has) in ATTRIBUTES {
        match has {
            Has::ByFork(lines) | Has::ByBowout(lines) => {
                assert!(
                    view.iter().any(|line| line.starts_with(lines)),
                    "{attribute}: {view:#?}"
                );
            }
            Has::Not(words) => assert!(
                limits.contains(words),
                "{attribute}: not in Limits: {words}"
            ),
            Has::Tested(name) => {
                assert!(
                    sources
                        .iter()
                        .any(|text| text.contains(&format!("fn {name}("))),
                    "{attribute}: {name}"
                );
            }
            Has::OfItsOwn => {}
        }
    }
}

/// As with a direct exec: the kernel sends the signal once, and only the command has the timer.
#[test]
fn an_alarm_that_was_set_before_bowout_reaches_the_command_once() {
    for home in homes() {
        for start in [Start::direct(), Start::new(["--grace", "1h"])] {
            let mut running = start
                .at(home)
                .with(["--timer", "0", "300", "0"])
                .probe(["signals", "--exit", "TERM:7"]);
            running.ready();
            let got = running.expect(libc::SIGALRM);
            // SI_KERNEL: bowout did not forward it.
            assert_eq!(got.code, 128, "{home:?}");
            assert_eq!(running.settle(), NONE, "{home:?}");
            running.kill(libc::SIGTERM);
            assert_eq!(running.end(), Status::Code(7));
        }
    }
}

#[test]
fn a_signal_that_is_pending_when_bowout_starts_reaches_the_command() {
    for home in homes() {
        let words = ["--block", "USR1", "--raise", "USR1"];
        let mut bowout = Start::new(["--grace", "1h"])
            .at(home)
            .with(words)
            .probe(["signals", "--exit", "USR1:7"]);
        bowout.ready();
        bowout.expect(libc::SIGUSR1);
        assert_eq!(bowout.end(), Status::Code(7), "{home:?}");
    }
}

/// The owner is a PID, which would be the command's own after a direct exec.
#[test]
fn a_signal_of_a_descriptor_that_bowout_owned_reaches_the_command() {
    for home in homes() {
        let (read, mut write) = std::io::pipe().expect("a pipe");
        let mut bowout = Start::new(["--grace", "1h"])
            .at(home)
            .stdin(read)
            .with(["--async", "0"])
            .probe(["signals", "--exit", "TERM:7"]);
        bowout.ready();
        write.write_all(b".").expect("written");
        bowout.expect(libc::SIGIO);
        bowout.kill(libc::SIGTERM);
        assert_eq!(bowout.end(), Status::Code(7), "{home:?}");
    }
}

#[test]
fn a_command_inherits_the_state_of_bowout() {
    for home in homes() {
        let root =
            |state: &&&[&str]| ["--reset-on-fork", "--no-thp", "--landlock"].contains(&state[0]);
        let without_root = skip(not_root());
        for state in STATES.iter().filter(|state| !(without_root && root(state))) {
            assert_same(home, state, &[]);
        }
    }
}

#[test]
fn closed_descriptors_stay_closed() {
    for closed in ["0", "1", "2", "0,2", "0,1,2"] {
        let dir = Dir::new();
        let view = |start: Start, to: &str| {
            let file = dir.file(to);
            let mut running = start.with(["--close", closed]).probe([
                "view".as_ref(),
                "--to".as_ref(),
                file.as_os_str(),
            ]);
            assert_eq!(running.end(), Status::Code(0), "{closed}");
            std::fs::read_to_string(file)
                .expect("a view")
                .lines()
                .map(str::to_owned)
                .collect()
        };
        let direct: Vec<String> = comparable(view(Start::direct(), "direct"));
        let below: Vec<String> = comparable(view(Start::new(["-v"]), "below"));
        assert_eq!(below, direct, "{closed}");
        assert!(
            !direct
                .iter()
                .any(|line| line.starts_with(&format!("fd {} ", &closed[..1]))),
            "{direct:?}"
        );
    }
}

#[test]
fn words_that_are_not_text_arrive_as_they_are() {
    let words: Vec<OsString> = [
        &b"\xff\xfe"[..],
        b"",
        b"--grace",
        b"a b",
        b"\n",
        b"--",
        b"-x\x80",
    ]
    .iter()
    .map(|word| OsString::from_vec(word.to_vec()))
    .collect();
    let words: Vec<&OsStr> = words.iter().map(OsString::as_os_str).collect();
    for home in homes() {
        assert_same(home, &["--umask", "18"], &words);
    }
}

#[test]
fn a_command_whose_name_is_not_text_is_run() {
    let dir = Dir::new();
    let script = dir.file("x").with_file_name(OsStr::from_bytes(b"\xff\xfe"));
    std::fs::rename(dir.write("x", "#!/bin/sh\nexit 8\n", 0o755), &script).expect("renamed");
    assert_eq!(Start::plain().command([&script]).end(), Status::Code(8));
    let mut missing = Start::plain().command([OsStr::from_bytes(b"/nowhere/\xff")]);
    assert_eq!(missing.end(), Status::Code(127));
    assert_eq!(missing.log().len(), 1);
}

#[test]
fn bowouts_own_variables_reach_the_command() {
    let mut bowout = Start::plain()
        .env("BOWOUT_GRACE", "5s")
        .env("BOWOUT_LOG", "off")
        .sh("echo $BOWOUT_GRACE $BOWOUT_LOG");
    assert_eq!(bowout.out.rest(), ["5s off"]);
    assert_eq!(bowout.end(), Status::Code(0));
}

#[test]
fn sigchld_ignored_on_entry_hangs_nothing() {
    for home in homes() {
        let mut bowout = Start::plain()
            .at(home)
            .with(["--ignore", "CHLD"])
            .probe(["exit", "7"]);
        assert_eq!(bowout.end(), Status::Code(7));
    }
}

#[test]
fn everything_blocked_or_ignored_on_entry_hangs_nothing() {
    let most: Vec<String> = (1..=64)
        .filter(|signal| ![libc::SIGKILL, libc::SIGSTOP].contains(signal))
        .map(|signal| signal.to_string())
        .collect();
    for home in homes() {
        for how in ["--block", "--ignore"] {
            let mut bowout = Start::new(["--grace", "1h"])
                .at(home)
                .with([how, &most.join(",")])
                .probe(["signals", "--exit", "TERM:7"]);
            bowout.ready();
            bowout.kill(libc::SIGUSR1);
            bowout.expect(libc::SIGUSR1);
            bowout.kill(libc::SIGTERM);
            assert_eq!(bowout.end(), Status::Code(7), "{home:?} {how}");
        }
    }
}

/// bowout keeps an ignored SIGHUP ignored in the child, as timeout and nohup do.
#[test]
fn a_child_that_inherits_ignored_hup_survives_it() {
    let mut bowout = Start::new(["--grace", "0"])
        .with(["--ignore", "HUP"])
        .sh("echo ready 1; exec \"$PROBE\" with -- \"$PROBE\" idle");
    bowout.ready();
    bowout.ready();
    bowout.kill(libc::SIGHUP);
    bowout.kill(libc::SIGUSR1);
    assert_eq!(bowout.end(), Status::Signal(libc::SIGUSR1));
}

#[test]
fn without_a_terminal_the_child_has_its_own_group_and_bowouts_session() {
    let mut bowout = Start::plain().probe(["view"]);
    let lines = bowout.out.rest();
    let id = |name: &str| {
        let prefix = format!("id {name} ");
        lines
            .iter()
            .find_map(|line| line.strip_prefix(&prefix))
            .expect("an id")
            .to_owned()
    };
    assert_eq!(id("group"), id("pid"));
    assert_eq!(id("parent"), bowout.pid.to_string());
    assert_eq!(id("session"), bowout.pid.to_string());
}
