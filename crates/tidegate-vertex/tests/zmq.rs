//! The ends of a vertex in ZeroMQ sockets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::{
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use tidegate_mq::{Context, Message, Pub, Pull, Push, Sub};
use tidegate_udf::wire::ids::{EpochId, Generation, PartitionId, Position};
use tidegate_vertex::{
    batch::{Input, Record},
    fence::{FenceTable, Reason},
    sink::{self, Delivery, Output, OutputIds, Published, Session, Sink, SinkError},
    source::{self, Budget, Polled, Positions, Source},
    wake::Waker,
};

const ONLY: PartitionId = PartitionId(0);
const PATIENCE: Duration = Duration::from_secs(60);

struct Woken(Receiver<()>);

/// The next so many records.
fn take(source: &mut impl Source, woken: &Woken, count: usize) -> Vec<Input> {
    let budget = Budget { records: 7, bytes: 1 << 20, value: 1 << 20 };
    let mut inputs = Vec::new();
    while inputs.len() < count {
        match source.poll(ONLY, budget).unwrap() {
            Polled::Inputs(more) => inputs.extend(more),
            Polled::Idle => woken.0.recv_timeout(PATIENCE).unwrap(),
            other => panic!("a socket does not end: {other:?}"),
        }
    }
    inputs
}

fn open_source(keys: &str) -> (source::zmq::Zmq, Woken) {
    let (wake, woken) = channel();
    let waker = Waker::new(move || wake.send(()).unwrap_or(()));
    (source::zmq::Zmq::open(&toml::from_str(keys).unwrap(), waker).unwrap(), Woken(woken))
}

fn values(inputs: &[Input]) -> Vec<&str> {
    inputs.iter().map(|input| str::from_utf8(&input.record.value).unwrap()).collect()
}

/// Rules: VX-793, VX-830, VX-831.
#[test]
fn what_is_pushed_is_read_in_order_and_never_more_than_the_bound_ahead() {
    let (mut source, woken) = open_source(
        "pattern = \"pull\"\nbind = [\"tcp://127.0.0.1:*\"]\nprefetch = \"1KiB\"\nhigh_water_mark = 10",
    );
    let context = Context::new();
    let push = Push::new(&context).unwrap();
    push.set_options(|options| {
        options.sndhwm = 10;
        Ok(())
    })
    .unwrap();
    push.connect(&source.endpoints()[0]).unwrap();
    let first = source.open(ONLY, None).unwrap();
    let sending = std::thread::spawn(move || {
        for number in 0..2_000 {
            push.send_blocking(format!("{number:0100}")).unwrap();
        }
    });
    let inputs = take(&mut source, &woken, 1);
    // Full everywhere: the sender waits, and what was read ahead is within the bound.
    assert!(source.pending(ONLY).unwrap() <= 8);
    let mut all = inputs;
    let rest = 2_000 - all.len();
    all.extend(take(&mut source, &woken, rest));
    sending.join().unwrap();
    let expected: Vec<String> = (0..2_000).map(|number| format!("{number:0100}")).collect();
    assert_eq!(values(&all), expected);
    assert_eq!(all[0].position, first);
    assert!(
        all.windows(2).all(|pair| pair[0].next == pair[1].position && pair[1].position > pair[0].position)
    );
    assert_eq!(source.abilities().positions, Positions::PerRun);
    let nowhere = source::zmq::Zmq::open(&toml::from_str("pattern = \"pull\"").unwrap(), Waker::new(|| {}))
        .unwrap_err();
    assert!(nowhere.to_string().contains("source.bind and source.connect are empty"), "{nowhere}");
}

#[test]
fn topics_are_keys_and_other_messages_are_counted() {
    let context = Context::new();
    let publisher = Pub::new(&context).unwrap();
    let endpoint = publisher.bind_blocking("tcp://127.0.0.1:*").unwrap();
    let (mut source, woken) = open_source(&format!(
        "pattern = \"sub\"\nconnect = [{endpoint:?}]\ntopics = [\"a.\"]\nparts = \"key value\""
    ));
    publisher.wait_for_subscribers_blocking(b"a.", 1, PATIENCE).unwrap();
    publisher.send_blocking(Message::from_iter(["b.x", "not wanted"])).unwrap();
    publisher.send_blocking(Message::from_iter(["a.x"])).unwrap();
    publisher.send_blocking(Message::from_iter(["a.y", "wanted"])).unwrap();
    let inputs = take(&mut source, &woken, 1);
    assert_eq!((&inputs[0].record.key[..], values(&inputs)), (&b"a.y"[..], vec!["wanted"]));
    assert_eq!(source.left_out(), 1);
}

/// A sink, and what permits its writes.
struct Sending {
    sink: sink::zmq::Zmq,
    guard: tidegate_vertex::fence::WriteGuard,
}

impl Sending {
    fn open(keys: &str) -> Self {
        let mut fence = FenceTable::create(1, 1).unwrap();
        let (_, guard) = fence.bind(ONLY, Generation(1)).unwrap();
        Self { sink: sink::zmq::Zmq::open("main", &toml::from_str(keys).unwrap()).unwrap(), guard }
    }

    fn publish(&mut self, numbers: std::ops::Range<u64>) -> Result<Published, SinkError> {
        let output = |number: u64| {
            let record = Record { key: b"k"[..].into(), ..Record::of(number.to_string().into_bytes()) };
            Output { position: Position(number), number: 0, record }
        };
        let outputs: Vec<Output> = numbers.map(output).collect();
        let session = Session { partition: ONLY, generation: Generation(1), nonce: 1 };
        let ids = OutputIds::new(1, "main");
        let (first, last) = (Position(0), Position(0));
        let delivery =
            Delivery { session, epoch: EpochId(1), first, last, source: 0, outputs: &outputs, ids: &ids };
        self.sink.publish(&delivery, &self.guard)
    }
}

/// Rules: VX-722, VX-840.
#[test]
fn a_push_that_finds_no_room_goes_on_where_it_was() {
    let mut sending = Sending::open(
        "pattern = \"push\"\nbind = [\"tcp://127.0.0.1:*\"]\nhigh_water_mark = 5\nparts = \"key value\"",
    );
    let held = sending.publish(0..10).unwrap();
    assert_eq!(held.through, 0, "nobody is there");
    assert!(held.held.is_some());
    let context = Context::new();
    let pull = Pull::new(&context).unwrap();
    pull.connect(&sending.sink.endpoints()[0].clone()).unwrap();
    let receiving = std::thread::spawn(move || {
        (0..3_000u64)
            .map(|number| {
                let message = pull.recv_blocking().unwrap();
                assert_eq!(message.parts()[0], "k");
                assert_eq!(message.parts()[1], number.to_string());
            })
            .count()
    });
    let (mut done, mut waits) = (0, 0);
    while done < 3_000 {
        let published = sending.publish(done..3_000).unwrap();
        done += published.through as u64;
        if let Some(held) = published.held {
            waits += 1;
            std::thread::sleep(held.after.unwrap().into());
        }
    }
    assert_eq!(receiving.join().unwrap(), 3_000);
    assert!(waits > 0);
    sending.guard.revoke(Reason::Operator);
    assert!(matches!(sending.publish(0..1).unwrap_err(), SinkError::Fenced(_)));
}

/// What is queued when the vertex ends is sent.
#[test]
fn a_sink_that_is_closed_sends_what_it_has() {
    let mut sending = Sending::open("pattern = \"push\"\nbind = [\"tcp://127.0.0.1:*\"]");
    let context = Context::new();
    let pull = Pull::new(&context).unwrap();
    pull.connect_ready_blocking(&sending.sink.endpoints()[0].clone(), PATIENCE).unwrap();
    while sending.publish(0..1).unwrap().through == 0 {
        std::thread::yield_now();
    }
    assert_eq!(sending.publish(1..500).unwrap().through, 499);
    drop(sending);
    for number in 0..500u64 {
        assert_eq!(pull.recv_blocking().unwrap().parts()[0], number.to_string());
    }
}

/// Rules: VX-840.
#[test]
fn a_publication_reaches_who_subscribed() {
    let mut sending = Sending::open("pattern = \"pub\"\nbind = [\"tcp://127.0.0.1:*\"]");
    let context = Context::new();
    let subscriber = Sub::new(&context).unwrap();
    subscriber.subscribe("").unwrap();
    subscriber.connect_ready_blocking(&sending.sink.endpoints()[0].clone(), PATIENCE).unwrap();
    // Who subscribes late misses the first ones, that is what PUB means.
    subscriber
        .set_options(|options| {
            options.rcvtimeo = Some(Duration::from_millis(20));
            Ok(())
        })
        .unwrap();
    loop {
        assert_eq!(sending.publish(7..8).unwrap().through, 1);
        if let Ok(message) = subscriber.recv_blocking() {
            assert_eq!(message.parts()[0], "7");
            return;
        }
    }
}
