//! The ledger against every crash of its store, and against bytes that were changed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use super::*;
use crate::own::Claimed;

/// A disk that survives its users. A commit may be the last thing that its user does, before it is durable or after.
#[derive(Clone, Default)]
pub(super) struct Memory {
    pub(super) disk: Rc<RefCell<BTreeMap<Key, Vec<u8>>>>,
    /// Commits until the crash, and whether the last one reaches the disk.
    pub(super) crash: Rc<RefCell<Option<(u32, bool)>>>,
}

impl Store for Memory {
    fn read(&self, key: &Key) -> Result<Option<Vec<u8>>, LedgerError> {
        Ok(self.disk.borrow().get(key).cloned())
    }

    fn partitions(&self) -> Result<Vec<PartitionId>, LedgerError> {
        let disk = self.disk.borrow();
        let found = disk.keys().filter_map(|key| match key {
            Key::Generation(partition) => Some(*partition),
            _ => None,
        });
        Ok(found.collect())
    }

    fn attempts(&self, partition: PartitionId) -> Result<Vec<(Position, Vec<u8>)>, LedgerError> {
        let disk = self.disk.borrow();
        let found = disk.iter().filter_map(|(key, value)| match key {
            Key::Attempt(of, position) if *of == partition => Some((*position, value.clone())),
            _ => None,
        });
        Ok(found.collect())
    }

    fn commit(&mut self, transaction: &Transaction) -> Result<(), LedgerError> {
        let mut crash = self.crash.borrow_mut();
        let survives = match crash.as_mut() {
            Some((0, reaches)) => *reaches,
            Some((left, _)) => {
                *left -= 1;
                true
            }
            None => true,
        };
        if survives {
            let mut disk = self.disk.borrow_mut();
            for (key, value) in transaction.writes() {
                match value {
                    Some(value) => drop(disk.insert(key.clone(), value.clone())),
                    None => drop(disk.remove(key)),
                }
            }
        }
        match *crash {
            Some((0, _)) => Err(LedgerError::Damaged { what: "crash" }),
            _ => Ok(()),
        }
    }
}

pub(super) fn token(len: u64) -> Token {
    Token(len.to_be_bytes().to_vec())
}

const PARTITIONS: [PartitionId; 2] = [PartitionId(0), PartitionId(1)];

/// What all lives know of a ledger.
#[derive(Default)]
struct World {
    generations: Vec<u64>,
    /// Position and sink's length of which a life was told that they are durable.
    confirmed: (u64, u64),
    /// The life that has decided an epoch, if it was told that this is durable.
    decided: BTreeMap<EpochId, u64>,
}

/// An epoch of one input, decided in this life.
pub(super) fn record(partition: PartitionId, generation: Generation, epoch: EpochId) -> Record {
    let position = Position(epoch.0 - 1);
    Record {
        uid: 7,
        partition,
        generation,
        epoch,
        previous: EpochId(epoch.0 - 1),
        status: Status::Prepared,
        range: Range { first: position, last: position, resume: Position(epoch.0) },
        identity: crate::source::Identity(b"source".to_vec()),
        counts: Counts { inputs: 1, outputs: 1, ..Counts::default() },
        sinks: Vec::new(),
        function: 5,
        created_ms: 1,
        committed_ms: 0,
    }
}

pub(super) fn outputs(epoch: EpochId, life: u64) -> Vec<Output> {
    let record = crate::batch::Record {
        value: life.to_be_bytes().to_vec().into(),
        key: b"key"[..].into(),
        headers: Default::default(),
        event_time: Some(-1),
    };
    vec![Output { position: Position(epoch.0 - 1), number: 0, record }]
}

/// One life of a vertex: acquires two partitions, finishes what was prepared and moves them by three epochs, or until the
/// crash. Commits go with the next epoch's persist.
fn live(memory: &Memory, world: &mut World) -> Result<(), LedgerError> {
    let mut ledger = Ledger::open(memory.clone(), 7)?;
    let life = world.generations.len() as u64;
    let mut owned = Vec::new();
    for partition in PARTITIONS {
        owned.push(next(&mut ledger, partition, life)?);
    }
    world.generations.push(owned[0].generation.0);
    let sink = ledger.sink("main")?.map_or(0, |token| u64::from_be_bytes(token.0.try_into().unwrap()));
    let resume = |owned: &Owned| owned.resume.as_ref().map_or(0, |resume| resume.position.0);
    assert!(resume(&owned[0]) >= world.confirmed.0 && sink >= world.confirmed.1, "something durable is gone");
    assert_eq!(resume(&owned[0]), resume(&owned[1]), "a part of a transaction");
    assert_eq!(resume(&owned[0]) * 10, sink, "positions and sinks of different moments");
    assert_eq!(owned[0].prepared.is_some(), owned[1].prepared.is_some(), "a part of a transaction");
    let mut epoch = owned[0].epoch;
    let mut pending: Vec<Record> = Vec::new();
    for owned in &owned {
        let Some(prepared) = &owned.prepared else { continue };
        let decision = prepared.outputs[0][0].record.value.clone();
        let by = u64::from_be_bytes(decision[..].try_into().unwrap());
        assert_eq!(prepared.outputs, [outputs(prepared.record.epoch, by)]);
        assert!(
            world.decided.get(&prepared.record.epoch).is_none_or(|decided| *decided == by),
            "decided twice"
        );
        assert_eq!(prepared.record.generation, owned.generation);
        pending.push(prepared.record.clone());
    }
    if !pending.is_empty() {
        epoch.0 += 1;
    }
    let last = EpochId(epoch.0 + 3);
    while epoch < last || !pending.is_empty() {
        let mut transaction = Transaction::default();
        for record in &pending {
            ledger.commit_prepared(record, 9, &mut transaction)?;
        }
        if !pending.is_empty() {
            ledger.put_sink("main", &token(epoch.0 * 10), &mut transaction);
        }
        let mut next = Vec::new();
        if epoch < last {
            let following = EpochId(epoch.0 + 1);
            for (partition, owned) in PARTITIONS.iter().zip(&owned) {
                let record = record(*partition, owned.generation, following);
                let outputs = outputs(following, life);
                let outputs: &[(&str, Class, &[Output])] = &[("main", Class::C, &outputs)];
                next.push(ledger.persist(record, outputs, &mut transaction)?);
            }
        }
        ledger.run(&transaction)?;
        if !pending.is_empty() {
            world.confirmed = (epoch.0, epoch.0 * 10);
        }
        if !next.is_empty() {
            epoch.0 += 1;
            world.decided.insert(epoch, life);
        }
        pending = next;
    }
    Ok(())
}

/// Three lives in a row, the first two ending at every possible commit, before and after it is durable. An epoch that was
/// decided is finished as it was decided, and only then the next begins.
/// Rules: VX-701, VX-763, VX-765, VX-767, VX-771, VX-776, VX-781.
#[test]
fn no_crash_takes_back_what_was_confirmed_and_generations_only_grow() {
    for first in 0..16u32 {
        for second in 0..16u32 {
            let memory = Memory::default();
            let mut world = World::default();
            for crash in [first, second] {
                *memory.crash.borrow_mut() = Some((crash / 2, crash % 2 == 1));
                let _ = live(&memory, &mut world);
            }
            *memory.crash.borrow_mut() = None;
            live(&memory, &mut world).unwrap();
            assert!(world.generations.is_sorted_by(|a, b| a < b), "{:?}", world.generations);
            assert!(world.confirmed.0 >= 3);
            let left = memory.disk.borrow();
            assert!(!left.keys().any(|key| matches!(key, Key::Outbox(..))), "an outbox stays behind");
        }
    }
}

fn with_three_epochs() -> Memory {
    let memory = Memory::default();
    live(&memory, &mut World::default()).unwrap();
    memory
}

/// The next session of a partition, under a manager that keeps no commits.
fn next<S: Store>(ledger: &mut Ledger<S>, id: PartitionId, nonce: u64) -> Result<Owned, LedgerError> {
    let generation = Generation(ledger.known(id)?.generation.0 + 1);
    ledger.begin(id, nonce, Claimed { generation, authority: None }, false)
}

fn acquired(memory: &Memory) -> Result<Owned, LedgerError> {
    let mut ledger = Ledger::open(memory.clone(), 7)?;
    next(&mut ledger, PartitionId(0), 1)
}

/// An epoch of the same number and other content is not the one that was prepared.
/// Rules: VX-773.
#[test]
fn only_what_was_prepared_is_committed() {
    let mut ledger = Ledger::open(Memory::default(), 7).unwrap();
    let mut transaction = Transaction::default();
    let mine = record(PartitionId(0), Generation(1), EpochId(1));
    let refused = ledger.commit_prepared(&mine, 9, &mut transaction);
    assert!(matches!(refused, Err(LedgerError::Record { fault: RecordError::Missing, .. })), "{refused:?}");
    let prepared = ledger
        .persist(mine, &[("main", Class::C, outputs(EpochId(1), 1).as_slice())], &mut transaction)
        .unwrap();
    ledger.run(&transaction).unwrap();
    let others = [
        Record { generation: Generation(2), ..prepared.clone() },
        Record { counts: Counts::default(), ..prepared.clone() },
        Record { range: Range { last: Position(7), ..prepared.range }, ..prepared.clone() },
        Record { sinks: vec![SinkPart { digest: 1, ..prepared.sinks[0].clone() }], ..prepared.clone() },
    ];
    for other in others {
        let refused = ledger.commit_prepared(&other, 9, &mut Transaction::default());
        assert!(matches!(refused, Err(LedgerError::Record { fault: RecordError::Digest, .. })), "{other:?}");
    }
    let token = Some(token(5));
    let confirmed = Record { sinks: vec![SinkPart { token, ..prepared.sinks[0].clone() }], ..prepared };
    ledger.commit_prepared(&confirmed, 9, &mut Transaction::default()).unwrap();
}

/// Rules: VX-767, VX-770.
#[test]
fn an_outbox_that_was_changed_is_not_redone() {
    let memory = Memory::default();
    let mut ledger = Ledger::open(memory.clone(), 7).unwrap();
    let mut transaction = Transaction::default();
    let mine = record(PartitionId(0), Generation(1), EpochId(1));
    ledger.persist(mine, &[("main", Class::C, outputs(EpochId(1), 1).as_slice())], &mut transaction).unwrap();
    ledger.run(&transaction).unwrap();
    let key = Key::Outbox(PartitionId(0), EpochId(1), 0, 0);
    memory.disk.borrow_mut().get_mut(&key).unwrap()[30] ^= 1;
    let refused = acquired(&memory);
    assert!(matches!(refused, Err(LedgerError::Record { fault: RecordError::Outbox, .. })), "{refused:?}");
    memory.disk.borrow_mut().remove(&key);
    let refused = acquired(&memory);
    assert!(matches!(refused, Err(LedgerError::Record { fault: RecordError::Outbox, .. })), "{refused:?}");
}

/// Records go when they are old and there are many newer ones; what stays is still a chain.
/// Rules: VX-772.
#[test]
fn old_records_go_at_last() {
    let mut ledger = Ledger::open(Memory::default(), 7).unwrap();
    let day = 24 * 60 * 60 * 1000;
    let kept = |ledger: &Ledger<Memory>| {
        let records = |key: &&Key| matches!(key, Key::Commit(..));
        ledger.store.disk.borrow().keys().filter(records).count()
    };
    let commit = |ledger: &mut Ledger<Memory>, epoch: u64, now: i64| {
        let mut transaction = Transaction::default();
        let cursor = record(PartitionId(0), Generation(1), EpochId(epoch));
        ledger.commit_cursor(&cursor, now, &mut transaction).unwrap();
        ledger.run(&transaction).unwrap();
    };
    for epoch in 1..=10_010 {
        commit(&mut ledger, epoch, 0);
    }
    assert_eq!(kept(&ledger), 10_010, "they are young");
    commit(&mut ledger, 10_011, 8 * day);
    commit(&mut ledger, 10_012, 8 * day);
    assert_eq!(kept(&ledger), 10_008, "two are added, four are old");
    for epoch in 10_013..10_100 {
        commit(&mut ledger, epoch, 8 * day);
    }
    assert_eq!(kept(&ledger), 10_001);
    let owned = next(&mut ledger, PartitionId(0), 1).unwrap();
    assert_eq!(owned.epoch, EpochId(10_099));
}

/// Rules: VX-602.
#[test]
fn tries_of_an_input_are_kept_until_it_has_an_outcome() {
    let memory = Memory::default();
    let mut ledger = Ledger::open(memory.clone(), 7).unwrap();
    let marks = [(5, 1, 0), (9, 0, 2)].map(|(position, failures, crashes)| Mark {
        position: Position(position),
        failures,
        crashes,
    });
    let mut transaction = Transaction::default();
    ledger.put_marks(PartitionId(0), &marks, &[], &mut transaction);
    ledger.put_marks(PartitionId(1), &marks[..1], &[], &mut transaction);
    ledger.run(&transaction).unwrap();
    assert_eq!(acquired(&memory).unwrap().marks, marks);
    let mut transaction = Transaction::default();
    ledger.put_marks(PartitionId(0), &[], &[Position(5)], &mut transaction);
    ledger.run(&transaction).unwrap();
    assert_eq!(acquired(&memory).unwrap().marks, marks[1..]);
}

/// Runs that end without saying so count while they come no further; one that says so, or that got on, ends the count.
/// Rules: VX-604.
#[test]
fn runs_in_a_row_that_came_no_further_are_counted() {
    let memory = Memory::default();
    let id = PartitionId(0);
    let fell = |resumes: bool| {
        let mut ledger = Ledger::open(memory.clone(), 7).unwrap();
        let generation = Generation(ledger.known(id).unwrap().generation.0 + 1);
        let owned = ledger.begin(id, 1, Claimed { generation, authority: None }, resumes).unwrap();
        (ledger, owned.fell)
    };
    let run = |then: &mut dyn FnMut(&mut Ledger<Memory>, &mut Transaction)| {
        let (mut ledger, fell) = fell(false);
        let mut transaction = Transaction::default();
        ledger.put_running(id, fell, &mut transaction).unwrap();
        ledger.run(&transaction).unwrap();
        let mut transaction = Transaction::default();
        then(&mut ledger, &mut transaction);
        ledger.run(&transaction).unwrap();
        fell
    };
    let dies = |_: &mut Ledger<Memory>, _: &mut Transaction| {};
    let found: Vec<u32> = (0..3).map(|_| run(&mut { dies })).collect();
    assert_eq!(found, [0, 1, 2]);
    assert_eq!((fell(false).1, fell(false).1), (3, 3), "sessions that sent nothing");
    assert_eq!(fell(true).1, 2, "the session of a process that goes on");
    assert_eq!(run(&mut |ledger, transaction| ledger.put_stopped(id, transaction)), 3);
    assert_eq!([run(&mut { dies }), run(&mut { dies })], [0, 1]);
    let gets_on = run(&mut |ledger, transaction| {
        ledger.commit_cursor(&record(id, Generation(9), EpochId(1)), 9, transaction).unwrap();
    });
    assert_eq!([gets_on, run(&mut { dies }), run(&mut { dies })], [2, 0, 1]);
}

/// Rules: VX-701.
#[test]
fn a_generation_that_is_not_newer_is_none() {
    let mut ledger = Ledger::open(Memory::default(), 7).unwrap();
    let mut begin = |generation| {
        ledger.begin(
            PartitionId(0),
            1,
            Claimed { generation: Generation(generation), authority: None },
            false,
        )
    };
    begin(5).unwrap();
    for old in [0, 4, 5] {
        let refused = begin(old);
        assert!(matches!(refused, Err(LedgerError::NoGeneration { .. })), "{refused:?}");
    }
}

/// Cases: CT-39.
/// Rules: VX-770, VX-786.
#[test]
fn a_record_that_is_damaged_or_missing_stops_the_partition() {
    let memory = with_three_epochs();
    let head = Key::Commit(PartitionId(0), EpochId(3));
    let good = memory.disk.borrow()[&head].clone();
    for bit in 0..good.len() * 8 {
        let mut damaged = good.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        memory.disk.borrow_mut().insert(head.clone(), damaged);
        assert!(matches!(acquired(&memory), Err(LedgerError::Record { .. })), "bit {bit}");
    }
    for len in 0..good.len() {
        memory.disk.borrow_mut().insert(head.clone(), good[..len].to_vec());
        assert!(matches!(acquired(&memory), Err(LedgerError::Record { .. })), "{len} bytes");
    }
    let fault = |memory: &Memory| match acquired(memory) {
        Err(LedgerError::Record { fault, .. }) => fault,
        other => panic!("{other:?}"),
    };
    let other = memory.disk.borrow()[&Key::Commit(PartitionId(1), EpochId(3))].clone();
    memory.disk.borrow_mut().insert(head.clone(), other);
    assert_eq!(fault(&memory), RecordError::Misplaced);
    memory.disk.borrow_mut().remove(&head);
    assert_eq!(fault(&memory), RecordError::Missing);
    memory.disk.borrow_mut().insert(head, good);
    memory.disk.borrow_mut().remove(&Key::Commit(PartitionId(0), EpochId(2)));
    assert_eq!(fault(&memory), RecordError::BrokenChain { previous: EpochId(2) });
}

/// What a careful hand can make: a record of the right place whose parts do not belong together.
/// Rules: VX-763, VX-770, VX-773.
#[test]
fn a_record_that_is_whole_and_wrong_is_not_taken() {
    let memory = with_three_epochs();
    let fault = || match acquired(&memory) {
        Err(LedgerError::Record { fault, .. }) => fault,
        other => panic!("{other:?}"),
    };
    let head = Key::Commit(PartitionId(0), EpochId(3));
    let good = memory.disk.borrow()[&head].clone();
    let store = |bytes: Vec<u8>| drop(memory.disk.borrow_mut().insert(head.clone(), bytes));
    let change = |at: usize, to: u8| {
        let mut bytes = good.clone();
        bytes[8 + at] = to;
        let crc = crc32c::crc32c(&bytes[8..]).to_le_bytes();
        bytes[4..8].copy_from_slice(&crc);
        store(bytes);
    };
    change(0, 2);
    assert_eq!(fault(), RecordError::Format { found: 2 });
    // The position of the first input, which the digest covers.
    change(40, 9);
    assert_eq!(fault(), RecordError::Damaged);
    let record = Record::decode(&good).unwrap();
    store(Record { status: Status::Prepared, ..record.clone() }.encode());
    assert_eq!(fault(), RecordError::Status);
    store(Record { previous: EpochId(1), ..record.clone() }.encode());
    assert_eq!(fault(), RecordError::BrokenChain { previous: EpochId(1) });
    store(Record { uid: 8, ..record }.encode());
    assert_eq!(fault(), RecordError::Misplaced);
    store(good);
    // An epoch that is prepared, but not the one behind what is committed.
    let prepared =
        Record { status: Status::Prepared, epoch: EpochId(4), previous: EpochId(3), ..record_of(&memory, 3) };
    memory.disk.borrow_mut().insert(Key::Commit(PartitionId(0), EpochId(4)), prepared.encode());
    let heads = [2u64, 4, 1].iter().flat_map(|epoch| epoch.to_be_bytes()).collect();
    memory.disk.borrow_mut().insert(Key::Head(PartitionId(0)), heads);
    assert_eq!(fault(), RecordError::BrokenChain { previous: EpochId(2) });
}

fn record_of(memory: &Memory, epoch: u64) -> Record {
    Record::decode(&memory.disk.borrow()[&Key::Commit(PartitionId(0), EpochId(epoch))]).unwrap()
}

/// The generation of a session is above those of records, too: the table of generations may be older than they are.
/// Rules: VX-701, VX-771.
#[test]
fn generations_of_records_count() {
    let memory = with_three_epochs();
    let before = acquired(&memory).unwrap().generation;
    memory.disk.borrow_mut().remove(&Key::Generation(PartitionId(0))).unwrap();
    let wrote = record_of(&memory, 3).generation;
    assert!(wrote < before);
    assert_eq!(acquired(&memory).unwrap().generation, Generation(wrote.0 + 1));
}

#[test]
fn a_ledger_belongs_to_one_pipeline() {
    let memory = with_three_epochs();
    let refused = Ledger::open(memory, 8);
    assert!(matches!(refused, Err(LedgerError::OtherPipeline { found: 7, expected: 8 })));
}

/// What a vertex leaves that is killed while it makes its ledger: nothing that keeps the next one from making it.
/// Rules: VX-775, VX-780.
#[test]
fn a_ledger_that_was_not_finished_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("ledger.new"), [0; 8192]).unwrap();
    let mut ledger = Ledger::open(Disk::open(dir.path(), false).unwrap(), 7).unwrap();
    next(&mut ledger, PartitionId(3), 11).unwrap();
    drop(ledger);
    let names = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(!names.collect::<Vec<_>>().contains(&"ledger.new".into()), "it has its name");
    let mut ledger = Ledger::open(Disk::open(dir.path(), false).unwrap(), 7).unwrap();
    assert_eq!(next(&mut ledger, PartitionId(3), 12).unwrap().generation, Generation(2));
}

/// Rules: VX-702, VX-775, VX-777, VX-778.
#[test]
fn one_process_at_a_time_has_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger");
    let mut ledger = Ledger::open(Disk::open(&path, false).unwrap(), 7).unwrap();
    let owned = next(&mut ledger, PartitionId(3), 11).unwrap();
    assert_eq!((owned.generation, owned.epoch, owned.resume), (Generation(1), EpochId(0), None));
    let long =
        Output { position: Position(0), number: 3, record: crate::batch::Record::of(vec![7; 3 << 20]) };
    let mut transaction = Transaction::default();
    let marks = [Mark { position: Position(u64::MAX), failures: 1, crashes: 2 }];
    let first = record(PartitionId(3), owned.generation, EpochId(1));
    let sinks: &[(&str, Class, &[Output])] =
        &[("main", Class::A, std::slice::from_ref(&long)), ("dlq", Class::C, &[])];
    let first = ledger.persist(first, sinks, &mut transaction).unwrap();
    ledger.put_marks(PartitionId(3), &marks, &[], &mut transaction);
    ledger.put_sink("main", &token(5), &mut transaction);
    ledger.run(&transaction).unwrap();
    let held = Disk::open(&path, false).unwrap_err().to_string();
    assert!(held.contains(&std::process::id().to_string()), "{held}");
    drop(ledger);
    let mut ledger = Ledger::open(Disk::open(&path, false).unwrap(), 7).unwrap();
    let owned = next(&mut ledger, PartitionId(3), 12).unwrap();
    assert_eq!((owned.generation, owned.epoch, owned.resume), (Generation(2), EpochId(0), None));
    assert_eq!(first.sinks.iter().map(|part| part.chunks).collect::<Vec<_>>(), [4, 0], "of a mebibyte each");
    let prepared = owned.prepared.unwrap();
    assert_eq!(prepared.outputs, [vec![long], Vec::new()]);
    assert_eq!(prepared.record, Record { generation: Generation(2), ..first });
    assert_eq!(owned.marks, marks);
    assert_eq!(ledger.sink("main").unwrap(), Some(token(5)));
    assert_eq!(ledger.sink("other").unwrap(), None);
    let mut transaction = Transaction::default();
    ledger.commit_prepared(&prepared.record, 9, &mut transaction).unwrap();
    ledger.run(&transaction).unwrap();
    let owned = next(&mut ledger, PartitionId(3), 13).unwrap();
    assert_eq!((owned.epoch, owned.prepared), (EpochId(1), None));
    assert_eq!(owned.resume.unwrap().position, Position(1));
}
