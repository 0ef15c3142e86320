//! More than one message by a call, and room that is kept for one.

use std::{
    collections::VecDeque,
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context as TaskContext, Poll, Waker},
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use tidegate_mq::{
    AnySocket, Context, Error, Message, Pull, Push, Rep, Req, SocketType, Sub, options::ReqOnPeerLoss,
};

use crate::{Count, near, options, support::wait, text};

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

/// A requester is promised one exchange at a time: whoever has waited meanwhile finds it under way.
///
/// Rules: MQ-076.
#[test]
fn an_exchange_is_promised() {
    let context = Context::new();
    let rep = Rep::with_options(&context, options()).unwrap();
    rep.bind_blocking("inproc://asked").unwrap();
    let req = Req::with_options(&context, options()).unwrap();
    req.connect("inproc://asked").unwrap();
    let count = Arc::new(Count::default());
    let waker = Waker::from(count.clone());
    let mut cx = TaskContext::from_waker(&waker);

    let permit = wait(req.reserve()).unwrap();
    assert!(matches!(req.try_send("other").unwrap_err().error, Error::WouldBlock), "it is promised");
    assert!(matches!(req.try_reserve().map(drop), Err(Error::WouldBlock)));
    assert!(!req.readiness().unwrap().send);
    let mut late = pin!(req.send("late"));
    assert!(late.as_mut().poll(&mut cx).is_pending());
    permit.send("promised").unwrap();
    assert_eq!(*count.0.lock().unwrap(), 1);
    let Poll::Ready(Err(refused)) = late.as_mut().poll(&mut cx) else { panic!("sent, or waits still") };
    assert!(matches!(refused.error, Error::WrongState(_)));
    assert!(matches!(req.try_reserve().map(drop), Err(Error::WrongState(_))), "an answer is owed");
    rep.send_blocking(rep.recv_blocking().unwrap()).unwrap();
    assert_eq!(text(&req.recv_blocking().unwrap()), "promised");

    let permit = req.try_reserve().unwrap();
    let mut next = pin!(req.send("next"));
    assert!(next.as_mut().poll(&mut cx).is_pending());
    drop(permit);
    assert!(matches!(next.as_mut().poll(&mut cx), Poll::Ready(Ok(()))));
    assert_eq!(text(&rep.recv_blocking().unwrap()), "next");
}

/// What was promised is sent, whatever has become of the peer: it goes to another, or is lost as the one that it would have
/// been sent to.
///
/// Rules: MQ-076, MQ-197.
#[test]
fn a_promised_request_shares_the_fate_of_its_peer() {
    for on_loss in [ReqOnPeerLoss::Wait, ReqOnPeerLoss::Fail] {
        let context = Context::new();
        let mut how = options();
        how.req_on_peer_loss = on_loss;
        let req = Req::with_options(&context, how).unwrap();
        req.bind_blocking("inproc://ask").unwrap();
        let come = || {
            let rep = Rep::with_options(&context, options()).unwrap();
            rep.connect("inproc://ask").unwrap();
            rep
        };
        let gone = come();
        let permit = req.try_reserve().unwrap();
        wait(gone.close(Some(Duration::ZERO)));
        permit.send("lost").unwrap();
        assert_eq!(req.metrics().unroutable, 1, "not without a trace");
        if on_loss == ReqOnPeerLoss::Wait {
            assert!(matches!(req.try_recv(), Err(Error::WouldBlock)));
            continue;
        }
        assert!(matches!(req.try_recv(), Err(Error::PeerLost)));

        let gone = come();
        let permit = req.try_reserve().unwrap();
        wait(gone.close(Some(Duration::ZERO)));
        let other = come();
        permit.send("to another").unwrap();
        assert_eq!(text(&other.recv_blocking().unwrap()), "to another");
    }
}

/// A publisher that waits for all keeps room with each of them; one that waits for nobody has nothing to keep.
///
/// Rules: MQ-076, MQ-217.
#[test]
fn room_is_kept_with_every_subscriber() {
    for manual in [false, true] {
        for nodrop in [true, false] {
            let context = Context::new();
            let (mut sending, mut receiving) = (options(), options());
            sending.sndhwm = 2;
            sending.xpub_nodrop = nodrop;
            receiving.rcvhwm = 1;
            let kind = if manual { SocketType::XPub } else { SocketType::Pub };
            let publisher = AnySocket::of_type_with(&context, kind, sending).unwrap();
            publisher.bind_blocking("inproc://news").unwrap();
            let subs = [(); 2].map(|()| {
                let sub = Sub::with_options(&context, receiving.clone()).unwrap();
                sub.subscribe("").unwrap();
                sub.connect("inproc://news").unwrap();
                sub
            });
            let permit = publisher.try_reserve().unwrap();
            publisher.try_send("1").unwrap();
            publisher.try_send("2").unwrap();
            if nodrop {
                let refused = publisher.try_send("3").unwrap_err();
                assert!(matches!(refused.error, Error::WouldBlock), "the rest is promised");
                assert!(matches!(publisher.try_reserve().map(drop), Err(Error::WouldBlock)));
            } else {
                drop(publisher.try_reserve().unwrap());
            }
            permit.send("promised").unwrap();
            assert_eq!(publisher.try_send("4").is_err(), nodrop, "full");
            for sub in &subs {
                let got: Vec<_> = (0..3).map(|_| text(&sub.recv_blocking().unwrap())).collect();
                assert_eq!(got, ["1", "2", "promised"]);
            }
        }
    }
}

/// More was promised than a subscriber has room for that comes later: it gets all of it.
///
/// Rules: MQ-076.
#[test]
fn a_late_subscriber_gets_what_was_promised() {
    for kind in [SocketType::Pub, SocketType::XPub] {
        let context = Context::new();
        let (mut sending, mut receiving) = (options(), options());
        sending.sndhwm = 1;
        sending.xpub_nodrop = true;
        receiving.rcvhwm = 1;
        let publisher = AnySocket::of_type_with(&context, kind, sending).unwrap();
        publisher.bind_blocking("inproc://late").unwrap();
        let permits: Vec<_> = (0..4).map(|_| publisher.try_reserve().unwrap()).collect();
        let sub = Sub::with_options(&context, receiving).unwrap();
        sub.subscribe("").unwrap();
        sub.connect("inproc://late").unwrap();
        for (permit, number) in permits.into_iter().zip(0..) {
            permit.send(format!("{number}")).unwrap();
        }
        assert!(matches!(publisher.try_send("4").unwrap_err().error, Error::WouldBlock));
        let got: String = (0..4).map(|_| text(&sub.recv_blocking().unwrap())).collect();
        assert_eq!(got, "0123");
    }
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
