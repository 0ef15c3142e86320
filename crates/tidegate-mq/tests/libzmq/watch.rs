//! Monitors, in libzmq's two forms and its order.

use tidegate_mq::{
    Context, Dealer, Message, Pair, Pull, Push, Rep, Req, SocketType,
    monitor::{EventKind, Form},
};

use crate::support::*;

fn events(context: &Context, endpoint: &str) -> Pair {
    let events = Pair::with_options(context, options()).unwrap();
    events.connect(endpoint).unwrap();
    events
}

fn v1(message: &Message) -> (u16, u32, String) {
    let [head, endpoint] = message.parts() else { panic!("{message:?}") };
    assert_eq!(head.len(), 6);
    let (event, value) = head.as_slice().split_at(2);
    (
        u16::from_ne_bytes(event.try_into().unwrap()),
        u32::from_ne_bytes(value.try_into().unwrap()),
        String::from_utf8(endpoint.to_vec()).unwrap(),
    )
}

fn v2(message: &Message) -> (u64, Vec<u64>, [String; 2]) {
    let parts = parts(message);
    let number = |index: usize| u64::from_ne_bytes(parts[index].try_into().unwrap());
    let count = number(1) as usize;
    assert_eq!(parts.len(), count + 4);
    let text = |index: usize| String::from_utf8(parts[index].to_vec()).unwrap();
    (number(0), (2..2 + count).map(number).collect(), [text(count + 2), text(count + 3)])
}

/// libzmq: test_monitor/test_monitor_invalid_protocol_fails, test_monitor_invalid_socket_type (and masks).
///
/// Rules: MQ-361.
#[test]
fn refusals() {
    let context = context();
    let client = Dealer::with_options(&context, options()).unwrap();
    let refused =
        |endpoint, mask, form, kind| client.monitor_to(endpoint, mask, form, kind).unwrap_err().errno();
    assert_eq!(refused("tcp://127.0.0.1:*", 0, Form::V1, SocketType::Pair), 93);
    for kind in [SocketType::Sub, SocketType::Req, SocketType::Router, SocketType::Pull] {
        assert_eq!(refused("inproc://monitor", 0, Form::V2, kind), 22);
    }
    assert_eq!(refused("inproc://monitor", 0x1_0000, Form::V1, SocketType::Pair), 22);
    client.monitor_to("inproc://monitor", 0x1_0000, Form::V2, SocketType::Push).unwrap();
}

/// libzmq: test_monitor/test_monitor_basic.
///
/// Rules: MQ-361, MQ-362.
#[test]
fn basic() {
    let context = context();
    let server = Rep::with_options(&context, options()).unwrap();
    let client = Req::with_options(&context, options()).unwrap();
    server.monitor_to("inproc://server", 0xFFFF, Form::V1, SocketType::Pair).unwrap();
    client.monitor_to("inproc://client", 0xFFFF, Form::V1, SocketType::Pair).unwrap();
    let (at_server, at_client) = (events(&context, "inproc://server"), events(&context, "inproc://client"));
    let endpoint = server.bind_blocking("tcp://127.0.0.1:*").unwrap();
    client.connect(&endpoint).unwrap();
    bounce(&client, &server);
    let hear = |from: &Pair| {
        let (event, value, at) = v1(&from.recv_blocking().unwrap());
        assert_eq!(at, endpoint);
        (event, value)
    };
    for expected in [0x0002, 0x0001, 0x1000] {
        assert_eq!(hear(&at_client).0, expected);
    }
    wait(client.close(Some(std::time::Duration::ZERO)));
    for expected in [0x0008, 0x0020, 0x1000, 0x0200] {
        assert_eq!(hear(&at_server).0, expected);
    }
    // The last handle is gone when the listener's end is told of.
    wait(server.close(Some(std::time::Duration::ZERO)));
    assert_eq!(hear(&at_server).0, 0x0080);
    assert_eq!(v1(&at_server.recv_blocking().unwrap()).0, 0x0400);
}

/// libzmq: test_monitor/test_monitor_versioned_basic_tcp_ipv4, _tcp_ipv6, _ipc.
///
/// Rules: MQ-361, MQ-362.
#[test]
fn versioned() {
    for endpoint in [TRANSPORTS[0], TRANSPORTS[1], "tcp://[::1]:*"] {
        let context = context();
        let options = with(|options| options.ipv6 = true);
        let server = Rep::with_options(&context, options.clone()).unwrap();
        let client = Req::with_options(&context, options).unwrap();
        server.monitor_to("inproc://server", u64::MAX, Form::V2, SocketType::Pair).unwrap();
        client.monitor_to("inproc://client", u64::MAX, Form::V2, SocketType::Pair).unwrap();
        let (at_server, at_client) =
            (events(&context, "inproc://server"), events(&context, "inproc://client"));
        let endpoint = server.bind_blocking(endpoint).unwrap();
        client.connect(&endpoint).unwrap();
        bounce(&client, &server);
        let mut expected = vec![0x0001, 0x1000];
        if endpoint.starts_with("tcp") {
            expected.insert(0, 0x0002);
        }
        for expected in expected {
            let (event, values, [_, remote]) = v2(&at_client.recv_blocking().unwrap());
            assert_eq!((event, values.len(), remote), (expected, 1, endpoint.clone()));
        }
        for expected in [0x0008, 0x0020, 0x1000] {
            let (event, values, [local, _]) = v2(&at_server.recv_blocking().unwrap());
            assert_eq!((event, values.len(), local), (expected, 1, endpoint.clone()));
        }
    }
}

/// libzmq: test_monitor/test_monitor_versioned_stats.
///
/// Rules: MQ-361.
#[test]
fn queue_depths() {
    let context = context();
    let push = Push::with_options(&context, options()).unwrap();
    push.bind_blocking("inproc://a").unwrap();
    let pull = Pull::with_options(&context, options()).unwrap();
    pull.monitor_to("inproc://monitor", 0x1_0000, Form::V2, SocketType::Pair).unwrap();
    let monitor = events(&context, "inproc://monitor");
    pull.connect("inproc://a").unwrap();
    for _ in 0..3 {
        push.send_blocking("queued").unwrap();
    }
    pull.report_queues();
    let (event, values, _) = v2(&monitor.recv_blocking().unwrap());
    assert_eq!((event, values), (0x1_0000, vec![0, 3]));
}

/// What ends after the last handle is told of still, to monitors of both kinds: a listener, an accepted connection, and
/// one that was dialed. Only then do the events end.
///
/// libzmq: test_monitor/test_monitor_basic (its end).
///
/// Rules: MQ-360, MQ-361, MQ-362.
#[test]
fn last_events() {
    for endpoint in [TRANSPORTS[0], TRANSPORTS[1]] {
        for round in 0..20 {
            let context = context();
            let server = Dealer::with_options(&context, options()).unwrap();
            let client = Dealer::with_options(&context, options()).unwrap();
            let monitors = [server.monitor(), client.monitor()];
            server.monitor_to("inproc://server", 0xFFFF, Form::V1, SocketType::Pair).unwrap();
            let at_server = events(&context, "inproc://server");
            let endpoint = server.bind_blocking(endpoint).unwrap();
            client.connect(&endpoint).unwrap();
            for monitor in &monitors {
                peers(monitor, &endpoint, 1);
            }
            // Dropped, or closed by the only handle there is.
            if round % 2 == 0 {
                drop((server, client));
            } else {
                wait(client.close(None));
                wait(server.close(None));
            }
            let ends = |monitor: &tidegate_mq::monitor::Monitor| {
                let mut names = Vec::new();
                while let Some(event) = monitor.next_blocking(Some(PATIENCE)).unwrap() {
                    match event.kind {
                        EventKind::Closed(_) => names.push("closed"),
                        EventKind::Disconnected { .. } => names.push("disconnected"),
                        _ => {}
                    }
                }
                names.sort_unstable();
                names
            };
            assert_eq!(ends(&monitors[0]), ["closed", "disconnected"]);
            assert_eq!(ends(&monitors[1]), ["disconnected"]);
            let mut seen = Vec::new();
            while seen.last() != Some(&0x0400) {
                seen.push(v1(&at_server.recv_blocking().unwrap()).0);
            }
            let ends = &mut seen[3..];
            ends.sort_unstable();
            assert_eq!(ends, [0x0080, 0x0200, 0x0400]);
        }
    }
}

/// An event on its way to the reader is not lost when the last handle is dropped at that moment.
///
/// Rules: MQ-361.
#[test]
fn events_right_before_the_end() {
    let context = context();
    for round in 0..1000 {
        let server = Dealer::with_options(&context, options()).unwrap();
        let name = format!("inproc://server {round}");
        server.monitor_to(&name, 0xFFFF, Form::V1, SocketType::Pair).unwrap();
        let at_server = events(&context, &name);
        server.bind_blocking("tcp://127.0.0.1:*").unwrap();
        drop(server);
        let mut seen = Vec::new();
        while seen.last() != Some(&0x0400) {
            match at_server.recv_blocking() {
                Ok(event) => seen.push(v1(&event).0),
                Err(error) => panic!("{error} after {seen:x?} in round {round}"),
            }
        }
        assert_eq!(seen, [0x0008, 0x0080, 0x0400], "{round}");
    }
}
