//! Producers that are faster than consumers, of every type.

use std::{
    sync::mpsc::channel,
    thread,
    time::{Duration, Instant},
};

use tidegate_mq::{
    Context, Dealer, Message, Options, Pair, Pub, Pull, Push, Rep, Req, Router, Sub, XPub, XSub,
};

use super::{
    child::{self, alone},
    rig::{ANYWHERE, context, options_with, until},
};

/// Limit in bytes of each queue.
const BUDGET: u64 = 4 << 20;
/// What one message carries.
const PART: usize = 100_000;

fn bounded() -> Options {
    options_with(|options| {
        options.sndhwm = 0;
        options.rcvhwm = 0;
        options.sndhwm_bytes = BUDGET;
        options.rcvhwm_bytes = BUDGET;
        options.sndtimeo = Some(Duration::from_millis(300));
        options.router_mandatory = true;
    })
}

/// Sends until the socket does not take any more, at most `most`. A part is made anew for each message, so that what is
/// queued is really there.
fn flood(most: usize, mut send: impl FnMut(Vec<u8>) -> bool) -> usize {
    (0..most).take_while(|_| send(vec![7; PART])).count()
}

/// Queues are bounded in bytes: whatever the pattern, a consumer that does not consume costs two budgets at most, one
/// on each side, and the socket goes on when it does.
///
/// Rules: MQ-467, MQ-060, MQ-062.
#[test]
fn queues_stay_within_their_budgets() {
    let Some(driver) = alone("memory::queues_stay_within_their_budgets") else { return };
    /// Messages of ten times both budgets.
    const MOST: usize = 20 * BUDGET as usize / PART;
    /// Two budgets, and what is between them: a batch, a receive page, a large message on either side.
    const ALLOWED: usize = 2 * BUDGET as usize + 6 * PART + (4 << 20);

    let measure = |name: &str, ends: &mut dyn FnMut(&Context, &str) -> usize| {
        for endpoint in [ANYWHERE, "inproc://bounded"] {
            let context = context(driver);
            let before = child::resident("self");
            let taken = ends(&context, endpoint);
            let grown = child::resident("self").saturating_sub(before);
            child::say(&format!("measured {name} {endpoint}: {taken} taken, {} KiB", grown >> 10));
            // DEALER is flooded in both directions.
            let allowed = if name == "DEALER" { 2 * ALLOWED } else { ALLOWED };
            assert!(grown <= allowed, "{name} {endpoint}: {} KiB for {taken} messages", grown >> 10);
            context.term_blocking();
        }
    };
    // The first round warms the allocator up.
    for _ in 0..2 {
        measure("PUSH", &mut |context, endpoint| {
            let pull = Pull::with_options(context, bounded()).unwrap();
            let endpoint = pull.bind_blocking(endpoint).unwrap();
            let push = Push::with_options(context, bounded()).unwrap();
            push.connect(&endpoint).unwrap();
            let taken = flood(MOST, |part| push.send_blocking(part).is_ok());
            assert!(taken < MOST);
            for _ in 0..taken {
                assert_eq!(pull.recv_blocking().unwrap().byte_len(), PART);
            }
            taken
        });
        measure("DEALER", &mut |context, endpoint| {
            let router = Router::with_options(context, bounded()).unwrap();
            let endpoint = router.bind_blocking(endpoint).unwrap();
            let dealer = Dealer::with_options(context, bounded()).unwrap();
            dealer.connect(&endpoint).unwrap();
            let taken = flood(MOST, |part| dealer.send_blocking(part).is_ok());
            assert!(taken < MOST);
            // And back, to a DEALER that does not read.
            let id = router.recv_blocking().unwrap().parts()[0].clone();
            let answer = |part: Vec<u8>| [id.clone(), part.into()].into_iter().collect::<Message>();
            assert!(flood(MOST, |part| router.send_blocking(answer(part)).is_ok()) < MOST);
            taken
        });
        measure("PAIR", &mut |context, endpoint| {
            let one = Pair::with_options(context, bounded()).unwrap();
            let endpoint = one.bind_blocking(endpoint).unwrap();
            let two = Pair::with_options(context, bounded()).unwrap();
            two.connect(&endpoint).unwrap();
            let taken = flood(MOST, |part| two.send_blocking(part).is_ok());
            assert!(taken < MOST);
            taken
        });
        measure("PUB", &mut |context, endpoint| {
            let publisher = Pub::with_options(context, bounded()).unwrap();
            let endpoint = publisher.bind_blocking(endpoint).unwrap();
            let sub = Sub::with_options(context, bounded()).unwrap();
            sub.subscribe("").unwrap();
            sub.connect(&endpoint).unwrap();
            until("the subscription", || publisher.topics_count() == 1);
            // A publisher takes everything, and drops.
            flood(MOST, |part| publisher.send_blocking(part).is_ok())
        });
        measure("XPUB", &mut |context, endpoint| {
            let publisher = XPub::with_options(context, {
                let mut options = bounded();
                options.xpub_nodrop = true;
                options
            })
            .unwrap();
            let endpoint = publisher.bind_blocking(endpoint).unwrap();
            let sub = XSub::with_options(context, bounded()).unwrap();
            sub.subscribe("").unwrap();
            sub.connect(&endpoint).unwrap();
            until("the subscription", || publisher.topics_count() == 1);
            let taken = flood(MOST, |part| publisher.send_blocking(part).is_ok());
            assert!(taken < MOST);
            taken
        });
        measure("REQ", &mut |context, endpoint| {
            // A REQ has one request under way; many of them fill a REP that does not answer.
            let rep = Rep::with_options(context, bounded()).unwrap();
            let endpoint = rep.bind_blocking(endpoint).unwrap();
            let reqs: Vec<_> = (0..40)
                .map(|_| {
                    let req = Req::with_options(context, bounded()).unwrap();
                    req.connect(&endpoint).unwrap();
                    req.send_blocking(vec![7; PART]).unwrap();
                    req
                })
                .collect();
            rep.recv_blocking().unwrap();
            reqs.len()
        });
    }
}

/// A consumer that is slow and not stalled gets everything that was taken, in order, with the producer waiting for it.
///
/// Rules: MQ-467, MQ-063.
#[test]
fn a_slow_consumer_slows_the_producer_down() {
    const COUNT: u32 = 3000;
    let Some(driver) = alone("memory::a_slow_consumer_slows_the_producer_down") else { return };
    let context = context(driver);
    let budget = |options: &mut Options| {
        options.sndhwm_bytes = 200_000;
        options.rcvhwm_bytes = 200_000;
    };
    let pull = Pull::with_options(&context, options_with(budget)).unwrap();
    let endpoint = pull.bind_blocking(ANYWHERE).unwrap();
    let push = Push::with_options(&context, options_with(budget)).unwrap();
    push.connect(&endpoint).unwrap();
    let (progress, sent) = channel();
    let sender = thread::spawn(move || {
        for number in 0..COUNT {
            push.send_blocking([&number.to_le_bytes()[..], &[0; 20_000]].concat()).unwrap();
            progress.send(number).unwrap();
        }
        push
    });
    let mut ahead = 0;
    let start = Instant::now();
    for number in 0..COUNT {
        if number % 100 == 0 {
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(pull.recv_blocking().unwrap().parts()[0][..4], number.to_le_bytes());
        let last = sent.try_iter().last().unwrap_or(number);
        ahead = ahead.max(last.saturating_sub(number));
    }
    sender.join().unwrap();
    child::say(&format!("measured: the producer was {ahead} messages ahead, {:?}", start.elapsed()));
    // Two queues of ten, and what socket buffers hold: some megabytes at most.
    assert!(ahead < 600, "the producer was {ahead} messages ahead");
    context.term_blocking();
}
