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
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::socket::{UnixAddr, bind, getsockname};
use nix::sys::stat::{Mode, fstat, umask};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};

use crate::sys::environment;
use crate::sys::files::random;

/// The name of the socket in its directory.
const NAME: &str = "notify";
/// All users may pass through the directory, and only its owner may list or change it.
const MODE: u32 = 0o711;

/// The address of the relay's socket, and its directory if it has one. Dropping it removes both.
#[derive(Debug)]
pub(super) struct Place {
    /// As NOTIFY_SOCKET takes it.
    pub(super) address: OsString,
    /// Changes in the directory go through this descriptor: other users may own the folder above
    /// it, and rename it.
    pub(super) directory: Option<OwnedFd>,
}

impl Place {
    /// Binds the socket in the first folder where that can be done, or to an abstract address that
    /// the kernel picks (unix(7), "autobind").
    ///
    /// # Errors
    /// As bind(2).
    pub(super) fn bind(socket: &UnixDatagram) -> io::Result<Self> {
        // `bind_in` changes the umask. The child gets the one that bowout was started with.
        let before = umask(Mode::empty());
        let place = folders().find_map(|folder| bind_in(folder, socket).ok());
        umask(before);
        if let Some(place) = place {
            return Ok(place);
        }
        bind(socket.as_raw_fd(), &UnixAddr::new_unnamed())?;
        let bound: UnixAddr = getsockname(socket.as_raw_fd())?;
        let name = bound.as_abstract().ok_or(Errno::EADDRNOTAVAIL)?;
        Ok(Self {
            address: OsStr::from_bytes(&[b"@", name].concat()).to_owned(),
            directory: None,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let (Some(directory), Some(path)) = (&self.directory, Path::new(&self.address).parent())
        {
            // systemd may have removed both with the unit.
            let _ = unlinkat(directory, NAME, UnlinkatFlags::NoRemoveDir);
            let _ = fs::remove_dir(path);
        }
    }
}

fn folders() -> impl Iterator<Item = &'static Path> {
    let variable = |name| environment::value(name).map(OsStr::as_bytes);
    let first =
        variable("RUNTIME_DIRECTORY").and_then(|listed| listed.split(|&byte| byte == b':').next());
    let folders = [
        first,
        Some(b"/run"),
        variable("XDG_RUNTIME_DIR"),
        variable("TMPDIR"),
        Some(b"/tmp"),
    ];
    folders
        .into_iter()
        .flatten()
        .map(|folder| Path::new(OsStr::from_bytes(folder)))
        .filter(|folder| folder.is_absolute())
}

/// Binds the socket in a new directory of the folder.
fn bind_in(folder: &Path, socket: &UnixDatagram) -> io::Result<Place> {
    let lets_others_through =
        |folder: &Path| fs::metadata(folder).is_ok_and(|found| found.mode() & 0o001 != 0);
    if geteuid().is_root() && !folder.ancestors().all(lets_others_through) {
        return Err(Errno::EACCES.into());
    }
    // The name cannot be guessed, and mkdir(2) takes no name that exists.
    let path = folder.join(format!("bowout-{:016x}", random()));
    let address = path.join(NAME);
    // Before the directory is made: the child has to be able to use the address.
    UnixAddr::new(&address)?;
    umask(Mode::empty());
    DirBuilder::new().mode(MODE).create(&path)?;
    let directory = bind_at(&path, socket).inspect_err(|_| drop(fs::remove_dir(&path)))?;
    Ok(Place {
        address: address.into(),
        directory: Some(directory),
    })
}

/// Binds the socket in bowout's own new directory.
fn bind_at(path: &Path, socket: &UnixDatagram) -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let directory = open(path, flags, Mode::empty())?;
    // The folder's owner can put another directory at the path before it is opened.
    let found = fstat(&directory)?;
    if (found.st_uid, found.st_mode & 0o777) != (geteuid().as_raw(), MODE) {
        return Err(Errno::EPERM.into());
    }
    // The socket has its permissions from the start; chmod(2) could change another file's.
    umask(Mode::from_bits_truncate(if geteuid().is_root() {
        0o111
    } else {
        0o177
    }));
    let name = format!("/proc/self/fd/{}/{NAME}", directory.as_raw_fd());
    bind(socket.as_raw_fd(), &UnixAddr::new(name.as_str())?)?;
    Ok(directory)
}
