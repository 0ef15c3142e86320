//! Calls that all sockets share: readiness, reserving, many at once, timeouts, ends, and use from any runtime.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests and what helps them")]

use std::{
    collections::VecDeque,
    future::Future,
    pin::pin,
    sync::{Arc, mpsc},
    task::{Context as TaskContext, Poll, Wake, Waker},
    thread,
    time::{Duration, Instant},
};

use futures_util::{SinkExt, StreamExt};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tidegate_io::wait::block_on;
use tidegate_mq::{
    AnySocket, Context, Dealer, Error, Interest, Message, Options, Pair, Pub, Pull, Push, Rep, Req, Router,
    SocketType, Sub, XPub, XSub,
};

const LONG: Duration = Duration::from_secs(10);

fn options() -> Options {
    let mut options = Options::default();
    options.rcvtimeo = Some(LONG);
    options.sndtimeo = Some(LONG);
    options
}

/// A PUSH connected to a PULL over TCP, with room for so many messages in each queue.
fn pipeline(context: &Context, room: u32) -> (Push, Pull) {
    let mut options = options();
    options.sndhwm = room;
    options.rcvhwm = room;
    let pull = Pull::with_options(context, options.clone()).unwrap();
    let endpoint = pull.bind_blocking("tcp://127.0.0.1:*").unwrap();
    let push = Push::with_options(context, options).unwrap();
    wait(push.connect_ready(&endpoint, LONG)).unwrap();
    (push, pull)
}

/// An in-process PUSH and PULL, between which so many messages fit.
fn near(context: &Context, room: u32) -> (Push, Pull) {
    let (mut sending, mut receiving) = (options(), options());
    sending.sndhwm = room - 1;
    receiving.rcvhwm = 1;
    let pull = Pull::with_options(context, receiving).unwrap();
    pull.bind_blocking("inproc://near").unwrap();
    let push = Push::with_options(context, sending).unwrap();
    push.connect("inproc://near").unwrap();
    (push, pull)
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    block_on(future, Instant::now().checked_add(LONG)).expect("in time")
}

fn text(message: &Message) -> String {
    message
        .parts()
        .iter()
        .map(|part| String::from_utf8_lossy(part).into_owned())
        .collect::<Vec<_>>()
        .join("|")
}

/// A waker that counts.
#[derive(Default)]
struct Count(std::sync::Mutex<usize>);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        *self.0.lock().unwrap() += 1;
    }
}

/// Rules: MQ-043, MQ-045.
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
    sendable(&dealer.connect_ready("inproc://x", LONG));
    sendable(&dealer.ready(Interest::Any));
    sendable(&dealer.drained());
    sendable(&push.reserve());
    sendable(&pull.recv_many(&mut Vec::new(), 1));
    sendable(&push.send_many(&mut VecDeque::new()));
    sendable(&rep.recv_request());
    sendable(&req.request("x", LONG));
    sendable(&router.send_to("x", "y"));
    sendable(&xpub.recv_event());
    sendable(&xpub.wait_for_subscribers(b"", 1, LONG));
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

/// Rules: MQ-186, MQ-187, MQ-300.
#[test]
fn timeouts_are_infinite_immediate_or_measured_over_the_whole_call() {
    let context = Context::new();
    let push = Push::new(&context).unwrap();
    let pull = Pull::new(&context).unwrap();
    // 0: at once, whatever way it is called.
    push.set_raw(28, &0_i32.to_ne_bytes()).unwrap();
    pull.set_raw(27, &0_i32.to_ne_bytes()).unwrap();
    for _ in 0..2 {
        let before = Instant::now();
        assert!(matches!(wait(pull.recv()), Err(Error::WouldBlock)));
        let failed = wait(push.send("kept")).unwrap_err();
        assert!(matches!(failed.error, Error::WouldBlock), "{failed}");
        assert_eq!(text(&failed.message), "kept");
        assert!(matches!(pull.recv_blocking().unwrap_err().errno(), 11));
        assert_eq!(push.send_blocking("kept").unwrap_err().error.errno(), 11);
        assert!(before.elapsed() < Duration::from_secs(20));
    }
    // n: over the whole call, though others wake it in between.
    pull.set_raw(27, &100_i32.to_ne_bytes()).unwrap();
    let (go, started) = mpsc::channel();
    let waiting = pull.clone();
    let waiter = thread::spawn(move || {
        go.send(()).unwrap();
        let before = Instant::now();
        (wait(waiting.recv()).map(|message| text(&message)), before.elapsed())
    });
    started.recv().unwrap();
    let (result, took) = waiter.join().unwrap();
    assert!(matches!(result, Err(Error::Timeout)), "{result:?}");
    assert!(took >= Duration::from_millis(99) && took < Duration::from_secs(20), "{took:?}");
    // -1: as long as it takes.
    pull.set_raw(27, &(-1_i32).to_ne_bytes()).unwrap();
    push.set_raw(28, &(-1_i32).to_ne_bytes()).unwrap();
    assert_eq!(pull.options().rcvtimeo, None);
    let endpoint = pull.bind_blocking("inproc://timeouts").unwrap();
    let sender = push.clone();
    let sending = thread::spawn(move || sender.send_blocking("late").unwrap());
    push.connect(&endpoint).unwrap();
    assert_eq!(text(&pull.recv_blocking().unwrap()), "late");
    sending.join().unwrap();
}

/// Rules: MQ-048.
#[test]
fn ready_waits_for_what_was_asked_for() {
    let context = Context::new();
    let (push, pull) = near(&context, 2);
    assert!(wait(push.ready(Interest::Any)).unwrap().send);
    let count = Arc::new(Count::default());
    let waker = Waker::from(count.clone());
    let mut cx = TaskContext::from_waker(&waker);
    let mut readable = pin!(pull.ready(Interest::Receive));
    assert!(readable.as_mut().poll(&mut cx).is_pending());
    drop(pull.ready(Interest::Receive));
    push.send_blocking("1").unwrap();
    assert_eq!(*count.0.lock().unwrap(), 1);
    assert!(
        matches!(readable.as_mut().poll(&mut cx), Poll::Ready(Ok(ready)) if ready.receive && !ready.send)
    );
    push.send_blocking("2").unwrap();
    let mut writable = pin!(push.ready(Interest::Send));
    assert!(writable.as_mut().poll(&mut cx).is_pending());
    pull.recv_blocking().unwrap();
    pull.recv_blocking().unwrap();
    assert!(matches!(writable.as_mut().poll(&mut cx), Poll::Ready(Ok(ready)) if ready.send));
    assert_eq!(*count.0.lock().unwrap(), 2);
    // REQ becomes writable by receiving, REP by receiving a request.
    let (req, rep) =
        (Req::with_options(&context, options()).unwrap(), Rep::with_options(&context, options()).unwrap());
    rep.bind_blocking("inproc://ready").unwrap();
    req.connect("inproc://ready").unwrap();
    assert!(!rep.readiness().unwrap().send);
    req.send_blocking("?").unwrap();
    let ready = req.readiness().unwrap();
    assert!(!ready.send && !ready.receive);
    rep.recv_blocking().unwrap();
    assert!(wait(rep.ready(Interest::Send)).unwrap().send);
    rep.send_blocking("!").unwrap();
    assert!(wait(req.ready(Interest::Any)).unwrap().receive);
}

fn is_readable(fd: &tidegate_mq::ReadableFd, timeout: Duration) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::try_from(timeout).unwrap())).unwrap() == 1
}

/// Rules: MQ-048.
#[test]
fn the_descriptor_is_readable_exactly_while_there_is_a_message() {
    let context = Context::new();
    let (push, pull) = pipeline(&context, 1000);
    push.send_blocking("early").unwrap();
    wait(pull.ready(Interest::Receive)).unwrap();
    let fd = pull.readable_fd().unwrap();
    assert!(is_readable(&fd, Duration::ZERO), "what was there before counts");
    assert!(is_readable(&fd, Duration::ZERO), "level-triggered: looking changes nothing");
    pull.recv_blocking().unwrap();
    assert!(!is_readable(&fd, Duration::ZERO));
    for _ in 0..3 {
        push.send_blocking("a").unwrap();
        push.send_blocking("b").unwrap();
        assert!(is_readable(&fd, LONG), "woken by the worker");
        pull.recv_blocking().unwrap();
        assert!(is_readable(&fd, LONG), "one is left");
        pull.recv_blocking().unwrap();
        assert!(!is_readable(&fd, Duration::ZERO));
    }
    use std::os::fd::{AsFd, AsRawFd};
    let number = i32::from_ne_bytes(pull.raw(14).unwrap().try_into().unwrap());
    assert_eq!(fd.as_fd().as_raw_fd(), number, "one descriptor per socket");
    context.term_blocking();
    assert!(is_readable(&fd, LONG), "the end is to be noticed");
    assert!(matches!(pull.try_recv(), Err(Error::Terminated)));
}

/// Rules: MQ-076.
#[test]
fn reserved_room_is_kept() {
    let context = Context::new();
    let (push, pull) = near(&context, 3);
    let permit = wait(push.reserve()).unwrap();
    push.try_send("1").unwrap();
    push.try_send("2").unwrap();
    assert!(matches!(push.try_send("3").unwrap_err().error, Error::WouldBlock), "the rest is promised");
    assert!(matches!(push.try_reserve().map(drop), Err(Error::WouldBlock)));
    assert!(!push.readiness().unwrap().send);
    permit.send("promised").unwrap();
    assert!(matches!(push.try_send("4").unwrap_err().error, Error::WouldBlock), "full");
    let got: Vec<_> = (0..3).map(|_| text(&pull.recv_blocking().unwrap())).collect();
    assert_eq!(got, ["1", "2", "promised"]);
    // A permit that is given back lets a waiting sender in.
    let context = Context::new();
    let (push, _pull) = near(&context, 3);
    let permit = push.try_reserve().unwrap();
    push.try_send("5").unwrap();
    push.try_send("6").unwrap();
    let count = Arc::new(Count::default());
    let waker = Waker::from(count.clone());
    let mut cx = TaskContext::from_waker(&waker);
    let mut sending = pin!(push.send("7"));
    assert!(sending.as_mut().poll(&mut cx).is_pending());
    drop(permit);
    assert_eq!(*count.0.lock().unwrap(), 1);
    assert!(matches!(sending.as_mut().poll(&mut cx), Poll::Ready(Ok(()))));
    // So does room of any kind, while one is held.
    let context = Context::new();
    let (push, pull) = near(&context, 3);
    let permit = push.try_reserve().unwrap();
    push.try_send("8").unwrap();
    push.try_send("9").unwrap();
    let mut sending = pin!(push.send("10"));
    assert!(sending.as_mut().poll(&mut cx).is_pending());
    pull.recv_blocking().unwrap();
    pull.recv_blocking().unwrap();
    wait(sending).unwrap();
    permit.send("11").unwrap();
    let got: Vec<_> = (0..2).map(|_| text(&pull.recv_blocking().unwrap())).collect();
    assert_eq!(got, ["10", "11"]);
}

/// Rules: MQ-076.
#[test]
fn a_permit_outlives_the_peer_that_had_the_room() {
    let context = Context::new();
    let push = Push::with_options(&context, options()).unwrap();
    push.bind_blocking("inproc://permit").unwrap();
    let pull = Pull::with_options(&context, options()).unwrap();
    pull.connect("inproc://permit").unwrap();
    let (first, second) = (wait(push.reserve()).unwrap(), wait(push.reserve()).unwrap());
    let other = Pull::with_options(&context, options()).unwrap();
    wait(pull.close(Some(Duration::ZERO)));
    first.send("lost with its peer").unwrap();
    assert_eq!(push.metrics().unroutable, 1, "not without a trace");
    other.connect("inproc://permit").unwrap();
    second.send("to another").unwrap();
    assert_eq!(text(&other.recv_blocking().unwrap()), "to another");
    let permit = wait(push.reserve()).unwrap();
    let failed = permit.send(Message::new()).unwrap_err();
    assert!(matches!(failed.error, Error::InvalidMessage(_)));
    let dealer = AnySocket::of_type(&context, SocketType::Router).unwrap();
    assert!(matches!(wait(dealer.reserve()).map(drop), Err(Error::NotSupported(_))));
}

/// Rules: MQ-076, MQ-078.
#[test]
fn a_dropped_reserve_has_reserved_nothing() {
    let context = Context::new();
    let (push, pull) = near(&context, 2);
    for _ in 0..100 {
        drop(push.reserve());
        let permit = push.try_reserve().unwrap();
        let other = push.try_reserve().unwrap();
        let mut waiting = Box::pin(push.reserve());
        assert!(waiting.as_mut().poll(&mut TaskContext::from_waker(Waker::noop())).is_pending());
        drop(permit);
        // Granted, and dropped all the same.
        drop(waiting);
        drop(other);
    }
    push.try_send("1").unwrap();
    push.try_send("2").unwrap();
    assert!(push.try_send("3").is_err());
    drop(pull);
}

/// Rules: MQ-050.
#[test]
fn many_messages_by_one_call() {
    let context = Context::new();
    let (push, pull) = near(&context, 4);
    let mut messages: VecDeque<Message> = (0..6).map(|i| i.to_string().into()).collect();
    {
        let mut sending = pin!(push.send_many(&mut messages));
        assert!(sending.as_mut().poll(&mut TaskContext::from_waker(Waker::noop())).is_pending());
    }
    let left: Vec<_> = messages.iter().map(text).collect();
    assert_eq!(left, ["4", "5"], "what waited is given back when the call is dropped");
    let mut got = Vec::new();
    assert_eq!(wait(pull.recv_many(&mut got, 3)).unwrap(), 3);
    assert_eq!(wait(push.send_many(&mut messages)).unwrap(), 2);
    assert_eq!(wait(pull.recv_many(&mut got, 100)).unwrap(), 3);
    assert_eq!(got.iter().map(text).collect::<String>(), "012345");
    assert!(matches!(pull.try_recv_many(&mut got, 1), Err(Error::WouldBlock)));
    assert_eq!(wait(pull.recv_many(&mut got, 0)).unwrap(), 0);
}

/// Rules: MQ-050.
#[test]
fn streams_and_sinks() {
    let context = Context::new();
    let (push, pull) = near(&context, 3);
    let got = wait(async {
        let mut outbox = push.outbox();
        let (sent, got) = futures_util::future::join(
            async {
                for i in 0..10 {
                    outbox.send(i.to_string()).await?;
                }
                Ok::<_, tidegate_mq::SendError>(())
            },
            pull.messages().take(10).map(|message| text(&message.unwrap())).collect::<Vec<_>>(),
        )
        .await;
        sent.unwrap();
        got
    });
    assert_eq!(got.concat(), "0123456789");
    context.term_blocking();
    assert!(wait(pull.messages().next()).is_none(), "ends with the context");
}

/// Rules: MQ-059.
#[test]
fn drained_means_out_of_our_hands() {
    let context = Context::new();
    let push = Push::with_options(&context, options()).unwrap();
    wait(push.drained()).unwrap();
    let pull = Pull::with_options(&context, options()).unwrap();
    let endpoint = pull.bind_blocking("tcp://127.0.0.1:*").unwrap();
    wait(push.connect_ready(&endpoint, LONG)).unwrap();
    for round in 0..20 {
        for i in 0..50 {
            push.send_blocking(vec![round; 1 << (i % 18)]).unwrap();
        }
        wait(push.drained()).unwrap();
        let out = push.metrics().out;
        assert_eq!((out.depth, out.left), (0, out.entered));
        for _ in 0..50 {
            pull.recv_blocking().unwrap();
        }
    }
    // It waits for a peer that is not there yet, and not for what is sent after the call.
    let push = Push::with_options(&context, options()).unwrap();
    let pull = Pull::with_options(&context, options()).unwrap();
    push.connect("inproc://drained").unwrap();
    push.send_blocking("queued").unwrap();
    let mut drained = pin!(push.drained());
    let mut cx = TaskContext::from_waker(Waker::noop());
    assert!(drained.as_mut().poll(&mut cx).is_pending());
    pull.bind_blocking("inproc://drained").unwrap();
    assert!(matches!(drained.as_mut().poll(&mut cx), Poll::Ready(Ok(()))));
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

/// Rules: MQ-081, MQ-083.
#[test]
fn shutdown_wakes_everybody_and_fails_what_follows() {
    let context = Context::new();
    let pull = Pull::new(&context).unwrap();
    let push = Push::new(&context).unwrap();
    let (ready, started) = mpsc::channel();
    let mut waiting = Vec::new();
    for round in 0..6 {
        let (pull, push, ready) = (pull.clone(), push.clone(), ready.clone());
        let lonely = Push::new(&context).unwrap();
        waiting.push(thread::spawn(move || {
            ready.send(()).unwrap();
            let error = match round {
                0 => pull.recv_blocking().unwrap_err(),
                1 => push.send_blocking("x").unwrap_err().error,
                2 => block_on(pull.recv(), None).unwrap().unwrap_err(),
                3 => block_on(push.reserve(), None).unwrap().map(drop).unwrap_err(),
                4 => block_on(pull.ready(Interest::Receive), None).unwrap().unwrap_err(),
                _ => block_on(lonely.connect_ready("inproc://nobody", LONG), None).unwrap().unwrap_err(),
            };
            (error, Instant::now())
        }));
    }
    waiting.iter().for_each(|_| started.recv().unwrap());
    let began = Instant::now();
    assert_eq!(context.term_blocking(), 0);
    for waiter in waiting {
        let (error, woken) = waiter.join().unwrap();
        assert!(matches!(error, Error::Terminated), "{error:?}");
        assert_eq!(error.errno(), 156_384_765);
        assert!(woken.saturating_duration_since(began) < Duration::from_secs(20));
    }
    assert!(matches!(pull.try_recv(), Err(Error::Terminated)));
    assert!(matches!(push.try_send("x").unwrap_err().error, Error::Terminated));
    assert!(matches!(push.connect("tcp://127.0.0.1:1"), Err(Error::Terminated)));
    assert!(matches!(pull.bind_blocking("tcp://127.0.0.1:*"), Err(Error::Terminated)));
    assert!(matches!(pull.readiness(), Err(Error::Terminated)));
    assert!(matches!(Pull::new(&context), Err(Error::Terminated)));
}

/// Rules: MQ-080, MQ-081, MQ-294.
#[test]
fn close_sends_what_is_queued_for_as_long_as_it_may_and_counts_the_rest() {
    let context = Context::new();
    let endpoint = "tcp://127.0.0.1:9";
    let unsent = || {
        let push = Push::with_options(&context, options()).unwrap();
        push.connect(endpoint).unwrap();
        (0..7).for_each(|_| push.send_blocking("x").unwrap());
        push
    };
    let before = Instant::now();
    assert_eq!(wait(unsent().close(Some(Duration::ZERO))), 7);
    assert!(before.elapsed() < Duration::from_secs(20));
    let before = Instant::now();
    assert_eq!(wait(unsent().close(Some(Duration::from_millis(150)))), 7);
    assert!(before.elapsed() >= Duration::from_millis(149));
    let (push, pull) = pipeline(&context, 0);
    let count = 3_000;
    for _ in 0..count {
        push.send_blocking(vec![1; 2_000]).unwrap();
    }
    let closing = thread::spawn(move || block_on(push.close(None), None).unwrap());
    for _ in 0..count {
        pull.recv_blocking().unwrap();
    }
    assert_eq!(closing.join().unwrap(), 0);
    // A dropped handle does the same in the background, and does not wait.
    let (push, pull) = pipeline(&context, 0);
    for _ in 0..count {
        push.send_blocking(vec![1; 2_000]).unwrap();
    }
    let before = Instant::now();
    drop(push);
    assert!(before.elapsed() < Duration::from_secs(20));
    for _ in 0..count {
        pull.recv_blocking().unwrap();
    }
    // Shutdown counts what it had to give up.
    let other = Context::new();
    let mut options = options();
    options.linger = Some(Duration::from_millis(50));
    let push = Push::with_options(&other, options).unwrap();
    push.connect(endpoint).unwrap();
    (0..5).for_each(|_| push.send_blocking("x").unwrap());
    assert_eq!(other.term_blocking(), 5);
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

/// Rules: MQ-067, MQ-364.
#[test]
fn metrics_add_up() {
    let context = Context::new();
    let (push, pull) = pipeline(&context, 1000);
    for _ in 0..10 {
        push.send_blocking(["ab", "c"].into_iter().collect::<Message>()).unwrap();
    }
    wait(push.drained()).unwrap();
    for _ in 0..4 {
        pull.recv_blocking().unwrap();
    }
    while pull.metrics().inbound.entered < 10 {
        thread::yield_now();
    }
    let (out, inbound) = (push.metrics().out, pull.metrics().inbound);
    assert_eq!((out.entered, out.entered_bytes, out.left, out.depth), (10, 30, 10, 0));
    assert_eq!((inbound.entered, inbound.left, inbound.depth), (10, 4, 6));
    let peers = pull.peers();
    assert_eq!(peers.len(), 1);
    assert_eq!(peers[0].peer().socket_type(), Some(SocketType::Push));
    assert!(peers[0].is_connected());
    pull.recv_blocking().unwrap();
    assert_eq!(peers[0].read().inbound.left, 5, "read anew");
    drop(push);
    while pull.try_recv().is_ok() {}
    let deadline = Instant::now() + LONG;
    while !pull.peers().is_empty() {
        assert!(Instant::now() < deadline);
        thread::yield_now();
    }
    assert_eq!(pull.metrics().inbound.left, 10, "numbers of peers that are gone stay");
}
