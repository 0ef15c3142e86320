//! A session under test, fed by hand, and the octets of a peer.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use tidegate_io::{batch::WriteBatch, buffer::Slab, message::Message};
use tidegate_zmtp::{
    auth::PlainCredentials,
    close::CloseReason,
    config::{Security, SessionConfig},
    metadata::put_property,
    session::{Event, Session, State},
    socket_type::SocketType,
};

pub(crate) struct Side {
    pub(crate) session: Session,
    pub(crate) now: Instant,
    slab: Slab,
    /// Octets written so far and not yet looked at.
    written: Vec<u8>,
}

impl Side {
    pub(crate) fn new(config: SessionConfig) -> Self {
        let now = Instant::now();
        let session = Session::new(Arc::new(config), &mut counting(), now);
        Self { session, now, slab: Slab::default(), written: Vec::new() }
    }

    /// A side whose handshake with a peer of type `peer` is complete, with nothing left to write.
    pub(crate) fn up(config: SessionConfig, peer: SocketType) -> Self {
        Self::up_with(config, peer, 1)
    }

    /// The same with a peer that announces version 3.`minor`.
    pub(crate) fn up_with(config: SessionConfig, peer: SocketType, minor: u8) -> Self {
        let mut side = Self::new(config);
        let events = side.feed(&[greeting_of("NULL", 3, minor), ready(peer)].concat());
        assert!(matches!(events.as_slice(), [Event::Up(_)]), "{events:?}");
        side.output();
        side
    }

    /// Gives `bytes` as one chunk, and the events that come of it.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Vec<Event> {
        self.session.receive(BytesMut::from(bytes), self.now);
        self.events()
    }

    pub(crate) fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.session.next_event(&mut self.slab)).collect()
    }

    /// What the session wants written, since the last call.
    pub(crate) fn output(&mut self) -> Vec<u8> {
        let mut batch = WriteBatch::new(64 * 1024);
        loop {
            self.session.fill(&mut batch);
            if batch.is_empty() {
                return std::mem::take(&mut self.written);
            }
            self.written.extend(drain(&mut batch));
        }
    }

    pub(crate) fn encode(&mut self, message: impl Into<Message>) -> Vec<u8> {
        let mut batch = WriteBatch::new(64 * 1024);
        self.session.encode(&message.into(), &mut batch);
        drain(&mut batch)
    }

    /// Feeds `bytes`, after which the session must be closed for the reason that is returned.
    #[track_caller]
    pub(crate) fn closes(&mut self, bytes: &[u8]) -> CloseReason {
        closed(self.feed(bytes), self)
    }

    /// Lets `time` pass, serving every deadline on the way.
    pub(crate) fn pass(&mut self, time: Duration) -> Vec<Event> {
        let end = self.now + time;
        while let Some(deadline) = self.session.deadline().filter(|&deadline| deadline <= end) {
            self.now = self.now.max(deadline);
            self.session.expired(self.now);
        }
        self.now = end;
        self.events()
    }
}

#[track_caller]
pub(crate) fn closed(events: Vec<Event>, side: &Side) -> CloseReason {
    assert_eq!(side.session.state(), State::Closed);
    assert_eq!(side.session.deadline(), None);
    match <[Event; 1]>::try_from(events) {
        Ok([Event::Closed(reason)]) => reason,
        other => panic!("not closed: {other:?}"),
    }
}

/// Moves what two sessions write to each other until both are silent; gives the events of each.
pub(crate) fn converse(one: &mut Side, two: &mut Side) -> (Vec<Event>, Vec<Event>) {
    let mut events = (Vec::new(), Vec::new());
    loop {
        let (from_one, from_two) = (one.output(), two.output());
        if from_one.is_empty() && from_two.is_empty() {
            return events;
        }
        events.0.extend(one.feed(&from_two));
        events.1.extend(two.feed(&from_one));
    }
}

fn drain(batch: &mut WriteBatch) -> Vec<u8> {
    let bytes = batch.segments().iter().flatten().copied().collect::<Vec<_>>();
    batch.advance(bytes.len());
    bytes
}

/// Randomness that is different everywhere and the same in every run.
pub(crate) fn counting() -> impl FnMut(&mut [u8]) {
    let mut next = 0_u8;
    move |bytes: &mut [u8]| {
        for byte in bytes {
            next = next.wrapping_mul(5).wrapping_add(77);
            *byte = next;
        }
    }
}

pub(crate) fn config(kind: SocketType) -> SessionConfig {
    SessionConfig::new(kind)
}

pub(crate) fn plain_server(kind: SocketType) -> SessionConfig {
    SessionConfig { security: Security::PlainServer, ..config(kind) }
}

pub(crate) fn plain_client(kind: SocketType) -> SessionConfig {
    let credentials = PlainCredentials::new(b"admin", b"secret").unwrap();
    SessionConfig { security: Security::PlainClient(credentials), ..config(kind) }
}

pub(crate) fn authenticating(kind: SocketType) -> SessionConfig {
    SessionConfig { security: Security::Null { authenticate: true }, ..config(kind) }
}

pub(crate) fn greeting(mechanism: &str) -> Vec<u8> {
    greeting_of(mechanism, 3, 1)
}

pub(crate) fn greeting_of(mechanism: &str, major: u8, minor: u8) -> Vec<u8> {
    let mut octets = vec![0; 64];
    octets[0] = 0xff;
    octets[8] = 1;
    octets[9] = 0x7f;
    octets[10] = major;
    octets[11] = minor;
    octets[12..12 + mechanism.len()].copy_from_slice(mechanism.as_bytes());
    octets
}

pub(crate) fn frame(flags: u8, body: &[u8]) -> Vec<u8> {
    let size = match u8::try_from(body.len()) {
        Ok(len) => vec![flags, len],
        Err(_) => [&[flags | 2], (body.len() as u64).to_be_bytes().as_slice()].concat(),
    };
    [size.as_slice(), body].concat()
}

pub(crate) fn long(flags: u8, size: u64) -> Vec<u8> {
    [&[flags | 2], size.to_be_bytes().as_slice()].concat()
}

pub(crate) fn command(name: &str, data: &[u8]) -> Vec<u8> {
    frame(4, &[&[name.len() as u8], name.as_bytes(), data].concat())
}

pub(crate) fn property(name: &str, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_property(&mut out, name, value);
    out
}

pub(crate) fn socket_type(kind: SocketType) -> Vec<u8> {
    property("Socket-Type", kind.name().as_bytes())
}

pub(crate) fn ready(kind: SocketType) -> Vec<u8> {
    command("READY", &socket_type(kind))
}

/// Messages among `events`, which must be nothing else.
#[track_caller]
pub(crate) fn messages(events: Vec<Event>) -> Vec<Message> {
    let message = |event| match event {
        Event::Message(message) => message,
        other => panic!("not a message: {other:?}"),
    };
    events.into_iter().map(message).collect()
}

/// Text that is equal when events are: for comparisons of whole histories.
pub(crate) fn history(events: &[Event]) -> Vec<String> {
    let show = |event: &Event| match event {
        // Debug of a part is cut short; of its octets it is not.
        Event::Message(message) => {
            format!("{:?}", message.parts().iter().map(|p| p.to_vec()).collect::<Vec<_>>())
        }
        other => format!("{other:?}"),
    };
    events.iter().map(show).collect()
}
