//! Listeners: addresses, files of Unix sockets, and who may stay while handshakes are pending.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
    time::{Duration, Instant},
};

use tidegate_io::engine::{
    BindAddress, BindError, BindHost, Dial, Dialer, Engine, Listen, ListenError, Places, StreamAddress,
    Target,
};

use crate::{
    dial, listen, raw,
    toy::{self, Ends, Node, Role, loopback, on_both, target},
};

/// Beyond a limit of pending handshakes the oldest goes; beyond the limit of connections the newcomer.
///
/// Rules: MQ-262, MQ-386.
#[test]
fn the_oldest_pending_handshake_makes_room() {
    on_both(|engine| {
        let server = Node::with(Role::Collect, |node| node.silent = true);
        let mut how = Listen::new(loopback());
        how.limits.pending = 3;
        how.places = Places::default().at_most(5);
        let listener = engine.listen(how, Arc::new(Ends(server.clone()))).unwrap();
        let mut peers: Vec<TcpStream> = (0..3).map(|_| raw(listener.local_address())).collect();
        server.wait("three", |state| (state.infos.len() == 3).then_some(()));
        peers.push(raw(listener.local_address()));
        assert_eq!(peers[0].read(&mut [0; 4]).unwrap_or(0), 0, "the oldest is closed");
        assert_eq!(server.ended(), "Displaced");
        server.event("AcceptFailed(Displaced");
        // Those that come up no longer count as pending.
        for peer in &mut peers[1..] {
            peer.write_all(&[0; 4]).unwrap();
        }
        server.wait("three up", |state| (state.up == 3).then_some(()));
        peers.push(raw(listener.local_address()));
        peers.push(raw(listener.local_address()));
        server.wait("five", |state| (state.infos.len() == 6).then_some(()));
        let mut surplus = raw(listener.local_address());
        assert_eq!(surplus.read(&mut [0; 4]).unwrap_or(0), 0, "the newcomer is closed");
        server.event("AcceptFailed(TooMany");
        assert_eq!(listener.connections(), 5);
    });
}

/// The same for each address, and a good peer gets in past those.
///
/// Rules: MQ-262, MQ-386.
#[test]
fn silent_peers_do_not_lock_good_ones_out() {
    on_both(|engine| {
        let server = Node::with(Role::Echo, |node| node.silent = true);
        let client = Node::new(Role::Collect);
        let mut how = Listen::new(loopback());
        how.limits.pending_per_ip = 10;
        let listener = engine.listen(how, Arc::new(Ends(server.clone()))).unwrap();
        let _silent: Vec<TcpStream> = (0..200).map(|_| raw(listener.local_address())).collect();
        let start = Instant::now();
        // The silent toy comes up by the dialer's own greeting.
        let _dialer = dial_greeting(engine, listener.local_address(), &client);
        client.link(0).send(&b"in"[..]);
        assert_eq!(&client.recv()[..], b"in");
        assert!(start.elapsed() < Duration::from_secs(20));
        server.wait("the surplus to go", |state| (state.ended.len() >= 190).then_some(()));
        assert!(listener.connections() <= 11);
    });
}

fn dial_greeting(engine: &Engine, to: &StreamAddress, node: &Arc<Node>) -> Dialer {
    engine.dial(Dial::new(target(to)), Arc::new(toy::Greeter(node.clone()))).unwrap()
}

/// Closing a listener frees its address at once, with or without its streams.
///
/// Rules: MQ-264, MQ-265, MQ-275, MQ-276.
#[test]
fn a_closed_listener_leaves_nothing() {
    on_both(|engine| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let name = format!("tidegate-gone-{}", std::process::id()).into_bytes();
        let port = listen(engine, &Node::new(Role::Echo)).local_address().clone();
        let StreamAddress::Ip(ip) = port else { panic!("not TCP") };
        for _ in 0..3 {
            let addresses = [
                BindAddress::Tcp { host: BindHost::Ip(ip.ip()), port: ip.port() },
                BindAddress::Path(path.clone()),
                BindAddress::Abstract(name.clone()),
            ];
            for address in addresses {
                let (server, client) = (Node::new(Role::Echo), Node::new(Role::Collect));
                let listener = engine.listen(Listen::new(address), Arc::new(Ends(server.clone()))).unwrap();
                let _dialer = dial(engine, listener.local_address(), &client);
                let link = client.link(0);
                listener.close_keep();
                link.send(&b"kept"[..]);
                assert_eq!(&client.recv()[..], b"kept");
                server.event("ListenerClosed");
            }
            assert!(!path.exists());
        }
        let (server, client) = (Node::new(Role::Echo), Node::new(Role::Collect));
        let listener = engine.listen(Listen::new(BindAddress::PrivatePath), Arc::new(Ends(server))).unwrap();
        let StreamAddress::Path(path) = listener.local_address().clone() else { panic!("no path") };
        let around = path.parent().unwrap().to_owned();
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&around).unwrap().permissions().mode() & 0o777, 0o700);
        let _dialer = dial(engine, listener.local_address(), &client);
        client.link(0);
        listener.close(None);
        assert_eq!(client.ended(), "Eof");
        assert!(!around.exists());
    });
}

/// Who else uses a path is respected.
///
/// Rules: MQ-255, MQ-263, MQ-264, MQ-266.
#[test]
fn binding_respects_what_is_there() {
    on_both(|engine| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let bind = |address| engine.listen(Listen::new(address), Arc::new(Ends(Node::new(Role::Echo))));
        let refused = |address| match bind(address) {
            Err(ListenError::Bind(error)) => error,
            other => panic!("{other:?}"),
        };
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(refused(BindAddress::Path(path.clone())), BindError::InUse { .. }));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        std::fs::remove_file(&path).unwrap();

        // Left behind by a process that was killed.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let first = bind(BindAddress::Path(path.clone())).unwrap();
        assert!(matches!(refused(BindAddress::Path(path.clone())), BindError::InUse { .. }));
        let mut take = Listen::new(BindAddress::Path(path.clone()));
        take.options.unix_takeover = true;
        let second = engine.listen(take, Arc::new(Ends(Node::new(Role::Echo)))).unwrap();
        first.close_keep();
        assert!(path.exists(), "the file is the second listener's");
        second.close_keep();
        assert!(!path.exists());

        let long = BindAddress::Path(format!("/tmp/{}", "x".repeat(103)).into());
        assert!(matches!(refused(long), BindError::NameTooLong { len: 108 }));
        assert!(matches!(
            refused(BindAddress::Path("/nowhere/socket".into())),
            BindError::NoDirectory { .. }
        ));
        assert!(matches!(refused(BindAddress::Abstract(Vec::new())), BindError::InvalidName));
        assert!(bind(BindAddress::Abstract(vec![b'y'; 107])).is_ok());
        assert!(matches!(refused(BindAddress::Abstract(vec![b'y'; 108])), BindError::NameTooLong { .. }));
        let far = BindAddress::Tcp { host: BindHost::Ip([192, 0, 2, 1].into()), port: 0 };
        assert!(matches!(refused(far), BindError::NoDevice { .. }));
        let unknown = BindAddress::Tcp { host: BindHost::Name("nosuchif0".into()), port: 0 };
        assert!(matches!(refused(unknown), BindError::NoDevice { .. }));
    });
}

/// Interfaces are bound by name, names are looked up, and IPv6 wildcards take both families.
///
/// Rules: MQ-255, MQ-257.
#[test]
fn names_and_families() {
    on_both(|engine| {
        let reach = |host: BindHost, ipv6: bool, to: &str| {
            let (server, client) = (Node::new(Role::Echo), Node::new(Role::Collect));
            let mut how = Listen::new(BindAddress::Tcp { host, port: 0 });
            how.options.ipv6 = ipv6;
            let listener = engine.listen(how, Arc::new(Ends(server))).unwrap();
            let StreamAddress::Ip(ip) = listener.local_address().clone() else { panic!("not TCP") };
            let mut how = Dial::new(Target::Tcp { host: to.into(), port: ip.port(), source: None });
            how.options.ipv6 = ipv6;
            let _dialer = engine.dial(how, Arc::new(Ends(client.clone()))).unwrap();
            client.link(0);
            ip.ip().to_string()
        };
        assert_eq!(reach(BindHost::Name("lo".into()), false, "127.0.0.1"), "127.0.0.1");
        assert_eq!(reach(BindHost::Any, false, "localhost"), "0.0.0.0");
        assert_eq!(reach(BindHost::Any, true, "127.0.0.1"), "::");
        assert_eq!(reach(BindHost::Any, true, "::1"), "::");
        assert_eq!(reach(BindHost::Name("lo".into()), true, "::1"), "::1");
        assert_eq!(reach(BindHost::Name("localhost".into()), false, "localhost"), "127.0.0.1");
    });
}
