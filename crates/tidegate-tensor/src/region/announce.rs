//! Saying where the regions of an epoch are (10.1): by the driver, or by a producer without one.

use tidegate_sbe::EncodeError;
use tidegate_sbe::control::{ClockDomain, PayloadPool, ShmPoolAnnounce};
use tidegate_shm::clock::Nanos;

use super::RegionSpec;
use crate::ids::ClientId;
use crate::layout::{LAYOUT_VERSION, SLOT_LEN};

/// The announce of a new epoch is repeated after this long, because a C consumer drops the first one it sees (TP-490).
pub(crate) const ANNOUNCE_REPEAT: Nanos = Nanos::from_millis(75);

/// The URIs of a region set as text, for messages to borrow from.
pub(crate) struct RegionUris {
    pub header: String,
    /// In the order of [`RegionSpec::pools`].
    pub pools: Vec<String>,
}

impl RegionUris {
    pub(crate) fn new(regions: &RegionSpec) -> Self {
        Self {
            header: regions.header().to_string(),
            pools: regions.pools().iter().map(|pool| pool.uri.to_string()).collect(),
        }
    }
}

impl RegionSpec {
    /// The announce of these regions as sent at `sent` (TP-150). `producer` is who is attached, if somebody is (TP-148).
    pub(crate) fn to_announce(
        &self,
        producer: Option<ClientId>,
        sent: Nanos,
    ) -> Result<Vec<u8>, EncodeError> {
        let uris = RegionUris::new(self);
        let nslots = self.slots().get();
        let pools = self.pools().iter().zip(&uris.pools);
        ShmPoolAnnounce {
            stream_id: self.stream().get(),
            producer_id: producer.map_or(0, ClientId::get),
            epoch: self.epoch().get(),
            announce_timestamp_ns: sent.as_u64(),
            announce_clock_domain: ClockDomain::Monotonic,
            layout_version: LAYOUT_VERSION,
            header_nslots: nslots,
            header_slot_bytes: SLOT_LEN as u16,
            payload_pools: pools
                .map(|(pool, uri)| PayloadPool {
                    pool_id: pool.geometry.pool_id.get(),
                    pool_nslots: nslots,
                    stride_bytes: pool.geometry.stride.get(),
                    region_uri: uri.as_str().into(),
                })
                .collect(),
            header_region_uri: uris.header.as_str().into(),
        }
        .to_vec()
    }
}
