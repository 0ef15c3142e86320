//! Values of fields, checked when read.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;
use tidegate_mq::PublicKey;

use crate::schema::{SchemaHash, SchemaVersion};

/// A value that a field cannot have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{what} must be {rule}")]
pub struct FieldError {
    /// What kind of value it is.
    pub what: &'static str,
    /// What it has to look like.
    pub rule: &'static str,
}

/// A text that obeys a rule.
macro_rules! text {
    ($(#[doc = $doc:literal])+ $name:ident, $what:literal, $rule:literal, $is_valid:expr) => {
        $(#[doc = $doc])+
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks `text`.
            ///
            /// # Errors
            /// [`FieldError`] with the rule that it breaks.
            pub fn new(text: impl Into<String>) -> Result<Self, FieldError> {
                let text = text.into();
                let is_valid: fn(&str) -> bool = $is_valid;
                if is_valid(&text) { Ok(Self(text)) } else { Err(FieldError { what: $what, rule: $rule }) }
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = FieldError;

            fn try_from(text: String) -> Result<Self, FieldError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text! {
    /// Name of a block in the shared-memory file system: `tidegate_` and what 3.8 makes of channel and uuid.
    ShmName, "shm_name", "`tidegate_` and up to 73 of a-z, 0-9, '_', '-'", |text| {
        text.strip_prefix("tidegate_").is_some_and(|rest| {
            (1..=73).contains(&rest.len())
                && rest.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-'))
        })
    }
}

text! {
    /// Who sends: unique per process, and the routing id of its socket.
    ClientId, "client_id", "1 to 64 printable ASCII characters without space", is_token
}

text! {
    /// Number of a request, chosen by its sender.
    MsgId, "msg_id", "1 to 64 printable ASCII characters without space", is_token
}

text! {
    /// A short text: names of policies, endpoints, reasons, domains.
    Label, "a text", "at most 256 bytes without control characters", |text| {
        text.len() <= 256 && !text.chars().any(char::is_control)
    }
}

text! {
    /// A canonical schema text (12.2): at most 32 KiB for each of slot and zones, and lines between them.
    LongText, "schema_text", "at most 48 KiB of ASCII without control characters but LF", |text| {
        text.len() <= 48 << 10 && text.bytes().all(|byte| byte == b'\n' || byte == b' ' || byte.is_ascii_graphic())
    }
}

fn is_token(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// `N` octets, written as lower-case hex (DH-187).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fixed<const N: usize>(pub [u8; N]);

impl<const N: usize> Fixed<N> {
    /// Reads `2 N` lower-case hex digits.
    ///
    /// # Errors
    /// [`FieldError`] for anything else.
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        let error = FieldError { what: "a hash, uuid or key id", rule: "lower-case hex of its full length" };
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Ok(byte - b'0'),
            b'a'..=b'f' => Ok(byte - b'a' + 10),
            _ => Err(error),
        };
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if pairs.len() != N || !rest.is_empty() {
            return Err(error);
        }
        let mut bytes = [0; N];
        for (place, [high, low]) in bytes.iter_mut().zip(pairs) {
            *place = digit(*high)? << 4 | digit(*low)?;
        }
        Ok(Self(bytes))
    }
}

impl<const N: usize> fmt::Display for Fixed<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl<const N: usize> fmt::Debug for Fixed<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<const N: usize> Serialize for Fixed<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Fixed<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// `N` octets, written as base64.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Base64<const N: usize>(pub [u8; N]);

/// Octets that no other request of the client has.
pub type Nonce = Base64<16>;

/// Proof that the sender knows the secret of the channel (13.3).
pub type Proof = Base64<32>;

impl<const N: usize> fmt::Debug for Base64<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Base64(..)")
    }
}

impl<const N: usize> Serialize for Base64<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(self.0))
    }
}

impl<'de, const N: usize> Deserialize<'de> for Base64<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(|| {
            de::Error::custom(FieldError { what: "a nonce or proof", rule: "base64 of 16 or 32 octets" })
        })
    }
}

/// A secret sealed for one consumer's key, which the broker passes on unread: base64 of at most 512 octets.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SealedSecret(Vec<u8>);

impl SealedSecret {
    /// The sealed octets, 1 to 512.
    ///
    /// # Errors
    /// [`FieldError`] for another number of octets.
    pub fn new(bytes: Vec<u8>) -> Result<Self, FieldError> {
        let is_valid = (1..=512).contains(&bytes.len());
        if is_valid {
            Ok(Self(bytes))
        } else {
            Err(FieldError { what: "sealed_secret", rule: "base64 of 1 to 512 octets" })
        }
    }

    /// The sealed octets.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SealedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealedSecret(..)")
    }
}

impl TryFrom<String> for SealedSecret {
    type Error = FieldError;

    fn try_from(text: String) -> Result<Self, FieldError> {
        Self::new(STANDARD.decode(text).unwrap_or_default())
    }
}

impl From<SealedSecret> for String {
    fn from(sealed: SealedSecret) -> Self {
        STANDARD.encode(sealed.0)
    }
}

/// An integer that may exceed 2^53-1: written as a decimal string, read from that or from a number that JSON keeps exact
/// (DH-187).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct U64(pub u64);

impl Serialize for U64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for U64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(U64Visitor)
    }
}

struct U64Visitor;

impl de::Visitor<'_> for U64Visitor {
    type Value = U64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a decimal string of a 64-bit number, or a number of at most 2^53-1")
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<U64, E> {
        const EXACT: u64 = (1 << 53) - 1;
        if number <= EXACT {
            Ok(U64(number))
        } else {
            Err(E::invalid_value(de::Unexpected::Unsigned(number), &self))
        }
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<U64, E> {
        let is_decimal =
            text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
        let number = if is_decimal { text.parse().ok() } else { None };
        number.map(U64).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

/// Number that the broker gives a channel, for the life of its registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChannelId(pub u32);

/// A schema as producers and consumers speak of it: hash and version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schema {
    /// Hash of the canonical text of the slot.
    pub hash: SchemaHash,
    /// Version.
    pub version: SchemaVersion,
}

impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (version {})", self.hash, self.version)
    }
}

/// A public CURVE key, written as Z85.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Z85Key(pub PublicKey);

impl fmt::Debug for Z85Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Serialize for Z85Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.to_z85())
    }
}

impl<'de> Deserialize<'de> for Z85Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let key = if text.len() == 40 { PublicKey::parse(text.as_bytes()).ok() } else { None };
        key.map(Self).ok_or_else(|| {
            de::Error::custom(FieldError { what: "a public key", rule: "40 characters of Z85" })
        })
    }
}
