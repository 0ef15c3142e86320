//! The slots of a header ring, read as a consumer reads them: under the commit protocol, once, without waiting.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tidegate::shm::commit::CommitReader;
use tidegate::shm::region::AccessError;
use tidegate::tensor::ids::{PoolId, Seq};
use tidegate::tensor::layout::{
    SLOT_LEN, SlotCount, SlotError, SlotHeader, SlotIndex, Stride, header_slot_offset,
};
use tidegate::tensor::tensor::{
    Dtype, MAX_DIMS, MajorOrder, ProgressUnit, RawTensorHeader, TensorError, TensorLayout,
};

use super::region::Ring;
use super::{Problem, Slots};
use crate::cli::text;
use crate::output::{Exit, Output, Stop};

/// A slot that changes while it is read is read again this often: a producer that is faster shows as "in progress".
const ATTEMPTS: usize = 4;
/// Stride of a pool that was not looked at: large enough for every length.
const ANY_STRIDE: u32 = !63;

/// What the ring holds, and the slots to be shown.
pub(super) struct RingReport {
    committed: u64,
    in_progress: u64,
    empty: u64,
    invalid: u64,
    last_seq: Option<u64>,
    shown: Vec<SlotReport>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The commit word is 0: never written, or the very first frame is being written.
    Empty,
    InProgress,
    Committed,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::InProgress => "in_progress",
            Self::Committed => "committed",
        }
    }
}

/// One slot.
struct SlotReport {
    index: u32,
    word: u64,
    state: State,
    /// Of a committed slot with a readable header.
    header: Option<SlotHeader>,
    /// Its tensor, when that is valid.
    layout: Option<TensorLayout>,
    problems: Vec<Problem>,
}

impl RingReport {
    /// Reads every slot. `pools` are the pools of the set, if they were looked at.
    pub(super) fn read(ring: &Ring, pools: Option<&[(PoolId, Stride)]>, show: Slots) -> Result<Self, Stop> {
        let mut report =
            Self { committed: 0, in_progress: 0, empty: 0, invalid: 0, last_seq: None, shown: Vec::new() };
        let limit = match show {
            Slots::All => usize::MAX,
            Slots::Newest(limit) => limit,
        };
        let mut newest = BTreeMap::new();
        let mut invalid = 0;
        for index in 0..ring.present {
            let slot = SlotReport::read(ring, SlotIndex::new(index), pools).map_err(|error| Stop::Error {
                exit: Exit::Failed,
                code: "io",
                message: format!("slot {index} cannot be read: {error}"),
            })?;
            report.count(&slot);
            if !slot.problems.is_empty() && invalid < limit {
                invalid += 1;
                report.shown.push(slot);
            } else if show == Slots::All {
                report.shown.push(slot);
            } else if slot.problems.is_empty() && slot.state != State::Empty {
                newest.insert((slot.word, index), slot);
                if newest.len() > limit {
                    newest.pop_first();
                }
            }
        }
        report.shown.extend(newest.into_values());
        report.shown.sort_by_key(|slot| slot.index);
        Ok(report)
    }

    fn count(&mut self, slot: &SlotReport) {
        match slot.state {
            State::Empty => self.empty += 1,
            State::InProgress => self.in_progress += 1,
            State::Committed => {
                self.committed += 1;
                self.last_seq = self.last_seq.max(Some(slot.seq()));
            }
        }
        self.invalid += u64::from(!slot.problems.is_empty());
    }

    pub(super) fn is_valid(&self) -> bool {
        self.invalid == 0
    }

    pub(super) fn summary_json(&self) -> Value {
        json!({
            "committed": self.committed,
            "in_progress": self.in_progress,
            "empty": self.empty,
            "invalid": self.invalid,
            "last_seq": self.last_seq,
        })
    }

    pub(super) fn summary_text(&self) -> String {
        format!(
            "{} slots committed, {} in progress, {} empty, {} not valid; last sequence {}",
            self.committed,
            self.in_progress,
            self.empty,
            self.invalid,
            text::or_dash(self.last_seq)
        )
    }

    pub(super) fn print_slots(&self, output: &mut Output) -> Result<(), Stop> {
        if output.json() {
            for slot in &self.shown {
                output.result(String::new, || slot.json())?;
            }
            return Ok(());
        }
        if self.shown.is_empty() {
            return Ok(());
        }
        output.result(|| self.table(), || Value::Null)
    }

    fn table(&self) -> String {
        let head = [
            "SLOT",
            "SEQ",
            "STATE",
            "BYTES",
            "POOL",
            "TIMESTAMP",
            "META",
            "DTYPE",
            "SHAPE",
            "STRIDES",
            "VERDICT",
        ];
        let mut rows = vec![text::heading(head)];
        rows.extend(self.shown.iter().map(SlotReport::row));
        text::table(&rows)
    }
}

impl SlotReport {
    fn read(ring: &Ring, index: SlotIndex, pools: Option<&[(PoolId, Stride)]>) -> Result<Self, AccessError> {
        let offset = header_slot_offset(index);
        let word = CommitReader::new(ring.region.atomic_u64(offset)?);
        let mut bytes = [0; SLOT_LEN];
        let mut attempt = 0;
        let (token, whole) = loop {
            let token = word.begin();
            ring.region.read(offset, &mut bytes)?;
            attempt += 1;
            let whole = word.validate(token);
            if whole || !token.is_committed() || attempt >= ATTEMPTS {
                break (token, whole);
            }
        };
        let mut report = Self {
            index: index.get(),
            word: token.seq() << 1 | u64::from(token.is_committed()),
            state: match (whole, token.seq()) {
                (true, _) => State::Committed,
                (false, 0) if !token.is_committed() => State::Empty,
                (false, _) => State::InProgress,
            },
            header: None,
            layout: None,
            problems: Vec::new(),
        };
        report.check_seq(index, ring.slots);
        if report.state == State::Committed {
            report.check_header(&bytes, index, ring.slots, pools);
        }
        Ok(report)
    }

    fn seq(&self) -> u64 {
        self.word >> 1
    }

    /// A sequence has its place in the ring (TP-100).
    fn check_seq(&mut self, index: SlotIndex, slots: Option<SlotCount>) {
        let Some(slots) = slots else { return };
        let belongs = slots.index_of(Seq::new(self.seq()));
        if self.state != State::Empty && belongs != index {
            let expected = format!("a sequence that is {index} modulo {slots}");
            self.problems.push(Problem::new("seq_commit", expected, format!("sequence {}", self.seq())));
        }
    }

    fn check_header(
        &mut self,
        bytes: &[u8; SLOT_LEN],
        index: SlotIndex,
        slots: Option<SlotCount>,
        pools: Option<&[(PoolId, Stride)]>,
    ) {
        let header = match SlotHeader::decode(bytes) {
            Ok(header) => header,
            Err(error) => return self.problems.push(slot_problem(&error, pools)),
        };
        self.header = Some(header);
        let stride_of = |id: PoolId| match pools {
            Some(pools) => pools.iter().find(|(known, _)| *known == id).map(|(_, stride)| *stride),
            None => Stride::new(ANY_STRIDE).ok(),
        };
        if let Some(slots) = slots
            && let Err(error) = header.payload_span(index, slots, stride_of)
        {
            self.problems.push(slot_problem(&error, pools));
        }
        match header.tensor.validate() {
            Ok(layout) => self.layout = Some(layout),
            Err(error) => self.problems.push(tensor_problem(&error)),
        }
    }

    fn json(&self) -> Value {
        let header = self.header.as_ref();
        let tensor = header.map(|header| &header.tensor);
        let layout = self.layout.as_ref();
        json!({
            "kind": "slot",
            "slot": self.index,
            "seq_commit": self.word,
            "state": self.state.name(),
            "seq": (self.state != State::Empty).then_some(self.seq()),
            "values_len": header.map(|header| header.values_len),
            "payload_slot": header.map(|header| header.payload_slot),
            "pool": header.map(|header| header.pool_id.get()),
            "payload_offset": header.map(|header| header.payload_offset),
            "timestamp_ns": header.and_then(|header| header.timestamp_ns),
            "meta_version": header.and_then(|header| header.meta_version),
            "dtype": tensor.and_then(|tensor| Dtype::from_raw(tensor.dtype)).map(|dtype| dtype.to_string()),
            "order": tensor.and_then(|tensor| MajorOrder::from_raw(tensor.major_order)).map(order_name),
            "shape": tensor.map(|tensor| axes(tensor, &tensor.dims)),
            "strides": self.strides(),
            "progress_unit": tensor
                .and_then(|tensor| ProgressUnit::from_raw(tensor.progress_unit))
                .map(|unit| unit.to_string()),
            "progress_stride_bytes": tensor.map(|tensor| tensor.progress_stride_bytes),
            "typed": header.zip(layout).map(|(header, layout)| layout.fits(header.values_len.into())),
            "valid": self.problems.is_empty(),
            "problems": self.problems.iter().map(Problem::json).collect::<Vec<_>>(),
        })
    }

    /// Resolved where the description is valid, else as the bytes say.
    fn strides(&self) -> Option<&[i32]> {
        let written = self.header.as_ref().map(|header| axes(&header.tensor, &header.tensor.strides));
        self.layout.as_ref().map(TensorLayout::strides).or(written)
    }

    fn row(&self) -> Vec<String> {
        let header = self.header.as_ref();
        let dtype = header.map(|header| match Dtype::from_raw(header.tensor.dtype) {
            Some(dtype) => dtype.to_string(),
            None => format!("type {}", header.tensor.dtype),
        });
        let verdict = match self.problems.as_slice() {
            [] => "ok".to_owned(),
            problems => problems.iter().map(Problem::text).collect::<Vec<_>>().join("; "),
        };
        vec![
            self.index.to_string(),
            text::or_dash((self.state != State::Empty).then_some(self.seq())),
            self.state.name().to_owned(),
            text::or_dash(header.map(|header| header.values_len)),
            text::or_dash(header.map(|header| header.pool_id)),
            text::or_dash(header.and_then(|header| header.timestamp_ns)),
            text::or_dash(header.and_then(|header| header.meta_version)),
            text::or_dash(dtype),
            text::or_dash(header.map(|header| list(axes(&header.tensor, &header.tensor.dims)))),
            text::or_dash(self.strides().map(list)),
            verdict,
        ]
    }
}

/// The entries that have a meaning.
fn axes<'a>(tensor: &RawTensorHeader, entries: &'a [i32]) -> &'a [i32] {
    entries.get(..usize::from(tensor.ndims)).unwrap_or(entries)
}

fn list(entries: &[i32]) -> String {
    entries.iter().map(ToString::to_string).collect::<Vec<_>>().join("x")
}

fn order_name(order: MajorOrder) -> &'static str {
    match order {
        MajorOrder::Row => "row",
        MajorOrder::Column => "column",
    }
}

fn slot_problem(error: &SlotError, pools: Option<&[(PoolId, Stride)]>) -> Problem {
    match error {
        SlotError::HeaderBytes { found } => {
            Problem::new("headerBytes length", 8 + RawTensorHeader::LEN, found)
        }
        SlotError::EmbeddedHeader { found } => Problem::new(
            "embedded header",
            format!("[{}, 52, 900, 1] (length, template, schema, version)", RawTensorHeader::LEN),
            format!("{found:?}"),
        ),
        SlotError::PayloadSlot { expected, found } => Problem::new("payload_slot", expected, found),
        SlotError::PayloadOffset { found } => Problem::new("payload_offset", 0, found),
        SlotError::UnknownPool { found } => {
            let known = pools.unwrap_or_default().iter().map(|(id, _)| id.to_string());
            Problem::new("pool_id", format!("one of {}", known.collect::<Vec<_>>().join(", ")), found)
        }
        SlotError::ValuesLen { found, max } => {
            Problem::new("values_len_bytes", format!("at most {max}"), found)
        }
        other => Problem::new("slot", "a valid header", other),
    }
}

fn tensor_problem(error: &TensorError) -> Problem {
    let dim = |axis: &usize| format!("dims[{axis}]");
    let stride = |axis: &usize| format!("strides[{axis}]");
    match error {
        TensorError::Dtype { found } => Problem::new("dtype", "an assigned element type", found),
        TensorError::MajorOrder { found } => Problem::new("major_order", "1 or 2", found),
        TensorError::ProgressUnit { found } => Problem::new("progress_unit", "0 to 2", found),
        TensorError::Rank { found } => Problem::new("ndims", format!("1 to {MAX_DIMS}"), found),
        TensorError::NegativeDim { axis, found } => Problem::new(dim(axis), "at least 0", found),
        TensorError::NegativeStride { axis, found } => Problem::new(stride(axis), "at least 0", found),
        TensorError::StrideTooSmall { axis, found, required } => {
            Problem::new(stride(axis), format!("at least {required}"), found)
        }
        TensorError::StrideTooLarge { axis, required } => {
            Problem::new(stride(axis), format!("at most {}", i32::MAX), required)
        }
        TensorError::ProgressRank { unit, ndims } => {
            Problem::new("progress_unit", format!("one that {ndims} axes have"), unit)
        }
        TensorError::ProgressStride { expected, found, .. } => {
            Problem::new("progress_stride_bytes", expected, found)
        }
        other => Problem::new("tensor", "a valid description", other),
    }
}
