//! Where the relay's socket is: at a path that the child can reach wherever it could reach the
//! manager's.
//!
//! The socket is in a new directory in the first of these folders that can be written to:
//!
//! 1. `RUNTIME_DIRECTORY`, which systemd removes with the unit, even after SIGKILL to bowout;
//! 2. `/run`, where the manager's own socket is, so that a sandbox rarely hides it;
//! 3. `XDG_RUNTIME_DIR`, for a user's own services;
//! 4. `TMPDIR` and `/tmp`: with `ProtectSystem=strict`, a unit can often write only there.
//!
//! As root, bowout skips folders that other users cannot pass through, because the child may become
//! another user. Where no folder is left, the address is abstract. That is the last choice: an
//! abstract address exists in one network namespace only (unix(7)).

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, fstat, umask};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::manager::{Address, FAMILY, bind, check};
use super::user;
use crate::sys::environment;

/// The name of the socket in its directory.
const NAME: &str = "notify";
/// Everyone may pass through the directory, and only its owner may list or change it.
const MODE: u32 = 0o711;

/// The directory of a socket. It is removed with this.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    /// What is changed in the directory is changed through this: other users may own the folder
    /// above it, and rename it.
    directory: OwnedFd,
}

impl Place {
    /// Gives the socket a path, in the first folder where that can be done.
    pub(super) fn find(socket: &OwnedFd) -> Option<Self> {
        // The umask is the child's, and is restored before the child is started.
        let before = umask(Mode::empty());
        let place = folders().find_map(|folder| Self::new(socket, &folder).ok());
        umask(before);
        place
    }

    /// The directory's name cannot be guessed, and `mkdir(2)` takes no name that exists. The
    /// descriptor then shows whether the directory is still the one that was made.
    fn new(socket: &OwnedFd, folder: &Path) -> io::Result<Self> {
        if user() == 0 && !folder.ancestors().all(lets_others_through) {
            return Err(Errno::EACCES.into());
        }
        // The keys of a RandomState are from getrandom(2).
        let path = folder.join(format!("bowout-{:016x}", RandomState::new().hash_one(0)));
        Address::unix(path.join(NAME).as_os_str().as_bytes()).ok_or(Errno::ENAMETOOLONG)?;
        DirBuilder::new().mode(MODE).create(&path)?;
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let bound = open(&path, flags, Mode::empty())
            .map_err(io::Error::from)
            .and_then(|directory| {
                let stat = fstat(&directory)?;
                if (stat.st_uid, stat.st_mode & 0o777) != (user(), MODE) {
                    return Err(Errno::EPERM.into());
                }
                bind_in(socket, &directory).map(|()| directory)
            });
        match bound {
            Ok(directory) => Ok(Self { path, directory }),
            Err(error) => {
                let _ = fs::remove_dir(&path);
                Err(error)
            }
        }
    }

    /// As NOTIFY_SOCKET takes it.
    pub(super) fn address(&self) -> OsString {
        self.path.join(NAME).into_os_string()
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // systemd may have removed both with the unit.
        let _ = unlinkat(&self.directory, NAME, UnlinkatFlags::NoRemoveDir);
        let _ = fs::remove_dir(&self.path);
    }
}

fn folders() -> impl Iterator<Item = PathBuf> {
    let listed = environment::value("RUNTIME_DIRECTORY").map(OsStr::as_bytes);
    let first = listed
        .and_then(|folders| folders.split(|&byte| byte == b':').next())
        .map(OsStr::from_bytes);
    let fixed = |folder| Some(OsStr::new(folder));
    let variable = environment::value;
    [
        first,
        fixed("/run"),
        variable("XDG_RUNTIME_DIR"),
        variable("TMPDIR"),
        fixed("/tmp"),
    ]
    .into_iter()
    .flatten()
    .map(PathBuf::from)
    .filter(|folder| folder.is_absolute())
}

fn lets_others_through(folder: &Path) -> bool {
    fs::metadata(folder).is_ok_and(|folder| folder.permissions().mode() & 0o001 != 0)
}

/// Binds the socket in a directory. The socket has its permissions from the start; chmod(2) could
/// change another file's.
fn bind_in(socket: &OwnedFd, directory: &OwnedFd) -> io::Result<()> {
    umask(Mode::from_bits_truncate(if user() == 0 {
        0o111
    } else {
        0o177
    }));
    let path = format!("/proc/self/fd/{}/{NAME}", directory.as_raw_fd());
    let bound = bind(
        socket,
        &Address::unix(path.as_bytes()).ok_or(Errno::ENAMETOOLONG)?,
    );
    umask(Mode::empty());
    bound
}

/// An abstract address that the kernel picks (unix(7), "autobind"); as NOTIFY_SOCKET takes it, with
/// `@`.
pub(super) fn bind_anywhere(socket: &OwnedFd) -> io::Result<OsString> {
    bind(socket, &Address::autobind())?;
    let mut address = Address::autobind();
    address.length = mem::size_of_val(&address.bytes) as libc::socklen_t;
    // SAFETY: as many bytes as are named can be written.
    check(unsafe {
        libc::getsockname(
            socket.as_raw_fd(),
            address.bytes.as_mut_ptr().cast(),
            &raw mut address.length,
        )
    })?;
    let name = &address.bytes[FAMILY + 1..address.length as usize];
    Ok(OsString::from(format!(
        "@{}",
        String::from_utf8_lossy(name)
    )))
}
