//! A broker between publishers and subscribers that logs who wants what.
#![allow(clippy::expect_used, clippy::panic, reason = "an example may end that way")]

use std::{thread, time::Duration};

use tidegate_mq::{Context, Error, Message, Pub, Result, Sub, XPub, XSub};

pub(crate) fn main() -> Result<()> {
    let context = Context::new();
    let (xsub, xpub) = (XSub::new(&context)?, XPub::new(&context)?);
    let (front, back) = (xsub.bind_blocking("tcp://127.0.0.1:*")?, xpub.bind_blocking("tcp://127.0.0.1:*")?);

    // Subscriptions go up, messages go down.
    let (up, down) = ((xpub.clone(), xsub.clone()), (xsub, xpub));
    let subscriptions = thread::spawn(move || {
        until_shutdown(|| {
            let notice = up.0.recv_blocking()?;
            println!("subscription: {:?}", notice.parts()[0]);
            Ok(up.1.send_blocking(notice)?)
        })
    });
    let messages =
        thread::spawn(move || until_shutdown(|| Ok(down.1.send_blocking(down.0.recv_blocking()?)?)));

    let publisher = Pub::new(&context)?;
    publisher.connect(&front)?;
    let subscriber = Sub::new(&context)?;
    subscriber.subscribe("a")?;
    subscriber.connect(&back)?;
    // The subscription reaches the publisher through the broker.
    publisher.wait_for_subscribers_blocking(b"a", 1, Duration::from_secs(5))?;
    publisher.send_blocking(["a", "through the broker"].into_iter().collect::<Message>())?;
    assert_eq!(subscriber.recv_blocking()?.parts()[1], "through the broker");

    context.term_blocking();
    subscriptions.join().expect("no panic")?;
    messages.join().expect("no panic")
}

fn until_shutdown(mut step: impl FnMut() -> Result<()>) -> Result<()> {
    loop {
        match step() {
            Ok(()) => {}
            Err(Error::Terminated) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}
