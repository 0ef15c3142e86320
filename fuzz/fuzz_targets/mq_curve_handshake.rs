//! The CURVE handshake, in both roles: octets out of nowhere, and a true handshake with some octets changed.

#![no_main]

mod messaging;

libfuzzer_sys::fuzz_target!(|input: &[u8]| messaging::curve_handshake(input));
