//! The order of one partition, against every way in which workers can answer, fail and die.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::collections::BTreeSet;

use tidegate_udf::wire::{
    ids::Position,
    record::{RecordHead, RecordType, RecordWriter},
};

use super::*;
use crate::batch::Record;

const RETRY: Retry = Retry {
    attempts: NonZeroU32::new(3).unwrap(),
    crash_attempts: NonZeroU32::new(2).unwrap(),
    initial: Nanos(10),
    cap: Nanos(25),
    on_exhausted: OnExhausted::LeaveOut,
};

fn batch(positions: std::ops::Range<u64>) -> Batch {
    let inputs = positions.map(|position| Input {
        position: Position(position),
        next: Position(position + 1),
        record: Record::default(),
    });
    Batch::new(inputs.collect()).unwrap()
}

/// What a function says that fails on these positions.
fn answer(batch: &Batch, bad: &BTreeSet<u64>) -> Answer {
    let mut writer = RecordWriter::default();
    for (index, input) in (0..).zip(batch.inputs()) {
        let position = input.position.0;
        let kind = if bad.contains(&position) { RecordType::Fail } else { RecordType::Data };
        let head = RecordHead { kind, index, place: 0, event_time: None, key: &[], headers: &[] };
        writer.push(&head, &[position as u8]).unwrap();
    }
    Answer::parse(Status::Ok, writer.bytes().to_vec(), writer.count(), batch.count(), 1).unwrap()
}

/// What a step is about, and whether it is delivered.
fn positions(step: &Step) -> Vec<(u64, bool)> {
    let (inputs, answer) = match step {
        Step::Done(inputs, answer) => (inputs, answer),
        Step::GaveUp(input, _) | Step::Stopped(input, _) => return vec![(input.position.0, false)],
    };
    let mut done = Vec::new();
    for (input, verdict) in inputs.iter().zip(answer.verdicts()) {
        let Verdict::Done(outputs) = verdict else { panic!("{verdict:?}") };
        let values: Vec<_> = outputs.views().map(|view| view.value).collect();
        assert_eq!(values, [[input.position.0 as u8]], "outputs of another input");
        done.push((input.position.0, true));
    }
    assert_eq!(done.len(), inputs.len());
    done
}

/// A worker that answers one batch after the other. `bad` are inputs on which the function fails, `deadly` ones that end the
/// worker. Returns what was final, in order, and the number of calls.
fn run(
    flow: &mut Flow,
    window: usize,
    bad: &BTreeSet<u64>,
    deadly: &BTreeSet<u64>,
) -> (Vec<(u64, bool)>, u32) {
    let (mut now, mut next, mut calls) = (Nanos(0), 1, 0);
    let mut on_way: VecDeque<(BatchId, Batch)> = VecDeque::new();
    let mut done = Vec::new();
    for _ in 0..10_000 {
        done.extend(flow.finish(now).iter().flat_map(positions));
        if flow.is_empty() || flow.is_stopped() {
            return (done, calls);
        }
        if on_way.len() < window
            && let Some(batch) = flow.next_to_send(now).cloned()
        {
            flow.sent(BatchId(next));
            on_way.push_back((BatchId(next), batch));
            next += 1;
            continue;
        }
        let Some((id, batch)) = on_way.pop_front() else {
            now = flow.next_time().expect("nothing on its way and nothing to wait for");
            continue;
        };
        calls += 1;
        if batch.inputs().iter().any(|input| deadly.contains(&input.position.0)) {
            let lost: Vec<BatchId> = std::iter::once(id).chain(on_way.drain(..).map(|(id, _)| id)).collect();
            flow.lost(&lost, Some(id), now);
        } else {
            flow.answered(id, answer(&batch, bad), now);
        }
    }
    panic!("it never ends");
}

/// Every set of bad and deadly inputs among six, in every cut into batches, with every window: all others are delivered once,
/// in order.
/// Cases: CT-21.
/// Rules: VX-003, VX-441, VX-600, VX-610, VX-611.
#[test]
fn whatever_fails_the_rest_is_delivered_once_and_in_order() {
    for kinds in 0..3u32.pow(6) {
        let of = |kind| (0..6).filter(|input| kinds / 3u32.pow(*input) % 3 == kind).map(u64::from).collect();
        let (bad, deadly): (BTreeSet<u64>, BTreeSet<u64>) = (of(1), of(2));
        for (cut, window) in [(1, 3), (2, 1), (3, 2), (6, 1), (4, 2)] {
            let mut flow = Flow::new(RETRY);
            for start in (0..6).step_by(cut) {
                flow.push(batch(start..(start + cut as u64).min(6)));
            }
            let (done, _) = run(&mut flow, window, &bad, &deadly);
            let expected: Vec<(u64, bool)> =
                (0..6).map(|input| (input, !bad.contains(&input) && !deadly.contains(&input))).collect();
            assert_eq!(done, expected, "bad {bad:?}, deadly {deadly:?}, batches of {cut}, window {window}");
        }
    }
}

/// Cases: CT-21.
/// Rules: VX-610.
#[test]
fn one_deadly_input_costs_few_calls() {
    for deadly in 0..64 {
        let mut flow = Flow::new(RETRY);
        flow.push(batch(0..64));
        let (done, calls) = run(&mut flow, 1, &BTreeSet::new(), &BTreeSet::from([deadly]));
        assert_eq!(done.iter().filter(|(_, delivered)| !delivered).count(), 1);
        // Two tries a level on the way down and one for each half without it.
        assert!(calls <= 2 * 6 + 2 + 6, "{calls} calls for input {deadly}");
    }
}

/// Rules: VX-601.
#[test]
fn an_input_that_cannot_be_processed_stops_the_partition_when_nothing_else_is_configured() {
    let mut flow = Flow::new(Retry { on_exhausted: OnExhausted::Stop, ..RETRY });
    flow.push(batch(0..3));
    flow.push(batch(3..6));
    let (done, _) = run(&mut flow, 2, &BTreeSet::from([1]), &BTreeSet::new());
    assert_eq!(done, [(0, true), (1, false)]);
    assert!(flow.is_stopped());
    assert!(flow.finish(Nanos(1_000)).is_empty(), "something behind it was delivered");
    assert!(flow.next_to_send(Nanos(1_000)).is_none());
}

/// Rules: VX-601.
#[test]
fn delays_double_up_to_the_cap() {
    let mut flow = Flow::new(RETRY);
    flow.push(batch(0..1));
    let bad = BTreeSet::from([0]);
    let mut delays = Vec::new();
    for try_number in 1..=3 {
        let batch = flow.next_to_send(flow.next_time().unwrap_or_default()).unwrap().clone();
        assert_eq!(u64::from(batch.attempt), try_number - 1);
        flow.sent(BatchId(try_number));
        flow.answered(BatchId(try_number), answer(&batch, &bad), Nanos(100));
        if flow.finish(Nanos(100)).is_empty() {
            let until = flow.next_time().unwrap();
            assert!(flow.next_to_send(Nanos(until.0 - 1)).is_none());
            delays.push(until.0 - 100);
        }
    }
    assert_eq!(delays, [10, 20]);
    assert_eq!(backoff(&RETRY, 3), Nanos(25));
    assert_eq!(backoff(&RETRY, 1_000), Nanos(25));
    assert!(flow.is_empty());
}

/// Answers behind one that is missing are held (VX-316).
/// Cases: CT-43.
/// Rules: VX-441.
#[test]
fn an_answer_out_of_order_waits_for_the_ones_before_it() {
    let mut flow = Flow::new(RETRY);
    let batches = [batch(0..1), batch(1..2)];
    for (id, batch) in (1..).zip(&batches) {
        flow.push(batch.clone());
        flow.sent(BatchId(id));
    }
    flow.answered(BatchId(2), answer(&batches[1], &BTreeSet::new()), Nanos(0));
    assert!(flow.finish(Nanos(0)).is_empty());
    assert_eq!(flow.sent_len(), 2);
    flow.answered(BatchId(1), answer(&batches[0], &BTreeSet::new()), Nanos(0));
    let done: Vec<_> = flow.finish(Nanos(0)).iter().flat_map(positions).collect();
    assert_eq!(done, [(0, true), (1, true)]);
}

/// Cases: CT-69.
/// Rules: VX-235.
#[test]
fn a_stale_answer_to_a_current_batch_is_no_outcome() {
    let mut flow = Flow::new(RETRY);
    flow.push(batch(0..2));
    flow.sent(BatchId(1));
    let stale = Answer::of_batch(Status::StaleGeneration);
    flow.answered(BatchId(1), stale, Nanos(0));
    assert!(flow.finish(Nanos(0)).is_empty());
    let again = flow.next_to_send(flow.next_time().unwrap()).unwrap();
    assert_eq!((again.attempt, again.failures, again.count()), (1, 0, 2));
}

/// An answer that says too little is none.
/// Rules: VX-003.
#[test]
fn an_input_without_a_verdict_is_tried_again() {
    let mut flow = Flow::new(RETRY);
    flow.push(batch(0..2));
    flow.sent(BatchId(1));
    flow.answered(BatchId(1), answer(&batch(0..1), &BTreeSet::new()), Nanos(0));
    assert_eq!(flow.finish(Nanos(0)).len(), 1);
    assert_eq!(flow.next_to_send(Nanos(100)).unwrap().first(), Position(1));
}

/// Rules: VX-312.
#[test]
fn outputs_that_are_too_many_cut_the_batch_until_they_fit() {
    let mut flow = Flow::new(RETRY);
    flow.push(batch(0..2));
    let large = Answer::of_batch(Status::OutputTooLarge);
    for id in 1..=2 {
        assert_eq!(flow.next_to_send(Nanos(1_000)).unwrap().count(), 2);
        flow.sent(BatchId(id));
        flow.answered(BatchId(id), large.clone(), Nanos(0));
    }
    assert_eq!(flow.next_to_send(Nanos(1_000)).unwrap().count(), 1);
    assert_eq!(flow.len(), 2);
}
