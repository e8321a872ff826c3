//! The simulated kernel's side: processes that fork, exit, stop, are re-parented and reuse numbers.
//!
//! Each event is a [`Happening`] of the scene, due after so many calls of bowout or so much time.
//! This module does not know the expected reactions of bowout: `judge` does.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::judge::Judge;
use super::scene::{After, Happening, Nature, Scene, Session};
use crate::exit::Exit;
use crate::sender::{Sender, Side};
use crate::signal::Signal;
use crate::sys::signals::{Batch, Intaken};

pub(super) type Pid = i32;
/// Microseconds since the start.
pub(super) type Time = u64;

pub(super) const MILLISECOND: Time = 1000;
/// The duration of a call.
const CALL: Time = 2;
/// How many calls there are between two forks of a process that forks and exits again and again.
const STRIDE: u64 = 3;

/// Where a process belongs, by its birth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// init, bowout's parent, and the host's other processes.
    System,
    /// A process in bowout's PID namespace that entered it from outside, as with `docker exec`.
    Entered,
    Bowout,
    Bystander,
    Command,
    Hook,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Runs,
    Stopped,
    Zombie(Exit),
}

/// A process.
#[derive(Clone, Debug)]
pub(super) struct Proc {
    pub(super) owner: Owner,
    pub(super) parent: Pid,
    /// The thread of the parent that forked it.
    thread: u64,
    pub(super) group: Pid,
    pub(super) session: Pid,
    /// Distinguishes two processes with one number.
    pub(super) birth: u64,
    pub(super) born: Time,
    pub(super) state: State,
    pub(super) nature: Nature,
    pub(super) threads: u64,
    /// The first thread has exited, and others have not.
    pub(super) headless: bool,
    /// Stopped for its tracer, bowout.
    trapped: bool,
    pending: Vec<Signal>,
    /// A change that was not yet reported to the parent.
    change: Option<Change>,
    /// When it was last stopped, or continued.
    pub(super) last_stop: Option<Time>,
    pub(super) child_faults: u64,
    /// When it got another parent.
    pub(super) orphaned: Option<Time>,
    /// It was stopped when it would have exited.
    exits_later: bool,
    /// SIGKILL waits for the end of state D.
    doomed: bool,
    /// The signals that bowout sent to it, in order.
    pub(super) received: Vec<(Time, Signal)>,
    zombie_since: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Stopped(Signal),
    Continued,
}

impl Proc {
    pub(super) fn lives(&self) -> bool {
        !matches!(self.state, State::Zombie(_))
    }

    /// Its letter in /proc/PID/stat.
    fn letter(&self) -> char {
        match self.state {
            _ if self.headless => 'Z',
            State::Zombie(_) => 'Z',
            State::Runs if self.nature.unkillable => 'D',
            State::Runs => 'S',
            State::Stopped => 'T',
        }
    }
}

/// The pending signals of a process of bowout.
#[derive(Debug, Default)]
struct Inbox {
    signals: Vec<Intaken>,
    children: bool,
    /// A descriptor is readable: the other part of bowout has exited.
    link: bool,
}

/// The effect of a timer on a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Exit,
    Thaw,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) now: Time,
    calls: u64,
    pub(super) processes: BTreeMap<Pid, Proc>,
    next: Pid,
    highest: Pid,
    births: u64,
    plan: VecDeque<(After, Happening)>,
    /// The call, or the time, at which the next step of the plan is due.
    due: (u64, Time),
    timers: BTreeSet<(Time, u64, Timer)>,
    inboxes: BTreeMap<Pid, Inbox>,
    /// The process that supervises.
    pub(super) bowout: Pid,
    /// The process in front of it, with `--guard`.
    pub(super) guard: Option<Pid>,
    pub(super) guard_dies: bool,
    /// False from the supervisor's death until its guard supervises. Signals to the guard wait
    /// until then: the guard's forwarding is below the seam, and would signal a real process.
    pub(super) supervises: bool,
    /// The loop runs.
    pub(super) is_started: bool,
    pub(super) parent: Pid,
    pub(super) child: Pid,
    pub(super) kill_now: Option<Pid>,
    pub(super) has_proc: bool,
    pub(super) has_lists: bool,
    hooks: VecDeque<Nature>,
    pub(super) judge: Judge,
    /// The events so far, shown if the run fails.
    pub(super) history: Vec<String>,
}

impl World {
    pub(super) fn new(scene: &Scene) -> Self {
        let mut world = Self {
            now: 0,
            calls: 0,
            processes: BTreeMap::new(),
            next: 1,
            highest: scene.highest,
            births: 0,
            plan: scene.plan.iter().copied().collect(),
            due: (0, 0),
            timers: BTreeSet::new(),
            inboxes: BTreeMap::new(),
            bowout: 0,
            guard: None,
            guard_dies: false,
            supervises: true,
            is_started: false,
            parent: 0,
            child: 0,
            kill_now: None,
            has_proc: scene.has_proc || !scene.pid1,
            has_lists: scene.has_lists,
            hooks: scene.hooks.iter().copied().collect(),
            judge: Judge::new(scene),
            history: vec![],
        };
        let quiet = Nature::default();
        if !scene.pid1 {
            let init = world.birth(Owner::System, 0, quiet, Session::New);
            world.parent = world.birth(Owner::System, init, quiet, Session::New);
            for _ in 0..scene.strangers {
                world.birth(Owner::System, init, quiet, Session::New);
            }
        }
        let front = world.birth(Owner::Bowout, world.parent, quiet, Session::Group);
        world.bowout = front;
        for nature in &scene.bystanders {
            world.birth(Owner::Bystander, front, *nature, nature.session);
        }
        if scene.guard && !scene.pid1 {
            world.guard = Some(front);
            world.bowout = world.birth(Owner::Bowout, front, quiet, Session::Group);
        }
        world.inboxes.insert(front, Inbox::default());
        world.inboxes.insert(world.bowout, Inbox::default());
        if scene.pid1 {
            for _ in 0..scene.strangers.min(3) {
                world.birth(Owner::Entered, 0, quiet, Session::New);
            }
        }
        world.arm();
        world
    }

    /// Forks the command, or a hook.
    pub(super) fn start(&mut self, is_command: bool, command: Nature) -> Option<Pid> {
        let (owner, nature) = if is_command {
            (Owner::Command, command)
        } else {
            (Owner::Hook, self.hooks.pop_front().unwrap_or(command))
        };
        if self.is_full() {
            return None;
        }
        let pid = self.birth(owner, self.bowout, nature, Session::Group);
        if is_command {
            self.child = pid;
            self.judge.started = self.now;
        } else if let Some(wait) = nature.obeys {
            self.exit_in(pid, wait);
        }
        Some(pid)
    }

    /// The numbers that no new process can get: a group or a session keeps its number while it has
    /// a member.
    fn taken(&self) -> BTreeSet<Pid> {
        let ids = |(&pid, process): (&Pid, &Proc)| [pid, process.group, process.session];
        self.processes.iter().flat_map(ids).collect()
    }

    fn is_full(&self) -> bool {
        // A process takes at most three numbers. With fewer processes than a third of `highest`,
        // there is no need to count.
        3 * self.processes.len() as Pid >= self.highest && self.taken().len() as Pid >= self.highest
    }

    fn birth(&mut self, owner: Owner, parent: Pid, nature: Nature, session: Session) -> Pid {
        let taken = self.taken();
        while taken.contains(&self.next) {
            self.next = if self.next >= self.highest {
                2
            } else {
                self.next + 1
            };
        }
        // Without a list of its own children, bowout calls waitid(2) for each of four million
        // numbers to find a hidden process. Where /proc hides a bystander, bowout cannot know which
        // orphans are the bystander's.
        let hidden = nature.hidden && self.has_lists && owner != Owner::Bystander;
        let nature = Nature { hidden, ..nature };
        let pid = self.next;
        self.next = if pid >= self.highest { 2 } else { pid + 1 };
        self.births += 1;
        let of = self.processes.get(&parent);
        let (group, inherited) = of.map_or((pid, pid), |of| (of.group, of.session));
        let (group, session) = match session {
            Session::New => (pid, pid),
            Session::Group => (pid, inherited),
            Session::Same => (group, inherited),
        };
        let process = Proc {
            owner,
            parent,
            thread: 0,
            group,
            session,
            birth: self.births,
            born: self.now,
            state: State::Runs,
            nature,
            threads: u64::from(nature.threads).max(1),
            headless: false,
            trapped: false,
            pending: vec![],
            change: None,
            last_stop: None,
            child_faults: 0,
            orphaned: None,
            exits_later: false,
            doomed: false,
            received: vec![],
            zombie_since: 0,
        };
        self.processes.insert(pid, process);
        self.note(&format!(
            "{pid} is a {owner:?} of {parent}, group {group}, session {session}"
        ));
        self.judge.met(owner, &nature);
        pid
    }

    /// Counts a call, and plays the events that are due before it.
    pub(super) fn call(&mut self) {
        self.calls += 1;
        self.now += CALL;
        self.run_runners();
        while self.due.0 <= self.calls && self.due.1 <= self.now && !self.plan.is_empty() {
            self.proceed();
        }
        self.fire_timers();
    }

    fn arm(&mut self) {
        self.due = match self.plan.front() {
            Some((After::Calls(calls), _)) => (self.calls + u64::from(*calls), 0),
            Some((After::Milliseconds(wait), _)) => (0, self.now + u64::from(*wait) * MILLISECOND),
            None => (u64::MAX, Time::MAX),
        };
    }

    fn proceed(&mut self) {
        if let Some((_, happening)) = self.plan.pop_front() {
            self.happen(happening);
        }
        self.arm();
    }

    fn fire_timers(&mut self) {
        while let Some(&(at, birth, timer)) = self.timers.first()
            && at <= self.now
        {
            self.timers.pop_first();
            let mut all = self.processes.iter();
            let Some((&pid, _)) = all.find(|(_, process)| process.birth == birth) else {
                continue;
            };
            if !self.processes[&pid].lives() {
                continue;
            }
            match timer {
                Timer::Exit if self.processes[&pid].state == State::Stopped => {
                    self.at(pid).exits_later = true;
                }
                Timer::Exit => self.exit(pid, self.processes[&pid].nature.exit()),
                Timer::Thaw => {
                    let process = self.at(pid);
                    process.nature.unkillable = false;
                    if process.doomed {
                        self.exit(pid, Exit::Signal(Signal::KILL));
                    }
                }
            }
        }
    }

    /// Lets each process of this kind fork its successor and exit.
    fn run_runners(&mut self) {
        if !self.calls.is_multiple_of(STRIDE) {
            return;
        }
        let runs = |process: &Proc| process.nature.runs > 0 && process.state == State::Runs;
        let all = self.processes.iter();
        let runners: Vec<_> = all
            .filter(|(_, process)| runs(process) && process.owner == Owner::Command)
            .map(|(&pid, _)| pid)
            .collect();
        for pid in runners {
            if self.is_full() || pid == self.child {
                continue;
            }
            let of = self.processes[&pid].clone();
            let nature = Nature {
                runs: of.nature.runs - 1,
                ..of.nature
            };
            self.birth(of.owner, pid, nature, Session::Same);
            self.exit(pid, Exit::Code(0));
        }
    }

    pub(super) fn at(&mut self, pid: Pid) -> &mut Proc {
        self.processes.get_mut(&pid).expect("a process")
    }

    /// The process that a step of the plan concerns: a member of the tree, or a bystander.
    fn pick(&self, index: u8) -> Option<Pid> {
        let is_wanted = |process: &&Proc| {
            process.lives()
                && !process.doomed
                && matches!(
                    process.owner,
                    Owner::Command | Owner::Bystander | Owner::Hook
                )
        };
        let count = self.processes.values().filter(is_wanted).count();
        let mut wanted = self
            .processes
            .iter()
            .filter(|(_, process)| is_wanted(process));
        wanted
            .nth(usize::from(index) % count.max(1))
            .map(|(&pid, _)| pid)
    }

    pub(super) fn note(&mut self, what: &str) {
        self.history.push(format!("{:9} {what}", self.now));
    }

    fn happen(&mut self, happening: Happening) {
        self.note(&format!("{happening:?}"));
        match happening {
            Happening::Signal(signal, side, value) => self.signal_bowout(signal, side, value),
            Happening::Stall(wait) => {
                self.now += u64::from(wait) * MILLISECOND;
                self.judge.stalled(u64::from(wait) * MILLISECOND);
            }
            Happening::Freeze(wait) => self.freeze(u64::from(wait) * MILLISECOND),
            Happening::KillSupervisor => {
                let guard = self.guard.filter(|_| self.is_started && !self.guard_dies);
                self.kill_now = guard
                    .filter(|guard| *guard != self.bowout)
                    .map(|_| self.bowout);
            }
            // Only one of the two is killed in a run: the documents state this limit.
            Happening::KillGuard => {
                self.guard_dies = self.guard.is_some_and(|guard| guard != self.bowout);
            }
            Happening::Fork(index, nature) => {
                if let Some(parent) = self.pick(index)
                    && !self.is_full()
                    && self.processes[&parent].state == State::Runs
                {
                    let of = self.processes[&parent].owner;
                    let threads = self.processes[&parent].threads;
                    let pid = self.birth(of, parent, nature, nature.session);
                    self.at(pid).thread = u64::from(index) % threads;
                }
            }
            Happening::Strangers(count) => {
                // Each of them takes a number. On a host, it exits at once; in PID 1's namespace,
                // it stays.
                for _ in 0..count {
                    if !self.is_full() {
                        let parent = i32::from(self.bowout != 1);
                        let owner = if parent == 1 {
                            Owner::System
                        } else {
                            Owner::Entered
                        };
                        let pid = self.birth(owner, parent, Nature::default(), Session::New);
                        if parent == 1 {
                            self.processes.remove(&pid);
                        }
                    }
                }
            }
            other => {
                let (Happening::Exit(index, _)
                | Happening::Die(index, _)
                | Happening::Stop(index)
                | Happening::Continue(index)
                | Happening::Headless(index)
                | Happening::Trap(index)
                | Happening::Reap(index)
                | Happening::Move(index, _)) = other
                else {
                    return;
                };
                if let Some(pid) = self.pick(index) {
                    self.change(pid, other);
                }
            }
        }
    }

    fn change(&mut self, pid: Pid, happening: Happening) {
        let running = self.processes[&pid].state == State::Runs;
        match happening {
            Happening::Exit(_, code) if running => self.exit(pid, Exit::Code(code)),
            Happening::Die(_, signal) => self.take(pid, signal),
            Happening::Stop(_) => self.take(pid, Signal::STOP),
            Happening::Continue(_) => self.take(pid, Signal::CONT),
            Happening::Headless(_) => {
                let process = self.at(pid);
                process.headless = process.threads > 1;
            }
            Happening::Trap(_) if running => {
                let parent = self.processes[&pid].parent;
                if self.inboxes.contains_key(&parent) {
                    self.at(pid).trapped = true;
                    self.report_child(parent);
                }
            }
            Happening::Reap(_) => {
                let zombies: Vec<_> = self
                    .processes
                    .iter()
                    .filter(|(_, process)| process.parent == pid && !process.lives())
                    .map(|(&pid, _)| pid)
                    .collect();
                for zombie in zombies {
                    self.processes.remove(&zombie);
                    self.at(pid).child_faults += 100;
                }
            }
            Happening::Move(_, session) if running && pid != self.child => {
                let leads = self.processes.values().any(|process| process.group == pid);
                let process = self.at(pid);
                match session {
                    Session::New if !leads => (process.group, process.session) = (pid, pid),
                    Session::Group if process.session != pid => process.group = pid,
                    Session::New | Session::Group | Session::Same => {}
                }
            }
            _ => {}
        }
    }

    /// bowout and the whole tree are stopped, as by a freezer.
    fn freeze(&mut self, wait: Time) {
        self.judge.froze(self.now, self.now + wait);
        self.now += wait;
        let timers = std::mem::take(&mut self.timers);
        self.timers = timers
            .into_iter()
            .map(|(at, birth, timer)| (at + wait, birth, timer))
            .collect();
    }

    /// The guard is killed.
    pub(super) fn guard_killed(&mut self) {
        self.guard_dies = false;
        let Some(guard) = self.guard.take() else {
            return;
        };
        self.judge.guard_killed(self.now);
        self.inboxes.remove(&guard);
        self.exit(guard, Exit::Signal(Signal::KILL));
        self.processes.remove(&guard);
        self.inboxes.entry(self.bowout).or_default().link = true;
    }

    /// The supervisor is killed, and the guard supervises from now on.
    pub(super) fn supervisor_killed(&mut self) -> Option<Pid> {
        let (killed, guard) = (self.kill_now.take()?, self.guard?);
        self.judge.supervisor_killed(self.now);
        self.inboxes.remove(&killed);
        self.supervises = false;
        self.bowout = guard;
        self.exit(killed, Exit::Signal(Signal::KILL));
        Some(guard)
    }

    pub(super) fn signal_bowout(&mut self, signal: Signal, side: Side, value: Option<u64>) {
        let pid = match side {
            Side::Outside | Side::Terminal | Side::Parent => 0,
            Side::Manager => self.parent,
            Side::Tree => self.child,
            Side::Process => self
                .processes
                .iter()
                .find(|(_, process)| process.owner == Owner::System && process.parent == 1)
                .map_or(0, |(&pid, _)| pid),
        };
        let sender = Sender {
            kernel: false,
            pid,
            uid: 0,
            exited: false,
        };
        let inbox = self.inboxes.entry(self.bowout).or_default();
        let realtime = signal.number() >= 34;
        let pending = inbox.signals.iter().any(|it| it.signal == signal);
        // A standard signal that is pending is not queued a second time (signal(7)).
        if realtime || !pending {
            inbox.signals.push(Intaken {
                signal,
                sender,
                value: value.filter(|_| realtime),
            });
        }
    }

    pub(super) fn is_readable(&self, bowout: Pid) -> bool {
        self.inboxes.get(&bowout).is_some_and(|inbox| {
            inbox.children || inbox.link || self.supervises && !inbox.signals.is_empty()
        })
    }

    pub(super) fn take_inbox(&mut self, bowout: Pid) -> Batch {
        let Some(inbox) = self.inboxes.get_mut(&bowout) else {
            return Batch::default();
        };
        inbox.signals.sort_by_key(|it| it.signal.number());
        inbox.link = false;
        let signals = if self.supervises {
            std::mem::take(&mut inbox.signals)
        } else {
            vec![]
        };
        let children = std::mem::take(&mut inbox.children);
        let lives = self.processes.get(&self.child).is_some_and(Proc::lives);
        self.judge.received(self.now, &signals, lives);
        Batch { signals, children }
    }

    /// A turn of bowout's loop is over.
    pub(super) fn end_turn(&mut self, lines: &[String]) {
        let child = self.processes.get(&self.child).cloned();
        let number = self.child;
        let is_member = |(pid, process): &(&Pid, &Proc)| {
            process.group == number
                && **pid != number
                && process.lives()
                && process.owner == Owner::Command
        };
        let members = self.processes.iter().filter(is_member);
        let group: Vec<_> = members
            .map(|(&pid, process)| (pid, process.clone()))
            .collect();
        self.judge
            .after_turn(self.now, lines, child.as_ref(), &group);
    }

    fn report_child(&mut self, parent: Pid) {
        if let Some(inbox) = self.inboxes.get_mut(&parent) {
            inbox.children = true;
        }
    }

    fn exit_in(&mut self, pid: Pid, wait: u16) {
        let birth = self.processes[&pid].birth;
        self.timers
            .insert((self.now + u64::from(wait) * MILLISECOND, birth, Timer::Exit));
    }

    /// The new parent of the children that a process leaves: the nearest process above it that
    /// adopts orphans, as each part of bowout does (PR_SET_CHILD_SUBREAPER(2const)).
    fn heir(&self, pid: Pid) -> Pid {
        let mut above = self.processes[&pid].parent;
        while let Some(process) = self.processes.get(&above) {
            if process.owner == Owner::Bowout && process.lives() {
                return above;
            }
            above = process.parent;
        }
        i32::from(self.bowout != 1)
    }

    /// A process exits: its children get another parent.
    pub(super) fn exit(&mut self, pid: Pid, exit: Exit) {
        self.note(&format!("{pid} {exit}"));
        let now = self.now;
        let heir = self.heir(pid);
        let process = self.at(pid);
        (process.state, process.headless, process.threads) = (State::Zombie(exit), false, 1);
        (process.change, process.trapped, process.zombie_since) = (None, false, now);
        let (parent, owner) = (process.parent, process.owner);
        let mut inherits = false;
        for other in self
            .processes
            .values_mut()
            .filter(|other| other.parent == pid)
        {
            (other.parent, other.thread) = (heir, 0);
            other.orphaned = Some(now);
            inherits |= !other.lives() || other.change.is_some();
        }
        if inherits {
            self.report_child(heir);
        }
        self.judge.unsure |= owner == Owner::Bystander;
        let reaps = self.processes.get(&parent).is_none_or(|parent| {
            parent.owner != Owner::Bowout && parent.nature.reaps && parent.lives()
        });
        if reaps || owner == Owner::System || owner == Owner::Entered {
            self.processes.remove(&pid);
            if let Some(parent) = self.processes.get_mut(&parent) {
                parent.child_faults += 100;
            }
        } else {
            self.report_child(parent);
        }
        if pid == self.child && owner == Owner::Command {
            self.judge.child_exited(now, exit);
        }
    }

    /// A signal takes effect.
    pub(super) fn take(&mut self, pid: Pid, signal: Signal) {
        let now = self.now;
        let process = self.at(pid);
        if !process.lives() {
            return;
        }
        match (signal, process.state) {
            (Signal::KILL, _) if process.nature.unkillable => {
                process.doomed = true;
                if let Some(wait) = process.nature.obeys {
                    let birth = process.birth;
                    self.timers
                        .insert((now + u64::from(wait) * MILLISECOND, birth, Timer::Thaw));
                }
            }
            (Signal::KILL, _) => self.exit(pid, Exit::Signal(Signal::KILL)),
            (Signal::CONT, State::Stopped) => {
                process.last_stop = Some(now);
                (process.state, process.change) = (State::Runs, Some(Change::Continued));
                let (parent, pending) = (process.parent, std::mem::take(&mut process.pending));
                let exits = std::mem::take(&mut process.exits_later);
                self.report_child(parent);
                if exits {
                    self.exit_in(pid, 1);
                }
                for signal in pending {
                    self.take(pid, signal);
                }
            }
            (Signal::STOP, State::Runs) => {
                process.last_stop = Some(now);
                (process.state, process.change) = (State::Stopped, Some(Change::Stopped(signal)));
                let parent = process.parent;
                self.report_child(parent);
            }
            (signal, State::Stopped) => process.pending.push(signal),
            (Signal::TERM | Signal::INT | Signal::ABRT, State::Runs) => {
                let heirs = process.nature.heirs;
                if let Some(wait) = process.nature.obeys {
                    for _ in 0..heirs {
                        if !self.is_full() {
                            let owner = self.processes[&pid].owner;
                            let heir = Nature {
                                obeys: Some(5),
                                ..Nature::default()
                            };
                            self.birth(owner, pid, heir, Session::Same);
                        }
                    }
                    self.exit_in(pid, wait);
                }
            }
            // Every other signal is caught.
            (_, State::Runs | State::Zombie(_)) => {}
        }
    }

    /// Lets time pass until this process of bowout has something to read, or until the deadline.
    /// Returns false if no event is left to come.
    pub(super) fn pass_time(&mut self, bowout: Pid, deadline: Option<Time>, looks: bool) -> bool {
        loop {
            if looks && self.is_readable(bowout)
                || deadline.is_some_and(|deadline| deadline <= self.now)
            {
                return true;
            }
            let timer = self.timers.first().map(|timer| timer.0);
            // A step may wait for calls that bowout does not make while it waits: it comes a
            // millisecond later.
            let step = match self.plan.front() {
                Some((After::Calls(_), _)) => Some(self.now + MILLISECOND),
                Some(_) => Some(self.due.1),
                None => None,
            };
            let Some(next) = [timer, step, deadline].into_iter().flatten().min() else {
                return false;
            };
            self.now = self.now.max(next);
            if step == Some(next) {
                self.proceed();
            }
            self.fire_timers();
            if self.kill_now.is_some() || self.guard_dies {
                return true;
            }
        }
    }

    pub(super) fn children_of(&self, parent: Pid, threads: u64) -> Vec<Pid> {
        self.processes
            .iter()
            .filter(|(_, child)| child.parent == parent && child.thread < threads)
            .map(|(&pid, _)| pid)
            .collect()
    }

    /// The children of a part of bowout, as waitid(2) selects them: one, or all.
    pub(super) fn children(&self, bowout: Pid, pid: Option<Pid>) -> Vec<Pid> {
        let is_asked = |&child: &Pid| pid.is_none_or(|pid| pid == child);
        let mut children = self.children_of(bowout, u64::MAX);
        children.retain(is_asked);
        children
    }

    pub(super) fn take_trap(&mut self, children: &[Pid]) -> bool {
        let trapped = children.iter().find(|pid| self.processes[pid].trapped);
        match trapped.copied() {
            Some(pid) => {
                self.at(pid).trapped = false;
                true
            }
            None => false,
        }
    }

    pub(super) fn change_of(&mut self, pid: Pid, take: bool) -> Option<Change> {
        let process = self.processes.get_mut(&pid)?;
        let change = process.change;
        if take {
            process.change = None;
        }
        change
    }

    pub(super) fn stat_text(&self, pid: Pid) -> Option<String> {
        let process = self.processes.get(&pid)?;
        let Proc {
            parent,
            group,
            session,
            child_faults,
            threads,
            birth,
            ..
        } = process;
        let letter = process.letter();
        Some(format!(
            "{pid} (p{birth}) {letter} {parent} {group} {session} 0 0 0 0 {child_faults} 0 0 0 0 0 0 20 0 {threads} 0 {birth}"
        ))
    }

    /// Zombies that bowout has had the time to reap.
    pub(super) fn old_zombies(&self, since: Time) -> Vec<Pid> {
        self.processes
            .iter()
            .filter(|(_, process)| {
                process.parent == self.bowout
                    && !process.lives()
                    && process.zombie_since.max(process.orphaned.unwrap_or(0)) < since
            })
            .map(|(&pid, _)| pid)
            .collect()
    }
}
