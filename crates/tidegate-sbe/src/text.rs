//! Strings of messages.

use core::fmt::{self, Write};

/// String of a message: 7-bit ASCII when we write it, any bytes when others did (TP-018).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Text<'a>(&'a [u8]);

impl<'a> Text<'a> {
    /// A string of any bytes. Encoders refuse it unless it is 7-bit ASCII.
    #[inline]
    pub const fn from_bytes(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The bytes as they are in the message.
    #[inline]
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// The string, if it is printable ASCII (0x20 to 0x7e): fit for URIs, channels and tokens.
    pub fn as_str(self) -> Option<&'a str> {
        let printable = self.0.iter().all(|byte| matches!(byte, b' '..=b'~'));
        if printable { core::str::from_utf8(self.0).ok() } else { None }
    }

    /// Bytes of the string.
    #[inline]
    pub const fn len(self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.0.is_empty()
    }
}

impl<'a> From<&'a str> for Text<'a> {
    #[inline]
    fn from(text: &'a str) -> Self {
        Self(text.as_bytes())
    }
}

/// Printable ASCII as it is, a backslash doubled, every other byte as `\xNN`: no two strings look alike, and nothing
/// reaches a terminal that it could obey.
impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for &byte in self.0 {
            match byte {
                b'\\' => f.write_str("\\\\")?,
                b' '..=b'~' => f.write_char(char::from(byte))?,
                _ => write!(f, "\\x{byte:02x}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rules: TP-018.
    #[test]
    fn only_printable_ascii_is_a_str() {
        assert_eq!(Text::from(" ~").as_str(), Some(" ~"));
        for bad in [b"a\0", b"a\x1f", b"a\x7f", b"a\x80"] {
            assert_eq!(Text::from_bytes(bad).as_str(), None, "{bad:?}");
        }
    }

    #[test]
    fn display_escapes_without_loss() {
        assert_eq!(Text::from_bytes(b"a\\x1b \x1b\xff\n").to_string(), r"a\\x1b \x1b\xff\x0a");
        assert_eq!(format!("{:?}", Text::from("cam")), "\"cam\"");
    }
}
