//! The table on README's first screen: the tests check each yes and no with the wrappers that are
//! installed.

use crate::common::pty::installed;
use crate::common::{no_namespaces, skip};
use crate::tour;

const WRAPPERS: [&str; 5] = ["bowout", "tini", "dumb-init", "catatonit", "timeout"];

/// A row of the table by its first words, and a script that tries it and prints yes or no. `$W` is
/// the wrapper with its most verbose log, and `$X` is the duration of a sleep that the script may
/// leave running. `runs` waits until that sleep runs. `left` waits for its end for a limited time.
const ROWS: [(&str, &str); 6] = [
    (
        "reaps orphans",
        r#"unshare --fork --pid --mount-proc $W sh -c '(sleep 0.1 &); sleep 2; grep -l "^State:.Z" /proc/[0-9]*/status | wc -l >count' >log 2>&1
[ "$(cat count)" = 0 ] && echo yes || echo no"#,
    ),
    (
        "sends SIGKILL",
        r#"$W sh -c "trap '' TERM; echo >up; exec sleep $X" >log 2>&1 & read line <up; runs; kill $!; left"#,
    ),
    (
        "ends leftover processes",
        r#"$W sh -c "setsid sh -c 'echo >up; exec sleep $X' & read line <up; until pgrep -fx 'sleep $X'; do :; done" >log 2>&1; left"#,
    ),
    (
        "ends by the same signal",
        r#"bowout -qqq --report report -- $W sh -c 'kill -TERM $$' >log 2>&1
grep -q '"child":{[^}]*"signal":"SIGTERM"' report && echo yes || echo no"#,
    ),
    (
        "logs which process",
        r#"$W sh -c 'echo >up; exec sleep 1000' >log 2>&1 & read line <up; kill $!; wait $! 2>/dev/null
grep -q "pid $$ " log && echo yes || echo no"#,
    ),
    (
        "after `kill -9`",
        r#"$W sh -c "sleep $X & echo >up; wait" >log 2>&1 & read line <up; runs; kill -9 $!; left"#,
    ),
];

/// The command line of the wrapper, with the options of a cell.
fn call(wrapper: &str, options: &str) -> String {
    match wrapper {
        "bowout" => format!("bowout --grace 1s {options} --"),
        "tini" => "tini -vvv --".into(),
        "dumb-init" => "dumb-init -v --".into(),
        "catatonit" => "env CATATONIT_DEBUG=1 catatonit --".into(),
        "timeout" if options == "-k" => "timeout -v -k 1 1h".into(),
        "timeout" => "timeout -v 1h".into(),
        _ => unreachable!("{wrapper}"),
    }
}

fn tried(script: &str, wrapper: &str, options: &str, expected: &str) -> String {
    // For a yes, `left` waits at most 10 s; for a no, it waits the full 2 s.
    let tenths = if expected == "yes" { 100 } else { 20 };
    let call = call(wrapper, options);
    let lines = tour::run(&format!(
        r#"mkfifo up; W='{call}'; X=1000.$$
pids() {{ pgrep -fx "sleep $X"; }}
runs() {{ until [ -n "$(pids)" ]; do sleep 0.01; done; }}
left() {{
    n=0
    while [ -n "$(pids)" ] && [ $n -lt {tenths} ]; do sleep 0.1; n=$((n + 1)); done
    if [ -n "$(pids)" ]; then kill -9 $(pids); echo no; else echo yes; fi
}}
{script}"#
    ));
    lines.last().cloned().unwrap_or_default()
}

fn tries_a_row(at: usize) {
    if skip(no_namespaces()) {
        return;
    }
    let (words, script) = ROWS[at];
    let readme = include_str!("../../README.md");
    let line = readme
        .lines()
        .find(|line| line.starts_with(&format!("| {words}")))
        .unwrap_or_else(|| panic!("README.md has no row {words}"));
    let cells: Vec<_> = line.split('|').skip(2).take(5).map(str::trim).collect();
    for (wrapper, cell) in WRAPPERS.into_iter().zip(cells) {
        if wrapper != "bowout" && installed(wrapper).is_none() {
            let reason = format!("{wrapper} is not installed");
            assert!(skip(Some(reason)));
            continue;
        }
        let option = cell
            .strip_prefix("with `")
            .and_then(|cell| cell.strip_suffix('`'));
        let plain = option.map_or(cell, |_| "no");
        assert!(["yes", "no"].contains(&plain), "{line}");
        assert_eq!(
            tried(script, wrapper, "", plain),
            plain,
            "{words}: {wrapper}"
        );
        if let Some(option) = option {
            assert_eq!(
                tried(script, wrapper, option, "yes"),
                "yes",
                "{words}: {wrapper}"
            );
        }
    }
}

#[test]
fn the_row_of_orphans_is_what_each_wrapper_does() {
    tries_a_row(0);
}

#[test]
fn the_row_of_sigkill_is_what_each_wrapper_does() {
    tries_a_row(1);
}

#[test]
fn the_row_of_what_is_left_is_what_each_wrapper_does() {
    tries_a_row(2);
}

#[test]
fn the_row_of_the_same_death_is_what_each_wrapper_does() {
    tries_a_row(3);
}

#[test]
fn the_row_of_the_sender_is_what_each_wrapper_does() {
    tries_a_row(4);
}

#[test]
fn the_row_of_kill_9_is_what_each_wrapper_does() {
    tries_a_row(5);
}
