//! Strict streams: what an older session, a foreign writer, a restart and a lost answer do to them.

use std::{convert::Infallible, ops::Range, time::Duration};

use async_nats::{
    HeaderMap,
    jetstream::stream::{Config, RetentionPolicy},
};
use rustix::process::Signal;
use tidegate_udf::wire::ids::{Generation, PartitionId, Position};
use tidegate_vertex::{
    fence::Fenced,
    nats::{
        Message, NatsError, Published,
        strict::{Names, Place, StrictError, StrictStream},
    },
    sink::Session,
};

use crate::server::{Server, strict, values};

pub(crate) fn session(generation: u64, nonce: u64) -> Session {
    Session { partition: PartitionId(0), generation: Generation(generation), nonce }
}

pub(crate) fn open(server: &Server, session: Session) -> Result<StrictStream, StrictError> {
    let names = Names {
        stream: "OUT".to_owned(),
        data: "OUT.0.data".to_owned(),
        fence: "OUT.0.fence".to_owned(),
        keep: Duration::from_secs(60),
    };
    StrictStream::open(server.connect(), names, 0xaa, session)
}

pub(crate) fn free() -> Result<(), Fenced> {
    Ok(())
}

/// A session that may write: behind its barrier, everything of others known.
pub(crate) fn owner(server: &Server, generation: u64, since: Option<Place>) -> (StrictStream, u64) {
    let mut stream = open(server, session(generation, generation)).unwrap();
    stream.barrier(free).unwrap();
    let found = stream.read_back(since).unwrap();
    (stream, found)
}

fn messages(positions: Range<u64>) -> Vec<Message> {
    crate::server::messages(positions, 1)
}

/// Cases: CT-32.
/// Rules: VX-755, VX-844, VX-845, VX-847.
#[test]
fn nothing_of_an_older_session_is_stored_behind_the_barrier() {
    older_session(&Server::start());
}

pub(crate) fn older_session(server: &Server) {
    server.create(strict("OUT"));
    let (mut old, _) = owner(server, 1, None);
    old.publish(Position(0), &messages(0..3), free).unwrap();
    let (mut new, found) = owner(server, 2, None);
    assert_eq!(found, 3);
    let refused = old.publish(Position(3), &messages(3..700), free).unwrap_err();
    assert!(matches!(refused, StrictError::Newer { found: Generation(2), .. }), "{refused}");
    // The old one's next barrier is refused as well.
    let late = open(server, session(1, 7)).unwrap().barrier(free).unwrap_err();
    assert!(matches!(late, StrictError::Newer { found: Generation(2), .. }), "{late}");
    // What the old one had published is not published again.
    new.publish(Position(0), &messages(0..5), free).unwrap();
    assert_eq!(server.values("OUT"), values(0..5));
    let ids: Vec<String> = server.content("OUT").into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids[1], "00000000000000aa.out.0.0.0");
    assert_eq!(ids[4], "fence.00000000000000aa.0.2.0000000000000002");
}

/// The owner before had other epochs and came further than the first one of its successor.
/// Cases: CT-42.
/// Rules: VX-848.
#[test]
fn what_was_read_back_counts_until_it_is_committed() {
    let server = Server::start();
    server.create(strict("OUT"));
    let (mut first, _) = owner(&server, 1, None);
    let committed = first.publish(Position(0), &messages(0..2), free).unwrap();
    first.publish(Position(2), &messages(2..10), free).unwrap();
    let (mut second, found) = owner(&server, 2, Some(committed));
    assert_eq!(found, 8);
    // It cuts smaller epochs, and ends after the first of them.
    let place = second.publish(Position(2), &messages(2..4), free).unwrap();
    assert_eq!(place, committed, "the rest of what was found is not committed");
    let (mut third, found) = owner(&server, 3, Some(place));
    assert_eq!(found, 8);
    let place = third.publish(Position(4), &messages(4..12), free).unwrap();
    assert!(place.sequence > committed.sequence, "nothing of it is behind what is committed with this");
    third.publish(Position(12), &messages(12..14), free).unwrap();
    assert_eq!(server.values("OUT"), values(0..14));
}

/// The same record between, once with ids and once with numbers that later messages fit again.
/// Cases: CT-33.
/// Rules: VX-845, VX-846, VX-850.
#[test]
fn a_chain_of_ids_is_refused_as_a_whole_where_numbers_are_not() {
    let server = Server::start();
    server.create(strict("OUT"));
    let (mut stream, _) = owner(&server, 1, None);
    stream.publish(Position(0), &messages(0..1), free).unwrap();
    server.produce("OUT.0.data", ["foreign".to_owned()]);
    let refused = stream.publish(Position(1), &messages(1..51), free).unwrap_err();
    assert!(matches!(refused, StrictError::ForeignWriter { sequence: 3, .. }), "{refused}");
    assert_eq!(server.values("OUT"), ["0", "foreign"]);
    // Numbered from the place before the foreign record.
    let numbered = (2..52).map(|last: u64| {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Expected-Last-Sequence", last.to_string());
        (headers, b"stale".to_vec())
    });
    let nats = server.connect();
    let outcomes = nats.publish("OUT.0.data", numbered.collect());
    let stored = outcomes.iter().filter(|outcome| matches!(outcome, Published::Stored(_))).count();
    assert_eq!(stored, 49, "the defect that chains of ids avoid");
}

/// The server forgets ids when it starts again after their window.
/// Cases: CT-34.
/// Rules: VX-850.
#[test]
fn a_server_that_forgot_the_last_id_is_reached_by_number() {
    let mut server = Server::start();
    server.create(Config { duplicate_window: Duration::from_millis(100), ..strict("OUT") });
    let (mut stream, _) = owner(&server, 1, None);
    stream.publish(Position(0), &messages(0..3), free).unwrap();
    server.stop();
    std::thread::sleep(Duration::from_millis(300));
    server.restart();
    stream.reconnect(server.connect()).unwrap();
    stream.publish(Position(3), &messages(3..600), free).unwrap();
    assert_eq!(server.values("OUT"), values(0..600));
}

/// Rules: VX-630, VX-732, VX-850.
#[test]
fn what_was_not_answered_is_looked_for_before_it_is_sent_again() {
    let server = Server::start();
    server.create(strict("OUT"));
    let (mut stream, _) = owner(&server, 1, None);
    stream.publish(Position(0), &messages(0..3), free).unwrap();
    // The bytes reach the stopped server, the answers never come.
    server.signal(Signal::STOP);
    let unknown = stream.publish(Position(3), &messages(3..50), free).unwrap_err();
    assert!(matches!(unknown, StrictError::Nats(NatsError::Call { .. })), "{unknown}");
    server.signal(Signal::CONT);
    stream.reconnect(server.connect()).unwrap();
    stream.publish(Position(3), &messages(3..60), free).unwrap();
    assert_eq!(server.values("OUT"), values(0..60));
}

/// Cases: CT-63.
/// Rules: VX-705, VX-714, VX-847.
#[test]
fn a_second_session_of_one_generation_is_found_out() {
    let server = Server::start();
    server.create(strict("OUT"));
    let (mut first, _) = owner(&server, 4, None);
    let refused = open(&server, session(4, 9)).unwrap().barrier(free).unwrap_err();
    assert!(matches!(refused, StrictError::SameGeneration { .. }), "{refused}");
    first.publish(Position(0), &messages(0..2), free).unwrap();
    assert_eq!(server.content("OUT").len(), 3);
}

/// A copy of the pipeline, and another one with the same stream.
/// Rules: VX-794, VX-847.
#[test]
fn another_pipeline_and_a_copy_of_this_one_are_found_out() {
    let server = Server::start();
    server.create(strict("OUT"));
    let (mut first, _) = owner(&server, 1, None);
    first.publish(Position(0), &messages(0..2), free).unwrap();
    // The same uid with a ledger of its own begins with the same generation.
    let copy = open(&server, session(1, 77)).unwrap().barrier(free).unwrap_err();
    assert!(matches!(copy, StrictError::SameGeneration { .. }), "{copy}");
    let names = Names {
        stream: "OUT".to_owned(),
        data: "OUT.0.data".to_owned(),
        fence: "OUT.0.fence".to_owned(),
        keep: Duration::from_secs(60),
    };
    let mut other = StrictStream::open(server.connect(), names, 0xbb, session(9, 9)).unwrap();
    let refused = other.barrier(free).unwrap_err();
    assert!(matches!(refused, StrictError::ForeignWriter { sequence: 1, .. }), "{refused}");
    first.publish(Position(2), &messages(2..4), free).unwrap();
    assert_eq!(server.values("OUT"), values(0..4));
}

/// An id that the server knows is answered before the expectation is looked at.
/// Rules: VX-849.
#[test]
fn a_duplicate_counts_when_it_is_there_and_the_chain_goes_on() {
    let server = Server::start();
    server.create(strict("OUT"));
    let (mut first, _) = owner(&server, 1, None);
    first.publish(Position(0), &messages(0..3), free).unwrap();
    // Never read back, so it does not know what is there.
    let mut second = open(&server, session(2, 2)).unwrap();
    second.barrier(free).unwrap();
    second.publish(Position(0), &messages(0..6), free).unwrap();
    assert_eq!(server.values("OUT"), values(0..6));
}

/// Between looking for the end of the chain and sending it again.
/// Rules: VX-732, VX-849, VX-850.
#[test]
fn a_message_that_comes_in_late_is_this_sessions_own() {
    let server = Server::start();
    server.create(strict("OUT"));
    let (mut stream, _) = owner(&server, 1, None);
    stream.publish(Position(0), &messages(0..3), free).unwrap();
    stream.reconnect(server.connect()).unwrap();
    let late = server.connect();
    let mut is_late = true;
    let permit = || {
        if std::mem::take(&mut is_late) {
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Msg-Id", "00000000000000aa.out.0.3.0");
            headers.insert("Tg-Generation", "1");
            late.publish("OUT.0.data", vec![(headers, b"3".to_vec())]);
        }
        Ok(())
    };
    stream.publish(Position(3), &messages(3..10), permit).unwrap();
    assert_eq!(server.values("OUT"), values(0..10));
}

/// The whole epoch comes again, and the server knows none of its ids any more.
/// Rules: VX-848, VX-850.
#[test]
fn what_was_confirmed_before_an_error_is_not_stored_again() {
    let server = Server::start();
    let window = Duration::from_millis(100);
    server.create(Config { duplicate_window: window, max_message_size: 1_000, ..strict("OUT") });
    let (mut stream, _) = owner(&server, 1, None);
    let mut epoch = messages(0..5);
    epoch[3].record.value = vec![0; 2_000].into();
    let refused = stream.publish(Position(0), &epoch, free).unwrap_err();
    assert!(matches!(refused, StrictError::TooLarge { .. }), "{refused}");
    assert_eq!(server.values("OUT"), values(0..3));
    std::thread::sleep(window * 5);
    stream.publish(Position(0), &messages(0..5), free).unwrap();
    assert_eq!(server.values("OUT"), values(0..5));
}

/// Cases: CT-66.
/// Rules: VX-856.
#[test]
fn a_stream_that_loses_messages_is_refused() {
    let server = Server::start();
    let keep = Duration::from_secs(10);
    for (config, key) in [
        (Config { retention: RetentionPolicy::WorkQueue, ..strict("OUT") }, "retention"),
        (Config { max_messages_per_subject: 5, ..strict("OUT") }, "max_msgs_per_subject"),
        (Config { max_age: keep, duplicate_window: keep, ..strict("OUT") }, "max_age"),
        (Config { max_messages: 5, discard: Default::default(), ..strict("OUT") }, "discard"),
        (Config { deny_purge: false, ..strict("OUT") }, "deny_delete, deny_purge, allow_rollup_hdrs"),
    ] {
        let nats = server.connect();
        server.create(config);
        let refused = open(&server, session(1, 1)).unwrap_err();
        assert!(refused.to_string().contains(&format!("{key} = ")), "{key}: {refused}");
        nats.wait(nats.context().delete_stream("OUT")).unwrap().unwrap();
    }
    server.create(strict("OUT"));
    let (mut stream, _) = owner(&server, 1, None);
    let place = stream.publish(Position(0), &messages(0..5), free).unwrap();
    let nats = server.connect();
    nats.wait(nats.context().delete_stream("OUT")).unwrap().unwrap();
    server.create(strict("OUT"));
    let lost = stream.publish(Position(5), &messages(5..6), free).unwrap_err();
    assert!(matches!(lost, StrictError::Regressed { .. }), "{lost}");
    let mut next = open(&server, session(2, 2)).unwrap();
    next.barrier(free).unwrap();
    let lost = next.read_back(Some(place)).unwrap_err();
    assert!(matches!(lost, StrictError::Regressed { what: "was made anew", .. }), "{lost}");
    // The same stream, with a hole where the last commit was.
    let future = Place { sequence: 99, ..next.place() };
    let lost = next.read_back(Some(future)).unwrap_err();
    assert!(matches!(lost, StrictError::Regressed { what: "ends before the last commit", .. }), "{lost}");
}

/// Rules: VX-722, VX-723.
#[test]
fn without_a_permit_nothing_is_sent() {
    let server = Server::start();
    server.create(strict("OUT"));
    let fenced = || Err::<Infallible, _>(Fenced { generation: Generation(1) });
    let mut stream = open(&server, session(1, 1)).unwrap();
    assert!(matches!(stream.barrier(fenced).unwrap_err(), StrictError::Fenced(_)));
    assert_eq!(server.content("OUT"), []);
    stream.barrier(free).unwrap();
    assert!(matches!(
        stream.publish(Position(0), &messages(0..2), fenced).unwrap_err(),
        StrictError::Fenced(_)
    ));
    assert_eq!(server.values("OUT"), Vec::<String>::new());
}
