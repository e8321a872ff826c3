//! Judges a run by the calls of bowout and the events in the simulated kernel, and by the log. It
//! reads the settings, the sum of the ladder included, and asks neither the machine nor the tree.
//!
//! 1. Each signal that bowout received is sent to the child once, or named in a line of the log.
//! 2. SIGKILL is sent neither before the end of the grace period nor much after it. A second
//!    request of one side kills at once; another signal of that side a second later is forwarded.
//! 3. At the end no process of the command runs, or bowout exits with 137 and has logged the
//!    process.
//! 4. bowout exits as the child did, unless a time limit ended the child or a process is left.
//! 5. No descendant is sent SIGKILL before a stop signal, a stop signal twice, or a SIGCONT while
//!    it runs.
//! 6. bowout never waits for ever, spins, or wakes while nothing is to be done.
//! 7. A look at the tree reads at most a few of the host's other processes.
//! 8. No process is signalled that is not the command's or a hook's.
//! 9. After a stop signal, bowout looks at the sender, gives way to the receivers, and then looks
//!    for stopped ones.

use super::scene::{Nature, Scene};
use super::world::{MILLISECOND, Owner, Pid, Proc, State, Time, World};
use crate::exit::Exit;
use crate::policy::{KillMode, OnRepeat, Settings};
use crate::sender::Sender;
use crate::signal::Signal;
use crate::sys::signals::Intaken;

const SECOND: Time = 1000 * MILLISECOND;
/// The most waits in a row that may return at once.
const SPINS: usize = 3000;

/// A stop request, as bowout received it.
#[derive(Clone, Copy, Debug)]
struct Request {
    at: Time,
    turn: u64,
    signal: Signal,
    sender: Sender,
}

#[derive(Debug)]
pub(super) struct Judge {
    pub(super) faults: Vec<String>,
    settings: Settings,
    /// bowout may read all of /proc: it lacks the lists of children, /proc is small, or /proc hides
    /// a process.
    reads_all: bool,
    /// /proc hides a process, and so the processes below it.
    hides: bool,
    /// A process may not be signalled, or cannot be killed.
    stubborn: bool,
    turn: u64,
    /// The start of this turn.
    turned: Time,
    requests: Vec<Request>,
    received: Vec<Intaken>,
    child_lived: bool,
    sent_to_child: Vec<Signal>,
    /// It has not given way since it sent a stop signal.
    owes_way: bool,
    /// The processes that it has looked at in this turn.
    looked: Vec<Pid>,
    /// The first attempt to signal a member of the tree other than the child, SIGKILL and SIGCONT
    /// apart.
    tree_asked: Option<Time>,
    pub(super) started: Time,
    child_exit: Option<(Time, Exit)>,
    /// A part of bowout was killed.
    part_killed: Option<Time>,
    supervisor_killed: bool,
    stalls: Time,
    freezes: Vec<(Time, Time)>,
    /// A bystander has exited. bowout is unsure of an orphan that it never saw before, and leaves
    /// it alone.
    pub(super) unsure: bool,
    /// The number of processes that the tree has had.
    members: u64,
    /// The number of other processes whose files were read in this turn.
    read: usize,
    spins: (Time, usize),
    pub(super) last_request_sent: bool,
}

impl Judge {
    pub(super) fn new(scene: &Scene) -> Self {
        Self {
            faults: vec![],
            settings: scene.settings.clone(),
            reads_all: !scene.has_lists || scene.pid1 || scene.strangers < 500,
            hides: false,
            stubborn: false,
            turn: 0,
            turned: 0,
            requests: vec![],
            received: vec![],
            child_lived: false,
            sent_to_child: vec![],
            owes_way: false,
            looked: vec![],
            tree_asked: None,
            started: 0,
            child_exit: None,
            part_killed: None,
            supervisor_killed: false,
            stalls: 0,
            freezes: vec![],
            unsure: false,
            members: 0,
            read: 0,
            spins: (0, 0),
            last_request_sent: false,
        }
    }

    pub(super) fn fault(&mut self, what: String) {
        self.faults.push(what);
    }

    pub(super) fn met(&mut self, owner: Owner, nature: &Nature) {
        self.reads_all |= nature.hidden;
        self.hides |= nature.hidden;
        self.stubborn |= nature.denied || nature.unkillable;
        self.members += u64::from(matches!(owner, Owner::Command | Owner::Hook));
    }

    pub(super) fn stalled(&mut self, wait: Time) {
        self.stalls += wait;
    }

    pub(super) fn froze(&mut self, from: Time, to: Time) {
        self.stalled(to - from);
        self.freezes.push((from, to));
    }

    /// True if the only stall was a freeze over the deadline that left the command no time to act,
    /// and the second after that freeze is not over.
    fn has_thawed(&self, now: Time, deadline: Time) -> bool {
        let settings = &self.settings;
        let asked = self
            .requests
            .first()
            .is_some_and(|first| first.at + self.total() == deadline);
        let plain = asked && settings.ladder.rungs() == 1 && settings.hooks == 0;
        match *self.freezes {
            [(from, to)] if plain && self.stalls == to - from => {
                self.requests[0].at + MILLISECOND < from
                    && from < deadline
                    && deadline + SECOND + SECOND / 10 < to
                    && now + SECOND / 10 < to + SECOND
            }
            _ => false,
        }
    }

    pub(super) fn guard_killed(&mut self, now: Time) {
        self.part_killed.get_or_insert(now);
    }

    pub(super) fn supervisor_killed(&mut self, now: Time) {
        self.part_killed.get_or_insert(now);
        self.supervisor_killed = true;
        // The guard has not received the earlier requests.
        self.requests.clear();
        self.received.clear();
    }

    pub(super) fn child_exited(&mut self, now: Time, exit: Exit) {
        self.child_exit = Some((now, exit));
    }

    pub(super) fn received(&mut self, now: Time, signals: &[Intaken], child_lives: bool) {
        let first = self.settings.ladder.rung(0).and_then(|rung| rung.signal);
        for &Intaken { signal, sender, .. } in signals {
            let asks = [Signal::TERM, Signal::INT, Signal::ABRT].contains(&signal)
                || first == Some(signal);
            if asks {
                let turn = self.turn;
                self.requests.push(Request {
                    at: now,
                    turn,
                    signal,
                    sender,
                });
            }
        }
        self.received.extend(signals);
        self.child_lived = child_lives;
    }

    /// The start of the stop, as far as the simulated kernel can see it.
    fn base(&self) -> Option<Time> {
        let exited = self
            .child_exit
            .filter(|_| !self.settings.wait_tree)
            .map(|(at, _)| at);
        let runs = (self.settings.max_runtime).map(|wait| self.started + wait.as_micros() as Time);
        let asked = self.requests.first().map(|request| request.at);
        [exited, runs, asked, self.part_killed]
            .into_iter()
            .flatten()
            .min()
    }

    fn total(&self) -> Time {
        let total = self.settings.ladder.total(0);
        total.map_or(Time::MAX / 4, |total| total.as_micros() as Time)
    }

    /// True if one side has sent two requests, which ask for SIGKILL at once.
    fn is_repeated(&self) -> bool {
        let side = |request: &Request| request.sender.pid;
        self.requests.iter().any(|one| {
            self.requests
                .iter()
                .any(|other| one.turn < other.turn && side(one) == side(other))
        })
    }

    /// True if a rung of the ladder has this signal.
    fn is_rung(&self, signal: Signal) -> bool {
        let ladder = &self.settings.ladder;
        (0..ladder.rungs()).any(|rung| {
            ladder
                .rung(rung)
                .is_some_and(|it| it.signal == Some(signal))
        })
    }

    fn waits_long(&self) -> bool {
        self.settings.ladder.rungs() > 0
            && !(self.is_repeated() && self.settings.on_repeat == OnRepeat::Kill)
    }

    pub(super) fn turn(&mut self, now: Time) {
        self.turn += 1;
        self.turned = now;
        self.received.clear();
        self.sent_to_child.clear();
        self.owes_way = false;
        self.looked.clear();
        self.read = 0;
    }

    /// bowout waits until `deadline`.
    pub(super) fn waits(&mut self, now: Time, deadline: Option<Time>, child_lives: bool) {
        self.owes_way = false;
        let senders = self.requests.iter().filter(|it| it.turn == self.turn);
        let senders: Vec<_> = senders
            .map(|it| it.sender)
            .filter(|it| it.pid > 0 && !it.kernel && !it.exited)
            .collect();
        // The drain after the child's exit comes before the requests of the same turn.
        let looked = |it: &Sender| self.looked.contains(&it.pid);
        if self.child_lived && !senders.is_empty() && !senders.iter().any(looked) {
            self.fault("gave way before it looked at the sender".into());
        }
        let idle = self.base().is_none() && child_lives;
        if idle && let Some(deadline) = deadline.filter(|&deadline| deadline > now) {
            self.fault(format!("wakes at {deadline} though nothing is to be done"));
        }
        self.spins = if self.spins.0 == now {
            (now, self.spins.1 + 1)
        } else {
            (now, 0)
        };
        if self.spins.1 > SPINS {
            self.fault("spins".into());
        }
    }

    pub(super) fn looks(&mut self, pid: Pid) {
        self.looked.push(pid);
    }

    pub(super) fn reads(&mut self, owner: Owner) {
        self.read += usize::from(matches!(owner, Owner::System | Owner::Entered));
    }

    /// bowout tries to send a signal.
    pub(super) fn asks(&mut self, now: Time, signal: Signal, is_child: bool) {
        if !is_child && signal != Signal::KILL && signal != Signal::CONT {
            self.tree_asked.get_or_insert(now);
        }
    }

    /// bowout sends a signal to one process.
    pub(super) fn sends(
        &mut self,
        now: Time,
        pid: Pid,
        process: &Proc,
        (signal, is_child): (Signal, bool),
        sees: bool,
    ) {
        match process.owner {
            Owner::Command | Owner::Hook => {}
            other => self.fault(format!("sent {signal} to {pid} of {other:?}")),
        }
        let mixed = self.settings.kill_mode == KillMode::Mixed;
        let asked = process.received.iter().any(|it| it.1 != Signal::CONT);
        match signal {
            _ if !process.lives() || process.owner != Owner::Command => {}
            Signal::KILL => {
                let at = self.base().map(|base| base.saturating_add(self.total()));
                match at {
                    None => self.fault(format!("killed {pid} without a request")),
                    Some(at) if now < at && self.waits_long() => {
                        self.fault(format!("killed {pid} at {now}, before {at}"));
                    }
                    Some(at) if is_child && self.waits_long() && self.has_thawed(now, at) => {
                        self.fault(format!("killed {pid} at {now}, as soon as it thawed"));
                    }
                    Some(_) => {}
                }
                let own = process.orphaned.is_some_and(|at| at + SECOND < now);
                let stopping = self.tree_asked.is_some_and(|asked| asked + SECOND < now);
                if own && stopping && !asked && sees && self.waits_long() && self.stalls == 0 {
                    self.fault(format!(
                        "did not ask {pid} to stop, bowout's own child for a second"
                    ));
                }
                let met = self
                    .tree_asked
                    .is_none_or(|asked| process.born + 2 * MILLISECOND < asked);
                if mixed
                    && !self.settings.wait_tree
                    && !is_child
                    && !asked
                    && met
                    && sees
                    && !self.hides
                    && self.waits_long()
                    && self.stalls == 0
                {
                    self.fault(format!("killed {pid}, which was not asked to stop"));
                }
            }
            Signal::CONT => {
                if self.owes_way {
                    self.fault("looked for stopped processes before it gave way".into());
                }
                let was_stopped = process.state == State::Stopped
                    || process
                        .last_stop
                        .is_some_and(|at| at + MILLISECOND + self.stalls >= now);
                let forwarded = self.received.iter().any(|it| it.signal == Signal::CONT);
                if !was_stopped && !forwarded && sees && !process.headless {
                    self.fault(format!("sent SIGCONT to {pid}, which runs"));
                }
            }
            _ if is_child => {}
            _ => {
                // A signal to the group also reaches a process that was forked after the look.
                let old = process.born + 2 * MILLISECOND;
                let before = process
                    .received
                    .iter()
                    .filter(|it| it.1 == signal && it.0 > old);
                let before = before.count();
                if mixed
                    && !self.settings.wait_tree
                    && before > 0
                    && sees
                    && !self.hides
                    && !self.supervisor_killed
                {
                    self.fault(format!("sent {signal} to {pid} twice"));
                }
            }
        }
        if is_child {
            self.sent_to_child.push(signal);
        }
        // The signal of the drain, or of a request, rather than a forwarded one.
        let mut requests = self.requests.iter().filter(|it| it.turn == self.turn);
        let stops = if is_child {
            requests.any(|request| request.signal == signal)
        } else {
            mixed && !self.settings.wait_tree
        };
        let runs = process.lives() && ![Signal::KILL, Signal::CONT].contains(&signal);
        self.owes_way |= stops && runs;
    }

    /// After a turn of the loop; `group` holds the other members of the child's group.
    pub(super) fn after_turn(
        &mut self,
        now: Time,
        lines: &[String],
        child: Option<&Proc>,
        group: &[(Pid, Proc)],
    ) {
        if self.owes_way {
            self.fault("did not give way after a stop signal".into());
        }
        let received = std::mem::take(&mut self.received);
        if self.settings.kill_mode == KillMode::Group
            && self.base().is_none()
            && child.is_some_and(Proc::lives)
        {
            self.judge_group(&received, group);
        }
        for it in &received {
            let name = it.signal.to_string();
            let sent = self
                .sent_to_child
                .iter()
                .filter(|sent| **sent == it.signal)
                .count();
            let logged = lines.iter().any(|line| line.contains(&name));
            if sent == 0 && !logged {
                self.fault(format!("lost {name}"));
            }
            let times = received
                .iter()
                .filter(|other| other.signal == it.signal)
                .count();
            let asks = self
                .requests
                .iter()
                .any(|request| request.signal == it.signal);
            if !asks && !self.is_rung(it.signal) && it.signal != Signal::CONT && sent > times {
                self.fault(format!("sent {name} {sent} times, received {times} times"));
            }
            if self.base().is_none()
                && self.child_lived
                && sent != times
                && child.is_some_and(Proc::lives)
            {
                self.fault(format!(
                    "received {name} {times} times and sent it {sent} times"
                ));
            }
        }
        if !self.reads_all && self.read > 8 + 4 * received.len() {
            self.fault(format!(
                "read of {} processes that are not the tree's",
                self.read
            ));
        }
        self.judge_repeat(child);
        let until = self
            .base()
            .map(|base| base.saturating_add(self.total() + 3 * SECOND + 3 * self.stalls));
        if let Some(child) = child
            && child.lives()
            && !child.received.iter().any(|it| it.1 == Signal::KILL)
            && until.is_some_and(|until| now > until)
        {
            self.fault("did not kill the child in time".into());
        }
    }

    /// Each signal was sent to each process that was in the group for the whole turn.
    fn judge_group(&mut self, received: &[Intaken], group: &[(Pid, Proc)]) {
        let turned = self.turned;
        for (pid, process) in group
            .iter()
            .filter(|(_, it)| it.born < turned && !it.nature.denied)
        {
            for it in received {
                if !process
                    .received
                    .iter()
                    .any(|(at, signal)| *at >= turned && *signal == it.signal)
                {
                    self.fault(format!(
                        "did not send {} to {pid} of the child's group",
                        it.signal
                    ));
                }
            }
        }
    }

    /// Judges the reaction to the last request, if the request before it is of the same side.
    fn judge_repeat(&mut self, child: Option<&Proc>) {
        let [.., last] = *self.requests else { return };
        let child_lives =
            child.is_some_and(|child| child.state == State::Runs && !child.nature.denied);
        let one = self
            .requests
            .iter()
            .filter(|it| it.turn == last.turn)
            .count()
            == 1;
        let mut earlier = self.requests.iter().rev().filter(|it| it.turn < last.turn);
        let Some(before) = earlier.next().copied() else {
            return;
        };
        let is_climb = last.at - before.at > SECOND && self.requests.len() == 2;
        if last.turn != self.turn
            || !one
            || before.sender.pid != last.sender.pid
            || self.stalls > 0
            || !child_lives
        {
            return;
        }
        let sent = &self.sent_to_child;
        if before.signal == last.signal && self.settings.on_repeat == OnRepeat::Kill {
            if last.at - before.at > SECOND && !sent.contains(&Signal::KILL) {
                self.fault("did not kill the child at the second request".into());
            }
        } else if is_climb
            && before.signal != last.signal
            && self.settings.hooks == 0
            && self.settings.ladder.rungs() == 1
        {
            let draining = self.child_exit.is_some();
            if !draining && !sent.contains(&last.signal) {
                self.fault(format!(
                    "did not send {} of a sender that escalates",
                    last.signal
                ));
            }
        }
    }

    /// The run is over, and bowout exits with `exit`.
    pub(super) fn ends(world: &mut World, exit: Exit, lines: &[String]) {
        let judge = &world.judge;
        let mut faults = vec![];
        let process_mode = judge.settings.kill_mode == KillMode::Process;
        let alive: Vec<_> = world
            .processes
            .iter()
            .filter(|(_, process)| {
                matches!(process.owner, Owner::Command | Owner::Hook) && process.lives()
            })
            .collect();
        if !process_mode {
            // No look can find a process that was forked after the last look of this turn.
            let met = |process: &Proc| !judge.unsure && process.born < judge.turned;
            for (pid, _) in alive.iter().filter(|(_, process)| met(process)) {
                if exit != Exit::UNKILLABLE {
                    faults.push(format!("left {pid} running and exits with {exit:?}"));
                } else if !lines.iter().any(|line| {
                    // bowout finds a process that /proc hides, and its descendants, only as its own
                    // children. The exit of PID 1 kills the remaining processes.
                    let unseen = judge.hides || world.bowout == 1;
                    let named = line.contains(&format!("pid {pid}"));
                    named || unseen || !world.has_proc && line.contains("/proc does not name it")
                }) {
                    faults.push(format!("left {pid} running and does not name it"));
                }
            }
            // PID 1 gives up at once on a process that it may not signal; its exit ends the
            // namespace.
            let zombies = world.old_zombies(judge.turned).into_iter();
            for zombie in zombies.filter(|_| exit != Exit::UNKILLABLE) {
                faults.push(format!("left the zombie {zombie}"));
            }
        }
        let ended = judge.child_exit.map(|(_, exit)| exit);
        let timed_out = exit == Exit::TIMED_OUT && judge.settings.max_runtime.is_some();
        // The process may have exited after bowout gave up.
        let gave_up = exit == Exit::UNKILLABLE && judge.stubborn;
        if ended != Some(exit) && !timed_out && !gave_up {
            faults.push(format!("exits with {exit:?}, the child with {ended:?}"));
        }
        if let Some(base) = judge.base() {
            let most = judge.total() + (12 + 2 * judge.members) * SECOND + 3 * judge.stalls;
            if world.now > base.saturating_add(most) {
                faults.push(format!("took until {} to end", world.now));
            }
        }
        world.judge.faults.append(&mut faults);
    }
}
