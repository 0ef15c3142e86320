//! No allocation per message once the buffers have grown to their size.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::{Duration, Instant};

use tidegate_aeron::{
    Client, ClientOptions, MediaDriver, MediaDriverOptions, OfferError, PublicationOf, Subscription,
};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, counting the calls of each thread.
struct Counting;

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's contract is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is the same.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's contract is the same.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations_of(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.with(Cell::get);
    work();
    ALLOCATIONS.with(Cell::get) - before
}

/// Sends one message each way a publication can, and receives both.
fn exchange<A: tidegate_aeron::LogAccess>(
    publication: &mut PublicationOf<A>,
    subscription: &mut Subscription,
    message: &[u8],
) {
    let started = Instant::now();
    let (mut offered, mut claimed, mut received) = (false, false, 0);
    let is_taken = |result: Result<_, OfferError>| match result {
        Ok(_) => true,
        Err(OfferError::BackPressured | OfferError::AdminAction | OfferError::NotConnected) => false,
        Err(error) => panic!("{error}"),
    };
    while received < 2 {
        offered = offered || is_taken(publication.offer(message));
        let fill = |bytes: &mut [u8]| {
            bytes.fill(1);
            Ok::<_, ()>(())
        };
        claimed = claimed || is_taken(publication.try_claim(64, fill));
        subscription.poll(64, &mut |fragment| received += usize::from(!fragment.data.is_empty())).unwrap();
        assert!(started.elapsed() < Duration::from_secs(20));
    }
}

struct Scratch(std::path::PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
        let _ = std::fs::remove_file(self.0.with_extension("lock"));
    }
}

#[test]
fn sending_and_receiving_allocate_nothing_after_warming_up() {
    let scratch = Scratch(format!("/dev/shm/tidegate-aeron-alloc-{}", std::process::id()).into());
    let driver = MediaDriver::launch(&MediaDriverOptions::new(&scratch.0)).unwrap();
    let client = Client::connect(&ClientOptions::new(driver.dir())).unwrap();
    let wait = Duration::from_secs(20);
    let mut subscription = client.add_subscription("aeron:ipc", 1, wait).unwrap();
    let mut shared = client.add_publication("aeron:ipc", 1, wait).unwrap();
    let mut exclusive = client.add_exclusive_publication("aeron:ipc", 1, wait).unwrap();
    for message in [&[7_u8; 64][..], &[7_u8; 40_000][..]] {
        exchange(&mut shared, &mut subscription, message);
        exchange(&mut exclusive, &mut subscription, message);
        let count = allocations_of(|| {
            for _ in 0..1_000 {
                exchange(&mut shared, &mut subscription, message);
                exchange(&mut exclusive, &mut subscription, message);
            }
        });
        assert_eq!(count, 0, "with messages of {} bytes", message.len());
    }
    assert!(allocations_of(|| drop(vec![0_u8; 8])) > 0, "the counter does not count");
}
