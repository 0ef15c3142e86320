//! Rules that span several keys: profiles, streams, ranges, channels (TP-030, TP-465, TP-466, TP-487).

use std::collections::{HashMap, HashSet};

use super::error::{ConfigError, Origin};
use super::names::is_region_dir;
use super::range::{IdRange, IdRanges};
use super::source::excerpt;
use super::{DriverConfig, Profile};
use crate::channel::Channel;
use crate::ids::AeronStreamId;

/// One use of an Aeron address by a key, for [`check_channels`].
#[derive(Debug, Clone, Copy)]
pub struct ChannelUse<'a> {
    /// Full key of the channel.
    pub key: &'a str,
    /// The channel.
    pub channel: &'a Channel,
    /// The stream id it is used with.
    pub stream_id: AeronStreamId,
}

/// Refuses channels that the media driver would refuse beside each other (TP-487). A node passes the uses of all its
/// components at once.
///
/// # Errors
/// [`ConfigError::ChannelClash`] names both keys and both values.
pub fn check_channels(uses: &[ChannelUse<'_>]) -> Result<(), ConfigError> {
    for (index, first) in uses.iter().enumerate() {
        for second in uses.iter().skip(index + 1).filter(|second| second.stream_id == first.stream_id) {
            if let Some(clash) = first.channel.conflicts_with(second.channel) {
                return Err(ConfigError::ChannelClash {
                    stream_id: first.stream_id,
                    first_key: first.key.to_owned(),
                    second_key: second.key.to_owned(),
                    clash,
                });
            }
        }
    }
    Ok(())
}

impl DriverConfig {
    /// Checks the rules that span several keys, and limits a program could have passed over when it built the
    /// configuration by hand. A loaded configuration has passed already.
    ///
    /// # Errors
    /// [`ConfigError`] for the first rule that is broken.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.check_limits()?;
        self.profiles.iter().try_for_each(check_profile)?;
        self.check_default_profile()?;
        self.check_streams()?;
        self.check_ranges()?;
        check_channels(&self.channel_uses())
    }

    /// The Aeron addresses the driver publishes on.
    #[must_use]
    pub fn channel_uses(&self) -> [ChannelUse<'_>; 3] {
        let driver = &self.driver;
        [
            ("driver.control_channel", &driver.control),
            ("driver.announce_channel", &driver.announce),
            ("driver.qos_channel", &driver.qos),
        ]
        .map(|(key, endpoint)| ChannelUse {
            key,
            channel: &endpoint.channel,
            stream_id: endpoint.stream_id,
        })
    }

    fn check_limits(&self) -> Result<(), ConfigError> {
        let dirs = std::iter::once(("shm.base_dir", &self.shm.base_dir))
            .chain(self.shm.allowed_base_dirs.iter().map(|dir| ("shm.allowed_base_dirs", dir)));
        for (key, dir) in dirs {
            let allowed = "an absolute path of printable ASCII without space, `?` and `|`";
            require(is_region_dir(dir), key, || excerpt(&dir.to_string_lossy()), allowed)?;
        }
        let page = self.shm.page_size_bytes;
        require(page.is_power_of_two(), "shm.page_size_bytes", || page.to_string(), "a power of two")?;
        for (key, period) in [
            ("policies.announce_period_ms", self.policies.announce_period),
            ("policies.lease_keepalive_interval_ms", self.policies.lease_keepalive_interval),
        ] {
            require(!period.is_zero(), key, || "0".to_owned(), "more than 0")?;
        }
        let grace = self.policies.lease_expiry_grace_intervals;
        require(grace != 0, "policies.lease_expiry_grace_intervals", || "0".to_owned(), "1 or more")?;
        for (key, endpoint) in [
            ("driver.control_stream_id", &self.driver.control),
            ("driver.announce_stream_id", &self.driver.announce),
            ("driver.qos_stream_id", &self.driver.qos),
        ] {
            let id = endpoint.stream_id.get();
            require(id > 0, key, || id.to_string(), "a number from 1 to 2147483647")?;
        }
        Ok(())
    }

    fn check_default_profile(&self) -> Result<(), ConfigError> {
        if self.default_profile().is_some() {
            return Ok(());
        }
        match &self.policies.default_profile {
            Some(found) => Err(ConfigError::UnknownProfile {
                key: "policies.default_profile".to_owned(),
                found: found.clone(),
            }),
            None if self.policies.allow_dynamic_streams => Err(ConfigError::NoProfile),
            None => Ok(()),
        }
    }

    fn check_streams(&self) -> Result<(), ConfigError> {
        if self.streams.is_empty() && !self.policies.allow_dynamic_streams {
            return Err(ConfigError::NoStreams);
        }
        let profiles: HashSet<&str> = self.profiles.iter().map(|profile| profile.name.as_str()).collect();
        let mut seen = HashMap::new();
        for stream in &self.streams {
            let id = stream.stream_id.get();
            let key = || format!("streams.{}.stream_id", stream.name);
            require(id != 0, &key(), || "0".to_owned(), "a number from 1 to 4294967295")?;
            if let Some(first) = seen.insert(id, &stream.name) {
                return Err(ConfigError::DuplicateStream {
                    stream_id: id,
                    first: first.clone(),
                    second: stream.name.clone(),
                });
            }
            if !profiles.contains(stream.profile.as_str()) {
                return Err(ConfigError::UnknownProfile {
                    key: format!("streams.{}.profile", stream.name),
                    found: stream.profile.clone(),
                });
            }
        }
        Ok(())
    }

    /// No id may serve two purposes (TP-030).
    fn check_ranges(&self) -> Result<(), ConfigError> {
        let driver = &self.driver;
        for (key, ranges) in [
            ("driver.descriptor_stream_id_range", &driver.descriptor_stream_id_range),
            ("driver.control_stream_id_range", &driver.control_stream_id_range),
        ] {
            let too_large = ranges.iter().find(|range| i32::try_from(range.end()).is_err());
            if let Some(range) = too_large {
                require(false, key, || range.to_string(), "Aeron stream ids, at most 2147483647")?;
            }
        }

        let mut uses = Vec::new();
        let mut add_ranges = |key: &str, ranges: &IdRanges| {
            uses.extend(ranges.iter().map(|&range| Use { range, key: key.to_owned(), is_range: true }));
        };
        add_ranges("driver.stream_id_range", &driver.stream_id_range);
        add_ranges("driver.descriptor_stream_id_range", &driver.descriptor_stream_id_range);
        add_ranges("driver.control_stream_id_range", &driver.control_stream_id_range);
        let mut add_id = |key: String, id: u32| {
            uses.extend(IdRange::new(id, id).map(|range| Use { range, key, is_range: false }));
        };
        add_id("driver.control_stream_id".to_owned(), driver.control.stream_id.get().cast_unsigned());
        add_id("driver.announce_stream_id".to_owned(), driver.announce.stream_id.get().cast_unsigned());
        add_id("driver.qos_stream_id".to_owned(), driver.qos.stream_id.get().cast_unsigned());
        for stream in &self.streams {
            add_id(format!("streams.{}.stream_id", stream.name), stream.stream_id.get());
        }
        first_overlap(uses)
    }
}

fn check_profile(profile: &Profile) -> Result<(), ConfigError> {
    if profile.payload_pools.is_empty() {
        return Err(ConfigError::NoPools { profile: profile.name.clone() });
    }
    let mut seen = HashSet::new();
    for pool in &profile.payload_pools {
        let id = pool.pool_id.get();
        let key = || format!("profiles.{}.payload_pools", profile.name);
        require(id != 0, &key(), || "pool id 0".to_owned(), "pools with ids from 1 to 65535")?;
        if !seen.insert(id) {
            return Err(ConfigError::DuplicatePool { profile: profile.name.clone(), pool_id: id });
        }
    }
    Ok(())
}

/// Ids and the key that claims them. Single ids may coincide with each other (messages of several kinds may share a
/// stream, TP-033), but not with a range.
struct Use {
    range: IdRange,
    key: String,
    is_range: bool,
}

fn first_overlap(mut uses: Vec<Use>) -> Result<(), ConfigError> {
    uses.sort_by_key(|one| (one.range.start(), one.range.end()));
    // Until the first overlap, each use ends behind all before it, so the latest one is the only one to compare with.
    // Two single ids may coincide, so an id is compared with the latest range.
    let mut latest: Option<&Use> = None;
    let mut latest_range: Option<&Use> = None;
    for one in &uses {
        let earlier = if one.is_range { latest } else { latest_range };
        if let Some(earlier) = earlier.filter(|earlier| one.range.start() <= earlier.range.end()) {
            return Err(ConfigError::Overlap {
                first_key: earlier.key.clone(),
                first: earlier.range,
                second_key: one.key.clone(),
                second: one.range,
            });
        }
        latest = Some(one);
        if one.is_range {
            latest_range = Some(one);
        }
    }
    Ok(())
}

fn require(
    holds: bool,
    key: &str,
    found: impl FnOnce() -> String,
    allowed: &'static str,
) -> Result<(), ConfigError> {
    if holds {
        return Ok(());
    }
    Err(ConfigError::Value { key: key.to_owned(), origin: Origin::Program, found: found(), allowed })
}
