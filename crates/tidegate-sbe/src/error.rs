//! Why bytes are not a message, and why a value cannot be written.

/// Why a fragment was not decoded. Fields are named `Message.field`, `Entry.field` inside groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Shorter than a message header.
    #[error("fragment of {found} bytes is too short for a message header of 8; drop it")]
    TooShort {
        /// Bytes of the fragment.
        found: usize,
    },
    /// Another schema than the decoder's (TP-008).
    #[error("schema {schema_id} is not decoded here; leave the fragment to others")]
    UnknownSchema {
        /// Schema id of the fragment.
        schema_id: u16,
    },
    /// Another message than the decoder's, or none of the schema (TP-008).
    #[error("template {template_id} of schema {schema_id} is not decoded here; leave the fragment to others")]
    UnknownTemplate {
        /// Schema id of the fragment.
        schema_id: u16,
        /// Template id of the fragment.
        template_id: u16,
    },
    /// Version 0, or newer than this code (TP-009, TP-010).
    #[error("{message} has version {version}, only 1 can be decoded; drop it or answer UNSUPPORTED")]
    UnsupportedVersion {
        /// The message.
        message: &'static str,
        /// Version of the fragment; 0 is never valid.
        version: u16,
    },
    /// The block is shorter than version 1 of the message has it (TP-011).
    #[error("{message} has a block of {found} bytes, at least {expected} are needed; drop it")]
    BlockTooShort {
        /// The message.
        message: &'static str,
        /// Block length of version 1.
        expected: u16,
        /// Block length in the header.
        found: u16,
    },
    /// The blocks of group entries are shorter than version 1 has them.
    #[error(
        "entries of {group} have blocks of {found} bytes, at least {expected} are needed; drop the message"
    )]
    GroupBlockTooShort {
        /// The group.
        group: &'static str,
        /// Block length of version 1.
        expected: u16,
        /// Block length in the group header.
        found: u16,
    },
    /// The group allows one block length only (TP-309).
    #[error("entries of {group} have blocks of {found} bytes, must be exactly {expected}; drop the message")]
    GroupBlockNotExact {
        /// The group.
        group: &'static str,
        /// The block length allowed.
        expected: u16,
        /// Block length in the group header.
        found: u16,
    },
    /// More entries than a group may have.
    #[error("{group} has {found} entries, at most 65534 are possible; drop the message")]
    GroupTooLong {
        /// The group.
        group: &'static str,
        /// Entries in the group header.
        found: u16,
    },
    /// The fragment ends inside a field (TP-012).
    #[error("{field} needs {needed} bytes, {left} are left; drop the message")]
    Truncated {
        /// Field, group, or message (its block).
        field: &'static str,
        /// Bytes needed from where the fragment was read up to.
        needed: usize,
        /// Bytes there are.
        left: usize,
    },
    /// Variable data longer than the schema allows.
    #[error("{field} is {found} bytes long, at most {max} are allowed; drop the message")]
    DataTooLong {
        /// The field.
        field: &'static str,
        /// Most bytes the schema allows.
        max: u32,
        /// Length in the message.
        found: u32,
    },
    /// An enum value that is not listed (TP-016).
    #[error("{field} has the unlisted value {value}; drop the message")]
    InvalidEnum {
        /// The field.
        field: &'static str,
        /// The value found.
        value: i64,
    },
    /// A Boolean other than 0 and 1 (TP-017).
    #[error("{field} is {value}, must be 0 or 1; drop the message")]
    InvalidBool {
        /// The field.
        field: &'static str,
        /// The byte found.
        value: u8,
    },
}

impl DecodeError {
    /// Whether the fragment is a message of other participants, to be ignored without error (TP-008).
    pub fn is_foreign(&self) -> bool {
        matches!(self, Self::UnknownSchema { .. } | Self::UnknownTemplate { .. })
    }
}

/// Why a value was not encoded. The output buffer may be partly written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The buffer cannot take the message.
    #[error("message of {needed} bytes does not fit into a buffer of {found}; use encoded_len() bytes")]
    BufferTooSmall {
        /// Bytes of the message.
        needed: usize,
        /// Bytes of the buffer.
        found: usize,
    },
    /// There is no memory for the message.
    #[error("no memory for a message of {needed} bytes; send less at once")]
    OutOfMemory {
        /// Bytes of the message.
        needed: usize,
    },
    /// `Some(value)` where the value stands for "not provided" on the wire (TP-014, TP-015).
    #[error("{field} is set to the value that means \"not provided\"; use None")]
    NullValue {
        /// The field.
        field: &'static str,
    },
    /// A string with a byte above 0x7f (TP-018).
    #[error("{field} is not 7-bit ASCII; remove or transcribe other characters")]
    NotAscii {
        /// The field.
        field: &'static str,
    },
    /// Variable data longer than the schema allows.
    #[error("{field} is {found} bytes long, at most {max} are allowed; shorten it")]
    DataTooLong {
        /// The field.
        field: &'static str,
        /// Most bytes the schema allows.
        max: u32,
        /// Bytes of the value.
        found: usize,
    },
    /// More entries than a group can have.
    #[error("{group} has {found} entries, at most 65534 are possible; split the message")]
    GroupTooLong {
        /// The group.
        group: &'static str,
        /// Entries of the value.
        found: usize,
    },
}
