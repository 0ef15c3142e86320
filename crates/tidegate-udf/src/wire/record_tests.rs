//! Records against what was written, and against bytes of nobody in particular.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use proptest::prelude::*;

use super::*;

fn head(kind: RecordType, index: u32, place: u32) -> RecordHead<'static> {
    RecordHead { kind, index, place, event_time: None, key: &[], headers: &[] }
}

fn one(kind: RecordType, index: u32, place: u32, value: &[u8]) -> RecordWriter {
    let mut writer = RecordWriter::default();
    writer.push(&head(kind, index, place), value).unwrap();
    writer
}

fn field(payload: &[u8], count: u32, direction: Direction) -> &'static str {
    Records::parse(payload, count, direction).unwrap_err().field
}

const ANSWER: Direction = Direction::Response { inputs: 3 };

/// Rules: VX-400.
#[test]
fn what_no_sender_writes_is_refused() {
    use Direction::Request;
    use RecordType::{Data, Fail, Nack};
    let record = one(Data, 0, 0, b"value");
    assert_eq!(field(record.bytes(), 2, Request), "record_count");
    assert_eq!(field(record.bytes(), 0, Request), "record_count");
    assert_eq!(field(&record.bytes()[..39], 1, Request), "rec_len (inside the payload)");
    assert_eq!(field(&record.bytes()[..31], 1, Request), "bytes left for a record");
    let mut twice = one(Data, 1, 0, b"");
    twice.push(&head(Data, 1, 1), b"").unwrap();
    assert_eq!(field(twice.bytes(), 2, Request), "index (growing)");
    assert!(Records::parse(twice.bytes(), 2, ANSWER).is_ok(), "two outputs of one input");
    assert_eq!(field(one(Fail, 0, 0, b"").bytes(), 1, Request), "rec_type of a request");
    assert_eq!(field(one(Data, 3, 0, b"").bytes(), 1, ANSWER), "index (below the batch size)");
    assert_eq!(field(one(Data, 0, 0x1_0000, b"").bytes(), 1, ANSWER), "route (high bits)");
    assert_eq!(field(one(Nack, 0, 0, b"123").bytes(), 1, ANSWER), "value_len of a nack");
    for (at, byte, name) in [
        (0, 32, "rec_len (holds its parts, multiple of 8)"),
        (0, 41, "rec_len (holds its parts, multiple of 8)"),
        (4, 3, "rec_type"),
        (8, 9, "rec_len (holds its parts, multiple of 8)"),
        (12, 1, "rec_len (holds its parts, multiple of 8)"),
    ] {
        let mut damaged = record.bytes().to_vec();
        damaged[at] = byte;
        assert_eq!(field(&damaged, 1, ANSWER), name, "byte {at}");
    }
}

/// Rules: VX-400.
#[test]
fn lengths_that_overflow_are_refused() {
    let mut damaged = one(RecordType::Data, 0, 0, b"value").bytes().to_vec();
    damaged[6..16].fill(0xFF);
    damaged[..4].copy_from_slice(&0xFFFF_FFF8u32.to_le_bytes());
    assert_eq!(field(&damaged, 1, ANSWER), "rec_len (holds its parts, multiple of 8)");
}

/// Rules: VX-213.
#[test]
fn pieces_end_with_whole_records() {
    let mut writer = RecordWriter::default();
    for index in 0..5 {
        writer.push(&head(RecordType::Data, index, 0), &[1; 8]).unwrap();
    }
    let lens = |max| {
        pieces(writer.bytes(), writer.count(), max)
            .map(|(piece, count)| (piece.len(), count))
            .collect::<Vec<_>>()
    };
    assert_eq!(lens(100), [(80, 2), (80, 2), (40, 1)]);
    assert_eq!(lens(1000), [(200, 5)]);
    assert_eq!(lens(1), [(40, 1); 5]);
    assert_eq!(pieces(&[], 0, 100).count(), 0);
}

#[test]
fn what_was_taken_back_is_gone() {
    let mut writer = one(RecordType::Data, 0, 0, b"kept");
    let mark = writer.mark();
    let kept = writer.bytes().to_vec();
    writer.push(&head(RecordType::Data, 1, 0), b"gone").unwrap();
    let long = [0; 65_536];
    let refused = writer.push(&RecordHead { key: &long, ..head(RecordType::Data, 2, 0) }, b"");
    assert!(refused.is_err());
    writer.rewind(mark);
    assert_eq!((writer.bytes(), writer.count()), (kept.as_slice(), 1));
}

proptest! {
    #[test]
    fn records_come_out_as_they_went_in(
        records in prop::collection::vec(
            (prop::collection::vec(any::<u8>(), 0..40), prop::collection::vec(any::<u8>(), 0..20), any::<Option<i64>>()),
            0..8,
        )
    ) {
        let mut writer = RecordWriter::default();
        let header = [1, 0, 2, 0, 0, 0, b'n', b'v', b'w'];
        for (index, (value, key, event_time)) in records.iter().enumerate() {
            let head = RecordHead {
                key,
                event_time: *event_time,
                headers: &header,
                ..head(RecordType::Data, index as u32, index as u32)
            };
            writer.push(&head, value).unwrap();
        }
        let parsed = Records::parse(writer.bytes(), writer.count(), Direction::Request).unwrap();
        let found: Vec<_> =
            parsed.clone().map(|view| (view.value.to_vec(), view.key.to_vec(), view.event_time)).collect();
        prop_assert_eq!(found, records);
        for view in parsed {
            let headers: Vec<_> = headers(view.headers).collect();
            prop_assert_eq!(headers, vec![(b"n".as_slice(), b"vw".as_slice())]);
        }
    }

    /// Rules: VX-400.
    #[test]
    fn no_bytes_can_hurt_the_parser(payload in prop::collection::vec(any::<u8>(), 0..200), count in 0u32..4) {
        for direction in [Direction::Request, ANSWER] {
            if let Ok(records) = Records::parse(&payload, count, direction) {
                prop_assert_eq!(records.count(), count as usize);
            }
        }
        for (name, value) in headers(&payload) {
            prop_assert!(name.len() + value.len() <= payload.len());
        }
    }
}
