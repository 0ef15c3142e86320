//! What a ledger has, for people (`tidegate vertex inspect`). Nothing is written, and the records are checked as a vertex does.

use std::path::Path;

use serde_json::{Value, json};
use tidegate_udf::wire::ids::{EpochId, PartitionId};

use super::{Disk, Key, Ledger, LedgerError, Record, Status, Store, numbers};

/// The partitions of the ledger in `dir`, or one of them, with their records, the oldest first. `None` when there is no
/// ledger.
///
/// # Errors
/// A vertex runs on it, or it cannot be read.
pub fn inspect(dir: &Path, only: Option<PartitionId>) -> Result<Option<Value>, LedgerError> {
    if !dir.join("ledger.redb").is_file() {
        return Ok(None);
    }
    let store = Disk::open(dir, false)?;
    let Some([uid]) = numbers::<1>(store.read(&Key::Uid)?, "pipeline uid")? else { return Ok(None) };
    let ledger = Ledger { store, uid };
    let mut partitions = Vec::new();
    for id in ledger.partitions()? {
        let generation = numbers::<2>(ledger.store.read(&Key::Generation(id))?, "generation")?;
        if let Some([generation, nonce]) = generation
            && only.is_none_or(|only| only == id)
        {
            partitions.push(ledger.view(id, generation, nonce)?);
        }
    }
    Ok(Some(json!({ "uid": format!("{uid:016x}"), "partitions": partitions })))
}

impl<S: Store> Ledger<S> {
    fn view(&self, id: PartitionId, generation: u64, nonce: u64) -> Result<Value, LedgerError> {
        let head = self.head(id)?;
        let mut records = Vec::new();
        for epoch in (head.oldest.0.max(1)..=head.committed.0).map(EpochId) {
            // Epochs of other owners have no record here, except the last before a takeover.
            if epoch != head.committed && !self.has(&Key::Commit(id, epoch))? {
                continue;
            }
            records.push(of_record(&self.record(id, epoch, Status::Committed)?));
        }
        let prepared = match head.prepared {
            EpochId(0) => None,
            epoch => Some(of_record(&self.record(id, epoch, Status::Prepared)?)),
        };
        let running = match numbers::<3>(self.store.read(&Key::Running(id))?, "running mark")? {
            Some([since, _, fell]) => json!({ "since_ms": since, "fell": fell }),
            None => Value::Null,
        };
        let attempts: Vec<u64> =
            self.store.attempts(id)?.into_iter().map(|(position, _)| position.0).collect();
        Ok(json!({
            "partition": id.0,
            "generation": generation,
            "nonce": format!("{nonce:016x}"),
            "committed": head.committed.0,
            "records": records,
            "prepared": prepared,
            "tried_before": attempts,
            "running": running,
        }))
    }
}

fn of_record(record: &Record) -> Value {
    let sinks: Vec<Value> = record
        .sinks
        .iter()
        .map(|sink| {
            json!({
                "sink": sink.name,
                "class": format!("{:?}", sink.class),
                "records": sink.records,
                "outbox_bytes": sink.bytes,
                "digest": format!("{:032x}", sink.digest),
            })
        })
        .collect();
    let counts = &record.counts;
    json!({
        "epoch": record.epoch.0,
        "previous": record.previous.0,
        "status": match record.status {
            Status::Prepared => "prepared",
            Status::Committed => "committed",
            Status::TakenOver { .. } => "taken_over",
        },
        "generation": record.generation.0,
        "first": record.range.first.0,
        "last": record.range.last.0,
        "resume": record.range.resume.0,
        "inputs": counts.inputs,
        "outputs": counts.outputs,
        "filtered": counts.filtered,
        "dead": counts.dead,
        "dropped": counts.dropped,
        "nacked": counts.nacked,
        "sinks": sinks,
        "function": format!("{:032x}", record.function),
        "created_ms": record.created_ms,
        "committed_ms": record.committed_ms,
        "digest": format!("{:032x}", record.digest()),
    })
}
