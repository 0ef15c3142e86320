//! Functions that fail in every way, among ones that do not.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::{sync::Arc, time::Duration};

use crate::{
    Answered, Harness, Made,
    wire::{
        ids::Position,
        record::{RecordHead, RecordType, RecordWriter},
    },
    worker,
};

use super::*;

/// Runs `function` over one input per value.
fn answered(
    values: &[&str],
    function: impl FnMut(Record<'_>, &Ctx<'_>, &mut Emit<'_>) -> Outcome + 'static,
) -> Vec<Answered> {
    pushed(worker().map("test", function), values).answers().unwrap()
}

fn pushed(function: crate::FunctionWorker, values: &[&str]) -> Harness {
    let harness = Harness::new(function).unwrap();
    values.iter().fold(harness, |harness, value| harness.push(value.as_bytes()))
}

fn done(values: &[&str]) -> Answered {
    let made = |value: &&str| Made {
        route: 0,
        key: Vec::new(),
        event_time: None,
        headers: Vec::new(),
        value: value.as_bytes().to_vec(),
    };
    Answered::Done(values.iter().map(made).collect())
}

/// Rules: VX-502.
#[test]
fn one_input_that_fails_takes_no_other_with_it() {
    let answered =
        answered(&["a", "panic", "b", "fail", "c"], |record: Record<'_>, _: &Ctx<'_>, out: &mut Emit<'_>| {
            out.record().value(record.value());
            match record.value() {
                b"panic" => panic!("at {}", record.position()),
                b"fail" => Outcome::fail("not today"),
                _ => Outcome::ok(),
            }
        });
    let expected = [
        done(&["a"]),
        Answered::Failed("panicked: at 1010".to_owned()),
        done(&["b"]),
        Answered::Failed("not today".to_owned()),
        done(&["c"]),
    ];
    assert_eq!(answered, expected);
}

/// Rules: VX-401.
#[test]
fn what_is_left_out_is_no_failure() {
    let answered = answered(&["x", "y"], |record: Record<'_>, _: &Ctx<'_>, out: &mut Emit<'_>| {
        out.record().value(b"taken back");
        if record.value() == b"x" { Outcome::drop("empty") } else { Outcome::ok() }
    });
    assert_eq!(answered, [Answered::Dropped("empty".to_owned()), done(&["taken back"])]);
}

/// Rules: VX-213.
#[test]
fn an_output_that_does_not_fit_a_frame_rejects_its_input() {
    let lens = ["1", "5000000"];
    let make =
        |record: &Record<'_>| vec![b'7'; std::str::from_utf8(record.value()).unwrap().parse().unwrap()];
    let one = answered(&lens, move |record: Record<'_>, _: &Ctx<'_>, out: &mut Emit<'_>| {
        out.record().value(&make(&record));
        Outcome::ok()
    });
    let many = worker().batch_map("test", move |batch, _, answers| {
        for record in batch.records() {
            answers.of(&record).record().value(&make(&record));
        }
        Ok(())
    });
    for answered in [one, pushed(many, &lens).answers().unwrap()] {
        let [first, Answered::Rejected(reason)] = answered.as_slice() else { panic!("{answered:?}") };
        assert_eq!(*first, done(&["7"]));
        assert!(reason.starts_with("RECORD_TOO_LARGE"), "{reason}");
    }
}

#[test]
fn a_nack_has_its_delay() {
    let delay = Duration::from_millis(258);
    let answered =
        answered(&["x"], move |_: Record<'_>, _: &Ctx<'_>, _: &mut Emit<'_>| Outcome::nack(delay, "later"));
    assert_eq!(answered, [Answered::Nacked(delay, "later".to_owned())]);
}

#[test]
fn outputs_have_key_time_headers_and_route_of_their_own_or_those_of_their_input() {
    let full = |function| {
        let harness = Harness::new(function).unwrap().routes(&["main", "late"]);
        harness.push_record(b"k", Some(-5), &[("a", b"1"), ("b", b"")], b"value").answers().unwrap()
    };
    let headers = vec![(b"a".to_vec(), b"1".to_vec()), (b"b".to_vec(), Vec::new())];
    let made = |key: &[u8], event_time, headers, value: &[u8]| Made {
        route: 0,
        key: key.to_vec(),
        event_time,
        headers,
        value: value.to_vec(),
    };
    let kept = full(worker().filter("test", |record, _| record.key() == b"k"));
    assert_eq!(kept, [Answered::Done(vec![made(b"k", Some(-5), headers.clone(), b"value")])]);
    assert_eq!(full(worker().filter("test", |record, _| record.key() != b"k")), [done(&[])]);
    let split = full(
        worker()
            .flat_map("test", |record, _| record.value().chunks(2).map(<[u8]>::to_vec).collect::<Vec<_>>()),
    );
    let parts = [&b"va"[..], b"lu", b"e"].map(|value| made(b"k", Some(-5), Vec::new(), value));
    assert_eq!(split, [Answered::Done(parts.to_vec())]);
    let own = full(worker().map("test", |record, ctx, out| {
        let route = ctx.route("late").unwrap();
        let output = out.record().key(b"other").event_time(Some(9)).route(route);
        let (name, value) = record.headers().next().unwrap();
        output.header(std::str::from_utf8(name).unwrap(), value).value(b"x");
        Outcome::ok()
    }));
    let late = Made { route: 1, ..made(b"other", Some(9), vec![(b"a".to_vec(), b"1".to_vec())], b"x") };
    assert_eq!(own, [Answered::Done(vec![late])]);
}

/// Rules: VX-401.
#[test]
fn a_function_of_batches_answers_in_any_order() {
    let backwards = worker().batch_map("test", |batch, _, answers| {
        let records: Vec<_> = batch.records().collect();
        for record in records.iter().rev() {
            answers.of(record).record().value(record.value());
            match record.value() {
                b"bad" => answers.settle(record, Outcome::reject("bad")),
                b"skip" => answers.settle(record, Outcome::drop("")),
                _ => answers.of(record).record().value(b"twice"),
            }
        }
        Ok(())
    });
    let answered = pushed(backwards, &["a", "bad", "skip", "b"]).answers().unwrap();
    let expected = [
        done(&["a", "twice"]),
        Answered::Rejected("bad".to_owned()),
        Answered::Dropped(String::new()),
        done(&["b", "twice"]),
    ];
    assert_eq!(answered, expected);
}

/// Rules: VX-502.
#[test]
fn a_function_that_fails_on_a_batch_fails_as_a_whole_until_the_batch_is_one_input() {
    let parse = || {
        worker().batch_map("test", |batch, _, answers| {
            for record in batch.records() {
                let number: i64 = std::str::from_utf8(record.value())?.parse()?;
                assert_ne!(number, 13, "unlucky");
                answers.of(&record).record().value(number.to_string().as_bytes());
            }
            Ok(())
        })
    };
    assert_eq!(pushed(parse(), &["1", "2"]).answers().unwrap(), [done(&["1"]), done(&["2"])]);
    for bad in ["x", "13"] {
        let failed = pushed(parse(), &["1", bad]).answers();
        let how = if bad == "x" { "Failed(\"invalid digit" } else { "Panicked(\"panicked: " };
        assert!(failed.as_ref().is_err_and(|failure| failure.0.starts_with(how)), "{failed:?}");
        let answered = pushed(parse(), &[bad]).answers().unwrap();
        let [Answered::Failed(reason)] = answered.as_slice() else { panic!("{answered:?}") };
        assert!(reason.contains("invalid digit") || reason.contains("unlucky"), "{reason}");
    }
}

#[test]
fn places_are_where_the_parts_are() {
    let mut inputs = RecordWriter::default();
    let parts: [(&[u8], &[u8], &[u8]); 4] =
        [(b"", b"", b""), (b"v", b"key", b"headers"), (b"12345678", b"", b"h"), (b"123456789", b"k", b"")];
    for (index, (value, key, headers)) in (0..).zip(parts) {
        let event_time = (index == 1).then_some(7);
        let head = RecordHead { kind: RecordType::Data, index, place: index, event_time, key, headers };
        inputs.push(&head, value).unwrap();
    }
    let payload = Arc::new(inputs.bytes().to_vec());
    let batch = Batch::parse(payload.clone(), 4, Position(5)).unwrap();
    let places: Vec<_> = batch.places().collect();
    assert_eq!(places.len(), 4);
    for ((place, index), (value, key, headers)) in places.iter().zip(0..).zip(parts) {
        assert_eq!((place.index, place.position), (index, Position(5 + u64::from(index))));
        assert_eq!(place.event_time, (index == 1).then_some(7));
        assert_eq!(&payload[place.value.clone()], value);
        assert_eq!((&payload[place.key.clone()], &payload[place.headers.clone()]), (key, headers));
        assert!(place.value.start.is_multiple_of(8));
    }
}

/// Rules: VX-504.
#[test]
fn a_seed_belongs_to_its_input() {
    let seeds = || {
        answered(&["a", "b"], |record: Record<'_>, ctx: &Ctx<'_>, out: &mut Emit<'_>| {
            out.record().value(ctx.seed(&record).to_string().as_bytes());
            Outcome::ok()
        })
    };
    let first = seeds();
    assert_eq!(first, seeds());
    assert_ne!(first[0], first[1]);
}
