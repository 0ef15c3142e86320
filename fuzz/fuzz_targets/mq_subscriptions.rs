//! Subscriptions to a publisher, as commands and as messages, and the topic index that follows them.

#![no_main]

mod messaging;

libfuzzer_sys::fuzz_target!(|input: &[u8]| messaging::subscriptions(input));
