//! REQ: whom it asks, and which answers it takes.

use std::{collections::HashSet, time::Duration};

use tidegate_mq::{Context, Dealer, Error, Message, Options, Rep, Req, Router};

use crate::support::*;

fn relaxed(correlate: bool) -> Options {
    with(|options| {
        options.req_relaxed = true;
        options.req_correlate = correlate;
    })
}

/// Receives a request of a REQ at a ROUTER: everything up to the empty part, and the body.
fn request(router: &Router) -> (Message, Message) {
    let mut request = router.recv_blocking().unwrap();
    let empty = request.parts().iter().position(|part| part.is_empty()).unwrap();
    let envelope = request.split_front(empty + 1);
    (envelope, request)
}

fn answer(router: &Router, envelope: &Message, body: &'static str) {
    let mut reply = envelope.clone();
    reply.push(body);
    router.send_blocking(reply).unwrap();
}

/// libzmq: test_spec_req/round_robin_out.
///
/// Rules: MQ-189.
#[test]
fn round_robin_out() {
    for endpoint in TRANSPORTS {
        let context = context();
        let req = Req::with_options(&context, options()).unwrap();
        let monitor = req.monitor();
        let endpoint = req.bind_blocking(endpoint).unwrap();
        let make = |_| Rep::with_options(&context, options()).unwrap();
        let services = crowd(&endpoint, &monitor, 5, make, |socket, at| socket.connect(at));
        for round in 0..2 {
            let mut asked = HashSet::new();
            for _ in 0..services.len() {
                req.send_blocking("ABC").unwrap();
                let mut who = None;
                until("somebody was asked", || {
                    who = services.iter().position(|service| service.try_recv().is_ok());
                    who.is_some()
                });
                asked.insert(who.unwrap());
                services[who.unwrap()].send_blocking("DEF").unwrap();
                expect(&req, &[b"DEF"]);
            }
            assert_eq!(asked.len(), services.len(), "{endpoint} {round}");
        }
    }
}

/// libzmq: test_spec_req/message_format.
///
/// Rules: MQ-194.
#[test]
fn message_format() {
    for endpoint in TRANSPORTS {
        let context = context();
        let req = Req::with_options(&context, options()).unwrap();
        let endpoint = req.bind_blocking(endpoint).unwrap();
        let router = Router::with_options(&context, options()).unwrap();
        router.connect(&endpoint).unwrap();
        req.send_blocking(message(["ABC", "DEF"])).unwrap();
        let received = router.recv_blocking().unwrap();
        assert_eq!(parts(&received)[1..], [&b""[..], b"ABC", b"DEF"]);
        let mut reply = received;
        let mut reply = reply.split_front(2);
        reply.extend(["GHI", ""]);
        router.send_blocking(reply).unwrap();
        expect(&req, &[b"GHI", b""]);
    }
}

/// libzmq: test_spec_req/block_on_send_no_peers.
///
/// Rules: MQ-186, MQ-187.
#[test]
fn block_on_send_no_peers() {
    let context = context();
    let patience = Duration::from_millis(100);
    let req = Req::with_options(&context, with(|options| options.sndtimeo = Some(patience))).unwrap();
    req.bind_blocking("tcp://127.0.0.1:*").unwrap();
    req.bind_blocking("inproc://a").unwrap();
    assert!(matches!(req.try_send("x").unwrap_err().error, Error::WouldBlock));
    assert!(matches!(req.send_blocking("x").unwrap_err().error, Error::Timeout));
    assert!(matches!(req.try_recv(), Err(Error::WrongState(_))));
}

/// libzmq: test_spec_req/req_only_listens_to_current_peer.
///
/// Rules: MQ-194, MQ-195.
#[test]
fn only_listens_to_current_peer() {
    for endpoint in TRANSPORTS {
        let context = context();
        let named = with(|options| options.set_raw(5, b"A").unwrap());
        let req = Req::with_options(&context, named).unwrap();
        let monitor = req.monitor();
        let endpoint = req.bind_blocking(endpoint).unwrap();
        let strict = with(|options| options.router_mandatory = true);
        let make = |_| Router::with_options(&context, strict.clone()).unwrap();
        let services = crowd(&endpoint, &monitor, 3, make, |socket, at| socket.connect(at));
        for round in 1..=20 {
            req.send_blocking("ABC").unwrap();
            let mut asked = None;
            until("somebody was asked", || {
                asked = services.iter().position(|service| match service.try_recv() {
                    Ok(request) => parts(&request) == [&b"A"[..], b"", b"ABC"],
                    Err(_) => false,
                });
                asked.is_some()
            });
            for (number, service) in services.iter().enumerate() {
                if Some(number) != asked {
                    until("the wrong answer is under way", || {
                        service.try_send(message(["A", "", "BAD"])).is_ok()
                    });
                }
            }
            // One that is late would be taken for the answer to a later request.
            until("the wrong answers have come", || {
                let heard = req.metrics().inbound;
                heard.entered == 3 * round - 1 && heard.dropped_by_rule == 2 * round
            });
            services[asked.unwrap()].send_blocking(message(["A", "", "GOOD"])).unwrap();
            expect(&req, &[b"GOOD"]);
        }
    }
}

/// libzmq: test_invalid_rep.
///
/// Rules: MQ-194.
#[test]
fn invalid_rep() {
    let context = context();
    let router = Router::with_options(&context, options()).unwrap();
    router.bind_blocking("inproc://hi").unwrap();
    let req = Req::with_options(&context, options()).unwrap();
    req.connect("inproc://hi").unwrap();
    req.send_blocking("r").unwrap();
    let received = router.recv_blocking().unwrap();
    let [id, delimiter, body] = received.parts() else { panic!("{received:?}") };
    assert_eq!(*body, "r");
    assert_eq!(*delimiter, "");
    // Only the id is not a message, then an answer.
    router.send_blocking(id.clone()).unwrap();
    router.send_blocking(message([id.clone(), delimiter.clone(), b"b".into()])).unwrap();
    expect(&req, &[b"b"]);
}

/// libzmq: test_req_correlate.
///
/// Rules: MQ-193, MQ-194.
#[test]
fn req_correlate() {
    for endpoint in TRANSPORTS {
        let context = context();
        let req = Req::with_options(&context, with(|options| options.req_correlate = true)).unwrap();
        let router = Router::with_options(&context, options()).unwrap();
        let endpoint = router.bind_blocking(endpoint).unwrap();
        req.connect(&endpoint).unwrap();
        let mut numbers = Vec::new();
        for _ in 0..3 {
            req.send_blocking(message(["ABC", "DEF"])).unwrap();
            let received = router.recv_blocking().unwrap();
            let [id, number, delimiter, abc, def] = received.parts() else { panic!("{received:?}") };
            assert_eq!(number.len(), 4);
            assert_eq!(*delimiter, "");
            assert_eq!((abc, def), (&"ABC".into(), &"DEF".into()));
            numbers.push(u32::from_be_bytes(number.as_slice().try_into().unwrap()));
            let wrong = (numbers[numbers.len() - 1] ^ 1).to_be_bytes();
            let reply = |number: &[u8], body: &str| {
                message([id.clone(), number.into(), delimiter.clone(), body.into()])
            };
            router.send_blocking(reply(&wrong, "DEADBEEF")).unwrap();
            router.send_blocking(message([id.clone(), delimiter.clone(), "unnumbered".into()])).unwrap();
            router.send_blocking(reply(number, "GHI")).unwrap();
            expect(&req, &[b"GHI"]);
        }
        assert_eq!(numbers[1], numbers[0].wrapping_add(1));
        assert_eq!(numbers[2], numbers[0].wrapping_add(2));
    }
}

/// libzmq: test_req_relaxed/1 (case 1: second send before a reply arrives).
///
/// Rules: MQ-196.
#[test]
fn relaxed_second_send_before_the_reply() {
    for endpoint in TRANSPORTS {
        let context = context();
        let req = Req::with_options(&context, relaxed(true)).unwrap();
        let router = Router::with_options(&context, options()).unwrap();
        let endpoint = router.bind_blocking(endpoint).unwrap();
        req.connect(&endpoint).unwrap();
        req.send_blocking("first").unwrap();
        req.send_blocking("second").unwrap();
        let (first, body) = request(&router);
        assert_eq!(parts(&body), [b"first"]);
        answer(&router, &first, "to the first");
        let (second, body) = request(&router);
        assert_eq!(parts(&body), [b"second"]);
        answer(&router, &second, "to the second");
        expect(&req, &[b"to the second"]);
    }
}

/// libzmq: test_req_relaxed/2 (case 2: second send after an unread reply).
///
/// Rules: MQ-196.
#[test]
fn relaxed_second_send_after_an_unread_reply() {
    for correlate in [false, true] {
        let context = context();
        let req = Req::with_options(&context, relaxed(correlate)).unwrap();
        let router = Router::with_options(&context, options()).unwrap();
        // In process the answer is in the queue of REQ when the send returns.
        router.bind_blocking("inproc://a").unwrap();
        req.connect("inproc://a").unwrap();
        req.send_blocking("first").unwrap();
        let (first, _) = request(&router);
        answer(&router, &first, "to the first");
        req.send_blocking("second").unwrap();
        let (second, body) = request(&router);
        assert_eq!(parts(&body), [b"second"]);
        answer(&router, &second, "to the second");
        expect(&req, &[b"to the second"]);
    }
}

/// libzmq: test_req_relaxed/3 (case 3: pipes stay, and round robin goes on).
///
/// Rules: MQ-196, MQ-189.
#[test]
fn relaxed_sends_close_no_pipe() {
    for endpoint in TRANSPORTS {
        let context = context();
        let req = Req::with_options(&context, relaxed(true)).unwrap();
        let monitor = req.monitor();
        let endpoint = req.bind_blocking(endpoint).unwrap();
        let make = |_| Rep::with_options(&context, options()).unwrap();
        let services = crowd(&endpoint, &monitor, 5, make, |socket, at| socket.connect(at));
        for round in 0..3_u8 {
            for _ in 0..services.len() {
                req.send_blocking(&[round]).unwrap();
            }
            for service in &services {
                expect(service, &[&[round]]);
                service.send_blocking("late, save one").unwrap();
            }
            expect(&req, &[b"late, save one"]);
        }
        while let Some(event) = monitor.try_next() {
            assert!(!matches!(event.kind, tidegate_mq::monitor::EventKind::Disconnected { .. }), "{event:?}");
        }
    }
}

/// libzmq: test_req_relaxed/4 (case 4: requests pile up before the bind).
///
/// Rules: MQ-196, MQ-182, MQ-268.
#[test]
fn relaxed_requests_pile_up_before_the_bind() {
    for endpoint in [free_tcp(), "inproc://a".into()] {
        let context = context();
        let req = Req::with_options(&context, relaxed(true)).unwrap();
        req.connect(&endpoint).unwrap();
        for number in 0..5_u8 {
            req.send_blocking(&[number]).unwrap();
        }
        let router = Router::with_options(&context, options()).unwrap();
        router.bind_blocking(&endpoint).unwrap();
        for number in 0..5_u8 {
            let (mut reply, body) = request(&router);
            assert_eq!(parts(&body), [&[number]]);
            reply.push(&[number]);
            router.send_blocking(reply).unwrap();
        }
        expect(&req, &[&[4]]);
        assert!(matches!(req.try_recv(), Err(Error::WrongState(_))));
    }
}

/// A queue of ROUTER and DEALER, moved by hand.
fn device(
    context: &Context,
    front: &str,
    back: &str,
    requests: usize,
) -> (String, String, std::thread::JoinHandle<()>) {
    let frontend = Router::with_options(context, options()).unwrap();
    let backend = Dealer::with_options(context, options()).unwrap();
    let front = frontend.bind_blocking(front).unwrap();
    let back = backend.bind_blocking(back).unwrap();
    let moving = std::thread::spawn(move || {
        for _ in 0..requests {
            backend.send_blocking(frontend.recv_blocking().unwrap()).unwrap();
            frontend.send_blocking(backend.recv_blocking().unwrap()).unwrap();
        }
        assert_eq!(wait(frontend.close(None)), 0);
    });
    (front, back, moving)
}

/// libzmq: test_reqrep_device.
///
/// Rules: MQ-200, MQ-203.
#[test]
fn reqrep_through_devices() {
    for transport in TRANSPORTS {
        let context = context();
        // Two hops: the device in front asks the device behind it.
        let (front, back, first) = device(&context, transport, &transport.replace("//a", "//b"), 3);
        let rep = Rep::with_options(&context, options()).unwrap();
        rep.connect(&back).unwrap();
        let (outer, middle, second) =
            device(&context, &transport.replace("//a", "//c"), &transport.replace("//a", "//d"), 3);
        let between_in = Rep::with_options(&context, options()).unwrap();
        between_in.connect(&middle).unwrap();
        let between_out = Req::with_options(&context, options()).unwrap();
        between_out.connect(&front).unwrap();
        let relay = std::thread::spawn(move || {
            for _ in 0..3 {
                between_out.send_blocking(between_in.recv_blocking().unwrap()).unwrap();
                between_in.send_blocking(between_out.recv_blocking().unwrap()).unwrap();
            }
            assert_eq!(wait(between_in.close(None)), 0);
        });
        let req = Req::with_options(&context, options()).unwrap();
        req.connect(&outer).unwrap();
        for number in 0..3_u8 {
            req.send_blocking(message([&b"ABC"[..], &[number]])).unwrap();
            expect(&rep, &[b"ABC", &[number]]);
            rep.send_blocking(message([&b"DEF"[..], &[number]])).unwrap();
            expect(&req, &[b"DEF", &[number]]);
        }
        for thread in [first, relay, second] {
            thread.join().unwrap();
        }
    }
}

/// libzmq: test_reqrep_inproc, test_reqrep_ipc, test_reqrep_tcp (v4, v6).
///
/// Rules: MQ-194, MQ-200, MQ-257, MQ-271.
#[test]
fn reqrep() {
    for endpoint in [TRANSPORTS[0], TRANSPORTS[1], TRANSPORTS[2], "tcp://[::1]:*", "tcp://localhost:*"] {
        let context = context();
        let options = with(|options| options.ipv6 = endpoint.contains('['));
        let rep = Rep::with_options(&context, options.clone()).unwrap();
        let endpoint = rep.bind_blocking(endpoint).unwrap();
        let req = Req::with_options(&context, options).unwrap();
        req.connect(&endpoint).unwrap();
        bounce(&req, &rep);
        bounce(&req, &rep);
    }
}

/// libzmq: test_reqrep_tcp (multiple connects, several endpoints on one port).
///
/// Rules: MQ-273, MQ-274, MQ-074.
#[test]
fn reqrep_multiple_connects() {
    let context = context();
    let make = || Rep::with_options(&context, options()).unwrap();
    let services = [make(), make(), make()];
    let req = Req::with_options(&context, options()).unwrap();
    let monitor = req.monitor();
    for (number, service) in services.iter().enumerate() {
        // The same port on several addresses.
        let host = format!("tcp://127.0.0.{}", number + 1);
        let endpoint = service.bind_blocking(&format!("{host}:*")).unwrap();
        req.connect(&endpoint).unwrap();
        // Connecting REQ again changes nothing.
        req.connect(&endpoint).unwrap();
        peers(&monitor, &endpoint, 1);
    }
    for round in 0..2_u8 {
        for service in &services {
            req.send_blocking(&[round]).unwrap();
            expect(service, &[&[round]]);
            service.send_blocking(&[round]).unwrap();
            expect(&req, &[&[round]]);
        }
    }
    let endpoint = free_tcp();
    let (_, port) = endpoint.rsplit_once(':').unwrap();
    let both = Rep::with_options(&context, options()).unwrap();
    both.bind_blocking(&endpoint).unwrap();
    let other = format!("tcp://127.254.254.254:{port}");
    both.bind_blocking(&other).unwrap();
    for endpoint in [&endpoint, &other] {
        let req = Req::with_options(&context, options()).unwrap();
        req.connect(endpoint).unwrap();
        bounce(&req, &both);
    }
}
