//! Descriptors of blocks: a good one of some kind with bytes changed and the digest made anew. What is accepted is what a creator
//! would have written, byte for byte, and its regions lie one behind the other in the object.

#![no_main]

use std::{mem::offset_of, sync::LazyLock};

use blake2::{Blake2b, Digest, digest::consts::U32};
use tidegate_hub::layout::{
    AreaCopy, Birth, BlockSpec, BlockUuid, ChannelName, DESCRIPTOR_LEN, DigestAlg, DigestPolicy, FeatureUse,
    Features, LAYOUT_MINOR, PageMode, Policy, REGION_NAMES, SchemaInfo, Secret, SecurityLevel, ZoneSpec,
    decode, encode,
    pages::{HeaderPage, IdentityPage},
};
use tidegate_shm::{clock::Nanos, host::HostId};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((&choice, changes)) = input.split_first() else { return };
    let mut area = GOOD[usize::from(choice) % GOOD.len()].clone();
    for change in changes.as_chunks::<3>().0 {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]]));
        if let Some(byte) = area.descriptor.get_mut(at) {
            *byte = change[2];
        } else if let Some(byte) = area.schema.get_mut(at - DESCRIPTOR_LEN) {
            *byte = change[2];
        }
    }
    // Else the header alone has changed.
    if choice & 0x80 != 0 {
        area.object_size = u64::from_le_bytes(field(&area, offset_of!(HeaderPage, total_size)));
    }
    seal(&mut area);
    let Ok(descriptor) = decode(&area, FeatureUse::TakePart) else { return };
    assert_eq!(decode(&area, FeatureUse::ReadOnly).as_ref(), Ok(&descriptor));
    let geometry = &descriptor.geometry;
    assert_eq!(geometry.total_size, area.object_size);
    let mut end = DESCRIPTOR_LEN as u64;
    // The shared region holds others.
    for (_, region) in REGION_NAMES.iter().zip(&geometry.regions).filter(|(name, _)| **name != "shared") {
        assert!(region.offset >= end, "{geometry:?}");
        end = region.offset.checked_add(region.len).expect("a region ends");
    }
    assert!(end <= geometry.total_size, "{geometry:?}");
    let is_ours = descriptor.layout_minor == LAYOUT_MINOR && descriptor.features == Features::default();
    if !is_ours || descriptor.spec.security != SecurityLevel::None {
        return;
    }
    let birth = Birth {
        uuid: descriptor.uuid,
        salt: descriptor.salt,
        host: descriptor.host,
        monotonic: descriptor.created_monotonic,
        realtime: descriptor.created_realtime,
        page_mode: descriptor.page_mode,
        page_size: descriptor.page_size,
    };
    let again = encode(&descriptor.spec, &birth, None).expect("a creator could have made it");
    assert_eq!(again.descriptor, area.descriptor);
    assert_eq!(again.geometry, *geometry);
});

static GOOD: LazyLock<[AreaCopy; 4]> = LazyLock::new(|| {
    let channel = || ChannelName::new("camera.left").expect("a name");
    let ring = || BlockSpec::ring(channel(), 8, 4096);
    let texts = SchemaInfo {
        slot_hash: [8; 32],
        version: (2, 1),
        struct_size: 4000,
        struct_align: 8,
        text: "tds1 one\ntds1 two\n".to_owned(),
    };
    let zones = ["calibration", "exposure"].map(|name| ZoneSpec {
        text_index: Some(1),
        lock: Some(0),
        consumer_writable: true,
        ..ZoneSpec::untyped(name, 256)
    });
    [
        ring(),
        BlockSpec { zones: zones.into(), schema: texts, first_slot_id: 77, ..ring() },
        BlockSpec { policy: Policy::DoubleBuffer, slot_count: 2, ..ring() },
        BlockSpec {
            security: SecurityLevel::AuthenticatedSlots,
            digest_alg: DigestAlg::KeyedBlake3,
            digest_policy: DigestPolicy::Enforced,
            ..ring()
        },
    ]
    .map(|spec| made(&spec))
});

/// What an attacher reads of a block that was just made.
fn made(spec: &BlockSpec) -> AreaCopy {
    let birth = Birth {
        uuid: BlockUuid::new([3; 16]).expect("not zero"),
        salt: [4; 16],
        host: HostId { boot_id: [1; 16], pid_namespace: 2, time_namespace: 3 },
        monotonic: Nanos(10),
        realtime: Nanos(20),
        page_mode: PageMode::Base,
        page_size: 4096,
    };
    let secret = (spec.security != SecurityLevel::None).then(|| Secret::new(&[6; 32]).expect("long enough"));
    let encoded = encode(spec, &birth, secret.as_ref()).expect("a good one");
    let mut schema = spec.schema.text.clone().into_bytes();
    schema.resize(encoded.geometry.schema().len as usize, 0);
    AreaCopy { descriptor: encoded.descriptor, schema, object_size: encoded.geometry.total_size }
}

/// Puts the digest that belongs to the bytes, which no change would meet by chance.
fn seal(area: &mut AreaCopy) {
    let at = size_of::<HeaderPage>() + offset_of!(IdentityPage, descriptor_digest);
    let len = u32::from_le_bytes(field(area, offset_of!(HeaderPage, schema_text_len))) as usize;
    let text = area.schema.get(..len).unwrap_or(&area.schema);
    let digest = Blake2b::<U32>::new().chain_update(&area.descriptor[..at]).chain_update(text).finalize();
    area.descriptor[at..][..digest.len()].copy_from_slice(&digest);
}

fn field<const LEN: usize>(area: &AreaCopy, at: usize) -> [u8; LEN] {
    *area.descriptor[at..].first_chunk().expect("a field of the header")
}
