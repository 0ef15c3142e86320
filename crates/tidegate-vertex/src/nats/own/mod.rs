//! Ownership of partitions in a bucket of JetStream KV (10.2).
//!
//! ```text
//!  Contender::look --free--> claim (generation + 1) --> Owned --renew, intend, commit--> ... --release-->
//!        ^                                                |
//!        +------------------------ Lost <-----------------+
//! ```
//!
//! | module | gives |
//! |---|---|
//! | `bucket` | keys that change by compare-and-set |
//! | `document` | what the key of a partition says |
//! | `manager` | ownership for a vertex |
//! | `keeper` | the threads that renew leases, look for free partitions, and end what ran out |
//! | `group` | all vertices of a pipeline, for operators |
//! | `members` | who takes part, and in which order they claim |
//! | `wishes` | what operators want of partitions, whoever has them |
//!
//! # Invariants
//!
//! - Every change is a compare-and-set of the whole document on the revision of the last one, so a claim makes every later
//!   write of the owner before fail, whatever the clocks say (VX-711).
//! - The deadline of a lease is counted from when the write that extends it was *sent*, on CLOCK_BOOTTIME, and a write that is
//!   confirmed after the deadline extends nothing (VX-716).
//! - A contender claims what it has itself seen unchanged for the owner's lease and a margin (VX-717).

mod bucket;
mod document;
mod group;
mod keeper;
mod manager;
mod members;
mod wishes;

use std::{thread, time::Duration};

use thiserror::Error;
use tidegate_shm::clock::{Nanos, boottime_now};
use tidegate_udf::wire::ids::{Generation, PartitionId};

pub use crate::own::Pins;
pub use bucket::{Bucket, Entry, Written};
pub use document::{Commit, Document, Intent, SinkState};
pub use group::{Group, GroupError, Holding};
pub use manager::{JetStream, Settings};
pub use members::{Member, rank};
pub use wishes::Order;

use super::NatsError;
use crate::{fence::Fenced, own::Known, sink::Session};

/// Why a partition is not owned.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OwnError {
    /// The store does not answer.
    #[error(transparent)]
    Nats(#[from] NatsError),
    /// The store forgot something (VX-714).
    #[error(
        "the ownership store went back in time for partition {partition}: {what}; look at the store, then start with \
         --accept-regression"
    )]
    Regressed {
        /// The partition.
        partition: PartitionId,
        /// What shows it.
        what: &'static str,
    },
    /// The document is of another pipeline or of another form.
    #[error("the ownership store has no document of pipeline {uid:016x} for partition {partition}: {what}")]
    Document {
        /// The pipeline.
        uid: u64,
        /// The partition.
        partition: PartitionId,
        /// What is wrong.
        what: String,
    },
    /// Another session has claimed the partition.
    #[error("partition {partition} was claimed by {owner} as generation {generation}")]
    Taken {
        /// The partition.
        partition: PartitionId,
        /// Who has it.
        owner: String,
        /// Its generation.
        generation: Generation,
    },
    /// The right to write was taken away.
    #[error(transparent)]
    Fenced(#[from] Fenced),
    /// The lease ran out before it was renewed.
    #[error("the lease of partition {partition} ran out before the store confirmed its renewal")]
    Expired {
        /// The partition.
        partition: PartitionId,
    },
}

/// Who claims.
#[derive(Debug, Clone)]
pub struct Claimant {
    /// The pipeline.
    pub uid: u64,
    /// Name of this instance, for people.
    pub owner: String,
    /// How long it may be silent.
    pub lease: Nanos,
}

/// Somebody who would like to own a partition.
#[derive(Debug)]
pub struct Contender {
    partition: PartitionId,
    claimant: Claimant,
    /// The revision that was seen, and since when.
    watched: Option<(u64, Nanos)>,
}

/// What a contender sees.
#[derive(Debug)]
pub enum Standing {
    /// It may claim on top of this.
    Free(Found),
    /// Somebody owns it; if nothing moves it is free then.
    Held {
        /// Who.
        owner: String,
        /// When, on the contender's monotonic clock.
        free_at: Nanos,
    },
}

/// What is in the store before a claim.
#[derive(Debug)]
pub struct Found {
    revision: u64,
    document: Option<Box<Document>>,
}

/// A partition that is owned, as the last own write left it.
#[derive(Debug)]
pub struct Owned {
    bucket: Bucket,
    partition: PartitionId,
    claimant: Claimant,
    nonce: u64,
    document: Document,
    /// What was written since then and not confirmed, and when first: any of it may be there.
    doubtful: Vec<(Document, Nanos)>,
    /// The revision of the claim.
    claimed: u64,
    revision: u64,
    deadline: Nanos,
}

impl Contender {
    /// Nothing seen yet.
    pub fn new(partition: PartitionId, claimant: Claimant) -> Self {
        Self { partition, claimant, watched: None }
    }

    /// Looks at the partition; `now` is the monotonic clock.
    ///
    /// # Errors
    /// [`OwnError::Nats`], [`OwnError::Regressed`], [`OwnError::Document`].
    pub fn look(&mut self, bucket: &Bucket, now: Nanos) -> Result<Standing, OwnError> {
        let Some((revision, document)) = read(bucket, self.partition, self.claimant.uid)? else {
            return Ok(Standing::Free(Found { revision: 0, document: None }));
        };
        let since = match self.watched {
            Some((seen, since)) if seen == revision => since,
            _ => now,
        };
        self.watched = Some((revision, since));
        let lease = Nanos(document.lease_ms.saturating_mul(1_000_000));
        let free_at = since.saturating_add(lease).saturating_add(margin(lease));
        if document.released || now >= free_at {
            Ok(Standing::Free(Found { revision, document: Some(Box::new(document)) }))
        } else {
            Ok(Standing::Held { owner: document.owner, free_at })
        }
    }

    /// Claims what was found free, with the next generation. `known` is what this host has seen of the partition; with `accept` a
    /// store that has seen less is taken as it is, and the generation is above everything known (VX-714).
    ///
    /// # Errors
    /// [`OwnError::Taken`] when somebody else was faster; [`OwnError::Regressed`].
    pub fn claim(
        &mut self,
        bucket: Bucket,
        found: Found,
        nonce: u64,
        known: &Known,
        accept: bool,
    ) -> Result<Owned, OwnError> {
        let Self { partition, ref claimant, .. } = *self;
        let Found { revision, document } = found;
        let behind = match &document {
            None if known.generation > Generation(0) => Some("it knows nothing of the partition"),
            _ if known.store.is_some_and(|store| store != bucket.created()) => Some("it was made anew"),
            None => None,
            Some(document) => document.behind(known),
        };
        if let (Some(what), false) = (behind, accept) {
            return Err(OwnError::Regressed { partition, what });
        }
        let newest = document.as_ref().map_or(0, |document| document.generation);
        let newest = if accept { newest.max(known.generation.0) } else { newest };
        let (mut commit, mut intent) =
            document.map_or((None, None), |document| (document.commit, document.intent));
        if let (Some(_), Some(own)) = (behind, &known.committed)
            && commit.as_ref().is_none_or(|commit| commit.epoch < own.epoch.0)
        {
            // What every sink has confirmed stays committed.
            (commit, intent) = (Some(Commit::of(own)), known.prepared.as_ref().map(Intent::of));
        }
        let claimed = Document {
            v: FORM,
            uid: format!("{:016x}", claimant.uid),
            generation: newest + 1,
            owner: claimant.owner.clone(),
            nonce: format!("{nonce:016x}"),
            lease_ms: claimant.lease.0 / 1_000_000,
            hb: 0,
            claimed_ms: tidegate_shm::clock::realtime_now().0 / 1_000_000,
            released: false,
            commit,
            intent,
        };
        let sent = boottime_now();
        let revision = match bucket.write(&key(partition), revision, encode(&claimed)) {
            Written::Stored(revision) => revision,
            Written::Doubt => match read(&bucket, partition, claimant.uid)? {
                Some((revision, found)) if found == claimed => revision,
                Some((_, found)) => return Err(taken(partition, &found)),
                None => return Err(OwnError::Regressed { partition, what: "its document is gone" }),
            },
        };
        self.watched = None;
        let deadline = deadline(sent, claimant.lease);
        let claimant = claimant.clone();
        tracing::info!(%partition, revision, generation = claimed.generation, "claimed in the ownership store");
        Ok(Owned {
            bucket,
            partition,
            claimant,
            nonce,
            document: claimed,
            doubtful: Vec::new(),
            claimed: revision,
            revision,
            deadline,
        })
    }
}

impl Owned {
    /// The session.
    pub fn session(&self) -> Session {
        Session { partition: self.partition, generation: self.document.generation(), nonce: self.nonce }
    }

    /// The authority's view: what was committed, and what was intended.
    pub fn document(&self) -> &Document {
        &self.document
    }

    /// Until when the session may write, on CLOCK_BOOTTIME.
    pub fn deadline(&self) -> Nanos {
        self.deadline
    }

    /// When the lease has to be renewed, on CLOCK_BOOTTIME: a third of it after the last write.
    pub fn renew_at(&self) -> Nanos {
        let lease = self.claimant.lease;
        let sent = self.deadline.saturating_sub(lease.saturating_sub(margin(lease)));
        sent.saturating_add(Nanos(lease.0 / 3))
    }

    /// The revision of the claim: what has a higher one came later.
    pub fn claimed(&self) -> u64 {
        self.claimed
    }

    /// Extends the lease, in one attempt; false when the store does not say whether it did.
    ///
    /// # Errors
    /// The session is over: [`OwnError::Taken`], [`OwnError::Expired`], [`OwnError::Regressed`].
    pub fn renew(&mut self) -> Result<bool, OwnError> {
        self.attempt(&self.next(self.document.clone()))
    }

    /// Makes a decision durable: what is committed, and what is intended next, in one write (VX-763, VX-765). Tries until the
    /// lease runs out, with a permit for each attempt.
    ///
    /// # Errors
    /// As [`Owned::renew`], or [`OwnError::Fenced`]; nothing of it counts then, unless the error is [`OwnError::Expired`] or
    /// [`OwnError::Fenced`], which leave it open.
    pub fn decide<P>(
        &mut self,
        commit: Option<Commit>,
        intent: Option<Intent>,
        mut permit: impl FnMut() -> Result<P, Fenced>,
    ) -> Result<(), OwnError> {
        let commit = commit.or_else(|| self.document.commit.clone());
        let next = self.next(Document { commit, intent, ..self.document.clone() });
        loop {
            let permit = permit()?;
            let done = self.attempt(&next)?;
            drop(permit);
            if done {
                return Ok(());
            }
            thread::sleep(PAUSE);
        }
    }

    /// Gives the partition away, in one attempt: others need not wait for the lease. Only after everything that writes has ended
    /// (VX-704).
    ///
    /// # Errors
    /// As [`Owned::renew`]; the lease runs out then.
    pub fn release(mut self) -> Result<bool, OwnError> {
        self.attempt(&self.next(Document { released: true, ..self.document.clone() }))
    }

    fn next(&self, document: Document) -> Document {
        Document { hb: self.document.hb + 1, ..document }
    }

    /// Writes a document if the one that is there is still as this session left it; false when that is not known.
    fn attempt(&mut self, next: &Document) -> Result<bool, OwnError> {
        let partition = self.partition;
        let sent = boottime_now();
        if sent >= self.deadline {
            return Err(OwnError::Expired { partition });
        }
        let (revision, sent) = match self.bucket.write(&key(partition), self.revision, encode(next)) {
            Written::Stored(revision) => (revision, sent),
            // Stored or not, or a conflict that may be a false one (VX-715).
            Written::Doubt => match read(&self.bucket, partition, self.claimant.uid) {
                // By this attempt or by one before it: others may have seen it since the first (VX-716).
                Ok(Some((revision, found))) if found == *next => {
                    (revision, self.first_sent(next).unwrap_or(sent))
                }
                Ok(Some((revision, found)))
                    if found == self.document || self.first_sent(&found).is_some() =>
                {
                    (self.revision, self.document) = (revision, found);
                    self.doubt(next, sent);
                    return Ok(false);
                }
                Ok(Some((_, found))) => return Err(self.lost(&found)),
                Ok(None) => return Err(OwnError::Regressed { partition, what: "its document is gone" }),
                Err(OwnError::Nats(error)) => {
                    tracing::warn!(%partition, %error, "the ownership store does not answer");
                    self.doubt(next, sent);
                    return Ok(false);
                }
                Err(error) => return Err(error),
            },
        };
        self.revision = revision;
        self.document = next.clone();
        self.doubtful.clear();
        // Too late is too late, whatever the store says.
        if boottime_now() >= self.deadline {
            return Err(OwnError::Expired { partition });
        }
        self.deadline = deadline(sent, self.claimant.lease);
        Ok(true)
    }

    fn doubt(&mut self, written: &Document, sent: Nanos) {
        if self.first_sent(written).is_none() {
            self.doubtful.push((written.clone(), sent));
        }
    }

    /// When a document was sent for the first time, of those that were not confirmed.
    fn first_sent(&self, document: &Document) -> Option<Nanos> {
        self.doubtful.iter().find(|(written, _)| written == document).map(|(_, sent)| *sent)
    }

    fn lost(&self, found: &Document) -> OwnError {
        let partition = self.partition;
        if found.generation < self.document.generation {
            return OwnError::Regressed { partition, what: "its generation went back" };
        }
        if found.generation == self.document.generation {
            let what = if found.nonce == self.document.nonce {
                "an earlier document of this session is there again"
            } else {
                "another session has the same generation"
            };
            return OwnError::Regressed { partition, what };
        }
        taken(partition, found)
    }
}

fn taken(partition: PartitionId, found: &Document) -> OwnError {
    OwnError::Taken { partition, owner: found.owner.clone(), generation: found.generation() }
}

/// The document of a partition and its revision.
fn read(bucket: &Bucket, partition: PartitionId, uid: u64) -> Result<Option<(u64, Document)>, OwnError> {
    let Some(Entry { revision, value }) = bucket.read(&key(partition))? else { return Ok(None) };
    let Some(value) = value else {
        return Err(OwnError::Regressed { partition, what: "its document was deleted" });
    };
    let refused = |what| OwnError::Document { uid, partition, what };
    let document: Document = serde_json::from_slice(&value).map_err(|error| refused(error.to_string()))?;
    if document.v != FORM {
        return Err(refused(format!("its form is {}, this version reads {FORM}", document.v)));
    }
    if document.uid != format!("{uid:016x}") {
        return Err(refused(format!("it is of pipeline {}", document.uid)));
    }
    Ok(Some((revision, document)))
}

fn encode(document: &Document) -> Vec<u8> {
    // Text and numbers in memory: it does not fail.
    serde_json::to_vec(document).unwrap_or_default()
}

fn key(partition: PartitionId) -> String {
    format!("own.{partition}")
}

fn deadline(sent: Nanos, lease: Nanos) -> Nanos {
    sent.saturating_add(lease.saturating_sub(margin(lease)))
}

/// By how much an owner gives up earlier and a contender waits longer.
fn margin(lease: Nanos) -> Nanos {
    Nanos(lease.0 / 5)
}

const FORM: u32 = 1;
/// Between two looks at a store that does not answer.
const PAUSE: Duration = Duration::from_millis(50);
