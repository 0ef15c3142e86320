//! A driver in a directory of its own, with a clock and clients under the test's control.

#![allow(dead_code, reason = "every test binary uses another part")]
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../files/mod.rs"]
mod files;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

pub(crate) use files::files_below;
use tempfile::TempDir;
use tidegate_sbe::driver::{
    HugepagesPolicy, LeaseRevokeReason, Message, PublishMode, ResponseCode, Role, ShmAttachRequest,
    ShmDetachRequest, ShmDriverShutdownRequest, ShmLeaseKeepalive, ShutdownReason,
};
use tidegate_sbe::{AnyMessage, Open, control};
use tidegate_shm::clock::Nanos;
use tidegate_tensor::config::{DriverConfig, IdRange, Profile, Secret, StreamEntry};
use tidegate_tensor::driver::{Driver, DriverOptions, Endpoint};
use tidegate_tensor::ids::{PoolId, StreamId};
use tidegate_tensor::layout::{PoolSpec, SUPERBLOCK_LEN, SlotCount, Stride, Superblock};

/// The configured stream of every rig.
pub(crate) const CAM: u32 = 10_000;
pub(crate) const FIRST_LEASE: u64 = 1_000;
pub(crate) const TOKEN: &str = "open sesame";
pub(crate) const LEASE: u64 = 3_000;

/// A directory on tmpfs that goes away with the value.
pub(crate) fn temp_base() -> TempDir {
    tempfile::Builder::new().prefix("tidegate-driver-test-").tempdir_in("/dev/shm").unwrap()
}

pub(crate) fn profile(name: &str, slots: u32, strides: &[u32]) -> Profile {
    Profile {
        name: name.to_owned(),
        header_nslots: SlotCount::new(slots).unwrap(),
        payload_pools: (1..)
            .zip(strides)
            .map(|(id, stride)| PoolSpec { pool_id: PoolId::new(id), stride: Stride::new(*stride).unwrap() })
            .collect(),
    }
}

/// One configured stream, 20 dynamic ones possible, two small pools.
pub(crate) fn config(base: &Path) -> DriverConfig {
    let mut config = DriverConfig::default_node();
    config.shm.base_dir = base.to_owned();
    config.shm.allowed_base_dirs = vec![base.to_owned()];
    config.profiles = vec![profile("small", 8, &[4096, 64])];
    config.streams = vec![StreamEntry {
        name: "cam".to_owned(),
        stream_id: StreamId::new(CAM),
        profile: "small".to_owned(),
    }];
    config.driver.stream_id_range = IdRange::new(20_000, 20_019).unwrap().into();
    config.policies.shutdown_token = Secret::new(TOKEN);
    config
}

pub(crate) fn options() -> DriverOptions {
    DriverOptions::new(FIRST_LEASE << 1)
}

/// An attach request, valid unless a test makes it otherwise.
pub(crate) fn request(client: u32, role: Role, stream: u32, correlation: i64) -> ShmAttachRequest {
    ShmAttachRequest {
        correlation_id: correlation,
        stream_id: stream,
        client_id: client,
        role: Open::Listed(role),
        expected_layout_version: 1,
        publish_mode: Some(Open::Listed(PublishMode::RequireExisting)),
        require_hugepages: Open::Listed(HugepagesPolicy::Unspecified),
        desired_node_id: None,
    }
}

/// A message a driver sent, without borrowing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sent {
    Attach(Answer),
    Detach { correlation: i64, code: ResponseCode, text: String },
    Revoked { lease: u64, stream: u32, client: u32, role: Role, reason: LeaseRevokeReason, text: String },
    Shutdown { at: u64, reason: ShutdownReason, text: String },
    Announce(Announced),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub correlation: i64,
    pub code: ResponseCode,
    pub lease: Option<u64>,
    pub expiry: Option<u64>,
    pub stream: Option<u32>,
    pub epoch: Option<u64>,
    pub layout: Option<u32>,
    pub slots: Option<u32>,
    pub slot_bytes: Option<u16>,
    pub node: Option<u32>,
    pub pools: Vec<Pool>,
    pub header_uri: String,
    pub text: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pool {
    pub id: u16,
    pub slots: u32,
    pub stride: u32,
    pub uri: String,
}

impl Pool {
    fn new(id: u16, slots: u32, stride: u32, uri: String) -> Self {
        Self { id, slots, stride, uri }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Announced {
    pub endpoint: Endpoint,
    pub stream: u32,
    pub producer: u32,
    pub epoch: u64,
    pub at: u64,
    pub pools: Vec<Pool>,
    pub header_uri: String,
}

impl Sent {
    pub(crate) fn decode(bytes: &[u8], endpoint: Endpoint) -> Self {
        let text = |text: tidegate_sbe::Text<'_>| text.as_str().unwrap().to_owned();
        match AnyMessage::decode(bytes).expect("a driver sends valid messages") {
            AnyMessage::Driver(Message::ShmAttachResponse(it)) => Self::Attach(Answer {
                correlation: it.correlation_id,
                code: it.code,
                lease: it.lease_id,
                expiry: it.lease_expiry_timestamp_ns,
                stream: it.stream_id,
                epoch: it.epoch,
                layout: it.layout_version,
                slots: it.header_nslots,
                slot_bytes: it.header_slot_bytes,
                node: it.node_id,
                pools: it
                    .payload_pools
                    .iter()
                    .map(|pool| {
                        Pool::new(pool.pool_id, pool.pool_nslots, pool.stride_bytes, text(pool.region_uri))
                    })
                    .collect(),
                header_uri: text(it.header_region_uri),
                text: text(it.error_message),
            }),
            AnyMessage::Driver(Message::ShmDetachResponse(it)) => {
                Self::Detach { correlation: it.correlation_id, code: it.code, text: text(it.error_message) }
            }
            AnyMessage::Driver(Message::ShmLeaseRevoked(it)) => Self::Revoked {
                lease: it.lease_id,
                stream: it.stream_id,
                client: it.client_id,
                role: it.role,
                reason: it.reason,
                text: text(it.error_message),
            },
            AnyMessage::Driver(Message::ShmDriverShutdown(it)) => Self::Shutdown {
                at: it.timestamp_ns,
                reason: it.reason.listed().expect("a listed reason"),
                text: text(it.error_message),
            },
            AnyMessage::Control(control::Message::ShmPoolAnnounce(it)) => {
                assert_eq!(it.announce_clock_domain, control::ClockDomain::Monotonic);
                assert_eq!((it.layout_version, it.header_slot_bytes), (1, 256));
                Self::Announce(Announced {
                    endpoint,
                    stream: it.stream_id,
                    producer: it.producer_id,
                    epoch: it.epoch,
                    at: it.announce_timestamp_ns,
                    pools: it
                        .payload_pools
                        .iter()
                        .map(|pool| {
                            Pool::new(
                                pool.pool_id,
                                pool.pool_nslots,
                                pool.stride_bytes,
                                text(pool.region_uri),
                            )
                        })
                        .collect(),
                    header_uri: text(it.header_region_uri),
                })
            }
            other => panic!("a driver does not send {}", other.name()),
        }
    }
}

/// A driver, its directory and its clock.
pub(crate) struct Rig {
    /// `None` when somebody else removes the directory.
    base: Option<TempDir>,
    pub driver: Driver,
    pub now: Nanos,
    correlation: i64,
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut DriverConfig)) -> Self {
        Self::with_options(change, options())
    }

    pub(crate) fn with_options(change: impl FnOnce(&mut DriverConfig), options: DriverOptions) -> Self {
        let base = temp_base();
        let mut config = config(base.path());
        change(&mut config);
        let now = Nanos::from_secs(1_000);
        let driver = Driver::new(config, options, now).unwrap();
        Self { base: Some(base), driver, now, correlation: 0 }
    }

    /// Around a driver that was started elsewhere.
    pub(crate) fn around(driver: Driver) -> Self {
        Self { base: None, driver, now: Nanos::from_secs(1_000), correlation: 0 }
    }

    /// Ends the driver as kill -9 would, as far as a process can, and starts another one on the same directory.
    pub(crate) fn restart(self, change: impl FnOnce(&mut DriverConfig), first_lease: u64) -> Self {
        let Self { base, driver, now, correlation } = self;
        drop(driver);
        let mut config = config(base.as_ref().unwrap().path());
        change(&mut config);
        let driver = Driver::new(config, DriverOptions::new(first_lease << 1), now).unwrap();
        Self { base, driver, now, correlation }
    }

    pub(crate) fn base(&self) -> &Path {
        self.base.as_ref().unwrap().path()
    }

    /// Closes the driver in order and returns the directory it served.
    pub(crate) fn close(self) -> Option<TempDir> {
        self.driver.close();
        self.base
    }

    pub(crate) fn correlation(&mut self) -> i64 {
        self.correlation += 1;
        self.correlation
    }

    /// Puts a message in and returns what comes out.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Vec<Sent> {
        self.driver.on_control(bytes, self.now);
        self.outgoing()
    }

    pub(crate) fn outgoing(&mut self) -> Vec<Sent> {
        let mut sent = Vec::new();
        while let Some(message) = self.driver.pop_outgoing(self.now) {
            sent.push(Sent::decode(&message.bytes, message.endpoint));
        }
        sent
    }

    /// Moves the clock and runs one tick.
    pub(crate) fn step(&mut self, milliseconds: u64) -> Vec<Sent> {
        self.now = self.now.saturating_add(Nanos::from_millis(milliseconds));
        self.driver.on_tick(self.now);
        self.outgoing()
    }

    /// One attach; returns its answer only.
    pub(crate) fn ask(&mut self, request: &ShmAttachRequest) -> Answer {
        let sent = self.send(&request.to_vec().unwrap());
        match sent.first() {
            Some(Sent::Attach(answer)) => answer.clone(),
            other => panic!("no answer first, but {other:?}"),
        }
    }

    pub(crate) fn attach(&mut self, client: u32, role: Role, stream: u32) -> Answer {
        let correlation = self.correlation();
        self.ask(&request(client, role, stream, correlation))
    }

    /// An attach that must be granted.
    pub(crate) fn granted(&mut self, client: u32, role: Role, stream: u32) -> Answer {
        let answer = self.attach(client, role, stream);
        assert_eq!(answer.code, ResponseCode::Ok, "{}", answer.text);
        answer
    }

    pub(crate) fn keepalive(&mut self, answer: &Answer, client: u32, role: Role) -> Vec<Sent> {
        let keepalive = ShmLeaseKeepalive {
            lease_id: answer.lease.unwrap(),
            stream_id: answer.stream.unwrap(),
            client_id: client,
            role,
            client_timestamp_ns: 0,
        };
        self.send(&keepalive.to_vec().unwrap())
    }

    pub(crate) fn detach(&mut self, answer: &Answer, client: u32, role: Role) -> Vec<Sent> {
        let correlation_id = self.correlation();
        let request = ShmDetachRequest {
            correlation_id,
            lease_id: answer.lease.unwrap(),
            stream_id: answer.stream.unwrap(),
            client_id: client,
            role: Open::Listed(role),
        };
        self.send(&request.to_vec().unwrap())
    }

    pub(crate) fn shutdown_request(&mut self, token: &str, reason: Open<ShutdownReason>) -> Vec<Sent> {
        let correlation_id = self.correlation();
        let request = ShmDriverShutdownRequest {
            correlation_id,
            reason,
            token: token.into(),
            error_message: "maintenance".into(),
        };
        self.send(&request.to_vec().unwrap())
    }

    /// Directory of the namespace.
    pub(crate) fn root(&self) -> PathBuf {
        self.driver.snapshot(self.now).root
    }

    pub(crate) fn epoch_dirs(&self, stream: u32) -> BTreeSet<u64> {
        epoch_dirs(&self.root().join(stream.to_string()))
    }

    /// Everything below the namespace directory, as relative paths.
    pub(crate) fn files(&self) -> BTreeSet<PathBuf> {
        let root = self.root();
        files_below(&root).into_iter().map(|path| path.strip_prefix(&root).unwrap().to_owned()).collect()
    }
}

pub(crate) fn epoch_dirs(stream_dir: &Path) -> BTreeSet<u64> {
    let Ok(entries) = fs::read_dir(stream_dir) else { return BTreeSet::new() };
    entries.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect()
}

/// The path in a region URI.
pub(crate) fn path_of(uri: &str) -> PathBuf {
    PathBuf::from(uri.strip_prefix("shm:file?path=").unwrap_or_else(|| panic!("no region URI: {uri}")))
}

pub(crate) fn superblock(path: &Path) -> Superblock {
    let bytes = fs::read(path).unwrap();
    Superblock::decode(bytes[..SUPERBLOCK_LEN].try_into().unwrap())
}

/// Only the announces among what was sent.
pub(crate) fn announces(sent: &[Sent]) -> Vec<Announced> {
    sent.iter()
        .filter_map(|sent| match sent {
            Sent::Announce(announce) => Some(announce.clone()),
            _ => None,
        })
        .collect()
}

/// What was sent, by kind, to compare orders.
pub(crate) fn kinds(sent: &[Sent]) -> Vec<&'static str> {
    sent.iter()
        .map(|sent| match sent {
            Sent::Attach(_) => "attach",
            Sent::Detach { .. } => "detach",
            Sent::Revoked { .. } => "revoked",
            Sent::Shutdown { .. } => "shutdown",
            Sent::Announce(_) => "announce",
        })
        .collect()
}
