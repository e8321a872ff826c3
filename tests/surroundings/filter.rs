//! Compiles a list of system calls into a seccomp filter. The script `flatten` in this folder
//! writes such lists and documents their format.

use std::collections::HashMap;
use std::process::Command;
use std::sync::OnceLock;

use crate::common::{Dir, leftovers};

/// An instruction: code, jump if true, jump if false, number (seccomp(2), struct sock_filter).
type Step = (u32, usize, usize, u32);

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;

fn load(at: u32) -> Step {
    (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, at)
}

fn jump(how: u32, number: u32, yes: usize, no: usize) -> Step {
    (libc::BPF_JMP | how | libc::BPF_K, yes, no, number)
}

fn end(with: u32) -> Step {
    (libc::BPF_RET | libc::BPF_K, 0, 0, with)
}

/// The number of each system call in the headers of the C compiler.
fn numbers() -> &'static HashMap<String, u32> {
    static NUMBERS: OnceLock<HashMap<String, u32>> = OnceLock::new();
    NUMBERS.get_or_init(|| {
        let dir = Dir::new();
        let file = dir.write("calls.c", "#include <sys/syscall.h>\n", 0o600);
        let output = leftovers::output(Command::new("cc").args(["-E", "-dM"]).arg(file));
        assert!(output.status.success(), "cc: {output:?}");
        let text = String::from_utf8(output.stdout).expect("text");
        let lines = text.lines();
        lines
            .filter_map(|line| {
                let (name, number) = line.strip_prefix("#define __NR_")?.split_once(' ')?;
                Some((name.to_owned(), number.parse().ok()?))
            })
            .collect()
    })
}

fn action(word: &str) -> u32 {
    match word.split_once('=') {
        None if word == "allow" => ALLOW,
        None if word == "kill" => libc::SECCOMP_RET_KILL_PROCESS,
        Some(("errno", number)) => libc::SECCOMP_RET_ERRNO | value(number),
        _ => panic!("not an action: {word}"),
    }
}

fn value(word: &str) -> u32 {
    word.parse()
        .unwrap_or_else(|_| panic!("not a number: {word}"))
}

/// The instructions of `ARGUMENT OPERATOR VALUE`, or of `ARGUMENT & MASK VALUE`, and the number of
/// words used. If the condition does not hold, they skip `rest` further instructions. They compare
/// only the lower half of an argument.
fn condition(words: &[&str], rest: usize) -> (Vec<Step>, usize) {
    let mut steps = vec![load(16 + 8 * value(words[0]))];
    let number = value(words[2]);
    let (jump, used) = match words[1] {
        "==" => (jump(libc::BPF_JEQ, number, 0, rest), 3),
        "!=" => (jump(libc::BPF_JEQ, number, rest, 0), 3),
        ">" => (jump(libc::BPF_JGT, number, 0, rest), 3),
        "<" => (jump(libc::BPF_JGE, number, rest, 0), 3),
        "&" => {
            steps.push((libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0, number));
            (jump(libc::BPF_JEQ, value(words[3]), 0, rest), 4)
        }
        other => panic!("not an operator: {other}"),
    };
    steps.push(jump);
    (steps, used)
}

/// The instructions of one line.
fn rule(line: &str) -> Vec<Step> {
    let words: Vec<&str> = line.split(' ').collect();
    let then = action(words[0]);
    let is_conditional = words
        .get(2)
        .is_some_and(|word| word.starts_with(|first: char| first.is_ascii_digit()));
    if !is_conditional {
        let known = words[1..].iter().filter_map(|name| numbers().get(*name));
        let each = known.flat_map(|call| [jump(libc::BPF_JEQ, *call, 0, 1), end(then)]);
        return [load(0)].into_iter().chain(each).collect();
    }
    let Some(call) = numbers().get(words[1]) else {
        return vec![];
    };
    // From the last condition to the first: each one skips the instructions after it.
    let (mut at, mut starts) = (2, vec![]);
    while at < words.len() {
        starts.push(at);
        at += condition(&words[at..], 0).1;
    }
    let mut steps = vec![end(then)];
    for start in starts.iter().rev() {
        let (mut before, _) = condition(&words[*start..], steps.len());
        before.append(&mut steps);
        steps = before;
    }
    let head = [load(0), jump(libc::BPF_JEQ, *call, 0, steps.len())];
    head.into_iter().chain(steps).collect()
}

/// The filter in the format that `probe with --filter` reads.
pub fn program(list: &str) -> String {
    let lines: Vec<&str> = list.lines().filter(|line| !line.starts_with('#')).collect();
    let (last, rules) = lines.split_last().expect("a list");
    let other = end(action(last.strip_prefix("else ").expect("the last line")));
    // Calls of another architecture than AUDIT_ARCH_X86_64 have other numbers.
    let mut steps = vec![load(4), jump(libc::BPF_JEQ, 0xc000_003e, 1, 0), other];
    steps.extend(rules.iter().flat_map(|line| rule(line)));
    steps.push(other);
    let lines = steps
        .iter()
        .map(|(code, yes, no, number)| format!("{code} {yes} {no} {number}\n"));
    lines.collect()
}

/// The calls in the `allow` lines of a list that this machine's headers do not define.
#[cfg(test)]
pub fn unknown(list: &str) -> Vec<&str> {
    let lines = list.lines().filter_map(|line| line.strip_prefix("allow "));
    let names = lines.flat_map(|line| line.split(' '));
    let is_name = |name: &&str| name.starts_with(|first: char| first.is_ascii_lowercase());
    names
        .filter(is_name)
        .filter(|name| !numbers().contains_key(*name))
        .collect()
}
