//! Records of a producer: compared with the block once per type (DH-116).

use std::sync::OnceLock;

use super::Producer;
use crate::{
    error::TypedError,
    layout::Descriptor,
    schema::{Agreement, HubPod, Offer, SchemaExpectation, SchemaHash, SchemaMode, SchemaVersion, compare},
};

/// Which types were compared with the block.
#[derive(Debug, Default)]
pub(crate) struct TypedCheck {
    /// The texts by their address: one for each type, for the life of the program.
    approved: [OnceLock<(&'static str, Agreement)>; TYPES],
}

impl TypedCheck {
    /// How much of `T` the block has.
    ///
    /// # Errors
    /// The block holds other records, or bytes without a type.
    #[inline]
    pub(crate) fn check<T: HubPod>(
        &self,
        descriptor: &Descriptor,
        mode: SchemaMode,
        min_minor: u16,
    ) -> Result<Agreement, TypedError> {
        for place in &self.approved {
            match place.get() {
                Some((text, agreement)) if std::ptr::eq(*text, T::TEXT) => return Ok(*agreement),
                Some(_) => {}
                None => {
                    let agreement = agree::<T>(descriptor, mode, min_minor)?;
                    // Another thread may have taken the place: the next call compares again.
                    let _ = place.set((T::TEXT, agreement));
                    return Ok(agreement);
                }
            }
        }
        agree::<T>(descriptor, mode, min_minor)
    }
}

#[cold]
fn agree<T: HubPod>(
    descriptor: &Descriptor,
    mode: SchemaMode,
    min_minor: u16,
) -> Result<Agreement, TypedError> {
    let schema = &descriptor.spec.schema;
    let expected = SchemaExpectation { mode, min_minor, ..SchemaExpectation::of::<T>()? };
    let text = schema.text.lines().next().filter(|text| !text.is_empty());
    let offer = Offer {
        hash: SchemaHash::from_bytes(schema.slot_hash),
        version: SchemaVersion::new(schema.version.0, schema.version.1),
        text,
    };
    Ok(compare(&expected, &offer)?)
}

impl Producer {
    /// Whether records of `T` are what the channel holds.
    #[inline]
    pub(super) fn check_type<T: HubPod>(&self) -> Result<(), TypedError> {
        self.typed.check::<T>(self.descriptor(), SchemaMode::Strict, 0).map(drop)
    }
}

/// How many types are remembered; more are compared each time.
const TYPES: usize = 4;
