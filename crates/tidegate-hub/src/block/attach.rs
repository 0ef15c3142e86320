//! Attaching: nothing of a block is used before all checks have passed, in the order of the sheet (DH-021).
//!
//! Steps 1 to 13 work on the open file and on one private copy of area D, read before anything is mapped, so that
//! neither a short file nor one that changes meanwhile can do harm (DH-022). Steps 14 to 19 look at the mapping.

use std::{
    mem::offset_of,
    path::PathBuf,
    sync::Arc,
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::process::geteuid;
use tidegate_shm::{
    host::HostId,
    region::{Access, DirError, FileStat, GuardedRegion, OpenError, RegionDir, RegionFile},
    sync::{Ordering, fence},
};

use super::{
    AttachError, Block, DEFAULT_DIR, InspectorViews, Role, SchemaMismatch,
    registry::{Holding, Place},
};
use crate::{
    identity::{Judge, ProcessKey},
    layout::{
        AreaCopy, ChannelName, DESCRIPTOR_LEN, Descriptor, FeatureUse, InitState, MAX_SLOT_ID, MIN_BLOCK_LEN,
        Mismatch, Policy, SCHEMA_OFF, Secret, SecurityLevel, SyncPolicy, decode,
        pages::{ControlPage, MetricsPage, SlotRecord},
    },
};

/// How a block is attached.
#[derive(Clone)]
pub struct AttachOptions<'a> {
    /// Directory of the blocks.
    pub dir: PathBuf,
    /// A hugetlbfs mount with blocks, looked at when `dir` has no such name.
    pub huge_dir: Option<PathBuf>,
    /// What the block is attached for.
    pub role: Role,
    /// Whose blocks are accepted.
    pub trust: Trust,
    /// The secret of the channel. An inspector needs none.
    pub secret: Option<&'a Secret>,
    /// How long to wait for a block that is not complete.
    pub init_wait: Duration,
    /// Whether to lock the mapping into memory; failing to is a warning (DH-025).
    pub lock_memory: bool,
    /// What the block must be.
    pub expect: Expectations<'a>,
}

impl AttachOptions<'_> {
    /// The defaults for `role`: blocks of this user in `/dev/shm`, waiting up to 1 s, expecting nothing.
    pub fn new(role: Role) -> Self {
        Self {
            dir: DEFAULT_DIR.into(),
            huge_dir: None,
            role,
            trust: Trust::default(),
            secret: None,
            init_wait: Duration::from_secs(1),
            lock_memory: false,
            expect: Expectations::default(),
        }
    }
}

/// Whose blocks are accepted besides those of the effective user.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// Users whose blocks are accepted.
    pub uids: Vec<u32>,
    /// Groups whose members may write an accepted block.
    pub gids: Vec<u32>,
}

/// What a block must be (step 17).
#[derive(Clone, Default)]
pub struct Expectations<'a> {
    /// Its channel.
    pub channel: Option<&'a ChannelName>,
    /// Judges its schemas.
    pub schema: Option<SchemaCheck<'a>>,
    /// How it is made.
    pub config: Option<ExpectedConfig>,
}

/// Compares the schemas of a block with those of the program.
pub type SchemaCheck<'a> = &'a (dyn Fn(&Descriptor) -> Result<(), SchemaMismatch> + Send + Sync);

/// How a block must be made (DH-178).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedConfig {
    /// How slots are used.
    pub policy: Policy,
    /// Which values consumers see.
    pub sync: SyncPolicy,
    /// Distance of two slots.
    pub slot_stride: u64,
    /// Number of slots; of no interest with [`Policy::RingBuffer`].
    pub slot_count: u32,
    /// Bytes each zone has at least.
    pub zone_sizes: Vec<u64>,
}

/// Attaches the block whose file is `name`.
///
/// # Errors
/// The first check that fails; nothing stays mapped. From step 14 on a refusal is counted in the block if the role may
/// write there (DH-023); before, nothing says where the counters are.
pub fn attach(name: &str, options: &AttachOptions<'_>) -> Result<Block, AttachError> {
    let own = ProcessKey::current()?;
    let file = open(name, options)?;
    check_trust(&file, &options.trust)?;
    wait_until_complete(&file, options.init_wait)?;
    let area = copy_area(&file)?;
    let descriptor = decode(&area, feature_use(options.role))?;
    let path = file.path().to_owned();
    let FileStat { dev, ino, .. } = *file.metadata();
    let writable = match options.role {
        Role::Inspector => 0..0,
        Role::Consumer => descriptor.geometry.shared().range(),
        Role::Writer | Role::Recovery => 0..descriptor.geometry.total_size,
    };
    let region = file.map_guarded(descriptor.geometry.total_size, writable)?;
    let here = here()?;
    let mut findings = Vec::new();
    if matches!(options.role, Role::Inspector | Role::Recovery) {
        findings = [
            check_state(&region, options.role, &descriptor).err(),
            check_boot(&descriptor, &here).err(),
            check_words(&region, &descriptor).err(),
        ]
        .into_iter()
        .flatten()
        .collect();
    } else if let Err(error) = check_use(&region, &area, &descriptor, &here, options) {
        count_rejection(&region, &descriptor, &error);
        return Err(error);
    }
    let holding = match options.role {
        Role::Writer => {
            let holding = Holding::take(&descriptor.uuid, Place::Writer, region.guard());
            Some(holding.ok_or(AttachError::Locked)?)
        }
        Role::Inspector | Role::Consumer | Role::Recovery => None,
    };
    Ok(Block {
        memory_locked: options.lock_memory && lock_memory(&region, &path),
        judge: Judge::new(&descriptor.host, &here),
        descriptor: Arc::new(descriptor),
        path,
        file: Some((dev, ino)),
        region,
        role: options.role,
        own,
        holding,
        findings,
        huge_failure: None,
    })
}

/// Locks the mapping into memory; a failure is only a warning.
pub(super) fn lock_memory(region: &GuardedRegion, path: &std::path::Path) -> bool {
    let locked = region.lock_pages();
    if let Err(error) = &locked {
        tracing::warn!(path = %path.display(), %error, "block not locked into memory; check `ulimit -l`");
    }
    locked.is_ok()
}

pub(super) fn here() -> Result<HostId, AttachError> {
    HostId::current()
        .map_err(|source| AttachError::Kernel { operation: "identify this boot and its namespaces", source })
}

pub(super) fn open(name: &str, options: &AttachOptions<'_>) -> Result<RegionFile, AttachError> {
    let access = if options.role == Role::Inspector { Access::ReadOnly } else { Access::ReadWrite };
    let dir = RegionDir::open_base(&options.dir)?;
    if let Some(huge_dir) = &options.huge_dir
        && matches!(dir.stat(name), Err(DirError::Missing { .. }))
    {
        return Ok(RegionDir::open_base(huge_dir)?.open_file(name, access)?);
    }
    dir.open_file(name, access).map_err(|error: OpenError| error.into())
}

/// Step 1.
pub(super) fn check_trust(file: &RegionFile, trust: &Trust) -> Result<(), AttachError> {
    let FileStat { mode, uid, gid, .. } = *file.metadata();
    let owner = uid == geteuid().as_raw() || trust.uids.contains(&uid);
    let group = mode & 0o020 == 0 || trust.gids.contains(&gid);
    let world = mode & 0o002 == 0;
    if owner && group && world {
        return Ok(());
    }
    Err(AttachError::UntrustedOwner { path: file.path().to_owned(), uid, gid, mode })
}

/// A block that was not made in a file without a name is visible before it is complete (DH-016).
fn wait_until_complete(file: &RegionFile, init_wait: Duration) -> Result<(), AttachError> {
    let start = Instant::now();
    while is_under_construction(file)? && start.elapsed() < init_wait {
        // There is no word to sleep on in a file that may have no bytes yet.
        sleep(POLL);
    }
    // Pairs with the Release store of the state by the creator: what is read from now on is complete.
    fence(Ordering::Acquire);
    Ok(())
}

fn is_under_construction(file: &RegionFile) -> Result<bool, AttachError> {
    let len = size_of_object(file)?;
    if len < MIN_BLOCK_LEN {
        // The file gets its whole size at once.
        return Ok(len == 0);
    }
    let mut state = [0; 4];
    file.read_at(INIT_STATE, &mut state)?;
    let state = InitState::from_code(u32::from_le_bytes(state));
    Ok(matches!(state, Some(InitState::Raw | InitState::Building)))
}

/// Step 2, and the only reading of area D.
pub(super) fn copy_area(file: &RegionFile) -> Result<AreaCopy, AttachError> {
    let object_size = size_of_object(file)?;
    if object_size < MIN_BLOCK_LEN {
        return Err(AttachError::TooSmall { found: object_size, required: MIN_BLOCK_LEN });
    }
    let mut descriptor = Box::new([0; DESCRIPTOR_LEN]);
    file.read_at(0, &mut *descriptor)?;
    let schema_len = (object_size - SCHEMA_OFF).min(AreaCopy::MAX_SCHEMA as u64);
    let mut schema = vec![0; schema_len as usize];
    file.read_at(SCHEMA_OFF, &mut schema)?;
    Ok(AreaCopy { descriptor, schema, object_size })
}

fn size_of_object(file: &RegionFile) -> Result<u64, AttachError> {
    file.current_len().map_err(|source| AttachError::Kernel { operation: "examine the block", source })
}

fn feature_use(role: Role) -> FeatureUse {
    match role {
        Role::Inspector => FeatureUse::ReadOnly,
        Role::Consumer | Role::Writer | Role::Recovery => FeatureUse::TakePart,
    }
}

/// Steps 14 to 19.
fn check_use(
    region: &GuardedRegion,
    area: &AreaCopy,
    descriptor: &Descriptor,
    here: &HostId,
    options: &AttachOptions<'_>,
) -> Result<(), AttachError> {
    check_state(region, options.role, descriptor)?;
    check_boot(descriptor, here)?;
    check_secret(area, descriptor, options.secret)?;
    check_expectations(descriptor, &options.expect)?;
    if descriptor.spec.security == SecurityLevel::AuthenticatedSlots && options.secret.is_none() {
        return Err(AttachError::KeyRequired { key_id: descriptor.key_id });
    }
    check_words(region, descriptor)
}

/// Step 14.
fn check_state(region: &GuardedRegion, role: Role, descriptor: &Descriptor) -> Result<(), AttachError> {
    let views = InspectorViews::new(region, descriptor)?;
    let code = views.control.row().u32::<{ offset_of!(ControlPage, init_state) }>().load(Ordering::Acquire);
    match InitState::from_code(code) {
        Some(InitState::Ready | InitState::Closing) => Ok(()),
        Some(InitState::Closed) if matches!(role, Role::Inspector | Role::Recovery) => Ok(()),
        Some(InitState::Closed) => Err(AttachError::Closed),
        Some(state @ (InitState::Raw | InitState::Building)) => Err(AttachError::NotReady { state }),
        None => {
            let highest = InitState::Closed.code();
            Err(AttachError::Corrupt(Mismatch::range("init_state", 0, highest.into(), code.into())))
        }
    }
}

/// Step 15.
fn check_boot(descriptor: &Descriptor, here: &HostId) -> Result<(), AttachError> {
    if descriptor.host.boot_id == here.boot_id {
        return Ok(());
    }
    Err(AttachError::StaleBoot { expected: here.boot_id, found: descriptor.host.boot_id })
}

/// Step 16. Without a secret level 1 fails here and level 2 at step 18, which says what is missing.
fn check_secret(
    area: &AreaCopy,
    descriptor: &Descriptor,
    secret: Option<&Secret>,
) -> Result<(), AttachError> {
    let verified = match (descriptor.spec.security, secret) {
        (SecurityLevel::None, _) | (SecurityLevel::AuthenticatedSlots, None) => true,
        (SecurityLevel::AttachTag, None) => false,
        (_, Some(secret)) => area.has_tag_of(secret, descriptor),
    };
    if verified { Ok(()) } else { Err(AttachError::AuthFailed { key_id: descriptor.key_id }) }
}

/// Step 17.
fn check_expectations(descriptor: &Descriptor, expect: &Expectations<'_>) -> Result<(), AttachError> {
    let spec = &descriptor.spec;
    if let Some(channel) = expect.channel
        && *channel != spec.channel
    {
        return Err(AttachError::ChannelMismatch { expected: channel.clone(), found: spec.channel.clone() });
    }
    if let Some(check) = expect.schema {
        check(descriptor)?;
    }
    let Some(config) = &expect.config else {
        return Ok(());
    };
    let mut same = vec![
        ("policy", u64::from(config.policy.code()), u64::from(spec.policy.code())),
        ("sync", config.sync.code().into(), spec.sync.code().into()),
        ("slot_stride", config.slot_stride, descriptor.geometry.slot_stride),
        ("zone_count", config.zone_sizes.len() as u64, spec.zones.len() as u64),
    ];
    if config.policy != Policy::RingBuffer {
        same.push(("slot_count", config.slot_count.into(), spec.slot_count.into()));
    }
    if let Some((field, expected, found)) = same.into_iter().find(|(_, expected, found)| expected != found) {
        return Err(AttachError::ConfigMismatch(Mismatch::value(field, expected, found)));
    }
    let zones = (0..).zip(config.zone_sizes.iter().zip(&spec.zones));
    for (index, (&least, zone)) in zones {
        // A larger zone with the same beginning is compatible.
        if zone.size < least {
            let fault = Mismatch::range("zone size", least, crate::layout::MAX_ZONE_SIZE, zone.size);
            return Err(AttachError::ConfigMismatch(fault.at(index)));
        }
    }
    Ok(())
}

/// Step 19. A writer may be at work, so each word is loaded in an order in which a healthy block never looks impossible:
/// the indices from the slowest to the fastest, and the slowest again for their distance.
fn check_words(region: &GuardedRegion, descriptor: &Descriptor) -> Result<(), AttachError> {
    let views = InspectorViews::new(region, descriptor)?;
    let control = views.control.row();
    // Acquire, each: pairs with the Release stores of the writer, so that a later load is not older than an earlier one.
    let read = control.u64::<{ offset_of!(ControlPage, read_index) }>().load(Ordering::Acquire);
    let commit = control.u64::<{ offset_of!(ControlPage, commit_index) }>().load(Ordering::Acquire);
    let write = control.u64::<{ offset_of!(ControlPage, write_index) }>().load(Ordering::Acquire);
    let commit_later = control.u64::<{ offset_of!(ControlPage, commit_index) }>().load(Ordering::Acquire);
    let slots = u64::from(descriptor.spec.slot_count);
    let bounds = [
        ("read_index", descriptor.spec.first_slot_id, commit, read),
        ("commit_index", read, write, commit),
        ("write_index", commit, commit_later.saturating_add(slots).min(MAX_SLOT_ID), write),
    ];
    for (field, lowest, highest, found) in bounds {
        if found < lowest || found > highest {
            return Err(AttachError::Corrupt(Mismatch::range(field, lowest, highest, found)));
        }
    }
    for (index, record) in (0..).zip(views.slot_records.iter()) {
        // Relaxed: only its validity matters.
        let word = record.u64::<{ offset_of!(SlotRecord, ctl) }>().load(Ordering::Relaxed);
        if word & STATE_BITS > HIGHEST_STATE {
            let fault = Mismatch::range("slot state", 0, HIGHEST_STATE, word & STATE_BITS);
            return Err(AttachError::Corrupt(fault.at(index)));
        }
    }
    Ok(())
}

/// Counts a refusal where everybody can see it.
fn count_rejection(region: &GuardedRegion, descriptor: &Descriptor, error: &AttachError) {
    let Ok(metrics) = region.record_mut::<4096>(descriptor.geometry.metrics().offset) else {
        return;
    };
    let metrics = metrics.row();
    // Relaxed: counters order nothing.
    metrics.u64::<{ offset_of!(MetricsPage, attach_rejections) }>().fetch_add(1, Ordering::Relaxed);
    if matches!(error, AttachError::SchemaMismatch(_)) {
        metrics.u64::<{ offset_of!(MetricsPage, schema_mismatch_count) }>().fetch_add(1, Ordering::Relaxed);
    }
}

pub(super) const INIT_STATE: u64 = DESCRIPTOR_LEN as u64 + offset_of!(ControlPage, init_state) as u64;
const STATE_BITS: u64 = 7;
/// QUARANTINED.
const HIGHEST_STATE: u64 = 4;
const POLL: Duration = Duration::from_millis(1);
