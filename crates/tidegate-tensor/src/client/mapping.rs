//! The consumer's mapping state machine (8.2, 8.3, 9, 10.7).
//!
//! Announces, notices, configurations and time go in; commands to map and unmap come out. The machine never opens a file:
//! it is told how a mapping attempt ended and what the mapped superblocks say.
//!
//! Invariants: at most one epoch is mapped; an epoch below the floor is never mapped on the word of an announce, so
//! memory of a producer that lost its lease is not read again.

use std::time::Duration;

use tidegate_sbe::control::{ClockDomain, ConsumerConfig, ShmPoolAnnounce};
use tidegate_shm::clock::Nanos;

use super::context::Context;
use crate::ids::{Epoch, SessionId, StreamId};
use crate::region::{RegionSpec, SpecError};
use crate::uri::FallbackUri;

/// Where a consumer stands (8.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MappingState {
    /// No regions; waiting for an announce or an attach response.
    Unmapped,
    /// Frames of this epoch are read.
    Mapped(Epoch),
    /// The producer of this epoch lost its lease; waiting for a higher epoch.
    Remapping(Epoch),
    /// Shared memory is not used; see the fallback URI.
    Fallback,
}

/// Why a mapping was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnmapReason {
    /// A newer epoch takes its place.
    NewEpoch,
    /// One epoch was announced with two different contents (TP-484).
    Inconsistent,
    /// The authority announced a lower epoch (TP-131).
    EpochRegression,
    /// A descriptor went back in sequence (TP-132).
    SeqRegression,
    /// Nobody refreshed the activity time (TP-141, TP-143).
    ActivityStale,
    /// The superblock changed under the mapping (TP-081, TP-134).
    SuperblockChanged,
    /// The producer's lease was revoked (TP-299).
    ProducerRevoked,
    /// A configuration forbids shared memory (TP-182).
    Config,
    /// The consumer's own lease ended.
    LeaseLost,
}

/// Which publication an announce came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Source {
    /// Whether it is the configured announce stream, not the control stream.
    pub announce_stream: bool,
    pub session: SessionId,
}

/// Facts about an announce that are not in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    pub source: Source,
    /// Local time when the subscription's image became available.
    pub joined: Nanos,
    pub monotonic: Nanos,
    pub realtime: Nanos,
}

/// What the conductor has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum MappingCommand {
    /// Drop what is mapped, open these regions, report with [`MappingMachine::mapped`] or [`MappingMachine::map_failed`].
    Map(RegionSpec),
    /// As `Map`, if the header ring's activity differs from this value (TP-485).
    MapIfActive(RegionSpec, u64),
    /// Drop what is mapped.
    Unmap(UnmapReason),
    /// Compare the mapped superblocks with the specification, report with [`MappingMachine::on_superblocks`].
    Recheck,
    /// Drop what is mapped, give the lease back and ask for a new one.
    RenewLease,
}

/// What the mapped superblocks say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Observed {
    /// Magic, layout version, epoch and pid are still what they were when the mapping was made.
    pub unchanged: bool,
    /// `activity_timestamp_ns` of the header ring.
    pub activity: u64,
}

/// Why an announce was not accepted (8.3).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(super) enum AnnounceRejection {
    #[error("it is for another stream")]
    OtherStream,
    #[error("it is structurally wrong: {0}")]
    Structure(#[from] SpecError),
    #[error("it is older than three announce periods")]
    Stale,
    #[error("its timestamp is in the future")]
    Future,
    #[error("it was sent before this client joined")]
    BeforeJoin,
}

#[derive(Debug)]
enum State {
    Unmapped,
    Mapped(Mapped),
    Remapping { epoch: Epoch, deadline: Nanos, announced: bool },
    Fallback(FallbackCause),
}

#[derive(Debug)]
struct Mapped {
    spec: RegionSpec,
    since: Nanos,
    next_check: Nanos,
    authority: Option<Authority>,
}

#[derive(Debug, Clone, Copy)]
struct Authority {
    source: Source,
    last_heard: Nanos,
    announced_at: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FallbackCause {
    /// `useShm = FALSE`, or the application does not support shared memory.
    Config,
    /// Mapping this epoch failed.
    MapFailed(Epoch),
    /// `useShm = TRUE` came; the next announce may map.
    Released,
}

/// See the module documentation.
#[derive(Debug)]
pub(super) struct MappingMachine {
    stream: StreamId,
    /// Whether regions come from a driver; then only its announce stream carries authority (TP-483).
    driver_mode: bool,
    /// Whether the application may map at all (TP-186).
    supports_shm: bool,
    period: Duration,
    state: State,
    uri: Option<FallbackUri>,
    /// Epochs below it are not mapped on the word of an announce.
    floor: Epoch,
    /// Send time of the newest announce that was applied.
    applied: u64,
    /// Who announced the epoch that is about to be mapped.
    candidate: Option<(Epoch, Authority)>,
    /// Epoch and activity at the last drop for stale activity.
    quiet: Option<(Epoch, u64)>,
    /// When the last announce of whoever hands out the regions was accepted, or the lease granted.
    heard: Nanos,
}

impl MappingMachine {
    pub(super) fn new(
        stream: StreamId,
        driver_mode: bool,
        supports_shm: bool,
        context: &Context,
        now: Nanos,
    ) -> Self {
        Self {
            stream,
            driver_mode,
            supports_shm,
            period: context.announce_period,
            state: if supports_shm { State::Unmapped } else { State::Fallback(FallbackCause::Config) },
            uri: None,
            floor: Epoch::NONE,
            applied: 0,
            candidate: None,
            quiet: None,
            heard: now,
        }
    }

    pub(super) fn state(&self) -> MappingState {
        match &self.state {
            State::Unmapped => MappingState::Unmapped,
            State::Mapped(mapped) => MappingState::Mapped(mapped.spec.epoch()),
            State::Remapping { epoch, .. } => MappingState::Remapping(*epoch),
            State::Fallback(_) => MappingState::Fallback,
        }
    }

    pub(super) fn fallback_uri(&self) -> Option<&FallbackUri> {
        self.uri.as_ref()
    }

    /// The driver granted a lease on these regions: it is the authority, so the floor does not apply.
    pub(super) fn on_grant(&mut self, spec: &RegionSpec, now: Nanos) -> Option<MappingCommand> {
        self.stream = spec.stream();
        self.heard = now;
        self.floor = spec.epoch();
        self.candidate = None;
        match self.state {
            State::Fallback(FallbackCause::Config) => None,
            _ => Some(MappingCommand::Map(spec.clone())),
        }
    }

    /// The consumer's own lease ended; the mapping goes with it (TP-297).
    pub(super) fn on_lease_lost(&mut self) -> Option<MappingCommand> {
        match self.state {
            State::Mapped(_) | State::Remapping { .. } => {
                self.state = State::Unmapped;
                Some(MappingCommand::Unmap(UnmapReason::LeaseLost))
            }
            _ => None,
        }
    }

    /// An announce arrived.
    ///
    /// # Errors
    /// Why it was not accepted; nothing changed then.
    pub(super) fn on_announce(
        &mut self,
        announce: &ShmPoolAnnounce<'_>,
        arrival: Arrival,
        image_alive: &dyn Fn(Source) -> bool,
    ) -> Result<Option<MappingCommand>, AnnounceRejection> {
        if announce.stream_id != self.stream.get() {
            return Err(AnnounceRejection::OtherStream);
        }
        let spec = RegionSpec::from_announce(announce)?;
        self.check_time(announce, arrival)?;
        if self.qualifies(arrival.source) {
            self.heard = arrival.monotonic;
        }
        Ok(self.apply(spec, announce.announce_timestamp_ns, arrival, image_alive))
    }

    fn check_time(&self, announce: &ShmPoolAnnounce<'_>, arrival: Arrival) -> Result<(), AnnounceRejection> {
        let sent = Nanos(announce.announce_timestamp_ns);
        let window = self.window();
        let now = match announce.announce_clock_domain {
            ClockDomain::Monotonic => arrival.monotonic,
            ClockDomain::RealtimeSynced => arrival.realtime,
        };
        if sent > now.saturating_add(window.into()) {
            return Err(AnnounceRejection::Future);
        }
        if now > sent.saturating_add(window.into()) {
            return Err(AnnounceRejection::Stale);
        }
        if announce.announce_clock_domain == ClockDomain::Monotonic && sent < arrival.joined {
            return Err(AnnounceRejection::BeforeJoin);
        }
        Ok(())
    }

    fn apply(
        &mut self,
        spec: RegionSpec,
        sent: u64,
        arrival: Arrival,
        image_alive: &dyn Fn(Source) -> bool,
    ) -> Option<MappingCommand> {
        let window = self.window();
        let qualifies = self.qualifies(arrival.source);
        match &mut self.state {
            State::Fallback(FallbackCause::Config) => None,
            State::Fallback(FallbackCause::MapFailed(failed)) if *failed == spec.epoch() => None,
            State::Remapping { epoch, announced, .. } => {
                if spec.epoch() > *epoch {
                    return Some(self.map(spec, sent, arrival));
                }
                *announced |= qualifies;
                None
            }
            State::Mapped(mapped) => {
                let held = mapped.spec.epoch();
                let authority = mapped.authority.filter(|authority| {
                    image_alive(authority.source)
                        && arrival.monotonic <= authority.last_heard.saturating_add(window.into())
                });
                if spec.epoch() > held {
                    return Some(self.map(spec, sent, arrival));
                }
                if spec.epoch() < held {
                    let from_authority =
                        authority.is_some_and(|authority| authority.source == arrival.source);
                    if !from_authority || sent < self.applied {
                        self.ignore_regression(spec.epoch(), held);
                        return None;
                    }
                    self.floor = Epoch::NONE;
                    return Some(self.unmap(UnmapReason::EpochRegression));
                }
                if spec != mapped.spec {
                    return Some(self.unmap(UnmapReason::Inconsistent));
                }
                mapped.authority = match authority {
                    Some(authority) if authority.source != arrival.source => Some(authority),
                    None if !qualifies => None,
                    _ => Some(Authority {
                        source: arrival.source,
                        last_heard: arrival.monotonic,
                        announced_at: mapped.authority.map_or(sent, |known| known.announced_at),
                    }),
                };
                self.applied = self.applied.max(sent);
                Some(MappingCommand::Recheck)
            }
            State::Unmapped | State::Fallback(_) => {
                if spec.epoch() < self.floor {
                    self.ignore_regression(spec.epoch(), self.floor);
                    return None;
                }
                Some(self.map(spec, sent, arrival))
            }
        }
    }

    fn map(&mut self, spec: RegionSpec, sent: u64, arrival: Arrival) -> MappingCommand {
        self.applied = sent;
        let announcer =
            Authority { source: arrival.source, last_heard: arrival.monotonic, announced_at: sent };
        self.candidate = self.qualifies(arrival.source).then_some((spec.epoch(), announcer));
        match self.quiet {
            Some((epoch, activity)) if epoch == spec.epoch() => MappingCommand::MapIfActive(spec, activity),
            _ => MappingCommand::Map(spec),
        }
    }

    /// Whether the word of this publication counts as that of whoever hands out the regions (TP-483).
    fn qualifies(&self, source: Source) -> bool {
        source.announce_stream || !self.driver_mode
    }

    fn unmap(&mut self, reason: UnmapReason) -> MappingCommand {
        self.state = State::Unmapped;
        MappingCommand::Unmap(reason)
    }

    /// The regions were opened and pass every check.
    pub(super) fn mapped(&mut self, spec: RegionSpec, now: Nanos) {
        self.floor = self.floor.max(spec.epoch());
        self.quiet = None;
        self.uri = None;
        let authority = self.candidate.take().filter(|(epoch, _)| *epoch == spec.epoch());
        self.state = State::Mapped(Mapped {
            spec,
            since: now,
            next_check: now.saturating_add(self.period.into()),
            authority: authority.map(|(_, announcer)| announcer),
        });
    }

    /// The regions could not be opened, or a check failed.
    pub(super) fn map_failed(&mut self, epoch: Epoch) {
        self.state = match &self.state {
            // Still waiting for the application's permission or a URI: stay.
            State::Fallback(FallbackCause::Config) => return,
            State::Fallback(_) => State::Fallback(FallbackCause::MapFailed(epoch)),
            _ if self.uri.is_some() => State::Fallback(FallbackCause::MapFailed(epoch)),
            _ => State::Unmapped,
        };
    }

    /// A producer of this stream lost its lease at driver time `sent` (TP-299).
    pub(super) fn on_producer_revoked(&mut self, sent: u64, now: Nanos) -> Option<MappingCommand> {
        let State::Mapped(mapped) = &self.state else { return None };
        // Control and announce are separate streams: the notice may arrive after the epoch that followed it, and both
        // may have left the driver in the same duty cycle.
        let begun = mapped
            .authority
            .map_or(mapped.since.as_u64(), |authority| authority.announced_at.min(mapped.since.as_u64()));
        if sent <= begun {
            return None;
        }
        let epoch = mapped.spec.epoch();
        self.floor = Epoch::new(epoch.get().saturating_add(1));
        self.state =
            State::Remapping { epoch, deadline: now.saturating_add(self.window().into()), announced: false };
        Some(MappingCommand::Unmap(UnmapReason::ProducerRevoked))
    }

    /// A configuration for this consumer (10.7).
    pub(super) fn on_config(&mut self, config: &ConsumerConfig<'_>) -> Option<MappingCommand> {
        if config.use_shm {
            if self.supports_shm && matches!(self.state, State::Fallback(_)) {
                self.state = State::Fallback(FallbackCause::Released);
            }
            return None;
        }
        self.uri = FallbackUri::parse(config.payload_fallback_uri.as_bytes());
        if self.uri.is_none() && !config.payload_fallback_uri.as_bytes().is_empty() {
            tracing::warn!(stream = %self.stream, "the fallback URI has no supported scheme and is ignored");
        }
        let was_mapped = matches!(self.state, State::Mapped(_) | State::Remapping { .. });
        self.state = State::Fallback(FallbackCause::Config);
        was_mapped.then_some(MappingCommand::Unmap(UnmapReason::Config))
    }

    /// The reader saw a sequence go back (TP-132).
    pub(super) fn on_seq_regression(&mut self, epoch: Epoch) -> Option<MappingCommand> {
        match &self.state {
            State::Mapped(mapped) if mapped.spec.epoch() == epoch => {
                Some(self.unmap(UnmapReason::SeqRegression))
            }
            _ => None,
        }
    }

    /// What the mapped superblocks say now.
    pub(super) fn on_superblocks(&mut self, observed: Observed, now: Nanos) -> Option<MappingCommand> {
        let window = self.window();
        let State::Mapped(mapped) = &mut self.state else { return None };
        let epoch = mapped.spec.epoch();
        if !observed.unchanged {
            // Somebody else writes this epoch: only a new one is trusted (TP-134).
            self.floor = Epoch::new(epoch.get().saturating_add(1));
            return Some(self.unmap(UnmapReason::SuperblockChanged));
        }
        mapped.next_check = now.saturating_add(self.period.into());
        if now <= mapped.since.saturating_add(window.into()) {
            return None;
        }
        let activity = Nanos(observed.activity);
        let stale =
            now > activity.saturating_add(window.into()) || activity > now.saturating_add(window.into());
        if !stale {
            return None;
        }
        self.quiet = Some((epoch, observed.activity));
        Some(self.unmap(UnmapReason::ActivityStale))
    }

    /// Does what time demands. `leased` tells whether the consumer's own lease is active.
    pub(super) fn tick(&mut self, now: Nanos, leased: bool) -> Option<MappingCommand> {
        if self.driver_mode && leased && now > self.heard.saturating_add(self.window().into()) {
            // The driver is silent about the stream: fail closed (TP-305). Also the end of REMAPPING without announces.
            self.heard = now;
            if !matches!(self.state, State::Fallback(_)) {
                self.state = State::Unmapped;
            }
            return Some(MappingCommand::RenewLease);
        }
        match &self.state {
            State::Remapping { deadline, announced, .. } if now >= *deadline => {
                let keep = !self.driver_mode || (*announced && leased);
                self.state = State::Unmapped;
                (!keep).then_some(MappingCommand::RenewLease)
            }
            State::Mapped(mapped) if now >= mapped.next_check => Some(MappingCommand::Recheck),
            _ => None,
        }
    }

    /// A producer that has not noticed its revocation still names its old epoch (TP-483).
    fn ignore_regression(&self, announced: Epoch, floor: Epoch) {
        tracing::debug!(stream = %self.stream, %announced, %floor, "an announce of an older epoch is ignored");
    }

    fn window(&self) -> Duration {
        self.period.saturating_mul(3)
    }
}

#[cfg(test)]
mod tests;
