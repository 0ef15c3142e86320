//! Many clients of one host that come at once (MQ-262).

use std::collections::BTreeSet;

use tidegate_mq::{Pull, Push};

use super::{
    peer::{Raw, frame, greeting, ready},
    rig::{ANYWHERE, DRIVERS, context, options, options_with},
};

/// Clients that come at once; several times as many as may have their handshakes pending for one address.
const CLIENTS: u32 = 500;

/// What the clients of one host have sent arrives, however many of them come at once.
///
/// Rules: MQ-262.
#[test]
fn a_storm_of_clients_loses_nothing() {
    for driver in DRIVERS {
        let (server, clients) = (context(driver), context(driver));
        let pull = Pull::with_options(&server, options()).unwrap();
        let endpoint = pull.bind_blocking(ANYWHERE).unwrap();
        let pushes: Vec<Push> = (0..CLIENTS)
            .map(|number| {
                let push = Push::with_options(&clients, options()).unwrap();
                push.connect(&endpoint).unwrap();
                push.send_blocking(number.to_le_bytes().as_slice()).unwrap();
                push
            })
            .collect();
        let mut missing: BTreeSet<u32> = (0..CLIENTS).collect();
        while !missing.is_empty() {
            let Ok(message) = pull.recv_blocking() else { panic!("lost: {missing:?}") };
            let number = u32::from_le_bytes(message.parts()[0][..].try_into().unwrap());
            assert!(missing.remove(&number), "twice: {number}");
        }
        drop(pushes);
        clients.term_blocking();
        server.term_blocking();
    }
}

/// A peer whose handshake is under way is not given up for newcomers, however many wait: it may have sent its first message
/// already.
///
/// Rules: MQ-262.
#[test]
fn a_handshake_under_way_is_completed() {
    for driver in DRIVERS {
        let context = context(driver);
        let limited = options_with(|options| options.max_pending_handshakes_per_ip = 1);
        let pull = Pull::with_options(&context, limited).unwrap();
        let endpoint = pull.bind_blocking(ANYWHERE).unwrap();
        for _ in 0..5 {
            let mut peer = Raw::connect(&endpoint);
            peer.send(&greeting("NULL"));
            peer.take(64);
            peer.frame();
            let newcomers: Vec<Raw> = (0..3).map(|_| Raw::connect(&endpoint)).collect();
            peer.send(&[ready("PUSH", ""), frame(0, b"first")].concat());
            assert_eq!(pull.recv_blocking().unwrap().parts()[0], "first");
            drop(newcomers);
        }
        context.term_blocking();
    }
}
