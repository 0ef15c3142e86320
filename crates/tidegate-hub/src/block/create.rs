//! Making blocks: complete before anybody sees them, with all pages reserved (DH-016 to DH-019), on huge pages where
//! they help and are to be had (3.9).

use std::{mem::offset_of, ops::Range, path::PathBuf, sync::Arc};

use tidegate_shm::{
    clock::{Nanos, monotonic_now, realtime_now},
    fork::ForkGuard,
    host::{HostId, page_size},
    region::{
        self, Access, AccessError, DirError, Draft, GuardedRegion, HugePagePermission, RegionDir,
        shared_huge_page_permission,
    },
    sync::Ordering,
};

use super::{
    AttachError, AttachOptions, Block, CreateError, DEFAULT_DIR, HugeFailure, Role, WriterViews,
    attach::{attach, lock_memory},
    registry::{Holding, Place},
};
use crate::{
    attachment::writer_core,
    core::{
        config::{Deadline, Timing, WaitStrategy},
        crash::{self, Point},
    },
    identity::{IdentityUnavailable, Judge, Liveness, ProcessKey},
    layout::{
        AreaCopy, Birth, BlockSpec, BlockUuid, Descriptor, EncodeError, FeatureUse, InitState,
        LOCK_ALLOCATED, LOCK_SYSTEM, Mismatch, NO_INDEX, PageMode, SCHEMA_OFF, SYSTEM_LOCKS, Secret, decode,
        encode,
        pages::{ConsumerRow, ControlPage, LockRecord, MetricsPage},
    },
};

/// How a block is made.
#[derive(Debug, Clone)]
pub struct CreateOptions<'a> {
    /// Directory of the blocks.
    pub dir: PathBuf,
    /// A hugetlbfs mount for blocks on huge pages.
    pub huge_dir: Option<PathBuf>,
    /// Permission bits of the file, whatever the umask is (DH-019).
    pub mode: u32,
    /// Name of the block; random when missing, and then its file name is new, too.
    pub uuid: Option<BlockUuid>,
    /// The secret of the channel, exactly at security levels 1 and 2.
    pub secret: Option<&'a Secret>,
    /// Whether huge pages are wanted.
    pub huge_pages: HugePages,
    /// Bytes of slots above which [`HugePages::Auto`] wants them.
    pub huge_page_threshold: u64,
    /// Whether to lock the mapping into memory; failing to is a warning (DH-025).
    pub lock_memory: bool,
    /// What to do when the file exists.
    pub if_exists: IfExists,
}

impl Default for CreateOptions<'_> {
    /// In `/dev/shm`, mode 0600, a new uuid, huge pages from 64 MiB on, failing when the file exists.
    fn default() -> Self {
        Self {
            dir: DEFAULT_DIR.into(),
            huge_dir: None,
            mode: 0o600,
            uuid: None,
            secret: None,
            huge_pages: HugePages::Auto,
            huge_page_threshold: 64 << 20,
            lock_memory: false,
            if_exists: IfExists::Fail,
        }
    }
}

/// Whether huge pages are wanted (DH-026).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HugePages {
    /// For blocks above the threshold.
    Auto,
    /// Always, if to be had.
    On,
    /// Never.
    Off,
    /// Always; creation fails without.
    Require,
}

/// What to do when the file of a new block exists (DH-017). Adopting it is attaching as its writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfExists {
    /// Fail.
    Fail,
    /// Remove it if its writer and all its consumers are proven dead.
    ReplaceIfDead,
}

/// Makes a block, ready for use, with this process as its writer.
///
/// # Errors
/// See [`CreateError`]; nothing is left behind.
pub fn create(spec: &BlockSpec, options: &CreateOptions<'_>) -> Result<Block, CreateError> {
    Building::new(spec, options)?.link(spec.first_slot_id)
}

/// A block whose memory is there and which nobody can see yet. Dropping it leaves nothing.
#[derive(Debug)]
pub(crate) struct Building {
    spec: BlockSpec,
    secret: Option<Secret>,
    lock_memory: bool,
    own: ProcessKey,
    host: HostId,
    uuid: BlockUuid,
    holding: Holding,
    dir: RegionDir,
    name: String,
    site: Site,
}

impl Building {
    /// Reserves everything that the block needs.
    ///
    /// # Errors
    /// See [`CreateError`].
    pub(crate) fn new(spec: &BlockSpec, options: &CreateOptions<'_>) -> Result<Self, CreateError> {
        let own = ProcessKey::current()?;
        let host = HostId::current().map_err(|source| CreateError::Kernel {
            operation: "identify this boot and its namespaces",
            source,
        })?;
        let uuid = match options.uuid {
            Some(uuid) => uuid,
            None => random_uuid()?,
        };
        let guard = ForkGuard::new().map_err(|source| IdentityUnavailable::ForkGuard { source })?;
        let holding = Holding::take(&uuid, Place::Writer, guard).ok_or(CreateError::Locked)?;
        let name = spec.channel.file_name(&uuid);
        // Whatever is wrong with the configuration is said before anything is made (DH-095).
        let fields = spec.faults(PageMode::Base, page_size() as u32);
        if !fields.is_empty() {
            return Err(EncodeError::Invalid { fields }.into());
        }
        let dir = RegionDir::open_base(&options.dir)?;
        if options.if_exists == IfExists::ReplaceIfDead {
            remove_dead(&dir, &name)?;
            // Without the mount there is none.
            let huge_dir = options.huge_dir.as_ref().and_then(|dir| RegionDir::open_base(dir).ok());
            huge_dir.map_or(Ok(()), |dir| remove_dead(&dir, &name))?;
        }
        let site = Site::find(spec, options, &dir, &name)?;
        crash::at(Point::CreateAlloc);
        Ok(Self {
            spec: spec.clone(),
            secret: options.secret.cloned(),
            lock_memory: options.lock_memory,
            own,
            host,
            uuid,
            holding,
            dir,
            name,
            site,
        })
    }

    /// The uuid that it will have.
    pub(crate) fn uuid(&self) -> BlockUuid {
        self.uuid
    }

    /// The name that it will have.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Completes it, with `first_slot_id` as its first id, and gives it its name.
    ///
    /// # Errors
    /// See [`CreateError`]; nothing is left behind.
    pub(crate) fn link(mut self, first_slot_id: u64) -> Result<Block, CreateError> {
        self.spec.first_slot_id = first_slot_id;
        let Self { site, .. } = &self;
        let birth = Birth {
            uuid: self.uuid,
            salt: random()?,
            host: self.host,
            monotonic: monotonic_now(),
            realtime: realtime_now(),
            page_mode: site.page_mode,
            page_size: site.page_size,
        };
        let descriptor = write_block(&site.region, &self.spec, &birth, self.secret.as_ref(), self.own)?;
        let Self { site, dir, name, host, own, holding, lock_memory: lock, .. } = self;
        site.draft.publish().map_err(|error| refusal(error, &dir, &name))?;
        crash::at(Point::CreateLink);
        // A block on hugetlbfs lies elsewhere.
        let place = site.path.parent().and_then(|place| RegionDir::open_base(place).ok());
        let file = place.and_then(|place| place.stat(&name).ok());
        Ok(Block {
            file: file.map(|file| (file.dev, file.ino)),
            memory_locked: lock && lock_memory(&site.region, &site.path),
            path: site.path,
            judge: Judge::new(&host, &host),
            descriptor: Arc::new(descriptor),
            region: site.region,
            role: Role::Writer,
            own,
            holding: Some(holding),
            findings: Vec::new(),
            huge_failure: site.huge_failure,
        })
    }
}

/// Where a new block will be, and on what pages.
#[derive(Debug)]
struct Site {
    draft: Draft,
    path: PathBuf,
    region: GuardedRegion,
    page_mode: PageMode,
    page_size: u32,
    huge_failure: Option<HugeFailure>,
}

impl Site {
    /// Tries hugetlbfs, then transparent huge pages, then ordinary ones (DH-027, DH-029).
    fn find(
        spec: &BlockSpec,
        options: &CreateOptions<'_>,
        dir: &RegionDir,
        name: &str,
    ) -> Result<Self, CreateError> {
        let invalid = |fault: Mismatch| EncodeError::Invalid { fields: vec![fault] };
        let base_page = page_size() as u32;
        let geometry = spec.geometry(base_page).map_err(invalid)?;
        let slots_len = u64::from(spec.slot_count) * geometry.slot_stride;
        let wants_huge = match options.huge_pages {
            HugePages::Auto => slots_len > options.huge_page_threshold,
            HugePages::On | HugePages::Require => true,
            HugePages::Off => false,
        };
        if wants_huge && let Some(site) = Self::on_hugetlbfs(spec, options, name) {
            return Ok(site);
        }
        let draft = draft(dir, name, geometry.total_size, options)?;
        let region = map(&draft, 0..geometry.total_size)?;
        let huge = if wants_huge { advise_huge(&region).err() } else { None };
        if let Some(reason) = huge {
            if options.huge_pages == HugePages::Require {
                return Err(CreateError::NoHugePages { reason });
            }
            tracing::warn!(block = name, %reason, "block is on base pages although huge ones were wanted");
        }
        let page_mode = if wants_huge && huge.is_none() { PageMode::TransparentHuge } else { PageMode::Base };
        let path = dir.path().join(name);
        Ok(Self { draft, path, region, page_mode, page_size: base_page, huge_failure: huge })
    }

    fn on_hugetlbfs(spec: &BlockSpec, options: &CreateOptions<'_>, name: &str) -> Option<Self> {
        let dir = RegionDir::open_base(options.huge_dir.as_deref()?).ok()?;
        let page_size = u32::try_from(dir.huge_page_size().ok()?).ok().filter(|size| *size > 0)?;
        let total = spec.geometry(page_size).ok()?.total_size;
        let draft = draft(&dir, name, total, options).ok()?;
        let region = map(&draft, 0..total).ok()?;
        let path = dir.path().join(name);
        Some(Self { draft, path, region, page_mode: PageMode::Hugetlb, page_size, huge_failure: None })
    }
}

fn draft(dir: &RegionDir, name: &str, len: u64, options: &CreateOptions<'_>) -> Result<Draft, CreateError> {
    let file_options =
        region::CreateOptions { mode: options.mode, prefault: false, ..region::CreateOptions::new(len) };
    Draft::new(dir, name, &file_options).map_err(|error| refusal(error, dir, name))
}

fn map(draft: &Draft, writable: Range<u64>) -> Result<GuardedRegion, CreateError> {
    draft.map(writable).map_err(CreateError::File)
}

/// Asks for transparent huge pages; success is what the kernel's account of the mapping shows (DH-029, DH-030).
fn advise_huge(region: &GuardedRegion) -> Result<(), HugeFailure> {
    match region.advise_huge() {
        Ok(bytes) if bytes > 0 => Ok(()),
        Ok(_) if shared_huge_page_permission() == HugePagePermission::NotPermitted => {
            Err(HugeFailure::NotPermitted)
        }
        Ok(_) => Err(HugeFailure::NotGiven),
        Err(_) => Err(HugeFailure::Unsupported),
    }
}

/// Fills the new file, which is all zeros; READY comes last.
fn write_block(
    region: &GuardedRegion,
    spec: &BlockSpec,
    birth: &Birth,
    secret: Option<&Secret>,
    own: ProcessKey,
) -> Result<Descriptor, CreateError> {
    let encoded = encode(spec, birth, secret)?;
    let text = spec.schema.text.as_bytes();
    region.span_mut(0, encoded.descriptor.len() as u64)?.write_at(0, &*encoded.descriptor)?;
    region.span_mut(SCHEMA_OFF, text.len() as u64)?.write_at(0, text)?;
    // The creator uses what an attacher would get, so that the two cannot differ.
    let mut schema = text.to_vec();
    schema.resize(encoded.geometry.schema().len as usize, 0);
    let object_size = encoded.geometry.total_size;
    let area = AreaCopy { descriptor: encoded.descriptor, schema, object_size };
    let descriptor = decode(&area, FeatureUse::TakePart).map_err(CreateError::Layout)?;
    let views = WriterViews::new(region, &descriptor)?;
    write_locks(&views, spec);
    write_control(&views, spec, birth, own);
    Ok(descriptor)
}

fn write_locks(views: &WriterViews, spec: &BlockSpec) {
    for (index, lock) in (0..).zip(views.locks.iter()) {
        let zone = (0..).zip(&spec.zones).find(|(_, zone)| zone.lock == Some(index)).map(|(zone, _)| zone);
        let system = if index < SYSTEM_LOCKS { LOCK_SYSTEM | LOCK_ALLOCATED } else { 0 };
        let allocated = if zone.is_some() { LOCK_ALLOCATED } else { 0 };
        // Relaxed: the Release of `init_state` publishes all of this.
        lock.u32::<{ offset_of!(LockRecord, flags) }>().store(system | allocated, Ordering::Relaxed);
        let zone = zone.unwrap_or(NO_INDEX);
        lock.u32::<{ offset_of!(LockRecord, zone_index) }>().store(zone, Ordering::Relaxed);
    }
}

fn write_control(views: &WriterViews, spec: &BlockSpec, birth: &Birth, own: ProcessKey) {
    let metrics = views.metrics.row();
    let Nanos(realtime) = birth.realtime;
    // Relaxed, up to the state: as in `write_locks`.
    metrics.u64::<{ offset_of!(MetricsPage, creation_timestamp_ns) }>().store(realtime, Ordering::Relaxed);
    let control = views.control.row();
    let Nanos(now) = birth.monotonic;
    control.u64::<{ offset_of!(ControlPage, writer_owner) }>().store(own.word(), Ordering::Relaxed);
    control.u64::<{ offset_of!(ControlPage, writer_epoch) }>().store(1, Ordering::Relaxed);
    control.u64::<{ offset_of!(ControlPage, writer_heartbeat_ns) }>().store(now, Ordering::Relaxed);
    control.u64::<{ offset_of!(ControlPage, writer_attached_ns) }>().store(now, Ordering::Relaxed);
    let first = spec.first_slot_id;
    control.u64::<{ offset_of!(ControlPage, write_index) }>().store(first, Ordering::Relaxed);
    control.u64::<{ offset_of!(ControlPage, commit_index) }>().store(first, Ordering::Relaxed);
    control.u64::<{ offset_of!(ControlPage, read_index) }>().store(first, Ordering::Relaxed);
    control.u64::<{ offset_of!(ControlPage, floor_intent) }>().store(first, Ordering::Relaxed);
    // Pairs with the Acquire load of whoever attaches a block that was visible before.
    let ready = InitState::Ready.code();
    control.u32::<{ offset_of!(ControlPage, init_state) }>().store(ready, Ordering::Release);
}

/// Removes the block `name`, if there is one and nobody lives in it.
fn remove_dead(dir: &RegionDir, name: &str) -> Result<(), CreateError> {
    if matches!(dir.stat(name), Err(DirError::Missing { .. })) {
        return Ok(());
    }
    let taken = || already_exists(dir, name);
    // Whoever replaces a block holds the lock of its file meanwhile, so the name cannot pass to a living block between
    // the proof and the removal.
    let file = dir.open_file(name, Access::ReadOnly).map_err(|_| taken())?;
    if !file.try_lock().is_ok_and(|locked| locked) {
        return Err(taken());
    }
    let old = Arc::new(open_again(dir, name, Role::Recovery).map_err(|_| taken())?);
    let same =
        dir.stat(name).is_ok_and(|now| (now.dev, now.ino) == (file.metadata().dev, file.metadata().ino));
    if !same || !is_deserted(&old).map_err(CreateError::Access)? {
        return Err(taken());
    }
    let control = old.writer_views().map_err(CreateError::Access)?.control;
    let core = writer_core(&old, WaitStrategy::Hybrid, Timing::default()).map_err(CreateError::Access)?;
    // As acting writer, and closed first: a producer that has it mapped already, and comes too late for the name, sees that
    // it is over. This process's place as writer is that of the block to come, which has the same name.
    let deadline = Deadline::At(monotonic_now().saturating_add(MAINTENANCE_LOCK));
    let removed = core.stand_in(deadline, |_| {
        if !rows_are_deserted(&old)? {
            return Ok(None);
        }
        let state = control.row().u32::<{ offset_of!(ControlPage, init_state) }>();
        // Release: pairs with the acquire of whoever adopts it next.
        state.store(InitState::Closed.code(), Ordering::Release);
        Ok(Some(old.unlink()))
    });
    match removed {
        Ok(Ok(Some(removed))) => removed.map_err(CreateError::Dir),
        Ok(Err(error)) => Err(CreateError::Access(error)),
        // Somebody came meanwhile.
        Ok(Ok(None)) | Err(_) => Err(taken()),
    }
}

/// Whether the writer and every consumer are proven dead.
fn is_deserted(block: &Block) -> Result<bool, AccessError> {
    let writer_gone =
        block.writer()?.is_none_or(|key| block.liveness(key, Place::Writer, false) == Liveness::Dead);
    Ok(writer_gone && rows_are_deserted(block)?)
}

fn rows_are_deserted(block: &Block) -> Result<bool, AccessError> {
    let views = block.inspector_views()?;
    Ok((0..).zip(views.consumers.iter()).all(|(index, row)| {
        // Acquire: pairs with the Release stores of whoever joins, which records the owner first.
        let state = row.u64::<{ offset_of!(ConsumerRow, reg) }>().load(Ordering::Acquire) & ROW_STATE;
        let owner = row.u64::<{ offset_of!(ConsumerRow, owner) }>().load(Ordering::Acquire);
        let flags = row.u32::<{ offset_of!(ConsumerRow, flags) }>().load(Ordering::Relaxed);
        match ProcessKey::from_word(owner) {
            _ if state == ROW_FREE => true,
            Some(key) => block.liveness(key, Place::Row(index), flags & ROW_FOREIGN != 0) == Liveness::Dead,
            None => false,
        }
    }))
}

/// Why a name cannot be used: says who has it.
fn already_exists(dir: &RegionDir, name: &str) -> CreateError {
    let path = dir.path().join(name);
    let found = open_again(dir, name, Role::Inspector).and_then(|block| Ok((block.writer()?, block)));
    let Ok((owner, block)) = found else {
        return CreateError::AlreadyExists { path, owner: None, liveness: Liveness::Unknown };
    };
    let liveness = owner.map_or(Liveness::Dead, |key| block.liveness(key, Place::Writer, false));
    CreateError::AlreadyExists { path, owner, liveness }
}

fn open_again(dir: &RegionDir, name: &str, role: Role) -> Result<Block, AttachError> {
    let options = AttachOptions {
        dir: dir.path().to_owned(),
        init_wait: std::time::Duration::ZERO,
        ..AttachOptions::new(role)
    };
    attach(name, &options)
}

fn refusal(error: region::CreateError, dir: &RegionDir, name: &str) -> CreateError {
    match error {
        region::CreateError::AlreadyExists { path } => {
            // On hugetlbfs it is in another one.
            let place = path.parent().and_then(|place| RegionDir::open_base(place).ok());
            already_exists(place.as_ref().unwrap_or(dir), name)
        }
        region::CreateError::NoSpace { path, needed, available } => {
            CreateError::NoSpace { path, needed, available }
        }
        other => CreateError::File(other),
    }
}

fn random_uuid() -> Result<BlockUuid, CreateError> {
    loop {
        if let Ok(uuid) = BlockUuid::new(random()?) {
            return Ok(uuid);
        }
    }
}

fn random() -> Result<[u8; 16], CreateError> {
    let mut bytes = [0; 16];
    let mut filled = 0;
    while filled < bytes.len() {
        match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => {
                return Err(CreateError::Kernel { operation: "draw random bytes", source: errno.into() });
            }
        }
    }
    Ok(bytes)
}

/// How long a removal tries for the maintenance lock (6.3).
const MAINTENANCE_LOCK: Nanos = Nanos::from_secs(1);
const ROW_STATE: u64 = 0xFF;
const ROW_FREE: u64 = 0;
const ROW_FOREIGN: u32 = 1;
