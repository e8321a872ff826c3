//! The start: everything that can fail before the command is started, then the fork, then closing
//! the child's descriptors.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant, SystemTime};

use log::Level;

use super::{Dropped, Outputs, Part, Replacing, Supervisor, ToGuard, place};
use crate::config::{Config, Notify, ReadyBy};
use crate::error::Error;
use crate::log::{escape, event};
use crate::policy::{KillMode, Machine, Place, Settings};
use crate::report::{Containment, History};
use crate::sender::Kin;
use crate::sys::child::Child;
use crate::sys::environment;
use crate::sys::kernel::Kernel;
use crate::sys::notify::Relay;
use crate::sys::signals::{Batch, Inherited};
use crate::sys::spawn::{self, Spawn};
use crate::sys::stdin::Stdin;
use crate::sys::this_process::{self, Parent};
use crate::sys::tree::Tree;
use crate::sys::tty::Terminal;
use crate::sys::wait;

impl<'a, K: Kernel> Supervisor<'a, K> {
    /// Starts the command. Returns also the signals that were received before it was started:
    /// [`Supervisor::begin`] takes them.
    ///
    /// # Errors
    /// A fault that prevents the start; no process was started then.
    // Not inlined: bowout does not touch the stack of the start again.
    #[inline(never)]
    pub(super) fn start(
        config: &'a Config,
        inherited: &'a Inherited,
        outputs: &'a Outputs,
        (kernel, intake): (K, K::Intake),
        parent: Option<Parent>,
        (part, before): (Part, Batch),
    ) -> Result<(Self, [Batch; 2]), Error> {
        let containment = contain(&part);
        let relay = relay_of(&part, config);
        let mut tree = Tree::new(kernel, this_process::id());
        if let Some(refused) = wait::refused() {
            return Err(Error::own(format!("cannot supervise: {refused}")));
        }
        let terminal = Terminal::open();
        let place = place::with_relay(terminal.is_some(), relay.as_ref(), inherited);
        part.let_start(relay.as_ref());
        let links = (&part, relay.as_ref(), terminal.is_some());
        let (child, early) = first_child(config, inherited, links, &tree, &intake)?;
        tree.adopt(child.pid(), terminal.is_none());
        let (policy, stdin) = share(config, &part);
        let (now, history) = begin_history(config, (place, containment), child.pid(), &tree.kernel);
        let supervisor = Self {
            inherited,
            kin: Kin {
                parent: this_process::parent(),
                child: child.pid(),
            },
            machine: Machine::new(policy, place, now),
            intake,
            child,
            tree,
            hook: None,
            history,
            terminal,
            relay,
            parent,
            stdin,
            part,
            replacing: Replacing::default(),
            dropped: Dropped::default(),
            outputs,
            now,
            failure: None,
            refused: vec![],
            refused_more: 0,
            ready_file_is_made: false,
            filter_logged: false,
            more: early.children,
            config,
        };
        Ok((supervisor, [before, early]))
    }

    /// Begins to supervise, with the signals that were received before.
    pub(super) fn begin(&mut self, before: &[Batch; 2]) {
        self.release();
        for batch in before {
            self.signals(&batch.signals, false);
        }
        // A parent that exited before it could be watched makes no descriptor readable.
        self.parent_exit();
    }

    /// Closes every descriptor that is not bowout's own: the child has them.
    fn release(&self) {
        if let (Part::Guard(_), Some(_)) = (&self.part, self.config.replace_on) {
            // They are for the next instance, too.
            return;
        }
        let mut ours = vec![self.intake.as_fd()];
        ours.extend(self.child.readable());
        ours.extend(self.terminal.as_ref().map(AsFd::as_fd));
        ours.extend(self.outputs.descriptors());
        ours.extend(self.relay.iter().flat_map(Relay::descriptors));
        ours.extend(self.parent.as_ref().and_then(Parent::handle));
        ours.extend(self.stdin.iter().flat_map(Stdin::descriptors));
        ours.extend(self.part.link());
        spawn::release(&ours);
    }
}

/// Makes sure that no descendant leaves the tree, as far as the kernel allows it.
fn contain(part: &Part) -> Containment {
    Containment {
        adopts_orphans: this_process::is_pid1() || become_subreaper(),
        guarded: !matches!(part, Part::Whole),
    }
}

/// The configuration of this part of bowout, and the input that it watches.
pub(super) fn share(config: &Config, part: &Part) -> (Settings, Option<Stdin>) {
    let mut policy = config.policy.clone();
    if let Part::Guard(..) = part {
        // The supervisor may have run the hooks before it was killed.
        policy.hooks = 0;
        return (policy, None);
    }
    let stdin = config.stop_on_eof.then(Stdin::watch);
    (policy, stdin.flatten())
}

/// Makes orphans bowout's children. After an error they are re-parented to PID 1, and bowout cannot
/// wait for them.
fn become_subreaper() -> bool {
    let result = this_process::become_subreaper();
    if let Err(error) = &result {
        event!(Level::Warn, "subreaper_failed", error = error.to_string();
            "cannot become subreaper: {error}; descendants that lose their parent are not supervised");
    }
    result.is_ok()
}

/// The command, as it is to be started.
pub(super) fn command<'a>(
    config: &'a Config,
    inherited: &'a Inherited,
    variables: &'a [Variable],
    part: &Part,
    terminal: bool,
) -> Spawn<'a> {
    // With a guard, a killed supervisor must not take the child with it.
    let dies = config.policy.kill_mode != KillMode::Process && matches!(part, Part::Whole);
    Spawn {
        command: &config.command,
        args: &config.args,
        inherited,
        variables,
        watched: config.policy.watchdog.is_some(),
        stands_in: true,
        directory: None,
        to_stderr: false,
        own_group: !terminal,
        die_with_us: dies,
        // The guard knows the child before the command runs.
        held: matches!(part, Part::Guarded(..)),
        ready: match config.ready {
            Some(ReadyBy::Descriptor(number)) => Some(number),
            Some(ReadyBy::Notify) | None => None,
        },
    }
}

/// The child that bowout starts with: the command; for the guard, the supervisor.
fn first_child<K: Kernel>(
    config: &Config,
    inherited: &Inherited,
    (part, relay, terminal): (&Part, Option<&Relay>, bool),
    tree: &Tree<K>,
    intake: &K::Intake,
) -> Result<(Child, Batch), Error> {
    if let Part::Guard(instance) = part {
        return Ok((Child::adopted(instance.supervisor), Batch::default()));
    }
    let watchdog = config.policy.watchdog.map(watchdog_usec);
    let variables: Vec<_> = relay
        .map(notify_socket)
        .into_iter()
        .chain(watchdog)
        .collect();
    let spawn = command(config, inherited, &variables, part, terminal);
    let (mut child, early) = spawn_command(&spawn, terminal, tree, intake)?;
    part.send(ToGuard::Child(child.pid()));
    child.let_go();
    Ok((child, early))
}

/// Starts the command; also returns the signals received before the fork that the terminal can have
/// sent.
fn spawn_command<K: Kernel>(
    spawn: &Spawn<'_>,
    terminal: bool,
    tree: &Tree<K>,
    intake: &K::Intake,
) -> Result<(Child, Batch), Error> {
    // Until the fork, the terminal signals bowout alone; from the fork on it signals both
    // (signal(7)). A signal in the microsecond between the look and the fork is taken for one that
    // the child received, too: the kernel gives no way to know.
    let mut early = Batch::default();
    let look = || {
        if terminal {
            early = tree.kernel.signals(intake);
        }
    };
    let child = tree.kernel.spawn(spawn, look).map_err(|error| {
        let command = spawn.command.to_string_lossy();
        own(&format!("cannot start '{}'", escape(&command)), &error)
    })?;
    Ok((child, early))
}

/// The history of a child that was started just now.
pub(super) fn begin_history<K: Kernel>(
    config: &Config,
    (place, containment): (Place, Containment),
    pid: i32,
    kernel: &K,
) -> (Instant, History) {
    // In this order: a delay between the two makes the report's times early, never of the future.
    let started_at = wall_clock();
    let now = kernel.clock();
    let history = History::new(
        (&config.command, &config.args, &config.pre_stop),
        pid,
        (now, started_at),
        (config.policy.clone(), place, containment),
    );
    (now, history)
}

/// The relay, where there is a manager to pass messages on to, or `--notify relay`. Where it cannot
/// be opened, as in a unit without AF_UNIX, the command keeps the manager's NOTIFY_SOCKET.
fn relay(config: &Config, manager: Option<&OsStr>) -> Option<Relay> {
    let wanted = match config.notify {
        Notify::Auto | Notify::Exec => manager.is_some() || config.needs_relay(),
        Notify::Relay => true,
        Notify::Off => false,
    };
    if !wanted {
        return None;
    }
    let failed = |error: io::Error| {
        // A manager on another machine needs no relay: it cannot see the sender's PID.
        let level = match error.kind() {
            io::ErrorKind::InvalidInput => Level::Debug,
            _ => Level::Warn,
        };
        event!(level, "relay_failed", error = error.to_string();
            "cannot relay sd_notify messages: {error}; the command is left to the manager's own socket");
    };
    Relay::open(manager).map_err(failed).ok()
}

/// The relay of this part of bowout: the supervisor's sends to the guard's.
fn relay_of(part: &Part, config: &Config) -> Option<Relay> {
    match part {
        Part::Guard(..) => guards_relay(config.notify),
        Part::Guarded(_, Some(address)) => relay(config, Some(address)),
        Part::Whole | Part::Guarded(_, None) => relay(config, place::manager()),
    }
}

/// The guard's relay, which relays the messages of the supervisor's relay. The supervisor logs why
/// it cannot be opened.
#[cold]
fn guards_relay(notify: Notify) -> Option<Relay> {
    let manager = place::manager().filter(|_| notify != Notify::Off)?;
    Relay::open(Some(manager)).ok()
}

/// A variable of the environment: its name, and its value, or `None` to unset it.
type Variable = (&'static str, Option<OsString>);

/// The variable that leads a process to the relay.
pub(super) fn notify_socket(relay: &Relay) -> Variable {
    ("NOTIFY_SOCKET", Some(relay.address().to_owned()))
}

/// The variable with the time for which the command may be silent (sd_watchdog_enabled(3)): no
/// longer than the manager allows.
#[cold]
fn watchdog_usec(wait: Duration) -> Variable {
    let managers = environment::value("WATCHDOG_USEC").and_then(|usec| usec.to_str()?.parse().ok());
    let usec = managers.map_or(wait.as_micros(), |usec: u128| usec.min(wait.as_micros()));
    ("WATCHDOG_USEC", Some(usec.to_string().into()))
}

/// The wall clock, for the report alone.
#[allow(
    clippy::disallowed_methods,
    reason = "the report says when the child was started"
)]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}

fn own(what: &str, error: &io::Error) -> Error {
    Error::own(format!("{what}: {error}"))
}
