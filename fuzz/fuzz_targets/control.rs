//! Messages of the control schema.

#![no_main]

#[macro_use]
mod round_trip;

round_trip!(control);
