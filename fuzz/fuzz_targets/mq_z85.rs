//! Keys as text.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_zmtp::mechanism::curve::PublicKey;
use tidegate_zmtp::z85;

fuzz_target!(|input: &[u8]| {
    if let Ok(binary) = z85::decode(input) {
        assert_eq!(binary.len() * 5, input.len() * 4);
        assert_eq!(z85::encode(&binary).expect("a multiple of four").as_bytes(), input);
    }
    if let Ok(text) = z85::encode(input) {
        assert_eq!(z85::decode(text).expect("own encoding"), input);
    }
    if let Ok(key) = PublicKey::parse(input) {
        assert_eq!(PublicKey::parse(key.to_z85().as_bytes()).expect("own encoding"), key);
    }
});
