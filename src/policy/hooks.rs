//! When hooks run: before the stop signal, with the delay after them; before SIGKILL; after the
//! end.

use std::time::{Duration, Instant};

use super::{Action, Cause, Hook, Machine, Phase, Settings, later};

/// How long all hooks may take where the grace period has no end: a hook that hangs must not
/// prevent the stop.
const HOOKS: Duration = Duration::from_secs(60);

/// The least time that the `--post-stop` hooks have.
const POST_STOP: Duration = Duration::from_secs(1);

/// The longest time that a command has to exit by itself after the end of its input.
const OWN_EXIT: Duration = Duration::from_secs(2);

impl Settings {
    /// How long nothing is sent after the end of the command's input, so that it can exit by
    /// itself.
    pub(crate) fn own_exit(&self) -> Duration {
        let first = self.ladder.rung(0).and_then(|rung| rung.wait);
        first.map_or(OWN_EXIT, |wait| OWN_EXIT.min(wait / 4))
    }
}

impl Machine {
    /// True if nothing but that time delays the stop signal.
    pub(super) fn waits_for_own_exit(&self) -> bool {
        self.begun_by == Some(Cause::Eof) && self.settings.stop_delay.is_zero()
    }

    /// Runs hook number `hook`; after the last hook, waits for the delay; then stops.
    pub(super) fn prepare(&mut self, now: Instant, hook: usize) {
        // The evidence of a command that hangs comes before the signal that ends it.
        let hangs = self.begun_by == Some(Cause::Watchdog);
        let (delay, hooks) = if hangs {
            let lives = self.ended.is_none();
            (Duration::ZERO, self.settings.pre_kill * usize::from(lives))
        } else {
            (self.settings.stop_delay, self.settings.hooks)
        };
        // The child has at least a quarter of the time to exit, or the time less the delay if that
        // is less.
        let wait = self
            .settings
            .ladder
            .rung(0)
            .and_then(|rung| rung.wait)
            .unwrap_or_default();
        let reserve = (wait / 4).min(wait.saturating_sub(delay));
        let latest = self.grace.and_then(|grace| grace.checked_sub(reserve));
        if hook < hooks {
            self.phase = Phase::Preparing { hook: Some(hook) };
            self.until = latest.or_else(|| later(self.begun, Some(HOOKS)));
            if hangs {
                self.until = self
                    .until
                    .min(later(self.begun, Some(self.settings.pre_kill_timeout)));
                self.pre_kill = hook + 1;
            }
            self.run_hook(if hangs {
                Hook::PreKill(hook)
            } else {
                Hook::PreStop(hook)
            });
            return;
        }
        let own_exit = match self.begun {
            Some(begun) if self.begun_by == Some(Cause::Eof) => {
                let passed = now.saturating_duration_since(begun);
                self.settings.own_exit().saturating_sub(passed)
            }
            Some(_) | None => Duration::ZERO,
        };
        let wait = delay.max(own_exit);
        if wait > Duration::ZERO {
            self.phase = Phase::Preparing { hook: None };
            self.until = [now.checked_add(wait), latest].into_iter().flatten().min();
        } else {
            self.stop();
        }
    }

    /// The time limit of the `--post-stop` hooks that start at `now`: the rest of the grace period,
    /// or a second if that is more; the whole grace period where there was no stop.
    pub(crate) fn post_stop_until(&self, now: Instant) -> Instant {
        let total = self.settings.ladder.total(0).unwrap_or(HOOKS);
        let until = self.begun.unwrap_or(now).checked_add(total);
        until.unwrap_or(now).max(now + POST_STOP)
    }

    fn run_hook(&mut self, hook: Hook) {
        (self.hook_lives, self.hook_runs) = (true, true);
        self.act(Action::RunHook(hook));
    }

    /// Ends the hook that runs, if one does.
    pub(super) fn end_hook(&mut self) {
        if std::mem::take(&mut self.hook_runs) {
            self.act(Action::EndHook);
        }
    }

    /// When the first `--pre-kill` hook starts: before SIGKILL by its timeout, or by a quarter of
    /// the last rung's wait if that is less. `None` unless the child is on the last rung. A hook
    /// that was killed and has not exited delays it.
    pub(super) fn pre_kill_at(&self) -> Option<Instant> {
        let lead = self.last_rung_wait()? / 4;
        let lead = lead.min(self.settings.pre_kill_timeout);
        let due = self.pre_kill == 0 && self.settings.pre_kill > 0 && !self.hook_lives;
        self.until.filter(|_| due)?.checked_sub(lead)
    }

    /// The wait of the last rung, if that is reached and the child lives.
    fn last_rung_wait(&self) -> Option<Duration> {
        let ladder = &self.settings.ladder;
        match self.phase {
            Phase::Stopping { rung } if rung + 1 == ladder.rungs() && self.ended.is_none() => {
                ladder.rung(rung)?.wait
            }
            Phase::Running
            | Phase::Preparing { .. }
            | Phase::Stopping { .. }
            | Phase::Killing { .. }
            | Phase::Done(_) => None,
        }
    }

    pub(super) fn start_pre_kill(&mut self, now: Instant) {
        if self.pre_kill_at().is_some_and(|at| at <= now) {
            self.run_pre_kill();
        }
    }

    /// Runs the next `--pre-kill` hook, if there is one and time for it.
    pub(super) fn run_pre_kill(&mut self) {
        if self.pre_kill < self.settings.pre_kill && self.last_rung_wait().is_some() {
            self.run_hook(Hook::PreKill(self.pre_kill));
            self.pre_kill += 1;
        }
    }
}
