//! Takes everything and keeps nothing.

use super::{Class, Confirms, Delivery, Published, Sink, SinkError};
use crate::fence::WriteGuard;

/// Nowhere.
#[derive(Debug, Default)]
pub struct Blackhole;

impl Sink for Blackhole {
    fn class(&self) -> Class {
        Class::C
    }

    fn confirms(&self) -> Confirms {
        Confirms::Nothing
    }

    fn publish(&mut self, delivery: &Delivery<'_>, _: &WriteGuard) -> Result<Published, SinkError> {
        Ok(Published::all(delivery))
    }
}
