//! The two threads behind a manager: one talks to the store, the other ends sessions whose lease ran out, whatever the first one
//! waits for (VX-719).

use std::{collections::BTreeMap, io};

use tidegate_shm::{
    clock::{Nanos, boottime_now, monotonic_now, realtime_now},
    sync::{Arc, Ordering, thread, thread::JoinHandle},
};
use tidegate_udf::wire::ids::PartitionId;

use super::{
    Bucket, OwnError, Standing, bucket,
    manager::{Part, Seen, Shared, lock},
    members::{Card, Sightings, surplus},
    wishes::Wishes,
};
use crate::{fence::Reason, operate::Wish};

/// Starts the threads.
pub(super) fn start(shared: &Arc<Shared>) -> io::Result<Vec<JoinHandle<()>>> {
    let (keeping, timing) = (shared.clone(), shared.clone());
    let keeper =
        thread::Builder::new().name("ownership".to_owned()).spawn(move || Keeper::new(&keeping).run())?;
    let timer = thread::Builder::new().name("leases".to_owned()).spawn(move || time(&timing))?;
    Ok(vec![keeper, timer])
}

/// Ends sessions at their deadlines.
fn time(shared: &Shared) {
    let mut leases = lock(&shared.leases);
    while !shared.has_ended() {
        let next = shared.expire(&mut leases);
        let left = next.map_or(LONG, |next| next.saturating_sub(boottime_now()));
        // Whoever adds one tells.
        leases = match shared.leases_changed.wait_timeout(leases, left.min(LONG).into()) {
            Ok((leases, _)) => leases,
            Err(poisoned) => poisoned.into_inner().0,
        };
    }
}

/// Talks to the store.
struct Keeper<'a> {
    shared: &'a Shared,
    sightings: Sightings,
    started_ms: u64,
    beats: u64,
    next_beat: Nanos,
    next_handing_over: Nanos,
    /// The store did not answer; said once.
    silent: bool,
}

impl<'a> Keeper<'a> {
    fn new(shared: &'a Shared) -> Self {
        Self {
            shared,
            sightings: Sightings::default(),
            started_ms: realtime_now().0 / 1_000_000,
            beats: 0,
            next_beat: Nanos::ZERO,
            next_handing_over: monotonic_now().saturating_add(shared.settings.rebalance),
            silent: false,
        }
    }

    fn run(mut self) {
        let tick = Nanos(self.shared.settings.lease.0 / 8).clamp(LEAST_TICK, LONGEST_TICK);
        loop {
            self.round();
            if self.shared.sleep(tick) {
                return;
            }
        }
    }

    /// One look at everything.
    fn round(&mut self) {
        let shared = self.shared;
        // Leases first: they cannot wait.
        let mut loads: BTreeMap<String, usize> = BTreeMap::new();
        let (mut claimable, mut unowned) = (false, false);
        for (id, part) in (0..).map(PartitionId).zip(&shared.parts) {
            match self.tend(id, part) {
                Tended::Own => {}
                Tended::Of(owner) => *loads.entry(owner).or_default() += 1,
                Tended::Free { now, awaited } => {
                    unowned |= awaited;
                    claimable |= now;
                }
            }
        }
        let answered = self.beat(&loads).and_then(|()| self.obey());
        // Release: with what operators want; pairs with the load of who claims.
        let answered_before = shared.answers.swap(answered.is_ok(), Ordering::Release);
        claimable |= answered.is_ok() && !answered_before;
        match answered {
            Ok(()) => self.silent = false,
            Err(error) if !self.silent => {
                self.silent = true;
                tracing::warn!(%error, "the ownership store does not answer");
            }
            Err(_) => {}
        }
        if !unowned {
            self.hand_over();
        }
        if claimable {
            shared.tell();
        }
    }

    /// Renews a lease, or looks whether the partition is free.
    fn tend(&mut self, id: PartitionId, part: &Part) -> Tended {
        let shared = self.shared;
        // Whoever has the lock writes, and that extends the lease, too.
        let Ok(mut state) = part.state.try_lock() else { return Tended::Own };
        let ended = state.lost || state.guard.as_ref().is_some_and(|guard| guard.is_revoked());
        if let Some(owned) = &mut state.owned {
            if ended || boottime_now() < owned.renew_at() {
                return Tended::Own;
            }
            match owned.renew() {
                Ok(true) => {
                    let deadline = owned.deadline();
                    if let Some(guard) = &state.guard {
                        shared.extend(id, guard, deadline);
                    }
                }
                Ok(false) => {}
                Err(error) => shared.lose(id, &mut state, &error),
            }
            return Tended::Own;
        }
        if shared.settings.pins.as_ref().is_some_and(|pins| !pins.has(id)) {
            return Tended::Free { now: false, awaited: true };
        }
        let now = monotonic_now();
        match state.contender.look(&shared.bucket, now) {
            Ok(Standing::Free(found)) => {
                let since = match state.seen {
                    Seen::Free(_, since) => since,
                    _ => now,
                };
                state.seen = Seen::Free(found, since);
                // One that nobody wants, drained or stopped, does not keep the others from being handed over.
                let awaited = now.saturating_sub(since) < shared.longest_claim();
                Tended::Free { now: shared.may_claim(id, &state), awaited }
            }
            Ok(Standing::Held { owner, .. }) => {
                state.seen = Seen::Held;
                Tended::Of(owner)
            }
            Err(OwnError::Nats(_)) => {
                state.seen = Seen::Nothing;
                Tended::Free { now: false, awaited: true }
            }
            Err(error) => {
                state.seen = Seen::Nothing;
                // The vertex asks, and is told.
                let first = state.refused.is_none();
                state.refused = Some(error);
                Tended::Free { now: first, awaited: false }
            }
        }
    }

    /// Shows that this instance lives, and looks at the others.
    fn beat(&mut self, loads: &BTreeMap<String, usize>) -> Result<(), super::NatsError> {
        let (shared, now) = (self.shared, monotonic_now());
        if now >= self.next_beat {
            self.next_beat = now.saturating_add(Nanos(shared.settings.lease.0 / 3));
            self.beats += 1;
            let card = Card { started_ms: self.started_ms, ..card(shared, self.beats) };
            show(&shared.bucket, &card);
            for key in shared.bucket.keys(MEMBERS)? {
                let entry = shared.bucket.read(&key)?;
                let Some(value) = entry.and_then(|entry| entry.value) else { continue };
                match serde_json::from_slice::<Card>(&value) {
                    Ok(card) if card.instance == shared.settings.instance => {}
                    Ok(card) => self.sightings.note(card, now),
                    Err(error) => tracing::debug!(key, %error, "not a member"),
                }
            }
        }
        let load = |instance: &str| loads.get(instance).copied().unwrap_or(0);
        *lock(&shared.others) = self.sightings.alive(now, shared.patience(), load);
        Ok(())
    }

    /// Does what operators want.
    fn obey(&mut self) -> Result<(), super::NatsError> {
        let wishes = Wishes::read(&self.shared.bucket)?;
        let mut changed = false;
        for (id, part) in (0..).map(PartitionId).zip(&self.shared.parts) {
            let Ok(state) = part.state.try_lock() else {
                // Who has it may be about to claim; what is less strict waits for the next look.
                part.wish.fetch_max(wishes.of(id) as u8, Ordering::Relaxed);
                continue;
            };
            let claimed = state.owned.as_ref().map(super::Owned::claimed);
            if let (Some(claimed), Some(guard)) = (claimed, &state.guard)
                && wishes.fences(id, claimed)
                && !guard.is_revoked()
            {
                guard.revoke(Reason::Operator);
                tracing::warn!(partition = %id, "fenced by an order in the store");
                changed = true;
            }
            let wish = if state.leaving { Wish::Drain } else { wishes.of(id) };
            // Relaxed: nothing is published with it.
            changed |= part.wish.swap(wish as u8, Ordering::Relaxed) != wish as u8;
        }
        if changed {
            self.shared.tell();
        }
        Ok(())
    }

    /// Hands one partition over when another member has at least two fewer. Only while every partition has an owner: what is
    /// free goes to those first.
    fn hand_over(&mut self) {
        let (shared, now) = (self.shared, monotonic_now());
        if now < self.next_handing_over || shared.settings.pins.is_some() {
            return;
        }
        self.next_handing_over = now.saturating_add(shared.settings.rebalance);
        let own: Vec<PartitionId> = lock(&shared.leases).iter().map(|(id, ..)| *id).collect();
        let others = lock(&shared.others);
        let chosen = surplus(&shared.own(own.len()), &others, own.iter().copied());
        let Some((id, to)) = chosen else { return };
        let Some(part) = shared.parts.get(id.0 as usize) else { return };
        let Ok(mut state) = part.state.try_lock() else { return };
        tracing::info!(partition = %id, to, "handing over");
        state.leaving = true;
        part.wish.store(Wish::Drain as u8, Ordering::Relaxed);
        drop((state, others));
        shared.tell();
    }
}

/// Whose a partition is.
enum Tended {
    Own,
    Of(String),
    /// Nobody's: whether this instance may claim it now, and whether somebody is still expected to.
    Free {
        now: bool,
        awaited: bool,
    },
}

/// What an instance says about itself.
pub(super) fn card(shared: &Shared, hb: u64) -> Card {
    let settings = &shared.settings;
    Card {
        v: 1,
        instance: settings.instance.clone(),
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        pid: std::process::id(),
        capacity: settings.capacity,
        partitions: settings.pins.as_ref().map(|pins| pins.text().to_owned()),
        declines: shared.declined().map(|partition| partition.0).collect(),
        started_ms: 0,
        hb,
        left: false,
    }
}

/// Writes it where the others look.
pub(super) fn show(bucket: &Bucket, card: &Card) {
    let key = format!("{MEMBERS}{}", bucket::restricted(&card.instance));
    // Text and numbers in memory: it does not fail.
    if let Err(error) = bucket.put(&key, serde_json::to_vec(card).unwrap_or_default()) {
        tracing::debug!(%error, "the others do not see this instance");
    }
}

const MEMBERS: &str = "member.";
/// Between two looks at the store: an eighth of the lease, within these.
const LEAST_TICK: Nanos = Nanos::from_millis(20);
const LONGEST_TICK: Nanos = Nanos::from_millis(500);
const LONG: Nanos = Nanos::from_secs(60);
