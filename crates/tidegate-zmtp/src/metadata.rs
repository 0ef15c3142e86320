//! Properties by which peers describe themselves (§4.1).
//!
//! ```text
//! property = length of name (1)  name  length of value (4, big-endian)  value
//! metadata = property*
//! ```

use bytes::{BufMut, Bytes};

pub use crate::close::MetadataError;
use crate::config::SessionConfig;

/// Most properties that a peer may send (MQ-118).
pub const MAX_PROPERTIES: usize = 64;

/// Most octets of metadata that a peer may send (MQ-118).
pub const MAX_METADATA: usize = 32 * 1024;

/// Longest Identity (MQ-125).
pub const MAX_IDENTITY: usize = 255;

/// A list of properties in the order of the wire; names are compared without regard to case (MQ-115).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    properties: Vec<(String, Bytes)>,
}

impl Metadata {
    /// Reads what a peer sent.
    ///
    /// # Errors
    ///
    /// When anything is cut short, left over, repeated or too much (MQ-117, MQ-118).
    pub fn parse(bytes: &[u8]) -> Result<Self, MetadataError> {
        if bytes.len() > MAX_METADATA {
            return Err(MetadataError::TooMany);
        }
        let mut metadata = Self::default();
        let mut rest = bytes;
        while !rest.is_empty() {
            let (name, value);
            (name, value, rest) = property(rest)?;
            if metadata.get(name).is_some() {
                return Err(MetadataError::Repeated);
            }
            if metadata.properties.len() == MAX_PROPERTIES {
                return Err(MetadataError::TooMany);
            }
            metadata.properties.push((name.to_owned(), Bytes::copy_from_slice(value)));
        }
        Ok(metadata)
    }

    /// The value of the property called `name`.
    pub fn get(&self, name: &str) -> Option<&Bytes> {
        self.properties.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// All properties, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Bytes)> {
        self.properties.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Sets the property called `name`, whatever it was before.
    pub fn set(&mut self, name: &str, value: Bytes) {
        self.properties.retain(|(own, _)| !own.eq_ignore_ascii_case(name));
        self.properties.push((name.to_owned(), value));
    }

    /// Adds what `other` says beyond this, except under the names that only the connection itself may set (MQ-160).
    pub fn merge(&mut self, other: Self) {
        const RESERVED: [&str; 3] = ["Socket-Type", "Routing-Id", "Peer-Address"];
        for (name, value) in other.properties {
            let reserved = RESERVED.iter().any(|reserved| reserved.eq_ignore_ascii_case(&name));
            if !reserved && self.get(&name).is_none() {
                self.properties.push((name, value));
            }
        }
    }
}

/// The first property of `bytes` and what follows it.
fn property(bytes: &[u8]) -> Result<(&str, &[u8], &[u8]), MetadataError> {
    let (&len, rest) = bytes.split_first().ok_or(MetadataError::Truncated)?;
    if len == 0 {
        return Err(MetadataError::Name);
    }
    let (name, rest) = rest.split_at_checked(usize::from(len)).ok_or(MetadataError::Truncated)?;
    if !name.iter().all(u8::is_ascii_graphic) {
        return Err(MetadataError::Name);
    }
    let name = std::str::from_utf8(name).map_err(|_| MetadataError::Name)?;
    let (len, rest) = rest.split_first_chunk().ok_or(MetadataError::Truncated)?;
    // A length of 2^31 or more is beyond the end as well: all of the metadata is shorter.
    let len = usize::try_from(u32::from_be_bytes(*len)).map_err(|_| MetadataError::Truncated)?;
    let (value, rest) = rest.split_at_checked(len).ok_or(MetadataError::Truncated)?;
    Ok((name, value, rest))
}

/// Appends one property. A name beyond 255 octets or a value beyond 2^31 − 1 cannot be written and is cut.
pub fn put_property(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    let name = name.as_bytes().get(..255).unwrap_or(name.as_bytes());
    let value = value.get(..i32::MAX as usize).unwrap_or(value);
    out.put_u8(name.len() as u8);
    out.put_slice(name);
    out.put_u32(value.len() as u32);
    out.put_slice(value);
}

/// Our own properties: Socket-Type first, Identity where the type has one, then those of the application (MQ-116,
/// MQ-120).
pub(crate) fn local(config: &SessionConfig) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    put_property(&mut out, "Socket-Type", config.socket_type.name().as_bytes());
    if config.socket_type.announces_identity() {
        put_property(&mut out, "Identity", &config.identity);
    }
    for (name, value) in &config.metadata {
        put_property(&mut out, name, value);
    }
    out
}

/// Whether a peer may call itself `identity` (MQ-125, MQ-126).
pub(crate) fn check_identity(identity: &[u8], strict: bool) -> Result<(), MetadataError> {
    let generated = identity.first() == Some(&0) && (strict || identity.len() == 5);
    if generated || identity.len() > MAX_IDENTITY { Err(MetadataError::Identity) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one(name: &str, value: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        put_property(&mut out, name, value);
        out
    }

    /// Rules: MQ-115, MQ-120.
    #[test]
    fn names_match_in_any_case_and_unknown_ones_are_kept() {
        let bytes = [one("socket-type", b"PULL"), one("X-a", b"1"), one("Resource", b"a/b")].concat();
        let metadata = Metadata::parse(&bytes).unwrap();
        assert_eq!(metadata.get("Socket-Type").unwrap(), "PULL");
        assert_eq!(metadata.get("x-A").unwrap(), "1");
        assert_eq!(
            metadata.iter().map(|(name, _)| name).collect::<Vec<_>>(),
            ["socket-type", "X-a", "Resource"]
        );
    }

    /// Rules: MQ-117.
    #[test]
    fn every_malformed_property_is_refused() {
        let good = one("Name", b"value");
        for cut in 1..good.len() {
            assert_eq!(Metadata::parse(&good[..cut]), Err(MetadataError::Truncated), "cut at {cut}");
        }
        let trailing = [good.as_slice(), b"\x01"].concat();
        assert_eq!(Metadata::parse(&trailing), Err(MetadataError::Truncated));
        assert_eq!(Metadata::parse(b"\x00\x00\x00\x00\x00"), Err(MetadataError::Name));
        for octet in (0..=0x20_u8).chain(0x7f..=0xff) {
            assert_eq!(Metadata::parse(&[1, octet, 0, 0, 0, 0]), Err(MetadataError::Name), "{octet:#x}");
        }
        for octet in 0x21..=0x7e_u8 {
            assert!(Metadata::parse(&[1, octet, 0, 0, 0, 0]).is_ok(), "{octet:#x}");
        }
        for len in [1_u32, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff] {
            let bytes = [&[1, b'n'], len.to_be_bytes().as_slice()].concat();
            assert_eq!(Metadata::parse(&bytes), Err(MetadataError::Truncated), "{len:#x}");
        }
    }

    /// Rules: MQ-118.
    #[test]
    fn repeats_and_floods_are_refused() {
        let twice = [one("Name", b""), one("nAME", b"")].concat();
        assert_eq!(Metadata::parse(&twice), Err(MetadataError::Repeated));
        let many = |count: usize| (0..count).flat_map(|n| one(&format!("n{n}"), b"")).collect::<Vec<_>>();
        assert!(Metadata::parse(&many(64)).is_ok());
        assert_eq!(Metadata::parse(&many(65)), Err(MetadataError::TooMany));
        assert!(Metadata::parse(&one("n", &vec![0; MAX_METADATA - 6])).is_ok());
        assert_eq!(Metadata::parse(&one("n", &vec![0; MAX_METADATA - 5])), Err(MetadataError::TooMany));
    }

    /// Rules: MQ-160.
    #[test]
    fn an_authenticator_cannot_override_what_the_connection_says() {
        let mut metadata = Metadata::parse(&one("Socket-Type", b"REQ")).unwrap();
        let extra =
            ["socket-type", "Routing-Id", "PEER-ADDRESS", "X-role"].map(|name| one(name, b"new")).concat();
        metadata.merge(Metadata::parse(&extra).unwrap());
        let all: Vec<_> = metadata.iter().map(|(name, value)| (name, value.as_ref())).collect();
        assert_eq!(all, [("Socket-Type", b"REQ".as_slice()), ("X-role", b"new")]);
    }

    /// Rules: MQ-125, MQ-126.
    #[test]
    fn identities_are_limited() {
        assert_eq!(check_identity(b"", false), Ok(()));
        assert_eq!(check_identity(&[1; 255], true), Ok(()));
        assert_eq!(check_identity(&[1; 256], false), Err(MetadataError::Identity));
        assert_eq!(check_identity(&[0, 1, 2, 3, 4], false), Err(MetadataError::Identity));
        assert_eq!(check_identity(&[0; 16], false), Ok(()));
        assert_eq!(check_identity(&[0; 16], true), Err(MetadataError::Identity));
    }

    proptest! {
        /// Rules: MQ-468.
        #[test]
        fn what_is_written_is_read(
            properties in prop::collection::vec(("[!-~]{1,255}", prop::collection::vec(any::<u8>(), 0..300)), 0..20)
        ) {
            let mut bytes = Vec::new();
            let mut expected: Vec<(&str, &[u8])> = Vec::new();
            for (name, value) in &properties {
                if expected.iter().all(|(known, _)| !known.eq_ignore_ascii_case(name)) {
                    put_property(&mut bytes, name, value);
                    expected.push((name, value));
                }
            }
            let metadata = Metadata::parse(&bytes).unwrap();
            let read: Vec<_> = metadata.iter().map(|(name, value)| (name, value.as_ref())).collect();
            prop_assert_eq!(read, expected);
        }

        #[test]
        fn any_octets_give_metadata_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Metadata::parse(&bytes);
        }
    }
}
