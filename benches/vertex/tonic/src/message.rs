//! The messages:
//!
//! ```text
//! message Record { uint64 position = 1; bytes value = 2; }
//! message Batch  { repeated Record records = 1; }
//! ```

use bytes::Bytes;

/// Bytes are shared with what was received, not copied.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Record {
    #[prost(uint64, tag = "1")]
    pub position: u64,
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Batch {
    #[prost(message, repeated, tag = "1")]
    pub records: Vec<Record>,
}
