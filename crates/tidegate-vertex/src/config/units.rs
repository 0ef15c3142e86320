//! Sizes and durations with units: `"16MiB"`, `"200ms"`.

use serde::{Deserialize, Deserializer, de};
use tidegate_shm::clock::Nanos;

/// A number of bytes: digits and `B`, `KiB`, `MiB` or `GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bytes(pub u64);

/// A length of time: digits and `ms`, `s`, `m` or `h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time(pub Nanos);

/// By how much each delay is longer than the one before: a number from 1 to 100.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Factor(pub f64);

/// A share: a number from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share(pub f64);

impl<'de> Deserialize<'de> for Factor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        within(f64::deserialize(deserializer)?, 1.0, 100.0).map(Self)
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        within(f64::deserialize(deserializer)?, 0.0, 1.0).map(Self)
    }
}

/// NaN is in no range.
fn within<E: de::Error>(number: f64, least: f64, most: f64) -> Result<f64, E> {
    match (least..=most).contains(&number) {
        true => Ok(number),
        false => Err(E::custom(format!("{number} is not a number from {least} to {most}"))),
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("B", 1)];
        let text = String::deserialize(deserializer)?;
        parse(&text, &units)
            .map(Self)
            .ok_or_else(|| unit_error(&text, "a size like \"16MiB\" (B, KiB, MiB, GiB)"))
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let units =
            [("ms", 1_000_000), ("s", 1_000_000_000), ("m", 60_000_000_000), ("h", 3_600_000_000_000)];
        let text = String::deserialize(deserializer)?;
        let nanos = parse(&text, &units);
        nanos
            .map(|nanos| Self(Nanos(nanos)))
            .ok_or_else(|| unit_error(&text, "a time like \"200ms\" (ms, s, m, h)"))
    }
}

/// The first unit that the text ends with counts, so longer ones stand before their ends.
fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (digits, factor) =
        units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)))?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

fn unit_error<E: de::Error>(found: &str, expected: &str) -> E {
    E::custom(format!("{found:?} is not {expected}"))
}
