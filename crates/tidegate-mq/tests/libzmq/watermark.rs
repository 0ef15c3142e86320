//! High-water marks, conflation, and what publishers do at them.

use tidegate_mq::{Context, Error, Options, Pull, Push, Sub, XPub};

use crate::support::*;

fn marks(send: u32, receive: u32) -> Options {
    with(|options| {
        options.sndhwm = send;
        options.rcvhwm = receive;
    })
}

/// How many messages an in-process PUSH takes for a PULL that does not read; it stops after `most`.
fn count_taken(push: &Push, pull: &Pull, most: usize) -> usize {
    let mut sent = 0;
    while sent < most && push.try_send("").is_ok() {
        sent += 1;
    }
    let mut received = 0;
    while pull.try_recv().is_ok() {
        received += 1;
    }
    assert_eq!(received, sent);
    // There is room again.
    push.try_send("").unwrap();
    expect(pull, &[b""]);
    sent
}

fn taken_in_process(send: u32, receive: u32, bind_first: bool, most: usize) -> usize {
    let context = context();
    let push = Push::with_options(&context, marks(send, 1)).unwrap();
    let pull = Pull::with_options(&context, marks(1, receive)).unwrap();
    if bind_first {
        pull.bind_blocking("inproc://a").unwrap();
        push.connect("inproc://a").unwrap();
    } else {
        push.connect("inproc://a").unwrap();
        pull.bind_blocking("inproc://a").unwrap();
    }
    count_taken(&push, &pull, most)
}

/// libzmq: test_hwm/test_defaults.
///
/// Rules: MQ-270, MQ-299.
#[test]
fn defaults() {
    let context = context();
    let pull = Pull::new(&context).unwrap();
    pull.bind_blocking("inproc://a").unwrap();
    let push = Push::new(&context).unwrap();
    push.connect("inproc://a").unwrap();
    assert_eq!(count_taken(&push, &pull, 10_000), 2000);
}

/// libzmq: test_hwm/infinite_both_inproc_bind_first, infinite_both_inproc_connect_first, infinite_receive_*,
/// infinite_send_*, finite_both_bind_first, finite_both_connect_first.
///
/// Rules: MQ-270, MQ-063.
#[test]
fn finite_and_infinite() {
    for bind_first in [true, false] {
        for (send, receive) in [(0, 0), (1, 0), (0, 1)] {
            assert_eq!(taken_in_process(send, receive, bind_first, 10_000), 10_000, "{send} {receive}");
        }
        assert_eq!(taken_in_process(1, 1, bind_first, 10_000), 2);
        assert_eq!(taken_in_process(4, 3, bind_first, 10_000), 7);
    }
}

/// libzmq: test_hwm/infinite_recv_connect_and_close_first.
///
/// Rules: MQ-268, MQ-270, MQ-080.
#[test]
fn connect_and_close_first() {
    let context = context();
    let push = Push::with_options(
        &context,
        with(|options| {
            options.sndhwm = 1;
            options.linger = None;
        }),
    )
    .unwrap();
    push.connect("inproc://a").unwrap();
    // Before the bind only the connecting side's own mark counts.
    push.try_send("the one").unwrap();
    assert!(matches!(push.try_send("").unwrap_err().error, Error::WouldBlock));
    drop(push);
    let pull = Pull::with_options(&context, marks(0, 0)).unwrap();
    pull.bind_blocking("inproc://a").unwrap();
    expect(&pull, &[b"the one"]);
    silent(&pull);
}

/// An XPUB and a SUB that has subscribed to everything, of which the XPUB knows.
fn published(context: &Context, endpoint: &str, publisher: Options, subscriber: Options) -> (XPub, Sub) {
    let publisher = XPub::with_options(context, publisher).unwrap();
    let endpoint = publisher.bind_blocking(endpoint).unwrap();
    let sub = Sub::with_options(context, subscriber).unwrap();
    sub.subscribe("").unwrap();
    sub.connect(&endpoint).unwrap();
    expect(&publisher, &[b"\x01"]);
    (publisher, sub)
}

/// libzmq: test_hwm_pubsub/defaults_large, defaults_small, tcp, ipc, inproc.
///
/// Rules: MQ-217, MQ-234.
#[test]
fn publisher_defaults() {
    for endpoint in TRANSPORTS {
        for (send, total) in [(1000, 1000), (100, 100)] {
            let context = context();
            let (publisher, sub) = published(&context, endpoint, marks(send, 1000), marks(1000, send));
            // Nothing is lost as long as no more than one mark is under way.
            for round in 0..3 {
                for number in 0..total {
                    publisher.send_blocking(format!("{round} {number}")).unwrap();
                }
                for number in 0..total {
                    expect(&sub, &[format!("{round} {number}").as_bytes()]);
                }
            }
            assert!(matches!(sub.try_recv(), Err(Error::WouldBlock)));
        }
    }
}

/// libzmq: test_hwm_pubsub/defaults (the mark itself, where it can be counted: in process).
///
/// Rules: MQ-217, MQ-270.
#[test]
fn publisher_drops_at_the_mark() {
    let context = context();
    let (publisher, sub) = published(&context, "inproc://a", marks(100, 1000), marks(1000, 50));
    for number in 0..1000_u32 {
        publisher.try_send(&number.to_be_bytes()).unwrap();
    }
    for number in 0..150_u32 {
        expect(&sub, &[&number.to_be_bytes()]);
    }
    assert!(matches!(sub.try_recv(), Err(Error::WouldBlock)));
}

/// Over a stream part of what is under way is in the buffers of the system, which have no mark; what is dropped and what
/// is delivered make up what was sent all the same, and the mark at least is delivered.
///
/// libzmq: test_hwm_pubsub/defaults_large, defaults_small, tcp, ipc.
///
/// Rules: MQ-067, MQ-217.
#[test]
fn publisher_counts_what_it_drops() {
    const SENT: u64 = 20_000;
    for endpoint in TRANSPORTS {
        for mark in [1000, 100] {
            let context = context();
            let (publisher, sub) = published(&context, endpoint, marks(mark, 1000), marks(1000, mark));
            let mut body = vec![0; 4096];
            for number in 0..SENT {
                body[..8].copy_from_slice(&number.to_be_bytes());
                publisher.try_send(body.clone()).unwrap();
            }
            let dropped = publisher.metrics().out.dropped_full;
            assert!(dropped > 0, "{endpoint}");
            let mut next = 0;
            for _ in dropped..SENT {
                let message = sub.recv_blocking().unwrap();
                let number = u64::from_be_bytes(message.parts()[0][..8].try_into().unwrap());
                // In order, and without a gap up to the mark at least.
                assert!(number == next || next >= u64::from(mark) && number > next, "{number} for {next}");
                next = number + 1;
            }
            assert_eq!(publisher.metrics().out.dropped_full, dropped);
            silent(&sub);
        }
    }
}

/// libzmq: test_hwm_pubsub/blocking_tcp, blocking_ipc, blocking_inproc.
///
/// Rules: MQ-217, MQ-325.
#[test]
fn publisher_blocking() {
    for endpoint in TRANSPORTS {
        let context = context();
        let nodrop = with(|options| {
            options.sndhwm = 2000;
            options.xpub_nodrop = true;
        });
        let (publisher, sub) = published(&context, endpoint, nodrop, marks(1000, 2000));
        let big = vec![b'x'; 4000];
        let (mut sent, mut received, mut refused) = (0, 0, 0);
        let mut take = || {
            assert_eq!(sub.recv_blocking().unwrap().byte_len(), 4000);
            received += 1;
        };
        while sent < 6000 {
            match publisher.try_send(big.clone()) {
                Ok(()) => sent += 1,
                Err(failed) => {
                    assert!(matches!(failed.error, Error::WouldBlock));
                    refused += 1;
                    take();
                }
            }
        }
        for _ in 0..sent - refused {
            take();
        }
        assert_eq!(received, 6000);
        assert!(refused > 0, "{endpoint}");
        assert!(matches!(sub.try_recv(), Err(Error::WouldBlock)));
    }
}

/// libzmq: test_hwm_pubsub/reset_hwm.
///
/// Rules: MQ-063, MQ-217.
#[test]
fn publisher_gets_credit_back() {
    for endpoint in TRANSPORTS {
        let context = context();
        let (publisher, sub) = published(&context, endpoint, marks(11_024, 1000), marks(1000, 11_024));
        for count in [9999, 1100, 11_000] {
            for number in 0..count {
                publisher.send_blocking(format!("{number}")).unwrap();
            }
            for number in 0..count {
                expect(&sub, &[format!("{number}").as_bytes()]);
            }
        }
        assert!(matches!(sub.try_recv(), Err(Error::WouldBlock)));
    }
}

/// libzmq: test_xpub_nodrop.
///
/// Rules: MQ-217, MQ-325.
#[test]
fn xpub_nodrop() {
    let context = context();
    let nodrop = with(|options| {
        options.sndhwm = 50;
        options.xpub_nodrop = true;
    });
    let (publisher, sub) = published(&context, "inproc://a", nodrop, marks(1000, 50));
    let mut sent = 0;
    while publisher.try_send("").is_ok() {
        sent += 1;
    }
    assert_eq!(sent, 100);
    publisher
        .set_options(|options| {
            options.sndtimeo = Some(QUIET);
            Ok(())
        })
        .unwrap();
    assert!(matches!(publisher.send_blocking("").unwrap_err().error, Error::Timeout));
    let mut received = 0;
    while sub.try_recv().is_ok() {
        received += 1;
    }
    assert_eq!(received, sent);
    publisher.send_blocking("again").unwrap();
    expect(&sub, &[b"again"]);
}

/// libzmq: test_conflate.
///
/// Rules: MQ-250.
#[test]
fn conflate() {
    for endpoint in TRANSPORTS {
        let context = context();
        let pull = Pull::with_options(&context, with(|options| options.conflate = true)).unwrap();
        let monitor = pull.monitor();
        let endpoint = pull.bind_blocking(endpoint).unwrap();
        let push = Push::with_options(&context, options()).unwrap();
        push.connect(&endpoint).unwrap();
        for number in 0..20_u8 {
            push.send_blocking(&[number]).unwrap();
        }
        close_all(vec![push], &monitor, &endpoint);
        expect(&pull, &[&[19]]);
        silent(&pull);
    }
}

/// libzmq: test_sockopt_hwm/change_before_connected.
///
/// Rules: MQ-299, MQ-270.
#[test]
fn change_before_connected() {
    let context = context();
    let push = Push::with_options(&context, options()).unwrap();
    let pull = Pull::with_options(&context, options()).unwrap();
    set(&push, 2, None);
    set(&pull, 1, Some(1));
    push.bind_blocking("inproc://a").unwrap();
    pull.connect("inproc://a").unwrap();
    assert_eq!(push.options().raw(23).unwrap(), 2_i32.to_ne_bytes());
    assert_eq!(count_taken(&push, &pull, 100), 3);
}

/// libzmq: test_sockopt_hwm/change_after_connected.
///
/// Rules: MQ-299, MQ-270.
#[test]
fn change_after_connected() {
    let context = context();
    let push = Push::with_options(&context, marks(1, 1)).unwrap();
    let pull = Pull::with_options(&context, marks(1, 1)).unwrap();
    push.bind_blocking("inproc://a").unwrap();
    pull.connect("inproc://a").unwrap();
    set(&push, 5, None);
    assert_eq!(push.options().sndhwm, 5);
    assert_eq!(count_taken(&push, &pull, 100), 6);
    set(&pull, 1, Some(10));
    assert_eq!(count_taken(&push, &pull, 100), 15);
}

/// libzmq: test_sockopt_hwm/decrease_when_full.
///
/// Rules: MQ-299, MQ-063.
#[test]
fn decrease_when_full() {
    let context = context();
    let push = Push::with_options(&context, marks(100, 1)).unwrap();
    let pull = Pull::with_options(&context, marks(1, 1)).unwrap();
    push.bind_blocking("inproc://a").unwrap();
    pull.connect("inproc://a").unwrap();
    let mut sent = 0_u32;
    while push.try_send(&sent.to_be_bytes()).is_ok() {
        sent += 1;
    }
    assert_eq!(sent, 101);
    set(&push, 70, None);
    for number in 0..sent {
        expect(&pull, &[&number.to_be_bytes()]);
    }
    assert!(matches!(pull.try_recv(), Err(Error::WouldBlock)));
    // Credit comes back by halves of the lower mark, so that less than half of it may be missing.
    let taken = count_taken(&push, &pull, 200);
    assert!((36..=71).contains(&taken), "{taken}");
}

fn set<K: Hwm>(socket: &K, send: u32, receive: Option<u32>) {
    socket.change(&|options| {
        options.sndhwm = send;
        if let Some(receive) = receive {
            options.rcvhwm = receive;
        }
    });
}

trait Hwm {
    fn change(&self, change: &dyn Fn(&mut Options));
}

impl Hwm for Push {
    fn change(&self, change: &dyn Fn(&mut Options)) {
        self.set_options(|options| {
            change(options);
            Ok(())
        })
        .unwrap();
    }
}

impl Hwm for Pull {
    fn change(&self, change: &dyn Fn(&mut Options)) {
        self.set_options(|options| {
            change(options);
            Ok(())
        })
        .unwrap();
    }
}
