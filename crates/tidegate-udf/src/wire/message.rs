//! The datagrams of the control socket (7.1): one JSON object each.
//!
//! ```text
//!  worker                                  runtime
//!    hello: versions, function, schemas ------>
//!           <------ welcome and the descriptors of D, U and F, or reject
//!    ready: mapped and validated ------------->
//!    log: a line of the function ------------->
//!    metric: sums of its counters ------------>
//!    bye: ended by somebody ------------------>
//! ```
//!
//! Fields that are not known are ignored.

use std::borrow::Cow;

use serde_json::{Map, Value, json};
use thiserror::Error;

use super::ids::{BatchId, PartitionId, SchemaId};

/// Longest datagram.
pub const MAX_MESSAGE: usize = 64 * 1024;

/// The versions of the protocol that this code speaks, the lowest and the highest.
pub const VERSIONS: (u32, u32) = (1, 1);

/// Code of a [`Reject`]: every place for a worker has one; the next worker that ends makes place.
pub const FULL: &str = "FULL";

/// Code of a [`Reject`]: too many workers are being greeted at the moment.
pub const BUSY: &str = "BUSY";

/// What the worker says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromWorker {
    /// Who it is.
    Hello(Hello),
    /// Everything is mapped and as it must be.
    Ready(Ready),
    /// A line of the function for the log.
    Log(Line),
    /// What the function counted.
    Metric(Sums),
    /// Somebody ended it; what it has not answered is to be given to another.
    Bye,
}

/// What the runtime says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromRuntime {
    /// Data may flow when the worker is ready.
    Welcome(Welcome),
    /// The two do not fit.
    Reject(Reject),
}

/// Who a worker is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Lowest and highest version of the protocol it speaks.
    pub proto: (u32, u32),
    /// The language of its SDK.
    pub language: String,
    /// Version of its SDK.
    pub sdk_version: String,
    /// Name of the function.
    pub function: String,
    /// What the function is, by the name of its kind.
    pub kind: String,
    /// Schemas it accepts.
    pub schema_in: Vec<SchemaId>,
    /// Schema of its outputs.
    pub schema_out: SchemaId,
    /// Features without which it cannot work.
    pub features: Vec<String>,
    /// CLOCK_BOOTTIME when it wrote this, in nanoseconds.
    pub boottime: u64,
}

/// What a worker has to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// The version that both speak.
    pub proto: u32,
    /// Name of the pipeline.
    pub pipeline: String,
    /// How often the worker beats, in milliseconds.
    pub heartbeat_ms: u64,
    /// How long a batch may take, in milliseconds.
    pub batch_timeout_ms: u64,
    /// Names of the routes, the default one first.
    pub routes: Vec<String>,
    /// Whether payloads carry a checksum.
    pub checksum: bool,
    /// What the pipeline file gives to the function.
    pub params: Value,
}

/// Why a worker is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// One stable word.
    pub code: String,
    /// Names what both sides have.
    pub message: String,
}

/// What a worker found when it looked at the segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// Whether the kernel refuses to map D and F for writing (VX-423).
    pub sealed: bool,
}

/// How important a line of a function is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Something failed.
    Error,
    /// Something is not as it should be.
    Warn,
    /// Something that people want to know.
    Info,
    /// Something for who looks for a mistake.
    Debug,
}

impl Level {
    const ALL: [Self; 4] = [Self::Error, Self::Warn, Self::Info, Self::Debug];

    /// Its name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }

    /// The level of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.name() == name)
    }
}

/// A line of a function for the log (VX-501).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// How important it is.
    pub level: Level,
    /// What it says.
    pub message: String,
    /// The partition of the batch that it is about.
    pub partition: PartitionId,
    /// That batch.
    pub batch: BatchId,
    /// What goes with it, by name.
    pub fields: Map<String, Value>,
}

/// What a function counted since its session began (VX-501). Sums, so that one that is lost costs nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sums {
    /// Name and sum of each counter.
    pub counters: Vec<(String, u64)>,
    /// Lines of the log that were left out.
    pub lines: u64,
    /// Values of counters that were left out, since there are too many names.
    pub refused: u64,
}

/// Counters of a function (VX-426).
pub const MAX_COUNTERS: usize = 256;
/// Longest name of a counter.
const MAX_COUNTER_NAME: usize = 64;

/// The name of a counter as it is kept and shown: at most 64 letters, digits and `_-.:/` of ASCII; what is none is `_`.
pub fn counter_name(name: &str) -> Cow<'_, str> {
    let fits = |letter: char| letter.is_ascii_alphanumeric() || "_-.:/".contains(letter);
    if !name.is_empty() && name.len() <= MAX_COUNTER_NAME && name.chars().all(fits) {
        return Cow::Borrowed(name);
    }
    let letters = name.chars().map(|letter| if fits(letter) { letter } else { '_' });
    let cleaned: String = letters.take(MAX_COUNTER_NAME).collect();
    Cow::Owned(if cleaned.is_empty() { "_".to_owned() } else { cleaned })
}

/// A datagram that is none of the protocol.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MessageFault {
    /// Not a JSON object.
    #[error("a control message is not a JSON object")]
    NotAnObject,
    /// A kind of message that nobody sends here.
    #[error("a control message of type {found:?} is not expected here")]
    UnknownType {
        /// What it calls itself, cut to 32 characters.
        found: String,
    },
    /// A field is missing or of another kind.
    #[error("field {field:?} of a control message is missing or not {expected}")]
    Field {
        /// Its name.
        field: &'static str,
        /// What it has to be.
        expected: &'static str,
    },
}

/// The highest version in both ranges, if there is one (VX-421).
pub fn common_version(a: (u32, u32), b: (u32, u32)) -> Option<u32> {
    let highest = a.1.min(b.1);
    (highest >= a.0.max(b.0)).then_some(highest)
}

impl FromWorker {
    /// The datagram.
    pub fn encode(&self) -> Vec<u8> {
        let value = match self {
            Self::Hello(hello) => json!({
                "type": "hello",
                "proto": [hello.proto.0, hello.proto.1],
                "sdk": "tidegate-udf",
                "sdk_version": hello.sdk_version,
                "language": hello.language,
                "function": hello.function,
                "kind": hello.kind,
                "schema_in": hello.schema_in.iter().map(|id| id.0).collect::<Vec<_>>(),
                "schema_out": hello.schema_out.0,
                "encodings": ["records"],
                "features": hello.features,
                "id_scheme": 1,
                "boottime": hello.boottime,
                "pid": std::process::id(),
            }),
            Self::Ready(ready) => json!({ "type": "ready", "sealed": ready.sealed }),
            Self::Log(line) => json!({
                "type": "log",
                "level": line.level.name(),
                "message": line.message,
                "partition": line.partition.0,
                "batch": line.batch.0,
                "fields": line.fields,
            }),
            Self::Metric(sums) => json!({
                "type": "metric",
                "counters": sums.counters.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
                "lines_left_out": sums.lines,
                "counters_left_out": sums.refused,
            }),
            Self::Bye => json!({ "type": "bye" }),
        };
        value.to_string().into_bytes()
    }

    /// Reads a datagram.
    ///
    /// # Errors
    /// [`MessageFault`]: the worker does not speak the protocol.
    pub fn decode(datagram: &[u8]) -> Result<Self, MessageFault> {
        let object = Object::parse(datagram)?;
        match object.text("type")? {
            "hello" => Ok(Self::Hello(Hello {
                proto: object.range("proto")?,
                language: object.text("language")?.to_owned(),
                sdk_version: object.text("sdk_version")?.to_owned(),
                function: object.text("function")?.to_owned(),
                kind: object.text("kind")?.to_owned(),
                schema_in: object.numbers("schema_in")?.into_iter().map(SchemaId).collect(),
                schema_out: SchemaId(object.number("schema_out")?),
                features: object.texts("features")?,
                boottime: object.number("boottime")?,
            })),
            "ready" => Ok(Self::Ready(Ready { sealed: object.truth("sealed")? })),
            "log" => Ok(Self::Log(Line {
                level: object.field("level", "error, warn, info or debug", |value| {
                    Level::from_name(value.as_str()?)
                })?,
                message: object.text("message")?.to_owned(),
                partition: PartitionId(object.small("partition")?),
                batch: BatchId(object.number("batch")?),
                fields: object.0.get("fields").and_then(Value::as_object).cloned().unwrap_or_default(),
            })),
            "metric" => Ok(Self::Metric(Sums {
                counters: object.sums("counters")?,
                lines: object.number("lines_left_out")?,
                refused: object.number("counters_left_out")?,
            })),
            "bye" => Ok(Self::Bye),
            found => Err(unknown(found)),
        }
    }
}

impl FromRuntime {
    /// The datagram.
    pub fn encode(&self) -> Vec<u8> {
        let value = match self {
            Self::Welcome(welcome) => json!({
                "type": "welcome",
                "proto": welcome.proto,
                "pipeline": welcome.pipeline,
                "encoding": "records",
                "heartbeat_ms": welcome.heartbeat_ms,
                "batch_timeout_ms": welcome.batch_timeout_ms,
                "routes": welcome.routes,
                "checksum": if welcome.checksum { "full" } else { "header" },
                "params": welcome.params,
            }),
            Self::Reject(reject) => {
                json!({ "type": "reject", "code": reject.code, "message": reject.message })
            }
        };
        value.to_string().into_bytes()
    }

    /// Reads a datagram.
    ///
    /// # Errors
    /// [`MessageFault`]: the other side is no runtime of a vertex.
    pub fn decode(datagram: &[u8]) -> Result<Self, MessageFault> {
        let object = Object::parse(datagram)?;
        match object.text("type")? {
            "welcome" => Ok(Self::Welcome(Welcome {
                proto: object.small("proto")?,
                pipeline: object.text("pipeline")?.to_owned(),
                heartbeat_ms: object.number("heartbeat_ms")?,
                batch_timeout_ms: object.number("batch_timeout_ms")?,
                routes: object.texts("routes")?,
                checksum: object.text("checksum")? == "full",
                params: object.0.get("params").cloned().unwrap_or(Value::Null),
            })),
            "reject" => Ok(Self::Reject(Reject {
                code: object.text("code")?.to_owned(),
                message: object.text("message")?.to_owned(),
            })),
            found => Err(unknown(found)),
        }
    }
}

fn unknown(found: &str) -> MessageFault {
    MessageFault::UnknownType { found: found.chars().take(32).collect() }
}

/// A JSON object, its fields by kind.
struct Object(serde_json::Map<String, Value>);

impl Object {
    fn parse(datagram: &[u8]) -> Result<Self, MessageFault> {
        match serde_json::from_slice(datagram) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            _ => Err(MessageFault::NotAnObject),
        }
    }

    fn field<'a, T>(
        &'a self,
        field: &'static str,
        expected: &'static str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<T, MessageFault> {
        self.0.get(field).and_then(read).ok_or(MessageFault::Field { field, expected })
    }

    fn text(&self, field: &'static str) -> Result<&str, MessageFault> {
        self.field(field, "a text", Value::as_str)
    }

    fn truth(&self, field: &'static str) -> Result<bool, MessageFault> {
        self.field(field, "true or false", Value::as_bool)
    }

    fn number(&self, field: &'static str) -> Result<u64, MessageFault> {
        self.field(field, "a number from 0 to 2^64-1", Value::as_u64)
    }

    fn small(&self, field: &'static str) -> Result<u32, MessageFault> {
        self.field(field, "a number from 0 to 2^32-1", |value| value.as_u64()?.try_into().ok())
    }

    fn numbers(&self, field: &'static str) -> Result<Vec<u64>, MessageFault> {
        self.field(field, "a list of numbers", |value| value.as_array()?.iter().map(Value::as_u64).collect())
    }

    fn texts(&self, field: &'static str) -> Result<Vec<String>, MessageFault> {
        self.field(field, "a list of texts", |value| {
            value.as_array()?.iter().map(|text| text.as_str().map(str::to_owned)).collect()
        })
    }

    /// Values that are no sums are left out.
    fn sums(&self, field: &'static str) -> Result<Vec<(String, u64)>, MessageFault> {
        self.field(field, "an object", |value| {
            let all = value.as_object()?.iter();
            Some(all.filter_map(|(name, value)| Some((name.clone(), value.as_u64()?))).collect())
        })
    }

    fn range(&self, field: &'static str) -> Result<(u32, u32), MessageFault> {
        self.field(field, "two numbers", |value| {
            let [low, high] = value.as_array()?.as_slice() else { return None };
            Some((low.as_u64()?.try_into().ok()?, high.as_u64()?.try_into().ok()?))
        })
    }
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
