//! Divide, work, collect: a source pushes to several workers, which push to a sink.
#![allow(clippy::expect_used, clippy::panic, reason = "an example may end that way")]

use std::thread;

use tidegate_mq::{Context, Pull, Push, Result};

const TASKS: u64 = 1000;

pub(crate) fn main() -> Result<()> {
    let context = Context::new();
    let source = Push::new(&context)?;
    let tasks = source.bind_blocking("ipc://*")?;
    let sink = Pull::new(&context)?;
    let results = sink.bind_blocking("ipc://*")?;
    for _ in 0..3 {
        let (work, done) = (Pull::new(&context)?, Push::new(&context)?);
        work.connect(&tasks)?;
        done.connect(&results)?;
        // Ends when the context does.
        thread::spawn(move || -> Result<()> {
            loop {
                let number: u64 =
                    work.recv_blocking()?.parts()[0].as_slice().try_into().map_or(0, u64::from_le_bytes);
                done.send_blocking((number * number).to_le_bytes().as_slice())?;
            }
        });
    }
    let feed = thread::spawn(move || -> Result<()> {
        (0..TASKS).try_for_each(|number| Ok(source.send_blocking(number.to_le_bytes().as_slice())?))
    });
    let mut sum = 0;
    for _ in 0..TASKS {
        sum += sink.recv_blocking()?.parts()[0].as_slice().try_into().map_or(0, u64::from_le_bytes);
    }
    assert_eq!(sum, (0..TASKS).map(|number| number * number).sum());
    println!("{TASKS} squares sum up to {sum}");
    feed.join().expect("no panic")?;
    context.term_blocking();
    Ok(())
}
