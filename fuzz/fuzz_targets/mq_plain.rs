//! The PLAIN handshake, in both roles.

#![no_main]

mod messaging;

libfuzzer_sys::fuzz_target!(|input: &[u8]| messaging::plain(input));
