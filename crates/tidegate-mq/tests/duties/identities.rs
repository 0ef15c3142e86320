//! Routing ids that are nobody's business, and types that do not fit.

use std::{net::TcpListener, time::Duration};

use tidegate_mq::{
    AnySocket, Context, Dealer, Error, Message, Router, SocketType,
    monitor::{CloseReason, EventKind},
    options::RoutingId,
};

use super::{
    peer::{Raw, frame},
    rig::{ANYWHERE, DRIVERS, context, established, options, options_with},
};

/// A peer that was connected to, and lost its routing id to a newcomer, is disconnected, and connected to again: it may
/// come under another one, and nobody who came meanwhile is taken for it.
///
/// Rules: MQ-209, MQ-182.
#[test]
fn who_lost_a_routing_id_is_dialed_again() {
    for driver in DRIVERS {
        let context = context(driver);
        let handing = options_with(|options| {
            options.router_handover = true;
            options.router_mandatory = true;
            options.reconnect_ivl = Some(Duration::from_millis(10));
        });
        let router = Router::with_options(&context, handing).unwrap();
        let monitor = router.monitor();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        router.connect(&format!("tcp://{}", listener.local_addr().unwrap())).unwrap();
        let mut first = Raw::of(listener.accept().unwrap().0);
        first.shake("DEALER", "same");
        established(&monitor);
        let endpoint = router.bind_blocking(ANYWHERE).unwrap();
        let mut newcomer = Raw::up(&endpoint, "DEALER", "same");
        established(&monitor);
        first.until_closed();
        let mut other = Raw::up(&endpoint, "DEALER", "other");
        established(&monitor);
        let mut again = Raw::of(listener.accept().unwrap().0);
        again.shake("DEALER", "again");
        established(&monitor);
        for (peer, id) in [(&mut newcomer, "same"), (&mut other, "other"), (&mut again, "again")] {
            router.send_blocking([id, "to", id].into_iter().collect::<Message>()).unwrap();
            assert_eq!((peer.frame(), peer.frame()), ((1, b"to".to_vec()), (0, id.into())));
            peer.send(&frame(0, b"from"));
            assert_eq!(router.recv_blocking().unwrap().parts(), [id, "from"]);
        }
    }
}

/// Two peers of the same routing id are two peers, to all but a ROUTER, and nothing of it is in their messages.
///
/// Rules: MQ-127.
#[test]
fn only_a_router_cares_for_routing_ids() {
    for driver in DRIVERS {
        for (kind, peers) in [
            (SocketType::Req, "REP"),
            (SocketType::Rep, "REQ"),
            (SocketType::Dealer, "DEALER"),
            (SocketType::Pub, "SUB"),
            (SocketType::XPub, "SUB"),
            (SocketType::Sub, "PUB"),
            (SocketType::XSub, "PUB"),
            (SocketType::Push, "PULL"),
            (SocketType::Pull, "PUSH"),
        ] {
            let context = context(driver);
            let socket = AnySocket::of_type_with(&context, kind, options()).unwrap();
            if kind == SocketType::Sub {
                socket.subscribe("").unwrap();
            }
            let monitor = socket.monitor();
            let endpoint = socket.bind_blocking(ANYWHERE).unwrap();
            for _ in 0..2 {
                let mut both = [Raw::up(&endpoint, peers, "same"), Raw::up(&endpoint, peers, "same")];
                for peer in &mut both {
                    if kind == SocketType::Sub {
                        assert_eq!(peer.frame().1, b"\x09SUBSCRIBE");
                    }
                    established(&monitor);
                    peer.has_been_heard();
                }
                match kind {
                    SocketType::Dealer | SocketType::Sub | SocketType::XSub | SocketType::Pull => {
                        for peer in &mut both {
                            peer.send(&frame(0, b"body"));
                            let got = socket.recv_blocking().unwrap();
                            assert_eq!(got.parts(), ["body"], "{kind:?}");
                        }
                    }
                    SocketType::Rep => {
                        for peer in &mut both {
                            peer.send(&[frame(1, b""), frame(0, b"body")].concat());
                            assert_eq!(socket.recv_blocking().unwrap().parts(), ["body"]);
                            socket.send_blocking("reply").unwrap();
                            assert_eq!((peer.frame(), peer.frame()), ((1, vec![]), (0, b"reply".to_vec())));
                        }
                    }
                    SocketType::Push => {
                        for _ in &both {
                            socket.send_blocking("body").unwrap();
                        }
                        for peer in &mut both {
                            assert_eq!(peer.frame(), (0, b"body".to_vec()), "each is served in turn");
                        }
                    }
                    _ => {}
                }
            }
        }
    }
}

/// The name that a ROUTER gives a peer is for the next connect, and no two peers have the same.
///
/// Rules: MQ-207.
#[test]
fn a_name_is_given_once() {
    let context = Context::new();
    let name = |router: &Router, name: &'static str| {
        router
            .set_options(|options| {
                options.connect_routing_id = Some(RoutingId::new(name)?);
                Ok(())
            })
            .unwrap();
    };
    let router =
        Router::with_options(&context, options_with(|options| options.router_mandatory = true)).unwrap();
    let dealers = [(); 3].map(|()| {
        let dealer = Dealer::with_options(&context, options()).unwrap();
        let endpoint = dealer.bind_blocking(ANYWHERE).unwrap();
        (dealer, endpoint)
    });
    name(&router, "first");
    router.connect(&dealers[0].1).unwrap();
    assert_eq!(router.options().connect_routing_id, None);
    router.connect(&dealers[1].1).unwrap();
    name(&router, "first");
    assert!(matches!(router.connect(&dealers[2].1), Err(Error::AddressInUse(_))));
    name(&router, "third");
    router.connect(&dealers[2].1).unwrap();
    for (to, (dealer, _)) in [("first", &dealers[0]), ("third", &dealers[2])] {
        router.send_to_blocking(to, to).unwrap();
        assert_eq!(dealer.recv_blocking().unwrap().parts(), [to]);
    }
}

/// Within a process, too, only those are linked who fit each other.
///
/// Rules: MQ-123.
#[test]
fn types_that_do_not_fit_are_not_linked() {
    let fits = |ours: SocketType, theirs: SocketType| match ours.name() {
        "REQ" => ["REP", "ROUTER"].contains(&theirs.name()),
        "REP" => ["REQ", "DEALER"].contains(&theirs.name()),
        "DEALER" => ["REP", "DEALER", "ROUTER"].contains(&theirs.name()),
        "ROUTER" => ["REQ", "DEALER", "ROUTER"].contains(&theirs.name()),
        "PUB" | "XPUB" => ["SUB", "XSUB"].contains(&theirs.name()),
        "SUB" | "XSUB" => ["PUB", "XPUB"].contains(&theirs.name()),
        "PUSH" => theirs.name() == "PULL",
        "PULL" => theirs.name() == "PUSH",
        "PAIR" => theirs.name() == "PAIR",
        other => panic!("{other}"),
    };
    let context = Context::new();
    for bound in SocketType::ALL {
        let socket = AnySocket::of_type_with(&context, bound, options()).unwrap();
        socket.bind_blocking("inproc://here").unwrap();
        for connecting in SocketType::ALL {
            let other = AnySocket::of_type_with(&context, connecting, options()).unwrap();
            match other.connect("inproc://here") {
                Ok(()) => assert!(fits(connecting, bound), "{connecting:?} to {bound:?} was linked"),
                Err(Error::IncompatibleProtocol { .. }) => {
                    assert!(!fits(connecting, bound), "{connecting:?} to {bound:?} was refused");
                }
                Err(error) => panic!("{error}"),
            }
            assert_eq!(socket.peers().len(), usize::from(fits(connecting, bound)));
            drop(other);
        }
        drop(socket);
    }
}

/// A name that is bound later, by the wrong type, links nobody; both sides are told, and who waits goes on waiting.
///
/// Rules: MQ-123, MQ-272.
#[test]
fn a_name_bound_by_the_wrong_type_is_waited_for() {
    let context = Context::new();
    let [early, wrong, right] = [SocketType::Push, SocketType::Push, SocketType::Pull]
        .map(|kind| AnySocket::of_type_with(&context, kind, options()).unwrap());
    let monitors = [early.monitor(), wrong.monitor()];
    early.connect("inproc://later").unwrap();
    early.send_blocking("for a PULL").unwrap();
    wrong.bind_blocking("inproc://later").unwrap();
    for (monitor, is_bound) in monitors.iter().zip([false, true]) {
        let event = monitor.try_next().expect("nobody was told");
        assert!(
            matches!(event.kind, EventKind::HandshakeFailed(CloseReason::InvalidSocketType)),
            "{event:?}"
        );
        assert_eq!((event.endpoint.as_str(), event.is_bound), ("inproc://later", is_bound));
    }
    assert!(wrong.peers().is_empty());
    assert!(matches!(wrong.try_send("x").unwrap_err().error, Error::WouldBlock));
    wrong.unbind("inproc://later").unwrap();
    right.bind_blocking("inproc://later").unwrap();
    assert_eq!(right.recv_blocking().unwrap().parts(), ["for a PULL"]);
}
