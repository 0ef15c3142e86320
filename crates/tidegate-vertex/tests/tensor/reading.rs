//! The source.

use std::{thread, time::Duration};

use tidegate_shm::clock::Nanos;
use tidegate_tensor::{
    frame::FrameMeta,
    ids::StreamId,
    tensor::{Dtype, MajorOrder, TensorLayout},
};
use tidegate_udf::wire::ids::Position;
use tidegate_vertex::{
    source::{self, Polled, Source, SourceError},
    tensor::TensorError,
    wake::Waker,
};

use crate::stage::*;

/// Whatever lies between the elements in memory, a record has them in row order, and its headers say what they are.
/// Rules: VX-830.
#[test]
fn a_frame_is_a_record_of_its_elements_in_row_order() {
    let stage = Stage::new();
    let mut writer = stage.writer();
    let mut reading = stage.reading("");
    let first = reading.source.open(ONLY, None).unwrap();
    let row = TensorLayout::contiguous(Dtype::Uint16, MajorOrder::Row, &[2, 3]).unwrap();
    let padded = row.with_strides(&[8, 2]).unwrap();
    let column = TensorLayout::contiguous(Dtype::Uint16, MajorOrder::Column, &[2, 3]).unwrap();
    let stamped = FrameMeta { timestamp_ns: Some(77), ..FrameMeta::default() };
    let offer = |writer: &mut Writer, layout: &TensorLayout, bytes: &[u8]| {
        writer.producer.offer(layout, bytes, stamped).unwrap();
    };
    offer(&mut writer, &row, &[1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0]);
    offer(&mut writer, &padded, &[1, 0, 2, 0, 3, 0, 9, 9, 4, 0, 5, 0, 6, 0]);
    offer(&mut writer, &column, &[1, 0, 4, 0, 2, 0, 5, 0, 3, 0, 6, 0]);
    let inputs = reading.take(3);
    for (index, input) in (0..).zip(&inputs) {
        assert_eq!(input.record.value[..], [1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0], "frame {index}");
        assert_eq!((input.position.0, input.next.0), (first.0 + index, first.0 + index + 1));
        let said =
            ["tg-dtype", "tg-shape", "tg-seq", "tg-timestamp-ns"].map(|name| header(&input.record, name));
        assert_eq!(said, ["<u2".to_owned(), "2x3".to_owned(), index.to_string(), "77".to_owned()]);
    }
    assert_eq!(reading.source.lost(), 0);
}

/// Frames that a full vertex has no room for go by. None is lost without being counted.
/// Rules: VX-831, VX-832.
#[test]
fn what_a_slow_vertex_loses_is_counted_or_stops_it() {
    const FRAMES: u32 = 60;
    let stage = Stage::new();
    let mut writer = stage.writer();
    // Room for one record.
    let mut counting = stage.reading("prefetch = \"1B\"");
    let mut stopping = stage.reading("prefetch = \"1B\"\non_gap = \"stop\"");
    for reading in [&mut counting, &mut stopping] {
        reading.source.open(ONLY, None).unwrap();
    }
    writer.send(0..1);
    until("both are full", || [&counting, &stopping].iter().all(|it| it.source.pending(ONLY) == Some(1)));
    writer.send(1..FRAMES);
    let (mut read, mut last) = (Vec::new(), None);
    while last != Some(FRAMES - 1) {
        read.extend(numbers(&counting.take(1)));
        last = read.last().copied();
    }
    assert!(read.is_sorted_by(|one, next| one < next), "{read:?}");
    let lost = u64::from(FRAMES) - read.len() as u64;
    assert!(lost >= u64::from(FRAMES - 1 - SLOTS), "{lost} of {FRAMES} in a ring of {SLOTS}");
    assert_eq!(counting.source.lost(), lost);
    let error = stopping.error();
    assert!(error.contains("frames of stream 'cam' were lost before frame"), "{error}");
    assert!(error.contains("on_gap = \"skip\""), "{error}");
    assert!(stopping.source.lost() > 0);
}

/// The ledger knows which frame comes next, so what went by while the vertex was down is counted when it comes back.
/// Rules: VX-832, VX-833.
#[test]
fn a_vertex_that_is_started_again_knows_what_it_has_missed() {
    let stage = Stage::new();
    let mut writer = stage.writer();
    let mut reading = stage.reading("");
    let first = reading.source.open(ONLY, None).unwrap();
    writer.send(0..5);
    reading.take(5);
    let resume = reading.resume(Position(first.0 + 3));
    // Given back, and nobody can give them again.
    reading.source.nack(ONLY, Position(first.0 + 3), Nanos::ZERO);
    assert_eq!(reading.source.lost(), 2);
    drop(reading);
    // The consumer's place is given back: nobody reads these.
    writer.send(5..9);
    let mut again = stage.reading("");
    let begins = again.source.open(ONLY, Some(&resume)).unwrap();
    assert_ne!(begins, first, "positions are of a run");
    writer.send(9..10);
    assert_eq!(numbers(&again.take(1)), [9]);
    assert_eq!(again.source.lost(), 6, "3 to 8");
    // And in the order in which they can come: the first frame before the session begins.
    let mut early = stage.reading("");
    writer.send(10..11);
    until("it has read", || early.source.pending(ONLY) == Some(1));
    early.source.open(ONLY, Some(&resume)).unwrap();
    assert_eq!(early.source.lost(), 7);
    let mut stopping = stage.reading("on_gap = \"stop\"");
    stopping.source.open(ONLY, Some(&resume)).unwrap();
    writer.send(11..12);
    let error = stopping.error();
    assert!(error.contains("8 frames of stream 'cam' were lost before frame 11"), "{error}");
}

/// Another producer makes a new epoch, which the same source reads from its beginning; a driver that was away is found again.
/// Rules: VX-830.
#[test]
fn a_source_follows_its_stream_through_producers_and_drivers() {
    let mut stage = Stage::new();
    let mut reading = stage.reading("");
    let first = reading.source.open(ONLY, None).unwrap();
    // There is no producer yet.
    assert!(matches!(reading.source.poll(ONLY, BUDGET).unwrap(), Polled::Idle));
    let mut begun = 0;
    for turn in 0..3 {
        if turn == 2 {
            stage.driver = None;
            stage.start_driver();
        }
        let mut writer = stage.writer();
        // Frames that nobody was told of are not lost by the source.
        until("the stream is read", || {
            writer.send(begun..begun + 1);
            begun += 1;
            thread::sleep(Duration::from_millis(2));
            reading.source.pending(ONLY) > Some(0)
        });
        writer.send(begun..begun + 2);
        begun += 2;
        let mut last = None;
        while last != Some(begun - 1) {
            last = numbers(&reading.take(1)).last().copied();
        }
    }
    // The ledger would know the stream, and the epoch of the last producer.
    let known = reading.resume(Position(first.0 + 1_000_000)).identity.0;
    assert_eq!(known[..4], CAM.get().to_le_bytes());
    assert!(u64::from_le_bytes(known[4..12].try_into().unwrap()) >= 3, "{known:?}");
}

/// Rules: VX-001, VX-855.
#[test]
fn a_frame_of_another_tensor_ends_the_source_and_says_what_differs() {
    let stage = Stage::new();
    let mut writer = stage.writer();
    for (keys, expected) in [
        ("dtype = \"float32\"", "dtype uint32; source.dtype says float32"),
        ("shape = [2]", "shape 1; source.shape says 2"),
        ("dtype = \"<u4\"\nshape = [1, 1]", "shape 1; source.shape says 1x1"),
        ("format = \"output\"", "length of the payload is 4, allowed is 72"),
    ] {
        let mut reading = stage.reading(keys);
        reading.source.open(ONLY, None).unwrap();
        writer.send(0..1);
        let error = reading.error();
        assert!(error.contains("stream 'cam'") && error.contains(expected), "{error}");
    }
    let mut reading = stage.reading("dtype = \"uint32\"\nshape = [1]");
    reading.source.open(ONLY, None).unwrap();
    writer.send(7..8);
    assert_eq!(numbers(&reading.take(1)), [7]);
}

/// Rules: VX-855.
#[test]
fn what_cannot_be_attached_is_said() {
    let stage = Stage::new();
    let unknown = stage.source_of(StreamId::new(77), "").err().unwrap().to_string();
    assert!(unknown.contains("stream 77: the driver refused"), "{unknown}");
    let keys: source::tensor::TensorSource = toml::from_str("stream = 10000").unwrap();
    let error = source::tensor::Tensor::open(&keys, Waker::new(|| {})).unwrap_err();
    assert!(
        matches!(&error, SourceError::Tensor(error) if matches!(**error, TensorError::NotLinked { .. })),
        "{error}"
    );
    for (keys, expected) in [
        ("stream = 0", "a stream number lies between"),
        ("stream = \"a b\"", "a stream is a number, or a name of 1 to 64 letters"),
        ("stream = true", "the number or the name of a stream"),
        ("stream = 1\ndtype = \"u3\"", "unknown element type `u3`"),
        ("stream = 1\nformt = \"value\"", "formt"),
    ] {
        let error = toml::from_str::<source::tensor::TensorSource>(keys).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
