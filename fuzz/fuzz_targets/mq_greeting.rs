//! A connection from its first octet: greeting, handshake and all that follows, without security.

#![no_main]

mod messaging;

libfuzzer_sys::fuzz_target!(|input: &[u8]| messaging::greeting(input));
