//! Security mechanisms: what happens between the greeting and the first message, and how traffic is wrapped after it.
//!
//! A mechanism is a state machine over whole command bodies; the session finds the frames, keeps the deadlines, talks
//! to the authenticator and reports. It calls `Handshake::start` once both greetings agree, `Handshake::command`
//! for every command frame of the peer except ERROR, and `Handshake::accepted` when the authenticator said yes.
//! Refusals of the authenticator and ERROR commands of the peer never reach a mechanism.
//!
//! ```text
//!   start ──► Wait ──command──► Wait | Authenticate ──accepted──► Wait | Done(peer, traffic)
//! ```

use std::time::Duration;

use bytes::Bytes;
use tidegate_io::batch::WriteBatch;

use crate::{
    auth::AuthRequest,
    close::{CloseReason, MetadataError},
    config::{Security, SessionConfig},
    frame,
    metadata::{self, Metadata},
    random::Random,
    socket_type::SocketType,
};

pub mod curve;
mod null;
mod plain;

/// One side of one mechanism, while the handshake lasts.
///
/// A call that fails ends the connection. Drawn randomness was given to the constructor, so that a handshake is a
/// function of its inputs (MQ-031).
pub(crate) trait Handshake: Send {
    /// Runs the start row of the mechanism's table (§4.8).
    fn start(&mut self, context: &mut Context<'_>) -> Result<Step, Refusal>;

    /// Takes one command of the peer. `body` is the whole body of a frame with the COMMAND bit: the length of the name,
    /// the name, the data; it may be decrypted in place. Its length is limited by
    /// [`Limits::handshake_command`](crate::config::Limits::handshake_command), its name is not checked yet (MQ-113).
    fn command(&mut self, body: &mut [u8], context: &mut Context<'_>) -> Result<Step, Refusal>;

    /// The authenticator accepted the peer. Called once after each [`Step::Authenticate`], with no command in between.
    fn accepted(&mut self, context: &mut Context<'_>) -> Result<Step, Refusal>;

    /// How long the peer may take for its next command, where a mechanism limits that itself.
    fn patience(&self) -> Option<Duration> {
        None
    }
}

/// What a mechanism needs next.
pub(crate) enum Step {
    /// The next command of the peer.
    Wait,
    /// The verdict of the authenticator; until then no command is given to the mechanism.
    Authenticate(AuthRequest),
    /// Nothing: the handshake is complete.
    Done(Peer, Traffic),
}

/// Why a mechanism gives up, and what the peer is told first.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// What is reported here.
    pub(crate) reason: CloseReason,
    /// Reason of the ERROR command that is sent; `None` closes without a word.
    pub(crate) tell: Option<&'static [u8]>,
}

impl From<CloseReason> for Refusal {
    fn from(reason: CloseReason) -> Self {
        Self { reason, tell: None }
    }
}

/// What the peer has said about itself, checked by [`Context::peer`].
#[derive(Debug)]
pub(crate) struct Peer {
    /// Missing only where the configuration allows that.
    pub(crate) socket_type: Option<SocketType>,
    /// The Identity property; empty when the peer sent none.
    pub(crate) identity: Bytes,
    /// All properties as received.
    pub(crate) metadata: Metadata,
}

/// How frames are wrapped once the handshake is complete.
pub(crate) enum Traffic {
    /// As they are: NULL and PLAIN.
    Clear,
    /// Each in a box.
    Boxed(Box<curve::Boxes>),
}

/// What a mechanism may use of its session while it is called.
pub(crate) struct Context<'a> {
    config: &'a SessionConfig,
    output: &'a mut Vec<u8>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(config: &'a SessionConfig, output: &'a mut Vec<u8>) -> Self {
        Self { config, output }
    }

    /// Sends `body` (length of name, name, data) in a frame with the COMMAND bit (MQ-142).
    pub(crate) fn send(&mut self, body: &[u8]) {
        frame::put_header(self.output, frame::COMMAND, body.len());
        self.output.extend_from_slice(body);
    }

    /// Our own properties, as they go into READY or INITIATE (MQ-116).
    pub(crate) fn metadata(&self) -> Vec<u8> {
        metadata::local(self.config)
    }

    /// Checks the properties of the peer (MQ-117 to MQ-119, MQ-123, MQ-125, MQ-126).
    pub(crate) fn peer(&self, properties: &[u8]) -> Result<Peer, Refusal> {
        const WRONG_TYPE: Option<&[u8]> = Some(b"Invalid socket type");
        let metadata = Metadata::parse(properties).map_err(CloseReason::InvalidMetadata)?;
        let socket_type = match metadata.get("Socket-Type") {
            Some(name) => match SocketType::from_name(name) {
                Some(socket_type) if self.config.socket_type.accepts(socket_type) => Some(socket_type),
                _ => return Err(Refusal { reason: CloseReason::InvalidSocketType, tell: WRONG_TYPE }),
            },
            None if self.config.allow_missing_socket_type => None,
            None => {
                let reason = CloseReason::InvalidMetadata(MetadataError::NoSocketType);
                return Err(Refusal { reason, tell: WRONG_TYPE });
            }
        };
        let identity = metadata.get("Identity").cloned().unwrap_or_default();
        metadata::check_identity(&identity, self.config.strict_identity)
            .map_err(CloseReason::InvalidMetadata)?;
        Ok(Peer { socket_type, identity, metadata })
    }
}

/// The mechanism that `config` asks for, with all the randomness it will need.
pub(crate) fn new(config: &SessionConfig, random: &mut dyn Random) -> Box<dyn Handshake> {
    match &config.security {
        Security::Null { authenticate } => Box::new(null::Null::new(*authenticate)),
        Security::PlainServer => Box::new(plain::Server::new()),
        Security::PlainClient(credentials) => Box::new(plain::Client::new(credentials.clone())),
        Security::CurveServer(keys) => Box::new(curve::Server::new(keys, random)),
        Security::CurveClient(keys) => Box::new(curve::Client::new(keys, random)),
    }
}

/// Contract of [`curve::Boxes`], which does for traffic what a [`Handshake`] does before it; here so that it is
/// checked by the compiler in one place.
pub(crate) trait Boxing {
    /// Opens the body of a frame in place: the payload is then what follows its first [`BOXED_PAYLOAD`] octets. Gives the
    /// inner flags, without reserved bits and never both.
    ///
    /// # Errors
    ///
    /// What is no MESSAGE is [`CloseReason::UnexpectedCommand`], one of under [`BOXED_PAYLOAD`] octets or with inner flags
    /// that are not legal [`CloseReason::MalformedMessage`], a nonce that does not grow
    /// [`CloseReason::InvalidSequence`], a box that does not open [`CloseReason::Cryptographic`] (MQ-146, MQ-451 to MQ-456).
    fn open(&mut self, body: &mut [u8]) -> Result<u8, CloseReason>;

    /// Puts `payload` into a box of the next nonce and the box, with its frame header, into `batch`. `inner` is
    /// [`INNER_MORE`], [`INNER_COMMAND`] or zero (MQ-143 to MQ-145).
    ///
    /// # Errors
    ///
    /// When no nonce is left.
    fn seal(&mut self, inner: u8, payload: &[u8], batch: &mut WriteBatch) -> Result<(), CloseReason>;
}

/// Inner flag of a boxed frame that is not the last of its message.
pub(crate) const INNER_MORE: u8 = 0x01;
/// Inner flag of a boxed command; not the value that frames use.
pub(crate) const INNER_COMMAND: u8 = 0x02;
/// Octets of a boxed frame before its payload: name, nonce, tag, inner flags; the overhead of MQ-106.
pub(crate) const BOXED_PAYLOAD: usize = 33;
