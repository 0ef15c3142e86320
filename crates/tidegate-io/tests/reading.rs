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
