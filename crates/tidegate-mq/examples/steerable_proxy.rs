//! A queue between clients and workers that can be paused and asked for its counts.
#![allow(clippy::expect_used, clippy::panic, reason = "an example may end that way")]

use std::{thread, time::Duration};

use tidegate_mq::{Context, Error, Options, Rep, Req, Result, proxy::Proxy};

pub(crate) fn main() -> Result<()> {
    let context = Context::new();
    let proxy = Proxy::queue(&context, "tcp://127.0.0.1:*", "tcp://127.0.0.1:*")?;
    let (front, back) = (proxy.frontend().last_endpoint(), proxy.backend().last_endpoint());
    let control = proxy.control();
    let running = thread::spawn(move || proxy.run_blocking());
    let worker = Rep::new(&context)?;
    worker.connect(&back)?;
    thread::spawn(move || -> Result<()> {
        loop {
            worker.send_blocking(worker.recv_blocking()?)?;
        }
    });

    let mut options = Options::default();
    options.rcvtimeo = Some(Duration::from_millis(200));
    let client = Req::with_options(&context, options)?;
    client.connect(&front)?;
    control.pause();
    client.send_blocking("anybody there?")?;
    assert!(matches!(client.recv_blocking(), Err(Error::Timeout)));
    control.resume();
    client.set_options(|options| {
        options.rcvtimeo = None;
        Ok(())
    })?;
    println!("resumed: {:?}", client.recv_blocking()?);
    println!("{} parts came in", control.statistics().frontend.received);
    control.terminate();
    running.join().expect("no panic")?;
    context.term_blocking();
    Ok(())
}
