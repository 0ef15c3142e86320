//! Everything there is, together.

use tidegate_mq::{
    AnySocket, Context, Rep, SecretKey, SocketType,
    auth::PlainTable,
    options::{CurveOptions, CurvePolicy, Mechanism, PlainOptions},
};

use super::rig::{established, options, until};

/// NULL, PLAIN and CURVE: what the server is told and what the client is. The ZAP handler of the context decides about the
/// last one.
fn mechanisms() -> [(Mechanism, Mechanism); 4] {
    let key = |number: u8| SecretKey::from_bytes([number; 32]);
    let curve = |policy| Mechanism::Curve(CurveOptions::Server { secret_key: key(1), policy });
    let client =
        Mechanism::Curve(CurveOptions::Client { server_key: key(1).public_key(), secret_key: key(2) });
    let users = PlainTable::new([("ann", "s3cret")]).unwrap();
    [
        (Mechanism::Null, Mechanism::Null),
        (
            Mechanism::Plain(PlainOptions::Server { authenticator: Some(std::sync::Arc::new(users)) }),
            Mechanism::Plain(PlainOptions::Client { username: "ann".into(), password: "s3cret".into() }),
        ),
        (curve(CurvePolicy::AnyKey), client.clone()),
        (curve(CurvePolicy::Zap), client),
    ]
}

/// The first of each pair asks, or sends, or publishes.
const PAIRS: [(SocketType, SocketType); 12] = [
    (SocketType::Req, SocketType::Rep),
    (SocketType::Req, SocketType::Router),
    (SocketType::Dealer, SocketType::Rep),
    (SocketType::Dealer, SocketType::Router),
    (SocketType::Dealer, SocketType::Dealer),
    (SocketType::Pub, SocketType::Sub),
    (SocketType::Pub, SocketType::XSub),
    (SocketType::XPub, SocketType::Sub),
    (SocketType::XPub, SocketType::XSub),
    (SocketType::Push, SocketType::Pull),
    (SocketType::Pair, SocketType::Pair),
    (SocketType::Router, SocketType::Router),
];

/// Sockets of all types exchange messages by all mechanisms over all transports, whichever of the two binds.
///
/// Rules: MQ-001, MQ-521, MQ-522.
#[test]
fn all_types_mechanisms_and_transports_work_together() {
    let abstract_name = format!("ipc://@tidegate-duties-{}", std::process::id());
    for transport in ["tcp://127.0.0.1:*", "ipc://*", abstract_name.as_str(), "inproc://all"] {
        for (server, client) in mechanisms() {
            for (first, second) in PAIRS {
                for first_binds in [true, false] {
                    let context = Context::new();
                    let handler = Rep::with_options(&context, options()).unwrap();
                    handler.bind_blocking("inproc://zeromq.zap.01").unwrap();
                    let admitting = std::thread::spawn(move || {
                        while let Ok(request) = handler.recv_blocking() {
                            let id = request.parts()[1].clone();
                            let reply = ["1.0".into(), id, "200".into(), "OK".into(), "".into(), "".into()];
                            if handler
                                .send_blocking(reply.into_iter().collect::<tidegate_mq::Message>())
                                .is_err()
                            {
                                break;
                            }
                        }
                    });
                    let socket = |kind, binds: bool, name: &'static str| {
                        let mut options = options();
                        options.mechanism = if binds { server.clone() } else { client.clone() };
                        options.routing_id = Some(tidegate_mq::options::RoutingId::new(name).unwrap());
                        AnySocket::of_type_with(&context, kind, options).unwrap()
                    };
                    let one = socket(first, first_binds, "one");
                    let two = socket(second, !first_binds, "two");
                    let (binding, connecting) = if first_binds { (&one, &two) } else { (&two, &one) };
                    let monitors = [binding.monitor(), connecting.monitor()];
                    let endpoint = binding.bind_blocking(transport).unwrap();
                    connecting.connect(&endpoint).unwrap();
                    if !endpoint.starts_with("inproc") {
                        monitors.iter().for_each(established);
                    }
                    exchange(&one, &two);
                    context.term_blocking();
                    admitting.join().unwrap();
                }
            }
        }
    }
}

fn exchange(one: &AnySocket, two: &AnySocket) {
    let (first, second) = (one.socket_type(), two.socket_type());
    // What the sender has to put ahead of the message, and what the receiver sees ahead of it.
    let ahead: &[&str] = match (first, second) {
        (SocketType::Router, _) => &["two"],
        (SocketType::Dealer, SocketType::Rep) => &[""],
        _ => &[],
    };
    let seen: &[&str] = match (first, second) {
        (SocketType::Req, SocketType::Router) => &["one", ""],
        (_, SocketType::Router) => &["one"],
        _ => &[],
    };
    if matches!(second, SocketType::Sub | SocketType::XSub) {
        two.subscribe("quest").unwrap();
        until("a publication", || {
            one.send_blocking("question").unwrap();
            two.try_recv().is_ok_and(|got| got == message(&[], "question"))
        });
        return;
    }
    one.send_blocking(message(ahead, "question")).unwrap();
    assert_eq!(two.recv_blocking().unwrap(), message(seen, "question"), "{first:?} {second:?}");
    if second == SocketType::Pull {
        return;
    }
    two.send_blocking(message(seen, "answer")).unwrap();
    let answered: &[&str] = match (first, second) {
        (SocketType::Router, _) => &["two"],
        (SocketType::Dealer, SocketType::Rep) => &[""],
        _ => &[],
    };
    assert_eq!(one.recv_blocking().unwrap(), message(answered, "answer"), "{first:?} {second:?}");
}

fn message(ahead: &[&str], body: &str) -> tidegate_mq::Message {
    ahead.iter().chain([&body]).copied().collect()
}
