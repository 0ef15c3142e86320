//! The beginning of a session: what the sessions before have left here, and what becomes of it (12.5).
//!
//! With commits in the ownership store this ledger is a follower: the epoch that the store calls committed is the last one, and
//! what is prepared here counts only as far as the store intends it (VX-781). The cases below have the numbers of that rule.

use tidegate_udf::wire::ids::{EpochId, Generation, PartitionId};

use super::{
    Counts, Head, Key, Ledger, LedgerError, Mark, Owned, Prepared, Range, Record, SinkPart, Status, Store,
    Transaction, numbers, wall_ms,
};
use crate::{
    own::{Authority, Claimed, Committed, Intended, Known},
    sink::{Class, Token},
};

impl<S: Store> Ledger<S> {
    /// What is known here of a partition: its newest generation, and its last commit.
    ///
    /// # Errors
    /// A record is damaged or missing, or the store failed.
    pub fn known(&self, partition: PartitionId) -> Result<Known, LedgerError> {
        Ok(self.past(partition)?.known)
    }

    /// Begins a session of a partition: a new generation, and where the last one came to. `resumes`: this process has sent
    /// inputs of the partition before.
    ///
    /// An epoch that was prepared becomes one of this generation in the same transaction, if it is what the authority intends;
    /// where commits are kept with ownership, this ledger follows them (VX-781, in the order of its cases).
    ///
    /// # Errors
    /// A record is damaged or missing, the generation is not a newer one, or the store failed.
    pub fn begin(
        &mut self,
        partition: PartitionId,
        nonce: u64,
        claimed: Claimed,
        resumes: bool,
    ) -> Result<Owned, LedgerError> {
        let Past { known, head, mut prepared } = self.past(partition)?;
        let Claimed { generation, authority } = claimed;
        let newest = known.generation;
        if generation <= newest || generation.0 >= 1 << 63 {
            return Err(LedgerError::NoGeneration { partition, newest });
        }
        let mut transaction = Transaction::default();
        let session = [generation.0.to_be_bytes(), nonce.to_be_bytes()].concat();
        transaction.put(Key::Generation(partition), session);
        let (mut committed, mut intended) = (known.committed, None);
        if let Some(Authority { committed: authority, intended: intent, store }) = authority {
            transaction.put(Key::Store(partition), store.to_be_bytes().to_vec());
            let is_same = |record: &Record, other: &Committed| {
                (record.epoch, record.digest()) == (other.epoch, other.digest)
            };
            if let (Some(commit), Some(own)) = (&authority, &prepared)
                && is_same(&own.record, commit)
            {
                // Case 1: it became visible and counts; only this ledger did not come to say so.
                let mut record = own.record.clone();
                for part in &mut record.sinks {
                    let token = commit.tokens.iter().find(|(name, _)| *name == part.name);
                    part.token = token.map(|(_, token)| token.clone());
                }
                self.commit_prepared(&record, wall_ms(), &mut transaction)?;
                prepared = None;
            } else if let Some(commit) = &authority
                && committed
                    .as_ref()
                    .is_none_or(|own| (own.epoch, own.digest) != (commit.epoch, commit.digest))
            {
                // Cases 2 and 5: others have gone on, and what was prepared here is stale.
                self.follow(partition, commit, &head, &mut transaction);
            }
            committed = authority;
            let next = EpochId(committed.as_ref().map_or(0, |commit| commit.epoch.0) + 1);
            let intent = intent.filter(|intent| intent.epoch == next);
            let redone = prepared.take_if(|own| !intent.is_some_and(|intent| decides(&intent, &own.record)));
            if let Some(Prepared { record, .. }) = redone {
                // Case 4: nobody was told of it, so no sink has a byte of it that others would not find.
                tracing::warn!(%partition, epoch = %record.epoch, "a prepared epoch is given up");
                self.remove_prepared(&record, &mut transaction);
                if record.epoch == next {
                    let head = Head { prepared: EpochId(0), ..self.head_after(partition, &transaction)? };
                    transaction.put(Key::Head(partition), head.encode());
                }
            }
            // Stamped in the store by the caller, after the outbox was here (case 3).
            intended = intent.map(|intent| Intended { generation, ..intent });
        }
        if let Some(Prepared { record, .. }) = &mut prepared {
            record.generation = generation;
            transaction.put(Key::Commit(partition, record.epoch), record.encode());
        }
        let from = committed.as_ref().map_or(AT_THE_BEGINNING, |commit| commit.resume.position.0);
        let fell = match numbers::<3>(self.store.read(&Key::Running(partition))?, "running mark")? {
            Some([_, at, fell]) if at == from => fell.saturating_add((!resumes).into()),
            _ => 0,
        };
        self.store.commit(&transaction)?;
        let mut marks = Vec::new();
        for (position, value) in self.store.attempts(partition)? {
            let [counts] = numbers::<1>(Some(value), "attempts")?.unwrap_or([0]);
            marks.push(Mark { position, failures: (counts >> 32) as u32, crashes: counts as u32 });
        }
        let (epoch, resume, tokens) = match committed {
            Some(Committed { epoch, resume, tokens, .. }) => (epoch, Some(resume), tokens),
            None => (EpochId(0), None, Vec::new()),
        };
        let fell = u32::try_from(fell).unwrap_or(u32::MAX);
        Ok(Owned { generation, nonce, epoch, resume, tokens, prepared, intended, marks, fell })
    }

    /// Adds that inputs of a partition are sent from now on (VX-604); `fell` as [`Owned::fell`] says.
    ///
    /// # Errors
    /// The last record is damaged or missing, or the store failed.
    pub fn put_running(
        &self,
        partition: PartitionId,
        fell: u32,
        transaction: &mut Transaction,
    ) -> Result<(), LedgerError> {
        let from = match self.head(partition)?.committed {
            EpochId(0) => AT_THE_BEGINNING,
            epoch => self.record(partition, epoch, Status::Committed)?.range.resume.0,
        };
        let words = [wall_ms() as u64, from, fell.into()];
        transaction.put(Key::Running(partition), words.iter().flat_map(|word| word.to_be_bytes()).collect());
        Ok(())
    }

    /// What the last sessions left.
    fn past(&self, partition: PartitionId) -> Result<Past, LedgerError> {
        let last = numbers::<2>(self.store.read(&Key::Generation(partition))?, "generation")?;
        let head = self.head(partition)?;
        let committed = match head.committed {
            EpochId(0) => None,
            epoch => Some(self.record(partition, epoch, Status::Committed)?),
        };
        let prepared = match head.prepared {
            EpochId(0) => None,
            epoch => Some(self.prepared(partition, epoch)?),
        };
        let written = committed.iter().chain(prepared.iter().map(|prepared| &prepared.record));
        let newest = written.map(|record| record.generation.0).max().unwrap_or(0);
        let generation = Generation(newest.max(last.map_or(0, |[generation, _]| generation)));
        let store = match self.store.read(&Key::Store(partition))? {
            None => None,
            Some(bytes) => {
                let bytes = bytes.try_into().map_err(|_| LedgerError::Damaged { what: "store" })?;
                Some(i128::from_be_bytes(bytes))
            }
        };
        let committed = committed.map(Record::into_committed);
        let intended = prepared.as_ref().map(|prepared: &Prepared| Intended::of(&prepared.record));
        Ok(Past { known: Known { generation, committed, prepared: intended, store }, head, prepared })
    }

    /// Adds that the last commit is one of another owner.
    fn follow(&self, partition: PartitionId, commit: &Committed, head: &Head, transaction: &mut Transaction) {
        let Committed { epoch, generation, digest, resume, tokens } = commit;
        let part = |(name, token): &(String, Token)| SinkPart {
            name: name.clone(),
            class: Class::C,
            records: 0,
            bytes: 0,
            chunks: 0,
            token: Some(token.clone()),
            digest: 0,
        };
        let record = Record {
            uid: self.uid,
            partition,
            generation: *generation,
            epoch: *epoch,
            previous: EpochId(epoch.0.saturating_sub(1)),
            status: Status::TakenOver { digest: *digest },
            range: Range { first: resume.position, last: resume.position, resume: resume.position },
            identity: resume.identity.clone(),
            counts: Counts::default(),
            sinks: tokens.iter().map(part).collect(),
            function: 0,
            created_ms: wall_ms(),
            committed_ms: wall_ms(),
        };
        transaction.put(Key::Commit(partition, *epoch), record.encode());
        let oldest = if head.committed == EpochId(0) { *epoch } else { head.oldest };
        let head = Head { committed: *epoch, prepared: EpochId(0), oldest };
        transaction.put(Key::Head(partition), head.encode());
    }

    /// Adds that a prepared epoch is none, unless its place was taken meanwhile.
    fn remove_prepared(&self, record: &Record, transaction: &mut Transaction) {
        let (partition, epoch) = (record.partition, record.epoch);
        for (number, sink) in (0u32..).zip(&record.sinks) {
            for chunk in 0..sink.chunks {
                transaction.remove(Key::Outbox(partition, epoch, number, chunk));
            }
        }
        let key = Key::Commit(partition, epoch);
        if transaction.writes.iter().all(|(changed, _)| *changed != key) {
            transaction.remove(key);
        }
    }
}

/// Where a run begins before the first commit: no position has this number.
const AT_THE_BEGINNING: u64 = u64::MAX;

/// What the sessions before have left of a partition.
struct Past {
    known: Known,
    head: Head,
    prepared: Option<Prepared>,
}

/// Whether an intent is about this prepared epoch (case 3 of VX-781).
fn decides(intent: &Intended, record: &Record) -> bool {
    let own = Intended { generation: intent.generation, ..Intended::of(record) };
    own == *intent && intent.generation <= record.generation
}
