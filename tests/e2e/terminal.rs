//! At the terminal: a program under bowout, in a real bash on a real terminal, behaves as without
//! bowout.

use std::time::{Duration, Instant};

use crate::common::pty::{
    ASKED, CTRL_BACKSLASH, CTRL_C, CTRL_Z, INNER_PROMPT, Pty, Role, Shell, group_of, installed,
    kill, missing, only_child, parent_of, runs, state_of,
};
use crate::common::{BOWOUT, Status, no_namespaces, no_strace, pending, skip};

/// Catches the signal that queries the probe, and those that follow after a comma.
const CATCH: &str = "probe terminal --catch 64";

/// The kernel is the sender.
const FROM_TERMINAL: &str = "128 0";

fn times(text: &str, what: &str) -> usize {
    text.matches(what).count()
}

/// The keys of a stop request, each with its signal and its name in the log.
const KEYS: [(&str, i32, &str); 2] = [
    (CTRL_C, libc::SIGINT, "Ctrl-C"),
    (CTRL_BACKSLASH, libc::SIGQUIT, "Ctrl-\\"),
];

#[test]
fn one_key_reaches_the_child_once_and_is_answered() {
    for (key, signal, name) in KEYS {
        let mut shell = Shell::start();
        let (child, bowout) = shell.probe(&format!(
            "bowout --stop-on INT,QUIT --grace 1h {CATCH},INT,QUIT"
        ));
        shell.0.type_keys(key);
        let deadline = format!(
            "{name}: waiting for 'probe' (pid {child}) to exit, SIGKILL in 1h; {name} again kills it"
        );
        shell.0.until("both lines", |pty| {
            let seen = pty.unread();
            (seen.contains(&deadline) && seen.contains(&format!("got {signal} {FROM_TERMINAL}")))
                .then_some(())
        });
        let seen = shell.answers(bowout);
        assert_eq!(
            (times(&seen, "got "), times(&seen, "waiting for")),
            (2, 1),
            "{seen}"
        );
    }
}

/// Runs in a script, where the shell does not react when bowout stops. The test stops bowout until
/// the child has received its own signal.
#[test]
fn what_the_terminal_sent_is_not_sent_again() {
    for (key, signal, name) in KEYS {
        let mut shell = Shell::start();
        let (child, bowout) = shell.probe(&format!(
            "bash -c 'bowout --stop-on INT,QUIT --grace 1h {CATCH},INT,QUIT; :'"
        ));
        kill(bowout, libc::SIGSTOP);
        shell.0.state(bowout, 'T');
        shell.0.type_keys(key);
        shell.0.got(signal);
        kill(bowout, libc::SIGCONT);
        shell.0.see(&format!("{name}: waiting for"));
        let seen = shell.answers(bowout);
        assert_eq!(times(&seen, "got "), 1, "{seen}");
        assert!(runs(child));
    }
}

/// One key wakes all of them, and all write. A terminal takes one line at a time, and a nonblocking
/// write of another line fails at once.
#[test]
fn no_log_line_is_lost_to_processes_that_write_at_the_same_moment() {
    const WRITERS: usize = 6;
    let mut shell = Shell::start();
    let writer = format!("{CATCH},INT");
    shell.line(&format!(
        "bowout -vv --stop-on TERM sh -c 'for i in {}; do {writer} & done; exec {writer}'",
        ["."; WRITERS - 1].join(" ")
    ));
    for _ in 0..WRITERS {
        shell.0.ready();
    }
    for round in 1..=200 {
        shell.0.type_at_once(CTRL_C);
        for _ in 0..WRITERS {
            shell.0.got(libc::SIGINT);
        }
        let what = format!("line {round} of bowout's");
        shell.0.until(&what, |pty| {
            (times(&pty.screen(), "received it already") == round).then_some(())
        });
    }
}

#[test]
fn a_second_key_kills_at_once() {
    for (key, signal, name) in KEYS {
        for grace in ["never", "1h"] {
            let mut shell = Shell::start();
            shell.probe(&format!(
                "bowout --stop-on INT,QUIT --grace {grace} {CATCH},INT,QUIT"
            ));
            shell.0.type_keys(key);
            shell.0.see(&format!("{name}: waiting for"));
            shell.0.type_keys(key);
            shell.0.see(&format!(
                "received SIG{} from the terminal, the second stop request",
                ["INT", "QUIT"][signal as usize - 2]
            ));
            assert_eq!(shell.prompt().0, 128 + libc::SIGKILL, "{name} {grace}");
        }
    }
}

#[test]
fn a_resize_reaches_the_child_once() {
    let mut shell = Shell::start();
    let (_, bowout) = shell.probe(&format!("bash -c 'bowout {CATCH},{}; :'", libc::SIGWINCH));
    kill(bowout, libc::SIGSTOP);
    shell.0.state(bowout, 'T');
    shell.0.resize(30, 100);
    shell.0.got(libc::SIGWINCH);
    kill(bowout, libc::SIGCONT);
    let seen = shell.answers(bowout);
    assert_eq!(times(&seen, "got "), 1, "{seen}");
}

#[test]
fn ctrl_z_stops_the_job_and_the_shell_resumes_it() {
    let mut shell = Shell::start();
    let (child, bowout) = shell.probe(&format!("bowout -q {CATCH}"));
    for how in ["fg", "fg"] {
        shell.suspend(child, bowout);
        shell.resume(how, child, bowout);
        shell.answers(bowout);
    }
    shell.suspend(child, bowout);
    shell.resume("bg", child, bowout);
    shell.prompt();
    shell.answers(bowout);
    shell.resume("fg", child, bowout);
    shell.0.type_keys(CTRL_C);
    assert_eq!(shell.prompt().0, 128 + libc::SIGINT);
}

/// The same as without bowout, which runs first.
#[test]
fn fg_wakes_the_child_once() {
    for bowout in ["", "bowout "] {
        let mut shell = Shell::start();
        shell.line(&format!("{bowout}{CATCH},CONT"));
        let child = shell.0.ready();
        let first = if bowout.is_empty() {
            child
        } else {
            parent_of(child)
        };
        for _ in 0..5 {
            shell.suspend(child, first);
            shell.resume("fg", child, first);
            let seen = shell.answers(first);
            assert_eq!(times(&seen, "got 18 "), 1, "{bowout:?} {seen}");
        }
    }
}

#[test]
fn ctrl_z_stops_and_resumes_a_script_or_a_pipeline_as_a_whole() {
    for line in [
        "sh -c 'CMD; :'",
        "bash -c 'CMD; :'",
        "CMD | cat",
        "(CMD; :)",
    ] {
        let mut shell = Shell::start();
        let (child, bowout) = shell.probe(&line.replace("CMD", &format!("bowout {CATCH}")));
        for _ in 0..2 {
            shell.suspend(child, bowout);
            shell.resume("fg", child, bowout);
            shell.answers(bowout);
        }
        shell.0.type_keys(CTRL_C);
        shell.prompt();
        assert_eq!((state_of(child), state_of(bowout)), (None, None), "{line}");
    }
}

#[test]
fn the_grace_period_does_not_run_while_the_job_is_stopped() {
    let mut shell = Shell::start();
    let (child, bowout) = shell.probe(&format!("bowout --grace 8s {CATCH},INT"));
    shell.0.type_keys(CTRL_C);
    shell.0.see("SIGKILL in 8s");
    shell.suspend(child, bowout);
    // Longer than the grace period.
    assert_eq!(shell.run("bowout -qq --max-runtime 9s probe idle").0, 124);
    shell.resume("fg", child, bowout);
    shell.answers(bowout);
    shell.0.see("grace period of 8s is over");
    assert_eq!(shell.prompt().0, 128 + libc::SIGKILL);
}

#[test]
fn a_child_that_stops_itself_stops_the_job() {
    for signal in [libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU, libc::SIGSTOP] {
        let mut shell = Shell::start();
        let (child, bowout) = shell.probe(&format!("bowout {CATCH} --stop {signal}"));
        shell.stopped(child, bowout);
        shell.resume("fg", child, bowout);
        shell.0.see("back");
        shell.answers(bowout);
    }
}

#[test]
fn a_shell_below_bowout_has_job_control() {
    let mut shell = Shell::start();
    let modes = shell.run("stty -g").1;
    shell.line("PS1=\"$INNER\" bowout bash --norc --noprofile -i");
    assert_eq!(shell.0.prompt_of(INNER_PROMPT).0, 0);
    let bowout = only_child(shell.0.pid);
    let inner = only_child(bowout);
    assert_eq!((group_of(inner), shell.0.foreground()), (inner, inner));
    shell.0.type_keys(&format!("{CATCH}\r"));
    let child = shell.0.ready();
    shell.0.type_keys(CTRL_Z);
    shell.0.see("Stopped");
    assert!(shell.0.prompt_of(INNER_PROMPT).0 > 128);
    assert_eq!((state_of(child), runs(bowout)), (Some('T'), true));
    shell.0.type_keys("fg\r");
    shell
        .0
        .until("the child runs", |_| runs(child).then_some(()));
    kill(child, ASKED);
    shell.0.got(ASKED);
    shell.0.type_keys(CTRL_C);
    assert_eq!(shell.0.prompt_of(INNER_PROMPT).0, 128 + libc::SIGINT);
    for _ in 0..2 {
        shell.0.type_keys("suspend\r");
        shell.stopped(inner, bowout);
        shell.fg(inner);
        shell.0.type_keys("echo in$((1))side\r");
        shell.0.see("in1side");
        shell.0.prompt_of(INNER_PROMPT);
    }
    shell.0.type_keys("exit 7\r");
    assert_eq!(shell.prompt().0, 7);
    assert_eq!(shell.run("stty -g").1, modes);
    assert_eq!(shell.0.foreground(), shell.0.pid);
}

#[test]
fn an_editor_works_is_stopped_and_resumed() {
    if skip(missing("vi")) {
        return;
    }
    let mut shell = Shell::start();
    let modes = shell.run("stty -g").1;
    shell.line("TERM=vt100 bowout vi text");
    shell
        .0
        .until("vi has the terminal", |pty| pty.is_raw().then_some(()));
    shell.0.see("~");
    let bowout = only_child(shell.0.pid);
    let child = only_child(bowout);
    shell.0.type_keys("ifirst\x1b");
    shell.0.see("first");
    shell.0.type_keys(CTRL_Z);
    shell.stopped(child, bowout);
    assert_eq!(shell.run("stty -g").1, modes);
    shell.fg(group_of(bowout));
    shell
        .0
        .until("vi reads keys", |pty| pty.is_raw().then_some(()));
    shell.0.type_keys("osecond\x1b:wq\r");
    assert_eq!(shell.prompt().0, 0);
    assert_eq!(shell.0.file("text"), "first\nsecond\n");
    assert_eq!(shell.run("stty -g").1, modes);
}

#[test]
fn a_pager_works_is_stopped_and_resumed() {
    if skip(missing("less")) {
        return;
    }
    let mut shell = Shell::start();
    let modes = shell.run("stty -g").1;
    shell.run("seq -f 'line-%g' 500 >lines");
    shell.line("TERM=vt100 bowout less lines");
    shell.0.see("line-5");
    let bowout = only_child(shell.0.pid);
    let child = only_child(bowout);
    shell.0.type_keys(CTRL_Z);
    shell.stopped(child, bowout);
    assert_eq!(shell.run("stty -g").1, modes);
    shell.fg(group_of(bowout));
    shell
        .0
        .until("less reads keys", |pty| pty.is_raw().then_some(()));
    shell.0.type_keys("/line-321\r");
    shell.0.see("line-325");
    shell.0.type_keys("q");
    assert_eq!(shell.prompt().0, 0);
    assert_eq!(shell.run("stty -g").1, modes);
}

#[test]
fn ctrl_c_is_left_to_a_repl_that_is_started_so() {
    let Some(python) = installed("python3") else {
        skip(missing("python3"));
        return;
    };
    let mut shell = Shell::start();
    shell.line(&format!(
        "PYTHON_BASIC_REPL=1 bowout --stop-on TERM,HUP {} -q -i",
        python.display()
    ));
    shell.0.see(">>> ");
    for round in 1..=2 {
        shell
            .0
            .type_keys("print('wait', 'ing'); exec('while 1: pass')\r");
        shell.0.see("wait ing");
        shell.0.type_keys(CTRL_C);
        shell.0.see("KeyboardInterrupt");
        shell.0.see(">>> ");
        shell.0.type_keys(&format!("print({round} * 21)\r"));
        shell.0.see(&format!("\n{}\r\n", round * 21));
        shell.0.see(">>> ");
    }
    let bowout = only_child(shell.0.pid);
    kill(bowout, libc::SIGTERM);
    assert_eq!(shell.prompt().0, 128 + libc::SIGTERM);
    assert_eq!(times(&shell.0.screen(), "Ctrl-C:"), 0);
}

#[test]
fn a_program_with_a_group_of_its_own_is_lent_the_terminal() {
    for script in ["", "bash -c '"] {
        let end = if script.is_empty() {
            ""
        } else {
            "; read line; echo \"the script read $line\"'"
        };
        let mut shell = Shell::start();
        let (child, _) = shell.probe(&format!(
            "{script}bowout -v {CATCH},TERM --exit TERM:7 --group --read{end}"
        ));
        shell.0.type_keys("hello\r");
        shell.0.see("read hello.");
        assert_eq!((group_of(child), shell.0.foreground()), (child, child));
        kill(child, libc::SIGTERM);
        if !script.is_empty() {
            shell.0.see("exited with 7");
            shell.0.type_keys("more\r");
            shell.0.see("the script read more");
        }
        shell.prompt();
        assert_eq!(shell.0.foreground(), shell.0.pid);
    }
}

#[test]
fn a_program_with_a_group_of_its_own_is_stopped_and_resumed() {
    let mut shell = Shell::start();
    let (child, bowout) = shell.probe(&format!("bowout {CATCH} --foreground"));
    for _ in 0..2 {
        assert_eq!(shell.0.foreground(), child);
        shell.suspend(child, bowout);
        shell.fg(child);
        shell.answers(bowout);
    }
    shell.0.type_keys(CTRL_C);
    assert_eq!(shell.prompt().0, 128 + libc::SIGINT);
}

/// A program that takes its own process group, without a shell that would continue the group: no
/// process of it stays stopped.
#[test]
fn fg_wakes_all_of_a_group_that_the_child_leads() {
    if skip(missing("python3")) {
        return;
    }
    let mut shell = Shell::start();
    let script = "import os, signal\nsignal.signal(signal.SIGTTOU, signal.SIG_IGN)\nos.setpgid(0, 0)\n\
                  os.tcsetpgrp(0, os.getpid())\nto = [] if os.fork() else ['--to', 'out']\n\
                  os.execvp('probe', ['probe', 'terminal', '--catch', '64'] + to)\n";
    std::fs::write(shell.0.dir.file("lead.py"), script).expect("a script");
    let (child, bowout) = shell.probe("bowout python3 lead.py");
    let member = shell.0.ready_in("out");
    assert_eq!((parent_of(member), group_of(member)), (child, child));
    for _ in 0..2 {
        shell.suspend(child, bowout);
        shell.0.state(member, 'T');
        shell.fg(child);
        shell
            .0
            .until("both run", |_| (runs(child) && runs(member)).then_some(()));
        shell.answers(bowout);
    }
}

/// In raw mode, Ctrl-C is a byte that only the child reads, so the test sends signals. bowout ends
/// as the child ends.
#[test]
fn terminal_modes_are_as_before_when_the_child_was_killed() {
    for (grace, signal, to_child) in [
        ("0", libc::SIGTERM, false),
        ("1h", libc::SIGKILL, true),
        ("1h", libc::SIGTERM, false),
    ] {
        let mut shell = Shell::start();
        let (child, bowout) = shell.probe(&format!(
            "bash -c 'stty -g; bowout --grace {grace} probe terminal --raw; stty -g; :'"
        ));
        let before = shell
            .0
            .screen()
            .lines()
            .rev()
            .nth(1)
            .expect("modes")
            .to_owned();
        assert!(shell.0.is_raw());
        kill(if to_child { child } else { bowout }, signal);
        let (_, after) = shell.prompt();
        assert!(
            before.contains(':') && after.lines().any(|line| line == before),
            "{before}\n{after}"
        );
    }
}

/// The modes then belong to the program that has the terminal: here the shell, which edits a line.
#[test]
fn a_job_that_is_killed_in_the_background_leaves_the_terminal_alone() {
    let mut shell = Shell::start();
    let (child, bowout) = shell.probe(&format!("bowout {CATCH}"));
    shell.suspend(child, bowout);
    shell.resume("bg", child, bowout);
    shell.prompt();
    assert!(shell.0.is_raw());
    kill(child, libc::SIGKILL);
    shell.0.see("was killed by SIGKILL");
    shell
        .0
        .until("bowout has ended", |_| (!runs(bowout)).then_some(()));
    assert!(shell.0.is_raw());
}

#[test]
fn the_foreground_group_is_as_before_when_its_group_was_killed() {
    let mut shell = Shell::start();
    let (child, bowout) = shell.probe(
        "bash -c 'bowout probe terminal --foreground; read line; echo \"the script read $line\"'",
    );
    let script = group_of(bowout);
    assert_eq!(shell.0.foreground(), child);
    kill(child, libc::SIGKILL);
    shell.0.until("the script has the terminal", |pty| {
        (pty.foreground() == script).then_some(())
    });
    shell.0.type_keys("more\r");
    shell.0.see("the script read more");
    assert_eq!(shell.prompt().0, 0);
}

#[test]
fn a_background_job_is_left_alone_by_the_keys() {
    let mut shell = Shell::start();
    let (child, bowout) = shell.probe(&format!("bowout {CATCH},INT,QUIT &"));
    // Past the prompt after the `&`, which may appear before the probe is ready or after it.
    shell.line("echo he''re");
    shell.0.see("here");
    shell.prompt();
    shell.0.type_keys(CTRL_C);
    assert_eq!(shell.prompt().0, 128 + libc::SIGINT);
    let seen = shell.answers(bowout);
    assert_eq!(
        (times(&seen, "got "), times(&seen, "waiting for")),
        (1, 0),
        "{seen}"
    );
    // The log of a background job does not interrupt a typed line.
    shell.0.until("the log", |pty| {
        pty.screen().contains("forwarded SIGRTMIN+30").then_some(())
    });
    shell.fg(group_of(bowout));
    shell.0.type_keys(CTRL_C);
    shell.0.got(libc::SIGINT);
    assert!(runs(child));
}

/// Compares the shell's output for a command under bowout and without it.
fn assert_same(line: &str) {
    let run = |bowout: &str| Shell::start().run(&line.replace("bowout", bowout));
    assert_eq!(run("bowout -q"), run(""), "{line}");
}

#[test]
fn pipelines_end_as_without_bowout() {
    assert_same("bowout printf 'b\\na\\n' | sort; echo \"${PIPESTATUS[*]}\"");
    assert_same("printf 'b\\na\\n' | bowout sort; echo \"${PIPESTATUS[*]}\"");
    assert_same("bowout yes | head -n 1; echo \"${PIPESTATUS[*]}\"");
    assert_same("yes | bowout head -n 1; echo \"${PIPESTATUS[*]}\"");
    assert_same("bowout yes | bowout head -n 1 | bowout cat; echo \"${PIPESTATUS[*]}\"");
}

#[test]
fn a_pipeline_ends_when_the_child_closes_it() {
    let mut shell = Shell::start();
    let rest = format!("{CATCH} --to /dev/tty");
    shell.line(&format!(
        "bowout sh -c 'echo text; exec >&-; exec {rest}' | (cat; echo the end of it)"
    ));
    shell.0.see("the end of it");
    // The probe's line can appear before that text or after it, but always before bowout's end.
    let child: i32 = shell.0.until("the probe", |pty| {
        let screen = pty.screen();
        screen[screen.rfind("ready ")? + 6..]
            .split_once('\n')?
            .0
            .trim_end()
            .parse()
            .ok()
    });
    shell.answers(parent_of(child));
    kill(child, libc::SIGTERM);
    shell.prompt();
}

#[test]
fn a_writer_ends_when_the_child_closes_the_pipeline() {
    let mut shell = Shell::start();
    let rest = format!("{CATCH} --to /dev/tty");
    shell.line(&format!(
        "(yes; echo yes ended $? >/dev/tty) | bowout sh -c 'exec <&-; exec {rest}'"
    ));
    let child = shell.0.ready();
    if !shell.0.screen().contains("yes ended 141") {
        shell.0.see("yes ended 141");
    }
    shell.answers(parent_of(child));
}

#[test]
fn a_pipeline_has_one_ctrl_c() {
    let mut shell = Shell::start();
    let (_, bowout) = shell.probe(&format!(
        "bowout --grace 1h {CATCH},INT | (trap '' INT; cat)"
    ));
    shell.0.type_keys(CTRL_C);
    shell.0.see("Ctrl-C: waiting for");
    shell.answers(bowout);
    assert_eq!(times(&shell.0.screen(), "got 2 "), 1);
}

#[test]
fn a_script_in_a_terminal_reads_it_and_has_one_ctrl_c() {
    let mut shell = Shell::start();
    std::fs::write(
        shell.0.dir.file("script"),
        format!("trap : INT\nbowout --grace 1h {CATCH},INT,TERM --exit TERM:7 --read\necho the script saw $?\n"),
    )
    .expect("a script");
    let (child, bowout) = shell.probe("sh script");
    shell.0.type_keys("hello\r");
    shell.0.see("read hello.");
    shell.0.type_keys(CTRL_C);
    shell.0.see("Ctrl-C: waiting for");
    shell.answers(bowout);
    kill(child, libc::SIGTERM);
    shell.0.see("the script saw 7");
    shell.prompt();
    assert_eq!(times(&shell.0.screen(), "got 2 "), 1);
}

#[test]
fn nohup_outlives_the_terminal() {
    let mut shell = Shell::start();
    shell.run(&format!(
        "nohup bowout -v --grace 0 {CATCH},USR2 --exit USR2:7 --to out 2>log &"
    ));
    let child = shell.0.ready_in("out");
    let bowout = parent_of(child);
    kill(bowout, libc::SIGHUP);
    shell.0.see_in("log", "forwarded SIGHUP");
    shell.0.hang_up();
    shell.0.wait();
    kill(bowout, ASKED);
    shell.0.see_in("out", "got 64 ");
    kill(bowout, libc::SIGUSR2);
    shell.0.see_in("log", "exited with 7");
}

#[test]
fn a_session_of_its_own_knows_no_keys_and_no_hang_up() {
    let mut shell = Shell::start();
    shell.run(&format!(
        "setsid -f bowout -v {CATCH},INT,HUP,USR2 --exit USR2:7 --to out 2>log"
    ));
    let child = shell.0.ready_in("out");
    let bowout = parent_of(child);
    assert_eq!(group_of(child), child);
    shell.0.type_keys(CTRL_C);
    assert_eq!(shell.prompt().0, 128 + libc::SIGINT);
    shell.0.hang_up();
    shell.0.wait();
    kill(bowout, ASKED);
    let seen = shell.0.see_in("out", "got 64 ");
    assert_eq!(times(&seen, "got "), 1, "{seen}");
    kill(bowout, libc::SIGUSR2);
    shell.0.see_in("log", "exited with 7");
}

#[test]
fn log_lines_from_the_background_stop_nothing() {
    let mut shell = Shell::start();
    shell.run("stty tostop");
    shell.line(&format!("bowout -v {CATCH} --to out &"));
    let child = shell.0.ready_in("out");
    let bowout = parent_of(child);
    kill(bowout, ASKED);
    shell.0.see("forwarded SIGRTMIN+30");
    shell.0.see_in("out", "got 64 ");
    assert!(runs(child) && runs(bowout));
    assert_eq!(times(&shell.0.screen(), "Stopped"), 0);
    // The setting is on: a command that writes is stopped.
    shell.line("sh -c 'echo x' &");
    shell
        .0
        .until("a writer in the background is stopped", |pty| {
            pty.type_keys("\r");
            pty.unread().contains("Stopped").then_some(())
        });
}

#[test]
fn a_hang_up_gives_the_child_of_a_session_leader_its_grace_period() {
    // The log goes to a file, or to the terminal that was closed.
    for log in ["2>log", ""] {
        let line = format!("exec bowout --grace 1h {CATCH},HUP,USR2 --exit USR2:7 --to out {log}");
        let mut pty = Pty::start(Role::Controlling, &["sh", "-c", &line]);
        let bowout = pty.pid;
        pty.ready_in("out");
        pty.hang_up();
        pty.see_in("out", &format!("got 1 0 {bowout}"));
        kill(bowout, ASKED);
        let seen = pty.see_in("out", "got 64 ");
        assert_eq!(times(&seen, "got 1 "), 1, "{seen}");
        if !log.is_empty() {
            pty.see_in("log", "received SIGHUP from the terminal");
            pty.see_in("log", "SIGKILL in 1h");
        }
        kill(bowout, libc::SIGUSR2);
        assert_eq!(pty.wait(), Status::Code(7));
        assert_eq!(times(&pty.file("out"), "got 1 "), 1);
    }
}

/// Hangs up on a job of the shell; the job has its grace period and ends by itself. Returns the
/// SIGHUPs that the child received, and the one that the shell sends.
fn hang_up_on(start: impl FnOnce(&mut Shell, &str)) -> (Vec<String>, String) {
    let mut shell = Shell::start();
    start(
        &mut shell,
        &format!("bowout --grace 1h {CATCH},HUP,USR2 --exit USR2:7 --to out 2>log"),
    );
    let child = shell.0.ready_in("out");
    let (bowout, leader) = (parent_of(child), shell.0.pid);
    shell.0.hang_up();
    shell.0.wait();
    shell.0.see_in("log", "received SIGHUP from the terminal");
    shell.0.see_in("log", "SIGKILL in 1h");
    kill(bowout, ASKED);
    let seen = shell.0.see_in("out", "got 64 ");
    kill(bowout, libc::SIGUSR2);
    shell.0.see_in("log", "exited with 7");
    let hang_ups = seen
        .lines()
        .filter(|line| line.starts_with("got 1 "))
        .map(ToOwned::to_owned);
    (hang_ups.collect(), format!("got 1 0 {leader}"))
}

/// The shell signals its jobs, and the kernel signals the foreground group when the shell has
/// ended. The child may receive each once, and none from bowout.
#[test]
fn a_hang_up_gives_the_child_of_a_job_its_grace_period() {
    let (hang_ups, from_shell) = hang_up_on(Shell::line);
    assert!((1..=2).contains(&hang_ups.len()), "{hang_ups:?}");
    for hang_up in &hang_ups {
        assert!(
            *hang_up == from_shell || hang_up == "got 1 128 0",
            "{hang_ups:?}"
        );
        assert_eq!(
            hang_ups.iter().filter(|other| *other == hang_up).count(),
            1,
            "{hang_ups:?}"
        );
    }
}

/// The kernel does not signal a background job: the shell does.
#[test]
fn a_hang_up_gives_the_child_of_a_background_job_its_grace_period() {
    let (hang_ups, from_shell) = hang_up_on(|shell, line| drop(shell.run(&format!("{line} &"))));
    assert_eq!(hang_ups, [from_shell]);
}

/// Until the shell has handled the hang-up, and where /dev/tty cannot be opened, only the open
/// descriptors of the terminal show the hang-up.
#[test]
fn a_hang_up_is_known_without_dev_tty() {
    if skip(no_namespaces()) {
        return;
    }
    let (hang_ups, from_shell) =
        hang_up_on(|shell, line| drop(shell.run(&format!("probe ns --here --no-tty -- {line} &"))));
    assert_eq!(hang_ups, [from_shell]);
}

/// The terminal signals the foreground group: a process in it receives the signal once. A process
/// that left the group receives it from bowout.
#[test]
fn ctrl_c_stops_the_whole_tree_where_it_is_asked_for() {
    for option in ["--wait-tree", "-g"] {
        let mut shell = Shell::start();
        let script = "p=\"probe terminal --catch 64,INT,USR2 --exit USR2:7 --to\"; setsid $p far & $p near & exec $p child";
        shell.line(&format!(
            "bowout {option} --grace 1h sh -c '{script}' 2>log"
        ));
        let all = ["far", "near", "child"].map(|name| (name, shell.0.ready_in(name)));
        shell.0.type_keys(CTRL_C);
        for (name, pid) in all {
            shell.0.see_in(name, "got 2 ");
            kill(pid, ASKED);
            let seen = shell.0.see_in(name, "got 64 ");
            assert_eq!(times(&seen, "got 2 "), 1, "{option} {name}: {seen}");
        }
        // Longer than the time between two searches for new children.
        let start = Instant::now();
        shell.0.until("two looks", |_| {
            (start.elapsed() > Duration::from_millis(1200)).then_some(())
        });
        for (name, pid) in all {
            kill(pid, libc::SIGUSR2);
            let seen = shell.0.see_in(name, "got 12 ");
            assert_eq!(times(&seen, "got 2 "), 1, "{option} {name}: {seen}");
        }
        assert_eq!(shell.prompt().0, 7, "{option}");
    }
}

/// The terminal signals the foreground group, in which bowout is alone until its fork.
#[test]
fn a_ctrl_c_before_the_fork_reaches_the_child() {
    if skip(no_strace()) {
        return;
    }
    // pipe2(2) is the last call before bowout reads its signals and forks.
    let line = "strace -D -o trace -e trace=pipe2 -e inject=pipe2:signal=SIGSTOP:when=1 bowout --grace 1h probe idle";
    let mut pty = Pty::start(Role::Controlling, &line.split(' ').collect::<Vec<_>>());
    pty.see_in("trace", "stopped by SIGSTOP");
    pty.type_keys(CTRL_C);
    let (bowout, interrupt) = (pty.pid, 1 << (libc::SIGINT - 1));
    pty.until("Ctrl-C has reached bowout", |_| {
        (pending(bowout) & interrupt != 0).then_some(())
    });
    kill(bowout, libc::SIGCONT);
    assert_eq!(pty.wait(), Status::Signal(libc::SIGINT));
}

/// The same as without bowout, which runs first.
#[test]
fn a_loop_in_the_shell_ends_on_ctrl_c_as_without_bowout() {
    for bowout in ["", "bowout "] {
        let mut shell = Shell::start();
        shell.line(&format!(
            "for i in 1 2 3; do {bowout}probe idle; done; echo after the loop"
        ));
        shell.0.ready();
        shell.0.type_keys(CTRL_C);
        let (status, seen) = shell.prompt();
        assert_eq!(
            (
                status,
                times(&seen, "after the loop"),
                times(&seen, "ready ")
            ),
            (130, 0, 0),
            "{bowout:?} {seen}"
        );

        shell.line(&format!(
            "for i in 1 2 3; do {bowout}{CATCH},INT --exit INT:0; done; echo after the loop"
        ));
        for _ in 0..3 {
            shell.0.ready();
            shell.0.type_keys(CTRL_C);
            shell.0.got(libc::SIGINT);
        }
        let (status, seen) = shell.prompt();
        assert_eq!(
            (status, times(&seen, "after the loop")),
            (0, 1),
            "{bowout:?} {seen}"
        );
    }
}

/// The command line of `docker run -it`: bowout is PID 1 on the terminal.
fn pid1(line: &str) -> Pty {
    let line: Vec<&str> = ["probe", "ns", "--", "setsid", "-c"]
        .into_iter()
        .chain(line.split(' '))
        .collect();
    Pty::start(Role::Standard, &line)
}

/// The child and bowout, which is PID 1, as this process sees them.
fn below(pty: &Pty) -> (i32, i32) {
    let bowout = only_child(pty.pid);
    (only_child(bowout), bowout)
}

#[test]
fn ctrl_z_never_freezes_a_container() {
    if skip(no_namespaces()) {
        return;
    }
    for how in ["", " --foreground"] {
        let mut pty = pid1(&format!("bowout -v {CATCH},CONT{how}"));
        pty.ready();
        let (child, bowout) = below(&pty);
        for _ in 0..2 {
            pty.type_keys(CTRL_Z);
            // The terminal echoes the key after it has sent the signal.
            pty.see("^Z");
            if !how.is_empty() {
                pty.see("no shell could continue it");
            }
            kill(bowout, ASKED);
            pty.got(ASKED);
            assert!(runs(child) && runs(bowout));
        }
    }
}

#[test]
fn a_child_of_pid_1_that_another_process_stops_stays_stopped() {
    if skip(no_namespaces()) {
        return;
    }
    let mut pty = pid1(&format!("bowout -vv {CATCH}"));
    pty.ready();
    let (child, bowout) = below(&pty);
    kill(child, libc::SIGSTOP);
    pty.see("was stopped by SIGSTOP");
    kill(bowout, ASKED);
    pty.see("forwarded SIGRTMIN+30");
    assert_eq!(state_of(child), Some('T'));
    kill(child, libc::SIGCONT);
    pty.got(ASKED);
}

#[test]
fn an_init_by_name_leaves_the_keys_to_its_child() {
    for name in [
        "docker-init",
        "podman-init",
        "tini",
        "dumb-init",
        "catatonit",
    ] {
        for how in ["ln -s", "cp"] {
            let mut shell = Shell::start();
            // The shell creates it: a file that this process writes is busy while another thread's
            // child has it open.
            shell.run(&format!("{how} {BOWOUT} {name}"));
            // A stop request would kill the child at once.
            let (child, init) =
                shell.probe(&format!("BOWOUT_GRACE=0 ./{name} -- {CATCH},INT,QUIT"));
            for (key, signal, _) in KEYS {
                for _ in 0..2 {
                    shell.0.type_keys(key);
                    shell.0.see(&format!("got {signal} {FROM_TERMINAL}"));
                    let seen = shell.answers(init);
                    assert_eq!(times(&seen, "got "), 1, "{name} {seen}");
                }
            }
            assert!(runs(child));
            assert_eq!(times(&shell.0.screen(), "waiting for"), 0, "{name}");
            kill(init, libc::SIGTERM);
            assert_eq!(shell.prompt().0, 128 + libc::SIGKILL, "{name}");
        }
    }
}

/// Typed before `exec`, so that the direct command and bowout start from the same state.
const STATES: [&str; 9] = [
    ":",
    "trap '' HUP",
    "trap '' INT QUIT",
    "trap '' TTIN TTOU TSTP",
    "trap '' PIPE",
    "umask 027; cd /usr; ulimit -s 4096; ulimit -c 0",
    "echo 500 >/proc/self/oom_score_adj",
    "exec 0<&-",
    "exec 7</dev/null 9</dev/null",
];

#[test]
fn on_a_terminal_the_view_equals_that_of_a_direct_exec() {
    let setups = [
        "--block TERM,USR1",
        "--block 20,21,22,CONT,WINCH",
        "--ignore CHLD",
    ];
    let states = STATES
        .iter()
        .map(|state| format!("{state}; exec nice -n 3 "));
    let setups = setups
        .iter()
        .map(|setup| format!("exec probe with {setup} -- "));
    for state in states.chain(setups) {
        let mut shell = Shell::start();
        shell.run("export E2E_BYTES=$'\\xff\\xfe' COLUMNS LINES");
        let mut view = |bowout: &str, to: &str| {
            assert_eq!(
                shell
                    .run(&format!(
                        "bash -c \"{state}{bowout}probe view --to $PWD/{to}\"; :"
                    ))
                    .0,
                0
            );
            let own = ["id pid ", "id parent ", "id group ", "env _="];
            let text = shell.0.file(to);
            let lines = text
                .lines()
                .filter(|line| !own.iter().any(|own| line.starts_with(own)));
            lines.map(|line| line.replace(to, "")).collect::<Vec<_>>()
        };
        let (direct, below) = (view("", "view-1"), view("bowout -q ", "view-2"));
        assert!(
            direct
                .iter()
                .any(|line| line == &format!("id session {}", shell.0.pid)),
            "{direct:?}"
        );
        assert_eq!(below, direct, "{state}");
    }
}

#[test]
fn the_child_is_in_the_group_of_its_job() {
    let mut shell = Shell::start();
    let (child, bowout) = shell.probe(&format!("bowout {CATCH}"));
    assert_eq!(
        (group_of(child), group_of(bowout), shell.0.foreground()),
        (bowout, bowout, bowout)
    );
}
