//! Streams that know ids.

use std::time::Duration;

use async_nats::jetstream::stream::Config;
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

use crate::server::{Server, messages, plain};

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
