//! Peers that go and come back, again and again.

use allocation_counter::measure;

use super::*;

/// One peer comes with its routing id, and the connection of a dialed pipe comes up; both carry what the type carries,
/// and go, the one before the other's news, the other after.
fn visit(rig: &mut Rig, dialed: PeerKey, number: u32) {
    let topic = format!("topic {}", number % 1000);
    // The dialed pipe is the only one that a PAIR has.
    let accepted = match rig.try_accept("same") {
        Err(Refusal::PairBusy) => Peer { key: dialed, epoch: Epoch::default() },
        accepted => accepted.expect("its place is free"),
    };
    traffic(rig, accepted, &topic);
    rig.down(accepted, false);
    let returned = rig.try_up(dialed, "other").expect("the pipe is kept");
    // News of the dead connection is nobody's.
    assert_eq!(rig.receive(accepted, &[b"", b"ghost"]), Received::Stale);
    assert_eq!(rig.subscribe(accepted, ""), Received::Stale);
    rig.down(accepted, false);
    traffic(rig, returned, &topic);
    rig.down(returned, true);
    while rig.recv().is_ok() {}
    rig.effects();
}

fn traffic(rig: &mut Rig, peer: Peer, topic: &str) {
    let kind = rig.state.kind();
    if kind.takes_subscriptions() {
        assert_eq!(rig.subscribe(peer, topic), Received::Taken);
        rig.send(&[b"another topic"]).expect("never blocks");
        rig.send(&[topic.as_bytes()]).expect("never blocks");
        assert_eq!(rig.take(peer), [text(&[topic])], "neither nothing nor what another asked for");
        return;
    }
    let _ = rig.receive(peer, &[b"", topic.as_bytes()]);
    let heard = rig.recv();
    if let (SocketType::Router, Ok(heard)) = (kind, heard) {
        rig.send(&[&heard[0], b"back"]).expect("never blocks");
        assert_eq!(rig.take(peer), [text(&["back"])], "it went to nobody, or to a ghost");
    } else {
        // To whoever's turn it is, the pipe that waits for its connection included.
        let _ = rig.send(&[b"x"]);
        rig.take(peer);
    }
    rig.commands(peer);
}

/// After a thousand visits a hundred thousand more leave not an octet, with whatever type.
///
/// Rules: MQ-068, MQ-069, MQ-495.
#[test]
fn a_hundred_thousand_returns_leave_no_memory() {
    /// Tables may be laid out anew; a leak of one octet for each visit would be six times that.
    const LAYOUT: i64 = 16 << 10;
    for kind in SocketType::ALL {
        let mut rig = Rig::with(kind, |settings| settings.req_relaxed = true);
        let dialed = rig.dial();
        (0..1000).for_each(|number| visit(&mut rig, dialed, number));
        let grown = measure(|| (1000..101_000).for_each(|number| visit(&mut rig, dialed, number)));
        assert!(grown.bytes_current.abs() < LAYOUT, "{kind:?}: {} octets more", grown.bytes_current);
        assert_eq!(rig.state.core.iter().count(), 1, "{kind:?}: more than the dialed pipe");
        rig.state.remove_pipe(dialed, Unread::Discard);
        assert!(rig.accept().key.index() < 4, "{kind:?}: keys are reused");
    }
}

/// With handover the newcomer has the routing id before the news of the old connection's end, which then changes
/// nothing; also at the hundred thousandth time.
///
/// Rules: MQ-068, MQ-069, MQ-209.
#[test]
fn a_late_end_of_the_old_never_removes_the_new() {
    let mut rig = Rig::with(SocketType::Router, |settings| {
        settings.router_handover = true;
        settings.router_mandatory = true;
    });
    let mut old = rig.try_accept("same").expect("the first");
    for number in 0..100_000_u32 {
        let new = rig.try_accept("same").expect("handover");
        rig.send(&[b"same", &number.to_le_bytes()]).expect("the new one has room");
        assert_eq!(rig.take(new), [[number.to_le_bytes().to_vec()]]);
        rig.down(old, false);
        assert_eq!(rig.take(old), Vec::<Frames>::new());
        rig.send(&[b"same", b"after"]).expect("the new one is there still");
        assert_eq!(rig.take(new), [text(&["after"])]);
        rig.effects();
        old = new;
    }
    assert_eq!(rig.state.core.iter().count(), 1);
}
