//! The ledger against every crash of its store, and against bytes that were changed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use super::*;

/// A disk that survives its users. A commit may be the last thing that its user does, before it is durable or after.
#[derive(Clone, Default)]
struct Memory {
    disk: Rc<RefCell<BTreeMap<Key, Vec<u8>>>>,
    /// Commits until the crash, and whether the last one reaches the disk.
    crash: Rc<RefCell<Option<(u32, bool)>>>,
}

impl Store for Memory {
    fn read(&self, key: &Key) -> Result<Option<Vec<u8>>, LedgerError> {
        Ok(self.disk.borrow().get(key).cloned())
    }

    fn commit(&mut self, writes: &[(Key, Vec<u8>)]) -> Result<(), LedgerError> {
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
            self.disk.borrow_mut().extend(writes.iter().cloned());
        }
        match *crash {
            Some((0, _)) => Err(LedgerError::Damaged { what: "crash" }),
            _ => Ok(()),
        }
    }
}

fn token(len: u64) -> Token {
    Token(len.to_be_bytes().to_vec())
}

const PARTITIONS: [PartitionId; 2] = [PartitionId(0), PartitionId(1)];

/// One life of a vertex: acquires two partitions and moves them three times, or until the crash. `confirmed` are the positions
/// and the sink's length of which it was told that they are durable.
fn live(memory: &Memory, generations: &mut Vec<u64>, confirmed: &mut (u64, u64)) -> Result<(), LedgerError> {
    let mut ledger = Ledger::open(memory.clone(), 7)?;
    let mut owned = Vec::new();
    for partition in PARTITIONS {
        owned.push(ledger.acquire(partition)?);
    }
    generations.push(owned[0].generation.0);
    let sink = ledger.sink("main")?.map_or(0, |token| u64::from_be_bytes(token.0.try_into().unwrap()));
    assert!(owned[0].resume.0 >= confirmed.0 && sink >= confirmed.1, "something durable is gone");
    assert_eq!(owned[0].resume, owned[1].resume, "a part of a transaction");
    assert_eq!(owned[0].resume.0 * 10, sink, "positions and sinks of different moments");
    for _ in 0..3 {
        for at in &mut owned {
            at.resume.0 += 1;
        }
        let moved: Vec<Progress> =
            PARTITIONS.iter().zip(&owned).map(|(&partition, &at)| Progress { partition, at }).collect();
        let resume = owned[0].resume.0;
        let epochs = ledger.commit(&moved, &[("main", token(resume * 10))])?;
        *confirmed = (resume, resume * 10);
        for (at, epoch) in owned.iter_mut().zip(epochs) {
            assert_eq!(epoch.0, at.epoch.0 + 1);
            at.epoch = epoch;
        }
    }
    Ok(())
}

/// Three lives in a row, the first two ending at every possible commit, before and after it is durable.
/// Rules: VX-701, VX-760, VX-771, VX-776.
#[test]
fn no_crash_takes_back_what_was_confirmed_and_generations_only_grow() {
    for first in 0..12u32 {
        for second in 0..12u32 {
            let memory = Memory::default();
            let (mut generations, mut confirmed) = (Vec::new(), (0, 0));
            for crash in [first, second] {
                *memory.crash.borrow_mut() = Some((crash / 2, crash % 2 == 1));
                let _ = live(&memory, &mut generations, &mut confirmed);
            }
            *memory.crash.borrow_mut() = None;
            live(&memory, &mut generations, &mut confirmed).unwrap();
            assert!(generations.is_sorted_by(|a, b| a < b), "{generations:?}");
            assert!(confirmed.0 >= 3);
        }
    }
}

fn with_three_epochs() -> Memory {
    let memory = Memory::default();
    live(&memory, &mut Vec::new(), &mut (0, 0)).unwrap();
    memory
}

fn acquired(memory: &Memory) -> Result<Owned, LedgerError> {
    Ledger::open(memory.clone(), 7)?.acquire(PartitionId(0))
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

#[test]
fn a_ledger_belongs_to_one_pipeline() {
    let memory = with_three_epochs();
    let refused = Ledger::open(memory, 8);
    assert!(matches!(refused, Err(LedgerError::OtherPipeline { found: 7, expected: 8 })));
}

/// Rules: VX-702, VX-775.
#[test]
fn one_process_at_a_time_has_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger");
    let mut ledger = Ledger::open(Disk::open(&path).unwrap(), 7).unwrap();
    let owned = ledger.acquire(PartitionId(3)).unwrap();
    assert_eq!(owned, Owned { generation: Generation(1), epoch: EpochId(0), resume: Position(0) });
    let at = Owned { resume: Position(1_000), ..owned };
    ledger.commit(&[Progress { partition: PartitionId(3), at }], &[("main", token(5))]).unwrap();
    let held = Disk::open(&path).unwrap_err().to_string();
    assert!(held.contains(&std::process::id().to_string()), "{held}");
    drop(ledger);
    let mut ledger = Ledger::open(Disk::open(&path).unwrap(), 7).unwrap();
    let owned = ledger.acquire(PartitionId(3)).unwrap();
    assert_eq!(owned, Owned { generation: Generation(2), epoch: EpochId(1), resume: Position(1_000) });
    assert_eq!(ledger.sink("main").unwrap(), Some(token(5)));
    assert_eq!(ledger.sink("other").unwrap(), None);
}
