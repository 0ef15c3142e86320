//! The engine under load, under faults, and at rest, on both drivers.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod dialing;
mod forever;
#[path = "../kept/mod.rs"]
mod kept;
mod listening;
mod streams;
#[path = "../toy/mod.rs"]
mod toy;
mod workers;

use std::{
    net::TcpStream,
    sync::Arc,
    time::{Duration, Instant},
};

use tidegate_io::engine::{Dial, Dialer, Engine, Listen, Listener, StreamAddress};

use toy::{Ends, Node, loopback, target};

pub(crate) fn listen(engine: &Engine, node: &Arc<Node>) -> Listener {
    engine.listen(Listen::new(loopback()), Arc::new(Ends(node.clone()))).unwrap()
}

pub(crate) fn dial(engine: &Engine, to: &StreamAddress, node: &Arc<Node>) -> Dialer {
    engine.dial(Dial::new(target(to)), Arc::new(Ends(node.clone()))).unwrap()
}

pub(crate) fn raw(address: &StreamAddress) -> TcpStream {
    let StreamAddress::Ip(ip) = address else { panic!("not TCP") };
    let stream = TcpStream::connect(ip).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

pub(crate) fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Waits until this process has at most `most` descriptors open.
#[track_caller]
pub(crate) fn wait_descriptors(most: usize) {
    let by = Instant::now() + Duration::from_secs(10);
    while descriptors() > most {
        assert!(Instant::now() < by, "{} descriptors are open, {most} expected", descriptors());
        std::thread::yield_now();
    }
}
