//! What a new pipe begins with.

use std::net::TcpListener;

use tidegate_mq::{Dealer, monitor::EventKind};

use super::{
    peer::Raw,
    rig::{DRIVERS, context, event, options_with},
};

/// A probe is the first message of a dialed pipe, before what was queued when there was no connection. The pipe outlives
/// its connections, and the probe is not repeated on the next one, as libzmq 4.3.5 does not.
///
/// Rules: MQ-204, MQ-182.
#[test]
fn a_dialed_pipe_is_probed_once() {
    for driver in DRIVERS {
        let context = context(driver);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let dealer =
            Dealer::with_options(&context, options_with(|options| options.probe_router = true)).unwrap();
        let monitor = dealer.monitor();
        dealer.connect(&format!("tcp://{}", listener.local_addr().unwrap())).unwrap();
        dealer.send_blocking("queued before").unwrap();
        let mut peer = Raw::of(listener.accept().unwrap().0);
        peer.shake("ROUTER", "");
        assert_eq!(peer.frame(), (0, Vec::new()));
        assert_eq!(peer.frame(), (0, b"queued before".to_vec()));
        drop(peer);
        event(&monitor, "the end", |kind| matches!(kind, EventKind::Disconnected { .. }).then_some(()));
        dealer.send_blocking("queued between").unwrap();
        let mut peer = Raw::of(listener.accept().unwrap().0);
        peer.shake("ROUTER", "");
        assert_eq!(peer.frame(), (0, b"queued between".to_vec()));
        dealer.send_blocking("last").unwrap();
        assert_eq!(peer.frame(), (0, b"last".to_vec()));
        context.term_blocking();
    }
}
