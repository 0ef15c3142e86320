//! A connection from its first octet: greeting, handshake and all that follows, without security.

#![no_main]

mod session;

use libfuzzer_sys::fuzz_target;
use session::{Side, TYPES, compare_splits};
use tidegate_zmtp::config::Security;

fuzz_target!(|input: &[u8]| {
    let Some((&choice, octets)) = input.split_first() else { return };
    let kind = TYPES[usize::from(choice) % TYPES.len()];
    compare_splits(choice, octets, || Side::new(kind, Security::Null { authenticate: choice & 1 == 1 }));
});
