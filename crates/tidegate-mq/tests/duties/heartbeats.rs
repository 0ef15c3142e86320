//! Heartbeats while nobody reads.

use std::time::Duration;

use tidegate_mq::{Dealer, Error, Pull};

use super::{
    peer::{Raw, command, frame, greeting, ready},
    rig::{ANYWHERE, DRIVERS, context, options_with, until},
};

const INTERVAL: Duration = Duration::from_millis(50);

/// While the application is behind and its peer is not read, the peer is sent PINGs and not given up for not answering:
/// its answers may be among what was not read.
///
/// Rules: MQ-176.
#[test]
fn a_peer_that_is_not_read_is_not_taken_for_dead() {
    for driver in DRIVERS {
        let context = context(driver);
        let pull = Pull::with_options(
            &context,
            options_with(|options| {
                options.rcvhwm = 1;
                options.heartbeat_ivl = Some(INTERVAL);
                options.heartbeat_timeout = Some(INTERVAL);
            }),
        )
        .unwrap();
        let endpoint = pull.bind_blocking(ANYWHERE).unwrap();
        // All at once, so that there is no time in which an answer would be due. A time to live of ours counts as little.
        let mut peer = Raw::connect(&endpoint);
        let handshake = [greeting("NULL"), ready("PUSH", "")].concat();
        peer.send(&[handshake, command("PING", b"\0\x01"), frame(0, b"1"), frame(0, b"2")].concat());
        peer.take(64);
        assert!(peer.frame().1.starts_with(b"\x05READY"));
        assert_eq!(peer.frame(), (4, b"\x04PONG".to_vec()));
        // As many as may be outstanding: the third comes when the first is overdue.
        for _ in 0..4 {
            assert_eq!(peer.frame(), (4, b"\x04PING\0\0".to_vec()));
        }
        peer.0.set_read_timeout(Some(10 * INTERVAL)).unwrap();
        let silence = std::io::Read::read(&mut peer.0, &mut [0]);
        assert!(silence.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock), "closed");
        peer.send(&frame(0, b"3"));
        for number in ["1", "2", "3"] {
            assert_eq!(pull.recv_blocking().unwrap().parts()[0], number);
        }
        assert!(matches!(pull.try_recv(), Err(Error::WouldBlock)));
    }
}

/// PINGs that piled up while the application was behind are answered once it reads on, and what follows them arrives.
///
/// Rules: MQ-176, MQ-167, MQ-170.
#[test]
fn pings_that_piled_up_are_answered() {
    // More than one read takes in.
    const PINGS: usize = 900;
    for driver in DRIVERS {
        let context = context(driver);
        let dealer = Dealer::with_options(&context, options_with(|options| options.rcvhwm = 1)).unwrap();
        let endpoint = dealer.bind_blocking(ANYWHERE).unwrap();
        let mut peer = Raw::up(&endpoint, "DEALER", "");
        peer.send(&frame(0, b"1"));
        until("reading is paused", || dealer.metrics().inbound.depth == 1);
        let pings = (0..PINGS).flat_map(|number| command("PING", format!("\0\0{number}").as_bytes()));
        peer.send(&[frame(0, b"2"), pings.collect(), frame(0, b"3")].concat());
        for number in ["1", "2", "3"] {
            assert_eq!(dealer.recv_blocking().unwrap().parts()[0], number);
        }
        for number in 0..PINGS {
            assert_eq!(peer.frame(), (4, format!("\x04PONG{number}").into_bytes()));
        }
        dealer.send_blocking("4").unwrap();
        assert_eq!(peer.frame(), (0, b"4".to_vec()));
    }
}
