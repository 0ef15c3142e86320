//! The tables of chapter 13, row by row, against a host that says what the test wants.

use std::{cell::RefCell, collections::HashMap, time::Duration};

use super::*;
use crate::broker::{
    host::{BlockFacts, Inspection, Liveness},
    wire::{
        AttachAck, Base64, BlockUuid, ChannelId, ChecksumErrorReport, Deregister, Detach, Discover,
        DropReason, Fixed, HandoverCancel, HandoverNotify, HandoverPhase, Heartbeat, List, ProcessKey,
        Register, SchemaHash, SchemaMode, SchemaQuery, SchemaVersion, ShmName, U64,
    },
};

const DOMAIN: &str = "boot-1/pid:[4026531836]";
const WALL: u64 = 1_770_459_330_000;

/// A host with blocks and dead processes as the test sets them.
#[derive(Default)]
struct Host {
    dead: RefCell<Vec<u64>>,
    blocks: RefCell<HashMap<String, Inspection>>,
}

impl HostView for Host {
    fn domain(&self) -> &str {
        DOMAIN
    }

    fn liveness(&self, key: ProcessKey) -> Liveness {
        if self.dead.borrow().contains(&key.0) { Liveness::Dead } else { Liveness::Alive }
    }

    fn inspect(&self, name: &ShmName) -> Inspection {
        self.blocks.borrow().get(name.as_str()).cloned().unwrap_or(Inspection::Missing)
    }
}

/// A broker with a clock and counters for names.
struct Bench {
    machine: Machine,
    host: Host,
    now: Duration,
    count: u8,
}

/// A reply as a client reads it.
#[derive(Debug)]
struct Answered {
    reply: Reply,
    json: serde_json::Value,
    events: Vec<EventBody>,
}

impl Answered {
    fn outcome(&self) -> (Status, Option<Code>) {
        (self.reply.status, self.reply.code)
    }

    fn is_ok(&self) -> bool {
        self.reply.status == Status::Ok
    }

    fn channel_id(&self) -> ChannelId {
        ChannelId(u32::try_from(self.json["channel_id"].as_u64().unwrap()).unwrap())
    }

    fn message(&self) -> &str {
        self.reply.error_message.as_deref().unwrap_or_default()
    }
}

impl Bench {
    fn new(settings: Settings) -> Self {
        let machine = Machine::new(settings, Label::new("5c1d0000").unwrap());
        Self { machine, host: Host::default(), now: Duration::from_secs(1000), count: 0 }
    }

    fn now(&self) -> Now {
        Now { monotonic: self.now, wall_ms: WALL }
    }

    /// The envelope of a new request of `client`, with the proof for `verifier`.
    fn request(&mut self, client: &str, mut body: RequestBody, verifier: Option<&Verifier>) -> Request {
        self.count += 1;
        let nonce = Base64([self.count; 16]);
        let client_id = ClientId::new(client).unwrap();
        if let Some(verifier) = verifier {
            let (label, channel) = ProofLabel::of(&body).unwrap();
            let proof = Some(verifier.prove(label, channel, &client_id, nonce, WALL));
            match &mut body {
                RequestBody::Register(body) => body.secret_proof = proof,
                RequestBody::Discover(body) => body.secret_proof = proof,
                RequestBody::Deregister(body) => body.secret_proof = proof,
                RequestBody::HandoverNotify(body) => body.secret_proof = proof,
                RequestBody::HandoverCancel(body) => body.secret_proof = proof,
                other => panic!("{other:?} has no proof"),
            }
        }
        let msg_id = MsgId::new(format!("m-{}", self.count)).unwrap();
        Request { msg_id, client_id, ts_ms: WALL, nonce: Some(nonce), body }
    }

    fn send(&mut self, request: &Request) -> Answered {
        let client = request.client_id.to_string();
        let outputs = self.handle(&client, None, &request.encode());
        answered(outputs)
    }

    fn handle(&mut self, client: &str, key: Option<PublicKey>, body: &[u8]) -> Vec<Output> {
        let now = self.now();
        self.machine.handle(Origin { routing_id: client.as_bytes(), key }, body, now, &self.host)
    }

    fn ask(&mut self, client: &str, body: RequestBody, verifier: Option<&Verifier>) -> Answered {
        let request = self.request(client, body, verifier);
        self.send(&request)
    }

    /// Registers, with a block that fits.
    fn register(&mut self, client: &str, register: Register, verifier: Option<&Verifier>) -> Answered {
        self.build(&register);
        let register = with_verifier(register, verifier);
        self.ask(client, RequestBody::Register(Box::new(register)), verifier)
    }

    fn build(&self, register: &Register) {
        let facts = BlockFacts {
            block_uuid: register.block_uuid,
            channel_name: register.channel_name.clone(),
            schema_hash: register.schema_hash,
            is_ready: true,
        };
        self.host.blocks.borrow_mut().insert(register.shm_name.to_string(), Inspection::Found(facts));
    }

    fn discover(&mut self, client: &str, body: Discover, verifier: Option<&Verifier>) -> Answered {
        self.ask(client, RequestBody::Discover(body), verifier)
    }

    fn kill(&self, key: u64) {
        self.host.dead.borrow_mut().push(key);
    }

    fn tick(&mut self) -> Vec<Output> {
        let now = self.now();
        self.machine.tick(now, &self.host)
    }
}

fn answered(outputs: Vec<Output>) -> Answered {
    let mut found = None;
    let mut events = Vec::new();
    for output in outputs {
        match output {
            Output::Reply { body, .. } => {
                let reply = Reply::decode(&body).expect("a reply");
                found = Some((reply, serde_json::from_slice(&body).unwrap()));
            }
            Output::Publish { event, .. } => events.push(event.body),
        }
    }
    let (reply, json) = found.expect("there is a reply");
    Answered { reply, json, events }
}

fn name(text: &str) -> ChannelName {
    ChannelName::new(text).unwrap()
}

fn label(text: &str) -> Label {
    Label::new(text).unwrap()
}

fn verifier(secret: u8) -> Verifier {
    Verifier::derive(&[secret; 32], &name("sensor")).unwrap()
}

fn with_verifier(register: Register, verifier: Option<&Verifier>) -> Register {
    let Some(verifier) = verifier else { return register };
    Register {
        shared_secret_hash: Some(verifier.to_field()),
        key_id: Some(Fixed([7; 8])),
        key_epoch: Some(1),
        ..register
    }
}

/// A registration of channel `sensor` by process `owner` with block `block`.
fn sensor(owner: u64, block: u8) -> Register {
    Register {
        channel_name: name("sensor"),
        shm_name: ShmName::new(format!("tidegate_sensor_{block:08x}")).unwrap(),
        block_uuid: Fixed([block; 16]),
        policy: label("RingBuffer"),
        sync: label("AllReaders"),
        unit_block_size: 4096,
        ring_buffer_capacity: 8,
        schema_hash: Fixed([5; 32]),
        schema_version: SchemaVersion { major: 2, minor: 0 },
        schema_text: None,
        shared_secret_hash: None,
        secret_proof: None,
        key_id: None,
        key_epoch: None,
        producer_uid: label(&format!("PROD-{owner}")),
        producer_name: None,
        process_key: U64(owner),
        host_domain: label(DOMAIN),
        zmq_endpoint: None,
        zmq_pubkey: None,
        lease_ms: 0,
        first_slot_id: U64(0),
        predecessor_uuid: None,
        allow_sealed: false,
        sealed_secrets: BTreeMap::new(),
    }
}

fn find(text: &str) -> Discover {
    Discover {
        channel_name: name(text),
        schema_hash: None,
        schema_version: None,
        schema_mode: SchemaMode::Strict,
        secret_proof: None,
        want_sealed_secret: false,
    }
}

fn deregister(block: u8) -> RequestBody {
    RequestBody::Deregister(Deregister {
        channel_name: name("sensor"),
        block_uuid: Fixed([block; 16]),
        secret_proof: None,
    })
}

/// M-01.
///
/// Rules: DH-192.
#[test]
fn register_discover_deregister() {
    let mut bench = Bench::new(Settings::default());
    let secret = verifier(1);
    assert!(bench.register("p", sensor(1, 1), Some(&secret)).is_ok());
    let found = bench.discover("c", find("sensor"), Some(&secret));
    assert!(found.is_ok(), "{found:?}");
    assert_eq!(found.json["shm_name"], "tidegate_sensor_00000001");
    assert_eq!(found.json["first_slot_id"], "0");
    assert_eq!(found.json["producer_alive"], true);
    let request = bench.request("p", deregister(1), Some(&secret));
    let closed = bench.send(&request);
    assert!(closed.is_ok());
    assert!(matches!(closed.events[..], [EventBody::ChannelClosing { .. }]));
    let gone = bench.discover("c", find("sensor"), Some(&secret));
    assert_eq!(gone.outcome(), (Status::NotFound, Some(Code::UnknownChannel)));
}

/// M-02, M-04, M-05: every row of the table, each with the row before it made not to hold.
///
/// Rules: DH-179, DH-192.
#[test]
fn the_registration_table() {
    let (secret, other) = (verifier(1), verifier(2));
    let fresh = || {
        let mut bench = Bench::new(Settings::default());
        assert!(bench.register("p1", sensor(1, 1), Some(&secret)).is_ok());
        bench
    };
    let refused = |answer: &Answered, code: Code| assert_eq!(answer.outcome(), (code.status(), Some(code)));

    let mut bench = fresh();
    bench.build(&sensor(2, 2));
    let unproven = RequestBody::Register(Box::new(with_verifier(sensor(2, 2), Some(&secret))));
    let forged = bench.request("p2", unproven, Some(&other));
    refused(&bench.send(&forged), Code::BadProof);

    let mut bench = fresh();
    let again = bench.register("p1", sensor(1, 1), Some(&secret));
    assert!(again.is_ok());
    assert_eq!((again.channel_id(), bench.machine.counters().channels), (ChannelId(1), 1));
    refused(&bench.register("p1", sensor(1, 1), Some(&other)), Code::BadProof);
    let changed = Register { schema_hash: Fixed([6; 32]), ..sensor(1, 1) };
    refused(&bench.register("p1", changed, Some(&secret)), Code::SchemaConflict);

    let mut bench = fresh();
    let elsewhere = Register { channel_name: name("other"), ..sensor(1, 1) };
    refused(&bench.register("p1", elsewhere, None), Code::UuidReused);

    let mut bench = fresh();
    bench.kill(1);
    let replaced = bench.register("p2", sensor(2, 2), Some(&secret));
    assert!(replaced.is_ok());
    assert_eq!(replaced.json["replaced"], true);
    assert!(matches!(replaced.events[..], [EventBody::ChannelClosing { channel_id: ChannelId(1), .. }]));

    let mut bench = fresh();
    bench.kill(1);
    refused(&bench.register("p2", sensor(2, 2), Some(&other)), Code::BadProof);

    let mut bench = fresh();
    let retyped = Register { schema_hash: Fixed([6; 32]), ..sensor(2, 2) };
    let conflict = bench.register("p2", retyped, Some(&secret));
    refused(&conflict, Code::SchemaConflict);
    assert!(conflict.message().contains(&"05".repeat(32)) && conflict.message().contains(&"06".repeat(32)));

    let mut bench = fresh();
    let live = bench.register("p2", sensor(2, 2), Some(&secret));
    refused(&live, Code::LiveOwner);
    assert!(live.message().contains("PROD-1"), "{}", live.message());
}

/// A dead process of another host domain cannot be told from a live one, and age does not help.
///
/// Rules: DH-034, DH-035.
#[test]
fn an_owner_that_cannot_be_asked_about_stays() {
    let mut bench = Bench::new(Settings::default());
    let away = Register { host_domain: label("elsewhere"), ..sensor(1, 1) };
    assert!(bench.register("p1", away, None).is_ok());
    bench.kill(1);
    bench.now += Duration::from_secs(1 << 30);
    let refused = bench.register("p2", sensor(2, 2), None);
    assert_eq!(refused.outcome(), (Status::Conflict, Some(Code::LiveOwner)));
}

/// A lease that ran out allows a replacement with the same secret, and says nothing about the process.
///
/// Rules: DH-035, DH-192, DH-236.
#[test]
fn an_expired_lease_declares_nobody_dead() {
    let mut bench = Bench::new(Settings::default());
    let secret = verifier(1);
    let leased = Register { lease_ms: 2_000, ..sensor(1, 1) };
    let registered = bench.register("p1", leased, Some(&secret));
    assert_eq!(registered.json["lease_ms"], 2000);
    bench.now += Duration::from_millis(1_900);
    let beat = RequestBody::Heartbeat(Heartbeat { channel_id: registered.channel_id() });
    assert!(bench.ask("p1", beat.clone(), None).is_ok());
    bench.now += Duration::from_millis(1_900);
    assert!(bench.tick().is_empty());
    assert_eq!(bench.register("p2", sensor(2, 2), Some(&secret)).reply.code, Some(Code::LiveOwner));
    bench.now += Duration::from_millis(200);
    assert!(bench.tick().is_empty(), "nobody is told that anything died");
    assert_eq!(bench.machine.counters().leases_expired, 1);
    let found = bench.discover("c", find("sensor"), Some(&secret));
    assert_eq!((found.is_ok(), &found.json["producer_alive"]), (true, &serde_json::Value::Bool(true)));
    assert_eq!(bench.register("p2", sensor(2, 2), Some(&verifier(2))).reply.code, Some(Code::LiveOwner));
    assert!(bench.register("p2", sensor(2, 2), Some(&secret)).is_ok());
    assert_eq!(bench.ask("p1", beat, None).reply.status, Status::UnknownClient);
}

/// M-19: a consumer whose lease ran out is reported as silent, as dead only if the kernel says so.
///
/// Rules: DH-035, DH-191.
#[test]
fn a_silent_consumer_is_a_hint() {
    for (kill, expected) in [(false, DropReason::HeartbeatTimeout), (true, DropReason::ProcessDead)] {
        let mut bench = Bench::new(Settings::default());
        let channel_id = bench.register("p", sensor(1, 1), None).channel_id();
        let attach = AttachAck {
            channel_id,
            consumer_id: label("ui"),
            config_hash: Fixed([0; 32]),
            process_key: U64(77),
        };
        assert!(matches!(
            bench.ask("c", RequestBody::AttachAck(attach), None).events[..],
            [EventBody::AttachAck(_)]
        ));
        assert_eq!(bench.machine.next_deadline(), None, "without heartbeats there is no lease");
        assert!(bench.ask("c", RequestBody::Heartbeat(Heartbeat { channel_id }), None).is_ok());
        if kill {
            bench.kill(77);
        }
        let due = bench.machine.next_deadline().expect("a lease");
        assert_eq!(due, bench.now + DEFAULT_LEASE);
        bench.now = due;
        let outputs = bench.tick();
        let [Output::Publish { event, .. }] = &outputs[..] else { panic!("{outputs:?}") };
        let EventBody::ConsDrop { reason, .. } = &event.body else { panic!("{event:?}") };
        assert_eq!(*reason, expected);
        assert_eq!(bench.machine.counters().attachments, 0);
        assert!(bench.discover("c", find("sensor"), None).is_ok(), "the channel is as it was");
    }
}

/// Somebody else's attachment cannot be taken or ended.
#[test]
fn attachments_belong_to_their_client() {
    let mut bench = Bench::new(Settings::default());
    let channel_id = bench.register("p", sensor(1, 1), None).channel_id();
    let consumer_id = label("ui");
    let attach = AttachAck {
        channel_id,
        consumer_id: consumer_id.clone(),
        config_hash: Fixed([0; 32]),
        process_key: U64(7),
    };
    assert!(bench.ask("c", RequestBody::AttachAck(attach.clone()), None).is_ok());
    let detach = RequestBody::Detach(Detach { channel_id, consumer_id });
    assert_eq!(bench.ask("d", detach.clone(), None).reply.code, Some(Code::NotAllowed));
    assert_eq!(bench.ask("d", RequestBody::AttachAck(attach), None).reply.code, Some(Code::NotAllowed));
    let gone = bench.ask("c", detach, None);
    assert!(matches!(gone.events[..], [EventBody::ConsDrop { reason: DropReason::ExplicitDetach, .. }]));
}

/// M-03: the same message gets the same reply, and is not done again.
///
/// Rules: DH-188.
#[test]
fn a_duplicate_gets_the_stored_reply() {
    let mut bench = Bench::new(Settings::default());
    let secret = verifier(1);
    assert!(bench.register("p", sensor(1, 1), Some(&secret)).is_ok());
    let first = bench.request("p", deregister(1), Some(&secret));
    assert!(bench.send(&first).is_ok());
    let resend = |bench: &mut Bench, verifier: &Verifier| {
        let request = bench.request("p", deregister(1), Some(verifier));
        bench.send(&Request { msg_id: first.msg_id.clone(), ..request })
    };
    assert!(resend(&mut bench, &secret).is_ok(), "once more it would be NOT_FOUND");
    assert_eq!(resend(&mut bench, &verifier(2)).reply.code, Some(Code::BadProof), "not for strangers");
    let other = bench.request("p", RequestBody::Ping, None);
    let reused = bench.send(&Request { msg_id: first.msg_id.clone(), ..other });
    assert_eq!(reused.reply.code, Some(Code::BadRequest));
    bench.now += MEMORY + Duration::from_secs(1);
    assert_eq!(resend(&mut bench, &secret).reply.status, Status::NotFound);
}

/// M-06: a wrong proof, a replayed frame, a clock 31 s off; and each just inside of what is allowed.
///
/// Rules: DH-189.
#[test]
fn replays_and_skewed_clocks_are_refused() {
    let mut bench = Bench::new(Settings::default());
    let secret = verifier(1);
    bench.build(&sensor(1, 1));
    let register = RequestBody::Register(Box::new(with_verifier(sensor(1, 1), Some(&secret))));
    let request = bench.request("p", register, Some(&secret));
    assert!(bench.send(&request).is_ok());
    assert_eq!(bench.send(&request).reply.code, Some(Code::ReplayOrSkew));
    bench.now += MEMORY;
    assert_eq!(bench.send(&request).reply.code, Some(Code::ReplayOrSkew), "for 60 s");
    for (skew, is_refused) in [(30_000_i64, false), (-30_000, false), (31_000, true), (-31_000, true)] {
        let ts_ms = WALL.checked_add_signed(skew).unwrap();
        let request = Request { ts_ms, ..bench.request("c", RequestBody::Discover(find("none")), None) };
        assert_eq!(bench.send(&request).reply.code == Some(Code::ReplayOrSkew), is_refused, "{skew} ms");
    }
    let wrong = bench.discover("c", find("sensor"), Some(&verifier(2)));
    assert_eq!(wrong.outcome(), (Status::AuthFailed, Some(Code::BadProof)));
    let none = bench.discover("c", find("sensor"), None);
    assert_eq!(none.outcome(), (Status::AuthFailed, Some(Code::BadProof)));
}

/// A proof is good for one client, one channel, one kind of request, one time.
///
/// Rules: DH-189.
#[test]
fn a_proof_cannot_be_carried_over() {
    let mut bench = Bench::new(Settings::default());
    let secret = verifier(1);
    assert!(bench.register("p", sensor(1, 1), Some(&secret)).is_ok());
    let good = bench.request("c", RequestBody::Discover(find("sensor")), Some(&secret));
    let thief = Request { client_id: ClientId::new("thief").unwrap(), ..good.clone() };
    let later = Request { ts_ms: WALL + 1, ..good.clone() };
    let fresh = Request { nonce: Some(Base64([200; 16])), ..good.clone() };
    let mut closing =
        Request { msg_id: MsgId::new("x").unwrap(), nonce: Some(Base64([201; 16])), ..good.clone() };
    closing.body = deregister(1);
    if let RequestBody::Deregister(body) = &mut closing.body {
        body.secret_proof = good.body.proof();
    }
    for (at, forged) in [thief, later, closing].into_iter().enumerate() {
        assert_eq!(bench.send(&forged).reply.code, Some(Code::BadProof), "{at}");
    }
    assert_eq!(bench.send(&fresh).reply.code, Some(Code::BadProof));
}

/// Whoever cannot prove the secret does not learn that there is a channel.
///
/// Rules: DH-192.
#[test]
fn a_concealed_channel_looks_like_none() {
    let mut bench = Bench::new(Settings { conceal: true, ..Settings::default() });
    let secret = verifier(1);
    assert!(bench.register("p", sensor(1, 1), Some(&secret)).is_ok());
    let mut replies = Vec::new();
    for (channel, verifier) in [("sensor", Some(&verifier(2))), ("sensor", None), ("nobody", None)] {
        let answer = bench.discover("c", find(channel), verifier);
        replies.push((answer.outcome(), answer.message().replace(channel, "?")));
    }
    assert_eq!(replies[0].0, (Status::NotFound, Some(Code::UnknownChannel)));
    assert!(replies.iter().all(|reply| *reply == replies[0]), "{replies:?}");
    assert_eq!(bench.register("q", sensor(2, 2), Some(&verifier(2))).reply.code, Some(Code::BadProof));
    let listed = bench.ask("c", RequestBody::List(List::default()), None);
    assert_eq!(listed.json["channels"].as_array().map(Vec::len), Some(0));
    assert_eq!(bench.machine.counters().refused_auth, 3);
    assert!(bench.discover("c", find("sensor"), Some(&secret)).is_ok());
}

/// N-32.
///
/// Rules: DH-193.
#[test]
fn the_block_of_a_dead_producer_is_found_while_it_exists() {
    let mut bench = Bench::new(Settings::default());
    assert!(bench.register("p", sensor(1, 1), None).is_ok());
    bench.kill(1);
    let found = bench.discover("c", find("sensor"), None);
    assert_eq!((found.is_ok(), &found.json["producer_alive"]), (true, &serde_json::Value::Bool(false)));
    bench.host.blocks.borrow_mut().clear();
    let gone = bench.discover("c", find("sensor"), None);
    assert_eq!(gone.outcome(), (Status::NotFound, Some(Code::StaleOwner)));
    assert_eq!(bench.discover("c", find("sensor"), None).reply.code, Some(Code::UnknownChannel));
}

/// N-31: what a block says of itself counts, field by field.
///
/// Rules: DH-194.
#[test]
fn a_registration_that_does_not_fit_its_block_is_refused() {
    let claims = [
        ("uuid", Register { block_uuid: Fixed([9; 16]), ..sensor(1, 1) }),
        ("channel", Register { channel_name: name("another"), ..sensor(1, 1) }),
        ("schema", Register { schema_hash: Fixed([9; 32]), ..sensor(1, 1) }),
        ("no block", Register { shm_name: ShmName::new("tidegate_x_00000009").unwrap(), ..sensor(1, 1) }),
    ];
    for (what, claim) in claims {
        let mut bench = Bench::new(Settings::default());
        bench.build(&sensor(1, 1));
        let answer = bench.ask("p", RequestBody::Register(Box::new(claim)), None);
        assert_eq!(answer.outcome(), (Status::Error, Some(Code::BadRequest)), "{what}");
        assert!(answer.message().contains(what), "{}", answer.message());
        assert_eq!(bench.machine.counters().channels, 0);
    }
    let mut bench = Bench::new(Settings::default());
    bench.host.blocks.borrow_mut().insert(sensor(1, 1).shm_name.to_string(), Inspection::Unreadable);
    let answer = bench.ask("p", RequestBody::Register(Box::new(sensor(1, 1))), None);
    assert_eq!(answer.outcome(), (Status::Error, Some(Code::BadRequest)));
}

/// Rules: DH-180.
#[test]
fn a_schema_text_must_have_its_hash() {
    let text = "tds1 SensorData size=16 align=8 {timestamp_ns:u64@0+8;temperature:f32@8+4;pressure:f32@12+4}";
    let hash = "5e15452115a763083f10341f190c5da83bde2ce0f44524e2ef5d2b84b837c426";
    let text = wire_text(text);
    let mut bench = Bench::new(Settings::default());
    let wrong = Register { schema_text: Some(text.clone()), ..sensor(1, 1) };
    assert_eq!(bench.register("p", wrong, None).reply.code, Some(Code::FingerprintInconsistent));
    let schema_hash = SchemaHash::parse(hash).unwrap();
    let right = Register { schema_text: Some(text), schema_hash, ..sensor(1, 1) };
    assert!(bench.register("p", right, None).is_ok());
    let query = SchemaQuery { channel_name: None, schema_hash: Some(schema_hash) };
    assert_eq!(bench.ask("c", RequestBody::Schema(query), None).json["schema_hash"], hash);
}

fn wire_text(text: &str) -> crate::broker::wire::LongText {
    crate::broker::wire::LongText::new(text).unwrap()
}

/// The refusal names both sides.
///
/// Rules: DH-179.
#[test]
fn a_wrong_schema_is_refused_early_and_named() {
    let version = |major, minor| Some(SchemaVersion { major, minor });
    let mut bench = Bench::new(Settings::default());
    assert!(bench.register("p", sensor(1, 1), None).is_ok());
    let expecting = |hash: Option<u8>, schema_version, schema_mode| Discover {
        schema_hash: hash.map(|byte| Fixed([byte; 32])),
        schema_version,
        schema_mode,
        ..find("sensor")
    };
    let hash = bench.discover("c", expecting(Some(6), version(2, 0), SchemaMode::Strict), None);
    assert_eq!(hash.outcome(), (Status::SchemaMismatch, Some(Code::Hash)));
    assert!(hash.message().contains(&"05".repeat(32)) && hash.message().contains(&"06".repeat(32)));
    let major = bench.discover("c", expecting(Some(5), version(3, 1), SchemaMode::AllowAppended), None);
    assert_eq!(major.outcome(), (Status::SchemaMismatch, Some(Code::Version)));
    assert!(major.message().contains("2.0") && major.message().contains("3.1"), "{}", major.message());
    for passed in [
        expecting(Some(5), version(2, 7), SchemaMode::Strict),
        expecting(Some(6), version(2, 1), SchemaMode::AllowAppended),
        expecting(Some(6), version(3, 0), SchemaMode::Ignore),
    ] {
        assert!(bench.discover("c", passed, None).is_ok());
    }
}

/// Rules: DH-195.
#[test]
fn limits_hold_and_recover() {
    let limits = Limits { channels: 1, clients: 3, nonces: 230, ..Limits::default() };
    let mut bench = Bench::new(Settings { limits, ..Settings::default() });
    assert!(bench.register("p", sensor(1, 1), None).is_ok());
    let second = Register { channel_name: name("second"), ..sensor(2, 2) };
    assert_eq!(bench.register("p", second, None).reply.code, Some(Code::Limit));

    let ping = |bench: &mut Bench, client: &str, at: u32| {
        let request = Request {
            msg_id: MsgId::new(format!("q-{at}")).unwrap(),
            nonce: None,
            ..bench.request(client, RequestBody::Ping, None)
        };
        bench.count = 10;
        bench.send(&request).reply.code
    };
    let refused = (0..300).filter(|at| ping(&mut bench, "busy", *at) == Some(Code::Limit)).count();
    assert_eq!(refused, 100, "a burst of 200 passes");
    assert_eq!(ping(&mut bench, "calm", 0), None, "others are not affected");
    assert_eq!(ping(&mut bench, "fourth", 0), Some(Code::Limit), "three clients are the limit");
    bench.now += Duration::from_secs(1);
    let refused = (300..500).filter(|at| ping(&mut bench, "busy", *at) == Some(Code::Limit)).count();
    assert_eq!(refused, 100, "100 more per second");
    bench.now += MEMORY + Duration::from_secs(1);
    assert_eq!(ping(&mut bench, "fourth", 1), None, "the silent ones are forgotten");
}

/// Rules: DH-195.
#[test]
fn failing_proofs_slow_a_client_down() {
    let mut bench = Bench::new(Settings::default());
    let secret = verifier(1);
    assert!(bench.register("p", sensor(1, 1), Some(&secret)).is_ok());
    for _ in 0..9 {
        assert_eq!(bench.discover("c", find("sensor"), Some(&verifier(2))).reply.code, Some(Code::BadProof));
    }
    let tenth = bench.request("c", RequestBody::Discover(find("sensor")), Some(&verifier(2)));
    assert_eq!(bench.handle("c", None, &tenth.encode()), []);
    assert!(bench.discover("d", find("sensor"), Some(&secret)).is_ok(), "others are not affected");
    assert_eq!(bench.machine.next_deadline(), Some(bench.now + PENALTY));
    bench.now += PENALTY;
    assert_eq!(bench.tick().len(), 1);
    bench.now += Duration::from_secs(10);
    assert!(bench.discover("c", find("sensor"), Some(&secret)).is_ok());
}

/// M-16: an id belongs to the key that came with it first, or to the one it is pinned to.
///
/// Rules: DH-208.
#[test]
fn a_client_id_belongs_to_one_key() {
    let key = |byte| PublicKey::from_bytes([byte; 32]);
    let pinned = BTreeMap::from([(key(1), ClientId::new("a").unwrap())]);
    let mut bench = Bench::new(Settings { pinned, ..Settings::default() });
    let mut code = |client: &str, key| {
        let request = bench.request(client, RequestBody::Ping, None);
        answered(bench.handle(client, Some(key), &request.encode())).reply.code
    };
    let mismatch = Some(Code::IdentityMismatch);
    assert_eq!((code("a", key(1)), code("b", key(1))), (None, mismatch), "pinned to a");
    assert_eq!((code("c", key(2)), code("c", key(3))), (None, mismatch), "the first had key 2");
    let request = bench.request("d", RequestBody::Ping, None);
    let spoofed = answered(bench.handle("e", Some(key(4)), &request.encode()));
    assert_eq!(spoofed.reply.code, mismatch, "the routing id says e");
}

/// A pinned id is nobody else's, even before its owner came.
///
/// Rules: DH-208.
#[test]
fn a_pinned_id_is_reserved() {
    let key = |byte| PublicKey::from_bytes([byte; 32]);
    let pinned = BTreeMap::from([(key(1), ClientId::new("a").unwrap())]);
    let mut bench = Bench::new(Settings { pinned, ..Settings::default() });
    let request = bench.request("a", RequestBody::Ping, None);
    assert_eq!(
        answered(bench.handle("a", Some(key(9)), &request.encode())).reply.code,
        Some(Code::IdentityMismatch)
    );
}

/// M-18.
///
/// Rules: DH-190.
#[test]
fn a_core_broker_knows_no_extensions() {
    let mut bench = Bench::new(Settings { features: BTreeSet::new(), ..Settings::default() });
    let registered = bench.register("p", sensor(1, 1), None);
    assert!(registered.is_ok() && registered.reply.features.is_empty());
    let beat =
        bench.ask("p", RequestBody::Heartbeat(Heartbeat { channel_id: registered.channel_id() }), None);
    assert_eq!(beat.outcome(), (Status::Error, Some(Code::UnknownType)));
    assert!(bench.discover("c", find("sensor"), None).is_ok());
    assert!(bench.ask("p", deregister(1), None).events.is_empty());
}

fn handover(phase: HandoverPhase, epoch: u32) -> HandoverNotify {
    HandoverNotify {
        old_channel: name("sensor"),
        new_channel: name("sensor"),
        old_shm_name: sensor(1, 1).shm_name,
        new_shm_name: sensor(1, 2).shm_name,
        old_uuid: Fixed([1; 16]),
        new_uuid: Fixed([2; 16]),
        phase,
        handover_epoch: epoch,
        cutover_slot_id: (phase == HandoverPhase::Cutover).then_some(U64(41)),
        grace_period_ms: 5000,
        new_key_id: None,
        new_key_epoch: None,
        sealed_secret: None,
        schema_hash: Fixed([5; 32]),
        schema_version: SchemaVersion { major: 2, minor: 0 },
        secret_proof: None,
    }
}

/// The announced block, and no other, may register beside the live one; it is the channel after the cut.
///
/// Rules: DH-192.
#[test]
fn a_handover_moves_the_channel() {
    let mut bench = Bench::new(Settings::default());
    let (old, new) = (verifier(1), verifier(2));
    assert!(bench.register("p", sensor(1, 1), Some(&old)).is_ok());
    let announce = |phase| RequestBody::HandoverNotify(Box::new(handover(phase, 1)));
    assert_eq!(bench.ask("p", announce(HandoverPhase::Prepare), Some(&new)).reply.code, Some(Code::BadProof));
    assert_eq!(
        bench.ask("q", announce(HandoverPhase::Prepare), Some(&old)).reply.code,
        Some(Code::NotAllowed)
    );
    let prepared = bench.ask("p", announce(HandoverPhase::Prepare), Some(&old));
    assert!(
        matches!(&prepared.events[..], [EventBody::HandoverNotify(event)] if event.secret_proof.is_none())
    );
    assert_eq!(bench.register("p", sensor(1, 3), Some(&new)).reply.code, Some(Code::LiveOwner));
    assert!(bench.register("p", sensor(1, 2), Some(&new)).is_ok());
    let before = bench.discover("c", find("sensor"), Some(&old));
    assert_eq!(before.json["block_uuid"], "01".repeat(16));
    assert_eq!(before.json["handover"]["new_uuid"], "02".repeat(16));
    assert!(bench.ask("p", announce(HandoverPhase::Cutover), Some(&old)).is_ok());
    let after = bench.discover("c", find("sensor"), Some(&new));
    assert_eq!(after.json["block_uuid"], "02".repeat(16));
    assert!(after.json["handover"].is_null());
    assert_eq!(bench.machine.counters().channels, 1);
}

/// Between the cut and the new block's registration a consumer is asked to wait.
#[test]
fn between_two_blocks_discovery_is_pending() {
    let mut bench = Bench::new(Settings::default());
    assert!(bench.register("p", sensor(1, 1), None).is_ok());
    let announce = |phase, epoch| RequestBody::HandoverNotify(Box::new(handover(phase, epoch)));
    assert!(bench.ask("p", announce(HandoverPhase::Cutover, 1), None).is_ok());
    let pending = bench.discover("c", find("sensor"), None);
    assert_eq!(pending.outcome(), (Status::Pending, Some(Code::Handover)));
    assert_eq!(pending.json["reason"], "HANDOVER");
    assert!(bench.register("p", sensor(1, 2), None).is_ok());
    assert!(bench.discover("c", find("sensor"), None).is_ok());
}

/// Rules: DH-229.
#[test]
fn a_stale_cancellation_is_ignored() {
    let mut bench = Bench::new(Settings::default());
    assert!(bench.register("p", sensor(1, 1), None).is_ok());
    let prepare = RequestBody::HandoverNotify(Box::new(handover(HandoverPhase::Prepare, 2)));
    assert!(bench.ask("p", prepare, None).is_ok());
    let cancel = |handover_epoch| {
        let channel_name = name("sensor");
        RequestBody::HandoverCancel(HandoverCancel {
            channel_name,
            handover_epoch,
            reason: label("x"),
            secret_proof: None,
        })
    };
    assert!(bench.ask("p", cancel(1), None).events.is_empty());
    assert!(bench.discover("c", find("sensor"), None).json["handover"].is_object());
    assert!(matches!(bench.ask("p", cancel(2), None).events[..], [EventBody::HandoverCancel(_)]));
    assert!(bench.discover("c", find("sensor"), None).json["handover"].is_null());
}

/// Rules: DH-157.
#[test]
fn a_checksum_report_is_relayed_as_it_is() {
    let mut bench = Bench::new(Settings::default());
    let channel_id = bench.register("p", sensor(1, 1), None).channel_id();
    let report = ChecksumErrorReport {
        channel_id,
        slot_id: U64((1 << 53) + 1),
        error: label("ChecksumMismatch"),
        process_key: U64(4),
    };
    let relayed = bench.ask("c", RequestBody::ChecksumErrorReport(report.clone()), None);
    assert_eq!(relayed.events, [EventBody::ChecksumErrorReport(report)]);
}

/// M-15: restored entries answer OK only after a look at the block; dead ones are not restored.
///
/// Rules: DH-213, DH-214.
#[test]
fn what_is_restored_is_checked_first() {
    let mut bench = Bench::new(Settings::default());
    let secret = verifier(1);
    assert!(bench.register("p", sensor(1, 1), Some(&secret)).is_ok());
    let away = Register { channel_name: name("away"), host_domain: label("elsewhere"), ..sensor(2, 2) };
    assert!(bench.register("q", away, None).is_ok());
    let dead = Register { channel_name: name("dead"), ..sensor(3, 3) };
    assert!(bench.register("r", dead, None).is_ok());
    let text = serde_json::to_string(&bench.machine.snapshot()).unwrap();
    assert!(!text.contains("secret_proof"), "{text}");

    let mut after = Bench::new(Settings::default());
    after.kill(3);
    let (snapshot, now) = (serde_json::from_str(&text).unwrap(), after.now());
    after.machine.restore(snapshot, now, &after.host);
    assert_eq!(after.machine.counters().channels, 2);
    let unknown = after.discover("c", find("away"), None);
    assert_eq!(unknown.outcome(), (Status::Pending, Some(Code::RestoredUnverified)));
    after.build(&sensor(1, 1));
    assert!(after.discover("c", find("sensor"), Some(&secret)).is_ok());

    let mut moved = Bench::new(Settings::default());
    moved.build(&sensor(1, 1));
    let other = BlockFacts {
        block_uuid: BlockUuid::parse(&"ee".repeat(16)).unwrap(),
        channel_name: name("sensor"),
        schema_hash: Fixed([5; 32]),
        is_ready: true,
    };
    moved.host.blocks.borrow_mut().insert(sensor(1, 1).shm_name.to_string(), Inspection::Found(other));
    let (snapshot, now) = (serde_json::from_str(&text).unwrap(), moved.now());
    moved.machine.restore(snapshot, now, &moved.host);
    assert_eq!(moved.discover("c", find("sensor"), Some(&secret)).reply.code, Some(Code::StaleOwner));
}

/// Only look-ups and farewells are answered while the broker drains.
#[test]
fn a_draining_broker_answers_little() {
    let mut bench = Bench::new(Settings::default());
    assert!(bench.register("p", sensor(1, 1), None).is_ok());
    bench.machine.drain();
    assert!(bench.discover("c", find("sensor"), None).is_ok());
    let ping = bench.request("c", RequestBody::Ping, None);
    assert_eq!(bench.handle("c", None, &ping.encode()), []);
    assert!(bench.ask("p", deregister(1), None).is_ok());
}

proptest::proptest! {
    /// M-07: whatever bytes come, there is an answer or none, and the broker goes on.
    ///
    /// Rules: DH-186.
    #[test]
    fn garbage_is_answered_or_dropped(
        body in proptest::collection::vec(proptest::num::u8::ANY, 0..300),
        at in 0..600_usize,
        byte in proptest::num::u8::ANY,
    ) {
        let mut bench = Bench::new(Settings::default());
        bench.handle("g", None, &body);
        let mut request = bench.request("p", RequestBody::Register(Box::new(sensor(1, 1))), None).encode();
        if let Some(place) = request.get_mut(at) {
            *place = byte;
        }
        bench.build(&sensor(1, 1));
        bench.handle("p", None, &request);
        request.truncate(at);
        bench.handle("q", None, &request);
        proptest::prop_assert!(bench.ask("h", RequestBody::Ping, None).is_ok());
    }
}
