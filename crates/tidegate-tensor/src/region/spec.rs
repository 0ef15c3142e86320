//! What a driver or an announce says about the regions of one epoch, checked (8.3, 16.2) but not yet opened.

use tidegate_sbe::{control, driver};

use crate::ids::{Epoch, PoolId, StreamId};
use crate::layout::{GeometryError, LAYOUT_VERSION, PoolSpec, SLOT_LEN, SlotCount, Stride};
use crate::uri::{RegionUri, UriError};

/// The regions of one epoch: one header ring and at least one payload pool.
///
/// Equality is the consistency of TP-484: pools are kept in order of their id and URIs are compared as parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionSpec {
    stream: StreamId,
    epoch: Epoch,
    slots: SlotCount,
    header: RegionUri,
    pools: Vec<PoolRegion>,
}

/// One payload pool of a [`RegionSpec`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolRegion {
    /// Id and stride.
    pub geometry: PoolSpec,
    /// Where the pool is.
    pub uri: RegionUri,
}

/// Why a description of regions is not acceptable. Names the field, what was expected and what was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// A field that an answer must carry is absent.
    #[error("{field} is absent")]
    Absent {
        /// Field of the message.
        field: &'static str,
    },
    /// A number is not the one layout 1 demands.
    #[error("{field} is {found}, expected {expected}")]
    Mismatch {
        /// Field of the message.
        field: &'static str,
        /// What it must be.
        expected: u64,
        /// What it is.
        found: u64,
    },
    /// A slot count or stride that layout 1 does not have.
    #[error("{field}: {source}")]
    Geometry {
        /// Field of the message.
        field: &'static str,
        /// What is wrong with it.
        source: GeometryError,
    },
    /// No payload pool at all.
    #[error("there is no payload pool")]
    NoPools,
    /// Two pools with one id.
    #[error("pool id {pool} occurs twice")]
    DuplicatePool {
        /// The id.
        pool: PoolId,
    },
    /// A region URI does not parse.
    #[error("{field}: {source}")]
    Uri {
        /// Field of the message.
        field: &'static str,
        /// What is wrong with it.
        source: UriError,
    },
}

impl RegionSpec {
    /// Builds a specification from its parts, for regions configured by hand in no-driver mode.
    ///
    /// # Errors
    /// [`SpecError::NoPools`], [`SpecError::DuplicatePool`], or epoch 0.
    pub fn new(
        stream: StreamId,
        epoch: Epoch,
        slots: SlotCount,
        header: RegionUri,
        mut pools: Vec<PoolRegion>,
    ) -> Result<Self, SpecError> {
        if epoch == Epoch::NONE {
            return Err(SpecError::Absent { field: "epoch" });
        }
        if pools.is_empty() {
            return Err(SpecError::NoPools);
        }
        pools.sort_by_key(|pool| pool.geometry.pool_id);
        if let Some(twice) =
            pools.windows(2).find(|pair| pair[0].geometry.pool_id == pair[1].geometry.pool_id)
        {
            return Err(SpecError::DuplicatePool { pool: twice[0].geometry.pool_id });
        }
        Ok(Self { stream, epoch, slots, header, pools })
    }

    /// Checks the structural lines of table 8.3.
    ///
    /// # Errors
    /// The first line that fails.
    pub(crate) fn from_announce(announce: &control::ShmPoolAnnounce<'_>) -> Result<Self, SpecError> {
        let pools = announce
            .payload_pools
            .iter()
            .map(|pool| (pool.pool_id, pool.pool_nslots, pool.stride_bytes, pool.region_uri.as_bytes()));
        Self::checked(
            StreamId::new(announce.stream_id),
            announce.epoch,
            announce.layout_version,
            announce.header_nslots,
            announce.header_slot_bytes,
            announce.header_region_uri.as_bytes(),
            pools,
        )
    }

    /// Checks the region lines of table 16.2.
    ///
    /// # Errors
    /// The first line that fails; a null where a value is needed is [`SpecError::Absent`].
    pub(crate) fn from_attach_response(response: &driver::ShmAttachResponse<'_>) -> Result<Self, SpecError> {
        let absent = |field| SpecError::Absent { field };
        let pools = response
            .payload_pools
            .iter()
            .map(|pool| (pool.pool_id, pool.pool_nslots, pool.stride_bytes, pool.region_uri.as_bytes()));
        Self::checked(
            StreamId::new(response.stream_id.ok_or(absent("streamId"))?),
            response.epoch.ok_or(absent("epoch"))?,
            response.layout_version.ok_or(absent("layoutVersion"))?,
            response.header_nslots.ok_or(absent("headerNslots"))?,
            response.header_slot_bytes.ok_or(absent("headerSlotBytes"))?,
            response.header_region_uri.as_bytes(),
            pools,
        )
    }

    fn checked<'a>(
        stream: StreamId,
        epoch: u64,
        layout_version: u32,
        nslots: u32,
        slot_bytes: u16,
        header_uri: &[u8],
        pools: impl Iterator<Item = (u16, u32, u32, &'a [u8])>,
    ) -> Result<Self, SpecError> {
        if layout_version != LAYOUT_VERSION {
            return Err(SpecError::Mismatch {
                field: "layoutVersion",
                expected: LAYOUT_VERSION.into(),
                found: layout_version.into(),
            });
        }
        if u64::from(slot_bytes) != SLOT_LEN as u64 {
            return Err(SpecError::Mismatch {
                field: "headerSlotBytes",
                expected: SLOT_LEN as u64,
                found: slot_bytes.into(),
            });
        }
        let slots =
            SlotCount::new(nslots).map_err(|source| SpecError::Geometry { field: "headerNslots", source })?;
        let header = RegionUri::parse(header_uri)
            .map_err(|source| SpecError::Uri { field: "headerRegionUri", source })?;
        let pools = pools
            .map(|(id, pool_nslots, stride, uri)| {
                if pool_nslots != nslots {
                    return Err(SpecError::Mismatch {
                        field: "poolNslots",
                        expected: nslots.into(),
                        found: pool_nslots.into(),
                    });
                }
                let stride = Stride::new(stride)
                    .map_err(|source| SpecError::Geometry { field: "strideBytes", source })?;
                let uri =
                    RegionUri::parse(uri).map_err(|source| SpecError::Uri { field: "regionUri", source })?;
                Ok(PoolRegion { geometry: PoolSpec { pool_id: PoolId::new(id), stride }, uri })
            })
            .collect::<Result<Vec<_>, _>>()?;
        Self::new(stream, Epoch::new(epoch), slots, header, pools)
    }

    /// The stream.
    #[must_use]
    pub fn stream(&self) -> StreamId {
        self.stream
    }

    /// The epoch; never 0.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Slots of the header ring and of every pool.
    #[must_use]
    pub fn slots(&self) -> SlotCount {
        self.slots
    }

    /// Where the header ring is.
    #[must_use]
    pub fn header(&self) -> &RegionUri {
        &self.header
    }

    /// The pools, by ascending id.
    #[must_use]
    pub fn pools(&self) -> &[PoolRegion] {
        &self.pools
    }
}
