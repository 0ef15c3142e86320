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
use tidegate_mq::{AnySocket, Context, Error, Message, Pull, Push, SocketType};

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
