//! Endpoints, to bind and to connect.

#![no_main]

mod messaging;

libfuzzer_sys::fuzz_target!(|input: &[u8]| messaging::endpoint(input));
