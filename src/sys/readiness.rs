//! Readiness: the descriptor on which the command reports that it is ready (`--ready fd:N`, the
//! protocol of s6 and dinit), and the file that exists while it is (`--ready-file`).

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, FcntlArg, OFlag, fcntl, openat};
use nix::sys::stat::{Mode, SFlag, fstatat};
use nix::unistd::{UnlinkatFlags, pipe2, unlinkat};

use super::{files, stderr};

/// Makes a pipe whose writing end is descriptor `number`, which the command inherits, and returns
/// the other end. Call it before bowout opens anything else: whatever has this number is closed.
///
/// # Errors
/// As pipe2(2) and dup2(2); `EBUSY`: the log has this number.
pub(crate) fn open_pipe(number: i32) -> io::Result<OwnedFd> {
    if stderr::own_descriptor().is_some_and(|own| own.as_raw_fd() == number) {
        return Err(Errno::EBUSY.into());
    }
    let (read, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    // Copies, neither of which has `number`: pipe2(2) may have given it to one of the two.
    let own = |fd: &OwnedFd| fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(number.saturating_add(1)));
    let (own_read, own_write) = (own(&read)?, own(&write)?);
    drop((read, write));
    // SAFETY: each descriptor is new, and nothing else owns it.
    let (read, write) = unsafe {
        (
            OwnedFd::from_raw_fd(own_read),
            OwnedFd::from_raw_fd(own_write),
        )
    };
    // SAFETY: numbers only; no object of this process owns `number`.
    Errno::result(unsafe { libc::dup2(write.as_raw_fd(), number) })?;
    // The command may not expect a descriptor that does not wait.
    fcntl(&write, FcntlArg::F_SETFL(OFlag::empty()))?;
    Ok(read)
}

/// The command's report on the descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// A newline: it is ready.
    Line,
    /// It has closed its end without one.
    End,
    /// Nothing yet, or a part of a line.
    Nothing,
}

/// Reads the descriptor.
pub(crate) fn read(pipe: BorrowedFd<'_>) -> Written {
    let mut bytes = [0; 256];
    match nix::unistd::read(pipe, &mut bytes) {
        Ok(0) => Written::End,
        Ok(length) if bytes[..length].contains(&b'\n') => Written::Line,
        Ok(_) | Err(_) => Written::Nothing,
    }
}

/// A file that exists while the command is ready.
#[derive(Debug)]
pub(crate) struct ReadyFile {
    folder: OwnedFd,
    name: Box<OsStr>,
}

impl ReadyFile {
    /// The file at `path`. One that an earlier run has left is removed; one of the instance before
    /// is kept.
    ///
    /// # Errors
    /// As open(2) of its folder and unlink(2); `InvalidInput`: it is not a regular file.
    pub(crate) fn open(path: &Path, is_another: bool) -> io::Result<Self> {
        let (folder, name) = files::split(path)?;
        match fstatat(&folder, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => {}
            Ok(found) if found.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFREG.bits() => {
                if !is_another {
                    unlinkat(&folder, name, UnlinkatFlags::NoRemoveDir)?;
                }
            }
            Ok(_) => {
                let why = "it is not a regular file";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
            }
            Err(error) => return Err(error.into()),
        }
        let name = name.into();
        Ok(Self { folder, name })
    }

    /// Makes the file, which is empty. One that is there is that of the instance before.
    ///
    /// # Errors
    /// As open(2).
    pub(crate) fn make(&self) -> io::Result<()> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR | Mode::S_IRGRP | Mode::S_IROTH;
        openat(&self.folder, &*self.name, flags, mode)?;
        Ok(())
    }

    /// Removes the file. It may have been removed meanwhile.
    pub(crate) fn remove(&self) {
        let _ = unlinkat(&self.folder, &*self.name, UnlinkatFlags::NoRemoveDir);
    }

    /// The descriptor that must stay open.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }
}
