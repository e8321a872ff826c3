//! A machine among processes: what is true of them, as opposed to what the machine believes, and
//! what must hold after each event.
//!
//! The walk and the random walks both drive it. What depends on more than one event is kept here,
//! by a monitor of its own: who has asked and when, since when the time runs, what was sent. It
//! never looks that up in the machine, which is on trial.
//!
//! Caveat: which signals are stop requests, and what a shared group has had already, is asked of
//! the machine's own functions; the table and the scenarios hold those.

pub(super) mod key;
mod terminal;

use super::*;
use terminal::Terminal;

/// How long the machine goes on with SIGKILL before it gives up.
const UNKILLABLE: Duration = Duration::from_secs(2);

/// A machine and the truth beside it.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) machine: Machine,
    pub(super) now: Instant,
    pub(super) child: Option<Exit>,
    pub(super) nobody_left: bool,
    pub(super) suspended: Option<Instant>,
    pub(super) hook: bool,
    hook_ended: bool,
    next_hook: usize,
    /// When each side first asked.
    asked: [Option<Asked>; Side::COUNT],
    /// Since when the grace period runs, moved on by every pause of the job.
    since: Option<Instant>,
    /// When the stop was requested, likewise: the child can have exited before.
    requested: Option<Instant>,
    /// How late the deadlines were taken that a later one hangs on.
    late: Duration,
    extended: bool,
    /// When the run time is over, moved on by every pause.
    runs_until: Option<Instant>,
    timed_out: bool,
    /// What the child was sent as a stop signal.
    stopped_by: SignalSet,
    told_all: bool,
    killed: bool,
    /// SIGKILL was sent to every descendant.
    killed_all: bool,
    /// When the child exited.
    exited: Option<Instant>,
    /// When the descendants were sent SIGTERM because the child was sent SIGKILL.
    last_second: Option<Instant>,
    over: bool,
    terminal: Terminal,
}

impl World {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            machine: Machine::new(settings.clone(), at(0)),
            now: at(0),
            child: None,
            nobody_left: false,
            suspended: None,
            hook: false,
            hook_ended: false,
            next_hook: 0,
            asked: [None; Side::COUNT],
            since: None,
            requested: None,
            late: Duration::ZERO,
            extended: false,
            runs_until: settings.max_runtime.map(|wait| at(0) + wait),
            timed_out: false,
            stopped_by: SignalSet::default(),
            told_all: false,
            killed: false,
            killed_all: false,
            exited: None,
            last_second: None,
            over: false,
            terminal: Terminal::default(),
        }
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self.machine.state(), State::Done(_))
    }

    /// Whether this can happen in this world: processes end once, and while we are stopped
    /// ourselves there is only the end of that.
    pub(super) fn is_possible(&self, event: Event) -> bool {
        match event {
            Event::Resumed { .. } => self.suspended.is_some(),
            _ if self.suspended.is_some() => false,
            // The answer comes before all else.
            Event::TerminalSeen { .. } => self.terminal.looking,
            _ if self.terminal.looking => false,
            Event::Signal(_) | Event::ExtendGrace(_) => true,
            Event::ChildExited(_) | Event::ChildStopped { .. } => {
                self.child.is_none() && !self.nobody_left
            }
            Event::NoChildren => !self.nobody_left,
            Event::Refused | Event::Killed { .. } => {
                matches!(self.machine.state(), State::Killing { .. })
            }
            Event::HookExited | Event::HookAlone => self.hook,
            Event::Timeout => self.machine.deadline().is_some(),
        }
    }

    /// Whether this side has asked for the stop.
    pub(super) fn has_asked(&self, side: Side) -> bool {
        self.asked[side as usize].is_some()
    }

    /// Whether its side has sent this signal before.
    pub(super) fn has_sent(&self, Received { signal, side, .. }: Received) -> bool {
        self.asked[side as usize].is_some_and(|asked| asked.signals.contains(signal))
    }

    /// Takes one event at `now`, checks what must hold after each, and says what was done.
    pub(super) fn take(&mut self, now: Instant, event: Event) -> Vec<Action> {
        let before = self.machine.state();
        let due = self
            .machine
            .next_step()
            .is_some_and(|deadline| deadline <= now);
        let armed = self.machine.deadline();
        // A child that has ended is reaped once the actions are done: it may still be signalled
        // now, and never later.
        let reaped = self.child.is_some();
        self.now = now;
        let repeat = self.note(event, due);
        let actions = self.machine.step(now, event);
        self.judge_terminal(before, event, due, &actions);
        self.judge_signal(before, event, &actions);
        for &action in &actions {
            self.judge(before, event, action, reaped, repeat);
        }
        self.judge_state(before, event, armed, &actions);
        actions
    }

    /// What the event makes true, whatever the machine makes of it; whether it is a repeat that
    /// kills.
    fn note(&mut self, event: Event, due: bool) -> bool {
        let (now, running) = (
            self.now,
            matches!(self.machine.state(), State::Running { .. }),
        );
        let settings = &self.machine.settings;
        match event {
            Event::Signal(received)
                if settings.is_stop_request(received) && !settings.drops(received.signal) =>
            {
                let hangup = received.signal == Signal::HUP && received.side == Side::Terminal;
                self.since = self.since.or(Some(now));
                if self.child.is_some() && !settings.wait_tree {
                    self.requested = self.requested.or(Some(now));
                }
                if running || !hangup {
                    let new = Asked {
                        first: now,
                        last: now,
                        signals: SignalSet::default(),
                    };
                    let asked = self.asked[received.side as usize].get_or_insert(new);
                    let climbs =
                        !asked.signals.contains(received.signal) && now - asked.last >= CLIMB;
                    if climbs {
                        asked.first = now;
                    }
                    (asked.last, asked.signals) = (now, asked.signals.with(received.signal));
                    let again = !running && now - asked.first >= BURST && !climbs;
                    return again && settings.on_repeat == OnRepeat::Kill;
                }
            }
            Event::ChildExited(exit) => {
                self.child = Some(exit);
                self.exited = Some(now).filter(|_| !settings.wait_tree);
                if !settings.wait_tree {
                    self.since = self.since.or(Some(now));
                }
            }
            Event::NoChildren => self.nobody_left = true,
            Event::HookExited => (self.hook, self.hook_ended) = (false, false),
            Event::Resumed { .. } => {
                let pause = self
                    .suspended
                    .take()
                    .map_or(Duration::ZERO, |since| now - since);
                self.since = self.since.map(|since| since + pause);
                self.requested = self.requested.map(|requested| requested + pause);
                self.runs_until = self.runs_until.map(|until| until + pause);
            }
            Event::ExtendGrace(_) => self.extended = true,
            Event::Timeout if due && running => {
                assert!(
                    self.runs_until.is_some_and(|until| until <= now),
                    "the run time is over too early"
                );
                self.timed_out = true;
                self.since = Some(now);
            }
            Event::Timeout if due => {
                let deadline = self.machine.next_step();
                let late = deadline.map_or(Duration::ZERO, |deadline| {
                    now.saturating_duration_since(deadline)
                });
                self.late += if late > LATE { late + LATE } else { late };
            }
            Event::Signal(_)
            | Event::ChildStopped { .. }
            | Event::TerminalSeen { .. }
            | Event::HookAlone
            | Event::Refused
            | Event::Killed { .. }
            | Event::Timeout => {}
        }
        false
    }

    /// No signal is lost and none is sent twice: what is no stop request reaches the child once, as
    /// it came.
    fn judge_signal(&self, before: State, event: Event, actions: &[Action]) {
        let Event::Signal(received) = event else {
            return;
        };
        let actions: Vec<_> = actions
            .iter()
            .copied()
            .filter(|action| !matches!(action, Action::SuspendSelf(_) | Action::Pause))
            .collect();
        let settings = &self.machine.settings;
        let Some(signal) = settings.remap.apply(received.signal) else {
            return assert_eq!(actions, [], "a dropped signal has an effect");
        };
        if settings.is_stop_request(received) {
            let asked = !matches!(self.machine.state(), State::Running { .. });
            return assert!(asked, "a stop request is not heard");
        }
        let to = match before {
            State::Running { ended }
            | State::Preparing { ended, .. }
            | State::Stopping { ended, .. } => {
                let group = settings.kill_mode == KillMode::Group;
                match (self.machine.child_has(received, signal), ended.is_some()) {
                    (true, false) => {
                        return assert_eq!(actions, [], "sends what the child has had");
                    }
                    (true, true) => Target::Others,
                    (false, true) => Target::All,
                    (false, false) if group => Target::Group,
                    (false, false) => Target::Child,
                }
            }
            State::Draining { .. } | State::Killing { .. } | State::Done(_) => {
                return assert_eq!(actions, [], "forwards to nobody");
            }
        };
        assert_eq!(
            actions,
            [Action::Send {
                signal,
                value: received.value,
                to,
                wake: false
            }],
            "a signal is lost"
        );
    }

    fn judge(&mut self, before: State, event: Event, action: Action, reaped: bool, repeat: bool) {
        assert!(!matches!(before, State::Done(_)), "acts behind the end");
        match action {
            Action::Send {
                signal, to, wake, ..
            } => {
                assert!(!self.nobody_left, "signals nobody");
                let tree = matches!(to, Target::All | Target::Others | Target::Descendants);
                assert!(tree || !reaped, "signals a reaped child");
                let alone = self.machine.settings.kill_mode == KillMode::Process;
                assert!(!tree || !alone, "signals who is to be left alone");
                if signal == Signal::KILL {
                    self.judge_kill(before, to, repeat);
                } else if to == Target::Descendants && event == Event::Timeout {
                    assert!(
                        self.last_second.replace(self.now).is_none(),
                        "a last second twice"
                    );
                } else {
                    assert!(!self.killed, "a signal after SIGKILL");
                }
                if wake {
                    self.judge_stop_signal(before, event, signal, to);
                }
            }
            Action::SuspendSelf(_) => {
                assert!(
                    self.suspended.is_none() && self.machine.settings.job_control,
                    "stops for nobody"
                );
                self.suspended = Some(self.now);
            }
            Action::RunHook(hook) => {
                assert!(!self.hook, "two hooks at a time");
                assert_eq!(hook, self.next_hook, "a hook out of its turn");
                assert!(hook < self.machine.settings.hooks, "a hook that is none");
                (self.hook, self.next_hook) = (true, hook + 1);
            }
            Action::EndHook => {
                assert!(self.hook, "ends a hook that does not run");
                self.hook_ended = true;
            }
            Action::Exit(exit) => self.judge_exit(before, event, exit),
            Action::Pause
            | Action::Wake
            | Action::LendTerminal
            | Action::LookAtTerminal
            | Action::NotifyStopping => {}
        }
    }

    /// SIGKILL comes once, never before its time, and earlier only at a second request. A
    /// descendant is sent SIGTERM first, and has a second.
    fn judge_kill(&mut self, before: State, to: Target, repeat: bool) {
        let settings = &self.machine.settings;
        if to == Target::All && !self.killed_all && !repeat && settings.ladder.rung(0).is_some() {
            let everyone = settings.kill_mode == KillMode::Group || settings.wait_tree;
            let asked = everyone || self.told_all || matches!(before, State::Draining { .. });
            assert!(
                asked || self.last_second.is_some(),
                "kills a descendant that was not asked to stop"
            );
            let waited = self
                .last_second
                .is_none_or(|since| since + LATE <= self.now);
            assert!(waited, "kills a descendant before its second is over");
        }
        self.killed_all |= to == Target::All;
        if matches!(before, State::Killing { .. }) {
            return;
        }
        assert!(!self.killed, "kills twice");
        self.killed = true;
        let over = self
            .machine
            .settings
            .ladder
            .total(0)
            .zip(self.since)
            .and_then(|(wait, since)| since.checked_add(wait));
        assert!(
            repeat || over.is_some_and(|over| over <= self.now),
            "kills before the time is over"
        );
    }

    /// A stop signal is sent once; again only as a further step, or as a repeat that is to be
    /// forwarded. The drain sends SIGTERM once.
    fn judge_stop_signal(&mut self, before: State, event: Event, signal: Signal, to: Target) {
        let further = event == Event::Timeout && matches!(before, State::Stopping { .. });
        let forwards = self.machine.settings.on_repeat == OnRepeat::Forward
            && matches!(event, Event::Signal(_));
        if matches!(event, Event::ChildExited(_)) {
            assert!(
                signal == Signal::TERM && to == Target::Descendants,
                "the drain is not SIGTERM to every descendant"
            );
            assert!(!self.told_all, "the drain tells those who were told");
        } else if to == Target::Descendants {
            assert!(
                signal == Signal::TERM && !self.told_all,
                "the last second is not the first SIGTERM"
            );
        } else if !further && !forwards {
            assert!(!self.stopped_by.contains(signal), "a stop signal twice");
        }
        self.stopped_by = self.stopped_by.with(signal);
        self.told_all |= signal == Signal::TERM && to != Target::Child;
    }

    /// bowout ends as the child ended, but where it stopped it for its run time, or has to leave
    /// somebody behind.
    fn judge_exit(&mut self, before: State, event: Event, exit: Exit) {
        assert!(!self.over, "ends twice");
        self.over = true;
        if matches!(event, Event::Timeout | Event::Refused) {
            assert!(
                matches!(before, State::Killing { .. }),
                "gives up before it has killed"
            );
            return assert_eq!(exit, Exit::UNKILLABLE, "hides that somebody is left");
        }
        let own = self.child.unwrap_or(Exit::OWN_FAILURE);
        assert_eq!(
            exit,
            if self.timed_out { Exit::TIMED_OUT } else { own },
            "not the child's own status"
        );
        let alone = self.machine.settings.kill_mode == KillMode::Process && self.child.is_some();
        assert!(self.nobody_left || alone, "leaves somebody behind");
    }

    fn judge_state(&self, before: State, event: Event, armed: Option<Instant>, actions: &[Action]) {
        let state = self.machine.state();
        let done = self.is_done();
        assert_eq!(self.over, done, "one exit, and with it the end");
        let killed_all =
            self.nobody_left || self.hook_ended || matches!(event, Event::Refused | Event::Timeout);
        assert!(!done || !self.hook || killed_all, "leaves a hook behind");
        assert!(!self.nobody_left || done, "goes on with nobody left");
        if let Some(deadline) = self.machine.deadline() {
            assert!(!done, "a deadline behind the end");
            // A wait of 0 may lead on at once, but on.
            assert!(
                event != Event::Timeout || deadline > self.now || state != before,
                "spins"
            );
        }
        if event == Event::Timeout && armed.is_none_or(|deadline| self.now < deadline) {
            assert_eq!(
                (actions, state),
                (&[][..], before),
                "a deadline before its time"
            );
        }
        if matches!(before, State::Done(_)) {
            assert_eq!(state, before, "rises from the dead");
        }
        let stops = matches!(state, State::Preparing { .. } | State::Stopping { .. });
        if matches!(before, State::Running { .. }) && stops && !self.terminal.is_unprepared() {
            assert!(
                actions.contains(&Action::NotifyStopping),
                "stops, and the manager is not told"
            );
        }
        self.judge_latest(state);
    }

    /// The time that is armed ends in SIGKILL no later than was asked for: the whole ladder, or the
    /// most that the child may have.
    fn judge_latest(&self, state: State) {
        let settings = &self.machine.settings;
        let Some(total) = settings.ladder.total(0) else {
            return;
        };
        let most = match settings.grace_max {
            Some(most) => total.max(most),
            None if self.extended => return,
            None => total,
        };
        match state {
            State::Preparing { .. } | State::Stopping { .. } | State::Draining { .. } => {
                let last = if self.machine.asks_last() {
                    LATE
                } else {
                    Duration::ZERO
                };
                let drained = self.exited.map(|exited| exited + LATE + self.late);
                let latest = self
                    .since
                    .max(self.requested)
                    .map(|since| since + most + self.late)
                    .max(drained);
                let kill = self
                    .machine
                    .over_at()
                    .and_then(|over| over.checked_sub(UNKILLABLE + last));
                assert!(
                    kill.is_some() && kill <= latest,
                    "would kill too late: {kill:?} > {latest:?}"
                );
            }
            State::Killing { until, .. } => assert!(
                until <= self.now + LATE + UNKILLABLE,
                "would give up too late"
            ),
            State::Running { .. } => {
                assert_eq!(
                    self.machine.next_step(),
                    self.runs_until,
                    "another run time than was asked for"
                );
            }
            State::Done(_) => {}
        }
    }

    /// Whatever has happened: once the child ends and nobody is left, so do we; and a child that
    /// obeys nothing, once it was asked to stop and there is a deadline, is killed in bounded time.
    pub(super) fn ends(&self) {
        let mut gentle = self.clone();
        let soon = Duration::from_millis(1);
        if self.suspended.is_some() {
            gentle.take(
                gentle.now + soon,
                Event::Resumed {
                    suspended: true,
                    stopped: true,
                },
            );
        }
        if gentle.terminal.looking {
            gentle.take(gentle.now, Event::TerminalSeen { prompt: false });
        }
        let mut stubborn = gentle.clone();
        for event in [Event::ChildExited(Exit::Code(3)), Event::NoChildren] {
            if !gentle.is_done() && gentle.is_possible(event) {
                gentle.take(gentle.now + soon, event);
            }
        }
        assert!(
            gentle.is_done(),
            "cannot end: {}",
            show_state(gentle.machine.state())
        );
        for _ in 0..1000 {
            let due = match (stubborn.machine.state(), stubborn.machine.next_step()) {
                // The passes of SIGKILL between are left out.
                (State::Killing { until, .. }, _) if !stubborn.machine.last_second => until,
                (_, Some(deadline)) => deadline,
                (_, None) => break,
            };
            stubborn.take(due.max(stubborn.now), Event::Timeout);
        }
        let state = stubborn.machine.state();
        let unbounded = self.machine.settings.ladder.total(0).is_none();
        assert!(
            stubborn.is_done() || unbounded || matches!(state, State::Running { .. }),
            "hangs: {}",
            show_state(state)
        );
    }
}
