//! Sockets with several endpoints and peers.

use tidegate_mq::{AnySocket, Context, Message, SocketType};

use super::rig::{options, options_with, until};

/// A socket that is bound twice and connected twice, over all transports, and the four peers it has by that.
fn with_four_peers(context: &Context, kind: SocketType, peers: SocketType) -> (AnySocket, [AnySocket; 4]) {
    let socket = |kind| AnySocket::of_type_with(context, kind, options()).unwrap();
    let peer = |number: usize| {
        let name = ["one", "two", "three", "four"][number];
        let named = options_with(|options| {
            options.routing_id = Some(tidegate_mq::options::RoutingId::new(name).unwrap());
        });
        let peer = AnySocket::of_type_with(context, peers, named).unwrap();
        if matches!(peers, SocketType::Sub | SocketType::XSub) {
            peer.subscribe("").unwrap();
        }
        peer
    };
    let socket = socket(kind);
    if matches!(kind, SocketType::Sub | SocketType::XSub) {
        socket.subscribe("").unwrap();
    }
    let four = [0, 1, 2, 3].map(peer);
    for (number, place) in ["tcp://127.0.0.1:*", "inproc://mine"].into_iter().enumerate() {
        four[number].connect(&socket.bind_blocking(place).unwrap()).unwrap();
    }
    for (number, place) in ["ipc://*", "tcp://127.0.0.1:*"].into_iter().enumerate() {
        socket.connect(&four[2 + number].bind_blocking(place).unwrap()).unwrap();
    }
    let up = |socket: &AnySocket| socket.peers().iter().filter(|peer| peer.is_connected()).count();
    until("all peers", || up(&socket) == 4 && four.iter().all(|peer| up(peer) == 1));
    (socket, four)
}

fn body(message: &Message) -> String {
    String::from_utf8(message.parts().last().unwrap().to_vec()).unwrap()
}

/// A socket of any type, but a PAIR, has any number of peers by any mix of binds and connects.
///
/// Rules: MQ-074.
#[test]
fn binds_and_connects_may_be_mixed() {
    use SocketType::{Dealer, Pub, Pull, Push, Rep, Req, Router, Sub, XPub, XSub};
    for (kind, peers) in [
        (Push, Pull),
        (Dealer, Dealer),
        (Req, Rep),
        (Pull, Push),
        (Dealer, Rep),
        (Rep, Req),
        (Router, Dealer),
        (Pub, Sub),
        (XPub, XSub),
        (Sub, Pub),
        (XSub, XPub),
    ] {
        let context = Context::new();
        let (socket, four) = with_four_peers(&context, kind, peers);
        match (kind, peers) {
            // To one after the other.
            (Push, _) | (Dealer, Dealer) => {
                for _ in &four {
                    socket.send_blocking("turn").unwrap();
                }
                for peer in &four {
                    assert_eq!(body(&peer.recv_blocking().unwrap()), "turn", "{kind:?}");
                }
            }
            (Req, _) => {
                let mut asked = [0; 4];
                for _ in 0..8 {
                    socket.send_blocking("question").unwrap();
                    let mut who = None;
                    until("the question", || {
                        who = four.iter().position(|peer| peer.try_recv().is_ok());
                        who.is_some()
                    });
                    let who = who.unwrap();
                    asked[who] += 1;
                    four[who].send_blocking("answer").unwrap();
                    assert_eq!(body(&socket.recv_blocking().unwrap()), "answer");
                }
                assert_eq!(asked, [2; 4]);
            }
            (Dealer, _) => {
                for _ in &four {
                    socket.send_blocking(["", "question"].into_iter().collect::<Message>()).unwrap();
                }
                for peer in &four {
                    assert_eq!(body(&peer.recv_blocking().unwrap()), "question");
                    peer.send_blocking("answer").unwrap();
                    assert_eq!(body(&socket.recv_blocking().unwrap()), "answer");
                }
            }
            (Rep, _) => {
                for peer in &four {
                    peer.send_blocking("question").unwrap();
                }
                for _ in &four {
                    socket.recv_blocking().unwrap();
                    socket.send_blocking("answer").unwrap();
                }
                for peer in &four {
                    assert_eq!(body(&peer.recv_blocking().unwrap()), "answer");
                }
            }
            (Router, _) => {
                for (peer, name) in four.iter().zip(["one", "two", "three", "four"]) {
                    socket.send_blocking([name, name].into_iter().collect::<Message>()).unwrap();
                    assert_eq!(body(&peer.recv_blocking().unwrap()), name);
                }
            }
            // To all.
            (Pub | XPub, _) => {
                for (number, peer) in four.iter().enumerate() {
                    until("a publication", || {
                        socket.send_blocking("all").unwrap();
                        peer.try_recv().is_ok()
                    });
                    assert!(number < 4);
                }
            }
            // From all.
            _ => {
                let mut heard = std::collections::BTreeSet::new();
                until("all of them", || {
                    for (peer, name) in four.iter().zip(["one", "two", "three", "four"]) {
                        peer.send_blocking(name).unwrap();
                    }
                    while let Ok(message) = socket.try_recv() {
                        heard.insert(body(&message));
                    }
                    heard.len() == 4
                });
            }
        }
        context.term_blocking();
    }
}
