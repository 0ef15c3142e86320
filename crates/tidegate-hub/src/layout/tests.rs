//! Descriptors that are right, and descriptors with one thing wrong.

use std::mem::offset_of;

use proptest::prelude::*;
use tidegate_shm::{clock::Nanos, host::HostId};
use zerocopy::IntoBytes;

use super::{
    encode::{Birth, DIGEST_AT},
    pages::{AreaD, HeaderPage, IdentityPage, ZoneEntry},
    secret::hash,
    *,
};

fn spec() -> BlockSpec {
    BlockSpec {
        zones: vec![ZoneSpec {
            schema_hash: [9; 32],
            version: (1, 2),
            text_index: Some(1),
            lock: Some(0),
            consumer_writable: true,
            ..ZoneSpec::untyped("calibration", 256)
        }],
        first_slot_id: 77,
        security: SecurityLevel::AttachTag,
        schema: SchemaInfo {
            slot_hash: [8; 32],
            version: (2, 1),
            struct_size: 4000,
            struct_align: 8,
            text: "tds1 one\ntds1 two\n".to_owned(),
        },
        identity: Identity {
            hub_uid: "hub-1".to_owned(),
            hub_name: "lab".to_owned(),
            producer_uid: "p".repeat(40),
            producer_name: String::new(),
        },
        predecessor: Some(BlockUuid::new([5; 16]).unwrap()),
        ..BlockSpec::ring(ChannelName::new("camera.left").unwrap(), 8, 4096)
    }
}

fn birth() -> Birth {
    Birth {
        uuid: BlockUuid::new([3; 16]).unwrap(),
        salt: [4; 16],
        host: HostId { boot_id: [1; 16], pid_namespace: 2, time_namespace: 3 },
        monotonic: Nanos(10),
        realtime: Nanos(20),
        page_mode: PageMode::Base,
        page_size: 4096,
    }
}

fn secret() -> Secret {
    Secret::new(&[6; 32]).unwrap()
}

/// What an attacher reads from a block made by `spec`.
fn area_of(spec: &BlockSpec) -> AreaCopy {
    let secret = secret();
    let secret = (spec.security != SecurityLevel::None).then_some(&secret);
    let encoded = encode(spec, &birth(), secret).unwrap();
    let mut schema = spec.schema.text.clone().into_bytes();
    schema.resize(encoded.geometry.schema().len as usize, 0);
    AreaCopy { descriptor: encoded.descriptor, schema, object_size: encoded.geometry.total_size }
}

fn code(area: &AreaCopy) -> u16 {
    match decode(area, FeatureUse::TakePart) {
        Ok(_) => 0,
        Err(error) => error.code(),
    }
}

/// Changes a good descriptor, gives it a digest that fits, and returns the code of the error.
fn code_after(change: impl FnOnce(&mut HeaderPage, &mut IdentityPage)) -> u16 {
    let mut area = area_of(&spec());
    reseal(&mut area, change);
    code(&area)
}

fn reseal(area: &mut AreaCopy, change: impl FnOnce(&mut HeaderPage, &mut IdentityPage)) {
    let mut pages: AreaD = zerocopy::transmute!(*area.descriptor);
    change(&mut pages.header, &mut pages.identity);
    let len = (pages.header.schema_text_len.get() as usize).min(area.schema.len());
    let (text, _) = area.schema.split_at(len);
    pages.identity.descriptor_digest = hash(&[&pages.as_bytes()[..DIGEST_AT], text]);
    *area.descriptor = zerocopy::transmute!(pages);
}

/// Rules: DH-009, DH-012.
#[test]
fn what_was_encoded_is_decoded() {
    let descriptor = decode(&area_of(&spec()), FeatureUse::TakePart).unwrap();
    let birth = birth();
    assert_eq!(descriptor.spec, spec());
    assert_eq!((descriptor.uuid, descriptor.salt, descriptor.host), (birth.uuid, birth.salt, birth.host));
    assert_eq!((descriptor.created_monotonic, descriptor.created_realtime), (Nanos(10), Nanos(20)));
    assert_eq!((descriptor.page_mode, descriptor.page_size), (PageMode::Base, 4096));
    assert_eq!(descriptor.geometry, spec().geometry(4096).unwrap());
    assert_eq!(descriptor.key_id, secret().key_id());
    assert_eq!(descriptor.file_name(), "tidegate_camera_left_03030303");

    let plain = BlockSpec {
        security: SecurityLevel::None,
        zones: vec![],
        predecessor: None,
        schema: SchemaInfo::default(),
        ..spec()
    };
    assert_eq!(decode(&area_of(&plain), FeatureUse::TakePart).unwrap().spec, plain);
}

/// L-04: no byte of area D can be changed without being noticed, the padding of the schema text included.
/// Rules: DH-005, DH-013, DH-021, L-04.
#[test]
fn every_single_byte_of_area_d_is_checked() {
    let good = area_of(&spec());
    assert_eq!(code(&good), 0);
    for at in 0..DESCRIPTOR_LEN {
        for flip in [1, 0x80] {
            let mut area = good.clone();
            area.descriptor[at] ^= flip;
            assert_ne!(code(&area), 0, "byte {at:#x} ^ {flip:#x}");
        }
    }
    for at in 0..good.schema.len() {
        let mut area = good.clone();
        area.schema[at] ^= 1;
        assert_ne!(code(&area), 0, "schema byte {at:#x}");
    }
}

/// Each field of the header page changed alone, with a digest that fits, so that the check of the field itself counts.
/// Rules: DH-021, L-06, L-07, L-09, L-11.
#[test]
fn every_field_of_the_header_has_its_error() {
    macro_rules! codes {
        ($($field:ident = $value:expr => $code:literal;)*) => {
            $(assert_eq!(
                code_after(|header, _| header.$field = $value.into()),
                $code,
                "{} = {:?}", stringify!($field), $value
            );)*
        };
    }
    codes! {
        magic = *b"TDGHUB\x1a\r" => 102;
        endian_tag = 0x0403_0201 => 103;
        layout_major = 2 => 104;
        layout_major = 0 => 105;
        features_incompat = 1 => 106;
        features_incompat = 1_u64 << 63 => 106;
        features_ro_compat = 4 => 106;
        features_compat = u64::MAX => 0;
        layout_minor = 7 => 0;
        descriptor_len = 8191 => 107;
        control_off = 0x3000 => 107;
        line_size = 128 => 107;
        lock_count = 31 => 107;
        kdf = 0 => 107;
        key_epoch = 0 => 107;
        block_uuid = [0; 16] => 107;
        block_uuid = [1; 16] => 107;
        zones_schema_hash = [0; 32] => 107;
        reserved_0b0 = [1; 16] => 107;
        reserved_170 = [1; 16] => 107;
        reserved_182 = [0, 1] => 107;
        total_size = 77_825 => 108;
        policy = 3 => 109;
        sync = 3 => 109;
        overflow = 3 => 109;
        orphan = 2 => 109;
        on_held = 2 => 109;
        digest_alg = 6 => 109;
        digest_policy = 2 => 109;
        page_mode = 3 => 109;
        page_mode = 2 => 109;
        security_level = 3 => 109;
        slot_count = 0 => 110;
        slot_count = MAX_SLOTS + 1 => 110;
        slot_count = u32::MAX => 110;
        slot_size = 0 => 110;
        slot_size = MAX_SLOT_SIZE + 1 => 110;
        slot_size = 1_u64 << 63 => 110;
        slot_size = u64::MAX => 110;
        max_consumers = 0 => 110;
        max_consumers = 33 => 110;
        zone_count = 17 => 110;
        zone_count = u32::MAX => 110;
        page_size = 4097 => 110;
        first_slot_id = MAX_SLOT_ID => 110;
        slot_struct_size = 4097 => 110;
        slot_struct_align = 3 => 110;
        slot_struct_align = 128 => 110;
        slot_struct_align = 0 => 110;
        schema_text_len = MAX_SCHEMA_TEXT + 1 => 110;
        schema_text_len = u32::MAX => 110;
        slot_stride = 8192 => 111;
        slot_count = 9 => 111;
        slot_size = 4097 => 111;
        max_consumers = 32 => 111;
        digest_alg = 0 => 111;
        page_size = 65_536 => 111;
        schema_text_len = 4097 => 111;
    }
    assert_eq!(code_after(|header, _| header.reserved_210[3567] = 1), 107);
}

/// Rules: DH-009, DH-021, L-10.
#[test]
fn every_entry_of_the_region_table_is_compared() {
    for (index, name) in REGION_NAMES.into_iter().enumerate() {
        for delta in [64, 4096, u64::MAX - 63, 1 << 40] {
            let offset = code_after(|header, _| {
                let entry = &mut header.regions[index].offset;
                entry.set(entry.get().wrapping_add(delta));
            });
            let len = code_after(|header, _| {
                let entry = &mut header.regions[index].len;
                entry.set(entry.get().wrapping_add(delta));
            });
            assert_eq!((offset, len), (111, 111), "{name} + {delta:#x}");
        }
    }
}

/// Rules: DH-013, DH-021.
#[test]
fn every_field_of_the_identity_page_has_its_error() {
    type Change = fn(&mut IdentityPage);
    let cases: [(&str, Change, u16); 15] = [
        ("zone offset", |page| page.zones[0].offset = 0x8040.into(), 111),
        ("zone size 0", |page| page.zones[0].size = 0.into(), 110),
        ("zone size", |page| page.zones[0].size = (MAX_ZONE_SIZE + 1).into(), 110),
        ("larger zone", |page| page.zones[0].size = 8192.into(), 111),
        ("zone lock", |page| page.zones[0].lock_index = LOCKS.into(), 110),
        ("zone flags", |page| page.zones[0].flags = 2.into(), 107),
        ("zone hash", |page| page.zones[0].schema_hash = [1; 32], 107),
        ("zone name", |page| page.zones[0].name[31] = b'x', 107),
        ("zone reserved", |page| page.zones[0].reserved[31] = 1, 107),
        ("unused zone", |page| page.zones[15].reserved[31] = 1, 107),
        ("channel_name", |page| page.channel_name[0] = b'A', 107),
        ("shm_name", |page| page.shm_name[0] = b'T', 107),
        ("hub_uid", |page| page.hub_uid[0] = 0xFF, 107),
        ("reserved", |page| page.reserved_9e0[1535] = 1, 107),
        ("predecessor", |page| page.predecessor_uuid = [0; 16], 0),
    ];
    for (name, change, expected) in cases {
        assert_eq!(code_after(|_, page| change(page)), expected, "{name}");
    }
}

/// L-12 and the tables of 6.1 and 7.1.
/// Rules: DH-021, DH-085, L-12.
#[test]
fn illegal_combinations_are_refused_by_creators_and_attachers() {
    type Change = fn(&mut BlockSpec);
    let cases: [(&str, Change); 10] = [
        ("slot_count", |spec| spec.policy = Policy::Single),
        ("slot_count", |spec| spec.policy = Policy::DoubleBuffer),
        ("slot_count", |spec| spec.slot_count = 1),
        ("sync", |spec| (spec.policy, spec.slot_count) = (Policy::Single, 1)),
        ("overflow", |spec| {
            (spec.policy, spec.slot_count, spec.sync) = (Policy::Single, 1, SyncPolicy::LatestOnly);
            spec.overflow = Overflow::DropOldest;
        }),
        ("on_held", |spec| {
            (spec.policy, spec.slot_count, spec.sync) = (Policy::Single, 1, SyncPolicy::LatestOnly);
            spec.on_held = OnHeld::Skip;
        }),
        ("digest_policy", |spec| {
            (spec.digest_alg, spec.digest_policy) = (DigestAlg::None, DigestPolicy::Enforced);
        }),
        ("digest_alg", |spec| {
            (spec.security, spec.digest_alg) = (SecurityLevel::None, DigestAlg::KeyedBlake3);
        }),
        ("digest_alg", |spec| spec.security = SecurityLevel::AuthenticatedSlots),
        ("digest_alg", |spec| {
            (spec.security, spec.digest_alg) = (SecurityLevel::AuthenticatedSlots, DigestAlg::KeyedBlake3);
        }),
    ];
    for (index, (field, change)) in cases.into_iter().enumerate() {
        let mut wrong = spec();
        change(&mut wrong);
        let faults = wrong.faults(PageMode::Base, 4096);
        assert_eq!(faults.first().map(|fault| fault.field), Some(field), "case {index}: {faults:?}");
        assert!(encode(&wrong, &birth(), Some(&secret())).is_err());
        let found = code_after(|header, _| {
            header.policy = wrong.policy.code();
            header.sync = wrong.sync.code();
            header.overflow = wrong.overflow.code();
            header.on_held = wrong.on_held.code();
            header.slot_count = wrong.slot_count.into();
            header.digest_alg = wrong.digest_alg.code();
            header.digest_policy = wrong.digest_policy.code();
            header.security_level = wrong.security.code();
        });
        assert_eq!(found, 109, "case {index}");
    }
}

/// Rules: DH-095.
#[test]
fn all_faults_of_a_configuration_are_told_at_once() {
    let mut wrong = BlockSpec { slot_size: 0, max_consumers: 0, key_epoch: 0, ..spec() };
    wrong.identity.hub_uid = "x".repeat(41);
    wrong.zones[0].name = "a\0".to_owned();
    let Err(EncodeError::Invalid { fields }) = encode(&wrong, &birth(), Some(&secret())) else {
        panic!("accepted");
    };
    for field in ["slot_size", "max_consumers", "key_epoch", "hub_uid", "zone name"] {
        assert!(fields.iter().any(|fault| fault.field == field), "{field}: {fields:?}");
    }
}

/// L-08 and the version matrix of 24.1.
/// Rules: DH-294, DH-295, DH-297, L-08, N-48.
#[test]
fn newer_minor_versions_and_features_are_judged_by_their_bits() {
    let mut newer = area_of(&spec());
    reseal(&mut newer, |header, _| {
        header.layout_minor = 1.into();
        header.features_compat = 1.into();
        header.reserved_210[0] = 1;
    });
    assert_eq!(decode(&newer, FeatureUse::TakePart).unwrap().layout_minor, 1);
    reseal(&mut newer, |header, _| header.features_ro_compat = 1.into());
    assert_eq!(code(&newer), 106);
    assert_eq!(decode(&newer, FeatureUse::ReadOnly).unwrap().features.ro_compat, 1);
    reseal(&mut newer, |header, _| header.features_incompat = 1.into());
    assert_eq!(decode(&newer, FeatureUse::ReadOnly).unwrap_err().code(), 106);
    assert_eq!((LAYOUT_MAJOR, LAYOUT_MINOR, MIN_SUPPORTED_MAJOR), (1, 0, 1));
}

/// L-29: the tag covers the whole descriptor, so a digest that fits is not enough.
/// Rules: DH-160, DH-163, L-29.
#[test]
fn the_tag_is_that_of_one_secret_and_one_descriptor() {
    let mut area = area_of(&spec());
    let descriptor = decode(&area, FeatureUse::TakePart).unwrap();
    assert!(area.has_tag_of(&secret(), &descriptor));
    assert!(!area.has_tag_of(&Secret::new(&[7; 32]).unwrap(), &descriptor));
    reseal(&mut area, |header, _| header.created_realtime_ns = 21.into());
    let descriptor = decode(&area, FeatureUse::TakePart).unwrap();
    assert!(!area.has_tag_of(&secret(), &descriptor));
}

/// Every structure of the sheet fills whole cache lines, and so does every region.
/// Rules: DH-014, DH-015.
#[test]
fn words_of_different_writers_are_on_different_lines() {
    use super::pages::{ControlPage, SyncPage};
    let line = |offset: usize| offset / LINE;
    let control = [
        offset_of!(ControlPage, init_state),
        offset_of!(ControlPage, write_index),
        offset_of!(ControlPage, commit_index),
        offset_of!(ControlPage, read_index),
        offset_of!(ControlPage, handover_state),
    ];
    let sync = [
        offset_of!(SyncPage, maintenance_lock),
        offset_of!(SyncPage, active_mask),
        offset_of!(SyncPage, data_waiters),
        offset_of!(SyncPage, drain_waiters),
        offset_of!(SyncPage, audit_seq),
    ];
    for offsets in [control, sync] {
        assert!(offsets.is_sorted_by_key(|offset| line(*offset)));
        assert!(offsets.windows(2).all(|pair| line(pair[0]) != line(pair[1])));
    }
    assert!(size_of::<ZoneEntry>().is_multiple_of(LINE));
    let geometry = spec().geometry(4096).unwrap();
    for extent in geometry.regions {
        assert!(extent.offset.is_multiple_of(LINE as u64) && extent.len.is_multiple_of(LINE as u64));
    }
}

proptest! {
    /// Whatever the bytes are, decoding ends with an answer; changed numbers never give another layout.
    /// Rules: DH-005, DH-009.
    #[test]
    fn hostile_headers_are_refused_or_mean_what_they_say(
        changes in prop::collection::vec((0..0x2000_usize, any::<u8>()), 0..8),
        object_size in prop_oneof![Just(77_824_u64), any::<u64>()],
        schema_len in 0..5000_usize,
    ) {
        let mut area = area_of(&spec());
        area.object_size = object_size;
        area.schema.truncate(schema_len);
        for (at, byte) in changes {
            area.descriptor[at] = byte;
        }
        reseal(&mut area, |_, _| ());
        if let Ok(descriptor) = decode(&area, FeatureUse::TakePart) {
            let geometry = descriptor.spec.geometry(descriptor.page_size).unwrap();
            prop_assert_eq!(geometry.total_size, object_size);
            prop_assert_eq!(geometry, descriptor.geometry);
        }
    }
}
