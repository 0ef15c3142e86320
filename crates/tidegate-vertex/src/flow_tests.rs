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
    backoff: Backoff { initial: Nanos(10), factor: 2.0, cap: Nanos(25), jitter: 0.0 },
    gives_back: false,
    on_exhausted: OnExhausted::LeaveOut,
};

/// A batch on the only lane.
fn ticket(batch: u64) -> Ticket {
    Ticket { lane: 0, batch: BatchId(batch) }
}

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
        Step::GaveUp(input, _) | Step::GaveBack(input, ..) | Step::Stopped(input, _) => {
            return vec![(input.position.0, false)];
        }
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
    let mut on_way: VecDeque<(Ticket, Batch)> = VecDeque::new();
    let mut done = Vec::new();
    for _ in 0..10_000 {
        done.extend(flow.finish(now).steps.iter().flat_map(positions));
        if flow.is_empty() || flow.is_stopped() {
            return (done, calls);
        }
        if on_way.len() < window
            && let Some(batch) = flow.next_to_send(now).cloned()
        {
            flow.sent(ticket(next));
            on_way.push_back((ticket(next), batch));
            next += 1;
            continue;
        }
        let Some((id, batch)) = on_way.pop_front() else {
            now = flow.next_time().expect("nothing on its way and nothing to wait for");
            continue;
        };
        calls += 1;
        if batch.inputs().iter().any(|input| deadly.contains(&input.position.0)) {
            let lost: Vec<Ticket> = std::iter::once(id).chain(on_way.drain(..).map(|(id, _)| id)).collect();
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
            for unordered in [false, true] {
                let mut flow = Flow::new(RETRY, Shape { unordered, ..Shape::default() });
                for start in (0..6).step_by(cut) {
                    flow.push(batch(start..(start + cut as u64).min(6)));
                }
                let (mut done, _) = run(&mut flow, window, &bad, &deadly);
                if unordered {
                    done.sort_unstable();
                }
                let expected: Vec<(u64, bool)> =
                    (0..6).map(|input| (input, !bad.contains(&input) && !deadly.contains(&input))).collect();
                assert_eq!(
                    done, expected,
                    "bad {bad:?}, deadly {deadly:?}, batches of {cut}, window {window}"
                );
            }
        }
    }
}

/// Cases: CT-21.
/// Rules: VX-610.
#[test]
fn one_deadly_input_costs_few_calls() {
    for deadly in 0..64 {
        let mut flow = Flow::new(RETRY, Shape::default());
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
    let mut flow = Flow::new(Retry { on_exhausted: OnExhausted::Stop, ..RETRY }, Shape::default());
    flow.push(batch(0..3));
    flow.push(batch(3..6));
    let (done, _) = run(&mut flow, 2, &BTreeSet::from([1]), &BTreeSet::new());
    assert_eq!(done, [(0, true), (1, false)]);
    assert!(flow.is_stopped());
    assert!(flow.finish(Nanos(1_000)).steps.is_empty(), "something behind it was delivered");
    assert!(flow.next_to_send(Nanos(1_000)).is_none());
}

/// What stands behind the input waits for the next run, and takes no room from other partitions until then.
/// Rules: VX-444, VX-601, VX-602.
#[test]
fn a_partition_that_stopped_holds_nothing_and_knows_what_is_not_done() {
    let mut flow = Flow::new(Retry { on_exhausted: OnExhausted::Stop, ..RETRY }, Shape::default());
    let batches = [batch(0..3), batch(3..6)];
    for (id, batch) in (1..).zip(&batches) {
        flow.push(batch.clone());
        flow.sent(ticket(id));
    }
    flow.answered(ticket(2), answer(&batches[1], &BTreeSet::new()), Nanos(0));
    let mut now = Nanos(0);
    flow.answered(ticket(1), answer(&batches[0], &BTreeSet::from([1])), now);
    for id in 3.. {
        flow.finish(now);
        if flow.is_stopped() {
            break;
        }
        now = flow.next_time().unwrap();
        flow.sent(ticket(id));
        flow.lost(&[ticket(id)], Some(ticket(id)), now);
    }
    assert_eq!((flow.bytes(), flow.len(), flow.sent_len()), (0, 0, 0));
    assert_eq!((flow.inputs(), flow.first(), flow.is_empty()), (5, Some(1), false));
    assert_eq!(flow.marks(), [Mark { position: Position(1), failures: 1, crashes: 2 }]);
    // An answer that comes afterwards is none.
    flow.answered(ticket(2), answer(&batches[1], &BTreeSet::new()), now);
    assert!(flow.finish(now).steps.is_empty());
}

/// Rules: VX-601.
#[test]
fn delays_double_up_to_the_cap() {
    let mut flow = Flow::new(RETRY, Shape::default());
    flow.push(batch(0..1));
    let bad = BTreeSet::from([0]);
    let mut delays = Vec::new();
    for try_number in 1..=3 {
        let batch = flow.next_to_send(flow.next_time().unwrap_or_default()).unwrap().clone();
        assert_eq!(u64::from(batch.attempt), try_number - 1);
        flow.sent(ticket(try_number));
        flow.answered(ticket(try_number), answer(&batch, &bad), Nanos(100));
        if flow.finish(Nanos(100)).steps.is_empty() {
            let until = flow.next_time().unwrap();
            assert!(flow.next_to_send(Nanos(until.0 - 1)).is_none());
            delays.push(until.0 - 100);
        }
    }
    assert_eq!(delays, [10, 20]);
    assert!(flow.is_empty());
}

/// The first input goes back to the source, for 3 ms; nothing is said of the others.
fn nack(inputs: u32) -> Answer {
    let mut writer = RecordWriter::default();
    let kind = RecordType::Nack;
    let head = RecordHead { kind, index: 0, place: 0, event_time: None, key: &[], headers: &[] };
    writer.push(&head, &[3, 0, 0, 0, b'n', b'o']).unwrap();
    Answer::parse(Status::Partial, writer.bytes().to_vec(), writer.count(), inputs, 1).unwrap()
}

/// What was given back is final here; what is behind it goes on.
/// Rules: VX-601, VX-603.
#[test]
fn a_source_that_takes_single_inputs_back_is_given_them() {
    let given_back = |flow: &mut Flow, reply: Answer, expected: (&str, u32, Nanos)| {
        flow.push(batch(0..2));
        flow.sent(ticket(1));
        flow.answered(ticket(1), reply, Nanos(100));
        let [Step::GaveBack(input, death, delay)] = &flow.finish(Nanos(100)).steps[..] else {
            panic!("kept")
        };
        assert_eq!(
            (input.position, death.class, death.attempts, *delay),
            (Position(0), expected.0, expected.1, expected.2)
        );
        assert_eq!(flow.next_to_send(Nanos(100)).unwrap().first(), Position(1));
        assert_eq!(flow.inputs(), 1);
    };
    let gives_back = Retry { gives_back: true, ..RETRY };
    // With the delay that the function says, at once.
    given_back(&mut Flow::new(gives_back, Shape::default()), nack(2), ("NACKED", 1, Nanos::from_millis(3)));
    // With the longest delay, when all tries are used up.
    let exhausted = Retry { attempts: NonZeroU32::MIN, on_exhausted: OnExhausted::GiveBack, ..gives_back };
    let failed = answer(&batch(0..2), &BTreeSet::from([0]));
    given_back(&mut Flow::new(exhausted, Shape::default()), failed, ("UDF_ERROR", 1, Nanos(25)));
}

/// Rules: VX-603.
#[test]
fn an_input_that_is_given_back_comes_again_after_its_delay_and_not_for_ever() {
    let mut flow = Flow::new(RETRY, Shape::default());
    flow.push(batch(0..2));
    let mut now = Nanos(0);
    for try_number in 1..3 {
        let inputs = flow.next_to_send(now).unwrap().count();
        flow.sent(ticket(try_number));
        flow.answered(ticket(try_number), nack(inputs), now);
        assert!(flow.finish(now).steps.is_empty());
        let due = now.saturating_add(Nanos::from_millis(3));
        assert_eq!(flow.next_time(), Some(due));
        assert!(flow.next_to_send(Nanos(due.0 - 1)).is_none(), "nothing passes it");
        now = due;
    }
    flow.sent(ticket(3));
    flow.answered(ticket(3), nack(1), now);
    let [Step::GaveUp(input, death)] = &flow.finish(now).steps[..] else { panic!("not given up") };
    assert_eq!(
        (input.position, death.class, death.reason.as_str(), death.attempts),
        (Position(0), "NACKED", "no", 3)
    );
    assert_eq!(flow.next_to_send(now).unwrap().first(), Position(1));
}

/// One that has used up its tries in an earlier run is not tried once more because others before it are on their way.
/// Rules: VX-602, VX-611.
#[test]
fn an_input_without_tries_left_is_not_sent() {
    let mut flow = Flow::new(RETRY, Shape::default());
    flow.remember(&[Mark { position: Position(1), failures: 0, crashes: 2 }]);
    flow.push(batch(0..3));
    flow.sent(ticket(1));
    assert!(flow.next_to_send(Nanos(1_000)).is_none());
    flow.answered(ticket(1), answer(&batch(0..1), &BTreeSet::new()), Nanos(0));
    let done: Vec<_> = flow.finish(Nanos(0)).steps.iter().flat_map(positions).collect();
    assert_eq!(done, [(0, true), (1, false)]);
    assert_eq!(flow.next_to_send(Nanos(0)).unwrap().first(), Position(2));
}

/// Rules: VX-213, VX-620.
#[test]
fn an_input_that_no_function_can_be_given_has_its_place_in_the_order() {
    let unfit = |flow: &mut Flow| {
        flow.push(batch(0..1));
        flow.push_unfit(batch(1..2).into_inputs().remove(0), "RECORD_TOO_LARGE", "why".to_owned());
        flow.push(batch(2..3));
    };
    let mut flow = Flow::new(RETRY, Shape::default());
    unfit(&mut flow);
    assert!(flow.finish(Nanos(0)).steps.is_empty(), "before what is in front of it");
    let (done, calls) = run(&mut flow, 2, &BTreeSet::new(), &BTreeSet::new());
    assert_eq!((done, calls), (vec![(0, true), (1, false), (2, true)], 2));
    let mut flow = Flow::new(Retry { on_exhausted: OnExhausted::Stop, ..RETRY }, Shape::default());
    unfit(&mut flow);
    let (done, _) = run(&mut flow, 2, &BTreeSet::new(), &BTreeSet::new());
    assert_eq!(done, [(0, true), (1, false)]);
    assert!(flow.is_stopped() && flow.inputs() == 2);
}

/// Nothing else tells that there is something to do, when there was no place for it before.
/// Rules: VX-314, VX-316, VX-620.
#[test]
fn an_input_that_is_to_be_given_up_is_final_as_an_answer_is() {
    let unfit = |flow: &mut Flow| {
        flow.push_unfit(batch(0..1).into_inputs().remove(0), "PARSE_ERROR", "why".to_owned());
    };
    let out_of_tries = |flow: &mut Flow| {
        flow.remember(&[Mark { position: Position(0), failures: 0, crashes: 2 }]);
        flow.push(batch(0..1));
    };
    let answered = |flow: &mut Flow| {
        flow.push(batch(0..1));
        flow.sent(ticket(1));
        assert!(!flow.has_final());
        flow.answered(ticket(1), answer(&batch(0..1), &BTreeSet::new()), Nanos(0));
    };
    for prepare in [&unfit as &dyn Fn(&mut Flow), &out_of_tries, &answered] {
        let mut flow = Flow::new(RETRY, Shape::default());
        prepare(&mut flow);
        flow.push(batch(1..2));
        assert!(flow.has_final());
        assert_eq!(flow.finish_batch(Nanos(0)).steps.len(), 1);
        assert!(!flow.has_final());
    }
}

/// Answers behind one that is missing are held (VX-316).
/// Cases: CT-43.
/// Rules: VX-441.
#[test]
fn an_answer_out_of_order_waits_for_the_ones_before_it() {
    let mut flow = Flow::new(RETRY, Shape::default());
    let batches = [batch(0..1), batch(1..2)];
    for (id, batch) in (1..).zip(&batches) {
        flow.push(batch.clone());
        flow.sent(ticket(id));
    }
    flow.answered(ticket(2), answer(&batches[1], &BTreeSet::new()), Nanos(0));
    assert!(flow.finish(Nanos(0)).steps.is_empty());
    assert_eq!(flow.sent_len(), 2);
    flow.answered(ticket(1), answer(&batches[0], &BTreeSet::new()), Nanos(0));
    let done: Vec<_> = flow.finish(Nanos(0)).steps.iter().flat_map(positions).collect();
    assert_eq!(done, [(0, true), (1, true)]);
}

/// Without order what is answered is delivered, whatever is in front of it; where the finished prefix ends is told all the same.
/// Rules: VX-440, VX-441, VX-444.
#[test]
fn without_order_an_answer_waits_for_none() {
    let mut flow = Flow::new(RETRY, Shape { unordered: true, ..Shape::default() });
    let batches = [batch(0..2), batch(2..4), batch(4..6)];
    for (id, batch) in (1..).zip(&batches) {
        flow.push(batch.clone());
        flow.sent(ticket(id));
    }
    let answered = |flow: &mut Flow, id: usize, bad: &[u64]| -> Vec<_> {
        let bad = bad.iter().copied().collect();
        flow.answered(ticket(id as u64), answer(&batches[id - 1], &bad), Nanos(0));
        flow.finish(Nanos(0)).steps.iter().flat_map(positions).collect()
    };
    assert_eq!(answered(&mut flow, 3, &[]), [(4, true), (5, true)]);
    assert_eq!(flow.first(), Some(0));
    // One that fails holds nobody up, and keeps its place.
    assert_eq!(answered(&mut flow, 2, &[3]), [(2, true)]);
    assert_eq!(answered(&mut flow, 1, &[]), [(0, true), (1, true)]);
    assert_eq!((flow.first(), flow.inputs()), (Some(3), 1));
}

/// Batches of two lanes may have the same number.
/// Rules: VX-440.
#[test]
fn an_answer_of_one_lane_is_none_of_another() {
    let mut flow = Flow::new(RETRY, Shape::default());
    let batches = [batch(0..1), batch(1..2)];
    let tickets = [0, 1].map(|lane| Ticket { lane, batch: BatchId(1) });
    for (batch, ticket) in batches.iter().zip(tickets) {
        flow.push(batch.clone());
        flow.sent(ticket);
    }
    flow.answered(tickets[1], answer(&batches[1], &BTreeSet::new()), Nanos(0));
    assert!(flow.finish(Nanos(0)).steps.is_empty());
    flow.lost(&[tickets[0]], Some(tickets[0]), Nanos(0));
    assert_eq!(flow.next_to_send(Nanos(100)).unwrap().first(), Position(0));
    assert_eq!(flow.sent_len(), 1);
}

/// Rules: VX-442.
#[test]
fn a_batch_that_is_not_full_takes_what_is_read_behind_it() {
    let one = batch(0..1).bytes();
    let shape = Shape { records: 5, bytes: 4 * one, linger: Nanos(20), unordered: false };
    let mut flow = Flow::new(RETRY, shape);
    let counts = |flow: &Flow| flow.entries.iter().map(|entry| entry.batch.count()).collect::<Vec<_>>();
    flow.push(batch(0..2).read_at(Nanos(100)));
    assert_eq!(flow.fills_until(), Some(Nanos(120)));
    flow.push(batch(2..5).read_at(Nanos(110)));
    assert_eq!(counts(&flow), [4, 1], "no more bytes than a batch has");
    assert_eq!(flow.fills_until(), None, "one that is full waits for none");
    flow.sent(ticket(1));
    assert_eq!(flow.fills_until(), Some(Nanos(130)), "since its own first input");
    assert_eq!(flow.next_time(), Some(Nanos(130)));
    flow.push(batch(5..6));
    flow.sent(ticket(2));
    flow.push(batch(6..7));
    assert_eq!(counts(&flow), [4, 2, 1], "one that is on its way takes no more");
    // One that is tried again stays as it is.
    flow.lost(&[ticket(2)], Some(ticket(2)), Nanos(0));
    flow.entries.pop_back();
    flow.push(batch(6..7));
    assert_eq!(counts(&flow), [4, 2, 1]);
    let mut records = Flow::new(RETRY, Shape { records: 3, bytes: u64::MAX, ..shape });
    (0..4).for_each(|input| records.push(batch(input..input + 1)));
    assert_eq!(counts(&records), [3, 1]);
}

/// What a source gives again comes behind newer inputs, and goes by itself.
/// Rules: VX-442, VX-837.
#[test]
fn positions_grow_within_a_batch() {
    let mut flow = Flow::new(RETRY, Shape { records: 9, bytes: u64::MAX, ..Shape::default() });
    for inputs in [4..6, 1..3, 3..4, 3..4] {
        flow.push(batch(inputs));
    }
    let ends = flow.entries.iter().map(|entry| (entry.batch.first().0, entry.batch.last().0));
    assert_eq!(ends.collect::<Vec<_>>(), [(4, 5), (1, 3), (3, 3)]);
}

/// Positions in a batch are told by 32 bits behind the first.
/// Rules: VX-442.
#[test]
fn a_batch_does_not_span_more_than_its_frame_can_tell() {
    let far = |position: u64| batch(position..position + 1).into_inputs().remove(0);
    let mut flow = Flow::new(RETRY, Shape { records: 9, bytes: u64::MAX, ..Shape::default() });
    let span = u64::from(u32::MAX);
    flow.push(Batch::new(vec![far(7), far(7 + span - 1), far(7 + span), far(8 + span)]).unwrap());
    flow.push(Batch::new(vec![far(6 + 2 * span), far(7 + 2 * span)]).unwrap());
    let firsts: Vec<u64> = flow.entries.iter().map(|entry| entry.batch.first().0).collect();
    assert_eq!(firsts, [7, 7 + span, 7 + 2 * span]);
}

/// Cases: CT-69.
/// Rules: VX-235.
#[test]
fn a_stale_answer_to_a_current_batch_is_no_outcome() {
    let mut flow = Flow::new(RETRY, Shape::default());
    flow.push(batch(0..2));
    flow.sent(ticket(1));
    let stale = Answer::of_batch(Status::StaleGeneration);
    flow.answered(ticket(1), stale, Nanos(0));
    assert!(flow.finish(Nanos(0)).steps.is_empty());
    let again = flow.next_to_send(flow.next_time().unwrap()).unwrap();
    assert_eq!((again.attempt, again.failures, again.count()), (1, 0, 2));
}

/// An answer that says too little is none.
/// Rules: VX-003.
#[test]
fn an_input_without_a_verdict_is_tried_again() {
    let mut flow = Flow::new(RETRY, Shape::default());
    flow.push(batch(0..2));
    flow.sent(ticket(1));
    flow.answered(ticket(1), answer(&batch(0..1), &BTreeSet::new()), Nanos(0));
    assert_eq!(flow.finish(Nanos(0)).steps.len(), 1);
    assert_eq!(flow.next_to_send(Nanos(100)).unwrap().first(), Position(1));
}

/// Rules: VX-312.
#[test]
fn outputs_that_are_too_many_cut_the_batch_until_they_fit() {
    let mut flow = Flow::new(RETRY, Shape::default());
    flow.push(batch(0..2));
    let large = Answer::of_batch(Status::OutputTooLarge);
    for id in 1..=2 {
        assert_eq!(flow.next_to_send(Nanos(1_000)).unwrap().count(), 2);
        flow.sent(ticket(id));
        flow.answered(ticket(id), large.clone(), Nanos(0));
    }
    assert_eq!(flow.next_to_send(Nanos(1_000)).unwrap().count(), 1);
    assert_eq!(flow.len(), 2);
}
