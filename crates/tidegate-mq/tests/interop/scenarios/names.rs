//! Requests with numbers, routing ids that collide, and many peers of one ROUTER.

use std::thread;

use tidegate_mq::{Dealer, Error, Message, Part, Router, SocketType, monitor::EventKind};

use super::{DRIVERS, NEWEST, Pairing, they_bind, we_bind};
use crate::{
    cell::{Transport, place},
    ours::{self, options, wait_down, wait_for, wait_up},
    peer::{Peer, event, words},
};

fn message<const N: usize>(parts: [&str; N]) -> Message {
    parts.into_iter().map(Part::from).collect()
}

/// The answer to a request that was given up is not taken for that to the next one.
///
/// Rules: MQ-193, MQ-196, MQ-508.
#[test]
fn requests_of_ours_are_numbered() {
    for driver in DRIVERS {
        let mut options = options();
        options.req_correlate = true;
        options.req_relaxed = true;
        let Pairing { mut peer, ours, context, .. } =
            they_bind(Peer::start(NEWEST), driver, (SocketType::Req, options), (SocketType::Router, ""));
        let mut envelope = |question: &str| {
            ours.put(question.into()).unwrap();
            let got = peer.ask("recv s");
            let envelope =
                got.strip_suffix(&format!(" - {}", words([question]))).expect("id, number, delimiter");
            assert_eq!(envelope.split(' ').nth(1).map(str::len), Some(8), "a number of four octets");
            envelope.to_owned()
        };
        let [first, second] = ["first", "second"].map(&mut envelope);
        assert_ne!(first, second);
        peer.ask(format!("send s {first} - {}", words(["late"])));
        peer.ask(format!("send s {second} - {}", words(["in time"])));
        assert_eq!(ours.take().unwrap().parts(), ["in time"]);
        context.term_blocking();
    }
}

/// Rules: MQ-508.
#[test]
fn requests_of_theirs_are_numbered() {
    for driver in DRIVERS {
        let Pairing { mut peer, ours, context, .. } = we_bind(
            Peer::start(NEWEST),
            driver,
            (SocketType::Router, options()),
            (SocketType::Req, "req_correlate=1 req_relaxed=1"),
        );
        let mut requests = ["first", "second"].map(|question| {
            peer.ask(format!("send s {}", words([question])));
            let got = ours.take().unwrap();
            assert_eq!((got.len(), got.parts()[1].len()), (4, 4), "id, number, delimiter, question");
            assert_eq!(got.parts()[3], question);
            got
        });
        for request in &mut requests {
            ours.put(request.clone()).unwrap();
        }
        assert_eq!(peer.ask("recv s"), words(["second"]));
        context.term_blocking();
    }
}

/// Rules: MQ-209, MQ-508.
#[test]
fn handover() {
    for driver in DRIVERS {
        let mut options = options();
        options.router_handover = true;
        options.router_mandatory = true;
        let dealer = format!("routing_id={}", words(["X"]));
        let Pairing { mut peer, ours, monitor, context, endpoint } = we_bind(
            Peer::start(NEWEST),
            driver,
            (SocketType::Router, options),
            (SocketType::Dealer, &dealer),
        );
        peer.ask(format!("send s {}", words(["from the first"])));
        assert_eq!(ours.take().unwrap().parts(), ["X", "from the first"]);

        peer.ask(format!("open t c DEALER {dealer}"));
        peer.ask(format!("connect t {endpoint}"));
        wait_up(&monitor);
        peer.ask(format!("send t {}", words(["from the second"])));
        assert_eq!(ours.take().unwrap().parts(), ["X", "from the second"]);
        ours.put(message(["X", "to the second"])).unwrap();
        assert_eq!(peer.ask("recv t"), words(["to the second"]));
        peer.wait("s", event::DISCONNECTED);
        context.term_blocking();
    }
}

/// Rules: MQ-208, MQ-508.
#[test]
fn mandatory_without_handover() {
    for driver in DRIVERS {
        let mut options = options();
        options.router_mandatory = true;
        let dealer = format!("reconnect_ivl=10 routing_id={}", words(["X"]));
        let Pairing { mut peer, ours, monitor, context, endpoint } = we_bind(
            Peer::start(NEWEST),
            driver,
            (SocketType::Router, options),
            (SocketType::Dealer, &dealer),
        );
        let stranger = ours.put(message(["Y", "lost"]));
        assert!(matches!(stranger, Err(Error::HostUnreachable)), "{stranger:?}");
        ours.put(message(["X", "found"])).unwrap();
        assert_eq!(peer.ask("recv s"), words(["found"]));

        // A second one of that name is turned away until the first is gone.
        peer.ask(format!("open t c DEALER {dealer}"));
        peer.ask(format!("connect t {endpoint}"));
        wait_for(&monitor, "a refusal", |event| matches!(event, EventKind::RoutingIdInUse).then_some(()));
        peer.ask("close s");
        wait_for(&monitor, "the second", |event| {
            matches!(event, EventKind::HandshakeSucceeded { .. }).then_some(())
        });
        ours.put(message(["X", "at last"])).unwrap();
        assert_eq!(peer.ask("recv t"), words(["at last"]));
        peer.ask("close t");
        wait_down(&monitor);
        let gone = ours.put(message(["X", "lost"]));
        assert!(matches!(gone, Err(Error::HostUnreachable)), "{gone:?}");
        context.term_blocking();
    }
}

/// A hundred clients of ours and a hundred of theirs at one ROUTER of ours.
///
/// Rules: MQ-508.
#[test]
fn two_hundred_clients() {
    const CLIENTS: usize = 100;
    const ROUNDS: usize = 5;
    for driver in DRIVERS {
        let context = ours::context(driver);
        let router = Router::with_options(&context, options()).unwrap();
        let endpoint = router.bind_blocking(&place(Transport::Tcp).0).unwrap();
        let server = thread::spawn(move || {
            for _ in 0..2 * CLIENTS * ROUNDS {
                router.send_blocking(router.recv_blocking().unwrap()).unwrap();
            }
            router
        });
        let mut peer = Peer::start(NEWEST);
        let ours: Vec<Dealer> = (0..CLIENTS)
            .map(|index| {
                peer.tell(format!("open d{index} c DEALER"));
                peer.tell(format!("connect d{index} {endpoint}"));
                let dealer = Dealer::with_options(&context, options()).unwrap();
                dealer.connect(&endpoint).unwrap();
                dealer
            })
            .collect();
        (0..2 * CLIENTS).for_each(|_| drop(peer.answer()));
        for round in 0..ROUNDS {
            let text = |index: usize| format!("{round} {index}");
            for (index, dealer) in ours.iter().enumerate() {
                peer.tell(format!("send d{index} {}", words([text(index)])));
                dealer.send_blocking(text(index)).unwrap();
            }
            (0..CLIENTS).for_each(|_| drop(peer.answer()));
            for (index, dealer) in ours.iter().enumerate() {
                assert_eq!(dealer.recv_blocking().unwrap().parts(), [text(index)]);
                assert_eq!(peer.ask(format!("recv d{index}")), words([text(index)]));
            }
        }
        drop(server.join().unwrap());
        drop(peer);
        context.term_blocking();
    }
}
