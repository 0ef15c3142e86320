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
//! [`Session::deadline`] may have changed and [`Session::has_output`] may have become true.
//!
//! The same octets give the same events and output however they are split (MQ-028). After an error the session is
//! Closed: it ignores input, gives [`Event::Closed`] once, and `fill` still gives what the peer is to be told.

mod heartbeat;
mod input;
mod output;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes, BytesMut};
use tidegate_io::{
    batch::WriteBatch,
    buffer::Slab,
    message::{Message, Part},
};

use self::{
    heartbeat::Heartbeat,
    input::{Frame, Input},
    output::Output,
};
use crate::{
    auth::{AuthCode, AuthRequest, Verdict},
    close::{CloseReason, Deadline, Limit},
    command::{self, Command},
    config::{Limits, Security, SessionConfig},
    frame::{self, Header},
    greeting::{self, Greeting, Version},
    mechanism::{
        self, BOXED_PAYLOAD, Boxing, Context, Handshake, INNER_COMMAND, INNER_MORE, Refusal, Step, Traffic,
    },
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
        if let Some(event) = self.event.take() {
            return Some(event);
        }
        let result = loop {
            match self.state {
                State::Active | State::Closing => break self.decode(slab).map_err(Refusal::from),
                State::Greeting => match self.greet() {
                    Ok(true) => {}
                    Ok(false) => break Ok(None),
                    Err(refusal) => break Err(refusal),
                },
                State::Handshake if self.undecided => break Ok(None),
                State::Handshake => match self.shake(slab) {
                    Ok(true) => {}
                    Ok(false) => break Ok(None),
                    Err(refusal) => break Err(refusal),
                },
                State::Closed => break Ok(None),
            }
            if let Some(event) = self.event.take() {
                break Ok(Some(event));
            }
        };
        match result {
            Ok(Some(event)) => return Some(event),
            Ok(None) => {}
            Err(refusal) => self.fail(refusal),
        }
        self.closed.take().map(Event::Closed)
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

    /// Whether [`fill`](Self::fill) has something to add.
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

    /// Works on the greeting; gives whether there may be more to do.
    fn greet(&mut self) -> Result<bool, Refusal> {
        let chunk = self.input.chunk();
        let (taken, version) = self.greeting.receive(chunk, &self.config.security)?;
        chunk.advance(taken);
        let Some(version) = version else {
            *chunk = BytesMut::new();
            return Ok(false);
        };
        self.version = version;
        self.state = State::Handshake;
        self.advance(|handshake, context| handshake.start(context))?;
        Ok(true)
    }

    /// Works on one command of the handshake; gives whether there may be more to do.
    fn shake(&mut self, slab: &mut Slab) -> Result<bool, Refusal> {
        let limit = self.config.limits.handshake_command;
        let frame = self.input.next(false, slab, |header| {
            if !header.command() {
                return Err(CloseReason::UnexpectedCommand);
            }
            if header.size > limit {
                return Err(CloseReason::MessageTooLarge(Limit::HandshakeCommand));
            }
            Ok(())
        })?;
        let Some(frame) = frame else {
            return Ok(false);
        };
        let body = self.input.body(frame);
        if let Some(data) = error_data(body, &self.config.security) {
            return Err(command::error_reason(data).into());
        }
        // The body leaves the input for the call, which needs the rest of the session.
        let mut input = std::mem::take(&mut self.input);
        let result = self.advance(|handshake, context| handshake.command(input.body_mut(frame), context));
        input.discard(frame);
        self.input = input;
        result?;
        Ok(true)
    }

    /// Lets the mechanism do a step.
    fn advance(
        &mut self,
        step: impl FnOnce(&mut dyn Handshake, &mut Context<'_>) -> Result<Step, Refusal>,
    ) -> Result<(), Refusal> {
        let Some(handshake) = &mut self.handshake else {
            return Err(CloseReason::UnexpectedCommand.into());
        };
        let mut context = Context::new(&self.config, self.output.handshake());
        match step(handshake.as_mut(), &mut context)? {
            Step::Wait => {}
            Step::Authenticate(request) => {
                self.undecided = true;
                self.event = Some(Event::Authenticate(request));
            }
            Step::Done(peer, traffic) => {
                let (user_id, extra) = self.user.take().unwrap_or_default();
                let mut metadata = peer.metadata;
                metadata.merge(extra);
                self.event = Some(Event::Up(PeerInfo {
                    socket_type: peer.socket_type,
                    routing_id: peer.identity,
                    mechanism: self.config.security.mechanism(),
                    user_id,
                    metadata,
                    version: self.version,
                }));
                self.state = State::Active;
                self.traffic = traffic;
                self.heartbeat = Some(Heartbeat::new(&self.config.heartbeat, self.version, self.now));
                self.handshake = None;
            }
        }
        let patience = self.handshake.as_ref().and_then(|handshake| handshake.patience());
        self.patience_deadline = patience.and_then(|patience| self.now.checked_add(patience));
        Ok(())
    }

    /// The next event of an established connection.
    #[inline]
    fn decode(&mut self, slab: &mut Slab) -> Result<Option<Event>, CloseReason> {
        loop {
            let Some(frame) = self.next_frame(slab)? else {
                return Ok(None);
            };
            if let Some(heartbeat) = &mut self.heartbeat {
                heartbeat.alive();
            }
            let (skip, flags) = self.open(frame)?;
            let event = if flags & frame::COMMAND != 0 {
                self.obey(frame, skip, slab)?
            } else {
                self.collect(frame, skip, flags & frame::MORE != 0, slab)?
            };
            if event.is_some() {
                return Ok(event);
            }
        }
    }

    #[inline]
    fn next_frame(&mut self, slab: &mut Slab) -> Result<Option<Frame>, CloseReason> {
        let limits = &self.config.limits;
        let boxed = matches!(self.traffic, Traffic::Boxed(_));
        self.input.next(true, slab, |header| {
            if boxed {
                return check_part(limits, header.size.saturating_sub(BOXED_PAYLOAD as u64));
            }
            check_part(limits, header.size)?;
            if header.command() || self.state == State::Closing {
                return Ok(());
            }
            check_message(&self.config, self.parts, self.octets, header.size)
        })
    }

    /// Where the payload of `frame` starts and its flags, once it is out of its box if it is in one.
    #[inline]
    fn open(&mut self, frame: Frame) -> Result<(usize, u8), CloseReason> {
        let Header { flags, size } = frame.header;
        let Traffic::Boxed(boxes) = &mut self.traffic else {
            return Ok((0, flags));
        };
        // An ERROR is in no box: its sender may have no key for one.
        let body = self.input.body_mut(frame);
        if flags & frame::COMMAND != 0 && matches!(command::split(body), Ok((b"ERROR", _))) {
            return Ok((0, flags));
        }
        let inner = boxes.open(body)?;
        if inner & INNER_COMMAND != 0 {
            return Ok((BOXED_PAYLOAD, frame::COMMAND));
        }
        if self.state != State::Closing {
            check_message(&self.config, self.parts, self.octets, size - BOXED_PAYLOAD as u64)?;
        }
        Ok((BOXED_PAYLOAD, if inner & INNER_MORE != 0 { frame::MORE } else { 0 }))
    }

    /// Acts on a command.
    fn obey(&mut self, frame: Frame, skip: usize, slab: &mut Slab) -> Result<Option<Event>, CloseReason> {
        let body = self.input.body(frame).get(skip..).unwrap_or_default();
        let publisher = self.config.socket_type.takes_subscriptions();
        match Command::parse(body)? {
            Command::Ping { ttl, context } => {
                if let Some(heartbeat) = &mut self.heartbeat {
                    heartbeat.pinged(ttl, self.now)?;
                }
                self.output.pong(context)?;
            }
            Command::Subscribe(topic) if publisher => {
                let start = skip + body.len() - topic.len();
                return Ok(Some(Event::Subscribe(self.topic(frame, start, slab)?)));
            }
            Command::Cancel(topic) if publisher => {
                let start = skip + body.len() - topic.len();
                return Ok(Some(Event::Cancel(self.topic(frame, start, slab)?)));
            }
            Command::Error(data) => {
                return Err(match command::error_reason(data) {
                    CloseReason::AuthFailed(code) => {
                        CloseReason::PeerError(Bytes::from_static(code.reason()))
                    }
                    reason => reason,
                });
            }
            Command::Subscribe(_)
            | Command::Cancel(_)
            | Command::Join(_)
            | Command::Leave(_)
            | Command::Handshake => return Err(CloseReason::UnexpectedCommand),
            Command::Pong { .. } | Command::Unknown => {}
        }
        self.input.discard(frame);
        Ok(None)
    }

    /// Adds a part to the message, and gives the message with its last part.
    #[inline]
    fn collect(
        &mut self,
        frame: Frame,
        skip: usize,
        more: bool,
        slab: &mut Slab,
    ) -> Result<Option<Event>, CloseReason> {
        let threshold = self.config.inline_copy_threshold;
        if self.state == State::Closing {
            self.input.discard(frame);
            return Ok(None);
        }
        if self.config.socket_type.takes_subscriptions() {
            return self.collect_from_subscriber(frame, skip, more, slab);
        }
        if !more && self.parts == 0 {
            return Ok(Some(Event::Message(Message::from(self.input.part(frame, skip, threshold, slab)))));
        }
        self.count(frame, skip);
        self.message.push(self.input.part(frame, skip, threshold, slab));
        Ok(if more { None } else { self.finish_message() })
    }

    /// The same for publishers, to whom parts may be subscriptions and for PUB nothing else (MQ-219, MQ-429).
    fn collect_from_subscriber(
        &mut self,
        frame: Frame,
        skip: usize,
        more: bool,
        slab: &mut Slab,
    ) -> Result<Option<Event>, CloseReason> {
        let first = self.parts == 0;
        self.count(frame, skip);
        let body = self.input.body(frame).get(skip..).unwrap_or_default();
        let subscription = match body.first() {
            Some(&kind @ 0..=1) if first || !self.config.only_first_subscribe => Some(kind == 1),
            _ => None,
        };
        if let Some(subscribe) = subscription {
            let topic = self.topic(frame, skip + 1, slab)?;
            self.event = if more { None } else { self.finish_message() };
            return Ok(Some(if subscribe { Event::Subscribe(topic) } else { Event::Cancel(topic) }));
        }
        if self.config.socket_type == SocketType::Pub {
            self.input.discard(frame);
        } else {
            self.message.push(self.input.part(frame, skip, self.config.inline_copy_threshold, slab));
        }
        Ok(if more { None } else { self.finish_message() })
    }

    /// The topic in `frame` from octet `start` on.
    fn topic(&mut self, frame: Frame, start: usize, slab: &mut Slab) -> Result<Part, CloseReason> {
        let len = self.input.body(frame).len().saturating_sub(start);
        if len > self.config.limits.topic_bytes {
            return Err(CloseReason::SubscriptionLimit);
        }
        Ok(self.input.part(frame, start, self.config.inline_copy_threshold, slab))
    }

    #[inline]
    fn count(&mut self, frame: Frame, skip: usize) {
        self.parts += 1;
        self.octets = self.octets.saturating_add(frame.header.size.saturating_sub(skip as u64));
    }

    /// The message whose last part has been seen, unless none of its parts was kept.
    fn finish_message(&mut self) -> Option<Event> {
        self.parts = 0;
        self.octets = 0;
        let message = std::mem::take(&mut self.message);
        (!message.is_empty()).then_some(Event::Message(message))
    }

    fn forget_message(&mut self) {
        self.message = Message::new();
        self.parts = 0;
        self.octets = 0;
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

/// Refuses a part that is too large, before any of it is kept (MQ-105, MQ-106).
#[inline]
fn check_part(limits: &Limits, size: u64) -> Result<(), CloseReason> {
    if limits.max_msg_size.is_some_and(|most| size > most) {
        return Err(CloseReason::MessageTooLarge(Limit::MaxMsgSize));
    }
    if size > limits.hard_frame {
        return Err(CloseReason::MessageTooLarge(Limit::HardFrame));
    }
    Ok(())
}

/// Refuses a part of `size` octets after `parts` others with `octets` in them, if the message gets too large or nobody
/// takes it.
#[inline]
fn check_message(config: &SessionConfig, parts: usize, octets: u64, size: u64) -> Result<(), CloseReason> {
    if config.socket_type == SocketType::Push {
        return Err(CloseReason::UnexpectedData);
    }
    if parts >= config.limits.message_parts {
        return Err(CloseReason::MessageTooLarge(Limit::MessageParts));
    }
    if octets.saturating_add(size) > config.limits.message_bytes {
        return Err(CloseReason::MessageTooLarge(Limit::MessageBytes));
    }
    Ok(())
}

/// The data of the ERROR command in `body`, if it is one. Some PLAIN servers misspell its name (MQ-535).
fn error_data<'a>(body: &'a [u8], security: &Security) -> Option<&'a [u8]> {
    if matches!(security, Security::PlainClient(_))
        && let Some(data) = body.strip_prefix(b"\x5eRROR")
    {
        return Some(data);
    }
    match command::split(body) {
        Ok((b"ERROR", data)) => Some(data),
        _ => None,
    }
}

/// Whole tenths of a second, as a PING carries them (MQ-174).
fn deciseconds(ttl: Duration) -> u16 {
    u16::try_from(ttl.as_millis() / 100).unwrap_or(u16::MAX)
}
