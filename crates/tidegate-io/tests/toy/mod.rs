//! A protocol as small as one can be, to show that the engine knows none: frames of a length and so many bytes.
//!
//! ```text
//!   length (u32, big endian) | body
//! ```
//!
//! The accepting side opens with an empty frame, upon which both sides count as established.

#![allow(dead_code, reason = "each test uses a part")]
#![allow(unreachable_pub, reason = "a module of several tests")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "only tests use it")]

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex},
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes, BytesMut};
use tidegate_io::{
    batch::WriteBatch,
    engine::{
        Acceptor, BindAddress, BindHost, Control, Dialing, Driver, DriverChoice, Engine, EngineConfig,
        StreamAddress, StreamEvent, StreamInfo, Target,
    },
    hub::{PeerSet, Peers},
    peer::{Epoch, PeerKey},
    protocol::{Connection, Ended, Flow, Retry},
};

/// Bodies above this are read into a buffer of their own.
const LARGE: usize = 64 * 1024;

/// What a connection does with what it receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Sends every frame back.
    Echo,
    /// Puts frames into the node's inbox.
    Collect,
    /// Counts frames, keeps nothing.
    Count,
    /// Sends every frame to all its connections, by the hubs of the crate.
    Broadcast,
}

/// Everything connections of one side share with the test.
pub struct Node {
    pub role: Role,
    pub state: Mutex<State>,
    pub changed: Condvar,
    /// Frames that may be received before reading pauses.
    pub inbox_limit: usize,
    /// What `closed` answers.
    pub retry: Retry,
    /// Deadline for the handshake.
    pub handshake: Duration,
    /// The accepting side waits for a greeting instead of sending one.
    pub silent: bool,
}

#[derive(Default)]
pub struct State {
    /// Names of the threads on which connections were made.
    pub threads: Vec<String>,
    pub inbox: VecDeque<Bytes>,
    pub frames: u64,
    pub bytes: u64,
    pub links: Vec<Arc<Link>>,
    pub up: usize,
    pub ended: Vec<String>,
    pub events: Vec<String>,
    pub infos: Vec<StreamInfo>,
    pub paused: Vec<Control>,
    /// How long connections have lived.
    pub lifetimes: Vec<Duration>,
    pub hub: Hub,
}

/// Who gets what is broadcast, by the crate's own hubs.
#[derive(Default)]
pub struct Hub {
    peers: Peers<Arc<Link>>,
    connected: PeerSet,
}

impl Hub {
    fn broadcast(&mut self, body: &Bytes) -> usize {
        let links = self.connected.peers().iter().filter_map(|key| self.peers.get(*key));
        links.map(|link| link.send(body.clone())).count()
    }
}

/// One connection as the test sees it.
pub struct Link {
    pub control: Control,
    pub queue: Mutex<Queue>,
}

#[derive(Default)]
pub struct Queue {
    pub frames: VecDeque<Bytes>,
    pub scratch: Option<WriteBatch>,
    pub closed: bool,
}

impl Link {
    /// Queues a frame and has it written by the worker.
    pub fn send(&self, body: impl Into<Bytes>) {
        self.queue.lock().unwrap().frames.push_back(body.into());
        self.control.kick();
    }

    /// Writes a frame from this thread if nothing is before it, else queues it.
    pub fn send_direct(&self, body: &[u8]) -> bool {
        let mut queue = self.queue.lock().unwrap();
        if queue.frames.is_empty()
            && let Some(writer) = self.control.writer()
        {
            let mut batch = queue.scratch.take().unwrap_or_else(|| WriteBatch::new(64 * 1024));
            put(&mut batch, body);
            writer.write(&mut batch);
            queue.scratch = Some(batch);
            return true;
        }
        queue.frames.push_back(Bytes::copy_from_slice(body));
        drop(queue);
        self.control.kick();
        false
    }
}

impl Node {
    pub fn new(role: Role) -> Arc<Self> {
        Arc::new(Self {
            role,
            state: Mutex::default(),
            changed: Condvar::new(),
            inbox_limit: usize::MAX,
            retry: Retry::Lost,
            handshake: Duration::from_secs(30),
            silent: false,
        })
    }

    pub fn with(role: Role, change: impl FnOnce(&mut Self)) -> Arc<Self> {
        let mut node = Self::new(role);
        change(Arc::get_mut(&mut node).unwrap());
        node
    }

    /// Waits until `done`, or fails the test.
    #[track_caller]
    pub fn wait<R>(&self, what: &str, mut done: impl FnMut(&mut State) -> Option<R>) -> R {
        let by = Instant::now() + Duration::from_secs(20);
        let mut state = self.state.lock().unwrap();
        loop {
            if let Some(result) = done(&mut state) {
                return result;
            }
            let left = by.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "waited for {what}; events {:?}, ended {:?}", state.events, state.ended);
            state = self.changed.wait_timeout(state, left).unwrap().0;
        }
    }

    #[track_caller]
    pub fn link(&self, index: usize) -> Arc<Link> {
        self.wait("a link", |state| (state.up > index).then(|| state.links[index].clone()))
    }

    #[track_caller]
    pub fn recv(&self) -> Bytes {
        let (frame, paused) = self.wait("a frame", |state| {
            let frame = state.inbox.pop_front()?;
            Some((frame, std::mem::take(&mut state.paused)))
        });
        for control in paused {
            control.resume();
        }
        frame
    }

    /// Waits for an event that starts with `name`, and forgets those up to it.
    #[track_caller]
    pub fn event(&self, name: &str) -> String {
        self.wait(name, |state| {
            let place = state.events.iter().position(|event| event.starts_with(name))?;
            Some(state.events.drain(..=place).next_back().unwrap())
        })
    }

    #[track_caller]
    pub fn ended(&self) -> String {
        self.wait("an end", |state| state.ended.pop())
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
        self.changed.notify_all();
    }

    fn note(&self, event: &StreamEvent<'_>) {
        self.change(|state| state.events.push(describe(event)));
    }
}

fn describe(event: &StreamEvent<'_>) -> String {
    let text = format!("{event:?}");
    match event {
        StreamEvent::Disconnected { why, traffic, .. } => {
            format!("Disconnected {why:?} {} {}", traffic.received, traffic.sent)
        }
        _ => text,
    }
}

/// A [`Node`] is given to the engine in this wrapper.
pub struct Ends(pub Arc<Node>);

impl Acceptor for Ends {
    fn accept(&self, stream: &StreamInfo) -> Option<Box<dyn Connection>> {
        self.0.change(|state| {
            state.infos.push(stream.clone());
            state.threads.push(std::thread::current().name().unwrap_or_default().to_owned());
        });
        Some(Box::new(Toy::new(self.0.clone(), !self.0.silent)))
    }

    fn event(&self, event: &StreamEvent<'_>) {
        self.0.note(event);
    }
}

impl Dialing for Ends {
    fn connect(&self, stream: &StreamInfo) -> Box<dyn Connection> {
        self.0.change(|state| state.infos.push(stream.clone()));
        Box::new(Toy::new(self.0.clone(), false))
    }

    fn event(&self, event: &StreamEvent<'_>) {
        self.0.note(event);
    }
}

/// Dials like [`Ends`], and greets first.
pub struct Greeter(pub Arc<Node>);

impl Dialing for Greeter {
    fn connect(&self, _stream: &StreamInfo) -> Box<dyn Connection> {
        Box::new(Toy::new(self.0.clone(), true))
    }
}

/// One connection of the protocol.
pub struct Toy {
    node: Arc<Node>,
    link: Option<Arc<Link>>,
    control: Option<Control>,
    /// In the node's hub.
    name: Option<(PeerKey, Epoch)>,
    greeting_due: bool,
    up: bool,
    opened: Option<Instant>,
    deadline: Option<Instant>,
    pending: BytesMut,
    large: Option<BytesMut>,
}

impl Toy {
    fn new(node: Arc<Node>, accepted: bool) -> Self {
        Self {
            node,
            link: None,
            control: None,
            name: None,
            greeting_due: accepted,
            up: false,
            opened: None,
            deadline: None,
            pending: BytesMut::new(),
            large: None,
        }
    }

    fn frame(&mut self, body: Bytes) -> Flow {
        let (Some(link), Some(control)) = (&self.link, &self.control) else { return Flow::Abort };
        if !self.up {
            self.up = true;
            self.deadline = None;
            control.established();
            let link = link.clone();
            let name = &mut self.name;
            self.node.change(|state| {
                state.up += 1;
                let (key, epoch) = state.hub.peers.insert(link.clone());
                state.hub.connected.attach(key, epoch);
                *name = Some((key, epoch));
                state.links.push(link);
            });
            return Flow::Continue;
        }
        if body.as_ref() == b"panic" {
            panic!("asked for");
        }
        match self.node.role {
            Role::Echo => link.queue.lock().unwrap().frames.push_back(body),
            Role::Broadcast => {
                self.node.state.lock().unwrap().hub.broadcast(&body);
            }
            Role::Count => {
                let mut state = self.node.state.lock().unwrap();
                state.frames += 1;
                state.bytes += body.len() as u64;
                drop(state);
                self.node.changed.notify_all();
            }
            Role::Collect => {
                let mut full = false;
                let control = control.clone();
                self.node.change(|state| {
                    state.inbox.push_back(body);
                    full = state.inbox.len() >= self.node.inbox_limit;
                    if full {
                        state.paused.push(control);
                    }
                });
                if full {
                    return Flow::Pause;
                }
            }
        }
        Flow::Continue
    }

    fn frames(&mut self, mut bytes: BytesMut) -> Flow {
        let mut flow = Flow::Continue;
        while let Some(header) = bytes.first_chunk::<4>() {
            let len = u32::from_be_bytes(*header) as usize;
            if len > 1 << 30 {
                return Flow::Abort;
            }
            if bytes.len() < 4 + len {
                if len > LARGE {
                    bytes.advance(4);
                    let mut large = BytesMut::with_capacity(len);
                    large.extend_from_slice(&bytes);
                    self.large = Some(large);
                    return flow;
                }
                break;
            }
            bytes.advance(4);
            let body = bytes.split_to(len).freeze();
            match self.frame(body) {
                Flow::Continue => {}
                Flow::Pause => flow = Flow::Pause,
                other => return other,
            }
        }
        self.pending = if bytes.is_empty() { BytesMut::new() } else { bytes };
        flow
    }
}

fn put(batch: &mut WriteBatch, body: &[u8]) {
    batch.put(&u32::try_from(body.len()).unwrap().to_be_bytes());
    batch.put(body);
}

impl Connection for Toy {
    fn opened(&mut self, _stream: &StreamInfo, control: Control, now: Instant) -> Flow {
        self.control = Some(control.clone());
        self.opened = Some(now);
        self.deadline = Some(now + self.node.handshake);
        self.link = Some(Arc::new(Link { control, queue: Mutex::default() }));
        Flow::Continue
    }

    fn received(&mut self, bytes: BytesMut, _now: Instant) -> Flow {
        let bytes = if self.pending.is_empty() {
            bytes
        } else {
            let mut pending = std::mem::take(&mut self.pending);
            pending.extend_from_slice(&bytes);
            pending
        };
        self.frames(bytes)
    }

    fn staging(&mut self) -> Option<BytesMut> {
        self.large.take()
    }

    fn received_into(&mut self, staging: BytesMut, _now: Instant) -> Flow {
        if staging.len() < staging.capacity() {
            self.large = Some(staging);
            return Flow::Continue;
        }
        self.frame(staging.freeze())
    }

    fn fill(&mut self, batch: &mut WriteBatch, _now: Instant) -> Flow {
        let Some(link) = self.link.clone() else { return Flow::Abort };
        if self.greeting_due {
            self.greeting_due = false;
            batch.put(&[0; 4]);
            // The accepting side is up by what it says itself.
            return self.frame(Bytes::new());
        }
        let mut queue = link.queue.lock().unwrap();
        while !batch.is_full() {
            let Some(body) = queue.frames.pop_front() else { break };
            if body.len() >= 16 * 1024 {
                batch.put(&u32::try_from(body.len()).unwrap().to_be_bytes());
                batch.put_shared(body);
            } else {
                put(batch, &body);
            }
        }
        Flow::Continue
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn expired(&mut self, _now: Instant) -> Flow {
        Flow::Abort
    }

    fn closed(&mut self, why: &Ended, now: Instant) -> Retry {
        let lifetime = self.opened.map(|opened| now - opened);
        if let Some(link) = &self.link {
            link.queue.lock().unwrap().closed = true;
        }
        let why = format!("{why:?}");
        let up = self.up;
        self.node.change(|state| {
            state.ended.push(why);
            state.lifetimes.extend(lifetime);
            if up {
                state.up -= 1;
                if let Some((key, epoch)) = self.name {
                    state.hub.connected.detach(key, epoch);
                    state.hub.peers.remove(key, epoch);
                }
                let link = self.link.clone();
                state.links.retain(|other| !link.as_ref().is_some_and(|link| Arc::ptr_eq(link, other)));
            }
        });
        self.node.retry
    }
}

/// Runs `test` on an engine of either driver.
pub fn on_both(test: impl Fn(&Engine)) {
    for driver in [DriverChoice::IoUring, DriverChoice::Polling] {
        let engine = engine(driver, 1);
        test(&engine);
        let report = engine.shutdown(Duration::ZERO);
        assert_eq!(report.stuck, 0, "{driver:?}: a worker did not end");
    }
}

pub fn engine(driver: DriverChoice, workers: usize) -> Engine {
    let engine = Engine::new(&EngineConfig { workers, driver, ..EngineConfig::default() }).unwrap();
    let expected = match driver {
        DriverChoice::Polling => Driver::Polling,
        _ => Driver::IoUring,
    };
    assert_eq!(engine.driver(), expected, "the machine that runs the tests must allow io_uring");
    engine
}

pub fn loopback() -> BindAddress {
    BindAddress::Tcp { host: BindHost::Ip([127, 0, 0, 1].into()), port: 0 }
}

/// The target that reaches a listener at `address`.
pub fn target(address: &StreamAddress) -> Target {
    match address {
        StreamAddress::Ip(ip) => Target::Tcp { host: ip.ip().to_string(), port: ip.port(), source: None },
        StreamAddress::Path(path) => Target::Path(path.clone()),
        StreamAddress::Abstract(name) => Target::Abstract(name.clone()),
        StreamAddress::Unnamed => panic!("no such listener"),
    }
}
