//! A user of a test's own. The kernel counts processes and queued signals by user (getrlimit(2)),
//! and each test fills its own limits.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::common::{BOWOUT, Dir, Running, Start, not_root, probe, skip};

pub struct User {
    pub uid: String,
    /// A directory that the user may write to.
    pub dir: Dir,
    shim: PathBuf,
    child: PathBuf,
}

impl User {
    /// A user with a UID that no other test has. Without root, prints the reason and returns None.
    pub fn new() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if skip(not_root()) {
            return None;
        }
        let uid = 100_000 + std::process::id() * 64 + NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = Dir::new();
        fs::set_permissions(&dir.0, fs::Permissions::from_mode(0o777)).expect("permissions");
        let (shim, child) = (dir.program(BOWOUT), dir.program(probe()));
        Some(Self {
            uid: uid.to_string(),
            dir,
            shim,
            child,
        })
    }

    /// bowout as this user, under these limits.
    pub fn start(&self, options: &[&str], limits: &[&str]) -> Start {
        Start::new(options)
            .program(&self.shim)
            .with([limits, &["--uid", &self.uid]].concat())
    }

    pub fn child(&self) -> &str {
        self.child.to_str().expect("text")
    }

    /// Likewise, with the probe as the command.
    pub fn probe(&self, start: Start, words: &[&str]) -> Running {
        start.command([&[self.child()], words].concat())
    }

    /// The path of a file that the user may write.
    pub fn file(&self, name: &str) -> String {
        self.dir.file(name).to_str().expect("text").to_owned()
    }
}
