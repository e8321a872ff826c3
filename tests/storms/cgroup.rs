//! A control group of the test's own: in version 1 below the test's own group, in version 2 at the
//! top.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{leftovers, until};

pub struct Group(PathBuf);

impl Group {
    /// A group with this controller and this limit. `limits` names the file that sets it, in
    /// version 1 and in version 2. The error is the reason why no group can be made.
    pub fn new(controller: &str, limits: [&str; 2], value: &str) -> Result<Self, String> {
        let top = PathBuf::from("/sys/fs/cgroup");
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let own = |controllers: &str| {
            let path = own.lines().find_map(|line| {
                line.split_once(':')?
                    .1
                    .strip_prefix(controllers)?
                    .strip_prefix(":/")
            });
            path.unwrap_or_default().to_owned()
        };
        let (first, second) = (top.join(controller), top.join("cgroup.controllers"));
        let (above, file) = if first.is_dir() {
            (first.join(own(controller)), limits[0])
        } else if second.exists() {
            (top, limits[1])
        } else {
            return Err(format!("no control group has the controller {controller}"));
        };
        let group = above.join(format!("bowout-{}", leftovers::unique()));
        let why = |error: std::io::Error| format!("no control group {}: {error}", group.display());
        fs::create_dir(&group).map_err(why)?;
        // The group is removed again if its limit cannot be set.
        let made = Self(group.clone());
        fs::write(group.join(file), value).map_err(why)?;
        Ok(made)
    }

    /// A group that can be frozen.
    pub fn freezer() -> Result<Self, String> {
        let first = Path::new("/sys/fs/cgroup/freezer").is_dir();
        let files = ["freezer.state", "cgroup.freeze"];
        Self::new("freezer", files, if first { "THAWED" } else { "0" })
    }

    /// Freezes the group or thaws it. `wait_frozen` waits for the effect.
    pub fn freeze(&self, frozen: bool) {
        let (first, second) = (self.0.join("freezer.state"), self.0.join("cgroup.freeze"));
        let done = match (first.exists(), frozen) {
            (true, true) => fs::write(first, "FROZEN"),
            (true, false) => fs::write(first, "THAWED"),
            (false, _) => fs::write(second, if frozen { "1" } else { "0" }),
        };
        done.expect("the state is written");
    }

    /// Waits until all of its processes are frozen, or thawed.
    pub fn wait_frozen(&self, frozen: bool) {
        let state = if frozen { "FROZEN" } else { "THAWED" };
        let line = if frozen { "frozen 1" } else { "frozen 0" };
        until(state, || {
            let done = match fs::read_to_string(self.0.join("freezer.state")) {
                Ok(text) => text.trim() == state,
                Err(_) => fs::read_to_string(self.0.join("cgroup.events"))
                    .ok()?
                    .lines()
                    .any(|found| found == line),
            };
            done.then_some(())
        });
    }

    pub fn path(&self) -> &str {
        self.0.to_str().expect("text")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // EBUSY: the last processes are still being removed.
        until("the control group is empty", || {
            let gone = fs::remove_dir(&self.0);
            (gone.is_ok() || !self.0.exists()).then_some(())
        });
    }
}
