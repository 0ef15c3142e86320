//! Transport inside one process, for tests and for embedding everything in one program.
//!
//! It behaves as Aeron IPC does where agents can tell the difference, and is deterministic: a message is delivered to
//! every subscription that existed when it was offered, in order, or to none of them.
//!
//! - All shared publications of one (channel, stream id) write one log and have **one session id**, whoever opened
//!   them; each exclusive publication has its own.
//! - A shared publication that states another `term-length` or `mtu` than the log has is refused (TP-487).
//! - Each subscription holds a bounded number of messages. When one is full the offer is refused for all
//!   ([`OfferError::BackPressured`]); nothing is ever dropped silently.
//! - [`MemoryBus::fail`] is the death of the media driver: every transport connected so far is lost for good, and a new
//!   one starts on an empty bus.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Connector, Message, OfferError, Pending, Publication, Subscription, Transport, TransportError};
use crate::channel::{Channel, Media};
use crate::ids::{AeronStreamId, SessionId};

/// Messages one subscription holds unless [`MemoryBus::with_capacity`] says otherwise.
pub const DEFAULT_CAPACITY: usize = 4096;

/// Term length of a log whose first publication states none, as in Aeron.
const DEFAULT_TERM_LENGTH: u64 = 64 << 20;
/// MTU of an IPC log whose first publication states none, as in Aeron.
const DEFAULT_MTU: u64 = 1408;

const LOCATION: &str = "the in-memory bus";

/// The medium; clones share it. Each [`Connector::connect`] is one client.
#[derive(Debug, Clone)]
pub struct MemoryBus {
    state: Arc<Mutex<State>>,
}

impl MemoryBus {
    /// A bus whose subscriptions hold [`DEFAULT_CAPACITY`] messages.
    #[must_use]
    pub fn new() -> Self {
        Self::with_capacity(DEFAULT_CAPACITY)
    }

    /// A bus whose subscriptions hold `messages` messages before publishers are pushed back.
    #[must_use]
    pub fn with_capacity(messages: usize) -> Self {
        Self { state: Arc::new(Mutex::new(State { capacity: messages, ..State::default() })) }
    }

    /// Kills the media driver: transports connected so far fail with `reason`, undelivered messages are gone. A new
    /// connection works at once.
    pub fn fail(&self, reason: &str) {
        let mut state = self.lock();
        state.incarnation += 1;
        state.last_failure = reason.to_owned();
        state.logs.clear();
    }

    /// Whether [`Connector::connect`] finds a media driver. Connections that exist are not touched.
    pub fn set_reachable(&self, reachable: bool) {
        self.lock().unreachable = !reachable;
    }

    /// Loses the next `count` messages of a stream id: their offers succeed and nobody receives them.
    pub fn drop_next(&self, stream: AeronStreamId, count: usize) {
        self.lock().losses.insert(stream, count);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A poisoned lock means that a test panicked inside; the state itself is whole after every statement.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryBus {
    fn default() -> Self {
        Self::new()
    }
}

impl Connector for MemoryBus {
    fn connect(&self) -> Result<Box<dyn Transport>, TransportError> {
        let state = self.lock();
        if state.unreachable {
            return Err(TransportError::Unreachable {
                location: LOCATION.to_owned(),
                reason: "set unreachable".to_owned(),
            });
        }
        let incarnation = state.incarnation;
        Ok(Box::new(Client { bus: self.clone(), incarnation }))
    }
}

#[derive(Debug, Default)]
struct State {
    capacity: usize,
    unreachable: bool,
    /// Grows when the media driver dies; endpoints of an older one are dead.
    incarnation: u64,
    last_failure: String,
    logs: HashMap<LogKey, Log>,
    losses: HashMap<AeronStreamId, usize>,
    last_session: i32,
    last_inbox: u64,
    position: i64,
}

impl State {
    fn lost(&self, incarnation: u64) -> Option<TransportError> {
        (incarnation != self.incarnation).then(|| TransportError::Lost {
            location: LOCATION.to_owned(),
            reason: self.last_failure.clone(),
        })
    }

    fn next_session(&mut self) -> SessionId {
        self.last_session = self.last_session.wrapping_add(1);
        SessionId::new(self.last_session)
    }

    /// Whether the next message of the stream is to be lost.
    fn loses(&mut self, stream: AeronStreamId) -> bool {
        match self.losses.get_mut(&stream) {
            Some(left) if *left > 0 => {
                *left -= 1;
                true
            }
            _ => false,
        }
    }
}

/// What makes two endpoints meet. Parameters other than the endpoint do not count.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct LogKey {
    media: Media,
    endpoint: Option<String>,
    stream: AeronStreamId,
}

impl LogKey {
    fn new(channel: &Channel, stream: AeronStreamId) -> Self {
        Self { media: channel.media(), endpoint: channel.parameter("endpoint").map(str::to_owned), stream }
    }
}

/// Everything that meets under one key.
#[derive(Debug, Default)]
struct Log {
    shared: Option<Shared>,
    exclusive: BTreeSet<SessionId>,
    inboxes: BTreeMap<u64, VecDeque<Parcel>>,
}

#[derive(Debug)]
struct Shared {
    session: SessionId,
    publications: usize,
    term_length: u64,
    mtu: u64,
}

#[derive(Debug, Clone)]
struct Parcel {
    session: SessionId,
    bytes: Arc<[u8]>,
}

impl Log {
    fn is_live(&self, session: SessionId) -> bool {
        self.exclusive.contains(&session)
            || self.shared.as_ref().is_some_and(|shared| shared.session == session)
    }

    fn is_unused(&self) -> bool {
        self.shared.is_none() && self.exclusive.is_empty() && self.inboxes.is_empty()
    }
}

struct Client {
    bus: MemoryBus,
    incarnation: u64,
}

impl Client {
    fn opening(&self, channel: &Channel, stream: AeronStreamId, exclusive: bool) -> Opening {
        Opening {
            bus: self.bus.clone(),
            incarnation: self.incarnation,
            channel: channel.clone(),
            stream,
            exclusive,
        }
    }
}

impl Transport for Client {
    fn publication(
        &self,
        channel: &Channel,
        stream: AeronStreamId,
    ) -> Result<Box<dyn Pending<Box<dyn Publication>>>, TransportError> {
        Ok(Box::new(self.opening(channel, stream, false)))
    }

    fn exclusive_publication(
        &self,
        channel: &Channel,
        stream: AeronStreamId,
    ) -> Result<Box<dyn Pending<Box<dyn Publication>>>, TransportError> {
        Ok(Box::new(self.opening(channel, stream, true)))
    }

    fn subscription(
        &self,
        channel: &Channel,
        stream: AeronStreamId,
    ) -> Result<Box<dyn Pending<Box<dyn Subscription>>>, TransportError> {
        Ok(Box::new(self.opening(channel, stream, false)))
    }

    fn do_work(&self) -> usize {
        0
    }

    fn failure(&self) -> Option<TransportError> {
        self.bus.lock().lost(self.incarnation)
    }
}

/// An endpoint that comes into being when it is polled.
struct Opening {
    bus: MemoryBus,
    incarnation: u64,
    channel: Channel,
    stream: AeronStreamId,
    exclusive: bool,
}

impl Opening {
    fn clash(&self, parameter: &str, existing: u64, asked: u64) -> TransportError {
        TransportError::ChannelClash {
            channel: self.channel.as_str().to_owned(),
            stream: self.stream,
            reason: format!(
                "existing publication has different '{parameter}': existing={existing} requested={asked}"
            ),
        }
    }
}

impl Pending<Box<dyn Publication>> for Opening {
    fn poll(&mut self) -> Result<Option<Box<dyn Publication>>, TransportError> {
        let mut state = self.bus.lock();
        if let Some(lost) = state.lost(self.incarnation) {
            return Err(lost);
        }
        let key = LogKey::new(&self.channel, self.stream);
        let fresh = state.next_session();
        let log = state.logs.entry(key.clone()).or_default();
        let session = if self.exclusive {
            log.exclusive.insert(fresh);
            fresh
        } else {
            let shared = log.shared.get_or_insert_with(|| Shared {
                session: fresh,
                publications: 0,
                term_length: self.channel.term_length().unwrap_or(DEFAULT_TERM_LENGTH),
                mtu: self.channel.mtu().unwrap_or(DEFAULT_MTU),
            });
            if let Some(asked) = self.channel.term_length().filter(|asked| *asked != shared.term_length) {
                return Err(self.clash("term-length", shared.term_length, asked));
            }
            if let Some(asked) = self.channel.mtu().filter(|asked| *asked != shared.mtu) {
                return Err(self.clash("mtu", shared.mtu, asked));
            }
            shared.publications += 1;
            shared.session
        };
        drop(state);
        Ok(Some(Box::new(MemoryPublication {
            bus: self.bus.clone(),
            incarnation: self.incarnation,
            key,
            session,
            exclusive: self.exclusive,
        })))
    }
}

impl Pending<Box<dyn Subscription>> for Opening {
    fn poll(&mut self) -> Result<Option<Box<dyn Subscription>>, TransportError> {
        let mut state = self.bus.lock();
        if let Some(lost) = state.lost(self.incarnation) {
            return Err(lost);
        }
        let key = LogKey::new(&self.channel, self.stream);
        state.last_inbox += 1;
        let inbox = state.last_inbox;
        state.logs.entry(key.clone()).or_default().inboxes.insert(inbox, VecDeque::new());
        drop(state);
        Ok(Some(Box::new(MemorySubscription {
            bus: self.bus.clone(),
            incarnation: self.incarnation,
            key,
            inbox,
        })))
    }
}

struct MemoryPublication {
    bus: MemoryBus,
    incarnation: u64,
    key: LogKey,
    session: SessionId,
    exclusive: bool,
}

impl Publication for MemoryPublication {
    fn offer(&mut self, message: &[u8]) -> Result<i64, OfferError> {
        let mut state = self.bus.lock();
        if state.lost(self.incarnation).is_some() {
            return Err(OfferError::Closed);
        }
        let capacity = state.capacity;
        let Some(log) = state.logs.get(&self.key) else { return Err(OfferError::Closed) };
        if log.inboxes.is_empty() {
            return Err(OfferError::NotConnected);
        }
        if log.inboxes.values().any(|inbox| inbox.len() >= capacity) {
            return Err(OfferError::BackPressured);
        }
        state.position = state.position.saturating_add(i64::try_from(message.len()).unwrap_or(i64::MAX));
        let position = state.position;
        if state.loses(self.key.stream) {
            return Ok(position);
        }
        let parcel = Parcel { session: self.session, bytes: Arc::from(message) };
        if let Some(log) = state.logs.get_mut(&self.key) {
            for inbox in log.inboxes.values_mut() {
                inbox.push_back(parcel.clone());
            }
        }
        Ok(position)
    }

    fn is_connected(&self) -> bool {
        let state = self.bus.lock();
        state.lost(self.incarnation).is_none()
            && state.logs.get(&self.key).is_some_and(|log| !log.inboxes.is_empty())
    }

    fn session(&self) -> SessionId {
        self.session
    }
}

impl Drop for MemoryPublication {
    fn drop(&mut self) {
        let mut state = self.bus.lock();
        if state.lost(self.incarnation).is_some() {
            return;
        }
        let Some(log) = state.logs.get_mut(&self.key) else { return };
        if self.exclusive {
            log.exclusive.remove(&self.session);
        } else if let Some(shared) = &mut log.shared {
            shared.publications -= 1;
            if shared.publications == 0 {
                log.shared = None;
            }
        }
        if log.is_unused() {
            state.logs.remove(&self.key);
        }
    }
}

struct MemorySubscription {
    bus: MemoryBus,
    incarnation: u64,
    key: LogKey,
    inbox: u64,
}

impl Subscription for MemorySubscription {
    fn poll(&mut self, limit: usize, handler: &mut dyn FnMut(Message<'_>)) -> Result<usize, TransportError> {
        let mut handled = 0;
        while handled < limit {
            let parcel = {
                let mut state = self.bus.lock();
                if let Some(lost) = state.lost(self.incarnation) {
                    return Err(lost);
                }
                let inbox = state.logs.get_mut(&self.key).and_then(|log| log.inboxes.get_mut(&self.inbox));
                inbox.and_then(VecDeque::pop_front)
            };
            // The lock is free here: a handler may offer.
            let Some(parcel) = parcel else { break };
            handler(Message { bytes: &parcel.bytes, session: parcel.session });
            handled += 1;
        }
        Ok(handled)
    }

    fn has_image(&self, session: SessionId) -> bool {
        let state = self.bus.lock();
        state.lost(self.incarnation).is_none()
            && state.logs.get(&self.key).is_some_and(|log| log.is_live(session))
    }

    fn image_count(&self) -> usize {
        let state = self.bus.lock();
        if state.lost(self.incarnation).is_some() {
            return 0;
        }
        state.logs.get(&self.key).map_or(0, |log| log.exclusive.len() + usize::from(log.shared.is_some()))
    }
}

impl Drop for MemorySubscription {
    fn drop(&mut self) {
        let mut state = self.bus.lock();
        if state.lost(self.incarnation).is_some() {
            return;
        }
        let Some(log) = state.logs.get_mut(&self.key) else { return };
        log.inboxes.remove(&self.inbox);
        if log.is_unused() {
            state.logs.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: AeronStreamId = AeronStreamId::new(1000);

    fn channel(text: &str) -> Channel {
        Channel::parse(text).unwrap()
    }

    fn publication(
        transport: &dyn Transport,
        channel: &Channel,
    ) -> Result<Box<dyn Publication>, TransportError> {
        Ok(transport.publication(channel, STREAM)?.poll()?.unwrap())
    }

    fn subscription(transport: &dyn Transport, channel: &Channel) -> Box<dyn Subscription> {
        transport.subscription(channel, STREAM).unwrap().poll().unwrap().unwrap()
    }

    fn received(subscription: &mut dyn Subscription) -> Vec<Vec<u8>> {
        let mut messages = Vec::new();
        subscription.poll(usize::MAX, &mut |message| messages.push(message.bytes.to_vec())).unwrap();
        messages
    }

    #[test]
    fn a_message_reaches_every_subscription_that_existed_when_it_was_offered() {
        let bus = MemoryBus::new();
        let transport = bus.connect().unwrap();
        let ipc = Channel::default();
        let mut publication = publication(&*transport, &ipc).unwrap();
        assert_eq!(publication.offer(b"early"), Err(OfferError::NotConnected));
        let mut first = subscription(&*transport, &ipc);
        publication.offer(b"1").unwrap();
        let mut second = subscription(&*bus.connect().unwrap(), &channel("aeron:ipc"));
        publication.offer(b"2").unwrap();
        assert_eq!(received(&mut *first), [b"1".to_vec(), b"2".to_vec()]);
        assert_eq!(received(&mut *second), [b"2".to_vec()]);
        drop((first, second));
        assert_eq!(publication.offer(b"late"), Err(OfferError::NotConnected));
    }

    #[test]
    fn a_full_subscription_refuses_the_message_for_all() {
        let bus = MemoryBus::with_capacity(1);
        let transport = bus.connect().unwrap();
        let ipc = Channel::default();
        let mut publication = publication(&*transport, &ipc).unwrap();
        let mut slow = subscription(&*transport, &ipc);
        let mut quick = subscription(&*transport, &ipc);
        publication.offer(b"1").unwrap();
        assert_eq!(received(&mut *quick).len(), 1);
        assert_eq!(publication.offer(b"2"), Err(OfferError::BackPressured));
        assert!(received(&mut *quick).is_empty());
        assert_eq!(received(&mut *slow).len(), 1);
        publication.offer(b"2").unwrap();
        assert_eq!((received(&mut *quick).len(), received(&mut *slow).len()), (1, 1));
    }

    /// Rules: TP-487.
    #[test]
    fn shared_publications_of_one_stream_must_agree_on_what_they_state() {
        let bus = MemoryBus::new();
        let transport = bus.connect().unwrap();
        let first = publication(&*transport, &channel("aeron:ipc?term-length=4m")).unwrap();
        for other in ["aeron:ipc?term-length=1m", "aeron:ipc?mtu=4096"] {
            let refused = publication(&*transport, &channel(other));
            assert!(matches!(refused, Err(TransportError::ChannelClash { .. })), "{other}");
        }
        let joined = publication(&*transport, &channel("aeron:ipc?term-length=4194304")).unwrap();
        assert_eq!(first.session(), joined.session());
        let exclusive = transport.exclusive_publication(&channel("aeron:ipc?term-length=1m"), STREAM);
        let exclusive = exclusive.unwrap().poll().unwrap().unwrap();
        assert_ne!(exclusive.session(), first.session());

        let subscription = subscription(&*transport, &channel("aeron:ipc"));
        assert_eq!(subscription.image_count(), 2);
        drop((first, joined));
        assert_eq!(subscription.image_count(), 1);
        assert!(subscription.has_image(exclusive.session()));
        drop(exclusive);
        // With the last publication the log is gone, and its parameters with it.
        publication(&*transport, &channel("aeron:ipc?term-length=1m")).unwrap();
    }

    #[test]
    fn a_dead_media_driver_takes_its_clients_with_it_but_not_the_next_ones() {
        let bus = MemoryBus::new();
        let ipc = Channel::default();
        let old = bus.connect().unwrap();
        let mut old_publication = publication(&*old, &ipc).unwrap();
        let mut old_subscription = subscription(&*old, &ipc);
        bus.fail("killed");
        let new = bus.connect().unwrap();
        let mut new_publication = publication(&*new, &ipc).unwrap();
        let mut new_subscription = subscription(&*new, &ipc);
        assert!(matches!(old.failure(), Some(TransportError::Lost { .. })));
        assert_eq!(old_publication.offer(b"x"), Err(OfferError::Closed));
        assert!(old_subscription.poll(1, &mut |_| {}).is_err());
        assert_eq!(old_subscription.image_count(), 0);
        assert!(publication(&*old, &ipc).is_err());
        drop((old_publication, old_subscription));
        assert_eq!(new.failure(), None);
        new_publication.offer(b"y").unwrap();
        assert_eq!(received(&mut *new_subscription), [b"y".to_vec()]);
        bus.set_reachable(false);
        assert!(matches!(bus.connect(), Err(TransportError::Unreachable { .. })));
    }

    #[test]
    fn asked_losses_are_lost_and_no_others() {
        let bus = MemoryBus::new();
        let transport = bus.connect().unwrap();
        let ipc = Channel::default();
        let mut publication = publication(&*transport, &ipc).unwrap();
        let mut subscription = subscription(&*transport, &ipc);
        bus.drop_next(AeronStreamId::new(7), 9);
        bus.drop_next(STREAM, 2);
        for message in [b"1", b"2", b"3"] {
            publication.offer(message).unwrap();
        }
        assert_eq!(received(&mut *subscription), [b"3".to_vec()]);
    }

    #[test]
    fn endpoints_meet_by_media_endpoint_and_stream() {
        let bus = MemoryBus::new();
        let transport = bus.connect().unwrap();
        let here = channel("aeron:udp?endpoint=127.0.0.1:4000");
        let mut publication = publication(&*transport, &here).unwrap();
        let _elsewhere = subscription(&*transport, &channel("aeron:udp?endpoint=127.0.0.1:4001"));
        assert_eq!(publication.offer(b"x"), Err(OfferError::NotConnected));
        let mut met = subscription(&*transport, &channel("aeron:udp?endpoint=127.0.0.1:4000|mtu=1500"));
        publication.offer(b"x").unwrap();
        assert_eq!(received(&mut *met).len(), 1);
    }
}
