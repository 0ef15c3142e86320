//! How many connections a socket accepts, and who is told of those it does not (MQ-262).

use std::{
    io::Read,
    net::TcpStream,
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use tidegate_mq::{
    Pull,
    monitor::{EventKind, Monitor, NotAccepted},
};

use super::{
    peer::{PATIENCE, Raw, address},
    rig::{ANYWHERE, DRIVERS, context, disconnected, event, options_with},
};

/// Whether the other side speaks, or closes without a word.
fn is_served(stream: &mut impl Read) -> bool {
    stream.read(&mut [0; 64]).is_ok_and(|count| count > 0)
}

fn refused(monitor: &Monitor) -> NotAccepted {
    event(monitor, "refusal", |kind| match kind {
        EventKind::AcceptFailed(why) => Some(*why),
        _ => None,
    })
}

/// The limit is of the socket, whatever endpoints its peers come by: the newcomer is closed, the monitor is told, and the
/// next one finds the place of one that has left.
///
/// Rules: MQ-262.
#[test]
fn connections_are_limited_per_socket() {
    for driver in DRIVERS {
        let context = context(driver);
        let pull =
            Pull::with_options(&context, options_with(|options| options.max_connections = Some(2))).unwrap();
        let monitor = pull.monitor();
        let tcp = pull.bind_blocking(ANYWHERE).unwrap();
        let ipc = pull.bind_blocking("ipc://*").unwrap();
        let path = ipc.strip_prefix("ipc://").unwrap();
        let dial = || {
            let stream = UnixStream::connect(path).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream
        };
        let first = Raw::up(&tcp, "PUSH", "");
        let mut second = dial();
        assert!(is_served(&mut second));

        let third = TcpStream::connect(address(&tcp)).unwrap();
        third.set_read_timeout(Some(PATIENCE)).unwrap();
        let own = third.local_addr().unwrap().to_string();
        assert!(!is_served(&mut &third));
        let deadline = Instant::now() + PATIENCE;
        let told = loop {
            assert!(Instant::now() < deadline);
            match monitor.next_blocking(Some(PATIENCE)).unwrap().unwrap() {
                told if matches!(told.kind, EventKind::AcceptFailed(_)) => break told,
                _ => {}
            }
        };
        assert!(matches!(told.kind, EventKind::AcceptFailed(NotAccepted::TooManyConnections)));
        assert_eq!((told.endpoint, told.peer_address), (tcp.clone(), Some(own)));
        assert_eq!(told.kind.to_libzmq(), Some((0x0040, vec![24])));
        assert!(!is_served(&mut dial()));
        assert_eq!(refused(&monitor), NotAccepted::TooManyConnections);

        drop(first);
        event(&monitor, "the end of the first", disconnected);
        let mut fourth = dial();
        assert!(is_served(&mut fourth), "the place of the first is free");
        assert!(!is_served(&mut Raw::connect(&tcp).0));

        // Unbinding with all that belongs to it frees the places, too.
        pull.unbind(&ipc).unwrap();
        event(&monitor, "the end of the second", disconnected);
        event(&monitor, "the end of the fourth", disconnected);
        assert!(is_served(&mut Raw::connect(&tcp).0));
        context.term_blocking();
    }
}

/// Of twelve that come at once five are let in at once, as the rate is per second, and the others one after another.
///
/// Rules: MQ-262.
#[test]
fn accepting_keeps_to_a_rate() {
    for driver in DRIVERS {
        let context = context(driver);
        let limited = options_with(|options| options.accept_rate_limit = Some(5));
        let pull = Pull::with_options(&context, limited).unwrap();
        let endpoint = pull.bind_blocking(ANYWHERE).unwrap();
        let start = Instant::now();
        let mut peers: Vec<Raw> = (0..12).map(|_| Raw::connect(&endpoint)).collect();
        assert!(peers.iter_mut().all(|peer| is_served(&mut peer.0)), "all are let in");
        assert!(start.elapsed() >= Duration::from_millis(1390), "after {:?}", start.elapsed());
        context.term_blocking();
    }
}
