//! Configuration of the tensor driver: a TOML file, overridden by the environment (chapter 24.1).
//!
//! | module | what it does |
//! |---|---|
//! | here | the typed configuration, its defaults, the node's own configuration |
//! | `load` | text and environment to [`DriverConfig`] |
//! | `check` | rules that span several keys: ranges, profiles, streams, channels |
//! | `dump` | [`DriverConfig`] back to text |
//! | `range`, `names`, `environment` | the parts: id ranges; directory components and modes; variables of 24.6 |
//!
//! Precedence, highest first: environment variable of the key, file, default (TP-462). Nothing here opens a file or
//! reads the environment; both are passed in. A configuration that loads is complete and consistent, what cannot be
//! known without the host (does the base directory exist, are huge pages there) is checked by whoever uses it.

mod check;
mod dump;
mod environment;
mod error;
mod load;
mod names;
mod range;
mod source;

use std::path::PathBuf;
use std::time::Duration;

use crate::channel::Channel;
use crate::ids::{AeronStreamId, PoolId, StreamId};
use crate::layout::{PoolSpec, SlotCount, header_ring_len, pool_len};

pub use check::{ChannelUse, check_channels};
pub use environment::{LogLevel, log_level, tool_endpoint};
pub use error::{ConfigError, Origin, UnknownKey};
pub use load::Loaded;
pub use names::{FileMode, Namespace, Secret, user_component};
pub use range::{IdRange, IdRanges, ParseRangeError};

/// Aeron stream ids of the default plan (3.1).
pub mod stream_ids {
    use crate::ids::AeronStreamId;

    /// Driver messages, Hello, Config, progress.
    pub const CONTROL: AeronStreamId = AeronStreamId::new(1000);
    /// Announces of region sets.
    pub const ANNOUNCE: AeronStreamId = AeronStreamId::new(1001);
    /// Frame descriptors shared by all consumers.
    pub const DESCRIPTOR: AeronStreamId = AeronStreamId::new(1100);
    /// Quality of service.
    pub const QOS: AeronStreamId = AeronStreamId::new(1200);
    /// Metadata.
    pub const METADATA: AeronStreamId = AeronStreamId::new(1300);
}

/// Everything a driver is configured with. Field names are the keys of 24.1 (TP-461).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriverConfig {
    /// `[driver]`
    pub driver: DriverSection,
    /// `[shm]`
    pub shm: ShmSection,
    /// `[policies]`
    pub policies: Policies,
    /// `[profiles.<name>]`, in the order of definition.
    pub profiles: Vec<Profile>,
    /// `[streams.<name>]`, in the order of definition.
    pub streams: Vec<StreamEntry>,
}

/// `[driver]`: who the driver is and where it talks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriverSection {
    /// Name of this driver in discovery.
    pub instance_id: String,
    /// Directory of the media driver; `None` for Aeron's default.
    pub aeron_dir: Option<PathBuf>,
    /// Control plane (`control_channel`, `control_stream_id`).
    pub control: Endpoint,
    /// Announces (`announce_channel`, `announce_stream_id`); the control plane's values unless set.
    pub announce: Endpoint,
    /// Quality of service (`qos_channel`, `qos_stream_id`); informational (TP-288).
    pub qos: Endpoint,
    /// Stream ids the driver may give to dynamic streams.
    pub stream_id_range: IdRanges,
    /// Aeron stream ids for descriptors of single consumers.
    pub descriptor_stream_id_range: IdRanges,
    /// Aeron stream ids for progress of single consumers.
    pub control_stream_id_range: IdRanges,
}

/// An Aeron address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The channel.
    pub channel: Channel,
    /// The stream id on it, 1 or more.
    pub stream_id: AeronStreamId,
}

/// `[shm]`: where regions lie and who may touch them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShmSection {
    /// Directory of all regions.
    pub base_dir: PathBuf,
    /// Separates drivers of one user.
    pub namespace: Namespace,
    /// Whether clients without a wish get huge pages (TP-247).
    pub require_hugepages: bool,
    /// Page size, for planning; strides are never inferred from it (TP-084).
    pub page_size_bytes: u32,
    /// Mode of region files (TP-068).
    pub permissions_mode: FileMode,
    /// Directories that region paths must lie in (TP-062).
    pub allowed_base_dirs: Vec<PathBuf>,
}

/// `[policies]`: what the driver does on its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policies {
    /// Whether clients may create streams that are not configured.
    pub allow_dynamic_streams: bool,
    /// Profile of dynamic streams; the first one when unset (TP-465).
    pub default_profile: Option<String>,
    /// Time between two announces of a stream.
    pub announce_period: Duration,
    /// Time between two keepalives of a lease.
    pub lease_keepalive_interval: Duration,
    /// Missed keepalives after which a lease expires.
    pub lease_expiry_grace_intervals: u32,
    /// How long a released node id rests, as configured; see [`node_id_cooldown`](Self::node_id_cooldown).
    pub node_id_reuse_cooldown: Duration,
    /// Whether new regions are filled with zeros.
    pub prefault_shm: bool,
    /// Whether regions are locked in memory.
    pub mlock_shm: bool,
    /// Whether region files that match exactly are taken over (TP-055).
    pub reuse_existing_shm: bool,
    /// Whether regions are removed at shutdown.
    pub cleanup_shm_on_exit: bool,
    /// Whether old epochs are collected.
    pub epoch_gc_enabled: bool,
    /// How many of the highest epochs the collector keeps.
    pub epoch_gc_keep: u32,
    /// Age below which the collector keeps an epoch; 3 announce periods unless set.
    pub epoch_gc_min_age: Duration,
    /// Whether the collector runs at start.
    pub epoch_gc_on_startup: bool,
    /// How long a shutdown waits for clients.
    pub shutdown_timeout: Duration,
    /// Token that authorises a shutdown request; `None` disables requests.
    pub shutdown_token: Option<Secret>,
}

/// `[profiles.<name>]`: geometry of the regions of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// The name.
    pub name: String,
    /// Slots of the header ring and of each pool.
    pub header_nslots: SlotCount,
    /// At least one pool, ids unique and not 0 (TP-465).
    pub payload_pools: Vec<PoolSpec>,
}

/// `[streams.<name>]`: a stream that exists without being asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamEntry {
    /// The name.
    pub name: String,
    /// The stream id, not 0.
    pub stream_id: StreamId,
    /// Name of its profile.
    pub profile: String,
}

impl DriverConfig {
    /// The configuration of a node that was started without a file.
    ///
    /// There is the stream `primary`, id 10000, which existing programs use unless told otherwise; clients create the others
    /// they need, ids 20000 to 29999. Announces have their own Aeron stream (TP-032). The one
    /// profile, `video`, has 16 slots of 64 KiB, 1 MiB and 8 MiB: 8 MiB holds a full-HD colour image, the small classes
    /// keep descriptors of results and thumbnails out of it, and 16 slots cover 60 images per second at four times
    /// 60 ms of latency (TP-106). A new stream then costs 145 MiB, which are really used because regions are filled at
    /// creation. Strides are powers of two and pools far below 4 GiB, so that every peer can use them (TP-085, TP-086).
    #[must_use]
    pub fn default_node() -> Self {
        let video = Profile {
            name: "video".to_owned(),
            header_nslots: VIDEO_SLOTS,
            payload_pools: VIDEO_POOLS.to_vec(),
        };
        let driver = DriverSection::default();
        Self {
            driver: DriverSection {
                announce: Endpoint { stream_id: stream_ids::ANNOUNCE, ..driver.announce },
                stream_id_range: IdRanges::from(DYNAMIC_STREAM_IDS),
                ..driver
            },
            shm: ShmSection::default(),
            policies: Policies { allow_dynamic_streams: true, ..Policies::default() },
            streams: vec![StreamEntry {
                name: "primary".to_owned(),
                stream_id: PRIMARY_STREAM,
                profile: video.name.clone(),
            }],
            profiles: vec![video],
        }
    }

    /// A profile by name.
    #[must_use]
    pub fn profile(&self, name: &str) -> Option<&Profile> {
        self.profiles.iter().find(|profile| profile.name == name)
    }

    /// The profile of dynamic streams: the one named in the policies, else the first (TP-465).
    #[must_use]
    pub fn default_profile(&self) -> Option<&Profile> {
        match &self.policies.default_profile {
            Some(name) => self.profile(name),
            None => self.profiles.first(),
        }
    }

    /// A configured stream by name.
    #[must_use]
    pub fn stream(&self, name: &str) -> Option<&StreamEntry> {
        self.streams.iter().find(|stream| stream.name == name)
    }

    /// A configured stream by id.
    #[must_use]
    pub fn stream_by_id(&self, stream_id: StreamId) -> Option<&StreamEntry> {
        self.streams.iter().find(|stream| stream.stream_id == stream_id)
    }
}

impl Default for DriverSection {
    fn default() -> Self {
        let control = Endpoint { channel: Channel::default(), stream_id: stream_ids::CONTROL };
        Self {
            instance_id: "driver-01".to_owned(),
            aeron_dir: None,
            announce: control.clone(),
            control,
            qos: Endpoint { channel: Channel::default(), stream_id: stream_ids::QOS },
            stream_id_range: IdRanges::default(),
            descriptor_stream_id_range: IdRanges::default(),
            control_stream_id_range: IdRanges::default(),
        }
    }
}

impl Default for ShmSection {
    fn default() -> Self {
        let base_dir = PathBuf::from("/dev/shm");
        Self {
            allowed_base_dirs: vec![base_dir.clone()],
            base_dir,
            namespace: Namespace::default(),
            require_hugepages: false,
            page_size_bytes: 4096,
            permissions_mode: FileMode::default(),
        }
    }
}

impl Policies {
    /// How long a released node id really rests: at least one second, unless reuse was allowed with 0 (TP-274).
    #[must_use]
    pub fn node_id_cooldown(&self) -> Duration {
        match self.node_id_reuse_cooldown {
            Duration::ZERO => Duration::ZERO,
            configured => configured.max(Duration::from_secs(1)),
        }
    }
}

impl Default for Policies {
    fn default() -> Self {
        let announce_period = Duration::from_secs(1);
        Self {
            allow_dynamic_streams: false,
            default_profile: None,
            announce_period,
            lease_keepalive_interval: Duration::from_secs(1),
            lease_expiry_grace_intervals: 3,
            node_id_reuse_cooldown: Duration::from_secs(1),
            prefault_shm: true,
            mlock_shm: false,
            reuse_existing_shm: false,
            cleanup_shm_on_exit: false,
            epoch_gc_enabled: true,
            epoch_gc_keep: 2,
            epoch_gc_min_age: EPOCH_GC_PERIODS * announce_period,
            epoch_gc_on_startup: false,
            shutdown_timeout: Duration::from_secs(2),
            shutdown_token: None,
        }
    }
}

impl Profile {
    /// Bytes of shared memory that one epoch of a stream of this profile takes.
    #[must_use]
    pub fn region_bytes(&self) -> u64 {
        let pools = self.payload_pools.iter().map(|pool| pool_len(self.header_nslots, pool.stride));
        pools.fold(header_ring_len(self.header_nslots), u64::saturating_add)
    }
}

/// Default of `epoch_gc_min_age_ns`, in announce periods.
const EPOCH_GC_PERIODS: u32 = 3;

const PRIMARY_STREAM: StreamId = StreamId::new(10_000);
const DYNAMIC_STREAM_IDS: IdRange = IdRange::known(20_000, 29_999);
const VIDEO_SLOTS: SlotCount = SlotCount::known(16);
const VIDEO_POOLS: [PoolSpec; 3] = [
    PoolSpec { pool_id: PoolId::new(1), stride: crate::layout::Stride::known(64 << 10) },
    PoolSpec { pool_id: PoolId::new(2), stride: crate::layout::Stride::known(1 << 20) },
    PoolSpec { pool_id: PoolId::new(3), stride: crate::layout::Stride::known(8 << 20) },
];

#[cfg(test)]
mod tests;
