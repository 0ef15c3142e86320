//! Making blocks: whole or not at all, named, private, and replaced only when nobody has them.

use std::fs;
use std::mem::offset_of;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::Duration;

use tidegate_hub::{
    block::{
        AttachError, AttachOptions, CreateError, CreateOptions, IfExists, Role, attach, create,
        registry::{Place, is_held},
    },
    identity::{Liveness, ProcessKey},
    layout::{
        BlockSpec, BlockUuid, LOCK_ALLOCATED, LOCK_SYSTEM, NO_INDEX, Policy,
        pages::{ConsumerRow, ControlPage, LockRecord},
    },
};
use tidegate_shm::{fork::ForkGuard, sync::Ordering::Relaxed};

use crate::{Blocks, control, name_of, other_process, spec};

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

/// What has taken the place of a block is not removed in its stead.
#[test]
fn a_block_removes_no_file_but_its_own() {
    let blocks = Blocks::new();
    let made = blocks.create();
    let attached = blocks.attach(&made, Role::Recovery).unwrap();
    let other = blocks.create();
    fs::rename(other.path(), made.path()).unwrap();
    for block in [&made, &attached] {
        block.unlink().unwrap();
        assert!(made.path().exists());
    }
    fs::rename(made.path(), other.path()).unwrap();
    other.unlink().unwrap();
    assert_eq!(blocks.names().len(), 0);
    assert!(made.unlink().is_err(), "there is none");
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
