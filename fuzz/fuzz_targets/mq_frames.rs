//! Frames of an established connection: messages, PING and PONG, subscriptions, cancellations, unknown commands.

#![no_main]

mod session;

use libfuzzer_sys::fuzz_target;
use session::{TYPES, compare_splits, established};
use tidegate_zmtp::config::Security;

const NULL: Security = Security::Null { authenticate: false };

fuzz_target!(|input: &[u8]| {
    let Some((&choice, octets)) = input.split_first() else { return };
    let kind = TYPES[usize::from(choice) % TYPES.len()];
    let Some(&partner) = TYPES.iter().find(|other| kind.accepts(**other)) else { return };
    compare_splits(choice, octets, || established((kind, partner), (NULL, NULL)).0);
});
