//! Waiting in two stages (5.9): a short spin, then sleep in slices. Nothing is slept away in between: a timed sleep
//! cannot be ended by whoever makes the change.

use tidegate_shm::{
    clock::Nanos,
    doorbell::BellWord,
    sync::{AtomicU64, Ordering},
};

use super::{
    config::{Deadline, Timing, WaitStrategy},
    event,
    host::Host,
    protocol::Protocol,
    words::{Load, Word},
};

/// What is waited for and how.
pub(super) struct Wait<'h, H, S, F> {
    pub(super) host: &'h H,
    pub(super) strategy: WaitStrategy,
    pub(super) timing: Timing,
    pub(super) deadline: Deadline,
    /// What is slept on.
    pub(super) sequence: S,
    /// Says that somebody sleeps.
    pub(super) flag: F,
    /// How it is looked for while spinning.
    pub(super) polling: Polling,
}

/// How often the condition is looked at while spinning.
#[derive(Clone, Copy)]
pub(super) enum Polling {
    /// As often as possible: what is waited for comes on a line that is written once for it.
    Eager,
    /// Ever less often, since every look takes lines away from those who are waited for, and slows them down.
    Gentle,
}

/// How a wait ended.
pub(super) struct Waited<T> {
    /// What was waited for; none when the deadline passed.
    pub(super) result: Option<T>,
    /// How long it took; zero when there was nothing to wait for.
    pub(super) time: Nanos,
    /// Whether it came to sleeping in the kernel.
    pub(super) slept: bool,
}

impl<H: Host, S: Load<u32> + BellWord, F: Word<u32>> Wait<'_, H, S, F> {
    /// Calls `attempt` until it gives something or the deadline passes; it is told for how long it has been tried. An
    /// error ends the wait at once. The clock is not read when the first attempt succeeds, or is the only one.
    #[inline]
    pub(super) fn until<P: Protocol, T, E>(
        &self,
        mut attempt: impl FnMut(Nanos) -> Result<Option<T>, E>,
    ) -> Result<Waited<T>, E> {
        let result = attempt(Nanos::ZERO)?;
        if result.is_some() || self.deadline == Deadline::Immediate {
            return Ok(Waited { result, time: Nanos::ZERO, slept: false });
        }
        self.wait::<P, T, E>(attempt)
    }

    fn wait<P: Protocol, T, E>(
        &self,
        mut attempt: impl FnMut(Nanos) -> Result<Option<T>, E>,
    ) -> Result<Waited<T>, E> {
        let started = self.host.now();
        let mut slept = false;
        let mut told = false;
        let mut pauses = 1;
        loop {
            let now = self.host.now();
            let time = now.saturating_sub(started);
            if self.deadline.passed(now) || self.host.is_cancelled() {
                return Ok(Waited { result: None, time, slept });
            }
            if !told && time >= self.timing.spin {
                told = true;
                self.host.waits();
            }
            let spins = match self.strategy {
                WaitStrategy::Spin => true,
                WaitStrategy::Hybrid => time < self.timing.spin,
                WaitStrategy::Poll(_) => false,
            };
            if spins {
                if let Some(result) = self.spin(time, &mut pauses, &mut attempt)? {
                    return Ok(Waited { result: Some(result), time, slept });
                }
                continue;
            }
            let left = self.deadline.left(now);
            if let WaitStrategy::Poll(every) = self.strategy {
                self.host.sleep(every.min(left));
            } else {
                let seen = event::prepare::<P>(self.sequence, self.flag);
                if let Some(result) = attempt(time)? {
                    return Ok(Waited { result: Some(result), time, slept });
                }
                let slice = self.timing.futex_slice.min(left);
                event::sleep(self.sequence, seen, now.saturating_add(slice));
                slept = true;
            }
            let time = self.host.now().saturating_sub(started);
            if let Some(result) = attempt(time)? {
                return Ok(Waited { result: Some(result), time, slept });
            }
        }
    }
}

impl<H: Host, S, F> Wait<'_, H, S, F> {
    /// Passes the time between two looks at the clock, which takes longer than some looks at the condition.
    #[inline]
    fn spin<T, E>(
        &self,
        time: Nanos,
        pauses: &mut u32,
        attempt: &mut impl FnMut(Nanos) -> Result<Option<T>, E>,
    ) -> Result<Option<T>, E> {
        match self.polling {
            Polling::Eager => {
                for _ in 0..LOOKS {
                    if let Some(result) = attempt(time)? {
                        return Ok(Some(result));
                    }
                }
                self.host.pause();
            }
            Polling::Gentle => {
                (0..*pauses).for_each(|_| self.host.pause());
                *pauses = (*pauses * 2).min(PAUSES_MAX);
                return attempt(time);
            }
        }
        Ok(None)
    }
}

/// Looks between two pauses, each of which may take as long as the way of a line from cache to cache, and so does the look
/// at the clock: what comes meanwhile is seen late.
const LOOKS: u32 = 64;

/// Most pauses between two gentle looks: about a microsecond.
const PAUSES_MAX: u32 = 16;

/// When to ask whether a blocking party is alive: after 50 ms, then every 100 ms (DH-036).
pub(super) struct Probes {
    next: Nanos,
    every: Nanos,
}

impl Probes {
    pub(super) fn new(timing: &Timing) -> Self {
        Self { next: timing.probe_after, every: timing.probe_every }
    }

    /// Whether it is time, `waited` after the start.
    pub(super) fn due(&mut self, waited: Nanos) -> bool {
        if waited < self.next {
            return false;
        }
        self.next = waited.saturating_add(self.every);
        true
    }
}

/// The same for a party that is blocked over several calls, none of which may take so long.
#[derive(Debug, Default)]
pub(super) struct Blocked {
    /// When to ask next; 0 while nothing is in the way.
    next: AtomicU64,
}

impl Blocked {
    /// Whether it is time to ask; to be called when a call failed.
    pub(super) fn is_due(&self, now: Nanos, timing: &Timing) -> bool {
        // Relaxed, here and below: only the thread whose turn it is uses it.
        let next = self.next.load(Ordering::Relaxed);
        if next != 0 && now.0 < next {
            return false;
        }
        let pause = if next == 0 { timing.probe_after } else { timing.probe_every };
        self.next.store(now.saturating_add(pause).0, Ordering::Relaxed);
        next != 0
    }

    /// Nothing is in the way any more.
    pub(super) fn end(&self) {
        if self.next.load(Ordering::Relaxed) != 0 {
            self.next.store(0, Ordering::Relaxed);
        }
    }
}
