//! The effective configuration as text, for people and for another start.

use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use toml::{Table, Value};

use super::{DriverConfig, Endpoint, IdRanges, Policies, Profile, ShmSection, StreamEntry};

impl DriverConfig {
    /// Every key with the value in effect, as a file that loads to the same configuration. The shutdown token is left
    /// out; a comment says whether there is one.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut root = Table::new();
        root.insert("driver".to_owned(), self.driver_table());
        root.insert("shm".to_owned(), shm_table(&self.shm));
        root.insert("policies".to_owned(), policies_table(&self.policies));
        let profiles: Table =
            self.profiles.iter().map(|one| (one.name.clone(), profile_table(one))).collect();
        let streams: Table = self.streams.iter().map(|one| (one.name.clone(), stream_table(one))).collect();
        root.insert("profiles".to_owned(), Value::Table(profiles));
        root.insert("streams".to_owned(), Value::Table(streams));

        let token = match self.policies.shutdown_token {
            Some(_) => "# policies.shutdown_token is set and not shown\n",
            None => "",
        };
        format!("{token}{root}")
    }

    fn driver_table(&self) -> Value {
        let driver = &self.driver;
        let aeron_dir = driver.aeron_dir.as_deref().unwrap_or(Path::new(""));
        let mut keys = Keys::default();
        keys.text("instance_id", &driver.instance_id);
        keys.text("aeron_dir", aeron_dir.display());
        keys.endpoint("control_channel", "control_stream_id", &driver.control);
        keys.endpoint("announce_channel", "announce_stream_id", &driver.announce);
        keys.endpoint("qos_channel", "qos_stream_id", &driver.qos);
        keys.ranges("stream_id_range", &driver.stream_id_range);
        keys.ranges("descriptor_stream_id_range", &driver.descriptor_stream_id_range);
        keys.ranges("control_stream_id_range", &driver.control_stream_id_range);
        keys.into()
    }
}

fn shm_table(shm: &ShmSection) -> Value {
    let mut keys = Keys::default();
    keys.text("base_dir", shm.base_dir.display());
    keys.text("namespace", &shm.namespace);
    keys.flag("require_hugepages", shm.require_hugepages);
    keys.number("page_size_bytes", shm.page_size_bytes);
    keys.text("permissions_mode", shm.permissions_mode);
    keys.texts("allowed_base_dirs", shm.allowed_base_dirs.iter().map(|dir| dir.display()));
    keys.into()
}

fn policies_table(policies: &Policies) -> Value {
    let mut keys = Keys::default();
    keys.flag("allow_dynamic_streams", policies.allow_dynamic_streams);
    if let Some(name) = &policies.default_profile {
        keys.text("default_profile", name);
    }
    keys.millis("announce_period_ms", policies.announce_period);
    keys.millis("lease_keepalive_interval_ms", policies.lease_keepalive_interval);
    keys.number("lease_expiry_grace_intervals", policies.lease_expiry_grace_intervals);
    keys.millis("node_id_reuse_cooldown_ms", policies.node_id_reuse_cooldown);
    keys.flag("prefault_shm", policies.prefault_shm);
    keys.flag("mlock_shm", policies.mlock_shm);
    keys.flag("reuse_existing_shm", policies.reuse_existing_shm);
    keys.flag("cleanup_shm_on_exit", policies.cleanup_shm_on_exit);
    keys.flag("epoch_gc_enabled", policies.epoch_gc_enabled);
    keys.number("epoch_gc_keep", policies.epoch_gc_keep);
    keys.number("epoch_gc_min_age_ns", saturated(policies.epoch_gc_min_age.as_nanos()));
    keys.flag("epoch_gc_on_startup", policies.epoch_gc_on_startup);
    keys.millis("shutdown_timeout_ms", policies.shutdown_timeout);
    keys.into()
}

fn profile_table(profile: &Profile) -> Value {
    let mut keys = Keys::default();
    keys.number("header_nslots", profile.header_nslots.get());
    let pools = profile.payload_pools.iter().map(|pool| {
        let mut keys = Keys::default();
        keys.number("pool_id", pool.pool_id.get());
        keys.number("stride_bytes", pool.stride.get());
        Value::from(keys)
    });
    keys.0.insert("payload_pools".to_owned(), Value::Array(pools.collect()));
    keys.into()
}

fn stream_table(stream: &StreamEntry) -> Value {
    let mut keys = Keys::default();
    keys.number("stream_id", stream.stream_id.get());
    keys.text("profile", &stream.profile);
    keys.into()
}

/// A table under construction.
#[derive(Default)]
struct Keys(Table);

impl Keys {
    fn text(&mut self, key: &str, value: impl Display) {
        self.0.insert(key.to_owned(), Value::String(value.to_string()));
    }

    fn texts(&mut self, key: &str, values: impl Iterator<Item = impl Display>) {
        let texts = values.map(|value| Value::String(value.to_string()));
        self.0.insert(key.to_owned(), Value::Array(texts.collect()));
    }

    fn flag(&mut self, key: &str, value: bool) {
        self.0.insert(key.to_owned(), Value::Boolean(value));
    }

    fn number(&mut self, key: &str, value: impl Into<i64>) {
        self.0.insert(key.to_owned(), Value::Integer(value.into()));
    }

    fn millis(&mut self, key: &str, value: Duration) {
        self.number(key, saturated(value.as_millis()));
    }

    fn endpoint(&mut self, channel: &str, stream_id: &str, endpoint: &Endpoint) {
        self.text(channel, &endpoint.channel);
        self.number(stream_id, endpoint.stream_id.get());
    }

    fn ranges(&mut self, key: &str, ranges: &IdRanges) {
        self.texts(key, ranges.iter());
    }
}

impl From<Keys> for Value {
    fn from(keys: Keys) -> Self {
        Self::Table(keys.0)
    }
}

/// TOML numbers are signed: what does not fit is longer than 292 years.
fn saturated(value: u128) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
