//! Enums on the wire, and fields that carry values outside them.

use core::fmt;

/// An enum of a schema.
pub trait WireEnum: Copy + Eq + fmt::Debug + 'static {
    /// Integer on the wire.
    type Raw: Copy + Eq + fmt::Debug + fmt::Display + Into<i64>;

    /// The listed value of `raw`, if there is one.
    fn from_raw(raw: Self::Raw) -> Option<Self>;

    /// The integer on the wire.
    fn raw(self) -> Self::Raw;

    /// Name in the schema, upper case.
    fn name(self) -> &'static str;
}

/// Value of a field that must be answered, obeyed or judged later even if its value is not listed (exceptions of
/// TP-016). Make one with [`from_raw`](Self::from_raw) or `From`, so that a listed value is always `Listed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open<E: WireEnum> {
    /// A value of the enum.
    Listed(E),
    /// Any other integer.
    Unlisted(E::Raw),
}

impl<E: WireEnum> Open<E> {
    /// Sorts `raw` into listed and unlisted.
    #[inline]
    pub fn from_raw(raw: E::Raw) -> Self {
        E::from_raw(raw).map_or(Self::Unlisted(raw), Self::Listed)
    }

    /// The integer on the wire.
    #[inline]
    pub fn raw(self) -> E::Raw {
        match self {
            Self::Listed(value) => value.raw(),
            Self::Unlisted(raw) => raw,
        }
    }

    /// The value, if it is listed.
    #[inline]
    pub fn listed(self) -> Option<E> {
        match self {
            Self::Listed(value) => Some(value),
            Self::Unlisted(_) => None,
        }
    }
}

impl<E: WireEnum> From<E> for Open<E> {
    #[inline]
    fn from(value: E) -> Self {
        Self::Listed(value)
    }
}

/// The name, or the integer if it has none.
impl<E: WireEnum> fmt::Display for Open<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listed(value) => f.write_str(value.name()),
            Self::Unlisted(raw) => raw.fmt(f),
        }
    }
}
