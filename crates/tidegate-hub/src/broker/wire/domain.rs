//! How names and numbers of the whole hub stand in messages (DH-187).

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::field::{Fixed, U64};
use crate::{
    identity::ProcessKey,
    layout::{BlockUuid, ChannelName},
    schema::{SchemaHash, SchemaVersion},
};

/// As it is.
impl Serialize for ChannelName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ChannelName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// 32 hexadecimal digits, not all of them 0.
impl Serialize for BlockUuid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Fixed(*self.as_bytes()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for BlockUuid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(Fixed::deserialize(deserializer)?.0).map_err(de::Error::custom)
    }
}

/// 64 hexadecimal digits; zeros for bytes without a type.
impl Serialize for SchemaHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Fixed(*self.as_bytes()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SchemaHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Fixed::deserialize(deserializer).map(|hash| Self::from_bytes(hash.0))
    }
}

/// `major.minor`.
impl Serialize for SchemaVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SchemaVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Its word; 0 is nobody.
impl Serialize for ProcessKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        U64(self.word()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ProcessKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = U64::deserialize(deserializer)?.0;
        Self::from_word(word).ok_or_else(|| de::Error::custom("a process key must not be 0, which is nobody"))
    }
}
