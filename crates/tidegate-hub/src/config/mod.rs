//! What channels are made with and attached for (6.2, 6.3), checked in one place before anything is made (DH-095).

mod consumer;
mod fault;
mod presets;
mod timeouts;

use std::{num::NonZeroU32, path::PathBuf, time::Duration};

pub use consumer::{ConsumerConfig, CorruptionRecovery, OnReadError};
pub use fault::{ConfigInvalid, Fault};
pub use timeouts::{HubTimeouts, Timeout};

use crate::{
    block::{CreateOptions, DEFAULT_DIR, HugePages, Trust},
    layout::{
        BlockSpec, BlockUuid, ChannelName, DEFAULT_CONSUMERS, DigestAlg, DigestPolicy, Identity, OnHeld,
        Orphan, Overflow, PageMode, Policy, SchemaInfo, Secret, SecurityLevel, SyncPolicy, ZONE_LOCKS,
        ZoneSpec,
    },
    schema::{HubPod, HubSchema, ZoneLayout},
};
pub use crate::{
    core::config::{Stall, WaitStrategy},
    integrity::VerifyAt,
};

/// How many slots there are and how they are used (6.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BufferPolicy {
    /// One slot, overwritten.
    Single,
    /// Two slots: one finished, one being filled.
    DoubleBuffer,
    /// A queue of 2 to 2^20 slots.
    RingBuffer(NonZeroU32),
}

impl BufferPolicy {
    /// A queue of `slots`; a number that no ring can have is found when the configuration is checked.
    pub fn ring(slots: u32) -> Self {
        Self::RingBuffer(NonZeroU32::new(slots).unwrap_or(NonZeroU32::MIN))
    }

    /// Number of slots.
    pub fn slot_count(self) -> u32 {
        match self {
            Self::Single => 1,
            Self::DoubleBuffer => 2,
            Self::RingBuffer(slots) => slots.get(),
        }
    }

    fn code(self) -> Policy {
        match self {
            Self::Single => Policy::Single,
            Self::DoubleBuffer => Policy::DoubleBuffer,
            Self::RingBuffer(_) => Policy::RingBuffer,
        }
    }

    fn default_sync(self) -> SyncPolicy {
        match self {
            Self::Single | Self::DoubleBuffer => SyncPolicy::LatestOnly,
            Self::RingBuffer(_) => SyncPolicy::SingleReader,
        }
    }
}

/// What a producer does when the file of its block exists (DH-017).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfExists {
    /// Fails.
    Fail,
    /// Takes over a block whose writer is dead or left, with its ids; waits for one that lives as long as for the maintenance
    /// lock. Of a block that is over it makes a new one.
    Adopt,
    /// Removes it if writer and consumers are proven dead, and makes a new one.
    ReplaceIfDead,
}

/// How often latencies are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetricsConfig {
    /// Whether performance is measured at all (DH-247).
    pub enabled: bool,
    /// Every so manieth operation is timed; 0: none, 1: all (DH-244).
    pub sample_every: u32,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self { enabled: true, sample_every: 1_000 }
    }
}

/// What a channel is made with.
#[derive(Debug, Clone)]
pub struct HubConfig {
    /// Name of the channel.
    pub channel: ChannelName,
    /// How many slots there are and how they are used.
    pub policy: BufferPolicy,
    /// Which values consumers see.
    pub sync: SyncPolicy,
    /// Bytes of a slot.
    pub slot_size: u64,
    /// What a full ring does.
    pub overflow: Overflow,
    /// What a full ring without consumers does.
    pub orphan: Orphan,
    /// What happens to a slot that is being read; none: as the policies suggest (DH-090).
    pub on_held: Option<OnHeld>,
    /// Rows of the consumer table, 1 to 32.
    pub max_consumers: u32,
    /// Flexible zones.
    pub zones: Vec<ZoneSpec>,
    /// How slots are hashed.
    pub digest_alg: DigestAlg,
    /// Who makes digests.
    pub digest_policy: DigestPolicy,
    /// What the secret protects.
    pub security: SecurityLevel,
    /// The secret, exactly at security levels 1 and 2.
    pub secret: Option<Secret>,
    /// Epoch of the secret.
    pub key_epoch: u32,
    /// What slots contain.
    pub schema: SchemaInfo,
    /// First id; a later block of a channel goes on where the one before ended.
    pub first_slot_id: u64,
    /// The block this one follows.
    pub predecessor: Option<BlockUuid>,
    /// Directory of the blocks.
    pub dir: PathBuf,
    /// A hugetlbfs mount for blocks on huge pages.
    pub huge_dir: Option<PathBuf>,
    /// Permission bits of the file.
    pub mode: u32,
    /// Whose blocks are adopted besides the own ones.
    pub trust: Trust,
    /// Whether huge pages are wanted.
    pub huge_pages: HugePages,
    /// Bytes of slots above which [`HugePages::Auto`] wants them.
    pub huge_page_threshold: u64,
    /// Whether to lock the mapping into memory.
    pub lock_memory: bool,
    /// The block to make or adopt; random when missing.
    pub uuid: Option<BlockUuid>,
    /// What to do when it exists.
    pub if_exists: IfExists,
    /// What the producer does about a consumer that lives and holds a lossless ring back (DH-106).
    pub stall: Stall,
    /// Whether the file is removed when the producer closes the block.
    pub unlink_on_close: bool,
    /// How long consumers may read what is left before a closing block is closed.
    pub close_linger: Duration,
    /// Whether a slot is cleared before it is written (DH-128).
    pub zero_on_acquire: bool,
    /// Whether the process's thread beats for the producer (DH-233).
    pub heartbeat_thread: bool,
    /// How long things may take.
    pub timeouts: HubTimeouts,
    /// How the producer waits.
    pub wait: WaitStrategy,
    /// What is measured.
    pub metrics: MetricsConfig,
    /// Who makes the block.
    pub identity: Identity,
}

impl HubConfig {
    /// A channel of byte slots with the defaults of 6.2. The security level is what the secret allows: 1 with one, 0
    /// without, see [`HubConfig::with_secret`].
    pub fn new(channel: ChannelName, policy: BufferPolicy, slot_size: u64) -> Self {
        Self {
            channel,
            policy,
            sync: policy.default_sync(),
            slot_size,
            overflow: Overflow::Block,
            orphan: Orphan::Retain,
            on_held: None,
            max_consumers: DEFAULT_CONSUMERS,
            zones: Vec::new(),
            digest_alg: DigestAlg::Blake3,
            digest_policy: DigestPolicy::Manual,
            security: SecurityLevel::None,
            secret: None,
            key_epoch: 1,
            schema: SchemaInfo::default(),
            first_slot_id: 0,
            predecessor: None,
            dir: DEFAULT_DIR.into(),
            huge_dir: None,
            mode: 0o600,
            trust: Trust::default(),
            huge_pages: HugePages::Auto,
            huge_page_threshold: 64 << 20,
            lock_memory: false,
            uuid: None,
            if_exists: IfExists::Fail,
            stall: Stall::Wait,
            unlink_on_close: true,
            close_linger: Duration::ZERO,
            zero_on_acquire: false,
            heartbeat_thread: true,
            timeouts: HubTimeouts::default(),
            wait: WaitStrategy::Hybrid,
            metrics: MetricsConfig::default(),
            identity: Identity::default(),
        }
    }

    /// A channel of records.
    pub fn typed<T: HubPod>(channel: ChannelName, policy: BufferPolicy) -> Self {
        let schema = schema_of::<T>();
        Self { schema, ..Self::new(channel, policy, size_of::<T>().max(1) as u64) }
    }

    /// With a secret, which protects attaching (DH-162).
    #[must_use]
    pub fn with_secret(self, secret: Secret) -> Self {
        Self { security: SecurityLevel::AttachTag, secret: Some(secret), ..self }
    }

    /// With one more zone, a `Z` that only the producer writes. The first four have locks of their own (DH-143).
    #[must_use]
    pub fn with_zone<Z: ZoneLayout>(self, name: &str) -> Self {
        self.with_zone_of::<Z>(name, false)
    }

    /// As [`HubConfig::with_zone`], and consumers may write it too (DH-139).
    #[must_use]
    pub fn with_shared_zone<Z: ZoneLayout>(self, name: &str) -> Self {
        self.with_zone_of::<Z>(name, true)
    }

    fn with_zone_of<Z: ZoneLayout>(mut self, name: &str, consumer_writable: bool) -> Self {
        // The first line is that of the slots, empty if they have no type (DH-170).
        self.schema.text.push('\n');
        self.schema.text.push_str(Z::TEXT);
        let lines = self.schema.text.matches('\n').count() as u32;
        let lock = u32::try_from(self.zones.len()).ok().filter(|lock| *lock < ZONE_LOCKS);
        self.zones.push(ZoneSpec {
            schema_hash: *Z::schema_hash().as_bytes(),
            version: (Z::VERSION.major, Z::VERSION.minor),
            text_index: Some(lines),
            lock,
            consumer_writable,
            ..ZoneSpec::untyped(name, size_of::<Z>() as u64)
        });
        self
    }

    /// What happens to a slot that is being read.
    pub fn effective_on_held(&self) -> OnHeld {
        let skips = self.sync == SyncPolicy::LatestOnly && self.policy.slot_count() >= 2;
        self.on_held.unwrap_or(if skips { OnHeld::Skip } else { OnHeld::Wait })
    }

    /// Checks everything.
    ///
    /// # Errors
    /// Every field that is not valid (DH-095).
    pub fn validate(&self) -> Result<(), ConfigInvalid> {
        let page_size = tidegate_shm::host::page_size() as u32;
        let mut faults = self.block_spec().faults(PageMode::Base, page_size);
        faults.extend(self.timeouts.faults());
        let mut faults: Vec<Fault> = faults.into_iter().map(Fault::Value).collect();
        if self.secret.is_some() != (self.security != SecurityLevel::None) {
            faults.push(Fault::Secret { level: self.security });
        }
        if self.if_exists == IfExists::Adopt && self.uuid.is_none() {
            faults.push(Fault::AdoptWithoutUuid);
        }
        if faults.is_empty() { Ok(()) } else { Err(ConfigInvalid { faults }) }
    }

    pub(crate) fn block_spec(&self) -> BlockSpec {
        BlockSpec {
            channel: self.channel.clone(),
            policy: self.policy.code(),
            sync: self.sync,
            overflow: self.overflow,
            orphan: self.orphan,
            on_held: self.effective_on_held(),
            digest_alg: self.digest_alg,
            digest_policy: self.digest_policy,
            slot_count: self.policy.slot_count(),
            slot_size: self.slot_size,
            max_consumers: self.max_consumers,
            zones: self.zones.clone(),
            first_slot_id: self.first_slot_id,
            security: self.security,
            key_epoch: self.key_epoch,
            schema: self.schema.clone(),
            identity: self.identity.clone(),
            predecessor: self.predecessor,
        }
    }

    pub(crate) fn create_options(&self) -> CreateOptions<'_> {
        use crate::block::IfExists as Existing;
        CreateOptions {
            dir: self.dir.clone(),
            huge_dir: self.huge_dir.clone(),
            mode: self.mode,
            uuid: self.uuid,
            secret: self.secret.as_ref(),
            huge_pages: self.huge_pages,
            huge_page_threshold: self.huge_page_threshold,
            lock_memory: self.lock_memory,
            if_exists: match self.if_exists {
                IfExists::ReplaceIfDead => Existing::ReplaceIfDead,
                IfExists::Fail | IfExists::Adopt => Existing::Fail,
            },
        }
    }
}

/// What the descriptor says about slots that hold records of `T`.
pub fn schema_of<T: HubSchema>() -> SchemaInfo {
    SchemaInfo {
        slot_hash: *T::schema_hash().as_bytes(),
        version: (T::VERSION.major, T::VERSION.minor),
        struct_size: size_of::<T>() as u32,
        struct_align: align_of::<T>() as u32,
        text: T::TEXT.to_owned(),
    }
}
