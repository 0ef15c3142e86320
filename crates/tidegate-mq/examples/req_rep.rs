//! Request and reply: each side sends and receives in turn.
#![allow(clippy::expect_used, clippy::panic, reason = "an example may end that way")]

use std::thread;

use tidegate_mq::{Context, Rep, Req, Result};

pub(crate) fn main() -> Result<()> {
    let context = Context::new();
    let rep = Rep::new(&context)?;
    let endpoint = rep.bind_blocking("tcp://127.0.0.1:*")?;
    let server = thread::spawn(move || -> Result<()> {
        for _ in 0..3 {
            let request = rep.recv_blocking()?;
            let text = String::from_utf8_lossy(request.parts()[0].as_slice()).to_uppercase();
            rep.send_blocking(text)?;
        }
        Ok(())
    });

    let req = Req::new(&context)?;
    req.connect(&endpoint)?;
    for word in ["ebb", "flow", "slack"] {
        req.send_blocking(word)?;
        println!("{word} -> {:?}", req.recv_blocking()?);
    }
    server.join().expect("the server does not panic")
}
