//! Flexible zones and shared locks, between threads and between processes that are killed and stopped.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

#[path = "../../../tidegate-shm/tests/children/mod.rs"]
mod children;
mod locks;
mod zones;

use std::{path::Path, sync::Arc, time::Duration};

use tempfile::TempDir;
use tidegate_hub::{
    block::{AttachOptions, Block, CreateOptions, Role, attach, create},
    config::{HubTimeouts, Timeout},
    layout::{BlockSpec, ChannelName, ZoneSpec},
    schema::{HubSchema, ZoneLayout},
    zone::{ZoneCell, Zones},
};
use tidegate_shm::sync::{AtomicI16, AtomicI64, AtomicU8, AtomicU32, AtomicU64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A plain value of a zone.
#[repr(C)]
#[derive(HubSchema, FromBytes, IntoBytes, Immutable, KnownLayout, Debug, Clone, Copy, PartialEq)]
pub struct Pose {
    /// East.
    pub x: f64,
    /// North.
    pub y: f64,
}

/// A zone with every kind of field.
#[repr(C)]
#[derive(ZoneLayout, FromBytes, IntoBytes, KnownLayout, Debug)]
pub struct Telemetry {
    beats: AtomicU64,
    pose: ZoneCell<Pose>,
    temperatures: [AtomicU32; 3],
    trim: AtomicI16,
    mode: AtomicU8,
    _pad0: [u8; 1],
    drift: AtomicI64,
    sum: ZoneCell<u64>,
}

fn zone(name: &str, size: u64, lock: Option<u32>, consumer_writable: bool) -> ZoneSpec {
    ZoneSpec {
        schema_hash: *Telemetry::schema_hash().as_bytes(),
        version: (1, 0),
        lock,
        consumer_writable,
        ..ZoneSpec::untyped(name, size)
    }
}

/// Zone 0: with lock 0, for consumers too. 1: without a lock. 2: too small. 3: untyped.
fn spec() -> BlockSpec {
    BlockSpec {
        max_consumers: 2,
        zones: vec![
            zone("shared", 256, Some(0), true),
            zone("own", 64, None, false),
            zone("small", 16, None, true),
            ZoneSpec { schema_hash: [0; 32], ..zone("untyped", 256, Some(9), true) },
        ],
        ..BlockSpec::ring(ChannelName::new("zones").unwrap(), 2, 64)
    }
}

/// A block in a directory of its own.
struct Bench {
    dir: TempDir,
    block: Arc<Block>,
}

impl Bench {
    fn new() -> Self {
        Self::of(&spec())
    }

    fn of(spec: &BlockSpec) -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let options = CreateOptions { dir: dir.path().to_owned(), ..CreateOptions::default() };
        let block = Arc::new(create(spec, &options).unwrap());
        Self { dir, block }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn attach(&self, role: Role) -> Arc<Block> {
        attach_in(self.path(), role)
    }
}

/// Attaches the only block of a directory.
fn attach_in(dir: &Path, role: Role) -> Arc<Block> {
    let entry = std::fs::read_dir(dir).unwrap().next().unwrap().unwrap();
    let name = entry.file_name().into_string().unwrap();
    let options = AttachOptions { dir: dir.to_owned(), ..AttachOptions::new(role) };
    Arc::new(attach(&name, &options).unwrap())
}

fn zones_of(block: &Arc<Block>) -> Zones {
    Zones::new(block, None, &HubTimeouts::default()).unwrap()
}

fn within(time: Duration) -> Timeout {
    Timeout::After(time)
}

/// A time that is over only if something is broken.
fn soon() -> Timeout {
    within(children::PATIENCE)
}

/// What must not compile, with what the compiler says about it.
///
/// Rules: DH-137, DH-138, DH-146, N-26.
#[test]
fn plain_values_need_a_guard_and_guards_stay_on_their_thread() {
    // Not in what the compiler says, which shows sources of the standard library where they are installed. Were the guard `Send`,
    // both would be meant, and this would not compile.
    trait Never<Which> {
        fn is() {}
    }
    impl<T> Never<()> for T {}
    impl<T: Send> Never<u8> for T {}
    <tidegate_hub::lock::LockGuard<'static> as Never<_>>::is();
    trybuild::TestCases::new().compile_fail("tests/zones/compile_fail/*.rs");
}
