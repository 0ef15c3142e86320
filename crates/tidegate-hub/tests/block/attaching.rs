//! Attaching: what is refused, and by which number.

use std::fs;
use std::fs::File;
use std::mem::offset_of;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::chown;
use std::time::Duration;
use std::time::Instant;

use tidegate_hub::{
    block::{
        AttachError, AttachOptions, Block, CreateOptions, Expectations, ExpectedConfig, Role, SchemaMismatch,
        Trust, attach, create, registry::Place,
    },
    identity::Liveness,
    layout::{
        BlockSpec, ChannelName, Descriptor, DigestAlg, DigestPolicy, Policy, Secret, SecurityLevel,
        SyncPolicy,
        pages::{HeaderPage, SlotRecord},
    },
};
use tidegate_shm::sync::Ordering::Relaxed;

use crate::{Blocks, control, counters, forge, name_of, other_process, set_state, spec};

/// Rules: DH-021, DH-024, L-05.
#[test]
fn cut_files_are_refused() {
    for (len, code) in [(0, 101), (1, 101), (4095, 101), (0x3FFF, 101), (0x4000, 108), (77_823, 108)] {
        let blocks = Blocks::new();
        let block = blocks.create();
        File::options().write(true).open(block.path()).unwrap().set_len(len).unwrap();
        assert_eq!(blocks.code(&block), code, "{len} bytes");
    }
}

/// Rules: DH-016, DH-021, L-13.
#[test]
fn the_state_of_the_block_decides_who_may_come() {
    let blocks = Blocks::new();
    let block = blocks.create();
    for (state, code, waits) in
        [(0, 113, true), (1, 113, true), (2, 0, false), (3, 0, false), (4, 208, false), (5, 120, false)]
    {
        set_state(&block, state);
        let start = Instant::now();
        assert_eq!(blocks.code(&block), code, "state {state}");
        assert_eq!(start.elapsed() >= Duration::from_millis(20), waits, "state {state}");
    }
    set_state(&block, 4);
    assert!(
        blocks.attach(&block, Role::Inspector).unwrap().findings().is_empty(),
        "closed blocks are diagnosed"
    );

    // A creator that finishes while somebody waits.
    set_state(&block, 1);
    std::thread::scope(|scope| {
        let patient = AttachOptions { init_wait: Duration::from_secs(60), ..blocks.options(Role::Consumer) };
        let name = name_of(&block);
        let waiting = scope.spawn(move || attach(&name, &patient).map(|_| ()));
        set_state(&block, 2);
        waiting.join().unwrap().unwrap();
    });
}

/// Rules: DH-021, DH-033, L-14.
#[test]
fn blocks_of_another_boot_are_refused() {
    let blocks = Blocks::new();
    let block = blocks.create();
    forge(&block, offset_of!(HeaderPage, boot_id), &[1; 16]);
    assert_eq!((blocks.code(&block), counters(&block)), (114, (1, 0)));
    let inspector = blocks.attach(&block, Role::Inspector).unwrap();
    assert!(matches!(inspector.findings(), [AttachError::StaleBoot { found: [1, ..], .. }]));
    let (mut other, key) = other_process();
    other.kill().unwrap();
    other.wait().unwrap();
    assert_eq!(inspector.liveness(key, Place::Writer, false), Liveness::Unknown);
}

/// Rules: DH-021, L-15.
#[test]
fn owners_and_modes_must_be_trusted() {
    let blocks = Blocks::new();
    let block = blocks.create();
    let own_gid = fs::metadata(block.path()).unwrap().gid();
    let code = |mode, uid, trust: Trust| {
        chown(block.path(), Some(uid), None).expect("this test gives a file away and needs to run as root");
        fs::set_permissions(block.path(), fs::Permissions::from_mode(mode)).unwrap();
        let options = AttachOptions { trust, ..blocks.options(Role::Consumer) };
        attach(&name_of(&block), &options).map_or_else(|error| error.code(), |_| 0)
    };
    let own = rustix::process::geteuid().as_raw();
    let none = Trust::default;
    let group = || Trust { gids: vec![own_gid], ..Trust::default() };
    assert_eq!((code(0o600, own, none()), code(0o640, own, none())), (0, 0));
    assert_eq!((code(0o660, own, none()), code(0o660, own, group())), (121, 0));
    assert_eq!((code(0o602, own, none()), code(0o602, own, group())), (121, 121));
    assert_eq!(code(0o600, own + 1, none()), 121);
    assert_eq!(code(0o600, own + 1, Trust { uids: vec![own + 1], gids: vec![] }), 0);
}

/// L-18 at attach, L-19, N-05.
/// Rules: DH-005, DH-021, DH-023, L-18, L-19, N-05.
#[test]
fn impossible_control_words_are_refused_and_counted() {
    let blocks = Blocks::new();
    let block = blocks.create();
    let set = |read: u64, commit: u64, write: u64| {
        control!(block, read_index).store(read, Relaxed);
        control!(block, commit_index).store(commit, Relaxed);
        control!(block, write_index).store(write, Relaxed);
    };
    for good in [(100, 100, 108), (100, 108, 116), (108, 108, 108), (100, 500, 508)] {
        set(good.0, good.1, good.2);
        assert_eq!(blocks.code(&block), 0, "{good:?}");
    }
    let bad = [(99, 100, 100), (101, 100, 100), (100, 101, 100), (100, 100, 109), (100, 100, u64::MAX)];
    for (index, words) in (1..).zip(bad) {
        set(words.0, words.1, words.2);
        assert_eq!((blocks.code(&block), counters(&block).0), (120, index), "{words:?}");
        assert_eq!(blocks.attach(&block, Role::Inspector).unwrap().findings().len(), 1);
    }
    assert_eq!(counters(&block).0, 5, "an inspector changes nothing");
    set(100, 100, 100);
    let records = block.writer_views().unwrap().slot_records;
    let ctl = records.row(7).unwrap().u64::<{ offset_of!(SlotRecord, ctl) }>();
    for (word, code) in [(4, 0), (5, 120), (6, 120), (7, 120), (8, 0), (u64::MAX, 120), (0, 0)] {
        ctl.store(word, Relaxed);
        assert_eq!(blocks.code(&block), code, "{word}");
    }
}

/// Rules: DH-160, DH-162, L-29, G-06.
#[test]
fn the_secret_must_be_that_of_the_block() {
    let blocks = Blocks::new();
    let [right, wrong] = [1, 2].map(|byte| Secret::new(&[byte; 32]).unwrap());
    let code = |block: &Block, secret| {
        let options = AttachOptions { secret, ..blocks.options(Role::Consumer) };
        attach(&name_of(block), &options).map_or_else(|error| error.code(), |_| 0)
    };
    let options = CreateOptions { secret: Some(&right), ..blocks.create_options() };
    let tagged = BlockSpec { security: SecurityLevel::AttachTag, ..spec() };
    let block = create(&tagged, &options).unwrap();
    assert_eq!((code(&block, Some(&right)), code(&block, Some(&wrong)), code(&block, None)), (0, 115, 115));
    assert!(blocks.attach(&block, Role::Inspector).is_ok(), "looking needs no secret");
    forge(&block, offset_of!(HeaderPage, orphan), &[1]);
    assert_eq!((code(&block, Some(&right)), counters(&block).0), (115, 3));

    let sealed = BlockSpec {
        security: SecurityLevel::AuthenticatedSlots,
        digest_alg: DigestAlg::KeyedBlake3,
        digest_policy: DigestPolicy::Enforced,
        ..spec()
    };
    let block = create(&sealed, &options).unwrap();
    assert_eq!((code(&block, Some(&right)), code(&block, Some(&wrong)), code(&block, None)), (0, 115, 119));

    let refused = create(&tagged, &blocks.create_options()).unwrap_err();
    assert_eq!(refused.code(), 153, "{refused}");
}

/// Rules: DH-023, DH-177, DH-178.
#[test]
fn what_the_consumer_expects_is_compared() {
    let blocks = Blocks::new();
    let block = blocks.create();
    let code = |expect: Expectations<'_>| {
        let options = AttachOptions { expect, ..blocks.options(Role::Consumer) };
        attach(&name_of(&block), &options).map_or_else(|error| error.code(), |_| 0)
    };
    let [own, other] = ["camera", "radar"].map(|name| ChannelName::new(name).unwrap());
    assert_eq!(code(Expectations { channel: Some(&own), ..Expectations::default() }), 0);
    assert_eq!(code(Expectations { channel: Some(&other), ..Expectations::default() }), 116);
    let config = ExpectedConfig {
        policy: Policy::RingBuffer,
        sync: SyncPolicy::AllReaders,
        slot_stride: 4096,
        slot_count: 9,
        zone_sizes: vec![200],
    };
    let with = |config| code(Expectations { config: Some(config), ..Expectations::default() });
    assert_eq!(with(config.clone()), 0, "the capacity of a ring and larger zones are compatible");
    assert_eq!(with(ExpectedConfig { policy: Policy::Single, ..config.clone() }), 118);
    assert_eq!(with(ExpectedConfig { sync: SyncPolicy::LatestOnly, ..config.clone() }), 118);
    assert_eq!(with(ExpectedConfig { slot_stride: 64, ..config.clone() }), 118);
    assert_eq!(with(ExpectedConfig { zone_sizes: vec![], ..config.clone() }), 118);
    assert_eq!(with(ExpectedConfig { zone_sizes: vec![257], ..config }), 118);
    assert_eq!(counters(&block), (6, 0));
    let differs =
        |_: &Descriptor| Err(SchemaMismatch { expected: [1; 32], found: [0; 32], first_difference: None });
    assert_eq!(code(Expectations { schema: Some(&differs), ..Expectations::default() }), 117);
    assert_eq!(counters(&block), (7, 1));
}

/// Rules: DH-012, DH-022, L-16.
#[test]
fn a_descriptor_that_changes_meanwhile_is_refused_or_taken_as_it_was() {
    let blocks = Blocks::new();
    let block = blocks.create();
    let whole = block.descriptor().clone();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let region = block.region();
        scope.spawn(move || {
            let count = region.atomic_u32_mut(offset_of!(HeaderPage, slot_count) as u64).unwrap();
            // Each value stays as long as the other.
            for value in [u32::MAX, 8].into_iter().cycle() {
                if stopped.try_recv() != Err(std::sync::mpsc::TryRecvError::Empty) {
                    break;
                }
                count.store(value, Relaxed);
            }
        });
        let mut outcomes = [0; 2];
        let deadline = Instant::now() + Duration::from_secs(60);
        while outcomes.contains(&0) {
            assert!(Instant::now() < deadline, "{outcomes:?}");
            match blocks.attach(&block, Role::Consumer) {
                Ok(attached) => {
                    assert_eq!(attached.descriptor(), &whole);
                    outcomes[0] += 1;
                }
                Err(error) => {
                    assert_eq!(error.code(), 110, "{error}");
                    outcomes[1] += 1;
                }
            }
        }
        drop(stop);
    });
}
