//! Ownership for a vertex: what its running thread asks, answered from what the keeper's threads have seen.
//!
//! Each partition has one lock, and whoever changes its key holds it, so the writes of a session come one after another
//! (VX-710). Claims, decisions and releases are calls to the store and wait for it; looking and renewing is the keeper's.

use std::sync::TryLockError;

use tidegate_shm::{
    clock::{Nanos, boottime_now, monotonic_now},
    sync::{Arc, AtomicBool, AtomicU8, Condvar, Mutex, MutexGuard, Ordering, thread::JoinHandle},
};
use tidegate_udf::wire::ids::{Generation, PartitionId};

use super::{
    super::{Endpoint, Nats, NatsError},
    Bucket, Claimant, Commit, Contender, Found, Intent, OwnError, Owned, keeper, margin,
    members::{Card, Member, rank},
};
use crate::{
    fence::{Fenced, Reason, WriteGuard, WriteKind},
    operate::Wish,
    own::{Authority, Claimed, Decision, Known, Manager, Pins, Refused},
};

/// How an instance takes part.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Number of the pipeline.
    pub uid: u64,
    /// Its name, which the bucket has.
    pub pipeline: String,
    /// Where the store is.
    pub endpoint: Endpoint,
    /// Name of this instance, different for each.
    pub instance: String,
    /// How long an owner may be silent.
    pub lease: Nanos,
    /// At most one partition is handed over in this time.
    pub rebalance: Nanos,
    /// The partitions that this instance may have; all of them without.
    pub pins: Option<Pins>,
    /// Partitions of the source.
    pub partitions: u32,
    /// Workers of this instance, for people.
    pub capacity: u32,
    /// Whether a store that went back in time is taken as it is (VX-714).
    pub accept_regression: bool,
}

/// A member of the pipeline.
#[derive(Debug)]
pub struct JetStream {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What the threads share.
pub(super) struct Shared {
    pub(super) settings: Settings,
    pub(super) bucket: Bucket,
    pub(super) parts: Vec<Part>,
    /// Who takes part, as the keeper saw it last.
    pub(super) others: Mutex<Vec<Member>>,
    /// Until when each session may write.
    pub(super) leases: Mutex<Vec<Lease>>,
    pub(super) leases_changed: Condvar,
    /// Whether the store has answered when it was asked last; what operators want is known then.
    pub(super) answers: AtomicBool,
    watcher: Mutex<Option<Arc<dyn Fn() + Send + Sync>>>,
    ended: Mutex<bool>,
    pub(super) end: Condvar,
}

/// A session and its deadline.
pub(super) type Lease = (PartitionId, WriteGuard, Nanos);

/// A partition.
pub(super) struct Part {
    /// A [`Wish`].
    pub(super) wish: AtomicU8,
    /// The vertex does without it.
    pub(super) declined: AtomicBool,
    pub(super) state: Mutex<State>,
}

pub(super) struct State {
    pub(super) contender: Contender,
    pub(super) seen: Seen,
    /// The session, from its claim until nothing of it runs any more.
    pub(super) owned: Option<Owned>,
    pub(super) guard: Option<WriteGuard>,
    /// The session is over for the store: there is nothing to renew or release.
    pub(super) lost: bool,
    /// It is to go to another member.
    pub(super) leaving: bool,
    /// It is not claimed before this, so that others come first.
    pub(super) stand_back: Nanos,
    /// Why it must not be run.
    pub(super) refused: Option<OwnError>,
}

/// What the keeper saw of a partition that is not owned here.
#[derive(Debug)]
pub(super) enum Seen {
    Nothing,
    /// It may be claimed on top of this; since when.
    Free(Found, Nanos),
    Held,
}

impl JetStream {
    /// Connects to the store and begins to look.
    ///
    /// # Errors
    /// The store cannot be reached, or has settings by which it may forget.
    pub fn start(settings: Settings) -> Result<Self, NatsError> {
        let call = Nanos(settings.lease.0 / 5).clamp(LEAST_CALL, LONGEST_CALL);
        let name = format!("tidegate {} {}", settings.pipeline, settings.instance);
        let nats = Nats::connect_with(&settings.endpoint, &name, call.into())?;
        let bucket = Bucket::open(nats, &settings.pipeline)?;
        let claimant =
            Claimant { uid: settings.uid, owner: settings.instance.clone(), lease: settings.lease };
        let part = |id| Part {
            wish: AtomicU8::new(Wish::Run as u8),
            declined: AtomicBool::new(false),
            state: Mutex::new(State {
                contender: Contender::new(id, claimant.clone()),
                seen: Seen::Nothing,
                owned: None,
                guard: None,
                lost: false,
                leaving: false,
                stand_back: Nanos::ZERO,
                refused: None,
            }),
        };
        let shared = Arc::new(Shared {
            parts: (0..settings.partitions).map(PartitionId).map(part).collect(),
            settings,
            bucket,
            others: Mutex::new(Vec::new()),
            leases: Mutex::new(Vec::new()),
            leases_changed: Condvar::new(),
            answers: AtomicBool::new(false),
            watcher: Mutex::new(None),
            ended: Mutex::new(false),
            end: Condvar::new(),
        });
        let threads = keeper::start(&shared).map_err(NatsError::Thread)?;
        Ok(Self { shared, threads })
    }
}

impl Manager for JetStream {
    fn acquire(&self, partition: PartitionId, nonce: u64, known: &Known) -> Result<Option<Claimed>, Refused> {
        let shared = &*self.shared;
        let Some(part) = shared.parts.get(partition.0 as usize) else { return Ok(None) };
        // While the keeper looks, it tells when it has seen something.
        let mut state = match part.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(state)) => state.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(None),
        };
        let refused = |error: OwnError| Err(Refused { partition, source: Box::new(error) });
        if let Some(error) = state.refused.take() {
            return refused(error);
        }
        if !shared.may_claim(partition, &state) {
            return Ok(None);
        }
        let Seen::Free(found, _) = std::mem::replace(&mut state.seen, Seen::Nothing) else { return Ok(None) };
        let accept = shared.settings.accept_regression;
        match state.contender.claim(shared.bucket.clone(), found, nonce, known, accept) {
            Ok(owned) => {
                let document = owned.document();
                let committed = match document.commit.as_ref().map(Commit::committed) {
                    Some(None) => {
                        let what = "its commit is not one of this version".to_owned();
                        return refused(OwnError::Document { uid: shared.settings.uid, partition, what });
                    }
                    other => other.flatten(),
                };
                let intended = document.intent.as_ref().map(Intent::intended);
                let authority = Authority { committed, intended, store: shared.bucket.created() };
                let generation = owned.session().generation;
                state.owned = Some(owned);
                state.lost = false;
                Ok(Some(Claimed { generation, authority: Some(authority) }))
            }
            Err(error @ (OwnError::Regressed { .. } | OwnError::Document { .. })) => refused(error),
            Err(error) => {
                tracing::info!(%partition, %error, "not claimed");
                Ok(None)
            }
        }
    }

    fn begun(&self, partition: PartitionId, guard: &WriteGuard) {
        let Some(part) = self.shared.parts.get(partition.0 as usize) else { return };
        let mut state = lock(&part.state);
        let Some(owned) = &state.owned else {
            guard.revoke(Reason::RevokedByManager);
            return;
        };
        let deadline = owned.deadline();
        state.guard = Some(guard.clone());
        self.shared.extend(partition, guard, deadline);
    }

    fn decide(&self, partition: PartitionId, decision: Decision, guard: &WriteGuard) -> Result<(), Fenced> {
        let fenced = Fenced { generation: guard.generation() };
        let Some(part) = self.shared.parts.get(partition.0 as usize) else { return Err(fenced) };
        let mut state = lock(&part.state);
        let Some(owned) = &mut state.owned else { return Err(fenced) };
        if owned.session().generation != guard.generation() {
            return Err(fenced);
        }
        let (commit, intent) =
            (decision.commit.as_ref().map(Commit::of), decision.intent.as_ref().map(Intent::of));
        match owned.decide(commit, intent, || guard.permit(WriteKind::Ledger)) {
            Ok(()) => {
                let deadline = owned.deadline();
                self.shared.extend(partition, guard, deadline);
                Ok(())
            }
            Err(error) => {
                self.shared.lose(partition, &mut state, &error);
                Err(fenced)
            }
        }
    }

    fn keeps_commits(&self) -> bool {
        true
    }

    fn release(&self, partition: PartitionId, generation: Generation) {
        let shared = &*self.shared;
        let Some(part) = shared.parts.get(partition.0 as usize) else { return };
        let mut state = lock(&part.state);
        if state.owned.as_ref().is_none_or(|owned| owned.session().generation != generation) {
            return;
        }
        let Some(owned) = state.owned.take() else { return };
        lock(&shared.leases).retain(|(id, ..)| *id != partition);
        (state.guard, state.leaving, state.seen) = (None, false, Seen::Nothing);
        state.stand_back = monotonic_now().saturating_add(shared.settings.lease);
        if !state.lost {
            match owned.release() {
                Ok(true) => tracing::info!(%partition, %generation, "released"),
                Ok(false) => tracing::warn!(%partition, "not known to be released; the lease runs out"),
                Err(error) => tracing::warn!(%partition, %error, "not released; the lease runs out"),
            }
        }
    }

    fn wish(&self, partition: PartitionId) -> Wish {
        self.shared.wish(partition)
    }

    fn declines(&self, partition: PartitionId, declines: bool) {
        if let Some(part) = self.shared.parts.get(partition.0 as usize) {
            // Relaxed: nothing is published with it.
            part.declined.store(declines, Ordering::Relaxed);
        }
    }

    fn watch(&self, tell: Arc<dyn Fn() + Send + Sync>) {
        *lock(&self.shared.watcher) = Some(tell);
    }

    fn gives_back(&self) -> bool {
        true
    }

    fn is_watching(&self) -> bool {
        // Relaxed: nothing is published with it.
        self.shared.answers.load(Ordering::Relaxed)
    }

    fn leave(&self) {
        self.shared.finish();
        let card = Card { left: true, ..keeper::card(&self.shared, u64::MAX) };
        keeper::show(&self.shared.bucket, &card);
    }
}

impl Drop for JetStream {
    fn drop(&mut self) {
        self.shared.finish();
        for thread in self.threads.drain(..) {
            // One that panicked has nothing to say.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Whether a free partition may be claimed now: by rank, and not by who has just had it (VX-718).
    pub(super) fn may_claim(&self, partition: PartitionId, state: &State) -> bool {
        // Acquire: nobody claims who does not know what operators want; pairs with the store of who has read it.
        if !self.answers.load(Ordering::Acquire) || self.wish(partition) == Wish::Drain {
            return false;
        }
        let Seen::Free(_, since) = state.seen else { return false };
        if state.owned.is_some() || monotonic_now() < state.stand_back {
            return false;
        }
        let own = self.own(self.load());
        if !own.may_have(partition) {
            return false;
        }
        // What is pinned is nobody else's to take first.
        let rank = if own.pins.is_some() { 0 } else { rank(partition, &own, &lock(&self.others)) };
        let delay = Nanos((self.settings.lease.0 / 4).saturating_mul(rank as u64));
        monotonic_now() >= since.saturating_add(delay)
    }

    fn wish(&self, partition: PartitionId) -> Wish {
        // Relaxed: nothing is published with it.
        let wish = self.parts.get(partition.0 as usize).map(|part| part.wish.load(Ordering::Relaxed));
        match wish {
            Some(1) => Wish::Pause,
            Some(2) => Wish::Drain,
            _ => Wish::Run,
        }
    }

    /// This instance with so many partitions.
    pub(super) fn own(&self, load: usize) -> Member {
        Member {
            instance: self.settings.instance.clone(),
            pins: self.settings.pins.clone(),
            declines: self.declined().collect(),
            load,
        }
    }

    /// The partitions that the vertex does without.
    pub(super) fn declined(&self) -> impl Iterator<Item = PartitionId> {
        // Relaxed: nothing is published with it.
        let declined = (0..).zip(&self.parts).filter(|(_, part)| part.declined.load(Ordering::Relaxed));
        declined.map(|(number, _)| PartitionId(number))
    }

    /// Sessions that may write.
    pub(super) fn load(&self) -> usize {
        lock(&self.leases).len()
    }

    /// Lets a session write until the deadline.
    pub(super) fn extend(&self, partition: PartitionId, guard: &WriteGuard, deadline: Nanos) {
        guard.extend(deadline);
        let mut leases = lock(&self.leases);
        match leases.iter_mut().find(|(id, ..)| *id == partition) {
            Some((_, known, until)) => (*known, *until) = (guard.clone(), deadline),
            None => leases.push((partition, guard.clone(), deadline)),
        }
        drop(leases);
        self.leases_changed.notify_all();
    }

    /// Ends a session that the store does not know any more.
    pub(super) fn lose(&self, partition: PartitionId, state: &mut State, error: &OwnError) {
        let reason = match error {
            // Whoever took it has noted why; the store still knows the session.
            OwnError::Fenced(_) => return,
            OwnError::Taken { .. } => Reason::NewerGeneration,
            OwnError::Expired { .. } => Reason::LeaseExpired,
            OwnError::Regressed { .. } => Reason::OwnershipRegressed,
            OwnError::Nats(_) | OwnError::Document { .. } => Reason::RevokedByManager,
        };
        if let Some(guard) = &state.guard {
            guard.revoke(reason);
        }
        state.lost = true;
        lock(&self.leases).retain(|(id, ..)| *id != partition);
        tracing::warn!(%partition, ?reason, %error, "lost");
        self.tell();
    }

    /// Wakes the vertex.
    pub(super) fn tell(&self) {
        let watcher = lock(&self.watcher).clone();
        if let Some(tell) = watcher {
            tell();
        }
    }

    /// Ends the threads.
    fn finish(&self) {
        // The timer looks at the one while it has the other.
        let leases = lock(&self.leases);
        *lock(&self.ended) = true;
        self.end.notify_all();
        self.leases_changed.notify_all();
        drop(leases);
    }

    pub(super) fn has_ended(&self) -> bool {
        *lock(&self.ended)
    }

    /// Sleeps for a while; whether the vertex has ended.
    pub(super) fn sleep(&self, time: Nanos) -> bool {
        let until = monotonic_now().saturating_add(time);
        let mut ended = lock(&self.ended);
        while !*ended {
            let left = until.saturating_sub(monotonic_now());
            if left == Nanos::ZERO {
                break;
            }
            ended = match self.end.wait_timeout(ended, left.into()) {
                Ok((ended, _)) => ended,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        *ended
    }

    /// How long a partition is free at most that somebody wants: until who has just had it, or who comes last, claims it.
    pub(super) fn longest_claim(&self) -> Nanos {
        let (lease, others) = (self.settings.lease.0, lock(&self.others).len() as u64);
        Nanos(lease.saturating_mul(2).saturating_add((lease / 4).saturating_mul(others)))
    }

    /// How long a heartbeat may stand still.
    pub(super) fn patience(&self) -> Nanos {
        self.settings.lease.saturating_add(margin(self.settings.lease))
    }

    /// Revokes what has run out; when the next lease does.
    pub(super) fn expire(&self, leases: &mut Vec<Lease>) -> Option<Nanos> {
        let now = boottime_now();
        let mut next: Option<Nanos> = None;
        let mut expired = false;
        leases.retain(|(partition, guard, deadline)| {
            if now < *deadline {
                next = Some(next.map_or(*deadline, |next| next.min(*deadline)));
                return true;
            }
            guard.revoke(Reason::LeaseExpired);
            tracing::warn!(%partition, "the lease ran out");
            expired = true;
            false
        });
        if expired {
            self.tell();
        }
        next
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("instance", &self.settings.instance).finish_non_exhaustive()
    }
}

/// What is locked is whole at every moment, whoever panicked with the lock.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// How long the store may take for an answer: a fifth of the lease, within these.
const LEAST_CALL: Nanos = Nanos::from_millis(100);
const LONGEST_CALL: Nanos = Nanos::from_secs(5);
