//! The canonical schema text, and records of whatever schema is accepted.

#![no_main]

mod hub;

libfuzzer_sys::fuzz_target!(|input: &[u8]| hub::schema(input));
