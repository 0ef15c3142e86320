//! Messages of the tracelink schema.

#![no_main]

#[macro_use]
mod round_trip;

round_trip!(tracelink);
