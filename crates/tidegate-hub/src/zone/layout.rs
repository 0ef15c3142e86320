//! What the code of `#[derive(ZoneLayout)]` names.

pub use tidegate_shm::region::{Row, RowMut, Span, SpanMut};
