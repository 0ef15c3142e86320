//! From the creator's decisions to the bytes of area D.

use tidegate_shm::{clock::Nanos, host::HostId};
use zerocopy::{FromZeros, IntoBytes, little_endian::U64};

use super::{
    BlockSpec, BlockUuid, DESCRIPTOR_LEN, ENDIAN_TAG, Geometry, LAYOUT_MAJOR, LAYOUT_MINOR, LINE, LOCKS,
    MAGIC, Mismatch, NO_INDEX, PageMode, Secret, SecurityLevel, ZONE_CONSUMER_WRITABLE, ZoneSpec,
    pages::{AreaD, HeaderPage, IdentityPage, RegionEntry, ZoneEntry},
    secret::hash,
};

/// What belongs to one creation and not to the creator's decisions.
#[derive(Debug, Clone, Copy)]
pub struct Birth {
    /// Name of the new block.
    pub uuid: BlockUuid,
    /// Random bytes under the tag.
    pub salt: [u8; 16],
    /// Boot and namespaces of the creator.
    pub host: HostId,
    /// Monotonic clock.
    pub monotonic: Nanos,
    /// Wall clock.
    pub realtime: Nanos,
    /// What pages the block lies in.
    pub page_mode: PageMode,
    /// Bytes of a page.
    pub page_size: u32,
}

/// The bytes of area D and where everything else lies.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// Header page and zone and identity page.
    pub descriptor: Box<[u8; DESCRIPTOR_LEN]>,
    /// Offsets and lengths.
    pub geometry: Geometry,
}

/// Why a descriptor could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// Values out of range or in an illegal combination (DH-095).
    #[error("the configuration of the block is not valid: {}", list(.fields))]
    Invalid {
        /// All of them.
        fields: Vec<Mismatch>,
    },
    /// A secret is needed at this security level, or given where none is used.
    #[error(
        "security level {level} and the secret do not go together; give a secret exactly at levels 1 and 2"
    )]
    Secret {
        /// The level asked for.
        level: SecurityLevel,
    },
}

/// Writes area D of a new block.
///
/// # Errors
/// All values that are not valid, or a secret that is missing.
pub fn encode(spec: &BlockSpec, birth: &Birth, secret: Option<&Secret>) -> Result<Encoded, EncodeError> {
    let fields = spec.faults(birth.page_mode, birth.page_size);
    if !fields.is_empty() {
        return Err(EncodeError::Invalid { fields });
    }
    if secret.is_some() != (spec.security != SecurityLevel::None) {
        return Err(EncodeError::Secret { level: spec.security });
    }
    let geometry =
        spec.geometry(birth.page_size).map_err(|fault| EncodeError::Invalid { fields: vec![fault] })?;
    let header = header_page(spec, birth, &geometry);
    let mut area = AreaD { header, identity: identity_page(spec, birth, &geometry) };
    let text = spec.schema.text.as_bytes();
    if let Some(secret) = secret {
        area.header.key_id = secret.key_id().0;
        let untagged = &area.as_bytes()[..DIGEST_AT];
        area.header.attach_tag = secret.attach_tag(&birth.uuid, spec.key_epoch, &birth.salt, untagged, text);
    }
    area.identity.descriptor_digest = hash(&[&area.as_bytes()[..DIGEST_AT], text]);
    Ok(Encoded { descriptor: Box::new(zerocopy::transmute!(area)), geometry })
}

fn header_page(spec: &BlockSpec, birth: &Birth, geometry: &Geometry) -> HeaderPage {
    let mut page = HeaderPage::new_zeroed();
    page.magic = MAGIC;
    page.endian_tag = ENDIAN_TAG.into();
    page.layout_major = LAYOUT_MAJOR.into();
    page.layout_minor = LAYOUT_MINOR.into();
    page.descriptor_len = (DESCRIPTOR_LEN as u32).into();
    page.control_off = (super::CONTROL_OFF as u32).into();
    page.total_size = geometry.total_size.into();
    page.block_uuid = *birth.uuid.as_bytes();
    page.boot_id = birth.host.boot_id;
    page.pidns_inode = birth.host.pid_namespace.into();
    page.timens_inode = birth.host.time_namespace.into();
    page.created_mono_ns = birth.monotonic.as_u64().into();
    page.created_realtime_ns = birth.realtime.as_u64().into();
    page.policy = spec.policy.code();
    page.sync = spec.sync.code();
    page.overflow = spec.overflow.code();
    page.orphan = spec.orphan.code();
    page.on_held = spec.on_held.code();
    page.digest_alg = spec.digest_alg.code();
    page.digest_policy = spec.digest_policy.code();
    page.page_mode = birth.page_mode.code();
    page.slot_count = spec.slot_count.into();
    page.max_consumers = spec.max_consumers.into();
    page.slot_size = spec.slot_size.into();
    page.slot_stride = geometry.slot_stride.into();
    page.zone_count = (spec.zones.len() as u32).into();
    page.lock_count = LOCKS.into();
    page.page_size = birth.page_size.into();
    page.line_size = (LINE as u32).into();
    page.first_slot_id = spec.first_slot_id.into();
    page.regions = geometry
        .regions
        .map(|extent| RegionEntry { offset: U64::new(extent.offset), len: U64::new(extent.len) });
    page.security_level = spec.security.code();
    page.kdf = KDF;
    page.key_epoch = spec.key_epoch.into();
    page.salt = birth.salt;
    page.slot_schema_hash = spec.schema.slot_hash;
    page.zones_schema_hash = zones_hash(&spec.zones);
    page.schema_major = spec.schema.version.0.into();
    page.schema_minor = spec.schema.version.1.into();
    page.slot_struct_size = spec.schema.struct_size.into();
    page.slot_struct_align = spec.schema.struct_align.into();
    page.schema_text_len = (spec.schema.text.len() as u32).into();
    page
}

fn identity_page(spec: &BlockSpec, birth: &Birth, geometry: &Geometry) -> IdentityPage {
    let mut page = IdentityPage::new_zeroed();
    for ((entry, zone), &offset) in page.zones.iter_mut().zip(&spec.zones).zip(&geometry.zone_offsets) {
        *entry = zone_entry(zone, offset);
    }
    page.channel_name = padded(spec.channel.as_str());
    page.shm_name = padded(&spec.channel.file_name(&birth.uuid));
    page.hub_uid = padded(&spec.identity.hub_uid);
    page.hub_name = padded(&spec.identity.hub_name);
    page.producer_uid = padded(&spec.identity.producer_uid);
    page.producer_name = padded(&spec.identity.producer_name);
    page.predecessor_uuid = spec.predecessor.map_or([0; 16], |uuid| *uuid.as_bytes());
    page
}

fn zone_entry(zone: &ZoneSpec, offset: u64) -> ZoneEntry {
    let mut entry = ZoneEntry::new_zeroed();
    entry.offset = offset.into();
    entry.size = zone.size.into();
    entry.schema_hash = zone.schema_hash;
    entry.lock_index = zone.lock.unwrap_or(NO_INDEX).into();
    entry.flags = if zone.consumer_writable { ZONE_CONSUMER_WRITABLE } else { 0 }.into();
    entry.major = zone.version.0.into();
    entry.minor = zone.version.1.into();
    entry.text_index = zone.text_index.unwrap_or(NO_INDEX).into();
    entry.name = padded(&zone.name);
    entry
}

/// Over the hashes of all zones; zero without zones.
pub(super) fn zones_hash(zones: &[ZoneSpec]) -> [u8; 32] {
    if zones.is_empty() {
        return [0; 32];
    }
    let hashes: Vec<&[u8]> = zones.iter().map(|zone| zone.schema_hash.as_slice()).collect();
    hash(&hashes)
}

/// `text` followed by zeros; checked before to fit.
fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    for (byte, from) in bytes.iter_mut().zip(text.bytes()) {
        *byte = from;
    }
    bytes
}

fn list(fields: &[Mismatch]) -> String {
    fields.iter().map(Mismatch::to_string).collect::<Vec<_>>().join("; ")
}

/// The derivation of keys in chapter 11.5.
pub(super) const KDF: u8 = 1;

/// Where the digest lies in the descriptor: it covers all bytes before itself.
pub(super) const DIGEST_AT: usize =
    size_of::<HeaderPage>() + std::mem::offset_of!(IdentityPage, descriptor_digest);
