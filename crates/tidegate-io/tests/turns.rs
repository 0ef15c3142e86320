//! Streams of one worker take turns, however much one of them has to read or to write.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use rustix::net::sockopt;
use tidegate_io::{
    batch::WriteBatch,
    engine::{
        Acceptor, BindAddress, BindHost, DriverChoice, Engine, EngineConfig, Listen, StreamAddress,
        StreamInfo,
    },
    protocol::{Connection, Control, Ended, Flow, Retry},
};

const PATIENCE: Duration = Duration::from_secs(20);
/// More than may be read or written in one turn, by far.
const LARGE: usize = 16 << 20;
const CHUNK: usize = 64 << 10;
/// Less than what a stream may write again and again in one turn.
const LITTLE: usize = 1 << 10;

/// What has happened on the worker.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Read(usize),
    Wrote(usize),
    /// So many questions were read.
    Asked(usize),
    /// The other stream was heard.
    Other,
}

/// What the streams of a test share. The one that is told `R` reads a large frame, the one that is told `W` writes much, the
/// one that is told `S` the same little by little; all hold the worker up before they begin, until the test has prepared
/// everything. `Q` are questions. Any other is the other one.
struct Stage {
    steps: Mutex<Vec<Step>>,
    begun: mpsc::Sender<()>,
    go: Mutex<mpsc::Receiver<()>>,
}

impl Stage {
    fn note(&self, step: Step) {
        self.steps.lock().unwrap().push(step);
    }

    fn hold(&self) {
        self.begun.send(()).unwrap();
        self.go.lock().unwrap().recv_timeout(PATIENCE).unwrap();
    }

    /// What happened before the other stream was heard, once it was.
    fn before_other(&self) -> Vec<Step> {
        let by = Instant::now() + PATIENCE;
        loop {
            let mut steps = self.steps.lock().unwrap();
            if let Some(place) = steps.iter().position(|step| *step == Step::Other) {
                return steps.drain(..place).collect();
            }
            drop(steps);
            assert!(Instant::now() < by, "the other stream is not heard");
            thread::yield_now();
        }
    }
}

struct OnStage(Arc<Stage>);

impl Acceptor for OnStage {
    fn accept(&self, _stream: &StreamInfo) -> Option<Box<dyn Connection>> {
        Some(Box::new(Actor { stage: self.0.clone(), frame: None, to_write: 0, piece: CHUNK }))
    }
}

struct Actor {
    stage: Arc<Stage>,
    frame: Option<BytesMut>,
    to_write: usize,
    /// So much is written at once.
    piece: usize,
}

impl Connection for Actor {
    fn opened(&mut self, _stream: &StreamInfo, _control: Control, _now: Instant) -> Flow {
        Flow::Continue
    }

    fn received(&mut self, bytes: BytesMut, _now: Instant) -> Flow {
        match bytes.first() {
            Some(b'R') => {
                self.stage.hold();
                self.frame = Some(BytesMut::with_capacity(LARGE));
            }
            Some(what @ (b'W' | b'S')) => {
                self.stage.hold();
                self.to_write = LARGE;
                self.piece = if *what == b'W' { CHUNK } else { LITTLE };
            }
            Some(b'Q') => self.stage.note(Step::Asked(bytes.len())),
            _ => self.stage.note(Step::Other),
        }
        Flow::Continue
    }

    fn staging(&mut self) -> Option<BytesMut> {
        self.frame.take()
    }

    fn received_into(&mut self, staging: BytesMut, _now: Instant) -> Flow {
        self.stage.note(Step::Read(staging.len()));
        self.frame = Some(staging);
        Flow::Continue
    }

    fn fill(&mut self, batch: &mut WriteBatch, _now: Instant) -> Flow {
        if self.to_write > 0 {
            self.to_write -= self.piece;
            batch.put_shared(Bytes::from_static(&[7; CHUNK]).slice(..self.piece));
            self.stage.note(Step::Wrote(LARGE - self.to_write));
        }
        Flow::Continue
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn expired(&mut self, _now: Instant) -> Flow {
        Flow::Continue
    }

    fn closed(&mut self, _why: &Ended, _now: Instant) -> Retry {
        Retry::Never
    }
}

/// Runs `test` at a listener of an engine with one worker, of either driver.
fn on_stage(
    address: impl Fn() -> BindAddress,
    test: impl Fn(&StreamAddress, &Stage, &mpsc::Receiver<()>, &mpsc::Sender<()>),
) {
    for driver in [DriverChoice::IoUring, DriverChoice::Polling] {
        let engine = Engine::new(&EngineConfig { driver, ..EngineConfig::default() }).unwrap();
        let (begun, has_begun) = mpsc::channel();
        let (start, go) = mpsc::channel();
        let stage = Arc::new(Stage { steps: Mutex::default(), begun, go: Mutex::new(go) });
        let listener = engine.listen(Listen::new(address()), Arc::new(OnStage(stage.clone()))).unwrap();
        test(listener.local_address(), &stage, &has_begun, &start);
        engine.shutdown(Duration::ZERO);
    }
}

/// A stream that reads a large frame, all of which is there, gives way before it has read much of it.
///
/// Rules: MQ-072.
#[test]
fn a_large_frame_that_is_read_gives_way() {
    // What a Unix stream was given is there at once, other than with TCP and its windows.
    on_stage(
        || BindAddress::PrivatePath,
        |address, stage, has_begun, start| {
            let StreamAddress::Path(path) = address else { panic!("{address:?}") };
            let [mut large, mut other] = [(); 2].map(|()| UnixStream::connect(path).unwrap());
            sockopt::set_socket_send_buffer_size(&large, LARGE).unwrap();
            other.write_all(b"-").unwrap();
            stage.before_other();
            stage.steps.lock().unwrap().clear();

            large.write_all(b"R").unwrap();
            has_begun.recv_timeout(PATIENCE).unwrap();
            large.set_nonblocking(true).unwrap();
            let mut there = 0;
            while let Ok(taken) = large.write(&vec![7; CHUNK]) {
                there += taken;
            }
            other.write_all(b"-").unwrap();
            start.send(()).unwrap();
            let read = stage.before_other().pop().map_or(0, |step| match step {
                Step::Read(bytes) => bytes,
                step => panic!("{step:?}"),
            });
            assert!(there > TURNS_READ + CHUNK, "only {there} bytes could be there, which shows nothing");
            assert!(read <= TURNS_READ, "{read} bytes of {there} were read first");
        },
    );
}

/// A stream that has much to write, all of which its socket takes, gives way before it has written much of it.
///
/// Rules: MQ-072.
#[test]
fn a_stream_that_writes_much_gives_way() {
    writes_at_most(TURNS_WRITTEN, b"W");
}

/// A stream that always has a little to write gives way after a few pieces: more would be there if it came later.
///
/// Rules: MQ-051, MQ-072.
#[test]
fn a_stream_that_writes_little_by_little_gives_way() {
    writes_at_most(4 * LITTLE, b"S");
}

/// What a stream is asked it answers between two reads, also while it has given way with what it has to write.
///
/// Rules: MQ-170.
#[test]
fn a_stream_that_gives_way_answers_all_the_same() {
    on_stage(loopback, |address, stage, has_begun, start| {
        let StreamAddress::Ip(address) = address else { panic!("{address:?}") };
        let [mut asks, mut other] = [(); 2].map(|()| TcpStream::connect(address).unwrap());
        other.write_all(b"-").unwrap();
        stage.before_other();
        stage.steps.lock().unwrap().clear();

        asks.write_all(b"S").unwrap();
        has_begun.recv_timeout(PATIENCE).unwrap();
        asks.write_all(&[b'Q'; CHUNK]).unwrap();
        start.send(()).unwrap();
        let asked = |step: &Step| match step {
            Step::Asked(count) => *count,
            _ => 0,
        };
        let by = Instant::now() + PATIENCE;
        let mut steps = Vec::new();
        while steps.iter().map(asked).sum::<usize>() < CHUNK {
            assert!(Instant::now() < by, "not everything is heard");
            steps.append(&mut stage.steps.lock().unwrap());
            thread::yield_now();
        }
        let reads = steps.iter().filter(|step| asked(step) > 0).count();
        assert!(reads > 2, "{reads} reads show nothing");
        assert!(!steps.windows(2).any(|pair| pair.iter().all(|step| asked(step) > 0)), "{steps:?}");
    });
}

/// A TCP socket takes megabytes that nobody reads, whatever the limits for those who set the size of its buffers.
fn loopback() -> BindAddress {
    BindAddress::Tcp { host: BindHost::Ip([127, 0, 0, 1].into()), port: 0 }
}

/// The stream that is told `what` writes no more than `most` bytes until another one is heard that has something to say.
fn writes_at_most(most: usize, what: &[u8]) {
    on_stage(loopback, |address, stage, has_begun, start| {
        let StreamAddress::Ip(address) = address else { panic!("{address:?}") };
        let [mut writes, mut other] = [(); 2].map(|()| TcpStream::connect(address).unwrap());
        other.write_all(b"-").unwrap();
        stage.before_other();
        stage.steps.lock().unwrap().clear();

        writes.write_all(what).unwrap();
        has_begun.recv_timeout(PATIENCE).unwrap();
        other.write_all(b"-").unwrap();
        start.send(()).unwrap();
        let wrote = |steps: Vec<Step>| match steps.last() {
            Some(Step::Wrote(bytes)) => *bytes,
            other => panic!("{other:?}"),
        };
        let first = wrote(stage.before_other());
        // What it takes altogether, without being read.
        let mut all = first;
        let by = Instant::now() + PATIENCE;
        while all < 2 * most {
            assert!(Instant::now() < by, "only {all} bytes could be written, which shows nothing");
            if let Some(Step::Wrote(bytes)) = stage.steps.lock().unwrap().last() {
                all = *bytes;
            }
            thread::yield_now();
        }
        assert!(first <= most, "{first} bytes were written first");
        drop(writes.read(&mut [0]));
    });
}

/// What a stream may read, and write, until another is heard that has something to say: two turns.
const TURNS_READ: usize = 2 * (128 << 10);
const TURNS_WRITTEN: usize = 2 * (512 << 10) + CHUNK;
