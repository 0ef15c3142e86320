//! What the cases share: options that never wait for ever, addresses of one's own, and ways to wait for an event.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tidegate_io::sync::{AtomicU32, Ordering};
use tidegate_mq::{
    Context, Error, Message, Options, Part, Result,
    monitor::{Event, EventKind, Monitor},
    socket::{CanReceive, CanSend, Socket},
};

/// How long anything that must happen may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// How long something that must not happen is waited for.
pub const QUIET: Duration = Duration::from_millis(150);

/// Wildcard endpoints of all transports.
pub const TRANSPORTS: [&str; 3] = ["tcp://127.0.0.1:*", "ipc://*", "inproc://a"];

/// Options under which no call waits for ever and closing discards.
pub fn options() -> Options {
    with(|_| {})
}

/// The same with changes.
pub fn with(change: impl FnOnce(&mut Options)) -> Options {
    let mut options = Options::default();
    options.rcvtimeo = Some(PATIENCE);
    options.sndtimeo = Some(PATIENCE);
    options.linger = Some(Duration::ZERO);
    change(&mut options);
    options
}

/// A tcp endpoint that nobody is bound to and no other process picks: on a loopback address of this process, with a port
/// below those that the system picks from, also for who connects.
pub fn free_tcp() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let [.., last] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let host = Ipv4Addr::new(127, high | 128, low, last);
    format!("tcp://{host}:{}", 10_000 + std::process::id() % 20_000)
}

/// The same for IPv6, which has one loopback address: the port is this process's.
pub fn free_tcp6() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let port = 10_000 + (std::process::id() + 977 * NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
    format!("tcp://[::1]:{port}")
}

pub fn message<P: Into<Part>, const N: usize>(parts: [P; N]) -> Message {
    parts.into_iter().collect()
}

pub fn parts(message: &Message) -> Vec<&[u8]> {
    message.parts().iter().map(Part::as_slice).collect()
}

pub fn wait<T>(future: impl Future<Output = T>) -> T {
    tidegate_io::wait::block_on(future, Instant::now().checked_add(PATIENCE))
        .expect("nothing happened in time")
}

/// Receives and compares all parts.
#[track_caller]
pub fn expect<K: CanReceive>(socket: &Socket<K>, expected: &[&[u8]]) {
    let received = socket.recv_blocking().unwrap();
    assert_eq!(parts(&received), expected);
}

/// Nothing is there now.
#[track_caller]
pub fn nothing<K: CanReceive>(socket: &Socket<K>) {
    assert!(matches!(socket.try_recv(), Err(Error::WouldBlock)));
}

/// Nothing comes.
#[track_caller]
pub fn silent<K: CanReceive>(socket: &Socket<K>) {
    let end = Instant::now() + QUIET;
    while Instant::now() < end {
        match socket.try_recv() {
            Err(Error::WouldBlock) => std::thread::sleep(Duration::from_millis(2)),
            other => panic!("{other:?}"),
        }
    }
}

/// Both ends exchange a message each.
#[track_caller]
pub fn bounce<A: CanSend + CanReceive, B: CanSend + CanReceive>(asking: &Socket<A>, answering: &Socket<B>) {
    asking.send_blocking(message(["question", "of two parts"])).unwrap();
    expect(answering, &[b"question", b"of two parts"]);
    answering.send_blocking(message(["answer", "of two parts"])).unwrap();
    expect(asking, &[b"answer", b"of two parts"]);
}

/// Tries until it holds.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "{what}: not in time");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The next event that is wanted; others are passed over.
#[track_caller]
pub fn event(monitor: &Monitor, wanted: impl Fn(&EventKind) -> bool) -> Event {
    let end = Instant::now() + PATIENCE;
    let mut seen = Vec::new();
    loop {
        match next(monitor, end) {
            Some(event) if wanted(&event.kind) => return event,
            Some(event) => seen.push(event.kind),
            None => panic!("the event did not come; seen: {seen:?}"),
        }
    }
}

fn next(monitor: &Monitor, end: Instant) -> Option<Event> {
    tidegate_io::wait::block_on(monitor.next(), Some(end)).flatten()
}

/// So many peers have completed their handshake. In-process links are there at once and have no events.
#[track_caller]
pub fn peers(monitor: &Monitor, endpoint: &str, count: usize) {
    if !endpoint.starts_with("inproc") {
        for _ in 0..count {
            event(monitor, |kind| matches!(kind, EventKind::HandshakeSucceeded { .. }));
        }
    }
}

/// So many connections have ended.
#[track_caller]
pub fn partings(monitor: &Monitor, endpoint: &str, count: usize) {
    if !endpoint.starts_with("inproc") {
        for _ in 0..count {
            event(monitor, |kind| matches!(kind, EventKind::Disconnected { .. }));
        }
    }
}

/// `count` sockets made by `make` and connected to `endpoint`, whose owner's `monitor` has seen them all.
#[track_caller]
pub fn crowd<S>(
    endpoint: &str,
    monitor: &Monitor,
    count: usize,
    mut make: impl FnMut(usize) -> S,
    connect: impl Fn(&S, &str) -> Result<()>,
) -> Vec<S> {
    (0..count)
        .map(|number| {
            let socket = make(number);
            connect(&socket, endpoint).unwrap();
            peers(monitor, endpoint, 1);
            socket
        })
        .collect()
}

/// Everything that waits was sent and the connection has ended, so that the far end has read all of it.
#[track_caller]
pub fn close_all<K: CanSend>(sockets: Vec<Socket<K>>, monitor: &Monitor, endpoint: &str) {
    let count = sockets.len();
    for socket in sockets {
        assert_eq!(wait(socket.close(None)), 0);
    }
    partings(monitor, endpoint, count);
}

pub fn context() -> Context {
    Context::new()
}

/// A directory for socket files that nobody else uses or has left behind.
pub fn scratch() -> TempDir {
    tempfile::Builder::new().prefix("tidegate-libzmq-").tempdir().unwrap()
}
