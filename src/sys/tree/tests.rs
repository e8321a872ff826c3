//! The tree on a simulated kernel: processes with parents, groups, sessions and threads that fork,
//! exit, are re-parented, and reuse numbers during a look.

use std::cell::RefCell;
use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::time::Instant;

use nix::errno::Errno;

use super::*;
use crate::exit::Exit;
use crate::process::NamedProcess;
use crate::signal::{Signal, Target};
use crate::sys::child::Child;
use crate::sys::signals::Batch;
use crate::sys::spawn::Spawn;
use crate::sys::waitid::Ended;

const US: libc::pid_t = 100;
const TERM: Signal = Signal::TERM;
const KILL: Signal = Signal::KILL;
const NONE: [libc::pid_t; 0] = [];

/// A simulated process. A thread has an index; a child remembers the thread that forked it.
#[derive(Clone, Debug)]
struct Simulated {
    process: Process,
    thread: u64,
    /// /proc does not show it.
    hidden: bool,
    /// bowout may not signal it (EPERM).
    denied: bool,
    /// In state D: SIGKILL does not end it.
    unkillable: bool,
    /// Without an exit signal: waitid(2) does not show it.
    helper: bool,
}

/// A change that happens once, right before this call about this process.
type Moment = (&'static str, libc::pid_t, fn(&mut World));

#[derive(Debug, Default)]
struct World {
    processes: BTreeMap<libc::pid_t, Simulated>,
    us: libc::pid_t,
    next: libc::pid_t,
    now: u64,
    /// The signals that processes received, in order.
    sent: Vec<(libc::pid_t, Signal)>,
    /// The signals that were sent to every process of the namespace.
    sent_to_all: Vec<Signal>,
    /// How many calls were made that signal a group.
    group_calls: usize,
    /// How many files of /proc were read.
    read: usize,
    moments: Vec<Moment>,
    no_proc: bool,
    no_lists: bool,
}

impl World {
    fn add(&mut self, pid: libc::pid_t, parent: libc::pid_t, ids: (libc::pid_t, libc::pid_t)) {
        self.now += 1;
        let mut process = Process::unread(pid, parent, Some(ids));
        (process.state, process.threads, process.started) = ('S', 1, self.now);
        let simulated = Simulated {
            process,
            thread: 0,
            hidden: false,
            denied: false,
            unkillable: false,
            helper: false,
        };
        self.processes.insert(pid, simulated);
    }

    fn at(&mut self, pid: libc::pid_t) -> &mut Simulated {
        self.processes.get_mut(&pid).expect("a process")
    }

    fn fork(&mut self, parent: libc::pid_t) -> libc::pid_t {
        let of = self.at(parent).process.clone();
        self.next += 1;
        self.add(self.next, parent, (of.group, of.session));
        self.next
    }

    /// A child in a process group of its own.
    fn fork_leader(&mut self, parent: libc::pid_t) -> libc::pid_t {
        let pid = self.fork(parent);
        self.at(pid).process.group = pid;
        pid
    }

    /// A child in a session of its own.
    fn fork_session(&mut self, parent: libc::pid_t) -> libc::pid_t {
        let pid = self.fork_leader(parent);
        self.at(pid).process.session = pid;
        pid
    }

    /// Makes the process a zombie; its children become bowout's.
    fn exit(&mut self, pid: libc::pid_t) {
        self.at(pid).process.state = 'Z';
        for other in self.processes.values_mut() {
            if other.process.parent == pid {
                (other.process.parent, other.thread) = (self.us, 0);
            }
        }
    }

    /// The process exits, and its own parent reaps it.
    fn exit_and_reap(&mut self, pid: libc::pid_t) {
        self.exit(pid);
        let parent = self.at(pid).process.parent;
        self.at(parent).process.child_faults += 100;
        self.processes.remove(&pid);
    }

    fn signal(&mut self, pid: libc::pid_t, signal: Signal) -> io::Result<()> {
        let process = self.processes.get(&pid).ok_or(Errno::ESRCH)?;
        if process.denied {
            return Err(Errno::EPERM.into());
        }
        let dies = signal == KILL && !process.unkillable;
        // A signal to a zombie succeeds without effect.
        if !process.process.is_dead() {
            self.sent.push((pid, signal));
            if dies {
                self.exit(pid);
            }
        }
        Ok(())
    }

    fn signal_group(&mut self, group: libc::pid_t, signal: Signal) -> io::Result<()> {
        self.group_calls += 1;
        let members = self.processes.values();
        let members = members.filter(|member| member.process.group == group);
        let members: Vec<_> = members.map(|member| member.process.pid).collect();
        let results: Vec<_> = members
            .iter()
            .map(|&pid| self.signal(pid, signal))
            .collect();
        let refused = results.last().map_or(Errno::ESRCH, |_| Errno::EPERM);
        let any = results.into_iter().any(|result| result.is_ok());
        if any { Ok(()) } else { Err(refused.into()) }
    }
}

#[derive(Clone, Debug)]
struct Simulation(Rc<RefCell<World>>);

impl Simulation {
    /// Makes the change that is due before this call, and returns the world.
    fn call(&self, call: &'static str, pid: libc::pid_t) -> std::cell::RefMut<'_, World> {
        let mut world = self.0.borrow_mut();
        let due = world
            .moments
            .iter()
            .position(|moment| (moment.0, moment.1) == (call, pid));
        if let Some(due) = due {
            let happens = world.moments.remove(due).2;
            happens(&mut world);
        }
        world
    }
}

impl Kernel for Simulation {
    type Pin = (libc::pid_t, u64);
    type Intake = std::fs::File;

    fn wait(&self, _: Option<Instant>, _: &[BorrowedFd<'_>], _: Option<BorrowedFd<'_>>) {
        unreachable!("the tree waits for nothing");
    }

    fn clock(&self) -> Instant {
        unreachable!("the tree reads no clock");
    }

    fn signals(&self, _: &Self::Intake) -> Batch {
        Batch::default()
    }

    fn spawn(&self, _: &Spawn<'_>, _: impl FnOnce()) -> io::Result<Child> {
        unreachable!()
    }

    fn look(&self, pid: Option<libc::pid_t>, ask: Ask) -> Report {
        let world = self.call("look", pid.unwrap_or_default());
        if pid.is_some_and(|pid| !world.processes.contains_key(&pid)) {
            return Report::NoChild;
        }
        let mut own = world.processes.values().filter(|process| {
            let is_asked = pid.is_none_or(|pid| pid == process.process.pid);
            process.process.parent == world.us && !process.helper && is_asked
        });
        let zombie = own.clone().find(|process| process.process.is_dead());
        match (ask, zombie) {
            (Ask::Exit, Some(zombie)) => Report::Exited(Ended {
                pid: zombie.process.pid,
                exit: Exit::Code(0),
                core: false,
            }),
            (Ask::Living, _) if own.all(|process| process.process.is_dead()) => Report::NoChild,
            (_, None) if own.next().is_none() && ask == Ask::Exit => Report::NoChild,
            (_, _) => Report::Nothing,
        }
    }

    fn reap(&self, pid: libc::pid_t) -> Usage {
        let reaped = self
            .0
            .borrow_mut()
            .processes
            .remove(&pid)
            .expect("a zombie");
        assert_eq!(reaped.process.state, 'Z');
        Usage::default()
    }

    fn send(&self, to: To<'_, Self::Pin>, signal: Signal, _: Option<u64>) -> io::Result<()> {
        let mut world = self.call("send", 0);
        let is_pinned = |world: &World, pin: &Self::Pin| {
            let now = world.processes.get(&pin.0);
            now.is_some_and(|now| now.process.started == pin.1)
        };
        match to {
            To::Process(pid) => world.signal(pid, signal),
            To::Pinned(pin) if is_pinned(&world, pin) => world.signal(pin.0, signal),
            To::Pinned(_) => Err(Errno::ESRCH.into()),
            To::Group(group) | To::PinnedGroup(&(group, _)) => world.signal_group(group, signal),
            To::Everything => {
                world.sent_to_all.push(signal);
                Ok(())
            }
        }
    }

    fn may_signal(&self, pid: libc::pid_t) -> bool {
        let world = self.0.borrow();
        world
            .processes
            .get(&pid)
            .is_some_and(|process| !process.denied)
    }

    fn pin(&self, pid: libc::pid_t) -> io::Result<Self::Pin> {
        let world = self.call("pin", pid);
        let process = world.processes.get(&pid).ok_or(Errno::ESRCH)?;
        Ok((pid, process.process.started))
    }

    fn ids(&self, pid: libc::pid_t) -> Option<(libc::pid_t, libc::pid_t)> {
        let world = self.0.borrow();
        let process = &world.processes.get(&pid)?.process;
        Some((process.group, process.session))
    }

    fn stat(&self, pid: libc::pid_t) -> Option<Process> {
        let mut world = self.call("stat", pid);
        world.read += 1;
        let process = world.processes.get(&pid)?;
        (!world.no_proc && !process.hidden).then(|| process.process.clone())
    }

    fn children(&self, pid: libc::pid_t, threads: u64) -> Option<Vec<libc::pid_t>> {
        let mut world = self.call("children", pid);
        world.read += threads as usize;
        if world.no_proc || (world.no_lists && pid == world.us) {
            return None;
        }
        let children = world.processes.values();
        let children =
            children.filter(|child| child.process.parent == pid && child.thread < threads);
        Some(children.map(|child| child.process.pid).collect())
    }

    fn processes(&self) -> Option<Vec<libc::pid_t>> {
        let world = self.call("processes", 0);
        (!world.no_proc).then(|| world.processes.keys().copied().collect())
    }

    fn count(&self) -> u64 {
        self.0.borrow().processes.len() as u64
    }

    fn name(&self, _: &[Process]) -> Vec<NamedProcess> {
        unreachable!()
    }
}

/// A tree with a child in a group of its own, and the world that it is in.
struct Test {
    world: Rc<RefCell<World>>,
    tree: Tree<Simulation>,
    child: libc::pid_t,
}

impl Test {
    /// `before` changes the world before bowout starts.
    fn at(us: libc::pid_t, before: impl FnOnce(&mut World)) -> Self {
        let mut world = World {
            us,
            next: us,
            ..World::default()
        };
        if us != 1 {
            world.add(1, 0, (1, 1));
            // So many processes that the tree is less to read than all of /proc.
            for stranger in 2..US / 2 {
                world.add(stranger, 1, (1, 1));
            }
        }
        world.add(us, i32::from(us != 1), (us, us));
        before(&mut world);
        let world = Rc::new(RefCell::new(world));
        let mut tree = Tree::new(Simulation(Rc::clone(&world)), us);
        let child = world.borrow_mut().fork_leader(us);
        tree.adopt(child, true);
        Self { world, tree, child }
    }

    fn new() -> Self {
        Self::at(US, |_| ())
    }

    fn world(&self) -> std::cell::RefMut<'_, World> {
        self.world.borrow_mut()
    }

    /// Sends a signal, and returns the processes that received it, in order.
    fn send(&mut self, signal: Signal, to: Target) -> Vec<libc::pid_t> {
        self.world().sent.clear();
        self.tree.signal(signal, None, to);
        self.sent(signal)
    }

    fn sent(&self, signal: Signal) -> Vec<libc::pid_t> {
        let world = self.world();
        let sent = world.sent.iter().filter(|sent| sent.1 == signal);
        let mut sent: Vec<_> = sent.map(|sent| sent.0).collect();
        sent.sort_unstable();
        if signal == KILL {
            sent.dedup();
        }
        sent
    }

    fn exit(&mut self, pid: libc::pid_t) {
        self.world().exit(pid);
        self.tree.reap(pid);
    }

    fn members(&mut self) -> Vec<libc::pid_t> {
        let members = self.tree.members().expect("/proc");
        members.iter().map(|process| process.pid).collect()
    }
}

#[test]
fn each_process_is_asked_once_and_a_late_one_when_it_is_bowouts_own() {
    for us in [1, US] {
        let mut test = Test::at(us, |_| ());
        let child = test.child;
        let daemon = test.world().fork_session(child);
        let below = test.world().fork(daemon);
        assert_eq!(test.send(TERM, Target::Unasked), [child, daemon, below]);
        assert!(!test.tree.has_unasked_child(TERM));
        // A process that the daemon forks to clean up.
        let late = test.world().fork(daemon);
        assert!(!test.tree.has_unasked_child(TERM));
        assert_eq!(test.send(TERM, Target::NewChildren), NONE);
        // An orphan that was sent the signal is not sent it again.
        test.world().exit_and_reap(daemon);
        assert!(test.tree.has_unasked_child(TERM));
        assert_eq!(test.send(TERM, Target::NewChildren), [late], "{us}");
        assert!(!test.tree.has_unasked_child(TERM));
        assert_eq!(test.send(TERM, Target::NewChildren), NONE);
        assert_eq!(test.send(TERM, Target::Unasked), NONE);
        // Another signal is sent to each process again, except after SIGKILL.
        assert_eq!(
            test.send(Signal::QUIT, Target::Unasked),
            [child, below, late]
        );
        test.world().at(child).unkillable = true;
        assert_eq!(test.send(KILL, Target::Child), [child]);
        assert_eq!(test.send(Signal::INT, Target::Unasked), [below, late]);
        assert_eq!(test.send(TERM, Target::All), [child, below, late]);
    }
}

#[test]
fn a_group_is_signalled_by_one_call_unless_a_member_is_left_out() {
    let mut test = Test::new();
    let child = test.child;
    let member = test.world().fork(child);
    let other = test.world().fork_session(member);
    let tally = test.tree.signal(TERM, None, Target::All);
    assert_eq!((tally.reached.len(), test.world().group_calls), (3, 1));
    assert_eq!(test.sent(TERM), [child, member, other]);
    let late = test.world().fork(child);
    assert_eq!(test.send(TERM, Target::Unasked), [late]);
    assert_eq!(test.world().group_calls, 1);
    // A member that refuses the signal is counted, though the call to the group succeeds.
    test.world().at(member).denied = true;
    let tally = test.tree.signal(Signal::QUIT, None, Target::All);
    assert_eq!((tally.reached.len(), tally.refused.len()), (3, 1));
    assert_eq!(tally.refused[0].0.pid, member);
    // After the child is reaped, the pin leads to its group.
    test.exit(child);
    test.world().group_calls = 0;
    assert_eq!(test.send(Signal::HUP, Target::All), [other, late]);
    assert_eq!(test.world().group_calls, 1);
    let tally = test.tree.signal(TERM, None, Target::Child);
    assert_eq!((tally.reached.len(), tally.refused.len()), (0, 1));
}

#[test]
fn a_group_that_bowout_shares_is_signalled_member_by_member() {
    let mut test = Test::new();
    test.tree.adopt(test.child, false);
    test.world().at(test.child).process.group = US;
    let member = test.world().fork(test.child);
    let other = test.world().fork_session(test.child);
    assert_eq!(test.send(TERM, Target::Group), [test.child, member]);
    assert_eq!(test.send(TERM, Target::Others), [other]);
    assert_eq!(test.world().group_calls, 0);
}

#[test]
fn a_hook_and_the_helper_are_passed_over() {
    let mut test = Test::new();
    let hook = test.world().fork_leader(US);
    let below = test.world().fork(hook);
    let helper = test.world().fork(US);
    test.world().at(helper).helper = true;
    test.tree.spare(hook);
    assert_eq!(test.send(TERM, Target::All), [test.child]);
    assert_eq!(test.send(KILL, Target::All), [test.child]);
    test.tree.reap(test.child);
    assert!(test.tree.is_empty());
    // The descendants that the hook leaves belong to the tree.
    test.exit(hook);
    assert_eq!(test.members(), [below]);
}

#[test]
fn a_bystander_and_its_descendants_are_never_signalled() {
    let mut tee = 0;
    let mut test = Test::at(US, |world| tee = world.fork(US));
    let child = test.child;
    let gzip = test.world().fork(tee);
    assert_eq!(test.members(), [child]);
    // A look found `gzip` before its parent exited: it stays a bystander.
    test.exit(tee);
    assert_eq!(test.send(TERM, Target::All), [child]);
    assert_eq!(test.send(KILL, Target::All), [child]);
    test.tree.reap(child);
    assert!(test.tree.is_empty() && test.tree.has_bystanders());
    // The last bystander has exited: a new orphan descends from the command.
    test.exit(gzip);
    assert!(!test.tree.has_bystanders());
    let orphan = test.world().fork(US);
    assert_eq!(test.send(TERM, Target::All), [orphan]);
}

/// `orphan` makes an orphan below a bystander, and no look has found it before its parent exits.
/// Returns true if SIGKILL is sent to it.
fn orphan_of_bystander(orphan: impl FnOnce(&mut World, libc::pid_t) -> libc::pid_t) -> bool {
    let mut tee = 0;
    let mut test = Test::at(US, |world| tee = world.fork(US));
    assert_eq!(test.members(), [test.child]);
    let orphan = orphan(&mut test.world(), tee);
    assert_eq!(test.world().at(orphan).process.parent, US);
    if test.world().at(tee).process.state == 'Z' {
        test.tree.reap(tee);
    }
    test.send(KILL, Target::All).contains(&orphan)
}

#[test]
fn a_bystanders_orphan_that_was_never_seen_is_not_signalled() {
    // It is recognised by its group, by the exit of its parent, and by the page faults of a
    // grandparent that reaped its parent.
    assert!(!orphan_of_bystander(|world, tee| {
        let (between, orphan) = (world.fork(tee), world.next + 1);
        world.fork(between);
        world.exit(between);
        orphan
    }));
    assert!(!orphan_of_bystander(|world, tee| {
        let orphan = world.fork_session(tee);
        world.exit(tee);
        orphan
    }));
    assert!(!orphan_of_bystander(|world, tee| {
        let between = world.fork(tee);
        let orphan = world.fork_session(between);
        world.exit_and_reap(between);
        orphan
    }));
}

#[test]
fn the_commands_orphans_are_found_beside_bystanders() {
    let mut tee = 0;
    let mut test = Test::at(US, |world| tee = world.fork(US));
    let child = test.child;
    // No look has found the daemon before. No bystander can have left it, because none exited.
    let daemon = test.world().fork_session(child);
    let member = test.world().fork(child);
    test.exit(child);
    assert_eq!(test.members(), [daemon, member]);
    // When a bystander exits at the same time, they are recognised by the group and by the session.
    let group = test.world().fork(member);
    let below = test.world().fork_leader(daemon);
    test.world().exit_and_reap(member);
    test.world().exit_and_reap(daemon);
    let doubtful = test.world().fork_session(US);
    test.exit(tee);
    assert_eq!(test.send(KILL, Target::All), [group, below]);
    assert!(test.tree.has_bystanders());
    test.exit(doubtful);
    assert!(!test.tree.has_bystanders());
}

#[test]
fn a_number_that_is_another_process_by_now_is_not_signalled() {
    // Another process gets the number between the pass and the signal.
    let mut test = Test::new();
    let child = test.child;
    let below = test.world().fork_session(child);
    test.world().moments.push(("pin", below, |world| {
        let pid = world.next;
        world.exit_and_reap(pid);
        world.add(pid, 1, (pid, pid));
    }));
    assert_eq!(test.send(TERM, Target::All), [child]);
    // Another process gets a parent's number between the reads of the parent's stat and of its list
    // of children.
    let mut test = Test::new();
    let child = test.child;
    let below = test.world().fork_session(child);
    test.world().moments.push(("children", below, |world| {
        let pid = world.next;
        world.exit_and_reap(pid);
        world.add(pid, 1, (pid, pid));
        world.fork(pid);
    }));
    assert_eq!(test.send(KILL, Target::All), [child]);
    // A signal to the process that had the number before does not count for the present one.
    let mut test = Test::new();
    let child = test.child;
    let below = test.world().fork_session(child);
    assert_eq!(test.send(TERM, Target::Unasked), [child, below]);
    test.world().exit_and_reap(below);
    test.world().add(below, US, (below, below));
    assert!(test.tree.has_unasked_child(TERM));
    assert_eq!(test.send(TERM, Target::NewChildren), [below]);
}

#[test]
fn a_process_forked_or_re_parented_during_a_pass_is_found() {
    for us in [1, US] {
        for signal in [TERM, KILL] {
            let mut test = Test::at(us, |_| ());
            let child = test.child;
            let below = test.world().fork_session(child);
            // A process is forked after the list of its parent's children was read.
            test.world().moments.push(("stat", below, |world| {
                let parent = world.at(world.next).process.parent;
                world.fork_session(parent);
            }));
            let found = test.send(signal, Target::All);
            assert_eq!(found, [child, below, below + 1], "{us} {signal}");
            // The parent exits after bowout's own children were listed.
            let mut test = Test::at(us, |_| ());
            let child = test.child;
            let below = test.world().fork_session(child);
            test.world().moments.push(("stat", child, |world| {
                let child = world.at(world.next).process.parent;
                world.exit(child);
            }));
            assert_eq!(test.send(signal, Target::All), [below], "{us} {signal}");
        }
    }
}

#[test]
fn the_whole_namespace_is_killed_only_where_it_is_bowouts_and_something_outlived_a_pass() {
    let all = |test: &mut Test| {
        for _ in 0..2 {
            test.send(KILL, Target::All);
        }
        test.world().sent_to_all.len()
    };
    let unkillable = |us, before: fn(&mut World)| {
        let test = Test::at(us, before);
        test.world().at(test.child).unkillable = true;
        test
    };
    assert_eq!(all(&mut Test::at(1, |_| ())), 0, "one pass was enough");
    assert_eq!(
        all(&mut unkillable(1, |_| ())),
        1,
        "the second pass found it"
    );
    assert_eq!(all(&mut unkillable(US, |_| ())), 0, "not PID 1");
    assert_eq!(
        all(&mut unkillable(1, |world| assert_eq!(world.fork(1), 2))),
        0,
        "a bystander"
    );
    let mut test = unkillable(1, |_| ());
    let hook = test.world().fork_leader(1);
    test.tree.spare(hook);
    assert_eq!(all(&mut test), 0, "a hook");
    let mut test = unkillable(1, |_| ());
    test.send(TERM, Target::All);
    assert_eq!(test.world().sent_to_all, [], "only SIGKILL");
}

#[test]
fn a_look_costs_what_the_tree_costs() {
    let cost = |strangers: usize, threads: u64, lists: bool| {
        let mut test = Test::new();
        for _ in 0..strangers {
            test.world().fork(1);
        }
        for _ in 0..4 {
            let below = test.world().fork(test.child);
            test.world().at(below).process.threads = threads;
        }
        test.world().no_lists = !lists;
        test.world().read = 0;
        assert_eq!(test.members().len(), 5);
        test.world().read
    };
    assert_eq!(cost(50, 1, true), cost(5000, 1, true));
    // By threads it is 4 lists of each process, or one file of each process of the system.
    assert!(cost(5000, 300, true) < 3000);
    assert!(cost(50, 300, true) < 250);
    assert!(cost(5000, 1, false) > 5000, "without lists");
}

#[test]
fn the_children_of_every_thread_are_found() {
    let mut test = Test::new();
    let child = test.child;
    for _ in 0..50 {
        test.world().fork(1);
    }
    let below = test.world().fork(child);
    test.world().at(below).thread = 2;
    test.world().at(child).process.threads = 3;
    assert_eq!(test.members(), [child, below]);
    // The first thread has exited, and the others go on.
    test.world().at(below).process.threads = 2;
    test.world().at(below).process.state = 'Z';
    assert_eq!(test.send(TERM, Target::All), [child, below]);
}

#[test]
fn a_process_that_proc_hides_is_found_as_bowouts_child() {
    for us in [1, US] {
        let mut test = Test::at(us, |_| ());
        let child = test.child;
        let hidden = test.world().fork_session(child);
        let below = test.world().fork(hidden);
        test.world().at(hidden).hidden = true;
        assert_eq!(test.members(), [child]);
        test.exit(child);
        assert_eq!(test.members(), [hidden, below]);
        assert_eq!(test.send(TERM, Target::Unasked), [hidden, below]);
        assert_eq!(test.send(TERM, Target::Unasked), NONE);
        // Without a list of bowout's children, a look cannot find which process lives.
        test.world().processes.remove(&below);
        test.world().no_lists = true;
        assert!(test.tree.members().is_none() && !test.tree.is_empty());
    }
}

#[test]
fn without_proc_bowouts_children_are_signalled_and_as_pid_1_the_namespace() {
    let mut test = Test::new();
    let child = test.child;
    test.world().no_proc = true;
    let below = test.world().fork_session(child);
    assert_eq!(test.send(TERM, Target::Unasked), [child]);
    assert!(test.tree.has_unasked_child(TERM));
    assert_eq!(test.send(TERM, Target::NewChildren), NONE);
    test.exit(child);
    assert_eq!(test.send(TERM, Target::NewChildren), [below]);
    assert_eq!(test.send(KILL, Target::All), [below]);

    let mut test = Test::at(1, |_| ());
    test.world().no_proc = true;
    test.send(TERM, Target::Unasked);
    test.send(TERM, Target::NewChildren);
    test.send(KILL, Target::All);
    assert_eq!(test.world().sent_to_all, [TERM, KILL]);
}

#[test]
fn without_proc_a_bystander_is_known_from_the_start() {
    for us in [1, US] {
        let mut bystander = 0;
        let mut test = Test::at(us, |world| {
            bystander = world.fork_leader(us);
            world.no_proc = true;
        });
        let child = test.child;
        assert_eq!(test.send(TERM, Target::Unasked), [child], "{us}");
        assert_eq!(test.send(KILL, Target::All), [child], "{us}");
        assert_eq!(test.world().sent_to_all, []);
    }
}

#[test]
fn only_stopped_processes_see_sigcont() {
    let mut test = Test::new();
    let child = test.child;
    let stopped = test.world().fork(child);
    let session = test.world().fork_session(child);
    test.world().at(stopped).process.state = 'T';
    test.world().at(session).process.state = 'T';
    let tally = test.tree.signal(TERM, None, Target::All);
    test.tree.wake_reached(&tally);
    assert_eq!(test.sent(Signal::CONT), [stopped, session]);
    test.world().sent.clear();
    assert!(test.tree.wake_group());
    assert_eq!(test.world().sent, [(stopped, Signal::CONT)]);
    // A process whose state cannot be read.
    let mut test = Test::new();
    let child = test.child;
    test.world().no_proc = true;
    let other = test.world().fork_leader(US);
    let tally = test.tree.signal(TERM, None, Target::All);
    test.tree.wake_reached(&tally);
    let pids = [child, other];
    let each = |signal| pids.map(|pid| (pid, signal));
    let sent = [each(TERM), each(Signal::CONT)].concat();
    assert_eq!(test.world().sent, sent);
}

/// Without a second walk, the sender would count as a stranger, and its READY=1 would be refused.
#[test]
fn a_sender_that_loses_its_parent_during_the_walk_is_walked_up_from_again() {
    let test = Test::new();
    let between = test.world().fork(test.child);
    let sender = test.world().fork(between);
    assert!(test.tree.contains(sender) && test.tree.contains(test.child));
    test.world().moments.push(("stat", between, |world| {
        let between = world.at(world.next).process.parent;
        world.exit_and_reap(between);
    }));
    assert!(test.tree.contains(sender));
    // The sender has exited, is not a member of the tree, or is in another PID namespace (0).
    let stranger = test.world().fork(1);
    for pid in [between, stranger, 1, 0] {
        assert!(!test.tree.contains(pid), "{pid}");
    }
    // The parents form a circle.
    let last = test.world().fork(stranger);
    test.world().at(stranger).process.parent = last;
    assert!(!test.tree.contains(last));
}
