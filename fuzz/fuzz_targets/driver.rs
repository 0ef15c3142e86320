//! Messages of the driver schema.

#![no_main]

#[macro_use]
mod round_trip;

round_trip!(driver);
