//! Values of options that are more than a number.

use std::{fmt, ops::Deref, sync::Arc, time::Duration};

use bytes::Bytes;
use tidegate_zmtp::mechanism::curve::{PublicKey, SecretKey};
use zeroize::Zeroizing;

use crate::{auth::Authenticator, error::Error};

/// Milliseconds, for the table of defaults.
pub(crate) const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Name by which a ROUTER addresses a peer: 1 to 255 bytes, the first of them not zero (MQ-124).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RoutingId(Bytes);

impl RoutingId {
    /// Checks `id`.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] when it is empty, too long or begins with a zero byte, which is kept for ids that
    /// sockets give themselves.
    pub fn new(id: impl Into<Bytes>) -> Result<Self, Error> {
        let id = id.into();
        let invalid = |problem| Error::InvalidOption { option: "routing_id", problem };
        match id.first() {
            None => Err(invalid("empty; give 1 to 255 bytes")),
            Some(0) => Err(invalid("begins with a zero byte, which is kept for generated ids")),
            Some(_) if id.len() > 255 => Err(invalid("longer than 255 bytes")),
            Some(_) => Ok(Self(id)),
        }
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }
}

impl fmt::Debug for RoutingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

/// Whether peers that speak protocol 3.0 are sent heartbeats (MQ-171).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Heartbeat30Peers {
    /// When they have sent one themselves.
    #[default]
    Learned,
    /// Always; for peers known to be libzmq 4.2 to 4.3.2.
    Always,
    /// Never.
    Never,
}

/// What a REQ socket does when the peer that has its request is lost (MQ-197).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReqOnPeerLoss {
    /// Go on waiting, for ever if need be.
    #[default]
    Wait,
    /// Let the receive fail with [`Error::PeerLost`].
    Fail,
    /// Send the request to the next peer, at most this many times; needs `req_correlate`. The request may be
    /// answered more than once.
    Resend(u32),
}

/// What a publisher does with a subscriber whose queue is full (MQ-222).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlowSubscriberPolicy {
    /// Drop the message for that subscriber and count it.
    #[default]
    Drop,
    /// Close the connection when this many messages were dropped on it.
    Disconnect(u32),
}

/// What a ROUTER reports by a message of the routing id and an empty part (MQ-211).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouterNotify {
    /// A peer completed its handshake.
    pub connect: bool,
    /// A peer was lost.
    pub disconnect: bool,
}

/// When a lost or failed connection is not tried again (MQ-281).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReconnectStop {
    /// The peer's host refused the connection.
    pub connection_refused: bool,
    /// The handshake failed for any reason.
    pub handshake_failed: bool,
    /// An established connection was lost.
    pub after_disconnect: bool,
}

/// Security of a socket: what it speaks, and in which role.
#[derive(Clone, Debug, Default)]
pub enum Mechanism {
    /// No security. Peers are authenticated by address only, and only when `zap_domain` is set.
    #[default]
    Null,
    /// User name and password in clear text.
    Plain(PlainOptions),
    /// Encryption and keys on both sides.
    Curve(CurveOptions),
}

/// PLAIN, in one of its roles.
#[derive(Clone)]
pub enum PlainOptions {
    /// Checks clients, by `authenticator` or else by the context's ZAP handler.
    Server {
        /// Who decides; `None` asks the ZAP handler.
        authenticator: Option<Arc<dyn Authenticator>>,
    },
    /// Shows these credentials, each at most 255 bytes.
    Client {
        /// User name.
        username: String,
        /// Password.
        password: Password,
    },
}

/// A password: wiped when dropped, and not shown by `Debug` (MQ-137, MQ-141).
#[derive(Clone, Default)]
pub struct Password(Zeroizing<String>);

impl From<String> for Password {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl From<&str> for Password {
    fn from(text: &str) -> Self {
        Self::from(text.to_owned())
    }
}

impl Deref for Password {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

impl fmt::Debug for PlainOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server { .. } => f.write_str("Server"),
            Self::Client { username, password } => {
                f.debug_struct("Client").field("username", username).field("password", password).finish()
            }
        }
    }
}

/// CURVE, in one of its roles.
#[derive(Clone, Debug)]
pub enum CurveOptions {
    /// Accepts the clients that `policy` admits.
    Server {
        /// Long-term secret key.
        secret_key: SecretKey,
        /// Who is admitted.
        policy: CurvePolicy,
    },
    /// Talks to the owner of `server_key` only.
    Client {
        /// Long-term public key of the server.
        server_key: PublicKey,
        /// Long-term secret key of this socket; the public one follows from it.
        secret_key: SecretKey,
    },
}

/// Which clients a CURVE server admits (MQ-153).
#[derive(Clone, Default)]
pub enum CurvePolicy {
    /// Those that the context's ZAP handler admits; without a handler none.
    #[default]
    Zap,
    /// Those with one of these keys.
    AllowList(Arc<[PublicKey]>),
    /// Those that this authenticator admits.
    Ask(Arc<dyn Authenticator>),
    /// Every client: encryption without authentication.
    AnyKey,
}

impl fmt::Debug for CurvePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zap => f.write_str("Zap"),
            Self::AllowList(keys) => write!(f, "AllowList({} keys)", keys.len()),
            Self::Ask(_) => f.write_str("Ask"),
            Self::AnyKey => f.write_str("AnyKey"),
        }
    }
}

#[cfg(test)]
mod tests {
    use zeroize::ZeroizeOnDrop;

    use super::*;

    /// Rules: MQ-137, MQ-141.
    #[test]
    fn a_password_is_wiped_and_not_shown() {
        fn is_wiped(_: &impl ZeroizeOnDrop) {}
        let password = Password::from("hunter2");
        is_wiped(&password.0);
        let options = PlainOptions::Client { username: "ann".into(), password };
        assert!(!format!("{options:?} {options:#?}").contains("hunter2"));
    }
}
