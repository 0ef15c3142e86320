//! Consumers that readers share.

use std::{collections::BTreeMap, sync::mpsc, time::Duration};

use async_nats::jetstream::consumer::{AckPolicy, Info, pull};
use rustix::process::Signal;
use tidegate_udf::wire::ids::{Generation, PartitionId};
use tidegate_vertex::{
    fence::{FenceTable, Quiesce, Reason, WriteGuard},
    nats::{
        Endpoint, Nats, NatsError,
        queue::{Queue, Shares},
    },
    wake::Waker,
};

use crate::{
    server::{Server, plain},
    world::{IDS, World, until},
};

const PATIENCE: Duration = Duration::from_secs(60);

/// A reader of the consumer `work` of the stream `IN`.
struct Reader {
    queue: Queue,
    nats: Nats,
    woken: mpsc::Receiver<()>,
    guard: WriteGuard,
}

impl Reader {
    fn start(server: &Server) -> Self {
        Self::start_with(server, &shares())
    }

    fn start_with(server: &Server, shares: &Shares) -> Self {
        // It gives up waiting for an answer soon.
        let endpoint = Endpoint::open(&server.url());
        let nats = Nats::connect_with(&endpoint, "test", Duration::from_millis(500)).unwrap();
        let (wake, woken) = mpsc::channel();
        let (stream, _) = nats.stream("IN").unwrap();
        let queue = Queue::start(&nats, &stream, shares, Waker::new(move || wake.send(()).unwrap_or(())));
        let guard = FenceTable::create(1, 1).unwrap().bind(PartitionId(0), Generation(1)).unwrap().1;
        Self { queue: queue.unwrap(), nats, woken, guard }
    }

    /// Asks for so many and waits for the first of them.
    fn take(&self, records: usize) -> Vec<u64> {
        self.queue.ask(records, 1 << 20);
        self.woken.recv_timeout(PATIENCE).unwrap();
        let next = || self.queue.next_if(|_| true).map(|message| message.sequence);
        std::iter::from_fn(next).collect()
    }

    fn info(&self) -> Info {
        let (stream, _) = self.nats.stream("IN").unwrap();
        self.nats.wait(async { stream.consumer_info("work").await }).unwrap().unwrap()
    }
}

fn shares() -> Shares {
    Shares {
        consumer: "work".to_owned(),
        subject: String::new(),
        ack_wait: Duration::from_secs(1),
        max_ack_pending: 1_000,
    }
}

fn server(records: u64) -> Server {
    let server = Server::start();
    server.create(plain("IN", "in.*"));
    server.produce("in.0", (0..records).map(|number| number.to_string()));
    server
}

/// Rules: VX-837.
#[test]
fn nothing_is_pulled_that_nobody_asked_for() {
    let server = server(100);
    let reader = Reader::start(&server);
    assert_eq!(reader.info().delivered.consumer_sequence, 0);
    assert_eq!(reader.take(3), [1, 2, 3]);
    assert_eq!(reader.queue.pending(), Some(97));
    let info = reader.info();
    assert_eq!((info.num_ack_pending, info.num_waiting, info.num_pending), (3, 0, 97));
    assert_eq!(reader.take(5), [4, 5, 6, 7, 8]);
}

/// The consumer refuses to give as many at once as are asked for behind the first.
/// Rules: VX-837.
#[test]
fn what_came_before_a_pull_failed_is_told_and_no_more_is_pulled() {
    let server = server(3);
    let nats = server.connect();
    let (stream, _) = nats.stream("IN").unwrap();
    let config = pull::Config {
        durable_name: Some("work".to_owned()),
        ack_policy: AckPolicy::Explicit,
        max_batch: 1,
        ..pull::Config::default()
    };
    nats.wait(stream.create_consumer(config)).unwrap().unwrap();
    let reader = Reader::start(&server);
    for taken in 1..=3 {
        assert_eq!(reader.take(10), [taken]);
        assert_eq!(reader.info().num_ack_pending as u64, taken);
    }
}

/// Rules: VX-742, VX-837.
#[test]
fn what_is_worked_on_stays() {
    let server = server(3);
    let (busy, idle) = (Reader::start(&server), Reader::start(&server));
    assert_eq!(busy.take(10), [1, 2, 3]);
    idle.queue.ask(10, 1 << 20);
    // Several times as long as the server waits.
    assert!(idle.woken.recv_timeout(Duration::from_secs(4)).is_err());
    assert_eq!(busy.info().num_redelivered, 0);
}

/// Long before the server would deliver it again by itself.
/// Rules: VX-742, VX-837.
#[test]
fn what_is_given_back_comes_at_once() {
    let server = server(3);
    let slow = Shares { ack_wait: Duration::from_secs(3_600), ..shares() };
    let [busy, idle] = [(); 2].map(|()| Reader::start_with(&server, &slow));
    assert_eq!(busy.take(10), [1, 2, 3]);
    busy.queue.give_back(&busy.nats, Duration::ZERO);
    let mut again = Vec::new();
    while again.len() < 3 {
        again.extend(idle.take(10));
    }
    again.sort_unstable();
    assert_eq!(again, [1, 2, 3]);
}

/// Rules: VX-441, VX-837.
#[test]
fn an_acknowledgement_is_repeated_until_it_is_confirmed() {
    let server = server(10);
    let reader = Reader::start(&server);
    assert_eq!(reader.take(10).len(), 10);
    server.signal(Signal::STOP);
    reader.queue.done(&reader.nats, 4, &reader.guard);
    // Longer than one attempt: the permit is with each of them, and between two there is none.
    let mut ends = 0;
    until("an attempt given up", || {
        ends += u32::from(reader.guard.quiesce(|| false) == Quiesce::Quiesced);
        ends > 0
    });
    // What waits in the stopped server's socket is lost with the connection.
    server.signal(Signal::CONT);
    until("confirmed", || reader.info().num_ack_pending == 6);
    assert_eq!(reader.info().ack_floor.stream_sequence, 4);
}

/// Cases: CT-25.
/// Rules: VX-722, VX-728, VX-742, VX-837.
#[test]
fn nothing_is_acknowledged_after_a_revoke() {
    let server = server(10);
    let reader = Reader::start(&server);
    assert_eq!(reader.take(10).len(), 10);
    reader.guard.revoke(Reason::Operator);
    reader.queue.done(&reader.nats, 10, &reader.guard);
    reader.queue.give_back(&reader.nats, Duration::ZERO);
    let next = Reader::start(&server);
    let mut again = Vec::new();
    while again.len() < 10 {
        again.extend(next.take(10));
    }
    again.sort_unstable();
    assert_eq!(again, (1..=10).collect::<Vec<u64>>());
}

/// Rules: VX-837.
#[test]
fn a_consumer_that_gives_up_messages_or_holds_them_back_is_refused() {
    let server = server(1);
    let nats = server.connect();
    let (stream, _) = nats.stream("IN").unwrap();
    let good = pull::Config {
        durable_name: Some("work".to_owned()),
        ack_policy: AckPolicy::Explicit,
        max_ack_pending: 1_000,
        ..pull::Config::default()
    };
    for (config, key) in [
        (pull::Config { ack_policy: AckPolicy::None, max_ack_pending: 0, ..good.clone() }, "ack_policy"),
        (pull::Config { max_deliver: 3, ..good.clone() }, "max_deliver"),
        (pull::Config { filter_subject: "in.1".to_owned(), ..good.clone() }, "filter_subject"),
        (pull::Config { max_ack_pending: 999, ..good.clone() }, "max_ack_pending"),
    ] {
        nats.wait(stream.create_consumer(config)).unwrap().unwrap();
        let refused = Queue::start(&nats, &stream, &shares(), Waker::new(|| {})).unwrap_err();
        assert!(matches!(&refused, NatsError::Setting { key: found, .. } if *found == key), "{refused}");
        assert!(refused.to_string().contains("consumer work"), "{refused}");
        nats.wait(stream.delete_consumer("work")).unwrap().unwrap();
    }
    nats.wait(stream.create_consumer(good)).unwrap().unwrap();
    Queue::start(&nats, &stream, &shares(), Waker::new(|| {})).unwrap();
}

/// What goes back is acknowledged for nobody, and what is behind it is all the same.
/// Rules: VX-603, VX-742.
#[test]
fn a_single_message_goes_back_and_those_behind_it_are_acknowledged() {
    let server = server(4);
    let slow = Shares { ack_wait: Duration::from_secs(3_600), ..shares() };
    let reader = Reader::start_with(&server, &slow);
    assert_eq!(reader.take(10), [1, 2, 3, 4]);
    reader.queue.give_one_back(2, Duration::ZERO);
    reader.queue.done(&reader.nats, 2, &reader.guard);
    until("the first", || reader.info().ack_floor.stream_sequence == 1);
    assert_eq!(reader.take(10), [2]);
    assert_eq!(reader.info().num_ack_pending, 3);
    reader.queue.done(&reader.nats, 4, &reader.guard);
    until("those behind it", || reader.info().num_ack_pending == 1);
    reader.queue.done(&reader.nats, 2, &reader.guard);
    until("all", || reader.info().num_ack_pending == 0);
}

/// Inputs that go back to the server, by the function's word or when it has failed often enough, come again.
/// Rules: VX-003, VX-440, VX-601, VX-603.
#[test]
fn inputs_that_are_given_back_come_again() {
    for udf in ["", UNORDERED] {
        all_that_is_given_back_comes_again(udf);
    }
}

fn all_that_is_given_back_comes_again(udf: &'static str) {
    let rest = "[udf.retry]\nattempts = 1\ncap = \"1ms\"\non_exhausted = \"nack\"";
    let world = World { source: WORK, function: "second try", udf, rest, ..World::new(IDS) };
    world.input(150);
    world.server.create(plain("OUT", "out.*"));
    let nats = world.server.connect();
    let (stream, _) = nats.stream("IN").unwrap();
    let is_done = || {
        let info = nats.wait(async { stream.consumer_info("work").await }).unwrap().unwrap();
        (info.num_ack_pending, info.num_pending) == (0, 0)
    };
    let report = world.run_until("complete", is_done);
    assert!(report.balances(), "{report:?}");
    // The first one of each batch at least; the others of it ran once more with what was behind that.
    assert!(report.nacked > 7, "{report:?}");
    assert_eq!(report.delivered, 300, "{report:?}");
    let info = nats.wait(async { stream.consumer_info("work").await }).unwrap().unwrap();
    assert_eq!(info.delivered.consumer_sequence, 300 + report.nacked);
    assert_eq!(world.stored(&["OUT"]), 300);
}

const RECORDS: u64 = 1_500;

const UNORDERED: &str = "workers = 2\norder = \"none\"";

const WORK: &str = "kind = \"jetstream\"
    mode = \"work_queue\"
    url = URL
    stream = \"IN\"
    consumer = \"work\"
    ack_wait = \"1s\"
    max_ack_pending = 1000";

/// What a killed vertex had read comes again, behind newer records and with the same ids; everything is acknowledged in the end.
/// Cases: CT-40, CT-43.
/// Rules: VX-440, VX-441, VX-742, VX-790, VX-837.
#[test]
fn every_message_is_processed_and_acknowledged_however_often_the_vertex_is_killed() {
    for udf in ["", UNORDERED] {
        all_is_processed_however_often_the_vertex_is_killed(udf);
    }
}

fn all_is_processed_however_often_the_vertex_is_killed(udf: &'static str) {
    let world = World { source: WORK, udf, ..World::new(IDS) };
    world.input(RECORDS);
    world.server.create(plain("OUT", "out.*"));
    let nats = world.server.connect();
    let (stream, _) = nats.stream("IN").unwrap();
    let all = 2 * RECORDS;
    let is_done = || {
        let info = nats.wait(async { stream.consumer_info("work").await }).unwrap().unwrap();
        (info.num_ack_pending, info.num_pending) == (0, 0)
    };
    world.kill_on_the_way(&[all / 4, all / 2, all * 3 / 4], || world.stored(&["OUT"]), is_done);
    let mut values = BTreeMap::<String, u32>::new();
    for value in world.server.values("OUT") {
        *values.entry(value).or_default() += 1;
    }
    assert_eq!(values.len() as u64, all);
    assert!(values.values().all(|count| *count == 1), "{values:?}");
}
