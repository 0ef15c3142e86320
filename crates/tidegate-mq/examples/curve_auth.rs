//! CURVE: everything is encrypted, the client knows the server's key, and the server admits the keys it knows.

use tidegate_mq::{
    Context, Options, Rep, Req, Result, new_secret_key,
    options::{CurveOptions, CurvePolicy, Mechanism},
};

pub(crate) fn main() -> Result<()> {
    // In earnest: `tidegate mq keygen` on both hosts, and only public keys travel.
    let (server_key, client_key) = (new_secret_key(), new_secret_key());
    let server_public = server_key.public_key();

    let context = Context::new();
    let mut options = Options::default();
    options.mechanism = Mechanism::Curve(CurveOptions::Server {
        secret_key: server_key,
        policy: CurvePolicy::AllowList([client_key.public_key()].into()),
    });
    let server = Rep::with_options(&context, options)?;
    let endpoint = server.bind_blocking("tcp://127.0.0.1:*")?;

    let mut options = Options::default();
    options.mechanism =
        Mechanism::Curve(CurveOptions::Client { server_key: server_public, secret_key: client_key });
    let client = Req::with_options(&context, options)?;
    client.connect(&endpoint)?;

    client.send_blocking("secret")?;
    let request = server.recv_blocking()?;
    server.send_blocking(request)?;
    assert_eq!(client.recv_blocking()?.parts()[0], "secret");
    println!("a secret went there and back");
    Ok(())
}
