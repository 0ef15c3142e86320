//! What the runtime of a vertex and its workers say to each other, as bytes. Nothing here does I/O.
//!
//! | module | gives |
//! |---|---|
//! | [`frame`] | the header in front of every payload in a ring |
//! | [`record`] | the records in a payload |
//! | [`segment`] | the headers of the three segments, and where their words are |
//! | [`message`] | the datagrams of the control socket |
//! | [`status`], [`ids`] | numbers with a meaning |
//! | `schema` | the ids of schemas |
//!
//! What comes from the other side is copied to private memory before it is read here, and every length in it is checked
//! before it is used.

pub mod frame;
pub mod function;
pub mod ids;
mod layout;
pub mod message;
pub mod record;
#[cfg(feature = "schema-text")]
mod schema;
pub mod segment;
pub mod status;
