//! Every message is in one of the counters, however its connection ended (MQ-471): what was sent is delivered, discarded
//! by a rule, or lost with a write that was under way.

use std::{
    io::Read,
    net::{Shutdown, TcpListener},
    thread,
    time::{Duration, Instant},
};

use tidegate_io::wait::block_on;
use tidegate_mq::{Dealer, Push, Router, metrics::Metrics};

use super::{
    Dice,
    child::{self, alone},
    duration,
    peer::{PATIENCE, Raw},
    rig::{ANYWHERE, context, options, options_with, until},
};

const PEERS: usize = 10;
/// Between two messages of a peer.
const PACE: Duration = Duration::from_millis(10);

/// In a quiet moment, each direction by itself.
#[track_caller]
fn is_balanced(metrics: &Metrics) {
    for flow in [metrics.out, metrics.inbound] {
        let gone = flow.left + flow.dropped_by_rule + flow.discarded;
        assert_eq!(flow.entered, gone + flow.depth, "{metrics:?}");
    }
}

/// Sends at its pace until the time is over, and leaves and returns in between; tells what its sockets counted. Some
/// leave only once they are there: what is queued for a connection that is not made yet is discarded by a disconnect.
fn come_and_go(
    context: &tidegate_mq::Context,
    endpoint: &str,
    number: usize,
    until: Instant,
) -> Vec<Metrics> {
    let is_patient = number.is_multiple_of(2);
    let connect = |dealer: &Dealer| {
        dealer.connect(endpoint).unwrap();
        if is_patient {
            block_on(dealer.connect_ready(endpoint, PATIENCE), None).unwrap().unwrap();
        }
    };
    let make = || {
        let dealer = Dealer::with_options(
            context,
            options_with(|options| {
                options.linger = None;
                options.reconnect_ivl = Some(Duration::from_millis(1));
            }),
        )
        .unwrap();
        connect(&dealer);
        dealer
    };
    let mut dice = Dice(number as u64 + 17);
    let mut counted = Vec::new();
    let mut dealer = make();
    let mut sent = 0_u32;
    while Instant::now() < until {
        let size = dice.roll(3000) as usize;
        dealer.send_blocking([&sent.to_le_bytes()[..], &vec![7; size]].concat()).unwrap();
        sent += 1;
        match dice.roll(60) {
            0 => {
                dealer.disconnect(endpoint).unwrap();
                connect(&dealer);
            }
            1 => {
                counted.push(close(dealer));
                dealer = make();
            }
            _ => thread::sleep(PACE),
        }
    }
    counted.push(close(dealer));
    let total = |count: fn(&Metrics) -> u64| counted.iter().map(count).sum::<u64>();
    assert_eq!(total(|metrics| metrics.out.entered), u64::from(sent), "what was taken has entered");
    assert!(!is_patient || total(|metrics| metrics.out.discarded) == 0);
    counted
}

/// The numbers at the end of a socket's life.
fn close(dealer: Dealer) -> Metrics {
    let last = dealer.clone();
    assert_eq!(block_on(dealer.close(None), None).unwrap(), 0);
    last.metrics()
}

/// Ten peers of a hundred messages a second each, which leave in their own ways and return: at the end all counters
/// together account for every message, and nothing has grown. `TIDEGATE_MQ_CHURN_SECONDS=600` makes it the ten minutes
/// of the specification.
///
/// Rules: MQ-067, MQ-184, MQ-471.
#[test]
fn peers_that_leave_by_themselves_lose_nothing() {
    let Some(driver) = alone("accounts::peers_that_leave_by_themselves_lose_nothing") else { return };
    let context = context(driver);
    let router = Router::with_options(&context, options()).unwrap();
    let endpoint = router.bind_blocking(ANYWHERE).unwrap();
    let empty = child::descriptors();
    let end = Instant::now() + duration() / 2;
    let (mut heard, mut settled) = (0_u64, 0);
    let counted: Vec<Metrics> = thread::scope(|scope| {
        let peers: Vec<_> = (0..PEERS)
            .map(|number| {
                let (context, endpoint) = (&context, &endpoint);
                scope.spawn(move || come_and_go(context, endpoint, number, end))
            })
            .collect();
        while !peers.iter().all(|peer| peer.is_finished()) {
            match router.try_recv() {
                Ok(_) => heard += 1,
                Err(_) => thread::sleep(PACE / 10),
            }
            if settled == 0 && end.saturating_duration_since(Instant::now()) < duration() / 3 {
                settled = child::resident("self");
            }
        }
        peers.into_iter().flat_map(|peer| peer.join().unwrap()).collect()
    });
    let grown = child::resident("self").saturating_sub(settled);
    let sent: u64 = counted.iter().map(|metrics| metrics.out.entered).sum();
    counted.iter().for_each(is_balanced);
    until("all connections are gone", || {
        heard += std::iter::from_fn(|| router.try_recv().ok()).count() as u64;
        child::descriptors() <= empty
    });
    heard += std::iter::from_fn(|| router.try_recv().ok()).count() as u64;
    let total = router.metrics();
    is_balanced(&total);
    let lost: u64 = counted.iter().map(|metrics| metrics.lost_in_flight).sum();
    let discarded: u64 = counted.iter().map(|metrics| metrics.out.discarded).sum();
    child::say(&format!(
        "measured: {sent} sent by {} sockets, {heard} heard, {discarded} discarded, {grown} octets more",
        counted.len()
    ));
    assert!(sent > 1000 && counted.len() > PEERS, "{sent} {}", counted.len());
    assert_eq!((heard + discarded, lost), (sent, 0));
    assert_eq!((total.inbound.entered, total.inbound.left), (heard, heard));
    assert_eq!(total.inbound.dropped_by_rule + total.inbound.discarded, 0);
    assert!(grown < 4 << 20, "{grown} octets more");
    context.term_blocking();
}

/// A peer that has had enough says so, and reads what is under way to its end: of what was sent only messages of the
/// write at that moment are missing, and these are counted.
///
/// Rules: MQ-110, MQ-184, MQ-284, MQ-471.
#[test]
fn only_writes_under_way_are_lost() {
    const ROUNDS: usize = 300;
    let Some(driver) = alone("accounts::only_writes_under_way_are_lost") else { return };
    let context = context(driver);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let push = Push::with_options(
        &context,
        options_with(|options| {
            options.reconnect_ivl = Some(Duration::from_millis(1));
            options.sndbuf = Some(8192);
        }),
    )
    .unwrap();
    push.connect(&format!("tcp://{}", listener.local_addr().unwrap())).unwrap();
    let sender = thread::spawn({
        let push = push.clone();
        move || {
            let mut dice = Dice(5);
            let mut sent = 0_u32;
            loop {
                let body = [&sent.to_le_bytes()[..], &vec![1; dice.roll(5000) as usize]].concat();
                if push.send_blocking(body).is_err() {
                    return sent;
                }
                sent += 1;
            }
        }
    });
    let mut dice = Dice(99);
    let (mut delivered, mut missing, mut next) = (0_u64, 0_u64, 0_u32);
    let mut hear = |frame: (u8, Vec<u8>)| {
        assert_eq!(frame.0 & !2, 0, "a message of one part");
        let number = u32::from_le_bytes(frame.1[..4].try_into().unwrap());
        assert!(number >= next, "{number} came after {next}: twice, or out of order");
        missing += u64::from(number - next);
        next = number + 1;
        delivered += 1;
        (delivered, missing, next)
    };
    for _ in 0..ROUNDS {
        let (stream, _) = listener.accept().unwrap();
        let mut peer = Raw::of(stream);
        peer.shake("PULL", "");
        for _ in 0..dice.roll(300) {
            hear(peer.frame());
        }
        peer.0.shutdown(Shutdown::Write).unwrap();
        // A frame that ends in the middle is one of the messages that are lost.
        let mut rest = Vec::new();
        peer.0.read_to_end(&mut rest).unwrap();
        let mut rest = rest.as_slice();
        while let Some(frame) = split_frame(&mut rest) {
            hear(frame);
        }
    }
    let (stream, _) = listener.accept().unwrap();
    let mut peer = Raw::of(stream);
    peer.shake("PULL", "");
    push.set_options(|options| {
        options.sndtimeo = Some(Duration::from_millis(200));
        Ok(())
    })
    .unwrap();
    let sent = sender.join().unwrap();
    let (delivered, missing, _) = loop {
        let counts = hear(peer.frame());
        if counts.2 == sent {
            break counts;
        }
    };
    let metrics = push.metrics();
    is_balanced(&metrics);
    child::say(&format!(
        "measured: {sent} sent, {delivered} delivered, {missing} missing, {} counted as lost in {ROUNDS} losses",
        metrics.lost_in_flight
    ));
    assert_eq!(metrics.out.entered, u64::from(sent));
    assert_eq!((metrics.out.left, metrics.out.discarded, metrics.out.depth), (u64::from(sent), 0, 0));
    assert_eq!(delivered + missing, u64::from(sent));
    assert!(missing <= metrics.lost_in_flight, "{missing} are missing, {} counted", metrics.lost_in_flight);
    assert!(missing > 0, "no loss was made");
    // A write takes no more than its batch: 64 KiB and the last message.
    assert!(metrics.lost_in_flight <= (ROUNDS * 200) as u64);
    context.term_blocking();
}

/// The first whole frame of `octets`, if there is one.
fn split_frame(octets: &mut &[u8]) -> Option<(u8, Vec<u8>)> {
    let flags = *octets.first()?;
    let (size, head) = match flags & 2 {
        0 => (usize::from(*octets.get(1)?), 2),
        _ => (u64::from_be_bytes(octets.get(1..9)?.try_into().unwrap()) as usize, 9),
    };
    let body = octets.get(head..head + size)?.to_vec();
    *octets = &octets[head + size..];
    Some((flags, body))
}
