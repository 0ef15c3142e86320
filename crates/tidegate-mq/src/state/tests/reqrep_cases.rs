//! Named cases of REQ and REP.

use super::*;

fn correlated(parts: &Frames) -> u32 {
    u32::from_be_bytes(parts[0].as_slice().try_into().expect("four octets"))
}

/// libzmq: test_spec_req/message_format, test_req_correlate.
///
/// Rules: MQ-193, MQ-316.
#[test]
fn requests_have_their_form_on_the_wire() {
    let mut rig = Rig::new(SocketType::Req);
    let peer = rig.accept();
    rig.send(&[b"a", b"b"]).expect("idle");
    assert_eq!(rig.take(peer), [text(&["", "a", "b"])]);

    let mut rig = Rig::with(SocketType::Req, |settings| settings.req_correlate = true);
    let peer = rig.accept();
    rig.send(&[b"a"]).expect("idle");
    let first = rig.take(peer).remove(0);
    assert_eq!(first[1..], text(&["", "a"]));
    let id = correlated(&first);
    assert_eq!(rig.receive(peer, &[&(id + 1).to_be_bytes(), b"", b"wrong id"]), Received::Taken);
    assert_eq!(rig.receive(peer, &[b"", b"no id"]), Received::Taken);
    assert_eq!(rig.recv(), Err(RecvRefusal::WouldBlock));
    assert_eq!(rig.receive(peer, &[&id.to_be_bytes(), b"", b"right"]), Received::Taken);
    assert_eq!(rig.recv(), Ok(text(&["right"])));
    rig.send(&[b"next"]).expect("idle");
    assert_eq!(correlated(&rig.take(peer)[0]), id + 1);
}

/// libzmq: test_spec_req/only_listens_to_current_peer, round_robin_out, block_on_send_no_peers.
///
/// Rules: MQ-195, MQ-438.
#[test]
fn only_the_peer_that_was_asked_is_heard() {
    let mut rig = Rig::new(SocketType::Req);
    assert_eq!(rig.send(&[b"x"]), Err(SendRefusal::WouldBlock(Awaited::Room)));
    let peers = [rig.accept(), rig.accept(), rig.accept()];
    for (turn, asked) in peers.iter().enumerate() {
        rig.send(&[b"ask"]).expect("idle");
        assert_eq!(rig.take(*asked).len(), 1, "in turn");
        for other in peers.iter().filter(|other| *other != asked) {
            assert_eq!(rig.receive(*other, &[b"", b"unasked"]), Received::Taken);
        }
        assert_eq!(rig.recv(), Err(RecvRefusal::WouldBlock));
        assert_eq!(rig.send(&[b"again"]), Err(SendRefusal::WrongState));
        assert_eq!(rig.receive(*asked, &[b"", &[turn as u8]]), Received::Taken);
        assert_eq!(rig.receive(*asked, &[b"", b"second reply"]), Received::Taken);
        assert_eq!(rig.recv(), Ok(vec![vec![turn as u8]]));
        assert_eq!(rig.recv(), Err(RecvRefusal::WrongState));
    }
}

/// A peer that returns under the same key is not the one that was asked.
///
/// Rules: MQ-195, MQ-069.
#[test]
fn a_reused_key_is_not_the_peer_that_was_asked() {
    let mut rig = Rig::new(SocketType::Req);
    let asked = rig.accept();
    rig.send(&[b"ask"]).expect("idle");
    rig.down(asked, false);
    let other = rig.accept();
    assert_eq!(other.key, asked.key);
    assert_eq!(rig.receive(other, &[b"", b"forged"]), Received::Taken);
    assert_eq!(rig.recv(), Err(RecvRefusal::WouldBlock));
}

/// Rules: MQ-194, MQ-437.
#[test]
fn a_reply_without_its_form_closes_the_connection() {
    let malformed: [&[&[u8]]; 5] =
        [&[b"body"], &[b""], &[b"abc", b"", b"x"], &[b"abcd", b""], &[b"abcd", b"x", b"", b"y"]];
    for parts in malformed {
        let mut rig = Rig::new(SocketType::Req);
        let peer = rig.accept();
        rig.send(&[b"ask"]).expect("idle");
        assert_eq!(rig.receive(peer, parts), Received::Violation(Violation::MalformedReply), "{parts:?}");
        assert_eq!(rig.recv(), Err(RecvRefusal::WouldBlock));
    }
}

/// libzmq: test_req_relaxed/1, 2, 3.
///
/// Rules: MQ-196.
#[test]
fn a_relaxed_req_forgets_the_former_request() {
    let relaxed = |settings: &mut Settings| (settings.req_relaxed, settings.req_correlate) = (true, true);
    let mut rig = Rig::with(SocketType::Req, relaxed);
    let peer = rig.accept();
    rig.send(&[b"1"]).expect("idle");
    let first = correlated(&rig.take(peer)[0]);
    rig.send(&[b"2"]).expect("relaxed");
    assert_eq!(rig.receive(peer, &[&first.to_be_bytes(), b"", b"late"]), Received::Taken);
    assert_eq!(rig.recv(), Err(RecvRefusal::WouldBlock));
    let second = correlated(&rig.take(peer)[0]);
    assert_eq!(rig.receive(peer, &[&second.to_be_bytes(), b"", b"unread"]), Received::Taken);
    rig.send(&[b"3"]).expect("relaxed");
    assert_eq!(rig.recv(), Err(RecvRefusal::WouldBlock), "the unread reply is gone");
    assert_eq!(rig.reading(peer).inbound.dropped_by_rule, 2);
    let other = rig.accept();
    (4..6_u8).for_each(|n| rig.send(&[&[n]]).expect("relaxed"));
    assert_eq!(rig.take(other).len(), 1, "round robin goes on, and nothing is closed");
    assert!(rig.effects().list.iter().all(|effect| !matches!(effect, Effect::Close { .. })));
}

/// libzmq: test_req_relaxed/4. Requests that piled up before the connection: only the last one's answer is delivered.
///
/// Rules: MQ-196.
#[test]
fn of_requests_piled_up_the_last_is_answered() {
    let mut rig = Rig::with(SocketType::Req, |s| (s.req_relaxed, s.req_correlate) = (true, true));
    let key = rig.dial();
    (0..3_u8).for_each(|n| rig.send(&[&[n]]).expect("relaxed"));
    let peer = rig.up(key);
    for parts in rig.take(peer) {
        let id = correlated(&parts).to_be_bytes();
        assert_eq!(rig.receive(peer, &[&id, b"", &parts[2]]), Received::Taken);
    }
    assert_eq!(rig.recv(), Ok(vec![vec![2]]));
}

/// Rules: MQ-197, MQ-199, MQ-077.
#[test]
fn loss_of_the_peer_is_dealt_with_as_told() {
    let with = |on_loss| {
        let mut rig = Rig::with(SocketType::Req, |settings| {
            settings.req_on_peer_loss = on_loss;
            settings.req_correlate = true;
            settings.req_resend_max = 2;
        });
        let peers = [rig.accept(), rig.accept()];
        rig.send(&[b"ask"]).expect("idle");
        assert_eq!(rig.recv(), Err(RecvRefusal::WouldBlock));
        let request = rig.take(peers[0]);
        rig.effects();
        rig.down(peers[0], false);
        (rig, peers[1], request)
    };
    let (mut rig, _, _) = with(OnPeerLoss::Wait);
    assert_eq!(rig.recv(), Err(RecvRefusal::WouldBlock));
    assert_eq!(rig.send(&[b"x"]), Err(SendRefusal::WrongState));

    let (mut rig, _, _) = with(OnPeerLoss::Fail);
    assert_eq!(rig.effects().receivers, 1, "who waits is told");
    assert_eq!(rig.recv(), Err(RecvRefusal::PeerLost));
    assert_eq!(rig.send(&[b"x"]), Ok(()), "idle again");

    let (mut rig, other, request) = with(OnPeerLoss::Resend);
    assert_eq!(rig.take(other), request, "the same to the next");
    rig.down(other, false);
    assert_eq!(rig.recv(), Err(RecvRefusal::WouldBlock), "waits for a peer");
    let third = rig.accept();
    assert_eq!(rig.take(third), request);
    let id = correlated(&request[0]).to_be_bytes();
    assert_eq!(rig.receive(third, &[&id, b"", b"at last"]), Received::Taken);
    rig.down(third, false);
    assert_eq!(rig.recv(), Ok(text(&["at last"])), "a reply that arrived stays");

    let (mut rig, other, _) = with(OnPeerLoss::Resend);
    rig.down(other, false);
    let third = rig.accept();
    rig.down(third, false);
    assert_eq!(rig.recv(), Err(RecvRefusal::PeerLost), "sent anew twice, and lost again");
}

/// A request that was not written when its connection was lost goes by the next one: nothing is lost.
///
/// Rules: MQ-184, MQ-197.
#[test]
fn an_unwritten_request_waits_for_the_next_connection() {
    let mut rig = Rig::with(SocketType::Req, |settings| settings.req_on_peer_loss = OnPeerLoss::Fail);
    let key = rig.dial();
    let first = rig.up(key);
    rig.send(&[b"ask"]).expect("idle");
    rig.down(first, true);
    assert_eq!(rig.recv(), Err(RecvRefusal::WouldBlock));
    let second = rig.up(key);
    assert_eq!(rig.take(second), [text(&["", "ask"])]);
    assert_eq!(rig.receive(second, &[b"", b"answer"]), Received::Taken);
    assert_eq!(rig.recv(), Ok(text(&["answer"])));
}

/// libzmq: test_spec_rep/envelope, fair_queue_in.
///
/// Rules: MQ-200.
#[test]
fn envelopes_are_returned_byte_for_byte() {
    let mut rig = Rig::new(SocketType::Rep);
    let peers = [rig.accept(), rig.accept()];
    let envelopes: [&[&[u8]]; 2] = [&[b""], &[b"\x00hop 1", &[0xff; 300], b"hop 3", b""]];
    for (peer, envelope) in peers.iter().zip(envelopes) {
        assert_eq!(rig.receive(*peer, &[envelope, &[b"ask", b"", b"more"]].concat()), Received::Taken);
    }
    for (peer, envelope) in peers.iter().zip(envelopes) {
        assert_eq!(rig.recv(), Ok(text(&["ask", "", "more"])), "only the first delimiter counts");
        assert_eq!(rig.recv(), Err(RecvRefusal::WrongState));
        rig.send(&[b"answer"]).expect("owed");
        let expected: Frames =
            envelope.iter().chain(&[b"answer".as_slice()]).map(|part| part.to_vec()).collect();
        assert_eq!(rig.take(*peer), [expected]);
    }
    assert_eq!(rig.send(&[b"x"]), Err(SendRefusal::WrongState));
}

/// Rules: MQ-435.
#[test]
fn a_request_without_delimiter_is_dropped() {
    let mut rig = Rig::new(SocketType::Rep);
    let peer = rig.accept();
    assert_eq!(rig.receive(peer, &[b"bare"]), Received::Taken);
    assert_eq!(rig.receive(peer, &[b"body", b"missing", b""]), Received::Taken);
    assert_eq!(rig.recv(), Err(RecvRefusal::WouldBlock));
    assert_eq!(rig.reading(peer).inbound.dropped_by_rule, 2);
}

/// Rules: MQ-201, MQ-069.
#[test]
fn replies_that_cannot_go_are_dropped_and_counted_or_reported() {
    let ask = |report: bool| {
        let mut rig = Rig::with(SocketType::Rep, |settings| {
            settings.rep_report_drop = report;
            settings.send = messages(1);
        });
        let key = rig.dial();
        let peer = rig.up(key);
        for _ in 0..2 {
            assert_eq!(rig.receive(peer, &[b"", b"ask"]), Received::Taken);
        }
        rig.recv().expect("asked");
        rig.send(&[b"1"]).expect("room");
        rig.recv().expect("asked");
        (rig, peer)
    };
    let (mut rig, peer) = ask(false);
    assert_eq!(rig.send(&[b"2"]), Ok(()));
    assert_eq!(rig.reading(peer).out.dropped_full, 1);
    assert_eq!(rig.send(&[b"2"]), Err(SendRefusal::WrongState));

    let (mut rig, peer) = ask(true);
    assert_eq!(rig.send(&[b"2"]), Err(SendRefusal::ReplyWouldBlock));
    rig.take(peer);
    assert_eq!(rig.send(&[b"2"]), Ok(()), "owed still");

    for report in [false, true] {
        let (mut rig, peer) = ask(report);
        rig.down(peer, true);
        let again = rig.up(peer.key);
        let expected = if report { Err(SendRefusal::PeerGone) } else { Ok(()) };
        assert_eq!(rig.send(&[b"2"]), expected);
        assert_eq!(rig.take(again), [text(&["", "1"])], "not to the connection that follows");
        assert_eq!(rig.state.totals().unroutable, 1);
        assert_eq!(rig.recv(), Err(RecvRefusal::WouldBlock), "idle");
    }
}

/// Rules: MQ-202.
#[test]
fn requests_with_a_way_back_are_answered_in_any_order() {
    let mut rig = Rig::new(SocketType::Rep);
    let peers = [rig.accept(), rig.accept(), rig.accept()];
    for (n, peer) in (0_u8..).zip(peers) {
        assert_eq!(rig.receive(peer, &[b"", &[n]]), Received::Taken);
    }
    let mut requests: Vec<_> = (0..3).map(|_| rig.state.recv_request().expect("asked")).collect();
    rig.down(peers[1], false);
    for request in requests.drain(..).rev() {
        let mut answer = Message::from(request.body.parts()[0].clone());
        answer.push("done");
        rig.state.reply(request.way_back, &mut answer).expect("nothing is reported");
    }
    assert_eq!(rig.take(peers[0]), [[b"".to_vec(), vec![0], b"done".to_vec()]]);
    assert_eq!(rig.take(peers[2]), [[b"".to_vec(), vec![2], b"done".to_vec()]]);
    assert_eq!(rig.state.totals().unroutable, 1);
    assert_eq!(rig.send(&[b"x"]), Err(SendRefusal::WrongState), "the alternation was left alone");
}
