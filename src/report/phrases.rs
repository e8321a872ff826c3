//! Phrases: senders, processes, durations.

use std::time::{Duration, Instant};

use crate::log::escape;
use crate::process::NamedProcess;
use crate::sender::{NamedSender, Side};
use crate::signal::Signal;

/// How many processes one line names.
const NAMES: usize = 3;

/// The next signal of the stop: `SIGKILL in 8s`.
pub(super) fn next_signal(now: Instant, next: Option<(Signal, Instant)>) -> String {
    let wait = |until: Instant| duration(until.saturating_duration_since(now));
    match next {
        Some((signal, until)) => format!("{signal} in {}", wait(until)),
        None => "no deadline".into(),
    }
}

/// `SIGTERM from pid 40 'bash' (uid 0, manager)`.
pub(super) fn signal_from(signal: Signal, from: Option<&NamedSender>) -> String {
    let Some(NamedSender { side, sender, name }) = from else {
        return format!("{signal} from an unknown sender");
    };
    match side {
        Side::Terminal if signal.is_terminals() => format!("{signal} from the terminal"),
        Side::Terminal => format!("{signal} from the kernel"),
        Side::Outside => format!("{signal} from outside"),
        _ if sender.exited => format!("{signal} from the exited parent (pid {})", sender.pid),
        _ => {
            let name = name.as_ref().map(|name| format!(" '{}'", escape(name)));
            let (pid, uid, name) = (sender.pid, sender.uid, name.unwrap_or_default());
            format!("{signal} from pid {pid}{name} (uid {uid}, {side})")
        }
    }
}

pub(super) fn descendants(count: usize) -> String {
    match count {
        1 => "1 descendant".into(),
        _ => format!("{count} descendants"),
    }
}

/// The first of `count` processes, as far as they are known by name:
/// ` ('sleep' pid 9, state S, 5s old; 'cat' pid 10, state R, 1s old; and 3 more)`.
pub(super) fn names<'a>(count: usize, named: impl Iterator<Item = &'a NamedProcess>) -> String {
    let mut names: Vec<_> = named.take(NAMES).map(describe).collect();
    if names.is_empty() {
        return String::new();
    }
    if count > names.len() {
        names.push(format!("and {} more", count - names.len()));
    }
    format!(" ({})", names.join("; "))
}

fn describe(process: &NamedProcess) -> String {
    let name = match process.name.as_str() {
        "?" => String::new(),
        name => format!("'{}' ", escape(name)),
    };
    let age = process.age.map(|age| format!(", {} old", duration(age)));
    let (pid, state, age) = (process.pid, state(process), age.unwrap_or_default());
    format!("{name}pid {pid}{state}{age}")
}

/// `, state S`, `, state D in nfs_wait_bit_killable`.
pub(super) fn state(process: &NamedProcess) -> String {
    match (process.state, &process.waits_in) {
        // Read after SIGKILL, it is that signal's effect.
        ('?' | 'Z' | 'X', _) => String::new(),
        (state, Some(function)) => format!(", state {state} in {}", escape(function)),
        (state, None) => format!(", state {state}"),
    }
}

/// A duration for people: tenths of a second below a minute, whole seconds from there; rounded.
pub(crate) fn duration(wait: Duration) -> String {
    match (wait.as_millis(), (wait.as_millis() + 50) / 100) {
        (millis @ 0..1000, _) => format!("{millis}ms"),
        (_, tenths @ ..600) if tenths % 10 == 0 => format!("{}s", tenths / 10),
        (_, tenths @ ..600) => format!("{}.{}s", tenths / 10, tenths % 10),
        _ => {
            let rounded = wait.saturating_add(Duration::from_millis(500));
            humantime::format_duration(Duration::from_secs(rounded.as_secs())).to_string()
        }
    }
}
