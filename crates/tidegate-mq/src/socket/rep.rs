//! REP: answers.

use std::{fmt, sync::Arc};

use tidegate_io::message::Message;
use tidegate_zmtp::socket_type::SocketType;

use super::{CanReceive, CanSend, Family, Kind, Socket};
use crate::{
    error::{Error, Result, SendError},
    pattern,
    peer::Peer,
    shared::Owner,
    state::{PeerInfo, SendRefusal},
};

/// Receives a request and sends the answer to whoever asked, one after the other (6.4).
pub type Rep = Socket<RepKind>;

/// The kind of [`Rep`].
#[derive(Debug)]
pub enum RepKind {}

impl Family for RepKind {}

impl Kind for RepKind {
    const TYPE: SocketType = SocketType::Rep;
}

impl CanReceive for RepKind {}

impl CanSend for RepKind {}

impl Socket<RepKind> {
    /// Receives a request together with its way back, so that several can be answered in any order and by any task
    /// (MQ-202). The alternation of [`recv`](Self::recv) and [`send`](Self::send) is left alone.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    ///
    /// # Cancellation
    /// A dropped future has taken nothing.
    pub async fn recv_request(&self) -> Result<Request> {
        Ok(self.with_way_back(self.core.recv::<Received>().await?))
    }

    /// [`recv_request`](Self::recv_request) if one is there.
    ///
    /// # Errors
    /// As [`try_recv`](Self::try_recv).
    pub fn try_recv_request(&self) -> Result<Request> {
        Ok(self.with_way_back(self.core.try_recv::<Received>()?))
    }

    /// [`recv_request`](Self::recv_request) on the calling thread.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn recv_request_blocking(&self) -> Result<Request> {
        Ok(self.with_way_back(self.core.recv_blocking::<Received>()?))
    }

    fn with_way_back(&self, (request, peer): Received) -> Request {
        let pattern::Request { body, way_back, .. } = request;
        Request { body, peer: peer.map(Peer::new), way_back, socket: self.core.clone() }
    }
}

type Received = (pattern::Request, Option<Arc<PeerInfo>>);

/// A request, and the way back to who asked. Dropping it leaves the request unanswered.
pub struct Request {
    body: Message,
    peer: Option<Peer>,
    way_back: pattern::WayBack,
    socket: Arc<Owner>,
}

impl Request {
    /// What was asked.
    pub fn body(&self) -> &Message {
        &self.body
    }

    /// Takes what was asked out, and leaves a message without parts.
    pub fn take_body(&mut self) -> Message {
        std::mem::take(&mut self.body)
    }

    /// Who asked; `None` when that peer is forgotten already.
    pub fn peer(&self) -> Option<&Peer> {
        self.peer.as_ref()
    }

    /// Answers. Never waits: without `rep_report_drop` an answer to a peer that is gone, or whose queue is full, is
    /// dropped and counted (MQ-201).
    ///
    /// # Errors
    /// [`Terminated`](Error::Terminated), [`InvalidMessage`](Error::InvalidMessage) for a message without parts; with
    /// `rep_report_drop` also [`PeerLost`](Error::PeerLost), and [`WouldBlock`](Error::WouldBlock) for a full queue. The
    /// message comes back, with the request where another try makes sense.
    pub fn reply(self, message: impl Into<Message>) -> Result<(), SendError<Unsent>> {
        let Self { body, peer, way_back, socket } = self;
        let mut message = message.into();
        let mut inner = socket.lock();
        let outcome = match inner.phase.check() {
            Err(error) => Err((error, Some(way_back))),
            Ok(()) if message.is_empty() => Err((Error::InvalidMessage("it has no part"), Some(way_back))),
            Ok(()) => inner.state.reply(way_back, &mut message).map_err(|(why, way_back)| {
                let error = match why {
                    SendRefusal::PeerGone => Error::PeerLost,
                    _ => Error::WouldBlock,
                };
                (error, way_back.map(|way_back| *way_back))
            }),
        };
        match outcome {
            Ok(()) => socket.finish_send(inner).map_err(|SendError { message, error }| SendError {
                message: Unsent { message, request: None },
                error,
            }),
            Err((error, way_back)) => {
                socket.finish(inner);
                let request = way_back.map(|way_back| Self { body, peer, way_back, socket: socket.clone() });
                Err(SendError { message: Unsent { message, request: request.map(Box::new) }, error })
            }
        }
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("body", &self.body).field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// An answer that was not sent.
#[derive(Debug)]
#[non_exhaustive]
pub struct Unsent {
    /// The answer.
    pub message: Message,
    /// The request, where answering it again makes sense.
    pub request: Option<Box<Request>>,
}
