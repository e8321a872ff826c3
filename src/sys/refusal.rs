//! Why a command does not run. The child finds it out after the last execve(2) has failed, in its
//! own working directory, and sends it to bowout.

use std::borrow::Cow;
use std::ffi::{CString, OsStr};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;

use crate::exit::Exit;

/// What the kernel reads of a file to see what it is (`BINPRM_BUF_SIZE`, linux/binfmts.h).
const HEAD: usize = 256;
/// How many interpreters a script can need: the kernel follows five (fs/exec.c, `exec_binprm`).
const INTERPRETERS: usize = 5;
/// The longest message of a child: one write of it is whole (pipe(7), `PIPE_BUF`).
const MESSAGE: usize = 1024;
/// Shells look for a NUL byte so far into a file before they take it for a script.
const SAMPLE: usize = 80;

/// Why the command does not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExecError {
    exit: Exit,
    errno: i32,
    /// May hold bytes of a file, or of the command's name.
    why: String,
}

impl ExecError {
    /// What bowout ends with because of it.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// The error as errno(3) counts.
    pub(crate) fn errno(&self) -> i32 {
        self.errno
    }

    /// Explains the `error` of execve(2) of these `candidates` for `command`.
    #[cold]
    pub(super) fn new(error: Errno, command: &OsStr, candidates: &[CString]) -> Self {
        let paths = || {
            candidates
                .iter()
                .map(|path| Path::new(OsStr::from_bytes(path.to_bytes())))
        };
        let plain = || error.desc().into();
        let (exit, why) = match error {
            Errno::ENOENT | Errno::ENOTDIR => match paths().find(|path| path.exists()) {
                Some(path) => {
                    let why = missing_interpreter(path).map(|interpreter| missing(&interpreter));
                    (
                        Exit::CANNOT_RUN,
                        why.unwrap_or_else(|| {
                            "the interpreter that it names does not exist".into()
                        }),
                    )
                }
                None if command.as_bytes().contains(&b' ') => {
                    let hint = "to run a shell command line, write sh -c '...'";
                    (Exit::NOT_FOUND, format!("{}; {hint}", Errno::ENOENT.desc()))
                }
                None => (Exit::NOT_FOUND, Errno::ENOENT.desc().into()),
            },
            // The kernel says EACCES of a directory, too, which sends people to chmod.
            Errno::EACCES => match paths().find(|path| path.is_file()) {
                None if paths().any(Path::is_dir) => {
                    return Self::new(Errno::EISDIR, command, candidates);
                }
                Some(path) if path.metadata().is_ok_and(|data| data.mode() & 0o111 == 0) => {
                    let path = quote(path.as_os_str().as_bytes());
                    (
                        Exit::CANNOT_RUN,
                        format!("{}; make it executable: chmod +x {path}", error.desc()),
                    )
                }
                _ => (Exit::CANNOT_RUN, plain()),
            },
            Errno::ENOEXEC => {
                let foreign = paths().find_map(|path| foreign(&head(path).ok()?.1));
                (
                    Exit::CANNOT_RUN,
                    foreign.map_or_else(plain, |foreign| format!("{}: {foreign}", error.desc())),
                )
            }
            _ => (Exit::CANNOT_RUN, plain()),
        };
        let error = if exit == Exit::NOT_FOUND || error == Errno::ENOTDIR {
            Errno::ENOENT
        } else {
            error
        };
        Self {
            exit,
            errno: error as i32,
            why,
        }
    }

    /// For the pipe from the child.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut message = vec![self.exit.number()];
        message.extend(self.errno.to_ne_bytes());
        message.extend(self.why.as_bytes());
        message.truncate(MESSAGE);
        message
    }

    /// What the child has written, if it has.
    pub(in crate::sys) fn receive(
        read: impl FnOnce(&mut [u8]) -> nix::Result<usize>,
    ) -> nix::Result<Option<Self>> {
        let mut message = [0; MESSAGE];
        let length = read(&mut message)?;
        let [exit, a, b, c, d, ref why @ ..] = message[..length] else {
            return Ok(None);
        };
        let why = String::from_utf8_lossy(why).into_owned();
        Ok(Some(Self {
            exit: Exit::Code(exit),
            errno: i32::from_ne_bytes([a, b, c, d]),
            why,
        }))
    }
}

impl fmt::Display for ExecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

/// Whether a file that the kernel cannot execute is text, which /bin/sh is to run, as shells see
/// it: no NUL byte in its first line.
pub(super) fn is_text(path: &Path) -> bool {
    // One that may be executed and not read is /bin/sh's to refuse, as with execvp(3).
    head(path).map_or(true, |(_, head)| looks_like_text(&head))
}

fn looks_like_text(head: &[u8]) -> bool {
    head.iter().take(SAMPLE).find(|&&b| b == b'\n' || b == 0) != Some(&0)
}

/// The beginning of a file. What is put in its place meanwhile must not hold us up, as a FIFO does.
fn head(path: &Path) -> io::Result<(File, Vec<u8>)> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    let mut head = vec![0; HEAD];
    let length = file.read_at(&mut head, 0)?;
    head.truncate(length);
    Ok((file, head))
}

/// The interpreter that does not exist, of those that a file needs.
fn missing_interpreter(path: &Path) -> Option<Vec<u8>> {
    let mut path = Cow::Borrowed(path);
    for _ in 0..INTERPRETERS {
        let interpreter = interpreter(&path)?;
        let next = Path::new(OsStr::from_bytes(&interpreter));
        if !next.exists() {
            return Some(interpreter);
        }
        path = Cow::Owned(next.to_owned());
    }
    None
}

fn missing(interpreter: &[u8]) -> String {
    let hint = if interpreter.ends_with(b"\r") {
        "; its lines end in CR LF, not LF"
    } else {
        ""
    };
    format!(
        "its interpreter '{}' does not exist{hint}",
        String::from_utf8_lossy(interpreter)
    )
}

/// What a file has the kernel run in its place: by its `#!` line (execve(2)), or as an ELF file's
/// loader (elf(5), `PT_INTERP`).
fn interpreter(path: &Path) -> Option<Vec<u8>> {
    let (file, head) = head(path).ok()?;
    if let Some(line) = head.strip_prefix(b"#!") {
        let line = line.split(|&b| b == b'\n').next()?;
        return line
            .split(|b| b" \t".contains(b))
            .find(|word| !word.is_empty())
            .map(<[u8]>::to_vec);
    }
    let wide = head.strip_prefix(b"\x7fELF")?.first() == Some(&2);
    // The kernel has found it to be of this machine, and so of its byte order. Field sizes are 2, 4
    // and 8 bytes.
    let pick = |bytes: &[u8], narrow: usize, at: usize, sizes: (usize, usize)| {
        let (at, size) = if wide {
            (at, sizes.1)
        } else {
            (narrow, sizes.0)
        };
        let field = bytes.get(at..at + size)?;
        let mut number = [0; 8];
        let from = if cfg!(target_endian = "big") {
            8 - size
        } else {
            0
        };
        number[from..from + size].copy_from_slice(field);
        Some(u64::from_ne_bytes(number))
    };
    let (table, size, count) = (
        pick(&head, 28, 32, (4, 8))?,
        pick(&head, 42, 54, (2, 2))?,
        pick(&head, 44, 56, (2, 2))?,
    );
    let read = |at: u64, length: usize| {
        let mut bytes = vec![0; length];
        let length = file.read_at(&mut bytes, at).ok()?;
        bytes.truncate(length);
        Some(bytes)
    };
    (0..count).find_map(|i| {
        let segment = read(table.checked_add(i * size)?, 56)?;
        if pick(&segment, 0, 0, (4, 4))? != u64::from(libc::PT_INTERP) {
            return None;
        }
        let length = pick(&segment, 16, 32, (4, 8))?.min(HEAD as u64);
        let mut name = read(pick(&segment, 4, 8, (4, 8))?, length as usize)?;
        name.truncate(name.iter().position(|&b| b == 0)?);
        Some(name)
    })
}

/// What a file is that neither the kernel nor a shell can run.
fn foreign(head: &[u8]) -> Option<String> {
    let &[
        0x7f,
        b'E',
        b'L',
        b'F',
        _,
        order,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        a,
        b,
        ..,
    ] = head
    else {
        return (!looks_like_text(head))
            .then(|| "it is neither a program of this machine nor text".into());
    };
    let machine = if order == 2 {
        u16::from_be_bytes([a, b])
    } else {
        u16::from_le_bytes([a, b])
    };
    // The e_machine of the machines that people have (linux/elf-em.h).
    let name = match machine {
        3 => "x86",
        21 => "powerpc64",
        22 => "s390x",
        40 => "arm",
        62 => "x86_64",
        183 => "aarch64",
        243 => "riscv64",
        258 => "loongarch64",
        _ => {
            return Some(format!(
                "it is a program of another machine (ELF machine {machine})"
            ));
        }
    };
    let here = std::env::consts::ARCH;
    Some(if name == here {
        "the program is damaged".into()
    } else {
        format!("it is a program of {name}, not of {here}")
    })
}

/// A word as a shell takes it.
fn quote(word: &[u8]) -> String {
    let text = String::from_utf8_lossy(word);
    if word
        .iter()
        .all(|b| b.is_ascii_alphanumeric() || b"/._-+,:@%=".contains(b))
    {
        return text.into_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}
