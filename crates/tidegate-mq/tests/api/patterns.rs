//! What single kinds of sockets offer beyond sending and receiving.

use std::{thread, time::Duration};

use tidegate_mq::{Context, Dealer, Error, Message, Options, Rep, Req, Router, Sub, XPub, XPubEvent, XSub};

use crate::{
    options,
    support::{PATIENCE, wait},
    text,
};

fn named(id: &str) -> Options {
    let mut options = options();
    options.set_raw(5, id.as_bytes()).unwrap();
    options
}

/// Rules: MQ-202.
#[test]
fn requests_are_answered_in_any_order_by_any_task() {
    for endpoint in ["tcp://127.0.0.1:*", "inproc://requests"] {
        let context = Context::new();
        let rep = Rep::with_options(&context, options()).unwrap();
        let endpoint = rep.bind_blocking(endpoint).unwrap();
        let clients: Vec<_> = (0..3)
            .map(|i| {
                let req = Req::with_options(&context, options()).unwrap();
                req.connect(&endpoint).unwrap();
                req.send_blocking(i.to_string()).unwrap();
                req
            })
            .collect();
        let mut requests: Vec<_> = (0..3).map(|_| wait(rep.recv_request()).unwrap()).collect();
        assert!(matches!(rep.try_recv_request(), Err(Error::WouldBlock)));
        // The alternation is left alone.
        assert!(matches!(rep.try_send("x").unwrap_err().error, Error::WrongState(_)));
        requests.reverse();
        let answering: Vec<_> = requests
            .into_iter()
            .map(|mut request| {
                thread::spawn(move || {
                    assert_eq!(request.peer().unwrap().socket_type().unwrap().name(), "REQ");
                    let answer = format!("{}!", text(request.body()));
                    assert_eq!(text(&request.take_body()) + "!", answer);
                    request.reply(answer).unwrap();
                })
            })
            .collect();
        answering.into_iter().for_each(|thread| thread.join().unwrap());
        for (i, req) in clients.iter().enumerate() {
            assert_eq!(text(&req.recv_blocking().unwrap()), format!("{i}!"));
        }
    }
}

/// Rules: MQ-201, MQ-202, MQ-372.
#[test]
fn an_answer_that_cannot_go_comes_back() {
    let context = Context::new();
    let mut reporting = options();
    reporting.rep_report_drop = true;
    let rep = Rep::with_options(&context, reporting).unwrap();
    rep.bind_blocking("inproc://lost").unwrap();
    let req = Req::with_options(&context, options()).unwrap();
    req.connect("inproc://lost").unwrap();
    req.send_blocking("?").unwrap();
    let request = rep.recv_request_blocking().unwrap();
    let failed = request.reply(Message::new()).unwrap_err();
    assert!(matches!(failed.error, Error::InvalidMessage(_)));
    let request = failed.message.request.expect("may be answered still");
    wait(req.close(Some(Duration::ZERO)));
    let failed = request.reply("!").unwrap_err();
    assert!(matches!(failed.error, Error::PeerLost), "{failed}");
    assert!(failed.message.request.is_none());
    assert_eq!(text(&failed.message.message), "!");
}

/// Rules: MQ-198.
#[test]
fn a_request_that_timed_out_leaves_the_socket_usable() {
    for endpoint in ["tcp://127.0.0.1:*", "inproc://request"] {
        let context = Context::new();
        let rep = Rep::with_options(&context, options()).unwrap();
        let endpoint = rep.bind_blocking(endpoint).unwrap();
        let req = Req::new(&context).unwrap();
        // Nobody is connected: the time is for the whole call.
        assert!(matches!(req.request_blocking("no", Duration::from_millis(20)), Err(Error::Timeout)));
        req.connect(&endpoint).unwrap();
        assert!(matches!(req.request_blocking("first", Duration::from_millis(50)), Err(Error::Timeout)));
        let late = rep.recv_request_blocking().unwrap();
        assert_eq!(text(late.body()), "first");
        let server = thread::spawn(move || {
            let second = rep.recv_request_blocking().unwrap();
            late.reply("late").unwrap();
            second.reply("right").unwrap();
            rep
        });
        assert_eq!(text(&req.request_blocking("second", PATIENCE).unwrap()), "right");
        server.join().unwrap();
    }
}

/// Rules: MQ-212.
#[test]
fn router_addresses_peers_and_knows_their_state() {
    let context = Context::new();
    let mut mandatory = options();
    mandatory.router_mandatory = true;
    mandatory.sndhwm = 1;
    let router = Router::with_options(&context, mandatory).unwrap();
    assert!(!router.readiness().unwrap().send, "mandatory, and nobody there");
    router.bind_blocking("inproc://router").unwrap();
    let mut narrow = named("narrow");
    narrow.rcvhwm = 1;
    let narrow = Dealer::with_options(&context, narrow).unwrap();
    let wide = Dealer::with_options(&context, named("wide")).unwrap();
    narrow.connect("inproc://router").unwrap();
    wide.connect("inproc://router").unwrap();
    wide.send_blocking("hello").unwrap();
    assert_eq!(router.peer_state("narrow").unwrap(), ready(false, true));
    assert_eq!(router.peer_state("wide").unwrap(), ready(true, true));
    assert!(matches!(router.peer_state("nobody"), Err(Error::HostUnreachable)));
    let (from, message) = router.recv_from_blocking().unwrap();
    assert_eq!((&*from, text(&message)), (&b"wide"[..], "hello".into()));
    router.send_to_blocking(from, "back").unwrap();
    assert_eq!(text(&wide.recv_blocking().unwrap()), "back");
    while router.try_send_to("narrow", "x").is_ok() {}
    assert_eq!(router.peer_state("narrow").unwrap(), ready(false, false));
    assert!(router.readiness().unwrap().send, "somebody has room");
    let failed = router.try_send_to("nobody", "x").unwrap_err();
    assert_eq!((failed.error.errno(), text(&failed.message)), (113, "nobody|x".into()));
    let failed = router.try_send_to("wide", Message::new()).unwrap_err();
    assert_eq!(failed.error.errno(), 22);
    assert!(matches!(router.try_recv_from(), Err(Error::WouldBlock)));
}

fn ready(receive: bool, send: bool) -> tidegate_mq::Readiness {
    tidegate_mq::Readiness { receive, send }
}

/// Rules: MQ-205.
#[test]
fn dealer_talks_to_rep() {
    let context = Context::new();
    let rep = Rep::with_options(&context, options()).unwrap();
    rep.bind_blocking("inproc://dealer").unwrap();
    let dealer = Dealer::with_options(&context, options()).unwrap();
    dealer.connect("inproc://dealer").unwrap();
    for i in 0..3 {
        wait(dealer.send_request(i.to_string())).unwrap();
    }
    for i in 0..3 {
        assert_eq!(text(&rep.recv_blocking().unwrap()), i.to_string());
        rep.send_blocking(["", "second"].into_iter().collect::<Message>()).unwrap();
        assert_eq!(text(&wait(dealer.recv_reply()).unwrap()), "|second");
    }
}

/// Rules: MQ-226, MQ-237, MQ-229.
#[test]
fn xpub_events_are_typed() {
    for endpoint in ["tcp://127.0.0.1:*", "inproc://events"] {
        let context = Context::new();
        let xpub = XPub::with_options(&context, options()).unwrap();
        let endpoint = xpub.bind_blocking(endpoint).unwrap();
        let sub = Sub::with_options(&context, options()).unwrap();
        sub.subscribe("t").unwrap();
        sub.connect(&endpoint).unwrap();
        match wait(xpub.recv_event()).unwrap() {
            XPubEvent::Subscribe { topic, peer } => {
                assert_eq!(topic, "t");
                assert_eq!(peer.unwrap().socket_type().unwrap().name(), "SUB");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(xpub.topics_count(), 1);
        sub.unsubscribe("t").unwrap();
        match xpub.recv_event_blocking().unwrap() {
            XPubEvent::Unsubscribe { topic, .. } => assert_eq!(topic, "t"),
            other => panic!("{other:?}"),
        }
        let xsub = XSub::with_options(&context, options()).unwrap();
        wait(xsub.connect_ready(&endpoint, PATIENCE)).unwrap();
        xsub.send_blocking(["user", "data"].into_iter().collect::<Message>()).unwrap();
        match xpub.recv_event_blocking().unwrap() {
            XPubEvent::Message { message, peer } => {
                assert_eq!(text(&message), "user|data");
                assert_eq!(peer.unwrap().socket_type().unwrap().name(), "XSUB");
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(xpub.try_recv_event(), Err(Error::WouldBlock)));
    }
}
