//! The start: everything that can fail before the command is started, then the fork, then closing
//! what is the child's.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::SystemTime;

use ::log::Level;

use super::{Dropped, Supervisor, clock};
use crate::config::{Config, Notify, ReportTo, default_stop_on};
use crate::error::Error;
use crate::log::{escape, event};
use crate::policy::{KillMode, Machine, Settings};
use crate::report::History;
use crate::sender::Kin;
use crate::signal::{Signal, SignalSet};
use crate::sys::environment;
use crate::sys::files::{self, Destination};
use crate::sys::notify::Relay;
use crate::sys::signals::{Batch, Inherited, Intake};
use crate::sys::spawn::{self, Spawn};
use crate::sys::this_process::Parent;
use crate::sys::tty::{self, Terminal};
use crate::sys::{this_process, tree, wait};

impl<'a> Supervisor<'a> {
    /// Starts the command.
    ///
    /// # Errors
    /// What keeps it from being started; nothing was, then.
    // Not inlined: the stack of the start is not touched again for as long as bowout runs.
    #[inline(never)]
    pub(super) fn start(config: Config, inherited: &'a Inherited) -> Result<Self, Error> {
        let parent = this_process::parent();
        let pid1 = this_process::is_pid1();
        // Before anything of ours is open: `fd:3` means what the user has opened.
        let report = destination(config.report.as_ref())?;
        let intake = Intake::open().map_err(|error| own("cannot receive signals", &error))?;
        let termination_log = termination_log(config.termination_log.as_deref())?;
        let directory = if config.pre_stop.is_empty() {
            None
        } else {
            std::env::current_dir().ok()
        };
        let watched = watch_parent(parent, config.parent_death_signal)?;
        if !pid1 {
            become_subreaper();
        }
        let relay = relay(config.notify);
        tree::note_inherited();
        if let Some(refused) = wait::refused() {
            return Err(Error::own(format!("cannot supervise: {refused}")));
        }
        let terminal = Terminal::open();
        let announces = relay.as_ref().is_some_and(Relay::can_notify);
        // Before `release` puts /dev/null in the place of stdout.
        let stdout_is_terminal = terminal.is_some() && tty::is_controlling(&std::io::stdout());
        let settings = Settings {
            stdout_is_terminal,
            announces,
            ..settings(&config, inherited, pid1, terminal.is_some())
        };
        let command = config.command.to_string_lossy();
        let spawn = Spawn {
            command: &config.command,
            args: &config.args,
            inherited,
            variables: &relay.iter().map(notify_socket).collect::<Vec<_>>(),
            stands_in: true,
            directory: None,
            to_stderr: false,
            own_group: terminal.is_none(),
            die_with_us: config.kill_mode != KillMode::Process,
        };
        // Until the fork, the terminal signals bowout alone; from the fork on it signals both
        // (signal(7)). A signal in the microsecond between the look and the fork is taken for one
        // that the child received, too: the kernel gives no way to tell.
        let mut early = Batch::default();
        let look = || {
            early = if terminal.is_some() {
                intake.read()
            } else {
                Batch::default()
            }
        };
        let child = spawn
            .spawn(look)
            .map_err(|error| own(&format!("cannot start '{}'", escape(&command)), &error))?;
        // In this order: what comes between the two makes the report's times early, and never of
        // the future.
        let started_at = wall_clock();
        let now = clock();
        let machine = Machine::new(settings.clone(), now);
        let words = [&config.command].into_iter().chain(&config.args);
        let history = History::new(
            words.map(lossy).collect(),
            config.pre_stop.iter().map(lossy).collect(),
            child.pid(),
            now,
            started_at,
            settings,
        );
        let mut ours = vec![intake.as_fd()];
        ours.extend(child.exec_pending());
        ours.extend(terminal.as_ref().map(AsFd::as_fd));
        ours.extend(report.iter().flat_map(Destination::descriptors));
        ours.extend(termination_log.as_ref().map(AsFd::as_fd));
        ours.extend(relay.iter().flat_map(Relay::descriptors));
        ours.extend(watched.as_ref().and_then(Parent::handle));
        spawn::release(&ours);
        let kin = Kin {
            parent,
            child: child.pid(),
        };
        let mut supervisor = Self {
            inherited,
            intake,
            child,
            hook: None,
            kin,
            machine,
            history,
            terminal,
            relay,
            parent: watched,
            dropped: Dropped::default(),
            report,
            termination_log,
            directory,
            now,
            failure: None,
            refused: vec![],
            refused_more: 0,
            told_of_filter: false,
            more: early.children,
            config,
        };
        supervisor.signals(early.signals, false);
        // A parent that exited before it could be watched makes no descriptor readable.
        supervisor.parent_exit();
        Ok(supervisor)
    }
}

/// Makes orphans bowout's children. After an error they are re-parented to PID 1, and bowout cannot
/// wait for them.
fn become_subreaper() {
    if let Err(error) = this_process::become_subreaper() {
        event!(Level::Warn, "subreaper_failed", error = error.to_string();
            "cannot become subreaper: {error}; descendants that lose their parent are not supervised");
    }
}

/// Watches the parent for `--parent-death-signal`.
fn watch_parent(parent: i32, signal: Option<Signal>) -> Result<Option<Parent>, Error> {
    let Some(signal) = signal else {
        return Ok(None);
    };
    Parent::watch(parent, signal).map_err(|error| {
        let what = format!("cannot ask for {signal} at the parent's death");
        own(&what, &error)
    })
}

/// The relay, where there is a manager to pass messages on to, or with `--notify relay`. Where it
/// cannot be opened, as in a unit without AF_UNIX, the child keeps bowout's own NOTIFY_SOCKET.
fn relay(notify: Notify) -> Option<Relay> {
    let manager = environment::value("NOTIFY_SOCKET").filter(|address| !address.is_empty());
    let wanted = match notify {
        Notify::Auto | Notify::Exec => manager.is_some(),
        Notify::Relay => true,
        Notify::Off => false,
    };
    if !wanted {
        return None;
    }
    match Relay::open(manager) {
        Ok(relay) => Some(relay),
        Err(error) => {
            // A manager on another machine needs no relay: it does not see the sender's PID.
            let level = if error.kind() == io::ErrorKind::InvalidInput {
                Level::Debug
            } else {
                Level::Warn
            };
            event!(level, "relay_failed", error = error.to_string();
                "cannot relay sd_notify messages: {error}; the command is left to the manager's own socket");
            None
        }
    }
}

/// The variable that leads a process to the relay.
pub(super) fn notify_socket(relay: &Relay) -> (&'static str, Option<OsString>) {
    ("NOTIFY_SOCKET", Some(relay.address().to_owned()))
}

fn destination(to: Option<&ReportTo>) -> Result<Option<Destination>, Error> {
    match to {
        None => Ok(None),
        Some(ReportTo::File(path)) => Destination::file(path).map(Some).map_err(|error| {
            let hint = if error.kind() == io::ErrorKind::InvalidInput {
                "; for a descriptor write fd:N"
            } else {
                ""
            };
            Error::own(format!(
                "cannot report to '{}': {error}{hint}",
                escape(&path.to_string_lossy())
            ))
        }),
        Some(ReportTo::Descriptor(fd)) => Destination::descriptor(*fd)
            .map(Some)
            .map_err(|error| own(&format!("cannot report to fd:{fd}"), &error)),
    }
}

fn termination_log(path: Option<&Path>) -> Result<Option<File>, Error> {
    let Some(path) = path else { return Ok(None) };
    files::termination_log(path).map_err(|error| {
        own(
            &format!(
                "cannot write termination message to '{}'",
                escape(&path.to_string_lossy())
            ),
            &error,
        )
    })
}

fn settings(config: &Config, inherited: &Inherited, pid1: bool, job_control: bool) -> Settings {
    // A signal that is ignored at the start stays ignored, as under nohup(1) and in a script's
    // background jobs: it is forwarded and asks for nothing. No process could have meant that for
    // PID 1.
    let ignored = if pid1 {
        SignalSet::default()
    } else {
        inherited.ignored
    };
    Settings {
        ladder: config.ladder.clone(),
        stop_on: config
            .stop_on
            .unwrap_or_else(|| default_stop_on(&config.ladder).minus(ignored)),
        hangup_stops: config
            .stop_on
            .map_or(!ignored.contains(Signal::HUP), |set| {
                set.contains(Signal::HUP)
            }),
        grace_is_default: config.grace_is_default,
        on_repeat: config.on_repeat,
        kill_mode: config.kill_mode,
        wait_tree: config.wait_tree,
        max_runtime: config.max_runtime,
        hooks: config.pre_stop.len(),
        stop_delay: config.stop_delay,
        grace_max: config.grace_max,
        remap: config.remap.clone(),
        keys_stop: config.keys_stop,
        job_control,
        stdout_is_terminal: false,
        announces: false,
        // The kernel sends a hang-up of the terminal to no other process.
        leader: job_control && tty::leads_session(),
        pid1,
    }
}

fn lossy(word: &OsString) -> String {
    word.to_string_lossy().into_owned()
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
