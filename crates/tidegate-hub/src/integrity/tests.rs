use std::mem::offset_of;

use tempfile::TempDir;
use tidegate_shm::{clock::Nanos, sync::Ordering::Relaxed};

use super::*;
use crate::{
    block::{Block, CreateOptions, create},
    layout::{
        BlockSpec, BlockUuid, ChannelName, DigestAlg, DigestPolicy, SchemaInfo, Secret, SecurityLevel,
        ZoneSpec,
        pages::{ConsumerRow, MetricsPage},
    },
    schema::SchemaHash,
};

const SENSOR: &str =
    "tds1 SensorData size=16 align=8 {timestamp_ns:u64@0+8;temperature:f32@8+4;pressure:f32@12+4}";

/// Algorithms with the digests of the sheet, keyed ones under the secret 00..1f in epoch 1.
const VECTORS: [(DigestAlg, &str); 4] = [
    (DigestAlg::Blake2b, "e84323a3e2da69ef25fd5400cff14a70e582639a5f761991d602ace11d18bd0e"),
    (DigestAlg::Blake3, "2ece02e8eb65b8f489b7fb783739718bce2a5718333d757d4679ec55d9c2d42f"),
    (DigestAlg::KeyedBlake2b, "1b15ac3cbb198552caaea8d3adf82cd2caf8ead1eee355b66b7d27e46d5d55f5"),
    (DigestAlg::KeyedBlake3, "04460c58521dcc80d8ca8e7739c4fc64fe6eb3efcc7591483b1b69564e0b939d"),
];
#[cfg(feature = "hmac-sha256")]
const HMAC: &str = "0b551be46bee0b9dd3bb9927f6aa5601c4765065671d9833dac284007bff3150";

/// A block with one zone, digests by `alg`, and authenticated slots if that takes a key.
pub(crate) fn spec(alg: DigestAlg) -> BlockSpec {
    let keyed = alg.is_keyed();
    BlockSpec {
        digest_alg: alg,
        digest_policy: if alg == DigestAlg::None { DigestPolicy::Manual } else { DigestPolicy::Enforced },
        max_consumers: 2,
        zones: vec![ZoneSpec { schema_hash: [3; 32], version: (1, 0), ..ZoneSpec::untyped("state", 64) }],
        security: if keyed { SecurityLevel::AuthenticatedSlots } else { SecurityLevel::None },
        schema: SchemaInfo {
            slot_hash: *SchemaHash::of_text(SENSOR).as_bytes(),
            version: (1, 0),
            struct_size: 16,
            struct_align: 8,
            text: SENSOR.to_owned(),
        },
        ..BlockSpec::ring(ChannelName::new("digests").unwrap(), 4, 1 << 20)
    }
}

fn secret() -> Secret {
    Secret::new(&std::array::from_fn::<u8, 32, _>(|i| i as u8)).unwrap()
}

/// A block with the uuid 00..0f, in a directory of its own, which several tests make at the same time.
struct Bench {
    _dir: TempDir,
    block: Block,
}

impl Bench {
    fn new(alg: DigestAlg) -> Self {
        Self::with_uuid(alg, None)
    }

    fn with_uuid(alg: DigestAlg, uuid: Option<BlockUuid>) -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let secret = secret();
        let secret = alg.is_keyed().then_some(&secret);
        let options = CreateOptions { dir: dir.path().to_owned(), uuid, secret, ..CreateOptions::default() };
        let block = create(&spec(alg), &options).unwrap();
        Self { _dir: dir, block }
    }

    fn integrity(&self) -> SlotIntegrity {
        let metrics = self.block.writer_views().unwrap().metrics;
        SlotIntegrity::new(self.block.descriptor(), Some(&secret()), Some(metrics)).unwrap()
    }

    /// Writes a payload to the slot of `id` and seals it; returns the slot flags.
    fn seal(&self, integrity: &SlotIntegrity, id: u32, payload: &[u8]) -> u32 {
        let slot = self.block.slot_mut(id).unwrap().sub_mut(0..payload.len()).unwrap();
        slot.copy_from(payload).unwrap();
        let views = self.block.writer_views().unwrap();
        integrity.seal(views.digests.row(id).unwrap(), id.into(), *slot, Nanos(7)).unwrap()
    }

    fn verify(
        &self,
        integrity: &SlotIntegrity,
        flags: u32,
        slot: u32,
        id: u64,
        len: usize,
    ) -> Result<(), ChecksumFault> {
        let views = self.block.inspector_views().unwrap();
        let (entry, payload) = (views.digests.row(slot).unwrap(), self.block.slot(slot).unwrap());
        let payload = payload.sub(0..len).unwrap();
        let in_place = integrity.verify_in_place(entry, flags, id, payload);
        let mut copy = vec![0xAA; len];
        let copied = integrity.copy_verified(entry, flags, id, payload, &mut copy);
        assert_eq!(in_place, copied, "both ways judge alike");
        let expected = if copied.is_ok() { payload.to_vec() } else { vec![0; len] };
        assert_eq!(copy, expected, "nothing of a refused slot is handed out");
        copied.map_err(|error| {
            assert_eq!(error.id, id);
            error.kind
        })
    }
}

macro_rules! metric {
    ($bench:expr, $field:ident) => {
        $bench
            .block
            .inspector_views()
            .unwrap()
            .metrics
            .row()
            .u64::<{ offset_of!(MetricsPage, $field) }>()
            .load(Relaxed)
    };
}

/// Rules: G-01, DH-163, N-29.
#[test]
fn the_digests_of_the_sheet() {
    let uuid = BlockUuid::new(std::array::from_fn(|i| i as u8)).unwrap();
    let mut vectors = VECTORS.to_vec();
    #[cfg(feature = "hmac-sha256")]
    vectors.push((DigestAlg::HmacSha256, HMAC));
    for (alg, expected) in vectors {
        // The uuid names a place of this process, so one block at a time.
        let bench = Bench::with_uuid(alg, Some(uuid));
        let digester = Digester::new(bench.block.descriptor(), Some(&secret())).unwrap();
        let slot = bench.block.slot_mut(1).unwrap().sub_mut(0..3).unwrap();
        slot.copy_from(b"abc").unwrap();
        assert_eq!(digester.alg(), alg);
        assert_eq!(digester.slot(5, *slot).to_string(), expected, "{alg:?}");
        let mut copy = [0; 3];
        assert_eq!(digester.slot_copy(5, *slot, &mut copy).unwrap().to_string(), expected, "{alg:?}");
        assert_eq!(&copy, b"abc");
    }
}

/// The message of the sheet, put together by hand and hashed in one piece, for lengths around every limit of the
/// streaming.
///
/// Rules: G-01.
#[test]
fn every_length_is_hashed_as_if_in_one_piece() {
    let bench = Bench::new(DigestAlg::Blake3);
    let digester = Digester::new(bench.block.descriptor(), None).unwrap();
    let uuid = bench.block.descriptor().uuid;
    let slot = bench.block.slot_mut(0).unwrap();
    let content: Vec<u8> = (0..1 << 20).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    slot.copy_from(&content).unwrap();
    let limits = [0, 176, 944, 1024, 4144, 16_304, 16_384, 32_688, 65_536, 1 << 20];
    let lengths = limits.iter().flat_map(|&limit: &usize| limit.saturating_sub(1)..=limit + 1);
    for len in lengths.filter(|&len| len <= 1 << 20) {
        let mut message = b"TGHUB-SLOT\0v1\0\0\0".to_vec();
        message.extend(uuid.as_bytes());
        message.extend(9_u64.to_le_bytes());
        message.extend((len as u64).to_le_bytes());
        message.extend(SchemaHash::of_text(SENSOR).as_bytes());
        message.extend(&content[..len]);
        let expected = Digest(blake3::hash(&message).into());
        let payload = slot.sub(0..len).unwrap();
        assert_eq!(digester.slot(9, payload), expected, "{len}");
        let mut copy = vec![0; len];
        assert_eq!(digester.slot_copy(9, payload, &mut copy).unwrap(), expected, "{len}");
    }
}

/// Every part of the zone message changes the digest, and slots and zones do not share keys or messages.
#[test]
fn zone_digests_are_bound_to_index_generation_and_schema() {
    for alg in [DigestAlg::Blake3, DigestAlg::KeyedBlake2b] {
        let bench = Bench::new(alg);
        let digester = Digester::new(bench.block.descriptor(), Some(&secret())).unwrap();
        let bytes = bench.block.zone(0).unwrap();
        let digests = [
            digester.zone(0, 2, &[3; 32], bytes),
            digester.zone(1, 2, &[3; 32], bytes),
            digester.zone(0, 4, &[3; 32], bytes),
            digester.zone(0, 2, &[4; 32], bytes),
            digester.zone(0, 2, &[3; 32], bytes.sub(0..63).unwrap()),
            digester.slot(0, bytes),
        ];
        for (at, digest) in digests.iter().enumerate() {
            assert!(!digests[..at].contains(digest), "{alg:?} {at}");
        }
        assert_eq!(digests[0], digester.zone(0, 2, &[3; 32], bytes));
    }
}

/// Rules: DH-153, DH-155, DH-158, G-02.
#[test]
fn a_flipped_bit_is_found_anywhere() {
    for alg in [DigestAlg::Blake2b, DigestAlg::Blake3, DigestAlg::KeyedBlake2b, DigestAlg::KeyedBlake3] {
        let bench = Bench::new(alg);
        let integrity = bench.integrity();
        let payload = [0x5A; 5_000];
        let flags = bench.seal(&integrity, 2, &payload);
        assert_eq!(flags, if alg.is_keyed() { 3 } else { 1 });
        assert_eq!(bench.verify(&integrity, flags, 2, 2, 5_000), Ok(()));
        let expected = match alg.is_keyed() {
            true => ChecksumFault::TagMismatch { key_id: secret().key_id() },
            false => ChecksumFault::Mismatch,
        };
        for at in [0, 1, 2_500, 4_999] {
            bench.block.slot_mut(2).unwrap().write_at(at, &[0x5B]).unwrap();
            assert_eq!(bench.verify(&integrity, flags, 2, 2, 5_000), Err(expected), "{alg:?} {at}");
            bench.block.slot_mut(2).unwrap().write_at(at, &[0x5A]).unwrap();
        }
        assert_eq!(bench.verify(&integrity, flags, 2, 2, 5_000), Ok(()));
        assert_eq!((metric!(bench, digests_computed), metric!(bench, digests_verified)), (1, 12));
    }
}

/// Bytes, entry and flags of one slot under the id of another, with the entry made to fit as far as it is public.
///
/// Rules: G-03.
#[test]
fn an_old_slot_does_not_pass_under_a_new_id_or_in_another_block() {
    let [bench, other] = [(); 2].map(|()| Bench::new(DigestAlg::Blake3));
    let integrity = bench.integrity();
    let flags = bench.seal(&integrity, 3, b"old value");
    let views = bench.block.writer_views().unwrap();
    let old = DigestEntry::load(views.digests.row(3).unwrap().as_row());
    assert_eq!((old.tag, old.len, old.alg, old.key_epoch, old.computed), (4, 9, 2, 1, Nanos(7)));
    for (tag, id) in [(4, 7), (8, 7)] {
        DigestEntry { tag, ..old }.store(views.digests.row(3).unwrap());
        assert_eq!(bench.verify(&integrity, flags, 3, id, 9), Err(ChecksumFault::Mismatch));
    }
    old.store(views.digests.row(3).unwrap());
    assert_eq!(bench.verify(&integrity, flags, 3, 3, 9), Ok(()));
    assert_eq!(bench.verify(&integrity, flags, 3, 3, 8), Err(ChecksumFault::Mismatch));
    for altered in
        [DigestEntry { len: 8, ..old }, DigestEntry { alg: 1, ..old }, DigestEntry { key_epoch: 2, ..old }]
    {
        altered.store(views.digests.row(3).unwrap());
        assert_eq!(bench.verify(&integrity, flags, 3, 3, 9), Err(ChecksumFault::Mismatch));
    }
    other.block.slot_mut(3).unwrap().write_at(0, b"old value").unwrap();
    old.store(other.block.writer_views().unwrap().digests.row(3).unwrap());
    assert_eq!(other.verify(&other.integrity(), flags, 3, 3, 9), Err(ChecksumFault::Mismatch));
}

/// Rules: DH-155.
#[test]
fn a_digest_that_is_not_there_is_an_error() {
    let bench = Bench::new(DigestAlg::Blake3);
    let integrity = bench.integrity();
    assert!(integrity.is_enforced() && !integrity.is_authenticated());
    bench.seal(&integrity, 0, b"value");
    assert_eq!(bench.verify(&integrity, 0, 0, 0, 5), Err(ChecksumFault::Missing));
    assert_eq!(bench.verify(&integrity, 5, 0, 0, 5), Err(ChecksumFault::NotComputed));
}

/// A writer that is at work changes the bytes between copying and handing out; what was handed out is what was verified.
///
/// Rules: DH-158, G-05.
#[test]
fn a_verified_copy_stays_what_it_was() {
    let bench = Bench::new(DigestAlg::KeyedBlake3);
    let integrity = bench.integrity();
    assert!(integrity.is_authenticated());
    let flags = bench.seal(&integrity, 1, &[1; 300]);
    let views = bench.block.inspector_views().unwrap();
    let payload = bench.block.slot(1).unwrap().sub(0..300).unwrap();
    let mut copy = [0; 300];
    integrity.copy_verified(views.digests.row(1).unwrap(), flags, 1, payload, &mut copy).unwrap();
    bench.block.slot_mut(1).unwrap().fill(2);
    assert_eq!(copy, [1; 300]);
    let mut short = [0; 299];
    let error = integrity.copy_verified(views.digests.row(1).unwrap(), flags, 1, payload, &mut short);
    assert_eq!(error.unwrap_err().kind, ChecksumFault::Buffer { given: 299, expected: 300 });
}

/// While somebody writes the slot without a pause, no copy that passed ever holds anything but the sealed bytes.
///
/// Rules: DH-158, G-05.
#[test]
fn a_copy_never_passes_with_other_bytes() {
    let bench = Bench::new(DigestAlg::KeyedBlake3);
    let integrity = bench.integrity();
    let flags = bench.seal(&integrity, 1, &[1; 4096]);
    let views = bench.block.inspector_views().unwrap();
    let payload = bench.block.slot(1).unwrap().sub(0..4096).unwrap();
    let [started, done] = [false, false].map(tidegate_shm::sync::AtomicBool::new);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let slot = bench.block.slot_mut(1).unwrap();
            started.store(true, Relaxed);
            while !done.load(Relaxed) {
                slot.write_at(4000, &[2]).unwrap();
                slot.write_at(4000, &[1]).unwrap();
            }
        });
        let mut copy = [0; 4096];
        let (mut passed, mut tries, mut wrong) = (0, 0, 0);
        while !started.load(Relaxed) {
            std::thread::yield_now();
        }
        while passed < 20_000 && tries < 1_000_000 {
            tries += 1;
            if integrity.copy_verified(views.digests.row(1).unwrap(), flags, 1, payload, &mut copy).is_ok() {
                wrong += u32::from(copy != [1; 4096]);
                passed += 1;
            }
        }
        done.store(true, Relaxed);
        assert!(passed > 0 && wrong == 0, "{wrong} of {passed} passed with other bytes, in {tries} tries");
    });
}

/// Whoever holds the key makes tags that pass: keys separate holders from others, not producers from consumers.
///
/// Rules: DH-159, N-28.
#[test]
fn a_consumer_with_the_key_can_forge() {
    let bench = Bench::new(DigestAlg::KeyedBlake3);
    let (producer, consumer) = (bench.integrity(), bench.integrity());
    bench.seal(&producer, 0, b"genuine");
    let flags = bench.seal(&consumer, 0, b"forged!");
    assert_eq!(bench.verify(&producer, flags, 0, 0, 7), Ok(()));
}

/// Rules: DH-154, N-28.
#[test]
fn without_a_key_slots_are_marked_or_aborted() {
    let keyed = Bench::new(DigestAlg::KeyedBlake3);
    let seal = |descriptor: &crate::layout::Descriptor| {
        let views = keyed.block.writer_views().unwrap();
        let integrity = SlotIntegrity::new(descriptor, None, Some(views.metrics)).unwrap();
        let payload = keyed.block.slot(0).unwrap();
        let entry = views.digests.row(0).unwrap();
        let verified = integrity.verify_in_place(entry.as_row(), SLOT_DIGEST_PRESENT, 0, payload);
        let key_id = secret().key_id();
        assert_eq!(verified.unwrap_err().kind, ChecksumFault::NoKey { key_id });
        integrity.seal(entry, 0, payload, Nanos(1))
    };
    let descriptor = (**keyed.block.descriptor()).clone();
    assert_eq!(seal(&descriptor), Err(CannotSeal { id: 0, key_id: secret().key_id() }));
    assert_eq!(metric!(keyed, slot_commit_errors), 1);
    // Keyed digests without authenticated mode.
    let mut manual = descriptor;
    manual.spec.security = SecurityLevel::AttachTag;
    assert_eq!(seal(&manual), Ok(SLOT_DIGEST_FAILED));
    assert_eq!((metric!(keyed, slot_commit_errors), metric!(keyed, digests_computed)), (2, 0));
}

/// Rules: DH-156.
#[test]
fn a_block_without_digests_has_none_to_offer() {
    let bench = Bench::new(DigestAlg::None);
    let error = SlotIntegrity::new(bench.block.descriptor(), None, None).unwrap_err();
    assert!(matches!(error, DigesterError::Disabled) && error.code() == 304);
    assert_eq!(bench.block.writer_views().unwrap().digests.rows(), 0);
}

/// Rules: DH-155, G-02.
#[test]
fn a_failure_is_counted_each_time() {
    let bench = Bench::new(DigestAlg::Blake3);
    let views = bench.block.writer_views().unwrap();
    let log = FailureLog::new(views.metrics, views.consumers.clone(), 1);
    let error = ChecksumError { id: 4, kind: ChecksumFault::Mismatch };
    log.note(&error);
    log.note(&error);
    assert_eq!(error.code(), 301);
    let failures = |row: u32| {
        let row = views.consumers.row(row).unwrap();
        row.u64::<{ offset_of!(ConsumerRow, digest_failures) }>().load(Relaxed)
    };
    assert_eq!((metric!(bench, checksum_failures), failures(0), failures(1)), (2, 0, 2));
}

/// Rules: DH-153.
#[test]
fn a_digest_of_other_bytes_is_never_committed() {
    let mut state = SealState::default();
    assert_eq!((state.flags(false, 8), state.flags(true, 8)), (Some(0), None));
    state.sealed(SLOT_DIGEST_PRESENT, 8);
    assert_eq!((state.flags(false, 8), state.flags(true, 8)), (Some(1), Some(1)));
    assert_eq!(state.flags(false, 7), None, "the digest covers the final length");
    state.modified();
    assert_eq!((state.flags(false, 8), state.flags(true, 8)), (None, None));
}
