//! When to dial again: the states of a dialing endpoint, without I/O (section 7.6 of the specification).
//!
//! Inputs say what happened, outputs what to do; time and randomness come with the inputs.
//!
//! ```text
//!  Registered -> Resolving -> Connecting -> Handshaking -> Up
//!                   ^  \__________\______________\________/
//!                   |                   |
//!                   +---- Waiting <-----+-----> Stopped, Failed    (any) -> Removed
//! ```

use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::{engine::timers::bounded, protocol::Retry};

/// How a dialer waits between attempts (MQ-277 to MQ-281).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The first delay; `None`, or a hundred years and more, never dials again, neither after a failed attempt nor after a loss.
    pub base: Option<Duration>,
    /// The longest delay. Below `base` it is ignored: then delays do not grow.
    pub max: Duration,
    /// When to give up instead.
    pub stop: StopOn,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { base: Some(Duration::from_millis(100)), max: Duration::ZERO, stop: StopOn::default() }
    }
}

/// Conditions under which a dialer stops until it is told to try again (MQ-281).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StopOn {
    /// The peer's host refused the connection.
    pub refused: bool,
    /// The stream ended before it was established.
    pub handshake_failed: bool,
    /// An established stream ended.
    pub disconnected: bool,
}

/// How far a dialer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Registered,
    Resolving,
    Connecting {
        /// The next address to dial.
        next: usize,
        total: usize,
        /// Attempts under way.
        open: usize,
        /// An attempt of this round was refused.
        refused: bool,
    },
    Handshaking,
    Up {
        since: Instant,
    },
    /// Between attempts.
    Waiting,
    /// Stopped by rule.
    Stopped,
    /// Stopped because the peer refused who we are.
    Failed,
    Removed,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    Start,
    /// The name stands for so many addresses.
    Resolved(usize),
    ResolveFailed,
    /// An address was reached; the stream is up.
    Connected,
    /// An address was not reached.
    AttemptFailed {
        refused: bool,
    },
    /// The handshake is complete.
    Established(Instant),
    /// The stream has ended.
    Ended(Retry, Instant),
    /// The timer has run out.
    Timer,
    /// The user says: try again.
    Retry,
    Close,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output {
    Resolve,
    /// Dial the address with this number.
    Dial(usize),
    /// Set the timer for the next address.
    Stagger(Duration),
    /// Give up the other attempts.
    DropAttempts,
    /// Set the timer for the next round.
    Wait(Duration),
    /// Say that the dialer has stopped by rule.
    Stop,
    /// Say that the peer refused who we are.
    Refuse,
    /// Close the stream, if there is one, and forget the dialer.
    Remove,
}

pub(super) type Outputs = SmallVec<[Output; 3]>;

/// Time after which the next address is dialed although the one before has not failed yet (MQ-257).
pub(super) const STAGGER: Duration = Duration::from_millis(250);

const SECOND: Duration = Duration::from_secs(1);
const SLOW_MOST: Duration = Duration::from_secs(30);

/// State of one dialer.
#[derive(Debug)]
pub(super) struct Machine {
    backoff: Backoff,
    phase: Phase,
    /// Consecutive failures.
    failures: u32,
    /// Those of them that were violations of the protocol.
    slow: u32,
    /// The last delay.
    delay: Duration,
}

impl Machine {
    pub(super) fn new(backoff: Backoff) -> Self {
        let base = backoff.base.filter(|base| !base.is_zero());
        let backoff = Backoff { base, ..backoff };
        Self { backoff, phase: Phase::Registered, failures: 0, slow: 0, delay: Duration::ZERO }
    }

    #[cfg(test)]
    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether it is on the way to a stream whose handshake is complete.
    pub(super) fn is_trying(&self) -> bool {
        !matches!(self.phase, Phase::Up { .. } | Phase::Stopped | Phase::Failed | Phase::Removed)
    }

    /// Takes `input`; `random` gives evenly distributed numbers in `[0, 1)`.
    pub(super) fn step(&mut self, input: Input, random: &mut dyn FnMut() -> f64) -> Outputs {
        use Output as O;
        let mut out = Outputs::new();
        match (self.phase, input) {
            (Phase::Removed, _) => {}
            (_, Input::Close) => {
                self.phase = Phase::Removed;
                out.extend([O::DropAttempts, O::Remove]);
            }
            (Phase::Registered, Input::Start) | (Phase::Waiting, Input::Timer) => {
                self.phase = Phase::Resolving;
                out.push(O::Resolve);
            }
            (Phase::Stopped | Phase::Failed, Input::Retry) => {
                self.forget_failures();
                self.phase = Phase::Waiting;
                out.push(O::Wait(Duration::ZERO));
            }
            (Phase::Resolving, Input::Resolved(total)) if total > 0 => {
                self.phase = Phase::Connecting { next: 1, total, open: 1, refused: false };
                out.push(O::Dial(0));
                out.extend((total > 1).then_some(O::Stagger(STAGGER)));
            }
            (Phase::Resolving, Input::Resolved(_) | Input::ResolveFailed) => {
                self.fail(Retry::Lost, random, &mut out);
            }
            (Phase::Connecting { next, total, open, refused }, Input::Timer) if next < total => {
                self.phase = Phase::Connecting { next: next + 1, total, open: open + 1, refused };
                out.push(O::Dial(next));
                out.extend((next + 1 < total).then_some(O::Stagger(STAGGER)));
            }
            (Phase::Connecting { next, total, open, refused }, Input::AttemptFailed { refused: now }) => {
                let refused = refused || now;
                if next < total {
                    self.phase = Phase::Connecting { next: next + 1, total, open, refused };
                    out.push(O::Dial(next));
                    out.extend((next + 1 < total).then_some(O::Stagger(STAGGER)));
                } else if open > 1 {
                    self.phase = Phase::Connecting { next, total, open: open - 1, refused };
                } else if refused && self.backoff.stop.refused {
                    self.stop(&mut out);
                } else {
                    self.fail(Retry::Lost, random, &mut out);
                }
            }
            (Phase::Connecting { .. }, Input::Connected) => {
                self.phase = Phase::Handshaking;
                out.push(O::DropAttempts);
            }
            (Phase::Handshaking, Input::Established(since)) => self.phase = Phase::Up { since },
            (Phase::Handshaking | Phase::Up { .. }, Input::Ended(Retry::Never, _)) => {
                self.phase = Phase::Failed;
                out.push(O::Refuse);
            }
            (Phase::Handshaking, Input::Ended(retry, _)) => {
                if self.backoff.stop.handshake_failed {
                    self.stop(&mut out);
                } else {
                    self.fail(retry, random, &mut out);
                }
            }
            (Phase::Up { since }, Input::Ended(retry, at)) => {
                if at.saturating_duration_since(since) >= self.delay.max(SECOND) {
                    self.forget_failures();
                }
                if self.backoff.stop.disconnected {
                    self.stop(&mut out);
                } else {
                    self.fail(retry, random, &mut out);
                }
            }
            _ => {}
        }
        out
    }

    fn forget_failures(&mut self) {
        self.failures = 0;
        self.slow = 0;
        self.delay = Duration::ZERO;
    }

    fn stop(&mut self, out: &mut Outputs) {
        self.phase = Phase::Stopped;
        out.push(Output::Stop);
    }

    fn fail(&mut self, retry: Retry, random: &mut dyn FnMut() -> f64, out: &mut Outputs) {
        let delay = self.backoff.base.and_then(|base| bounded(self.next_delay(base, retry, random())));
        let Some(delay) = delay else { return self.stop(out) };
        self.delay = delay;
        self.failures = self.failures.saturating_add(1);
        if retry == Retry::Slow {
            self.slow = self.slow.saturating_add(1);
        }
        self.phase = Phase::Waiting;
        out.push(Output::Wait(self.delay));
    }

    fn next_delay(&self, base: Duration, retry: Retry, random: f64) -> Duration {
        let max = self.backoff.max;
        match retry {
            // Only upwards: at most one attempt a second is a promise (MQ-463).
            Retry::Slow => scaled(doubled(SECOND, self.slow, SLOW_MOST), 1.0 + 0.25 * random),
            Retry::After(delay) => scaled(delay.max(SECOND), 1.0 + 0.25 * random),
            Retry::Unexplained => scaled(doubled(base, self.failures, max.max(SECOND)), 1.0 + 0.25 * random),
            Retry::Lost | Retry::Never if max < base => scaled(base, 1.0 + random),
            Retry::Lost | Retry::Never => scaled(doubled(base, self.failures, max), 0.75 + 0.5 * random),
        }
    }
}

/// `delay` times `factor`, or the longest there is.
fn scaled(delay: Duration, factor: f64) -> Duration {
    Duration::try_from_secs_f64(delay.as_secs_f64() * factor).unwrap_or(Duration::MAX)
}

/// `base` doubled `times` times, at most `most`, and at least `base`.
fn doubled(base: Duration, times: u32, most: Duration) -> Duration {
    base.saturating_mul(1_u32.checked_shl(times).unwrap_or(u32::MAX)).min(most.max(base))
}
