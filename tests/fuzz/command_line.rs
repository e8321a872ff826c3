//! Fuzz target of the whole command line and its variables, parted by newlines: every option that
//! has a value, and the options together. The first lines of the form `BOWOUT_…=…` are variables.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use super::*;
use crate::fuzz::{assert_one_line, fuzz};
use crate::log::escape;
use crate::policy::KillMode;

/// The variables, and the words after them; neither can contain a NUL byte.
fn parts(input: &[u8]) -> (Vec<CString>, Vec<OsString>) {
    let lines: Vec<_> = input
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.contains(&0))
        .collect();
    let is_variable = |line: &&&[u8]| line.starts_with(b"BOWOUT_") && line.contains(&b'=');
    let variables: Vec<_> = lines
        .iter()
        .take_while(is_variable)
        .map(|line| CString::new(*line).unwrap())
        .collect();
    let words = lines[variables.len()..]
        .iter()
        .map(|word| OsStr::from_bytes(word).to_owned());
    let words = ["bowout".into()].into_iter().chain(words).collect();
    (variables, words)
}

fn a_command_line(input: &[u8]) {
    let (variables, words) = parts(input);
    match parse(&words, variables.iter().map(CString::as_c_str)) {
        Ok(draft) => {
            let cli = &draft.config;
            // The last words are the command, whichever words stood before them.
            let command: Vec<_> = std::iter::once(&cli.command).chain(&cli.args).collect();
            assert!(
                words.ends_with(&command.iter().copied().cloned().collect::<Vec<_>>()),
                "runs other words: {cli:?}"
            );
            let before = &words[1..words.len() - command.len()];
            let is_option = |word: &OsString| word.as_bytes().starts_with(b"-");
            assert!(
                before.is_empty() || before.iter().any(is_option),
                "skips a command: {cli:?}"
            );
            match draft.clone().check(|| Duration::from_secs(8)) {
                Ok(config) => {
                    assert_eq!((&config.command, &config.args), (&cli.command, &cli.args));
                    let policy = &config.policy;
                    let (total, most) = (policy.ladder.total(0), policy.grace_max);
                    assert!(
                        most.is_none_or(|most| total.is_some_and(|total| total <= most)),
                        "less than the grace period"
                    );
                    let first = policy.ladder.rung(0).and_then(|rung| rung.wait);
                    assert!(
                        first.is_none_or(|first| policy.stop_delay < first),
                        "a delay that leaves nothing"
                    );
                    assert!(
                        !policy.wait_tree || policy.kill_mode != KillMode::Process,
                        "waits for processes that it must not signal"
                    );
                    assert_ne!(policy.max_runtime, Some(Duration::ZERO));
                }
                Err(error) => assert_one_line(&error.to_string()),
            }
        }
        Err(Stop::Usage(text)) => {
            assert!(!text.contains(['\n', '\r']), "more than one line: {text:?}");
            assert_one_line(&escape(&text));
            let says = [
                "write ",
                "did you mean ",
                "see 'bowout --help",
                "is not one of ",
                "leave ",
                "give it once",
                "is given as ",
            ];
            assert!(
                says.iter().any(|says| text.contains(says)),
                "does not say what to type: {text}"
            );
        }
        Err(Stop::Alone) => assert_eq!(words.len().max(1), 1),
        Err(Stop::Info(text)) => assert!(text.contains("bowout") && text.ends_with('\n')),
    }
}

#[test]
fn command_line() {
    fuzz("command_line", 250, a_command_line);
}
