//! Draining and the end of a driver (15.5).
//!
//! ```text
//! Running --request with the token--> Draining --shutdown timeout--> Stopped
//!    \--------------orderly exit (signal, fatal error)---------------/
//! ```
//!
//! Entering Stopped publishes the one shutdown notice (TP-267).

use std::hint::black_box;

use tidegate_sbe::Open;
use tidegate_sbe::driver::{self as wire, ShmDriverShutdown, ShmDriverShutdownRequest};
use tidegate_shm::clock::Nanos;

use super::Driver;
use super::outbox::error_text;

/// Why a driver ends (TP-267).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShutdownReason {
    /// A plain exit, for example by a signal.
    Normal,
    /// An administrator asked for it.
    Admin,
    /// A fatal condition.
    Error,
}

impl ShutdownReason {
    fn to_wire(self) -> wire::ShutdownReason {
        match self {
            Self::Normal => wire::ShutdownReason::Normal,
            Self::Admin => wire::ShutdownReason::Admin,
            Self::Error => wire::ShutdownReason::Error,
        }
    }
}

/// Where a driver is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DriverState {
    /// Serves everything.
    Running,
    /// Refuses attaches, still accepts keepalives and detaches (TP-266).
    Draining,
    /// Has said goodbye; nothing is accepted any more.
    Stopped,
}

/// Why the driver ends, for the notice.
#[derive(Debug, Clone)]
pub(super) enum Phase {
    Running,
    Draining { until: Nanos, reason: ShutdownReason, text: String },
    Stopped,
}

impl Driver {
    /// Where the driver is in its life.
    #[must_use]
    pub fn state(&self) -> DriverState {
        match self.phase {
            Phase::Running => DriverState::Running,
            Phase::Draining { .. } => DriverState::Draining,
            Phase::Stopped => DriverState::Stopped,
        }
    }

    /// Ends the driver now: publishes the shutdown notice and accepts nothing more. For signals (`Normal`) and fatal
    /// conditions (`Error`, with what happened in `text`). Does nothing when already stopped.
    pub fn shutdown(&mut self, reason: ShutdownReason, text: &str, now: Nanos) {
        if matches!(self.phase, Phase::Stopped) {
            return;
        }
        let text = error_text(text);
        let notice = ShmDriverShutdown {
            timestamp_ns: now.as_u64(),
            reason: Open::Listed(reason.to_wire()),
            error_message: text.as_str().into(),
        };
        self.outbox.push_control(notice.to_vec());
        self.phase = Phase::Stopped;
    }

    /// A request over the wire (TP-265, TP-266, TP-268). One without the right token is ignored silently: an answer
    /// would help guessing.
    pub(super) fn on_shutdown_request(&mut self, request: &ShmDriverShutdownRequest<'_>, now: Nanos) {
        let Some(token) = &self.config.policies.shutdown_token else { return };
        if !is_same(token.expose().as_bytes(), request.token.as_bytes()) {
            self.counters.shutdown_requests_refused += 1;
            return;
        }
        // An unlisted reason must not keep an authorised shutdown from happening (TP-304).
        let reason = match request.reason {
            Open::Listed(wire::ShutdownReason::Normal) => ShutdownReason::Normal,
            Open::Listed(wire::ShutdownReason::Admin) => ShutdownReason::Admin,
            Open::Listed(wire::ShutdownReason::Error) => ShutdownReason::Error,
            Open::Unlisted(found) => {
                tracing::warn!(found, "shutdown request with an unknown reason is taken as ERROR");
                ShutdownReason::Error
            }
        };
        let text = match request.error_message.as_str() {
            Some(text) if !text.is_empty() => text.to_owned(),
            _ => "shutdown requested".to_owned(),
        };
        self.drain(reason, &text, now);
    }

    /// Starts draining: attaches are refused from now on, and the notice follows after `shutdown_timeout_ms`. Does nothing
    /// when that has begun already (TP-268).
    pub fn drain(&mut self, reason: ShutdownReason, text: &str, now: Nanos) {
        if !matches!(self.phase, Phase::Running) {
            return;
        }
        let until = now.saturating_add(self.config.policies.shutdown_timeout.into());
        self.phase = Phase::Draining { until, reason, text: text.to_owned() };
        tracing::info!(?reason, "driver draining");
        // The final announces go out with the next tick, as far as the outbox has room for them.
        self.streams.schedule_all(now);
    }

    pub(super) fn finish_draining(&mut self, now: Nanos) {
        if let Phase::Draining { until, reason, text } = &self.phase
            && now >= *until
        {
            let (reason, text) = (*reason, text.clone());
            self.shutdown(reason, &text, now);
        }
    }
}

/// Compares in a time that depends on the length of `given` only, which its sender knows (TP-265).
fn is_same(expected: &[u8], given: &[u8]) -> bool {
    let mut difference = expected.len() ^ given.len();
    for (given, expected) in given.iter().zip(expected.iter().cycle()) {
        difference |= usize::from(given ^ expected);
    }
    black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_the_same_only_when_equal() {
        assert!(is_same(b"token", b"token"));
        for other in [&b""[..], b"tokem", b"toke", b"tokentoken", b"token\0", b"TOKEN"] {
            assert!(!is_same(b"token", other), "{other:?}");
        }
    }
}
