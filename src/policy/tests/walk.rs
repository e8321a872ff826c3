//! Every sequence of events up to a length, in every kill mode, held to what must never be otherwise.

use super::*;

/// How many events a sequence has.
const LENGTH: usize = 6;

/// What is true of the processes, as opposed to what the machine believes.
#[derive(Clone, Debug)]
struct World {
    machine: Machine,
    now: Instant,
    child_ended: bool,
    nobody_left: bool,
    kills_of_child: usize,
    exits: usize,
    suspended: bool,
    hook: bool,
    hook_ended: bool,
    job_control: bool,
}

impl World {
    fn new(settings: &Settings) -> Self {
        Self {
            machine: Machine::new(settings.clone(), at(0)),
            now: at(0),
            child_ended: false,
            nobody_left: false,
            kills_of_child: 0,
            exits: 0,
            suspended: false,
            hook: false,
            hook_ended: false,
            job_control: settings.job_control,
        }
    }

    /// What can happen next; while we are stopped ourselves, only the end of that. Times move on by a millisecond, or to the deadline.
    fn possible(&self) -> Vec<(Instant, Event)> {
        // Far enough apart for a repeat.
        let next = self.now + BURST;
        if self.suspended {
            return [false, true].map(|suspended| (next, Event::Resumed { suspended, stopped: !suspended })).to_vec();
        }
        let send = if self.job_control { to_group } else { from };
        let mut events: Vec<_> = SIGNALS.iter().map(|&(side, signal)| (next, send(side, signal))).collect();
        events.push((next, Event::ExtendGrace(Duration::from_secs(30))));
        // Pending together with what came before.
        events.push((self.now, from(Side::Process, Signal::TERM)));
        if !self.child_ended {
            events.push((next, Event::ChildExited(Exit::Code(3))));
        } else if !self.nobody_left {
            events.push((next, Event::NoChildren));
        }
        if matches!(self.machine.state(), State::Killing { .. }) {
            events.push((next, Event::Refused));
        }
        if self.hook {
            events.push((next, Event::HookExited));
            events.push((next, Event::HookAlone));
        }
        if !self.child_ended {
            events.push((next, Event::ChildStopped { signal: Signal::TSTP, wants_terminal: false }));
        }
        if let Some(deadline) = self.machine.deadline() {
            events.push((deadline.max(next), Event::Timeout));
        }
        events
    }

    /// Takes one event and checks what must hold after each.
    fn take(&mut self, now: Instant, event: Event) {
        let before = self.machine.state();
        self.now = now;
        // A child that has ended is reaped once the actions are done: it may still be signalled now, and never later.
        let reaped = self.child_ended;
        self.child_ended |= matches!(event, Event::ChildExited(_));
        self.nobody_left |= event == Event::NoChildren;
        if event == Event::HookExited {
            (self.hook, self.hook_ended) = (false, false);
        }
        self.suspended &= !matches!(event, Event::Resumed { .. });
        for action in self.machine.step(now, event) {
            match action {
                Action::Send { signal, to, .. } => {
                    assert!(!self.nobody_left, "signals nobody");
                    assert!(to == Target::All || !reaped, "signals a reaped child");
                    if signal == Signal::KILL && !matches!(before, State::Killing { .. }) {
                        self.kills_of_child += usize::from(!reaped);
                    }
                }
                Action::SuspendSelf(_) => self.suspended = true,
                Action::LendTerminal | Action::NotifyStopping => {}
                Action::RunHook(_) => {
                    assert!(!self.hook, "two hooks at a time");
                    self.hook = true;
                }
                Action::EndHook => {
                    assert!(self.hook, "ends a hook that does not run");
                    self.hook_ended = true;
                }
                Action::Exit(_) => self.exits += 1,
            }
        }
        assert!(self.kills_of_child <= 1, "kills the child twice");
        let done = matches!(self.machine.state(), State::Done(_));
        assert_eq!(self.exits, usize::from(done), "one exit, and with it the end");
        let killed_all = self.nobody_left || self.hook_ended || matches!(event, Event::Refused | Event::Timeout);
        assert!(!done || !self.hook || killed_all, "leaves a hook behind");
        assert!(!self.nobody_left || done, "goes on with nobody left");
        if let Some(deadline) = self.machine.deadline() {
            assert!(!done, "a deadline behind the end");
            assert!(event != Event::Timeout || deadline > now, "spins");
        }
        if matches!(before, State::Done(_)) {
            assert_eq!(self.machine.state(), before, "rises from the dead");
        }
    }

    /// Whatever has happened: once the child ends and nobody is left, so do we; and a child that obeys nothing, once it was asked
    /// to stop and there is a deadline, is killed in bounded time.
    fn ends(&self) {
        let mut gentle = self.clone();
        if self.suspended {
            gentle.take(gentle.now + Duration::from_millis(1), Event::Resumed { suspended: true, stopped: true });
        }
        let mut stubborn = gentle.clone();
        for event in [Event::ChildExited(Exit::Code(3)), Event::NoChildren] {
            let due = match event {
                Event::ChildExited(_) => !gentle.child_ended,
                _ => !gentle.nobody_left,
            };
            if due && !matches!(gentle.machine.state(), State::Done(_)) {
                gentle.take(gentle.now + Duration::from_millis(1), event);
            }
        }
        assert!(matches!(gentle.machine.state(), State::Done(_)), "cannot end: {}", show_state(gentle.machine.state()));
        for _ in 0..10 {
            match (stubborn.machine.state(), stubborn.machine.deadline()) {
                // What comes between is SIGKILL again and again.
                (State::Killing { until, .. }, _) => stubborn.take(until, Event::Timeout),
                (_, Some(deadline)) => stubborn.take(deadline.max(stubborn.now), Event::Timeout),
                (_, None) => break,
            }
        }
        let state = stubborn.machine.state();
        assert!(matches!(state, State::Done(_) | State::Running { .. }), "hangs: {}", show_state(state));
    }
}

/// A request from each of three sides, one that is only forwarded. What the terminal and the tree send has reached the child, where
/// there is job control.
const SIGNALS: [(Side, Signal); 4] = [
    (Side::Process, Signal::TERM),
    (Side::Manager, Signal::INT),
    (Side::Terminal, Signal::INT),
    (Side::Tree, Signal::HUP),
];

fn walk(world: &World, left: usize, path: &mut Vec<Event>, count: &mut usize) {
    *count += 1;
    world.ends();
    if left == 0 {
        return;
    }
    for (now, event) in world.possible() {
        path.push(event);
        let mut next = world.clone();
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| next.take(now, event)));
        assert!(checked.is_ok(), "after {path:#?}");
        walk(&next, left - 1, path, count);
        path.pop();
    }
}

#[test]
fn every_short_sequence_keeps_the_invariants() {
    let mut count = 0;
    for kill_mode in [KillMode::Process, KillMode::Mixed, KillMode::Group] {
        for (wait_tree, job_control, ladder, runs) in [
            (false, false, "TERM/3s/KILL", None),
            (false, false, "TERM/2s/KILL", None),
            (false, true, "INT/2s/QUIT/1s/KILL", Some(Duration::from_secs(1))),
            (true, false, "TERM/2s/KILL", Some(Duration::from_secs(1))),
            (false, false, "KILL", None),
        ] {
            if wait_tree && kill_mode == KillMode::Process {
                continue;
            }
            // The walk through the preparations.
            let hooks = usize::from(ladder == "TERM/3s/KILL");
            let stop_delay = Duration::from_secs(hooks as u64);
            let ladder = ladder.parse().unwrap();
            let settings = Settings {
                hooks,
                stop_delay,
                ladder,
                kill_mode,
                wait_tree,
                job_control,
                max_runtime: runs,
                ..settings()
            };
            walk(&World::new(&settings), LENGTH, &mut vec![], &mut count);
        }
    }
    assert!(count > 1_000_000, "walked only {count} prefixes");
}
