//! Named cases of queues, limits, fairness and in-process links.

use proptest::prelude::*;

use super::*;

const FULL: Result<(), SendRefusal> = Err(SendRefusal::WouldBlock(Awaited::Room));

/// Two states joined by an in-process link, moved by hand.
struct Link {
    near: Rig,
    far: Rig,
    near_peer: Peer,
    far_peer: Peer,
}

impl Link {
    /// Joins the sockets; the near one may have a pipe for it already.
    fn join(mut near: Rig, mut far: Rig, dialed: Option<PeerKey>) -> Self {
        let limits = |rig: &Rig| LinkLimits {
            version: 0,
            send: rig.state.settings().send,
            receive: rig.state.settings().receive,
        };
        let (of_near, of_far) = (limits(&near), limits(&far));
        let arrival = Arrival { far: Some(of_near), ..far.arrival(Origin::Accepted, "") };
        let (key, epoch) = far.state.pipe_up(None, arrival).expect("let in");
        let far_peer = Peer { key, epoch };
        let arrival = Arrival { far: Some(of_far), ..near.arrival(Origin::Dialed, "") };
        let (key, epoch) = near.state.pipe_up(dialed, arrival).expect("let in");
        Self { near, far, near_peer: Peer { key, epoch }, far_peer }
    }

    /// Does what the effects of both sides say, until there is nothing left to do.
    fn settle(&mut self) {
        loop {
            let (near, far) = (self.near.effects(), self.far.effects());
            if near.list.is_empty() && far.list.is_empty() {
                return;
            }
            carry(near.list, (&mut self.near, self.near_peer), (&mut self.far, self.far_peer));
            carry(far.list, (&mut self.far, self.far_peer), (&mut self.near, self.near_peer));
        }
    }
}

fn carry(effects: Vec<Effect<u32>>, from: (&mut Rig, Peer), to: (&mut Rig, Peer)) {
    let (to, peer) = to;
    for effect in effects {
        match effect {
            Effect::Write { .. } => loop {
                let commands = from.0.commands(from.1);
                let taken = from.0.take_some(from.1, 3);
                if commands.is_empty() && taken.is_empty() {
                    break;
                }
                for parts in taken {
                    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
                    assert_eq!(to.receive(peer, &parts), Received::Taken, "credit bounds an in-process link");
                }
            },
            Effect::Credit { credit, .. } => to.state.credit(peer.key, peer.epoch, credit),
            Effect::Limits { limits, .. } => to.state.far_limits(peer.key, peer.epoch, limits),
            other => panic!("not expected here: {other:?}"),
        }
    }
}

fn push_pull(send: usize, receive: usize) -> Link {
    let near = Rig::with(SocketType::Push, |settings| settings.send = messages(send));
    let far = Rig::with(SocketType::Pull, |settings| settings.receive = messages(receive));
    Link::join(near, far, None)
}

/// Sends until mute; answers how many were taken.
fn fill(link: &mut Link, most: usize) -> usize {
    for sent in 0..most {
        if link.near.send(&[b"x"]) == FULL {
            return sent;
        }
        link.settle();
    }
    most
}

/// libzmq: test_hwm/test_defaults.
///
/// Rules: MQ-270.
#[test]
fn inproc_takes_two_thousand_by_default() {
    let mut link = Link::join(Rig::new(SocketType::Push), Rig::new(SocketType::Pull), None);
    assert_eq!(fill(&mut link, 5000), 2000);
    let received = std::iter::from_fn(|| link.far.recv().ok()).count();
    assert_eq!(received, 2000);
    link.settle();
    assert_eq!(fill(&mut link, 5000), 2000, "all credit came back");
}

/// libzmq: test_hwm/infinite_both_inproc_connect_bind, infinite_receive, infinite_send, finite_both.
///
/// Rules: MQ-270.
#[test]
fn no_limit_on_either_side_is_no_limit() {
    for (send, receive, expected) in [(0, 0, 5000), (1, 0, 5000), (0, 1, 5000), (1, 1, 2), (5, 1, 6)] {
        assert_eq!(fill(&mut push_pull(send, receive), 5000), expected, "{send} + {receive}");
    }
}

/// Credit comes back after half of the sum was read.
///
/// Rules: MQ-063, MQ-270.
#[test]
fn credit_returns_by_the_low_water_rule() {
    for (sum, expected) in [(2, 1), (4, 2), (6, 3), (8, 4), (10, 5), (16, 8), (18, 9)] {
        let mut link = push_pull(sum / 2, sum / 2);
        assert_eq!(fill(&mut link, 100), sum);
        let mut read = 0;
        while !link.near.state.readiness().writable {
            link.far.recv().expect("there are messages");
            link.settle();
            read += 1;
        }
        assert_eq!(read, expected, "sum {sum}");
    }
}

/// libzmq: test_hwm/infinite_recv_connect_and_close_first; test_inproc_connect/connect_before_bind. Before the bind only
/// the connecting side's limit counts, and what was queued goes over with the link.
///
/// Rules: MQ-268, MQ-270, MQ-182.
#[test]
fn what_was_sent_before_the_bind_arrives() {
    let mut near = Rig::with(SocketType::Push, |settings| settings.send = messages(3));
    let key = near.dial();
    let sent = (0..10).take_while(|_| near.send(&[b"early"]).is_ok()).count();
    assert_eq!(sent, 3);
    let far = Rig::with(SocketType::Pull, |settings| settings.receive = messages(2));
    let mut link = Link::join(near, far, Some(key));
    link.settle();
    assert_eq!(fill(&mut link, 10), 2, "two more by the other side's limit");
    assert_eq!(std::iter::from_fn(|| link.far.recv().ok()).count(), 5);
}

/// libzmq: test_sockopt_hwm/change_before_connected, change_after_connected, decrease_when_full.
///
/// Rules: MQ-299.
#[test]
fn limits_change_under_way_and_drop_nothing() {
    let mut link = push_pull(1, 1);
    assert_eq!(fill(&mut link, 100), 2);
    link.near.state.configure(|settings| settings.send = messages(4));
    link.settle();
    assert_eq!(fill(&mut link, 100), 3, "now 4 + 1");
    link.far.state.configure(|settings| settings.receive = messages(6));
    link.settle();
    assert_eq!(fill(&mut link, 100), 5, "now 4 + 6");
    link.near.state.configure(|settings| settings.send = messages(1));
    link.settle();
    assert_eq!(link.near.send(&[b"x"]), FULL);
    assert_eq!(std::iter::from_fn(|| link.far.recv().ok()).count(), 10, "nothing was dropped");
    link.settle();
    assert_eq!(fill(&mut link, 100), 5, "of 1 + 6; credit for two of the ten is outstanding");
}

/// What is told late of limits that were changed again meanwhile does not count.
///
/// Rules: MQ-270, MQ-299.
#[test]
fn the_newest_limits_of_the_far_end_count() {
    let mut link = push_pull(1, 1);
    let [former, latter] = [3, 9].map(|room| {
        link.far.state.configure(|settings| settings.receive = messages(room));
        match link.far.effects().list[..] {
            [Effect::Limits { limits, .. }, ..] => limits,
            ref other => panic!("the far end is not told: {other:?}"),
        }
    });
    let Peer { key, epoch } = link.near_peer;
    link.near.state.far_limits(key, epoch, latter);
    link.near.state.far_limits(key, epoch, former);
    assert_eq!(fill(&mut link, 100), 10, "1 + 9");
}

/// A lost in-process link leaves its pipe ready for the next one, with all its room.
///
/// Rules: MQ-272.
#[test]
fn an_inproc_link_starts_anew() {
    let mut link = push_pull(1, 1);
    assert_eq!(fill(&mut link, 100), 2);
    let peer = link.near_peer;
    link.near.down(peer, true);
    let mut link =
        Link::join(link.near, Rig::with(SocketType::Pull, |s| s.receive = messages(1)), Some(peer.key));
    link.settle();
    assert_eq!(fill(&mut link, 100), 2);
}

/// A second sender cannot overtake a mover that has taken and not yet delivered: it is not told to move.
///
/// Rules: MQ-058.
#[test]
fn a_far_end_that_comes_again_is_not_told_of_more() {
    let mut link = push_pull(0, 0);
    let Peer { key, epoch } = link.near_peer;
    let take = |rig: &mut Rig, comes_again| {
        let (mut commands, mut messages) = (VecDeque::new(), Packed::new());
        let again = rig.state.take_all(key, epoch, comes_again, &mut commands, &mut messages);
        (again, messages.len())
    };
    let notes = |rig: &mut Rig, message: &[u8]| {
        rig.send(&[message]).expect("room");
        rig.effects().list.len()
    };
    assert_eq!((notes(&mut link.near, b"1"), notes(&mut link.near, b"2")), (1, 0));
    assert_eq!(take(&mut link.near, true), (true, 2));
    assert_eq!(notes(&mut link.near, b"3"), 0, "it comes again");
    assert_eq!(take(&mut link.near, true), (false, 1), "a single one is no stream");
    assert_eq!((notes(&mut link.near, b"4"), notes(&mut link.near, b"5")), (1, 0));
    assert_eq!(take(&mut link.near, false), (false, 2));
    assert_eq!(notes(&mut link.near, b"6"), 1);
}

/// Who carries for a link that is gone does not go on because of what its pipe has for the next one.
///
/// Rules: MQ-068.
#[test]
fn a_link_that_is_gone_has_nothing_more() {
    let mut rig = Rig::new(SocketType::Push);
    let key = rig.dial();
    let gone = rig.up(key);
    rig.down(gone, true);
    rig.send(&[b"for the next"]).expect("room");
    for has_another in [false, true] {
        let (mut commands, mut messages) = (VecDeque::new(), Packed::new());
        let more = rig.state.take_all(key, gone.epoch, false, &mut commands, &mut messages);
        assert!(!more && messages.is_empty(), "another: {has_another}");
        rig.up(key);
    }
}

/// Rules: MQ-048, MQ-058.
#[test]
fn what_is_offered_is_fetched_when_nothing_is_left() {
    let mut link = push_pull(0, 0);
    let Peer { key, epoch } = link.far_peer;
    let far = &mut link.far;
    assert!(!far.state.readiness().readable);
    far.state.offered(key, epoch);
    far.state.offered(key, epoch);
    assert_eq!(far.effects().receivers, 1, "one is woken, to fetch");
    assert!(far.state.readiness().readable && far.state.has_offers());
    assert!(far.state.next_offer().is_some() && far.state.next_offer().is_none());

    assert_eq!(far.receive(link.far_peer, &[b"1"]), Received::Taken);
    assert_eq!(far.receive(link.far_peer, &[b"2"]), Received::Taken);
    far.state.offered(key, epoch);
    assert!(!far.state.has_offers(), "there is something left");
    assert_eq!(far.recv(), Ok(text(&["1"])));
    assert!(!far.state.has_offers());
    assert_eq!(far.recv(), Ok(text(&["2"])));
    assert!(far.state.next_offer().is_some() && far.state.next_offer().is_none());

    far.state.offered(key, epoch.next());
    assert!(!far.state.has_offers(), "of another connection");
    far.state.offered(key, epoch);
    far.state.detach_pipe(key, Unread::Discard);
    assert!(far.state.next_offer().is_none(), "of a pipe that is closed");
}

/// libzmq: test_immediate/1, 2, 3.
///
/// Rules: MQ-182, MQ-183, MQ-306.
#[test]
fn immediate_decides_whether_unconnected_pipes_take_messages() {
    let mut rig = Rig::new(SocketType::Push);
    rig.dial();
    let connected = rig.dial();
    let peer = rig.up(connected);
    (0..10).for_each(|_| rig.send(&[b"x"]).expect("room"));
    assert_eq!(rig.take(peer).len(), 5, "half of them wait for the other");

    let mut rig = Rig::new(SocketType::Push);
    let arrival = rig.arrival(Origin::Dialed, "");
    let (key, epoch) = rig.state.pipe_up(None, arrival).expect("let in");
    let peer = Peer { key, epoch };
    (0..10).for_each(|_| rig.send(&[b"x"]).expect("room"));
    assert_eq!(rig.take(peer).len(), 10);
    rig.send(&[b"lost"]).expect("room");
    rig.down(peer, false);
    assert_eq!(rig.send(&[b"x"]), FULL);
    assert_eq!(rig.state.totals().out.discarded, 1);
    let arrival = rig.arrival(Origin::Dialed, "");
    rig.state.pipe_up(None, arrival).expect("let in");
    assert_eq!(rig.send(&[b"x"]), Ok(()));
}

/// libzmq: test_spec_pushpull/destroy_queue_on_disconnect. A dialed pipe keeps its queue, and what was being written is
/// counted as lost.
///
/// Rules: MQ-184, MQ-242.
#[test]
fn queues_of_accepted_pipes_end_with_them() {
    let mut rig = Rig::new(SocketType::Push);
    let peer = rig.accept();
    rig.send(&[b"gone"]).expect("room");
    rig.down(peer, false);
    let next = rig.accept();
    assert!(rig.take(next).is_empty());
    assert_eq!(rig.state.totals().out.discarded, 1);

    let mut rig = Rig::new(SocketType::Push);
    let key = rig.dial();
    let peer = rig.up(key);
    (0..3_u8).for_each(|n| rig.send(&[&[n]]).expect("room"));
    assert_eq!(rig.take_some(peer, 1).len(), 1);
    rig.state.pipe_down(peer.key, peer.epoch, true);
    let peer = rig.up(key);
    assert_eq!(rig.take(peer), [[[1]], [[2]]]);
    assert_eq!(rig.state.totals().lost_in_flight, 1);
}

/// libzmq: test_term_endpoint. After a pipe is detached nothing new goes to it; what is queued may still be written.
///
/// Rules: MQ-275, MQ-276.
#[test]
fn a_detached_pipe_is_flushed_and_takes_nothing() {
    let mut rig = Rig::new(SocketType::Dealer);
    let peer = rig.accept();
    rig.send(&[b"before"]).expect("room");
    assert_eq!(rig.receive(peer, &[b"unread"]), Received::Taken);
    rig.state.detach_pipe(peer.key, Unread::Keep);
    assert_eq!(rig.send(&[b"after"]), FULL);
    assert_eq!(rig.receive(peer, &[b"late"]), Received::Stale);
    assert_eq!(rig.take(peer), [text(&["before"])]);
    assert_eq!(rig.recv(), Ok(text(&["unread"])));

    let key = rig.dial();
    let peer = rig.up(key);
    assert_eq!(rig.receive(peer, &[b"unread"]), Received::Taken);
    rig.state.remove_pipe(key, Unread::Discard);
    assert_eq!(rig.recv(), Err(RecvRefusal::WouldBlock));
    assert_eq!(rig.try_up(key, ""), Err(Refusal::Gone));
    assert_eq!(rig.state.totals().inbound.discarded, 1);
}

/// libzmq: test_conflate. Of twenty messages the last one is read, whole, and the writer is never stopped.
///
/// Rules: MQ-250, MQ-317.
#[test]
fn a_conflating_queue_keeps_the_newest_whole() {
    let mut rig = Rig::with(SocketType::Pull, |settings| {
        settings.conflate = true;
        settings.receive = messages(1);
    });
    let peer = rig.accept();
    for n in 0..20_u8 {
        assert_eq!(rig.receive(peer, &[&[n], b"second part"]), Received::Taken);
    }
    assert_eq!(rig.recv(), Ok(vec![vec![19], b"second part".to_vec()]));
    assert_eq!(rig.recv(), Err(RecvRefusal::WouldBlock));
    assert_eq!(rig.reading(peer).inbound.dropped_by_rule, 19);
    assert_eq!(rig.effects().receivers, 1, "one message became readable");

    let mut rig = Rig::with(SocketType::Push, |settings| {
        settings.conflate = true;
        settings.send = messages(1);
    });
    let peer = rig.accept();
    (0..20_u8).for_each(|n| rig.send(&[&[n]]).expect("never full"));
    assert_eq!(rig.take(peer), [[[19]]]);
    assert_eq!(rig.reading(peer).out.dropped_by_rule, 19);

    let mut rig = Rig::with(SocketType::Rep, |settings| settings.conflate = true);
    let peer = rig.accept();
    (0..2).for_each(|_| assert_eq!(rig.receive(peer, &[b"", b"ask"]), Received::Taken));
    assert_eq!(rig.state.totals().inbound.dropped_by_rule, 0, "ignored on other types");
}

/// A pipe conflates or not for as long as it lives, as the option was when it was made; pipes made later follow the change.
///
/// Rules: MQ-251.
#[test]
fn conflating_begins_and_ends_with_later_pipes() {
    let mut rig = Rig::new(SocketType::Pull);
    let kept = |rig: &mut Rig, peer: Peer| {
        for n in 0..3_u8 {
            assert_eq!(rig.receive(peer, &[&[n]]), Received::Taken);
        }
        std::iter::from_fn(|| rig.recv().ok()).map(|parts| parts[0][0]).collect::<Vec<_>>()
    };
    let before = rig.accept();
    rig.state.configure(|settings| settings.conflate = true);
    let during = rig.accept();
    assert_eq!((kept(&mut rig, before), kept(&mut rig, during)), (vec![0, 1, 2], vec![2]));
    rig.state.configure(|settings| settings.conflate = false);
    let after = rig.accept();
    assert_eq!((kept(&mut rig, during), kept(&mut rig, after)), (vec![2], vec![0, 1, 2]));

    let mut rig = Rig::new(SocketType::Push);
    let dialed = rig.dial();
    rig.state.configure(|settings| settings.conflate = true);
    (0..3_u8).for_each(|n| rig.send(&[&[n]]).expect("room"));
    let peer = rig.up(dialed);
    assert_eq!(rig.take(peer).len(), 3, "the pipe was made before");
}

/// Rules: MQ-060.
#[test]
fn bytes_are_limited_and_one_large_message_always_fits() {
    let mut rig = Rig::with(SocketType::Push, |settings| {
        settings.send = Capacity { messages: 0, bytes: 1000 };
        settings.receive = Capacity { messages: 0, bytes: 1000 };
    });
    let peer = rig.accept();
    assert_eq!(rig.send(&[&[0; 100_000]]), Ok(()), "larger than the budget, but the queue is empty");
    assert_eq!(rig.send(&[b"x"]), FULL);
    assert_eq!(rig.take(peer).len(), 1);
    assert_eq!(rig.send(&[&[0; 100]]), Ok(()));

    let mut rig =
        Rig::with(SocketType::Pull, |settings| settings.receive = Capacity { messages: 0, bytes: 1000 });
    let peer = rig.accept();
    assert_eq!(rig.receive(peer, &[&[0; 600]]), Received::Taken);
    assert_eq!(rig.receive(peer, &[&[0; 600]]), Received::Full);
    rig.recv().expect("two are there");
    rig.recv().expect("one is there");
    assert!(rig.effects().list.contains(&Effect::Resume { link: 1 }));
}

/// Rules: MQ-064.
#[test]
fn parts_do_not_count_against_the_limit() {
    let mut rig = Rig::with(SocketType::Push, |settings| settings.send = messages(2));
    rig.accept();
    assert_eq!(rig.send(&[b"1", b"2", b"3"]), Ok(()));
    assert_eq!(rig.send(&[b"1", b"2", b"3"]), Ok(()));
    assert_eq!(rig.send(&[b"1"]), FULL);
}

/// Rules: MQ-068, MQ-069.
#[test]
fn a_hundred_thousand_connections_leave_nothing_behind() {
    let mut rig = Rig::with(SocketType::Router, |settings| settings.router_handover = true);
    let dialed = rig.dial();
    for _ in 0..100_000 {
        let accepted = rig.try_accept("same").expect("handover");
        let returned = rig.try_up(dialed, "other").expect("the same pipe");
        assert_eq!(rig.receive(accepted, &[b"x"]), Received::Taken);
        rig.down(accepted, false);
        rig.down(returned, true);
        assert_eq!(rig.receive(accepted, &[b"ghost"]), Received::Stale);
        assert_eq!(rig.recv(), Ok(text(&["same", "x"])));
        rig.effects();
    }
    assert!(rig.accept().key.index() < 4, "keys are reused");
    assert_eq!(rig.state.core.iter().count(), 2);
}

proptest! {
    /// A peer with an endless backlog delays another's message by one message per active peer.
    ///
    /// Rules: MQ-072, MQ-188.
    #[test]
    fn reading_is_fair(backlogs in proptest::collection::vec(0_usize..40, 2..8)) {
        for kind in [SocketType::Pull, SocketType::Dealer, SocketType::Router, SocketType::XSub] {
            let mut rig = Rig::new(kind);
            let peers: Vec<Peer> = backlogs.iter().map(|_| rig.accept()).collect();
            for (who, (peer, backlog)) in peers.iter().zip(&backlogs).enumerate() {
                for n in 0..*backlog {
                    let _ = rig.receive(*peer, &[&[who as u8], &[n as u8]]);
                }
            }
            let mut left = backlogs.clone();
            let mut read = vec![0_u8; backlogs.len()];
            while left.iter().any(|left| *left > 0) {
                let mut seen = vec![false; left.len()];
                for _ in 0..left.iter().filter(|left| **left > 0).count() {
                    let parts = rig.recv().expect("there is more");
                    let [.., who, n] = parts.as_slice() else { panic!("two parts were sent") };
                    let who = usize::from(who[0]);
                    prop_assert!(!std::mem::replace(&mut seen[who], true), "one message each per round");
                    prop_assert_eq!(n[0], read[who], "in order");
                    read[who] += 1;
                    left[who] -= 1;
                }
            }
            prop_assert_eq!(rig.recv(), Err(RecvRefusal::WouldBlock));
        }
    }
}

/// libzmq: test_spec_pushpull/round_robin_out, fair_queue_in, block_on_send_no_peers; test_spec_dealer.
///
/// Rules: MQ-186, MQ-188, MQ-189.
#[test]
fn messages_go_round() {
    for kind in [SocketType::Push, SocketType::Dealer] {
        let mut rig = Rig::new(kind);
        assert_eq!(rig.send(&[b"nobody"]), FULL);
        let peers: Vec<Peer> = (0..5).map(|_| rig.accept()).collect();
        (0..10_u8).for_each(|n| rig.send(&[&[n]]).expect("room"));
        for (at, peer) in (0_u8..).zip(peers) {
            assert_eq!(rig.take(peer), [[[at]], [[at + 5]]]);
        }
    }
}

/// Rules: MQ-244.
#[test]
fn lost_queues_may_move_to_other_peers() {
    let mut rig = Rig::with(SocketType::Push, |settings| {
        settings.requeue_on_loss = true;
        settings.send = messages(3);
    });
    let (lost, other) = (rig.accept(), rig.accept());
    (0..4_u8).for_each(|n| rig.send(&[&[n]]).expect("room"));
    rig.down(lost, false);
    assert_eq!(rig.take(other), [[[1]], [[3]], [[0]]], "as far as there is room");
    let out = rig.state.totals().out;
    assert_eq!((out.entered, out.left, out.discarded), (5, 3, 2), "one entered twice, one found no room");
}

/// libzmq: test_hello_msg, test_hiccup_msg, test_probe_router.
///
/// Rules: MQ-204, MQ-214.
#[test]
fn a_new_pipe_starts_with_hello_and_probe() {
    let hello = |settings: &mut Settings| {
        settings.hello = Part::from("hello");
        settings.probe_router = true;
        settings.hiccup = Part::from("hiccup");
    };
    for kind in [SocketType::Dealer, SocketType::Router] {
        let mut rig = Rig::with(kind, hello);
        let accepted = rig.accept();
        assert_eq!(rig.take(accepted), [text(&["hello"]), text(&[""])]);
        let key = rig.dial();
        let dialed = rig.up(key);
        assert_eq!(rig.take(dialed), [text(&["hello"]), text(&[""])]);
        rig.down(dialed, true);
        let told =
            if kind == SocketType::Dealer { Ok(text(&["hiccup"])) } else { Err(RecvRefusal::WouldBlock) };
        assert_eq!(rig.recv(), told);
        let dialed = rig.up(key);
        assert!(rig.take(dialed).is_empty(), "the pipe is not new");
    }
    let mut rig = Rig::with(SocketType::Req, hello);
    let peer = rig.accept();
    assert_eq!(rig.take(peer), [text(&[""])], "REQ probes and does not greet");
    let mut rig = Rig::with(SocketType::Push, hello);
    let peer = rig.accept();
    assert!(rig.take(peer).is_empty());
}

/// libzmq: test_pair_tcp. A second peer is refused while there is one, and let in afterwards.
///
/// Rules: MQ-245, MQ-247.
#[test]
fn a_pair_has_one_partner() {
    let mut rig = Rig::new(SocketType::Pair);
    assert_eq!(rig.send(&[b"alone"]), FULL);
    let first = rig.accept();
    assert_eq!(rig.try_accept(""), Err(Refusal::PairBusy));
    let key = rig.dial();
    let dialed = (key, rig.state.born(key));
    assert_eq!(rig.state.admit(dialed, b""), Err(Refusal::PairBusy));
    rig.send(&[b"lost"]).expect("room");
    assert_eq!(rig.receive(first, &[b"unread"]), Received::Taken);
    rig.down(first, false);
    assert_eq!(rig.state.admit(dialed, b""), Ok(()));
    let second = rig.accept();
    assert_eq!(rig.receive(second, &[b"newer"]), Received::Taken);
    assert!(rig.take(second).is_empty());
    assert_eq!(rig.recv(), Ok(text(&["unread"])));
    assert_eq!(rig.recv(), Ok(text(&["newer"])));
}

/// Rules: MQ-428, MQ-179, MQ-420.
#[test]
fn what_a_type_does_not_take_closes_the_connection() {
    let mut push = Rig::new(SocketType::Push);
    let peer = push.accept();
    assert_eq!(push.receive(peer, &[b"data"]), Received::Violation(Violation::UnexpectedData));
    for kind in SocketType::ALL.into_iter().filter(|kind| !kind.takes_subscriptions()) {
        let mut rig = Rig::new(kind);
        let peer = rig.accept();
        assert_eq!(rig.subscribe(peer, "a"), Received::Violation(Violation::UnexpectedCommand), "{kind:?}");
        assert_eq!(rig.cancel(peer, "a"), Received::Violation(Violation::UnexpectedCommand), "{kind:?}");
        assert!(rig.recv().is_err(), "nothing was delivered");
    }
}

/// What each type answers when it has no peer.
///
/// Rules: MQ-046, MQ-186.
#[test]
fn readiness_without_peers() {
    use SocketType::{Dealer, Pair, Pub, Pull, Push, Rep, Req, Router, Sub, XPub, XSub};
    let send = |kind| Rig::new(kind).send(&[b"to", b"nobody"]);
    let recv = |kind| Rig::new(kind).recv().unwrap_err();
    for kind in [Router, Pub, XPub, XSub] {
        assert_eq!(send(kind), Ok(()), "{kind:?}");
    }
    for kind in [Req, Dealer, Push, Pair] {
        assert_eq!(send(kind), FULL, "{kind:?}");
    }
    assert_eq!(send(Rep), Err(SendRefusal::WrongState));
    assert_eq!(recv(Req), RecvRefusal::WrongState);
    for kind in [Sub, Pull] {
        assert_eq!(send(kind), Err(SendRefusal::NotSupported), "{kind:?}");
    }
    for kind in [Pub, Push] {
        assert_eq!(recv(kind), RecvRefusal::NotSupported, "{kind:?}");
    }
    for kind in [Rep, Dealer, Router, Sub, XPub, XSub, Pull, Pair] {
        assert_eq!(recv(kind), RecvRefusal::WouldBlock, "{kind:?}");
    }
    assert_eq!(Rig::new(Push).send(&[]), Err(SendRefusal::Empty));
}
