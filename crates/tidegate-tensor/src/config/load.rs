//! From text and environment to a [`DriverConfig`].

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use super::error::{ConfigError, Origin, UnknownKey};
use super::source::{Env, Section, Source};
use super::{
    DriverConfig, DriverSection, EPOCH_GC_PERIODS, Endpoint, IdRanges, Policies, Profile, ShmSection,
    StreamEntry,
};
use crate::layout::{PoolSpec, SlotCount};

/// Tables of other components that may stand in a driver's file. They are read by those components.
const FOREIGN: [&str; 10] = [
    "bridge",
    "discovery",
    "hub",
    "mappings",
    "messaging",
    "metrics",
    "node",
    "rate_limiter",
    "supervisor",
    "vertex",
];

/// Slots of a profile that does not state them.
const DEFAULT_SLOTS: SlotCount = SlotCount::known(1024);

/// A configuration and what the operator should know about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The complete, consistent configuration.
    pub config: DriverConfig,
    /// Keys of the file that nobody reads, in the order of the tables.
    pub warnings: Vec<UnknownKey>,
}

impl DriverConfig {
    /// Loads the text of a configuration file; `env` looks up environment variables, which win over the file
    /// (TP-462). Tables of other components are ignored.
    ///
    /// # Errors
    /// [`ConfigError`] for the first value that is wrong by itself, then for the first rule over several keys that is
    /// broken (see [`validate`](Self::validate)).
    pub fn from_toml_str(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, ConfigError> {
        let source = Source::new(text, env);
        let document = source.parse()?;
        let mut warnings = Vec::new();
        let mut root = Section::root(source, &document);
        let config = Self {
            driver: read_driver(root.section("driver")?, env, &mut warnings)?,
            shm: read_shm(root.section("shm")?, &mut warnings)?,
            policies: read_policies(root.section("policies")?, &mut warnings)?,
            profiles: read_profiles(&mut root, &mut warnings)?,
            streams: read_streams(&mut root, &mut warnings)?,
        };
        root.finish(&FOREIGN, &mut warnings);
        config.validate().map_err(|error| located(error, |key| source.origin_of(&document, key)))?;
        Ok(Loaded { config, warnings })
    }
}

/// Adds the place in the file to an error of [`DriverConfig::validate`], which knows keys only.
fn located(error: ConfigError, origin_of: impl FnOnce(&str) -> Origin) -> ConfigError {
    match error {
        ConfigError::Value { key, found, allowed, .. } => {
            ConfigError::Value { origin: origin_of(&key), key, found, allowed }
        }
        other => other,
    }
}

fn read_driver(
    mut section: Section<'_>,
    env: Env<'_>,
    warnings: &mut Vec<UnknownKey>,
) -> Result<DriverSection, ConfigError> {
    let default = DriverSection::default();
    let control = read_endpoint(&mut section, "control_channel", "control_stream_id", &default.control)?;
    let driver = DriverSection {
        instance_id: section.or("instance_id", default.instance_id)?,
        aeron_dir: section
            .optional("aeron_dir")?
            .filter(|dir: &PathBuf| !dir.as_os_str().is_empty())
            .or_else(|| env("AERON_DIR").filter(|dir| !dir.is_empty()).map(PathBuf::from)),
        announce: read_endpoint(&mut section, "announce_channel", "announce_stream_id", &control)?,
        control,
        qos: read_endpoint(&mut section, "qos_channel", "qos_stream_id", &default.qos)?,
        stream_id_range: section.or("stream_id_range", IdRanges::default())?,
        descriptor_stream_id_range: section.or("descriptor_stream_id_range", IdRanges::default())?,
        control_stream_id_range: section.or("control_stream_id_range", IdRanges::default())?,
    };
    section.finish(&[], warnings);
    Ok(driver)
}

fn read_endpoint(
    section: &mut Section<'_>,
    channel: &'static str,
    stream_id: &'static str,
    default: &Endpoint,
) -> Result<Endpoint, ConfigError> {
    Ok(Endpoint {
        channel: section.channel(channel, &default.channel)?,
        stream_id: section.or(stream_id, default.stream_id)?,
    })
}

fn read_shm(mut section: Section<'_>, warnings: &mut Vec<UnknownKey>) -> Result<ShmSection, ConfigError> {
    let default = ShmSection::default();
    let base_dir = section.or("base_dir", default.base_dir)?;
    let allowed = section.texts("allowed_base_dirs")?;
    let shm = ShmSection {
        allowed_base_dirs: match allowed {
            Some(dirs) => dirs.into_iter().map(PathBuf::from).collect(),
            None => vec![base_dir.clone()],
        },
        base_dir,
        namespace: section.or("namespace", default.namespace)?,
        require_hugepages: section.or("require_hugepages", default.require_hugepages)?,
        page_size_bytes: section.or("page_size_bytes", default.page_size_bytes)?,
        permissions_mode: section.or("permissions_mode", default.permissions_mode)?,
    };
    section.finish(&[], warnings);
    Ok(shm)
}

fn read_policies(mut section: Section<'_>, warnings: &mut Vec<UnknownKey>) -> Result<Policies, ConfigError> {
    let default = Policies::default();
    let announce_period = read_millis(&mut section, "announce_period_ms")?.unwrap_or(default.announce_period);
    let gc_age = section.optional("epoch_gc_min_age_ns")?.map(Duration::from_nanos);
    let policies = Policies {
        allow_dynamic_streams: section.or("allow_dynamic_streams", default.allow_dynamic_streams)?,
        default_profile: section.optional("default_profile")?.filter(|name: &String| !name.is_empty()),
        announce_period,
        lease_keepalive_interval: read_millis(&mut section, "lease_keepalive_interval_ms")?
            .unwrap_or(default.lease_keepalive_interval),
        lease_expiry_grace_intervals: section
            .optional("lease_expiry_grace_intervals")?
            .map_or(default.lease_expiry_grace_intervals, NonZeroU32::get),
        node_id_reuse_cooldown: section
            .optional("node_id_reuse_cooldown_ms")?
            .map_or(default.node_id_reuse_cooldown, millis),
        prefault_shm: section.or("prefault_shm", default.prefault_shm)?,
        mlock_shm: section.or("mlock_shm", default.mlock_shm)?,
        reuse_existing_shm: section.or("reuse_existing_shm", default.reuse_existing_shm)?,
        cleanup_shm_on_exit: section.or("cleanup_shm_on_exit", default.cleanup_shm_on_exit)?,
        epoch_gc_enabled: section.or("epoch_gc_enabled", default.epoch_gc_enabled)?,
        epoch_gc_keep: section.or("epoch_gc_keep", default.epoch_gc_keep)?,
        epoch_gc_min_age: gc_age.unwrap_or_else(|| announce_period.saturating_mul(EPOCH_GC_PERIODS)),
        epoch_gc_on_startup: section.or("epoch_gc_on_startup", default.epoch_gc_on_startup)?,
        shutdown_timeout: section.optional("shutdown_timeout_ms")?.map_or(default.shutdown_timeout, millis),
        shutdown_token: section.or("shutdown_token", default.shutdown_token)?,
    };
    section.finish(&[], warnings);
    Ok(policies)
}

fn read_profiles(
    root: &mut Section<'_>,
    warnings: &mut Vec<UnknownKey>,
) -> Result<Vec<Profile>, ConfigError> {
    let mut profiles = Vec::new();
    for (name, mut section) in root.named_sections("profiles")? {
        let header_nslots = section.or("header_nslots", DEFAULT_SLOTS)?;
        let mut payload_pools = Vec::new();
        for mut pool in section.listed_sections("payload_pools")? {
            payload_pools.push(PoolSpec {
                pool_id: pool.required("pool_id")?,
                stride: pool.required("stride_bytes")?,
            });
            pool.finish(&[], warnings);
        }
        section.finish(&[], warnings);
        profiles.push(Profile { name, header_nslots, payload_pools });
    }
    Ok(profiles)
}

fn read_streams(
    root: &mut Section<'_>,
    warnings: &mut Vec<UnknownKey>,
) -> Result<Vec<StreamEntry>, ConfigError> {
    let mut streams = Vec::new();
    for (name, mut section) in root.named_sections("streams")? {
        streams.push(StreamEntry {
            stream_id: section.required("stream_id")?,
            profile: section.required("profile")?,
            name,
        });
        section.finish(&[], warnings);
    }
    Ok(streams)
}

/// A time that must not be 0, because something happens once per such time.
fn read_millis(section: &mut Section<'_>, key: &'static str) -> Result<Option<Duration>, ConfigError> {
    Ok(section.optional::<NonZeroU32>(key)?.map(|value| millis(value.get())))
}

fn millis(value: u32) -> Duration {
    Duration::from_millis(u64::from(value))
}
