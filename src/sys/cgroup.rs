//! The kills of the kernel's OOM killer in bowout's control group.
//!
//! The counters are hierarchical, and a command that moves itself to another group below is
//! counted, too (Documentation/admin-guide/cgroup-v2.rst, `memory.events`; for version 1,
//! cgroup-v1/memory.rst, `memory.oom_control`). Where the group is mounted is read from mountinfo:
//! a file system that the command mounted over it could block bowout.

use std::fs;
use std::path::{Path, PathBuf};

use super::proc::read_in_proc;

/// The memory controller's counter and limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    /// How many processes the OOM killer killed since the group was made.
    pub(crate) kills: u64,
    /// The most memory that the group may use, in bytes; `None` without a limit, or where a group
    /// above it ran out of memory.
    pub(crate) limit: Option<u64>,
}

/// The counter now; `None` without a control group, or where it is the root, which has no counter.
#[cold]
pub(crate) fn memory() -> Option<Memory> {
    let groups = read_in_proc("self/cgroup").ok()?;
    let mounts = read_in_proc("self/mountinfo").ok()?;
    let (folder, version) = memory_folder(&groups, &mounts)?;
    let [events, limit] = match version {
        Version::V2 => ["memory.events", "memory.max"],
        Version::V1 => ["memory.oom_control", "memory.limit_in_bytes"],
    };
    let events = fs::read_to_string(folder.join(events)).ok()?;
    // A limit that cannot be read is not named.
    let limit = fs::read_to_string(folder.join(limit)).unwrap_or_default();
    parse(&events, &limit)
}

/// Parses the text of the two files; `None` without a count of kills.
fn parse(events: &str, limit: &str) -> Option<Memory> {
    let number = |text: &str| text.trim().parse().ok();
    let count = |name| {
        events
            .lines()
            .find_map(|line| number(line.strip_prefix(name)?))
    };
    // Version 1 has no word for unlimited: the number is then the largest multiple of a page.
    // Version 2 counts the times that the group's own limit was reached, or one below. Where there
    // were none, a group above it or the machine ran out of memory.
    let limit = number(limit).filter(|&limit| limit < 1 << 60 && count("oom ") != Some(0));
    Some(Memory {
        kills: count("oom_kill ")?,
        limit,
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

/// The folder of the group with the memory controller (cgroups(7), proc_pid_cgroup(5),
/// proc_pid_mountinfo(5)).
#[cold]
fn memory_folder(groups: &str, mounts: &str) -> Option<(PathBuf, Version)> {
    let group = |wanted: fn(&str, &str) -> bool| {
        groups.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (number, controllers) = (fields.next()?, fields.next()?);
            wanted(number, controllers).then_some(fields.next()?)
        })
    };
    let version1 = group(|_, controllers| controllers.split(',').any(|one| one == "memory"));
    let (group, version) = match version1 {
        Some(group) => (group, Version::V1),
        None => (group(|number, _| number == "0")?, Version::V2),
    };
    let mount = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(3);
        let (root, point) = (before.next()?, before.next()?);
        let mut after = after.split(' ');
        let is_group = match (after.next()?, version) {
            ("cgroup2", Version::V2) => true,
            ("cgroup", Version::V1) => {
                let options = after.nth(1).unwrap_or_default();
                options.split(',').any(|option| option == "memory")
            }
            _ => false,
        };
        Some((is_group, root.to_owned(), point.to_owned()))
    };
    let mounts: Vec<_> = mounts.lines().filter_map(mount).collect();
    let at = mounts.iter().position(|(is_group, ..)| *is_group)?;
    let (_, root, point) = &mounts[at];
    // A later mount at this place, or above it, is the one that is seen.
    let point = Path::new(point);
    let hidden = mounts[at + 1..]
        .iter()
        .any(|(_, _, other)| point.starts_with(other));
    let below = Path::new(group).strip_prefix(root).ok()?;
    (!hidden).then(|| (point.join(below), version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_named_where_it_was_reached() {
        let memory = |kills, limit| Some(Memory { kills, limit });
        // Version 2: by the group's own limit, by that of a group above it, without a limit.
        let events = "low 0\nhigh 0\nmax 31\noom 1\noom_kill 1\noom_group_kill 0\n";
        assert_eq!(parse(events, "25165824\n"), memory(1, Some(25_165_824)));
        assert_eq!(parse(events, "max\n"), memory(1, None));
        assert_eq!(parse(events, ""), memory(1, None));
        let above = "low 0\nhigh 0\nmax 0\noom 0\noom_kill 2\n";
        assert_eq!(parse(above, "268435456\n"), memory(2, None));
        // Version 1 does not count the times.
        let events = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        assert_eq!(parse(events, "25165824\n"), memory(3, Some(25_165_824)));
        assert_eq!(parse(events, "9223372036854771712\n"), memory(3, None));
        for unknown in ["", "oom_kill\n", "oom_kill x\n", "oom 1\n"] {
            assert_eq!(parse(unknown, "25165824\n"), None);
        }
    }

    #[test]
    fn the_folder_follows_from_the_group_and_its_mount() {
        let folder = |groups: &str, mounts: &str| {
            let (folder, version) = memory_folder(groups, mounts)?;
            Some((folder.to_str()?.to_owned(), version))
        };
        let unified = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
        let found = |path: &str, version| Some((path.to_owned(), version));
        assert_eq!(
            folder("0::/system.slice/x.service\n", unified),
            found("/sys/fs/cgroup/system.slice/x.service", Version::V2)
        );
        // In a container with a namespace of its own, and in one without.
        assert_eq!(
            folder("0::/\n", unified),
            found("/sys/fs/cgroup/", Version::V2)
        );
        let part = "30 23 0:26 /docker/7 /sys/fs/cgroup ro - cgroup2 cgroup rw\n";
        assert_eq!(
            folder("0::/docker/7\n", part),
            found("/sys/fs/cgroup/", Version::V2)
        );
        assert_eq!(folder("0::/other\n", part), None);
        let version1 = "40 30 0:33 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
                        41 30 0:34 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        assert_eq!(
            folder("9:cpu,cpuacct:/a\n8:memory:/b\n0::/c\n", version1),
            found("/sys/fs/cgroup/memory/b", Version::V1)
        );
        // The command mounted another file system over it.
        for over in ["/sys/fs/cgroup", "/sys", "/"] {
            let over = format!("{unified}50 30 0:40 / {over} rw - tmpfs none rw\n");
            assert_eq!(folder("0::/\n", &over), None);
        }
        let beside = format!("{unified}50 30 0:40 / /sys/fs/cgroups rw - tmpfs none rw\n");
        assert!(folder("0::/\n", &beside).is_some());
        for (groups, mounts) in [("", unified), ("0::/\n", ""), ("x\n", "y - z\n")] {
            assert_eq!(folder(groups, mounts), None);
        }
    }
}
