//! Stops event by event, with exact times. Most end with a check of the armed deadline,
//! because a deadline that stays armed is the typical defect here.

use super::*;

/// Plays events against a machine, and compares its actions with the expected ones.
struct Play(Machine);

impl Play {
    fn new(given: impl Into<Given>) -> Self {
        Self(given.into().machine())
    }

    /// The actions at `time`, and the exit status if `event` ends the supervision.
    fn show(&mut self, time: u64, event: Event) -> String {
        let was_done = matches!(self.0.phase(), Phase::Done(_));
        let actions = self.0.step(at(time), event).actions;
        show_all(&actions, Some(&self.0).filter(|_| !was_done))
    }

    /// At `time`, `event` leads to exactly `actions`.
    fn then(mut self, time: u64, event: Event, actions: &str) -> Self {
        let before = show_state(&self.0);
        // Separate tests assert that the manager is notified.
        let done = self.show(time, event);
        let done = done.trim_end_matches("notify").trim_end();
        assert_eq!(done, actions, "at {time}: {event:?} in {before}");
        self
    }

    /// Plays the ticks before `time`. Once all descendants were asked to stop, the machine looks
    /// for new children every 500 ms.
    fn ticks(mut self, time: u64) -> Self {
        while let Some(tick) = self.0.tick
            && millis(tick) < u128::from(time)
            && self.0.deadline() == Some(tick)
        {
            let done = self.0.step(tick, Event::Timeout).actions;
            let new = |action: &Action| {
                matches!(
                    action,
                    Action::Send {
                        to: Target::NewChildren,
                        wake: true,
                        ..
                    }
                )
            };
            assert!(
                done.len() == 1 && new(&done[0]),
                "a tick: {}",
                show_all(&done, None)
            );
            assert_eq!(self.0.tick, Some(tick + Duration::from_millis(500)));
        }
        self
    }

    /// The next deadline is at `time`, and it leads to `actions`; a millisecond earlier nothing
    /// happens.
    fn deadline(self, time: u64, actions: &str) -> Self {
        let mut play = self.ticks(time);
        assert_eq!(play.0.deadline().map(millis), Some(u128::from(time)));
        let early = play.0.step(at(time - 1), Event::Timeout);
        assert_eq!(early, Step::default(), "a deadline before its time");
        play.then(time, Event::Timeout, actions)
    }

    /// Nothing more happens.
    fn idle(self, state: &str) {
        assert_eq!(
            (show_state(&self.0), self.0.deadline()),
            (state.into(), None)
        );
    }
}

/// The end of the grace period: the descendants were not asked to stop before.
const LAST: &str = "KILL>child TERM+CONT>unasked";
/// A service manager is notified.
const UNDER_MANAGER: Place = Place {
    announces: true,
    ..NOWHERE
};
const EXIT_3: Event = Event::ChildExited(Exit::Code(3));
const NONE_LEFT: Event = Event::NoneLeft { hook: false };
const HOOK_LEFT: Event = Event::NoneLeft { hook: true };
/// SIGKILL reaches no process, and two refuse it.
const REFUSED: Event = Event::Killed {
    reached: 0,
    refused: 2,
};
const KILLED: Event = Event::ChildExited(Exit::Signal(Signal::KILL));

fn process(signal: Signal) -> Event {
    from(Side::Process, signal)
}

fn with_ladder(ladder: &str) -> Settings {
    Settings {
        ladder: ladder.parse().unwrap(),
        ..settings()
    }
}

#[test]
fn a_child_that_ends_by_itself() {
    Play::new(settings())
        .then(5, EXIT_3, "TERM+CONT>unasked")
        .then(5, NONE_LEFT, "exit 3")
        .idle("Done:3");
}

/// With `--parent-death-signal KILL`, in each phase.
#[test]
fn the_parents_exit_kills_all_at_once() {
    let exited = || from(Side::Manager, Signal::KILL);
    Play::new(settings())
        .then(5, exited(), "KILL>all")
        .then(6, KILLED, "")
        .then(7, NONE_LEFT, "exit SIGKILL");
    Play::new(settings())
        .then(5, process(Signal::TERM), "TERM+CONT>child")
        .then(6, exited(), "KILL>all");
    Play::new(settings())
        .then(5, EXIT_3, "TERM+CONT>unasked")
        .then(6, exited(), "KILL>all")
        .then(7, exited(), "");
    let hooks = Settings {
        hooks: 1,
        ..settings()
    };
    Play::new(hooks)
        .then(5, process(Signal::TERM), "hook#0")
        .then(6, exited(), "end-hook KILL>all");
    let alone = Settings {
        kill_mode: KillMode::Process,
        ..settings()
    };
    Play::new(alone).then(5, exited(), "KILL>child");
}

#[test]
fn a_child_that_obeys() {
    Play::new(settings())
        .then(1000, process(Signal::TERM), "TERM+CONT>child")
        .then(3000, EXIT_3, "TERM+CONT>unasked")
        .then(3000, NONE_LEFT, "exit 3")
        .idle("Done:3");
}

#[test]
fn a_child_that_does_not_obey_is_killed_at_the_end_of_the_grace_period() {
    Play::new(settings())
        .then(1000, process(Signal::INT), "INT+CONT>child")
        .deadline(9000, LAST)
        .then(9001, KILLED, "")
        .then(9002, NONE_LEFT, "exit SIGKILL")
        .idle("Done:SIGKILL");
}

#[test]
fn the_drain_has_the_rest_of_the_grace_period() {
    Play::new(settings())
        .then(1000, process(Signal::TERM), "TERM+CONT>child")
        .then(3000, EXIT_3, "TERM+CONT>unasked")
        .deadline(9000, "KILL>all")
        .then(9001, NONE_LEFT, "exit 3")
        .idle("Done:3");
}

#[test]
fn a_drain_without_a_request_has_the_whole_grace_period() {
    Play::new(settings())
        .then(3000, EXIT_3, "TERM+CONT>unasked")
        .deadline(11_000, "KILL>all")
        .then(11_001, NONE_LEFT, "exit 3")
        .idle("Done:3");
}

#[test]
fn the_ladder_is_climbed_rung_by_rung() {
    Play::new(with_ladder("TERM/30s/QUIT/5s/KILL"))
        .then(1000, process(Signal::INT), "TERM+CONT>child")
        .deadline(31_000, "QUIT+CONT>child")
        .deadline(36_000, LAST)
        .then(36_001, KILLED, "")
        .then(36_001, NONE_LEFT, "exit SIGKILL")
        .idle("Done:SIGKILL");
}

#[test]
fn the_drain_has_the_rest_of_the_whole_ladder() {
    Play::new(with_ladder("TERM/30s/QUIT/5s/KILL"))
        .then(1000, process(Signal::TERM), "TERM+CONT>child")
        .then(2000, EXIT_3, "TERM+CONT>unasked")
        .deadline(36_000, "KILL>all")
        .then(36_000, NONE_LEFT, "exit 3")
        .idle("Done:3");
}

#[test]
fn a_second_request_from_the_same_side_kills_at_once() {
    for side in [
        Side::Terminal,
        Side::Outside,
        Side::Manager,
        Side::Process,
        Side::Tree,
    ] {
        for first in [Signal::TERM, Signal::INT, Signal::ABRT] {
            for second in [Signal::TERM, Signal::INT, Signal::ABRT] {
                let mut play = Play::new(settings());
                play.show(1000, from(side, first));
                let done = play.show(1100, from(side, second));
                assert_eq!(done, "KILL>all", "{side}: {first}, {second}");
            }
        }
    }
}

#[test]
fn a_request_from_another_side_is_not_a_repeat() {
    let sides = [
        Side::Terminal,
        Side::Outside,
        Side::Manager,
        Side::Process,
        Side::Tree,
    ];
    for one in sides {
        for other in sides.into_iter().filter(|other| *other != one) {
            Play::new(settings())
                .then(1000, from(one, Signal::TERM), "TERM+CONT>child")
                .then(1100, from(other, Signal::TERM), "")
                .then(1200, from(other, Signal::INT), "KILL>all");
        }
    }
}

/// As timeout(1) does: to its child, then to its group.
#[test]
fn signals_of_one_burst_are_one_request() {
    Play::new(settings())
        .then(1000, process(Signal::TERM), "TERM+CONT>child")
        .then(1049, process(Signal::TERM), "")
        .then(1049, process(Signal::INT), "INT+CONT>child")
        .then(1050, process(Signal::TERM), "KILL>all");
}

#[test]
fn another_sides_other_signal_is_forwarded_once() {
    Play::new(settings())
        .then(1000, from(Side::Process, Signal::ABRT), "ABRT+CONT>child")
        .then(2000, from(Side::Outside, Signal::TERM), "TERM+CONT>child")
        .then(3000, from(Side::Manager, Signal::ABRT), "")
        .deadline(9000, LAST);
}

#[test]
fn signals_pending_together_are_one_request() {
    Play::new(settings())
        .then(1000, process(Signal::HUP), "HUP>child")
        .then(1000, process(Signal::INT), "INT+CONT>child")
        .then(1000, process(Signal::TERM), "TERM+CONT>child")
        .then(1000, process(Signal::CONT), "CONT>child")
        .deadline(9000, LAST);
}

#[test]
fn cont_and_hup_are_never_a_repeat() {
    Play::new(settings())
        .then(1000, process(Signal::TERM), "TERM+CONT>child")
        .then(1001, process(Signal::CONT), "CONT>child")
        .then(1002, process(Signal::HUP), "HUP>child")
        .then(1003, process(usr1()), "USR1>child")
        .deadline(9000, LAST);
}

#[test]
fn a_repeat_can_be_forwarded_or_ignored() {
    Play::new(Settings {
        on_repeat: OnRepeat::Forward,
        ..settings()
    })
    .then(1000, process(Signal::TERM), "TERM+CONT>child")
    .then(2000, process(Signal::TERM), "TERM+CONT>child")
    .deadline(9000, LAST);
    Play::new(Settings {
        on_repeat: OnRepeat::Ignore,
        ..settings()
    })
    .then(1000, process(Signal::TERM), "TERM+CONT>child")
    .then(1700, process(Signal::INT), "")
    .deadline(9000, LAST);
    // Another signal of the same burst is not a duplicate, even where `--remap` translates both
    // into the same one.
    let remap = Remap::new(vec!["TERM:INT".parse().unwrap()]);
    Play::new(Settings {
        on_repeat: OnRepeat::Forward,
        remap,
        ..settings()
    })
    .then(1000, process(Signal::TERM), "INT+CONT>child")
    .then(1010, process(Signal::TERM), "")
    .then(1020, process(Signal::INT), "INT+CONT>child");
    // The terminal sends each Ctrl-C to the child, too: bowout sends nothing.
    let ctrl_c = to_group(Side::Terminal, Signal::INT);
    Play::new(Settings {
        on_repeat: OnRepeat::Forward,
        ..settings()
    })
    .then(1000, ctrl_c, "")
    .then(2000, ctrl_c, "")
    .deadline(9000, LAST);
}

#[test]
fn a_hang_up_that_a_process_sends_can_be_a_request_and_a_repeat() {
    Play::new(Settings {
        stop_on: Some(SignalSet::of(&[Signal::HUP])),
        ..settings()
    })
    .then(1000, process(Signal::HUP), "HUP+CONT>child")
    .then(2000, process(Signal::HUP), "KILL>all");
}

/// bowout looks up the sender before it forwards a signal only where the sender's side changes the
/// actions.
#[test]
fn a_side_is_weighed_where_it_makes_a_difference() {
    for (job_control, pid1) in [(false, false), (false, true), (true, false), (true, true)] {
        let place = Place {
            job_control,
            pid1,
            ..NOWHERE
        };
        // The child is in the group of bowout where there is job control.
        let send = if job_control { to_group } else { from };
        let catchable = (1..=64).filter_map(Signal::new);
        for signal in catchable.filter(|signal| signal.catchable()) {
            for begun in [false, true] {
                let mut machine = Given::from(place).machine();
                if begun {
                    let _ = machine.step(at(500), from(Side::Process, Signal::TERM));
                }
                let sent_by = |side| {
                    let actions = machine.clone().step(at(1000), send(side, signal)).actions;
                    // The actions alone are compared: the fact names the side.
                    show_all(&actions, None)
                };
                let differ = sent_by(Side::Tree) != sent_by(Side::Process);
                let Event::Signal(received) = send(Side::Process, signal) else {
                    unreachable!()
                };
                let weighs = machine.weighs_side(received);
                assert!(weighs || !differ, "{signal}, {place:?}, {begun}");
                // With job control, bowout always looks up the sender: it does not forward a signal
                // that the child has received.
                assert!(
                    weighs == differ || (job_control && !pid1),
                    "{signal}, {place:?}, {begun}"
                );
            }
        }
    }
}

/// The first request is taken for one of [`Side::Process`] until its sender is looked up.
#[test]
fn a_side_that_is_settled_later_counts() {
    let settled = |side| {
        let mut play = Play::new(settings()).then(1000, process(Signal::TERM), "TERM+CONT>child");
        play.0.settle_side(side);
        play
    };
    settled(Side::Tree)
        .then(2000, process(Signal::TERM), "")
        .then(2100, from(Side::Tree, Signal::TERM), "KILL>all");
    settled(Side::Tree).then(2000, from(Side::Tree, Signal::TERM), "KILL>all");
    settled(Side::Process).then(2000, process(Signal::TERM), "KILL>all");
    // Both sides have sent a request.
    let mut both = Play::new(settings())
        .then(1000, from(Side::Tree, Signal::TERM), "TERM+CONT>child")
        .then(1500, process(Signal::TERM), "");
    both.0.settle_side(Side::Tree);
    both.then(1540, process(Signal::TERM), "").then(
        1545,
        from(Side::Tree, Signal::TERM),
        "KILL>all",
    );
    // Neither side has sent one.
    let mut none = Play::new(settings());
    none.0.settle_side(Side::Tree);
    none.then(1000, from(Side::Tree, Signal::TERM), "TERM+CONT>child");
}

/// `--stop-on` is the whole set; without it, the set is TERM, INT, ABRT, a hang-up and the first
/// signal of the ladder, less the signals that were ignored at the start (nohup(1)).
#[test]
fn which_signals_are_stop_requests() {
    let asks = |given: Given| {
        let machine = given.machine();
        let signals = (1..=64).filter_map(Signal::new);
        let asking = |side| {
            let asks = signals.clone().filter(|signal| {
                machine.is_stop_request(Received {
                    signal: *signal,
                    side,
                    value: None,
                    shared_group: false,
                })
            });
            let names = asks.map(|signal| signal.to_string()[3..].to_owned());
            names.collect::<Vec<_>>().join(" ")
        };
        [Side::Process, Side::Terminal].map(asking)
    };
    let on = |signals: &[Signal]| Settings {
        stop_on: Some(SignalSet::of(signals)),
        ..settings()
    };
    let ignoring = |signals: &[Signal]| Place {
        ignored: SignalSet::of(signals),
        ..NOWHERE
    };
    for (given, asking) in [
        (
            settings().into(),
            ["INT ABRT KILL TERM", "HUP INT ABRT KILL TERM"],
        ),
        (
            with_ladder("QUIT/1s/TERM/1s/KILL").into(),
            ["INT QUIT ABRT KILL TERM", "HUP INT QUIT ABRT KILL TERM"],
        ),
        (
            with_ladder("WINCH/1s/KILL").into(),
            ["INT ABRT KILL TERM WINCH", "HUP INT ABRT KILL TERM"],
        ),
        (
            on(&[Signal::WINCH, Signal::HUP]).into(),
            ["HUP KILL WINCH", "HUP KILL"],
        ),
        (on(&[Signal::QUIT]).into(), ["QUIT KILL"; 2]),
        (
            ignoring(&[Signal::HUP, Signal::INT]).into(),
            ["ABRT KILL TERM"; 2],
        ),
        // `--stop-on` overrides the ignored signals.
        (
            (
                on(&[Signal::HUP, Signal::INT]),
                ignoring(&[Signal::HUP, Signal::INT]),
            )
                .into(),
            ["HUP INT KILL"; 2],
        ),
        (
            Settings {
                keys_stop: false,
                ..with_ladder("QUIT/1s/KILL")
            }
            .into(),
            ["INT QUIT ABRT KILL TERM", "HUP ABRT KILL TERM"],
        ),
    ] {
        assert_eq!(asks(given), asking);
    }
}

#[test]
fn a_remap_changes_the_signal_sent_and_not_which_signals_are_requests() {
    let rules = Remap::new(vec!["TERM:0".parse().unwrap(), "INT:TERM".parse().unwrap()]);
    let given = Settings {
        remap: rules,
        ..settings()
    };
    let mut machine = Given::from(given).machine();
    let mut fact = |signal| machine.step(at(1000), process(signal)).fact;
    for (signal, asks, became) in [
        (Signal::TERM, false, Outcome::NotForwarded(Reason::Dropped)),
        (Signal::HUP, false, Outcome::Forwarded),
        (Signal::INT, true, Outcome::Began(Waiting::Child)),
    ] {
        let Some(Fact::Signal {
            request, outcome, ..
        }) = fact(signal)
        else {
            panic!("{signal} has no fact")
        };
        assert_eq!((request, outcome), (asks, became), "{signal}");
    }
}

/// timeout(1) sends its two signals a millisecond apart. The second stays pending while bowout acts
/// on the first.
#[test]
fn a_request_pending_with_the_first_is_not_a_repeat() {
    let mut play = Play::new(settings()).then(1000, process(Signal::TERM), "TERM+CONT>child");
    play.0.acted(at(1000), at(1150));
    let mut play = play
        .then(1160, process(Signal::TERM), "")
        .then(1199, process(Signal::TERM), "");
    // Acting on a later request changes nothing.
    play.0.acted(at(1199), at(1300));
    play.then(1200, process(Signal::TERM), "KILL>all");
    // bowout was stopped while it acted: at most 200 ms count.
    let mut play = Play::new(settings()).then(1000, process(Signal::TERM), "TERM+CONT>child");
    play.0.acted(at(1000), at(6000));
    play.then(1249, process(Signal::TERM), "")
        .then(1250, process(Signal::TERM), "KILL>all");
}

#[test]
fn a_stop_that_is_asked_for_in_the_drain_is_announced() {
    let mut play = Play::new(UNDER_MANAGER);
    play.show(1000, EXIT_3);
    assert_eq!(play.0.deadline(), Some(at(1500)));
    assert_eq!(play.show(1500, Event::Timeout), "TERM+CONT>new");
    assert_eq!(play.show(1700, process(Signal::TERM)), "notify");
    assert_eq!(play.0.deadline(), Some(at(2000)));
    assert_eq!(play.show(2000, Event::Timeout), "notify TERM+CONT>new");
    // The stop is announced once.
    assert_eq!(play.show(2600, from(Side::Manager, Signal::TERM)), "");
}

/// A process is forked, or becomes bowout's own child, after every descendant was asked to stop.
#[test]
fn new_children_are_asked_to_stop() {
    // The stop signal was for the child alone, which stops its descendants itself.
    Play::new(settings())
        .then(1000, process(Signal::TERM), "TERM+CONT>child")
        .then(1100, Event::Reaped, "")
        .then(2000, EXIT_3, "TERM+CONT>unasked")
        .then(2100, Event::Reaped, "TERM+CONT>new")
        .deadline(9000, "KILL>all")
        .then(9001, Event::Reaped, "");
    Play::new(settings())
        .then(1000, Event::Reaped, "")
        .then(2000, process(Signal::TERM), "TERM+CONT>child")
        .deadline(10_000, LAST)
        .then(10_100, Event::Reaped, "TERM+CONT>new")
        .deadline(11_000, "KILL>all");
    let group = Settings {
        kill_mode: KillMode::Group,
        ..settings()
    };
    Play::new(group)
        .then(1000, process(Signal::INT), "INT+CONT>all")
        .then(1100, Event::Reaped, "INT+CONT>new")
        .then(2000, EXIT_3, "TERM+CONT>unasked")
        .then(2100, Event::Reaped, "TERM+CONT>new")
        .deadline(9000, "KILL>all");
    // With `--wait-tree`, new children are sent the signal of the present rung.
    let tree = Settings {
        wait_tree: true,
        ..with_ladder("TERM/2s/QUIT/1s/KILL")
    };
    Play::new(tree)
        .then(10, EXIT_3, "")
        .then(20, Event::Reaped, "")
        .then(1000, process(Signal::INT), "TERM+CONT>all")
        .then(1100, Event::Reaped, "TERM+CONT>new")
        .deadline(3000, "QUIT+CONT>all")
        .then(3100, Event::Reaped, "QUIT+CONT>new")
        .deadline(4000, "KILL>all");
    Play::new(Settings {
        kill_mode: KillMode::Process,
        ..settings()
    })
    .then(1000, process(Signal::TERM), "TERM+CONT>child")
    .then(1100, Event::Reaped, "");
}

#[test]
fn a_repeat_cuts_the_drain_short() {
    Play::new(settings())
        .then(1000, process(Signal::TERM), "TERM+CONT>child")
        .then(2000, EXIT_3, "TERM+CONT>unasked")
        .then(3000, from(Side::Manager, Signal::TERM), "")
        .then(4000, process(Signal::TERM), "KILL>all")
        .then(4001, NONE_LEFT, "exit 3")
        .idle("Done:3");
}

#[test]
fn a_third_request_sends_no_second_sigkill() {
    Play::new(settings())
        .then(1000, process(Signal::TERM), "TERM+CONT>child")
        .then(2000, process(Signal::TERM), "KILL>all")
        .then(2001, process(Signal::TERM), "")
        .then(2002, process(usr1()), "")
        .then(2003, KILLED, "")
        .then(2004, NONE_LEFT, "exit SIGKILL")
        .idle("Done:SIGKILL");
}

#[test]
fn ctrl_c_reaches_the_child_once() {
    let ctrl_c = to_group(Side::Terminal, Signal::INT);
    Play::new(settings())
        .then(1000, ctrl_c, "")
        .deadline(9000, LAST);
    Play::new(settings())
        .then(1000, ctrl_c, "")
        .then(2000, ctrl_c, "KILL>all");
    // A shell may send SIGINT to bowout after it received the same Ctrl-C. This is not a second
    // request, and the child has received SIGINT already.
    Play::new(settings())
        .then(1000, ctrl_c, "")
        .then(1001, from(Side::Manager, Signal::INT), "")
        .deadline(9000, LAST);
    // A stop signal that the user chose is sent: the terminal has sent another signal.
    let chosen = Settings {
        ladder: Ladder::new(Some(Signal::QUIT), Some(Duration::from_secs(8))),
        ..settings()
    };
    Play::new(chosen)
        .then(1000, ctrl_c, "pause QUIT+CONT>child")
        .deadline(9000, LAST);
    // A child outside bowout's group has not received it.
    Play::new(settings())
        .then(1000, from(Side::Terminal, Signal::INT), "INT+CONT>child")
        .deadline(9000, LAST);
}

#[test]
fn the_keys_can_be_left_to_the_child() {
    let init = || Settings {
        keys_stop: false,
        ..settings()
    };
    Play::new((init(), TERMINAL))
        .then(1000, to_group(Side::Terminal, Signal::INT), "")
        .idle("Running");
    Play::new((init(), TERMINAL)).then(1000, from(Side::Outside, Signal::INT), "INT+CONT>child");
    let quit = Settings {
        stop_on: Some(SignalSet::of(&[Signal::QUIT])),
        ..init()
    };
    Play::new((quit.clone(), TERMINAL))
        .then(1000, to_group(Side::Terminal, Signal::QUIT), "")
        .idle("Running");
    Play::new((quit, TERMINAL)).then(1000, from(Side::Outside, Signal::QUIT), "QUIT+CONT>child");
}

#[test]
fn ctrl_z_stops_the_clock() {
    let stopped = stopped(Signal::TSTP);
    let woken = Event::Resumed {
        suspended: true,
        stopped: true,
    };
    let job = || {
        let bounded = Settings {
            max_runtime: Some(Duration::from_secs(60)),
            ..settings()
        };
        (bounded, TERMINAL)
    };
    Play::new(job())
        .then(1000, to_group(Side::Terminal, Signal::INT), "")
        .then(3000, stopped, "suspend SIGTSTP")
        .then(503_000, woken, "wake")
        .deadline(509_000, LAST);
    Play::new(job())
        .then(10_000, stopped, "suspend SIGTSTP")
        .then(500_000, woken, "wake")
        .deadline(550_000, "TERM+CONT>child");
    // `fg` continues the whole group: bowout does not wake the child again.
    Play::new(job())
        .then(10_000, stopped, "suspend SIGTSTP")
        .then(
            500_000,
            Event::Resumed {
                suspended: true,
                stopped: false,
            },
            "",
        );
    // A deadline of `never` stays `never`.
    let never = Settings {
        ladder: Ladder::new(None, None),
        ..settings()
    };
    Play::new((never, TERMINAL))
        .then(1000, process(Signal::TERM), "TERM+CONT>child")
        .then(2000, stopped, "suspend SIGTSTP")
        .then(3000, woken, "wake")
        .idle("Stopping#0@never");
}

#[test]
fn a_job_that_no_shell_can_continue_goes_on() {
    let job = || TERMINAL;
    for signal in [Signal::TSTP, Signal::TTIN, Signal::TTOU] {
        Play::new(job())
            .then(1000, stopped(signal), &format!("suspend {signal}"))
            .then(
                1000,
                Event::Resumed {
                    suspended: false,
                    stopped: true,
                },
                "wake",
            )
            .idle("Running");
    }
    // SIGSTOP is obeyed.
    Play::new(job())
        .then(1000, stopped(Signal::STOP), "suspend SIGSTOP")
        .then(
            1000,
            Event::Resumed {
                suspended: false,
                stopped: true,
            },
            "",
        )
        .idle("Running");
    // Without a terminal there is no job control.
    Play::new(settings())
        .then(1000, stopped(Signal::TSTP), "wake")
        .idle("Running");
    Play::new(settings())
        .then(1000, stopped(Signal::STOP), "")
        .idle("Running");
}

#[test]
fn a_child_in_a_group_of_its_own_is_lent_the_terminal() {
    Play::new(TERMINAL)
        .then(1000, WANTS_TERMINAL, "lend wake")
        .idle("Running");
}

#[test]
fn a_hang_up_stops_and_a_reload_does_not() {
    Play::new(settings())
        .then(1000, from(Side::Terminal, Signal::HUP), "HUP+CONT>child")
        .deadline(9000, LAST);
    Play::new(settings())
        .then(1000, from(Side::Manager, Signal::HUP), "HUP>child")
        .idle("Running");
    // Only the session's leader receives it alone; any other process in the foreground group
    // received it together with the child.
    let hangup = to_group(Side::Terminal, Signal::HUP);
    Play::new(settings())
        .then(1000, hangup, "")
        .deadline(9000, LAST);
    let leader = Place {
        leader: true,
        ..NOWHERE
    };
    Play::new(leader)
        .then(1000, hangup, "HUP+CONT>child")
        .deadline(9000, LAST);
    let nohup = Place {
        ignored: SignalSet::of(&[Signal::HUP]),
        ..leader
    };
    Play::new(nohup)
        .then(1000, hangup, "HUP>child")
        .idle("Running");
    // The shell signals its jobs, and when it exits, the kernel signals them again.
    Play::new(settings())
        .then(1000, hangup, "")
        .then(1005, hangup, "")
        .deadline(9000, LAST);
    let ctrl_c = to_group(Side::Terminal, Signal::INT);
    Play::new(settings())
        .then(1000, ctrl_c, "")
        .then(1005, hangup, "")
        .then(2000, ctrl_c, "KILL>all");
}

#[test]
fn a_resize_never_stops_but_a_winch_can() {
    let winch = Settings {
        stop_on: Some(SignalSet::of(&[Signal::WINCH])),
        ..settings()
    };
    Play::new(winch.clone())
        .then(1000, from(Side::Terminal, Signal::WINCH), "WINCH>child")
        .idle("Running");
    Play::new(winch.clone())
        .then(1000, from(Side::Outside, Signal::WINCH), "WINCH+CONT>child")
        .deadline(9000, LAST);
    Play::new(winch)
        .then(1000, process(Signal::TERM), "TERM>child")
        .idle("Running");
}

/// A process that left the foreground group did not receive the Ctrl-C.
#[test]
fn a_stop_of_the_whole_tree_reaches_processes_outside_the_foreground_group() {
    let ctrl_c = to_group(Side::Terminal, Signal::INT);
    for settings in [
        Settings {
            wait_tree: true,
            ..settings()
        },
        Settings {
            kill_mode: KillMode::Group,
            ..settings()
        },
    ] {
        Play::new(settings.clone())
            .then(1000, ctrl_c, "INT+CONT>others")
            .deadline(9000, "KILL>all");
        Play::new(settings.clone()).then(1000, from(Side::Terminal, Signal::INT), "INT+CONT>all");
        let delayed = Settings {
            stop_delay: Duration::from_secs(1),
            ..settings
        };
        Play::new(delayed)
            .then(1000, ctrl_c, "")
            .deadline(2000, "INT+CONT>others");
    }
    let tree = Settings {
        wait_tree: true,
        ..settings()
    };
    Play::new(tree)
        .then(10, EXIT_3, "")
        .then(500, to_group(Side::Terminal, Signal::WINCH), "WINCH>others")
        .then(1000, ctrl_c, "INT+CONT>others")
        .deadline(9000, "KILL>all");
    let forward = Settings {
        on_repeat: OnRepeat::Forward,
        kill_mode: KillMode::Group,
        ..settings()
    };
    Play::new(forward)
        .then(1000, ctrl_c, "INT+CONT>others")
        .then(2000, ctrl_c, "INT+CONT>others");
}

#[test]
fn a_signal_of_the_tree_is_not_sent_back_in_a_shared_group() {
    for signal in [Signal::TERM, Signal::INT, Signal::ABRT] {
        Play::new(settings())
            .then(1000, to_group(Side::Tree, signal), "")
            .deadline(9000, LAST);
    }
    for signal in [Signal::HUP, usr1()] {
        Play::new(settings())
            .then(1000, to_group(Side::Tree, signal), "")
            .idle("Running");
    }
    // `kill 1` in a container is meant for PID 1. `kill $PPID` is meant for bowout where the child
    // is in another group, which no `kill 0` has reached.
    Play::new(PID1)
        .then(1000, to_group(Side::Tree, Signal::TERM), "TERM+CONT>child")
        .deadline(9000, LAST);
    Play::new(settings())
        .then(1000, from(Side::Tree, Signal::TERM), "TERM+CONT>child")
        .deadline(9000, LAST);
}

#[test]
fn the_kill_modes() {
    Play::new(Settings {
        kill_mode: KillMode::Process,
        ..settings()
    })
    .then(1000, process(Signal::TERM), "TERM+CONT>child")
    .deadline(9000, "KILL>child")
    .then(9001, KILLED, "exit SIGKILL")
    .idle("Done:SIGKILL");
    Play::new(Settings {
        kill_mode: KillMode::Process,
        ..settings()
    })
    .then(1000, EXIT_3, "exit 3")
    .idle("Done:3");
    // The stop signal goes to all processes. The drain sends SIGTERM to the processes that were not
    // sent it.
    let group = Settings {
        kill_mode: KillMode::Group,
        ..settings()
    };
    Play::new(group.clone())
        .then(1000, process(usr1()), "USR1>group")
        .then(1000, to_group(Side::Terminal, Signal::WINCH), "")
        .then(1000, process(Signal::TERM), "TERM+CONT>all")
        .then(2000, EXIT_3, "TERM+CONT>unasked")
        .deadline(9000, "KILL>all");
    Play::new(group)
        .then(1000, process(Signal::INT), "INT+CONT>all")
        .then(2000, EXIT_3, "TERM+CONT>unasked")
        .deadline(9000, "KILL>all");
}

#[test]
fn wait_tree_outlives_the_child() {
    let tree = Settings {
        wait_tree: true,
        ..settings()
    };
    Play::new(tree.clone())
        .then(10, EXIT_3, "")
        .then(60_000, NONE_LEFT, "exit 3")
        .idle("Done:3");
    Play::new(tree.clone())
        .then(10, EXIT_3, "")
        .then(500, process(usr1()), "USR1>all")
        .then(1000, process(Signal::TERM), "TERM+CONT>all")
        .deadline(9000, "KILL>all")
        .then(9001, NONE_LEFT, "exit 3")
        .idle("Done:3");
    Play::new(tree)
        .then(1000, process(Signal::TERM), "TERM+CONT>all")
        .then(1100, EXIT_3, "")
        .then(1200, NONE_LEFT, "exit 3")
        .idle("Done:3");
}

#[test]
fn the_run_time_is_bounded() {
    let bounded = Settings {
        max_runtime: Some(Duration::from_secs(60)),
        ..settings()
    };
    Play::new(bounded.clone())
        .deadline(60_000, "TERM+CONT>child")
        .then(
            60_500,
            Event::ChildExited(Exit::Signal(Signal::TERM)),
            "TERM+CONT>unasked",
        )
        .then(60_500, NONE_LEFT, "exit 124")
        .idle("Done:124");
    Play::new(bounded.clone())
        .deadline(60_000, "TERM+CONT>child")
        .deadline(68_000, LAST);
    // The first request after the end of the run time is not a repeat.
    Play::new(bounded.clone())
        .deadline(60_000, "TERM+CONT>child")
        .then(61_000, process(Signal::TERM), "")
        .deadline(68_000, LAST);
    // A stop that was requested first is not a time-out.
    Play::new(bounded)
        .then(59_000, process(Signal::TERM), "TERM+CONT>child")
        .deadline(67_000, LAST)
        .then(67_001, KILLED, "")
        .then(67_001, NONE_LEFT, "exit SIGKILL")
        .idle("Done:SIGKILL");
}

#[test]
fn without_grace_there_is_no_wait_and_never_is_never() {
    let none = Settings {
        ladder: Ladder::new(None, Some(Duration::ZERO)),
        ..settings()
    };
    Play::new(none.clone())
        .then(1000, process(Signal::TERM), "KILL>all")
        .then(1001, KILLED, "")
        .then(1001, NONE_LEFT, "exit SIGKILL")
        .idle("Done:SIGKILL");
    Play::new(none)
        .then(1000, EXIT_3, "KILL>all")
        .then(1001, NONE_LEFT, "exit 3")
        .idle("Done:3");
    let never = Settings {
        ladder: Ladder::new(None, None),
        ..settings()
    };
    Play::new(never.clone())
        .then(1000, process(Signal::TERM), "TERM+CONT>child")
        .idle("Stopping#0@never");
    Play::new(never)
        .then(1000, process(Signal::TERM), "TERM+CONT>child")
        .then(9_000_000, process(Signal::TERM), "KILL>all");
    let beyond = Settings {
        ladder: Ladder::new(None, Some(Duration::MAX)),
        ..settings()
    };
    Play::new(beyond)
        .then(1000, process(Signal::TERM), "TERM+CONT>child")
        .idle("Stopping#0@never");
}

#[test]
fn remaps_change_the_signal_sent_and_not_the_request() {
    let remap = |rules: &[&str]| Settings {
        remap: Remap::new(rules.iter().map(|rule| rule.parse().unwrap()).collect()),
        ..settings()
    };
    Play::new(remap(&["TERM:QUIT"]))
        .then(1000, process(Signal::TERM), "QUIT+CONT>child")
        .then(2000, process(Signal::TERM), "KILL>all");
    Play::new(remap(&["TERM:0"]))
        .then(1000, process(Signal::TERM), "")
        .idle("Running");
    Play::new(remap(&["USR1:TERM"]))
        .then(1000, process(usr1()), "TERM>child")
        .idle("Running");
    // The child received SIGINT from the terminal, and the user chose SIGTERM.
    Play::new(remap(&["INT:TERM"])).then(
        1000,
        to_group(Side::Terminal, Signal::INT),
        "pause TERM+CONT>child",
    );
}

#[test]
fn bowout_gives_up_on_a_process_that_cannot_be_killed() {
    let killing = || {
        let group = Settings {
            kill_mode: KillMode::Group,
            ..settings()
        };
        Play::new(group)
            .then(1000, process(Signal::TERM), "TERM+CONT>all")
            .deadline(9000, "KILL>all")
    };
    // The exit of PID 1 kills the remaining processes (pid_namespaces(7)). Elsewhere bowout waits:
    // a process that refuses SIGKILL may exit by itself.
    Play::new(PID1)
        .then(1000, process(Signal::TERM), "TERM+CONT>child")
        .deadline(9000, LAST)
        .then(9000, REFUSED, "")
        .deadline(10_000, "KILL>all")
        .then(10_000, REFUSED, "exit 137")
        .idle("Done:137");
    killing()
        .then(9000, REFUSED, "")
        .then(9500, EXIT_3, "")
        .then(9500, NONE_LEFT, "exit 3")
        .idle("Done:3");
    let mut stuck = killing();
    for n in 1..100 {
        stuck = stuck.deadline(9000 + n * 20, "KILL>all");
    }
    stuck.deadline(11_000, "exit 137").idle("Done:137");
    // The time for SIGKILL to work starts after the first pass, which takes long. Later passes find
    // as many processes, and do not start it again.
    let killed = |reached| Event::Killed {
        reached,
        refused: 0,
    };
    let mut many = killing().then(12_000, killed(2000), "");
    for n in 1..100 {
        many = many
            .deadline(12_000 + n * 20, "KILL>all")
            .then(12_000 + n * 20, killed(2000), "");
    }
    many.deadline(14_000, "exit 137").idle("Done:137");
    // Fewer processes are left, and so the time starts again.
    let mut fewer = killing().then(9000, killed(2000), "");
    for n in 1..99 {
        fewer = fewer
            .deadline(9000 + n * 20, "KILL>all")
            .then(9000 + n * 20, killed(2001), "");
    }
    fewer = fewer
        .deadline(10_980, "KILL>all")
        .then(10_990, killed(1999), "");
    for n in 1..100 {
        fewer = fewer
            .deadline(10_990 + n * 20, "KILL>all")
            .then(10_990 + n * 20, killed(1999), "");
    }
    fewer.deadline(12_990, "exit 137").idle("Done:137");
    // As many are left when one of them refuses: the time does not start again.
    let one_refuses = Event::Killed {
        reached: 1999,
        refused: 1,
    };
    let mut as_many = killing().then(9000, killed(2000), "");
    for n in 1..100 {
        as_many = as_many
            .deadline(9000 + n * 20, "KILL>all")
            .then(9000 + n * 20, one_refuses, "");
    }
    as_many.deadline(11_000, "exit 137").idle("Done:137");
    let mut foreign = killing().then(10_000, REFUSED, "");
    for n in 1..100 {
        foreign = foreign
            .deadline(10_000 + n * 20, "KILL>all")
            .then(10_000 + n * 20, REFUSED, "");
    }
    foreign.deadline(12_000, "exit 137").idle("Done:137");
    // A descendant that is left running is a failure, whatever the child's own exit status was.
    let mut left = killing().then(9000, REFUSED, "").then(9001, EXIT_3, "");
    for n in 1..100 {
        left = left
            .deadline(9000 + n * 20, "KILL>all")
            .then(9000 + n * 20, REFUSED, "");
    }
    left.deadline(11_000, "exit 137").idle("Done:137");
}

#[test]
fn hooks_run_in_order_then_the_delay_passes_then_the_stop_signal_is_sent() {
    let prepared = || Settings {
        hooks: 2,
        stop_delay: Duration::from_secs(1),
        ..settings()
    };
    Play::new(prepared())
        .then(1000, process(Signal::TERM), "hook#0")
        .then(2000, Event::HookExited, "hook#1")
        .then(2500, Event::HookExited, "")
        .deadline(3500, "TERM+CONT>child")
        .deadline(9000, LAST);
    Play::new(Settings {
        stop_delay: Duration::from_secs(3),
        ..settings()
    })
    .then(1000, process(Signal::TERM), "")
    .then(1500, process(usr1()), "USR1>child")
    .then(1600, from(Side::Manager, Signal::INT), "")
    .deadline(4000, "TERM+CONT>child INT+CONT>child")
    .deadline(9000, LAST);
}

#[test]
fn the_run_time_and_a_request_bring_one_stop_signal() {
    Play::new(Settings {
        hooks: 1,
        max_runtime: Some(Duration::from_secs(60)),
        ..settings()
    })
    .deadline(60_000, "hook#0")
    .then(61_000, process(Signal::TERM), "")
    .then(62_000, Event::HookExited, "TERM+CONT>child")
    .deadline(68_000, LAST);
}

#[test]
fn a_hook_that_hangs_leaves_the_child_a_quarter() {
    Play::new(Settings {
        hooks: 2,
        ..settings()
    })
    .then(1000, process(Signal::TERM), "hook#0")
    .deadline(7000, "end-hook TERM+CONT>child")
    .then(7001, Event::HookExited, "")
    .deadline(9000, LAST);
    // Or the time that a longer `--stop-delay` leaves.
    Play::new(Settings {
        hooks: 1,
        stop_delay: Duration::from_secs(7),
        ..settings()
    })
    .then(1000, process(Signal::TERM), "hook#0")
    .then(1500, Event::HookExited, "")
    .deadline(8000, "TERM+CONT>child")
    .deadline(9000, LAST);
}

#[test]
fn preparations_are_cut_short() {
    let prepared = || Settings {
        hooks: 1,
        stop_delay: Duration::from_secs(1),
        ..settings()
    };
    Play::new(prepared())
        .then(1000, process(Signal::TERM), "hook#0")
        .then(2000, EXIT_3, "end-hook TERM+CONT>unasked")
        .then(2001, Event::HookExited, "")
        .deadline(9000, "KILL>all");
    Play::new(prepared())
        .then(1000, process(Signal::TERM), "hook#0")
        .then(2000, process(Signal::TERM), "end-hook KILL>all");
    Play::new(Settings {
        kill_mode: KillMode::Process,
        ..prepared()
    })
    .then(1000, process(Signal::TERM), "hook#0")
    .then(2000, EXIT_3, "end-hook exit 3")
    .idle("Done:3");
    Play::new(Settings {
        wait_tree: true,
        ..prepared()
    })
    .then(1000, process(Signal::TERM), "hook#0")
    .then(2000, EXIT_3, "")
    .then(3000, Event::HookExited, "")
    .deadline(4000, "TERM+CONT>all")
    .then(4001, NONE_LEFT, "exit 3")
    .idle("Done:3");
}

#[test]
fn a_hook_that_is_alone_is_ended() {
    Play::new(Settings {
        hooks: 2,
        wait_tree: true,
        ..settings()
    })
    .then(1000, process(Signal::TERM), "hook#0")
    .then(2000, EXIT_3, "")
    .then(2001, HOOK_LEFT, "end-hook")
    .then(2002, Event::HookExited, "")
    .then(2002, NONE_LEFT, "exit 3")
    .idle("Done:3");
}

#[test]
fn without_a_grace_period_nothing_is_prepared() {
    let none = Settings {
        ladder: Ladder::new(None, Some(Duration::ZERO)),
        hooks: 1,
        ..settings()
    };
    Play::new(none).then(1000, process(Signal::TERM), "KILL>all");
    let never = Settings {
        ladder: Ladder::new(None, None),
        hooks: 1,
        stop_delay: Duration::from_secs(1),
        ..settings()
    };
    Play::new(never)
        .then(1000, process(Signal::TERM), "hook#0")
        .then(5000, Event::HookExited, "")
        .deadline(6000, "TERM+CONT>child")
        .idle("Stopping#0@never");
    let hangs = Settings {
        ladder: Ladder::new(None, None),
        hooks: 1,
        ..settings()
    };
    Play::new(hangs)
        .then(1000, process(Signal::TERM), "hook#0")
        .deadline(61_000, "end-hook TERM+CONT>child")
        .idle("Stopping#0@never");
}

#[test]
fn the_preparations_wait_for_a_stopped_job() {
    let delay = Settings {
        stop_delay: Duration::from_secs(2),
        ..settings()
    };
    Play::new((delay, TERMINAL))
        .then(1000, process(Signal::TERM), "")
        .then(2000, stopped(Signal::TSTP), "suspend SIGTSTP")
        .then(
            102_000,
            Event::Resumed {
                suspended: true,
                stopped: true,
            },
            "wake",
        )
        .deadline(103_000, "TERM+CONT>child")
        .deadline(109_000, LAST);
}

#[test]
fn the_manager_is_notified_when_the_stop_begins_and_when_it_takes_longer() {
    let mut play = Play::new(TERMINAL);
    let mut step = |time, event| (play.show(time, event), play.0.over_at().map(millis));
    let (term, usr1) = (process(Signal::TERM), process(usr1()));
    assert_eq!(step(500, usr1), ("USR1>child".into(), None));
    assert_eq!(
        step(1000, term),
        ("TERM+CONT>child notify".into(), Some(12_000))
    );
    assert_eq!(
        step(1500, from(Side::Manager, Signal::TERM)),
        (String::new(), Some(12_000))
    );
    let stopped = stopped(Signal::TSTP);
    assert_eq!(
        step(2000, stopped),
        ("suspend SIGTSTP".into(), Some(12_000))
    );
    assert_eq!(
        step(
            3000,
            Event::Resumed {
                suspended: true,
                stopped: true
            }
        ),
        ("wake notify".into(), Some(13_000))
    );
    assert_eq!(step(10_000, Event::Timeout), (LAST.into(), Some(13_000)));
}

/// A manager that is executed anew loses the notifications that it received.
#[test]
fn the_manager_is_notified_again_and_again() {
    let mut play = Play::new(UNDER_MANAGER);
    assert_eq!(play.0.deadline(), None);
    play.show(1000, process(Signal::TERM));
    for time in (1500..9000).step_by(500) {
        assert_eq!(play.0.deadline().map(millis), Some(u128::from(time)));
        let early = play.show(time - 1, Event::Timeout);
        assert_eq!(early, "", "a deadline before its time");
        assert_eq!(play.show(time, Event::Timeout), "notify");
    }
    assert_eq!(play.show(9000, Event::Timeout), LAST);
    play.show(9001, KILLED);
    play.show(9001, NONE_LEFT);
    assert_eq!(play.show(20_000, Event::Timeout), "", "after the end");
    play.idle("Done:SIGKILL");
}

#[test]
fn the_child_can_ask_for_more_time_up_to_the_most() {
    let more = |secs| Event::ExtendGrace(Duration::from_secs(secs));
    let mut play = Play::new(settings());
    assert_eq!(play.show(500, more(60)), "", "nothing is being stopped");
    play.show(1000, process(Signal::TERM));
    for (time, secs, actions, until) in [
        // Less than the child has.
        (2000, 1, "", 9000),
        (8000, 4, "notify", 12_000),
        // The maximum of 16 s counts from the stop request.
        (11_000, 60, "notify", 17_000),
        (12_000, 60, "", 17_000),
    ] {
        assert_eq!(play.show(time, more(secs)), actions);
        assert_eq!(play.0.deadline().map(millis), Some(until));
    }
    assert_eq!(play.show(17_000, Event::Timeout), LAST);
    assert_eq!(play.show(17_001, more(60)), "");
    // The rungs that follow keep their time.
    let ladder = Settings {
        grace_max: Some(Duration::from_secs(40)),
        ..with_ladder("TERM/30s/QUIT/5s/KILL")
    };
    Play::new(ladder)
        .then(1000, process(Signal::TERM), "TERM+CONT>child")
        .then(2000, more(600), "")
        .deadline(36_000, "QUIT+CONT>child")
        .deadline(41_000, LAST);
    // The drain can be extended, too. Without a maximum, the whole time is granted.
    Play::new(Settings {
        grace_max: None,
        ..settings()
    })
    .then(1000, process(Signal::TERM), "TERM+CONT>child")
    .then(2000, EXIT_3, "TERM+CONT>unasked")
    .then(3000, more(600), "")
    .deadline(603_000, "KILL>all");
}

#[test]
fn a_value_is_passed_on() {
    let queued = Event::Signal(Received {
        signal: usr1(),
        side: Side::Process,
        value: Some(42),
        shared_group: false,
    });
    Play::new(settings())
        .then(1000, queued, "USR1=42>child")
        .idle("Running");
    let term = |value| {
        Event::Signal(Received {
            signal: Signal::TERM,
            side: Side::Process,
            value,
            shared_group: false,
        })
    };
    Play::new(settings())
        .then(1000, term(Some(42)), "TERM=42+CONT>child")
        .deadline(9000, LAST);
    // No process queued the stop signal that the user chose: it has no value.
    let chosen = Settings {
        ladder: Ladder::new(Some(Signal::QUIT), Some(Duration::from_secs(8))),
        ..settings()
    };
    Play::new(chosen).then(1000, term(Some(42)), "QUIT+CONT>child");
}

#[test]
fn a_child_that_vanishes_is_our_own_failure() {
    Play::new(settings())
        .then(1000, NONE_LEFT, "exit 125")
        .idle("Done:125");
}

/// start-stop-daemon --retry INT/2/TERM/5/KILL, parallel --termseq and CI runners escalate by
/// themselves.
#[test]
fn a_sender_that_escalates_is_not_impatient() {
    Play::new(settings())
        .then(1000, process(Signal::INT), "INT+CONT>child")
        .then(1750, process(Signal::TERM), "TERM+CONT>child")
        .then(2500, process(Signal::ABRT), "ABRT+CONT>child")
        .then(9000, process(Signal::INT), "KILL>all");
    // A script waits longer: two signals within 750 ms are from an impatient user.
    Play::new(settings())
        .then(1000, process(Signal::INT), "INT+CONT>child")
        .then(1749, process(Signal::TERM), "KILL>all");
    // The time counts from the sender's previous request.
    Play::new(settings())
        .then(1000, process(Signal::INT), "INT+CONT>child")
        .then(1040, process(Signal::INT), "")
        .then(1789, process(Signal::TERM), "KILL>all");
    // `--stop-signal` replaces the first signal alone, `--remap` translates each. A signal that was
    // sent is not sent again.
    let quit = Settings {
        ladder: Ladder::new(Some(Signal::QUIT), Some(Duration::from_secs(8))),
        ..settings()
    };
    Play::new(quit)
        .then(1000, process(Signal::INT), "QUIT+CONT>child")
        .then(2000, process(Signal::TERM), "TERM+CONT>child")
        .then(2500, process(Signal::TERM), "KILL>all");
    let remap = Settings {
        remap: Remap::new(vec!["TERM:INT".parse().unwrap()]),
        ..settings()
    };
    Play::new(remap)
        .then(1000, process(Signal::INT), "INT+CONT>child")
        .then(2000, process(Signal::TERM), "")
        .deadline(9000, LAST);
    for on_repeat in [OnRepeat::Forward, OnRepeat::Ignore] {
        Play::new(Settings {
            on_repeat,
            ..settings()
        })
        .then(1000, process(Signal::INT), "INT+CONT>child")
        .then(2000, process(Signal::TERM), "TERM+CONT>child");
    }
    // timeout(1) sends each signal to its child and then to its group.
    Play::new(settings())
        .then(1000, process(Signal::INT), "INT+CONT>child")
        .then(1001, process(Signal::INT), "")
        .then(3000, process(Signal::TERM), "TERM+CONT>child")
        .then(3001, process(Signal::TERM), "")
        .then(3050, process(Signal::TERM), "KILL>all");
    // The ladder does not send the signal of a rung that the sender's own escalation has brought.
    Play::new(with_ladder("INT/2s/TERM/1s/KILL"))
        .then(1000, process(Signal::INT), "INT+CONT>child")
        .then(2000, process(Signal::TERM), "TERM+CONT>child")
        .deadline(3000, "")
        .deadline(4000, LAST);
    Play::new(with_ladder("TERM/2s/TERM/1s/KILL"))
        .then(1000, process(Signal::TERM), "TERM+CONT>child")
        .deadline(3000, "TERM+CONT>child");
    // During the preparations, the second signal waits with the first. During the drain, it is not
    // sent.
    Play::new(Settings {
        stop_delay: Duration::from_secs(3),
        ..settings()
    })
    .then(1000, process(Signal::INT), "")
    .then(2000, process(Signal::TERM), "")
    .deadline(4000, "INT+CONT>child TERM+CONT>child");
    Play::new(settings())
        .then(1000, process(Signal::INT), "INT+CONT>child")
        .then(1500, EXIT_3, "TERM+CONT>unasked")
        .then(2000, process(Signal::TERM), "")
        .then(2100, process(Signal::TERM), "KILL>all");
}

/// For example, mariadbd below a mysqld_safe that ignores SIGTERM.
#[test]
fn a_descendant_is_asked_before_it_is_killed() {
    let stubborn = || {
        Play::new(settings())
            .then(1000, process(Signal::TERM), "TERM+CONT>child")
            .deadline(9000, LAST)
    };
    stubborn()
        .then(9001, KILLED, "")
        .then(
            9001,
            Event::Killed {
                reached: 1,
                refused: 0,
            },
            "",
        )
        .then(9002, process(usr1()), "")
        .then(9003, Event::ExtendGrace(Duration::from_secs(9)), "")
        .deadline(10_000, "KILL>all")
        .then(10_001, NONE_LEFT, "exit SIGKILL")
        .idle("Done:SIGKILL");
    stubborn()
        .then(9001, KILLED, "")
        .then(9500, NONE_LEFT, "exit SIGKILL")
        .idle("Done:SIGKILL");
    stubborn().then(9500, process(Signal::TERM), "KILL>all");
    stubborn()
        .then(9500, from(Side::Outside, Signal::TERM), "")
        .then(9600, from(Side::Outside, Signal::TERM), "KILL>all");
    // The child exits at the deadline, and bowout notices the exit first.
    Play::new(settings())
        .then(1000, process(Signal::TERM), "TERM+CONT>child")
        .then(9000, EXIT_3, "TERM+CONT>unasked")
        .deadline(10_000, "KILL>all");
    // The last rung is for the child alone, too; SIGTERM to its descendants follows.
    Play::new(with_ladder("TERM/2s/QUIT/1s/KILL"))
        .then(1000, process(Signal::TERM), "TERM+CONT>child")
        .deadline(3000, "QUIT+CONT>child")
        .deadline(4000, LAST);
    let tree = Settings {
        wait_tree: true,
        ..settings()
    };
    Play::new(tree)
        .then(1000, process(Signal::INT), "INT+CONT>all")
        .deadline(9000, "KILL>all");
}

/// A freezer, SIGSTOP or a suspended machine held the command, too.
#[test]
fn a_deadline_that_is_noticed_late_leaves_a_second() {
    let stopping = || Play::new(settings()).then(1000, process(Signal::TERM), "TERM+CONT>child");
    stopping().then(10_000, Event::Timeout, LAST);
    stopping()
        .then(10_001, Event::Timeout, "")
        .deadline(11_001, LAST);
    stopping()
        .then(60_000, Event::Timeout, "")
        .then(60_001, EXIT_3, "TERM+CONT>unasked")
        .deadline(61_000, "KILL>all");
    stopping()
        .then(2000, EXIT_3, "TERM+CONT>unasked")
        .then(60_000, Event::Timeout, "")
        .deadline(61_000, "KILL>all");
    // A rung before the last is not put off: the next one has its own wait. Descendants have their
    // second, and SIGKILL has its time to work.
    Play::new(with_ladder("TERM/2s/QUIT/1s/KILL"))
        .then(1000, process(Signal::TERM), "TERM+CONT>child")
        .then(60_000, Event::Timeout, "QUIT+CONT>child")
        .deadline(61_000, LAST)
        .then(90_000, Event::Timeout, "")
        .deadline(91_000, "KILL>all")
        .then(95_000, Event::Timeout, "KILL>all")
        .then(95_999, Event::Timeout, "KILL>all")
        .deadline(96_000, "exit 137");
    // Once: a machine that is always late does not put off the end for ever.
    stopping()
        .then(20_000, Event::Timeout, "")
        .then(30_000, Event::Timeout, LAST)
        .then(40_000, Event::Timeout, "")
        .then(50_000, Event::Timeout, "KILL>all")
        .then(60_000, Event::Timeout, "KILL>all")
        .then(70_000, Event::Timeout, "exit 137")
        .idle("Done:137");
}

/// The signal that would be sent counts, not the received one.
#[test]
fn the_child_has_the_signals_of_the_terminal_and_no_other() {
    let ctrl_c = to_group(Side::Terminal, Signal::INT);
    let remap = Remap::new(vec!["INT:USR1".parse().unwrap()]);
    let dumped = Settings {
        stop_on: Some(SignalSet::of(&[Signal::TERM])),
        remap: remap.clone(),
        ..settings()
    };
    Play::new(dumped.clone())
        .then(1000, ctrl_c, "pause USR1>child")
        .idle("Running");
    // A program on the terminal has received SIGINT, but not the signal that `--remap` makes of it.
    let asks = Settings {
        stop_on: Some(SignalSet::of(&[Signal::INT])),
        ..dumped
    };
    Play::new((asks, INTERACTIVE))
        .then(1000, ctrl_c, "pause USR1+CONT>child")
        .deadline(9000, LAST);
    Play::new(Settings {
        remap,
        wait_tree: true,
        ..settings()
    })
    .then(10, EXIT_3, "")
    .then(1000, ctrl_c, "pause USR1+CONT>all");
    let quit = Ladder::new(Some(Signal::QUIT), Some(Duration::from_secs(8)));
    Play::new(Settings {
        ladder: quit,
        on_repeat: OnRepeat::Forward,
        ..settings()
    })
    .then(1000, ctrl_c, "pause QUIT+CONT>child")
    .then(2000, ctrl_c, "pause QUIT+CONT>child");
}

#[test]
fn a_pause_does_not_count_against_the_most() {
    let stopped = stopped(Signal::TSTP);
    Play::new(TERMINAL)
        .then(1000, process(Signal::TERM), "TERM+CONT>child")
        .then(2000, stopped, "suspend SIGTSTP")
        .then(
            102_000,
            Event::Resumed {
                suspended: true,
                stopped: true,
            },
            "wake",
        )
        .then(103_000, Event::ExtendGrace(Duration::from_secs(600)), "")
        .deadline(117_000, LAST);
}

/// `kill -3` and jattach make a JVM print its threads.
#[test]
fn quit_is_forwarded_and_stops_nothing() {
    for event in [
        process(Signal::QUIT),
        from(Side::Tree, Signal::QUIT),
        from(Side::Terminal, Signal::QUIT),
    ] {
        Play::new(settings())
            .then(1000, event, "QUIT>child")
            .idle("Running");
    }
    for side in [Side::Terminal, Side::Tree] {
        Play::new(settings())
            .then(1000, to_group(side, Signal::QUIT), "")
            .idle("Running");
    }
}

/// If bowout stopped with the child, it would never notice a SIGCONT to the child alone.
#[test]
fn a_stop_of_the_child_alone_leaves_bowout_awake() {
    let job = || {
        let bounded = Settings {
            max_runtime: Some(Duration::from_secs(60)),
            ..settings()
        };
        (bounded, TERMINAL)
    };
    for signal in [Signal::STOP, Signal::TSTP, Signal::TTIN, Signal::TTOU] {
        // The deadlines stay: no user has stopped the job. During a stop, bowout wakes a child that
        // SIGSTOP stopped, so that it acts on the stop signal.
        let wakes = if signal == Signal::STOP { "wake" } else { "" };
        Play::new(job())
            .then(1000, to_group(Side::Terminal, Signal::INT), "")
            .then(2000, stopped_alone(signal, true), wakes)
            .deadline(9000, LAST);
        Play::new(job())
            .then(1000, stopped_alone(signal, true), "")
            .deadline(60_000, "TERM+CONT>child");
        // A shell that watches has to see the stop.
        Play::new(job()).then(1000, stopped(signal), &format!("suspend {signal}"));
    }
    // Ctrl-Z to a child that leads a group of its own, where no shell watches: only bowout can
    // continue it.
    Play::new(job()).then(1000, stopped_alone(Signal::TSTP, false), "wake");
    // After a wake, this child would read the terminal again, and stop again.
    Play::new(job()).then(1000, stopped_alone(Signal::TTIN, false), "");
}

/// The kernel signals one process after the other, and a child may catch the signal before it
/// stops.
#[test]
fn a_stop_of_the_whole_group_stops_bowout_in_either_order() {
    let job = || TERMINAL;
    for signal in [Signal::TSTP, Signal::TTIN, Signal::TTOU] {
        let suspend = format!("suspend {signal}");
        for side in [Side::Terminal, Side::Tree] {
            let group = to_group(side, signal);
            Play::new(job()).then(1000, group, "").then(
                1000,
                stopped_alone(signal, true),
                &suspend,
            );
            Play::new(job()).then(1000, group, "").then(
                9000,
                stopped_alone(signal, true),
                &suspend,
            );
            Play::new(job())
                .then(1000, stopped_alone(signal, true), "")
                .then(1001, group, &suspend);
            // SIGKILL works on the stopped child, and bowout has to stay awake for its exit.
            Play::new(job())
                .then(1000, stopped_alone(signal, true), "")
                .then(1001, from(Side::Manager, Signal::KILL), "KILL>all")
                .then(1002, group, "");
            // The signal to the group is not the one that stopped the child, or the stop of the
            // group is over.
            Play::new(job()).then(1000, group, "").then(
                2000,
                stopped_alone(Signal::STOP, true),
                "",
            );
            for over in [stopped(signal), from(Side::Process, Signal::CONT)] {
                let mut play = Play::new(job());
                let _ = play.0.step(at(1000), group);
                let _ = play.0.step(at(1500), over);
                let _ = play.0.step(
                    at(1600),
                    Event::Resumed {
                        suspended: true,
                        stopped: false,
                    },
                );
                play.then(2000, stopped_alone(signal, true), "");
            }
        }
        // bowout forwarded the signal of a process: the child alone has received it.
        Play::new(job())
            .then(
                1000,
                to_group(Side::Process, signal),
                &format!("{}>child", &signal.to_string()[3..]),
            )
            .then(1001, stopped_alone(signal, true), "");
    }
    // The user's pause does not count.
    Play::new(job())
        .then(1000, to_group(Side::Terminal, Signal::INT), "")
        .then(2000, stopped_alone(Signal::TSTP, true), "")
        .then(
            2000,
            to_group(Side::Terminal, Signal::TSTP),
            "suspend SIGTSTP",
        )
        .then(
            12_000,
            Event::Resumed {
                suspended: true,
                stopped: false,
            },
            "",
        )
        .deadline(19_000, LAST);
}

fn interactive(settings: Settings) -> (Settings, Place) {
    (settings, INTERACTIVE)
}

const CTRL_C: Event = Event::Signal(Received {
    signal: Signal::INT,
    side: Side::Terminal,
    value: None,
    shared_group: true,
});

impl Play {
    /// Looks at these times that find no prompt.
    fn no_prompt(mut self, times: impl IntoIterator<Item = u64>) -> Self {
        for time in times {
            self = self.deadline(time, "look").then(time, NO_PROMPT, "");
        }
        self
    }
}

#[test]
fn a_program_at_its_prompt_owns_its_ctrl_c() {
    for time in [1020, 1040, 1060, 1080, 1100] {
        Play::new(INTERACTIVE)
            .then(1000, CTRL_C, "")
            .no_prompt((1020..time).step_by(20))
            .deadline(time, "look")
            .then(time, PROMPT, "")
            .idle("Running");
    }
    // The looks go on for as long as the stop takes, on every rung.
    Play::new(interactive(Settings {
        ladder: "INT/1s/QUIT/5s/KILL".parse().unwrap(),
        ..settings()
    }))
    .then(1000, CTRL_C, "")
    .no_prompt((1020..=1100).step_by(20).chain((1200..2000).step_by(100)))
    .deadline(2000, "QUIT+CONT>child")
    .no_prompt((2000..4000).step_by(100))
    .deadline(4000, "look")
    .then(4000, PROMPT, "")
    .idle("Running");
    // A cancelled stop is forgotten: the next Ctrl-C is a first request, and the signals of the
    // cancelled stop are sent again.
    let chosen = Settings {
        ladder: Ladder::new(Some(Signal::QUIT), Some(Duration::from_secs(8))),
        ..settings()
    };
    let mut play = Play::new(interactive(chosen));
    for time in [1000, 2000] {
        play = play
            .then(time, CTRL_C, "")
            .no_prompt((time + 20..=time + 80).step_by(20))
            .deadline(time + 100, "look")
            .then(time + 100, NO_PROMPT, "QUIT+CONT>child")
            .deadline(time + 200, "look")
            .then(time + 200, PROMPT, "");
    }
    play.idle("Running");
    // A child that has not received the Ctrl-C is sent SIGINT at once.
    Play::new(INTERACTIVE)
        .then(1000, from(Side::Terminal, Signal::INT), "INT+CONT>child")
        .deadline(9000, LAST);
}

#[test]
fn a_program_that_hangs_is_killed_at_the_deadline_or_by_the_second_ctrl_c() {
    let hung = || Play::new(INTERACTIVE).then(1000, CTRL_C, "");
    hung().then(1049, CTRL_C, "").then(1050, CTRL_C, "KILL>all");
    hung()
        .no_prompt((1020..=1100).step_by(20))
        .then(1150, CTRL_C, "KILL>all");
    hung()
        .no_prompt((1020..=1100).step_by(20).chain((1200..9000).step_by(100)))
        .deadline(9000, LAST)
        .then(9001, KILLED, "")
        .then(9001, NONE_LEFT, "exit SIGKILL")
        .idle("Done:SIGKILL");
    hung()
        .then(1010, EXIT_3, "TERM+CONT>unasked")
        .deadline(9000, "KILL>all");
    // A grace period that is shorter than the wait for the prompt.
    let short = |millis| Settings {
        ladder: Ladder::new(None, Some(Duration::from_millis(millis))),
        ..settings()
    };
    Play::new(interactive(short(0))).then(1000, CTRL_C, "KILL>all");
    Play::new(interactive(short(30)))
        .then(1000, CTRL_C, "")
        .no_prompt([1020])
        .deadline(1030, "")
        .deadline(1030, LAST);
}

#[test]
fn another_stop_request_is_not_cancelled_by_a_prompt() {
    let term = || process(Signal::TERM);
    Play::new(INTERACTIVE)
        .then(1000, term(), "TERM+CONT>child")
        .then(2000, CTRL_C, "")
        .deadline(9000, LAST);
    Play::new(INTERACTIVE)
        .then(1000, CTRL_C, "")
        .then(1050, term(), "TERM+CONT>child")
        .deadline(9000, LAST);
    Play::new(INTERACTIVE)
        .then(1000, CTRL_C, "")
        .no_prompt((1020..=1100).step_by(20))
        .then(1150, term(), "TERM+CONT>child")
        .deadline(9000, LAST);
    // A closed window, and the end of the run time.
    Play::new(INTERACTIVE)
        .then(1000, CTRL_C, "")
        .then(1010, to_group(Side::Terminal, Signal::HUP), "")
        .deadline(9000, LAST);
    let bounded = || Settings {
        max_runtime: Some(Duration::from_secs(60)),
        ..settings()
    };
    Play::new(interactive(bounded()))
        .deadline(60_000, "TERM+CONT>child")
        .then(61_000, CTRL_C, "")
        .deadline(68_000, LAST);
    Play::new(interactive(bounded()))
        .then(59_990, CTRL_C, "")
        .deadline(60_010, "look")
        .then(60_010, PROMPT, "")
        .then(60_010, Event::Timeout, "TERM+CONT>child");
    // A signal that is dropped asks for nothing.
    let dropped = Settings {
        remap: Remap::new(vec!["TERM:0".parse().unwrap()]),
        ..settings()
    };
    Play::new(interactive(dropped))
        .then(1000, CTRL_C, "")
        .then(1010, term(), "")
        .deadline(1020, "look")
        .then(1020, PROMPT, "")
        .idle("Running");
}

/// A cancelled stop cannot undo the effects of a hook, and a stop signal would end the program at
/// its prompt.
#[test]
fn nothing_is_prepared_before_a_prompt_is_looked_for() {
    let hooks = || Settings {
        hooks: 1,
        ..settings()
    };
    Play::new(interactive(hooks()))
        .then(1000, CTRL_C, "")
        .deadline(1020, "look")
        .then(1020, PROMPT, "")
        .idle("Running");
    Play::new(interactive(hooks()))
        .then(1000, CTRL_C, "")
        .no_prompt((1020..=1080).step_by(20))
        .deadline(1100, "look")
        .then(1100, NO_PROMPT, "hook#0")
        .deadline(7000, "end-hook")
        .deadline(9000, LAST);
    Play::new(interactive(hooks())).then(1000, CTRL_C, "").then(
        1010,
        process(Signal::TERM),
        "hook#0",
    );
    let delay = Settings {
        stop_delay: Duration::from_secs(2),
        ..settings()
    };
    Play::new(interactive(delay))
        .then(1000, CTRL_C, "")
        .no_prompt((1020..=1100).step_by(20).chain([1200]))
        .deadline(1300, "look")
        .then(1300, PROMPT, "")
        .idle("Running");
    let chosen = Settings {
        ladder: Ladder::new(Some(Signal::TERM), Some(Duration::from_secs(8))),
        ..settings()
    };
    Play::new(interactive(chosen))
        .then(1000, CTRL_C, "")
        .no_prompt((1020..=1080).step_by(20))
        .deadline(1100, "look")
        .then(1100, NO_PROMPT, "TERM+CONT>child");
}

/// Standard output is not the terminal, as in a pipeline: a Ctrl-C is a stop request, even if a
/// program is at its prompt.
#[test]
fn a_pipeline_is_stopped_by_ctrl_c() {
    Play::new(TERMINAL)
        .then(1000, CTRL_C, "")
        .deadline(9000, LAST);
    let init = Settings {
        keys_stop: false,
        ..settings()
    };
    Play::new(interactive(init))
        .then(1000, CTRL_C, "")
        .idle("Running");
}

/// The manager would wait for the end of a stop that was cancelled.
#[test]
fn the_manager_is_not_notified_of_a_stop_that_a_prompt_can_cancel() {
    let mut play = Play::new(Place {
        announces: true,
        ..INTERACTIVE
    });
    assert_eq!(play.show(1000, CTRL_C), "");
    let more = Event::ExtendGrace(Duration::from_secs(20));
    assert_eq!(play.show(1010, more), "");
    for time in [1020, 1040, 1060, 1080] {
        assert_eq!(play.show(time, Event::Timeout), "look");
        assert_eq!(play.show(time, NO_PROMPT), "");
    }
    let mut cancelled = Play(play.0.clone());
    assert_eq!(cancelled.show(1090, PROMPT), "");
    cancelled.idle("Running");
    let mut ended = Play(play.0.clone());
    assert_eq!(ended.show(1090, EXIT_3), "TERM+CONT>unasked notify");
    assert_eq!(play.show(1100, Event::Timeout), "look");
    assert_eq!(play.show(1100, NO_PROMPT), "notify");
    let over = play.0.over_at().map(millis);
    assert_eq!(over, Some(1000 + 16_000 + 1000 + 2000));
}

/// A script with `trap 'kill $child; exit' TERM` sends SIGTERM and exits: its exit is not a second
/// request.
#[test]
fn the_exit_of_a_parent_that_has_asked_is_not_a_second_request() {
    Play::new(settings())
        .then(1000, from(Side::Manager, Signal::TERM), "TERM+CONT>child")
        .then(2000, from(Side::Parent, Signal::TERM), "")
        .deadline(9000, LAST);
    Play::new(settings())
        .then(1000, from(Side::Parent, Signal::TERM), "TERM+CONT>child")
        .deadline(9000, LAST);
}

/// The values that hooks receive.
#[test]
fn the_reason_the_exit_and_the_time_left_are_those_of_the_stop() {
    let reason = |machine: &Machine| machine.reason();
    let play = Play::new(settings()).then(5, EXIT_3, "TERM+CONT>unasked");
    assert_eq!(
        (reason(&play.0), play.0.ended()),
        ("exited", Some(Exit::Code(3)))
    );
    let play = Play::new(settings()).then(100, process(Signal::TERM), "TERM+CONT>child");
    assert_eq!((reason(&play.0), play.0.ended()), ("signal", None));
    let left = Some(Duration::from_secs(7));
    assert_eq!(play.0.grace_left(at(1100)), left);
    let hooks = Settings {
        hooks: 1,
        ladder: "TERM/4s/QUIT/3s/KILL".parse().unwrap(),
        ..settings()
    };
    // While the stop is prepared, the time left is that of the first rung.
    let play = Play::new(hooks).then(100, process(Signal::TERM), "hook#0");
    assert_eq!(play.0.grace_left(at(1100)), Some(Duration::from_secs(3)));
    assert_eq!(Play::new(settings()).0.grace_left(at(5)), None);
    for (cause, code) in [
        (Cause::Eof, "eof"),
        (Cause::GuardKilled, "guard_killed"),
        (Cause::SupervisorKilled, "supervisor_killed"),
        (Cause::Replaced, "replaced"),
    ] {
        let mut play = Play::new(settings());
        play.show(100, Event::Stop(cause));
        assert_eq!((reason(&play.0), play.0.begun_by()), (code, Signal::TERM));
    }
    for (given, code) in [
        (
            Settings {
                max_runtime: Some(Duration::from_secs(1)),
                ..settings()
            },
            "max_runtime",
        ),
        (
            Settings {
                ready_timeout: Some(Duration::from_secs(1)),
                ..settings()
            },
            "not_ready",
        ),
    ] {
        let mut play = Play::new(given);
        play.show(1000, Event::Timeout);
        assert_eq!(reason(&play.0), code);
    }
}

#[test]
fn post_stop_hooks_have_a_second_after_a_stop_that_took_all_the_time() {
    let play = Play::new(settings()).then(100, process(Signal::TERM), "TERM+CONT>child");
    assert_eq!(play.0.post_stop_until(at(2000)), at(8100));
    assert_eq!(play.0.post_stop_until(at(9000)), at(10_000));
    assert_eq!(
        Play::new(settings()).0.post_stop_until(at(9000)),
        at(17_000)
    );
}

fn with_evidence(pre_kill: usize) -> Settings {
    Settings {
        pre_kill,
        ..with_ladder("TERM/2s/QUIT/4s/KILL")
    }
}

/// They run in the last quarter of the last wait, one after the other.
#[test]
fn each_hook_before_sigkill_is_run_once_and_on_the_last_rung_alone() {
    Play::new(with_evidence(2))
        .then(0, process(Signal::TERM), "TERM+CONT>child")
        .deadline(2000, "QUIT+CONT>child")
        .deadline(5000, "pre-kill#0")
        .then(5200, Event::HookExited, "pre-kill#1")
        .then(5300, Event::HookExited, "")
        .deadline(6000, LAST);
    // A hook that still runs at the deadline is killed, and no other follows.
    Play::new(with_evidence(2))
        .then(0, process(Signal::TERM), "TERM+CONT>child")
        .deadline(2000, "QUIT+CONT>child")
        .deadline(5000, "pre-kill#0")
        .deadline(6000, "end-hook KILL>child TERM+CONT>unasked")
        .then(6001, Event::HookExited, "");
    let tree = Settings {
        wait_tree: true,
        ..with_evidence(1)
    };
    // A child that has exited leaves no evidence.
    Play::new(tree)
        .then(0, process(Signal::TERM), "TERM+CONT>all")
        .ticks(2000)
        .then(2000, Event::Timeout, "QUIT+CONT>all")
        .then(2100, EXIT_3, "")
        .ticks(6000)
        .deadline(6000, "KILL>all");
}

/// The status reports that bowout left a process. A process that it reaps later does not change the
/// status.
#[test]
fn a_process_reaped_after_the_end_changes_no_status() {
    let mut play = Play::new(PID1).then(5, EXIT_3, "TERM+CONT>unasked");
    play.show(8005, Event::Timeout);
    play.then(8010, REFUSED, "exit 137")
        .then(8020, NONE_LEFT, "")
        .idle("Done:137");
}

#[test]
fn with_wait_tree_the_end_of_all_ends_the_preparations() {
    let tree = Settings {
        wait_tree: true,
        hooks: 1,
        ..settings()
    };
    Play::new(tree)
        .then(5, EXIT_3, "")
        .then(100, process(Signal::TERM), "hook#0")
        .then(200, NONE_LEFT, "exit 3");
}

/// SIGKILL as the result of `--remap` is sent to the child alone. Only the exit of the parent sends
/// it to all.
#[test]
fn a_signal_that_is_remapped_to_sigkill_kills_the_child() {
    let remap = Settings {
        remap: Remap::new(vec!["USR1:KILL".parse().unwrap()]),
        ..settings()
    };
    Play::new(remap)
        .then(100, process(usr1()), "KILL>child")
        .idle("Running");
}

#[test]
fn hang_ups_never_repeat_a_request() {
    let hang_up = from(Side::Terminal, Signal::HUP);
    Play::new(settings())
        .then(0, hang_up, "HUP+CONT>child")
        .then(500, hang_up, "")
        .then(1000, hang_up, "")
        .then(1500, hang_up, "")
        .deadline(8000, LAST);
}

#[test]
fn the_drain_waits_for_the_descendants() {
    let play = Play::new(settings()).then(5, EXIT_3, "TERM+CONT>unasked");
    assert_eq!(play.0.waiting(), Waiting::Descendants);
    let play = Play::new(settings()).then(5, process(Signal::TERM), "TERM+CONT>child");
    assert_eq!(play.0.waiting(), Waiting::Child);
}

/// The command has a quarter of the grace period, at most 2 s, to exit by itself. A stop request
/// ends that time.
#[test]
fn the_end_of_the_input_leaves_time_to_exit() {
    Play::new(settings())
        .then(100, Event::Stop(Cause::Eof), "")
        .deadline(2100, "TERM+CONT>child")
        .deadline(8100, LAST);
    Play::new(settings())
        .then(100, Event::Stop(Cause::Eof), "")
        .then(900, process(Signal::TERM), "TERM+CONT>child")
        .deadline(8100, LAST);
}

/// Each sign of life allows as long a silence again; the first one arms the watchdog.
#[test]
fn a_command_that_is_silent_is_ended_by_sigabrt() {
    let watched = Settings {
        watchdog: Some(Duration::from_secs(3)),
        pre_kill: 1,
        ..settings()
    };
    Play::new(watched.clone()).idle("Running");
    Play::new(watched)
        .then(1000, Event::Alive, "")
        .then(3000, Event::Ready, "")
        .deadline(6000, "pre-kill#0")
        .then(6500, Event::HookExited, "ABRT+CONT>child")
        .then(
            6600,
            Event::ChildExited(Exit::Signal(Signal::ABRT)),
            "TERM+CONT>unasked",
        )
        .then(6600, NONE_LEFT, "exit 124");
}
