//! The sender of a signal, and the side that it is on. Decides only: the caller passes in all
//! facts.

use std::fmt;

/// Where a stop request came from. Two requests from one side mean "now". Two sides can repeat one
/// wish: systemd sends SIGTERM after an ExecStop= that sent it (systemd.service(5)), the kubelet
/// after a preStop hook that did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The kernel: Ctrl-C, Ctrl-\, a hang-up (`SI_KERNEL`, sigaction(2)).
    Terminal,
    /// Another PID namespace, such as a container runtime's: the sender has no number in bowout's
    /// (`si_pid` 0).
    Outside,
    /// The process that started bowout, or PID 1: a shell, systemd.
    Manager,
    /// Any other process.
    Process,
    /// The child or a descendant.
    Tree,
    /// The process that started bowout has exited (`--parent-death-signal`). A side of its own: a
    /// parent that asks for the stop and exits is not impatient.
    Parent,
}

impl Side {
    /// The number of sides.
    pub(crate) const COUNT: usize = 6;
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Terminal => "terminal",
            Self::Outside => "outside",
            Self::Manager => "manager",
            Self::Process => "process",
            Self::Tree => "tree",
            Self::Parent => "parent",
        })
    }
}

/// The sender of a signal, as the kernel reports it (sigaction(2), `siginfo_t`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sender {
    /// The kernel sent it (`si_code`); `pid` and `uid` mean nothing then.
    pub(crate) kernel: bool,
    /// 0: the sender is outside bowout's PID namespace, or unknown: at RLIMIT_SIGPENDING the kernel
    /// drops it (kernel/signal.c, `__send_signal_locked`).
    pub(crate) pid: i32,
    pub(crate) uid: u32,
    /// The sender is bowout's parent, whose exit sends the signal (`--parent-death-signal`). Its
    /// `uid` is unknown.
    pub(crate) exited: bool,
}

/// A sender, as the log and the report name it.
#[derive(Clone, Debug)]
pub(crate) struct NamedSender {
    pub(crate) side: Side,
    pub(crate) sender: Sender,
    /// Its name, where /proc still had it.
    pub(crate) name: Option<String>,
}

/// The processes by which the side of a sender is judged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kin {
    /// bowout's parent at the start; 0 if it is outside the PID namespace.
    pub(crate) parent: i32,
    pub(crate) child: i32,
}

impl Kin {
    /// The side of `sender`, as far as numbers settle it: a descendant other than the child is
    /// [`Side::Process`], and to find it out costs a walk through /proc.
    pub(crate) fn side(self, sender: Sender) -> Side {
        match sender.pid {
            _ if sender.kernel => Side::Terminal,
            0 => Side::Outside,
            pid if pid == self.child => Side::Tree,
            pid if pid == self.parent || pid == 1 => Side::Manager,
            _ => Side::Process,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIN: Kin = Kin {
        parent: 40,
        child: 50,
    };

    fn side(kernel: bool, pid: i32) -> Side {
        KIN.side(Sender {
            kernel,
            pid,
            uid: 0,
            exited: false,
        })
    }

    #[test]
    fn every_sender_has_its_side() {
        assert_eq!(side(true, 0), Side::Terminal);
        assert_eq!(side(true, 40), Side::Terminal);
        assert_eq!(side(false, 0), Side::Outside);
        assert_eq!(side(false, 1), Side::Manager);
        assert_eq!(side(false, 40), Side::Manager);
        assert_eq!(side(false, 50), Side::Tree);
        assert_eq!(side(false, 70), Side::Process);
    }

    #[test]
    fn every_side_has_its_word() {
        let sides = [
            Side::Terminal,
            Side::Outside,
            Side::Manager,
            Side::Process,
            Side::Tree,
            Side::Parent,
        ];
        assert_eq!(
            sides.map(|side| side.to_string()),
            [
                "terminal", "outside", "manager", "process", "tree", "parent"
            ]
        );
        assert_eq!(
            sides.map(|side| side as usize),
            [0, 1, 2, 3, 4, 5],
            "an index of COUNT"
        );
    }

    #[test]
    fn a_parent_outside_the_namespace_is_outside() {
        let kin = Kin {
            parent: 0,
            child: 2,
        };
        assert_eq!(
            kin.side(Sender {
                kernel: false,
                pid: 0,
                uid: 0,
                exited: false
            }),
            Side::Outside
        );
    }
}
