//! Why the state machine did not do what it was asked.

use tidegate_io::peer::PeerKey;

/// Why a message was not taken for sending. The message stays with the caller, whole (MQ-372).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SendRefusal {
    /// No peer can take it now; wait for what is named, or give up (MQ-186).
    WouldBlock(Awaited),
    /// REQ or REP is not to send now.
    WrongState,
    /// ROUTER with `router_mandatory`: no peer has this routing id.
    HostUnreachable,
    /// REP with `rep_report_drop`: the peer whose request this answers is gone. REP may receive again (MQ-201).
    PeerGone,
    /// REP with `rep_report_drop`: the queue to the requester is full. Nothing has changed, the reply may be tried
    /// again; do not wait, since REP never blocks in sending (MQ-201).
    ReplyWouldBlock,
    /// This type does not send.
    NotSupported,
    /// The message has no part.
    Empty,
}

/// What a sender that would block waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Awaited {
    /// Any room: [`Effects::senders`](super::Effects).
    Room,
    /// Room on this pipe, its end, or that the message is not for it any more:
    /// [`Effect::WakeFor`](super::Effect::WakeFor) and [`Effect::WakeAllFor`](super::Effect::WakeAllFor).
    RoomOn(PeerKey),
}

impl Awaited {
    /// The pipe, if it is a certain one.
    pub(crate) fn pipe(&self) -> Option<PeerKey> {
        match self {
            Self::Room => None,
            Self::RoomOn(key) => Some(*key),
        }
    }
}

/// Why no message was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecvRefusal {
    /// There is none yet.
    WouldBlock,
    /// REQ has not asked, or REP has not answered.
    WrongState,
    /// REQ with `req_on_peer_loss`: the connection that carried the request is lost; send again (MQ-197).
    PeerLost,
    /// This type does not receive.
    NotSupported,
}

/// Why a peer is not let in. Its connection is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Another live peer of this ROUTER has the same routing id (MQ-208).
    RoutingIdInUse,
    /// PAIR has a peer already (MQ-245).
    PairBusy,
    /// The pipe that the connection was made for is gone: it was disconnected meanwhile.
    Gone,
}

/// What a peer did against the rules of its partner's type. Its connection is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    /// Data sent to a type that receives none (MQ-428).
    UnexpectedData,
    /// SUBSCRIBE or CANCEL sent to a type that does not publish (MQ-179).
    UnexpectedCommand,
    /// A reply without its envelope (MQ-194).
    MalformedReply,
    /// More or longer subscriptions than allowed (MQ-180).
    SubscriptionLimit,
}

/// A call that this socket type does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotSupported;
