//! Creating, refreshing and removing the region files of epochs: the owner's side of chapter 5.
//!
//! ```text
//! <base>/tensorpool-<user>/<namespace>/                    the root, resolved once (TP-060)
//!     .driver.lock                                          held by the one driver (TP-235)
//!     <stream id>/<epoch>/header.ring                       one directory per epoch, never reused (TP-054)
//!     <stream id>/<epoch>/<pool id>.pool
//! ```
//!
//! Invariants:
//! - A region set is complete or not there: when one file cannot be made, those made before it are removed again.
//! - Files of an epoch are written before anybody is told their names, and afterwards only their activity changes.
//! - Removing means unlinking; mappings of other processes stay valid (TP-283).

mod collect;
mod create;
mod error;
mod user;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidegate_shm::clock::Nanos;
use tidegate_shm::lock::DirLock;
use tidegate_shm::region::{Access, AllowedBases, RegionDir, RegionMut};
use tidegate_shm::sync::Ordering;

pub use collect::{CollectPolicy, CollectTime};
pub use error::StoreError;
pub use user::user_name;

use super::RegionSpec;
use crate::config::{FileMode, Namespace, Policies, ShmSection, user_component};
use crate::ids::{Epoch, StreamId};
use crate::layout::ACTIVITY_OFFSET;
use crate::uri::RegionUri;

const LOCK_FILE: &str = ".driver.lock";
const HEADER_FILE: &str = "header.ring";
const POOL_SUFFIX: &str = ".pool";

/// What clients do not accept unless told to (TP-069).
const WORLD_BITS: u32 = 0o007;

/// Most entries of a directory that are looked at; more means that somebody fills it endlessly.
const MAX_ENTRIES: usize = 65_536;

/// Where and how region files are made.
#[derive(Debug, Clone)]
pub struct StoreSettings {
    /// Existing directory, may be reached through links.
    pub base_dir: PathBuf,
    /// Directories the owner's own URIs must pass (TP-237).
    pub allowed_base_dirs: Vec<PathBuf>,
    /// Name of the user, before sanitising (TP-052).
    pub user: Vec<u8>,
    /// Separates owners of one user.
    pub namespace: Namespace,
    /// Exact mode of files; directories get search bits in addition (TP-068, TP-492).
    pub mode: FileMode,
    /// Write zeros over new files (TP-057).
    pub prefault: bool,
    /// Lock pages in memory (TP-057).
    pub lock_pages: bool,
    /// Take over files that exist and match exactly (TP-055).
    pub reuse_existing: bool,
}

impl StoreSettings {
    /// The settings of a configured driver that runs as the calling user.
    #[must_use]
    pub fn new(shm: &ShmSection, policies: &Policies) -> Self {
        Self {
            base_dir: shm.base_dir.clone(),
            allowed_base_dirs: shm.allowed_base_dirs.clone(),
            user: user_name(),
            namespace: shm.namespace.clone(),
            mode: shm.permissions_mode,
            prefault: policies.prefault_shm,
            lock_pages: policies.mlock_shm,
            reuse_existing: policies.reuse_existing_shm,
        }
    }

    /// Search permission wherever there is read permission. Never writable by the world: such a directory is refused
    /// when it is opened again (TP-492).
    fn dir_mode(&self) -> u32 {
        let bits = self.mode.bits();
        (bits | ((bits & 0o444) >> 2)) & !0o002
    }
}

/// The directory of one owner of regions: a driver, or a producer without one.
#[derive(Debug)]
pub struct RegionStore {
    root: RegionDir,
    settings: StoreSettings,
    hugetlbfs: bool,
    lock: Option<DirLock>,
}

impl RegionStore {
    /// Resolves the base and makes the levels down to the namespace.
    ///
    /// # Errors
    /// The base is not a usable directory (TP-066), is outside of its own allowlist (TP-237), or so long that region
    /// URIs would be refused (TP-044).
    pub fn open(settings: StoreSettings) -> Result<Self, StoreError> {
        let base = RegionDir::open_base(&settings.base_dir).map_err(StoreError::Directory)?;
        let (allowed, _) = AllowedBases::new(&settings.allowed_base_dirs);
        if !allowed.paths().iter().any(|dir| base.path().starts_with(dir)) {
            return Err(StoreError::OutsideAllowlist { base: base.path().to_owned() });
        }
        if settings.mode.bits() & WORLD_BITS != 0 {
            let mode = settings.mode;
            tracing::warn!(%mode, "shm.permissions_mode gives rights to everybody; clients refuse such regions by default");
        }
        let user = format!("tensorpool-{}", user_component(&settings.user));
        let longest = format!("{}/{}/{}.pool", u32::MAX, u64::MAX, u16::MAX);
        let longest = base.path().join(&user).join(settings.namespace.as_str()).join(longest);
        RegionUri::new(&longest, true).map_err(|source| StoreError::Uri { path: longest, source })?;
        let root = base
            .create_dirs(&[&user, settings.namespace.as_str()], settings.dir_mode())
            .map_err(StoreError::Directory)?;
        Ok(Self { root, settings, hugetlbfs: false, lock: None })
    }

    /// Takes the place of the one driver (TP-235) and finds out on what kind of file system the regions will be.
    ///
    /// # Errors
    /// [`StoreError::Lock`] when another driver holds the namespace.
    pub fn lock(&mut self) -> Result<(), StoreError> {
        let lock = DirLock::acquire(&self.root.path().join(LOCK_FILE)).map_err(StoreError::Lock)?;
        let file = self.root.open_file(LOCK_FILE, Access::ReadOnly).map_err(StoreError::Open)?;
        self.hugetlbfs = file.is_hugetlbfs();
        self.lock = Some(lock);
        Ok(())
    }

    /// The directory of the namespace, resolved.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// Whether regions live on huge pages; known once the store is locked.
    #[must_use]
    pub fn is_hugetlbfs(&self) -> bool {
        self.hugetlbfs
    }
}

/// The regions of one epoch, mapped by their owner to refresh their activity. Dropping it removes nothing.
#[derive(Debug)]
pub struct EpochRegions {
    spec: Arc<RegionSpec>,
    regions: Vec<RegionMut>,
}

impl EpochRegions {
    /// What is announced about them.
    #[must_use]
    pub fn spec(&self) -> &Arc<RegionSpec> {
        &self.spec
    }

    /// Marks the header ring and every pool as alive at `now` (TP-079, TP-140).
    pub fn refresh_activity(&self, now: Nanos) {
        for region in &self.regions {
            match region.atomic_u64(ACTIVITY_OFFSET as u64) {
                // Release: pairs with the Acquire load of consumers that watch the activity (TP-141).
                Ok(word) => word.store(now.as_u64(), Ordering::Release),
                // Every region is longer than its superblock.
                Err(error) => tracing::error!(%error, "a region has no superblock"),
            }
        }
    }
}

/// Name of an epoch directory, if it is one: plain decimal without leading zeros (TP-278).
fn epoch_of(name: &std::ffi::OsStr) -> Option<Epoch> {
    let text = name.to_str()?;
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    if plain { text.parse().ok().map(Epoch::new) } else { None }
}

fn stream_component(stream: StreamId) -> String {
    stream.to_string()
}

#[cfg(test)]
mod tests;
