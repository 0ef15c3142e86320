//! Streams that know ids.

use std::time::Duration;

use async_nats::jetstream::stream::{Config, DiscardPolicy};
use rustix::process::Signal;
use tidegate_udf::wire::ids::{Generation, PartitionId};
use tidegate_vertex::{
    fence::Fenced,
    nats::{
        NatsError,
        ids::{IdStream, Sent},
    },
    sink::Session,
};

use crate::{
    server::{Server, messages, plain},
    world::World,
};

const WINDOW: Duration = Duration::from_secs(120);

fn publish(server: &Server, count: u64) -> Sent {
    let mut stream = IdStream::open(server.connect(), "OUT", "out.data", WINDOW).unwrap();
    let session = Session { partition: PartitionId(0), generation: Generation(1), nonce: 1 };
    stream.publish(&session, &messages(0..count, 1), || Ok::<_, Fenced>(())).unwrap()
}

/// Rules: VX-843, VX-844.
#[test]
fn an_output_is_stored_once_under_its_id() {
    let server = Server::start();
    server.create(plain("OUT", "out.>"));
    assert!(matches!(publish(&server, 300), Sent::All));
    assert!(matches!(publish(&server, 600), Sent::All), "duplicates count as stored");
    let content = server.content("OUT");
    assert_eq!(content.len(), 600);
    assert_eq!(content[17], ("00000000000000aa.out.0.11.0".to_owned(), "17".to_owned()));
}

/// Rules: VX-630, VX-843.
#[test]
fn in_doubt_the_same_id_is_sent_again() {
    let server = Server::start();
    server.create(plain("OUT", "out.>"));
    let mut stream = IdStream::open(server.connect(), "OUT", "out.data", WINDOW).unwrap();
    let session = Session { partition: PartitionId(0), generation: Generation(1), nonce: 1 };
    server.signal(Signal::STOP);
    let sent = stream.publish(&session, &messages(0..20, 1), || Ok::<_, Fenced>(())).unwrap();
    assert!(matches!(sent, Sent::Unknown(0, _)), "{sent:?}");
    server.signal(Signal::CONT);
    assert!(matches!(publish(&server, 20), Sent::All));
    assert_eq!(server.content("OUT").len(), 20);
}

/// Rules: VX-843.
#[test]
fn a_window_that_is_too_short_is_refused() {
    let server = Server::start();
    server.create(Config { duplicate_window: Duration::from_secs(119), ..plain("OUT", "out.>") });
    let refused = IdStream::open(server.connect(), "OUT", "out.data", WINDOW).unwrap_err();
    assert!(matches!(refused, NatsError::Setting { key: "duplicate_window", .. }), "{refused}");
}

/// Of a stream with a limit of size a long message is rejected while shorter ones still fit: without order all others are stored,
/// in later parts as well, and it is sent again until there is room for it.
/// Rules: VX-601, VX-631, VX-842, VX-843.
#[test]
fn a_message_for_which_there_is_no_room_holds_up_no_other_and_is_sent_again() {
    const RECORDS: u64 = 50;
    let sinks = "[[sink]]
        name = \"main\"
        kind = \"jetstream\"
        mode = \"ids\"
        url = URL
        stream = \"OUT\"
        subject = \"out.{partition}\"
        ordered = false
        max_records = 10
        retry = { initial = \"10ms\", cap = \"50ms\" }";
    let world = World::new(sinks);
    let small = Config { max_bytes: 400_000, discard: DiscardPolicy::New, ..plain("OUT", "out.>") };
    world.server.create(Config { duplicate_window: Duration::from_secs(600), ..small });
    let long = "x".repeat(50_000);
    // Beside these the long one has no place, and all others have.
    world.server.produce("out.full", (0..6).map(|_| "x".repeat(60_000)));
    world.server.create(plain("IN", "in.*"));
    world.server.produce("in.0", [long.clone()]);
    world.produce(0..RECORDS);
    let stored =
        || (0..2).map(|partition| world.server.count("OUT", &format!("out.{partition}"))).sum::<u64>();
    let report = world.run_until("stored", || {
        // Everything but the long one, for which nothing else could make room.
        if stored() == 2 * RECORDS {
            let nats = world.server.connect();
            let (stream, _) = nats.stream("OUT").unwrap();
            nats.wait(async { stream.purge().filter("out.full").await }).unwrap().unwrap();
        }
        stored() > 2 * RECORDS
    });
    assert_eq!((report.delivered, report.refused), (2 * RECORDS + 1, 0), "{report:?}");
    assert!(report.sink_retries > 0);
    let mut content = world.server.content("OUT");
    assert_eq!(content.last().map(|(_, value)| value.len()), Some(long.len()));
    content.sort();
    content.dedup_by(|one, other| one.0 == other.0);
    assert_eq!(content.len() as u64, 2 * RECORDS + 1, "each once");
}
