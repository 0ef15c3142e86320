//! A driver on an in-memory bus, and what stands on it.

use std::{
    ops::Range,
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tidegate_shm::sync::Arc;
use tidegate_tensor::{
    agent::{AgentRunner, IdleStrategy},
    client::{Client, Context, Producer, ProducerConfig},
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
    fence::{FenceTable, WriteGuard},
    sink::{self, Delivery, Output, OutputIds, Published, Session, Sink, SinkError},
    source::{self, Budget, Polled, Resume, Source, SourceError},
    tensor::Link,
    wake::Waker,
};

pub(crate) const ONLY: PartitionId = PartitionId(0);
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const BUDGET: Budget = Budget { records: 7, bytes: 1 << 20, value: 1 << 16 };
pub(crate) const CAM: StreamId = StreamId::new(10_000);
pub(crate) const SLOTS: u32 = 8;
/// Keys of a sink for outputs of four bytes.
pub(crate) const FOUR: &str = "shape = [2, 2]";
/// Short, so that what is away is noticed soon.
pub(crate) const PERIOD: Duration = Duration::from_millis(100);

/// A bus, a driver on it, and a place for its regions.
pub(crate) struct Stage {
    pub(crate) driver: Option<AgentRunner<DriverAgentError>>,
    pub(crate) bus: MemoryBus,
    pub(crate) base: TempDir,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let base = tempfile::Builder::new().prefix("tidegate-vertex-").tempdir_in("/dev/shm").unwrap();
        let mut stage = Self { driver: None, bus: MemoryBus::new(), base };
        stage.start_driver();
        stage
    }

    pub(crate) fn start_driver(&mut self) {
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

    pub(crate) fn context(&self) -> Context {
        Context {
            allowed_base_dirs: vec![self.base.path().to_owned()],
            announce_period: PERIOD,
            keepalive_interval: PERIOD,
            lease_grace_intervals: 100,
            ..Context::default()
        }
    }

    pub(crate) fn link(&self, stream: StreamId) -> Option<Box<Link>> {
        Some(Box::new(Link { stream, context: self.context(), connector: Arc::new(self.bus.clone()) }))
    }

    pub(crate) fn client(&self) -> Client {
        Client::start(self.context(), Arc::new(self.bus.clone()), Box::new(|_| {})).unwrap()
    }

    pub(crate) fn writer(&self) -> Writer {
        let client = self.client();
        let config = ProducerConfig {
            stream: Some(CAM),
            drop_unconnected_descriptors: true,
            ..ProducerConfig::default()
        };
        let producer = client.add_producer(config).unwrap().wait(PATIENCE).unwrap();
        Writer { producer, _client: client }
    }

    pub(crate) fn source_of(
        &self,
        stream: StreamId,
        keys: &str,
    ) -> Result<source::tensor::Tensor, SourceError> {
        let mut keys: source::tensor::TensorSource =
            toml::from_str(&format!("stream = {stream}\n{keys}")).unwrap();
        keys.stream.link = self.link(stream);
        source::tensor::Tensor::open(&keys, Waker::new(|| {}))
    }

    pub(crate) fn reading(&self, keys: &str) -> Reading {
        let (wake, woken) = channel();
        let mut keys: source::tensor::TensorSource =
            toml::from_str(&format!("stream = \"cam\"\n{keys}")).unwrap();
        keys.stream.link = self.link(CAM);
        let waker = Waker::new(move || wake.send(()).unwrap_or(()));
        Reading { source: source::tensor::Tensor::open(&keys, waker).unwrap(), woken }
    }

    pub(crate) fn writing(&self, keys: &str) -> Result<Writing, SinkError> {
        let mut keys: sink::tensor::TensorSink =
            toml::from_str(&format!("stream = \"cam\"\ndtype = \"uint8\"\n{keys}")).unwrap();
        keys.stream.link = self.link(CAM);
        let sink = sink::tensor::Tensor::open("main", &keys, 0xaa)?;
        Ok(Writing { sink, guard: guard(1), generation: 1 })
    }
}

/// A producer.
pub(crate) struct Writer {
    pub(crate) producer: Producer,
    pub(crate) _client: Client,
}

impl Writer {
    pub(crate) fn send(&mut self, numbers: Range<u32>) {
        for number in numbers {
            self.send_as(Dtype::Uint32, &[1], &number.to_le_bytes());
        }
    }

    pub(crate) fn send_as(&mut self, dtype: Dtype, shape: &[usize], bytes: &[u8]) {
        let layout = TensorLayout::contiguous(dtype, MajorOrder::Row, shape).unwrap();
        self.producer.offer(&layout, bytes, FrameMeta::default()).unwrap();
    }
}

/// A source.
pub(crate) struct Reading {
    pub(crate) source: source::tensor::Tensor,
    pub(crate) woken: Receiver<()>,
}

impl Reading {
    /// The next so many records.
    pub(crate) fn take(&mut self, count: usize) -> Vec<Input> {
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
    pub(crate) fn error(&mut self) -> String {
        loop {
            match self.source.poll(ONLY, BUDGET) {
                Ok(Polled::Idle) => self.woken.recv_timeout(PATIENCE).unwrap(),
                Ok(Polled::Inputs(_)) => {}
                Ok(other) => panic!("{other:?}"),
                Err(error) => return error.to_string(),
            }
        }
    }

    pub(crate) fn resume(&mut self, position: Position) -> Resume {
        Resume { position, identity: self.source.identity(ONLY, position).unwrap() }
    }
}

pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

pub(crate) fn numbers(inputs: &[Input]) -> Vec<u32> {
    inputs.iter().map(|input| u32::from_le_bytes(input.record.value[..].try_into().unwrap())).collect()
}

pub(crate) fn header(record: &Record, name: &str) -> String {
    let (_, value) = headers(&record.headers).find(|(found, _)| *found == name.as_bytes()).unwrap();
    String::from_utf8(value.to_vec()).unwrap()
}

pub(crate) fn guard(generation: u64) -> WriteGuard {
    FenceTable::create(1, 1).unwrap().bind(ONLY, Generation(generation)).unwrap().1
}

/// A sink, and what permits its writes.
pub(crate) struct Writing {
    pub(crate) sink: sink::tensor::Tensor,
    pub(crate) guard: WriteGuard,
    pub(crate) generation: u64,
}

impl Writing {
    pub(crate) fn publish(&mut self, outputs: &[Output]) -> Result<Published, SinkError> {
        let session = Session { partition: ONLY, generation: Generation(self.generation), nonce: 1 };
        let ids = OutputIds::new(1, "main");
        let (first, last) = (Position(0), Position(0));
        let delivery = Delivery { session, epoch: EpochId(1), first, last, source: 0, outputs, ids: &ids };
        self.sink.publish(&delivery, &self.guard)
    }
}

/// Outputs of four bytes.
pub(crate) fn outputs(numbers: Range<u32>) -> Vec<Output> {
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
