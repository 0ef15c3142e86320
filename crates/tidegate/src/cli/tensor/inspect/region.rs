//! One region file: its superblock, and every field of it that is wrong.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate::shm::clock::monotonic_now;
use tidegate::shm::process::pid_is_alive;
use tidegate::shm::region::{MapError, Region, RegionFile};
use tidegate::tensor::ids::{Epoch, PoolId, StreamId};
use tidegate::tensor::layout::{
    Expected, LAYOUT_VERSION, RegionKind, SLOT_LEN, SUPERBLOCK_LEN, SlotCount, Stride, Superblock,
    SuperblockError, SuperblockField, header_ring_len, pool_len,
};

use super::Problem;
use super::slot::RingReport;
use crate::cli::text;
use crate::output::{Exit, Report, Stop};

const SMALLEST_STRIDE: u32 = 64;
/// A superblock has this many fields.
const FIELDS: usize = 12;

/// What all regions of a set must have in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct Announced {
    pub(super) epoch: Epoch,
    pub(super) stream: StreamId,
    pub(super) slots: SlotCount,
}

/// A superblock and the verdict on it.
pub(super) struct RegionReport {
    path: std::path::PathBuf,
    kind: RegionKind,
    size: u64,
    /// Bytes the file must have, where the superblock lets it be computed.
    required: Option<u64>,
    superblock: Option<Superblock>,
    problems: Vec<Problem>,
    /// The slots of a header ring, as far as the file has them.
    ring: Option<Ring>,
}

/// The mapped slots of a header ring.
pub(super) struct Ring {
    pub(super) region: Region,
    /// Slots that the file holds.
    pub(super) present: u32,
    /// Slots as the superblock says, if that is a possible number.
    pub(super) slots: Option<SlotCount>,
}

impl RegionReport {
    /// Reads a file that has passed every check on its path, and judges its contents.
    ///
    /// `kind` is what the file is supposed to be; without, its own word is taken for it. Without `announced` the file can
    /// only be checked against itself.
    pub(super) fn read(
        file: RegionFile,
        kind: Option<RegionKind>,
        pool: Option<(PoolId, Stride)>,
        announced: Option<&Announced>,
    ) -> Result<Self, Stop> {
        let mut report = Self {
            path: file.path().to_owned(),
            kind: kind.unwrap_or(RegionKind::HeaderRing),
            size: file.len(),
            required: None,
            superblock: None,
            problems: Vec::new(),
            ring: None,
        };
        let mut bytes = [0; SUPERBLOCK_LEN];
        match file.read_at(0, &mut bytes) {
            Ok(()) => {}
            Err(MapError::TooShort { required, found }) => {
                report.problems.push(Problem::new("file size", format!("at least {required}"), found));
                return Ok(report);
            }
            Err(error) => return Err(unreadable(&report, error)),
        }
        let superblock = Superblock::decode(&bytes);
        report.superblock = Some(superblock);
        report.kind = kind.or(RegionKind::from_raw(superblock.region_type)).unwrap_or(report.kind);
        report.check(&superblock, pool, announced);
        if report.kind == RegionKind::HeaderRing {
            report.ring = report.map_ring(file, &superblock)?;
        }
        Ok(report)
    }

    /// Every field against what it must be.
    fn check(&mut self, found: &Superblock, pool: Option<(PoolId, Stride)>, announced: Option<&Announced>) {
        // What stands in for numbers that no region can have, so that the other fields can be checked.
        let (Ok(one_slot), Ok(smallest)) = (SlotCount::new(1), Stride::new(SMALLEST_STRIDE)) else { return };
        // Corrected field by field, so that the next check finds the next mistake.
        let mut corrected = *found;
        let slots = announced.map(|set| set.slots).or_else(|| SlotCount::new(found.nslots).ok());
        if slots.is_none() {
            self.problems.push(Problem::new("nslots", "a power of two", found.nslots));
            corrected.nslots = one_slot.get();
        }
        if announced.is_none() && found.epoch == Epoch::NONE {
            self.problems.push(Problem::new("epoch", "at least 1", 0));
        }
        let stride = pool.map(|(_, stride)| stride).or_else(|| Stride::new(found.stride_bytes).ok());
        if self.kind == RegionKind::PayloadPool && stride.is_none() {
            self.problems.push(Problem::new(
                "stride_bytes",
                "a multiple of 64, at least 64",
                found.stride_bytes,
            ));
            corrected.stride_bytes = smallest.get();
            corrected.slot_bytes = 0;
        }
        let expected = Expected {
            layout_version: LAYOUT_VERSION,
            epoch: announced.map_or(found.epoch, |set| set.epoch),
            stream_id: announced.map_or(found.stream_id, |set| set.stream),
            nslots: slots.unwrap_or(one_slot),
        };
        let pool_id = pool.map_or(found.pool_id, |(id, _)| id);
        let kind = self.kind;
        self.collect(corrected, |superblock| match kind {
            RegionKind::HeaderRing => superblock.check_header_ring(&expected),
            RegionKind::PayloadPool => superblock.check_pool(&expected, pool_id, stride.unwrap_or(smallest)),
        });
        self.required = match (kind, SlotCount::new(found.nslots), Stride::new(found.stride_bytes)) {
            (RegionKind::HeaderRing, Ok(slots), _) => Some(header_ring_len(slots)),
            (RegionKind::PayloadPool, Ok(slots), Ok(stride)) => Some(pool_len(slots, stride)),
            _ => None,
        };
        if let Some(required) = self.required.filter(|required| *required > self.size) {
            self.problems.push(Problem::new("file size", format!("at least {required}"), self.size));
        }
    }

    /// Runs a check again and again, putting right what it complains about.
    fn collect(
        &mut self,
        mut superblock: Superblock,
        check: impl Fn(&Superblock) -> Result<(), SuperblockError>,
    ) {
        for _ in 0..FIELDS {
            match check(&superblock) {
                Err(SuperblockError::Mismatch { field, expected, found, .. }) => {
                    self.problems.push(match field {
                        SuperblockField::Magic => {
                            Problem::new(field, format!("{expected:#018x}"), format!("{found:#018x}"))
                        }
                        _ => Problem::new(field, expected, found),
                    });
                    correct(&mut superblock, field, expected);
                }
                Err(other) => {
                    self.problems.push(Problem::new("superblock", "a valid one", other));
                    return;
                }
                Ok(()) => return,
            }
        }
    }

    fn map_ring(&self, file: RegionFile, superblock: &Superblock) -> Result<Option<Ring>, Stop> {
        let room = self.size.saturating_sub(SUPERBLOCK_LEN as u64) / SLOT_LEN as u64;
        let present = u32::try_from(room).unwrap_or(u32::MAX).min(superblock.nslots);
        if present == 0 {
            return Ok(None);
        }
        let len = SUPERBLOCK_LEN as u64 + u64::from(present) * SLOT_LEN as u64;
        let region = file.map(len).map_err(|error| unreadable(self, error))?;
        Ok(Some(Ring { region, present, slots: SlotCount::new(superblock.nslots).ok() }))
    }

    pub(super) fn is_valid(&self) -> bool {
        self.problems.is_empty()
    }

    /// What the pools beside this header ring must be.
    pub(super) fn as_announced(&self) -> Option<Announced> {
        let superblock = self.superblock.filter(|_| self.kind == RegionKind::HeaderRing)?;
        let slots = SlotCount::new(superblock.nslots).ok()?;
        Some(Announced { epoch: superblock.epoch, stream: superblock.stream_id, slots })
    }

    /// This pool as slots refer to it.
    pub(super) fn as_pool(&self) -> Option<(PoolId, Stride)> {
        let superblock = self.superblock.filter(|_| self.kind == RegionKind::PayloadPool)?;
        Some((superblock.pool_id, Stride::new(superblock.stride_bytes).ok()?))
    }

    pub(super) fn slots(&self) -> Option<&Ring> {
        self.ring.as_ref()
    }

    pub(super) fn json(&self, ring: Option<&RingReport>) -> Value {
        let superblock = self.superblock.map(|found| {
            json!({
                "magic": format!("{:#018x}", found.magic),
                "layout_version": found.layout_version,
                "epoch": found.epoch.get(),
                "stream_id": found.stream_id.get(),
                "region_type": found.region_type,
                "pool_id": found.pool_id.get(),
                "nslots": found.nslots,
                "slot_bytes": found.slot_bytes,
                "stride_bytes": found.stride_bytes,
                "pid": found.pid,
                "start_timestamp_ns": found.start_timestamp_ns,
                "activity_timestamp_ns": found.activity_timestamp_ns,
            })
        });
        json!({
            "kind": "region",
            "region": kind_name(self.kind),
            "path": self.path,
            "size": self.size,
            "required_size": self.required,
            "valid": self.is_valid(),
            "superblock": superblock,
            "pid_alive": self.superblock.map(|found| is_alive(found.pid)),
            "problems": self.problems.iter().map(Problem::json).collect::<Vec<_>>(),
            "slots": ring.map(RingReport::summary_json),
        })
    }

    pub(super) fn text(&self, ring: Option<&RingReport>) -> String {
        let verdict = if self.is_valid() { "valid" } else { "NOT VALID" };
        let mut lines = vec![format!("{} {}: {verdict}", self.kind, self.path.display())];
        if let Some(found) = &self.superblock {
            lines.push(format!(
                "  stream {}  epoch {}  pool {}  slots {}  slot bytes {}  stride {}",
                found.stream_id,
                found.epoch,
                found.pool_id,
                found.nslots,
                if found.slot_bytes == u32::MAX { "-".to_owned() } else { found.slot_bytes.to_string() },
                found.stride_bytes
            ));
            lines.push(format!(
                "  magic {:#018x}  layout {}  region type {}  made by process {} ({})",
                found.magic,
                found.layout_version,
                found.region_type,
                found.pid,
                if is_alive(found.pid) { "alive" } else { "gone" }
            ));
            lines.push(format!(
                "  started at {} ns, last active at {} ns ({})",
                found.start_timestamp_ns,
                found.activity_timestamp_ns,
                activity_age(found.activity_timestamp_ns)
            ));
        }
        let required = self.required.map_or_else(String::new, |required| format!(", {required} needed"));
        lines.push(format!("  file of {} bytes{required}", self.size));
        lines.extend(self.problems.iter().map(|problem| format!("  PROBLEM {}", problem.text())));
        if let Some(ring) = ring {
            lines.push(format!("  {}", ring.summary_text()));
        }
        lines.join("\n")
    }
}

fn kind_name(kind: RegionKind) -> &'static str {
    match kind {
        RegionKind::HeaderRing => "header_ring",
        RegionKind::PayloadPool => "payload_pool",
    }
}

fn is_alive(pid: u64) -> bool {
    u32::try_from(pid).is_ok_and(pid_is_alive)
}

fn activity_age(activity: u64) -> String {
    match monotonic_now().as_u64().checked_sub(activity) {
        Some(nanos) => format!("{} ago", text::age(Duration::from_nanos(nanos))),
        None => "in the future: from before a reboot, or another host".to_owned(),
    }
}

fn correct(superblock: &mut Superblock, field: SuperblockField, value: u64) {
    // The values come from a check of fields that are as narrow.
    let narrow = value as u32;
    match field {
        SuperblockField::Magic => superblock.magic = value,
        SuperblockField::LayoutVersion => superblock.layout_version = narrow,
        SuperblockField::Epoch => superblock.epoch = Epoch::new(value),
        SuperblockField::StreamId => superblock.stream_id = StreamId::new(narrow),
        SuperblockField::RegionType => superblock.region_type = narrow as i16,
        SuperblockField::PoolId => superblock.pool_id = PoolId::new(narrow as u16),
        SuperblockField::Nslots => superblock.nslots = narrow,
        SuperblockField::SlotBytes => superblock.slot_bytes = narrow,
        SuperblockField::StrideBytes => superblock.stride_bytes = narrow,
        _ => {}
    }
}

fn unreadable(report: &RegionReport, error: MapError) -> Stop {
    Stop::from(Unreadable { path: report.path.display().to_string(), error })
}

/// The kernel does not give the contents.
#[derive(Debug, thiserror::Error)]
#[error("region {path} cannot be read: {error}; see whether it was removed or cut meanwhile")]
struct Unreadable {
    path: String,
    error: MapError,
}

impl Report for Unreadable {
    fn exit(&self) -> Exit {
        Exit::Failed
    }

    fn code(&self) -> &'static str {
        "io"
    }
}
