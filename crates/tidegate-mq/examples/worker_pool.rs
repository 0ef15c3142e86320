//! Workers that ask a ROUTER for work when they are free, so that none waits behind a slow one.
#![allow(clippy::expect_used, clippy::panic, reason = "an example may end that way")]

use std::{collections::HashMap, thread};

use tidegate_mq::{Context, Dealer, Result, Router};

const WORKERS: usize = 3;
const JOBS: usize = 30;

pub(crate) fn main() -> Result<()> {
    let context = Context::new();
    let router = Router::new(&context)?;
    router.bind_blocking("inproc://jobs")?;
    let workers: Vec<_> = (0..WORKERS)
        .map(|_| {
            thread::spawn({
                let context = context.clone();
                move || work(&context)
            })
        })
        .collect();

    let mut done: HashMap<_, usize> = HashMap::new();
    let (mut given, mut dismissed) = (0, 0);
    while dismissed < WORKERS {
        // A worker is free: the first time, or with a result.
        let (worker, message) = router.recv_from_blocking()?;
        if message.parts()[0] == "done" {
            *done.entry(worker.clone()).or_default() += 1;
        }
        if given < JOBS {
            router.send_to_blocking(worker, format!("job {given}"))?;
            given += 1;
        } else {
            router.send_to_blocking(worker, "go home")?;
            dismissed += 1;
        }
    }
    assert_eq!(done.values().sum::<usize>(), JOBS);
    println!("{JOBS} jobs by {} workers", done.len());
    workers.into_iter().try_for_each(|worker| worker.join().expect("no worker panics"))
}

fn work(context: &Context) -> Result<()> {
    let socket = Dealer::new(context)?;
    socket.connect("inproc://jobs")?;
    socket.send_blocking("ready")?;
    while socket.recv_blocking()?.parts()[0] != "go home" {
        socket.send_blocking("done")?;
    }
    Ok(())
}
