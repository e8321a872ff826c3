//! A file system that does not answer. It implements the few messages of FUSE (fuse(4),
//! include/uapi/linux/fuse.h) that lead to the execution of a file, and then falls silent. It is
//! mounted in a mount namespace of the calling thread, and disappears with it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

use crate::common::{Dir, leftovers, watchdog};

const LOOKUP: u32 = 1;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const RELEASE: u32 = 18;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;
/// FORGET and BATCH_FORGET want no answer.
const FORGET: [u32; 2] = [2, 42];

/// The point at which the file system falls silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silent {
    /// At the opening of the file. A signal to the waiting process ends the wait.
    Open,
    /// At the reading of the file, likewise.
    Read,
    /// At the opening, and no signal ends the wait: state D.
    Deaf,
}

/// Requests that wait for an answer.
type Held = Arc<Mutex<Vec<u64>>>;

pub struct Hanging {
    dir: Dir,
    device: File,
    held: Held,
    came: Receiver<i32>,
}

impl Hanging {
    /// The reason why it cannot be mounted, if any.
    pub fn missing() -> Option<String> {
        File::options()
            .read(true)
            .write(true)
            .open("/dev/fuse")
            .err()
            .map(|error| format!("/dev/fuse: {error}"))
    }

    pub fn mount(silent: Silent) -> Self {
        private_mounts();
        let dir = Dir::new();
        let device = File::options()
            .read(true)
            .write(true)
            .open("/dev/fuse")
            .expect("/dev/fuse");
        mount(
            &dir,
            "fuse",
            &format!(
                "fd={},rootmode=40000,user_id=0,group_id=0",
                device.as_raw_fd()
            ),
        );
        let held = Held::default();
        let (tell, came) = channel();
        let server = (device.try_clone().expect("a descriptor"), Arc::clone(&held));
        std::thread::spawn(move || {
            let (mut device, held) = server;
            let mut request = vec![0; 1 << 17];
            // ENODEV: the file system was unmounted.
            while let Ok(length) = device.read(&mut request) {
                if answer(&mut device, &request[..length], silent, &held) {
                    let _ = tell.send(word(&request, 32) as i32);
                }
            }
        });
        Self {
            dir,
            device,
            held,
            came,
        }
    }

    /// The file whose execution hangs.
    pub fn file(&self) -> String {
        self.dir.file("hang").to_str().expect("text").to_owned()
    }

    /// Waits until a child of `parent` hangs in the file.
    pub fn hangs(&self, parent: i32) {
        loop {
            let pid = self
                .came
                .recv_timeout(watchdog())
                .expect("watchdog: nobody asks for the file");
            if leftovers::stat(pid).is_some_and(|stat| stat.parent == parent) {
                return;
            }
        }
    }

    /// Waits until a process hangs in the file.
    pub fn is_asked(&self) {
        let asked = self.came.recv_timeout(watchdog());
        asked.expect("watchdog: no process asks for the file");
    }

    /// Answers all waiting requests with an I/O error.
    pub fn release(&mut self) {
        for unique in self.held.lock().expect("no panic holds it").drain(..) {
            reply(&mut self.device, unique, -libc::EIO, &[]);
        }
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        self.release();
        unmount(&self.dir);
    }
}

/// Gives this thread, and the processes that it starts, mounts that no other thread sees.
pub fn private_mounts() {
    // SAFETY: strings that outlive the call.
    unsafe {
        assert_eq!(
            libc::unshare(libc::CLONE_NEWNS),
            0,
            "{}",
            std::io::Error::last_os_error()
        );
        let null = std::ptr::null();
        libc::mount(
            null,
            c"/".as_ptr(),
            null,
            libc::MS_REC | libc::MS_PRIVATE,
            null.cast(),
        );
    }
}

pub fn mount(dir: &Dir, kind: &str, options: &str) {
    let text = |text: &str| std::ffi::CString::new(text).expect("no NUL");
    let (dir, kind, options) = (
        text(dir.0.to_str().expect("text")),
        text(kind),
        text(options),
    );
    // SAFETY: strings that outlive the call.
    let done = unsafe {
        libc::mount(
            kind.as_ptr(),
            dir.as_ptr(),
            kind.as_ptr(),
            libc::MS_NODEV,
            options.as_ptr().cast(),
        )
    };
    assert_eq!(done, 0, "mount: {}", std::io::Error::last_os_error());
}

pub fn unmount(dir: &Dir) {
    let dir = std::ffi::CString::new(dir.0.to_str().expect("text")).expect("no NUL");
    // SAFETY: a string that outlives the call.
    unsafe { libc::umount2(dir.as_ptr(), libc::MNT_DETACH) };
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// Handles one request. Returns true if it is left without an answer.
fn answer(device: &mut File, request: &[u8], silent: Silent, held: &Held) -> bool {
    let opcode = word(request, 0) >> 32;
    let (opcode, unique, node) = (opcode as u32, word(request, 8), word(request, 16));
    match opcode {
        // FUSE version 7.31, no flags, 4 KiB at a time.
        INIT => reply(
            device,
            unique,
            0,
            &words(&[7, 31, 4096, 0, 0, 4096, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ),
        LOOKUP => reply(
            device,
            unique,
            0,
            &[words(&[2, 0, 0, 0, 0, 0, 0, 0, 0, 0]), attributes(2)].concat(),
        ),
        GETATTR => reply(
            device,
            unique,
            0,
            &[words(&[0; 4]), attributes(node)].concat(),
        ),
        OPEN if silent == Silent::Read => reply(device, unique, 0, &words(&[0; 4])),
        OPEN | READ => {
            held.lock().expect("no panic holds it").push(unique);
            return true;
        }
        INTERRUPT if silent != Silent::Deaf => {
            let asked = word(request, 40);
            let mut held = held.lock().expect("no panic holds it");
            if let Some(at) = held.iter().position(|unique| *unique == asked) {
                held.remove(at);
                reply(device, asked, -libc::EINTR, &[]);
            }
        }
        INTERRUPT => {}
        RELEASE | FLUSH => reply(device, unique, 0, &[]),
        _ if FORGET.contains(&opcode) => {}
        _ => reply(device, unique, -libc::ENOSYS, &[]),
    }
    false
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// `struct fuse_attr`: a directory at the top, a program of 4 KiB in it.
fn attributes(node: u64) -> Vec<u8> {
    let mode = if node == 1 {
        libc::S_IFDIR | 0o755
    } else {
        libc::S_IFREG | 0o755
    };
    words(&[
        node as u32,
        0,
        4096,
        0,
        8,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        mode,
        1,
        0,
        0,
        0,
        4096,
        0,
    ])
}

fn reply(device: &mut File, unique: u64, error: i32, body: &[u8]) {
    let length = 16 + body.len() as u32;
    let head = [
        &length.to_ne_bytes()[..],
        &error.to_ne_bytes(),
        &unique.to_ne_bytes(),
    ]
    .concat();
    // ENOENT is ignored: no process waits for the answer any more.
    let _ = device.write(&[&head, body].concat());
}
