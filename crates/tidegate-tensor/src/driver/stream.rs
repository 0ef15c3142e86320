//! The streams a driver knows, their names, epochs and announce times (8.1, 10.1).
//!
//! A stream is configured, created by an attach, or created by name. It stays known until the driver ends, with or
//! without leases, so that an id never changes its meaning under a late client; the configured id range bounds how many
//! there can be. A stream without regions has epoch 0 and is not announced (TP-124).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use tidegate_shm::clock::Nanos;

use crate::config::{DriverConfig, IdRanges, Profile};
use crate::ids::{Epoch, StreamId};
use crate::region::store::EpochRegions;

/// One stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub name: Option<String>,
    pub profile: Arc<Profile>,
    /// Created at run time, not configured.
    pub dynamic: bool,
    /// The highest epoch this driver ever made for the stream; the next is higher (TP-122).
    pub last_epoch: Epoch,
    /// The current epoch; `None` is epoch 0.
    pub regions: Option<EpochRegions>,
    /// When the next periodic announce is due; kept in step with [`Streams::schedule`].
    due: Option<Nanos>,
}

impl Stream {
    pub(super) fn new(name: Option<String>, profile: Arc<Profile>, dynamic: bool) -> Self {
        Self { name, profile, dynamic, last_epoch: Epoch::NONE, regions: None, due: None }
    }

    /// The current epoch; [`Epoch::NONE`] without regions.
    pub(super) fn epoch(&self) -> Epoch {
        self.regions.as_ref().map_or(Epoch::NONE, |regions| regions.spec().epoch())
    }
}

/// All streams.
#[derive(Debug)]
pub(super) struct Streams {
    by_id: BTreeMap<StreamId, Stream>,
    by_name: HashMap<String, StreamId>,
    range: IdRanges,
    /// Streams by the time their next announce is due.
    schedule: BTreeSet<(Nanos, StreamId)>,
}

impl Streams {
    /// The configured streams. Each names a profile that exists, or the configuration would have been refused (TP-466).
    pub(super) fn new(config: &DriverConfig) -> Self {
        let mut streams = Self {
            by_id: BTreeMap::new(),
            by_name: HashMap::new(),
            range: config.driver.stream_id_range.clone(),
            schedule: BTreeSet::new(),
        };
        for entry in &config.streams {
            if let Some(profile) = config.profile(&entry.profile) {
                let stream = Stream::new(Some(entry.name.clone()), Arc::new(profile.clone()), false);
                streams.insert(entry.stream_id, stream);
            }
        }
        streams
    }

    pub(super) fn insert(&mut self, id: StreamId, stream: Stream) {
        if let Some(name) = &stream.name {
            self.by_name.insert(name.clone(), id);
        }
        self.by_id.insert(id, stream);
    }

    /// Names a dynamic stream that has no name yet. The caller has seen that the name is free.
    pub(super) fn name_dynamic(&mut self, id: StreamId, name: &str) {
        let Some(stream) = self.by_id.get_mut(&id).filter(|stream| stream.dynamic && stream.name.is_none())
        else {
            return;
        };
        stream.name = Some(name.to_owned());
        self.by_name.insert(name.to_owned(), id);
    }

    pub(super) fn get(&self, id: StreamId) -> Option<&Stream> {
        self.by_id.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.by_id.get_mut(&id)
    }

    pub(super) fn by_name(&self, name: &str) -> Option<StreamId> {
        self.by_name.get(name).copied()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (StreamId, &Stream)> {
        self.by_id.iter().map(|(id, stream)| (*id, stream))
    }

    pub(super) fn has_range(&self) -> bool {
        !self.range.is_empty()
    }

    /// The id a new dynamic stream gets: the one wished for when it is inside the range and free, else the lowest free
    /// one (TP-246). `None` when the range is exhausted.
    pub(super) fn free_id(&self, wish: StreamId) -> Option<StreamId> {
        let is_free = |id: &StreamId| !self.by_id.contains_key(id);
        if self.range.contains(wish.get()) && is_free(&wish) {
            return Some(wish);
        }
        self.range.ids().map(StreamId::new).find(is_free)
    }

    /// Sets when the next announce of a stream is due.
    pub(super) fn schedule(&mut self, id: StreamId, due: Nanos) {
        let Some(stream) = self.by_id.get_mut(&id) else { return };
        if let Some(old) = stream.due.replace(due) {
            self.schedule.remove(&(old, id));
        }
        self.schedule.insert((due, id));
    }

    /// Makes the announces of all streams due that ever had regions.
    pub(super) fn schedule_all(&mut self, due: Nanos) {
        let announced: Vec<StreamId> = self.schedule.iter().map(|(_, id)| *id).collect();
        for id in announced {
            self.schedule(id, due);
        }
    }

    /// A stream whose announce is due.
    pub(super) fn next_due(&self, now: Nanos) -> Option<StreamId> {
        self.schedule.first().filter(|(due, _)| *due <= now).map(|(_, id)| *id)
    }
}
