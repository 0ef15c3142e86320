//! What is wrong with a block, how bad it is, and what to do about it.

use std::{fmt, time::Duration};

use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{Damage, Owner};
use crate::layout::InitState;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// May become a problem; the block works.
    Warning,
    /// The block is not healthy.
    Problem,
    /// Words of the block are impossible.
    Damage,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// The block is not in use.
    NotReady {
        /// Its state.
        state: InitState,
    },
    /// It stems from an earlier boot: all its processes are gone.
    StaleBoot,
    /// Nobody may write it.
    NoWriter,
    /// Its writer is gone.
    WriterDead {
        /// Who that was.
        owner: Owner,
    },
    /// Its writer lives and gives no sign of it.
    WriterStale {
        /// Who that is.
        owner: Owner,
        /// Since its last beat.
        age: Duration,
    },
    /// A slot has been between two states for long, or its owner is dead.
    StuckSlot {
        /// Number of the slot.
        slot: u32,
        /// The id it is used for.
        id: Option<u64>,
        /// The word for its state.
        state: &'static str,
        /// Who works on it.
        owner: Option<Owner>,
        /// For how long.
        age: Option<Duration>,
    },
    /// A slot waits for the end of a writer that was displaced alive.
    Quarantined {
        /// Number of the slot.
        slot: u32,
        /// Who may still write into it.
        owner: Option<Owner>,
    },
    /// A consumer is gone.
    ConsumerDead {
        /// Number of its row.
        row: u32,
        /// Its pid.
        pid: u32,
        /// Since its last beat.
        age: Option<Duration>,
    },
    /// A consumer lives and gives no sign of it.
    ConsumerStale {
        /// Number of its row.
        row: u32,
        /// Its pid.
        pid: u32,
        /// Since its last beat.
        age: Option<Duration>,
    },
    /// A consumer has been reading a slot for long.
    StuckReader {
        /// Number of its row.
        row: u32,
        /// Its pid.
        pid: u32,
        /// Since when.
        age: Option<Duration>,
    },
    /// A consumer lost its right and has not gone yet.
    Evicted {
        /// Number of its row.
        row: u32,
        /// Its pid.
        pid: u32,
    },
    /// The owner of a lock is gone.
    LockDead {
        /// Number of the lock; `None` for the maintenance lock.
        lock: Option<u32>,
        /// Who that was.
        owner: Owner,
    },
    /// The maintenance lock, which is held for moments, has been held for long.
    MaintenanceHeld {
        /// By whom.
        owner: Owner,
        /// For how long.
        age: Duration,
    },
    /// The owner of a lock was gone, and nobody has repaired yet what it protects.
    LockPoisoned {
        /// Number of the lock; `None` for the maintenance lock.
        lock: Option<u32>,
    },
    /// The update of a zone was never finished.
    TornZone {
        /// Number of the zone.
        zone: u32,
        /// Who did not finish it.
        owner: Owner,
    },
    /// A handover is under way, or was when its producer died.
    Handover {
        /// 1 prepared, 2 cut over.
        state: u32,
        /// Since when.
        age: Option<Duration>,
    },
    /// Something was done to the block by force, or its integrity failed.
    Tainted {
        /// The bits of `taint`.
        bits: u32,
    },
    /// Two writers met, or recovery by force met a writer.
    Contention {
        /// How often.
        count: u64,
    },
    /// Illegal transitions or impossible values were met.
    StateErrors {
        /// How often.
        count: u64,
    },
    /// Digests did not match of late.
    ChecksumFailures {
        /// How often since the counters were reset.
        count: u64,
    },
    /// A word is impossible.
    Damaged(Damage),
}

impl Finding {
    /// How bad it is.
    pub fn severity(&self) -> Severity {
        match self {
            Self::Evicted { .. } | Self::LockPoisoned { .. } => Severity::Note,
            Self::WriterStale { .. } | Self::ConsumerStale { .. } | Self::Quarantined { .. } => {
                Severity::Warning
            }
            Self::Handover { .. } => Severity::Warning,
            Self::Damaged(_) => Severity::Damage,
            _ => Severity::Problem,
        }
    }

    /// One stable word for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotReady { .. } => "not_ready",
            Self::StaleBoot => "stale_boot",
            Self::NoWriter => "no_writer",
            Self::WriterDead { .. } => "writer_dead",
            Self::WriterStale { .. } => "writer_stale",
            Self::StuckSlot { .. } => "stuck_slot",
            Self::Quarantined { .. } => "quarantined",
            Self::ConsumerDead { .. } => "consumer_dead",
            Self::ConsumerStale { .. } => "consumer_stale",
            Self::StuckReader { .. } => "stuck_reader",
            Self::Evicted { .. } => "evicted",
            Self::LockDead { .. } => "lock_dead",
            Self::MaintenanceHeld { .. } => "maintenance_held",
            Self::LockPoisoned { .. } => "lock_poisoned",
            Self::TornZone { .. } => "torn_zone",
            Self::Handover { .. } => "handover",
            Self::Tainted { .. } => "tainted",
            Self::Contention { .. } => "contention",
            Self::StateErrors { .. } => "state_errors",
            Self::ChecksumFailures { .. } => "checksum_failures",
            Self::Damaged(_) => "damaged",
        }
    }

    /// What to do.
    pub fn remedy(&self) -> String {
        match self {
            Self::NotReady { .. } => {
                "start the producer; a block that is over goes with `force-unlink`".to_owned()
            }
            Self::StaleBoot => "`reclaim --apply` removes it".to_owned(),
            Self::NoWriter => "start the producer; it goes on with the next id".to_owned(),
            Self::WriterDead { .. } => "restart the producer, or `auto-recover --apply`".to_owned(),
            Self::WriterStale { owner, .. } => {
                format!("look why pid {} does not run; do not force first", owner.key.pid())
            }
            Self::StuckSlot { slot, owner, .. } => match owner {
                Some(owner) if !owner.is_dead() => {
                    format!("look what pid {} is doing with it; do not force first", owner.key.pid())
                }
                _ => format!("`reset-slot --slot {slot}`, or restart the producer"),
            },
            Self::Quarantined { owner: Some(owner), .. } if !owner.is_dead() => {
                format!("end pid {}; the slot is free then", owner.key.pid())
            }
            Self::Quarantined { slot, .. } => format!("`reset-slot --slot {slot}`"),
            Self::ConsumerDead { .. } => {
                "`release-zombies --readers --apply`; a blocked writer does it itself".to_owned()
            }
            Self::ConsumerStale { pid, .. } => format!("look why pid {pid} does not run"),
            Self::StuckReader { row, pid, .. } => format!("end pid {pid}, or `evict --row {row} --force`"),
            Self::Evicted { pid, .. } => format!("pid {pid} must attach again"),
            Self::LockDead { .. } => "`force-unlock-all`; the next locker does it itself".to_owned(),
            Self::MaintenanceHeld { owner, .. } => format!("look what pid {} is doing", owner.key.pid()),
            Self::LockPoisoned { .. } => "whoever takes it next repairs what it protects".to_owned(),
            Self::TornZone { .. } => "take the zone's lock and write the zone anew".to_owned(),
            Self::Handover { .. } => "if it stays so, `auto-recover --apply`".to_owned(),
            Self::Tainted { .. } => "`audit` shows what was done; a new block is clean".to_owned(),
            Self::Contention { .. } => "look for a second producer".to_owned(),
            Self::StateErrors { .. } => "`validate --deep` shows what is damaged".to_owned(),
            Self::ChecksumFailures { .. } => "`validate --deep` shows which slots".to_owned(),
            Self::Damaged(damage) => damage.remedy(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotReady { state } => write!(f, "the block is {state:?}"),
            Self::StaleBoot => f.write_str("the block stems from an earlier boot"),
            Self::NoWriter => f.write_str("nobody writes the block"),
            Self::WriterDead { owner } => write!(f, "writer pid {} is dead", owner.key.pid()),
            Self::WriterStale { owner, age } => {
                write!(
                    f,
                    "writer pid {} lives, its last heartbeat was {} s ago",
                    owner.key.pid(),
                    age.as_secs()
                )
            }
            Self::StuckSlot { slot, id, state, owner, age } => {
                write!(f, "slot {slot} is stuck {state}")?;
                id.map_or(Ok(()), |id| write!(f, " with id {id}"))?;
                age.map_or(Ok(()), |age| write!(f, " since {} s", age.as_secs()))?;
                owner.map_or(Ok(()), |owner| {
                    write!(
                        f,
                        ", owner pid {} {}",
                        owner.key.pid(),
                        super::owner::liveness_word(owner.liveness)
                    )
                })
            }
            Self::Quarantined { slot, .. } => write!(f, "slot {slot} is in quarantine"),
            Self::ConsumerDead { row, pid, .. } => write!(f, "consumer row {row}: pid {pid} is dead"),
            Self::ConsumerStale { row, pid, age } => {
                let age = age.unwrap_or_default().as_secs();
                write!(f, "consumer row {row}: pid {pid} lives, its last heartbeat was {age} s ago")
            }
            Self::StuckReader { row, pid, age } => {
                let age = age.unwrap_or_default().as_secs();
                write!(f, "consumer row {row}: pid {pid} has been reading one slot for {age} s")
            }
            Self::Evicted { row, pid } => write!(f, "consumer row {row}: pid {pid} was evicted"),
            Self::LockDead { lock: Some(lock), owner } => {
                write!(f, "lock {lock} is held by pid {}, which is dead", owner.key.pid())
            }
            Self::LockDead { lock: None, owner } => {
                write!(f, "the maintenance lock is held by pid {}, which is dead", owner.key.pid())
            }
            Self::MaintenanceHeld { owner, age } => {
                let (pid, age) = (owner.key.pid(), age.as_secs());
                write!(f, "the maintenance lock has been held by pid {pid} for {age} s")
            }
            Self::LockPoisoned { lock: Some(lock) } => write!(f, "lock {lock} is poisoned"),
            Self::LockPoisoned { lock: None } => f.write_str("the maintenance lock is poisoned"),
            Self::TornZone { zone, owner } => {
                write!(f, "zone {zone} is half-written by pid {}, which is dead", owner.key.pid())
            }
            Self::Handover { state: 1, .. } => f.write_str("a handover is prepared"),
            Self::Handover { .. } => {
                f.write_str("the channel goes on in another block, and this one is not finished")
            }
            Self::Tainted { bits } => write!(f, "the block is tainted: {}", taint_words(*bits).join(", ")),
            Self::Contention { count } => write!(f, "two writers met {count} times"),
            Self::StateErrors { count } => write!(f, "{count} impossible words were met"),
            Self::ChecksumFailures { count } => write!(f, "digests failed, {count} times in all"),
            Self::Damaged(damage) => write!(f, "{damage}"),
        }
    }
}

/// Written as code, severity, message and remedy.
impl Serialize for Finding {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut fields = to.serialize_map(None)?;
        fields.serialize_entry("code", self.code())?;
        fields.serialize_entry("severity", &self.severity())?;
        fields.serialize_entry("message", &self.to_string())?;
        fields.serialize_entry("remedy", &self.remedy())?;
        if let Self::Damaged(damage) = self {
            fields.serialize_entry("damage", damage)?;
        }
        fields.end()
    }
}

/// What the bits of `taint` mean (3.4).
pub fn taint_words(bits: u32) -> Vec<&'static str> {
    const WORDS: [&str; 5] = [
        "writer seized alive",
        "slot reset by force",
        "lock released by force",
        "consumer evicted by force",
        "integrity failure",
    ];
    let known = (0..).zip(WORDS).filter(|(bit, _)| bits & (1 << bit) != 0).map(|(_, word)| word);
    let unknown = (bits >> WORDS.len() != 0).then_some("unknown bits");
    known.chain(unknown).collect()
}
