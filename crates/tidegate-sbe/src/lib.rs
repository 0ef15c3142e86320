//! Messages of the tensor pool's control plane: bytes of one Aeron fragment to a value and back.
//!
//! Six SBE schemas in `schemas/` are compiled into one module each. A message is a plain struct that borrows strings
//! and data from the fragment it was decoded from; [`AnyMessage`] decodes without knowing which message comes.
//!
//! A fragment is, all little-endian:
//!
//! | offset | bytes | content |
//! |---|---|---|
//! | 0 | 8 | [`MessageHeader`]: block length, template id, schema id, version, u16 each |
//! | 8 | block length | fields at fixed offsets, no padding |
//! | | | groups: u16 entry block length, u16 count, then entries (block, nested groups, variable data) |
//! | | | variable data: u32 length, then that many bytes |
//!
//! What holds for every decoder:
//! - it looks at schema, template, version and block length in this order before anything else (TP-007);
//! - nothing is returned unless the whole message is there (TP-012), and no input makes it panic;
//! - a group is allocated only after its entries were seen to fit into the fragment (TP-022);
//! - an enum or Boolean value that is not listed is an error (TP-016, TP-017), except in fields of type [`Open`].
//!
//! ```
//! use tidegate_sbe::control::{Mode, QosConsumer};
//! use tidegate_sbe::{AnyMessage, control};
//!
//! let qos = QosConsumer {
//!     stream_id: 10000,
//!     consumer_id: 42,
//!     epoch: 7,
//!     last_seq_seen: 99,
//!     drops_gap: 3,
//!     drops_late: 1,
//!     mode: Mode::Stream,
//! };
//! let mut fragment = [0; 64];
//! let len = qos.encode(&mut fragment)?;
//!
//! match AnyMessage::decode(&fragment[..len])? {
//!     AnyMessage::Control(control::Message::QosConsumer(received)) => assert_eq!(received, qos),
//!     other => println!("{} is not for us", other.name()),
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! This crate knows the form of messages. Whether values make sense (a stride that is a multiple of 64, a URI that is
//! not empty) is decided by those who use them.

#![forbid(unsafe_code)]

mod any;
pub mod driver;
mod error;
mod header;
#[cfg(feature = "json")]
mod json;
mod open;
mod text;
mod wire;

pub use any::AnyMessage;
pub use error::{DecodeError, EncodeError};
pub use header::{MessageHeader, SchemaInfo};
pub use open::{Open, WireEnum};
pub use text::Text;

/// Schema 900: announces, consumer coordination, frames, QoS, metadata, and the layouts in shared memory.
pub mod control {
    include!(concat!(env!("OUT_DIR"), "/control.rs"));
}

/// Schema 902: frames cut into chunks for UDP.
pub mod bridge {
    include!(concat!(env!("OUT_DIR"), "/bridge.rs"));
}

/// Schema 903: rules by which streams are joined.
pub mod merge {
    include!(concat!(env!("OUT_DIR"), "/merge.rs"));
}

/// Schema 904: parents of derived frames.
pub mod tracelink {
    include!(concat!(env!("OUT_DIR"), "/tracelink.rs"));
}

/// Schema 910: search for streams.
pub mod discovery {
    include!(concat!(env!("OUT_DIR"), "/discovery.rs"));
}
