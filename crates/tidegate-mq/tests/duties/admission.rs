//! Who is admitted, and who decides.

use std::{
    net::TcpListener,
    sync::{Arc, Mutex, mpsc},
    task::{Poll, Waker},
    thread,
    time::Duration,
};

use tidegate_mq::{
    Context, ContextOptions, Error, Message, Options, Part, Pull, Push, Rep, SecretKey,
    auth::{Authenticator, Blocking, Credentials, Decision, DecisionFuture, Peer, PlainTable},
    monitor::{CloseReason, EventKind, Monitor},
    options::{CurveOptions, CurvePolicy, Mechanism, PlainOptions},
};

use super::{
    peer::{PATIENCE, Raw},
    rig::{ANYWHERE, event, options, options_with, until},
};

fn key(number: u8) -> SecretKey {
    SecretKey::from_bytes([number; 32])
}

fn curve_client(number: u8) -> Mechanism {
    Mechanism::Curve(CurveOptions::Client { server_key: key(9).public_key(), secret_key: key(number) })
}

fn plain_client(username: &str, password: &str) -> Mechanism {
    Mechanism::Plain(PlainOptions::Client { username: username.into(), password: password.into() })
}

fn plain_server(authenticator: impl Authenticator + 'static) -> Mechanism {
    Mechanism::Plain(PlainOptions::Server { authenticator: Some(Arc::new(authenticator)) })
}

fn secured(mechanism: Mechanism) -> Options {
    options_with(|options| options.mechanism = mechanism)
}

struct Server {
    _socket: Pull,
    monitor: Monitor,
    endpoint: String,
}

fn serve(context: &Context, options: Options) -> Server {
    let socket = Pull::with_options(context, options).unwrap();
    let monitor = socket.monitor();
    let endpoint = socket.bind_blocking(ANYWHERE).unwrap();
    Server { _socket: socket, monitor, endpoint }
}

fn connect(context: &Context, server: &Server, mechanism: Mechanism) -> Push {
    let client = Push::with_options(context, secured(mechanism)).unwrap();
    client.connect(&server.endpoint).unwrap();
    client
}

/// How the server decides about the next client: its user id, or why it was refused.
#[track_caller]
fn decision(server: &Server) -> Result<String, CloseReason> {
    event(&server.monitor, "decision", |kind| match kind {
        EventKind::HandshakeSucceeded { user_id, .. } => {
            Some(Ok(String::from_utf8(user_id.to_vec()).unwrap()))
        }
        EventKind::HandshakeFailed(reason) => Some(Err(reason.clone())),
        _ => None,
    })
}

#[track_caller]
fn decide(context: &Context, server: &Server, mechanism: Mechanism) -> Result<String, u16> {
    let _client = connect(context, server, mechanism);
    decision(server).map_err(|reason| match reason {
        CloseReason::AuthFailed(code) => code.status(),
        CloseReason::NoAuthenticator => 0,
        other => panic!("{other}"),
    })
}

/// A list of keys, a function or nothing at all decide; who sets no policy leaves it to the ZAP handler, and without one
/// nobody gets in.
///
/// Rules: MQ-153.
#[test]
fn a_curve_server_admits_whom_its_policy_admits() {
    let server = |context: &Context, policy| {
        serve(context, secured(Mechanism::Curve(CurveOptions::Server { secret_key: key(9), policy })))
    };
    let context = Context::new();
    let any = server(&context, CurvePolicy::AnyKey);
    assert_eq!(decide(&context, &any, curve_client(1)), Ok(String::new()));
    let listed = server(&context, CurvePolicy::AllowList([key(1).public_key(), key(2).public_key()].into()));
    assert_eq!(decide(&context, &listed, curve_client(2)), Ok(String::new()));
    assert_eq!(decide(&context, &listed, curve_client(3)), Err(400));
    let knows = |peer: Peer| match peer.credentials {
        Credentials::Curve(shown) if &shown == key(1).public_key().as_bytes() => {
            Decision::Admit { user_id: "first".into() }
        }
        _ => Decision::Refuse,
    };
    let asked = server(&context, CurvePolicy::Ask(Arc::new(knows)));
    assert_eq!(decide(&context, &asked, curve_client(1)), Ok("first".into()));
    assert_eq!(decide(&context, &asked, curve_client(2)), Err(400));

    // By number, as libzmq's programs do it: there is no policy to give.
    let mut options = options();
    options.set_raw(47, &1_i32.to_ne_bytes()).unwrap();
    options.set_raw(49, key(9).expose()).unwrap();
    for unsaid in [serve(&context, options), server(&context, CurvePolicy::default())] {
        assert_eq!(decide(&context, &unsaid, curve_client(1)), Err(0), "nobody decides, so nobody is let in");
    }
}

/// What is asked of a handler is no socket of the application: it takes no place, and needs none.
///
/// Rules: MQ-163, MQ-349.
#[test]
fn questions_take_no_place_of_a_socket() {
    let mut limits = ContextOptions::default();
    limits.max_sockets = Some(3);
    let context = Context::with_options(limits);
    let handler = Rep::with_options(&context, options()).unwrap();
    handler.bind_blocking("inproc://zeromq.zap.01").unwrap();
    let policy = CurvePolicy::Zap;
    let mechanism = Mechanism::Curve(CurveOptions::Server { secret_key: key(9), policy });
    let server = serve(&context, secured(mechanism));
    let theirs = Context::new();
    let ask = || {
        let client = connect(&theirs, &server, curve_client(1));
        let id = handler.recv_blocking().unwrap().parts()[1].clone();
        (client, id)
    };
    let answer = |id| {
        let [version, status, text, user, metadata] = ["1.0", "200", "OK", "ann", ""].map(Part::from);
        handler
            .send_blocking([version, id, status, text, user, metadata].into_iter().collect::<Message>())
            .unwrap();
        assert_eq!(decision(&server).unwrap(), "ann");
    };
    let (_first, id) = ask();
    let _third = Pull::new(&context).expect("a question takes no place");
    answer(id);
    assert!(matches!(Pull::new(&context), Err(Error::TooManySockets { limit: 3 })));
    let (_second, id) = ask();
    answer(id);
}

/// Who asks to be let in while the server ends is not refused: it is let in by the one that comes next.
///
/// Rules: MQ-162, MQ-163.
#[test]
fn a_server_that_ends_refuses_nobody() {
    let mechanism =
        || Mechanism::Curve(CurveOptions::Server { secret_key: key(9), policy: CurvePolicy::Zap });
    let context = Context::new();
    let handler = Rep::with_options(&context, options()).unwrap();
    handler.bind_blocking("inproc://zeromq.zap.01").unwrap();
    let server = serve(&context, secured(mechanism()));
    let endpoint = server.endpoint.clone();
    let theirs = Context::new();
    let client = connect(&theirs, &server, curve_client(1));
    handler.recv_blocking().unwrap();
    context.term_blocking();
    drop((handler, server));

    let context = Context::new();
    let next = Pull::with_options(
        &context,
        secured(Mechanism::Curve(CurveOptions::Server { secret_key: key(9), policy: CurvePolicy::AnyKey })),
    )
    .unwrap();
    next.bind_blocking(&endpoint).unwrap();
    client.send_blocking("let in").unwrap();
    assert_eq!(next.recv_blocking().unwrap().parts()[0], "let in");
}

/// An authenticator decides at once, by a future, on a thread, or from a table; the ZAP handler is not asked then.
///
/// Rules: MQ-164, MQ-137.
#[test]
fn authenticators_of_this_process_decide_instead_of_the_handler() {
    let context = Context::new();
    let handler = Rep::with_options(&context, options()).unwrap();
    handler.bind_blocking("inproc://zeromq.zap.01").unwrap();
    let knows = |peer: Peer| match &peer.credentials {
        Credentials::Plain(shown) if shown.username.as_bytes() == b"ann" => {
            Decision::Admit { user_id: "Ann".into() }
        }
        _ => Decision::Refuse,
    };
    let table = PlainTable::new([("ann", "s3cret"), ("bob", "hunter2"), ("", "")]).unwrap();
    for (mechanism, name) in [
        (plain_server(knows), "Ann"),
        (plain_server(Later::new(knows)), "Ann"),
        (plain_server(Blocking::new(knows)), "Ann"),
        (plain_server(table), "ann"),
    ] {
        let server = serve(&context, secured(mechanism));
        assert_eq!(decide(&context, &server, plain_client("ann", "s3cret")), Ok(name.into()));
        assert_eq!(decide(&context, &server, plain_client("eve", "s3cret")), Err(400));
    }
    let table = PlainTable::new([("ann", "s3cret"), ("bob", "hunter2")]).unwrap();
    assert!(!format!("{table:?}").contains("s3cret"));
    let server = serve(&context, secured(plain_server(table)));
    for (name, password) in
        [("ann", "hunter2"), ("ann", "s3cre"), ("ann", "s3cret\0"), ("an", "ns3cret"), ("", "")]
    {
        assert_eq!(decide(&context, &server, plain_client(name, password)), Err(400), "{name} {password}");
    }
    assert_eq!(decide(&context, &server, plain_client("bob", "hunter2")), Ok("bob".into()));
    assert!(PlainTable::new([("ann", "x".repeat(256).as_str())]).is_err());
    assert!(matches!(handler.try_recv(), Err(Error::WouldBlock)), "the handler was asked");
}

/// Decides on another thread, a moment after it was asked.
struct Later<F>(Arc<F>);

impl<F> Later<F> {
    fn new(decide: F) -> Self {
        Self(Arc::new(decide))
    }
}

impl<F: Fn(Peer) -> Decision + Send + Sync + 'static> Authenticator for Later<F> {
    fn authenticate(&self, peer: Peer) -> DecisionFuture {
        let answer = Arc::new(Mutex::new((None, None::<Waker>)));
        let (decide, place) = (self.0.clone(), answer.clone());
        let mut asked = Some(peer);
        Box::pin(std::future::poll_fn(move |context| {
            answer.lock().unwrap().1 = Some(context.waker().clone());
            if let Some(peer) = asked.take() {
                let (decide, place) = (decide.clone(), place.clone());
                thread::spawn(move || {
                    let mut answer = place.lock().unwrap();
                    answer.0 = Some(decide(peer));
                    answer.1.take().unwrap().wake();
                });
            }
            answer.lock().unwrap().0.take().map_or(Poll::Pending, Poll::Ready)
        }))
    }
}

/// While one client is being decided about, others are admitted and served by the same worker. Of more than may be
/// decided about at a time, the rest has to try again, and an authenticator that panics has failed.
///
/// Rules: MQ-163, MQ-164.
#[test]
fn an_authenticator_that_blocks_holds_nobody_else_up() {
    let context = Context::new();
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let slow = Blocking::at_most(1, move |peer: Peer| {
        let Credentials::Plain(shown) = &peer.credentials else { return Decision::Refuse };
        assert_ne!(shown.username.as_bytes(), b"bug");
        released.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        Decision::Admit { user_id: "slow".into() }
    });
    let server = serve(&context, secured(plain_server(slow)));
    let waiting = connect(&context, &server, plain_client("slow", ""));
    event(&server.monitor, "connection", |kind| matches!(kind, EventKind::Accepted(_)).then_some(()));

    let open = Pull::with_options(&context, secured(plain_server(PlainTable::new([("quick", "")]).unwrap())))
        .unwrap();
    let endpoint = open.bind_blocking(ANYWHERE).unwrap();
    let quick = Push::with_options(&context, secured(plain_client("quick", ""))).unwrap();
    quick.connect(&endpoint).unwrap();
    quick.send_blocking("served").unwrap();
    assert_eq!(open.recv_blocking().unwrap().parts()[0], "served");
    // 300: come again. Both have to be asking by now for that.
    until("one too many", || {
        let turned_away = connect(&context, &server, plain_client("slow", ""));
        let refused = decision(&server);
        drop(turned_away);
        matches!(refused, Err(CloseReason::AuthFailed(code)) if code.status() == 300)
    });
    release.send(()).unwrap();
    assert_eq!(decision(&server).unwrap(), "slow");
    waiting.send_blocking("at last").unwrap();
    // The thread ends before its place is taken.
    until("the place is free", || match decide(&context, &server, plain_client("bug", "")) {
        Err(300) => false,
        other => {
            assert_eq!(other, Err(500));
            true
        }
    });
}

/// With enforcement a domain is needed where there are users, even where everybody would be admitted; without, a NULL
/// socket without a domain is open still.
///
/// Rules: MQ-161, MQ-338.
#[test]
fn an_enforced_domain_has_to_be_there() {
    let context = Context::new();
    let anybody = Mechanism::Curve(CurveOptions::Server { secret_key: key(9), policy: CurvePolicy::AnyKey });
    let ann = || plain_server(|_| Decision::Admit { user_id: "ann".into() });
    for (server, client, expected) in
        [(anybody, curve_client(1), Ok(String::new())), (ann(), plain_client("ann", ""), Ok("ann".into()))]
    {
        let with = |enforce, domain: &str| {
            let mut options = secured(server.clone());
            options.zap_enforce_domain = enforce;
            options.zap_domain = domain.into();
            decide(&context, &serve(&context, options), client.clone())
        };
        assert_eq!(with(false, ""), expected);
        assert_eq!(with(true, "ours"), expected);
        assert_eq!(with(true, ""), Err(0));
    }
    let null = serve(&context, options_with(|options| options.zap_enforce_domain = true));
    assert_eq!(decide(&context, &null, Mechanism::Null), Ok(String::new()));
}

/// The mechanism that a connection of this endpoint begins with.
fn greets(endpoint: &str) -> String {
    mechanism(&mut Raw::connect(endpoint))
}

fn mechanism(peer: &mut Raw) -> String {
    let name = peer.take(64)[12..32].to_vec();
    String::from_utf8(name).unwrap().trim_end_matches('\0').to_owned()
}

/// Options of security hold for what is bound and connected after they were set; what was before keeps its own, also when
/// it connects again.
///
/// Rules: MQ-100.
#[test]
fn security_changes_for_later_binds_and_connects() {
    let context = Context::new();
    let curve = Mechanism::Curve(CurveOptions::Server { secret_key: key(9), policy: CurvePolicy::AnyKey });
    let pull = Pull::with_options(&context, options()).unwrap();
    let mut bound = vec![("NULL", pull.bind_blocking(ANYWHERE).unwrap())];
    for (name, mechanism) in [("PLAIN", plain_server(PlainTable::default())), ("CURVE", curve)] {
        pull.set_options(|options| {
            options.mechanism = mechanism;
            Ok(())
        })
        .unwrap();
        bound.push((name, pull.bind_blocking(ANYWHERE).unwrap()));
        for (name, endpoint) in &bound {
            assert_eq!(greets(endpoint), *name);
        }
    }

    let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
    let (first, second) = (listen(), listen());
    let accept = |listener: &TcpListener| Raw::of(listener.accept().unwrap().0);
    let endpoint = |listener: &TcpListener| format!("tcp://{}", listener.local_addr().unwrap());
    let push = Push::with_options(
        &context,
        options_with(|options| options.reconnect_ivl = Some(Duration::from_millis(1))),
    )
    .unwrap();
    push.connect(&endpoint(&first)).unwrap();
    let mut peer = accept(&first);
    assert_eq!(mechanism(&mut peer), "NULL");
    push.set_options(|options| {
        options.mechanism = plain_client("ann", "s3cret");
        Ok(())
    })
    .unwrap();
    push.connect(&endpoint(&second)).unwrap();
    assert_eq!(mechanism(&mut accept(&second)), "PLAIN");
    drop(peer);
    assert_eq!(mechanism(&mut accept(&first)), "NULL");
}
