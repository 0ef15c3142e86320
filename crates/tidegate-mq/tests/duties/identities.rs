//! Routing ids that are nobody's business, and types that do not fit.

use tidegate_mq::{AnySocket, Context, Dealer, Error, Router, SocketType, options::RoutingId};

use super::{
    peer::{Raw, frame},
    rig::{ANYWHERE, DRIVERS, context, established, options, options_with},
};

const TYPES: [SocketType; 11] = [
    SocketType::Req,
    SocketType::Rep,
    SocketType::Dealer,
    SocketType::Router,
    SocketType::Pub,
    SocketType::Sub,
    SocketType::XPub,
    SocketType::XSub,
    SocketType::Push,
    SocketType::Pull,
    SocketType::Pair,
];

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
    for bound in TYPES {
        let socket = AnySocket::of_type_with(&context, bound, options()).unwrap();
        socket.bind_blocking("inproc://here").unwrap();
        for connecting in TYPES {
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
    // A name that is bound later, by the wrong type, links nobody.
    let early = AnySocket::of_type_with(&context, SocketType::Push, options()).unwrap();
    early.connect("inproc://later").unwrap();
    let late = AnySocket::of_type_with(&context, SocketType::Push, options()).unwrap();
    late.bind_blocking("inproc://later").unwrap();
    assert!(late.peers().is_empty());
    assert!(matches!(late.try_send("x").unwrap_err().error, Error::WouldBlock));
}
