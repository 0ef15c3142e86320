//! Peers that never get as far as being peers.

use std::{
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};
use tidegate_mq::{
    Push,
    monitor::{CloseReason, EventKind, NotAccepted},
};

use super::{
    child::{self, Child, alone, say},
    peer::{Raw, address, greeting, ready},
    rig::{Attacked, DRIVERS, disconnected, event, fault, options, options_with, until},
};

/// Another protocol is told from ours by its first octet.
///
/// Rules: MQ-376.
#[test]
fn another_protocol_is_closed_at_its_first_octet() {
    for driver in DRIVERS {
        let mut attacked = Attacked::new(driver, options());
        for first in [b"G".as_slice(), b"\x16", b"\x00", b"\x01"] {
            let mut peer = Raw::connect(&attacked.endpoint);
            peer.send(first);
            assert_eq!(fault(&attacked.monitor), CloseReason::UnsupportedVersion, "{first:?}");
            peer.until_closed();
            attacked.serves();
        }
        attacked.ends_unharmed();
    }
}

const HANDSHAKE: Duration = Duration::from_millis(400);

/// Neither silence nor a trickle of octets keeps a place longer than the handshake may take.
///
/// Rules: MQ-384, MQ-385, MQ-285.
#[test]
fn a_slow_handshake_ends_at_the_deadline() {
    for driver in DRIVERS {
        let options = options_with(|options| options.handshake_ivl = Some(HANDSHAKE));
        let mut attacked = Attacked::new(driver, options);
        let whole = [greeting("NULL"), ready("PUSH", "")].concat();
        let silent: &[u8] = &[];
        // In one case the greeting is through, and the trickle is of READY.
        for (at_once, trickle) in [(silent, silent), (silent, &whole[..]), (&whole[..64], &whole[64..])] {
            let start = Instant::now();
            let mut peer = Raw::connect(&attacked.endpoint);
            peer.send(at_once);
            let mut octets = trickle.iter();
            let mut closed = false;
            peer.0.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            while !closed {
                if let Some(octet) = octets.next() {
                    peer.try_send(&[*octet]);
                }
                closed = matches!(std::io::Read::read(&mut peer.0, &mut [0; 256]), Ok(0) | Err(_) if is_over(&peer.0));
                assert!(start.elapsed() < HANDSHAKE * 20, "still open after {:?}", start.elapsed());
            }
            let took = start.elapsed();
            assert!(took >= HANDSHAKE, "closed early, after {took:?}");
            assert!(matches!(fault(&attacked.monitor), CloseReason::TimedOut(_)));
            attacked.serves();
        }
        attacked.ends_unharmed();
    }
}

/// Whether the other side has closed.
fn is_over(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let over = loop {
        match std::io::Read::read(&mut { stream }, &mut [0; 256]) {
            Ok(0) => break true,
            Ok(_) => {}
            Err(error) => break error.kind() != std::io::ErrorKind::WouldBlock,
        }
    };
    stream.set_nonblocking(false).unwrap();
    over
}

/// A connection from one of many addresses of this host.
fn connect_from(number: usize, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let from = SocketAddr::from(([127, 0, 1, 1 + (number % 200) as u8], 0));
    socket.bind(&from.into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.into()
}

/// With the default limits newcomers displace the oldest of those who do not get on with it, so that good peers are let
/// in; the table stays at its limit.
///
/// Rules: MQ-386, MQ-262.
#[test]
fn half_open_handshakes_give_way_to_good_peers() {
    for driver in DRIVERS {
        // Who finds the backlog full tries again after a second.
        let mut attacked = Attacked::new(driver, options_with(|options| options.backlog = 4096));
        let to = address(&attacked.endpoint);
        let mut peers = Vec::new();
        let mut worst = Duration::ZERO;
        for number in 0..HALF_OPEN {
            peers.push(connect_from(number, to));
            if number % 500 == 499 {
                let start = Instant::now();
                let push = Push::with_options(&attacked.context, options()).unwrap();
                push.connect(&attacked.endpoint).unwrap();
                push.send_blocking("late").unwrap();
                assert_eq!(attacked.pull.recv_blocking().unwrap().parts()[0], "late");
                worst = worst.max(start.elapsed());
            }
        }
        assert!(worst < Duration::from_secs(10), "a good peer took {worst:?}");
        let open = || peers.iter().filter(|peer| !is_over(peer)).count();
        until("the limit holds", || open() <= 1024);
        assert!(open() >= 900, "{} half-open handshakes are left", open());
        assert!(peers.iter().take(HALF_OPEN - 2000).all(is_over), "the oldest go first");
        attacked.serves();
        let turned_away = std::iter::from_fn(|| attacked.monitor.try_next())
            .filter(|event| matches!(event.kind, EventKind::AcceptFailed(NotAccepted::Displaced)))
            .count();
        assert!(turned_away > 0, "nobody was told of it");
        attacked.ends_unharmed();
    }
}

const HALF_OPEN: usize = 10_000;

/// Ten thousand that are all kept cost little memory, and do not delay a good peer.
///
/// Rules: MQ-386, MQ-286.
#[test]
fn ten_thousand_half_open_handshakes_are_cheap() {
    const NAME: &str = "handshake::ten_thousand_half_open_handshakes_are_cheap";
    if child::role().as_deref() == Some("attacker") {
        let endpoint = child::hear().unwrap();
        let peers: Vec<_> = (0..HALF_OPEN)
            .map(|number| {
                let mut peer = Raw::of(connect_from(number, address(&endpoint)));
                peer.send(&greeting("NULL"));
                peer.take(64);
                peer
            })
            .collect();
        say("ready");
        child::hear();
        return drop(peers);
    }
    let Some(driver) = alone(NAME) else { return };
    let options = options_with(|options| {
        options.max_pending_handshakes = 20_000;
        options.max_pending_handshakes_per_ip = 20_000;
    });
    let mut attacked = Attacked::new(driver, options);
    let mut attacker = Child::start(NAME, "attacker");
    let before = child::resident("self");
    attacker.tell(&attacked.endpoint);
    attacker.wait_for("ready");
    until("ten thousand are there", || child::descriptors() > HALF_OPEN);
    let grown = child::resident("self").saturating_sub(before);
    say(&format!("measured: {} KiB for each half-open handshake", grown / HALF_OPEN / 1024));
    assert!(grown < 160 << 20, "{} MiB", grown >> 20);

    let start = Instant::now();
    let push = Push::with_options(&attacked.context, self::options()).unwrap();
    push.connect(&attacked.endpoint).unwrap();
    push.send_blocking("good").unwrap();
    assert_eq!(attacked.pull.recv_blocking().unwrap().parts()[0], "good");
    assert!(start.elapsed() < Duration::from_secs(10), "a good peer took {:?}", start.elapsed());
    attacked.serves();
    attacker.kill();
    until("their places are free", || child::descriptors() < 100);
    attacked.ends_unharmed();
}

/// A peer that speaks another mechanism, or hangs up in the middle, concerns nobody else.
///
/// Rules: MQ-099, MQ-387.
#[test]
fn a_broken_handshake_concerns_nobody_else() {
    for driver in DRIVERS {
        let mut attacked = Attacked::new(driver, options());
        let mut peer = Raw::connect(&attacked.endpoint);
        peer.send(&greeting("CURVE"));
        assert_eq!(fault(&attacked.monitor), CloseReason::MechanismMismatch);
        let ours = peer.take(64);
        assert_eq!(
            (ours[0], ours[9], &ours[12..16]),
            (0xff, 0x7f, &b"NULL"[..]),
            "our greeting is sent whole"
        );
        peer.until_closed();

        let whole = [greeting("NULL"), ready("PUSH", "")].concat();
        for len in [1, 10, 63, 64, 65, 80, whole.len() - 1] {
            let mut peer = Raw::connect(&attacked.endpoint);
            peer.send(&whole[..len]);
            drop(peer);
            assert!(matches!(fault(&attacked.monitor), CloseReason::Disconnected { .. }), "{len}");
            event(&attacked.monitor, "end", disconnected);
        }
        attacked.serves();
        attacked.ends_unharmed();
    }
}
