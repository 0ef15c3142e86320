//! One session: what is with the sinks, and how far that is progress.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use tidegate_udf::wire::{
    ids::{BatchId, Generation},
    status::Status,
};

use super::*;
use crate::{
    answer::Answer,
    batch::Record,
    config::Pipeline,
    fence::{FenceTable, Reason, WriteKind},
    flow::Ticket,
    run::{
        outgoing::Sorter,
        report::{Outcomes, Report},
    },
};

fn tenure() -> Tenure {
    tenure_of("")
}

/// With further keys of `[udf]`.
fn tenure_of(udf: &str) -> Tenure {
    let text = "version = 1\n[pipeline]\nname = \"p\"\ndelivery = \"at_least_once\"\n[udf]\ncommand = [\"x\"]\nUDF\n\
                [source]\nkind = \"generator\"\nrecords = 1\n[[sink]]\nname = \"main\"\nkind = \"blackhole\"";
    let pipeline: Pipeline = text.replace("UDF", udf).parse().unwrap();
    let (partition, generation) = (PartitionId(0), Generation(1));
    let (slot, guard) = FenceTable::create(1, 1).unwrap().bind(partition, generation).unwrap();
    let session = Session { partition, generation, nonce: 1 };
    Tenure::new(slot, guard, session, Flow::new(pipeline.retry(), pipeline.shape()))
}

/// Has ten inputs from this one on on their way to the sinks.
fn ten(tenure: &mut Tenure, first: u64) -> Outgoing {
    let range = Range { first: Position(first), last: Position(first + 9), resume: Position(first + 10) };
    let outcomes = Outcomes { delivered: 10, ..Outcomes::default() };
    let chunk = Chunk { serial: first, range, outcomes, outputs: Vec::new(), bytes: 0, back: Vec::new() };
    tenure.begin(chunk, &[], Nanos::ZERO);
    tenure.outgoing.take().unwrap()
}

fn deliver(tenure: &mut Tenure, outgoing: Outgoing) {
    tenure.add_delivered(outgoing.chunk.published(), Nanos::ZERO);
}

/// Where the open epoch ends, and how many inputs it has.
fn open(tenure: &Tenure) -> (u64, u64) {
    tenure.open.as_ref().map_or((0, 0), |(open, _)| (open.range.resume.0, open.outcomes.inputs()))
}

/// What is behind goes to the sinks, and counts when what was set aside before it is with them, whatever comes back first.
/// Rules: VX-441, VX-631.
#[test]
fn what_is_set_aside_holds_up_progress_and_nothing_else() {
    let mut tenure = tenure();
    for (first, again) in [(0, None), (10, Some(50)), (20, None), (30, Some(20)), (40, None)] {
        let mut outgoing = ten(&mut tenure, first);
        match again {
            None => deliver(&mut tenure, outgoing),
            Some(again) => {
                outgoing.again = Nanos(again);
                tenure.aside.push(outgoing);
            }
        }
        assert!(tenure.may_go_on());
    }
    assert_eq!((open(&tenure), tenure.unfinished()), ((10, 10), 50));
    assert!(!tenure.is_with_sinks() && !tenure.is_settled());
    for (now, first, progress) in [(20, 30, 10), (50, 10, 50)] {
        assert_eq!(tenure.next_time(Nanos::ZERO), Some(Nanos(now)));
        assert!(tenure.next_outgoing(&[], Nanos(now - 1), false).is_none(), "before its time");
        let outgoing = tenure.next_outgoing(&[], Nanos(now), false).unwrap();
        assert_eq!(outgoing.chunk.range.first, Position(first));
        deliver(&mut tenure, outgoing);
        assert_eq!(open(&tenure), (progress, progress));
    }
    assert!(tenure.is_with_sinks() && tenure.beyond.is_empty());
}

/// Rules: VX-314, VX-842.
#[test]
fn so_much_is_set_aside_and_so_much_goes_on_behind_it() {
    let mut tenure = tenure();
    let mut tens = (0..).step_by(10);
    for _ in 0..MOST_ASIDE {
        assert!(tenure.may_go_on());
        let outgoing = ten(&mut tenure, tens.next().unwrap());
        tenure.aside.push(outgoing);
    }
    assert!(!tenure.may_go_on());
    let outgoing = tenure.next_outgoing(&[], Nanos::ZERO, false).unwrap();
    deliver(&mut tenure, outgoing);
    assert!(tenure.may_go_on(), "there is place for another");
    for _ in 0..MOST_BEYOND {
        assert!(tenure.may_go_on());
        let outgoing = ten(&mut tenure, tens.next().unwrap());
        deliver(&mut tenure, outgoing);
    }
    assert!(!tenure.may_go_on());
    while let Some(outgoing) = tenure.next_outgoing(&[], Nanos::ZERO, false) {
        deliver(&mut tenure, outgoing);
    }
    assert!(tenure.may_go_on());
    let all = tens.next().unwrap();
    assert_eq!(open(&tenure), (all, all));
}

/// What a source gives again has a position before newer inputs that are still on their way, and its place behind them: the
/// source is told of none of them before the first that it gave is done.
/// Rules: VX-440, VX-441, VX-837.
#[test]
fn progress_is_made_in_the_order_in_which_inputs_were_read() {
    let mut tenure = tenure_of("order = \"none\"");
    let inputs = |positions: std::ops::Range<u64>| {
        positions.map(|position| Input {
            position: Position(position),
            next: Position(position + 1),
            record: Record::default(),
        })
    };
    for (number, positions) in [(1, 100..102), (2, 5..6)] {
        tenure.flow.push(Batch::new(inputs(positions).collect()).unwrap());
        tenure.flow.sent(Ticket { lane: 0, batch: BatchId(number) });
    }
    let sorter = Sorter { session: tenure.session, epoch: EpochId(1), routes: &[], sinks: 0, letters: None };
    let mut answer = |number: u64| {
        let records: u32 = if number == 1 { 2 } else { 1 };
        let answer = Answer::parse(Status::Ok, Vec::new(), 0, records, 0).unwrap();
        tenure.flow.answered(Ticket { lane: 0, batch: BatchId(number) }, answer, Nanos::ZERO);
        let done = tenure.flow.finish(Nanos::ZERO);
        let chunk = sorter.sort(done, &mut Report::default()).unwrap();
        tenure.begin(chunk, &[], Nanos::ZERO);
        let outgoing = tenure.outgoing.take().unwrap();
        deliver(&mut tenure, outgoing);
        open(&tenure)
    };
    assert_eq!(answer(2), (0, 0), "100 and 101 would be acknowledged, which nobody has processed");
    assert_eq!(answer(1), (6, 3));
}

/// A partition is not claimed again, nor said to be free, while a write of an earlier session may run.
/// Cases: CT-62.
/// Rules: VX-704, VX-733.
#[test]
fn sessions_are_forgotten_when_their_writes_are_over() {
    let mut table = FenceTable::create(1, 1).unwrap();
    let mut partition = Partition::new(PartitionId(0));
    let mut permits = Vec::new();
    for generation in [1, 2] {
        let (_, guard) = table.bind(partition.id, Generation(generation)).unwrap();
        permits.push(guard.permit(WriteKind::Sink).unwrap());
        guard.revoke(Reason::Operator);
        partition.ending.push(guard);
    }
    let mut released = Vec::new();
    let mut forget =
        |partition: &mut Partition| partition.forget_ended(|guard| released.push(guard.generation().0));
    assert!(!forget(&mut partition));
    drop(permits.pop());
    assert!(!forget(&mut partition), "the first still writes");
    drop(permits.pop());
    assert!(forget(&mut partition) && forget(&mut partition));
    assert_eq!(released, [2, 1]);
}
