//! Handles: used from any thread, any runtime and by anybody, with or without their type.

use std::{
    collections::VecDeque,
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context as TaskContext, Waker},
    thread,
    time::Duration,
};

use tidegate_io::wait::block_on;
use tidegate_mq::{
    AnySocket, Context, Dealer, Error, Interest, Message, Pair, Pub, Pull, Push, Rep, Req, Router,
    SocketType, Sub, XPub, XSub,
};

use crate::{
    Count, options, pipeline,
    support::{PATIENCE, wait},
    text,
};

/// Rules: MQ-043, MQ-045, MQ-518.
#[test]
fn handles_and_futures_go_to_any_thread() {
    fn sendable<T: Send>(_: &T) {}
    fn shareable<T: Send + Sync + Clone>(_: &T) {}
    let context = Context::new();
    let dealer = Dealer::new(&context).unwrap();
    let pull = Pull::new(&context).unwrap();
    let push = Push::new(&context).unwrap();
    let router = Router::new(&context).unwrap();
    let rep = Rep::new(&context).unwrap();
    let req = Req::new(&context).unwrap();
    let xpub = XPub::new(&context).unwrap();
    shareable(&dealer);
    shareable(&pull);
    shareable(&push);
    shareable(&router);
    shareable(&rep);
    shareable(&xpub);
    shareable(&Sub::new(&context).unwrap());
    shareable(&Pub::new(&context).unwrap());
    shareable(&context);
    sendable(&dealer.send("x"));
    sendable(&dealer.recv());
    sendable(&dealer.recv_with_peer());
    sendable(&dealer.bind("inproc://x"));
    sendable(&dealer.connect_ready("inproc://x", PATIENCE));
    sendable(&dealer.ready(Interest::Any));
    sendable(&dealer.drained());
    sendable(&push.reserve());
    sendable(&pull.recv_many(&mut Vec::new(), 1));
    sendable(&push.send_many(&mut VecDeque::new()));
    sendable(&rep.recv_request());
    sendable(&req.request("x", PATIENCE));
    sendable(&router.send_to("x", "y"));
    sendable(&xpub.recv_event());
    sendable(&xpub.wait_for_subscribers(b"", 1, PATIENCE));
    sendable(&context.shutdown());
    sendable(&pull.clone().close(None));
    let (sender, receiver) = dealer.split();
    shareable(&sender);
    shareable(&receiver);
}

/// Rules: MQ-043, MQ-045.
#[test]
fn both_directions_of_a_socket_are_used_apart() {
    let context = Context::new();
    let (one, two) = (Pair::with_options(&context, options()), Pair::with_options(&context, options()));
    let (one, two) = (one.unwrap(), two.unwrap());
    one.bind_blocking("inproc://split").unwrap();
    two.connect("inproc://split").unwrap();
    let (sender, receiver) = one.split();
    let echo = thread::spawn(move || {
        for _ in 0..100 {
            two.send_blocking(two.recv_blocking().unwrap()).unwrap();
        }
    });
    let sending =
        thread::spawn(move || (0..100_u32).for_each(|i| sender.send_blocking(&i.to_le_bytes()).unwrap()));
    for i in 0..100_u32 {
        assert_eq!(receiver.recv_blocking().unwrap().parts()[0], i.to_le_bytes());
    }
    sending.join().unwrap();
    echo.join().unwrap();
}

/// Rules: MQ-043, MQ-044.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokio_needs_no_adapter() {
    let context = Context::new();
    let rep = Rep::with_options(&context, options()).unwrap();
    let endpoint = rep.bind("tcp://127.0.0.1:*").await.unwrap();
    let server = tokio::spawn(async move {
        for _ in 0..50 {
            let request = rep.recv().await.unwrap();
            rep.send(request).await.unwrap();
        }
    });
    let req = Req::with_options(&context, options()).unwrap();
    req.connect(&endpoint).unwrap();
    for i in 0..50_u32 {
        req.send(&i.to_le_bytes()).await.unwrap();
        // A runtime's timeout around a receive loses nothing (MQ-078).
        while tokio::time::timeout(Duration::from_micros(1), req.ready(Interest::Receive)).await.is_err() {}
        assert_eq!(req.recv().await.unwrap().parts()[0], i.to_le_bytes());
    }
    server.await.unwrap();
    // Blocking calls block this thread and nothing else.
    assert!(matches!(req.try_recv(), Err(Error::WrongState(_))));
    assert_eq!(context.term_blocking(), 0);
}

/// Rules: MQ-043.
#[test]
fn smol_needs_no_adapter() {
    let context = Context::new();
    let (push, pull) = pipeline(&context, 1000);
    smol::block_on(async {
        let sending = smol::spawn(async move {
            for i in 0..100_u32 {
                push.send(&i.to_le_bytes()).await.unwrap();
            }
            push.drained().await.unwrap();
        });
        for i in 0..100_u32 {
            assert_eq!(pull.recv().await.unwrap().parts()[0], i.to_le_bytes());
        }
        sending.await;
    });
}

/// Two tasks that wait for events of one monitor are both woken.
///
/// Rules: MQ-045.
#[test]
fn a_monitor_wakes_everybody_who_waits() {
    let context = Context::new();
    let pull = Pull::with_options(&context, options()).unwrap();
    let monitor = pull.monitor();
    let mut task = TaskContext::from_waker(Waker::noop());
    let mut first = pin!(monitor.next());
    let count = Arc::new(Count::default());
    let waker = Waker::from(count.clone());
    assert!(first.as_mut().poll(&mut TaskContext::from_waker(&waker)).is_pending());
    let mut second = pin!(monitor.next());
    assert!(second.as_mut().poll(&mut task).is_pending());
    pull.bind_blocking("tcp://127.0.0.1:*").unwrap();
    assert_eq!(*count.0.lock().unwrap(), 1);
    assert!(first.as_mut().poll(&mut task).is_ready());
}

/// Every call that may wait can be made on a thread without a runtime.
///
/// Rules: MQ-044, MQ-050, MQ-059, MQ-076, MQ-080, MQ-205.
#[test]
fn every_call_that_waits_has_a_blocking_form() {
    let context = Context::new();
    let rep = Rep::with_options(&context, options()).unwrap();
    let endpoint = rep.bind_blocking("tcp://127.0.0.1:*").unwrap();
    let dealer = Dealer::with_options(&context, options()).unwrap();
    dealer.connect_ready_blocking(&endpoint, PATIENCE).unwrap();
    let nobody = dealer.connect_ready_blocking("inproc://nobody", Duration::from_millis(10));
    assert!(matches!(nobody, Err(Error::Timeout)));
    dealer.disconnect("inproc://nobody").unwrap();
    let nothing = dealer.ready_blocking(Interest::Receive, Some(Duration::from_millis(10)));
    assert!(matches!(nothing, Err(Error::Timeout)));
    dealer.reserve_blocking().unwrap().send(["", "0"].into_iter().collect::<Message>()).unwrap();
    let mut requests = (1..4).map(|i| ["".to_owned(), i.to_string()].into_iter().collect()).collect();
    assert_eq!(dealer.send_many_blocking(&mut requests).unwrap(), 3);
    dealer.drained_blocking().unwrap();
    for number in 0..4 {
        let request = rep.recv_blocking().unwrap();
        assert_eq!(text(&request), number.to_string());
        rep.send_blocking(request).unwrap();
    }
    assert!(dealer.ready_blocking(Interest::Receive, None).unwrap().receive);
    assert_eq!(text(&dealer.recv_reply_blocking().unwrap()), "0");
    let mut replies = Vec::new();
    while replies.len() < 3 {
        dealer.recv_many_blocking(&mut replies, 10).unwrap();
    }
    assert_eq!(replies.iter().map(text).collect::<Vec<_>>(), ["|1", "|2", "|3"]);
    assert_eq!(dealer.close_blocking(None), 0);
    assert_eq!(rep.close_blocking(Some(Duration::ZERO)), 0);
}

/// Rules: MQ-121.
#[test]
fn messages_tell_who_sent_them() {
    let context = Context::new();
    for endpoint in ["tcp://127.0.0.1:*", "ipc://*", "inproc://who"] {
        let router = Router::with_options(&context, options()).unwrap();
        let endpoint = router.bind_blocking(endpoint).unwrap();
        let mut named = options();
        named.set_raw(5, b"me").unwrap();
        named.set_raw(95, b"X-colour:blue").unwrap();
        let dealer = Dealer::with_options(&context, named).unwrap();
        dealer.connect(&endpoint).unwrap();
        dealer.send_blocking("hello").unwrap();
        let (message, peer) = router.recv_with_peer_blocking().unwrap();
        assert_eq!(text(&message), "me|hello");
        let peer = peer.unwrap();
        assert_eq!(peer.socket_type(), Some(SocketType::Dealer));
        assert_eq!(peer.property("socket-type"), Some(&b"DEALER"[..]));
        assert_eq!((peer.routing_id(), peer.mechanism()), (&b"me"[..], "NULL"));
        assert_eq!(peer.property("Routing-Id"), Some(&b"me"[..]));
        assert_eq!(peer.property("Identity"), Some(&b"me"[..]));
        assert_eq!(peer.property("User-Id"), None);
        assert_eq!(peer.property("Nonsense"), None);
        let (scheme, _) = endpoint.split_once("://").unwrap();
        match scheme {
            "tcp" => assert_eq!(peer.address(), "127.0.0.1"),
            "ipc" => {
                let who = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
                assert_eq!(peer.address(), format!("localhost:{}:{}:{}", who.0, who.1, std::process::id()));
            }
            _ => assert_eq!(peer.address(), ""),
        }
        if scheme != "inproc" {
            assert_eq!(peer.property("X-Colour"), Some(&b"blue"[..]));
        }
        router.send_blocking(message).unwrap();
        let (_, peer) = wait(dealer.recv_with_peer()).unwrap();
        assert_eq!(peer.unwrap().socket_type(), Some(SocketType::Router));
    }
}

/// Rules: MQ-046, MQ-301, MQ-293, MQ-335, MQ-347.
#[test]
fn any_socket_has_the_calls_of_all_and_refuses_what_is_not_its_own() {
    let context = Context::new();
    let new = |kind| AnySocket::of_type(&context, kind).unwrap();
    let int =
        |socket: &AnySocket, number| i32::from_ne_bytes(socket.raw(number).unwrap().try_into().unwrap());
    for kind in [SocketType::Pull, SocketType::Sub] {
        let socket = new(kind);
        assert!(matches!(socket.try_send("x").unwrap_err().error, Error::NotSupported(_)), "{kind:?}");
        assert_eq!(socket.try_send("x").unwrap_err().error.errno(), 95);
    }
    for kind in [SocketType::Pub, SocketType::Push] {
        assert!(matches!(new(kind).try_recv(), Err(Error::NotSupported(_))), "{kind:?}");
    }
    for kind in [SocketType::Push, SocketType::Router] {
        assert!(matches!(new(kind).subscribe("x"), Err(Error::NotSupported(_))), "{kind:?}");
    }
    let numbers = [
        (SocketType::Pair, 0),
        (SocketType::Pub, 1),
        (SocketType::Sub, 2),
        (SocketType::Req, 3),
        (SocketType::Rep, 4),
        (SocketType::Dealer, 5),
        (SocketType::Router, 6),
        (SocketType::Pull, 7),
        (SocketType::Push, 8),
        (SocketType::XPub, 9),
        (SocketType::XSub, 10),
    ];
    for (kind, number) in numbers {
        let socket = new(kind);
        assert_eq!((int(&socket, 16), int(&socket, 13), int(&socket, 81)), (number, 0, 1));
        assert_eq!(socket.raw(32).unwrap(), b"\0");
    }
    // The first readiness of every type (6.2).
    for (kind, events) in [
        (SocketType::Router, 2),
        (SocketType::Pub, 2),
        (SocketType::XPub, 2),
        (SocketType::XSub, 2),
        (SocketType::Req, 0),
        (SocketType::Dealer, 0),
        (SocketType::Push, 0),
        (SocketType::Pair, 0),
        (SocketType::Rep, 0),
        (SocketType::Sub, 0),
        (SocketType::Pull, 0),
    ] {
        assert_eq!(int(&new(kind), 15), events, "{kind:?}");
    }
    let sub = new(SocketType::Sub);
    sub.set_raw(6, b"topic").unwrap();
    sub.set_raw(6, b"topic").unwrap();
    sub.set_raw(6, b"").unwrap();
    assert_eq!(int(&sub, 116), 2);
    sub.set_raw(7, b"").unwrap();
    assert_eq!(int(&sub, 116), 1);
    assert!(new(SocketType::Push).raw(116).is_err());
    let endpoint = sub.bind_blocking("tcp://127.0.0.1:*").unwrap();
    assert_eq!(sub.raw(32).unwrap(), [endpoint.as_bytes(), b"\0"].concat());
    let typed: AnySocket = XSub::new(&context).unwrap().into();
    assert_eq!(typed.socket_type(), SocketType::XSub);
}

/// Rules: MQ-084.
#[test]
fn a_forked_child_is_told_and_the_parent_goes_on() {
    let context = Context::new();
    let (push, pull) = pipeline(&context, 1000);
    push.send_blocking("before").unwrap();
    pull.recv_blocking().unwrap();
    wait(push.drained()).unwrap();
    let is_forked = |result: Option<&Error>| matches!(result, Some(Error::Forked));
    match fork::fork().unwrap() {
        fork::Fork::Child => {
            let failed = push.try_send("in the child").err();
            let checks = [
                is_forked(failed.as_ref().map(|failed| &failed.error)),
                failed.as_ref().is_some_and(|failed| failed.message.parts()[0] == "in the child"),
                is_forked(push.send_blocking("in the child").err().map(|failed| failed.error).as_ref()),
                is_forked(pull.recv_blocking().err().as_ref()),
                is_forked(block_on(pull.ready(Interest::Receive), None).unwrap().err().as_ref()),
                is_forked(push.connect("tcp://127.0.0.1:1").err().as_ref()),
                is_forked(pull.bind_blocking("tcp://127.0.0.1:*").err().as_ref()),
            ];
            let failed = checks.iter().position(|passed| !passed).map_or(0, |at| at as i32 + 1);
            rustix::process::kill_process(
                rustix::process::getpid(),
                if failed == 0 { rustix::process::Signal::TERM } else { rustix::process::Signal::QUIT },
            )
            .unwrap();
            loop {
                thread::park();
            }
        }
        fork::Fork::Parent(child) => {
            let child = rustix::process::Pid::from_raw(child);
            let (_, status) =
                rustix::process::waitpid(child, rustix::process::WaitOptions::empty()).unwrap().unwrap();
            let signal = status.terminating_signal();
            assert_eq!(signal, Some(rustix::process::Signal::TERM.as_raw()), "a check failed in the child");
        }
    }
    for i in 0..100_u32 {
        push.send_blocking(&i.to_le_bytes()).unwrap();
        assert_eq!(pull.recv_blocking().unwrap().parts()[0], i.to_le_bytes());
    }
}
