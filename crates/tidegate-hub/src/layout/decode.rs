//! From the bytes of area D, which are hostile, to a checked [`Descriptor`]: steps 3 to 13 of attaching (DH-021).

use tidegate_shm::{clock::Nanos, host::HostId};
use zerocopy::IntoBytes;

use super::{
    BlockSpec, BlockUuid, CONTROL_OFF, ChannelName, DESCRIPTOR_LEN, Descriptor, DigestAlg, DigestPolicy,
    ENDIAN_TAG, Features, Geometry, Identity, LAYOUT_MAJOR, LAYOUT_MINOR, LINE, LOCKS, MAGIC,
    MAX_SCHEMA_TEXT, MAX_ZONES, MIN_SUPPORTED_MAJOR, Mismatch, NO_INDEX, OnHeld, Orphan, Overflow, PageMode,
    Policy, REGION_NAMES, SchemaInfo, Secret, SecurityLevel, SyncPolicy, ZONE_CONSUMER_WRITABLE, ZoneSpec,
    encode::{DIGEST_AT, KDF, zones_hash},
    pages::{AreaD, HeaderPage, IdentityPage, ZoneEntry},
    secret::{KeyId, hash, same_tag},
    shape::Shape,
};

/// What the block will be used for, as far as feature bits care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeatureUse {
    /// Looking only.
    ReadOnly,
    /// Taking part.
    TakePart,
}

/// Why a descriptor was refused, by the first step that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// Step 3.
    #[error("it begins with {found:02x?} instead of {MAGIC:02x?}: not a data block")]
    BadMagic {
        /// The first bytes.
        found: [u8; 8],
    },
    /// Step 4.
    #[error(
        "its endian tag is {found:#010x}, expected {ENDIAN_TAG:#010x}: made on a machine of another byte order"
    )]
    BadEndian {
        /// The tag.
        found: u32,
    },
    /// Step 5.
    #[error("it has layout {major}.{minor}, supported is up to {LAYOUT_MAJOR}.x; upgrade this program")]
    VersionTooNew {
        /// Major version found.
        major: u16,
        /// Minor version found.
        minor: u16,
    },
    /// Step 5.
    #[error(
        "it has layout {major}.{minor}, supported is from {MIN_SUPPORTED_MAJOR}.0 on; upgrade the producer"
    )]
    VersionTooOld {
        /// Major version found.
        major: u16,
        /// Minor version found.
        minor: u16,
    },
    /// Step 6.
    #[error(
        "it uses features this program does not know, bits {unknown:#x} of {field}; upgrade this program"
    )]
    UnknownFeature {
        /// Which set of features.
        field: &'static str,
        /// The unknown bits.
        unknown: u64,
    },
    /// Step 7 or 12.
    #[error("damaged header: {0}")]
    BadHeader(Mismatch),
    /// Step 8.
    #[error("its header says {header} bytes, the object has {object}; it was cut or is damaged")]
    SizeMismatch {
        /// `total_size`.
        header: u64,
        /// Size of the object.
        object: u64,
    },
    /// Step 9.
    #[error("impossible policy: {0}")]
    BadPolicy(Mismatch),
    /// Step 10.
    #[error("impossible size: {0}")]
    BadGeometry(Mismatch),
    /// Step 11.
    #[error("impossible layout: {0}")]
    BadLayout(Mismatch),
    /// Step 13.
    #[error("its descriptor does not have the digest it should have; it is damaged or was changed")]
    BadDescriptorDigest,
}

impl LayoutError {
    /// The code of annex B.
    pub fn code(&self) -> u16 {
        match self {
            Self::BadMagic { .. } => 102,
            Self::BadEndian { .. } => 103,
            Self::VersionTooNew { .. } => 104,
            Self::VersionTooOld { .. } => 105,
            Self::UnknownFeature { .. } => 106,
            Self::BadHeader(_) => 107,
            Self::SizeMismatch { .. } => 108,
            Self::BadPolicy(_) => 109,
            Self::BadGeometry(_) => 110,
            Self::BadLayout(_) => 111,
            Self::BadDescriptorDigest => 112,
        }
    }
}

/// A private copy of area D and the size of the object it was read from.
#[derive(Debug, Clone)]
pub struct AreaCopy {
    /// Header page and zone and identity page.
    pub descriptor: Box<[u8; DESCRIPTOR_LEN]>,
    /// What follows the control page, as much of it as the longest schema text takes or the object has.
    pub schema: Vec<u8>,
    /// Bytes of the object.
    pub object_size: u64,
}

impl AreaCopy {
    /// Bytes of `schema` worth reading.
    pub const MAX_SCHEMA: usize = MAX_SCHEMA_TEXT as usize;

    /// Whether the tag of the descriptor is the one that `secret` makes (step 16). For a copy that was decoded.
    pub fn has_tag_of(&self, secret: &Secret, descriptor: &Descriptor) -> bool {
        let mut area: AreaD = zerocopy::transmute!(*self.descriptor);
        let found = std::mem::take(&mut area.header.attach_tag);
        let untagged = area.as_bytes();
        let expected = secret.attach_tag(
            &descriptor.uuid,
            descriptor.spec.key_epoch,
            &descriptor.salt,
            &untagged[..DIGEST_AT],
            descriptor.spec.schema.text.as_bytes(),
        );
        same_tag(&found, &expected)
    }
}

/// Checks a copy of area D completely; nothing of the block may be used before.
///
/// # Errors
/// The first step that fails, with the field, what was expected, and what was found.
pub fn decode(area: &AreaCopy, purpose: FeatureUse) -> Result<Descriptor, LayoutError> {
    let AreaD { header, identity } = zerocopy::transmute!(*area.descriptor);
    check_format(&header, purpose)?;
    check_constants(&header)?;
    let total_size = header.total_size.get();
    if total_size != area.object_size {
        return Err(LayoutError::SizeMismatch { header: total_size, object: area.object_size });
    }
    let choices = Choices::of(&header)?;
    let zone_count = header.zone_count.get();
    let Some(zones) = identity.zones.get(..zone_count as usize) else {
        let fault = Mismatch::range("zone_count", 0, MAX_ZONES as u64, zone_count.into());
        return Err(LayoutError::BadGeometry(fault));
    };
    let shape = choices.shape(&header, zones);
    first(shape.policy_faults(), LayoutError::BadPolicy)?;
    first(shape.size_faults(), LayoutError::BadGeometry)?;
    let geometry = shape.geometry().map_err(LayoutError::BadGeometry)?;
    check_layout(&header, zones, &geometry)?;
    let schema = area.schema.get(..geometry.schema().len as usize).unwrap_or(&area.schema);
    let Some((text, padding)) = schema.split_at_checked(shape.schema_text_len as usize) else {
        // The object was cut after its size was asked for.
        let object = CONTROL_OFF.saturating_add(area.schema.len() as u64);
        return Err(LayoutError::SizeMismatch { header: total_size, object });
    };
    // Later minor versions may use what is reserved today (DH-295); the digest covers it in any case.
    let is_newer = header.layout_minor.get() > LAYOUT_MINOR;
    if !is_newer {
        check_reserved(&header, &identity, padding)?;
    }
    let spec = spec(&header, &identity, zones, text, &choices)?;
    let uuid = check_identity(&header, &identity, &spec)?;
    if hash(&[&area.descriptor[..DIGEST_AT], text]) != identity.descriptor_digest {
        return Err(LayoutError::BadDescriptorDigest);
    }
    Ok(Descriptor {
        uuid,
        layout_minor: header.layout_minor.get(),
        features: Features {
            incompat: header.features_incompat.get(),
            ro_compat: header.features_ro_compat.get(),
            compat: header.features_compat.get(),
        },
        spec,
        host: HostId {
            boot_id: header.boot_id,
            pid_namespace: header.pidns_inode.get(),
            time_namespace: header.timens_inode.get(),
        },
        created_monotonic: Nanos(header.created_mono_ns.get()),
        created_realtime: Nanos(header.created_realtime_ns.get()),
        page_mode: choices.page_mode,
        page_size: shape.page_size,
        geometry,
        key_id: KeyId(header.key_id),
        salt: header.salt,
        digest: identity.descriptor_digest,
    })
}

/// Steps 3 to 6: whether the rest can be understood at all.
fn check_format(header: &HeaderPage, purpose: FeatureUse) -> Result<(), LayoutError> {
    if header.magic != MAGIC {
        return Err(LayoutError::BadMagic { found: header.magic });
    }
    let found = header.endian_tag.get();
    if found != ENDIAN_TAG {
        return Err(LayoutError::BadEndian { found });
    }
    let (major, minor) = (header.layout_major.get(), header.layout_minor.get());
    if major > LAYOUT_MAJOR {
        return Err(LayoutError::VersionTooNew { major, minor });
    }
    if major < MIN_SUPPORTED_MAJOR {
        return Err(LayoutError::VersionTooOld { major, minor });
    }
    let unknown = header.features_incompat.get() & !KNOWN_INCOMPAT;
    if unknown != 0 {
        return Err(LayoutError::UnknownFeature { field: "features_incompat", unknown });
    }
    let unknown = header.features_ro_compat.get() & !KNOWN_RO_COMPAT;
    if unknown != 0 && purpose == FeatureUse::TakePart {
        return Err(LayoutError::UnknownFeature { field: "features_ro_compat", unknown });
    }
    Ok(())
}

/// Step 7.
fn check_constants(header: &HeaderPage) -> Result<(), LayoutError> {
    let constants = [
        ("descriptor_len", DESCRIPTOR_LEN as u64, header.descriptor_len.get()),
        ("control_off", CONTROL_OFF, header.control_off.get()),
        ("line_size", LINE as u64, header.line_size.get()),
        ("lock_count", LOCKS.into(), header.lock_count.get()),
        ("kdf", KDF.into(), header.kdf.into()),
    ];
    for (field, expected, found) in constants {
        if u64::from(found) != expected {
            return Err(LayoutError::BadHeader(Mismatch::value(field, expected, found.into())));
        }
    }
    if header.key_epoch.get() == 0 {
        return Err(LayoutError::BadHeader(Mismatch::range("key_epoch", 1, u32::MAX.into(), 0)));
    }
    Ok(())
}

/// The coded bytes of the header page.
struct Choices {
    policy: Policy,
    sync: SyncPolicy,
    overflow: Overflow,
    orphan: Orphan,
    on_held: OnHeld,
    digest_alg: DigestAlg,
    digest_policy: DigestPolicy,
    page_mode: PageMode,
    security: SecurityLevel,
}

impl Choices {
    /// The first half of step 9: every code means something.
    fn of(header: &HeaderPage) -> Result<Self, LayoutError> {
        fn known<T>(field: &'static str, max: u8, code: u8, value: Option<T>) -> Result<T, LayoutError> {
            value.ok_or(LayoutError::BadPolicy(Mismatch::range(field, 0, max.into(), code.into())))
        }
        macro_rules! choice {
            ($field:ident, $type:ty) => {
                known(
                    stringify!($field),
                    <$type>::MAX_CODE,
                    header.$field,
                    <$type>::from_code(header.$field),
                )?
            };
        }
        Ok(Self {
            policy: choice!(policy, Policy),
            sync: choice!(sync, SyncPolicy),
            overflow: choice!(overflow, Overflow),
            orphan: choice!(orphan, Orphan),
            on_held: choice!(on_held, OnHeld),
            digest_alg: choice!(digest_alg, DigestAlg),
            digest_policy: choice!(digest_policy, DigestPolicy),
            page_mode: choice!(page_mode, PageMode),
            security: choice!(security_level, SecurityLevel),
        })
    }

    fn shape(&self, header: &HeaderPage, zones: &[ZoneEntry]) -> Shape {
        Shape {
            policy: self.policy,
            sync: self.sync,
            overflow: self.overflow,
            on_held: self.on_held,
            digest_alg: self.digest_alg,
            digest_policy: self.digest_policy,
            security: self.security,
            page_mode: self.page_mode,
            page_size: header.page_size.get(),
            slot_count: header.slot_count.get(),
            slot_size: header.slot_size.get(),
            max_consumers: header.max_consumers.get(),
            zone_sizes: zones.iter().map(|zone| zone.size.get()).collect(),
            zone_locks: zones.iter().map(|zone| index(zone.lock_index.get())).collect(),
            first_slot_id: header.first_slot_id.get(),
            struct_size: header.slot_struct_size.get(),
            struct_align: header.slot_struct_align.get(),
            schema_text_len: header.schema_text_len.get(),
        }
    }
}

/// Step 11: the region table and the zones lie where they have to.
fn check_layout(header: &HeaderPage, zones: &[ZoneEntry], geometry: &Geometry) -> Result<(), LayoutError> {
    let stride = header.slot_stride.get();
    let bad = |fault| Err(LayoutError::BadLayout(fault));
    if stride != geometry.slot_stride {
        return bad(Mismatch::value("slot_stride", geometry.slot_stride, stride));
    }
    for ((name, entry), expected) in REGION_NAMES.into_iter().zip(&header.regions).zip(&geometry.regions) {
        for (found, expected) in [(entry.offset.get(), expected.offset), (entry.len.get(), expected.len)] {
            if found != expected {
                return bad(Mismatch::value(name, expected, found));
            }
        }
    }
    for (index, (zone, &expected)) in (0..).zip(zones.iter().zip(&geometry.zone_offsets)) {
        if zone.offset.get() != expected {
            return bad(Mismatch::value("zone offset", expected, zone.offset.get()).at(index));
        }
    }
    let total = header.total_size.get();
    if total != geometry.total_size {
        return bad(Mismatch::value("total_size", geometry.total_size, total));
    }
    Ok(())
}

/// Step 12: what has no meaning is zero (DH-013).
fn check_reserved(header: &HeaderPage, identity: &IdentityPage, padding: &[u8]) -> Result<(), LayoutError> {
    let count = header.zone_count.get() as usize;
    let (used, unused) = identity.zones.split_at_checked(count).unwrap_or((&identity.zones, &[]));
    let mut ranges: Vec<(&'static str, &[u8])> = vec![
        ("reserved at 0x0b0", &header.reserved_0b0),
        ("reserved at 0x170", &header.reserved_170),
        ("reserved at 0x182", &header.reserved_182),
        ("reserved at 0x210", &header.reserved_210),
        ("reserved at 0x19e0", &identity.reserved_9e0),
        ("unused zone descriptors", unused.as_bytes()),
        ("padding of the schema text", padding),
    ];
    ranges.extend(used.iter().map(|zone| ("reserved in a zone descriptor", zone.reserved.as_slice())));
    if header.security_level == SecurityLevel::None.code() {
        ranges.push(("attach_tag at security level 0", &header.attach_tag));
        ranges.push(("key_id at security level 0", &header.key_id));
    }
    for (field, bytes) in ranges {
        if let Some((index, byte)) = (0..).zip(bytes).find(|(_, byte)| **byte != 0) {
            return Err(LayoutError::BadHeader(Mismatch::value(field, 0, (*byte).into()).at(index)));
        }
    }
    for (index, zone) in (0..).zip(used) {
        let flags = zone.flags.get();
        if flags & !ZONE_CONSUMER_WRITABLE != 0 {
            let fault = Mismatch::range("zone flags", 0, ZONE_CONSUMER_WRITABLE.into(), flags.into());
            return Err(LayoutError::BadHeader(fault.at(index)));
        }
    }
    Ok(())
}

/// Step 12: texts are texts, and everything else is taken over.
fn spec(
    header: &HeaderPage,
    identity: &IdentityPage,
    zones: &[ZoneEntry],
    text: &[u8],
    choices: &Choices,
) -> Result<BlockSpec, LayoutError> {
    let channel = padded_text("channel_name", &identity.channel_name)?;
    let channel = ChannelName::new(&channel).map_err(|_| {
        let rule = "1 to 127 characters of a-z, 0-9, '.', '_', '-', beginning with a letter or digit";
        LayoutError::BadHeader(Mismatch::rule("channel_name", rule, channel.len() as u64))
    })?;
    let text = std::str::from_utf8(text).map_err(|error| {
        LayoutError::BadHeader(Mismatch::rule("schema text", "UTF-8", error.valid_up_to() as u64))
    })?;
    Ok(BlockSpec {
        channel,
        policy: choices.policy,
        sync: choices.sync,
        overflow: choices.overflow,
        orphan: choices.orphan,
        on_held: choices.on_held,
        digest_alg: choices.digest_alg,
        digest_policy: choices.digest_policy,
        slot_count: header.slot_count.get(),
        slot_size: header.slot_size.get(),
        max_consumers: header.max_consumers.get(),
        zones: zones.iter().map(zone_spec).collect::<Result<_, _>>()?,
        first_slot_id: header.first_slot_id.get(),
        security: choices.security,
        key_epoch: header.key_epoch.get(),
        schema: SchemaInfo {
            slot_hash: header.slot_schema_hash,
            version: (header.schema_major.get(), header.schema_minor.get()),
            struct_size: header.slot_struct_size.get(),
            struct_align: header.slot_struct_align.get(),
            text: text.to_owned(),
        },
        identity: Identity {
            hub_uid: padded_text("hub_uid", &identity.hub_uid)?,
            hub_name: padded_text("hub_name", &identity.hub_name)?,
            producer_uid: padded_text("producer_uid", &identity.producer_uid)?,
            producer_name: padded_text("producer_name", &identity.producer_name)?,
        },
        predecessor: BlockUuid::new(identity.predecessor_uuid).ok(),
    })
}

fn zone_spec(entry: &ZoneEntry) -> Result<ZoneSpec, LayoutError> {
    Ok(ZoneSpec {
        name: padded_text("zone name", &entry.name)?,
        size: entry.size.get(),
        schema_hash: entry.schema_hash,
        version: (entry.major.get(), entry.minor.get()),
        text_index: index(entry.text_index.get()),
        lock: index(entry.lock_index.get()),
        consumer_writable: entry.flags.get() & ZONE_CONSUMER_WRITABLE != 0,
    })
}

/// An index that may be missing.
fn index(value: u32) -> Option<u32> {
    (value != NO_INDEX).then_some(value)
}

/// Step 12: values that follow from others do.
fn check_identity(
    header: &HeaderPage,
    identity: &IdentityPage,
    spec: &BlockSpec,
) -> Result<BlockUuid, LayoutError> {
    let bad = |field, rule, found| Err(LayoutError::BadHeader(Mismatch::rule(field, rule, found)));
    let Ok(uuid) = BlockUuid::new(header.block_uuid) else {
        return bad("block_uuid", "not zero", 0);
    };
    if padded_text("shm_name", &identity.shm_name)? != spec.channel.file_name(&uuid) {
        let first = u64::from_le_bytes(*identity.shm_name.first_chunk().unwrap_or(&[0; 8]));
        return bad("shm_name", "the name that follows from channel and block_uuid", first);
    }
    if header.zones_schema_hash != zones_hash(&spec.zones) {
        let first = u64::from_le_bytes(*header.zones_schema_hash.first_chunk().unwrap_or(&[0; 8]));
        return bad("zones_schema_hash", "the hash over the hashes of all zones", first);
    }
    Ok(uuid)
}

/// A text that ends at the first NUL, with nothing but NULs after it.
fn padded_text(field: &'static str, bytes: &[u8]) -> Result<String, LayoutError> {
    let len = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    let (text, padding) = bytes.split_at_checked(len).unwrap_or((bytes, &[]));
    match std::str::from_utf8(text) {
        Ok(text) if padding.iter().all(|&byte| byte == 0) => Ok(text.to_owned()),
        _ => Err(LayoutError::BadHeader(Mismatch::rule(field, "UTF-8 padded with NUL", len as u64))),
    }
}

fn first(faults: Vec<Mismatch>, error: fn(Mismatch) -> LayoutError) -> Result<(), LayoutError> {
    faults.first().map_or(Ok(()), |fault| Err(error(*fault)))
}

/// No such features exist so far.
const KNOWN_INCOMPAT: u64 = 0;
const KNOWN_RO_COMPAT: u64 = 0;
