//! Proxies.

use std::thread::JoinHandle;

use tidegate_mq::{
    Dealer, Error, Message, Options, Pair, Pub, Pull, Push, Rep, Req, Router, Sub, XPub, XSub, proxy::Proxy,
};

use crate::support::*;

fn run(proxy: Proxy) -> JoinHandle<Result<(), Error>> {
    std::thread::spawn(move || proxy.run_blocking())
}

/// libzmq: test_proxy.
///
/// Rules: MQ-365, MQ-366, MQ-370.
#[test]
fn many_clients_and_workers() {
    const CLIENTS: usize = 5;
    const REQUESTS: usize = 200;
    for transport in TRANSPORTS {
        let context = context();
        let frontend = Router::with_options(&context, options()).unwrap();
        let backend = Dealer::with_options(&context, options()).unwrap();
        let front = frontend.bind_blocking(transport).unwrap();
        let back = backend.bind_blocking(&transport.replace("//a", "//b")).unwrap();
        let proxy = Proxy::new(frontend, backend);
        let control = proxy.control();
        let proxying = run(proxy);
        let workers: Vec<_> = (0..3)
            .map(|_| {
                let worker = Dealer::with_options(&context, options()).unwrap();
                worker.connect(&back).unwrap();
                std::thread::spawn(move || {
                    while let Ok(request) = worker.recv_blocking() {
                        if worker.send_blocking(request).is_err() {
                            break;
                        }
                    }
                })
            })
            .collect();
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let client = Dealer::with_options(&context, options()).unwrap();
                client.connect(&front).unwrap();
                std::thread::spawn(move || {
                    let mut answered = [false; REQUESTS];
                    for request in 0..REQUESTS as u16 {
                        client
                            .send_blocking(message([&[number as u8, 0][..], &request.to_be_bytes()]))
                            .unwrap();
                    }
                    for _ in 0..REQUESTS {
                        let answer = client.recv_blocking().unwrap();
                        assert_eq!(answer.parts()[0], [number as u8, 0]);
                        let request = u16::from_be_bytes(answer.parts()[1].as_slice().try_into().unwrap());
                        assert!(!std::mem::replace(&mut answered[usize::from(request)], true));
                    }
                })
            })
            .collect();
        for client in clients {
            client.join().unwrap();
        }
        control.terminate();
        proxying.join().unwrap().unwrap();
        context.term_blocking();
        for worker in workers {
            worker.join().unwrap();
        }
    }
}

/// libzmq: test_proxy_hwm.
///
/// Rules: MQ-366, MQ-367.
#[test]
fn small_marks_and_a_slow_subscriber() {
    let context = context();
    let small = with(|options| {
        options.sndhwm = 2;
        options.rcvhwm = 2;
    });
    let xsub = XSub::with_options(&context, small.clone()).unwrap();
    let xpub = XPub::with_options(&context, small.clone()).unwrap();
    xsub.bind_blocking("inproc://front").unwrap();
    xpub.bind_blocking("inproc://back").unwrap();
    let proxy = Proxy::new(xsub, xpub);
    let control = proxy.control();
    let proxying = run(proxy);
    let sub = Sub::with_options(&context, small.clone()).unwrap();
    sub.subscribe("").unwrap();
    sub.connect("inproc://back").unwrap();
    let publisher = Pub::with_options(&context, small).unwrap();
    publisher.connect("inproc://front").unwrap();
    wait(publisher.wait_for_subscribers(b"", 1, PATIENCE)).unwrap();
    for _ in 0..10_000 {
        publisher.try_send("never blocks").unwrap();
    }
    // Some got through, and no more than all marks together.
    expect(&sub, &[b"never blocks"]);
    until("nothing more comes for now", || sub.try_recv().is_err());
    until("the proxy has sent the rest", || {
        publisher.try_send("last").unwrap();
        match sub.try_recv() {
            Ok(got) => got.parts()[0] == "last",
            Err(_) => false,
        }
    });
    control.terminate();
    proxying.join().unwrap().unwrap();
}

/// libzmq: test_proxy_single_socket.
///
/// Rules: MQ-365.
#[test]
fn single_socket() {
    for transport in TRANSPORTS {
        let context = context();
        let rep = Rep::with_options(&context, options()).unwrap();
        let endpoint = rep.bind_blocking(transport).unwrap();
        let proxy = Proxy::new(rep.clone(), rep);
        let control = proxy.control();
        let proxying = run(proxy);
        let req = Req::with_options(&context, options()).unwrap();
        req.connect(&endpoint).unwrap();
        for text in ["msg1", "msg2"] {
            req.send_blocking(text).unwrap();
            expect(&req, &[text.as_bytes()]);
        }
        control.terminate();
        proxying.join().unwrap().unwrap();
    }
}

fn statistics(message: &Message) -> Vec<u64> {
    message.parts().iter().map(|part| u64::from_ne_bytes(part.as_slice().try_into().unwrap())).collect()
}

/// libzmq: test_proxy_steerable (REP and PAIR controls).
///
/// Rules: MQ-368.
#[test]
fn steerable() {
    let context = context();
    let frontend = Router::with_options(&context, options()).unwrap();
    let backend = Dealer::with_options(&context, options()).unwrap();
    frontend.bind_blocking("inproc://front").unwrap();
    backend.bind_blocking("inproc://back").unwrap();
    let steering = Rep::with_options(&context, options()).unwrap();
    steering.bind_blocking("inproc://control").unwrap();
    let proxying = run(Proxy::new(frontend, backend).with_steering(steering));
    let control = Req::with_options(&context, options()).unwrap();
    control.connect("inproc://control").unwrap();
    let order = |order: &str| {
        control.send_blocking(order).unwrap();
        control.recv_blocking().unwrap()
    };
    let client = Req::with_options(&context, options()).unwrap();
    client.connect("inproc://front").unwrap();
    let worker = Rep::with_options(&context, options()).unwrap();
    worker.connect("inproc://back").unwrap();
    assert_eq!(statistics(&order("STATISTICS")), [0; 8]);
    bounce(&client, &worker);
    // Counted by parts: the routing id, the delimiter and two parts, there and back.
    let counts = statistics(&order("STATISTICS"));
    assert_eq!([counts[0], counts[2], counts[4], counts[6]], [4; 4], "{counts:?}");
    assert_eq!((counts[1], counts[5]), (counts[7], counts[3]));
    assert_eq!(parts(&order("PAUSE")), [b""]);
    client.send_blocking("while paused").unwrap();
    silent(&worker);
    assert_eq!(statistics(&order("STATISTICS")), counts);
    assert_eq!(parts(&order("RESUME")), [b""]);
    expect(&worker, &[b"while paused"]);
    worker.send_blocking("done").unwrap();
    expect(&client, &[b"done"]);
    assert_eq!(parts(&order("UNKNOWN")), [b""]);
    assert_eq!(parts(&order("TERMINATE")), [b""]);
    proxying.join().unwrap().unwrap();

    let pull = Pull::with_options(&context, options()).unwrap();
    pull.bind_blocking("inproc://pull").unwrap();
    let push = Push::with_options(&context, options()).unwrap();
    push.bind_blocking("inproc://push").unwrap();
    let steering = Pair::with_options(&context, options()).unwrap();
    steering.bind_blocking("inproc://pair").unwrap();
    let proxying = run(Proxy::new(pull, push).with_steering(steering));
    let control = Pair::with_options(&context, options()).unwrap();
    control.connect("inproc://pair").unwrap();
    control.send_blocking("STATISTICS").unwrap();
    assert_eq!(statistics(&control.recv_blocking().unwrap()), [0; 8]);
    control.send_blocking("TERMINATE").unwrap();
    proxying.join().unwrap().unwrap();
}

/// libzmq: test_proxy_terminate.
///
/// Rules: MQ-368, MQ-369, MQ-370.
#[test]
fn terminate_under_load() {
    let context = context();
    let endpoint = |name: &str| format!("inproc://{name}");
    let steering = Pull::with_options(&context, options()).unwrap();
    steering.bind_blocking(&endpoint("control")).unwrap();
    let proxy =
        Proxy::streamer(&context, &endpoint("front"), &endpoint("back")).unwrap().with_steering(steering);
    let proxying = run(proxy);
    let quick: Options = with(|options| options.sndtimeo = Some(QUIET));
    let push = Push::with_options(&context, quick).unwrap();
    push.connect(&endpoint("front")).unwrap();
    let pull = Pull::with_options(&context, with(|options| options.rcvtimeo = Some(QUIET))).unwrap();
    pull.connect(&endpoint("back")).unwrap();
    let sending = std::thread::spawn(move || while push.send_blocking("traffic").is_ok() {});
    expect(&pull, &[b"traffic"]);
    let control = Push::with_options(&context, options()).unwrap();
    control.connect(&endpoint("control")).unwrap();
    control.send_blocking("TERMINATE").unwrap();
    proxying.join().unwrap().unwrap();
    while pull.try_recv().is_ok() {}
    sending.join().unwrap();
}
