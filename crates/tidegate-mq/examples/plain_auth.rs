//! PLAIN: names and passwords, checked by an authenticator of this process. Only for networks that nobody listens to.
#![allow(clippy::expect_used, clippy::panic, reason = "an example may end that way")]

use std::{sync::Arc, time::Duration};

use tidegate_mq::{
    Context, Error, Options, Pull, Push, Result,
    auth::{Credentials, Decision, Peer, PlainCredentials},
    options::{Mechanism, PlainOptions},
};

pub(crate) fn main() -> Result<()> {
    let known = PlainCredentials::new(b"ann", b"s3cret").expect("short enough");
    let check = move |peer: Peer| match &peer.credentials {
        Credentials::Plain(shown) if known.matches(shown) => Decision::Admit { user_id: "ann".into() },
        _ => Decision::Refuse,
    };
    let context = Context::new();
    let server =
        Pull::with_options(&context, with(PlainOptions::Server { authenticator: Some(Arc::new(check)) }))?;
    let endpoint = server.bind_blocking("tcp://127.0.0.1:*")?;

    let client = |password: &str| {
        let credentials = PlainOptions::Client { username: "ann".into(), password: password.into() };
        Push::with_options(&context, with(credentials))
    };
    let (right, wrong) = (client("s3cret")?, client("guess")?);
    wrong.connect(&endpoint)?;
    assert!(matches!(wrong.send_blocking("no").map_err(Error::from), Err(Error::Timeout)));
    right.connect(&endpoint)?;
    right.send_blocking("hello")?;
    assert_eq!(server.recv_blocking()?.parts()[0], "hello");
    println!("the right password was admitted, the wrong one was not");
    Ok(())
}

fn with(plain: PlainOptions) -> Options {
    let mut options = Options::default();
    options.mechanism = Mechanism::Plain(plain);
    // Send to peers that are there, and do not wait for ever.
    options.immediate = true;
    options.sndtimeo = Some(Duration::from_millis(500));
    options.linger = Some(Duration::ZERO);
    options
}
