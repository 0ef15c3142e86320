//! Functions that fail in every way, among ones that do not.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::time::Duration;

use serde_json::Value;
use tidegate_shm::region::SealedMemory;

use super::*;
use crate::{
    segment::FenceView,
    wire::{
        frame::{Frame, Kind},
        ids::{BatchId, EpochId, FenceSlot, Generation, PartitionId, Position, SchemaId},
        record::Direction,
    },
};

const FRAME: Frame = Frame {
    kind: Kind::Data,
    more: false,
    replay: false,
    barrier: false,
    end_of_source: false,
    generation: Generation(1),
    epoch: EpochId(1),
    batch: BatchId(1),
    schema: SchemaId(0),
    partition: PartitionId(0),
    record_count: 0,
    source_first: Position(1000),
    source_last: Position(1000),
    watermark: None,
    status: Status::Ok,
    attempt: 0,
    fence_slot: FenceSlot(0),
    inputs_done: 0,
    frag_index: 0,
    payload_crc: None,
};

type Answered = Vec<(RecordType, u32, Vec<u8>)>;

/// Runs `function` over one input per value.
fn answered(values: &[&str], mut function: impl MapFn) -> (Status, Option<String>, Answered) {
    let mut inputs = RecordWriter::default();
    for (index, value) in values.iter().enumerate() {
        let index = index as u32;
        let head = RecordHead {
            kind: RecordType::Data,
            index,
            place: index * 10,
            event_time: None,
            key: b"k",
            headers: &[],
        };
        inputs.push(&head, value.as_bytes()).unwrap();
    }
    let memory = SealedMemory::create("test", 8192).unwrap();
    let fence = FenceView::new(&memory.map(0..0).unwrap(), 1).unwrap();
    let ctx = Ctx { pipeline: "test", params: &Value::Null, fence: &fence, frame: FRAME };
    let records = Records::parse(inputs.bytes(), inputs.count(), Direction::Request).unwrap();
    let mut answer = RecordWriter::default();
    let (status, panicked) = run(&mut function, records, &ctx, 256, &mut answer);
    let direction = Direction::Response { inputs: values.len() as u32 };
    let records = Records::parse(answer.bytes(), answer.count(), direction).unwrap();
    (status, panicked, records.map(|view| (view.kind, view.index, view.value.to_vec())).collect())
}

/// Rules: VX-502.
#[test]
fn one_input_that_fails_takes_no_other_with_it() {
    let (status, panicked, answered) =
        answered(&["a", "panic", "b", "fail", "c"], |record: Record<'_>, _: &Ctx<'_>, out: &mut Emit<'_>| {
            out.record().key(record.key()).value(record.value());
            match record.value() {
                b"panic" => panic!("at {}", record.position()),
                b"fail" => Outcome::fail("not today"),
                _ => Outcome::ok(),
            }
        });
    assert_eq!(status, Status::Partial);
    assert_eq!(panicked.as_deref(), Some("panicked: at 1010"));
    let expected: Answered = vec![
        (RecordType::Data, 0, b"a".to_vec()),
        (RecordType::Fail, 1, b"panicked: at 1010".to_vec()),
        (RecordType::Data, 2, b"b".to_vec()),
        (RecordType::Fail, 3, b"not today".to_vec()),
        (RecordType::Data, 4, b"c".to_vec()),
    ];
    assert_eq!(answered, expected);
}

/// Rules: VX-401.
#[test]
fn what_is_left_out_is_no_failure() {
    let (status, _, answered) =
        answered(&["x", "y"], |record: Record<'_>, _: &Ctx<'_>, out: &mut Emit<'_>| {
            out.record().value(b"taken back");
            if record.value() == b"x" { Outcome::drop("empty") } else { Outcome::ok() }
        });
    assert_eq!(status, Status::Ok);
    assert_eq!(
        answered,
        [(RecordType::Drop, 0, b"empty".to_vec()), (RecordType::Data, 1, b"taken back".to_vec())]
    );
}

/// Rules: VX-213.
#[test]
fn an_output_that_does_not_fit_a_frame_rejects_its_input() {
    let (status, _, answered) =
        answered(&["1", "300"], |record: Record<'_>, _: &Ctx<'_>, out: &mut Emit<'_>| {
            let len = std::str::from_utf8(record.value()).unwrap().parse().unwrap();
            out.record().value(&vec![7; len]);
            Outcome::ok()
        });
    assert_eq!(status, Status::Partial);
    assert_eq!(answered[0], (RecordType::Data, 0, vec![7]));
    assert_eq!((answered[1].0, answered[1].1), (RecordType::Reject, 1));
    assert!(answered[1].2.starts_with(b"RECORD_TOO_LARGE"));
}

#[test]
fn a_nack_says_its_delay_first() {
    let (_, _, answered) = answered(&["x"], |_: Record<'_>, _: &Ctx<'_>, _: &mut Emit<'_>| {
        Outcome::nack(Duration::from_millis(258), "later")
    });
    assert_eq!(answered, [(RecordType::Nack, 0, b"\x02\x01\0\0later".to_vec())]);
}
