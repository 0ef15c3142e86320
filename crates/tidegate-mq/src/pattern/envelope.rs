//! Messages by what they carry, so that one kind cannot be taken for another (MQ-047).
//!
//! ```text
//! Payload    what a pipe carries: exactly the parts on the wire
//! Body       what the application of REQ and REP sees
//! Envelope   routing parts ... empty part          Envelope + Body    -> Payload   (REP)
//! Addressed  to | Payload                          routing id + Payload -> Message (ROUTER)
//! ```
//! Only a [`Payload`] can be queued on a pipe, as a [`Parcel`].

use tidegate_io::message::{Message, Part};

/// The parts of a message as they are on the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Payload(Message);

impl Payload {
    /// A message that goes out, or came in, as it is.
    #[inline]
    pub(crate) fn verbatim(message: Message) -> Self {
        Self(message)
    }

    /// A message of one part.
    pub(crate) fn single(part: Part) -> Self {
        Self(Message::from(part))
    }

    /// The parts.
    #[inline]
    pub(crate) fn parts(&self) -> &[Part] {
        self.0.parts()
    }

    /// Bytes in all parts together.
    #[inline]
    pub(crate) fn byte_len(&self) -> usize {
        self.0.byte_len()
    }

    /// To be queued on a pipe.
    #[inline]
    pub(crate) fn parcel(&mut self) -> Parcel<'_> {
        Parcel::Whole(&mut self.0)
    }

    /// Takes the message out and leaves one without parts: messages are large, and moved as seldom as possible.
    #[inline]
    pub(crate) fn take(&mut self) -> Self {
        Self(std::mem::take(&mut self.0))
    }

    /// The message, for the wire or for an application that gets it unchanged.
    #[inline]
    pub(crate) fn into_message(self) -> Message {
        self.0
    }
}

/// A payload where it lies, to be queued on a pipe: messages are large, and moved as seldom as possible.
#[derive(Debug)]
pub(crate) enum Parcel<'a> {
    /// It is queued, and left without parts.
    Whole(&'a mut Message),
    /// A copy of it is queued, which shares its long parts.
    Copy(&'a Message),
}

impl<'a> Parcel<'a> {
    /// A message that goes out as it is.
    #[inline]
    pub(crate) fn verbatim(message: &'a mut Message) -> Self {
        Self::Whole(message)
    }

    /// A message that goes out as it is, and to others as well.
    #[inline]
    pub(crate) fn copy(message: &'a Message) -> Self {
        Self::Copy(message)
    }

    /// Bytes in all parts together.
    #[inline]
    pub(crate) fn byte_len(&self) -> usize {
        match self {
            Self::Whole(message) => message.byte_len(),
            Self::Copy(message) => message.byte_len(),
        }
    }
}

/// A message without envelope, as the applications of REQ and REP see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Body(Message);

impl Body {
    #[inline]
    pub(crate) fn new(message: Message) -> Self {
        Self(message)
    }

    #[inline]
    pub(crate) fn into_message(self) -> Message {
        self.0
    }

    /// A request: an id of four octets where replies are correlated, the delimiter, the body (6.3).
    pub(crate) fn into_request(self, id: Option<RequestId>) -> Payload {
        let mut message = self.0;
        message.push_front(Part::EMPTY);
        if let Some(RequestId(id)) = id {
            message.push_front(&id.to_be_bytes());
        }
        Payload(message)
    }
}

/// Number of a request, opaque to the peer (MQ-193).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestId(pub(crate) u32);

/// How a reply begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReplyHead {
    /// The id before the delimiter.
    pub(crate) id: Option<RequestId>,
    /// Number of parts before the body.
    parts: usize,
}

impl ReplyHead {
    /// Looks at a reply: an optional part of four octets, the delimiter, at least one more part. None for any other
    /// form (MQ-194).
    pub(crate) fn of(payload: &Payload) -> Option<Self> {
        match payload.parts() {
            [delimiter, _, ..] if delimiter.is_empty() => Some(Self { id: None, parts: 1 }),
            [id, delimiter, _, ..] if delimiter.is_empty() => {
                let id = u32::from_be_bytes(id.as_slice().try_into().ok()?);
                Some(Self { id: Some(RequestId(id)), parts: 2 })
            }
            _ => None,
        }
    }

    /// Takes the head off the reply that it was found on.
    pub(crate) fn strip(self, payload: Payload) -> Body {
        let mut message = payload.into_message();
        for _ in 0..self.parts {
            message.pop_front();
        }
        Body(message)
    }
}

/// The routing parts of a request up to and including the delimiter, to be returned byte for byte (MQ-200).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Envelope(Message);

impl Envelope {
    /// Whether there is a delimiter with a body behind it (6.4).
    pub(crate) fn fits(payload: &Payload) -> bool {
        match payload.parts() {
            [routing @ .., _last] => routing.iter().any(|part| part.is_empty()),
            [] => false,
        }
    }

    /// Takes the envelope off. Without a delimiter all parts but the last count as envelope, and [`fits`](Self::fits)
    /// has said so before.
    pub(crate) fn open(payload: Payload) -> (Self, Body) {
        let mut message = payload.into_message();
        let count = message.parts().iter().take_while(|part| !part.is_empty()).count() + 1;
        let envelope = message.split_front(count);
        (Self(envelope), Body(message))
    }

    /// The reply: the envelope, then the body.
    pub(crate) fn seal(self, body: Body) -> Payload {
        let mut message = self.0;
        message.extend(body.0);
        Payload(message)
    }
}

/// A message of a ROUTER's application: the routing id of the peer it is for, then what the peer gets.
pub(crate) struct Addressed<'a>(&'a mut Message);

impl<'a> Addressed<'a> {
    /// Reads a message, which has at least one part, as addressed.
    pub(crate) fn new(message: &'a mut Message) -> Self {
        Self(message)
    }

    /// Routing id of the peer.
    pub(crate) fn to(&self) -> &[u8] {
        self.0.first().map(Part::as_slice).unwrap_or_default()
    }

    /// Whether there is something for the peer.
    pub(crate) fn has_payload(&self) -> bool {
        self.0.len() > 1
    }

    /// Takes the message, and the address off it.
    pub(crate) fn strip(self) -> Payload {
        let mut message = std::mem::take(self.0);
        message.pop_front();
        Payload(message)
    }
}
