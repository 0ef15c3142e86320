//! The beginning of a session where commits are kept in the ownership store: the cases of VX-781, by their numbers.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::collections::BTreeMap;

use super::{
    tests::{Memory, outputs, record, token},
    *,
};
use crate::own::{Authority, Claimed, Committed, Intended, Known};

const PARTITION: PartitionId = PartitionId(0);
/// The owner before, and the one of these tests.
const BEFORE: Generation = Generation(4);
const MINE: Generation = Generation(9);
const STORE: i128 = 77;

/// A ledger in which two epochs are committed and a third one is prepared.
fn prepared_here() -> (Ledger<Memory>, Record) {
    let mut ledger = Ledger::open(Memory::default(), 7).unwrap();
    let mut prepared = None;
    for epoch in (1..=3).map(EpochId) {
        let mut transaction = Transaction::default();
        let outputs = outputs(epoch, epoch.0);
        let sinks: &[(&str, Class, &[Output])] = &[("main", Class::C, &outputs)];
        let record = ledger.persist(record(PARTITION, BEFORE, epoch), sinks, &mut transaction).unwrap();
        ledger.run(&transaction).unwrap();
        if epoch < EpochId(3) {
            commit_here(&mut ledger, record);
        } else {
            prepared = Some(record);
        }
    }
    (ledger, prepared.unwrap())
}

fn commit_here(ledger: &mut Ledger<Memory>, mut record: Record) {
    record.sinks[0].token = Some(token(record.epoch.0));
    let mut transaction = Transaction::default();
    ledger.commit_prepared(&record, 9, &mut transaction).unwrap();
    ledger.run(&transaction).unwrap();
}

/// What the store has of an epoch, once every sink has confirmed it.
fn confirmed(mut record: Record) -> Committed {
    record.sinks[0].token = Some(token(record.epoch.0));
    record.into_committed()
}

/// An epoch of another owner, which ended somewhere else.
fn elsewhere(epoch: u64) -> Committed {
    let mut record = record(PARTITION, Generation(6), EpochId(epoch));
    record.range.resume = Position(epoch * 100);
    let tokens = vec![("main".to_owned(), token(epoch * 100))];
    Committed { tokens, ..record.into_committed() }
}

fn begin(
    ledger: &mut Ledger<Memory>,
    committed: Option<Committed>,
    intended: Option<Intended>,
) -> Result<Owned, LedgerError> {
    let authority = Some(Authority { committed, intended, store: STORE });
    ledger.begin(PARTITION, 5, Claimed { generation: MINE, authority }, false)
}

/// What the ledger says afterwards, and what is left of outboxes.
fn after(ledger: &Ledger<Memory>) -> (Known, usize) {
    let outbox = |key: &&Key| matches!(key, Key::Outbox(..));
    (ledger.known(PARTITION).unwrap(), ledger.store.disk.borrow().keys().filter(outbox).count())
}

/// The store has the epoch that was prepared here: it counts, and this ledger says so with what it has of it.
/// Rules: VX-781.
#[test]
fn case_1_a_commit_that_the_store_has_is_finished_here() {
    let (mut ledger, prepared) = prepared_here();
    let commit = confirmed(prepared.clone());
    let intent = Intended { generation: BEFORE, epoch: EpochId(4), ..Intended::of(&prepared) };
    let owned = begin(&mut ledger, Some(commit.clone()), Some(intent)).unwrap();
    assert_eq!((owned.epoch, owned.resume.as_ref()), (EpochId(3), Some(&commit.resume)));
    assert_eq!((owned.tokens, owned.prepared), (commit.tokens.clone(), None));
    assert_eq!(
        owned.intended,
        Some(Intended { generation: MINE, ..intent }),
        "the next one is intended already"
    );
    let (known, outbox) = after(&ledger);
    assert_eq!((known.committed, known.prepared, outbox), (Some(commit), None, 0));
    assert_eq!(known.store, Some(STORE));
    let kept = ledger.record(PARTITION, EpochId(3), Status::Committed).unwrap();
    assert_eq!(
        (kept.status, kept.counts),
        (Status::Committed, prepared.counts),
        "its own record, not that of another"
    );
}

/// The store has another epoch of that number, or later ones: what was prepared here is stale, and the store is followed.
/// Rules: VX-781.
/// Cases: CT-64.
#[test]
fn cases_2_and_5_what_others_have_committed_counts() {
    for epoch in [3, 4, 8] {
        let (mut ledger, prepared) = prepared_here();
        let commit = elsewhere(epoch);
        // An intent for what is committed already says nothing about the next epoch.
        let owned = begin(&mut ledger, Some(commit.clone()), Some(Intended::of(&prepared))).unwrap();
        assert_eq!((owned.epoch, owned.resume.as_ref()), (EpochId(epoch), Some(&commit.resume)));
        assert_eq!((&owned.tokens, &owned.prepared, owned.intended), (&commit.tokens, &None, None));
        let (known, outbox) = after(&ledger);
        assert_eq!((known.committed.as_ref(), known.prepared, outbox), (Some(&commit), None, 0));
        // What comes after it is committed behind it, with a gap or without.
        let next = record(PARTITION, MINE, EpochId(epoch + 1));
        let mut transaction = Transaction::default();
        let next = ledger.persist(next, &[("main", Class::C, &[])], &mut transaction).unwrap();
        ledger.run(&transaction).unwrap();
        commit_here(&mut ledger, next.clone());
        assert_eq!(after(&ledger).0.committed, Some(confirmed(next)));
    }
}

/// The store follows nobody who is behind it, and is not followed to where this ledger is.
/// Rules: VX-781.
#[test]
fn the_store_that_says_the_same_changes_nothing() {
    let (mut ledger, prepared) = prepared_here();
    commit_here(&mut ledger, prepared.clone());
    let before = ledger.record(PARTITION, EpochId(3), Status::Committed).unwrap();
    let owned = begin(&mut ledger, Some(confirmed(prepared)), None).unwrap();
    assert_eq!((owned.epoch, owned.prepared, owned.intended), (EpochId(3), None, None));
    assert_eq!(ledger.record(PARTITION, EpochId(3), Status::Committed).unwrap(), before);
}

/// What was prepared here is what the store intends: it becomes one of this session, here first, and is done again.
/// Rules: VX-781.
#[test]
fn case_3_what_is_intended_is_done_again_from_the_outbox() {
    for intender in [Generation(3), BEFORE] {
        let (mut ledger, prepared) = prepared_here();
        let commit = after(&ledger).0.committed;
        let intent = Intended { generation: intender, ..Intended::of(&prepared) };
        let owned = begin(&mut ledger, commit.clone(), Some(intent)).unwrap();
        let own = owned.prepared.unwrap();
        assert_eq!(own.record, Record { generation: MINE, ..prepared });
        assert_eq!(own.outputs, [outputs(EpochId(3), 3)]);
        let mine = Intended { generation: MINE, ..intent };
        assert_eq!((owned.epoch, owned.intended), (EpochId(2), Some(mine)));
        let (known, outbox) = after(&ledger);
        assert_eq!(
            (known.committed, known.prepared, outbox),
            (commit, Some(mine), 1),
            "durable before anyone is told"
        );
    }
}

/// Nobody intends what was prepared here, or somebody intends another cut: it is given up, and the intent is obeyed.
/// Rules: VX-781.
/// Cases: CT-64.
#[test]
fn case_4_what_is_not_intended_is_given_up() {
    let (_, prepared) = prepared_here();
    let own = Intended::of(&prepared);
    let intents = [
        None,
        Some(Intended { first: Position(1), ..own }),
        Some(Intended { last: Position(3), ..own }),
        Some(Intended { count: 2, ..own }),
        // Of an owner that came after the one that prepared it: this one has run it anew.
        Some(Intended { generation: Generation(BEFORE.0 + 1), ..own }),
    ];
    for intent in intents {
        let (mut ledger, _) = prepared_here();
        let commit = after(&ledger).0.committed;
        let owned = begin(&mut ledger, commit.clone(), intent).unwrap();
        assert_eq!((owned.epoch, owned.prepared), (EpochId(2), None), "{intent:?}");
        assert_eq!(owned.intended, intent.map(|intent| Intended { generation: MINE, ..intent }));
        let (known, outbox) = after(&ledger);
        assert_eq!((known.committed, known.prepared, outbox), (commit, None, 0), "{intent:?}");
    }
}

/// Before the first commit, too.
/// Rules: VX-781.
#[test]
fn a_store_without_a_commit_begins_with_the_first_epoch() {
    let mut ledger = Ledger::open(Memory::default(), 7).unwrap();
    let mut transaction = Transaction::default();
    let prepared = ledger.persist(record(PARTITION, BEFORE, EpochId(1)), &[], &mut transaction).unwrap();
    ledger.run(&transaction).unwrap();
    let owned = begin(&mut ledger, None, Some(Intended::of(&prepared))).unwrap();
    assert_eq!((owned.epoch, owned.resume), (EpochId(0), None));
    assert_eq!(owned.prepared.unwrap().record.generation, MINE);
}

/// A session begins in one transaction: whoever comes after a crash finds what was there before, or all of it.
/// Rules: VX-781.
#[test]
fn a_crash_at_the_beginning_changes_nothing_or_all() {
    let (_, prepared) = prepared_here();
    let commits =
        [Some(confirmed(prepared.clone())), Some(elsewhere(5)), after(&prepared_here().0).0.committed];
    for commit in commits {
        for reaches in [false, true] {
            let (mut ledger, _) = prepared_here();
            let memory = ledger.store.clone();
            let before = memory.disk.borrow().clone();
            *memory.crash.borrow_mut() = Some((0, reaches));
            begin(&mut ledger, commit.clone(), None).unwrap_err();
            *memory.crash.borrow_mut() = None;
            let crashed = memory.disk.borrow().clone();
            let (mut whole, _) = prepared_here();
            begin(&mut whole, commit.clone(), None).unwrap();
            let expected = if reaches { whole.store.disk.borrow().clone() } else { before };
            let without_times = |disk: BTreeMap<Key, Vec<u8>>| {
                let record = |bytes: &[u8]| {
                    Record::decode(bytes).map(|record| Record { created_ms: 0, committed_ms: 0, ..record })
                };
                disk.into_iter()
                    .map(|(key, value)| match key {
                        Key::Commit(..) => (key, record(&value).unwrap().encode()),
                        _ => (key, value),
                    })
                    .collect::<BTreeMap<_, _>>()
            };
            assert_eq!(without_times(crashed), without_times(expected));
        }
    }
}
