//! The report and the termination message. Each destination is opened before the command starts, so
//! that no name leads to another file later, and a destination that cannot be written to is an
//! error at the start.
//!
//! Caveat: a write to a file system that hangs (NFS, FUSE, a frozen one) holds bowout in state D,
//! and a single thread cannot prevent it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, FcntlArg, FdFlag, OFlag, fcntl, open, openat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};
use nix::sys::statfs::{self, fstatfs};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};

use super::output::{LONGEST, Output};

/// Where the report goes.
#[derive(Debug)]
pub(crate) enum Destination {
    /// A name in a folder, and the regular file that had this name at the start.
    File {
        folder: OwnedFd,
        name: Box<OsStr>,
        file: Option<File>,
    },
    /// A descriptor that was inherited for this.
    Descriptor(OwnedFd),
}

impl Destination {
    /// The file at `path`. Nothing is written yet.
    ///
    /// # Errors
    /// As open(2); `InvalidInput` where `path` is a link or not a regular file, or lies in a file
    /// system that is an interface of the kernel.
    pub(crate) fn file(path: &Path) -> io::Result<Self> {
        let (folder, name) = split(path)?;
        let file = open_existing(&folder, name, OFlag::empty())?;
        if file.is_none() {
            refuse_kernel_interface(folder.as_fd())?;
            // Only a new file shows whether quotas, security modules and file servers allow one.
            // bowout removes it at once, so that a bowout that is killed leaves none.
            let (temporary, _) = create(&folder)?;
            unlinkat(&folder, temporary.as_str(), UnlinkatFlags::NoRemoveDir)?;
        }
        Ok(Self::File {
            folder,
            name: name.into(),
            file,
        })
    }

    /// Descriptor `fd`, which is not negative, and from now on is bowout's and not the child's.
    ///
    /// # Errors
    /// `EBADF`: it is not open for writing.
    pub(crate) fn descriptor(fd: i32) -> io::Result<Self> {
        // The log opened it, not the user.
        if super::stderr::own_descriptor().is_some_and(|own| own.as_raw_fd() == fd) {
            return Err(Errno::EBADF.into());
        }
        // SAFETY: fcntl(2) alone uses it, and fails where it is not open.
        let inherited = unsafe { BorrowedFd::borrow_raw(fd) };
        let own = inherited.try_clone_to_owned()?;
        // As read-only counts the O_PATH descriptor that bowout puts in the place of a closed
        // standard descriptor.
        // Not O_ACCMODE, which has O_PATH in musl.
        if !OFlag::from_bits_retain(fcntl(&own, FcntlArg::F_GETFL)?)
            .intersects(OFlag::O_WRONLY | OFlag::O_RDWR)
        {
            return Err(Errno::EBADF.into());
        }
        if fd > 2 {
            let _ = fcntl(inherited, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC));
        }
        Ok(Self::Descriptor(own))
    }

    /// The descriptors that must stay open.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let both = match self {
            Self::File { folder, file, .. } => {
                [Some(folder.as_fd()), file.as_ref().map(File::as_fd)]
            }
            Self::Descriptor(fd) => [Some(fd.as_fd()), None],
        };
        both.into_iter().flatten()
    }

    /// Writes all of `text`.
    ///
    /// # Errors
    /// As write(2) and rename(2); `EAGAIN` where a pipe has no room. A file then holds all of
    /// `text` or nothing.
    pub(crate) fn write(&self, text: &str) -> io::Result<()> {
        match self {
            // It may have been deleted meanwhile.
            Self::File {
                file: Some(file), ..
            } if file.metadata()?.nlink() > 0 => {
                file.set_len(0)?;
                file.write_all_at(text.as_bytes(), 0)
                    .inspect_err(|_| drop(file.set_len(0)))
            }
            Self::File { folder, name, .. } => write_new(folder, name, text),
            Self::Descriptor(fd) => {
                let mut output = Output::new(fd.as_fd());
                for chunk in text.as_bytes().chunks(LONGEST) {
                    if output.write(chunk)? < chunk.len() {
                        return Err(Errno::EAGAIN.into());
                    }
                }
                Ok(())
            }
        }
    }
}

/// Puts a new file with `text` in its place.
fn write_new(folder: &OwnedFd, name: &OsStr, text: &str) -> io::Result<()> {
    let (temporary, mut file) = create(folder)?;
    if let Err(error) = file.write_all(text.as_bytes()) {
        // The file system may be read-only by now; nothing more can be done.
        let _ = unlinkat(folder, temporary.as_str(), UnlinkatFlags::NoRemoveDir);
        return Err(error);
    }
    // Another process may give the name to a file of its own after this look. The rename then
    // replaces that file: it follows no link.
    fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW)
        .map_or(Ok(()), |found| refuse_irregular(&found))
        .and_then(|()| Ok(renameat(folder, temporary.as_str(), folder, name)?))
        // The temporary file is complete, and the only copy.
        .map_err(|error| {
            io::Error::other(format!(
                "{error}; it is in '{temporary}' in the same folder"
            ))
        })
}

/// The folder of `path`, and the name in it.
pub(super) fn split(path: &Path) -> io::Result<(OwnedFd, &OsStr)> {
    let bytes = path.as_os_str().as_bytes();
    let at = bytes
        .iter()
        .rposition(|&byte| byte == b'/')
        .map_or(0, |slash| slash + 1);
    let (folder, name): (&[u8], _) = match bytes.split_at(at) {
        (b"", b"") => return Err(Errno::ENOENT.into()),
        (_, b"" | b"." | b"..") => return Err(Errno::EISDIR.into()),
        (b"", name) => (b".", name),
        both => both,
    };
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok((open(folder, flags, Mode::empty())?, OsStr::from_bytes(name)))
}

/// Opens a regular file for writing; `None` where there is no file of this name.
fn open_existing(folder: &OwnedFd, name: &OsStr, flags: OFlag) -> io::Result<Option<File>> {
    // The file is looked at before it is opened, because to open a FIFO or a device can have
    // effects. The look at the descriptor decides: the name may be another file's by then.
    match fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Err(Errno::ENOENT) => return Ok(None),
        found => refuse_irregular(&found?)?,
    }
    let safe = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let fd = openat(folder, name, flags | OFlag::O_WRONLY | safe, Mode::empty())?;
    let (found, around) = (fstat(&fd)?, fstat(folder)?);
    refuse_irregular(&found)?;
    // As the kernel does at a shell's `>` (`protected_regular`, proc_sys_fs(5)): in /tmp, another
    // user may have put the file there to read it.
    let shared = around.st_mode & 0o1002 == 0o1002;
    if shared && ![around.st_uid, geteuid().as_raw()].contains(&found.st_uid) {
        let why = "it belongs to another user, in a directory that all users may write to";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    refuse_kernel_interface(fd.as_fd())?;
    Ok(Some(fd.into()))
}

fn refuse_irregular(found: &FileStat) -> io::Result<()> {
    match SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFREG => Ok(()),
        SFlag::S_IFLNK => Err(refusal(
            "it is a symbolic link, which bowout does not follow",
        )),
        _ => Err(refusal("it is not a regular file")),
    }
}

/// File systems that are interfaces of the kernel: a write can be a command there.
const KERNEL_INTERFACES: [statfs::FsType; 10] = [
    statfs::PROC_SUPER_MAGIC,
    statfs::SYSFS_MAGIC,
    statfs::CGROUP_SUPER_MAGIC,
    statfs::CGROUP2_SUPER_MAGIC,
    statfs::DEBUGFS_MAGIC,
    statfs::TRACEFS_MAGIC,
    statfs::SECURITYFS_MAGIC,
    statfs::DEVPTS_SUPER_MAGIC,
    statfs::BPF_FS_MAGIC,
    statfs::SELINUX_MAGIC,
];

/// Refuses a file in one of these and in devtmpfs, which all programs of the machine share.
fn refuse_kernel_interface(fd: BorrowedFd<'_>) -> io::Result<()> {
    let kind = fstatfs(fd)?.filesystem_type();
    // devtmpfs has the number of tmpfs or ramfs (drivers/base/devtmpfs.c).
    let may_be_devtmpfs = kind == statfs::TMPFS_MAGIC || kind == RAMFS_MAGIC;
    if KERNEL_INTERFACES.contains(&kind) || may_be_devtmpfs && is_devtmpfs(fstat(fd)?.st_dev) {
        return Err(refusal(
            "it is in /dev, /proc, /sys or another interface of the kernel",
        ));
    }
    Ok(())
}

/// The number of ramfs for fstatfs(2) (linux/magic.h).
const RAMFS_MAGIC: statfs::FsType = statfs::FsType(0x8584_58f6_u32 as _);

/// True if the file system of this number is a devtmpfs according to proc_pid_mountinfo(5).
fn is_devtmpfs(device: libc::dev_t) -> bool {
    let number = format!(" {}:{} ", libc::major(device), libc::minor(device));
    let mounts = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    String::from_utf8_lossy(&mounts)
        .lines()
        .any(|line| line.contains(&number) && line.contains(" - devtmpfs "))
}

fn refusal(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

/// How many names are tried for a new file.
const NAMES: u64 = 100;

/// Makes an empty file that its owner alone may read, under a name that another process cannot
/// guess, so that none can occupy it.
fn create(folder: &OwnedFd) -> io::Result<(String, File)> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let random = random();
    for nth in 0..NAMES {
        let name = format!(".bowout-{}", random.wrapping_add(nth));
        match openat(folder, name.as_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR) {
            Err(Errno::EEXIST) => {}
            file => return Ok((name, file?.into())),
        }
    }
    Err(Errno::EEXIST.into())
}

/// A number that another process cannot guess, for names; 0 where getrandom(2) fails. It does not
/// wait for the kernel to collect entropy. `RandomState` would end bowout where there is neither
/// getrandom(2) nor /dev/urandom.
pub(super) fn random() -> u64 {
    let mut random = 0_u64;
    // SAFETY: writes at most eight bytes to a variable of that size.
    unsafe {
        libc::getrandom(
            (&raw mut random).cast(),
            size_of::<u64>(),
            libc::GRND_NONBLOCK,
        );
    }
    random
}

/// The most that a termination message may take, in bytes: Kubernetes shares 12 KiB among all
/// containers of a pod.
const MESSAGE: usize = 1024;

/// Opens the file for a termination message; `None` where there is no such file, as outside
/// Kubernetes.
///
/// # Errors
/// As [`Destination::file`].
pub(crate) fn termination_log(path: &Path) -> io::Result<Option<File>> {
    match split(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        found => found.and_then(|(folder, name)| open_existing(&folder, name, OFlag::O_APPEND)),
    }
}

/// Writes a termination message into a file that is still empty. A file that is not holds the
/// command's own message.
///
/// # Errors
/// As write(2).
pub(crate) fn write_termination_message(mut file: &File, message: &str) -> io::Result<()> {
    if file.metadata()?.len() > 0 {
        return Ok(());
    }
    let end = (0..=MESSAGE.min(message.len()))
        .rev()
        .find(|&at| message.is_char_boundary(at));
    // Without a newline: kubectl adds one.
    file.write_all(&message.as_bytes()[..end.unwrap_or(0)])
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::PathBuf;

    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("bowout-files-{name}-{}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }

        fn text(&self, name: &str) -> String {
            fs::read_to_string(self.path(name)).unwrap()
        }

        fn names(&self) -> Vec<String> {
            let mut names: Vec<_> = fs::read_dir(&self.0)
                .unwrap()
                .map(|e| e.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn fifo(path: &Path) {
        nix::unistd::mkfifo(path, Mode::S_IRWXU).unwrap();
    }

    fn error_of(path: &Path) -> String {
        Destination::file(path)
            .expect_err(&path.to_string_lossy())
            .to_string()
    }

    #[test]
    fn a_new_report_is_private_and_an_old_one_keeps_its_mode_and_inode() {
        let folder = Folder::new("report");
        let r = folder.path("r");
        Destination::file(&r).unwrap().write("one").unwrap();
        assert_eq!(fs::metadata(&r).unwrap().mode() & 0o777, 0o600);
        fs::set_permissions(&r, Permissions::from_mode(0o640)).unwrap();
        let before = fs::metadata(&r).unwrap();
        Destination::file(&r).unwrap().write("2").unwrap();
        let after = fs::metadata(&r).unwrap();
        assert_eq!((before.ino(), before.mode()), (after.ino(), after.mode()));
        assert_eq!(
            (folder.text("r"), folder.names()),
            ("2".into(), vec!["r".into()])
        );
    }

    #[test]
    fn a_file_that_is_not_regular_is_refused() {
        let folder = Folder::new("special");
        let (r, link) = (folder.path("r"), folder.path("link"));
        fifo(&r);
        fs::write(folder.path("other"), "mine").unwrap();
        for target in ["other", "nowhere", "r", "/dev/null"] {
            symlink(target, &link).unwrap();
            assert!(error_of(&link).contains("symbolic link"), "{target}");
            fs::remove_file(&link).unwrap();
        }
        for path in [&r, &folder.0, Path::new("/dev/null")] {
            assert!(
                error_of(path).contains("not a regular file"),
                "{}",
                path.display()
            );
        }
        for path in ["", "/", "..", "other/", "."] {
            assert!(
                Destination::file(&folder.path("").join(path)).is_err(),
                "{path}"
            );
        }
        assert!(
            Destination::file(&folder.path("no/r")).is_err()
                && Destination::file(Path::new("")).is_err()
        );
        assert_eq!(
            (folder.names(), folder.text("other")),
            (vec!["other".into(), "r".into()], "mine".into())
        );
    }

    /// fstatfs(2) gives devtmpfs as tmpfs; /dev/shm and a container's /dev are real ones.
    #[test]
    fn interfaces_of_the_kernel_are_refused() {
        for path in [
            "/proc/self/comm",
            "/proc/r",
            "/sys/r",
            "/proc/sys/kernel/core_pattern",
            "/dev/pts/r",
        ] {
            assert!(Path::new(path).parent().unwrap().exists(), "{path}");
            assert!(
                error_of(Path::new(path)).contains("interface of the kernel"),
                "{path}"
            );
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        if mounts
            .lines()
            .any(|line| line.contains(" /dev ") && line.contains(" - devtmpfs "))
        {
            assert!(error_of(Path::new("/dev/bowout-report")).contains("interface of the kernel"));
            assert!(!Path::new("/dev/bowout-report").exists());
        }
    }

    /// In each case, another process uses the name between the start and the end.
    #[test]
    fn a_name_that_another_process_takes_meanwhile_loses_no_report() {
        let folder = Folder::new("meanwhile");
        let r = folder.path("r");
        for (make, replaced) in [
            (&(|| fs::write(&r, "another").unwrap()) as &dyn Fn(), true),
            (&|| fs::hard_link(folder.path("victim"), &r).unwrap(), true),
            (&|| symlink("victim", &r).unwrap(), false),
            (&|| fifo(&r), false),
            (&|| fs::create_dir(&r).unwrap(), false),
        ] {
            fs::write(folder.path("victim"), "mine").unwrap();
            let there = Destination::file(&r).unwrap();
            make();
            let result = there.write("{}");
            assert_eq!(
                (result.is_ok(), folder.text("victim")),
                (replaced, "mine".into()),
                "{result:?}"
            );
            if let Err(error) = result {
                let name = folder
                    .names()
                    .into_iter()
                    .find(|name| name.starts_with('.'))
                    .unwrap();
                assert!(error.to_string().contains(&name), "{error}");
                assert_eq!(folder.text(&name), "{}");
                fs::remove_file(folder.path(&name)).unwrap();
            }
            if r.is_dir() {
                fs::remove_dir(&r).unwrap();
            } else {
                fs::remove_file(&r).unwrap();
            }
        }
        // A file that existed at the start, and was deleted or replaced after it.
        for again in [None, Some("another")] {
            fs::write(&r, "before").unwrap();
            let there = Destination::file(&r).unwrap();
            fs::remove_file(&r).unwrap();
            again.inspect(|text| fs::write(&r, text).unwrap());
            there.write("{}").unwrap();
            assert_eq!(
                (folder.text("r"), folder.names()),
                ("{}".into(), vec!["r".into(), "victim".into()])
            );
        }
    }

    /// The longest file name works, too: the name of the temporary file does not grow with it.
    #[test]
    fn the_folder_is_the_one_of_the_start() {
        let folder = Folder::new("moved");
        fs::create_dir(folder.path("a")).unwrap();
        let name = "x".repeat(255);
        let there = Destination::file(&folder.path("a").join(&name)).unwrap();
        assert_eq!(
            fs::read_dir(folder.path("a")).unwrap().count(),
            0,
            "nothing is left of the try"
        );
        fs::rename(folder.path("a"), folder.path("b")).unwrap();
        fs::create_dir(folder.path("c")).unwrap();
        symlink("c", folder.path("a")).unwrap();
        there.write("{}").unwrap();
        assert_eq!(
            fs::read_to_string(folder.path("b").join(&name)).unwrap(),
            "{}"
        );
        assert_eq!(fs::read_dir(folder.path("c")).unwrap().count(), 0);
        let there = Destination::file(&folder.path("c/r")).unwrap();
        fs::remove_dir(folder.path("c")).unwrap();
        assert!(there.write("x").is_err());
    }

    #[test]
    fn a_descriptor_that_cannot_be_written_to_is_refused() {
        use std::os::fd::AsRawFd;
        let folder = Folder::new("descriptor");
        fs::write(folder.path("r"), "").unwrap();
        let (read, path) = (
            File::open(folder.path("r")).unwrap(),
            open("/", OFlag::O_PATH, Mode::empty()).unwrap(),
        );
        for fd in [999, read.as_raw_fd(), path.as_raw_fd()] {
            assert!(Destination::descriptor(fd).is_err(), "{fd}");
        }
        let write = File::options().write(true).open(folder.path("r")).unwrap();
        Destination::descriptor(write.as_raw_fd())
            .unwrap()
            .write("{}")
            .unwrap();
        assert_eq!(folder.text("r"), "{}");
    }

    #[test]
    fn a_message_goes_into_an_empty_file_and_nowhere_else() {
        let folder = Folder::new("message");
        let write = |name: &str, text: &str| {
            let file = termination_log(&folder.path(name)).unwrap().unwrap();
            write_termination_message(&file, text).unwrap();
            folder.text(name)
        };
        assert!(termination_log(&folder.path("none")).unwrap().is_none());
        assert!(
            termination_log(&folder.path("no/folder"))
                .unwrap()
                .is_none()
        );
        for name in ["empty", "long", "target", "late"] {
            fs::write(folder.path(name), "").unwrap();
        }
        assert_eq!(write("empty", "killed"), "killed");
        assert_eq!(write("empty", "again"), "killed");
        assert!((1000..=MESSAGE).contains(&write("long", &"ü".repeat(2000)).len()));
        // The command writes its own message after the start.
        let late = termination_log(&folder.path("late")).unwrap().unwrap();
        fs::write(folder.path("late"), "own").unwrap();
        write_termination_message(&late, "x").unwrap();
        assert_eq!(folder.text("late"), "own");
        symlink("target", folder.path("link")).unwrap();
        fifo(&folder.path("fifo"));
        for name in ["link", "fifo", ".", "target/x"] {
            assert!(termination_log(&folder.path(name)).is_err(), "{name}");
        }
        assert!(termination_log(Path::new("/proc/self/comm")).is_err());
        assert_eq!(
            (folder.text("target"), folder.names().len()),
            (String::new(), 6)
        );
    }
}
