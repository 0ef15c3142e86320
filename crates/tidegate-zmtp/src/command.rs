//! Commands: frames that peers exchange beside messages (§3.3, chapter 5).
//!
//! ```text
//! body = length of name (1..255)  name  data
//! ```

use bytes::{BufMut, Bytes, BytesMut};

use crate::close::{AuthCode, CloseReason};

/// Longest context of a PING that is echoed (MQ-167).
pub const MAX_CONTEXT: usize = 16;

/// Name and data of the command in `body`.
///
/// # Errors
///
/// When the name is empty or goes beyond the body (MQ-111).
pub fn split(body: &[u8]) -> Result<(&[u8], &[u8]), CloseReason> {
    match body.split_first() {
        Some((&len @ 1.., rest)) => {
            rest.split_at_checked(usize::from(len)).ok_or(CloseReason::MalformedCommand)
        }
        _ => Err(CloseReason::MalformedCommand),
    }
}

/// A command of an established connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// Asks for a sign of life.
    Ping {
        /// Tenths of a second after which the sender counts as dead if it stays silent; 0 is never.
        ttl: u16,
        /// To be echoed, at most [`MAX_CONTEXT`] octets of it.
        context: &'a [u8],
    },
    /// Answers a PING.
    Pong {
        /// The context of the PING, or what the peer thinks it was.
        context: &'a [u8],
    },
    /// Subscribes to a topic.
    Subscribe(&'a [u8]),
    /// Ends the subscription of a topic.
    Cancel(&'a [u8]),
    /// Joins a group.
    Join(&'a [u8]),
    /// Leaves a group.
    Leave(&'a [u8]),
    /// The peer gives up.
    Error(&'a [u8]),
    /// A command of the handshake, which is over.
    Handshake,
    /// A command of another name.
    Unknown,
}

impl<'a> Command<'a> {
    /// Reads the command in `body`.
    ///
    /// # Errors
    ///
    /// When the name is malformed or a PING has no ttl (MQ-111, MQ-168).
    pub fn parse(body: &'a [u8]) -> Result<Self, CloseReason> {
        let (name, data) = split(body)?;
        Ok(match name {
            b"PING" => {
                let (ttl, context) = data.split_first_chunk().ok_or(CloseReason::MalformedCommand)?;
                Self::Ping { ttl: u16::from_be_bytes(*ttl), context }
            }
            b"PONG" => Self::Pong { context: data },
            b"SUBSCRIBE" => Self::Subscribe(data),
            b"CANCEL" => Self::Cancel(data),
            b"JOIN" => Self::Join(data),
            b"LEAVE" => Self::Leave(data),
            b"ERROR" => Self::Error(data),
            b"READY" | b"HELLO" | b"WELCOME" | b"INITIATE" | b"MESSAGE" => Self::Handshake,
            _ => Self::Unknown,
        })
    }
}

/// What the data of an ERROR command says (MQ-132): why the connection ends, in the handshake.
pub(crate) fn error_reason(data: &[u8]) -> CloseReason {
    let Some((&len, rest)) = data.split_first() else {
        return CloseReason::MalformedError;
    };
    let declared = rest.get(..usize::from(len));
    match (AuthCode::from_reason(declared.unwrap_or(rest)), declared) {
        (Some(code), _) => CloseReason::AuthFailed(code),
        (None, Some(reason)) => CloseReason::PeerError(Bytes::copy_from_slice(reason)),
        (None, None) => CloseReason::MalformedError,
    }
}

/// The body of an ERROR command; a reason beyond 255 octets is cut.
pub(crate) fn error(reason: &[u8]) -> Vec<u8> {
    let reason = reason.get(..255).unwrap_or(reason);
    [b"\x05ERROR", [reason.len() as u8].as_slice(), reason].concat()
}

/// Appends the body of a PING without context.
pub(crate) fn put_ping(out: &mut BytesMut, ttl: u16) {
    out.put_slice(b"\x04PING");
    out.put_u16(ttl);
}

/// Appends the body of the PONG that answers a PING with `context`.
pub(crate) fn put_pong(out: &mut BytesMut, context: &[u8]) {
    out.put_slice(b"\x04PONG");
    out.put_slice(context.get(..MAX_CONTEXT).unwrap_or(context));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rules: MQ-111, MQ-168.
    #[test]
    fn commands_are_read_exactly() {
        assert_eq!(Command::parse(b"\x04PING\x00\x0actx"), Ok(Command::Ping { ttl: 10, context: b"ctx" }));
        assert_eq!(Command::parse(b"\x04PONG"), Ok(Command::Pong { context: b"" }));
        assert_eq!(Command::parse(b"\x09SUBSCRIBEab"), Ok(Command::Subscribe(b"ab")));
        assert_eq!(Command::parse(b"\x06CANCEL"), Ok(Command::Cancel(b"")));
        assert_eq!(Command::parse(b"\x04JOINg"), Ok(Command::Join(b"g")));
        assert_eq!(Command::parse(b"\x05LEAVEg"), Ok(Command::Leave(b"g")));
        assert_eq!(Command::parse(b"\x05READY"), Ok(Command::Handshake));
        assert_eq!(Command::parse(b"\x04ping\x00\x00"), Ok(Command::Unknown), "names are case-sensitive");
        for malformed in [b"".as_slice(), b"\x00", b"\x05PING", b"\x04PING", b"\x04PING\x00"] {
            assert_eq!(Command::parse(malformed), Err(CloseReason::MalformedCommand), "{malformed:?}");
        }
    }

    /// Rules: MQ-132, MQ-414.
    #[test]
    fn errors_say_why() {
        let reason = |text: &'static [u8]| CloseReason::PeerError(Bytes::from_static(text));
        assert_eq!(error_reason(b"\x04oops"), reason(b"oops"));
        assert_eq!(error_reason(b"\x02oops"), reason(b"oo"), "what follows the reason is ignored");
        assert_eq!(error_reason(b"\x00"), reason(b""));
        for (text, code) in [
            (b"\x03300".as_slice(), AuthCode::Temporary),
            (b"\x03400", AuthCode::Denied),
            (b"\x03500", AuthCode::Internal),
            (b"\x08400", AuthCode::Denied),
        ] {
            assert_eq!(error_reason(text), CloseReason::AuthFailed(code), "{text:?}");
        }
        assert_eq!(error_reason(b"\x08oops"), CloseReason::MalformedError);
        assert_eq!(error_reason(b""), CloseReason::MalformedError);
        assert_eq!(error(b"Invalid socket type"), b"\x05ERROR\x13Invalid socket type");
    }
}
