//! Records in a payload (6.1): written by a [`RecordWriter`], read from a private copy by [`Records`].
//!
//! ```text
//!  0x00 u32 length of the record, multiple of 8    0x0C u32 length of the headers
//!  0x04 u8  type                                   0x10 i64 event time in milliseconds
//!  0x05 u8  flags: 1 event time is set             0x18 u32 ordinal in the batch; of an output that of its parent
//!  0x06 u16 length of the key                      0x1C u32 position minus the first one; of an output its route
//!  0x08 u32 length of the value                    0x20 value, padded to 8; key; headers; padded to 8
//! ```

use std::ops::Range;

use thiserror::Error;

use super::layout::layout;

layout! {
    struct RawRecord[32] {
        rec_len: u32 = 0x00,
        rec_type: u8 = 0x04,
        rec_flags: u8 = 0x05,
        key_len: u16 = 0x06,
        value_len: u32 = 0x08,
        headers_len: u32 = 0x0C,
        event_time: i64 = 0x10,
        index: u32 = 0x18,
        place: u32 = 0x1C,
    }
}

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordType {
    /// An input, or an output of the parent.
    Data,
    /// The parent failed and is to be tried again; the value is the reason.
    Fail,
    /// The parent is bad for good; the value is the reason.
    Reject,
    /// The parent goes back to the source: the value is a `u32` delay in milliseconds and then the reason.
    Nack,
    /// The parent was left out on purpose; the value is the reason.
    Drop,
}

/// Which way a payload goes: the numbers mean different things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To the function.
    Request,
    /// From the function, which was given so many inputs.
    Response {
        /// Inputs of the batch.
        inputs: u32,
    },
}

/// One record of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawView<'a> {
    /// What it says.
    pub kind: RecordType,
    /// The ordinal of the input, or of the output's parent.
    pub index: u32,
    /// Position minus that of the first record; of outputs the route.
    pub place: u32,
    /// Event time in milliseconds since 1970.
    pub event_time: Option<i64>,
    /// The value.
    pub value: &'a [u8],
    /// The key, empty if there is none.
    pub key: &'a [u8],
    /// The headers as they are on the wire; [`headers`] takes them apart.
    pub headers: &'a [u8],
}

impl RawView<'_> {
    /// Where value, key and headers are in the payload, for a record that begins at `at`.
    pub(crate) fn ranges(&self, at: usize) -> [Range<usize>; 3] {
        let value = at + HEAD;
        let key = value + self.value.len().next_multiple_of(8);
        let headers = key + self.key.len();
        [value..value + self.value.len(), key..headers, headers..headers + self.headers.len()]
    }
}

/// A payload whose records are all as they must be (VX-400).
#[derive(Debug, Clone)]
pub struct Records<'a> {
    rest: &'a [u8],
    in_order: bool,
}

impl<'a> Records<'a> {
    /// The records of a payload that [`Records::parse`] has accepted.
    pub fn accepted(payload: &'a [u8]) -> Self {
        Self { rest: payload, in_order: true }
    }

    /// Whether [`Records::parse`] has found the ordinals in order, each as often as it likes.
    pub fn are_in_order(&self) -> bool {
        self.in_order
    }

    /// The bytes of the records that are still to come.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next record, if it belongs to this input.
    #[inline]
    pub fn next_of(&mut self, input: u32) -> Option<RawView<'a>> {
        let (view, behind) = split(self.rest, 0).ok().filter(|(view, _)| view.index == input)?;
        self.rest = behind;
        Some(view)
    }

    /// Checks a payload of `count` records.
    ///
    /// # Errors
    /// The first record that is wrong.
    pub fn parse(payload: &'a [u8], count: u32, direction: Direction) -> Result<Self, RecordFault> {
        let mut rest = payload;
        let (mut last, mut in_order) = (None, true);
        let mut found = 0u32;
        while !rest.is_empty() {
            if found == count {
                return Err(RecordFault::new(found, "record_count", found.into(), count.into()));
            }
            let (view, behind) = split(rest, found)?;
            match direction {
                Direction::Request => {
                    let after = last.map_or(0, |last| u64::from(last) + 1);
                    if u64::from(view.index) < after {
                        return Err(RecordFault::new(found, "index (growing)", view.index.into(), after));
                    }
                    if view.kind != RecordType::Data {
                        return Err(RecordFault::new(found, "rec_type of a request", 0, 1));
                    }
                }
                Direction::Response { inputs } => {
                    if view.index >= inputs {
                        let (index, inputs) = (view.index.into(), inputs.into());
                        return Err(RecordFault::new(found, "index (below the batch size)", index, inputs));
                    }
                    if view.place > 0xFFFF {
                        return Err(RecordFault::new(found, "route (high bits)", view.place.into(), 0xFFFF));
                    }
                    if view.kind == RecordType::Nack && view.value.len() < 4 {
                        return Err(RecordFault::new(
                            found,
                            "value_len of a nack",
                            view.value.len() as u64,
                            4,
                        ));
                    }
                }
            }
            in_order &= last <= Some(view.index);
            last = Some(view.index);
            found += 1;
            rest = behind;
        }
        if found != count {
            return Err(RecordFault::new(found, "record_count", found.into(), count.into()));
        }
        Ok(Self { rest: payload, in_order })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = RawView<'a>;

    #[inline]
    fn next(&mut self) -> Option<RawView<'a>> {
        // Was read once already, from the same private bytes.
        let (view, behind) = split(self.rest, 0).ok()?;
        self.rest = behind;
        Some(view)
    }
}

/// A record that no correct peer writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("record {record} of the payload: {field} is {found}, allowed is {allowed}")]
pub struct RecordFault {
    /// Number of the record in its payload.
    pub record: u32,
    /// The field, or the rule it breaks.
    pub field: &'static str,
    /// Its value.
    pub found: u64,
    /// What it has to be, or the bound that it breaks.
    pub allowed: u64,
}

impl RecordFault {
    fn new(record: u32, field: &'static str, found: u64, allowed: u64) -> Self {
        Self { record, field, found, allowed }
    }
}

/// Name and value of each header; ends early where the bytes are not headers.
pub fn headers(bytes: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (name_len, behind) = rest.split_first_chunk::<2>()?;
        let (value_len, behind) = behind.split_first_chunk::<4>()?;
        let (name, behind) = behind.split_at_checked(u16::from_le_bytes(*name_len).into())?;
        let (value, behind) = behind.split_at_checked(u32::from_le_bytes(*value_len) as usize)?;
        rest = behind;
        Some((name, value))
    })
}

/// Appends a header as it is on the wire; false, and nothing is appended, if its name or value is too long for that.
pub fn push_header(headers: &mut Vec<u8>, name: &str, value: &[u8]) -> bool {
    let lens = (u16::try_from(name.len()), u32::try_from(value.len()));
    let (Ok(name_len), Ok(value_len)) = lens else { return false };
    headers.extend_from_slice(&name_len.to_le_bytes());
    headers.extend_from_slice(&value_len.to_le_bytes());
    headers.extend_from_slice(name.as_bytes());
    headers.extend_from_slice(value);
    true
}

/// What goes into a record besides its value.
#[derive(Debug, Clone, Copy)]
pub struct RecordHead<'a> {
    /// What it says.
    pub kind: RecordType,
    /// The ordinal of the input, or of the output's parent.
    pub index: u32,
    /// Position minus that of the first record; of outputs the route.
    pub place: u32,
    /// Event time in milliseconds since 1970.
    pub event_time: Option<i64>,
    /// The key.
    pub key: &'a [u8],
    /// Headers as they are on the wire.
    pub headers: &'a [u8],
}

/// A payload under construction, in private memory.
#[derive(Debug, Default)]
pub struct RecordWriter {
    bytes: Vec<u8>,
    count: u32,
}

impl RecordWriter {
    /// Appends a record whose value is what `value` appends to the buffer.
    ///
    /// # Errors
    /// [`RecordTooLong`]; nothing was appended.
    pub fn push_with(
        &mut self,
        head: &RecordHead<'_>,
        value: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), RecordTooLong> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; HEAD]);
        value(&mut self.bytes);
        let written = self.finish(start, head);
        if written.is_err() {
            self.bytes.truncate(start);
        }
        written
    }

    /// Appends a record with this value.
    ///
    /// # Errors
    /// As [`RecordWriter::push_with`].
    #[inline]
    pub fn push(&mut self, head: &RecordHead<'_>, value: &[u8]) -> Result<(), RecordTooLong> {
        self.push_with(head, |bytes| bytes.extend_from_slice(value))
    }

    /// The payload so far.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Records so far.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Where the payload ends now, to be able to go back to it.
    pub fn mark(&self) -> Mark {
        Mark { len: self.bytes.len(), count: self.count }
    }

    /// Bytes since `mark`.
    pub fn len_since(&self, mark: Mark) -> usize {
        self.bytes.len().saturating_sub(mark.len)
    }

    /// Takes back everything since `mark`.
    pub fn rewind(&mut self, mark: Mark) {
        self.bytes.truncate(mark.len);
        self.count = self.count.min(mark.count);
    }

    /// Takes back everything.
    pub fn clear(&mut self) {
        self.rewind(Mark { len: 0, count: 0 });
    }

    #[inline]
    fn finish(&mut self, start: usize, head: &RecordHead<'_>) -> Result<(), RecordTooLong> {
        let too_long = RecordTooLong { bytes: self.bytes.len() - start };
        let value_len = self.bytes.len().checked_sub(start + HEAD).ok_or(too_long)?;
        self.pad(start);
        if !head.key.is_empty() || !head.headers.is_empty() {
            self.bytes.extend_from_slice(head.key);
            self.bytes.extend_from_slice(head.headers);
            self.pad(start);
        }
        let fits = |len: usize| u32::try_from(len).map_err(|_| too_long);
        let raw = RawRecord {
            rec_len: fits(self.bytes.len() - start)?,
            rec_type: head.kind.code(),
            rec_flags: if head.event_time.is_some() { EVENT_TIME } else { 0 },
            key_len: u16::try_from(head.key.len()).map_err(|_| too_long)?,
            value_len: fits(value_len)?,
            headers_len: fits(head.headers.len())?,
            event_time: head.event_time.unwrap_or(0),
            index: head.index,
            place: head.place,
        };
        self.bytes[start..start + HEAD].copy_from_slice(&raw.to_bytes());
        self.count += 1;
        Ok(())
    }

    fn pad(&mut self, start: usize) {
        let end = start + (self.bytes.len() - start).next_multiple_of(8);
        // A fixed number of bytes is one store, where filling up to a length is a call.
        self.bytes.extend_from_slice(&[0; 8]);
        self.bytes.truncate(end);
    }
}

/// A place in a payload under construction.
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    len: usize,
    count: u32,
}

/// A record that the wire has no numbers for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a record of {bytes} bytes does not fit: values and headers end at 4 GiB, keys at 64 KiB")]
pub struct RecordTooLong {
    /// Bytes of its head and value.
    pub bytes: usize,
}

/// Splits a payload of `records` records between them into pieces of at most `max` bytes: bytes and number of records.
///
/// A single record that is longer than `max` becomes a piece of its own.
pub fn pieces(payload: &[u8], records: u32, max: usize) -> impl Iterator<Item = (&[u8], u32)> {
    let mut rest = payload;
    std::iter::from_fn(move || {
        if payload.len() <= max {
            // Most are: nobody has to look for the ends of the records.
            let piece = std::mem::take(&mut rest);
            return (!piece.is_empty()).then_some((piece, records));
        }
        let (mut end, mut count) = (0, 0);
        while let Ok((_, behind)) = split(&rest[end..], 0) {
            let next = rest.len() - behind.len();
            if count > 0 && next > max {
                break;
            }
            (end, count) = (next, count + 1);
        }
        let (piece, behind) = rest.split_at(end);
        rest = behind;
        (count > 0).then_some((piece, count))
    })
}

impl RecordType {
    fn code(self) -> u8 {
        match self {
            Self::Data => 1,
            Self::Fail => 6,
            Self::Reject => 7,
            Self::Nack => 8,
            Self::Drop => 9,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        [Self::Data, Self::Fail, Self::Reject, Self::Nack, Self::Drop]
            .into_iter()
            .find(|kind| kind.code() == code)
    }
}

/// The first record of `bytes`, and what is behind it.
#[inline]
fn split(bytes: &[u8], number: u32) -> Result<(RawView<'_>, &[u8]), RecordFault> {
    let fault = |field, found: u64, allowed: u64| RecordFault::new(number, field, found, allowed);
    let Some((head, _)) = bytes.split_first_chunk::<HEAD>() else {
        return Err(fault("bytes left for a record", bytes.len() as u64, HEAD as u64));
    };
    let raw = RawRecord::from_bytes(head);
    let (value_len, key_len) = (u64::from(raw.value_len), u64::from(raw.key_len));
    // None of the sums overflows: 32-bit numbers in 64 bits.
    let key_at = HEAD as u64 + value_len.next_multiple_of(8);
    let needed = key_at + (key_len + u64::from(raw.headers_len)).next_multiple_of(8);
    let rec_len = u64::from(raw.rec_len);
    if rec_len < needed || !rec_len.is_multiple_of(8) {
        return Err(fault("rec_len (holds its parts, multiple of 8)", rec_len, needed));
    }
    let Some((record, behind)) = bytes.split_at_checked(raw.rec_len as usize) else {
        return Err(fault("rec_len (inside the payload)", rec_len, bytes.len() as u64));
    };
    let kind = RecordType::from_code(raw.rec_type).ok_or(fault("rec_type", raw.rec_type.into(), 9))?;
    let part = |from: u64, len: u64| record.get(from as usize..(from + len) as usize).unwrap_or_default();
    let view = RawView {
        kind,
        index: raw.index,
        place: raw.place,
        event_time: (raw.rec_flags & EVENT_TIME != 0).then_some(raw.event_time),
        value: part(HEAD as u64, value_len),
        key: part(key_at, key_len),
        headers: part(key_at + key_len, raw.headers_len.into()),
    };
    Ok((view, behind))
}

const HEAD: usize = 32;
const EVENT_TIME: u8 = 1;

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
