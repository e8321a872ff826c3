//! Who is there: our children, all descendants, and those who were there before us. Looks; signals
//! nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::process::{Process, again, open_in_proc, open_proc, proc_is_ours, read_in_proc};
use crate::sys::{child, this_process};

/// How far up a sender's parents are followed.
const DEPTH: usize = 1024;

/// How often a walk is begun anew. A parent that /proc hides is missed each time.
const WALKS: usize = 3;

/// Whether `pid` is a descendant of ours. A sender that has ended meanwhile is not. Where /proc
/// does not show a process, the kernel says whether it is our child; whether it is our child's,
/// nobody does.
pub(crate) fn descends(pid: libc::pid_t) -> bool {
    let parent = |pid| Process::read(pid).map(|process| process.parent);
    (0..WALKS).find_map(|_| walk(pid, parent)).unwrap_or(false)
}

/// Up from parent to parent to us; nothing where one of them has ended on the way, whose children
/// have another parent by now.
fn walk(
    pid: libc::pid_t,
    mut parent: impl FnMut(libc::pid_t) -> Option<libc::pid_t>,
) -> Option<bool> {
    let us = this_process::id();
    let mut above = pid;
    // Parents do not go in circles, but /proc is read one file at a time while processes come and
    // go.
    for _ in 0..DEPTH {
        match parent(above) {
            Some(parent) if parent == us => return Some(true),
            Some(parent) if parent > 1 => above = parent,
            Some(_) => return Some(false),
            None if child::is_ours(above) => return Some(true),
            None if above == pid => return Some(false),
            None => return None,
        }
    }
    Some(false)
}

/// Our children from before we were bowout: whoever executed us had started them (`exec > >(tee
/// log); exec bowout ...`). Not ours to end, nor are their own children. Nearly always none.
static INHERITED: Mutex<Vec<libc::pid_t>> = Mutex::new(vec![]);

fn inherited() -> MutexGuard<'static, Vec<libc::pid_t>> {
    INHERITED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether this is one of them. The number is nobody else's until we reap it.
pub(super) fn is_inherited(pid: libc::pid_t) -> bool {
    inherited().contains(&pid)
}

/// Notes the children that we have before the first of our own is started.
pub(crate) fn note_inherited() {
    open_proc();
    // Without a look into /proc for the many who have none.
    if matches!(child::peek(), child::Peek::NoChildren) || !proc_is_ours() {
        return;
    }
    *inherited() = children().unwrap_or_default();
}

/// Notes a process of bowout's own, which is not the command's: it is neither signalled nor waited
/// for.
pub(in crate::sys) fn note_own(pid: libc::pid_t) {
    inherited().push(pid);
}

/// Whether one of them is there still.
pub(crate) fn has_inherited() -> bool {
    !inherited().is_empty()
}

/// It is reaped, and its number may be given to anyone.
pub(in crate::sys) fn forget_inherited(pid: libc::pid_t) {
    inherited().retain(|other| *other != pid);
}

/// How many threads one search looks at.
const THREADS: usize = 4096;

/// Whether `is` holds for a thread of the tree, its process and its folder in /proc, searched from
/// parents to children by the kernel's lists of them (proc_tid_children(5)), or, where the kernel
/// has none, for the threads of the `child`. The cost is the tree's, not the machine's. A process
/// that gets another parent meanwhile can be missed: this is for a look that is repeated, and not
/// for a signal.
pub(in crate::sys) fn any_thread(
    child: Option<libc::pid_t>,
    is: impl Fn(libc::pid_t, &str) -> bool,
) -> bool {
    if !proc_is_ours() {
        return false;
    }
    let mut found = children().unwrap_or_else(|| child.into_iter().collect());
    found.retain(|&pid| !is_inherited(pid));
    let (mut next, mut looked) = (0, 0);
    while let Some(&pid) = found.get(next).filter(|_| looked < THREADS) {
        next += 1;
        for thread in numbers(&format!("{pid}/task")).unwrap_or_default() {
            let thread = format!("{pid}/task/{thread}");
            looked += 1;
            if is(pid, &thread) {
                return true;
            }
            let below = read_in_proc(&format!("{thread}/children")).unwrap_or_default();
            found.extend(
                below
                    .split_ascii_whitespace()
                    .filter_map(|pid| pid.parse::<libc::pid_t>().ok()),
            );
        }
    }
    false
}

/// The entries of a folder of /proc that are numbers.
fn numbers(path: &str) -> io::Result<Vec<libc::pid_t>> {
    let mut numbers = vec![];
    for entry in Dir::from_fd(open_in_proc(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?)? {
        if let Some(number) = entry?
            .file_name()
            .to_str()
            .ok()
            .and_then(|name| name.parse().ok())
        {
            numbers.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
            numbers.push(number);
        }
    }
    Ok(numbers)
}

/// What a read of a list in /proc gives at the most, in bytes.
const PAGE: usize = 4096;

/// What a look at one process takes, in bytes, at the most: its line in a table that doubles as it
/// grows, twice, and its name.
const ROOM: usize = 768;

/// Whether there is memory for a look at so many processes. What cannot be had later would end us
/// (`handle_alloc_error`), and the descendants would be nobody's.
fn has_room(processes: usize) -> bool {
    Vec::<u8>::new()
        .try_reserve_exact(processes.saturating_mul(ROOM))
        .is_ok()
}

/// All live descendants, the child included, parents before their children; nothing where there is
/// no /proc, or no memory to read it. Of those that /proc hides, our own children alone, and who is
/// seen below them: the others when they become ours.
pub(crate) fn descendants() -> Option<Vec<Process>> {
    if child::all_have_ended() {
        // The usual end, when nothing is left, and no reason to look into /proc: it would make
        // files for us, and take them down with us.
        return Some(vec![]);
    }
    if !proc_is_ours() {
        return None;
    }
    // A storm of forks leaves zombies by the hundred thousand, and more while the file of each is
    // read.
    let known = children();
    let dead: BTreeSet<_> = known
        .iter()
        .flatten()
        .copied()
        .filter(|&pid| child::has_ended(pid))
        .collect();
    let mut pids = again(|| numbers("."))?;
    pids.retain(|pid| !dead.contains(pid));
    if !has_room(pids.len()) {
        return None;
    }
    let mut table: Vec<Process> = pids.into_iter().filter_map(Process::read).collect();
    // What is below them falls out with them.
    table.retain(|process| !is_inherited(process.pid));
    let mut there: BTreeSet<_> = table.iter().map(|process| process.pid).collect();
    for &pid in known.iter().flatten() {
        if !there.contains(&pid)
            && !dead.contains(&pid)
            && !is_inherited(pid)
            && child::is_alive(pid)
        {
            table.push(Process::hidden(pid));
            there.insert(pid);
        }
    }
    // Whoever lost its parent between the reading of the two has a new one by now.
    for process in &mut table {
        if !there.contains(&process.parent)
            && let Some(now) =
                Process::read(process.pid).filter(|now| now.started == process.started)
        {
            *process = now;
        }
    }
    let tree = below(this_process::id(), table);
    // Somebody lives, and neither /proc says who, nor the list of our children, which not every
    // kernel has.
    let hidden = tree.is_empty() && known.is_none() && !has_inherited() && !child::all_have_ended();
    (!hidden).then_some(tree)
}

/// Those of `table` that descend from `root` and live, parents before their children.
fn below(root: libc::pid_t, table: Vec<Process>) -> Vec<Process> {
    let mut families: BTreeMap<libc::pid_t, Vec<Process>> = BTreeMap::new();
    for process in table {
        families.entry(process.parent).or_default().push(process);
    }
    let mut tree = families.remove(&root).unwrap_or_default();
    let mut parents = 0;
    while let Some(parent) = tree.get(parents) {
        // Removed, so that numbers that go in a circle, each read at another moment, end.
        let family = families.remove(&parent.pid);
        tree.extend(family.into_iter().flatten());
        parents += 1;
    }
    tree.retain(|process| !process.is_dead());
    tree
}

/// Our direct children, zombies included: the `children` file is exact for them, because nobody
/// else reaps them (proc_tid_children(5)). Nothing where the kernel has no such file, or /proc is
/// of a PID namespace in which we are not; in another one that we are in, the numbers are not ours,
/// and kill(2) and waitid(2) say so.
pub(super) fn children() -> Option<Vec<libc::pid_t>> {
    let text = again(read_children)?;
    Some(
        text.split(|&b| b == b' ')
            .filter_map(|pid| std::str::from_utf8(pid).ok()?.parse().ok())
            .collect(),
    )
}

fn read_children() -> io::Result<Vec<u8>> {
    let file = open_in_proc("thread-self/children", OFlag::O_RDONLY)?;
    read_list(|room| Ok(nix::unistd::read(&file, room)?))
}

/// Reads a list of /proc to its end, from a `read` that gives a page of it at the most, however
/// much room there is.
fn read_list(mut read: impl FnMut(&mut [u8]) -> io::Result<usize>) -> io::Result<Vec<u8>> {
    // Most lists are a few numbers, and the page of them would be one more to touch.
    let mut text = vec![0; 512];
    let mut length = 0;
    loop {
        let room = text.len() - length;
        let got = read(&mut text[length..])?;
        length += got;
        // It is cut only where there is more than fits (fs/seq_file.c).
        if got < room / 2 {
            text.truncate(length);
            return Ok(text);
        }
        text.try_reserve(PAGE).map_err(|_| Errno::ENOMEM)?;
        text.resize(length + PAGE, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PID_MAX: libc::pid_t = 1 << 22;

    /// It was no descendant then, and its READY=1 was refused.
    #[test]
    fn who_loses_its_parent_during_the_walk_is_walked_up_from_again() {
        // No PID is as high.
        let (sender, between) = (PID_MAX + 2, PID_MAX + 1);
        let mut walked = vec![];
        let mut look = |pid| {
            walked.push(pid);
            match (pid == sender, walked.len()) {
                (true, 1) => Some(between),
                (true, _) => Some(this_process::id()),
                (false, _) => None,
            }
        };
        assert_eq!(walk(sender, &mut look), None);
        assert_eq!(walk(sender, &mut look), Some(true));
        assert_eq!(walked, [sender, between, sender]);
        // Gone itself, or nobody's.
        assert_eq!(walk(sender, |_| None), Some(false));
        assert_eq!(walk(sender, |_| Some(1)), Some(false));
        assert_eq!(walk(sender, Some), Some(false), "a circle");
    }

    #[test]
    fn a_list_takes_the_memory_of_its_length() {
        let list = b"100000 ".repeat(30_000);
        let mut rest = &list[..];
        let text = read_list(|room| {
            // Whole numbers, as seq_file gives them.
            let fits = room.len().min(PAGE).min(rest.len()) / 7 * 7;
            let (page, behind) = rest.split_at(fits);
            room[..fits].copy_from_slice(page);
            rest = behind;
            Ok(fits)
        })
        .unwrap();
        assert_eq!(text, list);
        assert!(
            text.capacity() < 3 * list.len(),
            "{} for {}",
            text.capacity(),
            list.len()
        );
    }

    /// In a process of its own, which it ended (`handle_alloc_error`).
    #[test]
    fn a_list_that_memory_does_not_hold_is_an_error() {
        const LIMITED: &str = "A_LIST_WITHOUT_END";
        if std::env::var_os(LIMITED).is_some() {
            let error = read_list(|room| Ok(room.len())).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ENOMEM));
            return;
        }
        let output = std::process::Command::new("sh")
            .args([
                "-c",
                r#"ulimit -v 300000 && exec "$0" a_list_that_memory_does_not_hold"#,
            ])
            .arg(std::env::current_exe().unwrap())
            .env(LIMITED, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && said.contains("1 passed"),
            "{output:?}"
        );
    }
}
