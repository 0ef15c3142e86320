//! Clients that mean harm: what they get is bounded, typed and counted, and others do not notice.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    thread,
    time::{Duration, Instant},
};

use tidegate_hub::broker::wire::frames;
use tidegate_mq::{Context, Dealer, Options, options::RoutingId};
use tidegate_shm::sync::{AtomicBool, Ordering};

use crate::support::*;

/// Garbage of every form gets an answer or none, and the connection goes on.
///
/// Rules: DH-186, M-07.
#[test]
fn garbage_does_not_end_the_connection() {
    let dir = private_dir();
    let broker = start(config(dir.path()));
    let context = Context::new();
    let mut options = Options::default();
    options.routing_id = Some(RoutingId::new("g").unwrap());
    options.rcvtimeo = Some(SOON);
    let dealer = Dealer::with_options(&context, options).unwrap();
    dealer.connect(broker.endpoint()).unwrap();
    let exchange = |body: Vec<u8>| {
        dealer.send_blocking(frames(body)).unwrap();
        let reply = dealer.recv_blocking().unwrap();
        serde_json::from_slice::<serde_json::Value>(&reply.parts()[1]).unwrap()["code"].clone()
    };
    dealer.send_blocking("no magic").unwrap();
    let head = r#""proto":1,"msg_id":"1","client_id":"g","ts_ms":1"#;
    assert_eq!(exchange(vec![b' '; 65 << 10]), "LIMIT");
    assert_eq!(exchange(vec![0xff; 100]), "BAD_REQUEST");
    assert_eq!(exchange(br#"{"type":"PING""#.to_vec()), "BAD_REQUEST");
    assert_eq!(
        exchange(
            format!(r#"{{"type":"PING",{head},"x":{}{}}}"#, "[".repeat(16), "]".repeat(16)).into_bytes()
        ),
        "BAD_REQUEST"
    );
    assert_eq!(exchange(format!(r#"{{"type":"NEW",{head}}}"#).into_bytes()), "UNKNOWN_TYPE");
    assert_eq!(
        exchange(format!(r#"{{"type":"DISC_REQ",{head},"channel_name":"A"}}"#).into_bytes()),
        "NAME_INVALID"
    );
    let ping = format!(r#"{{"type":"PING",{head},"x":{}{}}}"#, "[".repeat(15), "]".repeat(15));
    assert!(exchange(ping.into_bytes()).is_null(), "depth 16 is allowed");
    assert_eq!(broker.metrics().registry.dropped, 1);
}

/// The same client, without waiting for replies.
fn dealer(context: &Context, endpoint: &str, client: &str) -> Dealer {
    let mut options = Options::default();
    options.routing_id = Some(RoutingId::new(client.as_bytes().to_vec()).unwrap());
    options.rcvtimeo = Some(SOON);
    // It takes in one reply and no more.
    (options.rcvhwm, options.sndhwm, options.linger) = (1, 10_000, Some(Duration::ZERO));
    let dealer = Dealer::with_options(context, options).unwrap();
    dealer.connect(endpoint).unwrap();
    dealer
}

/// Connections that say nothing, or stop in the middle of the greeting, keep nobody else out.
///
/// Rules: DH-195.
#[test]
fn half_open_connections_keep_nobody_out() {
    let dir = private_dir();
    let broker = start(config(dir.path()));
    let path = broker.endpoint().strip_prefix("ipc://").unwrap();
    let greeting = [0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3];
    let half_open: Vec<UnixStream> = (0..200_usize)
        .map(|at| {
            let mut stream = UnixStream::connect(path).unwrap();
            stream.write_all(&greeting[..at % greeting.len()]).unwrap();
            stream
        })
        .collect();
    hub(broker.endpoint(), "honest").ping(4 * SOON).unwrap();
    // Who has not said who he is is no client. The numbers are told after the reply.
    until("one client", || broker.metrics().registry.clients == 1);
    // The broker lets go of them.
    let mut first = &half_open[0];
    first.set_read_timeout(Some(6 * SOON)).unwrap();
    let mut rest = Vec::new();
    first.read_to_end(&mut rest).expect("closed by the broker");
}

/// Clients that send faster than they are answered keep a broker from nothing, and not from ending either.
///
/// Rules: DH-186, DH-195.
#[test]
fn a_flood_does_not_keep_a_broker_running() {
    let dir = private_dir();
    let broker = start(config(dir.path()));
    let endpoint = broker.endpoint().to_owned();
    let context = Context::new();
    // Longer to read than to send.
    let body = format!(r#"{{"type":"PING","x":[{}0]}}"#, "{},".repeat(300)).into_bytes();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for at in 0..2 {
            let (context, body, endpoint, is_over) = (&context, &body, &endpoint, &is_over);
            scope.spawn(move || {
                let dealers: Vec<_> =
                    (0..4).map(|of| dealer(context, endpoint, &format!("flood-{at}-{of}"))).collect();
                let message = frames(body.clone());
                while !is_over.load(Ordering::Relaxed) {
                    let taken = dealers.iter().filter(|dealer| dealer.try_send(message.clone()).is_ok());
                    if taken.count() == 0 {
                        thread::yield_now();
                    }
                }
            });
        }
        until("a flood", || broker.metrics().registry.refused_malformed > 1_000);
        let stopping = thread::spawn(move || broker.stop());
        let deadline = Instant::now() + 6 * SOON;
        while !stopping.is_finished() && Instant::now() < deadline {
            thread::park_timeout(Duration::from_millis(5));
        }
        is_over.store(true, Ordering::Relaxed);
        assert!(Instant::now() < deadline, "the broker goes on for as long as it is asked");
        stopping.join().unwrap().unwrap();
    });
}

/// Clients that ask for long lists and read no reply, send large garbage, and register without end: the broker's memory
/// stays small, what was refused is counted, and an honest client gets its answer.
///
/// Rules: DH-186, DH-195, M-07.
#[test]
fn a_flood_takes_little_memory_and_no_service() {
    const TEST: &str = "attacks::a_flood_takes_little_memory_and_no_service";
    if let Some((_, place)) = role() {
        play_broker(&place);
    }
    let (_dir, place) = place();
    let broker = Actor::start(TEST, "broker", &place);
    let honest = place.hub("honest");
    until("a broker", || honest.ping(SOON).is_ok());
    let memory = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", broker.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    };
    let before = memory();
    let context = Context::new();
    let huge = format!(r#"{{"type":"PING","x":"{}"}}"#, "\\u0001".repeat(10_000)).into_bytes();
    for at in 0..40 {
        let client = format!("flood-{at}");
        let dealer = dealer(&context, &place.endpoint(), &client);
        let head = format!(r#""proto":1,"client_id":"{client}","ts_ms":1"#);
        for round in 0..150 {
            let list = format!(r#"{{"type":"LIST_REQ","msg_id":"l{round}",{head}}}"#);
            // What the transport does not take is not sent; the flood is large enough.
            let _ = dealer.try_send(frames(list.into_bytes()));
            let _ = dealer.try_send(frames(huge.clone()));
            let _ = dealer.try_send(frames(vec![0xff; 60_000]));
        }
        if at % 10 == 0 {
            honest.ping(4 * SOON).unwrap();
        }
    }
    honest.ping(4 * SOON).unwrap();
    let counters = honest.broker_counters(SOON).unwrap();
    assert!(counters.refused_malformed > 0, "{counters:?}");
    assert_eq!(counters.channels, 0);
    let grown = memory().saturating_sub(before);
    assert!(grown < 128, "{grown} MiB more");
}
