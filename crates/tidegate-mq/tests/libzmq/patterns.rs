//! DEALER, PUSH, PULL and REP: who gets a message, and whose turn it is to be heard.

use std::{
    io::Read,
    net::TcpStream,
    time::{Duration, Instant},
};

use tidegate_mq::{Dealer, Error, Message, Pull, Push, Rep, Router};

use crate::support::*;

const PEERS: usize = 5;

/// libzmq: test_spec_dealer/round_robin_out.
///
/// Rules: MQ-203, MQ-189.
#[test]
fn dealer_round_robin_out() {
    for endpoint in TRANSPORTS {
        let context = context();
        let dealer = Dealer::with_options(&context, options()).unwrap();
        let monitor = dealer.monitor();
        let endpoint = dealer.bind_blocking(endpoint).unwrap();
        let make = |_| Rep::with_options(&context, options()).unwrap();
        let services = crowd(&endpoint, &monitor, PEERS, make, |socket, at| socket.connect(at));
        for round in 0..3_u8 {
            for _ in 0..PEERS {
                dealer.send_blocking(message([&b""[..], &[round]])).unwrap();
            }
            for service in &services {
                expect(service, &[&[round]]);
                service.send_blocking("done").unwrap();
            }
            for _ in 0..PEERS {
                expect(&dealer, &[b"", b"done"]);
            }
        }
    }
}

/// libzmq: test_spec_pushpull/round_robin_out.
///
/// Rules: MQ-241, MQ-189.
#[test]
fn push_round_robin_out() {
    for endpoint in TRANSPORTS {
        let context = context();
        let push = Push::with_options(&context, options()).unwrap();
        let monitor = push.monitor();
        let endpoint = push.bind_blocking(endpoint).unwrap();
        let make = |_| Pull::with_options(&context, options()).unwrap();
        let services = crowd(&endpoint, &monitor, PEERS, make, |socket, at| socket.connect(at));
        for round in 0..2_u8 {
            for _ in 0..PEERS {
                push.send_blocking(&[round]).unwrap();
            }
        }
        for service in &services {
            expect(service, &[&[0]]);
            expect(service, &[&[1]]);
        }
    }
}

/// libzmq: test_spec_dealer/fair_queue_in.
///
/// Rules: MQ-203, MQ-188, MQ-072.
#[test]
fn dealer_fair_queue_in() {
    for endpoint in TRANSPORTS {
        let context = context();
        let dealer = Dealer::with_options(&context, options()).unwrap();
        let monitor = dealer.monitor();
        let endpoint = dealer.bind_blocking(endpoint).unwrap();
        let make = |_| Dealer::with_options(&context, options()).unwrap();
        let senders = crowd(&endpoint, &monitor, PEERS, make, |socket, at| socket.connect(at));
        for (number, sender) in senders.iter().enumerate() {
            for _ in 0..4 {
                sender.send_blocking(&[number as u8]).unwrap();
            }
        }
        close_all(senders, &monitor, &endpoint);
        assert_turns(4, || dealer.recv_blocking().unwrap().parts()[0][0]);
    }
}

/// Every peer is heard once per round.
fn assert_turns(rounds: usize, mut hear: impl FnMut() -> u8) {
    for round in 0..rounds {
        let mut heard: Vec<u8> = (0..PEERS).map(|_| hear()).collect();
        heard.sort_unstable();
        assert_eq!(heard, (0..PEERS as u8).collect::<Vec<_>>(), "round {round}");
    }
}

/// libzmq: test_spec_pushpull/fair_queue_in.
///
/// Rules: MQ-241, MQ-188, MQ-072.
#[test]
fn pull_fair_queue_in() {
    for endpoint in TRANSPORTS {
        let context = context();
        let pull = Pull::with_options(&context, options()).unwrap();
        let monitor = pull.monitor();
        let endpoint = pull.bind_blocking(endpoint).unwrap();
        let make = |_| Push::with_options(&context, options()).unwrap();
        let senders = crowd(&endpoint, &monitor, PEERS, make, |socket, at| socket.connect(at));
        for (number, sender) in senders.iter().enumerate() {
            for _ in 0..4 {
                sender.send_blocking(&[number as u8]).unwrap();
            }
        }
        close_all(senders, &monitor, &endpoint);
        assert_turns(4, || pull.recv_blocking().unwrap().parts()[0][0]);
    }
}

/// libzmq: test_spec_router/fair_queue_in.
///
/// Rules: MQ-206, MQ-188, MQ-072.
#[test]
fn router_fair_queue_in() {
    for endpoint in TRANSPORTS {
        let context = context();
        let router = Router::with_options(&context, options()).unwrap();
        let monitor = router.monitor();
        let endpoint = router.bind_blocking(endpoint).unwrap();
        let make = |number: usize| {
            Dealer::with_options(
                &context,
                with(|options| {
                    options.set_raw(5, &[b'A' + number as u8]).unwrap();
                }),
            )
            .unwrap()
        };
        let senders = crowd(&endpoint, &monitor, PEERS, make, |socket, at| socket.connect(at));
        for (number, sender) in senders.iter().enumerate() {
            for _ in 0..4 {
                sender.send_blocking(&[number as u8]).unwrap();
            }
        }
        close_all(senders, &monitor, &endpoint);
        assert_turns(4, || {
            let heard = router.recv_blocking().unwrap();
            let number = heard.parts()[1][0];
            assert_eq!(parts(&heard), [&[b'A' + number][..], &[number]]);
            number
        });
    }
}

/// libzmq: test_spec_rep/fair_queue_in.
///
/// Rules: MQ-200, MQ-188.
#[test]
fn rep_fair_queue_in() {
    for endpoint in TRANSPORTS {
        let context = context();
        let rep = Rep::with_options(&context, options()).unwrap();
        let monitor = rep.monitor();
        let endpoint = rep.bind_blocking(endpoint).unwrap();
        let make = |_| Dealer::with_options(&context, options()).unwrap();
        let senders = crowd(&endpoint, &monitor, PEERS, make, |socket, at| socket.connect(at));
        for (number, sender) in senders.iter().enumerate() {
            for _ in 0..4 {
                sender.send_blocking(message([&b""[..], &[number as u8]])).unwrap();
            }
        }
        close_all(senders, &monitor, &endpoint);
        assert_turns(4, || {
            let request = rep.recv_blocking().unwrap();
            rep.send_blocking("nobody is there to hear it").unwrap();
            request.parts()[0][0]
        });
    }
}

/// libzmq: test_spec_rep/envelope.
///
/// Rules: MQ-200.
#[test]
fn rep_envelope() {
    for endpoint in TRANSPORTS {
        let context = context();
        let rep = Rep::with_options(&context, options()).unwrap();
        let endpoint = rep.bind_blocking(endpoint).unwrap();
        let dealer = Dealer::with_options(&context, options()).unwrap();
        dealer.connect(&endpoint).unwrap();
        let envelopes: [&[&[u8]]; 3] = [&[b""], &[b"X", b""], &[b"X", b"\0Y", b"a longer one", b""]];
        for envelope in envelopes {
            let mut request: Message = envelope.iter().copied().collect();
            request.extend([&b"ask"[..], b"", b"more"]);
            dealer.send_blocking(request).unwrap();
            expect(&rep, &[b"ask", b"", b"more"]);
            rep.send_blocking("reply").unwrap();
            expect(&dealer, &[envelope, &[b"reply"]].concat());
        }
    }
}

/// libzmq: test_spec_dealer/block_on_send_no_peers, test_spec_pushpull/block_on_send_no_peers.
///
/// Rules: MQ-186, MQ-187, MQ-372.
#[test]
fn block_on_send_no_peers() {
    let context = context();
    let patience = Duration::from_millis(100);
    let options = with(|options| options.sndtimeo = Some(patience));
    let dealer = Dealer::with_options(&context, options.clone()).unwrap();
    let push = Push::with_options(&context, options).unwrap();
    for endpoint in TRANSPORTS {
        dealer.bind_blocking(&format!("{endpoint}1").replace("*1", "*")).unwrap();
        push.bind_blocking(&format!("{endpoint}2").replace("*2", "*")).unwrap();
    }
    let refused = dealer.try_send("mine").unwrap_err();
    assert!(matches!(refused.error, Error::WouldBlock), "{refused:?}");
    assert_eq!(parts(&refused.message), [b"mine"]);
    assert!(matches!(push.try_send("mine").unwrap_err().error, Error::WouldBlock));
    for is_dealer in [true, false] {
        let started = Instant::now();
        let sent = if is_dealer { dealer.send_blocking("x") } else { push.send_blocking("x") };
        let refused = sent.unwrap_err();
        assert!(matches!(refused.error, Error::Timeout), "{refused:?}");
        assert!(started.elapsed() >= patience, "{:?}", started.elapsed());
        assert_eq!(refused.error.errno(), 11);
    }
}

/// libzmq: test_spec_pushpull/destroy_queue_on_disconnect.
///
/// Rules: MQ-182, MQ-242, MQ-276.
#[test]
fn push_destroys_queue_on_disconnect() {
    for endpoint in TRANSPORTS {
        let context = context();
        let push = Push::with_options(&context, with(|options| options.sndhwm = 1)).unwrap();
        let monitor = push.monitor();
        let endpoint = push.bind_blocking(endpoint).unwrap();
        let pull = Pull::with_options(&context, with(|options| options.rcvhwm = 1)).unwrap();
        pull.connect(&endpoint).unwrap();
        peers(&monitor, &endpoint, 1);
        let big = vec![b'o'; 1 << 20];
        until("the queue is full", || matches!(push.try_send(big.clone()), Err(e) if e.error.errno() == 11));
        pull.disconnect(&endpoint).unwrap();
        partings(&monitor, &endpoint, 1);
        until("no peer is left", || push.try_send("lost").is_err());
        assert!(matches!(pull.try_recv(), Err(Error::WouldBlock)));
        pull.connect(&endpoint).unwrap();
        push.send_blocking("new").unwrap();
        expect(&pull, &[b"new"]);
    }
}

/// libzmq: test_spec_router/destroy_queue_on_disconnect.
///
/// Rules: MQ-182, MQ-206, MQ-276.
#[test]
fn router_destroys_queue_on_disconnect() {
    for endpoint in TRANSPORTS {
        let context = context();
        let router = Router::with_options(
            &context,
            with(|options| {
                options.sndhwm = 1;
                options.router_mandatory = true;
            }),
        )
        .unwrap();
        let monitor = router.monitor();
        let endpoint = router.bind_blocking(endpoint).unwrap();
        let named = with(|options| {
            options.rcvhwm = 1;
            options.set_raw(5, b"B").unwrap();
        });
        let dealer = Dealer::with_options(&context, named).unwrap();
        dealer.connect(&endpoint).unwrap();
        peers(&monitor, &endpoint, 1);
        let big = message([b"B".to_vec(), vec![b'o'; 1 << 20]]);
        until(
            "the queue is full",
            || matches!(router.try_send(big.clone()), Err(e) if matches!(e.error, Error::WouldBlock)),
        );
        dealer.disconnect(&endpoint).unwrap();
        partings(&monitor, &endpoint, 1);
        until(
            "the peer is unknown",
            || matches!(router.try_send(big.clone()), Err(e) if matches!(e.error, Error::HostUnreachable)),
        );
        dealer.connect(&endpoint).unwrap();
        peers(&monitor, &endpoint, 1);
        router.send_blocking(message(["B", "new"])).unwrap();
        expect(&dealer, &[b"new"]);
    }
}

/// libzmq: test_spec_pushpull/push_multipart_atomic_drop, push_multipart_atomic_drop_block.
///
/// Rules: MQ-243, MQ-192.
#[test]
fn push_multipart_atomic_drop() {
    for endpoint in TRANSPORTS {
        let context = context();
        let push = Push::with_options(&context, with(|options| options.sndhwm = 1)).unwrap();
        let monitor = push.monitor();
        let endpoint = push.bind_blocking(endpoint).unwrap();
        let whole = |number: u8| message([vec![number], vec![number; 16 << 20], vec![number]]);
        for round in 0..3_u8 {
            let pull = Pull::with_options(&context, with(|options| options.rcvhwm = 1)).unwrap();
            pull.connect(&endpoint).unwrap();
            peers(&monitor, &endpoint, 1);
            for _ in 0..2 {
                push.send_blocking(whole(round)).unwrap();
            }
            let received = pull.recv_blocking().unwrap();
            assert_eq!(received, whole(round), "{endpoint}");
            drop(pull);
            partings(&monitor, &endpoint, 1);
            until("no peer is left", || push.try_send(whole(round)).is_err());
        }
        if let Some(address) = endpoint.strip_prefix("tcp://") {
            // One that takes half of a message and goes.
            let mut peer = TcpStream::connect(address).unwrap();
            crate::raw::handshake(&mut peer, 1, "PULL", &[]);
            push.send_blocking(whole(9)).unwrap();
            peer.read_exact(&mut vec![0; 8 << 20]).unwrap();
            drop(peer);
            partings(&monitor, &endpoint, 1);
        }
        let pull = Pull::with_options(&context, options()).unwrap();
        pull.connect(&endpoint).unwrap();
        push.send_blocking(whole(10)).unwrap();
        assert_eq!(pull.recv_blocking().unwrap(), whole(10));
    }
}
