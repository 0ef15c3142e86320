//! Making and attaching blocks, with files that are not what they should be.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod attaching;
mod finding;
mod making;
mod memory;
mod owners;

use std::fs;
use std::fs::File;
use std::mem::offset_of;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::time::Duration;

use blake2::{Blake2b, Digest, digest::consts::U32};
use tempfile::TempDir;
use tidegate_hub::{
    block::{AttachError, AttachOptions, Block, CreateOptions, Role, attach, create},
    identity::ProcessKey,
    layout::{
        BlockSpec, ChannelName, DESCRIPTOR_LEN, ZoneSpec,
        pages::{ControlPage, MetricsPage},
    },
};
use tidegate_shm::{process::ProcessId, sync::Ordering::Relaxed};

fn spec() -> BlockSpec {
    BlockSpec {
        zones: vec![ZoneSpec { lock: Some(9), consumer_writable: true, ..ZoneSpec::untyped("state", 256) }],
        first_slot_id: 100,
        ..BlockSpec::ring(ChannelName::new("camera").unwrap(), 8, 4096)
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
        $block
            .writer_views()
            .unwrap()
            .control
            .row()
            .u64::<{ std::mem::offset_of!($crate::ControlPage, $field) }>()
    };
}
use control;

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
