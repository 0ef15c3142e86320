//! Numbers and strings in bytes, little-endian, in a fixed order; strings have their length before them.

use super::record::RecordError;

/// Appends fields.
#[derive(Debug, Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn number<const LEN: usize>(&mut self, bytes: [u8; LEN]) {
        self.0.extend_from_slice(&bytes);
    }

    pub(super) fn u8(&mut self, value: u8) {
        self.number([value]);
    }

    pub(super) fn u16(&mut self, value: u16) {
        self.number(value.to_le_bytes());
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.number(value.to_le_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.number(value.to_le_bytes());
    }

    pub(super) fn i64(&mut self, value: i64) {
        self.number(value.to_le_bytes());
    }

    pub(super) fn u128(&mut self, value: u128) {
        self.number(value.to_le_bytes());
    }

    /// Bytes with their length, which is below 4 GiB wherever it is used.
    pub(super) fn bytes(&mut self, value: &[u8]) {
        self.u32(value.len() as u32);
        self.0.extend_from_slice(value);
    }
}

/// Takes fields from the front.
#[derive(Debug, Clone)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    fn take<const LEN: usize>(&mut self) -> Result<[u8; LEN], RecordError> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(RecordError::Damaged)?;
        self.0 = rest;
        Ok(*bytes)
    }

    pub(super) fn u8(&mut self) -> Result<u8, RecordError> {
        self.take::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, RecordError> {
        self.take().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, RecordError> {
        self.take().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, RecordError> {
        self.take().map(u64::from_le_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64, RecordError> {
        self.take().map(i64::from_le_bytes)
    }

    pub(super) fn u128(&mut self) -> Result<u128, RecordError> {
        self.take().map(u128::from_le_bytes)
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], RecordError> {
        let len = self.u32()? as usize;
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(RecordError::Damaged)?;
        self.0 = rest;
        Ok(bytes)
    }

    pub(super) fn string(&mut self) -> Result<String, RecordError> {
        String::from_utf8(self.bytes()?.to_vec()).map_err(|_| RecordError::Damaged)
    }

    pub(super) fn end(&self) -> Result<(), RecordError> {
        if self.0.is_empty() { Ok(()) } else { Err(RecordError::Damaged) }
    }
}
