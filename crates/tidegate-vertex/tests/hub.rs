//! The ends of a vertex in channels of the data hub.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod idle;

use std::{
    path::Path,
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use tidegate_hub::{
    config::{BufferPolicy, ConsumerConfig, HubConfig, Timeout},
    consumer::Consumer,
    handover::{Confirm, HandoverOptions},
    layout::{ChannelName, Overflow, SyncPolicy},
    producer::Producer,
};
use tidegate_shm::clock::Nanos;
use tidegate_udf::wire::ids::{EpochId, Generation, PartitionId, Position};
use tidegate_vertex::{
    batch::{Input, Record},
    fence::{FenceTable, Reason, WriteGuard},
    sink::{self, Delivery, Output, OutputIds, Published, Session, Sink, SinkError},
    source::{self, Budget, Polled, Resume, Source, SourceError},
    wake::Waker,
};

const ONLY: PartitionId = PartitionId(0);
const PATIENCE: Duration = Duration::from_secs(60);
const BUDGET: Budget = Budget { records: 7, bytes: 1 << 20, value: 1 << 16 };

/// A source, and what permits its acknowledgements.
struct Reading {
    source: source::hub::Hub,
    woken: Receiver<()>,
    guard: WriteGuard,
}

impl Reading {
    fn open(dir: &Path, keys: &str) -> Result<Self, SourceError> {
        let (wake, woken) = channel();
        let waker = Waker::new(move || wake.send(()).unwrap_or(()));
        let keys = format!("channel = \"numbers\"\ndir = {dir:?}\n{keys}");
        let source = source::hub::Hub::open(&toml::from_str(&keys).unwrap(), waker)?;
        Ok(Self { source, woken, guard: guard(1) })
    }

    /// The next so many records.
    fn take(&mut self, count: usize) -> Vec<Input> {
        let mut inputs = Vec::new();
        while inputs.len() < count {
            match self.source.poll(ONLY, BUDGET).unwrap() {
                Polled::Inputs(more) => inputs.extend(more),
                Polled::Idle => self.woken.recv_timeout(PATIENCE).unwrap(),
                other => panic!("the channel is closed: {other:?}"),
            }
        }
        inputs
    }

    fn ack(&mut self, resume: Position) {
        self.source.ack(ONLY, resume, &self.guard).unwrap();
    }

    fn resume(&mut self, position: Position) -> Resume {
        Resume { position, identity: self.source.identity(ONLY, position).unwrap() }
    }
}

fn guard(generation: u64) -> WriteGuard {
    FenceTable::create(1, 1).unwrap().bind(ONLY, Generation(generation)).unwrap().1
}

fn config(dir: &Path, slots: u32) -> HubConfig {
    let channel = ChannelName::new("numbers").unwrap();
    let mut config = HubConfig::new(channel, BufferPolicy::ring(slots), 512);
    config.dir = dir.to_owned();
    config
}

fn send(producer: &Producer, numbers: std::ops::Range<u64>) {
    for number in numbers {
        producer.send(number.to_string().as_bytes(), Timeout::After(PATIENCE)).unwrap();
    }
}

fn values(inputs: &[Input]) -> Vec<u64> {
    inputs.iter().map(|input| str::from_utf8(&input.record.value).unwrap().parse().unwrap()).collect()
}

/// Rules: VX-830.
#[test]
fn a_slot_is_released_when_its_record_is_committed_and_comes_again_until_then() {
    let dir = tempfile::tempdir().unwrap();
    let producer = Producer::create(&config(dir.path(), 8)).unwrap();
    let mut reading = Reading::open(dir.path(), "").unwrap();
    assert_eq!(reading.source.open(ONLY, None).unwrap(), Position(0));
    send(&producer, 0..8);
    let inputs = reading.take(8);
    assert_eq!(values(&inputs), (0..8).collect::<Vec<_>>());
    assert!(inputs.iter().zip(0..).all(|(input, id)| input.position == Position(id)));
    // All slots are held: there is nothing to read, and no room to write.
    assert!(matches!(reading.source.poll(ONLY, BUDGET).unwrap(), Polled::Idle));
    assert!(producer.try_write().is_err());
    reading.ack(inputs[4].next);
    send(&producer, 8..13);
    assert!(producer.try_write().is_err());
    assert_eq!(values(&reading.take(5)), (8..13).collect::<Vec<_>>());
    drop(reading);
    let mut again = Reading::open(dir.path(), "").unwrap();
    assert_eq!(again.source.open(ONLY, None).unwrap(), Position(5));
    assert_eq!(values(&again.take(8)), (5..13).collect::<Vec<_>>());
}

/// A session that ends gives its place back with what it has not committed, while the vertex lives on: another vertex gets it,
/// or a later session of the same one.
/// Rules: VX-728, VX-742, VX-830.
#[test]
fn after_a_nack_the_records_come_again_to_whoever_reads_then() {
    let dir = tempfile::tempdir().unwrap();
    let producer = Producer::create(&config(dir.path(), 8)).unwrap();
    let mut reading = Reading::open(dir.path(), "").unwrap();
    reading.source.open(ONLY, None).unwrap();
    send(&producer, 0..6);
    reading.take(6);
    reading.ack(Position(2));
    let resume = reading.resume(Position(2));
    let mut other = Reading::open(dir.path(), "").unwrap();
    assert!(other.source.open(ONLY, None).is_err(), "the channel has one reader");
    reading.source.nack(ONLY, Position(2), Nanos::ZERO);
    assert_eq!(producer.consumer_count(), 0);
    assert_eq!(other.source.open(ONLY, None).unwrap(), Position(2));
    assert_eq!(values(&other.take(4)), [2, 3, 4, 5]);
    other.ack(Position(3));
    other.source.nack(ONLY, Position(3), Nanos::ZERO);
    // Nothing was lost, and nothing is left of the first session in the source that gave it back.
    assert!(matches!(reading.source.poll(ONLY, BUDGET).unwrap(), Polled::Idle));
    let resume = Resume { position: Position(3), ..resume };
    assert_eq!(reading.source.open(ONLY, Some(&resume)).unwrap(), Position(3));
    assert_eq!(values(&reading.take(3)), [3, 4, 5]);
    assert_eq!((reading.source.lost(), other.source.lost()), (0, 0));
}

/// A producer that moves the channel asks, and the source answers although nothing is written; what is not committed of the old
/// block stays held there, and the ids go on.
/// Rules: VX-830, VX-833.
#[test]
fn a_source_follows_its_channel_to_another_block() {
    let dir = tempfile::tempdir().unwrap();
    let all = |slots| HubConfig { sync: SyncPolicy::AllReaders, ..config(dir.path(), slots) };
    let old = Producer::create(&all(4)).unwrap();
    let mut reading = Reading::open(dir.path(), "start = \"oldest\"").unwrap();
    reading.source.open(ONLY, None).unwrap();
    send(&old, 0..3);
    assert_eq!(values(&reading.take(3)), [0, 1, 2]);
    let before = reading.resume(Position(2));
    assert!(matches!(reading.source.poll(ONLY, BUDGET).unwrap(), Polled::Idle));
    let options = HandoverOptions { grace: Some(PATIENCE), ..HandoverOptions::default() };
    let mut handover = old.begin_handover(&all(8), options).unwrap();
    reading.woken.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(reading.source.poll(ONLY, BUDGET).unwrap(), Polled::Idle));
    let new = handover.cut().unwrap();
    send(&new, 3..11);
    let inputs = reading.take(8);
    assert_eq!(values(&inputs), (3..11).collect::<Vec<_>>());
    assert!(inputs.iter().zip(3..).all(|(input, id)| input.position == Position(id)));
    assert_ne!(reading.resume(Position(3)).identity, before.identity);
    assert!(new.try_write().is_err(), "all slots of the new block are held");
    assert_eq!(old.consumer_count(), 1, "and those of the old one");
    reading.ack(Position(3));
    assert_eq!(old.consumer_count(), 0);
    reading.ack(Position(4));
    send(&new, 11..12);
    assert_eq!(values(&reading.take(1)), [11]);
    // A vertex that is started again goes on in the new block, wherever the ledger was.
    let resume = Resume { position: Position(4), ..before };
    drop(reading);
    let mut again = Reading::open(dir.path(), "").unwrap();
    assert_eq!(again.source.open(ONLY, Some(&resume)).unwrap(), Position(4));
    assert_eq!(values(&again.take(8)), (4..12).collect::<Vec<_>>());
}

/// Rules: VX-830.
#[test]
fn a_source_does_not_follow_to_a_block_that_keeps_less_than_it_needs() {
    let dir = tempfile::tempdir().unwrap();
    let old = Producer::create(&config(dir.path(), 4)).unwrap();
    let mut reading = Reading::open(dir.path(), "").unwrap();
    reading.source.open(ONLY, None).unwrap();
    let lossy = HubConfig { overflow: Overflow::DropOldest, ..config(dir.path(), 4) };
    let unasked = HandoverOptions { confirm: Confirm::None, ..HandoverOptions::default() };
    let new = old.begin_handover(&lossy, unasked).unwrap().cut().unwrap();
    send(&new, 0..1);
    let error = reading.source.poll(ONLY, BUDGET).unwrap_err().to_string();
    assert!(error.contains("source.reliable is true") && error.contains("DropOldest"), "{error}");
}

/// Rules: VX-830, VX-832, VX-833.
#[test]
fn reading_goes_on_where_the_ledger_is_or_says_what_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let mut all = config(dir.path(), 8);
    all.sync = SyncPolicy::AllReaders;
    let producer = Producer::create(&all).unwrap();
    let mut reading = Reading::open(dir.path(), "start = \"oldest\"").unwrap();
    reading.source.open(ONLY, None).unwrap();
    send(&producer, 0..6);
    reading.take(6);
    let (six, four) = (reading.resume(Position(6)), reading.resume(Position(4)));
    // The ledger is ahead of what was released.
    assert_eq!(reading.source.open(ONLY, Some(&four)).unwrap(), Position(4));
    assert_eq!(values(&reading.take(2)), [4, 5]);
    reading.ack(Position(6));
    drop(reading);
    // Nobody reads: the ring goes on without this consumer.
    let mut other = attach(&producer, dir.path());
    for number in 6..20 {
        send(&producer, number..number + 1);
        while other.try_next().is_ok() {}
    }
    let mut late = Reading::open(dir.path(), "").unwrap();
    let gap = late.source.open(ONLY, Some(&six)).unwrap_err();
    assert!(
        matches!(gap, SourceError::Trimmed { resume: Position(6), found: Position(found), .. } if found > 6),
        "{gap}"
    );
    let mut skipping = Reading::open(dir.path(), "on_gap = \"skip\"").unwrap();
    let first = skipping.source.open(ONLY, Some(&six)).unwrap();
    assert!(first > Position(6) && skipping.source.lost() == first.0 - 6, "{first:?}");
    let beyond = Resume { position: Position(99), ..six.clone() };
    let gap = late.source.open(ONLY, Some(&beyond)).unwrap_err();
    assert!(matches!(gap, SourceError::Gap { resume: Position(99), found: Position(20) }), "{gap}");
    drop((late, skipping, other, producer));
    let _another = Producer::create(&all).unwrap();
    let mut replaced = Reading::open(dir.path(), "").unwrap();
    let error = replaced.source.open(ONLY, Some(&six)).unwrap_err();
    assert!(matches!(error, SourceError::Replaced { .. }), "{error}");
}

fn attach(producer: &Producer, dir: &Path) -> Consumer {
    let config = ConsumerConfig { dir: dir.to_owned(), ..ConsumerConfig::default() };
    Consumer::attach(&producer.name(), &config).unwrap()
}

/// Rules: VX-832.
#[test]
fn a_channel_that_loses_slots_is_read_only_by_who_says_so_and_the_loss_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut lossy = config(dir.path(), 16);
    lossy.overflow = Overflow::DropOldest;
    let producer = Producer::create(&lossy).unwrap();
    let refused = Reading::open(dir.path(), "").err().unwrap().to_string();
    assert!(refused.contains("source.reliable is true") && refused.contains("DropOldest"), "{refused}");
    let mut reading =
        Reading::open(dir.path(), "reliable = false\nstart = \"oldest\"\non_gap = \"skip\"").unwrap();
    reading.source.open(ONLY, None).unwrap();
    send(&producer, 0..4);
    assert_eq!(values(&reading.take(4)), [0, 1, 2, 3]);
    send(&producer, 4..104);
    let rest = reading.take(1);
    assert_eq!(reading.source.lost(), values(&rest)[0] - 4);
    assert!(reading.source.lost() >= 84, "{}", reading.source.lost());
    drop(reading);
    let mut stopping = Reading::open(dir.path(), "reliable = false\nstart = \"oldest\"").unwrap();
    let first = stopping.source.open(ONLY, None).unwrap();
    send(&producer, 104..204);
    let gap = stopping.source.poll(ONLY, BUDGET).unwrap_err();
    assert!(
        matches!(gap, SourceError::Trimmed { resume, found, .. } if resume == first && found > first),
        "{gap}"
    );
}

#[test]
fn a_channel_that_is_not_there_is_an_error_and_one_that_is_closed_ends_when_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let missing = Reading::open(dir.path(), "").err().unwrap().to_string();
    assert!(missing.contains("no channel numbers is in use in"), "{missing}");
    let producer = Producer::create(&config(dir.path(), 8)).unwrap();
    let mut reading = Reading::open(dir.path(), "").unwrap();
    reading.source.open(ONLY, None).unwrap();
    assert!(matches!(reading.source.poll(ONLY, BUDGET).unwrap(), Polled::Idle));
    send(&producer, 0..3);
    reading.woken.recv_timeout(PATIENCE).unwrap();
    producer.close().unwrap();
    assert_eq!(values(&reading.take(3)), [0, 1, 2]);
    assert!(matches!(reading.source.poll(ONLY, BUDGET).unwrap(), Polled::End));
}

/// Rules: VX-831.
#[test]
fn no_more_is_read_than_the_budget_allows() {
    let dir = tempfile::tempdir().unwrap();
    let producer = Producer::create(&config(dir.path(), 8)).unwrap();
    let mut reading = Reading::open(dir.path(), "").unwrap();
    reading.source.open(ONLY, None).unwrap();
    send(&producer, 0..5);
    // Room for two records of a head and eight bytes.
    let budget = Budget { bytes: 80, ..BUDGET };
    for expected in [&[0, 1][..], &[2, 3], &[4]] {
        let Polled::Inputs(inputs) = reading.source.poll(ONLY, budget).unwrap() else {
            panic!("{expected:?}")
        };
        assert_eq!(values(&inputs), expected);
    }
    let long = Budget { value: 0, ..BUDGET };
    send(&producer, 5..6);
    let error = reading.source.poll(ONLY, long).unwrap_err();
    assert!(matches!(error, SourceError::TooLong { position: Position(5), max: 0 }), "{error}");
}

/// Rules: VX-323, VX-904.
#[test]
fn a_source_that_waits_wakes_seldom() {
    let dir = tempfile::tempdir().unwrap();
    let producer = Producer::create(&config(dir.path(), 8)).unwrap();
    let mut reading = Reading::open(dir.path(), "").unwrap();
    reading.source.open(ONLY, None).unwrap();
    assert!(matches!(reading.source.poll(ONLY, BUDGET).unwrap(), Polled::Idle));
    let (woken, most) = idle::idle_wakeups("hub source");
    assert!(woken <= most, "{woken} times, at most {most}");
    assert!(reading.woken.try_recv().is_err(), "the vertex is not woken");
    // And at once for what comes.
    send(&producer, 0..1);
    reading.woken.recv_timeout(PATIENCE).unwrap();
}

/// A sink, and what permits its writes.
struct Writing {
    sink: sink::hub::Hub,
    guard: WriteGuard,
    generation: u64,
}

impl Writing {
    fn open(dir: &Path, keys: &str) -> Result<Self, SinkError> {
        let keys = format!("channel = \"numbers\"\ndir = {dir:?}\nslots = 8\nslot_size = \"512B\"\n{keys}");
        let sink = sink::hub::Hub::open("main", &toml::from_str(&keys).unwrap(), 0xaa)?;
        Ok(Self { sink, guard: guard(1), generation: 1 })
    }

    fn publish(&mut self, outputs: &[Output]) -> Result<Published, SinkError> {
        let session = Session { partition: ONLY, generation: Generation(self.generation), nonce: 1 };
        let ids = OutputIds::new(1, "main");
        let (first, last) = (Position(0), Position(0));
        let delivery = Delivery { session, epoch: EpochId(1), first, last, source: 0, outputs, ids: &ids };
        self.sink.publish(&delivery, &self.guard)
    }
}

fn outputs(numbers: std::ops::Range<u64>) -> Vec<Output> {
    let output = |number: u64| {
        let value = number.to_string().into_bytes();
        let record =
            Record { key: b"key"[..].into(), event_time: Some(number.cast_signed()), ..Record::of(value) };
        Output { position: Position(number), number: 0, record }
    };
    numbers.map(output).collect()
}

/// Rules: VX-751, VX-851.
#[test]
fn what_a_sink_writes_a_source_reads_whole_and_nothing_of_a_session_that_was_over() {
    let dir = tempfile::tempdir().unwrap();
    let mut writing = Writing::open(dir.path(), "").unwrap();
    let mut reading = Reading::open(dir.path(), "format = \"output\"").unwrap();
    reading.source.open(ONLY, None).unwrap();
    writing.publish(&outputs(0..3)).unwrap();
    // A later session, and then a write of the first one that comes late.
    writing.generation = 2;
    writing.publish(&outputs(3..5)).unwrap();
    writing.generation = 1;
    writing.publish(&outputs(5..6)).unwrap();
    writing.generation = 2;
    writing.publish(&outputs(6..7)).unwrap();
    let inputs = reading.take(6);
    assert_eq!(values(&inputs), [0, 1, 2, 3, 4, 6]);
    assert_eq!(inputs[4].record, outputs(4..5)[0].record);
    assert_eq!(reading.source.left_out(), 1);
}

/// Rules: VX-751.
#[test]
fn slots_of_others_are_no_outputs() {
    let dir = tempfile::tempdir().unwrap();
    let producer = Producer::create(&config(dir.path(), 8)).unwrap();
    let mut reading = Reading::open(dir.path(), "format = \"output\"").unwrap();
    reading.source.open(ONLY, None).unwrap();
    send(&producer, 0..1);
    let error = reading.source.poll(ONLY, BUDGET).unwrap_err().to_string();
    assert!(error.contains("slot 0 of channel numbers") && error.contains("format = \"value\""), "{error}");
}

/// Rules: VX-723, VX-851.
#[test]
fn nothing_is_committed_after_a_revoke_and_the_slot_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut writing = Writing::open(dir.path(), "").unwrap();
    let mut consumer = attach(writing.sink.producer(), dir.path());
    writing.publish(&outputs(0..1)).unwrap();
    writing.guard.revoke(Reason::Operator);
    assert!(matches!(writing.publish(&outputs(1..2)), Err(SinkError::Fenced(_))));
    (writing.guard, writing.generation) = (guard(2), 2);
    writing.publish(&outputs(1..2)).unwrap();
    let ids: Vec<u64> = std::iter::from_fn(|| consumer.try_next().ok().map(|slot| slot.id().0)).collect();
    // The second slot was acquired and became a hole.
    assert_eq!(ids, [0, 2]);
}

/// Rules: VX-840, VX-851.
#[test]
fn a_full_ring_holds_the_sink_and_what_no_slot_can_hold_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut writing = Writing::open(dir.path(), "").unwrap();
    let mut consumer = attach(writing.sink.producer(), dir.path());
    let published = writing.publish(&outputs(0..10)).unwrap();
    assert_eq!(published.through, 8);
    assert!(published.held.unwrap().reason.contains("numbers is full"));
    for _ in 0..8 {
        let slot = consumer.try_next().unwrap();
        // The value stands at the beginning, for those who read nothing else.
        assert!(slot.to_vec().starts_with(slot.id().0.to_string().as_bytes()));
    }
    let mut long = outputs(8..10);
    long[0].record.value = vec![b'x'; 513].into();
    let published = writing.publish(&long).unwrap();
    assert_eq!((published.through, published.rejected.len(), published.rejected[0].index), (2, 1, 0));
    assert!(published.rejected[0].reason.contains("a slot of channel numbers has 512"));
    assert_eq!(consumer.try_next().unwrap().id().0, 8);
}

/// Rules: VX-851.
#[test]
fn a_sink_is_the_only_producer_and_takes_over_from_a_dead_one() {
    let dir = tempfile::tempdir().unwrap();
    let producer = Producer::create(&config(dir.path(), 8)).unwrap();
    let error = Writing::open(dir.path(), "sync = \"all\"").err().unwrap().to_string();
    assert!(error.contains("sync is SingleReader; it has to be AllReaders"), "{error}");
    let error = Writing::open(dir.path(), "").err().unwrap().to_string();
    assert!(error.contains("main") && error.contains("numbers"), "{error}");
    producer.close().unwrap();
    let writing = Writing::open(dir.path(), "").unwrap();
    assert_eq!(writing.sink.producer().next_id().0, 0);
}

/// The producer before it left while the channel was closing, which takes no more slots: what is in it is read to its end, and
/// the sink goes on in a new block.
/// Rules: VX-851.
#[test]
fn a_sink_makes_a_new_block_where_the_channel_was_closing() {
    let dir = tempfile::tempdir().unwrap();
    let producer = Producer::create(&config(dir.path(), 8)).unwrap();
    let (name, mut consumer) = (producer.name(), attach(&producer, dir.path()));
    send(&producer, 0..3);
    producer.writer().start_closing().unwrap();
    producer.writer().resign().unwrap();
    drop(producer);
    let mut writing = Writing::open(dir.path(), "").unwrap();
    assert_ne!(writing.sink.producer().name(), name);
    assert!(!dir.path().join(name).exists());
    assert_eq!(writing.publish(&outputs(0..2)).unwrap().through, 2);
    assert_eq!(writing.sink.producer().next_id().0, 2);
    let ids: Vec<u64> = std::iter::from_fn(|| consumer.try_next().ok().map(|slot| slot.id().0)).collect();
    assert_eq!(ids, [0, 1, 2]);
}
