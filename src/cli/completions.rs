//! packaging/completions: clap_complete makes them from the definition, and this file adds hints
//! that it does not know.
//!
//! Only in the tests: the program holds neither the hints nor the generator. `BLESS=1 cargo test
//! --bin bowout completions` writes the files, and without BLESS they are compared.
//!
//! Caveat: clap_complete does not complete the command after the options. In zsh it does, and
//! offers bowout's options among the command's. This file has the replacement for each shell.

use std::fs;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, Command, ValueHint};
use clap_complete::{Shell, generate};

use super::options::{self, definition};
use crate::signal::Signal;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/completions");

/// The standard signals, as people type them; the real-time ones would be half of the list.
fn signals(wanted: fn(&Signal) -> bool) -> PossibleValuesParser {
    let all = (1..32).filter_map(Signal::new).filter(wanted);
    PossibleValuesParser::new(all.map(|signal| &signal.to_string().leak()[3..]))
}

/// An option that --help leaves out has its text in --help-all, with its variable.
fn with_help(arg: Arg) -> Arg {
    let Some(long) = arg
        .get_long_help()
        .filter(|_| arg.get_help().is_none())
        .map(ToString::to_string)
    else {
        return arg;
    };
    let help = long.split(" [env: ").next().unwrap_or_default().to_owned();
    arg.help(help)
}

/// The words that a shell can offer for a value, or a hint from the value's name.
fn with_hint(arg: Arg) -> Arg {
    let option = options::OPTIONS
        .iter()
        .find(|option| arg.get_long() == Some(option.long));
    let words = option.map_or(vec![], |option| (option.words)());
    if !words.is_empty() {
        return arg.value_parser(PossibleValuesParser::new(words));
    }
    let name = arg.get_value_names().and_then(<[_]>::first);
    match name.map_or("", |name| name.as_str()) {
        "DURATION" | "LADDER" | "FROM:TO" | "CODE[:NEW]" | "fd:N|notify" => {
            arg.value_hint(ValueHint::Other)
        }
        "SIGNAL" => arg.value_parser(signals(|_| true)),
        "SIGNAL,..." => arg.value_parser(signals(|signal| signal.catchable())),
        "COMMAND" if arg.is_positional() => {
            arg.hide(false).value_hint(ValueHint::CommandWithArguments)
        }
        "COMMAND" => arg.value_hint(ValueHint::CommandString),
        "FILE" => arg.value_hint(ValueHint::FilePath),
        _ => arg,
    }
}

/// The definition, with a hint for each value.
fn hinted() -> Command {
    definition().mut_args(with_help).mut_args(with_hint)
}

/// The options by their names, `--rewrite` among them.
fn options() -> Vec<Arg> {
    definition()
        .get_arguments()
        .filter(|arg| !arg.is_positional())
        .cloned()
        .collect()
}

/// True if the next word is this option's value.
fn takes_word(arg: &Arg) -> bool {
    arg.get_action().takes_values() && !arg.is_require_equals_set()
}

fn longs(arg: &Arg) -> Vec<&str> {
    arg.get_long()
        .into_iter()
        .chain(arg.get_visible_aliases().unwrap_or_default())
        .collect()
}

/// `text` with `new` in the place of `old`, which is there `times` times.
fn replaced(text: &str, old: &str, new: &str, times: usize) -> String {
    assert_eq!(
        text.matches(old).count(),
        times,
        "clap_complete writes something else now than {old:?}:\n{text}"
    );
    text.replace(old, new)
}

fn generated(shell: Shell, mut command: Command) -> String {
    let mut bytes = Vec::new();
    generate(shell, &mut command, "bowout", &mut bytes);
    String::from_utf8(bytes).expect("completions are UTF-8")
}

/// A `=` and a `:` are words of their own in bash (COMP_WORDBREAKS).
const BASH: &str = r#"
# Where the command begins, in `at`; after the cursor, if that is at an option's value.
_bowout_find_command() {
    at=1
    while ((at < COMP_CWORD)); do
        local word=${COMP_WORDS[at]}
        if [[ $word == -- ]]; then
            ((++at))
            dashes=1
            return
        elif [[ $word == --* && ${COMP_WORDS[at + 1]-} == = ]]; then
            ((at += 3))
        elif [[ $word =~ ^(@LONGS@|-[@FLAGS@]*[@SHORTS@])$ ]]; then
            ((at += 2))
        elif [[ $word == -?* ]]; then
            ((++at))
        else
            return
        fi
        while [[ ${COMP_WORDS[at]-} == : ]]; do ((at += 2)); done
    done
}

# The options as clap_complete has them; the command as it is completed without bowout.
_bowout_or_command() {
    local at dashes=
    _bowout_find_command
    if ((at > COMP_CWORD)) && [[ $2 == = ]]; then
        _bowout "$1" "" "$3"
    elif ((at > COMP_CWORD)) && [[ $3 == = ]]; then
        _bowout "$1" "$2" "${COMP_WORDS[COMP_CWORD - 2]}"
    elif ((at > COMP_CWORD)) || [[ $at -eq $COMP_CWORD && -z $dashes && $2 == -* ]]; then
        _bowout "$@"
    elif declare -F _command_offset >/dev/null; then
        _command_offset "$at"
    elif ((at == COMP_CWORD)); then
        mapfile -t COMPREPLY < <(compgen -c -- "$2")
    else
        compopt -o default
    fi
}

complete -F _bowout_or_command bowout
"#;

fn bash() -> String {
    let text = generated(Shell::Bash, hinted());
    let (function, _) = text
        .split_once("\nif [[ \"${BASH_VERSINFO[0]}\" -eq 4")
        .expect("the call of complete");
    let options = options();
    let longs = options.iter().filter(|arg| takes_word(arg)).flat_map(longs);
    let longs = longs
        .map(|long| format!("--{long}"))
        .collect::<Vec<_>>()
        .join("|");
    let shorts = |value| {
        options
            .iter()
            .filter(|arg| takes_word(arg) == value)
            .filter_map(Arg::get_short)
            .collect::<String>()
    };
    let ours = BASH
        .replace("@LONGS@", &longs)
        .replace("@FLAGS@", &shorts(false))
        .replace("@SHORTS@", &shorts(true));
    format!("{function}{ours}")
}

fn zsh() -> String {
    // In zsh's specifications a colon ends the name of a value.
    let mut command = hinted();
    for name in ["remap", "remap-exit"] {
        command = command.mut_arg(name, |arg| {
            let name = arg.get_value_names().expect("an option that takes a value")[0]
                .replace(':', "\\:")
                .leak();
            arg.value_name(&*name)
        });
    }
    let ours = "'(-)1:command:_command_names -e' \\\n'*::argument:_normal'";
    replaced(
        &generated(Shell::Zsh, command),
        "'*::command:_cmdambivalent'",
        ours,
        1,
    )
}

/// Every line of clap_complete's gets the condition that there is no command yet.
const FISH: &str = r#"
# The command and its arguments up to the cursor; fails at an option's value.
function __bowout_command
    set -l words (commandline -opc)
    argparse -s @OPTIONS@ -- $words[2..] 2>/dev/null
    or return
    set -q argv[1]
    and string join -- \n $argv
    return 0
end

function __bowout_before_command
    set -l words (__bowout_command)
    test -z "$words"
end

function __bowout_complete_command
    set -l words (__bowout_command)
    and complete --do-complete=(string join -- ' ' (string escape -- $words) (commandline -ct))
end

complete -c bowout -x -a '(__bowout_complete_command)'
"#;

fn fish() -> String {
    let text = generated(Shell::Fish, hinted());
    let times = options().len();
    let text = replaced(
        &text,
        "complete -c bowout ",
        "complete -c bowout -n __bowout_before_command ",
        times,
    );
    let mut specs = Vec::new();
    for arg in options() {
        let value = if takes_word(&arg) {
            "="
        } else if arg.get_action().takes_values() {
            "=?"
        } else {
            ""
        };
        let mut short = arg
            .get_short()
            .map_or(String::new(), |short| format!("{short}/"));
        for long in longs(&arg) {
            specs.push(format!("{short}{long}{value}"));
            short.clear();
        }
    }
    format!(
        "{text}{}",
        FISH.replace(
            "@OPTIONS@",
            &specs
                .iter()
                .map(|spec| format!("'{spec}'"))
                .collect::<Vec<_>>()
                .join(" ")
        )
    )
}

#[test]
fn completions_are_those_of_the_definition() {
    let head = "# Made from the definition of bowout's command line: BLESS=1 cargo test --bin bowout completions\n";
    for (file, text) in [
        ("bowout.bash", bash()),
        ("_bowout", zsh()),
        ("bowout.fish", fish()),
    ] {
        // compinit looks at the first line only.
        let text = match text.split_once('\n') {
            Some((first, rest)) if first.starts_with("#compdef") => {
                format!("{first}\n{head}{rest}")
            }
            _ => format!("{head}\n{}", text.trim_start()),
        };
        let path = format!("{FOLDER}/{file}");
        if std::env::var_os("BLESS").is_some() {
            fs::create_dir_all(FOLDER)
                .and_then(|()| fs::write(&path, &text))
                .unwrap_or_else(|error| panic!("{path}: {error}"));
        }
        let found = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert!(
            found == text,
            "{path} is not what the definition says: BLESS=1 cargo test --bin bowout completions"
        );
    }
}

#[test]
fn every_value_has_its_hint() {
    for arg in hinted()
        .get_arguments()
        .filter(|arg| arg.get_action().takes_values())
    {
        let words = !arg.get_possible_values().is_empty();
        assert!(
            words || arg.get_value_hint() != ValueHint::Unknown,
            "{}",
            arg.get_id()
        );
    }
    assert!(
        options()
            .iter()
            .any(|arg| matches!(arg.get_action(), ArgAction::Count))
    );
}
