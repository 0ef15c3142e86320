//! Messages that were being written when their connection ended.

use std::{net::TcpListener, thread, time::Duration};

use tidegate_mq::{Push, monitor::EventKind};

use super::{
    peer::Raw,
    rig::{DRIVERS, context, disconnected, established, event, options_with, until},
};

/// A message that the sending thread has begun to write, and that is too large for the operating system to take, is lost
/// with the connection and counted as that; those behind it wait for the next.
///
/// Rules: MQ-184, MQ-067, MQ-517.
#[test]
fn what_a_direct_write_has_begun_counts_as_lost() {
    const LARGE: usize = 32 << 20;
    for driver in DRIVERS {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
        let context = context(driver);
        let push = Push::with_options(&context, options_with(|_| {})).unwrap();
        let monitor = push.monitor();
        push.connect(&endpoint).unwrap();
        let mut peer = Raw::of(listener.accept().unwrap().0);
        peer.shake("PULL", "");
        established(&monitor);

        push.send_blocking("first").unwrap();
        assert_eq!(peer.frame(), (0, b"first".to_vec()));
        // A message that does not follow on the heels of another is written by the thread that sends it.
        thread::sleep(Duration::from_millis(1));
        push.send_blocking(vec![0; LARGE]).unwrap();
        until("the message is being written", || push.metrics().out.left == 2);
        peer.take(100);
        for _ in 0..3 {
            push.send_blocking("behind it").unwrap();
        }
        peer.reset();
        event(&monitor, "the end", disconnected);
        until("it is accounted for", || push.metrics().lost_in_flight == 1);
        let out = push.metrics().out;
        assert_eq!((out.entered, out.left, out.depth), (5, 2, 3));

        let mut peer = Raw::of(listener.accept().unwrap().0);
        peer.shake("PULL", "");
        for _ in 0..3 {
            assert_eq!(peer.frame(), (0, b"behind it".to_vec()));
        }
        drop(peer);
        let sent = event(&monitor, "another end", |kind| match kind {
            EventKind::Disconnected { messages_sent, .. } => Some(*messages_sent),
            _ => None,
        });
        assert_eq!(sent, 3);
        until("nothing else is lost", || push.metrics().lost_in_flight == 1);
        context.term_blocking();
    }
}
