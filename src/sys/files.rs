//! The files that are written at the end: the report and the termination message. Neither may block, follow anyone's link, or
//! leave half a file behind.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::output::{LONGEST, Output};
use super::process;

/// Where the report goes.
#[derive(Debug)]
pub(crate) enum Destination {
    /// Written beside it under another name, then renamed: whoever reads it reads all of it or the one before.
    File(PathBuf),
    /// A descriptor that was inherited for this.
    Descriptor(OwnedFd),
}

impl Destination {
    /// A path, made absolute while the working directory still is the user's.
    ///
    /// # Errors
    /// No working directory, or what is there is not a regular file: renaming would put one in the place of `/dev/null`, or of
    /// the link that is `/dev/stderr`.
    pub(crate) fn file(path: &Path) -> io::Result<Self> {
        if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) {
            return Err(io::Error::other("it is not a regular file; for a descriptor write fd:N"));
        }
        std::path::absolute(path).map(Self::File)
    }

    /// Descriptor `fd`, which from now on is ours and not the child's.
    ///
    /// # Errors
    /// `EBADF`: it is not open.
    pub(crate) fn descriptor(fd: i32) -> io::Result<Self> {
        // The log has opened it, not the user.
        if super::stderr::own_descriptor().is_some_and(|own| own.as_raw_fd() == fd) {
            return Err(Errno::EBADF.into());
        }
        // SAFETY: numbers only; a descriptor that is returned is nobody else's.
        unsafe {
            let own = libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3);
            // What occupies a standard descriptor that was closed is no place for a report.
            if own < 0 || libc::fcntl(own, libc::F_GETFL) & libc::O_PATH != 0 {
                return Err(if own < 0 { io::Error::last_os_error() } else { Errno::EBADF.into() });
            }
            if fd > 2 {
                libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
            }
            Ok(Self::Descriptor(OwnedFd::from_raw_fd(own)))
        }
    }

    /// The descriptor that must stay open.
    pub(crate) fn own_descriptor(&self) -> Option<&OwnedFd> {
        match self {
            Self::File(_) => None,
            Self::Descriptor(fd) => Some(fd),
        }
    }

    /// Writes all of `text`.
    ///
    /// # Errors
    /// As open(2), write(2) and rename(2); `EAGAIN` where a pipe has no room. No part of a file is left then.
    pub(crate) fn write(&self, text: &str) -> io::Result<()> {
        match self {
            Self::File(path) => replace(path, text),
            Self::Descriptor(fd) => {
                let mut output = Output::new(fd.as_fd());
                text.as_bytes().chunks(LONGEST).try_for_each(|chunk| match output.write(chunk)? {
                    written if written == chunk.len() => Ok(()),
                    _ => Err(Errno::EAGAIN.into()),
                })
            }
        }
    }
}

/// Puts a file with `text` in the place of `path`, if that is nothing, a regular file, or a link, which is not followed. Anything else
/// somebody has put there meanwhile.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    if std::fs::symlink_metadata(path).is_ok_and(|found| !found.is_file() && !found.is_symlink()) {
        return Err(io::Error::other("what is there is not a regular file"));
    }
    // A name that nobody else uses: FILE.1 would be somebody's rotated report.
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".bowout-{}", process::id()));
    let temporary = path.with_file_name(name);
    // O_EXCL follows no link, and opens no FIFO that somebody has put there (open(2)).
    let create = || OpenOptions::new().write(true).create_new(true).open(&temporary);
    let mut file = create().or_else(|error| match error.kind() {
        // A PID 1 that was killed while it wrote has left one, and every PID 1 would find it.
        io::ErrorKind::AlreadyExists => std::fs::remove_file(&temporary).and_then(|()| create()),
        _ => Err(error),
    })?;
    let written = file.write_all(text.as_bytes()).and_then(|()| std::fs::rename(&temporary, path));
    if written.is_err() {
        // It may be a read-only file system by now; nothing more can be done.
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

/// The most that a termination message may take, in bytes: Kubernetes shares 12 KiB among all containers of a pod.
const MESSAGE: usize = 1024;

/// Writes a termination message into an existing, regular, empty file, and says whether it did: anything else there is the
/// application's own message, or none of ours (contract C10).
///
/// # Errors
/// As open(2) and write(2). That there is no such file is none.
pub(crate) fn write_termination_message(path: &Path, message: &str) -> io::Result<bool> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let mut file: File = match OpenOptions::new().append(true).custom_flags(flags).open(path) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ELOOP | libc::ENXIO)) => {
            return Ok(false);
        }
        result => result?,
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() > 0 {
        return Ok(false);
    }
    let end = message.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= MESSAGE).last();
    // Without a newline: whoever shows it adds one.
    file.write_all(&message.as_bytes()[..end.unwrap_or(0)])?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("bowout-files-{name}-{}", std::process::id()));
            std::fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn names(&self) -> Vec<String> {
            let mut names: Vec<_> =
                std::fs::read_dir(&self.0).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_report_replaces_what_was_there_and_follows_no_link() {
        let folder = Folder::new("report");
        let (path, other) = (folder.0.join("r"), folder.0.join("other"));
        std::fs::write(&other, "mine").unwrap();
        symlink(&other, &path).unwrap();
        Destination::file(&path).unwrap().write("one").unwrap();
        Destination::file(&path).unwrap().write("two").unwrap();
        assert_eq!(
            (std::fs::read_to_string(&path).unwrap(), std::fs::read_to_string(&other).unwrap()),
            ("two".into(), "mine".into())
        );
        assert_eq!(folder.names(), ["other", "r"]);
    }

    #[test]
    fn a_report_takes_the_place_of_nothing_but_files_and_links() {
        let folder = Folder::new("special");
        let path = folder.0.join("r");
        let before = Destination::file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(before.write("x").is_err() && Destination::file(&path).is_err());
        symlink(&path, folder.0.join("link")).unwrap();
        assert!(Destination::file(&folder.0.join("link")).is_err());
        assert!(Destination::file(Path::new("/dev/null")).is_err() && Destination::file(&folder.0).is_err());
        assert_eq!(folder.names(), ["link", "r"]);
    }

    #[test]
    fn a_report_that_cannot_be_written_leaves_nothing() {
        let folder = Folder::new("failed");
        let there = Destination::file(&folder.0.join("r")).unwrap();
        std::fs::create_dir(folder.0.join("r")).unwrap();
        assert!(there.write("x").is_err());
        assert!(Destination::file(&folder.0.join("no/r")).unwrap().write("x").is_err());
        assert_eq!(folder.names(), ["r"]);
        assert!(Destination::descriptor(999).is_err());
    }

    #[test]
    fn a_message_goes_into_an_empty_file_and_nowhere_else() {
        let folder = Folder::new("message");
        let path = |name: &str| folder.0.join(name);
        assert!(!write_termination_message(&path("none"), "x").unwrap());
        std::fs::write(path("empty"), "").unwrap();
        assert!(write_termination_message(&path("empty"), "killed").unwrap());
        assert_eq!(std::fs::read_to_string(path("empty")).unwrap(), "killed");
        assert!(!write_termination_message(&path("empty"), "again").unwrap());
        std::fs::write(path("target"), "").unwrap();
        symlink(path("target"), path("link")).unwrap();
        assert!(!write_termination_message(&path("link"), "x").unwrap());
        nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(!write_termination_message(&path("fifo"), "x").unwrap());
        assert_eq!(std::fs::read_to_string(path("target")).unwrap(), "");
        std::fs::write(path("long"), "").unwrap();
        assert!(write_termination_message(&path("long"), &"ü".repeat(2000)).unwrap());
        assert!((1000..=MESSAGE as u64).contains(&std::fs::metadata(path("long")).unwrap().len()));
        assert_eq!(folder.names(), ["empty", "fifo", "link", "long", "target"]);
    }
}
