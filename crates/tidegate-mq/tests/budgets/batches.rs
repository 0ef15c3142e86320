//! Batches are made of whatever waits for a peer: by every type, for each subscriber, of commands, and in CURVE.
//!
//! The receivers hold back until everything is queued; system calls of the sender are counted as in
//! [`system_calls`](super::system_calls).

use tidegate_mq::{
    AnySocket, Context, ContextOptions, Message, Options, Part, Pub, SecretKey, SocketType, XPub,
    options::{CurveOptions, CurvePolicy, Mechanism, RoutingId},
};

use super::{
    child,
    rig::{ANYWHERE, PATIENCE, options_with},
    system_calls::{calls, total, traced},
};

const COUNT: usize = 20_000;
/// System calls for the messages of one peer. Written one by one they would take as many as there are messages.
const MOST: u64 = 4000;
/// What a process takes without them.
const PROCESS: u64 = 1000;

/// Who sends what to whom.
struct Case {
    name: &'static str,
    sender: SocketType,
    receiver: SocketType,
    peers: usize,
    is_curve: bool,
}

const CASES: [Case; 6] = [
    Case::of("pub", SocketType::Pub, SocketType::Sub, 3),
    Case::of("xpub", SocketType::XPub, SocketType::Sub, 1),
    Case::of("dealer", SocketType::Dealer, SocketType::Router, 1),
    Case::of("router", SocketType::Router, SocketType::Dealer, 1),
    // The subscriptions are commands, which are sent when the peer is there.
    Case::of("sub", SocketType::Sub, SocketType::XPub, 1),
    Case { is_curve: true, ..Case::of("curve", SocketType::Push, SocketType::Pull, 1) },
];

impl Case {
    const fn of(name: &'static str, sender: SocketType, receiver: SocketType, peers: usize) -> Self {
        Self { name, sender, receiver, peers, is_curve: false }
    }

    /// Small buffers, so that little is under way, and no limit for what is sent.
    fn options(&self, mechanism: CurveOptions) -> Options {
        options_with(|options| {
            options.sndhwm = 0;
            options.rcvhwm = 1;
            (options.sndbuf, options.rcvbuf) = (Some(4096), Some(4096));
            options.linger = None;
            if self.is_curve {
                options.mechanism = Mechanism::Curve(mechanism);
            }
        })
    }

    /// The counted process.
    fn send(&self) {
        let context = Context::with_options(ContextOptions::default());
        let server = CurveOptions::Server { secret_key: key(1), policy: CurvePolicy::AnyKey };
        let options = self.options(server);
        let publisher = Pub::with_options(&context, options.clone()).unwrap();
        let xpub = XPub::with_options(&context, options.clone()).unwrap();
        let socket = match self.sender {
            SocketType::Pub => publisher.clone().into_any(),
            SocketType::XPub => xpub.clone().into_any(),
            kind => AnySocket::of_type_with(&context, kind, options).unwrap(),
        };
        let monitor = socket.monitor();
        child::say(&format!("bound {}", socket.bind_blocking(ANYWHERE).unwrap()));
        if self.sender == SocketType::Sub {
            (0..COUNT).for_each(|number| socket.subscribe(number.to_le_bytes()).unwrap());
        } else {
            child::hear();
            (0..self.peers).for_each(|_| super::rig::established(&monitor));
            match self.sender {
                SocketType::Pub => {
                    publisher.wait_for_subscribers_blocking(b"", self.peers, PATIENCE).unwrap()
                }
                SocketType::XPub => xpub.wait_for_subscribers_blocking(b"", self.peers, PATIENCE).unwrap(),
                _ => {}
            }
            for _ in 0..COUNT {
                let to = (self.sender == SocketType::Router).then(|| Part::from("peer"));
                let message: Message = to.into_iter().chain([Part::from(&[7; 20])]).collect();
                socket.send_blocking(message).unwrap();
            }
        }
        child::say("sent");
        child::hear();
    }

    fn run(&self, name: &str, driver: &str) {
        let place = tempfile::tempdir().unwrap();
        let summary = place.path().join("summary");
        let mut sender = traced(name, self.name, driver, &summary);
        let endpoint = sender.wait_for("bound");
        let context = Context::new();
        let connect = || {
            let client = CurveOptions::Client { server_key: key(1).public_key(), secret_key: key(2) };
            let mut options = self.options(client);
            options.routing_id = Some(RoutingId::new("peer").unwrap());
            let socket = AnySocket::of_type_with(&context, self.receiver, options).unwrap();
            if self.receiver == SocketType::Sub {
                socket.subscribe("").unwrap();
            }
            socket.connect(&endpoint).unwrap();
            socket
        };
        let receivers: Vec<_> = if self.sender == SocketType::Sub {
            sender.wait_for("sent");
            vec![connect()]
        } else {
            let receivers = (0..self.peers).map(|_| connect()).collect();
            sender.tell("go");
            sender.wait_for("sent");
            receivers
        };
        for receiver in &receivers {
            (0..COUNT).for_each(|_| drop(receiver.recv_blocking().unwrap()));
        }
        sender.finish();
        let calls = calls(&summary);
        println!("measured {driver} {}: {} system calls for {COUNT} messages", self.name, total(&calls));
        assert!(total(&calls) <= PROCESS + MOST * self.peers as u64, "{driver} {}: {calls:?}", self.name);
    }
}

fn key(number: u8) -> SecretKey {
    SecretKey::from_bytes([number; 32])
}

/// Rules: MQ-055.
#[test]
fn whatever_waits_for_a_peer_is_written_together() {
    const NAME: &str = "batches::whatever_waits_for_a_peer_is_written_together";
    if let Some(role) = child::role() {
        let case = CASES.iter().find(|case| case.name == role);
        return case.expect("a case").send();
    }
    for driver in ["io_uring", "polling"] {
        CASES.iter().for_each(|case| case.run(NAME, driver));
    }
}
