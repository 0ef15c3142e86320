//! A bucket of JetStream KV whose keys are only ever changed by compare-and-set (VX-710).

use std::time::Duration;

use async_nats::{
    HeaderMap,
    jetstream::stream::{Config, DiscardPolicy, Info, StorageType, Stream},
};
use futures_util::StreamExt;
use tidegate_shm::sync::Arc;

use super::super::{EXPECTED_LAST_SUBJECT_SEQUENCE, Nats, NatsError, Published};

/// A bucket. Clones are the same one, over the same connection.
#[derive(Debug, Clone)]
pub struct Bucket {
    nats: Arc<Nats>,
    stream: Stream,
    name: String,
    created: i128,
}

/// What a key has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its revision.
    pub revision: u64,
    /// Its value; `None` when it was deleted.
    pub value: Option<Vec<u8>>,
}

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It is the value, under this revision.
    Stored(u64),
    /// The key has another revision, or nothing is known: read it.
    Doubt,
}

impl Bucket {
    /// Opens the bucket of a pipeline; makes it if there is none.
    ///
    /// # Errors
    /// [`NatsError::Setting`] when a bucket is there that could forget, be read from a replica, or let two writers in at once.
    pub fn open(nats: Nats, pipeline: &str) -> Result<Self, NatsError> {
        let bucket = bucket_name(pipeline);
        let name = format!("KV_{bucket}");
        let wanted = Config {
            name: name.clone(),
            subjects: vec![format!("$KV.{bucket}.>")],
            max_messages_per_subject: HISTORY,
            discard: DiscardPolicy::New,
            storage: StorageType::File,
            num_replicas: 1,
            deny_delete: true,
            deny_purge: true,
            allow_rollup: false,
            allow_direct: false,
            ..Config::default()
        };
        // One that is there is left as it is, and looked at below.
        let made = nats.wait(nats.context().get_or_create_stream(wanted));
        if let Some(Err(source)) = made {
            return Err(NatsError::Call { what: "make or find", stream: name, source: source.into() });
        }
        Self::existing(nats, pipeline)
    }

    /// Opens the bucket of a pipeline that was run before.
    ///
    /// # Errors
    /// As [`Bucket::open`]; also when there is none.
    pub fn existing(nats: Nats, pipeline: &str) -> Result<Self, NatsError> {
        let bucket = bucket_name(pipeline);
        let name = format!("KV_{bucket}");
        let (stream, info) = nats.stream(&name)?;
        check(&name, &info)?;
        let created = info.created.unix_timestamp_nanos();
        Ok(Self { nats: Arc::new(nats), stream, name: bucket, created })
    }

    /// When it was made, in nanoseconds since 1970.
    pub fn created(&self) -> i128 {
        self.created
    }

    /// What a key has, from the leader.
    ///
    /// # Errors
    /// No answer.
    pub fn read(&self, key: &str) -> Result<Option<Entry>, NatsError> {
        let entry = self.nats.last_of(&self.stream, &self.subject(key))?;
        Ok(entry.map(|entry| Entry {
            revision: entry.sequence,
            value: (entry.operation.is_none()).then_some(entry.value),
        }))
    }

    /// Gives a key a value if it still has this revision; 0 is none.
    pub fn write(&self, key: &str, revision: u64, value: Vec<u8>) -> Written {
        let mut headers = HeaderMap::new();
        headers.insert(EXPECTED_LAST_SUBJECT_SEQUENCE, revision.to_string());
        match self.nats.publish(&self.subject(key), vec![(headers, value)]).pop() {
            Some(Published::Stored(revision)) => Written::Stored(revision),
            _ => Written::Doubt,
        }
    }

    /// Gives a key a value whatever it has: only for keys that nobody decides by.
    ///
    /// # Errors
    /// [`NatsError::Call`]: it may have the value or not.
    pub fn put(&self, key: &str, value: Vec<u8>) -> Result<(), NatsError> {
        let outcome = self.nats.publish(&self.subject(key), vec![(HeaderMap::new(), value)]).pop();
        match outcome {
            Some(Published::Stored(_)) => Ok(()),
            other => {
                let source = format!("{other:?}").into();
                Err(NatsError::Call { what: "take a key of", stream: format!("KV_{}", self.name), source })
            }
        }
    }

    /// The keys under a prefix.
    ///
    /// # Errors
    /// No answer.
    pub fn keys(&self, prefix: &str) -> Result<Vec<String>, NatsError> {
        let name = format!("KV_{}", self.name);
        let start = self.subject("");
        self.nats.answered("list", &name, async {
            let mut subjects = self.stream.info_with_subjects(self.subject(&format!("{prefix}>"))).await?;
            let mut keys = Vec::new();
            while let Some(subject) = subjects.next().await {
                let (subject, _) = subject?;
                keys.extend(subject.strip_prefix(&start).map(str::to_owned));
            }
            Ok(keys)
        })
    }

    fn subject(&self, key: &str) -> String {
        format!("$KV.{}.{key}", self.name)
    }
}

/// Whether the bucket forgets nothing and is only read at its leader.
fn check(name: &str, info: &Info) -> Result<(), NatsError> {
    let config = &info.config;
    let wrong = [
        ("allow_direct", config.allow_direct.to_string(), "false"),
        ("allow_rollup_hdrs", config.allow_rollup.to_string(), "false"),
        ("deny_purge", config.deny_purge.to_string(), "true"),
        ("deny_delete", config.deny_delete.to_string(), "true"),
        ("max_age", (config.max_age > Duration::ZERO).to_string(), "false"),
        // Of several, each judges a condition before it has what is on its way to it (VX-710).
        ("num_replicas", config.num_replicas.to_string(), "1"),
        ("storage", (config.storage != StorageType::File).to_string(), "false"),
    ];
    match wrong.into_iter().find(|(_, found, expected)| found != expected) {
        None => Ok(()),
        Some((key, found, expected)) => {
            Err(NatsError::Setting { stream: name.to_owned(), key, found, expected: expected.to_owned() })
        }
    }
}

fn bucket_name(pipeline: &str) -> String {
    format!("tgvx_{}", restricted(pipeline))
}

/// A name of the letters that a bucket may have.
pub(super) fn restricted(name: &str) -> String {
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_');
    name.chars().map(|letter| if allowed(letter) { letter } else { '_' }).collect()
}

/// Values of a key that are kept.
const HISTORY: i64 = 8;
