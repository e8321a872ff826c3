//! At a real terminal: a program that continues after a Ctrl-C, for which bowout cancels the stop,
//! and a program that hangs, which a second Ctrl-C kills.

use std::time::{Duration, Instant};

use crate::common::pty::{
    CTRL_C, CTRL_Z, INNER_PROMPT, Pty, Role, Shell, group_of, installed, kill, missing, parent_of,
    runs, state_of, waits_for_keys,
};
use crate::common::{
    BOWOUT, Start, Status, children, no_namespaces, no_strace, skip, switches_asleep,
};

/// Catches the signal that queries the probe.
const CATCH: &str = "probe terminal --catch 64";
/// Catches signals and never exits on them.
const HANGS: &str = "probe terminal --catch 64,INT";

/// bowout's log lines after a Ctrl-C.
const CANCELLED: &str = "is at its prompt, the stop is cancelled";
const WAITING: &str = "Ctrl-C: waiting for";

/// The number of times that a text is on the screen.
fn count(pty: &Pty, text: &str) -> usize {
    pty.screen().matches(text).count()
}

/// The last process of a chain of only children: the program.
fn program(above: i32) -> i32 {
    match children(above)[..] {
        [] => above,
        [child] => program(child),
        _ => panic!("{above} has several children"),
    }
}

/// Types Ctrl-C and waits for bowout's line that the stop is cancelled.
fn cancel(pty: &mut Pty) {
    let before = count(pty, CANCELLED);
    let program = program(pty.pid);
    pty.until("it computes or waits", |pty| {
        (!pty.is_raw() || state_of(program) == Some('S')).then_some(())
    });
    pty.type_keys(CTRL_C);
    pty.until("bowout sees the prompt", |pty| {
        (count(pty, CANCELLED) == before + 1).then_some(())
    });
}

/// The same, and waits for the program's own output, if it has any.
fn interrupt(pty: &mut Pty, answer: &str) {
    cancel(pty);
    if !answer.is_empty() {
        pty.see(answer);
    }
}

/// The same, once the program waits for keys. A program with an output also gets an Enter, because
/// a signal can arrive where readline(3) only records it, and acts on it after the next line:
/// - between the prompt and the wait for keys;
/// - after a select(2) that reports a key that does not exist. At a Ctrl-C the kernel sets the
///   positions of the queue to 0 one after the other (drivers/tty/n_tty.c, `reset_buffer_flags`),
///   and a program that looks in between sees a key. This also happens without bowout, where the
///   foreground has two processes.
fn interrupt_prompt(pty: &mut Pty, answer: &str) {
    await_keys(pty);
    cancel(pty);
    await_keys(pty);
    if !answer.is_empty() {
        pty.type_keys("\r");
        pty.see(answer);
    }
}

/// Waits until the program waits for keys. A signal wakes it at once: after a Ctrl-C, it has then
/// acted on it. A key that it reads before that is dropped with the line.
fn await_keys(pty: &mut Pty) {
    let program = program(pty.pid);
    pty.until("the program waits for keys", |_| {
        waits_for_keys(program).then_some(())
    });
}

/// Types a line and waits for the program's output.
fn answer(pty: &mut Pty, line: &str, answer: &str) {
    pty.type_keys(&format!("{line}\r"));
    pty.see(answer);
}

/// The command line of the distribution's own python3, which edits lines.
fn python() -> Option<String> {
    let python = installed("python3")
        .map(|path| format!("env PYTHON_BASIC_REPL=1 {} -q -i", path.display()));
    skip(python.is_none().then(|| "python3 is not installed".into()));
    python
}

/// Ctrl-C at the prompt and in a loop; then a command that runs past the time at which the first
/// stop would have killed it.
fn drive_python(pty: &mut Pty) {
    pty.see(">>> ");
    for _ in 0..2 {
        interrupt_prompt(pty, "KeyboardInterrupt");
        answer(
            pty,
            "print('wait', 'ing'); exec('while 1: pass')",
            "wait ing",
        );
        interrupt(pty, "KeyboardInterrupt");
    }
    let bowout = parent_of(program(pty.pid));
    let before = switches_asleep(&[bowout]);
    answer(
        pty,
        "import time; time.sleep(4.5); print(6 * 7)",
        "\n42\r\n",
    );
    pty.see(">>> ");
    assert_eq!(
        switches_asleep(&[bowout]),
        before,
        "looks at the terminal though no stop is under way"
    );
    assert_eq!(count(pty, "sent SIGKILL"), 0);
    pty.type_keys("exit(7)\r");
}

/// Returns true if a program is installed; otherwise, the test is skipped.
fn has(program: &str) -> bool {
    !skip(missing(program))
}

#[test]
fn an_interpreter_goes_on() {
    let Some(python) = python() else { return };
    let mut shell = Shell::start();
    shell.line(&format!("bowout -v --grace 4s {python}"));
    drive_python(&mut shell.0);
    assert_eq!(shell.prompt().0, 7);
}

/// The command line of `docker run -it`; PID 1 itself receives no stop request.
#[test]
fn an_interpreter_below_pid_1_goes_on() {
    let Some(python) = python() else { return };
    if skip(no_namespaces()) {
        return;
    }
    let line = format!("probe ns -- setsid -c bowout -v --grace 4s {python}");
    let mut pty = Pty::start(Role::Standard, &line.split(' ').collect::<Vec<_>>());
    drive_python(&mut pty);
    assert_eq!(pty.wait(), Status::Code(7));
}

/// The command line of `unshare -pf`: the leader of the session is outside the namespace, and has
/// the number 0 in it.
#[test]
fn an_interpreter_whose_session_is_led_from_outside_goes_on() {
    let Some(python) = python() else { return };
    if skip(no_namespaces()) || !has("unshare") {
        return;
    }
    let mut shell = Shell::start();
    shell.line(&format!(
        "unshare -pf --mount-proc bowout -v --grace 4s {python}"
    ));
    drive_python(&mut shell.0);
    assert_eq!(shell.prompt().0, 7);
}

/// Under the name of an init, Ctrl-C does not request a stop; with a grace period of 0, a stop
/// would kill at once.
#[test]
fn an_interpreter_below_an_init_by_name_goes_on() {
    let Some(python) = python() else { return };
    let mut shell = Shell::start();
    shell.run(&format!("cp {BOWOUT} tini"));
    shell.line(&format!("BOWOUT_GRACE=0 ./tini -vv -- {python}"));
    shell.0.see(">>> ");
    answer(
        &mut shell.0,
        "print('wait', 'ing'); exec('while 1: pass')",
        "wait ing",
    );
    shell.0.type_keys(CTRL_C);
    shell.0.see("KeyboardInterrupt");
    answer(&mut shell.0, "print(6 * 7)", "\n42\r\n");
    shell.0.type_keys("exit(7)\r");
    assert_eq!(shell.prompt().0, 7);
    assert_eq!(count(&shell.0, CANCELLED), 0);
    // The user's `--stop-on` overrides that, and the prompt cancels the stop here as well.
    shell.line(&format!("./tini -v --stop-on TERM,INT -- {python}"));
    drive_python(&mut shell.0);
    assert_eq!(shell.prompt().0, 7);
}

#[test]
fn a_database_shell_goes_on() {
    if !has("sqlite3") {
        return;
    }
    let mut shell = Shell::start();
    shell.line("bowout -v --grace 4s sqlite3");
    shell.0.see("sqlite> ");
    interrupt_prompt(&mut shell.0, "");
    answer(&mut shell.0, "SELECT 6 * 7;", "42\r\n");
    shell.0.see("sqlite> ");
    shell.0.type_keys(
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n;\r",
    );
    shell.0.see("FROM n;\r\n");
    interrupt(&mut shell.0, "interrupted");
    answer(&mut shell.0, "SELECT 7 * 6;", "42\r\n");
    shell.0.type_keys(".exit 7\r");
    assert_eq!(shell.prompt().0, 7);
    assert_eq!(count(&shell.0, "sent SIGKILL"), 0);
}

/// A database server for the test. It refuses to run as root, so that root starts it as another
/// user.
const SERVER: &str = r#"
bin=$(ls -d /usr/lib/postgresql/*/bin | tail -n 1)
as=; [ "$(id -u)" != 0 ] || { as='setpriv --reuid=postgres --regid=postgres --clear-groups'; chown postgres .; }
$as $bin/initdb -D data -A trust -N -U postgres && exec $as $bin/postgres -D data -k "$PWD" -c listen_addresses= -c fsync=off
"#;

#[test]
fn the_shell_of_a_database_server_goes_on() {
    if !has("psql") {
        return;
    }
    let mut shell = Shell::start();
    let mut server = Start::direct().dir(&shell.0.dir.0).sh(SERVER);
    server.err.find("the server", |line| {
        line.contains("ready to accept connections")
    });
    shell.line("bowout -v --grace 4s psql -X -h \"$PWD\" -U postgres");
    shell.0.see("postgres=# ");
    interrupt_prompt(&mut shell.0, "");
    answer(&mut shell.0, "SELECT 6 * 7;", "42\r\n");
    shell.0.see("postgres=# ");
    let query = "DO $$ BEGIN RAISE NOTICE 'wait%', 'ing'; PERFORM pg_sleep(1000); END $$;";
    answer(&mut shell.0, query, "NOTICE:  waiting");
    interrupt(&mut shell.0, "canceling statement due to user request");
    answer(&mut shell.0, "SELECT 7 * 6;", "42\r\n");
    shell.0.see("postgres=# ");
    shell.0.type_keys("\\q\r");
    assert_eq!(shell.prompt().0, 0);
    assert_eq!(count(&shell.0, "sent SIGKILL"), 0);
    // SIGQUIT shuts the server down at once; after SIGKILL, the memory that it shares with its
    // processes would stay.
    server.kill(libc::SIGQUIT);
    server.wait();
}

#[test]
fn a_debugger_goes_on() {
    if !has("gdb") {
        return;
    }
    let mut shell = Shell::start();
    shell.line("bowout -v --grace 4s gdb -nx -q");
    shell.0.see("(gdb) ");
    interrupt_prompt(&mut shell.0, "Quit");
    shell.0.type_keys("while 1\recho loop\\n\rend\r");
    shell.0.see("\nloop\r\n");
    interrupt(&mut shell.0, "Quit");
    answer(&mut shell.0, "print 6 * 7", "= 42\r\n");
    shell.0.type_keys("quit 7\r");
    assert_eq!(shell.prompt().0, 7);
    assert_eq!(count(&shell.0, "sent SIGKILL"), 0);
}

/// After `F`, less waits for the file to grow, until Ctrl-C.
#[test]
fn a_pager_goes_on() {
    if !has("less") {
        return;
    }
    let mut shell = Shell::start();
    shell.run("seq -f 'line-%g' 500 >lines");
    shell.line("TERM=vt100 bowout -v --grace 4s less lines");
    shell.0.see("line-5");
    shell.0.type_keys("F");
    shell.0.see("Waiting for data");
    interrupt(&mut shell.0, "");
    await_keys(&mut shell.0);
    shell.0.type_keys("?line-321\r");
    shell.0.see("line-325");
    interrupt_prompt(&mut shell.0, "");
    quit_pager(&mut shell.0, |pty| {
        pty.screen().contains("exited with 0").then_some(())
    });
    assert_eq!(shell.prompt().0, 0);
    assert_eq!(count(&shell.0, "sent SIGKILL"), 0);
}

/// Presses `q` until the pager has exited: it drops a key that it reads right after a Ctrl-C.
fn quit_pager(pty: &mut Pty, mut has_exited: impl FnMut(&mut Pty) -> Option<()>) {
    let mut pressed: Option<Instant> = None;
    pty.until("the pager exits", |pty| {
        let exited = has_exited(pty);
        let is_lost = pressed.is_none_or(|at| at.elapsed() > Duration::from_secs(5));
        if exited.is_none() && is_lost {
            pty.type_keys("q\r");
            pressed = Some(Instant::now());
        }
        exited
    });
}

/// A shell that reads whole lines: /proc shows that it waits for one, and the modes of the terminal
/// do not. Here the shell is a descendant, in bowout's process group.
#[test]
fn a_program_that_reads_a_line_goes_on() {
    if !has("dash") {
        return;
    }
    let below = "sh -c 'trap : INT; PS1=\"$INNER\" dash -i +m; exit 7'";
    let mut shell = Shell::start();
    shell.line(&format!("bowout -v --grace 4s {below}"));
    assert_eq!(shell.0.prompt_of(INNER_PROMPT).0, 0);
    assert!(!shell.0.is_raw());
    for _ in 0..2 {
        let before = count(&shell.0, CANCELLED);
        shell.0.type_keys(CTRL_C);
        assert_eq!(shell.0.prompt_of(INNER_PROMPT).0, 128 + libc::SIGINT);
        shell.0.until("bowout sees the prompt", |pty| {
            (count(pty, CANCELLED) == before + 1).then_some(())
        });
    }
    shell.0.type_keys("exit\r");
    assert_eq!(shell.prompt().0, 7);
    if skip(no_namespaces()) {
        return;
    }
    // Without /proc, bowout has only the modes, which do not show the prompt.
    shell.line(&format!(
        "probe ns --here --no-proc -- bowout -v --grace 1h {below}"
    ));
    assert_eq!(shell.0.prompt_of(INNER_PROMPT).0, 0);
    shell.0.type_keys(CTRL_C);
    shell.0.see(WAITING);
    shell.0.type_keys(CTRL_C);
    shell
        .0
        .see("received SIGINT from the terminal, the second stop request");
    assert_eq!(shell.prompt().0, 128 + libc::SIGKILL);
}

/// The server hangs, and the pager is at its prompt all the time.
#[test]
fn a_server_before_a_pager_is_stopped_by_the_second_ctrl_c() {
    if !has("less") {
        return;
    }
    let mut shell = Shell::start();
    shell.line(&format!(
        "bowout --grace 1h {HANGS} --to out 2>log | TERM=vt100 less; echo \"${{PIPESTATUS[*]}}\""
    ));
    shell.0.ready_in("out");
    shell.0.until("the pager has the terminal", |pty| {
        pty.is_raw().then_some(())
    });
    shell.0.type_keys(CTRL_C);
    shell.0.see_in("log", WAITING);
    shell.0.type_keys(CTRL_C);
    shell.0.see_in(
        "log",
        "received SIGINT from the terminal, the second stop request",
    );
    shell.0.see_in("log", "was killed by SIGKILL");
    // bowout has restored the terminal modes that it found, from before or after the pager set its
    // own.
    quit_pager(&mut shell.0, |pty| {
        pty.screen().contains("137 ").then_some(())
    });
}

/// A computation that ignores Ctrl-C is not at a prompt.
#[test]
fn an_interpreter_that_hangs_is_killed_by_the_second_ctrl_c() {
    let Some(python) = python() else { return };
    let mut shell = Shell::start();
    shell.line(&format!("bowout --grace 1h {python}"));
    shell.0.see(">>> ");
    let hang = "import signal; signal.signal(2, signal.SIG_IGN); print('wait', 'ing'); exec('while 1: pass')";
    answer(&mut shell.0, hang, "wait ing");
    shell.0.type_keys(CTRL_C);
    shell.0.see(WAITING);
    shell.0.type_keys(CTRL_C);
    shell
        .0
        .see("received SIGINT from the terminal, the second stop request");
    assert_eq!(shell.prompt().0, 128 + libc::SIGKILL);
}

/// The shell is then at its prompt; the program, in the background, is not.
#[test]
fn the_prompt_of_the_shell_cancels_no_stop() {
    let mut shell = Shell::start();
    let (child, bowout) = shell.probe(&format!("bowout -v --grace 1h {HANGS}"));
    shell.0.type_keys(CTRL_C);
    shell.0.see(WAITING);
    shell.suspend(child, bowout);
    shell.resume("bg", child, bowout);
    shell.prompt();
    assert!(shell.0.is_raw());
    // Longer than the time between two checks for the prompt.
    assert_eq!(
        shell.run("bowout -qq --max-runtime 500ms probe idle").0,
        124
    );
    shell.answers(bowout);
    shell.resume("fg", child, bowout);
    shell.0.type_keys(CTRL_C);
    shell
        .0
        .see("received SIGINT from the terminal, the second stop request");
    assert_eq!(shell.prompt().0, 128 + libc::SIGKILL);
    assert_eq!(count(&shell.0, CANCELLED), 0);
}

/// Runs bowout in a script; returns the shell, the child and bowout.
fn in_a_script(options: &str) -> (Shell, i32, i32) {
    let mut shell = Shell::start();
    let line = format!("bowout -v {options} probe terminal --catch 64,USR2 --exit USR2:7");
    std::fs::write(
        shell.0.dir.file("script"),
        format!("{line}\necho the script saw $?\n"),
    )
    .expect("a script");
    let (child, bowout) = shell.probe("sh script");
    (shell, child, bowout)
}

/// cpulimit(1) does this. If bowout stopped with the child, it would never see the child's exit,
/// and the script would wait forever.
#[test]
fn a_child_that_is_stopped_and_continued_by_its_number_leaves_bowout_awake() {
    for (signal, name) in [
        (libc::SIGSTOP, "SIGSTOP"),
        (libc::SIGTSTP, "SIGTSTP"),
        (libc::SIGTTIN, "SIGTTIN"),
    ] {
        let (mut shell, child, bowout) = in_a_script("");
        for _ in 0..2 {
            kill(child, signal);
            shell.0.state(child, 'T');
            shell.0.see(&format!("was stopped by {name}"));
            assert!(runs(bowout));
            kill(child, libc::SIGCONT);
            shell.answers(bowout);
        }
        // A stopped child exits.
        kill(child, signal);
        shell.0.state(child, 'T');
        kill(child, libc::SIGUSR2);
        kill(child, libc::SIGCONT);
        shell.0.see("the script saw 7");
        shell.prompt();
    }
}

/// The child was not stopped by the user's Ctrl-Z, so that the time runs.
#[test]
fn the_deadlines_hold_while_the_child_alone_is_stopped() {
    let (mut shell, child, _) = in_a_script("--max-runtime 1s --grace 1h");
    kill(child, libc::SIGSTOP);
    shell.0.see("has run for 1");
    shell.0.see("s: sent SIGTERM");
    shell.0.see("the script saw 124");
}

/// Each process of the group receives its signal at its own moment.
#[test]
fn ctrl_z_stops_a_script_as_a_whole_every_time() {
    let (mut shell, child, bowout) = in_a_script("");
    for _ in 0..20 {
        shell.suspend(child, bowout);
        shell.resume("fg", child, bowout);
        shell.answers(bowout);
    }
    kill(child, libc::SIGUSR2);
    shell.0.see("the script saw 7");
}

/// The shell does not wait for bowout, which is about to stop itself: `fg` happens first.
#[test]
fn fg_in_a_script_that_comes_before_bowout_stops_leaves_it_awake() {
    if skip(no_strace()) {
        return;
    }
    let mut shell = Shell::start();
    // bowout's first kill(2) is to itself.
    let strace = "strace -DDD -o trace -e trace=kill -e inject=kill:delay_enter=2s:when=1";
    let (child, bowout) = shell.probe(&format!("sh -c '{strace} bowout {CATCH}; :'"));
    shell.0.type_keys(CTRL_Z);
    shell.0.see("Stopped");
    shell.prompt();
    shell.0.state(child, 'T');
    let kill = libc::SYS_kill.to_string();
    let call = || std::fs::read_to_string(format!("/proc/{bowout}/syscall")).unwrap_or_default();
    shell.0.until("bowout is about to stop", |_| {
        (call().split(' ').next() == Some(&kill)).then_some(())
    });
    shell.fg(group_of(bowout));
    shell.0.see_in("trace", "SIGTSTP)");
    shell.answers(bowout);
    shell.0.type_keys(CTRL_C);
    shell.prompt();
}

/// No shell watches a group that the child leads in a script, and Ctrl-Z would leave it stopped
/// forever.
#[test]
fn ctrl_z_never_freezes_a_script() {
    let mut shell = Shell::start();
    let (child, bowout) = shell
        .probe("bash -c 'bowout -v probe terminal --catch 64,USR2 --exit USR2:7 --foreground; :'");
    assert_eq!(group_of(child), child);
    for _ in 0..2 {
        shell.0.type_keys(CTRL_Z);
        shell.0.see("no shell could continue it: sent SIGCONT");
        shell.answers(bowout);
        assert!(runs(child));
    }
    kill(child, libc::SIGUSR2);
    shell.prompt();
}
