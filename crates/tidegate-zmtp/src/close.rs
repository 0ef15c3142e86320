//! Why a connection ends.

use bytes::Bytes;

/// Why a session closed its connection, or refuses to go on with it.
///
/// Only this connection is concerned (§12). What is a fault of the peer names the rule of the protocol it broke.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// The peer speaks no ZMTP 3: another protocol, or ZMTP 1.0 or 2.0 (MQ-095).
    #[error(
        "the peer does not speak ZMTP 3; check that the port belongs to a ZeroMQ socket of release 4.0 or later"
    )]
    UnsupportedVersion,
    /// The greeting starts like one of ZMTP and goes on differently (MQ-378).
    #[error("the peer's greeting is malformed")]
    MalformedGreeting,
    /// The peer uses another security mechanism (MQ-099).
    #[error("the peer uses another security mechanism; configure the same one on both sides")]
    MechanismMismatch,
    /// A frame header with reserved bits, with COMMAND and MORE, or of an impossible size.
    #[error("the peer sent a malformed frame header")]
    MalformedFrame,
    /// A frame or message is larger than a limit (MQ-105).
    #[error("the peer sent more than {0} allows; raise that limit if such messages are legitimate")]
    MessageTooLarge(Limit),
    /// A command that is not legal in this state or for this socket type, or data before the handshake is complete.
    #[error("the peer sent a command that is not legal here")]
    UnexpectedCommand,
    /// A message for a socket type that receives none.
    #[error("the peer sent a message to a socket that only sends")]
    UnexpectedData,
    /// The properties of the peer cannot be read or are not acceptable.
    #[error("the peer's metadata is not acceptable: {0}")]
    InvalidMetadata(MetadataError),
    /// The peer's socket type does not fit ours.
    #[error(
        "the peer's socket type does not fit ours; PUSH goes with PULL, PUB and XPUB with SUB and XSUB, REQ with REP and \
         ROUTER, REP with REQ and DEALER, DEALER and ROUTER with each other and their own, PAIR with PAIR"
    )]
    InvalidSocketType,
    /// A command whose name or data is cut short.
    #[error("the peer sent a malformed command")]
    MalformedCommand,
    /// A HELLO that cannot be read.
    #[error("the peer sent a malformed HELLO")]
    MalformedHello,
    /// A WELCOME that cannot be read.
    #[error("the peer sent a malformed WELCOME")]
    MalformedWelcome,
    /// An INITIATE that cannot be read.
    #[error("the peer sent a malformed INITIATE")]
    MalformedInitiate,
    /// A READY that cannot be read.
    #[error("the peer sent a malformed READY")]
    MalformedReady,
    /// An ERROR that cannot be read.
    #[error("the peer sent a malformed ERROR")]
    MalformedError,
    /// A MESSAGE that cannot be read.
    #[error("the peer sent a malformed MESSAGE")]
    MalformedMessage,
    /// A box does not open: wrong key, or altered bytes.
    #[error("decryption failed; check that the client knows the server's present public key")]
    Cryptographic,
    /// Keys that were exchanged contradict each other.
    #[error("the peer's keys contradict each other")]
    KeyExchange,
    /// A nonce that was used already, or none is left.
    #[error("a nonce was repeated, went backwards or is used up")]
    InvalidSequence,
    /// The authenticator refused the client, on either side.
    #[error("authentication failed with status {}", .0.status())]
    AuthFailed(AuthCode),
    /// The peer sent an ERROR with this reason (bytes of the peer: at most 255, not escaped).
    #[error("the peer reported \"{}\"", .0.escape_ascii())]
    PeerError(Bytes),
    /// The authenticator's answer is not valid.
    #[error("the authenticator's answer is not valid: {0}")]
    Zap(ZapError),
    /// An authenticator is asked for by the configuration, and none is there (MQ-162).
    #[error("no authenticator answers; start the handler before binding or unset the domain")]
    NoAuthenticator,
    /// More subscriptions, or longer ones, than the limits allow (MQ-180).
    #[error("the peer subscribed to more than the limits allow")]
    SubscriptionLimit,
    /// More PINGs than are tolerated (MQ-170).
    #[error("the peer sent too many PING commands")]
    PingFlood,
    /// A deadline has passed.
    #[error("{0}")]
    TimedOut(Deadline),
    /// The stream ended.
    #[error("the stream ended {}", if *.greeting {
        "during the greeting; the usual cause is a peer with another security mechanism, or one that is dialed by too \
         many at a time"
    } else {
        "without warning"
    })]
    Disconnected {
        /// Whether the greeting of the peer was not complete yet (MQ-099).
        greeting: bool,
    },
    /// Memory for a message could not be had.
    #[error("no memory for a message of {0} bytes; lower maxmsgsize")]
    OutOfMemory(u64),
}

/// Which limit a message broke (MQ-105, MQ-106).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Limit {
    /// `maxmsgsize`.
    MaxMsgSize,
    /// `hard_frame_limit`.
    HardFrame,
    /// `max_message_bytes`.
    MessageBytes,
    /// `max_message_parts`.
    MessageParts,
    /// `max_handshake_command`.
    HandshakeCommand,
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::MaxMsgSize => "maxmsgsize",
            Self::HardFrame => "hard_frame_limit",
            Self::MessageBytes => "max_message_bytes",
            Self::MessageParts => "max_message_parts",
            Self::HandshakeCommand => "max_handshake_command",
        })
    }
}

/// What is wrong with the properties of a peer (§4.1, §4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MetadataError {
    /// A name of no octets, or with octets outside 21 to 7E.
    #[error("a property name is empty or not printable")]
    Name,
    /// A name, a length or a value goes beyond the end.
    #[error("a property is cut short")]
    Truncated,
    /// A name occurs twice.
    #[error("a property is repeated")]
    Repeated,
    /// More than 64 properties or 32 KiB.
    #[error("more than 64 properties or 32 KiB")]
    TooMany,
    /// Nothing says what the peer is.
    #[error("no Socket-Type")]
    NoSocketType,
    /// An identity that is too long or lies in the space of generated ones.
    #[error("the Identity is too long or reserved")]
    Identity,
}

/// Status by which an authenticator refuses a client, as it stands in an ERROR command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AuthCode {
    /// 300: not now.
    Temporary,
    /// 400: not this client.
    Denied,
    /// 500: the authenticator failed.
    Internal,
}

impl AuthCode {
    /// The number.
    pub const fn status(self) -> u16 {
        match self {
            Self::Temporary => 300,
            Self::Denied => 400,
            Self::Internal => 500,
        }
    }

    /// The reason text of the ERROR command.
    pub(crate) const fn reason(self) -> &'static [u8] {
        match self {
            Self::Temporary => b"300",
            Self::Denied => b"400",
            Self::Internal => b"500",
        }
    }

    pub(crate) fn from_reason(reason: &[u8]) -> Option<Self> {
        [Self::Temporary, Self::Denied, Self::Internal].into_iter().find(|code| code.reason() == reason)
    }
}

/// What is wrong with an authenticator's reply (MQ-159).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum ZapError {
    /// Not one of the others.
    #[error("unspecified")]
    Unspecified,
    /// Not seven parts, or the first is not empty.
    #[error("the reply is malformed")]
    MalformedReply,
    /// An answer to another request.
    #[error("the request id differs")]
    BadRequestId,
    /// Not version 1.0.
    #[error("the version is not 1.0")]
    BadVersion,
    /// Not 200, 300, 400 or 500.
    #[error("the status code is unknown")]
    InvalidStatusCode,
    /// The metadata cannot be read.
    #[error("the metadata is malformed")]
    InvalidMetadata,
}

/// Which deadline has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Deadline {
    /// `handshake_ivl`, from the connection to the end of the handshake (MQ-285).
    #[error("the handshake was not complete in time")]
    Handshake,
    /// No sign of life after our PING (MQ-172).
    #[error("the peer gave no sign of life within the heartbeat timeout")]
    Heartbeat,
    /// No sign of life within the time that the peer's own PING announced (MQ-173).
    #[error("the peer was silent for longer than its PING announced")]
    TimeToLive,
}
