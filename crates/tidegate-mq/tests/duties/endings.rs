//! What becomes of messages when an endpoint is given up.

use std::{
    net::{TcpListener, TcpStream},
    time::Duration,
};

use tidegate_mq::{Error, Pull, Push};

use super::{
    peer::{PATIENCE, Raw, address, frame, greeting, ready},
    rig::{ANYWHERE, DRIVERS, context, established, options, options_with, until},
};

/// Closing what a listener has accepted needs no call of the application; what was received stays readable, and what was
/// queued goes out first.
///
/// Rules: MQ-275.
#[test]
fn an_unbound_endpoint_lets_its_connections_go() {
    for driver in DRIVERS {
        let context = context(driver);
        let pull = Pull::with_options(&context, options()).unwrap();
        let endpoint = pull.bind_blocking(ANYWHERE).unwrap();
        let mut peer = Raw::up(&endpoint, "PUSH", "");
        peer.send(&frame(0, b"before"));
        peer.has_been_heard();
        pull.unbind(&endpoint).unwrap();
        peer.until_closed();
        assert!(TcpStream::connect(address(&endpoint)).is_err(), "somebody listens still");
        assert_eq!(pull.recv_blocking().unwrap().parts()[0], "before");
        assert!(matches!(pull.try_recv(), Err(Error::WouldBlock)));

        let lingering = options_with(|options| {
            options.linger = None;
            options.sndbuf = Some(8192);
        });
        let push = Push::with_options(&context, lingering).unwrap();
        let monitor = push.monitor();
        let endpoint = push.bind_blocking(ANYWHERE).unwrap();
        let mut peer = Raw::up(&endpoint, "PULL", "");
        established(&monitor);
        let large = vec![7; 60_000];
        for _ in 0..30 {
            push.send_blocking(large.clone()).unwrap();
        }
        push.unbind(&endpoint).unwrap();
        assert!(matches!(push.try_send("late").unwrap_err().error, Error::WouldBlock));
        for _ in 0..30 {
            assert_eq!(peer.frame(), (2, large.clone()));
        }
        peer.until_closed();
    }
}

/// Rules: MQ-275, MQ-523.
#[test]
fn connections_may_be_kept_without_their_endpoint() {
    for driver in DRIVERS {
        let context = context(driver);
        let push = Push::with_options(&context, options()).unwrap();
        let monitor = push.monitor();
        let endpoint = push.bind_blocking(ANYWHERE).unwrap();
        let mut peer = Raw::up(&endpoint, "PULL", "");
        established(&monitor);
        push.unbind_keep(&endpoint).unwrap();
        until("nobody listens", || TcpStream::connect(address(&endpoint)).is_err());
        for _ in 0..3 {
            push.send_blocking("kept").unwrap();
            assert_eq!(peer.frame(), (0, b"kept".to_vec()));
        }
        assert!(matches!(push.unbind_keep(&endpoint), Err(Error::NotFound(_))));
        peer.has_been_heard();
    }
}

/// Every connection to the endpoint ends; what it has sent and nobody has read is dropped, what is queued for it goes out.
///
/// Rules: MQ-275.
#[test]
fn a_disconnected_endpoint_is_heard_no_more() {
    for driver in DRIVERS {
        let context = context(driver);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
        let accept = |kind: &str| {
            let mut peer = Raw::of(listener.accept().unwrap().0);
            peer.shake(kind, "");
            peer
        };
        let pull = Pull::with_options(&context, options()).unwrap();
        let other = pull.bind_blocking(ANYWHERE).unwrap();
        let mut peers = [(); 2].map(|()| {
            pull.connect(&endpoint).unwrap();
            accept("PUSH")
        });
        for peer in &mut peers {
            peer.send(&frame(0, b"unread"));
            peer.has_been_heard();
        }
        pull.disconnect(&endpoint).unwrap();
        for mut peer in peers {
            peer.until_closed();
        }
        assert!(matches!(pull.try_recv(), Err(Error::WouldBlock)));
        assert!(matches!(pull.disconnect(&endpoint), Err(Error::NotFound(_))));
        let mut stays = Raw::up(&other, "PUSH", "");
        stays.send(&frame(0, b"heard"));
        assert_eq!(pull.recv_blocking().unwrap().parts()[0], "heard");

        let lingering = options_with(|options| {
            options.linger = Some(PATIENCE);
            options.sndbuf = Some(8192);
            options.sndtimeo = Some(Duration::from_secs(5));
        });
        let push = Push::with_options(&context, lingering).unwrap();
        push.connect(&endpoint).unwrap();
        let mut peer = accept("PULL");
        let large = vec![7; 60_000];
        for _ in 0..30 {
            push.send_blocking(large.clone()).unwrap();
        }
        push.disconnect(&endpoint).unwrap();
        for _ in 0..30 {
            assert_eq!(peer.frame(), (2, large.clone()));
        }
        peer.until_closed();
    }
}

/// Whose handshake is complete only after the socket was closed is sent away.
///
/// Rules: MQ-080.
#[test]
fn a_closed_socket_has_no_new_peers() {
    for driver in DRIVERS {
        let context = context(driver);
        let pull = Pull::with_options(&context, options()).unwrap();
        let endpoint = pull.bind_blocking(ANYWHERE).unwrap();
        let mut peer = Raw::connect(&endpoint);
        peer.send(&greeting("NULL"));
        peer.take(64);
        tidegate_io::wait::block_on(pull.close(Some(Duration::ZERO)), None).unwrap();
        peer.try_send(&ready("PUSH", ""));
        peer.until_closed();
    }
}
