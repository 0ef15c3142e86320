//! Messages of the discovery schema.

#![no_main]

#[macro_use]
mod round_trip;

round_trip!(discovery);
