//! Named cases of ROUTER.

use super::*;

/// libzmq: test_router_mandatory/basic, test_issue_566.
///
/// Rules: MQ-302, MQ-213.
#[test]
fn unknown_ids_are_dropped_or_reported() {
    let mut rig = Rig::new(SocketType::Router);
    assert_eq!(rig.send(&[b"X", b"lost"]), Ok(()));
    assert_eq!(rig.state.totals().unroutable, 1);
    rig.state.configure(|settings| settings.router_mandatory = true);
    assert_eq!(rig.send(&[b"X", b"lost"]), Err(SendRefusal::HostUnreachable));
    for n in 0..100 {
        let id = format!("peer {n}");
        let peer = rig.try_accept(&id).expect("a new id");
        assert_eq!(rig.send(&[id.as_bytes(), b"hello"]), Ok(()));
        assert_eq!(rig.take(peer), [text(&["hello"])]);
        rig.down(peer, false);
    }
    assert_eq!(rig.send(&[b"peer 0", b"x"]), Err(SendRefusal::HostUnreachable));
}

/// libzmq: test_router_mandatory_hwm, test_router_mandatory/get_peer_state.
///
/// Rules: MQ-212, MQ-302.
#[test]
fn a_full_peer_blocks_or_drops() {
    let mut rig = Rig::with(SocketType::Router, |settings| settings.send = messages(2));
    let peer = rig.try_accept("X").expect("a new id");
    (0..5).for_each(|_| rig.send(&[b"X", b"x"]).expect("never blocks"));
    assert_eq!(rig.reading(peer).out.dropped_full, 3);
    assert!(rig.state.readiness().writable);
    rig.state.configure(|settings| settings.router_mandatory = true);
    assert_eq!(rig.send(&[b"X", b"x"]), Err(SendRefusal::WouldBlock(Awaited::RoomOn(peer.key))));
    assert!(!rig.state.readiness().writable);
    assert_eq!(rig.state.peer_state(b"X"), Ok(Some(Readiness { readable: false, writable: false })));
    rig.effects();
    assert_eq!(rig.take_some(peer, 1).len(), 1);
    assert!(rig.effects().list.contains(&Effect::WakeFor(peer.key)));
    assert_eq!(rig.send(&[b"X", b"x"]), Ok(()));
    assert_eq!(rig.receive(peer, &[b"hi"]), Received::Taken);
    assert_eq!(rig.state.peer_state(b"X"), Ok(Some(Readiness { readable: true, writable: false })));
    assert_eq!(rig.state.peer_state(b"Y"), Ok(None));
    assert_eq!(Rig::new(SocketType::Dealer).state.peer_state(b"X"), Err(NotSupported));
    rig.down(peer, false);
    assert!(
        rig.effects().list.contains(&Effect::WakeFor(peer.key)),
        "who waits learns that the peer is gone"
    );
}

/// Rules: MQ-439.
#[test]
fn a_message_of_only_an_id_is_dropped() {
    let mut rig = Rig::with(SocketType::Router, |settings| settings.router_mandatory = true);
    let peer = rig.try_accept("X").expect("a new id");
    assert_eq!(rig.send(&[b"X"]), Ok(()));
    assert!(rig.take(peer).is_empty());
    assert_eq!(rig.state.totals().unroutable, 1);
}

/// libzmq: test_invalid_rep. What a ROUTER cannot send does not disturb what follows.
///
/// Rules: MQ-439, MQ-205.
#[test]
fn nothing_is_inserted_into_messages() {
    let mut rig = Rig::new(SocketType::Router);
    let peer = rig.try_accept("X").expect("a new id");
    assert_eq!(rig.receive(peer, &[b"", b"ask"]), Received::Taken);
    assert_eq!(rig.recv(), Ok(text(&["X", "", "ask"])));
    assert_eq!(rig.receive(peer, &[b"bare"]), Received::Taken);
    assert_eq!(rig.recv(), Ok(text(&["X", "bare"])));
    rig.send(&[b"X"]).expect("dropped");
    rig.send(&[b"X", b"", b"World"]).expect("known");
    assert_eq!(rig.take(peer), [text(&["", "World"])]);
}

/// libzmq: test_probe_router/router. Generated ids have five octets, the first of them zero, and count up.
///
/// Rules: MQ-128, MQ-206.
#[test]
fn anonymous_peers_get_ids() {
    let mut rig = Rig::new(SocketType::Router);
    for n in 7_u32..10 {
        let peer = rig.accept();
        assert_eq!(rig.receive(peer, &[b""]), Received::Taken);
        let id = rig.recv().expect("one message").remove(0);
        assert_eq!(id, [&[0], n.to_be_bytes().as_slice()].concat());
        rig.send(&[&id, b"back"]).expect("known");
        assert_eq!(rig.take(peer), [text(&["back"])]);
    }
}

/// libzmq: test_connect_rid/router_2_router_named, while_receiving.
///
/// Rules: MQ-206, MQ-207, MQ-322.
#[test]
fn a_chosen_id_works_before_the_connection() {
    let mut rig = Rig::with(SocketType::Router, |settings| settings.router_mandatory = true);
    let waiting = rig.try_accept("other").expect("a new id");
    assert_eq!(rig.receive(waiting, &[b"unread"]), Received::Taken);
    let key = rig.state.open_pipe(Some(Part::from("X"))).expect("a new id");
    assert_eq!(rig.state.open_pipe(Some(Part::from("X"))), Err(Refusal::RoutingIdInUse));
    assert_eq!(rig.state.open_pipe(Some(Part::from("other"))), Err(Refusal::RoutingIdInUse));
    rig.send(&[b"X", b"early"]).expect("known at once");
    let peer = rig.try_up(key, "called otherwise").expect("the chosen id stays");
    assert_eq!(rig.take(peer), [text(&["early"])]);
    assert_eq!(rig.receive(peer, &[b"hi"]), Received::Taken);
    assert_eq!(rig.recv(), Ok(text(&["other", "unread"])));
    assert_eq!(rig.recv(), Ok(text(&["X", "hi"])));
    assert_eq!(rig.send(&[b"called otherwise", b"x"]), Err(SendRefusal::HostUnreachable));
}

/// libzmq: test_router_handover/without.
///
/// Rules: MQ-208, MQ-514.
#[test]
fn a_taken_id_refuses_the_newcomer_until_it_is_free() {
    let mut rig = Rig::new(SocketType::Router);
    let first = rig.try_accept("X").expect("a new id");
    assert_eq!(rig.try_accept("X"), Err(Refusal::RoutingIdInUse));
    assert_eq!(rig.receive(first, &[b"still here"]), Received::Taken);
    assert_eq!(rig.recv(), Ok(text(&["X", "still here"])));
    rig.down(first, false);
    let second = rig.try_accept("X").expect("free again");
    rig.send(&[b"X", b"hi"]).expect("known");
    assert_eq!(rig.take(second), [text(&["hi"])]);

    // The id of a connection known dead does not keep its return away, wherever it comes from.
    let key = rig.dial();
    let dialed = rig.try_up(key, "Y").expect("a new id");
    rig.down(dialed, true);
    let returned = rig.try_accept("Y").expect("the other connection is dead");
    rig.send(&[b"Y", b"hi"]).expect("known");
    assert_eq!(rig.take(returned), [text(&["hi"])]);
}

/// libzmq: test_router_handover/with.
///
/// Rules: MQ-209, MQ-319.
#[test]
fn handover_gives_the_id_to_the_newcomer() {
    let mut rig = Rig::with(SocketType::Router, |settings| settings.router_handover = true);
    let first = rig.try_accept("X").expect("a new id");
    assert_eq!(rig.receive(first, &[b"queued"]), Received::Taken);
    rig.send(&[b"X", b"for the first"]).expect("known");
    rig.effects();
    let second = rig.try_accept("X").expect("handover");
    let close = Effect::Close { pipe: first.key, epoch: first.epoch, link: 1, why: CloseCause::Replaced };
    assert!(rig.effects().list.contains(&close));
    rig.send(&[b"X", b"for the second"]).expect("known");
    assert!(rig.take(first).is_empty());
    assert_eq!(rig.take(second), [text(&["for the second"])]);
    assert_eq!(rig.receive(first, &[b"late"]), Received::Stale);
    assert_eq!(rig.recv(), Ok(text(&["X", "queued"])));
    rig.down(first, false);
    rig.send(&[b"X", b"still"]).expect("the late end of the old connection changes nothing");
    assert_eq!(rig.take(second), [text(&["still"])]);
}

/// A dialed pipe whose connection was replaced waits for the next one, which may be there before the end of the old one is
/// told; disconnected, it ends.
///
/// Rules: MQ-209, MQ-182.
#[test]
fn a_dialed_pipe_outlives_its_replaced_connection() {
    let mut rig = Rig::with(SocketType::Router, |settings| settings.router_handover = true);
    let key = rig.dial();
    for is_told in [true, false] {
        let first = rig.try_up(key, "X").expect("handover");
        assert_eq!(rig.receive(first, &[b"queued"]), Received::Taken);
        let newcomer = rig.try_accept("X").expect("handover");
        assert_eq!(rig.receive(first, &[b"late"]), Received::Stale);
        if is_told {
            rig.down(first, true);
            assert_ne!(rig.try_accept("Z").expect("a new id").key, key, "its key is not free");
        }
        let returned = rig.try_up(key, "Y").expect("a new id");
        assert_eq!(returned.key, key);
        rig.send(&[b"X", b"1"]).expect("known");
        rig.send(&[b"Y", b"2"]).expect("known");
        assert_eq!(rig.take(newcomer), [text(&["1"])]);
        assert_eq!(rig.take(returned), [text(&["2"])]);
        assert_eq!(rig.recv(), Ok(text(&["X", "queued"])));
        assert_eq!(rig.receive(returned, &[b"3"]), Received::Taken);
        assert_eq!(rig.recv(), Ok(text(&["Y", "3"])));
        rig.down(newcomer, false);
    }
    let last = rig.try_up(key, "X").expect("nobody has it");
    rig.try_accept("X").expect("handover");
    rig.state.detach_pipe(key, Unread::Discard);
    rig.down(last, true);
    assert_eq!(rig.try_up(key, "Y"), Err(Refusal::Gone));
}

/// Rules: MQ-210.
#[test]
fn a_peer_that_returns_renamed_is_known_by_the_new_id() {
    let mut rig = Rig::with(SocketType::Router, |settings| settings.router_mandatory = true);
    let key = rig.dial();
    let peer = rig.try_up(key, "old").expect("a new id");
    assert_eq!(rig.receive(peer, &[b"1"]), Received::Taken);
    rig.down(peer, true);
    rig.send(&[b"old", b"waits"]).expect("pending");
    let peer = rig.try_up(key, "new").expect("a new id");
    assert_eq!(rig.receive(peer, &[b"2"]), Received::Taken);
    assert_eq!(rig.send(&[b"old", b"x"]), Err(SendRefusal::HostUnreachable));
    assert!(rig.take(peer).is_empty(), "what was for the old one is not for the new one");
    assert_eq!(rig.state.totals().out.discarded, 1);
    assert_eq!(rig.recv(), Ok(text(&["old", "1"])));
    assert_eq!(rig.recv(), Ok(text(&["new", "2"])));
}

/// Who comes back under a name that is in use is refused before it is there as it is then: what waits for it is discarded,
/// and nothing else changes.
///
/// Rules: MQ-208, MQ-210, MQ-271.
#[test]
fn who_is_refused_before_loses_its_former_name() {
    for is_asked_before in [false, true] {
        let mut rig = Rig::with(SocketType::Router, |settings| settings.router_mandatory = true);
        let key = rig.dial();
        let pipe = (key, rig.state.born(key));
        let peer = rig.try_up(key, "old").expect("a new id");
        rig.down(peer, true);
        rig.send(&[b"old", b"waits"]).expect("pending");
        let holder = rig.try_accept("new").expect("a new id");
        let refused = match is_asked_before {
            true => rig.state.admit(pipe, b"new"),
            false => rig.try_up(key, "new").map(drop),
        };
        assert_eq!(refused, Err(Refusal::RoutingIdInUse));
        assert_eq!(rig.send(&[b"old", b"x"]), Err(SendRefusal::HostUnreachable));
        assert_eq!(rig.state.totals().out.discarded, 1);
        assert_eq!(rig.send(&[b"new", b"x"]), Ok(()));
        rig.down(holder, false);
        assert_eq!(rig.state.admit(pipe, b"new"), Ok(()));
        assert_eq!(rig.state.admit((key, pipe.1.next()), b"new"), Err(Refusal::Gone));
        rig.try_up(key, "new").expect("nobody has it");
    }
}

/// libzmq: test_router_notify, test_disconnect_msg.
///
/// Rules: MQ-211, MQ-214.
#[test]
fn the_coming_and_going_of_peers_is_told() {
    let mut rig = Rig::with(SocketType::Router, |settings| {
        (settings.notify_connect, settings.notify_disconnect) = (true, true);
        settings.disconnect = Part::from("bye");
    });
    let peer = rig.try_accept("X").expect("a new id");
    assert_eq!(rig.receive(peer, &[b"data"]), Received::Taken);
    assert_eq!(rig.try_accept("X"), Err(Refusal::RoutingIdInUse));
    rig.down(peer, false);
    rig.down(peer, false);
    for expected in [["X", ""], ["X", "data"], ["X", "bye"], ["X", ""]] {
        assert_eq!(rig.recv(), Ok(text(&expected)));
    }
    assert_eq!(rig.recv(), Err(RecvRefusal::WouldBlock), "nothing of the peer that was refused");
    let key = rig.dial();
    let peer = rig.try_up(key, "Y").expect("a new id");
    rig.down(peer, true);
    for expected in [["Y", ""], ["Y", ""]] {
        assert_eq!(rig.recv(), Ok(text(&expected)), "no farewell from those we connect to");
    }
    rig.state.remove_pipe(key, Unread::Keep);
    assert_eq!(rig.recv(), Err(RecvRefusal::WouldBlock), "it was not there any more");
}
