//! Options of security: which combinations are refused and when, and who decides about peers.

use std::sync::{Arc, Mutex};

use tidegate_mq::{
    AnySocket, Context, Dealer, Error, Options, PublicKey, Push, SecretKey, SocketType,
    auth::{Credentials, Decision, Peer},
    monitor::{CloseReason, EventKind},
    new_secret_key,
    options::{CurveOptions, CurvePolicy, Mechanism, PlainOptions},
};

use crate::{
    int,
    log::Log,
    rig::{ANYWHERE, event, options, options_with},
};

fn number(socket: &Push, option: i32) -> i32 {
    i32::from_ne_bytes(socket.raw(option).unwrap().try_into().unwrap())
}

/// Bindings set one option after the other: what does not fit yet is refused when the socket is bound or connected, not
/// before and not after.
///
/// Rules: MQ-359, MQ-310, MQ-313, MQ-314.
#[test]
fn half_a_configuration_is_refused_by_bind_and_connect() {
    let context = Context::new();
    let refused = |socket: &Push| {
        let endpoints = [ANYWHERE, "ipc://*", "inproc://x"];
        for error in endpoints.map(|endpoint| socket.bind_blocking(endpoint).unwrap_err()) {
            assert!(matches!(error, Error::InvalidOption { .. }), "{error}");
        }
        let error = socket.connect("tcp://127.0.0.1:9").unwrap_err();
        assert!(matches!(error, Error::InvalidOption { .. }), "{error}");
    };
    let (ours, theirs) = (new_secret_key(), new_secret_key());
    let server = Push::with_options(&context, options()).unwrap();
    server.set_raw(47, &int(1)).unwrap();
    assert_eq!(number(&server, 43), 2, "any of them selects CURVE");
    refused(&server);
    server.set_raw(49, ours.expose()).unwrap();
    server.bind_blocking(ANYWHERE).unwrap();
    assert_eq!((number(&server, 43), number(&server, 47)), (2, 1));

    let client = Push::with_options(&context, options()).unwrap();
    client.set_raw(49, ours.expose()).unwrap();
    assert_eq!(number(&client, 43), 2);
    assert_eq!(client.raw(49).unwrap(), ours.expose());
    refused(&client);
    client.set_raw(50, theirs.public_key().as_bytes()).unwrap();
    client.connect("tcp://127.0.0.1:9").unwrap();
    assert_eq!((number(&client, 43), number(&client, 47)), (2, 0));
    // Somebody else's public key is not ours.
    client.set_raw(48, theirs.public_key().as_bytes()).unwrap();
    refused(&client);
    client.set_raw(48, ours.public_key().as_bytes()).unwrap();
    client.connect("tcp://127.0.0.1:10").unwrap();
    // What is set last counts.
    client.set_raw(50, theirs.public_key().as_bytes()).unwrap();
    client.set_raw(45, b"user").unwrap();
    assert_eq!(number(&client, 43), 1);
    client.connect("tcp://127.0.0.1:11").unwrap();
    client.set_raw(44, &int(0)).unwrap();
    assert_eq!(number(&client, 43), 0);
    client.connect("tcp://127.0.0.1:12").unwrap();
    assert!(matches!(
        Push::with_options(&context, options_with(|options| options.set_raw(47, &int(1)).unwrap())),
        Err(Error::InvalidOption { .. })
    ));
}

/// Rules: MQ-359, MQ-250, MQ-196.
#[test]
fn what_is_hardly_meant_is_warned_of() {
    let warnings = |kind: SocketType, change: fn(&mut Options)| {
        let context = Context::new();
        let socket = AnySocket::of_type_with(&context, kind, options_with(change)).unwrap();
        let log = Log::default();
        tracing::subscriber::with_default(log.clone(), || {
            socket.bind_blocking("inproc://x").unwrap();
            let bound = log.lines().len();
            socket.connect("inproc://y").unwrap();
            assert_eq!(log.lines().len(), bound * 2, "each time");
        });
        log.lines()
    };
    let relaxed = warnings(SocketType::Req, |options| options.req_relaxed = true);
    assert!(relaxed[0].starts_with("WARN") && relaxed[0].contains("req_correlate"), "{relaxed:?}");
    let both = |options: &mut Options| (options.req_relaxed, options.req_correlate) = (true, true);
    assert!(warnings(SocketType::Req, both).is_empty());
    use SocketType::{Dealer, Pair, Pub, Pull, Push, Rep, Req, Router, Sub, XPub, XSub};
    for kind in [Req, Rep, Router, XPub, XSub, Pair] {
        let lines = warnings(kind, |options| options.conflate = true);
        assert!(lines[0].starts_with("WARN") && lines[0].contains("conflate"), "{kind:?}: {lines:?}");
    }
    for kind in [Push, Pull, Pub, Sub, Dealer] {
        assert!(warnings(kind, |options| options.conflate = true).is_empty(), "{kind:?}");
    }
}

/// How the handshake of a client ends at a server: the user id it is given, or why it is refused.
fn meet(server: Mechanism, client: Mechanism) -> Result<String, CloseReason> {
    let context = Context::new();
    let server = Dealer::with_options(&context, options_with(|options| options.mechanism = server)).unwrap();
    let monitor = server.monitor();
    let endpoint = server.bind_blocking(ANYWHERE).unwrap();
    let client = Dealer::with_options(&context, options_with(|options| options.mechanism = client)).unwrap();
    client.connect(&endpoint).unwrap();
    event(&monitor, "end of the handshake", |kind| match kind {
        EventKind::HandshakeSucceeded { user_id, .. } => {
            Some(Ok(String::from_utf8(user_id.to_vec()).unwrap()))
        }
        EventKind::HandshakeFailed(reason) => Some(Err(reason.clone())),
        _ => None,
    })
}

/// A server admits whom its policy admits, and with the default, which is to ask a handler that is not there, nobody.
///
/// Rules: MQ-357, MQ-531, MQ-153.
#[test]
fn curve_policies() {
    let (server_key, known, unknown) = (new_secret_key(), new_secret_key(), new_secret_key());
    let server = |policy| Mechanism::Curve(CurveOptions::Server { secret_key: server_key.clone(), policy });
    let client = |secret_key: &SecretKey| {
        let server_key: PublicKey = server_key.public_key();
        Mechanism::Curve(CurveOptions::Client { server_key, secret_key: secret_key.clone() })
    };
    assert_eq!(meet(server(CurvePolicy::default()), client(&known)), Err(CloseReason::NoAuthenticator));
    assert_eq!(meet(server(CurvePolicy::AnyKey), client(&unknown)), Ok(String::new()));
    let list = || CurvePolicy::AllowList(Arc::new([known.public_key()]));
    assert_eq!(meet(server(list()), client(&known)), Ok(String::new()));
    assert!(matches!(meet(server(list()), client(&unknown)), Err(CloseReason::AuthFailed(_))));
    let key = *known.public_key().as_bytes();
    let ask = move |peer: Peer| match peer.credentials {
        Credentials::Curve(shown) if shown == key => Decision::Admit { user_id: "known".into() },
        _ => Decision::Refuse,
    };
    let ask = || CurvePolicy::Ask(Arc::new(ask));
    assert_eq!(meet(server(ask()), client(&known)), Ok("known".into()));
    assert!(matches!(meet(server(ask()), client(&unknown)), Err(CloseReason::AuthFailed(_))));
}

/// Rules: MQ-357, MQ-311, MQ-312.
#[test]
fn authenticators_see_what_clients_show() {
    let shown = Arc::new(Mutex::new(Vec::new()));
    let seen = shown.clone();
    let server = Mechanism::Plain(PlainOptions::Server {
        authenticator: Some(Arc::new(move |peer: Peer| {
            let Credentials::Plain(shown) = &peer.credentials else { return Decision::Failed };
            let text = |octets: &[u8]| String::from_utf8(octets.to_vec()).unwrap();
            seen.lock().unwrap().push((
                text(shown.username.as_bytes()),
                text(shown.password.as_bytes()),
                peer.address,
            ));
            match shown.password.as_bytes() {
                b"right" => Decision::Admit { user_id: "me".into() },
                _ => Decision::Refuse,
            }
        })),
    });
    let client = |password: &[u8]| {
        let mut options = Options::default();
        options.set_raw(45, b"name").unwrap();
        options.set_raw(46, password).unwrap();
        options.mechanism
    };
    assert_eq!(meet(server.clone(), client(b"right")), Ok("me".into()));
    assert!(matches!(meet(server, client(b"wrong")), Err(CloseReason::AuthFailed(_))));
    let line = |password: &str| ("name".to_owned(), password.to_owned(), "127.0.0.1".to_owned());
    assert_eq!(*shown.lock().unwrap(), [line("right"), line("wrong")]);
}
