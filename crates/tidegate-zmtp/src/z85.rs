//! Z85: binary data as printable text, as CURVE keys are written in configuration files.
//!
//! Four octets, read as one big-endian number, become five digits to the base 85, the most significant first:
//!
//! ```text
//! 86 4F D2 6F B5 59 F7 5B  <->  "Hello" "World"
//! ```

/// The digits in the order of their value.
const DIGITS: &[u8; 85] =
    b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";

/// Value of each octet as a digit, or [`NO_DIGIT`].
const VALUES: [u8; 256] = values();

const NO_DIGIT: u8 = 0xFF;

/// Why a text or binary string has no counterpart in Z85.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Z85Error {
    /// Binary data of a length that is not a multiple of four.
    #[error("{len} octets cannot be written in Z85; the number must be a multiple of 4")]
    BinaryLength {
        /// Octets given.
        len: usize,
    },
    /// Text of a length that is not a multiple of five.
    #[error("a Z85 text of {len} characters is incomplete; the number must be a multiple of 5")]
    TextLength {
        /// Characters given.
        len: usize,
    },
    /// A character outside the alphabet.
    #[error(
        "the octet {octet:#04x} at position {position} is no Z85 digit; look for quotes, blanks or a line end"
    )]
    Digit {
        /// The octet.
        octet: u8,
        /// Where it stands, from zero.
        position: usize,
    },
    /// Five digits of more than 2^32 - 1.
    #[error("the five digits from position {position} exceed 32 bits; the text is damaged")]
    Overflow {
        /// Where the first of the five stands, from zero.
        position: usize,
    },
    /// Room for another number of octets than the text has.
    #[error("the text stands for {found} octets, and {expected} are expected")]
    Room {
        /// Octets that there is room for.
        expected: usize,
        /// Octets that the text stands for.
        found: usize,
    },
}

/// Writes `binary` as text.
///
/// # Errors
///
/// [`Z85Error::BinaryLength`].
pub fn encode(binary: &[u8]) -> Result<String, Z85Error> {
    let (groups, rest) = binary.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(Z85Error::BinaryLength { len: binary.len() });
    }
    let mut text = String::with_capacity(groups.len() * 5);
    for group in groups {
        let number = u32::from_be_bytes(*group);
        for weight in [85u32.pow(4), 85u32.pow(3), 85u32.pow(2), 85, 1] {
            text.push(char::from(DIGITS[(number / weight % 85) as usize]));
        }
    }
    Ok(text)
}

/// Reads `text` as binary data.
///
/// # Errors
///
/// Every [`Z85Error`] of a text.
pub fn decode(text: impl AsRef<[u8]>) -> Result<Vec<u8>, Z85Error> {
    let text = text.as_ref();
    let mut binary = vec![0; text.len() / 5 * 4];
    decode_into(text, &mut binary)?;
    Ok(binary)
}

/// Reads `text` into `binary`, which is filled completely; nothing is copied elsewhere, so that a secret stays where the
/// caller can wipe it. After an error the contents of `binary` are unspecified.
///
/// # Errors
///
/// Every [`Z85Error`] of a text.
pub fn decode_into(text: &[u8], binary: &mut [u8]) -> Result<(), Z85Error> {
    let (groups, rest) = text.as_chunks::<5>();
    if !rest.is_empty() {
        return Err(Z85Error::TextLength { len: text.len() });
    }
    let found = groups.len() * 4;
    let (places, rest) = binary.as_chunks_mut::<4>();
    if places.len() != groups.len() || !rest.is_empty() {
        return Err(Z85Error::Room { expected: places.len() * 4 + rest.len(), found });
    }
    for (index, (group, place)) in groups.iter().zip(places).enumerate() {
        let position = index * 5;
        let mut number = 0u64;
        for (offset, &octet) in group.iter().enumerate() {
            let value = VALUES[usize::from(octet)];
            if value == NO_DIGIT {
                return Err(Z85Error::Digit { octet, position: position + offset });
            }
            number = number * 85 + u64::from(value);
        }
        *place = u32::try_from(number).map_err(|_| Z85Error::Overflow { position })?.to_be_bytes();
    }
    Ok(())
}

const fn values() -> [u8; 256] {
    let mut values = [NO_DIGIT; 256];
    let mut value = 0;
    while value < DIGITS.len() {
        values[DIGITS[value] as usize] = value as u8;
        value += 1;
    }
    values
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The example of the specification of Z85 and keys of 32 octets.
    ///
    /// libzmq: test_base85.
    #[test]
    fn known_texts() {
        let hello = [0x86, 0x4F, 0xD2, 0x6F, 0xB5, 0x59, 0xF7, 0x5B];
        assert_eq!(encode(&hello).unwrap(), "HelloWorld");
        assert_eq!(decode("HelloWorld").unwrap(), hello);
        assert_eq!(encode(&[]).unwrap(), "");
        assert_eq!(decode("").unwrap(), []);
        assert_eq!(encode(&[0; 4]).unwrap(), "00000");
        assert_eq!(encode(&[0xFF; 4]).unwrap(), "%nSc0");
        assert_eq!(decode("%nSc0").unwrap(), [0xFF; 4]);
    }

    /// libzmq: test_base85.
    #[test]
    fn lengths_without_counterpart_are_refused() {
        for len in [1, 2, 3, 5, 7, 31, 33] {
            assert_eq!(encode(&vec![0; len]), Err(Z85Error::BinaryLength { len }));
        }
        for len in [1, 2, 3, 4, 6, 9, 39, 41] {
            assert_eq!(decode("0".repeat(len)), Err(Z85Error::TextLength { len }));
        }
        let mut room = [0; 8];
        assert_eq!(decode_into(b"00000", &mut room), Err(Z85Error::Room { expected: 8, found: 4 }));
        assert_eq!(decode_into(b"00000", &mut room[..5]), Err(Z85Error::Room { expected: 5, found: 4 }));
        assert_eq!(decode_into(b"00000", &mut room[..3]), Err(Z85Error::Room { expected: 3, found: 4 }));
    }

    /// Every octet that is no digit is named with its position.
    ///
    /// libzmq: test_base85.
    #[test]
    fn other_characters_are_refused() {
        for octet in (0..=255u8).filter(|octet| !DIGITS.contains(octet)) {
            let mut text = *b"0000000000";
            text[7] = octet;
            assert_eq!(decode(text), Err(Z85Error::Digit { octet, position: 7 }));
        }
        assert_eq!(DIGITS.iter().collect::<std::collections::HashSet<_>>().len(), 85);
    }

    /// 2^32 is the first number that does not fit, five times the highest digit the last.
    ///
    /// libzmq: test_base85.
    #[test]
    fn groups_beyond_32_bits_are_refused() {
        assert_eq!(decode("00000%nSc1"), Err(Z85Error::Overflow { position: 5 }));
        assert_eq!(decode("#####"), Err(Z85Error::Overflow { position: 0 }));
    }

    proptest! {
        #[test]
        fn decoding_undoes_encoding(groups in prop::collection::vec(any::<[u8; 4]>(), 0..20)) {
            let binary = groups.concat();
            prop_assert_eq!(decode(encode(&binary).unwrap()).unwrap(), binary);
        }

        #[test]
        fn what_decodes_encodes_to_the_same_text(text in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(binary) = decode(&text) {
                prop_assert_eq!(encode(&binary).unwrap().into_bytes(), text);
            }
        }
    }
}
