//! Requests made to do harm: what they cost is bounded, and what they get is typed.

use super::{super::*, bench::*};
use crate::broker::{
    host::Inspection,
    wire::{AttachAck, BlockUuid, ChannelId, Fixed, List, Listing, ProcessKey, Register, ShmName},
};

/// Channel `c<number>` with a block of its own.
fn numbered(number: u32) -> Register {
    let mut uuid = [0; 16];
    uuid[..4].copy_from_slice(&(number + 1).to_be_bytes());
    Register {
        channel_name: name(&format!("c{number:05}")),
        shm_name: ShmName::new(format!("tidegate_c_{number:08x}")).unwrap(),
        block_uuid: BlockUuid::new(uuid).unwrap(),
        host_domain: label("elsewhere"),
        ..sensor(1, 1)
    }
}

/// Ten thousand channels are served and listed, each once; the next one is refused, and there is room again when one
/// goes.
///
/// Rules: DH-195.
#[test]
fn ten_thousand_channels_and_no_more() {
    let limits = Limits { rate: 1_000_000, burst: 1_000_000, ..Limits::default() };
    let mut bench = Bench::new(Settings { limits, ..Settings::default() });
    let register = |bench: &mut Bench, number: u32| {
        let body = RequestBody::Register(Box::new(numbered(number)));
        let answer = bench.ask("p", body, None);
        (answer.is_ok(), answer.reply.code)
    };
    for number in 0..10_000 {
        assert_eq!(register(&mut bench, number), (true, None), "{number}");
    }
    assert_eq!(register(&mut bench, 10_000), (false, Some(Code::Limit)));
    assert_eq!(bench.machine.counters().refused_limit, 1);

    let (mut names, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let body = RequestBody::List(List { prefix: None, after: after.take() });
        let answer = bench.ask("c", body, None);
        let listing: Listing = serde_json::from_value(answer.json).unwrap();
        names.extend(listing.channels.into_iter().map(|channel| channel.channel_name.to_string()));
        pages += 1;
        if !listing.truncated {
            break;
        }
        after = Some(name(names.last().unwrap()));
    }
    let all: Vec<String> = (0..10_000).map(|number| format!("c{number:05}")).collect();
    assert!(names == all && pages > 10, "{} names on {pages} pages", names.len());

    let closed = RequestBody::Deregister(crate::broker::wire::Deregister {
        channel_name: name("c00000"),
        block_uuid: numbered(0).block_uuid,
        secret_proof: None,
    });
    assert!(bench.ask("p", closed, None).is_ok());
    assert_eq!(register(&mut bench, 10_000), (true, None));
}

/// The registry has an account of bytes, which texts and consumers fill, and which is empty again when they are gone.
///
/// Rules: DH-195.
#[test]
fn the_registry_is_bounded_in_bytes_too() {
    let limits = Limits { registry_bytes: 8_000, ..Limits::default() };
    let mut bench = Bench::new(Settings { limits, ..Settings::default() });
    let channel_id = bench.register("p", sensor(1, 1), None).channel_id();
    let attach = |at: u32| {
        RequestBody::AttachAck(AttachAck {
            channel_id,
            consumer_id: label(&format!("{at:0256}")),
            config_hash: Fixed([0; 32]),
            process_key: ProcessKey::from_word(1).unwrap(),
        })
    };
    let mut attached = 0;
    while bench.ask("c", attach(attached), None).is_ok() {
        attached += 1;
    }
    assert!((5..16).contains(&attached), "{attached} consumers with names of 256 bytes");
    let long = Some(label(&"x".repeat(256)));
    let second = Register {
        channel_name: name("second"),
        producer_name: long.clone(),
        zmq_endpoint: long,
        ..sensor(2, 2)
    };
    bench.now += Duration::from_secs(1);
    assert_eq!(bench.register("p", second.clone(), None).reply.code, Some(Code::Limit));
    assert!(bench.ask("p", deregister(1), None).is_ok());
    assert!(bench.register("p", second, None).is_ok());
}

/// Consumers that were killed had no time to detach: they make room for living ones, and the producer hears of them.
///
/// Rules: DH-191.
#[test]
fn dead_consumers_make_room() {
    let limits = Limits { attachments: 2, ..Limits::default() };
    let mut bench = Bench::new(Settings { limits, ..Settings::default() });
    let channel_id = bench.register("p", sensor(1, 1), None).channel_id();
    let attach = |bench: &mut Bench, consumer: &str, process: u64| {
        let body = AttachAck {
            channel_id,
            consumer_id: label(consumer),
            config_hash: Fixed([0; 32]),
            process_key: ProcessKey::from_word(process).unwrap(),
        };
        bench.ask("c", RequestBody::AttachAck(body), None)
    };
    assert!(attach(&mut bench, "a", 11).is_ok() && attach(&mut bench, "b", 12).is_ok());
    assert_eq!(attach(&mut bench, "c", 13).reply.code, Some(Code::Limit), "both may live");
    bench.kill(11);
    let third = attach(&mut bench, "c", 13);
    assert!(third.is_ok());
    assert!(
        matches!(&third.events[..], [EventBody::ConsDrop { consumer_id, .. }, EventBody::AttachAck(_)] if consumer_id.as_str() == "a"),
        "{third:?}"
    );
    assert_eq!(bench.machine.counters().attachments, 2);
}

/// A value of 60 KiB in the wrong place is not repeated: every refusal fits into a message that clients accept.
///
/// Rules: DH-186.
#[test]
fn refusals_stay_short() {
    let mut bench = Bench::new(Settings::default());
    let request = bench.request("p", RequestBody::Register(Box::new(sensor(1, 1))), None);
    let whole: serde_json::Value = serde_json::from_slice(&request.encode()).unwrap();
    for filling in ["\u{1}".repeat(10_000), "é\"\\".repeat(9_000), "x".repeat(60_000)] {
        for field in whole.as_object().unwrap().keys() {
            let mut spoiled = whole.clone();
            spoiled[field] = filling.clone().into();
            let body = serde_json::to_vec(&spoiled).unwrap();
            let outputs = bench.handle("p", None, &body);
            let [Output::Reply { body, .. }] = &outputs[..] else { panic!("{field}: {outputs:?}") };
            let reply = Reply::decode(body).expect("a reply");
            assert!(reply.status != Status::Ok && body.len() < 8192, "{field}: {} bytes", body.len());
        }
        bench.now += Duration::from_secs(10);
    }
}

/// Replies that are held back because proofs keep failing are bounded in bytes; what is too much is dropped and counted.
///
/// Rules: DH-195.
#[test]
fn held_back_replies_are_bounded() {
    let limits = Limits { delayed_bytes: 4096, ..Limits::default() };
    let mut bench = Bench::new(Settings { limits, ..Settings::default() });
    assert!(bench.register("p", sensor(1, 1), Some(&verifier(1))).is_ok());
    let mut answered_at_once = 0;
    for _ in 0..60 {
        let request = bench.request("c", RequestBody::Discover(find("sensor")), Some(&verifier(2)));
        answered_at_once += bench.handle("c", None, &request.encode()).len();
    }
    assert_eq!(answered_at_once, 9);
    bench.now += PENALTY;
    let held_back = bench.tick().len();
    let dropped = usize::try_from(bench.machine.counters().delayed_dropped).unwrap();
    assert!(dropped > 0 && (2..40).contains(&held_back), "{held_back} held back, {dropped} dropped");
    assert_eq!(answered_at_once + held_back + dropped, 60);
    // The account is empty again.
    let request = bench.request("c", RequestBody::Discover(find("sensor")), Some(&verifier(2)));
    assert_eq!(bench.handle("c", None, &request.encode()), []);
    bench.now += PENALTY;
    assert_eq!(bench.tick().len(), 1);
}

/// A frame that was recorded is worth nothing under any name, at any time within a minute, however often it comes.
///
/// Rules: DH-189, M-06.
#[test]
fn recorded_frames_are_worth_nothing() {
    let mut bench = Bench::new(Settings::default());
    let secret = verifier(1);
    assert!(bench.register("p", sensor(1, 1), Some(&secret)).is_ok());
    let recorded = bench.request("p", deregister(1), Some(&secret));
    assert!(bench.send(&recorded).is_ok());
    assert!(bench.register("p", sensor(1, 1), Some(&secret)).is_ok());
    for second in 0..=60 {
        assert_eq!(bench.send(&recorded).reply.code, Some(Code::ReplayOrSkew), "after {second} s");
        let renamed = Request { msg_id: MsgId::new(format!("r{second}")).unwrap(), ..recorded.clone() };
        assert_eq!(bench.send(&renamed).reply.code, Some(Code::ReplayOrSkew));
        let under_another_name = bench.handle("thief", None, &recorded.encode());
        assert_eq!(answered(under_another_name).reply.code, Some(Code::IdentityMismatch));
        bench.now += Duration::from_secs(u64::from(second < 60));
    }
    assert_eq!(bench.machine.counters().channels, 1);
    assert_eq!(bench.machine.counters().refused_replay, 122);
    assert_ne!(bench.host.inspect(&sensor(1, 1).shm_name), Inspection::Missing);
    assert_eq!(bench.machine.registry.find(&name("sensor")).map(|entry| entry.id), Some(ChannelId(2)));
}
