//! Messages of the discovery schema: decoding never panics, and what was accepted survives a round trip.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::sbe::discovery::Message;

fuzz_target!(|fragment: &[u8]| {
    let Ok(message) = Message::decode(fragment) else { return };
    let _json = message.to_json();
    // Wire text may hold bytes that an encoder refuses to write; everything else goes around unchanged.
    if let Ok(bytes) = message.to_vec() {
        assert_eq!(Message::decode(&bytes).expect("own encoding"), message);
    }
});
