//! Huge pages and locked memory.

use std::fs;
use std::process::Command;

use tidegate_hub::{
    block::{AttachOptions, CreateError, CreateOptions, HugeFailure, HugePages, Role, attach, create},
    layout::PageMode,
};

use crate::{Blocks, name_of, spec};

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

/// A process that may lock no memory goes on without; it is told.
/// Rules: DH-025, N-07.
#[test]
fn memory_that_cannot_be_locked_is_used_all_the_same() {
    use rustix::{
        process::{Resource, Rlimit, setrlimit},
        thread::{CapabilitySet, capabilities, set_capabilities},
    };
    const TEST: &str = "memory::memory_that_cannot_be_locked_is_used_all_the_same";
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
    const TEST: &str = "memory::blocks_on_hugetlbfs_have_their_slots_on_huge_pages";
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
