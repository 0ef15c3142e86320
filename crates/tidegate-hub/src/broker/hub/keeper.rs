//! Keeps registrations: renews their leases, and makes them again when the broker has restarted (DH-183).
//!
//! One thread per hub, started by its first registration. It asks the broker for a sign of life twice per
//! `broker_request` interval, and at once acts on another epoch that any reply shows.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::link::{Asking, Link};
use crate::broker::{
    error::HubError,
    wire::{BlockUuid, ChannelId, Deregister, Fixed, Heartbeat, Label, Registered, RequestBody},
};

/// Time that one request of the keeper may take: `broker_request` (6.3).
const REQUEST: Duration = Duration::from_secs(5);

/// Time between signs of life: so often that a restart is noticed within [`REQUEST`].
const INTERVAL: Duration = Duration::from_secs(2);

/// The thread, and what it keeps.
#[derive(Debug)]
pub(super) struct Keeper {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    link: Arc<Link>,
    kept: Mutex<Kept>,
    /// Held while a channel is registered again or taken back, so that none comes back after it was taken back.
    turn: Mutex<()>,
}

#[derive(Debug, Default)]
struct Kept {
    registrations: BTreeMap<BlockUuid, Record>,
    /// Whether one was added that the thread has not counted on: its lease may be shorter than the sleep.
    has_new: bool,
    is_ending: bool,
}

#[derive(Debug)]
struct Record {
    asking: Asking,
    registered: Registered,
    /// The broker's start that knows of it; `None` when it has to be made again.
    epoch: Option<Label>,
}

/// A channel that is registered, and kept so. Dropping it stops keeping it, and leaves it to the broker; see
/// [`deregister`](Self::deregister).
#[derive(Debug)]
pub struct Registration {
    keeper: Arc<Keeper>,
    block: BlockUuid,
}

impl Registration {
    /// Number of the channel at the broker; changes when the broker restarts.
    pub fn channel_id(&self) -> Option<ChannelId> {
        self.with(|record| record.registered.channel_id)
    }

    /// What the broker answered last.
    pub fn registered(&self) -> Option<Registered> {
        self.with(|record| record.registered.clone())
    }

    /// Whether the broker that answered last knows of it.
    pub fn is_current(&self) -> bool {
        let epoch = self.keeper.shared.link.epoch();
        self.with(|record| record.epoch.is_some() && record.epoch == epoch).unwrap_or(false)
    }

    /// Takes the channel back. Waits for an answer of the broker to the thread that keeps it first, if one is due.
    ///
    /// # Errors
    /// As [`MessageHub::request`](super::MessageHub::request); it is not kept any longer in any case.
    pub fn deregister(self, timeout: Duration) -> Result<(), HubError> {
        let shared = &self.keeper.shared;
        let _turn = shared.turn();
        let Some(record) = shared.kept().registrations.remove(&self.block) else {
            return Ok(());
        };
        let RequestBody::Register(register) = &record.asking.body else { return Ok(()) };
        let body = RequestBody::Deregister(Deregister {
            channel_name: register.channel_name.clone(),
            block_uuid: self.block,
            secret_proof: None,
        });
        let asking = Asking { body, verifier: record.asking.verifier.clone() };
        let _: super::Nothing = shared.link.ask(&asking, Instant::now() + timeout)?;
        Ok(())
    }

    fn with<T>(&self, read: impl FnOnce(&Record) -> T) -> Option<T> {
        self.keeper.shared.kept().registrations.get(&self.block).map(read)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.keeper.shared.kept().registrations.remove(&self.block);
    }
}

impl Keeper {
    pub(super) fn start(link: Arc<Link>) -> Result<Self, HubError> {
        let shared = Arc::new(Shared { link, kept: Mutex::default(), turn: Mutex::default() });
        let of_thread = shared.clone();
        let thread = thread::Builder::new()
            .name("tidegate-hub-keeper".into())
            .spawn(move || of_thread.run())
            .map_err(|source| HubError::System {
                what: "cannot start the thread that keeps registrations",
                source,
            })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    pub(super) fn keep(keeper: Arc<Self>, asking: Asking, registered: Registered) -> Registration {
        let block = match &asking.body {
            RequestBody::Register(register) => register.block_uuid,
            _ => Fixed([0; 16]),
        };
        let epoch = keeper.shared.link.epoch();
        {
            let mut kept = keeper.shared.kept();
            kept.registrations.insert(block, Record { asking, registered, epoch });
            kept.has_new = true;
        }
        keeper.shared.ring();
        Registration { keeper, block }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.shared.kept().is_ending = true;
        self.shared.ring();
        if let Some(thread) = self.thread.take() {
            // What a panicking keeper leaves is nothing to a hub that ends.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn run(&self) {
        while let Some(wait) = self.next_wait() {
            let epoch = self.link.lock_epoch();
            let known = epoch.clone();
            let is_quiet = |epoch: &mut Option<Label>| *epoch == known && !self.is_disturbed();
            drop(self.link.changed.wait_timeout_while(epoch, wait, is_quiet));
            if !self.kept().is_ending {
                self.make_sure();
            }
        }
    }

    /// `None` to end.
    fn next_wait(&self) -> Option<Duration> {
        let mut kept = self.kept();
        kept.has_new = false;
        let shortest =
            kept.registrations.values().map(|record| record.registered.lease_ms).filter(|ms| *ms > 0).min();
        let beat = shortest.map_or(INTERVAL, |ms| Duration::from_millis(ms.into()) / 3);
        (!kept.is_ending).then_some(beat.min(INTERVAL))
    }

    /// Beats for every lease, asks for a sign of life, and registers again what the broker does not know.
    fn make_sure(&self) {
        let jobs: Vec<(BlockUuid, Asking, ChannelId, bool)> = self
            .kept()
            .registrations
            .iter()
            .map(|(block, record)| {
                (*block, record.asking.clone(), record.registered.channel_id, record.registered.lease_ms > 0)
            })
            .collect();
        if jobs.is_empty() || self.link.ping(Instant::now() + REQUEST).is_err() {
            return;
        }
        for (block, asking, channel_id, has_lease) in jobs {
            if self.kept().is_ending {
                return;
            }
            let epoch = self.link.epoch();
            let is_known = self.kept().registrations.get(&block).is_none_or(|record| record.epoch == epoch);
            let is_forgotten = is_known && has_lease && self.beat(channel_id);
            if !is_known || is_forgotten {
                self.register_again(block, &asking);
            }
        }
    }

    /// Renews a lease. Tells whether the broker has forgotten the client.
    fn beat(&self, channel_id: ChannelId) -> bool {
        let asking = Asking { body: RequestBody::Heartbeat(Heartbeat { channel_id }), verifier: None };
        let result: Result<super::Nothing, _> = self.link.ask(&asking, Instant::now() + REQUEST);
        matches!(result, Err(HubError::UnknownClient(_)))
    }

    /// What fails now is tried again the next time.
    fn register_again(&self, block: BlockUuid, asking: &Asking) {
        let _turn = self.turn();
        if !self.kept().registrations.contains_key(&block) {
            return;
        }
        match self.link.ask::<Registered>(asking, Instant::now() + REQUEST) {
            Ok(registered) => {
                let epoch = self.link.epoch();
                let mut kept = self.kept();
                if let Some(record) = kept.registrations.get_mut(&block) {
                    (record.registered, record.epoch) = (registered, epoch);
                    self.link.count(|counters| counters.reregistrations += 1);
                }
            }
            Err(error) => {
                tracing::warn!(%block, %error, "a channel could not be registered again");
                if let Some(record) = self.kept().registrations.get_mut(&block) {
                    record.epoch = None;
                }
            }
        }
    }

    fn is_disturbed(&self) -> bool {
        let kept = self.kept();
        kept.is_ending || kept.has_new
    }

    /// Wakes the thread; under the lock that it waits with, so that it does not miss the bell.
    fn ring(&self) {
        let _epoch = self.link.lock_epoch();
        self.link.changed.notify_all();
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
