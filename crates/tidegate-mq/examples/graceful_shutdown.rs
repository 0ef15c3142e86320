//! Ending in order: what is queued is sent, those who wait are told, and nothing is lost unnoticed.
#![allow(clippy::expect_used, clippy::panic, reason = "an example may end that way")]

use std::{thread, time::Duration};

use tidegate_mq::{Context, Error, Pull, Push, Result};

const MESSAGES: usize = 500;

pub(crate) fn main() -> Result<()> {
    let receiving = Context::new();
    let pull = Pull::new(&receiving)?;
    let endpoint = pull.bind_blocking("tcp://127.0.0.1:*")?;
    let collector = thread::spawn(move || {
        let mut received = 0;
        loop {
            match pull.recv_blocking() {
                Ok(_) => received += 1,
                // What shutting down means for those who wait.
                Err(Error::Terminated) => return received,
                Err(error) => panic!("{error}"),
            }
            if received == MESSAGES {
                return received;
            }
        }
    });

    let sending = Context::new();
    let push = Push::new(&sending)?;
    push.connect(&endpoint)?;
    for number in 0..MESSAGES {
        push.send_blocking(format!("{number}"))?;
    }
    push.set_options(|options| {
        options.linger = Some(Duration::from_secs(5));
        Ok(())
    })?;
    assert_eq!(sending.term_blocking(), 0, "everything was sent within the linger time");
    assert_eq!(collector.join().expect("no panic"), MESSAGES);
    receiving.term_blocking();
    println!("{MESSAGES} messages, then the end");
    Ok(())
}
