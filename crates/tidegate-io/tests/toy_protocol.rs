//! The engine knows no protocol: a trivial one of length-prefixed frames runs on it as it is (MQ-009).

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

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

/// A frame of one client reaches all of them, and not those that are gone, through the crate's hubs.
///
/// Rules: MQ-009, MQ-068.
#[test]
fn frames_are_broadcast() {
    on_both(|engine| {
        let server = Node::new(Role::Broadcast);
        let listener = engine.listen(Listen::new(loopback()), Arc::new(Ends(server.clone()))).unwrap();
        let clients: Vec<_> = (0..5).map(|_| Node::new(Role::Collect)).collect();
        let mut dialers: Vec<_> = clients
            .iter()
            .map(|client| {
                let how = Dial::new(target(listener.local_address()));
                engine.dial(how, Arc::new(Ends(client.clone()))).unwrap()
            })
            .collect();
        for client in &clients {
            client.link(0);
        }
        server.wait("all", |state| (state.up == 5).then_some(()));
        clients[0].link(0).send(&b"to all"[..]);
        for client in &clients {
            assert_eq!(&client.recv()[..], b"to all");
        }
        dialers.pop();
        server.wait("one gone", |state| (state.up == 4).then_some(()));
        clients[1].link(0).send(&b"to four"[..]);
        for client in &clients[..4] {
            assert_eq!(&client.recv()[..], b"to four");
        }
        assert!(clients[4].state.lock().unwrap().inbox.is_empty());
    });
}
