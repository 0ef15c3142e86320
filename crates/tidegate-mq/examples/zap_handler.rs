//! A ZAP handler (RFC 27): a REP socket that is asked about every client, as programs for libzmq have it.

use std::thread;

use tidegate_mq::{
    Context, Message, Options, Pull, Push, Rep, Result,
    options::{Mechanism, PlainOptions},
};

pub(crate) fn main() -> Result<()> {
    let context = Context::new();
    let handler = Rep::new(&context)?;
    handler.bind_blocking("inproc://zeromq.zap.01")?;
    // Ends when the context does.
    thread::spawn(move || -> Result<()> {
        loop {
            // Version, request id, domain, address, routing id, mechanism, then user name and password.
            let request = handler.recv_blocking()?;
            let part = |index: usize| request.get(index).map(|part| part.as_slice()).unwrap_or_default();
            let admitted = part(5) == b"PLAIN" && part(6) == b"ann" && part(7) == b"s3cret";
            let (code, text) = if admitted { ("200", "OK") } else { ("400", "unknown user") };
            let mut reply = Message::new();
            // The last two: user id and metadata.
            for field in [part(0), part(1), code.as_bytes(), text.as_bytes(), part(6), b""] {
                reply.push(field.to_vec());
            }
            handler.send_blocking(reply)?;
        }
    });

    let mut options = Options::default();
    options.mechanism = Mechanism::Plain(PlainOptions::Server { authenticator: None });
    options.zap_domain = "harbour".into();
    let server = Pull::with_options(&context, options)?;
    let endpoint = server.bind_blocking("tcp://127.0.0.1:*")?;
    let mut options = Options::default();
    let (username, password) = ("ann".into(), "s3cret".into());
    options.mechanism = Mechanism::Plain(PlainOptions::Client { username, password });
    let client = Push::with_options(&context, options)?;
    client.connect(&endpoint)?;
    client.send_blocking("hello")?;
    assert_eq!(server.recv_blocking()?.parts()[0], "hello");
    println!("the handler admitted ann");
    context.term_blocking();
    Ok(())
}
