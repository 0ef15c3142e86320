//! Numbers of 64 bits in JSON: as strings, since many readers have only 53 bits (DH-265).

use serde::Serializer;

/// Writes the number as a string of decimal digits.
pub(crate) fn as_text<S: Serializer>(number: &u64, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(number)
}

/// The same for a number that may be missing, which is `null`.
pub(crate) fn option_as_text<S: Serializer>(number: &Option<u64>, to: S) -> Result<S::Ok, S::Error> {
    match number {
        Some(number) => to.collect_str(number),
        None => to.serialize_none(),
    }
}
