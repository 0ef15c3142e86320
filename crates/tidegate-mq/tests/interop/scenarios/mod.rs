//! What the matrix does not show (MQ-508).

mod auth;
mod bulk;
mod handshake;
mod heartbeat;
mod names;
mod proxies;

use tidegate_mq::{Driver, Options, SocketType};

use crate::{
    cell::{Transport, place},
    ours::{self, Ours, wait_up},
    peer::Peer,
};
use tidegate_mq::{Context, monitor::Monitor};

const DRIVERS: [Driver; 2] = [Driver::IoUring, Driver::Polling];
const NEWEST: &str = "4.3.5";

/// A socket of ours and one of theirs, which is `s` in their context `c`, both up.
struct Pairing {
    peer: Peer,
    context: Context,
    ours: Box<dyn Ours>,
    monitor: Monitor,
    endpoint: String,
}

/// Theirs binds, ours connects.
fn they_bind(
    mut peer: Peer,
    driver: Driver,
    (kind, options): (SocketType, Options),
    (their_kind, their_options): (SocketType, &str),
) -> Pairing {
    peer.ask(format!("open s c {} {their_options}", their_kind.name()));
    let endpoint = peer.ask(format!("bind s {}", place(Transport::Tcp).0));
    let context = ours::context(driver);
    let ours = ours::open(&context, kind, options);
    let monitor = ours.watch();
    ours.dial(&endpoint).unwrap();
    wait_up(&monitor);
    peer.wait_up("s");
    Pairing { peer, context, ours, monitor, endpoint }
}

/// Ours binds, theirs connects.
fn we_bind(
    mut peer: Peer,
    driver: Driver,
    (kind, options): (SocketType, Options),
    (their_kind, their_options): (SocketType, &str),
) -> Pairing {
    let context = ours::context(driver);
    let ours = ours::open(&context, kind, options);
    let monitor = ours.watch();
    let endpoint = ours.listen(&place(Transport::Tcp).0).unwrap();
    peer.ask(format!("open s c {} {their_options}", their_kind.name()));
    peer.ask(format!("connect s {endpoint}"));
    wait_up(&monitor);
    peer.wait_up("s");
    Pairing { peer, context, ours, monitor, endpoint }
}
