//! Every pattern once, over every transport.

use std::time::Duration;

use tidegate_mq::{Context, Dealer, Message, Pair, Pub, Pull, Push, Rep, Req, Router, Sub};

use crate::options;

fn endpoints() -> Vec<String> {
    vec!["tcp://127.0.0.1:*".into(), "ipc://*".into(), "inproc://smoke".into()]
}

#[test]
fn push_pull() {
    for endpoint in endpoints() {
        let context = Context::new();
        let pull = Pull::with_options(&context, options()).unwrap();
        let endpoint = pull.bind_blocking(&endpoint).unwrap();
        let push = Push::with_options(&context, options()).unwrap();
        push.connect(&endpoint).unwrap();
        for i in 0..10_000_u32 {
            push.send_blocking(i.to_le_bytes().as_slice()).unwrap();
            if i % 100 == 99 {
                for k in i - 99..=i {
                    let message = pull.recv_blocking().unwrap_or_else(|e| panic!("{endpoint} {k} {e}"));
                    assert_eq!(message.parts()[0], k.to_le_bytes(), "{endpoint}");
                }
            }
        }
        assert_eq!(context.term_blocking(), 0);
    }
}

#[test]
fn req_rep_and_router_dealer() {
    for endpoint in endpoints() {
        let context = Context::new();
        let rep = Rep::with_options(&context, options()).unwrap();
        let endpoint = rep.bind_blocking(&endpoint).unwrap();
        let req = Req::with_options(&context, options()).unwrap();
        req.connect(&endpoint).unwrap();
        for size in [0, 1, 255, 256, 8191, 8192, 65_536, 1 << 20, 3 << 20] {
            req.send_blocking(vec![7; size]).unwrap();
            let request = rep.recv_blocking().unwrap_or_else(|e| panic!("{endpoint} {size} {e}"));
            assert_eq!(request.byte_len(), size, "{endpoint}");
            rep.send_blocking(request).unwrap();
            assert_eq!(req.recv_blocking().unwrap().byte_len(), size);
        }
        context.term_blocking();
    }
    let context = Context::new();
    let router = Router::with_options(&context, options()).unwrap();
    let endpoint = router.bind_blocking("tcp://127.0.0.1:*").unwrap();
    let dealer = Dealer::with_options(&context, options()).unwrap();
    dealer.connect(&endpoint).unwrap();
    dealer.send_blocking(["a", "b", "c"].into_iter().collect::<Message>()).unwrap();
    let got = router.recv_blocking().unwrap();
    assert_eq!(got.len(), 4);
    router.send_blocking(got).unwrap();
    assert_eq!(dealer.recv_blocking().unwrap().len(), 3);
}

#[test]
fn pub_sub_and_pair() {
    for endpoint in endpoints() {
        let context = Context::new();
        let publisher = Pub::with_options(&context, options()).unwrap();
        let endpoint = publisher.bind_blocking(&endpoint).unwrap();
        let sub = Sub::with_options(&context, options()).unwrap();
        sub.subscribe("a").unwrap();
        sub.connect(&endpoint).unwrap();
        tidegate_io::wait::block_on(publisher.wait_for_subscribers(b"a", 1, Duration::from_secs(5)), None)
            .unwrap()
            .unwrap();
        publisher.send_blocking("b").unwrap();
        publisher.send_blocking("abc").unwrap();
        assert_eq!(sub.recv_blocking().unwrap().parts()[0], "abc");
        context.term_blocking();

        let context = Context::new();
        let endpoint = if endpoint.starts_with("inproc") { endpoint } else { "tcp://127.0.0.1:*".into() };
        let one = Pair::with_options(&context, options()).unwrap();
        let endpoint = one.bind_blocking(&endpoint).unwrap();
        let two = Pair::with_options(&context, options()).unwrap();
        two.connect(&endpoint).unwrap();
        two.send_blocking("ping").unwrap();
        assert_eq!(one.recv_blocking().unwrap().parts()[0], "ping");
        one.send_blocking("pong").unwrap();
        assert_eq!(two.recv_blocking().unwrap().parts()[0], "pong");
    }
}
