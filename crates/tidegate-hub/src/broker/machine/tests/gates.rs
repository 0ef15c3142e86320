//! What a request must pass before it has an effect: identity, nonce, clock, proof, limits.

use super::{super::*, bench::*};
use crate::broker::wire::{AttachAck, Base64, Detach, DropReason, Fixed, List, ProcessKey, Register};

/// Somebody else's attachment cannot be taken or ended.
#[test]
fn attachments_belong_to_their_client() {
    let mut bench = Bench::new(Settings::default());
    let channel_id = bench.register("p", sensor(1, 1), None).channel_id();
    let consumer_id = label("ui");
    let attach = AttachAck {
        channel_id,
        consumer_id: consumer_id.clone(),
        config_hash: Fixed([0; 32]),
        process_key: ProcessKey::from_word(7).unwrap(),
    };
    assert!(bench.ask("c", RequestBody::AttachAck(attach.clone()), None).is_ok());
    let detach = RequestBody::Detach(Detach { channel_id, consumer_id });
    assert_eq!(bench.ask("d", detach.clone(), None).reply.code, Some(Code::NotAllowed));
    assert_eq!(bench.ask("d", RequestBody::AttachAck(attach), None).reply.code, Some(Code::NotAllowed));
    let gone = bench.ask("c", detach, None);
    assert!(matches!(gone.events[..], [EventBody::ConsDrop { reason: DropReason::ExplicitDetach, .. }]));
}

/// The same message gets the same reply, and is not done again.
///
/// Rules: DH-188, M-03.
#[test]
fn a_duplicate_gets_the_stored_reply() {
    let mut bench = Bench::new(Settings::default());
    let secret = verifier(1);
    assert!(bench.register("p", sensor(1, 1), Some(&secret)).is_ok());
    let first = bench.request("p", deregister(1), Some(&secret));
    assert!(bench.send(&first).is_ok());
    let resend = |bench: &mut Bench, verifier: &Verifier| {
        let request = bench.request("p", deregister(1), Some(verifier));
        bench.send(&Request { msg_id: first.msg_id.clone(), ..request })
    };
    assert!(resend(&mut bench, &secret).is_ok(), "once more it would be NOT_FOUND");
    assert_eq!(resend(&mut bench, &verifier(2)).reply.code, Some(Code::BadProof), "not for strangers");
    let other = bench.request("p", RequestBody::Ping, None);
    let reused = bench.send(&Request { msg_id: first.msg_id.clone(), ..other });
    assert_eq!(reused.reply.code, Some(Code::BadRequest));
    bench.now += MEMORY + Duration::from_secs(1);
    assert_eq!(resend(&mut bench, &secret).reply.status, Status::NotFound);
}

/// A wrong proof, a replayed frame, a clock 31 s off; and each just inside of what is allowed.
///
/// Rules: DH-189, M-06.
#[test]
fn replays_and_skewed_clocks_are_refused() {
    let mut bench = Bench::new(Settings::default());
    let secret = verifier(1);
    bench.build(&sensor(1, 1));
    let register = RequestBody::Register(Box::new(with_verifier(sensor(1, 1), Some(&secret))));
    let request = bench.request("p", register, Some(&secret));
    assert!(bench.send(&request).is_ok());
    assert_eq!(bench.send(&request).reply.code, Some(Code::ReplayOrSkew));
    bench.now += MEMORY;
    assert_eq!(bench.send(&request).reply.code, Some(Code::ReplayOrSkew), "for 60 s");
    for (skew, is_refused) in [(30_000_i64, false), (-30_000, false), (31_000, true), (-31_000, true)] {
        let ts_ms = WALL.checked_add_signed(skew).unwrap();
        let request = Request { ts_ms, ..bench.request("c", RequestBody::Discover(find("none")), None) };
        assert_eq!(bench.send(&request).reply.code == Some(Code::ReplayOrSkew), is_refused, "{skew} ms");
    }
    let wrong = bench.discover("c", find("sensor"), Some(&verifier(2)));
    assert_eq!(wrong.outcome(), (Status::AuthFailed, Some(Code::BadProof)));
    let none = bench.discover("c", find("sensor"), None);
    assert_eq!(none.outcome(), (Status::AuthFailed, Some(Code::BadProof)));
}

/// A proof is good for one client, one channel, one kind of request, one time.
///
/// Rules: DH-189.
#[test]
fn a_proof_cannot_be_carried_over() {
    let mut bench = Bench::new(Settings::default());
    let secret = verifier(1);
    assert!(bench.register("p", sensor(1, 1), Some(&secret)).is_ok());
    let good = bench.request("c", RequestBody::Discover(find("sensor")), Some(&secret));
    let thief = Request { client_id: ClientId::new("thief").unwrap(), ..good.clone() };
    let later = Request { ts_ms: WALL + 1, ..good.clone() };
    let fresh = Request { nonce: Some(Base64([200; 16])), ..good.clone() };
    let mut closing =
        Request { msg_id: MsgId::new("x").unwrap(), nonce: Some(Base64([201; 16])), ..good.clone() };
    closing.body = deregister(1);
    if let RequestBody::Deregister(body) = &mut closing.body {
        body.secret_proof = good.body.proof();
    }
    for (at, forged) in [thief, later, closing].into_iter().enumerate() {
        assert_eq!(bench.send(&forged).reply.code, Some(Code::BadProof), "{at}");
    }
    assert_eq!(bench.send(&fresh).reply.code, Some(Code::BadProof));
}

/// Whoever cannot prove the secret does not learn that there is a channel.
///
/// Rules: DH-192.
#[test]
fn a_concealed_channel_looks_like_none() {
    let mut bench = Bench::new(Settings { conceal: true, ..Settings::default() });
    let secret = verifier(1);
    assert!(bench.register("p", sensor(1, 1), Some(&secret)).is_ok());
    let mut replies = Vec::new();
    for (channel, verifier) in [("sensor", Some(&verifier(2))), ("sensor", None), ("nobody", None)] {
        let answer = bench.discover("c", find(channel), verifier);
        replies.push((answer.outcome(), answer.message().replace(channel, "?")));
    }
    assert_eq!(replies[0].0, (Status::NotFound, Some(Code::UnknownChannel)));
    assert!(replies.iter().all(|reply| *reply == replies[0]), "{replies:?}");
    assert_eq!(bench.register("q", sensor(2, 2), Some(&verifier(2))).reply.code, Some(Code::BadProof));
    let listed = bench.ask("c", RequestBody::List(List::default()), None);
    assert_eq!(listed.json["channels"].as_array().map(Vec::len), Some(0));
    assert_eq!(bench.machine.counters().refused_auth, 3);
    assert!(bench.discover("c", find("sensor"), Some(&secret)).is_ok());
}

/// Rules: DH-195.
#[test]
fn limits_hold_and_recover() {
    let limits = Limits { channels: 1, clients: 3, nonces: 230, ..Limits::default() };
    let mut bench = Bench::new(Settings { limits, ..Settings::default() });
    assert!(bench.register("p", sensor(1, 1), None).is_ok());
    let second = Register { channel_name: name("second"), ..sensor(2, 2) };
    assert_eq!(bench.register("p", second, None).reply.code, Some(Code::Limit));

    let ping = |bench: &mut Bench, client: &str, at: u32| {
        let request = Request {
            msg_id: MsgId::new(format!("q-{at}")).unwrap(),
            nonce: None,
            ..bench.request(client, RequestBody::Ping, None)
        };
        bench.count = 10;
        bench.send(&request).reply.code
    };
    let refused = (0..300).filter(|at| ping(&mut bench, "busy", *at) == Some(Code::Limit)).count();
    assert_eq!(refused, 100, "a burst of 200 passes");
    assert_eq!(ping(&mut bench, "calm", 0), None, "others are not affected");
    assert_eq!(ping(&mut bench, "fourth", 0), Some(Code::Limit), "three clients are the limit");
    bench.now += Duration::from_secs(1);
    let refused = (300..500).filter(|at| ping(&mut bench, "busy", *at) == Some(Code::Limit)).count();
    assert_eq!(refused, 100, "100 more per second");
    bench.now += MEMORY + Duration::from_secs(1);
    assert_eq!(ping(&mut bench, "fourth", 1), None, "the silent ones are forgotten");
}

/// Rules: DH-195.
#[test]
fn failing_proofs_slow_a_client_down() {
    let mut bench = Bench::new(Settings::default());
    let secret = verifier(1);
    assert!(bench.register("p", sensor(1, 1), Some(&secret)).is_ok());
    for _ in 0..9 {
        assert_eq!(bench.discover("c", find("sensor"), Some(&verifier(2))).reply.code, Some(Code::BadProof));
    }
    let tenth = bench.request("c", RequestBody::Discover(find("sensor")), Some(&verifier(2)));
    assert_eq!(bench.handle("c", None, &tenth.encode()), []);
    assert!(bench.discover("d", find("sensor"), Some(&secret)).is_ok(), "others are not affected");
    assert_eq!(bench.machine.next_deadline(), Some(bench.now + PENALTY));
    bench.now += PENALTY;
    assert_eq!(bench.tick().len(), 1);
    bench.now += Duration::from_secs(10);
    assert!(bench.discover("c", find("sensor"), Some(&secret)).is_ok());
}

/// An id belongs to the key that came with it first, or to the one it is pinned to.
///
/// Rules: DH-208, M-16.
#[test]
fn a_client_id_belongs_to_one_key() {
    let key = |byte| PublicKey::from_bytes([byte; 32]);
    let pinned = BTreeMap::from([(key(1), ClientId::new("a").unwrap())]);
    let mut bench = Bench::new(Settings { pinned, ..Settings::default() });
    let mut code = |client: &str, key| {
        let request = bench.request(client, RequestBody::Ping, None);
        answered(bench.handle(client, Some(key), &request.encode())).reply.code
    };
    let mismatch = Some(Code::IdentityMismatch);
    assert_eq!((code("a", key(1)), code("b", key(1))), (None, mismatch), "pinned to a");
    assert_eq!((code("c", key(2)), code("c", key(3))), (None, mismatch), "the first had key 2");
    let request = bench.request("d", RequestBody::Ping, None);
    let spoofed = answered(bench.handle("e", Some(key(4)), &request.encode()));
    assert_eq!(spoofed.reply.code, mismatch, "the routing id says e");
}

/// A pinned id is nobody else's, even before its owner came.
///
/// Rules: DH-208.
#[test]
fn a_pinned_id_is_reserved() {
    let key = |byte| PublicKey::from_bytes([byte; 32]);
    let pinned = BTreeMap::from([(key(1), ClientId::new("a").unwrap())]);
    let mut bench = Bench::new(Settings { pinned, ..Settings::default() });
    let request = bench.request("a", RequestBody::Ping, None);
    assert_eq!(
        answered(bench.handle("a", Some(key(9)), &request.encode())).reply.code,
        Some(Code::IdentityMismatch)
    );
}
