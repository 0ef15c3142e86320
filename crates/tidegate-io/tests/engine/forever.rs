//! Durations that no clock can tell: they mean never, and harm no worker.

use std::{io::Read, sync::Arc, time::Duration};

use tidegate_io::engine::{Dial, DriverChoice};

use crate::{
    dial, listen, raw,
    toy::{self, Ends, Node, Role, target},
};

/// Rules: MQ-277, MQ-282, MQ-081.
#[test]
fn what_shall_last_for_ever_does() {
    for driver in [DriverChoice::IoUring, DriverChoice::Polling] {
        for far in [Duration::MAX, Duration::from_secs(i64::MAX as u64)] {
            let engine = toy::engine(driver, 1);
            let (server, client) = (Node::new(Role::Echo), Node::new(Role::Collect));
            let listener = listen(&engine, &server);
            let mut how = Dial::new(target(listener.local_address()));
            how.backoff.base = Some(far);
            how.backoff.max = far;
            how.connect_timeout = Some(far);
            let dialer = engine.dial(how, Arc::new(Ends(client.clone()))).unwrap();
            client.link(0).send(&b"there"[..]);
            assert_eq!(&client.recv()[..], b"there");
            // The peer of this one never closes by itself.
            let mut peer = raw(listener.local_address());
            peer.read_exact(&mut [0; 4]).unwrap();

            // The stream is lost: nothing follows until it is asked for.
            client.link(0).control.abort();
            client.event("Stopped");
            dialer.retry();
            client.link(0).send(&b"again"[..]);
            assert_eq!(&client.recv()[..], b"again");
            dialer.close(Some(far));
            client.ended();
            listener.close(Some(far));
            assert_eq!(peer.read(&mut [0; 4]).unwrap(), 0, "closed by the engine");
            drop(peer);

            let listener = listen(&engine, &server);
            let _dialer = dial(&engine, listener.local_address(), &client);
            client.link(0);
            assert_eq!(engine.shutdown(far).stuck, 0);
        }
    }
}
