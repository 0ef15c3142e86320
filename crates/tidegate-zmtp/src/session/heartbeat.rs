//! When to send a PING, and when silence means death (§5.1). Pure arithmetic on instants.

use std::time::{Duration, Instant};

use crate::{
    close::{CloseReason, Deadline},
    config::{Heartbeat as Config, OldPeers},
    greeting::Version,
};

/// Most own PINGs without any frame from the peer (MQ-169).
const MAX_OUTSTANDING: u32 = 4;

/// Most PINGs of the peer in one second (MQ-170).
const MAX_PINGS_PER_SECOND: u32 = 1000;

/// Most PINGs of the peer that may have piled up while it was not read. Their answers may wait together.
const MAX_PILED_UP: u32 = 1 << 16;

/// The timers of an established connection.
#[derive(Debug)]
pub(super) struct Heartbeat {
    interval: Option<Duration>,
    timeout: Option<Duration>,
    /// Whether the peer may be sent a PING (MQ-171).
    permitted: bool,
    learns: bool,
    next_ping: Option<Instant>,
    /// Own PINGs since the last frame of the peer.
    outstanding: u32,
    /// Armed by the oldest of these.
    timeout_at: Option<Instant>,
    /// Armed by a PING of the peer with a time to live.
    death_at: Option<Instant>,
    paused_at: Option<Instant>,
    /// Start of the second in which the PINGs of the peer are counted, and their number.
    second: Instant,
    pings: u32,
    /// How many may still come that piled up while the peer was not read: as many as were allowed in that time.
    piled_up: u32,
}

impl Heartbeat {
    /// Timers of a connection whose handshake is complete at `now` (MQ-172).
    pub(super) fn new(config: &Config, version: Version, now: Instant) -> Self {
        let old = version == Version::V3_0;
        let interval = config.interval.filter(|interval| !interval.is_zero());
        let interval = interval.filter(|_| !old || config.old_peers != OldPeers::Never);
        Self {
            interval,
            timeout: config.timeout.or(interval).filter(|timeout| !timeout.is_zero()),
            permitted: !old || config.old_peers == OldPeers::Always,
            learns: old && config.old_peers == OldPeers::Learned,
            next_ping: interval.and_then(|interval| now.checked_add(interval)),
            outstanding: 0,
            timeout_at: None,
            death_at: None,
            paused_at: None,
            second: now,
            pings: 0,
            piled_up: 0,
        }
    }

    /// A frame of any kind has arrived: the peer lives (MQ-173).
    #[inline]
    pub(super) fn alive(&mut self) {
        self.outstanding = 0;
        self.timeout_at = None;
        self.death_at = None;
    }

    /// A PING has arrived, after [`alive`](Self::alive). Says whether it may be one of those that piled up while the peer
    /// was not read.
    ///
    /// # Errors
    ///
    /// When there are too many in a second.
    pub(super) fn pinged(&mut self, ttl: u16, now: Instant) -> Result<bool, CloseReason> {
        let piled_up = self.piled_up > 0;
        self.piled_up = self.piled_up.saturating_sub(1);
        if now.saturating_duration_since(self.second) >= Duration::from_secs(1) {
            self.second = now;
            self.pings = 0;
        }
        self.pings += u32::from(!piled_up);
        if self.pings > MAX_PINGS_PER_SECOND {
            return Err(CloseReason::PingFlood);
        }
        self.permitted |= self.learns;
        if ttl > 0 {
            self.death_at = self.since_pause(now).checked_add(Duration::from_millis(u64::from(ttl) * 100));
        }
        Ok(piled_up)
    }

    /// The peer is not read for a while (MQ-176).
    pub(super) fn pause(&mut self, now: Instant) {
        self.paused_at.get_or_insert(now);
    }

    /// The peer is read again: the deadlines are later by the time that it was not.
    pub(super) fn resume(&mut self, now: Instant) {
        if let Some(paused_at) = self.paused_at.take() {
            let pause = now.saturating_duration_since(paused_at);
            let allowed = pause.as_millis() * u128::from(MAX_PINGS_PER_SECOND) / 1000;
            let allowed = u32::try_from(allowed).unwrap_or(MAX_PILED_UP);
            self.piled_up = self.piled_up.saturating_add(allowed).min(MAX_PILED_UP);
            for deadline in [&mut self.timeout_at, &mut self.death_at] {
                *deadline = deadline.and_then(|at| at.checked_add(pause));
            }
        }
    }

    /// When [`expired`](Self::expired) has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let silence = if self.paused_at.is_some() { [None; 2] } else { [self.timeout_at, self.death_at] };
        silence.into_iter().chain([self.next_ping]).flatten().min()
    }

    /// Whether a PING is to be sent at `now`.
    ///
    /// # Errors
    ///
    /// When the peer has been silent for too long.
    pub(super) fn expired(&mut self, now: Instant) -> Result<bool, CloseReason> {
        let passed = |deadline: Option<Instant>| deadline.is_some_and(|at| at <= now);
        if self.paused_at.is_none() {
            if passed(self.timeout_at) {
                return Err(CloseReason::TimedOut(Deadline::Heartbeat));
            }
            if passed(self.death_at) {
                return Err(CloseReason::TimedOut(Deadline::TimeToLive));
            }
        }
        let (Some(interval), Some(due)) = (self.interval, self.next_ping.filter(|&due| due <= now)) else {
            return Ok(false);
        };
        let next = due.checked_add(interval);
        self.next_ping = next.filter(|&next| next > now).or_else(|| now.checked_add(interval));
        if !self.permitted || self.outstanding >= MAX_OUTSTANDING {
            return Ok(false);
        }
        self.outstanding += 1;
        if let (None, Some(timeout)) = (self.timeout_at, self.timeout) {
            self.timeout_at = self.since_pause(now).checked_add(timeout);
        }
        Ok(true)
    }

    /// From when a deadline armed at `now` counts, such that [`resume`](Self::resume) makes it count from the resume.
    fn since_pause(&self, now: Instant) -> Instant {
        self.paused_at.unwrap_or(now)
    }
}
