//! Brokers, clients, blocks and processes for the tests.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tidegate_hub::{
    block::{AttachOptions, Block, CreateOptions, Role, attach, create},
    broker::{
        Broker, BrokerConfig, HubConfig, MessageHub, Verifier,
        host::{BlockFacts, HostView, Inspection, Liveness, LocalHost},
        place::RuntimeDir,
        wire::{
            BlockUuid, ChannelName, ClientId, Fixed, Label, ProcessKey, Register, SchemaHash, SchemaVersion,
            ShmName, U64,
        },
    },
    layout::{self, BlockSpec, DigestAlg, Identity},
};

pub(crate) const SOON: Duration = Duration::from_secs(5);

/// A host on which every process lives and every block is as the registration says.
pub(crate) struct Everything;

impl HostView for Everything {
    fn domain(&self) -> &str {
        "here"
    }

    fn liveness(&self, _: ProcessKey) -> Liveness {
        Liveness::Alive
    }

    fn inspect(&self, name: &ShmName) -> Inspection {
        let (channel, digits) = name.as_str().strip_prefix("tidegate_").unwrap().rsplit_once('_').unwrap();
        Inspection::Found(BlockFacts {
            block_uuid: uuid(u32::from_str_radix(digits, 16).unwrap()),
            channel_name: ChannelName::new(channel).unwrap(),
            schema_hash: SchemaHash::from_bytes([0; 32]),
            is_ready: true,
        })
    }
}

pub(crate) fn uuid(number: u32) -> BlockUuid {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    BlockUuid::new(bytes).unwrap()
}

pub(crate) fn channel(text: &str) -> ChannelName {
    ChannelName::new(text).unwrap()
}

/// A registration of a block that only [`Everything`] knows.
pub(crate) fn register(name: &str, number: u32) -> Register {
    Register {
        channel_name: channel(name),
        shm_name: ShmName::new(format!("tidegate_{name}_{number:08x}")).unwrap(),
        block_uuid: uuid(number),
        policy: Label::new("RingBuffer").unwrap(),
        sync: Label::new("AllReaders").unwrap(),
        unit_block_size: 4096,
        ring_buffer_capacity: 8,
        schema_hash: SchemaHash::from_bytes([0; 32]),
        schema_version: SchemaVersion { major: 1, minor: 0 },
        schema_text: None,
        shared_secret_hash: None,
        secret_proof: None,
        key_id: Some(Fixed([1; 8])),
        key_epoch: Some(1),
        producer_uid: Label::new(format!("PROD-{number}")).unwrap(),
        producer_name: None,
        process_key: ProcessKey::from_word(u64::from(number)).unwrap(),
        host_domain: Label::new("here").unwrap(),
        zmq_endpoint: None,
        zmq_pubkey: None,
        lease_ms: 0,
        first_slot_id: U64(0),
        predecessor_uuid: None,
        allow_sealed: false,
        sealed_secrets: BTreeMap::new(),
    }
}

/// As [`register`], of a channel without a secret.
pub(crate) fn open_register(name: &str, number: u32) -> Register {
    Register { key_id: None, key_epoch: None, ..register(name, number) }
}

pub(crate) fn config(dir: &Path) -> BrokerConfig {
    let dir = RuntimeDir::open(dir).unwrap();
    BrokerConfig::new(dir.broker_endpoint(), dir.events_endpoint())
}

pub(crate) fn start(config: BrokerConfig) -> Broker {
    Broker::start(config, Box::new(Everything)).unwrap()
}

/// A client of a broker without CURVE.
pub(crate) fn hub(endpoint: &str, client: &str) -> MessageHub {
    let client_id = ClientId::new(client).unwrap();
    MessageHub::connect(HubConfig { endpoint: endpoint.into(), client_id, curve: None }).unwrap()
}

pub(crate) fn private_dir() -> TempDir {
    use std::os::unix::fs::PermissionsExt;
    tempfile::Builder::new().permissions(std::fs::Permissions::from_mode(0o700)).tempdir().unwrap()
}

pub(crate) fn secret(byte: u8, name: &str) -> Verifier {
    Verifier::derive(&[byte; 32], &channel(name)).unwrap()
}

/// Waits until `is_so`, which has to be soon.
#[track_caller]
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + 6 * SOON;
    while !is_so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Eight slots of 64 bytes that are all read, untyped, without secret.
pub(crate) fn spec(channel: &str) -> BlockSpec {
    BlockSpec {
        digest_alg: DigestAlg::None,
        max_consumers: 4,
        identity: Identity { producer_uid: format!("PROD-{}", std::process::id()), ..Identity::default() },
        ..BlockSpec::ring(layout::ChannelName::new(channel).unwrap(), 8, 64)
    }
}

/// A new block in `dir`, with this process as its writer.
pub(crate) fn new_block(dir: &Path, spec: &BlockSpec) -> Arc<Block> {
    let options = CreateOptions { dir: dir.to_owned(), ..CreateOptions::default() };
    Arc::new(create(spec, &options).unwrap())
}

pub(crate) fn attached(dir: &Path, name: &str, role: Role) -> Arc<Block> {
    let options = AttachOptions { dir: dir.to_owned(), ..AttachOptions::new(role) };
    Arc::new(attach(name, &options).unwrap())
}

/// A place with blocks, a broker's sockets and its registry, for several processes.
pub(crate) struct Place(pub(crate) PathBuf);

impl Place {
    pub(crate) fn blocks(&self) -> PathBuf {
        self.0.join("blocks")
    }

    pub(crate) fn registry(&self) -> PathBuf {
        self.0.join("registry")
    }

    pub(crate) fn endpoint(&self) -> String {
        config(&self.0).endpoint
    }

    pub(crate) fn hub(&self, client: &str) -> MessageHub {
        hub(&self.endpoint(), client)
    }

    /// A broker in this process that looks at the blocks of the place.
    pub(crate) fn broker(&self) -> Broker {
        let host = LocalHost::new().unwrap().dir(self.blocks());
        let config = BrokerConfig { persist: Some(self.registry()), ..config(&self.0) };
        Broker::start(config, Box::new(host)).unwrap()
    }
}

/// A place that goes with the test.
pub(crate) fn place() -> (TempDir, Place) {
    let dir = tempfile::Builder::new().prefix("tidegate-broker-").tempdir_in("/dev/shm").unwrap();
    let place = Place(dir.path().to_owned());
    std::fs::create_dir(place.blocks()).unwrap();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&place.0, std::fs::Permissions::from_mode(0o700)).unwrap();
    (dir, place)
}

const ROLE: &str = "TIDEGATE_TEST_ROLE";
const PLACE: &str = "TIDEGATE_TEST_PLACE";

/// The role that this process was started for, and the place; none in the process that runs the tests.
pub(crate) fn role() -> Option<(String, Place)> {
    let role = std::env::var(ROLE).ok()?;
    // Ends with the test, however that ends.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).unwrap();
    Some((role, Place(std::env::var_os(PLACE)?.into())))
}

/// This program once more, as an actor of the test `test`. Killed when dropped.
pub(crate) struct Actor(pub(crate) Child);

impl Actor {
    pub(crate) fn start(test: &str, role: &str, place: &Place) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture", "--test-threads", "1"])
            .env(ROLE, role)
            .env(PLACE, &place.0)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Kills it as a crash does, and waits until it is gone.
    pub(crate) fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    pub(crate) fn runs(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        // It may be gone.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Plays the broker until killed.
pub(crate) fn play_broker(place: &Place) -> ! {
    let _broker = place.broker();
    loop {
        thread::park();
    }
}
