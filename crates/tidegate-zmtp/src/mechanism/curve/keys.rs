//! Keys of CURVE: X25519 public and secret keys.

use std::fmt;

use dryoc::classic::crypto_core::crypto_scalarmult_base;
use zeroize::Zeroizing;

use crate::{
    random::Random,
    z85::{self, Z85Error},
};

/// Octets of a key.
pub const KEY_LEN: usize = 32;

/// A public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey([u8; KEY_LEN]);

/// A secret key; wiped when dropped, and never shown (MQ-141).
#[derive(Clone)]
pub struct SecretKey(Zeroizing<[u8; KEY_LEN]>);

/// Why something is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Neither 32 octets nor Z85 of 40 characters, with or without a zero octet after it.
    #[error("a key has 32 octets or 40 characters of Z85, not {len}")]
    Length {
        /// Octets or characters given.
        len: usize,
    },
    /// A text of 41 octets whose last is not zero.
    #[error("a key of 41 octets ends with a zero octet; give the 40 characters alone")]
    Terminator,
    /// Not Z85.
    #[error("the key is not valid Z85: {0}")]
    Z85(#[from] Z85Error),
}

impl PublicKey {
    /// The key of these octets. Every string of 32 octets is one; those of low order are refused when they are used
    /// (MQ-140).
    pub const fn from_bytes(bytes: [u8; KEY_LEN]) -> Self {
        Self(bytes)
    }

    /// Reads 32 octets, or 40 characters of Z85, or these and a zero octet (MQ-314).
    ///
    /// # Errors
    ///
    /// Every [`KeyError`].
    pub fn parse(key: &[u8]) -> Result<Self, KeyError> {
        let mut bytes = [0; KEY_LEN];
        parse(key, &mut bytes)?;
        Ok(Self(bytes))
    }

    /// The octets.
    pub const fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// The key as 40 characters of Z85.
    pub fn to_z85(&self) -> String {
        z85::encode(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_z85())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl SecretKey {
    /// Draws a new key.
    pub fn generate(random: &mut dyn Random) -> Self {
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        random.fill(bytes.as_mut_slice());
        Self(bytes)
    }

    /// The key of these octets.
    pub fn from_bytes(bytes: [u8; KEY_LEN]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    pub(super) fn from_wiped(bytes: Zeroizing<[u8; KEY_LEN]>) -> Self {
        Self(bytes)
    }

    /// Reads 32 octets, or 40 characters of Z85, or these and a zero octet (MQ-314).
    ///
    /// # Errors
    ///
    /// Every [`KeyError`].
    pub fn parse(key: &[u8]) -> Result<Self, KeyError> {
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        parse(key, &mut bytes)?;
        Ok(Self(bytes))
    }

    /// The public key that belongs to this one.
    pub fn public_key(&self) -> PublicKey {
        let mut public = [0; KEY_LEN];
        crypto_scalarmult_base(&mut public, &self.0);
        PublicKey(public)
    }

    /// The octets, for whoever stores the key.
    pub fn expose(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// The key as 40 characters of Z85, wiped when dropped.
    pub fn expose_z85(&self) -> Zeroizing<String> {
        Zeroizing::new(z85::encode(self.0.as_slice()).unwrap_or_default())
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

fn parse(key: &[u8], bytes: &mut [u8; KEY_LEN]) -> Result<(), KeyError> {
    match key.len() {
        KEY_LEN => bytes.copy_from_slice(key),
        40 => z85::decode_into(key, bytes)?,
        41 => match key.split_last() {
            Some((0, text)) => z85::decode_into(text, bytes)?,
            _ => return Err(KeyError::Terminator),
        },
        len => return Err(KeyError::Length { len }),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8; 40] = b"wu=fu^7SXs1IC53N3vT[Z=)^JL{k:O?4CZmm+096";

    #[test]
    fn a_key_is_read_from_octets_and_from_text() {
        let server = SecretKey::from_bytes(std::array::from_fn(|index| 0x41 + index as u8));
        let public = server.public_key();
        assert_eq!(public.to_string().as_bytes(), TEXT);
        assert_eq!(PublicKey::parse(TEXT), Ok(public));
        assert_eq!(PublicKey::parse(&[TEXT.as_slice(), b"\0"].concat()), Ok(public));
        assert_eq!(PublicKey::parse(public.as_bytes()), Ok(public));
        let again = SecretKey::parse(server.expose_z85().as_bytes()).unwrap();
        assert_eq!(again.expose(), server.expose());
        assert_eq!(SecretKey::parse(server.expose()).unwrap().public_key(), public);
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for len in [0, 31, 33, 39, 42, 64] {
            assert_eq!(PublicKey::parse(&vec![b'0'; len]), Err(KeyError::Length { len }));
            assert!(matches!(SecretKey::parse(&vec![b'0'; len]), Err(KeyError::Length { .. })));
        }
        assert_eq!(PublicKey::parse(&[b'0'; 41]), Err(KeyError::Terminator));
        let spoilt = Z85Error::Digit { octet: b'"', position: 3 };
        let mut text = *TEXT;
        text[3] = b'"';
        assert_eq!(PublicKey::parse(&text), Err(KeyError::Z85(spoilt)));
    }

    /// Neither a key nor what contains it shows the secret.
    ///
    /// Rules: MQ-141.
    #[test]
    fn a_secret_is_never_shown() {
        let secret = SecretKey::from_bytes([0x42; 32]);
        assert_eq!(format!("{secret:?}"), "SecretKey(..)");
        assert!(!format!("{secret:#?}").contains("42"));
    }

    /// Rules: MQ-141.
    #[test]
    fn a_secret_is_wiped() {
        fn is_wiped(_: &impl zeroize::ZeroizeOnDrop) {}
        is_wiped(&SecretKey::from_bytes([0x42; 32]).0);
    }

    #[test]
    fn a_generated_key_is_what_was_drawn() {
        let mut draws = 0;
        let mut random = |bytes: &mut [u8]| {
            draws += bytes.len();
            bytes.fill(7);
        };
        assert_eq!(SecretKey::generate(&mut random).expose(), &[7; 32]);
        assert_eq!(draws, 32);
    }
}
