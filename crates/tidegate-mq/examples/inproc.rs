//! Between threads: no bytes are copied, and connecting may come before binding.
#![allow(clippy::expect_used, clippy::panic, reason = "an example may end that way")]

use std::thread;

use tidegate_mq::{Context, Pair, Result};

pub(crate) fn main() -> Result<()> {
    let context = Context::new();
    let main = Pair::new(&context)?;
    main.connect("inproc://steps")?;
    let step = Pair::new(&context)?;
    let stepping = thread::spawn(move || -> Result<()> {
        step.bind_blocking("inproc://steps")?;
        (1..=3).try_for_each(|number| Ok(step.send_blocking(format!("step {number}"))?))
    });
    for _ in 0..3 {
        println!("{:?}", main.recv_blocking()?);
    }
    stepping.join().expect("no panic")
}
