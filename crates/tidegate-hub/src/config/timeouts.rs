//! How long things may take (6.3).

use std::time::Duration;

use tidegate_shm::clock::{Nanos, monotonic_now, monotonic_roughly};

use super::{ConfigInvalid, Fault};
use crate::{
    core::config::{Deadline, Timing},
    layout::Mismatch,
};

/// How long one call may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Timeout {
    /// Not at all.
    Immediate,
    /// So long.
    After(Duration),
    /// Until it works, the block is closed, the right is lost, or the waits of the process are cancelled
    /// ([`cancel_waits`](crate::cancel::cancel_waits), DH-097).
    Infinite,
    /// As the handle's [`HubTimeouts`] say.
    #[default]
    Default,
}

impl Timeout {
    /// The point in time, computed once at the entry of the call (DH-098).
    #[inline]
    pub(crate) fn deadline(self, default: Duration) -> Deadline {
        let after = |time: Duration| Deadline::At(now_for(time).saturating_add(time.into()));
        match self {
            Self::Immediate => Deadline::Immediate,
            Self::Infinite => Deadline::Never,
            Self::After(Duration::ZERO) => Deadline::Immediate,
            Self::After(time) => after(time),
            Self::Default => after(default),
        }
    }
}

impl From<Duration> for Timeout {
    fn from(time: Duration) -> Self {
        Self::After(time)
    }
}

/// The times of a handle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubTimeouts {
    /// Acquiring slots to write.
    pub write_acquire: Duration,
    /// Acquiring slots to read.
    pub read_acquire: Duration,
    /// Shared spinlocks.
    pub lock_acquire: Duration,
    /// Joining, leaving, recovery.
    pub maintenance_lock: Duration,
    /// First stage of waiting: spinning.
    pub spin: Duration,
    /// Longest sleep of the second stage, at most 10 ms (DH-076).
    pub futex_slice: Duration,
    /// When a blocked party asks whether the other one lives.
    pub liveness_probe_after: Duration,
    /// Time between the beats of a handle.
    pub heartbeat_interval: Duration,
    /// From which age on a beat is reported as stale.
    pub heartbeat_stale: Duration,
    /// From which age on an unfinished write is reported as stuck.
    pub stuck_write: Duration,
    /// From which age on a claim is reported as stuck.
    pub stuck_read: Duration,
    /// Waiting for a block that is being made.
    pub init_wait: Duration,
    /// One request to the broker.
    pub broker_request: Duration,
    /// One notification.
    pub notify_send: Duration,
    /// How long the old block stays after a handover.
    pub handover_grace: Duration,
}

impl Default for HubTimeouts {
    fn default() -> Self {
        Self {
            write_acquire: Duration::from_millis(100),
            read_acquire: Duration::from_millis(100),
            lock_acquire: Duration::from_secs(1),
            maintenance_lock: Duration::from_secs(1),
            spin: Duration::from_micros(2),
            futex_slice: Duration::from_millis(10),
            liveness_probe_after: Duration::from_millis(50),
            heartbeat_interval: Duration::from_secs(2),
            heartbeat_stale: Duration::from_secs(5),
            stuck_write: Duration::from_secs(5),
            stuck_read: Duration::from_secs(300),
            init_wait: Duration::from_secs(1),
            broker_request: Duration::from_secs(5),
            notify_send: Duration::from_millis(100),
            handover_grace: Duration::from_secs(5),
        }
    }
}

impl HubTimeouts {
    /// Every value that is out of range or does not go with another one (DH-099).
    pub fn faults(&self) -> Vec<Mismatch> {
        let nanos = |time: Duration| Nanos::from(time).0;
        let mut faults = Vec::new();
        let mut within = |field, lowest: u64, highest: u64, time: Duration| {
            if !(lowest..=highest).contains(&nanos(time)) {
                faults.push(Mismatch::range(field, lowest, highest, nanos(time)));
            }
        };
        within("futex_slice", 1, SLICE_MAX, self.futex_slice);
        within("heartbeat_interval", 1_000_000, u64::MAX, self.heartbeat_interval);
        let twice = nanos(self.heartbeat_interval).saturating_mul(2);
        within("heartbeat_stale", twice, u64::MAX, self.heartbeat_stale);
        faults
    }

    /// Checks all values.
    ///
    /// # Errors
    /// Every one that is not valid.
    pub fn validate(&self) -> Result<(), ConfigInvalid> {
        let faults: Vec<Fault> = self.faults().into_iter().map(Fault::Value).collect();
        if faults.is_empty() { Ok(()) } else { Err(ConfigInvalid { faults }) }
    }

    /// What the protocol uses of them.
    pub(crate) fn timing(&self) -> Timing {
        Timing {
            spin: self.spin.into(),
            futex_slice: self.futex_slice.into(),
            probe_after: self.liveness_probe_after.into(),
            ..Timing::default()
        }
    }
}

/// The time that a wait of `time` is reckoned from. Long ones begin at the next tick of the kernel's clock, which costs a
/// fraction of the exact time and makes no wait shorter.
#[inline]
fn now_for(time: Duration) -> Nanos {
    if time < LONG { monotonic_now() } else { monotonic_roughly().saturating_add(TICK) }
}

/// From here on a tick more or less does not matter.
const LONG: Duration = Duration::from_millis(50);
/// The longest tick of Linux.
const TICK: Nanos = Nanos::from_millis(10);

/// Nanoseconds; a process that is killed between a change and its wake-up strands a sleeper for so long at most.
const SLICE_MAX: u64 = 10_000_000;
