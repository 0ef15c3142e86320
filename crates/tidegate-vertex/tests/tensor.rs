//! The ends of a vertex in tensor streams: a driver, producers and readers on one in-memory bus, each with a thread of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod idle;

use std::{
    ops::Range,
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tidegate_shm::{clock::Nanos, sync::Arc};
use tidegate_tensor::{
    agent::{AgentRunner, IdleStrategy},
    client::{
        Client, Consumer, ConsumerConfig, Context, Producer, ProducerConfig, PublishError, ReadOutcome,
    },
    clock::SystemClock,
    config::{DriverConfig, Profile, StreamEntry},
    driver::{DriverAgent, DriverAgentError},
    frame::FrameMeta,
    ids::{PoolId, StreamId},
    layout::{PoolSpec, SlotCount, Stride},
    tensor::{Dtype, MajorOrder, TensorLayout},
    transport::memory::MemoryBus,
};
use tidegate_udf::wire::{
    ids::{EpochId, Generation, PartitionId, Position},
    record::headers,
};
use tidegate_vertex::{
    batch::{Input, Record},
    config::Pipeline,
    fence::{FenceTable, Reason, WriteGuard},
    sink::{self, Delivery, Output, OutputIds, Published, Session, Sink, SinkError},
    source::{self, Budget, Polled, Resume, Source, SourceError},
    tensor::{Link, TensorError},
    wake::Waker,
};

const ONLY: PartitionId = PartitionId(0);
const PATIENCE: Duration = Duration::from_secs(60);
const BUDGET: Budget = Budget { records: 7, bytes: 1 << 20, value: 1 << 16 };
const CAM: StreamId = StreamId::new(10_000);
const SLOTS: u32 = 8;
/// Short, so that what is away is noticed soon.
const PERIOD: Duration = Duration::from_millis(100);

/// A bus, a driver on it, and a place for its regions.
struct Stage {
    driver: Option<AgentRunner<DriverAgentError>>,
    bus: MemoryBus,
    base: TempDir,
}

impl Stage {
    fn new() -> Self {
        let base = tempfile::Builder::new().prefix("tidegate-vertex-").tempdir_in("/dev/shm").unwrap();
        let mut stage = Self { driver: None, bus: MemoryBus::new(), base };
        stage.start_driver();
        stage
    }

    fn start_driver(&mut self) {
        let mut config = DriverConfig::default_node();
        config.shm.base_dir = self.base.path().to_owned();
        config.shm.allowed_base_dirs = vec![self.base.path().to_owned()];
        config.policies.announce_period = PERIOD;
        config.policies.lease_keepalive_interval = PERIOD;
        // A test machine may stand still.
        config.policies.lease_expiry_grace_intervals = 100;
        let pool = |id, stride| PoolSpec { pool_id: PoolId::new(id), stride: Stride::new(stride).unwrap() };
        config.profiles = vec![Profile {
            name: "small".to_owned(),
            header_nslots: SlotCount::new(SLOTS).unwrap(),
            payload_pools: vec![pool(1, 4096), pool(2, 64)],
        }];
        config.streams =
            vec![StreamEntry { name: "cam".to_owned(), stream_id: CAM, profile: "small".to_owned() }];
        let agent = DriverAgent::start(config, &self.bus, Arc::new(SystemClock)).unwrap();
        self.driver = Some(AgentRunner::start(agent, IdleStrategy::default()).unwrap());
    }

    fn context(&self) -> Context {
        Context {
            allowed_base_dirs: vec![self.base.path().to_owned()],
            announce_period: PERIOD,
            keepalive_interval: PERIOD,
            lease_grace_intervals: 100,
            ..Context::default()
        }
    }

    fn link(&self, stream: StreamId) -> Option<Box<Link>> {
        Some(Box::new(Link { stream, context: self.context(), connector: Arc::new(self.bus.clone()) }))
    }

    fn client(&self) -> Client {
        Client::start(self.context(), Arc::new(self.bus.clone()), Box::new(|_| {})).unwrap()
    }

    fn writer(&self) -> Writer {
        let client = self.client();
        let config = ProducerConfig {
            stream: Some(CAM),
            drop_unconnected_descriptors: true,
            ..ProducerConfig::default()
        };
        let producer = client.add_producer(config).unwrap().wait(PATIENCE).unwrap();
        Writer { producer, _client: client }
    }

    fn source_of(&self, stream: StreamId, keys: &str) -> Result<source::tensor::Tensor, SourceError> {
        let mut keys: source::tensor::TensorSource =
            toml::from_str(&format!("stream = {stream}\n{keys}")).unwrap();
        keys.stream.link = self.link(stream);
        source::tensor::Tensor::open(&keys, Waker::new(|| {}))
    }

    fn reading(&self, keys: &str) -> Reading {
        let (wake, woken) = channel();
        let mut keys: source::tensor::TensorSource =
            toml::from_str(&format!("stream = \"cam\"\n{keys}")).unwrap();
        keys.stream.link = self.link(CAM);
        let waker = Waker::new(move || wake.send(()).unwrap_or(()));
        Reading { source: source::tensor::Tensor::open(&keys, waker).unwrap(), woken }
    }

    fn writing(&self, keys: &str) -> Result<Writing, SinkError> {
        let mut keys: sink::tensor::TensorSink =
            toml::from_str(&format!("stream = \"cam\"\ndtype = \"uint8\"\n{keys}")).unwrap();
        keys.stream.link = self.link(CAM);
        let sink = sink::tensor::Tensor::open("main", &keys, 0xaa)?;
        Ok(Writing { sink, guard: guard(1), generation: 1 })
    }
}

/// A producer.
struct Writer {
    producer: Producer,
    _client: Client,
}

impl Writer {
    fn send(&mut self, numbers: Range<u32>) {
        for number in numbers {
            self.send_as(Dtype::Uint32, &[1], &number.to_le_bytes());
        }
    }

    fn send_as(&mut self, dtype: Dtype, shape: &[usize], bytes: &[u8]) {
        let layout = TensorLayout::contiguous(dtype, MajorOrder::Row, shape).unwrap();
        self.producer.offer(&layout, bytes, FrameMeta::default()).unwrap();
    }
}

/// A source.
struct Reading {
    source: source::tensor::Tensor,
    woken: Receiver<()>,
}

impl Reading {
    /// The next so many records.
    fn take(&mut self, count: usize) -> Vec<Input> {
        let mut inputs = Vec::new();
        while inputs.len() < count {
            match self.source.poll(ONLY, BUDGET).unwrap() {
                Polled::Inputs(more) => inputs.extend(more),
                Polled::Idle => self.woken.recv_timeout(PATIENCE).unwrap(),
                other => panic!("{other:?}"),
            }
        }
        inputs
    }

    /// The error that ends it.
    fn error(&mut self) -> String {
        loop {
            match self.source.poll(ONLY, BUDGET) {
                Ok(Polled::Idle) => self.woken.recv_timeout(PATIENCE).unwrap(),
                Ok(Polled::Inputs(_)) => {}
                Ok(other) => panic!("{other:?}"),
                Err(error) => return error.to_string(),
            }
        }
    }

    fn resume(&mut self, position: Position) -> Resume {
        Resume { position, identity: self.source.identity(ONLY, position).unwrap() }
    }
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

fn numbers(inputs: &[Input]) -> Vec<u32> {
    inputs.iter().map(|input| u32::from_le_bytes(input.record.value[..].try_into().unwrap())).collect()
}

fn header(record: &Record, name: &str) -> String {
    let (_, value) = headers(&record.headers).find(|(found, _)| *found == name.as_bytes()).unwrap();
    String::from_utf8(value.to_vec()).unwrap()
}

fn guard(generation: u64) -> WriteGuard {
    FenceTable::create(1, 1).unwrap().bind(ONLY, Generation(generation)).unwrap().1
}

/// A source whose stream brings nothing, and the keeper of a sink's lease; what comes then is read.
/// Rules: VX-323, VX-904.
#[test]
fn ends_that_have_nothing_to_do_wake_seldom() {
    let stage = Stage::new();
    let mut writing = stage.writing(FOUR).unwrap();
    let mut reading = stage.reading("");
    reading.source.open(ONLY, None).unwrap();
    // For a second it looks often.
    thread::sleep(Duration::from_secs(2));
    for thread in ["tensor source", "vertex"] {
        let (woken, most) = idle::idle_wakeups(thread);
        assert!(woken <= most, "{thread}: {woken} times, at most {most}");
    }
    writing.publish(&outputs(7..8)).unwrap();
    assert_eq!(numbers(&reading.take(1)), [7]);
}

/// Whatever lies between the elements in memory, a record has them in row order, and its headers say what they are.
/// Rules: VX-830.
#[test]
fn a_frame_is_a_record_of_its_elements_in_row_order() {
    let stage = Stage::new();
    let mut writer = stage.writer();
    let mut reading = stage.reading("");
    let first = reading.source.open(ONLY, None).unwrap();
    let row = TensorLayout::contiguous(Dtype::Uint16, MajorOrder::Row, &[2, 3]).unwrap();
    let padded = row.with_strides(&[8, 2]).unwrap();
    let column = TensorLayout::contiguous(Dtype::Uint16, MajorOrder::Column, &[2, 3]).unwrap();
    let stamped = FrameMeta { timestamp_ns: Some(77), ..FrameMeta::default() };
    let offer = |writer: &mut Writer, layout: &TensorLayout, bytes: &[u8]| {
        writer.producer.offer(layout, bytes, stamped).unwrap();
    };
    offer(&mut writer, &row, &[1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0]);
    offer(&mut writer, &padded, &[1, 0, 2, 0, 3, 0, 9, 9, 4, 0, 5, 0, 6, 0]);
    offer(&mut writer, &column, &[1, 0, 4, 0, 2, 0, 5, 0, 3, 0, 6, 0]);
    let inputs = reading.take(3);
    for (index, input) in (0..).zip(&inputs) {
        assert_eq!(input.record.value[..], [1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0], "frame {index}");
        assert_eq!((input.position.0, input.next.0), (first.0 + index, first.0 + index + 1));
        let said =
            ["tg-dtype", "tg-shape", "tg-seq", "tg-timestamp-ns"].map(|name| header(&input.record, name));
        assert_eq!(said, ["<u2".to_owned(), "2x3".to_owned(), index.to_string(), "77".to_owned()]);
    }
    assert_eq!(reading.source.lost(), 0);
}

/// Frames that a full vertex has no room for go by. None is lost without being counted.
/// Rules: VX-831, VX-832.
#[test]
fn what_a_slow_vertex_loses_is_counted_or_stops_it() {
    const FRAMES: u32 = 60;
    let stage = Stage::new();
    let mut writer = stage.writer();
    // Room for one record.
    let mut counting = stage.reading("prefetch = \"1B\"");
    let mut stopping = stage.reading("prefetch = \"1B\"\non_gap = \"stop\"");
    for reading in [&mut counting, &mut stopping] {
        reading.source.open(ONLY, None).unwrap();
    }
    writer.send(0..1);
    until("both are full", || [&counting, &stopping].iter().all(|it| it.source.pending(ONLY) == Some(1)));
    writer.send(1..FRAMES);
    let (mut read, mut last) = (Vec::new(), None);
    while last != Some(FRAMES - 1) {
        read.extend(numbers(&counting.take(1)));
        last = read.last().copied();
    }
    assert!(read.is_sorted_by(|one, next| one < next), "{read:?}");
    let lost = u64::from(FRAMES) - read.len() as u64;
    assert!(lost >= u64::from(FRAMES - 1 - SLOTS), "{lost} of {FRAMES} in a ring of {SLOTS}");
    assert_eq!(counting.source.lost(), lost);
    let error = stopping.error();
    assert!(error.contains("frames of stream 'cam' were lost before frame"), "{error}");
    assert!(error.contains("on_gap = \"skip\""), "{error}");
    assert!(stopping.source.lost() > 0);
}

/// The ledger knows which frame comes next, so what went by while the vertex was down is counted when it comes back.
/// Rules: VX-832, VX-833.
#[test]
fn a_vertex_that_is_started_again_knows_what_it_has_missed() {
    let stage = Stage::new();
    let mut writer = stage.writer();
    let mut reading = stage.reading("");
    let first = reading.source.open(ONLY, None).unwrap();
    writer.send(0..5);
    reading.take(5);
    let resume = reading.resume(Position(first.0 + 3));
    // Given back, and nobody can give them again.
    reading.source.nack(ONLY, Position(first.0 + 3), Nanos::ZERO);
    assert_eq!(reading.source.lost(), 2);
    drop(reading);
    // The consumer's place is given back: nobody reads these.
    writer.send(5..9);
    let mut again = stage.reading("");
    let begins = again.source.open(ONLY, Some(&resume)).unwrap();
    assert_ne!(begins, first, "positions are of a run");
    writer.send(9..10);
    assert_eq!(numbers(&again.take(1)), [9]);
    assert_eq!(again.source.lost(), 6, "3 to 8");
    // And in the order in which they can come: the first frame before the session begins.
    let mut early = stage.reading("");
    writer.send(10..11);
    until("it has read", || early.source.pending(ONLY) == Some(1));
    early.source.open(ONLY, Some(&resume)).unwrap();
    assert_eq!(early.source.lost(), 7);
    let mut stopping = stage.reading("on_gap = \"stop\"");
    stopping.source.open(ONLY, Some(&resume)).unwrap();
    writer.send(11..12);
    let error = stopping.error();
    assert!(error.contains("8 frames of stream 'cam' were lost before frame 11"), "{error}");
}

/// Another producer makes a new epoch, which the same source reads from its beginning; a driver that was away is found again.
/// Rules: VX-830.
#[test]
fn a_source_follows_its_stream_through_producers_and_drivers() {
    let mut stage = Stage::new();
    let mut reading = stage.reading("");
    let first = reading.source.open(ONLY, None).unwrap();
    // There is no producer yet.
    assert!(matches!(reading.source.poll(ONLY, BUDGET).unwrap(), Polled::Idle));
    let mut begun = 0;
    for turn in 0..3 {
        if turn == 2 {
            stage.driver = None;
            stage.start_driver();
        }
        let mut writer = stage.writer();
        // Frames that nobody was told of are not lost by the source.
        until("the stream is read", || {
            writer.send(begun..begun + 1);
            begun += 1;
            thread::sleep(Duration::from_millis(2));
            reading.source.pending(ONLY) > Some(0)
        });
        writer.send(begun..begun + 2);
        begun += 2;
        let mut last = None;
        while last != Some(begun - 1) {
            last = numbers(&reading.take(1)).last().copied();
        }
    }
    // The ledger would know the stream, and the epoch of the last producer.
    let known = reading.resume(Position(first.0 + 1_000_000)).identity.0;
    assert_eq!(known[..4], CAM.get().to_le_bytes());
    assert!(u64::from_le_bytes(known[4..12].try_into().unwrap()) >= 3, "{known:?}");
}

/// Rules: VX-001, VX-855.
#[test]
fn a_frame_of_another_tensor_ends_the_source_and_says_what_differs() {
    let stage = Stage::new();
    let mut writer = stage.writer();
    for (keys, expected) in [
        ("dtype = \"float32\"", "dtype uint32; source.dtype says float32"),
        ("shape = [2]", "shape 1; source.shape says 2"),
        ("dtype = \"<u4\"\nshape = [1, 1]", "shape 1; source.shape says 1x1"),
        ("format = \"output\"", "length of the payload is 4, allowed is 72"),
    ] {
        let mut reading = stage.reading(keys);
        reading.source.open(ONLY, None).unwrap();
        writer.send(0..1);
        let error = reading.error();
        assert!(error.contains("stream 'cam'") && error.contains(expected), "{error}");
    }
    let mut reading = stage.reading("dtype = \"uint32\"\nshape = [1]");
    reading.source.open(ONLY, None).unwrap();
    writer.send(7..8);
    assert_eq!(numbers(&reading.take(1)), [7]);
}

/// Rules: VX-855.
#[test]
fn what_cannot_be_attached_is_said() {
    let stage = Stage::new();
    let unknown = stage.source_of(StreamId::new(77), "").err().unwrap().to_string();
    assert!(unknown.contains("stream 77: the driver refused"), "{unknown}");
    let keys: source::tensor::TensorSource = toml::from_str("stream = 10000").unwrap();
    let error = source::tensor::Tensor::open(&keys, Waker::new(|| {})).unwrap_err();
    assert!(
        matches!(&error, SourceError::Tensor(error) if matches!(**error, TensorError::NotLinked { .. })),
        "{error}"
    );
    for (keys, expected) in [
        ("stream = 0", "a stream number lies between"),
        ("stream = \"a b\"", "a stream is a number, or a name of 1 to 64 letters"),
        ("stream = true", "the number or the name of a stream"),
        ("stream = 1\ndtype = \"u3\"", "unknown element type `u3`"),
        ("stream = 1\nformt = \"value\"", "formt"),
    ] {
        let error = toml::from_str::<source::tensor::TensorSource>(keys).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

/// The keys of a pipeline with both ends.
/// Rules: VX-001, VX-002, VX-855.
#[test]
fn a_pipeline_names_its_streams_and_what_they_promise() {
    let text = |delivery: &str, shape: &str| {
        format!(
            "version = 1
            [pipeline]
            name = \"a\"
            uid = \"00000000000000aa\"
            delivery = {delivery:?}
            [udf]
            command = [\"worker\"]
            [source]
            kind = \"tensor\"
            stream = \"cam\"
            dir = \"/tmp/node\"
            [[sink]]
            name = \"main\"
            kind = \"tensor\"
            stream = 20001
            dtype = \"<f4\"
            shape = {shape}
            allow_duplicates = true
            [ledger]
            path = \"/tmp/ledger\""
        )
    };
    let mut pipeline: Pipeline = text("at_least_once", "[4, 4]").parse().unwrap();
    let named: Vec<_> = pipeline
        .streams()
        .map(|end| (end.stream.name.to_string(), end.dir.map(|dir| dir.display().to_string()), end.writes))
        .collect();
    let expected =
        [("'cam'".to_owned(), Some("/tmp/node".to_owned()), false), ("20001".to_owned(), None, true)];
    assert_eq!(named, expected);
    let promise = pipeline.source.promise();
    assert!(promise.contains("at most once") && promise.contains("lost and counted"), "{promise}");
    let refused = text("effectively_once", "[4, 4]").parse::<Pipeline>().unwrap_err().to_string();
    assert!(refused.contains("a source that can be read again"), "{refused}");
    for shape in ["[]", "[1, 1, 1, 1, 1, 1, 1, 1, 1]", "[65536, 65536]"] {
        let refused = text("at_least_once", shape).parse::<Pipeline>().unwrap_err().to_string();
        assert!(refused.contains("sink.shape is") && refused.contains("of float32"), "{refused}");
    }
}

/// A sink, and what permits its writes.
struct Writing {
    sink: sink::tensor::Tensor,
    guard: WriteGuard,
    generation: u64,
}

impl Writing {
    fn publish(&mut self, outputs: &[Output]) -> Result<Published, SinkError> {
        let session = Session { partition: ONLY, generation: Generation(self.generation), nonce: 1 };
        let ids = OutputIds::new(1, "main");
        let (first, last) = (Position(0), Position(0));
        let delivery = Delivery { session, epoch: EpochId(1), first, last, source: 0, outputs, ids: &ids };
        self.sink.publish(&delivery, &self.guard)
    }
}

/// Outputs of four bytes.
fn outputs(numbers: Range<u32>) -> Vec<Output> {
    let output = |number: u32| {
        let record = Record {
            key: b"key"[..].into(),
            event_time: Some(number.into()),
            ..Record::of(number.to_le_bytes().to_vec())
        };
        Output { position: Position(number.into()), number: 0, record }
    };
    numbers.map(output).collect()
}

const FOUR: &str = "shape = [2, 2]";

/// Somebody who knows nothing of vertices.
struct Plain {
    consumer: Consumer,
    _client: Client,
}

impl Plain {
    fn new(stage: &Stage) -> Self {
        let client = stage.client();
        let consumer = client.add_consumer(ConsumerConfig::new(CAM)).unwrap().wait(PATIENCE).unwrap();
        let mut plain = Self { consumer, _client: client };
        until("it is mapped", || {
            plain.consumer.poll(0, &mut |_| {}).unwrap();
            matches!(plain.consumer.state(), tidegate_tensor::client::MappingState::Mapped(_))
        });
        plain
    }

    /// Numbers and shapes of what is there until frame `last` came, and how many frames were lost before it.
    fn read(&mut self, last: u32) -> (Vec<u32>, u64) {
        let (mut read, mut lost) = (Vec::new(), 0);
        until("the last one", || {
            let polled = self.consumer.poll_outcomes(10, &mut |outcome| match outcome {
                ReadOutcome::Frame(frame) => {
                    let layout = frame.layout().unwrap();
                    assert_eq!((layout.dtype(), layout.shape()), (Dtype::Uint8, &[2, 2][..]));
                    let mut bytes = [0; 4];
                    frame.payload().sub(0..4).unwrap().copy_to(&mut bytes).unwrap();
                    read.push(u32::from_le_bytes(bytes));
                }
                ReadOutcome::DroppedGap { frames } => lost += frames,
                other => panic!("{other:?}"),
            });
            polled.unwrap();
            read.last() == Some(&last)
        });
        (read, lost)
    }
}

/// Any reader finds a tensor; another vertex finds all of the output, and nothing of a session that was over.
/// Rules: VX-751, VX-851.
#[test]
fn what_a_sink_publishes_is_a_tensor_for_all_and_an_output_for_a_vertex() {
    let stage = Stage::new();
    let mut writing = stage.writing(FOUR).unwrap();
    let mut plain = Plain::new(&stage);
    let mut reading = stage.reading("format = \"output\"");
    reading.source.open(ONLY, None).unwrap();
    let published = writing.publish(&outputs(0..2)).unwrap();
    assert_eq!((published.through, published.held), (2, None));
    // A later session, and then a write of the first one that comes late.
    for (generation, number) in [(2, 2), (1, 3), (2, 4)] {
        writing.generation = generation;
        writing.publish(&outputs(number..number + 1)).unwrap();
    }
    assert_eq!(plain.read(4), (vec![0, 1, 2, 3, 4], 0));
    let inputs = reading.take(4);
    assert_eq!(numbers(&inputs), [0, 1, 2, 4]);
    assert_eq!(inputs[3].record, outputs(4..5)[0].record);
    assert_eq!((reading.source.stale(), reading.source.lost()), (1, 0));
}

/// Rules: VX-723, VX-851.
#[test]
fn nothing_is_published_after_a_revoke_and_readers_count_the_slot_as_a_gap() {
    let stage = Stage::new();
    let mut writing = stage.writing(FOUR).unwrap();
    let mut plain = Plain::new(&stage);
    writing.publish(&outputs(0..2)).unwrap();
    assert_eq!(plain.read(1), (vec![0, 1], 0));
    writing.guard.revoke(Reason::Operator);
    assert!(matches!(writing.publish(&outputs(2..3)), Err(SinkError::Fenced(_))));
    (writing.guard, writing.generation) = (guard(2), 2);
    writing.publish(&outputs(3..4)).unwrap();
    // The slot was acquired and given up.
    assert_eq!(plain.read(3), (vec![3], 1));
}

/// Rules: VX-840, VX-851.
#[test]
fn an_output_that_is_no_such_tensor_is_refused_and_says_why() {
    let stage = Stage::new();
    let mut writing = stage.writing(FOUR).unwrap();
    let mut wrong = outputs(0..3);
    wrong[1].record.value = vec![1; 5].into();
    wrong[2].record.headers = vec![0; 5000].into();
    let published = writing.publish(&wrong).unwrap();
    let reasons: Vec<_> = published.rejected.iter().map(|rejected| rejected.reason.as_str()).collect();
    assert_eq!((published.through, reasons.len()), (3, 2), "{reasons:?}");
    assert_eq!(reasons[0], "its value has 5 bytes, a tensor 2x2 of uint8 has 4");
    assert!(reasons[1].contains("the largest slot of stream 'cam' has 4096"), "{reasons:?}");
}

/// While there is no driver the sink holds what it is given; nothing of it is lost.
/// Rules: VX-840, VX-851.
#[test]
fn a_sink_waits_while_its_driver_is_away() {
    let mut stage = Stage::new();
    let mut writing = stage.writing(FOUR).unwrap();
    writing.publish(&outputs(0..1)).unwrap();
    stage.driver = None;
    let mut reason = String::new();
    until("the lease is away", || {
        let published = writing.publish(&outputs(1..2)).unwrap();
        reason = published.held.map(|held| held.reason).unwrap_or_default();
        published.through == 0
    });
    assert!(reason.contains("stream 'cam': not attached"), "{reason}");
    stage.start_driver();
    until("it is back", || writing.publish(&outputs(2..3)).unwrap().through == 1);
}

/// Rules: VX-851.
#[test]
fn a_sink_is_the_only_producer_and_gives_its_place_back() {
    let stage = Stage::new();
    let writer = stage.writer();
    let refused = stage.writing(FOUR).err().unwrap().to_string();
    assert!(refused.contains("main") && refused.contains("whether another producer has it"), "{refused}");
    drop(writer);
    let writing = stage.writing(FOUR).unwrap();
    let client = stage.client();
    let config = ProducerConfig { stream: Some(CAM), ..ProducerConfig::default() };
    let mut waiting = client.add_producer(config).unwrap();
    assert!(waiting.poll().unwrap().is_none());
    drop(writing);
    let mut next = waiting.wait(PATIENCE).unwrap();
    let layout = TensorLayout::contiguous(Dtype::Uint8, MajorOrder::Row, &[1]).unwrap();
    let offered = next.offer(&layout, &[1], FrameMeta::default());
    assert!(matches!(offered, Ok(_) | Err(PublishError::Unannounced { .. })), "{offered:?}");
}
