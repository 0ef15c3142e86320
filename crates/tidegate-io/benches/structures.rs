//! What a message costs in the data structures on its way: `cargo bench -p tidegate-io --bench structures`.
//!
//! Prints the best of several rounds in ns per message or operation.

#![allow(clippy::expect_used, reason = "a bench that cannot run should say so and end")]

use std::{hint::black_box, time::Instant};

use tidegate_io::{
    buffer::SmallFrames,
    hub::{Rotation, RoutingTable},
    index::TopicIndex,
    message::{Message, Part},
    peer::{Epoch, PeerKey},
    queue::{Capacity, Queue},
};

fn main() {
    matching();
    alike();
    subscribing();
    queueing();
    rest();
}

/// Publishing to a hundred topics, each wanted by one peer, among more and more that are not published to.
fn matching() {
    println!("matching 100 topics in turn, one of ten wanted");
    let topics: Vec<String> = (0..100).map(|number| format!("sensor/{number}/temperature")).collect();
    let mut alone = 0.0;
    for unrelated in [1, 1_000, 100_000, 1_000_000] {
        let mut index = TopicIndex::new();
        for topic in topics.iter().step_by(10) {
            index.subscribe(topic.as_bytes(), PeerKey::new(0));
        }
        for number in 0..unrelated {
            index.subscribe(format!("account/{number}/balance").as_bytes(), PeerKey::new(1));
        }
        let mut found = Vec::new();
        let time = best(100, || {
            for topic in &topics {
                index.matches(black_box(topic.as_bytes()), &mut found);
                black_box(&found);
            }
        }) / 100.0;
        if unrelated == 1 {
            alone = time;
        }
        println!("{unrelated:>9} unrelated topics {time:>8.1} ns  {:>5.2}", time / alone);
    }
    println!("the same where all topics are of one kind, so that the wanted ones stand deeper in the tree");
    for stored in [10, 1_000, 100_000, 1_000_000] {
        let mut index = TopicIndex::new();
        (0..stored).for_each(|number: u32| {
            index.subscribe(number.wrapping_mul(2_654_435_761).to_string().as_bytes(), PeerKey::new(1));
        });
        let mut found = Vec::new();
        let topics: Vec<_> = (0..100_u32).map(|number| number.wrapping_mul(40_503).to_string()).collect();
        let time = best(100, || {
            for topic in &topics {
                index.matches(black_box(topic.as_bytes()), &mut found);
                black_box(&found);
            }
        }) / 100.0;
        println!("{stored:>9} topics {time:>18.1} ns");
    }
}

/// Topics that are alike up to the last digit, which alone says whether one is wanted.
fn alike() {
    println!("matching topics that are alike up to the last digit, one of ten wanted");
    let name = |number: usize| {
        let mut name = *b"t/00000000";
        let mut rest = number;
        for digit in name.iter_mut().skip(2).rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        name
    };
    for stored in [1_usize, 1_000, 100_000] {
        let mut index = TopicIndex::new();
        for number in 0..stored {
            index.subscribe(&name(number * 10), PeerKey::new(0));
        }
        let (mut found, mut number) = (Vec::new(), 0_usize);
        let time = best(100_000, || {
            number += 1;
            index.matches(black_box(&name(number * 7_368_787 % (stored * 10))), &mut found);
            black_box(&found);
        });
        println!("{stored:>9} topics {time:>18.1} ns, with writing the topic");
    }
}

fn subscribing() {
    let topics: Vec<_> =
        (0..1_000_000).map(|number| format!("topic/{}/x", number * 7919 % 1_000_003)).collect();
    let start = Instant::now();
    let mut index = TopicIndex::new();
    for topic in &topics {
        index.subscribe(topic.as_bytes(), PeerKey::new(0));
    }
    let subscribed = start.elapsed().as_nanos() as f64 / 1e6;
    let start = Instant::now();
    index.remove_peer(PeerKey::new(0), |topic, _| {
        black_box(topic);
    });
    let removed = start.elapsed().as_nanos() as f64 / 1e6;
    println!(
        "a million topics: {subscribed:.0} ns to subscribe, {removed:.0} ns to remove with their peer, each"
    );
}

fn queueing() {
    println!("queue: push and pop, 1000 deep");
    let shared = Part::from(vec![7; 300]);
    for (name, part) in [("20 bytes in place", Part::from(&[7; 20])), ("300 bytes shared", shared)] {
        let mut queue = Queue::new(Capacity { messages: 1001, bytes: 64 << 20 });
        let mut place = Message::new();
        let time = best(10, || {
            for _ in 0..1000 {
                queue.push(&mut black_box(part.clone()).into());
            }
            while queue.pop_into(&mut place) {
                black_box(&place);
            }
        }) / 1000.0;
        println!("{name:>26} {time:>8.1} ns");
    }
}

fn rest() {
    let mut small = SmallFrames::new();
    let time = best(1000, || {
        black_box(small.copy(black_box(&[7; 200])));
    });
    println!("small frame of 200 bytes {time:>8.1} ns");

    let mut table = RoutingTable::new();
    for peer in 0..10_000 {
        table.reserve(Part::from(format!("peer {peer}")), PeerKey::new(peer));
    }
    println!(
        "routing among 10 000 {:>12.1} ns",
        best(1000, || {
            black_box(table.route(black_box(b"peer 4711")));
        })
    );

    let mut rotation = Rotation::default();
    (0..1000).for_each(|peer| rotation.join(PeerKey::new(peer), Epoch::ZERO));
    println!(
        "rotation of 1000 {:>16.1} ns",
        best(1000, || {
            black_box(rotation.next(|key, _| Some(key)));
        })
    );
}

/// Nanoseconds per call in the best of 50 rounds.
fn best(calls: usize, mut call: impl FnMut()) -> f64 {
    let round = |_| {
        let start = Instant::now();
        (0..calls).for_each(|_| call());
        start.elapsed().as_nanos() as f64 / calls as f64
    };
    (0..50).map(round).fold(f64::INFINITY, f64::min)
}
