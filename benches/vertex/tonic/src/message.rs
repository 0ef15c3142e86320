//! The messages:
//!
//! ```text
//! message Record { uint64 position = 1; bytes value = 2; }
//! message Batch  { repeated Record records = 1; }
//! ```

use bytes::Bytes;

/// As the client sends and takes it: bytes are shared, not copied, on either side of the codec.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SharedRecord {
    #[prost(uint64, tag = "1")]
    pub position: u64,
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct SharedBatch {
    #[prost(message, repeated, tag = "1")]
    pub records: Vec<SharedRecord>,
}

/// As the server takes and sends it: decoding copies, so that the value can be changed in place.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OwnedRecord {
    #[prost(uint64, tag = "1")]
    pub position: u64,
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct OwnedBatch {
    #[prost(message, repeated, tag = "1")]
    pub records: Vec<OwnedRecord>,
}
