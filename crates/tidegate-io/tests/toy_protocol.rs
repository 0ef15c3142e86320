//! The engine knows no protocol: a trivial one of length-prefixed frames runs on it as it is (MQ-009).

mod toy;

use std::sync::Arc;

use tidegate_io::engine::{BindAddress, Dial, Listen};

use toy::{Ends, Node, Role, loopback, on_both, target};

/// Frames of many sizes come back as they went, over TCP and both kinds of Unix socket.
///
/// Rules: MQ-009, MQ-034, MQ-039.
#[test]
fn frames_are_echoed() {
    on_both(|engine| {
        let name = format!("tidegate-toy-{}", std::process::id());
        for address in [loopback(), BindAddress::PrivatePath, BindAddress::Abstract(name.into_bytes())] {
            let server = Node::new(Role::Echo);
            let client = Node::new(Role::Collect);
            let listener = engine.listen(Listen::new(address), Arc::new(Ends(server.clone()))).unwrap();
            let dialer = engine
                .dial(Dial::new(target(listener.local_address())), Arc::new(Ends(client.clone())))
                .unwrap();
            let link = client.link(0);
            for size in [0, 1, 3, 507, 508, 509, 512, 4096, 65_532, 65_536, 65_537, 1_000_000, 20_000_000, 5]
            {
                let body: Vec<u8> = (0..size).map(|i| (i * 7 + size) as u8).collect();
                link.send(body.clone());
                assert!(client.recv() == body, "{size} bytes came back different");
            }
            dialer.close(None);
            listener.close(None);
        }
    });
}
