//! Replies of an authentication handler.

#![no_main]

mod messaging;

libfuzzer_sys::fuzz_target!(|input: &[u8]| messaging::zap(input));
