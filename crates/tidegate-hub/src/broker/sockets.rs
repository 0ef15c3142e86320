//! The two sockets of a broker: where they may be, who may connect, and how much a peer can hold (DH-185, DH-208, DH-210).

use std::{
    net::IpAddr,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tidegate_mq::{
    Context, Error, Options, Pub, PublicKey, Router, SocketType,
    auth::{Credentials, Decision, Peer},
    options::{CurveOptions, CurvePolicy, Mechanism},
};

use super::{
    error::BrokerError,
    place::{LONGEST_SOCKET_PATH, check_private_dir},
    service::{AllowedClient, BrokerConfig},
};

/// Largest frame that is read at all. What is larger than a request may be gets an answer up to here (DH-186).
const LARGEST_FRAME: u64 = 256 << 10;

/// Most connections to each of the two sockets.
const MOST_CONNECTIONS: u32 = 4096;

pub(super) fn bind_router(context: &Context, config: &BrokerConfig) -> Result<(Router, String), BrokerError> {
    let mut options = context.default_options(SocketType::Router);
    options.maxmsgsize = Some(LARGEST_FRAME);
    options.max_message_bytes = LARGEST_FRAME;
    options.max_message_parts = 16;
    options.rcvhwm_bytes = 1 << 20;
    options.sndhwm_bytes = 256 << 10;
    bound_peers(&mut options, &config.endpoint);
    // A client that connects again must not be kept out by its old connection.
    options.router_handover = true;
    options.mechanism = mechanism(config);
    let failed = |source| BrokerError::Transport { endpoint: config.endpoint.clone(), source };
    let router = Router::with_options(context, options).map_err(failed)?;
    let endpoint = bind(|| router.bind_blocking(&config.endpoint)).map_err(failed)?;
    Ok((router, endpoint))
}

pub(super) fn bind_events(context: &Context, config: &BrokerConfig) -> Result<(Pub, String), BrokerError> {
    let mut options = context.default_options(SocketType::Pub);
    options.maxmsgsize = Some(LARGEST_FRAME);
    options.sndhwm = 256;
    options.sndhwm_bytes = 1 << 20;
    options.max_subscriptions = 1024;
    options.max_subscription_bytes = 256 << 10;
    bound_peers(&mut options, &config.events_endpoint);
    options.mechanism = mechanism(config);
    let failed = |source: Error| BrokerError::Transport { endpoint: config.events_endpoint.clone(), source };
    let events = Pub::with_options(context, options).map_err(failed)?;
    let endpoint = bind(|| events.bind_blocking(&config.events_endpoint)).map_err(failed)?;
    Ok((events, endpoint))
}

/// For how long a place that is taken is asked for again.
const TAKEN: Duration = Duration::from_secs(3);

/// Binds, also where a broker was killed a moment ago: the kernel closes the sockets of io_uring after the process is gone.
fn bind(mut attempt: impl FnMut() -> Result<String, Error>) -> Result<String, Error> {
    let end = Instant::now() + TAKEN;
    loop {
        match attempt() {
            Err(Error::AddressInUse(_)) if Instant::now() < end => thread::sleep(Duration::from_millis(20)),
            bound => return bound,
        }
    }
}

/// Bounds what strangers can hold open: who does not finish a handshake goes, and who comes when all places are taken.
fn bound_peers(options: &mut Options, endpoint: &str) {
    options.handshake_ivl = Some(Duration::from_secs(5));
    options.max_connections = Some(MOST_CONNECTIONS);
    // On one host the kernel tells when a peer is gone; elsewhere one may vanish without a word.
    options.heartbeat_ivl = endpoint.starts_with("tcp:").then_some(Duration::from_secs(30));
}

fn mechanism(config: &BrokerConfig) -> Mechanism {
    let Some(curve) = &config.curve else {
        return Mechanism::Null;
    };
    let clients = curve.clients.clone();
    let admit = move |peer: Peer| match peer.credentials {
        // The key is the user id, so that every message says whose it is.
        Credentials::Curve(bytes) if is_admitted(&clients, &bytes, &peer.routing_id) => {
            Decision::Admit { user_id: PublicKey::from_bytes(bytes).to_z85() }
        }
        _ => Decision::Refuse,
    };
    let secret_key = curve.secret_key.clone();
    Mechanism::Curve(CurveOptions::Server { secret_key, policy: CurvePolicy::Ask(Arc::new(admit)) })
}

/// Whether the key is on the list, and the routing id is not kept for another key: whoever connects under the id of
/// somebody else would get the replies to requests of that one.
fn is_admitted(clients: &[AllowedClient], key: &[u8; 32], routing_id: &[u8]) -> bool {
    let has_key = |client: &&AllowedClient| client.key.as_bytes() == key;
    let is_pinned = |client: &&AllowedClient| {
        client.client_id.as_ref().is_some_and(|id| id.as_str().as_bytes() == routing_id)
    };
    clients.iter().any(|client| has_key(&client))
        && clients.iter().filter(is_pinned).all(|client| has_key(&client))
}

/// Whether nobody reaches `endpoint` who should not (DH-185, DH-210, DH-211).
pub(super) fn check_endpoint(endpoint: &str, has_curve: bool, insecure_tcp: bool) -> Result<(), BrokerError> {
    let refuse = |problem| Err(BrokerError::Endpoint { endpoint: endpoint.to_owned(), problem });
    if let Some(path) = endpoint.strip_prefix("ipc://") {
        if path.len() > LONGEST_SOCKET_PATH {
            return refuse("the socket path is longer than 107 bytes; choose a shorter directory");
        }
        if !path.starts_with('/') {
            return refuse("the socket path must be absolute");
        }
        return match Path::new(path).parent() {
            Some(dir) if !has_curve => check_private_dir(dir),
            _ => Ok(()),
        };
    }
    let Some(address) = endpoint.strip_prefix("tcp://") else {
        return refuse("a broker listens on ipc:// or tcp://");
    };
    if has_curve {
        return Ok(());
    }
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
    if !host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()) {
        return refuse("TCP beyond loopback needs CURVE; give the broker a key and a list of clients");
    }
    if !insecure_tcp {
        return refuse("TCP without CURVE needs the explicit permission insecure_tcp");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rules: DH-185, DH-210, DH-211.
    #[test]
    fn only_private_endpoints_do_without_curve() {
        let refused = |endpoint: &str, insecure| check_endpoint(endpoint, false, insecure).is_err();
        assert!(refused("tcp://0.0.0.0:5555", true));
        assert!(refused("tcp://*:5555", true));
        assert!(refused("tcp://192.0.2.1:5555", true));
        assert!(refused("tcp://127.0.0.1:5555", false));
        assert!(!refused("tcp://127.0.0.1:5555", true));
        assert!(!refused("tcp://[::1]:5555", true));
        assert!(refused("inproc://broker", true));
        assert!(refused("ipc:///tmp/broker.sock", true), "others may enter /tmp");
        assert!(refused(&format!("ipc:///{}", "x".repeat(107)), true));
        assert!(check_endpoint("tcp://0.0.0.0:5555", true, false).is_ok());
    }
}
