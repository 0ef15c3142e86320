//! Buckets that have the newest output of each key.

use std::time::Duration;

use async_nats::jetstream::stream::{Config, DiscardPolicy};
use tidegate_udf::wire::ids::{EpochId, Generation, PartitionId, Position};
use tidegate_vertex::{
    batch::Record,
    fence::Fenced,
    nats::{
        Message, NatsError,
        ids::Sent,
        kv::{KvBucket, KvError},
    },
    sink::{Output, OutputIds, Session},
};

use crate::{
    server::{Server, plain},
    world::World,
};

const WINDOW: Duration = Duration::from_secs(120);
const SOURCE: u64 = 7;

fn server() -> Server {
    let server = Server::start();
    server.create(plain("KV_latest", "$KV.latest.>"));
    server
}

fn bucket(server: &Server, guarded: bool) -> KvBucket {
    KvBucket::open(server.connect(), "latest", guarded, WINDOW).unwrap()
}

fn session(generation: u64) -> Session {
    Session { partition: PartitionId(0), generation: Generation(generation), nonce: 1 }
}

fn free() -> Result<(), Fenced> {
    Ok(())
}

/// Outputs of these inputs of a partition, each under a key.
fn outputs<'a>(partition: u32, inputs: impl IntoIterator<Item = (u64, &'a str)>) -> Vec<Message> {
    let message = |(position, key): (u64, &str)| {
        let value = position.to_string().into_bytes();
        let record = Record { key: key.to_owned().into(), ..Record::of(value) };
        let output = Output { position: Position(position), number: 0, record };
        let ids = OutputIds::new(0xaa, "main");
        Message::new(&ids, PartitionId(partition), EpochId(1), &output).unwrap()
    };
    inputs.into_iter().map(message).collect()
}

/// Everything that a key has had.
fn history(server: &Server, key: &str) -> Vec<String> {
    let nats = server.connect();
    let (stream, info) = nats.stream("KV_latest").unwrap();
    let subject = format!("$KV.latest.{key}");
    let mut values = Vec::new();
    for sequence in 1..=info.state.last_sequence {
        let message = nats.wait(stream.get_raw_message(sequence)).unwrap().unwrap();
        if message.subject.as_str() == subject {
            values.push(String::from_utf8(message.payload.to_vec()).unwrap());
        }
    }
    values
}

/// A session that was over writes when the key has moved on: before it looks, and between its look and its write.
/// Cases: CT-70.
/// Rules: VX-852.
#[test]
fn a_late_put_of_a_session_that_was_over_is_refused() {
    let server = server();
    let (mut old, mut new) = (bucket(&server, true), bucket(&server, true));
    let put = |bucket: &mut KvBucket, generation, position| {
        let sent = bucket.publish(&session(generation), SOURCE, &outputs(0, [(position, "k")]), free);
        assert!(matches!(sent.unwrap(), Sent::All));
    };
    put(&mut old, 1, 3);
    put(&mut new, 2, 5);
    put(&mut old, 1, 4);
    assert_eq!(history(&server, "k"), ["3", "5"]);
    let overtaken = || {
        put(&mut new, 2, 8);
        Ok::<_, Fenced>(())
    };
    let late = old.publish(&session(1), SOURCE, &outputs(0, [(6, "k")]), overtaken).unwrap();
    assert!(matches!(late, Sent::All), "{late:?}");
    assert_eq!(history(&server, "k"), ["3", "5", "8"]);
}

/// Rules: VX-790, VX-792, VX-842, VX-852.
#[test]
fn each_key_has_its_outputs_once_and_in_order() {
    let server = server();
    let mut bucket = bucket(&server, true);
    let keys: Vec<String> = (0..7).map(|key| format!("k{key}")).collect();
    let all = outputs(0, (0..1_000).map(|position| (position, keys[position as usize % 7].as_str())));
    // The second half again, as after a crash.
    for part in [&all[..600], &all[300..]] {
        assert!(matches!(bucket.publish(&session(1), SOURCE, part, free).unwrap(), Sent::All));
    }
    for (key, name) in keys.iter().enumerate() {
        let expected: Vec<String> = (0..1_000).skip(key).step_by(7).map(|n: u64| n.to_string()).collect();
        assert!(history(&server, name) == expected, "{name}");
    }
    let ids = server.content("KV_latest");
    assert_eq!(ids[17].0, "00000000000000aa.main.0.11.0.0000000000000007");
}

/// Positions of another source say nothing about this one's: the later session counts.
/// Rules: VX-852.
#[test]
fn of_two_sources_the_later_session_writes() {
    let server = server();
    let mut bucket = bucket(&server, true);
    let mut put = |generation, source, position| {
        bucket.publish(&session(generation), source, &outputs(0, [(position, "k")]), free)
    };
    put(4, SOURCE, 900).unwrap();
    put(5, SOURCE + 1, 2).unwrap();
    assert_eq!(history(&server, "k"), ["900", "2"]);
    let refused = put(4, SOURCE, 901).unwrap_err();
    assert!(matches!(refused, KvError::OtherSource { found: Generation(5), .. }), "{refused}");
    let refused = put(5, SOURCE, 902).unwrap_err();
    assert!(matches!(refused, KvError::OtherSource { .. }), "{refused}");
    assert_eq!(history(&server, "k"), ["900", "2"]);
}

/// The same place of another source, while the server still knows the ids of the first.
/// Rules: VX-790, VX-852.
#[test]
fn an_output_of_another_source_is_no_duplicate() {
    for guarded in [true, false] {
        let server = server();
        let mut bucket = bucket(&server, guarded);
        for (generation, source) in [(4, SOURCE), (5, SOURCE + 1)] {
            let mut outputs = outputs(0, [(9, "k")]);
            outputs[0].record.value = source.to_string().into();
            // The second time it is a repeat, as after an answer that was lost.
            for _ in 0..2 {
                let sent = bucket.publish(&session(generation), source, &outputs, free).unwrap();
                assert!(matches!(sent, Sent::All), "{sent:?}");
            }
        }
        assert_eq!(history(&server, "k"), ["7", "8"], "{guarded}");
    }
}

/// Rules: VX-852.
#[test]
fn a_key_of_somebody_else_is_left_alone() {
    let server = server();
    let mut bucket = bucket(&server, true);
    server.produce("$KV.latest.plain", ["mine".to_owned()]);
    bucket.publish(&session(1), SOURCE, &outputs(1, [(1, "theirs")]), free).unwrap();
    for (key, part) in [("plain", "was not written by a guarded sink"), ("theirs", "main.1")] {
        let sent = bucket.publish(&session(9), SOURCE, &outputs(0, [(2, "ours"), (8, key)]), free).unwrap();
        let Sent::Refused(1, why) = sent else { panic!("{sent:?}") };
        assert!(why.to_string().contains(part) && why.to_string().contains(key), "{why}");
    }
    assert_eq!((history(&server, "plain").len(), history(&server, "theirs").len()), (1, 1));
    // What was deleted is nobody's.
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("KV-Operation", "DEL");
    server.connect().publish("$KV.latest.plain", vec![(headers, Vec::new())]);
    let sent = bucket.publish(&session(9), SOURCE, &outputs(0, [(8, "plain")]), free).unwrap();
    assert!(matches!(sent, Sent::All), "{sent:?}");
}

/// Rules: VX-722, VX-852.
#[test]
fn without_the_guard_the_last_put_counts_and_without_a_permit_none() {
    let server = server();
    let mut plain = bucket(&server, false);
    for position in [5, 4] {
        plain.publish(&session(1), SOURCE, &outputs(0, [(position, "k")]), free).unwrap();
    }
    assert_eq!(history(&server, "k"), ["5", "4"]);
    for guarded in [false, true] {
        let fenced = || Err::<(), _>(Fenced { generation: Generation(1) });
        let sent = bucket(&server, guarded).publish(&session(1), SOURCE, &outputs(0, [(9, "k")]), fenced);
        assert!(matches!(sent, Err(KvError::Fenced(_))), "{sent:?}");
    }
    assert_eq!(history(&server, "k"), ["5", "4"]);
}

/// Rules: VX-852.
#[test]
fn a_bucket_that_forgets_is_no_guard() {
    let server = Server::start();
    let max_age = WINDOW - Duration::from_secs(1);
    let config = Config { max_age, duplicate_window: max_age, ..plain("KV_latest", "$KV.latest.>") };
    server.create(config);
    let refused = KvBucket::open(server.connect(), "latest", true, WINDOW).unwrap_err();
    assert!(matches!(refused, NatsError::Setting { key: "max_age", .. }), "{refused}");
    bucket(&server, false);
}

const RECORDS: u64 = 2_000;

/// Cases: CT-38.
/// Rules: VX-767, VX-852.
#[test]
fn every_key_has_every_output_once_however_often_the_vertex_is_killed() {
    let sink = "[[sink]]\nname = \"main\"\nkind = \"kv\"\nmode = \"guarded\"\nurl = URL\nbucket = \"latest\"";
    let world = World { delivery: "effectively_once", function: "keyed", ..World::new(sink) };
    world.input(RECORDS);
    world.server.create(plain("KV_latest", "$KV.latest.>"));
    let stored = || world.stored(&["KV_latest"]);
    world.kill_on_the_way(&[RECORDS / 2, RECORDS, RECORDS * 3 / 2], stored, || stored() >= 2 * RECORDS);
    for (partition, digit) in [(0, 3), (1, 8)] {
        let expected: Vec<String> =
            (0..RECORDS).filter(|n| n % 10 == digit).map(|n| format!("p{partition}-{n}")).collect();
        assert!(history(&world.server, &format!("p{partition}-{digit}")) == expected, "{partition}");
    }
    assert_eq!(stored(), 2 * RECORDS);
}

/// A key that takes nothing more now: without order the others go on, and only its output is to be sent again.
/// Rules: VX-631, VX-842.
#[test]
fn a_key_that_takes_nothing_holds_up_no_other() {
    let server = Server::start();
    let full = Config {
        max_messages_per_subject: 1,
        discard: DiscardPolicy::New,
        discard_new_per_subject: true,
        ..plain("KV_latest", "$KV.latest.>")
    };
    server.create(full);
    let outputs = || outputs(0, [(1, "a"), (2, "b"), (3, "c"), (4, "b")]);
    server.produce("$KV.latest.b", ["theirs".to_owned()]);
    let mut ordered = bucket(&server, false);
    let sent = ordered.publish(&session(1), SOURCE, &outputs(), free).unwrap();
    assert!(matches!(sent, Sent::Unknown(1, _)), "{sent:?}");
    let mut unordered = bucket(&server, false).unordered(true);
    let sent = unordered.publish(&session(1), SOURCE, &outputs()[1..], free).unwrap();
    assert!(matches!(sent, Sent::All), "{sent:?}");
    let failed: Vec<usize> = unordered.failed().iter().map(|failed| failed.index).collect();
    assert_eq!(failed, [0, 2]);
    assert_eq!(history(&server, "c"), ["3"]);
    assert_eq!(history(&server, "b"), ["theirs"]);
}
