//! Every message: any value survives the wire, and no bytes make a decoder panic or disagree with the encoder.
#![allow(clippy::expect_used, clippy::panic, reason = "a test may fail")]

mod support;

use std::sync::LazyLock;

use proptest::prelude::*;
use tidegate_sbe::{AnyMessage, EncodeError, MessageHeader, Text, control};

/// Makes values of a struct. The build script implements it for all of them.
trait Arbitrary<'a> {
    fn draw(source: &mut Source<'a>) -> Self;
}

include!(concat!(env!("OUT_DIR"), "/arbitrary.rs"));

/// Where values come from: bytes that proptest chooses and shrinks. Zeros follow when they are used up.
struct Source<'a> {
    bytes: &'a [u8],
    ascii: &'a str,
}

impl<'a> Source<'a> {
    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        for byte in &mut out {
            if let Some((first, rest)) = self.bytes.split_first() {
                (*byte, self.bytes) = (*first, rest);
            }
        }
        out
    }

    fn number<T: Number>(&mut self) -> T {
        T::of(self.array())
    }

    fn optional<T: Number + PartialEq>(&mut self, nulls: &[T]) -> Option<T> {
        let is_some = self.array() != [0];
        let value = self.number();
        (is_some && !nulls.contains(&value)).then_some(value)
    }

    fn one_of<T: Copy>(&mut self, values: &[T]) -> T {
        let [index] = self.array();
        values[usize::from(index) % values.len()]
    }

    fn group<T: Arbitrary<'a>>(&mut self) -> Vec<T> {
        let [count] = self.array();
        (0..count % 4).map(|_| T::draw(self)).collect()
    }

    fn text(&mut self) -> Text<'a> {
        let [len] = self.array();
        let (text, rest) = self.ascii.split_at(self.ascii.len().min(usize::from(len % 32)));
        self.ascii = rest;
        Text::from(text)
    }

    fn data(&mut self, max: u32) -> &'a [u8] {
        let [len] = self.array();
        let len = self.bytes.len().min(usize::from(len)).min(max as usize);
        let (data, rest) = self.bytes.split_at(len);
        self.bytes = rest;
        data
    }
}

/// A number made of the first bytes of 16.
trait Number {
    fn of(bytes: [u8; 16]) -> Self;
}

macro_rules! numbers {
    ($($number:ty)*) => { $(
        impl Number for $number {
            fn of(bytes: [u8; 16]) -> Self {
                u128::from_le_bytes(bytes) as $number
            }
        }
    )* };
}

numbers!(u8 u16 u32 u64 i8 i16 i32 i64);

/// A message of the kind that `which` selects.
fn draw<'a>(which: prop::sample::Index, source: &mut Source<'a>) -> AnyMessage<'a> {
    which.get(&draws())(source)
}

/// What must hold for bytes that were decoded: written again they give the same value, unless they hold a string that
/// may only be read.
fn stable(bytes: &[u8]) -> Result<(), TestCaseError> {
    let Ok(message) = AnyMessage::decode(bytes) else {
        return Ok(());
    };
    let _ = (message.to_json(), format!("{message:?}"));
    match message.to_vec() {
        Ok(again) => {
            prop_assert_eq!(AnyMessage::decode(&again), Ok(message));
        }
        Err(EncodeError::NotAscii { .. }) => prop_assert!(!bytes.is_ascii()),
        Err(other) => prop_assert!(false, "decoded but not encoded: {}", other),
    }
    Ok(())
}

static GOLDEN: LazyLock<Vec<Vec<u8>>> =
    LazyLock::new(|| support::files().into_iter().map(|(_, bytes)| bytes).collect());

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    /// Rules: TP-014, TP-015, TP-310.
    #[test]
    fn any_value_survives(which in any::<prop::sample::Index>(), bytes in prop::collection::vec(any::<u8>(), 0..600), ascii in "[ -~]{0,200}") {
        let message = draw(which, &mut Source { bytes: &bytes, ascii: &ascii });
        let encoded = message.to_vec().expect("a value that can be written");
        prop_assert_eq!(encoded.len(), message.encoded_len());
        prop_assert_eq!(MessageHeader::peek(&encoded).map(|header| header.template_id), Some(message.template_id()));
        prop_assert_eq!(AnyMessage::decode(&encoded), Ok(message));
    }

    /// Rules: TP-012.
    #[test]
    fn any_bytes_are_safe(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        stable(&bytes)?;
        let _ = control::ShmRegionSuperblock::decode_body(&bytes);
        let _ = control::SlotHeader::decode_body(&bytes);
        let _ = control::TensorHeader::decode_body(&bytes);
    }

    /// Any bytes behind the header of a real message.
    ///
    /// Rules: TP-012.
    #[test]
    fn any_body_is_safe(which in any::<prop::sample::Index>(), body in prop::collection::vec(prop_oneof![0..4u8, any::<u8>()], 0..300)) {
        let message = draw(which, &mut Source { bytes: &[], ascii: "" }).to_vec().expect("a message of zeros");
        let mut bytes = message[..MessageHeader::LEN].to_vec();
        bytes.extend_from_slice(&body);
        stable(&bytes)?;
    }

    /// Rules: TP-012, TP-022.
    #[test]
    fn changed_golden_messages_are_safe(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        len in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = which.get(&GOLDEN).clone();
        for (at, byte) in changes {
            *at.get_mut(&mut bytes) = byte;
        }
        bytes.truncate(len.map_or(usize::MAX, |len| len.index(bytes.len())));
        stable(&bytes)?;
    }
}

/// Rules: TP-012, TP-022.
#[test]
fn every_single_byte_of_the_golden_messages_may_change() {
    for golden in GOLDEN.iter() {
        for at in 0..golden.len() {
            for change in [0x01, 0x02, 0x04, 0x80, 0xff] {
                let mut bytes = golden.clone();
                bytes[at] ^= change;
                stable(&bytes).expect("stable");
            }
        }
    }
}

/// The random values are of every message there is.
#[test]
fn all_messages_are_drawn() {
    let draw = |draw: fn(&mut Source<'static>) -> AnyMessage<'static>| {
        let message = draw(&mut Source { bytes: &[], ascii: "" });
        (message.schema().id, message.template_id())
    };
    let drawn: Vec<(u16, u16)> = draws().into_iter().map(draw).collect();
    let control = (1..=13).chain(50..=52).map(|template| (900, template));
    let driver = (1..=8).map(|template| (901, template));
    let others = [(902, 1), (903, 1), (903, 2), (903, 3), (903, 4), (904, 1), (910, 1), (910, 2)];
    assert_eq!(drawn, control.chain(driver).chain(others).collect::<Vec<_>>());
}
