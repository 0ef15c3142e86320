//! What identifies a message: its header on the wire, and the schema it belongs to.

use crate::wire;

/// The 8 bytes at the start of every fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageHeader {
    /// Bytes of the fixed block that follows (u16 at 0).
    pub block_length: u16,
    /// Number of the message in its schema (u16 at 2).
    pub template_id: u16,
    /// Number of the schema (u16 at 4).
    pub schema_id: u16,
    /// Version of the schema, 1 (u16 at 6).
    pub version: u16,
}

impl MessageHeader {
    /// Bytes of a header.
    pub const LEN: usize = 8;

    /// The header of `fragment`, unchecked; `None` if it is shorter than 8 bytes.
    #[inline]
    pub fn peek(fragment: &[u8]) -> Option<Self> {
        wire::split_header(fragment).ok().map(|(header, _)| header)
    }
}

/// One of the six schemas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SchemaInfo {
    /// Number of the schema in message headers.
    pub id: u16,
    /// Short name: `wire`, `driver`, `bridge`, `merge`, `tracelink`, `discovery`.
    pub name: &'static str,
    /// Package, for people.
    pub package: &'static str,
    /// The only version there is.
    pub version: u16,
}
