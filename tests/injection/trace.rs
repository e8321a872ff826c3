//! The output of strace: the calls of one run, and the purpose of each. The purpose comes from the
//! arguments, never from a position, so that the table outlives a change of the order or the number
//! of calls.

use std::path::Path;

/// One system call of bowout.
#[derive(Clone, Debug)]
pub struct Call {
    /// The PID of its process; 0 where only bowout was traced.
    pub pid: i32,
    pub name: String,
    /// The name and the purpose.
    pub key: String,
    /// The number of this call among those of its name in its process, from 1, as strace counts.
    pub nth: usize,
    /// The call is before bowout's own first instruction.
    pub library: bool,
    pub injected: bool,
    pub result: i64,
}

impl Call {
    /// Returns true for a debug build's check that a descriptor is open (std), which the release
    /// build does not make.
    pub fn is_check(&self) -> bool {
        self.key.starts_with("fcntl") && self.key.ends_with("F_GETFD")
    }

    /// Returns true if the call made another process.
    pub fn has_forked(&self) -> bool {
        ["clone", "clone3", "fork", "vfork"].contains(&self.name.as_str()) && self.result > 0
    }
}

/// The calls in the order of their beginning. `dir` is the test's own directory, `me` bowout's PID
/// in its own namespace.
pub fn parse(text: &str, dir: &Path, me: i32) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    let mut library = Vec::new();
    for line in text.lines() {
        let (pid, rest) = match line.split_once(' ') {
            Some((pid, rest)) if pid.bytes().all(|b| b.is_ascii_digit()) => {
                (pid.parse().unwrap_or(0), rest.trim_start())
            }
            _ => (0, line),
        };
        if let Some(rest) = rest.strip_prefix("<... ") {
            // The second half of a line that another process interrupted.
            let name = rest.split(' ').next().unwrap_or_default();
            if let Some(call) = calls
                .iter_mut()
                .rev()
                .find(|call| call.pid == pid && call.name == name)
            {
                (call.result, call.injected) = (result(rest), rest.ends_with("(INJECTED)"));
            }
            continue;
        }
        let rest = rest.trim_end_matches(" <unfinished ...>");
        let Some((name, arguments)) = rest.split_once('(') else {
            continue;
        };
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            continue;
        }
        if !library.contains(&pid) && name == "rt_sigprocmask" {
            library.push(pid);
        }
        calls.push(Call {
            pid,
            name: name.to_owned(),
            key: format!("{name} {}", purpose(name, arguments, dir, me))
                .trim_end()
                .to_owned(),
            nth: calls
                .iter()
                .filter(|call| call.pid == pid && call.name == name)
                .count()
                + 1,
            library: !library.contains(&pid) && name != "rt_sigprocmask",
            injected: rest.ends_with("(INJECTED)"),
            result: result(rest),
        });
    }
    // strace's own execve, which starts bowout.
    if calls.first().is_some_and(|call| call.name == "execve") {
        calls.remove(0);
    }
    calls
}

fn result(line: &str) -> i64 {
    let Some((_, result)) = line.rsplit_once(" = ") else {
        return 0;
    };
    result
        .split([' ', '<'])
        .next()
        .and_then(|word| word.parse().ok())
        .unwrap_or(0)
}

/// The purpose of a call, without PIDs, descriptors and addresses.
fn purpose(name: &str, arguments: &str, dir: &Path, me: i32) -> String {
    let words = split(arguments);
    let word = |at: usize| words.get(at).map_or("", |word| word.as_str());
    match name {
        "kill" | "rt_sigqueueinfo" => {
            let whom = match word(0).parse::<i32>() {
                Ok(pid) if pid == me => "self",
                Ok(-1) => "everyone",
                Ok(..0) => "group",
                _ => "process",
            };
            format!("{whom} {}", word(1))
        }
        "waitid" => {
            let what = if word(3).contains("WSTOPPED") {
                "WSTOPPED"
            } else {
                "WEXITED"
            };
            format!("{} {what}", word(0))
        }
        "ppoll" | "poll" | "pipe2" | "getcwd" => String::new(),
        "pidfd_send_signal" | "prlimit64" => word(1).to_owned(),
        "prctl" | "arch_prctl" | "socket" | "rt_sigaction" => word(0).to_owned(),
        "fcntl" | "ioctl" => format!("{} {}", descriptor(word(0), dir), word(1)),
        "dup2" | "dup3" => descriptor(word(1), dir),
        "setsockopt" => word(2).to_owned(),
        // The new name, which is the second path, names the purpose.
        "rename" => path(word(1), dir),
        "renameat" => path_at(word(2), word(3), dir),
        _ => {
            if word(0).contains('<')
                && word(1).len() > 2
                && word(1).starts_with('"')
                && !word(1).starts_with("\"/")
                && name.contains("at")
            {
                path_at(word(0), word(1), dir)
            } else if let Some(text) = words.iter().take(2).find(|word| word.starts_with("\"/")) {
                path(text, dir)
            } else if word(0).contains('<') {
                descriptor(word(0), dir)
            } else {
                String::new()
            }
        }
    }
}

/// Splits the arguments at the commas outside brackets and strings.
fn split(arguments: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let (mut depth, mut quoted, mut escaped) = (0, false, false);
    for c in arguments.chars() {
        match c {
            '"' if !escaped => quoted = !quoted,
            '(' | '[' | '{' | '<' if !quoted => depth += 1,
            ']' | '}' | '>' if !quoted => depth -= 1,
            ')' if !quoted && depth > 0 => depth -= 1,
            ')' if !quoted => break,
            ',' if !quoted && depth == 0 => {
                words.push(String::new());
                continue;
            }
            _ => {}
        }
        escaped = c == '\\' && !escaped;
        if let Some(word) = words.last_mut().filter(|word| !word.is_empty() || c != ' ') {
            word.push(c);
        }
    }
    words
}

fn path(text: &str, dir: &Path) -> String {
    let text = text
        .trim_matches('"')
        .replace(&*dir.to_string_lossy(), "DIR");
    let is_random =
        |name: &str| name.len() >= 16 && name.bytes().take(16).all(|byte| byte.is_ascii_hexdigit());
    let parts = text
        .split('/')
        .map(|part| match part.strip_prefix("bowout-") {
            Some(name) if is_random(name) => "bowout-RANDOM",
            _ if part.parse::<u32>().is_ok() => "PID",
            _ => part,
        });
    let text = parts.collect::<Vec<_>>().join("/");
    // The group, and the version of its interface, depend on the machine.
    if text.starts_with("/sys/fs/cgroup/") {
        let file = match text.rsplit('/').next() {
            Some("memory.oom_control") => "memory.events",
            Some("memory.limit_in_bytes") => "memory.max",
            file => file.unwrap_or_default(),
        };
        return format!("/sys/fs/cgroup/GROUP/{file}");
    }
    numberless(&text)
}

/// The path of arguments such as `4</proc>` and `"7/stat"`.
fn path_at(folder: &str, name: &str, dir: &Path) -> String {
    let folder = folder
        .split_once('<')
        .map_or("", |(_, what)| what.trim_end_matches('>'));
    path(
        format!("{folder}/{}", name.trim_matches('"')).trim_end_matches("/."),
        dir,
    )
}

/// The name of an argument such as `4</proc/7/stat>`.
fn descriptor(text: &str, dir: &Path) -> String {
    let number = text.split('<').next().unwrap_or_default();
    let what = text
        .split_once('<')
        .map_or("", |(_, what)| what.trim_end_matches('>'));
    match number {
        "0" => "stdin".into(),
        "1" => "stdout".into(),
        "2" => "stderr".into(),
        _ if what.starts_with("pipe") => "pipe".into(),
        _ if what.starts_with("socket") || what.starts_with("UNIX") => "socket".into(),
        _ if what.contains("signalfd") => "signalfd".into(),
        _ => path(what, dir),
    }
}

/// Replaces every number by `#`, and gives every duration the same unit.
pub fn numberless(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        let last = out.chars().last();
        match c {
            '0'..='9' if last == Some('#') => {}
            '.' if last == Some('#') => out.push('.'),
            '0'..='9' if out.ends_with("#.") => {
                out.pop();
            }
            '0'..='9' => out.push('#'),
            _ => out.push(c),
        }
    }
    out.replace("#ms", "#s")
}

/// A log line without the parts that differ from run to run.
pub fn plain(line: &str, dir: &Path) -> String {
    let line = line.replace(&*dir.to_string_lossy(), "DIR");
    let line = match line.split_once(" (os error ") {
        Some((before, after)) => format!(
            "{before}{}",
            after.split_once(')').map_or("", |(_, after)| after)
        ),
        None => line,
    };
    // The command is named by its path, which differs from machine to machine.
    let line = line
        .split('\'')
        .enumerate()
        .map(|(i, part)| if i % 2 == 1 { short(part) } else { part });
    nameless(&numberless(&line.collect::<Vec<_>>().join("'")))
}

/// Removes the names and states of processes, which depend on the moment: the list of descendants,
/// and the text after the PID.
fn nameless(line: &str) -> String {
    let mut parts = line
        .split(" ('")
        .enumerate()
        .map(|(at, part)| match part.split_once(')') {
            Some((_, after)) if at > 0 => after,
            _ => part,
        });
    let first = parts.next().unwrap_or_default().to_owned();
    let line = parts.fold(first, |line, part| line + part);
    let mut parts = line.split("(pid #, ");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |line, part| {
        let after = part.split_once(')').map_or("", |(_, after)| after);
        format!("{line}(pid #){after}")
    })
}

fn short(command: &str) -> &str {
    // The test program itself, as the kernel names it.
    if command.starts_with("injection-") {
        return "test";
    }
    if command.starts_with('/') {
        command.rsplit('/').next().unwrap_or(command)
    } else {
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::errors;

    const TRACE: &str = r#"execve("/b", ["b"], 0x7ffd /* 3 vars */) = 0
brk(NULL)                               = 0x55
rt_sigprocmask(SIG_SETMASK, ~[], [], 8) = 0
openat(AT_FDCWD</>, "/proc/14/stat", O_RDONLY|O_CLOEXEC) = 4</proc/14/stat>
openat2(3</proc>, "14/stat", {flags=O_RDONLY|O_CLOEXEC, resolve=RESOLVE_NO_XDEV}, 24) = 4</proc/14/stat>
renameat(3</tmp/x>, ".bowout-1234567", 3</tmp/x>, "r") = 0
read(4</proc/14/stat>, "14 (a, ) \"Z", 1024) = 163
kill(-17, SIGTERM)                      = -1 EPERM (Operation not permitted) (INJECTED)
dup2(5</dev/null>, 1<pipe:[73]>)        = 1</dev/null>
read(3<anon_inode:[signalfd]>, "\21\0", 2048) = 128
clone(child_stack=NULL, flags=SIGCHLD)  = 18
--- SIGCHLD {si_signo=SIGCHLD} ---
+++ exited with 7 +++
"#;

    #[test]
    fn a_trace_becomes_calls_with_their_purpose() {
        let calls = parse(TRACE, Path::new("/tmp/x"), 16);
        let keys: Vec<&str> = calls.iter().map(|call| call.key.as_str()).collect();
        let expected = [
            "brk",
            "rt_sigprocmask",
            "openat /proc/PID/stat",
            "openat2 /proc/PID/stat",
            "renameat DIR/r",
            "read /proc/PID/stat",
            "kill group SIGTERM",
            "dup2 stdout",
            "read signalfd",
            "clone",
        ];
        assert_eq!(keys, expected);
        assert_eq!(
            calls.iter().map(|call| call.library).collect::<Vec<_>>()[..3],
            [true, false, false]
        );
        assert_eq!(
            calls
                .iter()
                .filter(|call| call.injected)
                .map(|call| call.key.as_str())
                .collect::<Vec<_>>(),
            ["kill group SIGTERM"]
        );
        assert_eq!(
            calls.iter().map(|call| call.nth).collect::<Vec<_>>(),
            [1, 1, 1, 1, 1, 1, 1, 1, 2, 1]
        );
        assert!(calls[9].has_forked());
    }

    #[test]
    fn halves_of_a_line_are_joined() {
        let text = "7 setpgid(0, 0 <unfinished ...>\n8 getppid() = 1\n7 <... setpgid resumed>) = -1 EPERM (x) (INJECTED)\n";
        let calls = parse(text, Path::new("/tmp/x"), 1);
        assert_eq!(
            (calls.len(), calls[0].injected, calls[0].result),
            (2, true, -1)
        );
    }

    #[test]
    fn lines_of_the_log_lose_their_numbers_and_errors() {
        let line = "bowout: cannot run '/a/b/probe' (pid 17): Operation not permitted (os error 1) after 1.25s, 4ms";
        let plain =
            plain(line, Path::new("/tmp/x")).replace(&errors::description("EPERM"), "ERROR");
        assert_eq!(
            plain,
            "bowout: cannot run 'probe' (pid #): ERROR after #s, #s"
        );
        let line = "sent SIGKILL to 'sh' (pid 7, now 'a', state D) and 2 descendants ('b' pid 8, state S, 1s old; 'c' pid 9) in 1s";
        assert_eq!(
            super::plain(line, Path::new("/tmp/x")),
            "sent SIGKILL to 'sh' (pid #) and # descendants in #s"
        );
    }
}
