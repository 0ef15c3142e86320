//! Proxies, and events in libzmq's form.

use std::{
    thread::{self, JoinHandle},
    time::Instant,
};

use tidegate_io::wait::block_on;
use tidegate_mq::{
    AnySocket, Context, Dealer, Error, Message, Pair, Pub, Pull, Push, Rep, Req, Router, SocketType, Sub,
    monitor::Form,
    proxy::{Proxy, ProxyControl},
};

use crate::{
    options,
    support::{PATIENCE, until},
    text,
};

/// Runs a proxy on a thread of its own.
pub(crate) fn start(proxy: Proxy) -> (ProxyControl, JoinHandle<tidegate_mq::Result<()>>) {
    (proxy.control(), thread::spawn(move || proxy.run_blocking()))
}

/// Rules: MQ-365, MQ-369, MQ-370.
///
/// libzmq: test_proxy.
#[test]
fn a_queue_spreads_requests_and_returns_answers() {
    let context = Context::new();
    let proxy = Proxy::queue(&context, "tcp://127.0.0.1:*", "inproc://workers").unwrap();
    let frontend = proxy.frontend().last_endpoint();
    let capture = Pub::new(&context).unwrap();
    capture.bind_blocking("inproc://capture").unwrap();
    let listener = Sub::with_options(&context, options()).unwrap();
    listener.subscribe("").unwrap();
    listener.connect("inproc://capture").unwrap();
    let (control, running) = start(proxy.with_capture(capture));
    let workers: Vec<_> = (0..2)
        .map(|_| {
            let rep = Rep::new(&context).unwrap();
            rep.connect("inproc://workers").unwrap();
            thread::spawn(move || {
                while let Ok(request) = rep.recv_blocking() {
                    rep.send_blocking(request).unwrap();
                }
            })
        })
        .collect();
    let req = Req::with_options(&context, options()).unwrap();
    req.connect(&frontend).unwrap();
    for i in 0..20 {
        req.send_blocking(["ask".to_owned(), i.to_string()].into_iter().collect::<Message>()).unwrap();
        assert_eq!(text(&req.recv_blocking().unwrap()), format!("ask|{i}"));
        // Request and answer, both with their envelope of two parts.
        assert_eq!(listener.recv_blocking().unwrap().len(), 4);
        assert_eq!(listener.recv_blocking().unwrap().len(), 4);
    }
    // The last message is counted when it is sent, and may be here before.
    until("everything is counted", || {
        let statistics = control.statistics();
        [statistics.frontend, statistics.backend].iter().all(|side| (side.received, side.sent) == (80, 80))
    });
    control.terminate();
    running.join().unwrap().unwrap();
    context.term_blocking();
    workers.into_iter().for_each(|worker| worker.join().unwrap());
}

/// Rules: MQ-367, MQ-370.
#[test]
fn a_forwarder_passes_subscriptions_up_and_cancels_on_disconnect() {
    let context = Context::new();
    let proxy = Proxy::forwarder(&context, "inproc://publishers", "tcp://127.0.0.1:*").unwrap();
    let backend = proxy.backend().last_endpoint();
    let (control, running) = start(proxy);
    let publisher = Pub::new(&context).unwrap();
    publisher.connect("inproc://publishers").unwrap();
    let sub = Sub::with_options(&context, options()).unwrap();
    sub.subscribe("a").unwrap();
    sub.connect(&backend).unwrap();
    publisher.wait_for_subscribers_blocking(b"a", 1, PATIENCE).unwrap();
    publisher.send_blocking("b").unwrap();
    publisher.send_blocking("abc").unwrap();
    assert_eq!(text(&sub.recv_blocking().unwrap()), "abc");
    drop(sub);
    until("the cancellation", || publisher.topics_count() == 0);
    control.terminate();
    running.join().unwrap().unwrap();
}

/// Rules: MQ-366.
#[test]
fn a_slow_side_slows_the_other_down_and_not_the_way_back() {
    let context = Context::new();
    let mut narrow = options();
    narrow.sndhwm = 2;
    narrow.rcvhwm = 2;
    let pair = |name: &str| {
        let inside = Pair::with_options(&context, narrow.clone()).unwrap();
        inside.bind_blocking(name).unwrap();
        let outside = Pair::with_options(&context, narrow.clone()).unwrap();
        outside.connect(name).unwrap();
        (inside, outside)
    };
    let (front, left) = pair("inproc://left");
    let (back, right) = pair("inproc://right");
    let (control, running) = start(Proxy::new(front, back));
    let mut sent = 0;
    // Nobody reads on the right: 4 on either link, and none in between.
    until("the rest", || {
        sent += usize::from(left.try_send("to the right").is_ok());
        sent == 8
    });
    assert!(left.readiness().is_ok_and(|ready| !ready.send), "nothing more fits");
    assert_eq!(control.statistics().frontend.received, 4);
    for i in 0..50 {
        right.send_blocking(i.to_string()).unwrap();
        assert_eq!(text(&left.recv_blocking().unwrap()), i.to_string());
    }
    (0..8).for_each(|_| drop(right.recv_blocking().unwrap()));
    assert_eq!(control.statistics().dropped, 0);
    // While paused nothing moves.
    control.pause();
    left.send_blocking("later").unwrap();
    assert!(matches!(right.try_recv(), Err(Error::WouldBlock)));
    control.resume();
    assert_eq!(text(&right.recv_blocking().unwrap()), "later");
    context.term_blocking();
    assert!(matches!(running.join().unwrap(), Err(Error::Terminated)));
}

/// Rules: MQ-365.
///
/// libzmq: test_proxy_single_socket.
#[test]
fn one_socket_answers_itself() {
    let context = Context::new();
    let router = Router::new(&context).unwrap();
    router.bind_blocking("inproc://single").unwrap();
    let (control, running) = start(Proxy::new(router.clone(), router));
    let req = Req::with_options(&context, options()).unwrap();
    req.connect("inproc://single").unwrap();
    for text_sent in ["msg1", "msg22", "msg333"] {
        req.send_blocking(text_sent).unwrap();
        assert_eq!(text(&req.recv_blocking().unwrap()), text_sent);
    }
    control.terminate();
    running.join().unwrap().unwrap();
    let pulls = (Pull::new(&context).unwrap(), Pull::new(&context).unwrap());
    assert!(matches!(Proxy::new(pulls.0, pulls.1).run_blocking(), Err(Error::NotSupported(_))));
}

/// Rules: MQ-368.
///
/// libzmq: test_proxy_steerable.
#[test]
fn a_proxy_is_steered() {
    let context = Context::new();
    for kind in [SocketType::Rep, SocketType::Pair, SocketType::Pull] {
        let name = format!("inproc://steer-{}", kind.name());
        let proxy = Proxy::streamer(&context, "inproc://in", "inproc://out").unwrap();
        let steering = AnySocket::of_type(&context, kind).unwrap();
        steering.bind_blocking(&name).unwrap();
        let asking = match kind {
            SocketType::Rep => SocketType::Req,
            SocketType::Pair => SocketType::Pair,
            _ => SocketType::Push,
        };
        let asking = AnySocket::of_type_with(&context, asking, options()).unwrap();
        asking.connect(&name).unwrap();
        let (control, running) = start(proxy.with_steering(steering));
        let push = Push::with_options(&context, options()).unwrap();
        push.connect("inproc://in").unwrap();
        let pull = Pull::with_options(&context, options()).unwrap();
        pull.connect("inproc://out").unwrap();
        for _ in 0..3 {
            push.send_blocking(["12", "345"].into_iter().collect::<Message>()).unwrap();
            pull.recv_blocking().unwrap();
        }
        let order = |order: &str| {
            asking.send_blocking(order).unwrap();
            if kind == SocketType::Rep {
                let answer = asking.recv_blocking().unwrap();
                assert_eq!((answer.len(), answer.byte_len()), (1, 0), "{order}");
            }
        };
        order("PAUSE");
        if kind == SocketType::Rep {
            push.send_blocking("paused").unwrap();
            assert!(matches!(pull.try_recv(), Err(Error::WouldBlock)));
            order("nonsense");
            order("RESUME");
            pull.recv_blocking().unwrap();
        } else {
            order("RESUME");
        }
        asking.send_blocking("STATISTICS").unwrap();
        if kind != SocketType::Pull {
            let answer = asking.recv_blocking().unwrap();
            let numbers: Vec<_> = answer
                .parts()
                .iter()
                .map(|part| u64::from_ne_bytes(part.as_slice().try_into().unwrap()))
                .collect();
            let (parts, bytes) = if kind == SocketType::Rep { (7, 21) } else { (6, 15) };
            assert_eq!(numbers, [parts, bytes, 0, 0, 0, 0, parts, bytes]);
        }
        order("TERMINATE");
        running.join().unwrap().unwrap();
        drop(control);
        push.disconnect("inproc://in").unwrap();
        pull.disconnect("inproc://out").unwrap();
    }
}

/// Rules: MQ-369.
#[test]
fn a_proxy_runs_as_a_task() {
    let context = Context::new();
    let proxy = Proxy::streamer(&context, "inproc://in", "inproc://out").unwrap();
    let control = proxy.control();
    let push = Push::with_options(&context, options()).unwrap();
    push.connect("inproc://in").unwrap();
    let pull = Pull::with_options(&context, options()).unwrap();
    pull.connect("inproc://out").unwrap();
    let work = async {
        for i in 0..5000 {
            push.send(i.to_string()).await.unwrap();
            assert_eq!(text(&pull.recv().await.unwrap()), i.to_string());
        }
        control.terminate();
    };
    let both = futures_util::future::join(proxy.run(), work);
    block_on(both, Some(Instant::now() + PATIENCE)).expect("in time").0.unwrap();
}

/// Rules: MQ-368, MQ-369.
///
/// libzmq: test_proxy_terminate.
#[test]
fn a_proxy_ends_while_traffic_flows() {
    let context = Context::new();
    let (control, running) = start(Proxy::streamer(&context, "inproc://in", "inproc://out").unwrap());
    let push = Push::with_options(&context, options()).unwrap();
    push.connect("inproc://in").unwrap();
    let pull = Pull::new(&context).unwrap();
    pull.connect("inproc://out").unwrap();
    let sending = thread::spawn(move || while push.send_blocking("x").is_ok() {});
    let receiving = thread::spawn(move || while pull.recv_blocking().is_ok() {});
    until("traffic", || control.statistics().backend.sent > 10_000);
    control.terminate();
    running.join().unwrap().unwrap();
    thread::spawn(move || context.term_blocking());
    sending.join().unwrap();
    receiving.join().unwrap();
}

/// What one message of the monitor says: event, values, endpoints.
fn decode(form: Form, message: &Message) -> (u64, Vec<u64>, Vec<String>) {
    let parts = message.parts();
    let number = |at: usize| u64::from_ne_bytes(parts[at].as_slice().try_into().unwrap());
    match form {
        Form::V1 => {
            assert_eq!((parts.len(), parts[0].len()), (2, 6));
            let event = u16::from_ne_bytes(parts[0][..2].try_into().unwrap());
            let value = u32::from_ne_bytes(parts[0][2..].try_into().unwrap());
            (event.into(), vec![value.into()], vec![String::from_utf8(parts[1].to_vec()).unwrap()])
        }
        Form::V2 => {
            let count = number(1) as usize;
            assert_eq!(parts.len(), 4 + count);
            let ends = parts[2 + count..].iter().map(|part| String::from_utf8(part.to_vec()).unwrap());
            (number(0), (0..count).map(|at| number(2 + at)).collect(), ends.collect())
        }
    }
}

/// Rules: MQ-361, MQ-362.
///
/// libzmq: test_monitor.
#[test]
fn events_in_the_form_of_libzmq() {
    for (form, kind) in
        [(Form::V1, SocketType::Pair), (Form::V2, SocketType::Pair), (Form::V2, SocketType::Push)]
    {
        let context = Context::new();
        let reader = |name: &str| {
            let kind = if kind == SocketType::Pair { SocketType::Pair } else { SocketType::Pull };
            let socket = AnySocket::of_type_with(&context, kind, options()).unwrap();
            socket.connect(name).unwrap();
            socket
        };
        let mask = if form == Form::V1 { 0xFFFF } else { 0x1_FFFF };
        let server = Dealer::new(&context).unwrap();
        server.monitor_to("inproc://server", mask, form, kind).unwrap();
        let server_events = reader("inproc://server");
        let client = Dealer::with_options(&context, options()).unwrap();
        client.monitor_to("inproc://client", mask, form, kind).unwrap();
        let client_events = reader("inproc://client");
        let next = |events: &AnySocket| decode(form, &events.recv_blocking().unwrap());
        let endpoint = server.bind_blocking("tcp://127.0.0.1:*").unwrap();
        let (event, values, ends) = next(&server_events);
        assert_eq!((event, &ends[0]), (0x8, &endpoint));
        assert!(values[0] > 2, "a descriptor");
        client.connect(&endpoint).unwrap();
        for expected in [0x20, 0x1000] {
            let (event, values, ends) = next(&server_events);
            assert_eq!((event, &ends[0]), (expected, &endpoint));
            if expected == 0x1000 {
                assert_eq!(values, [0]);
            }
            if form == Form::V2 {
                assert!(ends[1].starts_with("tcp://127.0.0.1:") && ends[1] != endpoint, "{ends:?}");
            }
        }
        let first = next(&client_events);
        let mut order = vec![first.0];
        while *order.last().unwrap() != 0x1000 {
            let (event, _, ends) = next(&client_events);
            assert_eq!(ends.last(), Some(&endpoint));
            order.push(event);
        }
        assert!(order == [0x2, 0x1, 0x1000] || order == [0x1, 0x1000], "{order:x?}");
        if form == Form::V2 {
            client.report_queues();
            assert_eq!(next(&client_events).1, [0, 0]);
        }
        server.unbind(&endpoint).unwrap();
        let ends: Vec<_> = (0..2).map(|_| next(&server_events).0).collect();
        assert!(ends.contains(&0x80) && ends.contains(&0x200), "{ends:x?}");
        assert_eq!(next(&client_events).0, 0x200);
        let (event, values, _) = next(&client_events);
        assert_eq!(event, 0x4);
        assert!((100..=200).contains(&values[0]), "a delay in ms: {values:?}");
        // A new monitor replaces the old one, which is told.
        server.monitor_to("inproc://other", mask, form, kind).unwrap();
        assert_eq!(next(&server_events).0, 0x400);
        let other = reader("inproc://other");
        server.stop_monitor().unwrap();
        assert_eq!(next(&other).0, 0x400);
    }
}

/// Rules: MQ-361.
///
/// libzmq: test_monitor.
#[test]
fn monitors_that_are_refused() {
    let context = Context::new();
    let socket = Push::new(&context).unwrap();
    let refused =
        |endpoint: &str, mask, form, kind| socket.monitor_to(endpoint, mask, form, kind).unwrap_err().errno();
    assert_eq!(refused("tcp://127.0.0.1:*", 1, Form::V1, SocketType::Pair), 93);
    assert_eq!(refused("udp://x", 1, Form::V1, SocketType::Pair), 93);
    assert_eq!(refused("nonsense", 1, Form::V1, SocketType::Pair), 22);
    assert_eq!(refused("inproc://m", 0x1_0000, Form::V1, SocketType::Pair), 22);
    assert_eq!(refused("inproc://m", 1, Form::V2, SocketType::Pull), 22);
    let _taken = {
        let pair = Pair::new(&context).unwrap();
        pair.bind_blocking("inproc://taken").unwrap();
        pair
    };
    assert_eq!(refused("inproc://taken", 1, Form::V2, SocketType::Pair), 98);
    socket.monitor_to("inproc://m", 0x1_0000, Form::V2, SocketType::Pair).unwrap();
}
