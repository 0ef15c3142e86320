//! Opening the regions of one epoch: containment, permissions, sizes and superblocks of every file, then the whole set or
//! nothing (5.2, 6.1).

use tidegate_shm::region::{
    Access, AllowedBases, HugePages, OpenError, PermissionPolicy, Region, RegionFile, RegionMut,
};
use tidegate_shm::sync::{Arc, Ordering};

use super::spec::RegionSpec;
use crate::ids::PoolId;
use crate::layout::{
    ACTIVITY_OFFSET, Expected, LAYOUT_VERSION, PoolSpec, RegionKind, SUPERBLOCK_LEN, Superblock,
    SuperblockError, header_ring_len, pool_len,
};
use crate::uri::RegionUri;

/// Why a set of regions was refused. Nothing of the set stays mapped. Clones share the cause.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum MapError {
    /// A path, mode, owner or file type that is not acceptable.
    #[error("region {uri} refused: {source}")]
    Open {
        /// Which region.
        uri: RegionUri,
        /// Failing step of 5.2 and cause.
        source: Arc<OpenError>,
    },
    /// Too short, or the kernel refused.
    #[error("region {uri} cannot be mapped: {source}")]
    Map {
        /// Which region.
        uri: RegionUri,
        /// The cause.
        source: Arc<tidegate_shm::region::MapError>,
    },
    /// The superblock is not the one announced.
    #[error("region {uri}: {source}")]
    Superblock {
        /// Which region.
        uri: RegionUri,
        /// Field, expected and found.
        source: SuperblockError,
    },
}

/// Opens region sets under one local policy (TP-062, TP-063, TP-069). Nothing of it can be changed by a message.
#[derive(Debug)]
pub struct RegionOpener {
    bases: AllowedBases,
    permissions: PermissionPolicy,
}

/// The regions of one epoch, mapped read-only (TP-065).
#[derive(Debug)]
pub struct ReadRegions {
    spec: RegionSpec,
    header: Region,
    pools: Vec<(PoolSpec, Region)>,
    pid: u64,
}

/// The regions of one epoch, mapped for writing.
#[derive(Debug)]
pub struct WriteRegions {
    spec: RegionSpec,
    header: RegionMut,
    pools: Vec<(PoolSpec, RegionMut)>,
}

impl RegionOpener {
    /// A policy of these base directories and permissions.
    #[must_use]
    pub fn new(bases: AllowedBases, permissions: PermissionPolicy) -> Self {
        Self { bases, permissions }
    }

    /// Opens the set for reading.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn open_read(&self, spec: RegionSpec) -> Result<ReadRegions, MapError> {
        let header_len = header_ring_len(spec.slots());
        let header = self.read_region(spec.header(), header_len)?;
        let superblock = check_header(&header, &spec)?;
        let mut pools = Vec::with_capacity(spec.pools().len());
        for pool in spec.pools() {
            let region = self.read_region(&pool.uri, pool_len(spec.slots(), pool.geometry.stride))?;
            check_pool(&region, &spec, pool.geometry, &pool.uri)?;
            pools.push((pool.geometry, region));
        }
        Ok(ReadRegions { spec, header, pools, pid: superblock.pid })
    }

    /// Opens the set for writing, with the same checks (TP-455).
    ///
    /// # Errors
    /// The first check that fails.
    pub fn open_write(&self, spec: RegionSpec) -> Result<WriteRegions, MapError> {
        let header_len = header_ring_len(spec.slots());
        let header = self.write_region(spec.header(), header_len)?;
        check_header(&header, &spec)?;
        let mut pools = Vec::with_capacity(spec.pools().len());
        for pool in spec.pools() {
            let region = self.write_region(&pool.uri, pool_len(spec.slots(), pool.geometry.stride))?;
            check_pool(&region, &spec, pool.geometry, &pool.uri)?;
            pools.push((pool.geometry, region));
        }
        Ok(WriteRegions { spec, header, pools })
    }

    /// `activity_timestamp_ns` of a header ring that is not mapped (TP-485).
    ///
    /// # Errors
    /// As [`RegionOpener::open_read`], for the header ring alone.
    pub fn probe_activity(&self, spec: &RegionSpec) -> Result<u64, MapError> {
        let header = self.read_region(spec.header(), header_ring_len(spec.slots()))?;
        check_header(&header, spec)?;
        Ok(activity(&header))
    }

    fn read_region(&self, uri: &RegionUri, len: u64) -> Result<Region, MapError> {
        self.file(uri, Access::ReadOnly)?
            .map(len)
            .map_err(|source| MapError::Map { uri: uri.clone(), source: Arc::new(source) })
    }

    fn write_region(&self, uri: &RegionUri, len: u64) -> Result<RegionMut, MapError> {
        self.file(uri, Access::ReadWrite)?
            .map_mut(len)
            .map_err(|source| MapError::Map { uri: uri.clone(), source: Arc::new(source) })
    }

    fn file(&self, uri: &RegionUri, access: Access) -> Result<RegionFile, MapError> {
        let huge = if uri.require_hugepages() { HugePages::Required } else { HugePages::NotRequired };
        self.bases
            .open(uri.path(), access, &self.permissions, huge)
            .map_err(|source| MapError::Open { uri: uri.clone(), source: Arc::new(source) })
    }
}

impl ReadRegions {
    /// What was opened.
    #[must_use]
    pub fn spec(&self) -> &RegionSpec {
        &self.spec
    }

    /// The header ring.
    #[must_use]
    pub fn header(&self) -> &Region {
        &self.header
    }

    /// A pool and its geometry.
    #[must_use]
    pub fn pool(&self, id: PoolId) -> Option<&(PoolSpec, Region)> {
        // A handful of pools at most: a scan beats a map.
        self.pools.iter().find(|(pool, _)| pool.pool_id == id)
    }

    /// Process id in the header ring's superblock when it was mapped. Proves nothing about life or death (TP-134).
    #[must_use]
    pub fn pid(&self) -> u64 {
        self.pid
    }

    /// `activity_timestamp_ns` of the header ring.
    #[must_use]
    pub fn activity(&self) -> u64 {
        activity(&self.header)
    }

    /// Whether magic, layout version, epoch and pid of every region are still what they were (TP-081, TP-134).
    #[must_use]
    pub fn unchanged(&self) -> bool {
        let epoch = self.spec.epoch();
        let header = read_superblock(&self.header);
        header.check_unchanged(RegionKind::HeaderRing, epoch).is_ok()
            && header.pid == self.pid
            && self.pools.iter().all(|(_, region)| {
                read_superblock(region).check_unchanged(RegionKind::PayloadPool, epoch).is_ok()
            })
    }
}

impl WriteRegions {
    /// What was opened.
    #[must_use]
    pub fn spec(&self) -> &RegionSpec {
        &self.spec
    }

    /// The header ring.
    #[must_use]
    pub fn header(&self) -> &RegionMut {
        &self.header
    }

    /// The pools and their geometry, by ascending id.
    #[must_use]
    pub fn pools(&self) -> &[(PoolSpec, RegionMut)] {
        &self.pools
    }

    /// Refreshes the activity time of every region (TP-140).
    pub fn refresh_activity(&self, now: u64) {
        for region in std::iter::once(&self.header).chain(self.pools.iter().map(|(_, region)| region)) {
            if let Ok(word) = region.atomic_u64(ACTIVITY_OFFSET as u64) {
                // Release: pairs with the Acquire load in `activity` of every reader (TP-079).
                word.store(now, Ordering::Release);
            }
        }
    }
}

fn activity(header: &Region) -> u64 {
    // The offset is 8-aligned and inside every mapped region; a region without it would read as never active.
    // Acquire: pairs with the Release store of the writer (TP-079).
    header.atomic_u64(ACTIVITY_OFFSET as u64).map_or(0, |word| word.load(Ordering::Acquire))
}

fn check_header(region: &Region, spec: &RegionSpec) -> Result<Superblock, MapError> {
    let superblock = read_superblock(region);
    superblock
        .check_header_ring(&expected(spec))
        .map_err(|source| MapError::Superblock { uri: spec.header().clone(), source })?;
    Ok(superblock)
}

fn check_pool(region: &Region, spec: &RegionSpec, pool: PoolSpec, uri: &RegionUri) -> Result<(), MapError> {
    read_superblock(region)
        .check_pool(&expected(spec), pool.pool_id, pool.stride)
        .map_err(|source| MapError::Superblock { uri: uri.clone(), source })
}

fn read_superblock(region: &Region) -> Superblock {
    let mut bytes = [0; SUPERBLOCK_LEN];
    // Mapped regions are longer than a superblock; should one not be, zeros fail every check.
    let read = region.read(0, &mut bytes);
    debug_assert!(read.is_ok(), "a mapped region holds a superblock");
    Superblock::decode(&bytes)
}

fn expected(spec: &RegionSpec) -> Expected {
    Expected {
        layout_version: LAYOUT_VERSION,
        epoch: spec.epoch(),
        stream_id: spec.stream(),
        nslots: spec.slots(),
    }
}
