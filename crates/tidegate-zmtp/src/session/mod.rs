//! One connection from the greeting to its end, as a state machine without I/O (MQ-027, §4.8).
//!
//! ```text
//!   Greeting ──64 octets──► Handshake ──mechanism done──► Active ──close──► Closing
//!      └──────────────────────┴── error, deadline, end ─────┴─────────────────┴──► Closed
//! ```
//!
//! What arrives goes in by [`Session::receive`] and comes out as [`Event`]s; [`Session::next_event`] is to be called
//! until it gives `None`, since octets are decoded when their event is asked for. What is to be written is taken by
//! [`Session::fill`] (greeting, handshake, commands) and [`Session::encode`] (messages). After each call
//! [`Session::deadline`] may have changed, and `fill` may have more to give.
//!
//! The same octets give the same events and output however they are split (MQ-028). After an error the session is
//! Closed: it ignores input, gives [`Event::Closed`] once, and `fill` still gives what the peer is to be told.

mod decode;
mod handshake;
mod heartbeat;
mod input;
mod output;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use tidegate_io::{
    batch::WriteBatch,
    buffer::Slab,
    message::{Message, Part},
    packed::Packed,
};

use self::{heartbeat::Heartbeat, input::Input, output::Output};
use crate::{
    auth::{AuthCode, AuthRequest, Verdict},
    close::{CloseReason, Deadline},
    command,
    config::SessionConfig,
    frame,
    greeting::{self, Greeting, Version},
    mechanism::{self, Boxing, Context, Handshake, INNER_MORE, Refusal, Traffic},
    metadata::Metadata,
    random::Random,
    socket_type::SocketType,
};

/// Where a session is (MQ-029).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The greeting of the peer is not complete.
    Greeting,
    /// The mechanism is at work.
    Handshake,
    /// Messages flow.
    Active,
    /// Closed by us: messages of the peer are discarded, ours are still written.
    Closing,
    /// Over.
    Closed,
}

/// What has happened on a connection.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// The peer asks to be let in; nothing follows until [`Session::verdict`].
    Authenticate(AuthRequest),
    /// The handshake is complete. The first event that a socket may act on (MQ-029).
    Up(PeerInfo),
    /// A message, complete and within the limits.
    Message(Message),
    /// The peer subscribes to a topic, by a command or by a message (MQ-177).
    Subscribe(Part),
    /// The peer ends the subscription of a topic.
    Cancel(Part),
    /// The connection is over. The last event.
    Closed(CloseReason),
}

/// What is known of a peer whose handshake is complete.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    /// `None` where the peer did not say and the configuration allows that.
    pub socket_type: Option<SocketType>,
    /// The Identity of the peer; empty when it has none.
    pub routing_id: Bytes,
    /// `NULL`, `PLAIN` or `CURVE`.
    pub mechanism: &'static str,
    /// What the authenticator calls the peer; empty when it was not asked.
    pub user_id: Bytes,
    /// Properties of the peer, and what the authenticator added (MQ-160).
    pub metadata: Metadata,
    /// Version that both sides speak.
    pub version: Version,
}

/// Protocol state of one connection.
pub struct Session {
    config: Arc<SessionConfig>,
    state: State,
    input: Input,
    output: Output,
    /// Parts of a message whose last part is missing.
    message: Message,
    /// Parts and octets of that message, those included that were not kept.
    parts: usize,
    octets: u64,
    /// Its last part was a subscription, which is reported first.
    message_is_complete: bool,
    traffic: Traffic,
    version: Version,
    heartbeat: Option<Heartbeat>,
    greeting: Greeting,
    /// The mechanism, until it is done.
    handshake: Option<Box<dyn Handshake>>,
    /// Whether the mechanism waits for a verdict.
    undecided: bool,
    user: Option<(Bytes, Metadata)>,
    handshake_deadline: Option<Instant>,
    patience_deadline: Option<Instant>,
    /// When the last octets arrived.
    now: Instant,
    event: Option<Event>,
    closed: Option<CloseReason>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("state", &self.state)
            .field("mechanism", &self.config.security.mechanism())
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// The session of a connection that was established at `now`. Its greeting waits to be [filled](Self::fill) in
    /// (MQ-086). All randomness that the session will need is drawn here (MQ-031).
    pub fn new(config: Arc<SessionConfig>, random: &mut dyn Random, now: Instant) -> Self {
        let handshake = mechanism::new(&config, random);
        let mut output = Output::default();
        output.handshake().extend_from_slice(&greeting::ours(&config.security));
        Self {
            state: State::Greeting,
            input: Input::default(),
            output,
            message: Message::new(),
            parts: 0,
            octets: 0,
            message_is_complete: false,
            traffic: Traffic::Clear,
            version: Version::V3_1,
            heartbeat: None,
            greeting: Greeting::new(),
            handshake: Some(handshake),
            undecided: false,
            user: None,
            handshake_deadline: config.handshake_ivl.and_then(|ivl| now.checked_add(ivl)),
            patience_deadline: None,
            now,
            event: None,
            closed: None,
            config,
        }
    }

    /// Where the session is.
    pub fn state(&self) -> State {
        self.state
    }

    /// Takes what has arrived. While the session is [undecided](Self::is_undecided) it keeps it, and should be given
    /// no more (MQ-166).
    pub fn receive(&mut self, bytes: BytesMut, now: Instant) {
        self.now = now;
        if self.state != State::Closed {
            self.output.peer_was_read();
            self.input.receive(bytes);
        }
    }

    /// A buffer into which the next octets are to be read, where much of a large message is missing. It comes back by
    /// [`receive_into`](Self::receive_into), before any other octets.
    pub fn staging(&mut self) -> Option<BytesMut> {
        if self.is_established() { self.input.lend() } else { None }
    }

    /// Takes the buffer of [`staging`](Self::staging) back, longer by what has arrived.
    pub fn receive_into(&mut self, staging: BytesMut, now: Instant) {
        self.now = now;
        if self.state != State::Closed {
            self.output.peer_was_read();
            self.input.give_back(staging);
        }
    }

    /// Whether a verdict is waited for: the peer should not be read until then.
    pub fn is_undecided(&self) -> bool {
        self.undecided
    }

    /// The next event, or `None` when it needs more octets, a verdict, or is over. Parts of messages come from `slab`
    /// where they are not slices of what was received.
    #[inline]
    pub fn next_event(&mut self, slab: &mut Slab) -> Option<Event> {
        while self.event.is_none() && self.is_established() {
            // Messages are made right here: what most octets are should not be moved about.
            match self.next_last_part(slab) {
                Ok(Some(frame)) => {
                    let part = self.input.part(frame, self.config.inline_copy_threshold, slab);
                    return Some(Event::Message(self.complete_message(part)));
                }
                Ok(None) if self.event.is_none() => return None,
                Ok(None) => {}
                Err(reason) => self.fail(reason.into()),
            }
        }
        self.next_rare_event(slab)
    }

    /// Adds messages to the end of `messages` until it has `most`, more octets are needed, or something else than a
    /// message is the [next event](Self::next_event). Saves time over asking for each by itself.
    #[inline]
    pub fn take_messages(&mut self, slab: &mut Slab, messages: &mut Packed, most: usize) {
        while messages.len() < most && self.event.is_none() && self.is_established() {
            match self.next_last_part(slab) {
                Ok(Some(frame)) => {
                    if self.parts == 0 && messages.push_short(self.input.body(frame)) {
                        self.input.discard(frame);
                        continue;
                    }
                    let part = self.input.part(frame, self.config.inline_copy_threshold, slab);
                    messages.push(&mut self.complete_message(part));
                }
                Ok(None) => return,
                Err(reason) => self.fail(reason.into()),
            }
        }
    }

    /// Answers [`Event::Authenticate`]; ignored when nothing was asked.
    pub fn verdict(&mut self, verdict: Verdict, now: Instant) {
        if !std::mem::take(&mut self.undecided) {
            return;
        }
        self.now = now;
        let result = match verdict {
            Verdict::Accept { user_id, metadata } => {
                self.user = Some((user_id, metadata));
                self.advance(|handshake, context| handshake.accepted(context))
            }
            Verdict::Refuse(code) => Err(Refusal {
                reason: CloseReason::AuthFailed(code),
                tell: (code != AuthCode::Temporary).then(|| code.reason()),
            }),
            Verdict::Invalid(error) => Err(CloseReason::Zap(error).into()),
            Verdict::Unanswered => {
                let tell = Some(AuthCode::Internal.reason());
                Err(Refusal { reason: CloseReason::NoAuthenticator, tell })
            }
        };
        if let Err(refusal) = result {
            self.fail(refusal);
        }
    }

    /// Whether the session itself has something to send.
    pub fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// Adds to `batch` what the session itself has to send, until it is full. To be called before messages are encoded,
    /// so that commands overtake them (MQ-056).
    pub fn fill(&mut self, batch: &mut WriteBatch) {
        if let Err(reason) = self.output.fill(batch, &mut self.traffic) {
            self.fail(reason.into());
        }
    }

    /// Adds the frames of `message` to `batch`. Before the handshake is complete, and after the end, adds nothing.
    #[inline]
    pub fn encode(&mut self, message: &Message, batch: &mut WriteBatch) {
        if !self.is_established() {
            return;
        }
        let Traffic::Boxed(boxes) = &mut self.traffic else {
            return frame::encode(message, batch, self.config.vectored_threshold);
        };
        for (index, part) in (1..).zip(message) {
            let inner = if index < message.len() { INNER_MORE } else { 0 };
            if let Err(reason) = boxes.seal(inner, part, batch) {
                return self.fail(reason.into());
            }
        }
    }

    /// Adds the frames of all `messages` to `batch`; none are left of them.
    pub fn encode_all(&mut self, messages: &mut Packed, batch: &mut WriteBatch) {
        if !self.is_established() {
            return messages.clear();
        }
        let Traffic::Boxed(boxes) = &mut self.traffic else {
            return frame::encode_all(messages, batch, self.config.vectored_threshold);
        };
        let mut sealed = Ok(());
        while sealed.is_ok()
            && messages.take_with(|part, has_more| {
                if sealed.is_ok() {
                    sealed = boxes.seal(if has_more { INNER_MORE } else { 0 }, part.as_slice(), batch);
                }
            })
        {}
        if let Err(reason) = sealed {
            messages.clear();
            self.fail(reason.into());
        }
    }

    /// Whether messages may be encoded without the session, by [`frame::encode`] on any thread.
    pub fn stateless(&self) -> bool {
        self.is_established() && matches!(self.traffic, Traffic::Clear)
    }

    /// Subscribes to `topic` at the peer, in the form that it understands (MQ-178).
    pub fn subscribe(&mut self, topic: &[u8]) {
        self.announce(b"\x09SUBSCRIBE", b"\x01", topic);
    }

    /// Ends the subscription of `topic` at the peer.
    pub fn cancel(&mut self, topic: &[u8]) {
        self.announce(b"\x06CANCEL", b"\x00", topic);
    }

    /// When [`expired`](Self::expired) is to be called.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.heartbeat {
            Some(heartbeat) => heartbeat.deadline(),
            None => [self.handshake_deadline, self.patience_deadline].into_iter().flatten().min(),
        }
    }

    /// Does what was to be done at the [deadline](Self::deadline), if it has passed.
    pub fn expired(&mut self, now: Instant) {
        if let Some(heartbeat) = &mut self.heartbeat {
            match heartbeat.expired(now) {
                Ok(true) => self.output.ping(deciseconds(self.config.heartbeat.ttl)),
                Ok(false) => {}
                Err(reason) => self.fail(reason.into()),
            }
        } else if self.deadline().is_some_and(|deadline| deadline <= now) {
            self.fail(CloseReason::TimedOut(Deadline::Handshake).into());
        }
    }

    /// The peer is not read any more, because the application is behind (MQ-176).
    pub fn reading_paused(&mut self, now: Instant) {
        if let Some(heartbeat) = &mut self.heartbeat {
            heartbeat.pause(now);
        }
    }

    /// The peer is read again.
    pub fn reading_resumed(&mut self, now: Instant) {
        if let Some(heartbeat) = &mut self.heartbeat {
            heartbeat.resume(now);
        }
    }

    /// Begins to close: messages of the peer are discarded from now on, ours may still be encoded. Before the handshake
    /// is complete nothing can be, and the session is over.
    pub fn close(&mut self) {
        if self.state == State::Active {
            self.state = State::Closing;
            self.forget_message();
            if matches!(self.event, Some(Event::Message(_))) {
                self.event = None;
            }
        } else if self.state != State::Closing {
            self.end();
        }
    }

    /// The stream has ended.
    pub fn disconnected(&mut self) {
        self.fail(CloseReason::Disconnected { greeting: self.state == State::Greeting }.into());
    }

    fn is_established(&self) -> bool {
        matches!(self.state, State::Active | State::Closing)
    }

    /// The next event beside those of an established connection.
    fn next_rare_event(&mut self, slab: &mut Slab) -> Option<Event> {
        while self.event.is_none() {
            let progress = match self.state {
                State::Greeting => self.greet(),
                State::Handshake if !self.undecided => self.shake(slab),
                _ => Ok(false),
            };
            match progress {
                Ok(true) => {}
                Ok(false) => break,
                Err(refusal) => self.fail(refusal),
            }
        }
        let event = self.event.take().or_else(|| self.closed.take().map(Event::Closed));
        if self.message_is_complete {
            self.event = self.finish_message();
        }
        event
    }

    fn announce(&mut self, command: &[u8], prefix: &[u8], topic: &[u8]) {
        if !self.is_established() {
            return;
        }
        match self.version {
            Version::V3_1 => self.output.frame(frame::COMMAND, command, topic),
            Version::V3_0 => self.output.frame(0, prefix, topic),
        }
    }

    /// Ends the session and says why.
    fn fail(&mut self, refusal: Refusal) {
        if self.state == State::Closed {
            return;
        }
        if let Some(reason) = refusal.tell {
            Context::new(&self.config, self.output.handshake()).send(&command::error(reason));
        }
        self.closed = Some(refusal.reason);
        self.end();
    }

    fn end(&mut self) {
        self.state = State::Closed;
        self.input.clear();
        self.forget_message();
        self.undecided = false;
        self.handshake = None;
        self.handshake_deadline = None;
        self.patience_deadline = None;
        self.heartbeat = None;
    }
}

/// Whole tenths of a second, as a PING carries them (MQ-174).
fn deciseconds(ttl: Duration) -> u16 {
    u16::try_from(ttl.as_millis() / 100).unwrap_or(u16::MAX)
}
