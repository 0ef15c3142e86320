//! What listeners and dialers report (chapter 9 of the specification, without what only a protocol knows).

use std::{io, os::fd::RawFd, time::Duration};

use crate::{
    engine::{BindError, StreamAddress, StreamInfo},
    protocol::Ended,
};

/// Something happened to a listener, a dialer, or a stream of one of them.
///
/// Given to [`Acceptor::event`](super::Acceptor::event) or [`Dialing::event`](super::Dialing::event) on a worker
/// thread, in order. What a connection itself knows (its handshake, for example) it reports itself: before
/// [`Disconnected`](Self::Disconnected) if it does so in [`closed`](crate::protocol::Connection::closed).
#[derive(Debug)]
#[non_exhaustive]
pub enum StreamEvent<'a> {
    /// The listener is bound and listens.
    Listening {
        /// Descriptor of the listener.
        fd: RawFd,
        /// Where it is bound.
        address: &'a StreamAddress,
    },
    /// The address could not be bound.
    BindFailed(&'a BindError),
    /// A stream came in.
    Accepted(&'a StreamInfo),
    /// No stream came in, or one was turned away.
    AcceptFailed(AcceptFailure),
    /// The listener no longer listens.
    ListenerClosed {
        /// Descriptor it had.
        fd: RawFd,
    },
    /// The listener no longer listens, but the file of its address, or the private directory around that, could not be
    /// removed.
    CloseFailed(&'a io::Error),
    /// The host of the target could not be looked up; counts as a failed attempt (MQ-259).
    ResolveFailed(&'a io::Error),
    /// Dialing takes a while: the operating system goes on by itself.
    ConnectDelayed {
        /// Descriptor of the attempt.
        fd: RawFd,
        /// Which address is dialed.
        address: &'a StreamAddress,
    },
    /// Dialing one address has failed, and the attempt's descriptor is closed.
    ConnectFailed {
        /// Descriptor the attempt had, if it came that far.
        fd: Option<RawFd>,
        /// Which address was dialed.
        address: &'a StreamAddress,
        /// Why.
        error: &'a io::Error,
    },
    /// The dialed stream is up.
    Connected(&'a StreamInfo),
    /// A stream of a listener or dialer has ended.
    Disconnected {
        /// The stream.
        stream: &'a StreamInfo,
        /// Why.
        why: &'a Ended,
        /// Bytes it carried.
        traffic: Traffic,
    },
    /// The dialer will try again.
    Retried {
        /// After this time.
        delay: Duration,
    },
    /// The dialer has stopped by its rules (no reconnecting, or a bit of `reconnect_stop`); it can be told to try again.
    Stopped,
    /// The dialer has stopped because the peer refused who we are; it can be told to try again.
    Refused,
    /// The dialer was closed and nothing of it is left.
    Removed,
}

/// Why a stream was not accepted.
#[derive(Debug)]
#[non_exhaustive]
pub enum AcceptFailure {
    /// The operating system said no, and the listener pauses.
    System {
        /// What it said.
        error: io::Error,
        /// How long the listener pauses.
        pause: Duration,
    },
    /// The listener has stopped by an error that does not pass by itself.
    Fatal(io::Error),
    /// There are as many connections as there may be, and the newcomer was closed (MQ-262).
    TooMany {
        /// The newcomer.
        peer: StreamAddress,
    },
    /// The oldest stream that had not yet come up was closed in favour of a newcomer (MQ-262).
    Displaced {
        /// The one that was closed.
        peer: StreamAddress,
    },
    /// The [`Acceptor`](super::Acceptor) did not want the stream.
    Unwanted {
        /// The newcomer.
        peer: StreamAddress,
    },
    /// A stream could not be set up.
    Setup(io::Error),
}

/// Bytes a stream has carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes read.
    pub received: u64,
    /// Bytes taken by the operating system.
    pub sent: u64,
}
