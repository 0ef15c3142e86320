//! As much as goes through: a producer that never waits for consumers, and what a consumer gets and misses of it.
//!
//! `cargo run --release -p tidegate-hub --example counter`; or with `-- produce` in one terminal and `-- consume` in others,
//! until Ctrl-C. The block that it leaves is taken over by the next `produce`, or removed by `tidegate hub reclaim --apply`.
#![allow(clippy::expect_used, reason = "an example may end that way")]

use std::{
    array, env,
    error::Error,
    thread,
    time::{Duration, Instant, SystemTime},
};

use tidegate_hub::{
    config::{BufferPolicy, ConsumerConfig, HubConfig, IfExists, Timeout},
    consumer::Consumer,
    error::AcquireError,
    layout::{BlockUuid, ChannelName, Overflow, SyncPolicy},
    producer::Producer,
    schema::HubSchema,
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const CHANNEL: &str = "counter";
/// Fixed, so that producers and consumers in other terminals find the block without being told its name.
const UUID: &[u8; 16] = b"tidegate.counter";
const LONG: Timeout = Timeout::After(Duration::from_secs(30));
const SECOND: Duration = Duration::from_secs(1);
/// What a demonstration sends.
const RECORDS: u64 = 5_000;

#[derive(HubSchema, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Record {
    count: u64,
    /// Since 1970.
    time_ns: u64,
    values: [f32; 1024],
}

impl Record {
    fn new(count: u64) -> Result<Self> {
        let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        Ok(Self { count, time_ns: time.as_nanos() as u64, values: values(count) })
    }
}

/// What belongs to a count.
fn values(count: u64) -> [f32; 1024] {
    array::from_fn(|index| (count as u32 % 1_000_000 + index as u32) as f32)
}

pub(crate) fn main() -> Result<()> {
    match env::args().nth(1).as_deref() {
        Some("produce") => {
            let uuid = Some(BlockUuid::new(*UUID)?);
            let config = HubConfig { uuid, if_exists: IfExists::Adopt, ..config()? };
            produce(&Producer::create(&config)?, u64::MAX)
        }
        Some("consume") => {
            let name = ChannelName::new(CHANNEL)?.file_name(&BlockUuid::new(*UUID)?);
            consume(attach(&name)?).map(drop)
        }
        _ => demonstrate(),
    }
}

fn demonstrate() -> Result<()> {
    let producer = Producer::create(&config()?)?;
    let consumer = attach(&producer.name())?;
    let seen = thread::scope(|scope| {
        let producing = scope.spawn(move || produce(&producer, RECORDS));
        let seen = consume(consumer);
        producing.join().expect("no panic")?;
        seen
    })?;
    assert_eq!((seen.slots + seen.gaps, seen.wrong), (RECORDS, 0), "what was not read was counted");
    Ok(())
}

fn config() -> Result<HubConfig> {
    let config = HubConfig::typed::<Record>(ChannelName::new(CHANNEL)?, BufferPolicy::ring(64));
    let config = HubConfig { sync: SyncPolicy::AllReaders, overflow: Overflow::DropOldest, ..config };
    Ok(config.high_throughput())
}

fn attach(name: &str) -> Result<Consumer> {
    Ok(Consumer::attach(name, &ConsumerConfig::default())?)
}

fn produce(producer: &Producer, records: u64) -> Result<()> {
    for _ in 0..records {
        // Ids are counts already, and go on where a producer before this one stopped.
        producer.send_record(&Record::new(producer.next_id().0)?, LONG)?;
    }
    Ok(())
}

/// What a consumer saw.
#[derive(Default)]
struct Seen {
    slots: u64,
    gaps: u64,
    wrong: u64,
}

/// Reads until the channel is closed.
fn consume(mut consumer: Consumer) -> Result<Seen> {
    let mut total = Seen::default();
    let mut next = consumer.start_id().0;
    let mut closed = false;
    while !closed {
        let (start, mut seen) = (Instant::now(), Seen::default());
        while !closed && start.elapsed() < SECOND {
            match consumer.next(Timeout::Default) {
                Ok(slot) => {
                    let (id, record) = (slot.id().0, slot.read::<Record>()?);
                    seen.slots += 1;
                    seen.gaps += id - next;
                    seen.wrong += u64::from(record.count != id || record.values != values(id));
                    next = id + 1;
                }
                // The next id says what is missing.
                Err(AcquireError::Lapped { .. } | AcquireError::Timeout) => {}
                Err(AcquireError::Closed { .. }) => closed = true,
                Err(error) => return Err(error.into()),
            }
        }
        seen.print(start.elapsed());
        total.slots += seen.slots;
        total.gaps += seen.gaps;
        total.wrong += seen.wrong;
    }
    Ok(total)
}

impl Seen {
    fn print(&self, time: Duration) {
        let rate = self.slots as f64 / time.as_secs_f64();
        let volume = rate * size_of::<Record>() as f64 / f64::from(1 << 20);
        let verdict = if self.wrong == 0 { "OK" } else { "MISMATCH" };
        println!("{rate:.0} slots/s, {volume:.0} MiB/s, {} gaps, {verdict}", self.gaps);
    }
}
