//! The stop as the manual describes it, computed from the events and the settings alone: which
//! signals are requests, which signals a shared group has received, which processes are still to be
//! asked, when SIGKILL is due. It computes the actions that the machine has to take, and calls none
//! of its functions.

use super::*;

/// How long one request may take to arrive.
pub(in super::super) const BURST: Duration = Duration::from_millis(50);
/// The shortest time between two signals of a sender that escalates.
pub(in super::super) const CLIMB: Duration = Duration::from_millis(750);
const SECOND: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(500);
const PASS: Duration = Duration::from_millis(20);
const UNKILLABLE: Duration = Duration::from_secs(2);
const HOOKS: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Stage {
    Running,
    /// A hook, or the delay and the looks at the terminal.
    Preparing(Option<usize>),
    Rung(usize),
    /// SIGTERM was sent to the descendants, after the child's exit or its SIGKILL.
    Draining,
    Killing,
    Done(Exit),
}

/// The stop requests of one side.
#[derive(Clone, Copy, Debug)]
pub(super) struct Requests {
    pub(super) first: Instant,
    pub(super) last: Instant,
    pub(super) signals: SignalSet,
}

/// A stop signal, its value, and whether the child's group has received it.
pub(super) type ToSend = (Signal, Option<u64>, bool);

#[derive(Clone, Debug)]
pub(in super::super) struct Model {
    pub(super) given: Rc<Given>,
    pub(in super::super) stage: Stage,
    pub(super) exited: Option<Exit>,
    pub(super) timed_out: bool,
    pub(super) runs_until: Option<Instant>,
    /// When the stop begins, unless the command reports that it is ready, or that it is alive.
    pub(super) ready_by: Option<Instant>,
    pub(super) silent_until: Option<Instant>,
    pub(super) is_ready: bool,
    /// The stop began because the command was silent.
    pub(super) by_silence: bool,
    pub(super) begun: Option<Instant>,
    pub(super) begun_by: Option<Signal>,
    /// The stop began because the input had ended.
    pub(super) by_eof: bool,
    pub(super) asked: [Option<Requests>; Side::COUNT],
    /// When the hook or the delay is over.
    pub(super) prepared: Option<Instant>,
    /// When the present rung is over; during the preparations, the first rung.
    pub(super) rung_over: Option<Instant>,
    pub(super) put_off: Option<Instant>,
    /// The stop signals that were sent, or wait to be sent.
    pub(super) sent: SignalSet,
    /// The stop signals that a later request added: the ladder does not repeat them.
    pub(super) brought: SignalSet,
    pub(super) waiting: Vec<ToSend>,
    /// A hook has not exited, and whether it was sent SIGKILL.
    pub(super) hook: bool,
    pub(super) hook_killed: bool,
    /// How many `--pre-kill` hooks were started.
    pub(super) evidence: usize,
    /// The last stop signal that was sent to the whole tree.
    pub(super) tree: Option<Signal>,
    pub(super) child_killed: bool,
    /// The next pass of SIGKILL, and when bowout gives up.
    pub(super) again: Option<Instant>,
    pub(super) gives_up: Option<Instant>,
    pub(super) fewest: Option<usize>,
    pub(super) tick: Option<Instant>,
    pub(super) terminal: Terminal,
    pub(super) actions: Vec<Action>,
    /// The present event kills at once: it is a second request, or the exit of the parent.
    pub(super) hurried: bool,
}

fn plus(at: Option<Instant>, wait: Option<Duration>) -> Option<Instant> {
    at.zip(wait).and_then(|(at, wait)| at.checked_add(wait))
}

impl Model {
    pub(super) fn new(given: &Rc<Given>) -> Self {
        Self {
            given: Rc::clone(given),
            stage: Stage::Running,
            exited: None,
            timed_out: false,
            runs_until: plus(Some(at(0)), given.0.max_runtime),
            ready_by: plus(Some(at(0)), given.0.ready_timeout),
            silent_until: None,
            is_ready: false,
            by_silence: false,
            begun: None,
            begun_by: None,
            by_eof: false,
            asked: [None; Side::COUNT],
            prepared: None,
            rung_over: None,
            put_off: None,
            sent: SignalSet::default(),
            brought: SignalSet::default(),
            waiting: vec![],
            hook: false,
            hook_killed: false,
            evidence: 0,
            tree: None,
            child_killed: false,
            again: None,
            gives_up: None,
            fewest: None,
            tick: None,
            terminal: Terminal::default(),
            actions: vec![],
            hurried: false,
        }
    }

    /// The actions that the machine has to take at this event.
    pub(super) fn take(&mut self, now: Instant, event: Event) -> Vec<Action> {
        self.hurried = false;
        match event {
            Event::Signal(received) => self.signal(now, received),
            Event::Stop(cause) => {
                if self.stage == Stage::Running {
                    self.by_eof = cause == Cause::Eof;
                    self.begin(now, None);
                }
            }
            Event::Ready | Event::Alive if self.stage == Stage::Running => {
                if event == Event::Ready && self.exited.is_none() {
                    (self.is_ready, self.ready_by) = (true, None);
                }
                self.silent_until = plus(Some(now), self.given.0.watchdog);
            }
            Event::Ready | Event::Alive => {}
            Event::ChildExited(exit) => self.child_exited(now, exit),
            Event::HookExited => {
                (self.hook, self.hook_killed) = (false, false);
                if self.evidence > 0 {
                    self.run_evidence();
                }
                if let Stage::Preparing(Some(hook)) = self.stage {
                    self.prepare(now, hook + 1);
                }
            }
            Event::ExtendGrace(wait) => {
                self.extend(now, wait);
            }
            Event::ChildStopped { .. } => self.child_stopped(now, event),
            Event::TerminalSeen { prompt } => self.terminal_seen(now, prompt),
            Event::Resumed { suspended, stopped } => self.resumed(now, suspended, stopped),
            Event::Reaped => self.ask_new(),
            Event::NoneLeft { hook } => self.none_left(hook),
            Event::Killed { reached, refused } => self.killed(now, reached, refused),
            Event::Timeout => self.timeout(now),
        }
        self.settle_looks(now);
        if let Event::Signal(received) = event {
            let other = |action: &Action| matches!(action, Action::Send { signal, .. } if *signal != received.signal && *signal != Signal::KILL);
            if self.has_had(received, received.signal) && self.actions.iter().any(other) {
                self.actions.insert(0, Action::Pause);
            }
        }
        std::mem::take(&mut self.actions)
    }

    /// When [`Event::Timeout`] is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let look = self.terminal.ctrl_c.map(|ctrl_c| ctrl_c.next);
        let times = [self.stage_over(), self.tick, look, self.evidence_due()];
        times.into_iter().flatten().min()
    }

    /// When the stage is over; a tick or a look can be due before.
    pub(in super::super) fn stage_over(&self) -> Option<Instant> {
        match self.stage {
            Stage::Running => [self.runs_until, self.ready_by, self.silent_until]
                .into_iter()
                .flatten()
                .min(),
            Stage::Preparing(_) => self.prepared,
            Stage::Rung(_) | Stage::Draining => self.rung_over,
            Stage::Killing => self.again.min(self.gives_up),
            Stage::Done(_) => None,
        }
    }

    /// When the first `--pre-kill` hook is due.
    pub(super) fn evidence_due(&self) -> Option<Instant> {
        let settings = &self.given.0;
        if !self.on_last_rung() || settings.pre_kill == 0 || self.evidence > 0 || self.hook {
            return None;
        }
        let wait = settings.ladder.rung(self.rungs() - 1)?.wait?;
        let before = settings.pre_kill_timeout.min(wait / 4);
        self.rung_over.map(|over| over.checked_sub(before).unwrap())
    }

    fn on_last_rung(&self) -> bool {
        let last = matches!(self.stage, Stage::Rung(rung) if rung + 1 == self.rungs());
        last && self.exited.is_none() && self.rung_over.is_some()
    }

    fn run_evidence(&mut self) {
        if self.on_last_rung() && self.evidence < self.given.0.pre_kill {
            self.actions
                .push(Action::RunHook(Hook::PreKill(self.evidence)));
            self.evidence += 1;
            self.hook = true;
        }
    }

    /// When SIGKILL is due if nothing happens before.
    pub(super) fn kill_due(&self) -> Option<Instant> {
        match self.stage {
            Stage::Preparing(_) => plus(self.rung_over, self.rest(1)),
            Stage::Rung(rung) => plus(self.rung_over, self.rest(rung + 1)),
            Stage::Draining => self.rung_over,
            Stage::Running | Stage::Killing | Stage::Done(_) => None,
        }
    }

    pub(super) fn rungs(&self) -> usize {
        let mut rungs = 0;
        while self.given.0.ladder.rung(rungs).is_some() {
            rungs += 1;
        }
        rungs
    }

    /// The waits of the rungs from this one on; `None` is never.
    pub(super) fn rest(&self, from: usize) -> Option<Duration> {
        let mut sum = Duration::ZERO;
        for rung in from..self.rungs() {
            sum = sum.checked_add(self.given.0.ladder.rung(rung)?.wait?)?;
        }
        Some(sum)
    }

    /// True if this asks for the stop.
    pub(in super::super) fn asks(&self, received: Received) -> bool {
        let Given(settings, place) = &*self.given;
        let Received { signal, side, .. } = received;
        let terminal = side == Side::Terminal;
        let usual = [Signal::TERM, Signal::INT, Signal::ABRT];
        let first = settings.ladder.rung(0).and_then(|rung| rung.signal);
        let hangup = terminal && signal == Signal::HUP;
        let default = usual.contains(&signal) || first == Some(signal) || hangup;
        let chosen = match settings.stop_on {
            Some(set) => set.contains(signal),
            None => default && !place.ignored.contains(signal),
        };
        let key = signal == Signal::INT || signal == Signal::QUIT;
        let excluded = terminal && (signal == Signal::WINCH || key && !settings.keys_stop);
        let dropped = settings.remap.apply(signal).is_none();
        signal == Signal::KILL || chosen && !excluded && !dropped
    }

    /// True if the child's group has received this signal without bowout.
    pub(super) fn has_had(&self, received: Received, signal: Signal) -> bool {
        let place = &self.given.1;
        let keys = [Signal::INT, Signal::QUIT, Signal::TSTP];
        let others = [Signal::TTIN, Signal::TTOU, Signal::WINCH, Signal::CONT];
        let of_terminal = keys.contains(&signal) || others.contains(&signal);
        received.shared_group
            && received.signal == signal
            && match received.side {
                Side::Terminal => of_terminal || signal == Signal::HUP && !place.leader,
                Side::Tree => !place.pid1,
                _ => false,
            }
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(
            self.stage,
            Stage::Draining | Stage::Killing | Stage::Done(_)
        )
    }

    fn signal(&mut self, now: Instant, received: Received) {
        let asks = self.asks(received);
        match self.given.0.remap.apply(received.signal) {
            Some(_) if received.signal == Signal::KILL => {
                if !matches!(self.stage, Stage::Killing | Stage::Done(_)) {
                    self.hurried = true;
                    self.kill(now);
                }
                return;
            }
            Some(signal) if asks => self.request(now, received, signal),
            Some(signal) if !self.is_over() => {
                let group = self.given.0.kill_mode == KillMode::Group;
                let had = self.has_had(received, signal);
                let to = match self.exited {
                    None if had => None,
                    None if group => Some(Target::Group),
                    None => Some(Target::Child),
                    Some(_) if had => Some(Target::Others),
                    Some(_) => Some(Target::All),
                };
                let value = received.value;
                self.actions.extend(to.map(|to| Action::Send {
                    signal,
                    value,
                    to,
                    wake: false,
                }));
            }
            None | Some(_) => {}
        }
        self.follow_group(now, received);
        if asks {
            self.join(now, received);
        }
    }

    fn request(&mut self, now: Instant, received: Received, translated: Signal) {
        let Received { signal, side, .. } = received;
        let was = self.asked[side as usize];
        let running = self.stage == Stage::Running;
        let (mut first, mut climbs) = (true, false);
        if matches!(self.stage, Stage::Killing | Stage::Done(_)) {
            return;
        }
        // A hang-up of the terminal is never a repeat: the shell and the kernel both send one.
        if running || signal != Signal::HUP || side != Side::Terminal {
            climbs =
                was.is_some_and(|was| !was.signals.contains(signal) && now - was.last >= CLIMB);
            first = was.is_none_or(|was| now - was.first < BURST);
            self.asked[side as usize] = Some(Requests {
                first: was.filter(|_| !climbs).map_or(now, |was| was.first),
                last: now,
                signals: was
                    .map_or(SignalSet::default(), |was| was.signals)
                    .with(signal),
            });
        }
        let repeats = !first && !climbs;
        match (self.stage, self.given.0.on_repeat) {
            (Stage::Running, _) => self.begin(now, Some((received, translated))),
            (_, OnRepeat::Kill) if repeats => {
                self.hurried = true;
                self.kill(now);
            }
            (Stage::Draining, _) => {
                if self.begun.is_none() {
                    self.announce(now);
                }
            }
            (_, OnRepeat::Ignore) if repeats => {}
            (stage, on_repeat) => {
                let chosen = self.given.0.ladder.rung(0).and_then(|rung| rung.signal);
                let sends = if climbs && !first {
                    translated
                } else {
                    chosen.unwrap_or(translated)
                };
                let to_send = self.to_send(received, translated, sends);
                let new = was.is_some_and(|was| !was.signals.contains(signal));
                let again = on_repeat == OnRepeat::Forward && (repeats || first && new);
                let preparing = matches!(stage, Stage::Preparing(_));
                if !preparing && !again {
                    self.brought = self.brought.with(sends);
                }
                let sent = self.sent.contains(sends);
                self.sent = self.sent.with(sends);
                if preparing && !sent {
                    self.waiting.push(to_send);
                }
                if stage == Stage::Preparing(None)
                    && self.by_eof
                    && self.given.0.stop_delay.is_zero()
                {
                    self.first_rung();
                } else if !preparing && (again || !sent) {
                    self.send(to_send);
                }
            }
        }
    }

    fn to_send(&self, received: Received, translated: Signal, signal: Signal) -> ToSend {
        let value = received.value.filter(|_| signal == translated);
        (signal, value, self.has_had(received, signal))
    }

    fn begin(&mut self, now: Instant, by: Option<(Received, Signal)>) {
        self.begun = Some(now);
        self.begun_by = by.map(|(received, _)| received.signal);
        let Some(first) = self.given.0.ladder.rung(0) else {
            self.kill(now);
            return self.announce(now);
        };
        let to_send = match by {
            Some((received, translated)) => {
                self.to_send(received, translated, first.signal.unwrap_or(translated))
            }
            None if self.by_silence => (Signal::ABRT, None, false),
            None => (first.signal.unwrap_or(Signal::TERM), None, false),
        };
        self.sent = self.sent.with(to_send.0);
        self.waiting.push(to_send);
        self.rung_over = plus(Some(now), first.wait);
        if by.is_some_and(|(received, _)| self.may_survive(received)) {
            return self.look_first(now);
        }
        self.prepare(now, 0);
        self.announce(now);
    }

    pub(super) fn announce(&mut self, begun: Instant) {
        self.begun = Some(begun);
        if self.given.1.announces {
            self.tick = self.tick.or(Some(begun + TICK));
        }
        self.notify();
    }

    pub(super) fn notify(&mut self) {
        if !self.terminal.is_unprepared() {
            self.actions.push(Action::NotifyStopping);
        }
    }

    /// The hooks, then the delay. They leave the child a quarter of the first rung's time.
    pub(super) fn prepare(&mut self, now: Instant, hook: usize) {
        let Given(settings, _) = &*self.given;
        let wait = settings.ladder.rung(0).and_then(|rung| rung.wait);
        let (mut delay, wait) = (settings.stop_delay, wait.unwrap_or_default());
        if self.by_silence {
            delay = Duration::ZERO;
        }
        let left = wait.checked_sub(delay).unwrap_or_default();
        let latest = self
            .rung_over
            .map(|over| over.checked_sub(left.min(wait / 4)).unwrap());
        if self.by_silence && self.exited.is_none() && hook < settings.pre_kill {
            // The `--pre-kill` hooks collect evidence before the signal ends the command.
            self.stage = Stage::Preparing(Some(hook));
            let most = plus(self.begun, Some(settings.pre_kill_timeout));
            self.prepared = latest.or(plus(self.begun, Some(HOOKS))).min(most);
            self.evidence += 1;
            self.actions.push(Action::RunHook(Hook::PreKill(hook)));
            self.hook = true;
            return;
        }
        if self.by_silence {
            return self.first_rung();
        }
        if hook < settings.hooks {
            self.stage = Stage::Preparing(Some(hook));
            self.prepared = latest.or(plus(self.begun, Some(HOOKS)));
            self.actions.push(Action::RunHook(Hook::PreStop(hook)));
            self.hook = true;
            return;
        }
        // The child has a quarter of the first wait, at most 2 s, from the end of its input.
        let own_exit = settings
            .ladder
            .rung(0)
            .and_then(|rung| rung.wait)
            .map_or(2 * SECOND, |wait| (wait / 4).min(2 * SECOND));
        let delayed = match self.begun {
            Some(begun) if self.by_eof => (now + delay).max(begun + own_exit),
            _ => now + delay,
        };
        if delayed > now {
            self.stage = Stage::Preparing(None);
            self.prepared = Some(latest.map_or(delayed, |latest| latest.min(delayed)));
        } else {
            self.first_rung();
        }
    }

    fn first_rung(&mut self) {
        self.stage = Stage::Rung(0);
        for to_send in std::mem::take(&mut self.waiting) {
            self.send(to_send);
        }
    }

    /// Sends a stop signal, except to a group that has received it.
    fn send(&mut self, (signal, value, had): ToSend) {
        let Given(settings, _) = &*self.given;
        let tree = settings.kill_mode == KillMode::Group || settings.wait_tree;
        self.sent = self.sent.with(signal);
        if tree {
            self.tree = Some(signal);
            self.tick = self.tick.or(plus(self.begun, Some(TICK)));
        }
        let to = match (tree, had) {
            (true, true) => Target::Others,
            (true, false) => Target::All,
            (false, _) => Target::Child,
        };
        if tree || !had {
            self.actions.push(Action::Send {
                signal,
                value,
                to,
                wake: true,
            });
        }
    }

    fn end_hook(&mut self) {
        if self.hook && !self.hook_killed {
            self.hook_killed = true;
            self.actions.push(Action::EndHook);
        }
    }

    fn child_exited(&mut self, now: Instant, exit: Exit) {
        if matches!(self.stage, Stage::Done(_)) {
            return;
        }
        self.exited = Some(exit);
        self.terminal.halted = None;
        let due = match self.stage {
            Stage::Running => plus(Some(now), self.rest(0)),
            _ => self.kill_due(),
        };
        if self.given.0.kill_mode == KillMode::Process {
            self.end_hook();
            self.done(exit);
        } else if !self.given.0.wait_tree && !self.is_over() {
            self.end_hook();
            self.drain(now, due);
        }
    }

    fn drain(&mut self, now: Instant, due: Option<Instant>) {
        let over = due.is_some_and(|due| due <= now);
        if over && (self.tree.is_some() || self.rungs() == 0 || !self.is_mixed()) {
            return self.kill(now);
        }
        self.ask_tree(if over { Some(now + SECOND) } else { due });
        self.tick = self.tick.or(Some(now + TICK));
    }

    fn is_mixed(&self) -> bool {
        self.given.0.kill_mode == KillMode::Mixed && !self.given.0.wait_tree
    }

    fn ask_tree(&mut self, until: Option<Instant>) {
        (self.stage, self.rung_over) = (Stage::Draining, until);
        self.tree = Some(Signal::TERM);
        self.push(Signal::TERM, Target::Unasked, true);
    }

    fn ask_new(&mut self) {
        if let (Stage::Rung(_) | Stage::Draining, Some(signal)) = (self.stage, self.tree) {
            self.push(signal, Target::NewChildren, true);
        }
    }

    fn push(&mut self, signal: Signal, to: Target, wake: bool) {
        self.actions.push(Action::Send {
            signal,
            value: None,
            to,
            wake,
        });
    }

    fn kill(&mut self, now: Instant) {
        self.end_hook();
        self.stage = Stage::Killing;
        (self.again, self.gives_up) = (Some(now + PASS), Some(now + UNKILLABLE));
        if self.begun.is_none() || !self.given.1.announces {
            self.tick = None;
        }
        self.pass();
    }

    fn pass(&mut self) {
        let alone = self.given.0.kill_mode == KillMode::Process;
        let to = if alone { Target::Child } else { Target::All };
        self.push(Signal::KILL, to, false);
    }

    fn done(&mut self, exit: Exit) {
        let exit = if self.timed_out {
            Exit::TIMED_OUT
        } else {
            exit
        };
        self.stage = Stage::Done(exit);
        self.tick = None;
    }

    fn none_left(&mut self, hook: bool) {
        let preparing = matches!(self.stage, Stage::Preparing(Some(_)));
        if hook {
            if preparing && self.exited.is_some() {
                self.end_hook();
                self.waiting.clear();
                self.stage = Stage::Rung(0);
            }
        } else if !matches!(self.stage, Stage::Done(_)) {
            self.done(self.exited.unwrap_or(Exit::OWN_FAILURE));
        }
    }

    fn killed(&mut self, now: Instant, reached: usize, refused: usize) {
        if self.stage != Stage::Killing {
            return;
        }
        if self.given.1.pid1 && reached == 0 && refused > 0 {
            self.stage = Stage::Done(Exit::UNKILLABLE);
            self.tick = None;
            return;
        }
        // A process that refuses SIGKILL may exit by itself: bowout waits.
        let left = if reached == 0 { 0 } else { reached + refused };
        if self.fewest.is_none_or(|fewest| left < fewest) {
            self.fewest = Some(left);
            (self.again, self.gives_up) = (Some(now + PASS), Some(now + UNKILLABLE));
        }
    }

    /// Grants the child more time. Returns true if the deadline moved.
    pub(super) fn extend(&mut self, now: Instant, wait: Duration) -> bool {
        let rest = match self.stage {
            Stage::Preparing(_) => self.rest(1),
            Stage::Rung(rung) => self.rest(rung + 1),
            Stage::Draining if !self.child_killed => Some(Duration::ZERO),
            _ => return false,
        };
        let (Some(begun), Some(over)) = (self.begun, self.rung_over) else {
            return false;
        };
        let most = match (self.given.0.grace_max, rest) {
            (None, _) => None,
            (Some(_), None) => Some(over),
            (Some(max), Some(rest)) => Some((begun + max).checked_sub(rest).unwrap()),
        };
        let wanted = now + wait;
        let granted = most.map_or(wanted, |most| most.min(wanted));
        if granted <= over {
            return false;
        }
        self.rung_over = Some(granted);
        self.notify();
        true
    }

    fn timeout(&mut self, now: Instant) {
        let over = self.stage_over();
        if over.is_none_or(|over| now < over) {
            if self.look(now) {
                return;
            }
            if self.evidence_due().is_some_and(|due| due <= now) {
                self.run_evidence();
            }
            if self.tick.is_some_and(|tick| tick <= now) {
                self.tick = Some(now + TICK);
                if self.given.1.announces && self.begun.is_some() {
                    self.notify();
                }
                self.ask_new();
            }
            return;
        }
        let last = match self.stage {
            Stage::Rung(rung) => rung + 1 == self.rungs(),
            stage => stage == Stage::Draining,
        };
        let waits = if self.stage == Stage::Killing {
            self.gives_up
        } else {
            self.rung_over
        };
        let late = waits.is_some_and(|until| now > until + SECOND) && waits != self.put_off;
        if late && last {
            self.rung_over = Some(now + SECOND);
            self.put_off = self.rung_over;
            return;
        }
        match self.stage {
            Stage::Running => {
                self.timed_out = true;
                self.by_silence = self.silent_until.is_some_and(|until| until <= now);
                self.begin(now, None);
            }
            Stage::Preparing(_) => {
                self.end_hook();
                self.first_rung();
            }
            Stage::Rung(_) if !last => self.next_rung(now),
            Stage::Rung(_) if self.is_mixed() && self.tree.is_none() => {
                self.end_hook();
                self.child_killed = true;
                self.push(Signal::KILL, Target::Child, false);
                self.ask_tree(Some(now + SECOND));
            }
            Stage::Rung(_) | Stage::Draining => self.kill(now),
            Stage::Killing => {
                if late {
                    self.gives_up = Some(now + SECOND);
                    self.put_off = self.gives_up;
                }
                if self.gives_up.is_some_and(|until| until <= now) {
                    self.stage = Stage::Done(Exit::UNKILLABLE);
                    self.tick = None;
                } else {
                    self.again = Some(now + PASS);
                    self.pass();
                }
            }
            Stage::Done(_) => {}
        }
    }

    fn next_rung(&mut self, now: Instant) {
        let Stage::Rung(rung) = self.stage else {
            return;
        };
        let next = self.given.0.ladder.rung(rung + 1).expect("not the last");
        self.stage = Stage::Rung(rung + 1);
        self.rung_over = plus(Some(now), next.wait);
        let signal = next.signal.unwrap_or(Signal::TERM);
        if !self.brought.contains(signal) {
            self.send((signal, None, false));
        }
    }
}
