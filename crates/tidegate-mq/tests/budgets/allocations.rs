//! Allocations per message, in steady state, of the whole process: both sockets and the engine's threads.
//!
//! Counted are calls for new or larger memory to the global allocator, from handing a finished message to `send` to its
//! return from `recv` on the other side, over a socket of the operating system. Not counted are making the message and
//! the slab's pages, which come from its free list. What the runtime allocates when a worker or a connection goes to
//! sleep is counted, and is not for each message: with io_uring the header of the operation in which a connection waits,
//! with epoll also the list of events and the list of who waits for the descriptor.

use std::{alloc::System, time::Duration};

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tidegate_mq::{Dealer, DriverChoice, Message, Options, Part, Pull, Push, Router};

use super::{
    child::{self, alone},
    rig::{ANYWHERE, context, options_with},
};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn allocated() -> usize {
    let stats = ALLOCATOR.stats();
    stats.allocations + stats.reallocations
}

/// What the runtime allocates each time that a connection goes to sleep.
fn for_a_wait(driver: DriverChoice) -> usize {
    if driver == DriverChoice::Polling { 4 } else { 1 }
}

const WARM_UP: usize = 20_000;
const COUNTED: usize = 50_000;

fn unlimited(options: &mut Options) {
    options.rcvtimeo = Some(Duration::from_secs(10));
}

/// Messages that come in bursts, so that neither side sleeps in between: nothing is allocated for any of them.
///
/// Rules: MQ-025, MQ-026, MQ-024, MQ-472, MQ-497.
#[test]
fn a_stream_of_messages_allocates_nothing() {
    const BURST: usize = 500;
    let Some(driver) = alone("allocations::a_stream_of_messages_allocates_nothing") else { return };
    for place in [ANYWHERE, "ipc://*"] {
        // In place, in a small-frame page, a slice of a receive page.
        for size in [1, 64, 65, 200, 257, 1000, 4000] {
            let context = context(driver);
            let pull = Pull::with_options(&context, options_with(unlimited)).unwrap();
            let push = Push::with_options(&context, options_with(unlimited)).unwrap();
            push.connect(&pull.bind_blocking(place).unwrap()).unwrap();
            // One message, whose part is shared from the first clone on.
            let message = Message::from(Part::copy_from(&vec![7; size]));
            let run = |count: usize| {
                for _ in 0..count / BURST {
                    (0..BURST).for_each(|_| push.send_blocking(message.clone()).unwrap());
                    for _ in 0..BURST {
                        assert_eq!(pull.recv_blocking().unwrap().byte_len(), size);
                    }
                }
            };
            run(WARM_UP);
            let before = allocated();
            run(COUNTED);
            let count = allocated() - before;
            child::say(&format!(
                "measured {place} {size} octets: {count} allocations for {COUNTED} messages"
            ));
            // How often somebody sleeps during a burst depends on the scheduler: seldom, compared with messages.
            let most = for_a_wait(driver) * COUNTED / 10;
            assert!(count <= most, "{count} allocations for {COUNTED} messages of {size} octets");
            context.term_blocking();
        }
    }
}

/// Messages of several parts that are waited for one by one: the only allocations are the runtime's, one for each time
/// that a connection goes to sleep, never more, however many parts.
///
/// Rules: MQ-024, MQ-025, MQ-472.
#[test]
fn a_message_that_is_waited_for_costs_its_wait_only() {
    let Some(driver) = alone("allocations::a_message_that_is_waited_for_costs_its_wait_only") else { return };
    let context = context(driver);
    let router = Router::with_options(&context, options_with(unlimited)).unwrap();
    let dealer = Dealer::with_options(&context, options_with(unlimited)).unwrap();
    dealer.connect(&router.bind_blocking(ANYWHERE).unwrap()).unwrap();
    for parts in [1, 2, 3] {
        let message: Message = (0..parts).map(|_| Part::from(&[7; 30])).collect();
        let run = |count: usize| {
            for _ in 0..count {
                dealer.send_blocking(message.clone()).unwrap();
                let request = router.recv_blocking().unwrap();
                router.send_blocking(request).unwrap();
                assert_eq!(dealer.recv_blocking().unwrap().len(), parts);
            }
        };
        run(WARM_UP / 10);
        let before = allocated();
        run(COUNTED / 2);
        let count = allocated() - before;
        child::say(&format!("measured {parts} parts: {count} allocations for {COUNTED} messages"));
        // The connection that gets a message has slept before.
        let most = (COUNTED + COUNTED / 20) * for_a_wait(driver);
        assert!(count <= most, "{count} allocations for {COUNTED} messages");
    }
    context.term_blocking();
}

/// In process a message is handed over without anybody allocating or sleeping.
///
/// Rules: MQ-025, MQ-269.
#[test]
fn in_process_nothing_is_allocated() {
    let Some(driver) = alone("allocations::in_process_nothing_is_allocated") else { return };
    for size in [1, 64, 65, 1000, 100_000] {
        let context = context(driver);
        let pull = Pull::with_options(&context, options_with(unlimited)).unwrap();
        let push = Push::with_options(&context, options_with(unlimited)).unwrap();
        push.connect(&pull.bind_blocking("inproc://counted").unwrap()).unwrap();
        let message = Message::from(Part::copy_from(&vec![7; size]));
        let run = |count: usize| {
            for _ in 0..count / 100 {
                (0..100).for_each(|_| push.send_blocking(message.clone()).unwrap());
                (0..100).for_each(|_| assert_eq!(pull.recv_blocking().unwrap().byte_len(), size));
            }
        };
        run(WARM_UP);
        let before = allocated();
        run(COUNTED);
        let count = allocated() - before;
        // Not one for each message; the process has threads of its own affairs.
        assert!(count < 10, "{count} allocations for {COUNTED} messages of {size} octets");
        context.term_blocking();
    }
}
