//! The half of the codecs that is the same for all messages. Generated code calls it and adds names, offsets and order.
//!
//! [`Reader`] and [`Writer`] go through a message from front to back. Blocks are arrays of known length, and fields are
//! loaded and stored at constant offsets ([`load`], [`store`]): that they lie inside the block is checked when the code
//! is compiled. Everything else is checked when it runs, and nothing indexes a slice.

use crate::{DecodeError, EncodeError, MessageHeader, SchemaInfo, Text, WireEnum};

/// Most entries of a group; 65535 is the null value of the count.
const MAX_GROUP: u16 = 65534;

/// A message, as the generated code describes it.
pub(crate) trait Codec<'a>: Sized {
    const NAME: &'static str;
    const HEADER: MessageHeader;

    /// Reads what follows the message header. `block` is the block length on the wire, not less than ours.
    fn read(reader: &mut Reader<'a>, block: u16) -> Result<Self, DecodeError>;

    /// Bytes that `write` writes.
    fn body_len(&self) -> usize;

    /// Writes what follows the message header.
    fn write(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError>;
}

/// Shape of a group.
pub(crate) struct GroupShape {
    pub(crate) name: &'static str,
    /// Block length of an entry.
    pub(crate) block: u16,
    /// Whether a longer block is refused.
    pub(crate) exact: bool,
    /// Fewest bytes of an entry after its block.
    pub(crate) tail: usize,
}

/// Decodes `fragment` if it is an `M`. The four gates of TP-007 come first, in its order.
#[inline]
pub(crate) fn decode<'a, M: Codec<'a>>(fragment: &'a [u8]) -> Result<M, DecodeError> {
    let (header, rest) = split_header(fragment)?;
    let MessageHeader { block_length, template_id, schema_id, version } = header;
    if schema_id != M::HEADER.schema_id {
        return Err(DecodeError::UnknownSchema { schema_id });
    }
    if template_id != M::HEADER.template_id {
        return Err(DecodeError::UnknownTemplate { schema_id, template_id });
    }
    if version != M::HEADER.version {
        return Err(DecodeError::UnsupportedVersion { message: M::NAME, version });
    }
    if block_length < M::HEADER.block_length {
        let expected = M::HEADER.block_length;
        return Err(DecodeError::BlockTooShort { message: M::NAME, expected, found: block_length });
    }
    M::read(&mut Reader { rest }, block_length)
}

/// Decodes an `M` that lies in shared memory without message header.
#[inline]
pub(crate) fn decode_body<'a, M: Codec<'a>>(body: &'a [u8]) -> Result<M, DecodeError> {
    M::read(&mut Reader { rest: body }, M::HEADER.block_length)
}

#[inline]
pub(crate) fn encoded_len<'a, M: Codec<'a>>(message: &M) -> usize {
    message.body_len().saturating_add(MessageHeader::LEN)
}

/// Encodes header and body; returns the bytes written.
#[inline]
pub(crate) fn encode<'a, M: Codec<'a>>(message: &M, out: &mut [u8]) -> Result<usize, EncodeError> {
    let needed = encoded_len(message);
    let mut writer = Writer::new(out, needed)?;
    let header = writer.block::<{ MessageHeader::LEN }>()?;
    store::<0, _, _>(header, M::HEADER.block_length.to_le_bytes());
    store::<2, _, _>(header, M::HEADER.template_id.to_le_bytes());
    store::<4, _, _>(header, M::HEADER.schema_id.to_le_bytes());
    store::<6, _, _>(header, M::HEADER.version.to_le_bytes());
    message.write(&mut writer)?;
    Ok(needed)
}

/// Encodes the body alone, as it lies in shared memory; returns the bytes written.
#[inline]
pub(crate) fn encode_body<'a, M: Codec<'a>>(message: &M, out: &mut [u8]) -> Result<usize, EncodeError> {
    let needed = message.body_len();
    message.write(&mut Writer::new(out, needed)?)?;
    Ok(needed)
}

pub(crate) fn to_vec<'a, M: Codec<'a>>(message: &M) -> Result<Vec<u8>, EncodeError> {
    let needed = encoded_len(message);
    let mut out = Vec::new();
    out.try_reserve_exact(needed).map_err(|_| EncodeError::OutOfMemory { needed })?;
    out.resize(needed, 0);
    encode(message, &mut out)?;
    Ok(out)
}

#[inline]
pub(crate) fn split_header(fragment: &[u8]) -> Result<(MessageHeader, &[u8]), DecodeError> {
    let Some((header, rest)) = fragment.split_first_chunk::<{ MessageHeader::LEN }>() else {
        return Err(DecodeError::TooShort { found: fragment.len() });
    };
    let header = MessageHeader {
        block_length: u16::from_le_bytes(load::<0, _, _>(header)),
        template_id: u16::from_le_bytes(load::<2, _, _>(header)),
        schema_id: u16::from_le_bytes(load::<4, _, _>(header)),
        version: u16::from_le_bytes(load::<6, _, _>(header)),
    };
    Ok((header, rest))
}

/// Template id of a fragment of `schema`.
#[inline]
pub(crate) fn template_id(fragment: &[u8], schema: &SchemaInfo) -> Result<u16, DecodeError> {
    let (header, _) = split_header(fragment)?;
    if header.schema_id != schema.id {
        return Err(DecodeError::UnknownSchema { schema_id: header.schema_id });
    }
    Ok(header.template_id)
}

/// The `N` bytes at offset `AT` of a block.
#[inline(always)]
pub(crate) fn load<const AT: usize, const N: usize, const BLOCK: usize>(block: &[u8; BLOCK]) -> [u8; N] {
    const { assert!(AT + N <= BLOCK, "field outside its block") };
    let mut bytes = [0; N];
    bytes.copy_from_slice(&block[AT..AT + N]);
    bytes
}

/// Puts `bytes` at offset `AT` of a block.
#[inline(always)]
pub(crate) fn store<const AT: usize, const N: usize, const BLOCK: usize>(
    block: &mut [u8; BLOCK],
    bytes: [u8; N],
) {
    const { assert!(AT + N <= BLOCK, "field outside its block") };
    block[AT..AT + N].copy_from_slice(&bytes);
}

/// `None` if `raw` is one of the values that mean "not provided" (TP-015).
#[inline]
pub(crate) fn provided<T: PartialEq, const N: usize>(raw: T, nulls: [T; N]) -> Option<T> {
    if nulls.contains(&raw) { None } else { Some(raw) }
}

/// What to write for an optional value: its null, of which the first is written, or the value if it is none (TP-014).
#[inline]
pub(crate) fn optional<T: Copy + PartialEq, const N: usize>(
    value: Option<T>,
    nulls: [T; N],
    field: &'static str,
) -> Result<T, EncodeError> {
    match value {
        Some(raw) if nulls.contains(&raw) => Err(EncodeError::NullValue { field }),
        Some(raw) => Ok(raw),
        None => nulls.first().copied().ok_or(EncodeError::NullValue { field }),
    }
}

/// A value of an enum (TP-016).
#[inline]
pub(crate) fn listed<E: WireEnum>(raw: E::Raw, field: &'static str) -> Result<E, DecodeError> {
    E::from_raw(raw).ok_or_else(|| DecodeError::InvalidEnum { field, value: raw.into() })
}

/// A Boolean (TP-017).
#[inline]
pub(crate) fn boolean(raw: u8, field: &'static str) -> Result<bool, DecodeError> {
    match raw {
        0 => Ok(false),
        1 => Ok(true),
        value => Err(DecodeError::InvalidBool { field, value }),
    }
}

/// A Boolean whose null is FALSE (TP-017).
#[inline]
pub(crate) fn boolean_or_null(raw: u8, field: &'static str) -> Result<bool, DecodeError> {
    if raw == u8::MAX { Ok(false) } else { boolean(raw, field) }
}

/// Bytes of a message or entry that consists of `parts`.
#[inline]
pub(crate) fn sum<const N: usize>(parts: [usize; N]) -> usize {
    parts.into_iter().fold(0, usize::saturating_add)
}

/// Bytes of variable data with its prefix.
#[inline]
pub(crate) fn data_len(bytes: &[u8]) -> usize {
    bytes.len().saturating_add(4)
}

/// Bytes of a group with its header.
pub(crate) fn group_len<T>(entries: &[T], len: impl Fn(&T) -> usize) -> usize {
    entries.iter().map(len).fold(4, usize::saturating_add)
}

/// Reads a message from front to back.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// The known `N` bytes of a block that has `on_wire` bytes; the excess is skipped (TP-011).
    #[inline]
    pub(crate) fn block<const N: usize>(
        &mut self,
        on_wire: u16,
        field: &'static str,
    ) -> Result<&'a [u8; N], DecodeError> {
        let bytes = self.take(usize::from(on_wire), field)?;
        bytes.first_chunk().ok_or(DecodeError::Truncated { field, needed: N, left: bytes.len() })
    }

    /// A group. The count is believed only after that many of the smallest possible entries were seen to be there
    /// (TP-022).
    pub(crate) fn group<T>(
        &mut self,
        shape: &GroupShape,
        mut entry: impl FnMut(&mut Self, u16) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let &GroupShape { name: group, block: expected, exact, tail } = shape;
        let header: &[u8; 4] = self.block(4, group)?;
        let found = u16::from_le_bytes(load::<0, _, _>(header));
        let count = u16::from_le_bytes(load::<2, _, _>(header));
        if found < expected {
            return Err(DecodeError::GroupBlockTooShort { group, expected, found });
        }
        if exact && found != expected {
            return Err(DecodeError::GroupBlockNotExact { group, expected, found });
        }
        if count > MAX_GROUP {
            return Err(DecodeError::GroupTooLong { group, found: count });
        }
        let needed = usize::from(count).saturating_mul(usize::from(found).saturating_add(tail));
        if needed > self.rest.len() {
            return Err(DecodeError::Truncated { field: group, needed, left: self.rest.len() });
        }
        let mut entries = Vec::with_capacity(usize::from(count));
        for _ in 0..count {
            entries.push(entry(self, found)?);
        }
        Ok(entries)
    }

    /// Variable data.
    pub(crate) fn data(&mut self, field: &'static str, max: u32) -> Result<&'a [u8], DecodeError> {
        let found = u32::from_le_bytes(*self.block(4, field)?);
        if found > max {
            return Err(DecodeError::DataTooLong { field, max, found });
        }
        self.take(usize::try_from(found).unwrap_or(usize::MAX), field)
    }

    /// The last variable data of a message, which some encoders leave out when it is empty (TP-013).
    pub(crate) fn last_data(&mut self, field: &'static str, max: u32) -> Result<&'a [u8], DecodeError> {
        if self.rest.is_empty() { Ok(&[]) } else { self.data(field, max) }
    }

    pub(crate) fn text(&mut self, field: &'static str, max: u32) -> Result<Text<'a>, DecodeError> {
        self.data(field, max).map(Text::from_bytes)
    }

    pub(crate) fn last_text(&mut self, field: &'static str, max: u32) -> Result<Text<'a>, DecodeError> {
        self.last_data(field, max).map(Text::from_bytes)
    }

    #[inline]
    fn take(&mut self, needed: usize, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let Some((taken, rest)) = self.rest.split_at_checked(needed) else {
            return Err(DecodeError::Truncated { field, needed, left: self.rest.len() });
        };
        self.rest = rest;
        Ok(taken)
    }
}

/// Writes a message from front to back.
pub(crate) struct Writer<'o> {
    rest: &'o mut [u8],
}

impl<'o> Writer<'o> {
    /// Writes into the first `needed` bytes of `out`.
    #[inline]
    fn new(out: &'o mut [u8], needed: usize) -> Result<Self, EncodeError> {
        let found = out.len();
        let rest = out.get_mut(..needed).ok_or(EncodeError::BufferTooSmall { needed, found })?;
        Ok(Self { rest })
    }

    /// The next block, with whatever the buffer held before.
    #[inline]
    pub(crate) fn block<const N: usize>(&mut self) -> Result<&'o mut [u8; N], EncodeError> {
        let found = self.rest.len();
        let too_small = EncodeError::BufferTooSmall { needed: N, found };
        let (block, rest) = core::mem::take(&mut self.rest).split_first_chunk_mut().ok_or(too_small)?;
        self.rest = rest;
        Ok(block)
    }

    pub(crate) fn group<T>(
        &mut self,
        shape: &GroupShape,
        entries: &[T],
        mut entry: impl FnMut(&T, &mut Self) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        let count = u16::try_from(entries.len()).ok().filter(|count| *count <= MAX_GROUP);
        let too_long = EncodeError::GroupTooLong { group: shape.name, found: entries.len() };
        let count = count.ok_or(too_long)?;
        let header = self.block::<4>()?;
        store::<0, _, _>(header, shape.block.to_le_bytes());
        store::<2, _, _>(header, count.to_le_bytes());
        entries.iter().try_for_each(|value| entry(value, self))
    }

    pub(crate) fn data(&mut self, field: &'static str, max: u32, bytes: &[u8]) -> Result<(), EncodeError> {
        let found = bytes.len();
        let len = u32::try_from(found).ok().filter(|len| *len <= max);
        let len = len.ok_or(EncodeError::DataTooLong { field, max, found })?;
        *self.block()? = len.to_le_bytes();
        let too_small = EncodeError::BufferTooSmall { needed: found, found: self.rest.len() };
        let (place, rest) = core::mem::take(&mut self.rest).split_at_mut_checked(found).ok_or(too_small)?;
        place.copy_from_slice(bytes);
        self.rest = rest;
        Ok(())
    }

    /// Text is written as 7-bit ASCII only (TP-018).
    pub(crate) fn text(&mut self, field: &'static str, max: u32, text: Text<'_>) -> Result<(), EncodeError> {
        if !text.as_bytes().is_ascii() {
            return Err(EncodeError::NotAscii { field });
        }
        self.data(field, max, text.as_bytes())
    }
}
