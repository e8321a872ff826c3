//! The table of the options: their names, values, help, and setters. The quick path and clap both
//! read it.

use std::ffi::{OsStr, OsString};

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Arg, ArgAction, Command, value_parser};

use self::Kind::{Attached, Count, Letter, Many, Once, Switch};
use super::values::{
    FORMATS, KILL_MODES, NOTIFY, REPEATS, STATUS, count, kill_mode, list, max_runtime, parse, path,
    pre_kill_timeout, put, ready_by, report_to, signals, stop_delay, stop_signal, switch, wait,
    watchdog_wait, word, words,
};
use crate::config::{Draft, variable};
use crate::policy::Ladder;
use crate::signal::Signal;

/// How an option is typed, with the name of its value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Without a value, and without a variable.
    Letter,
    /// Without a value; its variable is yes or no.
    Switch,
    /// Without a value; each time counts.
    Count,
    /// With one value.
    Once(&'static str),
    /// With a value, each time it is typed.
    Many(&'static str),
    /// With a value after `=`, or this one.
    Attached(&'static str, &'static str),
}

/// An option.
pub(super) struct Opt {
    pub(super) long: &'static str,
    pub(super) short: Option<char>,
    pub(super) alias: Option<&'static str>,
    pub(super) kind: Kind,
    /// The only words that its value can be.
    pub(super) words: fn() -> Vec<&'static str>,
    /// A few words for --help; without them, --help-all alone has the option.
    brief: Option<&'static str>,
    help: &'static str,
    /// Reads the value, `yes` where none is typed.
    pub(super) set: fn(&mut Draft, &OsStr) -> Result<(), String>,
}

impl Opt {
    const fn words(self, words: fn() -> Vec<&'static str>) -> Self {
        Self { words, ..self }
    }

    const fn brief(self, brief: &'static str) -> Self {
        Self {
            brief: Some(brief),
            ..self
        }
    }

    pub(super) fn takes_value(&self) -> bool {
        !matches!(self.kind, Letter | Switch | Count)
    }

    /// True if `name` is the variable's, without its `BOWOUT_`.
    pub(super) fn has_variable(&self, name: &[u8]) -> bool {
        let upper = |byte: u8| byte.to_ascii_uppercase();
        let long = self
            .long
            .bytes()
            .map(|byte| if byte == b'-' { b'_' } else { upper(byte) });
        self.kind != Letter && long.eq(name.iter().copied())
    }

    /// The name of its variable, without `BOWOUT_`.
    pub(super) fn variable(&self) -> Option<String> {
        (self.kind != Letter).then(|| variable(self.long))
    }

    #[cold]
    fn arg(&'static self) -> Arg {
        let variable = self.variable().map(|name| format!(" [env: BOWOUT_{name}]"));
        let words = (self.words)().join(", ");
        let words = match self.brief {
            None if !words.is_empty() => format!("\n\n[possible values: {words}]"),
            _ => String::new(),
        };
        let help = [self.help, &variable.unwrap_or_default(), &words].concat();
        let arg = Arg::new(self.long)
            .long(self.long)
            .short(self.short)
            .visible_aliases(self.alias)
            .help(self.brief)
            .long_help(help)
            .hide_short_help(self.brief.is_none());
        let value = |arg: Arg, name| {
            let set =
                move |value: OsString| (self.set)(&mut Draft::default(), &value).map(|()| value);
            arg.value_name(name)
                .value_parser(OsStringValueParser::new().try_map(set))
        };
        match self.kind {
            Letter | Switch => arg.action(ArgAction::SetTrue),
            Count => arg.action(ArgAction::Count),
            Once(name) => value(arg, name),
            Many(name) => value(arg, name).action(ArgAction::Append),
            Attached(name, default) => value(arg, name)
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value(default),
        }
    }
}

/// A row of the table.
const fn opt(
    long: &'static str,
    short: Option<char>,
    kind: Kind,
    help: &'static str,
    set: fn(&mut Draft, &OsStr) -> Result<(), String>,
) -> Opt {
    Opt {
        long,
        short,
        alias: None,
        kind,
        words: Vec::new,
        brief: None,
        help,
        set,
    }
}

/// The headings in --help, each with the first option below it.
const HEADINGS: [(&str, &str); 8] = [
    ("grace", "Options"),
    ("grace-max", "Stop"),
    ("wait-tree", "Processes, signals, exit status"),
    (
        "parent-death-signal",
        "When the parent exits or bowout is killed",
    ),
    ("notify", "Services"),
    ("pre-stop", "Hooks"),
    ("report", "Report and log"),
    ("group", "Letters of tini, dumb-init and catatonit"),
];

/// All options, in the order of --help-all.
pub(super) static OPTIONS: &[Opt] = {
    let grace = "Time from the first stop request to SIGKILL; 0 kills at once [default: 8s; 25s in Kubernetes, ECS, Heroku and Azure \
                 Container Apps; 85s in a systemd unit]";
    let signal = "Signal that COMMAND receives first; bowout takes it as a stop request, too [default: the signal received]";
    let run = "Stop COMMAND after this time; exit with 124";
    let mode = "Which processes receive signals: 'process', COMMAND alone; 'mixed', its descendants, too, at the end of the stop; \
                'group', COMMAND's process group, and every descendant the stop signal [default: mixed]";
    let remap = "Exit with NEW [0] when COMMAND exits with CODE (128+S after a death by signal S); repeatable, or with commas";
    let explain = "Print what happens at each moment of a stop, and start nothing";
    let more = "Log more: -v debug, -vv trace";
    let less = "Log less: -q warnings, -qq errors, -qqq nothing [BOWOUT_LOG takes a level]";

    let most = "Longest grace period that COMMAND can ask for by sd_notify [default: twice the grace period]";
    let ladder =
        "Signals and waits in place of --grace and --stop-signal, e.g. TERM/30s/QUIT/5s/KILL";
    let only = "Signals that start the stop, and no others [default: TERM, INT, ABRT, a hang-up of the terminal, and the \
                   signal of --stop-signal or --escalate]";
    let repeat = "What a second request from the same side does [default: kill]";
    let hook = "Run this command before the stop signal, by /bin/sh -c if it needs a shell; repeatable, in order";
    let dump = "Run this command before SIGKILL (a thread dump), in the last quarter of the last wait; it delays nothing; repeatable";
    let lead = "Start --pre-kill this long before SIGKILL, at most a quarter of the last wait [default: 5s]";
    let after =
        "Run this command after COMMAND and its descendants have exited; repeatable, in order";
    let delay = "Wait this long before the stop signal; part of the grace period, as the hooks are";

    let tree = "Keep running until all descendants of COMMAND exit (for programs that daemonise)";
    let rewrite =
        "Forward TO when FROM is received; a TO of 0 drops it; repeatable, or with commas";
    let death = "Act as if the process that started bowout sent SIGNAL when it exits";
    let eof = "Stop COMMAND when the other end of its standard input is closed and COMMAND has read the rest";
    let guard = "Stop COMMAND and its descendants even when bowout receives SIGKILL, by a second process of bowout";

    let how = "How to exit after COMMAND died of signal S: with 128+S ('code') or of S ('signal') \
                  [default: auto, the same death unless PID 1]";
    let notify = "Pass sd_notify messages on if there is a NOTIFY_SOCKET ('auto'), always offer a socket ('relay'), send READY=1 \
                  when COMMAND is executed ('exec'), do nothing ('off') [default: auto]";
    let report =
        "At the exit, write a JSON report to FILE; fd:N for an open descriptor, - for stdout";
    let message =
        "If FILE is empty, write to it why COMMAND ended [without FILE: /dev/termination-log]";

    let ready = "How COMMAND reports that it is ready: a line on descriptor N ('fd:N'), or READY=1 by sd_notify ('notify')";
    let ready_file = "Make FILE when COMMAND is ready; remove it at the first stop request";
    let ready_timeout = "Stop COMMAND when it is not ready after this time; exit with 124";
    let replace = "Start a new instance of COMMAND when SIGNAL is received, and stop the old one once the new one is ready";
    let watchdog = "Stop COMMAND by SIGABRT when it has not sent WATCHDOG=1 by sd_notify for this time; exit with 124";

    let format = "Form of the log lines [default: auto, 'journal' on the journal, else 'text']";
    let warn = "Log a warning for each orphan that is reaped";

    // In the rows, `d` is the draft and `v` the value.
    &[
        opt("grace", Some('t'), Once("DURATION"), grace, |d, v| {
            put(&mut d.grace, wait(v))
        })
        .brief("From stop request to SIGKILL [8s or by engine]"),
        opt("stop-signal", None, Once("SIGNAL"), signal, |d, v| {
            put(&mut d.stop_signal, stop_signal(v))
        })
        .brief("Signal sent first [the signal received]"),
        opt("max-runtime", None, Once("DURATION"), run, |d, v| {
            put(&mut d.config.policy.max_runtime, max_runtime(v))
        })
        .brief("Stop COMMAND after this time"),
        opt("kill-mode", Some('k'), Once("MODE"), mode, |d, v| {
            put(&mut d.config.policy.kill_mode, kill_mode(v))
        })
        .words(|| words(KILL_MODES))
        .brief("Signals go to: process, mixed, group [mixed]"),
        opt(
            "remap-exit",
            Some('e'),
            Many("CODE[:NEW]"),
            remap,
            |d, v| list(v, &mut d.config.exit_rules.recode),
        )
        .brief("Exit with NEW [0] instead of CODE"),
        opt("explain", None, Letter, explain, |d, v| {
            put(&mut d.config.explain, switch(v))
        }),
        opt("verbose", Some('v'), Count, more, |d, v| {
            count(v).map(|times| d.count(times.into()))
        })
        .brief("Log more; -vv everything"),
        opt("quiet", Some('q'), Count, less, |d, v| {
            count(v).map(|times| d.count(-i16::from(times)))
        })
        .brief("Log less; -qqq nothing"),
        opt("grace-max", None, Once("DURATION"), most, |d, v| {
            put(&mut d.config.policy.grace_max, wait(v))
        }),
        opt("escalate", None, Once("LADDER"), ladder, |d, v| {
            put(&mut d.config.policy.ladder, parse::<Ladder>(v))
        }),
        opt("stop-on", None, Once("SIGNAL,..."), only, |d, v| {
            put(&mut d.config.policy.stop_on, signals(v))
        }),
        opt("on-repeat", None, Once("WHAT"), repeat, |d, v| {
            put(&mut d.config.policy.on_repeat, word(v, REPEATS))
        })
        .words(|| words(REPEATS)),
        opt("stop-delay", None, Once("DURATION"), delay, |d, v| {
            put(&mut d.config.policy.stop_delay, stop_delay(v))
        }),
        opt("wait-tree", None, Switch, tree, |d, v| {
            put(&mut d.config.policy.wait_tree, switch(v))
        }),
        Opt {
            alias: Some("rewrite"),
            ..opt("remap", Some('r'), Many("FROM:TO"), rewrite, |d, v| {
                list(v, &mut d.config.policy.remap.0)
            })
        },
        opt("exit-status", None, Once("HOW"), how, |d, v| {
            put(&mut d.config.exit_rules.death_as_code, word(v, STATUS))
        })
        .words(|| words(STATUS)),
        opt(
            "parent-death-signal",
            Some('p'),
            Once("SIGNAL"),
            death,
            |d, v| put(&mut d.config.parent_death_signal, parse::<Signal>(v)),
        ),
        opt("stop-on-eof", None, Switch, eof, |d, v| {
            put(&mut d.config.stop_on_eof, switch(v))
        }),
        opt("guard", None, Switch, guard, |d, v| {
            put(&mut d.config.guard, switch(v))
        }),
        opt("notify", None, Once("HOW"), notify, |d, v| {
            put(&mut d.config.notify, word(v, NOTIFY))
        })
        .words(|| words(NOTIFY)),
        opt("ready", None, Once("fd:N|notify"), ready, |d, v| {
            put(&mut d.config.ready, ready_by(v))
        }),
        opt("ready-file", None, Once("FILE"), ready_file, |d, v| {
            put(&mut d.config.ready_file, path(v))
        }),
        opt(
            "ready-timeout",
            None,
            Once("DURATION"),
            ready_timeout,
            |d, v| put(&mut d.config.policy.ready_timeout, wait(v)),
        ),
        opt("watchdog", None, Once("DURATION"), watchdog, |d, v| {
            put(&mut d.config.policy.watchdog, watchdog_wait(v))
        }),
        opt("replace-on", None, Once("SIGNAL"), replace, |d, v| {
            put(&mut d.config.replace_on, stop_signal(v))
        }),
        opt("pre-stop", None, Many("COMMAND"), hook, |d, v| {
            path(v).map(|hook| d.config.pre_stop.push(hook.into()))
        }),
        opt("pre-kill", None, Many("COMMAND"), dump, |d, v| {
            path(v).map(|hook| d.config.pre_kill.push(hook.into()))
        }),
        opt("pre-kill-timeout", None, Once("DURATION"), lead, |d, v| {
            put(&mut d.config.policy.pre_kill_timeout, pre_kill_timeout(v))
        }),
        opt("post-stop", None, Many("COMMAND"), after, |d, v| {
            path(v).map(|hook| d.config.post_stop.push(hook.into()))
        }),
        opt("report", None, Once("FILE"), report, |d, v| {
            put(&mut d.config.report, report_to(v))
        }),
        opt(
            "termination-log",
            None,
            Attached("FILE", "/dev/termination-log"),
            message,
            |d, v| put(&mut d.config.termination_log, path(v)),
        ),
        opt("log-format", None, Once("FORMAT"), format, |d, v| {
            put(&mut d.log_format, word(v, FORMATS))
        })
        .words(|| words(FORMATS)),
        opt("warn-on-reap", Some('w'), Switch, warn, |d, v| {
            put(&mut d.config.warn_on_reap, switch(v))
        }),
        opt("group", Some('g'), Letter, "--kill-mode group", |_, _| {
            Ok(())
        }),
        opt(
            "single-child",
            Some('c'),
            Letter,
            "--kill-mode process",
            |_, _| Ok(()),
        ),
        opt(
            "subreaper",
            Some('s'),
            Letter,
            "Accepted for compatibility with tini: always on",
            |_, _| Ok(()),
        ),
    ]
};

/// The command line as clap reads it. A test compares man/bowout.1 with it.
#[cold]
pub(crate) fn definition() -> Command {
    let mut heading = "";
    let args = OPTIONS.iter().map(|option| {
        let below = HEADINGS.iter().find(|(first, _)| *first == option.long);
        heading = below.map_or(heading, |(_, heading)| *heading);
        option.arg().help_heading(heading)
    });
    let answer = |name, action, help, long_help| {
        let arg = Arg::new(name).long(name).action(action).help(help);
        arg.long_help(long_help).help_heading(HEADINGS[0].1)
    };
    let [example, words, variables, status] = AFTER_HELP;
    let more = "More: bowout --help-all, man bowout";
    let command = Arg::new("command").hide(true).num_args(1..);
    let command = command.value_name("COMMAND").trailing_var_arg(true);
    Command::new("bowout")
        .version(env!("CARGO_PKG_VERSION"))
        .about(ABOUT)
        .override_usage("bowout [OPTIONS] [--] COMMAND [ARG]...")
        .help_template("{about}\n\n{usage-heading} {usage}\n\n{all-args}{after-help}")
        .after_help([example, words, status, more].concat())
        .after_long_help([words, variables, status, "Full description: man bowout"].concat())
        .disable_help_flag(true)
        .disable_version_flag(true)
        .args(args)
        .arg(
            answer(
                "help",
                ArgAction::HelpShort,
                "Print this",
                "Print the options that most people need",
            )
            .short('h'),
        )
        .arg(answer(
            "help-all",
            ArgAction::HelpLong,
            "Print all options, and their variables",
            "Print this",
        ))
        .arg(
            answer(
                "version",
                ArgAction::Version,
                "Print the version",
                "Print the version",
            )
            .short('V'),
        )
        .arg(command.value_parser(value_parser!(OsString)))
}

const ABOUT: &str = "\
bowout runs a command and makes sure it stops cleanly: forwards every signal,
gives it time to exit after a stop request, then kills it, and exits as it did.";

/// Lines of at most 80 columns: --help is one screen, and clap wraps nothing.
const AFTER_HELP: [&str; 4] = [
    "Example: bowout --grace 10s --stop-signal QUIT -- nginx -g 'daemon off;'\n\n",
    "Durations: 10s, 1m30s, 10, 0.5, never. Signals: TERM, SIGTERM, 15, RTMIN+3.\n",
    "A variable sets its option; a typed option wins.\n",
    "Exit status: that of COMMAND; 124 a time limit ran out, 125 bowout failed,
126 COMMAND cannot run, 127 COMMAND not found, 137 a process outlived SIGKILL.\n",
];
