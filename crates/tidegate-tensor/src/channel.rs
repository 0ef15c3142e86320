//! Aeron channel strings, as far as the tensor pool has to understand them.
//!
//! ```text
//! channel = "aeron:" ( "ipc" / "udp" ) [ "?" key "=" value *( "|" key "=" value ) ]
//! ```
//!
//! The media driver owns the meaning of the parameters. Two of them matter here: all shared publications on one IPC
//! stream must agree on `term-length` and `mtu` where they state them (TP-487), so both are parsed, can be compared and
//! can be taken out (TP-488).

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Longest channel that is accepted: what the Aeron C client can hold.
pub const MAX_LEN: usize = 4095;

const TERM_LENGTH_KEY: &str = "term-length";
const MTU_KEY: &str = "mtu";

/// A syntactically valid Aeron channel of printable ASCII, kept as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Channel {
    text: String,
    media: Media,
    term_length: Option<u64>,
    mtu: Option<u64>,
}

/// The transport a channel uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Media {
    /// Shared memory of one media driver.
    Ipc,
    /// UDP, unicast or multicast.
    Udp,
}

impl Channel {
    /// The one channel of all our IPC streams unless configured otherwise (TP-487).
    pub const DEFAULT: &'static str = "aeron:ipc?term-length=4m";

    /// Parses a channel.
    ///
    /// # Errors
    /// [`ChannelError`] names the part that is wrong.
    pub fn parse(text: &str) -> Result<Self, ChannelError> {
        if text.is_empty() {
            return Err(ChannelError::Empty);
        }
        if text.len() > MAX_LEN {
            return Err(ChannelError::TooLong { len: text.len() });
        }
        if let Some((offset, byte)) = text.bytes().enumerate().find(|(_, byte)| !is_printable(*byte)) {
            return Err(ChannelError::Byte { byte, offset });
        }
        let (media, parameters) = match text.split_once('?') {
            Some((media, parameters)) => (media, Some(parameters)),
            None => (text, None),
        };
        let media = match media {
            "aeron:ipc" => Media::Ipc,
            "aeron:udp" => Media::Udp,
            other => return Err(ChannelError::Media { found: other.to_owned() }),
        };
        check_parameters(parameters)?;

        let mut channel = Self { text: text.to_owned(), media, term_length: None, mtu: None };
        channel.term_length = channel.size_parameter(TERM_LENGTH_KEY)?;
        channel.mtu = channel.size_parameter(MTU_KEY)?;
        Ok(channel)
    }

    /// The channel as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The transport.
    #[must_use]
    pub const fn media(&self) -> Media {
        self.media
    }

    /// Whether the channel stays on this host.
    #[must_use]
    pub const fn is_ipc(&self) -> bool {
        matches!(self.media, Media::Ipc)
    }

    /// The value of a parameter as it was written.
    #[must_use]
    pub fn parameter(&self, key: &str) -> Option<&str> {
        self.parameters().find_map(|(found, value)| (found == key).then_some(value))
    }

    /// `term-length` in bytes, when stated.
    #[must_use]
    pub const fn term_length(&self) -> Option<u64> {
        self.term_length
    }

    /// `mtu` in bytes, when stated.
    #[must_use]
    pub const fn mtu(&self) -> Option<u64> {
        self.mtu
    }

    /// The same channel without `term-length` and `mtu`: it joins whatever publication exists (TP-488).
    #[must_use]
    pub fn without_term_length_and_mtu(&self) -> Self {
        let mut text = match self.media {
            Media::Ipc => String::from("aeron:ipc"),
            Media::Udp => String::from("aeron:udp"),
        };
        let kept = self.parameters().filter(|(key, _)| *key != TERM_LENGTH_KEY && *key != MTU_KEY);
        for (index, (key, value)) in kept.enumerate() {
            text.push(if index == 0 { '?' } else { '|' });
            text.push_str(key);
            text.push('=');
            text.push_str(value);
        }
        Self { text, media: self.media, term_length: None, mtu: None }
    }

    /// The same channel for a subscription that does not hold publishers up when it is not read: it is disconnected for a
    /// while instead (TP-001). As written, where the channel states its `tether` itself.
    #[must_use]
    pub fn untethered(&self) -> Self {
        let mut channel = self.clone();
        if self.parameter("tether").is_none() {
            channel.text.push(if self.text.contains('?') { '|' } else { '?' });
            channel.text.push_str("tether=false");
        }
        channel
    }

    /// Whether the media driver would refuse a shared IPC publication of `other` beside one of `self` on one stream id
    /// (TP-487). Only parameters written in both channels are compared, and by value: `4m` equals `4194304`.
    #[must_use]
    pub fn conflicts_with(&self, other: &Self) -> Option<Clash> {
        if !self.is_ipc() || !other.is_ipc() {
            return None;
        }
        let clash = |parameter, first: Option<u64>, second: Option<u64>| match (first, second) {
            (Some(first), Some(second)) if first != second => Some(Clash { parameter, first, second }),
            _ => None,
        };
        clash(TERM_LENGTH_KEY, self.term_length, other.term_length)
            .or_else(|| clash(MTU_KEY, self.mtu, other.mtu))
    }

    fn parameters(&self) -> impl Iterator<Item = (&str, &str)> {
        let parameters = self.text.split_once('?').map(|(_, parameters)| parameters);
        parameters.into_iter().flat_map(|list| list.split('|')).filter_map(|one| one.split_once('='))
    }

    fn size_parameter(&self, key: &'static str) -> Result<Option<u64>, ChannelError> {
        self.parameter(key)
            .map(|value| {
                parse_size(value)
                    .ok_or_else(|| ChannelError::Size { parameter: key, found: value.to_owned() })
            })
            .transpose()
    }
}

impl Default for Channel {
    fn default() -> Self {
        Self { text: Self::DEFAULT.to_owned(), media: Media::Ipc, term_length: Some(4 << 20), mtu: None }
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Channel {
    type Err = ChannelError;

    fn from_str(text: &str) -> Result<Self, ChannelError> {
        Self::parse(text)
    }
}

/// Two IPC channels of one stream id that cannot both be published on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clash {
    /// `term-length` or `mtu`.
    pub parameter: &'static str,
    /// Bytes stated by the first channel.
    pub first: u64,
    /// Bytes stated by the second channel.
    pub second: u64,
}

impl fmt::Display for Clash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={} against {}={}", self.parameter, self.first, self.parameter, self.second)
    }
}

/// Why a channel string was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// The string is empty.
    #[error("channel is empty; the default is `{}`", Channel::DEFAULT)]
    Empty,
    /// Longer than [`MAX_LEN`].
    #[error("channel has {len} bytes, at most {MAX_LEN} are allowed")]
    TooLong {
        /// Length in bytes.
        len: usize,
    },
    /// A byte that is not printable ASCII (TP-018).
    #[error("channel has byte {byte:#04x} at {offset}; only printable ASCII is allowed")]
    Byte {
        /// The byte.
        byte: u8,
        /// Its place in the string.
        offset: usize,
    },
    /// Neither IPC nor UDP.
    #[error("channel must start with `aeron:ipc` or `aeron:udp`, found `{found}`")]
    Media {
        /// What stands before the first `?`.
        found: String,
    },
    /// A parameter that is not `key=value`.
    #[error("channel parameter must be `key=value`, found `{found}`")]
    Parameter {
        /// The parameter.
        found: String,
    },
    /// A parameter written twice: which one counts differs between Aeron's parsers.
    #[error("channel states `{key}` twice")]
    Duplicate {
        /// The key.
        key: String,
    },
    /// A size that is not a number with an optional `k`, `m` or `g`.
    #[error("channel parameter `{parameter}` must be bytes with an optional k, m or g, found `{found}`")]
    Size {
        /// The key.
        parameter: &'static str,
        /// The value.
        found: String,
    },
}

fn check_parameters(parameters: Option<&str>) -> Result<(), ChannelError> {
    let Some(parameters) = parameters else { return Ok(()) };
    let mut keys: Vec<&str> = Vec::new();
    for parameter in parameters.split('|') {
        let key = match parameter.split_once('=') {
            Some((key, _)) if !key.is_empty() => key,
            _ => return Err(ChannelError::Parameter { found: parameter.to_owned() }),
        };
        if keys.contains(&key) {
            return Err(ChannelError::Duplicate { key: key.to_owned() });
        }
        keys.push(key);
    }
    Ok(())
}

/// Aeron's notation of sizes: decimal bytes, or with a suffix in either case.
fn parse_size(text: &str) -> Option<u64> {
    let (digits, unit) = match text.as_bytes().last()? {
        b'k' | b'K' => (text.get(..text.len() - 1)?, 1 << 10),
        b'm' | b'M' => (text.get(..text.len() - 1)?, 1 << 20),
        b'g' | b'G' => (text.get(..text.len() - 1)?, 1 << 30),
        _ => (text, 1_u64),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

const fn is_printable(byte: u8) -> bool {
    byte.is_ascii_graphic() || byte == b' '
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn channel(text: &str) -> Channel {
        Channel::parse(text).unwrap()
    }

    #[test]
    fn finds_media_and_parameters() {
        let udp = channel("aeron:udp?endpoint=localhost:4000|mtu=8k|term-length=1G|alias=a b");
        assert_eq!(udp.media(), Media::Udp);
        assert_eq!((udp.term_length(), udp.mtu()), (Some(1 << 30), Some(8192)));
        assert_eq!(udp.parameter("endpoint"), Some("localhost:4000"));
        assert_eq!(udp.parameter("end"), None);
        assert_eq!(udp.to_string(), udp.as_str());
        assert!(channel("aeron:ipc").is_ipc());
        assert_eq!(Channel::default(), channel(Channel::DEFAULT));
    }

    /// Rules: TP-018.
    #[test]
    fn refuses_what_is_no_channel() {
        let error = |text: &str| Channel::parse(text).unwrap_err();
        assert_eq!(error(""), ChannelError::Empty);
        assert_eq!(error("aeron:ipc\0"), ChannelError::Byte { byte: 0, offset: 9 });
        assert_eq!(error("aeron:ipc?alias=\n"), ChannelError::Byte { byte: b'\n', offset: 16 });
        assert_eq!(error("aeron:ipc?alias=\u{e9}"), ChannelError::Byte { byte: 0xc3, offset: 16 });
        assert!(matches!(error("aeron:tcp?x=1"), ChannelError::Media { .. }));
        assert!(matches!(error("ipc"), ChannelError::Media { .. }));
        for text in ["aeron:ipc?", "aeron:ipc?alias", "aeron:ipc?=1", "aeron:ipc?mtu=1|"] {
            assert!(matches!(error(text), ChannelError::Parameter { .. }), "{text}");
        }
        assert_eq!(error("aeron:ipc?mtu=1|mtu=1"), ChannelError::Duplicate { key: "mtu".to_owned() });
        for size in ["", "k", "4q", "-4k", "+4k", "4 m", "18446744073709551616", "17179869184g"] {
            let found = error(&format!("aeron:ipc?term-length={size}"));
            assert_eq!(found, ChannelError::Size { parameter: "term-length", found: size.to_owned() });
        }
        assert_eq!(
            error(&format!("aeron:ipc?alias={}", "a".repeat(4080))),
            ChannelError::TooLong { len: 4096 }
        );
    }

    /// Rules: TP-487.
    #[test]
    fn only_values_stated_twice_clash() {
        let ours = Channel::default();
        let clash = |text: &str| ours.conflicts_with(&channel(text));
        assert_eq!(clash("aeron:ipc"), None);
        assert_eq!(clash("aeron:ipc?term-length=4194304|alias=x"), None);
        assert_eq!(clash("aeron:ipc?mtu=4096"), None);
        let found = clash("aeron:ipc?term-length=1m").unwrap();
        assert_eq!(found, Clash { parameter: "term-length", first: 4 << 20, second: 1 << 20 });
        assert_eq!(clash("aeron:udp?endpoint=h:1|term-length=1m"), None);

        let small = channel("aeron:ipc?mtu=4k");
        let large = channel("aeron:ipc?mtu=8k|term-length=4m");
        assert_eq!(small.conflicts_with(&large), Some(Clash { parameter: "mtu", first: 4096, second: 8192 }));
    }

    /// Rules: TP-488.
    #[test]
    fn takes_out_the_two_parameters_only() {
        let strip = |text: &str| channel(text).without_term_length_and_mtu();
        assert_eq!(strip("aeron:ipc?term-length=4m"), channel("aeron:ipc"));
        assert_eq!(
            strip("aeron:ipc?alias=a|term-length=4m|mtu=4k|sparse=true"),
            channel("aeron:ipc?alias=a|sparse=true")
        );
        assert_eq!(strip("aeron:udp?mtu=4k|endpoint=h:1"), channel("aeron:udp?endpoint=h:1"));
        assert_eq!(Channel::default().conflicts_with(&strip("aeron:ipc?term-length=1m")), None);
    }

    proptest! {
        #[test]
        fn arbitrary_text_is_accepted_or_refused(
            text in ".{0,60}",
            parameters in "(term-length=|mtu=|alias=|4m|\\||=|1){0,8}",
        ) {
            let _ = Channel::parse(&text);
            if let Ok(found) = Channel::parse(&format!("aeron:ipc?{parameters}")) {
                let stripped = found.without_term_length_and_mtu();
                prop_assert_eq!(Channel::parse(stripped.as_str()).unwrap(), stripped.clone());
                prop_assert!(found.conflicts_with(&stripped).is_none());
                prop_assert!(found.conflicts_with(&found).is_none());
            }
        }
    }
}
