//! How much is read at once.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::{
    io::Write,
    net::TcpStream,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use tidegate_io::{
    batch::WriteBatch,
    engine::{
        Acceptor, BindAddress, BindHost, DriverChoice, Engine, EngineConfig, Listen, StreamAddress,
        StreamInfo,
    },
    protocol::{Connection, Control, Ended, Flow, Retry},
};

/// Tells how many bytes came at a time, of which it wants at most so many.
struct Chunks {
    most: usize,
    sizes: mpsc::Sender<usize>,
}

impl Connection for Chunks {
    fn opened(&mut self, _stream: &StreamInfo, _control: Control, _now: Instant) -> Flow {
        Flow::Continue
    }

    fn received(&mut self, bytes: BytesMut, _now: Instant) -> Flow {
        self.sizes.send(bytes.len()).unwrap();
        Flow::Continue
    }

    fn read_most(&self) -> usize {
        self.most
    }

    fn fill(&mut self, _batch: &mut WriteBatch, _now: Instant) -> Flow {
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

struct Accepting {
    most: usize,
    sizes: mpsc::Sender<usize>,
}

impl Acceptor for Accepting {
    fn accept(&self, _stream: &StreamInfo) -> Option<Box<dyn Connection>> {
        Some(Box::new(Chunks { most: self.most, sizes: self.sizes.clone() }))
    }
}

/// A protocol that wants little at a time gets no more; one that does not mind gets more than that.
///
/// Rules: MQ-342.
#[test]
fn no_more_is_read_at_once_than_the_protocol_wants() {
    const TOTAL: usize = 4 << 20;
    for driver in [DriverChoice::IoUring, DriverChoice::Polling] {
        let engine = Engine::new(&EngineConfig { driver, ..EngineConfig::default() }).unwrap();
        let largest = |most| {
            let (sizes, received) = mpsc::channel();
            let address = BindAddress::Tcp { host: BindHost::Any, port: 0 };
            let listener = engine.listen(Listen::new(address), Arc::new(Accepting { most, sizes })).unwrap();
            let StreamAddress::Ip(address) = listener.local_address() else { panic!("not tcp") };
            let mut stream = TcpStream::connect(("127.0.0.1", address.port())).unwrap();
            let writer = thread::spawn(move || stream.write_all(&vec![7; TOTAL]).map(|()| stream));
            let (mut total, mut largest) = (0, 0);
            while total < TOTAL {
                let size = received.recv_timeout(Duration::from_secs(20)).unwrap();
                total += size;
                largest = largest.max(size);
            }
            drop(writer.join().unwrap().unwrap());
            largest
        };
        let small = largest(5000);
        assert!((513..=5000).contains(&small), "{small} bytes at once");
        assert!(largest(usize::MAX) > 5000);
        engine.shutdown(Duration::ZERO);
    }
}

/// Pauses a moment after its first bytes, when the engine waits for more, and says what comes and goes.
struct Pausing {
    /// Wants what follows the first bytes in a buffer of its own.
    large: bool,
    pause_at: Option<Instant>,
    control: Option<Control>,
    seen: mpsc::Sender<Seen>,
}

enum Seen {
    Bytes(Vec<u8>),
    Paused(Control),
}

impl Connection for Pausing {
    fn opened(&mut self, _stream: &StreamInfo, control: Control, _now: Instant) -> Flow {
        self.control = Some(control);
        Flow::Continue
    }

    fn received(&mut self, bytes: BytesMut, now: Instant) -> Flow {
        if let Some(control) = &self.control
            && control.traffic().received == 1
        {
            self.pause_at = Some(now + Duration::from_millis(20));
        }
        self.seen.send(Seen::Bytes(bytes.to_vec())).unwrap();
        Flow::Continue
    }

    fn staging(&mut self) -> Option<BytesMut> {
        std::mem::take(&mut self.large).then(|| BytesMut::with_capacity(100_000))
    }

    fn received_into(&mut self, staging: BytesMut, now: Instant) -> Flow {
        self.received(staging, now)
    }

    fn fill(&mut self, _batch: &mut WriteBatch, _now: Instant) -> Flow {
        Flow::Continue
    }

    fn deadline(&self) -> Option<Instant> {
        self.pause_at
    }

    fn expired(&mut self, _now: Instant) -> Flow {
        self.pause_at = None;
        self.seen.send(Seen::Paused(self.control.clone().unwrap())).unwrap();
        Flow::Pause
    }

    fn closed(&mut self, _why: &Ended, _now: Instant) -> Retry {
        Retry::Never
    }
}

struct AcceptingPausing(bool, mpsc::Sender<Seen>);

impl Acceptor for AcceptingPausing {
    fn accept(&self, _stream: &StreamInfo) -> Option<Box<dyn Connection>> {
        let Self(large, seen) = self;
        Some(Box::new(Pausing { large: *large, pause_at: None, control: None, seen: seen.clone() }))
    }
}

/// The protocol pauses while the engine has an operation under way that then brings bytes: they are kept until it goes
/// on.
///
/// Rules: MQ-062.
#[test]
fn what_was_read_during_a_pause_is_not_lost() {
    for (driver, large) in [DriverChoice::IoUring, DriverChoice::Polling]
        .into_iter()
        .flat_map(|driver| [(driver, false), (driver, true)])
    {
        let engine = Engine::new(&EngineConfig { driver, ..EngineConfig::default() }).unwrap();
        let (seen, told) = mpsc::channel();
        let next = || told.recv_timeout(Duration::from_secs(20));
        let address = BindAddress::Tcp { host: BindHost::Any, port: 0 };
        let listener = engine.listen(Listen::new(address), Arc::new(AcceptingPausing(large, seen))).unwrap();
        let StreamAddress::Ip(address) = listener.local_address() else { panic!("not tcp") };
        let mut stream = TcpStream::connect(("127.0.0.1", address.port())).unwrap();
        stream.write_all(b"1").unwrap();
        let Ok(Seen::Bytes(first)) = next() else { panic!("the first byte") };
        assert_eq!(first, b"1");
        let Ok(Seen::Paused(control)) = next() else { panic!("a pause") };
        stream.write_all(b"kept").unwrap();
        let by = Instant::now() + Duration::from_secs(20);
        while control.traffic().received < 5 {
            assert!(Instant::now() < by, "{driver:?}, large {large}: the operation brings nothing");
            thread::yield_now();
        }
        assert!(told.try_recv().is_err(), "it is paused");
        control.resume();
        let Ok(Seen::Bytes(kept)) = next() else { panic!("{driver:?}, large {large}: lost") };
        assert_eq!(kept, b"kept", "{driver:?}, large {large}");
        drop(control);
        engine.shutdown(Duration::ZERO);
    }
}
