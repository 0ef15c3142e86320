//! What a letter says about an input, and about an output that a sink refuses.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::collections::BTreeMap;

use tidegate_udf::wire::{
    ids::{Generation, PartitionId, Position},
    record::headers,
};

use super::*;

const SESSION: Session = Session { partition: PartitionId(3), generation: Generation(4), nonce: 5 };

fn letters() -> Letters {
    Letters { sink: 1, pipeline: "orders".to_owned(), source: "file" }
}

fn made<B: From<Vec<u8>>>(bytes: &[u8]) -> B {
    bytes.to_vec().into()
}

fn input() -> Input {
    let mut with = Vec::new();
    add(&mut with, "own", b"kept");
    let record = Record {
        key: made(b"key"),
        headers: made(&with),
        event_time: Some(-7),
        ..Record::of(b"value".to_vec())
    };
    Input { position: Position(258), next: Position(259), record }
}

fn said(letter: &Output) -> BTreeMap<String, String> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    headers(&letter.record.headers).map(|(name, value)| (text(name), text(value))).collect()
}

/// Rules: VX-620, VX-621.
#[test]
fn a_letter_is_the_input_and_what_happened_to_it() {
    let death = Death { class: "CRASHED", reason: "it died".to_owned(), attempts: 6 };
    let letter = letters().of_input(&input(), &death, &SESSION, EpochId(9));
    assert_eq!((letter.position, letter.number), (Position(258), 0));
    let record = &letter.record;
    assert_eq!(
        (&record.value[..], &record.key[..], record.event_time),
        (&b"value"[..], &b"key"[..], Some(-7))
    );
    let mut said = said(&letter);
    assert!(said.remove("tg-time").unwrap().parse::<u64>().unwrap() > 0);
    let expected = [
        ("own", "kept"),
        ("tg-attempts", "6"),
        ("tg-epoch", "9"),
        ("tg-error-class", "CRASHED"),
        ("tg-error-message", "it died"),
        ("tg-generation", "4"),
        ("tg-partition", "3"),
        ("tg-pipeline", "orders"),
        ("tg-position", "258"),
        ("tg-source", "file"),
    ];
    assert!(said.iter().map(|(name, value)| (name.as_str(), value.as_str())).eq(expected), "{said:?}");
}

/// Rules: VX-621.
#[test]
fn a_message_has_4_kib_at_most() {
    let death = Death { class: "UDF_ERROR", reason: "x".repeat(5_000), attempts: 1 };
    let letter = letters().of_input(&input(), &death, &SESSION, EpochId(1));
    assert_eq!(said(&letter)["tg-error-message"], "x".repeat(4_096));
}

/// Letters of one input have an id each: its own, and one for each output that some sink refuses.
/// Rules: VX-620, VX-790.
#[test]
fn letters_of_one_input_differ() {
    let letters = letters();
    let death = Death { class: "REJECTED", reason: String::new(), attempts: 1 };
    let mut numbers = vec![letters.of_input(&input(), &death, &SESSION, EpochId(1)).number];
    for sink in [0, 2] {
        for number in [0, 1] {
            let output = Output { position: Position(258), number, record: input().record };
            let letter = letters.of_output(&output, sink, "too long".to_owned(), &SESSION, EpochId(1));
            assert_eq!(letter.position, output.position);
            let said = said(&letter);
            assert_eq!((&*said["tg-error-class"], &*said["tg-error-message"]), ("SINK_REJECTED", "too long"));
            numbers.push(letter.number);
        }
    }
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 5);
}
