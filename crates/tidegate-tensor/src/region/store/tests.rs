#[path = "../../../tests/files/mod.rs"]
mod files;

use std::fs;

use tempfile::TempDir;
use tidegate_shm::clock::Nanos;

use self::files::files_below;
use super::create::Obstacle;
use super::*;
use crate::config::{DriverConfig, Profile};
use crate::ids::PoolId;
use crate::layout::{PoolSpec, SlotCount, Stride};

const STREAM: StreamId = StreamId::new(7);
const NOW: Nanos = Nanos(5_000);

fn store(reuse_existing: bool) -> (TempDir, RegionStore) {
    let base = tempfile::tempdir_in("/dev/shm").unwrap();
    let config = DriverConfig::default_node();
    let settings = StoreSettings {
        base_dir: base.path().to_owned(),
        allowed_base_dirs: vec![base.path().to_owned()],
        reuse_existing,
        ..StoreSettings::new(&config.shm, &config.policies)
    };
    let store = RegionStore::open(settings).unwrap();
    (base, store)
}

fn profile(strides: &[u32]) -> Profile {
    let pools = (1..).zip(strides);
    Profile {
        name: "test".to_owned(),
        header_nslots: SlotCount::new(4).unwrap(),
        payload_pools: pools
            .map(|(id, stride)| PoolSpec { pool_id: PoolId::new(id), stride: Stride::new(*stride).unwrap() })
            .collect(),
    }
}

/// Rules: TP-055.
#[test]
fn an_epoch_whose_directory_exists_is_taken_even_when_empty() {
    let (_base, store) = store(false);
    let dir = store.root.create_dirs(&["7"], 0o700).unwrap();
    dir.create_dirs(&["100"], 0o700).unwrap();
    let taken = store.create_at(&dir, STREAM, &profile(&[64]), Epoch::new(100), NOW);
    assert!(matches!(taken, Err(Obstacle::Taken)));
    assert!(files_below(&dir.path().join("100")).is_empty());
}

/// Rules: TP-055.
#[test]
fn existing_files_are_taken_over_only_when_allowed_and_exactly_alike() {
    let (_base, store) = store(true);
    let dir = store.root.create_dirs(&["7"], 0o700).unwrap();
    let epoch = Epoch::new(100);
    let first = store.create_at(&dir, STREAM, &profile(&[64, 128]), epoch, NOW).ok().unwrap();
    let spec = Arc::clone(first.spec());
    drop(first);
    let before = files_below(store.root());
    let content = fs::read(spec.header().path()).unwrap();

    let again = store.create_at(&dir, STREAM, &profile(&[64, 128]), epoch, Nanos(9_000)).ok().unwrap();
    assert_eq!(*again.spec(), spec);
    assert_eq!(fs::read(spec.header().path()).unwrap(), content, "nothing but the activity changes");
    again.refresh_activity(Nanos(9_000));
    assert_ne!(fs::read(spec.header().path()).unwrap(), content);

    // Another geometry, or another stream: neither taken over nor removed, and nothing is left beside it.
    for (stream, strides) in [(STREAM, &[64, 256, 512][..]), (StreamId::new(8), &[64, 128, 64])] {
        let taken = store.create_at(&dir, stream, &profile(strides), epoch, NOW);
        assert!(matches!(taken, Err(Obstacle::Taken)));
        assert_eq!(files_below(store.root()), before);
    }
}

/// Rules: TP-055, TP-239.
#[test]
fn files_of_somebody_else_survive_the_roll_back() {
    let (_base, store) = store(true);
    let dir = store.root.create_dirs(&["7"], 0o700).unwrap();
    let epoch_dir = dir.create_dirs(&["100"], 0o700).unwrap();
    let foreign = epoch_dir.path().join("2.pool");
    fs::write(&foreign, "not ours").unwrap();
    let taken = store.create_at(&dir, STREAM, &profile(&[64, 64, 64]), Epoch::new(100), NOW);
    assert!(matches!(taken, Err(Obstacle::Taken)));
    assert_eq!(files_below(epoch_dir.path()), [foreign.clone()].into());
    assert_eq!(fs::read(foreign).unwrap(), b"not ours");
}

/// Rules: TP-054, TP-122, TP-123.
#[test]
fn the_next_epoch_is_above_everything_that_was() {
    let (_base, store) = store(false);
    let make = |previous, now| {
        let regions = store.create_epoch(STREAM, &profile(&[64]), Epoch::new(previous), Nanos(now)).unwrap();
        regions.spec().epoch().get()
    };
    assert_eq!(make(0, 500), 500);
    assert_eq!(make(0, 500), 501, "above the directory");
    assert_eq!(make(900, 500), 901, "above the previous one");
    assert_eq!(make(0, 2_000), 2_000, "not behind the clock");
}

#[test]
fn discarding_an_epoch_leaves_the_others_and_no_empty_directory() {
    let (_base, store) = store(false);
    let make = |now| store.create_epoch(STREAM, &profile(&[64]), Epoch::NONE, Nanos(now)).unwrap();
    let (first, second) = (make(100), make(200));
    let kept = first.spec().header().path().to_owned();
    store.discard(second);
    assert!(kept.exists());
    store.discard(first);
    assert!(files_below(store.root()).is_empty());
}

/// A profile that no message can describe: two pools with one id.
#[test]
fn a_profile_that_cannot_be_announced_leaves_nothing() {
    let (base, store) = store(false);
    let before = files_below(base.path());
    let mut twice = profile(&[64, 128]);
    twice.payload_pools[1].pool_id = PoolId::new(1);
    let refused = store.create_epoch(STREAM, &twice, Epoch::NONE, NOW);
    assert!(matches!(refused, Err(StoreError::Spec { .. })), "{refused:?}");
    assert_eq!(files_below(base.path()), before);
}
