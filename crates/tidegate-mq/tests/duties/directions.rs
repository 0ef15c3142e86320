//! Reading and writing of a connection go on without each other.

use std::{
    io::{ErrorKind, Write},
    time::Duration,
};

use tidegate_mq::{Dealer, Error};

use super::{
    peer::{PATIENCE, Raw, frame},
    rig::{ANYWHERE, DRIVERS, context, options_with},
};

/// While a peer does not read, what it writes arrives; while we do not read, what we write arrives.
///
/// Rules: MQ-032.
#[test]
fn a_direction_that_is_stuck_does_not_hold_the_other_up() {
    for driver in DRIVERS {
        let context = context(driver);
        let dealer = Dealer::with_options(
            &context,
            options_with(|options| {
                (options.sndhwm, options.rcvhwm) = (2, 2);
                (options.sndbuf, options.rcvbuf) = (Some(8192), Some(8192));
                options.sndtimeo = Some(Duration::from_millis(100));
            }),
        )
        .unwrap();
        let endpoint = dealer.bind_blocking(ANYWHERE).unwrap();
        let large = vec![7; 60_000];

        let mut peer = Raw::up(&endpoint, "DEALER", "");
        let refused = loop {
            if let Err(refused) = dealer.send_blocking(large.clone()) {
                break refused.error;
            }
        };
        assert!(matches!(refused, Error::Timeout), "{refused}");
        for number in 0..100_u8 {
            peer.send(&frame(0, &[number]));
            assert_eq!(dealer.recv_blocking().unwrap().parts()[0], [number]);
        }
        assert!(matches!(dealer.try_send(large.clone()).unwrap_err().error, Error::WouldBlock), "unstuck");
        drop(peer);

        let mut peer = Raw::up(&endpoint, "DEALER", "");
        peer.0.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
        let stuck = std::iter::repeat_with(|| peer.0.write_all(&frame(0, &large))).find_map(Result::err);
        assert!(matches!(stuck.unwrap().kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut));
        dealer
            .set_options(|options| {
                options.sndtimeo = Some(PATIENCE);
                Ok(())
            })
            .unwrap();
        for number in 0..100_u8 {
            dealer.send_blocking(&[number][..]).unwrap();
            assert_eq!(peer.frame(), (0, vec![number]));
        }
    }
}
