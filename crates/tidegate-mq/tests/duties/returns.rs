//! Connections that come back.

use std::time::Duration;

use tidegate_mq::{AnySocket, Context, Message, SocketType, options::RoutingId};

use super::{
    peer::PATIENCE,
    rig::{self, DRIVERS, disconnected, established, event, options_with, until},
};

fn bound(context: &Context, kind: SocketType, endpoint: &str, name: &'static str) -> (AnySocket, String) {
    let named = options_with(|options| options.routing_id = Some(RoutingId::new(name).unwrap()));
    let socket = AnySocket::of_type_with(context, kind, named).unwrap();
    let endpoint = socket.bind_blocking(endpoint).unwrap();
    (socket, endpoint)
}

fn texts(message: &Message) -> Vec<String> {
    message.parts().iter().map(|part| String::from_utf8(part.to_vec()).unwrap()).collect()
}

/// Whoever connected goes on with the peer's successor, over either transport: what was sent meanwhile arrives, topics are
/// asked for again, a ROUTER knows the new peer by its new name, and a publisher has forgotten what the old one asked for.
///
/// Rules: MQ-284.
#[test]
fn everybody_goes_on_with_the_successor() {
    use SocketType::{Dealer, Pair, Pub, Pull, Push, Rep, Req, Router, Sub, XPub, XSub};
    let directory = tempfile::tempdir().unwrap();
    let path = format!("ipc://{}/socket", directory.path().display());
    for (driver, transport) in
        DRIVERS.into_iter().flat_map(|driver| [(driver, "tcp://127.0.0.1:*"), (driver, path.as_str())])
    {
        for (kind, peers) in [
            (Push, Pull),
            (Dealer, Dealer),
            (Pair, Pair),
            (Req, Rep),
            (Router, Dealer),
            (Sub, Pub),
            (XSub, XPub),
            (Pub, Sub),
            (XPub, XSub),
        ] {
            let context = rig::context(driver);
            let quick = options_with(|options| options.reconnect_ivl = Some(Duration::from_millis(1)));
            let socket = AnySocket::of_type_with(&context, kind, quick).unwrap();
            if matches!(kind, Sub | XSub) {
                socket.subscribe("topic").unwrap();
            }
            let monitor = socket.monitor();
            let (first, endpoint) = bound(&context, peers, transport, "first");
            if matches!(peers, Sub | XSub) {
                first.subscribe("topic").unwrap();
            }
            socket.connect(&endpoint).unwrap();
            established(&monitor);
            if matches!(kind, Pub | XPub) {
                until("a publication", || {
                    socket.send_blocking("topic").unwrap();
                    first.try_recv().is_ok()
                });
            }
            // Not dropped in the background: the place is to be free.
            tidegate_io::wait::block_on(first.close(Some(Duration::ZERO)), None).unwrap();
            event(&monitor, "end", disconnected);

            if matches!(kind, Push | Dealer | Pair | Req) {
                socket.send_blocking("meanwhile").unwrap();
            }
            let (second, _) = bound(&context, peers, &endpoint, "second");
            match kind {
                Push | Dealer | Pair => assert_eq!(texts(&second.recv_blocking().unwrap()), ["meanwhile"]),
                Req => {
                    assert_eq!(texts(&second.recv_blocking().unwrap()), ["meanwhile"]);
                    second.send_blocking("answer").unwrap();
                    assert_eq!(texts(&socket.recv_blocking().unwrap()), ["answer"]);
                }
                Router => {
                    second.send_blocking("hello").unwrap();
                    assert_eq!(texts(&socket.recv_blocking().unwrap()), ["second", "hello"]);
                    socket.send_blocking(["second", "answer"].into_iter().collect::<Message>()).unwrap();
                    assert_eq!(texts(&second.recv_blocking().unwrap()), ["answer"]);
                }
                Sub | XSub => {
                    until("a publication", || {
                        second.send_blocking("topic").unwrap();
                        socket.try_recv().is_ok()
                    });
                }
                _ => {
                    second.subscribe("other").unwrap();
                    until("a publication", || {
                        socket.send_blocking("topic").unwrap();
                        socket.send_blocking("other").unwrap();
                        match second.try_recv() {
                            Ok(got) => {
                                assert_eq!(texts(&got), ["other"], "what the old one asked for");
                                true
                            }
                            Err(_) => false,
                        }
                    });
                }
            }
            assert!(
                tidegate_io::wait::block_on(
                    context.shutdown(),
                    std::time::Instant::now().checked_add(PATIENCE)
                )
                .is_some()
            );
        }
    }
}
