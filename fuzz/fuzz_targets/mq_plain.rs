//! The PLAIN handshake, in both roles.

#![no_main]

mod session;

use libfuzzer_sys::fuzz_target;
use session::{Side, compare_splits, greeting};
use tidegate_zmtp::SocketType;
use tidegate_zmtp::auth::PlainCredentials;
use tidegate_zmtp::config::Security;

fuzz_target!(|input: &[u8]| {
    let Some((&choice, octets)) = input.split_first() else { return };
    let octets = [greeting("PLAIN"), octets.to_vec()].concat();
    compare_splits(choice, &octets, || {
        let client = PlainCredentials::new(b"name", b"password").map(Security::PlainClient);
        let role = if choice & 1 == 0 { Some(Security::PlainServer) } else { client };
        Side::new(SocketType::Dealer, role.expect("short credentials"))
    });
});
