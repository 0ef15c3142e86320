//! Names of channels and of the files of their blocks (3.8).

use std::fmt;

use super::BlockUuid;

/// Name of a channel: `[a-z0-9][a-z0-9._-]{0,126}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelName(String);

impl ChannelName {
    /// Checks a name.
    ///
    /// # Errors
    /// It is empty, longer than 127 characters, or has a character that is not allowed where it stands.
    pub fn new(name: impl Into<String>) -> Result<Self, ChannelNameError> {
        let name = name.into();
        let begins =
            name.bytes().next().is_some_and(|first| is_plain(first) && !matches!(first, b'_' | b'-'));
        let allowed = name.bytes().all(|byte| is_plain(byte) || byte == b'.');
        if begins && allowed && name.len() <= MAX_LEN {
            return Ok(Self(name));
        }
        Err(ChannelNameError)
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Name of the file of its block `uuid`. Since it has a random part, nobody can guess it, and a producer that is
    /// started again does not meet its own leftovers (DH-020).
    pub fn file_name(&self, uuid: &BlockUuid) -> String {
        let [a, b, c, d, ..] = *uuid.as_bytes();
        format!("{}{a:02x}{b:02x}{c:02x}{d:02x}", self.file_name_start())
    }

    /// What the names of the files of its blocks begin with, before 8 hexadecimal digits. Other channels may share it.
    pub fn file_name_start(&self) -> String {
        let channel = self.0.chars().take(MAX_IN_FILE_NAME).map(|c| if c == '.' { '_' } else { c });
        format!("tidegate_{}_", channel.collect::<String>())
    }
}

impl fmt::Display for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that cannot name a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a channel name; use 1 to 127 characters of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit"
)]
pub struct ChannelNameError;

/// Characters that a name of a channel has in common with the name of a file.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-')
}

const MAX_LEN: usize = 127;
const MAX_IN_FILE_NAME: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_accepted_and_refused_by_the_rule() {
        for name in ["a", "0", "camera.left_2-x", &"a".repeat(127)] {
            assert_eq!(ChannelName::new(name).unwrap().as_str(), name);
        }
        for name in ["", "A", ".a", "_a", "-a", "a b", "a/b", "ä", "a\0", &"a".repeat(128)] {
            assert_eq!(ChannelName::new(name), Err(ChannelNameError), "{name:?}");
        }
    }

    /// Rules: DH-020.
    #[test]
    fn file_names_have_the_channel_and_the_first_half_of_the_first_word_of_the_uuid() {
        let uuid =
            BlockUuid::new([0xab, 0xcd, 0x01, 0x02, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]).unwrap();
        let name = |channel: &str| ChannelName::new(channel).unwrap().file_name(&uuid);
        assert_eq!(name("camera.left-1_x"), "tidegate_camera_left-1_x_abcd0102");
        assert_eq!(name(&"a".repeat(127)), format!("tidegate_{}_abcd0102", "a".repeat(64)));
    }
}
