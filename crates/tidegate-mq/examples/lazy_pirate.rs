//! Lazy pirate: a client that tries again when no reply comes. The server is deaf to the first request.

use std::{thread, time::Duration};

use tidegate_mq::{Context, Error, Options, Rep, Req, Result};

const TRIES: usize = 5;

pub(crate) fn main() -> Result<()> {
    let context = Context::new();
    let rep = Rep::new(&context)?;
    let endpoint = rep.bind_blocking("tcp://127.0.0.1:*")?;
    thread::spawn(move || -> Result<()> {
        let lost = rep.recv_request_blocking()?;
        drop(lost);
        loop {
            let request = rep.recv_blocking()?;
            rep.send_blocking(request)?;
        }
    });

    let mut options = Options::default();
    options.rcvtimeo = Some(Duration::from_millis(200));
    // A request may follow one without a reply, and a late reply is not taken for the next one's.
    (options.req_relaxed, options.req_correlate) = (true, true);
    options.linger = Some(Duration::ZERO);
    let req = Req::with_options(&context, options)?;
    req.connect(&endpoint)?;
    for tries in 1..=TRIES {
        req.send_blocking("are you there?")?;
        match req.recv_blocking() {
            Ok(reply) => {
                println!("{reply:?} at try {tries}");
                assert_eq!(tries, 2);
                context.term_blocking();
                return Ok(());
            }
            Err(Error::Timeout) => println!("no reply to try {tries}"),
            Err(error) => return Err(error),
        }
    }
    Err(Error::Timeout)
}
