//! One stop request at every moment of the start, and at every moment of the end, to the
//! microsecond.
//!
//! A run waits for its offset without sleeping, checks the phase of bowout, and sends the request
//! at once. The next offset is chosen near those that met the rarest phase, until each phase was
//! met often enough.

use std::hint::spin_loop;
use std::time::{Duration, Instant};

use crate::bare::{Bare, Explained, Line};
use crate::common::{Home, homes, not_root, size, skip};

const TERM: i32 = libc::SIGTERM;

/// Pseudo-random numbers, the same ones each time (xorshift64).
pub struct Lot(pub u64);

impl Lot {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit.max(1)
    }
}

/// The offsets, in nanoseconds, that have met each phase.
struct Sweep<const PHASES: usize> {
    names: [&'static str; PHASES],
    met: [Vec<u64>; PHASES],
    lot: Lot,
}

impl<const PHASES: usize> Sweep<PHASES> {
    fn new(names: [&'static str; PHASES]) -> Self {
        Self {
            names,
            met: std::array::from_fn(|_| Vec::new()),
            lot: Lot(0x9E37_79B9_7F4A_7C15),
        }
    }

    fn least(&self) -> usize {
        (0..PHASES)
            .min_by_key(|phase| self.met[*phase].len())
            .expect("a phase")
    }

    /// The next offset: near one of the last that met the rarest phase, and at times anywhere.
    fn offset(&mut self) -> Duration {
        let met = &self.met[self.least()];
        let near = met
            .len()
            .checked_sub(1 + self.lot.below(met.len().min(32) as u64) as usize)
            .map(|at| met[at]);
        let nanos = match near {
            Some(near) if self.lot.below(8) > 0 => near * 3 / 4 + self.lot.below(near / 2 + 20_000),
            Some(_) | None => self.lot.below(4_000_000),
        };
        Duration::from_nanos(nanos)
    }

    /// Runs until every phase was met `often` times; `run` returns the phase.
    fn until_met(&mut self, often: usize, home: Home, mut run: impl FnMut(Duration) -> usize) {
        let mut runs = 0_usize;
        while self.met[self.least()].len() < often {
            let offset = self.offset();
            let phase = run(offset);
            self.met[phase].push(offset.as_nanos() as u64);
            runs += 1;
            let missing = self.names[self.least()];
            assert!(
                runs < often * PHASES * 20,
                "{home:?}: {missing:?} is not met"
            );
        }
        for (name, met) in self.names.iter().zip(&self.met) {
            let (first, last) = (
                met.iter().min().expect("met"),
                met.iter().max().expect("met"),
            );
            println!(
                "{home:?}: {:6} requests {name}, {} to {} us",
                met.len(),
                first / 1000,
                last / 1000
            );
        }
    }
}

pub fn spin_until(at: Instant) {
    while Instant::now() < at {
        spin_loop();
    }
}

/// The current phase of bowout.
fn phase(bare: &Bare) -> usize {
    match bare.child() {
        Some((_, name)) if name.starts_with("probe") => 3,
        Some(_) => 2,
        None if bare.blocks(TERM) => 1,
        None => 0,
    }
}

#[test]
fn a_stop_request_at_any_moment_of_the_start_is_not_lost() {
    if skip(not_root()) {
        return;
    }
    for home in homes() {
        let line = Line::probe(home, &["signals", "--exit", "TERM:7"]);
        let names = [
            "before main",
            "before the fork",
            "before the exec",
            "behind the exec",
        ];
        let mut early = 0;
        Sweep::new(names).until_met(size(25, 2_500), home, |offset| {
            let mut bare = line.start();
            spin_until(bare.at + offset);
            let phase = phase(&bare);
            bare.kill(TERM);
            let what = format!("{home:?}, {} after {offset:?}", names[phase]);
            if phase == 0 && home == Home::Pid1 {
                // The kernel does not deliver to PID 1 a signal that it neither blocks nor handles.
                // A process that sends that early has to send again.
                if bare.see("ready") && bare.try_wait().is_none() {
                    bare.kill(TERM);
                }
            }
            let explained = bare.assert_explained(&what);
            assert_ne!(
                explained,
                Explained::Exited { asked: false },
                "{what}: {}",
                bare.text()
            );
            assert!(
                explained != Explained::BeforeMain || phase == 0,
                "{what}: lost"
            );
            early += usize::from(explained == Explained::BeforeMain);
            phase
        });
        println!("{home:?}: {early} ended bowout before its main");
    }
}

#[test]
fn a_stop_request_at_any_moment_of_the_end_changes_no_status() {
    if skip(not_root()) {
        return;
    }
    for home in homes() {
        let line = Line::probe(home, &["eof", "7"]);
        let names = ["before the child's end", "before bowout's end", "behind it"];
        let mut killed = 0;
        Sweep::new(names).until_met(size(30, 3_334), home, |offset| {
            let mut bare = line.start();
            assert!(bare.see("ready"));
            bare.end_stdin();
            spin_until(Instant::now() + offset);
            let state = |pid| crate::common::leftovers::stat(pid).map_or('X', |stat| stat.state);
            let phase = match (state(bare.pid), bare.child()) {
                ('Z' | 'X', _) => 2,
                (_, Some((child, _))) if !"ZX".contains(state(child)) => 0,
                (_, Some(_) | None) => 1,
            };
            bare.kill(TERM);
            let what = format!("{home:?}, {} after {offset:?}", names[phase]);
            let explained = bare.assert_explained(&what);
            assert_ne!(explained, Explained::BeforeMain, "{what}");
            assert!(
                explained != Explained::Killed || phase == 0,
                "{what}: {}",
                bare.text()
            );
            killed += usize::from(explained == Explained::Killed);
            phase
        });
        println!("{home:?}: {killed} reached the child before its end");
    }
}
