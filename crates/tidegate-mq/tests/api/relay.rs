//! What a proxy owes its two sides, and what it does not owe those who listen in or steer it.

use tidegate_mq::{
    AnySocket, Context, Dealer, Message, Pair, Pub, Pull, Push, Router, SocketType, Sub, options::RoutingId,
    proxy::Proxy,
};

use crate::{
    options,
    proxy::start,
    support::{PATIENCE, until},
    text,
};

/// Two PAIRs in process, without any limit.
fn link(context: &Context, name: &str) -> (Pair, Pair) {
    let mut wide = options();
    (wide.sndhwm, wide.rcvhwm) = (0, 0);
    let inside = Pair::with_options(context, wide.clone()).unwrap();
    inside.bind_blocking(name).unwrap();
    let outside = Pair::with_options(context, wide).unwrap();
    outside.connect(name).unwrap();
    (inside, outside)
}

/// However much waits on one side, the other has its turn after a thousand messages. Who listens in sees the order.
///
/// Rules: MQ-366.
#[test]
fn no_direction_waits_for_more_than_a_thousand_messages() {
    const MANY: usize = 5000;
    let context = Context::new();
    let (front, left) = link(&context, "inproc://left");
    let (back, right) = link(&context, "inproc://right");
    (0..MANY).for_each(|_| left.send_blocking("one of many").unwrap());
    (0..2).for_each(|_| right.send_blocking("the other way").unwrap());
    let (capture, listener) = link(&context, "inproc://capture");
    let (control, running) = start(Proxy::new(front, back).with_capture(capture));
    let order: Vec<_> = (0..MANY + 2).map(|_| text(&listener.recv_blocking().unwrap())).collect();
    let first = order.iter().position(|text| text == "the other way").unwrap();
    assert!(first <= 1000, "{first} messages went before");
    control.terminate();
    running.join().unwrap().unwrap();
}

/// A message that its peer cannot get is dropped and counted; the proxy goes on with the next.
///
/// Rules: MQ-366.
#[test]
fn a_peer_that_is_gone_does_not_end_the_proxy() {
    let context = Context::new();
    let pull = Pull::with_options(&context, options()).unwrap();
    pull.bind_blocking("inproc://in").unwrap();
    let mut strict = options();
    strict.router_mandatory = true;
    let router = Router::with_options(&context, strict).unwrap();
    router.bind_blocking("inproc://out").unwrap();
    let mut named = options();
    named.routing_id = Some(RoutingId::new("there").unwrap());
    let dealer = Dealer::with_options(&context, named).unwrap();
    dealer.connect("inproc://out").unwrap();
    let (control, running) = start(Proxy::new(pull, router));
    let push = Push::with_options(&context, options()).unwrap();
    push.connect("inproc://in").unwrap();
    for to in ["gone", "there", "gone", "there"] {
        push.send_blocking([to, "hello"].into_iter().collect::<Message>()).unwrap();
    }
    (0..2).for_each(|_| assert_eq!(text(&dealer.recv_blocking().unwrap()), "hello"));
    until("all were moved", || control.statistics().frontend.received == 8);
    assert_eq!(control.statistics().dropped, 2);
    control.terminate();
    running.join().unwrap().unwrap();
}

/// Sockets of four kinds may listen in. None of them holds the proxy up: what it does not take is dropped and counted.
///
/// Rules: MQ-365, MQ-366.
#[test]
fn who_listens_in_holds_nobody_up() {
    for kind in [SocketType::Pub, SocketType::Dealer, SocketType::Push, SocketType::Pair] {
        let context = Context::new();
        let mut narrow = options();
        (narrow.sndhwm, narrow.rcvhwm) = (2, 2);
        let capture = AnySocket::of_type_with(&context, kind, narrow.clone()).unwrap();
        capture.bind_blocking("inproc://capture").unwrap();
        let listening = match kind {
            SocketType::Pub => SocketType::Sub,
            SocketType::Push => SocketType::Pull,
            other => other,
        };
        let listener = AnySocket::of_type_with(&context, listening, narrow).unwrap();
        listener.connect("inproc://capture").unwrap();
        if kind == SocketType::Pub {
            listener.subscribe("").unwrap();
            until("the subscription", || capture.raw(116).unwrap() == 1_i32.to_ne_bytes());
        }
        let proxy = Proxy::streamer(&context, "inproc://in", "inproc://out").unwrap();
        let (control, running) = start(proxy.with_capture(capture));
        let push = Push::with_options(&context, options()).unwrap();
        push.connect("inproc://in").unwrap();
        let pull = Pull::with_options(&context, options()).unwrap();
        pull.connect("inproc://out").unwrap();
        for number in 0..20 {
            push.send_blocking(["a", &number.to_string()].into_iter().collect::<Message>()).unwrap();
            assert_eq!(text(&pull.recv_blocking().unwrap()), format!("a|{number}"));
        }
        for number in 0..4 {
            assert_eq!(text(&listener.recv_blocking().unwrap()), format!("a|{number}"), "{kind:?}");
        }
        // A publisher drops by itself, and counts that itself.
        let dropped = if kind == SocketType::Pub { 0 } else { 16 };
        until("the count", || control.statistics().capture_dropped == dropped);
        control.terminate();
        running.join().unwrap().unwrap();
    }
}

/// A SUB may steer: it obeys, and answers nothing.
///
/// Rules: MQ-368.
#[test]
fn a_subscriber_steers() {
    let context = Context::new();
    let steering = Sub::with_options(&context, options()).unwrap();
    steering.subscribe("").unwrap();
    steering.bind_blocking("inproc://steer").unwrap();
    let orders = Pub::with_options(&context, options()).unwrap();
    orders.connect("inproc://steer").unwrap();
    orders.wait_for_subscribers_blocking(b"", 1, PATIENCE).unwrap();
    let proxy = Proxy::streamer(&context, "inproc://in", "inproc://out").unwrap();
    let (_control, running) = start(proxy.with_steering(steering));
    for order in ["STATISTICS", "nonsense", "PAUSE", "RESUME", "TERMINATE"] {
        orders.send_blocking(order).unwrap();
    }
    running.join().unwrap().unwrap();
}

/// What is no single part is no order.
///
/// Rules: MQ-368.
#[test]
fn orders_have_one_part() {
    let context = Context::new();
    let (steering, orders) = link(&context, "inproc://steer");
    let proxy = Proxy::streamer(&context, "inproc://in", "inproc://out").unwrap();
    let (_control, running) = start(proxy.with_steering(steering));
    orders.send_blocking(["TERMINATE", ""].into_iter().collect::<Message>()).unwrap();
    orders.send_blocking("STATISTICS").unwrap();
    // It is there to answer, and to work.
    assert_eq!(orders.recv_blocking().unwrap().len(), 8);
    let push = Push::with_options(&context, options()).unwrap();
    push.connect("inproc://in").unwrap();
    let pull = Pull::with_options(&context, options()).unwrap();
    pull.connect("inproc://out").unwrap();
    push.send_blocking("still moved").unwrap();
    assert_eq!(text(&pull.recv_blocking().unwrap()), "still moved");
    orders.send_blocking("TERMINATE").unwrap();
    running.join().unwrap().unwrap();
}
