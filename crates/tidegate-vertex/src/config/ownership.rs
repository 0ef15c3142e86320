//! `[ownership]`: who decides which vertex has a partition (10.1).

use serde::Deserialize;

use super::{ConfigError, Pipeline};
use crate::own::Pins;

/// `[ownership]`
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum OwnershipConfig {
    /// The lock of the ledger.
    Static {},
    /// Another part of the same process.
    InProc {},
    /// A bucket of JetStream KV.
    #[cfg(feature = "nats")]
    Jetstream(Box<jetstream::JetstreamOwnership>),
}

impl Default for OwnershipConfig {
    fn default() -> Self {
        Self::Static {}
    }
}

impl OwnershipConfig {
    /// Whether the vertex ends when it loses a partition, instead of waiting for it to come back.
    pub fn exits_when_stale(&self) -> bool {
        match self {
            Self::Static {} | Self::InProc {} => false,
            #[cfg(feature = "nats")]
            Self::Jetstream(keys) => keys.exits_when_stale(),
        }
    }

    /// The partitions that this vertex may have; all of them without.
    pub(super) fn pins(&self) -> Option<&Pins> {
        match self {
            Self::Static {} | Self::InProc {} => None,
            #[cfg(feature = "nats")]
            Self::Jetstream(keys) => keys.pins(),
        }
    }

    /// Whether partitions move between hosts that have ledgers of their own.
    pub fn is_shared(&self) -> bool {
        !matches!(self, Self::Static {} | Self::InProc {})
    }

    /// Whether the rest of the file fits.
    pub(super) fn check(&self, pipeline: &Pipeline) -> Result<(), ConfigError> {
        let _ = pipeline;
        match self {
            Self::Static {} | Self::InProc {} => Ok(()),
            #[cfg(feature = "nats")]
            Self::Jetstream(keys) => keys.check(pipeline),
        }
    }
}

#[cfg(feature = "nats")]
pub(super) mod jetstream {
    //! The keys of the kind `jetstream`.

    use serde::{Deserialize, de::Error as _};
    use tidegate_shm::clock::Nanos;

    use super::super::{ConfigError, Pipeline, SourceConfig, units::Time};
    use crate::nats::{
        Endpoint,
        own::{Pins, Settings},
    };

    /// The keys of the kind `jetstream`.
    #[derive(Debug, Clone, Deserialize)]
    #[serde(try_from = "toml::Table")]
    pub struct JetstreamOwnership {
        endpoint: Endpoint,
        keys: Keys,
        pins: Option<Pins>,
        instance: Option<String>,
    }

    #[derive(Debug, Clone, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Keys {
        #[serde(default = "lease")]
        lease: Time,
        instance: Option<String>,
        #[serde(default = "auto")]
        partitions: String,
        #[serde(default)]
        on_stale: OnStale,
        #[serde(default = "rebalance")]
        rebalance_interval: Time,
    }

    /// What a vertex does that has lost a partition.
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum OnStale {
        /// It waits for it to be free again.
        #[default]
        Fence,
        /// It ends.
        Exit,
    }

    impl TryFrom<toml::Table> for JetstreamOwnership {
        type Error = toml::de::Error;

        fn try_from(table: toml::Table) -> Result<Self, Self::Error> {
            let (endpoint, keys) = Endpoint::split(table)?;
            let keys: Keys = keys.try_into()?;
            let refuse = |text: String| Err(toml::de::Error::custom(text));
            let pins = match keys.partitions.as_str() {
                "auto" => None,
                text => match text.parse() {
                    Ok(pins) => Some(pins),
                    Err(_) => {
                        return refuse(format!(
                            "partitions = {text:?}; it has to be \"auto\" or numbers and ranges like \"0-3,7\""
                        ));
                    }
                },
            };
            let instance = match &keys.instance {
                None => None,
                Some(text) => match expand(text) {
                    Ok(name) if !name.is_empty() => Some(name),
                    Ok(_) => {
                        return refuse(
                            "instance is empty; it has to be a name, different for each vertex".to_owned(),
                        );
                    }
                    Err(name) => {
                        return refuse(format!(
                            "instance = {text:?}: the environment variable {name} is not set; it has to be, or another name"
                        ));
                    }
                },
            };
            if !(LEAST_LEASE..=LONGEST_LEASE).contains(&keys.lease.0) {
                return refuse(format!(
                    "lease = {}ms; it has to be 500ms to 10m",
                    keys.lease.0.0 / 1_000_000
                ));
            }
            Ok(Self { endpoint, keys, pins, instance })
        }
    }

    impl JetstreamOwnership {
        /// The partitions that it may have; all of them without.
        pub(super) fn pins(&self) -> Option<&Pins> {
            self.pins.as_ref()
        }

        /// Pins it to these partitions.
        pub(in crate::config) fn pin(&mut self, pins: Pins) {
            self.pins = Some(pins);
        }

        /// How an instance with this file takes part.
        pub fn settings(&self, pipeline: &Pipeline) -> Settings {
            Settings {
                uid: pipeline.uid(),
                pipeline: pipeline.pipeline.name.clone(),
                endpoint: self.endpoint.clone(),
                instance: self.instance.clone().unwrap_or_else(|| usual_name(pipeline)),
                lease: self.keys.lease.0,
                rebalance: self.keys.rebalance_interval.0,
                pins: self.pins.clone(),
                partitions: partitions(&pipeline.source).unwrap_or(0),
                capacity: pipeline.udf.workers.get(),
                accept_regression: pipeline.accept_regression,
            }
        }

        /// How long an owner may be silent.
        pub fn lease(&self) -> Nanos {
            self.keys.lease.0
        }

        pub(super) fn exits_when_stale(&self) -> bool {
            self.keys.on_stale == OnStale::Exit
        }

        pub(super) fn check(&self, pipeline: &Pipeline) -> Result<(), ConfigError> {
            let refused = |key, found: &str, allowed| {
                Err(ConfigError::Value { key, number: 0, found: found.to_owned(), allowed })
            };
            if pipeline.ledger.is_none() {
                let allowed = "there with ownership.kind = \"jetstream\": what an epoch is becomes durable on this host first";
                return refused("ledger", "missing", allowed);
            }
            if partitions(&pipeline.source).is_none() {
                let allowed = "\"jetstream\" in partition mode or \"generator\" with ownership.kind = \"jetstream\": every host has to read the same";
                // Of the kinds that have partitions with others, one mode has none.
                let mode = if pipeline.source.kind() == "jetstream" { " in work-queue mode" } else { "" };
                return refused("source.kind", &format!("{}{mode}", pipeline.source.kind()), allowed);
            }
            Ok(())
        }
    }

    /// Partitions of a source that is the same on every host.
    fn partitions(source: &SourceConfig) -> Option<u32> {
        match source {
            SourceConfig::Generator { partitions, .. } => Some(partitions.get()),
            SourceConfig::Jetstream(keys) => keys.partitions(),
            _ => None,
        }
    }

    /// The host, and a number for the ledger: the same at every start, and another for each vertex of a host.
    fn usual_name(pipeline: &Pipeline) -> String {
        let path = pipeline.ledger.as_ref().map(|ledger| &ledger.path);
        let path =
            path.map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone())).unwrap_or_default();
        let number = twox_hash::XxHash3_64::oneshot(path.as_os_str().as_encoded_bytes()) & 0xFFFF;
        format!("{}-{number:04x}", rustix::system::uname().nodename().to_string_lossy())
    }

    /// Puts variables of the environment in for their names; the name that is not set.
    fn expand(text: &str) -> Result<String, String> {
        let mut whole = String::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once("${") {
            let Some((name, after)) = behind.split_once('}') else { break };
            whole.push_str(before);
            whole.push_str(&std::env::var(name).map_err(|_| name.to_owned())?);
            rest = after;
        }
        whole.push_str(rest);
        Ok(whole)
    }

    fn lease() -> Time {
        Time(Nanos::from_secs(10))
    }

    fn rebalance() -> Time {
        Time(Nanos::from_secs(10))
    }

    fn auto() -> String {
        "auto".to_owned()
    }

    const LEAST_LEASE: Nanos = Nanos::from_millis(500);
    const LONGEST_LEASE: Nanos = Nanos::from_secs(600);
}
