//! Frames of an established connection: messages, subscriptions, commands, and the limits on them.

use bytes::Bytes;
use tidegate_io::{
    buffer::Slab,
    message::{Message, Part},
};

use super::{Event, Session, State, input::Frame};
use crate::{
    close::{CloseReason, Limit},
    command::{self, Command},
    config::{Limits, SessionConfig},
    frame,
    mechanism::{BOXED_PAYLOAD, Boxing, INNER_COMMAND, INNER_MORE, Traffic},
    socket_type::SocketType,
};

impl Session {
    /// The next frame that ends a message which is to be reported. Other frames are dealt with; when that makes an
    /// event, there is `None`.
    #[inline]
    pub(super) fn next_last_part(&mut self, slab: &mut Slab) -> Result<Option<Frame>, CloseReason> {
        while let Some(frame) = self.next_frame(slab)? {
            if let Some(heartbeat) = &mut self.heartbeat {
                heartbeat.alive();
            }
            let frame = self.open(frame)?;
            if frame.is_command() {
                self.obey(frame, slab)?;
            } else if self.state == State::Closing {
                self.input.discard(frame);
            } else if self.config.socket_type.takes_subscriptions() {
                self.collect_from_subscriber(frame, slab)?;
            } else if frame.has_more() {
                self.count(frame);
                self.message.push(self.input.part(frame, self.config.inline_copy_threshold, slab));
            } else {
                return Ok(Some(frame));
            }
            if self.event.is_some() {
                break;
            }
        }
        Ok(None)
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

    /// `frame` without the box that it is in, if it is in one.
    #[inline]
    fn open(&mut self, frame: Frame) -> Result<Frame, CloseReason> {
        let Traffic::Boxed(boxes) = &mut self.traffic else {
            return Ok(frame);
        };
        // An ERROR is in no box: its sender may have no key for one.
        let body = self.input.body_mut(frame);
        if frame.is_command() && matches!(command::split(body), Ok((b"ERROR", _))) {
            return Ok(frame);
        }
        let flags = match boxes.open(body)? {
            INNER_COMMAND => frame::COMMAND,
            INNER_MORE => frame::MORE,
            _ => 0,
        };
        let payload = frame.unboxed(BOXED_PAYLOAD, flags);
        if !payload.is_command() && self.state != State::Closing {
            check_message(&self.config, self.parts, self.octets, payload.len() as u64)?;
        }
        Ok(payload)
    }

    /// Acts on a command.
    fn obey(&mut self, frame: Frame, slab: &mut Slab) -> Result<(), CloseReason> {
        let publisher = self.config.socket_type.takes_subscriptions();
        match Command::parse(self.input.body(frame))? {
            Command::Ping { ttl, context } => {
                let piled_up = match &mut self.heartbeat {
                    Some(heartbeat) => heartbeat.pinged(ttl, self.now)?,
                    None => false,
                };
                self.output.pong(context, piled_up)?;
            }
            Command::Subscribe(topic) if publisher => {
                let topic = self.topic(frame.last(topic.len()), slab)?;
                self.event = Some(Event::Subscribe(topic));
                return Ok(());
            }
            Command::Cancel(topic) if publisher => {
                let topic = self.topic(frame.last(topic.len()), slab)?;
                self.event = Some(Event::Cancel(topic));
                return Ok(());
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
        Ok(())
    }

    /// Takes a part that a subscriber sent: it may be a subscription, and for PUB nothing else (MQ-219, MQ-429).
    fn collect_from_subscriber(&mut self, frame: Frame, slab: &mut Slab) -> Result<(), CloseReason> {
        let first = self.parts == 0;
        self.count(frame);
        let kind = self.input.body(frame).first().copied();
        let only_first = self.config.only_first_subscribe;
        // In front of parts that are none, it stays in its place, or the next part would be taken for the first.
        let stays = only_first && frame.has_more() && self.config.socket_type != SocketType::Pub;
        if let Some(kind @ 0..=1) = kind
            && (!only_first || first && !stays)
        {
            let topic = self.topic(frame.last(frame.len() - 1), slab)?;
            self.event = Some(if kind == 1 { Event::Subscribe(topic) } else { Event::Cancel(topic) });
            self.message_is_complete = !frame.has_more();
            return Ok(());
        }
        if self.config.socket_type == SocketType::Pub {
            self.input.discard(frame);
        } else {
            self.message.push(self.input.part(frame, self.config.inline_copy_threshold, slab));
        }
        if !frame.has_more() {
            self.event = self.finish_message();
        }
        Ok(())
    }

    /// The topic that `frame` has been reduced to.
    fn topic(&mut self, frame: Frame, slab: &mut Slab) -> Result<Part, CloseReason> {
        if frame.len() > self.config.limits.topic_bytes {
            return Err(CloseReason::SubscriptionLimit);
        }
        Ok(self.input.part(frame, self.config.inline_copy_threshold, slab))
    }

    fn count(&mut self, frame: Frame) {
        self.parts += 1;
        self.octets = self.octets.saturating_add(frame.len() as u64);
    }

    /// The message that `last` is the last part of.
    #[inline]
    pub(super) fn complete_message(&mut self, last: Part) -> Message {
        if self.parts == 0 {
            return Message::from(last);
        }
        self.parts = 0;
        self.octets = 0;
        self.message.push(last);
        std::mem::take(&mut self.message)
    }

    /// The message whose last part has been seen, unless none of its parts was kept.
    pub(super) fn finish_message(&mut self) -> Option<Event> {
        self.parts = 0;
        self.octets = 0;
        self.message_is_complete = false;
        let message = std::mem::take(&mut self.message);
        (!message.is_empty()).then_some(Event::Message(message))
    }

    pub(super) fn forget_message(&mut self) {
        self.message = Message::new();
        self.parts = 0;
        self.octets = 0;
        self.message_is_complete = false;
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
