//! Messages of the bridge schema.

#![no_main]

#[macro_use]
mod round_trip;

round_trip!(bridge);
