//! CURVE messages: what was altered, repeated, left out or cut is never delivered.

#![no_main]

mod messaging;

libfuzzer_sys::fuzz_target!(|input: &[u8]| messaging::curve_stream(input));
