//! Words that both measuring processes see, each on cache lines of its own.
//!
//! ```text
//! offset   0  written by ping: stamp of the bare exchange
//!        256  written by pong: stamp of the bare exchange
//!        512  written by ping: the last run that is over
//!        768  written by pong: the first frame of the stream that was not taken yet
//! ```

use std::path::Path;
use std::time::{Duration, Instant};

use tidegate::shm::region::{
    Access, AllowedBases, CreateOptions, HugePages, PermissionPolicy, RegionDir, RegionMut, SharedU64Mut,
    create_region,
};
use tidegate::shm::sync::{Ordering, spin_loop};

use super::error::BenchError;
use super::protocol::Role;

/// Name of the file.
pub(super) const FILE: &str = "lines";
const LEN: u64 = 4096;
/// More than any processor fetches at once.
const APART: u64 = 256;

/// The other process is given up after this.
const SILENCE: Duration = Duration::from_secs(10);

/// The mapped words.
pub(super) struct Lines(RegionMut);

impl Lines {
    /// Makes the file in an empty directory.
    pub(super) fn create(dir: &Path) -> Result<(), BenchError> {
        let options = CreateOptions { mode: 0o600, ..CreateOptions::new(LEN) };
        create_region(&RegionDir::open_base(dir)?, FILE, &options)?;
        Ok(())
    }

    /// Maps the words in `dir`.
    pub(super) fn open(dir: &Path) -> Result<Self, BenchError> {
        let (bases, _) = AllowedBases::new([dir]);
        let path = dir.join(FILE);
        let file =
            bases.open(&path, Access::ReadWrite, &PermissionPolicy::default(), HugePages::NotRequired)?;
        Ok(Self(file.map_mut(LEN)?))
    }

    /// The word of the bare exchange that `writer` writes.
    pub(super) fn exchange(&self, writer: Role) -> Result<SharedU64Mut<'_>, BenchError> {
        let place = if writer == Role::Ping { 0 } else { 1 };
        Ok(self.0.atomic_u64(place * APART)?)
    }

    /// The last run that is over.
    pub(super) fn over(&self) -> Result<SharedU64Mut<'_>, BenchError> {
        Ok(self.0.atomic_u64(2 * APART)?)
    }

    /// The first frame that the reader has not taken.
    pub(super) fn taken(&self) -> Result<SharedU64Mut<'_>, BenchError> {
        Ok(self.0.atomic_u64(3 * APART)?)
    }

    /// Tells the other side that the run is over.
    pub(super) fn end(&self, run: u64) -> Result<(), BenchError> {
        // Release: pairs with the Acquire in `is_over`.
        self.over()?.store(run, Ordering::Release);
        Ok(())
    }

    /// Whether the run is over.
    pub(super) fn is_over(&self, run: u64) -> Result<bool, BenchError> {
        // Acquire: pairs with the Release in `end`.
        Ok(self.over()?.load(Ordering::Acquire) >= run)
    }
}

/// Spins, and gives up when nothing happens for [`SILENCE`].
pub(super) struct Patience {
    spins: u32,
    began: Option<Instant>,
}

impl Patience {
    pub(super) fn new() -> Self {
        Self { spins: 0, began: None }
    }

    /// One more look was in vain.
    #[inline]
    pub(super) fn spin(&mut self) -> Result<(), BenchError> {
        spin_loop();
        self.spins = self.spins.wrapping_add(1);
        // The clock is not read on every spin: that would be measured, too.
        if !self.spins.is_multiple_of(1 << 14) {
            return Ok(());
        }
        if self.began.get_or_insert_with(Instant::now).elapsed() > SILENCE {
            return Err(BenchError::Silent { after: SILENCE });
        }
        Ok(())
    }
}
