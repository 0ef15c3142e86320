//! Three servers with a copy of everything each: what one of them forgot costs nothing that was acknowledged.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use async_nats::jetstream::stream::{Config, Info};
use serde_json::{Value, json};
use tidegate_udf::wire::ids::{Generation, PartitionId, Position};
use tidegate_vertex::{
    nats::{
        NatsError,
        ids::{IdStream, Sent},
        kv::KvBucket,
        own::Bucket,
        strict::{StrictError, StrictStream},
    },
    sink::Session,
};

use crate::{
    server::{Server, messages, plain, strict, values},
    strict::{free, older_session, open, owner, session},
};

const WINDOW: Duration = Duration::from_secs(1);

/// Cases: CT-32, CT-33.
/// Rules: VX-857.
#[test]
fn a_cluster_keeps_the_promises_of_one_server() {
    let servers = Server::start_cluster();
    let server = &servers[0];
    older_session(server);
    server.remove("OUT");
    // A foreign record ends it here, too.
    server.create(strict("OUT"));
    let (mut stream, _) = owner(server, 1, None);
    stream.publish(Position(0), &messages(0..1, 1), free).unwrap();
    server.produce("OUT.0.data", ["foreign".to_owned()]);
    let refused = stream.publish(Position(1), &messages(1..51, 1), free).unwrap_err();
    assert!(matches!(refused, StrictError::ForeignWriter { sequence: 3, .. }), "{refused}");
    assert_eq!(server.values("OUT"), ["0", "foreign"]);
}

/// Three servers let two writers in that come at the same moment.
/// Rules: VX-710, VX-921.
#[test]
fn ownership_is_not_kept_in_a_replicated_bucket() {
    let servers = Server::start_cluster();
    let bucket = Config {
        name: "KV_tgvx_orders".to_owned(),
        subjects: vec!["$KV.tgvx_orders.>".to_owned()],
        deny_delete: true,
        deny_purge: true,
        ..Config::default()
    };
    servers[0].create(bucket);
    let refused = Bucket::open(servers[0].connect(), "orders").unwrap_err().to_string();
    assert!(refused.contains("num_replicas") && refused.contains('3'), "{refused}");
}

/// A server that was down for longer than the window of ids leads the stream after a step-down; nothing that was acknowledged
/// is missing, in any mode.
/// Cases: CT-34, CT-71.
/// Rules: VX-857.
#[test]
fn what_was_acknowledged_is_there_when_a_server_leads_that_has_forgotten_the_ids() {
    let mut servers = Server::start_cluster();
    for mode in ["strict", "ids", "guarded", "put"] {
        let (name, subject) = names(mode);
        let config = if mode == "strict" { strict(name) } else { plain(name, subject) };
        servers[0].create(Config { duplicate_window: WINDOW, ..config });
        let mut writer = Writer::start(&servers[0], mode);
        writer.publish(&servers, 0..20);
        // Whom the server lets lead is its choice, so every follower forgets.
        let led = leader(&servers[0], name);
        for follower in (0..3).filter(|index| *index != led) {
            servers[follower].stop();
            // The others forget, too, what is older than this.
            std::thread::sleep(WINDOW + Duration::from_millis(500));
            servers[follower].restart();
            wait_for(&servers[0], name, |info| {
                let cluster = info.cluster.as_ref().unwrap();
                cluster.replicas.len() == 2
                    && cluster.replicas.iter().all(|peer| peer.current && !peer.offline)
            });
        }
        assert_eq!(leader(&servers[0], name), led);
        writer.publish(&servers, 20..40);
        let nats = servers[0].connect();
        wait_for(&servers[0], name, |_| {
            let leads = leader(&servers[0], name) != led;
            if !leads {
                let step = format!("STREAM.LEADER.STEPDOWN.{name}");
                // Without a leader for the moment.
                let _ = nats.wait(nats.context().request::<_, _, Value>(step, &json!({}))).unwrap();
            }
            leads
        });
        assert_eq!(content(&servers[0], mode), values(0..40), "{mode}");
        writer.publish(&servers, 40..60);
        assert_eq!(content(&servers[0], mode), values(0..60), "{mode}");
        servers[0].remove(name);
    }
}

/// One session that goes on, on a new connection when it has to.
enum Writer {
    Strict(Box<StrictStream>),
    Ids,
    Kv { guarded: bool },
}

impl Writer {
    fn start(server: &Server, mode: &str) -> Self {
        match mode {
            "strict" => {
                let mut stream = open(server, session(1, 1)).unwrap();
                stream.barrier(free).unwrap();
                stream.read_back(None).unwrap();
                Self::Strict(Box::new(stream))
            }
            "ids" => Self::Ids,
            _ => Self::Kv { guarded: mode == "guarded" },
        }
    }

    /// Publishes until everything is acknowledged.
    fn publish(&mut self, servers: &[Server; 3], numbers: Range<u64>) {
        let give_up = Instant::now() + Duration::from_secs(60);
        let mut outputs = messages(numbers.clone(), 1);
        for output in &mut outputs {
            output.record.key = output.record.value.clone();
        }
        let session = Session { partition: PartitionId(0), generation: Generation(1), nonce: 1 };
        loop {
            assert!(Instant::now() < give_up, "not acknowledged");
            let nats = servers[0].connect();
            let sent = match self {
                Self::Strict(stream) => match stream.publish(Position(numbers.start), &outputs, free) {
                    Ok(_) => return,
                    Err(StrictError::Nats(NatsError::Call { .. })) => {
                        let _ = stream.reconnect(nats);
                        continue;
                    }
                    Err(error) => panic!("{error}"),
                },
                // Nobody answers while nobody leads.
                Self::Ids => {
                    let stream = IdStream::open(nats, "OUT", "OUT.0.data", WINDOW);
                    let Ok(mut stream) = stream else { continue };
                    stream.publish(&session, &outputs, free).unwrap()
                }
                Self::Kv { guarded } => {
                    let bucket = KvBucket::open(nats, "latest", *guarded, WINDOW);
                    let Ok(mut bucket) = bucket else { continue };
                    bucket.publish(&session, 7, &outputs, free).unwrap()
                }
            };
            match sent {
                Sent::All => return,
                Sent::Unknown(..) => {}
                Sent::Refused(..) => panic!("{sent:?}"),
            }
        }
    }
}

/// Stream and subjects of a mode.
fn names(mode: &str) -> (&'static str, &'static str) {
    match mode {
        "guarded" | "put" => ("KV_latest", "$KV.latest.>"),
        _ => ("OUT", "OUT.0.>"),
    }
}

/// The values without barriers; each once where what was in doubt may be there again.
fn content(server: &Server, mode: &str) -> Vec<String> {
    let mut values = server.values(names(mode).0);
    let mut seen = std::collections::BTreeSet::new();
    values.retain(|value| mode == "strict" || seen.insert(value.clone()));
    values
}

/// The number of the server that leads a stream.
fn leader(server: &Server, stream: &str) -> usize {
    let mut leader = None;
    wait_for(server, stream, |info| {
        let name = info.cluster.as_ref().and_then(|cluster| cluster.leader.clone());
        leader = name.and_then(|name| name.strip_prefix('n')?.parse().ok());
        leader.is_some()
    });
    leader.unwrap()
}

fn wait_for(server: &Server, stream: &str, mut done: impl FnMut(&Info) -> bool) {
    let give_up = Instant::now() + Duration::from_secs(60);
    let nats = server.connect();
    loop {
        // Nobody answers while nobody leads.
        if let Ok((_, info)) = nats.stream(stream)
            && done(&info)
        {
            return;
        }
        assert!(Instant::now() < give_up, "{stream} does not come to rest");
        std::thread::sleep(Duration::from_millis(50));
    }
}
