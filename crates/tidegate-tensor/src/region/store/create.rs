//! Making the files of one epoch.

use std::sync::Arc;

use tidegate_shm::clock::Nanos;
use tidegate_shm::region::{
    Access, CreateError, CreateOptions, DirError, RegionDir, RegionMut, create_region,
};

use super::{
    EpochRegions, HEADER_FILE, MAX_ENTRIES, POOL_SUFFIX, RegionStore, StoreError, epoch_of, stream_component,
};
use crate::config::Profile;
use crate::ids::{Epoch, StreamId};
use crate::layout::{SUPERBLOCK_LEN, Superblock, header_ring_len, pool_len};
use crate::region::{PoolRegion, RegionSpec};
use crate::uri::RegionUri;

/// Epoch numbers tried when others make directories at the same moment.
const ATTEMPTS: usize = 16;

/// One file to be made.
struct Blueprint {
    name: String,
    len: u64,
    superblock: Superblock,
}

/// A file made or taken over.
struct Made {
    name: String,
    region: RegionMut,
    /// Not one that existed before; only such a file is removed when the epoch fails.
    is_new: bool,
}

/// Why one epoch number did not work.
pub(super) enum Obstacle {
    /// It is taken; the next may be free.
    Taken,
    Failed(StoreError),
}

impl From<StoreError> for Obstacle {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

impl RegionStore {
    /// Makes a region set under a new epoch of `stream`: higher than `previous`, than every epoch directory there is,
    /// and at least the monotonic time (TP-122, TP-123). The superblocks are written and synced when this returns
    /// (TP-053).
    ///
    /// # Errors
    /// Nothing is left behind, except for directories that others have put files into.
    pub fn create_epoch(
        &self,
        stream: StreamId,
        profile: &Profile,
        previous: Epoch,
        now: Nanos,
    ) -> Result<EpochRegions, StoreError> {
        let name = stream_component(stream);
        let existed = self.root.stat(&name).is_ok();
        let dir = self.root.create_dirs(&[&name], self.settings.dir_mode()).map_err(StoreError::Directory)?;
        let made = self.create_next(&dir, stream, profile, previous, now);
        if made.is_err() && !existed {
            // Fails when somebody else uses it by now, which is as well.
            let _ = self.root.remove_dir(&name);
        }
        made
    }

    /// Removes the files of an epoch that is not used after all, and its directory.
    pub fn discard(&self, regions: EpochRegions) {
        let stream = stream_component(regions.spec.stream());
        let epoch = regions.spec.epoch().to_string();
        let names = regions.spec.pools().iter().map(|pool| pool_file(pool.geometry.pool_id.get()));
        let names: Vec<String> = names.chain([HEADER_FILE.to_owned()]).collect();
        drop(regions);
        let Ok(stream_dir) = self.root.open_dir(&stream) else { return };
        if let Ok(dir) = stream_dir.open_dir(&epoch) {
            for name in names {
                warn_unless_missing(dir.remove_file(&name));
            }
        }
        warn_unless_missing(stream_dir.remove_dir(&epoch));
        // Only goes when no other epoch is left.
        let _ = self.root.remove_dir(&stream);
    }

    fn create_next(
        &self,
        dir: &RegionDir,
        stream: StreamId,
        profile: &Profile,
        previous: Epoch,
        now: Nanos,
    ) -> Result<EpochRegions, StoreError> {
        let exhausted = || StoreError::EpochsExhausted { stream };
        let highest = previous.max(highest_epoch(dir)?);
        let mut epoch = Epoch::new(highest.get().checked_add(1).ok_or_else(exhausted)?.max(now.as_u64()));
        for _ in 0..ATTEMPTS {
            // The last number is the wire's null.
            if epoch.get() == u64::MAX {
                return Err(exhausted());
            }
            match self.create_at(dir, stream, profile, epoch, now) {
                Ok(regions) => return Ok(regions),
                Err(Obstacle::Taken) => epoch = Epoch::new(epoch.get() + 1),
                Err(Obstacle::Failed(error)) => return Err(error),
            }
        }
        Err(StoreError::Contended { stream })
    }

    /// Makes exactly this epoch (TP-053, TP-054, TP-055).
    pub(super) fn create_at(
        &self,
        stream_dir: &RegionDir,
        stream: StreamId,
        profile: &Profile,
        epoch: Epoch,
        now: Nanos,
    ) -> Result<EpochRegions, Obstacle> {
        let name = epoch.to_string();
        if stream_dir.stat(&name).is_ok() && !self.settings.reuse_existing {
            return Err(Obstacle::Taken);
        }
        let dir =
            stream_dir.create_dirs(&[&name], self.settings.dir_mode()).map_err(StoreError::Directory)?;
        let spec = self.spec(&dir, stream, profile, epoch).inspect_err(|_| {
            roll_back(stream_dir, &dir, &name, &[]);
        })?;
        let mut made = Vec::new();
        for blueprint in blueprints(stream, profile, epoch, now) {
            match self.make(&dir, blueprint) {
                Ok(file) => made.push(file),
                Err(obstacle) => {
                    roll_back(stream_dir, &dir, &name, &made);
                    return Err(obstacle);
                }
            }
        }
        let regions = EpochRegions {
            spec: Arc::new(spec),
            regions: made.into_iter().map(|file| file.region).collect(),
        };
        Ok(regions)
    }

    fn make(&self, dir: &RegionDir, blueprint: Blueprint) -> Result<Made, Obstacle> {
        let Blueprint { name, len, superblock } = blueprint;
        let options = CreateOptions {
            len,
            mode: self.settings.mode.bits(),
            prefault: self.settings.prefault,
            lock: self.settings.lock_pages,
            huge_pages: self.hugetlbfs,
        };
        match create_region(dir, &name, &options) {
            Ok(region) => {
                let path = dir.path().join(&name);
                let written = region
                    .write(0, &superblock.encode())
                    .map_err(|source| StoreError::Superblock { path: path.clone(), source })
                    .and_then(|()| region.sync().map_err(|source| StoreError::Sync { path, source }));
                if let Err(error) = written {
                    warn_unless_missing(dir.remove_file(&name));
                    return Err(error.into());
                }
                Ok(Made { name, region, is_new: true })
            }
            Err(CreateError::AlreadyExists { .. }) if self.settings.reuse_existing => {
                let region = self.take_over(dir, &name, len, &superblock).ok_or(Obstacle::Taken)?;
                Ok(Made { name, region, is_new: false })
            }
            Err(CreateError::AlreadyExists { .. }) => Err(Obstacle::Taken),
            Err(error) => Err(StoreError::Create(error).into()),
        }
    }

    /// Maps a file that exists, if mode and superblock are exactly what we would have made (TP-055).
    fn take_over(&self, dir: &RegionDir, name: &str, len: u64, wanted: &Superblock) -> Option<RegionMut> {
        let file = dir.open_file(name, Access::ReadWrite).ok()?;
        let mut bytes = [0; SUPERBLOCK_LEN];
        file.read_at(0, &mut bytes).ok()?;
        let found = Superblock::decode(&bytes);
        let expected = Superblock {
            pid: found.pid,
            start_timestamp_ns: found.start_timestamp_ns,
            activity_timestamp_ns: found.activity_timestamp_ns,
            ..*wanted
        };
        let fits = found == expected && file.metadata().mode == self.settings.mode.bits();
        if fits { file.map_mut(len).ok() } else { None }
    }

    fn spec(
        &self,
        dir: &RegionDir,
        stream: StreamId,
        profile: &Profile,
        epoch: Epoch,
    ) -> Result<RegionSpec, StoreError> {
        let uri = |name: &str| {
            let path = dir.path().join(name);
            RegionUri::new(&path, self.hugetlbfs).map_err(|source| StoreError::Uri { path, source })
        };
        let pools = profile
            .payload_pools
            .iter()
            .map(|pool| {
                let uri = uri(&pool_file(pool.pool_id.get()))?;
                Ok(PoolRegion { geometry: *pool, uri })
            })
            .collect::<Result<Vec<_>, StoreError>>()?;
        RegionSpec::new(stream, epoch, profile.header_nslots, uri(HEADER_FILE)?, pools)
            .map_err(|source| StoreError::Spec { stream, source })
    }
}

fn blueprints(
    stream: StreamId,
    profile: &Profile,
    epoch: Epoch,
    now: Nanos,
) -> impl Iterator<Item = Blueprint> {
    let slots = profile.header_nslots;
    let ring = Superblock::header_ring(epoch, stream, slots, std::process::id().into(), now.as_u64());
    let header = Blueprint { name: HEADER_FILE.to_owned(), len: header_ring_len(slots), superblock: ring };
    let pools = profile.payload_pools.iter().map(move |pool| Blueprint {
        name: pool_file(pool.pool_id.get()),
        len: pool_len(slots, pool.stride),
        superblock: Superblock::pool(&ring, pool.pool_id, pool.stride),
    });
    std::iter::once(header).chain(pools)
}

fn roll_back(stream_dir: &RegionDir, dir: &RegionDir, name: &str, made: &[Made]) {
    for file in made.iter().filter(|file| file.is_new) {
        warn_unless_missing(dir.remove_file(&file.name));
    }
    // Stays when it holds files of somebody else.
    let _ = stream_dir.remove_dir(name);
}

fn highest_epoch(dir: &RegionDir) -> Result<Epoch, StoreError> {
    let entries = dir.list().map_err(StoreError::Directory)?;
    let epochs = entries.take(MAX_ENTRIES).filter_map(|entry| epoch_of(&entry.ok()?.name));
    Ok(epochs.max().unwrap_or(Epoch::NONE))
}

fn pool_file(id: u16) -> String {
    format!("{id}{POOL_SUFFIX}")
}

pub(super) fn warn_unless_missing(removed: Result<(), DirError>) {
    match removed {
        Ok(()) | Err(DirError::Missing { .. }) => {}
        Err(error) => tracing::warn!(%error, "a region could not be removed"),
    }
}
