//! Why a command does not run. The child finds out after the last execve(2) failed, in its own
//! working directory, and sends the reason to bowout.

use std::ffi::{CStr, CString, OsStr};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::exit::Exit;

/// How much of a file the kernel reads to find its format (`BINPRM_BUF_SIZE`, linux/binfmts.h).
const HEAD: usize = 256;
/// How many interpreters the kernel follows (fs/exec.c, `exec_binprm`).
const INTERPRETERS: usize = 5;
/// The longest message of a child: one write of it is whole (pipe(7), `PIPE_BUF`).
const MESSAGE: usize = 1024;
/// How far a shell looks for a NUL byte before it takes a file for a script.
const SAMPLE: usize = 80;
/// The e_machine of common machines (linux/elf-em.h), and Rust's names of them.
const MACHINES: [(u16, &str); 8] = [
    (3, "x86"),
    (21, "powerpc64"),
    (22, "s390x"),
    (40, "arm"),
    (62, "x86_64"),
    (183, "aarch64"),
    (243, "riscv64"),
    (258, "loongarch64"),
];

/// Why the command does not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExecError {
    exit: Exit,
    errno: u8,
    /// May hold bytes of a file or of the command's name.
    why: String,
}

impl ExecError {
    /// How bowout exits because of it.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// The number of the error (errno(3)).
    pub(crate) fn errno(&self) -> i32 {
        self.errno.into()
    }

    /// Explains the `error` of execve(2) of these `candidates` for `command`.
    #[cold]
    pub(super) fn new(error: Errno, command: &OsStr, candidates: &[CString]) -> Self {
        let mut paths = candidates
            .iter()
            .map(|path| Path::new(OsStr::from_bytes(path.to_bytes())));
        let find = |test: fn(&Path) -> bool| paths.clone().find(|path| test(path));
        let error = match error {
            Errno::ENOTDIR => Errno::ENOENT,
            // The kernel reports EACCES for a directory as well, and chmod does not help there.
            Errno::EACCES if find(Path::is_file).is_none() && find(Path::is_dir).is_some() => {
                Errno::EISDIR
            }
            error => error,
        };
        let (found, plain) = (find(Path::exists), error.desc());
        let exit = if error == Errno::ENOENT && found.is_none() {
            Exit::NOT_FOUND
        } else {
            Exit::CANNOT_RUN
        };
        let may_not_run = |path: &&Path| path.metadata().is_ok_and(|it| it.mode() & 0o111 == 0);
        let hint = match error {
            Errno::ENOENT if command.as_bytes().contains(&b' ') => {
                Some("; to run a shell command line, write sh -c '...'".into())
            }
            Errno::EACCES => find(Path::is_file)
                .filter(may_not_run)
                .map(|path| format!("; make it executable: chmod +x {}", quote(path))),
            Errno::ENOEXEC => paths
                .find_map(|path| foreign(&head(path)?.1))
                .map(|foreign| format!(": {foreign}")),
            _ => None,
        };
        let why = match found {
            Some(path) if error == Errno::ENOENT => missing_interpreter(path),
            _ => plain.to_owned() + &hint.unwrap_or_default(),
        };
        Self {
            exit,
            errno: error as u8,
            why,
        }
    }

    /// The message through the pipe.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut message = [&[self.exit.number(), self.errno], self.why.as_bytes()].concat();
        message.truncate(MESSAGE);
        message
    }

    /// The child's message; `None` if it sent none.
    pub(in crate::sys) fn receive(
        read: impl FnOnce(&mut [u8]) -> nix::Result<usize>,
    ) -> nix::Result<Option<Self>> {
        let mut message = [0; MESSAGE];
        let length = read(&mut message)?;
        let [exit, errno, ref why @ ..] = message[..length] else {
            return Ok(None);
        };
        let why = String::from_utf8_lossy(why).into_owned();
        Ok(Some(Self {
            exit: Exit::Code(exit),
            errno,
            why,
        }))
    }
}

impl fmt::Display for ExecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

/// True if a file that the kernel cannot execute is text for /bin/sh, as shells decide: its first
/// line holds no NUL byte.
pub(super) fn is_text(path: &Path) -> bool {
    // A file that may be executed but not read is left to /bin/sh, as by execvp(3).
    head(path).is_none_or(|(_, head)| looks_like_text(&head))
}

fn looks_like_text(head: &[u8]) -> bool {
    head.iter()
        .take(SAMPLE)
        .find(|&&byte| byte == b'\n' || byte == 0)
        != Some(&0)
}

/// The beginning of a file. The open does not block, even if the file became a FIFO meanwhile.
fn head(path: &Path) -> Option<(File, Vec<u8>)> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .ok()?;
    let mut head = vec![0; HEAD];
    let length = file.read_at(&mut head, 0).ok()?;
    head.truncate(length);
    Some((file, head))
}

/// Names the interpreter that does not exist, of those that a file needs.
fn missing_interpreter(path: &Path) -> String {
    let next = |path: &PathBuf| Some(PathBuf::from(OsStr::from_bytes(&interpreter(path)?)));
    let chain = std::iter::successors(Some(path.to_owned()), next).take(INTERPRETERS + 1);
    let Some(missing) = chain.skip(1).find(|interpreter| !interpreter.exists()) else {
        return "the interpreter that it names does not exist".into();
    };
    let missing = missing.to_string_lossy();
    let hint = if missing.ends_with('\r') {
        "; its lines end in CR LF, not LF"
    } else {
        ""
    };
    format!("its interpreter '{missing}' does not exist{hint}")
}

/// The program that the kernel runs in place of a file: that of its `#!` line (execve(2)), or the
/// loader of an ELF file (elf(5), `PT_INTERP`).
fn interpreter(path: &Path) -> Option<Vec<u8>> {
    let (file, head) = head(path)?;
    if let Some(line) = head.strip_prefix(b"#!") {
        let mut words = line
            .split(|&byte| byte == b'\n')
            .next()?
            .split(|byte| b" \t".contains(byte));
        return words.find(|word| !word.is_empty()).map(<[u8]>::to_vec);
    }
    // A field is a word wide, 4 or 8 bytes, and follows 2 or 3 others. The kernel has checked that
    // the file has this machine's byte order.
    let word = if head.strip_prefix(b"\x7fELF")?.first() == Some(&2) {
        8
    } else {
        4
    };
    let bytes = |at: u64, length: u64| {
        let mut bytes = vec![0; length as usize];
        file.read_exact_at(&mut bytes, at).ok().map(|()| bytes)
    };
    let number = |at: u64, length: u64| {
        let mut bytes = bytes(at, length)?;
        if cfg!(target_endian = "little") {
            bytes.reverse();
        }
        Some(
            bytes
                .iter()
                .fold(0, |number, &byte| number << 8 | u64::from(byte)),
        )
    };
    // e_phoff, e_phentsize and e_phnum.
    let (table, size, count) = (
        number(24 + word, word)?,
        number(30 + 3 * word, 2)?,
        number(32 + 3 * word, 2)?,
    );
    let is_interp = |at: &u64| number(*at, 4) == Some(u64::from(libc::PT_INTERP));
    let segment = (0..count)
        .map(|i| table.saturating_add(i * size))
        .find(is_interp)?;
    // p_offset and p_filesz.
    let name = bytes(
        number(segment + word, word)?,
        number(segment + 4 * word, word)?.min(HEAD as u64),
    )?;
    Some(CStr::from_bytes_until_nul(&name).ok()?.to_bytes().to_vec())
}

/// The kind of a file that neither the kernel nor a shell can run; `None` if it is text.
fn foreign(head: &[u8]) -> Option<String> {
    let Some(&[_, order, .., first, second]) = head
        .strip_prefix(b"\x7fELF")
        .and_then(|rest| rest.first_chunk::<16>())
    else {
        return (!looks_like_text(head))
            .then(|| "it is neither a program of this machine nor text".into());
    };
    let machine = u16::from_le_bytes(if order == 2 {
        [second, first]
    } else {
        [first, second]
    });
    let here = std::env::consts::ARCH;
    Some(
        match MACHINES.iter().find(|(number, _)| *number == machine) {
            None => format!("it is a program of another machine (ELF machine {machine})"),
            Some((_, name)) if *name == here => "the program is damaged".into(),
            Some((_, name)) => format!("it is a program of {name}, not of {here}"),
        },
    )
}

/// A path as one word of a shell command.
fn quote(path: &Path) -> String {
    let text = path.to_string_lossy();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@%=".contains(c);
    if text.chars().all(is_plain) {
        text.into_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}
