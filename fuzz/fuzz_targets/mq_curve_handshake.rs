//! The CURVE handshake, in both roles: octets out of nowhere, and a true handshake with some octets changed.

#![no_main]

mod session;

use libfuzzer_sys::fuzz_target;
use session::{Side, compare_splits, greeting};
use tidegate_zmtp::SocketType;
use tidegate_zmtp::config::Security;
use tidegate_zmtp::mechanism::curve::{CurveClient, CurveServer, SecretKey};
use tidegate_zmtp::session::State;

fn server() -> Side {
    let secret = SecretKey::from_bytes([1; 32]);
    Side::new(SocketType::Pull, Security::CurveServer(CurveServer { secret }))
}

fn client() -> Side {
    let (server, secret) = (SecretKey::from_bytes([1; 32]).public_key(), SecretKey::from_bytes([2; 32]));
    Side::new(SocketType::Push, Security::CurveClient(CurveClient { server, secret }))
}

fuzz_target!(|input: &[u8]| {
    let Some((&choice, octets)) = input.split_first() else { return };
    let whole = [greeting("CURVE"), octets.to_vec()].concat();
    compare_splits(choice, &whole, || if choice & 1 == 0 { server() } else { client() });

    // Three octets are a change: which step, where, and by what.
    let (mut one, mut two) = (server(), client());
    let mut changed = false;
    for step in 0..8 {
        let mut from = if step % 2 == 0 { two.output() } else { one.output() };
        for change in octets.chunks_exact(3).filter(|change| change[0] % 8 == step) {
            let len = from.len();
            // What the greeting pads with may be anything.
            if let Some(octet) = from.get_mut(64 + usize::from(change[1])).filter(|_| len > 64) {
                *octet ^= change[2];
                changed |= change[2] != 0;
            }
        }
        if step % 2 == 0 { one.receive(&from) } else { two.receive(&from) }
    }
    let up = one.session.state() == State::Active && two.session.state() == State::Active;
    assert!(up || changed, "a true handshake was refused: {:?} {:?}", one.history, two.history);
});
