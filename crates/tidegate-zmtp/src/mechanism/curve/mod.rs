//! CURVE: authentication by long-term keys and encryption by keys that live as long as the connection (§4.6).
//!
//! Written C for the client's long-term public key, S for the server's, C' and S' for the transient ones, small letters
//! for the secret keys, and `Box[X](a, B)` for X in a box under the key of a and B:
//!
//! ```text
//! client                                                     server
//!   HELLO     C', nonce, Box[0 * 64](c', S)                   ──►
//!        ◄──  nonce, Box[S', cookie](s, C')                   WELCOME
//!   INITIATE  cookie, nonce, Box[C, vouch, metadata](c', S')  ──►      the authenticator decides on C
//!        ◄──  nonce, Box[metadata](s', C')                    READY
//!   MESSAGE   nonce, Box[flags, payload](c', S')              ◄──►     the same key both ways
//!
//!   vouch  = nonce, Box[C', S](c, S')      the owner of c means this connection and this server
//!   cookie = nonce, box of C', s'          under a key that only this server knows, for this connection
//! ```
//!
//! The server keeps no secret of the connection but the cookie key until INITIATE brings the cookie back (MQ-149).
//! Nonces are counters, one per direction, or drawn; all that is drawn is drawn when the state machine is made.

mod boxes;
mod client;
mod keys;
mod secret_box;
mod server;
#[cfg(test)]
mod tests;

pub(crate) use self::{boxes::Boxes, client::Client, server::Server};
pub use self::{
    client::CurveClient,
    keys::{KEY_LEN, KeyError, PublicKey, SecretKey},
    server::CurveServer,
};

use crate::{close::CloseReason, command};

/// Prefixes of the nonces: of 16 octets before a counter, of 8 before drawn octets.
mod nonce {
    pub(super) const HELLO: &[u8; 16] = b"CurveZMQHELLO---";
    pub(super) const WELCOME: &[u8; 8] = b"WELCOME-";
    pub(super) const COOKIE: &[u8; 8] = b"COOKIE--";
    pub(super) const VOUCH: &[u8; 8] = b"VOUCH---";
    pub(super) const INITIATE: &[u8; 16] = b"CurveZMQINITIATE";
    pub(super) const READY: &[u8; 16] = b"CurveZMQREADY---";
    pub(super) const CLIENT_MESSAGE: &[u8; 16] = b"CurveZMQMESSAGEC";
    pub(super) const SERVER_MESSAGE: &[u8; 16] = b"CurveZMQMESSAGES";
}

/// Octets of a drawn nonce as it is sent.
const LONG_NONCE: usize = 16;
/// Octets of a counter as it is sent.
const SHORT_NONCE: usize = 8;
/// Octets of a cookie and of a vouch: drawn nonce, tag, two keys.
const COOKIE: usize = LONG_NONCE + secret_box::TAG_LEN + 2 * KEY_LEN;
const VOUCH: usize = COOKIE;

/// Name and data of the command in `body`.
fn split(body: &mut [u8]) -> Result<(&[u8], &mut [u8]), CloseReason> {
    let end = 1 + command::split(body)?.0.len();
    let (head, data) = body.split_at_mut(end);
    Ok((&head[1..], data))
}

/// The first `N` octets of `bytes`, which are taken off.
fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}
