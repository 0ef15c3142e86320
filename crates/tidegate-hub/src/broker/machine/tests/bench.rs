//! A broker without sockets, a host that says what the test wants, and requests to it.

use std::{cell::RefCell, collections::HashMap, time::Duration};

use super::super::*;
use crate::broker::{
    host::{BlockFacts, Inspection, Liveness},
    wire::{
        Base64, BlockUuid, ChannelId, Deregister, Discover, Fixed, ProcessKey, Register, SchemaHash,
        SchemaMode, SchemaVersion, ShmName, U64,
    },
};

pub(super) const DOMAIN: &str = "boot-1/pid:[4026531836]";
pub(super) const WALL: u64 = 1_770_459_330_000;

/// A host with blocks and dead processes as the test sets them.
#[derive(Default)]
pub(super) struct Host {
    pub(super) dead: RefCell<Vec<u64>>,
    pub(super) blocks: RefCell<HashMap<String, Inspection>>,
}

impl HostView for Host {
    fn domain(&self) -> &str {
        DOMAIN
    }

    fn liveness(&self, key: ProcessKey) -> Liveness {
        if self.dead.borrow().contains(&key.word()) { Liveness::Dead } else { Liveness::Alive }
    }

    fn inspect(&self, name: &ShmName) -> Inspection {
        self.blocks.borrow().get(name.as_str()).cloned().unwrap_or(Inspection::Missing)
    }
}

/// A broker with a clock and counters for names.
pub(super) struct Bench {
    pub(super) machine: Machine,
    pub(super) host: Host,
    pub(super) now: Duration,
    pub(super) count: u64,
}

/// A reply as a client reads it.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) reply: Reply,
    pub(super) json: serde_json::Value,
    pub(super) events: Vec<EventBody>,
}

impl Answered {
    pub(super) fn outcome(&self) -> (Status, Option<Code>) {
        (self.reply.status, self.reply.code)
    }

    pub(super) fn is_ok(&self) -> bool {
        self.reply.status == Status::Ok
    }

    pub(super) fn channel_id(&self) -> ChannelId {
        ChannelId(u32::try_from(self.json["channel_id"].as_u64().unwrap()).unwrap())
    }

    pub(super) fn message(&self) -> &str {
        self.reply.error_message.as_deref().unwrap_or_default()
    }
}

impl Bench {
    pub(super) fn new(settings: Settings) -> Self {
        let machine = Machine::new(settings, Label::new("5c1d0000").unwrap());
        Self { machine, host: Host::default(), now: Duration::from_secs(1000), count: 0 }
    }

    pub(super) fn now(&self) -> Now {
        Now { monotonic: self.now, wall_ms: WALL }
    }

    /// The envelope of a new request of `client`, with the proof for `verifier`.
    pub(super) fn request(
        &mut self,
        client: &str,
        mut body: RequestBody,
        verifier: Option<&Verifier>,
    ) -> Request {
        self.count += 1;
        let mut nonce = Base64([0; 16]);
        nonce.0[..8].copy_from_slice(&self.count.to_le_bytes());
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

    pub(super) fn send(&mut self, request: &Request) -> Answered {
        let client = request.client_id.to_string();
        let outputs = self.handle(&client, None, &request.encode());
        answered(outputs)
    }

    pub(super) fn handle(&mut self, client: &str, key: Option<PublicKey>, body: &[u8]) -> Vec<Output> {
        let now = self.now();
        self.machine.handle(Origin { routing_id: client.as_bytes(), key }, body, now, &self.host)
    }

    pub(super) fn ask(&mut self, client: &str, body: RequestBody, verifier: Option<&Verifier>) -> Answered {
        let request = self.request(client, body, verifier);
        self.send(&request)
    }

    /// Registers, with a block that fits.
    pub(super) fn register(
        &mut self,
        client: &str,
        register: Register,
        verifier: Option<&Verifier>,
    ) -> Answered {
        self.build(&register);
        let register = with_verifier(register, verifier);
        self.ask(client, RequestBody::Register(Box::new(register)), verifier)
    }

    pub(super) fn build(&self, register: &Register) {
        let facts = BlockFacts {
            block_uuid: register.block_uuid,
            channel_name: register.channel_name.clone(),
            schema_hash: register.schema_hash,
            is_ready: true,
        };
        self.host.blocks.borrow_mut().insert(register.shm_name.to_string(), Inspection::Found(facts));
    }

    pub(super) fn discover(&mut self, client: &str, body: Discover, verifier: Option<&Verifier>) -> Answered {
        self.ask(client, RequestBody::Discover(body), verifier)
    }

    pub(super) fn kill(&self, key: u64) {
        self.host.dead.borrow_mut().push(key);
    }

    pub(super) fn tick(&mut self) -> Vec<Output> {
        let now = self.now();
        self.machine.tick(now, &self.host)
    }
}

pub(super) fn answered(outputs: Vec<Output>) -> Answered {
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

pub(super) fn name(text: &str) -> ChannelName {
    ChannelName::new(text).unwrap()
}

pub(super) fn label(text: &str) -> Label {
    Label::new(text).unwrap()
}

pub(super) fn verifier(secret: u8) -> Verifier {
    Verifier::derive(&[secret; 32], &name("sensor")).unwrap()
}

pub(super) fn with_verifier(register: Register, verifier: Option<&Verifier>) -> Register {
    let Some(verifier) = verifier else { return register };
    Register {
        shared_secret_hash: Some(verifier.to_field()),
        key_id: Some(Fixed([7; 8])),
        key_epoch: Some(1),
        ..register
    }
}

/// A registration of channel `sensor` by process `owner` with block `block`.
pub(super) fn sensor(owner: u64, block: u8) -> Register {
    Register {
        channel_name: name("sensor"),
        shm_name: ShmName::new(format!("tidegate_sensor_{block:08x}")).unwrap(),
        block_uuid: BlockUuid::new([block; 16]).unwrap(),
        policy: label("RingBuffer"),
        sync: label("AllReaders"),
        unit_block_size: 4096,
        ring_buffer_capacity: 8,
        schema_hash: SchemaHash::from_bytes([5; 32]),
        schema_version: SchemaVersion { major: 2, minor: 0 },
        schema_text: None,
        shared_secret_hash: None,
        secret_proof: None,
        key_id: None,
        key_epoch: None,
        producer_uid: label(&format!("PROD-{owner}")),
        producer_name: None,
        process_key: ProcessKey::from_word(owner).unwrap(),
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

pub(super) fn find(text: &str) -> Discover {
    Discover {
        channel_name: name(text),
        schema_hash: None,
        schema_version: None,
        schema_mode: SchemaMode::Strict,
        secret_proof: None,
        want_sealed_secret: false,
    }
}

pub(super) fn deregister(block: u8) -> RequestBody {
    RequestBody::Deregister(Deregister {
        channel_name: name("sensor"),
        block_uuid: BlockUuid::new([block; 16]).unwrap(),
        secret_proof: None,
    })
}
