//! Gives bytes to the parsers of input from outside, until one of them contradicts its judge.
//!
//! A target is a test beside its parser (`mod fuzz` there; the text is in this folder). It takes
//! any bytes, and panics where the parser is wrong. `cargo test fuzz` replays the corpus,
//! `tests/fuzz/corpus/TARGET/`. Then it gives a fixed number of pseudo-random changes of the
//! corpus, always the same. This knows nothing of coverage. `bash tests/fuzz/run SECONDS` gives the
//! same targets to libFuzzer, which does: it builds with `--cfg fuzzing` and LLVM's coverage, on
//! the stable compiler.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Gives `target` the corpus of that name, and `inputs` changes of it.
pub(crate) fn fuzz(name: &str, inputs: usize, target: fn(&[u8])) {
    #[cfg(fuzzing)]
    if let Some(args) = std::env::var_os("FUZZ_ARGS") {
        guided::run(&args.to_string_lossy(), target);
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fuzz/corpus")
        .join(name);
    // `cargo package` adds this file, and leaves out the corpus.
    let corpus = if Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml.orig")).exists() {
        vec![Vec::new()]
    } else {
        corpus(&folder)
    };
    assert!(!corpus.is_empty(), "no corpus in {}", folder.display());
    for input in &corpus {
        give(target, input);
    }
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
    for _ in 0..inputs {
        let input = mutate(&corpus, &mut chance);
        give(target, &input);
    }
}

fn corpus(folder: &Path) -> Vec<Vec<u8>> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    files
        .iter()
        .map(|file| std::fs::read(file).unwrap())
        .collect()
}

fn give(target: fn(&[u8]), input: &[u8]) {
    let judged = catch_unwind(AssertUnwindSafe(|| target(input)));
    assert!(
        judged.is_ok(),
        "the input was b\"{}\"",
        input.escape_ascii()
    );
}

/// xorshift64*: the same numbers every time.
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit.max(1)
    }

    pub(crate) fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// Bytes that parsers often read wrong.
const BYTES: &[u8] = b"\0\n\\\t\r \x1b/:+-.,=()@09aZ\x7f\x80\xc3\xff";

/// An input of the corpus with up to four changes.
fn mutate(corpus: &[Vec<u8>], chance: &mut Chance) -> Vec<u8> {
    let mut input = chance.one(corpus).clone();
    for _ in 0..=chance.below(4) {
        let at = chance.below(input.len() + 1);
        let to = (at + chance.below(8)).min(input.len());
        match chance.below(7) {
            0 => input.insert(at, *chance.one(BYTES)),
            1 => drop(input.drain(at..to)),
            2 if at < input.len() => input[at] = *chance.one(BYTES),
            3 if at < input.len() => input[at] ^= 1 << chance.below(8),
            4 => {
                let again = input[at..to].to_vec();
                input.splice(at..at, again);
            }
            5 => {
                let digits = (u64::MAX >> chance.below(64)).to_string();
                input.splice(at..to, digits.into_bytes());
            }
            _ => {
                let other = chance.one(corpus);
                let from = chance.below(other.len() + 1);
                let until = from + chance.below(other.len() - from + 1);
                input.splice(at..to, other[from..until].to_vec());
            }
        }
    }
    input
}

/// A line of the log: it is not empty, and it contains no character that could begin another line
/// or control a terminal.
pub(crate) fn assert_one_line(text: &str) {
    assert!(
        !text.is_empty() && !text.contains(char::is_control),
        "not one line: {text:?}"
    );
}

#[cfg(fuzzing)]
#[allow(unsafe_code, reason = "libFuzzer is C++")]
mod guided {
    use std::ffi::{CString, c_char, c_int};
    use std::sync::OnceLock;

    unsafe extern "C" {
        /// From FuzzerInterface.h of LLVM.
        fn LLVMFuzzerRunDriver(
            argc: *mut c_int,
            argv: *mut *mut *mut c_char,
            target: extern "C" fn(*const u8, usize) -> c_int,
        ) -> c_int;
    }

    static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();

    /// A panic cannot leave this function and aborts, upon which libFuzzer writes the input to a
    /// file.
    extern "C" fn one(data: *const u8, size: usize) -> c_int {
        // SAFETY: libFuzzer passes `size` bytes at `data`, which may be null if there are none.
        let input = if size == 0 {
            &[]
        } else {
            unsafe { std::slice::from_raw_parts(data, size) }
        };
        TARGET.get().expect("set before the first input")(input);
        0
    }

    /// Does not return: libFuzzer ends the process.
    pub(super) fn run(args: &str, target: fn(&[u8])) {
        TARGET.get_or_init(|| target);
        let words: Vec<_> = ["bowout"]
            .into_iter()
            .chain(args.split_whitespace())
            .collect();
        let mut argv: Vec<_> = words
            .iter()
            .map(|word| CString::new(*word).unwrap().into_raw())
            .collect();
        let mut argc = argv.len() as c_int;
        argv.push(std::ptr::null_mut());
        let mut argv = argv.as_mut_ptr();
        // SAFETY: argc C strings and a null pointer, which live as long as the process.
        let status = unsafe { LLVMFuzzerRunDriver(&raw mut argc, &raw mut argv, one) };
        panic!("libFuzzer came back with {status}");
    }
}
