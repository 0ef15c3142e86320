//! Properties of a handshake.

#![no_main]

mod session;

use libfuzzer_sys::fuzz_target;
use session::{Side, TYPES, command, compare_splits, greeting};
use tidegate_zmtp::config::Security;
use tidegate_zmtp::metadata::{Metadata, put_property};

fuzz_target!(|input: &[u8]| {
    let Some((&choice, octets)) = input.split_first() else { return };
    if let Ok(metadata) = Metadata::parse(octets) {
        let mut again = Vec::new();
        metadata.iter().for_each(|(name, value)| put_property(&mut again, name, value));
        let again = Metadata::parse(&again).expect("own encoding");
        assert!(metadata.iter().eq(again.iter()));
    }
    let kind = TYPES[usize::from(choice) % TYPES.len()];
    let ready = [greeting("NULL"), command("READY", octets)].concat();
    compare_splits(choice, &ready, || Side::new(kind, Security::Null { authenticate: false }));
});
