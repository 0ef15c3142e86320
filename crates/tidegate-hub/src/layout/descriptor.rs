//! What a block is: the values of area D as private, checked copies.

use std::fmt;

use tidegate_shm::{clock::Nanos, host::HostId};

use super::{
    ChannelName, DigestAlg, DigestPolicy, Geometry, Mismatch, OnHeld, Orphan, Overflow, PageMode, Policy,
    SecurityLevel, SyncPolicy, secret::KeyId, shape::Shape,
};

/// Names one block for ever; random, not zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockUuid([u8; 16]);

impl BlockUuid {
    /// Takes 16 bytes that are not all zero.
    ///
    /// # Errors
    /// They are.
    pub fn new(bytes: [u8; 16]) -> Result<Self, InvalidUuid> {
        if bytes == [0; 16] { Err(InvalidUuid) } else { Ok(Self(bytes)) }
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for BlockUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for BlockUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlockUuid({self})")
    }
}

/// Sixteen zero bytes name no block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("sixteen zero bytes name no block")]
pub struct InvalidUuid;

/// What the creator decides about a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockSpec {
    /// The channel it belongs to.
    pub channel: ChannelName,
    /// How many slots, and how they are used.
    pub policy: Policy,
    /// Which values consumers see.
    pub sync: SyncPolicy,
    /// What a full ring does.
    pub overflow: Overflow,
    /// What a full ring without consumers does.
    pub orphan: Orphan,
    /// What happens to a slot that is being read.
    pub on_held: OnHeld,
    /// How slots are hashed.
    pub digest_alg: DigestAlg,
    /// Who makes digests.
    pub digest_policy: DigestPolicy,
    /// 1 for [`Policy::Single`], 2 for [`Policy::DoubleBuffer`], otherwise 2 to 2^20.
    pub slot_count: u32,
    /// Bytes of a slot, 1 to 2^32.
    pub slot_size: u64,
    /// Rows of the consumer table, 1 to 32.
    pub max_consumers: u32,
    /// At most 16.
    pub zones: Vec<ZoneSpec>,
    /// The first id written.
    pub first_slot_id: u64,
    /// What the secret protects.
    pub security: SecurityLevel,
    /// Epoch of the secret, from 1 on.
    pub key_epoch: u32,
    /// What a slot contains.
    pub schema: SchemaInfo,
    /// Who made it.
    pub identity: Identity,
    /// The block it took over from.
    pub predecessor: Option<BlockUuid>,
}

impl BlockSpec {
    /// An untyped ring for up to 8 consumers, each of which reads every value, without digests of its own accord, zones or secrets: a
    /// producer waits while it is full, and keeps what is in it when nobody reads.
    pub fn ring(channel: ChannelName, slot_count: u32, slot_size: u64) -> Self {
        Self {
            channel,
            policy: Policy::RingBuffer,
            sync: SyncPolicy::AllReaders,
            overflow: Overflow::Block,
            orphan: Orphan::Retain,
            on_held: OnHeld::Wait,
            digest_alg: DigestAlg::Blake3,
            digest_policy: DigestPolicy::Manual,
            slot_count,
            slot_size,
            max_consumers: 8,
            zones: Vec::new(),
            first_slot_id: 0,
            security: SecurityLevel::None,
            key_epoch: 1,
            schema: SchemaInfo::default(),
            identity: Identity::default(),
            predecessor: None,
        }
    }
}

/// A flexible zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneSpec {
    /// At most 32 bytes.
    pub name: String,
    /// Bytes, 1 to 16 MiB.
    pub size: u64,
    /// Zero: untyped.
    pub schema_hash: [u8; 32],
    /// Version of the schema, major and minor.
    pub version: (u16, u16),
    /// Line in the schema text.
    pub text_index: Option<u32>,
    /// Its lock.
    pub lock: Option<u32>,
    /// Whether consumers may write it (DH-139).
    pub consumer_writable: bool,
}

impl ZoneSpec {
    /// An untyped zone without a lock, which only the producer writes.
    pub fn untyped(name: &str, size: u64) -> Self {
        Self {
            name: name.to_owned(),
            size,
            schema_hash: [0; 32],
            version: (0, 0),
            text_index: None,
            lock: None,
            consumer_writable: false,
        }
    }
}

/// What slots contain.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SchemaInfo {
    /// Hash of the slot schema; zero: untyped.
    pub slot_hash: [u8; 32],
    /// Version of the slot schema, major and minor.
    pub version: (u16, u16),
    /// Bytes of the slot type, 0 if untyped.
    pub struct_size: u32,
    /// Its alignment, 0 if untyped.
    pub struct_align: u32,
    /// The canonical texts, one a line.
    pub text: String,
}

/// Who made the block, for people and for the broker.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// At most 40 bytes.
    pub hub_uid: String,
    /// At most 64 bytes.
    pub hub_name: String,
    /// At most 40 bytes.
    pub producer_uid: String,
    /// At most 64 bytes.
    pub producer_name: String,
}

/// A complete description of one block, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// Names the block.
    pub uuid: BlockUuid,
    /// Minor version of the layout it was written with.
    pub layout_minor: u16,
    /// Feature bits.
    pub features: Features,
    /// What the creator decided.
    pub spec: BlockSpec,
    /// Boot and namespaces of the creator.
    pub host: HostId,
    /// Monotonic clock at creation.
    pub created_monotonic: Nanos,
    /// Wall clock at creation.
    pub created_realtime: Nanos,
    /// What pages it lies in.
    pub page_mode: PageMode,
    /// Bytes of a page.
    pub page_size: u32,
    /// Where everything lies.
    pub geometry: Geometry,
    /// Names the secret, if there is one.
    pub key_id: KeyId,
    /// Random bytes under the tag.
    pub salt: [u8; 16],
    /// Hash over the whole descriptor.
    pub digest: [u8; 32],
}

/// Feature bits of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Features {
    /// Whoever does not know them must not use the block.
    pub incompat: u64,
    /// Whoever does not know them may only look.
    pub ro_compat: u64,
    /// Whoever does not know them need not care.
    pub compat: u64,
}

impl Descriptor {
    /// Name of the file of the block.
    pub fn file_name(&self) -> String {
        self.spec.channel.file_name(&self.uuid)
    }
}

impl BlockSpec {
    /// Every value that is out of range or does not go with another one (DH-085, DH-095). Empty means valid.
    pub fn faults(&self, page_mode: PageMode, page_size: u32) -> Vec<Mismatch> {
        let shape = self.shape(page_mode, page_size);
        let mut faults = shape.policy_faults();
        faults.extend(shape.size_faults());
        faults.extend(self.text_faults());
        if self.key_epoch == 0 {
            faults.push(Mismatch::range("key_epoch", 1, u32::MAX.into(), 0));
        }
        faults
    }

    /// The layout of a block with these values.
    ///
    /// # Errors
    /// The first size that is out of range.
    pub fn geometry(&self, page_size: u32) -> Result<Geometry, Mismatch> {
        self.shape(PageMode::Base, page_size).geometry()
    }

    fn shape(&self, page_mode: PageMode, page_size: u32) -> Shape {
        Shape {
            policy: self.policy,
            sync: self.sync,
            overflow: self.overflow,
            on_held: self.on_held,
            digest_alg: self.digest_alg,
            digest_policy: self.digest_policy,
            security: self.security,
            page_mode,
            page_size,
            slot_count: self.slot_count,
            slot_size: self.slot_size,
            max_consumers: self.max_consumers,
            zone_sizes: self.zones.iter().map(|zone| zone.size).collect(),
            zone_locks: self.zones.iter().map(|zone| zone.lock).collect(),
            first_slot_id: self.first_slot_id,
            struct_size: self.schema.struct_size,
            struct_align: self.schema.struct_align,
            // A text that is longer than 4 GiB is refused like one of 4 GiB.
            schema_text_len: u32::try_from(self.schema.text.len()).unwrap_or(u32::MAX),
        }
    }

    fn text_faults(&self) -> Vec<Mismatch> {
        let Identity { hub_uid, hub_name, producer_uid, producer_name } = &self.identity;
        let texts = [
            ("hub_uid", hub_uid, 40),
            ("hub_name", hub_name, 64),
            ("producer_uid", producer_uid, 40),
            ("producer_name", producer_name, 64),
        ];
        let zones = self.zones.iter().map(|zone| ("zone name", &zone.name, 32));
        let all = texts.into_iter().chain(zones);
        let too_long = all.filter(|(_, text, limit)| text.len() > *limit || text.contains('\0'));
        too_long
            .map(|(field, text, limit)| {
                let rule = match limit {
                    32 => "at most 32 bytes without NUL",
                    40 => "at most 40 bytes without NUL",
                    _ => "at most 64 bytes without NUL",
                };
                Mismatch::rule(field, rule, text.len() as u64)
            })
            .collect()
    }
}
