//! What a session asks its authenticator, and what it is answered.

use std::fmt;

use bytes::Bytes;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

pub use crate::close::{AuthCode, ZapError};
use crate::metadata::Metadata;

/// A user name or password: at most 255 octets.
///
/// Stored as a fixed-size image, so that comparing takes the same time whatever the content and the length, and wiped
/// when dropped (MQ-137). `Debug` shows nothing of it.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret {
    /// The length, then the octets, then zeros.
    image: Box<[u8; 256]>,
}

impl Secret {
    /// A copy of `bytes`, or `None` when there are too many.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let mut image = Box::new([0; 256]);
        let (len, rest) = image.split_first_mut()?;
        *len = u8::try_from(bytes.len()).ok()?;
        rest.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(Self { image })
    }

    /// The octets.
    pub fn as_bytes(&self) -> &[u8] {
        self.image.get(1..=usize::from(self.image[0])).unwrap_or_default()
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.ct_eq(other).into()
    }
}

impl Eq for Secret {}

impl ConstantTimeEq for Secret {
    fn ct_eq(&self, other: &Self) -> subtle::Choice {
        self.image.as_slice().ct_eq(other.image.as_slice())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// User name and password of PLAIN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlainCredentials {
    /// User name; may be empty.
    pub username: Secret,
    /// Password; may be empty.
    pub password: Secret,
}

impl PlainCredentials {
    /// Copies both, or gives `None` when one has more than 255 octets.
    pub fn new(username: &[u8], password: &[u8]) -> Option<Self> {
        Some(Self { username: Secret::new(username)?, password: Secret::new(password)? })
    }

    /// Whether both are equal, in constant time.
    pub fn matches(&self, other: &Self) -> bool {
        (self.username.ct_eq(&other.username) & self.password.ct_eq(&other.password)).into()
    }
}

/// By what a client proves who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Credentials {
    /// Nothing (NULL).
    None,
    /// User name and password.
    Plain(PlainCredentials),
    /// Long-term public key, which the client has proved to own.
    Curve([u8; 32]),
}

/// A question to the authenticator, to be answered by [`Session::verdict`](crate::session::Session::verdict).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthRequest {
    /// The client's Identity where it is known already, else empty (MQ-152).
    pub identity: Bytes,
    /// What the client presents.
    pub credentials: Credentials,
}

/// The authenticator's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// Status 200 (MQ-160).
    Accept {
        /// Becomes the `User-Id` of every message.
        user_id: Bytes,
        /// Added to the metadata of the connection.
        metadata: Metadata,
    },
    /// Status 300, 400 or 500.
    Refuse(AuthCode),
    /// The reply of the handler is not valid (MQ-159).
    Invalid(ZapError),
    /// No handler is there to ask (MQ-162).
    Unanswered,
}

impl Verdict {
    /// Accepts without user id and metadata.
    pub fn accept() -> Self {
        Self::Accept { user_id: Bytes::new(), metadata: Metadata::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rules: MQ-137.
    #[test]
    fn a_secret_is_wiped_and_compared_as_a_whole() {
        fn is_wiped(_: &impl ZeroizeOnDrop) {}
        let secret = |text: &str| Secret::new(text.as_bytes()).unwrap();
        is_wiped(&secret("s3cret"));
        assert_eq!(secret("s3cret"), secret("s3cret"));
        for other in ["", "s3cre", "s3cret\0", "S3cret", "s3creu"] {
            assert_ne!(secret("s3cret"), secret(other), "{other:?}");
        }
        assert!(Secret::new(&[b'x'; 255]).is_some() && Secret::new(&[b'x'; 256]).is_none());
    }
}
