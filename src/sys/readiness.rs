//! Readiness: the descriptor on which the command reports that it is ready (`--ready fd:N`, the
//! protocol of s6 and dinit), and the file that exists while it is (`--ready-file`).

use std::ffi::OsStr;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, FcntlArg, OFlag, fcntl, openat};
use nix::sys::resource::{Resource, getrlimit, rlim_t};
use nix::sys::stat::{Mode, SFlag, fstatat};
use nix::unistd::{UnlinkatFlags, pipe2, read, unlinkat};

use super::files;

/// Makes the pipe of `--ready fd:N`: bowout's end, and the command's, which [`give`] makes
/// descriptor `number`.
///
/// # Errors
/// As pipe2(2); `InvalidInput`: the limit of open files is not above `number`.
pub(super) fn open_pipe(number: RawFd) -> io::Result<(OwnedFd, OwnedFd)> {
    let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if number as rlim_t >= limit {
        let why = format!(
            "--ready fd:{number} is not below the limit of open files, {limit}: write a lower number"
        );
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let (read, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    // The command may not expect a descriptor that does not wait.
    fcntl(&write, FcntlArg::F_SETFL(OFlag::empty()))?;
    Ok((read, write))
}

/// Makes `write` descriptor `number` of the command. For the child alone, before its exec: in
/// bowout, a file of its own can have this number.
///
/// # Errors
/// As dup2(2): the limit of open files was lowered meanwhile.
pub(super) fn give(write: &OwnedFd, number: RawFd) -> nix::Result<()> {
    // SAFETY: numbers only. The child uses nothing else that had `number`.
    unsafe {
        Errno::result(libc::dup2(write.as_raw_fd(), number))?;
        // dup2(2) changes nothing where the two are one.
        Errno::result(libc::fcntl(number, libc::F_SETFD, 0)).map(drop)
    }
}

/// Reads bowout's end. True if the command has written a line, and so is ready; it is not read
/// again then, nor after its end.
pub(super) fn is_reported(pipe: &mut Option<OwnedFd>) -> bool {
    let mut bytes = [0; 256];
    match pipe.as_ref().map(|pipe| read(pipe, &mut bytes)) {
        Some(Ok(length)) if length == 0 || bytes[..length].contains(&b'\n') => {
            // Not closed: a command that writes more would receive SIGPIPE.
            mem::forget(pipe.take());
            length > 0
        }
        Some(_) | None => false,
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
