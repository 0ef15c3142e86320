//! Messages of the merge schema.

#![no_main]

#[macro_use]
mod round_trip;

round_trip!(merge);
