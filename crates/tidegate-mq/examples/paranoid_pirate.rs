//! Paranoid pirate: a queue that hands work to workers it has heard from lately, so that a dead worker gets none.
#![allow(clippy::expect_used, clippy::panic, reason = "an example may end that way")]

use std::{
    collections::VecDeque,
    thread,
    time::{Duration, Instant},
};

use tidegate_mq::{Context, Dealer, Error, Message, Options, Part, Req, Result, Router};

/// A worker that was silent for so long is dead.
const PATIENCE: Duration = Duration::from_millis(300);
/// So often a worker says that it is alive.
const BEAT: Duration = Duration::from_millis(50);
const REQUESTS: usize = 10;

pub(crate) fn main() -> Result<()> {
    let context = Context::new();
    let clients = Router::with_options(&context, quick(Duration::from_millis(5)))?;
    let workers = Router::with_options(&context, quick(Duration::from_millis(5)))?;
    clients.bind_blocking("inproc://clients")?;
    workers.bind_blocking("inproc://workers")?;
    for dies in [true, false] {
        let context = context.clone();
        // Ends when the context does.
        thread::spawn(move || work(&context, dies));
    }
    let asking = thread::spawn({
        let context = context.clone();
        move || ask(&context)
    });
    queue(&clients, &workers, || asking.is_finished())?;
    asking.join().expect("no panic")?;
    println!("{REQUESTS} requests were answered although a worker died");
    context.term_blocking();
    Ok(())
}

/// Serves until `is_over`.
fn queue(clients: &Router, workers: &Router, is_over: impl Fn() -> bool) -> Result<()> {
    let mut free: VecDeque<(Part, Instant)> = VecDeque::new();
    while !is_over() {
        // From workers: "ready" as a sign of life, or a reply with the client's envelope before it.
        if let Some((worker, message)) = patiently(workers.recv_from_blocking())? {
            free.retain(|(known, _)| *known != worker);
            free.push_back((worker, Instant::now()));
            if message.len() > 1 {
                clients.send_blocking(message)?;
            }
        }
        free.retain(|(_, heard)| heard.elapsed() < PATIENCE);
        if free.is_empty() {
            continue;
        }
        if let Some(request) = patiently(clients.recv_blocking())?
            && let Some((worker, _)) = free.pop_front()
        {
            workers.send_to_blocking(worker, request)?;
        }
    }
    Ok(())
}

fn work(context: &Context, dies: bool) -> Result<()> {
    let socket = Dealer::with_options(context, quick(BEAT))?;
    socket.connect("inproc://workers")?;
    socket.send_blocking("ready")?;
    loop {
        match patiently(socket.recv_blocking())? {
            Some(_) if dies => return Ok(()),
            Some(request) => socket.send_blocking(request)?,
            None => socket.send_blocking("ready")?,
        }
    }
}

/// A lazy pirate, without which a request that a dying worker took would be lost.
fn ask(context: &Context) -> Result<()> {
    let mut options = quick(PATIENCE * 2);
    (options.req_relaxed, options.req_correlate) = (true, true);
    let socket = Req::with_options(context, options)?;
    socket.connect("inproc://clients")?;
    for number in 0..REQUESTS {
        let question = format!("{number}");
        loop {
            socket.send_blocking(Message::from(question.clone()))?;
            if let Some(reply) = patiently(socket.recv_blocking())? {
                assert_eq!(reply.parts()[0], question);
                break;
            }
        }
    }
    Ok(())
}

fn quick(wait: Duration) -> Options {
    let mut options = Options::default();
    options.rcvtimeo = Some(wait);
    options.linger = Some(Duration::ZERO);
    options
}

/// `None` when nothing came in time.
fn patiently<T>(received: Result<T>) -> Result<Option<T>> {
    match received {
        Ok(message) => Ok(Some(message)),
        Err(Error::Timeout) => Ok(None),
        Err(error) => Err(error),
    }
}
