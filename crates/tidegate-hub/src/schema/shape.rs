//! The rows of 12.5 that are not about texts: slot stride, capacity and sizes of zones.

use std::fmt;

use thiserror::Error;

/// What a block gives its records room for, or what a consumer expects of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Bytes from one slot to the next.
    pub slot_stride: u64,
    /// Number of slots.
    pub slot_count: u32,
    /// Whether the policy is RingBuffer, whose capacity may differ.
    pub ring: bool,
    /// Bytes of each zone.
    pub zone_sizes: Vec<u64>,
}

impl Shape {
    /// Judges whether a consumer that expects this shape can use a block of shape `found` (DH-178).
    ///
    /// # Errors
    /// [`ShapeMismatch`], which names the first field that differs.
    pub fn check(&self, found: &Self) -> Result<(), ShapeMismatch> {
        let equal = |field, expected, found| {
            if expected == found { Ok(()) } else { Err(ShapeMismatch { field, expected, found }) }
        };
        equal(ShapeField::SlotStride, self.slot_stride, found.slot_stride)?;
        if !(self.ring && found.ring) {
            equal(ShapeField::SlotCount, u64::from(self.slot_count), u64::from(found.slot_count))?;
        }
        self.zone_sizes.iter().enumerate().try_for_each(|(zone, &expected)| {
            let found = found.zone_sizes.get(zone).copied().unwrap_or(0);
            let field = ShapeField::Zone(zone);
            if found >= expected { Ok(()) } else { Err(ShapeMismatch { field, expected, found }) }
        })
    }
}

/// What was compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ShapeField {
    SlotStride,
    SlotCount,
    /// Size of the zone with this index; 0 if the block has no such zone.
    Zone(usize),
}

impl fmt::Display for ShapeField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SlotStride => f.write_str("slot_stride"),
            Self::SlotCount => f.write_str("slot_count"),
            Self::Zone(index) => write!(f, "size of zone {index}"),
        }
    }
}

/// A block that does not have the shape a consumer expects.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{field}: expected {expected}, found {found}; correct the consumer's expected_config or the producer's configuration"
)]
pub struct ShapeMismatch {
    /// What differs.
    pub field: ShapeField,
    /// The consumer's value; the least that will do, for a zone.
    pub expected: u64,
    /// The block's value.
    pub found: u64,
}
