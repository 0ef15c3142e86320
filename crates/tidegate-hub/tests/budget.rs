//! What a value costs on its way: no allocation and no system call (DESIGN law 6).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    env,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use tidegate_hub::{
    config::{BufferPolicy, ConsumerConfig, HubConfig, MetricsConfig, Timeout, WaitStrategy},
    consumer::Consumer,
    layout::{ChannelName, DigestAlg},
    producer::Producer,
};
use tidegate_shm::sync::{Arc, AtomicBool, Ordering};

/// Counts what each thread asks for.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(start, layout) }
    }
}

#[global_allocator]
static GLOBAL: Counting = Counting;

/// A producer and a consumer of this process; every operation is timed, which is the most expensive setting.
fn pair(dir: &Path) -> (Producer, Consumer) {
    let metrics = MetricsConfig { enabled: true, sample_every: 1 };
    let config = HubConfig {
        dir: dir.to_owned(),
        digest_alg: DigestAlg::None,
        metrics,
        ..HubConfig::new(ChannelName::new("budget").unwrap(), BufferPolicy::ring(16), 64)
    };
    let producer = Producer::create(&config).unwrap();
    let config = ConsumerConfig {
        dir: dir.to_owned(),
        max_held: 8,
        wait: WaitStrategy::Spin,
        metrics,
        ..ConsumerConfig::default()
    };
    let consumer = Consumer::attach(&producer.name(), &config).unwrap();
    (producer, consumer)
}

/// One value at a time, eight at once, one that is given up, a full ring, an empty one.
fn exchange(producer: &Producer, consumer: &mut Consumer) {
    let timeout = Timeout::After(Duration::from_secs(10));
    let id = producer.send(b"value", timeout).unwrap();
    let slot = consumer.next(timeout).unwrap();
    let mut bytes = [0; 8];
    assert_eq!((slot.id(), slot.read_into(&mut bytes), &bytes[..5]), (id, 5, &b"value"[..]));
    drop(slot);
    drop(producer.write(timeout).unwrap());
    let mut batch = producer.acquire_write_batch(8, timeout).unwrap();
    for index in 0..8 {
        batch.put_bytes(index, b"value").unwrap();
    }
    batch.commit().unwrap();
    assert_eq!(consumer.acquire_read_batch(8, timeout).unwrap().len(), 8);
    assert!(consumer.try_next().is_err());
    while producer.try_write().map(|slot| slot.commit()).is_ok() {}
    while consumer.try_next().is_ok() {}
}

/// Rules: DH-101, DH-130, S-11, N-25.
#[test]
fn values_cost_no_allocation() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let (producer, mut consumer) = pair(dir.path());
    exchange(&producer, &mut consumer);
    let before = ALLOCATIONS.get();
    for _ in 0..1_000 {
        exchange(&producer, &mut consumer);
        producer.with_write::<_, ()>(Timeout::Immediate, |slot| slot.put_bytes(b"x").map_err(drop)).unwrap();
        consumer.with_next::<_, ()>(Timeout::Immediate, |slot| Ok(slot.len())).unwrap();
    }
    assert_eq!(ALLOCATIONS.get() - before, 0);
    assert!(!vec![1].is_empty() && ALLOCATIONS.get() > before, "the counter counts");
}

/// A thread whose first call of the kernel would be its end makes the exchange.
///
/// Rules: DH-101, DH-243.
#[test]
fn values_cost_no_system_call() {
    const ROLE: &str = "TIDEGATE_TEST_ROLE";
    match env::var(ROLE).as_deref() {
        Ok("exchanging") => assert!(confined(exchange_many), "killed for a system call"),
        Ok("sleeping") => assert!(!confined(|_, _| thread::sleep(Duration::from_millis(1))), "not confined"),
        _ => {
            for role in ["exchanging", "sleeping"] {
                let output = Command::new(env::current_exe().unwrap())
                    .args(["--exact", "values_cost_no_system_call", "--nocapture"])
                    .env(ROLE, role)
                    .output()
                    .unwrap();
                assert!(output.status.success(), "{role}: {}", String::from_utf8_lossy(&output.stderr));
            }
        }
    }
}

fn exchange_many(producer: &Producer, consumer: &mut Consumer) {
    for _ in 0..1_000 {
        exchange(producer, consumer);
    }
}

/// From now on any call of the kernel ends the calling thread. (The kernel's own strict mode
/// also takes the clock away, which is read without a call.)
fn forbid_system_calls() {
    let end = libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: libc::SECCOMP_RET_KILL_THREAD };
    let mut program = [end];
    let filter = libc::sock_fprog { len: 1, filter: program.as_mut_ptr() };
    // SAFETY: a switch without memory.
    let allowed = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    // SAFETY: the filter and its one instruction live until the call returns, which copies them.
    let set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) };
    assert_eq!((allowed, set), (0, 0));
}

/// Whether `work` comes to its end in a thread that is ended by its first system call.
fn confined(work: fn(&Producer, &mut Consumer)) -> bool {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let (producer, mut consumer) = pair(dir.path());
    // What happens once per thread happens before.
    exchange(&producer, &mut consumer);
    let [done, confined] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
    let (told, is_confined) = (done.clone(), confined.clone());
    thread::spawn(move || {
        exchange(&producer, &mut consumer);
        forbid_system_calls();
        is_confined.store(true, Ordering::Release);
        work(&producer, &mut consumer);
        told.store(true, Ordering::Release);
        // Ending a thread takes more calls than it may make.
        loop {
            std::hint::spin_loop();
        }
    });
    let start = Instant::now();
    while !confined.load(Ordering::Acquire) {
        assert!(start.elapsed() < Duration::from_secs(60));
        thread::yield_now();
    }
    let start = Instant::now();
    while !done.load(Ordering::Acquire) && start.elapsed() < Duration::from_secs(5) {
        thread::yield_now();
    }
    done.load(Ordering::Acquire)
}
