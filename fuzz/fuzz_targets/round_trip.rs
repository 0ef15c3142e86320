//! What the targets of the message schemas have in common.

/// Decoding messages of a schema never panics, and what was accepted survives a round trip.
macro_rules! round_trip {
    ($schema:ident) => {
        libfuzzer_sys::fuzz_target!(|fragment: &[u8]| {
            use tidegate::sbe::{EncodeError, $schema::Message};

            let Ok(message) = Message::decode(fragment) else { return };
            let _json = message.to_json();
            match message.to_vec() {
                Ok(bytes) => assert_eq!(Message::decode(&bytes).expect("own encoding"), message),
                // Text of others may hold bytes that an encoder refuses to write.
                Err(EncodeError::NotAscii { .. }) => {}
                Err(error) => panic!("decoded but not encoded: {error}"),
            }
        });
    };
}
