//! The simulated kernel, as bowout calls it.

use std::cell::{RefCell, RefMut};
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::panic::resume_unwind;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::scene::Nature;
use super::world::{Change, Owner, Pid, Proc, State, Time, World};
use crate::exit::Usage;
use crate::process::NamedProcess;
use crate::sender::Side;
use crate::signal::Signal;
use crate::sys::child::Child;
use crate::sys::kernel::{Kernel, To};
use crate::sys::proc::Process;
use crate::sys::signals::Batch;
use crate::sys::spawn::Spawn;
use crate::sys::waitid::{Ask, Ended, Report};

/// The reasons for which bowout's code ends between two calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// SIGKILL to this process.
    Killed,
    /// The process waits for ever.
    Stuck,
}

/// The kernel, for one process of bowout.
#[derive(Clone, Debug)]
pub(super) struct Simulated {
    pub(super) world: Rc<RefCell<World>>,
    pub(super) bowout: Pid,
    pub(super) origin: Instant,
    pub(super) command: Nature,
    pub(super) has_pins: bool,
    pub(super) has_group_pins: bool,
}

/// errno(3): the only errors that are simulated.
const ESRCH: i32 = 3;
const EPERM: i32 = 1;
const EAGAIN: i32 = 11;
const EINVAL: i32 = 22;
const EMFILE: i32 = 24;

fn error<T>(number: i32) -> io::Result<T> {
    Err(io::Error::from_raw_os_error(number))
}

impl Simulated {
    /// Plays the events that are due before a call, and then takes the call.
    fn call(&self) -> RefMut<'_, World> {
        let mut world = self.world.borrow_mut();
        world.call();
        self.cut(&world);
        world
    }

    fn cut(&self, world: &World) {
        if world.kill_now == Some(self.bowout) {
            resume_unwind(Box::new(Cut::Killed));
        }
    }

    fn time(&self, at: Instant) -> Time {
        at.saturating_duration_since(self.origin).as_micros() as Time
    }

    fn send_one(world: &mut World, pid: Pid, signal: Signal) -> io::Result<()> {
        let Some(process) = world.processes.get(&pid).cloned() else {
            return error(ESRCH);
        };
        let (now, is_child) = (world.now, pid == world.child);
        world.judge.asks(now, signal, is_child);
        if process.nature.denied {
            return error(EPERM);
        }
        let sees = world.has_proc && world.has_lists && !process.nature.hidden;
        world
            .judge
            .sends(now, pid, &process, (signal, is_child), sees);
        world.note(&format!("bowout sends {signal} to {pid}"));
        world.at(pid).received.push((now, signal));
        world.take(pid, signal);
        Ok(())
    }

    fn send_all(
        world: &mut World,
        signal: Signal,
        is_sent: impl Fn(Pid, &Proc) -> bool,
    ) -> io::Result<()> {
        let all = world.processes.iter();
        let members: Vec<_> = all
            .filter(|(pid, process)| is_sent(**pid, process))
            .map(|(&pid, _)| pid)
            .collect();
        let mut result = error(ESRCH);
        for pid in members {
            let sent = Self::send_one(world, pid, signal);
            if result.is_err() {
                result = sent;
            }
        }
        result
    }
}

impl Kernel for Simulated {
    type Pin = (Pid, u64);
    type Intake = File;

    fn wait(
        &self,
        deadline: Option<Instant>,
        readable: &[BorrowedFd<'_>],
        _: Option<BorrowedFd<'_>>,
    ) {
        let mut world = self.call();
        let deadline = deadline.map(|deadline| self.time(deadline));
        let (now, child) = (world.now, world.child);
        let child_lives = world.processes.get(&child).is_some_and(Proc::lives);
        world.judge.waits(now, deadline, child_lives);
        let looks = !readable.is_empty();
        while !world.pass_time(self.bowout, deadline, looks) {
            if world.judge.last_request_sent {
                resume_unwind(Box::new(Cut::Stuck));
            }
            world.judge.last_request_sent = true;
            world.signal_bowout(Signal::TERM, Side::Outside, None);
        }
        self.cut(&world);
    }

    fn clock(&self) -> Instant {
        self.origin + Duration::from_micros(self.call().now)
    }

    fn signals(&self, _: &File) -> Batch {
        self.call().take_inbox(self.bowout)
    }

    fn spawn(&self, spawn: &Spawn<'_>, last: impl FnOnce()) -> io::Result<Child> {
        last();
        let pid = self.call().start(spawn.stands_in, self.command);
        pid.map_or_else(|| error(EAGAIN), |pid| Ok(Child::adopted(pid)))
    }

    fn look(&self, pid: Option<Pid>, ask: Ask) -> Report {
        let mut world = self.call();
        let children = world.children(self.bowout, pid);
        if ask != Ask::Continued && world.take_trap(&children) {
            return Report::Released;
        }
        let zombie = children
            .iter()
            .find_map(|&pid| match world.processes[&pid].state {
                State::Zombie(exit) => Some(Ended {
                    pid,
                    exit,
                    core: false,
                }),
                State::Runs | State::Stopped => None,
            });
        let is_dead = |pid: &Pid| !world.processes[pid].lives();
        match ask {
            Ask::Exit if zombie.is_some() => Report::Exited(zombie.expect("a zombie")),
            Ask::Exit if children.is_empty() => Report::NoChild,
            Ask::Change | Ask::Continued | Ask::Living if children.iter().all(is_dead) => {
                Report::NoChild
            }
            Ask::Exit | Ask::Living => Report::Nothing,
            Ask::Change | Ask::Continued => {
                let change = pid.and_then(|pid| world.change_of(pid, ask == Ask::Change));
                match change {
                    Some(Change::Stopped(signal)) if ask == Ask::Change => Report::Stopped(signal),
                    Some(Change::Continued) => Report::Continued,
                    Some(Change::Stopped(_)) | None => Report::Nothing,
                }
            }
        }
    }

    fn reap(&self, pid: Pid) -> Usage {
        let mut world = self.call();
        let reaped = world.processes.remove(&pid);
        if world.child == pid {
            // Another process may get the number from now on.
            world.child = 0;
        }
        if reaped.is_none_or(|reaped| reaped.lives() || reaped.parent != self.bowout) {
            world
                .judge
                .fault(format!("reaped {pid}, which has not exited"));
        }
        Usage::default()
    }

    fn send(&self, to: To<'_, Self::Pin>, signal: Signal, _: Option<u64>) -> io::Result<()> {
        let mut world = self.call();
        let is_pinned = |world: &World, pin: &Self::Pin| {
            world
                .processes
                .get(&pin.0)
                .is_none_or(|now| now.birth == pin.1)
        };
        let bowout = self.bowout;
        match to {
            To::Process(pid) => Self::send_one(&mut world, pid, signal),
            To::Pinned(pin) if is_pinned(&world, pin) => Self::send_one(&mut world, pin.0, signal),
            To::Group(group) => Self::send_all(&mut world, signal, |_, it| it.group == group),
            To::PinnedGroup(_) if !self.has_group_pins => error(EINVAL),
            To::PinnedGroup(pin) if is_pinned(&world, pin) => {
                Self::send_all(&mut world, signal, |_, it| it.group == pin.0)
            }
            To::Pinned(_) | To::PinnedGroup(_) => error(ESRCH),
            To::Everything if bowout != 1 => error(EPERM),
            To::Everything => {
                for pid in world.processes.keys().copied().collect::<Vec<_>>() {
                    let Some(process) = world.processes.get(&pid) else {
                        continue;
                    };
                    if process.owner == Owner::Entered && !process.nature.denied {
                        world.take(pid, signal);
                    } else if pid != bowout {
                        let _ = Self::send_one(&mut world, pid, signal);
                    }
                }
                Ok(())
            }
        }
    }

    fn may_signal(&self, pid: Pid) -> bool {
        self.call()
            .processes
            .get(&pid)
            .is_some_and(|process| !process.nature.denied)
    }

    fn pin(&self, pid: Pid) -> io::Result<Self::Pin> {
        let world = self.call();
        match world.processes.get(&pid) {
            None => error(ESRCH),
            Some(_) if !self.has_pins => error(EMFILE),
            Some(process) => Ok((pid, process.birth)),
        }
    }

    fn ids(&self, pid: Pid) -> Option<(Pid, Pid)> {
        let world = self.call();
        let process = world.processes.get(&pid)?;
        Some((process.group, process.session))
    }

    fn stat(&self, pid: Pid) -> Option<Process> {
        let mut world = self.call();
        world.judge.looks(pid);
        let process = world.processes.get(&pid)?;
        let (owner, hidden) = (process.owner, process.nature.hidden);
        if hidden || !world.has_proc {
            return None;
        }
        world.judge.reads(owner);
        Process::parse(world.stat_text(pid)?.as_bytes())
    }

    fn children(&self, pid: Pid, threads: u64) -> Option<Vec<Pid>> {
        let world = self.call();
        let hidden = world
            .processes
            .get(&pid)
            .is_some_and(|process| process.nature.hidden);
        match (pid == self.bowout, world.has_proc && world.has_lists) {
            (true, false) => None,
            (false, false) => Some(vec![]),
            (false, true) if hidden => Some(vec![]),
            (own, true) => Some(world.children_of(pid, if own { u64::MAX } else { threads })),
        }
    }

    fn processes(&self) -> Option<Vec<Pid>> {
        let world = self.call();
        let listed = world
            .processes
            .iter()
            .filter(|(_, process)| !process.nature.hidden);
        let listed = listed.map(|(&pid, _)| pid).collect();
        world.has_proc.then_some(listed)
    }

    fn count(&self) -> u64 {
        self.call().processes.len() as u64
    }

    fn name(&self, processes: &[Process]) -> Vec<NamedProcess> {
        let name = |process: &Process| NamedProcess {
            pid: process.pid,
            name: process.name.clone(),
            state: process.state,
            waits_in: None,
            age: None,
        };
        processes
            .iter()
            .filter(|process| process.pid > 0)
            .map(name)
            .collect()
    }
}
