//! Making and attaching blocks, with files that are not what they should be.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::{
    fs::{self, File},
    mem::offset_of,
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown},
    path::PathBuf,
    process::{Child, Command},
    time::{Duration, Instant},
};

use blake2::{Blake2b, Digest, digest::consts::U32};
use tempfile::TempDir;
use tidegate_hub::{
    block::{
        AttachError, AttachOptions, Block, CreateError, CreateOptions, Expectations, ExpectedConfig,
        HugeFailure, HugePages, IfExists, Role, SchemaMismatch, Trust, attach, create,
        registry::{Place, is_held},
    },
    identity::{Kernel, Liveness, ProcessKey, liveness},
    layout::{
        BlockSpec, BlockUuid, ChannelName, DESCRIPTOR_LEN, Descriptor, DigestAlg, DigestPolicy, Identity,
        LOCK_ALLOCATED, LOCK_SYSTEM, NO_INDEX, OnHeld, Orphan, Overflow, PageMode, Policy, SchemaInfo,
        Secret, SecurityLevel, SyncPolicy, ZoneSpec,
        pages::{ConsumerRow, ControlPage, HeaderPage, LockRecord, MetricsPage, SlotRecord},
    },
};
use tidegate_shm::{fork::ForkGuard, process::ProcessId, sync::Ordering::Relaxed};

fn spec() -> BlockSpec {
    BlockSpec {
        channel: ChannelName::new("camera").unwrap(),
        policy: Policy::RingBuffer,
        sync: SyncPolicy::AllReaders,
        overflow: Overflow::Block,
        orphan: Orphan::Retain,
        on_held: OnHeld::Wait,
        digest_alg: DigestAlg::Blake3,
        digest_policy: DigestPolicy::Manual,
        slot_count: 8,
        slot_size: 4096,
        max_consumers: 8,
        zones: vec![ZoneSpec {
            name: "state".to_owned(),
            size: 256,
            schema_hash: [0; 32],
            version: (0, 0),
            text_index: None,
            lock: Some(9),
            consumer_writable: true,
        }],
        first_slot_id: 100,
        security: SecurityLevel::None,
        key_epoch: 1,
        schema: SchemaInfo::default(),
        identity: Identity::default(),
        predecessor: None,
    }
}

/// A directory of blocks.
struct Blocks {
    dir: TempDir,
}

impl Blocks {
    fn new() -> Self {
        Self { dir: tempfile::tempdir_in("/dev/shm").unwrap() }
    }

    fn create_options(&self) -> CreateOptions<'static> {
        CreateOptions { dir: self.dir.path().to_owned(), ..CreateOptions::default() }
    }

    fn create(&self) -> Block {
        create(&spec(), &self.create_options()).unwrap()
    }

    fn options(&self, role: Role) -> AttachOptions<'static> {
        let init_wait = Duration::from_millis(20);
        AttachOptions { dir: self.dir.path().to_owned(), init_wait, ..AttachOptions::new(role) }
    }

    fn attach(&self, block: &Block, role: Role) -> Result<Block, AttachError> {
        attach(&name_of(block), &self.options(role))
    }

    fn code(&self, block: &Block) -> u16 {
        self.attach(block, Role::Consumer).map_or_else(|error| error.code(), |_| 0)
    }

    fn names(&self) -> Vec<PathBuf> {
        fs::read_dir(self.dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect()
    }
}

fn name_of(block: &Block) -> String {
    block.descriptor().file_name()
}

/// Changes bytes of the header page in the file and makes the digest fit again.
fn forge(block: &Block, at: usize, bytes: &[u8]) {
    let file = File::options().read(true).write(true).open(block.path()).unwrap();
    file.write_all_at(bytes, at as u64).unwrap();
    let mut descriptor = [0; DESCRIPTOR_LEN];
    file.read_exact_at(&mut descriptor, 0).unwrap();
    let digest = Blake2b::<U32>::digest(&descriptor[..0x1FE0]);
    file.write_all_at(&digest, 0x1FE0).unwrap();
}

macro_rules! control {
    ($block:expr, $field:ident) => {
        $block.writer_views().unwrap().control.row().u64::<{ offset_of!(ControlPage, $field) }>()
    };
}

fn set_state(block: &Block, state: u32) {
    let control = block.writer_views().unwrap().control;
    control.row().u32::<{ offset_of!(ControlPage, init_state) }>().store(state, Relaxed);
}

fn counters(block: &Block) -> (u64, u64) {
    let metrics = block.inspector_views().unwrap().metrics;
    (
        metrics.row().u64::<{ offset_of!(MetricsPage, attach_rejections) }>().load(Relaxed),
        metrics.row().u64::<{ offset_of!(MetricsPage, schema_mismatch_count) }>().load(Relaxed),
    )
}

/// A process that does nothing, and its key.
fn other_process() -> (Child, ProcessKey) {
    let child = Command::new("sleep").arg("600").spawn().unwrap();
    let id = ProcessId::of(child.id()).unwrap();
    (child, ProcessKey::new(id.pid, id.start_time).unwrap())
}

/// Rules: DH-001, DH-013, DH-019, DH-020, L-23, N-03.
#[test]
fn a_new_block_is_complete_private_and_named_by_its_uuid() {
    let blocks = Blocks::new();
    let [block, again] = [blocks.create(), blocks.create()];
    assert_ne!(name_of(&block), name_of(&again), "a second block of the channel gets in nobody's way");
    assert_eq!(blocks.names().len(), 2);
    assert_eq!(fs::metadata(block.path()).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(fs::metadata(block.path()).unwrap().len(), 77_824);
    let key = ProcessKey::current().unwrap();
    assert_eq!((block.own_key(), control!(block, writer_owner).load(Relaxed)), (key, key.word()));
    assert_eq!(control!(block, writer_epoch).load(Relaxed), 1);
    for word in [
        control!(block, write_index).load(Relaxed),
        control!(block, commit_index).load(Relaxed),
        control!(block, read_index).load(Relaxed),
        control!(block, floor_intent).load(Relaxed),
    ] {
        assert_eq!(word, 100);
    }
    let locks = block.inspector_views().unwrap().locks;
    let lock = |index: u32| {
        let row = locks.row(index).unwrap();
        let flags = row.u32::<{ offset_of!(LockRecord, flags) }>().load(Relaxed);
        (flags, row.u32::<{ offset_of!(LockRecord, zone_index) }>().load(Relaxed))
    };
    assert_eq!((lock(0), lock(7)), ((LOCK_ALLOCATED | LOCK_SYSTEM, NO_INDEX), (5, NO_INDEX)));
    assert_eq!((lock(8), lock(9), lock(31)), ((0, NO_INDEX), (LOCK_ALLOCATED, 0), (0, NO_INDEX)));
    // From the consumer table to the end nothing has been written.
    let geometry = &block.descriptor().geometry;
    let rest = geometry.total_size - geometry.consumers().offset;
    let bytes = block.region().span(geometry.consumers().offset, rest).unwrap().to_vec();
    assert!(bytes.iter().all(|byte| *byte == 0));
}

/// Rules: N-49.
#[test]
fn no_mapping_of_a_block_can_be_executed() {
    let blocks = Blocks::new();
    let block = blocks.create();
    let _roles = [Role::Consumer, Role::Inspector].map(|role| blocks.attach(&block, role).unwrap());
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let name = name_of(&block);
    let rights: Vec<&str> = maps
        .lines()
        .filter(|line| line.ends_with(&name))
        .map(|line| line.split_whitespace().nth(1).unwrap())
        .collect();
    assert!(rights.len() >= 3 && rights.iter().all(|rights| !rights.contains('x')), "{rights:?}");
    // What must not be decoded by accident is fuzzed; how it is trusted is said where people look.
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for (file, part) in [
        ("fuzz/Cargo.toml", "hub_broker"),
        ("fuzz/Cargo.toml", "hub_schema"),
        ("docs/guides/hub/security.md", "It is no barrier against code that runs as the same user"),
    ] {
        let text = fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(text.contains(part), "{file}");
    }
}

/// Rules: DH-010, DH-012, DH-022.
#[test]
fn each_role_sees_the_block_with_its_rights() {
    let blocks = Blocks::new();
    let mut block = blocks.create();
    block.slot_mut(3).unwrap().write_at(0, b"frame").unwrap();
    let consumer = blocks.attach(&block, Role::Consumer).unwrap();
    let inspector = blocks.attach(&block, Role::Inspector).unwrap();
    assert_eq!(consumer.descriptor(), block.descriptor());
    assert_eq!(&consumer.slot(3).unwrap().to_vec()[..5], b"frame");
    assert!(consumer.check().is_ok() && inspector.findings().is_empty());
    assert!(consumer.slot(8).is_err() && consumer.slot(u32::MAX).is_err());

    assert!(consumer.slot_mut(0).is_err() && consumer.writer_views().is_err());
    assert!(inspector.consumer_views().is_err() && inspector.zone_mut(0).is_none());
    let row = consumer.consumer_views().unwrap().consumers;
    row.row(7).unwrap().u64::<{ offset_of!(ConsumerRow, cursor) }>().store(5, Relaxed);
    let seen = inspector.inspector_views().unwrap().consumers;
    assert_eq!(seen.row(7).unwrap().u64::<{ offset_of!(ConsumerRow, cursor) }>().load(Relaxed), 5);
    consumer.zone_mut(0).unwrap().fill(4);
    assert_eq!(inspector.zone(0).unwrap().to_vec(), [4; 256]);
    assert!(inspector.zone(1).is_none());

    // I-10.
    assert!(matches!(blocks.attach(&block, Role::Writer), Err(AttachError::Locked)));
    block.release_writer();
    assert!(blocks.attach(&block, Role::Writer).unwrap().writer_views().is_ok());
}

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

/// Rules: DH-017, DH-034, DH-038, L-24.
#[test]
fn only_a_deserted_block_is_replaced() {
    let blocks = Blocks::new();
    let uuid = BlockUuid::new([9; 16]).unwrap();
    let options = |if_exists| CreateOptions { uuid: Some(uuid), if_exists, ..blocks.create_options() };
    let refused = |if_exists| match create(&spec(), &options(if_exists)) {
        Err(CreateError::AlreadyExists { owner, liveness, .. }) => (owner, liveness),
        other => panic!("{other:?}"),
    };
    let block = create(&spec(), &options(IfExists::Fail)).unwrap();
    assert!(matches!(create(&spec(), &options(IfExists::Fail)), Err(CreateError::Locked)));
    let guard = ForkGuard::new().unwrap();
    let (own, words) = (block.own_key(), block.writer_views().unwrap());
    drop(block);
    assert!(!is_held(&uuid, Place::Writer, guard));
    let (mut writer, writer_key) = other_process();
    let (mut reader, reader_key) = other_process();
    let owner = words.control.row().u64::<{ offset_of!(ControlPage, writer_owner) }>();
    owner.store(writer_key.word(), Relaxed);
    assert_eq!(refused(IfExists::Fail), (Some(writer_key), Liveness::Alive));
    assert_eq!(refused(IfExists::ReplaceIfDead), (Some(writer_key), Liveness::Alive));

    writer.kill().unwrap();
    writer.wait().unwrap();
    let row = words.consumers.row(5).unwrap();
    row.u64::<{ offset_of!(ConsumerRow, owner) }>().store(reader_key.word(), Relaxed);
    row.u64::<{ offset_of!(ConsumerRow, reg) }>().store(1 << 8 | 2, Relaxed);
    assert_eq!(refused(IfExists::Fail), (Some(writer_key), Liveness::Dead));
    assert_eq!(refused(IfExists::ReplaceIfDead), (Some(writer_key), Liveness::Dead), "a consumer lives");
    reader.kill().unwrap();
    reader.wait().unwrap();
    row.u32::<{ offset_of!(ConsumerRow, flags) }>().store(1, Relaxed);
    refused(IfExists::ReplaceIfDead);
    row.u32::<{ offset_of!(ConsumerRow, flags) }>().store(0, Relaxed);
    let before = fs::metadata(&blocks.names()[0]).unwrap().ino();
    let replaced = create(&spec(), &options(IfExists::ReplaceIfDead)).unwrap();
    assert_ne!(fs::metadata(replaced.path()).unwrap().ino(), before);
    assert_eq!((blocks.names().len(), control!(replaced, writer_owner).load(Relaxed)), (1, own.word()));
}

/// Rules: DH-033, I-02.
#[test]
fn a_zombie_is_dead() {
    let (mut child, key) = other_process();
    assert_eq!(liveness(&Kernel, key), Liveness::Alive);
    child.kill().unwrap();
    let stat = format!("/proc/{}/stat", key.pid());
    let deadline = Instant::now() + Duration::from_secs(60);
    while !fs::read_to_string(&stat).unwrap().contains(") Z ") {
        assert!(Instant::now() < deadline, "not a zombie");
        std::thread::yield_now();
    }
    assert_eq!(liveness(&Kernel, key), Liveness::Dead);
    child.wait().unwrap();
    assert_eq!(liveness(&Kernel, key), Liveness::Dead);
}

/// Rules: DH-016, L-21.
#[test]
fn whoever_looks_during_creation_sees_nothing_or_a_whole_block() {
    for byte in 1..40 {
        let blocks = Blocks::new();
        let uuid = BlockUuid::new([byte; 16]).unwrap();
        let options = CreateOptions { uuid: Some(uuid), ..blocks.create_options() };
        let name = spec().channel.file_name(&uuid);
        let looking = AttachOptions { init_wait: Duration::ZERO, ..blocks.options(Role::Consumer) };
        std::thread::scope(|scope| {
            let seen = scope.spawn(move || {
                loop {
                    match attach(&name, &looking) {
                        Err(AttachError::Open(_)) => {}
                        other => return other.map(|_| ()),
                    }
                }
            });
            let _block = create(&spec(), &options).unwrap();
            seen.join().unwrap().unwrap();
        });
    }
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
            while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                count.store(u32::MAX, Relaxed);
                count.store(8, Relaxed);
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

/// L-27 on base pages, L-28.
/// Rules: DH-026, DH-029, DH-030, L-27, L-28.
#[test]
fn huge_pages_are_tried_above_the_threshold_and_failing_is_told() {
    let blocks = Blocks::new();
    let made = |huge_pages, huge_page_threshold| {
        let options = CreateOptions { huge_pages, huge_page_threshold, ..blocks.create_options() };
        create(&spec(), &options)
    };
    let failure = |huge_pages, threshold| made(huge_pages, threshold).unwrap().huge_failure();
    let slots = 8 * 4096;
    assert_eq!(failure(HugePages::Auto, slots), None, "not above the threshold");
    assert_eq!(failure(HugePages::Off, 0), None);
    // The slots of this block are too small for a huge page, whatever the system permits.
    assert!(failure(HugePages::Auto, slots - 1).is_some());
    assert!(failure(HugePages::On, u64::MAX).is_some());
    let before = blocks.names().len();
    let required = made(HugePages::Require, u64::MAX).unwrap_err();
    assert!(
        matches!(
            required,
            CreateError::NoHugePages { reason: HugeFailure::NotPermitted | HugeFailure::NotGiven }
        ),
        "{required:?}"
    );
    assert_eq!(blocks.names().len(), before, "nothing is left behind");
    assert_eq!(made(HugePages::On, 0).unwrap().descriptor().page_mode, PageMode::Base);
}

/// Rules: DH-095.
#[test]
fn a_wrong_configuration_makes_nothing_and_names_every_field() {
    let blocks = Blocks::new();
    let wrong = BlockSpec { slot_size: 0, max_consumers: 33, policy: Policy::DoubleBuffer, ..spec() };
    let refused = create(&wrong, &blocks.create_options()).unwrap_err();
    assert_eq!(refused.code(), 153);
    for field in ["slot_size", "max_consumers", "slot_count"] {
        assert!(refused.to_string().contains(field), "{refused}");
    }
    assert!(blocks.names().is_empty());
}

/// A process that may lock no memory goes on without; it is told.
/// Rules: DH-025, N-07.
#[test]
fn memory_that_cannot_be_locked_is_used_all_the_same() {
    use rustix::{
        process::{Resource, Rlimit, setrlimit},
        thread::{CapabilitySet, capabilities, set_capabilities},
    };
    const TEST: &str = "memory_that_cannot_be_locked_is_used_all_the_same";
    if std::env::var_os("TIDEGATE_TEST_LIMITED").is_none() {
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", TEST])
            .env("TIDEGATE_TEST_LIMITED", "1")
            .status();
        return assert!(status.unwrap().success());
    }
    let mut sets = capabilities(None).unwrap();
    sets.effective.remove(CapabilitySet::IPC_LOCK);
    set_capabilities(None, sets).unwrap();
    setrlimit(Resource::Memlock, Rlimit { current: Some(0), maximum: Some(0) }).unwrap();
    let blocks = Blocks::new();
    let log = Log::default();
    let block = tracing::subscriber::with_default(log.clone(), || {
        create(&spec(), &CreateOptions { lock_memory: true, ..blocks.create_options() }).unwrap()
    });
    assert!(!block.is_memory_locked());
    assert_eq!(log.warnings(), 1);
    block.slot_mut(0).unwrap().fill(1);
    let options = AttachOptions { lock_memory: true, ..blocks.options(Role::Consumer) };
    let consumer = attach(&name_of(&block), &options).unwrap();
    assert!(!consumer.is_memory_locked());
    assert_eq!(consumer.slot(0).unwrap().to_vec(), [1; 4096]);
}

/// Counts what is logged as a warning.
#[derive(Clone, Default)]
struct Log(std::sync::Arc<std::sync::Mutex<usize>>);

impl Log {
    fn warnings(&self) -> usize {
        *self.0.lock().unwrap()
    }
}

impl tracing::Subscriber for Log {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        *self.0.lock().unwrap() += usize::from(*event.metadata().level() == tracing::Level::WARN);
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

/// Without the process table nobody can say who he is, and takes no part. In a mount namespace where it is covered.
/// Rules: DH-032, N-08.
#[test]
fn who_cannot_say_who_he_is_takes_no_part() {
    const TEST: &str = "who_cannot_say_who_he_is_takes_no_part";
    const PLACE: &str = "TIDEGATE_TEST_COVERED";
    let Some(place) = std::env::var_os(PLACE) else {
        let blocks = Blocks::new();
        let _block = blocks.create();
        // The binary is started by its path, which does not lead through /proc.
        let script = "mount -t tmpfs none /proc && exec \"$0\" --exact \"$1\"";
        let output = Command::new("unshare")
            .args(["--mount", "sh", "-c", script])
            .arg(std::env::current_exe().unwrap())
            .arg(TEST)
            .env(PLACE, blocks.dir.path())
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && told.contains("1 passed"),
            "this test mounts a tmpfs and needs root: {told}"
        );
        return;
    };
    let dir = PathBuf::from(place);
    let name = tidegate_hub::block::names(&dir).unwrap().remove(0);
    let refused =
        create(&spec(), &CreateOptions { dir: dir.clone(), ..CreateOptions::default() }).unwrap_err();
    assert!(matches!(refused, CreateError::Identity(_)), "{refused:?}");
    for role in [Role::Consumer, Role::Writer] {
        let options = AttachOptions { dir: dir.clone(), ..AttachOptions::new(role) };
        assert_eq!(attach(&name, &options).unwrap_err().code(), 123, "{role:?}");
    }
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
}

/// A pid that was given to another process: in a pid namespace, where the next one can be chosen.
/// Rules: DH-033, I-04.
#[test]
fn a_reused_pid_is_another_process() {
    const TEST: &str = "a_reused_pid_is_another_process";
    const INSIDE: &str = "TIDEGATE_TEST_INSIDE";
    if std::env::var_os(INSIDE).is_none() {
        let output = Command::new("unshare")
            .args(["--pid", "--fork", "--mount-proc"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", TEST])
            .env(INSIDE, "1")
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && told.contains("1 passed"),
            "this test makes a pid namespace and needs root: {told}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        return;
    }
    let (mut first, old) = other_process();
    assert_eq!(liveness(&Kernel, old), Liveness::Alive);
    first.kill().unwrap();
    first.wait().unwrap();
    assert_eq!(liveness(&Kernel, old), Liveness::Dead);
    // Start times are counted in hundredths of a second; two processes in one would have one key.
    std::thread::sleep(Duration::from_millis(30));
    fs::write("/proc/sys/kernel/ns_last_pid", (old.pid() - 1).to_string()).unwrap();
    let (mut second, new) = other_process();
    assert_eq!((new.pid(), new == old), (old.pid(), false));
    assert_eq!((liveness(&Kernel, old), liveness(&Kernel, new)), (Liveness::Dead, Liveness::Alive));
    second.kill().unwrap();
    second.wait().unwrap();
}

/// Ages from another time namespace cannot be told, and nobody there is judged.
/// Rules: DH-008, DH-034, N-50.
#[test]
fn ages_of_another_time_namespace_are_unknown() {
    use tidegate_hub::inspect::Inspector;
    let blocks = Blocks::new();
    let block = blocks.create();
    let (mut other, key) = other_process();
    control!(block, writer_owner).store(key.word(), Relaxed);
    let look = || Inspector::open(&name_of(&block), &blocks.options(Role::Inspector)).unwrap();
    let here = look();
    assert!(here.writer().heartbeat_age.is_some());
    assert_eq!(here.writer().liveness, Liveness::Alive);
    forge(&block, offset_of!(HeaderPage, timens_inode), &7_u64.to_le_bytes());
    let there = look();
    assert_eq!(there.writer().heartbeat_age, None);
    assert_eq!(there.writer().liveness, Liveness::Unknown);
    assert!(
        there.findings().iter().all(|finding| finding.severity() < tidegate_hub::inspect::Severity::Problem)
    );
    other.kill().unwrap();
    other.wait().unwrap();
    assert_eq!(
        there.writer().liveness,
        Liveness::Unknown,
        "the death of somebody there cannot be told either"
    );
}

/// Rules: DH-025.
#[test]
fn memory_is_locked_when_asked_for() {
    let blocks = Blocks::new();
    let locked = create(&spec(), &CreateOptions { lock_memory: true, ..blocks.create_options() }).unwrap();
    let options = AttachOptions { lock_memory: true, ..blocks.options(Role::Consumer) };
    let smaps = || fs::read_to_string("/proc/self/smaps").unwrap();
    assert!(locked.is_memory_locked() && attach(&name_of(&locked), &options).unwrap().is_memory_locked());
    assert!(smaps().contains(" lo "), "the kernel's flag of a locked mapping");
    assert!(!blocks.create().is_memory_locked());
}

/// L-27 on hugetlbfs, in a mount namespace of its own.
/// Rules: DH-026, DH-027, DH-029, L-27.
#[test]
fn blocks_on_hugetlbfs_have_their_slots_on_huge_pages() {
    const PLACE: &str = "TIDEGATE_TEST_HUGE_PLACE";
    const TEST: &str = "blocks_on_hugetlbfs_have_their_slots_on_huge_pages";
    let blocks = Blocks::new();
    let Some(place) = std::env::var_os(PLACE) else {
        let script =
            "mount -t hugetlbfs -o size=4M none \"$TIDEGATE_TEST_HUGE_PLACE\" && exec \"$0\" --exact \"$1\"";
        let output = Command::new("unshare")
            .args(["--mount", "sh", "-c", script])
            .arg(std::env::current_exe().unwrap())
            .arg(TEST)
            .env(PLACE, blocks.dir.path())
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && told.contains("1 passed"),
            "this test mounts hugetlbfs and needs root and two free huge pages: {told}"
        );
        return;
    };
    const HUGE: u64 = 2 << 20;
    let options = CreateOptions {
        huge_dir: Some(place.clone().into()),
        huge_pages: HugePages::Require,
        ..blocks.create_options()
    };
    let block = create(&spec(), &options).unwrap();
    let descriptor = block.descriptor();
    assert_eq!((descriptor.page_mode, u64::from(descriptor.page_size)), (PageMode::Hugetlb, HUGE));
    assert_eq!((descriptor.geometry.slots().offset, descriptor.geometry.total_size), (HUGE, 2 * HUGE));
    assert!(blocks.names().is_empty(), "it is in the mount");
    block.slot_mut(7).unwrap().fill(3);
    let options = AttachOptions { huge_dir: Some(place.into()), ..blocks.options(Role::Consumer) };
    let consumer = attach(&name_of(&block), &options).unwrap();
    assert_eq!(consumer.slot(7).unwrap().to_vec(), [3; 4096]);
    assert!(consumer.slot_mut(7).is_err() && consumer.zone_mut(0).is_some());
    // The mount has two pages only: creation falls back without Require, and fails with it.
    let again = CreateOptions { huge_dir: options.huge_dir.clone(), ..blocks.create_options() };
    let on = create(&spec(), &CreateOptions { huge_pages: HugePages::On, ..again.clone() }).unwrap();
    assert_eq!((on.descriptor().page_mode, on.huge_failure().is_some()), (PageMode::Base, true));
    let required = create(&spec(), &CreateOptions { huge_pages: HugePages::Require, ..again }).unwrap_err();
    assert!(matches!(required, CreateError::NoHugePages { .. }), "{required:?}");
}
