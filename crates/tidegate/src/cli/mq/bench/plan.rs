//! What is measured.

use clap::ValueEnum;

/// A kind of measurement, as it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    /// Messages one way over tcp
    PushPull,
    /// Round trips over tcp
    ReqRep,
    /// Messages one way over ipc
    Ipc,
    /// Messages of a publisher to one subscriber over tcp
    PubSub,
    /// Messages one way over tcp, encrypted
    Curve,
    /// Messages one way inside a process
    InprocRate,
    /// Round trips inside a process
    InprocTrip,
}

/// One measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Measure {
    pub(super) name: &'static str,
    pub(super) ends: Ends,
    pub(super) transport: &'static str,
    pub(super) curve: bool,
    pub(super) bytes: usize,
}

/// Who talks to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ends {
    PushPull,
    PubSub,
    ReqRep,
    /// PAIR and PAIR; `how` is what the peer takes for rate or round trips.
    OneProcess {
        how: &'static str,
    },
}

impl Kind {
    pub(super) fn measure(self, bytes: usize) -> Measure {
        let (name, ends, transport) = match self {
            Self::PushPull => ("push_pull", Ends::PushPull, "tcp"),
            Self::ReqRep => ("req_rep", Ends::ReqRep, "tcp"),
            Self::Ipc => ("push_pull_ipc", Ends::PushPull, "ipc"),
            Self::PubSub => ("pub_sub", Ends::PubSub, "tcp"),
            Self::Curve => ("push_pull_curve", Ends::PushPull, "tcp"),
            Self::InprocRate => ("inproc_rate", Ends::OneProcess { how: "bind" }, "inproc"),
            Self::InprocTrip => ("inproc_trip", Ends::OneProcess { how: "connect" }, "inproc"),
        };
        Measure { name, ends, transport, curve: self == Self::Curve, bytes }
    }
}

impl Measure {
    /// Whether the result is round-trip times, of which less is better, or a rate.
    pub(super) fn is_trips(&self) -> bool {
        matches!(self.ends, Ends::ReqRep | Ends::OneProcess { how: "connect" })
    }
}
