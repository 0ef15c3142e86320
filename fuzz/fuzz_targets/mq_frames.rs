//! Frames of an established connection: messages, PING and PONG, subscriptions, cancellations, unknown commands.

#![no_main]

mod messaging;

libfuzzer_sys::fuzz_target!(|input: &[u8]| messaging::frames(input));
