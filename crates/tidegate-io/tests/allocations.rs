//! Budget: in steady state nothing of what a message passes through allocates.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Instant,
};

use allocation_counter::measure;
use bytes::{BufMut, Bytes};
use tidegate_io::{
    batch::WriteBatch,
    buffer::{Slab, SmallFrames},
    hub::{Claim, Rotation, RoutingTable},
    index::TopicIndex,
    message::{Message, Part},
    packed::{Packed, Piece},
    peer::{Epoch, PeerKey},
    queue::{Capacity, Queue},
    wait::{Waiters, Wakes, block_on},
};

/// Allocations of 10 000 rounds after 1000 to warm up.
fn allocations(mut round: impl FnMut(usize)) -> u64 {
    (0..1000).for_each(&mut round);
    measure(|| (0..10_000).for_each(&mut round)).count_total
}

/// One read of the slab, cut into parts of `len` bytes which go through a queue; up to `depth` messages are held.
fn receive(len: usize, depth: usize) -> u64 {
    let mut slab = Slab::default();
    let mut queue = Queue::new(Capacity { messages: 1000, bytes: 0 });
    let mut received = Message::new();
    let sent = vec![7; len * 10];
    allocations(|_| {
        let mut buffer = slab.take(4096.max(sent.len()));
        buffer.put_slice(&sent);
        let mut chunk = buffer.split().freeze();
        slab.give_back(buffer);
        while !chunk.is_empty() {
            let part = slab.part(chunk.split_to(len));
            queue.push(&mut part.into());
        }
        while queue.len() > depth {
            assert!(queue.pop_into(&mut received));
            assert_eq!(received.byte_len(), len);
        }
    })
}

/// Rules: MQ-022, MQ-025.
#[test]
fn receiving_allocates_nothing() {
    for len in [1, 64, 65, 200, 256, 257, 1000, 5000] {
        for depth in [0, 100] {
            assert_eq!(receive(len, depth), 0, "{depth} messages of {len} bytes held");
        }
    }
}

/// Rules: MQ-022.
#[test]
fn small_frames_allocate_nothing_while_a_thousand_are_held() {
    let mut small = SmallFrames::new();
    let mut held: Vec<Part> = (0..1000).map(|_| small.copy(&[1; 256])).collect();
    assert_eq!(allocations(|round| held[round % 1000] = small.copy(&[2; 256])), 0);
}

/// Rules: MQ-025, MQ-026, MQ-472.
#[test]
fn writing_allocates_nothing() {
    let mut queue = Queue::new(Capacity { messages: 0, bytes: 0 });
    let mut packed = Packed::new();
    let mut batch = WriteBatch::new(64 * 1024);
    let large = Bytes::from(vec![1; 20_000]);
    let short = Part::from(&[2; 20]);
    let longer = Part::from(vec![3; 300]);
    let count = allocations(|round| {
        for index in 0..round % 300 {
            let part = match (round + index) % 50 {
                0 => Part::from(large.clone()),
                1..20 => longer.clone(),
                _ => short.clone(),
            };
            queue.push(&mut part.into());
        }
        queue.take_into(&mut packed, usize::MAX, usize::MAX);
        loop {
            let more = packed.take_with(|piece, _| match piece {
                Piece::Shared(bytes) if bytes.len() >= 16 * 1024 => batch.put_shared(bytes),
                piece => batch.put(piece.as_slice()),
            });
            if batch.is_full() || !more {
                batch.segments();
                batch.advance(batch.len() / 2);
                batch.advance(batch.len());
            }
            if !more {
                break;
            }
        }
    });
    assert_eq!(count, 0);
}

/// Rules: MQ-075.
#[test]
fn publishing_allocates_nothing() {
    let mut index = TopicIndex::new();
    for peer in 0..100 {
        index.subscribe(b"", PeerKey::new(peer));
        index.subscribe(b"topic", PeerKey::new(peer));
        index.subscribe(format!("topic {}", peer % 10).as_bytes(), PeerKey::new(peer));
    }
    let mut found = Vec::new();
    let count = allocations(|_| {
        index.matches(b"topic 7", &mut found);
        assert_eq!(found.len(), 100);
    });
    assert_eq!(count, 0);
}

/// Rules: MQ-213.
#[test]
fn routing_allocates_nothing() {
    let mut table = RoutingTable::new();
    for peer in 0..1000 {
        let id = Part::from(format!("a routing id that is too long to be stored in place: {peer}"));
        assert_eq!(table.reserve(id, PeerKey::new(peer)), Claim::Reserved);
    }
    let id = b"a routing id that is too long to be stored in place: 77";
    assert_eq!(allocations(|_| assert_eq!(table.route(id).unwrap().key, PeerKey::new(77))), 0);
}

#[test]
fn choosing_a_peer_allocates_nothing() {
    let mut rotation = Rotation::default();
    let count = allocations(|round| {
        rotation.join(PeerKey::new((round % 100) as u32), Epoch::ZERO);
        assert!(rotation.next(|key, _| (round % 3 == 0).then_some(key)).is_some() == (round % 3 == 0));
    });
    assert_eq!(count, 0);
}

/// Is woken once before it is ready.
struct Yield<'a> {
    waiters: &'a mut Waiters,
    ticket: Option<tidegate_io::wait::Ticket>,
}

impl Future for Yield<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if let Some(ticket) = this.ticket.take() {
            assert!(this.waiters.is_granted(&ticket, context.waker()));
            this.waiters.finish(ticket);
            return Poll::Ready(());
        }
        let mut wakes = Wakes::new();
        this.ticket = Some(this.waiters.join((), context.waker()));
        this.waiters.grant_many(1, &mut wakes);
        wakes.fire();
        Poll::Pending
    }
}

/// Rules: MQ-025.
#[test]
fn waiting_allocates_nothing() {
    let mut waiters = Waiters::new();
    let mut others: Vec<_> = (0..10).map(|_| waiters.join((), Waker::noop())).collect();
    others.drain(..).for_each(|ticket| assert!(waiters.finish(ticket).is_some()));
    let deadline = Some(Instant::now() + std::time::Duration::from_secs(60));
    let count = allocations(|_| {
        let woken = block_on(Yield { waiters: &mut waiters, ticket: None }, deadline);
        assert_eq!(woken, Some(()));
    });
    assert_eq!(count, 0);
}
