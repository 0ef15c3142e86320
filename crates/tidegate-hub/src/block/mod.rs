//! Blocks as this process has them: made with [`create`], or found by name and checked with [`attach`].
//!
//! A [`Block`] is a private, checked [`Descriptor`] and a mapping with the rights of a [`Role`]: consumers can write
//! area S only, inspectors nothing. It is not inherited by forked children; every operation that touches the mapping
//! begins with [`Block::check`].
//!
//! Attach tags are an access check for cooperating programs, not a barrier against code that runs as the same user
//! (DH-286). Whoever may write the file can cut it, which kills its users with SIGBUS; this library installs no handler
//! (DH-024).

mod attach;
mod create;
mod error;
mod find;
mod look;
mod names;
pub mod registry;
mod views;

use std::{
    mem::offset_of,
    path::{Path, PathBuf},
    sync::Arc,
};

use tidegate_shm::{
    fork::Forked,
    region::{AccessError, DirError, GuardedRegion, RegionDir, Span, SpanMut},
    sync::Ordering,
};

pub use attach::{AttachOptions, Expectations, ExpectedConfig, SchemaCheck, Trust, attach};
pub(crate) use create::Building;
pub use create::{CreateOptions, HugePages, IfExists, create};
pub use error::{AttachError, CreateError, HugeFailure, SchemaMismatch};
pub use find::{FindError, Found, find};
pub use look::{Look, look};
pub use names::{MAX_NAMES, names};
pub use views::{ConsumerViews, InspectorViews, PAGE_RECORD, WriterViews};

use crate::{
    identity::{Judge, Liveness, ProcessKey},
    layout::{Descriptor, InitState, pages::ControlPage},
};
use registry::{Holding, Place, is_held};

/// What a process does with a block, and so what it may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Looks: maps everything read-only.
    Inspector,
    /// Reads slots: maps area S for writing.
    Consumer,
    /// Writes slots: maps everything for writing.
    Writer,
    /// Repairs: maps everything for writing, also of a block that is closed or damaged beyond its descriptor, and needs no
    /// secret, since it is the file's permissions that decide who may repair. Not the writer by that.
    Recovery,
}

/// A block mapped into this process.
#[derive(Debug)]
pub struct Block {
    path: PathBuf,
    /// Device and inode; none for one that had lost its name when it was complete.
    file: Option<(u64, u64)>,
    descriptor: Arc<Descriptor>,
    region: GuardedRegion,
    role: Role,
    own: ProcessKey,
    judge: Judge,
    /// The writer's place, if this is a writer.
    holding: Option<Holding>,
    findings: Vec<AttachError>,
    memory_locked: bool,
    huge_failure: Option<HugeFailure>,
}

impl Block {
    /// Whether this process may use the handle; to be asked before anything that touches the mapping (DH-011).
    ///
    /// # Errors
    /// [`Forked`] in a forked child.
    #[inline]
    pub fn check(&self) -> Result<(), Forked> {
        self.region.check()
    }

    /// What the block is, as it was when attaching.
    pub fn descriptor(&self) -> &Arc<Descriptor> {
        &self.descriptor
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What this process may do.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The mapping, for views other than those below.
    pub fn region(&self) -> &GuardedRegion {
        &self.region
    }

    /// The key this process records as an owner.
    pub fn own_key(&self) -> ProcessKey {
        self.own
    }

    /// What an inspector found wrong after the descriptor was found right (steps 14, 15 and 19 of attaching). Others
    /// are refused instead.
    pub fn findings(&self) -> &[AttachError] {
        &self.findings
    }

    /// Whether the mapping is locked into memory (DH-025).
    pub fn is_memory_locked(&self) -> bool {
        self.memory_locked
    }

    /// Why a new block is on base pages although huge ones were wanted.
    pub fn huge_failure(&self) -> Option<HugeFailure> {
        self.huge_failure
    }

    /// What is known about the owner `key` found at `place`; `foreign` is the row's flag. The own key at a place that
    /// this process does not hold stems from the program before an `exec` and is dead (DH-038).
    pub fn liveness(&self, key: ProcessKey, place: Place, foreign: bool) -> Liveness {
        if key != self.own {
            return self.judge.liveness(key, foreign);
        }
        let held = is_held(&self.descriptor.uuid, place, self.region.guard());
        if held { Liveness::Alive } else { Liveness::Dead }
    }

    /// Notes that this process is about to record itself at `place`. False when it holds the place already.
    pub fn hold(&self, place: Place) -> bool {
        registry::hold(&self.descriptor.uuid, place, self.region.guard())
    }

    /// Notes that this process is not recorded at `place` any more.
    pub fn release(&self, place: Place) {
        registry::release(&self.descriptor.uuid, place, self.region.guard());
    }

    /// Notes that this process is about to be recorded at `place`, until the result is dropped. None when it is there already.
    pub(crate) fn take(&self, place: Place) -> Option<Holding> {
        Holding::take(&self.descriptor.uuid, place, self.region.guard())
    }

    /// Gives the writer's place up, so that another handle of this process can have it.
    pub fn release_writer(&mut self) {
        self.holding = None;
    }

    /// Removes the file; mappings stay. A file that another block has put in its place stays, too.
    ///
    /// # Errors
    /// What the directory said; [`DirError::Missing`] if there is none by that name.
    pub fn unlink(&self) -> Result<(), DirError> {
        let (Some(dir), Some(name)) = (self.path.parent(), self.path.file_name()) else { return Ok(()) };
        let (dir, name) = (RegionDir::open_base(dir)?, name.to_string_lossy());
        let there = dir.stat(&name)?;
        if self.file != Some((there.dev, there.ino)) {
            return Ok(());
        }
        dir.remove_file(&name)
    }

    /// Removes the file of a block that is over. One that stays is in nobody's way but for its name: a word in the log is enough.
    pub(crate) fn remove_name(&self) {
        if let Err(error) = self.unlink() {
            tracing::warn!(path = %self.path().display(), %error, "the file of a block that is over stays");
        }
    }

    /// Who is recorded as the writer.
    ///
    /// # Errors
    /// None for a block that was attached; the mapping has all of it.
    pub fn writer(&self) -> Result<Option<ProcessKey>, AccessError> {
        let views = self.inspector_views()?;
        // Acquire: pairs with the exchange by which an owner came, and the release of one who left.
        let owner =
            views.control.row().u64::<{ offset_of!(ControlPage, writer_owner) }>().load(Ordering::Acquire);
        Ok(ProcessKey::from_word(owner))
    }

    /// Whether it is over (DH-239).
    ///
    /// # Errors
    /// None for a block that was attached; the mapping has all of it.
    pub(crate) fn is_closed(&self) -> Result<bool, AccessError> {
        let views = self.inspector_views()?;
        // Acquire: pairs with the release of whoever closed it.
        let state =
            views.control.row().u32::<{ offset_of!(ControlPage, init_state) }>().load(Ordering::Acquire);
        Ok(state == InitState::Closed.code())
    }

    /// Everything, to be read.
    ///
    /// # Errors
    /// None for a block that was attached; the mapping has all of it.
    pub fn inspector_views(&self) -> Result<InspectorViews, AccessError> {
        InspectorViews::new(&self.region, &self.descriptor)
    }

    /// Everything, area S to be written.
    ///
    /// # Errors
    /// [`AccessError::ReadOnly`] for an inspector.
    pub fn consumer_views(&self) -> Result<ConsumerViews, AccessError> {
        ConsumerViews::new(&self.region, &self.descriptor)
    }

    /// Everything, to be written.
    ///
    /// # Errors
    /// [`AccessError::ReadOnly`] for others than the writer.
    pub fn writer_views(&self) -> Result<WriterViews, AccessError> {
        WriterViews::new(&self.region, &self.descriptor)
    }

    /// The bytes of slot `index`, `slot_size` of them.
    ///
    /// # Errors
    /// There is no such slot.
    #[inline]
    pub fn slot(&self, index: u32) -> Result<Span<'_>, AccessError> {
        self.region.span(self.slot_offset(index), self.descriptor.spec.slot_size)
    }

    /// The bytes of slot `index`, to be written.
    ///
    /// # Errors
    /// There is no such slot, or this is not the writer.
    #[inline]
    pub fn slot_mut(&self, index: u32) -> Result<SpanMut<'_>, AccessError> {
        self.region.span_mut(self.slot_offset(index), self.descriptor.spec.slot_size)
    }

    /// The bytes of zone `index`, if there is one, without its control line.
    pub fn zone(&self, index: usize) -> Option<Span<'_>> {
        let offset = self.zone_offset(index)?;
        self.region.span(offset, self.descriptor.spec.zones.get(index)?.size).ok()
    }

    /// The bytes of zone `index`, to be written, if there is one and the role may write area S.
    pub fn zone_mut(&self, index: usize) -> Option<SpanMut<'_>> {
        let offset = self.zone_offset(index)?;
        self.region.span_mut(offset, self.descriptor.spec.zones.get(index)?.size).ok()
    }

    fn slot_offset(&self, index: u32) -> u64 {
        let geometry = &self.descriptor.geometry;
        // A slot that does not exist lies behind the end of the mapping.
        geometry.slots().offset + u64::from(index) * geometry.slot_stride
    }

    fn zone_offset(&self, index: usize) -> Option<u64> {
        let control_line = size_of::<crate::layout::pages::ZoneControl>() as u64;
        self.descriptor.geometry.zone_offsets.get(index).map(|offset| offset + control_line)
    }
}

/// Where blocks are unless told otherwise.
pub const DEFAULT_DIR: &str = "/dev/shm";
